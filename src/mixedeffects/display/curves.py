"""Curves with bands, or means with bars, in one or several panels; data and strands behind them.

It draws plain numbers: what they are estimates of is said by who calls it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from wcwidth import wcswidth

from mixedeffects.display.lettering import (
    fitted,
    literal,
    literal_legend,
    name_ticks,
    short,
    short_each,
    unquoted,
)
from mixedeffects.display.panels import axes_for
from mixedeffects.display.points import FAINT, MANY_POINTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Cloud", "Curve", "Panel", "Sheet", "draw_sheet", "room_below"]

Matrix = NDArray[np.float64]

_STYLES: list[Any] = [
    "-",
    (0, (5, 2)),
    (0, (1.2, 1.4)),
    (0, (6, 2, 1.2, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
]
#: One more than there are colours, so that each colour comes back with another marker.
_MARKERS = "osD^vPX*"
#: Share of the room of a level that its series take together.
_DODGE = 0.6
#: Points to a character of a legend, nearly.
_CHARACTER = 4.9
#: Points that a panel's title of one line takes, and each further line.
_TITLE = 16.0
_TITLE_LINE = 11.5
#: Points that the letters of a level's name take along the line, and across.
_LETTER = 5.2
_LINE = 11.0
#: Height of a text above an interval, with the room that it needs.
_TEXT = 18.0
#: Characters of a level's name along the axis.
_LEVEL = 22
#: Share of the width of a new figure that is inside the axes, before the labels take theirs.
_INSIDE = 0.77
#: Lines of the small line above the panels.
_NOTE_LINES = 4


@dataclass(frozen=True, eq=False)
class Curve:
    """Estimates of one series in one panel.

    Attributes
    ----------
    series : int
        Which colour and line it has.
    x, y, low, high : ndarray
        Places (positions of levels, or numbers in ascending order), estimates and intervals; NaN
        where there is no estimate.
    texts : tuple of str
        Written above the intervals.
    arrows : ndarray, shape (places, 2), or None
        Lengths downwards and upwards of arrows at the estimates.
    """

    series: int
    x: Matrix
    y: Matrix
    low: Matrix
    high: Matrix
    texts: tuple[str, ...] = ()
    arrows: Matrix | None = None


@dataclass(frozen=True, eq=False)
class Cloud:
    """Points behind the curves.

    Attributes
    ----------
    x, y : ndarray
        Coordinates.
    series : ndarray of int
        Colours.
    """

    x: Matrix
    y: Matrix
    series: NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Panel:
    """One small picture.

    Attributes
    ----------
    title : str
        Above it.
    curves : tuple of Curve
        In front.
    cloud : Cloud or None
        Behind them.
    strands : tuple of (int, ndarray, ndarray)
        Thin lines in between: series, places, values.
    """

    title: str = ""
    curves: tuple[Curve, ...] = ()
    cloud: Cloud | None = None
    strands: tuple[tuple[int, Matrix, Matrix], ...] = ()


@dataclass(frozen=True, eq=False)
class Sheet:
    """Everything that is drawn.

    Attributes
    ----------
    panels : tuple of Panel
        With the same axes.
    x_name, y_name : str
        Names of the axes.
    categories : tuple of str or None
        The levels along the axis; None for numbers.
    series : tuple of str
        Labels of the series; one or none needs no legend.
    series_name : str
        Heading of the legend.
    ordered : bool
        Whether the series are values of a number.
    joined : bool
        Whether lines join the means of levels.
    note : str
        A small line above the first panel.
    bars : bool
        Whether intervals are bars also where the axis is a number.
    """

    panels: tuple[Panel, ...]
    x_name: str
    y_name: str
    categories: tuple[str, ...] | None = None
    series: tuple[str, ...] = ()
    series_name: str = ""
    ordered: bool = False
    joined: bool = True
    note: str = ""
    bars: bool = False


def draw_sheet(sheet: Sheet, ax: Any) -> list[Axes]:
    """Draw the panels.

    Parameters
    ----------
    sheet : Sheet
        What to draw.
    ax : matplotlib Axes, several of them, or None
        One for each panel; None makes a figure.

    Returns
    -------
    list of matplotlib.axes.Axes
    """
    count = len(sheet.panels)
    # Two columns of panels can still be read on a telephone.
    if count == 1:
        size = (5.6, 3.9 + max(0.0, room_below(sheet.categories, 5.6) - 1.0))
    else:
        # The names of levels stand below the last panel of each column.
        named = 2 if count % 2 else 1
        size = (2.9, 2.5 + room_below(sheet.categories, 2.9) * named / -(-count // 2))
    axes, given = axes_for(count, ax, size, 2)
    from mixedeffects.display.colours import series_colours

    several = max(len(sheet.series), 1)
    colours = series_colours(several, sheet.ordered)
    handles: dict[int, Any] = {}
    for panel, each in zip(sheet.panels, axes, strict=True):
        _draw_cloud(each, sheet, panel, colours)
        _draw_strands(each, panel, colours)
        for curve in panel.curves:
            handles.setdefault(curve.series, _draw_curve(each, sheet, curve, colours))
        if sheet.categories is not None:
            _name_levels(each, sheet.categories)
        each.tick_params(labelsize=9)
        each.spines[["top", "right"]].set_visible(False)
        each.grid(axis="y", color="#e6e6e6", linewidth=0.6)
        each.set_axisbelow(True)
    _share_axes(axes, given)
    _make_room_for_texts(axes, sheet)
    _name_axes(axes, sheet, given)
    titles = [fitted(panel.title, 1.1 * _width(axes[0]), 9.5, 2) for panel in sheet.panels]
    for title, each in zip(titles, axes, strict=True):
        if title:
            literal(each.set_title(title, loc="left", fontsize=9.5))
    above = _TITLE + _TITLE_LINE * titles[0].count("\n") if titles[0] else 0.0
    if count == 1 or given:
        above += _write_note(axes[0], sheet.note, above)
    elif sheet.note and not _legend_above(axes, sheet, handles):
        figure: Any = axes[0].figure
        note = fitted(sheet.note, 68.0 * figure.get_size_inches()[0], 8.0, _NOTE_LINES)
        literal(figure.suptitle(note, x=0.01, ha="left", fontsize=8, color=FAINT))
    if len(sheet.series) > 1:
        _write_legend(axes, sheet, handles, above, given)
    return axes


# --- what is drawn ---------------------------------------------------------------------


def _draw_curve(ax: Any, sheet: Sheet, curve: Curve, colours: list[str]) -> Any:
    """One series; returns what stands for it in a legend."""
    colour = colours[curve.series]
    style, marker = _STYLES[curve.series % len(_STYLES)], _MARKERS[curve.series % len(_MARKERS)]
    many = len(sheet.series) > 1
    if sheet.categories is None and len(curve.x) > 1 and not sheet.bars:
        # Many bands over each other would hide the lines.
        alpha = min(0.18, 0.6 / len(sheet.series))
        band = ax.fill_between(
            curve.x, curve.low, curve.high, color=colour, alpha=alpha, linewidth=0
        )
        line = ax.plot(curve.x, curve.y, color=colour, linewidth=2.0, linestyle=style)[0]
        return (band, line) if many else line
    at = curve.x + _dodge(sheet, curve.series)
    ax.vlines(at, curve.low, curve.high, color=colour, linewidth=1.7)
    line = ax.plot(
        at,
        curve.y,
        color=colour,
        marker=marker,
        markersize=6,
        markeredgecolor="white",
        markeredgewidth=0.6,
        linewidth=1.1,
        linestyle=style if sheet.joined and len(at) > 1 else "",
        zorder=3,
    )[0]
    _draw_arrows(ax, at, curve)
    for x, top, y, text in zip(at, curve.high, curve.y, curve.texts, strict=False):
        if text and np.isfinite(y):
            literal(
                ax.annotate(
                    text,
                    (x, top if np.isfinite(top) else y),
                    xytext=(0, 3),
                    textcoords="offset points",
                    ha="center",
                    va="bottom",
                    fontsize=8.5,
                    color=colour if many else "#262626",
                )
            )
    return line


def _draw_arrows(ax: Any, at: Matrix, curve: Curve) -> None:
    if curve.arrows is None:
        return
    for x, y, (down, up) in zip(at, curve.y, curve.arrows, strict=True):
        for length in (-down, up):
            if np.isfinite(length) and length:
                ax.annotate(
                    "",
                    (x, y + length),
                    xytext=(x, y),
                    arrowprops={
                        "arrowstyle": "-|>,head_length=0.32,head_width=0.18",
                        "color": "#262626",
                        "linewidth": 1.2,
                        "shrinkA": 0.0,
                        "shrinkB": 0.0,
                    },
                    zorder=4,
                )


def _dodge(sheet: Sheet, series: int) -> float:
    """How far the points of a series are moved aside, so that bars do not cover each other."""
    count = max(len(sheet.series), 1)
    if count < 2 or (sheet.categories is None and not sheet.bars):
        return 0.0
    room = min(_DODGE, 0.16 * count)
    if sheet.categories is None:
        x = np.unique(np.concatenate([c.x for panel in sheet.panels for c in panel.curves]))
        room *= 0.25 * float(np.diff(x).min()) if len(x) > 1 else 0.0
    return room * ((series + 0.5) / count - 0.5)


def _draw_cloud(ax: Any, sheet: Sheet, panel: Panel, colours: list[str]) -> None:
    cloud = panel.cloud
    if cloud is None or not len(cloud.x):
        return
    x = cloud.x
    if sheet.categories is not None:
        # The same places at every drawing: fractions of the golden section spread evenly.
        spread = (np.arange(len(x)) * 0.6180339887498949) % 1.0 - 0.5
        count = max(len(sheet.series), 1)
        width = min(_DODGE, 0.16 * count) / count if count > 1 else 0.3
        shift = np.array([_dodge(sheet, s) for s in range(count)])
        x = x + shift[cloud.series] + 0.8 * width * spread
    if len(x) > MANY_POINTS and sheet.categories is None:
        from matplotlib.colors import LinearSegmentedColormap

        shades = LinearSegmentedColormap.from_list("counts", ["#e9e9e9", "#7a7a7a"])
        ax.hexbin(x, cloud.y, gridsize=(64, 40), bins="log", mincnt=1, cmap=shades, linewidths=0.1)
        return
    opacity = float(np.clip(12.0 / np.sqrt(len(x)), 0.08, 0.45))
    size = float(np.clip(300.0 / np.sqrt(len(x)), 3.0, 16.0))
    alone = len(sheet.series) < 2
    for s in np.unique(cloud.series):
        own = cloud.series == s
        # Not by the colour alone: the marker is that of the means of a series.
        ax.scatter(
            x[own],
            cloud.y[own],
            s=size,
            color="#4d4d4d" if alone else colours[s],
            marker="o" if alone else _MARKERS[s % len(_MARKERS)],
            alpha=opacity,
            linewidths=0,
            zorder=1,
        )


def _draw_strands(ax: Any, panel: Panel, colours: list[str]) -> None:
    if not panel.strands:
        return
    from matplotlib.collections import LineCollection

    alone = len(colours) < 2
    lines = [np.column_stack([x, y]) for _, x, y in panel.strands]
    shown = ["#6b6b6b" if alone else colours[s] for s, _, _ in panel.strands]
    styles = ["-" if alone else _STYLES[s % len(_STYLES)] for s, _, _ in panel.strands]
    opacity = float(np.clip(3.0 / np.sqrt(len(lines)), 0.06, 0.55))
    ax.add_collection(
        LineCollection(
            lines, colors=shown, linestyles=styles, linewidths=0.8, alpha=opacity, zorder=1.5
        )
    )
    ax.autoscale_view()


# --- axes, names, legend ---------------------------------------------------------------


def _name_levels(ax: Any, categories: Sequence[str]) -> None:
    names = short_each(categories, _LEVEL)
    name_ticks(ax.xaxis, range(len(names)), names)
    ax.set_xlim(-0.6, len(names) - 0.4)
    angle = _angle(names, _width(ax))
    if angle:
        ax.tick_params(axis="x", rotation=angle)
        for text in ax.get_xticklabels():
            text.set(ha="right", va="center" if angle == 90 else "top", rotation_mode="anchor")


def _angle(names: Sequence[str], width: float) -> int:
    """By how much names side by side are turned, so that they do not run into each other."""
    room = width / max(len(names), 1)
    if max(map(wcswidth, names), default=0) * _LETTER <= room:
        return 0
    return next((a for a in (35, 60) if room * np.sin(np.radians(a)) >= _LINE), 90)


def room_below(categories: Sequence[str] | None, width: float) -> float:
    """Inches that the names of levels take below axes of so many inches, beyond one line."""
    if categories is None:
        return 0.0
    names = short_each(categories, _LEVEL)
    longest = max(map(wcswidth, names), default=0) * _LETTER / 72.0
    return float(longest * np.sin(np.radians(_angle(names, 72.0 * _INSIDE * width))))


def _width(ax: Any) -> float:
    """Width of the axes in points, before the labels take theirs."""
    return float(ax.get_window_extent().width * 72.0 / ax.figure.dpi)


def _inner_height(ax: Any, sheet: Sheet) -> float:
    """Height of the axes in points, without that of the names of levels."""
    high = ax.get_window_extent().height * 72.0 / ax.figure.dpi
    if len(ax.figure.axes) > len(sheet.panels):
        # Those beside it may have more below and above, and all become as low.
        return float(0.6 * high)
    return float(high - 72.0 * room_below(sheet.categories, _width(ax) / (72.0 * _INSIDE)))


def _share_axes(axes: list[Any], given: bool) -> None:
    if len(axes) < 2:
        return
    for which in ("x", "y"):
        ends = np.array([getattr(each, f"get_{which}lim")() for each in axes])
        limits = float(ends.min()), float(ends.max())
        for each in axes:
            getattr(each, f"set_{which}lim")(limits)
    if given:
        return
    for each in axes[1:]:
        each.sharex(axes[0])
        each.sharey(axes[0])


def _make_room_for_texts(axes: list[Any], sheet: Sheet) -> None:
    """Raise the upper ends of the axes, so that what stands above intervals is inside."""
    for panel, each in zip(sheet.panels, axes, strict=True):
        tops = [np.fmax(curve.high, curve.y) for curve in panel.curves if any(curve.texts)]
        if not tops or not np.isfinite(np.concatenate(tops)).any():
            continue
        low, high = each.get_ylim()
        share = min(_TEXT / max(_inner_height(each, sheet), 1.0), 0.4)
        top = (float(np.nanmax(np.concatenate(tops))) - share * low) / (1.0 - share)
        # Those that share it follow.
        each.set_ylim(low, max(high, top))
    _share_axes(axes, True)


def _name_axes(axes: list[Any], sheet: Sheet, given: bool) -> None:
    y_name = unquoted(sheet.y_name)
    if len(axes) == 1 or given:
        x_name = fitted(sheet.x_name, _width(axes[0]), 10.0, 2)
        y_name = fitted(y_name, max(_inner_height(axes[0], sheet), 80.0), 10.0, 2)
        for each in axes:
            literal(each.set_xlabel(x_name, fontsize=10))
            literal(each.set_ylabel(y_name, fontsize=10))
        return
    figure = axes[0].figure
    wide, high = 66.0 * figure.get_size_inches()
    literal(figure.supxlabel(fitted(sheet.x_name, wide, 10.0, 2), fontsize=10))
    literal(figure.supylabel(fitted(y_name, high, 10.0, 2), fontsize=10))
    columns = axes[0].get_subplotspec().get_gridspec().ncols
    for i, each in enumerate(axes):
        each.tick_params(labelleft=i % columns == 0, labelbottom=i + columns >= len(axes))


def _write_note(ax: Any, note: str, above: float) -> float:
    """A small line above the axes and so many points; returns the height that it takes."""
    if not note:
        return 0.0
    text = fitted(note, _width(ax), 7.0, _NOTE_LINES)
    literal(
        ax.annotate(
            text,
            (0.0, 1.0),
            xycoords="axes fraction",
            xytext=(0, 5 + above),
            textcoords="offset points",
            va="bottom",
            fontsize=8,
            color=FAINT,
        )
    )
    return 15.0 + 10.0 * text.count("\n")


def _legend_shape(ax: Any, names: Sequence[str], whole: bool) -> tuple[int, int]:
    """Columns and rows of a legend above the axes, or above the whole figure."""
    entry = 38.0 + _CHARACTER * max(map(wcswidth, names))
    wide = 72.0 * ax.figure.get_size_inches()[0] if whole else _width(ax)
    columns = int(np.clip(wide // entry, 1, len(names)))
    return columns, -(-len(names) // columns)


def _legend_above(axes: list[Any], sheet: Sheet, handles: dict[int, Any]) -> bool:
    """Whether a legend of the whole figure stands above its panels, and not beside them."""
    if len(sheet.series) < 2:
        return False
    names = short_each((sheet.series[i] for i in handles), 28)
    return _legend_shape(axes[0], names, True)[1] <= 3


def _write_legend(
    axes: list[Any], sheet: Sheet, handles: dict[int, Any], above: float, given: bool
) -> None:
    drawn = sorted(handles)
    names = short_each((sheet.series[i] for i in drawn), 28)
    title = short(sheet.series_name, 40)
    style: dict[str, Any] = {
        "title": title,
        "frameon": False,
        "fontsize": 9,
        "title_fontsize": 9,
        "alignment": "left",
        "borderaxespad": 0.0,
        "handlelength": 2.4,
        "columnspacing": 1.4,
    }
    ax, shown = axes[0], [handles[i] for i in drawn]
    whole = len(axes) > 1 and not given
    if whole and sheet.note and _legend_above(axes, sheet, handles):
        note = fitted(sheet.note, 68.0 * ax.figure.get_size_inches()[0], 9.0, _NOTE_LINES)
        style["title"] = f"{note}\n{title}"
    columns, rows = _legend_shape(ax, names, whole)
    if whole:
        stand = "outside right upper" if rows > 3 else "outside upper left"
        _figure_legend(ax.figure, shown, names, 1 if rows > 3 else columns, stand, style)
    elif rows > 3:
        literal_legend(ax, shown, names, loc="upper left", bbox_to_anchor=(1.02, 1.0), **style)
    else:
        from matplotlib.transforms import ScaledTranslation

        lift = ScaledTranslation(0.0, (above + 5.0) / 72.0, ax.figure.dpi_scale_trans)
        literal_legend(
            ax,
            shown,
            names,
            ncols=columns,
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            bbox_transform=ax.transAxes + lift,
            **style,
        )


def _figure_legend(
    figure: Any, handles: list[Any], names: list[str], columns: int, loc: str, style: dict[str, Any]
) -> None:
    numbers = [f"{i}" for i in range(len(names))]
    legend = figure.legend(handles, numbers, loc=loc, ncols=columns, **style)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)
        literal(text)
    literal(legend.get_title())
