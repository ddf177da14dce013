"""A model's design without some of its rows: terms and residual groups recoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.errors import ModelError
from mixedeffects.fitting.residual_assembly import deviation_columns
from mixedeffects.frame.model_frame import RandomTerm
from mixedeffects.frame.rank import independent_columns
from mixedeffects.frame.residual_term import ResidualTerm, VarianceTerm

__all__ = ["residuals_of_rows", "terms_of_rows"]


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


def residuals_of_rows(
    term: ResidualTerm | None, variance: VarianceTerm | None, rows: NDArray[Any]
) -> tuple[ResidualTerm | None, VarianceTerm | None]:
    """The structure of the residuals of some rows: the same parameters, from fewer groups.

    Parameters
    ----------
    term, variance
        Of all rows.
    rows : ndarray of int
        Row positions to keep.

    Raises
    ------
    ModelError
        If the rows kept do not determine the parameters.
    """
    rank = _rank_of_deviations(term, variance)
    if variance is not None:
        variance = replace(variance, v=np.ascontiguousarray(variance.v[rows]))
    if term is not None:
        term = _term_of_rows(term, rows)
    # A time that no row has, kept as a step, has no standard deviation anyway.
    if _rank_of_deviations(term, variance) < rank:
        raise ModelError("the other rows do not determine all standard deviations of residuals")
    return term, variance


def _rank_of_deviations(term: ResidualTerm | None, variance: VarianceTerm | None) -> int:
    """How many standard deviations the rows determine, and coefficients of their logarithms."""
    parts = [] if term is None else [deviation_columns(term)]
    parts += [] if variance is None else [variance.v]
    if not parts:
        return 1
    columns = np.hstack([np.ones((len(parts[0]), 1)), *parts])
    return len(independent_columns(columns))


def _term_of_rows(term: ResidualTerm, rows: NDArray[Any]) -> ResidualTerm:
    kept = term.codes[rows]
    present = np.zeros(term.n_levels, dtype=bool)
    present[kept] = True
    codes = (np.cumsum(present) - 1).astype(np.int32)[kept]

    def taken(values: NDArray[Any] | None) -> Any:
        return None if values is None else values[rows]

    out = replace(
        term,
        codes=codes,
        levels=term.levels[present],
        level_values=term.level_values[present],
        steps=taken(term.steps),
        coordinates=taken(term.coordinates),
        stratum=taken(term.stratum),
    )
    if out.given is not None:
        # Positions are rows of the matrix.
        at = np.arange(len(rows), dtype=np.float64)[:, None]
        out = replace(out, given=out.given[rows][:, rows], coordinates=at)
    stratum = np.zeros(len(rows), dtype=np.intp) if out.stratum is None else out.stratum
    in_company = np.bincount(codes)[codes] > 1
    if out.kind not in ("diag", "known") and len(np.unique(stratum[in_company])) < out.n_strata:
        raise ModelError(f"no `{out.group}` of the other rows has two rows for a correlation")
    if out.kind == "us" and out.steps is not None:
        for s in range(out.n_strata):
            own = stratum == s
            seen = np.zeros((out.n_levels, out.n_times))
            seen[codes[own], out.steps[own]] = 1.0
            if (seen.T @ seen == 0.0).any():
                raise ModelError("two times never occur together in the other rows")
    return out
