"""The blocks of A from sums of products by level, with no row in sight.

Where blocks stand follows from which levels occur together, as for rows (`Assembly`); their values
are the sums, carried to the fitting basis by small matrices. The basis is that which the rows would
have: R with ``R'R`` the cross-products of all columns stands for the rows in finding it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects.base.scratch import IN_MEMORY, Scratch
from mixedeffects.engine.assembly import Assembly
from mixedeffects.engine.basis import (
    Basis,
    orthonormal_columns,
    orthonormal_fixed,
    product_of,
    standard_responses,
)
from mixedeffects.engine.crossproducts import (
    ChainFactor,
    CrossProducts,
    EngineTerm,
)
from mixedeffects.engine.grouped_sums import GroupedSums, PairSums, SumColumns
from mixedeffects.engine.remainder import DenseRemainder, SparseRemainder

__all__ = [
    "StandardDesign",
    "combinations_of",
    "crossproducts_from_sums",
    "root_of_sums",
    "rows_in_place",
    "standard_design",
    "structure_of_sums",
]

Matrix = NDArray[np.float64]
Codes = NDArray[np.int32]

#: Levels whose products are carried to the basis at a time.
_AT_ONCE = 16_384
#: Pivot of cross-products, relative to the column's own, that is rounding.
_ROUNDING = 1e-13


def crossproducts_from_sums(
    sums: GroupedSums, columns: SumColumns, scratch: Scratch = IN_MEMORY
) -> CrossProducts:
    """Assemble the blocks of A.

    Parameters
    ----------
    sums : GroupedSums
        By level of every factor, and by pair of levels of any two.
    columns : SumColumns
        Which of their columns are X, Z and y. Those of X are linearly independent.
    scratch : Scratch
        Where the blocks of the first factor are kept.

    Raises
    ------
    RemainderTooLargeError
        If the blocks would not fit into memory.
    """
    standard = standard_design(sums, columns)
    terms = structure_of_sums(sums, columns)
    p = len(columns.fixed)
    assembly = Assembly(terms, p + 1)
    products = _Products(sums, columns, standard)
    chain = tuple(
        _chain_factor(assembly, e, products, scratch if e == 0 else IN_MEMORY)
        for e in range(len(assembly.chain))
    )
    log_scale = np.log(standard.basis.weight_scale)
    return CrossProducts(
        chain,
        assembly.rest_factors,
        _remainder(assembly, products),
        assembly.layout,
        sums.n,
        p,
        float(sums.sum_log_weights - sums.n * log_scale),
        standard.basis,
        tuple(len(term.columns) for term in columns.terms),
    )


def root_of_sums(total: Matrix) -> Matrix:
    """Upper-triangular R with ``R'R = total``; zero rows for columns that depend on earlier ones.

    Parameters
    ----------
    total : ndarray, shape (M, M)
        Cross-products, positive semidefinite up to rounding.
    """
    size = np.sqrt(np.diag(total))
    size = np.where(size > 0.0, size, 1.0)
    left = total / np.outer(size, size)
    R = np.zeros(left.shape)
    for j in range(len(left)):
        pivot = left[j, j]
        if pivot > _ROUNDING:
            R[j, j:] = left[j, j:] / np.sqrt(pivot)
            left[j:, j:] -= np.outer(R[j, j:], R[j, j:])
    return np.asarray(R * size)


def rows_in_place(sums: GroupedSums, columns: tuple[int, ...], *, whole: bool = False) -> Matrix:
    """Few rows with the cross-products that some columns have over all rows.

    Parameters
    ----------
    sums : GroupedSums
        Of the columns.
    columns : tuple of int
        Which.
    whole : bool
        The columns as they are; by default beside an intercept less their centres.

    Returns
    -------
    ndarray, shape (M, k)
    """
    S, D = _uncentred(sums, columns)
    rows = root_of_sums(sums.total) @ D
    return np.asarray(np.linalg.solve(S.T, rows.T).T if whole else rows)


def combinations_of(sums: GroupedSums, columns: tuple[int, ...]) -> Matrix:
    """The columns that `rows_in_place` has rows of, as combinations of the u, (M, k)."""
    return _uncentred(sums, columns)[1]


@dataclass(frozen=True, eq=False)
class StandardDesign:
    """The fitting basis, and its columns as combinations of the u.

    Attributes
    ----------
    basis : Basis
        The basis.
    terms : list of ndarray, shape (M, k)
        The columns of each term.
    border : ndarray, shape (M, p + 1)
        Those of X, and the response.
    """

    basis: Basis
    terms: list[Matrix]
    border: Matrix


def standard_design(sums: GroupedSums, columns: SumColumns) -> StandardDesign:
    """The basis to fit in, from sums over all rows."""
    weight_scale = sums.sum_weights / sums.n
    # Its rows stand for those of the data: mean squares over them are mean squares over the data.
    m = len(sums.columns)
    root = root_of_sums(sums.total) * np.sqrt(m / sums.sum_weights)
    S, D = _uncentred(sums, columns.fixed)
    _, steps, log_det = orthonormal_fixed(root @ D, None)
    Q = product_of(steps)
    X_star = D @ Q
    if len(columns.fixed):
        log_det += float(np.log(np.abs(np.diag(S))).sum())
    fixed_steps = (S, *steps) if len(columns.fixed) else steps
    y, scale_of_y = np.zeros(m), sums.scale[columns.response]
    y[columns.response] = 1.0
    mean_of_y = sums.centre[columns.response] / scale_of_y
    has_intercept = columns.fixed[:1] == (0,)
    if not has_intercept:
        y[0] = mean_of_y
    _, found, scales = standard_responses((root @ y)[:, None], root @ X_star, Q, None)
    gamma, scale = found[:, 0], float(scales[0])
    y_star = (y - D @ gamma) / scale
    beta0 = scale_of_y * (S @ gamma)
    if has_intercept:
        beta0[0] += sums.centre[columns.response]
    random, C, steps_of_terms = [], [], []
    for term in columns.terms:
        S_t, D_t = _uncentred(sums, term.columns)
        _, own = orthonormal_columns(root @ D_t, None)
        whole = product_of(own)
        random.append(D_t @ whole)
        C.append(S_t @ whole)
        steps_of_terms.append((S_t, *own))
    basis = Basis(
        tuple(C),
        S @ Q,
        beta0,
        float(scale * scale_of_y),
        weight_scale,
        log_det,
        fixed_steps,
        tuple(steps_of_terms),
    )
    return StandardDesign(basis, random, np.column_stack([X_star, y_star]))


def _uncentred(sums: GroupedSums, columns: tuple[int, ...]) -> tuple[Matrix, Matrix]:
    """``(S, D)``: columns times S are the u times D, and S is upper triangular.

    Beside an intercept the columns are taken less their centres, so that those far from zero keep
    their digits.
    """
    k, m = len(columns), len(sums.columns)
    at = np.asarray(columns, dtype=np.intp)
    scale, centre = sums.scale[at], sums.centre[at]
    S, D = np.diag(1.0 / scale), np.zeros((m, k))
    D[at, np.arange(k)] = 1.0
    if columns[:1] == (0,):
        S[0, 1:] = -centre[1:] / scale[1:]
    else:
        D[0] += centre / scale
    return S, D


def structure_of_sums(sums: GroupedSums, columns: SumColumns) -> list[EngineTerm]:
    """Rows that have the levels that occur together, and no others: from pairs with the largest.

    Every other factor's pairs with the largest factor make rows; in the remaining factors such a
    row has the first level that its level of the largest occurs with.
    """
    widths = [0] * len(sums.factors)
    for term in columns.terms:
        widths[term.factor] += len(term.columns)
    sizes = [-f.n_levels * width for f, width in zip(sums.factors, widths, strict=True)]
    order = list(dict.fromkeys(term.factor for term in columns.terms))
    largest = min(order, key=sizes.__getitem__)
    others = [f for f in range(len(sums.factors)) if f != largest]
    n_levels = sums.factors[largest].n_levels
    if not others:
        codes = {largest: np.arange(n_levels, dtype=np.int32)}
    else:
        with_largest = {f: _codes_of(sums, largest, f) for f in others}
        first = {}
        for f, (own, other) in with_largest.items():
            first[f] = np.empty(n_levels, dtype=np.int32)
            first[f][own[::-1]] = other[::-1]
        codes = {largest: np.concatenate([with_largest[f][0] for f in others])}
        for f in others:
            codes[f] = np.concatenate(
                [with_largest[g][1] if g == f else first[f][with_largest[g][0]] for g in others]
            )
    return [
        EngineTerm(
            np.ascontiguousarray(codes[term.factor], dtype=np.int32),
            sums.factors[term.factor].n_levels,
            np.empty((0, len(term.columns))),
            term.factor,
        )
        for term in columns.terms
    ]


def _pair(sums: GroupedSums, one: int, other: int) -> tuple[PairSums, bool]:
    """The sums of two factors, and whether they stand there in the other order."""
    for pair in sums.pairs:
        if pair.factors == (one, other):
            return pair, False
        if pair.factors == (other, one):
            return pair, True
    raise KeyError((one, other))


def _codes_of(sums: GroupedSums, one: int, other: int) -> tuple[Codes, Codes]:
    pair, turned = _pair(sums, one, other)
    return (pair.codes[1], pair.codes[0]) if turned else pair.codes


class _Products:
    """Products in the fitting basis: of one factor with itself and the border, or of two."""

    def __init__(self, sums: GroupedSums, columns: SumColumns, standard: StandardDesign) -> None:
        self._sums, self._standard = sums, standard
        self._factor_of = [term.factor for term in columns.terms]
        self._by = 1.0 / standard.basis.weight_scale

    def _number(self, members: Sequence[int]) -> int:
        return self._factor_of[members[0]]

    def _columns(self, members: Sequence[int]) -> Matrix:
        own = list(self._sums.factors[self._number(members)].own)
        return np.hstack([self._standard.terms[t][own] for t in members])

    def own(self, members: Sequence[int]) -> tuple[Matrix, Matrix]:
        """``z'Wz``, (l, k, k), and ``z'W[X y]``, (l, k, p + 1)."""
        parts = [(diag, border) for _, diag, border in self.own_in_parts(members)]
        return np.concatenate([d for d, _ in parts]), np.concatenate([b for _, b in parts])

    def own_in_parts(self, members: Sequence[int]) -> Iterator[tuple[slice, Matrix, Matrix]]:
        """The same for some levels after the others, so that little is there twice."""
        factor = self._sums.factors[self._number(members)]
        D = self._columns(members)
        for at in range(0, factor.n_levels, _AT_ONCE):
            part = slice(at, min(at + _AT_ONCE, factor.n_levels))
            products = factor.products[part] * self._by
            within = products[:, :, list(factor.own)]
            diag = np.matmul(D.T, np.matmul(within, D))
            yield part, diag, np.matmul(D.T, np.matmul(products, self._standard.border))

    def together(self, one: Sequence[int], other: Sequence[int]) -> tuple[Codes, Codes, Matrix]:
        """Levels of two factors that occur together, and ``z_s'W z_t``, (m, k_s, k_t)."""
        pair, turned = _pair(self._sums, self._number(one), self._number(other))
        codes, products = pair.codes, pair.products
        if turned:
            codes, products = (codes[1], codes[0]), products.transpose(0, 2, 1)
        D, E = self._columns(one), self._columns(other)
        return *codes, np.matmul(D.T, np.matmul(products * self._by, E))

    @property
    def border(self) -> Matrix:
        """``[X y]'W[X y]``."""
        B = self._standard.border
        return np.asarray(B.T @ (self._sums.total * self._by) @ B)


