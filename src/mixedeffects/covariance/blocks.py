"""V block by block: by the levels of a factor, or by its connected blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.options import checked_flag
from mixedeffects.covariance.entries import small_blocks
from mixedeffects.covariance.groups import check_nesting, find_factor, rows_of_levels
from mixedeffects.covariance.structure import CovarianceStructure

__all__ = ["iterate_blocks"]

Matrix = NDArray[np.float64]


def iterate_blocks(
    V: CovarianceStructure, by: str | None, partial: bool
) -> Iterator[tuple[Any, NDArray[np.intp], Matrix]]:
    """Level, row positions and block; see `MarginalCovariance.blocks`."""
    levels: Sequence[Any]
    partial = checked_flag(partial, "partial")
    if by is None:
        levels = range(len(V.connected))
        rows_of = [V.connected.rows(number) for number in levels]
    else:
        term = find_factor(V.factors, by)
        if not partial:
            check_nesting(V.groupings, term)
        levels = list(term.levels)
        rows_of = rows_of_levels(term.codes, term.n_levels)
    return (
        (level, rows, small_blocks(V, rows)) for level, rows in zip(levels, rows_of, strict=True)
    )
