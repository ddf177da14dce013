"""What shows whether a generalized model is the right one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from numpy.typing import NDArray

from mixedeffects.model.generalized.of_record import OfRecord
from mixedeffects.progress import ProgressOption

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mixedeffects.diagnostics.check_result import ModelChecks
    from mixedeffects.diagnostics.dispersion import DispersionTest
    from mixedeffects.diagnostics.influence import Influence
    from mixedeffects.diagnostics.variogram import Variogram

__all__ = ["GeneralizedDiagnostics"]


class GeneralizedDiagnostics(OfRecord):
    """What shows whether a generalized model is the right one."""

    def dispersion_test(self, draws: int = 250, seed: Any = 1) -> DispersionTest:
        """Whether responses vary as the family says: Pearson's chi-square among data sets drawn.

        The covariances are held, the modes of each data set are found anew, and its fixed effects
        make one scoring step: so its residuals are as much smaller for being fitted as those of the
        data, which comparing with degrees of freedom does not do.

        Parameters
        ----------
        draws : int
            Number of data sets.
        seed : int, Generator or None
            The same seed gives the same p-value; None a new one.

        Returns
        -------
        DispersionTest
            ``statistic``, ``expected``, its mean among the data sets, their ``ratio``, ``p_value``
            in both directions, ``df`` and ``draws``.

        Raises
        ------
        ModelError
            If responses are single successes and failures, or the dispersion is estimated.

        References
        ----------
        McCullagh, P. and Nelder, J. A. (1989). Generalized linear models, 2nd edition, section 4.5.

        Examples
        --------
        >>> import mixedeffects as me
        >>> ticks = me.load_dataset("grouseticks")
        >>> m = me.glmer("TICKS ~ YEAR + cHEIGHT + (1 | BROOD)", ticks, family="poisson")
        >>> test = m.dispersion_test(draws=99)
        >>> test.ratio > 1.5, test.p_value
        (True, 0.01)
        """
        from mixedeffects.diagnostics.dispersion import dispersion_test

        return dispersion_test(self._record, draws, seed)

    def leverage(self, kind: str = "total") -> pd.Series:
        """Leverages in the working model: of the fitted linear predictor for the working response.

        Parameters
        ----------
        kind : {"total", "fixed", "random"}
            As for `LinearMixedModel.leverage`.

        Returns
        -------
        Series, length n
            With the data's row labels. ``total`` sums to the effective number of parameters.

        Raises
        ------
        ModelError
            If the kind is not known, or a row has no weight.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> round(float(m.leverage("fixed").sum()), 6)
        4.0
        """
        from mixedeffects.diagnostics.leverage import leverage

        return pd.Series(leverage(self.fit, kind), index=self.frame.index, name=f"{kind} leverage")

    def influence(
        self, by: Any = None, refit: bool = False, progress: ProgressOption = None
    ) -> Influence:
        """What changes when a cluster is left out.

        Parameters
        ----------
        by : str or array, shape (n,), optional
            What to leave out: the levels of a grouping factor or of a column of the data. By
            default the outermost grouping factor; with ``refit=True`` single rows.
        refit : bool
            True: the model is fitted to the other rows, from these estimates. False: an
            approximation, one Newton step with the cluster's score and the Hessian of all rows; it
            is for clusters that hold whole levels of every random term, and gives ``dfbeta``,
            ``dfbetas`` (in standard errors of all rows) and Cook's distance.
        progress : bool, callable or None
            As for `LinearMixedModel.influence`.

        Returns
        -------
        Influence
            As of `LinearMixedModel.influence`, the coefficients on the scale of the link.

        Raises
        ------
        DataError
            If there is no such column, the length is wrong, or values are missing.
        ModelError
            If there is one level only; or, without refitting, random effects connect the clusters.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> m.influence("herd").cooks_distance.nlargest(2).index.tolist()
        ['11', '1']
        """
        from mixedeffects.diagnostics.generalized_influence import generalized_influence

        return generalized_influence(self._record, by, refit, progress)

    def check(
        self,
        which: str | Sequence[str] | None = None,
        draws: int | None = None,
        seed: Any = 1,
        level: float = 0.05,
        progress: ProgressOption = None,
    ) -> ModelChecks:
        """All that can be checked about the fit in one call: a verdict a line, with what to do.

        P-values compare a number computed from the data with that of data sets which the fitted
        model draws, random effects included. Their modes are found anew and the fixed effects make
        one step; the covariances are held.

        Parameters
        ----------
        which : str or list of str, optional
            Some of ``normality`` of quantile residuals and of the conditional modes of each term;
            ``spread`` of quantile residuals over fitted values; ``dispersion``, Pearson's
            chi-square; ``zeros``, their number; ``simulation``, ranks of the responses among those
            drawn; ``outliers``; ``influence`` of the outermost clusters, by one step from their
            scores; ``collinearity``; ``levels``, their number; ``singularity``. By default all.
        draws : int, optional
            Number of data sets; by default 250, and 99 with more than 5,000 rows.
        seed, level, progress
            As for `LinearMixedModel.check`.

        Returns
        -------
        ModelChecks

        Raises
        ------
        Interrupted
            On Ctrl-C; ``partial.resume()`` of the exception goes on from there.
        ModelError
            If an argument is not what it should be.

        References
        ----------
        Hartig, F. (2024). DHARMa: residual diagnostics for hierarchical regression models. R
        package.

        Examples
        --------
        >>> import mixedeffects as me
        >>> ticks = me.load_dataset("grouseticks")
        >>> m = me.glmer("TICKS ~ YEAR + cHEIGHT + (1 | BROOD)", ticks, family="poisson")
        >>> m.check("dispersion", draws=99).verdict("dispersion")
        'problem'
        """
        from mixedeffects.diagnostics.generalized_check import generalized_check

        return generalized_check(self._record, which, draws, seed, level, progress)

    def variogram(
        self,
        distance: Any,
        by: str | None = None,
        kind: str = "quantile",
        bins: int | Sequence[float] | None = None,
        max_pairs: int = 500_000,
        draws: int = 99,
        seed: Any = 1,
        level: float = 0.95,
    ) -> Variogram:
        """Semivariogram of the residuals within clusters, beside those of data sets drawn.

        Where residuals of near rows are more alike than those of the model's own data sets, there
        is something along the distance that the random effects do not have, such as serial
        correlation. The covariances are held, and the modes of each data set are found anew, as for
        `check`.

        Parameters
        ----------
        distance, by, bins, max_pairs
            As for `LinearMixedModel.variogram`.
        kind : {"quantile", "pearson"}
            Which residuals, see `resid`.
        draws : int
            Number of data sets.
        seed : int, Generator or None
            The same seed gives the same data sets, and the same quantile residuals of the data.
        level : float
            Share of the data sets between ``lower`` and ``upper``, bin by bin.

        Returns
        -------
        Variogram
            Its ``table`` has the columns ``distance``, ``n_pairs``, ``empirical``, ``implied``, the
            mean of the data sets drawn, ``lower`` and ``upper``; ``plot()`` draws them.

        Raises
        ------
        DataError
            If the distances are missing, not finite or not numbers.
        ModelError
            If another argument is not what it should be, or no cluster has two rows.

        References
        ----------
        Diggle, P. J., Heagerty, P., Liang, K.-Y. and Zeger, S. L. (2002). Analysis of Longitudinal
        Data, 2nd ed., section 3.4. Oxford University Press.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> m.variogram(cbpp["period"].astype(int), draws=19).sentence()
        'Semivariogram of the quantile residuals within herd: 81 pairs, beside 19 data sets drawn'
        """
        from mixedeffects.diagnostics.generalized_variogram import generalized_variogram

        return generalized_variogram(
            self._record, distance, by, kind, bins, max_pairs, draws, seed, level
        )

    def plot(self, kind: str = "panel", *, ax: Any = None, **options: Any) -> Axes | NDArray[Any]:
        """Pictures of the fit.

        Parameters
        ----------
        kind : {"panel", "effects", "checks", "residuals", "scale", "qq", "groups", "influence", \
"caterpillar", "ranef_qq", "ranef_pairs"}
            As for `LinearMixedModel.plot`, with quantile residuals, against the linear predictor.
            ``panel``: four pictures of residuals and random effects together.
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
            If the picture or an option is not known.

        Examples
        --------
        >>> from matplotlib.figure import Figure
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> ax = m.plot("residuals", ax=Figure().subplots())
        >>> ax.get_ylabel()
        'quantile residual'
        """
        from mixedeffects.pictures.generalized import draw_generalized

        return draw_generalized(self._record, kind, ax, options)
