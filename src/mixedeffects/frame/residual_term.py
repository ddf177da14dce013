"""What the frame says of the residuals: their groups and positions, and what their size follows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects.base.arrays import ReadOnlyArrays

__all__ = ["ResidualTerm", "VarianceTerm"]


@dataclass(frozen=True, eq=False)
class ResidualTerm(ReadOnlyArrays):
    """The covariance structure of the residuals: their groups, and where in its group a row is.

    Rows are in the frame's order; those of a group need not stand together, nor in order of time.

    Attributes
    ----------
    kind : {"diag", "cs", "ar1", "car1", "ante", "toep", "us", "exp", "gau", "known"}
        The structure.
    text : str
        As it would be written: ``"ar1(week | id)"``.
    group : str
        Name of the factor whose levels are the residual groups: ``"id"``, ``"id:side"``.
    variables : tuple of str
        The columns whose combinations are the levels, in the order of the name.
    levels : pandas.Index of str, length l
        Labels of the groups in order; only those that occur in the rows used.
    level_values : pandas.MultiIndex or pandas.Index, length l
        The original values that make each level.
    codes : ndarray of int32, shape (n,)
        Group of each row.
    position : tuple of str
        Text of each part of the position; empty for ``1``.
    times : pandas.Index of str, length T, or None
        Labels of the times that the groups have in common, in order. For ``ar1`` and ``toep`` some
        may have no row: they are steps all the same.
    steps : ndarray of int64, shape (n,), or None
        Number of the row's time in ``times``; without ``times``, for ``ar1``, the whole number
        that the position is, or the row's number in its group for ``1``.
    coordinates : ndarray of float64, shape (n, d), or None
        The position as numbers, for ``car1`` (d = 1), ``exp`` and ``gau``.
    homogeneous : bool
        Whether all times have one standard deviation.
    nugget : bool
        Whether a part of each residual is its own.
    by : str or None
        The column whose levels have parameters of their own.
    strata : pandas.Index of str, length s, or None
        Its levels.
    stratum : ndarray of int32, shape (n,), or None
        Stratum of each row, the same in all rows of a group.
    given : csr_array, n x n, or None
        The covariance matrix of ``"known"``, whose groups are its connected blocks.
    """

    kind: str
    text: str
    group: str
    variables: tuple[str, ...]
    levels: pd.Index
    level_values: pd.Index
    codes: NDArray[np.int32]
    position: tuple[str, ...] = ()
    times: pd.Index | None = None
    steps: NDArray[np.int64] | None = None
    coordinates: NDArray[np.float64] | None = None
    homogeneous: bool = True
    nugget: bool = False
    by: str | None = None
    strata: pd.Index | None = None
    stratum: NDArray[np.int32] | None = None
    given: scipy.sparse.csr_array | None = None

    @property
    def n_levels(self) -> int:
        """Number of residual groups, l."""
        return len(self.levels)

    @property
    def n_times(self) -> int:
        """Number of common times, T; 0 where there are none."""
        return 0 if self.times is None else len(self.times)

    @property
    def n_strata(self) -> int:
        """Number of strata, s; 1 without ``by``."""
        return 1 if self.strata is None else len(self.strata)


@dataclass(frozen=True, eq=False)
class VarianceTerm(ReadOnlyArrays):
    """What the logarithm of the residual standard deviation is linear in.

    Attributes
    ----------
    text : str
        As it would be written: ``"sex + log(age)"``.
    names : tuple of str, length s
        R-style names of the columns, factors by treatment contrasts; none is an intercept.
    v : ndarray of float64, shape (n, s)
        The columns, as they are: neither centred nor scaled.
    reference : str
        Of one factor alone, the name of the level without a column: ``"sexMale"``; else empty.
    """

    text: str
    names: tuple[str, ...]
    v: NDArray[np.float64]
    reference: str = ""

    @property
    def n_columns(self) -> int:
        """Number of columns, s."""
        return int(self.v.shape[1])
