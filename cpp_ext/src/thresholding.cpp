#include "thresholding.hpp"

#include <algorithm>
#include <cmath>

namespace samrt {

void find_segments(const std::uint8_t* fill, const Tile& tile, std::vector<Segment>& segments) {
    const int n = stretches(tile);
    segments.clear();
    for (int i = 0, end = 0; i < n; i = end) {
        while (end < n && fill[end] == fill[i]) ++end;
        const int from = i * kStretch, to = std::min(end * kStretch, tile.columns());
        segments.push_back({static_cast<std::size_t>(from), static_cast<std::size_t>(to - from),
                            fill[i]});
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

}  // namespace samrt
