"""Where to draw: axes given, or those of a new figure with one or several small pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixedeffects.base.options import checked_names, is_listed
from mixedeffects.display.lettering import fitted, literal
from mixedeffects.display.needs_matplotlib import require_matplotlib
from mixedeffects.errors import ModelError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = [
    "Pictures",
    "as_pictures",
    "axes_for",
    "checked_axes",
    "chosen_parameters",
    "name_below",
    "one_axes",
]


class Pictures(np.ndarray):
    """An array of axes that knows the figure they are on, as each of them does.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> sheet = Figure()
    >>> as_pictures(list(sheet.subplots(1, 2))).figure is sheet
    True
    """

    @property
    def figure(self) -> Figure | SubFigure:
        """The figure that the first of them is on: ``.figure.savefig("name.png")``."""
        figure: Figure | SubFigure = self.flat[0].figure
        return figure


def as_pictures(axes: Sequence[Axes]) -> Pictures:
    """Axes as an array of one dimension, with the figure."""
    return np.array(axes).view(Pictures)


def chosen_parameters(parameters: Any, known: Sequence[str]) -> list[str]:
    """Names to draw: all, one, or a list of them.

    Raises
    ------
    ModelError
        If a name is not known.
    """
    if parameters is None:
        return list(known)
    names = checked_names(parameters, "parameters")
    for name in names:
        if name not in known:
            listed = ", ".join(repr(each) for each in known)
            raise ModelError(f"There is no parameter {name!r:.60}; there are {listed}.")
    if not names:
        raise ModelError("parameters is empty, so there is nothing to draw.")
    return names


def one_axes(ax: Any, size: tuple[float, float] = (5.6, 4.0)) -> Axes:
    """The axes given, or those of a new figure.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    require_matplotlib()
    if ax is not None:
        return checked_axes(ax)
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=size, layout="constrained")[1]


def checked_axes(ax: Any) -> Axes:
    """Axes of matplotlib.

    Raises
    ------
    ModelError
        If it is something else.
    """
    from matplotlib.axes import Axes

    if not isinstance(ax, Axes):
        raise ModelError(f"ax must be Axes of matplotlib, or None for new ones, not {ax!r:.60}.")
    return ax


def axes_for(
    count: int, ax: Any, size: tuple[float, float] = (3.0, 2.3), most: int = 3
) -> tuple[list[Axes], bool]:
    """So many axes, and whether the caller gave them; unused ones of a new figure are hidden.

    A new figure has at most three columns, or ``most``.

    Raises
    ------
    ModelError
        If the number of axes given is another.
    ImportError
        If matplotlib is not installed.
    """
    require_matplotlib()
    if ax is not None:
        given = list(getattr(ax, "flat", ax)) if is_listed(ax) else [ax]
        given = [checked_axes(each) for each in given]
        if len(given) != count:
            raise ModelError(
                f"ax holds {len(given)} axes, but there are {count} pictures to draw; give one "
                "for each, or None for a new figure."
            )
        return given, True
    import matplotlib.pyplot as plt

    columns = min(count, most) if count != 4 else 2
    rows = math.ceil(count / columns)
    _, grid = plt.subplots(
        rows,
        columns,
        figsize=(max(size[0] * columns, 4.0), size[1] * rows + 0.4),
        layout="constrained",
        squeeze=False,
    )
    axes = list(grid.flat)
    for unused in axes[count:]:
        unused.set_visible(False)
    return axes[:count], False


def name_below(ax: Axes, name: object) -> None:
    """Write what a small picture is of below it, in two lines where one has not the room."""
    wide = ax.get_window_extent().width * 72.0 / ax.figure.dpi
    literal(ax.set_xlabel(fitted(name, 1.1 * wide, 10.0, 2)))
