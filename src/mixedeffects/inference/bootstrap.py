"""The parametric bootstrap: draw responses from the fit, fit each again, look at the estimates.

A refit needs the cross-products alone. Those of the design are made once; for a batch of responses
only the products with the responses are new.
"""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from copy import copy
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import NDArray

from mixedeffects.base.arrays import number_array
from mixedeffects.base.options import checked_choice, checked_level, entropy_of
from mixedeffects.base.sealed import Sealed
from mixedeffects.base.workers import (
    Workers,
    at_a_time,
    check_sendable,
    processors,
    shares_memory,
    without_warnings,
)
from mixedeffects.covariance.sizes import refuse_beyond_memory
from mixedeffects.display.parameter_table import parameter_table
from mixedeffects.display.result_table import ResultTable, interval_table
from mixedeffects.engine.factorisation import Factorisation
from mixedeffects.engine.finding import find_optimum, optimal_factors
from mixedeffects.engine.objective import deviance
from mixedeffects.engine.optimum import has_null_directions
from mixedeffects.engine.residual_search import find_residual_optimum
from mixedeffects.engine.responses import Responses
from mixedeffects.engine.search import is_single_term
from mixedeffects.engine.threads import one_blas_thread
from mixedeffects.errors import ConvergenceWarning, ModelError
from mixedeffects.fitting.assembly import covariance_structures, responses_of
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.natural import (
    covariance_parameters,
    estimated_parameters,
    natural_parameters,
    reported_parameters,
)
from mixedeffects.fitting.parameter_keys import distinct, parameter_keys
from mixedeffects.fitting.refitting import fit_again
from mixedeffects.fitting.representative import with_all_rows
from mixedeffects.fitting.residual_fitting import fit_residual_response, residual_start
from mixedeffects.inference.satterthwaite import satterthwaite_of
from mixedeffects.progress import Listener, ProgressOption, Repetitions, interrupted
from mixedeffects.simulation.responses import ResponseSampler, Sampler, checked_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mixedeffects.engine.crossproducts import CrossProducts

__all__ = ["INTERVAL_KINDS", "Bootstrap", "Statistic", "bootstrap", "checked_statistic"]

Matrix = NDArray[np.float64]
Statistic = Callable[[Fit], Any]
#: Numbers wanted of a refit and facts about it; None if there is no optimum.
_Refitted = tuple[Matrix, Matrix] | None
_Task = Callable[[int], tuple[Any, Matrix]]

INTERVAL_KINDS = ("percentile", "shortest", "basic", "normal")

#: Responses made at once, if their memory in bytes allows it. Always so many, wanted or not:
#: rounding depends on it, and draws must not depend on how many are asked for.
_BATCH = 64
_BATCH_BYTES = 32e6
#: Seconds of work that are lost at most when interrupted, if a refit takes less.
_CHUNK_SECONDS = 0.5
#: Random effects of one term up to which a refit, all of it in the kernels, is too short for
#: threads to gain anything.
_SMALL = 500
#: Rows of the dense core from which refits beside each other would take too much memory.
_LARGE_CORE = 1_000


def bootstrap(
    fit: Fit,
    n: int,
    seed: Any,
    re: Any,
    statistic: Statistic | None,
    workers: Workers,
    progress: Any,
) -> Bootstrap:
    """See `LinearMixedModel.bootstrap`."""
    checked_statistic(statistic)
    count = checked_count(n, "n, the number of refits,")
    fit = with_all_rows(fit)
    return Bootstrap(fit, entropy_of(seed), re, statistic).resume(count, workers, progress)


def checked_statistic(statistic: Any) -> None:
    """A function, or None.

    Raises
    ------
    ModelError
        If it is something else.
    """
    if statistic is not None and not callable(statistic):
        raise ModelError(
            "statistic must be a function of a fitted model that returns numbers, not "
            f"{statistic!r:.60}."
        )


