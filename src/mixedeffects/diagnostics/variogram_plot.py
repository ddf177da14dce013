"""Drawing a semivariogram; matplotlib is imported only when one is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mixedeffects.base.options import checked_text
from mixedeffects.display.lettering import literal, one_line, short
from mixedeffects.display.panels import one_axes
from mixedeffects.display.points import EMPIRICAL, FAINT, IMPLIED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Drawing", "draw_variogram"]


@dataclass(frozen=True)
class Drawing:
    """What the picture calls things.

    Attributes
    ----------
    has_units : bool
        Whether the residuals have those of the response.
    of : str
        Which residuals, after "semivariance".
    implied : str
        What the line is.
    band : str
        What the band is; empty where there is none.
    """

    has_units: bool
    of: str = ""
    implied: str = "implied by V"
    band: str = ""


def draw_variogram(
    table: pd.DataFrame, distance: str, called: Drawing, sentence: str, ax: Any, units: str | None
) -> Axes:
    """Points for what the residuals show, a line for what V implies.

    Parameters
    ----------
    table : DataFrame
        Columns ``distance``, ``n_pairs``, ``empirical`` and ``implied``; with a band also
        ``lower`` and ``upper``.
    distance : str
        What it is the distance in.
    called : Drawing
        What residuals, line and band are.
    sentence : str
        What was done, with a colon before the pairs.
    ax : matplotlib.axes.Axes or None
        Where to draw; None makes a figure.
    units : str or None
        Squared units of the response.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    axes = one_axes(ax, (5.6, 3.8))
    share = table["n_pairs"] / table["n_pairs"].max()
    axes.scatter(
        table["distance"],
        table["empirical"],
        s=np.maximum(70.0 * share, 8.0),
        color=EMPIRICAL,
        label="residuals (area: number of pairs)",
        zorder=3,
    )
    axes.plot(
        table["distance"],
        table["implied"],
        color=IMPLIED,
        linewidth=1.6,
        # A line through one point cannot be seen.
        marker="D" if len(table) == 1 else "",
        label=called.implied,
    )
    top = [table["empirical"].max(), table["implied"].max()]
    if called.band:
        low, high = table["lower"], table["upper"]
        if len(table) == 1:
            axes.vlines(table["distance"], low, high, color=IMPLIED, alpha=0.4, label=called.band)
        else:
            axes.fill_between(
                table["distance"], low, high, color=IMPLIED, alpha=0.15, lw=0.0, label=called.band
            )
        top.append(high.max())
    axes.set_ylim(0.0, 1.25 * max(top))
    name = short(distance, 40)
    literal(axes.set_xlabel(name if name == "distance" else f"difference in {name}"))
    units = checked_text(units, "units")
    unit = "" if units is None or not called.has_units else f" ({units})"
    axes.set_ylabel(f"semivariance{called.of}{unit}")
    head, _, pairs = sentence.partition(": ")
    literal(axes.set_title(f"{one_line(head)}\n", loc="left", fontsize=10))
    literal(
        axes.text(0.0, 1.02, one_line(pairs), transform=axes.transAxes, fontsize=8, color=FAINT)
    )
    axes.legend(frameon=False, fontsize=8.5, loc="upper left", ncols=2)
    axes.spines[["top", "right"]].set_visible(False)
    return axes
