"""Predictions for the rows of a fitted model or new ones, with standard errors and intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import NDArray

from mixedeffects.base.caching import cached_property
from mixedeffects.base.options import (
    checked_choice,
    checked_flag,
    checked_level,
    is_whole_number,
    member,
)
from mixedeffects.covariance.design import z_times
from mixedeffects.covariance.of_fit import fitted_values
from mixedeffects.display.result_table import ResultTable
from mixedeffects.display.vocabulary import BROOM_INTERVAL, FORMER_PREDICTIONS, intervals_at
from mixedeffects.engine.covariance_changes import new_effects_jacobian
from mixedeffects.engine.threads import one_blas_thread
from mixedeffects.errors import DataError, ModelError
from mixedeffects.fitting.estimability import estimability
from mixedeffects.fitting.fit import Fit
from mixedeffects.frame.estimable import Estimability
from mixedeffects.frame.grouping import UNSEEN
from mixedeffects.frame.new_data import DesignRows, NewData, Wanted, spans
from mixedeffects.inference.prediction_variance import PredictionVariance
from mixedeffects.inference.response_scale import response_scale
from mixedeffects.inference.satterthwaite import satterthwaite_of
from mixedeffects.inference.variance import FixedEffectsVariance, ddf_name
from mixedeffects.inference.variance_by_name import fixed_effects_variance
from mixedeffects.lazy.table import is_lazy
from mixedeffects.prediction.in_table import predicted_table
from mixedeffects.prediction.new_residuals import (
    KnownResiduals,
    NewVariances,
    ResidualRows,
    check_known_residuals,
    check_new_variances,
)
from mixedeffects.simulation.random_part import select_terms

__all__ = ["INTERVALS", "NEW_LEVELS", "PredictionOptions", "predict", "refuse_unseen"]

Matrix = NDArray[np.float64]
Codes = NDArray[np.int32]

INTERVALS = ("confidence", "prediction")
NEW_LEVELS = ("error", "population")
#: Variance of a new residual, relative to its own, that is rounding.
_NOTHING = 1e-9
_FOR_NEW_OBSERVATIONS = ("satterthwaite", "residual", "inf")


@dataclass(frozen=True, eq=False)
class PredictionOptions:
    """The arguments of `LinearMixedModel.predict`, as given."""

    re: Any = "all"
    interval: Any = None
    level: Any = 0.95
    new_levels: Any = "error"
    se: Any = False
    ddf: Any = None
    vcov: Any = "model"
    cluster: Any = None
    weights: Any = None
    offset: Any = None
    chunk_size: Any = 100_000
    type: Any = "link"
    bias_adjust: Any = False
    sigma: Any = None
    residual: Any = False


def predict(fit: Fit, newdata: Any, options: PredictionOptions) -> Any:
    """See `LinearMixedModel.predict`."""
    if fit.rows is not None and (newdata is None or is_lazy(newdata)):
        return _in_table(fit, newdata, options)
    predictor = _Predictor(fit, options)
    if newdata is None:
        return predictor.training()
    predictor.check_offset()
    if isinstance(newdata, Iterator):
        for role, given in (("weights", options.weights), ("offset", options.offset)):
            if given is not None and not isinstance(given, str) and np.ndim(given):
                raise DataError(
                    f"With an iterator of frames `{role}` must be a number or the name of a "
                    "column, because an array does not say which frame it belongs to."
                )
        return (predictor.frame(data) for data in newdata)
    return predictor.frame(newdata)


def _in_table(fit: Fit, newdata: Any, options: PredictionOptions) -> Any:
    """Predictions as columns of a table that stays in its engine."""
    plain = PredictionOptions()
    for name in ("interval", "residual", "bias_adjust", "sigma", "type"):
        if getattr(options, name) != getattr(plain, name):
            raise ModelError(
                f"{name}= is for rows in memory: predictions in a table are its linear predictor, "
                "with se=True the standard error of population means. Give the rows that it is "
                "wanted for as a DataFrame."
            )
    new_levels = checked_choice(options.new_levels, "new_levels", NEW_LEVELS)
    variance = fixed_effects_variance(
        fit, options.vcov, _method(options) or fit.request.ddf, options.cluster
    )
    return predicted_table(
        fit,
        newdata,
        select_terms(fit.frame, options.re),
        se=bool(checked_flag(options.se, "se")),
        new_levels=new_levels,
        covariance=variance.vcov,
        offset=options.offset if options.offset is not None else fit.request.offset,
    )


class _Predictor:
    """What the answers for all rows have in common."""

    def __init__(self, fit: Fit, options: PredictionOptions) -> None:
        self.fit, self.options = fit, options
        self.terms = select_terms(fit.frame, options.re)
        #: Whether the residuals of the rows' groups are part of the prediction.
        self.with_residual = checked_flag(options.residual, "residual")
        _check(options, population=not self.terms and not self.with_residual)
        if self.with_residual:
            _check_residual(fit, options, self.terms)
        self.scale = response_scale(
            fit, options.type, options.bias_adjust, options.sigma, self.terms
        )
        #: Method for the degrees of freedom of the intervals.
        new_rows = options.interval == "prediction"
        own = "satterthwaite" if new_rows else fit.request.ddf
        with_effects = bool(self.terms) and not self.with_residual
        self.ddf = _method(options) or ("inf" if with_effects else own)
        self.errors_wanted = bool(options.se) or options.interval is not None
        every = range(len(fit.frame.terms))
        #: Terms left out whose effects are drawn anew in the interval.
        self.redrawn = tuple(
            t for t in every if options.interval == "prediction" and t not in self.terms
        )
        self.beta = fit.beta
        #: Covariance matrix of the fixed effects and degrees of freedom of their functions.
        self.fixed_variance: FixedEffectsVariance | None = None
        of_means = not self.terms and options.interval != "prediction"
        named = _asks_for_variance(options) or (options.se and own != "satterthwaite")
        if of_means and (options.interval or named):
            self.fixed_variance = fixed_effects_variance(
                fit, options.vcov, self.ddf, options.cluster
            )

    # --- what is computed once -----------------------------------------------------------

    @cached_property
    def modes(self) -> list[Matrix]:
        return self.fit.modes

    @cached_property
    def estimability(self) -> Estimability:
        return estimability(self.fit)

    @cached_property
    def variance(self) -> PredictionVariance:
        return PredictionVariance(self.fit, self.terms)

    @cached_property
    def new_variances(self) -> NewVariances | None:
        """Variances of residuals, where there is a structure."""
        return None if self.fit.residual is None else NewVariances(self.fit)

    @cached_property
    def known(self) -> KnownResiduals:
        return KnownResiduals(self.fit)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of results."""
        if self.options.interval is not None:
            return ("estimate", "std_error", *BROOM_INTERVAL)
        return ("estimate", "std_error") if self.errors_wanted else ("estimate",)

    # --- rows ----------------------------------------------------------------------------

    def training(self) -> Any:
        """Predictions for the rows used."""
        fit, options = self.fit, self.options
        if self.with_residual:
            raise ModelError(
                "residual=True is for new rows: with its own residual the prediction of a row of "
                "the fit would be its response."
            )
        for role, given in (("weights", options.weights), ("offset", options.offset)):
            if given is not None:
                raise ModelError(
                    f"{role}= describes new rows; without newdata those of the fit are used."
                )
        frame, n = fit.frame, fit.nobs
        codes = {t: frame.terms[t].codes for t in self.terms}
        out = {name: np.empty(n) for name in self.columns}
        if len(self.terms) == len(frame.terms):
            out["estimate"][:] = fitted_values(fit)
        else:
            mean = fit.fixed_part[:, None]
            for t in self.terms:
                z_times(frame.terms[t], self.modes[t][:, :, None], mean)
            out["estimate"][:] = mean[:, 0]

        def rows(start: int, stop: int) -> DesignRows:
            return DesignRows(
                frame.X[start:stop],
                np.zeros(stop - start),
                None if frame.weights is None else frame.weights[start:stop],
                {t: frame.terms[t].z[start:stop] for t in (*self.terms, *self.redrawn)},
                {t: own[start:stop] for t, own in codes.items()},
            )

        if self.errors_wanted:
            for start, stop in self._chunks(n, codes):
                part = slice(start, stop)
                own = None
                if self.new_variances is not None:
                    own = self.new_variances.of_fit(start, stop)
                self._errors(rows(start, stop), {name: out[name][part] for name in out}, own)
        self._back(out)
        if len(out) == 1:
            return pd.Series(out["estimate"], index=frame.index, name="estimate")
        return self._table(pd.DataFrame(out, index=frame.index))

    def frame(self, data: Any) -> Any:
        """Predictions for the rows of a dataframe."""
        options, fit = self.options, self.fit
        offset = fit.request.offset if options.offset is None else options.offset
        wanted = Wanted(
            self.terms,
            (*self.terms, *self.redrawn),
            options.weights,
            offset,
            residual_variances=options.interval == "prediction",
            residual_groups=self.with_residual,
        )
        if options.interval == "prediction":
            check_new_variances(fit)
        new = NewData(fit.frame, data, wanted, options.chunk_size, self.estimability)
        codes = new.level_codes()
        if options.new_levels == "error":
            for t in self.terms:
                refuse_unseen(fit, new, t, codes[t])
        out = {name: np.full(new.n, np.nan) for name in self.columns}
        for start, stop in self._chunks(new.n, codes):
            rows, complete = new.rows(start, stop, codes)
            found = {name: np.empty(len(rows.X)) for name in out}
            found["estimate"][:] = self._fit(rows)
            if self.with_residual:
                found["estimate"][:] += self.known.predicted(rows)
            if self.errors_wanted:
                own = None
                if self.new_variances is not None and rows.residual is not None:
                    own = self.new_variances.of_places(rows.residual)
                self._errors(rows, found, own)
            for name, values in found.items():
                out[name][start:stop][complete] = values
        self._back(out)
        answer = new.answer(out, single=len(out) == 1)
        return self._table(answer) if isinstance(answer, pd.DataFrame) else answer

    def _table(self, predictions: pd.DataFrame) -> ResultTable:
        options = self.options
        hint = (self.scale.hint,) if self.scale.hint else ()
        if options.interval is None:
            return ResultTable.of(predictions, hint, former=FORMER_PREDICTIONS)
        notes = (*hint, intervals_at(options.level, options.interval))
        return ResultTable.of(predictions, notes, FORMER_PREDICTIONS)

    def _chunks(self, n: int, codes: Mapping[int, Codes]) -> Iterator[tuple[int, int]]:
        """Spans of rows, with everything prepared that their standard errors need."""
        size = self.options.chunk_size
        whole = max(size, self.variance.rows_at_once)
        for low, high in spans(n, whole):
            if self.errors_wanted:
                with one_blas_thread(self.fit.crossproducts.remainder.core_size):
                    self.variance.prepare({t: own[low:high] for t, own in codes.items()})
            yield from spans(high, size, low)

    def _fit(self, rows: DesignRows) -> Matrix:
        mean: Matrix = rows.X @ self.beta + rows.offset
        for t in self.terms:
            code = rows.codes[t]
            effects = np.einsum("ia,ia->i", rows.z[t], self.modes[t][code])
            mean += np.where(code == UNSEEN, 0.0, effects)
        return mean

    def _errors(
        self, rows: DesignRows, out: Mapping[str, Matrix], residual: ResidualRows | None
    ) -> None:
        """Fill in standard errors and bounds."""
        fit, interval = self.fit, self.options.interval
        fixed = self.fixed_variance if len(self.beta) else None
        if self.with_residual:
            variance = self.known.error_variances(rows)
        elif fixed is None:
            with one_blas_thread(fit.crossproducts.remainder.core_size):
                variance = self.variance(rows)
        else:
            variance = fixed.variances(rows.X)
        for t in self.terms:
            unseen = rows.codes[t] == UNSEEN
            variance[unseen] += self._new_effects(t, rows.z[t][unseen])
        for t in self.redrawn:
            variance += self._new_effects(t, rows.z[t])
        if interval == "prediction" and not self.with_residual:
            variance += self._own_variances(rows, residual)
        out["std_error"][:] = np.sqrt(variance)
        if interval is not None:
            half = self._quantile(rows, variance, residual) * out["std_error"]
            out["conf_low"][:] = out["estimate"] - half
            out["conf_high"][:] = out["estimate"] + half

    def _own_variances(self, rows: DesignRows, residual: ResidualRows | None) -> Any:
        """Variances of the residuals."""
        sigma2 = self.fit.sigma**2
        if self.new_variances is None or residual is None:
            return sigma2 / (1.0 if rows.weights is None else rows.weights)
        return sigma2 * self.new_variances.relative(residual, rows.weights)

    def _back(self, out: Mapping[str, Matrix]) -> None:
        """Bring results to the scale they are shown on."""
        scale = self.scale
        if scale.way is None:
            return
        fitted = out["estimate"].copy()
        out["estimate"][:] = scale.values(fitted)
        if "std_error" in out:
            out["std_error"][:] = scale.errors(fitted, out["std_error"])
        if "conf_low" in out:
            # The ends of an interval for a new observation are quantiles, which have no bias.
            of_mean = self.options.interval == "confidence"
            ends = scale if of_mean else replace(scale, spread=0.0)
            out["conf_low"][:], out["conf_high"][:] = ends.bounds(out["conf_low"], out["conf_high"])

    def _new_effects(self, t: int, z: Matrix) -> Matrix:
        """``z'G z``, the variance of the effects of a level drawn anew."""
        root = self.fit.sigma * (z @ self.fit.T[t])
        return np.asarray(np.einsum("ia,ia->i", root, root))

    def _quantile(self, rows: DesignRows, variance: Matrix, residual: ResidualRows | None) -> Any:
        tail = 0.5 + self.options.level / 2.0
        if self.options.interval == "prediction":
            return scipy.stats.t.ppf(tail, self._new_observation_df(rows, variance, residual))
        fixed = self.fixed_variance if len(self.beta) else None
        if fixed is None:
            return scipy.stats.norm.ppf(tail)
        # A row of zeros, or one that is missing, has no degrees of freedom.
        some = np.flatnonzero(variance > 0.0)
        quantile = np.zeros(len(rows.X))
        if len(some):
            different, which = np.unique(rows.X[some], axis=0, return_inverse=True)
            df = fixed.df(different)
            quantile[some] = np.asarray(scipy.stats.t.ppf(tail, df))[which.reshape(-1)]
        return quantile

    def _new_observation_df(
        self, rows: DesignRows, variance: Matrix, residual: ResidualRows | None
    ) -> Any:
        """Degrees of freedom of the variance of a new observation's error.

        Satterthwaite's are ``2 v^2 / Var(v)``, v with all its parts: the mean, the effects drawn
        anew, the residual.
        """
        fit = self.fit
        if self.ddf != "satterthwaite":
            return np.inf if self.ddf == "inf" else float(fit.nobs - len(self.beta))
        satterthwaite = satterthwaite_of(fit)
        if self.with_residual:
            gradient = self.known.error_gradient(rows)
            for t in self.terms:
                unseen = rows.codes[t] == UNSEEN
                gradient[unseen] += self.known.effects_jacobian(t, rows.z[t][unseen])
            if fit.crossproducts.known_variance is not None:
                gradient[:, -1] = 0.0
            # At a row of the fit there is no variance that could have degrees of freedom.
            some = variance > _NOTHING * self._own_variances(rows, residual)
            df = np.full(len(variance), np.inf)
            df[some] = satterthwaite.df_of(variance[some], gradient[some])
            return df
        gradient = np.einsum("ip,mpq,iq->im", rows.X, satterthwaite.jacobian, rows.X, optimize=True)
        if self.new_variances is not None and residual is not None:
            more = self.new_variances.gradient(residual, rows.weights)
            for t in self.redrawn:
                more += self.new_variances.effects_jacobian(t, rows.z[t])
            if fit.crossproducts.known_variance is not None:
                # Sigma is no parameter.
                more[:, -1] = 0.0
            gradient += more
            return satterthwaite.df_of(variance, gradient)
        for t in self.redrawn:
            gradient += new_effects_jacobian(fit.optimum, t, rows.z[t])
        gradient[:, -1] += 2.0 * fit.sigma / (1.0 if rows.weights is None else rows.weights)
        return satterthwaite.df_of(variance, gradient)

    # --- refusals ------------------------------------------------------------------------

    def check_offset(self) -> None:
        """Refuse new rows whose offset the model cannot know."""
        fitted = self.fit.request.offset
        if self.options.offset is None and fitted is not None and not isinstance(fitted, str):
            raise ModelError(
                "The model was fitted with offset= given as values, which say nothing about new "
                "rows: give theirs as offset=, 0 for none."
            )


