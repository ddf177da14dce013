"""Drawing effects; matplotlib is imported only then."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.options import member, plain
from mixedeffects.display.curves import Cloud, Sheet, draw_sheet
from mixedeffects.display.needs_matplotlib import require_matplotlib
from mixedeffects.display.panels import as_pictures
from mixedeffects.display.vocabulary import intervals_at
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.inference.effects_rows import Behind, level_lines, row_points
from mixedeffects.inference.means_layout import layout_of_means

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mixedeffects.inference.marginal_means import MarginalMeans

__all__ = ["draw_effects"]


def draw_effects(
    means: MarginalMeans,
    table: pd.DataFrame,
    fit: Fit,
    ax: Any,
    data: Any,
    groups: Any,
    factor: str | None,
) -> Axes | NDArray[Any]:
    """See `Effects.plot`.

    Parameters
    ----------
    means : MarginalMeans
        The effects.
    table : DataFrame
        The same as `Effects.to_frame` has them.
    fit : Fit
        The fit.
    ax, data, groups, factor
        As for `Effects.plot`.
    """
    require_matplotlib()
    data = plain(data)
    if not (isinstance(data, bool) or member(data, ("partial",))):
        raise ModelError(f"data must be True, False or 'partial', not {data!r:.60}.")
    if groups is None and factor is not None:
        raise ModelError("factor= says whose levels groups= draws; add groups='all'.")
    layout = layout_of_means(means)
    panels = layout.panels(table)
    notes = [intervals_at(means.level)]
    if groups is not None:
        strands, sentence = level_lines(fit, means, layout, groups, factor)
        notes.append(sentence)
        panels = [
            replace(
                panel, strands=tuple((s.series, s.x, s.y) for s in strands if s.panel == number)
            )
            for number, panel in enumerate(panels)
        ]
    if data:
        behind = row_points(fit, means, layout, "partial" if data == "partial" else "raw")
        what = "partial residuals" if data == "partial" else f"rows{_brought(behind, fit, means)}"
        notes.append(f"{len(behind.x):,} {what}")
        if behind.left_out:
            notes[-1] += f" ({behind.left_out:,} beyond the picture)"
        panels = [
            replace(panel, cloud=_cloud(behind, behind.panel == number))
            for number, panel in enumerate(panels)
        ]
    sheet = Sheet(
        tuple(panels),
        layout.x_name,
        means.scale.shown,
        layout.categories,
        layout.series_names,
        layout.series_name,
        layout.ordered,
        note="; ".join(notes),
    )
    axes = draw_sheet(sheet, ax)
    return axes[0] if not means.by else as_pictures(axes)


def _brought(behind: Behind, fit: Fit, means: MarginalMeans) -> str:
    """What was done to rows whose offset is not that of the effects."""
    if not behind.brought:
        return ""
    exposure, grid = fit.request.exposure, means.average.grid
    if isinstance(exposure, str) and fit.request.offset is None:
        points = grid[exposure].points
        if len(points) == 1:
            return f", in proportion to {exposure} = {points[0]:.4g}"
    return ", at the offset of the effects"


def _cloud(behind: Any, rows: NDArray[np.bool_]) -> Cloud:
    return Cloud(behind.x[rows], behind.y[rows], behind.series[rows])
