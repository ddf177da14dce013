"""Steps on a smooth local model within a trust radius, for models without a kernel of their own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["minimise_model", "trust_region_step"]

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

#: Newton steps on the model before the objective is evaluated again.
_MODEL_STEPS = 30


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
    # Newton's method on |step| / radius - 1, whose reciprocal is nearly linear in the shift.
    shift = low
    for _ in range(60):
        step = step_at(shift)
        length = float(np.sqrt(step @ step))
        if length <= radius * (1.0 + 1e-9):
            break
        slope = float(step @ (step / np.maximum(values + shift, floor)))
        shift += (length / radius - 1.0) * length**2 / slope
    return np.asarray(vectors @ step_at(shift))


def minimise_model(
    model_at: Callable[[Vector], tuple[float, Vector, Matrix]], size: int, radius: float
) -> tuple[Vector, float]:
    """Step of at most the radius that makes the model small, and the decrease it predicts.

    The model is smooth but not quadratic, so it is minimised by a trust region of its own.
    """
    step = np.zeros(size)
    value, gradient, hessian = model_at(step)
    inner = radius
    for _ in range(_MODEL_STEPS):
        target = step + trust_region_step(gradient, hessian, inner)
        length = float(np.linalg.norm(target))
        if length > radius:
            target *= radius / length
        move = target - step
        expected = -float(gradient @ move + 0.5 * move @ hessian @ move)
        at_target = model_at(target)
        gained = value - at_target[0]
        # Not a number where the model overflows: no gain either.
        if not gained > 0.0 or gained < 0.1 * expected:
            inner = 0.25 * float(np.linalg.norm(move))
            if inner <= 1e-12 * radius:
                break
        if not gained > 0.0:
            continue
        step, (value, gradient, hessian) = target, at_target
        if abs(expected - gained) < 0.02 * gained or gained < 0.01 * -value:
            break
    return step, -value
