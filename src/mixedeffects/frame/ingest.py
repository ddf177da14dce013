"""Take the columns a model uses out of any dataframe, as one pandas frame."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mixedeffects.errors import DataError

__all__ = ["column_names", "materialised", "take_columns"]


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
        raise DataError(
            f"`data` is a {type(data).__name__}; give a pandas, polars or pyarrow table, or a dict "
            "of columns."
        ) from None


def column_names(data: Any) -> list[str]:
    """Return the names of the columns of `materialised` data, as text."""
    if isinstance(data, pd.DataFrame):
        return [str(name) for name in data.columns]
    if isinstance(data, Mapping):
        return [str(name) for name in data]
    schema = data.collect_schema()
    return list(schema.names())


def _unknown(name: str, available: Sequence[str]) -> DataError:
    near = difflib.get_close_matches(name, available, 3, 0.6)
    if not near:
        lowered = {column.lower(): column for column in available}
        near = [lowered[name.lower()]] if name.lower() in lowered else []
    hint = f" Did you mean {' or '.join(f'`{n}`' for n in near)}?" if near else ""
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
    if isinstance(data, pd.DataFrame):
        return _from_pandas(data, names)
    available = column_names(data)
    for name in names:
        if name not in available:
            raise _unknown(name, available)
    if isinstance(data, Mapping):
        return _from_mapping(data, names)
    return _from_narwhals(data, names)


def _from_pandas(data: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    labels = data.columns
    wanted: list[Any] = []
    for name in names:
        label: Any = name
        if name not in labels:
            # A column labelled 1 is written `1` in backticks.
            same = [c for c in labels if str(c) == name]
            if not same:
                raise _unknown(name, [str(c) for c in labels])
            label = same[0]
        wanted.append(label)
    if not labels.is_unique:
        for name, label in zip(names, wanted, strict=True):
            count = int((labels == label).sum())
            if count > 1:
                raise DataError(
                    f"The data have {count} columns called `{name}`; rename all but one."
                )
    taken = data[wanted]
    return taken if wanted == names else taken.set_axis(names, axis=1)


def _from_mapping(data: Mapping[Any, Any], names: list[str]) -> pd.DataFrame:
    labels = {str(label): label for label in data}
    columns = {name: data[labels[name]] for name in names}
    lengths = {}
    for name, values in columns.items():
        shape = np.shape(values)
        if len(shape) != 1:
            raise DataError(f"Column `{name}` has {len(shape)} dimensions; a column has one.")
        lengths[name] = shape[0]
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"The columns differ in length: {shown}.")
    # Columns in a mapping go by position, whatever labels they carry.
    return pd.DataFrame(
        {
            name: v.reset_index(drop=True) if isinstance(v, pd.Series) else v
            for name, v in columns.items()
        }
    )


def _from_narwhals(data: Any, names: list[str]) -> pd.DataFrame:
    import narwhals as nw

    selected = data.select(list(names))
    if isinstance(selected, nw.LazyFrame):
        selected = selected.collect()
    columns = {name: _series(selected[name], nw) for name in names}
    return pd.DataFrame(columns, index=pd.RangeIndex(len(selected)))


def _series(series: Any, nw: Any) -> Any:
    """Convert one column; categories keep their order, and pyarrow is not needed for polars."""
    dtype = series.dtype
    # Early narwhals versions know no categories of an Enum; then it is like a Categorical.
    if dtype == nw.Enum and getattr(dtype, "categories", None) is not None:
        text = np.asarray(series.cast(nw.String).to_list(), dtype=object)
        return pd.Categorical(text, categories=list(dtype.categories))
    if dtype in (nw.Categorical, nw.Enum):
        return _categorical(series, nw)
    if dtype == nw.Boolean:
        return _or_nullable(series, "boolean")
    if str(dtype).startswith(("Int", "UInt")):
        return _or_nullable(series, "Int64")
    if dtype == nw.String:
        return pd.Series(series.to_list(), dtype=object)
    if dtype.is_numeric():
        return np.asarray(series.cast(nw.Float64).to_numpy(), dtype=np.float64)
    return pd.Series(series.to_list())


def _or_nullable(series: Any, nullable: str) -> Any:
    if series.null_count() == 0:
        return series.to_numpy()
    return pd.array(series.to_list(), dtype=nullable)


def _categorical(series: Any, nw: Any) -> pd.Categorical:
    native = series.to_native()
    chunks = native.combine_chunks() if hasattr(native, "combine_chunks") else native
    if hasattr(chunks, "dictionary"):  # pyarrow keeps an order of its own, as R's factors do
        categories = chunks.dictionary.to_pylist()
        codes = np.array([-1 if i is None else i for i in chunks.indices.to_pylist()], dtype=int)
        return pd.Categorical.from_codes(codes, categories, ordered=bool(chunks.type.ordered))
    # The categories of a polars Categorical are numbered across the whole process, so their
    # order says nothing about this column: sorted, like strings.
    text = pd.Series(series.cast(nw.String).to_list(), dtype=object)
    return pd.Categorical(text, categories=sorted(text.dropna().unique()))
