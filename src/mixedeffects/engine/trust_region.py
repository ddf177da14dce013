"""A trust-region method for objectives that come with a cheap smooth model around each point.

The model is minimised within the radius by Newton steps of its own, each subproblem solved exactly
by an eigendecomposition: there are at most a few dozen parameters, and the model costs nothing
beside the objective. Where the model's curvature is off, its Newton steps converge only linearly;
close to the minimum a secant correction (Powell's symmetric Broyden update, which changes the model
least) is therefore learnt from the gradients met on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Iterate", "Point", "minimise", "minimise_model", "secant_update", "trust_region_step"]

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


class Model(Protocol):
    """A smooth model of the objective around a point."""

    def at(self, step: Vector) -> tuple[float, Vector, Matrix]:
        """Change of the model after a step, and its gradient and Hessian there."""


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


#: Newton steps on the model before the objective is evaluated again.
_MODEL_STEPS = 30

#: Predicted decrease below which gradients are near enough to linear to learn from.
_LOCAL = 1e-3

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


@dataclass(frozen=True, eq=False)
class _Corrected:
    """A model with a constant added to its Hessian."""

    model: Model
    correction: Matrix

    def at(self, step: Vector) -> tuple[float, Vector, Matrix]:
        value, gradient, hessian = self.model.at(step)
        added = self.correction @ step
        return value + 0.5 * float(step @ added), gradient + added, hessian + self.correction


def secant_update(correction: Matrix, missing: Vector, step: Vector) -> Matrix:
    """Smallest symmetric change after which the correction also maps step to what was missing."""
    length2 = float(step @ step)
    cross = np.outer(missing, step)
    return np.asarray(
        correction
        + (cross + cross.T) / length2
        - float(missing @ step) * np.outer(step, step) / length2**2
    )


def trust_region_step(gradient: Vector, hessian: Matrix, radius: float) -> Vector:
    """Minimiser of ``g's + s'Hs/2`` over ``|s| <= radius``."""
    values, vectors = np.linalg.eigh(hessian)
    g = vectors.T @ gradient
    floor = 1e-12 * max(1.0, float(np.abs(values).max()))

    def step_at(shift: float) -> Vector:
        return np.asarray(-g / np.maximum(values + shift, floor))

    step = step_at(0.0)
    if values[0] > floor and np.linalg.norm(step) <= radius:
        return np.asarray(vectors @ step)
    low = max(0.0, -float(values[0])) + floor
    step = step_at(low)
    if np.linalg.norm(step) <= radius:
        # The hard case: along the most negative curvature to the boundary.
        if values[0] < -floor:
            room = np.sqrt(radius**2 - float(step @ step))
            step[0] += -room if g[0] > 0 else room
        return np.asarray(vectors @ step)
    high = max(2.0 * low, 1e-8)
    while np.linalg.norm(step_at(high)) > radius:
        high *= 4.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        if np.linalg.norm(step_at(middle)) > radius:
            low = middle
        else:
            high = middle
        if high - low < 1e-6 * high:
            break
    return np.asarray(vectors @ step_at(high))


def minimise_model(model: Model, size: int, radius: float) -> tuple[Vector, float]:
    """Step of at most the radius that makes the model small, and the decrease it predicts.

    The model is smooth but not quadratic, so it is minimised by a trust region of its own.
    """
    step = np.zeros(size)
    value, gradient, hessian = model.at(step)
    inner = radius
    for _ in range(_MODEL_STEPS):
        target = step + trust_region_step(gradient, hessian, inner)
        length = float(np.linalg.norm(target))
        if length > radius:
            target *= radius / length
        move = target - step
        expected = -float(gradient @ move + 0.5 * move @ hessian @ move)
        at_target = model.at(target)
        gained = value - at_target[0]
        if gained <= 0.0 or gained < 0.1 * expected:
            inner = 0.25 * float(np.linalg.norm(move))
            if inner <= 1e-12 * radius:
                break
        if gained <= 0.0:
            continue
        step, (value, gradient, hessian) = target, at_target
        if abs(expected - gained) < 0.02 * gained or gained < 0.01 * -value:
            break
    return step, -value


def minimise(
    evaluate: Callable[[Vector], P | None],
    x: Vector,
    *,
    tolerance: float,
    max_evaluations: int,
    radius: float,
    report: Callable[[Iterate[P]], None] | None = None,
) -> Iterate[P]:
    """Minimise from x until the predicted decrease is below the tolerance.

    Parameters
    ----------
    evaluate : callable
        The point at x, or None where the objective does not exist; then the step is shortened.
    x : ndarray
        Start.
    tolerance : float
        Stop when the model predicts a smaller decrease than this.
    max_evaluations : int
        Give up after so many.
    radius : float
        First radius.
    report : callable, optional
        Called after every accepted step.
    """
    point = evaluate(x)
    if point is None:
        raise ArithmeticError("The objective cannot be evaluated at the starting value.")
    evaluations, iterations = 1, 0
    correction = np.zeros((len(x), len(x)))
    model = _Corrected(point.model(), correction)
    while True:
        step, predicted = minimise_model(model, len(x), radius)
        current = Iterate(x, point, evaluations, iterations, radius, predicted, "")
        if report is not None:
            report(current)
        if predicted < tolerance:
            return Iterate(x, point, evaluations, iterations, radius, predicted, "converged")
        if evaluations >= max_evaluations:
            return Iterate(x, point, evaluations, iterations, radius, predicted, "evaluations")
        length = float(np.linalg.norm(step))
        if length <= 1e-14 * max(1.0, float(np.linalg.norm(x))):
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
        if actual > -noise:
            change = trial.gradient - point.gradient
            x, point = x + step, trial
            model = _Corrected(point.model(), correction)
            if predicted < _LOCAL:
                hessian = model.at(np.zeros(len(x)))[2]
                correction = secant_update(correction, change - hessian @ step, step)
                model = _Corrected(model.model, correction)
            iterations += 1
