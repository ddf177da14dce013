"""Fits of related models from what a fit already holds, without the data being read again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.arrays import number_array
from mixedeffects.engine import Control
from mixedeffects.engine.responses import replace_response
from mixedeffects.engine.subsample import subsample_start
from mixedeffects.engine.threads import one_blas_thread
from mixedeffects.errors import ModelError
from mixedeffects.fitting.assembly import engine_terms
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.fitting import assemble_frame, fit_formula, fit_frame
from mixedeffects.fitting.fitting import response as less_offset
from mixedeffects.fitting.lazy_fitting import fit_any_table
from mixedeffects.fitting.representative import RepresentativeFrame
from mixedeffects.fitting.request import (
    LeftOut,
    NewResponse,
    Request,
    given_data,
    given_table,
    with_data,
)
from mixedeffects.fitting.residual_fitting import fit_residual_frame, fit_residual_response
from mixedeffects.fitting.table_fitting import fit_blocks_of_table
from mixedeffects.formula.syntax import Name, variable_names
from mixedeffects.formula.update import update_formula
from mixedeffects.frame.ingest import column_names, materialised, values_of_rows
from mixedeffects.frame.model_frame import ModelFrame, RandomTerm
from mixedeffects.frame.without_rows import left_out
from mixedeffects.lazy.table import is_lazy
from mixedeffects.progress import ProgressOption

if TYPE_CHECKING:
    from mixedeffects.engine import CrossProducts

__all__ = [
    "UNCHANGED",
    "Unchanged",
    "by_maximum_likelihood",
    "checked_response",
    "fit_again",
    "for_rows",
    "least_squares_criterion",
    "updated_contrasts",
    "updated_formula",
    "values_for_rows",
    "with_random_terms",
    "with_response",
    "without_structure",
]

Matrix = NDArray[np.float64]

#: Change of a response, relative to the residual standard deviation, that makes no new optimum.
_NEARLY_THE_SAME = 0.01


class Unchanged(Enum):
    """The default of an argument that stays as it was in the fit."""

    UNCHANGED = "as it was"

    def __repr__(self) -> str:
        return self.value


UNCHANGED = Unchanged.UNCHANGED


def with_response(fit: Fit, response: Matrix, given: Any) -> tuple[ModelFrame, NewResponse]:
    """The frame and the data of a fit with another response for the rows used.

    A response that is a column stays the column of that name. Of an expression such as
    ``log(y)`` the new values are what it would have been: a column called `log(y)`, in which the
    columns it was made of have no part. So does a column that the formula needs elsewhere too.

    Parameters
    ----------
    fit : Fit
        The fit.
    response : ndarray, shape (n,)
        New response of the rows used.
    given : Series or array
        What the user gave, where the rows that were not used may have a value too.
    """
    frame, formula = fit.frame, fit.frame.formula
    own = given_data(fit.request)
    original = own.formula if isinstance(own, NewResponse) else formula.text
    by_name = [each for each in (fit.request.weights, fit.request.offset) if each is not None]
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
        columns = column_names(materialised(given_table(fit.request)))
        formula = formula.with_response(name, columns, [n for n in by_name if isinstance(n, str)])
        gone = [c for c in variable_names(tree) if c in data.columns and c not in kept]
        data = data.drop(columns=[c for c in gone if c in data.columns])
        data.insert(0, name, response)
    else:
        data[name] = response
    frame = dataclasses.replace(frame, y=response, data=data, formula=formula)
    return frame, NewResponse(_source(fit.request), name, values, original)


def _source(request: Request) -> Any:
    """The data as given, whatever the response that was fitted."""
    data = given_data(request)
    return data.data if isinstance(data, NewResponse) else data


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
    fit: Fit,
    frame: ModelFrame,
    A: CrossProducts,
    start: Sequence[Matrix] | None,
    reml: bool | None = None,
) -> Fit:
    """The fit of another frame and its cross-products, with this one's data and options.

    Parameters
    ----------
    fit : Fit
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
    criterion = fit.reml if reml is None else reml
    if fit.rows is not None:
        return fit_blocks_of_table(frame, A, criterion, fit.request, fit.rows, start)
    return fit_frame(frame, A, criterion, fit.request, start)


