"""Questions to the table of a fit about the rows used, whose answers are small."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mixedeffects.errors import ModelError
from mixedeffects.lazy.expressions import Expr, number_column
from mixedeffects.lazy.sums import ProductQueries, RowsInTable

__all__ = ["Questions", "Range"]

#: Mean, smallest and largest value.
Range = tuple[float, float, float]

#: Most cells of factors, and most sums over all cells, that are brought here.
_MOST_CELLS, _MOST_SUMS = 1_000_000, 50_000_000


class Questions:
    """Questions to the table that a model was fitted to.

    Parameters
    ----------
    rows : RowsInTable
        The model on it.
    """

    def __init__(self, rows: RowsInTable) -> None:
        self.model, self._at_fit = rows.model, rows
        self.table, self.nobs = rows.model.table, rows.model.moments.n

    def is_number(self, name: str) -> bool:
        """Whether a column holds numbers."""
        return bool(self.table.schema[name].is_numeric())

    def is_flag(self, name: str) -> bool:
        """Whether a column is true or false."""
        import narwhals as nw

        return bool(self.table.schema[name] == nw.Boolean)

    def key(self, name: str) -> Expr:
        """A column to group by."""
        import narwhals as nw

        return number_column(self.table, name) if self.is_number(name) else nw.col(name)

    def rows(self, columns: Mapping[str, Expr]) -> Any:
        """The rows used, with these columns under these names."""
        made = [column.alias(alias) for alias, column in columns.items()]
        return self.table.frame.filter(self.model.complete).select(*made)

    def guarded(self, columns: Mapping[str, Expr]) -> Any:
        """The same with what tells whether the table is still the one of the fit."""
        model, at = self.model, self.model.columns.response
        centre, scale = float(model.moments.centre[at]), float(model.moments.scale[at])
        guard = (model.design.columns[at] - centre) / scale
        return self.rows({**columns, "guard": guard})

    def sums(
        self, rows: Any, asked: Mapping[str, Expr], what: str, by: tuple[str, ...] = ()
    ) -> pd.DataFrame:
        """Aggregates of guarded rows, over all or by keys, with their number in ``rows``.

        Raises
        ------
        DataError
            If the table has other rows than at the fit.
        """
        import narwhals as nw

        totals = [
            nw.len().alias("rows"),
            nw.col("guard").sum(),
            *(expression.alias(alias) for alias, expression in asked.items()),
        ]
        query = rows.group_by(*by).agg(*totals) if by else rows.select(*totals)
        answer = self.table.run(query, what)
        ProductQueries(self.model, self._at_fit.guard).check(answer, what)
        # Dask answers for declared levels without rows too.
        return answer[answer["rows"] > 0].reset_index(drop=True)

    def ranges(self, columns: Mapping[Any, Expr], what: str) -> dict[Any, Range]:
        """Mean, smallest and largest value of columns, in one query."""
        import narwhals as nw

        if not columns:
            return {}
        asked: dict[str, Expr] = {}
        for i in range(len(columns)):
            column = nw.col(f"c{i}")
            asked |= {f"m{i}": column.mean(), f"l{i}": column.min(), f"h{i}": column.max()}
        rows = self.guarded({f"c{i}": column for i, column in enumerate(columns.values())})
        row = self.sums(rows, asked, what).iloc[0]
        return {
            key: (float(row[f"m{i}"]), float(row[f"l{i}"]), float(row[f"h{i}"]))
            for i, key in enumerate(columns)
        }

    def check_cells(self, keys: Mapping[str, Expr], bound: float, sums: int, what: str) -> None:
        """Refuse more combinations than fit here; they are counted only where they may be many.

        Parameters
        ----------
        keys : mapping of str to expression
            What is combined.
        bound : float
            Combinations that there are at most.
        sums : int
            Numbers asked of each.
        what : str
            What they are.

        Raises
        ------
        ModelError
            If they are too many.
        """
        import narwhals as nw

        most = min(_MOST_CELLS, _MOST_SUMS // max(sums, 1))
        if min(bound, self.nobs) <= most:
            return
        query = self.rows(keys).unique().select(nw.len().alias("n"))
        count = int(self.table.run(query, f"number of {what}")["n"].iloc[0])
        if count > most:
            numbers = "1 number" if sums == 1 else f"{sums:,} numbers"
            raise ModelError(
                f"There are {count:,} {what}, too many to bring {numbers} of each into memory. "
                "Fit a model with fewer factors, or with fewer levels of them, or to a sample of "
                "the rows."
            )

    def distinct(self, name: str, most: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Different values of a column of numbers, sorted; one more than ``most`` at most."""
        query = self.rows({"x": number_column(self.table, name)}).unique().head(most + 1)
        answer = self.table.run(query, f"different values of {name}")
        return np.unique(answer["x"].to_numpy(dtype=np.float64))
