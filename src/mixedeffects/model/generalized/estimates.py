"""Estimates: fixed effects, covariances, random effects, and the likelihood."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.engine.generalized import LaplaceCheck
from mixedeffects.errors import ModelError
from mixedeffects.families import Family
from mixedeffects.fitting.natural import covariance_parameters
from mixedeffects.inference.conditional import RandomEffects, conditional_modes
from mixedeffects.inference.normal_tests import check_normal, normal_covariance, normal_tests
from mixedeffects.model.generalized.of_record import OfRecord

__all__ = ["GeneralizedEstimates"]

Matrix = NDArray[np.float64]


class GeneralizedEstimates(OfRecord):
    """Estimates: fixed effects, covariances, random effects, and the likelihood."""

    @property
    def family(self) -> Family:
        """Distribution of the response, with its link.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> m.family
        Family: binomial (link: logit)
        """
        return self._record.family

    @property
    def nagq(self) -> int:
        """Quadrature points per random effect; 1 is Laplace's approximation."""
        return self._record.nagq

    @property
    def fixef(self) -> pd.Series:
        """Fixed effects, a Series of length p with R's names, on the scale of the link.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> m.fixef.round(2)
        (Intercept)   -1.40
        period2       -0.99
        period3       -1.13
        period4       -1.58
        Name: Estimate, dtype: float64
        """
        return pd.Series(self.fit.beta.copy(), index=list(self.frame.fixef_names), name="Estimate")

    @property
    def se(self) -> pd.Series:
        """Standard errors of the fixed effects, a Series of length p in the units of `fixef`.

        From the Hessian of the criterion in all parameters: that the covariances are estimated is
        in them. See `vcov`.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> m.se.round(3)
        (Intercept)    0.232
        period2        0.307
        period3        0.327
        period4        0.427
        Name: Std. Error, dtype: float64
        """
        return pd.Series(
            np.sqrt(np.diag(self.fit.vcov)), index=list(self.frame.fixef_names), name="Std. Error"
        )

    def vcov(self, kind: str = "model", cluster: Any = None) -> pd.DataFrame:
        """Covariance matrix of the fixed effects.

        Parameters
        ----------
        kind : {"model", "conditional", "CR0", "CR1"}
            ``"model"``: 2 H^-1, with H the Hessian of -2 log L in covariance parameters, fixed
            effects and family parameter together, as glmmTMB has it; directions of random effects
            without variance are left out of H. ``"conditional"``: ``(X'V^-1 X)^-1`` of the working
            model, which takes the covariances as known and is mostly too small, by a tenth or by
            more; it is that of other packages. ``"CR0"`` and ``"CR1"`` are robust, see `robust`.
        cluster
            For the robust kinds, as for `robust`.

        Returns
        -------
        DataFrame, p x p

        Raises
        ------
        ModelError
            If the kind is not known.

        Examples
        --------
        >>> import numpy as np
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> for kind in ("model", "conditional"):
        ...     print(np.sqrt(np.diag(m.vcov(kind))).round(3))
        [0.232 0.307 0.327 0.427]
        [0.228 0.305 0.326 0.429]
        """
        return normal_covariance(self._record, kind, cluster)

    def coef_table(
        self,
        vcov: str = "model",
        level: float | None = 0.95,
        cluster: Any = None,
        *,
        ddf: str = "inf",
    ) -> pd.DataFrame:
        """Fixed effects with z tests and intervals.

        Parameters
        ----------
        vcov : {"model", "conditional", "CR0", "CR1"}
            Covariance matrix, as for `vcov`.
        level : float or None
            Confidence level; None leaves the intervals out.
        cluster
            For the robust kinds, as for `robust`.
        ddf : {"inf"}
            The normal distribution, the only one for generalized models.

        Returns
        -------
        DataFrame, p rows
            Columns ``Estimate``, ``Std. Error``, ``z value``, ``Pr(>|z|)`` and the interval,
            ``lower`` and ``upper``, on the scale of the link.

        Raises
        ------
        ModelError
            If an argument is not what it should be.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> m.coef_table()
                    Estimate Std. Error z value Pr(>|z|)   lower   upper
        (Intercept)  -1.3985     0.2325   -6.02 1.79e-09 -1.8542 -0.9429
        ...
        """
        check_normal(ddf)
        return normal_tests(self._record, vcov, level, cluster)

    @property
    def sigma(self) -> float:
        """Root of the dispersion, for families that have one (Gamma, Gaussian, ...); else 1."""
        return self.fit.sigma

    @property
    def phi(self) -> float | None:
        """The family's parameter: theta, precision or dispersion; None where there is none.

        Examples
        --------
        >>> import mixedeffects as me
        >>> ticks = me.load_dataset("grouseticks")
        >>> m = me.glmer("TICKS ~ cHEIGHT + (1 | LOCATION)", ticks, family="negative_binomial")
        >>> m.family.parameter_name, round(m.phi, 2)
        ('theta', 1.04)
        """
        return self._record.phi

    @property
    def theta(self) -> Matrix:
        """Covariance parameters, shape (m,), in lme4's order, on the scale of the link.

        For each term the lower triangle of its factor T, column by column, where ``T T'`` is the
        covariance matrix of the term's effects, with no sigma in front of it.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> m.theta.round(3)
        array([0.642])
        """
        return self.fit.theta

    @property
    def covariance_parameters(self) -> pd.Series:
        """Standard deviations and correlations of the random effects, on the scale of the link.

        A term with a structure has only the parameters of its structure, ``sd|g`` for the standard
        deviation common to all columns and ``cor|g`` for the one correlation.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> m.covariance_parameters.round(3)
        sd_(Intercept)|herd    0.642
        Name: Estimate, dtype: float64
        """
        return covariance_parameters(self.fit)

    @property
    def criterion(self) -> float:
        """-2 log-likelihood at the estimates, all constants included.

        The integral over the random effects is Laplace's approximation, or quadrature with `nagq`
        points. The weights in it are the observed second derivatives, for every link.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> round(m.criterion, 4)
        184.0526
        """
        return self.fit.criterion

    def loglik_at(
        self, theta: Any, beta: Any = None, phi: float | None = None, weights: str = "observed"
    ) -> float:
        """Log-likelihood of these data at other parameters, approximated as in the fit.

        Parameters
        ----------
        theta : array, shape (m,)
            Covariance parameters, in the order of `theta`.
        beta : array, shape (p,), optional
            Fixed effects, in the order of `fixef`; by default those of the fit.
        phi : float, optional
            Family parameter; by default that of the fit.
        weights : {"observed", "expected"}
            Which second derivatives stand in the determinant. ``"expected"`` are those of R's lme4
            and of MixedModels.jl: the same for canonical links, another criterion for others. Not
            with quadrature.

        Returns
        -------
        float
            The logarithm, constants included.

        Raises
        ------
        ModelError
            If a parameter is not what it should be, or the likelihood cannot be computed there.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> round(m.loglik_at(m.theta), 4), round(m.loglik, 4)
        (-92.0263, -92.0263)
        """
        from mixedeffects.fitting.generalized.likelihood import generalized_loglik_at

        return generalized_loglik_at(self._record, theta, beta, phi, weights)

    def laplace_check(self) -> LaplaceCheck:
        """How far Laplace's approximation is off: -2 log L beside that of quadrature.

        At the estimates, with nine points per random effect: the shift of -2 log L, and how far
        estimates would move, in standard errors. More than a quarter says that ``nagq=`` is needed,
        and what it should be: with few rows a level, of zeros and ones, Laplace's approximation can
        be far off.

        Returns
        -------
        LaplaceCheck
            With ``laplace``, ``quadrature``, ``shift``, ``move``, ``holds`` and ``recommended``.

        Raises
        ------
        ModelError
            If quadrature is not for the model: with several grouping factors, or more than three
            random effects a level.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> print(m.laplace_check())
        9-point quadrature changes -2 log L by -0.08... and estimates by 0.029 standard error:
        Laplace's approximation holds
        """
        found = self._record.found.laplace_check
        if found is None:
            raise ModelError(
                "Laplace's approximation is checked by quadrature over the random effects of each "
                "level by itself, which needs one grouping factor with at most three random "
                "effects a level."
            )
        return found

    @property
    def n_parameters(self) -> int:
        """Number of parameters: fixed effects, covariance parameters, and that of the family."""
        return self.fit.n_parameters

    def ranef(self, cond_var: bool = False) -> RandomEffects:
        """Conditional modes of the random effects, on the scale of the link.

        Parameters
        ----------
        cond_var : bool
            Also compute each level's conditional covariance matrix, given all parameters.

        Returns
        -------
        RandomEffects
            A dict of DataFrames, l x k, one for each grouping factor with l levels and k effects;
            with ``cond_var=True`` its ``cond_var`` holds arrays (l, k, k).

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> m.ranef()["herd"].head(2).round(3)
           (Intercept)
        1        0.590
        2       -0.299
        """
        return conditional_modes(self.fit, cond_var)
