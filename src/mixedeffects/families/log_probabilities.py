"""Logarithms of distribution functions and their derivatives, accurate far out in both tails.

Each function gives the logarithm and its derivatives up to the order asked for, at most 4. With the
hazard h = f / F and the score s = f' / f the derivatives follow from h' = h (s - h).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfcx

__all__ = ["log_cauchy", "log_logistic", "log_minimum", "log_normal"]

Array = NDArray[np.float64]

# Bernoulli numbers over factorials, B_j / j!, of w / (exp(w) - 1); odd ones beyond 1 are zero.
_BERNOULLI = {
    1: -1 / 2,
    2: 1 / 12,
    4: -1 / 720,
    6: 1 / 30240,
    8: -1 / 1209600,
    10: 1 / 47900160,
    12: -691 / 1307674368000,
    14: 1 / 74724249600,
}
_SERIES_BELOW = 0.5

_MILLS_FROM = 15.0
_MILLS_TERMS = 9
_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)
_ROOT_HALF_OVER_PI, _ROOT_HALF = math.sqrt(0.5 / math.pi), math.sqrt(0.5)


def _logarithm_of_mills_series() -> list[float]:
    """Of log(1 - 1 s + 3 s^2 - 15 s^3 + ...), t times Mills' ratio in powers of s = t^-2."""
    inner = [(-1.0) ** k * math.prod(range(1, 2 * k, 2)) for k in range(_MILLS_TERMS + 1)]
    out = [0.0]
    for k in range(1, _MILLS_TERMS + 1):
        out.append(inner[k] - sum(j * out[j] * inner[k - j] for j in range(1, k)) / k)
    return out[1:]


_MILLS = _logarithm_of_mills_series()


def log_logistic(eta: Array, highest: int) -> tuple[Array, ...]:
    """Of the logistic distribution: log p with p = 1 / (1 + exp(-eta))."""
    e = np.exp(-np.abs(eta))
    tail = 1.0 / (1.0 + e)
    upper = eta >= 0.0
    q = np.where(upper, e * tail, tail)
    out = [np.minimum(eta, 0.0) - np.log1p(e), q]
    if highest >= 2:
        pq = e * tail * tail
        out.append(-pq)
    if highest >= 3:
        out.append(-pq * (2.0 * q - 1.0))
    if highest >= 4:
        out.append(pq * (6.0 * pq - 1.0))
    return tuple(out[: highest + 1])


def log_normal(eta: Array, highest: int) -> tuple[Array, ...]:
    """Of the standard normal distribution."""
    # One erfcx of |eta|: half of it is F over exp(-eta^2 / 2) below 0, and 1 - F above.
    exponent = -0.5 * eta * eta
    scaled = 0.5 * erfcx(_ROOT_HALF * np.abs(eta))
    bell = np.exp(exponent)
    rest = scaled * bell
    lower = eta < 0.0
    value = np.log1p(np.where(lower, scaled - 1.0, -rest)) + np.where(lower, exponent, 0.0)
    if highest == 0:
        return (value,)
    h = np.where(lower, _ROOT_HALF_OVER_PI / scaled, _ROOT_HALF_OVER_PI * bell / (1.0 - rest))
    out = [value, *_by_hazard(h, (-eta, np.float64(-1.0), np.float64(0.0)), highest)]
    far = eta < -_MILLS_FROM
    if far.any():
        for order, each in enumerate(_log_normal_far(-eta[far], highest)):
            if order:
                out[order][far] = each
    return tuple(out)


def _log_normal_far(t: Array, highest: int) -> list[Array]:
    """The asymptotic series of log Phi(-t), by which nothing cancels.

    In terms of t: -t^2/2 - log t - log sqrt(2 pi) + sum_k a_k t^(-2k).
    """
    s = 1.0 / (t * t)
    out = []
    for order in range(highest + 1):
        total = np.zeros_like(t)
        for k in range(len(_MILLS), 0, -1):
            rising = math.prod(2 * k + i for i in range(order))
            total = (total + (-1) ** order * _MILLS[k - 1] * rising) * s
        total = total / t**order
        if order == 0:
            total += -0.5 * t * t - np.log(t) - _LOG_SQRT_2PI
        else:
            total += (-1) ** order * math.factorial(order - 1) / t**order
            total -= t if order == 1 else 1.0 if order == 2 else 0.0
        # Derivatives by eta = -t.
        out.append((-1) ** order * total)
    return out


def log_cauchy(eta: Array, highest: int) -> tuple[Array, ...]:
    """Of the standard Cauchy distribution."""
    probability = np.arctan2(1.0, -eta) / np.pi
    rest = np.arctan2(1.0, eta) / np.pi
    value = np.where(eta < 0.0, np.log(probability), np.log1p(-rest))
    if highest == 0:
        return (value,)
    # 1 / (1 + eta^2) without its square, which may overflow.
    size = np.hypot(1.0, eta)
    c, x = 1.0 / size, eta / size
    cc = c * c
    h = cc / (np.pi * probability)
    score = (-2.0 * c * x, -2.0 * cc * (c * c - x * x), 4.0 * cc * c * x * (3.0 * cc - x * x))
    return (value, *_by_hazard(h, score, highest))


def log_minimum(eta: Array, highest: int) -> tuple[Array, ...]:
    """Of the extreme value distribution of minima: log(1 - exp(-exp(eta)))."""
    w = np.exp(eta)
    small = w < _SERIES_BELOW
    value = np.where(
        w < 1e-5, eta - 0.5 * w + w * w / 24.0, np.log1p(-np.exp(-np.where(small, 1.0, w)))
    )
    middle = small & (w >= 1e-5)
    value[middle] = np.log(-np.expm1(-w[middle]))
    if highest == 0:
        return (value,)
    # The hazard w / (exp(w) - 1) vanishes long before w overflows.
    w = np.minimum(w, 800.0)
    h = w * np.exp(-w) / -np.expm1(-np.where(small, 1.0, w))
    out = [value, *_by_hazard(h, (1.0 - w, -w, -w), highest)]
    if small.any():
        for order, each in enumerate(_log_minimum_near(w[small], highest), 1):
            out[order][small] = each
    return tuple(out)


def _log_minimum_near(w: Array, highest: int) -> list[Array]:
    """The hazard's series in w and its derivatives by log w, by which nothing cancels."""
    square = w * w
    out = []
    for order in range(1, highest + 1):
        total = np.zeros_like(w)
        for j in range(14, 0, -2):
            total += _BERNOULLI[j] * float(j) ** (order - 1)
            total *= square
        total += _BERNOULLI[1] * w
        if order == 1:
            total += 1.0
        out.append(total)
    return out


def _by_hazard(h: Array, score: tuple[Any, Any, Any], highest: int) -> list[Array]:
    """First to highest derivative of log F, from f / F and the score of f with derivatives."""
    s, s1, s2 = score
    out = [h]
    if highest >= 2:
        gap = s - h
        h1 = h * gap
        out.append(h1)
    if highest >= 3:
        gap1 = s1 - h1
        h2 = h1 * gap + h * gap1
        out.append(h2)
    if highest >= 4:
        out.append(h2 * gap + 2.0 * h1 * gap1 + h * (s2 - h2))
    return out
