"""Answers about the rows of a lazy table, each by one small query and once per fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.caching import cached_property
from mixedeffects.errors import DataError, ModelError
from mixedeffects.formula.evaluate import State
from mixedeffects.formula.syntax import Name, Node, children, deparse, variable_names, walk
from mixedeffects.formula.values import Factor, Value
from mixedeffects.frame.data_summary import (
    FEW_VALUES,
    Cells,
    NumberSummary,
    ResponseRows,
)
from mixedeffects.frame.encode import DesignEncoder
from mixedeffects.frame.variables import Columns, take_rows
from mixedeffects.frame.without_rows import left_out
from mixedeffects.lazy.design import Design, LazyVariable, all_present
from mixedeffects.lazy.expressions import Expr, Flags, Numbers, Translation, number_column
from mixedeffects.lazy.model import LazyModel
from mixedeffects.lazy.states import States

__all__ = ["SummaryOfTable"]

Matrix = NDArray[np.float64]
#: The numbers that a column of a design is a product of: variable and column of it, sorted.
Monomial = tuple[tuple[str, int], ...]

#: Most cells of factors, and most sums over all cells, that are brought here.
_MOST_CELLS, _MOST_SUMS = 1_000_000, 50_000_000
#: Share of the largest eigenvalue of a matrix of sums below which one is rounding of sums.
_ROUNDING = 1e-12


class SummaryOfTable:
    """Answers from a table that stays in its engine; see `DataSummary`.

    Parameters
    ----------
    model : LazyModel
        The model on the table.
    encoder : DesignEncoder
        Of its fixed part, as fitted.
    """

    def __init__(self, model: LazyModel, encoder: DesignEncoder) -> None:
        self._model: LazyModel | None = model
        self._encoder = encoder
        self._names = model.data_columns
        self._nobs = model.moments.n
        self._known: dict[Any, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        # A table stays in its engine; what it has answered goes along.
        return {**self.__dict__, "_model": None}

    @property
    def _on_table(self) -> LazyModel:
        if self._model is None:
            raise left_out("the variables of the model")
        return self._model

    def _once(self, key: Any, compute: Callable[[], Any]) -> Any:
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]

    @property
    def names(self) -> Sequence[str]:
        """Columns of the data that the model uses."""
        return self._names

    @property
    def nobs(self) -> int:
        """Number of rows."""
        return self._nobs

    # --- queries -------------------------------------------------------------------------

    def _rows(self, columns: Mapping[str, Expr]) -> Any:
        """The rows used, with these columns."""
        model = self._on_table
        made = [column.alias(alias) for alias, column in columns.items()]
        return model.table.frame.filter(model.complete).select(*made)

    def _answer(self, query: Any, what: str) -> pd.DataFrame:
        """The answer to a query that counts the rows in a column ``rows``."""
        answer = self._on_table.table.run(query, what)
        found = int(answer["rows"].sum())
        if found != self._nobs:
            raise DataError(
                f"The table changed since the fit: the model had {self._nobs:,} rows, and in the "
                f"query for {what} there were {found:,}. Fit to a snapshot of it: a table that "
                "does not change, or a file."
            )
        return answer

    def _totals(
        self, columns: Mapping[str, Expr], asked: Mapping[str, Expr], what: str
    ) -> pd.Series[Any]:
        """Aggregates, each one number, of columns."""
        import narwhals as nw

        totals = [expression.alias(alias) for alias, expression in asked.items()]
        query = self._rows(columns).select(nw.len().alias("rows"), *totals)
        return self._answer(query, what).iloc[0]

    def _check_cells(self, keys: Mapping[str, Expr], bound: float, sums: int, what: str) -> None:
        """Refuse combinations too many to bring here; counted only where they may be."""
        import narwhals as nw

        most = min(_MOST_CELLS, _MOST_SUMS // max(sums, 1))
        if min(bound, self._nobs) <= most:
            return
        query = self._rows(keys).unique().select(nw.len().alias("n"))
        count = int(self._on_table.table.run(query, f"number of {what}")["n"].iloc[0])
        if count > most:
            raise ModelError(
                f"There are {count:,} {what}, with {sums} sums in each, too many to bring into "
                "memory. Fit a model with fewer factors, or with fewer levels of them, or to a "
                "sample of the rows."
            )

    # --- columns of the data -------------------------------------------------------------

    def _is(self, name: str, *kinds: str) -> bool:
        import narwhals as nw

        dtype = self._on_table.table.schema[name]
        number = dtype.is_numeric()
        return ("flag" in kinds and dtype == nw.Boolean) or ("number" in kinds and number)

    def _ranges(self) -> dict[Any, tuple[float, float, float]]:
        """Mean, smallest and largest value of columns of the data and of products in the design.

        In one query.
        """
        import narwhals as nw

        table = self._on_table.table
        columns: dict[Any, Expr] = {
            name: number_column(table, name)
            for name in self._names
            if self._is(name, "number", "flag")
        }
        columns |= {monomial: self._product(monomial) for monomial in self._monomials if monomial}
        asked: dict[str, Expr] = {}
        for i in range(len(columns)):
            column = nw.col(f"c{i}")
            asked |= {f"m{i}": column.mean(), f"l{i}": column.min(), f"h{i}": column.max()}
        made = {f"c{i}": column for i, column in enumerate(columns.values())}
        if not made:
            return {}
        row = self._totals(made, asked, "means and ranges")
        return {
            key: (float(row[f"m{i}"]), float(row[f"l{i}"]), float(row[f"h{i}"]))
            for i, key in enumerate(columns)
        }

    def _range(self, key: Any) -> tuple[float, float, float]:
        ranges: dict[Any, tuple[float, float, float]] = self._once("ranges", self._ranges)
        return ranges[key]

    def _with_few_values(self) -> frozenset[str]:
        """Columns of numbers whose values are all the smallest or the largest."""
        import narwhals as nw

        table = self._on_table.table
        names = [name for name in self._names if self._is(name, "number")]
        columns, asked = {}, {}
        for i, name in enumerate(names):
            _, low, high = self._range(name)
            columns[f"c{i}"] = number_column(table, name)
            end = (nw.col(f"c{i}") == low) | (nw.col(f"c{i}") == high)
            asked[f"n{i}"] = nw.when(end).then(1.0).otherwise(0.0).sum()
        if not names:
            return frozenset()
        row = self._totals(columns, asked, "columns of few values")
        return frozenset(name for i, name in enumerate(names) if row[f"n{i}"] == self._nobs)

    def _is_number(self, name: str) -> bool:
        return bool(self._once(("number", name), lambda: self._is(name, "number")))

    def number(self, name: str) -> NumberSummary | None:
        """A column of the data; None if it does not hold numbers."""
        if not self._is_number(name):
            return None
        mean, low, high = self._range(name)
        few: tuple[float, ...] = ()
        if name in self._once("few", self._with_few_values):
            few = tuple(dict.fromkeys([low, high]))
        assert len(few) <= FEW_VALUES
        return NumberSummary(mean, low, high, few)

    def values(self, name: str) -> Value:
        """The values of a column of categories, flags or few numbers, each at least once."""
        value: Value = self._once(("values", name), lambda: self._values(name))
        return value

    def _values(self, name: str) -> Value:
        if self._is(name, "flag"):
            _, low, high = self._range(name)
            return np.array([low, high]) > 0.5
        for variable in self._on_table.variables.values():
            if variable.sources == (name,) and variable.cells is not None:
                return Columns(variable.cells)[name][0]
        return self.cells([name]).columns[name][0]

    def distinct(self, name: str, most: int) -> Matrix | None:
        """Different values of a column of numbers, sorted; None if there are more than ``most``."""

        def found() -> Matrix | None:
            query = self._rows({"x": number_column(self._on_table.table, name)})
            # No more of them than tell whether there are too many.
            answer = self._on_table.table.run(
                query.unique().head(most + 1), f"different values of {name}"
            )
            values = np.unique(answer["x"].to_numpy(dtype=np.float64))
            return values if len(values) <= most else None

        value: Matrix | None = self._once(("distinct", name, most), found)
        return value

    def quantiles(self, name: str, shares: Sequence[float]) -> Matrix:
        """Quantiles of a column of numbers.

        Raises
        ------
        ModelError
            If the engine has no exact ones.
        """

        def found() -> Matrix:
            import narwhals as nw

            asked = {
                f"q{i}": nw.col("x").quantile(share, interpolation="linear")
                for i, share in enumerate(shares)
            }
            columns = {"x": number_column(self._on_table.table, name)}
            try:
                row = self._totals(columns, asked, f"quantiles of {name}")
            except NotImplementedError:
                raise ModelError(
                    f"{self._on_table.table.engine} has no exact quantiles, at which {name!r} "
                    f"would be taken; give its values: at={{{name!r}: [...]}}."
                ) from None
            return np.array([float(row[alias]) for alias in asked])

        value: Matrix = self._once(("quantiles", name, tuple(shares)), found)
        return value

    def cells(self, names: Sequence[str]) -> Cells:
        """Which combinations of values of some columns occur, and in how many rows."""
        found: Cells = self._once(("cells", *names), lambda: self._cells(names))
        return found

    def _cells(self, names: Sequence[str]) -> Cells:
        import narwhals as nw

        table = self._on_table.table
        keys = {
            f"k{i}": number_column(table, name) if self._is(name, "number") else nw.col(name)
            for i, name in enumerate(names)
        }
        bound = np.inf
        if len(names) > 1:
            bound = float(np.prod([float(self._most_values(name)) for name in names]))
        what = f"combinations of {', '.join(names)}" if len(names) > 1 else f"values of {names[0]}"
        self._check_cells(keys, bound, 1, what)
        query = self._rows(keys).group_by(*keys).agg(nw.len().alias("rows"))
        answer = self._answer(query, what)
        answer = answer[answer["rows"] > 0]
        frame = answer[list(keys)].set_axis(list(names), axis=1)
        return Cells(Columns(frame), answer["rows"].to_numpy(dtype=np.int64))

    def _most_values(self, name: str) -> int:
        number = self.number(name)
        if number is not None and number.few:
            return len(number.few)
        value = self.values(name)
        return len(value.codes if isinstance(value, Factor) else value)

    def state(self, tree: Node) -> State:
        """What stateful transforms in an offset learned at the fit."""
        states = self._on_table.states
        return _copied(states.get(deparse(tree), {}))

    # --- the design ----------------------------------------------------------------------

    @cached_property
    def _monomials(self) -> list[Monomial]:
        """The products of numbers that columns of the fixed part have, first the empty one."""
        found: dict[Monomial, None] = {(): None}
        encoder = self._encoder
        for term, _, block in encoder.blocks:
            for combination in block:
                found[_numbers_of(encoder, term, combination)] = None
        return list(found)

    def _product(self, monomial: Monomial) -> Expr:
        variables = self._on_table.variables
        return reduce(lambda a, b: a * b, [variables[name].columns[j] for name, j in monomial])

    @property
    def _stand_in(self) -> _StandIn:
        made: _StandIn = self._once("design", self._make_stand_in)
        return made

    def _make_stand_in(self) -> _StandIn:
        """Sums of products of the numbers in each cell of the factors, in one query."""
        import narwhals as nw

        model, encoder = self._on_table, self._encoder
        coders = [coder for coder in encoder.coders if coder.kind != "numeric"]
        keys: dict[str, Expr] = {}
        sources: dict[str, str] = {}
        bound = 1.0
        for i, coder in enumerate(coders):
            variable: LazyVariable = model.variables[coder.name]
            bound *= 2.0 if variable.cells is None else float(len(variable.cells))
            if coder.kind == "logical":
                keys[f"l{i}"] = variable.columns[0]
            for name in variable.sources:
                if name not in sources:
                    sources[name] = f"k{len(sources)}"
                    keys[sources[name]] = (
                        number_column(model.table, name)
                        if self._is(name, "number")
                        else nw.col(name)
                    )
        monomials = self._monomials
        m = len(monomials)
        middle, reach = np.zeros(m), np.ones(m)
        for j, monomial in enumerate(monomials[1:], start=1):
            mean, low, high = self._range(monomial)
            middle[j], reach[j] = mean, max(high - low, 0.0) or 1.0
        pairs = list(combinations_with_replacement(range(m), 2))[1:]
        self._check_cells(keys, bound, len(pairs) + 1, "cells of the fixed factors")
        columns = {f"c{j}": self._product(monomials[j]) for j in range(1, m)}
        rows = self._rows({**keys, **columns}) if keys or columns else None
        if rows is None:
            return _StandIn(monomials, {}, np.full((1, 1), np.sqrt(self._nobs)))
        own = [nw.col(key) for key in keys]
        centred = [
            ((nw.col(f"c{j}") - float(middle[j])) / float(reach[j])).alias(f"u{j}")
            for j in range(1, m)
        ]
        products = [
            (nw.col(f"u{j}") * nw.col(f"u{i}") if i else nw.col(f"u{j}") * 1.0).alias(f"p{c}")
            for c, (i, j) in enumerate(pairs)
        ]
        rows = rows.select(*own, *centred)
        if products:
            rows = rows.select(*own, *products)
        totals = [nw.len().alias("rows"), *(nw.col(f"p{c}").sum() for c in range(len(pairs)))]
        query = rows.group_by(*keys).agg(*totals) if keys else rows.select(*totals)
        answer = self._answer(query, "cells of the fixed factors")
        answer = answer[answer["rows"] > 0].reset_index(drop=True)
        cube = np.empty((len(answer), m, m))
        cube[:, 0, 0] = answer["rows"].to_numpy(dtype=np.float64)
        for c, (i, j) in enumerate(pairs):
            cube[:, i, j] = cube[:, j, i] = answer[f"p{c}"].to_numpy(dtype=np.float64)
        cell, numbers = _roots(cube)
        numbers[:, 1:] = numbers[:, 1:] * reach[1:] + numbers[:, :1] * middle[1:]
        of_cells = Columns(
            answer[list(sources.values())].set_axis(list(sources), axis=1)
            if sources
            else pd.DataFrame(index=answer.index)
        )
        codes = {}
        for i, coder in enumerate(coders):
            if coder.kind == "logical":
                found = (answer[f"l{i}"].to_numpy(dtype=np.float64) > 0.5).astype(np.int32)
            else:
                found = coder.evaluate(of_cells)[0]
            codes[coder.name] = found[cell]
        return _StandIn(monomials, codes, numbers)

    def design(self, encoder: DesignEncoder) -> Matrix:
        """Few rows with the cross-products that an encoder's columns have over the rows used."""
        X = self._stand_in.columns(encoder)
        return X if encoder.kept is None else np.asfortranarray(X[:, encoder.kept])

    def departures(self, encoder: DesignEncoder, combination: Matrix) -> tuple[Matrix, Matrix]:
        """How far columns dropped for rank are from combinations of those kept."""
        import narwhals as nw

        model = self._on_table
        design = Design(model.table)
        places = design.of_encoder(encoder, model.variables)
        kept = np.arange(len(places)) if encoder.kept is None else encoder.kept
        columns = {
            f"c{at}": nw.lit(1.0) if at == 0 else design.columns[at] for at in dict.fromkeys(places)
        }
        asked: dict[str, Expr] = {}
        for d, j in enumerate(encoder.dropped):
            column = nw.col(f"c{places[j]}")
            rest = column
            for i, share in zip(kept, combination[:, d], strict=True):
                if share != 0.0:
                    rest = rest - float(share) * nw.col(f"c{places[i]}")
            asked |= {f"a{d}": rest.abs().max(), f"s{d}": column.abs().max()}
        row = self._totals(columns, asked, "columns left out for rank")
        count = len(encoder.dropped)
        return (
            np.array([float(row[f"a{d}"]) for d in range(count)]),
            np.array([float(row[f"s{d}"]) for d in range(count)]),
        )

    def column(self, encoder: DesignEncoder, j: int) -> tuple[NumberSummary, float]:
        """A column of the fixed part that is a number, and its standard deviation."""
        at = j if encoder.kept is None else int(encoder.kept[j])
        monomial = [
            (encoder, term, combination)
            for term, _, block in encoder.blocks
            for combination in block
        ][at - int(encoder.table.intercept)]
        key = _numbers_of(*monomial)
        number = NumberSummary(*self._range(key))
        numbers = self._stand_in.numbers
        rest = numbers[:, self._monomials.index(key)] - numbers[:, 0] * number.mean
        return number, float(np.linalg.norm(rest) / np.sqrt(self._nobs))

    # --- the response --------------------------------------------------------------------

    def response(self, tree: Node) -> ResponseRows:
        """Rows at the ends of the range of each part of the left-hand side."""
        found: ResponseRows = self._once("response", lambda: self._response(tree))
        return found

    def _response(self, tree: Node) -> ResponseRows:
        model = self._on_table
        names = [name for name in variable_names(tree) if name in model.table.schema]
        states = States(model.table)
        translation = Translation(model.table, states.transformed, states.summarised)
        # A copy, already filled: nothing is asked of the table again.
        state = self.state(tree)

        whole = translation.numbers(tree, state)
        every = [whole.column] if isinstance(whole, Flags) else list(whole.columns)
        there = reduce(
            lambda a, b: a & b,
            [all_present(model.table, names), *(~each.is_null() for each in every)],
        )
        frame = model.table.frame.filter(there)
        core = _core(tree, names)
        of_core: Numbers | Flags | None = None
        if not (isinstance(core, Name) and model.table.kind(core.name) == "label"):
            of_core = translation.numbers(core, state)
        found = Columns(self._ends(frame, names, of_core))
        values = {name: take_rows(found[name][0], None) for name in names}
        return ResponseRows(values, found.n, state)

    def _ends(
        self, frame: Any, names: Sequence[str], of_core: Numbers | Flags | None
    ) -> pd.DataFrame:
        """A row where a part of the response is smallest, and one where it is largest."""
        import narwhals as nw

        table, what = self._on_table.table, "range of the response"
        own = {f"k{i}": nw.col(name) for i, name in enumerate(names)}
        rows = frame.select(*(column.alias(alias) for alias, column in own.items()))
        if not isinstance(of_core, Numbers):
            return table.run(rows.unique().head(2), what).set_axis(list(names), axis=1)
        rows = frame.select(
            *(column.alias(alias) for alias, column in own.items()), of_core.columns[0].alias("v")
        )
        both = rows.select(nw.col("v").min().alias("low"), nw.col("v").max().alias("high"))
        low, high = (float(end) for end in table.run(both, what).iloc[0])
        if len(names) == 1:
            return pd.DataFrame({names[0]: [low, high]})
        found = [
            table.run(rows.filter(nw.col("v") == end).select(*own).head(1), what)
            for end in (low, high)
        ]
        return pd.concat(found, ignore_index=True).set_axis(list(names), axis=1)


