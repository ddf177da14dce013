"""V as a matrix that other programs know: sparse, dense, a SciPy operator."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from numpy.typing import NDArray

from mixedeffects.covariance.design import random_effects_matrix
from mixedeffects.covariance.entries import large_block
from mixedeffects.covariance.random_effects import RandomEffectsCovariance
from mixedeffects.covariance.sizes import refuse_above
from mixedeffects.covariance.structure import CovarianceStructure

__all__ = ["as_dense", "as_linear_operator", "as_sparse"]

Matrix = NDArray[np.float64]


def as_sparse(
    V: CovarianceStructure, max_gb: float, name: str, instead: str
) -> scipy.sparse.csc_array:
    """All entries that are not zero.

    Parameters
    ----------
    V : CovarianceStructure
        What to convert.
    max_gb : float
        Largest size allowed, in gigabytes.
    name, instead : str
        What to call V in the message that refuses, and the advice there.

    Raises
    ------
    ModelError
        If it would be larger than that.
    """
    entries = float(V.n) + sum(
        float((np.bincount(grouping.codes).astype(np.float64) ** 2).sum())
        for grouping in V.groupings
    )
    entries = min(entries, float(V.n) ** 2)
    refuse_above(12.0 * entries, max_gb, f"{name} as a sparse matrix", instead)
    total: Any = V.R.sparse()
    if V.terms:
        Z = random_effects_matrix(V.terms, V.n)
        total = Z @ RandomEffectsCovariance(V.terms, V.G).sparse() @ Z.T + total
    out = scipy.sparse.csc_array(total)
    out.eliminate_zeros()
    out.sort_indices()
    return out


def as_dense(V: CovarianceStructure, max_gb: float, name: str, instead: str) -> Matrix:
    """All entries; parameters and errors as for `as_sparse`."""
    refuse_above(
        8.0 * float(V.n) ** 2,
        max_gb,
        f"{name} as a dense {V.n:,} x {V.n:,} matrix",
        instead,
    )
    return large_block(V, np.arange(V.n))


def as_linear_operator(matrix: Any) -> scipy.sparse.linalg.LinearOperator:
    """For SciPy's solvers, of a symmetric matrix that has a shape, a dtype and a product."""
    product = matrix.__matmul__
    return scipy.sparse.linalg.LinearOperator(
        matrix.shape,
        matvec=product,
        rmatvec=product,
        matmat=product,
        rmatmat=product,
        dtype=matrix.dtype,
    )
