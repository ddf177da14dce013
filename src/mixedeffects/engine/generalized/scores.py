"""The gradient of the criterion, in parts: one for each cluster of rows.

Where clusters contain whole levels of every factor the likelihood is a product over clusters, and
so the gradient of D is a sum: of rows of ``X'(a - 2r)`` for beta, of rows of dD/dphi, and for Sigma
of the levels of

    F_i = [Z'V^-1 Z]_ii - c_i c_i' + (e_i c_i' + c_i e_i') / 2

Levels of different clusters do not meet in V, so that the blocks ``[Z'V^-1 Z]_ii`` of one level of
each cluster come from the same right-hand sides.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixedeffects import _kernels
from mixedeffects.engine.basis import lower_factor
from mixedeffects.engine.generalized.joint import JointHessian
from mixedeffects.engine.generalized.laplace import GeneralizedEvaluation
from mixedeffects.engine.generalized.quadrature import quadrature_parts, scores_of_levels

__all__ = ["cluster_scores"]

Matrix = NDArray[np.float64]
Codes = NDArray[np.integer]

#: Numbers in the right-hand sides that are solved for at once.
_AT_ONCE = 16_000_000


def cluster_scores(
    evaluation: GeneralizedEvaluation, joint: JointHessian, codes: Codes, n_clusters: int
) -> Matrix:
    """Gradient of every cluster's part of the criterion in the coordinates of the joint Hessian.

    Parameters
    ----------
    evaluation : GeneralizedEvaluation
        Where.
    joint : JointHessian
        Its coordinates.
    codes : ndarray of int, shape (n,)
        Cluster of each row; clusters contain whole levels of every factor.
    n_clusters : int
        Number of clusters, J.

    Returns
    -------
    ndarray, shape (J, m + p + s)
    """
    design, rows = evaluation.design, evaluation.rows
    codes = np.ascontiguousarray(codes, dtype=np.int32)
    if evaluation.nodes > 1:
        parts = quadrature_parts(evaluation, evaluation.nodes)
        roots = [lower_factor(T) for T in evaluation.T]
        of_factor = [scores_of_levels(design, parts, roots)]
        of_rows, of_phi = parts.rows, parts.phi
    else:
        a = evaluation.h * rows.W1 - rows.W * evaluation.v_rows
        of_rows, of_phi = a - 2.0 * rows.r, None
        if rows.d_phi is not None and rows.W_phi is not None and rows.r_phi is not None:
            of_phi = rows.d_phi + evaluation.h * rows.W_phi + evaluation.v_rows * rows.r_phi
        of_factor = _laplace_scores(evaluation, codes, n_clusters)
    out = np.zeros((n_clusters, len(joint.hessian)))
    for f, (factor, F) in enumerate(zip(design.skeleton.factors, of_factor, strict=True)):
        level_codes = _clusters_of_levels(design.codes_of(f), factor.n_levels, codes)
        for member in factor.members:
            own = F[:, member.columns, member.columns]
            along = np.einsum("lab,rab->lr", own, joint.directions[member.term])
            out[:, : joint.n_covariance] += _sums(along, level_codes, n_clusters)
    out[:, joint.fixed] = _sums(design.X * of_rows[:, None], codes, n_clusters)
    if of_phi is not None:
        out[:, -1] = _sums(of_phi[:, None], codes, n_clusters)[:, 0]
    return out


def _sums(values: Matrix, codes: Codes, n_clusters: int) -> Matrix:
    out = np.zeros((n_clusters, 1, values.shape[1]))
    ones = np.ones((len(values), 1))
    _kernels.group_sums(
        np.ascontiguousarray(codes, dtype=np.int32), ones, np.ascontiguousarray(values), out
    )
    return out[:, 0]


def _clusters_of_levels(levels: Codes, n_levels: int, codes: Codes) -> Codes:
    out = np.zeros(n_levels, dtype=np.int32)
    out[levels] = codes
    return out


def _laplace_scores(
    evaluation: GeneralizedEvaluation, codes: Codes, n_clusters: int
) -> list[Matrix]:
    """``F_i`` of every level, an array (l, k, k) per factor."""
    out = []
    for f, factor in enumerate(evaluation.design.skeleton.factors):
        c, e = evaluation.mode.c[f], evaluation.e[f]
        cross = e[:, :, None] * c[:, None, :]
        cross = 0.5 * (cross + cross.transpose(0, 2, 1))
        B = _own_blocks(evaluation, f, factor.n_levels, codes, n_clusters)
        out.append(B - c[:, :, None] * c[:, None, :] + cross)
    return out


def _own_blocks(
    evaluation: GeneralizedEvaluation, f: int, n_levels: int, codes: Codes, n_clusters: int
) -> Matrix:
    """``[Z'V^-1 Z]_ii`` of every level of a factor, shape (l, k, k)."""
    design, W = evaluation.design, evaluation.rows.W
    levels, z = design.codes_of(f), design.columns_of(f)
    n, k = z.shape
    clusters = _clusters_of_levels(levels, n_levels, codes)
    order = np.argsort(clusters, kind="stable")
    counts = np.bincount(clusters, minlength=n_clusters)
    rank = np.empty(n_levels, dtype=np.intp)
    rank[order] = np.arange(n_levels) - np.repeat(np.cumsum(counts) - counts, counts)
    of_rows = rank[levels]
    picked = np.empty((n, k))
    step = max(1, _AT_ONCE // max(n * k, 1))
    for start in range(0, int(counts.max()), step):
        own = np.flatnonzero((of_rows >= start) & (of_rows < start + step))
        place = of_rows[own] - start
        width = min(step, int(counts.max()) - start)
        U = np.zeros((n, width, k))
        U[own, place] = W[own, None] * z[own]
        flat = U.reshape(n, width * k)
        solved, _ = evaluation.mode.factorisation.solve(design.sums(flat), np.empty((0, width * k)))
        left = flat - W[:, None] * design.expand(solved)
        picked[own] = left.reshape(n, width, k)[own, place]
    B = np.zeros((n_levels, k, k))
    _kernels.group_sums(
        np.ascontiguousarray(levels, dtype=np.int32), z, np.ascontiguousarray(picked), B
    )
    return 0.5 * (B + B.transpose(0, 2, 1))
