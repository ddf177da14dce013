// Products of tall, thin matrices, one pass over the rows: linear algebra libraries are slow on these.
#pragma once

#include "arrays.hpp"
#include "parallel.hpp"

namespace kernels {

// product (a x b) = X'W Y for X (n x a) and Y (n x b), row-major; no weights: W = I.
inline void thin_cross(ConstDoubles X, ConstDoubles Y, ConstDoubles weights, Doubles product) {
    const std::int64_t n = static_cast<std::int64_t>(X.shape(0));
    const std::int64_t a = static_cast<std::int64_t>(X.shape(1));
    const std::int64_t b = static_cast<std::int64_t>(Y.shape(1));
    const bool weighted = weights.shape(0) > 0;
    nb::gil_scoped_release release;
    const int threads = worthwhile_threads(static_cast<double>(n) * (a * b + a + b));
    std::vector<double> sums(threads * a * b, 0.0);
    // Partial sums of blocks of rows keep the rounding error small.
    constexpr std::int64_t block = 512;
    auto body = [&](auto constant) {
        constexpr int A = decltype(constant)::value;
        parallel_ranges(
            n, threads, [](std::int64_t i) { return double(i); },
            [&](int thread, std::int64_t first, std::int64_t last) {
                const std::int64_t rows = A == Eigen::Dynamic ? a : A;
                std::vector<double> partial(a * b);
                double *total = sums.data() + thread * a * b;
                for (std::int64_t begin = first; begin < last; begin += block) {
                    std::fill(partial.begin(), partial.end(), 0.0);
                    const std::int64_t end = std::min(begin + block, last);
                    for (std::int64_t i = begin; i < end; ++i) {
                        const double *x = X.data() + i * rows, *y = Y.data() + i * b;
                        const double w = weighted ? weights.data()[i] : 1.0;
                        for (std::int64_t c = 0; c < b; ++c) {
                            const double wy = w * y[c];
                            double *to = partial.data() + c * rows;
                            for (std::int64_t r = 0; r < rows; ++r) to[r] += x[r] * wy;
                        }
                    }
                    for (std::int64_t t = 0; t < a * b; ++t) total[t] += partial[t];
                }
            });
    };
    with_block_size(a, body);
    for (std::int64_t r = 0; r < a; ++r)
        for (std::int64_t c = 0; c < b; ++c) {
            double sum = 0.0;
            for (int thread = 0; thread < threads; ++thread)
                sum += sums[thread * a * b + c * a + r];
            product.data()[r * b + c] = sum;
        }
}

// out[:, column : column + b] = alpha X Q, or that added to what is there, for X (n x a), Q (a x b).
inline void thin_times(ConstDoubles X, ConstDoubles Q, double alpha, bool add, std::int64_t column,
                       Doubles out) {
    const std::int64_t n = static_cast<std::int64_t>(X.shape(0));
    const std::int64_t a = static_cast<std::int64_t>(X.shape(1));
    const std::int64_t b = static_cast<std::int64_t>(Q.shape(1));
    const std::int64_t stride = static_cast<std::int64_t>(out.shape(1));
    nb::gil_scoped_release release;
    const int threads = worthwhile_threads(static_cast<double>(n) * (a * b + a + b));
    auto body = [&](auto constant) {
        constexpr int A = decltype(constant)::value;
        parallel_ranges(
            n, threads, [](std::int64_t i) { return double(i); },
            [&](int, std::int64_t first, std::int64_t last) {
                const std::int64_t rows = A == Eigen::Dynamic ? a : A;
                for (std::int64_t i = first; i < last; ++i) {
                    const double *x = X.data() + i * rows;
                    double *to = out.data() + i * stride + column;
                    for (std::int64_t c = 0; c < b; ++c) {
                        double sum = 0.0;
                        for (std::int64_t r = 0; r < rows; ++r) sum += x[r] * Q.data()[r * b + c];
                        to[c] = (add ? to[c] : 0.0) + alpha * sum;
                    }
                }
            });
    };
    with_block_size(a, body);
}

} // namespace kernels
