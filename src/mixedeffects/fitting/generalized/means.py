"""Means at any linear predictor; with some links not every one has a mean."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixedeffects.errors import ModelError
from mixedeffects.families import Family

__all__ = ["drawn_means", "means_at"]

Matrix = NDArray[np.float64]


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
