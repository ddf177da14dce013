"""The table of fixed effects: tests and intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import NDArray

from mixedeffects.inference.variance import FixedEffectsVariance, fixed_effects_variance
from mixedeffects.options import checked_level

if TYPE_CHECKING:
    from mixedeffects.model import LinearMixedModel

__all__ = ["coefficient_tests", "interval_names", "tests_with"]

Matrix = NDArray[np.float64]


def coefficient_tests(
    model: LinearMixedModel, ddf: str, vcov: str, level: float | None, cluster: Any = None
) -> pd.DataFrame:
    """See `LinearMixedModel.coef_table`."""
    return tests_with(model, fixed_effects_variance(model, vcov, ddf, cluster), level)


def tests_with(
    model: LinearMixedModel, variance: FixedEffectsVariance, level: float | None
) -> pd.DataFrame:
    """The table from any covariance matrix with its degrees of freedom."""
    estimate = model.fixef.to_numpy()
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
        index=model.fixef.index,
    )
    if model.optimum.undetermined:
        table.attrs["undetermined"] = model.optimum.undetermined
    if level is not None:
        names = interval_names(level)
        half = scipy.stats.t.ppf(0.5 + level / 2.0, df) * error
        for name, values in zip(names, (estimate - half, estimate + half), strict=True):
            table[name] = values
    return table


def interval_names(level: Any) -> list[str]:
    """Columns of an interval, such as ``2.5 %`` and ``97.5 %``.

    Raises
    ------
    ModelError
        If the level is not a number between 0 and 1.
    """
    level = checked_level(level)
    return [f"{100 * bound:.4g} %" for bound in (0.5 - level / 2, 0.5 + level / 2)]
