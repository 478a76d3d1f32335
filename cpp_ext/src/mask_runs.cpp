#include "samrt/mask_runs.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "buffer.hpp"
#include "samrt/parallel.hpp"
#include "samrt/rle.hpp"
#include "samrt/rows.hpp"
#include "thresholding.hpp"

namespace samrt {
namespace {

struct Scratch {
    TileScratch tile;
    Buffer<std::uint8_t> mask;
};

// Writes one full-size mask and returns its stability.
float write_mask(const Upscaler& upscaler, const float* logits, const MaskPlan& plan,
                 const MaskLevels& levels, bool shortcut, Scratch& scratch) {
    const auto width = static_cast<std::size_t>(plan.out_width);
    const float cuts[3] = {levels.threshold, levels.inner, levels.outer};
    std::int64_t above[2] = {0, 0};  // inner, outer
    upscaler.for_tiles_of(logits, [&](const Tile& tile) {
        threshold_tile(
            upscaler, tile, {levels.outer, levels.inner}, shortcut, width, scratch.tile,
            scratch.mask.data() + static_cast<std::size_t>(tile.column),
            [&](const Segment& segment) {
                const auto n = static_cast<std::int64_t>(segment.fill * segment.size);
                above[0] += n;
                above[1] += n;
            },
            [&](const float* const* rows, const float* weight, int taps, const Segment& segment,
                std::uint8_t* target) {
                row_kernels().blend_levels(rows, weight, taps, segment.size, cuts, target, above);
            });
    });
    if (above[1] == 0) return 0.0f;
    return static_cast<float>(static_cast<double>(above[0]) / static_cast<double>(above[1]));
}

}  // namespace

void mask_runs(const float* logits, const MaskPlan& plan, const MaskLevels& levels,
               bool probability, float min_stability, int threads, MaskRuns* target) {
    const Upscaler upscaler(plan);
    const MaskShape shape{plan.out_height, plan.out_width};
    threads = useful_threads(threads, static_cast<std::int64_t>(plan.out_size()) * plan.count);
    std::vector<Scratch> scratch(static_cast<std::size_t>(worker_count(threads, plan.count)));
    parallel_for(threads, plan.count, [&](int worker, std::int64_t unit) {
        Scratch& own = scratch[static_cast<std::size_t>(worker)];
        own.mask.need(plan.out_size());
        const float* source = logits + static_cast<std::size_t>(unit) * plan.low_size();
        std::vector<float> probabilities;
        if (probability) {
            probabilities = logistic(source, plan.low_size());
            source = probabilities.data();
        }
        MaskRuns& found = target[unit];
        found = {};
        const bool shortcut = all_finite(source, plan.low_size());
        found.stability = write_mask(upscaler, source, plan, levels, shortcut, own);
        if (!(found.stability >= min_stability)) return;
        found.stats = mask_stats(own.mask.data(), shape);
        found.counts = rle_encode(own.mask.data(), shape);
    });
}

std::vector<std::uint32_t> place_runs(const std::uint32_t* counts, std::size_t n, MaskShape part,
                                      int row, int column, MaskShape whole) {
    const auto part_height = static_cast<std::uint64_t>(part.height);
    const auto height = static_cast<std::uint64_t>(whole.height);
    std::vector<std::uint32_t> out;
    std::uint64_t last = 0;     // where the run being written begins
    std::uint64_t inside = 0;   // end of the last stretch inside; 0 before the first
    const auto stretch = [&](std::uint64_t begin, std::uint64_t end) {
        if (inside == begin && inside != 0) {  // goes on from the column before
            inside = end;
            return;
        }
        if (inside != 0) {
            out.push_back(static_cast<std::uint32_t>(inside - last));
            last = inside;
        }
        out.push_back(static_cast<std::uint32_t>(begin - last));
        last = begin;
        inside = end;
    };
    std::uint64_t at = 0;
    for (std::size_t i = 0; i < n; at += counts[i], ++i) {
        if (i % 2 == 0) continue;
        const std::uint64_t end = at + counts[i];
        for (std::uint64_t from = at; from < end;) {
            const std::uint64_t x = from / part_height, y = from % part_height;
            const std::uint64_t to = std::min(end, (x + 1) * part_height);
            const std::uint64_t begin = (x + static_cast<std::uint64_t>(column)) * height + y +
                                        static_cast<std::uint64_t>(row);
            stretch(begin, begin + (to - from));
            from = to;
        }
    }
    if (inside != 0) {
        out.push_back(static_cast<std::uint32_t>(inside - last));
        last = inside;
    }
    const std::uint64_t size = height * static_cast<std::uint64_t>(whole.width);
    if (last < size || out.empty()) out.push_back(static_cast<std::uint32_t>(size - last));
    return out;
}

std::vector<std::int64_t> box_nms(const float* boxes, const float* scores, std::size_t n,
                                  double threshold) {
    std::vector<std::int64_t> order(n);
    std::iota(order.begin(), order.end(), std::int64_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::int64_t a, std::int64_t b) { return scores[a] > scores[b]; });
    std::vector<float> area(n);
    for (std::size_t i = 0; i < n; ++i)
        area[i] = (boxes[4 * i + 2] - boxes[4 * i]) * (boxes[4 * i + 3] - boxes[4 * i + 1]);
    std::vector<std::int64_t> kept;
    for (const std::int64_t candidate : order) {
        const auto c = static_cast<std::size_t>(candidate);
        const float* box = boxes + 4 * c;
        bool free = true;
        for (const std::int64_t rival : kept) {
            const auto r = static_cast<std::size_t>(rival);
            const float* other = boxes + 4 * r;
            const float w = std::min(box[2], other[2]) - std::max(box[0], other[0]);
            const float h = std::min(box[3], other[3]) - std::max(box[1], other[1]);
            const float shared = std::max(w, 0.0f) * std::max(h, 0.0f);
            const float iou = shared / (area[r] + area[c] - shared);
            if (static_cast<double>(iou) > threshold) {
                free = false;
                break;
            }
        }
        if (free) kept.push_back(candidate);
    }
    return kept;
}

}  // namespace samrt
