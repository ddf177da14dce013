"""The plug-in format of the maketables package: it finds these answers as attributes of the model.

Its ``ETable`` shows statistics of the fit by key. Those that depend on the model, numbers of levels
and parameters of the random effects, have their own text as key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from mixedeffects.estimates_table import RESIDUAL, random_parameters

if TYPE_CHECKING:
    from mixedeffects.model import LinearMixedModel

__all__ = ["STATISTIC_LABELS", "coefficients", "default_statistics", "statistic"]

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
}


def coefficients(model: LinearMixedModel) -> pd.DataFrame:
    """Columns ``b``, ``se``, ``t``, ``p``, ``df``, ``ci95l`` and ``ci95u``."""
    table = model.coef_table(level=0.95)
    names = ["b", "se", "df", "t", "p", "ci95l", "ci95u"]
    table = table.set_axis(names, axis="columns")[["b", "se", "t", "p", "df", "ci95l", "ci95u"]]
    return table.rename_axis("Coefficient")


def statistic(model: LinearMixedModel, key: str) -> Any:
    """One statistic by key; None for one that this model has not."""
    match key:
        case "N":
            return model.nobs
        case "ll":
            return model.loglik
        case "deviance":
            return model.criterion
        case "aic":
            return model.aic
        case "bic":
            return model.bic
        case "icc":
            return model.icc().adjusted
        case "r2_marginal":
            return model.r2().marginal
        case "r2_conditional":
            return model.r2().conditional
        case "df_resid":
            return model.df_resid
        case "se_type":
            return "model"
        case "method":
            return "REML" if model.reml else "ML"
    for group, count in model.ngroups.items():
        if key == _groups(group):
            return count
    return random_parameters(model).get(key, model.sigma if key == RESIDUAL else None)


def default_statistics(model: LinearMixedModel) -> list[str]:
    """Keys of what is shown unless the user asks for others."""
    return [
        "N",
        *map(_groups, model.ngroups),
        "method",
        "ll",
        "aic",
        "bic",
        "icc",
        "r2_marginal",
        "r2_conditional",
        RESIDUAL,
        *random_parameters(model),
    ]


def _groups(group: str) -> str:
    return f"Groups: {group}"
