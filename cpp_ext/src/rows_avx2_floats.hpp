// AVX2 loops that make or read floats; part of rows_avx2.cpp.

struct Norm8 {
    __m256 mean, std, scale;
    explicit Norm8(const Norm& norm)
        : mean(_mm256_set1_ps(norm.mean)),
          std(_mm256_set1_ps(norm.std)),
          scale(_mm256_set1_ps(norm.scale)) {}
    // The low eight bytes of `bytes` as normalised floats.
    __m256 operator()(__m128i bytes) const {
        const __m256 value = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
        return _mm256_div_ps(_mm256_sub_ps(_mm256_mul_ps(value, scale), mean), std);
    }
};

inline void store_normalized(__m128i bytes, const Norm8& norm, float* target) {
    _mm256_storeu_ps(target, norm(bytes));
    _mm256_storeu_ps(target + 8, norm(_mm_srli_si128(bytes, 8)));
}

void normalize_grey_avx2(const std::uint8_t* source, std::size_t n, const Norm& norm,
                         float* target) {
    const Norm8 by(norm);
    std::size_t i = 0;
    for (; i + 16 <= n; i += 16)
        store_normalized(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source + i)), by,
                         target + i);
    normalize_grey_plain(source + i, n - i, norm, target + i);
}

void normalize_rgb_avx2(const std::uint8_t* source, std::size_t n, const Norm* norm,
                        float* const* target) {
    const Norm8 by[3] = {Norm8(norm[0]), Norm8(norm[1]), Norm8(norm[2])};
    // Where the 16 samples of each channel lie in the three 16-byte parts of 16 pixels.
    const __m128i from[3][3] = {
        {_mm_setr_epi8(0, 3, 6, 9, 12, 15, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1),
         _mm_setr_epi8(-1, -1, -1, -1, -1, -1, 2, 5, 8, 11, 14, -1, -1, -1, -1, -1),
         _mm_setr_epi8(-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 1, 4, 7, 10, 13)},
        {_mm_setr_epi8(1, 4, 7, 10, 13, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1),
         _mm_setr_epi8(-1, -1, -1, -1, -1, 0, 3, 6, 9, 12, 15, -1, -1, -1, -1, -1),
         _mm_setr_epi8(-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 2, 5, 8, 11, 14)},
        {_mm_setr_epi8(2, 5, 8, 11, 14, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1),
         _mm_setr_epi8(-1, -1, -1, -1, -1, 1, 4, 7, 10, 13, -1, -1, -1, -1, -1, -1),
         _mm_setr_epi8(-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 3, 6, 9, 12, 15)}};
    std::size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const __m128i* part = reinterpret_cast<const __m128i*>(source + 3 * i);
        const __m128i a = _mm_loadu_si128(part), b = _mm_loadu_si128(part + 1),
                      c = _mm_loadu_si128(part + 2);
        for (int channel = 0; channel < 3; ++channel) {
            const __m128i samples = _mm_or_si128(
                _mm_or_si128(_mm_shuffle_epi8(a, from[channel][0]),
                             _mm_shuffle_epi8(b, from[channel][1])),
                _mm_shuffle_epi8(c, from[channel][2]));
            store_normalized(samples, by[channel], target[channel] + i);
        }
    }
    float* const rest[3] = {target[0] + i, target[1] + i, target[2] + i};
    normalize_rgb_plain(source + 3 * i, n - i, norm, rest);
}

void float_to_half_avx2(const float* source, std::size_t n, std::uint16_t* target) {
    std::size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128(reinterpret_cast<__m128i*>(target + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(source + i), _MM_FROUND_TO_NEAREST_INT));
    float_to_half_plain(source + i, n - i, target + i);
}

void float_to_byte_avx2(const float* source, std::size_t n, std::uint8_t* target) {
    const __m256 top = _mm256_set1_ps(255.0f), zero = _mm256_setzero_ps();
    std::size_t i = 0;
    for (; i + 8 <= n; i += 8) {  // max(x, 0) is 0 for NaN, as in the plain version
        const __m256 value =
            _mm256_min_ps(_mm256_max_ps(_mm256_loadu_ps(source + i), zero), top);
        const __m256i whole = _mm256_cvtps_epi32(value);
        const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(whole),
                                               _mm256_extracti128_si256(whole, 1));
        _mm_storel_epi64(reinterpret_cast<__m128i*>(target + i), _mm_packus_epi16(words, words));
    }
    float_to_byte_plain(source + i, n - i, target + i);
}

