"""Second derivatives of the deviance where residuals are correlated, in (theta, phi, sigma).

Central differences of the analytic gradient of the deviance that is not profiled over sigma,

    D(theta, phi, sigma) = logdet M + log |S| + rho^2 / sigma^2 + df log(2 pi sigma^2),

along natural directions: those of `curvature` for the random effects, and for the residuals such
that a step of one is a natural step in the logarithm of a range or the odds of a correlation. The
derivatives of the fixed effects' covariance come from the same evaluations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.covariance_changes import fixed_effects_covariance
from mixedeffects.engine.curvature import Curvature, natural_scales
from mixedeffects.engine.curvature_digits import visible_variances
from mixedeffects.engine.factorisation import NotPositiveDefiniteError
from mixedeffects.engine.parameterisation import Parameterisation, parameterise
from mixedeffects.engine.parameters import block_diagonal
from mixedeffects.engine.residual_objective import ResidualEvaluation, evaluate_residual

__all__ = ["ResidualCurvature", "residual_curvature"]

Matrix = NDArray[np.float64]

#: Step of the differences in natural directions, and rounding errors in a gradient.
_STEP, _ERRORS = 1e-4, 1e-13


@dataclass(frozen=True, eq=False)
class ResidualCurvature(Curvature):
    """The same with the parameters of the residuals among those of theta, after the others.

    Attributes
    ----------
    natural_jacobian : ndarray, shape (m + 1, p, p)
        Derivatives of the fixed effects' covariance along the natural directions.
    """

    natural_jacobian: Matrix | None = None

    @property
    def vcov_jacobian(self) -> Matrix:
        """The same in the parameters themselves."""
        J = self.natural_jacobian
        assert J is not None
        flat = J.reshape(len(J), -1)
        return np.asarray(np.linalg.solve(self.directions.T, flat).reshape(J.shape))


def residual_curvature(
    evaluation: ResidualEvaluation, parameterisation: Parameterisation | None, eta: Matrix | None
) -> ResidualCurvature:
    """At the optimum.

    Parameters
    ----------
    evaluation : ResidualEvaluation
        There.
    parameterisation, eta
        Of random effects with a covariance structure; None where all covariances are free.
    """
    rows, reml = evaluation.design, evaluation.at_theta.reml
    here, phi = evaluation.at_theta, evaluation.phi
    if parameterisation is None or eta is None:
        parameterisation = parameterise(here.A.basis, here.A.term_columns, [None] * len(here.T))
        eta = parameterisation.nearest(here.T) if here.T else np.zeros(0)
    model = rows.model
    _, of_phi, _ = model.bounded(model.unbounded(phi))
    p = parameterisation
    free = np.flatnonzero(~p.fixed(eta)) if len(eta) else np.zeros(0, dtype=np.intp)
    visible = visible_variances(here.A)
    blocks = [
        natural_scales(term, own, share)
        for term, own, share in zip(p.terms, p.split(eta), visible, strict=True)
    ]
    of_eta = block_diagonal(blocks)[:, free] if blocks else np.zeros((0, 0))
    L = block_diagonal([of_eta, np.diag(of_phi)]) if len(free) else np.diag(of_phi)
    if len(free) and not len(phi):
        L = of_eta
    m = L.shape[1]
    base = np.concatenate([eta, phi])
    sigma2 = here.sigma2
    sigma = here.A.basis.sigma(float(np.sqrt(sigma2)))

    def at(value: Matrix) -> tuple[Matrix, Matrix]:
        """Gradient of D along the directions, sigma held; and the fixed effects' covariance."""
        T = p.factors(value[: len(eta)]) if len(eta) else []
        there = evaluate_residual(rows, T, value[len(eta) :], reml)
        return L.T @ _gradient(there, p, value[: len(eta)], sigma2), _covariance(there, sigma)

    natural = np.zeros((m + 1, m + 1))
    jacobian = np.zeros((m + 1, here.A.p, here.A.p))
    for j in range(m):
        step = _STEP
        while True:
            try:
                ahead, behind = at(base + step * L[:, j]), at(base - step * L[:, j])
                break
            except (NotPositiveDefiniteError, np.linalg.LinAlgError):
                step *= 0.1
                if step < 1e-8:
                    raise
        natural[:m, j] = (ahead[0] - behind[0]) / (2.0 * step)
        jacobian[j] = (ahead[1] - behind[1]) / (2.0 * step)
    natural[:m, :m] = 0.5 * (natural[:m, :m] + natural[:m, :m].T)
    linear = _linear(evaluation, p, eta)
    natural[m, m] = 4.0 * here.df
    if here.A.known_variance is None:
        natural[:m, m] = natural[m, :m] = -2.0 * (L.T @ linear)
        jacobian[m] = 2.0 * _covariance(evaluation, sigma)
    kept = np.concatenate([free, len(eta) + np.arange(len(phi))]).astype(np.intp)
    directions = block_diagonal([L[kept], np.array([[sigma]])])
    regular = np.ones(m, dtype=np.bool_)
    if len(free):
        regular[: len(free)] = ~p.null(eta)[free]
    noise = np.full(m, _ERRORS / _STEP * max(1.0, abs(here.df)))
    return ResidualCurvature(
        base[kept],
        sigma,
        directions,
        natural,
        noise,
        regular,
        np.empty((0, m + 1)),
        natural_jacobian=jacobian,
    )


def _gradient(there: ResidualEvaluation, p: Parameterisation, eta: Matrix, sigma2: float) -> Matrix:
    """Of D in eta and phi, with sigma held."""
    ratio = there.at_theta.sigma2 / sigma2
    of_phi = there.score + (ratio - 1.0) * there.slopes
    if not len(eta):
        return of_phi
    F = [
        own + (1.0 - ratio) * products
        for own, products in zip(there.at_theta.score, there.at_theta.outer_products, strict=True)
    ]
    return np.concatenate([p.gradient(eta, F), of_phi])


def _linear(there: ResidualEvaluation, p: Parameterisation, eta: Matrix) -> Matrix:
    """Derivatives of rho^2 in eta and phi, relative to sigma^2."""
    if not len(eta):
        return there.slopes
    products: Sequence[Matrix] = [-own for own in there.at_theta.outer_products]
    return np.concatenate([p.gradient(eta, products), there.slopes])


def _covariance(there: ResidualEvaluation, sigma: float) -> Matrix:
    return fixed_effects_covariance(there.at_theta.factorisation, sigma)
