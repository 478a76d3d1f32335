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
// Taking zero away changes no number, so this is a load; adding zero would change -0.
SAMRT_INLINE Vec spread(float value) { return value - Vec{}; }

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

// The same, the others are `rest`.
inline Vec load_part_or(const float* from, std::size_t n, float rest) {
#ifdef SAMRT_AVX512
    return (Vec)_mm512_mask_loadu_ps(_mm512_set1_ps(rest), static_cast<__mmask16>((1u << n) - 1),
                                     from);
#else
    float lanes[kLanes];
    for (float& lane : lanes) lane = rest;
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

#ifndef SAMRT_AVX512
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
#endif

#ifdef SAMRT_AVX512
// x/2 + |x| g(|x|) with g(a) = erf(a / sqrt(2)) / 2: polynomials on 16 pieces of width 1 / 2.767857,
// the coefficients looked up by a permutation (least-squares fits; g is off by less than 3e-8).
// Half the instructions of the one polynomial below, and the lookups leave the multipliers free.
SAMRT_INLINE Vec gelu_of(Vec x) {
    alignas(64) static constexpr float kPieces[6][16] = {
        {1.17059001e-11f, 1.41058788e-01f, 2.65031218e-01f, 3.60789001e-01f, 4.25793707e-01f,
         4.64576095e-01f, 4.84910846e-01f, 4.94281113e-01f, 4.98075753e-01f, 4.99426246e-01f,
         4.99848604e-01f, 4.99964684e-01f, 4.99992728e-01f, 4.99998689e-01f, 4.99999791e-01f,
         4.99999970e-01f},
        {1.44133985e-01f, 1.35027438e-01f, 1.11016840e-01f, 8.01063552e-02f, 5.07290028e-02f,
         2.81940121e-02f, 1.37520889e-02f, 5.88696869e-03f, 2.21169880e-03f, 7.29241758e-04f,
         2.11022329e-04f, 5.35915860e-05f, 1.19447286e-05f, 2.33650917e-06f, 4.01116409e-07f,
         6.04345445e-08f},
        {3.67407225e-08f, -8.81241262e-03f, -1.44908652e-02f, -1.56843867e-02f, -1.32434163e-02f,
         -9.20056645e-03f, -5.38529782e-03f, -2.68954178e-03f, -1.15477620e-03f, -4.28333064e-04f,
         -1.37711875e-04f, -3.84675514e-05f, -9.35208482e-06f, -1.98146836e-06f, -3.66248401e-07f,
         -5.91052149e-08f},
        {-3.13594565e-03f, -2.55406834e-03f, -1.15417363e-03f, 3.04550544e-04f, 1.20124780e-03f,
         1.38820207e-03f, 1.10670214e-03f, 6.91086578e-04f, 3.53847165e-04f, 1.51873566e-04f,
         5.53321916e-05f, 1.72472792e-05f, 4.62392427e-06f, 1.07023197e-06f, 2.14448320e-07f,
         3.72783724e-08f},
        {1.00928560e-06f, 2.72931560e-04f, 3.88007058e-04f, 3.10112053e-04f, 1.31660956e-04f,
         -2.52124319e-05f, -9.85847873e-05f, -9.89656546e-05f, -6.72761235e-05f, -3.54446856e-05f,
         -1.51944887e-05f, -5.42732414e-06f, -1.63748621e-06f, -4.20950755e-07f, -9.27507244e-08f,
         -1.75905779e-08f},
        {6.00473068e-05f, 4.25836297e-05f, 2.30155888e-06f, -3.00627980e-05f, -3.70108392e-05f,
         -2.37036838e-05f, -6.16028092e-06f, 4.53497751e-06f, 7.07347135e-06f, 5.31196292e-06f,
         2.85806141e-06f, 1.20914774e-06f, 4.18031732e-07f, 1.20523026e-07f, 2.93345206e-08f,
         6.07635142e-09f},
    };
    const __m512 size = _mm512_abs_ps((__m512)x), magic = _mm512_set1_ps(12582912.0f);
    const __m512 cut = _mm512_min_ps(size, _mm512_set1_ps(5.59f));  // g is 1/2 from here on
    const __m512 wide = _mm512_set1_ps(15.5f / 5.6f);
    const __m512 shifted = _mm512_fmadd_ps(cut, wide, magic);  // its low bits: the piece
    const __m512 r = _mm512_fmsub_ps(cut, wide, _mm512_sub_ps(shifted, magic));
    const __m512i piece = _mm512_castps_si512(shifted);
    __m512 g = _mm512_permutexvar_ps(piece, _mm512_load_ps(kPieces[5]));
#pragma GCC unroll 5
    for (int power = 4; power >= 0; --power)
        g = _mm512_fmadd_ps(g, r, _mm512_permutexvar_ps(piece, _mm512_load_ps(kPieces[power])));
    return (Vec)_mm512_fmadd_ps(size, g, _mm512_mul_ps((__m512)x, _mm512_set1_ps(0.5f)));
}
#else
SAMRT_INLINE Vec gelu_of(Vec x) {
    return x * (erf_of(x * 0.70710678f) * 0.5f + 0.5f);
}
#endif

}  // namespace
}  // namespace samrt::ops
