"""Power by simulation: draw responses from a model, test each, count."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import NDArray

from mixedeffects.base.default_ddf import ddf_of_the_fit
from mixedeffects.base.habits import explained
from mixedeffects.base.options import (
    checked_choice,
    checked_level,
    checked_names,
    entropy_of,
    is_listed,
)
from mixedeffects.base.workers import Ahead, Workers, at_a_time, without_warnings
from mixedeffects.covariance.sizes import refuse_beyond_memory
from mixedeffects.display.lettering import short
from mixedeffects.display.result_table import ResultTable
from mixedeffects.errors import ConvergenceWarning, ModelError
from mixedeffects.fitting.fit import Fit, HoldsFit, fit_of
from mixedeffects.fitting.fitting import fit_formula
from mixedeffects.fitting.generalized import generalized
from mixedeffects.fitting.generalized.start import read_phi
from mixedeffects.fitting.parameter_keys import as_written
from mixedeffects.fitting.refitting import UNCHANGED, refit
from mixedeffects.formula.update import update_formula
from mixedeffects.frame.variables import data_columns
from mixedeffects.inference.contrast_likelihood_ratio import contrast_likelihood_ratio
from mixedeffects.inference.contrasts import coefficient_position, contrast_matrix, listed_names
from mixedeffects.inference.variance_by_name import fixed_effects_variance
from mixedeffects.inference.wald import wald_test
from mixedeffects.prediction.designs import (
    checked_variables,
    grouping_variables,
    is_nested,
    with_levels,
    with_rows_within,
)
from mixedeffects.prediction.drawn_covariance import (
    DrawnCovariance,
    GroupsOfRows,
    known_covariance,
)
from mixedeffects.prediction.planned_responses import (
    DrawnFromFamily,
    PlannedResponses,
    fixed_mean,
)
from mixedeffects.progress import ProgressOption, Unfinished
from mixedeffects.simulation.responses import checked_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Power", "power"]

Matrix = NDArray[np.float64]
#: A p-value, and what went wrong where there is none.
_PValue = tuple[float, Exception | None]

#: Responses drawn at once.
_CHUNK = 64
_RESPONSE = "simulated_response"
_WEIGHTS = "prior_weights"
#: Columns that a plan has besides those of the data.
_MADE = (_RESPONSE, _WEIGHTS, "simulated_trials")


@dataclass(frozen=True, eq=False)
class Power:
    """Power of a test in designs of several sizes, made by `power`.

    Attributes
    ----------
    test : str
        What was tested, and how.
    along : str
        What n counts.
    alpha : float
        Level of the test.
    seed : int
        For the same draws again.
    table : DataFrame
        One row per design: ``n``, ``rows``, ``draws``, ``significant``, ``failed`` (draws without a
        fit, counted as not significant), ``power``, and the 95 % bounds ``lower`` and ``upper`` of
        the simulation's own error (Clopper and Pearson's).
    """

    test: str
    along: str
    alpha: float
    seed: int
    table: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """The table, a DataFrame with one row per design."""
        return self.table.copy()

    def plot(self, ax: Any = None) -> Axes:
        """Power against size, with the bounds of the simulation's error.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default a new figure.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        from mixedeffects.prediction.power_plot import draw_power

        title = f"{short(self.test, 60)}, level {self.alpha:g}"
        return draw_power(self.table, self.along, title, ax)

    def _heading(self) -> str:
        return f"Power of {self.test} at level {self.alpha:g}, by {self.along}; seed {self.seed}"

    def _shown(self) -> pd.DataFrame:
        shown = self.table.copy()
        if not shown["failed"].any():
            shown = shown.drop(columns="failed")
        return shown.drop(columns="significant")

    def __repr__(self) -> str:
        text = self._shown().to_string(index=False, float_format=lambda value: f"{value:.3f}")
        return f"{self._heading()}\n{text}"

    def _repr_html_(self) -> str:
        table = self._shown().to_html(index=False, float_format=lambda value: f"{value:.3f}")
        return f"<p>{escape(self._heading())}</p>{table}"


