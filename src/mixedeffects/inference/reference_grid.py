"""The reference grid: every combination of the levels of the factors, covariates held fixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.options import meant
from mixedeffects.errors import ModelError
from mixedeffects.fitting.data_summary import data_summary
from mixedeffects.fitting.fit import Fit
from mixedeffects.formula.syntax import Argument, Call, Node, variable_names
from mixedeffects.formula.values import Factor, Value
from mixedeffects.frame.columns import labels_of
from mixedeffects.frame.data_summary import DataSummary, NumberSummary
from mixedeffects.frame.encode import DesignEncoder
from mixedeffects.frame.variables import (
    Columns,
    argument_tree,
    data_columns,
    evaluate_variable,
)
from mixedeffects.inference.contrasts import listed_names

__all__ = [
    "GridVariable",
    "ReferenceGrid",
    "made_a_factor",
    "no_such_variable",
    "reference_grid",
    "stepped_range",
]

Matrix = NDArray[np.float64]

#: Entries of the model matrix of a grid; 400 MB.
_LARGEST = 50_000_000
#: Steps of a range of numbers.
_MOST_STEPS = 10_000


@dataclass(frozen=True, eq=False)
class GridVariable:
    """A column of the data as an axis of the grid.

    Attributes
    ----------
    name : str
        The column.
    points : tuple of str or of float
        Labels of levels, or values of a number, in the order of the axis.
    levels : tuple of str
        Of a factor all labels, used in the grid or not; empty for numbers.
    kind : {"factor", "logical", "number"}
        What the column holds.
    counted : bool
        Whether rows of the data belong to its points: no for a covariate held at its mean or at
        chosen values.
    chosen : bool
        Whether the points were chosen by ``at``.
    ordered : bool
        Whether the levels have an order.
    """

    name: str
    points: tuple[Any, ...]
    levels: tuple[str, ...]
    kind: str
    counted: bool
    chosen: bool
    ordered: bool = False

    def column(self, positions: NDArray[np.intp]) -> Any:
        """Values of the column at points of the axis, as the encoder reads them."""
        if self.kind == "number":
            return np.asarray(self.points, dtype=np.float64)[positions]
        codes = np.array([self.levels.index(point) for point in self.points])[positions]
        if self.kind == "logical":
            return codes == 1
        return _categorical(codes, self.levels, self.ordered)

    def shown(self, positions: NDArray[np.intp]) -> Any:
        """Values for a table: numbers, or labels in the order of the axis."""
        if self.kind == "number":
            return np.asarray(self.points, dtype=np.float64)[positions]
        return _categorical(positions, self.points, self.ordered)

    def rows(self, value: Any) -> NDArray[np.intp]:
        """For each row of the data its point, -1 if it is at none."""
        if isinstance(value, Factor):
            point = {label: i for i, label in enumerate(self.points)}
            lookup = np.array([point.get(label, -1) for label in value.levels], dtype=np.intp)
            return np.take(lookup, value.codes)
        points = [self.levels.index(p) for p in self.points] if self.levels else self.points
        found = np.full(len(value), -1, dtype=np.intp)
        for i, point in enumerate(points):
            found[value == point] = i
        return found


@dataclass(frozen=True, eq=False)
class ReferenceGrid:
    """The grid, not yet encoded.

    Attributes
    ----------
    variables : tuple of GridVariable
        The axes.
    encoder : DesignEncoder
        Makes all columns of the fixed part, those dropped for rank included.
    """

    variables: tuple[GridVariable, ...]
    encoder: DesignEncoder
    _summary: DataSummary
    _offsets: tuple[tuple[Node, Any], ...]
    _constant: float

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of points of each axis."""
        return tuple(len(variable.points) for variable in self.variables)

    @property
    def names(self) -> list[str]:
        """The columns that are axes."""
        return [variable.name for variable in self.variables]

    @property
    def numbers_as_factors(self) -> frozenset[str]:
        """The axes of numbers that the formula makes categories of."""
        return frozenset(
            v.name
            for v in self.variables
            if v.kind == "number" and made_a_factor(v.name, self.encoder)
        )

    def __getitem__(self, name: str) -> GridVariable:
        return self.variables[self.names.index(name)]

    def data(self) -> pd.DataFrame:
        """One row per cell, the last axis fastest."""
        cells = int(np.prod(self.shape, dtype=np.int64))
        if not self.variables:
            return pd.DataFrame({"(none)": np.zeros(1)})
        positions = np.unravel_index(np.arange(cells), self.shape)
        return pd.DataFrame(
            {v.name: v.column(at) for v, at in zip(self.variables, positions, strict=True)}
        )

    def rows(self, data: pd.DataFrame) -> Matrix:
        """All columns of the fixed part for data of this grid, shape (cells, all columns)."""
        X, names = self.encoder.encode(data)
        bad = ~np.isfinite(X)
        if bad.any():
            column = names[int(np.flatnonzero(bad.any(axis=0))[0])]
            raise ModelError(
                f"Column {column!r} of the model has no finite value in {bad.any(axis=1).sum()} of "
                f"the {len(X)} cells of the reference grid; choose other values with at=."
            )
        return X

    def offset(self, data: pd.DataFrame) -> Matrix:
        """The offset in each cell."""
        total = np.full(len(data), self._constant)
        for tree, state in self._offsets:
            value = evaluate_variable(tree, Columns(data), state).value
            total = total + np.asarray(value, dtype=np.float64)
        if not np.isfinite(total).all():
            raise ModelError(
                "The offset is not finite in some cells of the reference grid; choose other values "
                "with at=."
            )
        return total

    def counts(self) -> Matrix:
        """Rows of the data in each cell; the same at all points of an axis not counted."""
        counted = [v for v in self.variables if v.counted]
        shape = tuple(len(v.points) if v.counted else 1 for v in self.variables)
        if not counted:
            return np.broadcast_to(np.float64(self._summary.nobs), self.shape)
        there = self._summary.cells([v.name for v in counted])
        positions = [v.rows(there.columns[v.name][0]) for v in counted]
        inside = np.logical_and.reduce([at >= 0 for at in positions])
        own = tuple(len(v.points) for v in counted)
        cells = np.ravel_multi_index(tuple(at[inside] for at in positions), own)
        rows = None if there.rows is None else there.rows[inside]
        found = np.bincount(cells, rows, minlength=int(np.prod(own))).astype(np.float64)
        return np.broadcast_to(found.reshape(shape), self.shape)


