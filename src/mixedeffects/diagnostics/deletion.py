"""What rows that are left out take with them, at fixed V: exactly, and without any n x n matrix.

With ``S = V^-1 X``, ``r = V^-1 (y - X beta)`` and the block ``P_jj`` of ``V^-1`` that belongs to
the rows j, generalized least squares on the other rows has

    X'V(-j)^-1 X   = X'V^-1 X - S_j' P_jj^-1 S_j
    beta - beta(-j) = [X'V(-j)^-1 X]^-1 S_j' P_jj^-1 r_j

``P_jj^-1`` is the covariance matrix of the rows j given the others. Rows of different connected
blocks of V stay independent given the others, so a *unit* is what j has in one block. Within a unit
an effect is *inner* if all its rows are there, and *cut* if it also has rows elsewhere. Given the
other rows, inner effects have their prior covariance and the cut ones the covariance Phi:

    P_jj^-1 = V_in + Z_c Phi Z_c',     Phi = Q (I - Z_c' V_in^-1 Z_c Q)^-1

where Q, a piece of ``Lambda M_q^-1 Lambda' sigma^2``, is their covariance given all rows.
Where nothing is cut, ``S_j' P_jj^-1 S_j = X_j' V_jj^-1 X_j``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects.base.caching import cached_property
from mixedeffects.covariance.of_fit import R_of, V_of, V_of_rows
from mixedeffects.covariance.of_residuals import (
    blocks_of_rows,
    engine_matrix,
    precisions,
    residual_matrix_of,
    row_forms,
    rows_by_factor,
    solved_columns,
)
from mixedeffects.covariance.operator import CovarianceOperator
from mixedeffects.covariance.structured_residual import StructuredResidual
from mixedeffects.diagnostics.leverage import row_quadratic_forms
from mixedeffects.diagnostics.residuals import residuals
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.subset import terms_of_rows
from mixedeffects.frame.rank import independent_columns

if TYPE_CHECKING:
    from mixedeffects.frame.model_frame import RandomTerm

__all__ = ["Deleted", "delete_levels"]

Matrix = NDArray[np.float64]
Integers = NDArray[np.int64]

#: Memory for the arrays of one chunk of levels, in bytes.
_CHUNK = 1e8
#: Memory for the covariances of cut effects given all rows, in bytes.
_CUT = 1e9
#: Share of the information about some direction below which it is summed over the rows left
#: instead of subtracted: the difference would have lost its digits.
_LITTLE_LEFT = 1e-6
#: Rows of V that are solved again without a level, at most: they are a dense matrix.
_SOLVED_AGAIN = 3_000


@dataclass(frozen=True, eq=False)
class Deleted:
    """Fixed effects without each level of a factor, at the same V.

    Attributes
    ----------
    change : ndarray, shape (J, p)
        ``beta - beta(-j)``.
    variance : ndarray, shape (J, p)
        Diagonal of ``vcov(-j)``.
    cooks_distance, mdffits, covtrace, covratio : ndarray, shape (J,)
        See `LinearMixedModel.influence`.
    notes : dict of int to str
        Why a level has no values.
    """

    change: Matrix
    variance: Matrix
    cooks_distance: Matrix
    mdffits: Matrix
    covtrace: Matrix
    covratio: Matrix
    notes: dict[int, str]

    @classmethod
    def empty(cls, n_levels: int, p: int) -> Deleted:
        """NaN everywhere."""

        def missing(*shape: int) -> Matrix:
            return np.full(shape, np.nan)

        return cls(
            change=missing(n_levels, p),
            variance=missing(n_levels, p),
            cooks_distance=missing(n_levels),
            mdffits=missing(n_levels),
            covtrace=missing(n_levels),
            covratio=missing(n_levels),
            notes={},
        )


def delete_levels(fit: Fit, codes: Integers, n_levels: int) -> Deleted:
    """Leave out each level in turn.

    Parameters
    ----------
    fit : Fit
        The fitted model.
    codes : ndarray of int, shape (n,)
        Level of each row.
    n_levels : int
        Number of levels, each with a row.

    Returns
    -------
    Deleted
    """
    deletion = _Deletion(fit, codes, n_levels)
    if n_levels == fit.nobs:
        deletion.single_rows()
    else:
        deletion.levels(np.arange(n_levels))
    return deletion.out


class _Deletion:
    """The model's quantities in a basis in which ``X'V^-1X`` is the identity, and the results.

    There ``left = I - S_j' P_jj^-1 S_j`` is the share of the information that stays.
    """

    def __init__(self, fit: Fit, codes: Integers, n_levels: int) -> None:
        self.fit = fit
        self.codes = codes
        self.n_levels = n_levels
        self.V = V_of(fit)
        self.p = fit.frame.X.shape[1]
        self.residual = residuals(fit, "marginal")
        Q = fit.crossproducts.basis.fixed
        X = fit.frame.X @ Q
        S = self.V.solve(X)
        root = scipy.linalg.cholesky(X.T @ S, lower=True)
        whiten = scipy.linalg.solve_triangular(root, np.eye(self.p), lower=True).T
        #: From the basis to the user's coefficients.
        self.back: Matrix = Q @ whiten
        self.X: Matrix = X @ whiten
        #: ``V^-1 [X, y - X beta]``.
        self.F: Matrix = np.column_stack([S @ whiten, self.V.solve(self.residual)])
        self.out = Deleted.empty(n_levels, self.p)
        #: Whether R connects rows.
        self.by_blocks = bool(residual_matrix_of(fit).groupings)
        self.order = np.argsort(codes, kind="stable")
        sizes = np.bincount(codes, minlength=n_levels)
        self.starts = np.concatenate([[0], np.cumsum(sizes)])

    @cached_property
    def _is_whole(self) -> NDArray[np.bool_]:
        """Whether V connects the rows of a level with each other only."""
        level = np.empty(int(self.blocks.max()) + 1, dtype=np.int64)
        level[self.blocks] = self.codes
        out = np.ones(self.n_levels, dtype=np.bool_)
        strange = level[self.blocks] != self.codes
        out[self.codes[strange]] = out[level[self.blocks[strange]]] = False
        return out

    # --- results -------------------------------------------------------------------------

    def store(self, levels: Integers, left: Matrix, score: Matrix) -> None:
        """Diagnostics from ``left`` (l, p, p) and ``S_j' P_jj^-1 r_j`` (l, p)."""
        values, vectors = np.linalg.eigh(left)
        few = values[:, 0] < _LITTLE_LEFT
        for j in levels[few]:
            self.store_directly(int(j))
        keep = ~few
        self.store_eigen(levels[keep], values[keep], vectors[keep], score[keep])

    def store_eigen(self, levels: Integers, values: Matrix, vectors: Matrix, score: Matrix) -> None:
        out, p = self.out, self.p
        turned = np.einsum("jab,ja->jb", vectors, score)
        change = turned / values
        B = self.back @ vectors
        out.change[levels] = np.einsum("jab,jb->ja", B, change)
        out.variance[levels] = np.einsum("jab,jb->ja", B**2, 1.0 / values)
        out.cooks_distance[levels] = (change**2).sum(axis=1) / p
        out.mdffits[levels] = (change * turned).sum(axis=1) / p
        out.covtrace[levels] = ((1.0 - values) / values).sum(axis=1)
        out.covratio[levels] = np.exp(-np.log(values).sum(axis=1))

    def store_directly(self, j: int) -> None:
        """One level, from V of the rows that are left."""
        frame = self.fit.frame
        rest = np.flatnonzero(self.codes != j)
        rank = len(independent_columns(frame.X[rest]))
        if rank < self.p:
            self.out.notes[j] = (
                f"the fixed effects cannot all be estimated from the other rows (rank {rank} of "
                f"{self.p})"
            )
            return
        if self.by_blocks and self._n_connected(j) > _SOLVED_AGAIN:
            self.out.notes[j] = (
                "hardly anything of its variance is its own, and V connects too many rows to be "
                "solved without it"
            )
            return
        solved = self._solved_without(rest)
        both = self.X[rest].T @ solved
        values, vectors = np.linalg.eigh(both[:, : self.p])
        if values[0] <= 0.0:
            self.out.notes[j] = "hardly anything is left to estimate the fixed effects from"
            return
        # The score of the rows left and of those left out sum to zero.
        self.store_eigen(np.array([j]), values[None], vectors[None], -both[None, :, self.p])

    def _weights_of(self, rows: NDArray[np.intp]) -> Matrix | None:
        """Prior weights of some rows that give them their variances, where R is diagonal."""
        fit = self.fit
        if fit.residual is not None:
            return np.asarray(fit.sigma**2 / residual_matrix_of(fit).diagonal()[rows])
        return None if fit.frame.weights is None else fit.frame.weights[rows]

    def _solved_without(self, rest: NDArray[np.intp]) -> Matrix:
        """``V^-1 [X, y - X beta]`` of the rows that are left."""
        frame = self.fit.frame
        columns = np.column_stack([self.X, self.residual])
        if self.by_blocks:
            return self._solved_by_blocks(rest, columns)
        weights = self._weights_of(rest)
        V = V_of_rows(terms_of_rows(frame.terms, rest), self.fit.T, self.V.sigma, weights)
        return V.solve(columns[rest])

    def _n_connected(self, j: int) -> int:
        """Rows that are left of the blocks of V that a level is in."""
        own = self.codes == j
        return int(np.isin(self.blocks, np.unique(self.blocks[own])).sum() - own.sum())

    def _solved_by_blocks(self, rest: NDArray[np.intp], columns: Matrix) -> Matrix:
        """The same by blocks of V: those without a row left out are what they were."""
        left_out = np.ones(len(self.fit.frame.y), dtype=np.bool_)
        left_out[rest] = False
        cut = np.isin(self.blocks, np.unique(self.blocks[left_out]))
        kept = np.where(cut[:, None], 0.0, columns)
        out = np.asarray(self.V.solve(kept))
        again = np.flatnonzero(cut & ~left_out)
        if len(again):
            V = np.zeros((len(again), len(again)))
            residual_matrix_of(self.fit).add_blocks(again, V)
            for term, G in zip(self.fit.frame.terms, self.fit.G_blocks, strict=True):
                codes, z = term.codes[again], term.z[again]
                V += np.where(codes[:, None] == codes, z @ G @ z.T, 0.0)
            out[again] = scipy.linalg.cho_solve((np.linalg.cholesky(V), True), columns[again])
        return np.asarray(out[rest])

    # --- single rows ---------------------------------------------------------------------

    def single_rows(self) -> None:
        """All rows, one by one: ``P_jj`` is a number."""
        out, p = self.out, self.p
        share, diagonal = self._own_shares()
        S, r = self.F[:, :p], self.F[:, p]
        squares = np.einsum("ip,ip->i", S, S)
        with np.errstate(divide="ignore", invalid="ignore"):
            rest = 1.0 - squares / diagonal
        # A share that is nearly nothing is a difference without digits.
        safe = (share > _LITTLE_LEFT) & (rest > _LITTLE_LEFT)
        remaining = np.where(safe, diagonal - squares, 1.0)
        change = S * (r / remaining)[:, None]
        j = self.codes
        out.change[j] = change @ self.back.T
        out.variance[j] = (self.back**2).sum(axis=1) + (S @ self.back.T) ** 2 / remaining[:, None]
        lengths = (change**2).sum(axis=1) / p
        out.cooks_distance[j] = lengths
        out.mdffits[j] = lengths * rest
        out.covtrace[j] = squares / remaining
        out.covratio[j] = 1.0 / np.where(safe, rest, 1.0)
        if not safe.all():
            unsafe = np.sort(j[~safe])
            for column in (out.change, out.variance):
                column[unsafe] = np.nan
            for values in (out.cooks_distance, out.mdffits, out.covtrace, out.covratio):
                values[unsafe] = np.nan
            self.levels(unsafe)

    def _own_shares(self) -> tuple[Matrix, Matrix]:
        """Diagonal of ``V^-1`` as a share of that of ``R^-1``, and itself."""
        fit, R = self.fit, residual_matrix_of(self.fit)
        if isinstance(R, StructuredResidual):
            alone = precisions(R)
            diagonal = alone - row_forms(fit, "S^-1 Z", "S^-1 Z") / R.tau2
            return diagonal / alone, diagonal
        share = 1.0 - row_quadratic_forms(fit)
        return share, share / R.diagonal()

    # --- levels --------------------------------------------------------------------------

    @cached_property
    def blocks(self) -> Integers:
        """Connected block of each row."""
        return blocks_of_rows(self.fit)

    @cached_property
    def units(self) -> tuple[Integers, Integers]:
        """Unit of each row, and level of each unit; units are in the order of the levels."""
        n_blocks = int(self.blocks.max()) + 1
        keys, unit = np.unique(self.codes * n_blocks + self.blocks, return_inverse=True)
        return unit.reshape(-1).astype(np.int64), keys // n_blocks

    @cached_property
    def by_factor(self) -> tuple[list[Integers], list[Matrix], list[NDArray[np.bool_]]]:
        """Level and columns (engine's basis) of each row in each factor, and whether it is cut."""
        codes, z = rows_by_factor(self.fit)
        unit, _ = self.units
        wide = [c.astype(np.int64) for c in codes]
        cut = []
        for c in wide:
            n_levels = int(c.max()) + 1
            first = np.zeros(n_levels, dtype=np.int64)
            first[c] = unit
            differs = np.zeros(n_levels, dtype=bool)
            differs[c[first[c] != unit]] = True
            cut.append(differs)
        return wide, z, cut

    def rows_of(self, levels: Integers) -> NDArray[np.intp]:
        """Row positions of these levels, level by level."""
        sizes = self.starts[levels + 1] - self.starts[levels]
        ends = np.cumsum(sizes)
        within = np.arange(int(ends[-1])) - np.repeat(ends - sizes, sizes)
        rows: NDArray[np.intp] = self.order[np.repeat(self.starts[levels], sizes) + within]
        return rows

    def levels(self, levels: Integers) -> None:
        """Levels with any number of rows, in chunks that fit into memory."""
        step = max(1, int(_CHUNK / (8.0 * 3.0 * (self.p + 1) ** 2)))
        for start in range(0, len(levels), step):
            self._divide(levels[start : start + step])

    def _divide(self, levels: Integers) -> None:
        rows = self.rows_of(levels)
        if self.by_blocks:
            self._divide_by_blocks(levels, rows)
            return
        cut = _CutEffects.of(self, rows)
        if cut.bytes > _CUT and len(levels) > 1:
            half = len(levels) // 2
            self._divide(levels[:half])
            self._divide(levels[half:])
            return
        widths = np.zeros(self.n_levels)
        np.maximum.at(widths, self.units[1][cut.units], cut.width.astype(np.float64))
        # Phi takes the cube of its width; V of the other rows one more factorisation.
        directly = (3.0 * widths[levels] ** 3 > self._factorisation_work()) | (cut.bytes > _CUT)
        for j in levels[directly]:
            self.store_directly(int(j))
        if directly.all():
            return
        if directly.any():
            levels = levels[~directly]
            rows = self.rows_of(levels)
            cut = _CutEffects.of(self, rows)
        taken = self._taken(levels, rows, cut)
        p = self.p
        self.store(levels, np.eye(p) - taken[:, :p, :p], taken[:, :p, p])

    def _divide_by_blocks(self, levels: Integers, rows: NDArray[np.intp]) -> None:
        """Levels of whole blocks of V, whose ``P_jj^-1`` is V of their rows."""
        if self.n_levels == self.fit.nobs:
            for j in levels:
                self.store_directly(int(j))
            return
        whole = self._is_whole[levels]
        for j in levels[~whole]:
            self._store_connected(int(j))
        if not whole.all():
            levels = levels[whole]
            if not len(levels):
                return
            rows = self.rows_of(levels)
        p, place = self.p, np.zeros(self.n_levels, dtype=np.int64)
        place[levels] = np.arange(len(levels))
        at, F, product = place[self.codes[rows]], self.F[rows], self._V_times_F[rows]
        taken = np.empty((len(levels), p, p + 1))
        for a in range(p):
            for b in range(p + 1):
                taken[:, a, b] = np.bincount(at, F[:, a] * product[:, b], len(levels))
        self.store(levels, np.eye(p) - taken[:, :, :p], taken[:, :, p])

    def _store_connected(self, j: int) -> None:
        """A level whose rows V connects with others: ``P_jj`` is made, and divided by."""
        rows, p = self.rows_of(np.array([j])), self.p
        A, m = self.fit.crossproducts, len(rows)
        if 8.0 * m * (A.q + 2.0 * m) > _CUT:
            self.store_directly(j)
            return
        alone = self._inverse_R[rows][:, rows].toarray()
        left = alone.copy()
        if self._solved_Z is not None:
            taken, first, rhs = self._solved_Z[rows].T.toarray(), 0, []
            for factor in A.factors:
                size = factor.n_levels * factor.k
                own = taken[first : first + size].reshape(factor.n_levels, factor.k, m)
                rhs.append(np.ascontiguousarray(own))
                first += size
            halves, rest = self.fit.factorisation.forward(rhs, np.zeros((0, m)))
            for half in (*halves, rest):
                flat = half.reshape(-1, m)
                left -= flat.T @ flat
        try:
            root = np.linalg.cholesky(left)
        except np.linalg.LinAlgError:
            self.store_directly(j)
            return
        if (np.diag(root) ** 2 < _LITTLE_LEFT * np.diag(alone)).any():
            # A difference without digits.
            self.store_directly(j)
            return
        half = scipy.linalg.solve_triangular(root, self.F[rows], lower=True)
        gone = self._tau2 * half.T @ half
        self.store(np.array([j]), (np.eye(p) - gone[:p, :p])[None], gone[None, :p, p])

    @property
    def _tau2(self) -> float:
        R = residual_matrix_of(self.fit)
        assert isinstance(R, StructuredResidual)
        return R.tau2

    @cached_property
    def _inverse_R(self) -> scipy.sparse.csr_array:
        """``S^-1``, in the engine's units."""
        R = residual_matrix_of(self.fit)
        assert isinstance(R, StructuredResidual)
        return solved_columns(R, scipy.sparse.eye_array(len(self.fit.frame.y), format="csr"))

    @cached_property
    def _solved_Z(self) -> scipy.sparse.csr_array | None:
        """``S^-1 Z`` in the engine's units and basis; None without random effects."""
        if not self.fit.frame.terms:
            return None
        R = residual_matrix_of(self.fit)
        assert isinstance(R, StructuredResidual)
        return solved_columns(R, engine_matrix(self.fit)[0])

    @cached_property
    def _V_times_F(self) -> Matrix:
        return np.asarray(self.V @ self.F)

    def _factorisation_work(self) -> float:
        """Roughly the operations that V of the other rows takes, with its overhead."""
        A = self.fit.crossproducts
        return 1e7 + 1000.0 * self.fit.nobs + float(A.remainder.core_size) ** 3 / 3.0

    def _taken(self, levels: Integers, rows: NDArray[np.intp], cut: _CutEffects) -> Matrix:
        """``[S r]_j' P_jj^-1 [S r]_j`` of each level, shape (l, p + 1, p + 1)."""
        size = self.p + 1
        place = np.zeros(self.n_levels, dtype=np.int64)
        place[levels] = np.arange(len(levels))
        F = self.F[rows]
        terms, blocks, _ = self._inner(rows)
        index = pd.RangeIndex(len(rows))
        diagonal = R_of(self.fit).diag()[rows]
        product = CovarianceOperator(terms, blocks, diagonal, (), index, "V") @ F
        at = place[self.codes[rows]]
        out = np.empty((len(levels), size, size))
        for a in range(size):
            for b in range(a + 1):
                out[:, a, b] = np.bincount(at, F[:, a] * product[:, b], len(levels))
                out[:, b, a] = out[:, a, b]
        if len(cut.units):
            for units, extra in cut.corrections(self):
                np.add.at(out, place[self.units[1][units]], extra)
        return out

    def _inner(self, rows: NDArray[np.intp]) -> tuple[list[RandomTerm], list[Matrix], list[Matrix]]:
        """Terms of some rows with inner effects only, their covariances G, and factors T."""
        fit = self.fit
        codes, _, cut = self.by_factor
        unit = self.units[0][rows]
        terms: list[RandomTerm] = []
        blocks, factors = [], []
        for f, factor in enumerate(fit.crossproducts.factors):
            level = codes[f][rows]
            is_cut = cut[f][level]
            if is_cut.all():
                continue
            # A level of zeros for each unit: one for all units would connect them.
            n_levels = len(cut[f])
            number, labels = pd.factorize(np.where(is_cut, n_levels + unit, level))
            for member in factor.members:
                term = fit.frame.terms[member.term]
                z = np.where(is_cut[:, None], 0.0, term.z[rows])
                terms.append(
                    replace(
                        term,
                        codes=number.astype(np.int32),
                        levels=pd.Index(labels),
                        level_values=pd.Index(labels),
                        z=np.ascontiguousarray(z),
                    )
                )
                blocks.append(fit.G_blocks[member.term])
                factors.append(fit.T[member.term])
        return terms, blocks, factors

    def solve_inner(self, rows: NDArray[np.intp], B: Matrix) -> Matrix:
        """``V_in^-1 B`` for complete units."""
        terms, _, factors = self._inner(rows)
        if not terms:
            solved: Matrix = B / R_of(self.fit).diag()[rows][:, None]
            return solved
        return V_of_rows(terms, factors, self.V.sigma, self._weights_of(rows)).solve(B)


