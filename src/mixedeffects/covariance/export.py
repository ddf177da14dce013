"""Writing matrices to files that other programs read: SciPy's .npz, Matrix Market, .csv."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import pandas as pd
import scipy.io
import scipy.sparse

from mixedeffects.base.files import (
    check_place,
    ending,
    escaped_formulas,
    into_file,
    target_path,
    write_whole,
)
from mixedeffects.base.options import checked_flag
from mixedeffects.errors import DataError, ModelError

__all__ = ["check_target", "save_matrix"]

#: Largest csv file, and the bytes a number takes in one.
_LARGEST_CSV = 1e9
_BYTES = 19.0


def save_matrix(
    matrix: Any, path: str | os.PathLike[str], *, escape_formulas: bool = False
) -> None:
    """Write a matrix to a file whose name says the format.

    The file is there whole or not at all: it is written beside its place and moved.

    Parameters
    ----------
    matrix : DataFrame, array, scipy sparse matrix, or object with ``shape`` and ``sparse()``
        What to write. Only a DataFrame, or an object with ``index``, has labels, and only a csv
        file keeps them.
    path : str or path
        Ending in ``.npz`` (`scipy.sparse.load_npz` reads it), ``.mtx`` (Matrix Market; ``readMM``
        in R and `scipy.io.mmread` read it), or ``.csv`` or ``.csv.gz`` (all entries, labelled);
        in small or capital letters.
    escape_formulas : bool
        In csv files, put an apostrophe before labels that a spreadsheet would run as formulas.

    Raises
    ------
    DataError
        If the ending is not one of these, or there is no such folder.
    FileError
        If the file cannot be written: no permission, no space.
    ModelError
        If the csv file would be larger than 1 GB, or the sparse matrix than its own limit.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import scipy.sparse
    >>> import mixedeffects as me
    >>> from mixedeffects.covariance.export import save_matrix
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "Z.npz"
    ...     save_matrix(m.Z, path)
    ...     scipy.sparse.load_npz(path).shape
    (180, 36)
    """
    target = check_target(path)
    escape_formulas = checked_flag(escape_formulas, "escape_formulas")
    write: Callable[[BinaryIO], object]
    match ending(target):
        case ".npz":
            columns = scipy.sparse.csc_array(_sparse(matrix))
            write = partial(scipy.sparse.save_npz, matrix=columns)
        case ".mtx":
            entries = scipy.sparse.coo_array(_sparse(matrix))
            write = partial(scipy.io.mmwrite, a=entries, symmetry=_symmetry(entries))
        case kind:
            table = _table(matrix, target)
            table = escaped_formulas(table) if escape_formulas else table
            write = partial(table.to_csv, compression="gzip" if kind == ".csv.gz" else None)
    # Into a file of Python's: those that the writers open get other endings, or are left cut short
    # where the disk is full.
    write_whole(target, into_file(write))


def check_target(path: Any) -> Path:
    """Complain about a matrix file that cannot be written, before there is something to write.

    Returns
    -------
    Path
        Where to write.

    Raises
    ------
    DataError
        If the ending is not known, the path is a folder, or its folder does not exist.
    FileError
        If there is no permission to write it.
    """
    target = target_path(path)
    check_place(target)
    if ending(target) not in (".npz", ".mtx", ".csv", ".csv.gz"):
        raise DataError(
            f"{target}: the name must end in .npz (scipy), .mtx (Matrix Market), .csv or .csv.gz "
            "(labelled)."
        )
    return target


def _sparse(matrix: Any) -> Any:
    if scipy.sparse.issparse(matrix) or not callable(getattr(matrix, "sparse", None)):
        return matrix
    return matrix.sparse()


def _symmetry(entries: Any) -> Literal["general", "symmetric"]:
    """Half the file for a symmetric matrix, and R reads it as one; rounding is no asymmetry."""
    if entries.shape[0] != entries.shape[1] or not entries.nnz:
        return "general"
    columns = scipy.sparse.csc_array(entries)
    largest = float(abs(columns).max())
    return "symmetric" if abs(columns - columns.T).max() <= 1e-14 * largest else "general"


def _table(matrix: Any, path: Path) -> pd.DataFrame:
    rows, columns = matrix.shape
    size = _BYTES * float(rows) * float(columns)
    if size > _LARGEST_CSV:
        raise ModelError(
            f"{path}: {rows:,} x {columns:,} numbers would take about {size / 1e9:,.0f} GB as csv. "
            "Write a sparse file, .npz or .mtx, or the block of one level."
        )
    if isinstance(matrix, pd.DataFrame):
        return matrix
    labels = getattr(matrix, "index", None)
    values: Any = matrix
    if scipy.sparse.issparse(matrix):
        values = values.toarray()
    return pd.DataFrame(np.asarray(values), index=labels, columns=labels)
