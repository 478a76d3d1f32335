#include "crew.hpp"

#ifdef __linux__

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#include "samrt/placement.hpp"

namespace samrt::ops {
namespace {

bool same(const cpu_set_t& a, const cpu_set_t& b) { return CPU_EQUAL(&a, &b) != 0; }

class Crew {
public:
    // A new thread that runs `work` and then, as its last act, `leaves`. Under the lock, so that all
    // members are alive: of a thread that has ended, the C library takes the number 0, which
    // means the calling thread.
    template <typename Work>
    std::thread start(Work work) {
        const std::lock_guard<std::mutex> guard(lock_);
        std::thread thread(std::move(work));
        pthread_setname_np(thread.native_handle(), "samrt-session");
        joins(thread.native_handle());
        return thread;
    }

    void leaves(pthread_t thread) {
        const std::lock_guard<std::mutex> guard(lock_);
        members_.erase(std::remove_if(members_.begin(), members_.end(),
                                      [=](const Member& m) { return m.thread == thread; }),
                       members_.end());
    }

    void step_aside() {
        const std::lock_guard<std::mutex> guard(lock_);
        for (Member& member : members_) {
            cpu_set_t now;
            if (pthread_getaffinity_np(member.thread, sizeof now, &now) != 0) continue;
            if (!same(now, member.given)) member.own = member.given = now;  // somebody else's wish
            cpu_set_t wanted = member.own;
            if (!without_this_processor(wanted, static_cast<int>(members_.size()))) continue;
            if (same(wanted, now)) continue;
            if (pthread_setaffinity_np(member.thread, sizeof wanted, &wanted) == 0)
                member.given = wanted;
        }
    }

private:
    struct Member {
        pthread_t thread;
        cpu_set_t own;    // where it may run but for us
        cpu_set_t given;  // where we let it run last
    };

    void joins(pthread_t thread) noexcept {
        Member member{thread, {}, {}};
        if (pthread_getaffinity_np(thread, sizeof member.own, &member.own) != 0) return;
        member.given = member.own;
        try {
            members_.push_back(member);
        } catch (const std::bad_alloc&) {
            // A thread that nobody places runs as well.
        }
    }

    std::mutex lock_;
    std::vector<Member> members_;
};

// Crews by number. A session keeps the number alone, which cannot dangle.
struct Register {
    std::mutex lock;
    std::map<int, std::shared_ptr<Crew>> crews;
    int last = 0;
};

Register& all() {
    static auto* const made = new Register;  // threads may outlive static objects
    return *made;
}

std::shared_ptr<Crew> find(int number) {
    Register& known = all();
    const std::lock_guard<std::mutex> guard(known.lock);
    const auto found = known.crews.find(number);
    return found == known.crews.end() ? nullptr : found->second;
}

// ONNX Runtime's calls. A null handle makes it say that it has no thread.
const void* make_thread(void* number, void (*body)(void*), void* argument) {
    try {
        auto crew = find(static_cast<int>(reinterpret_cast<std::intptr_t>(number)));
        if (!crew) crew = std::make_shared<Crew>();
        auto made = std::make_unique<std::thread>();
        *made = crew->start([crew, body, argument] {
            body(argument);
            crew->leaves(pthread_self());
        });
        return made.release();
    } catch (const std::exception&) {
        return nullptr;
    }
}

void join_thread(const void* handle) {
    const std::unique_ptr<std::thread> ended(static_cast<std::thread*>(const_cast<void*>(handle)));
    ended->join();
}

}  // namespace

ort::Status* hire(ort::SessionOptions* options, const ort::Api* api, int& crew) {
    Register& known = all();
    {
        const std::lock_guard<std::mutex> guard(known.lock);
        crew = ++known.last;
        known.crews[crew] = std::make_shared<Crew>();
    }
    auto* const number = reinterpret_cast<void*>(static_cast<std::intptr_t>(crew));
    if (auto* status = ort::call<ort::Status*>(api, ort::kSetCustomCreateThreadFn, options,
                                               &make_thread))
        return status;
    if (auto* status = ort::call<ort::Status*>(api, ort::kSetCustomThreadCreationOptions, options,
                                               number))
        return status;
    return ort::call<ort::Status*>(api, ort::kSetCustomJoinThreadFn, options, &join_thread);
}

void step_aside(int number) noexcept {
    try {
        if (const auto crew = find(number)) crew->step_aside();
    } catch (const std::exception&) {
        // Only where threads run is at stake.
    }
}

void dismiss(int number) noexcept {
    try {
        Register& known = all();
        const std::lock_guard<std::mutex> guard(known.lock);
        known.crews.erase(number);
    } catch (const std::exception&) {
        // It stays known: a few bytes.
    }
}

}  // namespace samrt::ops

#else

namespace samrt::ops {

ort::Status* hire(ort::SessionOptions*, const ort::Api*, int& crew) {
    crew = 0;
    return nullptr;
}
void step_aside(int) noexcept {}
void dismiss(int) noexcept {}

}  // namespace samrt::ops

#endif
