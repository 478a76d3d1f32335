// Softmax attention within windows of a grid of tokens, scores never in memory as a whole.
//
// Keys go by in tiles: scores of a block of queries with a tile of keys stay in the cache, the
// running maximum and sum of each query are corrected when a tile brings a larger score
// (Milakov and Gimelshein, "Online normalizer calculation for softmax", arXiv:1805.02867).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "layers.hpp"

namespace samrt::ops {
namespace {

constexpr int kQueryBlock = 96;  // at least; whole rows of the window
constexpr int kKeyTile = 512;

class Job {
public:
    Job(const AttentionShape& shape, const AttentionInputs& in, float* y)
        : s_(shape), in_(in), y_(y), by_(kernels()), dim_(shape.heads * shape.d),
          tile_rows_(std::clamp(kKeyTile / shape.window_w, 1, shape.window_h)),
          block_rows_(std::clamp((kQueryBlock + shape.window_w - 1) / shape.window_w, 1,
                                 shape.window_h)),
          zeros_(static_cast<std::size_t>(shape.d), 0.0f) {}

    void run(const Parallel& parallel) {
        pack_tables();
        const int down = (s_.grid_h + s_.window_h - 1) / s_.window_h;
        const int across = (s_.grid_w + s_.window_w - 1) / s_.window_w;
        if (down * across == 1 && tiles() > 1) return run_whole(parallel);
        parallel(size(down * across, s_.heads), [&](std::size_t unit) {
            const int head = static_cast<int>(unit) % s_.heads;
            const int window = static_cast<int>(unit) / s_.heads;
            const Place place{window / across * s_.window_h, window % across * s_.window_w, head};
            thread_local Buffer packed;
            float* keys = packed.grow(size(tiles(), 1) * tile_floats());
            for (int tile = 0; tile < tiles(); ++tile) pack(place, tile, keys);
            const int real_h = std::min(s_.window_h, s_.grid_h - place.top);
            const int real_w = std::min(s_.window_w, s_.grid_w - place.left);
            for (int row = 0; row < real_h; row += block_rows_)
                block(place, row, std::min(block_rows_, real_h - row), real_w, keys);
        });
    }

private:
    struct Place {
        int top, left, head;
    };

    int tiles() const { return (s_.window_h + tile_rows_ - 1) / tile_rows_; }
    int tile_keys() const { return tile_rows_ * s_.window_w; }
    int score_stride() const {
        return (tile_keys() + by_.panel - 1) / by_.panel * by_.panel;
    }
    std::size_t key_floats() const { return packed_size(by_, s_.d, tile_keys()); }
    std::size_t tile_floats() const { return key_floats() + packed_size(by_, tile_keys(), s_.d); }

    // One window: its keys and values are packed by all threads, then its queries are shared out.
    void run_whole(const Parallel& parallel) const {
        const Buffer packed(size(s_.heads, tiles()) * tile_floats());
        const auto of_head = [&](int head) {
            return packed.data() + size(head, tiles()) * tile_floats();
        };
        parallel(size(s_.heads, tiles()), [&](std::size_t unit) {
            const int head = static_cast<int>(unit) / tiles();
            pack(Place{0, 0, head}, static_cast<int>(unit) % tiles(), of_head(head));
        });
        const int blocks = (s_.grid_h + block_rows_ - 1) / block_rows_;
        parallel(size(s_.heads, blocks), [&](std::size_t unit) {
            const int head = static_cast<int>(unit) / blocks;
            const int row = static_cast<int>(unit) % blocks * block_rows_;
            block(Place{0, 0, head}, row, std::min(block_rows_, s_.grid_h - row), s_.grid_w,
                  of_head(head));
        });
    }

    // The tables of relative positions, one packed matrix (d, window) for each query row or column.
    void pack_tables() {
        if (in_.rows == nullptr) return;
        tables_.grow(size(s_.window_h, 1) * table_floats(s_.window_h) +
                     size(s_.window_w, 1) * table_floats(s_.window_w));
        std::vector<const float*> rows(static_cast<std::size_t>(s_.d));
        for (int axis : {0, 1}) {
            const int n = axis == 0 ? s_.window_h : s_.window_w;
            for (int i = 0; i < n; ++i) {
                const float* from = (axis == 0 ? in_.rows : in_.columns) + wide(i) * s_.d * n;
                for (int k = 0; k < s_.d; ++k) rows[static_cast<std::size_t>(k)] = from + wide(k) * n;
                by_.pack(rows.data(), s_.d, n, tables_.data() + table(axis, i));
            }
        }
    }

    std::size_t table_floats(int n) const { return packed_size(by_, s_.d, n); }
    std::size_t table(int axis, int i) const {
        return axis == 0 ? size(i, 1) * table_floats(s_.window_h)
                         : size(s_.window_h, 1) * table_floats(s_.window_h) +
                               size(i, 1) * table_floats(s_.window_w);
    }

    // q, k or v (part 0, 1, 2) of a token.
    const float* token(int row, int column, int part, int head) const {
        return in_.qkv + (wide(row) * s_.grid_w + column) * 3 * dim_ + wide(part) * dim_ +
               wide(head) * s_.d;
    }

    int keys_of(int tile) const {
        return (std::min(s_.window_h, (tile + 1) * tile_rows_) - tile * tile_rows_) * s_.window_w;
    }