@dataclass(frozen=True, eq=False)
class _StandIn:
    """Few rows that stand for all: cross-products of designs of the same variables are equal.

    Attributes
    ----------
    codes : dict of str to ndarray of int
        Levels of the factors and logicals in each row.
    numbers : ndarray, shape (rows, monomials)
        The products of numbers, the first of them of none.
    """

    monomials: list[Monomial]
    codes: dict[str, NDArray[Any]]
    numbers: Matrix

    def columns(self, encoder: DesignEncoder) -> Matrix:
        """All columns of an encoder of these variables."""
        X = np.empty((len(self.numbers), len(encoder.all_names)), order="F")
        at = 0
        if encoder.table.intercept:
            X[:, 0] = self.numbers[:, 0]
            at = 1
        for term, full, block in encoder.blocks:
            for combination in block:
                monomial = _numbers_of(encoder, term, combination)
                X[:, at] = self.numbers[:, self.monomials.index(monomial)]
                for i, j, every in zip(term, combination, full, strict=True):
                    coder = encoder.coders[i]
                    if coder.kind != "numeric":
                        X[:, at] *= coder.column(self.codes[coder.name], j, every)
                at += 1
        return X


def _numbers_of(
    encoder: DesignEncoder, term: Sequence[int], combination: Sequence[int]
) -> Monomial:
    """The numbers in one column of a term."""
    coders = encoder.coders
    return tuple(
        sorted(
            (coders[i].name, j)
            for i, j in zip(term, combination, strict=True)
            if coders[i].kind == "numeric"
        )
    )


def _roots(cube: Matrix) -> tuple[NDArray[np.intp], Matrix]:
    """Rows with the cross-products of each of many matrices, and which matrix each is of.

    Directions whose sums are rounding are left out: their roots would be many times larger.
    """
    size = np.sqrt(np.einsum("ckk->k", cube))
    size[size == 0.0] = 1.0
    values, vectors = np.linalg.eigh(cube / np.outer(size, size))
    kept = values > _ROUNDING * values[:, -1:]
    cell, which = np.nonzero(kept)
    rows = vectors[cell, :, which] * np.sqrt(values[cell, which])[:, None]
    return cell, rows * size


def _core(tree: Node, names: Sequence[str]) -> Node:
    """The part of a left-hand side that its other parts are steps of.

    Each step of a transformation that has a way back rises or falls with it.
    """
    if len(names) == 1:
        return next(n for n in walk(tree) if isinstance(n, Name) and n.name in names)
    below = [n for n in children(tree) if any(name in names for name in variable_names(n))]
    return _core(below[0], names) if len(below) == 1 else tree


def _copied(state: State) -> State:
    return {text: dict(remembered) for text, remembered in state.items()}
