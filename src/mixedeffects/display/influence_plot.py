"""Drawing influence; matplotlib is imported only when it is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mixedeffects.display.lettering import literal, name_ticks, short
from mixedeffects.display.panels import one_axes

if TYPE_CHECKING:
    from mixedeffects.influence import Influence

__all__ = ["draw_influence"]

DOT = "#2166ac"
FAINT = "#6b6b6b"
LINE = "#d0d0d0"


def draw_influence(
    influence: Influence, values: pd.Series, label: str, centre: float, n_levels: int, ax: Any
) -> Any:
    """A dot for each level, the first at the top, with a stem from the value of no influence.

    Parameters
    ----------
    influence : Influence
        Where the numbers come from.
    values : Series
        The numbers to draw, in order.
    label : str
        What they are.
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
    ax = one_axes(ax, (5.6, 1.4 + 0.24 * max(len(values), 4)))
    at = np.arange(len(values))
    numbers = values.to_numpy()
    ax.axvline(centre, color=FAINT, linewidth=0.8, zorder=1)
    ax.hlines(at, centre, numbers, color=LINE, linewidth=1.4, zorder=2)
    ax.scatter(numbers, at, s=26, color=DOT, zorder=3)
    name_ticks(ax.yaxis, at, [short(level) for level in values.index], fontsize=8.5)
    ax.set_ylim(len(values) - 0.4, -0.6)
    literal(ax.set_xlabel(short(label, 60)))
    literal(ax.set_ylabel(short(influence.by, 40)))
    some = f"the {len(values):,} most influential of {n_levels:,}; "
    how = "refitted" if influence.refit else "variance parameters held at their estimates"
    ax.set_title("Influence of each level left out", loc="left", fontsize=10, pad=18)
    ax.annotate(
        (some if len(values) < n_levels else "") + how,
        xy=(0.0, 1.0),
        xycoords="axes fraction",
        xytext=(0.0, 4.0),
        textcoords="offset points",
        fontsize=8,
        color=FAINT,
    )
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    return ax
