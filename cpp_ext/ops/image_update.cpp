#include <algorithm>
#include <cstring>
#include <vector>

#include "layers.hpp"

namespace samrt::ops {
namespace {

std::ptrdiff_t wide(int value) { return static_cast<std::ptrdiff_t>(value); }
std::size_t size(int a, int b) { return static_cast<std::size_t>(a) * static_cast<std::size_t>(b); }

constexpr int kPositions = 96;     // of one tile
constexpr int kTilesPerUnit = 4;   // share the packed values

}  // namespace

void image_update(const float* image, bool shared, const float* scores, const float* rows,
                  const float* values, int prompts, const ImageUpdate& layer, float* y,
                  float* coded, const Parallel& parallel) {
    const Kernels& by = kernels();
    const int soft = layer.heads * layer.tokens, all = soft + layer.more, c = layer.channels;
    const int chunk = by.panel, chunks = (all + chunk - 1) / chunk;
    constexpr int kSpan = kPositions * kTilesPerUnit;
    const int units = (layer.positions + kSpan - 1) / kSpan;
    parallel(size(prompts, units), [&](std::size_t unit) {
        const int prompt = static_cast<int>(unit / size(units, 1));
        const int from = static_cast<int>(unit % size(units, 1)) * kSpan;
        const int to = std::min(layer.positions, from + kSpan);
        thread_local Buffer scratch;
        const std::size_t packed = packed_size(by, chunk, c);
        float* tile = scratch.grow(size(all, kPositions) + size(chunks, chunk) * kPositions +
                                   size(kPositions, c) + size(chunks, 1) * packed);
        float* turned = tile + size(all, kPositions);  // (chunks, positions, chunk)
        float* sum = turned + size(chunks, chunk) * kPositions;
        float* products = sum + size(kPositions, c);
        std::vector<const float*> lines(size(std::max(all, chunk), 1));
        for (int k = 0; k < chunks; ++k) {
            const int count = std::min(chunk, all - k * chunk);
            for (int r = 0; r < count; ++r)
                lines[size(r, 1)] = values + (wide(prompt) * all + k * chunk + r) * c;
            by.pack(lines.data(), count, c, products + size(k, 1) * packed);
        }
        for (int start = from; start < to; start += kPositions) {
            const int n = std::min(kPositions, to - start);
            for (int r = 0; r < all; ++r) {
                const float* source =
                    r < soft ? scores + (wide(prompt) * soft + r) * layer.positions
                             : rows + (wide(prompt) * layer.more + r - soft) * layer.positions;
                std::memcpy(tile + wide(r) * n, source + start, size(n, 1) * sizeof(float));
            }
            by.softmax_down(tile, layer.heads, layer.tokens, n);
            for (int r = 0; r < all; ++r) lines[size(r, 1)] = tile + wide(r) * n;
            by.pack_transposed(lines.data(), n, all, turned);
            const float* old =
                image + ((shared ? 0 : wide(prompt)) * layer.positions + start) * c;
            for (int k = 0; k < chunks; ++k) {
                Epilogue then;
                then.accumulate = k > 0;
                if (k == 0) {
                    then.residual = old;
                    then.residual_stride = c;
                }
                by.multiply(turned + size(k, n) * size(chunk, 1), chunk, n,
                            products + size(k, 1) * packed, std::min(chunk, all - k * chunk), c,
                            sum, c, then);
            }
            const std::ptrdiff_t place = (wide(prompt) * layer.positions + start) * c;
            for (int i = 0; i < n; ++i) {
                by.normalize(sum + wide(i) * c, c, layer.norm.gamma, layer.norm.beta,
                             layer.norm.epsilon, false, y + place + wide(i) * c);
                by.add(y + place + wide(i) * c, layer.codes + (start + wide(i)) * c, c,
                       coded + place + wide(i) * c);
            }
        }
    });
}

}  // namespace samrt::ops
