"""What is known about each bundled data set: description, source, columns and their types."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Literal, NotRequired, TypedDict, cast

import pandas as pd

from mixedeffects.base.options import meant, member
from mixedeffects.errors import DataError

__all__ = ["ColumnNote", "ColumnType", "Entry", "catalogue", "data_file", "list_datasets", "schema"]


class ColumnNote(TypedDict):
    """Meaning and unit of one column; the unit is empty where there is none."""

    meaning: str
    unit: str


class Entry(TypedDict):
    """Provenance of one data set."""

    description: str
    details: str
    source: str
    package: str
    package_version: str
    object: str
    licence: str
    rows: int
    columns: dict[str, ColumnNote]


class ColumnType(TypedDict):
    """Type of one column in R, with the levels of a factor in R's order."""

    type: Literal["numeric", "integer", "character", "factor", "ordered"]
    levels: NotRequired[list[str]]


def data_file(name: str) -> Traversable:
    """Find one of the files that are shipped with the data sets.

    Parameters
    ----------
    name : str
        File name, for example ``"cake.csv.gz"``.

    Returns
    -------
    importlib.resources.abc.Traversable
        The file, wherever the package is installed.
    """
    return files("mixedeffects.datasets") / "data" / name


@cache
def catalogue() -> dict[str, Entry]:
    """Read the provenance of all data sets.

    Returns
    -------
    dict of str to Entry
        In the order in which :func:`list_datasets` shows them.
    """
    text = data_file("catalogue.json").read_text(encoding="utf-8")
    return cast("dict[str, Entry]", json.loads(text))


@cache
def _schemas() -> dict[str, dict[str, ColumnType]]:
    text = data_file("schema.json").read_text(encoding="utf-8")
    return cast("dict[str, dict[str, ColumnType]]", json.loads(text))


def schema(name: str) -> dict[str, ColumnType]:
    """Look up the columns of a data set with their types in R.

    Parameters
    ----------
    name : str
        Name of the data set.

    Returns
    -------
    dict of str to ColumnType
        One entry per column, in the order of the table.

    Raises
    ------
    DataError
        If there is no data set of this name.
    """
    known = _schemas()
    found = member(name, known)
    if found is not None:
        return known[found]
    question, names = meant(str(name), known, 0.5), ", ".join(catalogue())
    raise DataError(
        f"There is no bundled data set called {name!r:.60}.{question} The names are: {names}."
    )


def list_datasets() -> pd.DataFrame:
    """List the bundled data sets.

    Returns
    -------
    pandas.DataFrame, one row per data set
        Columns ``name``, ``rows``, ``columns`` (how many), ``description`` (one line) and
        ``source`` (the publication, and the R package that distributes the data).

    See Also
    --------
    load_dataset : Load one of them.

    Examples
    --------
    >>> from mixedeffects.datasets import list_datasets
    >>> list_datasets()[["name", "rows", "columns"]].head(3)
              name   rows  columns
    0   sleepstudy    180        3
    1   threelevel    150        7
    2         star  26796       18
    """
    entries = catalogue()
    return pd.DataFrame(
        {
            "name": list(entries),
            "rows": [entry["rows"] for entry in entries.values()],
            "columns": [len(entry["columns"]) for entry in entries.values()],
            "description": [entry["description"] for entry in entries.values()],
            "source": [source_text(entry) for entry in entries.values()],
        }
    )


def source_text(entry: Entry) -> str:
    """Name the publication and the R object in one line.

    Parameters
    ----------
    entry : Entry
        Provenance of a data set.

    Returns
    -------
    str
    """
    if not entry["package"]:
        return entry["source"]
    return f"{entry['source']} (R package {entry['package']}, object {entry['object']})"
