"""Curvature of the criterion in the entries of Sigma, beta and phi.

The Hessian of the penalised deviance f* is exact: with symmetric directions E_k of Sigma,
``v_k = (I (x) E_k) c`` and ``V = Z G Z' + W^-1``,

    K_kl = 2 v_k'Z'V^-1 Z v_l     K_k,beta = 2 v_k'Z'V^-1 X     K_beta,beta = 2 X'V^-1 X
    K_phi,phi  = sum d_phiphi - 2 (Z'r_phi)'P(Z'r_phi)
    K_phi,beta = -2 r_phi'(I - ZPZ'W)X        K_phi,k = -2 r_phi'(I - ZPZ'W)Z v_k

With one factor, where everything is a block per level, the Hessian of log |M| is exact too: with
dG_j for a direction of Sigma, x_j for a column of X,

    b_j = (I - PA) dG_j c - P Z'W x_j     eta_j = x_j + Z b_j     c_j = -Z'W eta_j
    A_j = Z'diag(W' eta_j) Z              B = Z'V^-1 Z

    tr dG_j (I - AP) A_k (I - PA) + tr dG_k (I - AP) A_j (I - PA) - tr B dG_j B dG_k
    - tr P A_j P A_k + sum (h W'' - (Zv) W') eta_j eta_k + e'(dG_j c_k + dG_k c_j)

With several factors these traces leave A's pattern. The *average information* is K with its part
in Sigma less half its Schur complement given beta: in the linear model the term that log |M| adds
is about that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.generalized.laplace import GeneralizedEvaluation
from mixedeffects.engine.objective import along_each

__all__ = ["average_information", "logdet_hessian", "model_hessian", "penalised_hessian"]

Matrix = NDArray[np.float64]

#: Curvature in phi to step with at least, as a share of the size of the gradient there.
_LEAST = 0.05
#: Smallest eigenvalue of a curvature in beta, relative to the largest, that is not flat.
_FLAT = 1e-12


def penalised_hessian(evaluation: GeneralizedEvaluation, directions: Sequence[Matrix]) -> Matrix:
    """Second derivatives K of f* along directions of Sigma, then in beta and phi.

    Parameters
    ----------
    evaluation : GeneralizedEvaluation
        Where.
    directions : sequence of ndarray (r, k, k)
        Symmetric matrices per term.

    Returns
    -------
    ndarray, shape (R + p + s, R + p + s)
        R directions of all terms one after the other; s is one where the family has a parameter.
    """
    design, mode, rows = evaluation.design, evaluation.mode, evaluation.rows
    A, n_sigma, p = mode.A, sum(len(each) for each in directions), design.p
    has_phi = rows.r_phi is not None
    total = n_sigma + p + has_phi
    of_rows = np.empty((design.n, p + has_phi))
    of_rows[:, :p] = design.X * rows.W[:, None]
    base = np.zeros((total, total))
    base[n_sigma : n_sigma + p, n_sigma : n_sigma + p] = design.X.T @ of_rows[:, :p]
    if rows.r_phi is not None and rows.d_phiphi is not None:
        of_rows[:, p] = -rows.r_phi
        base[-1, -1] = 0.5 * float(rows.d_phiphi.sum())
        base[-1, n_sigma:-1] = base[n_sigma:-1, -1] = -(design.X.T @ rows.r_phi)
    sums = design.sums(of_rows)
    v = along_each(A, mode.c, directions)
    Av, _ = A.multiply(v, np.zeros((1, n_sigma)))
    both = [np.concatenate([own, more], axis=2) for own, more in zip(Av, sums, strict=True)]
    for own, products in zip(v, both, strict=True):
        # Where all variances are at zero there are no directions.
        size = own.shape[0] * own.shape[1]
        part = own.reshape(size, n_sigma).T @ products.reshape(size, total)
        base[:n_sigma] += part
        base[n_sigma:, :n_sigma] += part[:, n_sigma:].T
    solved, remainder = mode.factorisation.forward(both, np.empty((0, total)))
    base -= remainder.T @ remainder
    for half in solved:
        flat = half.reshape(half.shape[0] * half.shape[1], total)
        base -= flat.T @ flat
    return np.asarray(base + base.T)


def average_information(evaluation: GeneralizedEvaluation, directions: Sequence[Matrix]) -> Matrix:
    """Curvature to step with; as `penalised_hessian`."""
    H = penalised_hessian(evaluation, directions)
    n_sigma, p = sum(len(each) for each in directions), evaluation.design.p
    of_sigma = H[:n_sigma, :n_sigma]
    cross = H[:n_sigma, n_sigma : n_sigma + p]
    taken = np.zeros_like(of_sigma)
    if p:
        values, vectors = np.linalg.eigh(H[n_sigma : n_sigma + p, n_sigma : n_sigma + p])
        seen = values > _FLAT * max(float(values[-1]), 0.0)
        if seen.any():
            half = (cross @ vectors[:, seen]) / np.sqrt(values[seen])
            taken = half @ half.T
    H[:n_sigma, :n_sigma] = 0.5 * (of_sigma + taken)
    if evaluation.rows.r_phi is not None:
        H[-1, -1] = max(H[-1, -1], _LEAST * abs(evaluation.phi_gradient))
    return H


def logdet_hessian(evaluation: GeneralizedEvaluation, directions: Sequence[Matrix]) -> Matrix:
    """Second derivatives of log |M| along directions of Sigma and in beta, with one factor.

    Parameters
    ----------
    evaluation : GeneralizedEvaluation
        Where.
    directions : sequence of ndarray (r, k, k)
        Symmetric matrices per term.

    Returns
    -------
    ndarray, shape (R + p, R + p)
    """
    design, mode, P = evaluation.design, evaluation.mode, evaluation.P
    assert P is not None
    (factor,) = design.skeleton.factors
    k, m, p = factor.k, sum(len(each) for each in directions), design.p
    A = mode.A.chain[0].diag
    rows = design.rows(evaluation.eta, evaluation.phi, 2)
    assert rows.W2 is not None
    dG = np.zeros((m, k, k))
    starts = np.cumsum([0, *[len(each) for each in directions]])
    for member in factor.members:
        own = slice(starts[member.term], starts[member.term + 1])
        dG[own, member.columns, member.columns] = directions[member.term]
    c, e = mode.c[0], evaluation.e[0]
    u = np.einsum("jab,lb->laj", dG, c)
    pulled = np.concatenate([A @ u, design.sums(design.X * rows.W[:, None])[0]], axis=2)
    b = -(P @ pulled)
    b[:, :, :m] += u
    bent = evaluation.h * rows.W2 - evaluation.v_rows * rows.W1
    c_j, A_j, of_rows = design.curvature_sums(b, rows.W, rows.W1, bent)
    left = np.eye(k) - A @ P
    # Of (I - AP) A_k (I - PA) the sum over levels; matrix products are faster than one sum of all.
    levels = len(left)
    half = (left @ A_j.reshape(levels, k, k * (m + p))).reshape(levels, k, k, m + p)
    around = np.tensordot(half, left, axes=((0, 2), (0, 2))).transpose(0, 2, 1)
    of_e = np.tensordot(e, c_j, axes=((0,), (0,)))
    H = np.zeros((m + p, m + p))
    H[:m] = np.einsum("jab,bak->jk", dG, around) - np.einsum("jab,abk->jk", dG, of_e)
    H += H.T
    BG = np.tensordot(A @ left.transpose(0, 2, 1), dG, axes=((2,), (1,))).transpose(0, 1, 3, 2)
    H[:m, :m] -= _traces(BG)
    PA = (P @ A_j.reshape(levels, k, k * (m + p))).reshape(levels, k, k, m + p)
    H -= _traces(PA)
    return np.asarray(H + of_rows)


def _traces(products: Matrix) -> Matrix:
    """``sum_l tr Q_lj Q_lk`` for arrays (l, k, k, m)."""
    levels, k, _, m = products.shape
    flat, transposed = (
        own.reshape(levels * k * k, m) for own in (products, products.transpose(0, 2, 1, 3))
    )
    return np.asarray(transposed.T @ flat)


def model_hessian(evaluation: GeneralizedEvaluation, directions: Sequence[Matrix]) -> Matrix:
    """The best curvature at hand, as `penalised_hessian`.

    With one factor second derivatives, but for those of log |M| in phi; else average information.
    """
    if evaluation.P is None:
        return average_information(evaluation, directions)
    H = penalised_hessian(evaluation, directions)
    exact = logdet_hessian(evaluation, directions)
    H[: len(exact), : len(exact)] += exact
    if len(H) > len(exact):
        H[-1, -1] = max(H[-1, -1], _LEAST * abs(evaluation.phi_gradient))
    return H
