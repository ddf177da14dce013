"""Quantiles of an expression by counting, exact, in any engine that groups.

Engines without exact quantiles can count; and those with them would hold all values at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.lazy.expressions import Expr
from mixedeffects.lazy.table import LazyTable

__all__ = ["quantiles_by_counting"]

Matrix = NDArray[np.float64]

_BINS = 4096
#: Values of one bin that are brought into memory.
_FEW = 100_000


def quantiles_by_counting(
    table: LazyTable, frame: Any, value: Expr, shares: Sequence[float]
) -> Matrix:
    """Quantiles with straight lines between neighbours, as numpy's.

    Parameters
    ----------
    table : LazyTable
        Whose engine counts.
    frame : narwhals.LazyFrame
        Rows of it, all with a value.
    value : expression
        The value.
    shares : sequence of float
        From 0 to 1.

    Returns
    -------
    ndarray, one for each share
    """
    import narwhals as nw

    values = frame.select(value.alias("v"))
    v = nw.col("v")
    found = table.run(
        values.select(nw.len().alias("n"), v.min().alias("low"), v.max().alias("high")),
        "range of the residuals",
    ).iloc[0]
    n, low, high = int(found["n"]), float(found["low"]), float(found["high"])
    places = [(n - 1) * share for share in shares]
    ranks = sorted({int(np.floor(p)) for p in places} | {int(np.ceil(p)) for p in places})
    known = {0: low, n - 1: high}
    if high == low:
        known |= dict.fromkeys(ranks, low)
    known |= _ranked(table, values, [r for r in ranks if r not in known], (low, high, 0))
    below = np.array([known[int(np.floor(p))] for p in places])
    above = np.array([known[int(np.ceil(p))] for p in places])
    return np.asarray(below + (above - below) * (np.array(places) - np.floor(places)))


def _ranked(
    table: LazyTable,
    values: Any,
    ranks: Sequence[int],
    within: tuple[float, float, int],
) -> dict[int, float]:
    """Values of these ranks, all of them in an interval with so many values before it."""
    import narwhals as nw

    if not ranks:
        return {}
    low, high, before = within
    v = nw.col("v")
    width = (high - low) / _BINS
    place = ((v - low) / width).floor()
    place = nw.when(place >= _BINS - 1.0).then(_BINS - 1.0).otherwise(place)
    binned = values.with_columns(place.alias("bin"))
    bin_of = nw.col("bin")
    counted = table.run(
        binned.group_by("bin").agg(
            nw.len().alias("n"), v.min().alias("least"), v.max().alias("most")
        ),
        "counts of the residuals",
    ).sort_values("bin")
    counts = counted["n"].to_numpy(dtype=np.int64)
    starts = before + np.concatenate([[0], np.cumsum(counts)[:-1]])
    which = np.searchsorted(starts, ranks, side="right") - 1
    out: dict[int, float] = {}
    wanted: list[int] = []
    for b in sorted(set(which.tolist())):
        own = [r for r, w in zip(ranks, which, strict=True) if w == b]
        least, most = float(counted["least"].iloc[b]), float(counted["most"].iloc[b])
        if least == most:
            out |= dict.fromkeys(own, least)
        elif counts[b] <= _FEW:
            wanted.append(b)
        else:
            inside = binned.filter(bin_of == float(counted["bin"].iloc[b])).select("v")
            out |= _ranked(table, inside, own, (least, most, int(starts[b])))
    if wanted:
        numbers = [float(counted["bin"].iloc[b]) for b in wanted]
        few = table.run(binned.filter(bin_of.is_in(numbers)), "residuals near the quartiles")
        for b, number in zip(wanted, numbers, strict=True):
            ordered = np.sort(few["v"].to_numpy(dtype=np.float64)[few["bin"].to_numpy() == number])
            for r, w in zip(ranks, which, strict=True):
                if w == b:
                    out[r] = float(ordered[r - int(starts[b])])
    return out
