#include <algorithm>
#include <cstring>

#include "samrt/masks.hpp"

namespace samrt {
namespace {

std::int64_t count_row(const std::uint8_t* row, std::size_t n) {
    std::int64_t total = 0;
    for (std::size_t from = 0; from < n; from += 4096) {
        const std::size_t end = std::min(from + 4096, n);
        std::uint32_t count = 0;
        for (std::size_t i = from; i < end; ++i) count += row[i] != 0;
        total += count;
    }
    return total;
}

bool word_is_zero(const std::uint8_t* at) {
    std::uint64_t word;
    std::memcpy(&word, at, sizeof word);
    return word == 0;
}

// First inside sample in [from, to), or `to`.
std::size_t first_inside(const std::uint8_t* row, std::size_t from, std::size_t to) {
    while (from + 8 <= to && word_is_zero(row + from)) from += 8;
    while (from < to && row[from] == 0) ++from;
    return from;
}

// One past the last inside sample in [from, to), or `from`.
std::size_t last_inside(const std::uint8_t* row, std::size_t from, std::size_t to) {
    while (to >= from + 8 && word_is_zero(row + to - 8)) to -= 8;
    while (to > from && row[to - 1] == 0) --to;
    return to;
}

}  // namespace

MaskStats mask_stats(const std::uint8_t* mask, MaskShape shape) {
    const std::size_t width = static_cast<std::size_t>(shape.width);
    MaskStats stats;
    std::size_t left = width, right = 0;
    for (int y = 0; y < shape.height; ++y, mask += width) {
        const std::int64_t area = count_row(mask, width);
        if (area == 0) continue;
        if (stats.area == 0) stats.y0 = y;
        stats.y1 = y + 1;
        stats.area += area;
        left = first_inside(mask, 0, left);
        right = last_inside(mask, right, width);
    }
    if (stats.area > 0) {
        stats.x0 = static_cast<std::int64_t>(left);
        stats.x1 = static_cast<std::int64_t>(right);
    }
    return stats;
}

}  // namespace samrt
