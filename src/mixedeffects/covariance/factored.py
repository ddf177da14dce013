"""V with the factor of M that its inverse and its determinant need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.caching import cached_property
from mixedeffects.covariance.conditioned import conditioned_terms
from mixedeffects.covariance.residual_matrix import ResidualMatrix
from mixedeffects.covariance.structure import CovarianceStructure
from mixedeffects.engine.crossproducts import CrossProducts
from mixedeffects.engine.factorisation import Factorisation, NotPositiveDefiniteError
from mixedeffects.engine.parameters import theta_to_T
from mixedeffects.errors import DataError, ModelError
from mixedeffects.fitting.theta import read_theta
from mixedeffects.frame.model_frame import RandomTerm

__all__ = ["FactoredCovariance", "factorise", "refactored"]

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FactoredCovariance:
    """``V = tau^2 (Z Lambda Lambda'Z' + S)`` beside ``M = Lambda'Z'S^-1 Z Lambda + I``.

    Attributes
    ----------
    V : CovarianceStructure
        In columns whose products keep their digits.
    factorisation : Factorisation
        M, in the engine's columns.
    transforms : tuple of ndarray (k, k)
        C of each term, with ``z C`` the engine's columns.
    tau2 : float
        The residual variance in whose units the engine has S: sigma^2 at its unit weight.
    """

    V: CovarianceStructure
    factorisation: Factorisation
    transforms: tuple[Matrix, ...]
    tau2: float

    @classmethod
    def of(
        cls,
        terms: Sequence[RandomTerm],
        G: Sequence[Matrix],
        R: ResidualMatrix,
        sigma: float,
        factorisation: Factorisation,
    ) -> FactoredCovariance:
        """From terms in the user's columns, and sigma at unit prior weight."""
        computed, conditioned, transforms = conditioned_terms(terms, G, factorisation, sigma)
        V = CovarianceStructure(tuple(computed), tuple(conditioned), R)
        tau2 = sigma**2 / factorisation.A.basis.weight_scale
        return cls(V, factorisation, tuple(transforms), tau2)

    @cached_property
    def S(self) -> ResidualMatrix:
        """``R / tau^2``, the identity where there are no weights."""
        return self.V.R.divided_by(self.tau2)


def refactored(
    A: CrossProducts, terms: Sequence[RandomTerm], theta: Any, sigma: float
) -> tuple[list[Matrix], Factorisation]:
    """Covariance matrices of the terms' effects, and M, at parameters that a user gives.

    Raises
    ------
    ModelError
        If theta has the wrong length, a value is not finite, or V is not numerically positive
        definite there.
    """
    values = read_theta(terms, theta, no_numbers=DataError)
    T = theta_to_T(values, [term.n_columns for term in terms])
    factors = [A.basis.engine_factor(t, factor) for t, factor in enumerate(T)]
    factorisation = factorise(A, factors)
    return [sigma**2 * (factor @ factor.T) for factor in T], factorisation


def factorise(A: CrossProducts, factors: Sequence[Matrix]) -> Factorisation:
    """M at these relative covariance factors, or a ModelError if rounding makes it indefinite."""
    try:
        return Factorisation(A, factors)
    except NotPositiveDefiniteError:
        raise ModelError(
            "V is not numerically positive definite: the variances of the random effects are too "
            "large beside the residual variance."
        ) from None
