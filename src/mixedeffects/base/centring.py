"""Columns that vary little beside their size, such as time stamps, made well conditioned."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["INDISTINCT", "centring_transform", "is_far_from_zero"]

Matrix = NDArray[np.float64]

#: What is left of a column, relative to its size, that counts as rounding of its values.
INDISTINCT = 1e-14
#: Range of a column, relative to its size, below which it may be taken for a constant.
_LOOKS_CONSTANT = 1e-5
#: What is left of a column from which nothing is gained.
_ENOUGH = 1e-3


def centring_transform(X: Matrix) -> Matrix | None:
    """Upper-triangular C such that X C has columns less their means by the indicators before them.

    Indicators are columns of zeros and one other value: an intercept, the columns of a factor. A
    column far from zero, beside an intercept or within the levels of a factor, is told from them
    only by its last digits. In X C these are its first.

    Parameters
    ----------
    X : ndarray, shape (n, p)
        Finite.

    Returns
    -------
    ndarray (p, p), or None
        Unit diagonal; None where no column gains from it.
    """
    n, p = X.shape
    if n == 0:
        return None
    indicator = np.array([_is_indicator(column) for column in X.T], dtype=np.bool_)
    C = np.eye(p)
    found = False
    for j in np.flatnonzero(~indicator):
        before = np.flatnonzero(indicator[:j])
        column = X[:, j]
        size = float(np.abs(column).max())
        if len(before) == 0 or size == 0.0:
            continue
        means = np.linalg.lstsq(X[:, before], column / size, rcond=None)[0]
        left = column / size - X[:, before] @ means
        if np.sqrt(np.mean(left**2)) < _ENOUGH * np.sqrt(np.mean((column / size) ** 2)):
            C[before, j] = -means * size
            found = True
    return C if found else None


def is_far_from_zero(column: Matrix) -> bool:
    """Whether a column varies, but so little beside its size that it looks constant."""
    size = float(np.abs(column).max(initial=0.0))
    spread = float(np.ptp(column)) if len(column) else 0.0
    return 0.0 < spread < _LOOKS_CONSTANT * size


def _is_indicator(column: Matrix) -> bool:
    value = column[np.argmax(np.abs(column))]
    return bool(value != 0.0 and ((column == 0.0) | (column == value)).all())
