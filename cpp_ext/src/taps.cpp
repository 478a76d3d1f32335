#include "samrt/taps.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace samrt {
namespace {

constexpr double kAreaSliver = 1e-3;  // OpenCV ignores overlaps smaller than this

// Input samples per output sample as OpenCV computes it; the last bit decides where an output
// sample that falls on an input edge goes.
double opencv_scale(int in_size, int out_size) {
    return 1.0 / (static_cast<double>(out_size) / in_size);
}

double triangle(double x) {
    const double distance = std::fabs(x);
    return distance < 1.0 ? 1.0 - distance : 0.0;
}

double cubic(double x) {
    constexpr double a = -0.5;
    const double d = std::fabs(x);
    if (d < 1.0) return ((a + 2.0) * d - (a + 3.0)) * d * d + 1;
    if (d < 2.0) return (((d - 5) * d + 8) * d - 4) * a;
    return 0.0;
}

template <typename Weight>
void allocate(Taps<Weight>& taps, int in_size, int out_size, int width) {
    const auto n = static_cast<std::size_t>(out_size);
    taps.in_size = in_size;
    taps.out_size = out_size;
    taps.width = width;
    taps.first.assign(n, 0);
    taps.count.assign(n, 0);
    taps.weight.assign(n * static_cast<std::size_t>(width), Weight{0});
}

// Windowed-filter taps in double precision. The order of operations is the one that decides the
// last bit of Pillow's weights.
Taps<double> filter_taps(Interpolation kind, int in_size, int out_size) {
    const bool is_cubic = kind == Interpolation::kBicubic;
    const double scale = static_cast<double>(in_size) / out_size;
    const double stretch = std::max(scale, 1.0);
    const double support = (is_cubic ? 2.0 : 1.0) * stretch;
    const double shrink = 1.0 / stretch;
    const auto lower = [&](double center) {
        return std::max(static_cast<int>(center - support + 0.5), 0);
    };
    const auto upper = [&](double center) {
        return std::min(static_cast<int>(center + support + 0.5), in_size);
    };
    int width = 1;
    for (int i = 0; i < out_size; ++i) {
        const double center = (i + 0.5) * scale;
        width = std::max(width, upper(center) - lower(center));
    }
    Taps<double> taps;
    allocate(taps, in_size, out_size, width);
    for (int i = 0; i < out_size; ++i) {
        const auto at = static_cast<std::size_t>(i);
        const double center = (i + 0.5) * scale;
        const int first = lower(center);
        const int count = upper(center) - first;
        double* weight = taps.weight.data() + at * static_cast<std::size_t>(width);
        double total = 0.0;
        for (int k = 0; k < count; ++k) {
            const double x = (k + first - center + 0.5) * shrink;
            weight[k] = is_cubic ? cubic(x) : triangle(x);
            total += weight[k];
        }
        for (int k = 0; k < count && total != 0.0; ++k) weight[k] /= total;
        taps.first[at] = first;
        taps.count[at] = count;
    }
    return taps;
}

// The share of each input sample in an output sample that covers [left, left + scale).
FloatTaps area_average_taps(int in_size, int out_size) {
    const double scale = opencv_scale(in_size, out_size);
    FloatTaps taps;
    allocate(taps, in_size, out_size, static_cast<int>(std::ceil(scale)) + 2);
    for (int i = 0; i < out_size; ++i) {
        const auto at = static_cast<std::size_t>(i);
        const double left = i * scale, right = left + scale;
        const double size = std::min(scale, in_size - left);
        const int end = std::min(static_cast<int>(std::floor(right)), in_size - 1);
        const int begin = std::min(static_cast<int>(std::ceil(left)), end);  // whole samples
        float* weight = taps.weight.data() + at * static_cast<std::size_t>(taps.width);
        const bool split = begin - left > kAreaSliver;
        int count = 0;
        if (split) weight[count++] = static_cast<float>((begin - left) / size);
        for (int p = begin; p < end; ++p) weight[count++] = static_cast<float>(1.0 / size);
        if (right - end > kAreaSliver)
            weight[count++] =
                static_cast<float>(std::min(std::min(right - end, 1.0), size) / size);
        taps.first[at] = split ? begin - 1 : begin;
        taps.count[at] = count;
    }
    return taps;
}

// Two-sample interpolation; `fraction` maps an output index to a position whose integer part is
// the left sample.
template <typename Position>
FloatTaps linear_taps(int in_size, int out_size, Position position) {
    FloatTaps taps;
    allocate(taps, in_size, out_size, 2);
    for (int i = 0; i < out_size; ++i) {
        const auto at = static_cast<std::size_t>(i);
        int left = 0;
        float fraction = 0.0f;
        position(i, left, fraction);
        if (left < 0) left = 0, fraction = 0.0f;
        if (left >= in_size - 1) left = in_size - 1, fraction = 0.0f;
        taps.first[at] = left;
        taps.count[at] = fraction > 0.0f ? 2 : 1;
        taps.weight[2 * at] = 1.0f - fraction;
        taps.weight[2 * at + 1] = fraction;
    }
    return taps;
}

FloatTaps area_growing_taps(int in_size, int out_size) {
    const double scale = opencv_scale(in_size, out_size);
    const double inverse = static_cast<double>(out_size) / in_size;
    return linear_taps(in_size, out_size, [=](int i, int& left, float& fraction) {
        left = static_cast<int>(std::floor(i * scale));
        fraction = static_cast<float>((i + 1) - (left + 1) * inverse);
        fraction = fraction <= 0.0f ? 0.0f : fraction - std::floor(fraction);
    });
}

FloatTaps bilinear_taps(int in_size, int out_size) {
    const double scale = opencv_scale(in_size, out_size);
    return linear_taps(in_size, out_size, [=](int i, int& left, float& fraction) {
        const float position = static_cast<float>((i + 0.5) * scale - 0.5);
        left = static_cast<int>(std::floor(position));
        fraction = position - static_cast<float>(left);
    });
}

FloatTaps nearest_taps(int in_size, int out_size) {
    const double scale = opencv_scale(in_size, out_size);
    FloatTaps taps;
    allocate(taps, in_size, out_size, 1);
    for (int i = 0; i < out_size; ++i) {
        const auto at = static_cast<std::size_t>(i);
        taps.first[at] = std::min(static_cast<int>(i * scale), in_size - 1);
        taps.count[at] = 1;
        taps.weight[at] = 1.0f;
    }
    return taps;
}

// PyTorch finds positions in float32 with a fused multiply-add. In double precision the product
// is exact, so rounding the sum gives the fused result on every machine.
FloatTaps fused_bilinear_taps(int in_size, int out_size) {
    const double scale = static_cast<float>(in_size) / static_cast<float>(out_size);
    FloatTaps taps;
    allocate(taps, in_size, out_size, 2);
    taps.fused = taps.backwards = true;
    for (int i = 0; i < out_size; ++i) {
        const auto at = static_cast<std::size_t>(i);
        const double centre = scale * (static_cast<float>(i) + 0.5f) - 0.5;
        const float position = centre > 0.0 ? static_cast<float>(centre) : 0.0f;
        const int left = std::min(static_cast<int>(position), in_size - 1);
        const float fraction = std::min(position - static_cast<float>(left), 1.0f);
        taps.first[at] = left;
        taps.count[at] = 2;
        taps.weight[2 * at] = 1.0f - fraction;
        taps.weight[2 * at + 1] = fraction;
    }
    return taps;
}

FloatTaps fused_antialias_taps(int in_size, int out_size) {
    const float scale = static_cast<float>(in_size) / static_cast<float>(out_size);
    const float support = std::max(scale, 1.0f);
    const float shrink = scale >= 1.0f ? 1.0f / scale : 1.0f;
    const auto lower = [&](float centre) {
        return std::max(static_cast<int>(centre - support + 0.5f), 0);
    };
    const auto upper = [&](float centre) {
        return std::min(static_cast<int>(centre + support + 0.5f), in_size);
    };
    const auto centre_of = [&](int i) { return scale * (static_cast<float>(i) + 0.5f); };
    int width = 1;
    for (int i = 0; i < out_size; ++i)
        width = std::max(width, upper(centre_of(i)) - lower(centre_of(i)));
    FloatTaps taps;
    allocate(taps, in_size, out_size, width);
    taps.fused = true;
    for (int i = 0; i < out_size; ++i) {
        const auto at = static_cast<std::size_t>(i);
        const float centre = centre_of(i);
        const int first = lower(centre), count = upper(centre) - first;
        float* weight = taps.weight.data() + at * static_cast<std::size_t>(width);
        float total = 0.0f;
        for (int k = 0; k < count; ++k) {
            const float x =
                std::fabs((static_cast<float>(k + first) - centre + 0.5f) * shrink);
            weight[k] = x < 1.0f ? 1.0f - x : 0.0f;
            total += weight[k];
        }
        for (int k = 0; k < count && total != 0.0f; ++k) weight[k] /= total;
        taps.first[at] = first;
        taps.count[at] = count;
    }
    return taps;
}

}  // namespace

