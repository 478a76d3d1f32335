// Inner loops for x86-64 processors with AVX2 and F16C. Compiled into every x86-64 build and used
// only where the processor has them. Standard headers come before the target region, so that no
// inline function of theirs is ever compiled for AVX2 and then shared with the rest.
#include "rows_tables.hpp"

#ifdef SAMRT_X86_64

#include <cpuid.h>
#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace samrt {

bool avx2_usable() {
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2")) return false;  // also asks that the system saves registers
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

}  // namespace samrt

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,f16c")
#pragma GCC diagnostic ignored "-Wpsabi"
#endif

namespace samrt {
namespace {
#include "rows_generic.hpp"
#include "rows_avx2_bytes.hpp"
#include "rows_avx2_floats.hpp"
}  // namespace

const RowKernels& avx2_rows() {
    static const RowKernels table = {
        "avx2",
        kGreyGroup,
        kRgbGroup,
        resample_x_avx2,
        resample_y_avx2,
        normalize_grey_avx2,
        normalize_rgb_avx2,
        normalize_float_plain,
        normalize_float_rgb_plain,
        float_to_half_avx2,
        float_to_byte_avx2,
        byte_range_plain,
        interleave_avx2,
        deinterleave_avx2,
        resample_block,
        resample_block_fused,
        stencil_block,
        range_block,
        blend_plain,
        blend_fused_plain,
        blend_above_avx2,
        blend_levels_plain,
        float_range_avx2,
        spline_block,
    };
    return table;
}

}  // namespace samrt

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif  // SAMRT_X86_64
