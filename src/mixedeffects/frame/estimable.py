"""Rows whose mean the fit cannot tell, because columns were dropped for rank."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mixedeffects.errors import DataError
from mixedeffects.frame.data_summary import DataSummary
from mixedeffects.frame.encode import DesignEncoder

__all__ = ["Estimability"]

Matrix = NDArray[np.float64]

#: Departure from a linear combination, relative to its parts, that is more than rounding.
_ROUNDING = 1e-7


class Estimability:
    """How the columns dropped for rank follow from those kept.

    A row's mean can be estimated if its columns are related as those of the fit are; if not, it
    would depend on which columns happened to be dropped.

    Parameters
    ----------
    encoder : DesignEncoder
        Of the fixed part of the fit.
    summary : DataSummary
        Of its rows.
    """

    def __init__(self, encoder: DesignEncoder, summary: DataSummary) -> None:
        names = encoder.all_names
        kept = np.arange(len(names)) if encoder.kept is None else encoder.kept
        self._kept, self._dropped = kept, np.setdiff1d(np.arange(len(names)), kept)
        self._names = [names[i] for i in self._dropped]
        if len(self._dropped):
            X = summary.design(replace(encoder, kept=None))
            size = np.sqrt(np.einsum("ij,ij->j", X, X))
            size[size == 0.0] = 1.0
            X = X / size
            found = np.linalg.lstsq(X[:, kept], X[:, self._dropped], rcond=None)[0]
            found[np.abs(found) < _ROUNDING] = 0.0
            self._combination = found / size[kept, None] * size[self._dropped]
            # The fit's own rows are near enough to a combination, however far that is.
            away, _ = summary.departures(encoder, self._combination)
            self._allowed = (1.0 + _ROUNDING) * away

    def check(self, X: Matrix) -> None:
        """Refuse rows that are no linear combination of rows of the fit.

        Parameters
        ----------
        X : ndarray, shape (m, columns)
            All columns, those dropped included; rows with NaN pass.

        Raises
        ------
        DataError
            With the columns that show it and the number of rows.
        """
        if not len(self._dropped):
            return
        kept, dropped = X[:, self._kept], X[:, self._dropped]
        size = np.abs(kept) @ np.abs(self._combination) + np.abs(dropped)
        away = np.abs(dropped - kept @ self._combination) > _ROUNDING * size + self._allowed
        if not away.any():
            return
        columns = [self._names[j] for j in np.flatnonzero(away.any(axis=0))[:5]]
        rows = int(away.any(axis=1).sum())
        raise DataError(
            f"The fit says nothing about {rows:,} of these rows: it dropped "
            f"{', '.join(f'`{name}`' for name in columns)}, in its data a linear combination of "
            "other columns, which here "
            f"{'it is' if len(columns) == 1 else 'they are'} not. Leave these rows out, or fit "
            "a model without the term."
        )
