"""Predictions of a generalized model, on the scale of the response or of the link."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
from mixedeffects.display.result_table import ResultTable
from mixedeffects.display.vocabulary import BROOM_INTERVAL, FORMER_PREDICTIONS, intervals_at
from mixedeffects.engine.threads import one_blas_thread
from mixedeffects.errors import DataError, ModelError
from mixedeffects.fitting.estimability import estimability
from mixedeffects.fitting.generalized import GeneralizedFit
from mixedeffects.fitting.generalized.means import means_at
from mixedeffects.frame.grouping import UNSEEN
from mixedeffects.frame.new_data import DesignRows, NewData, Wanted, spans
from mixedeffects.inference.generalized_prediction_variance import GeneralizedPredictionVariance
from mixedeffects.inference.population_average import population_mean
from mixedeffects.inference.variance import FixedEffectsVariance
from mixedeffects.inference.variance_by_name import fixed_effects_variance
from mixedeffects.prediction.new_responses import NewResponses
from mixedeffects.prediction.predict import INTERVALS, NEW_LEVELS, refuse_unseen
from mixedeffects.simulation.random_part import select_terms

__all__ = ["GeneralizedOptions", "predict_generalized"]

Matrix = NDArray[np.float64]
Codes = NDArray[np.int32]

_ROLES = ("offset", "exposure", "weights")


@dataclass(frozen=True, eq=False)
class GeneralizedOptions:
    """The arguments of `GeneralizedLinearMixedModel.predict`, as given."""

    type: Any = "response"
    re: Any = "all"
    new_levels: Any = "error"
    offset: Any = None
    exposure: Any = None
    chunk_size: Any = 100_000
    se: Any = False
    interval: Any = None
    level: Any = 0.95
    marginal: Any = False
    vcov: Any = "model"
    cluster: Any = None
    weights: Any = None


def predict_generalized(fit: GeneralizedFit, newdata: Any, options: GeneralizedOptions) -> Any:
    """See `GeneralizedLinearMixedModel.predict`."""
    predictor = _Predictor(fit, options)
    if newdata is None:
        return predictor.training()
    wanted = predictor.wanted()
    if isinstance(newdata, Iterator):
        for role in _ROLES:
            given = getattr(options, role)
            if given is not None and not isinstance(given, str) and np.ndim(given):
                raise DataError(
                    f"With an iterator of frames `{role}` must be a number or the name of a "
                    "column, because an array does not say which frame it belongs to."
                )
        return (predictor.frame(data, wanted) for data in newdata)
    return predictor.frame(newdata, wanted)


class _Predictor:
    """What the answers for all rows have in common."""

    def __init__(self, fit: GeneralizedFit, options: GeneralizedOptions) -> None:
        self.fit, self.options = fit, options
        self.on_link = checked_choice(options.type, "type", ["response", "link"]) == "link"
        checked_choice(options.new_levels, "new_levels", list(NEW_LEVELS))
        if not is_whole_number(options.chunk_size):
            raise ModelError(
                f"chunk_size must be a positive number of rows, not {options.chunk_size!r:.60}."
            )
        self.marginal = checked_flag(options.marginal, "marginal")
        checked_level(options.level)
        if options.interval is not None and not member(options.interval, INTERVALS):
            raise ModelError(
                f"interval {options.interval!r:.60} is not known; it is 'confidence', "
                "'prediction' or None."
            )
        self.of_new = options.interval == "prediction"
        self.with_errors = checked_flag(options.se, "se") or options.interval is not None
        re = options.re
        if self.marginal and isinstance(re, str) and re == "all":
            # What nobody named is averaged over.
            re = None
        self.terms = select_terms(fit.frame, re)
        others = tuple(t for t in range(len(fit.frame.terms)) if t not in self.terms)
        #: Terms whose effects are averaged over, and those drawn anew for a new observation.
        self.averaged = others if self.marginal else ()
        self.redrawn = others if self.of_new else ()
        self.columns = tuple(sorted({*self.terms, *self.averaged, *self.redrawn}))
        self._refuse()
        self.fixed_variance: FixedEffectsVariance | None = None
        if self.with_errors and not (self.terms or self.of_new):
            self.fixed_variance = fixed_effects_variance(fit, options.vcov, "inf", options.cluster)

    def _refuse(self) -> None:
        """Refuse arguments that have nothing to act on."""
        options = self.options
        if self.marginal and self.on_link:
            raise ModelError(
                "marginal=True averages means, which are on the scale of the response; on that of "
                "the link the average over random effects is that of a typical level: re=None."
            )
        if self.marginal and not self.averaged and options.new_levels == "error":
            raise ModelError(
                "marginal=True averages over random effects, and re= conditions on all of them; "
                "leave out re=, or name those that are to stay."
            )
        if self.of_new and self.on_link:
            raise ModelError(
                "interval='prediction' is for a new response, which is not on the scale of the "
                "link; take type='response'."
            )
        named = not isinstance(options.vcov, str) or options.vcov != "model"
        if named or options.cluster is not None:
            if self.terms or self.of_new:
                raise ModelError(
                    "vcov= and cluster= are for standard errors and confidence intervals of "
                    "population predictions (re=None or marginal=True). Those with random effects "
                    "have their conditional variance too, which is the model's."
                )
            if not self.with_errors:
                raise ModelError(
                    "vcov= and cluster= change standard errors and intervals only; ask for them "
                    "with interval='confidence' or se=True."
                )
        if options.weights is not None and not (self.of_new and self.fit.family.takes_trials):
            raise ModelError(
                "weights= are the numbers of trials of new proportions, and change only "
                "interval='prediction' of a binomial model."
            )

    # --- what is computed once -----------------------------------------------------------

    @cached_property
    def variance(self) -> GeneralizedPredictionVariance:
        known = self.fixed_variance
        root = None if known is None or known.joint_root is None else known.joint_root()
        return GeneralizedPredictionVariance(self.fit, self.terms, root)

    @cached_property
    def modes(self) -> list[Matrix]:
        return self.fit.modes

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns of results."""
        if self.options.interval is not None:
            return ("estimate", "std_error", *BROOM_INTERVAL)
        return ("estimate", "std_error") if self.with_errors else ("estimate",)

    # --- rows ----------------------------------------------------------------------------

    def training(self) -> Any:
        """Predictions for the rows used."""
        fit, frame = self.fit, self.fit.frame
        for role in _ROLES:
            if getattr(self.options, role) is not None:
                raise ModelError(
                    f"{role}= describes new rows; without newdata those of the fit are used."
                )
        eta = self._of_the_fit()
        codes = {t: frame.terms[t].codes for t in self.terms}
        out = {name: np.empty(fit.nobs) for name in self.names}
        trials = fit.response.trials
        for start, stop in self._chunks(fit.nobs, codes):
            part = slice(start, stop)
            rows = DesignRows(
                frame.X[part],
                np.zeros(stop - start),
                None if trials is None else trials[part],
                {t: frame.terms[t].z[part] for t in self.columns},
                {t: own[part] for t, own in codes.items()},
            )
            for name, values in self._answers(rows, eta[part]).items():
                out[name][part] = values
        if len(out) == 1:
            return pd.Series(out["estimate"], index=frame.index, name="estimate")
        return self._table(pd.DataFrame(out, index=frame.index))

    def _of_the_fit(self) -> Matrix:
        """Linear predictor of the rows used."""
        fit = self.fit
        if len(self.terms) == len(fit.frame.terms):
            return fit.eta.copy()
        eta = fit.fixed_part[:, None].copy()
        for t in self.terms:
            z_times(fit.frame.terms[t], np.ascontiguousarray(self.modes[t])[:, :, None], eta)
        return eta[:, 0]

    def wanted(self) -> Wanted:
        """What is to be read of new rows."""
        fit, options = self.fit, self.options
        known = []
        for role in ("offset", "exposure"):
            given, fitted = getattr(options, role), getattr(fit.request, role)
            if given is None and fitted is not None and not isinstance(fitted, str):
                raise ModelError(
                    f"The model was fitted with {role}= given as values, which say nothing about "
                    f"new rows: give theirs as {role}=, {'0' if role == 'offset' else '1'} for "
                    "none."
                )
            known.append(fitted if given is None else given)
        trials = None
        if self.of_new and fit.family.takes_trials:
            trials = options.weights
            if trials is None and fit.response.trials is not None:
                trials = fit.request.weights
                if not isinstance(trials, str):
                    raise ModelError(
                        "interval='prediction' is for new numbers of successes, and nothing says "
                        "of how many trials: give them as weights=."
                    )
        return Wanted(self.terms, self.columns, trials, known[0], known[1])

    def frame(self, data: Any, wanted: Wanted) -> Any:
        """Predictions for the rows of a dataframe."""
        fit = self.fit
        new = NewData(fit.frame, data, wanted, self.options.chunk_size, estimability(fit))
        codes = new.level_codes()
        if self.options.new_levels == "error":
            for t in wanted.levels:
                refuse_unseen(fit, new, t, codes[t])
        out = {name: np.full(new.n, np.nan) for name in self.names}
        for start, stop in self._chunks(new.n, codes):
            rows, complete = new.rows(start, stop, codes)
            for name, values in self._answers(rows, self._linear(rows)).items():
                out[name][start:stop][complete] = values
        answer = new.answer(out, single=len(out) == 1)
        return self._table(answer) if isinstance(answer, pd.DataFrame) else answer

    def _table(self, predictions: pd.DataFrame) -> ResultTable:
        options, notes = self.options, []
        if self.marginal:
            notes.append("means over the random effects")
        if options.interval is not None:
            notes.append(intervals_at(options.level, options.interval))
        return ResultTable.of(predictions, tuple(notes), FORMER_PREDICTIONS)

    def _chunks(self, n: int, codes: Mapping[int, Codes]) -> Iterator[tuple[int, int]]:
        """Spans of rows, with everything prepared that their standard errors need."""
        size = self.options.chunk_size
        if not self.with_errors or (self.fixed_variance is not None and not self.marginal):
            yield from spans(n, size)
            return
        whole = max(size, self.variance.rows_at_once)
        for low, high in spans(n, whole):
            with one_blas_thread(self.fit.crossproducts.remainder.core_size):
                self.variance.prepare({t: own[low:high] for t, own in codes.items()})
            yield from spans(high, size, low)

    def _linear(self, rows: DesignRows) -> Matrix:
        eta: Matrix = rows.X @ self.fit.beta + rows.offset
        for t in self.terms:
            code = rows.codes[t]
            effects = np.einsum("ia,ia->i", rows.z[t], self.modes[t][code])
            eta += np.where(code == UNSEEN, 0.0, effects)
        return eta

    # --- answers -------------------------------------------------------------------------

    def _answers(self, rows: DesignRows, eta: Matrix) -> dict[str, Matrix]:
        """Estimates, standard errors and bounds of some rows."""
        if self.marginal:
            return self._population(rows, eta)
        if not self.with_errors:
            return {"estimate": self._shown(eta)}
        variance = self._variances(rows)
        if self.of_new:
            variance = variance + self._drawn(rows, self.redrawn)
            return self._new(rows, eta, variance, self._shown(eta))
        se = np.sqrt(variance)
        slope = np.ones_like(eta) if self.on_link else self.fit.family.link.derivative(eta)
        out = {"estimate": self._shown(eta), "std_error": np.abs(slope) * se}
        if self.options.interval is not None:
            half = self._quantile * se
            out |= self._bounds(self._shown(eta - half), self._shown(eta + half))
        return out

    @property
    def _quantile(self) -> float:
        return float(scipy.stats.norm.ppf(0.5 + self.options.level / 2.0))

    def _bounds(self, one: Matrix, other: Matrix) -> dict[str, Matrix]:
        # Some links fall.
        return dict(
            zip(BROOM_INTERVAL, (np.minimum(one, other), np.maximum(one, other)), strict=True)
        )

    def _shown(self, eta: Matrix) -> Matrix:
        return eta if self.on_link else means_at(self.fit.family, eta)

    def _variances(self, rows: DesignRows) -> Matrix:
        """Variance of the error of each linear predictor; effects of new levels are in it."""
        if self.fixed_variance is not None:
            return self.fixed_variance.variances(rows.X)
        with one_blas_thread(self.fit.crossproducts.remainder.core_size):
            variance = self.variance(rows)
        return np.asarray(variance + self._drawn(rows, self.terms, unseen=True))

    def _drawn(self, rows: DesignRows, terms: tuple[int, ...], unseen: bool = False) -> Matrix:
        """Variance of effects drawn anew: of these terms, or of their levels not seen."""
        out = np.zeros(len(rows.X))
        for t in terms:
            own = np.einsum("ia,ab,ib->i", rows.z[t], self.fit.G_blocks[t], rows.z[t])
            out += np.where(rows.codes[t] == UNSEEN, own, 0.0) if unseen else own
        return out

    def _new(
        self, rows: DesignRows, eta: Matrix, variance: Matrix, estimate: Matrix
    ) -> dict[str, Matrix]:
        """For a new response: quantiles of the family's distribution, eta being uncertain."""
        fit, tail = self.fit, 0.5 - self.options.level / 2.0
        new = NewResponses(fit.family, fit.search_phi, eta, np.sqrt(variance), rows.weights)
        low, high = new.quantiles(tail, 1.0 - tail)
        out = {"estimate": estimate, "std_error": new.standard_deviations()}
        return out | dict(zip(BROOM_INTERVAL, (low, high), strict=True))

    def _population(self, rows: DesignRows, eta: Matrix) -> dict[str, Matrix]:
        """Means over the random effects that are not conditioned on."""
        fit, link = self.fit, self.fit.family.link
        v = self._drawn(rows, self.averaged) + self._drawn(rows, self.terms, unseen=True)
        mean, by_eta, by_v = population_mean(fit.family, eta, v)
        if not self.with_errors:
            return {"estimate": mean}
        with one_blas_thread(fit.crossproducts.remainder.core_size):
            of_parameters, of_modes = self.variance.parts(rows)
        if self.of_new:
            total = np.einsum("ir,ir->i", of_parameters, of_parameters) + of_modes + v
            return self._new(rows, eta, total, mean)
        gradient = by_eta[:, None] * of_parameters
        for t in self.columns:
            moved = by_v[:, None] * self.variance.variance_directions(t, rows.z[t])
            if t in self.terms:
                moved[rows.codes[t] != UNSEEN] = 0.0
            gradient += moved
        se = np.sqrt(np.einsum("ir,ir->i", gradient, gradient) + by_eta**2 * of_modes)
        if self.fixed_variance is not None:
            se[self.fixed_variance.hides(rows.X)] = np.nan
        out = {"estimate": mean, "std_error": se}
        if self.options.interval is not None:
            at = np.asarray(link.link(mean))
            half = self._quantile * se / np.abs(link.derivative(at))
            out |= self._bounds(self._shown(at - half), self._shown(at + half))
        return out
