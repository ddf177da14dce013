"""Histograms of bootstrap draws; matplotlib is imported only when they are drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.display.panels import as_pictures, axes_for, chosen_parameters, name_below
from mixedeffects.display.points import EMPIRICAL, FAINT, IMPLIED, few_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_bootstrap"]


def draw_bootstrap(
    draws: pd.DataFrame,
    estimates: pd.Series,
    intervals: pd.DataFrame,
    level: float,
    parameters: Any,
    ax: Any,
) -> Axes | NDArray[Any]:
    """Histograms of draws, with the estimates and intervals; see `Bootstrap.plot`."""
    names = chosen_parameters(parameters, list(draws.columns))
    axes, given = axes_for(len(names), ax)
    for name, each in zip(names, axes, strict=True):
        values = draws[name].dropna().to_numpy()
        if len(values):
            each.hist(values, bins=min(60, max(10, int(np.sqrt(len(values))))), color="#92c5de")
        each.axvline(estimates[name], color=IMPLIED, linewidth=1.4)
        for bound in intervals.columns:
            each.axvline(
                float(intervals.loc[[name], bound].iloc[0]),
                color=EMPIRICAL,
                linewidth=1.2,
                linestyle="--",
            )
        name_below(each, name)
        few_ticks(each)
        each.set_yticks([])
        each.spines[["top", "right", "left"]].set_visible(False)
    if not given:
        figure = axes[0].figure
        figure.suptitle(
            f"{len(draws):,} refits: estimate (solid) and {100 * level:g} % interval (dashed)",
            fontsize=10,
            color=FAINT,
        )
    return axes[0] if len(names) == 1 else as_pictures(axes)
