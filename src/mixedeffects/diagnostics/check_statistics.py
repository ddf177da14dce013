"""Numbers that are large where residuals, modes or ranks are not what they should be.

Each takes arrays with one data set a column, and gives one number for each.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse
import scipy.stats
from numpy.typing import NDArray

from mixedeffects.display.normal_bands import plotting_positions

__all__ = [
    "departure_from_normal",
    "departure_from_uniform",
    "durbin_watson",
    "ordered",
    "shares_above",
    "spread_by_level",
    "spread_over",
    "two_sided",
]

Matrix = NDArray[np.float64]
Positions = NDArray[np.intp]


def ordered(values: Matrix) -> Matrix:
    """Each column in ascending order."""
    # Columns are sorted several times as fast where they lie together.
    return np.sort(np.asfortranarray(values), axis=0)


def departure_from_normal(values: Matrix) -> Matrix:
    """One minus the squared correlation with normal scores, shape (m,); NaN for constants.

    Parameters
    ----------
    values : ndarray, shape (n, m)
        Each column in ascending order, as of `ordered`.

    References
    ----------
    Shapiro, S. S. and Francia, R. S. (1972). An approximate analysis of variance test for
    normality. Journal of the American Statistical Association 67, 215-216; with Blom's scores.

    Examples
    --------
    >>> import numpy as np
    >>> departure_from_normal(np.array([[-1.0, -1.0], [0.0, 0.0], [1.0, 20.0]])).round(3)
    array([0.   , 0.214])
    """
    n = len(values)
    scores = scipy.stats.norm.ppf(plotting_positions(np.arange(1, n + 1), n))
    size = n * np.var(values, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        # The scores sum to zero.
        explained = (scores @ values) ** 2 / (size * float(scores @ scores))
    return np.where(size > 0.0, np.maximum(1.0 - explained, 0.0), np.nan)


def departure_from_uniform(shares: Matrix) -> Matrix:
    """Kolmogorov and Smirnov's largest distance from the uniform distribution, shape (m,).

    Parameters
    ----------
    shares : ndarray, shape (n, m)
        Each column in ascending order, as of `ordered`.

    Examples
    --------
    >>> import numpy as np
    >>> departure_from_uniform(np.array([[0.5], [0.9]]))
    array([0.5])
    """
    n = len(shares)
    at = np.arange(n)[:, None]
    above = ((at + 1) / n - shares).max(axis=0)
    below = (shares - at / n).max(axis=0)
    return np.asarray(np.maximum(above, below))


def spread_over(residuals: Matrix, against: Matrix) -> Matrix:
    """Koenker's studentised score statistic of a variance linear in a variable, shape (m,).

    The number of rows times the squared correlation of squared residuals with the variable.

    References
    ----------
    Breusch, T. S. and Pagan, A. R. (1979). A simple test for heteroscedasticity and random
    coefficient variation. Econometrica 47, 1287-1294. Koenker, R. (1981). A note on studentizing a
    test for heteroscedasticity. Journal of Econometrics 17, 107-112.

    Examples
    --------
    >>> import numpy as np
    >>> spread_over(np.array([[1.0], [1.0], [-2.0]]), np.array([[0.0], [1.0], [5.0]])).round(2)
    array([2.89])
    """
    squares = residuals**2
    squares -= squares.mean(axis=0)
    x = against - against.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.einsum("im,im->m", squares, x) ** 2 / (
            np.einsum("im,im->m", squares, squares) * np.einsum("im,im->m", x, x)
        )
    return np.asarray(len(residuals) * share)


def spread_by_level(residuals: Matrix, codes: NDArray[np.int64]) -> Matrix:
    """F of a one-way analysis of variance of absolute residuals by level, shape (m,).

    References
    ----------
    Levene, H. (1960). Robust tests for equality of variances. Contributions to Probability and
    Statistics, 278-292. Stanford University Press. Residuals have means near zero by level, so
    none is taken off.

    Examples
    --------
    >>> import numpy as np
    >>> r = np.array([[1.0], [-1.2], [3.0], [-2.6]])
    >>> spread_by_level(r, np.array([0, 0, 1, 1])).round(1)
    array([57.8])
    """
    n = len(residuals)
    _, codes = np.unique(codes, return_inverse=True)
    levels = int(codes.max()) + 1
    size = np.abs(residuals)
    size -= size.mean(axis=0)
    which = scipy.sparse.csr_array((np.ones(n), (codes, np.arange(n))), shape=(levels, n))
    sums = which @ size
    between = np.einsum("lm,lm->m", sums, sums / np.bincount(codes)[:, None])
    within = np.einsum("im,im->m", size, size) - between
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(between / (levels - 1) / (within / (n - levels)))


def durbin_watson(residuals: Matrix, earlier: Positions, later: Positions) -> Matrix:
    """Mean squared difference of neighbours over the mean square, shape (m,).

    References
    ----------
    Durbin, J. and Watson, G. S. (1950). Testing for serial correlation in least squares regression
    I. Biometrika 37, 409-428.

    Examples
    --------
    >>> import numpy as np
    >>> durbin_watson(np.array([[1.0], [-1.0], [1.0]]), np.array([0, 1]), np.array([1, 2]))
    array([4.])
    """
    steps = residuals[later] - residuals[earlier]
    return np.asarray(
        np.einsum("im,im->m", steps, steps)
        / len(later)
        / (np.einsum("im,im->m", residuals, residuals) / len(residuals))
    )


def shares_above(value: float, drawn: Matrix) -> float:
    """P-value: the share of data sets with as large a number, the data themselves counted.

    References
    ----------
    Davison, A. C. and Hinkley, D. V. (1997). Bootstrap Methods and their Application, section
    4.2.3. Cambridge University Press.

    Examples
    --------
    >>> import numpy as np
    >>> shares_above(3.0, np.array([1.0, 2.0, 4.0]))
    0.5
    """
    known = drawn[np.isfinite(drawn)]
    return float((1 + np.count_nonzero(known >= value)) / (1 + len(known)))


def two_sided(value: float, drawn: Matrix) -> float:
    """The same for the distance from the mean of the data sets, whichever way it goes.

    Examples
    --------
    >>> import numpy as np
    >>> two_sided(3.0, np.array([1.0, 2.0, 6.0]))
    1.0
    """
    mean = float(np.mean(drawn[np.isfinite(drawn)]))
    return shares_above(abs(value - mean), np.abs(drawn - mean))