// In place: eight rows of eight become eight columns of eight.
inline void transpose8(__m256 v[8]) {
    __m256 t[8], u[8];
    for (int k = 0; k < 4; ++k) {
        t[2 * k] = _mm256_unpacklo_ps(v[2 * k], v[2 * k + 1]);
        t[2 * k + 1] = _mm256_unpackhi_ps(v[2 * k], v[2 * k + 1]);
    }
    for (int k = 0; k < 8; k += 4) {
        u[k] = _mm256_shuffle_ps(t[k], t[k + 2], 0x44);
        u[k + 1] = _mm256_shuffle_ps(t[k], t[k + 2], 0xee);
        u[k + 2] = _mm256_shuffle_ps(t[k + 1], t[k + 3], 0x44);
        u[k + 3] = _mm256_shuffle_ps(t[k + 1], t[k + 3], 0xee);
    }
    for (int k = 0; k < 4; ++k) {
        v[k] = _mm256_permute2f128_ps(u[k], u[k + 4], 0x20);
        v[k + 4] = _mm256_permute2f128_ps(u[k], u[k + 4], 0x31);
    }
}

void interleave_avx2(const float* const* rows, std::size_t n, float* block) {
    std::size_t i = 0;
    __m256 v[8];
    for (; i + 8 <= n; i += 8) {
        for (int r = 0; r < 8; ++r) v[r] = _mm256_loadu_ps(rows[r] + i);
        transpose8(v);
        for (std::size_t k = 0; k < 8; ++k) _mm256_storeu_ps(block + 8 * (i + k), v[k]);
    }
    const float* rest[8];
    for (int r = 0; r < 8; ++r) rest[r] = rows[r] + i;
    interleave_plain(rest, n - i, block + 8 * i);
}

void deinterleave_avx2(const float* block, std::size_t n, float* const* rows) {
    std::size_t i = 0;
    __m256 v[8];
    for (; i + 8 <= n; i += 8) {
        for (std::size_t k = 0; k < 8; ++k) v[k] = _mm256_loadu_ps(block + 8 * (i + k));
        transpose8(v);
        for (int r = 0; r < 8; ++r) _mm256_storeu_ps(rows[r] + i, v[r]);
    }
    float* rest[8];
    for (int r = 0; r < 8; ++r) rest[r] = rows[r] + i;
    deinterleave_plain(block + 8 * i, n - i, rest);
}

template <int N>
inline __m256 weighted_sum(const float* const* rows, const __m256* weight, std::size_t i) {
    __m256 sum = _mm256_mul_ps(weight[0], _mm256_loadu_ps(rows[0] + i));
    for (int k = 1; k < N; ++k)
        sum = _mm256_add_ps(sum, _mm256_mul_ps(weight[k], _mm256_loadu_ps(rows[k] + i)));
    return sum;
}

template <int N>
void blend_above_rows(const float* const* rows, const float* weight, std::size_t n,
                      float threshold, std::uint8_t* target) {
    const __m256 limit = _mm256_set1_ps(threshold);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i one = _mm256_set1_epi8(1);
    __m256 w[N];
    for (int k = 0; k < N; ++k) w[k] = _mm256_set1_ps(weight[k]);
    const auto above = [&](std::size_t at) {
        return _mm256_castps_si256(
            _mm256_cmp_ps(weighted_sum<N>(rows, w, at), limit, _CMP_GT_OQ));
    };
    std::size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        const __m256i words = _mm256_packs_epi32(above(i), above(i + 8));
        const __m256i more = _mm256_packs_epi32(above(i + 16), above(i + 24));
        const __m256i bytes =
            _mm256_permutevar8x32_epi32(_mm256_packs_epi16(words, more), order);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(target + i), _mm256_and_si256(bytes, one));
    }
    const float* rest[N];
    for (int k = 0; k < N; ++k) rest[k] = rows[k] + i;
    if (i < n) blend_above_plain(rest, weight, N, n - i, threshold, target + i);
}

void blend_above_avx2(const float* const* rows, const float* weight, int taps, std::size_t n,
                      float threshold, std::uint8_t* target) {
    switch (taps) {
        case 1: return blend_above_rows<1>(rows, weight, n, threshold, target);
        case 2: return blend_above_rows<2>(rows, weight, n, threshold, target);
        case 3: return blend_above_rows<3>(rows, weight, n, threshold, target);
        default: return blend_above_rows<4>(rows, weight, n, threshold, target);
    }
}

void float_range_avx2(const float* source, std::size_t n, float* low, float* high) {
    if (n < 8) return float_range_plain(source, n, low, high);
    __m256 smallest = _mm256_loadu_ps(source), largest = smallest;
    for (std::size_t i = 8; i + 8 <= n; i += 8) {
        const __m256 value = _mm256_loadu_ps(source + i);
        smallest = _mm256_min_ps(smallest, value);
        largest = _mm256_max_ps(largest, value);
    }
    const __m256 last = _mm256_loadu_ps(source + n - 8);  // overlaps: harmless for a range
    float lows[8], highs[8], unused;
    _mm256_storeu_ps(lows, _mm256_min_ps(smallest, last));
    _mm256_storeu_ps(highs, _mm256_max_ps(largest, last));
    float_range_plain(lows, 8, low, &unused);
    float_range_plain(highs, 8, &unused, high);
}
