// Regions by runs: one pass joins the runs of neighbouring rows, a second numbers them.
#include <algorithm>
#include <cstring>
#include <vector>

#include "samrt/masks.hpp"

namespace samrt {
namespace {

struct Run {
    std::int32_t begin, end;  // columns [begin, end)
    std::int32_t parent;      // index of a run of the same region that comes no later
};

std::int32_t root_of(std::vector<Run>& runs, std::int32_t run) {
    const auto parent = [&](std::int32_t r) -> std::int32_t& {
        return runs[static_cast<std::size_t>(r)].parent;
    };
    while (parent(run) != run) {
        parent(run) = parent(parent(run));
        run = parent(run);
    }
    return run;
}

void join(std::vector<Run>& runs, std::int32_t a, std::int32_t b) {
    a = root_of(runs, a);
    b = root_of(runs, b);
    if (a < b)
        runs[static_cast<std::size_t>(b)].parent = a;
    else
        runs[static_cast<std::size_t>(a)].parent = b;
}

// First column from `x` on where (row[x] != 0) == value, or `width`.
std::int32_t next_change(const std::uint8_t* row, std::int32_t x, std::int32_t width, bool value) {
    if (value) {
        for (std::uint64_t word = 0; x + 8 <= width; x += 8) {
            std::memcpy(&word, row + x, sizeof word);
            if (word != 0) break;
        }
    } else {
        constexpr std::uint64_t ones = 0x0101010101010101u;
        for (std::uint64_t word = 0; x + 8 <= width; x += 8) {
            std::memcpy(&word, row + x, sizeof word);
            if (word != ones) break;
        }
    }
    while (x < width && (row[x] != 0) != value) ++x;
    return x;
}

struct RunTable {
    std::vector<Run> runs;
    std::vector<std::size_t> row_start;  // height + 1 entries
};

RunTable find_runs(const std::uint8_t* mask, MaskShape shape, int connectivity, bool invert) {
    RunTable table;
    std::vector<Run>& runs = table.runs;
    table.row_start.reserve(static_cast<std::size_t>(shape.height) + 1);
    const std::int32_t reach = connectivity == 8 ? 1 : 0;  // runs that touch at a corner join
    std::size_t above = 0, above_end = 0;
    for (int y = 0; y < shape.height; ++y) {
        const std::uint8_t* row = mask + static_cast<std::size_t>(y) *
                                             static_cast<std::size_t>(shape.width);
        table.row_start.push_back(runs.size());
        for (std::int32_t x = 0; x < shape.width;) {
            const std::int32_t begin = next_change(row, x, shape.width, !invert);
            if (begin == shape.width) break;
            const std::int32_t end = next_change(row, begin, shape.width, invert);
            const auto self = static_cast<std::int32_t>(runs.size());
            runs.push_back({begin, end, self});
            while (above < above_end && runs[above].end + reach <= begin) ++above;
            for (std::size_t a = above; a < above_end && runs[a].begin < end + reach; ++a)
                join(runs, static_cast<std::int32_t>(a), self);
            x = end;
        }
        above = table.row_start.back();
        above_end = runs.size();
    }
    table.row_start.push_back(runs.size());
    return table;
}

}  // namespace

std::int32_t label_regions(const std::uint8_t* mask, MaskShape shape, int connectivity,
                           bool invert, std::int32_t* labels, std::vector<std::int64_t>* areas) {
    RunTable table = find_runs(mask, shape, connectivity, invert);
    std::vector<std::int32_t> label(table.runs.size());
    std::int32_t regions = 0;
    for (std::size_t run = 0; run < label.size(); ++run) {
        const auto self = static_cast<std::int32_t>(run);
        const std::int32_t root = root_of(table.runs, self);
        label[run] = root == self ? ++regions : label[static_cast<std::size_t>(root)];
    }
    if (areas != nullptr) areas->assign(static_cast<std::size_t>(regions), 0);
    const std::size_t width = static_cast<std::size_t>(shape.width);
    for (std::size_t y = 0; y < static_cast<std::size_t>(shape.height); ++y) {
        std::int32_t* row = labels + y * width;
        std::fill_n(row, width, 0);
        for (std::size_t run = table.row_start[y]; run < table.row_start[y + 1]; ++run) {
            const Run& r = table.runs[run];
            std::fill(row + r.begin, row + r.end, label[run]);
            if (areas != nullptr)
                (*areas)[static_cast<std::size_t>(label[run] - 1)] += r.end - r.begin;
        }
    }
    return regions;
}

bool remove_small_regions(const std::uint8_t* mask, MaskShape shape, double min_area, bool holes,
                          std::uint8_t* target) {
    std::vector<std::int32_t> labels(shape.size());
    std::vector<std::int64_t> areas;
    label_regions(mask, shape, 8, holes, labels.data(), &areas);
    std::vector<std::uint8_t> inside(areas.size() + 1);  // by label: is it inside afterwards?
    inside[0] = holes ? 1 : 0;
    bool any_small = false, any_large = false;
    for (std::size_t i = 0; i < areas.size(); ++i) {
        const bool small = static_cast<double>(areas[i]) < min_area;
        any_small |= small;
        any_large |= !small;
        inside[i + 1] = small == holes;
    }
    if (!holes && any_small && !any_large)
        inside[static_cast<std::size_t>(std::max_element(areas.begin(), areas.end()) -
                                        areas.begin()) + 1] = 1;
    for (std::size_t i = 0; i < labels.size(); ++i)
        target[i] = inside[static_cast<std::size_t>(labels[i])];
    return any_small;
}

}  // namespace samrt
