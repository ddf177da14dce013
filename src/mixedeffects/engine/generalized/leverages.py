"""``h = diag(Z P Z')`` from the selected inverse, for any number of evaluations.

A row meets one level of each factor, and P on A's pattern has the blocks of every two of them: a
level's own block, the panel between a level of the chain and what it touches, the core or a front
for two levels of the remainder. Which entries a row needs follows from its levels and is found
once; a leverage is then a sum of products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedeffects import _kernels
from mixedeffects.engine.crossproducts import ChainFactor, CrossProducts, RestFactor
from mixedeffects.engine.factorisation import SelectedInverse

__all__ = ["LeveragePlaces"]

Matrix = NDArray[np.float64]
Codes = NDArray[np.int32]
Places = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Blocks:
    """Blocks of one array of the selected inverse: where that of each row begins.

    It stands between the row's columns ``left`` and ``right``, the right index fastest, and counts
    ``factor`` times.
    """

    kind: str
    number: int
    first: Places
    left: Matrix
    right: Matrix
    factor: float


@dataclass(frozen=True, eq=False)
class _Entries:
    """Single entries of one array: their places and weights, (n, entries)."""

    kind: str
    places: Places
    weights: Matrix


class LeveragePlaces:
    """Where the entries of P for each row stand.

    Parameters
    ----------
    A : CrossProducts
        The blocks.
    codes : sequence of ndarray (n,)
        Level of each row, per factor.
    columns : sequence of ndarray (n, k)
        Columns of each factor.
    """

    def __init__(self, A: CrossProducts, codes: Sequence[Codes], columns: Sequence[Matrix]) -> None:
        self.n = len(codes[0])
        self._blocks: list[_Blocks] = []
        self._entries: list[_Entries] = []
        self._A, self._codes, self._columns = A, codes, columns
        for f, factor in enumerate(A.factors):
            start = codes[f].astype(np.int64) * factor.k**2
            self._blocks.append(_Blocks("P", f, start, columns[f], columns[f], 1.0))
        for e, factor in enumerate(A.chain):
            self._between_chain(e, factor)
        n_chain = len(A.chain)
        for g, first in enumerate(A.rest):
            for h in range(g + 1, len(A.rest)):
                self._between_rest(n_chain + g, first, n_chain + h, A.rest[h])

    def _between_chain(self, e: int, factor: ChainFactor) -> None:
        A, codes, z = self._A, self._codes, self._columns
        own = codes[e].astype(np.int64)
        base = factor.head * own + factor.ptr[own]
        for link in factor.links:
            self._panel(e, base + link.at, z[link.outer], z[e])
        if not A.rest:
            return
        width = A.r + 1
        levels = np.repeat(np.arange(factor.n_levels, dtype=np.int64), np.diff(factor.ptr))
        keys = levels * width + factor.ind
        for g, rest in enumerate(A.rest):
            f = len(A.chain) + g
            column = rest.first[codes[f]].astype(np.int64)
            at = np.searchsorted(keys, own * width + column) - factor.ptr[own]
            self._panel(e, base + factor.head + at, z[f], z[e])

    def _panel(self, e: int, column: Places, outer: Matrix, inner: Matrix) -> None:
        """Columns of a panel from the one given, each k entries long."""
        first = np.ascontiguousarray(column * inner.shape[1])
        self._blocks.append(_Blocks("panel", e, first, outer, inner, 2.0))

    def _between_rest(self, f: int, factor: RestFactor, g: int, other: RestFactor) -> None:
        A, fronts = self._A, self._A.remainder.fronts
        weights = 2.0 * _products(self._columns[f], self._columns[g])
        left = factor.first[self._codes[f]][:, None] + np.arange(factor.k, dtype=np.int32)
        right = other.first[self._codes[g]][:, None] + np.arange(other.k, dtype=np.int32)
        left = np.repeat(left, other.k, axis=1)
        right = np.tile(right, (1, factor.k))
        low, high = np.minimum(left, right), np.maximum(left, right)
        start = A.layout.core
        size = A.r - start
        in_core = low >= start
        core = (high.astype(np.int64) - start) * size + (low - start)
        if in_core.any():
            self._entries.append(
                _Entries("core", np.where(in_core, core, 0), np.where(in_core, weights, 0.0))
            )
        if fronts is not None and not in_core.all():
            places = np.zeros(low.shape, dtype=np.int64)
            outside = ~in_core
            places[outside] = _kernels.front_entries(fronts.arrays, low[outside], high[outside])
            self._entries.append(_Entries("fronts", places, np.where(outside, weights, 0.0)))

    def leverages(self, inverse: SelectedInverse) -> Matrix:
        """h, shape (n,), from a selected inverse made with ``keep=True``."""
        h = np.zeros(self.n)
        for block in self._blocks:
            arrays = inverse.P if block.kind == "P" else inverse.panels
            values = arrays[block.number].reshape(-1)
            _kernels.add_block_forms(values, block.first, block.left, block.right, block.factor, h)
        for part in self._entries:
            # The core is symmetric, so its order does not matter.
            core = part.kind == "core"
            values = inverse.core.reshape(-1, order="A") if core else inverse.fronts
            _kernels.add_gathered(values, part.places, part.weights, h)
        return h


def _products(left: Matrix, right: Matrix) -> Matrix:
    """``left_a right_b`` of each row, b fastest, shape (n, entries)."""
    return np.asarray((left[:, :, None] * right[:, None, :]).reshape(len(left), -1))
