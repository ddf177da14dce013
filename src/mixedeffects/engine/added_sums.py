"""Sums of several tables, or of one that grew, added up: centres and levels brought together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.grouped_sums import FactorSums, GroupedSums, PairSums

__all__ = ["added", "recentred", "with_levels"]

Matrix = NDArray[np.float64]
Codes = NDArray[np.int32]


def recentred(sums: GroupedSums, centre: Matrix, scale: Matrix) -> GroupedSums:
    """The same sums around other centres: ``u = B'v`` turns ``sum v v'`` into ``B' sum v v' B``.

    Parameters
    ----------
    sums : GroupedSums
        Any.
    centre, scale : ndarrays, shape (M,)
        Those wanted.
    """
    if np.array_equal(sums.centre, centre) and np.array_equal(sums.scale, scale):
        return sums
    B = np.diag(sums.scale / scale)
    B[0] += (sums.centre - centre) / scale
    own = [np.ascontiguousarray(B[np.ix_(f.own, f.own)]) for f in sums.factors]
    factors = tuple(
        replace(f, products=np.matmul(C.T, np.matmul(f.products, B)))
        for f, C in zip(sums.factors, own, strict=True)
    )
    pairs = tuple(
        replace(
            pair,
            products=np.matmul(
                own[pair.factors[0]].T, np.matmul(pair.products, own[pair.factors[1]])
            ),
        )
        for pair in sums.pairs
    )
    return replace(
        sums, centre=centre, scale=scale, total=B.T @ sums.total @ B, factors=factors, pairs=pairs
    )


def with_levels(sums: GroupedSums, places: Sequence[Codes], n_levels: Sequence[int]) -> GroupedSums:
    """The same sums among more levels.

    Parameters
    ----------
    sums : GroupedSums
        Any.
    places : sequence of ndarray of int32
        For each grouping factor the new number of each of its levels.
    n_levels : sequence of int
        How many levels there are now.
    """
    factors = []
    for factor, place, n in zip(sums.factors, places, n_levels, strict=True):
        products = np.zeros((n, *factor.products.shape[1:]))
        products[place] = factor.products
        rows = np.zeros(n, dtype=np.int64)
        rows[place] = factor.rows
        factors.append(FactorSums(factor.own, products, rows))
    pairs = tuple(
        replace(
            pair,
            codes=(places[pair.factors[0]][pair.codes[0]], places[pair.factors[1]][pair.codes[1]]),
        )
        for pair in sums.pairs
    )
    return replace(sums, factors=tuple(factors), pairs=pairs)


def added(one: GroupedSums, other: GroupedSums) -> GroupedSums:
    """The sums over the rows of both, which have the same columns, centres and levels."""
    factors = tuple(
        FactorSums(f.own, f.products + g.products, f.rows + g.rows)
        for f, g in zip(one.factors, other.factors, strict=True)
    )
    pairs = tuple(
        _added_pairs(p, q, one.factors[p.factors[1]].n_levels)
        for p, q in zip(one.pairs, other.pairs, strict=True)
    )
    return replace(
        one,
        n=one.n + other.n,
        sum_weights=one.sum_weights + other.sum_weights,
        sum_log_weights=one.sum_log_weights + other.sum_log_weights,
        total=one.total + other.total,
        factors=factors,
        pairs=pairs,
    )


def _added_pairs(one: PairSums, other: PairSums, width: int) -> PairSums:
    keys = [p.codes[0].astype(np.int64) * width + p.codes[1] for p in (one, other)]
    found = np.union1d(*keys)
    products = np.zeros((len(found), *one.products.shape[1:]))
    rows = np.zeros(len(found), dtype=np.int64)
    for pair, key in zip((one, other), keys, strict=True):
        # Every pair is there once.
        at = np.searchsorted(found, key)
        products[at] += pair.products
        rows[at] += pair.rows
    codes = (found // width).astype(np.int32), (found % width).astype(np.int32)
    return PairSums(one.factors, codes, products, rows)
