"""Newton's method on the profiled deviance with the observed curvature.

The average information, on which the usual steps rest, can be off by orders of magnitude: along
singular covariances, and where one level holds most of the rows. Steps then creep, and a model that
believes in no further decrease is wrong. Here second derivatives are observed, by differences of
the gradient, one evaluation for each parameter, and kept up to date by secant updates while they
predict well.

The coordinates are those of the covariance at hand: ``T = U R`` with U the principal axes of each
Sigma, by falling variance, and R lower triangular, diagonal to begin with. In a triangular T of
fixed axes the entries of a singular covariance are not determined, and a valley goes round in a
circle; in these it is straight.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.basis import lower_factor
from mixedeffects.engine.factorisation import NotPositiveDefiniteError
from mixedeffects.engine.objective import Evaluation, evaluate
from mixedeffects.engine.parameters import T_to_theta, theta_to_T
from mixedeffects.engine.trust_region import secant_update, trust_region_step

__all__ = ["Newton", "newton"]

Matrix = NDArray[np.float64]

#: Step of the differences of gradients, relative to the size of a parameter.
_DIFFERENCE = 1e-5
#: Relative error of a predicted decrease from which the curvature is observed again.
_OFF = 0.25
#: Steps after which it is observed again in any case.
_AGE = 8
#: Relative standard deviations from which they are the unit of a search.
_LARGE = 10.0
#: Rounding of the deviance, relative to its size.
_ROUNDING = 4.0 * float(np.finfo(np.float64).eps)
#: A decrease this many times the rounding that fails to come is rounding.
_NOISE = 1e4


@dataclass(frozen=True, eq=False)
class Newton:
    """Where Newton's method ended.

    Attributes
    ----------
    T : tuple of ndarray (k, k)
        Lower-triangular factors.
    evaluation : Evaluation
        There.
    evaluations, iterations : int
        Evaluations, those of the curvature included, and accepted steps.
    predicted : float
        How far the deviance would still fall by the observed curvature.
    stopped : str
        ``"converged"``, ``"rounding"``, ``"evaluations"``, or ``"edge"`` where the deviance does
        not exist next to the end.
    """

    T: tuple[Matrix, ...]
    evaluation: Evaluation
    evaluations: int
    iterations: int
    predicted: float
    stopped: str


class _Coordinates:
    """Lower-triangular factors R in the principal axes U of some covariances, T = U R."""

    def __init__(self, here: Evaluation) -> None:
        self.A, self.reml = here.A, here.reml
        decompositions = [np.linalg.svd(factor) for factor in here.T]
        self.axes = [left for left, _, _ in decompositions]
        #: Sizes of the rows of R where they are large: the units of the search.
        self.unit = T_to_theta(
            [
                np.repeat(np.where(values > _LARGE, values, 1.0)[:, None], len(values), axis=1)
                for _, values, _ in decompositions
            ]
        )
        #: Where, and the gradient there.
        self.x = T_to_theta([np.diag(values) for _, values, _ in decompositions]) / self.unit
        self.own_gradient = self.unit * T_to_theta(
            [
                left.T @ g @ right.T
                for (left, _, right), g in zip(decompositions, here.gradient_T, strict=True)
            ]
        )

    def at(self, x: Matrix) -> Evaluation | None:
        """The deviance and its derivatives, None where it does not exist."""
        R = theta_to_T(x * self.unit, self.A.term_columns)
        try:
            there = evaluate(self.A, [U @ r for U, r in zip(self.axes, R, strict=True)], self.reml)
        except NotPositiveDefiniteError:
            return None
        return there if math.isfinite(there.deviance) else None

    def gradient(self, there: Evaluation) -> Matrix:
        """Derivatives in R."""
        return self.unit * T_to_theta(
            [U.T @ g for U, g in zip(self.axes, there.gradient_T, strict=True)]
        )

    def hessian(self) -> Matrix | None:
        """Second derivatives at x; None where a neighbour does not exist."""
        rows = []
        for j, value in enumerate(self.x):
            moved = self.x.copy()
            moved[j] += math.copysign(_DIFFERENCE * max(1.0, abs(value)), value)
            there = self.at(moved)
            if there is None:
                return None
            rows.append((self.gradient(there) - self.own_gradient) / (moved[j] - value))
        hessian = np.array(rows)
        return np.asarray(0.5 * (hessian + hessian.T))


def newton(
    here: Evaluation,
    *,
    tolerance: float,
    max_evaluations: int,
    report: Callable[[Evaluation, int], None] | None = None,
) -> Newton:
    """Minimise the deviance from a point on.

    Parameters
    ----------
    here : Evaluation
        Where to begin.
    tolerance : float
        Stop when the deviance is predicted to fall by less than this.
    max_evaluations : int
        Give up after so many.
    report : callable, optional
        Called with an evaluation and the number of evaluations after each accepted step.
    """
    evaluations, iterations, age = 0, 0, _AGE
    radius, predicted = math.sqrt(len(here.gradient)), math.inf
    point = _Coordinates(here)
    x, gradient, hessian = point.x, point.own_gradient, np.zeros((0, 0))

    def ended(stopped: str) -> Newton:
        T = tuple(lower_factor(factor) for factor in here.T)
        return Newton(T, here, evaluations, iterations, predicted, stopped)

    while True:
        if age >= _AGE:
            if evaluations + len(x) >= max_evaluations:
                return ended("evaluations")
            point = _Coordinates(here)
            x, gradient = point.x, point.own_gradient
            observed = point.hessian()
            if observed is None:
                return ended("edge")
            hessian, age = observed, 0
            evaluations += len(x)
        step = trust_region_step(gradient, hessian, radius)
        predicted = -float(gradient @ step + 0.5 * step @ hessian @ step)
        rounding = _ROUNDING * max(1.0, abs(here.deviance))
        if predicted < max(tolerance, rounding):
            if age == 0:
                return ended("converged")
            age = _AGE
            continue
        if evaluations >= max_evaluations:
            return ended("evaluations")
        length = float(np.linalg.norm(step))
        trial = point.at(x + step)
        evaluations += 1
        actual = -math.inf if trial is None else here.deviance - trial.deviance
        agreement = (actual + rounding) / (predicted + rounding)
        if trial is None or not actual > 0.0:
            if age > 0:
                # Perhaps the curvature is only out of date.
                age = _AGE
            elif predicted < _NOISE * rounding:
                return ended("rounding")
            else:
                radius = 0.25 * length
            continue
        if agreement < 0.25:
            radius = 0.25 * length
        elif agreement > 0.75 and length > 0.99 * radius:
            radius *= 3.0
        before, gradient = gradient, point.gradient(trial)
        hessian = secant_update(hessian, gradient - before - hessian @ step, step)
        here, x = trial, x + step
        age = _AGE if abs(agreement - 1.0) > _OFF else age + 1
        iterations += 1
        if report is not None:
            report(here, evaluations)
