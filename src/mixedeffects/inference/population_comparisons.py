"""Means over the random effects as parameters of their own, so that they can be compared."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.inference.estimates import Estimates
from mixedeffects.inference.link_scale import AveragesScale, PopulationScale
from mixedeffects.inference.variance import FixedDf, FixedEffectsVariance

__all__ = ["as_parameters"]

Matrix = NDArray[np.float64]

#: What is compared, `Means` of mean_comparisons.
AnyMeans = TypeVar("AnyMeans")


@dataclass(frozen=True, eq=False)
class _OwnMeans:
    """Which contrasts of means are estimable: those that leave out the means that are not."""

    lost: NDArray[np.bool_]

    def reduce(self, rows: Matrix) -> Matrix:
        """NaN throughout a row with a mean that is not estimable."""
        return np.where((rows[:, self.lost] != 0.0).any(axis=1)[:, None], np.nan, rows)


def as_parameters(given: AnyMeans) -> AnyMeans:
    """Means that are linear functions of themselves, where they are none of the fixed effects.

    Averages over the random effects have their covariance by the delta method, in all parameters of
    the model; other means are given back as they are.

    Parameters
    ----------
    given : Means
        Means of any scale.
    """
    means: Any = given
    scale = means.scale
    if not isinstance(scale, PopulationScale):
        return given
    assert scale.gradient is not None and scale.se is not None
    values = scale.values(means.estimates.estimate)
    lost = np.isnan(values)
    every = np.eye(len(values))
    labels = means.L.index
    fixed = FixedDf(np.inf)
    variance = FixedEffectsVariance(
        scale.gradient @ scale.gradient.T,
        fixed.df,
        fixed.f_test,
        means._variance.method,
        None,
        True,
    )
    own: Any = {
        "L": pd.DataFrame(np.where(lost[:, None], np.nan, every), labels, list(labels)),
        "constant": np.zeros(len(values)),
        "estimates": Estimates(values, scale.se, np.full(len(values), np.inf)),
        "scale": AveragesScale(scale.shown, hint=scale.hint),
        "_all_columns": every,
        "_estimability": _OwnMeans(lost),
        "_beta": np.where(lost, 0.0, values),
        "_variance": variance,
    }
    return cast("AnyMeans", replace(means, **own))
