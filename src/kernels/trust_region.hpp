// Minimises, within a radius, a quadratic in Sigma = T T' read as a function of a step in T:
//     m(step) = <score, d> + d' information d / 2 + step' correction step / 2,
//     d = vech((T + step)(T + step)' - T T'),
// for block-diagonal Sigma, entries of each lower triangle column by column.
#pragma once

#include "arrays.hpp"

#include <Eigen/Eigenvalues>
#include <cmath>

namespace kernels {

using Vector = Eigen::VectorXd;
using Matrix = Eigen::MatrixXd;

class SigmaModel {
  public:
    SigmaModel(const Vector &theta, const std::vector<std::int64_t> &sizes, const Vector &score,
               const Matrix &information, const Matrix &correction)
        : theta_(theta), sizes_(sizes), score_(score), information_(information),
          correction_(correction), start_(sigma(theta)) {}

    std::int64_t size() const { return theta_.size(); }

    // Value, gradient and Hessian after a step.
    double at(const Vector &step, Vector &gradient, Matrix &hessian) const {
        const Vector moved = theta_ + step;
        const Vector change = sigma(moved) - start_;
        const Vector pull = information_ * change;
        const Vector slope = score_ + pull, added = correction_ * step;
        const std::int64_t m = size();
        Matrix J = Matrix::Zero(m, m);
        hessian = correction_;
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
    Matrix information_, correction_;
    Vector start_;
};

// Minimiser of g's + s'Hs/2 over |s| <= radius, by an eigendecomposition.
inline Vector trust_region_step(const Vector &gradient, const Matrix &hessian, double radius) {
    const Eigen::SelfAdjointEigenSolver<Matrix> eigen(hessian);
    const Vector &values = eigen.eigenvalues();
    const Vector g = eigen.eigenvectors().transpose() * gradient;
    const double floor = 1e-12 * std::max(1.0, values.cwiseAbs().maxCoeff());
    auto step_at = [&](double shift) -> Vector {
        return -g.cwiseQuotient((values.array() + shift).cwiseMax(floor).matrix());
    };
    Vector step = step_at(0.0);
    if (values(0) > floor && step.norm() <= radius) return eigen.eigenvectors() * step;
    double low = std::max(0.0, -values(0)) + floor;
    step = step_at(low);
    if (step.norm() <= radius) {
        // The hard case: along the most negative curvature to the boundary.
        if (values(0) < -floor) {
            const double room = std::sqrt(radius * radius - step.squaredNorm());
            step(0) += g(0) > 0 ? -room : room;
        }
        return eigen.eigenvectors() * step;
    }
    double high = std::max(2.0 * low, 1e-8);
    while (step_at(high).norm() > radius) high *= 4.0;
    for (int i = 0; i < 60 && high - low > 1e-6 * high; ++i) {
        const double middle = 0.5 * (low + high);
        (step_at(middle).norm() > radius ? low : high) = middle;
    }
    return eigen.eigenvectors() * step_at(high);
}

// Step of at most the radius that makes the model small, and the decrease it predicts. The model is
// smooth but not quadratic, so it is minimised by a trust region of its own.
inline std::pair<Vector, double> minimise_model(const SigmaModel &model, double radius) {
    constexpr int most_steps = 30;
    Vector step = Vector::Zero(model.size()), gradient, gradient_there;
    Matrix hessian, hessian_there;
    double value = model.at(step, gradient, hessian), inner = radius;
    for (int i = 0; i < most_steps; ++i) {
        Vector target = step + trust_region_step(gradient, hessian, inner);
        const double length = target.norm();
        if (length > radius) target *= radius / length;
        const Vector move = target - step;
        const double expected = -(gradient.dot(move) + 0.5 * move.dot(hessian * move));
        const double there = model.at(target, gradient_there, hessian_there);
        const double gained = value - there;
        if (!(gained > 0.0) || gained < 0.1 * expected) {
            inner = 0.25 * move.norm();
            if (inner <= 1e-12 * radius) break;
        }
        if (!(gained > 0.0)) continue;
        step.swap(target);
        gradient.swap(gradient_there);
        hessian.swap(hessian_there);
        value = there;
        if (std::abs(expected - gained) < 0.02 * gained || gained < 0.01 * -value) break;
    }
    return {step, -value};
}

// --- what Python sees -------------------------------------------------------------------------

inline Eigen::Map<const Vector> as_vector(const ConstDoubles &a) {
    return {a.data(), static_cast<Eigen::Index>(a.size())};
}

inline Eigen::Map<const Matrix> as_symmetric(const ConstDoubles &a) {
    const auto n = static_cast<Eigen::Index>(a.shape(0));
    return {a.data(), n, n};
}

template <class Dense> auto as_array(const Dense &values, std::vector<std::size_t> shape) {
    auto *data = new double[static_cast<std::size_t>(values.size()) + 1];
    std::copy(values.data(), values.data() + values.size(), data);
    nb::capsule owner(data, [](void *p) noexcept { delete[] static_cast<double *>(p); });
    return nb::ndarray<nb::numpy, double>(data, shape.size(), shape.data(), owner);
}

inline auto sigma_model_at(ConstDoubles theta, std::vector<std::int64_t> sizes, ConstDoubles score,
                           ConstDoubles information, ConstDoubles correction, ConstDoubles step) {
    const SigmaModel model(as_vector(theta), sizes, as_vector(score), as_symmetric(information),
                           as_symmetric(correction));
    Vector gradient;
    Matrix hessian;
    const double value = model.at(as_vector(step), gradient, hessian);
    const auto m = static_cast<std::size_t>(model.size());
    return nb::make_tuple(value, as_array(gradient, {m}), as_array(hessian, {m, m}));
}

inline auto minimise_sigma_model(ConstDoubles theta, std::vector<std::int64_t> sizes,
                                 ConstDoubles score, ConstDoubles information,
                                 ConstDoubles correction, double radius) {
    const SigmaModel model(as_vector(theta), sizes, as_vector(score), as_symmetric(information),
                           as_symmetric(correction));
    const auto [step, predicted] = minimise_model(model, radius);
    return nb::make_tuple(as_array(step, {static_cast<std::size_t>(step.size())}), predicted);
}

inline auto trust_region_step_array(ConstDoubles gradient, ConstDoubles hessian, double radius) {
    const Vector step = trust_region_step(as_vector(gradient), as_symmetric(hessian), radius);
    return as_array(step, {static_cast<std::size_t>(step.size())});
}

} // namespace kernels
