"""Functions of the fixed effects whose variance clusters cannot show.

A function ``l'beta = a'gamma`` has the scores ``a'g_j``, one for each cluster. Where clusters
determine it one by one, such as the mean of an arm that is one cluster, the residuals of these
clusters add up to zero whatever the errors were: the scores vanish identically, and their squares
estimate nothing. These directions are the null space of G, the sum of the scores' covariance
matrices in the working model. Where V is zero between clusters, ``G = I - sum_j M_j^2`` with
``M_j = X_j'V_j^-1 X_j`` and ``sum_j M_j = I``, so that ``G a = 0`` means that a is a sum of vectors
with ``M_j v = v``: without cluster j, ``v'gamma`` could not be estimated.

An estimate with any part in these directions has a variance that is too small by that part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Unseen", "unseen_functions"]

Matrix = NDArray[np.float64]

#: Eigenvalue of G, whose largest is about one, that is rounding.
_NOTHING = 1e-10
#: Share of a function's variance that may be missing.
_NEGLIGIBLE = 1e-8


@dataclass(frozen=True, eq=False)
class Unseen:
    """What a robust covariance matrix leaves out.

    Attributes
    ----------
    directions : ndarray, shape (p, b)
        ``L directions`` are the coordinates of functions L in the null space of G.
    model : ndarray, shape (p, p)
        Covariance matrix of the fixed effects in the working model.
    seen : ndarray, shape (p, p)
        The robust covariance matrix of what is seen.
    """

    directions: Matrix
    model: Matrix
    seen: Matrix

    def hides(self, L: Matrix) -> NDArray[np.bool_]:
        """Which functions, rows of L (r, p), have a part that is not seen; shape (r,)."""
        part = np.square(L @ self.directions).sum(axis=1)
        return np.asarray(part > _NEGLIGIBLE * np.einsum("rp,pq,rq->r", L, self.model, L))


def unseen_functions(N: Matrix, G: Matrix) -> Matrix:
    """Directions that clusters do not see, shape (p, b); b is zero as a rule.

    Parameters
    ----------
    N : ndarray, shape (p, p)
        From coordinates gamma to the coefficients.
    G : ndarray, shape (p, p)
        Sum of the covariance matrices of the scores in the working model.
    """
    values, vectors = np.linalg.eigh(0.5 * (G + G.T))
    return np.asarray(N @ vectors[:, values < _NOTHING])
