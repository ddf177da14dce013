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

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from mixedeffects import _kernels
from mixedeffects.base.arrays import ReadOnlyArrays
from mixedeffects.base.centring import centring_transform
from mixedeffects.engine.triangular import inverse_upper

__all__ = [
    "Basis",
    "cross",
    "in_steps",
    "lower_factor",
    "make_basis",
    "orthonormal_columns",
    "orthonormal_fixed",
    "product_of",
    "standard_responses",
]

Matrix = NDArray[np.float64]

#: Share of a column that earlier ones do not explain, below which columns are only scaled.
_NEARLY_SINGULAR = 1e-9
#: The same, below which cross-products lose digits that matter.
_WELL_CONDITIONED = 1e-2
#: The same, below which it is worth seeing whether a column is far from zero.
_FAR_FROM_ZERO = 1e-4
#: Columns up to which our own products of tall matrices are faster than a BLAS library's.
_THIN = 8
_NONE = np.empty(0)


@dataclass(frozen=True, eq=False)
class Basis(ReadOnlyArrays):
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
    fixed_steps, term_steps : tuples of ndarray, of tuples
        Matrices whose product is Q, or C: columns that are far from zero keep their digits if they
        are multiplied by one after the other.
    """

    terms: tuple[Matrix, ...]
    fixed: Matrix
    beta0: Matrix
    response_scale: float
    weight_scale: float
    log_det_fixed: float
    fixed_steps: tuple[Matrix, ...] = ()
    term_steps: tuple[tuple[Matrix, ...], ...] = ()

    def in_units_of(self, unit: float) -> Basis:
        """With columns that are larger by a factor, and parameters that are smaller."""
        if unit == 1.0:
            return self
        return replace(
            self,
            terms=tuple(unit * C for C in self.terms),
            fixed=unit * self.fixed,
            log_det_fixed=self.log_det_fixed + len(self.fixed) * math.log(unit),
            fixed_steps=_times(self.fixed_steps, unit),
            term_steps=tuple(_times(steps, unit) for steps in self.term_steps),
        )

    def fixed_columns(self, X: Matrix) -> Matrix:
        """``X Q`` for rows of the user's X."""
        return in_steps(X, self.fixed_steps or (self.fixed,))

    def term_columns(self, t: int, z: Matrix) -> Matrix:
        """``z C`` for rows of the user's columns of term t."""
        return in_steps(z, self.term_steps[t] if self.term_steps else (self.terms[t],))

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
        solved = inverse_upper(self.terms[t]) @ T
        return np.ascontiguousarray(solved * np.sqrt(self.weight_scale))


def lower_factor(factor: Matrix) -> Matrix:
    """Lower-triangular T with ``T T' = factor factor'`` and diagonal >= 0.

    A QR factorisation of the transpose where it is not triangular yet, so a singular covariance
    needs no special care.
    """
    T = np.tril(factor)
    if not np.array_equal(T, factor):
        T = np.tril(np.asarray(np.linalg.qr(factor.T, mode="r")).T)
    signs = np.where(np.diag(T) < 0, -1.0, 1.0)
    return np.ascontiguousarray(T * signs + 0.0)


def cross(X: Matrix, Y: Matrix, weights: Matrix | None) -> Matrix:
    """``X'WY`` for tall matrices."""
    if max(X.shape[1], Y.shape[1]) > _THIN:
        return np.asarray(X.T @ (Y if weights is None else Y * weights[:, None]))
    out = np.zeros((X.shape[1], Y.shape[1]))
    _kernels.thin_cross(_c_order(X), _c_order(Y), _NONE if weights is None else weights, out)
    return out


def times(X: Matrix, Q: Matrix) -> Matrix:
    """``X Q`` for a tall X."""
    if max(X.shape[1], Q.shape[1]) > _THIN:
        return np.asarray(X @ Q)
    out = np.empty((X.shape[0], Q.shape[1]))
    _kernels.thin_times(_c_order(X), _c_order(Q), 1.0, False, 0, out)
    return out


def _c_order(matrix: Matrix) -> Matrix:
    return np.ascontiguousarray(matrix, dtype=np.float64)


def in_steps(X: Matrix, steps: Sequence[Matrix]) -> Matrix:
    """X times one matrix after the other."""
    for step in steps:
        X = times(X, step)
    return X


def _times(steps: tuple[Matrix, ...], unit: float) -> tuple[Matrix, ...]:
    return (*steps[:-1], unit * steps[-1]) if steps else ()


def product_of(steps: Sequence[Matrix]) -> Matrix:
    """Matrices, at least one, multiplied one after the other."""
    product = steps[0]
    for step in steps[1:]:
        product = product @ step
    return product


