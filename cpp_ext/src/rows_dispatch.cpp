#include <atomic>
#include <stdexcept>

#include "rows_tables.hpp"

namespace samrt {
namespace {

const RowKernels* best() {
#ifdef SAMRT_X86_64
    if (avx2_usable()) return &avx2_rows();
#endif
#ifdef __aarch64__
    return &neon_rows();
#else
    return &baseline_rows();
#endif
}

std::atomic<const RowKernels*>& current() {
    static std::atomic<const RowKernels*> table{best()};
    return table;
}

}  // namespace

const RowKernels& row_kernels() { return *current().load(std::memory_order_acquire); }

std::string select_row_kernels(const std::string& name) {
    const RowKernels* chosen = nullptr;
    if (name == "auto") chosen = best();
    if (name == "baseline") chosen = &baseline_rows();
#ifdef SAMRT_X86_64
    if (name == "avx2" && avx2_usable()) chosen = &avx2_rows();
#endif
#ifdef __aarch64__
    if (name == "neon") chosen = &neon_rows();
#endif
    if (chosen == nullptr)
        throw std::invalid_argument("instruction set '" + name +
                                    "' is unknown or not offered by this processor; expected "
                                    "auto, baseline, avx2 (x86-64) or neon (AArch64)");
    current().store(chosen, std::memory_order_release);
    return chosen->name;
}

}  // namespace samrt
