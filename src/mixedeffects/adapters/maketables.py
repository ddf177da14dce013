"""The plug-in format of the maketables package: it finds these answers as attributes of the model.

Its ``ETable`` shows statistics of the fit by key. Those that depend on the model, numbers of levels
and parameters of the random effects, have their own text as key.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from mixedeffects.comparison.latent_variance import icc_of_fit, r2_of_fit
from mixedeffects.fitting.fit import Fit
from mixedeffects.inference.coefficients import coefficient_tests
from mixedeffects.reporting.random_parameters import (
    RESIDUAL,
    one_residual_deviation,
    random_parameters,
)

__all__ = ["STATISTIC_LABELS", "coefficients", "default_statistics", "statistic"]

_COLUMNS = {
    "Estimate": "b",
    "Std. Error": "se",
    "t value": "t",
    "z value": "t",
    "Pr(>|t|)": "p",
    "Pr(>|z|)": "p",
    "lower": "ci95l",
    "upper": "ci95u",
}
STATISTIC_LABELS = {
    "N": "Observations",
    "ll": "Log-likelihood",
    "deviance": "Criterion",
    "aic": "AIC",
    "bic": "BIC",
    "icc": "ICC",
    "r2_marginal": "R² marginal",
    "r2_conditional": "R² conditional",
    "df_resid": "df(resid)",
    "se_type": "S.E. type",
    "method": "Estimation",
    "family": "Family",
    "link": "Link",
}


def coefficients(fit: Fit) -> pd.DataFrame:
    """Columns ``b``, ``se``, ``t``, ``p``, ``df``, ``ci95l`` and ``ci95u``."""
    table = pd.DataFrame(coefficient_tests(fit, fit.request.ddf)).rename(columns=_COLUMNS)
    # Of normal tests there are no degrees of freedom.
    order = [name for name in ("b", "se", "t", "p", "df", "ci95l", "ci95u") if name in table]
    return table[order].rename_axis("Coefficient")


def statistic(fit: Fit, key: str) -> Any:
    """One statistic by key; None for one that this model has not."""
    match key:
        case "N":
            return fit.nobs
        case "ll":
            return fit.loglik
        case "deviance":
            return fit.criterion
        case "aic":
            return fit.aic
        case "bic":
            return fit.bic
        case "icc" | "r2_conditional" if not fit.frame.terms:
            # They are shares of the random effects.
            return None
        case "family" | "link":
            family = fit.request.family
            return None if family is None else family.name if key == "family" else family.link.name
        case "icc":
            return icc_of_fit(fit).adjusted
        case "r2_marginal":
            return r2_of_fit(fit).marginal
        case "r2_conditional":
            return r2_of_fit(fit).conditional
        case "df_resid":
            return fit.df_resid
        case "se_type":
            return "model"
        case "method":
            return fit.estimation
    for group, count in fit.ngroups.items():
        if key == _groups(group):
            return count
    return random_parameters(fit).get(key, fit.residual_sigma if key == RESIDUAL else None)


def default_statistics(fit: Fit) -> list[str]:
    """Keys of what is shown unless the user asks for others."""
    return [
        "N",
        *map(_groups, fit.ngroups),
        *([] if fit.request.family is None else ["family", "link"]),
        "method",
        "ll",
        "aic",
        "bic",
        *(["icc", "r2_marginal", "r2_conditional"] if fit.frame.terms else ["r2_marginal"]),
        *([RESIDUAL] if fit.residual_sigma is not None and one_residual_deviation(fit) else []),
        *random_parameters(fit),
    ]


def _groups(group: str) -> str:
    return f"Groups: {group}"
