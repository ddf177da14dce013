"""Evaluate the variables of a formula on data that may have missing values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.errors import DataError
from mixedeffects.formula.evaluate import CONSTANTS, TO_FACTOR, State, evaluate_rows
from mixedeffects.formula.reader import read
from mixedeffects.formula.syntax import Call, Name, Node, deparse, variable_names
from mixedeffects.formula.values import Factor, Lost, Value
from mixedeffects.frame.columns import Mask, exact_levels, read_column

__all__ = [
    "Columns",
    "Evaluated",
    "argument_tree",
    "data_columns",
    "evaluate_variable",
    "take_rows",
]


def data_columns(trees: Sequence[Node], available: Sequence[str]) -> list[str]:
    """Return the columns that expressions need, each once.

    ``pi``, ``T`` and ``F`` are constants unless the data have columns so called.
    """
    names = dict.fromkeys(name for tree in trees for name in variable_names(tree))
    return [name for name in names if name not in CONSTANTS or name in available]


def argument_tree(given: str, available: Sequence[str]) -> Node:
    """Weights or an offset as an expression: the name of a column, or such as ``1 / vi``."""
    if given in available or not given.strip():
        return Name(given)
    tree = read(f"I({given})")
    if isinstance(tree, Call) and len(tree.arguments) == 1:
        return tree.arguments[0].value
    return tree


class Columns:
    """The columns of a frame, read once each when first asked for."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame
        self.n = len(frame)
        self._read: dict[str, tuple[Value, Mask | None]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.frame.columns

    def __getitem__(self, name: str) -> tuple[Value, Mask | None]:
        if name not in self._read:
            value, missing = read_column(self.frame[name])
            if not isinstance(value, Factor):
                # A formula only reads.
                value = value.view()
                value.flags.writeable = False
            self._read[name] = value, missing
        return self._read[name]


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A variable on all rows.

    Attributes
    ----------
    name : str
        R's text of it.
    value : ndarray or Factor
        NaN, False or code -1 where missing.
    missing : ndarray of bool or None
        Where it is missing.
    made_missing : int
        In how many rows it is missing although the columns it is made of are not.
    lost : tuple of Lost
        Why, with the rows that have the columns it is made of.
    """

    name: str
    value: Value
    missing: Mask | None
    made_missing: int = 0
    lost: tuple[Lost, ...] = ()


def take_rows(value: Value, rows: NDArray[np.intp] | Mask | None) -> Value:
    """Return some rows of a value, or all if ``rows`` is None."""
    if rows is None:
        return value
    if isinstance(value, Factor):
        return replace(value, codes=value.codes[rows])
    return value[rows]


def _spread(value: Value, present: Mask) -> Value:
    """Undo ``take_rows(value, present)``, with missing values in the other rows."""
    n = present.size
    if isinstance(value, Factor):
        codes = np.full(n, -1, dtype=np.int32)
        codes[present] = value.codes
        return replace(value, codes=codes)
    if value.dtype == np.bool_:
        flags = np.zeros((n, *value.shape[1:]), dtype=np.bool_)
        flags[present] = value
        return flags
    numbers = np.full((n, *value.shape[1:]), np.nan)
    numbers[present] = value
    return numbers


def _made_a_factor(tree: Node) -> str:
    """The column that an expression makes a factor of and has no other use for, or ""."""
    if isinstance(tree, Call) and tree.function in TO_FACTOR and tree.arguments:
        first = tree.arguments[0].value
        if isinstance(first, Name):
            return first.name
    return ""


def evaluate_variable(tree: Node, columns: Columns, state: State) -> Evaluated:
    """Evaluate one variable of a formula.

    An expression sees only the rows where its own columns are present, so that a missing value
    does not spread through ``scale()`` or ``poly()``.

    Parameters
    ----------
    tree : Node
        The variable.
    columns : Columns
        The data.
    state : dict
        What its stateful parts remember; empty at the fit.

    Returns
    -------
    Evaluated
    """
    name = deparse(tree)
    if isinstance(tree, Name) and tree.name in columns:
        value, missing = columns[tree.name]
        return Evaluated(name, value, missing)
    read = {column: columns[column] for column in variable_names(tree) if column in columns}
    counted = _made_a_factor(tree)
    if counted in read:
        # Numbers that are names of levels must not be rounded.
        read[counted] = exact_levels(columns.frame[counted]) or read[counted]
    if not read:
        raise DataError(f"`{name}` names no column of the data.")
    absent: Mask | None = None
    for _, missing in read.values():
        if missing is not None:
            absent = missing.copy() if absent is None else absent | missing
    if absent is None:
        found = evaluate_rows(tree, {c: v for c, (v, _) in read.items()}, columns.n, state)
        made = 0 if found.missing is None else int(found.missing.sum())
        return Evaluated(name, found.value, found.missing, made, found.lost)
    present = ~absent
    count = int(present.sum())
    if count == 0:
        return Evaluated(name, np.full(columns.n, np.nan), absent)
    parts = {column: take_rows(value, present) for column, (value, _) in read.items()}
    found = evaluate_rows(tree, parts, count, state)
    made = 0 if found.missing is None else int(found.missing.sum())
    if found.missing is not None:
        absent[present] = found.missing
    return Evaluated(name, _spread(found.value, present), absent, made, found.lost)
