// Inner loops for AArch64, where every processor has NEON: the ones that the compiler does not
// vectorise by itself. The rest of the table is the baseline's.
#include "rows_tables.hpp"

#ifdef __aarch64__

#include <arm_neon.h>

#include <cstring>

namespace samrt {
namespace {

// Four bytes, of which three are a pixel, as 32-bit integers.
inline int32x4_t load_pixel(const std::uint8_t* from) {
    std::uint32_t bytes;
    std::memcpy(&bytes, from, sizeof bytes);
    const uint16x8_t wide = vmovl_u8(vcreate_u8(bytes));
    return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(wide)));
}

inline void store_pixel(std::uint8_t* to, int32x4_t sum) {
    const uint16x4_t words = vqmovun_s32(vshrq_n_s32(sum, kFractionBits));
    const uint8x8_t bytes = vqmovn_u16(vcombine_u16(words, words));
    const std::uint32_t pixel = vget_lane_u32(vreinterpret_u32_u8(bytes), 0);
    std::memcpy(to, &pixel, sizeof pixel);
}

// One output pixel at a time, four rows together so that each weight is loaded once.
void resample_x_rgb(const FixedTaps& taps, const std::uint8_t* const* source, int rows,
                    std::uint8_t* const* target) {
    const std::uint8_t* from[kRowsAtOnce];
    std::uint8_t* to[kRowsAtOnce];
    for (int r = 0; r < kRowsAtOnce; ++r) {  // missing rows repeat the last one
        from[r] = source[r < rows ? r : rows - 1];
        to[r] = target[r < rows ? r : rows - 1];
    }
    const int32x4_t half = vdupq_n_s32(1 << (kFractionBits - 1));
    const std::int32_t* weight = taps.weight.data();
    for (int i = 0; i < taps.out_size; ++i, weight += taps.width) {
        const auto out = static_cast<std::size_t>(i);
        std::size_t at = static_cast<std::size_t>(taps.first[out]) * 3;
        int32x4_t sum[kRowsAtOnce] = {half, half, half, half};
        const int count = taps.count[out];
        for (int k = 0; k < count; ++k, at += 3)
            for (int r = 0; r < kRowsAtOnce; ++r)
                sum[r] = vmlaq_n_s32(sum[r], load_pixel(from[r] + at), weight[k]);
        for (int r = 0; r < kRowsAtOnce; ++r) store_pixel(to[r] + out * 3, sum[r]);
    }
}

void resample_x_neon(const FixedTaps& taps, int channels, const std::uint8_t* const* source,
                     int rows, std::uint8_t* const* target) {
    if (channels == 3)
        resample_x_rgb(taps, source, rows, target);
    else
        baseline_rows().resample_x(taps, channels, source, rows, target);
}

inline void store_normalized(uint16x4_t words, const Norm& norm, float* target) {
    const float32x4_t value = vcvtq_f32_u32(vmovl_u16(words));
    const float32x4_t centred =
        vsubq_f32(vmulq_n_f32(value, norm.scale), vdupq_n_f32(norm.mean));
    vst1q_f32(target, vdivq_f32(centred, vdupq_n_f32(norm.std)));
}

void normalize_rgb_neon(const std::uint8_t* source, std::size_t n, const Norm* norm,
                        float* const* target) {
    std::size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const uint8x8x3_t pixels = vld3_u8(source + 3 * i);
        for (int c = 0; c < 3; ++c) {
            const uint16x8_t words = vmovl_u8(pixels.val[c]);
            store_normalized(vget_low_u16(words), norm[c], target[c] + i);
            store_normalized(vget_high_u16(words), norm[c], target[c] + i + 4);
        }
    }
    float* const rest[3] = {target[0] + i, target[1] + i, target[2] + i};
    baseline_rows().normalize_rgb(source + 3 * i, n - i, norm, rest);
}

RowKernels make_table() {
    RowKernels table = baseline_rows();
    table.name = "neon";
    table.resample_x = resample_x_neon;
    table.normalize_rgb = normalize_rgb_neon;
    return table;
}

}  // namespace

const RowKernels& neon_rows() {
    static const RowKernels table = make_table();
    return table;
}

}  // namespace samrt

#endif  // __aarch64__
