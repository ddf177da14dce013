"""The variables of a model on the rows that have them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.caching import cached_property
from mixedeffects.errors import DataError
from mixedeffects.formula.evaluate import State, check_functions
from mixedeffects.formula.syntax import Node, deparse
from mixedeffects.formula.values import Factor, Lost, Value
from mixedeffects.frame.checks import check_finite, check_lengths, check_rows
from mixedeffects.frame.grouping import GroupColumn, read_group
from mixedeffects.frame.ingest import as_column, take_columns
from mixedeffects.frame.named import NamedVariables
from mixedeffects.frame.row_labels import by_row_labels
from mixedeffects.frame.variables import (
    Columns,
    Evaluated,
    data_columns,
    evaluate_variable,
    take_rows,
)

__all__ = ["UsedRows", "lost_values", "read_rows"]

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class UsedRows:
    """Every variable of a model, and which rows are used.

    Attributes
    ----------
    table : DataFrame
        The columns that are needed, of all rows.
    variables : dict of str to Evaluated
        The variables by their text, on all rows.
    states : dict of str to State
        What each would be computed with again on other rows.
    roles : dict of str to Evaluated or None
        Weights, offset and exposure, on all rows.
    groups : dict of str to GroupColumn
        The grouping columns, on all rows.
    rows : ndarray of int or None
        Positions of the rows used; None: all.
    missing : dict of str to int
        In how many rows each variable is missing.
    """

    table: pd.DataFrame
    variables: dict[str, Evaluated]
    states: dict[str, State]
    roles: dict[str, Evaluated | None]
    groups: dict[str, GroupColumn]
    rows: NDArray[np.intp] | None
    missing: dict[str, int]

    @property
    def n(self) -> int:
        """Number of rows used."""
        return len(self.table) if self.rows is None else len(self.rows)

    @cached_property
    def lost(self) -> tuple[str, ...]:
        """Sentences about rows in which a function has no value."""
        every = (lost for variable in self.variables.values() for lost in variable.lost)
        return tuple(dict.fromkeys(_lost_rows(lost, len(self.table)) for lost in every))

    @cached_property
    def used(self) -> pd.DataFrame:
        """The columns of the rows used."""
        return self.table if self.rows is None else self.table.iloc[self.rows]

    @property
    def left_out(self) -> pd.Index[Any]:
        """Labels of the rows that are not used."""
        index = self.table.index
        return index[:0] if self.rows is None else index.delete(self.rows)

    @cached_property
    def taken(self) -> dict[str, Value]:
        """The variables by their text, on the rows used."""
        return {name: take_rows(each.value, self.rows) for name, each in self.variables.items()}

    @cached_property
    def groups_used(self) -> dict[str, GroupColumn]:
        """The grouping columns, on the rows used."""
        if self.rows is None:
            return self.groups
        return {
            name: replace(group, codes=group.codes[self.rows])
            for name, group in self.groups.items()
        }

    def role(self, role: str) -> tuple[str, Vector] | None:
        """Name and values of weights, offset or exposure on the rows used, shape (n,).

        Raises
        ------
        DataError
            If some are not finite.
        """
        given = self.roles[role]
        if given is None:
            return None
        values = take_rows(given.value, self.rows)
        assert not isinstance(values, Factor)
        check_finite(given.name, values, "Column " if not given.name.startswith("(") else "")
        return given.name, np.array(values, dtype=np.float64)


def read_rows(named: NamedVariables, source: Any, available: list[str]) -> UsedRows:
    """Read the columns that a model needs, evaluate its variables and select the rows.

    Parameters
    ----------
    named : NamedVariables
        What is needed.
    source : dataframe
        The data.
    available : list of str
        Its columns.

    Raises
    ------
    DataError
        If the data do not have what is asked for, or no row has all of it.
    """
    expressions = [tree for tree in named.worked_out.values() if tree is not None]
    grouping = list(dict.fromkeys(named.grouping))
    needed = [*named.trees, *expressions]
    table = _columns(needed, [*grouping, *named.by_name], source, available)
    columns = Columns(table)
    variables: dict[str, Evaluated] = {}
    states: dict[str, State] = {}
    for tree in named.trees:
        name = deparse(tree)
        if name not in variables:
            states[name] = {}
            variables[name] = evaluate_variable(tree, columns, states[name])
    roles = {
        role: _argument(role, given, columns, named.worked_out[role])
        for role, given in named.roles.items()
    }
    groups = {name: read_group(table[name]) for name in grouping}
    rows, missing = _select_rows(variables, roles, groups, columns)
    return UsedRows(table, variables, states, roles, groups, rows, missing)


def _columns(
    trees: list[Node], by_name: list[str], source: Any, available: list[str]
) -> pd.DataFrame:
    """The columns that expressions are made of, and those that are named."""
    for tree in trees:
        check_functions(tree)
    frame = take_columns(source, dict.fromkeys([*data_columns(trees, available), *by_name]))
    if len(frame) == 0:
        check_rows(0, 0, {})
    return frame


def _argument(
    role: str, given: Any, columns: Columns, tree: Node | None = None
) -> Evaluated | None:
    """Read weights or offset, given as a column's name, an expression, or as values."""
    if given is None:
        return None
    if tree is not None:
        found = evaluate_variable(tree, columns, {})
        if isinstance(found.value, Factor) or found.value.ndim != 1:
            raise DataError(f"`{role}` must be one number a row; `{given}` is not.")
        return replace(found, name=given)
    if isinstance(given, str):
        name = given
        value, missing = columns[given]
    else:
        name = f"({role})"
        given = as_column(name, given)
        check_lengths(role, given, columns.n)
        series = pd.Series(by_row_labels(f"`{role}`", given, columns.frame.index))
        value, missing = Columns(series.rename(name).to_frame())[name]
    if isinstance(value, Factor):
        raise DataError(f"`{role}` must be numbers; `{name}` is text or categorical.")
    return Evaluated(name, value.astype(np.float64, copy=False), missing)


