"""``tr(P K_r P K_s)`` without differences, where the matrices it takes are small enough to form.

``K_r = Z_f (I (x) E_r) Z_f'`` for directions E_r of a factor's Sigma, and with ``H = Z'PZ``

    tr(P K_r P K_s) = sum over a, b, c, d of  E_r[a, b] F_fg[a, b, c, d] E_s[c, d],
    F_fg[a, b, c, d] = sum over levels i of f and j of g of  H_ij[a, c] H_ij[b, d].

The first factor (1) is eliminated level by level; the other random effects (2) and, under REML, the
fixed effects are dense. With ``D_i`` and ``C_i`` the blocks of ``Z1'V1^-1 Z1`` and
``Z1'V1^-1 Z2``, ``N = Z2'V1^-1 Z2``, ``V1`` the part of V0 without 2, all of them less what the
fixed effects take, and ``P2 = (Sigma2^-1 + N)^-1``,

    H_11 = D - C P2 C',    H_12 = C (I - P2 N),    H_22 = N - N P2 N.

For one factor nothing is dense but the fixed effects: the cost is that of a pass over its levels.

Columns are in units R of each factor with ``R R' = Sigma + (l/n) I``, in which the answer is of
size one. Differences that would lose digits where effects explain most are put together from
their products with Sigma, which need none, and with the small ``I - Sigma``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from mixedeffects.engine.crossproducts import ChainFactor, CrossProducts, Member, RestFactor
from mixedeffects.engine.factorisation import Factorisation
from mixedeffects.engine.memory import entries_that_fit
from mixedeffects.engine.quadratic_forms import fixed_scores
from mixedeffects.engine.triangular import solve_lower

__all__ = ["are_worth_forming", "natural_root", "trace_forms"]

Matrix = NDArray[np.float64]

#: Entries that all matrices together may have.
_MOST_ENTRIES = 5e7
#: Operations of an evaluation that do not depend on its size, in those of dense matrices; and by
#: how much the others are slower than those.
_OVERHEAD, _SLOWER = 5e6, 4.0


def natural_root(T: Matrix, D: Matrix, visible: float) -> Matrix:
    """Lower triangular S with ``S S' = T T' + visible (D'D)^-1`` and a positive diagonal."""
    wide = np.hstack([T, np.sqrt(visible) * np.linalg.inv(D)])
    S = np.tril(np.asarray(np.linalg.qr(wide.T, mode="r")).T)
    return np.asarray(S * np.where(np.diag(S) < 0.0, -1.0, 1.0))


def are_worth_forming(A: CrossProducts, reml: bool, evaluations: int) -> bool:
    """Whether the forms cost less than so many evaluations of the gradient, and fit into memory."""
    if A.provisional is not None and len(A.factors) > 1:
        # Columns less their effects; H is not made of the blocks there.
        return False
    first = A.chain[0]
    rows = float(first.n_levels * first.k)
    outer = float(sum(f.n_levels * f.k for f in A.factors[1:]))
    dense = outer + (A.p if reml else 0)
    entries = 4.0 * rows * dense + 6.0 * dense**2 + min(_pairs_of_first(first.k, rows, dense))
    if entries > min(_MOST_ENTRIES, entries_that_fit()):
        return False
    forming = 6.0 * rows * dense**2 + 8.0 * dense**3
    forming += min(_work_on_first(rows, first.k, dense))
    forming += sum(2.0 * rows * outer * first.k * f.k for f in A.factors[1:])
    eliminating = sum(
        f.k * float(((f.head + np.diff(f.ptr)).astype(np.float64) ** 2).sum()) for f in A.chain
    )
    core = float(A.remainder.core_size)
    evaluation = _OVERHEAD + _SLOWER * 2.0 * eliminating + 3.0 * core**3
    return forming <= evaluations * evaluation


def _pairs_of_first(k: int, rows: float, dense: float) -> tuple[float, float]:
    """Entries of H_11, and of the sums over its levels in place of it."""
    return 2.0 * rows**2, 2.0 * (k * dense) ** 2


def trace_forms(
    factorisation: Factorisation, T: Sequence[Matrix], directions: Sequence[Matrix], reml: bool
) -> Matrix:
    """``tr(P K_r P K_s)`` for all pairs of directions.

    Parameters
    ----------
    factorisation : Factorisation
        M at T; without provisional effects where there are several factors.
    T : sequence of ndarray (k, k)
        One factor per term, in the engine's basis, of whatever size.
    directions : sequence of ndarray (r, k, k)
        For each term, symmetric changes of Sigma.
    reml : bool
        With the P of the restricted likelihood, else ``V0^-1``.

    Returns
    -------
    ndarray (m, m)
        The directions of all terms one after the other.
    """
    A = factorisation.A
    roots = [natural_root(t, np.eye(len(t)), f) for t, f in zip(T, _shares(A), strict=True)]
    units = [_on_diagonal(factor.members, roots) for factor in A.factors]
    # T in these units, and I - Sigma there.
    scaled, rest = [], []
    for factor, R in zip(A.factors, units, strict=True):
        inverse = np.linalg.inv(R)
        scaled.append(inverse @ _on_diagonal(factor.members, T))
        rest.append(factor.n_levels / A.n * (inverse @ inverse.T))
    sums = _pair_sums(factorisation, units, scaled, rest, reml)
    starts = np.cumsum([0] + [len(each) for each in directions])
    flat: list[tuple[int, int, Matrix]] = []
    for f, factor in enumerate(A.factors):
        for member in factor.members:
            inverse = np.linalg.inv(roots[member.term])
            own = directions[member.term]
            whole = np.zeros((len(own), factor.k, factor.k))
            whole[:, member.columns, member.columns] = inverse @ own @ inverse.T
            flat.append((f, member.term, whole.reshape(len(own), factor.k**2)))
    out = np.empty((starts[-1], starts[-1]))
    for f, t, left in flat:
        for g, s, right in flat:
            if f <= g:
                block = left @ sums[f, g] @ right.T
                out[starts[t] : starts[t + 1], starts[s] : starts[s + 1]] = block
                out[starts[s] : starts[s + 1], starts[t] : starts[t + 1]] = block.T
    return 0.5 * (out + out.T)


def _shares(A: CrossProducts) -> list[float]:
    """``l/n`` per term."""
    shares = [0.0] * len(A.term_columns)
    for factor in A.factors:
        for member in factor.members:
            shares[member.term] = factor.n_levels / A.n
    return shares


def _on_diagonal(members: Sequence[Member], matrices: Sequence[Matrix]) -> Matrix:
    return np.asarray(scipy.linalg.block_diag(*(matrices[m.term] for m in members)))


def _pair_sums(
    factorisation: Factorisation,
    units: Sequence[Matrix],
    T: Sequence[Matrix],
    rest: Sequence[Matrix],
    reml: bool,
) -> dict[tuple[int, int], Matrix]:
    """F_fg for f <= g as matrices ``(a, b), (c, d)``, in the units of the factors."""
    A = factorisation.A
    first, outer = A.chain[0], A.factors[1:]
    levels, k = first.n_levels, first.k
    R, L, K = units[0], T[0], rest[0]
    own = R.T @ first.diag @ R
    M_inverse = np.asarray(np.linalg.inv(np.eye(k) + L.T @ own @ L), dtype=np.float64)
    B = L @ M_inverse @ L.T
    D = _schur(own, _Same(L), _Same(K), M_inverse)
    if not outer:
        # Z'V0^-1 X, with the digits that it has where the columns are less their effects.
        taken = np.zeros((levels, k, 0))
        if reml:
            scores = (R.T @ fixed_scores(factorisation)[0]).reshape(levels * k, A.p)
            taken = solve_lower(factorisation.fixed_root, scores.T).T.reshape(levels, k, A.p)
        return {(0, 0): _first_pairs(D, taken)}
    with_first, among = _dense_blocks(A, units, A.p if reml else 0)
    # (I + A_i Sigma)^-1
    shrink = B + K @ (np.eye(k) - own @ B)
    C: Matrix = shrink @ with_first
    flat = with_first.reshape(levels * k, -1)
    N: Matrix = among - flat.T @ (B @ with_first).reshape(levels * k, -1)
    N = 0.5 * (N + N.T)
    q = sum(f.n_levels * f.k for f in outer)
    C, of_fixed = C[:, :, :q], C[:, :, q:]
    parts = []
    if N.shape[0] > q:
        root: Matrix = np.asarray(np.linalg.cholesky(N[q:, q:]))
        half = solve_lower(root, N[q:, :q])
        taken = solve_lower(root, of_fixed.reshape(levels * k, -1).T).T.reshape(levels, k, -1)
        parts.append(taken)
        N = N[:q, :q] - half.T @ half
        C = C - taken @ half
    Lambda, small = _Levels(outer, T[1:]), _Levels(outer, rest[1:])
    inside = Lambda.times(Lambda.times(N).T)
    inner: Matrix = np.asarray(np.linalg.cholesky(np.eye(q) + 0.5 * (inside + inside.T)))
    outer_inverse = np.asarray(scipy.linalg.cho_solve((inner, True), np.eye(q)))
    P2 = Lambda.times_transposed(Lambda.times_transposed(outer_inverse).T)
    scaled = Lambda.times(C.reshape(levels * k, q))
    parts.append(solve_lower(inner, scaled.T).T.reshape(levels, k, q))
    Y = np.concatenate(parts, axis=2)
    sums = {(0, 0): _first_pairs(D, Y)}
    # I - P2 N, of which P2 is the part times Sigma.
    U = P2 + small.times(np.eye(q) - P2 @ N)
    H12 = C.reshape(levels * k, q) @ U
    H22 = _schur(N, Lambda, small, outer_inverse)
    ends = np.cumsum([0] + [f.n_levels * f.k for f in outer])
    columns = [slice(int(a), int(b)) for a, b in pairwise(ends)]
    for g, (other, at) in enumerate(zip(outer, columns, strict=True), start=1):
        sums[0, g] = _sums(H12[:, at], k, other.k)
        for f in range(1, g + 1):
            sums[f, g] = _sums(H22[columns[f - 1], at], outer[f - 1].k, other.k)
    return sums


def _dense_blocks(A: CrossProducts, units: Sequence[Matrix], p: int) -> tuple[Matrix, Matrix]:
    """Products of 2 and the fixed effects with the levels of the first factor, and among them."""
    outer = A.factors[1:]
    q = sum(f.n_levels * f.k for f in outer)
    first, size = A.chain[0], q + p
    blocks, at = [np.zeros((first.n_levels, first.k, size))], 0
    for f, R in zip(outer, units[1:], strict=True):
        own = np.zeros((f.n_levels, f.k, size))
        for a in range(f.k):
            for b in range(f.k):
                own[np.arange(f.n_levels), b, at + np.arange(f.n_levels) * f.k + a] = R[b, a]
        blocks.append(own)
        at += f.n_levels * f.k
    unit = np.zeros((A.p + 1, size))
    unit[np.arange(p), q + np.arange(p)] = 1.0
    products, border = A.multiply(blocks, unit)
    with_first = units[0].T @ products[0]
    among = [(R.T @ own).reshape(-1, size) for R, own in zip(units[1:], products[1:], strict=True)]
    return with_first, np.vstack([*among, border[:p]])


@dataclass(frozen=True)
class _Same:
    """A matrix to multiply others with, or all of a stack."""

    matrix: Matrix

    def times(self, left: Matrix) -> Matrix:
        """``left @ matrix``."""
        return np.asarray(left @ self.matrix)

    def times_transposed(self, left: Matrix) -> Matrix:
        """``left @ matrix'``."""
        return np.asarray(left @ self.matrix.T)


@dataclass(frozen=True)
class _Levels:
    """The same with one block on the diagonal for every level of some factors."""

    factors: Sequence[ChainFactor | RestFactor]
    blocks: Sequence[Matrix]

    def times(self, left: Matrix) -> Matrix:
        """``left @ matrix``."""
        return self._times(left, self.blocks)

    def times_transposed(self, left: Matrix) -> Matrix:
        """``left @ matrix'``."""
        return self._times(left, [block.T for block in self.blocks])

    def _times(self, left: Matrix, blocks: Sequence[Matrix]) -> Matrix:
        out, at = np.empty(left.shape), 0
        for f, block in zip(self.factors, blocks, strict=True):
            own = slice(at, at + f.n_levels * f.k)
            out[:, own] = (left[:, own].reshape(-1, f.k) @ block).reshape(len(left), -1)
            at = own.stop
        return out


def _schur(N: Matrix, L: _Same | _Levels, K: _Same | _Levels, M_inverse: Matrix) -> Matrix:
    """``N - N L M^-1 L'N = (N^-1 + L L')^-1``, ``M = I + L'N L``, where ``K = I - L L'``.

    ``L'H L = L'N L M^-1`` and ``H L = N L M^-1`` need no difference.
    """
    NL = L.times(N)
    HL = NL @ M_inverse
    LHL = L.times(_transposed(HL))
    both = L.times_transposed(_transposed(L.times_transposed(LHL)))
    mixed = L.times_transposed(_transposed(K.times(_transposed(HL))))
    plain = K.times(_transposed(K.times(N - HL @ _transposed(NL))))
    H = both + mixed + _transposed(mixed) + plain
    return np.asarray(0.5 * (H + _transposed(H)))


def _transposed(matrices: Matrix) -> Matrix:
    return np.swapaxes(matrices, -1, -2)


def _sums(H: Matrix, k: int, other: int) -> Matrix:
    """F of the blocks of one matrix H, whose rows are k to a level and columns ``other``."""
    blocks = H.reshape(H.shape[0] // k, k, H.shape[1] // other, other)
    flat = blocks.transpose(1, 3, 0, 2).reshape(k * other, -1)
    gram = (flat @ flat.T).reshape(k, other, k, other)
    return np.asarray(gram.transpose(0, 2, 1, 3).reshape(k * k, other * other))


def _is_less_to_form(rows: int, k: int, size: int) -> bool:
    """Whether H_11 is less work than sums of products of its parts."""
    formed, summed = _work_on_first(rows, k, size)
    return formed < summed


def _work_on_first(rows: float, k: int, size: float) -> tuple[float, float]:
    """Operations for the pairs of levels of the first factor, by H_11 and without it."""
    return 2.0 * rows**2 * (size + k * k), 2.0 * (k * rows + float(k) ** 4) * size**2


def _first_pairs(D: Matrix, Y: Matrix) -> Matrix:
    """F of ``blockdiag(D) - Y Y'`` for arrays (l, k, k) and (l, k, c)."""
    levels, k, size = Y.shape
    rows = levels * k
    if size and _is_less_to_form(rows, k, size):
        flat = Y.reshape(rows, size)
        H = -(flat @ flat.T).reshape(levels, k, levels, k)
        H[np.arange(levels), :, np.arange(levels), :] += D
        return _sums(H.reshape(rows, rows), k, k)
    own = Y @ Y.transpose(0, 2, 1)
    # Of pairs of a level with itself, D_i - Y_i Y_i' in place of -Y_i Y_i'.
    less, taken = (D - own).reshape(levels, -1), own.reshape(levels, -1)
    gram = less.T @ less - taken.T @ taken
    out = gram.reshape(k, k, k, k).transpose(0, 2, 1, 3).reshape(k * k, k * k)
    if size:
        columns = Y.transpose(1, 2, 0).reshape(k * size, levels)
        pairs = (columns @ columns.T).reshape(k, size, k, size)
        flat = pairs.transpose(0, 2, 1, 3).reshape(k * k, size * size)
        out = out + flat @ flat.T
    return np.asarray(out)
