// Blocked Cholesky of M = L~' A L~ + I, one block-diagonal factor at a time. For level i of the
// factor with relative covariance factor T, diagonal block A (k x k) and panel G (k x m):
//     D = I + T' A T = L L',   U = L^-1 T' G,   and every later block loses U' U.
// Later blocks are not scaled by their own covariance factor until they are eliminated themselves.
#pragma once

#include "arrays.hpp"
#include "parallel.hpp"

#include <Eigen/Cholesky>
#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace kernels {

// Of two columns of a panel.
template <int K> double column_product(std::int64_t k_, const double *x, const double *y) {
    const std::int64_t k = K == Eigen::Dynamic ? k_ : K;
    double product = 0.0;
    for (std::int64_t a = 0; a < k; ++a) product += x[a] * y[a];
    return product;
}

// Writes L (k x k, lower) and U (panel) of every level; returns the sum of log det D.
inline double eliminate_levels(ConstDoubles T, ConstDoubles diag, ConstDoubles panel, Offsets ptr,
                               std::int64_t head, Doubles L, Doubles U) {
    const std::int64_t k = static_cast<std::int64_t>(T.shape(0));
    const std::int64_t n_levels = static_cast<std::int64_t>(ptr.shape(0)) - 1;
    const std::int64_t *start = ptr.data();
    const double columns = static_cast<double>(head * n_levels + start[n_levels]);
    const int threads = worthwhile_threads(2.0 * k * k * (columns + k * n_levels));
    std::vector<double> logdets(threads, 0.0);
    std::vector<char> definite(threads, 1);
    {
        nb::gil_scoped_release release;
        with_block_size(k, [&](auto constant) {
            constexpr int K = decltype(constant)::value;
            const SquareMatrix<K> t = ConstSquareMap<K>(T.data(), k, k);
            auto range = [&](int thread, std::int64_t first, std::int64_t last) {
                SquareMatrix<K> D(k, k);
                Eigen::LLT<SquareMatrix<K>> llt(k);
                double logdet = 0.0;
                bool all_definite = true;
                for (std::int64_t i = first; i < last; ++i) {
                    ConstSquareMap<K> A(diag.data() + i * k * k, k, k);
                    D.noalias() = t.transpose() * (A * t).eval();
                    D.diagonal().array() += 1.0;
                    llt.compute(D);
                    all_definite = all_definite && llt.info() == Eigen::Success;
                    SquareMap<K> Li(L.data() + i * k * k, k, k);
                    Li = llt.matrixL();
                    double product = 1.0;
                    for (std::int64_t a = 0; a < k; ++a) product *= Li(a, a);
                    logdet += 2.0 * std::log(product);
                    const std::int64_t begin = head * i + start[i];
                    const std::int64_t m = head + start[i + 1] - start[i];
                    ConstPanelMap<K> G(panel.data() + k * begin, k, m);
                    PanelMap<K> Ui(U.data() + k * begin, k, m);
                    if constexpr (K == 1) {
                        Ui = G * (t(0, 0) / Li(0, 0));
                    } else {
                        const SquareMatrix<K> half =
                            llt.matrixL().solve(SquareMatrix<K>(t.transpose()));
                        if constexpr (K == Eigen::Dynamic)
                            Ui.noalias() = half * G;
                        else
                            Ui = half.lazyProduct(G);
                    }
                }
                logdets[thread] = logdet;
                definite[thread] = all_definite;
            };
            parallel_ranges(
                n_levels, threads,
                [&](std::int64_t i) { return double(start[i] + (head + k) * i); }, range);
        });
    }
    double logdet = 0.0;
    for (int thread = 0; thread < threads; ++thread) {
        logdet += logdets[thread];
        if (!definite[thread]) logdet = std::nan("");
    }
    if (!std::isfinite(logdet))
        throw std::runtime_error("a diagonal block is not positive definite");
    return logdet;
}

