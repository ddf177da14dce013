"""Which linear functions of the fixed effects a rank-deficient model matrix determines."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixedeffects.fitting.data_summary import data_summary
from mixedeffects.fitting.fit import Fit, once_per_fit
from mixedeffects.frame.encode import DesignEncoder
from mixedeffects.inference.hypotheses import column_coefficients

__all__ = ["Estimability", "all_columns", "estimable_functions"]

Matrix = NDArray[np.float64]

#: Disagreement that is rounding: relative to the terms of the sum, and to the column's entries.
_RELATIVE, _OF_COLUMN = 1e-8, 1e-10


def all_columns(fit: Fit) -> DesignEncoder:
    """What makes all columns of the fixed part, those dropped for rank included."""
    assert fit.frame.fixed_encoder is not None
    return replace(fit.frame.fixed_encoder, kept=None)


@dataclass(frozen=True, eq=False)
class Estimability:
    """Checks rows over all columns of a model matrix, and reduces them to the columns kept.

    Where columns were dropped for being combinations of others, ``X_all = X M`` with X the columns
    kept. A function ``l' beta_all`` has the same value for every least-squares solution if and only
    if l lies in the row space of X_all, that is ``l = M' l_kept``.

    Attributes
    ----------
    kept, dropped : ndarray of int
        Columns.
    combinations : ndarray, shape (kept, dropped)
        The dropped columns as combinations of those kept.
    rounding : ndarray, shape (dropped,)
        What counts as rounding of them.

    References
    ----------
    Searle, S. R. (1971). Linear Models. Wiley; chapter 5.
    """

    kept: NDArray[np.intp]
    dropped: NDArray[np.intp]
    combinations: Matrix
    rounding: Matrix

    def reduce(self, rows: Matrix) -> Matrix:
        """Keep the columns of the fit.

        Parameters
        ----------
        rows : ndarray, shape (r, all columns)
            Linear functions.

        Returns
        -------
        ndarray, shape (r, p)
            NaN throughout a row that is not estimable.
        """
        L = rows[:, self.kept]
        if not len(self.dropped) or not len(L):
            return L
        given = rows[:, self.dropped]
        size = np.abs(given) + np.abs(L) @ np.abs(self.combinations)
        away = np.abs(given - L @ self.combinations)
        estimable = (away <= _RELATIVE * size + self.rounding).all(axis=1)
        return np.where(estimable[:, None], L, np.nan)


@once_per_fit("estimable functions")
def estimable_functions(fit: Fit) -> Estimability:
    """Which linear functions of the fixed effects a fit determines."""
    encoder = fit.frame.fixed_encoder
    assert encoder is not None
    every = np.arange(len(encoder.all_names), dtype=np.intp)
    kept = every if encoder.kept is None else encoder.kept
    dropped = encoder.dropped
    if not len(dropped):
        return Estimability(kept, dropped, np.empty((len(kept), 0)), np.empty(0))
    summary = data_summary(fit)
    X = summary.design(all_columns(fit))
    M = column_coefficients(X[:, kept], X[:, dropped])
    # In the fit's own rows the columns are near enough to a combination, however far that is.
    away, size = summary.departures(encoder, M)
    return Estimability(kept, dropped, M, np.maximum(_OF_COLUMN * size, (1.0 + _RELATIVE) * away))
