"""Drawing comparisons of estimated marginal means; matplotlib is imported only then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from wcwidth import wcswidth

from mixedeffects.display.lettering import fitted, literal, name_ticks, short, short_each, unquoted
from mixedeffects.display.panels import one_axes
from mixedeffects.display.vocabulary import BROOM_INTERVAL, intervals_at
from mixedeffects.frame.columns import labels_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_comparisons"]

FAINT = "#6b6b6b"
#: Inches that a letter of a label takes.
_LETTER = 0.083


def draw_comparisons(
    table: pd.DataFrame,
    labels: pd.DataFrame,
    response: str,
    level: float,
    simultaneous: bool,
    ratios: bool,
    ax: Any,
) -> Axes:
    """One line per comparison, the first on top, beside zero, or one where they are ratios.

    Parameters
    ----------
    table, labels : DataFrame
        The comparisons with their intervals, and their labels.
    response : str
        What they are comparisons of.
    level : float
        Of the intervals.
    simultaneous : bool
        Whether the intervals hold together.
    ratios : bool
        Whether the estimates are ratios.
    ax : matplotlib.axes.Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    matplotlib.axes.Axes
    """
    names = short_each(_series(labels), 60)
    # Half of a usual figure is left for the intervals.
    beside = _LETTER * max(map(wcswidth, names), default=0)
    axes = one_axes(ax, (max(5.6, 2.8 + beside), max(2.0, 0.9 + 0.28 * len(table))))
    if ax is not None:
        wide = axes.get_window_extent().width * 72.0 / axes.figure.dpi
        names = [fitted(name, 0.6 * wide, 10.0) for name in names]
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

    from mixedeffects.display.colours import SERIES

    low, high = BROOM_INTERVAL
    y = np.arange(len(table))
    null = 1.0 if ratios else 0.0
    clear = (table[low] > null) | (table[high] < null)
    colours = np.where(clear, SERIES[0], FAINT).tolist()
    axes.axvline(null, color=FAINT, linewidth=0.8, linestyle="--")
    axes.hlines(y, table[low], table[high], colors=colours, linewidth=1.6)
    axes.scatter(table["estimate"], y, color=colours, s=30, zorder=3)
    name_ticks(axes.yaxis, y, names)
    axes.set_ylim(len(table) - 0.4, -0.6)
    if ratios:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    what = short(unquoted(response), 40)
    literal(axes.set_xlabel(f"{'ratio' if ratios else 'estimate'} ({what})"))
    how = "simultaneous " if simultaneous else ""
    axes.set_title(f"{how}{intervals_at(level)}", loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _series(levels: pd.DataFrame) -> list[str]:
    columns = [labels_of(levels[name].tolist()) for name in levels]
    return [", ".join(row) for row in zip(*columns, strict=True)] or [""] * len(levels)
