"""Transformed responses and the way back: ``log(y + 1)``, ``sqrt(y)``, ``1/y``, ``scale(y)``.

A transformation is a sequence of steps, from the column outwards. The table `STEPS` says of each
kind of step how it is undone, with three derivatives; steps one after the other are undone by the
chain rule. `transformation_reader` takes the left-hand side of a formula apart into them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["STEPS", "Kind", "Step", "Transformation"]

Matrix = NDArray[np.float64]
#: A function's value with its first three derivatives.
Jet = tuple[Matrix, Matrix, Matrix, Matrix]


@dataclass(frozen=True)
class Kind:
    """A kind of step, ``v = f(u; numbers)``.

    Attributes
    ----------
    forward : callable
        From u and the numbers to v.
    undone : callable
        From v and the numbers to u and its three derivatives by v.
    image : callable
        From the numbers to the smallest and the largest v.
    """

    forward: Callable[..., Any]
    undone: Callable[..., Jet]
    image: Callable[..., tuple[float, float]] = lambda *_: (-np.inf, np.inf)


def _affine(v: Matrix, a: float, b: float) -> Jet:
    zero = np.zeros_like(v)
    return (v - b) / a, np.full_like(v, 1.0 / a), zero, zero


def _exp(v: Matrix) -> Jet:
    u = np.exp(v)
    return u, u, u, u


def _log(v: Matrix) -> Jet:
    return np.log(v), 1.0 / v, -1.0 / v**2, 2.0 / v**3


def _power(v: Matrix, p: float, sign: float) -> Jet:
    """Undo ``u ** p`` where all u have one sign, and v that of `_power_sign`."""
    q, side = 1.0 / p, _power_sign(p, sign)
    w = np.abs(v)

    def term(factor: float, exponent: float) -> Matrix:
        # Of a parabola the third derivative is zero at zero too.
        return factor * w**exponent if factor else np.zeros_like(w)

    return (
        term(sign, q),
        term(sign * side * q, q - 1.0),
        term(sign * q * (q - 1.0), q - 2.0),
        term(sign * side * q * (q - 1.0) * (q - 2.0), q - 3.0),
    )


def _power_sign(p: float, sign: float) -> float:
    return 1.0 if sign > 0.0 or p % 2.0 == 0.0 else -1.0


def _power_image(p: float, sign: float) -> tuple[float, float]:
    return (0.0, np.inf) if _power_sign(p, sign) > 0.0 else (-np.inf, 0.0)


def _logistic(v: Matrix) -> Jet:
    u = 1.0 / (1.0 + np.exp(-v))
    d = u * (1.0 - u)
    return u, d, d * (1.0 - 2.0 * u), d * (1.0 - 6.0 * d)


def _sine(v: Matrix) -> Jet:
    return np.sin(v), np.cos(v), -np.sin(v), -np.cos(v)


def _hyperbolic_sine(v: Matrix) -> Jet:
    return np.sinh(v), np.cosh(v), np.sinh(v), np.cosh(v)


#: Every kind of step. ``affine`` is a u + b; ``power`` has the exponent and the sign of all u.
STEPS: dict[str, Kind] = {
    "affine": Kind(lambda u, a, b: a * u + b, _affine),
    "log": Kind(np.log, _exp),
    "exp": Kind(np.exp, _log, lambda: (0.0, np.inf)),
    "power": Kind(lambda u, p, sign: np.power(u, p), _power, _power_image),
    "logit": Kind(lambda u: np.log(u / (1.0 - u)), _logistic),
    "arcsine": Kind(np.arcsin, _sine, lambda: (-np.pi / 2.0, np.pi / 2.0)),
    "arsinh": Kind(np.arcsinh, _hyperbolic_sine),
}


@dataclass(frozen=True)
class Step:
    """One step of a transformation: a kind of `STEPS` with its numbers."""

    kind: str
    numbers: tuple[float, ...] = ()


@dataclass(frozen=True)
class Transformation:
    """A transformed response, as steps from the column outwards.

    Attributes
    ----------
    text : str
        The left-hand side of the formula, such as ``log(y + 1)``.
    original : str
        What it is a transformation of: ``y``.
    steps : tuple of Step
        The innermost first.
    logged : str
        If it is a logarithm, of what: ``y + 1``, or the odds ``y / (1 - y)``. Differences are then
        logarithms of ratios.

    Examples
    --------
    >>> import numpy as np
    >>> from mixedeffects.formula import parse_formula
    >>> from mixedeffects.formula.transformation_reader import read_transformation
    >>> tree = parse_formula("log10(y + 1) ~ x + (1 | g)").response_tree
    >>> way = read_transformation(tree, {"y": np.array([1.0, 9.0])}, 2, {})
    >>> way.original, way.logged
    ('y', 'y + 1')
    >>> way.inverse(np.array([1.0, 2.0]))
    array([ 9., 99.])
    """

    text: str
    original: str
    steps: tuple[Step, ...] = ()
    logged: str = ""

    @property
    def is_affine(self) -> bool:
        """Whether it only shifts and scales."""
        return all(step.kind == "affine" for step in self.steps)

    @property
    def falls(self) -> bool:
        """Whether larger originals have smaller transformed values."""
        falling = False
        for step in self.steps:
            if step.kind == "affine":
                falling ^= step.numbers[0] < 0.0
            elif step.kind == "power":
                p, sign = step.numbers
                falling ^= (p < 0.0) != (_power_sign(p, sign) != sign)
        return falling

    def forward(self, u: Any) -> Matrix:
        """Transform values of the original."""
        v = np.asarray(u, dtype=np.float64)
        for step in self.steps:
            v = STEPS[step.kind].forward(v, *step.numbers)
        return v

    def inverse(self, v: Any) -> Matrix:
        """Values of the original; beyond the transformation's range those at its end."""
        return self.jet(v)[0]

    def jet(self, v: Any) -> Jet:
        """The inverse and its first, second and third derivative."""
        v = np.asarray(v, dtype=np.float64)
        one, zero = np.ones_like(v), np.zeros_like(v)
        h, h1, h2, h3 = v, one, zero, zero
        with np.errstate(all="ignore"):
            for step in reversed(self.steps):
                kind = STEPS[step.kind]
                low, high = kind.image(*step.numbers)
                g, g1, g2, g3 = kind.undone(np.clip(h, low, high), *step.numbers)
                h, h1, h2, h3 = (
                    g,
                    g1 * h1,
                    g2 * h1**2 + g1 * h2,
                    g3 * h1**3 + 3.0 * g2 * h1 * h2 + g1 * h3,
                )
        return h, h1, h2, h3

    def outside(self, v: Any) -> NDArray[np.bool_]:
        """Which transformed values no value of the original has."""
        v = np.asarray(v, dtype=np.float64)
        out = np.zeros(v.shape, dtype=np.bool_)
        with np.errstate(all="ignore"):
            for step in reversed(self.steps):
                kind = STEPS[step.kind]
                low, high = kind.image(*step.numbers)
                out |= (v < low) | (v > high)
                v = kind.undone(np.clip(v, low, high), *step.numbers)[0]
        return out

    def of_differences(self) -> Transformation | None:
        """What undoes differences: to ratios, or to differences of the original; None if neither.

        Of an affine transformation it is the same without the shift; of a logarithm the ratio of
        what it is the logarithm of.
        """
        slope, outer = 1.0, list(self.steps)
        while outer and outer[-1].kind == "affine":
            slope *= outer.pop().numbers[0]
        scaled = (Step("affine", (slope, 0.0)),)
        if not outer:
            return replace(self, steps=scaled)
        if outer[-1].kind in ("log", "logit"):
            return replace(self, steps=(Step("log"), *scaled), original=self.logged)
        return None
