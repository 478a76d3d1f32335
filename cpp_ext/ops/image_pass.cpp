#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "decoder_layers.hpp"

namespace samrt::ops {
namespace {

constexpr int kPositions = 96;    // of one tile
constexpr int kTilesPerUnit = 2;  // share the packed values
constexpr int kSpan = kPositions * kTilesPerUnit;

// A softmax over positions that come tile by tile, and the mean of the image under its weights.
struct Partial {
    float *mean, *sum, *top;  // (reads, channels), (reads), (reads)

    static std::size_t floats(int reads, int channels) { return size(reads, channels + 2); }
    Partial(float* start, int reads, int channels)
        : mean(start), sum(mean + size(reads, channels)), top(sum + reads) {}
};

// What a thread needs for one unit.
struct Space {
    Space(const Kernels& by, const ImagePass& layer)
        : all(layer.heads * layer.tokens + layer.mask.count),
          chunks((all + by.panel - 1) / by.panel),
          packed_values(packed_size(by, by.panel, layer.channels)) {
        static thread_local Buffer buffer;
        const int rows = std::max(all, layer.reads);
        const int depth = std::max({layer.channels, layer.width, layer.mask.count});
        const std::size_t tile_size = size(kPositions, layer.channels);
        const std::size_t packed = std::max(packed_size(by, kPositions, layer.channels),
                                            packed_size(by, depth, kPositions));
        float* next = buffer.grow(size(rows, kPositions) + size(chunks, by.panel) * kPositions +
                                  2 * tile_size + packed + size(chunks, 1) * packed_values);
        const auto take = [&next](std::size_t count) { return std::exchange(next, next + count); };
        scores = take(size(rows, kPositions));
        turned = take(size(chunks, by.panel) * kPositions);
        before = take(tile_size);
        coded = take(tile_size);
        operand = take(packed);
        values = take(size(chunks, 1) * packed_values);
        lines.resize(size(std::max({rows, depth, by.panel, kPositions}), 1));
    }
    const int all, chunks;
    const std::size_t packed_values;
    float *scores, *turned, *before, *coded, *operand, *values;
    std::vector<const float*> lines;
};

// One prompt's way over the image.
class Pass {
public:
    Pass(const ImagePassInputs& in, const ImagePass& layer, std::size_t prompt, float* y)
        : by_(kernels()), in_(in), layer_(layer), prompt_(prompt), masked_(layer.mask.of(prompt)),
          soft_(layer.heads * layer.tokens), all_(soft_ + (masked_ ? layer.mask.count : 0)),
          y_(y), space_(by_, layer) {
        pack_values();
    }

    void tile(int start, int count, bool first, const Partial& into) {
        const int c = layer_.channels;
        const float* old = before(start, count);
        if (layer_.tokens == 0) return read(old, start, count, first, into);
        if (layer_.side)
            scores_at_hand(start, count);
        else
            scores_of(old, start, count);
        if (masked_) mask_scores(start, count);
        by_.softmax_down(space_.scores, layer_.heads, layer_.tokens, count);
        float* y = y_ + wide(start) * c;
        write(old, count, y);
        for (int i = 0; i < count; ++i)
            by_.normalize(y + wide(i) * c, c, layer_.norm.gamma, layer_.norm.beta,
                          layer_.norm.epsilon, false, y + wide(i) * c);
        read(y, start, count, first, into);
    }

private:
    template <typename Row>
    const float* const* lines(int count, Row row) {
        for (int i = 0; i < count; ++i) space_.lines[size(i, 1)] = row(i);
        return space_.lines.data();
    }

    const float* mask_row(int r, int start) const {
        return layer_.mask.rows +
               (static_cast<std::ptrdiff_t>(prompt_) * layer_.mask.count + r) * layer_.positions +
               start;
    }

