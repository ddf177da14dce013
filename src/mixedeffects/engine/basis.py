"""A well-conditioned basis to fit in, and the way back to the user's columns.

Predictors of very different size make every Newton step and every cross-product badly conditioned.
The fit therefore runs on

* fixed effects ``X* = X Q`` with ``X*'W*X* = n I``,
* random-effects columns ``z* = z C`` orthonormal over the data, term by term,
* the response ``y* = (y - offset - X beta0) / s``, the scaled least-squares residual,
* weights ``w* = w / mean(w)``.

The model is the same model: ``Sigma = C Sigma* C' / mean(w)``, ``sigma = s sigma* sqrt(mean(w))``,
``beta = beta0 + s Q beta*``, and the deviance differs by a constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

__all__ = [
    "Basis",
    "lower_factor",
    "make_basis",
    "orthonormal_columns",
    "orthonormal_fixed",
    "standard_response",
]

Matrix = NDArray[np.float64]

#: Share of a column that earlier ones do not explain, below which columns are only scaled.
_NEARLY_SINGULAR = 1e-9


@dataclass(frozen=True, eq=False)
class Basis:
    """How the engine's quantities map to the user's.

    Attributes
    ----------
    terms : tuple of ndarray, shape (k, k)
        The matrices C of the random terms (upper triangular).
    fixed : ndarray, shape (p, p)
        The matrix Q of the fixed effects.
    beta0 : ndarray, shape (p,)
        Weighted least-squares coefficients, taken off the response.
    response_scale, weight_scale : float
        s and mean(w).
    log_det_fixed : float
        log |det Q|, for the REML criterion.
    """

    terms: tuple[Matrix, ...]
    fixed: Matrix
    beta0: Matrix
    response_scale: float
    weight_scale: float
    log_det_fixed: float

    def deviance_offset(self, n: int, p: int, reml: bool) -> float:
        """What to add to the engine's deviance to get the user's."""
        df = n - p if reml else n
        offset = 2.0 * df * np.log(self.response_scale)
        return float(offset - 2.0 * self.log_det_fixed if reml else offset)

    def beta(self, beta_star: Matrix) -> Matrix:
        """Fixed effects in the user's columns."""
        return self.beta0 + self.response_scale * (self.fixed @ beta_star)

    def sigma(self, sigma_star: float) -> float:
        """Residual standard deviation at unit prior weight, in the response's units."""
        return sigma_star * self.response_scale * float(np.sqrt(self.weight_scale))

    def relative_factor(self, t: int, T_star: Matrix) -> Matrix:
        """Lower-triangular T of term t in the user's columns, diagonal not negative."""
        return lower_factor(self.terms[t] @ T_star / np.sqrt(self.weight_scale))

    def engine_factor(self, t: int, T: Matrix) -> Matrix:
        """A square factor in the engine's columns for the user's T (not triangular in general)."""
        solved = scipy.linalg.solve_triangular(self.terms[t], T, lower=False)
        return np.ascontiguousarray(solved * np.sqrt(self.weight_scale))


def lower_factor(factor: Matrix) -> Matrix:
    """Lower-triangular T with ``T T' = factor factor'`` and diagonal >= 0.

    A QR factorisation of the transpose, so a singular covariance needs no special care.
    """
    R = np.asarray(np.linalg.qr(factor.T, mode="r"))
    T = np.tril(R.T)
    signs = np.where(np.diag(T) < 0, -1.0, 1.0)
    return np.ascontiguousarray(T * signs + 0.0)


