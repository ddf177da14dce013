"""Estimated marginal means and slopes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from mixedeffects.model.shared.held import Held

if TYPE_CHECKING:
    from mixedeffects.inference.effects import Effects
    from mixedeffects.inference.marginal_means import MarginalMeans

__all__ = ["Means"]


class Means(Held):
    """Estimated marginal means and slopes."""

    def emmeans(
        self,
        specs: str | Sequence[str],
        by: str | Sequence[str] | None = None,
        at: Mapping[str, Any] | None = None,
        weights: Literal["equal", "proportional", "cells"] = "equal",
        level: float = 0.95,
        ddf: str = "satterthwaite",
        vcov: str = "model",
        cluster: Any = None,
        adjust: str = "none",
        type: Literal["link", "response"] = "link",
        bias_adjust: bool = False,
        sigma: float | None = None,
    ) -> MarginalMeans:
        """Estimated marginal means: predictions over a reference grid, averaged.

        Parameters
        ----------
        specs : str or list of str
            Columns of the data whose levels the means belong to; none (``[]``) for one mean of
            all. ``"a * b"`` is ``["a", "b"]``, ``"a * b | c"`` the same with ``by="c"``, and
            ``"pairwise ~ a"`` shows the comparisons below the means, which are ``.comparisons``
            then.
        by : str or list of str, optional
            Further columns, within whose levels means are compared.
        at : mapping, optional
            For some columns the levels to keep, or the values of a number; ``slice(0, 8, 2)``
            for 0, 2, ..., 8, and ``slice("a", "c")`` for the levels from a to c, both ends
            included.
        weights : {"equal", "proportional", "cells"}
            How predictions are averaged over the factors not named: equally, by the number of rows
            of the combinations averaged over, or by that of each cell.
        level : float
            Confidence level.
        ddf, vcov, cluster
            As for `coef_table`.
        adjust : {"none", "bonferroni", "sidak", "mvt"}
            For intervals that hold for all means of a group together.
        type : {"link", "response"}
            Where the formula transforms its response, as in ``log(y) ~ ...``: ``"link"`` gives
            means on the scale of the fit, ``"response"`` back on that of y, with standard errors
            by the delta method. Comparisons of logarithms are then ratios.
        bias_adjust : bool
            With ``type="response"``: add half the variance of a response about its mean times the
            second derivative of the inverse, which of a median makes nearly a mean.
        sigma : float, optional
            The standard deviation for ``bias_adjust``; by default that of the random effects
            and the residual together, the spread of the responses of new groups.

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
        The grid is R's emmeans': every level of a factor that occurs in the rows used, numbers at
        their mean (each row counting once), and numbers with only two values at both. A number in
        ``factor()`` is a factor. Expressions are evaluated at these values: ``log(x)`` at the log
        of the mean.

        An offset is part of the predictions: one in the formula, or given by name, is evaluated in
        the grid like other columns; of one given as an array the mean is added. It cancels in
        differences.

        A mean which the data do not determine, as in an empty cell of an interaction, is NaN, and
        a note says how many; differences are checked by themselves. ``weights="cells"`` averages
        over the cells that have rows.

        Nested factors are found as emmeans finds them: a factor each of whose levels occurs with
        one level of another only, such as strains of genotypes, or one without an effect of its
        own, such as b of ``a / b``. A note says so. Averages over a nested factor go over the
        levels that occur in each of those that contain it, and its own means come with these.

        Back on the scale of the response the means are those of the fit's scale transformed: of
        logarithms geometric means, which are medians of the responses. Transformations that can be
        undone are logarithms, powers, ``sqrt``, ``1/y``, ``exp``, ``scale``, ``center``, sums and
        products with numbers, ``asin``, logits, and these in one another.

        References
        ----------
        Searle, S. R., Speed, F. M. and Milliken, G. A. (1980). Population marginal means in the
        linear model: an alternative to least squares means. The American Statistician 34, 216-221.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cake = me.load_dataset("cake")
        >>> m = me.lmer("angle ~ recipe + temperature + (1 | recipe:replicate)", cake)
        >>> m.emmeans("recipe", ddf="kr")
        recipe estimate std_error   df conf_low conf_high
        A        33.122     1.737 42.0   29.617    36.627
        B        31.644     1.737 42.0   28.139    35.150
        C        31.600     1.737 42.0   28.095    35.105
        ---
        averaged over temperature, with equal weights
        95 % intervals; t-tests use Kenward-Roger's method
        """
        from mixedeffects.inference.marginal_means import marginal_means

        return marginal_means(
            self.fit, specs, by, at, weights, level, ddf, vcov, cluster, adjust, None,
            type, bias_adjust, sigma,
        )  # fmt: skip

    def effects(
        self,
        variables: str | Sequence[str],
        by: str | Sequence[str] | None = None,
        at: Mapping[str, Any] | None = None,
        weights: Literal["equal", "proportional", "cells"] = "equal",
        level: float = 0.95,
        ddf: str = "satterthwaite",
        vcov: str = "model",
        cluster: Any = None,
        adjust: str = "none",
        type: Literal["link", "response"] = "link",
        bias_adjust: bool = False,
        sigma: float | None = None,
    ) -> Effects:
        """Predictions of the population over the range of variables, the others averaged.

        What the fixed part says of a variable, as a table and a picture: of a number a curve over
        its observed range, of a factor its levels. At each point it is the mean of `emmeans` there.

        Parameters
        ----------
        variables : str or list of str
            Columns of the fixed part. The first is drawn along the axis; a number is taken from its
            smallest to its largest value in 25 to 52 even steps. Others make lines of their own:
            a factor for each level, a number at all its values if there are no more than five,
            else at its quartiles.
        by : str or list of str, optional
            Further columns, which make panels.
        at : mapping, optional
            The levels to keep, or the values of a number, in place of these; ``slice(0, 20)`` is a
            range, and ``slice(0, 20, 5)`` one with its step. For columns not named too.
        weights, level, ddf, vcov, cluster
            As for `emmeans`.
        adjust : {"none", "bonferroni", "sidak", "mvt"}
            ``"mvt"`` makes bands that hold at all points of a panel together.
        type, bias_adjust, sigma
            As for `emmeans`: with ``type="response"`` a model of ``log(y)`` gives curves of y.

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
        Software 8(15). The predictions are those of ``ggemmeans`` in R's ggeffects.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("distance ~ age * Sex + (age | Subject)", me.load_dataset("orthodont"))
        >>> m.effects(["age", "Sex"], at={"age": [8, 14]})
        age Sex    estimate std_error   df conf_low conf_high
          8 Male    22.6156    0.5265 25.0  21.5313   23.7000
         14 Male    27.3219    0.5730 25.0  26.1418   28.5020
          8 Female  21.2091    0.6350 25.0  19.9013   22.5169
         14 Female  24.0864    0.6910 25.0  22.6631   25.5096
        ---
        95 % intervals; t-tests use Satterthwaite's method
        """
        from mixedeffects.inference.effects import effects

        return effects(
            self.fit, variables, by, at, weights, level, ddf, vcov, cluster, adjust,
            type, bias_adjust, sigma,
        )  # fmt: skip

    def joint_tests(
        self,
        by: str | Sequence[str] | None = None,
        at: Mapping[str, Any] | None = None,
        weights: Literal["equal", "proportional", "cells"] = "equal",
        ddf: str = "satterthwaite",
        vcov: str = "model",
        cluster: Any = None,
    ) -> pd.DataFrame:
        """F tests of each factor and interaction by marginal means, also within levels of ``by``.

        A factor is tested by the differences of its means, an interaction by differences of
        differences. Unlike the terms of `anova` these do not depend on how the formula is written,
        and ``by`` gives simple effects: tests of a factor at each level of another.

        Parameters
        ----------
        by : str or list of str, optional
            Columns within whose levels the other ones are tested.
        at, weights
            As for `emmeans`. A number is taken at its mean less and plus one, so that it is tested
            by its slope, unless ``at`` has values.
        ddf, vcov, cluster
            As for `wald`.

        Returns
        -------
        DataFrame, one row per test
            ``term``, the columns of ``by``, ``num_df``, ``den_df``, ``statistic``, ``p_value``, and
            ``note``, which says how many contrasts are not estimable and so left out of the test;
            NaN where there is none left.

        Raises
        ------
        ModelError
            If a name or option is not known, or nothing is left to be tested.

        Notes
        -----
        R's emmeans has these tests as ``joint_tests``. Its denominator degrees of freedom are the
        least of the contrasts'; here they are those of the joint test, as in `wald`.

        References
        ----------
        Searle, S. R., Speed, F. M. and Milliken, G. A. (1980). Population marginal means in the
        linear model: an alternative to least squares means. The American Statistician 34, 216-221.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cake = me.load_dataset("cake")
        >>> m = me.lmer("angle ~ recipe * temperature + (1 | recipe:replicate)", cake)
        >>> m.joint_tests(by="recipe").drop(columns="note")
        term        recipe num_df den_df statistic  p_value
        temperature A           5  210.0      8.58 2.07e-07
        temperature B           5  210.0      7.21 2.99e-06
        temperature C           5  210.0      6.75 7.45e-06
        ---
        Satterthwaite's method
        """
        from mixedeffects.inference.joint_tests import joint_tests

        return joint_tests(self.fit, by, at, weights, ddf, vcov, cluster)

    def emtrends(
        self,
        specs: str | Sequence[str],
        var: str,
        by: str | Sequence[str] | None = None,
        at: Mapping[str, Any] | None = None,
        weights: Literal["equal", "proportional", "cells"] = "equal",
        level: float = 0.95,
        ddf: str = "satterthwaite",
        vcov: str = "model",
        cluster: Any = None,
        adjust: str = "none",
    ) -> MarginalMeans:
        """Estimated marginal slopes of a number, at each level of other columns.

        Parameters
        ----------
        specs : str or list of str
            Columns of the data whose levels the slopes belong to; none (``[]``) for one slope.
        var : str
            The column whose slope is wanted. Its terms may be curved; the slope is then that at its
            mean, or at the values in ``at``.
        by, at, weights, level, ddf, vcov, cluster, adjust
            As for `emmeans`.

        Returns
        -------
        MarginalMeans
            Slopes in units of the response per unit of ``var``, as column ``<var>.trend``.

        Raises
        ------
        ModelError
            As for `emmeans`, and if ``var`` is categorical.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("distance ~ age * Sex + (age | Subject)", me.load_dataset("orthodont"))
        >>> m.emtrends("Sex", "age").to_frame()
        Sex    estimate std_error   df conf_low conf_high
        Male    0.78437   0.08600 25.0  0.60726   0.96149
        Female  0.47955   0.10372 25.0  0.26593   0.69316
        ---
        at age = 11
        95 % intervals; t-tests use Satterthwaite's method
        """
        from mixedeffects.inference.marginal_means import marginal_means

        return marginal_means(
            self.fit, specs, by, at, weights, level, ddf, vcov, cluster, adjust, var
        )
