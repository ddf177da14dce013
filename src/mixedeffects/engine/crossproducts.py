"""Cross-products ``A = [Z X y]' W [Z X y]`` in blocks; once they are made, n is forgotten.

Grouping factors are put in elimination order, most random effects first. A factor belongs to the
*chain* as long as the factor before it is nested in it: then its block of M stays block-diagonal
when the ones before it are eliminated. All other factors, and the border ``[X y]``, make up the
dense *remainder*.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixedeffects import _kernels
from mixedeffects.engine.basis import Basis, make_basis, standard_response

__all__ = [
    "ChainFactor",
    "CrossProducts",
    "EngineTerm",
    "RemainderTooLargeError",
    "RestFactor",
    "make_crossproducts",
    "replace_response",
]

Matrix = NDArray[np.float64]
Codes = NDArray[np.int32]
Offsets = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class EngineTerm:
    """One random-effects term as arrays: level of each row, number of levels, columns (n x k).

    Terms with the same ``grouping`` number share their codes.
    """

    codes: Codes
    n_levels: int
    z: Matrix
    grouping: int


@dataclass(frozen=True, eq=False)
class Member:
    """Where a term's columns lie within its factor."""

    term: int
    columns: slice


@dataclass(frozen=True, eq=False)
class Link:
    """From a chain factor to one further out: parent levels, and where its pattern lies there."""

    outer: int
    parent: Codes
    relative: Codes
    at: int


@dataclass(frozen=True, eq=False)
class ChainFactor:
    """A factor whose levels are eliminated one by one.

    ``diag`` has shape (l, k, k). The panel of level i, k x (head + pattern) with contiguous
    columns, starts at ``k * (head * i + ptr[i])`` of ``panel``; its pattern columns are
    ``ind[ptr[i]:ptr[i+1]]`` in the remainder.
    """

    members: tuple[Member, ...]
    n_levels: int
    k: int
    diag: Matrix
    panel: Matrix
    ptr: Offsets
    ind: Codes
    head: int
    links: tuple[Link, ...]


@dataclass(frozen=True, eq=False)
class RestFactor:
    """A factor of the dense remainder: its columns are ``offset + k * level + column``."""

    members: tuple[Member, ...]
    n_levels: int
    k: int
    offset: int

    @property
    def columns(self) -> slice:
        """Its columns in the remainder."""
        return slice(self.offset, self.offset + self.n_levels * self.k)


@dataclass(frozen=True, eq=False)
class CrossProducts:
    """The blocks of A and what is needed to read them.

    Attributes
    ----------
    chain, rest : tuples of ChainFactor, RestFactor
        The factors in elimination order.
    remainder : ndarray, shape (r + p + 1, r + p + 1), Fortran order, symmetric
        Cross-products of ``[Z_rest X y]``.
    n, p, r : int
        Rows, fixed effects, random effects in the remainder.
    sum_log_weights : float
        Of the weights in the engine's scale.
    basis : Basis
        The way back to the user's columns.
    term_columns : tuple of int
        Number of columns k of each term, in the user's order.
    """

    chain: tuple[ChainFactor, ...]
    rest: tuple[RestFactor, ...]
    remainder: Matrix
    n: int
    p: int
    r: int
    sum_log_weights: float
    basis: Basis
    term_columns: tuple[int, ...]

    @property
    def factors(self) -> tuple[ChainFactor | RestFactor, ...]:
        """All factors in elimination order."""
        return (*self.chain, *self.rest)

    @property
    def q(self) -> int:
        """Total number of random effects."""
        return sum(f.n_levels * f.k for f in self.factors)

    def multiply(self, blocks: Sequence[Matrix], border: Matrix) -> tuple[list[Matrix], Matrix]:
        """``A v`` for v given per factor, arrays (l, k, m), and on ``[X y]``, array (p + 1, m)."""
        columns = border.shape[1]
        v_remainder = np.concatenate(
            [b.reshape(-1, columns) for b in blocks[len(self.chain) :]] + [border]
        )
        out_remainder = self.remainder @ v_remainder
        v = [np.ascontiguousarray(b) for b in blocks[: len(self.chain)]]
        out = [np.zeros_like(b) for b in v]
        for e, factor in enumerate(self.chain):
            _kernels.multiply_levels(
                factor.diag,
                factor.panel,
                factor.ptr,
                factor.ind,
                [link.parent for link in factor.links],
                v[e],
                [v[link.outer] for link in factor.links],
                v_remainder,
                out[e],
                [out[link.outer] for link in factor.links],
                out_remainder,
            )
        out += [out_remainder[f.columns].reshape(f.n_levels, f.k, columns) for f in self.rest]
        return out, out_remainder[self.r :]


