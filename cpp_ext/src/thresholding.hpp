// The shared work of cutting tiles of upscaled logits at thresholds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "samrt/rows.hpp"
#include "upscaler.hpp"

namespace samrt {

// The smallest and the largest threshold of interest: a sample above the one or not above the
// other need not be computed.
struct Limits {
    float lower, upper;
};

// A part of an output row that is treated alike: `fill` is 0, 1 or kMixed.
struct Segment {
    std::size_t from, size;
    std::uint8_t fill;
};

void find_segments(const std::uint8_t* fill, const Tile& tile, std::vector<Segment>& segments);

// Whether bounds may be trusted: no NaN, nothing infinite or near it.
bool all_finite(const float* values, std::size_t n);

std::vector<float> logistic(const float* logits, std::size_t n);

// Calls decided(segment) where all of a segment of an output row is above both limits or not above
// either, and mixed(rows, weight, taps, segment, target) where its samples must be computed.
// `target` is the tile's first byte; decided segments are filled with 0 or 1.
template <typename Decided, typename Mixed>
void threshold_tile(const Upscaler& upscaler, const Tile& tile, const Limits& limits,
                    bool shortcut, std::size_t stride, TileScratch& scratch, std::uint8_t* target,
                    Decided decided, Mixed mixed) {
    const Stencil& vertical = upscaler.vertical();
    std::vector<Segment> segments{{0, static_cast<std::size_t>(tile.columns()), kMixed}};
    upscaler.load(tile, scratch);
    if (shortcut) {
        upscaler.find_bounds(tile, scratch);
        upscaler.decide(tile, limits.lower, limits.upper, scratch);
    }
    upscaler.stretch(tile, shortcut, scratch);
    int group = -1;
    for (int y = tile.row; y < tile.row_end; ++y, target += stride) {
        if (shortcut && upscaler.group(y) != group) {
            group = upscaler.group(y);
            const int first = upscaler.group(tile.row);
            find_segments(scratch.fill.data() +
                              static_cast<std::size_t>((group - first) * stretches(tile)),
                          tile, segments);
        }
        const float* rows[kStencil];
        upscaler.sources(y, tile, scratch, rows);
        for (const Segment& segment : segments) {
            if (segment.fill != kMixed) {
                std::memset(target + segment.from, segment.fill, segment.size);
                decided(segment);
                continue;
            }
            const float* part[kStencil];
            for (int k = 0; k < vertical.taps(); ++k) part[k] = rows[k] + segment.from;
            mixed(part, vertical.weight(y), vertical.taps(), segment, target + segment.from);
        }
    }
}

}  // namespace samrt
