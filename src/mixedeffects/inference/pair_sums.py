"""Sums over pairs of levels of products of entries of ``H = Z'V0^-1 Z``, without forming H.

With ``V0 = V / sigma^2`` and ``H_ij`` the block of H between level i of factor f and level j of
factor g,

    F_fg[a, b, c, d] = sum_ij H_ij[a, c] H_ij[b, d],

from which every ``tr(V0^-1 Z_f (I (x) E) Z_f' V0^-1 Z_g (I (x) D) Z_g')`` follows. The factor with
the most random effects (1) is eliminated level by level, and what is left (2) is dense within each
connected component. With ``D_i`` and ``C_i`` the blocks of ``Z1'V1^-1 Z1`` and ``Z1'V1^-1 Z2``,
``N = Z2'V1^-1 Z2``, ``V1`` the part of V0 without 2, and ``P = (Sigma2^-1 + N)^-1`` (by the
relative covariance factors, so that a singular Sigma2 needs no inverse),

    H_11 = D - C P C',    H_12 = C (I - P N),    H_22 = N - N P N,

and the sums over pairs of levels of factor 1 become traces of matrices of the size of component 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from mixedeffects.engine.crossproducts import ChainFactor, CrossProducts
from mixedeffects.engine.memory import entries_that_fit
from mixedeffects.engine.remainder import DenseRemainder
from mixedeffects.errors import ModelError

__all__ = ["pair_sums"]

Matrix = NDArray[np.float64]
Index = NDArray[np.intp]

#: Entries of a batch of components that are worked on together.
_BATCH = 2_000_000


@dataclass(frozen=True, eq=False)
class _Entries:
    """Entries of a sparse matrix on the columns 2, sorted by component."""

    rows: Index
    columns: Index
    values: Matrix
    component: Index

    @classmethod
    def of(cls, matrix: Any, components: Index) -> _Entries:
        coo = scipy.sparse.coo_array(matrix)
        rows, columns = (np.asarray(where, dtype=np.intp) for where in coo.coords)
        order = np.argsort(components[rows], kind="stable")
        rows, columns = rows[order], columns[order]
        return cls(rows, columns, coo.data[order], components[rows])


@dataclass(frozen=True, eq=False)
class _Batch:
    """Components padded to one size; the last row and column of each are always zero."""

    members: slice
    count: int
    size: int
    component: Index
    position: Index

    def select(self, entries: _Entries) -> tuple[Index, Index, Index, Matrix]:
        start, stop = np.searchsorted(entries.component, [self.members.start, self.members.stop])
        rows, columns = entries.rows[start:stop], entries.columns[start:stop]
        batch = entries.component[start:stop] - self.members.start
        return batch, self.position[rows], self.position[columns], entries.values[start:stop]

    def dense(self, entries: _Entries) -> Matrix:
        out = np.zeros((self.count, self.size, self.size))
        batch, rows, columns, values = self.select(entries)
        out[batch, rows, columns] = values
        return out

    def sparse(self, entries: _Entries) -> scipy.sparse.csr_array:
        """Block-diagonal over the components of the batch."""
        batch, rows, columns, values = self.select(entries)
        shift, n = batch * self.size, self.count * self.size
        return scipy.sparse.csr_array((values, (shift + rows, shift + columns)), shape=(n, n))

    def product(self, sparse: scipy.sparse.csr_array, dense: Matrix) -> Matrix:
        return np.asarray(sparse @ dense.reshape(-1, self.size)).reshape(dense.shape)

    def levels(self, columns: Index) -> Index:
        """Positions of a factor's columns, (count, most levels, k), padded with the zero column."""
        first = columns[:, 0]
        inside = np.flatnonzero(
            (self.component[first] >= self.members.start)
            & (self.component[first] < self.members.stop)
        )
        batch = self.component[first[inside]] - self.members.start
        order = np.argsort(batch, kind="stable")
        inside, batch = inside[order], batch[order]
        counts = np.bincount(batch, minlength=self.count)
        starts = np.cumsum(counts) - counts
        out = np.full((self.count, counts.max(initial=0), columns.shape[1]), self.size - 1)
        out[batch, np.arange(len(batch)) - starts[batch]] = self.position[columns[inside]]
        return out


