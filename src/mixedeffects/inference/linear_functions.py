"""Linear combinations of the fixed effects, one at a time: estimates, standard errors, tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.arrays import number_array
from mixedeffects.base.options import checked_level
from mixedeffects.display.result_table import ResultTable
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.frame.model_frame import ModelFrame
from mixedeffects.inference.contrasts import contrast_rows, contrasts_and_constants, listed_names
from mixedeffects.inference.estimates import Estimates, tests_table
from mixedeffects.inference.variance import FixedEffectsVariance
from mixedeffects.inference.variance_by_name import fixed_effects_variance

__all__ = ["contrast_table", "linear_estimates", "named_contrasts"]

Matrix = NDArray[np.float64]


def linear_estimates(
    beta: Matrix, variance: FixedEffectsVariance, L: Matrix, constant: Matrix | float = 0.0
) -> Estimates:
    """Estimate linear functions of the fixed effects.

    Parameters
    ----------
    beta : ndarray, shape (p,)
        Fixed effects.
    variance : FixedEffectsVariance
        Their covariance matrix, and the method for degrees of freedom.
    L : ndarray, shape (r, p)
        One row per function; a row with NaN stands for one that cannot be estimated.
    constant : ndarray, shape (r,), or float
        Known part, added to ``L beta``.

    Returns
    -------
    Estimates
        A function that is identically zero has no degrees of freedom: NaN.
    """
    r = len(L)
    estimate, se, df = np.full(r, np.nan), np.full(r, np.nan), np.full(r, np.nan)
    known = np.isfinite(L).all(axis=1)
    rows = L[known]
    estimate[known] = rows @ beta + np.broadcast_to(constant, r)[known]
    se[known] = np.sqrt(variance.variances(rows))
    moving = np.isfinite(se) & (np.abs(L).sum(axis=1) > 0.0)
    if moving.any():
        df[moving] = variance.df(L[moving])
    return Estimates(estimate, se, df)


def contrast_table(
    fit: Fit, hypothesis: Any, ddf: str, vcov: str, cluster: Any, level: float
) -> ResultTable:
    """See `LinearMixedModel.contrast`."""
    level = checked_level(level)
    L, constant = named_contrasts(fit.frame, hypothesis)
    variance = fixed_effects_variance(fit, vcov, ddf, cluster)
    found = linear_estimates(fit.beta, variance, L.to_numpy(), constant)
    return tests_table(found, L.index, level, variance.method, variance.normal)


def named_contrasts(frame: ModelFrame, hypothesis: Any) -> tuple[pd.DataFrame, Matrix]:
    """Contrasts with their labels, as `LinearMixedModel.contrast` takes them.

    Parameters
    ----------
    frame : ModelFrame
        Names of coefficients and terms.
    hypothesis
        As for `labelled_contrasts`, or a mapping of labels to contrasts.

    Returns
    -------
    L : DataFrame, shape (r, p)
        The contrasts.
    constant : ndarray, shape (r,)
        What is added to each: of hypotheses in words, such as ``"Days = 10"``.
    """
    if isinstance(hypothesis, Mapping):
        hypothesis = _from_mapping(hypothesis, list(frame.fixef_names))
    return contrasts_and_constants(frame, hypothesis)


def _from_mapping(given: Mapping[Any, Any], names: list[str]) -> pd.DataFrame:
    if not given:
        raise ModelError("There are no contrasts in the mapping; it maps labels to coefficients.")
    rows = [_one_contrast(str(label), value, names) for label, value in given.items()]
    return pd.DataFrame(rows, [str(label) for label in given], names)


def _one_contrast(label: str, given: Any, names: list[str]) -> Matrix:
    wanted = (
        f"Contrast {label!r} maps names of coefficients to numbers, or is a vector of "
        f"{len(names)} numbers"
    )
    if isinstance(given, (pd.Series, Mapping)):
        values = given.tolist() if isinstance(given, pd.Series) else list(given.values())
        numbers = number_array(values, wanted, ModelError)
        given = pd.DataFrame(numbers.reshape(1, -1), columns=list(given.keys()))
    else:
        given = number_array(given, wanted, ModelError)
        if given.shape != (len(names),):
            raise ModelError(
                f"Contrast {label!r} has shape {given.shape}; it needs {len(names)} numbers, one "
                f"for each coefficient ({listed_names(names)})."
            )
    row: Matrix = contrast_rows(given, names)[0]
    return row
