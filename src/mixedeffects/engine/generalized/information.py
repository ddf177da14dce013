"""Curvature of the criterion in the entries of Sigma, beta and phi.

The Hessian of the penalised deviance f* is exact: with symmetric directions E_k of Sigma,
``v_k = (I (x) E_k) c`` and ``V = Z G Z' + W^-1``,

    K_kl = 2 v_k'Z'V^-1 Z v_l     K_k,beta = 2 v_k'Z'V^-1 X     K_beta,beta = 2 X'V^-1 X
    K_phi,phi  = sum d_phiphi - 2 (Z'r_phi)'P(Z'r_phi)
    K_phi,beta = -2 r_phi'(I - ZPZ'W)X        K_phi,k = -2 r_phi'(I - ZPZ'W)Z v_k

The *average information* is K with its part in Sigma less half its Schur complement given beta: in
the linear model the term that log |M| adds is about that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.generalized.laplace import GeneralizedEvaluation
from mixedeffects.engine.objective import along_each

__all__ = ["average_information", "penalised_hessian"]

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
        part = own.reshape(-1, n_sigma).T @ products.reshape(-1, total)
        base[:n_sigma] += part
        base[n_sigma:, :n_sigma] += part[:, n_sigma:].T
    solved, remainder = mode.factorisation.forward(both, np.empty((0, total)))
    base -= remainder.T @ remainder
    for half in solved:
        flat = half.reshape(-1, total)
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
