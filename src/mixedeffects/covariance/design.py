"""The random-effects model matrix Z and products with it, from codes and small dense columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects import _kernels
from mixedeffects.frame.model_frame import RandomTerm

__all__ = ["random_effects_matrix", "z_labels", "z_times", "z_transpose_times"]

Matrix = NDArray[np.float64]


def random_effects_matrix(terms: Sequence[RandomTerm], n: int) -> scipy.sparse.csc_array:
    """Z as lme4 lays it out: terms in order, levels within a term, columns within a level.

    Parameters
    ----------
    terms : sequence of RandomTerm
        There may be none.
    n : int
        Number of rows.

    Returns
    -------
    scipy.sparse.csc_array, shape (n, q)
        No stored zeros.
    """
    if not terms:
        return scipy.sparse.csc_array((n, 0))
    per_row = sum(term.n_columns for term in terms)
    columns = np.empty((n, per_row), dtype=np.int64)
    values = np.empty((n, per_row))
    offset = at = 0
    for term in terms:
        k = term.n_columns
        first = offset + term.codes.astype(np.int64) * k
        columns[:, at : at + k] = first[:, None] + np.arange(k)
        values[:, at : at + k] = term.z
        offset += term.n_levels * k
        at += k
    starts = np.arange(0, n * per_row + 1, per_row)
    by_row = scipy.sparse.csr_array((values.ravel(), columns.ravel(), starts), shape=(n, offset))
    by_row.eliminate_zeros()
    return scipy.sparse.csc_array(by_row)


def z_labels(terms: Sequence[RandomTerm]) -> list[tuple[str, str, str]]:
    """(term, level, column) of every column of Z."""
    return [
        (term.label, str(level), column)
        for term in terms
        for level in term.levels
        for column in term.columns
    ]


def z_transpose_times(term: RandomTerm, values: Matrix) -> Matrix:
    """``Z_t' values``: array (l, k, m) for values (n, m)."""
    sums = np.zeros((term.n_levels, term.n_columns, values.shape[1]))
    _kernels.group_sums(term.codes, term.z, np.ascontiguousarray(values), sums)
    return sums


def z_times(term: RandomTerm, effects: Matrix, out: Matrix) -> None:
    """Add ``Z_t effects`` to out: effects (l, k, m), out (n, m)."""
    _kernels.expand_levels(term.codes, term.z, np.ascontiguousarray(effects), out)
