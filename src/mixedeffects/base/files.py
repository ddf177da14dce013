"""Files that are there whole or not at all, and what is said where they cannot be."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd

from mixedeffects.errors import DataError, FileError, ModelError

__all__ = [
    "check_place",
    "ending",
    "escaped_formulas",
    "into_file",
    "report_path",
    "target_path",
    "unreadable",
    "write_text_whole",
    "write_whole",
]

#: A cell that begins with one of these is a formula to spreadsheets.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

#: Endings of files that programs would not open if they held HTML.
_OTHER_FORMATS = (".docx", ".doc", ".odt", ".rtf", ".pdf", ".tex", ".md", ".txt", ".csv", ".xlsx")


def target_path(path: Any, what: str = "The output") -> Path:
    """The path that was given as text or as an object for paths.

    Raises
    ------
    ModelError
        If it is neither.
    """
    try:
        name = os.fsdecode(path) if isinstance(path, (str, os.PathLike)) else ""
    except (TypeError, ValueError):
        name = ""
    if not name or "\0" in name:
        raise ModelError(f"{what} needs the name of a file, not {path!r:.60}.")
    return Path(name)


def ending(path: Path) -> str:
    """What a name ends in, in small letters; of compressed files both endings, ``".csv.gz"``."""
    last = path.suffix.lower()
    return path.with_suffix("").suffix.lower() + last if last == ".gz" else last


def check_place(path: Path) -> None:
    """Complain about a file that cannot be written, before there is something to write.

    Raises
    ------
    DataError
        If the path is a folder or its folder does not exist.
    FileError
        If there is no permission to write it.
    """
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder; give the name of a file in it.")
        if not path.parent.is_dir():
            raise DataError(f"There is no folder {str(path.parent)!r} to write {path.name!r} into.")
        allowed = os.access(path, os.W_OK) if path.exists() else True
    except OSError as error:
        raise _unwritable(path, error) from error
    if not (allowed and (_is_special(path) or os.access(path.parent, os.W_OK | os.X_OK))):
        raise FileError(f"There is no permission to write {str(path)!r}.")


def report_path(path: Any) -> Path:
    """Where a report can be written.

    Raises
    ------
    DataError
        If there is no such folder, the path is one, or the ending is that of another format.
    ModelError
        If it is no path.
    """
    target = target_path(path, "The report")
    if target.suffix.lower() in _OTHER_FORMATS:
        raise DataError(
            f"{target}: a report is a page of HTML, so its name must end in .html. Word opens it, "
            "and browsers print it as PDF."
        )
    check_place(target)
    return target


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside the target and move: the file is there whole or not at all.

    Parameters
    ----------
    path : Path
        The target; a link is followed, and a device or a pipe is written to directly.
    write : callable
        Gets the path to write to.

    Raises
    ------
    FileError
        If it cannot be written; what was there before is as it was.
    """
    try:
        if _is_special(path):
            write(path)
            return
        target = path.resolve()
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".mixedeffects-") as folder:
            temporary = Path(folder) / target.name
            write(temporary)
            with temporary.open("rb+") as file:
                # Some systems say only now that the disk is full.
                os.fsync(file.fileno())
            if target.exists():
                shutil.copymode(target, temporary)
            temporary.replace(target)
    except OSError as error:
        raise _unwritable(path, error) from error


def into_file(write: Callable[[BinaryIO], object]) -> Callable[[Path], object]:
    """Turn a writer to an open binary file into one to a path, for `write_whole`."""

    def to_path(path: Path) -> None:
        with path.open("wb") as file:
            write(file)

    return to_path


def write_text_whole(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all; see `write_whole`."""
    write_whole(path, lambda place: place.write_text(text, encoding="utf-8"))


def escaped_formulas(table: pd.DataFrame) -> pd.DataFrame:
    r"""A table whose labels and texts no spreadsheet takes for a formula.

    Those that begin with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return get an apostrophe
    before them, which spreadsheets take as the sign of text. Numbers stay as they are.

    Examples
    --------
    >>> table = pd.DataFrame({"@sum": [-1.5]}, index=["=1+1"])
    >>> escaped_formulas(table).to_csv()
    ",'@sum\n'=1+1,-1.5\n"
    """
    out = table.map(_escaped)
    out.index, out.columns = _escaped_labels(table.index), _escaped_labels(table.columns)
    return out


def unreadable(source: Any, error: BaseException) -> FileError:
    """The error for a file that is there and cannot be read, with the reason."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        reason = error.strerror
    return FileError(f"The file {str(source)!r} cannot be read as a table: {reason.rstrip('.')}.")


def _unwritable(path: Path, error: OSError) -> FileError:
    out = FileError(
        f"{str(path)!r} cannot be written: {error.strerror or error}. What was there before is as "
        "it was."
    )
    out.errno = error.errno
    return out


def _is_special(path: Path) -> bool:
    """Whether it is a device or a pipe, beside which there is no place for another file."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _escaped(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _escaped_labels(labels: pd.Index) -> pd.Index:
    out = labels.map(
        lambda label: tuple(map(_escaped, label)) if isinstance(label, tuple) else _escaped(label)
    )
    return out.set_names([_escaped(name) for name in labels.names])
