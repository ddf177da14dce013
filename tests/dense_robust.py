"""Cluster-robust inference from its definitions, with full n_j x n_j symmetric square roots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.optimize
import scipy.stats
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def symmetric_power(A: Matrix, power: float) -> Matrix:
    """Power of the matrix, or of the pseudo-inverse: null directions are left out."""
    values, vectors = np.linalg.eigh(0.5 * (A + A.T))
    keep = values > 1e-12 * values[-1]
    return (vectors[:, keep] * values[keep] ** power) @ vectors[:, keep].T


def cr2_adjustment(Phi: Matrix, B: Matrix) -> Matrix:
    """``S (S B S)^(+1/2) S`` with S the symmetric root of Phi.

    The singular values of ``S B^(1/2)`` are the roots of the eigenvalues of ``S B S``, which would
    lose all digits where Phi has eigenvalues of very different sizes.
    """
    S = symmetric_power(Phi, 0.5)
    P, s, _ = np.linalg.svd(S @ symmetric_power(B, 0.5))
    P, s = P[:, s > 1e-11 * s[0]], s[s > 1e-11 * s[0]]
    return S @ (P / s) @ P.T @ S


@dataclass
class DenseRobust:
    V: Matrix
    X: Matrix
    y: Matrix
    clusters: NDArray[np.integer]
    kind: str

    def __post_init__(self) -> None:
        n, p = self.X.shape
        W = np.linalg.inv(self.V)
        self.C = np.linalg.inv(self.X.T @ W @ self.X)
        self.beta = self.C @ self.X.T @ W @ self.y
        e = self.y - self.X @ self.beta
        levels = np.unique(self.clusters)
        J = len(levels)
        scale = {
            "CR1": J / (J - 1),
            "CR1p": J / (J - p) if p < J else np.nan,
            "CR1S": J * (n - 1) / ((J - 1) * (n - p)),
        }.get(self.kind, 1.0)
        self.weights = []  # n x p, one for each cluster, zero outside it
        self.vcov = np.zeros((p, p))
        for level in levels:
            rows = np.flatnonzero(self.clusters == level)
            Phi, Xj = self.V[np.ix_(rows, rows)], self.X[rows]
            Wj = np.linalg.inv(Phi)
            A = np.eye(len(rows))
            if self.kind == "CR2":
                A = cr2_adjustment(Phi, Phi - Xj @ self.C @ Xj.T)
            elif self.kind == "CR3":
                A = np.linalg.inv(np.eye(len(rows)) - Xj @ self.C @ Xj.T @ Wj)
            F = np.zeros((n, p))
            F[rows] = A.T @ Wj @ Xj @ self.C
            self.weights.append(F)
            score = F.T @ e
            self.vcov += scale * np.outer(score, score)
        self.residual_covariance = self.V - self.X @ self.C @ self.X.T

    def P(self, contrast: Matrix) -> Matrix:
        """J x J covariance matrix of the contrast's scores."""
        Q = np.column_stack([F @ contrast for F in self.weights])
        return Q.T @ self.residual_covariance @ Q

    def df(self, contrast: Matrix) -> float:
        P = self.P(contrast)
        return float(np.trace(P) ** 2 / (P**2).sum())

    def saddlepoint(self, i: int) -> tuple[float, float]:
        eigenvalues = np.linalg.eigvalsh(self.P(np.eye(len(self.beta))[i]))
        t2 = self.beta[i] ** 2 / self.vcov[i, i]
        g = np.append(1.0, -t2 * eigenvalues / eigenvalues.sum())

        def slope(s: float) -> float:
            return float((g / (1.0 - 2.0 * g * s)).sum())

        bounds = (0.5 / g.min() * (1 - 1e-12), 0.0) if t2 < 1 else (0.0, 0.5 * (1 - 1e-12))
        s = scipy.optimize.brentq(slope, *bounds, xtol=1e-15)
        if abs(s) <= 0.01:
            return s, 0.5 - (g**3).sum() / (3 * np.sqrt(np.pi) * (g**2).sum() ** 1.5)
        r = np.sign(s) * np.sqrt(np.log(1 - 2 * g * s).sum())
        q = s * np.sqrt(2 * (g**2 / (1 - 2 * g * s) ** 2).sum())
        return s, scipy.stats.norm.sf(r) - scipy.stats.norm.pdf(r) * (1 / r - 1 / q)

    def covariance_of_estimate(self, L: Matrix) -> tuple[Matrix, Matrix]:
        """Expectation (r, r) and covariances (r, r, r, r) of the estimated covariance."""
        Q = np.stack([F @ L.T for F in self.weights])  # J, n, r
        P = np.einsum("ima,mn,jnb->abij", Q, self.residual_covariance, Q, optimize=True)
        Omega = np.einsum("abii->ab", P)
        root = symmetric_power(Omega, -0.5)
        B = np.einsum("ca,abij,bd->cdij", root, P, root, optimize=True)
        cov = np.einsum("suij,tvij->stuv", B, B) + np.einsum("svij,tuij->stuv", B, B)
        return Omega, cov

    def htz(self, L: Matrix) -> tuple[float, float]:
        """Statistic and denominator degrees of freedom."""
        r = len(L)
        _, cov = self.covariance_of_estimate(L)
        eta = r * (r + 1) / np.einsum("stst->", cov)
        b = L @ self.beta
        Q = b @ np.linalg.solve(L @ self.vcov @ L.T, b)
        return float((eta - r + 1) / eta * Q / r), float(eta - r + 1)


def cameron_gelbach_miller(
    V: Matrix, X: Matrix, y: Matrix, factors: list[NDArray[np.integer]]
) -> Matrix:
    """Two-way CR0, each pair of rows once: they count if they share any level."""
    W = np.linalg.inv(V)
    C = np.linalg.inv(X.T @ W @ X)
    scores = (W @ X) * (y - X @ C @ X.T @ W @ y)[:, None]
    share = np.zeros(V.shape, dtype=bool)
    for codes in factors:
        share |= codes[:, None] == codes[None, :]
    return C @ scores.T @ share @ scores @ C
