"""The read-only names of statsmodels' results, so that tools written for them take a fit."""

from __future__ import annotations

import pandas as pd

from mixedeffects.base.options import checked_level
from mixedeffects.inference.normal_tests import normal_covariance, normal_tests
from mixedeffects.model.generalized.of_record import OfRecord

__all__ = ["GeneralizedStatsmodelsNames"]


class GeneralizedStatsmodelsNames(OfRecord):
    """The read-only names of statsmodels' results; each says what it is called here."""

    @property
    def params(self) -> pd.Series:
        """`fixef` by statsmodels' name: fixed effects, length p, on the scale of the link."""
        return self._column("Estimate")

    @property
    def bse(self) -> pd.Series:
        """`se` by statsmodels' name: standard errors, length p, in the units of `fixef`."""
        return self._column("Std. Error")

    @property
    def tvalues(self) -> pd.Series:
        """``coef_table()["z value"]`` by statsmodels' name, length p; without units."""
        return self._column("z value")

    @property
    def pvalues(self) -> pd.Series:
        """``coef_table()["Pr(>|z|)"]`` by statsmodels' name, length p."""
        return self._column("Pr(>|z|)")

    @property
    def llf(self) -> float:
        """`loglik` by statsmodels' name."""
        return self.fit.loglik

    @property
    def fittedvalues(self) -> pd.Series:
        """`fitted` by statsmodels' name: means given the conditional modes, length n."""
        return pd.Series(self._record.mu.copy(), index=self.frame.index, name="fitted")

    def conf_int(self, alpha: float = 0.05) -> pd.DataFrame:
        """Wald intervals of the fixed effects, as of `coef_table`, by statsmodels' name.

        Parameters
        ----------
        alpha : float
            One less the confidence level.

        Returns
        -------
        DataFrame, p x 2
            Columns 0 and 1, as statsmodels has them.

        Raises
        ------
        ModelError
            If alpha is not between 0 and 1.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> m.conf_int().round(2).iloc[0].tolist()
        [-1.85, -0.94]
        """
        level = 1.0 - checked_level(alpha, "alpha", 0.05)
        table = normal_tests(self._record, "model", level)
        return pd.DataFrame({0: table["lower"], 1: table["upper"]})

    def cov_params(self) -> pd.DataFrame:
        """``vcov()`` by statsmodels' name, DataFrame p x p."""
        return normal_covariance(self._record, "model")

    def _column(self, name: str) -> pd.Series:
        return pd.DataFrame(normal_tests(self._record, "model", None))[name]
