"""One search for the optimum of the criterion, in (T, beta, phi) at once.

Steps are those of the trust region on the average information, with a secant correction. Each
evaluation finds the modes from the tangent at the best point so far. Where some variance is zero at
the end, the score on the null space tells whether adding some would lower the criterion, and the
search leaves if so; structures go from face to face as in the linear model (`structured`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.boundary import boundary_score, put_on_bounds
from mixedeffects.engine.face import Face
from mixedeffects.engine.factorisation import NotPositiveDefiniteError
from mixedeffects.engine.found_optimum import relative_gradient
from mixedeffects.engine.generalized.design import GeneralizedDesign
from mixedeffects.engine.generalized.laplace import GeneralizedEvaluation
from mixedeffects.engine.generalized.quadrature import evaluate_criterion
from mixedeffects.engine.generalized.space import GeneralizedPoint, Parameters, Space
from mixedeffects.engine.search import null_space_score, snapped_factors
from mixedeffects.engine.trust_region import Iterate, minimise

__all__ = ["LARGEST", "Found", "GeneralizedSearch"]

Matrix = NDArray[np.float64]
Blocks = tuple[Matrix, ...]
Report = Callable[[GeneralizedPoint, int], None]

_MAX_RESTARTS = 3
#: Share of the tolerance to stop at by quadrature, where the curvature is that of Laplace.
_SHARE = 0.1
#: Times that starting covariances are halved.
_SMALLER = 8
#: Faces that one search may go through for every covariance parameter.
_FACES = 2
#: Standard deviation of a structure beyond which the search does not go.
LARGEST = 1e3


@dataclass(frozen=True, eq=False)
class Found:
    """Where a search ended: the point, how, and the score on its null space or boundary."""

    point: GeneralizedPoint
    predicted: float
    stopped: str
    null_score: float | None

    @property
    def relative_gradient(self) -> float:
        """Largest entry of the gradient, relative to the parameters and the criterion."""
        point = self.point
        free = not point.space.design.is_structured
        scale = np.maximum(np.abs(point.x), 1.0) if free else 1.0
        return relative_gradient(point.gradient, scale, point.value)


class GeneralizedSearch:
    """Descents that share a record.

    Parameters
    ----------
    design : GeneralizedDesign
        The model.
    tolerance : float
        Stop when D is predicted to fall by less than this.
    max_evaluations : int
        Give up after so many.
    report : callable, optional
        Called with each accepted point and the number of evaluations.
    nodes : int
        Quadrature points per random effect; 1 is Laplace.
    """

    def __init__(
        self,
        design: GeneralizedDesign,
        tolerance: float,
        max_evaluations: int,
        report: Report | None = None,
        nodes: int = 1,
    ) -> None:
        self.design, self.tolerance, self.most = design, tolerance, max_evaluations
        self.nodes = nodes
        self.evaluations = self.iterations = self.factorisations = 0
        self.path: list[float] = []
        self._report = report
        self._near: GeneralizedEvaluation | None = None
        self._c: Blocks | None = None
        self._last: tuple[Parameters, GeneralizedEvaluation | None] | None = None

    def descend(self, at: Parameters, c: Blocks | None = None) -> Found:
        """To a minimum from these parameters; c is where to look for the modes."""
        self._c = c
        at = self._shrunken(at)
        if self.design.is_structured:
            return self._from_face_to_face(at)
        return self._free(at)

    def _shrunken(self, at: Parameters) -> Parameters:
        """With smaller covariances where the criterion does not exist at those given."""
        for _ in range(_SMALLER):
            if self._evaluate(at) is not None:
                break
            smaller = self.design.parameterisation.scaled(at.eta, 0.5)
            at = Parameters(smaller, at.beta, at.phi)
        else:
            if self._evaluate(at) is None:
                raise NotPositiveDefiniteError("some row has no mean, or no mode is found")
        return at

    def _evaluate(self, at: Parameters) -> GeneralizedEvaluation | None:
        """One evaluation; None where there is no criterion."""
        if self._last is not None and _same(self._last[0], at):
            return self._last[1]
        found = self._computed(at)
        self._last = (at, found)
        return found

    def _computed(self, at: Parameters) -> GeneralizedEvaluation | None:
        self.evaluations += 1
        try:
            # Steps too long for any number are taken back.
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                found = evaluate_criterion(
                    self.design,
                    at.factors(self.design.parameterisation),
                    at.beta,
                    at.phi,
                    nodes=self.nodes,
                    near=self._near,
                    c=self._c,
                )
        except NotPositiveDefiniteError:
            return None
        self.factorisations += found.mode.factorisations
        slope = float(found.beta_gradient.sum()) + found.phi_gradient
        if not math.isfinite(found.criterion + slope + sum(F.sum() for F in found.score)):
            return None
        if self._near is None or found.criterion <= self._near.criterion:
            self._near = found
        return found

    def _point(self, space: Space, x: Matrix) -> GeneralizedPoint | None:
        at, _, _ = space.parameters(x)
        found = self._evaluate(at)
        return None if found is None else GeneralizedPoint(space, x, at, found)

    def _minimise(self, space: Space, x: Matrix) -> Iterate[GeneralizedPoint]:
        result = minimise(
            lambda each: self._point(space, each),
            x,
            tolerance=self.tolerance * (_SHARE if self.nodes > 1 else 1.0),
            max_evaluations=max(self.most - self.evaluations, 1),
            radius=math.sqrt(max(len(x), 1)),
            report=self._accepted,
            # Exact second derivatives, those of Laplace's, leave next to nothing to learn.
            natural=len(self.design.skeleton.factors) > 1 or self.nodes > 1,
        )
        self.iterations += result.iterations
        return result

    def _accepted(self, iterate: Iterate[GeneralizedPoint]) -> None:
        value = iterate.point.value
        if self.path and abs(value - self.path[-1]) <= 1e-14 * abs(self.path[-1]):
            return
        self.path.append(value)
        if self._report is not None:
            self._report(iterate.point, self.evaluations)

    def _free(self, at: Parameters) -> Found:
        """Without structures: entries of the factors, and a way out of singular ones."""
        space = Space(self.design)
        for restart in range(_MAX_RESTARTS + 1):
            result = self._minimise(space, space.coordinates(at))
            point = self._snapped(result.point)
            score, escape = null_space_score(point.evaluation)
            if escape is None or restart == _MAX_RESTARTS or self.evaluations >= self.most:
                break
            at = Parameters(escape, point.at.beta, point.at.phi)
            if self._evaluate(at) is None:
                break
        return Found(point, result.predicted, result.stopped, score)

    def _snapped(self, point: GeneralizedPoint) -> GeneralizedPoint:
        """With a nearly singular covariance exactly so, if the criterion does not mind."""
        snapped = snapped_factors(point.evaluation.T)
        if snapped is None:
            return point
        eta = self.design.parameterisation.nearest(snapped)
        space = point.space
        trial = self._point(space, space.coordinates(Parameters(eta, point.at.beta, point.at.phi)))
        slack = 1e-12 * max(1.0, abs(point.value)) + 1e-9
        return trial if trial is not None and trial.value <= point.value + slack else point

    def _face_space(self, eta: Matrix) -> Space:
        """Coordinates of the face that these covariance parameters are on."""
        return Space(self.design, Face(self.design.parameterisation, eta, LARGEST))

    def _from_face_to_face(self, at: Parameters) -> Found:
        """With structures: on one face of the parameter space after another."""
        for _ in range(_FACES * self.design.parameterisation.n_parameters + 2):
            space = self._face_space(at.eta)
            result = self._minimise(space, space.coordinates(at))
            inner, score = result.point, None

            def point_at(eta: Matrix, at: Parameters = inner.at) -> GeneralizedPoint | None:
                moved = Parameters(eta, at.beta, at.phi)
                found = self._evaluate(moved)
                if found is None:
                    return None
                own = self._face_space(eta)
                return GeneralizedPoint(own, own.coordinates(moved), moved, found)

            point = put_on_bounds(point_at, inner)
            if point is not inner and self.evaluations < self.most:
                at = point.at
                continue
            ways = boundary_score(point_at, point)
            score = ways.score
            if ways.escape is None or self.evaluations >= self.most:
                break
            at = ways.escape.at
        return Found(point, result.predicted, result.stopped, score)


def _same(a: Parameters, b: Parameters) -> bool:
    return a.phi == b.phi and np.array_equal(a.eta, b.eta) and np.array_equal(a.beta, b.beta)
