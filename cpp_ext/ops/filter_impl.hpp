// The transforms of conv3x3.cpp for one instruction set; see kernels.hpp.
#pragma once

#include "simd.hpp"

namespace samrt::ops {
namespace {

constexpr float kThird = 1.0f / 3.0f, kSixth = 1.0f / 6.0f, kFifteenth = 1.0f / 15.0f;

// Six values at the points 0, 1, -1, 1/2, -2 and infinity.
SAMRT_INLINE void to_points(const Vec (&d)[6], Vec (&v)[6]) {
    const Vec even = d[4] - d[2], odd = d[3] - d[1];
    v[0] = d[0] + (d[4] - d[2]) - d[2] + odd * 1.5f;
    v[1] = (d[4] - d[1]) * kThird + d[2] * kSixth + d[3] * (5.0f * kSixth);
    v[2] = d[2] * (5.0f * kSixth) - (d[1] + d[4]) * kThird - d[3] * kSixth;
    v[3] = odd * (-32.0f * kFifteenth) + even * (-16.0f * kFifteenth);
    v[4] = odd * (-0.5f * kFifteenth) + even * kFifteenth;
    v[5] = d[1] + (d[5] - d[3]) - d[3] + even * 1.5f;
}

// The four values of the polynomial that has six given values at the points.
SAMRT_INLINE void from_points(const Vec (&m)[6], Vec (&y)[4]) {
    const Vec sum = m[1] + m[2], difference = m[1] - m[2];
    y[0] = m[0] + sum + (m[3] + m[4]);
    y[1] = difference + m[3] * 0.5f - m[4] * 2.0f;
    y[2] = sum + m[3] * 0.25f + m[4] * 4.0f;
    y[3] = difference + m[3] * 0.125f - m[4] * 8.0f + m[5];
}

void filter_in(const float* const* pixels, int channels, std::ptrdiff_t stride, float* to) {
    for (int c = 0; c < channels; c += kLanes) {
        const std::size_t left = static_cast<std::size_t>(channels - c);
        const bool whole = channels - c >= kLanes;
        Vec half[6][6];  // [column][place]
        for (int j = 0; j < 6; ++j) {
            Vec d[6];
            for (int i = 0; i < 6; ++i) {
                const float* from = pixels[6 * i + j];
                d[i] = from == nullptr ? Vec{} : whole ? load(from + c) : load_part(from + c, left);
            }
            to_points(d, half[j]);
        }
        for (int a = 0; a < 6; ++a) {
            const Vec row[6] = {half[0][a], half[1][a], half[2][a],
                                half[3][a], half[4][a], half[5][a]};
            Vec v[6];
            to_points(row, v);
            for (int b = 0; b < 6; ++b) {
                float* place = to + (6 * a + b) * stride + c;
                if (whole)
                    store(place, v[b]);
                else
                    store_part(place, v[b], left);
            }
        }
    }
}

void filter_out(const float* from, std::ptrdiff_t stride, int channels, float* const* pixels) {
    for (int c = 0; c < channels; c += kLanes) {
        const std::size_t left = static_cast<std::size_t>(channels - c);
        const bool whole = channels - c >= kLanes;
        Vec half[6][4];  // [column of places][row of the result]
        for (int b = 0; b < 6; ++b) {
            Vec m[6];
            for (int a = 0; a < 6; ++a) {
                const float* place = from + (6 * a + b) * stride + c;
                m[a] = whole ? load(place) : load_part(place, left);
            }
            from_points(m, half[b]);
        }
        for (int i = 0; i < 4; ++i) {
            const Vec row[6] = {half[0][i], half[1][i], half[2][i],
                                half[3][i], half[4][i], half[5][i]};
            Vec y[4];
            from_points(row, y);
            for (int j = 0; j < 4; ++j) {
                float* to = pixels[4 * i + j];
                if (to == nullptr) continue;
                if (whole)
                    store(to + c, y[j]);
                else
                    store_part(to + c, y[j], left);
            }
        }
    }
}

}  // namespace
}  // namespace samrt::ops
