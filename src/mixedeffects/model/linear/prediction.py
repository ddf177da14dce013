"""Predictions and simulated responses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, overload

import pandas as pd

from mixedeffects.model.shared.held import Held

__all__ = ["Prediction"]


class Prediction(Held):
    """Predictions and simulated responses."""

    @overload
    def predict(
        self,
        newdata: pd.DataFrame | Mapping[str, Any] | None = None,
        re: Any = "all",
        interval: None = None,
        level: float = 0.95,
        new_levels: str = "error",
        se: Literal[False] = False,
        *,
        ddf: str | None = None,
        vcov: str = "model",
        cluster: Any = None,
        weights: Any = None,
        offset: Any = None,
        chunk_size: int = 100_000,
        type: Literal["link", "response"] = "link",
        bias_adjust: bool = False,
        sigma: float | None = None,
        residual: bool = False,
    ) -> pd.Series[Any]: ...

    @overload
    def predict(
        self,
        newdata: pd.DataFrame | Mapping[str, Any] | None = None,
        re: Any = "all",
        interval: str | None = None,
        level: float = 0.95,
        new_levels: str = "error",
        se: bool = False,
        *,
        ddf: str | None = None,
        vcov: str = "model",
        cluster: Any = None,
        weights: Any = None,
        offset: Any = None,
        chunk_size: int = 100_000,
        type: Literal["link", "response"] = "link",
        bias_adjust: bool = False,
        sigma: float | None = None,
        residual: bool = False,
    ) -> pd.Series[Any] | pd.DataFrame: ...

    @overload
    def predict(
        self,
        newdata: Iterator[Any],
        re: Any = "all",
        interval: str | None = None,
        level: float = 0.95,
        new_levels: str = "error",
        se: bool = False,
        *,
        ddf: str | None = None,
        vcov: str = "model",
        cluster: Any = None,
        weights: Any = None,
        offset: Any = None,
        chunk_size: int = 100_000,
        type: Literal["link", "response"] = "link",
        bias_adjust: bool = False,
        sigma: float | None = None,
        residual: bool = False,
    ) -> Iterator[Any]: ...

    @overload
    def predict(
        self,
        newdata: Any,
        re: Any = "all",
        interval: str | None = None,
        level: float = 0.95,
        new_levels: str = "error",
        se: bool = False,
        *,
        ddf: str | None = None,
        vcov: str = "model",
        cluster: Any = None,
        weights: Any = None,
        offset: Any = None,
        chunk_size: int = 100_000,
        type: Literal["link", "response"] = "link",
        bias_adjust: bool = False,
        sigma: float | None = None,
        residual: bool = False,
    ) -> Any: ...

    def predict(
        self,
        newdata: Any = None,
        re: Any = "all",
        interval: str | None = None,
        level: float = 0.95,
        new_levels: str = "error",
        se: bool = False,
        *,
        ddf: str | None = None,
        vcov: str = "model",
        cluster: Any = None,
        weights: Any = None,
        offset: Any = None,
        chunk_size: int = 100_000,
        type: Literal["link", "response"] = "link",
        bias_adjust: bool = False,
        sigma: float | None = None,
        residual: bool = False,
    ) -> Any:
        """Predictions, with standard errors and intervals.

        Transforms (``poly``, ``scale``), factor levels and ``offset()`` are those of the fit.

        Parameters
        ----------
        newdata : DataFrame or iterator of DataFrames, optional
            pandas, polars or pyarrow table, or a mapping of names to arrays, with the columns that
            this prediction needs: not the response, and grouping factors only if their effects are
            in. By default the rows used in the fit.
        re : "all", None, str or list of str
            Random effects that the prediction conditions on. None or ``"none"``: the population
            mean ``X beta``. Otherwise names of grouping factors or labels of terms, or a formula
            with terms of the model such as ``"~ (1 | sch)"`` or ``"~0"``.
        interval : {"confidence", "prediction"}, optional
            ``"confidence"``: for ``x'beta + z'b``. ``"prediction"``: for a new observation, which
            adds its residual variance and that of random effects not in ``re``, for these are then
            drawn anew: with ``re=None`` a row whose groups are all new.
        level : float
            Probability that the interval covers.
        new_levels : {"error", "population"}
            What to do with levels that the fit did not see: refuse them, or predict them with
            effects of zero whose variance counts in standard errors and intervals.
        se : bool
            Add the standard error of ``x'beta + z'b``; an interval comes with that of its own
            (for ``"prediction"``, residual included).
        ddf : {"satterthwaite", "kr", "kr-observed", "residual", "inf"}, optional
            Degrees of freedom of the intervals of population predictions, by default
            Satterthwaite's: a mean has the interval that `emmeans` gives it, a new observation that
            of its whole variance (there ``"kr"`` is not defined). ``"inf"`` is the normal
            distribution, which intervals of predictions with random effects always use, but for
            ``residual=True``, where Satterthwaite's are the default too. ``"kr"`` brings its
            covariance matrix.
        vcov, cluster
            Covariance matrix of the fixed effects for population means, as for `coef_table`; a
            robust one has its own degrees of freedom.
        weights : float, str or array, optional
            Prior weights of the new rows, for ``interval="prediction"`` and ``residual=True``: a
            number, a column, or
            one value for each row. By default one; for the rows of the fit those of the fit.
        offset : float, str or array, optional
            In place of the offset= of the fit, which is used again if it named a column.
        chunk_size : int
            Rows worked on at a time, which bounds the memory.
        type : {"link", "response"}
            Where the formula transforms its response, as in ``log(y) ~ ...``: ``"link"`` predicts
            on the scale of the fit, ``"response"`` on that of y, standard errors by the delta
            method.
        bias_adjust : bool
            With ``type="response"``: add half the variance of a response about its prediction
            times the second derivative of the inverse, which of a median makes nearly a mean. The
            ends of intervals for new observations, which are quantiles, stay as they are.
        sigma : float, optional
            The standard deviation for ``bias_adjust``; by default that of the residual and of the
            random effects left out together.
        residual : bool
            For new rows of a fit with ``residual=``: add what the residuals of a row's residual
            group say of its own, ``s'S^-1 (y - X beta - Z b)`` with its covariances s with them.
            The prediction is then of a new observation, and so are ``se`` and the interval. Groups
            that the fit did not see have nothing to add.

        Returns
        -------
        Series, or DataFrame
            On the scale that ``type`` says, of the kind given (a mapping gives pandas, a lazy frame
            an eager one, pyarrow without an interval an array), in the order of the rows. With an
            interval the columns ``fit``, ``se``, ``lower`` and ``upper``; with ``se`` alone
            ``fit`` and ``se``. A row with a missing value in a column needed is NaN. An iterator
            of frames gives a generator of results.

        Raises
        ------
        DataError
            If a column is missing or has the wrong type, a value is infinite, a level is not
            known, or a column was dropped from the fit as a linear combination of others and is
            none in the new rows.
        ModelError
            If an argument is not what it should be.

        Notes
        -----
        The variance takes the estimated variance parameters as known and the fixed effects and the
        random effects as jointly estimated: it is ``[x; z]'`` times ``sigma^2`` times the inverse
        of the coefficient matrix of Henderson's equations times ``[x; z]``. Effects of terms left
        out count in it as the unknowns they are. That the variance parameters are estimated is in
        the degrees of freedom, ``2 v^2 / Var(v)`` for an error with variance v, and for
        predictions with random effects left out: with few groups their intervals are somewhat
        short.

        References
        ----------
        Henderson, C. R. (1975). Best linear unbiased estimation and prediction under a selection
        model. Biometrics 31, 423-447. McLean, R. A., Sanders, W. L. and Stroup, W. W. (1991). A
        unified approach to mixed linear models. The American Statistician 45, 54-64. The fitted
        values are those of ``predict`` in R's lme4, with ``re.form`` for ``re``. Goldberger, A. S.
        (1962). Best linear unbiased prediction in the generalized linear regression model. Journal
        of the American Statistical Association 57, 369-375, for ``residual=True``.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.predict({"Days": [10, 10], "Subject": [308, 309]}).round(1)
        0    450.3
        1    229.5
        Name: estimate, dtype: float64

        The mean of all subjects, and where a new observation of a new subject will lie:

        >>> m.predict({"Days": [10]}, re=None, interval="confidence")
        estimate std_error conf_low conf_high
          356.08     16.02   322.29    389.87
        ---
        95 % confidence intervals
        >>> m.predict({"Days": [10]}, re=None, interval="prediction")
        estimate std_error conf_low conf_high
          356.08     72.27   205.09    507.07
        ---
        95 % prediction intervals
        """
        from mixedeffects.prediction.predict import PredictionOptions, predict

        options = PredictionOptions(
            re, interval, level, new_levels, se, ddf, vcov, cluster, weights, offset, chunk_size,
            type, bias_adjust, sigma, residual,
        )  # fmt: skip
        return predict(self.fit, newdata, options)

    def simulate(self, n: int = 1, seed: Any = None, re: Any = None) -> pd.DataFrame:
        """Draw responses from the fitted model, ``offset + X beta + Z b + e``.

        Parameters
        ----------
        n : int
            Number of draws.
        seed : int, Generator or None
            The same seed gives the same draws, however many are asked for; None takes a fresh one.
        re : None, "all", str or list of str
            None draws all random effects anew. ``"all"`` keeps their conditional modes, so only
            the residuals are drawn; a list does so for these terms or grouping factors.

        Returns
        -------
        DataFrame, n rows used x draws
            Columns ``sim_1``, ``sim_2``, ...; the data's row labels; in units of the response.

        Raises
        ------
        ModelError
            If an argument is not what it should be.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.simulate(3, seed=1).shape
        (180, 3)
        """
        from mixedeffects.simulation.responses import simulate

        return simulate(self.fit, n, seed, re)
