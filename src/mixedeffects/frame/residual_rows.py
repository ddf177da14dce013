"""From the columns of the data to the residual groups and positions of the rows used."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.errors import DataError, ModelError
from mixedeffects.formula import ResidualSpec
from mixedeffects.formula.evaluate import State
from mixedeffects.formula.syntax import Name, Node, deparse
from mixedeffects.formula.values import Factor, Value
from mixedeffects.frame.coder import VariableCoder
from mixedeffects.frame.columns import labels_of
from mixedeffects.frame.grouping import GroupColumn, combine
from mixedeffects.frame.residual_term import ResidualTerm

__all__ = ["ResidualRows", "residual_rows", "rows_in_their_order"]

_COMMON_TIMES = ("diag", "us", "toep", "ante")
#: Structures in which a time without rows is a step all the same.
_STEPS_COUNT = ("ar1", "toep")
_ORDER_COUNTS = ("ar1", "toep", "ante")
_DISTANCES = ("car1", "exp", "gau")
#: Steps between the first and the last that are kept as times.
_MOST_STEPS = 100_000


@dataclass(frozen=True, eq=False)
class ResidualRows:
    """The residual term, and what is to be remembered of how it was made.

    Attributes
    ----------
    term : ResidualTerm
    coders : tuple of VariableCoder
        One for each part of the position, then one for the stratum if there is one.
    unused, empty : dict of str to int
        For the group, the position and the stratum, how many declared levels occur in no row
        used; those left out, and those that are steps all the same.
    """

    term: ResidualTerm
    coders: tuple[VariableCoder, ...]
    unused: dict[str, int]
    empty: dict[str, int]


@dataclass(frozen=True, eq=False)
class _Position:
    """Where the rows are: as numbers of common times, as whole numbers or as coordinates."""

    coders: tuple[VariableCoder, ...]
    times: pd.Index | None = None
    steps: NDArray[np.int64] | None = None
    coordinates: NDArray[np.float64] | None = None
    unused: int = 0
    empty: int = 0


def rows_in_their_order(codes: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Number of each row among those of its group, from 0, in the order of the data.

    Parameters
    ----------
    codes : ndarray of int, shape (n,)
        -1 where missing.

    Returns
    -------
    ndarray of int64, shape (n,)

    Examples
    --------
    >>> import numpy as np
    >>> rows_in_their_order(np.array([0, 1, 0, 0, 1]))
    array([0, 0, 1, 2, 1])
    """
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(codes) else order
    lengths = np.diff(np.r_[first, len(codes)])
    numbers = np.empty(len(codes), dtype=np.int64)
    numbers[order] = np.arange(len(codes)) - np.repeat(first, lengths)
    return numbers


def residual_rows(
    spec: ResidualSpec,
    values: Mapping[str, Value],
    states: Mapping[str, State],
    groups: Mapping[str, GroupColumn],
    numbers: NDArray[np.int64] | None,
) -> ResidualRows:
    """Make the residual term of the rows used.

    Parameters
    ----------
    spec : ResidualSpec
        What was asked for.
    values : mapping of str to ndarray or Factor
        Each variable on the rows used, nothing missing.
    states : mapping of str to dict
        What each variable's stateful transforms remembered.
    groups : mapping of str to GroupColumn
        The columns of the group and the stratum on the rows used.
    numbers : ndarray of int64, shape (n,), or None
        For ``ar1(1 | group)`` the number of each row in its group.

    Raises
    ------
    DataError, ModelError
        If the position is of another kind than the structure needs.
    """
    grouping = combine([groups[name] for name in spec.variables], spec.variables)
    position = _position(spec, values, states, numbers)
    unused = {spec.group: grouping.unused} if grouping.unused else {}
    where = " + ".join(spec.names)
    if position.unused:
        unused[where] = position.unused
    strata: pd.Index | None = None
    stratum: NDArray[np.int32] | None = None
    coders = position.coders
    if spec.by is not None:
        levels = combine([groups[spec.by]], (spec.by,))
        strata, stratum = pd.Index(levels.labels), levels.codes
        if levels.unused:
            unused[spec.by] = levels.unused
        coders = (*coders, _level_coder(Name(spec.by), tuple(levels.labels), {}))
    term = ResidualTerm(
        kind=spec.kind,
        text=spec.text,
        group=spec.group,
        variables=spec.variables,
        levels=pd.Index(grouping.labels),
        level_values=grouping.values,
        codes=grouping.codes,
        position=spec.names,
        times=position.times,
        steps=position.steps,
        coordinates=position.coordinates,
        homogeneous=spec.homogeneous,
        nugget=spec.nugget,
        by=spec.by,
        strata=strata,
        stratum=stratum,
    )
    empty = {where: position.empty} if position.empty else {}
    return ResidualRows(term, coders, unused, empty)


def _level_coder(tree: Node, levels: tuple[str, ...], state: State) -> VariableCoder:
    return VariableCoder(tree, "factor", levels, np.empty(0, dtype=np.intp), (), state)


def _number_coder(tree: Node, state: State) -> VariableCoder:
    return VariableCoder(tree, "numeric", (), np.empty((0, 0)), ("",), state)


