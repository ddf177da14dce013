"""The log-likelihood of a generalized model at any parameters."""

from __future__ import annotations

from typing import Any

import numpy as np

from mixedeffects.engine.factorisation import NotPositiveDefiniteError
from mixedeffects.engine.parameters import theta_to_T
from mixedeffects.errors import ModelError
from mixedeffects.fitting.generalized.record import GeneralizedFit
from mixedeffects.fitting.generalized.start import read_beta, read_phi
from mixedeffects.fitting.theta import read_theta

__all__ = ["generalized_loglik_at"]


def generalized_loglik_at(
    fit: GeneralizedFit, theta: Any, beta: Any, phi: Any, weights: str
) -> float:
    """See `GeneralizedLinearMixedModel.loglik_at`."""
    columns = [term.n_columns for term in fit.frame.terms]
    T = theta_to_T(read_theta(fit.frame.terms, theta), columns)
    at = fit.beta if beta is None else read_beta(fit.frame, beta)
    own = fit.search_phi if phi is None else read_phi(fit.family, phi)
    try:
        found = fit.found.criterion_at(T, np.asarray(at), own, weights)
    except NotPositiveDefiniteError:
        found = np.inf
    if not np.isfinite(found):
        raise ModelError(
            "The likelihood cannot be computed at these parameters: some row has no mean there, or "
            "the conditional modes do not exist."
        )
    return -0.5 * float(found)