def orthonormal_columns(z: Matrix, weights: Matrix | None) -> tuple[Matrix, Matrix]:
    """``(z C, C)`` with ``(z C)'W(z C) = n I`` and C upper triangular.

    Where the columns are nearly collinear over the whole data, C only scales them.
    """
    n, k = z.shape
    if k == 1 and weights is None and (z == 1.0).all():
        return z, np.ones((1, 1))
    weighted = z if weights is None else z * weights[:, None]
    gram = z.T @ weighted / n
    size = np.sqrt(np.diag(gram))
    size[size == 0.0] = 1.0
    C = np.diag(1.0 / size)
    if k > 1:
        # Householder QR: cross-products would lose a slope whose values are all far from zero.
        root = 1.0 if weights is None else np.sqrt(weights)[:, None]
        R = np.asarray(np.linalg.qr(z * (root / size), mode="r")) / np.sqrt(n)
        R = R * np.where(np.diag(R) < 0, -1.0, 1.0)[:, None]
        if np.diag(R).min() > _NEARLY_SINGULAR:
            C = C @ scipy.linalg.solve_triangular(R, np.eye(k), lower=False)
    return np.ascontiguousarray(z @ C), C


def orthonormal_fixed(X: Matrix, weights: Matrix | None) -> tuple[Matrix, Matrix, float]:
    """``(X Q, Q, log |det Q|)`` with ``(X Q)'W(X Q) = n I``; X has full column rank.

    Cholesky orthogonalisation done twice is as accurate as Householder QR for columns that are not
    nearly collinear, and several times faster on many rows.
    """
    if X.shape[1] == 0:
        return X, np.zeros((0, 0)), 0.0
    Q = _inverse_root(X, weights)
    Q = Q @ _inverse_root(X @ Q, weights)
    return X @ Q, Q, float(np.log(np.abs(np.diag(Q))).sum())


def _inverse_root(X: Matrix, weights: Matrix | None) -> Matrix:
    """Upper-triangular Q that makes the columns of X Q orthonormal, up to rounding."""
    n, p = X.shape
    gram = X.T @ (X if weights is None else X * weights[:, None]) / n
    size = np.sqrt(np.diag(gram))
    try:
        R = scipy.linalg.cholesky(gram / np.outer(size, size), lower=False)
    except np.linalg.LinAlgError:
        R = np.zeros((p, p))
    if np.diag(R).min() < 1e-6:
        root = 1.0 if weights is None else np.sqrt(weights)[:, None]
        R = np.linalg.qr(X * root / size, mode="r") / np.sqrt(n)
    return (
        np.asarray(scipy.linalg.solve_triangular(R, np.diag(np.ones(p)), lower=False))
        / (size[:, None])
    )


def make_basis(
    y: Matrix,
    X: Matrix,
    z: Sequence[Matrix],
    weights: Matrix | None,
) -> tuple[Basis, Matrix, Matrix, list[Matrix], Matrix | None]:
    """Basis with ``y*, X*, [z*], w*`` in it."""
    weight_scale = 1.0
    if weights is not None:
        weight_scale = float(weights.mean())
        weights = weights / weight_scale
    X_star, Q, log_det = orthonormal_fixed(X, weights)
    y_star, beta0, scale = standard_response(y, X_star, Q, weights)
    z_star, C = [], []
    for columns in z:
        star, c = orthonormal_columns(columns, weights)
        z_star.append(star)
        C.append(c)
    basis = Basis(tuple(C), Q, beta0, scale, weight_scale, log_det)
    return basis, y_star, X_star, z_star, weights


def standard_response(
    y: Matrix, X_star: Matrix, Q: Matrix, weights: Matrix | None
) -> tuple[Matrix, Matrix, float]:
    """``(y*, beta0, s)``: the least-squares residual of y with mean square one."""
    n = y.shape[0]
    residual, beta0 = y, np.zeros(len(Q))
    # Twice, because the first projection of a large mean leaves rounding of its own size.
    for _ in range(2):
        weighted = residual if weights is None else residual * weights
        step = X_star.T @ weighted / n
        residual = residual - X_star @ step
        beta0 = beta0 + Q @ step
    weighted = residual if weights is None else residual * weights
    scale = float(np.sqrt(residual @ weighted / n))
    if not scale > 0.0:
        scale = 1.0
    return residual / scale, beta0, scale