@explained
@ddf_of_the_fit
def power(
    model: HoldsFit,
    test: Any,
    n: Any = None,
    *,
    along: str | None = None,
    within: str | Sequence[str] | None = None,
    effects: dict[str, float] | None = None,
    varcorr: Any = None,
    sigma: float | None = None,
    R: Any = None,
    residual: Any = UNCHANGED,
    variance: Any = UNCHANGED,
    phi: float | None = None,
    draws: int = 1000,
    alpha: float = 0.05,
    ddf: str = "satterthwaite",
    vcov: str = "model",
    cluster: Any = None,
    seed: Any = None,
    progress: ProgressOption = None,
    statistic: Literal["wald", "likelihood-ratio"] = "wald",
    workers: Workers = None,
) -> Power:
    """Power of a test of fixed effects by simulation, in this design or in larger ones.

    Responses are drawn with the model's estimates, or the values given, in the design as it is or
    changed; the model is fitted to each and the hypothesis tested.

    Parameters
    ----------
    model : LinearMixedModel or GeneralizedLinearMixedModel
        A fit: to pilot data, or to any response in a planned design if all values are given.
    test : str, list of str, array or DataFrame
        What is tested, as for `LinearMixedModel.wald`.
    n : int or sequence of int, optional
        Sizes of the design; by default the one it has.
    along : str, optional
        n counts the levels of this grouping variable. The design is repeated along it: the rows of
        its levels are used in order of appearance, treatments in turn so that their shares stay,
        and again under new names when they run out. Levels nested in them get new names too;
        what is crossed with them, and every variable of the fixed part, stays as it is. By default
        the variable of the outermost grouping factor that is not in the fixed part, such as g of
        ``(1 | g:f)`` with a fixed factor f, unless ``within`` is given.
    within : str or list of str, optional
        n counts the rows in every combination of these variables instead; rows are used again in
        turn.
    effects : dict of str to float, optional
        Fixed effects in place of the estimates, those that differ: the smallest effects of
        interest. Estimates from a pilot study that were singled out for their size are too large.
    varcorr, sigma : optional
        Variances in place of the estimates, as ``G`` and ``sigma`` of `marginal_covariance`.
    R : dict of str to float, Series or ResidualCovariance, optional
        Parameters of the model's ``residual`` and ``variance`` in place of the estimates, those
        that differ, by the names in ``m.R.parameters``: ``{"cor": 0.5}``.
    residual, variance : str or None, optional
        Draw errors of another structure than the model has, whose parameters ``R`` gives; the model
        is fitted as it is. So one sees what a wrong structure costs, or a test that holds with any.
        None draws independent errors, of one variance. Generalized models have none of ``sigma``,
        ``R`` and these.
    phi : float, optional
        Parameter of the family in place of the estimate, where the family of a generalized model
        has one: theta, precision or dispersion.
    draws : int
        Number of draws for each design.
    alpha : float
        Level of the test.
    ddf, vcov, cluster
        As for `LinearMixedModel.wald`; the tests of a generalized model are chi-square tests, as of
        `GeneralizedLinearMixedModel.wald`.
    seed : int, Generator or None
        The same seed gives the same draws.
    progress : bool, callable or None
        True shows count, rate and time left on standard error; a callable gets each `Repetitions`;
        None shows them after some seconds on a terminal or in a notebook.
    statistic : {"wald", "likelihood-ratio"}
        Of a generalized model also the likelihood ratio of each fit with the same model under the
        hypothesis, by the same approximation.
    workers : int or Executor, optional
        Draws are tested in so many threads, 64 by 64, or by an executor of `concurrent.futures`,
        such as a ``ProcessPoolExecutor`` or Dask's ``client.get_executor()``. The numbers do not
        depend on it. By default one after another.

    Returns
    -------
    Power
        With ``table`` and ``plot()``.

    Raises
    ------
    ModelError
        If an argument is not what it should be.
    Interrupted
        On Ctrl-C, with the draws that are tested.

    Notes
    -----
    A response of a generalized model has the trials, weights and offset of the row of the data that
    it is a copy of, and the refits are by the approximation of the fit, from the values drawn with.
    A response without finite estimates, such as one with separation, is a draw that failed.

    References
    ----------
    Green, P. and MacLeod, C. J. (2016). SIMR: an R package for power analysis of generalized linear
    mixed models by simulation. Methods in Ecology and Evolution 7, 493-498.

    Examples
    --------
    Would six subjects have been enough for a slope half as large as the one found?

    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> p = me.power(m, "Days", n=[6, 18], effects={"Days": 5}, draws=100, seed=1)
    >>> p.table["power"].tolist()
    [0.3, 0.91]

    A planned trial: any response will do for the fit, if all values are given. The errors of a
    patient are correlated from visit to visit.

    >>> import numpy as np
    >>> import pandas as pd
    >>> plan = pd.DataFrame({"id": np.repeat(np.arange(20), 4), "visit": np.tile(range(4), 20)})
    >>> plan["arm"] = plan["id"] % 2
    >>> plan["y"] = np.random.default_rng(1).standard_normal(len(plan))
    >>> pilot = me.lmer("y ~ visit * arm", plan, residual="ar1(visit | id)")
    >>> p = me.power(
    ...     pilot, "visit:arm", n=[20, 60], effects={"visit:arm": 0.3}, R={"cor": 0.7}, sigma=1,
    ...     draws=50, seed=1,
    ... )
    >>> p.table["power"].tolist()
    [0.36, 0.82]

    Herds for a fall of the odds of a disease to a third, from the first period to the second:

    >>> cbpp = me.load_dataset("cbpp")
    >>> m = me.glmer(
    ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
    ... )
    >>> p = me.power(
    ...     m, ["period2"], n=[8, 24], effects={"period2": -np.log(3)}, draws=50, seed=1
    ... )
    >>> p.table["power"].tolist()
    [0.74, 1.0]
    """
    fit = fit_of(model, "The first argument", any_kind=True)
    alpha = checked_level(alpha, "alpha", 0.05)
    draws = checked_count(draws, "draws, the number of draws for each design,")
    entropy = entropy_of(seed)
    beta = _effects(fit, effects)
    contrast_matrix(fit.frame, test)
    # Asks of the names what a refit would be asked, before any work is done.
    fixed_effects_variance(fit, vcov, ddf, cluster)
    given = {"sigma": sigma, "R": R, "residual": residual, "variance": variance, "phi": phi}
    by_ratio = _by_likelihood_ratio(fit, statistic, vcov, cluster)
    drawn_from, simulated_tests, kind_of_test = _STUDIES[fit.kind](fit, varcorr, given)
    designs, counted = _designs(drawn_from, n, along, within)
    refuse_beyond_memory(
        16.0 * draws * len(designs), f"The p-values of {draws:,} draws", "Ask for fewer."
    )
    p_of = _TestOfDraw(test, ddf, vcov, kind_of_test, cluster, by_ratio)
    plans = [
        (simulated_tests, drawn_from, data, beta, (entropy, number), p_of)
        for number, (_, data) in enumerate(designs)
    ]
    p_value = _p_values(plans, draws, workers)
    failed = [0] * len(designs)
    errors: list[Exception | None] = [None] * len(designs)

    def step(number: int) -> float:
        design, draw = divmod(number, draws)
        p, problem = p_value(design, draw)
        failed[design] += bool(np.isnan(p))
        errors[design] = problem or errors[design]
        if draw == draws - 1 and failed[design] == draws:
            error = errors[design]
            raise ModelError(
                f"With {designs[design][0]} {counted} not one of {draws} draws could be fitted "
                f"and tested. {error}"
            ) from error
        return p

    def finish(p_values: list[float]) -> Power:
        rows = []
        for (size, data), p in zip(designs, np.reshape(p_values, (-1, draws)), strict=True):
            significant, failed = int((p < alpha).sum()), int(np.isnan(p).sum())
            low, high = _clopper_pearson(significant, draws)
            share = significant / draws
            rows.append((size, len(data), draws, significant, failed, share, low, high))
        columns = ["n", "rows", "draws", "significant", "failed", "power", "lower", "upper"]
        what = test if isinstance(test, str) else "the hypothesis"
        normal = "Wald's chi-square" if not fit.has_degrees_of_freedom else ddf
        how = f"{vcov}" if vcov != "model" else normal
        if by_ratio:
            how = "likelihood ratio"
        table = ResultTable(rows, columns=columns)
        return Power(f"{what} ({how})", counted, float(alpha), entropy, table)

    return Unfinished("simulated test", draws * len(designs), step, finish).resume(progress)


