"""What the pictures of the checks are drawn from: small arrays, no data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from mixedeffects.diagnostics.check_comparison import Comparison
from mixedeffects.diagnostics.check_statistics import ordered
from mixedeffects.display.lettering import short, short_each
from mixedeffects.display.normal_bands import plotting_positions, shown_ranks
from mixedeffects.fitting.fit import Fit

__all__ = [
    "Envelope",
    "PictureData",
    "band",
    "bars_of",
    "mode_envelopes",
    "picture_data",
    "quantile_envelope",
    "rank_envelope",
    "spread_cloud",
]

Matrix = NDArray[np.float64]

#: Points of a line that are kept, and rows of a cloud.
_POINTS = 500
_CLOUD = 5_000
#: Terms whose modes are drawn, and levels.
_TERMS = 3
_LEVELS = 12
#: Shares of the draws below and above which the band ends.
_BAND = (0.025, 0.975)


@dataclass(frozen=True, eq=False)
class Envelope:
    """A line and where 95 % of the lines of data sets drawn lie, place by place.

    It should be level, or else have y equal to x.
    """

    title: str
    xlabel: str
    ylabel: str
    x: Matrix
    y: Matrix
    lower: Matrix
    upper: Matrix
    level: bool = False


@dataclass(frozen=True, eq=False)
class PictureData:
    """Of each picture what it is drawn from; empty where the check was not made."""

    envelopes: tuple[Envelope, ...] = ()
    cloud: tuple[Matrix, Matrix] | None = None
    residual: str = "studentized"
    bars: dict[str, tuple[list[str], Matrix, float, str]] = field(default_factory=dict)
    fitted: str = "fitted value"


def picture_data(c: Comparison, chosen: Sequence[str], tables: dict[str, Any]) -> PictureData:
    """Arrays for the pictures of the checks made."""
    envelopes: list[Envelope] = []
    cloud = None
    free = not c.asked or len(c.usable) >= 3
    if "normality" in chosen and free:
        envelopes.append(
            quantile_envelope(
                "Residuals", f"{c.kind} residual", c.residuals[:, 0], c.ordered_residuals
            )
        )
        modes = c.data.modes
        envelopes += mode_envelopes(
            c.fit, lambda t: modes[t][:, 0, 0], lambda t: c.draws.modes[t][:, 0]
        )
    if "simulation" in chosen:
        envelopes.append(rank_envelope(c.data.ranks[:, 0], c.ordered_ranks))
    if "spread" in chosen and free:
        cloud = spread_cloud(c.data.fitted[c.usable][:, 0], c.residuals[:, 0])
    return PictureData(tuple(envelopes), cloud, c.kind, bars_of(tables))


def mode_envelopes(
    fit: Fit, own: Callable[[int], Matrix], drawn: Callable[[int], Matrix]
) -> Iterator[Envelope]:
    """Of the first effect of each term its modes, where there are enough that differ.

    Parameters
    ----------
    fit : Fit
        Which terms it has.
    own, drawn : callable
        From the number of a term to modes, shape (l,), and to those of data sets drawn, (l, m).
    """
    for t, term in enumerate(fit.frame.terms[:_TERMS]):
        modes = own(t)
        if term.n_levels > 3 and np.ptp(modes) > 0.0:
            name = f"Effects of {short(term.group, 16)}: {short(term.columns[0], 14)}"
            yield quantile_envelope(name, "conditional mode", modes, ordered(drawn(t)))


def rank_envelope(own: Matrix, drawn: Matrix) -> Envelope:
    """Shares of draws below each response, less uniform; those of data sets drawn are sorted."""
    n = len(own)
    ranks = shown_ranks(n, _POINTS)
    uniform = (ranks - 0.5) / n
    lower, upper = band(drawn[ranks - 1])
    return Envelope(
        "Ranks among responses drawn",
        "uniform quantiles",
        "share of draws below, less uniform",
        uniform,
        np.sort(own)[ranks - 1] - uniform,
        lower - uniform,
        upper - uniform,
        level=True,
    )


def spread_cloud(fitted: Matrix, residuals: Matrix) -> tuple[Matrix, Matrix]:
    """Fitted values and roots of absolute residuals, of not too many rows."""
    some = np.arange(len(residuals))
    if len(some) > _CLOUD:
        some = np.sort(np.random.default_rng(0).choice(some, _CLOUD, replace=False))
    return fitted[some], np.sqrt(np.abs(residuals[some]))


def bars_of(tables: dict[str, Any]) -> dict[str, tuple[list[str], Matrix, float, str]]:
    """Labels, lengths, a limit and what it is, of influence and collinearity."""
    bars = {}
    for group, table in tables["influence"].items():
        top = table.head(_LEVELS)
        bars[f"Cook's distance by {short(group, 16)}"] = (
            short_each(top.index, 16),
            top["cooks_d"].to_numpy(),
            4.0 / len(table),
            "dashed: 4 over the number of levels",
        )
    if "collinearity" in tables:
        table = tables["collinearity"].sort_values("se_factor", ascending=False).head(_LEVELS)
        bars["Inflation of standard errors"] = (
            short_each(table.index, 16),
            table["se_factor"].to_numpy(),
            float(np.sqrt(5.0)),
            "dashed: from here look",
        )
    return bars


def quantile_envelope(title: str, ylabel: str, own: Matrix, drawn: Matrix) -> Envelope:
    """Sorted values, in units of their standard deviation, against normal quantiles.

    Those of data sets drawn are sorted already.
    """
    n = len(own)
    ranks = shown_ranks(n, _POINTS)
    x = scipy.stats.norm.ppf(plotting_positions(ranks, n))

    def in_units(values: Matrix) -> Matrix:
        spread = np.sqrt(np.einsum("i...,i...->...", values, values) / n)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(values[ranks - 1] / spread)

    lower, upper = band(in_units(drawn))
    y = in_units(np.sort(own))
    return Envelope(title, "normal quantiles", f"{ylabel} / SD", x, y, lower, upper)


def band(lines: Matrix) -> tuple[Matrix, Matrix]:
    """Where 95 % of lines lie, place by place."""
    known = lines[:, np.isfinite(lines).all(axis=0)]
    if not known.shape[1]:
        nothing = np.full(len(lines), np.nan)
        return nothing, nothing
    lower, upper = np.quantile(known, _BAND, axis=1)
    return lower, upper
