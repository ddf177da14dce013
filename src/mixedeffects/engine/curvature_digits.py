"""Steps of the differences that second derivatives are made of, and the digits these have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.crossproducts import CrossProducts

__all__ = ["EPS", "ERRORS", "STEP", "Digits", "amplifications", "visible_variances"]

Matrix = NDArray[np.float64]

EPS = float(np.finfo(np.float64).eps)
#: Steps of the central differences in natural directions: two points, or four points where the
#: gradient bends within such a step or is known to few digits.
STEP, _LONGEST_STEP = 1e-4, 0.05
#: Rounding errors of the size of eps that a gradient is made of.
ERRORS = 8.0


@dataclass(frozen=True, eq=False)
class Digits:
    """How traces are to be differentiated, and how well second derivatives are then known.

    Attributes
    ----------
    step : float
        In natural directions.
    four : bool
        With two points on either side.
    errors : tuple of float
        Of second derivatives, traces and forms of the response together: relative to the parts of
        the gradient along a direction, and to what the levels could add to it.
    """

    step: float
    four: bool
    errors: tuple[float, float]

    @staticmethod
    def of(A: CrossProducts, T: Sequence[Matrix]) -> Digits:
        """For the blocks of a fit and its relative covariance factors."""
        error = EPS * _trace_amplification(A, T)
        four = error ** (1.0 / 3.0) > STEP
        longer = float(np.clip(error**0.2, 10.0 * STEP, _LONGEST_STEP))
        step = longer if four else STEP
        of_forms = EPS * max(amplifications(A, T))
        return Digits(step, four, (error / step + of_forms, error / longer + of_forms))

    @property
    def points(self) -> int:
        """Evaluations for one derivative."""
        return 4 if self.four else 2

    def reach(self, bend: float) -> float:
        """The longest step."""
        longest = (2.0 if self.four else 1.0) * self.step
        return longest / (1.0 - abs(bend) * longest)

    def derivative(self, traces: Callable[[float], Matrix], bend: float) -> Matrix:
        """Of traces along a line, at zero.

        Parameters
        ----------
        traces : callable
            At a step along the line.
        bend : float
            By how much steps grow with their length. Along a factor M that is multiplied, in
            natural units, traces are ``(1 - M h)^2`` of what they were at a step of
            ``h / (1 - M h)``, but for what the residual variance adds to a small M.
        """
        h = self.step

        def at(step: float) -> Matrix:
            return traces(step / (1.0 - bend * step))

        inner = at(h) - at(-h)
        if not self.four:
            return np.asarray(inner / (2.0 * h))
        outer = at(2.0 * h) - at(-2.0 * h)
        return np.asarray((8.0 * inner - outer) / (12.0 * h))

    def noise(self, parts: Matrix, least: Matrix | float) -> Matrix:
        """Of second derivatives, from the parts of the gradient and what levels could add."""
        of_parts = self.errors[0] * np.abs(parts).sum(axis=0)
        return np.asarray(ERRORS * (of_parts + self.errors[1] * least))


def _trace_amplification(A: CrossProducts, T: Sequence[Matrix]) -> float:
    """By how much the shrinkage of effects magnifies rounding in ``tr Z'PZ``.

    Fixed effects lose the digits of the largest effects, except as columns less provisional ones.
    Other factors lose those of the effects that they share with larger ones.
    """
    of_term = [
        float(np.vdot(own, own)) / share for own, share in zip(T, visible_variances(A), strict=True)
    ]
    ratios = sorted(
        [0.0, *(max(of_term[member.term] for member in factor.members) for factor in A.factors)]
    )
    return 1.0 + ratios[-1 if A.provisional is None else -2]


def amplifications(A: CrossProducts, T: Sequence[Matrix]) -> list[float]:
    """By how much the shrinkage of each term's effects magnifies rounding in the score."""
    ratios = [
        float(np.vdot(own, own)) / share for own, share in zip(T, visible_variances(A), strict=True)
    ]
    if A.provisional is not None:
        # Provisional effects keep half of the digits, but where two large effects share directions.
        shared = sorted([0.0, *ratios])[-2]
        ratios = [max(float(np.sqrt(ratio)), min(ratio, shared)) for ratio in ratios]
    return [1.0 + ratio for ratio in ratios]


def visible_variances(A: CrossProducts) -> list[float]:
    """``l/n`` per term: the variance that the rows of a level can tell from none."""
    levels = [0] * len(A.term_columns)
    for factor in A.factors:
        for member in factor.members:
            levels[member.term] = factor.n_levels
    return [count / A.n for count in levels]
