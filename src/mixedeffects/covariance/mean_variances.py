"""Mean variances of a row of the response, by source."""

from __future__ import annotations

import numpy as np

from mixedeffects.covariance.of_fit import R_of, conditioned
from mixedeffects.fitting.fit import Fit

__all__ = ["random_variances", "residual_variance"]


def random_variances(fit: Fit) -> dict[str, float]:
    """Mean over the rows of ``z_i'G z_i`` of each grouping factor, ``tr(G_t Z_t'Z_t) / n``."""
    random: dict[str, float] = {}
    for term, G in zip(*conditioned(fit), strict=True):
        mean = float(np.sum(G * (term.z.T @ term.z))) / fit.nobs
        random[term.group] = random.get(term.group, 0.0) + mean
    return random


def residual_variance(fit: Fit) -> float:
    """Mean of the diagonal of R, ``sigma^2 / w_i`` where residuals are independent."""
    return float(np.mean(R_of(fit).diag()))