def _panel_entries(
    A: CrossProducts, e: int, offsets: Sequence[int]
) -> tuple[Index, Index, NDArray[np.bool_]]:
    """Level and column in 2 of each column of the panels of chain factor e, and which are in 2."""
    factor = A.chain[e]
    widths = factor.head + np.diff(factor.ptr)
    level = np.repeat(np.arange(factor.n_levels), widths)
    starts = np.cumsum(widths) - widths
    at = np.arange(len(level)) - starts[level]
    column = np.empty(len(level), dtype=np.intp)
    for link in factor.links:
        k = A.chain[link.outer].k
        mine = (at >= link.at) & (at < link.at + k)
        column[mine] = (
            offsets[link.outer] + link.parent[level[mine]].astype(np.intp) * k + at[mine] - link.at
        )
    pattern = at >= factor.head
    column[pattern] = offsets[len(A.chain)] + factor.ind.astype(np.intp)
    inside = column < offsets[len(A.chain)] + A.r
    return level, column, inside


def _offsets(A: CrossProducts) -> list[int]:
    """First column in 2 of each chain factor (none for the first), then of the rest factors."""
    sizes = [0, *(f.n_levels * f.k for f in A.chain[1:])]
    return [0, *np.cumsum(sizes).tolist()]


def _outer_products(A: CrossProducts, offsets: Sequence[int]) -> scipy.sparse.csr_array:
    """``Z2'W Z2``."""
    q = offsets[len(A.chain)] + A.r
    rows, columns, values = [], [], []
    for e, factor in enumerate(A.chain):
        if e == 0:
            continue
        own = offsets[e] + np.arange(factor.n_levels * factor.k).reshape(-1, factor.k)
        rows.append(np.repeat(own, factor.k, axis=1).ravel())
        columns.append(np.tile(own, (1, factor.k)).ravel())
        values.append(factor.diag.ravel())
        level, column, inside = _panel_entries(A, e, offsets)
        panel = factor.panel.reshape(-1, factor.k)[inside]
        r, c = own[level[inside]].ravel(), np.repeat(column[inside], factor.k)
        rows += [r, c]
        columns += [c, r]
        values += [panel.ravel(), panel.ravel()]
    if A.r:
        remainder = A.remainder
        if isinstance(remainder, DenseRemainder):
            rest = scipy.sparse.coo_array(remainder.matrix[: A.r, : A.r])
        else:
            rest = scipy.sparse.coo_array(remainder.random)
        rows.append(offsets[len(A.chain)] + rest.coords[0].astype(np.intp))
        columns.append(offsets[len(A.chain)] + rest.coords[1].astype(np.intp))
        values.append(rest.data)
    entries = (np.concatenate(rows), np.concatenate(columns))
    return scipy.sparse.csr_array((np.concatenate(values), entries), shape=(q, q))


def _level_blocks(factor: ChainFactor, T: Matrix) -> tuple[Matrix, Matrix]:
    """``(I + A_i Sigma)^-1`` and ``B_i = T (I + T'A_i T)^-1 T'`` of each level of factor 1.

    ``D_i = (I + A_i Sigma)^-1 A_i``; its other form ``A_i - A_i B_i A_i`` would lose digits where
    the random effects explain most.
    """
    inner = np.eye(factor.k) + T.T @ factor.diag @ T
    B = T @ np.linalg.solve(inner, np.broadcast_to(T.T, factor.diag.shape))
    return np.asarray(np.linalg.inv(np.eye(factor.k) + factor.diag @ (T @ T.T))), np.asarray(B)


def _batches(components: Index, n_components: int, largest: int) -> Iterator[_Batch]:
    """Components numbered by increasing size, a batch at a time."""
    sizes = np.bincount(components, minlength=n_components)
    order = np.argsort(components, kind="stable")
    starts = np.cumsum(sizes) - sizes
    position = np.empty(len(components), dtype=np.intp)
    position[order] = np.arange(len(components)) - starts[components[order]]
    start = 0
    while start < n_components:
        stop = start + 1
        while stop < n_components and (stop + 1 - start) * (sizes[stop] + 1) ** 2 <= largest:
            stop += 1
        yield _Batch(
            slice(start, stop), stop - start, int(sizes[stop - 1]) + 1, components, position
        )
        start = stop


