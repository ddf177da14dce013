"""Read one column as numbers or as a factor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.errors import DataError
from mixedeffects.formula.values import Factor, Value

__all__ = ["describe_type", "exact_levels", "factor_of", "labels_of", "read_column"]

Mask = NDArray[np.bool_]

#: Up to here float64 holds every whole number.
_LARGEST_EXACT = 2**53


def describe_type(series: pd.Series[Any]) -> str:
    """Say in words what a column holds."""
    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        kind = "an ordered categorical" if dtype.ordered else "categorical"
        return f"{kind} ({len(dtype.categories)} levels)"
    if dtype.kind in "mM":
        return "dates or times"
    if dtype.kind == "c":
        return "complex numbers"
    if dtype.kind == "O" or isinstance(dtype, pd.StringDtype):
        inferred = pd.api.types.infer_dtype(series, skipna=True)
        if inferred in ("date", "datetime", "datetime64", "time", "timedelta", "period"):
            return "dates or times"
        if inferred in ("string", "empty"):
            return "text"
        kinds = sorted({type(value).__name__ for value in series.dropna()})
        if len(kinds) == 1:
            return f"values of type {kinds[0]}"
        return f"mixed types ({', '.join(kinds[:4])}{', ...' if len(kinds) > 4 else ''})"
    return str(dtype)


def labels_of(values: Iterable[Any]) -> list[str]:
    """Return level labels as R prints them: whole numbers without a point, TRUE and FALSE."""
    if isinstance(values, (pd.Index, np.ndarray)) and values.dtype.kind in "iu":
        return list(map(str, values.tolist()))
    if isinstance(values, (pd.Index, np.ndarray)):
        values = values.tolist()
    labels = []
    for value in values:
        if isinstance(value, str):
            labels.append(value)
        elif isinstance(value, (bool, np.bool_)):
            labels.append("TRUE" if value else "FALSE")
        elif isinstance(value, (float, np.floating)) and float(value).is_integer():
            labels.append(str(int(value)))
        else:
            labels.append(str(value))
    return labels


def factor_of(series: pd.Series[Any]) -> tuple[NDArray[np.integer[Any]], pd.Index[Any], bool]:
    """Code a column by its different values.

    Returns
    -------
    codes : ndarray of int32 or int64
        -1 where missing; never in the column's own type, in which arithmetic could overflow.
    values : pandas.Index
        The values: of a categorical all categories in their order, else those found, sorted.
    ordered : bool
    """
    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        _check_labels(series, dtype.categories)
        return series.cat.codes.to_numpy(dtype=np.int32), dtype.categories, bool(dtype.ordered)
    if isinstance(dtype, np.dtype) and dtype.kind in "iu" and len(series):
        counted = _count_integers(series.to_numpy())
        if counted is not None:
            return *counted, False
    try:
        codes, values = pd.factorize(series, sort=False)
        found = _index(values, dtype)
        if found.dtype.kind in "biufM":
            order = np.argsort(found.to_numpy(), kind="stable")
        else:
            items = found.tolist()
            order = np.array(sorted(range(len(items)), key=items.__getitem__), dtype=np.intp)
    except (TypeError, ValueError, NotImplementedError):
        # A value that cannot be hashed, such as a list, or that has no order beside another.
        what = describe_type(series)
        if what.startswith("mixed"):
            raise DataError(
                f"Column `{series.name}` mixes types that cannot be sorted into levels; "
                "convert it to text first."
            ) from None
        raise DataError(
            f"Column `{series.name}` holds {what}, which cannot be sorted into levels; convert it "
            "to numbers or to text."
        ) from None
    _check_labels(series, found)
    rank = np.empty(len(order) + 1, dtype=np.int64)
    rank[order] = np.arange(len(order))
    rank[-1] = -1
    return rank[codes], found[order], False


def _index(values: Any, dtype: Any) -> pd.Index[Any]:
    """Different values as an Index; short floats by their own digits, 0.1 and not 0.10000000149."""
    kind = getattr(dtype, "numpy_dtype", dtype)
    if kind in (np.float16, np.float32):
        values = np.array([float(str(value)) for value in np.asarray(values, dtype=kind)])
    index: pd.Index[Any] = pd.Index(values)
    return index


def _check_labels(series: pd.Series[Any], values: pd.Index[Any]) -> None:
    """Refuse different values that are written alike, such as the number 1 and the text "1"."""
    if values.dtype != object:
        return
    seen: dict[str, Any] = {}
    for label, value in zip(labels_of(values), values, strict=True):
        if label in seen:
            raise DataError(
                f"Column `{series.name}` has two levels that are both written {label!r}, of types "
                f"{type(seen[label]).__name__} and {type(value).__name__}; convert it to one type, "
                "for example to text."
            )
        seen[label] = value


def _count_integers(
    values: NDArray[np.integer[Any]],
) -> tuple[NDArray[np.int32], pd.Index[Any]] | None:
    """Codes and sorted values of whole numbers that are not spread widely; else None."""
    low, high = int(values.min()), int(values.max())
    span = high - low + 1
    if span > 4 * len(values) + 1024 or span > np.iinfo(np.int32).max:
        return None
    # In a small type the differences, and the sums below, would wrap round.
    wide = np.uint64 if values.dtype.kind == "u" else np.int64
    place = (values.astype(wide) - wide(low)).astype(np.intp)
    present = np.zeros(span, dtype=np.bool_)
    present[place] = True
    used = np.flatnonzero(present)
    lookup = np.empty(span, dtype=np.int32)
    lookup[used] = np.arange(len(used), dtype=np.int32)
    found = (used.astype(wide) + wide(low)).astype(values.dtype)
    return lookup[place], pd.Index(found)


def _text_factor(series: pd.Series[Any]) -> tuple[Factor, Mask | None]:
    codes, values, ordered = factor_of(series)
    factor = Factor(codes, tuple(labels_of(values.tolist())), ordered)
    missing = codes < 0
    return factor, missing if missing.any() else None


def exact_levels(series: pd.Series[Any]) -> tuple[Factor, Mask | None] | None:
    """Whole numbers as levels, where float64 cannot hold them all apart; else None."""
    whole = series.dtype.kind in "iu" or (
        series.dtype == object and pd.api.types.infer_dtype(series, skipna=True) == "integer"
    )
    present = series.dropna() if whole else series.iloc[:0]
    if not len(present) or max(abs(int(present.min())), abs(int(present.max()))) <= _LARGEST_EXACT:
        return None
    return _text_factor(series)


def read_column(series: pd.Series[Any]) -> tuple[Value, Mask | None]:
    """Read a column as a formula sees it.

    Parameters
    ----------
    series : pandas.Series
        Its name is used in errors.

    Returns
    -------
    value : ndarray of float64 or bool, or Factor
        Numbers with NaN where missing, booleans, or a factor for text and categoricals.
    missing : ndarray of bool or None
        None if nothing is missing.

    Raises
    ------
    DataError
        If it holds neither numbers nor categories.
    """
    dtype = series.dtype
    if isinstance(dtype, (pd.CategoricalDtype, pd.StringDtype)):
        return _text_factor(series)
    if isinstance(dtype, np.dtype):
        kind = dtype.kind
        if kind == "f":
            numbers = series.to_numpy(dtype=np.float64)
            missing = np.isnan(numbers)
            return numbers, missing if missing.any() else None
        if kind in "iu":
            return series.to_numpy(dtype=np.float64), None
        if kind == "b":
            return series.to_numpy(), None
        if kind == "O":
            return _read_objects(series)
    elif dtype.kind in "biufOUS":
        return _read_extension(series)
    raise DataError(
        f"Column `{series.name}` holds {describe_type(series)}; a formula needs numbers, text, "
        "booleans or categories. Make a number of it first, for example days since a start: "
        f"d = pandas.to_datetime(data[{series.name!r}]); (d - d.min()).dt.days."
    )


def _filled(series: pd.Series[Any], mask: Mask, value: Any) -> NDArray[Any]:
    values = np.array(series.to_numpy(dtype=object))
    values[mask] = value
    return values


def _read_objects(series: pd.Series[Any]) -> tuple[Value, Mask | None]:
    inferred = pd.api.types.infer_dtype(series, skipna=True)
    if inferred == "string":
        return _text_factor(series)
    mask = series.isna().to_numpy()
    missing = mask if mask.any() else None
    if inferred == "boolean":
        return _filled(series, mask, False).astype(np.bool_), missing
    if inferred in ("integer", "floating", "mixed-integer-float", "decimal", "empty"):
        return _filled(series, mask, np.nan).astype(np.float64), missing
    raise DataError(
        f"Column `{series.name}` holds {describe_type(series)}; convert it to numbers or to text."
    )


def _read_extension(series: pd.Series[Any]) -> tuple[Value, Mask | None]:
    """Read pandas' nullable, arrow-backed and sparse columns."""
    mask = series.isna().to_numpy(dtype=np.bool_)
    missing = mask if mask.any() else None
    if pd.api.types.is_bool_dtype(series.dtype):
        return series.to_numpy(dtype=np.bool_, na_value=False), missing
    if pd.api.types.is_numeric_dtype(series.dtype):
        return series.to_numpy(dtype=np.float64, na_value=np.nan), missing
    objects = pd.Series(series.to_numpy(dtype=object), name=series.name, dtype=object)
    return _read_objects(objects)
