"""The blocked Cholesky factorisation of ``M(theta) = L~' A L~ + I`` and what can be read off it.

``L~ = blockdiag(Lambda, I_p, 1)``; ``P = L~ M^-1 L~'``. The chain factors are eliminated level by
level, the remainder is one dense block. Outer blocks are kept unscaled (``K``, the Schur complement
of A) until their own turn, so no step divides by a relative covariance factor and a singular one
needs no special case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dpotri, dtrtrs

from mixedeffects import _kernels
from mixedeffects.engine.crossproducts import ChainFactor, CrossProducts, RestFactor

__all__ = ["Factorisation", "NotPositiveDefiniteError", "SelectedInverse", "Solution"]

Matrix = NDArray[np.float64]

_EMPTY = np.empty((0, 0, 0))
#: A factor T is divided by only if its smallest singular value is above this.
_REGULAR = 1e-3


class NotPositiveDefiniteError(ArithmeticError):
    """M(theta) is not numerically positive definite: theta is absurd, or not finite."""


@dataclass(frozen=True, eq=False)
class Solution:
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
    remainder : ndarray (m, m), Fortran order
        P on the remainder: ``[Z_rest]`` or ``[Z_rest X]``.
    N, B : tuples of ndarray (k, k)
        Per factor, the sums over levels of ``[A L~ M^-1]_ii`` and of ``[Z'PZ]_ii``.
    """

    P: tuple[Matrix, ...]
    panels: tuple[Matrix, ...]
    remainder: Matrix
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
        self.T = tuple(_factor_T(f, T) for f in A.factors)
        self.eliminated: list[_Eliminated] = []
        K, logdet = self._eliminate_chain()
        self._factor_remainder(K)
        logs = 2.0 * np.log(np.diag(self.C))
        #: log det M_q and log det M_{q+p}
        self.logdet_random = logdet + float(logs[: A.r].sum())
        self.logdet_with_fixed = self.logdet_random + float(logs[A.r : -1].sum())

    def _eliminate_chain(self) -> tuple[Matrix, float]:
        A = self.A
        K = A.remainder.copy(order="F")
        diags = [f.diag if e == 0 else f.diag.copy() for e, f in enumerate(A.chain)]
        panels = [f.panel if e == 0 else f.panel.copy() for e, f in enumerate(A.chain)]
        logdet = 0.0
        for e, factor in enumerate(A.chain):
            T = self.T[e]
            L, U = np.empty_like(factor.diag), np.empty_like(factor.panel)
            try:
                logdet += _kernels.eliminate_levels(
                    T, diags[e], panels[e], factor.ptr, factor.head, L, U
                )
            except RuntimeError as error:
                raise NotPositiveDefiniteError(str(error)) from None
            for link in factor.links:
                outer = A.chain[link.outer]
                _kernels.subtract_from_outer(
                    U,
                    factor.ptr,
                    factor.head,
                    factor.k,
                    link.at,
                    link.parent,
                    link.relative,
                    outer.ptr,
                    outer.head,
                    diags[link.outer],
                    panels[link.outer],
                )
            _kernels.subtract_from_remainder(U, factor.ptr, factor.ind, factor.head, factor.k, K)
            self.eliminated.append(_Eliminated(T, diags[e], panels[e], L, U))
        return K, logdet

    def _factor_remainder(self, K: Matrix) -> None:
        """``S = L~'K L~ + I`` on ``[Z_rest X y]`` and its Cholesky factor C, in K's place."""
        r, size = self.A.r, self.A.r + self.A.p
        # Scaling blocks of several columns mixes their rows, so both triangles are needed.
        _kernels.mirror_lower(K)
        regular = all(_is_regular(T) for T in self.T[len(self.A.chain) :])
        #: The unscaled Schur complement, kept only where some T cannot be divided by.
        self.K = None if regular else K.copy(order="F")
        self._scale_columns(K)
        self._scale_rows(K)
        np.einsum("ii->i", K)[:r] += 1.0
        # The last pivot is the residual sum of squares; one more keeps it positive if y is zero.
        yy = float(K[size, size])
        K[size, size] = yy + 1.0
        self.C, info = dpotrf(K, lower=1, clean=0, overwrite_a=1)
        if info != 0:
            raise NotPositiveDefiniteError("the remainder is not positive definite")
        half = self.C[size, :size]
        #: penalised residual sum of squares
        self.rho2 = max(yy - float(half @ half), 0.0)

    def _triangular_solve(self, rhs: Matrix, transposed: bool = False) -> Matrix:
        """``C^-1 rhs`` or ``C'^-1 rhs`` with the leading rows of C that rhs has."""
        padded = np.zeros((self.C.shape[0], rhs.shape[1]), order="F")
        padded[: len(rhs)] = rhs
        solved = dtrtrs(self.C, padded, lower=1, trans=int(transposed), overwrite_b=1)[0]
        return np.ascontiguousarray(solved[: len(rhs)])

    def _scale_columns(self, matrix: Matrix, transposed: bool = False) -> None:
        """``matrix @ L~``, or ``matrix @ L~'``, on the remainder, in place."""
        for f, T in zip(self.A.rest, self.T[len(self.A.chain) :], strict=True):
            _kernels.scale_columns(matrix, f.offset, f.n_levels, T, transposed)

    def _scale_rows(self, matrix: Matrix, transposed: bool = False) -> None:
        """``L~' @ matrix``, or ``L~ @ matrix``, on the remainder, in place."""
        for f, T in zip(self.A.rest, self.T[len(self.A.chain) :], strict=True):
            _kernels.scale_rows(matrix, f.offset, f.n_levels, T, transposed)

    def _scale_rest(self, values: Matrix, transpose: bool) -> Matrix:
        """``L~ values`` or ``L~' values`` for values with one row per remainder column."""
        out = values.copy()
        for f, T in zip(self.A.rest, self.T[len(self.A.chain) :], strict=True):
            shaped = out[f.columns].reshape(f.n_levels, f.k, -1)
            shaped[...] = np.matmul(T.T if transpose else T, shaped)
        return out

    @cached_property
    def solution(self) -> Solution:
        """Fixed and random effects, and ``c = Z'Py``, at this theta."""
        A, r = self.A, self.A.r
        u = self._triangular_solve(self.C[-1:, :-1].T, transposed=True)
        remainder = self._scale_rest(u, transpose=False)[:, 0]
        border = np.append(-remainder, 1.0)
        b: list[Matrix] = [np.empty(0)] * len(A.chain)
        c: list[Matrix] = [np.empty(0)] * len(A.chain)
        for e in reversed(range(len(A.chain))):
            factor, done = A.chain[e], self.eliminated[e]
            # The y column of the panel is the level's right-hand side: passing -b for what is known
            # and +1 for y makes back substitution return -(b) with its sign turned.
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
        residual = None if self.K is None else self.K[:r] @ border
        for f, T in zip(A.rest, self.T[len(A.chain) :], strict=True):
            b.append(remainder[f.columns].reshape(f.n_levels, f.k))
            if residual is None:
                # Lambda'c = u
                c.append(u[f.columns].reshape(f.n_levels, f.k) @ np.linalg.inv(T))
            else:
                c.append(residual[f.columns].reshape(f.n_levels, f.k))
        return Solution(remainder[r:], tuple(b), tuple(c))

    def forward(self, blocks: Sequence[Matrix], border: Matrix) -> tuple[list[Matrix], Matrix]:
        """``C^-1 L~' rhs`` on the random effects and the fixed effects given.

        Parameters
        ----------
        blocks : sequence of ndarray (l, k, m)
            Right-hand sides of each factor's random effects, not yet scaled by Lambda'.
        border : ndarray (p, m) or (0, m)
            Right-hand sides of the fixed effects; no rows to leave the fixed effects out.
        """
        A = self.A
        n_chain, columns = len(A.chain), border.shape[1]
        remainder = np.concatenate([x.reshape(-1, columns) for x in blocks[n_chain:]] + [border])
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
        size = remainder.shape[0]
        if size:
            remainder = self._triangular_solve(self._scale_rest(remainder, transpose=True))
        return solved, remainder

    def solve(self, blocks: Sequence[Matrix], border: Matrix) -> tuple[list[Matrix], Matrix]:
        """``P rhs``: random effects per factor, arrays (l, k, m), and fixed effects."""
        A = self.A
        solved, remainder = self.forward(blocks, border)
        size = remainder.shape[0]
        if size:
            remainder = self._triangular_solve(remainder, transposed=True)
            remainder = self._scale_rest(remainder, transpose=False)
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
        effects.extend(remainder[f.columns].reshape(f.n_levels, f.k, -1) for f in A.rest)
        return effects, remainder[A.r :]

    def selected_inverse(self, with_fixed: bool, keep: bool = False) -> SelectedInverse:
        """P on A's pattern, with the sums the gradient needs.

        Parameters
        ----------
        with_fixed : bool
            P of ``M_{q+p}`` (REML, and the variance of predictions) or of ``M_q`` (ML, and the
            conditional variances given the fixed effects).
        keep : bool
            Keep the blocks of the innermost factor too; the gradient does not need them.
        """
        A = self.A
        size = A.r + (A.p if with_fixed else 0)
        remainder, N_rest, B_rest, P_rest = self._invert_remainder(size)
        n_chain = len(A.chain)
        P: list[Matrix] = [_EMPTY] * n_chain
        panels: list[Matrix] = [np.empty(0)] * n_chain
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
                remainder,
                size,
                P[e],
                panels[e],
                N[e],
                B[e],
            )
        return SelectedInverse(
            (*P, *P_rest), tuple(panels), remainder, (*N, *N_rest), (*B, *B_rest)
        )

    def _invert_remainder(
        self, size: int
    ) -> tuple[Matrix, list[Matrix], list[Matrix], list[Matrix]]:
        if size == 0:
            return np.zeros((0, 0), order="F"), [], [], []
        S_inverse, info = dpotri(self.C[:size, :size].copy(order="F"), lower=1, overwrite_c=1)
        if info != 0:
            raise NotPositiveDefiniteError("the remainder is singular")
        _kernels.mirror_lower(S_inverse)
        N, B, P = [], [], []
        KL = None
        if self.K is not None:
            KL = self.K.copy(order="F")
            self._scale_columns(KL)
        for f, T in zip(self.A.rest, self.T[len(self.A.chain) :], strict=True):
            rows = np.arange(f.offset, f.columns.stop).reshape(f.n_levels, f.k)
            blocks = S_inverse[rows[:, :, None], rows[:, None, :]]
            P.append(np.ascontiguousarray(T @ blocks @ T.T))
            if KL is None:
                # [K L~ S^-1]_ii = T'^-1 (I - [S^-1]_ii)
                identity = f.n_levels * np.eye(f.k)
                sums = np.linalg.solve(T.T, identity - blocks.sum(axis=0))
                score = np.linalg.solve(T.T, sums.T).T
            else:
                sums = _block_trace(KL[f.columns, :size], S_inverse[:, f.columns], f.k)
                score = self._score_without_division(f, KL, size)
            N.append(sums)
            B.append(0.5 * (score + score.T))
        self._scale_columns(S_inverse, transposed=True)
        self._scale_rows(S_inverse, transposed=True)
        return S_inverse, N, B, P

    def _score_without_division(self, f: RestFactor, KL: Matrix, size: int) -> Matrix:
        """Sum over levels of ``[Z'PZ]_ii = K_ii - [K L~ S^-1 L~'K]_ii``."""
        assert self.K is not None
        half = scipy.linalg.solve_triangular(
            self.C[:size, :size], KL[f.columns, :size].T, lower=True
        )
        own = np.arange(f.offset, f.columns.stop, f.k)
        diagonal = np.array(
            [[self.K[own + a, own + b].sum() for b in range(f.k)] for a in range(f.k)]
        )
        return diagonal - _block_trace(half.T, half, f.k)


def _is_regular(T: Matrix) -> bool:
    """Whether dividing by T loses no accuracy that matters."""
    values = np.linalg.svd(T, compute_uv=False)
    return bool(values[-1] > _REGULAR * max(1.0, values[0]))


def _block_trace(left: Matrix, right: Matrix, k: int) -> Matrix:
    """Sum over levels of the k x k diagonal blocks of ``left @ right``."""
    return np.array(
        [[np.einsum("ij,ji->", left[a::k], right[:, b::k]) for b in range(k)] for a in range(k)]
    )


def _factor_T(factor: ChainFactor | RestFactor, T: Sequence[Matrix]) -> Matrix:
    """The factor's T: block-diagonal over the terms that share its grouping."""
    if len(factor.members) == 1:
        return np.ascontiguousarray(T[factor.members[0].term])
    out = np.zeros((factor.k, factor.k))
    for member in factor.members:
        out[member.columns, member.columns] = T[member.term]
    return out
