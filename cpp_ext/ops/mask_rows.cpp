#include <algorithm>
#include <cstring>

#include "decoder_layers.hpp"

namespace samrt::ops {
namespace {

// x (rows, w.k) to gelu(norm(x w + bias)), (rows, w.n).
void layer_of(const float* x, int rows, const Packed& w, const float* bias, const Norm& norm,
              float* y) {
    Epilogue then;
    then.bias = bias;
    w.times(x, w.k, rows, y, w.n, then);
    for (int i = 0; i < rows; ++i) {
        float* row = y + wide(i) * w.n;
        kernels().normalize(row, w.n, norm.gamma, norm.beta, norm.epsilon, true, row);
    }
}

// One row of the result, (channels, width) at a distance of `plane`; mask: its first of four lines.
void one_row(const float* mask, const MaskDownscaling& layer, float* rows, std::ptrdiff_t plane) {
    const int width = layer.width, line = 4 * width, half = 2 * width;
    const int middle = layer.w1->n, channels = layer.w2->n;
    static thread_local Buffer buffer;
    float* patches = buffer.grow(size(2 * half, 4 + middle) + size(width, 4 * middle + channels));
    float* first = patches + size(2 * half, 4);      // (2, half, middle)
    float* joined = first + size(2 * half, middle);  // (width, 2, 2, middle)
    float* second = joined + size(width, 4 * middle);
    for (int row = 0; row < 2; ++row)
        for (int x = 0; x < half; ++x)
            for (int down = 0; down < 2; ++down)
                std::memcpy(patches + (wide(row) * half + x) * 4 + 2 * down,
                            mask + (2 * wide(row) + down) * line + 2 * wide(x), 2 * sizeof(float));
    layer_of(patches, 2 * half, *layer.w1, layer.b1, layer.norm1, first);
    for (int x = 0; x < width; ++x)
        for (int down = 0; down < 2; ++down)
            std::memcpy(joined + (2 * wide(x) + down) * 2 * middle,
                        first + (wide(down) * half + 2 * wide(x)) * middle,
                        2 * size(middle, sizeof(float)));
    layer_of(joined, width, *layer.w2, layer.b2, layer.norm2, second);
    for (int j = 0; j < channels; ++j)
        for (int x = 0; x < width; ++x) rows[j * plane + x] = second[wide(x) * channels + j];
    std::fill_n(rows + channels * plane, width, 1.0f);
}

}  // namespace

void mask_rows(const float* masks, const float* given, int prompts, const MaskDownscaling& layer,
               float* rows, const Parallel& parallel) {
    const std::ptrdiff_t plane = wide(layer.height) * layer.width;
    const std::ptrdiff_t all = (layer.w2->n + 1) * plane;
    for (int prompt = 0; prompt < prompts; ++prompt) {
        float* own = rows + prompt * all;
        if (given[prompt] == 0.0f) {
            std::fill_n(own, all, 0.0f);
            continue;
        }
        const float* mask = masks + 16 * prompt * plane;
        parallel(size(layer.height, 1), [&](std::size_t row) {
            const auto y = static_cast<std::ptrdiff_t>(row);
            one_row(mask + 16 * y * layer.width, layer, own + y * layer.width, plane);
        });
    }
}

}  // namespace samrt::ops
