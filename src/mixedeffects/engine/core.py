"""The dense end of the factorisation: ``S = L~'K L~ + I`` on what is left for LAPACK.

K is the Schur complement of A on ``[Z_core X y]``, not scaled by the core's own relative covariance
factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedeffects import _kernels
from mixedeffects.engine.triangular import solve_lower

__all__ = ["Core", "CoreFactor", "CoreInverse", "NotPositiveDefiniteError"]

Matrix = NDArray[np.float64]

#: A factor T is divided by only if its smallest singular value is above this.
_REGULAR = 1e-3


class NotPositiveDefiniteError(ArithmeticError):
    """M(theta) is not numerically positive definite: theta is absurd, or not finite."""


@dataclass(frozen=True, eq=False)
class CoreFactor:
    """A factor's levels in the core, ``n_levels`` times k columns from ``offset``, and its T."""

    offset: int
    n_levels: int
    T: Matrix

    @property
    def k(self) -> int:
        """Columns of a level."""
        return len(self.T)

    @property
    def columns(self) -> slice:
        """Its columns in the core."""
        return slice(self.offset, self.offset + self.n_levels * self.k)


@dataclass(frozen=True, eq=False)
class CoreInverse:
    """P on the core, and per factor the blocks of its levels and the sums the gradient needs."""

    P: Matrix
    blocks: tuple[Matrix, ...]
    N: tuple[Matrix, ...]
    B: tuple[Matrix, ...]


