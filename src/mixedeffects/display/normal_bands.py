"""Bands for normal quantile plots, pointwise and simultaneous, for any number of points.

The i-th smallest of n independent uniform values is Beta(i, n + 1 - i). Its quantiles at eta / 2
and 1 - eta / 2 make a band at local level eta. Pointwise, eta is 1 - level; the simultaneous band
has the one eta at which all n points together stay inside with probability ``level``.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.special
import scipy.stats
from numpy.typing import NDArray

__all__ = ["local_level", "normal_band", "plotting_positions", "shown_ranks"]

Matrix = NDArray[np.float64]

_DRAWS = 4000
#: Largest number of values whose order statistics are simulated.
_SIMULATED = 250


def plotting_positions(ranks: NDArray[np.int64], n: int) -> Matrix:
    """Blom's positions ``(i - 3/8) / (n + 1/4)``, nearly the expected normal order statistics."""
    positions: Matrix = (ranks.astype(np.float64) - 0.375) / (n + 0.25)
    return positions


def shown_ranks(n: int, most: int = 3000) -> NDArray[np.int64]:
    """Ranks 1 to n, or where they are more than that all in the tails and some in the middle."""
    if n <= most:
        return np.arange(1, n + 1)
    ends = most // 6
    # Evenly spaced on the normal scale, where they are drawn.
    edge = float(scipy.stats.norm.ppf(ends / n))
    z = np.linspace(edge, -edge, most - 2 * ends)
    middle = np.clip(np.rint(scipy.stats.norm.cdf(z) * n), 1, n).astype(np.int64)
    return np.unique(np.concatenate([np.arange(1, ends + 1), middle, np.arange(n - ends, n) + 1]))


def normal_band(
    ranks: NDArray[np.int64], n: int, level: float, simultaneous: bool
) -> tuple[Matrix, Matrix]:
    """Lower and upper limits of the order statistics of n independent standard normal values.

    Parameters
    ----------
    ranks : ndarray of int
        Which order statistics, from 1 to n.
    n : int
        Number of values.
    level : float
        Probability inside, of each point or of all together.
    simultaneous : bool
        Which of the two.

    References
    ----------
    Aldor-Noiman, S., Brown, L. D., Buja, A., Rolke, W. and Stine, R. A. (2013). The power to see: a
    new graphical test of normality. The American Statistician 67, 249-260.

    Examples
    --------
    >>> import numpy as np
    >>> lower, upper = normal_band(np.array([1, 10]), 10, 0.95, False)
    >>> lower.round(2), upper.round(2)
    (array([-2.8,  0.5]), array([-0.5,  2.8]))
    """
    eta = local_level(n, level) if simultaneous else 1.0 - level
    # The upper limit by symmetry: near one a probability has too few digits.
    lower = scipy.stats.norm.ppf(scipy.special.betaincinv(ranks, n + 1.0 - ranks, eta / 2.0))
    upper = -scipy.stats.norm.ppf(scipy.special.betaincinv(n + 1.0 - ranks, ranks, eta / 2.0))
    return lower, upper


@lru_cache(maxsize=64)
def local_level(n: int, level: float) -> float:
    """The local level at which a band for n independent values holds simultaneously.

    By simulation with a fixed seed up to 250 values. Beyond, it falls as an asymptotic expansion
    has it, whose second term is set so that it continues the simulated value.

    References
    ----------
    Gontscharuk, V., Landwehr, S. and Finner, H. (2016). Goodness of fit tests in terms of local
    levels with special emphasis on higher criticism tests. Bernoulli 22, 1331-1363.
    """
    if n <= _SIMULATED:
        return _simulated_level(n, level)
    first, second = _expansion(_SIMULATED, level)
    c = (1.0 - local_level(_SIMULATED, level) / first) / second
    first, second = _expansion(n, level)
    return first * (1.0 - c * second)


def _expansion(n: int, level: float) -> tuple[float, float]:
    """Leading term of the local level, and the relative size of the second one."""
    log_n = np.log(n)
    return -np.log(level) / (2.0 * np.log(log_n) * log_n), np.log(np.log(log_n)) / np.log(log_n)


def _simulated_level(n: int, level: float) -> float:
    rng = np.random.default_rng(20130901)
    ranks = np.arange(1, n + 1)
    smallest = np.empty(_DRAWS)
    for start in range(0, _DRAWS, 500):
        below = scipy.special.betainc(ranks, n + 1.0 - ranks, np.sort(rng.random((500, n))))
        smallest[start : start + 500] = 2.0 * np.minimum(below, 1.0 - below).min(axis=1)
    return float(np.quantile(smallest, 1.0 - level))
