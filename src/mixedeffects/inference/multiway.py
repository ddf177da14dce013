"""Robust covariance where clusters cut V's blocks: several crossed factors, or one on request.

With scores ``g_i = row i of (V^-1 X) times residual i``, the matrix of one factor is the sum over
its levels of the outer products of summed scores. For several factors, inclusion and exclusion
over all their intersections (Cameron, Gelbach and Miller 2011):

    meat = sum over nonempty sets of factors of (-1)^(size + 1) meat(intersection of the set)
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.covariance.marginal import MarginalCovariance
from mixedeffects.errors import ModelError
from mixedeffects.inference.cluster_factor import ClusterFactor, intersection
from mixedeffects.inference.cluster_moments import (
    gls_coordinates,
    group_sums,
    product_sums,
    small_sample_factor,
)
from mixedeffects.inference.unseen import unseen_functions

__all__ = ["MULTIWAY_KINDS", "MultiwayCovariance", "multiway_covariance"]

Matrix = NDArray[np.float64]

#: Those that need no working model of the clusters.
MULTIWAY_KINDS = ("CR0", "CR1", "CR1p", "CR1S")

#: Eigenvalues not below minus this, relative to the largest, are rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class MultiwayCovariance:
    """Covariance matrix of the coefficients, and what had to be done to it.

    Attributes
    ----------
    vcov : ndarray, shape (p, p)
        Positive semidefinite.
    smallest : float
        Smallest eigenvalue before the repair, relative to the largest, of the matrix in
        coordinates in which the model's is I.
    repaired : bool
        Whether negative eigenvalues were put to zero.
    unseen : ndarray, shape (p, b)
        Functions of the coefficients that single clusters of one of the factors determine.
    """

    vcov: Matrix
    smallest: float
    repaired: bool
    unseen: Matrix


def multiway_covariance(
    V: MarginalCovariance,
    X: Matrix,
    residuals: Matrix,
    factors: Sequence[ClusterFactor],
    kind: str,
    basis: Matrix | None = None,
    n: int | None = None,
) -> MultiwayCovariance:
    """Inclusion and exclusion over the factors' intersections.

    Parameters
    ----------
    V, X, residuals, basis, n
        As for `cluster_moments`.
    factors : sequence of ClusterFactor
        One or more; intersections may be of any size.
    kind : str
        One of `MULTIWAY_KINDS`; each set of clusters has its own small-sample factor.

    Returns
    -------
    MultiwayCovariance
        Negative eigenvalues, which a difference can have, are put to zero in the coordinates in
        which the model's covariance matrix is I, so the result does not depend on units.

    Raises
    ------
    ModelError
        If the kind needs clusters between which V is zero.

    References
    ----------
    Cameron, A. C., Gelbach, J. B. and Miller, D. L. (2011). Robust inference with multiway
    clustering. Journal of Business and Economic Statistics 29, 238-249.
    """
    if kind not in MULTIWAY_KINDS:
        raise ModelError(
            f"{kind} is not defined where clusters cut the blocks of V; there are "
            f"{', '.join(repr(known) for known in MULTIWAY_KINDS)}."
        )
    n, p = X.shape[0] if n is None else n, X.shape[1]
    N, S = gls_coordinates(V, X, np.eye(p) if basis is None else basis)
    scores = S * residuals[:, None]
    meat = np.zeros((p, p))
    for size in range(1, len(factors) + 1):
        for chosen in itertools.combinations(factors, size):
            clusters = intersection(chosen)
            sums = group_sums(scores, clusters.codes, clusters.n_levels)
            factor = small_sample_factor(kind, clusters.n_levels, n, p)
            meat += (-1.0) ** (size + 1) * factor * (sums.T @ sums)
    values, vectors = np.linalg.eigh(meat)
    largest = values.max(initial=0.0)
    smallest = float(values[0] / largest) if largest > 0.0 else np.nan
    repaired = smallest < -_ROUNDING
    if p and largest <= 0.0:
        raise ModelError(
            "The multiway covariance matrix has no positive eigenvalue: the clusters are too few "
            "or overlap too much for inclusion and exclusion. Cluster by one factor."
        )
    if smallest < 0.0:
        meat = (vectors * np.maximum(values, 0.0)) @ vectors.T
    unseen = [
        unseen_functions(N, _expected_meat(V, X @ N, S, factor.codes, factor.n_levels))
        for factor in factors
    ]
    return MultiwayCovariance(N @ meat @ N.T, smallest, repaired, np.hstack(unseen))


def _expected_meat(
    V: MarginalCovariance,
    coordinates: Matrix,
    S: Matrix,
    codes: NDArray[np.int64],
    n_clusters: int,
) -> Matrix:
    """Sum of the scores' covariance matrices if V is right: ``sum_j S_j'V_jj S_j - M_j'M_j``."""
    total = S.T @ (V._diagonal[:, None] * S)
    for term, block in zip(V._terms, V._blocks, strict=True):
        # V within a cluster adds up over the levels of each term there.
        pair, levels = pd.factorize(codes * term.n_levels + term.codes)
        sums = product_sums(term.z, S, pair.astype(np.int64), len(levels))
        total += np.einsum("lap,ab,lbq->pq", sums, block, sums, optimize=True)
    M = product_sums(coordinates, S, codes, n_clusters)
    return np.asarray(total - np.einsum("jap,jaq->pq", M, M, optimize=True))
