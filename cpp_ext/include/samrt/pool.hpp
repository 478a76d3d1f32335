// Large blocks of memory that are used again: the pages of a fresh one cost more than filling it.
#pragma once

#include <cstddef>
#include <mutex>
#include <vector>

namespace samrt {

// Keeps the blocks that were given back last. A block belongs to whoever took it until it is given
// back; the pool never hands one out twice. Safe in several threads.
class BlockPool {
public:
    static constexpr std::size_t kMostBlocks = 2;
    static constexpr std::size_t kMostBytes = std::size_t{64} << 20;
    static constexpr std::size_t kLeastBytes = std::size_t{1} << 20;  // smaller ones are not kept

    BlockPool() = default;
    BlockPool(const BlockPool&) = delete;
    BlockPool& operator=(const BlockPool&) = delete;
    ~BlockPool() { clear(); }

    // A block of `bytes` bytes with any content, at a multiple of 64. Throws std::bad_alloc.
    void* take(std::size_t bytes);
    // `block` came from take(bytes).
    void give(void* block, std::size_t bytes) noexcept;
    // Frees all that is kept.
    void clear() noexcept;
    std::size_t kept_bytes() const;

private:
    struct Block {
        void* data;
        std::size_t bytes;
    };
    mutable std::mutex lock_;
    std::vector<Block> kept_;  // the one given back last at the end
};

}  // namespace samrt
