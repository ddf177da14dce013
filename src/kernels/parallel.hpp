// Levels of one factor are independent: share them out over a few threads where that pays.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

namespace kernels {

// MIXEDEFFECTS_NUM_THREADS, else OMP_NUM_THREADS, else the number of processors.
inline int thread_count() {
    static const int count = [] {
        for (const char *name : {"MIXEDEFFECTS_NUM_THREADS", "OMP_NUM_THREADS"}) {
            const char *value = std::getenv(name);
            const int wanted = value ? std::atoi(value) : 0;
            if (wanted > 0) return wanted;
        }
        return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
    }();
    return count;
}

// Threads worth starting for so many operations.
inline int worthwhile_threads(double operations) {
    constexpr double operations_per_thread = 1e6;
    return std::clamp(static_cast<int>(operations / operations_per_thread), 1, thread_count());
}

// Calls work(0), ..., work(threads - 1), each in a thread of its own, the first in this one. Those
// for which the system gives no thread run in this one too. What one of them throws is thrown here
// when all are done: an exception that left a thread would end the process.
template <class Work> void run_threads(int threads, Work &&work) {
    std::exception_ptr thrown;
    std::mutex guard;
    auto guarded = [&](int t) noexcept {
        try {
            work(t);
        } catch (...) {
            const std::lock_guard<std::mutex> lock(guard);
            if (!thrown) thrown = std::current_exception();
        }
    };
    std::vector<std::thread> others;
    others.reserve(threads);
    int started = 1;
    try {
        for (; started < threads; ++started)
            others.emplace_back([&guarded, t = started] { guarded(t); });
    } catch (const std::system_error &) {
    } catch (const std::bad_alloc &) {
    }
    guarded(0);
    for (int t = started; t < threads; ++t) guarded(t);
    for (auto &other : others) other.join();
    if (thrown) std::rethrow_exception(thrown);
}

// Calls body(thread, begin, end) on ranges of [0, n) of about equal weight, where weight(i) is the
// work up to item i.
template <class Weight, class Body>
void parallel_ranges(std::int64_t n, int threads, Weight &&weight, Body &&body) {
    if (threads <= 1) {
        body(0, std::int64_t{0}, n);
        return;
    }
    std::vector<std::int64_t> bounds(threads + 1, n);
    bounds[0] = 0;
    const double total = weight(n);
    std::int64_t at = 0;
    for (int t = 1; t < threads; ++t) {
        while (at < n && weight(at) < total * t / threads) ++at;
        bounds[t] = at;
    }
    run_threads(threads, [&](int t) { body(t, bounds[t], bounds[t + 1]); });
}

} // namespace kernels
