"""Clouds of points that stay readable: points while they are few, then hexagons for all of them."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.display.lettering import literal, short
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
    "finish",
    "name_points",
    "say_nothing_to_draw",
]

#: What the data show, what the model says, and what is beside the point.
EMPIRICAL = "#2166ac"
IMPLIED = "#b2182b"
FAINT = "#6b6b6b"

Matrix = NDArray[np.float64]

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
    """Write labels beside a few points, on the side where there is more room."""
    from matplotlib.patheffects import withStroke

    (low, high), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    taken: list[tuple[float, float, bool]] = []
    for i in worst:
        at = ((x[i] - low) / (high - low), (y[i] - bottom) / (top - bottom))
        left = at[0] > 0.5
        for u, v, side in taken:
            # Near an earlier label, which would be written over.
            if abs(u - at[0]) < 0.12 and abs(v - at[1]) < 0.05:
                left = not side
        taken.append((*at, left))
        name = ax.annotate(
            short(labels[i], 16),
            (x[i], y[i]),
            xytext=(-5 if left else 5, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
            fontsize=7.5,
            color="#3d3d3d",
            path_effects=[withStroke(linewidth=2.0, foreground="white")],
        )
        literal(name)


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
