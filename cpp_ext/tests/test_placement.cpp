// Where helping threads are let run: `Elsewhere` of the kernels, and the crews of sessions.
#include "../ops/crew.hpp"
#include "operators.hpp"
#include "samrt/placement.hpp"

#ifdef __linux__
#include <condition_variable>
#include <mutex>
#include <thread>
#endif

namespace samrt::ops::tests {

void check(const char* what, bool right) {
    ++checks;
    if (right) return;
    ++failures;
    std::printf("FAILED %s\n", what);
}

#ifdef __linux__
namespace {

cpu_set_t of(pthread_t thread) {
    cpu_set_t set;
    CPU_ZERO(&set);
    pthread_getaffinity_np(thread, sizeof set, &set);
    return set;
}

bool equal(const cpu_set_t& a, const cpu_set_t& b) { return CPU_EQUAL(&a, &b) != 0; }

cpu_set_t without(cpu_set_t set, int cpu) {
    CPU_CLR(cpu, &set);
    return set;
}

// Lives until it is told to end, and takes one call in the meantime.
class Waiting {
public:
    void operator()() {
        std::unique_lock<std::mutex> guard(lock_);
        changed_.wait(guard, [&] { return told_; });
    }
    void end() {
        const std::lock_guard<std::mutex> guard(lock_);
        told_ = true;
        changed_.notify_all();
    }

private:
    std::mutex lock_;
    std::condition_variable changed_;
    bool told_ = false;
};

// `act` while the calling thread stays on one processor; its number. The system may move the
// thread at any time, so this is tried again.
template <typename Act>
int on_one_processor(Act act) {
    for (;;) {
        const int before = sched_getcpu();
        act();
        if (sched_getcpu() == before) return before;
    }
}

void helpers_begin_elsewhere() {
    const cpu_set_t all = of(pthread_self());
    const int count = CPU_COUNT(&all);
    Waiting wait;
    std::thread helper([&] { wait(); });
    if (count > 1) {
        const int here = on_one_processor([&] { Elsewhere(1).send(helper.native_handle()); });
        check("a helper begins off the caller's processor",
              equal(of(helper.native_handle()), without(all, here)));
    }
    pthread_setaffinity_np(helper.native_handle(), sizeof all, &all);
    Elsewhere(count).send(helper.native_handle());
    check("too many helpers are left alone", equal(of(helper.native_handle()), all));
    wait.end();
    helper.join();
    const Elsewhere elsewhere(1);
    cpu_set_t arrived;
    std::thread([&] {
        elsewhere.arrived();
        arrived = of(pthread_self());
    }).join();
    check("a helper that runs may run anywhere", equal(arrived, all));
    check("the caller may still run anywhere", equal(of(pthread_self()), all));
}

// What ONNX Runtime is told, in the places of its table.
using Make = const void* (*)(void*, void (*)(void*), void*);
using Join = void (*)(const void*);
Make make = nullptr;
Join join = nullptr;
void* number = nullptr;

const ort::Api* runtime() {
    static void* table[200] = {};
    using Setter = ort::Status* (*)(ort::SessionOptions*, void*);
    const Setter set_make = [](ort::SessionOptions*, void* to) -> ort::Status* {
        make = reinterpret_cast<Make>(to);
        return nullptr;
    };
    const Setter set_number = [](ort::SessionOptions*, void* to) -> ort::Status* {
        number = to;
        return nullptr;
    };
    const Setter set_join = [](ort::SessionOptions*, void* to) -> ort::Status* {
        join = reinterpret_cast<Join>(to);
        return nullptr;
    };
    table[ort::kSetCustomCreateThreadFn] = reinterpret_cast<void*>(set_make);
    table[ort::kSetCustomThreadCreationOptions] = reinterpret_cast<void*>(set_number);
    table[ort::kSetCustomJoinThreadFn] = reinterpret_cast<void*>(set_join);
    return reinterpret_cast<const ort::Api*>(table);
}

struct Told {
    Waiting wait;
    std::mutex lock;
    std::condition_variable changed;
    pthread_t self{};
    bool known = false;

    static void body(void* argument) {
        auto* told = static_cast<Told*>(argument);
        {
            const std::lock_guard<std::mutex> guard(told->lock);
            told->self = pthread_self();
            told->known = true;
            told->changed.notify_all();
        }
        told->wait();
    }
    pthread_t thread() {
        std::unique_lock<std::mutex> guard(lock);
        changed.wait(guard, [&] { return known; });
        return self;
    }
};

void crews_step_aside() {
    const cpu_set_t all = of(pthread_self());
    int crew = 0, other = 0;
    check("a crew is hired", hire(nullptr, runtime(), crew) == nullptr && crew > 0);
    Told told;
    const void* handle = make(number, Told::body, &told);
    check("another crew has another number",
          hire(nullptr, runtime(), other) == nullptr && other != crew && handle != nullptr);
    const pthread_t thread = told.thread();
    check("a thread begins as its maker may run", equal(of(thread), all));
    if (CPU_COUNT(&all) > 1) {
        const int here = on_one_processor([&] { step_aside(crew); });
        check("a crew steps aside", equal(of(thread), without(all, here)));
        const int again = on_one_processor([&] { step_aside(crew); });
        check("as often as it is asked", equal(of(thread), without(all, again)));
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(again, &one);
        pthread_setaffinity_np(thread, sizeof one, &one);
        step_aside(crew);
        check("a thread that was given one processor keeps it", equal(of(thread), one));
        pthread_setaffinity_np(thread, sizeof all, &all);
        const int back = on_one_processor([&] { step_aside(crew); });
        check("and is placed again when it was given more", equal(of(thread), without(all, back)));
    }
    pthread_setaffinity_np(thread, sizeof all, &all);
    step_aside(other);
    check("other crews are left alone", equal(of(thread), all));
    dismiss(crew);
    dismiss(crew);
    step_aside(crew);
    step_aside(-1);
    check("a crew that was dismissed is left alone", equal(of(thread), all));
    told.wait.end();
    join(handle);
    dismiss(other);
    int brief = 0;
    hire(nullptr, runtime(), brief);
    for (int i = 0; i < 300; ++i) {  // threads that end while others step aside
        const void* ended = make(number, [](void*) {}, nullptr);
        step_aside(brief);
        join(ended);
    }
    dismiss(brief);
    check("the caller is never placed", equal(of(pthread_self()), all));
    Told late;
    const void* free_thread = make(number, Told::body, &late);  // its crew is gone: it runs all the same
    late.thread();
    late.wait.end();
    join(free_thread);
    check("a thread without a crew runs", free_thread != nullptr);
}

}  // namespace

void test_placement() {
    helpers_begin_elsewhere();
    crews_step_aside();
}

#else

void test_placement() {
    int crew = 1;
    check("threads are not placed here", hire(nullptr, nullptr, crew) == nullptr && crew == 0);
    step_aside(1);
    dismiss(1);
}

#endif

}  // namespace samrt::ops::tests
