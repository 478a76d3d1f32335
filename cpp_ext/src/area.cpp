#include "area.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace samrt {
namespace {

constexpr int kLinearBits = 11;

std::size_t at(int index) { return static_cast<std::size_t>(index); }

double samples_per_output(int in_size, int out_size) {
    return 1.0 / (static_cast<double>(out_size) / in_size);
}

// Ties to even; exact for 0 <= value < 2^22.
int rounded(float value) {
    constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23
    return static_cast<int>((value + kRounder) - kRounder);
}

bool whole(double ratio) {
    return std::fabs(ratio - std::nearbyint(ratio)) < std::numeric_limits<double>::epsilon();
}

}  // namespace

AreaMethod area_method(int in_height, int in_width, int height, int width) {
    if (height > in_height || width > in_width) return AreaMethod::kLinear;
    const double down = samples_per_output(in_height, height);
    const double across = samples_per_output(in_width, width);
    constexpr double kMost = 1 << 23;  // samples whose sum fits 31 bits
    return whole(down) && whole(across) && down * across <= kMost ? AreaMethod::kSums
                                                                   : AreaMethod::kWeights;
}

AreaResizer::AreaResizer(const ByteImage& source, int height, int width, AreaMethod method)
    : source_(source), width_(width), method_(method) {
    if (method == AreaMethod::kSums) {
        step_x_ = source.width / width;
        step_y_ = source.height / height;
    } else {
        x_ = linear_axis(source.width, width);
        y_ = linear_axis(source.height, height);
    }
}

AreaResizer::Axis AreaResizer::linear_axis(int in_size, int out_size) {
    // The weights are those of make_float_taps(kArea) with a growing axis.
    const FloatTaps taps = make_float_taps(Interpolation::kArea, in_size, out_size, false);
    Axis axis;
    for (int i = 0; i < out_size; ++i) {
        const int left = taps.first[at(i)];
        axis.left.push_back(left);
        axis.right.push_back(std::min(left + 1, in_size - 1));
        constexpr float one = 1 << kLinearBits;
        for (int k = 0; k < 2; ++k)
            (k == 0 ? axis.left_part : axis.right_part)
                .push_back(rounded(taps.weight[2 * at(i) + at(k)] * one));
    }
    return axis;
}

void AreaResizer::prepare(int from, int to, std::vector<std::int32_t>& rows, int& first) const {
    if (method_ == AreaMethod::kSums) return;
    first = y_.left[at(from)];
    const int last = y_.right[at(to - 1)];
    const std::size_t channels = at(source_.channels), stride = at(width_) * channels;
    rows.resize(std::max(rows.size(), at(last - first + 1) * stride));
    for (int y = first; y <= last; ++y) {
        const std::uint8_t* row = source_.row(y);
        std::int32_t* target = rows.data() + at(y - first) * stride;
        for (std::size_t x = 0; x < at(width_); ++x) {
            const std::uint8_t* a = row + at(x_.left[x]) * channels;
            const std::uint8_t* b = row + at(x_.right[x]) * channels;
            for (std::size_t c = 0; c < channels; ++c)
                *target++ = a[c] * x_.left_part[x] + b[c] * x_.right_part[x];
        }
    }
}

void AreaResizer::row(int y, int first, std::vector<std::int32_t>& rows,
                      std::uint8_t* target) const {
    if (method_ == AreaMethod::kSums) return sum_row(y, rows, target);
    const std::size_t n = at(width_) * at(source_.channels);
    const std::int32_t* a = rows.data() + at(y_.left[at(y)] - first) * n;
    const std::int32_t* b = rows.data() + at(y_.right[at(y)] - first) * n;
    const std::int32_t up = y_.left_part[at(y)], down = y_.right_part[at(y)];
    for (std::size_t i = 0; i < n; ++i)
        target[i] = static_cast<std::uint8_t>(
            (((up * (a[i] >> 4)) >> 16) + ((down * (b[i] >> 4)) >> 16) + 2) >> 2);
}

void AreaResizer::sum_row(int y, std::vector<std::int32_t>& rows, std::uint8_t* target) const {
    const std::size_t n = source_.row_bytes(), channels = at(source_.channels);
    rows.assign(n, 0);
    std::int32_t* sums = rows.data();
    for (int k = 0; k < step_y_; ++k) {
        const std::uint8_t* row = source_.row(y * step_y_ + k);
        for (std::size_t i = 0; i < n; ++i) sums[i] += row[i];
    }
    const float share = 1.0f / static_cast<float>(step_x_ * step_y_);
    const bool quads = step_x_ == 2 && step_y_ == 2;  // OpenCV rounds their halves up
    for (int x = 0; x < width_; ++x, sums += at(step_x_) * channels)
        for (std::size_t c = 0; c < channels; ++c) {
            std::int32_t sum = 0;
            for (std::size_t k = 0; k < at(step_x_); ++k) sum += sums[k * channels + c];
            *target++ = static_cast<std::uint8_t>(
                quads ? (sum + 2) >> 2 : rounded(static_cast<float>(sum) * share));
        }
}

}  // namespace samrt
