#include "upscaler.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "samrt/parallel.hpp"
#include "samrt/rows.hpp"

namespace samrt {
namespace {

constexpr int kTileColumns = 512;  // a few float rows of this length fit the first-level cache
constexpr int kTileRows = 192;     // fewer output rows are not worth a thread

std::size_t at(int index) { return static_cast<std::size_t>(index); }

}  // namespace

Upscaler::Upscaler(const MaskPlan& plan)
    : plan_(plan),
      x_(plan.interpolation, plan.low_width, plan.frame_width, plan.crop_width, plan.out_width),
      y_(plan.interpolation, plan.low_height, plan.frame_height, plan.crop_height, plan.out_height),
      // Weights that sum to 1, of which -n are negative, leave a range by n times its width, first
      // along x and then, with the wider range, along y.
      overshoot_(x_.negative() + y_.negative() * (1.0f + 2.0f * x_.negative())),
      group_(at(plan.out_height)) {
    for (int y = 0; y < plan.out_height; ++y) {
        if (y == 0 ||
            std::memcmp(y_.index(y - 1), y_.index(y), sizeof(std::int32_t) * kStencil) != 0)
            group_begin_.push_back(y);
        group_[at(y)] = static_cast<int>(group_begin_.size()) - 1;
    }
}

void Upscaler::for_tiles(const float* logits, int threads,
                         const std::function<void(const Tile&, TileScratch&)>& body) const {
    threads = useful_threads(
        threads, static_cast<std::int64_t>(plan_.out_height) * plan_.out_width * plan_.count);
    const int tiles_x = (plan_.out_width + kTileColumns - 1) / kTileColumns;
    const int most = std::max(1, plan_.out_height / kTileRows);
    const int wanted = threads <= 1 ? 1 : (4 * std::min(threads, kMaxThreads)) / tiles_x + 1;
    const int tiles_y = std::clamp(wanted, 1, most);
    const std::int64_t per_mask = static_cast<std::int64_t>(tiles_x) * tiles_y;
    const std::int64_t units = per_mask * plan_.count;
    std::vector<TileScratch> scratch(at(worker_count(threads, units)));
    parallel_for(threads, units, [&](int worker, std::int64_t unit) {
        const int mask = static_cast<int>(unit / per_mask);
        const int place = static_cast<int>(unit % per_mask);
        const int row = place / tiles_x, column = place % tiles_x * kTileColumns;
        const std::int64_t height = plan_.out_height;
        const Tile tile{logits + at(mask) * plan_.low_size(),
                        mask,
                        static_cast<int>(height * row / tiles_y),
                        static_cast<int>(height * (row + 1) / tiles_y),
                        column,
                        std::min(column + kTileColumns, plan_.out_width)};
        body(tile, scratch[at(worker)]);
    });
}

void Upscaler::for_tiles_of(const float* logits,
                            const std::function<void(const Tile&)>& body) const {
    for (int column = 0; column < plan_.out_width; column += kTileColumns)
        body({logits, 0, 0, plan_.out_height, column,
              std::min(column + kTileColumns, plan_.out_width)});
}

void Upscaler::load(const Tile& tile, TileScratch& scratch) const {
    const int first = y_.lowest(tile.row, tile.row_end);
    const int last = y_.highest(tile.row, tile.row_end);
    const int left = x_.lowest(tile.column, tile.column_end);
    const int right = x_.highest(tile.column, tile.column_end);
    scratch.first_row = first;
    scratch.first_column = left;
    scratch.row_blocks = (last - first) / kBlockRows + 1;
    scratch.in_columns = right + 1 - left;
    const std::size_t block = kBlockRows * at(scratch.in_columns);
    scratch.input.need(at(scratch.row_blocks) * block);
    for (int b = 0; b < scratch.row_blocks; ++b) {
        const float* source[kBlockRows];
        for (int r = 0; r < kBlockRows; ++r) {
            const int y = std::min(first + b * kBlockRows + r, last);
            source[r] = tile.logits + at(y) * at(plan_.low_width) + left;
        }
        row_kernels().interleave(source, at(scratch.in_columns),
                                 scratch.input.data() + at(b) * block);
    }
    scratch.index.assign(x_.index(tile.column), x_.index(tile.column) + kStencil * tile.columns());
    for (std::int32_t& column : scratch.index) column -= left;
}

void Upscaler::find_bounds(const Tile& tile, TileScratch& scratch) const {
    const int n = stretches(tile);
    const std::size_t rows = at(scratch.row_blocks * kBlockRows);
    scratch.lows.need(rows * at(n));
    scratch.highs.need(rows * at(n));
    std::vector<float> low(kBlockRows * at(n)), high(kBlockRows * at(n));
    std::vector<std::size_t> begin(at(n)), size(at(n));  // the sources of each stretch
    for (int i = 0; i < n; ++i) {
        const int from = i * kStretch, to = std::min(from + kStretch, tile.columns());
        const std::int32_t* index = scratch.index.data() + kStencil * from;
        const auto range = std::minmax_element(index, index + kStencil * (to - from));
        begin[at(i)] = at(*range.first);
        size[at(i)] = at(*range.second - *range.first + 1);
    }
    const RowKernels& kernels = row_kernels();
    for (int b = 0; b < scratch.row_blocks; ++b) {
        const float* input =
            scratch.input.data() + at(b) * kBlockRows * at(scratch.in_columns);
        for (std::size_t i = 0; i < at(n); ++i)
            kernels.range_block(input + kBlockRows * begin[i], size[i],
                                low.data() + kBlockRows * i, high.data() + kBlockRows * i);
        float *to_low[kBlockRows], *to_high[kBlockRows];
        for (int r = 0; r < kBlockRows; ++r) {
            to_low[r] = scratch.lows.data() + at(b * kBlockRows + r) * at(n);
            to_high[r] = scratch.highs.data() + at(b * kBlockRows + r) * at(n);
        }
        kernels.deinterleave(low.data(), at(n), to_low);
        kernels.deinterleave(high.data(), at(n), to_high);
    }
    // Every output sample is a sum with weights that add up to 1. If none is negative it lies
    // within the range of its sources but for rounding, for which this leaves a hundred times the
    // room; for negative weights `decide` adds what they can do.
    for (std::size_t i = 0; i < rows * at(n); ++i) {
        const float low_size = std::fabs(scratch.lows[i]), high_size = std::fabs(scratch.highs[i]);
        const float margin = 1e-5f * (low_size > high_size ? low_size : high_size) + 1e-30f;
        scratch.lows[i] -= margin;
        scratch.highs[i] += margin;
    }
}

void Upscaler::decide(const Tile& tile, float lower, float upper, TileScratch& scratch) const {
    const std::size_t n = at(stretches(tile));
    const int first_group = group(tile.row), last_group = group(tile.row_end - 1);
    scratch.needed.assign(at(scratch.row_blocks) * n, 0);
    scratch.fill.need(at(last_group - first_group + 1) * n);
    std::vector<float> low(n), high(n);
    for (int g = first_group; g <= last_group; ++g) {
        const std::int32_t* index = y_.index(group_begin_[at(g)]);
        for (int k = 0; k < y_.taps(); ++k) {
            const std::size_t row = at(index[k] - scratch.first_row) * n;
            const float *lows = scratch.lows.data() + row, *highs = scratch.highs.data() + row;
            if (k == 0) {
                std::copy_n(lows, n, low.data());
                std::copy_n(highs, n, high.data());
                continue;
            }
            for (std::size_t i = 0; i < n; ++i) {
                low[i] = lows[i] < low[i] ? lows[i] : low[i];
                high[i] = highs[i] > high[i] ? highs[i] : high[i];
            }
        }
        if (overshoot_ > 0.0f)
            for (std::size_t i = 0; i < n; ++i) {
                const float room = 1.001f * overshoot_ * (high[i] - low[i]);
                low[i] -= room;
                high[i] += room;
            }
        std::uint8_t* fill = scratch.fill.data() + at(g - first_group) * n;
        for (std::size_t i = 0; i < n; ++i) {
            const int above = low[i] > upper, below = high[i] <= lower;
            fill[i] = static_cast<std::uint8_t>(above + kMixed * (1 - above - below));
        }
        for (int k = 0; k < y_.taps(); ++k) {
            const int block = (index[k] - scratch.first_row) / kBlockRows;
            std::uint8_t* needed = scratch.needed.data() + at(block) * n;
            for (std::size_t i = 0; i < n; ++i) needed[i] |= fill[i] & kMixed;
        }
    }
}

void Upscaler::stretch(const Tile& tile, bool only_needed, TileScratch& scratch) const {
    const int n = stretches(tile);
    const std::size_t columns = at(tile.columns());
    scratch.rows.need(at(scratch.row_blocks * kBlockRows) * columns);
    scratch.block.need(kBlockRows * columns);
    const RowKernels& kernels = row_kernels();
    for (int b = 0; b < scratch.row_blocks; ++b) {
        const std::uint8_t* needed = scratch.needed.data() + at(b * n);
        const float* input =
            scratch.input.data() + at(b) * kBlockRows * at(scratch.in_columns);
        for (int i = 0; i < n;) {
            int end = only_needed ? i : n;
            while (end < n && needed[end] != 0) ++end;
            if (end == i) {
                ++i;
                continue;
            }
            const int from = i * kStretch, to = std::min(end * kStretch, tile.columns());
            float* target[kBlockRows];
            for (int r = 0; r < kBlockRows; ++r)
                target[r] = scratch.rows.data() + at(b * kBlockRows + r) * columns + from;
            kernels.stencil_block(input, scratch.index.data() + kStencil * from,
                                  x_.weight(tile.column + from), x_.taps(), at(to - from),
                                  scratch.block.data());
            kernels.deinterleave(scratch.block.data(), at(to - from), target);
            i = end;
        }
    }
}

void Upscaler::sources(int y, const Tile& tile, const TileScratch& scratch,
                       const float** rows) const {
    const std::int32_t* index = y_.index(y);
    for (int k = 0; k < y_.taps(); ++k)
        rows[k] = scratch.rows.data() + at(index[k] - scratch.first_row) * at(tile.columns());
}

}  // namespace samrt
