// The decoder of `tiny` at strides 4 and 2, where there are too few channels for minimal filtering and
// planes are convolved directly, and the figures that scores are made of.
#include <algorithm>
#include <cmath>
#include <vector>

#include "fine_way.hpp"

namespace samrt::ops {
namespace {

constexpr int kBand = 8;       // rows of stride 4 in a unit
constexpr int kFineBand = 16;  // rows of stride 2 in a unit

// Pointers to the rows of one call.
struct Lines {
    Lines(int inputs, int outputs)
        : in(size(inputs, 1)), add(size(outputs, 1)), out(size(outputs, 1)) {}
    std::vector<const float*> in, add;
    std::vector<float*> out;
};

void convolve(const PlanarWeights& weights, const Lines& lines, int width, bool add,
              bool relu_last) {
    kernels().planar({lines.in.data(), weights.channels, weights.taps, weights.weight.data(),
                      weights.bias.data(), add ? lines.add.data() : nullptr, relu_last, width,
                      weights.out, lines.out.data()});
}

// How well the extent of a mask along one axis fits the box: softly, and thresholded.
struct Extent {
    float soft, sure, cells;
    Extent(const float* extent, const float* line, std::ptrdiff_t step, float has, int n) {
        float whole = 0, shared = 0, sure_whole = 0, sure_shared = 0, cell = 0;
        for (int i = 0; i < n; ++i) {
            const float within = std::fabs(line[i * step]) <= 1.0f ? has : 0.0f;
            const float certain = extent[i] > 0.5f ? 1.0f : 0.0f;
            cell += within;
            whole += extent[i];
            shared += extent[i] * within;
            sure_whole += certain;
            sure_shared += certain * within;
        }
        cells = cell;
        soft = shared / (whole + cell - shared + 1e-3f) * has;
        sure = sure_shared / (sure_whole + cell - sure_shared + 1e-3f);
    }
};

}  // namespace

// Three rows around row y of planes; beyond the edge zeros.
void Way::around(const Planes& planes, int count, int y, int height, const float** rows) const {
    for (int c = 0; c < count; ++c)
        for (int dy = -1; dy <= 1; ++dy)
            *rows++ = y + dy < 0 || y + dy >= height ? zeros_.data() + kPad
                                                     : planes.row(c, y + dy);
}

void Way::stride4() {
    const int depth = f4_ + kPromptMaps;
    Numbers joined(size(f4_, depth)), bias(bias4_);
    for (int i = 0; i < f4_; ++i) {
        for (int k = 0; k < depth; ++k)
            joined[size(i, depth) + size(k, 1)] =
                k < f4_ ? matrix4_[size(i, f4_) + size(k, 1)]
                        : w_.dense4[size(i, kPromptMaps) + size(k - f4_, 1)];
        bias[size(i, 1)] += w_.dense4_bias[size(i, 1)];
    }
    const PlanarWeights start(joined.data(), bias.data(), f4_, depth, 1);
    const Planes first(f4_, n_, n_), second(f4_, n_, n_);
    const auto bands = [&](const auto& row) {
        parallel_(size(n_ / kBand, 1), [&](std::size_t unit) {
            const int from = static_cast<int>(unit) * kBand;
            for (int y = from; y < from + kBand; ++y) row(y);
        });
    };
    bands([&](int y) {
        thread_local Buffer scratch;
        float* up = scratch.grow(size(f4_, n_));
        double_planes(half_.data(), f4_, n_ / 2, y, up);
        Lines lines(depth, f4_);
        for (int c = 0; c < f4_; ++c) {
            lines.in[size(c, 1)] = in_.f4 + c * plane_ + wide(y) * n_;
            lines.add[size(c, 1)] = up + wide(c) * n_;
            lines.out[size(c, 1)] = first.row(c, y);
            first.close(c, y);
        }
        for (int m = 0; m < kPromptMaps; ++m)
            lines.in[size(f4_ + m, 1)] = map(m) + wide(y) * n_;
        convolve(start, lines, n_, true, true);
    });
    bands([&](int y) {
        Lines lines(3 * f4_, f4_);
        around(first, f4_, y, n_, lines.in.data());
        for (int c = 0; c < f4_; ++c) {
            lines.out[size(c, 1)] = second.row(c, y);
            second.close(c, y);
        }
        convolve(w_.mix4a, lines, n_, false, true);
    });
    quarter_.grow(size(f2_, n_) * size(n_, 1));
    bands([&](int y) {
        thread_local Buffer scratch;
        float* end = scratch.grow(size(f4_, n_));
        Lines lines(3 * f4_, f4_), last(f4_, f2_);
        around(second, f4_, y, n_, lines.in.data());
        for (int c = 0; c < f4_; ++c) {
            lines.add[size(c, 1)] = first.row(c, y);
            last.in[size(c, 1)] = lines.out[size(c, 1)] = end + wide(c) * n_;
        }
        convolve(w_.mix4b, lines, n_, true, true);
        for (int c = 0; c < f2_; ++c)
            last.out[size(c, 1)] = quarter_.data() + c * plane_ + wide(y) * n_;
        convolve(w_.down2, last, n_, false, false);
    });
}

// The masks, and of every band of their rows what the figures need.
void Way::stride2() {
    const int width = 2 * n_, bands = width / kFineBand;
    const float* hyper = in_.hyper + wide(prompt_) * masks_ * (f2_ + 1);
    Numbers weight, bias;
    for (int m = 0; m < masks_; ++m) {
        weight.insert(weight.end(), hyper + wide(m) * (f2_ + 1), hyper + wide(m) * (f2_ + 1) + f2_);
        bias.push_back(hyper[wide(m) * (f2_ + 1) + f2_]);
    }
    const PlanarWeights heads(weight.data(), bias.data(), masks_, f2_, 1);
    sums_.assign(size(bands, masks_), MaskSums());
    columns_.assign(size(bands, masks_) * size(n_, 1), 0.0f);
    rows_.assign(size(masks_, n_), 0.0f);
    parallel_(size(bands, 1), [&](std::size_t unit) {
        const int band = static_cast<int>(unit), from = band * kFineBand;
        const Planes local(f2_, kFineBand + 2, width);
        thread_local Buffer scratch;
        float* up = scratch.grow(size(f2_, width) + size(n_, 1));
        float* small = up + wide(f2_) * width;
        for (int r = 0; r < kFineBand + 2; ++r) {
            const int y = from + r - 1;
            const bool there = y >= 0 && y < width;
            if (there) double_planes(quarter_.data(), f2_, n_, y, up);
            for (int c = 0; c < f2_; ++c) {
                float* to = local.row(c, r);
                local.close(c, r);
                if (!there) {
                    std::fill_n(to, width, 0.0f);
                    continue;
                }
                const float* own = in_.f2 + (wide(c) * width + y) * width;
                const float* other = up + wide(c) * width;
                for (int i = 0; i < width; ++i) to[i] = std::max(own[i] + other[i], 0.0f);
            }
        }
        Lines lines(3 * f2_, f2_), last(f2_, masks_);
        for (int r = 0; r < kFineBand; ++r) {
            const int y = from + r;
            for (int c = 0; c < f2_; ++c) {
                for (int dy = 0; dy < 3; ++dy)
                    lines.in[size(3 * c + dy, 1)] = local.row(c, r + dy);
                last.in[size(c, 1)] = lines.out[size(c, 1)] = up + wide(c) * width;
            }
            convolve(w_.mix2, lines, width, false, true);
            for (int m = 0; m < masks_; ++m) last.out[size(m, 1)] = mask_row(m, y);
            convolve(heads, last, width, false, false);
            if (y % 2 == 1) figures_of_row(y / 2, band, small);
        }
    });
}

float* Way::mask_row(int m, int y) const {
    const int width = 2 * n_;
    return out_.masks + ((wide(prompt_) * masks_ + m) * width + y) * width;
}

void Way::figures_of_row(int y, int band, float* small) {
    for (int m = 0; m < masks_; ++m) {
        const float *a = mask_row(m, 2 * y), *b = mask_row(m, 2 * y + 1);
        for (int i = 0; i < n_; ++i)
            small[i] = (a[2 * i] + a[2 * i + 1] + b[2 * i] + b[2 * i + 1]) * 0.25f;
        const std::size_t place = size(band, masks_) + size(m, 1);
        rows_[size(m, n_) + size(y, 1)] = kernels().mask_figures(
            small, n_, map(6) + wide(y) * n_, map(8) + wide(y) * n_,
            columns_.data() + place * size(n_, 1), &sums_[place]);
    }
}

void Way::figures() {
    const int bands = 2 * n_ / kFineBand;
    const float has = map(5)[0];
    const float positive = sum(map(6), plane_) + 1e-3f, negative = sum(map(8), plane_) + 1e-3f;
    for (int m = 0; m < masks_; ++m) {
        MaskSums all;
        Numbers columns(size(n_, 1), 0.0f);
        for (int band = 0; band < bands; ++band) {
            const std::size_t place = size(band, masks_) + size(m, 1);
            const MaskSums& part = sums_[place];
            all.probability += part.probability;
            all.area += part.area;
            all.both += part.both;
            all.positive += part.positive;
            all.negative += part.negative;
            for (int i = 0; i < n_; ++i)
                columns[size(i, 1)] = std::max(columns[size(i, 1)],
                                               columns_[place * size(n_, 1) + size(i, 1)]);
        }
        const Extent down(rows_.data() + size(m, n_), map(1), n_, has, n_);
        const Extent across(columns.data(), map(0), 1, has, n_);
        const std::ptrdiff_t place = wide(prompt_) * masks_ + m;
        float* to = out_.figures + place * kFigures;
        to[0] = all.both / (all.probability + all.area - all.both + 1.0f);
        to[1] = std::sqrt(all.area + 1e-6f) / static_cast<float>(n_);
        to[2] = down.soft;
        to[3] = across.soft;
        to[4] = std::min(all.area / (down.cells * across.cells + 1.0f), 2.0f) * has;
        to[5] = has;
        to[6] = all.positive / positive;
        to[7] = all.negative / negative;
        out_.fit[place] = 1.0f - has + has * (down.sure * across.sure);
    }
}

PlanarWeights::PlanarWeights(const float* from, const float* added, int out_, int channels_,
                             int taps_)
    : out(out_), channels(channels_), taps(taps_), weight(size(out_, channels_) * size(taps_, taps_)),
      bias(size(out_, 1)) {
    if (added != nullptr) bias.assign(added, added + out);
    const int each = channels * taps * taps;
    for (int o = 0; o < out; ++o)
        for (int i = 0; i < each; ++i)
            weight[(size(o / 4, each) + size(i, 1)) * 4 + size(o % 4, 1)] = from[wide(o) * each + i];
}

void double_planes(const float* planes, int count, int n, int y, float* up) {
    thread_local Buffer scratch;
    float* space = scratch.grow(size(n + 2, 1));
    const int near = y / 2, far = std::min(std::max(near + (y % 2 ? 1 : -1), 0), n - 1);
    for (int c = 0; c < count; ++c) {
        const float* plane = planes + wide(c) * n * n;
        kernels().double_row(plane + wide(near) * n, plane + wide(far) * n, n, space,
                             up + wide(c) * 2 * n);
    }
}

void fine_masks(const FineInputs& in, int prompts, int masks, int side, const FineWeights& weights,
                const FineOutputs& out, const Parallel& parallel) {
    for (int prompt = 0; prompt < prompts; ++prompt) {
        Way way(in, prompt, masks, side, weights, out, parallel);
        way.compare();
        way.stride16();
        way.stride8();
        way.stride4();
        way.stride2();
        way.figures();
    }
}

}  // namespace samrt::ops
