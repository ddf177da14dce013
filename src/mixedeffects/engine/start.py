"""A starting value from one evaluation.

At T = I the matrix score of a term splits into ``B - CC`` with ``B = sum [Z'PZ]_ii`` and
``CC = sum c_i c_i' / sigma^2``. If the conditional covariance of the term's effects were one matrix
``H = Sigma + E`` for all m levels (E the sampling noise), then ``B = m H^-1`` and
``CC = H^-1 S H^-1`` with S the effects' sum of squares, and the best Sigma would be ``S/m - E``.
That is exact for one balanced factor and a good guess elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.crossproducts import CrossProducts
from mixedeffects.engine.objective import evaluate
from mixedeffects.engine.parameters import lower_entries

__all__ = ["starting_factors"]

Matrix = NDArray[np.float64]

#: Smallest relative variance to start from: a start at zero would be a stationary point.
_FLOOR = 0.01
#: Largest one: the moment estimate has no bound.
_CEILING = 1e4
#: Information on a variance, per level, that is nothing but rounding.
_NOTHING = 1e-10


def starting_factors(
    A: CrossProducts,
    reml: bool,
    few_directions: bool = False,
    around: Sequence[Matrix] | None = None,
) -> list[Matrix]:
    """One lower-triangular factor per term; ``few_directions`` as for `evaluate`.

    Moments are taken at ``around`` where that is given, one factor per term, in place of T = I.
    """
    here = [np.eye(k) for k in A.term_columns] if around is None else list(around)
    at_first = evaluate(A, here, reml, few_directions)
    if few_directions:
        variances = [np.eye(k)[:, :, None] * np.eye(k)[:, None] for k in A.term_columns]
        of_variances = np.diag(at_first.information_along(variances))
    else:
        on_diagonal = [np.equal(*lower_entries(k)) for k in A.term_columns]
        of_variances = np.diag(at_first.information)[np.concatenate(on_diagonal)]
    levels = {m.term: factor.n_levels for factor in A.factors for m in factor.members}
    factors, start = [], 0
    for t, k in enumerate(A.term_columns):
        CC = at_first.outer_products[t]
        B = at_first.score[t] + CC
        own = of_variances[start : start + k]
        start += k
        first = here[t] @ here[t].T
        try:
            known, directions = np.linalg.eigh(B)
            seen = directions[:, known > _NOTHING * levels[t]]
            if seen.shape[1] == k:
                sigma = _moments(B, CC, own, first)
            else:
                # Fixed effects take all there is to know of the rest: any start is as good there.
                sigma = np.eye(k) - seen @ seen.T
                if seen.shape[1]:
                    within = _moments(
                        seen.T @ B @ seen,
                        seen.T @ CC @ seen,
                        own @ seen**2,
                        seen.T @ first @ seen,
                    )
                    sigma = sigma + seen @ within @ seen.T
            factors.append(np.asarray(np.linalg.cholesky(sigma), dtype=np.float64))
        except np.linalg.LinAlgError:
            factors.append(np.eye(k))
    return factors


def _moments(B: Matrix, CC: Matrix, information: Matrix, first: Matrix) -> Matrix:
    """Moment estimate of Sigma, taken at a first one, within bounds."""
    with np.errstate(divide="ignore", invalid="ignore"):
        levels = float(np.mean(np.diag(B) * np.diag(CC) / information))
        H = levels * np.linalg.inv(B)
        sigma = first + H @ CC @ H / levels - H
    if not np.isfinite(sigma).all():
        raise np.linalg.LinAlgError
    values, vectors = np.linalg.eigh(0.5 * (sigma + sigma.T))
    return np.asarray((vectors * np.clip(values, _FLOOR, _CEILING)) @ vectors.T)
