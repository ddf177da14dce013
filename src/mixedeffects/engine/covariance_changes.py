"""How V and the covariance of the fixed effects change with the variance parameters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.at_optimum import AtOptimum, changes_of_sigma
from mixedeffects.engine.curvature import Curvature, coordinates, theta_of
from mixedeffects.engine.factorisation import Factorisation
from mixedeffects.engine.parameterisation import UnstructuredTerm
from mixedeffects.engine.parameters import lower_entries, theta_to_T
from mixedeffects.engine.quadratic_forms import fixed_scores
from mixedeffects.engine.triangular import solve_lower

__all__ = [
    "fixed_effects_covariance",
    "natural_changes",
    "new_effects_jacobian",
    "vcov_along_null_directions",
    "vcov_jacobian",
]

Matrix = NDArray[np.float64]


def fixed_effects_covariance(factorisation: Factorisation, sigma: float) -> Matrix:
    """``sigma^2 (X'V0^-1X)^-1`` in the user's columns, p x p; sigma is the user's."""
    A = factorisation.A
    Q, weight_scale = A.basis.fixed, A.basis.weight_scale
    root = solve_lower(factorisation.fixed_root, Q.T)
    return np.asarray(sigma**2 / weight_scale * (root.T @ root))


def vcov_jacobian(optimum: AtOptimum, user: bool | None = None) -> Matrix:
    """Derivatives of the fixed effects' covariance in (theta, sigma), shape (m + 1, p, p).

    In the same coordinates as `observed_curvature`:
    ``dC = sigma^2 C0 X'V0^-1 (dV0) V0^-1 X C0`` with ``dV0 = Z (I (x) dSigma) Z'``.
    """
    if optimum.parameterisation is not None:
        return _structured_vcov_jacobian(optimum)
    factorisation = optimum.evaluation.factorisation
    A = factorisation.A
    user = optimum.singular if user is None else user
    basis, D = A.basis, coordinates(A, user)
    theta = theta_to_T(theta_of(A, optimum, user), A.term_columns)
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


def new_effects_jacobian(optimum: AtOptimum, t: int, z: Matrix, user: bool | None = None) -> Matrix:
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
        theta = theta_to_T(theta_of(A, optimum, user), A.term_columns)
        parts = [np.zeros((len(z), k * (k + 1) // 2)) for k in A.term_columns]
        own = rows @ coordinates(A, user)[t]
        row, column = lower_entries(A.term_columns[t])
        parts[t] = 2.0 * scale * own[:, row] * (own @ theta[t])[:, column]
        found = np.hstack(parts)
    return np.column_stack([found, 2.0 * variance / sigma])


def vcov_along_null_directions(optimum: AtOptimum) -> Matrix:
    """Change of the fixed effects' covariance along `Optimum.null_directions`, shape (r, p, p)."""
    factorisation = optimum.evaluation.factorisation
    A, null = factorisation.A, optimum.null_directions
    if null is None:
        return np.zeros((0, A.p, A.p))
    sigma = A.basis.sigma(float(np.sqrt(optimum.evaluation.sigma2)))
    # The residual part of V is V less that of the random effects.
    out = null[:, -1, None, None] * fixed_effects_covariance(factorisation, sigma)
    changes = changes_of_sigma(optimum)
    for factor, h in zip(A.factors, _weighted_effects(factorisation), strict=True):
        for member in factor.members:
            own = h[:, member.columns, :]
            for r, change in enumerate(changes[member.term]):
                moved = np.einsum("iap,ab,ibq->pq", own, change, own, optimize=True)
                out[r] += sigma**2 / A.basis.weight_scale * moved
    return np.asarray(out)


def natural_changes(
    optimum: AtOptimum, curvature: Curvature, n_residual: int
) -> tuple[list[Matrix], Matrix, Matrix]:
    """How V changes along the natural directions, relative to the residual variance.

    Parameters
    ----------
    optimum : Optimum
        The fit.
    curvature : Curvature
        There.
    n_residual : int
        Number of residual parameters, which come after those of the random effects.

    Returns
    -------
    changes : list of ndarray (m + 1, k, k)
        Of each Sigma, in the engine's basis.
    of_residuals : ndarray, shape (m + 1, n_residual)
        Of the residual parameters.
    of_V : ndarray, shape (m + 1,)
        Multiples of V itself.
    """
    A, L = optimum.evaluation.A, curvature.directions
    n_theta = len(L) - 1 - n_residual
    p, eta = optimum.parameterisation, optimum.eta
    derivatives: list[Matrix] = []
    if p is not None and eta is not None:
        free = ~p.fixed(eta)
        for term, own, at in zip(p.terms, p.split(eta), p.places, strict=True):
            derivatives.append(term.derivatives(own)[free[at]])
    else:
        # Where residuals are correlated, parameters are always in the fitting basis.
        user = optimum.singular and not n_residual
        theta = theta_of(A, optimum, user)
        starts = np.cumsum([0, *[k * (k + 1) // 2 for k in A.term_columns]])
        for t, (k, D) in enumerate(zip(A.term_columns, coordinates(A, user), strict=True)):
            of_factor = UnstructuredTerm(k).derivatives(theta[starts[t] : starts[t + 1]])
            derivatives.append(D @ of_factor @ D.T)
    changes, start = [], 0
    for each in derivatives:
        own = L[start : start + len(each)]
        changes.append(np.einsum("rj,rab->jab", own, each))
        start += len(each)
    of_V = np.zeros(L.shape[1])
    if A.known_variance is None:
        of_V = 2.0 * L[-1] / curvature.sigma
    return changes, L[n_theta:-1].T, of_V


def _weighted_effects(factorisation: Factorisation) -> list[Matrix]:
    """``Z'V0^-1 X C0 l`` per factor for the user's unit contrasts l, in the engine's scale."""
    root = solve_lower(factorisation.fixed_root, factorisation.A.basis.fixed.T)
    C0 = solve_lower(factorisation.fixed_root, root, transposed=True)
    return [own @ C0 for own in fixed_scores(factorisation)]


def _structured_vcov_jacobian(optimum: AtOptimum) -> Matrix:
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
