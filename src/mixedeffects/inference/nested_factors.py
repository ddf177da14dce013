"""Factors of the fixed part that are nested in others: strains in genotypes, doses in drugs.

Their grid has cells that cannot exist. Averages leave these out: over a nested factor, those of its
levels count that occur with the levels of the factors that contain it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mixedeffects.formula.syntax import variable_names
from mixedeffects.inference.reference_grid import ReferenceGrid

__all__ = ["Nesting", "find_nesting", "nested_weights", "with_containing"]

Matrix = NDArray[np.float64]

#: Of each nested factor the factors that contain it.
Nesting = dict[str, tuple[str, ...]]


def find_nesting(grid: ReferenceGrid) -> Nesting:
    """Which factors are nested in which, by the rule of R's emmeans.

    A factor is nested in another if each of its levels occurs in the data with one level of the
    other only, and where the formula says so: in ``a / b``, that is ``a + a:b``, b has no effect of
    its own, so that its levels mean something else in each a.

    Parameters
    ----------
    grid : ReferenceGrid
        The axes, the rows in each cell, and the terms of the formula.
    """
    axes = [v.name for v in grid.variables if v.counted and len(v.points) > 1]
    found: dict[str, list[str]] = {}
    if len(axes) < 2:
        return {}
    counts = grid.counts()
    for name in axes:
        contained = [other for other, outer in found.items() if name in outer]
        others = [other for other in axes if other != name and other not in contained]
        within = [other for other in others if _occurs_once(counts, grid, name, other)]
        if within:
            found[name] = within
    for name, outer in _by_formula(grid, axes).items():
        found[name] = list(dict.fromkeys([*found.get(name, []), *outer]))
    for name, outer in found.items():
        above = [each for other in outer for each in found.get(other, [])]
        found[name] = list(dict.fromkeys([*above, *outer]))
    return {name: tuple(outer) for name, outer in found.items() if name not in outer}


def _occurs_once(counts: Matrix, grid: ReferenceGrid, name: str, other: str) -> bool:
    pair = [grid.names.index(name), grid.names.index(other)]
    rest = tuple(axis for axis in range(counts.ndim) if axis not in pair)
    together = counts.sum(axis=rest) > 0.0
    if pair[0] > pair[1]:
        together = together.T
    return int(together.sum(axis=1).max()) == 1


def _by_formula(grid: ReferenceGrid, axes: Sequence[str]) -> dict[str, list[str]]:
    """Factors without an effect of their own, and those in whose levels they have one."""
    coders = grid.encoder.coders
    terms = [frozenset(term) for term in grid.encoder.table.terms]
    of_axis = {
        name: frozenset(i for i, c in enumerate(coders) if name in variable_names(c.tree))
        for name in axes
    }

    def is_margin_of(term: frozenset[int], name: str) -> bool:
        return (term - of_axis[name]) in terms

    nested = {}
    for name in axes:
        if any(term <= of_axis[name] for term in terms if term):
            continue
        having = [term for term in terms if term & of_axis[name]]
        having = [term for term in having if is_margin_of(term, name)] or having
        outer = [
            {o for o in axes if o != name and term & of_axis[o] and not is_margin_of(term, o)}
            for term in having
        ]
        least = [own for own in outer if own and not any(other < own for other in outer if other)]
        if least:
            nested[name] = [o for o in axes if any(o in own for own in least)]
    return nested


def with_containing(names: Sequence[str], nesting: Nesting, there: Sequence[str]) -> list[str]:
    """The names, and after them the factors that contain them and are not there yet."""
    more = [outer for name in names for outer in nesting.get(name, ()) if outer not in there]
    return list(dict.fromkeys([*names, *more]))


def nested_weights(
    counts: Matrix, names: Sequence[str], kept: Sequence[str], nesting: Mapping[str, Sequence[str]]
) -> tuple[Matrix, NDArray[np.bool_]]:
    """Weights with which cells count in averages, and the cells whose means exist.

    Nested factors are averaged one after the other, those with most factors around them first, of
    several the last: the levels that occur with the levels of the containing factors, and of nested
    ones that are still to come, have equal weights.

    Parameters
    ----------
    counts : ndarray, shape of the grid
        Rows in each cell.
    names : sequence of str
        The axes.
    kept : sequence of str
        Those that the means belong to.
    nesting : mapping of str to sequence of str
        As `find_nesting` has it.

    Returns
    -------
    weights, exists : ndarray, shape of the grid
    """

    def occurs(some: Sequence[str]) -> NDArray[np.bool_]:
        rest = tuple(axis for axis, name in enumerate(names) if name not in some)
        return np.asarray(counts.sum(axis=rest, keepdims=True) > 0.0)

    weights = np.ones(counts.shape)
    averaged = [name for name in nesting if name not in kept]
    averaged = sorted(averaged, key=lambda name: len(nesting[name]))[::-1]
    for i, name in enumerate(averaged):
        there = occurs([name, *nesting[name], *averaged[i + 1 :]])
        number = there.sum(axis=list(names).index(name), keepdims=True)
        weights = weights * there / np.maximum(number, 1)
    inside = [name for name in nesting if name in kept]
    of_kept = [*inside, *(outer for name in inside for outer in nesting[name])]
    exists = np.broadcast_to(occurs(of_kept) if inside else np.True_, counts.shape)
    return weights, exists
