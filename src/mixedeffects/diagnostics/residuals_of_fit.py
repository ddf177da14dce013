"""Residuals of any fit by the names that it has for them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixedeffects.diagnostics.generalized_residuals import generalized_residuals
from mixedeffects.diagnostics.residuals import residuals
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.generalized import GeneralizedFit

__all__ = ["residuals_of"]


def residuals_of(fit: Fit, kind: str) -> NDArray[np.float64]:
    """Residuals of one kind, shape (n,).

    Raises
    ------
    ModelError
        If the fit has no such kind.
    """
    if isinstance(fit, GeneralizedFit):
        return generalized_residuals(fit, kind)
    return residuals(fit, kind)
