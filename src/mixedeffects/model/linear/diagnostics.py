"""Fitted values, residuals, and what shows whether the model is the right one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import pandas as pd
from numpy.typing import NDArray

from mixedeffects.diagnostics.variogram import Variogram
from mixedeffects.progress import ProgressOption

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mixedeffects.diagnostics.check_result import ModelChecks
    from mixedeffects.diagnostics.influence import Influence


from mixedeffects.base.value_method import ValueMethod
from mixedeffects.covariance.of_fit import fitted_values
from mixedeffects.model.shared.held import Held

__all__ = ["Diagnostics"]


class Diagnostics(Held):
    """Fitted values, residuals, and what shows whether the model is the right one."""

    @property
    def fitted(self) -> pd.Series:
        """Fitted values ``X beta + Z b``, offset included: a Series of length n, in units of y.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.fitted.head(2).round(1)
        0    253.7
        1    273.3
        Name: fitted, dtype: float64
        """
        return pd.Series(fitted_values(self.fit).copy(), index=self.frame.index, name="fitted")

    @ValueMethod
    def resid(self, kind: str = "response") -> pd.Series:
        """Residuals.

        Without parentheses, where other packages have an attribute of that name, it stands for the
        residuals of the response: ``np.asarray(m.resid)``, ``m.resid.std()``.

        Parameters
        ----------
        kind : {"response", "pearson", "scaled", "studentized", "normalized", "marginal", \
"cholesky", "symmetric"}
            ``response``: ``y - fitted``; ``pearson``: times the root of the prior weights;
            ``scaled``: that over sigma; ``studentized``: ``y - fitted`` over its estimated
            standard deviation ``sigma sqrt((1 - h) / w)``, with the leverage h and the prior
            weight w; ``normalized``: ``y - fitted`` whitened with R; ``marginal``: ``y - X beta``;
            ``cholesky`` and ``symmetric``: marginal residuals whitened with V, see
            `MarginalCovariance.whiten`.

            With ``residual=`` or ``variance=``, ``pearson`` and ``scaled`` are both ``y - fitted``
            over the standard deviation of the row's residual, the root of R's diagonal, as in
            nlme; ``normalized`` takes off the correlations too, one row after another in the order
            of each series, and ``studentized`` divides by the root of the diagonal of
            ``R P R``, ``P = V^-1 - V^-1 X (X'V^-1 X)^-1 X'V^-1``.

        Returns
        -------
        Series, length n
            With the data's row labels. ``response`` and ``marginal`` are in units of the response;
            ``pearson`` too, at unit weight; the others have no units. A studentized residual is
            NaN where the leverage is one: such a row determines its own fitted value.

        Raises
        ------
        ModelError
            If the kind is not known.

        References
        ----------
        Houseman, E. A., Ryan, L. M. and Coull, B. A. (2004). Cholesky residuals for assessing
        normal errors in a linear model with correlated outcomes. Journal of the American
        Statistical Association 99, 383-394. ``response``, ``pearson`` and ``scaled`` are those of
        R's lme4. ``studentized``: Nobre, J. S. and Singer, J. M. (2007). Residual analysis for
        linear mixed models. Biometrical Journal 49, 863-875; sigma is estimated from all rows
        (internally studentized), as in ``rstandard`` of R.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.resid("scaled").agg(["min", "median", "max"]).round(3).tolist()
        [-3.954, 0.023, 5.179]
        >>> whitened = m.resid("cholesky")
        >>> round(float(whitened @ whitened), 6)  # REML makes it n - p
        178.0
        """
        from mixedeffects.diagnostics.residuals import residuals

        return pd.Series(residuals(self.fit, kind), index=self.frame.index, name=f"{kind} residual")

    def leverage(self, kind: str = "total") -> pd.Series:
        """Leverages: the diagonal of the matrix that maps the response to the fitted values.

        Parameters
        ----------
        kind : {"total", "fixed", "random"}
            ``total``: of the fitted values ``X beta + Z b``, ``hatvalues`` in R's lme4; ``fixed``:
            of ``X beta``, the diagonal of ``X (X'V^-1X)^-1 X'V^-1``; ``random``: of ``Z b``,
            their difference.

        Returns
        -------
        Series, length n
            With the data's row labels, without units: the change of a row's fitted value per unit
            change of its response, the variances taken as known. ``total`` lies between 0 and 1
            and sums to the effective number of parameters; ``fixed`` sums to p.

        Raises
        ------
        ModelError
            If the kind is not known.

        References
        ----------
        Demidenko, E. and Stukel, T. A. (2005). Influence analysis for linear mixed-effects models.
        Statistics in Medicine 24, 893-909. Nobre, J. S. and Singer, J. M. (2011). Leverage
        analysis for linear mixed models. Journal of Applied Statistics 38, 1063-1072.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.leverage().head(3).round(3).tolist()
        [0.229, 0.17, 0.127]
        >>> round(float(m.leverage("fixed").sum()), 6)
        2.0
        """
        from mixedeffects.diagnostics.leverage import leverage

        return pd.Series(leverage(self.fit, kind), index=self.frame.index, name=f"{kind} leverage")

    def influence(
        self, by: Any = None, refit: bool = False, progress: ProgressOption = None
    ) -> Influence:
        """Deletion diagnostics: what changes when a level of a factor, or a row, is left out.

        With d the change ``beta - beta(-j)`` and C, C(-j) the covariance matrices ``vcov`` with and
        without level j:

        * ``dfbeta`` is d, ``dfbetas`` d over the standard errors without the level,
        * ``cooks_d`` is ``d' C^-1 d / p``, ``mdffits`` is ``d' C(-j)^-1 d / p``,
        * ``covtrace`` is ``|trace(C^-1 C(-j)) - p|``, ``covratio`` is ``det C(-j) / det C``.

        Parameters
        ----------
        by : str or array, shape (n,), optional
            What to leave out: the levels of a grouping factor (``"sch"``, ``"tch:sch"``) or of a
            column of the data, or of values, one for each row; by default the single rows. V need
            not be block-diagonal by it.
        refit : bool
            False: theta and sigma are held at their estimates, and ``beta(-j)`` is generalized
            least squares on the other rows with their part of V, computed exactly without fitting
            again. True: the model is fitted to the other rows, starting from these estimates, and
            the change of the variance parameters is given too. Columns of X and Z stay what they
            are.
        progress : bool, callable or None
            True shows count, rate and time left on standard error; a callable gets each
            `Repetitions`; None shows them after some seconds on a terminal or in a notebook.

        Returns
        -------
        Influence
            ``to_frame()`` gives the table, ``plot()`` draws the most influential levels. A level
            without which the model is not identified has NaN and an entry in ``notes``.

        Raises
        ------
        DataError
            If there is no such column, the length is wrong, or values are missing.
        ModelError
            If there is one level only, or no fixed effects and no refit.

        Notes
        -----
        Single rows take about as long as `leverage`, and so do levels that cut no other level.
        Otherwise the work for a level grows with its rows, times the number of random effects that
        it shares with other rows, and with the cube of that number; or is one factorisation of the
        other rows, if that is less. Large problems are divided to keep to about a gigabyte. Where
        residuals are correlated, a level that V connects with other rows takes a block of V^-1 of
        the size of its rows.

        References
        ----------
        Demidenko, E. and Stukel, T. A. (2005). Influence analysis for linear mixed-effects models.
        Statistics in Medicine 24, 893-909. Christensen, R., Pearson, L. M. and Johnson, W. (1992).
        Case-deletion diagnostics for mixed models. Technometrics 34, 38-45. Names as in Loy, A. and
        Hofmann, H. (2014). HLMdiag: a suite of diagnostics for hierarchical linear models in R.
        Journal of Statistical Software 56(5).

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> subjects = m.influence("Subject")
        >>> subjects.cooks_distance.nlargest(3).round(3)
        Subject
        309    0.149
        335    0.129
        337    0.126
        Name: cooks_d, dtype: float64
        >>> m.influence("Subject", refit=True).variance_change.loc["332"].round(2)
        sd_(Intercept)|Subject         -2.01
        cor_Days.(Intercept)|Subject    0.07
        sd_Days|Subject                -0.39
        sigma                           3.79
        Name: 332, dtype: float64
        """
        from mixedeffects.diagnostics.influence import influence

        return influence(self.fit, by, refit, progress)

    def check(
        self,
        which: str | Sequence[str] | None = None,
        order: Any = None,
        by: Any = None,
        draws: int | None = None,
        seed: Any = 1,
        level: float = 0.05,
        progress: ProgressOption = None,
    ) -> ModelChecks:
        """All that can be checked about the fit in one call: a verdict a line, with what to do.

        P-values compare a number computed from the data with the same number computed from data
        sets that the fitted model draws, random effects included, and is fitted to again; so they
        allow for shrinkage, correlated residuals and everything estimated, in small designs too.

        Parameters
        ----------
        which : str or list of str, optional
            Some of ``normality`` of residuals and of the conditional modes of each term; ``spread``
            of residuals over fitted values and by level of each factor; ``autocorrelation``, where
            an order is given; ``linearity`` in each covariate; ``simulation``, ranks of the
            responses among those drawn from the model; ``outliers``; ``influence`` of the levels of
            each factor; ``collinearity``; ``levels``, their number; ``singularity``, variances of
            zero and correlations of one; ``grouping`` factors that are nearly the same. By default
            all.
        order : str or array, shape (n,), optional
            Column of numbers, dates or an ordered categorical, or values, along which
            autocorrelation is looked for.
        by : str or array, shape (n,), optional
            Groups within which the rows are in order; by default the connected blocks of V, or the
            outermost factor if all rows are connected. If rows share a place there, but not within
            the levels of another grouping factor, such as patients in centres, it is that one.
        draws : int, optional
            Number of data sets drawn; no p-value is below one over their number plus one. By
            default 250, and from 30,000 rows on fewer, 99 at the least; 99 with covariance
            structures, of random effects or residuals, whose refits are slow.
        seed : int, numpy Generator or None
            The same seed gives the same p-values; None a new one.
        level : float
            P-values up to it are worth a ``look``; those up to a fifth of it are a ``problem``,
            unless what was found is small in itself.
        progress : bool, callable or None
            True shows steps, rate and time left on standard error; a callable gets each
            `Repetitions`; None shows them after some seconds on a terminal or in a notebook.

        Returns
        -------
        ModelChecks
            Prints the verdicts; ``to_frame()`` has one row a check, ``plot()`` draws them, and
            ``outliers``, ``cooks_distance``, ``collinearity``, ``components`` and ``ranks`` list
            what they are about. ``fine`` means that nothing speaks against the model there, not
            that it is right.

        Raises
        ------
        DataError
            If the order or the groups are missing, or of a kind that has no order.
        Interrupted
            On Ctrl-C; ``partial.resume()`` of the exception goes on from there.
        ModelError
            If an argument is not what it should be.

        Notes
        -----
        Statistics: Shapiro and Francia's of studentized residuals and of the worst column of modes;
        Koenker's score statistic over fitted values; Levene's F by level; Durbin and Watson's of
        conditional residuals, whose mean under the model is given; the score of a covariate's
        square; Kolmogorov and Smirnov's distance of the ranks, whose limits for many draws are
        known exactly as the model is normal; the largest studentized residual; the largest Cook's
        distance, where rows of different levels are correlated at the V of the fit. With more than
        2,000 such rows there is no p-value: the verdict is ``look`` above 4 over the number of
        levels, and ``problem`` above 1.

        With ``residual=`` or ``variance=`` residuals are the normalized ones, over their standard
        deviations; data sets are drawn with that structure, and levels of residual groups count
        among the factors.

        With more than 600 random effects (150 of crossed factors) or 5,000 rows (1,500 with
        ``residual=`` or ``variance=``) data sets are not fitted again: V keeps its form, its scale
        and the fixed effects are estimated. With more than 100,000 rows, residuals are looked at in
        a sample. With more than 10,000 rows influence is left out, unless levels share no random
        effects or errors. The notes of the result say what was done.

        References
        ----------
        Hartig, F. (2024). DHARMa: residual diagnostics for hierarchical regression models. R
        package, for ranks among simulated responses. Davison, A. C. and Hinkley, D. V. (1997).
        Bootstrap Methods and their Application, section 4.2.3. Cambridge University Press. Fox, J.
        and Monette, G. (1992). Generalized collinearity diagnostics. Journal of the American
        Statistical Association 87, 178-183. Bates, D., Kliegl, R., Vasishth, S. and Baayen, H.
        (2015). Parsimonious mixed models. arXiv:1506.04967.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.check(["linearity", "levels"])
        Checks of a fit to 180 rows: ...
        """
        from mixedeffects.diagnostics.check import check

        return check(self.fit, which, order, by, draws, seed, level, progress)

    def variogram(
        self,
        distance: Any,
        by: str | None = None,
        kind: str = "marginal",
        bins: int | Sequence[float] | None = None,
        max_pairs: int = 2_000_000,
    ) -> Variogram:
        """Semivariogram of the residuals within clusters, beside the one that V implies.

        Where they differ systematically, V has the wrong form: residuals that grow more alike with
        nearness than V allows, for instance, call for serial correlation or random slopes.

        Parameters
        ----------
        distance : str or array, shape (n,)
            Position of each row, such as a time: a column of the data or numbers. The distance of
            two rows is the absolute difference.
        by : str, optional
            Pairs are those within a level of this grouping factor. By default within the connected
            blocks of V, or the outermost factor if all rows are connected.
        kind : {"marginal", "cholesky", "symmetric"}
            Which residuals, see `resid`; whitened ones have the implied semivariogram 1.
        bins : int or sequence of float, optional
            Number of bins of equal width, or their edges. By default up to 20 different distances
            have one bin each, and more are put into 12 bins.
        max_pairs : int
            If there are more pairs, so many are drawn, the same at every call; the object says so.

        Returns
        -------
        Variogram
            Its ``table`` has the columns ``distance``, ``n_pairs``, ``empirical`` and ``implied``;
            ``plot()`` draws them.

        Raises
        ------
        DataError
            If the distances are missing, not finite or not numbers.
        ModelError
            If another argument is not what it should be, or no cluster has two rows.

        References
        ----------
        Diggle, P. J., Heagerty, P., Liang, K.-Y. and Zeger, S. L. (2002). Analysis of Longitudinal
        Data, 2nd ed., section 3.4. Oxford University Press. For whitened residuals: Fitzmaurice,
        G. M., Laird, N. M. and Ware, J. H. (2011). Applied Longitudinal Analysis, 2nd ed., chapter
        10. Wiley.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.variogram("Days").table.head(3)
        distance n_pairs empirical implied
               1     162    485.44  672.48
               2     144    733.86  725.08
               3     126    919.36  812.76
        """
        from mixedeffects.diagnostics.variogram import variogram

        return variogram(self.fit, distance, by, kind, bins, max_pairs)

    @overload
    def plot(
        self, kind: Literal["panel", "checks"] = "panel", *, ax: Any = None, **options: Any
    ) -> NDArray[Any]: ...

    @overload
    def plot(
        self,
        kind: Literal["residuals", "scale", "qq", "groups", "leverage", "influence"],
        *,
        ax: Any = None,
        **options: Any,
    ) -> Axes: ...

    @overload
    def plot(self, kind: str, *, ax: Any = None, **options: Any) -> Axes | NDArray[Any]: ...

    def plot(self, kind: str = "panel", *, ax: Any = None, **options: Any) -> Axes | NDArray[Any]:
        """Pictures of the fit: its effects, and its diagnostics.

        Parameters
        ----------
        kind : {"panel", "effects", "checks", "residuals", "scale", "qq", "groups", "leverage", \
"influence", "caterpillar", "ranef_qq", "ranef_pairs"}
            ``panel``: six pictures together; ``effects``: what the fixed part says of its
            variables; ``checks``: those of `check`; ``residuals``: against fitted values or a
            variable; ``scale``: root of absolute residuals against fitted values; ``qq``: normal
            quantiles of residuals with a band; ``groups``: residuals of the levels with the largest
            ones; ``leverage``: residuals against leverages; ``influence``: what changes without a
            row or level; ``caterpillar``: conditional modes with intervals; ``ranef_qq``: their
            normal quantiles; ``ranef_pairs``: pairs of them with the ellipse of their covariance.
        ax : matplotlib Axes or several, optional
            Where to draw; by default a new figure.
        **options
            Those of the function of the same name in `mixedeffects.plot`.

        Returns
        -------
        matplotlib Axes, or an array of them
            An array if there are several pictures.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ModelError
            If the picture or an option is not known, or has a value that it cannot have.

        Examples
        --------
        >>> from matplotlib.figure import Figure
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> ax = m.plot("qq", resid="studentized", ax=Figure().subplots())
        >>> ax.get_ylabel()
        'studentized residual'
        """
        from mixedeffects.pictures.panel import draw

        return draw(self.fit, kind, ax, options)
