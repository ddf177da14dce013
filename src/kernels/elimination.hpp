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

// S[ind, ind] -= U' U over the levels, lower triangle of the remainder's dense part, which begins at
// column `core`. Columns of S are shared out: every thread goes through all levels and writes its
// own columns only.
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
                    for (std::int64_t a = b; a < m; ++a) {
                        const double *ua = u + a * k;
                        double product = 0.0;
                        if constexpr (K == Eigen::Dynamic) {
                            for (std::int64_t j = 0; j < k; ++j) product += ua[j] * ub[j];
                        } else {
                            for (int j = 0; j < K; ++j) product += ua[j] * ub[j];
                        }
                        column[at[a]] -= product;
                    }
                }
            }
        };
        parallel_ranges(size, threads, [&](std::int64_t c) { return per_column[c]; }, columns);
    });
}

// The same subtraction into the blocks of an outer factor: its diagonal blocks and its panels.
// `at` is the place of the outer factor's columns in the inner head.
inline void subtract_from_outer(ConstDoubles U, Offsets ptr, std::int64_t head, std::int64_t k,
                                std::int64_t at, Codes parent, Codes relative, Offsets outer_ptr,
                                std::int64_t outer_head, Doubles outer_diag, Doubles outer_panel) {
    const std::int64_t n_levels = static_cast<std::int64_t>(ptr.shape(0)) - 1;
    const std::int64_t ko = static_cast<std::int64_t>(outer_diag.shape(1));
    nb::gil_scoped_release release;
    for (std::int64_t i = 0; i < n_levels; ++i) {
        const std::int64_t begin = ptr.data()[i], m = ptr.data()[i + 1] - begin;
        const std::int64_t j = parent.data()[i];
        const double *u = U.data() + k * (head * i + begin);
        const double *own = u + k * at;
        double *D = outer_diag.data() + j * ko * ko;
        double *G = outer_panel.data() + ko * (outer_head * j + outer_ptr.data()[j]);
        auto subtract = [&](const double *from, double *to, std::int64_t stride) {
            for (std::int64_t a = 0; a < ko; ++a) {
                double product = 0.0;
                for (std::int64_t c = 0; c < k; ++c) product += own[a * k + c] * from[c];
                to[a * stride] -= product;
            }
        };
        for (std::int64_t b = 0; b < ko; ++b) subtract(own + b * k, D + b, ko);
        for (std::int64_t c = at + ko; c < head; ++c)
            subtract(u + c * k, G + (c - at - ko) * ko, 1);
        for (std::int64_t c = 0; c < m; ++c)
            subtract(u + (head + c) * k, G + (outer_head + relative.data()[begin + c]) * ko, 1);
    }
}

// Forward substitution of one factor: solved[i] = L^-1 T' rhs[i], and what follows from it is taken
// off the right-hand sides of the outer factors and of the remainder (rows below n_remainder only).
inline void forward_levels(ConstDoubles T, ConstDoubles L, ConstDoubles U, Offsets ptr, Codes ind,
                           std::vector<Codes> parents, ConstDoubles rhs, Doubles solved,
                           std::vector<Doubles> outer_rhs, Doubles remainder_rhs) {
    const std::int64_t k = static_cast<std::int64_t>(T.shape(0));
    const std::int64_t n_levels = static_cast<std::int64_t>(ptr.shape(0)) - 1;
    const std::int64_t columns = static_cast<std::int64_t>(rhs.shape(2));
    const std::int64_t n_remainder = static_cast<std::int64_t>(remainder_rhs.shape(0));
    std::int64_t head = 0;
    for (auto &o : outer_rhs) head += static_cast<std::int64_t>(o.shape(1));
    nb::gil_scoped_release release;
    RowMajorMatrix scaled(k, columns);
    ConstRowMajorMap t(T.data(), k, k);
    for (std::int64_t i = 0; i < n_levels; ++i) {
        ConstRowMajorMap r(rhs.data() + i * k * columns, k, columns);
        ConstRowMajorMap Li(L.data() + i * k * k, k, k);
        RowMajorMap f(solved.data() + i * k * columns, k, columns);
        scaled.noalias() = t.transpose() * r;
        Li.triangularView<Eigen::Lower>().solveInPlace(scaled);
        f = scaled;
        const std::int64_t begin = ptr.data()[i], m = ptr.data()[i + 1] - begin;
        const double *u = U.data() + k * (head * i + begin);
        auto subtract = [&](const double *uc, double *to) {
            for (std::int64_t a = 0; a < k; ++a)
                for (std::int64_t c = 0; c < columns; ++c) to[c] -= uc[a] * scaled(a, c);
        };
        std::int64_t column = 0;
        for (std::size_t g = 0; g < outer_rhs.size(); ++g) {
            const std::int64_t ko = static_cast<std::int64_t>(outer_rhs[g].shape(1));
            const std::int64_t j = parents[g].data()[i];
            for (std::int64_t a = 0; a < ko; ++a, ++column)
                subtract(u + column * k, outer_rhs[g].data() + (j * ko + a) * columns);
        }
        for (std::int64_t c = 0; c < m; ++c) {
            const std::int64_t at = ind.data()[begin + c];
            if (at >= n_remainder) break;
            subtract(u + (head + c) * k, remainder_rhs.data() + at * columns);
        }
    }
}

