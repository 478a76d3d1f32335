// Vectors of floats of one instruction set, and the functions of one variable made of them.
// Included once per instruction set, with SAMRT_LANES defined; everything is local to that file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#ifdef SAMRT_AVX512
#include <immintrin.h>
#endif

namespace samrt::ops {
namespace {

constexpr int kLanes = SAMRT_LANES;
typedef float Vec __attribute__((vector_size(4 * SAMRT_LANES)));
typedef std::int32_t IntVec __attribute__((vector_size(4 * SAMRT_LANES)));
typedef float LooseVec __attribute__((vector_size(4 * SAMRT_LANES), aligned(4), may_alias));

#define SAMRT_INLINE inline __attribute__((always_inline))

SAMRT_INLINE Vec load(const float* from) { return *reinterpret_cast<const LooseVec*>(from); }
SAMRT_INLINE void store(float* to, Vec value) { *reinterpret_cast<LooseVec*>(to) = value; }
SAMRT_INLINE Vec spread(float value) { return Vec{} + value; }

// The first n < kLanes floats; the others are zero.
inline Vec load_part(const float* from, std::size_t n) {
#ifdef SAMRT_AVX512
    return (Vec)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), from);
#else
    float lanes[kLanes] = {};
    std::memcpy(lanes, from, n * sizeof(float));
    return load(lanes);
#endif
}

inline void store_part(float* to, Vec value, std::size_t n) {
#ifdef SAMRT_AVX512
    _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << n) - 1), (__m512)value);
#else
    float lanes[kLanes];
    store(lanes, value);
    std::memcpy(to, lanes, n * sizeof(float));
#endif
}

// sum + the products of four unsigned with four signed bytes in every lane.
SAMRT_INLINE IntVec dot4(IntVec sum, IntVec a, IntVec b) {
#ifdef SAMRT_VNNI
    return (IntVec)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
#else
    for (int shift = 0; shift < 32; shift += 8)
        sum += ((a >> shift) & 255) * ((b << (24 - shift)) >> 24);
    return sum;
#endif
}

SAMRT_INLINE Vec larger(Vec a, Vec b) { return a > b ? a : b; }
SAMRT_INLINE Vec smaller(Vec a, Vec b) { return a < b ? a : b; }

inline float sum_of(Vec value) {
#ifdef SAMRT_AVX512
    return _mm512_reduce_add_ps((__m512)value);
#else
    float lanes[kLanes], sum = 0;
    store(lanes, value);
    for (int half = kLanes / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    sum = lanes[0];
    return sum;
#endif
}

inline float largest_of(Vec value) {
#ifdef SAMRT_AVX512
    return _mm512_reduce_max_ps((__m512)value);
#else
    float lanes[kLanes];
    store(lanes, value);
    float best = lanes[0];
    for (int i = 1; i < kLanes; ++i) best = lanes[i] > best ? lanes[i] : best;
    return best;
#endif
}

// e^x for x <= 0, to 1 or 2 units in the last place; 1.6e-38 below -87.
// x = n ln 2 + r with |r| <= ln 2 / 2; e^r by a least-squares polynomial (relative error 8e-8).
SAMRT_INLINE Vec exp_negative(Vec x) {
    const Vec clipped = larger(x, spread(-87.0f));
    const Vec magic = spread(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
    const Vec shifted = clipped * 1.44269504f + magic;
    const Vec n = shifted - magic;
    Vec r = clipped - n * 0.693359375f;  // ln 2 in two parts
    r = r + n * 2.12194440e-4f;
    Vec p = spread(0.008291716684956582f);
    p = p * r + 0.04191502854161544f;
    p = p * r + 0.16667662837726416f;
    p = p * r + 0.4999889907580325f;
    p = p * r + 0.9999996661619811f;
    p = p * r + 1.0000000710296995f;
    const IntVec power = (reinterpret_cast<IntVec>(shifted) + 127) << 23;  // low bits of the sum: n
    return p * reinterpret_cast<Vec>(power);
}

// erf(z), absolute error below 4e-7: |z| is cut at 3.9, where erf is 1 - 3.5e-8, and below that
// erf(z) = z p(2 z^2 / 3.9^2 - 1); p is a weighted least-squares fit (error 8e-8 before rounding).
SAMRT_INLINE Vec erf_of(Vec z) {
    constexpr float kCoefficients[] = {
        -4.042371798e-03f, 2.963508852e-03f, -3.480449432e-03f, 1.224499792e-02f, -2.215076825e-02f,
        2.996524144e-02f, -4.178606187e-02f, 5.764327889e-02f, -7.399717582e-02f, 9.070913255e-02f,
        -1.095157838e-01f, 1.346889188e-01f, -1.810114923e-01f, 3.625839918e-01f,
    };
    const Vec cut = smaller(larger(z, spread(-3.9f)), spread(3.9f));
    const Vec t = cut * cut * (2.0f / (3.9f * 3.9f)) - 1.0f;
    Vec p = spread(1.595301886e-03f);
#pragma GCC unroll 16
    for (const float coefficient : kCoefficients) p = p * t + coefficient;
    return cut * p;
}

SAMRT_INLINE Vec gelu_of(Vec x) {
    return x * (erf_of(x * 0.70710678f) * 0.5f + 0.5f);
}

}  // namespace
}  // namespace samrt::ops