def _by_likelihood_ratio(fit: Fit, statistic: Any, vcov: Any, cluster: Any) -> bool:
    """Whether tests are likelihood ratios; ModelError if they cannot be."""
    if checked_choice(statistic, "statistic", ["wald", "likelihood-ratio"]) == "wald":
        return False
    if fit.kind != "generalized":
        raise ModelError(
            "statistic='likelihood-ratio' is for generalized models; tests of a linear one use "
            "degrees of freedom, which are better with few groups: leave it out."
        )
    if vcov != "model" or cluster is not None:
        raise ModelError(
            "vcov= and cluster= are for Wald tests: a likelihood ratio uses no standard errors."
        )
    return True


@dataclass(frozen=True)
class _TestOfDraw:
    """The test of the fit to one draw."""

    test: Any
    ddf: str
    vcov: str
    kind: Any
    cluster: Any
    by_ratio: bool

    def __call__(self, drawn: Fit) -> float:
        if self.by_ratio:
            return float(contrast_likelihood_ratio(generalized(drawn), self.test)[2])
        return float(wald_test(drawn, self.test, self.ddf, self.vcov, self.kind, self.cluster).p)


def _p_values(
    plans: Sequence[tuple[Any, ...]], draws: int, workers: Workers
) -> Callable[[int, int], _PValue]:
    """What gives the p-value of a draw in a design, and why there is none: here or by workers."""
    if workers is None:
        simulated = [make(*own) for make, *own, _ in plans]
        return lambda design, draw: simulated[design].p_value(draw, plans[design][-1])
    beside = at_a_time(workers, "sets of tests")
    chunks = range(0, draws, _CHUNK)
    tasks = [(plan, first, min(first + _CHUNK, draws)) for plan in plans for first in chunks]
    ahead = Ahead(workers, beside, _tests_of_chunk, tasks)

    def found(design: int, draw: int) -> _PValue:
        chunk, j = divmod(draw, _CHUNK)
        return ahead.result(design * len(chunks) + chunk)[j]

    return found


