// Inner loops for the machine the wheel was built for: SSE2 on x86-64, NEON on AArch64, as far as
// the compiler uses them.
#include <cstddef>
#include <cstdint>

#include "rows_tables.hpp"

#pragma GCC diagnostic ignored "-Wpsabi"

namespace samrt {
namespace {
#include "rows_generic.hpp"
}  // namespace

const RowKernels& baseline_rows() {
    static const RowKernels table = {
        "baseline",
        0,
        0,
        resample_x_plain,
        resample_y_plain,
        normalize_grey_plain,
        normalize_rgb_plain,
        normalize_float_plain,
        normalize_float_rgb_plain,
        float_to_half_plain,
        float_to_byte_plain,
        byte_range_plain,
        interleave_plain,
        deinterleave_plain,
        resample_block,
        resample_block_fused,
        stencil_block,
        range_block,
        blend_plain,
        blend_fused_plain,
        blend_above_plain,
        blend_levels_plain,
        float_range_plain,
        spline_block,
    };
    return table;
}

}  // namespace samrt
