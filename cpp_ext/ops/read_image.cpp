#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "decoder_layers.hpp"

namespace samrt::ops {
namespace {

constexpr int kPositions = 256;  // of one tile

// One head of one prompt: a softmax over positions that come tile by tile.
class Head {
public:
    Head(const ReadImage& layer, const float* queries, std::size_t prompt, int head)
        : by_(kernels()), layer_(layer), queries_(queries), prompt_(prompt), head_(head),
          mask_(layer.mask.of(prompt) ? layer.mask.count : 0) {
        static thread_local Buffer buffer;
        const int deep = std::max(layer.width, mask_), t = layer.tokens;
        float* next = buffer.grow(size(t, kPositions) + size(t, mask_) +
                                  std::max(packed_size(by_, deep, kPositions),
                                           packed_size(by_, kPositions, deep)));
        scores_ = next;
        few_ = scores_ + size(t, kPositions);
        operand_ = few_ + size(t, mask_);
        lines_.resize(size(std::max(deep, kPositions), 1));
        top_.assign(size(t, 1), -std::numeric_limits<float>::infinity());
        sum_.assign(size(t, 1), 0.0f);
    }

    // y (tokens, width).
    void run(float* y) {
        const int d = layer_.width;
        std::fill_n(y, size(layer_.tokens, d), 0.0f);
        std::fill_n(few_, size(layer_.tokens, mask_), 0.0f);
        for (int start = 0; start < layer_.positions; start += kPositions)
            tile(start, std::min(kPositions, layer_.positions - start), y);
        for (int t = 0; t < layer_.tokens; ++t) {
            float* row = y + wide(t) * d;
            for (int r = 0; r < mask_; ++r) {
                const float* weight =
                    layer_.mask.weight + (wide(head_) * mask_ + r) * layer_.width;
                for (int j = 0; j < d; ++j) row[j] += few_[wide(t) * mask_ + r] * weight[j];
            }
            by_.scale(row, 1.0f / sum_[size(t, 1)], d, row);
        }
    }

private:
    template <typename Row>
    const float* const* lines(int count, Row row) {
        for (int i = 0; i < count; ++i) lines_[size(i, 1)] = row(i);
        return lines_.data();
    }

    const float* mask_row(int r, int start) const {
        return layer_.mask.rows +
               (static_cast<std::ptrdiff_t>(prompt_) * mask_ + r) * layer_.positions + start;
    }

    void tile(int start, int count, float* y) {
        const int d = layer_.width, tokens = layer_.tokens;
        by_.pack(lines(d, [&](int j) {
                     return layer_.keys + (wide(head_) * d + j) * layer_.positions + start;
                 }),
                 d, count, operand_);
        by_.multiply(queries_, d, tokens, operand_, d, count, scores_, count, Epilogue());
        Epilogue then;
        then.accumulate = true;
        if (mask_ > 0) {
            by_.pack(lines(mask_, [&](int r) { return mask_row(r, start); }), mask_, count,
                     operand_);
            const std::ptrdiff_t first =
                (static_cast<std::ptrdiff_t>(prompt_) * layer_.heads + head_) * tokens;
            by_.multiply(layer_.mask.wide + first * mask_, mask_, tokens, operand_, mask_, count,
                         scores_, count, then);
        }
        for (int t = 0; t < tokens; ++t) soften(t, count, y);
        const float* values = layer_.values + (wide(head_) * layer_.positions + start) * d;
        by_.pack(lines(count, [&](int i) { return values + wide(i) * d; }), count, d, operand_);
        by_.multiply(scores_, count, tokens, operand_, count, d, y, d, then);
        if (mask_ == 0) return;
        by_.pack_transposed(lines(mask_, [&](int r) { return mask_row(r, start); }), count, mask_,
                            operand_);
        by_.multiply(scores_, count, tokens, operand_, count, mask_, few_, mask_, then);
    }

    // Scores of token t become weights; what was summed so far is brought to their scale.
    void soften(int t, int count, float* y) {
        float& top = top_[size(t, 1)];
        const float before = top;
        const float sum = by_.softmax(scores_ + wide(t) * count, nullptr, count, &top);
        const float factor = std::exp(before - top);
        sum_[size(t, 1)] = sum_[size(t, 1)] * factor + sum;
        by_.scale(y + wide(t) * layer_.width, factor, layer_.width, y + wide(t) * layer_.width);
        by_.scale(few_ + wide(t) * mask_, factor, mask_, few_ + wide(t) * mask_);
    }

    const Kernels& by_;
    const ReadImage& layer_;
    const float* queries_;
    const std::size_t prompt_;
    const int head_, mask_;
    float *scores_, *few_, *operand_;
    std::vector<const float*> lines_;
    std::vector<float> top_, sum_;
};

}  // namespace

void read_image(const float* queries, int prompts, const ReadImage& layer, float* y,
                const Parallel& parallel) {
    parallel(size(prompts, layer.heads), [&](std::size_t unit) {
        const std::size_t place = unit * size(layer.tokens, layer.width);
        Head head(layer, queries + place, unit / size(layer.heads, 1),
                  static_cast<int>(unit % size(layer.heads, 1)));
        head.run(y + place);
    });
}

}  // namespace samrt::ops