@dataclass(frozen=True, eq=False)
class _CutEffects:
    """The cut effects that some rows touch.

    Attributes
    ----------
    rows : ndarray, shape (m,)
        The rows: complete units.
    levels : list of ndarray
        For each factor, its cut levels that occur.
    first : list of ndarray
        For each of them, the number of its first effect; effects of one connected block follow
        each other.
    block_start : ndarray, one entry per effect
        Number of the first effect in its block.
    units : ndarray
        Units with cut effects.
    width : ndarray
        Number of cut effects of each.
    slot : list of ndarray, shape (m,)
        For each factor, where the columns of the row's level start among the cut effects of its
        unit; -1 if its level is inner.
    pairs : tuple of ndarray
        For each pair of a unit and a cut level: number of the unit among ``units``, first slot,
        first effect, and number of columns.
    """

    rows: NDArray[np.intp]
    levels: list[Integers]
    first: list[Integers]
    block_start: Integers
    units: Integers
    width: Integers
    slot: list[Integers]
    pairs: tuple[Integers, Integers, Integers, Integers]

    @classmethod
    def of(cls, deletion: _Deletion, rows: NDArray[np.intp]) -> _CutEffects:
        """The cut effects that these rows, complete units, touch."""
        codes, z, cut = deletion.by_factor
        unit = deletion.units[0][rows]
        blocks = deletion.blocks[rows]
        levels, block, sizes, pair_unit, pair_level = [], [], [], [], []
        inverses: list[tuple[NDArray[np.bool_], Integers]] = []
        for f in range(len(codes)):
            level = codes[f][rows]
            touched = cut[f][level]
            present, number = np.unique(level[touched], return_inverse=True)
            number = number.reshape(-1)
            of_level = np.zeros(len(present), dtype=np.int64)
            of_level[number] = blocks[touched]
            levels.append(present)
            block.append(of_level)
            sizes.append(np.full(len(present), z[f].shape[1], dtype=np.int64))
            keys, pair = np.unique(
                unit[touched] * max(len(present), 1) + number, return_inverse=True
            )
            own_unit, own_level = np.divmod(keys, max(len(present), 1))
            pair_unit.append(own_unit)
            pair_level.append(own_level)
            inverses.append((touched, pair.reshape(-1)))
        first, block_start = _number_effects(np.concatenate(block), np.concatenate(sizes))
        splits = np.cumsum([len(present) for present in levels])[:-1]
        first_by_factor = np.split(first, splits)
        return cls._with_slots(
            rows, levels, first_by_factor, block_start, pair_unit, pair_level, inverses, z
        )

    @classmethod
    def _with_slots(
        cls,
        rows: NDArray[np.intp],
        levels: list[Integers],
        first: list[Integers],
        block_start: Integers,
        pair_unit: list[Integers],
        pair_level: list[Integers],
        inverses: list[tuple[NDArray[np.bool_], Integers]],
        z: list[Matrix],
    ) -> _CutEffects:
        k = np.concatenate(
            [np.full(len(u), z[f].shape[1], dtype=np.int64) for f, u in enumerate(pair_unit)]
        )
        all_units = np.concatenate(pair_unit)
        effect = np.concatenate([first[f][pair_level[f]] for f in range(len(first))])
        units, at = np.unique(all_units, return_inverse=True)
        at = at.reshape(-1)
        order = np.argsort(at, kind="stable")
        ends = np.cumsum(k[order])
        width = np.bincount(at, k, len(units)).astype(np.int64)
        offset = np.empty(len(k), dtype=np.int64)
        offset[order] = ends - k[order] - np.repeat(np.cumsum(width) - width, np.bincount(at))
        slot, start = [], 0
        for f, (touched, pair) in enumerate(inverses):
            own = np.full(len(rows), -1, dtype=np.int64)
            own[touched] = offset[start : start + len(pair_unit[f])][pair]
            slot.append(own)
            start += len(pair_unit[f])
        return cls(rows, levels, first, block_start, units, width, slot, (at, offset, effect, k))

    @property
    def bytes(self) -> float:
        """What the covariances between effects of one block would take."""
        if not len(self.block_start):
            return 0.0
        return 8.0 * len(self.block_start) * float(np.bincount(self.block_start).max())

    def covariance(self, deletion: _Deletion) -> Matrix:
        """Covariances of the effects given all rows, by column number within the block.

        Engine's basis. As they are zero between blocks, one right-hand side serves an effect of
        each block.
        """
        A = deletion.fit.crossproducts
        factorisation = deletion.fit.factorisation
        n_effects = len(self.block_start)
        rank = np.arange(n_effects) - self.block_start
        n_ranks = int(rank.max()) + 1
        out = np.empty((n_effects, n_ranks))
        step = max(1, int(_CHUNK / (8.0 * max(A.q, 1))))
        for low in range(0, n_ranks, step):
            m = min(step, n_ranks - low)
            rhs = []
            for f, factor in enumerate(A.factors):
                own = np.zeros((factor.n_levels, factor.k, m))
                for a in range(factor.k):
                    column = rank[self.first[f] + a] - low
                    inside = (column >= 0) & (column < m)
                    own[self.levels[f][inside], a, column[inside]] = 1.0
                rhs.append(own)
            effects, _ = factorisation.solve(rhs, np.zeros((0, m)))
            for f, factor in enumerate(A.factors):
                at = self.first[f][:, None] + np.arange(factor.k)
                out[at, low : low + m] = effects[f][self.levels[f]]
        out *= deletion.fit.sigma**2 / A.basis.weight_scale
        return out

    def corrections(self, deletion: _Deletion) -> Iterator[tuple[Integers, Matrix]]:
        """``[S r]' Z_c Phi Z_c' [S r]`` of the units, some at a time."""
        covariance = self.covariance(deletion)
        at = np.full(len(deletion.units[1]), -1, dtype=np.int64)
        at[self.units] = np.arange(len(self.units))
        of_row = at[deletion.units[0][self.rows]]
        n_rows = np.bincount(of_row[of_row >= 0], minlength=len(self.units))
        for chosen in self._batches(n_rows):
            width = int(self.width[chosen].max())
            number = np.full(len(self.units) + 1, -1, dtype=np.int64)
            number[chosen] = np.arange(len(chosen))
            # Rows without cut effects have the number -1, whose entry stays -1.
            here = np.flatnonzero(number[of_row] >= 0)
            design = self._design(deletion, here, width)
            first = number[of_row[here]] * width
            Q = self._gather(covariance, number, len(chosen), width)
            packed = np.zeros((len(here), width))
            rows, slots, values = design
            packed[rows, slots] = values
            entries = scipy.sparse.csr_array(
                (values, (first[rows] + slots, rows)), shape=(len(chosen) * width, len(here))
            )
            positions = self.rows[here]
            solved = deletion.solve_inner(positions, packed)
            K = np.asarray(entries @ solved).reshape(len(chosen), width, width)
            u = np.asarray(entries @ deletion.F[positions]).reshape(len(chosen), width, -1)
            Phi_u = np.linalg.solve(np.eye(width) - Q @ K, Q @ u)
            yield self.units[chosen], np.swapaxes(u, 1, 2) @ Phi_u

    def _batches(self, n_rows: Integers) -> Iterator[Integers]:
        """Numbers of units with similar widths, as many as fit into a chunk."""
        order = np.argsort(self.width, kind="stable")
        width = self.width[order]
        start = 0
        while start < len(order):
            stop = int(np.searchsorted(width, 1.25 * width[start], side="right"))
            widest = float(width[stop - 1])
            memory = 8.0 * np.cumsum(4.0 * widest**2 + 4.0 * widest * n_rows[order[start:stop]])
            most = max(1, int(np.searchsorted(memory, _CHUNK, side="right")))
            stop = min(stop, start + most)
            yield order[start:stop]
            start = stop

    def _design(
        self, deletion: _Deletion, here: NDArray[np.intp], width: int
    ) -> tuple[Integers, Integers, Matrix]:
        """Entries of Z_c: row (among those here), slot and value."""
        _, z, _ = deletion.by_factor
        rows, slots, values = [], [], []
        for f, columns in enumerate(z):
            slot = self.slot[f][here]
            touched = np.flatnonzero(slot >= 0)
            k = columns.shape[1]
            rows.append(np.repeat(touched, k))
            slots.append((slot[touched][:, None] + np.arange(k)).reshape(-1))
            values.append(columns[self.rows[here[touched]]].reshape(-1))
        return np.concatenate(rows), np.concatenate(slots), np.concatenate(values)

    def _gather(self, covariance: Matrix, number: Integers, n_units: int, width: int) -> Matrix:
        """Q of each chosen unit, padded with zeros."""
        at, offset, effect, k = self.pairs
        effects = np.full((n_units, width), -1, dtype=np.int64)
        chosen = number[at]
        for a in range(int(k.max())):
            use = (chosen >= 0) & (a < k)
            effects[chosen[use], offset[use] + a] = effect[use] + a
        absent = effects < 0
        effects[absent] = 0
        rank = effects - self.block_start[effects]
        Q: Matrix = covariance[effects[:, :, None], rank[:, None, :]]
        Q[absent[:, :, None] | absent[:, None, :]] = 0.0
        return Q


def _number_effects(block: Integers, k: Integers) -> tuple[Integers, Integers]:
    """First effect of each level, block by block, and for each effect the first of its block."""
    order = np.argsort(block, kind="stable")
    ends = np.cumsum(k[order])
    first = np.empty(len(k), dtype=np.int64)
    first[order] = ends - k[order]
    if not len(k):
        return first, np.zeros(0, dtype=np.int64)
    starts = np.zeros(int(block.max()) + 1, dtype=np.int64)
    starts[block[order][::-1]] = first[order][::-1]
    return first, np.repeat(starts[block[order]], k[order])
