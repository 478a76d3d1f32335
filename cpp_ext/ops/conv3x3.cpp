// 3 x 3 convolution of stride 1 by minimal filtering: tiles of 4 x 4 results from 6 x 6 inputs,
// 36 products for 144 (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks",
// arXiv:1509.09308), at the points 0, 1, -1, 1/2, -2 and infinity, which round half as much as the
// usual 0, 1, -1, 2, -2. The transforms are in kernels_impl.hpp.
#include <algorithm>
#include <vector>

#include "layers.hpp"

namespace samrt::ops {
namespace {

constexpr int kTile = 4, kWindow = 6, kPlaces = kWindow * kWindow;
constexpr int kTilesPerUnit = 32;

// What three taps become at each of the points.
constexpr double kTaps[kWindow][3] = {{1, 0, 0},      {1, 1, 1},  {1, -1, 1},
                                      {1, 0.5, 0.25}, {1, -2, 4}, {0, 0, 1}};

// y (n) = three rows of x times their factors.
template <typename To>
void combine(const double (&factor)[3], const double* x, std::ptrdiff_t stride, int n, To* y) {
    for (int i = 0; i < n; ++i)
        y[i] = static_cast<To>(factor[0] * x[i] + factor[1] * x[stride + i] +
                               factor[2] * x[2 * stride + i]);
}

void end_pixel(float* pixel, int channels, const PixelEnd& then, const float* residual) {
    if (then.bias != nullptr)
        for (int c = 0; c < channels; ++c) pixel[c] += then.bias[c];
    if (residual != nullptr)
        for (int c = 0; c < channels; ++c) pixel[c] += residual[c];
    if (then.relu)
        for (int c = 0; c < channels; ++c) pixel[c] = std::max(pixel[c], 0.0f);
}

}  // namespace

Conv3x3Weights::Conv3x3Weights(const float* weight, int out_, int channels_)
    : channels(channels_), out(out_) {
    const std::size_t matrix = size(channels, out);
    std::vector<float> places(kPlaces * matrix);
    std::vector<double> space(size(9 + 3 * kWindow, out));  // all results of a channel side by side
    double *taps = space.data(), *half = taps + wide(9) * out;
    for (int c = 0; c < channels; ++c) {
        for (int n = 0; n < out; ++n)
            for (int t = 0; t < 9; ++t)
                taps[wide(t) * out + n] = double(weight[(wide(n) * channels + c) * 9 + t]);
        for (int a = 0; a < kWindow; ++a)
            combine(kTaps[a], taps, 3 * wide(out), 3 * out, half + wide(3 * a) * out);
        float* to = places.data() + size(c, out);
        for (int a = 0; a < kWindow; ++a)
            for (int b = 0; b < kWindow; ++b, to += matrix)
                combine(kTaps[b], half + wide(3 * a) * out, wide(out), out, to);
    }
    for (int f = 0; f < kPlaces; ++f)
        at_.emplace_back(places.data() + size(f, 1) * matrix, out, channels, out);
}

void conv3x3(const float* x, int height, int width, const Conv3x3Weights& weights, float* y,
             const Parallel& parallel, const PixelEnd& then) {
    const Kernels& by = kernels();
    const int across = (width + kTile - 1) / kTile, down = (height + kTile - 1) / kTile;
    const int tiles = across * down, channels = weights.channels, out = weights.out;
    const int block = std::min(kTilesPerUnit, std::max(4, (tiles + 1) / 2));
    parallel(size((tiles + block - 1) / block, 1), [&](std::size_t unit) {
        const int first = static_cast<int>(unit) * block, count = std::min(block, tiles - first);
        thread_local Buffer scratch;
        float* inside = scratch.grow(size(block, channels + out) * kPlaces);
        float* products = inside + size(block, channels) * kPlaces;
        for (int i = 0; i < count; ++i) {
            const int top = (first + i) / across * kTile - 1, left = (first + i) % across * kTile - 1;
            const float* pixels[kPlaces];
            for (int p = 0; p < kPlaces; ++p) {
                const int row = top + p / kWindow, column = left + p % kWindow;
                pixels[p] = row < 0 || row >= height || column < 0 || column >= width
                                ? nullptr
                                : x + (wide(row) * width + column) * channels;
            }
            by.filter_in(pixels, channels, wide(block) * channels, inside + size(i, channels));
        }
        for (int f = 0; f < kPlaces; ++f)
            weights.at(f).times(inside + size(f, 1) * size(block, channels), channels, count,
                                products + size(f, 1) * size(block, out), out, Epilogue());
        for (int i = 0; i < count; ++i) {
            const int top = (first + i) / across * kTile, left = (first + i) % across * kTile;
            float* pixels[kTile * kTile];
            for (int p = 0; p < kTile * kTile; ++p) {
                const int row = top + p / kTile, column = left + p % kTile;
                pixels[p] = row >= height || column >= width
                                ? nullptr
                                : y + (wide(row) * width + column) * out;
            }
            by.filter_out(products + size(i, out), wide(block) * out, out, pixels);
            for (float* pixel : pixels)
                if (pixel != nullptr)
                    end_pixel(pixel, out, then, then.residual ? then.residual + (pixel - y) : nullptr);
        }
    });
}

}  // namespace samrt::ops
