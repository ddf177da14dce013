"""Entries of V: its diagonal, single rows and columns, blocks on the diagonal."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mixedeffects.covariance.structure import CovarianceStructure

__all__ = ["diagonal", "entries", "large_block", "small_blocks"]

Matrix = NDArray[np.float64]
Positions = NDArray[np.intp]


def diagonal(V: CovarianceStructure) -> Matrix:
    """Variances, shape (n,)."""
    out = V.R.diagonal().copy()
    for term, G in V.random():
        out += np.einsum("ia,ab,ib->i", term.z, G, term.z)
    return out


def entries(V: CovarianceStructure, i: Positions, j: Positions) -> Matrix:
    """``V[i, j]``; rows may occur several times."""
    out = np.zeros((len(i), len(j)))
    for term, G in V.random():
        same = term.codes[i][:, None] == term.codes[j][None, :]
        out += np.where(same, term.z[i] @ G @ term.z[j].T, 0.0)
    V.R.add_entries(i, j, out)
    return out


def small_blocks(V: CovarianceStructure, rows: Positions) -> Matrix:
    """``V[rows, rows]`` of distinct rows (..., s), many blocks at once: (..., s, s)."""
    out = np.zeros((*rows.shape, rows.shape[-1]))
    for term, G in V.random():
        z, codes = term.z[rows], term.codes[rows]
        products = np.matmul(z @ G, np.swapaxes(z, -1, -2))
        products[codes[..., :, None] != codes[..., None, :]] = 0.0
        out += products
    V.R.add_blocks(rows, out)
    return out


def large_block(V: CovarianceStructure, rows: Positions, order: Literal["C", "F"] = "C") -> Matrix:
    """``V[rows, rows]`` of distinct rows (s,), without arrays of its size beside it."""
    out = np.zeros((len(rows), len(rows)), order=order)
    V.R.add_blocks(rows, out)
    for term, G in V.random():
        by_level = np.argsort(term.codes[rows], kind="stable")
        ends = np.flatnonzero(np.diff(term.codes[rows][by_level])) + 1
        for own in np.split(by_level, ends):
            z = term.z[rows[own]]
            out[np.ix_(own, own)] += z @ G @ z.T
    return out
