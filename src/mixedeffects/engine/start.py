"""A starting value from one evaluation.

At T = I the matrix score of a term splits into ``B - CC`` with ``B = sum [Z'PZ]_ii`` and
``CC = sum c_i c_i' / sigma^2``. If the conditional covariance of the term's effects were one matrix
``H = Sigma + E`` for all m levels (E the sampling noise), then ``B = m H^-1`` and
``CC = H^-1 S H^-1`` with S the effects' sum of squares, and the best Sigma would be ``S/m - E``.
That is exact for one balanced factor and a good guess elsewhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.crossproducts import CrossProducts
from mixedeffects.engine.objective import evaluate
from mixedeffects.engine.parameters import lower_entries

__all__ = ["starting_factors"]

Matrix = NDArray[np.float64]

#: Smallest relative variance to start from: a start at zero would be a stationary point.
_FLOOR = 0.01
#: Largest one: where fixed effects take all there is to know, the moment estimate has no bound.
_CEILING = 1e4


def starting_factors(A: CrossProducts, reml: bool, few_directions: bool = False) -> list[Matrix]:
    """One lower-triangular factor per term; ``few_directions`` as for `evaluate`."""
    identity = [np.eye(k) for k in A.term_columns]
    at_identity = evaluate(A, identity, reml, few_directions)
    if few_directions:
        variances = [np.eye(k)[:, :, None] * np.eye(k)[:, None] for k in A.term_columns]
        of_variances = np.diag(at_identity.information_along(variances))
    else:
        on_diagonal = [np.equal(*lower_entries(k)) for k in A.term_columns]
        of_variances = np.diag(at_identity.information)[np.concatenate(on_diagonal)]
    factors, start = [], 0
    for k, F, CC in zip(A.term_columns, at_identity.score, at_identity.outer_products, strict=True):
        own = of_variances[start : start + k]
        start += k
        try:
            factors.append(_moment_factor(F + CC, CC, own))
        except np.linalg.LinAlgError:
            factors.append(np.eye(k))
    return factors


def _moment_factor(B: Matrix, CC: Matrix, information: Matrix) -> Matrix:
    with np.errstate(divide="ignore", invalid="ignore"):
        levels = float(np.mean(np.diag(B) * np.diag(CC) / information))
        H = levels * np.linalg.inv(B)
        sigma = np.eye(B.shape[0]) + H @ CC @ H / levels - H
    if not np.isfinite(sigma).all():
        raise np.linalg.LinAlgError
    values, vectors = np.linalg.eigh(0.5 * (sigma + sigma.T))
    return np.linalg.cholesky((vectors * np.clip(values, _FLOOR, _CEILING)) @ vectors.T)
