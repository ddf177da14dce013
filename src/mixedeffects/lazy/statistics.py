"""The sums of a model as a value of their own, which add up and can be fitted elsewhere."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.plain import as_plain
from mixedeffects.base.sealed import Sealed
from mixedeffects.engine.added_sums import added, recentred, with_levels
from mixedeffects.errors import DataError, ModelError
from mixedeffects.frame.model_frame import Dropped
from mixedeffects.lazy.statistics_file import read_file, write_file
from mixedeffects.lazy.stored import Content

__all__ = ["SufficientStatistics", "parts_of"]


class SufficientStatistics(Sealed):
    """Sums of products by level: all that a linear mixed model needs of a table.

    Made by `sufficient`, fitted by `lmer`. Those of several tables, or of the rows by which a table
    grew, add up: ``a + b``, ``sum(list)``. They pickle; a file made by `to_file` runs no code when
    it is read.

    They hold no rows, but they are no more private than their levels are large: the sums of a level
    of one row are that row. See ``minimum_rows`` of `sufficient`.

    Attributes
    ----------
    formula : str
        The model.
    nobs : int
        Number of rows.
    ngroups : dict of str to int
        Number of levels of each grouping factor.
    columns : tuple of str
        Columns of the design, each once; the first is one in every row.
    centre, scale : Series
        What the columns were taken less, and divided by, before they were multiplied.
    weights, offset : str or None
        As given to `sufficient`.
    smallest : dict of str to int
        For each grouping factor, and each pair of them, the smallest number of rows of a level.

    Examples
    --------
    >>> import mixedeffects as me
    >>> sleep = me.load_dataset("sleepstudy")
    >>> early, late = sleep[sleep["Days"] < 5], sleep[sleep["Days"] >= 5]
    >>> formula = "Reaction ~ Days + (Days | Subject)"
    >>> first = me.sufficient(formula, early)
    >>> both = first + me.sufficient(formula, late, like=first)
    >>> me.lmer(both).fixef.round(2).tolist()
    [251.41, 10.47]
    """

    def __init__(self, content: Content) -> None:
        self._content = content

    def __repr__(self) -> str:
        sums = self._content.sums
        lines = [
            f"Sufficient statistics of {self.formula}",
            f"  {self.nobs:,} rows, {len(self.columns)} columns: {', '.join(self.columns)}",
        ]
        moved = np.flatnonzero(sums.centre != 0.0)
        if len(moved):
            centres = ", ".join(f"{sums.columns[j]} {sums.centre[j]:g}" for j in moved)
            lines.append(f"  taken less {centres}")
        for level, factor in zip(self._content.levels, sums.factors, strict=True):
            alone = int(np.count_nonzero(factor.rows == 1))
            lines.append(
                f"  {level.name}: {factor.n_levels:,} levels of {factor.rows.min():,} to "
                f"{factor.rows.max():,} rows{f', {alone:,} of one row' if alone else ''}"
            )
        names = [level.name for level in self._content.levels]
        for pair in sums.pairs:
            s, t = pair.factors
            alone = int(np.count_nonzero(pair.rows == 1))
            lines.append(
                f"  {names[s]} and {names[t]}: {len(pair.rows):,} pairs of {pair.rows.min():,} to "
                f"{pair.rows.max():,} rows{f', {alone:,} of one row' if alone else ''}"
            )
        if min(self.smallest.values()) == 1:
            lines.append("The sums of a level of one row are that row.")
        else:
            lines.append("No level has one row; sums of few rows tell much of them.")
        return "\n".join(lines)

    @property
    def formula(self) -> str:
        """The model."""
        return self._content.formula

    @property
    def weights(self) -> str | None:
        """Prior weights, as given."""
        return self._content.weights

    @property
    def offset(self) -> str | None:
        """Known part of the linear predictor, as given."""
        return self._content.offset

    @property
    def nobs(self) -> int:
        """Number of rows."""
        return self._content.sums.n

    @property
    def ngroups(self) -> dict[str, int]:
        """Number of levels of each grouping factor."""
        return {level.name: len(level.values) for level in self._content.levels}

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the design."""
        return self._content.sums.columns

    @property
    def centre(self) -> pd.Series[Any]:
        """What the columns were taken less."""
        return pd.Series(self._content.sums.centre.copy(), list(self.columns), name="centre")

    @property
    def scale(self) -> pd.Series[Any]:
        """What the columns were divided by."""
        return pd.Series(self._content.sums.scale.copy(), list(self.columns), name="scale")

    @property
    def smallest(self) -> dict[str, int]:
        """Smallest number of rows of a level of each grouping factor, and of a pair of levels."""
        sums, names = self._content.sums, [level.name for level in self._content.levels]
        out = {name: int(f.rows.min()) for name, f in zip(names, sums.factors, strict=True)}
        for pair in sums.pairs:
            s, t = pair.factors
            out[f"{names[s]} and {names[t]}"] = int(pair.rows.min())
        return out

    def __add__(self, other: Any) -> SufficientStatistics:
        if not isinstance(other, SufficientStatistics):
            return NotImplemented
        return SufficientStatistics(_added(self._content, other._content))

    def __radd__(self, other: Any) -> SufficientStatistics:
        # sum() begins with 0.
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def to_file(self, path: str | os.PathLike[str]) -> None:
        """Write a file that can be given away: arrays and text, in NumPy's ``npz``.

        Parameters
        ----------
        path : str or path
            Name of the file.

        Raises
        ------
        DataError
            If the file cannot be written, or levels are neither numbers, text nor booleans.
        """
        write_file(self._content, path)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> SufficientStatistics:
        """Read a file that `to_file` wrote; no code in it is run.

        Parameters
        ----------
        path : str or path
            Name of the file.

        Returns
        -------
        SufficientStatistics

        Raises
        ------
        DataError
            If it cannot be read, is none of these, or was written by a later version.
        """
        return cls(read_file(path))


