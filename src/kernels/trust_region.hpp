// A trust-region method for objectives that come with a cheap smooth model around each point, for
// objectives of the kernels and, through callbacks.hpp, for those written in Python.
//
// A Point has `value`, `gradient` and `model()`. A Model has `minimise(correction, radius)`, a step
// and the decrease it predicts, and `at(step, correction, gradient, hessian)`, its change after a
// step; the correction is added to its Hessian. engine/trust_region.py says what the method is.
#pragma once

#include "arrays.hpp"
#include "interrupt.hpp"

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>

namespace kernels {

// Smallest symmetric change after which the correction also maps step to what was missing.
inline Matrix secant_update(const Matrix &correction, const Vector &missing, const Vector &step) {
    const double length2 = step.squaredNorm();
    const Matrix cross = missing * step.transpose();
    return correction + (cross + cross.transpose()) / length2 -
           missing.dot(step) / (length2 * length2) * step * step.transpose();
}

// The symmetric change of rank one that does; none where the step hardly has a part along what was
// missing.
inline Matrix symmetric_rank_one_update(const Matrix &correction, const Vector &missing,
                                        const Vector &step) {
    const double along = missing.dot(step);
    if (std::abs(along) <= 1e-8 * missing.norm() * step.norm()) return correction;
    return correction + missing * missing.transpose() / along;
}

// Minimiser of g's + s'Hs/2 over |s| <= radius, by an eigendecomposition.
inline Vector trust_region_step(const Vector &gradient, const Matrix &hessian, double radius) {
    if (gradient.size() == 0) return gradient;
    const Eigen::SelfAdjointEigenSolver<Matrix> eigen(hessian);
    const Vector &values = eigen.eigenvalues();
    const Vector g = eigen.eigenvectors().transpose() * gradient;
    const double floor = 1e-12 * std::max(1.0, values.cwiseAbs().maxCoeff());
    auto curvature = [&](double shift) {
        return (values.array() + shift).cwiseMax(floor).matrix();
    };
    auto step_at = [&](double shift) -> Vector { return -g.cwiseQuotient(curvature(shift)); };
    Vector step = step_at(0.0);
    if (values(0) > floor && step.norm() <= radius) return eigen.eigenvectors() * step;
    double shift = std::max(0.0, -values(0)) + floor;
    step = step_at(shift);
    double length = step.norm();
    if (length <= radius) {
        // The hard case: along the most negative curvature to the boundary.
        if (values(0) < -floor) {
            const double room = std::sqrt(radius * radius - length * length);
            step(0) += g(0) > 0 ? -room : room;
        }
        return eigen.eigenvectors() * step;
    }
    // Newton's method on |step| / radius - 1, whose reciprocal is nearly linear in the shift.
    for (int i = 0; i < 60 && length > radius * (1.0 + 1e-9); ++i) {
        const double slope = step.dot(step.cwiseQuotient(curvature(shift)));
        shift += (length / radius - 1.0) * length * length / slope;
        step = step_at(shift);
        length = step.norm();
    }
    return eigen.eigenvectors() * step;
}

// Step of at most the radius that makes a model small, and the decrease it predicts; the model's
// value after a step, its gradient and its Hessian are at(step, gradient, hessian). It is smooth
// but not quadratic, so it is minimised by a trust region of its own.
template <class At>
std::pair<Vector, double> minimise_model(At &&at, std::int64_t size, double radius) {
    constexpr int most_steps = 30;
    Vector step = Vector::Zero(size), gradient, gradient_there;
    Matrix hessian, hessian_there;
    double value = at(step, gradient, hessian), inner = radius;
    for (int i = 0; i < most_steps; ++i) {
        Vector target = step + trust_region_step(gradient, hessian, inner);
        const double length = target.norm();
        if (length > radius) target *= radius / length;
        const Vector move = target - step;
        const double expected = -(gradient.dot(move) + 0.5 * move.dot(hessian * move));
        const double there = at(target, gradient_there, hessian_there);
        const double gained = value - there;
        // Not a number where the model overflows: no gain either.
        const bool better = gained > 0.0;
        if (!better || gained < 0.1 * expected) {
            inner = 0.25 * move.norm();
            if (!(inner > 1e-12 * radius)) break;
        }
        if (!better) continue;
        step.swap(target);
        gradient.swap(gradient_there);
        hessian.swap(hessian_there);
        value = there;
        if (std::abs(expected - gained) < 0.02 * gained || gained < 0.01 * -value) break;
    }
    return {step, -value};
}

// When to stop, the first radius, and whether a step of one is a natural one in every coordinate.
struct Limits {
    double tolerance;
    std::int64_t most_evaluations;
    double radius;
    bool natural = false;
};

// One accepted point, and how it was reached.
template <class Point> struct Iterate {
    Vector x;
    Point point;
    std::int64_t evaluations, iterations;
    double radius, predicted;
    // "converged", "evaluations" or "step"; empty on the way.
    const char *stopped;
};

// Minimises from x, where `point` is, until the predicted decrease is below the tolerance.
// point_at(x) is an optional Point, empty where there is none: then the step is shortened. report
// hears of each iterate when its next step is known.
template <class Point, class PointAt, class Report>
Iterate<Point> minimise(PointAt &&point_at, const Vector &x, Point point, Matrix correction,
                        const Limits &limits, Report &&report) {
    // Predicted decrease below which gradients are near enough to linear to learn from, and the
    // same where a step of one is a natural one.
    constexpr double local = 1e-3, nearly_local = 0.1;
    // Rounding of the objective, relative to its size.
    constexpr double rounding = 4.0 * std::numeric_limits<double>::epsilon();
    Iterate<Point> here{x, std::move(point), 1, 0, limits.radius, 0.0, ""};
    auto model = here.point.model();
    auto ended = [&](const char *stopped) {
        here.stopped = stopped;
        return std::move(here);
    };
    InterruptCheck interrupt;
    while (true) {
        interrupt.now_and_then();
        const auto [step, predicted] = model.minimise(correction, here.radius);
        here.predicted = predicted;
        report(std::as_const(here));
        const double size = std::abs(here.point.value);
        // Smaller decreases are lost in the rounding of the objective itself.
        if (predicted < std::max(limits.tolerance, rounding * size)) return ended("converged");
        if (here.evaluations >= limits.most_evaluations) return ended("evaluations");
        const double length = step.norm();
        if (length <= 1e-14 * std::max(1.0, here.x.norm())) return ended("step");
        std::optional<Point> trial = point_at(Vector(here.x + step));
        ++here.evaluations;
        if (!trial) {
            here.radius = 0.25 * length;
            continue;
        }
        const double actual = here.point.value - trial->value;
        // Decreases of the size of rounding say nothing about the model.
        const double noise = 1e-13 * std::max(1.0, size);
        const double agreement = (actual + noise) / (predicted + noise);
        if (!(agreement >= 0.25))
            here.radius = 0.25 * length;
        else if (agreement > 0.75 && length > 0.99 * here.radius)
            here.radius *= 3.0;
        const Vector change = trial->gradient - here.point.gradient;
        const bool accepted = actual > -noise;
        if (accepted) {
            here.x += step;
            here.point = *std::move(trial);
            model = here.point.model();
            ++here.iterations;
        }
        // Natural steps teach wherever the model was wrong, rejected ones too.
        const bool teaches = limits.natural ? predicted < nearly_local ||
                                                  (length < 1.0 && std::abs(agreement - 1.0) > 0.5)
                                            : accepted && predicted < local;
        if (!teaches) continue;
        Vector gradient;
        Matrix hessian;
        model.at(Vector::Zero(x.size()), correction, gradient, hessian);
        const Vector missing = change - hessian * step;
        correction = limits.natural ? symmetric_rank_one_update(correction, missing, step)
                                    : secant_update(correction, missing, step);
    }
}

} // namespace kernels
