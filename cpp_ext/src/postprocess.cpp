#include "samrt/postprocess.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "samrt/rows.hpp"
#include "thresholding.hpp"

namespace samrt {
namespace {

std::size_t at(int index) { return static_cast<std::size_t>(index); }

}  // namespace

void upscale_logits(const float* logits, const MaskPlan& plan, int threads, float* target) {
    const Upscaler upscaler(plan);
    upscaler.for_tiles(logits, threads, [&](const Tile& tile, TileScratch& scratch) {
        upscaler.load(tile, scratch);
        upscaler.stretch(tile, false, scratch);
        float* out = target + at(tile.mask) * plan.out_size() + at(tile.column);
        for (int y = tile.row; y < tile.row_end; ++y) {
            const float* rows[kStencil];
            upscaler.sources(y, tile, scratch, rows);
            row_kernels().blend(rows, upscaler.vertical().weight(y), upscaler.vertical().taps(),
                                at(tile.columns()), out + at(y) * at(plan.out_width));
        }
    });
}

void masks_from_logits(const float* logits, const MaskPlan& plan, float threshold,
                       bool probability, int threads, std::uint8_t* target) {
    const std::size_t samples = at(plan.count) * plan.low_size();
    std::vector<float> probabilities;
    if (probability) {
        probabilities = logistic(logits, samples);
        logits = probabilities.data();
    }
    const bool shortcut = all_finite(logits, samples) && std::isfinite(threshold);
    const Upscaler upscaler(plan);
    upscaler.for_tiles(logits, threads, [&](const Tile& tile, TileScratch& scratch) {
        const std::size_t stride = at(plan.out_width);
        std::uint8_t* out = target + at(tile.mask) * plan.out_size() + at(tile.row) * stride +
                            at(tile.column);
        threshold_tile(
            upscaler, tile, {threshold, threshold}, shortcut, stride, scratch, out,
            [](const Segment&) {},
            [&](const float* const* rows, const float* weight, int taps, const Segment& segment,
                std::uint8_t* bytes) {
                row_kernels().blend_above(rows, weight, taps, segment.size, threshold, bytes);
            });
    });
}

void stability(const float* logits, int count, std::size_t size, double threshold, double offset,
               float* target) {
    const float inner = static_cast<float>(threshold + offset);
    const float outer = static_cast<float>(threshold - offset);
    for (int mask = 0; mask < count; ++mask, logits += size) {
        std::int64_t above_inner = 0, above_outer = 0;
        for (std::size_t from = 0; from < size; from += 4096) {
            const std::size_t end = std::min(from + 4096, size);
            std::int32_t in = 0, out = 0;
            for (std::size_t i = from; i < end; ++i) {
                in += logits[i] > inner;
                out += logits[i] > outer;
            }
            above_inner += in;
            above_outer += out;
        }
        target[mask] = above_outer == 0 ? 0.0f
                                        : static_cast<float>(static_cast<double>(above_inner) /
                                                             static_cast<double>(above_outer));
    }
}

}  // namespace samrt
