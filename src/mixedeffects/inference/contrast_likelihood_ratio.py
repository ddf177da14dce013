"""Likelihood-ratio tests of linear hypotheses about the fixed effects of a generalized fit.

Where ``L beta = 0`` holds, ``beta = N gamma`` with N a basis of the null space of L, so the smaller
model is that of the columns ``X N``. Its criterion is by the same approximation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg

from mixedeffects.engine.factorisation import NotPositiveDefiniteError
from mixedeffects.engine.generalized import find_generalized_optimum
from mixedeffects.errors import ModelError
from mixedeffects.fitting.generalized import GeneralizedFit
from mixedeffects.inference.chi_bar import chi_squared_p
from mixedeffects.inference.contrasts import contrast_matrix

__all__ = ["contrast_likelihood_ratio"]


def contrast_likelihood_ratio(fit: GeneralizedFit, hypothesis: Any) -> tuple[float, int, float]:
    """The statistic, its degrees of freedom and the p-value, by chi-square.

    Parameters
    ----------
    fit : GeneralizedFit
        The larger model.
    hypothesis
        As for `GeneralizedLinearMixedModel.wald`.

    Raises
    ------
    ModelError
        If a name is not known, the contrasts do not fit the fixed effects or are dependent, or the
        smaller model cannot be fitted.
    """
    L = contrast_matrix(fit.frame, hypothesis)
    found, Q = fit.found, fit.found.design.basis.fixed
    # In coordinates in which the columns of X are orthonormal.
    N = Q @ scipy.linalg.null_space(L @ Q)
    start: dict[str, Any] = {"beta": np.linalg.lstsq(N, fit.beta, rcond=None)[0]}
    if found.restart is not None:
        start["T"] = found.restart
    if fit.search_phi is not None:
        start["phi"] = fit.search_phi
    try:
        smaller = find_generalized_optimum(
            found.design.with_columns(fit.frame.X @ N),
            nagq=fit.nagq,
            start=start,
            control=fit.request.control,
        )
    except NotPositiveDefiniteError as error:
        raise ModelError(f"The model of the hypothesis cannot be fitted: {error}.") from None
    statistic = max(float(smaller.criterion) - fit.criterion, 0.0)
    return statistic, len(L), chi_squared_p(statistic, len(L))
