// Measures and regions of binary masks. A mask is height * width bytes, row by row; any byte but
// zero counts as inside.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace samrt {

struct MaskShape {
    int height = 0, width = 0;
    std::size_t size() const {
        return static_cast<std::size_t>(height) * static_cast<std::size_t>(width);
    }
};

struct MaskStats {
    std::int64_t area = 0;
    std::int64_t x0 = 0, y0 = 0, x1 = 0, y1 = 0;  // x1 and y1 exclusive; all 0 when empty
};

MaskStats mask_stats(const std::uint8_t* mask, MaskShape shape);

// Numbers the regions of `mask` from 1 in the order in which a row by row scan meets them, 0
// outside. `invert` takes the outside for the inside. Returns how many there are; `areas`, when
// given, gets the pixels of each (areas[0] is that of label 1).
std::int32_t label_regions(const std::uint8_t* mask, MaskShape shape, int connectivity,
                           bool invert, std::int32_t* labels, std::vector<std::int64_t>* areas);

// Segment Anything's clean-up with 8-connected regions. holes: regions of the outside smaller
// than min_area are filled. islands: regions of the inside smaller than min_area are removed; if
// all are, the largest (the first of equals) stays. Returns whether any region was that small;
// `target` gets the resulting mask in 0 and 1 either way.
bool remove_small_regions(const std::uint8_t* mask, MaskShape shape, double min_area, bool holes,
                          std::uint8_t* target);

struct Point {
    std::int32_t x, y;
};

struct Polygon {
    std::vector<std::vector<Point>> rings;  // the outline, then the holes
};

// One polygon per 4-connected region, in scan order. Vertices lie on pixel corners: pixel (x, y)
// covers [x, x+1] x [y, y+1]. Only corners where the direction changes are kept and the first is
// not repeated. The inside is on the right when walking, with y down: outlines run clockwise on
// the screen, holes anticlockwise. A region that touches itself at a corner gives rings that
// touch there but never cross.
std::vector<Polygon> mask_polygons(const std::uint8_t* mask, MaskShape shape);

}  // namespace samrt
