"""Which part of the remainder is sparse enough to be eliminated in fronts, and in which order.

The *nodes* of the remainder are the levels of its factors; two are neighbours if a level of the
chain (or a row) has both. Eliminating a node joins its neighbours to each other, so the order
decides how much is joined: an approximate minimum-degree order keeps it small, until what is left
is so dense that one dense block is cheaper. Columns with (nearly) the same neighbours make up a
*front* and are eliminated together. The cut is where the predicted time is least: with none to
gain, everything stays dense.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixedeffects import _kernels
from mixedeffects.base.caching import cached_property
from mixedeffects.engine.memory import check_memory, entries_that_fit

__all__ = ["Fronts", "Layout", "dense_layout", "plan_layout", "with_border"]

Codes = NDArray[np.int32]
Offsets = NDArray[np.int64]

#: Columns up to which one dense block is always good enough.
DENSE_BELOW = 600
#: Share of all pairs of nodes that may be neighbours for an order to be looked for at all.
DENSEST = 0.3
#: Measured seconds: per front; per squared entry of a column in a wide front, and in a front of one
#: column; per cubed row of the dense core (Cholesky factor and inverse).
COSTS = (1e-6, 1.5e-10, 1e-9, 3e-11)


@dataclass(frozen=True, eq=False)
class Fronts:
    """Fronts in elimination order; all positions are columns of the remainder ``[Z_rest X y]``.

    Attributes
    ----------
    first : ndarray (f + 1,)
        First column of each front; the last entry is where the dense core begins.
    ptr, below : ndarrays (f + 1,), (ptr[-1],)
        ``below[ptr[i]:ptr[i+1]]``: the columns beyond its own that front i touches, sorted.
    node_first, node_factor : ndarrays (nodes,)
        First column of each node eliminated in a front, and its factor's number in the rest.
    front_node : ndarray (f + 1,)
        First node of each front.
    """

    first: Offsets
    ptr: Offsets
    below: Offsets
    node_first: Offsets
    node_factor: Offsets
    front_node: Offsets

    @property
    def columns(self) -> int:
        """Columns eliminated in fronts, so the first of the core."""
        return int(self.first[-1])

    @cached_property
    def at(self) -> Offsets:
        """Where the block of each front, s x (s + m) column-major, starts."""
        width, rows = np.diff(self.first), np.diff(self.ptr)
        return np.concatenate([[0], np.cumsum(width * (width + rows))])

    @property
    def size(self) -> int:
        """Entries of all blocks."""
        return int(self.at[-1])

    @cached_property
    def arrays(self) -> list[Offsets]:
        """What the kernels need to know, in their order."""
        front_of = np.repeat(np.arange(len(self.first) - 1), np.diff(self.first))
        return [
            self.first,
            self.ptr,
            self.at,
            self.below,
            front_of,
            self.front_node,
            self.node_first,
            self.node_factor,
        ]


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the columns of the remainder's factors stand.

    Attributes
    ----------
    first : tuple of ndarray (l,)
        For each factor the first column of each level.
    core_levels, core_offsets : tuples of ndarray, of int
        For each factor its levels in the dense core, and the core's column where they begin.
    r : int
        Random-effects columns.
    fronts : Fronts or None
        What is eliminated sparsely; None if everything is in the core.
    """

    first: tuple[Codes, ...]
    core_levels: tuple[NDArray[np.intp], ...]
    core_offsets: tuple[int, ...]
    r: int
    fronts: Fronts | None

    @property
    def core(self) -> int:
        """First column of the core."""
        return 0 if self.fronts is None else self.fronts.columns


def with_border(layout: Layout, n_border: int) -> Layout:
    """The same layout with another number of columns ``[X y]``."""
    fronts = layout.fronts
    if fronts is None:
        return layout
    random = fronts.below < layout.r
    of_front = np.repeat(np.arange(len(fronts.ptr) - 1), np.diff(fronts.ptr))
    counts = np.bincount(of_front[random], minlength=len(fronts.ptr) - 1)
    ptr = np.concatenate([[0], np.cumsum(counts + n_border)])
    ends = ptr[1:, None] - n_border + np.arange(n_border)
    below = np.empty(int(ptr[-1]), dtype=np.int64)
    is_random = np.ones(len(below), dtype=bool)
    is_random[ends] = False
    below[ends] = layout.r + np.arange(n_border)
    below[is_random] = fronts.below[random]
    return replace(layout, fronts=replace(fronts, ptr=ptr, below=below))


