#include "kernels.hpp"

#if defined(__x86_64__)
#pragma GCC push_options
// GCC 12 warns about its own header.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC target("avx512vnni,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,prefer-vector-width=512")
#define SAMRT_VNNI
#define SAMRT_AVX512
#define SAMRT_LANES 16
#define SAMRT_ROWS 12
#define SAMRT_NAME "vnni"
#include "kernels_impl.hpp"
#pragma GCC pop_options

namespace samrt::ops {
const Kernels* kernels_vnni() {
    return __builtin_cpu_supports("avx512vnni") && kernels_avx512() != nullptr ? &kTable : nullptr;
}
}  // namespace samrt::ops
#else
namespace samrt::ops {
const Kernels* kernels_vnni() { return nullptr; }
}  // namespace samrt::ops
#endif
