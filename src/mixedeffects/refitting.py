"""Fits of related models from what a fit already holds, without the data being read again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.assembly import assemble, engine_terms
from mixedeffects.caching import cached_property
from mixedeffects.engine.subsample import subsample_start
from mixedeffects.engine.threads import one_blas_thread
from mixedeffects.errors import ModelError
from mixedeffects.formula.syntax import Name, variable_names
from mixedeffects.frame.ingest import column_names, materialised
from mixedeffects.frame.model_frame import ModelFrame, RandomTerm
from mixedeffects.frame.one_column import with_column

if TYPE_CHECKING:
    from mixedeffects.engine import CrossProducts
    from mixedeffects.model import LinearMixedModel

__all__ = [
    "UNCHANGED",
    "NewResponse",
    "Unchanged",
    "by_maximum_likelihood",
    "fit_again",
    "least_squares_criterion",
    "values_for_rows",
    "with_random_terms",
    "with_response",
]

Matrix = NDArray[np.float64]


class Unchanged(Enum):
    """The default of an argument that stays as it was in the fit."""

    UNCHANGED = "as it was"

    def __repr__(self) -> str:
        return self.value


UNCHANGED = Unchanged.UNCHANGED


@dataclass(frozen=True, eq=False)
class NewResponse:
    """The data of a fit to another response than theirs.

    Attributes
    ----------
    data : dataframe
        The data as given.
    name : str
        The column that the new response is.
    values : ndarray
        One for each row of the data; NaN in rows that were not used and have none.
    formula : str
        The formula with the data's own response.
    """

    data: Any
    name: str
    values: Matrix
    formula: str

    @cached_property
    def table(self) -> Any:
        """The data with the new response in its column; the data given stay as they are."""
        return with_column(self.data, self.name, self.values)


def with_response(
    model: LinearMixedModel, response: Matrix, given: Any
) -> tuple[ModelFrame, NewResponse]:
    """The frame and the data of a fit with another response for the rows used.

    A response that is a column stays the column of that name. Of an expression such as
    ``log(y)`` the new values are what it would have been: a column called `log(y)`, in which the
    columns it was made of have no part. So does a column that the formula needs elsewhere too.

    Parameters
    ----------
    model : LinearMixedModel
        The fit.
    response : ndarray, shape (n,)
        New response of the rows used.
    given : Series or array
        What the user gave, where the rows that were not used may have a value too.
    """
    frame, formula = model.frame, model.frame.formula
    own = model._given
    source = own.data if isinstance(own, NewResponse) else own
    original = own.formula if isinstance(own, NewResponse) else formula.text
    by_name = [each for each in map(model._settings.get, ("weights", "offset")) if each is not None]
    kept = {name for name in by_name if isinstance(name, str)} | set(formula.right_variables)
    tree = formula.response_tree
    name = formula.response
    if isinstance(tree, Name):
        name = tree.name
    while name in kept:
        name = f"new {name}"
    values = _all_rows(frame, response, given)
    data = frame.data.copy(deep=False)
    if not (isinstance(tree, Name) and tree.name == name):
        columns = column_names(materialised(model._data))
        formula = formula.with_response(name, columns, [n for n in by_name if isinstance(n, str)])
        gone = [c for c in variable_names(tree) if c in data.columns and c not in kept]
        data = data.drop(columns=[c for c in gone if c in data.columns])
        data.insert(0, name, response)
    else:
        data[name] = response
    frame = dataclasses.replace(frame, y=response, data=data, formula=formula)
    return frame, NewResponse(source, name, values, original)


def _all_rows(frame: ModelFrame, response: Matrix, given: Any) -> Matrix:
    """A response for every row of the data, NaN where none is known."""
    n = frame.nobs + len(frame.dropped.rows)
    if n == frame.nobs:
        return response
    values = np.full(n, np.nan)
    unused = np.setdiff1d(np.arange(n), frame.positions)
    if isinstance(given, pd.Series) and not given.index.equals(frame.index):
        values[unused] = given.reindex(frame.dropped.rows).to_numpy(np.float64, na_value=np.nan)
    elif np.shape(given) == (n,):
        values[unused] = np.asarray(given, dtype=np.float64)[unused]
    values[~np.isfinite(values)] = np.nan
    values[frame.positions] = response
    return values


def are_the_same_rows(data: Any, own: Any) -> bool:
    """Whether data are a fit's own, row by row; a fit keeps a frame or mapping of its own."""
    if isinstance(data, pd.DataFrame) and isinstance(own, pd.DataFrame):
        return data.equals(own)
    if isinstance(data, Mapping) and isinstance(own, Mapping):
        return data.keys() == own.keys() and all(data[name] is own[name] for name in own)
    return data is own


