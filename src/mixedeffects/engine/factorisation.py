"""The blocked Cholesky factorisation of ``M(theta) = L~' A L~ + I`` and what can be read off it.

``L~ = blockdiag(Lambda, I_p, 1)``; ``P = L~ M^-1 L~'``. The chain factors are eliminated level by
level, then the fronts of the remainder where it is sparse; the core that is left is dense.
Outer blocks are kept unscaled (``K``, the Schur complement of A) until their own turn, so no step
divides by a relative covariance factor and a singular one needs no special case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedeffects import _kernels
from mixedeffects.base.arrays import ReadOnlyArrays
from mixedeffects.base.caching import cached_property
from mixedeffects.engine.core import Core, CoreFactor, NotPositiveDefiniteError
from mixedeffects.engine.crossproducts import ChainFactor, CrossProducts, RestFactor
from mixedeffects.engine.fronts import Fronts
from mixedeffects.engine.provisional import Projection, project, residual_effects
from mixedeffects.engine.triangular import solve_lower

__all__ = [
    "Factorisation",
    "NotPositiveDefiniteError",
    "SelectedInverse",
    "Solution",
    "factor_T",
]

Matrix = NDArray[np.float64]

_EMPTY = np.empty((0, 0, 0))
_NONE = np.empty(0)


@dataclass(frozen=True, eq=False)
class Solution(ReadOnlyArrays):
    """Penalised least-squares solution at one theta, in the engine's scale.

    ``b`` and ``c`` hold one array (l, k) per factor: the random effects ``b = Lambda u`` and
    ``c = Z'W(y - X beta - Z b) = Z'Py``.
    """

    beta: Matrix
    b: tuple[Matrix, ...]
    c: tuple[Matrix, ...]


@dataclass(frozen=True, eq=False)
class SelectedInverse:
    """Entries of P on A's pattern.

    Attributes
    ----------
    P : tuple of ndarray (l, k, k)
        Diagonal blocks, one array per factor.
    panels : tuple of ndarray
        For each chain factor the blocks between a level and what it touches, laid out as its panel.
    core : ndarray (m, m), Fortran order
        P on the core: ``[Z_core]`` or ``[Z_core X]``.
    fronts : ndarray
        P on the blocks of the fronts.
    N, B : tuples of ndarray (k, k)
        Per factor, the sums over levels of ``[A L~ M^-1]_ii`` and of ``[Z'PZ]_ii``.
    """

    P: tuple[Matrix, ...]
    panels: tuple[Matrix, ...]
    core: Matrix
    fronts: Matrix
    N: tuple[Matrix, ...]
    B: tuple[Matrix, ...]


@dataclass(frozen=True, eq=False)
class _Eliminated:
    """One chain factor after elimination: its Schur-complemented blocks, L and U."""

    T: Matrix
    diag: Matrix
    panel: Matrix
    L: Matrix
    U: Matrix


@dataclass(frozen=True, eq=False)
class _Remainder:
    """The remainder after elimination: rows of the fronts, their L and U, and the core."""

    values: Matrix
    factors: Matrix
    core: Core


class Factorisation:
    """``M(theta) = C C'`` at given relative covariance factors.

    Parameters
    ----------
    A : CrossProducts
        The blocks.
    T : sequence of ndarray (k, k)
        One square factor per term, in the engine's basis; ``Sigma = T T'``. It need not be
        triangular.

    Raises
    ------
    NotPositiveDefiniteError
        If a pivot is not positive.
    """

    def __init__(self, A: CrossProducts, T: Sequence[Matrix]) -> None:
        self.A = A
        self.T = tuple(factor_T(f, T) for f in A.factors)
        self.eliminated: list[_Eliminated] = []
        #: ``[X y]`` where they are less provisional effects, and the root of ``X'V0^-1X`` then
        self.border: Projection | None = None
        self._border_root: Matrix | None = None
        self._remainder: _Remainder | None = self._eliminate()
        core = self._remainder.core
        #: log det M_q
        self.logdet_random = self._logdet + core.logdet_random
        #: sum of squares that rho2 is left of
        self.response_square = A.remainder.response_square
        #: penalised residual sum of squares
        self.rho2 = core.rho2
        logdet_fixed = core.logdet_fixed
        if A.provisional is not None:
            self.border = project(self, A.provisional.border)
            self._border_root, self.rho2 = _root_and_rest(self.border.square)
            self.response_square = float(self.border.size[-1])
            logdet_fixed = 2.0 * float(np.log(np.diag(self._border_root)).sum())
        #: log det M_{q+p}
        self.logdet_with_fixed = self.logdet_random + logdet_fixed

    @property
    def _fronts(self) -> Fronts | None:
        return self.A.remainder.fronts

    @property
    def _front_arrays(self) -> list[NDArray[np.int64]]:
        return [] if self._fronts is None else self._fronts.arrays

    @property
    def _rest_T(self) -> tuple[Matrix, ...]:
        return self.T[len(self.A.chain) :]

    def _eliminate(self) -> _Remainder:
        A, fronts = self.A, self._fronts
        if A.provisional is not None:
            A = A.provisional.random
        K, values = A.remainder.begin()
        diags = [f.diag if e == 0 else f.diag.copy() for e, f in enumerate(A.chain)]
        panels = [f.panel if e == 0 else f.panel.copy() for e, f in enumerate(A.chain)]
        logdet = 0.0
        self.eliminated.clear()
        factors = np.empty_like(values)
        try:
            for e, factor in enumerate(A.chain):
                T = self.T[e]
                L, U = np.empty_like(factor.diag), np.empty_like(factor.panel)
                ptr, ind, head, k = factor.ptr, factor.ind, factor.head, factor.k
                logdet += _kernels.eliminate_levels(T, diags[e], panels[e], ptr, head, L, U)
                for link in factor.links:
                    outer = A.chain[link.outer]
                    _kernels.subtract_from_outer(
                        U,
                        ptr,
                        head,
                        k,
                        link.at,
                        link.parent,
                        link.relative,
                        outer.ptr,
                        outer.head,
                        diags[link.outer],
                        panels[link.outer],
                    )
                _kernels.subtract_from_remainder(U, ptr, ind, head, k, A.layout.core, K)
                if fronts is not None:
                    _kernels.subtract_from_fronts(U, ptr, ind, head, k, fronts.arrays, values)
                self.eliminated.append(_Eliminated(T, diags[e], panels[e], L, U))
            if fronts is not None:
                logdet += _kernels.eliminate_fronts(self._rest_T, fronts.arrays, values, factors, K)
        except RuntimeError as error:
            raise NotPositiveDefiniteError(str(error)) from None
        self._logdet = logdet
        core_factors = [
            CoreFactor(f.core_offset, len(f.core_levels), T)
            for f, T in zip(A.rest, self._rest_T, strict=True)
        ]
        return _Remainder(values, factors, Core(K, core_factors, A.r - A.layout.core, A.p))

    @property
    def _eliminated_remainder(self) -> _Remainder:
        if self._remainder is None:
            self._remainder = self._eliminate()
        return self._remainder

    @property
    def core(self) -> Core:
        """The dense end."""
        return self._eliminated_remainder.core

    def release(self) -> None:
        """Give back the memory of the remainder; it is factored again if it is needed again."""
        self._remainder = None

    @property
    def fixed_root(self) -> Matrix:
        """Lower Cholesky factor of ``X'V0^-1 X`` in the engine's columns, p x p."""
        return self.core.fixed_root if self._border_root is None else self._border_root

    @property
    def border_cancellation(self) -> float:
        """Largest sum of squares of ``[X y]``, relative to what elimination leaves of it."""
        size = self.A.remainder.diagonal[self.A.r :]
        if self.border is not None:
            size = self.border.size
        left = np.append(np.diag(self.fixed_root) ** 2, self.rho2)
        with np.errstate(divide="ignore"):
            return float((size / left).max())

    @cached_property
    def solution(self) -> Solution:
        """Fixed and random effects, and ``c = Z'Py``, at this theta."""
        if self.border is not None:
            return self._solution_of(self.border)
        A, done_remainder = self.A, self._eliminated_remainder
        start = A.layout.core
        # The y column of a panel is the level's right-hand side: passing -b for what is known
        # and +1 for y makes back substitution return -b.
        border, score = np.zeros(A.r + A.p + 1), np.zeros(A.r)
        effects_core, score[start:] = done_remainder.core.solution()
        border[start:-1], border[-1] = -effects_core, 1.0
        if self._fronts is not None:
            arrays = self._fronts.arrays
            values = border[:, None].copy()
            _kernels.backward_fronts(self._rest_T, arrays, done_remainder.factors, values)
            border = values[:, 0]
            _kernels.multiply_front_rows(arrays, done_remainder.values, border, score)
        b: list[Matrix] = [_NONE] * len(A.chain)
        c: list[Matrix] = [_NONE] * len(A.chain)
        for e in reversed(range(len(A.chain))):
            factor, done = A.chain[e], self.eliminated[e]
            effects = np.empty((factor.n_levels, factor.k, 1))
            parents = [link.parent for link in factor.links]
            outer = [np.ascontiguousarray(-b[link.outer])[:, :, None] for link in factor.links]
            _kernels.backward_levels(
                done.T,
                done.L,
                done.U,
                factor.ptr,
                factor.ind,
                parents,
                np.zeros_like(effects),
                effects,
                outer,
                border[:, None],
            )
            b[e] = -effects[:, :, 0]
            product = np.zeros_like(effects)
            _kernels.multiply_levels(
                done.diag,
                done.panel,
                factor.ptr,
                factor.ind,
                parents,
                effects,
                outer,
                border[:, None],
                product,
                [np.zeros_like(o) for o in outer],
                np.zeros_like(border)[:, None],
            )
            c[e] = product[:, :, 0]
        for f in A.rest:
            b.append(-border[f.columns].reshape(f.n_levels, f.k))
            c.append(score[f.columns].reshape(f.n_levels, f.k))
        return Solution(-border[A.r : -1], tuple(b), tuple(c))

    def _solution_of(self, border: Projection) -> Solution:
        """The same from ``[X y]`` seen through V."""
        p = self.A.p
        half = solve_lower(self.fixed_root, border.square[:p, p:])
        beta = solve_lower(self.fixed_root, half, transposed=True)
        modes, scores = residual_effects(border, beta)
        return Solution(
            beta[:, 0],
            tuple(np.ascontiguousarray(own[:, :, 0]) for own in modes),
            tuple(np.ascontiguousarray(own[:, :, 0]) for own in scores),
        )

    def _less_modes(self, border: Projection, blocks: Sequence[Matrix], values: Matrix) -> Matrix:
        """``values - X'V0^-1 Z Sigma blocks``, shape (p, m)."""
        p = self.A.p
        for own, block in zip(border.modes, blocks, strict=True):
            flat = own[:, :, :p].reshape(own.shape[0] * own.shape[1], p)
            values = values - flat.T @ block.reshape(-1, values.shape[1])
        return values

    def forward(self, blocks: Sequence[Matrix], border: Matrix) -> tuple[list[Matrix], Matrix]:
        """``C^-1 L~' rhs`` on the random effects and the fixed effects given.

        Parameters
        ----------
        blocks : sequence of ndarray (l, k, m)
            Right-hand sides of each factor's random effects, not yet scaled by Lambda'.
        border : ndarray (p, m) or (0, m)
            Right-hand sides of the fixed effects; no rows to leave the fixed effects out.
        """
        if self.border is not None and len(border):
            random, remainder = self.forward(blocks, border[:0])
            fixed = solve_lower(self.fixed_root, self._less_modes(self.border, blocks, border))
            return random, np.vstack([remainder, fixed])
        A = self.A
        n_chain = len(A.chain)
        remainder = A.stack_remainder(blocks[n_chain:], border)
        pending = [np.array(x, order="C") for x in blocks[:n_chain]]
        solved: list[Matrix] = []
        for e, factor in enumerate(A.chain):
            done = self.eliminated[e]
            out = np.empty_like(pending[e])
            _kernels.forward_levels(
                done.T,
                done.L,
                done.U,
                factor.ptr,
                factor.ind,
                [link.parent for link in factor.links],
                pending[e],
                out,
                [pending[link.outer] for link in factor.links],
                remainder,
            )
            solved.append(out)
        done_remainder, start = self._eliminated_remainder, A.layout.core
        if self._fronts is None:
            return solved, done_remainder.core.forward(remainder)
        _kernels.forward_fronts(
            self._rest_T, self._fronts.arrays, done_remainder.factors, remainder
        )
        remainder[start:] = done_remainder.core.forward(remainder[start:])
        return solved, remainder

    def solve(self, blocks: Sequence[Matrix], border: Matrix) -> tuple[list[Matrix], Matrix]:
        """``P rhs``: random effects per factor, arrays (l, k, m), and fixed effects."""
        A, start = self.A, self.A.layout.core
        if self.border is not None and len(border):
            random, _ = self.solve(blocks, border[:0])
            half = solve_lower(self.fixed_root, self._less_modes(self.border, blocks, border))
            beta = solve_lower(self.fixed_root, half, transposed=True)
            modes = [own[:, :, : A.p] @ beta for own in self.border.modes]
            return [own - of_x for own, of_x in zip(random, modes, strict=True)], beta
        solved, remainder = self.forward(blocks, border)
        done_remainder = self._eliminated_remainder
        if self._fronts is None:
            remainder = done_remainder.core.backward(remainder)
        else:
            remainder[start:] = done_remainder.core.backward(remainder[start:])
            _kernels.backward_fronts(
                self._rest_T, self._fronts.arrays, done_remainder.factors, remainder
            )
        effects: list[Matrix] = [_EMPTY] * len(A.chain)
        for e in reversed(range(len(A.chain))):
            factor, done = A.chain[e], self.eliminated[e]
            out = np.empty_like(solved[e])
            _kernels.backward_levels(
                done.T,
                done.L,
                done.U,
                factor.ptr,
                factor.ind,
                [link.parent for link in factor.links],
                solved[e],
                out,
                [effects[link.outer] for link in factor.links],
                remainder,
            )
            effects[e] = out
        effects.extend(A.split_remainder(remainder))
        return effects, remainder[A.r :]

    def selected_inverse(self, with_fixed: bool, keep: bool = False) -> SelectedInverse:
        """P on A's pattern, with the sums the gradient needs.

        Parameters
        ----------
        with_fixed : bool
            P of ``M_{q+p}`` (REML, and the variance of predictions) or of ``M_q`` (ML, and the
            conditional variances given the fixed effects). Where A has provisional effects there is
            only the latter.
        keep : bool
            Keep the blocks of the innermost factor too; the gradient does not need them.
        """
        A, done_remainder = self.A, self._eliminated_remainder
        size = A.r + (A.p if with_fixed else 0)
        inverse = done_remainder.core.invert(size - A.layout.core)
        front_P = np.empty_like(done_remainder.values)
        if self._fronts is not None:
            _kernels.selected_inverse_fronts(
                self._rest_T,
                self._fronts.arrays,
                done_remainder.values,
                done_remainder.factors,
                inverse.P,
                size,
                front_P,
                inverse.N,
                inverse.B,
            )
        n_chain = len(A.chain)
        P: list[Matrix] = [_EMPTY] * n_chain
        panels: list[Matrix] = [_NONE] * n_chain
        N: list[Matrix] = [_EMPTY] * n_chain
        B: list[Matrix] = [_EMPTY] * n_chain
        for e in reversed(range(n_chain)):
            factor, done = A.chain[e], self.eliminated[e]
            if keep or e > 0:
                P[e], panels[e] = np.empty_like(factor.diag), np.empty_like(factor.panel)
            N[e], B[e] = np.empty((factor.k, factor.k)), np.empty((factor.k, factor.k))
            links = factor.links
            _kernels.selected_inverse_levels(
                done.T,
                done.diag,
                done.panel,
                done.L,
                factor.ptr,
                factor.ind,
                [link.parent for link in links],
                [link.relative for link in links],
                [P[link.outer] for link in links],
                [panels[link.outer] for link in links],
                [A.chain[link.outer].ptr for link in links],
                inverse.P,
                self._front_arrays,
                front_P,
                size,
                P[e],
                panels[e],
                N[e],
                B[e],
            )
        P_rest = [
            self._rest_blocks(f, blocks, front_P)
            for f, blocks in zip(A.rest, inverse.blocks, strict=True)
        ]
        return SelectedInverse(
            (*P, *P_rest),
            tuple(panels),
            inverse.P,
            front_P,
            (*N, *inverse.N),
            (*B, *inverse.B),
        )

    def _rest_blocks(self, f: RestFactor, in_core: Matrix, front_P: Matrix) -> Matrix:
        """Diagonal blocks of P of all levels of a factor, in fronts and in the core."""
        if self._fronts is None:
            return in_core
        out = np.empty((f.n_levels, f.k, f.k))
        out[f.core_levels] = in_core
        level = np.flatnonzero(f.first < self._fronts.columns)
        first, k = f.first[level].astype(np.int64), f.k
        for a in range(k):
            for b in range(a, k):
                at = _kernels.front_entries(
                    self._fronts.arrays,
                    (first + a).astype(np.int32),
                    (first + b).astype(np.int32),
                )
                out[level, a, b] = out[level, b, a] = front_P[at]
        return out


def factor_T(factor: ChainFactor | RestFactor, T: Sequence[Matrix]) -> Matrix:
    """The factor's T: block-diagonal over the terms that share its grouping."""
    if len(factor.members) == 1:
        return np.ascontiguousarray(T[factor.members[0].term])
    out = np.zeros((factor.k, factor.k))
    for member in factor.members:
        out[member.columns, member.columns] = T[member.term]
    return out


def _root_and_rest(square: Matrix) -> tuple[Matrix, float]:
    """Lower Cholesky factor of all but the last row, and the square of what it leaves there."""
    try:
        root = np.linalg.cholesky(square)
    except np.linalg.LinAlgError:
        raise NotPositiveDefiniteError("the residual sum of squares is zero") from None
    return np.asarray(root[:-1, :-1]), float(root[-1, -1] ** 2)
