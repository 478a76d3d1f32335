// AVX2 loops over 8-bit rows; part of rows_avx2.cpp.
//
// A 22-bit weight does not fit the 16-bit multiply-add of the processor. It is split as
// high * 2^15 + low, both parts are multiplied exactly, and the sums are joined at the end. All
// sums are taken modulo 2^32; the true one fits in 31 bits, so nothing is lost.

constexpr int kRgbGroup = 4;
constexpr int kGreyGroup = 8;
// Weights that are multiples of 2^kShortShift fit a byte; 1 is 64 there.
constexpr int kShortShift = kFractionBits - 6;

inline __m128i join128(__m128i low, __m128i high) {
    return _mm_add_epi32(low, _mm_slli_epi32(high, kLowBits));
}

inline void store_byte(std::uint8_t* to, int value) { *to = static_cast<std::uint8_t>(value); }

inline void store_pixel(std::uint8_t* to, int value) { std::memcpy(to, &value, 4); }

// Adds the halves of two sums and gives [first | second], rounded and shifted to 8 bits.
inline __m256i finish_pair(__m256i low0, __m256i high0, __m256i low1, __m256i high1) {
    const __m256i sum0 = _mm256_add_epi32(low0, _mm256_slli_epi32(high0, kLowBits));
    const __m256i sum1 = _mm256_add_epi32(low1, _mm256_slli_epi32(high1, kLowBits));
    const __m256i crossed = _mm256_permute2x128_si256(sum0, sum1, 0x21);
    const __m256i straight = _mm256_blend_epi32(sum0, sum1, 0xf0);
    return _mm256_srai_epi32(_mm256_add_epi32(crossed, straight), kFractionBits);
}

// Multiplies one group of taps of four rows into the sums; the first group starts them. `Coarse`
// says that all low parts are zero.
template <bool First, bool Coarse>
inline void add_rgb_group(const std::uint8_t* const* source, std::size_t at,
                          const std::int16_t* weight, __m256i* low, __m256i* high) {
    const __m256i spread = _mm256_setr_epi8(
        0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1,
        6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1);
    const __m256i pick_low = _mm256_setr_epi8(
        0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3,
        4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7);
    const __m256i pick_high = _mm256_setr_epi8(
        8, 9, 10, 11, 8, 9, 10, 11, 8, 9, 10, 11, 8, 9, 10, 11,
        12, 13, 14, 15, 12, 13, 14, 15, 12, 13, 14, 15, 12, 13, 14, 15);
    constexpr int once = static_cast<int>(kHalf);
    const __m256i half = _mm256_setr_epi32(once, once, once, once, 0, 0, 0, 0);
    const __m256i both = _mm256_broadcastsi128_si256(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(weight)));
    const __m256i weight_low = _mm256_shuffle_epi8(both, pick_low);
    const __m256i weight_high = _mm256_shuffle_epi8(both, pick_high);
    for (int r = 0; r < kRowsAtOnce; ++r) {
        const __m256i pixels = _mm256_shuffle_epi8(
            _mm256_broadcastsi128_si256(
                _mm_loadu_si128(reinterpret_cast<const __m128i*>(source[r] + at))),
            spread);
        const __m256i new_high = _mm256_madd_epi16(pixels, weight_high);
        if (First) low[r] = half;
        if (!Coarse) low[r] = _mm256_add_epi32(low[r], _mm256_madd_epi16(pixels, weight_low));
        high[r] = First ? new_high : _mm256_add_epi32(high[r], new_high);
    }
}

// One output pixel at a time, four rows together so that each weight is loaded once. Four taps
// of three channels make one 256-bit multiply-add. Groups is their number, 0 if not known here.
template <int Groups, bool Coarse = false>
void resample_x_rgb(const FixedTaps& taps, const std::uint8_t* const* source,
                    std::uint8_t* const* target) {
    const std::uint8_t* const from[kRowsAtOnce] = {source[0], source[1], source[2], source[3]};
    std::uint8_t* to[kRowsAtOnce] = {target[0], target[1], target[2], target[3]};
    const std::int16_t* weight = taps.split.data();
    const std::int32_t* first = taps.first.data();
    const int groups = Groups == 0 ? taps.groups : Groups;
    for (const std::int32_t* end = first + taps.out_size; first != end; ++first) {
        std::size_t at = static_cast<std::size_t>(*first) * 3;
        __m256i low[kRowsAtOnce], high[kRowsAtOnce];
        add_rgb_group<true, Coarse>(from, at, weight, low, high);
        for (int g = 1; g < groups; ++g) {
            at += 3 * kRgbGroup;
            add_rgb_group<false, Coarse>(from, at, weight + 2 * kRgbGroup * g, low, high);
        }
        weight += 2 * kRgbGroup * groups;
        // The bytes of rows 0 and 2 end in the lower half, those of 1 and 3 in the upper.
        const __m256i words = _mm256_packs_epi32(finish_pair(low[0], high[0], low[1], high[1]),
                                                 finish_pair(low[2], high[2], low[3], high[3]));
        const __m256i bytes = _mm256_packus_epi16(words, words);
        const __m128i even = _mm256_castsi256_si128(bytes);
        const __m128i odd = _mm256_extracti128_si256(bytes, 1);
        store_pixel(to[0], _mm_cvtsi128_si32(even));
        store_pixel(to[1], _mm_cvtsi128_si32(odd));
        store_pixel(to[2], _mm_extract_epi32(even, 1));
        store_pixel(to[3], _mm_extract_epi32(odd, 1));
        for (int r = 0; r < kRowsAtOnce; ++r) to[r] += 3;
    }
}

