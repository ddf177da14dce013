"""Rows that belong together: the levels of a factor, and the connected blocks of V."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import pandas as pd
import scipy.sparse
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from mixedeffects.base.arrays import ReadOnlyArrays
from mixedeffects.base.options import plain
from mixedeffects.errors import ModelError
from mixedeffects.frame.columns import labels_of

__all__ = [
    "ConnectedBlocks",
    "Factor",
    "Grouping",
    "check_nesting",
    "connected_blocks",
    "contiguous_spans",
    "crossing_sentence",
    "find_factor",
    "find_level",
    "matching_levels",
    "outermost_factors",
    "rows_of_levels",
]


class Grouping(Protocol):
    """A factor whose levels connect rows: that of a random-effects term, or one of R."""

    @property
    def group(self) -> str:
        """Its name."""

    @property
    def levels(self) -> pd.Index:
        """Labels of its l levels."""

    @property
    def n_levels(self) -> int:
        """Number of levels, l."""

    @property
    def codes(self) -> NDArray[np.int32]:
        """Level of each row, shape (n,)."""


class Factor(Grouping, Protocol):
    """A factor with levels that a user can name."""

    @property
    def variables(self) -> tuple[str, ...]:
        """The columns whose combinations are the levels, in the order of the name."""

    @property
    def level_values(self) -> pd.Index:
        """The original values that make each level."""


_Named = TypeVar("_Named", bound=Factor)


def connected_blocks(terms: Sequence[Grouping]) -> NDArray[np.int64]:
    """Number of the connected block of V each row belongs to, in order of first appearance.

    Two rows are connected if they share a level of any factor, directly or through other rows;
    at least one factor is needed.
    """
    start, nodes = 0, []
    for term in terms:
        nodes.append(term.codes.astype(np.int64) + start)
        start += term.n_levels
    block: NDArray[Any] = nodes[0]
    if len(nodes) > 1:
        rows = np.concatenate([nodes[0]] * (len(nodes) - 1))
        columns = np.concatenate(nodes[1:])
        graph = scipy.sparse.coo_array((np.ones(len(rows)), (rows, columns)), shape=(start, start))
        _, component = connected_components(graph, directed=False)
        block = component[nodes[0]]
    numbers, _ = pd.factorize(block)
    return np.asarray(numbers, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class ConnectedBlocks(ReadOnlyArrays):
    """The connected blocks of V: V is zero between rows of different ones.

    Attributes
    ----------
    numbers : ndarray, shape (n,)
        Block of each row; blocks are numbered in order of first appearance.
    order : ndarray, shape (n,)
        Row positions, block by block, in row order within a block.
    sizes, starts : ndarray, one entry per block
        Number of rows, and where they start in ``order``.
    """

    numbers: NDArray[np.int64]
    order: NDArray[np.intp]
    sizes: NDArray[np.intp]
    starts: NDArray[np.intp]

    @classmethod
    def of(cls, terms: Sequence[Grouping], n: int | None = None) -> ConnectedBlocks:
        """The blocks of V where these factors connect rows; n rows, if there may be no factor."""
        numbers = connected_blocks(terms) if terms or n is None else np.arange(n)
        sizes = np.bincount(numbers)
        return cls(numbers, np.argsort(numbers, kind="stable"), sizes, np.cumsum(sizes) - sizes)

    def __len__(self) -> int:
        return len(self.sizes)

    def rows(self, block: int) -> NDArray[np.intp]:
        """Row positions of one block."""
        start = self.starts[block]
        return self.order[start : start + self.sizes[block]]

    def constant(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """For each block, whether values (n,) are the same in all its rows."""
        return np.asarray(self.smallest(values) == self.largest(values))

    def largest(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """For each block the largest of values (n,) in its rows."""
        return np.asarray(np.maximum.reduceat(values[self.order], self.starts))

    def smallest(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """For each block the smallest of values (n,) in its rows."""
        return np.asarray(np.minimum.reduceat(values[self.order], self.starts))


def check_nesting(terms: Sequence[Grouping], by: Grouping) -> None:
    """Raise ModelError unless every level of every term lies within one level of ``by``.

    Otherwise V is not block-diagonal by that factor; the message names rows that show it.
    """
    crossing = crossing_sentence(terms, by)
    if crossing is None:
        return
    raise ModelError(
        f"{crossing} To cut V at the levels all the same, V.block(level, by={by.group!r}) gives "
        f"one block and V.blocks(by={by.group!r}, partial=True) all of them, without the "
        "covariances between levels."
    )


def crossing_sentence(terms: Sequence[Grouping], by: Grouping) -> str | None:
    """How V connects rows of different levels of ``by``, with an example; None if it does not."""
    groups = list({term.group: term for term in terms}.values())
    crossing = [term for term in groups if not _is_nested(term, by)]
    if not crossing:
        return None
    involved = np.zeros(by.n_levels, dtype=bool)
    examples = []
    for term in crossing:
        pairs = np.unique(term.codes.astype(np.int64) * by.n_levels + by.codes)
        inner, outer = np.divmod(pairs, by.n_levels)
        shared = np.bincount(inner, minlength=term.n_levels)[inner] > 1
        involved[outer[shared]] = True
        # Pairs are sorted, so the first two that share have the same inner level.
        first, second = np.flatnonzero(shared)[:2]
        examples.append(
            f"rows of level {str(by.levels[outer[first]])!r} share level "
            f"{str(term.levels[inner[first]])!r} of {term.group!r} with rows of level "
            f"{str(by.levels[outer[second]])!r}"
        )
    outer_factors = outermost_factors(groups)
    by_factor = f" by {_quoted(outer_factors)}, and" if outer_factors else ""
    return (
        f"V is not block-diagonal by {by.group!r}: rows of {int(involved.sum()):,} of its "
        f"{by.n_levels:,} levels are correlated with rows of other levels; for example, "
        f"{examples[0]}. It is block-diagonal{by_factor} by its connected blocks, V.blocks()."
    )


def outermost_factors(terms: Sequence[Grouping]) -> list[str]:
    """Names of the grouping factors that all others lie within."""
    groups = {term.group: term for term in terms}
    return [
        name for name, outer in groups.items() if all(_is_nested(t, outer) for t in groups.values())
    ]


def _is_nested(inner: Grouping, outer: Grouping) -> bool:
    parent = np.zeros(inner.n_levels, dtype=outer.codes.dtype)
    parent[inner.codes] = outer.codes
    return bool((parent[inner.codes] == outer.codes).all())


def rows_of_levels(codes: NDArray[Any], n_levels: int) -> list[NDArray[np.intp]]:
    """Row positions of each level, in row order."""
    order = np.argsort(codes, kind="stable")
    counts = np.bincount(codes, minlength=n_levels)
    return np.split(order, np.cumsum(counts)[:-1])


def contiguous_spans(
    term: Grouping, codes: NDArray[np.int32], most: int = 40
) -> list[tuple[str, int, int]] | None:
    """(label, start, stop) of each level's rows, if the rows are sorted by level and levels few."""
    if term.n_levels > most:
        return None
    changes = np.flatnonzero(np.diff(codes)) + 1
    if len(changes) + 1 != term.n_levels:
        return None
    bounds = [0, *changes.tolist(), len(codes)]
    return [
        (str(term.levels[codes[start]]), start, stop) for start, stop in itertools.pairwise(bounds)
    ]


