#include "samrt/rle.hpp"

#include <cstring>
#include <limits>
#include <stdexcept>

namespace samrt {
namespace {

constexpr std::size_t kWord = 8;

std::uint64_t load(const std::uint8_t* from) {
    std::uint64_t word;
    std::memcpy(&word, from, kWord);
    return word;
}

// Calls changed(x) for every column where the two rows differ in being inside.
template <typename Changed>
void for_changes(const std::uint8_t* above, const std::uint8_t* row, std::size_t width,
                 Changed changed) {
    const auto check = [&](std::size_t from, std::size_t to) {
        for (std::size_t x = from; x < to; ++x)
            if ((above[x] != 0) != (row[x] != 0)) changed(x);
    };
    std::size_t x = 0;
    for (; x + 4 * kWord <= width; x += 4 * kWord) {
        std::uint64_t different = 0;
        for (std::size_t k = 0; k < 4; ++k)
            different |= load(above + x + k * kWord) ^ load(row + x + k * kWord);
        if (different != 0) check(x, x + 4 * kWord);
    }
    check(x, width);
}

// Calls changed(x, y) for every sample that differs from the one above it in its column.
template <typename Changed>
void for_vertical_changes(const std::uint8_t* mask, MaskShape shape, Changed changed) {
    const std::size_t width = static_cast<std::size_t>(shape.width);
    for (std::uint32_t y = 1; y < static_cast<std::uint32_t>(shape.height); ++y) {
        const std::uint8_t* row = mask + y * width;
        for_changes(row - width, row, width, [&](std::size_t x) { changed(x, y); });
    }
}

}  // namespace

std::vector<std::uint32_t> rle_encode(const std::uint8_t* mask, MaskShape shape) {
    const std::size_t width = static_cast<std::size_t>(shape.width);
    const std::size_t height = static_cast<std::size_t>(shape.height);
    // Pass 1 counts the changes of each column, pass 2 puts their rows where they belong: the
    // mask is read twice in memory order instead of once against it.
    std::vector<std::size_t> next(width + 1, 0);
    for_vertical_changes(mask, shape, [&](std::size_t x, std::uint32_t) { ++next[x + 1]; });
    for (std::size_t x = 0; x < width; ++x) next[x + 1] += next[x];
    std::vector<std::uint32_t> row_of(next[width]);
    std::vector<std::size_t> end(next.begin() + 1, next.end());
    for_vertical_changes(mask, shape,
                         [&](std::size_t x, std::uint32_t y) { row_of[next[x]++] = y; });

    std::vector<std::uint32_t> counts;
    counts.reserve(row_of.size() + 2 * width + 2);
    const std::uint8_t* bottom = mask + (height - 1) * width;
    std::size_t last = 0, change = 0;
    bool value = false;  // of the sample before the current one, in column order
    const auto flip = [&](std::size_t position) {
        counts.push_back(static_cast<std::uint32_t>(position - last));
        last = position;
    };
    for (std::size_t x = 0; x < width; ++x) {
        if ((mask[x] != 0) != value) flip(x * height);
        for (; change < end[x]; ++change) flip(x * height + row_of[change]);
        value = bottom[x] != 0;
    }
    flip(width * height);
    return counts;
}

void rle_decode(const std::uint32_t* counts, std::size_t n, MaskShape shape,
                std::uint8_t* mask) {
    std::uint64_t total = 0;
    for (std::size_t i = 0; i < n; ++i) total += counts[i];
    if (total != shape.size())
        throw std::invalid_argument("run lengths sum to " + std::to_string(total) +
                                    " samples; expected height * width = " +
                                    std::to_string(shape.size()));
    // A 1 marks where a column's value differs from the sample above it (the first row: where
    // the column starts inside). Rows are then summed from the top.
    const std::size_t width = static_cast<std::size_t>(shape.width);
    const std::size_t height = static_cast<std::size_t>(shape.height);
    std::memset(mask, 0, shape.size());
    std::uint64_t begin = 0;
    for (std::size_t i = 0; i < n; begin += counts[i], ++i) {
        if (i % 2 == 0 || counts[i] == 0) continue;
        const std::uint64_t end = begin + counts[i];
        mask[begin % height * width + begin / height] ^= 1;
        for (std::size_t x = begin / height + 1; x * height < end; ++x) mask[x] ^= 1;
        if (end % height != 0) mask[end % height * width + end / height] ^= 1;
    }
    for (std::size_t y = 1; y < height; ++y) {
        std::uint8_t* row = mask + y * width;
        const std::uint8_t* above = row - width;
        for (std::size_t x = 0; x < width; ++x) row[x] = row[x] ^ above[x];
    }
}

std::string rle_to_string(const std::uint32_t* counts, std::size_t n) {
    std::string text;
    text.reserve(2 * n);
    for (std::size_t i = 0; i < n; ++i) {
        std::int64_t value = counts[i];
        if (i > 2) value -= counts[i - 2];
        for (bool more = true; more;) {
            const auto group = static_cast<int>(value & 31);
            value >>= 5;
            more = value != ((group & 16) != 0 ? -1 : 0);
            text.push_back(static_cast<char>('0' + (more ? group | 32 : group)));
        }
    }
    return text;
}

std::vector<std::uint32_t> rle_from_string(const std::string& text) {
    std::vector<std::uint32_t> counts;
    for (std::size_t i = 0; i < text.size();) {
        std::int64_t value = 0;
        int shift = 0;
        for (bool more = true; more; shift += 5) {
            if (i == text.size())
                throw std::invalid_argument("compressed run lengths end in the middle of a number");
            const int group = static_cast<unsigned char>(text[i]) - '0';
            if (group < 0 || group > 63 || shift > 35)
                throw std::invalid_argument("compressed run lengths are damaged at character " +
                                            std::to_string(i));
            ++i;
            value |= static_cast<std::int64_t>(group & 31) << shift;
            more = (group & 32) != 0;
            if (!more && (group & 16) != 0) value |= -(std::int64_t{1} << (shift + 5));
        }
        if (counts.size() > 2) value += counts[counts.size() - 2];
        if (value < 0 || value > std::numeric_limits<std::uint32_t>::max())
            throw std::invalid_argument("compressed run length " + std::to_string(counts.size()) +
                                        " is negative or too large");
        counts.push_back(static_cast<std::uint32_t>(value));
    }
    return counts;
}

}  // namespace samrt
