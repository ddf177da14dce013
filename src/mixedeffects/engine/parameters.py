"""theta <-> T: the free entries of the relative covariance factors, in lme4's order.

A term with k columns has ``k (k + 1) / 2`` entries: the lower triangle of T, column by column.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "T_to_theta",
    "along_directions",
    "block_diagonal",
    "lower_entries",
    "n_parameters",
    "symmetric_directions",
    "theta_to_T",
]

Matrix = NDArray[np.float64]


def n_parameters(term_columns: Sequence[int]) -> int:
    """Length of theta for terms with these numbers of columns."""
    return sum(k * (k + 1) // 2 for k in term_columns)


@cache
def lower_entries(k: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the lower triangle of a k x k matrix, column by column."""
    columns, rows = np.triu_indices(k)
    rows.flags.writeable = columns.flags.writeable = False
    return rows, columns


def theta_to_T(theta: Matrix, term_columns: Sequence[int]) -> list[Matrix]:
    """Lower-triangular factors of the terms."""
    T, start = [], 0
    for k in term_columns:
        rows, columns = lower_entries(k)
        factor = np.zeros((k, k))
        factor[rows, columns] = theta[start : start + len(rows)]
        start += len(rows)
        T.append(factor)
    return T


def T_to_theta(T: Sequence[Matrix]) -> Matrix:
    """Free entries of lower-triangular factors."""
    if not T:
        return np.zeros(0)
    parts = [factor[lower_entries(factor.shape[0])] for factor in T]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def block_diagonal(blocks: Sequence[Matrix]) -> Matrix:
    """Matrices along the diagonal of one; SciPy's own takes a tenth of a small fit."""
    if len(blocks) == 1:
        return blocks[0]
    shapes = np.array([block.shape for block in blocks])
    out = np.zeros(shapes.sum(axis=0))
    for block, (row, column) in zip(blocks, np.cumsum(shapes, axis=0) - shapes, strict=True):
        out[row : row + block.shape[0], column : column + block.shape[1]] = block
    return out


@cache
def _direction_weights(k: int) -> Matrix:
    rows, columns = lower_entries(k)
    weights = np.where(rows == columns, 1.0, 2.0)
    weights.flags.writeable = False
    return weights


def along_directions(F: Matrix) -> Matrix:
    """Inner products of a symmetric matrix with `symmetric_directions`, shape (m,)."""
    k = F.shape[0]
    return np.asarray(F[lower_entries(k)] * _direction_weights(k))


@cache
def symmetric_directions(k: int) -> Matrix:
    """Basis of the symmetric k x k matrices, in the order of theta: array (m, k, k)."""
    rows, columns = lower_entries(k)
    directions = np.zeros((len(rows), k, k))
    entries = np.arange(len(rows))
    directions[entries, rows, columns] = directions[entries, columns, rows] = 1.0
    directions.flags.writeable = False
    return directions
