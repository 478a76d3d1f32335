// Two steps of interpolation along one axis, joined into one weighted sum of at most four samples.
#pragma once

#include <cstdint>
#include <vector>

#include "samrt/postprocess.hpp"
#include "samrt/rows.hpp"

namespace samrt {

class Stencil {
public:
    // low -> frame samples, of which the first `crop` are kept -> out samples.
    // kBicubic takes low = frame.
    Stencil(Upscaling kind, int low, int frame, int crop, int out);

    // Samples per output sample, the same for all; at most kStencil. Unneeded ones weigh 0.
    int taps() const { return taps_; }
    const std::int32_t* index(int i) const { return index_.data() + offset(i); }
    const float* weight(int i) const { return weight_.data() + offset(i); }
    // Smallest and largest input sample that the output samples [from, to) use.
    int lowest(int from, int to) const;
    int highest(int from, int to) const;
    // Sum of the negative weights of an output sample, without the sign, at most.
    float negative() const { return negative_; }

private:
    struct Sums;  // builds the table below

    static std::size_t offset(int i) { return static_cast<std::size_t>(i) * kStencil; }

    int taps_ = 1;
    float negative_ = 0.0f;
    std::vector<std::int32_t> index_;
    std::vector<float> weight_;
};

}  // namespace samrt
