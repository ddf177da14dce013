"""The names of columns: one for each quantity in each of two styles.

Tables that follow R's printed ones (`coef_table`, `anova`, `contrast`, `confint`) have R's names;
tables that one computes with (`tidy`, `glance`, `augment`, `predict`, `emmeans`, `effects`) have
those of R's broom, dots written as underscores. No name depends on the confidence level.
"""

from __future__ import annotations

import re
from typing import Literal

__all__ = [
    "BROOM",
    "BROOM_INTERVAL",
    "ESTIMATES",
    "FORMER_MEANS",
    "FORMER_PREDICTIONS",
    "INTERVAL",
    "Kind",
    "former_interval",
    "intervals_at",
    "kind_of",
    "squared_units",
]

#: What the numbers of a column are, which decides how they are written.
Kind = Literal["estimate", "df", "statistic", "p", "count", "number"]

#: Bounds of an interval in R's style, and in broom's.
INTERVAL = ("lower", "upper")
BROOM_INTERVAL = ("conf_low", "conf_high")

#: Broom's names for R's.
BROOM = {
    "Estimate": "estimate",
    "Std. Error": "std_error",
    "t value": "statistic",
    "Pr(>|t|)": "p_value",
    "z value": "statistic",
    "Pr(>|z|)": "p_value",
    **dict(zip(INTERVAL, BROOM_INTERVAL, strict=True)),
}

#: Estimates with their standard errors and intervals, which share a scale.
ESTIMATES = {
    "Estimate",
    "Std. Error",
    "Bias",
    "estimate",
    "std_error",
    *INTERVAL,
    *BROOM_INTERVAL,
}
_DEGREES_OF_FREEDOM = {"df", "DenDF", "df1", "df2", "den_df"}
_STATISTICS = {"statistic", "Chisq", "F value", "t value", "z value", "RIV", "FMI", "riv", "fmi"}
_P_VALUE = re.compile(r"Pr\(.*\)|p_value|p_adjusted")
_COUNTS = {"NumDF", "Df", "npar", "nobs", "df_residual", "num_df", "nimp"}

#: Earlier spellings of the columns of means and comparisons, and of predictions.
FORMER_MEANS = {
    "emmean": "estimate",
    "SE": "std_error",
    "t value": "statistic",
    "Pr(>|t|)": "p_value",
}
FORMER_PREDICTIONS = {
    "fit": "estimate",
    "se": "std_error",
    "lower": "conf_low",
    "upper": "conf_high",
}


def kind_of(name: object) -> Kind:
    """What the numbers of a column of that name are.

    Examples
    --------
    >>> kind_of("Pr(>|t|)"), kind_of("conf_low"), kind_of("Days")
    ('p', 'estimate', 'number')
    """
    # Tables put side by side have tuples for names.
    text = str(name[-1] if isinstance(name, tuple) and name else name)
    if _P_VALUE.fullmatch(text):
        return "p"
    if text in ESTIMATES:
        return "estimate"
    if text in _DEGREES_OF_FREEDOM:
        return "df"
    if text in _STATISTICS:
        return "statistic"
    return "count" if text in _COUNTS else "number"


def intervals_at(level: float, kind: str = "") -> str:
    """What tables and pictures call intervals of a level.

    Examples
    --------
    >>> intervals_at(0.95), intervals_at(0.9, "Wald")
    ('95 % intervals', '90 % Wald intervals')
    """
    return f"{100 * level:.4g} % {f'{kind} ' if kind else ''}intervals"


def former_interval(level: float, names: tuple[str, str] = INTERVAL) -> dict[str, str]:
    """Earlier names of the bounds at a level, and those they have now.

    Examples
    --------
    >>> former_interval(0.95)
    {'2.5 %': 'lower', '97.5 %': 'upper'}
    """
    bounds = (0.5 - level / 2, 0.5 + level / 2)
    return {f"{100 * bound:.4g} %": name for bound, name in zip(bounds, names, strict=True)}


def squared_units(called: str) -> str:
    """Units of covariances: of the response, or where they have a name on the scale of a link."""
    return "link units²" if called else "response units²"
