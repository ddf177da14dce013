"""A model without some of its rows: columns as they were, terms and residual groups recoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.errors import ModelError
from mixedeffects.fitting.residual_assembly import deviation_columns
from mixedeffects.frame.model_frame import ModelFrame, RandomTerm
from mixedeffects.frame.rank import independent_columns
from mixedeffects.frame.residual_term import ResidualTerm, VarianceTerm

__all__ = ["fixed_columns_of_rows", "frame_of_rows", "residuals_of_rows", "terms_of_rows"]

Matrix = NDArray[np.float64]


def frame_of_rows(frame: ModelFrame, rows: NDArray[np.intp]) -> ModelFrame:
    """The frame of some rows, with the levels that occur there; its residuals are left as they are.

    The columns of X and Z stay what they are: bases that depend on the data (a spline's knots, the
    mean in ``scale(x)``) are not computed again, so the coefficients keep their meaning.

    Parameters
    ----------
    frame : ModelFrame
        Of all rows.
    rows : ndarray of int
        Row positions to keep.

    Raises
    ------
    ModelError
        If the fixed effects are not identified from these rows.
    """
    return replace(
        frame,
        y=frame.y[rows],
        X=fixed_columns_of_rows(frame, rows),
        terms=tuple(terms_of_rows(frame.terms, rows)),
        response=None if frame.response is None else frame.response.take(rows),
        weights=None if frame.weights is None else frame.weights[rows],
        offset=None if frame.offset is None else frame.offset[rows],
        index=frame.index[rows],
        positions=frame.positions[rows],
        data=frame.data.iloc[rows],
        **frame.further_fields(rows),
    )


def fixed_columns_of_rows(frame: ModelFrame, rows: NDArray[np.intp]) -> Matrix:
    """X of some rows, shape (rows, p), column by column.

    Raises
    ------
    ModelError
        If its columns are not independent there.
    """
    X = np.asfortranarray(frame.X[rows])
    kept = set(independent_columns(X).tolist())
    lost = [repr(name) for i, name in enumerate(frame.fixef_names) if i not in kept]
    if lost:
        raise ModelError(
            "the fixed effects cannot all be estimated from the other rows: "
            f"{', '.join(lost)} cannot"
        )
    return X


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
        of_rows = term.of_rows(rows)
        out.append(replace(term, codes=codes, levels=levels, level_values=values, **of_rows))
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
