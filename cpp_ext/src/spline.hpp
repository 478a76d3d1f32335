// Cubic B-spline interpolation of images in double precision, with the arithmetic of SciPy's
// ndimage in its order, so that truncating the results to bytes gives the same bytes.
//
// kBsplineAntialias is scikit-image's resize(order=3, anti_aliasing=True): a Gaussian with
// sigma = (in / out - 1) / 2 along each shrinking axis, cut off at four sigma; spline
// coefficients of the mirrored image; samples at pixel centres; all clipped to the range of the
// image. Colour images are three-dimensional there: the spline also runs across the channels,
// which changes nothing but the last bits.
//
// kBsplineCorners is scipy.ndimage.zoom(order=3) of each channel by itself: the first and the
// last sample of an axis stay where they are; samples that rounding puts outside become 0.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "samrt/resample.hpp"

namespace samrt {

class SplineResizer {
public:
    struct Scratch {
        std::vector<double> source, target;
        std::vector<std::int32_t> index;
    };

    // Reads the whole image and computes its coefficients: 8 bytes per sample. `load` is called
    // from several threads.
    SplineResizer(int in_height, int in_width, int channels, int height, int width,
                  Interpolation kind, const FloatResizer::Load& load, int threads);

    // Rows [from, to) of the result, at most kBlockRows, to target[0], target[1] ...
    void rows(int from, int to, Scratch& scratch, double* const* target) const;

private:
    struct Axis {
        std::vector<std::int32_t> index;  // kSpline per output sample
        std::vector<double> weight;
        std::vector<std::uint8_t> outside;  // the output sample is 0
    };
    static Axis make_axis(int in_size, int out_size, bool corners);

    void read(const FloatResizer::Load& load, int threads);
    void blur(int height, int width, int threads);
    void filter(int threads);
    void columns(int from, int to, int first_row, int row_end, Scratch& scratch,
                 double* const* target) const;

    int in_height_, in_width_, channels_, width_;
    bool clips_ = false;
    double low_ = 0, high_ = 0;
    std::vector<double> values_;  // the image, then its coefficients
    std::vector<double> across_;  // weights across the channels, empty if there are none
    Axis x_, y_;
};

// Resizes an image and hands every row to emit(worker, y, row), in parallel; `worker` is below
// worker_count(threads, height). An image that already has the size is passed through, as it is
// by SciPy.
using EmitRow = std::function<void(int worker, int y, const double* row)>;
void spline_resize(int in_height, int in_width, int channels, int height, int width,
                   Interpolation kind, const FloatResizer::Load& load, int threads,
                   const EmitRow& emit);

}  // namespace samrt
