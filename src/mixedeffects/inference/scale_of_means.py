"""The scale of a table of means: that of the fit, of the response, or of population averages."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.options import checked_flag
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.generalized import GeneralizedFit, generalized
from mixedeffects.inference.generalized_prediction_variance import GeneralizedPredictionVariance
from mixedeffects.inference.grid_averages import GridAverage, z_of_cells
from mixedeffects.inference.link_scale import link_scale, population_scale
from mixedeffects.inference.response_scale import ResponseScale, response_scale
from mixedeffects.inference.variance import FixedEffectsVariance

__all__ = ["averaged_scale", "scale_of_means"]

Matrix = NDArray[np.float64]


def scale_of_means(
    fit: Fit, type: Any, bias_adjust: Any, sigma: Any, marginal: Any
) -> ResponseScale:
    """What ``type=`` and the options beside it ask for.

    Raises
    ------
    ModelError
        If an option is not what it should be, or means nothing for the fit.
    """
    if not fit.has_link:
        return response_scale(fit, type, bias_adjust, sigma)
    scale = link_scale(generalized(fit), type)
    if checked_flag(marginal, "marginal") and scale.way is None:
        raise ModelError(
            "marginal=True averages means, on the scale of the response; on that of the link the "
            "average over random effects is that of a typical level."
        )
    return scale


def averaged_scale(
    fit: GeneralizedFit,
    scale: ResponseScale,
    eta: Matrix,
    L: Matrix,
    average: GridAverage,
    variance: FixedEffectsVariance,
) -> ResponseScale:
    """The scale of averages over all random effects.

    The variance of the random part of a mean is the average of those in its cells of the grid.
    """
    every = tuple(range(len(fit.frame.terms)))
    assert variance.joint_root is not None
    root = variance.joint_root()
    errors = GeneralizedPredictionVariance(fit, every, root)
    v: Any = 0.0
    slopes: Any = 0.0
    for t in every:
        z = z_of_cells(fit, average.grid, t)
        v = v + np.einsum("ia,ab,ib->i", z, fit.G_blocks[t], z)
        slopes = slopes + errors.variance_directions(t, z)
    return population_scale(
        fit, scale, eta, L, average.of(v)[:, 0], average.of(slopes), root, variance
    )
