"""Variance of the error of a linear predictor of a generalized model, all parameters estimated.

With ``P`` the conditional covariance of the random effects at the modes, C the joint covariance of
the estimates of covariances, beta and phi, and J the derivative of ``x'beta + z'b`` by them,

    Var = z'P z + J C J'      J = [z'(I - P A) dG_j c,  x - X'W Z P z,  z'P Z'r_phi]

for c with ``b = G c``: the modes move with the parameters.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.caching import cached_property
from mixedeffects.fitting.fit import once_per_fit
from mixedeffects.fitting.generalized import GeneralizedFit, generalized
from mixedeffects.inference.prediction_variance import PredictionVariance

__all__ = ["GeneralizedPredictionVariance", "joint_root", "natural_covariance"]

Matrix = NDArray[np.float64]


@once_per_fit("root of the joint covariance")
def _root(fit: object) -> Matrix:
    covariance = generalized(fit).found.joint.covariance
    if not np.isfinite(covariance).all():
        return np.full(covariance.shape, np.nan)
    size = np.sqrt(np.diag(covariance))
    size = np.where(size > 0.0, size, 1.0)
    values, vectors = np.linalg.eigh(covariance / np.outer(size, size))
    return np.asarray(size[:, None] * vectors * np.sqrt(np.maximum(values, 0.0)))


def joint_root(fit: GeneralizedFit) -> Matrix:
    """A root of the joint covariance of covariances, beta and phi in the engine's basis, (r, r)."""
    return _root(fit)


def natural_covariance(fit: GeneralizedFit) -> Matrix:
    """Covariance matrix of beta and the lower entries of each term's G, row by row, as they are.

    Of entries that a singular covariance or a structure ties, it is singular.
    """
    root, joint, basis = joint_root(fit), fit.found.joint, fit.crossproducts.basis
    rows = [basis.fixed @ root[joint.fixed]]
    for C, directions in zip(basis.terms, joint.directions, strict=True):
        moved = C @ directions @ C.T
        a, b = np.tril_indices(len(C))
        rows.append(moved[:, a, b].T @ root[: joint.n_covariance])
    J = np.concatenate(rows)
    return np.asarray(J @ J.T)


class GeneralizedPredictionVariance(PredictionVariance):
    """Variances of the error of linear predictors, row by row; as `PredictionVariance`."""

    def __init__(
        self, fit: GeneralizedFit, terms: tuple[int, ...], root: Matrix | None = None
    ) -> None:
        super().__init__(fit, terms)
        self._record = fit
        #: Of the covariance of all parameters; the model's unless another is given.
        self._root = joint_root(fit) if root is None else root

    @property
    def _n_parameters(self) -> int:
        return int(self._root.shape[1])

    @cached_property
    def _fixed(self) -> tuple[Matrix, list[Matrix]]:
        """Matrices (p, r) and (l, k, r) that take a row's x and z to ``root(C)'J'``."""
        root, found = self._root, self._record.found
        joint = found.joint
        from_x = np.asarray(self._A.basis.fixed @ root[joint.fixed])
        if not self._members:
            return from_x, []
        evaluation = found.evaluation
        design, mode, rows = evaluation.design, evaluation.mode, evaluation.rows
        m = joint.n_covariance
        of_rows = np.empty((design.n, len(root) - m))
        of_rows[:, : joint.p] = design.X * rows.W[:, None]
        if rows.r_phi is not None:
            of_rows[:, joint.p] = -rows.r_phi
        direct = []
        for factor, c in zip(design.skeleton.factors, mode.c, strict=True):
            own = np.zeros((factor.n_levels, factor.k, m))
            for member in factor.members:
                at = member.columns
                own[:, at] = np.einsum("jab,lb->laj", joint.directions[member.term], c[:, at])
            direct.append(own)
        pulled, _ = mode.A.multiply(direct, np.zeros((1, m)))
        rhs = [
            np.concatenate([own, more], axis=2)
            for own, more in zip(pulled, design.sums(of_rows), strict=True)
        ]
        solved, _ = mode.factorisation.solve(rhs, np.empty((0, len(root))))
        from_z = []
        for own, moved in zip(direct, solved, strict=True):
            J = -moved
            J[:, :, :m] += own
            from_z.append(J @ root)
        return from_x, from_z

    def variance_directions(self, t: int, z: Matrix) -> Matrix:
        """Derivatives of ``z'G z`` of a term by the parameters, times the root of C, (m, r)."""
        joint = self._record.found.joint
        own = z @ self._A.basis.terms[t]
        slopes = np.einsum("ia,jab,ib->ij", own, joint.directions[t], own, optimize=True)
        return np.asarray(slopes @ self._root[: joint.n_covariance])
