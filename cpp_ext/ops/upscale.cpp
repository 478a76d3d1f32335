#include <algorithm>
#include <vector>

#include "decoder_layers.hpp"

namespace samrt::ops {
namespace {

constexpr int kTokens = 48;  // of one unit of work

}  // namespace

void upscale_masks(const float* x, const float* hyper, int prompts, const UpscaleMasks& layer,
                   float* y, const Parallel& parallel) {
    const Kernels& by = kernels();
    const int channels = layer.w1->k, middle = layer.w2->k, fine = layer.w2->n / 4;
    const int masks = layer.masks, parts = (layer.width + kTokens - 1) / kTokens;
    const std::ptrdiff_t line = 4 * wide(layer.width), plane = 4 * wide(layer.height) * line;
    parallel(size(prompts, layer.height) * size(parts, 1), [&](std::size_t unit) {
        const int part = static_cast<int>(unit % size(parts, 1));
        const int row = static_cast<int>(unit / size(parts, 1) % size(layer.height, 1));
        const auto prompt = static_cast<std::ptrdiff_t>(unit / size(parts, layer.height));
        const int left = part * kTokens, count = std::min(kTokens, layer.width - left);
        thread_local Buffer scratch;
        const std::size_t coarse_size = size(kTokens, 4 * middle);
        const std::size_t fine_size = size(4 * kTokens, 4 * fine);
        float* coarse = scratch.grow(coarse_size + fine_size + size(16 * kTokens, masks) +
                                     packed_size(by, fine, masks));
        float* fines = coarse + coarse_size;
        float* logits = fines + fine_size;
        float* weights = logits + size(16 * kTokens, masks);

        Epilogue first;
        first.bias = layer.b1;
        layer.w1->times(x + ((prompt * layer.height + row) * layer.width + left) * channels,
                        channels, count, coarse, 4 * wide(middle), first);
        for (int i = 0; i < 4 * count; ++i)
            by.normalize(coarse + wide(i) * middle, middle, layer.norm.gamma, layer.norm.beta,
                         layer.norm.epsilon, true, coarse + wide(i) * middle);
        Epilogue second;
        second.bias = layer.b2;
        second.gelu = true;
        layer.w2->times(coarse, middle, 4 * count, fines, 4 * wide(fine), second);

        std::vector<const float*> rows(size(masks, 1));
        for (int m = 0; m < masks; ++m)
            rows[size(m, 1)] = hyper + (prompt * masks + m) * fine;
        by.pack_transposed(rows.data(), fine, masks, weights);
        by.multiply(fines, fine, 16 * count, weights, fine, masks, logits, masks, Epilogue());

        // Position of a logit: token, (row, column) of the first block, of the second, mask.
        for (int m = 0; m < masks; ++m) {
            float* to = y + (prompt * masks + m) * plane + 4 * wide(row) * line + 4 * wide(left);
            for (int t = 0; t < count; ++t)
                for (int k = 0; k < 16; ++k) {
                    const int down = (k >> 3) * 2 + ((k >> 1) & 1);
                    const int across = ((k >> 2) & 1) * 2 + (k & 1);
                    to[down * line + 4 * t + across] = logits[(wide(t) * 16 + k) * masks + m];
                }
        }
    });
}

}  // namespace samrt::ops
