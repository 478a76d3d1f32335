#include "samrt/parallel.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>

#include "samrt/placement.hpp"

namespace samrt {

int worker_count(int threads, std::int64_t units) {
    const std::int64_t most = std::min<std::int64_t>(std::max(threads, 1), kMaxThreads);
    return static_cast<int>(std::max<std::int64_t>(1, std::min(most, units)));
}

int useful_threads(int threads, std::int64_t pixels) {
    constexpr std::int64_t kPixelsPerThread = std::int64_t{1} << 21;
    return worker_count(threads, pixels / kPixelsPerThread);
}

namespace {

// What the threads of one call share. Helpers that are late keep it alive and find it closed.
struct Team {
    std::atomic<std::int64_t> next{0};
    std::atomic<bool> failed{false};
    std::mutex lock;
    std::condition_variable changed;
    bool closed = false;  // no helper may start any more
    int working = 0;      // helpers that have started and not ended
    std::exception_ptr error;

    void work(std::int64_t units, const std::function<void(int, std::int64_t)>& body, int worker) {
        try {
            while (!failed.load(std::memory_order_relaxed)) {
                const std::int64_t unit = next.fetch_add(1, std::memory_order_relaxed);
                if (unit >= units) return;
                body(worker, unit);
            }
        } catch (...) {
            const std::lock_guard<std::mutex> guard(lock);
            if (!error) error = std::current_exception();
            failed = true;
        }
    }
};

// Helpers that exist, in all calls together: late ones must not pile up without end.
std::atomic<int> helpers{0};
constexpr int kMostHelpers = 4 * kMaxThreads;

struct HelperCount {
    ~HelperCount() { helpers.fetch_sub(1); }
};

void help(const std::shared_ptr<Team>& team, std::int64_t units,
          const std::function<void(int, std::int64_t)>* body, int worker,
          const Elsewhere& elsewhere) {
    const HelperCount counted;
    {
        const std::lock_guard<std::mutex> guard(team->lock);  // after `send`
        if (team->closed) return;  // the call may be over: `body` must not be touched
        ++team->working;
    }
    elsewhere.arrived();
    team->work(units, *body, worker);
    const std::lock_guard<std::mutex> guard(team->lock);
    --team->working;
    team->changed.notify_all();
}

}  // namespace

void parallel_for(int threads, std::int64_t units,
                  const std::function<void(int, std::int64_t)>& body) {
    const int workers = worker_count(threads, units);
    if (workers == 1) {
        for (std::int64_t unit = 0; unit < units; ++unit) body(0, unit);
        return;
    }
    const auto team = std::make_shared<Team>();
    const Elsewhere elsewhere(workers - 1);
    for (int worker = 1; worker < workers; ++worker) {
        if (helpers.fetch_add(1) >= kMostHelpers) {
            helpers.fetch_sub(1);
            break;
        }
        try {
            // Under the lock, which a helper needs before it does anything: it lives as yet.
            const std::lock_guard<std::mutex> guard(team->lock);
            std::thread helper(help, team, units, &body, worker, elsewhere);
            elsewhere.send(helper.native_handle());
            helper.detach();
        } catch (const std::system_error&) {
            // No more threads to be had: those that run, and this one, take all the units.
            helpers.fetch_sub(1);
            break;
        }
    }
    team->work(units, body, 0);
    std::unique_lock<std::mutex> guard(team->lock);
    team->closed = true;
    team->changed.wait(guard, [&] { return team->working == 0; });
    if (team->error) std::rethrow_exception(team->error);
}

}  // namespace samrt
