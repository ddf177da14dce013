"""Drawing power against the size of a design; matplotlib is imported only then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mixedeffects.display.lettering import literal, short
from mixedeffects.display.panels import axes_for
from mixedeffects.display.points import EMPIRICAL, FAINT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_power"]


def draw_power(table: pd.DataFrame, along: str, title: str, ax: Any) -> Axes:
    """Power with its intervals against the size of the design; see `Power.plot`."""
    (axes,), _ = axes_for(1, ax, size=(5.6, 3.6))
    table = table.sort_values("n")
    bars = np.abs(table[["lower", "upper"]].to_numpy() - table[["power"]].to_numpy()).T
    axes.errorbar(
        table["n"], table["power"], yerr=bars, color=EMPIRICAL, marker="o", capsize=3, linewidth=1.4
    )
    axes.axhline(0.8, color=FAINT, linewidth=0.8, linestyle=":")
    axes.set_ylim(0.0, 1.02)
    literal(axes.set_xlabel(short(along, 40)))
    axes.set_ylabel("power")
    literal(axes.set_title(title, loc="left", fontsize=10))
    axes.spines[["top", "right"]].set_visible(False)
    return axes
