"""Answers about the rows of a lazy table, each by a small query and once per fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.errors import ModelError
from mixedeffects.formula.evaluate import State
from mixedeffects.formula.syntax import Node, deparse
from mixedeffects.formula.values import Factor, Value
from mixedeffects.frame.coder import copied_state
from mixedeffects.frame.data_summary import Cells, NumberSummary, ResponseRows
from mixedeffects.frame.encode import DesignEncoder
from mixedeffects.frame.variables import Columns
from mixedeffects.frame.without_rows import left_out
from mixedeffects.lazy.design import Design
from mixedeffects.lazy.expressions import Expr, count_where, number_column
from mixedeffects.lazy.questions import Questions, Range
from mixedeffects.lazy.response_range import response_range
from mixedeffects.lazy.stand_in import StandIn, monomials_of, numbers_of, product_of, stand_in
from mixedeffects.lazy.sums import RowsInTable

__all__ = ["SummaryOfTable"]

Matrix = NDArray[np.float64]


class SummaryOfTable:
    """Answers from a table that stays in its engine; see `DataSummary`.

    Parameters
    ----------
    rows : RowsInTable
        The model on the table.
    encoder : DesignEncoder
        Of its fixed part, as fitted.
    """

    def __init__(self, rows: RowsInTable, encoder: DesignEncoder) -> None:
        self._questions: Questions | None = Questions(rows)
        self._encoder = encoder
        self.names: Sequence[str] = rows.model.data_columns
        self.nobs: int = rows.model.moments.n
        self._known: dict[Any, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        # A table stays in its engine; what it has answered goes along.
        return {**self.__dict__, "_questions": None}

    @property
    def _ask(self) -> Questions:
        if self._questions is None:
            raise left_out("the variables of the model")
        return self._questions

    def _once(self, key: Any, compute: Callable[[], Any]) -> Any:
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]

    # --- columns of the data -------------------------------------------------------------

    def _range(self, key: Any) -> Range:
        """Of a column of the data, or of a product of numbers in the design: all in one query."""
        ranges: dict[Any, Range] = self._once("ranges", self._ranges)
        return ranges[key]

    def _ranges(self) -> dict[Any, Range]:
        ask = self._ask
        names = [name for name in self.names if ask.is_number(name) or ask.is_flag(name)]
        columns: dict[Any, Expr] = {name: number_column(ask.table, name) for name in names}
        for monomial in monomials_of(self._encoder)[1:]:
            columns[monomial] = product_of(monomial, ask.model)
        return ask.ranges(columns, "means and ranges")

    def _with_few_values(self) -> frozenset[str]:
        """Columns of numbers whose values are all the smallest or the largest."""
        import narwhals as nw

        ask = self._ask
        names = [name for name in self.names if ask.is_number(name)]
        asked = {}
        for i, name in enumerate(names):
            _, low, high = self._range(name)
            end = (nw.col(f"c{i}") == low) | (nw.col(f"c{i}") == high)
            asked[f"n{i}"] = count_where(end)
        rows = ask.guarded({f"c{i}": number_column(ask.table, n) for i, n in enumerate(names)})
        row = ask.sums(rows, asked, "columns of few values").iloc[0]
        return frozenset(name for i, name in enumerate(names) if row[f"n{i}"] == self.nobs)

    def number(self, name: str) -> NumberSummary | None:
        """A column of the data; None if it does not hold numbers."""
        if not self._once(("number", name), lambda: self._ask.is_number(name)):
            return None
        mean, low, high = self._range(name)
        few = name in self._once("few", self._with_few_values)
        return NumberSummary(mean, low, high, tuple(dict.fromkeys([low, high])) if few else ())

    def values(self, name: str) -> Value:
        """The values of a column of categories, flags or few numbers, each at least once."""
        value: Value = self._once(("values", name), lambda: self._values(name))
        return value

    def _values(self, name: str) -> Value:
        if self._ask.is_flag(name):
            _, low, high = self._range(name)
            return np.array([low, high]) > 0.5
        for variable in self._ask.model.variables.values():
            # Looked at for the fit.
            if variable.sources == (name,) and variable.cells is not None:
                return Columns(variable.cells)[name][0]
        return self.cells([name]).columns[name][0]

    def distinct(self, name: str, most: int) -> Matrix | None:
        """Different values of a column of numbers, sorted; None if there are more than ``most``."""
        found = self._once(("distinct", name, most), lambda: self._ask.distinct(name, most))
        return found if len(found) <= most else None

    def quantiles(self, name: str, shares: Sequence[float]) -> Matrix:
        """Quantiles of a column of numbers.

        Raises
        ------
        ModelError
            If the engine has no exact ones.
        """
        value: Matrix = self._once(
            ("quantiles", name, *shares), lambda: self._quantiles(name, shares)
        )
        return value

    def _quantiles(self, name: str, shares: Sequence[float]) -> Matrix:
        import narwhals as nw

        ask = self._ask
        rows = ask.guarded({"x": number_column(ask.table, name)})
        asked = {
            f"q{i}": nw.col("x").quantile(share, interpolation="linear")
            for i, share in enumerate(shares)
        }
        try:
            row = ask.sums(rows, asked, f"quantiles of {name}").iloc[0]
        except NotImplementedError:
            raise ModelError(
                f"{ask.table.engine} has no exact quantiles, at which {name!r} would be taken; "
                f"give its values: at={{{name!r}: [...]}}."
            ) from None
        return np.array([float(row[alias]) for alias in asked])

    def cells(self, names: Sequence[str]) -> Cells:
        """Which combinations of values of some columns occur, and in how many rows."""
        found: Cells = self._once(("cells", *names), lambda: self._cells(names))
        return found

    def _cells(self, names: Sequence[str]) -> Cells:
        ask = self._ask
        keys = {f"k{i}": ask.key(name) for i, name in enumerate(names)}
        what = f"combinations of {', '.join(names)}" if len(names) > 1 else f"values of {names[0]}"
        several = [float(self._most_values(name)) for name in names] if len(names) > 1 else [np.inf]
        ask.check_cells(keys, float(np.prod(several)), 1, what)
        answer = ask.sums(ask.guarded(keys), {}, what, tuple(keys))
        frame = answer[list(keys)].set_axis(list(names), axis=1)
        return Cells(Columns(frame), answer["rows"].to_numpy(dtype=np.int64))

    def _most_values(self, name: str) -> int:
        number = self.number(name)
        if number is not None and number.few:
            return len(number.few)
        value = self.values(name)
        return len(value.codes if isinstance(value, Factor) else value)

    def state(self, tree: Node) -> State:
        """What stateful transforms in an offset, or in the response, learned at the fit."""
        return copied_state(self._ask.model.states.get(deparse(tree), {}))

    def response(self, tree: Node) -> ResponseRows:
        """Rows at the ends of the range of each part of the left-hand side."""
        found: ResponseRows = self._once(
            "response", lambda: response_range(self._ask.table, tree, self.state(tree))
        )
        return found

    # --- the design ----------------------------------------------------------------------

    @property
    def _stand_in(self) -> StandIn:
        def made() -> StandIn:
            monomials = monomials_of(self._encoder)[1:]
            ranges = {monomial: self._range(monomial) for monomial in monomials}
            return stand_in(self._ask, self._encoder, ranges)

        found: StandIn = self._once("design", made)
        return found

    def design(self, encoder: DesignEncoder) -> Matrix:
        """Few rows with the cross-products that an encoder's columns have over the rows used."""
        X = self._stand_in.columns(encoder)
        return X if encoder.kept is None else np.asfortranarray(X[:, encoder.kept])

    def departures(self, encoder: DesignEncoder, combination: Matrix) -> tuple[Matrix, Matrix]:
        """How far columns dropped for rank are from combinations of those kept."""
        import narwhals as nw

        ask = self._ask
        design = Design(ask.table)
        places = design.of_encoder(encoder, ask.model.variables)
        kept = np.arange(len(places)) if encoder.kept is None else encoder.kept
        columns = {
            f"c{at}": design.columns[at] if at else nw.lit(1.0) for at in dict.fromkeys(places)
        }
        asked: dict[str, Expr] = {}
        for d, j in enumerate(encoder.dropped):
            rest = column = nw.col(f"c{places[j]}")
            for i, share in zip(kept, combination[:, d], strict=True):
                if share != 0.0:
                    rest = rest - float(share) * nw.col(f"c{places[i]}")
            asked |= {f"a{d}": rest.abs().max(), f"s{d}": column.abs().max()}
        row = ask.sums(ask.guarded(columns), asked, "columns left out for rank").iloc[0]
        away, size = (
            np.array([float(row[f"{which}{d}"]) for d in range(len(encoder.dropped))])
            for which in ("a", "s")
        )
        return away, size

    def column(self, encoder: DesignEncoder, j: int) -> tuple[NumberSummary, float]:
        """A column of the fixed part that is a number, and its standard deviation."""
        at = j if encoder.kept is None else int(encoder.kept[j])
        places = [(term, each) for term, _, block in encoder.blocks for each in block]
        monomial = numbers_of(encoder, *places[at - int(encoder.table.intercept)])
        number = NumberSummary(*self._range(monomial))
        rest = self._stand_in.number(monomial) - number.mean * self._stand_in.number(())
        return number, float(np.linalg.norm(rest) / np.sqrt(self.nobs))
