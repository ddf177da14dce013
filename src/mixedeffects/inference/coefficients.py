"""The table of fixed effects: tests and intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.display.result_table import ResultTable
from mixedeffects.fitting.fit import Fit
from mixedeffects.inference.estimates import Estimates, tests_table
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
    found = Estimates(estimate, error, df)
    table = tests_table(found, fit.fixef_names, level, variance.method, variance.normal)
    if fit.optimum.undetermined:
        table.attrs["undetermined"] = fit.optimum.undetermined
    return table
