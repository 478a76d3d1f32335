// Which input samples make an output sample, and with which weights, along one axis.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace samrt {

enum class Interpolation {
    kBilinearAntialias,  // triangle filter, widened when shrinking: Pillow's BILINEAR
    kBicubic,            // cubic filter a = -0.5, widened when shrinking: Pillow's BICUBIC
    kArea,               // OpenCV's INTER_AREA
    kBilinear,           // two nearest samples, never widened: OpenCV's INTER_LINEAR
    kNearest,            // sample floor(i * in / out): OpenCV's INTER_NEAREST
    kBsplineAntialias,   // Gaussian, then cubic B-spline at pixel centres: see spline.hpp
    kBsplineCorners,     // cubic B-spline, corner samples onto corner samples: see spline.hpp
};

// What becomes of a resized sample before it is normalised.
enum class Rounding {
    kNearest,   // to 8 bits, as an image
    kTruncate,  // to 8 bits, fractions dropped
    kNone,      // stays a float
};

bool is_spline(Interpolation kind);

// Throws std::invalid_argument that lists the names when `name` is none of them.
Interpolation parse_interpolation(const std::string& name);
Rounding parse_rounding(const std::string& name);

// Output sample i is the sum over k < count[i] of weight[i * width + k] * input[first[i] + k].
// Weights past count[i] are zero.
template <typename Weight>
struct Taps {
    int in_size = 0;
    int out_size = 0;
    int width = 0;  // largest count
    std::vector<std::int32_t> first;
    std::vector<std::int32_t> count;
    std::vector<Weight> weight;

    bool identity() const { return in_size == out_size; }
};

struct FloatTaps : Taps<float> {
    // The sum is one product, rounded, to which the others are added fused: each product and its
    // sum rounded once. It starts with the first tap, or with the last if `backwards`.
    bool fused = false;
    bool backwards = false;
};

// `area_average` matters for kArea alone: true when neither axis grows. OpenCV falls back to a
// kind of linear interpolation on both axes as soon as one of them grows.
// kNearest gives one tap of weight one.
FloatTaps make_float_taps(Interpolation kind, int in_size, int out_size, bool area_average);

// kBilinear and kBilinearAntialias for float samples, with the weights and the order of sums of
// PyTorch's interpolate(align_corners=False) without and with antialias. Taps may reach one
// sample past the end, which stands for the last one.
FloatTaps make_fused_taps(Interpolation kind, int in_size, int out_size);

// Fixed-point weights with 22 fraction bits, as Pillow resamples 8-bit images.
constexpr int kFractionBits = 22;

struct FixedTaps : Taps<std::int32_t> {
    // The same weights for the vector units, split as weight = high * 2^15 + low with
    // 0 <= low < 2^15. For every output sample there are `groups` groups of `group_taps` taps;
    // one group is `group_taps` low parts followed by `group_taps` high parts.
    int group_taps = 0;
    int groups = 0;
    bool coarse = false;  // all low parts are zero, as where the size doubles
    std::vector<std::int16_t> split;
};

// kBilinearAntialias and kBicubic only. group_taps 0 leaves `split` empty.
FixedTaps make_fixed_taps(Interpolation kind, int in_size, int out_size, int group_taps);

constexpr int kLowBits = 15;
inline std::int16_t low_part(std::int32_t weight) {
    return static_cast<std::int16_t>(weight & ((1 << kLowBits) - 1));
}
inline std::int16_t high_part(std::int32_t weight) {
    return static_cast<std::int16_t>((weight - low_part(weight)) / (1 << kLowBits));
}

}  // namespace samrt
