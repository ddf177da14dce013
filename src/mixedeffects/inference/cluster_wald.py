"""Wald tests of several contrasts with a cluster-robust covariance matrix.

With ``Q = (L beta)'(L V L')^-1 (L beta)`` and r contrasts, the tests differ in the F distribution
that Q is referred to: ``delta Q / r ~ F(r, df)``. The Hotelling tests use ``df = eta - r + 1`` and
``delta = df / eta``, where eta matches the variance of the estimated covariance matrix, in the
scale where its expectation is I, to that of a Wishart matrix.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.linalg
import scipy.stats
from numpy.typing import NDArray

from mixedeffects.base.options import checked_choice
from mixedeffects.errors import ModelError
from mixedeffects.inference.cluster_moments import ClusterMoments
from mixedeffects.inference.wald_result import WaldTest

__all__ = ["WALD_TESTS", "quadratic_form", "robust_wald", "singular_contrasts"]

Matrix = NDArray[np.float64]

#: Names as in clubSandwich; ``chi2`` is the same as ``chi-sq``.
WALD_TESTS = ("HTZ", "HTA", "HTB", "EDF", "EDT", "Naive-F", "Naive-Fp", "chi-sq")

#: Least degrees of freedom of a direction in EDF, whose moments need more than four.
_LEAST_DF = 4.1


def robust_wald(
    moments: ClusterMoments, beta: Matrix, vcov: Matrix, contrasts: pd.DataFrame, test: str
) -> WaldTest:
    """One of `WALD_TESTS` of ``L beta = 0``.

    Parameters
    ----------
    moments : ClusterMoments
        Scores and moments of the clusters.
    beta : ndarray, shape (p,)
        Estimates.
    vcov : ndarray, shape (p, p)
        Their robust covariance matrix.
    contrasts : DataFrame, shape (r, p)
        Contrasts, of rank r.
    test : str
        Which test.

    Returns
    -------
    WaldTest

    Raises
    ------
    ModelError
        If the test is not known, or the covariance matrix of the contrasts is singular.

    References
    ----------
    Tipton, E. and Pustejovsky, J. E. (2015). Small-sample adjustments for tests of moderators and
    model fit using robust variance estimation in meta-regression. Journal of Educational and
    Behavioral Statistics 40, 604-634 (HTA, HTB, HTZ, EDF, EDT). Definitions as in clubSandwich.
    """
    test = checked_choice(test, "test", (*WALD_TESTS, "chi2"))
    L = contrasts.to_numpy()
    r, J, p = len(L), moments.n_clusters, len(beta)

    def found(name: str, statistic: float, scaling: float, df: float, p: float) -> WaldTest:
        return WaldTest(name, statistic, r, df, p, scaling, contrasts)

    Q = quadratic_form(L @ beta, L @ vcov @ L.T)
    if test in ("chi-sq", "chi2"):
        return found("chi-sq", Q / r, 1.0, np.inf, float(scipy.stats.chi2.sf(Q, r)))
    if test in ("Naive-F", "Naive-Fp"):
        df = float(J - 1 if test == "Naive-F" else J - p)
        return found(test, Q / r, 1.0, df, _p_value(Q / r, r, df))
    root = _inverse_root(moments.expected(L))
    if test in ("HTA", "HTB", "HTZ"):
        eta = _wishart_df(moments.fourth_moments(root @ L), test)
        df = eta - r + 1.0
        delta = max(df / eta, 0.0)
        return found(test, delta * Q / r, delta, df, _p_value(delta * Q / r, r, df))
    values, vectors = np.linalg.eigh(root @ L @ vcov @ L.T @ root)
    directions = vectors.T @ root @ L
    df_each = moments.df(directions)
    if test == "EDF":
        return found("EDF", *_edf(Q, r, df_each))
    z = _hill_normal(directions @ beta / np.sqrt(values), df_each)
    statistic = float((z**2).mean())
    return found("EDT", statistic, 1.0, np.inf, float(scipy.stats.chi2.sf(r * statistic, r)))


def quadratic_form(estimate: Matrix, covariance: Matrix) -> float:
    """``x' C^-1 x``; ModelError if C is singular."""
    size = np.sqrt(np.abs(np.diag(covariance)))
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = covariance / np.outer(size, size)
    singular = not np.isfinite(scaled).all()
    if singular or np.linalg.eigvalsh(scaled)[0] < 1e-12 * len(size):
        raise singular_contrasts(len(size))
    factor = scipy.linalg.cho_factor(scaled, lower=True)
    x = estimate / size
    return float(x @ scipy.linalg.cho_solve(factor, x))


