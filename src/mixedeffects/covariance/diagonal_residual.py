"""R of rows whose errors are independent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects.base.arrays import ReadOnlyArrays
from mixedeffects.covariance.groups import Grouping
from mixedeffects.covariance.residual_matrix import ResidualMatrix

__all__ = ["DiagonalResidual"]

Matrix = NDArray[np.float64]
Positions = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class DiagonalResidual(ReadOnlyArrays, ResidualMatrix):
    """R with nothing beside its diagonal: ``sigma^2 W^-1`` for prior weights W.

    Attributes
    ----------
    variances : ndarray, shape (n,)
        The diagonal; zeros are allowed where there is nothing to be solved.
    """

    variances: Matrix

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.variances)

    @property
    def groupings(self) -> tuple[Grouping, ...]:
        """None: no row is correlated with another."""
        return ()

    def diagonal(self) -> Matrix:
        """The variances."""
        return self.variances

    def floor(self) -> Matrix:
        """The variances: every row is a block."""
        return self.variances

    def add_blocks(self, rows: Positions, out: Matrix) -> None:
        """Add ``R[rows, rows]`` to out (..., s, s), for distinct rows (..., s)."""
        np.einsum("...ii->...i", out)[...] += self.variances[rows]

    def add_entries(self, i: Positions, j: Positions, out: Matrix) -> None:
        """Add ``R[i, j]`` to out, for rows that may occur several times."""
        a, b = np.nonzero(i[:, None] == j[None, :])
        out[a, b] += self.variances[i[a]]

    def sparse(self) -> scipy.sparse.csc_array:
        """All of R."""
        return scipy.sparse.csc_array(scipy.sparse.diags_array(self.variances))

    def times(self, x: Matrix) -> Matrix:
        """``R x``."""
        return self.variances[:, None] * x

    def divided_by(self, number: float) -> DiagonalResidual:
        """``R / number``."""
        return DiagonalResidual(self.variances / number)

    def solve(self, x: Matrix) -> Matrix:
        """``R^-1 x``."""
        return x / self.variances[:, None]

    def logdet(self) -> float:
        """``log |R|``."""
        return float(np.log(self.variances).sum())

    def root_times(self, x: Matrix) -> Matrix:
        """``R^(1/2) x``."""
        return np.sqrt(self.variances)[:, None] * x
