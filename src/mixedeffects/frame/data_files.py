"""Tables from files of several formats, or from a pipe."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import os
import re
import shlex
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
from pandas.api.types import is_object_dtype

from mixedeffects.base.files import ending, target_path, unreadable
from mixedeffects.base.habits import explained
from mixedeffects.base.options import is_listed
from mixedeffects.base.warning import warn
from mixedeffects.errors import DataError, DataWarning, MixedEffectsError, ModelError
from mixedeffects.frame.text_levels import is_number, shown_labels

__all__ = ["read_file", "read_table"]

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


@explained
def read_table(source: str | os.PathLike[str], *, missing: Any = ()) -> pd.DataFrame:
    r"""Read a table from a file of text, Excel, SPSS, parquet or arrow.

    Text files are read with whatever separates the fields of their first line: commas, semicolons
    or tabs. With semicolons, numbers such as ``1,5`` have a decimal comma if none in the first
    rows has a point. They are in UTF-8, in UTF-16 if they say so, else in Windows-1252. Of Excel
    files the first sheet is read. Of SPSS files, variables of nominal or ordinal measure all of
    whose values have labels are factors, their levels in the order of the values; others are
    numbers or text, and values declared missing are missing.

    Blanks at the ends of names and of text are taken off; text that is empty then is missing.

    Parameters
    ----------
    source : str or path
        A file whose name ends in .csv, .tsv or .txt (also followed by .gz), .parquet, .arrow,
        .feather, .xlsx or .sav.
    missing : str, number, or list of them
        What else stands for a missing value, such as ``"n.a."`` or ``-99``, in any column.

    Returns
    -------
    DataFrame
        Its ``attrs["name"]`` is the file's name, which the summary of a fit shows.

    Raises
    ------
    DataError
        If there is no such file, the format is not known, or a package that it needs is missing.
    FileError
        If the file cannot be read as a table.
    ModelError
        If an argument is not what it should be.

    Warns
    -----
    DataWarning
        If a column of numbers is text because of a few values, or something else had to be
        guessed that may be wrong.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import mixedeffects as me
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder) / "plots.csv"
    ...     _ = file.write_text("plot;height\nA;1,5\nB;n.a.\n")
    ...     me.read_table(file, missing="n.a.")
      plot  height
    0    A     1.5
    1    B     NaN
    """
    path = target_path(source, "read_table")
    if not path.exists():
        raise DataError(f"There is no file {str(source)!r}.")
    return read_file(str(path), missing, lambda text: None, _warn)


def _warn(sentence: str) -> None:
    warn(sentence, DataWarning)


def read_file(source: str, missing: Any, note: Note, doubt: Note) -> pd.DataFrame:
    """Read a table from a path that exists, or ``"-"`` for text from standard input.

    Parameters
    ----------
    source, missing
        As for `read_table`.
    note, doubt : callable
        Are told, in one sentence each, what was taken for granted, and what of it may be wrong.

    Returns
    -------
    DataFrame

    Raises
    ------
    DataError, FileError, ModelError
        As for `read_table`.
    """
    name = "standard input" if source == "-" else source
    absent = _absent(missing)
    try:
        data = (
            _from_pipe(absent, note)
            if source == "-"
            else _from_file(Path(source), absent, note, doubt)
        )
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
    data = _without_blanks(data, absent)
    _doubt_text(data, Path(name).name, doubt)
    data.attrs["name"] = Path(name).name
    return data


def _absent(missing: Any) -> list[str | float]:
    """What stands for a missing value; a text that is a number also as the number."""
    given = list(missing) if is_listed(missing) else [missing]
    for each in given:
        if isinstance(each, bool) or not isinstance(each, (str, int, float)):
            raise ModelError(
                f"missing must be text, a number, or a list of them, not {each!r:.60}."
            )
    numbers = [float(each) for each in given if isinstance(each, str) and _is_plain(each)]
    return [*given, *numbers]


def _is_plain(text: str) -> bool:
    return is_number(text) and "," not in text


def _without_blanks(data: pd.DataFrame, absent: list[str | float]) -> pd.DataFrame:
    """Names and text without blanks at their ends; what is empty, or says so, is missing."""
    data = data.rename(columns=lambda name: name.strip() if isinstance(name, str) else name)
    for j, dtype in enumerate(data.dtypes):
        column = data.iloc[:, j]
        if _may_be_text(dtype):
            plain = column.map(lambda value: value.strip() if isinstance(value, str) else value)
            gone = plain.isin(["", *absent])
            if gone.any() or not plain.equals(column):
                data.isetitem(j, plain.mask(gone).infer_objects().array)
        elif absent and (gone := column.isin(absent)).any():
            data.isetitem(j, column.mask(gone).array)
    return data


def _may_be_text(dtype: Any) -> bool:
    return is_object_dtype(dtype) or isinstance(dtype, pd.StringDtype)


def _doubt_text(data: pd.DataFrame, name: str, doubt: Note) -> None:
    """Say which columns are text though most of their values are numbers."""
    for j, dtype in enumerate(data.dtypes):
        if not _may_be_text(dtype):
            continue
        values = data.iloc[:, j].dropna()
        text = [value for value in values if isinstance(value, str)]
        others = [value for value in text if not is_number(value)]
        if 2 * len(others) >= len(values):
            continue
        column = data.columns[j]
        if others:
            are = "is no number" if len(others) == 1 else "are no numbers"
            different = list(dict.fromkeys(others))
            codes = shown_labels(different)
            say = codes if len(different) == 1 else f"[{codes}]"
            doubt(
                f"{name}: `{column}` was read as text, for {len(others):,} of its {len(values):,} "
                f"values {are}: {codes}. If {'it stands' if len(different) == 1 else 'they stand'} "
                f"for a missing value, say so: missing={say}, or on the command line "
                f"--missing {shlex.quote(different[0])}."
            )
        elif any("," in value for value in text):
            doubt(
                f"{name}: `{column}` was read as text, for its numbers have commas, which were not "
                "taken for decimal ones. Mend the file, or read it with pandas.read_csv(..., "
                "decimal=',')."
            )


def _from_pipe(absent: list[str | float], note: Note) -> pd.DataFrame:
    return _text(io.BytesIO(sys.stdin.buffer.read()), "standard input", absent, note)


def _from_file(path: Path, absent: list[str | float], note: Note, doubt: Note) -> pd.DataFrame:
    match ending(path):
        case ".csv" | ".tsv" | ".txt":
            with path.open("rb") as file:
                return _text(file, path.name, absent, note)
        case ".csv.gz" | ".tsv.gz" | ".txt.gz":
            with gzip.open(path) as packed:
                return _text(io.BytesIO(packed.read()), path.name, absent, note)
        case ".parquet":
            return pd.read_parquet(path)
        case ".arrow" | ".feather":
            return pd.read_feather(path)
        case ".xlsx":
            return _excel(path, absent, note)
        case ".sav":
            return _spss(path, doubt)
    raise DataError(
        f"The format of {path.name!r} is not known: use .csv, .tsv, .txt (also .gz), .parquet, "
        ".arrow, .xlsx or .sav."
    )


# --- text --------------------------------------------------------------------------------------


def _text(file: BinaryIO, name: str, absent: list[str | float], note: Note) -> pd.DataFrame:
    sample = file.read(_SAMPLE)
    if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        file.seek(0)
        file = io.BytesIO(file.read().decode("utf-16").encode())
        sample = file.read(_SAMPLE)
    separator = _separator(sample)
    decimal = "," if separator == ";" and _has_decimal_commas(sample) else "."
    _check_last_line(file, separator)

    def read(encoding: str) -> pd.DataFrame:
        file.seek(0)
        return pd.read_csv(
            file,
            sep=separator,
            decimal=decimal,
            encoding=encoding,
            compression=None,
            skipinitialspace=True,
            na_values=[str(each) for each in absent],
        )

    try:
        data = read("utf-8")
    except UnicodeDecodeError:
        data = read("cp1252")
        note(f"{name} is not in UTF-8; it was read in Windows-1252, as Excel writes it.")
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


def _excel(path: Path, absent: list[str | float], note: Note) -> pd.DataFrame:
    with pd.ExcelFile(path, engine="openpyxl") as book:
        first, *others = book.sheet_names
        if others:
            note(f"{path.name} has {len(others) + 1} sheets; the first, {first!r}, was read.")
        return pd.read_excel(book, na_values=[str(each) for each in absent])


def _spss(path: Path, doubt: Note) -> pd.DataFrame:
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
        doubt(
            f"{path.name}: some values of {', '.join(numbers)} have no label of their own, so the "
            "values themselves were read; factor() in the formula makes a factor of one."
        )
    return data


def _all_labelled(values: pd.Series[Any], labels: dict[Any, str]) -> bool:
    """Whether every value has a label, and no other value has the same."""
    observed = set(values.dropna().unique())
    return observed <= set(labels) and len(set(labels.values())) == len(labels)
