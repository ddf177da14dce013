"""Drawing a semivariogram; matplotlib is imported only when one is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedeffects.display.lettering import literal, one_line, short
from mixedeffects.display.panels import one_axes
from mixedeffects.options import checked_text

if TYPE_CHECKING:
    from mixedeffects.variogram import Variogram

__all__ = ["draw_variogram"]

EMPIRICAL = "#2166ac"
IMPLIED = "#b2182b"
FAINT = "#6b6b6b"


def draw_variogram(variogram: Variogram, ax: Any, units: str | None) -> Any:
    """Points for what the residuals show, a line for what V implies.

    Parameters
    ----------
    variogram : Variogram
        What to draw.
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
    ax = one_axes(ax, (5.6, 3.8))
    table = variogram.table
    share = table["n_pairs"] / table["n_pairs"].max()
    ax.scatter(
        table["distance"],
        table["empirical"],
        s=np.maximum(70.0 * share, 8.0),
        color=EMPIRICAL,
        label="residuals (area: number of pairs)",
        zorder=3,
    )
    ax.plot(table["distance"], table["implied"], color=IMPLIED, linewidth=1.6, label="implied by V")
    ax.set_ylim(0.0, 1.25 * max(table["empirical"].max(), table["implied"].max()))
    name = short(variogram.distance, 40)
    literal(ax.set_xlabel(name if name == "distance" else f"difference in {name}"))
    units = checked_text(units, "units")
    whitened = variogram.kind != "marginal"
    unit = "" if units is None or whitened else f" ({units})"
    ax.set_ylabel(f"semivariance{unit}")
    head, _, pairs = variogram.sentence().partition(": ")
    literal(ax.set_title(f"{one_line(head)}\n", loc="left", fontsize=10))
    literal(ax.text(0.0, 1.02, one_line(pairs), transform=ax.transAxes, fontsize=8, color=FAINT))
    ax.legend(frameon=False, fontsize=8.5, loc="upper left", ncols=2)
    ax.spines[["top", "right"]].set_visible(False)
    return ax
