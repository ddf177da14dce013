"""Take the columns a model uses out of any dataframe, as one pandas frame."""

from __future__ import annotations

import difflib
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.errors import DataError, MixedEffectsError
from mixedeffects.frame.row_labels import by_row_labels

__all__ = [
    "as_column",
    "column_names",
    "detached",
    "materialised",
    "take_columns",
    "values_of_rows",
]


def materialised(data: Any) -> Any:
    """Return data whose columns can be listed and taken: mappings and lazy frames are settled.

    Parameters
    ----------
    data : dataframe
        A pandas, polars (eager or lazy) or pyarrow table, anything else narwhals reads, or a
        mapping of names to columns.

    Returns
    -------
    pandas.DataFrame, mapping or narwhals frame

    Raises
    ------
    DataError
        If it is none of these.
    """
    if isinstance(data, (pd.DataFrame, Mapping)):
        return data
    import narwhals as nw

    try:
        return nw.from_native(data)
    except TypeError:
        file = isinstance(data, (str, os.PathLike))
        raise DataError(
            f"`data` is a {type(data).__name__}; give a pandas, polars or pyarrow table, or a dict "
            f"of columns.{' mixedeffects.read_table reads files.' * file}"
        ) from None


def detached(given: Any) -> Any:
    """What was given, in an object of its own: the user may go on to change theirs.

    Of a table only the frame is new; since pandas 3 the columns are so too, once written to.
    """
    if isinstance(given, pd.DataFrame):
        return given.copy(deep=False)
    if isinstance(given, (np.ndarray, pd.Series, list)):
        return given.copy()
    return dict(given) if isinstance(given, Mapping) else given


def column_names(data: Any) -> list[str]:
    """Return the names of the columns of `materialised` data, as text."""
    if isinstance(data, pd.DataFrame):
        return [_name(label) for label in data.columns]
    if isinstance(data, Mapping):
        return [str(name) for name in data]
    schema = data.collect_schema()
    return list(schema.names())


def _name(label: Any) -> str:
    """A column's name as a formula writes it: of several levels the only one that is not empty."""
    if isinstance(label, tuple):
        parts = [part for part in label if str(part)]
        if len(parts) == 1:
            return str(parts[0])
    return str(label)


def unknown_column(name: str, available: Sequence[str]) -> DataError:
    near = difflib.get_close_matches(name, available, 3, 0.6)
    if not near:
        lowered = {column.lower(): column for column in available}
        near = [lowered[name.lower()]] if name.lower() in lowered else []
    hint = f" Did you mean {' or '.join(f'`{n}`' for n in near)}?" if near else ""
    parts = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")
    odd = [column for column in available if parts.search(column) and not column.isidentifier()]
    if odd and not (len(near) == 1 and near[0] in odd):
        hint = f" Did you mean `{odd[0]}`?"
    if any(column in hint for column in odd):
        hint += " A name that is no plain word is written in backticks."
    shown = ", ".join(available[:20]) + (", ..." if len(available) > 20 else "")
    return DataError(f"There is no column `{name}` in the data.{hint} The columns are: {shown}.")


def take_columns(data: Any, names: Iterable[str]) -> pd.DataFrame:
    """Take the named columns.

    Parameters
    ----------
    data : dataframe
        What `materialised` returns.
    names : iterable of str
        The columns wanted.

    Returns
    -------
    pandas.DataFrame
        These columns, in this order, with the row labels of the data if it is pandas.

    Raises
    ------
    DataError
        If a column is missing or there twice.
    """
    names = list(names)
    available = column_names(data)
    counts = Counter(available)
    for name in names:
        if name not in counts:
            raise (
                unknown_column(name, available)
                if not _is_nested(data)
                else _nested(name, data.columns)
            )
        if counts[name] > 1:
            # A column labelled 1 is written `1` in backticks, and so is one labelled "1".
            raise DataError(
                f"The data have {counts[name]} columns called `{name}`; rename all but one."
            )
    if isinstance(data, pd.DataFrame):
        return data.iloc[:, [available.index(name) for name in names]].set_axis(names, axis=1)
    if isinstance(data, Mapping):
        return _from_mapping(data, names)
    return _from_narwhals(data, names)


def _is_nested(data: Any) -> bool:
    return isinstance(data, pd.DataFrame) and isinstance(data.columns, pd.MultiIndex)


def _nested(name: str, labels: pd.MultiIndex) -> DataError:
    own = [label for label in labels if name in map(str, label)]
    shown = ", ".join(map(str, own[:3])) + (", ..." if len(own) > 3 else "")
    return DataError(
        f"There is no column `{name}` in the data{f', but {shown}' if own else ''}: the columns "
        f"have names of {labels.nlevels} levels (a MultiIndex), and a formula needs single names. "
        "Join them first, for example data.columns = ['_'.join(filter(None, map(str, c))) for c in "
        "data.columns]."
    )


def _from_mapping(data: Mapping[Any, Any], names: list[str]) -> pd.DataFrame:
    keys = {str(key): key for key in data}
    columns = {name: as_column(name, data[keys[name]]) for name in names}
    lengths = {}
    for name, values in columns.items():
        shape = _shape(values)
        if len(shape) != 1:
            raise DataError(f"Column `{name}` has {len(shape)} dimensions; a column has one.")
        lengths[name] = shape[0]
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"The columns differ in length: {shown}.")
    labels: pd.Index[Any] | None = None
    for name, values in columns.items():
        if isinstance(values, pd.Series):
            labels = values.index if labels is None else labels
            values = by_row_labels(f"column `{name}`", values, labels, "the columns before it")
            columns[name] = values
    # What has no row labels goes by position.
    frame: pd.DataFrame = pd.DataFrame(columns, index=labels)
    return frame


