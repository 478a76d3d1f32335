#include "samrt/preprocess.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <type_traits>

#include "samrt/parallel.hpp"
#include "samrt/rows.hpp"
#include "window.hpp"

namespace samrt {
namespace {

std::size_t at(int index) { return static_cast<std::size_t>(index); }

// Writes rows of the padded tensor.
class TensorWriter {
public:
    TensorWriter(const PreprocessPlan& plan, const float low, const float high, void* target)
        : plan_(plan), target_(target) {
        for (int p = 0; p < 3; ++p) {
            if (plan.min_max) {
                norm_[p] = Norm{low, std::max(high - low, 1e-8f), 1.0f};
            } else {
                norm_[p] = Norm{plan.mean[p], plan.std[p], plan.scale};
            }
            pad_[p] = plan.pad_before ? plan.pad_value / plan.divisor : plan.pad_value;
            if (plan.pad_before) row_kernels().normalize_float(&pad_[p], 1, norm_[p], &pad_[p]);
            row_kernels().float_to_half(&pad_[p], 1, &half_pad_[p]);
        }
        same_ = std::memcmp(&norm_[0], &norm_[1], sizeof(Norm)) == 0 &&
                std::memcmp(&norm_[0], &norm_[2], sizeof(Norm)) == 0;
    }

    struct Scratch {
        std::vector<float> planes, values;
    };

    void image_row(int y, const std::uint8_t* row, int channels, Scratch& scratch) const {
        if (plan_.divisor != 1.0f) {
            const std::size_t n = at(plan_.width) * at(channels);
            scratch.values.resize(n);
            for (std::size_t i = 0; i < n; ++i)
                scratch.values[i] = static_cast<float>(row[i]) / plan_.divisor;
            return image_row(y, scratch.values.data(), channels, scratch);
        }
        write_row(y, row, channels, row_kernels().normalize_grey, row_kernels().normalize_rgb,
                  scratch);
    }

    // Divided already.
    void image_row(int y, const float* row, int channels, Scratch& scratch) const {
        write_row(y, row, channels, row_kernels().normalize_float,
                  row_kernels().normalize_float_rgb, scratch);
    }

    void padding_row(int y) const { pad(y, 0); }

private:
    template <typename T>
    T* tensor_row(int plane, int y) const {
        return static_cast<T*>(target_) +
               (at(plane) * at(plan_.frame_height) + at(y)) * at(plan_.frame_width);
    }

    template <typename Sample, typename Grey, typename Colour>
    void write_row(int y, const Sample* row, int channels, Grey normalize_grey,
                   Colour normalize_colour, Scratch& scratch) const {
        const std::size_t n = at(plan_.width);
        if (plan_.half) scratch.planes.resize(3 * n);
        float* plane[3];
        for (int p = 0; p < 3; ++p)
            plane[p] = plan_.half ? scratch.planes.data() + at(p) * n : tensor_row<float>(p, y);
        if (channels == 1) {
            for (int p = 0; p < 3; ++p) {
                if (p > 0 && same_)
                    std::memcpy(plane[p], plane[0], n * sizeof(float));
                else
                    normalize_grey(row, n, norm_[p], plane[p]);
            }
        } else {
            Norm norm[3];
            float* to[3];
            for (int c = 0; c < 3; ++c) {
                const int p = plan_.bgr ? 2 - c : c;
                norm[c] = norm_[p];
                to[c] = plane[p];
            }
            normalize_colour(row, n, norm, to);
        }
        finish(y, plane);
    }

    void finish(int y, float* const* plane) const {
        for (int p = 0; p < 3 && plan_.half; ++p)
            row_kernels().float_to_half(plane[p], at(plan_.width), tensor_row<std::uint16_t>(p, y));
        pad(y, plan_.width);
    }

    void pad(int y, int from) const {
        const std::size_t n = at(plan_.frame_width - from);
        for (int p = 0; p < 3; ++p) {
            if (plan_.half)
                std::fill_n(tensor_row<std::uint16_t>(p, y) + from, n, half_pad_[p]);
            else
                std::fill_n(tensor_row<float>(p, y) + from, n, pad_[p]);
        }
    }

    const PreprocessPlan& plan_;
    void* target_;
    Norm norm_[3];
    float pad_[3];
    std::uint16_t half_pad_[3];
    bool same_;
};

bool has_padding(const PreprocessPlan& plan) {
    return plan.height < plan.frame_height || plan.width < plan.frame_width;
}

// Calls strip(worker, from, to) for the rows [0, rows) in parallel.
template <typename Strip>
void for_strips(int rows, int strip, int threads, Strip body) {
    const std::int64_t units = (rows + strip - 1) / strip;
    parallel_for(threads, units, [&](int worker, std::int64_t unit) {
        const int from = static_cast<int>(unit) * strip;
        body(at(worker), from, std::min(from + strip, rows));
    });
}

// Smallest and largest value over all workers, the pad value included where it is an image value.
template <typename T>
struct Range {
    explicit Range(int workers, T low, T high) : lows(at(workers), low), highs(at(workers), high) {}
    std::vector<T> lows, highs;

