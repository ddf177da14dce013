"""The parameters of R on natural scales, and its matrix over the times that groups have in common.

Everything is at unit prior weight and where the columns of ``variance=`` are zero.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.covariance.structured_residual import StructuredResidual
from mixedeffects.engine.residual_families import Block, Chain
from mixedeffects.fitting.residual_parameters import ResidualParameter, parameters_of_residuals

__all__ = ["covariance_of_times", "listed_parameters", "residual_parameters"]

Matrix = NDArray[np.float64]


def residual_parameters(R: StructuredResidual) -> pd.Series:
    """Standard deviations, correlations, ranges, nuggets; labels as in the summary.

    Returns
    -------
    Series
        ``Std.Dev.`` in units of the response, with stratum and time where they differ by these;
        ``cor``, with two times or a lag where there are several, and a stratum; ``range``, in units
        of the position; ``nugget``, a share of the variance. Columns of ``variance=``: for those
        of one factor a ``Std.Dev.`` each, else coefficients of the logarithm of it, and the
        ``power`` of what a column is the logarithm of.
    """
    parameters = listed_parameters(R)
    return pd.Series(
        [each.value for each in parameters],
        index=[each.label for each in parameters],
        name="Estimate",
        dtype=np.float64,
    )


def listed_parameters(R: StructuredResidual) -> list[ResidualParameter]:
    """The parameters one by one."""
    return parameters_of_residuals(R.model, R.phi, _first_deviation(R), R.term, R.variance)


def covariance_of_times(R: StructuredResidual, stratum: int) -> Matrix:
    """R of one row at each common time, T x T."""
    sd = _time_deviations(R, stratum)
    return np.asarray(_times_matrix(R, stratum) * np.outer(sd, sd))


def _times_matrix(R: StructuredResidual, stratum: int) -> Matrix:
    """C over the common times, T x T."""
    model, T = R.model, R.model.design.n_times
    if not model.families:
        return np.eye(T)
    family, zeta = model.families[stratum], R.phi[model.places[stratum]]
    times = np.arange(T, dtype=np.float64)
    if isinstance(family, Block):
        return family.matrix(zeta, times[:, None])
    if R.between_times is not None:
        upper = R.between_times[stratum]
        return np.asarray(np.triu(upper) + np.triu(upper, 1).T)
    assert isinstance(family, Chain)
    i, j = np.triu_indices(T, 1)
    C = np.eye(T)
    C[i, j] = C[j, i] = family.neighbours(zeta, times[i], times[j])[0]
    return C


def _first_deviation(R: StructuredResidual) -> float:
    """That of the first stratum and time where v is zero, from whatever D is divided by."""
    model = R.model
    root_w = np.ones(R.n) if model.weights is None else np.sqrt(model.weights)
    log_D = np.log(root_w / R.whitening.scale) - R.whitening.log_factor
    v = model.design.v[model.order] @ model.coefficients(R.phi)
    return float(R.sigma * np.exp(np.mean(log_D - v)))


def _time_deviations(R: StructuredResidual, stratum: int) -> Matrix:
    """Standard deviations at the common times beside those that belong to C."""
    n_columns = 0 if R.variance is None else R.variance.n_columns
    delta = R.model.coefficients(R.phi)
    cells = _first_deviation(R) * np.exp(np.append(0.0, delta[: len(delta) - n_columns]))
    T = R.model.design.n_times
    by_stratum = cells.reshape(-1, T) if _has_times(R) else cells[:, None]
    return np.asarray(np.broadcast_to(by_stratum[min(stratum, len(by_stratum) - 1)], T))


def _has_times(R: StructuredResidual) -> bool:
    """Whether the cells are strata and times."""
    design = R.model.design
    return not design.homogeneous and design.n_times > 0 and design.kind != "us"