class Core:
    """Cholesky factor C of S.

    Parameters
    ----------
    K : ndarray (c + p + 1, c + p + 1), Fortran order
        Lower triangle of the Schur complement; overwritten by C.
    factors : sequence of CoreFactor
        What its random-effects columns are.
    r, p : int
        Random-effects columns c, and fixed effects.

    Raises
    ------
    NotPositiveDefiniteError
        If a pivot is not positive.
    """

    def __init__(self, K: Matrix, factors: Sequence[CoreFactor], r: int, p: int) -> None:
        self.factors, self.r, self.p = tuple(factors), r, p
        size = r + p
        # Scaling blocks of several columns mixes their rows, so both triangles are needed.
        _kernels.mirror_lower(K)
        regular = all(_is_regular(f.T) for f in self.factors if f.n_levels)
        #: The unscaled Schur complement, kept only where some T cannot be divided by.
        self.K = None if regular else K.copy(order="F")
        self._scale_columns(K)
        self._scale_rows(K)
        np.einsum("ii->i", K)[:r] += 1.0
        # The last pivot is the residual sum of squares; one more keeps it positive if y is zero.
        yy = float(K[size, size])
        K[size, size] = yy + 1.0
        self.C = _cholesky(K)
        half = self.C[size, :size]
        #: penalised residual sum of squares
        self.rho2 = max(yy - float(half @ half), 0.0)
        logs = 2.0 * np.log(np.diag(self.C))
        #: log determinants of the random and of the fixed part
        self.logdet_random = float(logs[:r].sum())
        self.logdet_fixed = float(logs[r:-1].sum())

    @property
    def fixed_root(self) -> Matrix:
        """Lower Cholesky factor of ``X'V0^-1 X``, p x p."""
        return np.asarray(self.C[self.r : -1, self.r : -1])

    def _scale_columns(self, matrix: Matrix, transposed: bool = False) -> None:
        """``matrix @ L~``, or ``matrix @ L~'``, in place."""
        for f in self.factors:
            _kernels.scale_columns(matrix, f.offset, f.n_levels, f.T, transposed)

    def _scale_rows(self, matrix: Matrix, transposed: bool = False) -> None:
        """``L~' @ matrix``, or ``L~ @ matrix``, in place."""
        for f in self.factors:
            _kernels.scale_rows(matrix, f.offset, f.n_levels, f.T, transposed)

    def _scale(self, values: Matrix, transpose: bool) -> Matrix:
        """``L~ values`` or ``L~' values`` for values with one row per column of the core."""
        out = values.copy()
        for f in self.factors:
            shaped = out[f.columns].reshape(f.n_levels, f.k, out.shape[1])
            shaped[...] = np.matmul(f.T.T if transpose else f.T, shaped)
        return out

    def _triangular_solve(self, rhs: Matrix, transposed: bool = False) -> Matrix:
        """``C^-1 rhs`` or ``C'^-1 rhs`` with the leading rows of C that rhs has."""
        return np.ascontiguousarray(solve_lower(self.C, rhs, transposed))

    def forward(self, rhs: Matrix) -> Matrix:
        """``C^-1 L~' rhs``."""
        if not len(rhs):
            return rhs
        return self._triangular_solve(self._scale(rhs, transpose=True))

    def backward(self, solved: Matrix) -> Matrix:
        """``L~ C'^-1 solved``."""
        if not len(solved):
            return solved
        return self._scale(self._triangular_solve(solved, transposed=True), transpose=False)

    def solution(self) -> tuple[Matrix, Matrix]:
        """Random effects and fixed effects (c + p,), and ``c = Z'Py`` (c,)."""
        u = self._triangular_solve(self.C[-1:, :-1].T, transposed=True)
        effects = self._scale(u, transpose=False)[:, 0]
        score = np.empty(self.r)
        if self.K is not None:
            score = self.K[: self.r] @ np.append(-effects, 1.0)
            return effects, score
        for f in self.factors:
            if f.n_levels == 0:
                continue
            # Lambda'c = u
            own = u[f.columns].reshape(f.n_levels, f.k) @ np.linalg.inv(f.T)
            score[f.columns] = own.ravel()
        return effects, score

    def invert(self, size: int) -> CoreInverse:
        """``P = L~ S^-1 L~'`` on the first ``size`` columns: without, or with the fixed effects."""
        if size == 0:
            N, B = ([np.zeros((f.k, f.k)) for f in self.factors] for _ in range(2))
            none = tuple(np.empty((0, f.k, f.k)) for f in self.factors)
            return CoreInverse(np.zeros((0, 0), order="F"), none, tuple(N), tuple(B))
        S_inverse = np.empty((size, size), order="F")
        _kernels.dense_inverse(self.C, S_inverse)
        N, B, P = [], [], []
        sums: Matrix
        score: Matrix
        KL = None
        if self.K is not None:
            KL = self.K.copy(order="F")
            self._scale_columns(KL)
        for f in self.factors:
            rows = np.arange(f.offset, f.columns.stop).reshape(f.n_levels, f.k)
            blocks = S_inverse[rows[:, :, None], rows[:, None, :]]
            P.append(np.ascontiguousarray(f.T @ blocks @ f.T.T))
            if f.n_levels == 0:
                sums = score = np.zeros((f.k, f.k))
            elif KL is None:
                # [K L~ S^-1]_ii = T'^-1 (I - [S^-1]_ii)
                identity = f.n_levels * np.eye(f.k)
                sums = np.asarray(np.linalg.solve(f.T.T, identity - blocks.sum(axis=0)))
                score = np.asarray(np.linalg.solve(f.T.T, sums.T)).T
            else:
                sums = np.asarray(_block_trace(KL[f.columns, :size], S_inverse[:, f.columns], f.k))
                score = self._score_without_division(f, KL, size)
            N.append(np.array(sums, order="C"))
            B.append(np.array(0.5 * (score + score.T), order="C"))
        self._scale_columns(S_inverse, transposed=True)
        self._scale_rows(S_inverse, transposed=True)
        return CoreInverse(S_inverse, tuple(P), tuple(N), tuple(B))

    def _score_without_division(self, f: CoreFactor, KL: Matrix, size: int) -> Matrix:
        """Sum over levels of ``[Z'PZ]_ii = K_ii - [K L~ S^-1 L~'K]_ii``."""
        assert self.K is not None
        half = solve_lower(self.C, KL[f.columns, :size].T)
        own = np.arange(f.offset, f.columns.stop, f.k)
        diagonal = np.array(
            [[self.K[own + a, own + b].sum() for b in range(f.k)] for a in range(f.k)]
        )
        return diagonal - _block_trace(half.T, half, f.k)


def _cholesky(matrix: Matrix) -> Matrix:
    """Lower Cholesky factor, in place; what is above its diagonal means nothing."""
    try:
        _kernels.dense_cholesky(matrix)
    except RuntimeError:
        raise NotPositiveDefiniteError("the remainder is not positive definite") from None
    return matrix


def _is_regular(T: Matrix) -> bool:
    """Whether dividing by T loses no accuracy that matters."""
    values = np.linalg.svd(T, compute_uv=False)
    return bool(values[-1] > _REGULAR * max(1.0, values[0]))


def _block_trace(left: Matrix, right: Matrix, k: int) -> Matrix:
    """Sum over levels of the k x k diagonal blocks of ``left @ right``."""
    return np.array(
        [[np.einsum("ij,ji->", left[a::k], right[:, b::k]) for b in range(k)] for a in range(k)]
    )
