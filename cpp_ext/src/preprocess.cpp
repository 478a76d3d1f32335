#include "samrt/preprocess.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

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
            pad_[p] = plan.pad_value;
            if (plan.pad_before)
                row_kernels().normalize_float(&plan.pad_value, 1, norm_[p], &pad_[p]);
            row_kernels().float_to_half(&pad_[p], 1, &half_pad_[p]);
        }
        same_ = std::memcmp(&norm_[0], &norm_[1], sizeof(Norm)) == 0 &&
                std::memcmp(&norm_[0], &norm_[2], sizeof(Norm)) == 0;
    }

    // `line` is scratch memory.
    void image_row(int y, const std::uint8_t* row, int channels, std::vector<float>& line) const {
        float* plane[3];
        start(y, line, plane);
        if (channels == 1) {
            grey(plane, [&](const Norm& norm, float* to) {
                row_kernels().normalize_grey(row, at(plan_.width), norm, to);
            });
        } else {
            Norm norm[3];
            float* to[3];
            for (int c = 0; c < 3; ++c) {
                const int p = plan_.bgr ? 2 - c : c;
                norm[c] = norm_[p];
                to[c] = plane[p];
            }
            row_kernels().normalize_rgb(row, at(plan_.width), norm, to);
        }
        finish(y, plane);
    }

    void image_row(int y, const float* row, std::vector<float>& line) const {
        float* plane[3];
        start(y, line, plane);
        grey(plane, [&](const Norm& norm, float* to) {
            row_kernels().normalize_float(row, at(plan_.width), norm, to);
        });
        finish(y, plane);
    }

    void padding_row(int y) const { pad(y, 0); }

private:
    template <typename T>
    T* tensor_row(int plane, int y) const {
        return static_cast<T*>(target_) +
               (at(plane) * at(plan_.frame_height) + at(y)) * at(plan_.frame_width);
    }

    void start(int y, std::vector<float>& line, float** plane) const {
        if (plan_.half) line.resize(3 * at(plan_.width));
        for (int p = 0; p < 3; ++p)
            plane[p] = plan_.half ? line.data() + at(p) * at(plan_.width) : tensor_row<float>(p, y);
    }

    template <typename Normalize>
    void grey(float* const* plane, Normalize normalize) const {
        for (int p = 0; p < 3; ++p) {
            if (p > 0 && same_)
                std::memcpy(plane[p], plane[0], at(plan_.width) * sizeof(float));
            else
                normalize(norm_[p], plane[p]);
        }
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
        if (plan.pad_before && has_padding(plan)) {
            low = std::min(low, plan.pad_value);
            high = std::max(high, plan.pad_value);
        }
    }
};

}  // namespace

void preprocess(const ByteImage& image, const PreprocessPlan& plan, int threads, void* target) {
    const ByteResizer resizer(image, plan.height, plan.width, plan.interpolation);
    if (plan.height == image.height && plan.width == image.width)  // bound by memory, not by work
        threads = useful_threads(threads,
                                 static_cast<std::int64_t>(plan.frame_height) * plan.frame_width);
    const int strip = balanced_strip(resizer.strip_rows(), plan.frame_height, threads);
    const int workers = worker_count(threads, plan.frame_height);
    std::vector<ByteResizer::Scratch> scratch(at(workers));
    std::vector<std::vector<std::uint8_t>> buffer(at(workers));
    std::vector<std::vector<float>> line(at(workers));
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

void preprocess_window(const WindowedImage& image, const PreprocessPlan& plan, int threads,
                       void* target) {
    const FloatResizer resizer(image.height, image.width, 1, plan.height, plan.width,
                               plan.interpolation,
                               [&](int y, float* row) { load_windowed(image, y, row); });
    const int strip = balanced_strip(resizer.strip_rows(), plan.frame_height, threads);
    const int workers = worker_count(threads, plan.frame_height);
    std::vector<FloatResizer::Scratch> scratch(at(workers));
    std::vector<std::vector<float>> line(at(workers));
    std::vector<float> resized(at(plan.height) * at(plan.width));
    Range<float> range(workers, INFINITY, -INFINITY);
    for_strips(plan.height, strip, threads, [&](std::size_t worker, int from, int to) {
        resizer.prepare(from, to, scratch[worker]);
        for (int y = from; y < to; ++y) {
            float* row = resized.data() + at(y) * at(plan.width);
            resizer.row(y, scratch[worker], row);
            float low = 0, high = 0;
            row_kernels().float_range(row, at(plan.width), &low, &high);
            range.lows[worker] = std::min(range.lows[worker], low);
            range.highs[worker] = std::max(range.highs[worker], high);
        }
    });
    float low = 0, high = 0;
    range.total(plan, low, high);
    const TensorWriter writer(plan, low, high, target);
    for_strips(plan.frame_height, strip, threads, [&](std::size_t worker, int from, int to) {
        for (int y = from; y < to; ++y) {
            if (y < plan.height)
                writer.image_row(y, resized.data() + at(y) * at(plan.width), line[worker]);
            else
                writer.padding_row(y);
        }
    });
}

}  // namespace samrt
