"""Blocks of the inverse of the penalised system between levels of different factors.

It is zero between connected blocks of the data, so one right-hand side serves a level of each.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.factorisation import Factorisation

__all__ = ["rank_within_blocks", "solve_for_levels"]

Matrix = NDArray[np.float64]
Integers = NDArray[np.int64]


def rank_within_blocks(codes: NDArray[np.int32], n_levels: int, blocks: Integers) -> Integers:
    """Number of each level among those of its connected block."""
    block_of_level = np.zeros(n_levels, dtype=np.int64)
    block_of_level[codes] = blocks
    order = np.argsort(block_of_level, kind="stable")
    sizes = np.bincount(block_of_level)
    starts = np.cumsum(sizes) - sizes
    rank = np.empty(n_levels, dtype=np.int64)
    rank[order] = np.arange(n_levels) - np.repeat(starts, sizes)
    return rank


def solve_for_levels(
    factorisation: Factorisation, g: int, rank: Integers, low: int, high: int
) -> list[Matrix]:
    """Columns of P for the effects of factor g whose level has a rank in [low, high).

    Levels of equal rank share their k columns, the first of which is ``k (rank - low)``.
    """
    A = factorisation.A
    k = A.factors[g].k
    m = (high - low) * k
    rhs = [np.zeros((f.n_levels, f.k, m)) for f in A.factors]
    levels = np.flatnonzero((rank >= low) & (rank < high))
    for a in range(k):
        rhs[g][levels, a, (rank[levels] - low) * k + a] = 1.0
    return factorisation.solve(rhs, np.zeros((0, m)))[0]
