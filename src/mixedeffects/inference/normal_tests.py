"""Normal tests of the fixed effects of a generalized model."""

from __future__ import annotations

from typing import Any

import pandas as pd

from mixedeffects.display.result_table import ResultTable
from mixedeffects.fitting.generalized import GeneralizedFit
from mixedeffects.inference.coefficients import coefficient_tests
from mixedeffects.inference.variance import check_normal
from mixedeffects.inference.variance_by_name import fixed_effects_variance

__all__ = ["check_normal", "normal_covariance", "normal_tests"]


def normal_covariance(fit: GeneralizedFit, kind: Any, cluster: Any = None) -> pd.DataFrame:
    """Covariance matrix of the fixed effects; see `GeneralizedLinearMixedModel.vcov`.

    Raises
    ------
    ModelError
        If the kind is not known, or clusters are not what they should be.
    """
    names = list(fit.fixef_names)
    covariance = fixed_effects_variance(fit, kind, "inf", cluster).vcov
    return pd.DataFrame(covariance.copy(), index=names, columns=names)


def normal_tests(
    fit: GeneralizedFit, vcov: Any, level: float | None, cluster: Any = None
) -> ResultTable:
    """Estimates with z tests and intervals in R's style."""
    return coefficient_tests(fit, "inf", vcov, level, cluster)
