"""Products of the columns of factors with each other, ``Z'WZ``, for any weights of the same rows.

Every row has one level of each factor, so that a product is a sum over the rows with one level, or
with one pair of levels. Which pairs there are, and where their products stand in the sparse matrix,
is found once; for other weights only the values are summed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects import _kernels

__all__ = ["SparseProducts"]

Matrix = NDArray[np.float64]
Codes = NDArray[np.int32]
Indices = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class _Blocks:
    """Products of two factors: for each row which block, and where the blocks begin."""

    left: int
    right: int
    of_row: Codes
    shape: tuple[int, int, int]
    at: int

    @property
    def end(self) -> int:
        levels, rows, columns = self.shape
        return self.at + levels * rows * columns


class SparseProducts:
    """Where the products of factors stand.

    Parameters
    ----------
    codes : sequence of ndarray (n,)
        Level of each row, per factor.
    positions : sequence of ndarray (l, k)
        Columns of the matrix of each level.
    r : int
        Columns of the matrix.
    """

    def __init__(self, codes: Sequence[Codes], positions: Sequence[Codes], r: int) -> None:
        self.r = r
        self._blocks: list[_Blocks] = []
        row, column, source = [], [], []
        at = 0
        for g, left in enumerate(positions):
            for h, right in enumerate(positions[g:], g):
                first, second, of_row = _pairs(codes[g], codes[h], g == h, len(left), len(right))
                shape = (len(first), left.shape[1], right.shape[1])
                block = _Blocks(g, h, of_row, shape, at)
                own = np.arange(at, block.end)
                rows = np.broadcast_to(left[first][:, :, None], shape).ravel()
                columns = np.broadcast_to(right[second][:, None, :], shape).ravel()
                row.append(rows)
                column.append(columns)
                source.append(own)
                if g != h:
                    row.append(columns)
                    column.append(rows)
                    source.append(own)
                self._blocks.append(block)
                at = block.end
        self._size = at
        rows, columns = np.concatenate(row), np.concatenate(column)
        order = np.lexsort((rows, columns))
        self._indices = rows[order].astype(np.int32)
        counts = np.bincount(columns, minlength=r)
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        self._source = np.concatenate(source)[order]

    def matrix(self, columns: Sequence[Matrix], w: Matrix) -> scipy.sparse.csc_array:
        """``Z'WZ``, r x r, both triangles.

        Parameters
        ----------
        columns : sequence of ndarray (n, k)
            Columns of each factor.
        w : ndarray, shape (n,) or (0,)
            Weights; none where all are one.
        """
        sums = np.zeros(self._size)
        weighted = [own * w[:, None] for own in columns] if len(w) else columns
        for block in self._blocks:
            own = sums[block.at : block.end].reshape(block.shape)
            _kernels.group_sums(block.of_row, columns[block.left], weighted[block.right], own)
        shape = (self.r, self.r)
        return scipy.sparse.csc_array((sums[self._source], self._indices, self._starts), shape)


def _pairs(
    left: Codes, right: Codes, is_same: bool, n_left: int, n_right: int
) -> tuple[Indices, Indices, Codes]:
    """Levels of each pair that occurs, and the number of the pair of each row."""
    if is_same:
        own = np.arange(n_left)
        return own, own, left
    keys, of_row = np.unique(left.astype(np.int64) * n_right + right, return_inverse=True)
    first, second = np.divmod(keys, n_right)
    return first, second, of_row.astype(np.int32)
