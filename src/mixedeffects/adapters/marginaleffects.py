"""A fitted model in the form that the marginaleffects package takes.

The adapter predicts for the population: ``X beta``, with offsets, or the mean there. Its classes
derive from one of marginaleffects, so they are made when they are first asked for.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import NDArray

from mixedeffects.base.options import checked_choice, checked_flag
from mixedeffects.errors import ModelError
from mixedeffects.fitting.estimability import estimability
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.generalized import GeneralizedFit, generalized
from mixedeffects.fitting.generalized.means import means_at
from mixedeffects.frame.new_data import NewData, Wanted
from mixedeffects.frame.variables import data_columns
from mixedeffects.inference.generalized_prediction_variance import natural_covariance
from mixedeffects.inference.population_average import population_mean
from mixedeffects.inference.variance import FixedEffectsVariance
from mixedeffects.inference.variance_by_name import fixed_effects_variance

__all__ = ["adapter", "generalized_adapter", "with_degrees_of_freedom"]

Matrix = NDArray[np.float64]

_NEEDED = (
    "m.marginaleffects() needs the package marginaleffects, version 0.6 or later; install it with: "
    "pip install 'marginaleffects>=0.6'"
)
#: Rows encoded at a time.
_ROWS = 100_000
#: Links that marginaleffects knows derivatives of, and a family it has them with.
_EXACT_LINKS = {
    "cloglog": "binomial",
    "log": "poisson",
    "logit": "binomial",
    "probit": "binomial",
    "sqrt": "poisson",
    "inverse": "gamma",
}


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
    _check_effects(model)
    variance = fixed_effects_variance(model, vcov, ddf, cluster)
    return _adapter_classes()[1](_LinearPredictor(model, variance, cluster), float(df))


def generalized_adapter(
    model: GeneralizedFit, vcov: Any, cluster: Any, type: Any, marginal: Any
) -> Any:
    """See `GeneralizedLinearMixedModel.marginaleffects`."""
    on_link = checked_choice(type, "type", ["response", "link"]) == "link"
    averaged = checked_flag(marginal, "marginal")
    _check_effects(model)
    if averaged:
        if on_link:
            raise ModelError(
                "marginal=True averages means, which are on the scale of the response; on that of "
                "the link the average over random effects is that of a typical level: "
                "marginal=False."
            )
        if vcov != "model" or cluster is not None:
            _refuse_covariance()
        return _adapter_classes()[0](_PopulationMeans(model), np.inf)
    variance = fixed_effects_variance(model, vcov, "inf", cluster)
    shown = _LinearPredictor if on_link else _TypicalMeans
    return _adapter_classes()[0](shown(model, variance, cluster), np.inf)


def _refuse_covariance() -> NoReturn:
    raise ModelError(
        "marginal=True needs the covariance of all parameters together, which is the model's: "
        "vcov= and cluster= are for marginal=False."
    )


def _check_effects(model: Fit) -> None:
    if not len(model.frame.fixef_names):
        raise ModelError("The model has no fixed effects, so there are no effects to compare.")


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


class _LinearPredictor:
    """What is predicted, from coefficients and the design of any rows: ``X beta`` and offset."""

    def __init__(
        self,
        model: Fit,
        variance: FixedEffectsVariance | None,
        cluster: Any = None,
        terms: tuple[int, ...] = (),
    ) -> None:
        self.model, self.variance, self._cluster = model, variance, cluster
        self.coef: Matrix = np.asarray(model.beta)
        self.names, self._p = list(model.fixef_names), len(self.coef)
        given = {role: getattr(model.request, role, None) for role in ("offset", "exposure")}
        for role, value in given.items():
            if value is not None and not isinstance(value, str):
                raise ModelError(
                    f"The model was fitted with {role}= given as values, which say nothing about "
                    "new rows. Fit it with the name of a column, or with offset() in the formula."
                )
        self._wanted = Wanted((), terms, None, given["offset"], given["exposure"])
        encoder = model.frame.fixed_encoder
        assert encoder is not None
        coders = [*encoder.coders, *encoder.offsets]
        for t in terms:
            coders += model.frame.random_encoders[t].coders
        by_name = [name for name in given.values() if name is not None]
        known = list(model.frame.data.columns)
        self.variables = [*data_columns([coder.tree for coder in coders], known), *by_name]
        self._has_offset = bool(encoder.offsets or by_name)
        #: What marginaleffects can differentiate exactly, or why it cannot.
        self.autodiff: Any = {"model_type": "linear", "family": None, "link": None}
        if self._has_offset:
            self.autodiff = "models with an offset"

    def covariance(self, vcov: Any) -> Matrix:
        """That of the coefficients: the adapter's own, or one by name as for `m.vcov`."""
        if vcov is not True:
            return fixed_effects_variance(self.model, vcov, "inf", self._cluster).vcov
        assert self.variance is not None
        return self.variance.vcov

    def design(self, newdata: Any) -> Matrix:
        """X, the offset if there is one, and columns of random effects that are averaged over."""
        new = NewData(self.model.frame, newdata, self._wanted, _ROWS, estimability(self.model))
        rows, complete = new.rows(0, new.n, {})
        parts = [rows.X, *rows.z.values()]
        if self._has_offset:
            parts.insert(1, rows.offset[:, None])
        found = np.column_stack(parts)
        out = np.full((new.n, found.shape[1]), np.nan)
        out[complete] = found
        return out

    def eta(self, coef: Matrix, design: Matrix) -> Matrix:
        """Linear predictors at random effects of zero."""
        p = self._p
        fit: Matrix = design[:, :p] @ coef[:p]
        return fit + design[:, p] if self._has_offset else fit

    def predict(self, coef: Matrix, design: Matrix) -> Matrix:
        """Predictions at these coefficients."""
        return self.eta(coef, design)


