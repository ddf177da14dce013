"""A fit whose rows stayed in a table, with few rows in place of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.engine.grouped_sums import SumColumns
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit, once_per_fit
from mixedeffects.frame.encode import DesignEncoder
from mixedeffects.frame.grouping import level_codes
from mixedeffects.frame.model_frame import Dropped, ModelFrame, RandomTerm
from mixedeffects.lazy.cells import CellRows, cell_rows
from mixedeffects.lazy.model import LazyModel

__all__ = [
    "RepresentativeFrame",
    "RepresentativeTerm",
    "with_all_rows",
    "with_cells",
    "with_rows",
]

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RepresentativeFrame(ModelFrame):
    """Rows that stand for more: see `cell_rows`.

    Attributes
    ----------
    design : LazyModel, optional
        Whose columns they have.
    columns : ndarray, shape (m, M)
        All columns of the design, less centre and by scale, times the root of the weight.
    counts : ndarray, shape (m,)
        How many rows each stands for: the first of a cell for all of it.
    sum_log_weights : ndarray, shape (m,)
        Of these rows.
    fixed_places : tuple of int
        Which columns are those of X.
    n_behind : int
        How many rows the last one stands for, having no part in any column.
    """

    design: LazyModel | None = None
    columns: Matrix = field(default_factory=lambda: np.zeros((0, 0)))
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    sum_log_weights: Matrix = field(default_factory=lambda: np.zeros(0))
    fixed_places: tuple[int, ...] = ()
    n_behind: int = 0

    def __getstate__(self) -> dict[str, Any]:
        """Without the design: a table stays where it is, and other processes need these rows."""
        return {**self.__dict__, "design": None}

    @property
    def nobs(self) -> int:
        """Number of rows that were used, n; here there are fewer."""
        return int(self.counts.sum())

    @property
    def rows_behind(self) -> int:
        """How many rows the last one stands for, having no part in any column."""
        return self.n_behind

    def further_fields(self, rows: NDArray[Any]) -> dict[str, Any]:
        """What of some rows there is besides the fields of a model frame."""
        names = ("columns", "counts", "sum_log_weights")
        return {name: getattr(self, name)[rows] for name in names}


@dataclass(frozen=True, eq=False)
class RepresentativeTerm(RandomTerm):
    """A random-effects term of such rows.

    Attributes
    ----------
    places : tuple of int
        Which columns of the design are its own.
    ones : ndarray, shape (m, 1)
        What is one in every row that they stand for.
    """

    places: tuple[int, ...] = ()
    ones: Matrix = field(default_factory=lambda: np.zeros((0, 1)))

    @property
    def constant(self) -> Matrix:
        """What is one in every row that they stand for, (m, 1)."""
        return self.ones

    def of_rows(self, rows: NDArray[Any]) -> dict[str, Any]:
        """Columns of some rows."""
        return {**super().of_rows(rows), "ones": self.ones[rows]}

    def taking(self, kept: Sequence[int], names: tuple[str, ...]) -> RepresentativeTerm:
        """The term with some of its columns, under other names."""
        z = np.ascontiguousarray(self.z[:, list(kept)])
        places = tuple(self.places[j] for j in kept)
        return dataclasses.replace(self, columns=names, z=z, places=places)

    def intercept(self) -> RepresentativeTerm:
        """An intercept by the same levels."""
        return dataclasses.replace(self, columns=("(Intercept)",), z=self.ones, places=(0,))

    def encoded(self, encoder: DesignEncoder, data: pd.DataFrame) -> RandomTerm:
        """The term with other columns of the same variables, which are not there.

        Raises
        ------
        ModelError
            Always.
        """
        written = " + ".join(encoder.term_labels)
        raise ModelError(
            f"The smaller model has the columns of ({written} | {self.group}), which were not "
            "summed in the table. Write it yourself and compare: me.anova(m, m.update(...)); or "
            "take whole terms out, m.ranova(reduce_terms=False)."
        )


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
    cells = cell_rows(rows.model, columns, rows.guard, by_weight=by_weight)
    return with_cells(fit, rows.model, rows.columns, cells)


def with_cells(fit: Fit, model: LazyModel, at: SumColumns, cells: CellRows) -> Fit:
    """A fit with the rows of cells.

    Parameters
    ----------
    fit : Fit
        The fit.
    model : LazyModel
        Of whose design the rows have the columns.
    at : SumColumns
        Which of them are those of the fit.
    cells : CellRows
        The rows.
    """
    n = len(cells.columns)
    scale, centre = model.moments.scale, model.moments.centre
    # The first column is one in every row, times the root of the weight.
    one = cells.columns[:, 0]

    def of(which: Sequence[int]) -> Matrix:
        places = list(which)
        return np.asarray(cells.columns[:, places] * scale[places] + one[:, None] * centre[places])

    terms = tuple(
        RepresentativeTerm(
            codes=level_codes(term, cells.keys),
            z=np.ascontiguousarray(of(own.columns)),
            places=own.columns,
            ones=np.ascontiguousarray(one[:, None]),
            **_labels(term),
        )
        for term, own in zip(fit.frame.terms, at.terms, strict=True)
    )
    known = ("formula", "fixef_names", "fixed_encoder", "random_encoders")
    # Where they are in the columns they are one, which is not to say that there are none: the
    # blocks have them relative to their mean.
    weighted = model.weights is not None and cells.weights is None
    frame = RepresentativeFrame(
        **{name: getattr(fit.frame, name) for name in known},
        y=of([at.response])[:, 0],
        X=np.asfortranarray(of(at.fixed)),
        terms=terms,
        weights=np.ones(n) if weighted else cells.weights,
        offset=None,
        index=pd.RangeIndex(n),
        positions=np.arange(n),
        dropped=Dropped(rows=pd.RangeIndex(0)),
        data=cells.keys,
        design=model,
        columns=cells.columns,
        counts=cells.counts,
        sum_log_weights=cells.sum_log_weights,
        fixed_places=at.fixed,
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
    assert isinstance(frame, RepresentativeFrame)
    n = len(frame.y)
    behind = fit.nobs - n
    if behind == 0:
        return few
    more = dataclasses.replace(
        frame,
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
        n_behind=behind,
    )
    return dataclasses.replace(few, frame=more)


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
