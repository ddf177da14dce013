"""Estimates that mean the same in every fitted model."""

from __future__ import annotations

import pandas as pd

from mixedeffects.covariance import VarCorr
from mixedeffects.covariance.of_fit import varcorr_of
from mixedeffects.inference.conditional import conditional_modes
from mixedeffects.model.shared.held import Held

__all__ = ["SharedEstimates"]


class SharedEstimates(Held):
    """Estimates that mean the same in every fitted model."""

    @property
    def loglik(self) -> float:
        """Log-likelihood (restricted for a REML fit), ``-criterion / 2``."""
        return self.fit.loglik

    @property
    def aic(self) -> float:
        """Akaike's information criterion, ``criterion + 2 n_parameters``.

        References
        ----------
        Akaike, H. (1974). A new look at the statistical model identification. IEEE Transactions
        on Automatic Control 19, 716-723.
        """
        return self.fit.aic

    @property
    def bic(self) -> float:
        """Schwarz's information criterion, ``criterion + log(nobs) n_parameters``, as in lme4.

        References
        ----------
        Schwarz, G. (1978). Estimating the dimension of a model. Annals of Statistics 6, 461-464.
        """
        return self.fit.bic

    @property
    def df_resid(self) -> int:
        """Residual degrees of freedom, ``nobs - n_parameters``, as in lme4."""
        return self.fit.df_resid

    @property
    def varcorr(self) -> VarCorr:
        """Variances and correlations of the random effects; see `VarCorr`.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.varcorr
         Groups   Name        Std.Dev. Corr
         Subject  (Intercept) 24.7405
                  Days         5.9221  0.066
         Residual             25.5918
        """
        return varcorr_of(self.fit)

    def coef(self) -> dict[str, pd.DataFrame]:
        """Coefficients of each level: fixed effects plus that level's random effects.

        Returns
        -------
        dict of DataFrame
            For each grouping factor one row per level and one column per coefficient, as lme4's
            ``coef()``; a random effect without a fixed one stands alone.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.coef()["Subject"].head(2).round(2)
             (Intercept)   Days
        308       253.66  19.67
        309       211.01   1.85
        """
        fixed = pd.Series(self.fit.beta, index=list(self.frame.fixef_names))
        tables = {}
        for group, modes in conditional_modes(self.fit, False).items():
            names = list(dict.fromkeys([*fixed.index, *modes.columns]))
            table = pd.DataFrame(0.0, index=modes.index, columns=names)
            table += fixed.reindex(names, fill_value=0.0)
            tables[group] = table.add(modes.T.groupby(level=0).sum().T, fill_value=0.0)[names]
        return tables
