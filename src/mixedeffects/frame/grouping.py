"""Code the levels of grouping factors, single columns or combinations, in time linear in n."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.caching import cached_property
from mixedeffects.frame.columns import factor_of, labels_of
from mixedeffects.frame.ingest import materialised, take_columns
from mixedeffects.frame.model_frame import RandomTerm
from mixedeffects.frame.residual_term import ResidualTerm

__all__ = [
    "MISSING",
    "UNSEEN",
    "GroupColumn",
    "Grouping",
    "combine",
    "joined_labels",
    "level_codes",
    "level_labels",
    "read_group",
]

#: Codes of what is no level of the fit.
UNSEEN, MISSING = -1, -2

_LARGEST = 2**62


@dataclass(frozen=True, eq=False)
class GroupColumn:
    """One column that makes groups: codes (-1 missing), its values, whether they were declared."""

    codes: NDArray[np.integer[Any]]
    uniques: pd.Index[Any]
    declared: bool


@dataclass(frozen=True, eq=False)
class Grouping:
    """The levels of a grouping factor in the rows used."""

    codes: NDArray[np.int32]
    values: pd.Index[Any]
    unused: int

    @cached_property
    def labels(self) -> list[str]:
        """Label of each level."""
        return level_labels(self.values)

    @property
    def n_levels(self) -> int:
        """Number of levels, l."""
        return len(self.values)


def read_group(series: pd.Series[Any]) -> GroupColumn:
    """Code one column; numbers, text and booleans sort, categories keep their order."""
    codes, values, _ = factor_of(series)
    return GroupColumn(codes, values, isinstance(series.dtype, pd.CategoricalDtype))


def _compressed(
    codes: NDArray[np.integer[Any]], size: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Renumber codes below ``size`` without gaps, order kept; also return the codes in use."""
    n = codes.size
    if size <= max(4 * n, 1024):
        used = np.flatnonzero(np.bincount(codes, minlength=size))
        if len(used) == size:
            return codes.astype(np.int32), used
        lookup = np.empty(size, dtype=np.int32)
        lookup[used] = np.arange(len(used), dtype=np.int32)
        return lookup[codes], used
    appearance, found = pd.factorize(codes)
    used = np.sort(found)
    rank = np.empty(len(found), dtype=np.int32)
    rank[np.argsort(found)] = np.arange(len(found), dtype=np.int32)
    return rank[appearance], used.astype(np.int64)


def combine(columns: Sequence[GroupColumn], names: Sequence[str]) -> Grouping:
    """Make the grouping factor of one or more columns, nothing missing.

    Combinations sort by the first column, then the second, as in lme4.

    Parameters
    ----------
    columns : sequence of GroupColumn
        In the order of the factor's name.
    names : sequence of str
        The columns' names.

    Returns
    -------
    Grouping
    """
    if len(columns) == 1:
        column = columns[0]
        codes, used = _compressed(column.codes, len(column.uniques))
        values = column.uniques[used]
        unused = len(column.uniques) - len(used) if column.declared else 0
        return Grouping(codes, values.rename(names[0]), unused)

    combined: NDArray[np.int64] = columns[0].codes.astype(np.int64)
    size = len(columns[0].uniques)
    for column in columns[1:]:
        width = len(column.uniques)
        if size * width >= _LARGEST:
            narrow, used = _compressed(combined, size)
            combined, size = narrow.astype(np.int64), len(used)
        combined = combined * width + column.codes
        size *= width
    codes, used = _compressed(combined, size)
    # Some row of each level tells what its parts are; which row does not matter.
    row = np.empty(len(used), dtype=np.intp)
    row[codes] = np.arange(codes.size)
    parts = [column.codes[row] for column in columns]
    values = pd.MultiIndex.from_arrays(
        [column.uniques[part] for column, part in zip(columns, parts, strict=True)],
        names=list(names),
    )
    return Grouping(codes, values, 0)


def level_labels(values: pd.Index[Any]) -> list[str]:
    """Labels of levels from their values."""
    if not isinstance(values, pd.MultiIndex):
        return labels_of(values)
    texts = [labels_of(each.tolist()) for each in values.levels]
    return joined_labels(
        [
            tuple(text[i] for text, i in zip(texts, level, strict=True))
            for level in zip(*(np.asarray(part).tolist() for part in values.codes), strict=True)
        ]
    )


def joined_labels(levels: Sequence[tuple[str, ...]]) -> list[str]:
    """Labels of combinations, ``a:b``; where two of them would be alike, written as tuples.

    Examples
    --------
    >>> joined_labels([("x:y", "z"), ("x", "y:z"), ("p", "q")])
    ["('x:y', 'z')", "('x', 'y:z')", 'p:q']
    """
    labels = [":".join(level) for level in levels]
    if len(set(labels)) == len(labels):
        return labels
    counts = Counter(labels)
    return [
        repr(level) if counts[label] > 1 else label
        for level, label in zip(levels, labels, strict=True)
    ]


def level_codes(term: RandomTerm | ResidualTerm, data: Any) -> NDArray[np.int32]:
    """Find the levels of a random-effects term, or the residual groups, in other data.

    Parameters
    ----------
    term : RandomTerm or ResidualTerm
        A term of a fitted model.
    data : dataframe
        Must have the columns ``term.variables``.

    Returns
    -------
    ndarray of int32, shape (rows,)
        Code of each row's level; `UNSEEN` where the fit did not see it, `MISSING` where a part
        of it is missing.

    Raises
    ------
    DataError
        If a column is missing.
    """
    frame = take_columns(materialised(data), dict.fromkeys(term.variables))
    n = len(frame)
    # Column by column, the levels and the rows get the same number for the same values so far.
    level_number = np.zeros(term.n_levels, dtype=np.int64)
    row_number = np.zeros(n, dtype=np.int64)
    unseen, missing = (np.zeros(n, dtype=np.bool_) for _ in range(2))
    values = term.level_values
    for j, name in enumerate(term.variables):
        fitted = values.get_level_values(j) if isinstance(values, pd.MultiIndex) else values
        part_codes, parts = pd.factorize(fitted)
        known = {spelling: i for i, spelling in enumerate(map(str, parts.tolist()))}
        known |= {label: i for i, label in enumerate(labels_of(parts))}
        codes, found, _ = factor_of(frame[name])
        missing |= codes < 0
        lookup = [known.get(label, -1) for label in labels_of(found)]
        of_row = np.take(np.array([*lookup, -1], dtype=np.int64), codes)
        unseen |= of_row < 0
        numbers, level_number = np.unique(
            level_number * len(parts) + part_codes, return_inverse=True
        )
        key = row_number * len(parts) + of_row
        row_number = np.minimum(np.searchsorted(numbers, key), len(numbers) - 1)
        unseen |= numbers[row_number] != key
    level_of = np.empty(term.n_levels, dtype=np.int32)
    level_of[level_number] = np.arange(term.n_levels, dtype=np.int32)
    out: NDArray[np.int32] = level_of[row_number]
    out[unseen] = UNSEEN
    out[missing] = MISSING
    return out