    void pack_values() {
        const int c = layer_.channels;
        const float* own = in_.values + static_cast<std::ptrdiff_t>(prompt_) * soft_ * c;
        for (int from = 0, k = 0; from < all_; from += by_.panel, ++k)
            by_.pack(lines(std::min(by_.panel, all_ - from),
                           [&](int r) {
                               const int row = from + r;
                               return row < soft_ ? own + wide(row) * c
                                                  : layer_.mask.weight + wide(row - soft_) * c;
                           }),
                     std::min(by_.panel, all_ - from), c,
                     space_.values + size(k, 1) * space_.packed_values);
    }

    // The image's tile (count, channels).
    const float* before(int start, int count) {
        const int c = layer_.channels;
        const float* image = in_.image + (in_.shared ? 0 : static_cast<std::ptrdiff_t>(prompt_)) *
                                             layer_.positions * c;
        if (!layer_.channels_first) return image + wide(start) * c;
        for (int from = 0; from < c; from += by_.panel) {
            const int some = std::min(by_.panel, c - from);
            by_.pack_transposed(lines(some, [&](int j) {
                                    return image + wide(from + j) * layer_.positions + start;
                                }),
                                count, some, space_.operand);
            for (int i = 0; i < count; ++i)
                std::copy_n(space_.operand + size(i, by_.panel), some,
                            space_.before + wide(i) * c + from);
        }
        return space_.before;
    }

    // Packs tile + codes (count, channels), transposed, as a right operand.
    void pack_coded(const float* tile, int start, int count) {
        const int c = layer_.channels;
        by_.add(tile, layer_.codes + wide(start) * c, count * c, space_.coded);
        by_.pack_transposed(lines(count, [&](int i) { return space_.coded + wide(i) * c; }), c,
                            count, space_.operand);
    }

    void scores_of(const float* old, int start, int count) {
        const int c = layer_.channels;
        const float* offset = in_.offset + static_cast<std::ptrdiff_t>(prompt_) * soft_;
        for (int r = 0; r < soft_; ++r)
            std::fill_n(space_.scores + wide(r) * count, count, offset[r]);
        pack_coded(old, start, count);
        Epilogue then;
        then.accumulate = true;
        by_.multiply(in_.keys + static_cast<std::ptrdiff_t>(prompt_) * soft_ * c, c, soft_,
                     space_.operand, c, count, space_.scores, count, then);
    }

    void scores_at_hand(int start, int count) {
        const int d = layer_.width, tokens = layer_.tokens;
        const float* keys = in_.keys + static_cast<std::ptrdiff_t>(prompt_) * soft_ * d;
        for (int h = 0; h < layer_.heads; ++h) {
            by_.pack(lines(d, [&](int j) {
                         return layer_.side + (wide(h) * d + j) * layer_.positions + start;
                     }),
                     d, count, space_.operand);
            by_.multiply(keys + wide(h) * tokens * d, d, tokens, space_.operand, d, count,
                         space_.scores + wide(h) * tokens * count, count, Epilogue());
        }
    }

    void mask_scores(int start, int count) {
        const int m = layer_.mask.count;
        by_.pack(lines(m, [&](int r) { return mask_row(r, start); }), m, count, space_.operand);
        Epilogue then;
        then.accumulate = true;
        by_.multiply(layer_.mask.wide + static_cast<std::ptrdiff_t>(prompt_) * soft_ * m, m, soft_,
                     space_.operand, m, count, space_.scores, count, then);
        for (int r = 0; r < m; ++r)
            std::copy_n(mask_row(r, start), count, space_.scores + wide(soft_ + r) * count);
    }

    // y = old + weights^T values.
    void write(const float* old, int count, float* y) {
        const int c = layer_.channels;
        by_.pack_transposed(lines(all_, [&](int r) { return space_.scores + wide(r) * count; }),
                            count, all_, space_.turned);
        for (int from = 0, k = 0; from < all_; from += by_.panel, ++k) {
            Epilogue then;
            then.accumulate = k > 0;
            if (k == 0) {
                then.residual = old;
                then.residual_stride = c;
            }
            by_.multiply(space_.turned + size(k, count) * size(by_.panel, 1), by_.panel, count,
                         space_.values + size(k, 1) * space_.packed_values,
                         std::min(by_.panel, all_ - from), c, y, c, then);
        }
    }

