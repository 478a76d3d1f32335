#include <cstdlib>
#include <cstring>

#define SAMRT_LANES 4
#if defined(__aarch64__)
#define SAMRT_ROWS 12
#define SAMRT_NAME "neon"
#else
#define SAMRT_ROWS 5
#define SAMRT_NAME "baseline"
#endif
#include "kernels_impl.hpp"

namespace samrt::ops {

const Kernels* kernels_baseline() { return &kTable; }

const Kernels& kernels() {
    static const Kernels* const chosen = [] {
        const Kernels* const all[] = {kernels_vnni(), kernels_avx512(), kernels_avx2(),
                                      kernels_baseline()};
        const char* const name = std::getenv("SAMRT_OPS_KERNELS");
        for (const Kernels* table : all)
            if (table != nullptr && (name == nullptr || std::strcmp(name, table->name) == 0))
                return table;
        return kernels_baseline();
    }();
    return *chosen;
}

}  // namespace samrt::ops