class _TypicalMeans(_LinearPredictor):
    """Means of a generalized model at random effects of zero."""

    def __init__(self, model: GeneralizedFit, variance: Any, cluster: Any) -> None:
        super().__init__(model, variance, cluster)
        self._family = model.family
        link = model.family.link.name
        if not self._has_offset:
            of = _EXACT_LINKS.get(link)
            known = {"model_type": "glm", "family": of, "link": link}
            self.autodiff = f"the link {link}" if of is None else known

    def predict(self, coef: Matrix, design: Matrix) -> Matrix:
        """Means at these coefficients."""
        return means_at(self._family, self.eta(coef, design))


class _PopulationMeans(_LinearPredictor):
    """Means over the random effects, by fixed effects and entries of G together."""

    def __init__(self, model: GeneralizedFit) -> None:
        terms = tuple(range(len(model.frame.terms)))
        super().__init__(model, None, None, terms)
        self.autodiff = "means over random effects"
        self._family = model.family
        self._lower = [np.tril_indices(len(G)) for G in model.G_blocks]
        entries = [G[at] for G, at in zip(model.G_blocks, self._lower, strict=True)]
        self.coef = np.concatenate([model.beta, *entries])
        for term, at in zip(model.frame.terms, self._lower, strict=True):
            for a, b in zip(*at, strict=True):
                own = (term.columns[b],) if a == b else (term.columns[b], term.columns[a])
                kind = "var" if a == b else "cov"
                self.names.append(f"{kind} {'.'.join((term.label, *own))}")

    def covariance(self, vcov: Any) -> Matrix:
        """Of fixed effects and entries of G, from the joint Hessian."""
        if vcov is not True:
            _refuse_covariance()
        return natural_covariance(generalized(self.model))

    def predict(self, coef: Matrix, design: Matrix) -> Matrix:
        """Means at these coefficients and covariances."""
        at, entry = self._p + self._has_offset, self._p
        v = np.zeros(len(design))
        for rows, columns in self._lower:
            z = design[:, at : at + rows[-1] + 1]
            G = coef[entry : entry + len(rows)]
            v += (z[:, rows] * z[:, columns]) @ np.where(rows == columns, G, 2.0 * G)
            at, entry = at + z.shape[1], entry + len(rows)
        return population_mean(self._family, self.eta(coef, design), np.maximum(v, 0.0))[0]


@cache
def _adapter_classes() -> tuple[Any, Any]:
    """Classes of adapters: of any fit, and with degrees of freedom."""
    try:
        import polars as pl
        from marginaleffects.classes import ModelAbstract, ModelVault
        from marginaleffects.sanitize.utils import get_type_dictionary
        from marginaleffects.utils import ingest
    except ImportError as error:
        raise ImportError(_NEEDED) from error

    class MixedModelAdapter(ModelAbstract):  # type: ignore[misc]
        """Population predictions of a mixed model, for marginaleffects.

        Attributes
        ----------
        model : Fit
            The fit.
        df_resid : float
            Degrees of freedom that marginaleffects uses for all its tests.
        """

        def __init__(self, predicted: Any, df: float) -> None:
            self._predicted = predicted
            self.df_resid = df
            frame = predicted.model.frame
            response = data_columns([frame.formula.response_tree], list(frame.data.columns))
            variables = list(dict.fromkeys([*response[:1], *predicted.variables]))
            data, levels = _categorical(frame.data)
            table = ingest(data).drop("index", strict=False)
            super().__init__(
                predicted.model,
                ModelVault(
                    coef=predicted.coef,
                    coefnames=np.array(predicted.names),
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
            return self._predicted.covariance(vcov)

        def get_exog(self, newdata: Any) -> Matrix:
            """The model matrix, then the offset if there is one."""
            return np.asarray(self._predicted.design(newdata))

        def get_predict(self, params: Any, newdata: Any) -> Any:
            """Predictions at any coefficients."""
            matrix = newdata if isinstance(newdata, np.ndarray) else self.get_exog(newdata)
            fit = self._predicted.predict(np.asarray(params, dtype=np.float64), matrix)
            rows = pl.Series("rowid", range(len(fit)), dtype=pl.Int32)
            return pl.DataFrame({"rowid": rows, "estimate": fit})

        def get_autodiff_args(self) -> Any:
            """Exact derivatives, where marginaleffects has them."""
            return self._predicted.autodiff

    class LinearMixedModelAdapter(MixedModelAdapter):
        """With degrees of freedom by contrast."""

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
            return with_degrees_of_freedom(result, self._predicted.variance, level)

    return MixedModelAdapter, LinearMixedModelAdapter
