"""A covariance matrix of the residuals that is given, up to sigma squared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from mixedeffects.errors import DataError, ModelError
from mixedeffects.frame.residual_term import ResidualTerm

__all__ = ["KnownCovariance", "known", "known_term"]

Matrix = NDArray[np.float64]

#: Rows that are connected with each other at most: their block is dense.
_LARGEST = 5_000
#: Difference of entries that should be the same, relative to the largest.
_ASYMMETRY = 1e-8


@dataclass(frozen=True, eq=False, repr=False)
class KnownCovariance:
    """A covariance matrix for ``residual=``; see `known`.

    Attributes
    ----------
    matrix : csr_array, n x n
        Symmetric.
    index : pandas.Index or None
        Row labels, where it was given with some.
    """

    matrix: scipy.sparse.csr_array
    index: pd.Index | None = None

    def __repr__(self) -> str:
        n = self.matrix.shape[0]
        return f"known covariance matrix, {n:,} x {n:,}, {self.matrix.nnz:,} entries"


def known(matrix: Any) -> KnownCovariance:
    """A given covariance matrix of the residuals, for ``lmer(..., residual=known(V))``.

    Parameters
    ----------
    matrix : DataFrame, ndarray or sparse matrix, shape (n, n)
        Covariance matrix of the residuals of the rows of the data, up to ``sigma^2``; with
        ``sigma=1`` it is the covariance matrix itself, as in a meta-analysis of correlated effects.
        A DataFrame goes by its row labels, anything else by position.

    Returns
    -------
    KnownCovariance

    Raises
    ------
    DataError
        If it is not square, symmetric or finite, or a variance is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> import mixedeffects as me
    >>> me.known(np.array([[2.0, 0.5], [0.5, 1.0]]))
    known covariance matrix, 2 x 2, 4 entries
    """
    index = matrix.index if isinstance(matrix, pd.DataFrame) else None
    try:
        given: Any = matrix if scipy.sparse.issparse(matrix) else np.asarray(matrix, np.float64)
        values = scipy.sparse.csr_array(given).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"known(): a matrix of numbers is needed, not {matrix!r:.60}.") from error
    if values.ndim != 2 or values.shape[0] != values.shape[1]:
        raise DataError(
            f"known(): a covariance matrix is square; the shape given is {values.shape}."
        )
    if not np.isfinite(values.data).all():
        count = int((~np.isfinite(values.data)).sum())
        raise DataError(f"known(): {count} entries of the matrix are not finite.")
    diagonal = values.diagonal()
    if not (diagonal > 0.0).all():
        raise DataError(
            f"known(): {int((~(diagonal > 0.0)).sum())} variances are not positive; the first is "
            f"that of row {int(np.flatnonzero(~(diagonal > 0.0))[0])}."
        )
    asymmetry = abs(values - values.T)
    if asymmetry.nnz and asymmetry.max() > _ASYMMETRY * diagonal.max():
        raise DataError("known(): the matrix is not symmetric.")
    values = scipy.sparse.csr_array(0.5 * (values + values.T))
    values.eliminate_zeros()
    values.sort_indices()
    return KnownCovariance(values, index)


def known_term(
    given: KnownCovariance, index: pd.Index, positions: NDArray[np.intp], n_rows: int
) -> ResidualTerm:
    """The residual term of a given matrix, for the rows used.

    Parameters
    ----------
    given : KnownCovariance
        For all rows of the data, or for those used.
    index : pandas.Index, length n
        Labels of the rows used.
    positions : ndarray of int, shape (n,)
        Where they are in the data.
    n_rows : int
        Rows of the data.

    Raises
    ------
    DataError
        If the matrix does not go with the rows.
    ModelError
        If a block of it is not positive definite, or too large.
    """
    n, size = len(index), given.matrix.shape[0]
    if given.index is not None and given.index.is_unique and index.isin(given.index).all():
        at = given.index.get_indexer(index)
    elif size == n_rows:
        at = np.asarray(positions)
    elif size == n:
        at = np.arange(n)
    else:
        raise DataError(
            f"known(): the matrix has {size:,} rows; the data have {n_rows:,}, of which {n:,} are "
            "used."
        )
    matrix = scipy.sparse.csr_array(given.matrix[at][:, at])
    count, codes = connected_components(matrix, directed=False)
    sizes = np.bincount(codes)
    if sizes.max() > _LARGEST:
        raise ModelError(
            f"The known covariance matrix connects {int(sizes.max()):,} rows with each other; at "
            f"most {_LARGEST:,} can be."
        )
    order = np.argsort(codes, kind="stable")
    for number, rows in enumerate(np.split(order, np.cumsum(sizes)[:-1])):
        try:
            np.linalg.cholesky(matrix[rows][:, rows].toarray())
        except np.linalg.LinAlgError:
            raise ModelError(
                f"The known covariance matrix is not positive definite: block {number}, rows "
                f"{', '.join(str(label) for label in index[rows[:5]])}"
                f"{', ...' if len(rows) > 5 else ''}."
            ) from None
    levels = pd.Index([str(number) for number in range(count)])
    return ResidualTerm(
        kind="known",
        text=f"known({size} x {size})",
        group="known",
        variables=(),
        levels=levels,
        level_values=levels,
        codes=codes.astype(np.int32),
        coordinates=np.arange(n, dtype=np.float64)[:, None],
        given=matrix,
    )
