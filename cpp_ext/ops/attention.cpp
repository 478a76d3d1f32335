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

constexpr int kQueryBlock = 96;
constexpr int kKeyTile = 512;

std::ptrdiff_t wide(int value) { return static_cast<std::ptrdiff_t>(value); }
std::size_t size(int a, int b) { return static_cast<std::size_t>(a) * static_cast<std::size_t>(b); }

class Job {
public:
    Job(const AttentionShape& shape, const AttentionInputs& in, float* y)
        : s_(shape), in_(in), y_(y), by_(kernels()), dim_(shape.heads * shape.d),
          tile_rows_(std::clamp(kKeyTile / shape.window_w, 1, shape.window_h)),
          zeros_(static_cast<std::size_t>(shape.d), 0.0f) {}

    void run(const Parallel& parallel) const {
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
            for (int from = 0; from < real_h * real_w; from += kQueryBlock)
                block(place, from, std::min(kQueryBlock, real_h * real_w - from), real_w, keys);
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
        const int queries = s_.grid_h * s_.grid_w;
        const int blocks = (queries + kQueryBlock - 1) / kQueryBlock;
        parallel(size(s_.heads, blocks), [&](std::size_t unit) {
            const int head = static_cast<int>(unit) / blocks;
            const int from = static_cast<int>(unit) % blocks * kQueryBlock;
            block(Place{0, 0, head}, from, std::min(kQueryBlock, queries - from), s_.grid_w,
                  of_head(head));
        });
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

    // Queries [from, from + count) of a window of which `real_w` columns hold tokens.
    void block(const Place& place, int from, int count, int real_w, const float* packed) const {
        const int d = s_.d, stride = score_stride();
        thread_local Buffer scratch;
        float* q = scratch.grow(size(kQueryBlock, 2 * d + stride + s_.window_h + s_.window_w) +
                                size(stride, 1));
        float* mixed = q + size(kQueryBlock, d);
        float* scores = mixed + size(kQueryBlock, d);
        float* down = scores + size(kQueryBlock, stride);
        float* across = down + size(kQueryBlock, s_.window_h);
        float* bias = across + size(kQueryBlock, s_.window_w);
        float best[kQueryBlock], sum[kQueryBlock];
        for (int i = 0; i < count; ++i) {
            const int row = (from + i) / real_w, column = (from + i) % real_w;
            float* to = q + wide(i) * d;
            const float* source = token(place.top + row, place.left + column, 0, place.head);
            if (in_.query_bias != nullptr)
                by_.add(source, in_.query_bias + wide(place.head) * d, d, to);
            else
                std::memcpy(to, source, static_cast<std::size_t>(d) * sizeof(float));
            if (in_.rows != nullptr)
                by_.combine(to, in_.rows + wide(row) * d * s_.window_h, d, s_.window_h,
                            down + wide(i) * s_.window_h);
            if (in_.columns != nullptr)
                by_.combine(to, in_.columns + wide(column) * d * s_.window_w, d, s_.window_w,
                            across + wide(i) * s_.window_w);
            best[i] = -INFINITY;
            sum[i] = 0;
        }
        for (int tile = 0; tile < tiles(); ++tile) {
            const float* keys = packed + size(tile, 1) * tile_floats();
            const int n = keys_of(tile);
            by_.multiply(q, d, count, keys, d, n, scores, stride, Epilogue());
            for (int i = 0; i < count; ++i) {
                const int row = (from + i) / real_w, column = (from + i) % real_w;
                const float* add = bias_of(place.head, row * s_.window_w + column, tile,
                                           down + wide(i) * s_.window_h,
                                           across + wide(i) * s_.window_w, bias);
                const float before = best[i];
                const float more = by_.softmax_tile(scores + wide(i) * stride, add, n, &best[i]);
                const float factor = tile == 0 ? 0.0f : std::exp(before - best[i]);
                sum[i] = sum[i] * factor + more;
                if (tile > 0 && factor != 1.0f)
                    by_.scale(mixed + wide(i) * d, factor, d, mixed + wide(i) * d);
            }
            Epilogue then;
            then.accumulate = tile > 0;
            by_.multiply(scores, stride, count, keys + key_floats(), n, d, mixed, d, then);
        }
        for (int i = 0; i < count; ++i) {
            const int row = place.top + (from + i) / real_w;
            const int column = place.left + (from + i) % real_w;
            by_.scale(mixed + wide(i) * d, 1.0f / sum[i], d,
                      y_ + (wide(row) * s_.grid_w + column) * dim_ + wide(place.head) * d);
        }
    }

    // What is added to the scores of one query with the keys of a tile, or null.
    const float* bias_of(int head, int query, int tile, const float* down, const float* across,
                         float* space) const {
        const float* dense =
            in_.bias == nullptr ? nullptr
                                : in_.bias + (wide(head) * s_.keys() + query) * s_.keys() +
                                      wide(tile) * tile_keys();
        if (in_.rows == nullptr) return dense;
        const int n = keys_of(tile);
        by_.outer_sum(down + wide(tile) * tile_rows_, n / s_.window_w, across, s_.window_w, space);
        if (dense != nullptr) by_.add(space, dense, n, space);
        return space;
    }

    AttentionShape s_;
    AttentionInputs in_;
    float* y_;
    const Kernels& by_;
    int dim_, tile_rows_;
    std::vector<float> zeros_;
};

}  // namespace

void attention(const AttentionShape& shape, const AttentionInputs& in, float* y,
               const Parallel& parallel) {
    Job(shape, in, y).run(parallel);
}

}  // namespace samrt::ops
