// The trust-region method of engine/trust_region.py, step by step the same, for points that the
// kernels can evaluate alone. A point has theta, value, gradient, score and information, and
// whether it exists.
#pragma once

#include "interrupt.hpp"
#include "trust_region.hpp"

#include <cmath>
#include <limits>
#include <vector>

namespace kernels {

template <class Point> struct Descent {
    Point point;
    std::int64_t evaluations = 1, iterations = 0;
    // Whether the model sees nothing left to gain.
    bool converged = false;
    std::vector<double> path;
};

template <class PointAt>
auto descend(PointAt &&point_at, const Vector &start, const std::vector<std::int64_t> &sizes,
             double tolerance, std::int64_t most, double radius) {
    using Point = decltype(point_at(start));
    constexpr double epsilon = std::numeric_limits<double>::epsilon();
    Descent<Point> out{point_at(start)};
    Point &point = out.point;
    const std::int64_t m = start.size();
    Matrix correction = Matrix::Zero(m, m);
    if (point.exists) out.path.push_back(point.value);
    InterruptCheck interrupt;
    while (point.exists && out.evaluations < most) {
        interrupt.now_and_then();
        const SigmaModel model(point.theta, sizes, point.score, point.information, correction);
        const auto [step, predicted] = minimise_model(model, radius);
        if (predicted < std::max(tolerance, 4.0 * epsilon * std::abs(point.value))) {
            out.converged = true;
            break;
        }
        const double length = step.norm();
        if (length <= 1e-14 * std::max(1.0, point.theta.norm())) break;
        Point trial = point_at(Vector(point.theta + step));
        ++out.evaluations;
        if (!trial.exists) {
            radius = 0.25 * length;
            continue;
        }
        const double actual = point.value - trial.value;
        const double noise = 1e-13 * std::max(1.0, std::abs(point.value));
        const double agreement = (actual + noise) / (predicted + noise);
        if (agreement < 0.25)
            radius = 0.25 * length;
        else if (agreement > 0.75 && length > 0.99 * radius)
            radius *= 3.0;
        if (!(actual > -noise)) continue;
        const Vector change = trial.gradient - point.gradient;
        point = std::move(trial);
        out.path.push_back(point.value);
        ++out.iterations;
        if (predicted < 1e-3) {
            const SigmaModel here(point.theta, sizes, point.score, point.information, correction);
            Vector unused;
            Matrix hessian;
            here.at(Vector::Zero(m), unused, hessian);
            const Vector missing = change - hessian * step;
            const double length2 = step.squaredNorm();
            const Matrix cross = missing * step.transpose();
            correction += (cross + cross.transpose()) / length2 -
                          missing.dot(step) / (length2 * length2) * step * step.transpose();
        }
    }
    return out;
}

// Descends from each row of `starts`; where each ended, its deviance (infinite where there is
// none), whether it saw nothing left to gain, and evaluations in all.
template <class PointAt>
auto descend_from_each(PointAt &&point_at, const ConstDoubles &starts,
                       const std::vector<std::int64_t> &sizes, double tolerance,
                       std::int64_t most) {
    const auto count = static_cast<std::size_t>(starts.shape(0));
    const auto m = static_cast<Eigen::Index>(starts.shape(1));
    std::vector<double> ends(count * static_cast<std::size_t>(m)), values(count), settled(count);
    std::int64_t evaluations = 0;
    {
        nb::gil_scoped_release release;
        for (std::size_t s = 0; s < count; ++s) {
            const Vector start = Eigen::Map<const Vector>(starts.data() + s * m, m);
            const auto end = descend(point_at, start, sizes, tolerance, most, std::sqrt(double(m)));
            Eigen::Map<Vector>(ends.data() + s * m, m) = end.point.theta;
            values[s] = end.point.exists ? end.point.value : INFINITY;
            settled[s] = end.converged ? 1.0 : 0.0;
            evaluations += end.evaluations;
        }
    }
    return nb::make_tuple(owned_array(std::move(ends)), owned_array(std::move(values)),
                          owned_array(std::move(settled)), evaluations);
}

} // namespace kernels