def _tests_of_chunk(plan: tuple[Any, ...], first: int, last: int) -> list[_PValue]:
    """Tests of some draws, wherever they are done."""
    make, *own, test = plan
    simulated: _SimulatedTests = make(*own)
    return [simulated.p_value(draw, test) for draw in range(first, last)]


class _SimulatedTests:
    """Responses drawn in one design, each fitted and tested.

    Parameters
    ----------
    draws : callable
        From a number and a generator to so many responses, shape (n, number).
    fitting : callable
        Makes what fits a response. It is made anew for every so many draws, so that what the fit
        to one response owes to those before does not depend on who does them.
    seed : tuple of int
        Entropy, and number of the design.
    """

    def __init__(
        self,
        draws: Callable[[int, np.random.Generator], Matrix],
        fitting: Callable[[], Callable[[Matrix], Fit]],
        seed: tuple[int, int],
    ) -> None:
        self._draws, self._fitting, self._seed = draws, fitting, seed
        self._fitted = fitting()
        self._chunk, self._responses = -1, np.empty((0, 0))

    def p_value(self, draw: int, test: Callable[[Fit], float]) -> _PValue:
        """Of the test in one draw; NaN if it could not be fitted and tested, and why not."""
        chunk, j = divmod(draw, _CHUNK)
        if chunk != self._chunk:
            entropy, number = self._seed
            sequence = np.random.SeedSequence(entropy, spawn_key=(number, chunk))
            rng = np.random.default_rng(sequence)
            self._responses = self._draws(_CHUNK, rng)
            self._chunk, self._fitted = chunk, self._fitting()
        try:
            return float(test(self._fitted(self._responses[:, j]))), None
        except (ModelError, ArithmeticError, np.linalg.LinAlgError) as problem:
            return np.nan, problem


