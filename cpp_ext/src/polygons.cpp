// Outlines by following pixel edges with the inside on the right.
#include <vector>

#include "samrt/masks.hpp"

namespace samrt {
namespace {

class Tracer {
public:
    Tracer(const std::uint8_t* mask, MaskShape shape)
        : mask_(mask), shape_(shape), seen_(shape.size(), 0) {}

    bool inside(std::int32_t x, std::int32_t y) const {
        return x >= 0 && y >= 0 && x < shape_.width && y < shape_.height && mask_[at(x, y)] != 0;
    }

    // Is the top edge of this pixel part of an outline that was not followed yet?
    bool starts_ring(std::int32_t x, std::int32_t y) const {
        return inside(x, y) && !inside(x, y - 1) && seen_[at(x, y)] == 0;
    }

    // Follows the ring that runs right along the top edge of pixel (x, y). When a scan finds
    // that pixel first, the edge begins at (x, y) and this is a corner of the ring.
    std::vector<Point> follow(std::int32_t x, std::int32_t y) {
        std::vector<Point> ring;
        Point corner{x, y};
        int heading = kUp;  // by which the corner was reached; any but right will do
        int next = kRight;
        do {
            if (next != heading) ring.push_back(corner);
            heading = next;
            if (heading == kRight) seen_[at(corner.x, corner.y)] = 1;
            corner.x += kStepX[heading];
            corner.y += kStepY[heading];
            next = turn(corner, heading);
        } while (corner.x != x || corner.y != y || next != kRight);
        return ring;
    }

private:
    enum { kRight, kDown, kLeft, kUp };
    static constexpr std::int32_t kStepX[4] = {1, 0, -1, 0};
    static constexpr std::int32_t kStepY[4] = {0, 1, 0, -1};
    // The pixels ahead of a corner, to the left and to the right of the heading, as offsets.
    static constexpr std::int32_t kLeftX[4] = {0, 0, -1, -1};
    static constexpr std::int32_t kLeftY[4] = {-1, 0, 0, -1};
    static constexpr std::int32_t kRightX[4] = {0, -1, -1, 0};
    static constexpr std::int32_t kRightY[4] = {0, 0, -1, -1};

    std::size_t at(std::int32_t x, std::int32_t y) const {
        return static_cast<std::size_t>(y) * static_cast<std::size_t>(shape_.width) +
               static_cast<std::size_t>(x);
    }

    // Pixels that touch only at a corner are not joined: there, too, the path turns right.
    int turn(Point corner, int heading) const {
        if (!inside(corner.x + kRightX[heading], corner.y + kRightY[heading]))
            return (heading + 1) % 4;
        if (inside(corner.x + kLeftX[heading], corner.y + kLeftY[heading]))
            return (heading + 3) % 4;
        return heading;
    }

    const std::uint8_t* mask_;
    MaskShape shape_;
    std::vector<std::uint8_t> seen_;
};

}  // namespace

std::vector<Polygon> mask_polygons(const std::uint8_t* mask, MaskShape shape) {
    std::vector<std::int32_t> labels(shape.size());
    const std::int32_t regions = label_regions(mask, shape, 4, false, labels.data(), nullptr);
    std::vector<Polygon> polygons(static_cast<std::size_t>(regions));
    Tracer tracer(mask, shape);
    std::size_t pixel = 0;
    for (std::int32_t y = 0; y < shape.height; ++y) {
        for (std::int32_t x = 0; x < shape.width; ++x, ++pixel) {
            // A scan meets the outline of a region before any of its holes.
            if (labels[pixel] != 0 && tracer.starts_ring(x, y))
                polygons[static_cast<std::size_t>(labels[pixel] - 1)].rings.push_back(
                    tracer.follow(x, y));
        }
    }
    return polygons;
}

}  // namespace samrt
