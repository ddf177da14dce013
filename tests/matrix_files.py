"""Matrices in files, read back by the programs they are for."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pandas as pd
import scipy.io
import scipy.sparse


def read(path: Path) -> Any:
    if path.suffix == ".npz":
        return scipy.sparse.load_npz(path)
    if path.suffix == ".mtx":
        return read_matrix_market(path)
    return pd.read_csv(path, index_col=0)


def read_matrix_market(file: Any) -> Any:
    # SciPy 1.18 wants to know which of its two kinds of sparse matrix; 1.14 has no such choice.
    choices = inspect.signature(scipy.io.mmread).parameters
    return scipy.io.mmread(file, **({"spmatrix": False} if "spmatrix" in choices else {}))


def as_array(read_back: Any) -> Any:
    return read_back.toarray() if scipy.sparse.issparse(read_back) else read_back.to_numpy()