def pair_sums(
    A: CrossProducts, T: Sequence[Matrix], largest: int | None = None
) -> dict[tuple[int, int], Matrix]:
    """The sums F_fg of all pairs of factors.

    Parameters
    ----------
    A : CrossProducts
        Blocks of the model.
    T : sequence of ndarray (k, k)
        Relative covariance factor of each grouping factor, as `Factorisation.T`.
    largest : int, optional
        Rows that dense matrices may have; by default what fits into memory.

    Returns
    -------
    dict of (int, int) to ndarray, shape (k_f, k_f, k_g, k_g)
        For f <= g in the engine's order of factors; without units, in the engine's basis.

    Raises
    ------
    ModelError
        If the random effects outside the largest factor are connected in so large a component
        that its dense matrices would not fit into memory.
    """
    first, k = A.chain[0], A.chain[0].k
    shrink, B = _level_blocks(first, T[0])
    D = shrink @ first.diag
    D = 0.5 * (D + D.transpose(0, 2, 1))
    sums = {(0, 0): np.einsum("iac,ibd->abcd", D, D)}
    offsets = _offsets(A)
    q = offsets[len(A.chain)] + A.r
    if q == 0:
        return sums

    # C_a: row a of every level's block C_i, sparse (l x q).
    level, column, inside = _panel_entries(A, 0, offsets)
    level, column = level[inside], column[inside]
    panel = first.panel.reshape(-1, k)[inside]
    shape = (first.n_levels, q)

    def by_level(values: Matrix) -> list[scipy.sparse.csr_array]:
        return [scipy.sparse.csr_array((values[:, a], (level, column)), shape) for a in range(k)]

    raw = by_level(panel)
    BA = by_level(np.einsum("jab,jb->ja", B[level], panel))
    C = by_level(np.einsum("jab,jb->ja", shrink[level], panel))
    N = _outer_products(A, offsets)
    for a in range(k):
        N = N - raw[a].T @ BA[a]

    links = scipy.sparse.csr_array((np.ones(len(level)), (level, column)), shape)
    graph: Any = scipy.sparse.block_array([[None, links], [links.T, None]], format="csr")
    _, found = connected_components(graph, directed=False)
    _, components, sizes = np.unique(found[shape[0] :], return_inverse=True, return_counts=True)
    rank = np.empty(len(sizes), dtype=np.intp)
    rank[np.argsort(sizes, kind="stable")] = np.arange(len(sizes))
    components = rank[components]
    _check_size(int(sizes.max()), k, largest)

    factor_columns = [
        offsets[e] + np.arange(f.n_levels * f.k).reshape(-1, f.k)
        for e, f in enumerate(A.chain)
        if e > 0
    ]
    factor_columns += [
        offsets[len(A.chain)] + f.first[:, None].astype(np.intp) + np.arange(f.k) for f in A.rest
    ]
    Lambda = _block_factor(factor_columns, T[1:], q)
    scaled = Lambda.T @ N @ Lambda
    N_entries = _Entries.of(N, components)
    scaled_entries = _Entries.of(scaled, components)
    Lambda_entries = _Entries.of(Lambda, components)
    covariance_entries = _Entries.of(Lambda @ Lambda.T, components)
    grams = {(a, b): _Entries.of(C[a].T @ C[b], components) for a in range(k) for b in range(a, k)}
    weighted = {
        (a, c, b, d): _Entries.of(
            C[b].T @ (scipy.sparse.diags_array(D[:, a, c]) @ C[d]), components
        )
        for a in range(k)
        for c in range(a, k)
        for b in range(k)
        for d in range(b, k)
    }
    n_factors = len(A.factors)
    widths = [f.k for f in A.factors]
    for f in range(n_factors):
        for g in range(max(f, 1), n_factors):
            sums[f, g] = np.zeros((widths[f], widths[f], widths[g], widths[g]))

    for batch in _batches(components, len(sizes), _BATCH):
        L = batch.sparse(Lambda_entries)
        inner = batch.dense(scaled_entries)
        diagonal = np.arange(batch.size)
        inner[:, diagonal, diagonal] += 1.0
        K: Matrix = np.asarray(np.linalg.inv(inner))
        del inner
        P = batch.product(L, np.ascontiguousarray(batch.product(L, K).transpose(0, 2, 1)))
        del K
        _add_first_pairs(sums[0, 0], batch, P, grams, weighted)
        # U = I - P N = (I + Sigma2 N)^-1, which needs no difference.
        covariance = batch.sparse(covariance_entries)
        U = batch.product(covariance, batch.dense(N_entries))
        U[:, diagonal, diagonal] += 1.0
        U = np.asarray(np.linalg.inv(U))
        H = batch.product(batch.sparse(N_entries), U)
        positions = [batch.levels(columns) for columns in factor_columns]
        for (a, b), entries in grams.items():
            Y = batch.product(batch.sparse(entries), U)
            for g, where in enumerate(positions, start=1):
                for c in range(widths[g]):
                    for d in range(widths[g]):
                        value = np.sum(_columns(U, where[:, :, c]) * _columns(Y, where[:, :, d]))
                        sums[0, g][a, b, c, d] += value
                        if a != b:
                            sums[0, g][b, a, d, c] += value
        for f, rows in enumerate(positions, start=1):
            for g, columns in enumerate(positions, start=1):
                if f <= g:
                    sums[f, g] += _block_sums(H, rows, columns)
    return sums


