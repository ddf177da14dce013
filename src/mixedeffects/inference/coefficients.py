"""The table of fixed effects: tests and intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import NDArray

from mixedeffects.errors import ModelError

if TYPE_CHECKING:
    from mixedeffects.model import LinearMixedModel

__all__ = ["DDF_METHODS", "coefficient_tests", "degrees_of_freedom"]

Matrix = NDArray[np.float64]

DDF_METHODS = ("satterthwaite", "residual", "inf")


def degrees_of_freedom(model: LinearMixedModel, ddf: str, contrasts: Matrix) -> Matrix:
    """Denominator degrees of freedom of each contrast (r x p), shape (r,).

    Raises
    ------
    ModelError
        If the method is not one of `DDF_METHODS`.
    """
    ddf = ddf.lower()
    if ddf == "satterthwaite":
        return model.satterthwaite.df(contrasts)
    if ddf == "residual":
        return np.full(len(contrasts), float(model.nobs - model.X.shape[1]))
    if ddf == "inf":
        return np.full(len(contrasts), np.inf)
    raise ModelError(
        f"ddf {ddf!r} is not known; there are {', '.join(repr(known) for known in DDF_METHODS)}."
    )


def coefficient_tests(
    model: LinearMixedModel, ddf: str, vcov: str, level: float | None, cluster: Any = None
) -> pd.DataFrame:
    """See `LinearMixedModel.coef_table`."""
    if str(vcov).upper().startswith("CR"):
        # A robust covariance matrix has its own degrees of freedom.
        return model.robust(vcov, cluster, level).table
    if level is not None and not 0.0 < level < 1.0:
        raise ModelError(f"level must lie between 0 and 1, for example 0.95; got {level}.")
    covariance = model.vcov(vcov)
    estimate = model.fixef.to_numpy()
    error = np.sqrt(np.diag(covariance))
    df = degrees_of_freedom(model, ddf, np.eye(len(estimate)))
    t = estimate / error
    table = pd.DataFrame(
        {
            "Estimate": estimate,
            "Std. Error": error,
            "df": df,
            "t value": t,
            "Pr(>|t|)": 2.0 * scipy.stats.t.sf(np.abs(t), df),
        },
        index=model.fixef.index,
    )
    if level is not None:
        half = scipy.stats.t.ppf(0.5 + level / 2.0, df) * error
        for bound, values in (
            (0.5 - level / 2, estimate - half),
            (0.5 + level / 2, estimate + half),
        ):
            table[f"{100 * bound:.4g} %"] = values
    return table
