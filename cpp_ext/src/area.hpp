// OpenCV's INTER_AREA on 8-bit images, to the byte.
//
// Shrinking averages: whole numbers of samples per output sample are summed as integers, other
// ratios in float32 (that is FloatResizer's work). As soon as one axis grows, OpenCV interpolates
// between two samples per axis instead, in fixed point with 11 fraction bits.
#pragma once

#include <cstdint>
#include <vector>

#include "samrt/resample.hpp"

namespace samrt {

// How INTER_AREA treats a pair of sizes.
enum class AreaMethod { kSums, kWeights, kLinear };
AreaMethod area_method(int in_height, int in_width, int height, int width);

// kSums and kLinear. Constant after construction, as the other resizers.
class AreaResizer {
public:
    AreaResizer(const ByteImage& source, int height, int width, AreaMethod method);

    // `rows` keeps stretched rows, or the sums of one output row.
    void prepare(int from, int to, std::vector<std::int32_t>& rows, int& first) const;
    void row(int y, int first, std::vector<std::int32_t>& rows, std::uint8_t* target) const;

private:
    struct Axis {
        std::vector<std::int32_t> left, right;          // the two samples
        std::vector<std::int32_t> left_part, right_part;  // their weights, 11 fraction bits
    };
    static Axis linear_axis(int in_size, int out_size);

    void sum_row(int y, std::vector<std::int32_t>& rows, std::uint8_t* target) const;

    ByteImage source_;
    int width_;
    AreaMethod method_;
    int step_x_ = 1, step_y_ = 1;
    Axis x_, y_;
};

}  // namespace samrt
