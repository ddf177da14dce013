"""A trust-region method for objectives that come with a cheap smooth model around each point.

The model is minimised within the radius by Newton steps of its own, each subproblem solved exactly
by an eigendecomposition: there are at most a few dozen parameters, and the model costs nothing
beside the objective. Where the model's curvature is off, its Newton steps converge only linearly;
close to the minimum a secant correction (Powell's symmetric Broyden update, which changes the model
least) is therefore learnt from the gradients met on the way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Iterate", "Model", "Point", "minimise", "secant_update"]

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


class Model(Protocol):
    """A smooth model of the objective around a point, its Hessian open to a correction."""

    def at(self, step: Vector, correction: Matrix) -> tuple[float, Vector, Matrix]:
        """Change of the model after a step, and its gradient and Hessian there."""

    def minimise(self, correction: Matrix, radius: float) -> tuple[Vector, float]:
        """Step within the radius that makes the model small, and the decrease it predicts."""


class Point(Protocol):
    """What the method needs to know at one point."""

    @property
    def value(self) -> float:
        """Objective."""

    @property
    def gradient(self) -> Vector:
        """Its gradient."""

    def model(self) -> Model:
        """Model of the objective around this point."""


#: Predicted decrease below which gradients are near enough to linear to learn from.
_LOCAL = 1e-3
#: The same where a step of one is a natural one.
_NEARLY_LOCAL = 0.1

#: Rounding of the objective, relative to its size.
_ROUNDING = 4.0 * float(np.finfo(np.float64).eps)

P = TypeVar("P", bound=Point)


@dataclass(frozen=True)
class Iterate(Generic[P]):
    """One accepted point and how it was reached."""

    x: Vector
    point: P
    evaluations: int
    iterations: int
    radius: float
    predicted: float
    stopped: str


def secant_update(correction: Matrix, missing: Vector, step: Vector) -> Matrix:
    """Smallest symmetric change after which the correction also maps step to what was missing."""
    length2 = float(step @ step)
    cross = np.outer(missing, step)
    return np.asarray(
        correction
        + (cross + cross.T) / length2
        - float(missing @ step) * np.outer(step, step) / length2**2
    )


def symmetric_rank_one_update(correction: Matrix, missing: Vector, step: Vector) -> Matrix:
    """The symmetric change of rank one after which the correction maps step to what was missing.

    None where the step hardly has a part along what was missing.
    """
    along = float(missing @ step)
    if abs(along) <= 1e-8 * float(np.linalg.norm(missing) * np.linalg.norm(step)):
        return correction
    return np.asarray(correction + np.outer(missing, missing) / along)


def minimise(
    evaluate: Callable[[Vector], P | None],
    x: Vector,
    *,
    tolerance: float,
    max_evaluations: int,
    radius: float,
    report: Callable[[Iterate[P]], None] | None = None,
    correction: Matrix | None = None,
    natural: bool = False,
) -> Iterate[P]:
    """Minimise from x until the predicted decrease is below the tolerance.

    Parameters
    ----------
    evaluate : callable
        The point at x, or None where the objective does not exist; then the step is shortened.
    x : ndarray
        Start.
    tolerance : float
        Stop when the model predicts a smaller decrease than this, or than the objective's rounding.
    max_evaluations : int
        Give up after so many.
    radius : float
        First radius.
    report : callable, optional
        Called after every accepted step.
    correction : ndarray, optional
        Of the model's Hessian, to begin with.
    natural : bool
        Whether a step of one is a natural one in every coordinate. Then the correction is learnt
        wherever the model was wrong within such a step, from rejected steps too.
    """
    point = evaluate(x)
    if point is None:
        raise ArithmeticError("The objective cannot be evaluated at the starting value.")
    evaluations, iterations = 1, 0
    correction = np.zeros((len(x), len(x))) if correction is None else correction
    model = point.model()
    while True:
        step, predicted = model.minimise(correction, radius)
        current = Iterate(x, point, evaluations, iterations, radius, predicted, "")
        if report is not None:
            report(current)
        # Smaller decreases are lost in the rounding of the objective itself.
        if predicted < max(tolerance, _ROUNDING * abs(point.value)):
            return Iterate(x, point, evaluations, iterations, radius, predicted, "converged")
        if evaluations >= max_evaluations:
            return Iterate(x, point, evaluations, iterations, radius, predicted, "evaluations")
        length = math.sqrt(float(step @ step))
        if length <= 1e-14 * max(1.0, math.sqrt(float(x @ x))):
            return Iterate(x, point, evaluations, iterations, radius, predicted, "step")
        trial = evaluate(x + step)
        evaluations += 1
        if trial is None:
            radius = 0.25 * length
            continue
        actual = point.value - trial.value
        # Decreases of the size of rounding say nothing about the model.
        noise = 1e-13 * max(1.0, abs(point.value))
        agreement = (actual + noise) / (predicted + noise)
        if agreement < 0.25:
            radius = 0.25 * length
        elif agreement > 0.75 and length > 0.99 * radius:
            radius *= 3.0
        change = trial.gradient - point.gradient
        accepted = actual > -noise
        if accepted:
            x, point = x + step, trial
            model = point.model()
            iterations += 1
        if natural:
            learning = predicted < _NEARLY_LOCAL or (length < 1.0 and abs(agreement - 1.0) > 0.5)
        else:
            learning = accepted and predicted < _LOCAL
        if learning:
            missing = change - model.at(np.zeros(len(x)), correction)[2] @ step
            update = symmetric_rank_one_update if natural else secant_update
            correction = update(correction, missing, step)