class Bootstrap(Sealed):
    """Estimates from refits to responses drawn from the model.

    Made by `LinearMixedModel.bootstrap`.

    Attributes
    ----------
    seed : int
        Draw i depends on it and on i alone: the same seed gives the same draws.
    wanted : int
        Number of refits asked for. Fewer are done if it was interrupted: then there are no
        intervals until ``resume()`` has done the rest, or ``resume(n)`` settles for n.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> boot = m.bootstrap(200, seed=1)
    >>> boot.draws.shape
    (200, 6)
    >>> longer = boot.resume(300)  # 100 more
    >>> longer.draws.head(200).equals(boot.draws.head(200))
    True
    """

    def __init__(self, fit: Fit, seed: int, re: Any, statistic: Statistic | None) -> None:
        self.seed = seed
        self.wanted = 0
        self._fit = fit
        self._re = re
        self._statistic = statistic
        self._sampler = self._new_sampler(fit, seed, re)
        if statistic is None:
            own = estimated_parameters(fit)
            names = parameter_keys(list(own.index), fit.frame.fixef_names)
            values = np.append(own.to_numpy(), fit.beta)
        else:
            names, values = _named_numbers(statistic(fit))
        # What a refit returns: factors whole, so that all draws are converted together.
        squares = sum(k * k for k in fit.crossproducts.term_columns)
        self._structured = self._gives_parameters(fit)
        fixed = len(fit.frame.fixef_names)
        self._width = len(values) if statistic or self._structured else squares + 1 + fixed
        self._estimates = pd.Series(values, index=names, name="Estimate")
        self._draws = np.empty((0, len(names)))
        # Criterion, whether singular, whether converged; one row a refit.
        self._fits = np.empty((0, 3))

    @staticmethod
    def _new_sampler(fit: Fit, seed: int, re: Any) -> Sampler:
        """What draws the responses."""
        return ResponseSampler(fit, seed, re)

    @staticmethod
    def _gives_parameters(fit: Fit) -> bool:
        """Whether a refit returns parameters as they are reported, and not factors."""
        return bool(fit.frame.structured_terms) or fit.residual is not None

    @classmethod
    def _attributes_now(cls, stored: dict[str, Any]) -> dict[str, Any]:
        stored = dict(stored)
        if "_model" in stored:
            stored["_fit"] = stored.pop("_model").fit
        return stored

    # --- doing the work ------------------------------------------------------------------

    def resume(
        self, n: int | None = None, workers: Workers = None, progress: ProgressOption = None
    ) -> Bootstrap:
        """Go on until there are n refits; nothing is done twice.

        Ctrl-C raises `Interrupted`, whose ``partial`` is this object with what is done.

        Parameters
        ----------
        n : int, optional
            Number of refits in all; by default the number asked for last.
        workers : int or Executor, optional
            Refits at a time, in threads; by default the number of processors, or one if a refit
            needs much memory. Or an executor of `concurrent.futures`, whose processes may be on
            other machines. The draws do not depend on it.
        progress : bool, callable or None
            True shows count, rate and time left on standard error; a callable gets `Repetitions`;
            None shows them after some seconds on a terminal or in a notebook.

        Returns
        -------
        Bootstrap
            This object.

        Raises
        ------
        ModelError
            If an argument is not what it should be.
        Interrupted
            On Ctrl-C.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> len(m.bootstrap(50, seed=1).resume(80).draws)
        80
        """
        if n is not None:
            self.wanted = checked_count(n, "n, the number of refits,")
        beside = at_a_time(self._usual_workers() if workers is None else workers, "refits")
        given = workers if isinstance(workers, Executor) else None
        if given is not None and not shares_memory(given) and self._statistic is not None:
            check_sendable(self._statistic, "statistic")
        refuse_beyond_memory(
            24.0 * self.wanted * (self._draws.shape[1] + 3),
            f"The estimates of {self.wanted:,} refits",
            "Ask for fewer.",
        )
        listener = Listener(progress)
        began, before = time.perf_counter(), len(self._draws)

        def report() -> None:
            done, seconds = len(self._draws), time.perf_counter() - began
            line = Repetitions("refit", done, self.wanted, seconds, before)
            listener.tell(line, last=done == self.wanted)

        try:
            with (
                one_blas_thread(),
                ThreadPoolExecutor(beside) if given is None else nullcontext(given) as pool,
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("ignore", ConvergenceWarning)
                while len(self._draws) < self.wanted:
                    self._work_on_batch(pool, beside, report)
        except KeyboardInterrupt:
            raise interrupted("refit", len(self._draws), self.wanted, self) from None
        finally:
            listener.close()
        return self

    def _usual_workers(self) -> int:
        """Refits at a time where that is not said."""
        A = self._fit.crossproducts
        long = self._fit.residual is None and (A.q > _SMALL or not is_single_term(A))
        beside = long and A.remainder.core_size <= _LARGE_CORE and not self._statistic
        return processors() if beside else 1

    def _prepared(self, Y: Matrix) -> Responses | None:
        """Cross-products with a batch of responses, where refits are made of these."""
        return None if self._fit.residual is not None else responses_of(self._fit, Y)

    def _work_on_batch(self, pool: Executor, workers: int, report: Callable[[], None]) -> None:
        """Do the next refits, up to the end of their batch, a chunk at a time."""
        fit = self._fit
        size = max(1, min(_BATCH, int(_BATCH_BYTES / (8.0 * len(fit.frame.y)))))
        start = len(self._draws) // size * size
        Y = self._sampler.draw(start, start + size)
        responses = self._prepared(Y)
        end = min(start + size, self.wanted)
        chunk = min(workers, size)
        while (first := len(self._draws)) < end:
            began = time.perf_counter()
            numbers = range(first - start, min(first + chunk, end) - start)
            draws = np.full((len(numbers), self._width), np.nan)
            fits = np.tile([np.nan, 0.0, 0.0], (len(numbers), 1))

            def task(i: int, numbers: range = numbers) -> tuple[CrossProducts | None, Matrix]:
                j = numbers[i]
                return (None if responses is None else responses.crossproducts(j)), Y[:, j]

            def refit(some: range, task: _Task = task) -> list[_Refitted]:
                return [self._refit(*task(i)) for i in some]

            beside = min(workers, len(numbers))
            shares = [range(w, len(numbers), beside) for w in range(beside)]
            if shares_memory(pool):
                found = map(refit, shares) if beside == 1 else pool.map(refit, shares)
            else:
                tasks = [[task(i) for i in some] for some in shares]
                found = pool.map(_refits_elsewhere, [self._without_draws()] * beside, tasks)
            for some, refits in zip(shares, found, strict=True):
                for i, done in zip(some, refits, strict=True):
                    if done is not None:
                        draws[i], fits[i] = done
            if self._statistic is None and not self._structured:
                draws = _parameters(draws, fit.crossproducts.term_columns)
            self._draws = np.vstack([self._draws, draws])
            self._fits = np.vstack([self._fits, fits])
            report()
            share = _CHUNK_SECONDS / max(time.perf_counter() - began, 1e-9)
            chunk = max(min(workers, size), int(chunk * min(share, 8.0)))

    def _without_draws(self) -> Bootstrap:
        """What another process needs to know of this."""
        out = copy(self)
        out._draws, out._fits = self._draws[:0], self._fits[:0]
        del out._sampler
        return out

    def _refit(self, A: CrossProducts | None, y: Matrix) -> _Refitted:
        """Numbers wanted and facts about one refit; None if there is no optimum.

        Cross-products there are none where residuals have a structure: these change in a search.
        """
        try:
            if self._statistic is None and A is None:
                return _fit_residual(y, self._fit)
            if self._statistic is None and A is not None:
                refit_one = _fit_structured if self._structured else _fit_one
                return refit_one(A, self._fit)
            frame = dataclasses.replace(self._fit.frame, y=y)
            again = (
                fit_again(self._fit, frame, A, self._fit.optimum.restart)
                if A is not None
                else fit_residual_response(self._fit, frame)
            )
        except (ArithmeticError, ModelError, np.linalg.LinAlgError):
            # No residual variance left, for instance.
            return None
        facts = np.array([again.criterion, again.optimum.singular, again.optimum.converged])
        return self._evaluate(again), facts

    def _evaluate(self, again: Fit) -> Matrix:
        """The user's statistic of one refit."""
        assert self._statistic is not None
        names, values = _named_numbers(self._statistic(again))
        if names != list(self._estimates.index):
            raise ModelError(
                "statistic must return the same names for every fit; it returned "
                f"{names[:6]} for a refit and {list(self._estimates.index)[:6]} for the fit."
            )
        return values

    # --- looking at it -------------------------------------------------------------------

    @property
    def estimates(self) -> pd.Series:
        """Estimates of the fit itself, or its statistic; a Series."""
        return self._estimates

    @property
    def draws(self) -> pd.DataFrame:
        """Estimates of each refit, one row each: standard deviations, correlations, fixed effects.

        Row i is the refit to column i of ``simulate`` with the same seed. A correlation beside a
        zero standard deviation is NaN, and so is everything of a refit that failed.
        """
        return pd.DataFrame(self._draws, columns=list(self._estimates.index))

    @property
    def criterion(self) -> pd.Series:
        """REML criterion, or -2 log-likelihood, of each refit; a Series."""
        return pd.Series(self._fits[:, 0], name="criterion")

    @property
    def n_singular(self) -> int:
        """Number of refits that are singular."""
        return int(self._fits[:, 1].sum())

    @property
    def n_failed(self) -> int:
        """Number of refits without an optimum."""
        return int(np.isnan(self._fits[:, 0]).sum())

    @property
    def n_not_converged(self) -> int:
        """Number of refits that did not converge; their estimates are among the draws."""
        return len(self._fits) - int(self._fits[:, 2].sum()) - self.n_failed

    def to_frame(self) -> pd.DataFrame:
        """Estimate, bias and standard error by the bootstrap of each parameter.

        Returns
        -------
        DataFrame, one row per parameter
            Columns ``Estimate``, ``Bias`` (mean of the draws less the estimate), ``Std. Error``
            (their standard deviation) and ``n``, how many draws have a value.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> list(m.bootstrap(50, seed=1).to_frame())
        ['Estimate', 'Bias', 'Std. Error', 'n']
        """
        draws = self.draws
        return ResultTable(
            {
                "Estimate": self._estimates,
                "Bias": draws.mean() - self._estimates,
                "Std. Error": draws.std(),
                "n": draws.notna().sum(),
            }
        )

    def confint(self, level: float = 0.95, kind: str = "percentile") -> ResultTable:
        """Confidence intervals from the draws.

        Parameters
        ----------
        level : float
            Confidence level.
        kind : {"percentile", "shortest", "basic", "normal"}
            ``percentile``: quantiles of the draws; ``shortest``: the shortest interval that holds
            ``level`` of the draws; ``basic``: the percentiles mirrored at the estimate;
            ``normal``: estimate less bias, plus and minus normal quantiles times the standard
            error.

        Returns
        -------
        DataFrame, one row per parameter
            Columns ``lower`` and ``upper``; NaN for parameters that the data do not determine,
            and coefficients that are relative to them.

        Raises
        ------
        ModelError
            If the level or the kind is not what it should be, or refits that were asked for are
            not done.

        References
        ----------
        Davison, A. C. and Hinkley, D. V. (1997). Bootstrap Methods and their Application, chapter
        5. Cambridge University Press.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> m.bootstrap(200, seed=1).confint().round(0).loc["(Intercept)"].tolist()
        [1489.0, 1566.0]
        """
        kind = checked_choice(kind, "Interval kind", INTERVAL_KINDS)
        level = checked_level(level)
        done = len(self._draws)
        if done < self.wanted:
            raise ModelError(
                f"{done:,} of {self.wanted:,} refits are done, and half the draws are not the "
                f"whole: resume() does the others, resume({done}) settles for these."
            )
        rows = [
            _interval(self._draws[:, i], estimate, level, kind)
            for i, estimate in enumerate(self._estimates.tolist())
        ]
        table = interval_table(rows, self._estimates.index, level, f"bootstrap ({kind})")
        undetermined = self._fit.optimum.undetermined
        if undetermined and self._statistic is None:
            # Every refit starts from the same values there and stays.
            own = [name in undetermined for name in covariance_parameters(self._fit).index]
            fixed = len(self._fit.frame.fixef_names)
            depends = satterthwaite_of(self._fit).depends(np.eye(fixed))
            table[np.append(own, depends).astype(np.bool_)] = np.nan
        return table

    def plot(
        self, parameters: Any = None, level: float = 0.95, ax: Any = None
    ) -> Axes | NDArray[Any]:
        """Histogram of the draws of each parameter, with estimate and percentile interval.

        Parameters
        ----------
        parameters : str or list of str, optional
            Which; by default all.
        level : float
            Of the interval shown.
        ax : matplotlib.axes.Axes or sequence of them, optional
            Where to draw, one for each parameter; by default a new figure.

        Returns
        -------
        matplotlib.axes.Axes or ndarray of Axes, with their figure as ``.figure``
            One Axes for one parameter.

        Raises
        ------
        ModelError
            If a parameter is not known, or the number of axes does not match.
        ImportError
            If matplotlib is not installed.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> m.bootstrap(50, seed=1).plot("sigma").get_xlabel()
        'sigma'
        """
        from mixedeffects.inference.bootstrap_plot import draw_bootstrap

        return draw_bootstrap(
            self.draws, self.estimates, self.confint(level), level, parameters, ax
        )

    def _lines(self) -> list[str]:
        done, of = len(self._draws), self.wanted
        refits = f"{done:,}" if done >= of else f"{done:,} of {of:,}"
        what = {None: "all random effects drawn anew", "all": "random effects held"}.get(
            self._re if self._re is None or isinstance(self._re, str) else "",
            f"random effects of {self._re} held",
        )
        lines = [f"Parametric bootstrap: {refits} refits, {what}, seed {self.seed}"]
        counts = [
            (self.n_singular, "singular"),
            (self.n_not_converged, "not converged"),
            (self.n_failed, "without an optimum"),
        ]
        said = [f"{count:,} {how}" for count, how in counts if count]
        return lines + ([", ".join(said)] if said else [])

    def _table(self) -> Any:
        table = self.to_frame().drop(columns="n")
        if 1 < len(self._draws) >= self.wanted:
            table = table.join(self.confint())
        return parameter_table(table, digits=3, scale="Std. Error")

    def __repr__(self) -> str:
        return "\n".join([*self._lines(), "", str(self._table())])

    def _repr_html_(self) -> str:
        head = "".join(f"<p>{escape(line)}</p>" for line in self._lines())
        return head + str(self._table()._repr_html_())


def _refits_elsewhere(
    of: Bootstrap, tasks: Sequence[tuple[CrossProducts | None, Matrix]]
) -> list[_Refitted]:
    """Refits in another process."""
    with one_blas_thread(), without_warnings(ConvergenceWarning):
        return [of._refit(A, y) for A, y in tasks]


def _fit_one(A: CrossProducts, fit: Fit) -> tuple[Matrix, Matrix]:
    """Factors, sigma and fixed effects, and facts, of the fit to one response."""
    optimum = fit.optimum
    T, converged = optimal_factors(A, fit.reml, optimum.restart, optimum.has_rivals)
    factorisation = Factorisation(A, T)
    df = A.n - A.p if fit.reml else A.n
    basis = A.basis
    sigma = basis.sigma(math.sqrt(factorisation.rho2 / df))
    criterion = deviance(factorisation, fit.reml) + basis.deviance_offset(A.n, A.p, fit.reml)
    factors = [
        (C @ each).ravel() / math.sqrt(basis.weight_scale)
        for C, each in zip(basis.terms, T, strict=True)
    ]
    values = np.concatenate([*factors, [sigma], basis.beta(factorisation.solution.beta)])
    return values, np.array([criterion, has_null_directions(T), converged])


def _fit_structured(A: CrossProducts, fit: Fit) -> tuple[Matrix, Matrix]:
    """Parameters as they are reported, and facts, of the fit to one response."""
    terms, basis = fit.frame.terms, A.basis
    structures = covariance_structures(terms)
    optimum = find_optimum(A, fit.reml, start=fit.optimum.restart, structures=structures)
    evaluation = optimum.evaluation
    sigma = basis.sigma(math.sqrt(evaluation.sigma2))
    T = [basis.relative_factor(t, factor) for t, factor in enumerate(optimum.T)]
    own = reported_parameters(terms, T, sigma, optimum)
    beta = basis.beta(evaluation.factorisation.solution.beta)
    criterion = evaluation.deviance + basis.deviance_offset(A.n, A.p, fit.reml)
    facts = np.array([criterion, optimum.singular, optimum.converged])
    return np.append(own.to_numpy(), beta), facts


def _fit_residual(y: Matrix, fit: Fit) -> tuple[Matrix, Matrix]:
    """The same where residuals have a structure."""
    frame = fit.frame
    assert fit.residual is not None
    rows = fit.residual.design.with_response(y if frame.offset is None else y - frame.offset)
    optimum = find_residual_optimum(
        rows,
        fit.reml,
        start=residual_start(fit),
        control=fit.request.control,
        structures=covariance_structures(frame.terms),
    )
    again = Fit(frame, optimum.evaluation.A, optimum, fit.reml, fit.request)
    facts = np.array([again.criterion, optimum.singular, optimum.converged])
    return np.append(covariance_parameters(again).to_numpy(), again.beta), facts


def _parameters(values: Matrix, sizes: Sequence[int]) -> Matrix:
    """Rows of what `_fit_one` returns as the parameters of `Bootstrap.draws`."""
    ends = np.cumsum([k * k for k in sizes])
    factors = [
        values[:, end - k * k : end].reshape(-1, k, k) for k, end in zip(sizes, ends, strict=True)
    ]
    own = int(ends[-1])
    return np.hstack([natural_parameters(factors, values[:, own]), values[:, own + 1 :]])


def _named_numbers(value: Any) -> tuple[list[str], Matrix]:
    """What a statistic returned, as names and numbers."""
    if isinstance(value, dict):
        value = pd.Series(value)
    names = None
    if isinstance(value, pd.Series):
        names = distinct([str(label) for label in value.index])
    wanted = "statistic must return a number, an array, a Series or a dict of numbers"
    numbers = number_array(value, wanted, ModelError).reshape(-1)
    if names is None:
        one = len(numbers) == 1
        names = ["statistic"] if one else [f"statistic_{i + 1}" for i in range(len(numbers))]
    return names, numbers


def _interval(draws: Matrix, estimate: float, level: float, kind: str) -> tuple[float, float]:
    values = np.sort(draws[~np.isnan(draws)])
    if len(values) < 2:
        return float("nan"), float("nan")
    tail = (1.0 - level) / 2.0
    if kind == "normal":
        half = float(scipy.stats.norm.isf(tail)) * float(values.std(ddof=1))
        center = 2.0 * estimate - float(values.mean())
        return center - half, center + half
    if kind == "shortest":
        inside = min(len(values), int(np.ceil(level * len(values))))
        lengths = values[inside - 1 :] - values[: len(values) - inside + 1]
        start = int(np.argmin(lengths))
        return float(values[start]), float(values[start + inside - 1])
    low, high = np.quantile(values, [tail, 1.0 - tail])
    if kind == "basic":
        return 2.0 * estimate - float(high), 2.0 * estimate - float(low)
    return float(low), float(high)
