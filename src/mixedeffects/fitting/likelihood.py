"""The log-likelihood at any parameters, with the fixed effects profiled out."""

from __future__ import annotations

from typing import Any

import numpy as np

from mixedeffects.base.options import checked_flag
from mixedeffects.engine.factorisation import Factorisation, NotPositiveDefiniteError
from mixedeffects.engine.objective import deviance
from mixedeffects.engine.parameters import theta_to_T
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.theta import read_theta

__all__ = ["loglik_at"]


def loglik_at(fit: Fit, theta: Any, sigma: float | None = None, reml: bool | None = None) -> float:
    """Log-likelihood of the model's data at theta; see `LinearMixedModel.loglik_at`.

    Parameters
    ----------
    fit : Fit
        The data and the structure of V.
    theta : array, shape (m,)
        Relative covariance parameters, in lme4's order.
    sigma : float, optional
        Residual standard deviation; by default the one that maximises.
    reml : bool, optional
        Which likelihood; by default that of the fit.

    Raises
    ------
    ModelError
        If theta, sigma or reml are not what they should be.
    """
    reml = fit.reml if reml is None else reml
    reml = checked_flag(reml, "reml")
    A = fit.crossproducts
    factors = [
        A.basis.engine_factor(t, T)
        for t, T in enumerate(theta_to_T(read_theta(fit.frame.terms, theta), A.term_columns))
    ]
    try:
        factorisation = Factorisation(A, factors)
    except NotPositiveDefiniteError:
        raise ModelError(
            f"The likelihood cannot be computed at theta = {np.ravel(theta).tolist()}: a value is "
            "too far from zero for double precision."
        ) from None
    if sigma is None:
        d = deviance(factorisation, bool(reml))
    else:
        scale = _checked_sigma(sigma) / A.basis.sigma(1.0)
        df = A.n - A.p if reml else A.n
        logdet = factorisation.logdet_with_fixed if reml else factorisation.logdet_random
        d = (
            logdet
            + factorisation.rho2 / scale**2
            + df * float(np.log(2.0 * np.pi) + 2.0 * np.log(scale))
            - A.sum_log_weights
        )
    return -0.5 * (d + A.basis.deviance_offset(A.n, A.p, bool(reml)))


def _checked_sigma(sigma: Any) -> float:
    try:
        value = float("nan") if np.iscomplexobj(sigma) else float(sigma)
    except (TypeError, ValueError):
        value = float("nan")
    if not (np.isfinite(value) and value > 0.0):
        raise ModelError(f"sigma must be a positive number, not {sigma!r:.60}.")
    return value
