// Searches in models whose random effects are few enough for dense matrices: all of
// [Z X y]'W[Z X y] in one, whatever the nesting and crossing. The formulas are those of
// engine/objective.py.
#pragma once

#include "arrays.hpp"
#include "descent.hpp"

#include <Eigen/Cholesky>
#include <cmath>
#include <optional>

namespace kernels {

// Columns of Z in the order of the factors, level by level; for each entry of theta its factor, row
// and column there.
struct DenseModel {
    Eigen::Map<const Matrix> G;
    std::vector<std::int64_t> levels, columns, entry_factor, entry_row, entry_column, sizes;
    bool reml;
    double df, sum_log_weights;
    std::int64_t q = 0, p = 0;

    DenseModel(const ConstFortranDoubles &G_, std::vector<std::int64_t> levels_,
               std::vector<std::int64_t> columns_, std::vector<std::int64_t> factor,
               std::vector<std::int64_t> row, std::vector<std::int64_t> column,
               std::vector<std::int64_t> sizes_, bool reml_, double df_, double sum_log_weights_)
        : G(G_.data(), static_cast<Eigen::Index>(G_.shape(0)),
            static_cast<Eigen::Index>(G_.shape(1))),
          levels(std::move(levels_)), columns(std::move(columns_)),
          entry_factor(std::move(factor)), entry_row(std::move(row)),
          entry_column(std::move(column)), sizes(std::move(sizes_)), reml(reml_), df(df_),
          sum_log_weights(sum_log_weights_) {
        for (std::size_t f = 0; f < levels.size(); ++f) q += levels[f] * columns[f];
        p = G.rows() - q - 1;
    }

