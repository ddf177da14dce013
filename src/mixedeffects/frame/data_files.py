"""Tables from files of several formats, or from a pipe, for the command line."""

from __future__ import annotations

import csv
import gzip
import io
import re
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd

from mixedeffects.base.files import ending, unreadable
from mixedeffects.errors import DataError, MixedEffectsError

__all__ = ["read_table"]

#: Bytes at the end of a text file among which its last row is, and at its beginning that are
#: looked at to see how its fields are separated.
_LONGEST_ROW = 1 << 16
_SAMPLE = 1 << 16

#: What may stand between the fields of a text file; of equally many the first.
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}

#: Package and extra that a format needs.
_EXTRAS = {
    ".parquet": ("pyarrow", "arrow"),
    ".arrow": ("pyarrow", "arrow"),
    ".feather": ("pyarrow", "arrow"),
    ".xlsx": ("openpyxl", "excel"),
    ".sav": ("pyreadstat", "spss"),
}

Note = Callable[[str], object]


def read_table(source: str, note: Note = lambda text: None) -> pd.DataFrame:
    """Read a table from a file, by the ending of its name, or from standard input.

    Text files are read with whatever separates the fields of their first line: commas, semicolons
    or tabs. With semicolons, numbers such as ``1,5`` have a decimal comma if none in the first
    rows has a point. Of Excel files the first sheet is read. Of SPSS files, variables of nominal
    or ordinal measure all of whose values have labels are factors, their levels in the order of
    the values; others are numbers or text.

    Parameters
    ----------
    source : str
        A path that exists, ending in .csv, .tsv or .txt (also followed by .gz), .parquet, .arrow,
        .feather, .xlsx or .sav; or ``"-"`` for text from standard input.
    note : callable
        Is told, in one sentence each, what was taken for granted.

    Returns
    -------
    DataFrame
        Its ``attrs["name"]`` is the file's name.

    Raises
    ------
    DataError
        If the format is not known, or a package that it needs is missing.
    FileError
        If the file cannot be read as a table.
    """
    name = "standard input" if source == "-" else source
    try:
        data = _from_pipe(note) if source == "-" else _from_file(Path(source), note)
    except ImportError:
        package, extra = _EXTRAS[ending(Path(source))]
        raise DataError(
            f"Reading {source!r} needs {package}; install it with: "
            f"pip install 'mixedeffects[{extra}]'"
        ) from None
    except MixedEffectsError:
        raise
    except (ValueError, OSError, EOFError, KeyError, zlib.error, zipfile.BadZipFile) as error:
        raise unreadable(name, error) from None
    data.attrs["name"] = Path(name).name
    return data


def _from_pipe(note: Note) -> pd.DataFrame:
    return _text(io.BytesIO(sys.stdin.buffer.read()), "standard input", note)


def _from_file(path: Path, note: Note) -> pd.DataFrame:
    match ending(path):
        case ".csv" | ".tsv" | ".txt":
            with path.open("rb") as file:
                return _text(file, path.name, note)
        case ".csv.gz" | ".tsv.gz" | ".txt.gz":
            with gzip.open(path) as packed:
                return _text(io.BytesIO(packed.read()), path.name, note)
        case ".parquet":
            return pd.read_parquet(path)
        case ".arrow" | ".feather":
            return pd.read_feather(path)
        case ".xlsx":
            return _excel(path, note)
        case ".sav":
            return _spss(path, note)
    raise DataError(
        f"The format of {path.name!r} is not known: use .csv, .tsv, .txt (also .gz), .parquet, "
        ".arrow, .xlsx or .sav."
    )


# --- text --------------------------------------------------------------------------------------


def _text(file: BinaryIO, name: str, note: Note) -> pd.DataFrame:
    sample = file.read(_SAMPLE)
    separator = _separator(sample)
    decimal = "," if separator == ";" and _has_decimal_commas(sample) else "."
    _check_last_line(file, separator)
    file.seek(0)
    data = pd.read_csv(file, sep=separator, decimal=decimal, compression=None)
    if separator != ",":
        commas = " and decimal commas" if decimal == "," else ""
        note(f"{name} was read with {_SEPARATORS[separator]} between fields{commas}.")
    return data


def _separator(sample: bytes) -> str:
    header = re.sub(rb'"[^"]*"', b"", sample).partition(b"\n")[0]
    return max(_SEPARATORS, key=lambda each: header.count(each.encode()))


def _has_decimal_commas(sample: bytes) -> bool:
    """Whether fields between semicolons are numbers with a comma, and none has a point."""
    lines = sample.decode("utf-8", errors="replace").splitlines()
    fields = [field.strip() for row in csv.reader(lines, delimiter=";") for field in row]
    return any(re.fullmatch(r"[-+]?\d*,\d+", field) for field in fields) and not any(
        re.fullmatch(r"[-+]?\d*\.\d+", field) for field in fields
    )


def _check_last_line(file: BinaryIO, separator: str) -> None:
    """Complain about a text file that ends within a row: the rest would be read as missing."""
    between = separator.encode()
    file.seek(0)
    header = file.readline()
    size = file.seek(0, io.SEEK_END)
    file.seek(max(len(header), size - _LONGEST_ROW))
    last = file.read().rpartition(b"\n")[2]
    if last and b'"' not in header + last and last.count(between) < header.count(between):
        raise ValueError("its last line is cut short")


# --- Excel and SPSS ------------------------------------------------------------------------------


def _excel(path: Path, note: Note) -> pd.DataFrame:
    with pd.ExcelFile(path, engine="openpyxl") as book:
        first, *others = book.sheet_names
        if others:
            note(f"{path.name} has {len(others) + 1} sheets; the first, {first!r}, was read.")
        return pd.read_excel(book)


def _spss(path: Path, note: Note) -> pd.DataFrame:
    import pyreadstat

    try:
        data, about = pyreadstat.read_sav(path)
    except (pyreadstat.ReadstatError, pyreadstat.PyreadstatError) as error:
        raise unreadable(path, error) from None
    numbers = []
    for name, labels in about.variable_value_labels.items():
        if about.variable_measure.get(name) == "scale":
            continue
        if _all_labelled(data[name], labels):
            levels = [labels[value] for value in sorted(labels)]
            data[name] = pd.Categorical(data[name].map(labels), categories=levels)
        else:
            numbers.append(name)
    if numbers:
        note(
            f"{path.name}: some values of {', '.join(numbers)} have no label of their own, so the "
            "values themselves were read; --factor makes factors of them."
        )
    return data


def _all_labelled(values: pd.Series[Any], labels: dict[Any, str]) -> bool:
    """Whether every value has a label, and no other value has the same."""
    observed = set(values.dropna().unique())
    return observed <= set(labels) and len(set(labels.values())) == len(labels)
