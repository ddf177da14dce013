"""Square roots of small covariance matrices, singular ones included."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.basis import lower_factor

__all__ = ["covariance_root", "standardised"]

Matrix = NDArray[np.float64]


def covariance_root(G: Matrix) -> Matrix:
    """Gamma (k, r) with ``Gamma Gamma' = G`` and r the rank of G, which may be zero.

    The rank is that of the correlation matrix: the variances of an intercept and of a slope have
    different units, so their sizes say nothing about each other.
    """
    correlation, sd = standardised(G)
    values, vectors = np.linalg.eigh(correlation)
    kept = values > len(G) * np.finfo(float).eps
    root = vectors[:, kept] * np.sqrt(values[kept])
    if kept.all():
        # The Cholesky factor, by a way that has no pivot to fail at where G is nearly singular.
        # Unlike eigenvectors, it does not jump with rounding, and neither do draws made with it.
        root = lower_factor(root)
    return np.asarray(sd[:, None] * root)


def standardised(G: Matrix) -> tuple[Matrix, Matrix]:
    """G in correlation form, and the standard deviations; one where the variance is zero."""
    variances = np.abs(np.diag(G))
    sd = np.sqrt(np.where(variances > 0.0, variances, 1.0))
    return G / sd / sd[:, None], sd
