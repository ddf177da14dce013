"""The read-only names of statsmodels' results, so that tools written for them take a fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.stats

from mixedeffects.base.options import checked_level
from mixedeffects.inference.coefficients import coefficient_tests
from mixedeffects.model.held import Held

__all__ = ["StatsmodelsNames"]


class StatsmodelsNames(Held):
    """The read-only names of statsmodels' results; each says what it is called here."""

    @property
    def params(self) -> pd.Series:
        """`fixef`, the fixed effects, by statsmodels' name."""
        return pd.Series(self.fit.beta.copy(), index=list(self.frame.fixef_names), name="Estimate")

    @property
    def bse(self) -> pd.Series:
        """`se`, the standard errors of the fixed effects, by statsmodels' name."""
        return pd.Series(
            np.sqrt(np.diag(self.fit.vcov)), index=list(self.frame.fixef_names), name="Std. Error"
        )

    @property
    def tvalues(self) -> pd.Series:
        """``coef_table()["t value"]``, by statsmodels' name."""
        return pd.Series(coefficient_tests(self.fit)["t value"])

    @property
    def pvalues(self) -> pd.Series:
        """``coef_table()["Pr(>|t|)"]``, by statsmodels' name: Satterthwaite's method.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> round(float(m.pvalues["Days"]), 8)
        3.26e-06
        """
        return pd.Series(coefficient_tests(self.fit)["Pr(>|t|)"])

    @property
    def llf(self) -> float:
        """`loglik`, the log-likelihood, by statsmodels' name."""
        return self.fit.loglik

    @property
    def fittedvalues(self) -> pd.Series:
        """`fitted`, the fitted values with random effects, by statsmodels' name."""
        from mixedeffects.covariance.of_fit import fitted_values

        return pd.Series(fitted_values(self.fit), index=self.frame.index, name="fitted")

    def conf_int(self, alpha: float = 0.05) -> pd.DataFrame:
        """Intervals of the fixed effects, in statsmodels' form.

        Parameters
        ----------
        alpha : float
            One less the confidence level.

        Returns
        -------
        DataFrame
            Columns 0 and 1: ``lower`` and ``upper`` of `coef_table`.

        Raises
        ------
        ModelError
            If alpha is not between 0 and 1.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.conf_int().round(2)
                          0       1
        (Intercept)  237.01  265.80
        Days           7.21   13.73
        """
        alpha = checked_level(alpha, "alpha", 0.05)
        table = pd.DataFrame(coefficient_tests(self.fit))
        half = scipy.stats.t.ppf(1.0 - alpha / 2.0, table["df"]) * table["Std. Error"]
        return pd.DataFrame({0: table["Estimate"] - half, 1: table["Estimate"] + half})

    def cov_params(self) -> pd.DataFrame:
        """`vcov`, the covariance matrix of the fixed effects, by statsmodels' name."""
        names = list(self.frame.fixef_names)
        return pd.DataFrame(self.fit.vcov.copy(), index=names, columns=names)
