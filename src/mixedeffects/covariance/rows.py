"""Rows of V as people name them: by position, by the data's row labels, by level of a factor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.arrays import number_array
from mixedeffects.covariance.groups import Factor, find_factor, find_level, matching_levels
from mixedeffects.errors import DataError, ModelError
from mixedeffects.frame.row_labels import by_row_labels

__all__ = ["Rows"]

Matrix = NDArray[np.float64]
Positions = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of an n x n matrix, and how values and levels that users give are matched to them.

    Attributes
    ----------
    index : pandas.Index, length n
        Row labels.
    factors : tuple of Factor
        Factors whose levels name rows.
    matrix : str
        What messages call the matrix.
    """

    index: pd.Index
    factors: tuple[Factor, ...]
    matrix: str

    def __len__(self) -> int:
        return len(self.index)

    def columns(self, values: Any, what: str) -> tuple[Matrix, Callable[[Matrix], Matrix]]:
        """Values as an (n, m) array, and how to give the result the shape of the input.

        Raises
        ------
        DataError
            If there are not n rows, or a value is not finite.
        """
        values = by_row_labels(f"the values in {what}", values, self.index, self.matrix)
        x = number_array(values, what)
        n = len(self)
        if x.ndim not in (1, 2) or x.shape[0] != n:
            raise DataError(
                f"{what}: {self.matrix} is {n} x {n}, so {n} rows are needed; "
                f"the shape given is {x.shape}."
            )
        if not np.isfinite(x).all():
            raise DataError(f"{what}: {int((~np.isfinite(x)).sum())} values are not finite.")
        if x.ndim == 1:
            return np.ascontiguousarray(x[:, None]), lambda out: out[:, 0]
        return np.ascontiguousarray(x), lambda out: out

    def transposed(self, values: Any) -> Matrix:
        """The transpose of what stands left of the matrix in a product, shape (n,) or (n, m).

        Raises
        ------
        DataError
            If there are not n columns.
        """
        what, n = f"x @ {self.matrix}", len(self)
        if isinstance(values, pd.DataFrame):
            of = f"the transpose in {what}"
            values = by_row_labels(of, values.T, self.index, self.matrix).T
        else:
            values = by_row_labels(f"the values in {what}", values, self.index, self.matrix)
        x = number_array(values, what)
        if x.ndim not in (1, 2) or x.shape[-1] != n:
            raise DataError(
                f"{what}: {self.matrix} is {n} x {n}, so x needs {n} "
                f"columns; its shape is {x.shape}."
            )
        return x.T

    def positions(self, given: Any) -> Positions:
        """Positions counted from 0, given by whole numbers or by n booleans.

        Raises
        ------
        IndexError
            If they are neither, or there is no such row.
        """
        n = len(self)
        if isinstance(given, pd.Series) and given.dtype == bool:
            given = by_row_labels("the rows", given, self.index, self.matrix)
        try:
            positions = np.atleast_1d(np.asarray(given))
        except ValueError:
            # Lists of different lengths.
            positions = np.empty((1, 1), dtype=object)
        if positions.dtype == bool and positions.shape == (n,):
            return np.flatnonzero(positions)
        if positions.size == 0:
            return np.zeros(0, dtype=np.intp)
        if positions.ndim != 1 or positions.dtype.kind not in "iu":
            raise IndexError(
                f"Rows are given by position, whole numbers from 0 to {n - 1}, or by "
                f"{n} booleans; not {given!r:.60}."
            )
        outside = (positions < -n) | (positions >= n)
        if outside.any():
            raise IndexError(
                f"{self.matrix} has {n} rows; there is no position {positions[outside][0]}."
            )
        # Negative positions must compare equal to the same row counted from the front.
        return positions.astype(np.intp) % n

    def of_level(self, level: Any, by: str | None) -> Positions:
        """Positions of the rows of one level, of the factor ``by`` or the only one that has it.

        Raises
        ------
        ModelError
            If there is no such factor or level, or several factors have it.
        """
        if by is not None:
            term = find_factor(self.factors, by)
            return np.flatnonzero(term.codes == find_level(term, level))
        groups = list({term.group: term for term in self.factors}.values())
        if not groups:
            raise ModelError(
                f"{self.matrix} has no groups of rows, because the model has neither random "
                f"effects nor residual groups: {self.matrix}.diag() has all of it."
            )
        hits = [term for term in groups if matching_levels(term, level)]
        if len(hits) == 1 or len(groups) == 1:
            term = hits[0] if hits else groups[0]
            return np.flatnonzero(term.codes == find_level(term, level))
        names = ", ".join(repr(term.group) for term in groups)
        if not hits:
            raise ModelError(
                f"No grouping factor has a level {level!r}; the factors are {names}. "
                "Name the factor with by= to see its nearest levels."
            )
        several = ", ".join(repr(term.group) for term in hits)
        raise ModelError(
            f"The level {level!r} exists in several factors: {several}. Say which with by=."
        )
