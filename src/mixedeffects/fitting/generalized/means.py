"""Means at any linear predictor; with some links not every one has a mean."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixedeffects.errors import ModelError
from mixedeffects.families import Family

__all__ = ["drawn_means", "means_at", "mixed_means"]

Matrix = NDArray[np.float64]

#: Points of the rule for means over a normal distribution.
_POINTS = 25


def means_at(family: Family, eta: Matrix) -> Matrix:
    """Means, NaN where the linear predictor is missing or has none.

    Examples
    --------
    >>> import numpy as np
    >>> from mixedeffects.families import Poisson
    >>> means_at(Poisson("identity"), np.array([2.0, -1.0]))
    array([ 2., nan])
    """
    with np.errstate(all="ignore"):
        return np.where(family.valid(eta), family.link.inverse(eta), np.nan)


def mixed_means(family: Family, eta: Matrix, variance: Matrix) -> Matrix:
    """Means over normal linear predictors, ``E g^-1(eta + N(0, v))``, by quadrature.

    NaN where some linear predictor of the rule has no mean.

    Parameters
    ----------
    family : Family
        With its link.
    eta, variance : ndarray, shape (n,)
        Mean and variance of each linear predictor.

    Examples
    --------
    >>> import numpy as np
    >>> from mixedeffects.families import Poisson
    >>> mixed_means(Poisson(), np.array([0.0]), np.array([1.0])) - np.exp(0.5) < 1e-12
    array([ True])
    """
    z, w = np.polynomial.hermite_e.hermegauss(_POINTS)
    spread = np.sqrt(variance)
    at = (means_at(family, eta + spread * point) for point in z)
    total = np.zeros(len(eta))
    for weight, values in zip(w / np.sqrt(2.0 * np.pi), at, strict=True):
        total += weight * values
    return total


def drawn_means(family: Family, eta: Matrix) -> Matrix:
    """Means at drawn random effects.

    Raises
    ------
    ModelError
        If some row has none.
    """
    means = means_at(family, eta)
    count = int(np.isnan(means).sum())
    if count:
        raise ModelError(
            f"With drawn random effects {count:,} of {len(eta):,} rows have a linear predictor "
            f"without a mean: with the link {family.link.name} not every one has. Draw with "
            "re='all', given the conditional modes, or take a link without an end, such as log or "
            "logit."
        )
    return means
