// Splits independent units of work over a bounded number of threads.
#pragma once

#include <cstdint>
#include <functional>

namespace samrt {

// Most threads that one call ever uses, whatever the caller asks for.
constexpr int kMaxThreads = 64;

// Workers that `parallel_for` will use for `units` units when the caller allows `threads`.
int worker_count(int threads, std::int64_t units);

// How many of `threads` are worth starting for `pixels` pixels of work: starting one costs more than
// it saves below about two million.
int useful_threads(int threads, std::int64_t pixels);

// Calls body(worker, unit) once for every unit in [0, units). `worker` is in
// [0, worker_count(threads, units)) and never runs twice at the same time, so scratch memory can
// be indexed by it. With one worker everything runs on the calling thread and no thread starts.
// The call waits for work in progress but not for threads that the system has not let run yet: on
// a busy machine those come too late to help. They end without touching anything of the call, and
// hold no lock that a fork could leave locked.
// The first exception thrown by the body is thrown again here after all workers have stopped.
void parallel_for(int threads, std::int64_t units,
                  const std::function<void(int worker, std::int64_t unit)>& body);

}  // namespace samrt
