"""V times a block of columns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixedeffects.covariance.design import z_times, z_transpose_times
from mixedeffects.covariance.structure import CovarianceStructure

__all__ = ["times"]

Matrix = NDArray[np.float64]


def times(V: CovarianceStructure, x: Matrix) -> Matrix:
    """``V x = sum over terms of Z_t G_t Z_t'x, and R x``, for x (n, m)."""
    out = V.R.times(x)
    for term, G in V.random():
        z_times(term, np.matmul(G, z_transpose_times(term, x)), out)
    return out
