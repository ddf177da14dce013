"""R's ``ns``: cubic splines that go on as straight lines beyond their boundary knots."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

__all__ = ["natural_spline"]

Matrix = NDArray[np.float64]


def natural_spline(
    x: Matrix, knots: Sequence[float], boundary: tuple[float, float], intercept: bool = False
) -> Matrix:
    """The basis of natural cubic splines that R's ``splines::ns`` uses.

    The B-splines whose second derivatives vanish at both ends: their coefficients are turned so
    that two of them carry these derivatives, which are left out.

    Parameters
    ----------
    x : ndarray, shape (n,)
        Where to evaluate.
    knots : sequence of float
        Inner knots.
    boundary : tuple of float
        Where the straight lines begin.
    intercept : bool
        Whether a constant is in the span.

    Returns
    -------
    ndarray, shape (n, len(knots) + 1 + intercept)
    """
    from scipy.interpolate import BSpline

    low, high = boundary
    every = np.concatenate([[low] * 4, np.sort(np.asarray(knots, dtype=np.float64)), [high] * 4])
    splines = BSpline(every, np.eye(len(every) - 4), 3)
    inside = np.clip(x, low, high)
    basis = splines(inside)
    slopes = splines(np.array([low, high]), 1)
    basis += np.minimum(x - low, 0.0)[:, None] * slopes[0]
    basis += np.maximum(x - high, 0.0)[:, None] * slopes[1]
    ends = splines(np.array([low, high]), 2)
    if not intercept:
        basis, ends = basis[:, 1:], ends[:, 1:]
    rotation, _ = scipy.linalg.qr(ends.T)
    return np.asarray(basis @ rotation[:, 2:])