def _from_narwhals(data: Any, names: list[str]) -> pd.DataFrame:
    import narwhals as nw

    selected = data.select(list(names))
    if isinstance(selected, nw.LazyFrame):
        selected = selected.collect()
    columns = {name: _read(name, selected[name], nw) for name in names}
    return pd.DataFrame(columns, index=pd.RangeIndex(len(selected)))


def _read(name: str, series: Any, nw: Any) -> Any:
    """Convert one column, or raise a DataError that names it."""
    dtype = series.dtype
    reason = ""
    if dtype not in (nw.List, nw.Array, nw.Struct, nw.Object):
        try:
            return _series(series, nw)
        except Exception as error:
            # Each library has errors of its own for types that it cannot convert.
            reason = f" ({str(error).rstrip('.')})"
    raise DataError(
        f"Column `{name}` holds {dtype}, which cannot be read{reason}; convert it to numbers or to "
        "text."
    )


def _series(series: Any, nw: Any) -> Any:
    """Convert one column; categories keep their order, and pyarrow is not needed for polars."""
    dtype = series.dtype
    # Early narwhals versions know no categories of an Enum; then it is like a Categorical.
    if dtype == nw.Enum and getattr(dtype, "categories", None) is not None:
        text = np.asarray(series.cast(nw.String).to_list(), dtype=object)
        return pd.Categorical(text, categories=list(dtype.categories))
    if dtype in (nw.Categorical, nw.Enum):
        return _categorical(series, nw)
    kind = str(dtype)
    if dtype == nw.Boolean:
        return _or_nullable(series, "boolean")
    if kind.startswith(("Int", "UInt")):
        return _or_nullable(series, "UInt64" if kind.startswith("U") else "Int64")
    if dtype == nw.String:
        return pd.Series(series.to_list(), dtype=object)
    if kind.startswith("Float"):
        return series.to_numpy()
    if dtype.is_numeric():
        return np.asarray(series.cast(nw.Float64).to_numpy(), dtype=np.float64)
    return pd.Series(series.to_list())


def _or_nullable(series: Any, nullable: str) -> Any:
    if series.null_count() == 0 and not str(series.dtype).endswith("128"):
        return series.to_numpy()
    return pd.array(series.to_list(), dtype=nullable)


def _categorical(series: Any, nw: Any) -> pd.Categorical:
    native = series.to_native()
    chunks = native.combine_chunks() if hasattr(native, "combine_chunks") else native
    if hasattr(chunks, "dictionary"):  # pyarrow keeps an order of its own, as R's factors do
        # A dictionary may hold a value twice, or a null.
        same, values = pd.factorize(np.array(chunks.dictionary.to_pylist(), dtype=object))
        indices = [-1 if i is None else i for i in chunks.indices.to_pylist()]
        codes: Any = np.append(same, -1)[np.array(indices, dtype=np.intp)]
        factor: pd.Categorical = pd.Categorical.from_codes(codes, pd.Index(values))
        return factor.as_ordered() if chunks.type.ordered else factor
    # The categories of a polars Categorical are numbered across the whole process, so their
    # order says nothing about this column: sorted, like strings.
    text = pd.Series(series.cast(nw.String).to_list(), dtype=object)
    return pd.Categorical(text, categories=sorted(text.dropna().unique()))


def values_of_rows(
    what: str,
    values: Any,
    index: pd.Index[Any],
    positions: NDArray[np.intp],
    n_rows: int,
    error: type[MixedEffectsError] = DataError,
    instead: str = "",
) -> pd.Series[Any]:
    """One value for each row used, from values for these rows or for every row of the data.

    Parameters
    ----------
    what : str
        What to call them in messages.
    values : array_like
        A Series goes by its row labels, anything else by position.
    index, positions
        Labels of the rows used, and their positions in the data.
    n_rows : int
        Number of rows of the data, those left out included.
    error : class
        What to raise.
    instead : str
        What else the argument can be, for the message.

    Returns
    -------
    Series, with the labels ``index``
        In the type given; masked entries are missing.

    Raises
    ------
    MixedEffectsError
        If labels or lengths do not fit.
    """
    values = by_row_labels(what, as_column(what, values), index, error=error, more=True)
    if len(_shape(values)) != 1:
        raise error(
            f"{what[:1].upper()}{what[1:]} must be {instead}one value for each row; not "
            f"{values!r:.60}."
        )
    series = pd.Series(values)
    if len(series) == n_rows != len(index):
        series = series.iloc[positions]
    if len(series) != len(index):
        dropped = n_rows - len(index)
        rows = f" ({dropped:,} rows were dropped from the data)" if dropped else ""
        raise error(
            f"{what[:1].upper()}{what[1:]} must have {len(index):,} values, one for each row "
            f"used{rows}; it has {len(series):,}."
        )
    return series.set_axis(index)


def as_column(name: str, values: Any) -> Any:
    """Values as pandas can take them; columns of other libraries are read as in their tables.

    Raises
    ------
    DataError
        If it is a column of a type that cannot be read.
    """
    if isinstance(values, (np.ndarray, pd.Series, pd.DataFrame, list, tuple, str)):
        return values
    import narwhals as nw

    series = nw.from_native(values, series_only=True, pass_through=True)
    return _read(name, series, nw) if isinstance(series, nw.Series) else values


def _shape(values: Any) -> tuple[int, ...]:
    """The shape of an array; of what is none, such as rows of different lengths, ()."""
    try:
        return np.shape(values)
    except ValueError:
        return ()
