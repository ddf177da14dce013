"""Rows of a table that show the range of a response and of the parts of its expression."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import pandas as pd

from mixedeffects.formula.evaluate import State
from mixedeffects.formula.syntax import Name, Node, children, variable_names, walk
from mixedeffects.frame.data_summary import ResponseRows
from mixedeffects.frame.variables import Columns
from mixedeffects.lazy.design import all_present
from mixedeffects.lazy.expressions import Expr, Flags, Numbers, Translation
from mixedeffects.lazy.states import States
from mixedeffects.lazy.table import LazyTable

__all__ = ["response_range"]

_WHAT = "range of the response"


def response_range(table: LazyTable, tree: Node, state: State) -> ResponseRows:
    """Rows at both ends of the range of a response, among all that have one.

    Parameters
    ----------
    table : LazyTable
        The table.
    tree : Node
        The left-hand side of the formula.
    state : dict
        What its stateful parts remember.
    """
    names = [name for name in variable_names(tree) if name in table.schema]
    states = States(table)
    translation = Translation(table, states.transformed, states.summarised)
    whole = translation.numbers(tree, state)
    every = (whole.column,) if isinstance(whole, Flags) else whole.columns
    there = [all_present(table, names), *(~each.is_null() for each in every)]
    frame = table.frame.filter(reduce(lambda a, b: a & b, there))
    core = _core(tree, names)
    value: Expr | None = None
    if not (isinstance(core, Name) and table.kind(core.name) == "label"):
        found = translation.numbers(core, state)
        value = found.columns[0] if isinstance(found, Numbers) else None
    columns = Columns(_ends(table, frame, names, value))
    return ResponseRows({name: columns[name][0] for name in names}, columns.n, state)


def _core(tree: Node, names: Sequence[str]) -> Node:
    """The part of a left-hand side that its other parts are steps of.

    Each step of a transformation that has a way back rises or falls with it.
    """
    if len(names) == 1:
        return next(n for n in walk(tree) if isinstance(n, Name) and n.name in names)
    below = [n for n in children(tree) if any(name in names for name in variable_names(n))]
    return _core(below[0], names) if len(below) == 1 else tree


def _ends(table: LazyTable, frame: Any, names: Sequence[str], value: Expr | None) -> pd.DataFrame:
    """A row where a value is smallest, and one where it is largest; without one, any two."""
    import narwhals as nw

    own = [nw.col(name).alias(f"k{i}") for i, name in enumerate(names)]
    if value is None:
        few = frame.select(*own).unique().head(2)
        return table.run(few, _WHAT).set_axis(list(names), axis=1)
    rows = frame.select(*own, value.alias("v"))
    both = rows.select(nw.col("v").min().alias("low"), nw.col("v").max().alias("high"))
    ends = [float(end) for end in table.run(both, _WHAT).iloc[0]]
    if len(names) == 1:
        return pd.DataFrame({names[0]: ends})
    keys = [nw.col(f"k{i}") for i in range(len(names))]
    found = [
        table.run(rows.filter(nw.col("v") == end).select(*keys).head(1), _WHAT) for end in ends
    ]
    return pd.concat(found, ignore_index=True).set_axis(list(names), axis=1)
