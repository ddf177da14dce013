"""What is drawn behind effects: rows of the data, partial residuals, and levels' own lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.options import checked_choice, is_listed, is_whole_number
from mixedeffects.covariance.groups import find_factor, find_level
from mixedeffects.covariance.of_fit import fitted_values
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.generalized import generalized
from mixedeffects.formula.values import Factor
from mixedeffects.frame.model_frame import RandomTerm
from mixedeffects.frame.variables import Columns
from mixedeffects.inference.grid_averages import z_of_cells
from mixedeffects.inference.means_layout import Layout
from mixedeffects.inference.reference_grid import GridVariable

if TYPE_CHECKING:
    from mixedeffects.inference.marginal_means import MarginalMeans

__all__ = ["Behind", "Strand", "level_lines", "row_points"]

Matrix = NDArray[np.float64]
Codes = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Behind:
    """Points of rows: coordinates, series and panel of each, and how many have no place.

    ``brought`` says whether responses are what they would be at the offset of the effects.
    """

    x: Matrix
    y: Matrix
    series: Codes
    panel: Codes
    left_out: int
    brought: bool = False


@dataclass(frozen=True, eq=False)
class Strand:
    """The line of one level in one series of one panel."""

    series: int
    panel: int
    x: Matrix
    y: Matrix


@dataclass(frozen=True, eq=False)
class _Places:
    """Where each row of the data belongs: -1 for one whose levels are not drawn."""

    x: Matrix
    series: Codes
    panel: Codes


def row_points(fit: Fit, means: MarginalMeans, layout: Layout, kind: str) -> Behind:
    """The rows of the data among the effects.

    Parameters
    ----------
    fit : Fit
        The fit.
    means : MarginalMeans
        The effects.
    layout : Layout
        Where they are drawn.
    kind : {"raw", "partial"}
        Responses, or effects with the conditional residuals added.

    Notes
    -----
    Counts of an hour and of a day have no common axis. Where the model has an offset that the link
    carries over to the response, by a sum or a factor, responses are shown at that of the effects.
    """
    places = _places(fit, means, layout)
    y = fit.frame.y
    brought = False
    if kind == "partial":
        eta = _interpolated(means.estimates.estimate, layout, places)
        eta = eta + fit.residuals_at(fitted_values(fit))
        shown = eta if means.scale.way is None else means.scale.way.inverse(eta)
    else:
        brought = _carries_offset(fit)
        if brought:
            assert fit.frame.offset is not None
            y = _moved(fit, _interpolated(means.constant, layout, places) - fit.frame.offset)
        shown = means.scale.of_data(y)
    fine = (places.series >= 0) & (places.panel >= 0) & np.isfinite(places.x) & np.isfinite(shown)
    if layout.categories is None:
        fine &= (places.x >= layout.x.min()) & (places.x <= layout.x.max())
    rows = np.flatnonzero(fine)
    return Behind(
        places.x[rows],
        np.asarray(shown)[rows],
        places.series[rows],
        places.panel[rows],
        len(y) - len(rows),
        brought,
    )


def _carries_offset(fit: Fit) -> bool:
    """Whether rows have different offsets that the link carries over to the response."""
    offset = fit.frame.offset
    if offset is None or np.ptp(offset) == 0.0:
        return False
    return not fit.has_link or generalized(fit).family.link.name in ("log", "identity")


def _moved(fit: Fit, shift: Matrix) -> Matrix:
    """Responses with so much added to their linear predictors."""
    y = fit.frame.y
    if fit.has_link and generalized(fit).family.link.name == "log":
        return np.asarray(y * np.exp(shift))
    return np.asarray(y + shift)


def _interpolated(values: Matrix, layout: Layout, places: _Places) -> Matrix:
    """What each mean has, at each row; straight between points of the grid."""
    out = np.full(len(places.x), np.nan)
    for s in range(len(layout.series_names)):
        for p in range(len(layout.panel_names)):
            own = np.flatnonzero((layout.series == s) & (layout.panel == p))
            rows = np.flatnonzero((places.series == s) & (places.panel == p))
            rows = rows[np.isfinite(places.x[rows])]
            if len(own) and len(rows):
                own = own[np.argsort(layout.x[own], kind="stable")]
                out[rows] = np.interp(places.x[rows], layout.x[own], values[own])
    return out


def _places(fit: Fit, means: MarginalMeans, layout: Layout) -> _Places:
    grid, columns = means.average.grid, Columns(fit.frame.data)
    levels = means.levels
    by_code = {
        name: _code_of_point(levels[name], grid[name])[_points(grid[name], columns)]
        for name in map(str, levels)
        if name != layout.x_name
    }
    if layout.names:
        first = grid[layout.x_name]
        if layout.categories is None:
            x = np.asarray(columns[first.name][0], dtype=np.float64)
        else:
            at = _code_of_point(levels[first.name], first)[_points(first, columns)]
            x = np.where(at < 0, np.nan, at)
    else:
        x = np.zeros(fit.nobs)
    n = fit.nobs
    series = _matched(levels, layout.names[1:], by_code, layout.series, n)
    panel = _matched(levels, means.by, by_code, layout.panel, n)
    return _Places(x.astype(np.float64), series, panel)


def _points(variable: GridVariable, columns: Columns) -> Codes:
    """The point of the grid of each row: its own, or of a covariate the nearest."""
    value = columns[variable.name][0]
    if variable.counted or isinstance(value, Factor):
        return variable.rows(value)
    points = np.asarray(variable.points, dtype=np.float64)
    order = np.argsort(points)
    middle = (points[order][1:] + points[order][:-1]) / 2.0
    return np.asarray(order[np.searchsorted(middle, np.asarray(value, dtype=np.float64))])


def _code_of_point(column: Any, variable: GridVariable) -> Codes:
    """For each point of an axis, and last for none, its code in a column of the table."""
    points = list(variable.points)
    if isinstance(column.dtype, pd.CategoricalDtype):
        known = {label: code for code, label in enumerate(column.cat.categories)}
        codes = [known.get(point, -1) for point in points]
    else:
        values = np.unique(column.to_numpy())
        codes = [int(np.searchsorted(values, point)) for point in points]
    return np.array([*codes, -1], dtype=np.intp)


def _codes_of(column: Any) -> Codes:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return np.asarray(column.cat.codes.to_numpy(), dtype=np.intp)
    return np.asarray(np.unique(column.to_numpy(), return_inverse=True)[1], dtype=np.intp)


def _matched(
    levels: pd.DataFrame, names: Sequence[str], rows: dict[str, Codes], own: Codes, n: int
) -> Codes:
    """The series, or panel, of each row of the data; -1 for a combination that is not drawn."""
    if not names:
        return np.zeros(n, dtype=np.intp)
    shape = tuple(int(_codes_of(levels[name]).max()) + 1 for name in names)
    lookup = np.full(int(np.prod(shape)), -1, dtype=np.intp)
    lookup[np.ravel_multi_index(tuple(_codes_of(levels[name]) for name in names), shape)] = own
    codes = [rows[name] for name in names]
    there = np.logical_and.reduce([each >= 0 for each in codes])
    out = np.full(n, -1, dtype=np.intp)
    out[there] = lookup[np.ravel_multi_index(tuple(each[there] for each in codes), shape)]
    return out


# --- lines of levels -------------------------------------------------------------------


def level_lines(
    fit: Fit, means: MarginalMeans, layout: Layout, groups: Any, factor: str | None
) -> tuple[list[Strand], str]:
    """Effects with what the random effects of levels of a grouping factor add to them.

    Parameters
    ----------
    fit : Fit
        The fit.
    means, layout
        The effects, and where they are drawn.
    groups : "all", int or list
        Which levels.
    factor : str or None
        The grouping factor; None takes the one with most levels.

    Returns
    -------
    strands : list of Strand
    sentence : str
        What they are.
    """
    own = fit.frame.terms[0] if factor is None else find_factor(fit.frame.terms, factor)
    levels = _chosen(own, groups)
    terms = [t for t, term in enumerate(fit.frame.terms) if _level_in(own, term) is not None]
    shift = np.zeros((len(means.levels), len(levels)))
    for t in terms:
        term = fit.frame.terms[t]
        z = means.average.of(z_of_cells(fit, means.average.grid, t))
        inside = _level_in(own, term)
        assert inside is not None
        shift += z @ fit.modes[t][inside[levels]].T
    eta = means.estimates.estimate[:, None] + shift
    way = means.scale.way
    y = eta if way is None else way.inverse(eta)

    places = _places(fit, means, layout)
    strands = []
    for column, level in enumerate(levels):
        rows = np.flatnonzero(own.codes == level)
        drawn = set(zip(places.series[rows].tolist(), places.panel[rows].tolist(), strict=True))
        for s, p in sorted(drawn):
            if s < 0 or p < 0:
                continue
            at = places.x[rows[(places.series[rows] == s) & (places.panel[rows] == p)]]
            at = at[np.isfinite(at)]
            means_of = np.flatnonzero((layout.series == s) & (layout.panel == p))
            x = layout.x[means_of]
            seen = (
                (x >= at.min(initial=np.inf)) & (x <= at.max(initial=-np.inf))
                if layout.categories is None
                else np.isin(x, at)
            )
            means_of = means_of[seen]
            means_of = means_of[np.argsort(layout.x[means_of], kind="stable")]
            if len(means_of) > 1:
                strands.append(Strand(s, p, layout.x[means_of], y[means_of, column]))
    count, total = len(levels), own.n_levels
    which = f"all {total:,}" if count == total else f"{count:,} of {total:,}"
    return strands, f"thin lines: {which} levels of {own.group}"


def _chosen(term: RandomTerm, groups: Any) -> Codes:
    total = term.n_levels
    if is_listed(groups):
        found = [find_level(term, each) for each in groups]
        if not found:
            raise ModelError("groups is empty, so there are no lines to draw; leave it out.")
        return np.array(list(dict.fromkeys(found)), dtype=np.intp)
    if isinstance(groups, str):
        checked_choice(groups, "groups", ("all",), ", a number of levels, or a list of them")
        return np.arange(total)
    if not is_whole_number(groups):
        raise ModelError(
            f"groups is 'all', a whole number of levels, or a list of them; not {groups!r:.60}."
        )
    count = min(int(groups), total)
    return np.unique(np.linspace(0, total - 1, count).round().astype(np.intp))


def _level_in(inner: RandomTerm, outer: RandomTerm) -> Codes | None:
    """For each level of a factor the level of another it is nested in; None if it is not."""
    pairs = np.unique(np.column_stack([inner.codes, outer.codes]), axis=0)
    if len(pairs) != inner.n_levels:
        return None
    return np.asarray(pairs[:, 1], dtype=np.intp)
