"""Estimates with standard errors and degrees of freedom, and the tables that are made of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import NDArray

from mixedeffects.base.options import checked_level
from mixedeffects.display.result_table import ResultTable
from mixedeffects.display.vocabulary import BROOM, INTERVAL, former_interval, intervals_at

__all__ = ["Estimates", "fixed_rows", "tests_table"]

Matrix = NDArray[np.float64]

#: Columns of t tests under their names in z tests.
_OF_Z = {"t value": "z value", "Pr(>|t|)": "Pr(>|z|)"}


@dataclass(frozen=True, eq=False)
class Estimates:
    """Linear functions of the fixed effects; NaN where one cannot be estimated.

    Attributes
    ----------
    estimate, se, df : ndarray, shape (r,)
        Estimates, their standard errors and degrees of freedom.
    """

    estimate: Matrix
    se: Matrix
    df: Matrix

    @property
    def t(self) -> Matrix:
        """Estimates in units of their standard errors."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.estimate / self.se

    @property
    def p(self) -> Matrix:
        """Two-sided probabilities, of each function by itself."""
        return np.asarray(2.0 * scipy.stats.t.sf(np.abs(self.t), self.df))

    def half_widths(self, level: float) -> Matrix:
        """Half of the interval of each function by itself."""
        return np.asarray(scipy.stats.t.ppf(0.5 + level / 2.0, self.df) * self.se)


def tests_table(
    found: Estimates,
    index: Iterable[str],
    level: float | None,
    how: str,
    normal: bool = False,
) -> ResultTable:
    """Tests and intervals in R's style, columns as of `LinearMixedModel.coef_table`.

    Parameters
    ----------
    found : Estimates
        What is tested.
    index : sequence of str, length r
        Names of the rows.
    level : float or None
        Confidence level; None leaves the intervals out.
    how : str
        The method, for the line below the table.
    normal : bool
        Whether there are no degrees of freedom: the columns are those of z tests.

    Raises
    ------
    ModelError
        If the level is not between 0 and 1.
    """
    table = pd.DataFrame(
        {
            "Estimate": found.estimate,
            "Std. Error": found.se,
            "df": found.df,
            "t value": found.t,
            "Pr(>|t|)": found.p,
        },
        index=list(index),
    )
    if normal:
        table = table.drop(columns="df").rename(columns=_OF_Z)
    if level is None:
        return ResultTable.of(table, (how,))
    level = checked_level(level)
    half = found.half_widths(level)
    for name, bound in zip(INTERVAL, (-half, half), strict=True):
        table[name] = found.estimate + bound
    return ResultTable.of(table, (f"{intervals_at(level)}; {how}",), former_interval(level))


def fixed_rows(table: pd.DataFrame) -> pd.DataFrame:
    """A table in R's style as the rows of ``tidy`` about fixed effects, in broom's."""
    order = ("estimate", "std_error", "statistic", "df", "p_value", "conf_low", "conf_high")
    own = pd.DataFrame(table).rename(columns=BROOM).reset_index(drop=True)
    own = own[[name for name in order if name in own]]
    head = pd.DataFrame({"effect": "fixed", "group": None, "term": list(table.index)})
    return pd.concat([head, own], axis=1)
