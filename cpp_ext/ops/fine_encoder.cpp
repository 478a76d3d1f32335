// The image encoder of `tiny`, channels last: convolutions of stride 2 as products of overlapping rows,
// the others by minimal filtering.
#include <algorithm>
#include <vector>

#include "fine_way.hpp"

namespace samrt::ops {
namespace {

constexpr int kRows = 4;  // of a result in a unit

// One row of a convolution of stride 2 with relu. row(i) gives the padded input row i of the taps,
// null beyond the edge: `taps / 2` pixels of zeros before the first.
template <typename Row>
void strided_row(const StridedWeights& w, int pixels, const Row& row, float* y) {
    Epilogue then;
    then.bias = w.bias.data();
    for (int dy = 0; dy < w.taps; ++dy) {
        const float* from = row(dy);
        if (from == nullptr) continue;
        w.rows[size(dy, 1)].times(from, 2 * w.channels, pixels, y, w.out, then);
        then.bias = nullptr;
        then.accumulate = true;
    }
    relu(y, wide(pixels) * w.out);
}

// x (2 side, 2 side, channels) to y (side, side, out).
void halve(const float* x, int side, const StridedWeights& w, float* y, const Parallel& parallel) {
    const int line = 2 * side * w.channels;
    parallel(size(side / kRows, 1), [&](std::size_t unit) {
        thread_local Buffer scratch;
        const int padded = line + w.channels;
        float* rows = scratch.grow(size(2 * kRows + 1, padded));
        const int top = 2 * kRows * static_cast<int>(unit) - 1;
        for (int r = 0; r <= 2 * kRows; ++r) {
            if (top + r < 0) continue;
            float* to = rows + wide(r) * padded;
            std::fill_n(to, w.channels, 0.0f);
            std::copy_n(x + wide(top + r) * line, line, to + w.channels);
        }
        for (int i = 0; i < kRows; ++i) {
            const int place = kRows * static_cast<int>(unit) + i;
            strided_row(w, side,
                        [&](int dy) {
                            const int r = 2 * i + dy;
                            return top + r < 0 ? nullptr : rows + wide(r) * padded;
                        },
                        y + wide(place) * side * w.out);
        }
    });
}

// image (channels, 2 side, 2 side) to y (side, side, out); five taps.
void stem(const float* image, int side, const StridedWeights& w, float* y, const Parallel& parallel) {
    const int width = 2 * side, c = w.channels, padded = (width + 4) * c;
    const std::ptrdiff_t plane = wide(width) * width;
    parallel(size(side / kRows, 1), [&](std::size_t unit) {
        thread_local Buffer scratch;
        constexpr int kInputs = 2 * kRows + 3;
        float* rows = scratch.grow(size(kInputs, padded));
        const int top = 2 * kRows * static_cast<int>(unit) - 2;
        for (int r = 0; r < kInputs; ++r) {
            if (top + r < 0 || top + r >= width) continue;
            float* to = rows + wide(r) * padded;
            std::fill_n(to, 2 * c, 0.0f);
            std::fill_n(to + wide(width + 2) * c, 2 * c, 0.0f);
            for (int k = 0; k < c; ++k) {
                const float* from = image + k * plane + wide(top + r) * width;
                for (int i = 0; i < width; ++i) to[wide(i + 2) * c + k] = from[i];
            }
        }
        for (int i = 0; i < kRows; ++i) {
            const int place = kRows * static_cast<int>(unit) + i;
            strided_row(w, side,
                        [&](int dy) {
                            const int r = 2 * i + dy;
                            return top + r < 0 || top + r >= width ? nullptr
                                                                   : rows + wide(r) * padded;
                        },
                        y + wide(place) * side * w.out);
        }
    });
}

// The residual blocks of a stage: x, or a place in `space` (twice as much), where their result lies.
float* residuals(float* x, int side, const EncoderWeights::Stage& stage, float* space,
                 const Parallel& parallel) {
    float *middle = space, *end = space + wide(side) * side * stage.down.out;
    for (std::size_t i = 0; i + 1 < stage.squares.size(); i += 2) {
        const EncoderWeights::Square &a = stage.squares[i], &b = stage.squares[i + 1];
        conv3x3(x, side, side, a.weights, middle, parallel, {a.bias.data(), nullptr, true});
        conv3x3(middle, side, side, b.weights, end, parallel, {b.bias.data(), x, true});
        std::swap(x, end);
    }
    return x;
}

// fine (side, side, .) and coarse (side / 2, side / 2, .) to y (side, side, smooth.out).
void merge(const float* fine, const float* coarse, int side, const EncoderWeights::Merge& w, float* y,
           const Parallel& parallel) {
    const int half = side / 2, c = w.lateral.matrix.n, k = w.lateral.matrix.k;
    Buffer space(size(half, half) * size(c, 1) + size(side, side) * size(c, 1));
    float *small = space.data(), *both = small + wide(half) * half * c;
    parallel(size(half, 1), [&](std::size_t unit) {
        const std::ptrdiff_t from = static_cast<std::ptrdiff_t>(unit) * half;
        Epilogue then;
        then.bias = w.coarse.bias.data();
        w.coarse.matrix.times(coarse + from * w.coarse.matrix.k, w.coarse.matrix.k, half,
                              small + from * c, c, then);
    });
    parallel(size(side, 1), [&](std::size_t unit) {
        const std::ptrdiff_t from = static_cast<std::ptrdiff_t>(unit) * side;
        thread_local Buffer scratch;
        float* up = scratch.grow(size(side, c));
        double_pixels(small, half, c, static_cast<int>(unit), up);
        Epilogue then;
        then.bias = w.lateral.bias.data();
        then.residual = up;
        then.residual_stride = c;
        w.lateral.matrix.times(fine + from * k, k, side, both + from * c, c, then);
        relu(both + from * c, wide(side) * c);
    });
    conv3x3(both, side, side, w.smooth.weights, y, parallel, {w.smooth.bias.data(), nullptr, true});
}

// x (side, side, .) to planes.
void write_planes(const float* x, int side, const PlaneWeights& w, float* planes,
                  const Parallel& parallel) {
    parallel(size(side, 1), [&](std::size_t unit) {
        const std::ptrdiff_t from = static_cast<std::ptrdiff_t>(unit) * side;
        to_planes(x + from * w.channels, side, w.channels, w.weight.data(), w.bias.data(), w.out,
                  planes + from, wide(side) * side);
    });
}

}  // namespace

StridedWeights::StridedWeights(const float* weight, const float* added, int out_, int channels_,
                               int taps_)
    : taps(taps_), channels(channels_), out(out_), bias(added, added + out_) {
    Numbers matrix(size(taps * channels, out));
    for (int dy = 0; dy < taps; ++dy) {
        for (int dx = 0; dx < taps; ++dx)
            for (int c = 0; c < channels; ++c)
                for (int o = 0; o < out; ++o)
                    matrix[size(dx * channels + c, out) + size(o, 1)] =
                        weight[((wide(o) * channels + c) * taps + dy) * taps + dx];
        rows.emplace_back(matrix.data(), out, taps * channels, out);
    }
}

void encode(const float* image, int side, const EncoderWeights& weights, float* const* maps,
            const Parallel& parallel) {
    int now = side / 2;
    Buffer first(size(now, now) * size(weights.stem.out, 1));
    stem(image, now, weights.stem, first.data(), parallel);
    std::vector<Buffer> kept;
    std::vector<const float*> levels{first.data()};
    for (const EncoderWeights::Stage& stage : weights.stages) {
        now /= 2;
        const std::size_t count = size(now, now) * size(stage.down.out, 1);
        kept.emplace_back(3 * count);
        float* x = kept.back().data();
        halve(levels.back(), now, stage.down, x, parallel);
        levels.push_back(residuals(x, now, stage, x + count, parallel));
    }
    const float* coarse = levels[4];
    for (std::size_t m = 0; m < 3; ++m) {
        const EncoderWeights::Merge& w = weights.merges[m];
        now *= 2;
        kept.emplace_back(size(now, now) * size(w.smooth.weights.out, 1));
        merge(levels[3 - m], coarse, now, w, kept.back().data(), parallel);
        coarse = kept.back().data();
        write_planes(coarse, now, weights.out[m], maps[m], parallel);
    }
    const PlaneWeights &own = weights.out[3], &down = weights.out[4];
    Buffer half(size(now, now) * size(down.out, 1));
    write_planes(coarse, now, down, half.data(), parallel);
    const int width = 2 * now;
    parallel(size(width, 1), [&](std::size_t unit) {
        const std::ptrdiff_t from = static_cast<std::ptrdiff_t>(unit) * width;
        const std::ptrdiff_t plane = wide(width) * width;
        thread_local Buffer scratch;
        float* up = scratch.grow(size(own.out, width));
        double_planes(half.data(), own.out, now, static_cast<int>(unit), up);
        to_planes(first.data() + from * own.channels, width, own.channels, own.weight.data(),
                  own.bias.data(), own.out, maps[3] + from, plane);
        for (int o = 0; o < own.out; ++o) {
            float* to = maps[3] + o * plane + from;
            for (int i = 0; i < width; ++i) to[i] += up[wide(o) * width + i];
        }
    });
}

}  // namespace samrt::ops
