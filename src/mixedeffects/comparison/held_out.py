"""Rows left out, predicted by a linear mixed model fitted to the others.

The predictive density of the rows left out given the others is that of the fit to the others,

    log p(y_out | y_in) = log N(y; X beta, V) - log N(y_in; X_in beta, V_in),

so it counts how the rows left out vary together, not only how far off each one is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixedeffects.covariance import MarginalCovariance
from mixedeffects.covariance.design import z_times
from mixedeffects.covariance.of_fit import V_of, V_of_rows
from mixedeffects.covariance.of_residuals import V_at
from mixedeffects.diagnostics.deletion_refit import refit_rows
from mixedeffects.fitting.fit import Fit

__all__ = ["Predicted", "predict_held_out"]

Matrix = NDArray[np.float64]


class Predicted(NamedTuple):
    """What a fit to the other rows says of those left out.

    ``mean`` has shape (number of rows left out,), on the scale of the response; ``density`` is the
    log predictive density of all of them together; ``note`` is what is to be said about the fit.
    """

    mean: Matrix
    density: float
    note: str


def predict_held_out(fit: Fit, out: NDArray[np.bool_]) -> Predicted:
    """Rows left out, by the model fitted to the others.

    Parameters
    ----------
    fit : Fit
        The fit to all rows.
    out : ndarray of bool, shape (n,)
        Rows left out.

    Raises
    ------
    ModelError
        If the model is not identified from the other rows.
    """
    others, said = refit_rows(fit, np.flatnonzero(~out))
    mean, density = _predict(fit, others, out)
    return Predicted(mean[out], density, said or "")


def _predict(fit: Fit, others: Fit, out: NDArray[np.bool_]) -> tuple[Matrix, float]:
    """Predictions for all rows from the fit to those not left out, and the density of the rest."""
    if fit.residual is not None:
        return _predict_structured(fit, others, out)
    beta = others.beta
    fixed = fit.frame.X @ beta
    if fit.frame.offset is not None:
        fixed = fixed + fit.frame.offset
    mean = fixed[:, None].copy()
    modes = others.modes
    for term, kept, own in zip(fit.frame.terms, others.frame.terms, modes, strict=True):
        effects = np.zeros((term.n_levels, term.n_columns, 1))
        effects[term.levels.get_indexer(kept.levels), :, 0] = own
        z_times(term, effects, mean)
    V = V_of_rows(fit.frame.terms, others.T, others.sigma, fit.frame.weights)
    whole = _log_density(V, fit.frame.y - fixed)
    part = _log_density(V_of(others), others.frame.y - others.fixed_part)
    return mean[:, 0], whole - part


def _predict_structured(fit: Fit, others: Fit, out: NDArray[np.bool_]) -> tuple[Matrix, float]:
    """The same where residuals are correlated: from V of all rows at the others' parameters."""
    fixed = fit.frame.X @ others.beta
    if fit.frame.offset is not None:
        fixed = fixed + fit.frame.offset
    V, kept, left = V_at(fit, others), np.flatnonzero(~out), np.flatnonzero(out)
    r = fit.frame.y - fixed
    # V between the rows left out and the others, times V^-1 of the others.
    weights = np.zeros(fit.nobs)
    weights[kept] = V_of(others).solve(r[kept])
    mean = fixed.copy()
    mean[left] += (V @ weights)[left]
    density = _log_density(V, r) - _log_density(V_of(others), r[kept])
    return mean, density


def _log_density(V: MarginalCovariance, residual: Matrix) -> float:
    constant = len(residual) * float(np.log(2.0 * np.pi))
    return -0.5 * (constant + float(V.logdet()) + float(V.quad(residual)))
