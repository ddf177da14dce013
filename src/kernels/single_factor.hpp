// Objective, gradient and average information of a model with one grouping factor, in two passes
// over its levels that keep nothing per level: the common case, and the one that bootstraps and
// power analyses repeat thousands of times. The formulas are those of elimination.hpp and
// selected_inverse.hpp with the border [X y] as the whole remainder.
#pragma once

#include "arrays.hpp"
#include "descent.hpp"
#include "parallel.hpp"

#include <Eigen/Cholesky>
#include <cmath>
#include <limits>
#include <nanobind/stl/tuple.h>
#include <optional>
#include <stdexcept>

namespace kernels {

// Blocks of A: diag (l, k, k), panel (k x (p + 1) per level, columns contiguous), and the corner of
// [X y], (p + 1) square.
struct SingleFactor {
    std::int64_t k, n_levels, width;
    const double *diag, *panel, *border;

    SingleFactor(const ConstDoubles &diag_, const ConstDoubles &panel_,
                 const ConstFortranDoubles &border_)
        : k(static_cast<std::int64_t>(diag_.shape(1))),
          n_levels(static_cast<std::int64_t>(diag_.shape(0))),
          width(static_cast<std::int64_t>(border_.shape(0))), diag(diag_.data()),
          panel(panel_.data()), border(border_.data()) {}
};

// Sums over levels: N = [A L~ M^-1]_ii, B = [Z'PZ]_ii, CC = c c' (k x k); and `information`, for the
// m = k (k + 1) / 2 symmetric directions E (lower triangle, column by column), v'Z'WZv - r'M^-1 r
// with v = E c.
struct SingleFactorSums {
    double logdet_random, logdet_with_fixed, rho2;
    bool definite;
    RowMajorMatrix N, B, CC;
    Eigen::MatrixXd information;
};

// T is row-major. Without the GIL.
inline SingleFactorSums single_factor_sums(const double *T, const SingleFactor &A,
                                           bool with_fixed) {
    using Eigen::MatrixXd;
    const std::int64_t k = A.k, n_levels = A.n_levels, width = A.width, p = width - 1;
    const std::int64_t m = k * (k + 1) / 2;
    SingleFactorSums out;
    double logdet = 0.0, logdet_fixed = 0.0, rho2 = 0.0;
    bool definite = true;
    {
        const int threads =
            worthwhile_threads(double(n_levels) * k * (width * (k + width) + 4.0 * k * k + m * m));
        MatrixXd S = Eigen::Map<const MatrixXd>(A.border, width, width);
        std::vector<MatrixXd> taken(threads, MatrixXd::Zero(width, width));
        std::vector<double> logdets(threads, 0.0);
        auto share = [&](std::int64_t i) { return static_cast<double>(i); };
        with_block_size(k, [&](auto constant) {
            constexpr int K = decltype(constant)::value;
            const SquareMatrix<K> t = ConstSquareMap<K>(T, k, k);
            const SquareMatrix<K> identity = SquareMatrix<K>::Identity(k, k);
            auto first_pass = [&](int thread, std::int64_t first, std::int64_t last) {
                SquareMatrix<K> D(k, k), half(k, k);
                Eigen::LLT<SquareMatrix<K>> llt(k);
                Panel<K> U(k, width);
                MatrixXd &gone = taken[thread];
                for (std::int64_t i = first; i < last; ++i) {
                    ConstSquareMap<K> Ai(A.diag + i * k * k, k, k);
                    D.noalias() = t.transpose() * (Ai * t).eval();
                    D.diagonal().array() += 1.0;
                    llt.compute(D);
                    if (llt.info() != Eigen::Success) {
                        logdets[thread] = std::nan("");
                        return;
                    }
                    double product = 1.0;
                    for (std::int64_t a = 0; a < k; ++a) product *= llt.matrixLLT()(a, a);
                    logdets[thread] += 2.0 * std::log(product);
                    half = llt.matrixL().solve(SquareMatrix<K>(t.transpose()));
                    U = half.lazyProduct(ConstPanelMap<K>(A.panel + i * k * width, k, width));
                    for (std::int64_t c = 0; c < width; ++c)
                        for (std::int64_t r = c; r < width; ++r)
                            gone(r, c) += U.col(r).dot(U.col(c));
                }
            };
            parallel_ranges(n_levels, threads, share, first_pass);
            for (int thread = 0; thread < threads; ++thread) {
                S -= taken[thread];
                logdet += logdets[thread];
            }
            // S = C C' on X; the last pivot is the residual sum of squares.
            const Eigen::LLT<MatrixXd> fixed(S.topLeftCorner(p, p));
            definite = std::isfinite(logdet) && (p == 0 || fixed.info() == Eigen::Success);
            if (!definite) return;
            Eigen::VectorXd beta(p), Xy = S.row(p).head(p).transpose();
            MatrixXd inverse = MatrixXd::Zero(p, p);
            if (p > 0) {
                for (std::int64_t a = 0; a < p; ++a)
                    logdet_fixed += 2.0 * std::log(fixed.matrixLLT()(a, a));
                const Eigen::VectorXd forward = fixed.matrixL().solve(Xy);
                rho2 = -forward.squaredNorm();
                beta = fixed.solve(Xy);
                if (with_fixed) inverse = fixed.solve(MatrixXd::Identity(p, p));
            }
            rho2 += S(p, p);
            // What is left of y'y by no more than rounding is nothing: searches are not drawn there.
            constexpr double rounding = 16.0 * std::numeric_limits<double>::epsilon();
            if (!(rho2 > rounding * A.border[width * width - 1])) rho2 = 0.0;

            struct Sums {
                SquareMatrix<K> N, B, CC;
                MatrixXd information, border;
            };
            std::vector<Sums> sums(
                threads, {SquareMatrix<K>::Zero(k, k), SquareMatrix<K>::Zero(k, k),
                          SquareMatrix<K>::Zero(k, k), MatrixXd::Zero(m, m), MatrixXd::Zero(p, m)});
            auto second_pass = [&](int thread, std::int64_t first, std::int64_t last) {
                Sums &sum = sums[thread];
                SquareMatrix<K> D(k, k), half(k, k), E(k, k), TD(k, k), Q(k, k), rest(k, k),
                    root(k, k), L(k, k);
                Eigen::LLT<SquareMatrix<K>> llt(k);
                Panel<K> GP(k, p);
                Eigen::Matrix<double, K, 1> c(k), y(k);
                Eigen::Matrix<double, K, Eigen::Dynamic> v(k, m), Av(k, m), h(k, m);
                Q.setZero();
                for (std::int64_t i = first; i < last; ++i) {
                    ConstSquareMap<K> Ai(A.diag + i * k * k, k, k);
                    ConstPanelMap<K> G(A.panel + i * k * width, k, width);
                    D.noalias() = t.transpose() * (Ai * t).eval();
                    D.diagonal().array() += 1.0;
                    llt.compute(D);
                    L = llt.matrixL();
                    half = L.template triangularView<Eigen::Lower>().solve(
                        SquareMatrix<K>(t.transpose()));
                    E.noalias() = half.transpose() * half;
                    TD = L.transpose().template triangularView<Eigen::Upper>().solve(half)
                             .transpose();
                    rest = identity - Ai * E;
                    if (with_fixed && p > 0) {
                        GP.noalias() = G.leftCols(p) * inverse;
                        Q.noalias() = GP * G.leftCols(p).transpose();
                    }
                    sum.N += (Ai - rest * Q) * TD;
                    root.noalias() = half * Ai;
                    sum.B += Ai - root.transpose() * root - rest * Q * rest.transpose();
                    // c = (I - A E)(Z'W(y - X beta))
                    y = G.col(p);
                    if (p > 0) y.noalias() -= G.leftCols(p) * beta;
                    c.noalias() = rest * y;
                    sum.CC += c * c.transpose();
                    v.setZero();
                    std::int64_t direction = 0;
                    for (std::int64_t b = 0; b < k; ++b)
                        for (std::int64_t a = b; a < k; ++a, ++direction) {
                            v(a, direction) = c(b);
                            v(b, direction) = c(a);
                        }
                    Av.noalias() = Ai * v;
                    h.noalias() = half * Av;
                    for (std::int64_t b = 0; b < m; ++b)
                        for (std::int64_t a = b; a < m; ++a)
                            sum.information(a, b) += v.col(a).dot(Av.col(b)) - h.col(a).dot(h.col(b));
                    // What is left for the fixed effects: X'WZ v - X'WZ E Z'WZ v.
                    if (with_fixed && p > 0) {
                        v.noalias() -= half.transpose() * h;
                        sum.border.noalias() += G.leftCols(p).transpose() * v;
                    }
                }
            };
            parallel_ranges(n_levels, threads, share, second_pass);
            for (int thread = 1; thread < threads; ++thread) {
                sums[0].N += sums[thread].N;
                sums[0].B += sums[thread].B;
                sums[0].CC += sums[thread].CC;
                sums[0].information += sums[thread].information;
                sums[0].border += sums[thread].border;
            }
            out.N = sums[0].N;
            out.B = sums[0].B;
            out.CC = sums[0].CC;
            out.information = sums[0].information.template selfadjointView<Eigen::Lower>();
            if (with_fixed && p > 0) {
                const MatrixXd r = fixed.matrixL().solve(sums[0].border);
                out.information.noalias() -= r.transpose() * r;
            }
        });
    }
    out.definite = definite;
    out.logdet_random = logdet;
    out.logdet_with_fixed = logdet + logdet_fixed;
    out.rho2 = rho2;
    return out;
}

// Objective, gradient and local model at one theta, as engine/objective.py has them, if they exist.
inline std::optional<SigmaPoint> single_factor_point(const Vector &theta, const SingleFactor &A,
                                                     bool reml, double df,
                                                     double sum_log_weights) {
    const std::int64_t k = A.k, m = theta.size();
    RowMajorMatrix T = RowMajorMatrix::Zero(k, k);
    std::int64_t entry = 0;
    for (std::int64_t c = 0; c < k; ++c)
        for (std::int64_t r = c; r < k; ++r) T(r, c) = theta(entry++);
    const SingleFactorSums sums = single_factor_sums(T.data(), A, reml);
    if (!sums.definite || !(sums.rho2 > 0.0)) return std::nullopt;
    constexpr double two_pi = 6.283185307179586;
    const double sigma2 = sums.rho2 / df;
    SigmaPoint out{theta, Vector(m), Vector(m), Matrix(), {k}, 0.0};
    out.value = (reml ? sums.logdet_with_fixed : sums.logdet_random) +
                df * (1.0 + std::log(two_pi * sigma2)) - sum_log_weights;
    if (!std::isfinite(out.value)) return std::nullopt;
    const RowMajorMatrix slope = 2.0 * sums.N - 2.0 / sigma2 * sums.CC * T;
    Vector s(m);
    entry = 0;
    for (std::int64_t c = 0; c < k; ++c)
        for (std::int64_t r = c; r < k; ++r, ++entry) {
            const double weight = r == c ? 1.0 : 2.0;
            out.gradient(entry) = slope(r, c);
            s(entry) = weight * sums.CC(r, c) / sigma2;
            out.score(entry) = weight * sums.B(r, c) - s(entry);
        }
    out.information = sums.information / sigma2 - s * s.transpose() / df;
    return out;
}

// --- what Python sees -------------------------------------------------------------------------

// Searches for one term on one grouping factor: returns where it stops, evaluations, accepted
// steps, and their values.
inline auto descend_single_factor(ConstDoubles theta, ConstDoubles diag, ConstDoubles panel,
                                  ConstFortranDoubles border, bool reml, double df,
                                  double sum_log_weights, double tolerance, std::int64_t most,
                                  double radius) {
    const SingleFactor A(diag, panel, border);
    const Vector start = as_vector(theta);
    auto search = [&] {
        nb::gil_scoped_release release;
        return descend(
            [&](const Vector &x) { return single_factor_point(x, A, reml, df, sum_log_weights); },
            start, tolerance, most, radius);
    };
    Descent end = search();
    return nb::make_tuple(as_array(end.theta), end.evaluations, end.iterations,
                          owned_array(std::move(end.path)));
}

// The same from each row of `starts`; see descend_from_each.
inline auto descend_single_factor_from_each(ConstDoubles starts, ConstDoubles diag,
                                            ConstDoubles panel, ConstFortranDoubles border,
                                            bool reml, double df, double sum_log_weights,
                                            double tolerance, std::int64_t most) {
    const SingleFactor A(diag, panel, border);
    return descend_from_each(
        [&](const Vector &x) { return single_factor_point(x, A, reml, df, sum_log_weights); },
        starts, tolerance, most);
}

inline std::tuple<double, double, double>
evaluate_single_factor(ConstDoubles T, ConstDoubles diag, ConstDoubles panel,
                       ConstFortranDoubles border, bool with_fixed, Doubles N, Doubles B,
                       Doubles CC, Doubles information) {
    const SingleFactor A(diag, panel, border);
    SingleFactorSums sums;
    {
        nb::gil_scoped_release release;
        sums = single_factor_sums(T.data(), A, with_fixed);
    }
    if (!sums.definite) throw std::runtime_error("M(theta) is not positive definite");
    RowMajorMap(N.data(), A.k, A.k) = sums.N;
    RowMajorMap(B.data(), A.k, A.k) = sums.B;
    RowMajorMap(CC.data(), A.k, A.k) = sums.CC;
    const std::int64_t m = A.k * (A.k + 1) / 2;
    Eigen::Map<Eigen::MatrixXd>(information.data(), m, m) = sums.information;
    return {sums.logdet_random, sums.logdet_with_fixed, sums.rho2};
}

} // namespace kernels
