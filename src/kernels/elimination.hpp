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

// Rows that a chain factor's panels refer to: those of the factors further out, one level each, and
// those of the remainder; `columns` values a row.
template <class Array> struct OuterRows {
    const std::vector<Codes> &parents;
    std::vector<Array> &outer;
    Offsets ptr;
    Codes ind;
    std::int64_t columns, n_remainder;
    std::int64_t head = 0;

    OuterRows(const std::vector<Codes> &parents_, std::vector<Array> &outer_, Offsets ptr_,
              Codes ind_, const Array &remainder)
        : parents(parents_), outer(outer_), ptr(ptr_), ind(ind_),
          columns(static_cast<std::int64_t>(remainder.shape(1))),
          n_remainder(static_cast<std::int64_t>(remainder.shape(0))) {
        for (auto &o : outer) head += static_cast<std::int64_t>(o.shape(1));
    }

    // Where the panel of level i, of k rows, starts.
    std::int64_t panel(std::int64_t i, std::int64_t k) const {
        return k * (head * i + ptr.data()[i]);
    }

    // Calls visit(panel column, row) for level i; rows of the remainder are taken from `remainder`.
    template <class Value, class Visit>
    void visit(std::int64_t i, Value *remainder, Visit &&visit) const {
        std::int64_t column = 0;
        for (std::size_t g = 0; g < outer.size(); ++g) {
            const std::int64_t ko = static_cast<std::int64_t>(outer[g].shape(1));
            const std::int64_t j = parents[g].data()[i];
            for (std::int64_t a = 0; a < ko; ++a, ++column)
                visit(column, outer[g].data() + (j * ko + a) * columns);
        }
        for (std::int64_t c = ptr.data()[i]; c < ptr.data()[i + 1]; ++c, ++column) {
            const std::int64_t at = ind.data()[c];
            if (at >= n_remainder) break;
            visit(column, remainder + at * columns);
        }
    }

    // Work of all levels, for the number of threads. Levels that share a level further out must
    // not write to it at the same time.
    int threads(std::int64_t k, bool writes) const {
        if (writes && !outer.empty()) return 1;
        const std::int64_t n_levels = static_cast<std::int64_t>(ptr.shape(0)) - 1;
        const double rows = static_cast<double>(ptr.data()[n_levels] + (head + k) * n_levels);
        return worthwhile_threads(4.0 * rows * k * columns);
    }
};

// x (k x columns, row-major) <- L^-1 x, or L^-T x; L is row-major.
template <int K>
void solve_small(bool transpose, std::int64_t k_, const double *L, double *x,
                 std::int64_t columns) {
    const std::int64_t k = K == Eigen::Dynamic ? k_ : K;
    for (std::int64_t step = 0; step < k; ++step) {
        const std::int64_t a = transpose ? k - 1 - step : step;
        for (std::int64_t earlier = 0; earlier < step; ++earlier) {
            const std::int64_t b = transpose ? k - 1 - earlier : earlier;
            const double factor = transpose ? L[b * k + a] : L[a * k + b];
            for (std::int64_t c = 0; c < columns; ++c)
                x[a * columns + c] -= factor * x[b * columns + c];
        }
        const double inverse = 1.0 / L[a * k + a];
        for (std::int64_t c = 0; c < columns; ++c) x[a * columns + c] *= inverse;
    }
}

// out (k x columns) <- T x, or T' x.
template <int K>
void multiply_small(bool transpose, std::int64_t k_, const double *T, const double *x, double *out,
                    std::int64_t columns) {
    const std::int64_t k = K == Eigen::Dynamic ? k_ : K;
    for (std::int64_t a = 0; a < k; ++a)
        for (std::int64_t c = 0; c < columns; ++c) {
            double sum = 0.0;
            for (std::int64_t b = 0; b < k; ++b)
                sum += (transpose ? T[b * k + a] : T[a * k + b]) * x[b * columns + c];
            out[a * columns + c] = sum;
        }
}

// Runs body(thread, first, last, remainder) over the levels; threads other than the first add up
// what they write to the remainder's rows on the side.
template <class Array, class Body>
void over_levels(const OuterRows<Array> &rows, std::int64_t k, double *remainder, Body &&body) {
    const std::int64_t n_levels = static_cast<std::int64_t>(rows.ptr.shape(0)) - 1;
    const std::int64_t size = rows.n_remainder * rows.columns;
    const int threads = rows.threads(k, true);
    std::vector<std::vector<double>> aside(threads);
    parallel_ranges(
        n_levels, threads,
        [&](std::int64_t i) { return double(rows.ptr.data()[i] + (rows.head + k) * i); },
        [&](int thread, std::int64_t first, std::int64_t last) {
            if (thread > 0) aside[thread].assign(size, 0.0);
            body(first, last, thread > 0 ? aside[thread].data() : remainder);
        });
    for (int thread = 1; thread < threads; ++thread)
        for (std::int64_t t = 0; t < size; ++t) remainder[t] += aside[thread][t];
}

