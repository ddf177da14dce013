"""Drawing a matrix picture on axes: cells, numbers, labels, groups, heading and colour scale.

Imported only when a picture is drawn, for it needs matplotlib.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mixedeffects.display.binning import Binned
from mixedeffects.display.cell_text import cell_texts
from mixedeffects.display.colours import ZeroIsWhite, colour_map, readable_on
from mixedeffects.display.lettering import Name, literal, name_ticks
from mixedeffects.display.panels import checked_axes

__all__ = [
    "Sheet",
    "draw_cells",
    "draw_column_groups",
    "draw_row_groups",
    "draw_scale",
    "label_axis",
    "write_heading",
    "write_numbers",
]

# Sizes in points.
LABEL_SIZE = 7.5
NUMBER_SIZE = 9.0
SMALLEST_NUMBER = 5.0
TITLE_SIZE = 11.0
INK = "#262626"
FAINT = "#6b6b6b"
LINE = "#b0b0b0"


@dataclass(eq=False)
class Sheet:
    """The axes of a picture, and how much room there is on them.

    Attributes
    ----------
    ax : matplotlib.axes.Axes
        The axes.
    n, m : int
        Rows and columns of the matrix.
    width, height : float
        Size of the axes in points.
    max_rows, max_columns : int
        How many pixels the picture may have.
    is_ours : bool
        Whether the figure was made for this picture, so that its size may be chosen.
    """

    ax: Any
    n: int
    m: int
    width: float
    height: float
    max_rows: int
    max_columns: int
    is_ours: bool

    @classmethod
    def make(cls, ax: Any, n: int, m: int, max_pixels: int) -> Sheet:
        """Prepare given axes, or a new figure if ``ax`` is None."""
        pixel_rows, pixel_columns = _pixels(n, max_pixels), _pixels(m, max_pixels)
        # Pixels are square unless there are more than twice as many in one direction.
        ratio = float(np.clip(pixel_rows / pixel_columns, 0.5, 2.0))
        if ax is not None:
            checked_axes(ax)
            ax.set_box_aspect(ratio)
            ax.apply_aspect()
            box = ax.get_window_extent()
            points = 72 / ax.figure.dpi
            return cls(
                ax,
                n,
                m,
                box.width * points,
                box.height * points,
                max(1, min(max_pixels, int(box.height))),
                max(1, min(max_pixels, int(box.width))),
                is_ours=False,
            )
        import matplotlib.pyplot as plt

        longest = float(np.clip(0.55 * max(n, m), 2.4, 5.4))
        width, height = longest / max(1.0, ratio), longest * min(1.0, ratio)
        size = (width + 2.4, height + 2.0)
        # A whole number of dots per pixel, so that all pixels are equally large.
        needed = -(-pixel_rows * width // (pixel_columns * height))
        dots = max(1, round(140 * width / pixel_columns), needed)
        figure = plt.figure(figsize=size, dpi=float(dots * pixel_columns / width))
        ax = figure.add_axes((1.2 / size[0], 1.0 / size[1], width / size[0], height / size[1]))
        return cls(ax, n, m, 72 * width, 72 * height, max_pixels, max_pixels, is_ours=True)

    def points_per(self, side: str) -> float:
        """Size of one row or column of the matrix in points."""
        return self.height / self.n if side == "rows" else self.width / self.m

    def extent_of(self, text: Any) -> tuple[float, float]:
        """Width and height of a text in points."""
        box, points = text.get_window_extent(), 72 / self.ax.figure.dpi
        return box.width * points, box.height * points

    def fit(self) -> None:
        """Shrink or grow a figure of ours to what is in it, keeping the size of the axes."""
        if not self.is_ours:
            return
        figure, margin = self.ax.figure, 0.12
        box = figure.get_tightbbox()
        old = figure.get_size_inches()
        at = self.ax.get_position()
        width, height = box.width + 2 * margin, box.height + 2 * margin
        left, bottom = at.x0 * old[0] - box.x0 + margin, at.y0 * old[1] - box.y0 + margin
        figure.set_size_inches(width, height)
        self.ax.set_position(
            (
                left / width,
                bottom / height,
                at.width * old[0] / width,
                at.height * old[1] / height,
            )
        )


def _pixels(length: int, most: int) -> int:
    """Count the pixels for so many cells, each pixel standing for equally many."""
    cells = -(-length // most)
    return -(-length // cells)


def draw_cells(sheet: Sheet, binned: Binned, center: float, limit: float | None, cmap: Any) -> None:
    """Draw the pixels in units of rows and columns; the limit is the largest value if None."""
    if limit is None:
        finite = binned.pixels[np.isfinite(binned.pixels)]
        limit = float(np.max(np.abs(finite - center), initial=0.0)) or 1.0
    height, width = binned.pixels.shape
    sheet.ax.imshow(
        binned.pixels,
        cmap=colour_map(cmap),
        norm=ZeroIsWhite(limit, center),
        interpolation="nearest",
        aspect="auto",
        extent=(-0.5, width * binned.cells[1] - 0.5, height * binned.cells[0] - 0.5, -0.5),
    )
    # The last pixels may reach beyond the matrix.
    sheet.ax.set_xlim(-0.5, sheet.m - 0.5)
    sheet.ax.set_ylim(sheet.n - 0.5, -0.5)
    for spine in sheet.ax.spines.values():
        spine.set(color=FAINT, linewidth=0.6)


def write_numbers(sheet: Sheet, binned: Binned, *, even_if_small: bool) -> None:
    """Write each number into its cell, in black or white, if the numbers can be read."""
    if binned.is_reduced:
        return
    values = binned.pixels
    image = sheet.ax.images[0]
    texts = cell_texts(values)
    longest = max(len(text) for text in texts.flat)
    # A digit is about 0.6 of the font size wide; leave some space around the number.
    fitting = min(sheet.points_per("columns") / (0.75 * longest), sheet.points_per("rows") / 1.5)
    if fitting < SMALLEST_NUMBER and not even_if_small:
        return
    size = float(np.clip(fitting, 1.0, NUMBER_SIZE))
    backgrounds = image.cmap(image.norm(values))
    for (i, j), text in np.ndenumerate(texts):
        ink = readable_on(tuple(backgrounds[i, j]))
        sheet.ax.text(j, i, text, ha="center", va="center", fontsize=size, color=ink)


def label_axis(sheet: Sheet, side: str, labels: list[str] | None) -> None:
    """Label the rows or columns, or number some of them where there is no room for labels."""
    ax, room = sheet.ax, sheet.points_per(side)
    axis = ax.yaxis if side == "rows" else ax.xaxis
    axis.set_tick_params(labelsize=LABEL_SIZE, length=2.5, width=0.6, color=FAINT)
    length = sheet.n if side == "rows" else sheet.m
    if labels is None or room < 1.1 * LABEL_SIZE:
        axis.set_label_text(side[:-1], fontsize=LABEL_SIZE + 0.5, color=FAINT)
        if length <= 12 and room > 2 * LABEL_SIZE:
            axis.set_ticks(np.arange(length))
            return
        ticks = max(2, int((sheet.height if side == "rows" else sheet.width) // 45))
        axis.set_major_locator(MaxNLocator(min(ticks, 8), steps=[1, 2, 5, 10], integer=True))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        return
    name_ticks(axis, np.arange(length), labels)
    axis.set_tick_params(length=0)
    if side == "columns":
        widest = max(sheet.extent_of(text)[0] for text in axis.get_ticklabels())
        if widest > room - 2:
            axis.set_tick_params(rotation=90)


def _separate(sheet: Sheet, side: str, spans: list[tuple[str, int, int]]) -> None:
    """Draw lines between groups unless they are too narrow for lines."""
    if not spans:
        return
    narrow = float(np.median([stop - start for _, start, stop in spans]))
    if narrow * sheet.points_per(side) < 10:
        return
    length = sheet.n if side == "rows" else sheet.m
    line = sheet.ax.axhline if side == "rows" else sheet.ax.axvline
    edges = {edge for _, start, stop in spans for edge in (start, stop)} - {0, length}
    for edge in sorted(edges):
        line(edge - 0.5, color=LINE, linewidth=0.6)


def _readable(
    sheet: Sheet, side: str, spans: list[tuple[str, int, int]]
) -> list[tuple[str, float]]:
    """Choose names to write, with the centres of their groups, a line of text apart at least."""
    chosen: list[tuple[str, float]] = []
    for label, start, stop in sorted(spans, key=lambda span: span[1]):
        centre = (start + stop - 1) / 2
        if not chosen or (centre - chosen[-1][1]) * sheet.points_per(side) >= 1.15 * LABEL_SIZE:
            chosen.append((label, centre))
    return chosen


def draw_column_groups(sheet: Sheet, spans: list[tuple[str, int, int]]) -> float:
    """Name the groups above the picture; return the height used, in points."""
    _separate(sheet, "columns", spans)
    names = _readable(sheet, "columns", spans)
    texts = [
        literal(
            sheet.ax.annotate(
                label,
                (centre, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=LABEL_SIZE,
                color=INK,
                annotation_clip=False,
            )
        )
        for label, centre in names
    ]
    widths = np.array([sheet.extent_of(text)[0] for text in texts])
    gaps = np.diff([centre for _, centre in names]) * sheet.points_per("columns")
    if np.any((widths[:-1] + widths[1:]) / 2 + 4 > gaps):
        for text in texts:
            text.set_rotation(90)
    return max((sheet.extent_of(text)[1] + 3 for text in texts), default=0.0)


def draw_row_groups(sheet: Sheet, spans: list[tuple[str, int, int]]) -> float:
    """Name the groups at the right of the picture; return the width used, in points."""
    _separate(sheet, "rows", spans)
    used = 0.0
    for label, centre in _readable(sheet, "rows", spans):
        text = sheet.ax.annotate(
            label,
            (1, centre),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            ha="left",
            va="center",
            fontsize=LABEL_SIZE,
            color=INK,
            annotation_clip=False,
        )
        literal(text)
        used = max(used, sheet.extent_of(text)[0] + 4)
    return used


def write_heading(sheet: Sheet, title: str | None, dimensions: str, above: float) -> None:
    """Write the title and the dimensions, so many points above the axes."""
    line = sheet.ax.annotate(
        dimensions,
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, above + 4),
        textcoords="offset points",
        ha="left",
        va="bottom",
        fontsize=LABEL_SIZE + 0.5,
        color=FAINT,
        annotation_clip=False,
    )
    if title is not None:
        height = sheet.extent_of(line)[1]
        heading = sheet.ax.set_title(
            title, loc="left", fontsize=TITLE_SIZE, color=INK, pad=above + height + 8
        )
        if isinstance(title, Name):
            literal(heading)


def draw_scale(sheet: Sheet, text: str, right: float, *, one_sided: bool) -> None:
    """Draw the colour scale at the right, beyond the names of the row groups.

    Parameters
    ----------
    sheet : Sheet
        The picture, its cells drawn.
    text : str
        What the values are.
    right : float
        Width taken by the names of the row groups, in points.
    one_sided : bool
        Whether to show only the half above the centre.
    """
    image = sheet.ax.images[0]
    norm = image.norm
    # In points, so that it looks alike beside a small and a large picture.
    place = sheet.ax.inset_axes(
        (1 + (right + 10) / sheet.width, 0, 10 / sheet.width, 1), transform=sheet.ax.transAxes
    )
    scale = sheet.ax.figure.colorbar(
        ScalarMappable(Normalize(norm.vmin, norm.vmax), image.cmap), cax=place
    )
    scale.locator = MaxNLocator(max(3, min(8, int(sheet.height // 30))), steps=[1, 2, 5, 10])
    scale.set_label(text, fontsize=LABEL_SIZE + 1, color=INK)
    place.tick_params(labelsize=LABEL_SIZE, length=2.5, width=0.6, color=FAINT)
    scale.outline.set(color=FAINT, linewidth=0.6)
    if one_sided:
        place.set_ylim(norm.center, norm.vmax)
