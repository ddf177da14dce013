// Descents by the trust region for points that the kernels evaluate alone, without the GIL.
#pragma once

#include "arrays.hpp"
#include "sigma_model.hpp"
#include "trust_region.hpp"

#include <cmath>
#include <optional>
#include <string_view>
#include <vector>

namespace kernels {

// Where a descent ended (at its start if there is no point there, and then it has no path), whether
// the model sees nothing left to gain, and the values of its accepted points.
struct Descent {
    Vector theta;
    std::int64_t evaluations = 1, iterations = 0;
    bool converged = false;
    std::vector<double> path;
};

// point_at(theta) is an optional SigmaPoint.
template <class PointAt>
Descent descend(PointAt &&point_at, const Vector &start, double tolerance, std::int64_t most,
                double radius) {
    Descent out;
    out.theta = start;
    std::optional<SigmaPoint> first = point_at(start);
    if (!first) return out;
    const auto end =
        minimise(point_at, start, *std::move(first), Matrix::Zero(start.size(), start.size()),
                 {tolerance, most, radius}, [&](const Iterate<SigmaPoint> &here) {
                     // Heard of again after a step that was not taken.
                     if (here.iterations == static_cast<std::int64_t>(out.path.size()))
                         out.path.push_back(here.point.value);
                 });
    out.theta = end.x;
    out.evaluations = end.evaluations;
    out.iterations = end.iterations;
    out.converged = std::string_view(end.stopped) == "converged";
    return out;
}

// Descends from each row of `starts`; where each ended, its deviance (infinite where there is
// none), whether it saw nothing left to gain, and evaluations in all.
template <class PointAt>
auto descend_from_each(PointAt &&point_at, const ConstDoubles &starts, double tolerance,
                       std::int64_t most) {
    const auto count = static_cast<std::size_t>(starts.shape(0));
    const auto m = static_cast<Eigen::Index>(starts.shape(1));
    std::vector<double> ends(count * static_cast<std::size_t>(m)), values(count), settled(count);
    std::int64_t evaluations = 0;
    {
        nb::gil_scoped_release release;
        for (std::size_t s = 0; s < count; ++s) {
            const Vector start = Eigen::Map<const Vector>(starts.data() + s * m, m);
            const Descent end = descend(point_at, start, tolerance, most, std::sqrt(double(m)));
            Eigen::Map<Vector>(ends.data() + s * m, m) = end.theta;
            values[s] = end.path.empty() ? INFINITY : end.path.back();
            settled[s] = end.converged ? 1.0 : 0.0;
            evaluations += end.evaluations;
        }
    }
    return nb::make_tuple(owned_array(std::move(ends)), owned_array(std::move(values)),
                          owned_array(std::move(settled)), evaluations);
}

} // namespace kernels
