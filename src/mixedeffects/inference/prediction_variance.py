"""Variance of the error of ``x'beta + z'b``, from the joint one of fixed and random effects.

With ``C = (X'V^-1X)^-1``, ``P = Lambda M_q^-1 Lambda'`` and ``H = P Z'WX`` (P relative to sigma^2)

    Var(x'(beta^ - beta) + z'(b^ - b)) = sigma^2 z'P z + (x - H'z)' C (x - H'z)

which is ``sigma^2 [x; z]'`` times the inverse of Henderson's matrix times ``[x; z]``, as a sum of
terms that are not negative. P is zero between connected blocks of the data, and a row needs it only
at its own levels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from mixedeffects.base.caching import cached_property
from mixedeffects.covariance.between_levels import solve_for_levels
from mixedeffects.covariance.of_residuals import blocks_of_rows
from mixedeffects.fitting.fit import Fit

if TYPE_CHECKING:
    from mixedeffects.frame.new_data import DesignRows

__all__ = ["PredictionVariance"]

Matrix = NDArray[np.float64]
Codes = NDArray[np.int32]
Integers = NDArray[np.int64]

#: Memory for the right-hand sides and solutions of one chunk of solves, in bytes.
_CHUNK = 100e6
#: Memory for the blocks of P between two factors, in bytes.
_PAIRS = 300e6


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Blocks of P between the levels of two factors that occur together in some row.

    Attributes
    ----------
    keys : ndarray, shape (pairs,)
        ``level_f * l_g + level_g``, increasing.
    blocks : ndarray, shape (pairs, k_f, k_g)
    """

    keys: Integers
    blocks: Matrix