def _categorical(codes: Any, labels: Sequence[str], ordered: bool) -> Any:
    return pd.Categorical.from_codes(codes, pd.Index(labels), ordered=ordered)


def reference_grid(fit: Fit, encoder: DesignEncoder, at: Mapping[str, Any] | None) -> ReferenceGrid:
    """Make the grid of a model's fixed part.

    Parameters
    ----------
    fit : Fit
        The fit.
    encoder : DesignEncoder
        Makes all columns of the fixed part.
    at : mapping of str to value, list of values or slice, or None
        Levels of factors to keep, values of covariates.

    Raises
    ------
    ModelError
        If ``at`` names a variable or level that is not there, or the grid would be too large.
    """
    summary = data_summary(fit)
    trees, constant = _offset_trees(fit, encoder, summary)
    coders = [coder.tree for coder in encoder.coders]
    names = data_columns([*coders, *trees], summary.names)
    chosen = _read_at(at, names, fit)
    variables = tuple(_variable(name, summary, encoder, chosen.get(name)) for name in names)
    states = tuple((tree, summary.state(tree)) for tree in trees)
    grid = ReferenceGrid(variables, encoder, summary, states, constant)
    cells = int(np.prod([float(n) for n in grid.shape]))
    if cells * max(len(encoder.all_names), 1) > _LARGEST:
        sizes = ", ".join(f"{v.name} {len(v.points)}" for v in variables if len(v.points) > 1)
        raise ModelError(
            f"The reference grid has {cells:,} cells ({sizes}) of {len(encoder.all_names)} columns "
            "each, too many to hold. Keep some of the levels with at=."
        )
    return grid


