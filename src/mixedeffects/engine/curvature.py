"""Second derivatives in the user's theta: what Satterthwaite's method and the certificate rest on.

The deviance as a function of (theta, sigma), *not* profiled over sigma, is

    D(theta, sigma) = logdet M(theta) + rho^2(theta)/sigma^2 + df log(2 pi sigma^2) + constant,

and ``C(theta, sigma) = sigma^2 (X'V0^-1X)^-1`` is the covariance matrix of the fixed effects.
Derivatives in theta of the analytic gradient are central differences; everything else is analytic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedeffects.arrays import ReadOnlyArrays
from mixedeffects.engine.crossproducts import CrossProducts
from mixedeffects.engine.factorisation import Factorisation
from mixedeffects.engine.objective import evaluate
from mixedeffects.engine.optimum import SINGULAR, Optimum
from mixedeffects.engine.parameters import T_to_theta, lower_entries, theta_to_T
from mixedeffects.engine.triangular import inverse_upper, solve_lower

__all__ = [
    "Curvature",
    "fixed_effects_covariance",
    "new_effects_jacobian",
    "observed_curvature",
    "structured_curvature",
    "vcov_jacobian",
]

Matrix = NDArray[np.float64]

#: Step of the central differences, relative to the size of a column in an orthonormal basis.
_STEP = 1e-4
#: What a difference of gradients over such a step can get wrong, relative to the deviance.
_ROUNDING = 1e-5


@dataclass(frozen=True, eq=False)
class Curvature(ReadOnlyArrays):
    """Observed Hessian of the unprofiled deviance in (theta, sigma).

    Attributes
    ----------
    theta : ndarray, shape (m,)
        Entries of T, in lme4's order, in the coordinates differentiated in.
    sigma : float
        The user's residual standard deviation.
    hessian : ndarray, shape (m + 1, m + 1)
        Second derivatives of D; sigma comes last.
    scale : ndarray, shape (m,)
        Natural size of each entry of theta.
    rounding : float
        Second derivatives per squared natural size that cannot be told from zero.
    regular : ndarray of bool, shape (m,), optional
        Which parameters are not those of a variance of zero, where theta are the free parameters
        of covariance structures; else found from T.
    """

    theta: Matrix
    sigma: float
    hessian: Matrix
    scale: Matrix
    rounding: float
    regular: NDArray[np.bool_] | None = None

    @property
    def profiled(self) -> Matrix:
        """Hessian of the profiled deviance in theta."""
        cross = self.hessian[:-1, -1]
        return np.asarray(self.hessian[:-1, :-1] - np.outer(cross, cross) / self.hessian[-1, -1])

    def interior(self, A: CrossProducts) -> NDArray[np.bool_]:
        """Which entries of theta lie in columns of T that are not null."""
        if self.regular is not None:
            return self.regular
        keep = []
        for k, T in zip(
            A.term_columns, theta_to_T(self.theta / self.scale, A.term_columns), strict=True
        ):
            keep.append((np.linalg.norm(T, axis=0) > SINGULAR)[lower_entries(k)[1]])
        return np.concatenate(keep)

    def smallest_eigenvalue(self, keep: NDArray[np.bool_]) -> float:
        """Smallest eigenvalue of the profiled Hessian, scaled to unit diagonal, on some entries.

        Where the deviance is flat, its second derivative is left as small as it is.
        """
        if not keep.any():
            return float("inf")
        H = self.profiled[np.ix_(keep, keep)]
        flat = self.rounding / self.scale[keep] ** 2
        size = np.sqrt(np.maximum(np.abs(np.diag(H)), flat))
        return float(np.linalg.eigvalsh(H / np.outer(size, size))[0])


def _coordinates(A: CrossProducts, user: bool) -> list[Matrix]:
    """Matrices D with ``T* = D T`` for T in the coordinates to differentiate in."""
    if not user:
        return [np.eye(k) for k in A.term_columns]
    root = np.sqrt(A.basis.weight_scale)
    return [root * inverse_upper(C) for C in A.basis.terms]


def _theta(A: CrossProducts, optimum: Optimum, user: bool) -> Matrix:
    if not user:
        return T_to_theta(optimum.T)
    return T_to_theta([A.basis.relative_factor(t, T) for t, T in enumerate(optimum.T)])


def observed_curvature(
    A: CrossProducts, optimum: Optimum, reml: bool, user: bool | None = None
) -> Curvature:
    """Hessian of the unprofiled deviance at the optimum; two evaluations per entry of theta.

    Parameters
    ----------
    A, optimum, reml
        The fit.
    user : bool, optional
        Differentiate in the user's theta instead of the fitting basis. Degrees of freedom do not
        depend on it as long as the Hessian is regular, and the fitting basis is better
        conditioned; at a singular optimum lmerTest's definition is tied to the user's theta, so
        there that is the default. Without meaning where some term has a covariance structure: see
        `structured_curvature`.
    """
    if optimum.parameterisation is not None:
        return structured_curvature(A, optimum, reml)
    user = optimum.singular if user is None else user
    k, D = A.term_columns, _coordinates(A, user)
    theta = _theta(A, optimum, user)
    sigma2_star = optimum.evaluation.sigma2
    sigma = A.basis.sigma(float(np.sqrt(sigma2_star)))
    scale = np.concatenate(
        [np.linalg.norm(np.linalg.inv(d), axis=1)[lower_entries(len(d))[0]] for d in D]
    )

    def in_theta(gradient_T: tuple[Matrix, ...]) -> Matrix:
        return np.concatenate(
            [(d.T @ g)[lower_entries(len(d))] for d, g in zip(D, gradient_T, strict=True)]
        )

    def gradient_at(value: Matrix) -> Matrix:
        here = evaluate(A, [d @ T for d, T in zip(D, theta_to_T(value, k), strict=True)], reml)
        return in_theta(
            tuple(
                logdet + rho2 / sigma2_star
                for logdet, rho2 in zip(here.logdet_gradient, here.rho2_gradient, strict=True)
            )
        )

    m = len(theta)
    H = np.zeros((m + 1, m + 1))
    for j in range(m):
        step = np.zeros(m)
        step[j] = _STEP * scale[j]
        H[:m, j] = (gradient_at(theta + step) - gradient_at(theta - step)) / (2.0 * step[j])
    H[:m, :m] = 0.5 * (H[:m, :m] + H[:m, :m].T)
    # d rho^2/dT = -2 sigma^2 CC T, with CC known at the optimum whatever the coordinates.
    CC_T = tuple(
        CC @ d @ T
        for CC, d, T in zip(optimum.evaluation.outer_products, D, theta_to_T(theta, k), strict=True)
    )
    H[:m, m] = H[m, :m] = 4.0 * in_theta(CC_T) / sigma
    H[m, m] = 4.0 * optimum.evaluation.df / sigma**2
    rounding = _ROUNDING * max(1.0, abs(optimum.evaluation.deviance))
    return Curvature(theta, sigma, H, scale, rounding)


def fixed_effects_covariance(factorisation: Factorisation, sigma: float) -> Matrix:
    """``sigma^2 (X'V0^-1X)^-1`` in the user's columns, p x p; sigma is the user's."""
    A = factorisation.A
    Q, weight_scale = A.basis.fixed, A.basis.weight_scale
    root = solve_lower(factorisation.fixed_root, Q.T)
    return np.asarray(sigma**2 / weight_scale * (root.T @ root))


def vcov_jacobian(optimum: Optimum, user: bool | None = None) -> Matrix:
    """Derivatives of the fixed effects' covariance in (theta, sigma), shape (m + 1, p, p).

    In the same coordinates as `observed_curvature`:
    ``dC = sigma^2 C0 X'V0^-1 (dV0) V0^-1 X C0`` with ``dV0 = Z (I (x) dSigma) Z'``.
    """
    if optimum.parameterisation is not None:
        return _structured_vcov_jacobian(optimum)
    factorisation = optimum.evaluation.factorisation
    A = factorisation.A
    user = optimum.singular if user is None else user
    basis, D = A.basis, _coordinates(A, user)
    theta = theta_to_T(_theta(A, optimum, user), A.term_columns)
    sigma = basis.sigma(float(np.sqrt(optimum.evaluation.sigma2)))
    C = fixed_effects_covariance(factorisation, sigma)
    jacobians: list[list[Matrix]] = [[] for _ in A.term_columns]
    for factor, h in zip(A.factors, _weighted_effects(factorisation), strict=True):
        for member in factor.members:
            t = member.term
            k = A.term_columns[t]
            own = np.einsum("ab,iap->ibp", D[t], h[:, member.columns, :])
            pulled = np.einsum("ab,iap->ibp", theta[t], own)
            for row, column in zip(*lower_entries(k), strict=True):
                half = own[:, row, :].T @ pulled[:, column, :]
                jacobians[t].append(sigma**2 / basis.weight_scale * (half + half.T))
    derivatives = [J for per_term in jacobians for J in per_term]
    return np.array([*derivatives, 2.0 * C / sigma])


def new_effects_jacobian(optimum: Optimum, t: int, z: Matrix, user: bool | None = None) -> Matrix:
    """Derivatives of ``z'G_t z`` in (theta, sigma), for each row of z; shape (n, m + 1).

    In the same coordinates as `observed_curvature`.

    Parameters
    ----------
    optimum : Optimum
        The fit.
    t : int
        Number of the term.
    z : ndarray, shape (n, k)
        Rows in the user's columns.
    user : bool, optional
        As for `observed_curvature`.
    """
    A = optimum.evaluation.factorisation.A
    sigma = A.basis.sigma(float(np.sqrt(optimum.evaluation.sigma2)))
    scale = sigma**2 / A.basis.weight_scale
    rows = z @ A.basis.terms[t]
    variance = scale * ((rows @ optimum.T[t]) ** 2).sum(axis=1)
    p, eta = optimum.parameterisation, optimum.eta
    parts: list[Matrix]
    if p is not None and eta is not None:
        parts = [np.zeros((len(z), len(own))) for own in p.split(eta)]
        derivatives = p.terms[t].derivatives(p.split(eta)[t])
        parts[t] = scale * np.einsum("ia,rab,ib->ir", rows, derivatives, rows, optimize=True)
        found = np.hstack(parts)[:, ~p.fixed(eta)]
    else:
        user = optimum.singular if user is None else user
        theta = theta_to_T(_theta(A, optimum, user), A.term_columns)
        parts = [np.zeros((len(z), k * (k + 1) // 2)) for k in A.term_columns]
        own = rows @ _coordinates(A, user)[t]
        row, column = lower_entries(A.term_columns[t])
        parts[t] = 2.0 * scale * own[:, row] * (own @ theta[t])[:, column]
        found = np.hstack(parts)
    return np.column_stack([found, 2.0 * variance / sigma])


def _weighted_effects(factorisation: Factorisation) -> list[Matrix]:
    """``Z'V0^-1 X C0 l`` per factor for the user's unit contrasts l, in the engine's scale."""
    A = factorisation.A
    p = A.p
    unit = np.vstack([np.eye(p), np.zeros((1, p))])
    zeros = [np.zeros((f.n_levels, f.k, p)) for f in A.factors]
    ZX, _ = A.multiply(zeros, unit)
    effects, _ = factorisation.solve(ZX, np.zeros((0, p)))
    ZZb, _ = A.multiply(effects, np.zeros((p + 1, p)))
    root = solve_lower(factorisation.fixed_root, A.basis.fixed.T)
    C0 = solve_lower(factorisation.fixed_root, root, transposed=True)
    return [(own - taken) @ C0 for own, taken in zip(ZX, ZZb, strict=True)]


def structured_curvature(A: CrossProducts, optimum: Optimum, reml: bool) -> Curvature:
    """The same in the parameters of covariance structures.

    Parameters at a bound (a correlation at the end of its range, a variance of zero beside a
    correlation) have no two-sided derivative; they are left out, as if they were known.
    """
    p, eta = optimum.parameterisation, optimum.eta
    assert p is not None and eta is not None
    here = optimum.evaluation
    free = np.flatnonzero(~p.fixed(eta))

    def gradient_at(value: Matrix) -> Matrix:
        there = evaluate(A, p.factors(value), reml, few_directions=True)
        # dD/dSigma at the optimum's sigma: B - cc / sigma^2, and F has its own sigma^2.
        F = [
            score + (1.0 - there.sigma2 / here.sigma2) * CC
            for score, CC in zip(there.score, there.outer_products, strict=True)
        ]
        return p.gradient(value, F)[free]

    m = len(free)
    H = np.zeros((m + 1, m + 1))
    for column, j in enumerate(free):
        step = np.zeros(len(eta))
        below, above = eta[j] - p.lower[j], p.upper[j] - eta[j]
        if min(below, above) > _STEP:
            step[j] = _STEP
            difference = (gradient_at(eta + step) - gradient_at(eta - step)) / (2.0 * _STEP)
        else:
            # Too close to a bound for both sides: three points on the other side of it.
            size = 0.25 * _STEP if above > below else -0.25 * _STEP
            step[j] = size
            at = [gradient_at(eta + i * step) for i in range(3)]
            difference = (-3.0 * at[0] + 4.0 * at[1] - at[2]) / (2.0 * size)
        H[:m, column] = difference
    H[:m, :m] = 0.5 * (H[:m, :m] + H[:m, :m].T)
    sigma = A.basis.sigma(float(np.sqrt(here.sigma2)))
    # d rho^2/dSigma = -sigma^2 CC.
    H[:m, m] = H[m, :m] = 2.0 * p.gradient(eta, here.outer_products)[free] / sigma
    H[m, m] = 4.0 * here.df / sigma**2
    rounding = _ROUNDING * max(1.0, abs(here.deviance))
    return Curvature(eta[free], sigma, H, np.ones(m), rounding, ~p.null(eta)[free])


def _structured_vcov_jacobian(optimum: Optimum) -> Matrix:
    """In the same parameters as `structured_curvature`."""
    p, eta = optimum.parameterisation, optimum.eta
    assert p is not None and eta is not None
    factorisation = optimum.evaluation.factorisation
    A = factorisation.A
    sigma = A.basis.sigma(float(np.sqrt(optimum.evaluation.sigma2)))
    C = fixed_effects_covariance(factorisation, sigma)
    derivatives = [term.derivatives(own) for term, own in zip(p.terms, p.split(eta), strict=True)]
    jacobians: list[Matrix] = [np.empty(0)] * len(p.terms)
    for factor, h in zip(A.factors, _weighted_effects(factorisation), strict=True):
        for member in factor.members:
            own = h[:, member.columns, :]
            products = np.einsum("iap,ibq->abpq", own, own, optimize=True)
            jacobians[member.term] = np.einsum(
                "rab,abpq->rpq", derivatives[member.term], products, optimize=True
            )
    free = ~p.fixed(eta)
    own_scale = sigma**2 / A.basis.weight_scale
    stacked = own_scale * np.concatenate(jacobians)[free]
    return np.concatenate([stacked, (2.0 * C / sigma)[None]])