void resample_x_grey(const FixedTaps& taps, const std::uint8_t* const* source,
                     std::uint8_t* const* target) {
    const __m128i half = _mm_set1_epi32(static_cast<int>(kHalf));
    const std::int16_t* weight = taps.split.data();
    const int groups = taps.groups;
    for (int i = 0; i < taps.out_size; ++i) {
        std::size_t at = static_cast<std::size_t>(taps.first[i]);
        __m128i low[kRowsAtOnce], high[kRowsAtOnce];
        for (int r = 0; r < kRowsAtOnce; ++r) low[r] = high[r] = _mm_setzero_si128();
        for (int g = 0; g < groups; ++g, at += kGreyGroup, weight += 2 * kGreyGroup) {
            const __m128i weight_low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(weight));
            const __m128i weight_high =
                _mm_loadu_si128(reinterpret_cast<const __m128i*>(weight + kGreyGroup));
            for (int r = 0; r < kRowsAtOnce; ++r) {
                const __m128i samples = _mm_cvtepu8_epi16(
                    _mm_loadl_epi64(reinterpret_cast<const __m128i*>(source[r] + at)));
                low[r] = _mm_add_epi32(low[r], _mm_madd_epi16(samples, weight_low));
                high[r] = _mm_add_epi32(high[r], _mm_madd_epi16(samples, weight_high));
            }
        }
        const __m128i sum = _mm_hadd_epi32(
            _mm_hadd_epi32(join128(low[0], high[0]), join128(low[1], high[1])),
            _mm_hadd_epi32(join128(low[2], high[2]), join128(low[3], high[3])));
        const __m128i value = _mm_srai_epi32(_mm_add_epi32(sum, half), kFractionBits);
        const __m128i words = _mm_packs_epi32(value, value);
        const __m128i bytes = _mm_packus_epi16(words, words);
        store_byte(target[0] + i, _mm_extract_epi8(bytes, 0));
        store_byte(target[1] + i, _mm_extract_epi8(bytes, 1));
        store_byte(target[2] + i, _mm_extract_epi8(bytes, 2));
        store_byte(target[3] + i, _mm_extract_epi8(bytes, 3));
    }
}

void resample_x_avx2(const FixedTaps& taps, int channels, const std::uint8_t* const* source,
                     int rows, std::uint8_t* const* target) {
    const std::uint8_t* from[kRowsAtOnce];
    std::uint8_t* to[kRowsAtOnce];
    for (int r = 0; r < kRowsAtOnce; ++r) {  // missing rows repeat the last one
        from[r] = source[r < rows ? r : rows - 1];
        to[r] = target[r < rows ? r : rows - 1];
    }
    if (channels != 3) return resample_x_grey(taps, from, to);
    switch (taps.groups) {
        case 1:
            return taps.coarse ? resample_x_rgb<1, true>(taps, from, to)
                               : resample_x_rgb<1>(taps, from, to);
        case 2: return resample_x_rgb<2>(taps, from, to);
        case 3: return resample_x_rgb<3>(taps, from, to);
        default: return resample_x_rgb<0>(taps, from, to);
    }
}

inline __m256i join_and_shift(__m256i low, __m256i high) {
    const __m256i half = _mm256_set1_epi32(static_cast<int>(kHalf));
    const __m256i sum = _mm256_add_epi32(low, _mm256_slli_epi32(high, kLowBits));
    return _mm256_srai_epi32(_mm256_add_epi32(sum, half), kFractionBits);
}

