"""Fitted values, residuals and predictions as columns of a table that stays in its engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.errors import DataError, ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.in_table import fitted_in_table, predicted_in_table
from mixedeffects.lazy.expressions import Expr, count_where
from mixedeffects.lazy.fitted import LinearPredictor
from mixedeffects.lazy.table import lazy_table

__all__ = ["augmented_table", "predicted_table"]

Matrix = NDArray[np.float64]


def augmented_table(fit: Fit) -> Any:
    """The rows used with fitted values and residuals: a lazy table of the same engine."""
    rows = fit.rows
    assert rows is not None
    predictor = fitted_in_table(fit)
    fitted = predictor.linear()
    frame = predictor.frame.with_columns(
        fitted.alias("_fitted"),
        (rows.model.response - fitted).alias("_resid"),
        predictor.fixed.alias("_fixed"),
    )
    return frame.drop(*predictor.added).to_native()


def predicted_table(
    fit: Fit,
    data: Any,
    terms: Sequence[int],
    *,
    se: bool,
    new_levels: str,
    covariance: Matrix,
    offset: Any = None,
) -> Any:
    """A lazy table with predictions of its rows in a column ``estimate``, and ``std_error``.

    Parameters
    ----------
    fit : Fit
        A fit, with its rows or without.
    data : lazy table or None
        The table; None for the rows used.
    terms : sequence of int
        Terms whose effects are in.
    se : bool
        Whether to add standard errors, of population means.
    new_levels : {"error", "population"}
        What is done with levels that the fit did not see.
    covariance : ndarray, shape (p, p)
        Of the fixed effects.
    offset : str, optional
        Name of a column.

    Raises
    ------
    DataError
        If the table has levels that the fit did not see.
    ModelError
        If standard errors are asked for that need more than the row's own columns.
    """
    if se and terms:
        raise ModelError(
            "Standard errors of predictions with random effects need the joint covariance of the "
            "effects of each row, which no expression of its columns has; in a table there are "
            "those of population means, with re=None. Collect the rows that they are wanted for."
        )
    if data is None:
        predictor = fitted_in_table(fit, terms)
    else:
        table = lazy_table(data)
        predictor = predicted_in_table(fit, table, terms, offset)
        if new_levels == "error":
            _refuse_unseen(predictor)
    columns = [predictor.linear(new_levels=new_levels).alias("estimate")]
    if se:
        columns.append(_standard_error(predictor.columns, covariance).alias("std_error"))
    frame = predictor.frame.with_columns(*columns)
    return (frame.drop(*predictor.added) if predictor.added else frame).to_native()


def _refuse_unseen(predictor: LinearPredictor) -> None:
    if predictor.unseen is None:
        return
    query = predictor.frame.select(count_where(predictor.unseen).alias("n"))
    found = int(predictor.table.run(query, "levels that the fit did not see")["n"].iloc[0])
    if found:
        raise DataError(
            f"{found:,} rows have levels of grouping factors that the fit did not see. "
            "new_levels='population' predicts them with effects of zero."
        )


def _standard_error(columns: Sequence[Expr], covariance: Matrix) -> Expr:
    """Root of ``x'Vx``, by the root of V: a sum of squares, which no rounding makes negative."""
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    total: Any = 0.0
    for weights in root.T:
        part: Any = 0.0
        for column, weight in zip(columns, weights, strict=True):
            part = column * float(weight) + part
        total = part * part + total
    return total.sqrt()
