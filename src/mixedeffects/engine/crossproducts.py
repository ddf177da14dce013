"""Cross-products ``A = [Z X y]' W [Z X y]`` in blocks; once they are made, n is forgotten.

Grouping factors are put in elimination order, most random effects first. A factor belongs to the
*chain* as long as the factor before it is nested in it: then its block of M stays block-diagonal
when the ones before it are eliminated. All other factors, and the border ``[X y]``, make up the
*remainder*, dense or with a sparse part that is eliminated first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixedeffects import _kernels
from mixedeffects.base.arrays import ReadOnlyArrays
from mixedeffects.base.caching import cached_property
from mixedeffects.engine.basis import Basis
from mixedeffects.engine.fronts import Layout
from mixedeffects.engine.provisional import Provisional
from mixedeffects.engine.remainder import DenseRemainder, SparseRemainder

__all__ = [
    "ChainFactor",
    "CrossProducts",
    "EngineTerm",
    "Link",
    "Member",
    "RestFactor",
]

Matrix = NDArray[np.float64]
Codes = NDArray[np.int32]
Offsets = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class EngineTerm(ReadOnlyArrays):
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
class Link(ReadOnlyArrays):
    """From a chain factor to one further out: parent levels, and where its pattern lies there."""

    outer: int
    parent: Codes
    relative: Codes
    at: int


@dataclass(frozen=True, eq=False)
class ChainFactor(ReadOnlyArrays):
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

    def with_values(self, diag: Matrix, panel: Matrix) -> ChainFactor:
        """The same with other products."""
        return replace(self, diag=diag, panel=panel)

    def with_response(self, products: Matrix) -> ChainFactor:
        """The same with another y, given its products, shape (l, k)."""
        panel = self.panel.copy()
        panel.reshape(-1, self.k)[self._response_columns] = products
        return replace(self, panel=panel)

    def with_border(self, B: Matrix) -> ChainFactor:
        """The same with its products with ``[X y]``, the last of every level, multiplied by B."""
        panel = self.panel.copy()
        ends = self._response_columns + 1
        at = ends[:, None] + np.arange(-len(B), 0)
        columns = panel.reshape(-1, self.k)
        columns[at] = np.einsum("lbk,bc->lck", columns[at], B)
        return replace(self, panel=panel)

    @property
    def _response_columns(self) -> NDArray[np.int64]:
        """Which column of all panels, one after the other, is the last of each level."""
        return np.asarray(self.head * np.arange(1, self.n_levels + 1) + self.ptr[1:] - 1)


@dataclass(frozen=True, eq=False)
class RestFactor(ReadOnlyArrays):
    """A factor of the remainder.

    The columns of level i are ``first[i]`` and the k - 1 that follow; those of its levels in the
    dense core follow each other there, from ``core_offset``.
    """

    members: tuple[Member, ...]
    n_levels: int
    k: int
    first: Codes
    core_levels: NDArray[np.intp]
    core_offset: int

    @cached_property
    def columns(self) -> slice | NDArray[np.intp]:
        """Its columns in the remainder, level after level; a slice where they follow each other."""
        if len(self.core_levels) == self.n_levels:
            start = int(self.first[0])
            return slice(start, start + self.n_levels * self.k)
        return (self.first[:, None] + np.arange(self.k)).reshape(-1).astype(np.intp)


@dataclass(frozen=True, eq=False)
class CrossProducts:
    """The blocks of A and what is needed to read them.

    Attributes
    ----------
    chain, rest : tuples of ChainFactor, RestFactor
        The factors in elimination order.
    remainder : DenseRemainder or SparseRemainder
        Cross-products of ``[Z_rest X y]``.
    layout : Layout
        Where the columns of the rest factors stand in it.
    n, p : int
        Rows, fixed effects.
    sum_log_weights : float
        Of the weights in the engine's scale.
    basis : Basis
        The way back to the user's columns.
    term_columns : tuple of int
        Number of columns k of each term, in the user's order.
    provisional : Provisional, optional
        The columns ``[X y]`` less provisional random effects, where A's own products of them would
        lose digits; see `provisional`.
    known_variance : float, optional
        The residual variance, where it is not a parameter.
    """

    chain: tuple[ChainFactor, ...]
    rest: tuple[RestFactor, ...]
    remainder: DenseRemainder | SparseRemainder
    layout: Layout
    n: int
    p: int
    sum_log_weights: float
    basis: Basis
    term_columns: tuple[int, ...]
    provisional: Provisional[CrossProducts] | None = None
    known_variance: float | None = None

    @property
    def factors(self) -> tuple[ChainFactor | RestFactor, ...]:
        """All factors in elimination order."""
        return (*self.chain, *self.rest)

    @property
    def r(self) -> int:
        """Random effects in the remainder."""
        return self.layout.r

    @property
    def q(self) -> int:
        """Total number of random effects."""
        return sum(f.n_levels * f.k for f in self.factors)

    def by_term(self, blocks: Sequence[Matrix]) -> list[Matrix]:
        """One array (l, k) for each term, in the user's order, from one for each factor."""
        out: list[Matrix] = [np.empty(0)] * len(self.term_columns)
        for factor, own in zip(self.factors, blocks, strict=True):
            for member in factor.members:
                out[member.term] = np.ascontiguousarray(own[:, member.columns])
        return out

    def structure(self, names: Sequence[str]) -> tuple[str, ...]:
        """How the random effects are eliminated, in words; one name per term."""

        def of(factors: Sequence[ChainFactor | RestFactor]) -> str:
            return ", ".join(names[f.members[0].term] for f in factors)

        lines = [f"level by level: {of([f])}, {f.n_levels:,} levels" for f in self.chain]
        core = [f for f in self.rest if len(f.core_levels)]
        plan = self.layout.fronts
        if plan is not None:
            sparse = [f for f in self.rest if len(f.core_levels) < f.n_levels]
            lines.append(
                f"sparse: {of(sparse)}, {plan.columns:,} columns in {len(plan.ptr) - 1:,} fronts"
            )
        if core:
            lines.append(f"dense: {of(core)}, {self.r - self.layout.core:,} columns")
        return tuple(lines)

    def multiply(self, blocks: Sequence[Matrix], border: Matrix) -> tuple[list[Matrix], Matrix]:
        """``A v`` for v given per factor, arrays (l, k, m), and on ``[X y]``, array (p + 1, m)."""
        v_remainder = self.stack_remainder(blocks[len(self.chain) :], border)
        out_remainder = self.remainder.multiply(v_remainder)
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
        out += self.split_remainder(out_remainder)
        return out, out_remainder[self.r :]

    @property
    def diagonals(self) -> list[Matrix]:
        """Products of the columns of random effects with themselves, (l, k) for each factor."""
        rest = self.remainder.diagonal
        return [
            *(np.einsum("lkk->lk", factor.diag) for factor in self.chain),
            *(rest[factor.columns].reshape(factor.n_levels, factor.k) for factor in self.rest),
        ]

    def with_response(self, products: Sequence[Matrix], border: Matrix) -> CrossProducts:
        """The same with another y: its products with each factor, (l, k), and with ``[X y]``."""
        n_chain = len(self.chain)
        rest = [block[:, :, None] for block in products[n_chain:]]
        column = self.stack_remainder(rest, border[:, None])[:, 0]
        return replace(
            self,
            chain=tuple(
                factor.with_response(own) for factor, own in zip(self.chain, products, strict=False)
            ),
            remainder=self.remainder.with_response(column),
        )

    def with_border(self, B: Matrix, added: Matrix) -> CrossProducts:
        """The same with ``[X y] B`` for ``[X y]``, and something added to its own products."""
        provisional = self.provisional
        if provisional is not None:
            provisional = replace(provisional, border=provisional.border.combined(B, added))
        return replace(
            self,
            chain=tuple(factor.with_border(B) for factor in self.chain),
            remainder=self.remainder.with_border(B, added),
            provisional=provisional,
        )

    def without_border(self) -> CrossProducts:
        """The random effects alone: columns of zeros in place of ``[X y]``, orthogonal to all."""
        if self.provisional is not None:
            return self.provisional.random
        size = self.p + 1
        return self.with_border(np.zeros((size, size)), self.n * np.eye(size))

    def stack_remainder(self, blocks: Sequence[Matrix], border: Matrix) -> Matrix:
        """One row per column of the remainder: values of the rest factors, then of the border."""
        out = np.empty((self.r + len(border), border.shape[1]))
        for f, block in zip(self.rest, blocks, strict=True):
            out[f.columns] = block.reshape(f.n_levels * f.k, border.shape[1])
        out[self.r :] = border
        return out

    def split_remainder(self, values: Matrix) -> list[Matrix]:
        """The rest factors' part of such rows: arrays (l, k, m)."""
        return [values[f.columns].reshape(f.n_levels, f.k, values.shape[1]) for f in self.rest]
