"""Fitted values, residuals, predictions and simulated responses."""

from __future__ import annotations

from typing import Any, Literal

import pandas as pd

from mixedeffects.base.value_method import ValueMethod
from mixedeffects.diagnostics.generalized_residuals import (
    RANKED_AMONG,
    SEED,
    generalized_residuals,
)
from mixedeffects.model.generalized.of_record import OfRecord
from mixedeffects.prediction.generalized import (
    GeneralizedOptions,
    predict_generalized,
)

__all__ = ["GeneralizedPrediction"]


class GeneralizedPrediction(OfRecord):
    """Fitted values, residuals, predictions and simulated responses."""

    @property
    def fitted(self) -> pd.Series:
        """Means of the response given the conditional modes, a Series of length n.

        Of successes among trials it is the probability of a success.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> m.fitted.head(2).round(3)
        0    0.308
        1    0.142
        Name: fitted, dtype: float64
        """
        return pd.Series(self._record.mu.copy(), index=self.frame.index, name="fitted")

    @ValueMethod
    def resid(
        self, kind: str = "response", seed: Any = SEED, draws: int = RANKED_AMONG
    ) -> pd.Series:
        """Residuals, given the conditional modes.

        Parameters
        ----------
        kind : {"response", "pearson", "scaled", "deviance", "working", "quantile", "simulated"}
            ``response``: ``y - mu``, of successes among trials for the proportion; ``pearson``:
            over the root of the variance function, times that of trials and weights, as R's
            (a dispersion is not in it); ``scaled``: that over sigma, so that its variance is about
            one; ``deviance``: the signed root of the row's deviance from the response as its own
            mean, as R's; ``working``: ``(y - mu)`` over the derivative of the mean by the linear
            predictor, on the scale of the link; ``quantile``: normal quantiles of the probability
            of a response up to y, of a discrete one drawn between those below and up to it: nearly
            standard normal if the model holds, also for zeros and ones; ``simulated``: the share of
            responses drawn from the model, random effects included, that lie below y, with ties
            broken at random: uniform between 0 and 1 if the model holds.
        seed : int, Generator or None
            For ``quantile`` and ``simulated``: the same seed gives the same residuals, None fresh
            ones.
        draws : int
            Responses drawn for each row, for ``simulated``.

        Returns
        -------
        Series, length n
            With the data's row labels.

        Raises
        ------
        ModelError
            If the kind is not known, or not defined for the family.

        References
        ----------
        McCullagh, P. and Nelder, J. A. (1989). Generalized linear models, 2nd edition, section 2.4.
        Dunn, P. K. and Smyth, G. K. (1996). Randomized quantile residuals. Journal of Computational
        and Graphical Statistics 5, 236-244. Hartig, F. (2024). DHARMa: residual diagnostics for
        hierarchical regression models. R package, for ``simulated``.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> m.resid("pearson").head(2).round(3)
        0   -1.3...
        1    1.0...
        Name: resid, dtype: float64
        >>> ranks = m.resid("simulated", seed=1)
        >>> bool(ranks.between(0, 1).all())
        True
        """
        values = generalized_residuals(self._record, kind, seed, draws)
        return pd.Series(values, index=self.frame.index, name="resid")

    def predict(
        self,
        newdata: Any = None,
        re: Any = "all",
        new_levels: Literal["error", "population"] = "error",
        *,
        type: Literal["response", "link"] = "response",
        se: bool = False,
        interval: Literal["confidence", "prediction"] | None = None,
        level: float = 0.95,
        marginal: bool = False,
        vcov: str = "model",
        cluster: Any = None,
        weights: Any = None,
        offset: Any = None,
        exposure: Any = None,
        chunk_size: int = 100_000,
    ) -> Any:
        """Predictions of the mean, with standard errors and intervals.

        Transforms (``poly``, ``scale``), factor levels and ``offset()`` are those of the fit.

        Parameters
        ----------
        newdata : DataFrame or iterator of DataFrames, optional
            pandas, polars or pyarrow table, or a mapping of names to arrays, with the columns that
            this prediction needs: not the response, and grouping factors only if their effects are
            in. By default the rows used in the fit.
        re : "all", None, str or list of str
            Random effects that the prediction conditions on; with ``marginal=True`` those named
            stay, and ``"all"``, the default, are averaged over. None: the mean of a level whose
            effects are zero. With a link that is not the identity this is the mean of a typical
            level, and not the mean over all levels, which is ``marginal=True``.
        new_levels : {"error", "population"}
            What to do with levels that the fit did not see: refuse them, or predict them with
            effects of zero, whose variance is then in standard errors and intervals.
        type : {"response", "link"}
            The mean, of successes among trials the probability; or the linear predictor.
        se : bool
            Whether to give standard errors.
        interval : {"confidence", "prediction"}, optional
            Of the mean, transformed from the scale of the link; or for a new response: quantiles of
            the family's distribution mixed over what is not known of the linear predictor, random
            effects that are not conditioned on included. Its ``std_error`` is the standard
            deviation of a new response.
        level : float
            Confidence level.
        marginal : bool
            Average the mean over the distribution of the random effects not conditioned on: what is
            expected in the population.
        vcov, cluster
            With ``re=None`` or ``marginal=True``, the covariance matrix of the estimates, as for
            `coef_table`.
        weights : float, str or array, optional
            For ``interval="prediction"`` of a binomial model: the number of trials of each new row,
            of which the bounds are proportions. By default the column that the fit named.
        offset, exposure : float, str or array, optional
            In place of those of the fit, which are used again if they named a column.
        chunk_size : int
            Rows worked on at a time, which bounds the memory.

        Returns
        -------
        Series, or DataFrame with columns ``estimate``, ``std_error``, ``conf_low``, ``conf_high``
            Of the kind given (a mapping gives pandas, pyarrow an array), in the order of the rows.
            A row with a missing value in a column needed is NaN, and so is a mean where the link
            has none at the linear predictor. An iterator of frames gives a generator of results.

        Raises
        ------
        DataError
            If a column is missing or has the wrong type, a value is infinite, or a level is not
            known.
        ModelError
            If an argument is not what it should be, or has nothing to act on.

        Notes
        -----
        On the scale of the link the variance is ``z'P z + J C J'``: P is the conditional covariance
        of the random effects, C the covariance of all estimates, those of the covariances and of
        the family's parameter included, and J the derivative of ``x'beta + z'b`` by them, the modes
        moving with the parameters. It is that of R's glmmTMB. Standard errors on the scale of the
        response are by the delta method. Population averages have a closed form for the links log
        and probit; for others they are integrals by the trapezoidal rule.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> m.predict({"period": ["1", "4"]}, re=None).round(3)
        0    0.198
        1    0.048
        Name: estimate, dtype: float64
        >>> m.predict({"period": ["1", "4"]}, marginal=True, interval="confidence")
        estimate std_error conf_low conf_high
         0.21609   0.03643  0.15315   0.29586
         0.05730   0.02316  0.02556   0.12345
        ---
        means over the random effects
        95 % confidence intervals
        """
        options = GeneralizedOptions(
            type, re, new_levels, offset, exposure, chunk_size, se, interval, level, marginal,
            vcov, cluster, weights,
        )  # fmt: skip
        return predict_generalized(self._record, newdata, options)

    def simulate(self, n: int = 1, seed: Any = None, re: Any = None) -> pd.DataFrame:
        """Draw responses from the fitted model.

        Parameters
        ----------
        n : int
            Number of draws.
        seed : int, Generator or None
            The same seed gives the same draws, however many are asked for; None takes a fresh one.
        re : None, "all", str or list of str
            None draws all random effects anew. ``"all"`` keeps their conditional modes; a list does
            so for these terms or grouping factors.

        Returns
        -------
        DataFrame, n rows used x draws
            Columns ``sim_1``, ``sim_2``, ...; the data's row labels. Of successes among trials
            these are proportions, as `refit` takes them.

        Raises
        ------
        ModelError
            If an argument is not what it should be, or the family cannot draw.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> m.refit(m.simulate(seed=1)["sim_1"]).converged
        True
        """
        from mixedeffects.simulation.generalized_responses import simulate_generalized

        return simulate_generalized(self._record, n, seed, re)