def by_maximum_likelihood(fit: Fit) -> Fit:
    """The fit itself if it was fitted by maximum likelihood, else its cross-products refitted."""
    if not fit.reml:
        return fit
    if fit.residual is not None:
        return fit_residual_response(fit, fit.frame, reml=False)
    return fit_again(fit, fit.frame, fit.crossproducts, fit.optimum.restart, reml=False)


def with_random_terms(fit: Fit, terms: Sequence[RandomTerm]) -> Fit:
    """The fit by the same criterion with other random terms, at least one.

    Where residuals have a structure there may be none.
    """
    return _fit_other(fit, dataclasses.replace(fit.frame, terms=tuple(terms)))


def without_structure(fit: Fit, *, residual: bool = False, variance: bool = False) -> Fit | None:
    """The fit by the same criterion without ``residual=``, or without ``variance=``.

    None where what is left is a linear model with independent residuals, which is no fit.
    """
    frame = fit.frame
    if residual:
        frame = dataclasses.replace(frame, residual=None)
    if variance:
        frame = dataclasses.replace(frame, variance=None)
    is_plain = frame.residual is None and frame.variance is None and fit.request.sigma is None
    if not frame.terms and is_plain:
        return None
    return _fit_other(fit, frame)


def _fit_other(fit: Fit, frame: ModelFrame) -> Fit:
    """The fit by the same criterion of another frame with the same fixed effects."""
    has_structure = frame.residual is not None or frame.variance is not None
    if has_structure or fit.request.sigma is not None:
        return fit_residual_frame(frame, fit.reml, fit.request)
    with one_blas_thread():
        A = assemble_frame(frame)
        start = None
        if not isinstance(frame, RepresentativeFrame):
            start = subsample_start(
                A, less_offset(frame), frame.X, engine_terms(frame.terms), frame.weights, fit.reml
            )
    return fit_again(fit, frame, A, start)


def least_squares_criterion(fit: Fit) -> float:
    """Criterion of the linear model with independent residuals, constants as in ``fit.criterion``.

    In the fitting basis ``X'WX = n I`` and the response is the least-squares residual with mean
    square one, so nothing is left to compute but constants.
    """
    A, reml = fit.crossproducts, fit.reml
    sum_log_weights = A.sum_log_weights
    if fit.residual is not None:
        # There the determinant of S stands in its place.
        weights = fit.residual.model.weights
        sum_log_weights = 0.0 if weights is None else float(np.log(weights).sum())
    df = A.n - A.p if reml else A.n
    d = df * (1.0 + float(np.log(2.0 * np.pi * A.n / df))) - sum_log_weights
    if reml:
        d += A.p * float(np.log(A.n))
    return d + A.basis.deviance_offset(A.n, A.p, reml)


def refit(fit: Fit, y: Any, progress: ProgressOption) -> Fit:
    """See `LinearMixedModel.refit`."""
    response = checked_response(fit, y)
    frame, data = with_response(fit, response, y)
    if fit.residual is not None:
        request = with_data(fit.request, data)
        return fit_residual_response(fit, frame, request=request, progress=progress)
    A = replace_response(
        fit.crossproducts, less_offset(frame), frame.X, engine_terms(frame.terms), frame.weights
    )
    # Whether V determines its parameters is not up to the response, nor, where V is linear in
    # them, to the estimates.
    identified = not fit.optimum.undetermined and fit.optimum.parameterisation is None
    return fit_frame(
        frame,
        A,
        fit.reml,
        with_data(fit.request, data),
        fit.optimum.restart,
        None,
        progress,
        further=not _surely_no_rival(fit, frame),
        identified=identified,
    )


