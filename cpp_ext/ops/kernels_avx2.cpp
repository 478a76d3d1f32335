#include "kernels.hpp"

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define SAMRT_LANES 8
#define SAMRT_ROWS 6
#define SAMRT_NAME "avx2"
#include "kernels_impl.hpp"
#pragma GCC pop_options

namespace samrt::ops {
const Kernels* kernels_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &kTable : nullptr;
}
}  // namespace samrt::ops
#else
namespace samrt::ops {
const Kernels* kernels_avx2() { return nullptr; }
}  // namespace samrt::ops
#endif
