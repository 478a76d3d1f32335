// The shared work of making output tiles from low-resolution logits.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "buffer.hpp"
#include "samrt/postprocess.hpp"
#include "stencil.hpp"

namespace samrt {

// A rectangle of one output map.
struct Tile {
    const float* logits;  // low-resolution map of its mask
    int mask;
    int row, row_end, column, column_end;
    int columns() const { return column_end - column; }
};

// What one thread needs for a tile; reused from tile to tile.
struct TileScratch {
    int first_row = 0, first_column = 0;  // of the low-resolution samples that the tile needs
    int row_blocks = 0, in_columns = 0;
    Buffer<float> input;     // those samples, in blocks of kBlockRows rows
    Buffer<float> rows;      // the same rows, stretched to the tile's columns
    Buffer<float> block;     // one stretched block
    std::vector<std::int32_t> index;
    // Per row and stretch of output columns: bounds that no sample there can leave.
    Buffer<float> lows, highs;
    // Per group of output rows with the same sources and stretch: 0 or 1 where all of the mask
    // is that, kMixed where it must be computed.
    Buffer<std::uint8_t> fill;
    std::vector<std::uint8_t> needed;  // per block of rows and stretch
};

constexpr std::uint8_t kMixed = 2;
constexpr int kStretch = 32;  // columns per stretch

class Upscaler {
public:
    explicit Upscaler(const MaskPlan& plan);

    // Splits the output maps into tiles and calls body for each, in parallel.
    void for_tiles(const float* logits, int threads,
                   const std::function<void(const Tile&, TileScratch&)>& body) const;

    // The same for one map, on the calling thread; a tile has all rows.
    void for_tiles_of(const float* logits, const std::function<void(const Tile&)>& body) const;

    // The steps of making a tile, in this order; the middle two are optional.
    void load(const Tile& tile, TileScratch& scratch) const;
    void find_bounds(const Tile& tile, TileScratch& scratch) const;
    // Decides, where bounds allow, that all samples are above `upper` (1) or none is above `lower`
    // (0) without computing them. A mask is cut with both the same.
    void decide(const Tile& tile, float lower, float upper, TileScratch& scratch) const;
    // Stretches the rows: all, or where `decide` found that they are needed.
    void stretch(const Tile& tile, bool only_needed, TileScratch& scratch) const;

    // Sources of output row y among the stretched rows, to be weighted by vertical().weight(y).
    void sources(int y, const Tile& tile, const TileScratch& scratch, const float** rows) const;
    // Consecutive output rows with the same sources form a group; groups are numbered from 0.
    int group(int y) const { return group_[static_cast<std::size_t>(y)]; }
    const Stencil& vertical() const { return y_; }

private:
    MaskPlan plan_;
    Stencil x_, y_;
    float overshoot_;  // beyond the range of an output sample's sources, as a share of it
    std::vector<int> group_, group_begin_;
};

inline int stretches(const Tile& tile) { return (tile.columns() + kStretch - 1) / kStretch; }

}  // namespace samrt
