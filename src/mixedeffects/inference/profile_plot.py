"""Drawing profile zeta; matplotlib is imported only when one is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.interpolate
import scipy.stats
from numpy.typing import NDArray

from mixedeffects.display.panels import as_pictures, axes_for, chosen_parameters, name_below
from mixedeffects.display.points import EMPIRICAL, FAINT, IMPLIED, few_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_profile"]

Matrix = NDArray[np.float64]

LEVELS = (0.50, 0.80, 0.90, 0.95, 0.99)


def draw_profile(
    curves: dict[str, tuple[Matrix, Matrix]],
    highest: float,
    parameters: Any,
    absolute: bool,
    ax: Any,
) -> Axes | NDArray[Any]:
    """Values and zeta of each parameter, up to the highest level; see `Profile.plot`."""
    names = chosen_parameters(parameters, list(curves))
    axes, given = axes_for(len(names), ax)
    shown = [level for level in LEVELS if level <= highest + 1e-9]
    for name, each in zip(names, axes, strict=True):
        _draw_curve(each, *curves[name], shown, absolute)
        name_below(each, name)
        few_ticks(each)
        each.set_ylabel("|ζ|" if absolute else "ζ")
        each.spines[["top", "right"]].set_visible(False)
    if not given and shown:
        levels = ", ".join(f"{100 * level:g}" for level in shown)
        axes[0].figure.suptitle(f"Profile zeta with {levels} % intervals", fontsize=10, color=FAINT)
    return axes[0] if len(names) == 1 else as_pictures(axes)


def _draw_curve(ax: Any, value: Matrix, zeta: Matrix, levels: list[float], absolute: bool) -> None:
    smooth = scipy.interpolate.PchipInterpolator(value, zeta)
    grid = np.unique(np.concatenate([np.linspace(value[0], value[-1], 300), value]))
    line = smooth(grid)
    turned = np.abs(line) if absolute else line
    for level in levels:
        z = float(scipy.stats.norm.ppf(0.5 + level / 2.0))
        ends = [_crossing(grid, line, side * z) for side in (-1.0, 1.0)]
        # An interval without an end within the profile goes as far as the parameter.
        low = value[0] if ends[0] is None else ends[0]
        high = value[-1] if ends[1] is None else ends[1]
        if absolute:
            ax.hlines(z, low, high, color=IMPLIED, linewidth=1.0)
        for end, height in zip(ends, (-z, z), strict=True):
            if end is not None:
                top = z if absolute else height
                ax.vlines(end, 0.0, top, color=IMPLIED, linewidth=1.0)
    ax.axhline(0.0, color=FAINT, linewidth=0.6)
    ax.plot(grid, turned, color=EMPIRICAL, linewidth=1.6)
    ax.plot(
        value,
        np.abs(zeta) if absolute else zeta,
        linestyle="none",
        marker="o",
        markersize=2.6,
        color=EMPIRICAL,
    )


def _crossing(grid: Matrix, line: Matrix, height: float) -> float | None:
    """Where a line that rises reaches a height."""
    if not line[0] <= height <= line[-1]:
        return None
    return float(np.interp(height, np.maximum.accumulate(line), grid))
