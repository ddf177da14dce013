"""The optimum of the deviance where random effects have a covariance structure.

A search moves on one face of the parameter space at a time, without bounds (see `Face`). What ends
close to a bound is put on it, and where the deviance falls on a way off the bounds the search goes
on there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.basis import lower_factor
from mixedeffects.engine.boundary import SLACK, boundary_score, put_on_bounds
from mixedeffects.engine.crossproducts import CrossProducts
from mixedeffects.engine.face import Face, FacePoint
from mixedeffects.engine.factorisation import NotPositiveDefiniteError
from mixedeffects.engine.optimum import Control, Optimum, Progress, record
from mixedeffects.engine.parameterisation import Parameterisation
from mixedeffects.engine.start import starting_factors
from mixedeffects.engine.structured_point import StructuredPoint, has_many_columns
from mixedeffects.engine.trust_region import Iterate, minimise

__all__ = ["find_structured_optimum"]

Matrix = NDArray[np.float64]

#: Faces that one search may go through for every parameter.
_FACES = 2
#: Decrease of the deviance that is nothing to go on for.
_NOTHING = 1e-8
#: Step of the differences of gradients.
_DIFFERENCE = 1e-4
#: Relative standard deviation that a search goes to at first, how much further it goes where the
#: deviance still falls, and where that ends.
_LARGEST, _FURTHER, _NO_END = 3e3, 100.0, 1e9
#: Relative standard deviation from which the residual variance may be on its way to zero, and the
#: change of the deviance that does not speak against it when the former doubles.
_SUSPICIOUS, _HARDLY = 300.0, 0.01


def find_structured_optimum(
    A: CrossProducts,
    reml: bool,
    parameterisation: Parameterisation,
    *,
    start: Sequence[Matrix] | None = None,
    control: Control | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Optimum:
    """Minimise the profiled deviance over the parameters; as `find_optimum`.

    Parameters
    ----------
    A, reml, start, control, progress
        As for `find_optimum`; the start is brought into the structure.
    parameterisation : Parameterisation
        The parameters of the terms in A's basis.
    """
    search = _Search(A, reml, parameterisation, control or Control(), progress)
    eta = search.best_start() if start is None else parameterisation.nearest(start)
    best = search.descend(eta)
    # With correlations the boundary can have minima of its own.
    for other in _elsewhere(best.point):
        if search.is_exhausted:
            break
        found = search.descend(other)
        if found.point.value < best.point.value - SLACK:
            best = found
    if search.path[-1] != best.point.value:
        search.path.append(best.point.value)
    point = best.point
    free = np.zeros(parameterisation.n_parameters)
    free[best.face.free] = best.gradient
    point.eta = parameterisation.canonical(point.eta)
    return record(
        point.evaluation,
        tuple(lower_factor(T) for T in point.T),
        gradient=free,
        scale=np.ones(len(free)),
        parameters=point.eta,
        result=best.result,
        evaluations=search.evaluations,
        iterations=search.iterations,
        null_score=best.score,
        path=tuple(value + search.offset for value in search.path),
        parameterisation=parameterisation,
        residual_vanishes=best.residual_vanishes,
    )


@dataclass(frozen=True, eq=False)
class _Descent:
    """Where one search ended: on which face, the last steps there, and the score off it."""

    point: StructuredPoint
    face: Face
    gradient: Matrix
    result: Iterate[FacePoint]
    score: float | None
    residual_vanishes: bool = False


class _Search:
    """Descents that share a budget of evaluations and a record."""

    def __init__(
        self,
        A: CrossProducts,
        reml: bool,
        parameterisation: Parameterisation,
        control: Control,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.A, self.reml, self.parameterisation = A, reml, parameterisation
        self.control, self.progress = control, progress
        self.offset = A.basis.deviance_offset(A.n, A.p, reml)
        self.began = time.perf_counter()
        self.path: list[float] = []
        self.evaluations = self.iterations = 0
        self._last: StructuredPoint | None = None

    @property
    def is_exhausted(self) -> bool:
        """Whether no evaluation is left."""
        return self.evaluations >= self.control.max_evaluations

    def point_at(self, eta: Matrix) -> StructuredPoint | None:
        """One evaluation; None where there is no deviance."""
        last = self._last
        if last is not None and np.array_equal(last.eta, eta):
            return last
        self.evaluations += 1
        try:
            point = StructuredPoint(self.A, self.parameterisation, eta, self.reml)
        except NotPositiveDefiniteError:
            return None
        if not np.isfinite(point.value):
            return None
        self._last = point
        return point

    def descend(self, eta: Matrix) -> _Descent:
        """To a minimum.

        Where the standard deviations grow beyond all bounds beside the residual one, and the
        deviance hardly changes any more, its limit is that of a model without residual variance.
        """
        largest = _LARGEST
        while True:
            found = self._within(self._clipped(eta, largest), largest)
            size = self._largest_deviation(found.point.eta)
            if size < _SUSPICIOUS or self.is_exhausted or largest >= _NO_END:
                return found
            eta = self.parameterisation.scaled(found.point.eta, 2.0)
            beyond = self.point_at(eta)
            if beyond is None or beyond.value > found.point.value + _HARDLY:
                return found
            if beyond.value >= found.point.value - _HARDLY:
                return replace(found, residual_vanishes=True)
            largest *= _FURTHER

    def _largest_deviation(self, eta: Matrix) -> float:
        return float(np.abs(eta[self.parameterisation.is_deviation]).max(initial=0.0))

    def _clipped(self, eta: Matrix, largest: float) -> Matrix:
        too_large = self._largest_deviation(eta) / largest
        return self.parameterisation.scaled(eta, 0.5 / too_large) if too_large > 0.5 else eta

    def _within(self, eta: Matrix, largest: float) -> _Descent:
        """To a minimum without very large standard deviations, from face to face."""
        for _ in range(_FACES * self.parameterisation.n_parameters + 2):
            face = Face(self.parameterisation, eta, largest)
            result = self._minimise(face)
            inner = result.point.inner
            point = put_on_bounds(self.point_at, inner)
            score = None
            if point is not inner and not self.is_exhausted:
                eta = point.eta
                continue
            found = boundary_score(self.point_at, point)
            score = found.score
            if found.escape is None or self.is_exhausted:
                break
            self._last, eta = found.escape, found.escape.eta
        return _Descent(point, face, result.point.gradient, result, score)

    def _minimise(self, face: Face) -> Iterate[FacePoint]:
        """To a minimum on one face."""

        def point_at(z: Matrix) -> FacePoint | None:
            inner = self.point_at(face.parameters(z)[0])
            return None if inner is None else FacePoint(face, z, inner)

        if not len(face.free):
            point = point_at(face.start)
            assert point is not None
            return Iterate(face.start, point, 1, 0, 0.0, 0.0, "converged")
        correction = None
        x, radius = face.start, float(np.sqrt(len(face.free)))
        while True:
            result = minimise(
                point_at,
                x,
                tolerance=self.control.tolerance,
                max_evaluations=max(self.control.max_evaluations - self.evaluations, 1),
                radius=radius,
                report=self._report,
                correction=correction,
                natural=True,
            )
            self.iterations += result.iterations
            point = result.point
            fresh = correction is not None and result.iterations == 0
            if result.stopped == "evaluations" or fresh or self._is_surely_at_rest(point):
                return result
            if self.evaluations + len(x) >= self.control.max_evaluations:
                return result
            # The model may owe its confidence to what it learnt elsewhere.
            x, radius = result.x, 1.0
            observed = self._observed_hessian(point, point_at)
            correction = observed - point.model().at(np.zeros(len(x)), np.zeros_like(observed))[2]
            self._last = point.inner

    def _is_surely_at_rest(self, point: FacePoint) -> bool:
        """Whether the model, without anything it learnt, sees nothing to gain within a step."""
        m = len(point.z)
        return point.model().minimise(np.zeros((m, m)), 1.0)[1] < _NOTHING

    def _observed_hessian(
        self, point: FacePoint, point_at: Callable[[Matrix], FacePoint | None]
    ) -> Matrix:
        """Second derivatives by differences of gradients."""
        columns = []
        for direction in np.eye(len(point.z)):
            # Downhill, where a search stays too.
            step = -np.copysign(_DIFFERENCE, direction @ point.gradient)
            there = point_at(point.z + step * direction)
            change = np.zeros(len(point.z)) if there is None else there.gradient - point.gradient
            columns.append(change / step)
        H = np.array(columns)
        return np.asarray(0.5 * (H + H.T))

    def _report(self, iterate: Iterate[FacePoint]) -> None:
        value = iterate.point.value
        if self.path and abs(value - self.path[-1]) <= 1e-14 * abs(self.path[-1]):
            return
        self.path.append(value)
        if self.progress is not None:
            self.progress(
                Progress(
                    len(self.path) - 1,
                    self.evaluations,
                    value + self.offset,
                    float(np.abs(iterate.point.gradient).max(initial=0.0)),
                    time.perf_counter() - self.began,
                    tuple(lower_factor(T) for T in iterate.point.inner.T),
                )
            )

    def best_start(self) -> Matrix:
        """Moment estimates, with the correlations that do best, one term after another."""
        factors = starting_factors(self.A, self.reml, has_many_columns(self.A))
        self.evaluations += 1
        pairs = zip(self.parameterisation.terms, factors, strict=True)
        candidates = [term.starts(T) for term, T in pairs]
        chosen = [own[0] for own in candidates]
        for t, own in enumerate(candidates):
            if len(own) == 1 or self.evaluations + len(own) >= self.control.max_evaluations:
                continue
            values = []
            for candidate in own:
                point = self.point_at(np.concatenate([*chosen[:t], candidate, *chosen[t + 1 :]]))
                values.append(np.inf if point is None else point.value)
            chosen[t] = own[int(np.argmin(values))]
        return np.concatenate(chosen)


def _elsewhere(point: StructuredPoint) -> list[Matrix]:
    """Other starts for the terms whose correlation or standard deviations are at a bound."""
    parts = point.parameterisation.split(point.eta)
    return [
        np.concatenate([*parts[:t], other, *parts[t + 1 :]])
        for t, term in enumerate(point.parameterisation.terms)
        for other in term.elsewhere(parts[t])
    ]
