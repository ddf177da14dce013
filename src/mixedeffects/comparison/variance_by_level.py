"""Shares of variance within and between clusters, for models of two levels."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.covariance.mean_variances import residual_variance
from mixedeffects.covariance.of_fit import conditioned
from mixedeffects.display.result_table import ResultTable
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.inference.contrasts import listed_names

__all__ = ["r_squared_by_level"]

Matrix = NDArray[np.float64]


def r_squared_by_level(fit: Fit) -> ResultTable:
    """See `LinearMixedModel.r2_by_level`."""
    groups = sorted({term.group for term in fit.frame.terms})
    if len(groups) != 1:
        raise ModelError(
            "Shares of variance by level are defined for two levels, one grouping factor; there "
            f"are {listed_names(groups) if groups else 'none'}. m.r2() and m.icc(by_group=True) "
            "take any model."
        )
    codes = fit.frame.terms[0].codes
    fixed = fit.frame.X @ fit.beta
    means = _cluster_means(fixed[:, None], codes)[:, 0]
    n = fit.nobs
    slopes = shift = 0.0
    for term, G in zip(*conditioned(fit), strict=True):
        between = _cluster_means(term.z, term.codes)
        within = term.z - between
        slopes += float(np.sum(G * (within.T @ within))) / n
        shift += float(np.sum(G * (between.T @ between))) / n
    table = pd.DataFrame(
        [
            ("f1", "fixed effects within clusters", "within", np.sum((fixed - means) ** 2)),
            (
                "f2",
                "fixed effects between clusters",
                "between",
                np.sum((means - fixed.mean()) ** 2),
            ),
            ("v", "random slopes", "within", slopes * (n - 1)),
            ("m", "random intercepts", "between", shift * (n - 1)),
            ("e", "residual", "within", residual_variance(fit) * (n - 1)),
        ],
        columns=["source", "description", "level", "variance"],
    )
    table["variance"] /= n - 1
    table["total"] = table["variance"] / table["variance"].sum()
    for level in ("within", "between"):
        own = table["level"] == level
        share = table["variance"].where(own)
        table[level] = share / share.sum()
    return ResultTable.of(table)


def _cluster_means(values: Matrix, codes: NDArray[np.int32]) -> Matrix:
    """For each row the mean over its cluster."""
    count = np.bincount(codes)
    means = np.stack([np.bincount(codes, column) / count for column in values.T], axis=1)
    return np.asarray(means[codes])
