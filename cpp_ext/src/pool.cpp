#include "samrt/pool.hpp"

#include <cstdlib>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace samrt {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

void* allocate(std::size_t bytes) {
    const std::size_t alignment = bytes < kHugePage ? kAlignment : kHugePage;
    const std::size_t size = (bytes + alignment - 1) / alignment * alignment;
    void* block = std::aligned_alloc(alignment, size == 0 ? alignment : size);
    if (block == nullptr) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    if (alignment == kHugePage) madvise(block, size, MADV_HUGEPAGE);  // a wish, may be refused
#endif
    return block;
}

}  // namespace

void* BlockPool::take(std::size_t bytes) {
    {
        const std::lock_guard<std::mutex> guard(lock_);
        for (std::size_t i = kept_.size(); i-- > 0;) {
            if (kept_[i].bytes != bytes) continue;
            void* block = kept_[i].data;
            kept_.erase(kept_.begin() + static_cast<std::ptrdiff_t>(i));
            return block;
        }
    }
    return allocate(bytes);
}

void BlockPool::give(void* block, std::size_t bytes) noexcept {
    if (bytes < kLeastBytes || bytes > kMostBytes) return std::free(block);
    const std::lock_guard<std::mutex> guard(lock_);
    try {
        kept_.push_back({block, bytes});
    } catch (const std::bad_alloc&) {
        return std::free(block);
    }
    std::size_t total = 0, keep = 0;  // from the newest on, as many as the limits allow
    for (std::size_t i = kept_.size(); i-- > 0 && keep < kMostBlocks; ++keep) {
        total += kept_[i].bytes;
        if (total > kMostBytes) break;
    }
    while (kept_.size() > keep) {
        std::free(kept_.front().data);
        kept_.erase(kept_.begin());
    }
}

void BlockPool::clear() noexcept {
    const std::lock_guard<std::mutex> guard(lock_);
    for (const Block& block : kept_) std::free(block.data);
    kept_.clear();
}

std::size_t BlockPool::kept_bytes() const {
    const std::lock_guard<std::mutex> guard(lock_);
    std::size_t total = 0;
    for (const Block& block : kept_) total += block.bytes;
    return total;
}

}  // namespace samrt