class PredictionVariance:
    """Variances of the error of prediction, row by row.

    Parameters
    ----------
    fit : Fit
        The fit.
    terms : tuple of int
        Random-effects terms in the prediction; the effects of the others are zero in z.
    """

    def __init__(self, fit: Fit, terms: tuple[int, ...]) -> None:
        self._A = A = fit.crossproducts
        self._fit, self._frame = fit, fit.frame
        self._factorisation = fit.factorisation_at_modes
        self._scale = fit.working_sigma**2 / A.basis.weight_scale
        members = {
            f: [member for member in factor.members if member.term in terms]
            for f, factor in enumerate(A.factors)
        }
        #: Factors in use, in elimination order, with their terms in use.
        self._members = {f: own for f, own in members.items() if own}
        self._pairs: dict[tuple[int, int], _Pairs] | None = {}

    @property
    def rows_at_once(self) -> int:
        """Rows for which `prepare` keeps within its memory."""
        k = [self._A.factors[f].k for f in self._members]
        per_row = 8 * (sum(k) ** 2 - sum(size**2 for size in k)) // 2
        return max(1, int(_PAIRS / max(per_row, 8)))

    # --- what does not depend on the rows ------------------------------------------------

    @property
    def _n_parameters(self) -> int:
        """Number of parameters whose errors are part of a prediction's: the fixed effects."""
        return self._A.p

    @cached_property
    def _fixed(self) -> tuple[Matrix, list[Matrix]]:
        """Matrices (p, p) and (l, k, p) that take a row's x and z to ``root(C)'(x - H'z)``."""
        A, p = self._A, self._A.p
        root = np.tril(self._factorisation.fixed_root)
        from_x = scipy.linalg.solve_triangular(root, A.basis.fixed.T, lower=True).T
        if not self._members:
            return from_x, []
        rhs = [np.zeros((f.n_levels, f.k, p)) for f in A.factors]
        return from_x, self._factorisation.solve(rhs, root)[0]

    @cached_property
    def _within(self) -> tuple[Matrix, ...]:
        """Blocks of P within each level, per factor (l, k, k)."""
        return self._factorisation.selected_inverse(with_fixed=False, keep=True).P

    @cached_property
    def _block_of_level(self) -> dict[int, Integers]:
        """The connected block of the data that each level belongs to."""
        terms = self._frame.terms
        of_row = blocks_of_rows(self._fit)
        blocks = {}
        for f, members in self._members.items():
            term = terms[members[0].term]
            blocks[f] = np.zeros(term.n_levels, dtype=np.int64)
            blocks[f][term.codes] = of_row
        return blocks

    # --- between factors -----------------------------------------------------------------

    def prepare(self, codes: Mapping[int, Codes]) -> None:
        """Solve for the blocks of P between factors that rows with these levels need.

        Where the rows are fewer than the solves that takes, each is solved for by itself when its
        turn comes.

        Parameters
        ----------
        codes : mapping of int to ndarray of int32
            Level of each row in each term; negative where it has none.
        """
        self._pairs = {}
        if len(self._members) < 2:
            return
        keys, levels = self._needed_pairs(codes)
        ranks = {g: self._ranks(g, needed) for g, needed in levels.items()}
        solves = sum((int(rank.max()) + 1) * self._A.factors[g].k for g, rank in ranks.items())
        if len(next(iter(codes.values()))) <= solves:
            self._pairs = None
            return
        for g, rank in ranks.items():
            self._solve_pairs(g, rank, {f: own for (f, h), own in keys.items() if h == g})

    def _key(self, f: int, g: int, code: Mapping[int, Codes]) -> Integers:
        """Number of each row's pair of levels; -1 where P is zero between them."""
        key = code[f].astype(np.int64) * self._A.factors[g].n_levels + code[g]
        connected = (code[f] >= 0) & (code[g] >= 0)
        blocks = self._block_of_level
        connected &= blocks[f][code[f]] == blocks[g][code[g]]
        key[~connected] = -1
        return key

    def _factor_codes(self, codes: Mapping[int, Codes]) -> dict[int, Codes]:
        return {f: codes[members[0].term] for f, members in self._members.items()}

    def _needed_pairs(
        self, codes: Mapping[int, Codes]
    ) -> tuple[dict[tuple[int, int], Integers], dict[int, Integers]]:
        """The pairs of levels, and the levels of the later factor, that occur."""
        own = self._factor_codes(codes)
        keys, levels = {}, {}
        for g in list(own)[1:]:
            needed = np.zeros(self._A.factors[g].n_levels, dtype=np.bool_)
            for f in (f for f in own if f < g):
                found = np.unique(self._key(f, g, own))
                keys[f, g] = found[found >= 0]
                needed[keys[f, g] % len(needed)] = True
            if needed.any():
                levels[g] = np.flatnonzero(needed)
        return keys, levels

    def _ranks(self, g: int, needed: Integers) -> Integers:
        """Number of each needed level among those of its connected block; -1 for the others.

        One solve serves a level of every block at once, because P is zero between them.
        """
        blocks = self._block_of_level[g][needed]
        order = np.argsort(blocks, kind="stable")
        _, starts, sizes = np.unique(blocks[order], return_index=True, return_counts=True)
        rank = np.full(self._A.factors[g].n_levels, -1, dtype=np.int64)
        rank[needed[order]] = np.arange(len(needed)) - np.repeat(starts, sizes)
        return rank

    def _solve_pairs(self, g: int, rank: Integers, keys: Mapping[int, Integers]) -> None:
        assert self._pairs is not None
        factors = self._A.factors
        k, n_levels = factors[g].k, factors[g].n_levels
        for f, own in keys.items():
            self._pairs[f, g] = _Pairs(own, np.empty((len(own), factors[f].k, k)))
        per_rank = 16.0 * self._A.q * k
        step, stop = max(1, int(_CHUNK / per_rank)), int(rank.max()) + 1
        for low in range(0, stop, step):
            high = min(low + step, stop)
            inverse = solve_for_levels(self._factorisation, g, rank, low, high)
            for f, own in keys.items():
                of_pair = rank[own % n_levels]
                at = np.flatnonzero((of_pair >= low) & (of_pair < high))
                columns = (of_pair[at] - low)[:, None] * k + np.arange(k)
                self._pairs[f, g].blocks[at] = inverse[f][
                    (own[at] // n_levels)[:, None, None],
                    np.arange(factors[f].k)[None, :, None],
                    columns[:, None, :],
                ]

    # --- rows ----------------------------------------------------------------------------

    def __call__(self, rows: DesignRows) -> Matrix:
        """Variance of each row's error, shape (m,), in squared units of the response.

        Effects of levels that the fit did not see are left out. `prepare` must have had the rows'
        levels.
        """
        of_parameters, of_modes = self.parts(rows)
        squares = np.einsum("ir,ir->i", of_parameters, of_parameters)
        return np.asarray(self._scale * (squares + of_modes))

    def parts(self, rows: DesignRows) -> tuple[Matrix, Matrix]:
        """What the errors of the parameters make, (m, r), and ``z'P z``, (m,), without the scale.

        The squares of the first sum to the variance that comes from the parameters.
        """
        code = self._factor_codes(rows.codes)
        z = {f: self._engine_columns(f, rows) for f in self._members}
        of_modes = np.zeros(len(rows.X))
        if self._pairs is None:
            of_modes += self._by_forward_solves(code, z)
        elif z:
            of_modes += np.maximum(self._by_blocks(code, z), 0.0)
        return self._fixed_part(rows.X, code, z), of_modes

    def _engine_columns(self, f: int, rows: DesignRows) -> Matrix:
        """Columns of a factor in the engine's basis; zero for levels that are not there."""
        out = np.zeros((len(rows.X), self._A.factors[f].k))
        for member in self._members[f]:
            out[:, member.columns] = rows.z[member.term] @ self._A.basis.terms[member.term]
        out[rows.codes[self._members[f][0].term] < 0] = 0.0
        return out

    def _fixed_part(self, X: Matrix, code: Mapping[int, Codes], z: Mapping[int, Matrix]) -> Matrix:
        if self._n_parameters == 0:
            return np.zeros((len(X), 0))
        from_x, from_z = self._fixed
        out: Matrix = X @ from_x
        for f, columns in z.items():
            # Effect by effect, so that nothing larger than X is gathered.
            for a in range(columns.shape[1]):
                out += columns[:, a, None] * from_z[f][code[f], a]
        return out

    def _by_blocks(self, code: Mapping[int, Codes], z: Mapping[int, Matrix]) -> Matrix:
        """``z'P z`` from the blocks within and between the factors."""
        assert self._pairs is not None
        out = np.zeros(len(next(iter(z.values()))))
        for f, columns in z.items():
            out += np.einsum("ia,iab,ib->i", columns, self._within[f][code[f]], columns)
        for (f, g), pairs in self._pairs.items():
            key = self._key(f, g, code)
            rows = np.flatnonzero(key >= 0)
            blocks = pairs.blocks[np.searchsorted(pairs.keys, key[rows])]
            out[rows] += 2.0 * np.einsum("ia,iab,ib->i", z[f][rows], blocks, z[g][rows])
        return out

    def _by_forward_solves(self, code: Mapping[int, Codes], z: Mapping[int, Matrix]) -> Matrix:
        """``z'P z = |C^-1 Lambda'z|^2`` with one right-hand side for each row."""
        factors = self._A.factors
        n = len(next(iter(z.values())))
        out = np.empty(n)
        step = max(1, int(_CHUNK / (16.0 * self._A.q)))
        for low in range(0, n, step):
            m = min(low + step, n) - low
            rhs = [np.zeros((f.n_levels, f.k, m)) for f in factors]
            for f, columns in z.items():
                level = code[f][low : low + m]
                rhs[f][level, :, np.arange(m)] = columns[low : low + m]
            solved, rest = self._factorisation.forward(rhs, np.zeros((0, m)))
            out[low : low + m] = np.einsum("im,im->m", rest, rest)
            for own in solved:
                out[low : low + m] += np.einsum("iam,iam->m", own, own)
        return out
