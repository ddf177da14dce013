"""Distribution of the studentized range, for all comparisons of many means at once.

With S(r) the probability that the range of k standard normal variables exceeds r, and ``u = log s``
the logarithm of the scale, ``s^2 df ~ chi^2(df)``,

    S(r) = k int phi(z) [Phi(z)^(k-1) - (Phi(z) - Phi(z - r))^(k-1)] dz
    P(Q > q) = C int exp(df (u - e^(2u) / 2)) S(q e^u) du

Both integrands are analytic, positive and fall off at both ends, so that trapezoids converge
exponentially and small probabilities keep their digits. The second is log-concave: one peak, and
one interval outside which there is nothing. S does not depend on q and df: its logarithm is
tabulated once for each k.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import scipy.interpolate
import scipy.special
from numpy.typing import ArrayLike, NDArray

__all__ = ["studentized_range_sf"]

Matrix = NDArray[np.float64]

#: Distance of the places z, which are centred at r / 2, and how far they go.
_STEP, _REACH = 0.0625, 10.0
#: The largest range tabulated, and the degree of the spline through the table.
_LARGEST, _DEGREE = 54.0, 7
#: Logarithm by which the integrand must have fallen from its peak to count for nothing.
_NEGLIGIBLE = 40.0
#: Points of the integral over the scale: at least so many, and at this distance times log k.
_SCALES, _SCALE_STEP = 48, 0.07
#: Halvings of an interval that holds the peak, and of one that holds an end.
_FOR_PEAK, _FOR_END = 16, 5
#: Numbers in one batch of integrals.
_BATCH = 2**20


def studentized_range_sf(q: ArrayLike, k: int, df: ArrayLike) -> Matrix:
    """Probability that the studentized range of k means exceeds q.

    Parameters
    ----------
    q : float or ndarray
        Ranges in units of the estimated standard deviation, not negative.
    k : int
        Number of means.
    df : float or ndarray
        Degrees of freedom of the standard deviation, positive; may be infinite. Broadcast with q.

    Returns
    -------
    ndarray, of the shape of q and df together
        With a relative error of about 1e-10.

    References
    ----------
    Copenhaver, M. D. and Holland, B. S. (1988). Computation of the distribution of the maximum
    studentized range statistic with application to multiple significance testing of simple effects.
    Journal of Statistical Computation and Simulation 30, 1-15.

    Examples
    --------
    >>> studentized_range_sf([3.5, 4.5], 3, 20.0).round(5)
    array([0.05589, 0.01245])
    """
    ranges, degrees = np.broadcast_arrays(
        np.asarray(q, dtype=np.float64), np.asarray(df, dtype=np.float64)
    )
    # Infinite where there is no variance, NaN where there is no comparison.
    out = np.where(np.isposinf(ranges), 0.0, np.nan)
    given = np.isfinite(ranges) & ~np.isnan(degrees)
    known, estimated = given & np.isinf(degrees), given & np.isfinite(degrees)
    out[known] = np.exp(_log_range_sf(k)(np.minimum(ranges[known], _LARGEST)))
    out[estimated] = _over_scales(ranges[estimated], k, degrees[estimated])
    return out


@lru_cache(maxsize=32)
def _log_range_sf(k: int) -> scipy.interpolate.PPoly:
    """``log S(r)`` for r from 0 to the largest tabulated."""
    half = 0.5 * np.arange(0.0, _LARGEST + _STEP, _STEP)
    places = np.arange(-_REACH, _REACH + _STEP, _STEP)
    z = half[:, None] + places
    # Relative to Phi(z), which is next to one or next to nothing wherever phi(z) is.
    below = scipy.special.log_ndtr(z)
    beyond = np.exp(scipy.special.log_ndtr(places - half[:, None]) - below)
    with np.errstate(divide="ignore"):
        lost = -np.expm1((k - 1.0) * np.log1p(-np.minimum(beyond, 1.0)))
    # phi(z) at r / 2 + t, less the factor of all t, which underflows last.
    shape = np.exp(-0.5 * places**2 - half[:, None] * places + (k - 1.0) * below)
    total = (shape * lost).sum(axis=1) * _STEP * k / np.sqrt(2.0 * np.pi)
    log_sf = np.minimum(np.log(total) - 0.5 * half**2, 0.0)
    spline = scipy.interpolate.make_interp_spline(2.0 * half, log_sf, k=_DEGREE)
    return scipy.interpolate.PPoly.from_spline(spline.tck)


def _over_scales(q: Matrix, k: int, df: Matrix) -> Matrix:
    """The integral over the logarithm of the scale, for each of q and df, shape (m,)."""
    log_sf = _log_range_sf(k)
    slope = log_sf.derivative()

    def rises(u: Matrix) -> NDArray[np.bool_]:
        r = np.minimum(q * np.exp(u), _LARGEST)
        return np.asarray(-df * np.expm1(2.0 * u) + r * slope(r) > 0.0)

    def height(u: Matrix) -> Matrix:
        return _log_integrand(u, q, df, log_sf)

    # The slope of log S is the smallest for two means, and there at least -(r / 2 + 0.57).
    bottom = 2.0 * df / (0.57 * q + np.sqrt(0.33 * q**2 + 4.0 * df * (df + 0.5 * q**2)))
    peak = _last(rises, np.log(bottom), np.zeros_like(q), _FOR_PEAK)[0]
    least = height(peak) - _NEGLIGIBLE
    low = peak - _end(lambda far: height(peak - far) > least, df)
    width = peak + _end(lambda far: height(peak + far) > least, df) - low

    out = np.empty_like(q)
    order = np.argsort(-width, kind="stable")
    points = np.maximum(np.ceil(width * np.log(max(k, 3)) / _SCALE_STEP), _SCALES).astype(np.int64)
    start = 0
    while start < len(order):
        n = int(points[order[start]])
        own = order[start : start + max(1, _BATCH // n)]
        u = low[own, None] + width[own, None] * np.linspace(0.0, 1.0, n + 1)
        each = _log_integrand(u, q[own, None], df[own, None], log_sf)
        out[own] = np.exp(each + _log_constant(df[own])[:, None]).sum(axis=1) * width[own] / n
        start += len(own)
    return np.minimum(out, 1.0)


def _log_integrand(u: Matrix, q: Matrix, df: Matrix, log_sf: Callable[[Matrix], Matrix]) -> Matrix:
    return df * (u - 0.5 * np.expm1(2.0 * u)) + log_sf(np.minimum(q * np.exp(u), _LARGEST))


def _log_constant(df: Matrix) -> Matrix:
    """``log C + df / 2``: of ``2 (df/2)^(df/2) e^(-df/2) / Gamma(df/2)``."""
    x = 0.5 * df
    # The difference of large numbers, in Stirling's series.
    large = np.maximum(x, 30.0)
    series = 0.5 * np.log(large / (2.0 * np.pi)) - (1.0 / 12.0 - 1.0 / (360.0 * large**2)) / large
    small = np.minimum(x, 30.0)
    direct = small * np.log(small) - small - scipy.special.gammaln(small)
    return np.asarray(np.log(2.0) + np.where(x > 30.0, series, direct))


def _end(counts: Callable[[Matrix], NDArray[np.bool_]], df: Matrix) -> Matrix:
    """The distance at which something that counts at zero ceases to."""
    high = 1.0 / np.sqrt(df)
    while (inside := counts(high)).any():
        high = np.where(inside, 2.0 * high, high)
    return _last(counts, np.zeros_like(high), high, _FOR_END)[1]


def _last(
    holds: Callable[[Matrix], NDArray[np.bool_]], low: Matrix, high: Matrix, halvings: int
) -> tuple[Matrix, Matrix]:
    """Narrow down where a condition that holds at low ceases to before high."""
    for _ in range(halvings):
        middle = 0.5 * (low + high)
        inside = holds(middle)
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return low, high
