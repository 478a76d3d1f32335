// The operators' mathematics; knows nothing of ONNX Runtime.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <new>
#include <vector>

#include "kernels.hpp"

namespace samrt::ops {

// Places and sizes in memory: larger than an int.
inline std::ptrdiff_t wide(int value) { return static_cast<std::ptrdiff_t>(value); }
inline std::size_t size(int a, int b) {
    return static_cast<std::size_t>(a) * static_cast<std::size_t>(b);
}

// Runs body(0) ... body(units - 1), in any order, on as many threads as the caller has.
using Parallel = std::function<void(std::size_t units, const std::function<void(std::size_t)>&)>;

// Floats that start at a cache line.
class Buffer {
public:
    Buffer() = default;
    explicit Buffer(std::size_t size) { grow(size); }
    // At least `size` floats; what was in them is lost when they grow.
    float* grow(std::size_t size) {
        if (size > size_) {
            const std::size_t bytes = (size * sizeof(float) + 63) / 64 * 64;
            data_.reset(static_cast<float*>(std::aligned_alloc(64, bytes)));
            size_ = data_ ? size : 0;
            if (!data_) throw std::bad_alloc();
        }
        return data_.get();
    }
    float* data() const { return data_.get(); }

private:
    struct Free {
        void operator()(float* data) const { std::free(data); }
    };
    std::unique_ptr<float, Free> data_;
    std::size_t size_ = 0;
};

// A constant matrix (k, n), packed once; of floats, or of 8-bit integers with a scale per column.
class Packed {
public:
    Packed() = default;
    // rows (k, n), `stride` numbers apart.
    Packed(const float* rows, std::ptrdiff_t stride, int k, int n);
    Packed(const std::int8_t* rows, const float* scale, std::ptrdiff_t stride, int k, int n);
    int k = 0, n = 0;
    bool integers() const { return integers_; }
    // c (rows, n) = a (rows, k) times this; then the epilogue. Rows of `a` are made integers first,
    // each with a scale of its own, if the matrix is of integers.
    void times(const float* a, std::ptrdiff_t a_stride, int rows, float* c,
               std::ptrdiff_t c_stride, const Epilogue& then) const;

private:
    Buffer data_, scale_;
    std::vector<std::int32_t> sums_;
    bool integers_ = false;
};

struct Norm {
    const float* gamma = nullptr;  // null: no normalisation
    const float* beta = nullptr;
    float epsilon = 1e-5f;
};

// y (rows, n) = then(norm(x (rows, k)) w). then.residual lies as y does.
void linear(const float* x, std::int64_t rows, const Packed& w, const Norm& norm,
            const Epilogue& then, float* y, const Parallel& parallel);

// The weights of two linear layers, cut along the hidden axis into parts that fit the cache.
class MlpWeights {
public:
    // w1 (channels, hidden), w2 (hidden, channels).
    MlpWeights(const float* w1, const float* w2, int channels, int hidden);
    // The same of integers; scale1 (hidden) and scale2 (channels).
    MlpWeights(const std::int8_t* w1, const float* scale1, const std::int8_t* w2,
               const float* scale2, int channels, int hidden);
    int channels, hidden;

    struct Part {
        int from, n;
        Packed w1, w2;
    };
    const std::vector<Part>& parts() const { return parts_; }

private:
    std::vector<Part> parts_;
};

// y = x + (gelu(norm(x) w1 + b1) w2 + b2), rows tokens.
void mlp(const float* x, std::int64_t rows, const Norm& norm, const MlpWeights& weights,
         const float* b1, const float* b2, float* y, const Parallel& parallel);

// x, y (height, width, channels); weight (9, channels); zero padding.
void depthwise(const float* x, int height, int width, int channels, const float* weight,
               const float* bias, float* y, const Parallel& parallel);

struct MbConv {
    const Packed *w1, *w3;
    const float *b1, *wd, *bd, *b3;
    int stride;
    bool residual;
};

// x (height, width, w1->k) to y ((height - 1) / stride + 1, ..., w3->n).
void mbconv(const float* x, int height, int width, const MbConv& layer, float* y,
            const Parallel& parallel);

// Two 3 x 3 convolutions of stride 2, a GELU between them; their weights by rows of taps.
struct StemWeights {
    // w1 (9, channels, middle) and w2 (9, middle, out), taps row by row.
    StemWeights(const float* w1, const float* w2, int channels, int middle, int out);
    int channels, middle, out;
    Packed first[3], second[3];
};

// image (channels, height, width) to y (height / 4, width / 4, out), sizes rounded up; zero padding.
void stem(const float* image, int height, int width, const StemWeights& weights, const float* b1,
          const float* b2, float* y, const Parallel& parallel);

// The weights of a 3 x 3 convolution at the 36 places of a tile.
class Conv3x3Weights {
public:
    // weight (out, channels, 3, 3).
    Conv3x3Weights(const float* weight, int out, int channels);
    int channels, out;
    const Packed& at(int place) const { return at_[static_cast<std::size_t>(place)]; }

private:
    std::vector<Packed> at_;
};

// What becomes of each pixel of a convolution: bias, residual, relu, in this order.
struct PixelEnd {
    const float* bias = nullptr;      // one number per channel
    const float* residual = nullptr;  // lies as the result does
    bool relu = false;
};

// x (height, width, channels) to y (height, width, out); stride 1, zero padding.
void conv3x3(const float* x, int height, int width, const Conv3x3Weights& weights, float* y,
             const Parallel& parallel, const PixelEnd& then = {});

struct AttentionShape {
    int heads, d;                  // channels of a token: heads * d
    int grid_h, grid_w;            // tokens
    int window_h, window_w;
    int keys() const { return window_h * window_w; }
};

struct AttentionInputs {
    const float* qkv;         // (tokens, 3, heads, d)
    const float* query_bias;  // (heads, d) or null
    const float* rows;        // (window_h, d, window_h) or null
    const float* columns;     // (window_w, d, window_w) or null
    const float* bias;        // (heads, keys, keys) or null
};

// y (tokens, heads, d).
void attention(const AttentionShape& shape, const AttentionInputs& in, float* y,
               const Parallel& parallel);

}  // namespace samrt::ops
