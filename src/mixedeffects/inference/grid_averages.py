"""Averages of a reference grid's predictions, their slopes, and what to say of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.options import member
from mixedeffects.errors import ModelError
from mixedeffects.fitting.data_summary import data_summary
from mixedeffects.fitting.fit import Fit
from mixedeffects.formula.evaluate import CONSTANTS
from mixedeffects.formula.syntax import variable_names
from mixedeffects.inference.nested_factors import Nesting
from mixedeffects.inference.reference_grid import ReferenceGrid, no_such_variable

__all__ = [
    "WEIGHTS",
    "GridAverage",
    "average_cells",
    "cell_shares",
    "grid_notes",
    "slope_rows",
    "z_of_cells",
]

Matrix = NDArray[np.float64]

#: How predictions are averaged, and how a table says so.
WEIGHTS = {
    "equal": "with equal weights",
    "proportional": "weighted by the number of rows of their levels",
    "cells": "weighted by the number of rows of each cell",
}


# --- averages --------------------------------------------------------------------------


def cell_shares(
    counts: Matrix, axes: Sequence[int], weights: str, nested: Matrix
) -> tuple[Matrix, NDArray[np.bool_]]:
    """Weights of the cells averaged for each mean, (means, cells); means whose cells are empty.

    ``nested`` has the equal weights of the cells, zero for those that cannot exist.
    """
    others = [axis for axis in range(counts.ndim) if axis not in axes]
    means = int(np.prod([counts.shape[axis] for axis in axes], dtype=np.int64))
    found = counts.transpose([*axes, *others]).reshape(means, -1)
    equal = nested.transpose([*axes, *others]).reshape(means, -1)
    if weights == "equal":
        found = equal
    elif weights == "proportional":
        found = np.where(equal > 0.0, found.sum(axis=0), 0.0)
    total = found.sum(axis=1)
    empty = total == 0.0
    found = np.where(empty[:, None], 1.0, found)
    return found / found.sum(axis=1)[:, None], empty


def average_cells(values: Matrix, axes: Sequence[int], share: Matrix) -> Matrix:
    """Averages over the axes that are not named, (means, columns)."""
    others = [axis for axis in range(values.ndim - 1) if axis not in axes]
    cells = values.transpose([*axes, *others, values.ndim - 1])
    average: Matrix = np.einsum("mc,mcp->mp", share, cells.reshape(*share.shape, -1))
    return average


@dataclass(frozen=True, eq=False)
class GridAverage:
    """How means are made of the cells of a grid.

    Attributes
    ----------
    grid : ReferenceGrid
        The cells.
    axes : list of int
        The axes that are kept, the slowest first.
    share : ndarray, shape (combinations, cells averaged)
        Weights.
    kept : ndarray of bool, shape (combinations,)
        The combinations of levels that exist.
    """

    grid: ReferenceGrid
    axes: list[int]
    share: Matrix
    kept: NDArray[np.bool_]

    def of(self, values: Matrix) -> Matrix:
        """Averages of values for each cell, shape (means, columns)."""
        shaped = values.reshape(*self.grid.shape, -1)
        return np.asarray(average_cells(shaped, self.axes, self.share)[self.kept])


def slope_rows(
    grid: ReferenceGrid, fit: Fit, trend: Any, data: pd.DataFrame
) -> tuple[Matrix, Matrix]:
    """Derivative of the columns and the offset by a covariate.

    The difference quotient on five points has no error for polynomials to degree four.
    """
    if not member(trend, grid.names):
        raise no_such_variable(trend, fit, grid.names)
    factors = [c for c in grid.encoder.coders if c.kind != "numeric"]
    in_factor = [c.name for c in factors if trend in variable_names(c.tree)]
    if grid[trend].kind != "number" or in_factor:
        raise ModelError(
            f"{trend!r} is categorical{f' in {in_factor[0]!r}' if in_factor else ''}, so it has no "
            "slope; see m.emmeans for its means."
        )
    values = data_summary(fit).number(trend)
    assert values is not None
    step = 1e-3 * (values.high - values.low)
    rows: Any = 0.0
    offset: Any = 0.0
    for move, factor in ((1, 8.0), (-1, -8.0), (2, -1.0), (-2, 1.0)):
        moved = data.assign(**{trend: data[trend] + move * step})
        rows = rows + factor / (12.0 * step) * grid.rows(moved)
        offset = offset + factor / (12.0 * step) * grid.offset(moved)
    size = np.abs(grid.rows(data)).max(axis=0)
    # Columns without the covariate cancel up to rounding, which would count as not estimable.
    rows[np.abs(rows) < 1e-12 * size / step] = 0.0
    return rows, offset


def z_of_cells(fit: Fit, grid: ReferenceGrid, t: int) -> Matrix:
    """The columns of a random-effects term in the cells of the grid, shape (cells, k).

    A variable that only the random effects have is at its mean, or at its most frequent level.
    """
    encoder = fit.frame.random_encoders[t]
    data = grid.data()
    for name in encoder.variables:
        if name not in data.columns:
            column = fit.frame.data[name]
            numeric = pd.api.types.is_numeric_dtype(column) and not (
                pd.api.types.is_bool_dtype(column)
            )
            value = float(column.mean()) if numeric else column.mode().iloc[0]
            data[name] = pd.Series([value] * len(data), dtype=None if numeric else column.dtype)
    return encoder.encode(data)[0]


# --- notes -----------------------------------------------------------------------------


def grid_notes(
    grid: ReferenceGrid,
    kept: Sequence[str],
    weights: str,
    trend: str | None,
    empty: NDArray[np.bool_],
    lost: NDArray[np.bool_],
    nesting: Nesting,
) -> list[str]:
    """What was averaged over or held fixed, and what to beware of, one text each.

    Parameters
    ----------
    grid : ReferenceGrid
        The grid.
    kept : sequence of str
        The variables that the means belong to.
    weights : str
        One of `WEIGHTS`.
    trend : str or None
        The variable whose slopes are taken.
    empty : ndarray of bool, shape (means,)
        Means whose cells have no rows.
    lost : ndarray of bool, shape (means,)
        Means that are not estimable.
    nesting : dict
        Which factors are nested in which.
    """
    others = [v for v in grid.variables if v.name not in kept]
    averaged = [v.name for v in others if len(v.points) > 1]
    held = [v for v in others if len(v.points) == 1]
    notes = []
    if nesting:
        each = ", ".join(f"{name} in {' and '.join(outer)}" for name, outer in nesting.items())
        notes.append(f"nested factors: {each}; combinations that do not occur are left out")
    if averaged:
        notes.append(f"averaged over {', '.join(averaged)}, {WEIGHTS[weights]}")
    if held:
        each = ", ".join(
            f"{v.name} = {v.points[0]:.5g}" if v.kind == "number" else f"{v.name} = {v.points[0]}"
            for v in held
        )
        notes.append(f"at {each}")
    for one, other in _interactions(grid, kept, trend):
        what = "averaged over" if other in averaged else "held at one value"
        notes.append(
            f"may mislead: {one} interacts with {other}, which is {what}, so that its differences "
            f"depend on {other}"
        )
    if empty.any():
        notes.append(f"{empty.sum()} of {len(empty)} means have no rows: equal weights there")
    if lost.any():
        notes.append(
            f"{lost.sum()} of {len(lost)} are not estimable: the data do not determine them, for "
            "want of rows in some cells or because columns are combinations of others"
            + ("; weights='cells' averages over the cells that have rows" if averaged else "")
        )
    return notes


def _interactions(
    grid: ReferenceGrid, kept: Sequence[str], trend: str | None
) -> list[tuple[str, str]]:
    """Variables of the means that share a term with one that is not, nor was fixed by ``at``."""
    inside = [*kept, *([trend] if trend else [])]
    fixed = [v.name for v in grid.variables if v.chosen and len(v.points) == 1]
    pairs: dict[tuple[str, str], None] = {}
    for term in grid.encoder.table.terms:
        names = [
            name
            for i in term
            for name in variable_names(grid.encoder.coders[i].tree)
            if name in grid.names or name not in CONSTANTS
        ]
        outside = [n for n in names if n not in inside and n not in fixed]
        pairs |= {(one, other): None for one in names if one in inside for other in outside}
    return list(pairs)