def _linear_study(fit: Fit, varcorr: Any, given: dict[str, Any]) -> _Study:
    if given["phi"] is not None:
        raise ModelError(
            "phi= is the parameter of the family of a generalized model; the residual standard "
            "deviation of a linear one is sigma=."
        )
    own = {name: value for name, value in given.items() if name != "phi"}
    return _Study(DrawnCovariance(fit, varcorr, **own), _linear_tests, "F")


def _linear_tests(
    drawn_from: DrawnCovariance, data: pd.DataFrame, beta: Matrix, seed: tuple[int, int]
) -> _SimulatedTests:
    fit = drawn_from.fit
    planned = drawn_from.in_design(data, _weights(fit))
    mean = fixed_mean(fit, data, beta)

    def fitting() -> Callable[[Matrix], Fit]:
        last: list[Fit] = []

        def fitted(y: Matrix) -> Fit:
            last[:] = [_fitted(fit, data, y, last[0] if last else None)]
            return last[0]

        return fitted

    return _SimulatedTests(
        lambda count, rng: planned.sample(count, seed=rng, mean=mean), fitting, seed
    )


def _generalized_study(fit: Fit, varcorr: Any, given: dict[str, Any]) -> _Study:
    for name in ("sigma", "R", "residual", "variance"):
        if given[name] is not None and given[name] is not UNCHANGED:
            raise ModelError(
                f"{name}= is of the residuals of a linear model, which a generalized one does not "
                "have. The parameter of its family, where it has one, is phi=."
            )
    own = generalized(fit)
    phi = own.search_phi if given["phi"] is None else read_phi(own.family, given["phi"])
    drawn = DrawnFromFamily(fit, varcorr, phi=phi)
    return _Study(drawn, _generalized_tests, "chi2")


def _generalized_tests(
    drawn_from: DrawnFromFamily, data: pd.DataFrame, beta: Matrix, seed: tuple[int, int]
) -> _SimulatedTests:
    planned = PlannedResponses(drawn_from, data, beta)
    return _SimulatedTests(planned.draw, lambda: planned.fitted, seed)


class _Study(NamedTuple):
    """What a kind of fit draws from, how its designs are simulated, and the test."""

    drawn_from: Any
    simulated_tests: Callable[..., _SimulatedTests]
    test: str


_STUDIES = {"linear": _linear_study, "generalized": _generalized_study}


def _effects(fit: Fit, effects: dict[str, float] | None) -> Matrix:
    beta = pd.Series(fit.beta.copy(), index=list(fit.fixef_names))
    if effects is not None and not isinstance(effects, (Mapping, pd.Series)):
        raise ModelError(f"effects must map names of coefficients to numbers, not {effects!r:.60}.")
    for name, value in ({} if effects is None else effects).items():
        name = as_written(name, list(beta.index))
        if name not in beta.index:
            listed = ", ".join(repr(each) for each in beta.index)
            raise ModelError(f"effects names {name!r:.60}, which is not one of {listed}.")
        position = coefficient_position(name, list(beta.index))
        try:
            beta.iloc[position] = np.nan if np.iscomplexobj(value) else float(value)
        except (TypeError, ValueError):
            raise ModelError(f"effects[{name!r}] must be a number, not {value!r:.60}.") from None
    if not np.isfinite(beta).all():
        raise ModelError("effects must be finite numbers.")
    return np.asarray(beta, dtype=np.float64)


