"""The checks of a generalized fit: residuals, modes and counts beside those of data sets drawn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import scipy.special
from numpy.typing import NDArray

from mixedeffects.base.options import entropy_of
from mixedeffects.covariance.sizes import refuse_beyond_memory
from mixedeffects.diagnostics import check_design
from mixedeffects.diagnostics.check_pictures import (
    Envelope,
    PictureData,
    bars_of,
    mode_envelopes,
    quantile_envelope,
    rank_envelope,
    spread_cloud,
)
from mixedeffects.diagnostics.check_result import ModelChecks
from mixedeffects.diagnostics.check_statistics import (
    departure_from_normal,
    departure_from_uniform,
    ordered,
    shares_above,
    spread_over,
    two_sided,
)
from mixedeffects.diagnostics.check_steps import asked_checks, make_checks
from mixedeffects.diagnostics.check_verdict import FINE, LOOK, PROBLEM, Finding, judged, named_rows
from mixedeffects.diagnostics.dispersion import no_dispersion
from mixedeffects.diagnostics.drawn_again import Drawn, DrawnAgain
from mixedeffects.diagnostics.generalized_influence import generalized_influence
from mixedeffects.diagnostics.generalized_residuals import generalized_residuals, quantile_residuals
from mixedeffects.display.lettering import short, short_each
from mixedeffects.display.result_table import ResultTable
from mixedeffects.errors import ModelError
from mixedeffects.families import Response
from mixedeffects.fitting.generalized import GeneralizedFit
from mixedeffects.progress import ProgressOption

__all__ = ["GENERALIZED_CHECKS", "generalized_check"]

Matrix = NDArray[np.float64]

#: In the order in which they are made.
GENERALIZED_CHECKS = (
    "normality",
    "spread",
    "dispersion",
    "zeros",
    "simulation",
    "outliers",
    "influence",
    "collinearity",
    "levels",
    "singularity",
)
_COMPARED = ("normality", "spread", "dispersion", "zeros", "simulation", "outliers")

#: Data sets drawn, and with more rows than the second number.
_DRAWS, _MANY, _FEWER = 250, 5_000, 99
_FEW_LEVELS = 5
#: From which size a finding matters: of 1 - W', of the distance from uniform, of a ratio.
_BENT, _DISTANCE, _RATIO = 0.02, 0.05, 1.3


class _Compared:
    """The data and what was drawn, column by column."""

    def __init__(self, fit: GeneralizedFit, count: int, entropy: int, level: float) -> None:
        self.fit, self.count, self.entropy, self.level = fit, count, entropy, level
        self.again = DrawnAgain(fit, entropy)
        self.residuals = generalized_residuals(fit, "quantile", entropy)
        self.chi_square = float(np.sum(generalized_residuals(fit, "scaled") ** 2))
        self.drawn: list[tuple[Drawn, Matrix]] = []

    def draw(self, j: int) -> None:
        """One more data set."""
        fit, own = self.fit, self.fit.response
        found = self.again.draw(j)
        if found is None:
            return
        response = Response(found.y, own.trials, own.weights)
        self.drawn.append((found, quantile_residuals(fit, response, found.mu, self.entropy + j)))

    @property
    def Y(self) -> Matrix:
        """Responses drawn, (n, m)."""
        return np.column_stack([each.y for each, _ in self.drawn])

    @property
    def R(self) -> Matrix:
        """Quantile residuals of these, (n, m)."""
        return np.column_stack([r for _, r in self.drawn])

    def ranks(self) -> Matrix:
        """Each data set's ranks among all of them, the data themselves first, (n, m + 1)."""
        every = np.column_stack([self.fit.response.y, self.Y])
        n, m = every.shape
        rng = np.random.default_rng(np.random.SeedSequence(self.entropy, spawn_key=(self.count, 2)))
        order = np.lexsort((rng.random((n, m)), every), axis=1)
        out = np.empty((n, m))
        np.put_along_axis(out, order, (np.arange(m) + 0.5)[None, :] / m, axis=1)
        return out


