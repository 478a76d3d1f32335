#include "samrt/resample.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "area.hpp"
#include "samrt/parallel.hpp"
#include "samrt/rows.hpp"
#include "spline.hpp"

namespace samrt {
namespace {

constexpr std::size_t kStripBytes = 256 * 1024;

std::size_t at(int index) { return static_cast<std::size_t>(index); }

template <typename T>
void grow(std::vector<T>& buffer, std::size_t size) {
    if (buffer.size() < size) buffer.resize(size);
}

template <typename Weight>
int rows_end(const Taps<Weight>& taps, int to) {
    return taps.first[at(to - 1)] + taps.count[at(to - 1)];
}

int rows_per_strip(int in_rows, int out_rows, std::size_t row_bytes) {
    const double bytes_per_row =
        std::max(1.0, static_cast<double>(in_rows) / out_rows) * static_cast<double>(row_bytes);
    return std::clamp(static_cast<int>(static_cast<double>(kStripBytes) / bytes_per_row), 1, 64);
}

bool averages_area(int in_height, int in_width, int height, int width) {
    return height <= in_height && width <= in_width;
}

}  // namespace

int balanced_strip(int strip, int rows, int threads) {
    const int parts = 4 * std::max(1, std::min(threads, kMaxThreads));
    const int fair = std::max(1, (rows + parts - 1) / parts);
    return threads <= 1 ? std::max(1, strip) : std::clamp(strip, 1, std::max(8, fair));
}

FloatResizer::FloatResizer(int in_height, int in_width, int channels, int height, int width,
                           Interpolation kind, bool exact, Load load)
    : channels_(channels), load_(std::move(load)) {
    const bool average = averages_area(in_height, in_width, height, width);
    const auto taps = [&](int in_size, int out_size) {
        if (exact &&
            (kind == Interpolation::kBilinear || kind == Interpolation::kBilinearAntialias))
            return make_fused_taps(kind, in_size, out_size);
        return make_float_taps(kind, in_size, out_size, average);
    };
    x_ = taps(in_width, width);
    y_ = taps(in_height, height);
    reach_ = std::max(in_width, rows_end(x_, width));
}

int FloatResizer::strip_rows() const {
    return rows_per_strip(y_.in_size, y_.out_size, at(x_.out_size * channels_) * sizeof(float));
}

void FloatResizer::prepare(int from, int to, Scratch& scratch) const {
    const int first = y_.first[at(from)], end = std::min(rows_end(y_, to), y_.in_size);
    const std::size_t pixel = at(channels_), in_row = at(reach_) * pixel;
    const std::size_t out_row = at(x_.out_size) * pixel;
    const int blocks = (end - first + kBlockRows - 1) / kBlockRows;
    scratch.first = first;
    grow(scratch.rows, at(blocks * kBlockRows) * out_row);
    if (x_.identity()) {
        for (int y = first; y < end; ++y) load_(y, scratch.rows.data() + at(y - first) * out_row);
        return;
    }
    grow(scratch.input, kBlockRows * in_row);
    grow(scratch.block, kBlockRows * in_row);
    grow(scratch.resized, kBlockRows * out_row);
    const RowKernels& kernels = row_kernels();
    const auto resample = x_.fused ? kernels.resample_block_fused : kernels.resample_block;
    for (int y = first; y < end; y += kBlockRows) {
        const float* source[kBlockRows];
        float* target[kBlockRows];
        for (int r = 0; r < kBlockRows; ++r) {
            float* input = scratch.input.data() + at(r) * in_row;
            if (y + r < end) {
                load_(y + r, input);
                for (std::size_t i = at(x_.in_size) * pixel; i < in_row; ++i)
                    input[i] = input[i - pixel];
            }
            source[r] = y + r < end ? input : source[0];
            target[r] = scratch.rows.data() + at(y - first + r) * out_row;
        }
        kernels.interleave(source, in_row, scratch.block.data());
        resample(x_, channels_, scratch.block.data(), scratch.resized.data());
        kernels.deinterleave(scratch.resized.data(), out_row, target);
    }
}

void FloatResizer::row(int y, Scratch& scratch, float* target) const {
    const std::size_t out_row = at(x_.out_size) * at(channels_);
    const int count = y_.count[at(y)];
    const float* weight = y_.weight.data() + at(y) * at(y_.width);
    grow(scratch.taps, at(count));
    for (int k = 0; k < count; ++k) {
        const int row = std::min(y_.first[at(y)] + k, y_.in_size - 1) - scratch.first;
        scratch.taps[at(k)] = scratch.rows.data() + at(row) * out_row;
    }
    if ((count == 1 && weight[0] == 1.0f) || y_.identity()) {
        const int row = y_.identity() ? y - scratch.first : y_.first[at(y)] - scratch.first;
        std::memcpy(target, scratch.rows.data() + at(row) * out_row, out_row * sizeof(float));
        return;
    }
    if (!y_.fused)
        return row_kernels().blend(scratch.taps.data(), weight, count, out_row, target);
    scratch.weights.assign(weight, weight + count);
    if (y_.backwards) {
        std::reverse(scratch.taps.begin(), scratch.taps.begin() + count);
        std::reverse(scratch.weights.begin(), scratch.weights.end());
    }
    row_kernels().blend_fused(scratch.taps.data(), scratch.weights.data(), count, out_row, target);
}

ByteResizer::ByteResizer(const ByteImage& source, int height, int width, Interpolation kind)
    : source_(source), height_(height), width_(width), method_(Method::kCopy) {
    if (height == source.height && width == source.width) return;
    if (kind == Interpolation::kNearest) {
        method_ = Method::kNearest;
        nearest_x_ = make_float_taps(kind, source.width, width, false);
        nearest_y_ = make_float_taps(kind, source.height, height, false);
        return;
    }
    const AreaMethod area = area_method(source.height, source.width, height, width);
    if (kind == Interpolation::kArea && area != AreaMethod::kWeights) {
        method_ = Method::kArea;
        area_ = std::make_shared<AreaResizer>(source, height, width, area);
    } else if (kind == Interpolation::kArea || kind == Interpolation::kBilinear) {
        method_ = Method::kFloat;
        const ByteImage image = source;
        floats_.emplace_back(source.height, source.width, source.channels, height, width, kind, false,
                             [image](int y, float* target) {
                                 const std::uint8_t* row = image.row(y);
                                 std::copy(row, row + image.row_bytes(), target);
                             });
    } else {
        method_ = Method::kFixed;
        const RowKernels& kernels = row_kernels();
        const int group = source.channels == 3 ? kernels.group_taps_rgb : kernels.group_taps_grey;
        if (width != source.width) x_ = make_fixed_taps(kind, source.width, width, group);
        y_ = make_fixed_taps(kind, source.height, height, 0);
        // Each pass rounds to 8 bits, so their order shows. This is Pillow 13's; before, the
        // horizontal pass always came first.
        vertical_first_ = width != source.width && height < source.height &&
                          source.height - height > 2 * (source.width - width);
    }
}

int ByteResizer::strip_rows() const {
    if (method_ == Method::kFloat) return floats_.front().strip_rows();
    return rows_per_strip(source_.height, height_, row_bytes());
}

void ByteResizer::prepare(int from, int to, Scratch& scratch) const {
    if (method_ == Method::kFloat) {
        floats_.front().prepare(from, to, scratch.floats);
        grow(scratch.float_row, row_bytes());
    } else if (method_ == Method::kArea) {
        area_->prepare(from, to, scratch.sums, scratch.first);
    } else if (method_ == Method::kFixed && width_ != source_.width) {
        if (vertical_first_)
            resample_rows(from, to, scratch);
        else
            resample_rows(y_.first[at(from)], rows_end(y_, to), scratch);
    }
}

// The horizontal pass over the rows [from, to): source rows, or, when the vertical pass comes
// first, output rows that are made here.
void ByteResizer::resample_rows(int from, int to, Scratch& scratch) const {
    const std::size_t stride = row_bytes() + kRowSlack;
    const std::size_t in_row = source_.row_bytes();
    // The row loops read whole groups of taps: rows at the end of the image go through a copy.
    const std::size_t reach =
        in_row + at(x_.groups * x_.group_taps * source_.channels) + kRowSlack;
    const std::uint8_t* image_end = source_.row(source_.height);
    scratch.first = from;
    grow(scratch.rows, at(to - from) * stride);
    grow(scratch.padded, kRowsAtOnce * reach);
    for (int y = from; y < to; y += kRowsAtOnce) {
        const int rows = std::min(kRowsAtOnce, to - y);
        const std::uint8_t* input[kRowsAtOnce];
        std::uint8_t* output[kRowsAtOnce];
        for (int r = 0; r < rows; ++r) {
            std::uint8_t* own = scratch.padded.data() + at(r) * reach;
            input[r] = own;
            output[r] = scratch.rows.data() + at(y + r - from) * stride;
            if (vertical_first_)
                vertical_row(y + r, source_.data, in_row, 0, scratch, own);
            else if (static_cast<std::size_t>(image_end - source_.row(y + r)) >= reach)
                input[r] = source_.row(y + r);
            else
                std::memcpy(own, source_.row(y + r), in_row);
        }
        // Four bytes are stored per pixel: the slack of a row takes the last one.
        row_kernels().resample_x(x_, source_.channels, input, rows, output);
    }
}

// Output row y of the vertical pass over `rows`, of which the first is row `first`.
void ByteResizer::vertical_row(int y, const std::uint8_t* rows, std::size_t stride, int first,
                               Scratch& scratch, std::uint8_t* target) const {
    const int count = y_.count[at(y)];
    grow(scratch.taps, at(count));
    for (int k = 0; k < count; ++k)
        scratch.taps[at(k)] = rows + at(y_.first[at(y)] - first + k) * stride;
    const std::size_t n = vertical_first_ ? source_.row_bytes() : row_bytes();
    row_kernels().resample_y(scratch.taps.data(), y_.weight.data() + at(y) * at(y_.width), count,
                             n, target);
}

const std::uint8_t* ByteResizer::row(int y, Scratch& scratch, std::uint8_t* buffer) const {
    switch (method_) {
        case Method::kCopy:
            return source_.row(y);
        case Method::kFloat:
            floats_.front().row(y, scratch.floats, scratch.float_row.data());
            row_kernels().float_to_byte(scratch.float_row.data(), row_bytes(), buffer);
            return buffer;
        case Method::kArea:
            area_->row(y, scratch.first, scratch.sums, buffer);
            return buffer;
        case Method::kNearest: {
            const std::uint8_t* from = source_.row(nearest_y_.first[at(y)]);
            const std::size_t channels = at(source_.channels);
            std::uint8_t* to = buffer;
            for (int x = 0; x < width_; ++x)
                for (std::size_t c = 0; c < channels; ++c)
                    *to++ = from[at(nearest_x_.first[at(x)]) * channels + c];
            return buffer;
        }
        case Method::kFixed:
            break;
    }
    const bool resized = width_ != source_.width;
    const std::size_t stride = resized ? row_bytes() + kRowSlack : source_.row_bytes();
    const std::uint8_t* rows = resized ? scratch.rows.data() : source_.data;
    const int first = resized ? scratch.first : 0;
    if (vertical_first_ || y_.identity()) return rows + at(y - first) * stride;
    vertical_row(y, rows, stride, first, scratch, buffer);
    return buffer;
}

std::vector<float> spline_floats(int in_height, int in_width, int channels, int height, int width,
                                 const std::vector<std::pair<int, int>>& via, Interpolation kind,
                                 const FloatResizer::Load& load, int threads) {
    std::vector<std::pair<int, int>> sizes = via;
    sizes.emplace_back(height, width);
    std::vector<float> image;
    FloatResizer::Load source = load;
    for (const auto& [h, w] : sizes) {
        const std::size_t n = at(w) * at(channels);
        std::vector<float> next(at(h) * n);
        spline_resize(in_height, in_width, channels, h, w, kind, source, threads,
                      [&](int, int y, const double* row) {
                          std::transform(row, row + n, next.data() + at(y) * n,
                                         [](double value) { return static_cast<float>(value); });
                      });
        image = std::move(next);
        source = [&image, n](int y, float* row) { std::copy_n(image.data() + at(y) * n, n, row); };
        in_height = h;
        in_width = w;
    }
    return image;
}

void resize(const ByteImage& source, int height, int width, Interpolation kind, Rounding rounding,
            int threads, std::uint8_t* target) {
    const std::size_t n = at(width) * at(source.channels);
    if (rounding == Rounding::kNone || (rounding == Rounding::kTruncate && !is_spline(kind)))
        throw std::invalid_argument("rounding must be nearest, or truncate with a spline");
    if (is_spline(kind)) {
        const double half = rounding == Rounding::kNearest ? 0.5 : 0.0;
        spline_resize(source.height, source.width, source.channels, height, width, kind,
                      [&source](int y, float* row) {
                          std::copy(source.row(y), source.row(y) + source.row_bytes(), row);
                      },
                      threads, [&](int, int y, const double* row) {
                          std::uint8_t* to = target + at(y) * n;
                          for (std::size_t i = 0; i < n; ++i) {
                              const double value = std::clamp(row[i] + half, 0.0, 255.0);
                              to[i] = static_cast<std::uint8_t>(static_cast<int>(value));
                          }
                      });
        return;
    }
    const ByteResizer resizer(source, height, width, kind);
    const int strip = balanced_strip(resizer.strip_rows(), height, threads);
    const std::int64_t units = (height + strip - 1) / strip;
    std::vector<ByteResizer::Scratch> scratch(at(worker_count(threads, units)));
    std::vector<std::vector<std::uint8_t>> buffer(scratch.size());
    parallel_for(threads, units, [&](int worker, std::int64_t unit) {
        ByteResizer::Scratch& mine = scratch[at(worker)];
        std::vector<std::uint8_t>& row = buffer[at(worker)];
        grow(row, n + kRowSlack);
        const int from = static_cast<int>(unit) * strip, to = std::min(from + strip, height);
        resizer.prepare(from, to, mine);
        for (int y = from; y < to; ++y)
            std::memcpy(target + at(y) * n, resizer.row(y, mine, row.data()), n);
    });
}

}  // namespace samrt
