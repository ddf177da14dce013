// The objective around a point as a quadratic in Sigma = T T' read as a function of a step in T:
//     m(step) = <score, d> + d' information d / 2 + step' correction step / 2,
//     d = vech((T + step)(T + step)' - T T'),
// for block-diagonal Sigma, entries of each lower triangle column by column.
#pragma once

#include "arrays.hpp"
#include "trust_region.hpp"

#include <vector>

namespace kernels {

class SigmaModel {
  public:
    SigmaModel(const Vector &theta, const std::vector<std::int64_t> &sizes, const Vector &score,
               const Matrix &information)
        : theta_(theta), sizes_(sizes), score_(score), information_(information),
          start_(sigma(theta)) {}

    std::int64_t size() const { return theta_.size(); }

    // Value, gradient and Hessian after a step.
    double at(const Vector &step, const Matrix &correction, Vector &gradient,
              Matrix &hessian) const {
        const Vector moved = theta_ + step;
        const Vector change = sigma(moved) - start_;
        const Vector pull = information_ * change;
        const Vector slope = score_ + pull, added = correction * step;
        const std::int64_t m = size();
        Matrix J = Matrix::Zero(m, m);
        hessian = correction;
        std::int64_t start = 0;
        for (std::int64_t k : sizes_) {
            const Matrix T = lower(moved, start, k);
            std::int64_t column = 0;
            for (std::int64_t c = 0; c < k; ++c)
                for (std::int64_t r = c; r < k; ++r, ++column) {
                    // dSigma = e_r t_c' + t_c e_r' with t_c the column of T.
                    for (std::int64_t j = 0; j < k; ++j) {
                        const std::int64_t row = place(k, std::max(r, j), std::min(r, j));
                        J(start + row, start + column) += T(j, c) * (j == r ? 2.0 : 1.0);
                    }
                    for (std::int64_t r2 = c; r2 < k; ++r2) {
                        const std::int64_t other = place(k, r2, c);
                        const double F = slope(start + place(k, std::max(r, r2), std::min(r, r2)));
                        hessian(start + column, start + other) += r == r2 ? 2.0 * F : F;
                    }
                }
            start += k * (k + 1) / 2;
        }
        gradient = J.transpose() * slope + added;
        hessian += J.transpose() * information_ * J;
        return score_.dot(change) + 0.5 * change.dot(pull) + 0.5 * step.dot(added);
    }

    // Step of at most the radius that makes the model small, and the decrease it predicts.
    std::pair<Vector, double> minimise(const Matrix &correction, double radius) const {
        return minimise_model(
            [&](const Vector &step, Vector &gradient, Matrix &hessian) {
                return at(step, correction, gradient, hessian);
            },
            size(), radius);
    }

  private:
    // Place of entry (r, c), r >= c, in a lower triangle stored column by column.
    static std::int64_t place(std::int64_t k, std::int64_t r, std::int64_t c) {
        return c * k - c * (c - 1) / 2 + r - c;
    }

    static Matrix lower(const Vector &theta, std::int64_t start, std::int64_t k) {
        Matrix T = Matrix::Zero(k, k);
        for (std::int64_t c = 0; c < k; ++c)
            for (std::int64_t r = c; r < k; ++r) T(r, c) = theta(start++);
        return T;
    }

    Vector sigma(const Vector &theta) const {
        Vector out(theta.size());
        std::int64_t start = 0;
        for (std::int64_t k : sizes_) {
            const Matrix T = lower(theta, start, k);
            const Matrix S = T * T.transpose();
            for (std::int64_t c = 0; c < k; ++c)
                for (std::int64_t r = c; r < k; ++r) out(start++) = S(r, c);
        }
        return out;
    }

    Vector theta_;
    std::vector<std::int64_t> sizes_;
    Vector score_;
    Matrix information_;
    Vector start_;
};

// A point whose model is of this kind, as the trust region wants it.
struct SigmaPoint {
    Vector theta, gradient, score;
    Matrix information;
    std::vector<std::int64_t> sizes;
    double value = 0.0;

    SigmaModel model() const { return {theta, sizes, score, information}; }
};

// --- what Python sees -------------------------------------------------------------------------

inline auto sigma_model_at(ConstDoubles theta, std::vector<std::int64_t> sizes, ConstDoubles score,
                           ConstDoubles information, ConstDoubles correction, ConstDoubles step) {
    const SigmaModel model(as_vector(theta), sizes, as_vector(score), as_symmetric(information));
    Vector gradient;
    Matrix hessian;
    const double value = model.at(as_vector(step), as_symmetric(correction), gradient, hessian);
    return nb::make_tuple(value, as_array(gradient), as_array(hessian));
}

inline auto minimise_sigma_model(ConstDoubles theta, std::vector<std::int64_t> sizes,
                                 ConstDoubles score, ConstDoubles information,
                                 ConstDoubles correction, double radius) {
    const SigmaModel model(as_vector(theta), sizes, as_vector(score), as_symmetric(information));
    const auto [step, predicted] = model.minimise(as_symmetric(correction), radius);
    return nb::make_tuple(as_array(step), predicted);
}

} // namespace kernels
