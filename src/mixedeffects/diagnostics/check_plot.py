"""Drawing the checks; matplotlib is imported only when they are drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedeffects.diagnostics.check_pictures import Envelope, PictureData
from mixedeffects.display.lettering import name_ticks
from mixedeffects.display.panels import axes_for
from mixedeffects.display.points import (
    EMPIRICAL,
    FAINT,
    IMPLIED,
    draw_cloud,
    draw_smooth,
    finish,
)
from mixedeffects.errors import ModelError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_checks"]


def draw_checks(pictures: PictureData, ax: Any) -> list[Axes]:
    """All pictures, one in each of the axes.

    Raises
    ------
    ModelError
        If there is none, or the number of axes is another.
    """
    clouds = [] if pictures.cloud is None else [pictures.cloud]
    count = len(pictures.envelopes) + len(clouds) + len(pictures.bars)
    if not count:
        raise ModelError(
            "The checks that were made have no picture; normality, spread, simulation, influence "
            "and collinearity have one."
        )
    axes, _ = axes_for(count, ax, (4.2, 3.6))
    rest = iter(axes)
    for envelope in pictures.envelopes:
        _draw_envelope(next(rest), envelope)
    for x, y in clouds:
        own = next(rest)
        what = draw_cloud(own, x, y)
        draw_smooth(own, x, y)
        finish(own, "Spread", pictures.fitted, f"root of |{pictures.residual} residual|", what)
    for title, (names, values, limit, dashed) in pictures.bars.items():
        own = next(rest)
        at = np.arange(len(values))
        own.hlines(at, 0.0, values, color="#d0d0d0", linewidth=1.4, zorder=2)
        own.scatter(values, at, s=26, color=EMPIRICAL, zorder=3)
        own.axvline(limit, color=IMPLIED, linewidth=1.0, linestyle="--", zorder=1)
        name_ticks(own.yaxis, at, names, fontsize=8)
        own.set_ylim(len(values) - 0.4, -0.6)
        own.set_xlim(left=0.0)
        finish(own, title, f"{title.partition(' by ')[0]}", "", dashed)
    return axes


def _draw_envelope(ax: Any, line: Envelope) -> None:
    ends = [float(line.x[0]), float(line.x[-1])]
    ax.fill_between(line.x, line.lower, line.upper, color="#d9d9d9", linewidth=0, zorder=1)
    ax.plot(ends, [0.0, 0.0] if line.level else ends, color=FAINT, linewidth=0.8, zorder=2)
    size = float(np.clip(400.0 / np.sqrt(len(line.x)), 4.0, 22.0))
    outside = (line.y < line.lower) | (line.y > line.upper)
    ax.scatter(line.x[~outside], line.y[~outside], s=size, color=EMPIRICAL, linewidths=0, zorder=3)
    ax.scatter(
        line.x[outside], line.y[outside], s=size, color=IMPLIED, marker="D", linewidths=0, zorder=4
    )
    finish(ax, line.title, line.xlabel, line.ylabel, "shaded: 95 % of data sets drawn")