def _select_rows(
    variables: Mapping[str, Evaluated],
    roles: Mapping[str, Evaluated | None],
    groups: Mapping[str, GroupColumn],
    columns: Columns,
) -> tuple[NDArray[np.intp] | None, dict[str, int]]:
    """The rows without a missing value, None for all, and how many each variable misses."""
    absent: NDArray[np.bool_] | None = None
    counts: dict[str, int] = {}

    def add(missing: NDArray[np.bool_] | None) -> None:
        nonlocal absent
        if missing is not None:
            absent = missing if absent is None else absent | missing

    for name in columns.frame.columns:
        if name in groups:
            missing = groups[name].codes < 0
            if missing.any():
                counts[name] = int(missing.sum())
                add(missing)
        else:
            masked = columns[name][1]
            if masked is not None:
                counts[name] = int(masked.sum())
                add(masked)
    for variable in variables.values():
        if variable.made_missing:
            counts[variable.name] = variable.made_missing
        add(variable.missing)
    for given in roles.values():
        if given is not None and given.missing is not None:
            counts[given.name] = int(given.missing.sum())
            add(given.missing)
    if absent is None:
        return None, counts
    rows = np.flatnonzero(~absent)
    check_rows(columns.n, len(rows), counts)
    return rows, counts


def _lost_rows(lost: Lost, n: int) -> str:
    """What to say of the rows in which a part of the formula has no value."""
    count = int(lost.rows.sum())
    rows = f"{count:,} of {n:,} rows"
    if np.isnan(lost.low):
        return (
            f"`{lost.text}` leaves {rows} out: it does not list {lost.argument}. To leave them out "
            "without this warning, filter the data."
        )
    return lost_values(lost.text, lost.argument, lost.low, lost.high, count, n)


def lost_values(text: str, argument: str, low: float, high: float, count: int, n: int) -> str:
    """What to say where a function has no value, its argument being between low and high."""
    between = f"is {low:g}" if low == high else f"lies between {low:g} and {high:g}"
    return (
        f"`{text}` has no value in {count:,} of {n:,} rows, where `{argument}` {between}; these "
        "rows were left out. Mend the column, or mark the values as missing."
    )