def no_such_variable(name: Any, fit: Fit, names: Sequence[str]) -> ModelError:
    """Make the error for a name that is not a variable of the fixed part."""
    none = "it has none but the intercept" if fit.frame.fixef_names else "the model has none"
    if not isinstance(name, str):
        return ModelError(f"The name of a variable is needed, not {name!r:.60}.")
    valid = f"those are {listed_names(names)}" if names else none
    if name in {variable for term in fit.frame.terms for variable in term.variables}:
        return ModelError(
            f"{name!r} is a grouping factor of the random effects and not a variable of the fixed "
            f"part ({valid}). For its levels see m.ranef() and m.coef."
        )
    encoder = fit.frame.fixed_encoder
    expressions = (
        {} if encoder is None else {c.name: variable_names(c.tree) for c in encoder.coders}
    )
    if name in expressions:
        own = listed_names(list(dict.fromkeys(expressions[name])))
        return ModelError(f"{name!r} is made of columns of the data; name the column: {own}.")
    if name in data_summary(fit).names:
        response = variable_names(fit.frame.formula.response_tree)
        what = "the response" if name in response else "only in the random effects"
        return ModelError(f"{name!r} is {what}, not a variable of the fixed part ({valid}).")
    hint = meant(name, names)
    return ModelError(f"There is no variable {name!r:.60} in the fixed part; {valid}.{hint}")


def _offset_trees(
    fit: Fit, encoder: DesignEncoder, summary: DataSummary
) -> tuple[list[Node], float]:
    """Offsets that can be evaluated in the grid, and the mean of one given as an array."""
    trees = list(encoder.table.offsets)
    given, exposure = fit.request.offset, fit.request.exposure
    if isinstance(given, str):
        trees.append(argument_tree(given, summary.names))
    if isinstance(exposure, str):
        trees.append(Call("log", (Argument(argument_tree(exposure, summary.names)),)))
    if all(each is None or isinstance(each, str) for each in (given, exposure)):
        return trees, 0.0
    total = fit.frame.offset
    assert total is not None
    data = fit.frame.data
    rest = total
    for tree in trees:
        value = evaluate_variable(tree, Columns(data), summary.state(tree)).value
        rest = rest - np.asarray(value, dtype=np.float64)
    return trees, float(rest.mean())


def _read_at(at: Any, names: Sequence[str], fit: Fit) -> dict[str, list[Any]]:
    if at is None:
        return {}
    if not isinstance(at, Mapping):
        raise ModelError(f"at maps variables to values, such as {{'x': [0, 1]}}; not {at!r:.60}.")
    read = {}
    for name, values in at.items():
        if name not in names:
            raise no_such_variable(name, fit, names)
        if isinstance(values, slice):
            read[name] = [values]
            continue
        scalar = isinstance(values, str) or np.ndim(values) == 0
        listed = [values] if scalar else list(values)
        if not listed:
            raise ModelError(f"at has no value for {name!r}; leave it out to take all or its mean.")
        read[name] = listed
    return read


def _variable(
    name: str, summary: DataSummary, encoder: DesignEncoder, chosen: list[Any] | None
) -> GridVariable:
    number = summary.number(name)
    if number is None or made_a_factor(name, encoder):
        return _of_levels(name, summary.values(name), chosen)
    if chosen is not None and isinstance(chosen[0], slice):
        chosen = _range_of_numbers(name, chosen[0], number)
    few = bool(number.few)
    if chosen is not None:
        return GridVariable(name, _numbers_at(name, chosen), (), "number", few, True)
    return GridVariable(name, number.few or (number.mean,), (), "number", few, False)


def _of_levels(name: str, value: Value, chosen: list[Any] | None) -> GridVariable:
    """A variable whose points are values that occur: a factor, a logical, or made a factor."""
    if chosen is not None and isinstance(chosen[0], slice):
        chosen = _range_of_values(name, chosen[0], value)
    if isinstance(value, Factor):
        used = np.bincount(value.codes, minlength=len(value.levels)) > 0
        points = tuple(label for label, any_row in zip(value.levels, used, strict=True) if any_row)
        if chosen is not None:
            points = _levels_at(name, labels_of(chosen), points)
        return GridVariable(
            name, points, value.levels, "factor", True, chosen is not None, value.ordered
        )
    if value.dtype == np.bool_:
        levels = ("FALSE", "TRUE")
        points = tuple(levels[int(v)] for v in np.unique(value))
        if chosen is not None:
            python = {"False": "FALSE", "True": "TRUE"}
            points = _levels_at(name, [python.get(c, c) for c in labels_of(chosen)], points)
        return GridVariable(name, points, levels, "logical", True, chosen is not None)
    kept = tuple(np.unique(value).tolist())
    if chosen is not None:
        labels = _levels_at(name, labels_of(chosen), tuple(labels_of(kept)))
        by_label = dict(zip(labels_of(kept), kept, strict=True))
        kept = tuple(by_label[label] for label in labels)
    return GridVariable(name, kept, (), "number", True, chosen is not None)


