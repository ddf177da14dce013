"""Fitted values and residuals of every kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mixedeffects.covariance.design import z_times
from mixedeffects.inference.conditional import term_modes
from mixedeffects.leverage import leverage
from mixedeffects.options import checked_choice

if TYPE_CHECKING:
    from mixedeffects.model import LinearMixedModel

__all__ = ["RESIDUAL_KINDS", "fitted_values", "fixed_part", "residual_quantiles", "residuals"]

Matrix = NDArray[np.float64]

RESIDUAL_KINDS = (
    "response",
    "pearson",
    "scaled",
    "studentized",
    "marginal",
    "cholesky",
    "symmetric",
)

#: A row whose leverage is one but for rounding has no residual to speak of.
_NO_RESIDUAL = 1e-10


def fixed_part(model: LinearMixedModel) -> Matrix:
    """``X beta`` plus the offset, shape (n,)."""
    fixed: Matrix = model.X @ model.fixef.to_numpy()
    return fixed if model.frame.offset is None else fixed + model.frame.offset


def fitted_values(model: LinearMixedModel) -> Matrix:
    """``X beta + Z b`` plus the offset, shape (n,)."""
    out = fixed_part(model)[:, None]
    modes = term_modes(model.frame, model.optimum.evaluation.factorisation)
    for term, b in zip(model.frame.terms, modes, strict=True):
        z_times(term, b[:, :, None], out)
    return out[:, 0]


def residuals(model: LinearMixedModel, kind: str) -> Matrix:
    """Residuals of one kind, shape (n,); see `LinearMixedModel.resid`.

    Raises
    ------
    ModelError
        If the kind is not one of `RESIDUAL_KINDS`.
    """
    kind = checked_choice(kind, "Residual kind", RESIDUAL_KINDS)
    if kind in ("response", "pearson", "scaled", "studentized"):
        out: Matrix = model.y - model.fitted.to_numpy()
        if kind == "response":
            return out
        if model.frame.weights is not None:
            out = out * np.sqrt(model.frame.weights)
        if kind == "pearson":
            return out
        out = out / model.sigma
        return out if kind == "scaled" else out / np.sqrt(_shares_left(model))
    marginal = model.y - fixed_part(model)
    if kind == "marginal":
        return marginal
    return model.V.whiten(marginal, kind="cholesky" if kind == "cholesky" else "symmetric")


def _shares_left(model: LinearMixedModel) -> Matrix:
    """One minus the leverage, NaN where the row determines its own fitted value."""
    left = 1.0 - leverage(model, "total")
    return np.where(left > _NO_RESIDUAL, left, np.nan)


def residual_quantiles(model: LinearMixedModel) -> Matrix:
    """Minimum, quartiles and maximum of the scaled residuals."""
    if model._remembered is not None:
        return model._remembered.residual_quantiles
    return np.asarray(np.quantile(residuals(model, "scaled"), [0.0, 0.25, 0.5, 0.75, 1.0]))
