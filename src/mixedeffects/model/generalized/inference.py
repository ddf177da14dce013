"""Tests of the fixed effects: z, chi-square, and with robust covariance matrices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from mixedeffects.inference.wald import anova_table, wald_test
from mixedeffects.inference.wald_result import WaldTest
from mixedeffects.model.generalized.of_record import OfRecord

if TYPE_CHECKING:
    from mixedeffects.inference.cluster_robust import RobustCovariance
    from mixedeffects.inference.score_robust import ScoreRobustCovariance

__all__ = ["GeneralizedInference"]


class GeneralizedInference(OfRecord):
    """Tests of the fixed effects: z, chi-square, and with robust covariance matrices."""

    def wald(
        self,
        hypothesis: Any,
        vcov: str = "model",
        test: str = "chi2",
        cluster: Any = None,
        *,
        ddf: str = "inf",
    ) -> WaldTest:
        """Test that fixed effects, or linear combinations of them, are all zero.

        Parameters
        ----------
        hypothesis : str, list of str, array, Series or DataFrame, shape (r, p)
            Name of a term, names of coefficients, or contrasts: one row each, one column per fixed
            effect. A DataFrame goes by the names of its columns and a Series by its labels, those
            they lack being zero.
        vcov : {"model", "conditional", "CR0", "CR1"}
            Covariance matrix, as for `vcov`.
        test : {"chi2", "z"}
            Chi-square test of all, or the z test of one contrast, with its sign.
        cluster
            For the robust kinds, as for `robust`.
        ddf : {"inf"}
            The normal distribution, the only one for generalized models.

        Returns
        -------
        WaldTest
            With ``statistic``, ``num_df`` and ``p``.

        Raises
        ------
        ModelError
            If a name is not known, the contrasts do not fit the fixed effects or are linearly
            dependent, or a z test is asked of several contrasts.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> m.wald("period")
        chi2(3) = 24.95, p = 1.583e-05
        >>> m.wald("period2", test="z")
        z = -3.236, p = 0.001212
        """
        return wald_test(self.fit, hypothesis, ddf, vcov, test, cluster)

    def contrast(
        self,
        hypothesis: Any,
        vcov: str = "model",
        cluster: Any = None,
        level: float = 0.95,
        *,
        ddf: str = "inf",
    ) -> pd.DataFrame:
        """Estimate and test linear combinations of the fixed effects, each by itself.

        Parameters
        ----------
        hypothesis : str, list of str, array or DataFrame of shape (r, p), or mapping
            As for `wald`; or a mapping of labels to contrasts, each a mapping of names of
            coefficients to numbers, or a vector of p numbers. The contrasts may depend on each
            other.
        vcov, cluster, level, ddf
            As for `coef_table`.

        Returns
        -------
        DataFrame, one row per contrast
            Columns as of `coef_table`, on the scale of the link. Rows have the labels given, or
            names of coefficients, or numbers counted from 1.

        Raises
        ------
        ModelError
            If a name is not known or the contrasts do not fit the fixed effects.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> m.contrast({"3 less 2": {"period3": 1, "period2": -1}})
                 Estimate Std. Error z value Pr(>|z|)   lower  upper
        3 less 2  -0.1363     0.3807   -0.36     .720 -0.8825 0.6098
        ---
        95 % intervals; z-tests, from the joint Hessian
        """
        from mixedeffects.inference.linear_functions import contrast_table

        return contrast_table(self.fit, hypothesis, ddf, vcov, cluster, level)

    def anova(
        self,
        type: int | str = 3,
        vcov: str = "model",
        cluster: Any = None,
        *,
        ddf: str = "inf",
    ) -> pd.DataFrame:
        """Chi-square tests of the terms of the fixed part.

        Wald tests within one fit; for likelihood ratios of several, `mixedeffects.anova`.

        Parameters
        ----------
        type : {3, 2, 1}
            Hypotheses as lmerTest defines them. Type 3 does not depend on how factors are coded;
            type 2 adjusts a term for all but those that contain it; type 1 goes term by term.
        vcov, cluster, ddf
            As for `wald`.

        Returns
        -------
        DataFrame, one row per term
            Columns ``Chisq``, ``Df`` and ``Pr(>Chisq)``; NaN for a term without columns.

        Raises
        ------
        ModelError
            If ``type`` or ``vcov`` is not known.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> m.anova()
               Chisq Df Pr(>Chisq)
        period 24.95  3   1.58e-05
        ---
        Type III tests; from the joint Hessian
        """
        return anova_table(self.fit, type, ddf, vcov, cluster)

    def joint_tests(
        self,
        by: str | list[str] | None = None,
        at: Mapping[str, Any] | None = None,
        weights: str = "equal",
        vcov: str = "model",
        cluster: Any = None,
        *,
        ddf: str = "inf",
    ) -> pd.DataFrame:
        """Joint tests of the factors and interactions of the fixed part by the means they make.

        As `LinearMixedModel.joint_tests`, of means on the scale of the link, by chi-square.

        Parameters
        ----------
        by : str or list of str, optional
            Variables: the others are tested at each of their values by themselves.
        at : mapping, optional
            Values of numeric variables in place of their means.
        weights : str
            How means are taken over factors not tested, as for `LinearMixedModel.emmeans`.
        vcov, cluster, ddf
            As for `wald`.

        Returns
        -------
        DataFrame, one row per test
            ``term``, the variables in ``by``, ``statistic``, the chi-square, ``df``, ``p_value``
            and ``note``.

        Raises
        ------
        ModelError
            If a name is not known, or there is nothing to test.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> m.joint_tests().drop(columns="note")
        term   df statistic  p_value
        period  3     24.95 1.58e-05
        ---
        from the joint Hessian
        """
        from mixedeffects.inference.joint_tests import joint_tests

        return joint_tests(self.fit, by, at, weights, ddf, vcov, cluster)

    def robust(
        self, kind: str = "CR1", cluster: Any = None, level: float | None = 0.95
    ) -> ScoreRobustCovariance | RobustCovariance:
        """Cluster-robust covariance of the fixed effects from the scores of the clusters.

        ``C (sum g_j g_j' / 4) C`` with C twice the inverse Hessian of -2 log L in all parameters,
        covariances and that of the family included, and g_j the gradient of cluster j's part. Right
        in the limit of many clusters whatever the distribution within them, as far as the fixed
        effects still mean what is wanted.

        Parameters
        ----------
        kind : {"CR1", "CR0", "CR2-working", "CR3-working"}
            ``CR0``: no correction; ``CR1``: times ``J / (J - 1)`` for J clusters. CR2 and CR3 are
            defined for linear models; ``CR2-working`` and ``CR3-working`` are those of the working
            model ``z = X beta + error`` with covariance `V`, which they take as known. They are
            approximations for few clusters, whose degrees of freedom they have too.
        cluster : str or array of shape (n,), optional
            A grouping factor, a column of the data (several joined by ``:``), or one value for
            each row. Clusters hold whole levels of every random term. By default the outermost
            grouping factor.
        level : float or None
            Confidence level of the intervals in its table; None leaves them out.

        Returns
        -------
        ScoreRobustCovariance, or RobustCovariance on the working model
            With ``table``, ``vcov`` and ``test(hypothesis)``.

        Raises
        ------
        DataError
            If the clusters have missing values, the wrong length or an unknown name.
        ModelError
            If the kind is not known, random effects connect rows of different clusters, or there
            is only one.

        Warns
        -----
        ClusterWarning
            If single clusters determine a coefficient or a part of it, such as the mean of a
            treatment that one cluster had: its variance is NaN, that of others is not.

        References
        ----------
        White, H. (1982). Maximum likelihood estimation of misspecified models. Econometrica 50,
        1-25.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> m.robust("CR1").se.round(3).tolist()
        [0.296, 0.47, 0.531, 0.375]
        """
        from mixedeffects.inference.score_robust import score_robust_covariance
        from mixedeffects.inference.working_robust import working_kind, working_robust_covariance

        on_working_model = working_kind(kind)
        if on_working_model is not None:
            return working_robust_covariance(self._record, on_working_model, cluster, level)
        return score_robust_covariance(self._record, kind, cluster, level)

    def standardize(
        self,
        method: Literal["refit", "basic"] = "refit",
        *,
        two_sd: bool = False,
        vcov: str = "model",
        cluster: Any = None,
        level: float = 0.95,
        exponentiate: bool = False,
    ) -> pd.DataFrame:
        """Standardised coefficients: per standard deviation of x, the response left as it is.

        Parameters
        ----------
        method : {"refit", "basic"}
            ``"refit"``: the model is fitted again with numeric predictors centred and divided by
            their standard deviations; factors stay as they are, and so do response, trials,
            weights, offset and exposure. ``"basic"``: each coefficient times the standard
            deviation of its column of X, those of factors and interactions included.
        two_sd : bool
            Predictors by two standard deviations, so that their coefficients compare with those of
            indicators with even shares (Gelman 2008).
        vcov, cluster, level
            As for `coef_table`.
        exponentiate : bool
            As ratios, see `tidy`.

        Returns
        -------
        DataFrame, one row per coefficient
            ``term``, ``estimate``, ``std_error``, ``statistic``, ``p_value``, ``conf_low``,
            ``conf_high``, on the scale of the link or as ratios. NaN for the intercept by
            ``"basic"``.

        Raises
        ------
        ModelError
            If the method is not known or cannot be had for this model: a refit with functions such
            as log() of a column, or with a predictor in an offset; ``"pseudo"``, which is for
            linear models.

        Notes
        -----
        Standard deviations are those of the rows used, weighted with prior weights and numbers of
        trials. They are taken as known: standard errors do not count that they are estimated.

        References
        ----------
        Gelman, A. (2008). Scaling regression inputs by dividing by two standard deviations.
        Statistics in Medicine 27, 2865-2873.

        Examples
        --------
        >>> import mixedeffects as me
        >>> ticks = me.load_dataset("grouseticks")
        >>> m = me.glmer("TICKS ~ YEAR + HEIGHT + (1 | BROOD)", ticks, family="poisson")
        >>> m.standardize(exponentiate=True)[["term", "estimate", "conf_low", "conf_high"]].round(2)
        term        estimate conf_low conf_high
        (Intercept)     1.66     1.15      2.40
        YEAR96          3.11     1.94      5.01
        YEAR97          0.37     0.22      0.62
        HEIGHT          0.42     0.34      0.52
        ---
        95 % intervals; z-tests, from the joint Hessian
        """
        from mixedeffects.inference.standardized import generalized_standardized

        return generalized_standardized(
            self._record, method, two_sd, vcov, cluster, level, exponentiate
        )
