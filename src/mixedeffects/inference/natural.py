"""Variance parameters as people report them: standard deviations, correlations and sigma."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.parameters import lower_entries
from mixedeffects.frame.model_frame import RandomTerm

__all__ = ["natural_parameters", "parameter_names"]

Matrix = NDArray[np.float64]


def parameter_names(terms: Sequence[RandomTerm]) -> list[str]:
    """Names in lme4's manner and in the order of theta, ``sigma`` last.

    ``sd_Days|Subject`` is a standard deviation, ``cor_Days.(Intercept)|Subject`` a correlation.
    """
    names = []
    for term in terms:
        columns = term.columns
        for row, column in zip(*lower_entries(len(columns)), strict=True):
            if row == column:
                names.append(f"sd_{columns[row]}|{term.label}")
            else:
                names.append(f"cor_{columns[row]}.{columns[column]}|{term.label}")
    return [*names, "sigma"]


def natural_parameters(T: Sequence[Matrix], sigma: Matrix | float) -> Matrix:
    """Standard deviations, correlations and sigma from relative factors.

    Parameters
    ----------
    T : sequence of ndarray (..., k, k)
        Lower-triangular relative covariance factors, one per term; leading axes are draws.
    sigma : float or ndarray (...,)
        Residual standard deviations.

    Returns
    -------
    ndarray, shape (..., m + 1)
        In the order of `parameter_names`; a correlation beside a zero standard deviation is NaN.
    """
    sigma = np.asarray(sigma, dtype=np.float64)
    parts = []
    for factor in T:
        size = np.linalg.norm(factor, axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            unit = factor / size[..., None]
        correlation = np.clip(unit @ np.swapaxes(unit, -1, -2), -1.0, 1.0)
        rows, columns = lower_entries(factor.shape[-1])
        values = correlation[..., rows, columns]
        on_diagonal = rows == columns
        values[..., on_diagonal] = size * sigma[..., None]
        parts.append(values)
    return np.concatenate([*parts, sigma[..., None]], axis=-1)
