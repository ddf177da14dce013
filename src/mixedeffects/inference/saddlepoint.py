"""Saddlepoint p-values of robust t statistics, clusters in linear cost.

With ``P = diag(a) - u u'`` (J x J, u is J x p) the covariance matrix of a contrast's cluster
scores if V is right, and ``t^2`` the squared statistic, ``P(|T| > |t|)`` is the probability that
``z_0^2 - t^2 sum_i w_i z_i^2 > 0`` with w the eigenvalues of P over their sum. Everything it needs
is derivatives of

    log|I + k P| = sum log(1 + k a_i) + log|K|,    K = I - k u'(I + k diag(a))^-1 u    (p x p)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.optimize
import scipy.sparse.linalg
import scipy.stats
from numpy.typing import NDArray

__all__ = ["saddlepoint_p_value"]

Matrix = NDArray[np.float64]

#: Nearer to zero than this the saddlepoint formula cancels; a limit takes its place.
_NEAR_ZERO = 0.01


def saddlepoint_p_value(t: float, a: Matrix, u: Matrix) -> tuple[float, float]:
    """Saddlepoint and two-sided p-value.

    Parameters
    ----------
    t : float
        The statistic.
    a : ndarray, shape (J,)
        Variances of the clusters' scores before beta was estimated.
    u : ndarray, shape (J, p)
        What the estimate of beta takes from them.

    Returns
    -------
    s, p : float

    References
    ----------
    McCaffrey, D. F. and Bell, R. M. (2006). Improved hypothesis testing for coefficients in
    generalized estimating equations with small samples of clusters. Statistics in Medicine 25,
    4081-4098; the approximation of Lugannani and Rice (1980), as in R's clubSandwich, whose root
    finder stops at an error of 1e-4 in s while this one goes on to rounding.

    Examples
    --------
    With one cluster of all weight it is the t test on one degree of freedom, nearly:

    >>> import numpy as np
    >>> s, p = saddlepoint_p_value(2.0, np.array([1.0, 1e-12]), np.zeros((2, 1)))
    >>> round(p, 2)
    0.31
    """
    total = float(a.sum() - (u * u).sum())
    if not (np.isfinite(t) and total > 0.0):
        return np.nan, np.nan
    if t == 0.0:
        return -np.inf, 1.0
    square = t * t
    ratio = square / total

    def pencil(k: float) -> tuple[Matrix, Matrix, Matrix]:
        d = 1.0 / (1.0 + k * a)
        K = np.eye(u.shape[1]) - k * (u.T * d) @ u
        return d, K, (u.T * d**2) @ u

    def slope(s: float) -> float:
        """``sum g / (1 - 2 g s)`` over g = 1 and g = -t^2 w_i."""
        d, K, L = pencil(2.0 * s * ratio)
        return float(1.0 / (1.0 - 2.0 * s) - ratio * (a @ d - np.trace(np.linalg.solve(K, L))))

    s = _root(slope, square, ratio, a, u)
    if abs(s) <= _NEAR_ZERO:
        gram = u.T @ u
        weighted = (u.T * a) @ u
        second = (a**2).sum() - 2.0 * np.trace(weighted) + (gram**2).sum()
        third = (
            (a**3).sum()
            - 3.0 * ((u.T * a**2) @ u).trace()
            + 3.0 * np.trace(weighted @ gram)
            - np.trace(gram @ gram @ gram)
        )
        cubes, squares = 1.0 - ratio**3 * third, 1.0 + ratio**2 * second
        return s, float(0.5 - cubes / (3.0 * np.sqrt(np.pi) * squares**1.5))
    k = 2.0 * s * ratio
    d, K, L = pencil(k)
    logarithm = np.log(np.abs(1.0 + k * a)).sum() + np.linalg.slogdet(K)[1] + np.log1p(-2.0 * s)
    KL = np.linalg.solve(K, L)
    curvature = -((a * d) ** 2).sum() - np.trace(KL @ KL)
    curvature += 2.0 * np.trace(np.linalg.solve(K, (u.T * (a * d**3)) @ u))
    spread = 1.0 / (1.0 - 2.0 * s) ** 2 - ratio**2 * curvature
    r = np.sign(s) * np.sqrt(max(logarithm, 0.0))
    q = s * np.sqrt(2.0 * spread)
    p = scipy.stats.norm.sf(r) - scipy.stats.norm.pdf(r) * (1.0 / r - 1.0 / q)
    return s, float(p)


def _root(
    slope: Callable[[float], float], square: float, ratio: float, a: Matrix, u: Matrix
) -> float:
    """Where the slope, which increases, is zero, between its poles."""
    if square >= 1.0:
        if slope(0.0) >= 0.0:
            return 0.0
        inside = 1.0 - 1e-9
        while slope(0.5 * inside) < 0.0:
            inside = 1.0 - (1.0 - inside) / 16.0
        low, high = 0.0, 0.5 * inside
    else:
        pole = -0.5 / (ratio * _largest_eigenvalue(a, u))
        margin = 1e-6
        while slope(pole * (1.0 - margin)) > 0.0 and margin > 1e-14:
            margin /= 16.0
        low, high = pole * (1.0 - margin), 0.0
        if slope(low) >= 0.0:
            return float(low)
    return float(scipy.optimize.brentq(slope, low, high, xtol=1e-14, rtol=1e-14))


def _largest_eigenvalue(a: Matrix, u: Matrix) -> float:
    J = len(a)
    if J <= 300:
        return float(np.linalg.eigvalsh(np.diag(a) - u @ u.T)[-1])
    operator = scipy.sparse.linalg.LinearOperator(
        (J, J), matvec=lambda x: a * x.ravel() - u @ (u.T @ x.ravel()), dtype=np.float64
    )
    found = scipy.sparse.linalg.eigsh(operator, 1, which="LA", v0=a + a.mean(), tol=1e-12)
    return float(found[0][0])
