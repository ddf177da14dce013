"""The semivariogram of a generalized model's residuals, beside those of data sets drawn from it.

No matrix says what residuals about fitted modes should have: they are smaller than errors, and
correlated within a level for its mode being fitted. So data sets are drawn from the model, their
modes are found anew, and their residuals make the semivariograms to compare with.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.options import checked_choice, checked_level, entropy_of
from mixedeffects.diagnostics.drawn_again import DrawnAgain
from mixedeffects.diagnostics.generalized_residuals import (
    generalized_residuals,
    pearson_residuals,
    quantile_residuals,
)
from mixedeffects.diagnostics.variogram import Bins, PairsInBins, Variogram
from mixedeffects.display.result_table import ResultTable
from mixedeffects.errors import ModelError
from mixedeffects.families import Response
from mixedeffects.fitting.generalized import GeneralizedFit
from mixedeffects.simulation.responses import checked_count

__all__ = ["generalized_variogram"]

Matrix = NDArray[np.float64]

_KINDS = ("quantile", "pearson")


def generalized_variogram(
    fit: GeneralizedFit,
    distance: Any,
    by: str | None,
    kind: str,
    bins: Bins,
    max_pairs: int,
    draws: Any,
    seed: Any,
    level: float,
) -> Variogram:
    """See `GeneralizedLinearMixedModel.variogram`."""
    kind = checked_choice(kind, "Variogram kind", _KINDS)
    count = checked_count(draws, "draws, the number of data sets drawn,")
    level = checked_level(level)
    entropy = entropy_of(seed)
    pairs = PairsInBins(fit, distance, by, bins, max_pairs)
    found = [
        pairs.semivariances(_residuals(fit, kind, each.y, each.mu, entropy + 1 + j))
        for j, each in enumerate(DrawnAgain(fit, entropy).outcomes(count))
    ]
    if not found:
        raise ModelError(
            "No data set drawn from the model has conditional modes, so there is nothing to "
            "compare the residuals with; see m.check()."
        )
    drawn = np.array(found)
    low, high = np.quantile(drawn, [0.5 - 0.5 * level, 0.5 + 0.5 * level], axis=0)
    table = ResultTable(
        {
            **pairs.columns(),
            "empirical": pairs.semivariances(generalized_residuals(fit, kind, entropy)),
            "implied": drawn.mean(axis=0),
            "lower": low,
            "upper": high,
        }
    )
    return pairs.result(table, kind, len(drawn), level)


def _residuals(fit: GeneralizedFit, kind: str, y: Matrix, mu: Matrix, entropy: int) -> Matrix:
    """Residuals of responses that were drawn."""
    if kind == "pearson":
        return pearson_residuals(fit, y, mu)
    own = fit.response
    return quantile_residuals(fit, Response(y, own.trials, own.weights), mu, entropy)
