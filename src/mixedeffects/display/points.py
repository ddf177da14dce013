"""Clouds of points that stay readable: points while they are few, then hexagons for all of them."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from wcwidth import wcswidth

from mixedeffects.display.lettering import literal, short_each
from mixedeffects.display.smooth import local_linear

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "EMPIRICAL",
    "FAINT",
    "IMPLIED",
    "MANY_POINTS",
    "draw_cloud",
    "draw_smooth",
    "few_ticks",
    "finish",
    "name_points",
    "say_nothing_to_draw",
]

#: What the data show, what the model says, and what is beside the point.
EMPIRICAL = "#2166ac"
IMPLIED = "#b2182b"
FAINT = "#6b6b6b"

Matrix = NDArray[np.float64]

#: Width and height of the small letters beside points.
_LETTER = 4.4
_TALL = 9.0
#: Where a label stands: to the right, to the left, above, below.
_SIDES = [(1, 0), (-1, 0), (0, 1), (0, -1)]
#: Numbers along an axis, at most and less one.
_TICKS = 5

#: Above so many points they are counted in hexagons instead of being drawn one by one.
MANY_POINTS = 20_000


def draw_cloud(ax: Any, x: Matrix, y: Matrix, what: str = "rows") -> str:
    """Draw the points and say how many there are, and how, where it is not one mark for each."""
    if len(x) > MANY_POINTS:
        from matplotlib.colors import LinearSegmentedColormap

        shades = LinearSegmentedColormap.from_list("counts", ["#cfe1f0", EMPIRICAL, "#053061"])
        ax.hexbin(x, y, gridsize=(64, 40), bins="log", mincnt=1, cmap=shades, linewidths=0.1)
        return f"{len(x):,} {what} in hexagons of logarithmic shade"
    opacity = float(np.clip(30.0 / np.sqrt(max(len(x), 1)), 0.25, 0.8))
    size = float(np.clip(400.0 / np.sqrt(max(len(x), 1)), 4.0, 22.0))
    ax.scatter(x, y, s=size, color=EMPIRICAL, alpha=opacity, linewidths=0)
    return f"{len(x):,} {what}"


def draw_smooth(ax: Any, x: Matrix, y: Matrix) -> None:
    """A local linear regression through all points, where there are enough for one."""
    if len(x) >= 10:
        places, line = local_linear(x, y)
        ax.plot(places, line, color=IMPLIED, linewidth=1.6)


def name_points(ax: Any, x: Matrix, y: Matrix, labels: Any, worst: NDArray[np.intp]) -> None:
    """Write labels beside a few points, on the side where there is more room.

    Where an earlier label is there already, it is the other side, or above or below the point.
    """
    from matplotlib.patheffects import withStroke

    (low, high), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    box = ax.get_window_extent()
    wide, tall = (72.0 / ax.figure.dpi) * np.array([box.width, box.height])
    taken: list[tuple[float, float, float]] = []
    for i, label in zip(worst, short_each((labels[i] for i in worst), 16), strict=True):
        length = _LETTER * max(wcswidth(label), 1)
        u, v = wide * (x[i] - low) / (high - low), tall * (y[i] - bottom) / (top - bottom)
        sides = [(-1, 0), (1, 0), (0, 1), (0, -1)] if u > 0.5 * wide else _SIDES
        places = [(u + a * (5.0 + 0.5 * length), v + b * 8.0, length) for a, b in sides]
        free = [k for k, each in enumerate(places) if not _written_over(each, taken)]
        chosen = free[0] if free else 0
        (a, b), place = sides[chosen], places[chosen]
        taken.append(place)
        name = ax.annotate(
            label,
            (x[i], y[i]),
            xytext=(5 * a, 4 * b),
            textcoords="offset points",
            ha=("center", "left", "right")[a],
            va=("center", "bottom", "top")[b],
            fontsize=7.5,
            color="#3d3d3d",
            path_effects=[withStroke(linewidth=2.0, foreground="white")],
        )
        literal(name)


def _written_over(
    place: tuple[float, float, float], taken: list[tuple[float, float, float]]
) -> bool:
    """Whether a label, by its middle and its length in points, meets one of the others."""
    return any(
        abs(place[0] - u) < 0.5 * (place[2] + length) and abs(place[1] - v) < _TALL
        for u, v, length in taken
    )


def few_ticks(ax: Any) -> None:
    """Have so few numbers along the axis that they do not run into each other."""
    from matplotlib.ticker import AutoLocator, MaxNLocator

    if isinstance(ax.xaxis.get_major_locator(), AutoLocator):
        ax.xaxis.set_major_locator(MaxNLocator(_TICKS, steps=[1, 2, 2.5, 5, 10]))


def finish(ax: Axes, title: str, xlabel: str, ylabel: str, note: str = "") -> Axes:
    """Title, a smaller line below it, labels of the axes."""
    # The empty line also keeps pictures side by side level where one of them has no note.
    literal(ax.set_title(f"{title}\n", loc="left", fontsize=10))
    if note:
        text = ax.annotate(
            note,
            (0.0, 1.0),
            xycoords="axes fraction",
            xytext=(0, 5),
            textcoords="offset points",
            fontsize=7.5,
            color=FAINT,
        )
        # Axes are not made narrower for it.
        text.set_in_layout(False)
    literal(ax.set_xlabel(xlabel, fontsize=9))
    literal(ax.set_ylabel(ylabel, fontsize=9))
    ax.tick_params(labelsize=8)
    few_ticks(ax)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def say_nothing_to_draw(ax: Any, title: str, sentence: str) -> Any:
    """Axes with a sentence in place of a picture."""
    finish(ax, title, "", "")
    ax.set(xticks=[], yticks=[])
    ax.spines[["left", "bottom"]].set_visible(False)
    text = "\n".join(textwrap.wrap(sentence, 34))
    literal(ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=FAINT))
    return ax