def generalized_check(
    fit: GeneralizedFit,
    which: Any,
    draws: Any,
    seed: Any,
    level: Any,
    progress: ProgressOption,
) -> ModelChecks:
    """See `GeneralizedLinearMixedModel.check`."""
    usual = _DRAWS if fit.nobs <= _MANY else _FEWER
    asked = asked_checks(GENERALIZED_CHECKS, which, draws, level, lambda: usual)
    count = asked.count
    refuse_beyond_memory(48.0 * count * fit.nobs, f"{count:,} draws", "Ask for fewer.")
    c = _Compared(fit, count, entropy_of(seed), asked.level)
    compared = any(name in _COMPARED for name in asked.names)
    return make_checks(
        fit,
        asked,
        ["data sets drawn"] * count if compared else [],
        c.draw,
        lambda name, notes, tables: _findings(name, c, notes, tables),
        lambda notes: [*_how_compared(c, compared), *notes],
        lambda tables: _pictures(c, asked.names, tables),
        progress,
    )


def _how_compared(c: _Compared, compared: bool) -> list[str]:
    """What p-values rest on."""
    if not compared:
        return []
    return [
        f"P-values compare with {len(c.drawn):,} data sets drawn from the fit, whose modes are "
        "found again; covariances are held, and fixed effects make one step."
    ]


def _findings(
    name: str, c: _Compared, notes: list[str], tables: dict[str, Any]
) -> Iterator[Finding]:
    fit = c.fit
    if name in _COMPARED and not c.drawn:
        notes.append(f"No data set drawn could be fitted again, so there is no check of {name}.")
    elif name == "normality":
        yield from _normality(c, notes)
    elif name == "spread":
        yield from _spread(c, notes)
    elif name == "dispersion":
        refused = no_dispersion(fit)
        if refused:
            notes.append(str(refused))
        else:
            yield _dispersion(c)
    elif name == "zeros":
        yield from _zeros(c, notes)
    elif name == "simulation":
        ranks = c.ranks()
        tables["all ranks"] = ranks
        tables["ranks"] = pd.Series(ranks[:, 0], index=fit.frame.index, name="rank")
        yield _simulation(c, ranks)
    elif name == "outliers":
        finding, tables["outliers"] = _outliers(c)
        yield finding
    elif name == "influence":
        yield from _influence(c, notes, tables["influence"])
    elif name == "collinearity":
        yield from check_design.collinearity(fit, notes, tables)
    elif name == "levels":
        yield from check_design.few_levels(fit)
    else:
        yield from check_design.singularity(fit)


def _normality(c: _Compared, notes: list[str]) -> Iterator[Finding]:
    """Of quantile residuals and of conditional modes."""
    statistic = float(departure_from_normal(ordered(c.residuals[:, None]))[0])
    p = shares_above(statistic, departure_from_normal(ordered(c.R)))
    verdict = judged(p, c.level, statistic > _BENT)
    advice = "No sign against the family and its link: quantile residuals are normal."
    if verdict != FINE:
        advice = (
            "Quantile residuals are not normal: another family or link, a covariate or a random "
            "effect may be missing; see m.plot('qq') and m.plot('residuals')."
        )
    yield Finding("normality: residuals", "1 - W'", statistic, verdict, advice, p)
    for t, term in enumerate(c.fit.frame.terms):
        shown, own = short(term.label), c.fit.modes[t]
        varies = [j for j in range(term.n_columns) if np.ptp(own[:, j]) > 0.0]
        if term.n_levels < _FEW_LEVELS or not varies:
            why = "no variance" if not varies else f"only {term.n_levels} levels"
            notes.append(f"Normality of the effects of {shown} was not judged: {why}.")
            continue
        found = [float(departure_from_normal(ordered(own[:, j, None]))[0]) for j in varies]
        worst = int(np.argmax(found))
        drawn = np.array(
            [
                departure_from_normal(
                    ordered(np.column_stack([each.modes[t][:, j] for each, _ in c.drawn]))
                )
                for j in varies
            ]
        )
        p = shares_above(found[worst], np.where(np.isfinite(drawn), drawn, -np.inf).max(axis=0))
        verdict = judged(p, c.level, found[worst] > _BENT)
        advice = f"No sign against normal effects of {shown}."
        if verdict != FINE:
            column = short(term.columns[varies[worst]], 16)
            advice = (
                f"Effects of {shown} on {column} are not normal: see m.plot('ranef_qq') for levels "
                "apart; a predictor of the levels may be missing."
            )
        yield Finding(f"normality: {shown}", "1 - W'", found[worst], verdict, advice, p)