// Back substitution of one factor: effects[i] = T L^-T (solved[i] - U b), b = the effects of the
// outer factors and of the remainder, already known.
inline void backward_levels(ConstDoubles T, ConstDoubles L, ConstDoubles U, Offsets ptr, Codes ind,
                            std::vector<Codes> parents, ConstDoubles solved, Doubles effects,
                            std::vector<ConstDoubles> outer_effects,
                            ConstDoubles remainder_effects) {
    const std::int64_t k = static_cast<std::int64_t>(T.shape(0));
    const std::int64_t n_levels = static_cast<std::int64_t>(ptr.shape(0)) - 1;
    const std::int64_t columns = static_cast<std::int64_t>(solved.shape(2));
    const std::int64_t n_remainder = static_cast<std::int64_t>(remainder_effects.shape(0));
    std::int64_t head = 0;
    for (auto &o : outer_effects) head += static_cast<std::int64_t>(o.shape(1));
    nb::gil_scoped_release release;
    RowMajorMatrix left(k, columns);
    ConstRowMajorMap t(T.data(), k, k);
    for (std::int64_t i = 0; i < n_levels; ++i) {
        ConstRowMajorMap Li(L.data() + i * k * k, k, k);
        left = ConstRowMajorMap(solved.data() + i * k * columns, k, columns);
        const std::int64_t begin = ptr.data()[i], m = ptr.data()[i + 1] - begin;
        const double *u = U.data() + k * (head * i + begin);
        auto subtract = [&](const double *uc, const double *b) {
            for (std::int64_t a = 0; a < k; ++a)
                for (std::int64_t c = 0; c < columns; ++c) left(a, c) -= uc[a] * b[c];
        };
        std::int64_t column = 0;
        for (std::size_t g = 0; g < outer_effects.size(); ++g) {
            const std::int64_t ko = static_cast<std::int64_t>(outer_effects[g].shape(1));
            const std::int64_t j = parents[g].data()[i];
            for (std::int64_t a = 0; a < ko; ++a, ++column)
                subtract(u + column * k, outer_effects[g].data() + (j * ko + a) * columns);
        }
        for (std::int64_t c = 0; c < m; ++c) {
            const std::int64_t at = ind.data()[begin + c];
            if (at >= n_remainder) break;
            subtract(u + (head + c) * k, remainder_effects.data() + at * columns);
        }
        Li.transpose().triangularView<Eigen::Upper>().solveInPlace(left);
        RowMajorMap(effects.data() + i * k * columns, k, columns).noalias() = t * left;
    }
}

