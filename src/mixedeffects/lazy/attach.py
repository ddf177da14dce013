"""Small tables joined to a table of an engine."""

from __future__ import annotations

from typing import Any

import pandas as pd

from mixedeffects.errors import DataError
from mixedeffects.lazy.expressions import Expr
from mixedeffects.lazy.table import LazyTable, quietly

__all__ = ["attached", "join_key", "joined_values"]


def attached(table: LazyTable, small: pd.DataFrame) -> Any:
    """A small table in the engine of a lazy one, ready to be joined to it.

    Parameters
    ----------
    table : LazyTable
        The lazy table.
    small : DataFrame
        Numbers and text.

    Returns
    -------
    narwhals.LazyFrame

    Raises
    ------
    DataError
        If tables cannot be handed to this engine.
    """
    import narwhals as nw

    native: Any
    match table.engine:
        case "DuckDB":
            # In the relation's own connection: relations of two cannot be joined.
            native = table.native.query("rows_of_the_table", "SELECT * FROM small")
        case "Polars":
            import polars as pl

            native = pl.DataFrame({name: small[name].tolist() for name in small.columns}).lazy()
        case "Dask":
            import dask.dataframe as dd

            from_pandas: Any = dd.from_pandas
            native = from_pandas(small, npartitions=1)
        case "Ibis":
            import ibis

            native = ibis.memtable(small)
        case "Spark" | "SQLFrame":
            native = table.native.sparkSession.createDataFrame(small)
        case other:
            raise DataError(
                f"Fitted values of a table of {other} cannot be had there: no small table can be "
                "handed to it. Collect the rows: rows='collect'."
            )
    with quietly():
        return nw.from_native(native)


def join_key(table: LazyTable, name: str) -> Expr:
    """A column in a type that is the same on both sides of a join."""
    import narwhals as nw

    dtype, column = table.schema[name], nw.col(name)
    if dtype == nw.Boolean or dtype.is_integer():
        return column.cast(nw.Int64)
    if dtype.is_numeric():
        return column.cast(nw.Float64)
    if dtype in (nw.String, nw.Categorical, nw.Enum, nw.Date):
        return column.cast(nw.String)
    raise DataError(
        f"Column `{name}` holds {dtype}, by which fitted values cannot be joined; make text or "
        "numbers of it, or collect the rows: rows='collect'."
    )


def joined_values(table: LazyTable, name: str, values: pd.Index[Any]) -> list[Any]:
    """Values of levels in the type that `join_key` has."""
    import narwhals as nw

    dtype = table.schema[name]
    if dtype == nw.Boolean or dtype.is_integer():
        return [int(value) for value in values]
    if dtype.is_numeric():
        return [float(value) for value in values]
    return [str(value) for value in values]
