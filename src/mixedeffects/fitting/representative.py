"""A fit whose rows stayed in a table, with few rows in place of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.fitting.fit import Fit, once_per_fit
from mixedeffects.frame.grouping import level_codes
from mixedeffects.frame.model_frame import Dropped, ModelFrame, RandomTerm
from mixedeffects.lazy.cells import CellRows, cell_rows

__all__ = ["RepresentativeFrame", "with_all_rows", "with_rows"]

Matrix = NDArray[np.float64]


class RepresentativeFrame(ModelFrame):
    """Rows that stand for more: see `cell_rows`."""

    @property
    def nobs(self) -> int:
        """Number of rows that were used, n; here there are fewer."""
        return int(self.__dict__["n_rows_used"])

    @property
    def rows_behind(self) -> int:
        """How many rows the last one stands for, having no part in any column."""
        return int(self.__dict__.get("n_rows_behind", 0))


def with_rows(fit: Fit, columns: Sequence[str] = (), *, by_weight: bool = False) -> Fit:
    """The fit itself; or where its rows stayed in a table, the same with rows that stand for them.

    These have the products of all columns of the design within the levels of the grouping factors
    and of some further columns, and nothing else: not the single responses.

    Parameters
    ----------
    fit : Fit
        A fit.
    columns : sequence of str
        Further columns of the table, such as clusters.
    by_weight : bool
        See `cell_rows`.
    """
    if fit.rows is None:
        return fit
    own = set(fit.rows.model.key_names)
    wanted = by_weight and fit.rows.model.weights is not None
    return representative(fit, tuple(sorted({*columns} - own)), wanted)


@once_per_fit("rows that stand for all")
def representative(fit: Fit, columns: tuple[str, ...], by_weight: bool) -> Fit:
    """The fit with rows in place of those that stayed in their table."""
    rows = fit.rows
    assert rows is not None
    model = rows.model
    cells = cell_rows(model, columns, rows.guard, by_weight=by_weight)
    n = len(cells.columns)
    scale, centre = model.moments.scale, model.moments.centre
    # The first column is one in every row, times the root of the weight.
    one = cells.columns[:, 0]

    def of(at: Sequence[int]) -> Matrix:
        places = list(at)
        return np.asarray(cells.columns[:, places] * scale[places] + one[:, None] * centre[places])

    y = of([rows.columns.response])[:, 0]
    terms = tuple(
        RandomTerm(
            codes=level_codes(term, cells.keys),
            z=np.ascontiguousarray(of(columns_of.columns)),
            **_labels(term),
        )
        for term, columns_of in zip(fit.frame.terms, rows.columns.terms, strict=True)
    )
    frame = object.__new__(RepresentativeFrame)
    known = {
        name: value for name, value in fit.frame.__dict__.items() if name not in ("of_engine",)
    }
    frame.__dict__.update(
        known,
        y=y,
        X=np.asfortranarray(of(rows.columns.fixed)),
        terms=terms,
        # Where they are in the columns they are one, which is not to say that there are none: the
        # blocks have them relative to their mean.
        weights=np.ones(n)
        if model.weights is not None and cells.weights is None
        else cells.weights,
        offset=None,
        index=pd.RangeIndex(n),
        positions=np.arange(n),
        dropped=Dropped(rows=pd.RangeIndex(0)),
        data=cells.keys,
        n_rows_used=fit.nobs,
    )
    request = dataclasses.replace(fit.request, data=cells.keys, weights=None, offset=None)
    return dataclasses.replace(fit, frame=frame, request=request, rows=None)


def with_all_rows(fit: Fit) -> Fit:
    """The fit itself; or where its rows stayed in a table, with rows for responses drawn anew.

    Errors of the model have a part in what no column of the design reaches: a sum of squares of so
    many degrees of freedom as rows are missing. A last row of zeros is there to have it.
    """
    if fit.rows is None:
        return fit
    few = with_rows(fit)
    frame = few.frame
    n = len(frame.y)
    behind = fit.nobs - n
    if behind == 0:
        return few
    more = object.__new__(RepresentativeFrame)
    more.__dict__.update(
        frame.__dict__,
        y=np.append(frame.y, 0.0),
        X=np.asfortranarray(np.vstack([frame.X, np.zeros((1, frame.X.shape[1]))])),
        terms=tuple(
            dataclasses.replace(
                term,
                codes=np.append(term.codes, np.int32(0)),
                z=np.vstack([term.z, np.zeros((1, term.n_columns))]),
            )
            for term in frame.terms
        ),
        weights=None if frame.weights is None else np.append(frame.weights, 1.0),
        index=pd.RangeIndex(n + 1),
        positions=np.arange(n + 1),
        data=pd.concat([frame.data, frame.data.iloc[:1]], ignore_index=True),
        n_rows_behind=behind,
    )
    return dataclasses.replace(few, frame=more)


def _weights(cells: CellRows, weighted: bool) -> Matrix | None:
    """Weights of the rows: one where the columns have them, of which the blocks know the mean."""
    if weighted and cells.weights is None:
        return np.ones(len(cells.columns))
    return cells.weights


def _labels(term: RandomTerm) -> dict[str, Any]:
    names = (
        "label",
        "group",
        "variables",
        "columns",
        "levels",
        "level_values",
        "structure",
        "homogeneous",
    )
    return {name: getattr(term, name) for name in names}
