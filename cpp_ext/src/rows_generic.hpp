// Portable inner loops, written so that the compiler can vectorise them. Included once per
// instruction set, inside that set's own anonymous namespace and target region: for that reason
// this file includes nothing and calls no function template of the standard library.

// --- 8-bit resampling ---------------------------------------------------------------------

inline std::uint8_t clip_fixed(std::uint32_t sum) {
    const std::int32_t value = static_cast<std::int32_t>(sum) >> kFractionBits;
    return static_cast<std::uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

constexpr std::uint32_t kHalf = 1u << (kFractionBits - 1);

template <int Channels>
inline void resample_x_row(const FixedTaps& taps, const std::uint8_t* source,
                           std::uint8_t* target) {
    const std::int32_t* weight = taps.weight.data();
    for (int i = 0; i < taps.out_size; ++i, weight += taps.width) {
        const std::uint8_t* at = source + static_cast<std::size_t>(taps.first[i]) * Channels;
        const int count = taps.count[i];
        std::uint32_t sum[Channels];
        for (int c = 0; c < Channels; ++c) sum[c] = kHalf;
        for (int k = 0; k < count; ++k, at += Channels)
            for (int c = 0; c < Channels; ++c)
                sum[c] += static_cast<std::uint32_t>(weight[k] * static_cast<std::int32_t>(at[c]));
        for (int c = 0; c < Channels; ++c) *target++ = clip_fixed(sum[c]);
    }
}

inline void resample_x_plain(const FixedTaps& taps, int channels,
                             const std::uint8_t* const* source, int rows,
                             std::uint8_t* const* target) {
    for (int r = 0; r < rows; ++r) {
        if (channels == 3)
            resample_x_row<3>(taps, source[r], target[r]);
        else
            resample_x_row<1>(taps, source[r], target[r]);
    }
}

inline void resample_y_plain(const std::uint8_t* const* source, const std::int32_t* weight,
                             int taps, std::size_t n, std::uint8_t* target) {
    constexpr std::size_t kChunk = 256;
    std::uint32_t sum[kChunk];
    for (std::size_t from = 0; from < n; from += kChunk) {
        const std::size_t size = n - from < kChunk ? n - from : kChunk;
        for (std::size_t i = 0; i < size; ++i) sum[i] = kHalf;
        for (int k = 0; k < taps; ++k) {
            const std::uint8_t* row = source[k] + from;
            const std::uint32_t w = static_cast<std::uint32_t>(weight[k]);
            for (std::size_t i = 0; i < size; ++i) sum[i] += w * row[i];
        }
        for (std::size_t i = 0; i < size; ++i) target[from + i] = clip_fixed(sum[i]);
    }
}

// --- conversion ---------------------------------------------------------------------------

inline void normalize_grey_plain(const std::uint8_t* source, std::size_t n, const Norm& norm,
                                 float* target) {
    const float mean = norm.mean, std = norm.std, scale = norm.scale;
    for (std::size_t i = 0; i < n; ++i)
        target[i] = (static_cast<float>(source[i]) * scale - mean) / std;
}

inline void normalize_rgb_plain(const std::uint8_t* source, std::size_t n, const Norm* norm,
                                float* const* target) {
    for (int c = 0; c < 3; ++c) {
        const float mean = norm[c].mean, std = norm[c].std, scale = norm[c].scale;
        float* to = target[c];
        for (std::size_t i = 0; i < n; ++i)
            to[i] = (static_cast<float>(source[3 * i + static_cast<std::size_t>(c)]) * scale -
                     mean) / std;
    }
}

inline void normalize_float_plain(const float* source, std::size_t n, const Norm& norm,
                                  float* target) {
    const float mean = norm.mean, std = norm.std, scale = norm.scale;
    for (std::size_t i = 0; i < n; ++i) target[i] = (source[i] * scale - mean) / std;
}

inline void normalize_float_rgb_plain(const float* source, std::size_t n, const Norm* norm,
                                      float* const* target) {
    for (int c = 0; c < 3; ++c) {
        const float mean = norm[c].mean, std = norm[c].std, scale = norm[c].scale;
        float* to = target[c];
        for (std::size_t i = 0; i < n; ++i)
            to[i] = (source[3 * i + static_cast<std::size_t>(c)] * scale - mean) / std;
    }
}

// IEEE half from float, round to nearest even; overflow gives infinity, NaN stays a quiet NaN.
inline std::uint16_t half_bits(float value) {
    std::uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    const std::uint32_t sign = (bits >> 16) & 0x8000u;
    const std::uint32_t size = bits & 0x7fffffffu;
    if (size > 0x7f800000u)
        return static_cast<std::uint16_t>(sign | 0x7e00u | ((size >> 13) & 0x3ffu));
    if (size >= 0x47800000u) return static_cast<std::uint16_t>(sign | 0x7c00u);
    if (size < 0x38800000u) {  // subnormal half: let a float addition do the rounding
        float magnitude;
        __builtin_memcpy(&magnitude, &size, sizeof magnitude);
        const float shifted = magnitude + 0.5f;
        std::uint32_t rounded;
        __builtin_memcpy(&rounded, &shifted, sizeof rounded);
        return static_cast<std::uint16_t>(sign | (rounded - 0x3f000000u));
    }
    const std::uint32_t rounded = size - 0x38000000u + 0xfffu + ((size >> 13) & 1u);
    return static_cast<std::uint16_t>(sign | (rounded >> 13));
}

inline void float_to_half_plain(const float* source, std::size_t n, std::uint16_t* target) {
    for (std::size_t i = 0; i < n; ++i) target[i] = half_bits(source[i]);
}

inline void float_to_byte_plain(const float* source, std::size_t n, std::uint8_t* target) {
    constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    for (std::size_t i = 0; i < n; ++i) {
        float value = source[i];
        value = value > 0.0f ? value : 0.0f;
        value = value < 255.0f ? value : 255.0f;
        target[i] = static_cast<std::uint8_t>(
            static_cast<std::int32_t>((value + kRounder) - kRounder));
    }
}

inline void byte_range_plain(const std::uint8_t* source, std::size_t n, std::uint8_t* low,
                             std::uint8_t* high) {
    std::uint8_t smallest = *low, largest = *high;
    for (std::size_t i = 0; i < n; ++i) {
        smallest = source[i] < smallest ? source[i] : smallest;
        largest = source[i] > largest ? source[i] : largest;
    }
    *low = smallest;
    *high = largest;
}

// --- float blocks of eight rows -----------------------------------------------------------

// Element i of all eight rows.
typedef float Column
    __attribute__((vector_size(kBlockRows * sizeof(float)), aligned(4), may_alias));

inline void interleave_plain(const float* const* rows, std::size_t n, float* block) {
    constexpr std::size_t kRows = kBlockRows;
    for (std::size_t i = 0; i < n; ++i)
        for (std::size_t r = 0; r < kRows; ++r) block[i * kRows + r] = rows[r][i];
}

inline void deinterleave_plain(const float* block, std::size_t n, float* const* rows) {
    constexpr std::size_t kRows = kBlockRows;
    for (std::size_t r = 0; r < kRows; ++r)
        for (std::size_t i = 0; i < n; ++i) rows[r][i] = block[i * kRows + r];
}

inline void resample_block(const FloatTaps& taps, int channels, const float* source,
                           float* target) {
    const std::size_t step = static_cast<std::size_t>(channels);
    const Column* from = reinterpret_cast<const Column*>(source);
    Column* to = reinterpret_cast<Column*>(target);
    const float* weight = taps.weight.data();
    for (int i = 0; i < taps.out_size; ++i, weight += taps.width) {
        const Column* pixel = from + static_cast<std::size_t>(taps.first[i]) * step;
        const int count = taps.count[i];
        for (std::size_t c = 0; c < step; ++c) {
            Column sum = pixel[c] * weight[0];
            for (int k = 1; k < count; ++k)
                sum += pixel[static_cast<std::size_t>(k) * step + c] * weight[k];
            *to++ = sum;
        }
    }
}

// A float product is exact in double precision, so rounding product and sum there and then to
// float fuses them on every machine, but for one sum in some 10^8 that lies halfway twice.
typedef double WideColumn
    __attribute__((vector_size(kBlockRows * sizeof(double)), aligned(8), may_alias));

inline Column add_fused(Column sum, Column sample, float weight) {
    const WideColumn wide = __builtin_convertvector(sample, WideColumn) *
                                static_cast<double>(weight) +
                            __builtin_convertvector(sum, WideColumn);
    return __builtin_convertvector(wide, Column);
}

inline void resample_block_fused(const FloatTaps& taps, int channels, const float* source,
                                 float* target) {
    const std::size_t step = static_cast<std::size_t>(channels);
    const Column* from = reinterpret_cast<const Column*>(source);
    Column* to = reinterpret_cast<Column*>(target);
    const float* weight = taps.weight.data();
    for (int i = 0; i < taps.out_size; ++i, weight += taps.width) {
        const int count = taps.count[i], last = taps.backwards ? count - 1 : 0;
        const Column* pixel = from + static_cast<std::size_t>(taps.first[i]) * step;
        for (std::size_t c = 0; c < step; ++c) {
            Column sum = pixel[static_cast<std::size_t>(last) * step + c] * weight[last];
            for (int k = 1; k < count; ++k) {
                const int tap = taps.backwards ? count - 1 - k : k;
                sum = add_fused(sum, pixel[static_cast<std::size_t>(tap) * step + c],
                                weight[tap]);
            }
            *to++ = sum;
        }
    }
}

template <int N>
inline void stencil_columns(const float* source, const std::int32_t* index, const float* weight,
                            std::size_t n, float* target) {
    const Column* from = reinterpret_cast<const Column*>(source);
    Column* to = reinterpret_cast<Column*>(target);
    for (std::size_t i = 0; i < n; ++i, index += kStencil, weight += kStencil) {
        Column sum = from[index[0]] * weight[0];
        for (int k = 1; k < N; ++k) sum += from[index[k]] * weight[k];
        to[i] = sum;
    }
}

inline void stencil_block(const float* source, const std::int32_t* index, const float* weight,
                          int taps, std::size_t n, float* target) {
    switch (taps) {
        case 1: return stencil_columns<1>(source, index, weight, n, target);
        case 2: return stencil_columns<2>(source, index, weight, n, target);
        case 3: return stencil_columns<3>(source, index, weight, n, target);
        default: return stencil_columns<4>(source, index, weight, n, target);
    }
}

inline void range_block(const float* source, std::size_t n, float* low, float* high) {
    const Column* from = reinterpret_cast<const Column*>(source);
    Column smallest = from[0], largest = from[0];
    for (std::size_t i = 1; i < n; ++i) {
        smallest = from[i] < smallest ? from[i] : smallest;
        largest = from[i] > largest ? from[i] : largest;
    }
    *reinterpret_cast<Column*>(low) = smallest;
    *reinterpret_cast<Column*>(high) = largest;
}

// --- blending rows ------------------------------------------------------------------------

inline void blend_plain(const float* const* rows, const float* weight, int taps, std::size_t n,
                        float* target) {
    if (taps == 2) {
        const float *a = rows[0], *b = rows[1];
        const float wa = weight[0], wb = weight[1];
        for (std::size_t i = 0; i < n; ++i) target[i] = wa * a[i] + wb * b[i];
        return;
    }
    const float w0 = weight[0];
    const float* first = rows[0];
    for (std::size_t i = 0; i < n; ++i) target[i] = w0 * first[i];
    for (int k = 1; k < taps; ++k) {
        const float w = weight[k];
        const float* row = rows[k];
        for (std::size_t i = 0; i < n; ++i) target[i] += w * row[i];
    }
}

inline void blend_fused_plain(const float* const* rows, const float* weight, int taps,
                              std::size_t n, float* target) {
    const float w0 = weight[0];
    const float* first = rows[0];
    for (std::size_t i = 0; i < n; ++i) target[i] = w0 * first[i];
    for (int k = 1; k < taps; ++k) {
        const double w = static_cast<double>(weight[k]);
        const float* row = rows[k];
        for (std::size_t i = 0; i < n; ++i)
            target[i] = static_cast<float>(w * static_cast<double>(row[i]) +
                                           static_cast<double>(target[i]));
    }
}

inline void blend_above_plain(const float* const* rows, const float* weight, int taps,
                              std::size_t n, float threshold, std::uint8_t* target) {
    constexpr std::size_t kChunk = 256;
    float sum[kChunk];
    const float* at[kStencil];
    for (std::size_t from = 0; from < n; from += kChunk) {
        const std::size_t size = n - from < kChunk ? n - from : kChunk;
        for (int k = 0; k < taps; ++k) at[k] = rows[k] + from;
        blend_plain(at, weight, taps, size, sum);
        for (std::size_t i = 0; i < size; ++i) target[from + i] = sum[i] > threshold;
    }
}

inline void blend_levels_plain(const float* const* rows, const float* weight, int taps,
                               std::size_t n, const float* levels, std::uint8_t* target,
                               std::int64_t* counts) {
    constexpr std::size_t kChunk = 256;
    float sum[kChunk];
    const float* at[kStencil];
    const float threshold = levels[0], inner = levels[1], outer = levels[2];
    for (std::size_t from = 0; from < n; from += kChunk) {
        const std::size_t size = n - from < kChunk ? n - from : kChunk;
        for (int k = 0; k < taps; ++k) at[k] = rows[k] + from;
        blend_plain(at, weight, taps, size, sum);
        std::int32_t above_inner = 0, above_outer = 0;
        for (std::size_t i = 0; i < size; ++i) {
            above_inner += sum[i] > inner;
            above_outer += sum[i] > outer;
        }
        for (std::size_t i = 0; i < size; ++i) target[from + i] = sum[i] > threshold;
        counts[0] += above_inner;
        counts[1] += above_outer;
    }
}

inline void float_range_plain(const float* source, std::size_t n, float* low, float* high) {
    float smallest = source[0], largest = source[0];
    for (std::size_t i = 1; i < n; ++i) {
        smallest = source[i] < smallest ? source[i] : smallest;
        largest = source[i] > largest ? source[i] : largest;
    }
    *low = smallest;
    *high = largest;
}

// --- cubic B-splines ----------------------------------------------------------------------

template <int Channels>
inline void spline_pixels(const WideColumn* source, std::size_t columns,
                          const std::int32_t* index, const double* weight, std::size_t n,
                          WideColumn* target) {
    for (std::size_t i = 0; i < n; ++i, index += kSpline, weight += kSpline) {
        WideColumn sum[Channels] = {};
        for (std::size_t a = 0; a < kSpline; ++a)
            for (int b = 0; b < kSpline; ++b) {
                const WideColumn* pixel =
                    source + (a * columns + static_cast<std::size_t>(index[b])) * Channels;
                for (int c = 0; c < Channels; ++c) sum[c] += pixel[c] * weight[b];
            }
        for (int c = 0; c < Channels; ++c) *target++ = sum[c];
    }
}

inline void spline_pixels_across(const WideColumn* source, std::size_t columns,
                                 const std::int32_t* index, const double* weight,
                                 const double* across, std::size_t n, WideColumn* target) {
    constexpr int kMirrored[3][kSpline] = {{1, 0, 1, 2}, {0, 1, 2, 1}, {1, 2, 1, 0}};
    for (std::size_t i = 0; i < n; ++i, index += kSpline, weight += kSpline) {
        WideColumn sum[3] = {};
        for (std::size_t a = 0; a < kSpline; ++a)
            for (int b = 0; b < kSpline; ++b) {
                const WideColumn* pixel =
                    source + (a * columns + static_cast<std::size_t>(index[b])) * 3;
                const WideColumn part[3] = {pixel[0] * weight[b], pixel[1] * weight[b],
                                            pixel[2] * weight[b]};
                for (int c = 0; c < 3; ++c)
                    for (int k = 0; k < kSpline; ++k)
                        sum[c] += part[kMirrored[c][k]] * across[k];
            }
        for (int c = 0; c < 3; ++c) *target++ = sum[c];
    }
}

inline void spline_block(const double* source, std::size_t columns, int channels,
                         const std::int32_t* index, const double* weight,
                         const double* across, std::size_t n, double* target) {
    const WideColumn* from = reinterpret_cast<const WideColumn*>(source);
    WideColumn* to = reinterpret_cast<WideColumn*>(target);
    if (across != nullptr) return spline_pixels_across(from, columns, index, weight, across, n, to);
    if (channels == 3) return spline_pixels<3>(from, columns, index, weight, n, to);
    spline_pixels<1>(from, columns, index, weight, n, to);
}