def _terms_of(factor: object) -> list[int]:
    return [member.term for member in factor.members]  # type: ignore[attr-defined]


def _chain_factor(assembly: Assembly, e: int, products: _Products, scratch: Scratch) -> ChainFactor:
    factor, members = assembly.chain[e], _terms_of(assembly.chain[e])
    n_levels, k = factor.n_levels, factor.k
    ptr, ind = assembly.patterns[e]
    outer = assembly.chain[e + 1 :]
    head = sum(f.k for f in outer)
    panel = scratch.zeros((head * n_levels + len(ind), k))
    all_diag = scratch.zeros((n_levels, k, k))
    n_border = assembly.n_border
    for part, diag, with_border in products.own_in_parts(members):
        all_diag[part] = diag
        level = np.arange(part.start, part.stop)
        ends = head * (level + 1) + ptr[level + 1]
        panel[ends[:, None] + np.arange(-n_border, 0)] = with_border.transpose(0, 2, 1)
    at = 0
    for f in outer:
        own, _, values = products.together(members, _terms_of(f))
        # In 64 bits: with many levels the places are beyond what codes hold.
        start = head * own.astype(np.int64) + ptr[own] + at
        panel[start[:, None] + np.arange(f.k)] = values.transpose(0, 2, 1)
        at += f.k
    width = assembly.layout.r + n_border
    # Looked up where there are factors beside the chain.
    keys = np.repeat(np.arange(n_levels), np.diff(ptr)) * width + ind if assembly.rest else ind
    for g, f in enumerate(assembly.rest):
        own, other, values = products.together(members, _terms_of(f))
        first = assembly.layout.first[g][other].astype(np.int64)
        place = np.searchsorted(keys, own * np.int64(width) + first)
        start = head * (own.astype(np.int64) + 1) + place
        panel[start[:, None] + np.arange(f.k)] = values.transpose(0, 2, 1)
    return ChainFactor(
        factor.members,
        n_levels,
        k,
        all_diag,
        panel.reshape(-1),
        ptr,
        ind,
        head,
        assembly.links[e],
    )