def dense_layout(levels: Sequence[int], columns: Sequence[int]) -> Layout:
    """Everything in the core, factor after factor."""
    sizes = [n * k for n, k in zip(levels, columns, strict=True)]
    offsets = np.cumsum([0, *sizes]).tolist()
    r = offsets.pop()
    return Layout(
        tuple(
            (offset + k * np.arange(n)).astype(np.int32)
            for offset, n, k in zip(offsets, levels, columns, strict=True)
        ),
        tuple(np.arange(n) for n in levels),
        tuple(offsets),
        r,
        None,
    )


def plan_layout(
    levels: Sequence[int],
    columns: Sequence[int],
    ptr: Offsets,
    ind: Codes,
    n_border: int,
) -> Layout:
    """Order the remainder's nodes and decide which are eliminated in fronts.

    Parameters
    ----------
    levels, columns : sequences of int
        Number of levels l and of columns k of each factor of the remainder.
    ptr, ind : ndarrays
        ``ind[ptr[i]:ptr[i+1]]`` are nodes that occur together, numbered factor after factor.
    n_border : int
        Columns ``[X y]`` that every front touches.

    Raises
    ------
    RemainderTooLargeError
        If neither way fits into memory.
    """
    dense = dense_layout(levels, columns)
    n_nodes = sum(levels)
    most = min(int(DENSEST * float(n_nodes) ** 2), 2**31 - 1)
    graph_ptr, graph_ind = _kernels.clique_graph(ptr, ind, n_nodes, most)
    cut = 0
    if len(graph_ptr):
        sizes = np.repeat(np.asarray(columns, dtype=np.int64), levels)
        order, front_first, below_ptr, below, entries = _kernels.elimination_plan(
            graph_ptr, graph_ind, sizes, np.asarray(COSTS), entries_that_fit()
        )
        cut = int(front_first[-1])
    if cut == 0:
        check_memory(dense.r + n_border, 0.0, range(len(levels)))
        return dense
    # The core is dense, so its nodes may stand factor after factor.
    order = order.astype(np.int64)
    factor = np.repeat(np.arange(len(levels)), levels)
    check_memory(
        int(sizes[order[cut:]].sum()) + n_border, entries, np.unique(factor[order[cut:]]).tolist()
    )
    old_position = np.empty(n_nodes, dtype=np.int64)
    old_position[order] = np.arange(n_nodes)
    order[cut:] = np.sort(order[cut:])
    position = np.empty(n_nodes, dtype=np.int64)
    position[order] = np.arange(n_nodes)
    moved = np.empty(n_nodes, dtype=np.int64)
    moved[old_position] = position
    start = np.concatenate([[0], np.cumsum(sizes[order])])
    ptr_columns, below_columns = _expand(
        below_ptr, moved[below], start, sizes[order], dense.r, n_border
    )
    fronts = Fronts(
        start[front_first],
        ptr_columns,
        below_columns,
        start[:cut].copy(),
        factor[order[:cut]],
        front_first.astype(np.int64),
    )
    first, core_levels, core_offsets, node = [], [], [], 0
    for n in levels:
        own = position[node : node + n]
        first.append(start[own].astype(np.int32))
        in_core = np.flatnonzero(own >= cut)
        core_levels.append(in_core)
        at = start[own[in_core[0]]] if len(in_core) else start[cut]
        core_offsets.append(int(at - start[cut]))
        node += n
    return Layout(tuple(first), tuple(core_levels), tuple(core_offsets), dense.r, fronts)


def _expand(
    ptr: Offsets, nodes: Offsets, start: Offsets, sizes: Offsets, r: int, n_border: int
) -> tuple[Offsets, Offsets]:
    """From the nodes below each front to columns, the border added; sorted within a front."""
    n_fronts = len(ptr) - 1
    front = np.repeat(np.arange(n_fronts), np.diff(ptr))
    width = sizes[nodes]
    ends = np.cumsum(width)
    within = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - width, width)
    columns = np.concatenate(
        [np.repeat(start[nodes], width) + within, np.tile(np.arange(r, r + n_border), n_fronts)]
    )
    owner = np.concatenate([np.repeat(front, width), np.repeat(np.arange(n_fronts), n_border)])
    order = np.lexsort((columns, owner))
    counts = np.bincount(owner, minlength=n_fronts)
    return np.concatenate([[0], np.cumsum(counts)]), columns[order]
