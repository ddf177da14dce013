// Cholesky factor and inverse of one large dense matrix, shared out over threads of our own around
// single-threaded BLAS. A BLAS library's own threads go on spinning after each call and take the
// processors from the kernels that come next.
#pragma once

#include "arrays.hpp"
#include "blas.hpp"
#include "interrupt.hpp"
#include "parallel.hpp"

#include <algorithm>
#include <atomic>
#include <stdexcept>

namespace kernels {

// Columns handled at once: more of them feed BLAS better, fewer leave more to share out.
inline std::int64_t block_columns(std::int64_t n) { return n < 3000 ? 128 : 256; }

// Rows from which a step takes so long that Ctrl-C is asked for between steps.
inline void check_interrupt(std::int64_t n) {
    if (n >= 4000) check_interrupt();
}

// Runs task(0), ..., task(n - 1), handed out one by one to the threads.
template <class Task> void parallel_tasks(std::int64_t n, int threads, Task &&task) {
    if (threads <= 1 || n <= 1) {
        for (std::int64_t t = 0; t < n; ++t) task(t);
        return;
    }
    std::atomic<std::int64_t> next{0};
    auto work = [&] {
        for (std::int64_t t = next++; t < n; t = next++) task(t);
    };
    run_threads(threads, [&](int) { work(); });
}

// A <- its lower Cholesky factor, block column by block column, each brought up to date with all
// the columns before it. The strict upper triangle is left undefined.
inline void dense_cholesky(FortranDoubles A) {
    const std::int64_t n = static_cast<std::int64_t>(A.shape(0));
    const int threads = worthwhile_threads(static_cast<double>(n) * n * n / 6.0);
    const std::int64_t step = block_columns(n);
    double *a = A.data();
    bool definite = true;
    {
        nb::gil_scoped_release release;
        for (std::int64_t j = 0; j < n && definite; j += step) {
            check_interrupt(n);
            const std::int64_t width = std::min(step, n - j);
            // At least a block high, and not so many that threads wait for the last one.
            const std::int64_t height = std::max(step, (n - j) / (8 * threads));
            const std::int64_t chunks = (n - j + height - 1) / height;
            parallel_tasks(chunks, threads, [&](std::int64_t t) {
                const std::int64_t row = j + t * height, rows = std::min(height, n - row);
                blas::gemm(false, true, rows, width, j, -1.0, a + row, n, a + j, n, 1.0,
                           a + j * n + row, n);
            });
            definite = blas::cholesky(width, a + j * n + j, n);
            const std::int64_t below = j + width;
            const std::int64_t rests = (n - below + height - 1) / height;
            if (!definite) break;
            parallel_tasks(rests, threads, [&](std::int64_t t) {
                const std::int64_t row = below + t * height, rows = std::min(height, n - row);
                blas::solve_lower_right(rows, width, a + j * n + j, n, a + j * n + row, n);
            });
        }
    }
    if (!definite) throw std::runtime_error("the matrix is not positive definite");
}

// The inverse of C C' for the leading rows and columns of the lower-triangular C, as many as
// `inverse` has; both triangles.
inline void dense_inverse(ConstFortranDoubles C, FortranDoubles inverse) {
    const std::int64_t n = static_cast<std::int64_t>(inverse.shape(0));
    const std::int64_t ldc = static_cast<std::int64_t>(C.shape(0));
    const int threads = worthwhile_threads(static_cast<double>(n) * n * n / 3.0);
    const std::int64_t step = block_columns(n);
    const std::int64_t blocks = (n + step - 1) / step;
    const double *c = C.data();
    double *w = inverse.data();
    auto start = [&](std::int64_t block) { return block * step; };
    auto width = [&](std::int64_t block) { return std::min(step, n - block * step); };
    nb::gil_scoped_release release;
    // C^-1, block columns on their own.
    parallel_tasks(blocks, threads, [&](std::int64_t block) {
        const std::int64_t j = start(block), columns = width(block);
        for (std::int64_t column = j; column < j + columns; ++column) {
            std::fill(w + column * n, w + (column + 1) * n, 0.0);
            w[column * n + column] = 1.0;
        }
        blas::solve_lower(false, n - j, columns, c + j * ldc + j, ldc, w + j * n + j, n);
    });
    // (C^-1)' C^-1 in its place: block column j needs those from j on, which are still there.
    std::vector<double> result(static_cast<std::size_t>(n) * step);
    for (std::int64_t block = 0; block < blocks; ++block) {
        check_interrupt(n);
        const std::int64_t j = start(block), columns = width(block);
        parallel_tasks(blocks - block, threads, [&](std::int64_t t) {
            const std::int64_t i = start(block + t), rows = width(block + t);
            blas::gemm(true, false, rows, columns, n - i, 1.0, w + i * n + i, n, w + j * n + i, n,
                       0.0, result.data() + i, n);
        });
        for (std::int64_t column = 0; column < columns; ++column)
            std::copy(result.data() + column * n + j, result.data() + (column + 1) * n,
                      w + (j + column) * n + j);
    }
    // The other triangle, tile by tile.
    parallel_tasks(blocks, threads, [&](std::int64_t block) {
        const std::int64_t j = start(block), columns = width(block);
        for (std::int64_t i = j; i < n; i += step)
            for (std::int64_t column = j; column < j + columns; ++column)
                for (std::int64_t row = std::max(i, column + 1);
                     row < std::min(i + step, n); ++row)
                    w[row * n + column] = w[column * n + row];
    });
}

} // namespace kernels
