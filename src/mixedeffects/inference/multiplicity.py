"""Probabilities and intervals of several comparisons taken together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.interpolate
import scipy.linalg
import scipy.optimize
import scipy.special
import scipy.stats
from numpy.typing import NDArray

from mixedeffects.base.caching import cached_property
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
#: Values that stand for the largest statistics of all directions.
_GAUSS = 48
#: More different degrees of freedom than this and critical values are interpolated.
_NODES = 12


@dataclass(frozen=True, eq=False)
class Family:
    """Comparisons judged together.

    Attributes
    ----------
    t, df, p : ndarray, shape (m,)
        Statistics, degrees of freedom and probabilities each by itself; NaN where not estimable.
    root : ndarray, shape (m, r)
        The covariance matrix of the estimates is ``root root'``; rows that are not estimable are
        not used. Of many comparisons of few means the matrix itself would be far larger.
    n_means : int
        How many means are compared, for Tukey's method.
    """

    t: Matrix
    df: Matrix
    p: Matrix
    root: Matrix
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
    def _directions(self) -> Matrix:
        """Directions of the standardised estimates, shape (size, rank)."""
        unit = self.root[self.made]
        unit = unit / np.linalg.norm(unit, axis=1)[:, None]
        values, vectors = np.linalg.eigh(unit.T @ unit)
        return np.asarray(unit @ vectors[:, values > 1e-10 * values[-1]])

    @property
    def rank(self) -> int:
        """Number of linearly independent comparisons."""
        return int(self._directions.shape[1]) if self.size else 0

    @cached_property
    def _reach(self) -> tuple[Matrix, Matrix]:
        """Largest absolute statistic per unit length of the effect: values and their shares.

        Averages over directions become a Gauss rule, so that each needs few values.
        """
        directions = self._directions
        if self.rank == 1:
            return np.abs(directions).max(axis=0), np.ones(1)
        # The same points for every call: a table printed twice shows the same numbers.
        points = scipy.stats.qmc.Sobol(self.rank, seed=1).random(_DIRECTIONS)
        normal = scipy.special.ndtri(np.clip(points, 1e-12, 1.0 - 1e-12))
        normal /= np.linalg.norm(normal, axis=1)[:, None]
        step = max(1, 2**22 // len(directions))
        parts = [
            np.abs(normal[start : start + step] @ directions.T).max(axis=1)
            for start in range(0, _DIRECTIONS, step)
        ]
        return _gauss_rule(np.concatenate(parts))

    def exceeds(self, t: Matrix, df: Matrix) -> Matrix:
        """Probability that the largest of the absolute statistics exceeds t, for each t and df.

        Given its direction, the squared length of a spherical t vector of dimension r is r times
        an F variable, so that only the direction is left to average over.
        """
        r, (reach, share) = self.rank, self._reach
        out = np.empty(len(t))
        step = max(1, 2**20 // len(reach))
        for start in range(0, len(t), step):
            part = slice(start, start + step)
            square = (t[part, None] / reach) ** 2
            out[part] = _f_sf(square / r, r, df[part, None]) @ share
        return out


def _f_sf(F: Matrix, r: int, df: Matrix) -> Matrix:
    """Upper tail of the F distribution; df may be infinite."""
    known = np.isinf(df)
    estimated = scipy.special.fdtrc(r, np.where(known, 1.0, df), F)
    if not known.any():
        return np.asarray(estimated)
    return np.where(known, scipy.special.chdtrc(r, r * F), estimated)


def _gauss_rule(values: Matrix) -> tuple[Matrix, Matrix]:
    """Nodes and weights that average polynomials as the values do, by Lanczos's method.

    References
    ----------
    Golub, G. H. and Welsch, J. H. (1969). Calculation of Gauss quadrature rules. Mathematics of
    Computation 23, 221-230.
    """
    basis = np.empty((_GAUSS, len(values)))
    diagonal, beside = np.empty(_GAUSS), np.empty(_GAUSS)
    column = np.full(len(values), 1.0 / np.sqrt(len(values)))
    for j in range(_GAUSS):
        basis[j] = column
        column = values * column
        diagonal[j] = basis[j] @ column
        # Twice, for the columns to be orthogonal in spite of rounding.
        for _ in range(2):
            column = column - (basis[: j + 1] @ column) @ basis[: j + 1]
        beside[j] = np.linalg.norm(column)
        if beside[j] < 1e-10 * values.max():
            break
        column = column / beside[j]
    n = j + 1
    nodes, vectors = scipy.linalg.eigh_tridiagonal(diagonal[:n], beside[: n - 1])
    return np.asarray(nodes, dtype=np.float64), np.asarray(vectors[0] ** 2)


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
    raw = studentized_range_sf(np.sqrt(2.0) * t, family.n_means, df)
    return _within_bounds(raw, p, family.n_means * (family.n_means - 1) // 2)


def _mvt_p(family: Family, t: Matrix, df: Matrix) -> Matrix:
    return _within_bounds(family.exceeds(t, df), family.p[family.made], family.size)


def _within_bounds(raw: Matrix, p: Matrix, size: int) -> Matrix:
    """What integration leaves of a tiny probability is noise; these bounds always hold."""
    return np.clip(raw, p, np.minimum(1.0, size * p))


def _scheffe_p(family: Family, t: Matrix, df: Matrix) -> Matrix:
    return _f_sf(t**2 / family.rank, family.rank, df)


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
            lambda x: float(studentized_range_sf(np.sqrt(2.0) * x, k, df)) - alpha,
            simple,
            upper,
        )
    if method == "mvt":
        return _root_between(
            lambda x: float(family.exceeds(np.array([x]), np.array([df]))[0]) - alpha,
            simple,
            bonferroni,
        )
    return bonferroni


def _root_between(function: Callable[[float], float], low: float, high: float) -> float:
    # The bounds are exact where comparisons coincide or are disjoint; integration is not.
    if function(low) <= 0.0:
        return low
    if function(high) >= 0.0:
        return high
    return float(scipy.optimize.brentq(function, low, high, xtol=1e-8, rtol=1e-8))
