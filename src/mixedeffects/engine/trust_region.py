"""A trust-region method for objectives that come with a cheap smooth model around each point.

The model is minimised within the radius by Newton steps of its own, each subproblem solved exactly
by an eigendecomposition: there are at most a few dozen parameters, and the model costs nothing
beside the objective. Where the model's curvature is off, its Newton steps converge only linearly;
close to the minimum a secant correction (Powell's symmetric Broyden update, which changes the model
least) is therefore learnt from the gradients met on the way.

The method itself is in the kernels (`trust_region.hpp`), where objectives that the kernels evaluate
alone go through the same loop; here is its face for objectives and models written in Python.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mixedeffects import _kernels

__all__ = [
    "Iterate",
    "Model",
    "Point",
    "minimise",
    "minimise_model",
    "secant_update",
    "symmetric_rank_one_update",
    "trust_region_step",
]

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


P = TypeVar("P", bound=Point)


@dataclass(frozen=True)
class Iterate(Generic[P]):
    """One accepted point and how it was reached.

    Attributes
    ----------
    x : ndarray
        Where.
    point : Point
        There.
    evaluations, iterations : int
        Evaluations and accepted steps so far.
    radius : float
        Of the next step.
    predicted : float
        Decrease that the model predicts for it.
    stopped : str
        ``"converged"``, ``"evaluations"`` where they were used up, ``"step"`` where steps became
        too short to tell; empty on the way.
    """

    x: Vector
    point: P
    evaluations: int
    iterations: int
    radius: float
    predicted: float
    stopped: str


def secant_update(correction: Matrix, missing: Vector, step: Vector) -> Matrix:
    """Smallest symmetric change after which the correction also maps step to what was missing."""
    return _kernels.secant_update(correction, missing, step)


def symmetric_rank_one_update(correction: Matrix, missing: Vector, step: Vector) -> Matrix:
    """The symmetric change of rank one after which the correction maps step to what was missing.

    No change where the step hardly has a part along what was missing.
    """
    return _kernels.symmetric_rank_one_update(correction, missing, step)


def trust_region_step(gradient: Vector, hessian: Matrix, radius: float) -> Vector:
    """Minimiser of ``g's + s'Hs/2`` over ``|s| <= radius``."""
    return _kernels.trust_region_step(gradient, hessian, radius)


def minimise_model(
    model_at: Callable[[Vector], tuple[float, Vector, Matrix]], size: int, radius: float
) -> tuple[Vector, float]:
    """Step of at most the radius that makes a model small, and the decrease it predicts.

    The model is smooth but not quadratic, so it is minimised by a trust region of its own.

    Parameters
    ----------
    model_at : callable
        Change of the model after a step, and its gradient and Hessian there. Where the change is
        infinite or not a number the step is shortened.
    size : int
        Number of parameters.
    radius : float
        Of the longest step.
    """
    return _kernels.minimise_model(model_at, size, radius)


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
        Called with each iterate when its next step is known, and again after a step that was not
        taken.
    correction : ndarray, optional
        Of the model's Hessian, to begin with.
    natural : bool
        Whether a step of one is a natural one in every coordinate. Then the correction is learnt
        wherever the model was wrong within such a step, from rejected steps too.
    """
    point = evaluate(x)
    if point is None:
        raise ArithmeticError("The objective cannot be evaluated at the starting value.")
    end = _kernels.minimise(
        evaluate,
        x,
        point,
        np.zeros((len(x), len(x))) if correction is None else correction,
        tolerance,
        max_evaluations,
        radius,
        natural,
        None if report is None else lambda *state: report(Iterate(*state)),
    )
    return Iterate(*end)
