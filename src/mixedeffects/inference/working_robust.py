"""CR2 and CR3 of a generalized fit, on its working model: an approximation.

At the conditional modes ``z - X beta`` has the working covariance V, and ``V^-1 (z - X beta)`` are
the derivatives of the log-likelihoods of the rows. The corrections are those of the linear model
with that V, which is taken as known: what CR0 and CR1 from the scores have of the covariances'
estimation is not in them, nor what log |M| adds to the estimating equations of beta.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mixedeffects.base.options import checked_level
from mixedeffects.covariance.of_fit import V_of
from mixedeffects.fitting.generalized import GeneralizedFit
from mixedeffects.inference.cluster_moments import cluster_moments
from mixedeffects.inference.cluster_robust import Found, RobustCovariance, made
from mixedeffects.inference.score_robust import checked_cluster
from mixedeffects.inference.unseen import Unseen

__all__ = ["WORKING_KINDS", "working_kind", "working_robust_covariance"]

#: By name, the correction of the linear model.
WORKING_KINDS = {"CR2-working": "CR2", "CR3-working": "CR3"}
_NOTE = "On the working model at the conditional modes, its covariance taken as known: approximate."


def working_kind(kind: Any) -> str | None:
    """The kind as one of `WORKING_KINDS`, in any case; None if it is none."""
    for known in WORKING_KINDS:
        if isinstance(kind, str) and kind.lower() == known.lower():
            return known
    return None


def working_robust_covariance(
    fit: GeneralizedFit, kind: str, cluster: Any, level: float | None
) -> RobustCovariance:
    """See `GeneralizedLinearMixedModel.robust`."""
    if level is not None:
        level = checked_level(level)
    factor = checked_cluster(fit, cluster)
    X, V = fit.frame.X, V_of(fit)
    residuals = fit.evaluation.working_response - X @ fit.beta
    basis = fit.crossproducts.basis.fixed
    moments = cluster_moments(V, X, residuals, factor, WORKING_KINDS[kind], basis)
    unseen = Unseen(moments.unseen, fit.vcov, moments.vcov)
    found = Found(moments, moments.df(np.eye(X.shape[1])), False, float("nan"), unseen)
    return made(fit, kind, [factor], found, level, _NOTE)