bool is_spline(Interpolation kind) {
    return kind == Interpolation::kBsplineAntialias || kind == Interpolation::kBsplineCorners;
}

Interpolation parse_interpolation(const std::string& name) {
    if (name == "bilinear_antialias") return Interpolation::kBilinearAntialias;
    if (name == "bicubic") return Interpolation::kBicubic;
    if (name == "area") return Interpolation::kArea;
    if (name == "bilinear") return Interpolation::kBilinear;
    if (name == "nearest") return Interpolation::kNearest;
    if (name == "bspline_antialias") return Interpolation::kBsplineAntialias;
    if (name == "bspline_corners") return Interpolation::kBsplineCorners;
    throw std::invalid_argument(
        "unknown interpolation '" + name +
        "'; expected bilinear_antialias, bicubic, area, bilinear, nearest, bspline_antialias "
        "or bspline_corners");
}

Rounding parse_rounding(const std::string& name) {
    if (name == "nearest") return Rounding::kNearest;
    if (name == "truncate") return Rounding::kTruncate;
    if (name == "none") return Rounding::kNone;
    throw std::invalid_argument("unknown rounding '" + name +
                                "'; expected nearest, truncate or none");
}

FloatTaps make_fused_taps(Interpolation kind, int in_size, int out_size) {
    return kind == Interpolation::kBilinear ? fused_bilinear_taps(in_size, out_size)
                                            : fused_antialias_taps(in_size, out_size);
}

