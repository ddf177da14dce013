"""Residuals of every kind."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.options import checked_choice
from mixedeffects.covariance.of_fit import V_of, fitted_values
from mixedeffects.covariance.of_residuals import residual_matrix_of, whitened
from mixedeffects.covariance.structured_residual import StructuredResidual
from mixedeffects.diagnostics.leverage import leverage, remaining_variances
from mixedeffects.fitting.fit import Fit, once_per_fit
from mixedeffects.fitting.in_table import fitted_in_table
from mixedeffects.frame.without_rows import SUMS
from mixedeffects.lazy.counting import quantiles_by_counting
from mixedeffects.lazy.model import LazyModel

__all__ = ["RESIDUAL_KINDS", "residual_quantiles", "residuals"]

Matrix = NDArray[np.float64]

RESIDUAL_KINDS = (
    "response",
    "pearson",
    "scaled",
    "studentized",
    "normalized",
    "marginal",
    "cholesky",
    "symmetric",
)

#: A row whose leverage is one but for rounding has no residual to speak of.
_NO_RESIDUAL = 1e-10


def residuals(fit: Fit, kind: str) -> Matrix:
    """Residuals of one kind, shape (n,); see `LinearMixedModel.resid`.

    Raises
    ------
    ModelError
        If the kind is not one of `RESIDUAL_KINDS`.
    """
    kind = checked_choice(kind, "Residual kind", RESIDUAL_KINDS)
    if kind in ("response", "pearson", "scaled", "studentized", "normalized"):
        out: Matrix = fit.frame.y - fitted_values(fit)
        if kind == "response":
            return out
        if fit.residual is not None:
            return _in_deviations(fit, out, kind)
        if fit.frame.weights is not None:
            out = out * np.sqrt(fit.frame.weights)
        if kind == "pearson":
            return out
        out = out / fit.sigma
        return out / np.sqrt(_shares_left(fit)) if kind == "studentized" else out
    marginal = fit.frame.y - fit.fixed_part
    if kind == "marginal":
        return marginal
    return V_of(fit).whiten(marginal, kind="cholesky" if kind == "cholesky" else "symmetric")


def _in_deviations(fit: Fit, out: Matrix, kind: str) -> Matrix:
    """Residuals of the response in standard deviations, where rows differ or are correlated."""
    R = residual_matrix_of(fit)
    assert isinstance(R, StructuredResidual)
    if kind == "normalized":
        return whitened(R, out)
    sd = np.sqrt(R.diagonal())
    if kind == "studentized":
        left = remaining_variances(fit) / sd**2
        sd = sd * np.sqrt(np.where(left > _NO_RESIDUAL, left, np.nan))
    return np.asarray(out / sd)


def _shares_left(fit: Fit) -> Matrix:
    """One minus the leverage, NaN where the row determines its own fitted value."""
    left = 1.0 - leverage(fit, "total")
    return np.where(left > _NO_RESIDUAL, left, np.nan)


def _quantiles_in_table(fit: Fit, model: LazyModel) -> Matrix:
    """The same where the rows stayed in their table: counted there."""
    predictor = fitted_in_table(fit)
    scaled = (model.response - predictor.linear()) / fit.sigma
    if model.weights is not None:
        scaled = scaled * model.weights.sqrt()
    shares = (0.0, 0.25, 0.5, 0.75, 1.0)
    return quantiles_by_counting(model.table, predictor.frame, scaled, shares)


@once_per_fit("quantiles of the scaled residuals")
def residual_quantiles(fit: Fit) -> Matrix | None:
    """Minimum, quartiles and maximum of the scaled residuals; None of a fit to sums."""
    if fit.rows is not None and fit.rows.model.table.engine == SUMS:
        return None
    if fit.rows is not None:
        return _quantiles_in_table(fit, fit.rows.model)
    return np.asarray(np.quantile(residuals(fit, "scaled"), [0.0, 0.25, 0.5, 0.75, 1.0]))
