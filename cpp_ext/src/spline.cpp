#include "spline.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "samrt/parallel.hpp"
#include "samrt/rows.hpp"

namespace samrt {
namespace {

constexpr double kPole = -0.267949192431122706472553658494127633;  // sqrt(3) - 2
constexpr int kLanes = 32;          // columns that the vertical passes take together
constexpr int kTileColumns = 64;    // output columns whose sources fit the second-level cache
constexpr double kGaussianReach = 4.0;  // in sigmas
constexpr double kNoSigma = 1e-15;

std::size_t at(int index) { return static_cast<std::size_t>(index); }

// Position i of a signal of n samples that goes on mirrored at its end samples.
int mirrored(int i, int n) {
    if (n == 1) return 0;
    const int period = 2 * n - 2;
    const int place = (i < 0 ? -i : i) % period;
    return place < n ? place : period - place;
}

// NumPy's pairwise sum.
double pairwise_sum(const double* values, std::size_t n) {
    if (n > 128) {
        const std::size_t half = n / 2 - n / 2 % 8;
        return pairwise_sum(values, half) + pairwise_sum(values + half, n - half);
    }
    if (n < 8) {
        double sum = 0.0;
        for (std::size_t i = 0; i < n; ++i) sum += values[i];
        return sum;
    }
    double part[8];
    std::copy_n(values, 8, part);
    std::size_t i = 8;
    for (; i + 8 <= n; i += 8)
        for (std::size_t k = 0; k < 8; ++k) part[k] += values[i + k];
    double sum = ((part[0] + part[1]) + (part[2] + part[3])) +
                 ((part[4] + part[5]) + (part[6] + part[7]));
    for (; i < n; ++i) sum += values[i];
    return sum;
}

// Weights at the distances 0, 1, 2 ...; one weight where nothing is to be blurred.
std::vector<double> gaussian(int in_size, int out_size) {
    const double sigma =
        std::max(0.0, (static_cast<double>(in_size) / static_cast<double>(out_size) - 1.0) / 2.0);
    if (sigma <= kNoSigma) return {1.0};
    const int radius = static_cast<int>(kGaussianReach * sigma + 0.5);
    const double factor = -0.5 / (sigma * sigma);
    std::vector<double> both(at(2 * radius + 1));
    for (int i = -radius; i <= radius; ++i)
        both[at(i + radius)] =
            std::exp(factor * static_cast<double>(static_cast<std::int64_t>(i) * i));
    const double total = pairwise_sum(both.data(), both.size());
    std::vector<double> weight(at(radius + 1));
    for (int i = 0; i <= radius; ++i) weight[at(i)] = both[at(radius + i)] / total;
    return weight;
}

// target[i] = source[i] * weight[0] + the pairs at the distances radius ... 1, in this order;
// `sample(k)` is the start of the n values that lie k steps away.
template <typename Sample>
void blur_values(const std::vector<double>& weight, std::size_t n, Sample sample, double* target) {
    const double* centre = sample(0);
    for (std::size_t i = 0; i < n; ++i) target[i] = centre[i] * weight[0];
    for (int k = static_cast<int>(weight.size()) - 1; k > 0; --k) {
        const double *before = sample(-k), *after = sample(k);
        const double w = weight[at(k)];
        for (std::size_t i = 0; i < n; ++i) target[i] += (before[i] + after[i]) * w;
    }
}

// Turns samples into spline coefficients, in place: `lanes` signals of n samples next to each
// other, `step` values from sample to sample.
void filter_lines(double* values, int n, std::size_t step, std::size_t lanes) {
    if (n < 2) return;
    constexpr double gain = (1.0 - kPole) * (1.0 - 1.0 / kPole);
    const auto line = [&](int i) { return values + at(i) * step; };
    for (int i = 0; i < n; ++i) {
        double* to = line(i);
        for (std::size_t k = 0; k < lanes; ++k) to[k] *= gain;
    }
    const double far = std::pow(kPole, static_cast<double>(n - 1));
    double *first = line(0), *last = line(n - 1);
    for (std::size_t k = 0; k < lanes; ++k) first[k] = first[k] + far * last[k];
    double power = kPole;
    for (int i = 1; i < n - 1 && power != 0.0; ++i, power *= kPole) {
        const double *near = line(i), *back = line(n - 1 - i);
        for (std::size_t k = 0; k < lanes; ++k) first[k] += power * (near[k] + far * back[k]);
    }
    for (std::size_t k = 0; k < lanes; ++k) first[k] /= 1 - far * far;
    for (int i = 1; i < n; ++i) {
        double* to = line(i);
        const double* before = line(i - 1);
        for (std::size_t k = 0; k < lanes; ++k) to[k] += kPole * before[k];
    }
    const double* second = line(n - 2);
    for (std::size_t k = 0; k < lanes; ++k)
        last[k] = (kPole * second[k] + last[k]) * kPole / (kPole * kPole - 1);
    for (int i = n - 2; i >= 0; --i) {
        double* to = line(i);
        const double* after = line(i + 1);
        for (std::size_t k = 0; k < lanes; ++k) to[k] = kPole * (after[k] - to[k]);
    }
}

// The four weights at the place x between two samples, 0 <= x < 1.
void spline_weights(double x, double* weight) {
    const double y = x, z = 1.0 - x;
    weight[0] = z * z * z / 6.0;
    weight[1] = (y * y * (y - 2.0) * 3.0 + 4.0) / 6.0;
    weight[2] = (z * z * (z - 2.0) * 3.0 + 4.0) / 6.0;
    weight[3] = 1.0 - weight[0] - weight[1] - weight[2];
}

// Calls body(worker, from, to) for the pieces of [0, size), `piece` long, in parallel.
template <typename Body>
void for_pieces(int size, int piece, int threads, Body body) {
    parallel_for(threads, (size + piece - 1) / piece, [&](int worker, std::int64_t unit) {
        const int from = static_cast<int>(unit) * piece;
        body(worker, from, std::min(from + piece, size));
    });
}

}  // namespace

SplineResizer::Axis SplineResizer::make_axis(int in_size, int out_size, bool corners) {
    Axis axis;
    axis.index.resize(at(out_size) * kSpline);
    axis.weight.resize(axis.index.size());
    axis.outside.assign(at(out_size), 0);
    const double in = in_size, out = out_size;
    const double zoom = !corners ? in / out : out_size > 1 ? (in - 1) / (out - 1) : 1.0;
    for (int i = 0; i < out_size; ++i) {
        double place = corners ? i * zoom : (i + 0.5) * zoom - 0.5;
        if (corners)
            axis.outside[at(i)] = place < 0 || place > in - 1;
        else
            place = in_size == 1 ? 0.0 : std::fabs(place);
        const int start = static_cast<int>(std::floor(place)) - 1;
        for (int k = 0; k < kSpline; ++k)
            axis.index[at(i * kSpline + k)] = mirrored(start + k, in_size);
        spline_weights(place - std::floor(place), axis.weight.data() + at(i) * kSpline);
    }
    return axis;
}

SplineResizer::SplineResizer(int in_height, int in_width, int channels, int height, int width,
                             Interpolation kind, const FloatResizer::Load& load, int threads)
    : in_height_(in_height), in_width_(in_width), channels_(channels), width_(width) {
    const bool corners = kind == Interpolation::kBsplineCorners;
    clips_ = !corners;
    x_ = make_axis(in_width, width, corners);
    y_ = make_axis(in_height, height, corners);
    if (!corners && channels == 3) {
        across_.resize(kSpline);
        spline_weights(0.0, across_.data());
    }
    read(load, threads);
    if (!corners) blur(height, width, threads);
    filter(threads);
}

void SplineResizer::read(const FloatResizer::Load& load, int threads) {
    const std::size_t n = at(in_width_) * at(channels_);
    values_.resize(at(in_height_) * n);
    const int workers = worker_count(threads, in_height_);
    std::vector<std::vector<float>> line(at(workers));
    std::vector<float> lows(at(workers), std::numeric_limits<float>::infinity());
    std::vector<float> highs(at(workers), -std::numeric_limits<float>::infinity());
    for_pieces(in_height_, kBlockRows, threads, [&](int worker, int from, int to) {
        std::vector<float>& row = line[at(worker)];
        row.resize(n);
        for (int y = from; y < to; ++y) {
            load(y, row.data());
            std::copy(row.begin(), row.end(), values_.begin() + static_cast<std::ptrdiff_t>(at(y) * n));
            float low = 0, high = 0;
            row_kernels().float_range(row.data(), n, &low, &high);
            lows[at(worker)] = std::min(lows[at(worker)], low);
            highs[at(worker)] = std::max(highs[at(worker)], high);
        }
    });
    low_ = static_cast<double>(*std::min_element(lows.begin(), lows.end()));
    high_ = static_cast<double>(*std::max_element(highs.begin(), highs.end()));
}

void SplineResizer::blur(int height, int width, int threads) {
    const std::size_t n = at(in_width_) * at(channels_);
    const std::vector<double> down = gaussian(in_height_, height);
    if (down.size() > 1) {
        const int columns = static_cast<int>(n);
        std::vector<std::vector<double>> strip(at(worker_count(threads, columns)));
        for_pieces(columns, kLanes, threads, [&](int worker, int from, int to) {
            std::vector<double>& copy = strip[at(worker)];
            const std::size_t lanes = at(to - from);
            copy.resize(at(in_height_) * lanes);
            for (int y = 0; y < in_height_; ++y)
                std::copy_n(values_.data() + at(y) * n + at(from), lanes,
                            copy.data() + at(y) * lanes);
            for (int y = 0; y < in_height_; ++y)
                blur_values(down, lanes,
                            [&](int k) {
                                return copy.data() + at(mirrored(y + k, in_height_)) * lanes;
                            },
                            values_.data() + at(y) * n + at(from));
        });
    }
    const std::vector<double> along = gaussian(in_width_, width);
    if (along.size() == 1) return;
    const int radius = static_cast<int>(along.size()) - 1;
    const std::size_t channels = at(channels_);
    std::vector<std::vector<double>> line(at(worker_count(threads, in_height_)));
    for_pieces(in_height_, kBlockRows, threads, [&](int worker, int from, int to) {
        std::vector<double>& wide = line[at(worker)];
        wide.resize(n + 2 * at(radius) * channels);
        for (int y = from; y < to; ++y) {
            double* row = values_.data() + at(y) * n;
            for (int x = -radius; x < in_width_ + radius; ++x)
                std::copy_n(row + at(mirrored(x, in_width_)) * channels, channels,
                            wide.data() + at(x + radius) * channels);
            blur_values(along, n,
                        [&](int k) { return wide.data() + at(radius + k) * channels; }, row);
        }
    });
}

void SplineResizer::filter(int threads) {
    const std::size_t n = at(in_width_) * at(channels_);
    for_pieces(static_cast<int>(n), kLanes, threads, [&](int, int from, int to) {
        filter_lines(values_.data() + from, in_height_, n, at(to - from));
    });
    constexpr std::size_t rows = kBlockRows;
    std::vector<std::vector<double>> block(at(worker_count(threads, in_height_)));
    for_pieces(in_height_, kBlockRows, threads, [&](int worker, int from, int to) {
        std::vector<double>& values = block[at(worker)];
        values.resize(n * rows);
        for (std::size_t r = 0; r < rows; ++r) {  // missing rows repeat the last one
            const double* row = values_.data() + at(std::min(from + static_cast<int>(r), to - 1)) * n;
            for (std::size_t i = 0; i < n; ++i) values[i * rows + r] = row[i];
        }
        const std::size_t pixel = rows * at(channels_);
        filter_lines(values.data(), in_width_, pixel, pixel);
        if (!across_.empty())
            for (int x = 0; x < in_width_; ++x)
                filter_lines(values.data() + at(x) * pixel, channels_, rows, rows);
        for (int y = from; y < to; ++y) {
            double* row = values_.data() + at(y) * n;
            for (std::size_t i = 0; i < n; ++i) row[i] = values[i * rows + at(y - from)];
        }
    });
}

void SplineResizer::rows(int from, int to, Scratch& scratch, double* const* target) const {
    for (int column = 0; column < width_; column += kTileColumns)
        columns(column, std::min(column + kTileColumns, width_), from, to, scratch, target);
}

// The output columns [from, to) of the rows [first_row, row_end).
void SplineResizer::columns(int from, int to, int first_row, int row_end, Scratch& scratch,
                            double* const* target) const {
    constexpr std::size_t rows = kBlockRows;
    const std::size_t channels = at(channels_), n = at(in_width_) * channels;
    scratch.index.assign(x_.index.begin() + kSpline * from, x_.index.begin() + kSpline * to);
    const auto range = std::minmax_element(scratch.index.begin(), scratch.index.end());
    const int left = *range.first;
    const std::size_t wide = at(*range.second - left + 1), part = wide * channels;
    for (std::int32_t& index : scratch.index) index -= left;
    scratch.source.resize(std::max(scratch.source.size(), kSpline * part * rows));
    for (std::size_t r = 0; r < rows; ++r) {  // missing rows repeat the last one
        const int y = std::min(first_row + static_cast<int>(r), row_end - 1);
        for (int a = 0; a < kSpline; ++a) {
            const std::size_t tap = at(y * kSpline + a);
            const double* row =
                values_.data() + at(y_.index[tap]) * n + at(left) * channels;
            const double weight = y_.weight[tap];
            double* to_block = scratch.source.data() + at(a) * part * rows + r;
            for (std::size_t i = 0; i < part; ++i) to_block[i * rows] = row[i] * weight;
        }
    }
    const std::size_t out = at(to - from) * channels;
    scratch.target.resize(std::max(scratch.target.size(), out * rows));
    row_kernels().spline_block(scratch.source.data(), wide, channels_, scratch.index.data(),
                               x_.weight.data() + at(from) * kSpline,
                               across_.empty() ? nullptr : across_.data(), at(to - from),
                               scratch.target.data());
    for (int y = first_row; y < row_end; ++y) {
        double* row = target[y - first_row] + at(from) * channels;
        const double* block = scratch.target.data() + at(y - first_row);
        for (std::size_t i = 0; i < out; ++i) {
            const double value = block[i * rows];
            const double floored = value > low_ ? value : low_;
            const double clipped = floored < high_ ? floored : high_;
            row[i] = clips_ ? clipped : value;
        }
        for (std::size_t i = 0; i < out; ++i)
            if (y_.outside[at(y)] != 0 || x_.outside[at(from) + i / channels] != 0) row[i] = 0.0;
    }
}

void spline_resize(int in_height, int in_width, int channels, int height, int width,
                   Interpolation kind, const FloatResizer::Load& load, int threads,
                   const EmitRow& emit) {
    const std::size_t n = at(width) * at(channels);
    const int workers = worker_count(threads, height);
    std::vector<std::vector<double>> lines(at(workers));
    if (in_height == height && in_width == width) {
        std::vector<std::vector<float>> input(at(workers));
        for_pieces(height, kBlockRows, threads, [&](int worker, int from, int to) {
            lines[at(worker)].resize(n);
            input[at(worker)].resize(n);
            for (int y = from; y < to; ++y) {
                load(y, input[at(worker)].data());
                std::copy(input[at(worker)].begin(), input[at(worker)].end(),
                          lines[at(worker)].begin());
                emit(worker, y, lines[at(worker)].data());
            }
        });
        return;
    }
    const SplineResizer resizer(in_height, in_width, channels, height, width, kind, load, threads);
    std::vector<SplineResizer::Scratch> scratch(at(workers));
    for_pieces(height, kBlockRows, threads, [&](int worker, int from, int to) {
        lines[at(worker)].resize(n * kBlockRows);
        double* target[kBlockRows];
        for (int r = 0; r < kBlockRows; ++r) target[r] = lines[at(worker)].data() + at(r) * n;
        resizer.rows(from, to, scratch[at(worker)], target);
        for (int y = from; y < to; ++y) emit(worker, y, target[y - from]);
    });
}

}  // namespace samrt
