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

__all__ = ["DenseRemainder", "Places", "SparseRemainder", "find_places"]

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
class Places(ReadOnlyArrays):
    """Where the entries of a sparse remainder go in an elimination.

    Attributes
    ----------
    of_fronts, in_fronts : ndarrays
        Entries of the sparse matrix that go into the blocks of the fronts, and where.
    border : ndarray
        Where there the border of the fronts' columns goes, row by row.
    of_core, in_core : ndarrays
        Entries that go into the dense core, and where, column by column.
    """

    of_fronts: NDArray[np.intp]
    in_fronts: NDArray[np.int64]
    border: NDArray[np.int64]
    of_core: NDArray[np.intp]
    in_core: NDArray[np.intp]


def find_places(random: scipy.sparse.csc_array, fronts: Fronts, n_border: int) -> Places:
    """Places of the entries of a sparse matrix, and of a border of so many columns."""
    c, r = fronts.columns, random.shape[0]
    row = np.asarray(random.indices)
    column = np.repeat(np.arange(r, dtype=np.int32), np.diff(random.indptr))
    upper = np.flatnonzero((row < c) & (row <= column))
    rows = np.concatenate([row[upper], np.repeat(np.arange(c), n_border)])
    columns = np.concatenate([column[upper], np.tile(np.arange(r, r + n_border), c)])
    places = _kernels.front_entries(fronts.arrays, rows.astype(np.int32), columns.astype(np.int32))
    core = np.flatnonzero((row >= c) & (column >= c))
    size = r + n_border - c
    flat = (column[core].astype(np.intp) - c) * size + (row[core] - c)
    return Places(upper, places[: len(upper)], places[len(upper) :], core, flat)


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
    places : Places, optional
        Where the entries go, if that is known from others with the same pattern.
    """

    fronts: Fronts
    random: scipy.sparse.csc_array
    border: Matrix
    places: Places | None = None

    def __getstate__(self) -> dict[str, object]:
        # They follow from the pattern, and are larger than the entries.
        return {k: v for k, v in self.__dict__.items() if k not in ("places", "where")}

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
    def where(self) -> Places:
        """Where the entries go."""
        if self.places is not None:
            return self.places
        return find_places(self.random, self.fronts, self.border.shape[1])

    def begin(self) -> tuple[Matrix, Matrix]:
        """A working copy to eliminate in: the core, and the rows of the fronts."""
        places, entries, c = self.where, self.random.data, self.fronts.columns
        values = np.zeros(self.fronts.size)
        values[places.in_fronts] = entries[places.of_fronts]
        values[places.border] = self.border[:c].ravel()
        size, n_border = self.core_size, self.border.shape[1]
        core = np.zeros((size, size), order="F")
        core.T.reshape(-1)[places.in_core] = entries[places.of_core]
        core[:, size - n_border :] = self.border[c:]
        core[size - n_border :, :] = self.border[c:].T
        return core, values

    def with_response(self, column: Matrix) -> SparseRemainder:
        """The same with another y: its products with everything."""
        border = self.border.copy()
        border[:, -1] = column
        border[-1, :] = column[self.random.shape[0] :]
        return replace(self, border=border, places=self.where)

    def with_border(self, B: Matrix, added: Matrix) -> SparseRemainder:
        """The same with ``[X y] B`` for ``[X y]``, and something added to its own products."""
        border = self.border @ B
        border[-len(B) :] = B.T @ border[-len(B) :] + added
        return replace(self, border=border, places=self.where)