def _range_of_values(name: str, given: slice, value: Value) -> list[Any]:
    """Levels of a slice in their order, both ends included."""
    if isinstance(value, Factor):
        used = set(np.unique(value.codes).tolist())
        return _range_of_levels(name, given, list(value.levels), used)
    levels: list[Any] = np.unique(value).tolist()
    return _range_of_levels(name, given, levels, set(range(len(levels))))


def _range_of_numbers(name: str, given: slice, number: NumberSummary) -> list[float]:
    """Numbers of a slice by its step, both ends included."""
    least = number.low if given.start is None else given.start
    most = number.high if given.stop is None else given.stop
    numbers = [least, most, given.step]
    if not all(isinstance(x, (int, float, np.number)) and np.isfinite(x) for x in numbers) or not (
        given.step > 0.0 and least <= most
    ):
        raise ModelError(
            f"at: a range of the number {name!r} is slice(low, high, step) with a positive step, "
            f"such as slice(0, 8, 2); not {given}."
        )
    return stepped_range(name, float(least), float(most), float(given.step))


def _range_of_levels(name: str, given: slice, levels: list[Any], used: set[int]) -> list[Any]:
    labels = labels_of(levels)
    ends = [labels_of([end])[0] for end in (given.start, given.stop) if end is not None]
    _levels_at(name, list(dict.fromkeys(ends)), tuple(labels))
    low = 0 if given.start is None else labels.index(ends[0])
    high = len(levels) - 1 if given.stop is None else labels.index(ends[-1])
    found = [levels[i] for i in range(low, high + 1) if i in used]
    if not found or given.step is not None:
        raise ModelError(
            f"at: {given} of {name!r} has no level; a range of levels is slice(first, last), "
            f"in the order {listed_names(labels)}."
        )
    return found


def stepped_range(name: str, low: float, high: float, step: float) -> list[float]:
    """Numbers of a variable from low by a step, up to high where a step ends there.

    Raises
    ------
    ModelError
        If the step is not positive, or they are more than a table can have.

    Examples
    --------
    >>> stepped_range("x", 0.0, 0.3, 0.1)[:2], len(stepped_range("x", 0.0, 0.3, 0.1))
    ([0.0, 0.1], 4)
    """
    if step <= 0.0 or (high - low) / step > _MOST_STEPS:
        raise ModelError(
            f"at: the step of {name!r} must be positive and make at most {_MOST_STEPS:,} values; "
            f"it is {step!r}."
        )
    # A last step that rounding has made too long counts.
    count = int(np.floor((high - low) / step + 1e-9)) + 1
    return [low + i * step for i in range(count)]


def made_a_factor(name: str, encoder: DesignEncoder) -> bool:
    """Whether the formula makes categories of a column of numbers."""
    return any(
        coder.kind == "factor" and name in variable_names(coder.tree) for coder in encoder.coders
    )


def _levels_at(name: str, asked: Sequence[str], levels: Sequence[str]) -> tuple[str, ...]:
    for label in asked:
        if label not in levels:
            raise ModelError(
                f"at: {name!r} has no level {label!r} in the rows used; its levels are "
                f"{listed_names(levels)}."
            )
    _check_different(name, asked)
    return tuple(asked)


def _numbers_at(name: str, asked: Sequence[Any]) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in asked)
    except (TypeError, ValueError):
        numbers = (np.nan,)
    if not np.isfinite(numbers).all():
        raise ModelError(f"at: {name!r} is a number, so give finite numbers; not {asked!r:.60}.")
    _check_different(name, numbers)
    return numbers


def _check_different(name: str, asked: Sequence[Any]) -> None:
    twice = [value for i, value in enumerate(asked) if value in asked[:i]]
    if twice:
        raise ModelError(f"at: {name!r} is given {twice[0]!r} twice.")
