// Resizing of images row by row, so that what follows can use each row while it is in cache.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "samrt/taps.hpp"

namespace samrt {

// Row-major pixels without gaps; `channels` is 1 or 3, interleaved.
struct ByteImage {
    const std::uint8_t* data = nullptr;
    int height = 0;
    int width = 0;
    int channels = 0;

    std::size_t row_bytes() const {
        return static_cast<std::size_t>(width) * static_cast<std::size_t>(channels);
    }
    const std::uint8_t* row(int y) const {
        return data + static_cast<std::size_t>(y) * row_bytes();
    }
};

// Both resizers work on strips: prepare(from, to) does what the output rows [from, to) share,
// above all the horizontal pass, row(y) then makes one output row out of that. A resizer is
// constant after construction and may be shared by threads; each needs a Scratch of its own.

class FloatResizer {
public:
    // Writes row y of the source, width * channels floats.
    using Load = std::function<void(int y, float* target)>;
    struct Scratch {
        std::vector<float> input, block, resized, rows;
        std::vector<const float*> taps;
        std::vector<float> weights;
        int first = 0;
    };

    // No splines. `exact` asks for PyTorch's arithmetic where it has the kind: make_fused_taps.
    FloatResizer(int in_height, int in_width, int channels, int height, int width,
                 Interpolation kind, bool exact, Load load);

    int strip_rows() const;
    void prepare(int from, int to, Scratch& scratch) const;
    void row(int y, Scratch& scratch, float* target) const;

private:
    int channels_;
    int reach_ = 0;  // samples of an input row that the taps read, copies of the last included
    FloatTaps x_, y_;
    Load load_;
};

class AreaResizer;

class ByteResizer {
public:
    struct Scratch {
        FloatResizer::Scratch floats;
        std::vector<float> float_row;
        std::vector<std::uint8_t> rows, padded;
        std::vector<std::int32_t> sums;
        std::vector<const std::uint8_t*> taps;
        int first = 0;
    };

    // No splines. An image that already has the size is passed through whatever the kind.
    ByteResizer(const ByteImage& source, int height, int width, Interpolation kind);

    int height() const { return height_; }
    int width() const { return width_; }
    std::size_t row_bytes() const {
        return static_cast<std::size_t>(width_) * static_cast<std::size_t>(source_.channels);
    }
    // Rows per strip that keep the intermediate rows in the second-level cache.
    int strip_rows() const;
    void prepare(int from, int to, Scratch& scratch) const;
    // Row y, either in `buffer` (row_bytes() + kRowSlack bytes) or where it already was.
    const std::uint8_t* row(int y, Scratch& scratch, std::uint8_t* buffer) const;

private:
    enum class Method { kCopy, kFixed, kFloat, kArea, kNearest };

    void resample_rows(int from, int to, Scratch& scratch) const;
    void vertical_row(int y, const std::uint8_t* rows, std::size_t stride, int first,
                      Scratch& scratch, std::uint8_t* target) const;

    ByteImage source_;
    int height_, width_;
    Method method_;
    bool vertical_first_ = false;
    FixedTaps x_, y_;
    FloatTaps nearest_x_, nearest_y_;
    std::vector<FloatResizer> floats_;  // one when the method is kFloat
    std::shared_ptr<const AreaResizer> area_;  // when the method is kArea
};

// Rows per unit of parallel work: the resizer's strip, less if the threads would run dry.
int balanced_strip(int strip, int rows, int threads);

// Splines alone: whole images, as their coefficients depend on every sample. `via` lists sizes
// that the image takes on the way, in float32. The result is never rounded.
std::vector<float> spline_floats(int in_height, int in_width, int channels, int height, int width,
                                 const std::vector<std::pair<int, int>>& via, Interpolation kind,
                                 const FloatResizer::Load& load, int threads);

// `target` holds height * width * channels bytes. Rounding::kTruncate is for splines alone and
// kNone for none; both throw std::invalid_argument.
void resize(const ByteImage& source, int height, int width, Interpolation kind, Rounding rounding,
            int threads, std::uint8_t* target);

}  // namespace samrt
