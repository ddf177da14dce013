"""Estimated marginal means and slopes of a generalized model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from mixedeffects.model.generalized.of_record import OfRecord

if TYPE_CHECKING:
    from mixedeffects.inference.effects import Effects
    from mixedeffects.inference.marginal_means import MarginalMeans

__all__ = ["GeneralizedMeans"]


class GeneralizedMeans(OfRecord):
    """Estimated marginal means and slopes of a generalized model."""

    def emmeans(
        self,
        specs: str | Sequence[str],
        by: str | Sequence[str] | None = None,
        at: Mapping[str, Any] | None = None,
        weights: Literal["equal", "proportional", "cells"] = "equal",
        level: float = 0.95,
        vcov: str = "model",
        cluster: Any = None,
        adjust: str = "none",
        type: Literal["response", "link"] = "response",
        marginal: bool = False,
        *,
        ddf: str = "inf",
    ) -> MarginalMeans:
        """Estimated marginal means: linear predictors over a reference grid, averaged.

        Parameters
        ----------
        specs, by, at, weights, level, adjust
            As for `LinearMixedModel.emmeans`.
        vcov, cluster, ddf
            As for `coef_table`.
        type : {"response", "link"}
            ``"link"`` gives averages of linear predictors; ``"response"`` takes these back to the
            mean of the response, for a level whose random effects are zero. Comparisons are then
            ratios with the link log and odds ratios with the logit; with others they stay on the
            scale of the link, as in R's emmeans. (There the default is ``"link"``.)
        marginal : bool
            Averages of the mean over the distribution of the random effects in place of that of a
            typical level. Their contrasts are differences of these averages, of risks say, by the
            delta method.

        Returns
        -------
        MarginalMeans
            With ``.to_frame()``, ``.contrasts()``, ``.plot()`` and ``.L``.

        Raises
        ------
        ModelError
            If a variable is not in the fixed part, or a level, value or option is not known.

        Notes
        -----
        The grid is that of `LinearMixedModel.emmeans`. Offset and exposure are part of the means:
        by name they are evaluated in the grid like other columns (the logarithm of the mean
        exposure), of one given as values the mean is added.

        Standard errors are by the delta method, intervals are transformed from the scale of the
        link. With ``marginal=True`` both have the errors of the estimated variances in them, and
        where random slopes vary between the cells that a mean is an average of, it is their mean
        variance that is averaged over.

        References
        ----------
        Searle, S. R., Speed, F. M. and Milliken, G. A. (1980). Population marginal means in the
        linear model: an alternative to least squares means. The American Statistician 34, 216-221.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> means = m.emmeans("period")
        >>> means
        period estimate std_error conf_low conf_high
        1       0.19805   0.03692  0.13538   0.28032
        2       0.08387   0.02384  0.04748   0.14395
        3       0.07397   0.02262  0.04014   0.13240
        4       0.04839   0.01980  0.02142   0.10565
        ---
        estimates are the probability of incidence for random effects of zero, back from
          the logit
        95 % intervals; z-tests, from the joint Hessian
        >>> means.contrasts("trt.vs.ctrl", adjust="none").to_frame()
        contrast estimate std_error statistic  p_value conf_low conf_high
        2 / 1     0.37071   0.11368     -3.24     .001  0.20325   0.67616
        ...
        """
        from mixedeffects.inference.marginal_means import marginal_means

        return marginal_means(
            self.fit, specs, by, at, weights, level, ddf, vcov, cluster, adjust, None,
            type, False, None, None, marginal,
        )  # fmt: skip

    def effects(
        self,
        variables: str | Sequence[str],
        by: str | Sequence[str] | None = None,
        at: Mapping[str, Any] | None = None,
        weights: Literal["equal", "proportional", "cells"] = "equal",
        level: float = 0.95,
        vcov: str = "model",
        cluster: Any = None,
        adjust: str = "none",
        type: Literal["response", "link"] = "response",
        marginal: bool = False,
        *,
        ddf: str = "inf",
    ) -> Effects:
        """Means over the range of variables, the others averaged; a table and a picture.

        Parameters
        ----------
        variables, by, at, weights, level, adjust
            As for `LinearMixedModel.effects`.
        vcov, cluster, ddf
            As for `coef_table`.
        type, marginal
            As for `emmeans`.

        Returns
        -------
        Effects
            With ``.to_frame()`` and ``.plot()``.

        Raises
        ------
        ModelError
            As for `emmeans`.

        References
        ----------
        Fox, J. (2003). Effect displays in R for generalised linear models. Journal of Statistical
        Software 8(15).

        Examples
        --------
        >>> import mixedeffects as me
        >>> ticks = me.load_dataset("grouseticks")
        >>> m = me.glmer("TICKS ~ cHEIGHT + (1 | BROOD)", ticks, family="poisson")
        >>> m.effects("cHEIGHT", at={"cHEIGHT": [-50, 0, 50]}).to_frame()
        cHEIGHT estimate std_error conf_low conf_high
            -50   6.2280    1.4221   3.9810    9.7433
              0   1.7654    0.2428   1.3482    2.3116
             50   0.5004    0.1239   0.3081    0.8128
        ---
        estimates are the mean of TICKS for random effects of zero, back from the log
        95 % intervals; z-tests, from the joint Hessian
        """
        from mixedeffects.inference.effects import effects

        return effects(
            self.fit, variables, by, at, weights, level, ddf, vcov, cluster, adjust,
            type, False, None, marginal,
        )  # fmt: skip

    def emtrends(
        self,
        specs: str | Sequence[str],
        var: str,
        by: str | Sequence[str] | None = None,
        at: Mapping[str, Any] | None = None,
        weights: Literal["equal", "proportional", "cells"] = "equal",
        level: float = 0.95,
        vcov: str = "model",
        cluster: Any = None,
        adjust: str = "none",
        *,
        ddf: str = "inf",
    ) -> MarginalMeans:
        """Estimated marginal slopes of a number, at each level of other columns.

        Parameters
        ----------
        specs, var, by, at, weights, level, adjust
            As for `LinearMixedModel.emtrends`.
        vcov, cluster, ddf
            As for `coef_table`.

        Returns
        -------
        MarginalMeans
            Slopes of the linear predictor per unit of ``var``.

        Raises
        ------
        ModelError
            As for `emmeans`, and if ``var`` is categorical.

        Examples
        --------
        >>> import mixedeffects as me
        >>> ticks = me.load_dataset("grouseticks")
        >>> m = me.glmer("TICKS ~ cHEIGHT * YEAR + (1 | BROOD)", ticks, family="poisson")
        >>> list(m.emtrends("YEAR", "cHEIGHT").to_frame()["YEAR"])
        ['95', '96', '97']
        """
        from mixedeffects.inference.marginal_means import marginal_means

        return marginal_means(
            self.fit, specs, by, at, weights, level, ddf, vcov, cluster, adjust, var
        )