def _added(one: Content, other: Content) -> Content:
    _check_alike(one, other)
    levels, places = [], []
    for own, its in zip(one.levels, other.levels, strict=True):
        values = _united(own.name, own.values, its.values)
        places.append([_places(values, part.values) for part in (own, its)])
        unused = min(own.unused, its.unused)
        levels.append(replace(own, values=values, unused=unused))
    counts = [len(level.values) for level in levels]
    centre, scale = one.sums.centre, one.sums.scale
    parts = [
        with_levels(recentred(part.sums, centre, scale), [each[i] for each in places], counts)
        for i, part in enumerate((one, other))
    ]
    missing = dict(one.dropped.missing_by_column)
    for name, count in other.dropped.missing_by_column.items():
        missing[name] = missing.get(name, 0) + count
    assert one.dropped.n_rows is not None and other.dropped.n_rows is not None
    dropped = Dropped(
        rows=pd.RangeIndex(len(one.dropped.rows) + len(other.dropped.rows)),
        missing_by_column=missing,
        n_rows=one.dropped.n_rows + other.dropped.n_rows,
        lost=tuple(dict.fromkeys((*one.dropped.lost, *other.dropped.lost))),
    )
    return replace(
        one,
        sums=added(*parts),
        levels=tuple(levels),
        largest=np.maximum(one.largest, other.largest),
        dropped=dropped,
    )


_LIKE = " Make the second ones with `like=` the first: sufficient(formula, table, like=first)."


def _check_alike(one: Content, other: Content) -> None:
    """Refuse to add up sums of different columns."""
    for what in ("formula", "weights", "offset"):
        own, its = getattr(one, what), getattr(other, what)
        if own != its:
            raise ModelError(
                f"Statistics add up if they are of one model: `{what}` is {own!r} in the first and "
                f"{its!r} in the second."
            )
    for name, own in one.known.variables.items():
        its = other.known.variables[name]
        if (own.kind, own.levels, own.ordered) != (its.kind, its.levels, its.ordered):
            shown = [", ".join(v.levels[:5]) if v.levels else v.kind for v in (own, its)]
            raise ModelError(
                f"The statistics have different levels of `{name}` ({shown[0]}; {shown[1]}), so "
                f"their columns differ.{_LIKE}"
            )
    for name, state in one.known.states.items():
        if as_plain(state) != as_plain(other.known.states.get(name, {})):
            raise ModelError(
                f"`{name}` was worked out by other numbers in the second statistics than in the "
                f"first (means, knots), so their columns differ.{_LIKE}"
            )
    if one.sums.columns != other.sums.columns or one.columns != other.columns:
        raise ModelError(f"The statistics are of different columns.{_LIKE}")


def _united(name: str, one: pd.Index[Any], other: pd.Index[Any]) -> pd.Index[Any]:
    """Levels of both: sorted, or where they have an order of their own, as they come."""
    for j in range(one.nlevels):
        kinds = [_kind(part.get_level_values(j)) for part in (one, other)]
        if kinds[0] != kinds[1]:
            raise DataError(
                f"The levels of `{name}` are {kinds[0]} in the first statistics and {kinds[1]} in "
                "the second, so none of them would be the same. Convert the column in one of the "
                "tables."
            )
    if one.equals(other):
        return one
    if one.is_monotonic_increasing and other.is_monotonic_increasing:
        return one.union(other).set_names(one.names)
    return one.append(other[~other.isin(one)]).set_names(one.names)


def _kind(values: pd.Index[Any]) -> str:
    kind = pd.api.types.infer_dtype(values, skipna=True)
    if kind in ("integer", "floating", "mixed-integer-float", "decimal"):
        return "numbers"
    return {"string": "text", "boolean": "true or false"}.get(kind, kind)


def _places(values: pd.Index[Any], own: pd.Index[Any]) -> NDArray[np.int32]:
    return np.asarray(values.get_indexer(own), dtype=np.int32)


def parts_of(statistics: SufficientStatistics) -> Content:
    """The parts that a fit is made of."""
    return statistics._content
