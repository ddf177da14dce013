"""Tests of the random effects, and how much the model explains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from mixedeffects.model.shared.held import Held
from mixedeffects.progress import ProgressOption

if TYPE_CHECKING:
    from mixedeffects.comparison.conditional_aic import ConditionalAIC
    from mixedeffects.comparison.ranova import RandomEffectsTests
    from mixedeffects.comparison.variance_explained import ICC, R2

__all__ = ["Comparison"]


class Comparison(Held):
    """Tests of the random effects, and how much the model explains."""

    def ranova(
        self,
        boundary: bool = False,
        reduce_terms: bool = True,
        *,
        progress: ProgressOption = None,
    ) -> RandomEffectsTests:
        """Likelihood-ratio tests of the random effects, each taken out in turn, as lmerTest's.

        The smaller models are fitted by the criterion of this one, to the same rows. Where the last
        random term goes, what is left is the linear model by least squares. With ``residual=`` or
        ``variance=`` the table has a row for these as well, ``residual structure`` and ``residual
        variance``: the same model without it.

        Parameters
        ----------
        boundary : bool
            Where one variance is taken out, with its covariances with q other effects of its
            term, take the p-value from the even mixture of chi-squared distributions with q and
            q + 1 degrees of freedom, because a variance cannot be negative. Where it does not
            apply, the usual p-value stays, and a note says why.
        reduce_terms : bool
            Take out the variables of a random term one by one, ``(Days | Subject)`` to
            ``(1 | Subject)``, but none that is part of an interaction there. False takes out
            whole terms.
        progress : bool, callable or None
            True shows count, rate and time left on standard error; a callable gets each
            `Repetitions`; None shows them after some seconds on a terminal or in a notebook.

        Returns
        -------
        RandomEffectsTests
            One row for each smaller model, in the order of ``m.ngroups``.

        Raises
        ------
        ModelError
            If an option is neither True nor False, or a smaller model cannot be fitted.

        References
        ----------
        Kuznetsova, A., Brockhoff, P. B. and Christensen, R. H. B. (2017). lmerTest package: tests
        in linear mixed effects models. Journal of Statistical Software 82(13).

        Stram, D. O. and Lee, J. W. (1994). Variance components testing in the longitudinal mixed
        effects model. Biometrics 50, 1171-1177.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.ranova(boundary=True)
        Random effects taken out one at a time, by REML
        Model: Reaction ~ Days + (Days | Subject)
                                 npar  logLik    AIC  Chisq Df Pr(>Chisq)
        <none>                      6 -871.81 1755.6
        Days in (Days | Subject)    4 -893.23 1794.5 42.837  2  2.793e-10 ***
        ---
        Signif. codes:  0 '***' 0.001 '**' 0.01 '*' 0.05 '.' 0.1 ' ' 1
        Pr(>Chisq) of Days in (Days | Subject): 50:50 mixture of chi-squared with 1 and 2 df.
        """
        from mixedeffects.comparison.ranova import random_effects_tests

        return random_effects_tests(self.fit, boundary, reduce_terms, progress)

    def icc(self, by_group: bool = False) -> ICC:
        """Intraclass correlation: the random effects' share of the variance.

        Adjusted, of the variance that the fixed effects leave, and unadjusted, of all variance. The
        variance of the random effects is the mean over the rows of ``z_i'G z_i``, so that random
        slopes count with the size of their variable. That of the residual is the mean of
        ``sigma^2 / w_i``. Offsets count as known and have no part in any variance.

        These are ratios of means over the rows; ``m.V.parts.share()`` is the mean over the rows of
        each row's ratio, which with random slopes is another number.

        Parameters
        ----------
        by_group : bool
            Also the share of each grouping factor, adjusted; they sum to the adjusted ICC.

        Returns
        -------
        ICC
            With ``adjusted``, ``unadjusted`` and ``by_group``. Also at a singular fit.

        Raises
        ------
        ModelError
            If ``by_group`` is neither True nor False.

        References
        ----------
        Nakagawa, S., Johnson, P. C. D. and Schielzeth, H. (2017). The coefficient of determination
        R2 and intra-class correlation coefficient from generalized linear mixed-effects models
        revisited and expanded. Journal of the Royal Society Interface 14, 20170213.

        Johnson, P. C. D. (2014). Extension of Nakagawa and Schielzeth's R2GLMM to random slopes
        models. Methods in Ecology and Evolution 5, 944-946.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", me.load_dataset("threelevel"))
        >>> m.icc(by_group=True)
        Intraclass correlation: adjusted 0.6266, unadjusted 0.5999
          tch.cl:sch.cl 0.4667
          sch.cl        0.1599
        """
        from mixedeffects.comparison.variance_explained import intraclass_correlation

        return intraclass_correlation(self.fit, by_group)

    def r2(self) -> R2:
        """Nakagawa and Schielzeth's R2: shares of the variance that the model explains.

        Marginal, by the fixed effects; conditional, by fixed and random effects. The variance of
        the fixed part is the sample variance of ``X beta``; the other two are those of `icc`.
        Offsets count as known and have no part in any variance.

        Returns
        -------
        R2
            With ``marginal`` and ``conditional``. Also at a singular fit.

        References
        ----------
        Nakagawa, S. and Schielzeth, H. (2013). A general and simple method for obtaining R2 from
        generalized linear mixed-effects models. Methods in Ecology and Evolution 4, 133-142.

        Johnson, P. C. D. (2014). Extension of Nakagawa and Schielzeth's R2GLMM to random slopes
        models. Methods in Ecology and Evolution 5, 944-946.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.r2()
        R2: marginal 0.2787, conditional 0.7992
        """
        from mixedeffects.comparison.variance_explained import r_squared

        return r_squared(self.fit)

    def r2_by_level(self) -> pd.DataFrame:
        """Shares of the variance within and between clusters, for models of two levels.

        Each part of the model is divided into what varies within the clusters and what their means
        differ by. Shares of one level, or of all variance, add up to Rights and Sterba's measures
        of that level: the fixed effects' share of the variance within clusters is ``f1`` in the
        column ``within``, and ``f1 + v`` adds that of the random slopes.

        Returns
        -------
        DataFrame, five rows
            ``source`` (``f1``: fixed effects within clusters, ``f2``: between them; ``v``: random
            slopes by what their columns vary within clusters; ``m``: random effects otherwise;
            ``e``: residual), ``description``, ``level``, ``variance`` in squared units of the
            response, and its shares of the ``total`` and of the variance ``within`` and
            ``between``. The totals of ``f1`` and ``f2`` sum to `r2`'s marginal value, with ``v``
            and ``m`` to the conditional one.

        Raises
        ------
        ModelError
            If there are several grouping factors.

        Notes
        -----
        Where a column varies both within and between clusters its one coefficient has a part in
        both; with the column centred on its clusters' means, and these as another column, each
        level has coefficients of its own, and these are the measures as published.

        References
        ----------
        Rights, J. D. and Sterba, S. K. (2019). Quantifying explained variance in multilevel models:
        an integrative framework for defining R-squared measures. Psychological Methods 24, 309-338.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("distance ~ age + Sex + (age | Subject)", me.load_dataset("orthodont"))
        >>> m.r2_by_level().drop(columns="description").round(3)
        source level   variance total within between
        f1     within     2.200 0.254  0.527     NaN
        f2     between    1.122 0.130    NaN    0.25
        v      within     0.256 0.030  0.061     NaN
        m      between    3.356 0.388    NaN    0.75
        e      within     1.716 0.198  0.411     NaN
        """
        from mixedeffects.comparison.variance_by_level import r_squared_by_level

        return r_squared_by_level(self.fit)

    def anova_effect_sizes(
        self,
        measures: str | Sequence[str] = ("eta", "omega", "epsilon"),
        *,
        type: int | str = 3,
        ddf: str = "satterthwaite",
        vcov: str = "model",
        cluster: Any = None,
        level: float = 0.95,
        alternative: str = "two-sided",
    ) -> pd.DataFrame:
        """Partial eta, omega and epsilon squared of each term, with intervals.

        They are made of the F tests of `anova`, with F, q and df of the term:
        ``eta^2 = q F / (q F + df)``, ``epsilon^2 = q (F - 1) / (q F + df)`` and
        ``omega^2 = q (F - 1) / (q F + df + 1)``, the last two not below zero.

        Parameters
        ----------
        measures : {"eta", "omega", "epsilon"} or several of them
            Eta squared is too large in small samples; the others are adjusted.
        type, ddf, vcov, cluster
            As for `anova`.
        level : float
            Confidence level.
        alternative : {"two-sided", "greater"}
            Two bounds, or a lower one alone, the upper being 1.

        Returns
        -------
        DataFrame, one row per measure and term
            ``term``, ``measure``, ``estimate``, ``conf_low``, ``conf_high``, and the test's
            ``statistic``, ``num_df`` and ``den_df``.

        Raises
        ------
        ModelError
            If an option is not known, or ``ddf="inf"``.

        Notes
        -----
        In a mixed model these are approximations: the shares are of the variance that the term is
        tested against, which is another one for terms between clusters and within them, so terms
        of different levels do not compare. See `r2_by_level` for shares of the variance itself.

        All three estimate one share in the population, so they have one interval: with the
        noncentralities l at which F is in the upper and in the lower tail, ``l / (l + df)``. R's
        effectsize has it for eta squared, and for the others that of a smaller F, which is empty
        where the estimate is zero.

        References
        ----------
        Steiger, J. H. (2004). Beyond the F test: effect size confidence intervals and tests of
        close fit in the analysis of variance and contrast analysis. Psychological Methods 9,
        164-182.

        Albers, C. and Lakens, D. (2018). When power analyses based on pilot data are biased.
        Journal of Experimental Social Psychology 74, 187-195.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cake = me.load_dataset("cake")
        >>> m = me.lmer("angle ~ recipe + temperature + (1 | recipe:replicate)", cake)
        >>> m.anova_effect_sizes("omega")[["term", "estimate", "conf_low", "conf_high"]].round(3)
        term        estimate conf_low conf_high
        recipe         0.000    0.000     0.105
        temperature    0.302    0.213     0.400
        ---
        95 % intervals
        """
        from mixedeffects.comparison.anova_effect_sizes import anova_effect_sizes

        return anova_effect_sizes(self.fit, measures, type, ddf, vcov, cluster, level, alternative)

    def caic(self, *, progress: ProgressOption = None) -> ConditionalAIC:
        """Conditional AIC, for comparing models by how they predict for the same levels.

        The likelihood is that of the response given the random effects, and the degrees of freedom
        are Greven and Kneib's: the derivatives of the fitted values in their own responses, theta
        estimated anew, and one for sigma. `aic` is about new levels and counts parameters. With
        ``residual=`` or ``variance=`` their parameters are estimated anew as well, and each counts
        as sigma does; a known sigma does not.

        Parameters
        ----------
        progress : bool, callable or None
            True shows count, rate and time left on standard error; a callable gets each
            `Repetitions`; None shows them after some seconds on a terminal or in a notebook.

        Returns
        -------
        ConditionalAIC
            With ``caic``, ``loglik`` and ``df``. At a singular fit, effects without variance take
            no degrees of freedom.

        References
        ----------
        Greven, S. and Kneib, T. (2010). On the behaviour of marginal and conditional AIC in linear
        mixed models. Biometrika 97, 773-789.

        Vaida, F. and Blanchard, S. (2005). Conditional Akaike information for mixed-effects models.
        Biometrika 92, 351-370.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> smaller = m.update("Reaction ~ Days + (1 | Subject)")
        >>> round(m.caic().caic, 1), round(smaller.caic().caic, 1)
        (1711.5, 1767.1)
        """
        from mixedeffects.comparison.conditional_aic import conditional_aic

        return conditional_aic(self.fit, progress)
