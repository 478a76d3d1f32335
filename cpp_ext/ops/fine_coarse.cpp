// The decoder of `tiny` down to stride 8, where channels lie last and 3 x 3 convolutions are made by
// minimal filtering.
#include <algorithm>
#include <cmath>
#include <vector>

#include "fine_way.hpp"

namespace samrt::ops {
namespace {

float dot(const float* a, const float* b, std::ptrdiff_t n) {
    float part[16] = {};
    std::ptrdiff_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int k = 0; k < 16; ++k) part[k] += a[i + k] * b[i + k];
    for (int k = 0; i < n; ++i, ++k) part[k] += a[i] * b[i];
    float sum = 0;
    for (const float value : part) sum += value;
    return sum;
}

// `Prototypes`: I + a diag(inside) + b diag(outside), and what is added.
void similar(const Likeness& like, const Numbers& means, int c, Numbers& matrix,
                    Numbers& bias) {
    matrix.assign(size(c, c), 0.0f);
    for (int i = 0; i < c; ++i)
        for (int k = 0; k < c; ++k)
            matrix[size(i, c) + size(k, 1)] = (i == k ? 1.0f : 0.0f) +
                                              like.a[size(i, c) + size(k, 1)] * means[size(k, 1)] +
                                              like.b[size(i, c) + size(k, 1)] * means[size(c + k, 1)];
    bias = like.bias;
    for (int k = 0; k < 2 * c; ++k)
        for (int i = 0; i < c; ++i)
            bias[size(i, 1)] +=
                means[size(k, 1)] * like.weight[size(k, c) + size(i, 1)] +
                means[size(k, 1)] * means[size(k, 1)] * like.weight[size(2 * c + k, c) + size(i, 1)];
}

}  // namespace

// Means of the features over the object and over what surrounds it: `prototype_weights`.
void Way::compare() {
    const int half = n_ / 2;
    const std::ptrdiff_t small = plane_ / 4;
    Buffer mass(static_cast<std::size_t>(2 * plane_ + 2 * small));
    float *mass4 = mass.data(), *mass8 = mass4 + 2 * plane_;
    parallel_(size(half / 4, 1), [&](std::size_t unit) {
        for (int pair = 4 * static_cast<int>(unit); pair < 4 * static_cast<int>(unit) + 4; ++pair) {
            for (int y = 2 * pair; y < 2 * pair + 2; ++y) weigh_row(mass4, y);
            for (int k = 0; k < 2; ++k) pool_row(mass4 + k * plane_, pair, mass8 + k * small);
        }
    });
    means8_.resize(size(2, f8_));
    means4_.resize(size(2, f4_));
    float total[4];
    for (int k = 0; k < 2; ++k) {
        total[k] = sum(mass8 + k * small, small) + 1e-3f;
        total[2 + k] = sum(mass4 + k * plane_, plane_) + 1e-3f;
    }
    parallel_(size(2, f8_ + f4_), [&](std::size_t unit) {
        const int channel = static_cast<int>(unit / 2), k = static_cast<int>(unit % 2);
        if (channel < f8_)
            means8_[size(k, f8_) + size(channel, 1)] =
                dot(mass8 + k * small, in_.f8 + channel * small, small) / total[k];
        else
            means4_[size(k, f4_) + size(channel - f8_, 1)] =
                dot(mass4 + k * plane_, in_.f4 + (channel - f8_) * plane_, plane_) / total[2 + k];
    });
    similar(w_.like8, means8_, f8_, matrix8_, bias8_);
    similar(w_.like4, means4_, f4_, matrix4_, bias4_);
}

void Way::weigh_row(float* mass, int y) const {
    const float *ellipse = map(2) + wide(y) * n_, *field = map(3) + wide(y) * n_;
    const float *has = map(5) + wide(y) * n_, *positive = map(6) + wide(y) * n_;
    const float *negative = map(8) + wide(y) * n_, *soft = map(10) + wide(y) * n_;
    float *inside = mass + wide(y) * n_, *outside = inside + plane_;
    for (int i = 0; i < n_; ++i) {
        const float ring = std::max(1.0f - std::fabs(field[i] + 0.4f) * 3.0f, 0.0f) * has[i];
        inside[i] = std::max(ellipse[i], 0.0f) + positive[i] + std::max(soft[i], 0.0f);
        outside[i] = ring + negative[i] + std::max(-soft[i], 0.0f) * 0.1f + 0.003f;
    }
}

// Row y of a plane of half the size: means of 2 x 2.
void Way::pool_row(const float* from, int y, float* to) const {
    const float *a = from + 2 * wide(y) * n_, *b = a + n_;
    float* row = to + wide(y) * (n_ / 2);
    for (int i = 0; i < n_ / 2; ++i)
        row[i] = (a[2 * i] + a[2 * i + 1] + b[2 * i] + b[2 * i + 1]) * 0.25f;
}