inline __m256i weight_pair(std::int16_t a, std::int16_t b) {
    const std::uint32_t low = static_cast<std::uint16_t>(a), high = static_cast<std::uint16_t>(b);
    return _mm256_set1_epi32(static_cast<int>(low | high << 16));
}

inline __m256i load_bytes(const std::uint8_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}

// Weights with so few bits that 16-bit sums hold everything: those of sizes that grow by a power
// of two.
inline bool few_bits(const std::int32_t* weight, int taps) {
    constexpr std::int32_t unit = 1 << kShortShift;
    std::int32_t total = 0;
    for (int k = 0; k < taps; ++k) {
        if (weight[k] % unit != 0 || weight[k] / unit > 127 || weight[k] / unit < -127)
            return false;
        total += std::abs(weight[k] / unit);
    }
    return total <= 128;  // 128 * 255 < 2^15
}

// Does whole blocks of 32 samples with weights that are `few_bits`; returns how many samples.
std::size_t resample_y_short(const std::uint8_t* const* source, const std::int32_t* weight,
                             int taps, std::size_t n, std::uint8_t* target) {
    constexpr int shift = kFractionBits - kShortShift;
    const __m256i half = _mm256_set1_epi16(1 << (shift - 1));
    std::size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256i low = half, high = half;
        for (int k = 0; k < taps; k += 2) {
            const bool pair = k + 1 < taps;
            const int first = weight[k] / (1 << kShortShift);
            const int second = pair ? weight[k + 1] / (1 << kShortShift) : 0;
            const __m256i weights =
                _mm256_set1_epi16(static_cast<std::int16_t>((first & 0xff) | second * 256));
            const __m256i a = load_bytes(source[k] + i);
            const __m256i b = load_bytes(source[pair ? k + 1 : k] + i);
            low = _mm256_add_epi16(
                low, _mm256_maddubs_epi16(_mm256_unpacklo_epi8(a, b), weights));
            high = _mm256_add_epi16(
                high, _mm256_maddubs_epi16(_mm256_unpackhi_epi8(a, b), weights));
        }
        const __m256i bytes =
            _mm256_packus_epi16(_mm256_srai_epi16(low, shift), _mm256_srai_epi16(high, shift));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(target + i), bytes);
    }
    return i;
}

void resample_y_avx2(const std::uint8_t* const* source, const std::int32_t* weight, int taps,
                     std::size_t n, std::uint8_t* target) {
    if (taps == 1 && weight[0] == 1 << kFractionBits) {
        std::memcpy(target, source[0], n);
        return;
    }
    const __m256i zero = _mm256_setzero_si256();
    std::size_t i = few_bits(weight, taps) ? resample_y_short(source, weight, taps, n, target) : 0;
    for (; i + 32 <= n; i += 32) {
        __m256i low[4] = {zero, zero, zero, zero}, high[4] = {zero, zero, zero, zero};
        for (int k = 0; k < taps; k += 2) {
            const bool pair = k + 1 < taps;
            const std::int32_t first = weight[k], second = pair ? weight[k + 1] : 0;
            const __m256i weight_low = weight_pair(low_part(first), low_part(second));
            const __m256i weight_high = weight_pair(high_part(first), high_part(second));
            const __m256i a = load_bytes(source[k] + i);
            const __m256i b = load_bytes(source[pair ? k + 1 : k] + i);
            const __m256i ab_low = _mm256_unpacklo_epi8(a, b), ab_high = _mm256_unpackhi_epi8(a, b);
            const __m256i samples[4] = {
                _mm256_unpacklo_epi8(ab_low, zero), _mm256_unpackhi_epi8(ab_low, zero),
                _mm256_unpacklo_epi8(ab_high, zero), _mm256_unpackhi_epi8(ab_high, zero)};
            for (int part = 0; part < 4; ++part) {
                low[part] =
                    _mm256_add_epi32(low[part], _mm256_madd_epi16(samples[part], weight_low));
                high[part] =
                    _mm256_add_epi32(high[part], _mm256_madd_epi16(samples[part], weight_high));
            }
        }
        const __m256i bytes = _mm256_packus_epi16(
            _mm256_packs_epi32(join_and_shift(low[0], high[0]), join_and_shift(low[1], high[1])),
            _mm256_packs_epi32(join_and_shift(low[2], high[2]), join_and_shift(low[3], high[3])));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(target + i), bytes);
    }
    for (; i < n; ++i) {
        std::uint32_t sum = kHalf;
        for (int k = 0; k < taps; ++k)
            sum += static_cast<std::uint32_t>(weight[k] * static_cast<std::int32_t>(source[k][i]));
        target[i] = clip_fixed(sum);
    }
}
