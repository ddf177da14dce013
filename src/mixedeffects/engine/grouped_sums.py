"""Sums of products by level: all that a fit needs of a table that stays where it is.

The columns of a design are ``c = centre + scale u``: sums are taken of products of the u, which are
near zero, so that nothing is lost where a column is far from zero. The first u is one in every row.
Codes, not labels, stand for levels; no dataframe comes here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.arrays import ReadOnlyArrays

__all__ = ["FactorSums", "GroupedSums", "PairSums", "SumColumns", "TermColumns"]

Matrix = NDArray[np.float64]
Codes = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class FactorSums(ReadOnlyArrays):
    """Sums by the levels of one grouping factor.

    Attributes
    ----------
    own : tuple of int
        The columns that vary by level in some term of the factor; the first is 0.
    products : ndarray, shape (l, a, M)
        ``sum w u_i u_j`` over the rows of each level, i one of the a ``own`` columns, j any.
    rows : ndarray of int, shape (l,)
        Number of rows of each level.
    """

    own: tuple[int, ...]
    products: Matrix
    rows: NDArray[np.int64]

    @property
    def n_levels(self) -> int:
        """Number of levels, l."""
        return len(self.rows)


@dataclass(frozen=True, eq=False)
class PairSums(ReadOnlyArrays):
    """Sums by the pairs of levels of two grouping factors that occur together.

    Attributes
    ----------
    factors : (int, int)
        Which two.
    codes : (ndarray of int32, ndarray of int32), shape (m,) each
        Their levels; every pair once.
    products : ndarray, shape (m, a, b)
        ``sum w u_i u_j``, i of the ``own`` columns of the first, j of those of the second.
    rows : ndarray of int, shape (m,)
        Number of rows of each pair.
    """

    factors: tuple[int, int]
    codes: tuple[Codes, Codes]
    products: Matrix
    rows: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class GroupedSums(ReadOnlyArrays):
    """Sums of products of the columns of a design, over all rows and by levels.

    Attributes
    ----------
    columns : tuple of str, length M
        Names of the columns; the first is one in every row.
    centre, scale : ndarrays, shape (M,)
        Of the columns: ``c = centre + scale u``.
    n : int
        Number of rows.
    sum_weights, sum_log_weights : float
        Of the prior weights w; n and 0 where there are none.
    total : ndarray, shape (M, M)
        ``sum w u u'`` over all rows.
    factors : tuple of FactorSums
        By the levels of each grouping factor.
    pairs : tuple of PairSums
        By the pairs of levels of any two of them.
    """

    columns: tuple[str, ...]
    centre: Matrix
    scale: Matrix
    n: int
    sum_weights: float
    sum_log_weights: float
    total: Matrix
    factors: tuple[FactorSums, ...]
    pairs: tuple[PairSums, ...]


@dataclass(frozen=True)
class TermColumns:
    """Columns of one random-effects term: its grouping factor, and their places among all."""

    factor: int
    columns: tuple[int, ...]


@dataclass(frozen=True)
class SumColumns:
    """Which of the columns of sums are those of X, of each random-effects term, and y."""

    fixed: tuple[int, ...]
    terms: tuple[TermColumns, ...]
    response: int