def _spread(c: _Compared, notes: list[str]) -> Iterator[Finding]:
    """Whether the variance of quantile residuals depends on the fitted values."""
    eta = c.fit.eta[:, None]
    statistic = float(spread_over(c.residuals[:, None], eta)[0])
    if not np.isfinite(statistic):
        notes.append("The spread over fitted values was not judged: these are all the same.")
        return
    p = shares_above(statistic, spread_over(c.R, np.column_stack([d.eta for d, _ in c.drawn])))
    verdict = judged(p, c.level, statistic > 0.01 * c.fit.nobs)
    advice = "No sign of a spread that changes with the fitted values."
    if verdict != FINE:
        advice = (
            "The spread of quantile residuals changes with the fitted values: the family's "
            "variance function does not hold; try another family."
        )
    yield Finding("spread: fitted values", "n R2", statistic, verdict, advice, p, 1.0)


def _dispersion(c: _Compared) -> Finding:
    """Pearson's chi-square over its mean among data sets drawn."""
    drawn = np.array([each.chi_square for each, _ in c.drawn])
    ratio = c.chi_square / float(drawn.mean())
    p = two_sided(c.chi_square, drawn)
    verdict = judged(p, c.level, not 1.0 / _RATIO < ratio < _RATIO)
    advice = "No sign of more or less variation than the family has."
    if verdict != FINE and ratio > 1.0:
        cure = "family='negative_binomial', or " if not c.fit.family.takes_trials else ""
        advice = f"Responses vary more than the family says: try {cure}a random intercept per row."
        if c.fit.family.name == "negative_binomial":
            advice = "Responses vary more than the family says: a predictor or effect is missing."
    elif verdict != FINE:
        advice = "Responses vary less than the family says: its tests are cautious."
    return Finding("dispersion", "ratio", ratio, verdict, advice, p)


def _zeros(c: _Compared, notes: list[str]) -> Iterator[Finding]:
    """How many responses are zero, beside what the model draws."""
    trials = c.fit.response.trials
    single = c.fit.family.takes_trials and (trials is None or bool((trials == 1.0).all()))
    if not c.fit.family.discrete or single:
        notes.append("Zeros are counted where responses are counts.")
        return
    own = float((c.fit.response.y == 0.0).sum())
    drawn = (c.Y == 0.0).sum(axis=0).astype(np.float64)
    expected = float(drawn.mean())
    p = two_sided(own, drawn)
    verdict = judged(p, c.level, abs(own - expected) > 0.02 * c.fit.nobs)
    advice = f"No sign of too many or too few zeros: {expected:.1f} expected."
    if verdict != FINE:
        few = own < expected
        what = "fewer" if few else "more"
        cure = "are zeros left out of these data?" if few else "another family, or a cause of zeros"
        advice = f"There are {what} zeros than the model draws ({expected:.1f} expected): {cure}."
    yield Finding("zeros", "zeros", own, verdict, advice, p)