def _check_size(size: int, k: int, largest: int | None) -> None:
    copies = 7 + k * k
    if (largest is not None and size > largest) or copies * float(
        size
    ) ** 2 > 3.0 * entries_that_fit():
        raise ModelError(
            f"Kenward-Roger's adjustment needs dense matrices of {size:,} rows for the random "
            "effects outside the largest grouping factor, about "
            f"{8e-9 * copies * float(size) ** 2:.0f} GB in all, more than there is room for. Use "
            'ddf="satterthwaite" or a cluster-robust covariance matrix.'
        )


def _block_factor(columns: Sequence[Index], T: Sequence[Matrix], q: int) -> scipy.sparse.csr_array:
    """Lambda of the columns 2: T on the diagonal block of every level."""
    rows, across, values = [], [], []
    for own, factor in zip(columns, T, strict=True):
        k = own.shape[1]
        rows.append(np.repeat(own, k, axis=1).ravel())
        across.append(np.tile(own, (1, k)).ravel())
        values.append(np.tile(factor.ravel(), len(own)))
    where = (np.concatenate(rows), np.concatenate(across))
    return scipy.sparse.csr_array((np.concatenate(values), where), shape=(q, q))


def _columns(matrix: Matrix, where: Index) -> Matrix:
    """Columns of each matrix of a batch, (count, size, levels)."""
    return np.take_along_axis(matrix, where[:, None, :], axis=2)


def _add_first_pairs(
    total: Matrix,
    batch: _Batch,
    P: Matrix,
    grams: dict[tuple[int, int], _Entries],
    weighted: dict[tuple[int, int, int, int], _Entries],
) -> None:
    """Add what is not ``sum_i D_i D_i`` to the sums over pairs of levels of factor 1."""
    for (a, c, b, d), entries in weighted.items():
        # sum_i D_i[a, c] (C_i P C_i')[b, d], symmetric in (a, c) and in (b, d)
        at, rows, columns, values = batch.select(entries)
        value = float(values @ P[at, rows, columns])
        for a_, c_ in {(a, c), (c, a)}:
            for b_, d_ in {(b, d), (d, b)}:
                total[a_, b_, c_, d_] -= value
                total[b_, a_, d_, c_] -= value
    products: dict[tuple[int, int], Matrix] = {}
    for (a, b), entries in grams.items():
        gram = batch.sparse(entries)
        # P R, as the transpose of R'P; P is symmetric.
        products[a, b] = batch.product(scipy.sparse.csr_array(gram.T), P).transpose(0, 2, 1)
        if a != b:
            products[b, a] = batch.product(gram, P).transpose(0, 2, 1)
    for (c, d), left in products.items():
        for (b, a), right in products.items():
            total[a, b, c, d] += np.sum(left * right.transpose(0, 2, 1))


def _block_sums(H: Matrix, rows: Index, columns: Index) -> Matrix:
    """F between two factors of 2, from dense H."""
    k_f, k_g = rows.shape[2], columns.shape[2]
    batch = np.arange(len(H))[:, None, None]
    blocks = {
        (a, c): H[batch, rows[:, :, None, a], columns[:, None, :, c]]
        for a in range(k_f)
        for c in range(k_g)
    }
    out = np.empty((k_f, k_f, k_g, k_g))
    for (a, c), left in blocks.items():
        for (b, d), right in blocks.items():
            out[a, b, c, d] = np.vdot(left, right)
    return out
