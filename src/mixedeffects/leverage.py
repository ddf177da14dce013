"""Leverages: the diagonal of the matrix that maps the response to the fitted values.

With ``S = V^-1 X``, ``C = (X'V^-1X)^-1`` and ``P = Lambda M_q^-1 Lambda'`` (relative to sigma^2)

    fixed    [X C X'V^-1]_ii                            = x_i'C s_i
    total    1 - sigma^2/w_i [V^-1 - S C S']_ii         = w_i z_i'P z_i + sigma^2/w_i s_i'C s_i
    random   total - fixed = [Z G Z' V^-1 (I - X C X'V^-1)]_ii

Nothing here is n x n, and the total is a sum of terms that are not negative.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from mixedeffects.covariance.groups import connected_blocks
from mixedeffects.engine.crossproducts import CrossProducts
from mixedeffects.options import checked_choice

if TYPE_CHECKING:
    from mixedeffects.engine.factorisation import Factorisation
    from mixedeffects.model import LinearMixedModel

__all__ = [
    "LEVERAGE_KINDS",
    "leverage",
    "rank_within_blocks",
    "row_quadratic_forms",
    "rows_by_factor",
    "solve_for_levels",
]

Matrix = NDArray[np.float64]
Integers = NDArray[np.int64]

LEVERAGE_KINDS = ("total", "fixed", "random")

#: Memory for the right-hand sides and solutions of one chunk of probes, in bytes.
_CHUNK = 100e6


def leverage(model: LinearMixedModel, kind: str) -> Matrix:
    """Leverages of one kind, shape (n,); see `LinearMixedModel.leverage`.

    Raises
    ------
    ModelError
        If the kind is not one of `LEVERAGE_KINDS`.
    """
    kind = checked_choice(kind, "Leverage kind", LEVERAGE_KINDS)
    # In the basis that the model was fitted in, because the user's columns may be nearly collinear.
    X = model._A.basis.fixed_columns(model.X)
    S = model.V.solve(X)
    root = scipy.linalg.cholesky(X.T @ S, lower=True)
    half_S = scipy.linalg.solve_triangular(root, S.T, lower=True)
    fixed: Matrix = np.einsum(
        "pi,pi->i", scipy.linalg.solve_triangular(root, X.T, lower=True), half_S
    )
    if kind == "fixed":
        return fixed
    total: Matrix = row_quadratic_forms(model) + model.R.diag() * np.einsum(
        "pi,pi->i", half_S, half_S
    )
    return total if kind == "total" else total - fixed


def row_quadratic_forms(model: LinearMixedModel) -> Matrix:
    """``w_i z_i'P z_i``, the leverages if the fixed effects were known; shape (n,).

    A row has one level of each grouping factor, so it needs P only within that level and between
    the levels that occur together in a row. The blocks within a level are the selected inverse;
    those between two factors come from `_between_factors`.
    """
    A = model._A
    factorisation = model.optimum.evaluation.factorisation
    P = factorisation.selected_inverse(with_fixed=False, keep=True).P
    codes, z = rows_by_factor(model)
    out = np.zeros(model.nobs)
    for f in range(len(A.factors)):
        # Level by level through the gathered blocks; k x k numbers a row.
        out += np.einsum("ia,iab,ib->i", z[f], P[f][codes[f]], z[f])
    if len(A.factors) > 1:
        _between_factors(model, factorisation, codes, z, out)
    if model.frame.weights is not None:
        out *= model.frame.weights / A.basis.weight_scale
    return out


def rows_by_factor(model: LinearMixedModel) -> tuple[list[NDArray[np.int32]], list[Matrix]]:
    """Level and columns, in the engine's basis, of each row in each factor."""
    A: CrossProducts = model._A
    codes, z = [], []
    for factor in A.factors:
        columns = np.empty((model.nobs, factor.k))
        for member in factor.members:
            term = model.frame.terms[member.term]
            columns[:, member.columns] = A.basis.term_columns(member.term, term.z)
        codes.append(model.frame.terms[factor.members[0].term].codes)
        z.append(columns)
    return codes, z


def _between_factors(
    model: LinearMixedModel,
    factorisation: Factorisation,
    codes: list[NDArray[np.int32]],
    z: list[Matrix],
    out: Matrix,
) -> None:
    """Add ``2 sum z_f'P_fg z_g`` over pairs of factors, by solving for columns of P.

    P is zero between connected blocks of the data, so one right-hand side serves one level of
    every block at once: nested factors take as many as there are effects outside the innermost
    factor in the largest block, whatever the number of blocks. The innermost factor, which has the
    most effects, is never solved for, because P is symmetric.
    """
    A = factorisation.A
    blocks = connected_blocks(model.frame.terms)
    per_column = 8.0 * sum(f.n_levels * f.k for f in A.factors)
    for g in range(1, len(A.factors)):
        k = A.factors[g].k
        rank = rank_within_blocks(codes[g], A.factors[g].n_levels, blocks)
        rank_of_row = rank[codes[g]]
        order = np.argsort(rank_of_row, kind="stable")
        step = max(1, int(_CHUNK / (per_column * k)))
        for low in range(0, int(rank.max()) + 1, step):
            high = min(low + step, int(rank.max()) + 1)
            first, last = np.searchsorted(rank_of_row[order], [low, high])
            rows = order[first:last]
            inverse = solve_for_levels(factorisation, g, rank, low, high)
            columns = (rank_of_row[rows] - low)[:, None] * k + np.arange(k)
            for f in range(g):
                blocks_fg = inverse[f][
                    codes[f][rows][:, None, None],
                    np.arange(A.factors[f].k)[None, :, None],
                    columns[:, None, :],
                ]
                out[rows] += 2.0 * np.einsum("ia,iab,ib->i", z[f][rows], blocks_fg, z[g][rows])


def rank_within_blocks(codes: NDArray[np.int32], n_levels: int, blocks: Integers) -> Integers:
    """Number of each level among those of its connected block."""
    block_of_level = np.zeros(n_levels, dtype=np.int64)
    block_of_level[codes] = blocks
    order = np.argsort(block_of_level, kind="stable")
    sizes = np.bincount(block_of_level)
    starts = np.cumsum(sizes) - sizes
    rank = np.empty(n_levels, dtype=np.int64)
    rank[order] = np.arange(n_levels) - np.repeat(starts, sizes)
    return rank


def solve_for_levels(
    factorisation: Factorisation, g: int, rank: Integers, low: int, high: int
) -> list[Matrix]:
    """Columns of P for the effects of factor g whose level has a rank in [low, high).

    Levels of equal rank share their k columns, the first of which is ``k (rank - low)``.
    """
    A = factorisation.A
    k = A.factors[g].k
    m = (high - low) * k
    rhs = [np.zeros((f.n_levels, f.k, m)) for f in A.factors]
    levels = np.flatnonzero((rank >= low) & (rank < high))
    for a in range(k):
        rhs[g][levels, a, (rank[levels] - low) * k + a] = 1.0
    return factorisation.solve(rhs, np.zeros((0, m)))[0]
