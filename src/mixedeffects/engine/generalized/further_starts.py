"""Searches of small designs from further starts, where the first end may not be the best one.

Where the likelihood of a row is concave in its linear predictor and the family has no parameter of
its own, generated designs hardly had a second optimum. Else variance can be that of random effects
or of the family, and a level far out can be taken for one of another kind: there a first search
that ends at a singular covariance or takes long is not relied on, and none where many rows are
fitted where their likelihood is not concave. The others start with more variance, all columns of a
term alike or going together, and with next to none where no optimum is found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.basis import lower_factor
from mixedeffects.engine.factorisation import NotPositiveDefiniteError
from mixedeffects.engine.found_optimum import SMALL_GRADIENT, is_interior
from mixedeffects.engine.generalized.design import GeneralizedDesign
from mixedeffects.engine.generalized.search import Found, GeneralizedSearch
from mixedeffects.engine.generalized.space import Parameters
from mixedeffects.engine.search import UNENDED

__all__ = ["Elsewhere", "is_at_rest", "look_elsewhere"]

Matrix = NDArray[np.float64]

#: Rows times squared columns of a design that is small, and evaluations of a start that say enough.
_SMALL, _MOST = 50_000, 30
#: Evaluations after which a search has taken long.
_LONG = 30
#: Negative weights of rows, relative to all weights, that are many.
_MANY = 0.1
#: Criteria this close are one optimum.
_SAME = 1e-6
#: Standard deviations to start with, in those of a row's noise, and the largest.
_MORE, _LESS, _LARGEST = 1.0, 0.1, 3.0


@dataclass(frozen=True, eq=False)
class Elsewhere:
    """What came of further starts.

    Attributes
    ----------
    search, found : GeneralizedSearch, Found
        The best search and where it ended, the first one included.
    evaluations : int
        Evaluations in all searches but that one.
    starts, agreed : int
        Searches in all, and how many led to the criterion of the best.
    """

    search: GeneralizedSearch
    found: Found
    evaluations: int
    starts: int
    agreed: int


def is_at_rest(found: Found) -> bool:
    """Whether a search ended where the gradient vanishes."""
    return found.stopped not in UNENDED and found.relative_gradient < SMALL_GRADIENT


def _is_optimum(found: Found) -> bool:
    return is_interior(found.null_score) and is_at_rest(found)


def look_elsewhere(
    first: GeneralizedSearch,
    found: Found,
    alone: tuple[Matrix, float],
    begin: Callable[[], GeneralizedSearch],
) -> Elsewhere:
    """Search from further starts, if that is worthwhile.

    Parameters
    ----------
    first, found
        The search from the usual start, and where it ended.
    alone : ndarray and float
        beta and phi of the model without random effects.
    begin : callable
        Makes another search.
    """
    if not _is_worthwhile(first, found):
        return Elsewhere(first, found, 0, 1, 1)
    ends = [(first, found)]
    for at in _starts(first.design, found, alone):
        other = begin()
        try:
            ends.append((other, _descended(other, at, min(end.point.value for _, end in ends))))
        except NotPositiveDefiniteError:
            continue
    # An end that is no optimum is beaten by any that is one.
    best, there = min(ends, key=lambda end: (not _is_optimum(end[1]), end[1].point.value))
    if there.point.value > found.point.value - _SAME and _is_optimum(found):
        best, there = first, found
    values = np.array([end.point.value for _, end in ends if _is_optimum(end)])
    agreed = int((np.abs(values - there.point.value) < _SAME).sum())
    spent = sum(search.evaluations for search, _ in ends) - best.evaluations
    return Elsewhere(best, there, spent, len(ends), max(agreed, 1))


def _descended(search: GeneralizedSearch, at: Parameters, lowest: float) -> Found:
    """Where a search ends; one that takes long is gone on with if it is the lowest so far."""
    whole = search.most
    search.most = min(whole, _MOST)
    found = search.descend(at)
    if found.stopped == "evaluations" and found.point.value < lowest - _SAME:
        search.most = whole
        found = search.descend(found.point.at, found.point.evaluation.mode.c)
    return found


def _is_worthwhile(search: GeneralizedSearch, found: Found) -> bool:
    design, rows = search.design, found.point.evaluation.rows
    width = design.p + sum(design.term_columns)
    if search.nodes > 1 or design.n * width**2 > _SMALL:
        return False
    if not _is_optimum(found):
        return True
    negative = float(np.minimum(rows.W, 0.0).sum())
    # With Cauchy's tails a row far out costs next to nothing.
    if design.family.link.name == "cauchit" or -negative > _MANY * float(np.abs(rows.W).sum()):
        return True
    has_others = design.family.has_parameter or negative < 0.0
    return has_others and (found.null_score is not None or search.evaluations > _LONG)


def _starts(
    design: GeneralizedDesign, found: Found, alone: tuple[Matrix, float]
) -> Iterator[Parameters]:
    """Starts by falling usefulness."""
    here, sizes = found.point.evaluation, design.term_columns
    mean = float(here.working_weights.mean())
    noise = min(1.0 / math.sqrt(mean), _LARGEST) if mean > 0.0 else 1.0

    def at(T: list[Matrix], beta: Matrix, phi: float) -> Parameters:
        return Parameters(design.parameterisation.nearest(T), beta, phi)

    more = _MORE * noise
    yield at([_pushed_out(T, more) for T in here.T], here.beta, here.phi)
    for sign in (1.0, -1.0) if max(sizes) > 1 else ():
        along = [more * sign ** np.arange(k) for k in sizes]
        together = [
            lower_factor(np.column_stack([a, _LESS * more * np.eye(len(a))])) for a in along
        ]
        yield at(together, *alone)
    if not _is_optimum(found):
        yield at([_LESS * noise * np.eye(k) for k in sizes], *alone)


def _pushed_out(T: Matrix, least: float) -> Matrix:
    """The same covariance with no standard deviation below the least."""
    left, values, _ = np.linalg.svd(T)
    return lower_factor(left * np.maximum(values, least))
