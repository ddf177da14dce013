"""What is asked of the rows of a fit, wherever these are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.caching import cached_property
from mixedeffects.fitting.fit import Fit, once_per_fit
from mixedeffects.fitting.request import NewResponse, Request, given_data, given_table
from mixedeffects.formula.evaluate import State
from mixedeffects.formula.syntax import Node
from mixedeffects.formula.values import Factor, Value
from mixedeffects.frame.data_summary import (
    FEW_VALUES,
    Cells,
    DataSummary,
    NumberSummary,
    ResponseRows,
)
from mixedeffects.frame.encode import DesignEncoder
from mixedeffects.frame.ingest import column_names, materialised, take_columns
from mixedeffects.frame.model_frame import ModelFrame
from mixedeffects.frame.variables import Columns, data_columns, evaluate_variable, take_rows
from mixedeffects.lazy.summary import SummaryOfTable

__all__ = ["SummaryOfRows", "data_summary"]

Matrix = NDArray[np.float64]


@once_per_fit("summary of the data")
def data_summary(fit: Fit) -> DataSummary:
    """Answers about the rows of a fit, in memory or in their table."""
    if fit.rows is None:
        return SummaryOfRows(fit.frame, fit.request)
    assert fit.frame.fixed_encoder is not None
    return SummaryOfTable(fit.rows, fit.frame.fixed_encoder)


class SummaryOfRows:
    """Answers from rows in memory; see `DataSummary`.

    Parameters
    ----------
    frame : ModelFrame
        The rows used.
    request : Request
        With the data as given.
    """

    def __init__(self, frame: ModelFrame, request: Request) -> None:
        self._frame, self._request = frame, request
        self._known: dict[str, NumberSummary | None] = {}

    @cached_property
    def _columns(self) -> Columns:
        return Columns(self._frame.data)

    @property
    def names(self) -> Sequence[str]:
        """Columns of the data that the model uses."""
        return list(self._columns.frame.columns)

    @property
    def nobs(self) -> int:
        """Number of rows."""
        return self._frame.nobs

    def number(self, name: str) -> NumberSummary | None:
        """A column of the data; None if it does not hold numbers."""
        if name not in self._known:
            value = self.values(name)
            if isinstance(value, Factor) or value.dtype == np.bool_:
                self._known[name] = None
            else:
                self._known[name] = _summarised(value)
        return self._known[name]

    def values(self, name: str) -> Value:
        """The values of a column in each row."""
        return self._columns[name][0]

    def distinct(self, name: str, most: int) -> Matrix | None:
        """Different values of a column of numbers, sorted; None if there are more than ``most``."""
        found = np.unique(self._numbers(name))
        return found if len(found) <= most else None

    def quantiles(self, name: str, shares: Sequence[float]) -> Matrix:
        """Quantiles of a column of numbers."""
        return np.asarray(np.quantile(self._numbers(name), shares))

    def _numbers(self, name: str) -> Matrix:
        return np.asarray(self._frame.data[name].to_numpy(dtype=np.float64))

    def cells(self, names: Sequence[str]) -> Cells:
        """The rows."""
        return Cells(self._columns, None)

    def state(self, tree: Node) -> State:
        """What stateful transforms in an offset learned at the fit, from all rows of the data."""
        state: State = {}
        source = materialised(given_table(self._request))
        names = data_columns([tree], self.names)
        evaluate_variable(tree, Columns(take_columns(source, names)), state)
        return state

    def design(self, encoder: DesignEncoder) -> Matrix:
        """An encoder's columns."""
        if encoder is self._frame.fixed_encoder:
            return self._frame.X
        return encoder.encode(self._frame.data)[0]

    def departures(self, encoder: DesignEncoder, combination: Matrix) -> tuple[Matrix, Matrix]:
        """How far columns dropped for rank are from combinations of those kept."""
        targets = encoder.encode_all(self._columns)[:, encoder.dropped]
        away = np.abs(targets - self.design(encoder) @ combination)
        return away.max(axis=0, initial=0.0), np.abs(targets).max(axis=0, initial=0.0)

    def column(self, encoder: DesignEncoder, j: int) -> tuple[NumberSummary, float]:
        """A column of the fixed part, and its standard deviation."""
        values = self.design(encoder)[:, j]
        return _summarised(values), float(values.std())

    def response(self, tree: Node) -> ResponseRows:
        """The rows of the data that have the response, used or not."""
        given = given_data(self._request)
        source = materialised(
            given.data if isinstance(given, NewResponse) else given_table(self._request)
        )
        every = Columns(take_columns(source, data_columns([tree], column_names(source))))
        columns, there = {}, np.ones(every.n, dtype=np.bool_)
        for name in every.frame.columns:
            columns[name], missing = every[name]
            there &= True if missing is None else ~missing
        state: State = {}
        # What scale() and mean() remember is of all rows of the data that have the response.
        found = evaluate_variable(tree, every, state)
        there &= True if found.missing is None else ~found.missing
        rows = {name: take_rows(value, there) for name, value in columns.items()}
        return ResponseRows(rows, int(there.sum()), state)


def _summarised(values: Matrix) -> NumberSummary:
    found = np.unique(values)
    few = tuple(found.tolist()) if len(found) <= FEW_VALUES else ()
    return NumberSummary(float(values.mean()), float(found[0]), float(found[-1]), few)
