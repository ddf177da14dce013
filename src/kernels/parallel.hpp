// Levels of one factor are independent: share them out over a few threads where that pays.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
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
    std::vector<std::thread> others;
    for (int t = 1; t < threads; ++t)
        others.emplace_back([&, t] { body(t, bounds[t], bounds[t + 1]); });
    body(0, bounds[0], bounds[1]);
    for (auto &other : others) other.join();
}

} // namespace kernels
