"""Residuals of a generalized model, given its conditional modes."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.special
from numpy.typing import NDArray

from mixedeffects.base.options import checked_choice, entropy_of
from mixedeffects.errors import ModelError
from mixedeffects.families import Response
from mixedeffects.fitting.fit import once_per_fit
from mixedeffects.fitting.generalized import GeneralizedFit, generalized
from mixedeffects.simulation.generalized_responses import GeneralizedSampler
from mixedeffects.simulation.responses import checked_count

__all__ = [
    "GENERALIZED_KINDS",
    "RANKED_AMONG",
    "SEED",
    "generalized_quantiles",
    "generalized_residuals",
    "pearson_residuals",
    "quantile_residuals",
    "quantiles_of_generalized",
    "simulated_ranks",
]

Matrix = NDArray[np.float64]

GENERALIZED_KINDS = (
    "response",
    "pearson",
    "scaled",
    "deviance",
    "working",
    "quantile",
    "simulated",
)

#: Draws that responses are ranked among, and the seed of residuals that are randomised.
RANKED_AMONG, SEED = 250, 1

#: Smallest probability of a residual, and relative difference of responses that are the same.
_LEAST, _SAME = 1e-16, 1e-12
#: By how much, relative to the largest, a unit deviance may be negative from rounding.
_ROUNDING = 1e-8


def generalized_residuals(
    fit: GeneralizedFit, kind: str, seed: Any = SEED, draws: Any = RANKED_AMONG
) -> Matrix:
    """Residuals of one kind, shape (n,); see `GeneralizedLinearMixedModel.resid`.

    Raises
    ------
    ModelError
        If the kind is not known, or not defined for the family.
    """
    kind = checked_choice(kind, "Residual kind", GENERALIZED_KINDS)
    if kind == "quantile":
        return quantile_residuals(fit, fit.response, fit.mu, entropy_of(seed))
    if kind == "simulated":
        count = checked_count(draws, "draws, the number of responses drawn for each row,")
        return simulated_ranks(fit, count, entropy_of(seed))
    response, family = fit.response, fit.family
    out: Matrix = response.y - fit.mu
    if kind == "response":
        return out
    if kind == "working":
        return np.asarray(out / family.link.derivative(fit.eta))
    if kind == "deviance":
        return np.asarray(np.sign(out) * np.sqrt(_unit_deviances(fit)))
    if kind == "scaled":
        return _scaled(fit, response.y, fit.mu)
    return pearson_residuals(fit, response.y, fit.mu)


def _scaled(fit: GeneralizedFit, y: Matrix, mu: Matrix) -> Matrix:
    """Residuals over their standard deviations, shape (n,)."""
    out = y - mu
    # A mean at the end of its range leaves no variance, and one far out more than numbers hold.
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        size = np.sqrt(fit.prior_weights / fit.family.variance(mu, fit.search_phi))
        return np.where(out == 0.0, 0.0, out * size)


def pearson_residuals(fit: GeneralizedFit, y: Matrix, mu: Matrix) -> Matrix:
    """Residuals over their standard deviations at a dispersion of one, shape (n,)."""
    return _scaled(fit, y, mu) * fit.sigma


def quantile_residuals(fit: GeneralizedFit, response: Response, mu: Matrix, entropy: int) -> Matrix:
    """Normal quantiles of the probability of a response up to each one, shape (n,).

    Of a discrete response a random one between the probabilities below it and up to it.
    """
    family, phi = fit.family, fit.search_phi
    up_to = np.asarray(family.cdf(response.y, mu, response, phi), dtype=np.float64)
    if family.discrete:
        below = family.cdf(response.y, mu, response, phi, strict=True)
        rng = np.random.default_rng(np.random.SeedSequence(entropy))
        up_to = below + rng.random(len(up_to)) * (up_to - below)
    return np.asarray(scipy.special.ndtri(np.clip(up_to, _LEAST, 1.0 - _LEAST)))


def simulated_ranks(fit: GeneralizedFit, count: int, entropy: int) -> Matrix:
    """Share of responses drawn with new random effects that lie below each one, shape (n,).

    Where some drawn are the same as the response, a random share between those below and up to it.
    """
    y = fit.response.y
    below, same = np.zeros(fit.nobs), np.zeros(fit.nobs)
    sampler = GeneralizedSampler(fit, entropy)
    for j in range(count):
        drawn = sampler.draw(j, j + 1)[:, 0]
        below += drawn < y - _SAME * np.abs(y)
        same += np.abs(drawn - y) <= _SAME * np.abs(y)
    rng = np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(count, 1)))
    return np.asarray((below + rng.random(fit.nobs) * same) / count)


def _unit_deviances(fit: GeneralizedFit) -> Matrix:
    """Twice what the log-likelihood of each row lacks of that with its own response as mean."""
    response, family = fit.response, fit.family
    with np.errstate(all="ignore"):
        saturated = family.log_density(response.y, response.y, fit.search_phi, response.trials)
        here = family.log_density(response.y, fit.mu, fit.search_phi, response.trials)
    # Where the mean rounds to the end of its range the row's own deviance is still right.
    d = fit.evaluation.rows.d
    if response.weights is not None:
        d = d / response.weights
    here = np.where(np.isfinite(here), here, -0.5 * d)
    out = 2.0 * (saturated - here) * fit.sigma**2
    least = float(out.min(initial=0.0))
    most = float(np.abs(out).max(initial=0.0))
    if not np.isfinite(out).all() or family.name == "beta" or least < -_ROUNDING * max(most, 1.0):
        raise ModelError(
            f"Deviance residuals are not defined for the {family.name} family: the likelihood of a "
            "row is not greatest where its mean is the response. Take resid('pearson')."
        )
    out = np.maximum(out, 0.0)
    return out if response.weights is None else np.asarray(out * response.weights)


@once_per_fit("quantiles of the scaled residuals")
def quantiles_of_generalized(fit: object) -> Matrix:
    """Minimum, quartiles and maximum of the scaled residuals."""
    scaled = generalized_residuals(generalized(fit), "scaled")
    return np.asarray(np.quantile(scaled, [0.0, 0.25, 0.5, 0.75, 1.0]))


def generalized_quantiles(fit: GeneralizedFit) -> Matrix:
    """Minimum, quartiles and maximum of the scaled residuals."""
    return quantiles_of_generalized(fit)
