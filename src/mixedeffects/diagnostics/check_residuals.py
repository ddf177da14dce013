"""Checks of residuals, conditional modes and ranks against data sets drawn from the fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import NDArray

from mixedeffects.diagnostics.check_comparison import Comparison
from mixedeffects.diagnostics.check_levels import factors_by_name
from mixedeffects.diagnostics.check_statistics import (
    departure_from_normal,
    departure_from_uniform,
    durbin_watson,
    ordered,
    shares_above,
    spread_by_level,
    spread_over,
    two_sided,
)
from mixedeffects.diagnostics.check_structured import has_known_sigma
from mixedeffects.diagnostics.check_verdict import Finding, judged, named_rows
from mixedeffects.display.lettering import short, short_each
from mixedeffects.display.result_table import ResultTable

__all__ = [
    "Order",
    "autocorrelation",
    "curvature",
    "normality",
    "outlying_rows",
    "simulated_ranks",
    "spread",
]

Matrix = NDArray[np.float64]

#: Levels from which the form of a distribution can be judged at all.
_FEW_LEVELS = 5
#: Skewness and excess kurtosis, ratio of standard deviations, distance from uniform, change of
#: Durbin and Watson's statistic and explained share from which a finding matters by its size.
_SKEW, _KURTOSIS, _RATIO, _DISTANCE, _STEP, _SHARE = 0.5, 1.0, 1.5, 0.05, 0.2, 0.005
#: Sum of squares without a row, in units of sigma^2, that stands for none.
_NOTHING_LEFT = 1e-200
#: Studentized residuals beyond this are counted.
_FAR = 3.0


@dataclass(frozen=True, eq=False)
class Order:
    """Neighbours in an order within groups.

    Attributes
    ----------
    name, by : str
        Of the order and of the groups.
    earlier, later : ndarray of int
        Positions of the pairs.
    ties : int
        How many pairs have the same place in the order.
    """

    name: str
    by: str
    earlier: NDArray[np.intp]
    later: NDArray[np.intp]
    ties: int

    def among(self, rows: NDArray[np.intp], n: int) -> Order:
        """The pairs of which both are among some rows, by their positions there."""
        place = np.full(n, -1, dtype=np.intp)
        place[rows] = np.arange(len(rows))
        earlier, later = place[self.earlier], place[self.later]
        both = (earlier >= 0) & (later >= 0)
        return replace(self, earlier=earlier[both], later=later[both])


def normality(c: Comparison, notes: list[str]) -> Iterator[Finding]:
    """Of residuals, and of the conditional modes by term."""
    statistic = float(departure_from_normal(ordered(c.residuals))[0])
    p = shares_above(statistic, departure_from_normal(c.ordered_residuals))
    shape, large = _shape(c.residuals[:, 0])
    verdict = judged(p, c.level, large)
    if verdict == "fine":
        advice = "No sign against normal residuals."
    else:
        logarithm = "right" in shape and bool((c.fit.frame.y > 0.0).all())
        cures = {
            "skewed": f"try {'log(y)' if logarithm else 'a transformed response'}",
            "heavy": "see which rows in `outliers` and with m.plot('qq')",
            "light": "means and their tests bear this; see m.plot('qq')",
        }
        cure = cures[shape.partition("-")[0].partition(" ")[0]]
        advice = _sized(f"Residuals are {shape}: {cure}.", large)
    yield Finding("normality: residuals", "1 - W'", statistic, verdict, advice, p)
    for t, term in enumerate(c.fit.frame.terms):
        shown = short(term.label)
        varies = [j for j in range(term.n_columns) if _varies(c.data.modes[t][:, j, 0])]
        if term.n_levels < _FEW_LEVELS or not varies:
            why = "no variance" if not varies else f"only {term.n_levels} levels"
            notes.append(f"Normality of the effects of {shown} was not judged: {why}.")
            continue
        own, drawn = (
            np.array([departure_from_normal(ordered(some.modes[t][:, j])) for j in varies])
            for some in (c.data, c.draws)
        )
        own = own[:, 0]
        if not np.isfinite(drawn).any():
            notes.append(f"Normality of the effects of {shown} was not judged: no draw varies.")
            continue
        worst = int(np.argmax(own))
        known = np.where(np.isfinite(drawn), drawn, -np.inf).max(axis=0)
        p = shares_above(float(own[worst]), known)
        shape, large = _shape(c.data.modes[t][:, varies[worst], 0])
        verdict = judged(p, c.level, large)
        advice = f"No sign against normal effects of {shown}."
        if verdict != "fine":
            column = short(term.columns[varies[worst]], 16)
            advice = _sized(
                f"Effects of {shown} on {column} are {shape}: see m.plot('ranef_qq') for levels "
                "apart; a predictor of the levels may be missing.",
                large,
            )
        yield Finding(f"normality: {shown}", "1 - W'", float(own[worst]), verdict, advice, p)


def _sized(advice: str, large: bool) -> str:
    """With a remark where what was found is small."""
    return advice if large else f"{advice} It is small in itself."


def _varies(modes: Matrix) -> bool:
    return bool(np.ptp(modes) > 0.0)


def _shape(values: Matrix) -> tuple[str, bool]:
    """How a distribution differs from the normal, in words, and whether by much."""
    skew, kurtosis = float(scipy.stats.skew(values)), float(scipy.stats.kurtosis(values))
    large = abs(skew) > _SKEW or abs(kurtosis) > _KURTOSIS
    if abs(skew) > _SKEW and abs(skew) > 0.3 * abs(kurtosis):
        return f"skewed to the {'right' if skew > 0 else 'left'} (skewness {skew:.2g})", large
    tails = "heavy-tailed" if kurtosis > 0 else "light-tailed"
    return f"{tails} (excess kurtosis {kurtosis:.2g})", large


def spread(c: Comparison, notes: list[str]) -> Iterator[Finding]:
    """Whether the residuals' variance depends on the fitted values or on the level of a factor."""
    r, fitted = c.residuals, c.data.fitted[c.usable]
    statistic = float(spread_over(r, fitted)[0])
    if np.isfinite(statistic):
        drawn = spread_over(c.drawn_residuals, c.draws.fitted[c.usable])
        p = shares_above(statistic, drawn)
        order = np.argsort(fitted[:, 0], kind="stable")
        third = max(len(order) // 3, 1)
        low, high = (_root_mean_square(r[some, 0]) for some in (order[:third], order[-third:]))
        ratio = high / low if low > 0 else np.inf
        large = not 1.0 / _RATIO < ratio < _RATIO
        verdict = judged(p, c.level, large)
        advice = "No sign of a spread that changes with the fitted values."
        if verdict != "fine":
            way = "grows" if ratio > 1 else "falls"
            logarithm = ratio > 1 and bool((c.fit.frame.y > 0.0).all())
            cure = "log(y)" if logarithm else _weights_option(c)
            advice = _sized(
                f"The spread {way} with the fitted values (top third {ratio:.2g} times the bottom "
                f"third): try {cure}, or vcov='CR2'.",
                large,
            )
        yield Finding("spread: fitted values", "n R2", statistic, verdict, advice, p, 1.0)
    else:
        notes.append("The spread over fitted values was not judged: these are all the same.")
    for group, all_codes in _factors(c).items():
        codes = all_codes[c.rows][c.usable]
        levels = len(np.unique(codes))
        if levels < 2 or len(codes) < 2 * levels:
            notes.append(
                f"The spread by {short(group)} was not judged: fewer than two rows a level."
            )
            continue
        statistic = float(spread_by_level(r, codes)[0])
        drawn = spread_by_level(c.drawn_residuals, codes)
        p = shares_above(statistic, drawn)
        name, ratio, large = _widest(c, group, codes)
        verdict = judged(p, c.level, large)
        advice = f"No sign of a spread that differs by {short(group)}."
        if verdict != "fine":
            advice = _sized(
                f"The spread differs by {short(group)}; most in {name}, {ratio:.2g} times the "
                f"whole: use vcov='CR2', or {_weights_option(c)} by what sets these levels apart.",
                large,
            )
        yield Finding(
            f"spread: {short(group)}", "F", statistic, verdict, advice, p, float(levels - 1)
        )


def _factors(c: Comparison) -> dict[str, NDArray[np.int64]]:
    """Codes of each grouping factor."""
    return {name: own.codes.astype(np.int64) for name, own in factors_by_name(c.fit).items()}


def _weights_option(c: Comparison) -> str:
    """What gives rows variances of their own."""
    return "weights=" if c.fit.residual is None else "variance="


def _root_mean_square(values: Matrix) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _widest(c: Comparison, group: str, codes: NDArray[np.int64]) -> tuple[str, float, bool]:
    """The level whose spread is least probable, in units of the whole, and whether by much."""
    squares = c.residuals[:, 0] ** 2
    count = np.bincount(codes)
    mean = np.bincount(codes, squares) / np.maximum(count, 1)
    whole = float(squares.mean())
    at = int(np.argmax(np.where(count > 0, (mean / whole - 1.0) * np.sqrt(count), -np.inf)))
    levels = factors_by_name(c.fit)[group].levels
    ratio = float(np.sqrt(mean[at] / whole))
    return short(levels[at]), ratio, ratio > 1.3


def autocorrelation(c: Comparison, order: Order) -> Finding:
    """Durbin and Watson's statistic of neighbours, beside what the model lets one expect."""
    statistic = float(durbin_watson(c.data.residuals, order.earlier, order.later)[0])
    drawn = durbin_watson(c.draws.residuals, order.earlier, order.later)
    expected = float(np.mean(drawn))
    p = two_sided(statistic, drawn)
    verdict = judged(p, c.level, abs(statistic - expected) > _STEP)
    within = f"along {short(order.name)} within {short(order.by)}"
    advice = f"No sign of autocorrelation {within} ({expected:.2f} expected)."
    if verdict != "fine" and statistic < expected:
        has_structure = c.fit.frame.residual is not None
        other = "another structure in residual=" if has_structure else "residual='ar1()'"
        advice = (
            f"Neighbours {within} are too alike ({expected:.2f} expected): a slope of "
            f"{short(order.name)} or {other} may be missing; see m.variogram({order.name!r:.40})."
        )
    elif verdict != "fine":
        cause = "something alternates"
        if c.fit.frame.residual is not None:
            cause = "residual= takes off more than there is, or something alternates"
        advice = (
            f"Neighbours {within} are too different ({expected:.2f} expected): {cause}; see the "
            "residuals in their order."
        )
    return Finding(
        f"autocorrelation: {short(order.name)}", "Durbin-Watson", statistic, verdict, advice, p
    )


def outlying_rows(c: Comparison) -> tuple[Finding, pd.DataFrame]:
    """The largest studentized residual, and a table of the rows beyond the Bonferroni limit."""
    fit, r = c.fit, c.residuals[:, 0]
    n, p_fixed = fit.nobs, fit.frame.X.shape[1]
    df = float(n - p_fixed)
    inner = r * (1.0 if fit.reml else np.sqrt(df / n))
    if has_known_sigma(fit):
        deleted, tail = r, scipy.stats.norm.sf(np.abs(r))
    else:
        left = np.maximum(df - inner**2, _NOTHING_LEFT)
        deleted = inner * np.sqrt(max(df - 1.0, 1.0) / left)
        tail = scipy.stats.t.sf(np.abs(deleted), max(df - 1.0, 1.0))
    adjusted = np.minimum(1.0, 2.0 * tail * n)
    worst = int(np.argmax(np.abs(r)))
    p = shares_above(float(abs(r[worst])), np.abs(c.drawn_residuals).max(axis=0))
    verdict = judged(p, c.level, True)
    rows = fit.frame.index[c.rows[c.usable]]
    chosen = np.flatnonzero(adjusted <= c.level)
    if verdict != "fine" and worst not in chosen:
        chosen = np.append(chosen, worst)
    chosen = chosen[np.argsort(-np.abs(r[chosen]), kind="stable")]
    table = ResultTable(
        {"residual": r[chosen], "statistic": deleted[chosen], "p_value": adjusted[chosen]},
        index=rows[chosen],
    )
    beyond = int((np.abs(r) > _FAR).sum())
    expected = float(np.mean((np.abs(c.drawn_residuals) > _FAR).sum(axis=0)))
    some = "row" if beyond == 1 else "rows"
    counted = f"{beyond:,} {some} beyond {_FAR:g}, {expected:.1f} expected"
    if verdict == "fine":
        advice = f"No sign of outliers: {counted}."
    else:
        names = short_each(table.index, 16)
        which = "row" if len(names) == 1 else "rows"
        advice = f"Look at {which} {named_rows(names)} ({counted}); fit without, and compare."
    return Finding("outliers", "largest |t|", abs(float(deleted[worst])), verdict, advice, p), table


def curvature(c: Comparison, notes: list[str]) -> Iterator[Finding]:
    """Score tests of the squares of covariates."""
    for i, name in enumerate(c.curves.names):
        statistic, drawn = float(c.data.curvature[i, 0]), c.draws.curvature[i]
        if not np.isfinite(statistic):
            notes.append(f"Linearity in {short(name)} was not judged: V leaves no such direction.")
            continue
        p = shares_above(abs(statistic), np.abs(drawn))
        verdict = judged(p, c.level, statistic**2 > _SHARE * c.fit.nobs)
        advice = f"No sign against a straight line in {short(name)}."
        if verdict != "fine":
            way = "upwards" if statistic > 0 else "downwards"
            advice = (
                f"The mean bends {way} in {short(name)}: try poly({short(name)}, 2) or "
                f"ns({short(name)}, 3)."
            )
        yield Finding(f"linearity: {short(name)}", "score z", statistic, verdict, advice, p, 1.0)
    if c.curves.curved:
        listed = ", ".join(short(name) for name in c.curves.curved)
        notes.append(f"Linearity was not judged where the formula has a curve: {listed}.")


def simulated_ranks(c: Comparison) -> Finding:
    """Whether the responses' ranks among those drawn from the model are uniform."""
    statistic = float(departure_from_uniform(ordered(c.data.ranks))[0])
    p = shares_above(statistic, departure_from_uniform(c.ordered_ranks))
    verdict = judged(p, c.level, statistic > _DISTANCE)
    advice = "No sign against the distribution that the model gives the responses."
    if verdict != "fine":
        low = float(np.mean(c.data.ranks < 0.1) + np.mean(c.data.ranks > 0.9))
        where = "the middle" if low < 0.2 else "the tails"
        advice = (
            f"Responses fall into {where} of what the model draws too often: see the ranks with "
            "checks.plot(), and m.plot('residuals')."
        )
    return Finding("simulation: ranks", "KS distance", statistic, verdict, advice, p)