// S[ind, ind] -= U' U over the levels, lower triangle of the remainder's dense part, which begins
// at column `core`. Columns of S are shared out: every thread goes through all levels and writes
// its own columns only.
inline void subtract_from_remainder(ConstDoubles U, Offsets ptr, Codes ind, std::int64_t head,
                                    std::int64_t k, std::int64_t core, FortranDoubles S) {
    const std::int64_t n_levels = static_cast<std::int64_t>(ptr.shape(0)) - 1;
    const std::int64_t size = static_cast<std::int64_t>(S.shape(0));
    nb::gil_scoped_release release;
    double operations = 0.0;
    std::vector<double> per_column(size + 1, 0.0);
    // Where a level's columns in the dense part begin.
    auto dense_from = [&](std::int64_t i) {
        const std::int32_t *from = ind.data() + ptr.data()[i], *to = ind.data() + ptr.data()[i + 1];
        return core == 0 ? ptr.data()[i]
                         : std::lower_bound(from, to, static_cast<std::int32_t>(core)) - ind.data();
    };
    for (std::int64_t i = 0; i < n_levels; ++i) {
        const std::int64_t m = ptr.data()[i + 1] - dense_from(i);
        operations += 0.5 * k * m * m;
    }
    const int threads = worthwhile_threads(operations);
    if (threads > 1) {
        for (std::int64_t i = 0; i < n_levels; ++i) {
            const std::int64_t begin = dense_from(i), m = ptr.data()[i + 1] - begin;
            for (std::int64_t b = 0; b < m; ++b)
                per_column[ind.data()[begin + b] - core + 1] += m - b;
        }
        for (std::int64_t c = 0; c < size; ++c) per_column[c + 1] += per_column[c];
    }
    with_block_size(k, [&](auto constant) {
        constexpr int K = decltype(constant)::value;
        auto columns = [&](int, std::int64_t first, std::int64_t last) {
            for (std::int64_t i = 0; i < n_levels; ++i) {
                const std::int64_t begin = dense_from(i), m = ptr.data()[i + 1] - begin;
                const double *u = U.data() + k * (head * (i + 1) + begin);
                const std::int32_t *at = ind.data() + begin;
                std::int64_t b = threads > 1 ? std::lower_bound(at, at + m, core + first) - at : 0;
                for (; b < m && at[b] < core + last; ++b) {
                    double *column = S.data() + (at[b] - core) * size - core;
                    const double *ub = u + b * k;
                    for (std::int64_t a = b; a < m; ++a)
                        column[at[a]] -= column_product<K>(k, u + a * k, ub);
                }
            }
        };
        parallel_ranges(size, threads, [&](std::int64_t c) { return per_column[c]; }, columns);
    });
}

// The same subtraction into the blocks of an outer factor: its diagonal blocks and its panels. `at`
// is the place of the outer factor's columns in the inner head.
inline void subtract_from_outer(ConstDoubles U, Offsets ptr, std::int64_t head, std::int64_t k,
                                std::int64_t at, Codes parent, Codes relative, Offsets outer_ptr,
                                std::int64_t outer_head, Doubles outer_diag, Doubles outer_panel) {
    const std::int64_t n_levels = static_cast<std::int64_t>(ptr.shape(0)) - 1;
    const std::int64_t ko = static_cast<std::int64_t>(outer_diag.shape(1));
    nb::gil_scoped_release release;
    with_block_size(k, [&](auto constant) {
        constexpr int K = decltype(constant)::value;
        for (std::int64_t i = 0; i < n_levels; ++i) {
            const std::int64_t begin = ptr.data()[i], m = ptr.data()[i + 1] - begin;
            const std::int64_t j = parent.data()[i];
            const double *u = U.data() + k * (head * i + begin);
            const double *own = u + k * at;
            double *D = outer_diag.data() + j * ko * ko;
            double *G = outer_panel.data() + ko * (outer_head * j + outer_ptr.data()[j]);
            auto subtract = [&](const double *from, double *to, std::int64_t stride) {
                for (std::int64_t a = 0; a < ko; ++a)
                    to[a * stride] -= column_product<K>(k, own + a * k, from);
            };
            for (std::int64_t b = 0; b < ko; ++b) subtract(own + b * k, D + b, ko);
            for (std::int64_t c = at + ko; c < head; ++c)
                subtract(u + c * k, G + (c - at - ko) * ko, 1);
            for (std::int64_t c = 0; c < m; ++c)
                subtract(u + (head + c) * k, G + (outer_head + relative.data()[begin + c]) * ko, 1);
        }
    });
}

} // namespace kernels
