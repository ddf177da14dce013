"""Files that an engine reads, of which no row is brought into memory."""

from __future__ import annotations

import glob
import importlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mixedeffects.base.files import ending, unreadable
from mixedeffects.errors import DataError, ModelError

__all__ = ["ENGINES", "has_wildcards", "table_of_files"]

#: Engines that read files here.
ENGINES = ("duckdb", "polars")
_PARQUET = ".parquet"
_TEXT = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
_SIZE = re.compile(r"\d+(\.\d+)?\s*[KMGT]i?B", re.IGNORECASE)


def has_wildcards(source: str) -> bool:
    """Whether a name may stand for several files."""
    return glob.has_magic(source)


def table_of_files(
    source: str, engine: str, *, memory: str | None = None, missing: Sequence[str] = ()
) -> Any:
    """A lazy table of one or more parquet or text files.

    Parameters
    ----------
    source : str
        Name of a file; with ``*``, ``?``, ``[...]`` and ``**`` of several.
    engine : {"duckdb", "polars"}
        What reads them.
    memory : str, optional
        Most memory of DuckDB's, such as ``"2GB"``; beyond, it writes to disk.
    missing : sequence of str
        What else stands for a missing value in text files.

    Returns
    -------
    duckdb.DuckDBPyRelation or polars.LazyFrame

    Raises
    ------
    DataError
        If there are no such files, or their format or the engine is not at hand.
    FileError
        If the engine cannot read them.
    ModelError
        If there is no such limit of memory.
    """
    if memory is not None and engine != "duckdb":
        raise ModelError(
            f"A limit of memory is DuckDB's; {engine} has none. Choose the engine duckdb, or leave "
            "the limit out."
        )
    if memory is not None and not _SIZE.fullmatch(memory.strip()):
        raise ModelError(f"A limit of memory is a size such as 2GB or 500MB, not {memory!r:.60}.")
    paths = _paths(source)
    kind = _format(paths)
    if missing and kind == _PARQUET:
        raise DataError(
            "What stands for a missing value can be said of text files; parquet files have missing "
            "values of their own."
        )
    try:
        module = importlib.import_module(engine)
    except ImportError:
        raise DataError(
            f"The engine {engine} is not installed; install it with: pip install {engine}"
        ) from None
    readers: dict[str, Callable[..., Any]] = {"duckdb": _by_duckdb, "polars": _by_polars}
    try:
        return readers[engine](module, paths, kind, list(missing), memory)
    except Exception as error:
        # Each engine has errors of its own.
        raise unreadable(source, error) from None


def _paths(source: str) -> list[str]:
    if has_wildcards(source) and not Path(source).exists():
        pattern = Path(source)
        root = Path(pattern.anchor)
        found = sorted(root.glob(str(pattern.relative_to(root))))
        if not any(path.is_file() for path in found):
            raise DataError(f"No file matches {source!r}.")
        return [str(path) for path in found if path.is_file()]
    path = Path(source)
    if path.is_dir():
        raise DataError(
            f"{source!r} is a folder; say which of its files, for example "
            f"'{path.as_posix()}/*.parquet'."
        )
    if not path.exists():
        raise DataError(f"There is no file {source!r}.")
    return [source]


def _format(paths: Sequence[str]) -> str:
    """The ending that all have."""
    kinds = sorted({ending(Path(path)) for path in paths})
    for kind in kinds:
        if kind not in (_PARQUET, *_TEXT):
            named = next(path for path in paths if ending(Path(path)) == kind)
            raise DataError(
                f"An engine reads parquet and csv files (.parquet, {', '.join(_TEXT)}), not "
                f"{named!r}."
            )
    if len(kinds) > 1:
        raise DataError(
            f"The files are of several formats ({', '.join(kinds)}); a table is of one."
        )
    return kinds[0]


def _by_duckdb(
    duckdb: Any, paths: list[str], kind: str, missing: list[str], memory: str | None
) -> Any:
    # Sums need no order of the rows, and keeping it takes memory.
    options: dict[str, Any] = {"preserve_insertion_order": False}
    if memory is not None:
        options["memory_limit"] = memory.strip()
    connection = duckdb.connect(config=options)
    if kind == _PARQUET:
        return connection.read_parquet(paths)
    return connection.read_csv(paths, na_values=["", *missing])


def _by_polars(
    polars: Any, paths: list[str], kind: str, missing: list[str], memory: str | None
) -> Any:
    if kind == _PARQUET:
        table = polars.scan_parquet(paths)
    else:
        tabs = kind.startswith(".tsv")
        table = polars.scan_csv(paths, separator="\t" if tabs else ",", null_values=missing or None)
    table.collect_schema()
    return table
