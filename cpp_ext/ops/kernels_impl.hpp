// The loops of kernels.hpp for one instruction set. Defined before: SAMRT_LANES, SAMRT_ROWS (rows
// of the register tile), SAMRT_NAME.
#pragma once

#include "kernels.hpp"
#include "filter_impl.hpp"
#include "planar_impl.hpp"
#include "products_impl.hpp"
#include "simd.hpp"

namespace samrt::ops {
namespace {

float quantize_row(const float* x, int n, std::uint8_t* q) {
    const int whole = n / kLanes * kLanes;
    Vec high{}, low{};
    for (int i = 0; i < whole; i += kLanes) {
        const Vec value = load(x + i);
        high = larger(high, value);
        low = smaller(low, value);
    }
    float most = largest_of(larger(high, -low));
    for (int i = whole; i < n; ++i) most = __builtin_fmaxf(most, __builtin_fabsf(x[i]));
    const float scale = most / 127.0f;
    const float factor = scale > 0.0f ? 1.0f / scale : 0.0f;
    const float magic = 12582912.0f + 128.0f;  // 1.5 * 2^23: adding it rounds to a whole number
    typedef std::uint8_t Bytes __attribute__((vector_size(kLanes)));
    int i = 0;
    for (; i < whole; i += kLanes) {
        const Vec value = load(x + i) * factor + magic;
        const Bytes bytes = __builtin_convertvector(reinterpret_cast<IntVec>(value) & 255, Bytes);
        std::memcpy(q + i, &bytes, sizeof bytes);
    }
    for (; i < n; ++i) {
        float value = x[i] * factor + magic;
        std::int32_t bits;
        std::memcpy(&bits, &value, sizeof bits);
        q[i] = static_cast<std::uint8_t>(bits & 255);
    }
    for (; i % 4 != 0; ++i) q[i] = 128;
    return scale;
}

void normalize_row(const float* x, int n, const float* gamma, const float* beta, float epsilon,
                   bool gelu, float* y) {
    const int whole = n / kLanes * kLanes;
    Vec total{};
    for (int i = 0; i < whole; i += kLanes) total += load(x + i);
    float sum = sum_of(total);
    for (int i = whole; i < n; ++i) sum += x[i];
    const float mean = sum / static_cast<float>(n);
    Vec squares{};
    for (int i = 0; i < whole; i += kLanes) {
        const Vec d = load(x + i) - mean;
        squares += d * d;
    }
    float square = sum_of(squares);
    for (int i = whole; i < n; ++i) square += (x[i] - mean) * (x[i] - mean);
    const float factor = 1.0f / __builtin_sqrtf(square / static_cast<float>(n) + epsilon);
    for (int i = 0; i < whole; i += kLanes) {
        Vec value = (load(x + i) - mean) * factor * load(gamma + i);
        if (beta) value += load(beta + i);
        store(y + i, gelu ? gelu_of(value) : value);
    }
    if (whole == n) return;
    const std::size_t left = at(n - whole);
    Vec value = (load_part(x + whole, left) - mean) * factor * load_part(gamma + whole, left);
    if (beta) value += load_part(beta + whole, left);
    store_part(y + whole, gelu ? gelu_of(value) : value, left);
}

constexpr float kFar = -3e38f;  // a score that weighs nothing

// e^(score - top) in place; the sum.
float exponentials(float* scores, int n, float top) {
    const int whole = n / kLanes * kLanes;
    Vec total{};
    for (int i = 0; i < whole; i += kLanes) {
        const Vec value = exp_negative(load(scores + i) - top);
        total += value;
        store(scores + i, value);
    }
    if (whole < n) {
        const std::size_t left = at(n - whole);
        const Vec last = exp_negative(load_part_or(scores + whole, left, kFar) - top);
        total += last;  // what is behind the end is 1e-38
        store_part(scores + whole, last, left);
    }
    return sum_of(total);
}

float softmax_row(float* scores, const float* bias, int n, float* maximum) {
    const int whole = n / kLanes * kLanes;
    Vec best = spread(*maximum);
    for (int i = 0; i < whole; i += kLanes) {
        Vec value = load(scores + i);
        if (bias) {
            value += load(bias + i);
            store(scores + i, value);
        }
        best = larger(best, value);
    }
    if (whole < n) {
        const std::size_t left = at(n - whole);
        Vec value = load_part_or(scores + whole, left, kFar);
        if (bias) {
            value += load_part(bias + whole, left);
            store_part(scores + whole, value, left);
        }
        best = larger(best, value);
    }
    *maximum = largest_of(best);
    return exponentials(scores, n, *maximum);
}

float softmax_relative_row(float* scores, const float* down, int rows, const float* across,
                           int columns, float* space, float* maximum) {
    if (columns % kLanes != 0) {  // whole vectors; what a row writes too much the next one mends
        for (int r = 0; r < rows; ++r)
            for (int c = 0; c < columns; c += kLanes)
                store(space + static_cast<std::ptrdiff_t>(r) * columns + c,
                      load(across + c) + down[r]);
        return softmax_row(scores, space, rows * columns, maximum);
    }
    Vec best = spread(*maximum);
    for (int r = 0; r < rows; ++r) {
        float* line = scores + static_cast<std::ptrdiff_t>(r) * columns;
        const Vec add = spread(down[r]);
        for (int c = 0; c < columns; c += kLanes) {
            const Vec value = load(line + c) + (load(across + c) + add);
            store(line + c, value);
            best = larger(best, value);
        }
    }
    *maximum = largest_of(best);
    return exponentials(scores, rows * columns, *maximum);
}

void softmax_down_tile(float* tile, int groups, int count, int columns) {
    for (int g = 0; g < groups; ++g, tile += static_cast<std::ptrdiff_t>(count) * columns)
        for (int c = 0; c < columns; c += kLanes) {
            const std::size_t left = at(columns - c < kLanes ? columns - c : kLanes);
            const bool whole = left == at(kLanes);
            const auto place = [&](int r) {
                return tile + static_cast<std::ptrdiff_t>(r) * columns + c;
            };
            const auto get = [&](int r) { return whole ? load(place(r)) : load_part(place(r), left); };
            const auto put = [&](int r, Vec value) {
                if (whole)
                    store(place(r), value);
                else
                    store_part(place(r), value, left);
            };
            Vec top = get(0);
            for (int r = 1; r < count; ++r) top = larger(top, get(r));
            Vec sum{};
            for (int r = 0; r < count; ++r) {
                const Vec value = exp_negative(get(r) - top);
                sum += value;
                put(r, value);
            }
            const Vec factor = 1.0f / sum;
            for (int r = 0; r < count; ++r) put(r, get(r) * factor);
        }
}

void scale_row(const float* x, float factor, int n, float* y) {
    int i = 0;
    for (; i + kLanes <= n; i += kLanes) store(y + i, load(x + i) * factor);
    for (; i < n; ++i) y[i] = x[i] * factor;
}

void add_rows(const float* x, const float* z, int n, float* y) {
    int i = 0;
    for (; i + kLanes <= n; i += kLanes) store(y + i, load(x + i) + load(z + i));
    for (; i < n; ++i) y[i] = x[i] + z[i];
}

void depthwise_row(const float* const* rows, const float* weight, const float* bias, int channels,
                   int pixels, int stride, bool gelu, float* y) {
    for (int from = 0; from < channels; from += kLanes) {
        const std::size_t left = at(channels - from < kLanes ? channels - from : kLanes);
        const bool whole = left == at(kLanes);
        const auto get = [&](const float* p) { return whole ? load(p) : load_part(p, left); };
        Vec taps[9];
        for (int t = 0; t < 9; ++t)
            taps[t] = rows[t / 3] ? get(weight + static_cast<std::ptrdiff_t>(t) * channels + from)
                                  : Vec{};
        const Vec start = get(bias + from);
        const float* line[3];
        for (int r = 0; r < 3; ++r) line[r] = (rows[r] ? rows[r] : rows[1]) + from;
        for (int x = 0; x < pixels; ++x) {
            const std::ptrdiff_t first = static_cast<std::ptrdiff_t>(x) * stride * channels;
            Vec sum = start;
#pragma GCC unroll 9
            for (int t = 0; t < 9; ++t)
                sum += taps[t] * get(line[t / 3] + first + (t % 3) * channels);
            if (gelu) sum = gelu_of(sum);
            float* to = y + static_cast<std::ptrdiff_t>(x) * channels + from;
            if (whole)
                store(to, sum);
            else
                store_part(to, sum, left);
        }
    }
}

#ifdef SAMRT_VNNI
constexpr bool kFast8 = true;
#else
constexpr bool kFast8 = false;
#endif

const Kernels kTable = {
    SAMRT_NAME,      kFast8,       kLanes,           kPanel,        pack_panels,
    pack_transposed_panels, multiply_packed, quantize_row, pack8_panels, multiply8_packed,
    normalize_row,   softmax_row,  softmax_relative_row, softmax_down_tile, scale_row, add_rows,
    depthwise_row,   filter_in,    filter_out,       planar_row,    double_row,
    sigmoid_row,     mask_figures_row,
};

}  // namespace
}  // namespace samrt::ops
