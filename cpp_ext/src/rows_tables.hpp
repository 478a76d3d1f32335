// The tables of inner loops that this build contains.
#pragma once

#include "samrt/rows.hpp"

#if defined(__x86_64__) || defined(_M_X64)
#define SAMRT_X86_64 1
#endif

namespace samrt {

const RowKernels& baseline_rows();

#ifdef SAMRT_X86_64
bool avx2_usable();  // asks the processor
const RowKernels& avx2_rows();
#endif

#ifdef __aarch64__
const RowKernels& neon_rows();
#endif

}  // namespace samrt
