"""Fitted values, residuals, predictions and simulated responses."""

from __future__ import annotations

from typing import Any, Literal

import pandas as pd

from mixedeffects.base.value_method import ValueMethod
from mixedeffects.diagnostics.generalized_residuals import generalized_residuals
from mixedeffects.model.generalized.of_record import OfRecord

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
    def resid(self, kind: str = "response") -> pd.Series:
        """Residuals, given the conditional modes.

        Parameters
        ----------
        kind : {"response", "pearson", "scaled", "deviance", "working"}
            ``response``: ``y - mu``, of successes among trials for the proportion; ``pearson``:
            over the root of the variance function, times that of trials and weights, as R's
            (a dispersion is not in it); ``scaled``: that over sigma, so that its variance is about
            one; ``deviance``: the signed root of the row's deviance from the response as its own
            mean, as R's; ``working``: ``(y - mu)`` over the derivative of the mean by the linear
            predictor, on the scale of the link.

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
        """
        values = generalized_residuals(self._record, kind)
        return pd.Series(values, index=self.frame.index, name="resid")

    def predict(
        self,
        newdata: Any = None,
        re: Any = "all",
        new_levels: str = "error",
        *,
        type: Literal["response", "link"] = "response",
        offset: Any = None,
        exposure: Any = None,
        chunk_size: int = 100_000,
    ) -> Any:
        """Predictions of the mean.

        Transforms (``poly``, ``scale``), factor levels and ``offset()`` are those of the fit.

        Parameters
        ----------
        newdata : DataFrame or iterator of DataFrames, optional
            pandas, polars or pyarrow table, or a mapping of names to arrays, with the columns that
            this prediction needs: not the response, and grouping factors only if their effects are
            in. By default the rows used in the fit.
        re : "all", None, str or list of str
            Random effects that the prediction conditions on. None: those of a level whose effects
            are zero. With a link that is not the identity this is the mean of a typical level, and
            not the mean over all levels.
        new_levels : {"error", "population"}
            What to do with levels that the fit did not see: refuse them, or predict them with
            effects of zero.
        type : {"response", "link"}
            The mean, of successes among trials the probability; or the linear predictor.
        offset, exposure : float, str or array, optional
            In place of those of the fit, which are used again if they named a column.
        chunk_size : int
            Rows worked on at a time, which bounds the memory.

        Returns
        -------
        Series
            Of the kind given (a mapping gives pandas, pyarrow an array), in the order of the rows.
            A row with a missing value in a column needed is NaN, and so is a mean where the link
            has none at the linear predictor. An iterator of frames gives a generator of results.

        Raises
        ------
        DataError
            If a column is missing or has the wrong type, a value is infinite, or a level is not
            known.
        ModelError
            If an argument is not what it should be.

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
        """
        from mixedeffects.prediction.generalized import GeneralizedOptions, predict_generalized

        options = GeneralizedOptions(type, re, new_levels, offset, exposure, chunk_size)
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
