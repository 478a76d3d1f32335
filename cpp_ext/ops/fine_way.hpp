// One prompt on its way through the convolutions of `tiny`'s decoder, from stride 16 to stride 2.
#pragma once

#include <algorithm>
#include <vector>

#include "fine_layers.hpp"

namespace samrt::ops {

inline void relu(float* x, std::ptrdiff_t count) {
    for (std::ptrdiff_t i = 0; i < count; ++i) x[i] = std::max(x[i], 0.0f);
}

// n is a multiple of 16.
inline float sum(const float* x, std::ptrdiff_t n) {
    float part[16] = {};
    for (std::ptrdiff_t i = 0; i < n; i += 16)
        for (int k = 0; k < 16; ++k) part[k] += x[i + k];
    float total = 0;
    for (const float value : part) total += value;
    return total;
}

// Row y of an image (side, side, channels) doubled, bilinear with half-pixel centres:
// up (2 side, channels).
void double_pixels(const float* x, int side, int channels, int y, float* up);

// x (pixels, channels) times weight (out, channels) and bias to a row of planes: y + o * plane.
void to_planes(const float* x, int pixels, int channels, const float* weight, const float* bias,
               int out, float* y, std::ptrdiff_t plane);

// Row y of planes (count, n, n) doubled: up (count, 2 n).
void double_planes(const float* planes, int count, int n, int y, float* up);

constexpr int kPad = 16;  // floats around each row of planes

// Planes with a margin, so that a row may be read from one before its start to one behind its end.
class Planes {
public:
    Planes(int count, int height, int width)
        : height_(height), stride_(wide(width) + 2 * kPad), width_(width),
          data_(size(count, height) * static_cast<std::size_t>(stride_)) {}
    float* row(int plane, int y) const {
        return data_.data() + (wide(plane) * height_ + y) * stride_ + kPad;
    }
    void close(int plane, int y) const { row(plane, y)[-1] = row(plane, y)[width_] = 0.0f; }

private:
    int height_;
    std::ptrdiff_t stride_;
    int width_;
    Buffer data_;
};

// The parts of `fine_masks`: members are the widths, the weights, and what one part leaves for the next.
class Way {
public:
    Way(const FineInputs& in, int prompt, int masks, int side, const FineWeights& weights,
        const FineOutputs& out, const Parallel& parallel)
        : in_(in), w_(weights), out_(out), parallel_(parallel), prompt_(prompt), masks_(masks),
          side_(side), n_(4 * side), f8_(weights.down8.n), f4_(weights.mix4a.out),
          f2_(weights.mix2.out), plane_(wide(n_) * n_),
          grid_(in.grid + wide(prompt) * kPromptMaps * plane_), zeros_(size(2 * n_ + 2 * kPad, 1)) {
        std::fill_n(zeros_.data(), 2 * n_ + 2 * kPad, 0.0f);
    }

    // In this order; the first three are in fine_coarse.cpp, the others in fine_masks.cpp.
    void compare();   // features under the prompt and around it
    void stride16();  // the residual block at stride 16, and its projection
    void stride8();   // channels last
    void stride4();   // planes
    void stride2();   // masks, and of every band of their rows what the figures need
    void figures();

private:
    const float* map(int number) const { return grid_ + number * plane_; }
    void weigh_row(float* mass, int y) const;
    void pool_row(const float* from, int y, float* to) const;
    void around(const Planes& planes, int count, int y, int height, const float** rows) const;
    float* mask_row(int m, int y) const;
    void figures_of_row(int y, int band, float* small);

    const FineInputs& in_;
    const FineWeights& w_;
    const FineOutputs& out_;
    const Parallel& parallel_;
    const int prompt_, masks_, side_, n_, f8_, f4_, f2_;
    const std::ptrdiff_t plane_;
    const float* const grid_;
    Buffer zeros_;
    Buffer coarse_;   // (side * side, f8)
    Buffer half_;     // (f4, 2 side, 2 side)
    Buffer quarter_;  // (f2, 4 side, 4 side)
    Numbers means8_, means4_, matrix8_, matrix4_, bias8_, bias4_, columns_, rows_;
    std::vector<MaskSums> sums_;
};

}  // namespace samrt::ops
