"""The design of a model on a lazy table: its columns as expressions, its encoders as in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.errors import DataError, ModelError
from mixedeffects.formula.evaluate import TO_FACTOR, State
from mixedeffects.formula.syntax import (
    Call,
    Group,
    Name,
    Node,
    Text,
    deparse,
    variable_names,
)
from mixedeffects.formula.terms import TermTable
from mixedeffects.formula.values import Coding, Factor, Value
from mixedeffects.frame.coder import VariableCoder
from mixedeffects.frame.encode import DesignEncoder, fit_encoder
from mixedeffects.frame.variables import Columns, evaluate_variable
from mixedeffects.lazy.expressions import Expr, Flags, Translation
from mixedeffects.lazy.states import States
from mixedeffects.lazy.table import LazyTable

__all__ = [
    "Design",
    "KnownDesign",
    "KnownVariable",
    "LazyVariable",
    "Variables",
    "all_present",
    "codes_into",
    "encoder_of",
    "present",
]

#: Different values of a column of levels that are looked at one by one.
_MOST_LEVELS = 100_000


@dataclass(frozen=True, eq=False)
class LazyVariable:
    """A variable of the formula on a lazy table.

    Attributes
    ----------
    name : str
        R's text of it.
    kind : {"numeric", "logical", "factor"}
        What it is.
    columns : tuple of expression
        Of numbers and logicals: null where missing.
    factor : Factor or None
        Its different values as a factor: levels, order, coding; one code per row of ``cells``.
    cells : DataFrame or None
        The combinations of the columns it is made of that occur.
    present : expression
        True where it has a value.
    """

    name: str
    kind: str
    columns: tuple[Expr, ...]
    present: Expr
    own_present: Expr
    factor: Factor | None = None
    cells: pd.DataFrame | None = None
    sources: tuple[str, ...] = ()

    def level(self, label: str, table: LazyTable) -> Expr:
        """True where the variable has this level."""
        assert self.factor is not None and self.cells is not None
        code = self.factor.levels.index(label)
        rows = self.cells.iloc[np.flatnonzero(self.factor.codes == code)]
        if len(rows) == 0:
            return self.own_present & ~self.own_present
        return rows_are(rows, self.sources, table)


def rows_are(rows: pd.DataFrame, names: Sequence[str], table: LazyTable) -> Expr:
    """True where the columns have one of some combinations of values."""
    import narwhals as nw

    if len(names) == 1:
        (name,) = names
        column = nw.col(name)
        if table.kind(name) == "label":
            column = column.cast(nw.String)
        values = [_plain(v) for v in rows[name].tolist()]
        if len(values) == 1:
            return column == values[0]
        return column.is_in(values)
    alternatives = []
    for combination in rows.itertuples(index=False):
        parts = []
        for name, value in zip(names, combination, strict=True):
            column = nw.col(name)
            if table.kind(name) == "label":
                column = column.cast(nw.String)
            parts.append(column == _plain(value))
        alternatives.append(reduce(lambda a, b: a & b, parts))
    return reduce(lambda a, b: a | b, alternatives)


def _plain(value: Any) -> Any:
    """A number, text or flag that every engine takes as a literal."""
    return value.item() if isinstance(value, np.generic) else value


def codes_into(factor: Factor, levels: Sequence[str]) -> tuple[NDArray[np.integer[Any]], list[str]]:
    """Codes of a factor into other levels, -1 where these lack one; and those that they lack."""
    known = {label: i for i, label in enumerate(levels)}
    used = np.unique(factor.codes[factor.codes >= 0]).tolist()
    unseen = [factor.levels[i] for i in used if factor.levels[i] not in known]
    lookup = np.array([known.get(label, -1) for label in factor.levels] + [-1], dtype=np.int32)
    return lookup[factor.codes], unseen


@dataclass(frozen=True, eq=False)
class KnownVariable:
    """What is remembered of a variable, so that other rows are coded alike.

    Attributes
    ----------
    name, kind : str
        As of a `LazyVariable`.
    width : int
        Number of columns of numbers.
    levels : tuple of str
        Of a factor.
    ordered : bool
        Whether their order means something.
    coding : Coding or None
        As of a `Factor`.
    """

    name: str
    kind: str
    width: int
    levels: tuple[str, ...] = ()
    ordered: bool = False
    coding: Coding | None = None

    @classmethod
    def of(cls, variable: LazyVariable) -> KnownVariable:
        """What is remembered of one."""
        factor = variable.factor
        if factor is None:
            return cls(variable.name, variable.kind, len(variable.columns))
        used = np.unique(factor.codes[factor.codes >= 0]).tolist()
        levels = tuple(factor.levels[i] for i in used)
        return cls(variable.name, variable.kind, 0, levels, factor.ordered, factor.coding)

    def value(self) -> Value:
        """A few rows from which an encoder learns what it would from all."""
        if self.kind == "factor":
            codes = np.arange(len(self.levels), dtype=np.int32)
            return Factor(codes, self.levels, self.ordered, self.coding)
        if self.kind == "logical":
            return np.array([False, True])
        return np.zeros(1) if self.width == 1 else np.zeros((1, self.width))

    def recoded(self, found: LazyVariable) -> LazyVariable:
        """The same variable of other rows, with these levels."""
        if found.kind != self.kind:
            raise DataError(
                f"`{self.name}` is {_KINDS[found.kind]} here, and was {_KINDS[self.kind]} in the "
                "statistics given as `like`."
            )
        if found.factor is None:
            return found
        codes, unseen = codes_into(found.factor, self.levels)
        if unseen:
            shown = ", ".join(map(repr, unseen[:5])) + (", ..." if len(unseen) > 5 else "")
            raise DataError(
                f"`{self.name}` has levels that the statistics given as `like` do not have: "
                f"{shown}. Make the first statistics from a table that has all levels."
            )
        return replace(found, factor=Factor(codes, self.levels, self.ordered, self.coding))


_KINDS = {"numeric": "numbers", "logical": "true or false", "factor": "categorical"}


@dataclass(frozen=True, eq=False)
class KnownDesign:
    """What other rows of the same model are coded by.

    Attributes
    ----------
    variables : dict of str to KnownVariable
        By name.
    states : dict of str to state
        What their transforms remember.
    centre, scale : ndarrays
        What the columns of the design are taken less and divided by.
    """

    variables: dict[str, KnownVariable]
    states: dict[str, State]
    centre: NDArray[np.float64]
    scale: NDArray[np.float64]


class Variables:
    """The variables of a formula on one table.

    Parameters
    ----------
    table : LazyTable
        The table.
    like : KnownDesign, optional
        Whose levels and transforms are taken.
    """

    def __init__(self, table: LazyTable, like: KnownDesign | None = None) -> None:
        self.table = table
        self.like = like
        states = States(table)
        self.translation = Translation(table, states.transformed, states.summarised)
        self.states: dict[str, State] = {}
        self._known: dict[str, LazyVariable] = {}

    def __getitem__(self, tree: Node) -> LazyVariable:
        name = deparse(tree)
        if name not in self._known:
            if self.like is None or name not in self.like.variables:
                self.states[name] = {}
                self._known[name] = self._make(name, tree, self.states[name])
            else:
                self.states[name] = self.like.states[name]
                made = self.again(tree, self.states[name])
                self._known[name] = self.like.variables[name].recoded(made)
        return self._known[name]

    def again(self, tree: Node, state: State) -> LazyVariable:
        """A variable of a fitted model on other rows, with what its transforms remember."""
        copied = {text: dict(remembered) for text, remembered in state.items()}
        return self._make(deparse(tree), tree, copied)

    @property
    def known(self) -> tuple[LazyVariable, ...]:
        """Those asked for so far."""
        return tuple(self._known.values())

    def _make(self, name: str, tree: Node, state: State) -> LazyVariable:
        sources = [n for n in variable_names(tree) if n in self.table.schema]
        for each in variable_names(tree):
            if each not in ("pi", "T", "F"):
                self.table.kind(each)
        if not sources:
            raise DataError(f"`{name}` names no column of the data.")
        own = all_present(self.table, sources)
        if self._is_factor(tree):
            return self._factor(name, tree, state, tuple(sources), own)
        value = self.translation.numbers(tree, state)
        if isinstance(value, Flags):
            import narwhals as nw

            column = nw.when(value.column).then(1.0).otherwise(nw.when(~value.column).then(0.0))
            return LazyVariable(name, "logical", (column,), ~column.is_null(), own)
        present = reduce(lambda a, b: a & b, [~column.is_null() for column in value.columns])
        return LazyVariable(name, "numeric", value.columns, present, own)

    def _is_factor(self, tree: Node) -> bool:
        if isinstance(tree, Group):
            return self._is_factor(tree.inner)
        if isinstance(tree, Name):
            return tree.name in self.table.schema and self.table.kind(tree.name) == "label"
        if not isinstance(tree, Call):
            return False
        if tree.function in TO_FACTOR:
            return True
        if tree.function in ("I", "identity") and tree.arguments:
            return self._is_factor(tree.arguments[0].value)
        if tree.function == "ifelse" and len(tree.arguments) == 3:
            return all(isinstance(a.value, Text) for a in tree.arguments[1:])
        return False

    def _factor(
        self, name: str, tree: Node, state: State, sources: tuple[str, ...], own: Expr
    ) -> LazyVariable:
        """Evaluated in memory on the different values of its columns."""
        query = self.table.frame.filter(own).select(*sources).unique()
        values = self.table.run(query, f"levels of {name}")
        if len(values) == 0:
            raise DataError(f"`{name}` has no value in any row.")
        if len(values) > _MOST_LEVELS:
            raise ModelError(
                f"`{name}` would make {len(values):,} columns. If it is a grouping factor, write "
                f"`(1 | {name})`."
            )
        found = evaluate_variable(tree, Columns(values), state).value
        assert isinstance(found, Factor)
        present = own
        if (found.codes < 0).any():
            kept = values.iloc[np.flatnonzero(found.codes >= 0)]
            present = own & rows_are(kept, sources, self.table)
        return LazyVariable(name, "factor", (), present, own, found, values, sources)

    def used(self, variable: LazyVariable, complete: Expr) -> LazyVariable:
        """A factor with the values that occur in the rows used."""
        if variable.factor is None or variable.cells is None:
            return variable
        if self.like is not None and variable.name in self.like.variables:
            return variable
        query = self.table.frame.filter(complete).select(*variable.sources).unique()
        rows = self.table.run(query, f"levels of {variable.name} in the rows used")
        key = [tuple(map(str, r)) for r in rows.itertuples(index=False)]
        here = set(key)
        at = [
            i
            for i, r in enumerate(variable.cells.itertuples(index=False))
            if tuple(map(str, r)) in here
        ]
        factor = replace(variable.factor, codes=variable.factor.codes[at])
        return replace(variable, factor=factor, cells=variable.cells.iloc[at])


def present(table: LazyTable, name: str) -> Expr:
    """True where a column has a value: neither null nor NaN."""
    import narwhals as nw

    column = nw.col(name)
    there = ~column.is_null()
    return there & ~column.is_nan() if table.schema[name].is_float() else there


def all_present(table: LazyTable, names: Sequence[str]) -> Expr:
    """True where all of some columns have a value."""
    return reduce(lambda a, b: a & b, [present(table, name) for name in names])


@dataclass(eq=False)
class Design:
    """Columns of the design, each once, under keys that equal columns share.

    Attributes
    ----------
    keys : list of str
        The first is ``"1"``, one in every row.
    columns : list of expression
        In the same order; None for the first.
    """

    table: LazyTable
    keys: list[str] = field(default_factory=lambda: ["1"])
    columns: list[Expr] = field(default_factory=lambda: [None])

    def place(self, key: str, make: Callable[[], Expr]) -> int:
        """Where a column stands, put there if it is new."""
        if key not in self.keys:
            self.keys.append(key)
            self.columns.append(make())
        return self.keys.index(key)

    def of_encoder(
        self, encoder: DesignEncoder, variables: Mapping[str, LazyVariable]
    ) -> tuple[int, ...]:
        """Places of all columns of an encoder, those dropped for rank included."""
        out = [0] if encoder.table.intercept else []
        for term, full, block in encoder.blocks:
            for combination in block:
                parts = [
                    self._part(encoder.coders[i], variables[encoder.coders[i].name], j, every)
                    for i, j, every in zip(term, combination, full, strict=True)
                ]
                key = " * ".join(sorted(name for name, _ in parts))
                factors = [make for _, make in parts]
                out.append(self.place(key, lambda made=factors: _product(made)))  # type: ignore[misc]
        return tuple(out)

    def _part(
        self, coder: VariableCoder, variable: LazyVariable, j: int, full: bool
    ) -> tuple[str, Callable[[], Expr]]:
        import narwhals as nw

        def indicator(label: str) -> Callable[[], Expr]:
            return lambda: nw.when(variable.level(label, self.table)).then(1.0).otherwise(0.0)

        name = coder.name
        if coder.kind == "numeric":
            key = name if len(variable.columns) == 1 else f"{name}[{j}]"
            return key, lambda: variable.columns[j]
        if coder.kind == "logical":
            if full or coder.contrasts.ndim == 1:
                which = j if full else int(coder.contrasts[j])
                column = variable.columns[0]
                key = name if which == 1 else f"{name}=FALSE"
                return key, lambda: column if which == 1 else 1.0 - column
            a, b = (float(v) for v in coder.contrasts[:, j])
            return f"{name}{(a, b)}", lambda: a + (b - a) * variable.columns[0]
        if full or coder.contrasts.ndim == 1:
            label = coder.levels[j if full else int(coder.contrasts[j])]
            return f"{name}={label!r}", indicator(label)
        contrast = coder.contrasts[:, j]

        def coded() -> Expr:
            column = nw.lit(float(contrast[-1]))
            for label, value in zip(coder.levels[:-1], contrast[:-1], strict=True):
                level = variable.level(label, self.table)
                column = nw.when(level).then(float(value)).otherwise(column)
            return column

        return f"{name}{tuple(contrast.tolist())}", coded


def _product(parts: Sequence[Callable[[], Expr]]) -> Expr:
    return reduce(lambda a, b: a * b, [make() for make in parts])


def encoder_of(
    table: TermTable,
    values: Mapping[str, Value],
    states: Mapping[str, State],
    codings: Mapping[str, Coding],
) -> DesignEncoder:
    """The encoder that the rows used would make; see `fit_encoder`.

    Parameters
    ----------
    table : TermTable
        The terms.
    values : dict of str to Value
        A few rows of the variables, such as `KnownVariable.value`; also of others.
    states, codings : dict
        By name of variable.
    """
    names = [deparse(tree) for tree in table.variables]
    return fit_encoder(table, {name: values[name] for name in names}, states, codings)[0]