def _designs(
    drawn_from: DrawnCovariance, n: Any, along: str | None, within: Any
) -> tuple[list[tuple[int, pd.DataFrame]], str]:
    """Sizes with their rows, and what the sizes count."""
    fit, frame = drawn_from.fit, drawn_from.fit.frame
    data = drawn_from.rows()
    factors = drawn_from.factors(data)
    if frame.weights is not None:
        data[_WEIGHTS] = frame.weights
    groups = grouping_variables(factors)
    if along is not None and within is not None:
        raise ModelError("Give along= or within=, not both: n can count one thing only.")
    if within is not None:
        names = checked_names(within, "within")
        known = [str(name) for name in data.columns if name not in _MADE]
        names = checked_variables(names, known, "within")
        counted = f"rows in each {' x '.join(names)}"
        if n is None:
            raise ModelError("within= needs n, the number of rows in each combination.")
        return [(size, with_rows_within(data, names, size)) for size in _sizes(n)], counted
    fixed = _fixed_variables(fit)
    if along is None and n is None:
        if not groups:
            return [(len(data), data)], "rows"
        outermost = factors[-1]
        return [(outermost.n_levels, data)], f"levels of {outermost.group}"
    if along is None:
        along = _outermost_variable(data, factors, fixed)
    (along,) = checked_variables([along], groups, "along")
    if along in drawn_from.positions:
        raise ModelError(
            f"along names {along!r}, which is a position of residuals in their groups: more levels "
            "of it would be other times. Name another grouping variable, or add the rows to the "
            "data."
        )
    if along in fixed:
        others = [name for name in groups if name not in fixed]
        listed = f"another grouping variable ({listed_names(others)}), or " if others else ""
        raise ModelError(
            f"along names {along!r}, which is in the fixed part too: more levels of it would be "
            f"other fixed effects. Name {listed}count rows with within=."
        )
    counted = f"levels of {along}"
    if n is None:
        return [(int(data[along].nunique()), data)], counted
    kept = list(dict.fromkeys([*fixed, *drawn_from.fixed_in_groups]))
    designs = [(size, with_levels(data, along, size, factors, kept)) for size in _sizes(n)]
    return designs, counted


def _fixed_variables(fit: Fit) -> list[str]:
    """Columns of the data in the fixed part."""
    encoder = fit.frame.fixed_encoder
    if encoder is None:
        return []
    trees = [coder.tree for coder in encoder.coders]
    return data_columns(trees, list(fit.frame.data.columns))


def _outermost_variable(
    data: pd.DataFrame, factors: Sequence[GroupsOfRows], fixed: Sequence[str]
) -> str:
    """The variable whose levels are the groups, by the last factor that has one."""
    if not factors:
        raise ModelError(
            "The model has no groups whose levels n could count; count rows with within=."
        )
    for term in reversed(factors):
        # Parts that are treatments are crossed with the groups, and never multiplied.
        parts = [name for name in term.variables if name not in fixed]
        containing = [
            name
            for name in parts
            if all(is_nested(data[other], pd.factorize(data[name])[0]) for other in parts)
        ]
        if len(parts) == 1 or len(containing) == 1:
            return (containing or parts)[0]
        if parts:
            raise ModelError(
                f"The groups of {term.group!r} can be made more by more levels of "
                f"{' or of '.join(map(repr, parts))}; say which with along=."
            )
    raise ModelError(
        "Every grouping variable is in the fixed part too, where more levels would be other fixed "
        "effects; count rows with within=."
    )


def _sizes(n: Any) -> list[int]:
    listed = list(n) if is_listed(n) else [n]
    if not listed:
        raise ModelError("n is empty; give one or several sizes, such as [20, 40, 80].")
    return [checked_count(size, "n, the size of a design,") for size in listed]


def _weights(fit: Fit) -> str | None:
    """The column of prior weights in a design."""
    return _WEIGHTS if fit.frame.weights is not None else None


def _fitted(fit: Fit, data: pd.DataFrame, y: Matrix, last: Fit | None) -> Fit:
    """The fit to one response: of the whole model the first time, then of the response alone."""
    request = fit.request
    with without_warnings(ConvergenceWarning):
        if last is not None:
            offset = last.frame.offset
            return refit(last, y if offset is None else y + offset, progress=False)
        first = fit_formula(
            update_formula(fit.formula, f"{_RESPONSE} ~ ."),
            data.assign(**{_RESPONSE: y}),
            reml=fit.reml,
            weights=_weights(fit),
            contrasts=request.contrasts,
            residual=known_covariance(fit) or request.residual,
            variance=request.variance,
            sigma=request.sigma,
            progress=False,
        )
        offset = first.frame.offset
        return first if offset is None else refit(first, y + offset, progress=False)


def _clopper_pearson(successes: int, trials: int) -> tuple[float, float]:
    interval = scipy.stats.binomtest(successes, trials).proportion_ci(0.95, "exact")
    return float(interval.low), float(interval.high)