def orthonormal_columns(z: Matrix, weights: Matrix | None) -> tuple[Matrix, tuple[Matrix, ...]]:
    """``z C`` with ``(z C)'W(z C) = n I``, and the factors of C, all upper triangular.

    Where the columns are nearly collinear over the whole data, C only scales them.
    """
    k = z.shape[1]
    if k == 1 and weights is None and (z == 1.0).all():
        return z, (np.ones((1, 1)),)
    steps: tuple[Matrix, ...] = ()
    size, R = _root(z, weights)
    if k > 1 and np.diag(R).min() < _FAR_FROM_ZERO:
        centring = centring_transform(z)
        if centring is not None:
            steps, z = (centring,), times(z, centring)
            size, R = _root(z, weights)
    C = np.diag(1.0 / size)
    if k > 1 and np.diag(R).min() > _NEARLY_SINGULAR:
        C = C @ inverse_upper(R)
    return times(z, C), (*steps, C)


def orthonormal_fixed(
    X: Matrix, weights: Matrix | None
) -> tuple[Matrix, tuple[Matrix, ...], float]:
    """``X Q`` with ``(X Q)'W(X Q) = n I``, the factors of Q, and log |det Q|.

    X has full column rank.
    """
    if X.shape[1] == 0:
        return X, (np.zeros((0, 0)),), 0.0
    steps: tuple[Matrix, ...] = ()
    size, R = _root(X, weights)
    if np.diag(R).min() < _FAR_FROM_ZERO:
        centring = centring_transform(X)
        if centring is not None:
            steps, X = (centring,), times(X, centring)
            size, R = _root(X, weights)
    Q = inverse_upper(R) / size[:, None]
    steps, X = (*steps, Q), times(X, Q)
    if np.diag(R).min() < _WELL_CONDITIONED:
        # Once more: the first basis is orthonormal only up to the condition of X.
        size, R = _root(X, weights)
        Q = inverse_upper(R) / size[:, None]
        steps, X = (*steps, Q), times(X, Q)
    log_det = sum(float(np.log(np.abs(np.diag(step))).sum()) for step in steps)
    return X, steps, log_det


def _root(X: Matrix, weights: Matrix | None) -> tuple[Matrix, Matrix]:
    """Sizes of the columns, and R upper triangular with ``X'WX = n size R'R size``.

    By Cholesky of the cross-products where that is accurate, else by Householder QR: cross-products
    would lose a slope whose values are all far from zero.
    """
    n, k = X.shape
    gram = cross(X, X, weights) / n
    size = np.sqrt(np.diag(gram))
    size[size == 0.0] = 1.0
    scaled = gram / np.outer(size, size)
    try:
        R = np.asarray(scipy.linalg.cholesky(scaled, lower=False))
    except np.linalg.LinAlgError:
        R = np.zeros((k, k))
    if np.diag(R).min() < _WELL_CONDITIONED:
        root = 1.0 if weights is None else np.sqrt(weights)[:, None]
        R = np.asarray(np.linalg.qr(X * (root / size), mode="r")) / np.sqrt(n)
        # With fewer rows than columns there are zeros below.
        R = np.vstack([R, np.zeros((k - len(R), k))])
        R = R * np.where(np.diag(R) < 0, -1.0, 1.0)[:, None]
    return size, R


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
    if X.shape[1] <= _THIN:
        # A BLAS library takes wide matrices in either order.
        X = _c_order(X)
    X_star, fixed_steps, log_det = orthonormal_fixed(X, weights)
    Q = product_of(fixed_steps)
    y_star, beta0, scale = standard_responses(y[:, None], X_star, Q, weights)
    z_star, C = [], []
    for columns in z:
        star, steps = orthonormal_columns(columns, weights)
        z_star.append(star)
        C.append(steps)
    basis = Basis(
        tuple(product_of(steps) for steps in C),
        Q,
        beta0[:, 0],
        float(scale[0]),
        weight_scale,
        log_det,
        fixed_steps,
        tuple(C),
    )
    return basis, y_star[:, 0], X_star, z_star, weights


def standard_responses(
    Y: Matrix, X_star: Matrix, Q: Matrix, weights: Matrix | None, n: int | None = None
) -> tuple[Matrix, Matrix, Matrix]:
    """``(Y*, beta0, s)``, a column each: the least-squares residual of y with mean square one.

    n is the number of rows where those given stand for more.
    """
    n, m = len(Y) if n is None else n, Y.shape[1]
    residual, beta0 = Y, np.zeros((len(Q), m))
    # Twice, because the first projection of a large mean leaves rounding of its own size.
    for _ in range(2):
        step = cross(X_star, residual, weights) / n
        residual = residual - times(X_star, step)
        beta0 = beta0 + Q @ step
    weighted = residual if weights is None else residual * weights[:, None]
    scale = np.sqrt(np.einsum("ij,ij->j", residual, weighted) / n)
    scale[scale == 0.0] = 1.0
    return residual / scale, beta0, scale
