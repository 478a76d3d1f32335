// Convolutions of planes with few channels, and what else is done to planes, for one instruction
// set; see kernels.hpp.
#pragma once

#include "kernels.hpp"
#include "simd.hpp"

namespace samrt::ops {
namespace {

#if defined(SAMRT_AVX512) || defined(__aarch64__)
constexpr int kGroups = 2;  // of four results that are made at once
#else
constexpr int kGroups = 1;
#endif

// 4 * Groups results of Vecs vectors of pixels from column x on.
template <int Taps, int Groups, int Vecs>
SAMRT_INLINE void planar_block(const PlanarRow& row, int group, int x) {
    constexpr int kOut = 4 * Groups;
    const std::ptrdiff_t step = static_cast<std::ptrdiff_t>(row.channels) * (4 * Taps * Taps);
    const float* weight[Groups];
    for (int g = 0; g < Groups; ++g) weight[g] = row.weight + (group + g) * step;
    Vec sum[kOut][Vecs];
#pragma GCC unroll 8
    for (int o = 0; o < kOut; ++o)
#pragma GCC unroll 3
        for (int v = 0; v < Vecs; ++v) sum[o][v] = spread(row.bias[4 * group + o]);
    for (int c = 0; c < row.channels; ++c)
        for (int dy = 0; dy < Taps; ++dy) {
            const float* from = row.rows[c * Taps + dy] + x - Taps / 2;
#pragma GCC unroll 3
            for (int dx = 0; dx < Taps; ++dx) {
                Vec in[Vecs];
#pragma GCC unroll 3
                for (int v = 0; v < Vecs; ++v) in[v] = load(from + dx + v * kLanes);
#pragma GCC unroll 2
                for (int g = 0; g < Groups; ++g) {
#pragma GCC unroll 4
                    for (int o = 0; o < 4; ++o) {
                        const Vec factor = spread(weight[g][o]);
#pragma GCC unroll 3
                        for (int v = 0; v < Vecs; ++v) sum[4 * g + o][v] += in[v] * factor;
                    }
                    weight[g] += 4;
                }
            }
        }
#pragma GCC unroll 8
    for (int o = 0; o < kOut; ++o)
#pragma GCC unroll 3
        for (int v = 0; v < Vecs; ++v) {
            const std::ptrdiff_t place = x + v * kLanes;
            Vec value = sum[o][v];
            if (row.add != nullptr) value += load(row.add[4 * group + o] + place);
            if (row.relu) value = larger(value, Vec{});
            store(row.y[4 * group + o] + place, value);
        }
}

template <int Taps, int Groups>
void planar_groups(const PlanarRow& row, int group) {
    int x = 0;
    for (; x + 3 * kLanes <= row.width; x += 3 * kLanes)
        planar_block<Taps, Groups, 3>(row, group, x);
    if (x + 2 * kLanes <= row.width) {
        planar_block<Taps, Groups, 2>(row, group, x);
        x += 2 * kLanes;
    }
    if (x < row.width) planar_block<Taps, Groups, 1>(row, group, x);
}

template <int Taps>
void planar_of(const PlanarRow& row) {
    int group = 0;
    for (; group + kGroups <= row.out / 4; group += kGroups)
        planar_groups<Taps, kGroups>(row, group);
    for (; group < row.out / 4; ++group) planar_groups<Taps, 1>(row, group);
}

void planar_row(const PlanarRow& row) {
    if (row.taps == 3)
        planar_of<3>(row);
    else
        planar_of<1>(row);
}

void double_row(const float* near, const float* far, int n, float* space, float* y) {
    float* between = space + 1;
    for (int i = 0; i < n; ++i) between[i] = near[i] * 0.75f + far[i] * 0.25f;
    between[-1] = between[0];
    between[n] = between[n - 1];
    for (int i = 0; i < n; ++i) {
        y[2 * i] = between[i] * 0.75f + between[i - 1] * 0.25f;
        y[2 * i + 1] = between[i] * 0.75f + between[i + 1] * 0.25f;
    }
}

SAMRT_INLINE Vec sigmoid_of(Vec x) {
    const Vec power = exp_negative(x < 0.0f ? x : -x);  // e^-|x|
    const Vec part = 1.0f / (1.0f + power);
    return x < 0.0f ? power * part : part;
}

void sigmoid_row(const float* x, int n, float* y) {
    for (int i = 0; i < n; i += kLanes) store(y + i, sigmoid_of(load(x + i)));
}

float mask_figures_row(const float* logits, int n, const float* positive, const float* negative,
                       float* columns, MaskSums* sums) {
    Vec probability{}, area{}, both{}, seen{}, unseen{}, most{};
    for (int i = 0; i < n; i += kLanes) {
        const Vec x = load(logits + i), p = sigmoid_of(x);
        const Vec one = spread(1.0f);
        const Vec hard = x > 0.0f ? one : Vec{};
        probability += p;
        area += hard;
        both += p * hard;
        seen += p * load(positive + i);
        unseen += p * load(negative + i);
        most = larger(most, p);
        store(columns + i, larger(load(columns + i), p));
    }
    sums->probability += sum_of(probability);
    sums->area += sum_of(area);
    sums->both += sum_of(both);
    sums->positive += sum_of(seen);
    sums->negative += sum_of(unseen);
    return largest_of(most);
}

}  // namespace
}  // namespace samrt::ops