def _remainder(assembly: Assembly, products: _Products) -> DenseRemainder | SparseRemainder:
    r, border = assembly.layout.r, products.border
    n_border = len(border)
    with_border = np.empty((r + n_border, n_border))
    with_border[r:] = border
    rows: list[NDArray[np.intp]] = []
    columns: list[NDArray[np.intp]] = []
    values: list[Matrix] = []

    def add(at: NDArray[np.intp], to: NDArray[np.intp], block: Matrix) -> None:
        """Blocks (m, a, b) at rows ``at`` (m, a) and columns ``to`` (m, b)."""
        rows.append(np.broadcast_to(at[:, :, None], block.shape).ravel())
        columns.append(np.broadcast_to(to[:, None, :], block.shape).ravel())
        values.append(np.ascontiguousarray(block).ravel())

    for g, f in enumerate(assembly.rest):
        at = assembly.positions(g).astype(np.intp)
        diag, own = products.own(_terms_of(f))
        with_border[at] = own
        add(at, at, diag)
        for h in range(g):
            to = assembly.positions(h).astype(np.intp)
            codes, others, block = products.together(_terms_of(f), _terms_of(assembly.rest[h]))
            add(at[codes], to[others], block)
            add(to[others], at[codes], block.transpose(0, 2, 1))
    places = (
        (np.concatenate(rows), np.concatenate(columns)) if rows else (np.empty(0, np.intp),) * 2
    )
    entries = np.concatenate(values) if values else np.empty(0)
    random = scipy.sparse.csc_array((entries, places), shape=(r, r))
    return assembly.remainder_of(random, with_border)
