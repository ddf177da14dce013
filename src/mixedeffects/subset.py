"""A model's design without some of its rows: the terms recoded, V of the rows that are left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.assembly import assemble
from mixedeffects.covariance.marginal import MarginalCovariance, factorise
from mixedeffects.frame.model_frame import RandomTerm

__all__ = ["covariance_of", "terms_of_rows"]

Matrix = NDArray[np.float64]


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


def covariance_of(
    terms: Sequence[RandomTerm], T: Sequence[Matrix], sigma: float, weights: Matrix | None
) -> MarginalCovariance:
    """V of these rows at relative covariance factors T, one per term, and sigma.

    Raises
    ------
    ModelError
        If it is not numerically positive definite or does not fit into memory.
    """
    n = len(terms[0].codes)
    # V depends on neither y nor X, so the engine gets none.
    A = assemble(np.zeros(n), np.zeros((n, 0)), terms, weights)
    factorisation = factorise(A, [A.basis.engine_factor(t, factor) for t, factor in enumerate(T)])
    blocks = [sigma**2 * (factor @ factor.T) for factor in T]
    return MarginalCovariance(terms, blocks, sigma, weights, factorisation, pd.RangeIndex(n))
