"""Find the columns of a matrix that are linear combinations of earlier ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from mixedeffects.base.centring import INDISTINCT, centring_transform

__all__ = ["independent_columns"]

Matrix = NDArray[np.float64]

# The Gram matrix squares the relative sizes, so it can vouch for a column only well above
# the square root of the working precision.
_SURELY_INDEPENDENT = 1e-8


def independent_columns(X: Matrix, tolerance: float = 1e-7) -> NDArray[np.intp]:
    """Return the indices of the columns that are not combinations of earlier kept ones.

    A column is left out when, after projecting out the earlier kept columns, less than
    ``tolerance`` of its own length remains: the rule of R's ``qr`` with LINPACK, which lme4 uses.
    The rule compares a column with itself, so the units of the columns do not matter; nor does its
    distance from zero where there is an intercept or a factor before it: it is compared with what
    varies within the levels, as long as that is more than rounding.

    Parameters
    ----------
    X : ndarray, shape (n, p)
        Finite.
    tolerance : float
        Relative length.

    Returns
    -------
    ndarray of intp
        Increasing.
    """
    p = X.shape[1]
    if p == 0:
        return np.empty(0, dtype=np.intp)
    # Scaled before squaring, so that neither 1e-200 nor 1e200 is lost.
    largest = np.maximum(X.max(axis=0), -X.min(axis=0)) if X.shape[0] else np.zeros(p)
    scale = np.where(largest > 0, largest, 1.0)
    extreme = bool((largest > 1e100).any() or (largest < 1e-100).any())
    if not extreme and X.shape[0] >= p:
        gram = X.T @ X
        norms = np.sqrt(np.diag(gram))
        try:
            factor = linalg.cholesky(gram / np.outer(norms, norms), lower=True)
        except linalg.LinAlgError:
            pass
        else:
            if (np.diag(factor) ** 2 > _SURELY_INDEPENDENT).all():
                return np.arange(p)
    return _carefully(X / scale, tolerance)


def _carefully(X: Matrix, tolerance: float) -> NDArray[np.intp]:
    whole = np.linalg.norm(X, axis=0)
    transform = centring_transform(X)
    if transform is not None:
        X = X @ transform
    # Householder reduction changes no angle between columns; after it p rows remain.
    if X.shape[0] > X.shape[1]:
        reduced = linalg.qr(X, mode="r", overwrite_a=True, check_finite=False)[0]
        X = np.asarray(reduced[: X.shape[1]], dtype=np.float64)
    norms = np.linalg.norm(X, axis=0)
    directions = np.zeros((X.shape[0], min(X.shape)))
    kept: list[int] = []
    for j in range(X.shape[1]):
        if norms[j] == 0.0 or len(kept) == X.shape[0]:
            continue
        column = X[:, j] / norms[j]
        basis = directions[:, : len(kept)]
        for _ in range(2):  # once more: the first projection leaves rounding behind
            column = column - basis @ (basis.T @ column)
        rest = float(np.linalg.norm(column))
        if rest >= tolerance and rest * norms[j] > INDISTINCT * whole[j]:
            directions[:, len(kept)] = column / rest
            kept.append(j)
    return np.array(kept, dtype=np.intp)