FloatTaps make_float_taps(Interpolation kind, int in_size, int out_size, bool area_average) {
    switch (kind) {
        case Interpolation::kArea:
            return area_average ? area_average_taps(in_size, out_size)
                                : area_growing_taps(in_size, out_size);
        case Interpolation::kBilinear:
            return bilinear_taps(in_size, out_size);
        case Interpolation::kNearest:
            return nearest_taps(in_size, out_size);
        default:
            break;
    }
    const Taps<double> exact = filter_taps(kind, in_size, out_size);
    FloatTaps taps;
    allocate(taps, in_size, out_size, exact.width);
    taps.first = exact.first;
    taps.count = exact.count;
    std::transform(exact.weight.begin(), exact.weight.end(), taps.weight.begin(),
                   [](double weight) { return static_cast<float>(weight); });
    return taps;
}

FixedTaps make_fixed_taps(Interpolation kind, int in_size, int out_size, int group_taps) {
    const Taps<double> exact = filter_taps(kind, in_size, out_size);
    FixedTaps taps;
    allocate(taps, in_size, out_size, exact.width);
    taps.first = exact.first;
    taps.count = exact.count;
    constexpr double one = 1 << kFractionBits;
    std::transform(exact.weight.begin(), exact.weight.end(), taps.weight.begin(), [](double w) {
        return static_cast<std::int32_t>(w < 0 ? w * one - 0.5 : w * one + 0.5);
    });
    if (group_taps == 0) return taps;
    taps.group_taps = group_taps;
    taps.groups = (taps.width + group_taps - 1) / group_taps;
    const std::size_t step = static_cast<std::size_t>(2 * group_taps * taps.groups);
    taps.split.assign(static_cast<std::size_t>(out_size) * step, 0);
    taps.coarse = std::all_of(taps.weight.begin(), taps.weight.end(),
                              [](std::int32_t weight) { return low_part(weight) == 0; });
    for (int i = 0; i < out_size; ++i) {
        const std::size_t from = static_cast<std::size_t>(i) * static_cast<std::size_t>(taps.width);
        std::int16_t* to = taps.split.data() + static_cast<std::size_t>(i) * step;
        for (int k = 0; k < taps.count[static_cast<std::size_t>(i)]; ++k) {
            const std::int32_t weight = taps.weight[from + static_cast<std::size_t>(k)];
            const int slot = (k / group_taps) * 2 * group_taps + k % group_taps;
            to[slot] = low_part(weight);
            to[slot + group_taps] = high_part(weight);
        }
    }
    return taps;
}

}  // namespace samrt
