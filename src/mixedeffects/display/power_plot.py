"""Drawing power against the size of a design; matplotlib is imported only then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixedeffects.display.lettering import literal, short
from mixedeffects.display.panels import axes_for
from mixedeffects.display.variogram_plot import EMPIRICAL, FAINT

if TYPE_CHECKING:
    from mixedeffects.power import Power

__all__ = ["draw_power"]


def draw_power(power: Power, ax: Any) -> Any:
    """See `Power.plot`."""
    (ax,), _ = axes_for(1, ax, size=(5.6, 3.6))
    table = power.table.sort_values("n")
    bars = np.abs(table[["lower", "upper"]].to_numpy() - table[["power"]].to_numpy()).T
    ax.errorbar(
        table["n"], table["power"], yerr=bars, color=EMPIRICAL, marker="o", capsize=3, linewidth=1.4
    )
    ax.axhline(0.8, color=FAINT, linewidth=0.8, linestyle=":")
    ax.set_ylim(0.0, 1.02)
    literal(ax.set_xlabel(short(power.along, 40)))
    ax.set_ylabel("power")
    title = f"{short(power.test, 60)}, level {power.alpha:g}"
    literal(ax.set_title(title, loc="left", fontsize=10))
    ax.spines[["top", "right"]].set_visible(False)
    return ax
