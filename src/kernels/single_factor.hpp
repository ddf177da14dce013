// Objective, gradient and average information of a model with one grouping factor, in two passes
// over its levels that keep nothing per level: the common case, and the one that bootstraps and
// power analyses repeat thousands of times. The formulas are those of elimination.hpp and
// selected_inverse.hpp with the border [X y] as the whole remainder.
#pragma once

#include "arrays.hpp"
#include "parallel.hpp"

#include <Eigen/Cholesky>
#include <cmath>
#include <nanobind/stl/tuple.h>
#include <stdexcept>

namespace kernels {

// diag (l, k, k) and panel (k x (p + 1) per level, columns contiguous) are blocks of A, `border` its
// (p + 1) x (p + 1) corner. Sums over levels go to N, B and CC (k x k): [A L~ M^-1]_ii, [Z'PZ]_ii
// and c c'; `information` gets, for the m = k (k + 1) / 2 symmetric directions E (lower triangle,
// column by column), sum v'Z'WZv - r'M^-1 r, with v = E c. Returns logdet M_q, logdet M_{q+p} and
// rho^2.
inline std::tuple<double, double, double>
evaluate_single_factor(ConstDoubles T, ConstDoubles diag, ConstDoubles panel,
                       ConstFortranDoubles border, bool with_fixed, Doubles N, Doubles B,
                       Doubles CC, Doubles information) {
    using Eigen::MatrixXd;
    const std::int64_t k = static_cast<std::int64_t>(T.shape(0));
    const std::int64_t n_levels = static_cast<std::int64_t>(diag.shape(0));
    const std::int64_t width = static_cast<std::int64_t>(border.shape(0)), p = width - 1;
    const std::int64_t m = k * (k + 1) / 2;
    double logdet = 0.0, logdet_fixed = 0.0, rho2 = 0.0;
    bool definite = true;
    {
        nb::gil_scoped_release release;
        const int threads =
            worthwhile_threads(double(n_levels) * k * (width * (k + width) + 4.0 * k * k + m * m));
        MatrixXd S = Eigen::Map<const MatrixXd>(border.data(), width, width);
        std::vector<MatrixXd> taken(threads, MatrixXd::Zero(width, width));
        std::vector<double> logdets(threads, 0.0);
        auto share = [&](std::int64_t i) { return static_cast<double>(i); };
        with_block_size(k, [&](auto constant) {
            constexpr int K = decltype(constant)::value;
            const SquareMatrix<K> t = ConstSquareMap<K>(T.data(), k, k);
            const SquareMatrix<K> identity = SquareMatrix<K>::Identity(k, k);
            auto first_pass = [&](int thread, std::int64_t first, std::int64_t last) {
                SquareMatrix<K> D(k, k), half(k, k);
                Eigen::LLT<SquareMatrix<K>> llt(k);
                Panel<K> U(k, width);
                MatrixXd &gone = taken[thread];
                for (std::int64_t i = first; i < last; ++i) {
                    ConstSquareMap<K> A(diag.data() + i * k * k, k, k);
                    D.noalias() = t.transpose() * (A * t).eval();
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
                    U = half.lazyProduct(ConstPanelMap<K>(panel.data() + i * k * width, k, width));
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
            rho2 = std::max(rho2 + S(p, p), 0.0);

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
                    ConstSquareMap<K> A(diag.data() + i * k * k, k, k);
                    ConstPanelMap<K> G(panel.data() + i * k * width, k, width);
                    D.noalias() = t.transpose() * (A * t).eval();
                    D.diagonal().array() += 1.0;
                    llt.compute(D);
                    L = llt.matrixL();
                    half = L.template triangularView<Eigen::Lower>().solve(
                        SquareMatrix<K>(t.transpose()));
                    E.noalias() = half.transpose() * half;
                    TD = L.transpose().template triangularView<Eigen::Upper>().solve(half)
                             .transpose();
                    rest = identity - A * E;
                    if (with_fixed && p > 0) {
                        GP.noalias() = G.leftCols(p) * inverse;
                        Q.noalias() = GP * G.leftCols(p).transpose();
                    }
                    sum.N += (A - rest * Q) * TD;
                    root.noalias() = half * A;
                    sum.B += A - root.transpose() * root - rest * Q * rest.transpose();
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
                    Av.noalias() = A * v;
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
            SquareMap<K>(N.data(), k, k) = sums[0].N;
            SquareMap<K>(B.data(), k, k) = sums[0].B;
            SquareMap<K>(CC.data(), k, k) = sums[0].CC;
            MatrixXd AI = sums[0].information.template selfadjointView<Eigen::Lower>();
            if (with_fixed && p > 0) {
                const MatrixXd r = fixed.matrixL().solve(sums[0].border);
                AI.noalias() -= r.transpose() * r;
            }
            Eigen::Map<MatrixXd>(information.data(), m, m) = AI;
        });
    }
    if (!definite) throw std::runtime_error("M(theta) is not positive definite");
    return {logdet, logdet + logdet_fixed, rho2};
}

} // namespace kernels
