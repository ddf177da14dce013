"""What is asked of the rows of a fit beside its blocks: cells of factors, means and ranges.

The rows may be in memory, or in a table of an engine that answers by queries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mixedeffects.formula.evaluate import State
from mixedeffects.formula.syntax import Node
from mixedeffects.formula.values import Value
from mixedeffects.frame.encode import DesignEncoder
from mixedeffects.frame.variables import Columns

__all__ = ["FEW_VALUES", "Cells", "DataSummary", "NumberSummary", "ResponseRows"]

Matrix = NDArray[np.float64]

#: Numbers with no more different values than this are listed, as those of factors are.
FEW_VALUES = 2


@dataclass(frozen=True)
class NumberSummary:
    """One column of numbers over the rows used.

    Attributes
    ----------
    mean, low, high : float
        Mean, smallest and largest value.
    few : tuple of float
        Its values where there are no more than `FEW_VALUES`; else empty.
    """

    mean: float
    low: float
    high: float
    few: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Cells:
    """Combinations of values of some columns.

    Attributes
    ----------
    columns : Columns
        The combinations; one may be there several times.
    rows : ndarray or None
        How many rows have each; None means one.
    """

    columns: Columns
    rows: NDArray[np.int64] | None


@dataclass(frozen=True, eq=False)
class ResponseRows:
    """Rows that show the range of a response, and of each part of its expression.

    Attributes
    ----------
    columns : mapping of str to ndarray or Factor
        The columns that it names.
    n : int
        Number of rows.
    state : dict
        What its stateful parts remember of all rows of the data.
    """

    columns: Mapping[str, Value]
    n: int
    state: State


class DataSummary(Protocol):
    """Answers about the rows used."""

    @property
    def names(self) -> Sequence[str]:
        """Columns of the data that the model uses."""
        ...

    @property
    def nobs(self) -> int:
        """Number of rows."""
        ...

    def number(self, name: str) -> NumberSummary | None:
        """A column of the data; None if it does not hold numbers."""
        ...

    def values(self, name: str) -> Value:
        """The values of a column of categories, flags or few numbers, each at least once."""
        ...

    def distinct(self, name: str, most: int) -> Matrix | None:
        """Different values of a column of numbers, sorted; None if there are more than ``most``."""
        ...

    def quantiles(self, name: str, shares: Sequence[float]) -> Matrix:
        """Quantiles of a column of numbers."""
        ...

    def cells(self, names: Sequence[str]) -> Cells:
        """Which combinations of values of some columns occur."""
        ...

    def state(self, tree: Node) -> State:
        """What stateful transforms in an offset learned at the fit."""
        ...

    def design(self, encoder: DesignEncoder) -> Matrix:
        """Rows with the cross-products that an encoder's columns have over the rows used.

        The encoder has the variables of the fixed part, coded in any way.
        """
        ...

    def departures(self, encoder: DesignEncoder, combination: Matrix) -> tuple[Matrix, Matrix]:
        """How far columns dropped for rank are from combinations of those kept.

        Parameters
        ----------
        encoder : DesignEncoder
            Of the fixed part.
        combination : ndarray, shape (p, dropped)
            Coefficients.

        Returns
        -------
        away, size : ndarray, shape (dropped,)
            Largest absolute value of the departure, and of the column.
        """
        ...

    def column(self, encoder: DesignEncoder, j: int) -> tuple[NumberSummary, float]:
        """A column of the fixed part that is a number of the formula, and its standard deviation.

        ``j`` is its place among the columns kept.
        """
        ...

    def response(self, tree: Node) -> ResponseRows:
        """Rows that show the range of the left-hand side of the formula."""
        ...
