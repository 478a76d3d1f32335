#include <algorithm>
#include <cstring>

#include "layers.hpp"

namespace samrt::ops {
namespace {

constexpr int kBand = 16;  // rows of the result per unit of work: one row in 33 is made twice

int halved(int size) { return (size - 1) / 2 + 1; }

// Three rows, each with a pixel of zeros on the left and enough on the right for a 3 x 3
// convolution of stride 2; row r lies where row r - 3 did.
class Ring {
public:
    Ring(float* memory, int width, int channels)
        : memory_(memory), channels_(size(channels, 1)), width_(size(width, 1)),
          line_(floats(width, channels) / 3) {}

    static std::size_t floats(int width, int channels) {
        return 3 * size(2 * halved(width) + 1, channels);
    }

    // A row's line, its borders zero.
    float* line(int row) const {
        float* from = memory_ + size(row % 3, 1) * line_;
        std::memset(from, 0, channels_ * sizeof(float));
        std::memset(from + (width_ + 1) * channels_, 0,
                    (line_ - (width_ + 1) * channels_) * sizeof(float));
        return from + channels_;
    }
    // What the convolution's first pixel reads of a row.
    const float* taps(int row) const { return memory_ + size(row % 3, 1) * line_; }

private:
    float* memory_;
    std::size_t channels_, width_, line_;
};

// Row y of a convolution: the products of three rows of the ring, rows outside left out.
void convolve(const Ring& ring, int y, int height, int pixels, const Packed (&weight)[3],
              const float* bias, bool gelu, float* to) {
    const std::ptrdiff_t stride = 2 * (weight[0].k / 3);
    Epilogue then;
    for (const int tap : {0, 2, 1}) {  // the middle row is never outside
        const int row = 2 * y + tap - 1;
        if (row < 0 || row >= height) continue;
        if (tap == 1) {
            then.bias = bias;
            then.gelu = gelu;
        }
        weight[tap].times(ring.taps(row), stride, pixels, to, weight[tap].n, then);
        then.accumulate = true;
    }
}

// Channels side by side.
void interleave(const float* planes, std::size_t plane, int width, int channels, float* to) {
    if (channels == 3) {
        const float *red = planes, *green = planes + plane, *blue = planes + 2 * plane;
        for (int x = 0; x < width; ++x, to += 3) {
            to[0] = red[x];
            to[1] = green[x];
            to[2] = blue[x];
        }
        return;
    }
    for (int c = 0; c < channels; ++c)
        for (int x = 0; x < width; ++x) to[wide(x) * channels + c] = planes[size(c, 1) * plane + size(x, 1)];
}

}  // namespace

StemWeights::StemWeights(const float* w1, const float* w2, int channels_, int middle_, int out_)
    : channels(channels_), middle(middle_), out(out_) {
    for (int tap = 0; tap < 3; ++tap) {
        first[tap] = Packed(w1 + size(3 * tap * channels, middle), middle, 3 * channels, middle);
        second[tap] = Packed(w2 + size(3 * tap * middle, out), out, 3 * middle, out);
    }
}

void stem(const float* image, int height, int width, const StemWeights& weights, const float* b1,
          const float* b2, float* y, const Parallel& parallel) {
    const int mid_h = halved(height), mid_w = halved(width);
    const int out_h = halved(mid_h), out_w = halved(mid_w);
    const std::size_t plane = size(height, width);
    parallel(size((out_h + kBand - 1) / kBand, 1), [&](std::size_t unit) {
        thread_local Buffer scratch;
        const std::size_t lines = Ring::floats(width, weights.channels);
        float* memory = scratch.grow(lines + Ring::floats(mid_w, weights.middle));
        const Ring pixels(memory, width, weights.channels);
        const Ring inside(memory + lines, mid_w, weights.middle);
        const int from = static_cast<int>(unit) * kBand, to = std::min(out_h, from + kBand);
        int next = std::max(4 * from - 3, 0);  // the image's next row
        int ready = std::max(2 * from - 1, 0);
        for (int row = from; row < to; ++row) {
            for (; ready < std::min(2 * row + 2, mid_h); ++ready) {
                for (; next < std::min(2 * ready + 2, height); ++next)
                    interleave(image + size(next, width), plane, width, weights.channels,
                               pixels.line(next));
                convolve(pixels, ready, height, mid_w, weights.first, b1, true, inside.line(ready));
            }
            convolve(inside, row, mid_h, out_w, weights.second, b2, false,
                     y + size(row, out_w) * size(weights.out, 1));
        }
    });
}

}  // namespace samrt::ops
