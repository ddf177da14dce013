"""R of rows whose errors are correlated within groups, or differ in variance.

    R = sigma^2 W^-1/2 D C D W^-1/2

from the engine's model of it: correlations C within residual groups, relative standard deviations
D, prior weights W. The engine has rows sorted by group and position; here they are in the order of
the frame. Where each error depends on the one before it alone, entries are correlations over the
distance between two rows and no array of a whole group is made; the other structures have one
matrix for each list of positions that occurs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects.base.arrays import ReadOnlyArrays
from mixedeffects.base.caching import cached_property
from mixedeffects.covariance.groups import Factor, Grouping
from mixedeffects.covariance.residual_matrix import ResidualMatrix
from mixedeffects.covariance.sizes import refuse_beyond_memory
from mixedeffects.engine.residual_families import Block, Chain
from mixedeffects.engine.residual_model import ResidualModel
from mixedeffects.engine.residual_whitening import Whitening
from mixedeffects.frame.residual_term import ResidualTerm, VarianceTerm

__all__ = ["StructuredResidual"]

Matrix = NDArray[np.float64]
Positions = NDArray[np.intp]

#: Entries made at once beside a result.
_BATCH = 2_000_000
#: Rows of a group up to which all eigenvalues of groups of one size are found together.
_SMALL = 64


@dataclass(frozen=True, eq=False)
class StructuredResidual(ReadOnlyArrays, ResidualMatrix):
    """R with correlations within groups, or variances that differ by more than prior weights.

    Attributes
    ----------
    model : ResidualModel
        S as a function of its parameters, with the engine's prior weights.
    phi : ndarray, shape (number of parameters,)
        The parameters.
    sigma : float
        Standard deviation at unit prior weight where D is one.
    weight_scale : float
        What the engine has divided the prior weights by.
    term : ResidualTerm or None
        The residual groups and positions; None where only variances differ.
    variance : VarianceTerm or None
        Names of the columns that the variances follow.
    """

    model: ResidualModel
    phi: Matrix
    sigma: float
    weight_scale: float = 1.0
    term: ResidualTerm | None = None
    variance: VarianceTerm | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Without what follows from it: U alone is as large as all of R where groups are small.
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.model.design.n

    @property
    def groupings(self) -> tuple[Grouping, ...]:
        """The residual groups; none where errors are independent."""
        return () if self.term is None or not self.model.families else (self.term,)

    @property
    def factor(self) -> Factor | None:
        """The residual groups, named also where errors are independent within them."""
        return self.term

    @cached_property
    def whitening(self) -> Whitening:
        """U, with ``U S U' = I`` in the order of the series."""
        return self.model.at(self.phi)

    @property
    def tau2(self) -> float:
        """The variance in whose units the engine has S."""
        return self.sigma**2 / self.weight_scale

    # --- entries ---------------------------------------------------------------------------

    @cached_property
    def _place(self) -> Positions:
        """Where a row of the frame is in the series."""
        out = np.empty(self.n, dtype=np.intp)
        out[self.model.order] = np.arange(self.n)
        return out

    @cached_property
    def _group(self) -> Positions:
        """Rows with the same number are correlated; in the order of the series."""
        model = self.model
        return np.cumsum(model.is_first) if model.families else np.arange(self.n)

    @cached_property
    def _sd(self) -> Matrix:
        """Standard deviations before those that belong to C, in the order of the series."""
        whitening = self.whitening
        return np.asarray(np.sqrt(self.tau2) * np.exp(-whitening.log_factor) / whitening.scale)

    @cached_property
    def _patterns(self) -> tuple[Matrix, Positions, Positions]:
        """All matrices C one after the other; where each row's begins there, and its column."""
        model = self.model
        start, column = (np.empty(self.n, dtype=np.intp) for _ in range(2))
        matrices, at = [], 0
        for pattern in model.patterns:
            family = model.families[pattern.stratum]
            assert isinstance(family, Block)
            C = family.matrix(self.phi[model.places[pattern.stratum]], pattern.positions)
            m = len(C)
            column[pattern.rows] = np.arange(m)
            start[pattern.rows] = at + m * np.arange(m)
            matrices.append(C.ravel())
            at += m * m
        return np.concatenate(matrices), start, column

    @cached_property
    def between_times(self) -> list[Matrix] | None:
        """C of all common times by stratum, where each pair of neighbours has its correlation."""
        model = self.model
        if model.design.kind != "ante":
            return None
        T = model.design.n_times
        before, after = np.arange(T - 1.0), np.arange(1.0, T)
        out = []
        for family, at in zip(model.families, model.places, strict=True):
            assert isinstance(family, Chain)
            r, _ = family.neighbours(self.phi[at], before, after)
            table = np.eye(T)
            for t in range(T - 1):
                table[t, t + 1 :] = np.cumprod(r[t:])
            out.append(table)
        return out

    def _along(self, a: Positions, b: Positions) -> Matrix:
        """Correlations of rows a (s,) with later rows b of their series."""
        model = self.model
        t, stratum = model.positions[:, 0], model.stratum[a]
        out = np.empty(len(a))
        for s, (family, at) in enumerate(zip(model.families, model.places, strict=True)):
            own = slice(None) if len(model.families) == 1 else np.flatnonzero(stratum == s)
            first, second = t[a[own]], t[b[own]]
            if self.between_times is not None:
                i, j = np.rint(first).astype(np.intp), np.rint(second).astype(np.intp)
                out[own] = self.between_times[s][i, j]
            else:
                assert isinstance(family, Chain)
                out[own], _ = family.neighbours(self.phi[at], first, second)
        return out

    def _entries(self, a: Positions, b: Positions) -> Matrix:
        """R between rows a (s,) and b of the same groups, by their places in the series."""
        if self.model.is_chain:
            C = np.ones(len(a))
            apart = np.flatnonzero(a != b)
            if len(apart):
                i, j = a[apart], b[apart]
                C[apart] = self._along(np.minimum(i, j), np.maximum(i, j))
        else:
            matrices, start, column = self._patterns
            C = matrices[start[a] + column[b]]
        return np.asarray(C * self._sd[a] * self._sd[b])

    def diagonal(self) -> Matrix:
        """Variances, shape (n,), not to be written into."""
        return self._variances

    @cached_property
    def _variances(self) -> Matrix:
        return self._entries(self._place, self._place)

    def add_blocks(self, rows: Positions, out: Matrix) -> None:
        """Add ``R[rows, rows]`` to out (..., s, s), for distinct rows (..., s)."""
        place = self._place[rows]
        if place.ndim == 1:
            for own in self._by_group(place):
                # A strip at a time: the indices take more room than the entries.
                step = max(1, _BATCH // len(own))
                for start in range(0, len(own), step):
                    strip = own[start : start + step]
                    a, b = np.repeat(place[strip], len(own)), np.tile(place[own], len(strip))
                    values = self._entries(a, b).reshape(len(strip), len(own))
                    out[np.ix_(strip, own)] += values
            return
        a, b = np.broadcast_arrays(place[..., :, None], place[..., None, :])
        same = np.nonzero(self._group[a] == self._group[b])
        out[same] += self._entries(a[same], b[same])

    def _by_group(self, place: Positions) -> Iterator[Positions]:
        """Positions in ``place`` of the rows of each group that occurs there."""
        group = self._group[place]
        order = np.argsort(group, kind="stable")
        ends = np.flatnonzero(np.diff(group[order])) + 1
        yield from np.split(order, ends)

    def add_entries(self, i: Positions, j: Positions, out: Matrix) -> None:
        """Add ``R[i, j]`` to out, for rows that may occur several times."""
        a, b = self._place[i], self._place[j]
        same = np.nonzero(self._group[a][:, None] == self._group[b])
        out[same] += self._entries(a[same[0]], b[same[1]])

    def of_pairs(self, i: Positions, j: Positions) -> Matrix:
        """``R[i, j]`` for pairs of rows, i and j of shape (s,); zero between groups."""
        a, b = self._place[i], self._place[j]
        out = np.zeros(len(a))
        same = np.flatnonzero(self._group[a] == self._group[b])
        out[same] = self._entries(a[same], b[same])
        return out

    def sparse(self) -> scipy.sparse.csc_array:
        """All of R.

        Raises
        ------
        ModelError
            If it does not fit into memory.
        """
        model = self.model
        if not model.families:
            return scipy.sparse.csc_array(scipy.sparse.diags_array(self._variances))
        n_entries = float((model.sizes.astype(np.float64) ** 2).sum())
        refuse_beyond_memory(
            # Rows, columns and values of each entry, and the matrix that they become.
            60.0 * n_entries,
            "R as a sparse matrix",
            "R @ x, R.solve(x), R.diag() and R.block(level) answer without it.",
        )
        rows, columns, values = [], [], []
        for m in np.unique(model.sizes).tolist():
            starts = model.starts[model.sizes == m]
            own = starts[:, None] + np.arange(m)
            a = np.repeat(own, m, axis=1).ravel()
            b = np.tile(own, (1, m)).ravel()
            rows.append(model.order[a].astype(np.int32))
            columns.append(model.order[b].astype(np.int32))
            values.append(self._entries(a, b))
        entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
        out = scipy.sparse.csc_array(scipy.sparse.coo_array(entries, shape=(self.n, self.n)))
        out.eliminate_zeros()
        return out

    def floor(self) -> Matrix:
        """For each row the smallest eigenvalue of the block of R that it is in, shape (n,)."""
        return self._floor

    @cached_property
    def _floor(self) -> Matrix:
        # That of U'U at the other end, which loses no digits where S is nearly singular.
        model, U = self.model, self.whitening.U
        out = self._variances[model.order]
        for m in np.unique(model.sizes).tolist() if model.families else []:
            if m == 1:
                continue
            starts = model.starts[model.sizes == m]
            first, last = U.indptr[starts], U.indptr[starts + m]
            data = U.data[first[:, None] + np.arange(last[0] - first[0])]
            # Rows as bytes: NumPy's own way makes a field of every column.
            as_bytes = data.view(np.dtype((np.void, data.itemsize * data.shape[1]))).reshape(-1)
            _, chosen, which = np.unique(as_bytes, return_index=True, return_inverse=True)
            largest = _largest_eigenvalues(data[chosen], m, model.is_chain)
            out[starts[:, None] + np.arange(m)] = self.tau2 / largest[which][:, None]
        return out[self._place]

    # --- R, its inverse and its root -------------------------------------------------------

    def _sorted(self, x: Matrix) -> Matrix:
        return np.ascontiguousarray(x[self.model.order])

    def _unsorted(self, x: Matrix) -> Matrix:
        return np.asarray(x[self._place])

    def times(self, x: Matrix) -> Matrix:
        """``R x``."""
        inner = self.whitening.transposed_root(self._sorted(x))
        return self._unsorted(self.tau2 * self.whitening.root(inner))

    def divided_by(self, number: float) -> StructuredResidual:
        """``R / number``."""
        out = replace(self, sigma=self.sigma / float(np.sqrt(number)))
        out.__dict__["whitening"] = self.whitening
        return out

    def solve(self, x: Matrix) -> Matrix:
        """``R^-1 x``."""
        U = self.whitening.U
        return self._unsorted(np.asarray(U.T @ (U @ self._sorted(x))) / self.tau2)

    def logdet(self) -> float:
        """``log |R|``."""
        return float(self.n * np.log(self.tau2) + self.whitening.logdet)

    def root_times(self, x: Matrix) -> Matrix:
        """``sqrt(tau^2) U^-1 x``: errors one after another, if x is white."""
        return self._unsorted(np.sqrt(self.tau2) * self.whitening.root(self._sorted(x)))


def _largest_eigenvalues(data: Matrix, m: int, is_chain: bool) -> Matrix:
    """Largest eigenvalue of U'U for each row of data, the entries of U (m, m)."""
    out = np.empty(len(data))
    if is_chain and m > _SMALL:
        for g, own in enumerate(data.reshape(len(data), m, 2)):
            before, mine = own[1:, 0], own[:, 1]
            squares = mine**2
            squares[:-1] += before**2
            last = (m - 1, m - 1)
            out[g] = scipy.linalg.eigvalsh_tridiagonal(
                squares, mine[1:] * before, select="i", select_range=last
            )[0]
        return out
    i, j = np.tril_indices(m)
    if is_chain:
        i, j = np.repeat(np.arange(m), 2), np.arange(2 * m) // 2
        j[::2] = np.maximum(j[::2] - 1, 0)
    step = max(1, _BATCH // m**2)
    for start in range(0, len(data), step):
        own = data[start : start + step]
        U = np.zeros((len(own), m, m))
        if is_chain:
            # The first row has no row before it: its entry there is zero, beside its own.
            U[:, i[1:], j[1:]] = own[:, 1:]
        else:
            U[:, i, j] = own
        products = np.matmul(U.transpose(0, 2, 1), U)
        out[start : start + step] = np.linalg.eigvalsh(products)[:, -1]
    return out
