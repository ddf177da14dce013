"""From the rows of a design to its cross-products: where they stand, and their values.

Where they stand follows from which levels occur together and is found once (`Assembly`); the values
are filled in for any rows that have these levels, such as rows whitened by a covariance of the
residuals. A factor is *scattered* if such a row has several of its levels: then its columns are a
sparse matrix, and it belongs to the remainder.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects import _kernels
from mixedeffects.base.caching import cached_property
from mixedeffects.engine import fronts
from mixedeffects.engine.basis import Basis, cross, make_basis
from mixedeffects.engine.crossproducts import (
    ChainFactor,
    CrossProducts,
    EngineTerm,
    Link,
    Member,
    RestFactor,
)
from mixedeffects.engine.fronts import Layout, dense_layout, plan_layout, with_border
from mixedeffects.engine.memory import RemainderTooLargeError
from mixedeffects.engine.remainder import DenseRemainder, Places, SparseRemainder, find_places
from mixedeffects.engine.sparse_products import SparseProducts

__all__ = ["Assembly", "Blocks", "Factor", "make_crossproducts"]

Matrix = NDArray[np.float64]
Codes = NDArray[np.int32]
Offsets = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Factor:
    """Terms that share a grouping: which they are, and the level of each row."""

    members: tuple[Member, ...]
    codes: Codes
    n_levels: int
    k: int
    is_scattered: bool

    @property
    def size(self) -> int:
        """Number of random effects."""
        return self.n_levels * self.k

    def columns(self, z: Sequence[Matrix]) -> Matrix:
        """Columns of all its terms, (n, k)."""
        terms = [member.term for member in self.members]
        own = z[terms[0]] if len(terms) == 1 else np.hstack([z[t] for t in terms])
        return np.ascontiguousarray(own)


#: Under this name it is in fits stored before.
_Factor = Factor


@dataclass(frozen=True, eq=False)
class Blocks:
    """The blocks of A, as `CrossProducts` has them."""

    chain: tuple[ChainFactor, ...]
    rest: tuple[RestFactor, ...]
    remainder: DenseRemainder | SparseRemainder
    layout: Layout

    def crossproducts(
        self,
        n: int,
        p: int,
        sum_log_weights: float,
        basis: Basis,
        term_columns: tuple[int, ...],
        known_variance: float | None = None,
    ) -> CrossProducts:
        """A of these blocks; see `CrossProducts`."""
        return CrossProducts(
            self.chain,
            self.rest,
            self.remainder,
            self.layout,
            n,
            p,
            sum_log_weights,
            basis,
            term_columns,
            known_variance=known_variance,
        )


def _merge_terms(terms: Sequence[EngineTerm], scattered: Sequence[bool]) -> list[Factor]:
    """One factor per grouping, the largest first; terms on the same grouping share its blocks."""
    by_grouping: dict[int, list[int]] = {}
    for t, term in enumerate(terms):
        by_grouping.setdefault(term.grouping, []).append(t)
    factors = []
    for members in by_grouping.values():
        stops = np.cumsum([terms[t].z.shape[1] for t in members])
        slices = [
            slice(int(e) - terms[t].z.shape[1], int(e)) for t, e in zip(members, stops, strict=True)
        ]
        first = terms[members[0]]
        factors.append(
            Factor(
                tuple(Member(t, s) for t, s in zip(members, slices, strict=True)),
                first.codes,
                first.n_levels,
                int(stops[-1]),
                scattered[members[0]],
            )
        )
    return sorted(factors, key=lambda f: -f.size)


def _split_chain(factors: Sequence[Factor]) -> tuple[list[Factor], list[Factor]]:
    """Chain and rest: the largest factor that is not scattered, and those it is nested in."""
    chain: list[Factor] = []
    rest: list[Factor] = []
    for factor in factors:
        if factor.is_scattered:
            rest.append(factor)
        elif not chain or len(
            _kernels.nesting_parents(chain[-1].codes, chain[-1].n_levels, factor.codes)
        ):
            chain.append(factor)
        else:
            rest.append(factor)
    return chain, rest


class Assembly:
    """Where the products of a design stand.

    Parameters
    ----------
    terms : sequence of EngineTerm
        Random-effects terms in the user's order; of their columns only the number counts.
    n_border : int
        Columns of ``[X y]``.
    scattered : sequence of bool, optional
        For each term whether rows have several of its levels.
    together : tuple (codes, n_levels), optional
        Groups such that the levels in one row occur in one of them; needed where every factor is
        scattered.
    repeated : bool, optional
        Whether the blocks will be filled in many times: then more is found once.

    Raises
    ------
    RemainderTooLargeError
        If the blocks would not fit into memory.
    """

    def __init__(
        self,
        terms: Sequence[EngineTerm],
        n_border: int,
        scattered: Sequence[bool] | None = None,
        together: tuple[Codes, int] | None = None,
        repeated: bool = False,
    ) -> None:
        self.n_border, self._repeated = n_border, repeated
        self._places: Places | None = None
        factors = _merge_terms(terms, scattered or [False] * len(terms))
        self._chain, self._rest = _split_chain(factors)
        self._parents = [
            [_kernels.nesting_parents(f.codes, f.n_levels, o.codes) for o in self._chain[e + 1 :]]
            for e, f in enumerate(self._chain)
        ]
        self._grouped = [_kernels.rows_by_level(f.codes, f.n_levels) for f in self._chain]
        if self._chain:
            occurring = self._grouped[-1]
        elif together is not None:
            occurring = _kernels.rows_by_level(*together)
        else:
            occurring = (np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int32))
        self.layout = _plan(self._rest, occurring, n_border)
        self._find_patterns()

    def _find_patterns(self) -> None:
        codes, first = [f.codes for f in self._rest], list(self.layout.first)
        columns, r = [f.k for f in self._rest], self.layout.r
        self._patterns = [
            _kernels.remainder_pattern(start, order, codes, first, columns, r, self.n_border)
            for start, order in self._grouped
        ]
        self._links = [self._links_of(e) for e in range(len(self._chain))]

    def with_border(self, n_border: int) -> Assembly:
        """The same with another number of columns ``[X y]``."""
        if self._repeated and self.layout.fronts is not None:
            # Found here, it is shared.
            _ = self._sparse
        out = copy.copy(self)
        out.n_border, out._places = n_border, None
        out.layout = with_border(self.layout, n_border)
        out._find_patterns()
        return out

    @property
    def factors(self) -> tuple[Factor, ...]:
        """The factors in elimination order: those of the chain, then the rest."""
        return (*self._chain, *self._rest)

    @property
    def chain(self) -> tuple[Factor, ...]:
        """The factors whose levels are eliminated one by one."""
        return tuple(self._chain)

    @property
    def rest_factors(self) -> tuple[RestFactor, ...]:
        """The factors of the remainder with where they stand in it."""
        layout = self.layout
        return tuple(
            RestFactor(
                f.members,
                f.n_levels,
                f.k,
                layout.first[g],
                layout.core_levels[g],
                layout.core_offsets[g],
            )
            for g, f in enumerate(self._rest)
        )

    @property
    def rest(self) -> tuple[Factor, ...]:
        """The factors of the remainder."""
        return tuple(self._rest)

    @property
    def patterns(self) -> tuple[tuple[Offsets, Codes], ...]:
        """For each factor of the chain the columns of the remainder that its levels touch."""
        return tuple(self._patterns)

    @property
    def links(self) -> tuple[tuple[Link, ...], ...]:
        """For each factor of the chain where its levels lie in those further out."""
        return tuple(self._links)

    def _links_of(self, e: int) -> tuple[Link, ...]:
        links, at = [], 0
        for step, parent in enumerate(self._parents[e]):
            outer = e + 1 + step
            relative = _kernels.relative_positions(
                parent, *self._patterns[e], *self._patterns[outer]
            )
            links.append(Link(outer, parent, relative, at))
            at += self._chain[outer].k
        return tuple(links)

    def fill(
        self,
        z: Sequence[Matrix],
        border: Matrix,
        w: Matrix,
        sparse: Sequence[scipy.sparse.csr_array | None] = (),
        neighbours: Matrix | None = None,
    ) -> Blocks:
        """The blocks of rows.

        Parameters
        ----------
        z : sequence of ndarray (n, k)
            Columns of each term; with `sparse`, of a scattered one they are not looked at.
        border : ndarray, shape (n, p + 1)
            ``[X y]``.
        w : ndarray, shape (n,) or (0,)
            Weights; none where all are one, and with `sparse`.
        sparse : sequence of csr_array or None
            For each term that is scattered its columns, n x (l k), level after level; by default
            every row has one level of every factor.
        neighbours : ndarray, shape (n,), optional
            Instead of products of rows with themselves those of each row and the one before it, in
            both orders, times these.
        """
        layout, r = self.layout, self.layout.r
        in_rows = [f for f in self._rest if f.is_scattered] if len(sparse) else []
        whole = [f for f in self._rest if f not in in_rows]
        columns = {id(f): f.columns(z) for f in (*self._chain, *whole)}
        at = {id(f): first for f, first in zip(self._rest, layout.first, strict=True)}
        scattered = self._scattered_columns(sparse) if in_rows else None
        chain = []
        for e, factor in enumerate(self._chain):
            own, k = columns[id(factor)], factor.k
            outer_z = [columns[id(f)] for f in self._chain[e + 1 :]]
            head = sum(each.shape[1] for each in outer_z)
            ptr, ind = self._patterns[e]
            make = np.empty if neighbours is None else np.zeros
            diag = make((factor.n_levels, k, k))
            panel = make(k * (head * factor.n_levels + len(ind)))
            start, order = self._grouped[e]
            add = (
                _kernels.assemble_levels
                if neighbours is None
                else _kernels.add_neighbours_to_levels
            )
            add(
                start,
                order,
                own,
                w if neighbours is None else neighbours,
                outer_z,
                [f.codes for f in whole],
                [at[id(f)] for f in whole],
                [columns[id(f)] for f in whole],
                border,
                r,
                ptr,
                ind,
                diag,
                panel,
            )
            if scattered is not None:
                _add_scattered(factor, own, scattered, head, ptr, ind, r + self.n_border, panel)
            chain.append(
                ChainFactor(
                    factor.members, factor.n_levels, k, diag, panel, ptr, ind, head, self._links[e]
                )
            )
        remainder: DenseRemainder | SparseRemainder
        if neighbours is not None:
            remainder = self._neighbours_in_remainder(columns, neighbours, border)
        elif scattered is None and layout.fronts is None:
            remainder = self._dense_remainder(columns, w, border)
        else:
            remainder = self._sparse_products(columns, scattered, w, border)
        return Blocks(tuple(chain), self.rest_factors, remainder, layout)

    def _neighbours_in_remainder(
        self, columns: dict[int, Matrix], c: Matrix, border: Matrix
    ) -> DenseRemainder | SparseRemainder:
        """``K + K'`` with ``K = sum c_i b_i b_(i-1)'`` over rows ``b = [Z_rest X y]``."""
        r, n_border = self.layout.r, self.n_border
        of_border = cross(border[1:], border[:-1], c[1:])
        of_border = of_border + of_border.T
        if self.layout.fronts is None:
            matrix = np.zeros((r + n_border, r + n_border), order="F")
            if self._rest:
                _kernels.add_neighbours_to_remainder(
                    [f.codes for f in self._rest],
                    list(self.layout.first),
                    [columns[id(f)] for f in self._rest],
                    c,
                    border,
                    r,
                    matrix,
                )
            matrix[r:, r:] = of_border
            _kernels.mirror_lower(matrix)
            return DenseRemainder(matrix)
        Z = self._whole_columns(columns)
        random = scipy.sparse.csc_array(Z[1:].T @ (Z[:-1] * c[1:, None]))
        random = scipy.sparse.csc_array(random + random.T)
        random.sort_indices()
        moved = np.zeros(border.shape)
        moved[1:] = c[1:, None] * border[:-1]
        moved[:-1] += c[1:, None] * border[1:]
        return SparseRemainder(self.layout.fronts, random, np.vstack([Z.T @ moved, of_border]))

    def _whole_columns(self, columns: dict[int, Matrix]) -> scipy.sparse.csr_array:
        """``Z_rest`` of the factors of which every row has one level, n x r."""
        whole = [g for g, f in enumerate(self._rest) if id(f) in columns]
        data = np.hstack([columns[id(self._rest[g])] for g in whole])
        places = np.hstack([self.positions(g)[self._rest[g].codes] for g in whole])
        n, width = data.shape
        starts = np.arange(0, n * width + 1, width)
        shape = (n, self.layout.r)
        return scipy.sparse.csr_array((data.ravel(), places.ravel(), starts), shape=shape)

    def _dense_remainder(
        self, columns: dict[int, Matrix], w: Matrix, border: Matrix
    ) -> DenseRemainder | SparseRemainder:
        r = self.layout.r
        size = r + self.n_border
        matrix = np.zeros((size, size), order="F")
        if self._rest:
            codes, z = [f.codes for f in self._rest], [columns[id(f)] for f in self._rest]
            offsets = list(self.layout.core_offsets)
            _kernels.assemble_remainder(codes, z, offsets, w, border, r, matrix)
        matrix[r:, r:] = cross(border, border, w if len(w) else None)
        if [f.k for f in self._rest] == [1]:
            # Most of it is zero, and stays untouched: that is memory that need not be there.
            matrix[:r, r:] = matrix[r:, :r].T
        else:
            _kernels.mirror_lower(matrix)
        return DenseRemainder(matrix)

    def positions(self, g: int) -> Codes:
        """Columns of the remainder of each level of a factor, (l, k)."""
        k = self._rest[g].k
        return np.asarray(self.layout.first[g][:, None] + np.arange(k, dtype=np.int32))

    def _scattered_columns(
        self, sparse: Sequence[scipy.sparse.csr_array | None]
    ) -> scipy.sparse.csr_array:
        """``Z_rest`` of the scattered factors, n x r, zero for the others."""
        parts = []
        for g, f in enumerate(self._rest):
            if not f.is_scattered:
                continue
            places = self.positions(g)
            for member in f.members:
                own = sparse[member.term]
                assert own is not None
                moved = places[:, member.columns].ravel()[own.indices]
                shape = (own.shape[0], self.layout.r)
                parts.append(scipy.sparse.csr_array((own.data, moved, own.indptr), shape=shape))
        total = parts[0]
        for part in parts[1:]:
            total = scipy.sparse.csr_array(total + part)
        return total

    def _sparse_products(
        self,
        columns: dict[int, Matrix],
        scattered: scipy.sparse.csr_array | None,
        w: Matrix,
        border: Matrix,
    ) -> DenseRemainder | SparseRemainder:
        """Cross-products of ``[Z_rest X y]`` by sparse products."""
        r, n_border, n = self.layout.r, self.n_border, len(border)
        weighted = border * w[:, None] if len(w) else border
        with_border = np.empty((r + n_border, n_border))
        with_border[r:] = border.T @ weighted
        for g, f in enumerate(self._rest):
            if id(f) not in columns:
                continue
            sums = np.zeros((f.n_levels, f.k, n_border))
            _kernels.group_sums(f.codes, columns[id(f)], np.ascontiguousarray(weighted), sums)
            with_border[self.positions(g)] = sums
        if scattered is None and self._repeated and self.layout.fronts is not None:
            return self._with_places(columns, w, with_border)
        Z = scipy.sparse.csr_array((n, r))
        has_whole = any(id(f) in columns for f in self._rest)
        if has_whole:
            Z = self._whole_columns(columns)
        WZ = scipy.sparse.csr_array(Z * w[:, None]) if len(w) else Z
        if scattered is not None:
            of_scattered = scattered.T @ border
            Z = WZ = scipy.sparse.csr_array(Z + scattered) if has_whole else scattered
            for g, f in enumerate(self._rest):
                if id(f) not in columns:
                    at = self.positions(g).ravel()
                    with_border[at] = of_scattered[at]
        return self.remainder_of(scipy.sparse.csc_array(Z.T @ WZ), with_border)

    def remainder_of(
        self, random: scipy.sparse.csc_array, with_border: Matrix
    ) -> DenseRemainder | SparseRemainder:
        """The remainder of its products.

        Parameters
        ----------
        random : csc_array, r x r
            ``Z_rest'W Z_rest``.
        with_border : ndarray, shape (r + p + 1, p + 1)
            Products of ``[Z_rest X y]`` with ``[X y]``.
        """
        random.sort_indices()
        if self.layout.fronts is not None:
            return SparseRemainder(self.layout.fronts, random, with_border)
        r, size = self.layout.r, len(with_border)
        matrix = np.empty((size, size), order="F")
        matrix[:r, :r] = random.toarray()
        matrix[:, r:] = with_border
        matrix[r:, :r] = with_border[:r].T
        return DenseRemainder(matrix)

    @cached_property
    def _sparse(self) -> SparseProducts:
        positions = [self.positions(g) for g in range(len(self._rest))]
        return SparseProducts([f.codes for f in self._rest], positions, self.layout.r)

    def _with_places(
        self, columns: dict[int, Matrix], w: Matrix, with_border: Matrix
    ) -> SparseRemainder:
        """The remainder by sums into entries whose places are found once."""
        assert self.layout.fronts is not None
        random = self._sparse.matrix([columns[id(f)] for f in self._rest], w)
        if self._places is None:
            self._places = find_places(random, self.layout.fronts, self.n_border)
        return SparseRemainder(self.layout.fronts, random, with_border, self._places)

    def __getstate__(self) -> dict[str, object]:
        # What is found once follows from the rest.
        return {**{k: v for k, v in self.__dict__.items() if k != "_sparse"}, "_places": None}


def _add_scattered(
    factor: Factor,
    z: Matrix,
    scattered: scipy.sparse.csr_array,
    head: int,
    ptr: Offsets,
    ind: Codes,
    width: int,
    panel: Matrix,
) -> None:
    """Add the products of a chain factor with scattered columns to its panel."""
    n, k = z.shape
    own = factor.codes[:, None].astype(np.int64) * k + np.arange(k)
    Z = scipy.sparse.csr_array(
        (z.ravel(), own.ravel(), np.arange(0, n * k + 1, k)), shape=(n, factor.n_levels * k)
    )
    products = scipy.sparse.coo_array(Z.T @ scattered)
    row, column = products.coords
    level, a = np.divmod(row.astype(np.int64), k)
    keys = np.repeat(np.arange(factor.n_levels), np.diff(ptr)) * width + ind
    at = np.searchsorted(keys, level * width + column)
    panel.reshape(-1)[k * (head * (level + 1) + at) + a] += products.data


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

    Raises
    ------
    RemainderTooLargeError
        If the blocks would not fit into memory.
    """
    n, p = X.shape
    basis, y_star, X_star, z_star, w_star = make_basis(y, X, [t.z for t in terms], weights)
    border = np.empty((n, p + 1))
    border[:, :p] = X_star
    border[:, p] = y_star
    assembly = Assembly(terms, p + 1)
    blocks = assembly.fill(z_star, border, np.empty(0) if w_star is None else w_star)
    return blocks.crossproducts(
        n,
        p,
        0.0 if w_star is None else float(np.log(w_star).sum()),
        basis,
        tuple(t.z.shape[1] for t in terms),
    )


def _plan(rest: Sequence[Factor], grouped: tuple[Offsets, Codes], n_border: int) -> Layout:
    """Layout of the remainder, from which of its levels occur together."""
    levels, columns = [f.n_levels for f in rest], [f.k for f in rest]
    if sum(n * k for n, k in zip(levels, columns, strict=True)) <= fronts.DENSE_BELOW:
        return dense_layout(levels, columns)
    nodes = dense_layout(levels, [1] * len(levels))
    ptr, ind = _kernels.remainder_pattern(
        *grouped, [f.codes for f in rest], list(nodes.first), [1] * len(rest), nodes.r, 0
    )
    try:
        return plan_layout(levels, columns, ptr, ind, n_border)
    except RemainderTooLargeError as error:
        terms = [member.term for g in error.members for member in rest[g].members]
        raise RemainderTooLargeError(terms, error.size, error.gigabytes) from None