def singular_contrasts(count: int) -> ModelError:
    """Make the error for more contrasts than clusters can test together."""
    return ModelError(
        "The robust covariance matrix of these contrasts is singular: its rank is at most the "
        f"number of clusters. Test fewer contrasts at once than the {count} given."
    )


def _p_value(statistic: float, r: int, df: float) -> float:
    return float(scipy.stats.f.sf(statistic, r, df)) if df > 0.0 else np.nan


def _inverse_root(Omega: Matrix) -> Matrix:
    values, vectors = np.linalg.eigh(Omega)
    if values[0] <= 1e-13 * values[-1]:
        # Units of the contrasts may differ: only a correlation matrix can tell what is singular.
        size = np.sqrt(np.diag(Omega))
        if np.linalg.eigvalsh(Omega / np.outer(size, size))[0] <= 1e-13:
            raise ModelError(
                "The expected covariance matrix of these contrasts is singular: some combination "
                "of them is determined by too few clusters. Test fewer contrasts at once."
            )
    return np.asarray((vectors / np.sqrt(values)) @ vectors.T)


def _wishart_df(moments: Matrix, test: str) -> float:
    """Degrees of freedom whose Wishart matrix varies as the estimate does, from [a, c, b, d]."""
    # Cov(S_st, S_uv), the indices s, t, u, v in this order.
    cov = moments.transpose(0, 2, 1, 3) + moments.transpose(0, 2, 3, 1)
    r = len(cov)
    variance = np.einsum("stst->st", cov)
    if test == "HTZ":
        return float(r * (r + 1) / variance.sum())
    if test == "HTA":
        return float(2.0 * variance.sum() / (cov**2).sum())
    s, t = np.tril_indices(r)
    pairs = cov[s[:, None], t[:, None], s[None, :], t[None, :]]
    return float(2.0 * variance[s, t].sum() / (np.tril(pairs) ** 2).sum())


def _edf(Q: float, r: int, df_each: Matrix) -> tuple[float, float, float, float]:
    """Statistic, scaling, df and p.

    From the F distribution with the first two moments of Q if its directions were independent t's.
    """
    df = np.maximum(df_each, _LEAST_DF)
    mean = float((df / (df - 2.0)).sum())
    variance = float(2.0 * (df**2 * (df - 1.0) / ((df - 2.0) ** 2 * (df - 4.0))).sum())
    if r * variance > 2.0 * mean**2:
        delta = (mean**2 * (r - 2) + 2.0 * r * variance) / (mean * (variance + mean**2))
        denominator = 4.0 + 2.0 * mean**2 * (r + 2) / (r * variance - 2.0 * mean**2)
        p_value = _p_value(delta * Q / r, r, denominator)
    else:
        delta, denominator = r / mean, np.inf
        p_value = float(scipy.stats.chi2.sf(delta * Q, r))
    return delta * Q / r, delta, denominator, p_value


def _hill_normal(t: Matrix, df: Matrix) -> Matrix:
    """Normal deviates with nearly the tail probabilities of t (Hill 1970, Algorithm 395)."""
    a = df - 0.5
    b = 48.0 * a**2
    c = np.sqrt(a * np.log1p(t**2 / df))
    return np.asarray(
        c
        + (c**3 + 3.0 * c) / b
        - (4.0 * c**7 + 33.0 * c**5 + 240.0 * c**3 + 855.0 * c)
        / (10.0 * b**2 + 8.0 * b * c**4 + 1000.0 * b)
    )
