"""Sums of products of rows that stand for more: blocks of a model without some rows or columns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects.engine import CrossProducts
from mixedeffects.engine.from_sums import crossproducts_from_sums
from mixedeffects.engine.grouped_sums import (
    FactorSums,
    GroupedSums,
    PairSums,
    SumColumns,
    TermColumns,
)
from mixedeffects.engine.memory import RemainderTooLargeError
from mixedeffects.fitting.assembly import check_parameters, too_large
from mixedeffects.fitting.representative import RepresentativeFrame, RepresentativeTerm

__all__ = ["assemble_representative"]

Matrix = NDArray[np.float64]


def assemble_representative(frame: RepresentativeFrame) -> CrossProducts:
    """Cross-products as the rows would have them that those of a frame stand for.

    Raises
    ------
    ModelError
        If they would not fit into memory.
    """
    check_parameters(frame.terms)
    try:
        return crossproducts_from_sums(*_sums(frame))
    except RemainderTooLargeError as error:
        raise too_large(frame.terms, error) from None


def _sums(frame: RepresentativeFrame) -> tuple[GroupedSums, SumColumns]:
    model = frame.design
    assert model is not None
    U = frame.columns
    terms = [term for term in frame.terms if isinstance(term, RepresentativeTerm)]
    groups = list(dict.fromkeys(term.group for term in terms))
    first = [next(term for term in terms if term.group == group) for group in groups]
    own = [
        tuple(sorted({0, *(j for term in terms if term.group == group for j in term.places)}))
        for group in groups
    ]
    factors = tuple(
        FactorSums(
            columns,
            _products(U, term.codes, term.n_levels, columns, range(U.shape[1])),
            np.bincount(term.codes, frame.counts, term.n_levels).astype(np.int64),
        )
        for term, columns in zip(first, own, strict=True)
    )
    pairs = []
    for s, t in combinations(range(len(groups)), 2):
        one, other = first[s], first[t]
        pair = one.codes.astype(np.int64) * other.n_levels + other.codes
        found, which = np.unique(pair, return_inverse=True)
        products = _products(U, which.reshape(-1), len(found), own[s], own[t])
        codes = ((found // other.n_levels), (found % other.n_levels))
        pairs.append(PairSums((s, t), (_int32(codes[0]), _int32(codes[1])), products))
    sums = GroupedSums(
        tuple(model.design.keys),
        model.moments.centre,
        model.moments.scale,
        frame.nobs,
        float(U[:, 0] @ U[:, 0]),
        float(frame.sum_log_weights.sum()),
        U.T @ U,
        factors,
        tuple(pairs),
    )
    columns = tuple(TermColumns(groups.index(term.group), term.places) for term in terms)
    return sums, SumColumns(frame.fixed_places, columns, model.columns.response)


def _products(
    U: Matrix, codes: NDArray[np.integer], n: int, own: Sequence[int], others: Sequence[int]
) -> Matrix:
    """``sum u_i u_j`` by code, shape (n, number of i, number of j)."""
    m = len(U)
    by_code = scipy.sparse.csr_array((np.ones(m), (codes, np.arange(m))), shape=(n, m))
    right = U[:, list(others)]
    return np.stack([np.asarray(by_code @ (U[:, [i]] * right)) for i in own], axis=1)


def _int32(codes: NDArray[np.int64]) -> NDArray[np.int32]:
    return codes.astype(np.int32)
