"""A table that stays in its engine: what its columns hold, and queries that bring small answers."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from mixedeffects.errors import DataError, ModelError
from mixedeffects.frame.ingest import column_names, materialised, take_columns, unknown_column
from mixedeffects.progress import Listener, ProgressOption, TablePass

__all__ = ["LazyTable", "column_kind", "count_rows", "is_lazy", "lazy_table", "quietly"]

#: What narwhals calls engines, and what people call them.
_ENGINES = {
    "duckdb": "DuckDB",
    "polars": "Polars",
    "dask": "Dask",
    "pyspark": "Spark",
    "pyspark_connect": "Spark",
    "sqlframe": "SQLFrame",
    "ibis": "Ibis",
}
#: Rows of an answer that are handed over at a time.
_BATCH = 65_536
#: Methods of expressions that early versions of narwhals do not have.
_NEEDED = ("floor", "ceil", "exp", "sqrt", "sin", "cos", "is_nan", "is_in")


def is_lazy(data: Any) -> bool:
    """Whether data are a table that its engine has not computed: a relation, a lazy frame."""
    if isinstance(data, (pd.DataFrame, dict, LazyTable)):
        return isinstance(data, LazyTable)
    import narwhals as nw

    try:
        with quietly():
            return isinstance(nw.from_native(data), nw.LazyFrame)
    except TypeError:
        return False


def lazy_table(data: Any) -> LazyTable:
    """The table behind what the user gave.

    Raises
    ------
    DataError
        If it is no lazy table.
    ModelError
        If the version of narwhals installed is too early to hand expressions to its engine.
    """
    if isinstance(data, LazyTable):
        return data
    import narwhals as nw

    with quietly():
        frame = materialised(data)
    if not isinstance(frame, nw.LazyFrame):
        raise DataError(
            f"`data` is a {type(data).__name__} in memory; rows='push' is for tables of an engine: "
            "a DuckDB relation, a polars LazyFrame, a Dask, Spark or Ibis table."
        )
    absent = [name for name in _NEEDED if not hasattr(nw.Expr, name)]
    if absent:
        raise ModelError(
            f"narwhals {nw.__version__} cannot hand `{absent[0]}` to an engine; install a newer "
            "one (pip install -U narwhals), or collect the table first."
        )
    schema = dict(frame.collect_schema())
    name = str(getattr(frame.implementation, "value", frame.implementation)).lower()
    return LazyTable(data, frame, _ENGINES.get(name, name), schema)


@contextmanager
def quietly() -> Iterator[None]:
    """Without narwhals' word about where Dask's part of it will be."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Dask support is moving out of Narwhals")
        yield


def column_kind(name: str, dtype: Any) -> str:
    """``"number"``, ``"flag"`` or ``"label"``: what a formula sees in a column.

    Raises
    ------
    DataError
        If it holds neither numbers nor categories.
    """
    import narwhals as nw

    if dtype == nw.Boolean:
        return "flag"
    if dtype.is_numeric():
        return "number"
    if dtype in (nw.String, nw.Categorical, nw.Enum):
        return "label"
    temporal = dtype.is_temporal()
    what = "dates or times" if temporal else str(dtype)
    advice = (
        "; make a number of it first, for example days since a start"
        if temporal
        else "; convert it to numbers or to text"
    )
    raise DataError(
        f"Column `{name}` holds {what}, and a formula needs numbers, text, booleans or "
        f"categories{advice}."
    )


@dataclass(eq=False)
class LazyTable:
    """A table whose rows stay where they are.

    Attributes
    ----------
    native : object
        As given: a DuckDB relation, a polars LazyFrame, ...
    frame : narwhals.LazyFrame
        The same to narwhals.
    engine : str
        Name of its engine, such as ``"DuckDB"``.
    schema : dict
        Type of each column.
    seconds : list of (str, float)
        The passes over the table so far, and how long each took.
    listener : Listener or None
        Who hears of them; see `telling`.
    """

    native: Any
    frame: Any
    engine: str
    schema: dict[str, Any]
    seconds: list[tuple[str, float]] = field(default_factory=list)
    listener: Listener | None = None

    #: Whether queries can be asked.
    is_there = True

    def __repr__(self) -> str:
        return f"LazyTable({self.engine}, {len(self.schema)} columns)"

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return list(self.schema)

    def kind(self, name: str) -> str:
        """See `column_kind`."""
        if name not in self.schema:
            raise unknown_column(name, self.names)
        return column_kind(name, self.schema[name])

    def batches(self, query: Any, what: str) -> Iterator[Any]:
        """The answer to a query in pieces, where the engine hands it over so.

        Parameters
        ----------
        query, what
            As for `run`.

        Yields
        ------
        narwhals.DataFrame
            Some rows; all of them where the engine has its answer in one piece.

        Raises
        ------
        DataError
            As `run`.
        """
        import narwhals as nw

        native: Any = query.to_native() if self.engine == "DuckDB" else None
        if not hasattr(native, "to_arrow_reader"):
            yield self._timed(what, query.collect)
            return
        reader = self._timed(what, lambda: native.to_arrow_reader(_BATCH))
        while True:
            try:
                batch = self._answered(what, reader.read_next_batch)
            except StopIteration:
                return
            import pyarrow as pa

            yield nw.from_native(pa.Table.from_batches([batch]), eager_only=True)

    def _timed(self, what: str, answer: Callable[[], Any]) -> Any:
        """What the engine answers, told as a pass."""
        number, started = len(self.seconds) + 1, time.perf_counter()
        if self.listener is not None:
            self.listener.announce(TablePass(number, what))
        out = self._answered(what, answer)
        taken = time.perf_counter() - started
        self.seconds.append((what, taken))
        if self.listener is not None:
            self.listener.tell(TablePass(number, what, taken))
        return out

    def _answered(self, what: str, answer: Callable[[], Any]) -> Any:
        """What the engine answers, or its own words in an error of ours."""
        try:
            with quietly():
                return answer()
        except (MemoryError, KeyboardInterrupt, StopIteration):
            raise
        except Exception as error:
            if _is_interruption(error):
                raise KeyboardInterrupt from None
            raise DataError(
                f"{self.engine} could not answer the query for {what}: {_first_line(error)}"
            ) from error

    @contextmanager
    def telling(self, progress: ProgressOption) -> Iterator[None]:
        """Tell of each pass meanwhile, as a `TablePass`; ``progress`` is that of `lmer`."""
        before, self.listener = self.listener, Listener(progress, every=0.0)
        try:
            yield
        finally:
            self.listener.close()
            self.listener = before

    def run(self, query: Any, what: str) -> pd.DataFrame:
        """The answer to a query, as a frame in memory.

        Parameters
        ----------
        query : narwhals.LazyFrame
            Of this table.
        what : str
            What it is for, as progress calls it.

        Raises
        ------
        DataError
            If the engine cannot answer, with its own words.
        KeyboardInterrupt
            On Ctrl-C, whatever the engine makes of it.
        """
        answer = self._timed(what, query.collect)
        return take_columns(answer, column_names(answer))


def _is_interruption(error: Exception) -> bool:
    """Whether it is what DuckDB makes of Ctrl-C: a RuntimeError, or an error of its own."""
    return str(error) == "Query interrupted" or type(error).__name__ == "InterruptException"


def _first_line(error: Exception) -> str:
    text = re.sub(r"\s+", " ", str(error)).strip() or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."


def count_rows(table: LazyTable) -> int:
    """Number of rows of a table."""
    import narwhals as nw

    return int(table.run(table.frame.select(nw.len().alias("n")), "number of rows")["n"].iloc[0])
