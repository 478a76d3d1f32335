#include "samrt/postprocess.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "samrt/rows.hpp"
#include "upscaler.hpp"

namespace samrt {
namespace {

std::size_t at(int index) { return static_cast<std::size_t>(index); }

// A part of an output row that is treated alike.
struct Segment {
    std::size_t from, size;
    std::uint8_t fill;
};

void find_segments(const std::uint8_t* fill, const Tile& tile, std::vector<Segment>& segments) {
    const int n = stretches(tile);
    segments.clear();
    for (int i = 0, end = 0; i < n; i = end) {
        while (end < n && fill[end] == fill[i]) ++end;
        const std::size_t from = at(i * kStretch);
        segments.push_back({from, at(std::min(end * kStretch, tile.columns())) - from, fill[i]});
    }
}

// One output row of a tile: decided segments are filled, the others computed.
void threshold_row(const float* const* rows, const float* weight, int taps, float threshold,
                   const std::vector<Segment>& segments, std::uint8_t* target) {
    for (const Segment& segment : segments) {
        if (segment.fill != kMixed) {
            std::memset(target + segment.from, segment.fill, segment.size);
            continue;
        }
        const float* part[kStencil];
        for (int k = 0; k < taps; ++k) part[k] = rows[k] + segment.from;
        row_kernels().blend_above(part, weight, taps, segment.size, threshold,
                                  target + segment.from);
    }
}

// `target` is the tile's first sample in the output map.
void threshold_tile(const Upscaler& upscaler, const Tile& tile, float threshold, bool shortcut,
                    std::size_t stride, TileScratch& scratch, std::uint8_t* target) {
    const Stencil& vertical = upscaler.vertical();
    std::vector<Segment> segments{{0, at(tile.columns()), kMixed}};
    upscaler.load(tile, scratch);
    if (shortcut) {
        upscaler.find_bounds(tile, scratch);
        upscaler.decide(tile, threshold, scratch);
    }
    upscaler.stretch(tile, shortcut, scratch);
    int group = -1;
    for (int y = tile.row; y < tile.row_end; ++y, target += stride) {
        if (shortcut && upscaler.group(y) != group) {
            group = upscaler.group(y);
            find_segments(scratch.fill.data() +
                              at((group - upscaler.group(tile.row)) * stretches(tile)),
                          tile, segments);
        }
        const float* rows[kStencil];
        upscaler.sources(y, tile, scratch, rows);
        threshold_row(rows, vertical.weight(y), vertical.taps(), threshold, segments, target);
    }
}

bool all_finite(const float* values, std::size_t n) {
    for (std::size_t from = 0; from < n; from += 4096) {
        const std::size_t end = std::min(from + 4096, n);
        std::int32_t odd = 0;  // counted, so that the loop has no way out and can be vectorised
        for (std::size_t i = from; i < end; ++i) odd += !(std::fabs(values[i]) <= 1e30f);
        if (odd != 0) return false;
    }
    return true;
}

std::vector<float> logistic(const float* logits, std::size_t n) {
    std::vector<float> values(n);
    for (std::size_t i = 0; i < n; ++i) values[i] = 1.0f / (1.0f + std::exp(-logits[i]));
    return values;
}

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
        threshold_tile(upscaler, tile, threshold, shortcut, stride, scratch, out);
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
