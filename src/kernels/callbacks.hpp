// The trust region for objectives and models written in Python: callables for point_at and for a
// model's values, with the GIL held. What they raise passes through.
#pragma once

#include "arrays.hpp"
#include "trust_region.hpp"

#include <nanobind/stl/tuple.h>
#include <optional>
#include <tuple>

namespace kernels {

inline Vector vector_of(const ConstDoubles &a, std::size_t size) {
    if (a.ndim() != 1 || a.shape(0) != size)
        throw nb::value_error("a vector with an entry for every parameter is wanted");
    return as_vector(a);
}

inline Matrix symmetric_of(const ConstDoubles &a, std::size_t size) {
    if (a.ndim() != 2 || a.shape(0) != size || a.shape(1) != size)
        throw nb::value_error("a matrix with a row and a column for every parameter is wanted");
    return as_symmetric(a);
}

// From what a model says after a step: its value, its gradient and its Hessian.
inline double model_value(nb::handle said, std::size_t size, Vector &gradient, Matrix &hessian) {
    const auto [value, g, H] = nb::cast<std::tuple<double, ConstDoubles, ConstDoubles>>(said);
    gradient = vector_of(g, size);
    hessian = symmetric_of(H, size);
    return value;
}

// A Model of engine/trust_region.py.
struct PythonModel {
    nb::object model;

    double at(const Vector &step, const Matrix &correction, Vector &gradient,
              Matrix &hessian) const {
        return model_value(model.attr("at")(as_array(step), as_array(correction)), step.size(),
                           gradient, hessian);
    }

    std::pair<Vector, double> minimise(const Matrix &correction, double radius) const {
        const auto [step, predicted] = nb::cast<std::tuple<ConstDoubles, double>>(
            model.attr("minimise")(as_array(correction), radius));
        return {vector_of(step, correction.rows()), predicted};
    }
};

// A Point of engine/trust_region.py.
struct PythonPoint {
    nb::object point;
    double value;
    Vector gradient;

    PythonPoint(nb::object point_, std::size_t size)
        : point(std::move(point_)), value(nb::cast<double>(point.attr("value"))),
          gradient(vector_of(nb::cast<ConstDoubles>(point.attr("gradient")), size)) {}

    PythonModel model() const { return {point.attr("model")()}; }
};

// --- what Python sees -------------------------------------------------------------------------

inline nb::tuple minimise_array(nb::callable evaluate, ConstDoubles x, nb::object point,
                                ConstDoubles correction, double tolerance,
                                std::int64_t most_evaluations, double radius, bool natural,
                                nb::object report) {
    const std::size_t size = x.size();
    auto as_tuple = [](const Iterate<PythonPoint> &here) {
        return nb::make_tuple(as_array(here.x), here.point.point, here.evaluations, here.iterations,
                              here.radius, here.predicted, here.stopped);
    };
    auto point_at = [&](const Vector &there) -> std::optional<PythonPoint> {
        nb::object found = evaluate(as_array(there));
        if (found.is_none()) return std::nullopt;
        return PythonPoint(std::move(found), size);
    };
    return as_tuple(minimise(point_at, vector_of(x, size), PythonPoint(std::move(point), size),
                             symmetric_of(correction, size),
                             {tolerance, most_evaluations, radius, natural},
                             [&](const Iterate<PythonPoint> &here) {
                                 if (!report.is_none()) report(*as_tuple(here));
                             }));
}

inline auto minimise_model_array(nb::callable model_at, std::size_t size, double radius) {
    const auto [step, predicted] = minimise_model(
        [&](const Vector &step, Vector &gradient, Matrix &hessian) {
            return model_value(model_at(as_array(step)), size, gradient, hessian);
        },
        size, radius);
    return nb::make_tuple(as_array(step), predicted);
}

inline auto trust_region_step_array(ConstDoubles gradient, ConstDoubles hessian, double radius) {
    return as_array(trust_region_step(as_vector(gradient), as_symmetric(hessian), radius));
}

inline auto secant_update_array(ConstDoubles correction, ConstDoubles missing, ConstDoubles step) {
    return as_array(secant_update(as_symmetric(correction), as_vector(missing), as_vector(step)));
}

inline auto symmetric_rank_one_update_array(ConstDoubles correction, ConstDoubles missing,
                                            ConstDoubles step) {
    return as_array(
        symmetric_rank_one_update(as_symmetric(correction), as_vector(missing), as_vector(step)));
}

} // namespace kernels