    void pack(const Place& place, int tile, float* packed) const {
        packed += size(tile, 1) * tile_floats();
        const int keys = keys_of(tile);
        thread_local std::vector<const float*> rows;
        rows.resize(static_cast<std::size_t>(keys));
        for (int part : {1, 2}) {
            for (int i = 0; i < keys; ++i) {
                const int row = place.top + tile * tile_rows_ + i / s_.window_w;
                const int column = place.left + i % s_.window_w;
                rows[static_cast<std::size_t>(i)] = row < s_.grid_h && column < s_.grid_w
                                                        ? token(row, column, part, place.head)
                                                        : zeros_.data();
            }
            if (part == 1)
                by_.pack_transposed(rows.data(), s_.d, keys, packed);
            else
                by_.pack(rows.data(), keys, s_.d, packed + key_floats());
        }
    }

    // The queries of `rows` rows from `first` of a window whose real tokens are `real_w` wide.
    void block(const Place& place, int first, int rows, int real_w, const float* packed) const {
        const int d = s_.d, stride = score_stride(), most = block_rows_ * s_.window_w;
        const int count = rows * real_w;
        thread_local Buffer scratch;
        float* q = scratch.grow(size(most, 2 * d + stride + s_.window_h + s_.window_w + 2) +
                                size(stride + 2 * by_.lanes, 1));
        float* mixed = q + size(most, d);
        float* scores = mixed + size(most, d);
        float* down = scores + size(most, stride);
        float* across = down + size(most, s_.window_h);
        float* best = across + size(most, s_.window_w) + by_.lanes;
        float* sum = best + most;
        float* space = sum + most;
        for (int i = 0; i < count; ++i) {
            const float* source = token(place.top + first + i / real_w, place.left + i % real_w, 0,
                                        place.head);
            if (in_.query_bias != nullptr)
                by_.add(source, in_.query_bias + wide(place.head) * d, d, q + wide(i) * d);
            else
                std::memcpy(q + wide(i) * d, source, size(d, 1) * sizeof(float));
            best[i] = -INFINITY;
            sum[i] = 0;
        }
        if (in_.rows != nullptr) relative(q, first, rows, real_w, down, across);
        for (int tile = 0; tile < tiles(); ++tile) {
            const float* keys = packed + size(tile, 1) * tile_floats();
            const int n = keys_of(tile);
            by_.multiply(q, d, count, keys, d, n, scores, stride, Epilogue());
            for (int i = 0; i < count; ++i) {
                const int query = (first + i / real_w) * s_.window_w + i % real_w;
                const float before = best[i];
                const float more =
                    weigh(scores + wide(i) * stride, place.head, query, tile,
                          down + wide(i) * s_.window_h, across + wide(i) * s_.window_w, space,
                          &best[i]);
                const float factor = tile == 0 ? 0.0f : std::exp(before - best[i]);
                sum[i] = sum[i] * factor + more;
                if (tile > 0 && factor != 1.0f)
                    by_.scale(mixed + wide(i) * d, factor, d, mixed + wide(i) * d);
            }
            Epilogue then;
            then.accumulate = tile > 0;
            by_.multiply(scores, stride, count, keys + key_floats(), n, d, mixed, d, then);
        }
        for (int i = 0; i < count; ++i)
            by_.scale(mixed + wide(i) * d, 1.0f / sum[i], d,
                      y_ + (wide(place.top + first + i / real_w) * s_.grid_w + place.left +
                            i % real_w) * dim_ + wide(place.head) * d);
    }

    // down (count, window_h) and across (count, window_w): q times the tables.
    void relative(const float* q, int first, int rows, int real_w, float* down,
                  float* across) const {
        const int d = s_.d;
        for (int r = 0; r < rows; ++r)
            by_.multiply(q + wide(r) * real_w * d, d, real_w, tables_.data() + table(0, first + r),
                         d, s_.window_h, down + wide(r) * real_w * s_.window_h, s_.window_h,
                         Epilogue());
        for (int c = 0; c < real_w; ++c)
            by_.multiply(q + wide(c) * d, wide(real_w) * d, rows, tables_.data() + table(1, c), d,
                         s_.window_w, across + wide(c) * s_.window_w, wide(real_w) * s_.window_w,
                         Epilogue());
    }

    // The scores of one query with the keys of a tile become weights; see Kernels::softmax.
    float weigh(float* scores, int head, int query, int tile, const float* down,
                const float* across, float* space, float* best) const {
        const int n = keys_of(tile);
        if (in_.bias != nullptr) {
            const float* dense = in_.bias + (wide(head) * s_.keys() + query) * s_.keys() +
                                 wide(tile) * tile_keys();
            if (in_.rows == nullptr) return by_.softmax(scores, dense, n, best);
            by_.add(scores, dense, n, scores);
        }
        if (in_.rows == nullptr) return by_.softmax(scores, nullptr, n, best);
        return by_.softmax_relative(scores, down + wide(tile) * tile_rows_, n / s_.window_w, across,
                                    s_.window_w, space, best);
    }

    AttentionShape s_;
    AttentionInputs in_;
    float* y_;
    const Kernels& by_;
    int dim_, tile_rows_, block_rows_;
    Buffer tables_;
    std::vector<float> zeros_;
};

}  // namespace

void attention(const AttentionShape& shape, const AttentionInputs& in, float* y,
               const Parallel& parallel) {
    Job(shape, in, y).run(parallel);
}

}  // namespace samrt::ops
