"""Which linear functions of the fixed effects a rank-deficient model matrix determines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.caching import cached_property
from mixedeffects.frame.encode import DesignEncoder
from mixedeffects.frame.model_frame import ModelFrame
from mixedeffects.inference.hypotheses import column_coefficients

__all__ = ["Estimability"]

Matrix = NDArray[np.float64]

#: Disagreement that is rounding: relative to the terms of the sum, and to the column's entries.
_RELATIVE, _OF_COLUMN = 1e-8, 1e-10


class Estimability:
    """Checks rows over all columns of a model matrix, and reduces them to the columns kept.

    Where columns were dropped for being combinations of others, ``X_all = X M`` with X the columns
    kept. A function ``l' beta_all`` has the same value for every least-squares solution if and only
    if l lies in the row space of X_all, that is ``l = M' l_kept``.

    Parameters
    ----------
    frame : ModelFrame
        The fixed part and its data.

    References
    ----------
    Searle, S. R. (1971). Linear Models. Wiley; chapter 5.
    """

    def __init__(self, frame: ModelFrame) -> None:
        assert frame.fixed_encoder is not None
        self.frame = frame
        #: Makes all columns, those dropped for rank included.
        self.encoder: DesignEncoder = replace(frame.fixed_encoder, kept=None)
        kept = frame.fixed_encoder.kept
        self.kept = np.arange(len(self.encoder.all_names)) if kept is None else kept
        self.dropped = np.setdiff1d(np.arange(len(self.encoder.all_names)), self.kept)

    @cached_property
    def _combinations(self) -> tuple[Matrix, Matrix]:
        """Dropped columns as combinations of those kept, and what counts as rounding of them."""
        every, _ = self.encoder.encode(self.frame.data)
        targets = every[:, self.dropped]
        M = column_coefficients(self.frame.X, targets)
        # In the fit's own rows the columns are near enough to a combination, however far that is.
        away = np.abs(targets - self.frame.X @ M).max(axis=0, initial=0.0)
        size = np.abs(targets).max(axis=0, initial=0.0)
        return M, np.maximum(_OF_COLUMN * size, (1.0 + _RELATIVE) * away)

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
        M, rounding = self._combinations
        given = rows[:, self.dropped]
        slack = _RELATIVE * (np.abs(given) + np.abs(L) @ np.abs(M)) + rounding
        estimable = (np.abs(given - L @ M) <= slack).all(axis=1)
        return np.where(estimable[:, None], L, np.nan)
