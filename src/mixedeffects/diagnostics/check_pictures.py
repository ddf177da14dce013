"""What the pictures of the checks are drawn from: small arrays, no data sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from mixedeffects.diagnostics.check_comparison import Comparison
from mixedeffects.diagnostics.check_statistics import ordered
from mixedeffects.display.lettering import short, short_each
from mixedeffects.display.normal_bands import plotting_positions, shown_ranks

__all__ = ["Envelope", "PictureData", "band", "picture_data", "quantile_envelope"]

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
        for t, term in enumerate(c.fit.frame.terms[:_TERMS]):
            own = c.data.modes[t][:, 0, 0]
            if term.n_levels > 3 and np.ptp(own) > 0.0:
                name = f"Effects of {short(term.group, 16)}: {short(term.columns[0], 14)}"
                drawn = ordered(c.draws.modes[t][:, 0])
                envelopes.append(quantile_envelope(name, "conditional mode", own, drawn))
    if "simulation" in chosen:
        n = len(c.data.ranks)
        ranks = shown_ranks(n, _POINTS)
        uniform = (ranks - 0.5) / n
        lower, upper = band(c.ordered_ranks[ranks - 1])
        envelopes.append(
            Envelope(
                "Ranks among responses drawn",
                "uniform quantiles",
                "share of draws below, less uniform",
                uniform,
                np.sort(c.data.ranks[:, 0])[ranks - 1] - uniform,
                lower - uniform,
                upper - uniform,
                level=True,
            )
        )
    if "spread" in chosen and free:
        some = np.arange(len(c.usable))
        if len(some) > _CLOUD:
            rng = np.random.default_rng(0)
            some = np.sort(rng.choice(some, _CLOUD, replace=False))
        cloud = (c.data.fitted[c.usable][some, 0], np.sqrt(np.abs(c.residuals[some, 0])))
    bars = {}
    for group, table in tables["influence"].items():
        top = table.head(_LEVELS)
        limit = 4.0 / len(table)
        bars[f"Cook's distance by {short(group, 16)}"] = (
            short_each(top.index, 16),
            top["cooks_d"].to_numpy(),
            limit,
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
    return PictureData(tuple(envelopes), cloud, c.kind, bars)


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
