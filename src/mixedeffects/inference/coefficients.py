"""The table of fixed effects: tests and intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import NDArray

from mixedeffects.base.options import checked_level
from mixedeffects.display.result_table import ResultTable
from mixedeffects.display.vocabulary import INTERVAL, former_interval
from mixedeffects.fitting.fit import Fit
from mixedeffects.inference.variance import FixedEffectsVariance
from mixedeffects.inference.variance_by_name import fixed_effects_variance

__all__ = ["coefficient_tests", "tests_with"]

Matrix = NDArray[np.float64]


def coefficient_tests(
    fit: Fit,
    ddf: str = "satterthwaite",
    vcov: str = "model",
    level: float | None = 0.95,
    cluster: Any = None,
) -> ResultTable:
    """See `LinearMixedModel.coef_table`."""
    return tests_with(fit, fixed_effects_variance(fit, vcov, ddf, cluster), level)


def tests_with(fit: Fit, variance: FixedEffectsVariance, level: float | None) -> ResultTable:
    """The table from any covariance matrix with its degrees of freedom."""
    estimate = fit.beta
    with np.errstate(invalid="ignore"):
        # An adjustment can make of next to nothing a negative variance: no standard error then.
        error = np.sqrt(np.diag(variance.vcov))
    df = np.where(np.isnan(error), np.nan, variance.df(np.eye(len(estimate))))
    t = estimate / error
    table = pd.DataFrame(
        {
            "Estimate": estimate,
            "Std. Error": error,
            "df": df,
            "t value": t,
            "Pr(>|t|)": 2.0 * scipy.stats.t.sf(np.abs(t), df),
        },
        index=fit.fixef_names,
    )
    if fit.optimum.undetermined:
        table.attrs["undetermined"] = fit.optimum.undetermined
    if level is None:
        return ResultTable.of(table, (variance.method,))
    level = checked_level(level)
    half = scipy.stats.t.ppf(0.5 + level / 2.0, df) * error
    for name, values in zip(INTERVAL, (estimate - half, estimate + half), strict=True):
        table[name] = values
    notes = (f"{100 * level:.4g} % intervals; {variance.method}",)
    return ResultTable.of(table, notes, former_interval(level))
