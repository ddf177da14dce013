"""Probabilities and intervals of several comparisons taken together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.interpolate
import scipy.optimize
import scipy.stats
from numpy.typing import NDArray

from mixedeffects.inference.studentized_range import studentized_range_sf

__all__ = ["ADJUSTMENTS", "Family", "adjusted_p", "critical_values"]

Matrix = NDArray[np.float64]

#: Names of the methods, and what a table says of them.
ADJUSTMENTS = {
    "tukey": "Tukey's studentized range",
    "mvt": "multivariate t distribution",
    "scheffe": "Scheffe's method",
    "bonferroni": "Bonferroni's method",
    "sidak": "Sidak's method",
    "holm": "Holm's method",
    "fdr": "Benjamini and Hochberg's false discovery rate",
    "none": "not adjusted",
}

_DIRECTIONS = 2**14
#: More different degrees of freedom than this and critical values are interpolated.
_NODES = 12


@dataclass(frozen=True, eq=False)
class Family:
    """Comparisons judged together.

    Attributes
    ----------
    t, df, p : ndarray, shape (m,)
        Statistics, degrees of freedom and probabilities each by itself; NaN where not estimable.
    covariance : ndarray, shape (m, m)
        Of the estimates; rows and columns that are not estimable are not used.
    n_means : int
        How many means are compared, for Tukey's method.
    """

    t: Matrix
    df: Matrix
    p: Matrix
    covariance: Matrix
    n_means: int

    @cached_property
    def made(self) -> NDArray[np.intp]:
        """Comparisons that can be made."""
        return np.flatnonzero(np.isfinite(self.p))

    @property
    def size(self) -> int:
        """How many comparisons can be made."""
        return len(self.made)

    @cached_property
    def _root(self) -> Matrix:
        """Directions of the standardised estimates, shape (size, rank)."""
        V = self.covariance[np.ix_(self.made, self.made)]
        sd = np.sqrt(np.diag(V))
        values, vectors = np.linalg.eigh(V / np.outer(sd, sd))
        keep = values > 1e-10 * values[-1]
        return np.asarray(vectors[:, keep] * np.sqrt(values[keep]))

    @property
    def rank(self) -> int:
        """Number of linearly independent comparisons."""
        return int(self._root.shape[1]) if self.size else 0

    @cached_property
    def _reach(self) -> Matrix:
        """Largest absolute statistic per unit length of the standardised effect, by direction."""
        root = self._root
        if root.shape[1] == 1:
            return np.asarray(np.abs(root).max(axis=0))
        # The same points for every call: a table printed twice shows the same numbers.
        points = scipy.stats.qmc.Sobol(root.shape[1], seed=1).random(_DIRECTIONS)
        normal = scipy.stats.norm.ppf(np.clip(points, 1e-12, 1.0 - 1e-12))
        normal /= np.linalg.norm(normal, axis=1)[:, None]
        step = max(1, 2**22 // len(root))
        parts = [
            np.abs(normal[start : start + step] @ root.T).max(axis=1)
            for start in range(0, _DIRECTIONS, step)
        ]
        return np.concatenate(parts)

    def exceeds(self, t: float, df: float) -> float:
        """Probability that the largest of the absolute statistics exceeds t.

        Given its direction, the squared length of a spherical t vector of dimension r is r times
        an F variable, so that only the direction is left to average over.
        """
        r = self.rank
        with np.errstate(divide="ignore"):
            scaled = (t / self._reach) ** 2 / r
        if np.isinf(df):
            return float(scipy.stats.chi2.sf(r * scaled, r).mean())
        return float(scipy.stats.f.sf(scaled, r, df).mean())


def adjusted_p(method: str, family: Family) -> Matrix:
    """Adjust two-sided probabilities.

    Parameters
    ----------
    method : str
        One of `ADJUSTMENTS`.
    family : Family
        The comparisons.

    Returns
    -------
    ndarray, shape (m,)
        NaN where a comparison cannot be made.

    References
    ----------
    Hochberg, Y. and Tamhane, A. C. (1987). Multiple Comparison Procedures. Wiley.

    Benjamini, Y. and Hochberg, Y. (1995). Controlling the false discovery rate: a practical and
    powerful approach to multiple testing. Journal of the Royal Statistical Society B 57, 289-300.
    """
    adjusted = np.full(len(family.p), np.nan)
    if family.size:
        made = family.made
        adjusted[made] = _P_VALUES[method](family, np.abs(family.t[made]), family.df[made])
    return adjusted


def _tukey_p(family: Family, t: Matrix, df: Matrix) -> Matrix:
    p = family.p[family.made]
    if family.n_means == 2:
        return p
    k = family.n_means
    raw = np.array(
        [studentized_range_sf(np.sqrt(2.0) * a, k, b) for a, b in zip(t, df, strict=True)]
    )
    return _within_bounds(raw, p, family.n_means * (family.n_means - 1) // 2)


def _mvt_p(family: Family, t: Matrix, df: Matrix) -> Matrix:
    raw = np.array([family.exceeds(a, b) for a, b in zip(t, df, strict=True)])
    return _within_bounds(raw, family.p[family.made], family.size)


def _within_bounds(raw: Matrix, p: Matrix, size: int) -> Matrix:
    """What integration leaves of a tiny probability is noise; these bounds always hold."""
    return np.clip(raw, p, np.minimum(1.0, size * p))


def _scheffe_p(family: Family, t: Matrix, df: Matrix) -> Matrix:
    r = family.rank
    finite = np.where(np.isinf(df), 1.0, df)
    F = scipy.stats.f.sf(t**2 / r, r, finite)
    return np.where(np.isinf(df), scipy.stats.chi2.sf(t**2, r), F)


def _bonferroni_p(family: Family, t: Matrix, df: Matrix) -> Matrix:
    return np.minimum(1.0, family.size * family.p[family.made])


def _sidak_p(family: Family, t: Matrix, df: Matrix) -> Matrix:
    with np.errstate(divide="ignore"):
        return np.asarray(-np.expm1(family.size * np.log1p(-family.p[family.made])))


def _holm_p(family: Family, t: Matrix, df: Matrix) -> Matrix:
    p = family.p[family.made]
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(np.arange(len(p), 0, -1) * p[order])
    return _unsorted(np.minimum(1.0, stepped), order)


def _fdr_p(family: Family, t: Matrix, df: Matrix) -> Matrix:
    p = family.p[family.made]
    order = np.argsort(p, kind="stable")[::-1]
    m = len(p)
    stepped = np.minimum.accumulate(m / np.arange(m, 0, -1) * p[order])
    return _unsorted(np.minimum(1.0, stepped), order)


def _unsorted(values: Matrix, order: NDArray[np.intp]) -> Matrix:
    back = np.empty_like(values)
    back[order] = values
    return back


_P_VALUES: dict[str, Callable[[Family, Matrix, Matrix], Matrix]] = {
    "tukey": _tukey_p,
    "mvt": _mvt_p,
    "scheffe": _scheffe_p,
    "bonferroni": _bonferroni_p,
    "sidak": _sidak_p,
    "holm": _holm_p,
    "fdr": _fdr_p,
    "none": lambda family, t, df: family.p[family.made],
}


def critical_values(method: str, family: Family, level: float) -> Matrix:
    """Half-widths of simultaneous intervals in standard errors.

    Parameters
    ----------
    method : str
        One of `ADJUSTMENTS`. Holm's method and the false discovery rate have no intervals of their
        own; theirs are Bonferroni's.
    family : Family
        The comparisons.
    level : float
        Simultaneous coverage.

    Returns
    -------
    ndarray, shape (m,)
        NaN where a comparison cannot be made.
    """
    values = np.full(len(family.p), np.nan)
    if family.size:
        values[family.made] = _of_each(
            family.df[family.made], lambda df: _critical_value(method, family, level, df)
        )
    return values


def _of_each(df: Matrix, value: Callable[[float], float]) -> Matrix:
    """Evaluate a function of df whose logarithm is smooth in 1 / df, at few points if need be."""
    different, position = np.unique(df, return_inverse=True)
    if len(different) <= _NODES:
        return np.array([value(each) for each in different])[position]
    low, high = 1.0 / different[-1], 1.0 / different[0]
    nodes = low + (high - low) * (0.5 - 0.5 * np.cos(np.pi * np.linspace(0.0, 1.0, _NODES)))
    at = np.log([value(1.0 / node if node else np.inf) for node in nodes])
    return np.exp(scipy.interpolate.BarycentricInterpolator(nodes, at)(1.0 / df))


def _critical_value(method: str, family: Family, level: float, df: float) -> float:
    t = scipy.stats.t
    m, alpha = family.size, 1.0 - level
    simple = float(t.isf(alpha / 2.0, df))
    if method == "none" or m == 1 or (method == "tukey" and family.n_means == 2):
        return simple
    if method == "sidak":
        return float(t.isf(-np.expm1(np.log1p(-alpha) / m) / 2.0, df))
    if method == "scheffe":
        r = family.rank
        if np.isinf(df):
            return float(np.sqrt(scipy.stats.chi2.isf(alpha, r)))
        return float(np.sqrt(r * scipy.stats.f.isf(alpha, r, df)))
    bonferroni = float(t.isf(alpha / (2.0 * m), df))
    if method == "tukey":
        # Some comparisons may not be possible, so their number need not be that of all pairs.
        pairs = family.n_means * (family.n_means - 1) // 2
        upper = float(t.isf(alpha / (2.0 * pairs), df))
        k = family.n_means
        return _root_between(
            lambda x: studentized_range_sf(np.sqrt(2.0) * x, k, df) - alpha,
            simple,
            upper,
        )
    if method == "mvt":
        return _root_between(lambda x: family.exceeds(x, df) - alpha, simple, bonferroni)
    return bonferroni


def _root_between(function: Callable[[float], float], low: float, high: float) -> float:
    # The bounds are exact where comparisons coincide or are disjoint; integration is not.
    if function(low) <= 0.0:
        return low
    if function(high) >= 0.0:
        return high
    return float(scipy.optimize.brentq(function, low, high, xtol=1e-8, rtol=1e-8))