def _check(options: PredictionOptions, population: bool) -> None:
    """Refuse arguments that are not what they should be or have nothing to act on."""
    if options.interval is not None and not member(options.interval, INTERVALS):
        raise ModelError(
            f"interval {options.interval!r} is not known; it is {_listed(INTERVALS)} or None."
        )
    if not member(options.new_levels, NEW_LEVELS):
        raise ModelError(
            f"new_levels {options.new_levels!r} is not known; it is {_listed(NEW_LEVELS)}."
        )
    checked_flag(options.se, "se")
    checked_level(options.level)
    size = options.chunk_size
    if not is_whole_number(size):
        raise ModelError(f"chunk_size must be a positive number of rows, not {size!r:.60}.")
    of_observation = options.interval == "prediction" or options.residual
    if options.weights is not None and not of_observation:
        raise ModelError(
            "weights= is for interval='prediction' and residual=True: prior weights of new rows "
            "change only their residual variance."
        )
    of_residuals = bool(options.residual) and options.interval == "prediction"
    if not (population or of_residuals) and (
        _method(options) not in (None, "inf") or _asks_for_covariance(options)
    ):
        raise ModelError(
            "ddf=, vcov= and cluster= are for standard errors and intervals of population "
            "predictions (re=None). The variances of predictions with random effects take the "
            "estimated V as known, and their intervals the normal distribution."
        )
    if options.interval == "prediction" and (
        _method(options) not in (None, *_FOR_NEW_OBSERVATIONS) or _asks_for_covariance(options)
    ):
        raise ModelError(
            "Intervals for new observations have the model's variances, with ddf= "
            f"{_listed(_FOR_NEW_OBSERVATIONS)}; other ddf=, vcov= and cluster= are for means, with "
            "interval='confidence'."
        )
    if _asks_for_variance(options) and options.interval is None and not options.se:
        raise ModelError(
            "ddf=, vcov= and cluster= change standard errors and intervals only; ask for them with "
            "interval='confidence' or se=True."
        )