def find_factor(terms: Sequence[_Named], by: str) -> _Named:
    """The term whose grouping factor is called ``by``; ``"a:b"`` and ``"b:a"`` are the same."""
    by = plain(by)
    if isinstance(by, str):
        for term in terms:
            if by in (term.group, getattr(term, "label", None)):
                return term
        for term in terms:
            if sorted(by.split(":")) == sorted(term.variables):
                return term
    names = list(dict.fromkeys(term.group for term in terms))
    raise ModelError(f"There is no grouping factor {by!r:.60}; the model has {_quoted(names)}.")


def find_level(term: Factor, level: Any) -> int:
    """Position of a level given by its label, its value, or its values as a tuple.

    Raises
    ------
    ModelError
        If there is none, or several are written so.
    """
    found = matching_levels(term, level)
    if len(found) == 1:
        return found[0]
    if found:
        spellings = term.levels if isinstance(level, tuple) else term.level_values
        how = "as one string" if isinstance(level, tuple) else "as such a tuple"
        raise ModelError(
            f"The level {level!r} of {term.group!r} is ambiguous: "
            f"{', '.join(repr(spellings[i]) for i in found[:4])} exist. Give it {how}."
        )
    labels = [str(label) for label in term.levels]
    written = ":".join(map(str, level)) if isinstance(level, tuple) else str(level)
    near = difflib.get_close_matches(written, labels, n=3, cutoff=0.5)
    hint = f"the nearest are {_quoted(near)}" if near else f"for example {_quoted(labels[:3])}"
    raise ModelError(
        f"There is no level {level!r} among the {len(labels)} levels of {term.group!r}; {hint}."
    )


def matching_levels(term: Factor, level: Any) -> list[int]:
    """Positions of all levels that a label, a value, or a tuple of values can mean.

    The values of an interaction may come in the order of the name (``"tch:sch"``) or of the
    nesting (``sch/tch``).
    """
    if isinstance(level, str):
        exact = np.flatnonzero(np.asarray(term.levels == level))
        if len(exact):
            return [int(i) for i in exact]
    values = term.level_values
    if not isinstance(values, pd.MultiIndex):
        alone = isinstance(level, tuple) and len(level) == 1
        return _written(_spellings(values), level[0] if alone else level)
    parts = [_spellings(values.get_level_values(j)) for j in range(values.nlevels)]
    if isinstance(level, tuple):
        if len(level) != len(parts):
            return []
        found: set[int] = set()
        for order in (level, level[::-1]):
            own = [set(_written(part, value)) for part, value in zip(parts, order, strict=True)]
            found |= set.intersection(*own)
        return sorted(found)
    if not isinstance(level, str):
        return []
    joined = [
        {":".join(way) for way in zip(*each, strict=True)} for each in zip(*parts, strict=True)
    ]
    return [i for i, ways in enumerate(joined) if level in ways]


def _spellings(values: pd.Index[Any]) -> list[tuple[str, str]]:
    """The label of each value, and the value as Python writes it: ``TRUE`` and ``True``."""
    return list(zip(labels_of(values), map(str, values.tolist()), strict=True))


def _written(spellings: list[tuple[str, str]], value: Any) -> list[int]:
    """Where a value stands: text as it is labelled, or else written; others in either way."""
    (label,) = labels_of([value])
    found = [i for i, (own, _) in enumerate(spellings) if own == label]
    if found and isinstance(value, str):
        return found
    return sorted({*found, *(i for i, (_, text) in enumerate(spellings) if text == str(value))})


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(repr(str(name)) for name in names)
