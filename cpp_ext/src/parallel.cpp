#include "samrt/parallel.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace samrt {

int worker_count(int threads, std::int64_t units) {
    const std::int64_t most = std::min<std::int64_t>(std::max(threads, 1), kMaxThreads);
    return static_cast<int>(std::max<std::int64_t>(1, std::min(most, units)));
}

int useful_threads(int threads, std::int64_t pixels) {
    constexpr std::int64_t kPixelsPerThread = std::int64_t{1} << 21;
    return worker_count(threads, pixels / kPixelsPerThread);
}

void parallel_for(int threads, std::int64_t units,
                  const std::function<void(int, std::int64_t)>& body) {
    const int workers = worker_count(threads, units);
    if (workers == 1) {
        for (std::int64_t unit = 0; unit < units; ++unit) body(0, unit);
        return;
    }
    std::atomic<std::int64_t> next{0};
    std::atomic<bool> failed{false};
    std::exception_ptr error;
    std::mutex error_lock;
    const auto work = [&](int worker) {
        try {
            while (!failed.load(std::memory_order_relaxed)) {
                const std::int64_t unit = next.fetch_add(1, std::memory_order_relaxed);
                if (unit >= units) return;
                body(worker, unit);
            }
        } catch (...) {
            const std::lock_guard<std::mutex> guard(error_lock);
            if (!error) error = std::current_exception();
            failed = true;
        }
    };
    std::vector<std::thread> team;
    team.reserve(static_cast<std::size_t>(workers - 1));
    try {
        for (int worker = 1; worker < workers; ++worker) team.emplace_back(work, worker);
    } catch (const std::system_error&) {
        // No more threads to be had: those that run, and this one, take all the units.
    }
    work(0);
    for (std::thread& thread : team) thread.join();
    if (error) std::rethrow_exception(error);
}

}  // namespace samrt
