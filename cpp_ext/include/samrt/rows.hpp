// The inner loops, one table of them per instruction set. Everything else is built on these.
// All versions give the same bits: no fused multiply-add, and sums in one fixed order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "samrt/taps.hpp"

namespace samrt {

// value -> (value * scale - mean) / std in float32.
struct Norm {
    float mean = 0.0f;
    float std = 1.0f;
    float scale = 1.0f;
};

// Rows that are interleaved for a block: element i of eight rows lies at [8 * i, 8 * i + 8).
constexpr int kBlockRows = 8;
// Rows that one call of `shrink_rows` takes at most.
constexpr int kRowsAtOnce = 4;
// Bytes that the row loops may read past the end of an 8-bit row or write past the end of theirs.
constexpr std::size_t kRowSlack = 16;
// Most samples of one axis that make one output sample of a two-step bilinear resize.
constexpr int kStencil = 4;
// Samples of one axis that a cubic B-spline is made of.
constexpr int kSpline = 4;

struct RowKernels {
    const char* name;
    int group_taps_grey;  // how FixedTaps::split must be laid out for 1 and for 3 channels;
    int group_taps_rgb;   // 0 where this version reads the plain weights

    // 8-bit resampling along x of `rows` <= kRowsAtOnce rows of `channels` (1 or 3) interleaved
    // samples. Sources need readable bytes up to first + groups * group_taps pixels + kRowSlack,
    // destinations kRowSlack writable bytes past the end.
    void (*resample_x)(const FixedTaps& taps, int channels, const std::uint8_t* const* source,
                       int rows, std::uint8_t* const* target);
    // 8-bit resampling along y: target[i] = sum of weight[k] * source[k][i] for i < n.
    void (*resample_y)(const std::uint8_t* const* source, const std::int32_t* weight, int taps,
                       std::size_t n, std::uint8_t* target);

    // n samples -> n normalised floats; n RGB pixels -> three planes, target[c] from channel c.
    void (*normalize_grey)(const std::uint8_t* source, std::size_t n, const Norm& norm,
                           float* target);
    void (*normalize_rgb)(const std::uint8_t* source, std::size_t n, const Norm* norm,
                          float* const* target);
    void (*normalize_float)(const float* source, std::size_t n, const Norm& norm, float* target);
    void (*normalize_float_rgb)(const float* source, std::size_t n, const Norm* norm,
                                float* const* target);
    void (*float_to_half)(const float* source, std::size_t n, std::uint16_t* target);
    // Round to nearest, ties to even, then clip to [0, 255].
    void (*float_to_byte)(const float* source, std::size_t n, std::uint8_t* target);
    void (*byte_range)(const std::uint8_t* source, std::size_t n, std::uint8_t* low,
                       std::uint8_t* high);

    // Eight rows of n floats <-> one block of 8 * n floats.
    void (*interleave)(const float* const* rows, std::size_t n, float* block);
    void (*deinterleave)(const float* block, std::size_t n, float* const* rows);
    // Float resampling along x of a block with `channels` interleaved samples per pixel.
    void (*resample_block)(const FloatTaps& taps, int channels, const float* source,
                           float* target);
    // The same where taps.fused.
    void (*resample_block_fused)(const FloatTaps& taps, int channels, const float* source,
                                 float* target);
    // Column i of the target block is the sum over k < taps of
    // weight[kStencil * i + k] * column index[kStencil * i + k] of the source block.
    void (*stencil_block)(const float* source, const std::int32_t* index, const float* weight,
                          int taps, std::size_t n, float* target);
    // Smallest and largest of n >= 1 columns of a block without NaN, for each of its rows.
    void (*range_block)(const float* source, std::size_t n, float* low, float* high);
    // target[i] = weight[0] * rows[0][i] + weight[1] * rows[1][i] + ... from the left.
    void (*blend)(const float* const* rows, const float* weight, int taps, std::size_t n,
                  float* target);
    // The same with fused products: see FloatTaps.
    void (*blend_fused)(const float* const* rows, const float* weight, int taps, std::size_t n,
                        float* target);
    // The same sum compared: target[i] = sum > threshold, 0 or 1. taps <= kStencil.
    void (*blend_above)(const float* const* rows, const float* weight, int taps, std::size_t n,
                        float threshold, std::uint8_t* target);
    // The same sum compared with levels[0] for the target; counts[0] and counts[1] grow by the
    // number of sums above levels[1] and levels[2]. taps <= kStencil.
    void (*blend_levels)(const float* const* rows, const float* weight, int taps, std::size_t n,
                         const float* levels, std::uint8_t* target, std::int64_t* counts);
    // Smallest and largest of n >= 1 floats without NaN.
    void (*float_range)(const float* source, std::size_t n, float* low, float* high);

    // Eight output rows of a cubic B-spline, all sums from the left in double precision. `source`
    // is kSpline blocks of eight interleaved rows of `columns` pixels, already weighted along y;
    // pixel i of the target block takes columns index[kSpline * i + b] with their weights. With
    // `across`, kSpline weights, every product is then weighted across the three channels, which
    // are mirrored at both ends: channel c takes the channels c - 1, c, c + 1 and c + 2.
    void (*spline_block)(const double* source, std::size_t columns, int channels,
                         const std::int32_t* index, const double* weight,
                         const double* across, std::size_t n, double* target);
};

// The table in use: the best one that this processor runs, unless another was selected.
const RowKernels& row_kernels();

// "auto", "baseline", "avx2" or "neon"; returns the name of the table now in use. Throws
// std::invalid_argument for a name that is unknown or that this processor cannot run.
std::string select_row_kernels(const std::string& name);

}  // namespace samrt
