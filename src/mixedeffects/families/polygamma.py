"""Derivatives of the digamma function, several at once, for arguments from 1."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["polygammas"]

Array = NDArray[np.float64]

_SHIFT = 8
_BERNOULLI = (
    1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798,
)  # fmt: skip


def polygammas(x: Array, highest: int) -> list[Array]:
    """First to highest derivative of the digamma function.

    Recurrence to arguments from 9 on and the asymptotic series there, which all orders share.

    Parameters
    ----------
    x : ndarray, shape (n,)
        At least 1.
    highest : int
        At most 3.

    Returns
    -------
    list of ndarray, shape (n,)

    References
    ----------
    Abramowitz and Stegun (1964), Handbook of Mathematical Functions, 6.4.6 and 6.4.11.

    Examples
    --------
    >>> import numpy as np
    >>> (polygammas(np.array([1.0]), 1)[0] * 6 / np.pi**2).round(14).tolist()
    [1.0]
    """
    out = np.zeros((highest, len(x)))
    for step in range(_SHIFT):
        r = 1.0 / (x + step)
        power = r
        for order in range(highest):
            power = power * r
            out[order] += power
    r = 1.0 / (x + _SHIFT)
    square = r * r
    power = r
    for order in range(1, highest + 1):
        series = np.zeros_like(x)
        for k in range(len(_BERNOULLI), 0, -1):
            rising = math.factorial(2 * k + order - 1) / math.factorial(2 * k)
            series += _BERNOULLI[k - 1] * rising
            series *= square
        series += 0.5 * math.factorial(order) * r + math.factorial(order - 1)
        total = out[order - 1]
        total *= math.factorial(order)
        total += series * power
        if order % 2 == 0:
            total *= -1.0
        power = power * r
    return list(out)
