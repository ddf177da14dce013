// Ctrl-C within work that takes long.
#pragma once

#include <chrono>
#include <nanobind/nanobind.h>

namespace kernels {

// Raises KeyboardInterrupt if it was pressed; called without the GIL, between steps. Python hears of
// signals in its main thread only.
inline void check_interrupt() {
    nanobind::gil_scoped_acquire acquire;
    if (PyErr_CheckSignals() != 0) throw nanobind::python_error();
}

// The same now and then: taking the GIL for each of many short steps would hold up other threads.
class InterruptCheck {
  public:
    void now_and_then() {
        const auto now = std::chrono::steady_clock::now();
        if (now - last_ < std::chrono::milliseconds(200)) return;
        last_ = now;
        check_interrupt();
    }

  private:
    std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

} // namespace kernels
