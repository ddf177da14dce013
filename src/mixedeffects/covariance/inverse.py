"""V^-1 x, log|V| and quadratic forms, from the factor of M and never from V.

With ``V = Z G Z' + R``, ``G = tau^2 Lambda Lambda'`` and ``R = tau^2 S``,

    V^-1 x = R^-1 (x - Z b),     b = P Z'S^-1 x,    P = Lambda M^-1 Lambda'
    log|V| = log|R| + log|M|,   M = Lambda'Z'S^-1 Z Lambda + I

where b are the modes of the random effects if x is the response.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixedeffects.covariance.design import z_times, z_transpose_times
from mixedeffects.covariance.factored import FactoredCovariance
from mixedeffects.engine.provisional import remaining_effects

__all__ = ["log_determinant", "solve"]

Matrix = NDArray[np.float64]

#: Share of a vector beside its modes below which those are computed again from what is left.
_LOST = 1e-3


def solve(factored: FactoredCovariance, x: Matrix) -> Matrix:
    """``V^-1 x`` for x (n, m)."""
    return factored.V.R.solve(_less_modes(factored, x))


def log_determinant(factored: FactoredCovariance) -> float:
    """``log |V|``."""
    return float(factored.V.R.logdet() + factored.factorisation.logdet_random)


def _less_modes(factored: FactoredCovariance, x: Matrix) -> Matrix:
    """``x - Z b``."""
    factorisation = factored.factorisation
    nothing = np.zeros((0, x.shape[1]))
    modes, _ = factorisation.solve(_products(factored, x), nothing)
    left = x.copy()
    _subtract(factored, modes, left)
    lost = np.linalg.norm(left, axis=0) < _LOST * np.linalg.norm(x, axis=0)
    if lost.any():
        modes = [np.ascontiguousarray(own[:, :, lost]) for own in modes]
        rest = np.ascontiguousarray(left[:, lost])
        more = remaining_effects(factorisation, modes, _products(factored, rest))
        _subtract(factored, more, rest)
        left[:, lost] = rest
    return left


def _products(factored: FactoredCovariance, x: Matrix) -> list[Matrix]:
    """``Z'S^-1 x`` per factor, in the engine's columns."""
    weighted = factored.S.solve(x)
    products = []
    for factor in factored.factorisation.A.factors:
        parts = [
            np.matmul(
                factored.transforms[m.term].T,
                z_transpose_times(factored.V.terms[m.term], weighted),
            )
            for m in factor.members
        ]
        products.append(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1))
    return products


def _subtract(factored: FactoredCovariance, effects: Sequence[Matrix], out: Matrix) -> None:
    """Subtract Z times effects in the engine's columns from out."""
    for factor, b in zip(factored.factorisation.A.factors, effects, strict=True):
        for m in factor.members:
            own = np.matmul(-factored.transforms[m.term], b[:, m.columns])
            z_times(factored.V.terms[m.term], own, out)
