"""A fitted model in the form that the marginaleffects package takes.

The adapter predicts for the population: ``X beta``, with offsets. Its class derives from one of
marginaleffects, so it is made when it is first asked for.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import NDArray

from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.formula.syntax import deparse
from mixedeffects.formula.values import Factor
from mixedeffects.frame.ingest import column_names, materialised, take_columns
from mixedeffects.frame.variables import Columns, data_columns, evaluate_variable
from mixedeffects.inference.variance_by_name import fixed_effects_variance

__all__ = ["adapter", "with_degrees_of_freedom"]

Matrix = NDArray[np.float64]

_NEEDED = (
    "m.marginaleffects() needs the package marginaleffects, version 0.6 or later; install it with: "
    "pip install 'marginaleffects>=0.6'"
)


def adapter(
    model: Fit,
    vcov: str = "model",
    ddf: str = "satterthwaite",
    cluster: Any = None,
    df: float = np.inf,
) -> Any:
    """See `LinearMixedModel.marginaleffects`."""
    number = isinstance(df, (int, float, np.integer, np.floating)) and not isinstance(df, bool)
    if not number or not df > 0.0:
        raise ModelError(f"df must be a positive number, or infinite for normal, not {df!r:.60}.")
    if not len(model.frame.fixef_names):
        raise ModelError("The model has no fixed effects, so there are no effects to compare.")
    variance = fixed_effects_variance(model, vcov, ddf, cluster)
    return _adapter_class()(model, variance, float(df), cluster)


def with_degrees_of_freedom(result: Any, variance: Any, level: float) -> pd.DataFrame:
    """The result of marginaleffects with t-tests in place of normal ones, row by row."""
    jacobian = getattr(result, "jacobian", None)
    frame: pd.DataFrame = result.to_pandas()
    if jacobian is None or "std_error" not in frame:
        raise ModelError("These results have no standard errors, and so no degrees of freedom.")
    J = np.asarray(jacobian, dtype=np.float64)
    se = np.sqrt(np.maximum(np.einsum("ip,pq,iq->i", J, variance.vcov, J), 0.0))
    given = frame["std_error"].to_numpy(dtype=np.float64)
    if len(J) != len(frame) or not np.allclose(se, given, rtol=1e-4, atol=1e-10, equal_nan=True):
        raise ModelError(
            "The standard errors of these results are not those of this adapter: they come from "
            "another covariance matrix or model."
        )
    some = se > 0.0
    df = np.full(len(J), np.nan)
    if some.any():
        df[some] = variance.df(J[some])
    statistic = frame["statistic"].to_numpy(dtype=np.float64)
    half = scipy.stats.t.ppf(0.5 + level / 2.0, df) * frame["std_error"].to_numpy()
    estimate = frame["estimate"].to_numpy(dtype=np.float64)
    out = frame.drop(columns=[name for name in ("s_value",) if name in frame])
    out["df"] = df
    out["p_value"] = 2.0 * scipy.stats.t.sf(np.abs(statistic), df)
    out["conf_low"], out["conf_high"] = estimate - half, estimate + half
    return out


class _Offsets:
    """The known part of the linear predictor, for any rows."""

    def __init__(self, model: Fit) -> None:
        frame, given = model.frame, model.request.offset
        if given is not None and not isinstance(given, str):
            raise ModelError(
                "The model was fitted with offset= given as values, which say nothing about new "
                "rows. Fit it with the name of a column, or with offset() in the formula."
            )
        assert frame.fixed_encoder is not None
        self._column = given
        self._trees = frame.fixed_encoder.table.offsets
        # Transforms remember what they saw in the rows of the fit.
        self._states: list[dict[str, Any]] = [{} for _ in self._trees]
        self.columns = data_columns(self._trees, list(frame.data.columns))
        if frame.offset is not None:
            fitted = self._evaluate(frame.data, self._states)
            if not np.allclose(fitted, frame.offset, rtol=1e-10, atol=0.0):
                text = ", ".join(map(deparse, self._trees))
                raise ModelError(f"The offset of new rows cannot be had from offset({text}).")
        if given is not None:
            self.columns.append(given)

    def __bool__(self) -> bool:
        return bool(self._trees) or self._column is not None

    def __call__(self, data: Any) -> Matrix:
        states = [{text: dict(own) for text, own in state.items()} for state in self._states]
        return self._evaluate(data, states)

    def _evaluate(self, data: Any, states: list[dict[str, Any]]) -> Matrix:
        source = materialised(data)
        names = list(dict.fromkeys(data_columns(self._trees, column_names(source))))
        if self._column is not None and self._column not in names:
            names.append(self._column)
        table = take_columns(source, names)
        columns, total = Columns(table), np.zeros(len(table))
        for tree, state in zip(self._trees, states, strict=True):
            value = evaluate_variable(tree, columns, state).value
            assert not isinstance(value, Factor)
            total += value
        if self._column is not None:
            total += table[self._column].to_numpy(dtype=np.float64)
        return total


def _categorical(data: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """The data with text as categoricals, as marginaleffects wants them, and all levels."""
    out, levels = data.reset_index(drop=True).copy(), {}
    for name in out.columns:
        column = out[name]
        if not isinstance(column.dtype, pd.CategoricalDtype):
            if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
                continue
            if not pd.api.types.is_string_dtype(column) and column.dtype != object:
                continue
            column = column.astype(str).astype("category")
        column = column.cat.remove_unused_categories()
        # Its own types have categories of text only.
        column = column.cat.rename_categories([str(each) for each in column.cat.categories])
        out[name] = column
        levels[str(name)] = list(column.cat.categories)
    return out, levels


def _names_formula(variables: list[str]) -> str:
    """The response and the variables of the fixed part, as formulaic reads names of any kind."""
    quoted = [f"`{name}`" for name in variables]
    return f"{quoted[0]} ~ {' + '.join(quoted[1:]) or '1'}"


@cache
def _adapter_class() -> Any:
    try:
        import polars as pl
        from marginaleffects.classes import ModelAbstract, ModelVault
        from marginaleffects.sanitize.utils import get_type_dictionary
        from marginaleffects.utils import ingest
    except ImportError as error:
        raise ImportError(_NEEDED) from error

    class MixedModelAdapter(ModelAbstract):  # type: ignore[misc]
        """Population predictions of a linear mixed model, for marginaleffects.

        Attributes
        ----------
        model : Fit
            The fit.
        df_resid : float
            Degrees of freedom that marginaleffects uses for all its tests.
        """

        def __init__(self, model: Any, variance: Any, df: float, cluster: Any) -> None:
            frame = model.frame
            self._encoder = frame.fixed_encoder
            self._offsets = _Offsets(model)
            self._variance, self._cluster = variance, cluster
            self.df_resid = df
            available = list(frame.data.columns)
            response = data_columns([frame.formula.response_tree], available)
            predictors = [*self._encoder.variables, *self._offsets.columns]
            variables = list(dict.fromkeys([*response[:1], *predictors]))
            data, levels = _categorical(frame.data)
            table = ingest(data).drop("index", strict=False)
            super().__init__(
                model,
                ModelVault(
                    coef=model.beta,
                    coefnames=np.array(list(model.fixef_names)),
                    modeldata=table,
                    package="mixedeffects",
                    # Only says which columns matter: the encoder makes the model matrix.
                    formula=_names_formula(variables),
                    variable_names=variables,
                    pandas_categorical_orders=levels,
                ),
            )
            for name, kind in get_type_dictionary(None, self.get_modeldata()).items():
                self.set_variable_type(name, kind)

        def get_vcov(self, vcov: Any = True) -> Any:
            """The covariance matrix of the adapter, or one by name as for `m.vcov`."""
            if vcov is None or vcov is False:
                return None
            if vcov is True:
                return self._variance.vcov
            return fixed_effects_variance(self.model, vcov, "inf", self._cluster).vcov

        def get_exog(self, newdata: Any) -> Matrix:
            """The model matrix, and the offset as its last column if there is one."""
            X, _ = self._encoder.encode(newdata)
            if not self._offsets:
                return np.asarray(X)
            return np.column_stack([X, self._offsets(newdata)])

        def get_predict(self, params: Any, newdata: Any) -> Any:
            """``X beta`` plus the offset."""
            matrix = newdata if isinstance(newdata, np.ndarray) else self.get_exog(newdata)
            beta = np.asarray(params, dtype=np.float64)
            fit = matrix[:, : len(beta)] @ beta
            if self._offsets:
                fit = fit + matrix[:, -1]
            rows = pl.Series("rowid", range(len(fit)), dtype=pl.Int32)
            return pl.DataFrame({"rowid": rows, "estimate": fit})

        def get_autodiff_args(self) -> Any:
            """Exact derivatives, where marginaleffects has them."""
            if self._offsets:
                return "models with an offset"
            return {"model_type": "linear", "family": None, "link": None}

        def tests(self, result: Any, level: float = 0.95) -> pd.DataFrame:
            """Results of marginaleffects with degrees of freedom of their own.

            Parameters
            ----------
            result : MarginaleffectsResult
                What ``predictions``, ``comparisons``, ``slopes`` or ``hypotheses`` returned for
                this adapter.
            level : float
                Confidence level.

            Returns
            -------
            DataFrame
                The result with a column ``df``, and p-values and intervals by the t distribution.

            Raises
            ------
            ModelError
                If the result has no standard errors, or those of another covariance matrix.
            """
            return with_degrees_of_freedom(result, self._variance, level)

    return MixedModelAdapter
