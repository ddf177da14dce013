"""A DataFrame of results as a table of texts: what decides is in sight, and nothing is in the way.

Estimates share their decimals with their standard errors, degrees of freedom have one decimal,
probabilities are written as in a paper, and no number below a quadrillion is in powers of ten.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mixedeffects.display.lettering import one_line
from mixedeffects.display.numbers import (
    SMALLEST_P_VALUE,
    pad_to_common_point,
    pad_to_common_width,
    round_number,
)
from mixedeffects.display.tables import Column, Table
from mixedeffects.display.vocabulary import kind_of

__all__ = ["frame_table", "p_value_text", "plain_numbers"]

#: Significant digits of the standard errors, and of numbers of which nothing is known.
_DIGITS = 4
_OTHER_DIGITS = 5
#: Decimals by which rows may differ and still share theirs, with and without standard errors.
_SAME_SCALE, _SAME_SIZE = 3, 1
#: Sizes outside of which a number is written in powers of ten.
_LARGEST, _MOST_DECIMALS = 1e15, 8


def frame_table(
    frame: pd.DataFrame,
    notes: Sequence[str] = (),
    most_rows: int | None = None,
    most_columns: int | None = None,
) -> Table:
    """Write a table of results.

    Parameters
    ----------
    frame : DataFrame
        Any columns; those whose names are known (see `kind_of`) are written by what they are.
        Row labels are shown unless they only count the rows.
    notes : sequence of str
        Lines below the table.
    most_rows, most_columns : int, optional
        A larger table is cut in the middle, and a line below says so.

    Examples
    --------
    >>> frame = pd.DataFrame(
    ...     {
    ...         "Estimate": [251.40510, 10.46729],
    ...         "Std. Error": [6.82460, 1.54579],
    ...         "df": [17.0, 16.99999],
    ...         "Pr(>|t|)": [1.2e-17, 3.26e-06],
    ...     },
    ...     index=["(Intercept)", "Days"],
    ... )
    >>> frame_table(frame)
                Estimate Std. Error   df Pr(>|t|)
    (Intercept)  251.405      6.825 17.0  < 2e-16
    Days          10.467      1.546 17.0 3.26e-06
    """
    rows, columns = frame.shape
    counted = _only_counts(frame.index)
    frame, row_gap = _cut(frame, most_rows, 0)
    frame, column_gap = _cut(frame, most_columns, 1)
    shown = _columns(frame)
    labels, corner = (None, "") if counted else _labels(frame.index)
    if row_gap is not None:
        shown = [_with_gap(column, row_gap) for column in shown]
        labels = None if labels is None else (*labels[:row_gap], "...", *labels[row_gap:])
    if column_gap is not None:
        dots = Column("...", ("...",) * (len(frame) + (row_gap is not None)), numeric=False)
        shown.insert(column_gap, dots)
    cut = row_gap is not None or column_gap is not None
    size = (f"{rows:,} rows x {columns:,} columns",) if cut else ()
    keys = 0
    while labels is None and keys < len(shown) - 1 and not shown[keys].numeric:
        keys += 1
    return Table(tuple(shown), labels, footnotes=(*size, *notes), corner=corner, keys=keys)


def p_value_text(p: float) -> str:
    """A probability as in a paper: three decimals without the zero before the point, or less.

    Examples
    --------
    >>> [p_value_text(p) for p in (0.0123, 3.26e-06, 1e-20, 1.0)]
    ['.012', '3.26e-06', '< 2e-16', '1.000']
    """
    if math.isnan(p):
        return "NaN"
    if p < SMALLEST_P_VALUE:
        return "< 2e-16"
    if p < 0.0005:
        return f"{p:.2e}"
    return f"{p:.3f}".removeprefix("0")


def plain_numbers(values: Sequence[float], digits: int = _OTHER_DIGITS) -> list[str]:
    """Numbers with common decimals, as few as give the largest `digits` digits and the least two.

    Examples
    --------
    >>> plain_numbers([1743.6283, 0.0655514, 4058838.0])
    ['   1743.628', '      0.066', '4058838.000']
    >>> plain_numbers([4058838.2, 1.0, 6e-32])
    ['4058838.2', '      1.0', '  6.0e-32']
    """
    sizes = [abs(value) for value in values if math.isfinite(value) and value != 0.0]
    small = 10.0**-_MOST_DECIMALS
    plain = [size for size in sizes if small <= size < _LARGEST]
    decimals = 0
    if any(size != round(size) for size in plain):
        for_largest = digits - 1 - math.floor(math.log10(max(plain)))
        for_least = 1 - math.floor(math.log10(min(plain)))
        # Trailing zeros tell nothing.
        wanted = min(max(for_largest, for_least, 0), _MOST_DECIMALS)
        decimals = max(_decimals_used(size, wanted) for size in plain)
    texts = []
    for value in values:
        size = abs(value)
        if value and math.isfinite(value) and not small <= size < _LARGEST:
            texts.append(f"{value:.1e}")
        else:
            texts.append(_fixed(value, decimals))
    return pad_to_common_width(texts)


def _decimals_used(value: float, most: int) -> int:
    text = f"{value:.{most}f}"
    return len(text.rstrip("0").partition(".")[2])


def _fixed(value: float, decimals: int) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Inf" if value > 0 else "-Inf"
    return f"{round_number(value, decimals):.{decimals}f}"


def _columns(frame: pd.DataFrame) -> list[Column]:
    names = list(frame.columns)
    kinds = [
        kind_of(name) if _is_number(frame.iloc[:, j]) else None for j, name in enumerate(names)
    ]
    estimates = [j for j, kind in enumerate(kinds) if kind == "estimate"]
    texts = dict(zip(estimates, _on_one_scale(frame.iloc[:, estimates]), strict=True))
    columns = []
    for j, name in enumerate(names):
        header, kind = _header(name), kinds[j]
        if kind is None:
            column = Column(header, tuple(map(_text, frame.iloc[:, j])), "left", numeric=False)
        else:
            own = texts[j] if j in texts else _numbers(frame.iloc[:, j], str(kind))
            column = Column(header, tuple(own))
        columns.append(column)
    return columns


def _numbers(column: pd.Series, kind: str) -> list[str]:
    values = column.to_numpy(dtype=float, na_value=np.nan).tolist()
    if kind == "p":
        return [p_value_text(value) for value in values]
    whole = all(value == round(value) for value in values if math.isfinite(value))
    if (kind == "count" and whole) or pd.api.types.is_integer_dtype(column.dtype):
        return [_fixed(value, 0) for value in values]
    if kind in ("df", "count"):
        return [_fixed(value, 1) for value in values]
    if kind == "statistic":
        return [_fixed(value, 2) for value in values]
    return plain_numbers(values)


def _on_one_scale(frame: pd.DataFrame) -> list[list[str]]:
    """Estimates and what shares their scale: decimals by the smallest number that is not zero.

    Rows of very different size have decimals of their own, the points below each other.
    """
    values = frame.to_numpy(dtype=float, na_value=np.nan)
    scales = [list(frame.columns).index(n) for n in ("Std. Error", "std_error") if n in frame]
    decimals = [_row_decimals(row[scales] if scales else row) for row in values]
    known = [d for d in decimals if d is not None]
    if known and max(known) - min(known) <= (_SAME_SCALE if scales else _SAME_SIZE):
        used = max(_decimals_used(v, max(known)) for v in values[np.isfinite(values)])
        decimals = [used] * len(decimals)
    elif not known:
        decimals = [_row_decimals(row) for row in values]
    return [
        pad_to_common_point(
            [_scaled(value, d or 0) for value, d in zip(values[:, j], decimals, strict=True)]
        )
        for j in range(values.shape[1])
    ]


def _row_decimals(numbers: Any) -> int | None:
    sizes = np.abs(numbers[np.isfinite(numbers) & (numbers != 0.0)])
    if not sizes.size:
        return None
    return min(max(_DIGITS - 1 - math.floor(math.log10(sizes.min())), 0), 12)


def _scaled(value: float, decimals: int) -> str:
    if math.isfinite(value) and abs(value) >= _LARGEST:
        return f"{value:.3e}"
    if value and abs(value) < 0.5 * 10.0**-decimals and decimals == 12:
        return f"{value:.1e}"
    return _fixed(value, decimals)


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(
        column.dtype
    )


def _header(name: Any) -> str:
    return one_line(", ".join(map(str, name)) if isinstance(name, tuple) else name)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (float, np.floating)):
        return plain_numbers([float(value)])[0]
    return one_line(value)


def _only_counts(index: pd.Index) -> bool:
    return isinstance(index, pd.RangeIndex) and index.start == 0 and index.step == 1


def _labels(index: pd.Index) -> tuple[tuple[str, ...], str]:
    """Labels of the rows, and what is above them."""
    names = [_header("" if name is None else name) for name in index.names]
    if isinstance(index, pd.MultiIndex):
        parts = [
            pad_to_common_width([name, *map(_text, index.get_level_values(i))], left=False)
            for i, name in enumerate(names)
        ]
        corner, *labels = ["  ".join(cells).rstrip() for cells in zip(*parts, strict=True)]
        return tuple(labels), corner
    return tuple(map(_text, index)), names[0]


def _cut(frame: pd.DataFrame, most: int | None, axis: int) -> tuple[pd.DataFrame, int | None]:
    """The outer parts of a frame that is too large, and where the gap is."""
    size = frame.shape[axis]
    if not most or size <= most:
        return frame, None
    # As pandas: a table that is not shown whole need not fill the screen.
    head = max(min(most, 10 if axis == 0 else most) // 2, 1)
    kept = [*range(head), *range(size - head, size)]
    return (frame.iloc[kept] if axis == 0 else frame.iloc[:, kept]), head


def _with_gap(column: Column, at: int) -> Column:
    cells = (*column.cells[:at], "...", *column.cells[at:])
    return Column(column.header, cells, column.align, column.numeric)
