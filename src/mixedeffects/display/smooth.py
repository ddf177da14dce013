"""A line through a cloud of points: local linear regression on all of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["local_linear"]

Matrix = NDArray[np.float64]

#: Points are averaged in so many bins of equal count first; fewer points are kept as they are.
_BINS = 2000
#: Where the line is evaluated.
_PLACES = 120


def local_linear(x: Matrix, y: Matrix, span: float = 2.0 / 3.0) -> tuple[Matrix, Matrix]:
    """Local linear regression with tricube weights, the first step of Cleveland's lowess.

    More than 2,000 points are averaged in bins of equal count beforehand, so every point counts
    and the work stays that of sorting.

    Parameters
    ----------
    x, y : ndarray, shape (n,)
        Finite coordinates.
    span : float
        Share of the points in each neighbourhood.

    Returns
    -------
    ndarray, ndarray
        Places between the smallest and the largest x, ascending, and the line there; empty if all
        x are the same.

    References
    ----------
    Cleveland, W. S. (1979). Robust locally weighted regression and smoothing scatterplots. Journal
    of the American Statistical Association 74, 829-836.

    Examples
    --------
    A straight line is reproduced:

    >>> import numpy as np
    >>> x = np.arange(50.0)
    >>> at, line = local_linear(x, 2.0 * x + 1.0)
    >>> bool(np.allclose(line, 2.0 * at + 1.0))
    True
    """
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    if not len(x) or x[0] == x[-1]:
        return np.empty(0), np.empty(0)
    if len(x) > _BINS:
        starts = np.arange(_BINS) * len(x) // _BINS
        weight = np.diff(np.append(starts, len(x))).astype(np.float64)
        x, y = np.add.reduceat(x, starts) / weight, np.add.reduceat(y, starts) / weight
    else:
        weight = np.ones(len(x))
    places = np.unique(np.interp(np.linspace(0.0, 1.0, _PLACES), np.linspace(0, 1, len(x)), x))
    distance = np.abs(x - places[:, None])
    nearest = np.sort(distance, axis=1)
    # The bins have nearly equal counts, so a share of the bins is a share of the points.
    width = nearest[:, min(len(x) - 1, int(np.ceil(span * len(x))))]
    # Many equal x can fill a neighbourhood; a little more than its width keeps them all.
    width = np.maximum(width, 1e-9 * (x[-1] - x[0]))[:, None] * (1.0 + 1e-9)
    w = weight * np.clip(1.0 - (distance / width) ** 3, 0.0, None) ** 3
    total = w.sum(axis=1)
    centre, level = w @ x / total, w @ y / total
    spread = np.sum(w * (x - centre[:, None]) ** 2, axis=1)
    slope = np.sum(w * (x - centre[:, None]) * (y - level[:, None]), axis=1)
    # Without any spread there is no slope to estimate: the mean is left.
    flat = spread <= 1e-12 * total * (x[-1] - x[0]) ** 2
    slope = np.where(flat, 0.0, slope / np.where(flat, 1.0, spread))
    return places, level + slope * (places - centre)
