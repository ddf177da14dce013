"""What V asks of R, the covariance matrix of the residual errors, whatever its structure.

Everything that is done to V goes through these few operations, so a structure of R is one class
that has them, and no other file has to know which structures there are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects.covariance.groups import Factor, Grouping

__all__ = ["ResidualMatrix"]

Matrix = NDArray[np.float64]
Positions = NDArray[np.intp]


class ResidualMatrix(ABC):
    """A symmetric n x n matrix, positive semidefinite, that is zero between most rows."""

    @property
    @abstractmethod
    def n(self) -> int:
        """Number of rows."""

    @property
    @abstractmethod
    def groupings(self) -> tuple[Grouping, ...]:
        """Factors such that R is zero between rows that share no level; none if it is diagonal."""

    @property
    def factor(self) -> Factor | None:
        """The factor whose levels name groups of its rows, if there is one."""
        return None

    # --- entries ---------------------------------------------------------------------------

    @abstractmethod
    def diagonal(self) -> Matrix:
        """Variances, shape (n,), not to be written into."""

    @abstractmethod
    def floor(self) -> Matrix:
        """For each row the smallest eigenvalue of the block of R that it is in, shape (n,)."""

    @abstractmethod
    def add_blocks(self, rows: Positions, out: Matrix) -> None:
        """Add ``R[rows, rows]`` to out (..., s, s), for distinct rows (..., s)."""

    @abstractmethod
    def add_entries(self, i: Positions, j: Positions, out: Matrix) -> None:
        """Add ``R[i, j]`` to out, for rows that may occur several times."""

    @abstractmethod
    def sparse(self) -> scipy.sparse.csc_array:
        """All of R."""

    # --- R, its inverse and its root -------------------------------------------------------

    @abstractmethod
    def times(self, x: Matrix) -> Matrix:
        """``R x`` for x (n, m), as a new array."""

    @abstractmethod
    def divided_by(self, number: float) -> ResidualMatrix:
        """``R / number``."""

    @abstractmethod
    def solve(self, x: Matrix) -> Matrix:
        """``R^-1 x`` for x (n, m), as a new array."""

    @abstractmethod
    def logdet(self) -> float:
        """``log |R|``."""

    @abstractmethod
    def root_times(self, x: Matrix) -> Matrix:
        """``C x`` with ``C C' = R`` for x (n, m): errors, if x is standard normal."""
