"""Mean variances of a row of the response, by source."""

from __future__ import annotations

import numpy as np

from mixedeffects.covariance.of_fit import R_of, conditioned
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.in_table import unweighted_moments

__all__ = ["random_variances", "residual_variance", "term_variances"]


def term_variances(fit: Fit) -> list[float]:
    """Mean over the rows of ``z_i'G z_i`` of each term, ``tr(G_t Z_t'Z_t) / n``."""
    if fit.rows is not None:
        moments = unweighted_moments(fit)
        columns = [term.columns for term in fit.rows.columns.terms]
        return [
            float(np.sum(G * moments.products(at))) / fit.nobs
            for at, G in zip(columns, fit.G_blocks, strict=True)
        ]
    return [
        float(np.sum(G * (term.z.T @ term.z))) / fit.nobs
        for term, G in zip(*conditioned(fit), strict=True)
    ]


def random_variances(fit: Fit) -> dict[str, float]:
    """The sum of `term_variances` of each grouping factor."""
    random: dict[str, float] = {}
    for term, variance in zip(fit.frame.terms, term_variances(fit), strict=True):
        random[term.group] = random.get(term.group, 0.0) + variance
    return random


def residual_variance(fit: Fit) -> float:
    """Mean of the diagonal of R, ``sigma^2 / w_i`` where residuals are independent."""
    if fit.rows is not None:
        return fit.sigma**2 * unweighted_moments(fit).mean_inverse_weight
    return float(np.mean(R_of(fit).diag()))
