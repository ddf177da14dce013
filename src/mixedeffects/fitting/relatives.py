"""Fits of the models that a fit is compared with: other random terms, or none at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.generalized.refitting import (
    generalized_with_random_terms,
    generalized_without_random_terms,
)
from mixedeffects.fitting.refitting import least_squares_criterion, with_random_terms
from mixedeffects.frame.model_frame import RandomTerm

__all__ = ["Relatives", "relatives_of"]


@dataclass(frozen=True)
class Relatives:
    """How related models of a kind of fit are fitted, by its criterion and to its rows.

    Attributes
    ----------
    with_random_terms : callable
        The fit with other random terms, at least one.
    without_random_terms : callable
        Criterion of the model without any, and its number of parameters.
    """

    with_random_terms: Callable[[Fit, Sequence[RandomTerm]], Fit]
    without_random_terms: Callable[[Fit], tuple[float, int]]


def relatives_of(fit: Fit) -> Relatives:
    """Those of the fit's kind."""
    return _RELATIVES[fit.kind]


def _by_least_squares(fit: Fit) -> tuple[float, int]:
    return least_squares_criterion(fit), fit.frame.X.shape[1] + 1


_RELATIVES = {
    "linear": Relatives(with_random_terms, _by_least_squares),
    "generalized": Relatives(generalized_with_random_terms, generalized_without_random_terms),
}
