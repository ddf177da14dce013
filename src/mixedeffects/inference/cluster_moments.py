"""Cluster scores and their second moments: sandwich covariance, degrees of freedom, saddlepoints.

In coordinates gamma with ``beta = N gamma`` and ``N'X'V^-1X N = I``, cluster i contributes the
score ``g_i = F_i'e_i``. If V is right, contrasts a, b (columns of ``N'L'``) of the scores have

    P_ij = cov(a'g_i, b'g_j) = 1(i = j) a'T_i b - (U_i a)'(U_j b),
    T_i = F_i'V_i F_i,    U_i = X_i'F_i

so every sum over pairs of clusters is one over clusters of p x p matrices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from mixedeffects.covariance.marginal import MarginalCovariance
from mixedeffects.errors import ModelError
from mixedeffects.inference.bias_reduction import bias_reduced
from mixedeffects.inference.cluster_factor import ClusterFactor
from mixedeffects.inference.unseen import unseen_functions

__all__ = [
    "KINDS",
    "ClusterMoments",
    "cluster_moments",
    "gls_coordinates",
    "group_sums",
    "product_sums",
]

Matrix = NDArray[np.float64]

KINDS = ("CR0", "CR1", "CR1p", "CR1S", "CR2", "CR3")

#: Smallest eigenvalue of ``I - H`` for which CR3 is still defined.
_DETERMINED = 1e-10


@dataclass(frozen=True, eq=False)
class ClusterMoments:
    """Scores of the clusters and moments of their weights.

    Parameters
    ----------
    N : ndarray, shape (p, p)
        From the coordinates to the coefficients.
    scores : ndarray, shape (J, p)
        ``F_i'e_i``.
    U, T : ndarray, shape (J, p, p)
        ``X_i'F_i`` and ``F_i'V_i F_i``.
    scale : float
        Factor of the covariance matrix (CR1, CR1p, CR1S).
    unseen : ndarray, shape (p, b)
        Functions of the coefficients that single clusters determine; see `unseen_functions`.
    """

    N: Matrix
    scores: Matrix
    U: Matrix
    T: Matrix
    scale: float
    unseen: Matrix

    @property
    def n_clusters(self) -> int:
        """Number of clusters, J."""
        return len(self.scores)

    @property
    def vcov(self) -> Matrix:
        """Covariance matrix of the coefficients, shape (p, p)."""
        root = self.scores @ self.N.T
        return np.asarray(self.scale * (root.T @ root))

    def variances(self, L: Matrix) -> tuple[Matrix, Matrix]:
        """For each contrast (r x p): ``a_i = a'T_i a``, shape (r, J), and ``U_i a``, (r, J, p)."""
        a = L @ self.N
        own = np.einsum("rp,jpq,rq->rj", a, self.T, a, optimize=True)
        return own, np.einsum("jpq,rq->rjp", self.U, a, optimize=True)

    def df(self, L: Matrix) -> Matrix:
        """Satterthwaite's degrees of freedom ``tr(P)^2 / tr(P^2)`` of each contrast, shape (r,)."""
        # In contrasts of one size, because squares of variances may be no numbers.
        size = np.sqrt(self.variances(L)[0].sum(axis=1))
        own, u = self.variances(L / np.where(size > 0.0, size, 1.0)[:, None])
        squares = np.einsum("rjp,rjp->rj", u, u)
        gram = np.einsum("rjp,rjq->rpq", u, u, optimize=True)
        trace = (own - squares).sum(axis=1)
        trace_of_square = (
            (own**2).sum(axis=1)
            - 2.0 * (own * squares).sum(axis=1)
            + np.einsum("rpq,rpq->r", gram, gram)
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(trace**2 / trace_of_square)

    def expected(self, L: Matrix) -> Matrix:
        """Expected covariance matrix of the contrasts if V is right, unscaled, shape (r, r)."""
        a = L @ self.N
        G = self.T.sum(axis=0) - np.einsum("jqp,jqr->pr", self.U, self.U, optimize=True)
        return np.asarray(a @ G @ a.T)

    def fourth_moments(self, L: Matrix) -> Matrix:
        """``sum_ij P^ac_ij P^bd_ij`` for contrasts a, b, c, d, as [a, c, b, d] of r^4 numbers."""
        a = L @ self.N
        own = np.einsum("rp,jpq,sq->jrs", a, self.T, a, optimize=True)
        u = np.einsum("jpq,rq->jpr", self.U, a, optimize=True)
        square = np.einsum("jpr,jps->jrs", u, u, optimize=True)
        gram = np.einsum("jpa,jqb->abpq", u, u, optimize=True)
        r = len(L)
        flat_own, flat_square = own.reshape(-1, r * r), square.reshape(-1, r * r)
        mixed = flat_own.T @ flat_square
        same = (flat_own.T @ flat_own - mixed - mixed.T).reshape(r, r, r, r)
        between = np.einsum("abpq,cdpq->acbd", gram, gram, optimize=True)
        return np.asarray(same + between)


def gls_coordinates(V: MarginalCovariance, X: Matrix, basis: Matrix) -> tuple[Matrix, Matrix]:
    """N with ``N'X'V^-1X N = I``, shape (p, p), and ``V^-1 X N``, shape (n, p).

    Parameters
    ----------
    V : MarginalCovariance
        The working model.
    X : ndarray, shape (n, p)
        Fixed-effects model matrix.
    basis : ndarray, shape (p, p)
        Makes the columns of ``X basis`` nearly orthogonal: those of X may be nearly collinear.
    """
    Xb = X @ basis
    S = V.solve(Xb)
    root = scipy.linalg.cholesky(Xb.T @ S, lower=True)
    inverse = scipy.linalg.solve_triangular(root, np.eye(len(root)), lower=True)
    return basis @ inverse.T, S @ inverse.T


def group_sums(values: Matrix, codes: NDArray[np.int64], n_groups: int) -> Matrix:
    """Sums of the rows of values (n, m) within groups, shape (n_groups, m)."""
    out = np.empty((n_groups, values.shape[1]))
    for a, column in enumerate(values.T):
        out[:, a] = np.bincount(codes, column, n_groups)
    return out


def product_sums(a: Matrix, b: Matrix, codes: NDArray[np.int64], n_groups: int) -> Matrix:
    """``a_j'b_j`` of the rows of each group, shape (n_groups, columns of a, columns of b)."""
    out = np.empty((n_groups, a.shape[1], b.shape[1]))
    for i, column in enumerate(a.T):
        out[:, i] = group_sums(column[:, None] * b, codes, n_groups)
    return out


def cluster_moments(
    V: MarginalCovariance,
    X: Matrix,
    residuals: Matrix,
    cluster: ClusterFactor,
    kind: str,
    basis: Matrix | None = None,
    n: int | None = None,
) -> ClusterMoments:
    """Scores and moments for clusters between which V is zero.

    Parameters
    ----------
    V : MarginalCovariance
        The working model; its inverse weighs.
    X : ndarray, shape (n, p)
        Fixed-effects model matrix.
    residuals : ndarray, shape (n,)
        Marginal residuals ``y - X beta``, beta by generalized least squares with V.
    cluster : ClusterFactor
        The clusters.
    kind : str
        One of `KINDS`.
    basis : ndarray, shape (p, p), optional
        As for `gls_coordinates`.
    n : int, optional
        Number of rows, where those given stand for more.

    Returns
    -------
    ClusterMoments

    Raises
    ------
    ModelError
        For CR3, if a cluster alone determines a coefficient; for CR2, if a matrix is too large.

    References
    ----------
    Pustejovsky, J. E. and Tipton, E. (2018). Small-sample methods for cluster-robust variance
    estimation and hypothesis testing in fixed effects models. Journal of Business and Economic
    Statistics 36, 672-683. Definitions as in R's clubSandwich.
    """
    n, p = X.shape[0] if n is None else n, X.shape[1]
    N, S = gls_coordinates(V, X, np.eye(p) if basis is None else basis)
    coordinates = X @ N
    J, codes = cluster.n_levels, cluster.codes
    M = product_sums(coordinates, S, codes, J)
    M = 0.5 * (M + M.transpose(0, 2, 1))
    # CR2 would show what it makes of these functions with a pseudo-inverse.
    unseen = unseen_functions(N, np.eye(p) - np.einsum("jpq,jqr->pr", M, M, optimize=True))
    if kind == "CR2":
        parts = bias_reduced(
            V._terms, V._blocks, V._structure.R, coordinates, residuals, codes, cluster.levels
        )
        return ClusterMoments(N, *parts, 1.0, unseen)
    scores = group_sums(S * residuals[:, None], codes, J)
    if kind == "CR3":
        rest = np.eye(p) - M
        smallest = np.linalg.eigvalsh(rest).min(axis=1, initial=1.0)
        if smallest.min() < _DETERMINED:
            alone = cluster.levels[int(smallest.argmin())]
            raise ModelError(
                f"CR3 is not defined here: without cluster {alone!r} of {cluster.name!r} some "
                "coefficient cannot be estimated. CR2 is defined for the others."
            )
        K = np.linalg.inv(rest)
        scores = np.einsum("jpq,jq->jp", K, scores)
        return ClusterMoments(N, scores, M @ K, K @ M @ K, 1.0, unseen)
    return ClusterMoments(N, scores, M, M, small_sample_factor(kind, J, n, p), unseen)


def small_sample_factor(kind: str, J: int, n: int, p: int) -> float:
    """Factor of the covariance matrix of CR0, CR1, CR1p and CR1S.

    Raises
    ------
    ModelError
        For CR1p, if there are no more clusters than coefficients.
    """
    if kind == "CR1":
        return J / (J - 1)
    if kind == "CR1S":
        return J * (n - 1) / ((J - 1) * (n - p))
    if kind == "CR1p":
        if p >= J:
            raise ModelError(
                f"CR1p divides by the number of clusters less that of coefficients; there are {J} "
                f"clusters and {p} coefficients. Use 'CR1', 'CR1S' or 'CR2'."
            )
        return J / (J - p)
    return 1.0
