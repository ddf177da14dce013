"""Covariance matrices of the fixed effects, and tests with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from mixedeffects.engine.threads import one_blas_thread
from mixedeffects.inference.kenward_roger import KenwardRoger
from mixedeffects.inference.satterthwaite import Satterthwaite
from mixedeffects.inference.variance_by_name import fixed_effects_variance
from mixedeffects.inference.wald import anova_table, wald_test
from mixedeffects.inference.wald_result import WaldTest
from mixedeffects.model.shared.held import Held

if TYPE_CHECKING:
    from mixedeffects.inference.cluster_robust import RobustCovariance
    from mixedeffects.inference.effect_size import EffectSizes

__all__ = ["Inference"]


class Inference(Held):
    """Covariance matrices of the fixed effects, and tests with them."""

    def vcov(self, kind: str = "model", cluster: Any = None) -> pd.DataFrame:
        """Covariance matrix of the fixed effects.

        Parameters
        ----------
        kind : {"model", "kr", "kr-observed", "CR0", "CR1", "CR1p", "CR1S", "CR2", "CR3"}
            ``"model"`` is ``(X'V^-1X)^-1`` with the estimated V taken as known; ``"kr"`` Kenward
            and Roger's, adjusted for V being estimated, and ``"kr-observed"`` the same with the
            observed information; the others are robust, see `robust`.
        cluster
            For the robust kinds, as for `robust`.

        Returns
        -------
        DataFrame, p x p
            In products of the units of `fixef`.

        Raises
        ------
        ModelError
            If the kind is not known, or it is ``"kr"`` and the fit by maximum likelihood.

        References
        ----------
        Kenward, M. G. and Roger, J. H. (1997). Small sample inference for fixed effects from
        restricted maximum likelihood. Biometrics 53, 983-997.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.vcov().round(2)
                     (Intercept)  Days
        (Intercept)        46.57 -1.45
        Days               -1.45  2.39
        """
        names = list(self.frame.fixef_names)
        covariance = fixed_effects_variance(self.fit, kind, "inf", cluster).vcov
        return pd.DataFrame(covariance, index=names, columns=names)

    def coef_table(
        self,
        ddf: str = "satterthwaite",
        vcov: str = "model",
        level: float | None = 0.95,
        cluster: Any = None,
    ) -> pd.DataFrame:
        """Estimates, standard errors, degrees of freedom, tests and intervals.

        Parameters
        ----------
        ddf : {"satterthwaite", "kr", "kr-observed", "residual", "inf"}
            Degrees of freedom: Satterthwaite's method, Kenward-Roger's with its covariance matrix,
            the same with the observed information in place of the expected (SAS's first-order
            version and mmrm's linear one, for a single coefficient Satterthwaite's df), ``n - p``,
            or the normal distribution.
        vcov : {"model", "kr", "kr-observed", "CR0", "CR1", "CR1p", "CR1S", "CR2", "CR3"}
            Covariance matrix of the fixed effects, as for `vcov`; ``"kr"`` and ``"kr-observed"``
            bring their own degrees of freedom in place of Satterthwaite's, a robust one always has
            its own.
        level : float or None
            Confidence level of the interval columns; None leaves them out.
        cluster
            For the robust kinds, as for `robust`.

        Returns
        -------
        DataFrame, p rows
            Columns ``Estimate``, ``Std. Error``, ``df``, ``t value``, ``Pr(>|t|)`` and the
            interval's bounds.

        Raises
        ------
        ModelError
            If ``ddf`` or ``vcov`` is not known, the level is not between 0 and 1, or
            Kenward-Roger's method is asked of a maximum-likelihood fit.

        References
        ----------
        Kuznetsova, A., Brockhoff, P. B. and Christensen, R. H. B. (2017). lmerTest package: tests
        in linear mixed effects models. Journal of Statistical Software 82(13).

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.coef_table()
                    Estimate Std. Error   df t value Pr(>|t|)   lower   upper
        (Intercept)  251.405      6.825 17.0   36.84  < 2e-16 237.007 265.804
        Days          10.467      1.546 17.0    6.77 3.26e-06   7.206  13.729
        ---
        95 % intervals; t-tests use Satterthwaite's method
        """
        from mixedeffects.inference.coefficients import coefficient_tests

        return coefficient_tests(self.fit, ddf, vcov, level, cluster)

    def robust(
        self,
        kind: str = "CR2",
        cluster: Any = None,
        level: float | None = 0.95,
        *,
        crossed: bool = False,
    ) -> RobustCovariance:
        """Cluster-robust covariance of the fixed effects, with degrees of freedom and tests.

        Right in the limit of many clusters whatever the covariance within them; V is the working
        model that weighs the rows and, for CR2, makes the matrix unbiased if it holds.

        Parameters
        ----------
        kind : {"CR2", "CR0", "CR1", "CR1p", "CR1S", "CR3"}
            ``CR0``: no correction; ``CR1``: times ``J / (J - 1)`` for J clusters; ``CR1p``: times
            ``J / (J - p)``; ``CR1S``: times ``J (n - 1) / ((J - 1) (n - p))``; ``CR2``: unbiased
            if V holds; ``CR3``: nearly the jackknife over clusters.
        cluster : str, array of shape (n,), or list of these, optional
            A grouping factor, a column of the data (several joined by ``:``), or one value for
            each row. V must be zero between clusters, which therefore hold whole residual groups.
            By default the outermost grouping factor.
            Several factors are clustered multiway, by inclusion and exclusion, for crossed
            designs; the kinds are then CR0, CR1, CR1p and CR1S.
        level : float or None
            Confidence level of the intervals in its table; None leaves them out.
        crossed : bool
            Whether one factor will do between whose levels V is *not* zero.

        Returns
        -------
        RobustCovariance
            With ``table``, ``vcov``, ``df`` and ``test(hypothesis)``.

        Raises
        ------
        DataError
            If the clusters have missing values, the wrong length or an unknown name.
        ModelError
            If the kind is not known, V is not zero between clusters, or there is only one; for
            CR3 if a cluster alone determines a coefficient.

        Warns
        -----
        ClusterWarning
            If single clusters determine a coefficient or a part of it, such as the mean of a
            treatment that one cluster had: its variance is NaN, that of others is not. With
            ``crossed=True``, if V is not zero between clusters.

        References
        ----------
        Pustejovsky, J. E. and Tipton, E. (2018). Small-sample methods for cluster-robust variance
        estimation and hypothesis testing in fixed effects models. Journal of Business and Economic
        Statistics 36, 672-683. Cameron, A. C., Gelbach, J. B. and Miller, D. L. (2011). Robust
        inference with multiway clustering. Journal of Business and Economic Statistics 29, 238-249.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", me.load_dataset("threelevel"))
        >>> m.robust("CR2", cluster="sch.cl").table[["Std. Error", "df"]]
                    Std. Error  df
        (Intercept)    0.29942 9.0
        x1             0.09722 8.0
        ---
        95 % intervals; CR2 standard errors
        """
        from mixedeffects.inference.cluster_robust import robust_covariance

        with one_blas_thread():
            return robust_covariance(self.fit, kind, cluster, level, crossed)

    def wald(
        self,
        hypothesis: Any,
        ddf: str = "satterthwaite",
        vcov: str = "model",
        test: str = "F",
        cluster: Any = None,
    ) -> WaldTest:
        """Test that fixed effects, or linear combinations of them, are all zero.

        Parameters
        ----------
        hypothesis : str, list of str, array, Series or DataFrame, shape (r, p)
            Name of a term, names of coefficients, or contrasts: one row each, one column per fixed
            effect. A DataFrame goes by the names of its columns and a Series by its labels, those
            they lack being zero.
        ddf, vcov
            As for `coef_table`. Satterthwaite's joint test is Fai and Cornelius's, Kenward-Roger's
            scales the statistic, and so does that of a robust covariance matrix, HTZ.
        test : {"F", "chi2"} or a robust test
            F test, or chi-squared test without degrees of freedom; with a cluster-robust ``vcov``
            also the tests of `RobustCovariance.test`, such as ``"HTZ"``, which is its F test.
        cluster
            For the robust kinds, as for `robust`.

        Returns
        -------
        WaldTest
            With ``statistic``, ``num_df``, ``den_df`` and ``p``.

        Raises
        ------
        ModelError
            If a name is not known, the contrasts do not fit the fixed effects or are linearly
            dependent, or Kenward-Roger's method is asked of a maximum-likelihood fit.

        References
        ----------
        Fai, A. H.-T. and Cornelius, P. L. (1996). Approximate F-tests of multiple degree of freedom
        hypotheses in generalized least squares analyses of unbalanced split-plot experiments.
        Journal of Statistical Computation and Simulation 54, 363-378.

        Kenward, M. G. and Roger, J. H. (1997). Small sample inference for fixed effects from
        restricted maximum likelihood. Biometrics 53, 983-997.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.wald("Days")
        F(1, 17.0) = 45.85, p = 3.264e-06
        >>> m.wald([[1, 0], [0, 1]], ddf="kr")
        F(2, 16.0) = 705.8, p = 2.488e-16
        """
        return wald_test(self.fit, hypothesis, ddf, vcov, test, cluster)

    def contrast(
        self,
        hypothesis: Any,
        ddf: str = "satterthwaite",
        vcov: str = "model",
        cluster: Any = None,
        level: float = 0.95,
    ) -> pd.DataFrame:
        """Estimate and test linear combinations of the fixed effects, each by itself.

        Parameters
        ----------
        hypothesis : str, list of str, array or DataFrame of shape (r, p), or mapping
            As for `wald`; or a mapping of labels to contrasts, each a mapping of names of
            coefficients to numbers, or a vector of p numbers. The contrasts may depend on each
            other.
        ddf, vcov, cluster, level
            As for `coef_table`.

        Returns
        -------
        DataFrame, one row per contrast
            Columns as of `coef_table`, in units of the response per unit of the contrast. Rows
            have the labels given, or names of coefficients, or numbers counted from 1.

        Raises
        ------
        ModelError
            If a name is not known or the contrasts do not fit the fixed effects.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.contrast({"day 5": {"(Intercept)": 1, "Days": 5}, "a week": {"Days": 7}})
               Estimate Std. Error   df t value Pr(>|t|)   lower   upper
        day 5   303.742      9.581 17.0   31.70  < 2e-16 283.527 323.956
        a week   73.271     10.821 17.0    6.77 3.26e-06  50.442  96.100
        ---
        95 % intervals; t-tests use Satterthwaite's method
        """
        from mixedeffects.inference.linear_functions import contrast_table

        return contrast_table(self.fit, hypothesis, ddf, vcov, cluster, level)

    def effect_size(
        self,
        hypothesis: Any,
        sigma: str | float = "total",
        edf: float | None = None,
        ddf: str = "satterthwaite",
        vcov: str = "model",
        cluster: Any = None,
        level: float = 0.95,
    ) -> EffectSizes:
        """Linear combinations of the fixed effects in units of a standard deviation.

        Parameters
        ----------
        hypothesis
            As for `contrast`.
        sigma, edf
            The standard deviation and its degrees of freedom, as for
            `MeanComparisons.effect_size`.
        ddf, vcov, cluster, level
            As for `coef_table`.

        Returns
        -------
        EffectSizes
            Which says what the standard deviation is.

        Raises
        ------
        ModelError
            As for `contrast`, and if ``sigma`` or ``edf`` is not what it should be.

        References
        ----------
        Hedges, L. V. (2007). Effect sizes in cluster-randomized designs. Journal of Educational
        and Behavioral Statistics 32, 341-370.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.effect_size({"a week": {"Days": 7}})
        contrast estimate std_error   df conf_low conf_high
        a week     1.5105    0.2892 17.0   0.9004    2.1206
        ---
        in units of 48.51, the standard deviation of a response given the fixed effects, with ...
        95 % intervals, not adjusted
        """
        from mixedeffects.inference.effect_size import contrast_effect_sizes

        return contrast_effect_sizes(self.fit, hypothesis, sigma, edf, ddf, vcov, cluster, level)

    def anova(
        self,
        type: int | str = 3,
        ddf: str = "satterthwaite",
        vcov: str = "model",
        cluster: Any = None,
    ) -> pd.DataFrame:
        """F tests of the terms of the fixed part, in lmerTest's layout.

        For one fit; to compare several, `mixedeffects.anova`.

        Parameters
        ----------
        type : {3, 2, 1}
            Hypotheses as lmerTest defines them. Type 3 does not depend on how factors are coded;
            type 2 adjusts a term for all but those that contain it; type 1 goes term by term.
        ddf, vcov, cluster
            As for `wald`: with a robust ``vcov`` the tests are HTZ.

        Returns
        -------
        DataFrame, one row per term
            Columns ``Sum Sq``, ``Mean Sq``, ``NumDF``, ``DenDF``, ``F value`` and ``Pr(>F)``; NaN
            for a term without columns.

        Raises
        ------
        ModelError
            If ``type``, ``ddf`` or ``vcov`` is not known, or Kenward-Roger's method is asked of a
            maximum-likelihood fit.

        References
        ----------
        Kuznetsova, A., Brockhoff, P. B. and Christensen, R. H. B. (2017). lmerTest package: tests
        in linear mixed effects models. Journal of Statistical Software 82(13).

        Examples
        --------
        >>> import mixedeffects as me
        >>> cake = me.load_dataset("cake")
        >>> m = me.lmer("angle ~ recipe * temperature + (1 | recipe:replicate)", cake)
        >>> m.anova()
                           Sum Sq Mean Sq NumDF DenDF F value  Pr(>F)
        recipe               10.2    5.09     2  42.0    0.25    .781
        temperature        2100.3  420.06     5 210.0   20.52 < 2e-16
        recipe:temperature  206.0   20.60    10 210.0    1.01    .439
        ---
        Type III tests; Satterthwaite's method
        """
        return anova_table(self.fit, type, ddf, vcov, cluster)

    def standardize(
        self,
        method: str = "refit",
        *,
        two_sd: bool = False,
        include_response: bool = True,
        ddf: str = "satterthwaite",
        vcov: str = "model",
        cluster: Any = None,
        level: float = 0.95,
    ) -> pd.DataFrame:
        """Standardised coefficients: in standard deviations of the response per one of x.

        Parameters
        ----------
        method : {"refit", "basic", "pseudo"}
            ``"refit"``: the model is fitted again with response and numeric columns centred and
            divided by their standard deviations; factors stay as they are. ``"basic"``: each
            coefficient times the standard deviation of its column of X, those of factors and
            interactions included, over that of the response. ``"pseudo"``, for one grouping
            factor: as basic, by the level at which the column varies. Within clusters the
            response's standard deviation is that within, from ``y ~ 1 + (1 | g)``; a column that
            does not vary there has its standard deviation over the clusters, and the response's
            that between them.
        two_sd : bool
            Predictors by two standard deviations, so that their coefficients compare with those of
            indicators with even shares (Gelman 2008); the response by one.
        include_response : bool
            Whether the response is standardised too.
        ddf, vcov, cluster, level
            As for `coef_table`.

        Returns
        -------
        DataFrame, one row per coefficient
            ``term``, ``estimate``, ``std_error``, ``df``, ``statistic``, ``p_value``, ``conf_low``,
            ``conf_high``. NaN for the intercept by the methods that do not fit again.

        Raises
        ------
        ModelError
            If ``method`` is not known or cannot be had for this model: a refit with an offset, or
            with functions such as log() of a column; ``"pseudo"`` with several grouping factors, or
            with ``residual=`` or ``variance=``.

        Notes
        -----
        Standard deviations are those of the rows used, with prior weights weighted. They are taken
        as known: standard errors do not count that they are estimated.

        References
        ----------
        Gelman, A. (2008). Scaling regression inputs by dividing by two standard deviations.
        Statistics in Medicine 27, 2865-2873.

        Hoffman, L. (2015). Longitudinal Analysis: Modeling Within-Person Fluctuation and Change.
        Routledge; page 342.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("distance ~ age + Sex + (1 | Subject)", me.load_dataset("orthodont"))
        >>> m.standardize()[["term", "estimate", "conf_low", "conf_high"]].round(2)
        term        estimate conf_low conf_high
        (Intercept)     0.32    -0.02      0.66
        age             0.51     0.41      0.60
        SexFemale      -0.79    -1.33     -0.26
        ---
        95 % intervals; t-tests use Satterthwaite's method
        """
        from mixedeffects.inference.standardized import standardized_coefficients

        return standardized_coefficients(
            self.fit, method, two_sd, include_response, ddf, vcov, cluster, level
        )

    @property
    def satterthwaite(self) -> Satterthwaite:
        """Derivatives behind Satterthwaite's degrees of freedom; see ``Satterthwaite.df``.

        Examples
        --------
        Degrees of freedom of the mean on day 5:

        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.satterthwaite.df([[1, 5]]).round(1)
        array([17.])
        """
        from mixedeffects.inference.satterthwaite import satterthwaite_of

        return satterthwaite_of(self.fit)

    @property
    def kenward_roger(self) -> KenwardRoger:
        """Kenward and Roger's adjusted covariance of the fixed effects and degrees of freedom.

        From the expected information; ``ddf="kr-observed"`` elsewhere takes the observed one.

        For ``ar1``, ``cs`` with a variance for each column, and most structures of residuals, V is
        not linear in its parameters.
        The term of the adjusted covariance with second derivatives of V is then left out, because
        it depends on how V is described; SAS calls that the first-order version.

        Raises
        ------
        ModelError
            If the fit is by maximum likelihood, if so much is crossed that it would not fit into
            memory or, with ``residual=`` or ``variance=``, a connected block of V has more than
            5,000 rows, or if standard errors depend on what the data do not determine.

        References
        ----------
        Kenward, M. G. and Roger, J. H. (1997). Small sample inference for fixed effects from
        restricted maximum likelihood. Biometrics 53, 983-997.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.kenward_roger.df([[1, 5]]).round(1)
        array([17.])
        """
        from mixedeffects.inference.kenward_roger import kenward_roger_of

        return kenward_roger_of(self.fit)
