// The inner loops of the operators, one table of them per instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

namespace samrt::ops {

// What becomes of a product before it is stored; rows of `residual` and of the result have their
// own distances. Order: bias, gelu, residual, gelu_last.
struct Epilogue {
    const float* bias = nullptr;      // one number per column
    const float* residual = nullptr;  // added
    std::ptrdiff_t residual_stride = 0;
    bool accumulate = false;  // the result's old value is added to the product, before the bias
    bool gelu = false;
    bool gelu_last = false;
};

// One row of a convolution of planes (channels first) of one or three taps across and down.
struct PlanarRow {
    const float* const* rows;  // (channels, taps) rows of the input
    int channels, taps;        // of three taps, a number before each row and one behind it count too
    const float* weight;       // (out / 4, channels, taps, taps, 4)
    const float* bias;         // (out)
    const float* const* add;   // (out) rows that are added, or null
    bool relu;
    int width, out;            // multiples of 16 and of 4
    float* const* y;           // (out) rows
};

// What a row of a mask's probabilities adds to the figures that its score is made of.
struct MaskSums {
    float probability = 0, area = 0, both = 0, positive = 0, negative = 0;
};

struct Kernels {
    const char* name;
    bool fast8;  // 8-bit products are faster than those of floats
    int lanes;
    int panel;  // columns of a packed panel

    // Matrices (k, n) are packed into panels of `panel` columns: (panels, k, panel), the last one
    // filled with zeros. packed_size(k, n) floats.
    // b (k, n): rows[i] points to row i.
    void (*pack)(const float* const* rows, int k, int n, float* packed);
    // The same of the transpose: b (n, k), rows[j] points to row j of n.
    void (*pack_transposed)(const float* const* rows, int k, int n, float* packed);
    // c (rows, n) = a (rows, k) times the packed matrix; then the epilogue.
    void (*multiply)(const float* a, std::ptrdiff_t a_stride, int rows, const float* packed, int k,
                     int n, float* c, std::ptrdiff_t c_stride, const Epilogue& then);
    // 8-bit integers. x (n) to round(x / scale) + 128 with scale = max |x| / 127, which is returned;
    // (n + 3) / 4 * 4 numbers are written.
    float (*quantize)(const float* x, int n, std::uint8_t* q);
    // b (k, n), rows[i] points to row i: panels as above, four rows at a time side by side.
    void (*pack8)(const std::int8_t* const* rows, int k, int n, std::int8_t* packed);
    // c = (a - 128) times the packed matrix, times row_scale[r] * scale[j]; then the epilogue.
    // sums (n): 128 times the sum of each column.
    void (*multiply8)(const std::uint8_t* a, std::ptrdiff_t a_stride, int rows,
                      const std::int8_t* packed, int k, int n, const float* row_scale,
                      const float* scale, const std::int32_t* sums, float* c,
                      std::ptrdiff_t c_stride, const Epilogue& then);
    // (x - mean) / sqrt(var + epsilon) * gamma + beta of a row of n, then perhaps gelu; beta may be
    // null; y may be x.
    void (*normalize)(const float* x, int n, const float* gamma, const float* beta, float epsilon,
                      bool gelu, float* y);
    // One row of a softmax over a tile of n scores: bias (n, or null) is added; then with
    // m = max(*maximum, scores) they become e^(score - m), *maximum m, and the result is their sum.
    float (*softmax)(float* scores, const float* bias, int n, float* maximum);
    // The same with score (r, c) of (rows, columns) plus down[r] + across[c]. `lanes` floats behind
    // `across` are read; space: rows * columns + lanes floats.
    float (*softmax_relative)(float* scores, const float* down, int rows, const float* across,
                              int columns, float* space, float* maximum);
    // Softmax down each column of each group of `count` rows; tile (groups * count, columns).
    void (*softmax_down)(float* tile, int groups, int count, int columns);
    // y = x * factor; x may be y.
    void (*scale)(const float* x, float factor, int n, float* y);
    // y = x + z; y may be x.
    void (*add)(const float* x, const float* z, int n, float* y);
    // One row of a 3 x 3 depthwise convolution, channels last. rows: the three input rows, each
    // starts one pixel left of the first output pixel's centre; null rows are zeros. weight
    // (9, channels). Pixel x of the output reads input pixels x * stride .. x * stride + 2.
    void (*depthwise)(const float* const* rows, const float* weight, const float* bias,
                      int channels, int pixels, int stride, bool gelu, float* y);
    // The transforms around the products of a 3 x 3 convolution, see conv3x3.cpp. The 6 x 6 pixels
    // of a tile (null: zeros), each of `channels`, become 36 vectors `stride` floats apart.
    void (*filter_in)(const float* const* pixels, int channels, std::ptrdiff_t stride, float* to);
    // 36 vectors become the 4 x 4 pixels of the result; those that are null are left out.
    void (*filter_out)(const float* from, std::ptrdiff_t stride, int channels, float* const* pixels);
    void (*planar)(const PlanarRow& row);
    // One row of an image doubled, bilinear with half-pixel centres: y (2 n) from the nearer and the
    // farther of its two rows (n), weights 3/4 and 1/4. space: n + 2 floats.
    void (*double_row)(const float* near, const float* far, int n, float* space, float* y);
    // y = 1 / (1 + e^-x); y may be x. n is a multiple of 16.
    void (*sigmoid)(const float* x, int n, float* y);
    // One row of logits (n, a multiple of 16) of a mask: its largest probability is returned,
    // columns (n) = max(columns, probabilities), and the sums grow; clicks: rows of two maps.
    float (*mask_figures)(const float* logits, int n, const float* positive, const float* negative,
                          float* columns, MaskSums* sums);
};

inline std::size_t packed_size(const Kernels& kernels, int k, int n) {
    const int panels = (n + kernels.panel - 1) / kernels.panel;
    return static_cast<std::size_t>(panels) * static_cast<std::size_t>(k) *
           static_cast<std::size_t>(kernels.panel);
}

inline std::size_t packed8_size(const Kernels& kernels, int k, int n) {
    return packed_size(kernels, (k + 3) / 4 * 4, n);
}

// The best table that this processor runs; SAMRT_OPS_KERNELS=baseline, avx2, avx512, vnni or neon
// chooses another one that it runs.
const Kernels& kernels();

const Kernels* kernels_vnni();  // null where they were not built or do not run
const Kernels* kernels_avx512();
const Kernels* kernels_avx2();
const Kernels* kernels_baseline();  // NEON on ARM

}  // namespace samrt::ops
