"""Second derivatives in the user's theta: what Satterthwaite's method and the certificate rest on.

The deviance as a function of (theta, sigma), *not* profiled over sigma, is

    D(theta, sigma) = logdet M(theta) + rho^2(theta)/sigma^2 + df log(2 pi sigma^2) + constant,

and ``C(theta, sigma) = sigma^2 (X'V0^-1X)^-1`` is the covariance matrix of the fixed effects.
Derivatives in theta of the analytic gradient are central differences; everything else is analytic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from mixedeffects.engine.crossproducts import CrossProducts
from mixedeffects.engine.factorisation import Factorisation
from mixedeffects.engine.objective import evaluate
from mixedeffects.engine.optimum import SINGULAR, Optimum
from mixedeffects.engine.parameters import T_to_theta, lower_entries, theta_to_T

__all__ = ["Curvature", "fixed_effects_covariance", "observed_curvature", "vcov_jacobian"]

Matrix = NDArray[np.float64]

#: Step of the central differences, relative to the size of a column in an orthonormal basis.
_STEP = 1e-4


@dataclass(frozen=True, eq=False)
class Curvature:
    """Observed Hessian of the unprofiled deviance in (theta, sigma).

    Attributes
    ----------
    theta : ndarray, shape (m,)
        The user's theta, in lme4's order.
    sigma : float
        The user's residual standard deviation.
    hessian : ndarray, shape (m + 1, m + 1)
        Second derivatives of D; sigma comes last.
    scale : ndarray, shape (m,)
        Natural size of each entry of theta.
    """

    theta: Matrix
    sigma: float
    hessian: Matrix
    scale: Matrix

    @property
    def profiled(self) -> Matrix:
        """Hessian of the profiled deviance in theta."""
        cross = self.hessian[:-1, -1]
        return np.asarray(self.hessian[:-1, :-1] - np.outer(cross, cross) / self.hessian[-1, -1])

    def interior(self, A: CrossProducts) -> NDArray[np.bool_]:
        """Which entries of theta lie in columns of T that are not null."""
        keep = []
        for k, T in zip(
            A.term_columns, theta_to_T(self.theta / self.scale, A.term_columns), strict=True
        ):
            keep.append((np.linalg.norm(T, axis=0) > SINGULAR)[lower_entries(k)[1]])
        return np.concatenate(keep)

    def smallest_eigenvalue(self, keep: NDArray[np.bool_]) -> float:
        """Smallest eigenvalue of the profiled Hessian, scaled to unit diagonal, on some entries."""
        if not keep.any():
            return float("inf")
        H = self.profiled[np.ix_(keep, keep)]
        size = np.sqrt(np.maximum(np.abs(np.diag(H)), 1e-300))
        return float(np.linalg.eigvalsh(H / np.outer(size, size))[0])


def _to_user(A: CrossProducts, gradient_T: tuple[Matrix, ...]) -> Matrix:
    """Derivatives in the engine's T (all entries) -> derivatives in the user's theta."""
    out = []
    for C, g in zip(A.basis.terms, gradient_T, strict=True):
        user = np.sqrt(A.basis.weight_scale) * scipy.linalg.solve_triangular(
            C, g, lower=False, trans="T"
        )
        out.append(user[lower_entries(len(C))])
    return np.concatenate(out)


def observed_curvature(A: CrossProducts, optimum: Optimum, reml: bool) -> Curvature:
    """Hessian of the unprofiled deviance at the optimum; two evaluations per entry of theta."""
    basis, k = A.basis, A.term_columns
    theta = T_to_theta([basis.relative_factor(t, T) for t, T in enumerate(optimum.T)])
    sigma2_star = optimum.evaluation.sigma2
    sigma = basis.sigma(float(np.sqrt(sigma2_star)))
    df = optimum.evaluation.df
    scale = np.concatenate(
        [np.linalg.norm(C, axis=1)[lower_entries(len(C))[0]] for C in basis.terms]
    ) / np.sqrt(basis.weight_scale)

    def gradient_at(value: Matrix) -> Matrix:
        T = [basis.engine_factor(t, Tt) for t, Tt in enumerate(theta_to_T(value, k))]
        here = evaluate(A, T, reml)
        mixed = tuple(
            logdet + rho2 / sigma2_star
            for logdet, rho2 in zip(here.logdet_gradient, here.rho2_gradient, strict=True)
        )
        return _to_user(A, mixed)

    m = len(theta)
    H = np.zeros((m + 1, m + 1))
    for j in range(m):
        step = np.zeros(m)
        step[j] = _STEP * scale[j]
        H[:m, j] = (gradient_at(theta + step) - gradient_at(theta - step)) / (2.0 * step[j])
    H[:m, :m] = 0.5 * (H[:m, :m] + H[:m, :m].T)
    T_hat = [basis.engine_factor(t, Tt) for t, Tt in enumerate(theta_to_T(theta, k))]
    rho2_gradient = evaluate(A, T_hat, reml).rho2_gradient
    H[:m, m] = H[m, :m] = -2.0 * _to_user(A, rho2_gradient) / (sigma2_star * sigma)
    H[m, m] = 4.0 * df / sigma**2
    return Curvature(theta, sigma, H, scale)


def fixed_effects_covariance(factorisation: Factorisation, sigma: float) -> Matrix:
    """``sigma^2 (X'V0^-1X)^-1`` in the user's columns, p x p; sigma is the user's."""
    A = factorisation.A
    Q, weight_scale = A.basis.fixed, A.basis.weight_scale
    root = scipy.linalg.solve_triangular(factorisation.C[A.r : -1, A.r : -1], Q.T, lower=True)
    return np.asarray(sigma**2 / weight_scale * (root.T @ root))


def vcov_jacobian(optimum: Optimum) -> Matrix:
    """Derivatives of the fixed effects' covariance in (theta, sigma), shape (m + 1, p, p).

    ``dC = sigma^2 C0 X'V0^-1 (dV0) V0^-1 X C0`` with ``dV0 = Z (I (x) dSigma) Z'``.
    """
    factorisation = optimum.evaluation.factorisation
    A = factorisation.A
    basis, p = A.basis, A.p
    sigma = basis.sigma(float(np.sqrt(optimum.evaluation.sigma2)))
    C = fixed_effects_covariance(factorisation, sigma)
    unit = np.vstack([np.eye(p), np.zeros((1, p))])
    zeros = [np.zeros((f.n_levels, f.k, p)) for f in A.factors]
    ZX, _ = A.multiply(zeros, unit)
    effects, _ = factorisation.solve(ZX, np.zeros((0, p)))
    ZZb, _ = A.multiply(effects, np.zeros((p + 1, p)))
    # Columns of h: Z'V0^-1 X C0 l for the user's unit contrasts l, in the engine's scale.
    root = scipy.linalg.solve_triangular(
        factorisation.C[A.r : -1, A.r : -1], basis.fixed.T, lower=True
    )
    C0 = scipy.linalg.solve_triangular(
        factorisation.C[A.r : -1, A.r : -1], root, lower=True, trans="T"
    )
    jacobians: list[list[Matrix]] = [[] for _ in A.term_columns]
    for f, factor in enumerate(A.factors):
        h = (ZX[f] - ZZb[f]) @ C0
        for member in factor.members:
            t = member.term
            k = A.term_columns[t]
            own = h[:, member.columns, :]
            user = np.einsum("ab,iap->ibp", _inverse_upper(basis.terms[t]), own)
            T = basis.relative_factor(t, optimum.T[t])
            pulled = np.einsum("ab,iap->ibp", T, user)
            for row, column in zip(*lower_entries(k), strict=True):
                half = user[:, row, :].T @ pulled[:, column, :]
                jacobians[t].append(sigma**2 * (half + half.T))
    derivatives = [J for per_term in jacobians for J in per_term]
    return np.array([*derivatives, 2.0 * C / sigma])


def _inverse_upper(C: Matrix) -> Matrix:
    return np.asarray(scipy.linalg.solve_triangular(C, np.eye(len(C)), lower=False))
