"""The read-only names of statsmodels' results, so that tools written for them take a fit."""

from __future__ import annotations

import pandas as pd

from mixedeffects.base.options import checked_level
from mixedeffects.model.linear.diagnostics import Diagnostics
from mixedeffects.model.linear.estimates import Estimates
from mixedeffects.model.linear.inference import Inference

__all__ = ["StatsmodelsNames"]


class StatsmodelsNames(Estimates, Diagnostics, Inference):
    """The read-only names of statsmodels' results; each says what it is called here."""

    @property
    def params(self) -> pd.Series:
        """`fixef` by statsmodels' name: fixed effects, length p, in units of y per unit of x.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.params.round(2)
        (Intercept)    251.41
        Days            10.47
        Name: Estimate, dtype: float64
        """
        return self.fixef

    @property
    def bse(self) -> pd.Series:
        """`se` by statsmodels' name: standard errors, length p, in the units of `fixef`.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.bse.round(2)
        (Intercept)    6.82
        Days           1.55
        Name: Std. Error, dtype: float64
        """
        return self.se

    @property
    def tvalues(self) -> pd.Series:
        """``coef_table()["t value"]`` by statsmodels' name, length p; without units.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.tvalues.round(2)
        (Intercept)    36.84
        Days            6.77
        Name: t value, dtype: float64
        """
        return self.coef_table(level=None)["t value"]

    @property
    def pvalues(self) -> pd.Series:
        """``coef_table()["Pr(>|t|)"]`` by statsmodels' name, length p: Satterthwaite's method.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> round(float(m.pvalues["Days"]), 8)
        3.26e-06
        """
        return self.coef_table(level=None)["Pr(>|t|)"]

    @property
    def llf(self) -> float:
        """`loglik` by statsmodels' name: the log-likelihood, restricted for a REML fit.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> round(m.llf, 3)
        -871.814
        """
        return self.fit.loglik

    @property
    def fittedvalues(self) -> pd.Series:
        """`fitted` by statsmodels' name: fitted values ``X beta + Z b``, length n, in units of y.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.fittedvalues.head(2).round(1)
        0    253.7
        1    273.3
        Name: fitted, dtype: float64
        """
        return self.fitted

    def conf_int(self, alpha: float = 0.05) -> pd.DataFrame:
        """Intervals of the fixed effects, in statsmodels' form.

        Parameters
        ----------
        alpha : float
            One less the confidence level.

        Returns
        -------
        DataFrame, p x 2
            Columns 0 and 1: ``lower`` and ``upper`` of `coef_table`, in the units of `fixef`.

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
        table = self.coef_table(level=1.0 - checked_level(alpha, "alpha", 0.05))
        return pd.DataFrame({0: table["lower"], 1: table["upper"]})

    def cov_params(self) -> pd.DataFrame:
        """Covariance matrix of the fixed effects, `vcov` by statsmodels' name.

        Returns
        -------
        DataFrame, p x p
            In products of the units of `fixef`, with the estimated V taken as known.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.cov_params().round(2)
                     (Intercept)  Days
        (Intercept)        46.57 -1.45
        Days               -1.45  2.39
        """
        return self.vcov()
