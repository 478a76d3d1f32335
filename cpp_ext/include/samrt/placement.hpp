// Keeps helping threads off the processor that the calling thread is on.
//
// Linux wakes a thread on the processor that wakes it unless it knows another one to be idle. A
// guest of KVM does not know: a processor of its own that has halted counts as taken away by the
// host (vcpu_is_preempted in the kernel's available_idle_cpu, kernel/sched). After a pause, all
// threads of a call then wait for one processor while the others sleep, until a timer tick
// some milliseconds later moves them. A thread that may not use the caller's processor has to be put
// elsewhere at once. On other systems nothing is done.
#pragma once

#ifdef __linux__
#include <pthread.h>
#include <sched.h>
#include <sys/types.h>
#endif

namespace samrt {

#ifdef __linux__

// Takes the processor that the calling thread is on out of `set`; false if too few would be left
// for `helpers` threads, or the processor is not known.
inline bool without_this_processor(cpu_set_t& set, int helpers) {
    const int here = sched_getcpu();
    if (here < 0 || here >= CPU_SETSIZE) return false;
    if (CPU_ISSET(here, &set)) CPU_CLR(here, &set);
    return CPU_COUNT(&set) >= helpers;
}

// Where helpers of the calling thread should begin: on all of its processors but the one it is on.
class Elsewhere {
public:
    // For so many helpers; nothing is asked for where there are fewer other processors.
    explicit Elsewhere(int helpers) {
        known_ = sched_getaffinity(0, sizeof all_, &all_) == 0;
        others_ = all_;
        known_ = known_ && without_this_processor(others_, helpers);
    }

    // To be called for a thread that has just been made and cannot end before this returns: of one
    // that has ended, the C library takes the number 0, which means the calling thread.
    void send(pthread_t thread) const {
        if (known_) pthread_setaffinity_np(thread, sizeof others_, &others_);
    }

    // To be called by that thread when it runs: it is where it should be, and from now on the
    // system may move it as it likes, to the caller's processor too if that is free first.
    void arrived() const {
        if (known_) sched_setaffinity(0, sizeof all_, &all_);
    }

private:
    cpu_set_t all_, others_;
    bool known_;
};

#else

class Elsewhere {
public:
    explicit Elsewhere(int) {}
    template <typename Thread>
    void send(Thread) const {}
    void arrived() const {}
};

#endif

}  // namespace samrt