// The residual block at stride 16, and its projection to the width of stride 8.
void Way::stride16() {
    const Bottleneck& mix = w_.mix16;
    const int middle = mix.w1.n, channels = mix.w1.k, rows = 2 * side_;
    const float* x = in_.image + wide(prompt_) * side_ * side_ * channels;
    Buffer narrow(size(side_ * side_, 2 * middle));
    float *first = narrow.data(), *second = first + wide(side_) * side_ * middle;
    const std::size_t units = size(side_ / 2, 1);
    parallel_(units, [&](std::size_t unit) {
        const std::ptrdiff_t from = static_cast<std::ptrdiff_t>(unit) * rows;
        Epilogue then;
        then.bias = mix.b1.data();
        mix.w1.times(x + from * channels, channels, rows, first + from * middle, middle, then);
        relu(first + from * middle, wide(rows) * middle);
    });
    conv3x3(first, side_, side_, mix.w2, second, parallel_, {mix.b2.data(), nullptr, true});
    coarse_.grow(size(side_ * side_, f8_));
    parallel_(units, [&](std::size_t unit) {
        const std::ptrdiff_t from = static_cast<std::ptrdiff_t>(unit) * rows;
        thread_local Buffer scratch;
        float* whole = scratch.grow(size(rows, channels));
        Epilogue then;
        then.bias = mix.b3.data();
        then.residual = x + from * channels;
        then.residual_stride = channels;
        mix.w3.times(second + from * middle, middle, rows, whole, channels, then);
        relu(whole, wide(rows) * channels);
        Epilogue down;
        down.bias = w_.down8_bias.data();
        w_.down8.times(whole, channels, rows, coarse_.data() + from * f8_, f8_, down);
    });
}

void Way::stride8() {
    const Kernels& by = kernels();
    const int width = 2 * side_, depth = f8_ + kPromptMaps;
    const std::ptrdiff_t area = wide(width) * width, count = area * f8_;
    Numbers rows(size(depth, f8_)), bias(bias8_);
    std::vector<const float*> lines;
    for (int k = 0; k < depth; ++k) {
        for (int i = 0; i < f8_; ++i)
            rows[size(k, f8_) + size(i, 1)] =
                k < f8_ ? matrix8_[size(i, f8_) + size(k, 1)]
                        : w_.dense8[size(k - f8_, f8_) + size(i, 1)];
        lines.push_back(rows.data() + size(k, f8_));
    }
    for (int i = 0; i < f8_; ++i) bias[size(i, 1)] += w_.dense8_bias[size(i, 1)];
    Buffer packed(packed_size(by, depth, f8_));
    by.pack(lines.data(), depth, f8_, packed.data());
    Buffer maps(static_cast<std::size_t>(3 * count));
    float *start = maps.data(), *middle = start + count, *end = middle + count;
    parallel_(size(width, 1), [&](std::size_t unit) {
        const int y = static_cast<int>(unit);
        thread_local Buffer scratch;
        float* operand = scratch.grow(size(width, depth + f8_));
        float* up = operand + wide(width) * depth;
        for (int c = 0; c < f8_; ++c) {
            const float* from = in_.f8 + c * area + wide(y) * width;
            for (int i = 0; i < width; ++i) operand[wide(i) * depth + c] = from[i];
        }
        for (int m = 0; m < kPromptMaps; ++m) {
            const float *a = map(m) + 2 * wide(y) * n_, *b = a + n_;
            for (int i = 0; i < width; ++i)
                operand[wide(i) * depth + f8_ + m] =
                    (a[2 * i] + a[2 * i + 1] + b[2 * i] + b[2 * i + 1]) * 0.25f;
        }
        double_pixels(coarse_.data(), side_, f8_, y, up);
        Epilogue then;
        then.bias = bias.data();
        then.residual = up;
        then.residual_stride = f8_;
        float* to = start + wide(y) * width * f8_;
        by.multiply(operand, depth, width, packed.data(), depth, f8_, to, f8_, then);
        relu(to, wide(width) * f8_);
    });
    conv3x3(start, width, width, w_.mix8a, middle, parallel_, {w_.mix8a_bias.data(), nullptr, true});
    conv3x3(middle, width, width, w_.mix8b, end, parallel_, {w_.mix8b_bias.data(), start, true});
    half_.grow(size(f4_, width * width));
    parallel_(size(width, 1), [&](std::size_t unit) {
        const std::ptrdiff_t from = static_cast<std::ptrdiff_t>(unit) * width * f8_;
        to_planes(end + from, width, f8_, w_.down4.data(), w_.down4_bias.data(), f4_,
                  half_.data() + static_cast<std::ptrdiff_t>(unit) * width, area);
    });
}

void double_pixels(const float* x, int side, int channels, int y, float* up) {
    const int line = side * channels, last = side - 1;
    const int near = y / 2, far = std::min(std::max(near + (y % 2 ? 1 : -1), 0), last);
    const float *a = x + wide(near) * line, *b = x + wide(far) * line;
    thread_local Buffer scratch;
    float* between = scratch.grow(size(line, 1));
    for (int i = 0; i < line; ++i) between[i] = a[i] * 0.75f + b[i] * 0.25f;
    for (int i = 0; i < side; ++i) {
        const float* here = between + wide(i) * channels;
        const float* before = between + wide(std::max(i - 1, 0)) * channels;
        const float* behind = between + wide(std::min(i + 1, last)) * channels;
        float* to = up + 2 * wide(i) * channels;
        for (int c = 0; c < channels; ++c) {
            to[c] = here[c] * 0.75f + before[c] * 0.25f;
            to[channels + c] = here[c] * 0.75f + behind[c] * 0.25f;
        }
    }
}

void to_planes(const float* x, int pixels, int channels, const float* weight, const float* bias,
               int out, float* y, std::ptrdiff_t plane) {
    const Kernels& by = kernels();
    thread_local Buffer scratch;
    thread_local std::vector<const float*> rows;
    float* columns = scratch.grow(packed_size(by, channels, pixels));
    rows.resize(size(pixels, 1));
    for (int i = 0; i < pixels; ++i) rows[size(i, 1)] = x + wide(i) * channels;
    by.pack_transposed(rows.data(), channels, pixels, columns);
    by.multiply(weight, channels, out, columns, channels, pixels, y, plane, Epilogue());
    for (int o = 0; o < out; ++o)
        for (int i = 0; i < pixels; ++i) y[o * plane + i] += bias[o];
}

}  // namespace samrt::ops
