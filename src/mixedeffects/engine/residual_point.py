"""R at one point, whatever its model is parameterised by: what points of a profile have in common.

A search has S with a mean innovation of one and its standard deviations centred; a fit has S with D
one where its columns are zero; a profile holds a parameter and has one less. Here are the
quantities that mean the same in all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.residual_model import ResidualModel
from mixedeffects.engine.residual_objective import ResidualEvaluation
from mixedeffects.engine.residual_rows import ResidualRows

__all__ = ["ResidualPoint", "log_unit", "searched_rows"]

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ResidualPoint:
    """Values of R's parameters.

    Attributes
    ----------
    sigma : float
        Standard deviation at unit prior weight where the columns v are zero, in the engine's scale.
    coefficients : ndarray, shape (s,)
        Of the logarithms of the standard deviations in the columns v; NaN where no row has any.
    zeta : tuple of ndarray
        Parameters of each stratum's family.
    """

    sigma: float
    coefficients: Matrix
    zeta: tuple[Matrix, ...]

    @classmethod
    def of(cls, evaluation: ResidualEvaluation) -> ResidualPoint:
        """At a fit, where sigma is that where v is zero."""
        model, phi = evaluation.model, evaluation.phi
        return cls(
            float(np.sqrt(evaluation.at_theta.sigma2)),
            model.coefficients(phi),
            tuple(np.array(phi[at]) for at in model.places[: len(model.families)]),
        )

    def phi(self, model: ResidualModel) -> Matrix:
        """The parameters of a model of the same columns and families."""
        return np.concatenate([model.of_coefficients(self.coefficients), *self.zeta])


def log_unit(model: ResidualModel, phi: Matrix) -> float:
    """Logarithm of a search's sigma where v is zero, relative to that of the search."""
    if not model.is_normalised:
        return 0.0
    return -model.with_unit_at_zero(phi).at(phi).log_unit


def searched_rows(rows: ResidualRows) -> ResidualRows:
    """The rows of a fit with S as in a search, and no sums of another model."""
    return rows.with_model(ResidualModel(rows.model.design))
