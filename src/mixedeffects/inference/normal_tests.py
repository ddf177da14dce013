"""Normal tests of the fixed effects of a generalized model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mixedeffects.base.options import plain
from mixedeffects.display.result_table import ResultTable
from mixedeffects.errors import ModelError
from mixedeffects.fitting.generalized import GeneralizedFit
from mixedeffects.inference.estimates import Estimates, tests_table
from mixedeffects.inference.variance import is_robust

__all__ = ["check_normal", "normal_covariance", "normal_tests"]

#: What stands below a table.
_HOW = {
    "model": "z-tests, from the joint Hessian",
    "conditional": "z-tests, the covariances of the random effects taken as known",
}


def check_normal(ddf: Any) -> None:
    """Refuse degrees of freedom.

    Raises
    ------
    ModelError
        If a method other than ``"inf"`` is asked for.
    """
    if plain(ddf) != "inf":
        raise ModelError(
            f"ddf={ddf!r} is for linear mixed models. Tests of a generalized model use the normal "
            "distribution, ddf='inf'."
        )


def normal_covariance(fit: GeneralizedFit, kind: Any) -> pd.DataFrame:
    """Covariance matrix of the fixed effects by name; see `GeneralizedLinearMixedModel.vcov`.

    Raises
    ------
    ModelError
        If the kind is not known, or not there yet for generalized models.
    """
    if is_robust(kind):
        raise ModelError(
            f"Robust covariance matrices, such as {kind!r}, are not there yet for generalized "
            "models; there are 'model' and 'conditional'."
        )
    names = list(fit.fixef_names)
    return pd.DataFrame(fit.fixed_covariance(kind).copy(), index=names, columns=names)


def normal_tests(fit: GeneralizedFit, vcov: Any, level: float | None) -> ResultTable:
    """Estimates with z tests and intervals in R's style."""
    covariance = normal_covariance(fit, vcov).to_numpy()
    with np.errstate(invalid="ignore"):
        error = np.sqrt(np.diag(covariance))
    found = Estimates(fit.beta, error, np.full(len(error), np.inf))
    table = tests_table(found, fit.fixef_names, level, _HOW[str(plain(vcov)).lower()])
    return table.drop(columns="df").rename(columns={"t value": "z value", "Pr(>|t|)": "Pr(>|z|)"})
