"""Estimates: fixed effects, variances, random effects, and the likelihood."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.fitting.natural import covariance_parameters
from mixedeffects.inference.conditional import RandomEffects, conditional_modes
from mixedeffects.model.shared.held import Held

__all__ = ["Estimates"]

Matrix = NDArray[np.float64]


class Estimates(Held):
    """Estimates: fixed effects, variances, random effects, and the likelihood."""

    @property
    def reml(self) -> bool:
        """Whether the fit is by restricted maximum likelihood."""
        return self.fit.reml

    @property
    def fixef(self) -> pd.Series:
        """Fixed effects, a Series of length p with R's names, in units of y per unit of the column.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.fixef.round(2)
        (Intercept)    251.41
        Days            10.47
        Name: Estimate, dtype: float64
        """
        return pd.Series(self.fit.beta.copy(), index=list(self.frame.fixef_names), name="Estimate")

    @property
    def se(self) -> pd.Series:
        """Standard errors of the fixed effects, a Series of length p in the units of `fixef`.

        They take the estimated V as known, as lme4 does.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.se.round(2)
        (Intercept)    6.82
        Days           1.55
        Name: Std. Error, dtype: float64
        """
        return pd.Series(
            np.sqrt(np.diag(self.fit.vcov)), index=list(self.frame.fixef_names), name="Std. Error"
        )

    @property
    def sigma(self) -> float:
        """Residual standard deviation (at unit prior weight), in units of the response.

        Where standard deviations differ, that of the first level of ``by=`` at the first time, or
        of the first level of the factor in ``variance=``, or where a covariate in it is zero (of
        ``log(x)``: where x is one). All of them are in ``m.R.parameters``.
        """
        return self.fit.sigma

    @property
    def theta(self) -> Matrix:
        """Relative covariance parameters, shape (m,), in lme4's order; without units.

        For each term the lower triangle of its factor T, column by column, where
        ``sigma^2 T T'`` is the covariance matrix of the term's effects. With a covariance structure
        these are more than there are parameters; see `covariance_parameters`. Parameters of the
        residuals' covariance are not among them, and without random effects there are none.

        References
        ----------
        Bates, D., Maechler, M., Bolker, B. and Walker, S. (2015). Fitting linear mixed-effects
        models using lme4. Journal of Statistical Software 67(1).

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.theta.round(3)
        array([0.967, 0.015, 0.231])
        """
        return self.fit.theta

    @property
    def covariance_parameters(self) -> pd.Series:
        """The parameters of the covariances as they are reported; sigma last.

        Standard deviations in units of the response per unit of the column, and correlations. A
        term with a structure has only the parameters of its structure, ``sd|g`` for the standard
        deviation common to all columns and ``cor|g`` for the one correlation; `theta` has the
        entries of every T all the same.

        With ``residual=`` or ``variance=`` there follow those of the residuals, one for each that
        is estimated: ``sd_VIS2|Residual`` of a time, a stratum (``sd_PBO:VIS2|Residual``) or a
        level of the factor in ``variance=``, but for the first, which is sigma;
        ``log_sd_age|Residual`` and ``power_age|Residual``, what the logarithm of the standard
        deviation is linear in; ``cor|Residual``, of two times ``cor_VIS2.VIS1|Residual``, of a lag
        ``cor_lag2|Residual``; ``range|Residual`` and ``nugget|Residual``. Sigma is last also where
        it was given.

        Returns
        -------
        Series
            A correlation is NaN where there are not two columns with variance.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cake = me.load_dataset("cake")
        >>> m = me.lmer("angle ~ recipe * temperature + cs(0 + recipe | replicate)", cake)
        >>> m.covariance_parameters.round(2)
        sd_recipeA|replicate    5.12
        sd_recipeB|replicate    6.78
        sd_recipeC|replicate    7.27
        cor|replicate           0.95
        sigma                   4.54
        Name: Estimate, dtype: float64
        """
        return covariance_parameters(self.fit)

    @property
    def criterion(self) -> float:
        """REML criterion, or -2 log-likelihood for a maximum-likelihood fit; constants included.

        Examples
        --------
        The likelihood depends on the data through V alone:

        >>> import numpy as np
        >>> import mixedeffects as me
        >>> sleep = me.load_dataset("sleepstudy")
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", sleep, reml=False)
        >>> by_hand = m.nobs * np.log(2 * np.pi) + m.V.logdet() + m.V.quad(m.resid("marginal"))
        >>> round(m.criterion, 4), round(float(by_hand), 4)
        (1751.9393, 1751.9393)
        """
        return self.fit.criterion

    def loglik_at(self, theta: Any, sigma: float | None = None, reml: bool | None = None) -> float:
        """Log-likelihood of these data at other parameters, maximised over the fixed effects.

        Parameters
        ----------
        theta : array, shape (m,)
            Relative covariance parameters, in the order of `theta`.
        sigma : float, optional
            Residual standard deviation, in units of the response; by default the one that
            maximises the likelihood at theta.
        reml : bool, optional
            Restricted likelihood or likelihood; by default that of the fit.

            With ``residual=`` or ``variance=`` the parameters of the residuals are held at their
            estimates.

        Returns
        -------
        float
            The logarithm, constants included.

        Raises
        ------
        ModelError
            If theta has the wrong length, a value is not finite, or sigma is not positive.

        References
        ----------
        Bates, D., Maechler, M., Bolker, B. and Walker, S. (2015). Fitting linear mixed-effects
        models using lme4. Journal of Statistical Software 67(1). The restricted likelihood is
        normalised as there, without ``log |X'X| / 2``.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> round(m.loglik_at(m.theta), 3), round(m.loglik, 3)
        (-871.814, -871.814)
        >>> round(m.loglik_at([1, 0, 0], sigma=30.0), 3)
        -894.179
        """
        from mixedeffects.fitting.likelihood import loglik_at

        return loglik_at(self.fit, theta, sigma, reml)

    @property
    def n_parameters(self) -> int:
        """Number of parameters: fixed effects, covariance parameters, and sigma.

        The covariance parameters are the entries of `theta`, but for a term with a structure the
        parameters of the structure.
        """
        return self.fit.n_parameters

    def ranef(self, cond_var: bool = False) -> RandomEffects:
        """Conditional modes of the random effects.

        Parameters
        ----------
        cond_var : bool
            Also compute each level's conditional covariance matrix, given beta and theta.

        Returns
        -------
        RandomEffects
            A dict of DataFrames, l x k, one for each grouping factor with l levels and k
            effects, in units of the response per unit of the column; with ``cond_var=True`` its
            ``cond_var`` holds arrays (l, k, k).

        References
        ----------
        Robinson, G. K. (1991). That BLUP is a good thing: the estimation of random effects.
        Statistical Science 6, 15-32. As ``ranef(m, condVar = TRUE)`` in R's lme4.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.ranef()["Subject"].head(2).round(2)
             (Intercept)  Days
        308         2.26  9.20
        309       -40.40 -8.62
        >>> m.ranef(cond_var=True).cond_var["Subject"].shape
        (18, 2, 2)
        """
        return conditional_modes(self.fit, cond_var)