// One factor's share of A v: products with its diagonal blocks and panels, in both directions.
inline void multiply_levels(ConstDoubles diag, ConstDoubles panel, Offsets ptr, Codes ind,
                            std::vector<Codes> parents, ConstDoubles v,
                            std::vector<ConstDoubles> outer_v, ConstDoubles remainder_v,
                            Doubles product, std::vector<Doubles> outer_product,
                            Doubles remainder_product) {
    const std::int64_t k = static_cast<std::int64_t>(diag.shape(1));
    const std::int64_t n_levels = static_cast<std::int64_t>(ptr.shape(0)) - 1;
    const std::int64_t columns = static_cast<std::int64_t>(v.shape(2));
    const std::int64_t n_remainder = static_cast<std::int64_t>(remainder_v.shape(0));
    std::int64_t head = 0;
    for (auto &o : outer_v) head += static_cast<std::int64_t>(o.shape(1));
    nb::gil_scoped_release release;
    for (std::int64_t i = 0; i < n_levels; ++i) {
        const double *own = v.data() + i * k * columns;
        double *out = product.data() + i * k * columns;
        RowMajorMap(out, k, columns).noalias() +=
            ConstRowMajorMap(diag.data() + i * k * k, k, k) * ConstRowMajorMap(own, k, columns);
        const std::int64_t begin = ptr.data()[i], m = ptr.data()[i + 1] - begin;
        const double *g_ = panel.data() + k * (head * i + begin);
        auto both = [&](const double *gc, const double *from, double *to) {
            for (std::int64_t a = 0; a < k; ++a)
                for (std::int64_t c = 0; c < columns; ++c) {
                    out[a * columns + c] += gc[a] * from[c];
                    to[c] += gc[a] * own[a * columns + c];
                }
        };
        std::int64_t column = 0;
        for (std::size_t g = 0; g < outer_v.size(); ++g) {
            const std::int64_t ko = static_cast<std::int64_t>(outer_v[g].shape(1));
            const std::int64_t j = parents[g].data()[i];
            for (std::int64_t a = 0; a < ko; ++a, ++column) {
                const std::int64_t at = (j * ko + a) * columns;
                both(g_ + column * k, outer_v[g].data() + at, outer_product[g].data() + at);
            }
        }
        for (std::int64_t c = 0; c < m; ++c) {
            const std::int64_t at = ind.data()[begin + c];
            if (at >= n_remainder) break;
            both(g_ + (head + c) * k, remainder_v.data() + at * columns,
                 remainder_product.data() + at * columns);
        }
    }
}

// A[:, columns] <- A[:, columns] (I (x) T) for one factor of the remainder, in place; T' if
// transposed.
inline void scale_columns(FortranDoubles A, std::int64_t offset, std::int64_t n_levels,
                          ConstDoubles T, bool transposed) {
    const std::int64_t k = static_cast<std::int64_t>(T.shape(0));
    const std::int64_t rows = static_cast<std::int64_t>(A.shape(0));
    nb::gil_scoped_release release;
    ConstRowMajorMap t(T.data(), k, k);
    const Eigen::MatrixXd factor = transposed ? Eigen::MatrixXd(t.transpose()) : Eigen::MatrixXd(t);
    Eigen::MatrixXd scaled(rows, k);
    for (std::int64_t level = 0; level < n_levels; ++level) {
        Eigen::Map<Eigen::MatrixXd> block(A.data() + (offset + level * k) * rows, rows, k);
        if (k == 1) {
            block *= factor(0, 0);
        } else {
            scaled.noalias() = block.lazyProduct(factor);
            block = scaled;
        }
    }
}

// A[rows, :] <- (I (x) T)' A[rows, :] for one factor of the remainder, in place; T if transposed.
inline void scale_rows(FortranDoubles A, std::int64_t offset, std::int64_t n_levels, ConstDoubles T,
                       bool transposed) {
    const std::int64_t k = static_cast<std::int64_t>(T.shape(0));
    const std::int64_t rows = static_cast<std::int64_t>(A.shape(0));
    const std::int64_t columns = static_cast<std::int64_t>(A.shape(1));
    nb::gil_scoped_release release;
    ConstRowMajorMap t(T.data(), k, k);
    const Eigen::MatrixXd factor = transposed ? Eigen::MatrixXd(t) : Eigen::MatrixXd(t.transpose());
    Eigen::MatrixXd scaled(k, n_levels);
    for (std::int64_t column = 0; column < columns; ++column) {
        Eigen::Map<Eigen::MatrixXd> block(A.data() + column * rows + offset, k, n_levels);
        if (k == 1) {
            block *= factor(0, 0);
        } else {
            scaled.noalias() = factor.lazyProduct(block);
            block = scaled;
        }
    }
}

// Copies the lower triangle of a square matrix onto its upper triangle, tile by tile.
inline void mirror_lower(FortranDoubles A) {
    const std::int64_t n = static_cast<std::int64_t>(A.shape(0));
    constexpr std::int64_t tile = 64;
    double *a = A.data();
    nb::gil_scoped_release release;
    for (std::int64_t c0 = 0; c0 < n; c0 += tile)
        for (std::int64_t r0 = c0; r0 < n; r0 += tile)
            for (std::int64_t c = c0; c < std::min(c0 + tile, n); ++c)
                for (std::int64_t r = std::max(r0, c + 1); r < std::min(r0 + tile, n); ++r)
                    a[r * n + c] = a[c * n + r];
}

} // namespace kernels
