"""Tables with broom's column names, dots written as underscores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mixedeffects.base.options import checked_names, meant
from mixedeffects.covariance.of_fit import fitted_values, varcorr_of
from mixedeffects.covariance.parameter_rows import parameter_rows
from mixedeffects.diagnostics.residuals import residuals
from mixedeffects.display.result_table import ResultTable
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.natural import covariance_parameters
from mixedeffects.inference.coefficients import coefficient_tests
from mixedeffects.inference.conditional import conditional_modes
from mixedeffects.inference.estimates import fixed_rows
from mixedeffects.prediction.in_table import augmented_table

__all__ = [
    "augment",
    "checked_effects",
    "glance",
    "joined",
    "random_parameters",
    "random_values",
    "tidy",
]

_EFFECTS = ("fixed", "ran_pars", "ran_vals")
#: Of a row of a parameter.
_COLUMNS = ["effect", "group", "term", "estimate", "std_error", "statistic", "df", "p_value"]


def tidy(
    fit: Fit,
    effects: str | Sequence[str],
    ddf: str,
    vcov: str,
    cluster: Any,
    level: float | None,
) -> ResultTable:
    """One row per parameter; see `LinearMixedModel.tidy`."""
    makers = {
        "fixed": lambda: fixed_rows(coefficient_tests(fit, ddf, vcov, level, cluster)),
        "ran_pars": lambda: random_parameters(fit).assign(df=np.nan)[_COLUMNS],
        "ran_vals": lambda: random_values(fit),
    }
    return joined(makers[name]() for name in checked_effects(effects))


def checked_effects(effects: str | Sequence[str]) -> tuple[str, ...]:
    """The kinds of rows asked for: ``"fixed"``, ``"ran_pars"``, ``"ran_vals"``.

    Raises
    ------
    ModelError
        If a kind is not known, or there is none.
    """
    wanted = tuple(checked_names(effects, "effects"))
    unknown = [name for name in wanted if name not in _EFFECTS]
    if unknown or not wanted:
        raise ModelError(
            f"effects {unknown or list(wanted)} are not known; there are 'fixed', 'ran_pars' and "
            f"'ran_vals'.{meant(next(iter(unknown), None), _EFFECTS)}"
        )
    return wanted


def joined(parts: Iterable[pd.DataFrame]) -> ResultTable:
    """Kinds of rows, one below the other."""
    return ResultTable.of(pd.concat(parts, ignore_index=True))


def random_parameters(fit: Fit, *more: tuple[str, str, float]) -> pd.DataFrame:
    """Rows of the parameters of the random effects, and of others: group, term and estimate."""
    rows = parameter_rows(varcorr_of(fit), fit.frame.structured_terms, covariance_parameters(fit))
    groups, names, values = zip(*rows, *more, strict=True)
    return pd.DataFrame(
        {
            "effect": "ran_pars",
            "group": groups,
            "term": names,
            "estimate": values,
            "std_error": np.nan,
            "statistic": np.nan,
            "p_value": np.nan,
        }
    )


def random_values(fit: Fit) -> pd.DataFrame:
    """Rows of the conditional modes."""
    long = conditional_modes(fit, cond_var=True).to_frame()
    return pd.DataFrame(
        {
            "effect": "ran_vals",
            "group": long["grp"],
            "level": long["level"],
            "term": long["term"],
            "estimate": long["condval"],
            "std_error": long["condsd"],
        }
    )


def glance(fit: Fit) -> ResultTable:
    """One row about the whole fit; see `LinearMixedModel.glance`. It serves fits of either kind."""
    name = "REMLcrit" if fit.reml else "deviance"
    return ResultTable(
        {
            "nobs": [fit.nobs],
            "sigma": [fit.sigma],
            "logLik": [fit.loglik],
            "AIC": [fit.aic],
            "BIC": [fit.bic],
            name: [fit.criterion],
            "df_residual": [fit.df_resid],
            "converged": [bool(fit.optimum.converged)],
        }
    )


def augment(fit: Fit) -> Any:
    """The data used, with fitted values and residuals; see `LinearMixedModel.augment`."""
    if fit.rows is not None:
        return augmented_table(fit)
    out = fit.frame.data.copy()
    out["_fitted"] = fitted_values(fit)
    out["_resid"] = residuals(fit, "response")
    out["_fixed"] = fit.fixed_part
    return ResultTable.of(out)
