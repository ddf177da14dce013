"""New rows for a fitted model: read a chunk at a time, and answered in the kind they came in."""

from __future__ import annotations

import numbers
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.arrays import number_array
from mixedeffects.errors import DataError
from mixedeffects.formula.values import Factor
from mixedeffects.frame.checks import check_finite, check_lengths, check_weights
from mixedeffects.frame.coder import VariableCoder
from mixedeffects.frame.columns import labels_of
from mixedeffects.frame.encode import DesignEncoder
from mixedeffects.frame.estimable import Estimability
from mixedeffects.frame.grouping import MISSING, UNSEEN, joined_labels, level_codes
from mixedeffects.frame.ingest import (
    as_column,
    column_names,
    materialised,
    take_columns,
    unknown_column,
)
from mixedeffects.frame.model_frame import ModelFrame, RandomTerm
from mixedeffects.frame.residual_term import ResidualTerm
from mixedeffects.frame.row_labels import by_row_labels
from mixedeffects.frame.variables import Columns, data_columns

__all__ = ["DesignRows", "NewData", "ResidualPlaces", "Wanted", "spans"]

Matrix = NDArray[np.float64]
Codes = NDArray[np.int32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Wanted:
    """What is to be read of new rows.

    Attributes
    ----------
    levels : tuple of int
        Terms whose levels are wanted, as numbers into ``ModelFrame.terms``.
    columns : tuple of int
        Terms whose columns z are wanted.
    weights, offset : None, number, str or array
        Prior weights, and the known part of the linear predictor beside the formula's
        ``offset()``: one number, a column, or one value for each row.
    exposure : None, number, str or array
        What the mean is proportional to: its logarithm is added to the offset.
    residual_variances : bool
        Whether what the variances of residuals follow is wanted.
    residual_groups : bool
        Whether residual groups and positions are wanted.
    """

    levels: tuple[int, ...]
    columns: tuple[int, ...]
    weights: Any = None
    offset: Any = None
    exposure: Any = None
    residual_variances: bool = False
    residual_groups: bool = False


@dataclass(frozen=True, eq=False)
class ResidualPlaces:
    """Where the residuals of some rows are.

    Attributes
    ----------
    stratum : ndarray of int64, shape (m,)
        Stratum, zero without ``by``.
    steps : ndarray of int64, shape (m,), or None
        Number of the time; None where it is not wanted, or there are none.
    coordinates : ndarray, shape (m, d), or None
        The position as numbers; None where it is not wanted, or there are none.
    variance : ndarray, shape (m, s)
        Columns of ``variance=``.
    codes : ndarray of int32, shape (m,), or None
        Residual group, `UNSEEN` where the fit did not see it; None where it is not wanted.
    """

    stratum: NDArray[np.int64]
    steps: NDArray[np.int64] | None
    coordinates: Matrix | None
    variance: Matrix
    codes: Codes | None = None


@dataclass(frozen=True, eq=False)
class DesignRows:
    """The design of some rows.

    Attributes
    ----------
    X : ndarray, shape (m, p)
        Fixed-effects matrix.
    offset : ndarray, shape (m,)
        Known part of the linear predictor.
    weights : ndarray, shape (m,), or None
        Prior weights; None means all one.
    z : mapping of int to ndarray, shape (m, k)
        Columns of the terms wanted.
    codes : mapping of int to ndarray of int32, shape (m,)
        Levels of the terms wanted; `UNSEEN` where the fit did not see it.
    residual : ResidualPlaces or None
        Where the residuals are, if that is wanted and there is a structure.
    """

    X: Matrix
    offset: Matrix
    weights: Matrix | None
    z: Mapping[int, Matrix]
    codes: Mapping[int, Codes]
    residual: ResidualPlaces | None = None


def spans(n: int, step: int, start: int = 0) -> Iterator[tuple[int, int]]:
    """Start and stop of consecutive chunks of at most ``step`` of the rows from start to n."""
    for low in range(start, n, step):
        yield low, min(low + step, n)


class NewData:
    """A dataframe of new rows.

    Parameters
    ----------
    frame : ModelFrame
        Of the fitted model.
    data : dataframe
        Any of the types that a model can be fitted to. Only the columns wanted are converted.
    wanted : Wanted
        What is to be read.
    chunk_size : int
        Rows converted at a time.
    estimability : Estimability
        Of the fit.

    Raises
    ------
    DataError
        If it is no dataframe, or weights or offset do not fit its rows.
    """

    def __init__(
        self,
        frame: ModelFrame,
        data: Any,
        wanted: Wanted,
        chunk_size: int,
        estimability: Estimability,
    ) -> None:
        self.frame, self.wanted, self.chunk_size = frame, wanted, chunk_size
        self.estimability = estimability
        arrow = sys.modules.get("pyarrow")
        if arrow is not None and isinstance(data, arrow.RecordBatch):
            data = arrow.Table.from_batches([data])
        source = materialised(data)
        available = column_names(source)
        self._names = self._needed(available)
        self._source, self.n = _countable(source, self._names, available)
        if self.n == 0:
            # Nothing will be read, but a missing column is a mistake all the same.
            take_columns(self._source, self._names)
        self._extra = {
            role: _row_values(role, given, self._source, self.n)
            for role, given in (
                ("weights", wanted.weights),
                ("offset", wanted.offset),
                ("exposure", wanted.exposure),
            )
        }

    def _needed(self, available: Sequence[str]) -> list[str]:
        fixed = self.frame.fixed_encoder
        assert fixed is not None
        coders = [*fixed.coders, *fixed.offsets]
        for t in self.wanted.columns:
            coders += self.frame.random_encoders[t].coders
        coders += self._residual_coders()
        self._variables = data_columns([coder.tree for coder in coders], available)
        names = dict.fromkeys(self._variables)
        for t in self.wanted.levels:
            groups = self.frame.terms[t].variables
            lacking = [name for name in groups if name not in available and name not in names]
            if lacking and available:
                raise DataError(
                    f"{unknown_column(lacking[0], available)} Predictions with the random effects "
                    f"of {self.frame.terms[t].group} need the level of each row; for the "
                    "population, without random effects, give re=None."
                )
            names |= dict.fromkeys(groups)
        self._group_columns: tuple[str, ...] = ()
        if self.wanted.residual_groups and self.frame.residual is not None:
            self._group_columns = self.frame.residual.variables
            names |= dict.fromkeys(self._group_columns)
        for role in ("offset", "exposure"):
            given = getattr(self.wanted, role)
            if isinstance(given, str) and given not in available:
                raise DataError(
                    f"{unknown_column(given, available)} It is the {role} of the rows; a number, "
                    f"{role}={'0' if role == 'offset' else '1'}, stands for all of them."
                )
        by_name = (self.wanted.weights, self.wanted.offset, self.wanted.exposure)
        names |= dict.fromkeys(given for given in by_name if isinstance(given, str))
        return list(names)

    def _residual_coders(self) -> list[VariableCoder]:
        """What makes the columns and positions wanted of residuals."""
        frame, wanted = self.frame, self.wanted
        if not (wanted.residual_variances or wanted.residual_groups):
            return []
        coders = [] if frame.variance_encoder is None else list(frame.variance_encoder.coders)
        return [*coders, *self._position_coders(), *self._stratum_coders()]

    def _position_coders(self) -> tuple[VariableCoder, ...]:
        term = self.frame.residual
        if term is None or not (self.wanted.residual_groups or _varies_by_time(term)):
            return ()
        return self.frame.residual_coders[: len(term.position)]

    def _stratum_coders(self) -> tuple[VariableCoder, ...]:
        term = self.frame.residual
        return () if term is None or term.by is None else self.frame.residual_coders[-1:]

    def _take(self, start: int, stop: int, names: Iterable[str]) -> pd.DataFrame:
        names = list(names)
        if not names:
            return pd.DataFrame(index=pd.RangeIndex(stop - start))
        if isinstance(self._source, pd.DataFrame):
            return take_columns(self._source.iloc[start:stop], names)
        return take_columns(self._source[start:stop], names)

    def level_codes(self) -> dict[int, Codes]:
        """Levels of all rows in the terms wanted; `UNSEEN` or `MISSING` where there is none."""
        by_group: dict[str, Codes] = {}
        codes = {}
        for t in self.wanted.levels:
            term = self.frame.terms[t]
            if term.group not in by_group:
                by_group[term.group] = self._codes_of(term)
            codes[t] = by_group[term.group]
        return codes

    def _codes_of(self, term: RandomTerm) -> Codes:
        out = np.empty(self.n, dtype=np.int32)
        names = list(dict.fromkeys(term.variables))
        for start, stop in spans(self.n, self.chunk_size):
            out[start:stop] = level_codes(term, self._take(start, stop, names))
        return out

    def unseen(self, t: int, codes: Codes, most: int = 5) -> tuple[int, list[str], int]:
        """How many levels of a term the fit did not see, some of them, and in how many rows."""
        term = self.frame.terms[t]
        rows = np.flatnonzero(codes == UNSEEN)
        found: dict[tuple[str, ...], None] = {}
        for start, stop in spans(len(rows), self.chunk_size):
            part = rows[start:stop]
            low, high = int(part[0]), int(part[-1]) + 1
            frame = self._take(low, high, dict.fromkeys(term.variables)).iloc[part - low]
            different = frame.astype(object).drop_duplicates()
            columns = [labels_of(different[name].tolist()) for name in term.variables]
            found |= dict.fromkeys(zip(*columns, strict=True))
        return len(found), joined_labels(list(found)[:most]), len(rows)

    def rows(self, start: int, stop: int, codes: Mapping[int, Codes]) -> tuple[DesignRows, Mask]:
        """The design of the rows of a span that have nothing missing.

        Parameters
        ----------
        start, stop : int
            The span.
        codes : mapping of int to ndarray
            What `level_codes` returned.

        Returns
        -------
        rows : DesignRows
            Of the complete rows; NaN in X or z where a transform made a missing value.
        complete : ndarray of bool, shape (stop - start,)

        Raises
        ------
        DataError
            If a column is missing or has the wrong type, a factor has a level that the fit did
            not see, or a value is infinite.
        """
        m = stop - start
        taken = self._take(start, stop, self._names)
        columns = Columns(taken)
        complete = np.ones(m, dtype=np.bool_)
        for name in self._variables:
            missing = columns[name][1]
            if missing is not None:
                complete &= ~missing
        extra = {}
        for role, values in self._extra.items():
            found = _of_span(role, values, columns, start, stop)
            if found is not None:
                complete &= ~np.isnan(found)
                extra[role] = found
        groups: Codes | None = None
        if self._group_columns:
            assert self.frame.residual is not None
            names = list(dict.fromkeys(self._group_columns))
            groups = level_codes(self.frame.residual, taken[names])
            complete &= groups != MISSING
        levels = {t: c[start:stop] for t, c in codes.items()}
        for own in levels.values():
            complete &= own != MISSING
        if not complete.all():
            columns = Columns(taken[complete])
            extra = {role: values[complete] for role, values in extra.items()}
            levels = {t: own[complete] for t, own in levels.items()}
            groups = None if groups is None else groups[complete]
        _check(extra)
        return self._design(columns, extra, levels, groups), complete

    def _design(
        self,
        columns: Columns,
        extra: Mapping[str, Matrix],
        codes: Mapping[int, Codes],
        groups: Codes | None,
    ) -> DesignRows:
        fixed = self.frame.fixed_encoder
        assert fixed is not None
        n = columns.n
        offset = np.zeros(n) if n == 0 else fixed.offset_columns(columns)
        if "offset" in extra:
            offset = offset + extra["offset"]
        if "exposure" in extra:
            offset = offset + np.log(extra["exposure"])
        X = np.empty((n, len(fixed.names)))
        if n and fixed.kept is None:
            X = fixed.encode_columns(columns)
        elif n:
            every = fixed.encode_all(columns)
            self.estimability.check(every)
            X = every[:, fixed.kept]
        return DesignRows(
            X,
            offset,
            extra.get("weights"),
            {t: _encoded(self.frame.random_encoders[t], columns) for t in self.wanted.columns},
            codes,
            self._places(columns, groups),
        )

    def _places(self, columns: Columns, groups: Codes | None) -> ResidualPlaces | None:
        frame, wanted, n = self.frame, self.wanted, columns.n
        if not (wanted.residual_variances or wanted.residual_groups):
            return None
        if frame.residual is None and frame.variance is None:
            return None
        variance = np.zeros((n, 0))
        if frame.variance_encoder is not None:
            variance = _encoded(frame.variance_encoder, columns)
        stratum = np.zeros(n, dtype=np.int64)
        for coder in self._stratum_coders() if n else ():
            stratum = coder.evaluate(columns)[0].astype(np.int64)
        found = [coder.evaluate(columns)[0] for coder in self._position_coders()] if n else []
        if not found or frame.residual is None:
            return ResidualPlaces(stratum, None, None, variance, groups)
        if frame.residual.coordinates is not None:
            coordinates = np.column_stack(found).astype(np.float64)
            steps = None
            if _varies_by_time(frame.residual):
                steps = _steps_of_coordinates(frame.residual, coordinates)
            return ResidualPlaces(stratum, steps, coordinates, variance, groups)
        steps = _steps(frame.residual, found[0])
        return ResidualPlaces(stratum, steps, None, variance, groups)

    def answer(self, columns: Mapping[str, Matrix], single: bool) -> Any:
        """Columns of results as a dataframe of the kind given, or the only one as its column."""
        name = next(iter(columns))
        if isinstance(self._source, pd.DataFrame):
            index = self._source.index
            if single:
                return pd.Series(columns[name], index=index, name=name)
            return pd.DataFrame(dict(columns), index=index)
        import narwhals as nw

        native: Any = nw.get_native_namespace(self._source)
        if native.__name__ == "pyarrow":
            return native.array(columns[name]) if single else native.table(dict(columns))
        if native.__name__ == "polars":
            return native.Series(name, columns[name]) if single else native.DataFrame(dict(columns))
        index = self._source.to_native().index  # another library with pandas' interface
        if single:
            return native.Series(columns[name], index=index, name=name)
        return native.DataFrame(dict(columns), index=index)


def _varies_by_time(term: ResidualTerm) -> bool:
    """Whether each common time has a variance of its own."""
    return not term.homogeneous and term.times is not None


def _steps(term: ResidualTerm, values: NDArray[Any]) -> NDArray[np.int64]:
    """Numbers of times: codes of a factor, or whole numbers as they are."""
    if values.dtype.kind == "f" and not (np.floor(values) == values).all():
        example = values[np.floor(values) != values][0]
        raise DataError(
            f"`{term.text}` counts whole steps, and the new rows have a `{term.position[0]}` of "
            f"{example:g}."
        )
    return values.astype(np.int64)


def _steps_of_coordinates(term: ResidualTerm, coordinates: Matrix) -> NDArray[np.int64]:
    """Numbers of the times of the fit that positions are."""
    assert term.coordinates is not None and term.steps is not None
    known, first = np.unique(term.coordinates[:, 0], return_index=True)
    at = np.minimum(np.searchsorted(known, coordinates[:, 0]), len(known) - 1)
    unseen = known[at] != coordinates[:, 0]
    if unseen.any():
        raise DataError(
            f"`{term.text}` has a variance for each `{term.position[0]}` of the fit, and none for "
            f"{coordinates[unseen, 0][0]:g}."
        )
    return np.asarray(term.steps[first[at]])


def _countable(source: Any, names: list[str], available: list[str]) -> tuple[Any, int]:
    """The data as something with rows that can be counted and sliced."""
    if isinstance(source, pd.DataFrame):
        return source, len(source)
    if isinstance(source, Mapping):
        if not available:
            raise DataError("The new data have no columns.")
        frame = take_columns(source, names or available[:1])
        return frame, len(frame)
    import narwhals as nw

    if isinstance(source, nw.LazyFrame):
        absent = [name for name in names if name not in available]
        if absent:
            take_columns(source, absent)
        source = source.select(names or available[:1]).collect()
        if isinstance(source.to_native(), pd.DataFrame):
            source = source.to_native()
    return source, int(source.shape[0])


def _encoded(encoder: DesignEncoder, columns: Columns) -> Matrix:
    if columns.n == 0:
        return np.empty((0, len(encoder.names)))
    return encoder.encode_columns(columns)


def _row_values(role: str, given: Any, source: Any, n: int) -> Any:
    """None, the name of a column, a number, or one value for each row."""
    if given is None or isinstance(given, str):
        return given
    if isinstance(given, numbers.Real) and not isinstance(given, (bool, np.bool_)):
        return float(given)
    check_lengths(role, given, n)
    labels = source.index if isinstance(source, pd.DataFrame) else pd.RangeIndex(n)
    given = by_row_labels(f"`{role}`", as_column(role, given), labels, "the new data")
    return number_array(given, f"`{role}` must be a number, a column's name or numbers")


def _of_span(role: str, values: Any, columns: Columns, start: int, stop: int) -> Matrix | None:
    if values is None:
        return None
    if isinstance(values, float):
        return np.full(stop - start, values)
    if isinstance(values, str):
        value, missing = columns[values]
        if isinstance(value, Factor):
            raise DataError(f"`{role}` must be numbers; `{values}` is text or categorical.")
        found = value.astype(np.float64)
        if missing is not None:
            found[missing] = np.nan
        return found
    part: Matrix = values[start:stop]
    return part


def _check(extra: Mapping[str, Matrix]) -> None:
    for role, values in extra.items():
        check_finite(role, values)
        if role == "weights":
            check_weights(role, values)
        if role == "exposure" and not (values > 0.0).all():
            count = int((~(values > 0.0)).sum())
            raise DataError(
                f"An exposure must be positive; it is not in {count:,} of the new rows."
            )
