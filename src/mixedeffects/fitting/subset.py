"""A model's design without some of its rows: the terms recoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.frame.model_frame import RandomTerm

__all__ = ["terms_of_rows"]


def terms_of_rows(terms: Sequence[RandomTerm], rows: NDArray[Any]) -> list[RandomTerm]:
    """The terms of some rows, with the levels that occur there.

    Parameters
    ----------
    terms : sequence of RandomTerm
        Terms of all rows.
    rows : ndarray of int
        Row positions to keep.
    """
    out: list[RandomTerm] = []
    done: dict[str, RandomTerm] = {}
    for term in terms:
        # Terms on one grouping factor share their codes.
        like = done.get(term.group)
        if like is None:
            kept = term.codes[rows]
            present = np.zeros(term.n_levels, dtype=bool)
            present[kept] = True
            number = (np.cumsum(present) - 1).astype(np.int32)
            levels, values, codes = term.levels[present], term.level_values[present], number[kept]
        else:
            levels, values, codes = like.levels, like.level_values, like.codes
        z = np.ascontiguousarray(term.z[rows])
        out.append(replace(term, codes=codes, levels=levels, level_values=values, z=z))
        done[term.group] = out[-1]
    return out
