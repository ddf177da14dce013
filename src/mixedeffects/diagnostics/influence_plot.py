"""Drawing influence; matplotlib is imported only when it is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mixedeffects.display.lettering import literal, name_ticks, short, short_each
from mixedeffects.display.panels import one_axes
from mixedeffects.display.points import few_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_influence"]

DOT = "#2166ac"
FAINT = "#6b6b6b"
LINE = "#d0d0d0"


def draw_influence(
    values: pd.Series, label: str, by: str, how: str, centre: float, n_levels: int, ax: Any
) -> Axes:
    """A dot for each level, the first at the top, with a stem from the value of no influence.

    Parameters
    ----------
    values : Series
        The numbers to draw, in order.
    label, by, how : str
        What they are, whose levels, and how they were made.
    centre : float
        The value of a level without influence.
    n_levels : int
        Number of levels with a value, drawn or not.
    ax : matplotlib.axes.Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    axes = one_axes(ax, (5.6, 1.4 + 0.24 * max(len(values), 4)))
    at = np.arange(len(values))
    numbers = values.to_numpy()
    axes.axvline(centre, color=FAINT, linewidth=0.8, zorder=1)
    axes.hlines(at, centre, numbers, color=LINE, linewidth=1.4, zorder=2)
    axes.scatter(numbers, at, s=26, color=DOT, zorder=3)
    name_ticks(axes.yaxis, at, short_each(values.index), fontsize=8.5)
    axes.set_ylim(len(values) - 0.4, -0.6)
    literal(axes.set_xlabel(short(label, 60)))
    literal(axes.set_ylabel(short(by, 40)))
    some = f"the {len(values):,} most influential of {n_levels:,}"
    note = f"{some};\n{how}" if len(values) < n_levels else how
    each = "row" if by == "row" else "level"
    pad = 18.0 + 10.0 * note.count("\n")
    axes.set_title(f"Influence of each {each} left out", loc="left", fontsize=10, pad=pad)
    text = axes.annotate(
        note,
        xy=(0.0, 1.0),
        xycoords="axes fraction",
        xytext=(0.0, 4.0),
        textcoords="offset points",
        fontsize=8,
        color=FAINT,
    )
    # Axes are not made narrower for it.
    text.set_in_layout(False)
    few_ticks(axes)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return axes
