"""Refuse data and models that cannot be fitted, saying what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.memory import usable_memory
from mixedeffects.errors import DataError, ModelError
from mixedeffects.formula.values import Factor, Value
from mixedeffects.frame.text_levels import is_number, shown_labels

#: Size of numbers up to which sums of their squares are numbers, and of their inverses too.
_LARGEST = 1e120
#: Rows named in an error.
_SHOWN = 5

__all__ = [
    "check_finite",
    "check_fixed",
    "check_grouping",
    "check_random_effects",
    "check_ranges",
    "check_size",
    "check_weights",
    "infinite_values",
    "numeric_response",
]


def numeric_response(name: str, value: Value) -> NDArray[np.float64]:
    """Return the response as numbers; booleans count as 0 and 1, as in lme4."""
    if isinstance(value, Factor):
        shown = ", ".join(value.levels[:3]) + (", ..." if len(value.levels) > 3 else "")
        advice = _number_of(value.levels)
        if len(value.levels) == 2:
            advice = (
                "A logistic mixed model takes it as it is: mixedeffects.glmer(..., "
                "family='binomial'); for a linear probability model make a 0/1 number of it"
            )
        raise DataError(
            f"The response `{name}` is categorical with {len(value.levels)} levels ({shown}), but "
            f"a linear mixed model needs numbers. {advice}."
        )
    if value.ndim == 2:
        raise DataError(
            f"The response `{name}` has {value.shape[1]} columns; a model has one response."
        )
    return value.astype(np.float64, copy=False)


def _number_of(levels: Sequence[str]) -> str:
    """How to make a number of a response with these levels."""
    others = [level for level in levels if not is_number(level)]
    if 2 * len(others) >= len(levels):
        return "Make a number of it first"
    if others:
        return (
            f"All are numbers but {shown_labels(others)}: if they mean that a value is missing, "
            f"read the file by mixedeffects.read_table(..., missing=[{shown_labels(others)}])"
        )
    if any("," in level for level in levels):
        return (
            "Its numbers have decimal commas: read the file by mixedeffects.read_table, or "
            "pandas.read_csv(..., decimal=',')"
        )
    return "All are numbers: make a number of it by data[...].astype(float)"


def check_finite(
    name: str, values: NDArray[Any], what: str = "", labels: Sequence[Any] | None = None
) -> None:
    """Refuse infinite values, and name the first rows of them where their labels are given."""
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    infinite = ~np.isfinite(values)
    at = np.flatnonzero(infinite if infinite.ndim == 1 else infinite.any(axis=1))
    rows = f"{len(at):,} row{'s' if len(at) > 1 else ''}"
    if labels is not None:
        more = ", ..." if len(at) > _SHOWN else ""
        rows += f" ({', '.join(str(labels[i]) for i in at[:_SHOWN])}{more})"
    raise infinite_values(f"{what}`{name}`", rows)


def infinite_values(what: str, rows: str) -> DataError:
    """The error for a variable that is infinite in some rows, told in words."""
    return DataError(
        f"{what} is infinite in {rows}. Correct these values, or mark them as missing to leave the "
        "rows out."
    )


def check_weights(name: str, weights: NDArray[np.float64]) -> None:
    """Refuse weights that are not positive."""
    negative, zero = int((weights < 0).sum()), int((weights == 0).sum())
    if negative or zero:
        counts = [
            f"{w} in {n:,} row{'s' if n > 1 else ''}"
            for n, w in ((negative, "negative"), (zero, "zero"))
            if n
        ]
        raise DataError(
            f"Weights must be positive: `{name}` is {' and '.join(counts)}. To leave rows out, "
            "filter the data or set their weight to missing."
        )


def check_ranges(
    response: tuple[str, NDArray[np.float64]],
    columns: Sequence[tuple[Sequence[str], NDArray[np.float64]]],
    weights: tuple[str, NDArray[np.float64]] | None,
) -> None:
    """Refuse units in which squares of the data, or of what is estimated, are no numbers.

    Parameters
    ----------
    response : (str, ndarray of shape (n,))
        Its name, and its values less the offset.
    columns : sequence of (names, ndarray of shape (n, k))
        Model matrices.
    weights : (str, ndarray of shape (n,)) or None
        Prior weights, positive.
    """
    name, y = response
    size = _largest(y[:, None])[0]
    _check_range(f"The response `{name}` has values of size", size)
    for names, matrix in columns:
        for column, largest in zip(names, _largest(matrix), strict=True):
            _check_range(f"`{column}` has values of size", largest)
            if size > 0.0 and largest > 0.0:
                what = f"Coefficients of `{column}`, in units of `{name}`, are of size"
                _check_range(what, size / largest)
    if weights is not None:
        of_weights = f"The weights `{weights[0]}` have values of size"
        smallest, largest = float(weights[1].min()), float(weights[1].max())
        _check_range(of_weights, smallest)
        _check_range(of_weights, largest)
        if size > 0.0:
            what = f"Variances of `{name}` at unit weight are, as standard deviations, of size"
            _check_range(what, size * float(np.sqrt(largest)))


def _largest(matrix: NDArray[np.float64]) -> list[float]:
    if not matrix.size:
        return [0.0] * matrix.shape[1]
    return list(np.maximum(matrix.max(axis=0), -matrix.min(axis=0)))


def _check_range(what: str, size: float) -> None:
    if size != 0.0 and not 1.0 / _LARGEST < size < _LARGEST:
        raise DataError(
            f"{what} {size:.2g}; its square is beyond what numbers of 64 bits can hold with all "
            "their digits. Use other units."
        )


def check_grouping(
    group: str,
    n_levels: int,
    labels: Sequence[str],
    n: int | None,
    rival: str = "residual variance",
) -> None:
    """Refuse grouping factors with one level, or with a level for every one of n rows.

    n is None where rows have no variance of their own to be estimated: the residual variance is
    known, or the family of the response has no parameter besides the mean; ``rival`` is what it
    is called otherwise.
    """
    if n_levels < 2:
        raise ModelError(
            f"Grouping factor `{group}` has one level ({labels[0]!r}) in the rows used; a variance "
            "between groups needs at least 2 groups."
        )
    if n is not None and n_levels >= n:
        raise ModelError(
            f"Grouping factor `{group}` has {n_levels:,} levels for {n:,} rows: with one row per "
            f"group its variance cannot be told from the {rival}. Use a coarser grouping."
        )


def check_random_effects(
    k: int, n_levels: int, text: str, n: int, rival: str = "residual variance"
) -> None:
    """Refuse terms with as many random effects as rows; ``rival`` as for `check_grouping`."""
    if k * n_levels >= n:
        raise ModelError(
            f"The number of observations ({n:,}) is not larger than the number of random effects "
            f"({k} x {n_levels:,} = {k * n_levels:,}) of the term {text}: these effects could "
            f"reproduce the data by themselves, so their variances and the {rival} cannot "
            "be told apart. Use fewer columns before the bar, a coarser grouping, or a structure "
            "with fewer parameters, such as cs(... | g) or ar1(... | g)."
        )


def check_size(n: int, p: int, largest: str) -> None:
    """Refuse columns that could only exhaust the memory."""
    # The matrix, the same in a basis to compute in, with weights, and in one piece with y.
    n_bytes = 4 * 8.0 * n * p
    if (p >= n and n * p > 2**27) or n_bytes > usable_memory():
        raise ModelError(
            f"`{largest}` would make {p:,} columns for {n:,} rows; a fit with such a matrix takes "
            f"{n_bytes / 1e9:,.0f} GB. If it is a grouping factor, write `(1 | {largest})`."
        )


def check_fixed(names: Sequence[str], kept: NDArray[np.intp], n: int) -> None:
    """Refuse fixed effects that cannot be estimated at all."""
    if len(names) and not len(kept):
        raise ModelError(
            f"Every fixed-effects column is zero ({', '.join(names[:5])}); there is nothing to "
            "estimate from them."
        )
    if len(kept) >= n:
        raise ModelError(
            f"The fixed effects have {len(kept):,} independent columns for {n:,} rows, which "
            "leaves nothing to estimate variances from. Use fewer terms."
        )


def check_rows(n: int, kept: int, missing: dict[str, int]) -> None:
    """Refuse empty data."""
    if n == 0:
        raise DataError("The data have no rows.")
    if kept == 0:
        worst = sorted(missing.items(), key=lambda item: -item[1])
        shown = ", ".join(f"{name} {count:,}" for name, count in worst)
        raise DataError(
            f"All {n:,} rows have a missing value in a variable of the model ({shown})."
        )


def check_lengths(name: str, values: Any, n: int) -> None:
    """Refuse arrays that do not have one value for each row."""
    try:
        shape = np.shape(values)
    except ValueError:
        raise DataError(f"`{name}` must be one number for each row, not {values!r:.60}.") from None
    if shape != (n,):
        shown = f"{shape[0]:,} values" if len(shape) == 1 else f"shape {shape}"
        raise DataError(f"`{name}` has {shown}, but the data have {n:,} rows.")