// Forward substitution of one factor: solved[i] = L^-1 T' rhs[i], and what follows from it is taken
// off the right-hand sides of the outer factors and of the remainder (the rows it has).
inline void forward_levels(ConstDoubles T, ConstDoubles L, ConstDoubles U, Offsets ptr, Codes ind,
                           std::vector<Codes> parents, ConstDoubles rhs, Doubles solved,
                           std::vector<Doubles> outer_rhs, Doubles remainder_rhs) {
    const std::int64_t k = static_cast<std::int64_t>(T.shape(0));
    const OuterRows<Doubles> rows(parents, outer_rhs, ptr, ind, remainder_rhs);
    const std::int64_t columns = rows.columns;
    nb::gil_scoped_release release;
    with_block_size(k, [&](auto constant) {
        constexpr int K = decltype(constant)::value;
        over_levels(rows, k, remainder_rhs.data(), [&](auto first, auto last, double *remainder) {
            for (std::int64_t i = first; i < last; ++i) {
                double *f = solved.data() + i * k * columns;
                multiply_small<K>(true, k, T.data(), rhs.data() + i * k * columns, f, columns);
                solve_small<K>(false, k, L.data() + i * k * k, f, columns);
                const double *u = U.data() + rows.panel(i, k);
                rows.visit(i, remainder, [&](std::int64_t column, double *to) {
                    const std::int64_t ks = K == Eigen::Dynamic ? k : K;
                    for (std::int64_t a = 0; a < ks; ++a)
                        for (std::int64_t c = 0; c < columns; ++c)
                            to[c] -= u[column * ks + a] * f[a * columns + c];
                });
            }
        });
    });
}

// Back substitution of one factor: effects[i] = T L^-T (solved[i] - U b), b = the effects of the
// outer factors and of the remainder, already known.
inline void backward_levels(ConstDoubles T, ConstDoubles L, ConstDoubles U, Offsets ptr, Codes ind,
                            std::vector<Codes> parents, ConstDoubles solved, Doubles effects,
                            std::vector<ConstDoubles> outer_effects,
                            ConstDoubles remainder_effects) {
    const std::int64_t k = static_cast<std::int64_t>(T.shape(0));
    const std::int64_t n_levels = static_cast<std::int64_t>(ptr.shape(0)) - 1;
    const OuterRows<ConstDoubles> rows(parents, outer_effects, ptr, ind, remainder_effects);
    const std::int64_t columns = rows.columns;
    nb::gil_scoped_release release;
    with_block_size(k, [&](auto constant) {
        constexpr int K = decltype(constant)::value;
        auto range = [&](int, std::int64_t first, std::int64_t last) {
            std::vector<double> left(k * columns);
            for (std::int64_t i = first; i < last; ++i) {
                const double *f = solved.data() + i * k * columns;
                std::copy(f, f + k * columns, left.begin());
                const double *u = U.data() + rows.panel(i, k);
                rows.visit(i, remainder_effects.data(), [&](std::int64_t column, const double *b) {
                    const std::int64_t ks = K == Eigen::Dynamic ? k : K;
                    for (std::int64_t a = 0; a < ks; ++a)
                        for (std::int64_t c = 0; c < columns; ++c)
                            left[a * columns + c] -= u[column * ks + a] * b[c];
                });
                solve_small<K>(true, k, L.data() + i * k * k, left.data(), columns);
                multiply_small<K>(false, k, T.data(), left.data(),
                                  effects.data() + i * k * columns, columns);
            }
        };
        parallel_ranges(
            n_levels, rows.threads(k, false),
            [&](std::int64_t i) { return double(ptr.data()[i] + (rows.head + k) * i); }, range);
    });
}

// One factor's share of A v: products with its diagonal blocks and panels, in both directions.
inline void multiply_levels(ConstDoubles diag, ConstDoubles panel, Offsets ptr, Codes ind,
                            std::vector<Codes> parents, ConstDoubles v,
                            std::vector<ConstDoubles> outer_v, ConstDoubles remainder_v,
                            Doubles product, std::vector<Doubles> outer_product,
                            Doubles remainder_product) {
    const std::int64_t k = static_cast<std::int64_t>(diag.shape(1));
    const OuterRows<Doubles> rows(parents, outer_product, ptr, ind, remainder_product);
    const OuterRows<ConstDoubles> sources(parents, outer_v, ptr, ind, remainder_v);
    const std::int64_t columns = rows.columns;
    nb::gil_scoped_release release;
    with_block_size(k, [&](auto constant) {
        constexpr int K = decltype(constant)::value;
        over_levels(rows, k, remainder_product.data(),
                    [&](auto first, auto last, double *remainder) {
                        std::vector<double> own_product(k * columns);
                        for (std::int64_t i = first; i < last; ++i) {
                            const std::int64_t ks = K == Eigen::Dynamic ? k : K;
                            const double *own = v.data() + i * k * columns;
                            double *out = product.data() + i * k * columns;
                            multiply_small<K>(false, k, diag.data() + i * k * k, own,
                                              own_product.data(), columns);
                            for (std::int64_t t = 0; t < ks * columns; ++t) out[t] += own_product[t];
                            const double *g = panel.data() + rows.panel(i, k);
                            rows.visit(i, remainder, [&](std::int64_t column, double *to) {
                                for (std::int64_t a = 0; a < ks; ++a)
                                    for (std::int64_t c = 0; c < columns; ++c)
                                        to[c] += g[column * ks + a] * own[a * columns + c];
                            });
                            sources.visit(i, remainder_v.data(),
                                          [&](std::int64_t column, const double *from) {
                                              for (std::int64_t a = 0; a < ks; ++a)
                                                  for (std::int64_t c = 0; c < columns; ++c)
                                                      out[a * columns + c] +=
                                                          g[column * ks + a] * from[c];
                                          });
                        }
                    });
    });
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