def values_for_rows(role: str, values: Any, data: Any) -> Any:
    """Values of the fit's own rows for the rows of other data, which go by their labels.

    Labels tell which rows are which only where they are more than a count from 0.

    Raises
    ------
    ModelError
        If the values cannot be matched to the rows.
    """
    if isinstance(values, pd.Series) and isinstance(data, pd.DataFrame):
        rows, labels = data.index, values.index
        counted = rows.equals(pd.RangeIndex(len(rows)))
        if not counted and labels.is_unique and rows.is_unique and rows.isin(labels).all():
            return values.take(labels.get_indexer(rows))
    raise ModelError(
        f"The fit's {role} were given as values for the rows of its own data, which say nothing "
        f"about rows of other data: give update() {role}= for these, as values or as a column's "
        "name, or None for none."
    )


def fit_again(
    model: LinearMixedModel,
    frame: ModelFrame,
    A: CrossProducts,
    start: Sequence[Matrix] | None,
    reml: bool | None = None,
) -> LinearMixedModel:
    """The model of another frame and its cross-products, with this one's data and settings.

    Parameters
    ----------
    model : LinearMixedModel
        The fit.
    frame : ModelFrame
        Response, fixed effects and random terms to fit.
    A : CrossProducts
        Their blocks.
    start : sequence of ndarray (k, k), or None
        Factors to start from, in A's basis; None for a moment estimate.
    reml : bool, optional
        Criterion; by default this fit's.
    """
    from mixedeffects.model import _fit

    criterion = model.reml if reml is None else reml
    return _fit(
        frame, A, criterion, start, None, False, model._given, model._settings, model.data_name
    )


def by_maximum_likelihood(model: LinearMixedModel) -> LinearMixedModel:
    """The model itself if it was fitted by maximum likelihood, else its cross-products refitted."""
    if not model.reml:
        return model
    return fit_again(model, model.frame, model._A, model.optimum.restart, reml=False)


def with_random_terms(model: LinearMixedModel, terms: Sequence[RandomTerm]) -> LinearMixedModel:
    """The model fitted by the same criterion with other random terms, at least one."""
    from mixedeffects.model import _less_offset

    frame = dataclasses.replace(model.frame, terms=tuple(terms))
    y = _less_offset(frame)
    with one_blas_thread():
        A = assemble(y, frame.X, frame.terms, frame.weights)
        start = subsample_start(A, y, frame.X, engine_terms(frame.terms), frame.weights, model.reml)
    return fit_again(model, frame, A, start)


def least_squares_criterion(model: LinearMixedModel) -> float:
    """Criterion of the linear model without random effects, constants as in ``model.criterion``.

    In the fitting basis ``X'WX = n I`` and the response is the least-squares residual with mean
    square one, so nothing is left to compute but constants.
    """
    A, reml = model._A, model.reml
    df = A.n - A.p if reml else A.n
    d = df * (1.0 + float(np.log(2.0 * np.pi * A.n / df))) - A.sum_log_weights
    if reml:
        d += A.p * float(np.log(A.n))
    return d + A.basis.deviance_offset(A.n, A.p, reml)