@dataclass(frozen=True, eq=False)
class _Factor:
    members: tuple[Member, ...]
    codes: Codes
    n_levels: int
    z: Matrix


class RemainderTooLargeError(MemoryError):
    """The dense remainder would not fit into this machine's memory.

    Attributes
    ----------
    terms : list of int
        The terms it is made of.
    size : int
        Its number of rows.
    gigabytes : float
        What a fit would need for it.
    """

    def __init__(self, terms: list[int], size: int, gigabytes: float) -> None:
        super().__init__(f"{size} dense rows need {gigabytes:.1f} GB")
        self.terms, self.size, self.gigabytes = terms, size, gigabytes


def _check_memory(size: int, terms: list[int]) -> None:
    """Raise before the operating system has to choose what to kill."""
    # A, its Schur complement and the inverse are there at the same time.
    needed = 3 * 8.0 * float(size) ** 2
    try:
        memory = float(os.sysconf("SC_PAGE_SIZE")) * float(os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # not every system tells
        return
    if needed > 0.9 * memory:
        raise RemainderTooLargeError(terms, size, needed / 1e9)


def _merge_terms(terms: Sequence[EngineTerm], z: Sequence[Matrix]) -> list[_Factor]:
    """One factor per grouping; terms on the same grouping share its blocks."""
    by_grouping: dict[int, list[int]] = {}
    for t, term in enumerate(terms):
        by_grouping.setdefault(term.grouping, []).append(t)
    factors = []
    for members in by_grouping.values():
        stops = np.cumsum([terms[t].z.shape[1] for t in members])
        slices = [
            slice(int(e) - terms[t].z.shape[1], int(e)) for t, e in zip(members, stops, strict=True)
        ]
        columns = z[members[0]] if len(members) == 1 else np.hstack([z[t] for t in members])
        factors.append(
            _Factor(
                tuple(Member(t, s) for t, s in zip(members, slices, strict=True)),
                terms[members[0]].codes,
                terms[members[0]].n_levels,
                np.ascontiguousarray(columns),
            )
        )
    return sorted(factors, key=lambda f: -f.n_levels * f.z.shape[1])


def _split_chain(
    factors: Sequence[_Factor],
) -> tuple[list[_Factor], list[list[Codes]], list[_Factor]]:
    """Chain, rest, and for each chain factor its parents in the chain factors further out."""
    chain = [factors[0]]
    rest: list[_Factor] = []
    for factor in factors[1:]:
        inner = chain[-1]
        if len(_kernels.nesting_parents(inner.codes, inner.n_levels, factor.codes)):
            chain.append(factor)
        else:
            rest.append(factor)
    parents = [
        [_kernels.nesting_parents(f.codes, f.n_levels, o.codes) for o in chain[e + 1 :]]
        for e, f in enumerate(chain)
    ]
    return chain, parents, rest


def make_crossproducts(
    y: Matrix,
    X: Matrix,
    terms: Sequence[EngineTerm],
    weights: Matrix | None,
) -> CrossProducts:
    """Assemble the blocks of A in one pass per factor.

    Parameters
    ----------
    y : ndarray, shape (n,)
        Response less offset.
    X : ndarray, shape (n, p)
        Fixed-effects matrix of full column rank.
    terms : sequence of EngineTerm
        Random-effects terms in the user's order.
    weights : ndarray, shape (n,), or None
        Prior weights, positive.
    """
    n, p = X.shape
    basis, y_star, X_star, z_star, w_star = make_basis(y, X, [t.z for t in terms], weights)
    w = np.empty(0) if w_star is None else w_star
    border = np.empty((n, p + 1))
    border[:, :p] = X_star
    border[:, p] = y_star
    chain, parents, rest = _split_chain(_merge_terms(terms, z_star))

    offsets = np.cumsum([0] + [f.n_levels * f.z.shape[1] for f in rest]).tolist()
    r = offsets.pop()
    rest_codes = [f.codes for f in rest]
    rest_z = [f.z for f in rest]

    grouped = [_kernels.rows_by_level(f.codes, f.n_levels) for f in chain]
    patterns = [
        _kernels.remainder_pattern(
            start, order, rest_codes, [z.shape[1] for z in rest_z], offsets, r, p + 1
        )
        for start, order in grouped
    ]
    chain_factors = []
    for e, factor in enumerate(chain):
        k = factor.z.shape[1]
        outer_z = [f.z for f in chain[e + 1 :]]
        head = sum(z.shape[1] for z in outer_z)
        ptr, ind = patterns[e]
        diag = np.empty((factor.n_levels, k, k))
        panel = np.empty(k * (head * factor.n_levels + len(ind)))
        start, order = grouped[e]
        _kernels.assemble_levels(
            start,
            order,
            factor.z,
            w,
            outer_z,
            rest_codes,
            rest_z,
            offsets,
            border,
            r,
            ptr,
            ind,
            diag,
            panel,
        )
        links, at = [], 0
        for step, parent in enumerate(parents[e]):
            outer = e + 1 + step
            relative = _kernels.relative_positions(parent, ptr, ind, *patterns[outer])
            links.append(Link(outer, parent, relative, at))
            at += outer_z[step].shape[1]
        chain_factors.append(
            ChainFactor(
                factor.members, factor.n_levels, k, diag, panel, ptr, ind, head, tuple(links)
            )
        )

    _check_memory(r + p + 1, [t for f in rest for t in (m.term for m in f.members)])
    remainder = np.zeros((r + p + 1, r + p + 1), order="F")
    if rest:
        _kernels.assemble_remainder(rest_codes, rest_z, offsets, w, border, r, remainder)
    remainder[r:, r:] = border.T @ (border if w_star is None else border * w_star[:, None])
    _kernels.mirror_lower(remainder)
    return CrossProducts(
        tuple(chain_factors),
        tuple(
            RestFactor(f.members, f.n_levels, f.z.shape[1], offset)
            for f, offset in zip(rest, offsets, strict=True)
        ),
        remainder,
        n,
        p,
        r,
        0.0 if w_star is None else float(np.log(w_star).sum()),
        basis,
        tuple(t.z.shape[1] for t in terms),
    )


def replace_response(
    A: CrossProducts,
    y: Matrix,
    X: Matrix,
    terms: Sequence[EngineTerm],
    weights: Matrix | None,
) -> CrossProducts:
    """The same blocks with another response: only the y column changes.

    Parameters are those `make_crossproducts` was called with, but for y.
    """
    basis, p, r = A.basis, A.p, A.r
    w = None if weights is None else weights / basis.weight_scale
    X_star = X @ basis.fixed
    y_star, beta0, scale = standard_response(y, X_star, basis.fixed, w)
    weighted = np.ascontiguousarray((y_star if w is None else y_star * w)[:, None])

    def products(factor: ChainFactor | RestFactor) -> Matrix:
        out = np.empty((factor.n_levels, factor.k))
        for member in factor.members:
            term = terms[member.term]
            sums = np.zeros((term.n_levels, term.z.shape[1], 1))
            _kernels.group_sums(term.codes, term.z, weighted, sums)
            out[:, member.columns] = sums[:, :, 0] @ basis.terms[member.term]
        return out

    chain = []
    for factor in A.chain:
        panel = factor.panel.copy()
        ends = factor.head * np.arange(1, factor.n_levels + 1) + factor.ptr[1:] - 1
        panel.reshape(-1, factor.k)[ends] = products(factor)
        chain.append(replace(factor, panel=panel))
    remainder = A.remainder.copy(order="F")
    column = np.concatenate(
        [products(f).ravel() for f in A.rest]
        + [X_star.T @ weighted[:, 0], [float(y_star @ weighted[:, 0])]]
    )
    remainder[:, r + p] = column
    remainder[r + p, :] = column
    return replace(
        A,
        chain=tuple(chain),
        remainder=remainder,
        basis=replace(basis, beta0=beta0, response_scale=scale),
    )
