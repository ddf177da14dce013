"""What predicts the rows of a fit that stayed in a table, or of another table of an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.grouped_sums import GroupedSums
from mixedeffects.fitting.fit import Fit, once_per_fit
from mixedeffects.lazy.fitted import Effects, LinearPredictor, linear_predictor, predictor_of_fit
from mixedeffects.lazy.model import named_expression
from mixedeffects.lazy.sums import given_response_sums, unweighted_sums
from mixedeffects.lazy.table import LazyTable

__all__ = [
    "ResponseSums",
    "UnweightedMoments",
    "fitted_in_table",
    "is_weighted",
    "predicted_in_table",
    "response_sums",
    "unweighted_moments",
]

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class UnweightedMoments:
    """Cross-products of the columns of a design that stayed in a table, each row counted once.

    Attributes
    ----------
    sums : GroupedSums
        Over all rows.
    mean_inverse_weight : float
        Mean of 1 / w; one without weights.
    """

    sums: GroupedSums
    mean_inverse_weight: float

    def columns(self, at: Sequence[int]) -> Matrix:
        """Some columns as combinations of those that were multiplied, (M, k)."""
        places = np.asarray(at, dtype=np.intp)
        D = np.zeros((len(self.sums.columns), len(places)))
        D[places, np.arange(len(places))] = self.sums.scale[places]
        D[0] += self.sums.centre[places]
        return D

    def products(self, at: Sequence[int]) -> Matrix:
        """``C'C`` of some columns, (k, k)."""
        D = self.columns(at)
        return np.asarray(D.T @ self.sums.total @ D)

    def variance(self, at: Sequence[int], weights: Matrix) -> float:
        """Sample variance of a combination of some columns."""
        a = self.columns(at) @ weights
        # About the mean, by moving what is constant: the first column is one in every row.
        a[0] -= (self.sums.total[0] @ a) / self.sums.n
        return float(a @ self.sums.total @ a) / (self.sums.n - 1.0)


@dataclass(frozen=True)
class ResponseSums:
    """Sums over the rows by which responses are told apart.

    Attributes
    ----------
    total, squares : float
        ``sum w y`` and ``sum w y^2`` of the response as given.
    weights : float
        Sum of the weights.
    """

    total: float
    squares: float
    weights: float


def is_weighted(fit: Fit) -> bool:
    """Whether rows have prior weights, wherever they are."""
    if fit.rows is not None:
        return fit.rows.model.weights is not None
    return fit.frame.weights is not None


def response_sums(fit: Fit) -> ResponseSums:
    """Sums of the response, wherever the rows are."""
    if fit.rows is None:
        y, w = fit.frame.y, fit.frame.weights
        w = np.ones(fit.nobs) if w is None else w
        return ResponseSums(float(w @ y), float(w @ y**2), float(w.sum()))
    sums, at = fit.rows.sums, fit.rows.columns.response
    if fit.rows.model.offset is not None:
        return ResponseSums(*_sums_of_given(fit), sums.sum_weights)
    c, s = float(sums.centre[at]), float(sums.scale[at])
    total = c * sums.sum_weights + s * float(sums.total[0, at])
    squares = (
        c**2 * sums.sum_weights
        + 2.0 * c * s * float(sums.total[0, at])
        + s**2 * float(sums.total[at, at])
    )
    return ResponseSums(total, squares, sums.sum_weights)


@once_per_fit("sums of the response as given")
def _sums_of_given(fit: Fit) -> tuple[float, float]:
    """In one more pass: the design has the response less the offset."""
    assert fit.rows is not None
    return given_response_sums(fit.rows)


@once_per_fit("unweighted moments")
def unweighted_moments(fit: Fit) -> UnweightedMoments:
    """Cross-products without the prior weights: another pass where there are weights."""
    rows = fit.rows
    assert rows is not None
    if rows.model.weights is None:
        return UnweightedMoments(rows.sums, 1.0)
    sums, inverse = unweighted_sums(rows)
    return UnweightedMoments(sums, inverse)


def fitted_in_table(fit: Fit, terms: Sequence[int] | None = None) -> LinearPredictor:
    """The rows used, with the fixed part and the effects of some terms, by default of all."""
    rows = fit.rows
    assert rows is not None
    chosen = range(len(fit.frame.terms)) if terms is None else terms
    effects = [
        (Effects(fit.frame.terms[t], fit.modes[t]), rows.columns.terms[t].columns) for t in chosen
    ]
    return predictor_of_fit(rows.model, rows.columns.fixed, fit.beta, effects)


def predicted_in_table(
    fit: Fit, table: LazyTable, terms: Sequence[int], offset: Any
) -> LinearPredictor:
    """The rows of any table with what predicts them.

    Parameters
    ----------
    fit : Fit
        A fit, with its rows or without.
    table : LazyTable
        The table.
    terms : sequence of int
        Terms whose effects are in.
    offset : str or None
        Name of a column, or an expression of columns.

    Raises
    ------
    DataError
        If a column is missing, or a factor has a level that the fit did not see.
    """
    encoder = fit.frame.fixed_encoder
    assert encoder is not None
    effects = [
        (Effects(fit.frame.terms[t], fit.modes[t]), fit.frame.random_encoders[t]) for t in terms
    ]
    known = None if offset is None else named_expression("offset", offset, table)
    return linear_predictor(table, encoder, fit.beta, effects, known)
