"""Colours of pictures; imported only when a picture is drawn, for it needs matplotlib."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Colormap, ListedColormap, Normalize, to_rgb
from numpy.typing import NDArray

from mixedeffects.base.options import member
from mixedeffects.errors import ModelError

__all__ = [
    "MISSING",
    "SERIES",
    "ZeroIsWhite",
    "colour_map",
    "diverging",
    "readable_on",
    "series_colours",
]

#: Okabe and Ito's colours, which the common kinds of colour blindness can tell apart.
SERIES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000"]


# An odd number, so that one colour in the middle belongs to zero alone.
STEPS = 257
MISSING = "#9a9a9a"
# ColorBrewer's RdBu, safe for the common kinds of colour blindness, without its near-white middle.
NEGATIVE = ["#67001f", "#b2182b", "#d6604d", "#f4a582", "#fbdfcf"]
POSITIVE = ["#d9e9f5", "#92c5de", "#4393c3", "#2166ac", "#053061"]


def series_colours(count: int, ordered: bool) -> list[str]:
    """Colours of several lines: different ones, or from dark to light where they have an order.

    Parameters
    ----------
    count : int
        How many; after seven different ones they begin anew.
    ordered : bool
        Whether they stand for values of a number.
    """
    if not ordered or count < 2:
        return [SERIES[i % len(SERIES)] for i in range(count)]
    from matplotlib.colors import to_hex

    # The light end of the map cannot be seen on white.
    return [to_hex(colormaps["plasma"](each)) for each in np.linspace(0.0, 0.78, count)]


def diverging() -> Colormap:
    """Make the colour map: red below zero, blue above, white for zero and for nothing else.

    Returns
    -------
    matplotlib.colors.Colormap
        With grey for NaN.
    """
    half = STEPS // 2
    colours = np.vstack([_ramp(NEGATIVE, half), np.ones((1, 3)), _ramp(POSITIVE, half)])
    return ListedColormap(colours, name="red_white_blue").with_extremes(bad=MISSING)


def _ramp(anchors: list[str], steps: int) -> NDArray[np.float64]:
    at = np.linspace(0, 1, len(anchors))
    rgb = np.array([to_rgb(anchor) for anchor in anchors])
    return np.column_stack([np.interp(np.linspace(0, 1, steps), at, rgb[:, i]) for i in range(3)])


class ZeroIsWhite(Normalize):
    """A symmetric linear scale in which no value but the centre gets the middle colour.

    However small an entry is, it can be told from a structural zero.

    Parameters
    ----------
    limit : float
        Half the width of the scale.
    center : float
        The value that is white.
    """

    def __init__(self, limit: float, center: float = 0.0) -> None:
        super().__init__(center - limit, center + limit, clip=True)
        self.center = center
        self.limit = limit

    def __call__(self, value: Any, clip: bool | None = None) -> Any:
        """Map values to [0, 1], the centre to 0.5; NaN is masked."""
        given = np.ma.getdata(value)
        scaled = np.clip((np.asarray(given, dtype=np.float64) - self.center) / self.limit, -1, 1)
        # Drawing rescales the values once and back: allow for its rounding.
        side = np.where(np.abs(scaled) < 1e-13, 0.0, np.sign(scaled))
        shares = 0.5 + 0.5 * side * np.maximum(np.abs(scaled), 1.5 / STEPS)
        return np.ma.array(shares, mask=np.isnan(scaled) | np.ma.getmaskarray(value))


def readable_on(background: tuple[float, ...]) -> str:
    """Choose black or white text, whichever has more contrast on the background.

    Parameters
    ----------
    background : tuple of float
        Red, green and blue in [0, 1].

    Returns
    -------
    str
        ``"black"`` or ``"white"``, by the contrast ratio of the Web Content Accessibility
        Guidelines.
    """
    channels = np.array(background[:3])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return "white" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "black"


def colour_map(name: str | Colormap | None) -> Colormap:
    """Find a colour map by name; None means the one of this module.

    Parameters
    ----------
    name : str, matplotlib.colors.Colormap or None
        As matplotlib takes it.

    Returns
    -------
    matplotlib.colors.Colormap
    """
    if name is None:
        return diverging()
    if isinstance(name, Colormap):
        return name
    if not member(name, colormaps):
        raise ModelError(f"cmap must be a colour map or the name of one, not {name!r:.60}.")
    return colormaps[name]