def _simulation(c: _Compared, ranks: Matrix) -> Finding:
    """Whether the ranks of the responses among those drawn are uniform."""
    distances = departure_from_uniform(ordered(ranks))
    p = shares_above(float(distances[0]), distances[1:])
    verdict = judged(p, c.level, float(distances[0]) > _DISTANCE)
    advice = "No sign against the distribution that the model gives the responses."
    if verdict != FINE:
        low = float(np.mean(ranks[:, 0] < 0.1) + np.mean(ranks[:, 0] > 0.9))
        where = "the middle" if low < 0.2 else "the tails"
        advice = (
            f"Responses fall into {where} of what the model draws too often: see the ranks with "
            "checks.plot(), m.resid('simulated')."
        )
    return Finding("simulation: ranks", "KS distance", float(distances[0]), verdict, advice, p)


def _outliers(c: _Compared) -> tuple[Finding, pd.DataFrame]:
    """The largest quantile residual, and those beyond Bonferroni's limit."""
    size = np.abs(c.residuals)
    worst = int(np.argmax(size))
    p = shares_above(float(size[worst]), np.abs(c.R).max(axis=0))
    verdict = judged(p, c.level, True)
    adjusted = np.minimum(1.0, 2.0 * scipy.special.ndtr(-size) * c.fit.nobs)
    chosen = np.flatnonzero(adjusted <= c.level)
    if verdict != FINE and worst not in chosen:
        chosen = np.append(chosen, worst)
    chosen = chosen[np.argsort(-size[chosen], kind="stable")]
    index = c.fit.frame.index[chosen]
    table = ResultTable({"residual": c.residuals[chosen], "p_value": adjusted[chosen]}, index=index)
    advice = "No sign of outliers."
    if verdict != FINE:
        names = short_each(index, 16)
        which = "row" if len(names) == 1 else "rows"
        advice = f"Look at {which} {named_rows(names)}; fit without, and compare."
    return (
        Finding("outliers", "largest |q|", float(size[worst]), verdict, advice, p),
        table,
    )


def _influence(c: _Compared, notes: list[str], tables: dict[str, Any]) -> Iterator[Finding]:
    """Cook's distances of clusters, by one step from their scores."""
    if not len(c.fit.beta):
        notes.append("Influence is on fixed effects, and the model has none.")
        return
    try:
        found = generalized_influence(c.fit, None, False, False)
    except ModelError:
        notes.append(
            "Influence was not judged: no grouping factor holds whole levels of all others; "
            "m.influence(..., refit=True) fits again."
        )
        return
    distances = found.cooks_distance.sort_values(ascending=False)
    limit = 4.0 / len(distances)
    tables[found.by] = ResultTable(
        {"cooks_d": distances, "beyond": distances > limit}, index=distances.index
    )
    largest, shown = float(distances.iloc[0]), short(found.by)
    verdict = PROBLEM if largest > 1.0 else LOOK if largest > limit else FINE
    advice = f"No level of {shown} moves the fixed effects much."
    if verdict != FINE:
        names = short_each(distances.index[distances.to_numpy() > limit], 16)
        which = "level" if len(names) == 1 else "levels"
        advice = (
            f"The fixed effects owe much to {which} {named_rows(names)} of {shown}, by one step "
            f"from the scores: m.influence({found.by!r:.40}, refit=True)."
        )
    yield Finding(f"influence: {shown}", "Cook's distance", largest, verdict, advice)


def _pictures(c: _Compared, made: list[str], tables: dict[str, Any]) -> PictureData:
    envelopes: list[Envelope] = []
    cloud = None
    if "normality" in made and c.drawn:
        envelopes.append(
            quantile_envelope("Residuals", "quantile residual", c.residuals, ordered(c.R))
        )
        envelopes += mode_envelopes(
            c.fit,
            lambda t: c.fit.modes[t][:, 0],
            lambda t: np.column_stack([each.modes[t][:, 0] for each, _ in c.drawn]),
        )
    if "all ranks" in tables:
        ranks = tables["all ranks"]
        envelopes.append(rank_envelope(ranks[:, 0], ordered(ranks[:, 1:])))
    if "spread" in made and c.drawn:
        cloud = spread_cloud(c.fit.eta, c.residuals)
    return PictureData(tuple(envelopes), cloud, "quantile", bars_of(tables), "linear predictor")
