"""Drawing estimated marginal means and their comparisons; matplotlib is imported only then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mixedeffects.display.lettering import literal, literal_legend, name_ticks, short
from mixedeffects.display.panels import one_axes
from mixedeffects.display.vocabulary import BROOM_INTERVAL
from mixedeffects.frame.columns import labels_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_comparisons", "draw_means"]

#: Okabe and Ito's colours, which the common kinds of colour blindness can tell apart.
SERIES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000"]
FAINT = "#6b6b6b"
_DODGE = 0.5


def draw_means(table: pd.DataFrame, levels: pd.DataFrame, name: str, level: float, ax: Any) -> Axes:
    """Points and intervals: the first factor along the axis, others in colours.

    Parameters
    ----------
    table, levels : DataFrame
        The means with their intervals, and the levels they belong to.
    name : str
        What the means are: ``"emmean"``, or a variable's name with ``".trend"``.
    level : float
        Of the intervals.
    ax : matplotlib.axes.Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    matplotlib.axes.Axes
    """
    axes = one_axes(ax, (5.6, 3.8))
    low, high = BROOM_INTERVAL
    names = [str(column) for column in levels]
    numeric = bool(names) and not isinstance(levels[names[0]].dtype, pd.CategoricalDtype)
    if numeric:
        x = levels[names[0]].to_numpy()
        gap = float(np.ptp(x)) / max(len(np.unique(x)) - 1, 1) or 1.0
    else:
        first = levels[names[0]] if names else pd.Series(pd.Categorical(["overall"]))
        x, gap = first.cat.codes.to_numpy().astype(float), 1.0
        categories = [short(each) for each in first.cat.categories]
        name_ticks(axes.xaxis, range(len(categories)), categories)
    series = _series(levels[names[1:]])
    order = list(dict.fromkeys(series))
    handles: list[Any] = []
    for i, label in enumerate(order):
        rows = np.array([own == label for own in series])
        at = x[rows] + gap * _DODGE * ((i + 0.5) / len(order) - 0.5) * (0.2 if numeric else 1.0)
        part = table[rows]
        colour = SERIES[i % len(SERIES)]
        axes.vlines(at, part[low], part[high], color=colour, linewidth=1.6)
        style = "-" if numeric else ""
        handles += axes.plot(at, part["estimate"], "o", color=colour, markersize=6, linestyle=style)
    if not numeric:
        axes.set_xlim(-0.6, x.max() + 0.6)
    literal(axes.set_xlabel(short(names[0], 40) if names else ""))
    slope = name.endswith(".trend")
    what = f"slope of {short(name.removesuffix('.trend'), 40)}" if slope else "marginal mean"
    literal(axes.set_ylabel(what))
    if len(names) > 1:
        # Beside the axes: inside it would cover intervals.
        literal_legend(
            axes,
            handles,
            [short(label, 40) for label in order],
            title=short(", ".join(names[1:]), 40),
            frameon=False,
            fontsize=8.5,
            title_fontsize=8.5,
            loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
        )
    axes.set_title(f"{100 * level:.4g} % intervals", loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def draw_comparisons(
    table: pd.DataFrame, labels: pd.DataFrame, level: float, simultaneous: bool, ax: Any
) -> Axes:
    """One line per comparison, the first on top, beside zero.

    Parameters
    ----------
    table, labels : DataFrame
        The comparisons with their intervals, and their labels.
    level : float
        Of the intervals.
    simultaneous : bool
        Whether the intervals hold together.
    ax : matplotlib.axes.Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    matplotlib.axes.Axes
    """
    axes = one_axes(ax, (5.6, max(2.0, 0.9 + 0.28 * len(table))))
    low, high = BROOM_INTERVAL
    y = np.arange(len(table))
    clear = (table[low] > 0.0) | (table[high] < 0.0)
    colours = np.where(clear, SERIES[0], FAINT).tolist()
    axes.axvline(0.0, color=FAINT, linewidth=0.8, linestyle="--")
    axes.hlines(y, table[low], table[high], colors=colours, linewidth=1.6)
    axes.scatter(table["estimate"], y, color=colours, s=30, zorder=3)
    name_ticks(axes.yaxis, y, [short(label, 60) for label in _series(labels)])
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.set_xlabel("estimate")
    how = "simultaneous " if simultaneous else ""
    axes.set_title(f"{how}{100 * level:.4g} % intervals", loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _series(levels: pd.DataFrame) -> list[str]:
    columns = [labels_of(levels[name].tolist()) for name in levels]
    return [", ".join(row) for row in zip(*columns, strict=True)] or [""] * len(levels)
