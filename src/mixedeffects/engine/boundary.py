"""Where a covariance structure is at its boundary: whether that is a minimum, and the way out.

The boundary: variances of zero, and correlations at the end of their range. The directions are
those that stay within the structure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.parameterisation import Parameterisation
from mixedeffects.engine.search import Scored

__all__ = ["SLACK", "BoundaryPoint", "BoundaryScore", "boundary_score", "put_on_bounds"]

Matrix = NDArray[np.float64]


class BoundaryPoint(Protocol):
    """What is asked of a point; see `StructuredPoint`."""

    @property
    def parameterisation(self) -> Parameterisation:
        """What the parameters are."""
        ...

    @property
    def eta(self) -> Matrix:
        """Their values."""
        ...

    @property
    def value(self) -> float:
        """Deviance."""
        ...

    @property
    def evaluation(self) -> Scored:
        """Factors and scores there."""
        ...


P = TypeVar("P", bound=BoundaryPoint)

#: Difference of deviances that is more than rounding.
SLACK = 1e-8
#: Relative score below which leaving the boundary would lower the deviance.
_NEGATIVE = -1e-6
#: Steps off the boundary: one for derivatives, and those to try.
_LITTLE, _STEPS = 1e-4, (0.5, 0.1, 0.02, 4e-3, 8e-4)


@dataclass(frozen=True, eq=False)
class BoundaryScore(Generic[P]):
    """Evidence at the boundary.

    Attributes
    ----------
    score : float or None
        The smallest relative one-sided derivative of the deviance on the way off the boundary; None
        where nothing is at it.
    escape : BoundaryPoint or None
        A point off the boundary where the deviance is lower, if there is one.
    """

    score: float | None
    escape: P | None


def put_on_bounds(point_at: Callable[[Matrix], P | None], point: P) -> P:
    """The point, with what is close to a bound put on it where the deviance does not mind."""
    first = point.eta
    for eta in point.parameterisation.on_bounds(first):
        trial = point_at(np.where(eta == first, point.eta, eta))
        slack = 1e-12 * max(1.0, abs(point.value)) + 1e-9
        if trial is not None and trial.value <= point.value + slack:
            point = trial
    return point


def boundary_score(point_at: Callable[[Matrix], P | None], point: P) -> BoundaryScore[P]:
    """Derivatives off the boundary, and the lowest point found on the ways where they are negative.

    Where columns are correlated, variance added to one of them can raise the deviance at first and
    lower it later, so ways on which the score says that are tried too.
    """
    scores: list[float] = []
    escape: P | None = None
    for score, ways in _ways_out(point):
        lowest = None
        for eta in ways:
            trial = point_at(eta)
            if trial is not None and trial.value < point.value - SLACK:
                lowest = trial
                break
        # A negative derivative with nothing to gain along it is rounding.
        scores.append(score if lowest is not None else max(score, 0.0))
        if lowest is not None and (escape is None or lowest.value < escape.value):
            escape = lowest
    return BoundaryScore(min(scores) if scores else None, escape)


def _ways_out(point: BoundaryPoint) -> Iterator[tuple[float, list[Matrix]]]:
    """For each way off the boundary its relative score, and the points on it to try."""
    p, evaluation = point.parameterisation, point.evaluation
    parts = p.split(point.eta)
    for t, (term, own) in enumerate(zip(p.terms, parts, strict=True)):
        F, CC = evaluation.score[t], evaluation.outer_products[t]
        size = max(float(np.linalg.norm(F + CC)), np.finfo(np.float64).tiny)
        here, derivatives = term.covariance(own), term.derivatives(own)
        candidates = [term.off_bounds(own, step) for step in _STEPS]
        for way, near in enumerate(term.off_bounds(own, _LITTLE)):
            change = term.covariance(near) - here
            tangent = np.einsum("r,rab->ab", near - own, derivatives)
            first_order = np.linalg.norm(tangent) > 0.5 * np.linalg.norm(change)
            score = _relative(F, tangent if first_order else change, size)
            tried = [own_way[way] for own_way in candidates]
            if score >= _NEGATIVE:
                tried = [
                    far
                    for far in tried
                    if _relative(F, term.covariance(far) - here, size) < _NEGATIVE
                ][:1]
            yield score, [np.concatenate([*parts[:t], far, *parts[t + 1 :]]) for far in tried]


def _relative(F: Matrix, change: Matrix, size: float) -> float:
    """Derivative of the deviance along a change of Sigma, relative to the size of both."""
    length = float(np.linalg.norm(change))
    return float(np.vdot(F, change)) / (size * length) if length > 0.0 else 0.0