    void read(const float* y, int start, int count, bool first, const Partial& into) {
        const int c = layer_.channels, reads = layer_.reads;
        pack_coded(y, start, count);
        by_.multiply(in_.queries + static_cast<std::ptrdiff_t>(prompt_) * reads * c, c, reads,
                     space_.operand, c, count, space_.scores, count, Epilogue());
        for (int r = 0; r < reads; ++r) {
            const float top = first ? -std::numeric_limits<float>::infinity() : into.top[r];
            float now = top;
            const float sum = by_.softmax(space_.scores + wide(r) * count, nullptr, count, &now);
            const float factor = first ? 0.0f : std::exp(top - now);
            if (!first && factor != 1.0f)
                by_.scale(into.mean + wide(r) * c, factor, c, into.mean + wide(r) * c);
            into.sum[r] = (first ? 0.0f : into.sum[r] * factor) + sum;
            into.top[r] = now;
        }
        by_.pack(lines(count, [&](int i) { return y + wide(i) * c; }), count, c, space_.operand);
        Epilogue then;
        then.accumulate = !first;
        by_.multiply(space_.scores, count, reads, space_.operand, count, c, into.mean, c, then);
    }

    const Kernels& by_;
    const ImagePassInputs& in_;
    const ImagePass& layer_;
    const std::size_t prompt_;
    const bool masked_;
    const int soft_, all_;
    float* y_;
    Space space_;
};

// The means of all units under one softmax: seen (reads, channels).
void merge(const std::vector<Partial>& parts, int reads, int channels, float* seen) {
    const Kernels& by = kernels();
    for (int r = 0; r < reads; ++r) {
        float top = -std::numeric_limits<float>::infinity();
        for (const Partial& part : parts) top = std::max(top, part.top[r]);
        float sum = 0;
        float* row = seen + wide(r) * channels;
        std::fill_n(row, channels, 0.0f);
        for (const Partial& part : parts) {
            const float factor = std::exp(part.top[r] - top);
            sum += part.sum[r] * factor;
            by.scale(part.mean + wide(r) * channels, factor, channels,
                     part.mean + wide(r) * channels);
            by.add(row, part.mean + wide(r) * channels, channels, row);
        }
        by.scale(row, 1.0f / sum, channels, row);
    }
}

}  // namespace

void image_pass(const ImagePassInputs& in, int prompts, const ImagePass& layer, float* y,
                float* seen, const Parallel& parallel) {
    const int units = (layer.positions + kSpan - 1) / kSpan;
    const std::size_t one = Partial::floats(layer.reads, layer.channels);
    Buffer partials(size(prompts, units) * one);
    const auto partial = [&](std::size_t index) {
        return Partial(partials.data() + index * one, layer.reads, layer.channels);
    };
    parallel(size(prompts, units), [&](std::size_t unit) {
        const std::size_t prompt = unit / size(units, 1);
        const int from = static_cast<int>(unit % size(units, 1)) * kSpan;
        const int to = std::min(layer.positions, from + kSpan);
        Pass pass(in, layer, prompt, y + prompt * size(layer.positions, layer.channels));
        for (int start = from; start < to; start += kPositions)
            pass.tile(start, std::min(kPositions, to - start), start == from, partial(unit));
    });
    parallel(size(prompts, 1), [&](std::size_t prompt) {
        std::vector<Partial> parts;
        for (int unit = 0; unit < units; ++unit)
            parts.push_back(partial(prompt * size(units, 1) + size(unit, 1)));
        merge(parts, layer.reads, layer.channels, seen + prompt * size(layer.reads, layer.channels));
    });
}

}  // namespace samrt::ops
