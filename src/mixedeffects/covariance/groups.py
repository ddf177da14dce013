"""Rows that belong together: the levels of a factor, and the connected blocks of V."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from mixedeffects.errors import ModelError
from mixedeffects.frame.model_frame import RandomTerm

__all__ = ["connected_blocks", "contiguous_spans", "find_factor", "find_level", "rows_of_levels"]


def connected_blocks(terms: Sequence[RandomTerm]) -> NDArray[np.int64]:
    """Number of the connected block of V each row belongs to, in order of first appearance.

    Two rows are connected if they share a level of any factor, directly or through other rows.
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


def rows_of_levels(codes: NDArray[Any], n_levels: int) -> list[NDArray[np.intp]]:
    """Row positions of each level, in row order."""
    order = np.argsort(codes, kind="stable")
    counts = np.bincount(codes, minlength=n_levels)
    return np.split(order, np.cumsum(counts)[:-1])


def contiguous_spans(
    term: RandomTerm, codes: NDArray[np.int32], most: int = 40
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


def find_factor(terms: Sequence[RandomTerm], by: str) -> RandomTerm:
    """The term whose grouping factor is called ``by``; ``"a:b"`` and ``"b:a"`` are the same."""
    for term in terms:
        if by in (term.group, term.label):
            return term
    for term in terms:
        if sorted(by.split(":")) == sorted(term.variables):
            return term
    names = list(dict.fromkeys(term.group for term in terms))
    raise ModelError(f"There is no grouping factor {by!r}; the model has {_quoted(names)}.")


def find_level(term: RandomTerm, level: Any) -> int:
    """Position of a level given by its label, its value, or its values as a tuple.

    The values of an interaction may come in the order of the name (``"tch:sch"``) or of the
    nesting (``sch/tch``).
    """
    labels = term.levels
    candidates: list[str] = []
    if isinstance(level, tuple):
        parts = [_label(part) for part in level]
        candidates = [":".join(parts), ":".join(reversed(parts))]
    else:
        candidates = [_label(level)]
    found = {candidate for candidate in candidates if candidate in labels}
    if len(found) == 1:
        return int(np.flatnonzero(labels == found.pop())[0])
    if len(found) > 1:
        raise ModelError(
            f"The level {level!r} of {term.group!r} is ambiguous: both {_quoted(sorted(found))} "
            "exist. Give the label as one string."
        )
    near = difflib.get_close_matches(candidates[0], [str(x) for x in labels], n=3, cutoff=0.5)
    hint = (
        f"the nearest are {_quoted(near)}" if near else f"for example {_quoted(list(labels[:3]))}"
    )
    raise ModelError(
        f"There is no level {level!r} among the {len(labels)} levels of {term.group!r}; {hint}."
    )


def _label(value: Any) -> str:
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(repr(str(name)) for name in names)