    // body(factor, first column, columns) for every level.
    template <class Body> void each_level(Body &&body) const {
        std::int64_t at = 0;
        for (std::size_t f = 0; f < levels.size(); ++f)
            for (std::int64_t i = 0; i < levels[f]; ++i, at += columns[f])
                body(f, at, columns[f]);
    }
};

// The point at theta, if there is one.
inline std::optional<SigmaPoint> dense_point(const Vector &theta, const DenseModel &A) {
    const std::int64_t q = A.q, p = A.p, m = theta.size(), width = A.G.rows();
    const std::size_t n_factors = A.levels.size();
    std::vector<Matrix> T, F(n_factors), CC(n_factors);
    for (std::size_t f = 0; f < n_factors; ++f)
        T.push_back(Matrix::Zero(A.columns[f], A.columns[f]));
    for (std::int64_t e = 0; e < m; ++e)
        T[A.entry_factor[e]](A.entry_row[e], A.entry_column[e]) = theta(e);
    // K = Lambda'[G_Z. | .], M = K Lambda + I
    Matrix K(q, width), M(q, q);
    A.each_level([&](std::size_t f, std::int64_t at, std::int64_t k) {
        K.middleRows(at, k).noalias() = T[f].transpose() * A.G.middleRows(at, k);
    });
    A.each_level([&](std::size_t f, std::int64_t at, std::int64_t k) {
        M.middleCols(at, k).noalias() = K.middleCols(at, k) * T[f];
    });
    M.diagonal().array() += 1.0;
    const Eigen::LLT<Matrix> llt(M);
    if (llt.info() != Eigen::Success) return std::nullopt;
    const double logdet = 2.0 * llt.matrixLLT().diagonal().array().log().sum();
    llt.matrixL().solveInPlace(K);
    // S = [Z X y]'V0^-1 [Z X y]
    Matrix S = A.G;
    S.selfadjointView<Eigen::Lower>().rankUpdate(K.transpose(), -1.0);
    const Eigen::LLT<Matrix> fixed(S.block(q, q, p, p));
    if (p > 0 && fixed.info() != Eigen::Success) return std::nullopt;
    const Vector Xy = S.row(width - 1).segment(q, p).transpose();
    const Vector forward = p > 0 ? Vector(fixed.matrixL().solve(Xy)) : Xy;
    const double rho2 = S(width - 1, width - 1) - forward.squaredNorm();
    if (!(rho2 > 1e-13 * A.G(width - 1, width - 1))) return std::nullopt;
    const double sigma2 = rho2 / A.df;
    double logdet_fixed = 0.0;
    Vector c = S.row(width - 1).head(q).transpose();
    if (p > 0) {
        logdet_fixed = 2.0 * fixed.matrixLLT().diagonal().array().log().sum();
        c.noalias() -= S.block(q, 0, p, q).transpose() * fixed.solve(Xy);
    }
    constexpr double two_pi = 6.283185307179586;
    SigmaPoint out{theta, Vector(m), Vector(m), Matrix(), A.sizes, 0.0};
    out.value = logdet + (A.reml ? logdet_fixed : 0.0) +
            A.df * (1.0 + std::log(two_pi * sigma2)) - A.sum_log_weights;
    if (!std::isfinite(out.value)) return std::nullopt;
    auto B = S.topLeftCorner(q, q);
    if (A.reml && p > 0) {
        const Matrix H = fixed.matrixL().solve(S.block(q, 0, p, q));
        B.selfadjointView<Eigen::Lower>().rankUpdate(H.transpose(), -1.0);
    }
    B.triangularView<Eigen::StrictlyUpper>() = B.transpose();
    for (std::size_t f = 0; f < n_factors; ++f)
        F[f] = CC[f] = Matrix::Zero(A.columns[f], A.columns[f]);
    Matrix v = Matrix::Zero(q, m);
    A.each_level([&](std::size_t f, std::int64_t at, std::int64_t k) {
        F[f] += B.block(at, at, k, k);
        CC[f] += c.segment(at, k) * c.segment(at, k).transpose() / sigma2;
    });
    for (std::int64_t e = 0; e < m; ++e) {
        const std::int64_t f = A.entry_factor[e], row = A.entry_row[e];
        const std::int64_t column = A.entry_column[e], k = A.columns[f];
        std::int64_t at = 0;
        for (std::int64_t g = 0; g < f; ++g) at += A.levels[g] * A.columns[g];
        for (std::int64_t i = 0; i < A.levels[f]; ++i, at += k) {
            v(at + row, e) = c(at + column);
            v(at + column, e) = c(at + row);
        }
    }
    for (std::size_t f = 0; f < n_factors; ++f) F[f] -= CC[f];
    Vector s(m);
    for (std::int64_t e = 0; e < m; ++e) {
        const std::int64_t f = A.entry_factor[e], row = A.entry_row[e];
        const std::int64_t column = A.entry_column[e];
        const double weight = row == column ? 1.0 : 2.0;
        out.gradient(e) = 2.0 * F[f].row(row).dot(T[f].col(column));
        out.score(e) = weight * F[f](row, column);
        s(e) = weight * CC[f](row, column);
    }
    out.information.noalias() = v.transpose() * (B * v) / sigma2;
    out.information -= s * s.transpose() / A.df;
    return out;
}

inline auto descend_dense_from_each(ConstDoubles starts, ConstFortranDoubles G,
                                    std::vector<std::int64_t> levels,
                                    std::vector<std::int64_t> columns,
                                    std::vector<std::int64_t> entry_factor,
                                    std::vector<std::int64_t> entry_row,
                                    std::vector<std::int64_t> entry_column,
                                    std::vector<std::int64_t> sizes, bool reml, double df,
                                    double sum_log_weights, double tolerance, std::int64_t most) {
    const DenseModel A(G, std::move(levels), std::move(columns), std::move(entry_factor),
                       std::move(entry_row), std::move(entry_column), std::move(sizes), reml, df,
                       sum_log_weights);
    return descend_from_each([&](const Vector &x) { return dense_point(x, A); }, starts, tolerance,
                             most);
}

} // namespace kernels
