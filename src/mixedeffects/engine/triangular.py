"""Triangular systems through BLAS.

LAPACK's own routine for them starts its threads whatever the size: with every processor busy, a
2 x 2 system took it 6 ms.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cython_blas, cython_lapack

from mixedeffects import _kernels

__all__ = ["inverse_upper", "solve_lower"]

Matrix = NDArray[np.float64]


def _use_scipy_blas() -> None:
    blas: Any = cython_blas
    lapack: Any = cython_lapack
    _kernels.use_blas(
        blas.__pyx_capi__["dgemm"], blas.__pyx_capi__["dtrsm"], lapack.__pyx_capi__["dpotrf"]
    )


_use_scipy_blas()


def solve_lower(L: Matrix, B: Matrix, transposed: bool = False) -> Matrix:
    """``L^-1 B``, or ``L'^-1 B``, with the leading rows and columns of L that B has rows.

    Parameters
    ----------
    L : ndarray, at least m x m
        Its lower triangle is used; Fortran order saves a copy.
    B : ndarray (m, n)
        Stays as it is.
    """
    out = np.array(B, dtype=np.float64, order="F")
    _kernels.solve_lower(L if L.flags.f_contiguous else np.asfortranarray(L), out, transposed)
    return out


def inverse_upper(R: Matrix) -> Matrix:
    """Inverse of an upper-triangular matrix."""
    return solve_lower(R.T, np.eye(len(R))).T
