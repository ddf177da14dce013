"""Cross-products of the remainder ``[Z_rest X y]``: dense, or sparse with a dense core.

Both kinds answer the same questions: multiply, start an elimination, take another response.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects import _kernels
from mixedeffects.base.arrays import ReadOnlyArrays
from mixedeffects.base.caching import cached_property
from mixedeffects.engine.fronts import Fronts

__all__ = ["DenseRemainder", "SparseRemainder"]

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DenseRemainder(ReadOnlyArrays):
    """One dense symmetric block, (r + p + 1) square, Fortran order."""

    matrix: Matrix

    fronts = None

    @property
    def core_size(self) -> int:
        """Rows of the dense core, border included."""
        return len(self.matrix)

    @property
    def response_square(self) -> float:
        """``y'Wy``."""
        return float(self.matrix[-1, -1])

    @property
    def diagonal(self) -> Matrix:
        """Products of every column with itself, (r + p + 1,)."""
        return np.diag(self.matrix)

    def multiply(self, v: Matrix) -> Matrix:
        """Product with v, array (r + p + 1, m)."""
        return self.matrix @ v

    def begin(self) -> tuple[Matrix, Matrix]:
        """A working copy to eliminate in: the core, and the rows of the fronts (none)."""
        return self.matrix.copy(order="F"), np.empty(0)

    def with_response(self, column: Matrix) -> DenseRemainder:
        """The same with another y: its products with everything."""
        matrix = self.matrix.copy(order="F")
        matrix[:, -1] = column
        matrix[-1, :] = column
        return DenseRemainder(matrix)

    def with_border(self, B: Matrix, added: Matrix) -> DenseRemainder:
        """The same with ``[X y] B`` for ``[X y]``, and something added to its own products."""
        r = len(self.matrix) - len(B)
        matrix = self.matrix.copy(order="F")
        matrix[:, r:] = matrix[:, r:] @ B
        matrix[r:, :r] = matrix[:r, r:].T
        matrix[r:, r:] = B.T @ matrix[r:, r:] + added
        return DenseRemainder(matrix)


@dataclass(frozen=True, eq=False)
class SparseRemainder(ReadOnlyArrays):
    """Sparse products of ``Z_rest`` with itself and a dense border.

    Attributes
    ----------
    fronts : Fronts
        What is eliminated sparsely.
    random : scipy.sparse.csc_array, r x r
        ``Z_rest'W Z_rest`` in elimination order, both triangles.
    border : ndarray (r + p + 1, p + 1)
        Products of ``[Z_rest X y]`` with ``[X y]``.
    """

    fronts: Fronts
    random: scipy.sparse.csc_array
    border: Matrix

    @property
    def core_size(self) -> int:
        """Rows of the dense core, border included."""
        return len(self.border) - self.fronts.columns

    @property
    def response_square(self) -> float:
        """``y'Wy``."""
        return float(self.border[-1, -1])

    @property
    def diagonal(self) -> Matrix:
        """Products of every column with itself, (r + p + 1,)."""
        r = self.random.shape[0]
        return np.concatenate([self.random.diagonal(), np.diag(self.border[r:])])

    def multiply(self, v: Matrix) -> Matrix:
        """Product with v, array (r + p + 1, m)."""
        r = self.random.shape[0]
        out = np.empty_like(v)
        out[:r] = self.random @ v[:r] + self.border[:r] @ v[r:]
        out[r:] = self.border.T @ v
        return out

    @cached_property
    def _places(self) -> tuple[Matrix, NDArray[np.int64], Matrix, NDArray[np.intp]]:
        """Values and places of the products within the fronts, and within the core."""
        c = self.fronts.columns
        r, n_border = self.random.shape[0], self.border.shape[1]
        entries = self.random.tocoo()
        row, column, values = entries.row, entries.col, entries.data
        upper = (row < c) & (row <= column)
        rows = np.concatenate([row[upper], np.repeat(np.arange(c), n_border)])
        columns = np.concatenate([column[upper], np.tile(np.arange(r, r + n_border), c)])
        in_fronts = np.concatenate([values[upper], self.border[:c].ravel()])
        places = _kernels.front_entries(
            self.fronts.arrays, rows.astype(np.int32), columns.astype(np.int32)
        )
        core = (row >= c) & (column >= c)
        size = self.core_size
        flat = (column[core].astype(np.intp) - c) * size + (row[core] - c)
        return in_fronts, places, values[core], flat

    def begin(self) -> tuple[Matrix, Matrix]:
        """A working copy to eliminate in: the core, and the rows of the fronts."""
        in_fronts, places, in_core, flat = self._places
        values = np.zeros(self.fronts.size)
        values[places] = in_fronts
        size, n_border = self.core_size, self.border.shape[1]
        core = np.zeros((size, size), order="F")
        core.T.reshape(-1)[flat] = in_core
        core[:, size - n_border :] = self.border[self.fronts.columns :]
        core[size - n_border :, :] = self.border[self.fronts.columns :].T
        return core, values

    def with_response(self, column: Matrix) -> SparseRemainder:
        """The same with another y: its products with everything."""
        border = self.border.copy()
        border[:, -1] = column
        border[-1, :] = column[self.random.shape[0] :]
        return replace(self, border=border)

    def with_border(self, B: Matrix, added: Matrix) -> SparseRemainder:
        """The same with ``[X y] B`` for ``[X y]``, and something added to its own products."""
        border = self.border @ B
        border[-len(B) :] = B.T @ border[-len(B) :] + added
        return replace(self, border=border)