def _position(
    spec: ResidualSpec,
    values: Mapping[str, Value],
    states: Mapping[str, State],
    numbers: NDArray[np.int64] | None,
) -> _Position:
    if not spec.position:
        if numbers is None:
            return _Position(())
        if spec.homogeneous:
            return _Position((), steps=numbers)
        span = np.arange(int(numbers.max()) + 1)
        empty = len(span) - len(np.unique(numbers))
        return _Position((), pd.Index(labels_of(span + 1)), numbers, empty=empty)
    for name in spec.names:
        value = values[name]
        if not isinstance(value, Factor) and value.ndim == 2:
            raise DataError(
                f"The position `{name}` of `{spec.text}` has {value.shape[1]} columns; a position "
                "is one number or one level for each row."
            )
    if spec.kind in _DISTANCES:
        return _distances(spec, values, states)
    tree, name = spec.position[0], spec.names[0]
    value, state = values[name], dict(states.get(name, {}))
    if not isinstance(value, Factor) and value.dtype == np.bool_:
        value = Factor(value.astype(np.int32), ("FALSE", "TRUE"))
    if isinstance(value, Factor):
        if spec.kind in _ORDER_COUNTS and not value.ordered:
            _check_alphabet(spec, name, value.levels)
        times, steps, unused, empty = _of_levels(value, spec.kind in _STEPS_COUNT)
        return _Position(
            (_level_coder(tree, tuple(times), state),),
            pd.Index(times),
            steps,
            unused=unused,
            empty=empty,
        )
    if spec.kind != "ar1":
        found, codes = np.unique(value, return_inverse=True)
        times = labels_of(found)
        return _Position(
            (_level_coder(tree, tuple(times), state),), pd.Index(times), codes.astype(np.int64)
        )
    whole = _whole_numbers(spec, name, value)
    if spec.homogeneous:
        return _Position((_number_coder(tree, state),), steps=whole)
    low, high = int(whole.min()), int(whole.max())
    if high - low >= _MOST_STEPS:
        raise ModelError(
            f"`{name}` in `{spec.text}` goes from {low:,} to {high:,}; with a variance for each "
            f"step there can be {_MOST_STEPS:,} steps. Count in larger units."
        )
    times = labels_of(np.arange(low, high + 1))
    empty = len(times) - len(np.unique(whole))
    coder = _level_coder(tree, tuple(times), state)
    return _Position((coder,), pd.Index(times), whole - low, empty=empty)


def _of_levels(factor: Factor, steps_count: bool) -> tuple[list[str], NDArray[np.int64], int, int]:
    """Times of a factor, number of each row's, and how many levels are left out and kept empty."""
    counts = np.bincount(factor.codes, minlength=len(factor.levels))
    used = np.flatnonzero(counts)
    # What lies before the first and behind the last row is no step between rows.
    kept = np.arange(used[0], used[-1] + 1) if steps_count else used
    lookup = np.full(len(factor.levels), -1, dtype=np.int64)
    lookup[kept] = np.arange(len(kept))
    times = [factor.levels[i] for i in kept]
    return times, lookup[factor.codes], len(factor.levels) - len(kept), len(kept) - len(used)


def _distances(
    spec: ResidualSpec, values: Mapping[str, Value], states: Mapping[str, State]
) -> _Position:
    columns = []
    for name in spec.names:
        value = values[name]
        if isinstance(value, Factor) or value.dtype == np.bool_:
            raise DataError(
                f"`{spec.kind}` in `{spec.text}` needs numbers, from which distances are made, but "
                f"`{name}` is categorical. Make a number of it first, or write `ar1({name} | "
                f"{spec.group})`, which counts its levels as steps."
            )
        columns.append(value.astype(np.float64))
    coordinates = np.column_stack(columns)
    coders = tuple(
        _number_coder(tree, dict(states.get(deparse(tree), {}))) for tree in spec.position
    )
    if spec.homogeneous:
        return _Position(coders, coordinates=coordinates)
    found, codes = np.unique(coordinates[:, 0], return_inverse=True)
    times = pd.Index(labels_of(found))
    return _Position(coders, times, codes.astype(np.int64), coordinates)


def _whole_numbers(spec: ResidualSpec, name: str, value: NDArray[Any]) -> NDArray[np.int64]:
    whole = np.floor(value) == value
    if whole.all() and np.abs(value).max() <= 2.0**53:
        return value.astype(np.int64)
    example = value[~whole][0] if not whole.all() else np.abs(value).max()
    raise DataError(
        f"`ar1` counts whole steps, and `{name}` has values such as {example:g}. For correlations "
        f"that depend on the time between rows write `c{spec.text}`; to count the different "
        f"values as steps, `ar1(factor({name}) | {spec.group})`."
    )


def _check_alphabet(spec: ResidualSpec, name: str, levels: tuple[str, ...]) -> None:
    """Refuse levels in an order that nobody chose: week10 before week2."""

    def by_number(label: str) -> list[tuple[int, float, str]]:
        parts = re.split(r"(\d+(?:\.\d+)?)", label)
        return [(1, float(p), "") if i % 2 else (0, 0.0, p) for i, p in enumerate(parts)]

    wanted = sorted(levels, key=by_number)
    if list(levels) == wanted or list(levels) != sorted(levels):
        return
    i = next(j for j, (a, b) in enumerate(zip(levels, wanted, strict=True)) if a != b)
    raise DataError(
        f"The levels of `{name}` in `{spec.text}` are in the order of the alphabet: {levels[i]!r} "
        f"comes before {wanted[i]!r}. Make an ordered categorical of it, so that its steps are in "
        "the order meant."
    )