def _surely_no_rival(fit: Fit, frame: ModelFrame) -> bool:
    """Whether another start would lead where this fit's optimum does.

    All starts did, and the response is the same but for a hundredth of the residual error.
    """
    if fit.optimum.starts == 1 or fit.optimum.has_rivals:
        return False
    change = less_offset(frame) - less_offset(fit.frame)
    weighted = change if frame.weights is None else change * np.sqrt(frame.weights)
    return bool(np.sqrt(np.mean(weighted**2)) < _NEARLY_THE_SAME * fit.sigma)


def checked_response(fit: Fit, y: Any) -> Matrix:
    """A response for the rows used: by label for a Series, else by position."""
    frame, what = fit.frame, "the new response"
    n_rows = fit.nobs + len(frame.dropped.rows)
    given = values_of_rows(what, y, frame.index, frame.positions, n_rows, ModelError, "numbers, ")
    response = number_array(given, what, ModelError)
    if not np.isfinite(response).all():
        count = int((~np.isfinite(response)).sum())
        raise ModelError(f"The new response has {count} values that are not finite.")
    return response


def update(
    fit: Fit,
    formula: str | None,
    data: Any,
    reml: bool | None,
    *,
    weights: Any,
    offset: Any,
    contrasts: dict[str, Any] | Unchanged | None,
    residual: Any,
    variance: Any,
    sigma: Any,
    start: Sequence[float] | None,
    control: Control | Unchanged | None,
    progress: ProgressOption,
) -> Fit:
    """See `LinearMixedModel.update`."""
    asked = fit.request
    if residual is UNCHANGED and isinstance(asked.residual, LeftOut):
        raise left_out("the covariance matrix of the residuals")
    contrasts, inherited = updated_contrasts(fit, contrasts)
    table = given_table(asked) if data is None else data
    options: dict[str, Any] = {
        "reml": fit.reml if reml is None else reml,
        "weights": for_rows("weights", asked.weights, weights, asked, data),
        "offset": for_rows("offset", asked.offset, offset, asked, data),
        "contrasts": contrasts,
        "inherited": inherited,
        "start": start,
        "control": asked.control if control is UNCHANGED else control,
        "ddf": asked.ddf,
        "residual": asked.residual if residual is UNCHANGED else residual,
        "variance": asked.variance if variance is UNCHANGED else variance,
        "sigma": asked.sigma if sigma is UNCHANGED else sigma,
        "progress": progress,
    }
    text = updated_formula(fit, formula, data)
    if fit.rows is not None and is_lazy(table):
        return fit_any_table(text, table, rows="push", **options)
    earlier = fit if data is None and fit.residual is None else None
    return fit_formula(text, table, earlier=earlier, **options)


def updated_formula(fit: Fit, change: str | None, data: Any) -> str:
    """The formula to fit again, with a change such as ``". ~ . + x"``, to data or the fit's own."""
    text, own = fit.formula, given_data(fit.request)
    if data is not None and isinstance(own, NewResponse):
        # New data have a response of their own.
        text = own.formula
    return text if change is None else update_formula(text, change)


def updated_contrasts(
    fit: Fit, contrasts: dict[str, Any] | Unchanged | None
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """The codings to fit again with, and those of the fit that need not be in the formula."""
    if isinstance(contrasts, Unchanged):
        return None, fit.request.inherited | (fit.request.contrasts or {})
    return contrasts, {}


def for_rows(role: str, own: Any, given: Any, asked: Request, data: Any) -> Any:
    """Weights or an offset for fitting again: as given, or those of the fit."""
    if given is not UNCHANGED:
        return given
    if isinstance(own, LeftOut):
        raise ModelError(
            f"This is a fit without its data, and its {role} were given as values for each "
            f"row: fit again with mixedeffects.lmer(..., {role}=...)."
        )
    by_position = own is not None and not isinstance(own, str)
    if by_position and data is not None and not are_the_same_rows(data, _source(asked)):
        return values_for_rows(role, own, data)
    return own
