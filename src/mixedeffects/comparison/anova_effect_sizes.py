"""Partial eta, omega and epsilon squared of the terms of the fixed part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.optimize
import scipy.special
from numpy.typing import NDArray

from mixedeffects.base.options import checked_choice, checked_level, checked_names
from mixedeffects.display.result_table import ResultTable
from mixedeffects.display.vocabulary import intervals_at
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.inference.wald import anova_table

__all__ = ["anova_effect_sizes", "noncentrality_bounds"]

Matrix = NDArray[np.float64]

_MEASURES = ("eta", "omega", "epsilon")
_SIDES = ("two-sided", "greater")


def anova_effect_sizes(
    fit: Fit,
    measures: Any,
    kind: Any,
    ddf: str,
    vcov: str,
    cluster: Any,
    level: float,
    alternative: str,
) -> ResultTable:
    """See `LinearMixedModel.anova_effect_sizes`."""
    level = checked_level(level)
    wanted = [
        checked_choice(name, "measure", _MEASURES) for name in checked_names(measures, "measures")
    ]
    if not wanted:
        raise ModelError("measures names none; there are 'eta', 'omega' and 'epsilon'.")
    side = checked_choice(alternative, "alternative", _SIDES)
    table = anova_table(fit, kind, ddf, vcov, cluster)
    F, q, df = (table[name].to_numpy(float) for name in ("F value", "NumDF", "DenDF"))
    if np.isinf(df).any():
        raise ModelError(
            "Effect sizes of terms are shares of a variance that has degrees of freedom; with "
            "ddf='inf' there are none. Use ddf='satterthwaite', 'kr' or 'residual'."
        )
    low, high = _interval(F, q, df, level, side)
    parts = [
        pd.DataFrame(
            {
                "term": list(table.index),
                "measure": f"partial {measure} squared",
                "estimate": _estimates(measure, F, q, df),
                "conf_low": low,
                "conf_high": high,
                "statistic": F,
                "num_df": q,
                "den_df": df,
            }
        )
        for measure in wanted
    ]
    how = "" if side == "two-sided" else "one-sided"
    return ResultTable.of(pd.concat(parts, ignore_index=True), (intervals_at(level, how),))


def _estimates(measure: str, F: Matrix, q: Matrix, df: Matrix) -> Matrix:
    if measure == "eta":
        return F * q / (F * q + df)
    least = np.where(np.isnan(F), np.nan, 0.0)
    more = 1.0 if measure == "omega" else 0.0
    return np.fmax(least, (F - 1.0) * q / (F * q + df + more))


def _interval(F: Matrix, q: Matrix, df: Matrix, level: float, side: str) -> tuple[Matrix, Matrix]:
    """Bounds of the share in the population, from the noncentral F distribution."""
    tail = 0.5 - level / 2.0 if side == "two-sided" else 1.0 - level
    low, high = np.full(len(q), np.nan), np.full(len(q), np.nan)
    for i in np.flatnonzero(np.isfinite(F) & (df > 0.0)):
        below, above = noncentrality_bounds(F[i], q[i], df[i], tail)
        low[i] = below / (below + df[i])
        high[i] = above / (above + df[i]) if side == "two-sided" else 1.0
    return low, high


def noncentrality_bounds(F: float, q: float, df: float, tail: float) -> tuple[float, float]:
    """Noncentralities with which F has this upper, and this lower tail; zero where none has.

    References
    ----------
    Steiger, J. H. (2004). Beyond the F test: effect size confidence intervals and tests of close
    fit in the analysis of variance and contrast analysis. Psychological Methods 9, 164-182.

    Examples
    --------
    >>> low, high = noncentrality_bounds(5.0, 2, 30.0, 0.05)
    >>> round(low, 2), round(high, 2)
    (1.15, 22.93)
    """
    return _noncentrality(F, q, df, 1.0 - tail), _noncentrality(F, q, df, tail)


def _noncentrality(F: float, q: float, df: float, below: float) -> float:
    """The noncentrality with which this share of the distribution is below F."""

    def excess(value: float) -> float:
        return float(scipy.special.ncfdtr(q, df, value, F)) - below

    if scipy.special.fdtr(q, df, F) <= below:
        return 0.0
    top = max(1.0, 2.0 * F * q)
    while excess(top) > 0.0:
        top *= 2.0
    return float(scipy.optimize.brentq(excess, 0.0, top, xtol=1e-12 * top, rtol=1e-13))