    void total(const PreprocessPlan& plan, float& low, float& high) const {
        low = static_cast<float>(*std::min_element(lows.begin(), lows.end()));
        high = static_cast<float>(*std::max_element(highs.begin(), highs.end()));
        if (std::is_same_v<T, std::uint8_t>) low /= plan.divisor, high /= plan.divisor;
        if (plan.pad_before && has_padding(plan)) {
            low = std::min(low, plan.pad_value / plan.divisor);
            high = std::max(high, plan.pad_value / plan.divisor);
        }
    }
};

// An image of bytes that is resized to bytes.
void byte_tensor(const ByteImage& image, const PreprocessPlan& plan, int threads, void* target) {
    const ByteResizer resizer(image, plan.height, plan.width, plan.interpolation);
    if (plan.height == image.height && plan.width == image.width)  // bound by memory, not by work
        threads = useful_threads(threads,
                                 static_cast<std::int64_t>(plan.frame_height) * plan.frame_width);
    const int strip = balanced_strip(resizer.strip_rows(), plan.frame_height, threads);
    const int workers = worker_count(threads, plan.frame_height);
    std::vector<ByteResizer::Scratch> scratch(at(workers));
    std::vector<std::vector<std::uint8_t>> buffer(at(workers));
    std::vector<TensorWriter::Scratch> line(at(workers));
    for (auto& row : buffer) row.resize(resizer.row_bytes() + kRowSlack);

    if (!plan.min_max) {
        const TensorWriter writer(plan, 0, 1, target);
        for_strips(plan.frame_height, strip, threads, [&](std::size_t worker, int from, int to) {
            const int end = std::min(to, plan.height);
            if (from < end) resizer.prepare(from, end, scratch[worker]);
            for (int y = from; y < end; ++y)
                writer.image_row(y, resizer.row(y, scratch[worker], buffer[worker].data()),
                                 image.channels, line[worker]);
            for (int y = std::max(from, end); y < to; ++y) writer.padding_row(y);
        });
        return;
    }
    // The range must be known before the first sample can be normalised.
    std::vector<std::uint8_t> resized(at(plan.height) * resizer.row_bytes());
    Range<std::uint8_t> range(workers, 255, 0);
    for_strips(plan.height, strip, threads, [&](std::size_t worker, int from, int to) {
        resizer.prepare(from, to, scratch[worker]);
        for (int y = from; y < to; ++y) {
            const std::uint8_t* row = resizer.row(y, scratch[worker], buffer[worker].data());
            row_kernels().byte_range(row, resizer.row_bytes(), &range.lows[worker],
                                     &range.highs[worker]);
            std::memcpy(resized.data() + at(y) * resizer.row_bytes(), row, resizer.row_bytes());
        }
    });
    float low = 0, high = 0;
    range.total(plan, low, high);
    const TensorWriter writer(plan, low, high, target);
    for_strips(plan.frame_height, strip, threads, [&](std::size_t worker, int from, int to) {
        for (int y = from; y < to; ++y) {
            if (y < plan.height)
                writer.image_row(y, resized.data() + at(y) * resizer.row_bytes(), image.channels,
                                 line[worker]);
            else
                writer.padding_row(y);
        }
    });
}

// An image that stays float: a resized one in memory.
void tensor_of(const std::vector<float>& resized, int channels, const PreprocessPlan& plan,
               float low, float high, int threads, void* target) {
    const std::size_t n = at(plan.width) * at(channels);
    const TensorWriter writer(plan, low, high, target);
    const int strip = balanced_strip(64, plan.frame_height, threads);
    std::vector<TensorWriter::Scratch> line(at(worker_count(threads, plan.frame_height)));
    for_strips(plan.frame_height, strip, threads, [&](std::size_t worker, int from, int to) {
        for (int y = from; y < to; ++y) {
            if (y < plan.height)
                writer.image_row(y, resized.data() + at(y) * n, channels, line[worker]);
            else
                writer.padding_row(y);
        }
    });
}

// The same, resized on the way. `load` gives rows that are divided already.
void float_tensor(int height, int width, int channels, FloatResizer::Load load,
                  const PreprocessPlan& plan, int threads, void* target) {
    if (is_spline(plan.interpolation)) {
        if (channels == 1 && plan.interpolation == Interpolation::kBsplineAntialias) {
            channels = 3;
            load = [grey = std::move(load), width](int y, float* row) {
                grey(y, row);
                for (int x = width - 1; x >= 0; --x)
                    row[3 * x] = row[3 * x + 1] = row[3 * x + 2] = row[x];
            };
        }
        const std::vector<float> resized =
            spline_floats(height, width, channels, plan.height, plan.width, plan.via,
                          plan.interpolation, load, threads);
        Range<float> range(1, 0, 0);
        row_kernels().float_range(resized.data(), resized.size(), &range.lows[0],
                                  &range.highs[0]);
        float low = 0, high = 0;
        range.total(plan, low, high);
        return tensor_of(resized, channels, plan, low, high, threads, target);
    }
    const FloatResizer resizer(height, width, channels, plan.height, plan.width,
                               plan.interpolation, plan.rounding == Rounding::kNone,
                               std::move(load));
    const std::size_t n = at(plan.width) * at(channels);
    const int strip = balanced_strip(resizer.strip_rows(), plan.frame_height, threads);
    const int workers = worker_count(threads, plan.frame_height);
    std::vector<FloatResizer::Scratch> scratch(at(workers));
    if (!plan.min_max) {
        const TensorWriter writer(plan, 0, 1, target);
        std::vector<TensorWriter::Scratch> line(at(workers));
        std::vector<std::vector<float>> buffer(at(workers));
        for_strips(plan.frame_height, strip, threads, [&](std::size_t worker, int from, int to) {
            const int end = std::min(to, plan.height);
            buffer[worker].resize(n);
            if (from < end) resizer.prepare(from, end, scratch[worker]);
            for (int y = from; y < end; ++y) {
                resizer.row(y, scratch[worker], buffer[worker].data());
                writer.image_row(y, buffer[worker].data(), channels, line[worker]);
            }
            for (int y = std::max(from, end); y < to; ++y) writer.padding_row(y);
        });
        return;
    }
    std::vector<float> resized(at(plan.height) * n);
    Range<float> range(workers, INFINITY, -INFINITY);
    for_strips(plan.height, strip, threads, [&](std::size_t worker, int from, int to) {
        resizer.prepare(from, to, scratch[worker]);
        for (int y = from; y < to; ++y) {
            float* row = resized.data() + at(y) * n;
            resizer.row(y, scratch[worker], row);
            float low = 0, high = 0;
            row_kernels().float_range(row, n, &low, &high);
            range.lows[worker] = std::min(range.lows[worker], low);
            range.highs[worker] = std::max(range.highs[worker], high);
        }
    });
    float low = 0, high = 0;
    range.total(plan, low, high);
    tensor_of(resized, channels, plan, low, high, threads, target);
}

void check_plan(const PreprocessPlan& plan) {
    if (plan.rounding == Rounding::kTruncate && !is_spline(plan.interpolation))
        throw std::invalid_argument("rounding truncate needs a spline interpolation");
    if (!plan.via.empty() &&
        (!is_spline(plan.interpolation) || plan.rounding != Rounding::kNone))
        throw std::invalid_argument("via needs a spline interpolation and rounding none");
}

}  // namespace

void preprocess(const ByteImage& image, const PreprocessPlan& plan, int threads, void* target) {
    check_plan(plan);
    const bool spline = is_spline(plan.interpolation) &&
                        (image.height != plan.height || image.width != plan.width);
    if (plan.rounding == Rounding::kNone) {
        std::array<float, 256> value;
        for (int i = 0; i < 256; ++i) value[at(i)] = static_cast<float>(i) / plan.divisor;
        const auto load = [&image, &value](int y, float* row) {
            const std::uint8_t* from = image.row(y);
            for (std::size_t i = 0; i < image.row_bytes(); ++i) row[i] = value[from[i]];
        };
        return float_tensor(image.height, image.width, image.channels, load, plan, threads,
                            target);
    }
    if (!spline) return byte_tensor(image, plan, threads, target);
    ByteImage source = image;
    std::vector<std::uint8_t> colour;
    if (image.channels == 1 && plan.interpolation == Interpolation::kBsplineAntialias) {
        colour.resize(3 * at(image.height) * at(image.width));
        for (std::size_t i = 0; i < colour.size(); ++i) colour[i] = image.data[i / 3];
        source = {colour.data(), image.height, image.width, 3};
    }
    std::vector<std::uint8_t> resized(at(plan.height) * at(plan.width) * at(source.channels));
    resize(source, plan.height, plan.width, plan.interpolation, plan.rounding, threads,
           resized.data());
    byte_tensor({resized.data(), plan.height, plan.width, source.channels}, plan, threads, target);
}

void preprocess_window(const WindowedImage& image, const PreprocessPlan& plan, int threads,
                       void* target) {
    check_plan(plan);
    const auto load = [&image, &plan](int y, float* row) {
        load_windowed(image, y, row);
        if (plan.divisor == 1.0f) return;
        for (int x = 0; x < image.width; ++x) row[x] /= plan.divisor;
    };
    float_tensor(image.height, image.width, 1, load, plan, threads, target);
}

}  // namespace samrt