def _check_residual(fit: Fit, options: PredictionOptions, terms: Sequence[int]) -> None:
    """Refuse residuals in predictions that they do not belong to."""
    check_known_residuals(fit)
    if len(terms) < len(fit.frame.terms):
        raise ModelError(
            "residual=True goes with all random effects, re='all': the residuals of the fit are "
            "what these leave."
        )
    if options.interval == "confidence":
        raise ModelError(
            "residual=True predicts a new observation, whose interval is interval='prediction'; "
            "interval='confidence' is for means."
        )


def _method(options: PredictionOptions) -> Any:
    if isinstance(options.ddf, str):
        return ddf_name(options.ddf)
    # Something else is no method, which is said where it is asked for.
    return None if options.ddf is None else ""


def _asks_for_variance(options: PredictionOptions) -> bool:
    return options.ddf is not None or _asks_for_covariance(options)


def _asks_for_covariance(options: PredictionOptions) -> bool:
    named = not isinstance(options.vcov, str) or options.vcov != "model"
    return named or options.cluster is not None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)


def refuse_unseen(fit: Fit, new: NewData, t: int, codes: Codes) -> None:
    """Say which levels of a term the fit did not see, if there are any."""
    if not (codes == UNSEEN).any():
        return
    count, shown, rows = new.unseen(t, codes)
    more = f" and {count - len(shown):,} more" if count > len(shown) else ""
    raise DataError(
        f"Grouping factor `{fit.frame.terms[t].group}` has "
        f"{'a level' if count == 1 else f'{count:,} levels'} that the fit did not see: "
        f"{_listed(shown)}{more} ({rows:,} of {new.n:,} rows). new_levels='population' predicts "
        "them with effects of zero, and adds their variance to intervals; re=None leaves out all "
        "random effects."
    )
