"""The rules by which estimates from imputed data sets become one: Rubin's, and those for its df.

With m data sets, Q_i the estimate and U_i its variance in the i-th:  Q = mean Q_i,  U = mean U_i,
B = sum (Q_i - Q)^2 / (m - 1),  T = U + (1 + 1/m) B.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["barnard_rubin_df", "missing_information", "reiter_df"]

Matrix = NDArray[np.float64]


def barnard_rubin_df(lost: Matrix, m: int, complete: Matrix) -> Matrix:
    """Degrees of freedom of a pooled estimate.

    Parameters
    ----------
    lost : ndarray
        Share of the variance that the imputations make, ``lambda = (1 + 1/m) B / T``.
    m : int
        Number of imputed data sets.
    complete : ndarray
        Degrees of freedom that the complete data would have; infinite for Rubin's of 1987.

    References
    ----------
    Barnard, J. and Rubin, D. B. (1999). Small-sample degrees of freedom with multiple imputation.
    Biometrika 86, 948-955.

    Examples
    --------
    >>> barnard_rubin_df(np.array([0.2, 0.0]), 5, np.array([20.0, 20.0])).round(2)
    array([12.75, 18.26])
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = lost**2 / (m - 1) + 1.0 / (_observed(complete) * (1.0 - lost))
        return np.asarray(1.0 / inverse)


def _observed(complete: Matrix | float) -> Matrix:
    """Barnard and Rubin's ``nu (nu + 1) / (nu + 3)``."""
    with np.errstate(invalid="ignore"):
        return np.asarray(
            np.where(np.isinf(complete), np.inf, complete * (complete + 1) / (complete + 3))
        )


def missing_information(increase: Matrix, df: Matrix) -> Matrix:
    """Fraction of missing information, ``(r + 2 / (df + 3)) / (r + 1)``.

    Parameters
    ----------
    increase : ndarray
        Relative increase of the variance, ``r = (1 + 1/m) B / U``.
    df : ndarray
        Degrees of freedom.

    References
    ----------
    Rubin, D. B. (1987). Multiple Imputation for Nonresponse in Surveys. Wiley; section 3.3.
    """
    return np.asarray((increase + 2.0 / (df + 3.0)) / (increase + 1.0))


def reiter_df(increase: float, q: int, m: int, complete: float) -> float:
    """Denominator degrees of freedom of the joint test D1 of q contrasts.

    Parameters
    ----------
    increase : float
        Average relative increase of the variances, ``r = (1 + 1/m) tr(B U^-1) / q``.
    q : int
        Number of linearly independent contrasts, two or more.
    m : int
        Number of imputed data sets.
    complete : float
        Degrees of freedom that the complete data would have. Infinite ones give the degrees of
        freedom of Li, Raghunathan and Rubin.

    Notes
    -----
    Reiter's expansion needs ``q (m - 1) > 4`` and complete-data degrees of freedom that are not
    much fewer than the imputations take away. Elsewhere the large-sample value is combined with
    ``nu (nu + 1) / (nu + 3) / (1 + r)``, reciprocals added, as Barnard and Rubin do for q = 1.

    References
    ----------
    Li, K. H., Raghunathan, T. E. and Rubin, D. B. (1991). Large-sample significance levels from
    multiply imputed data using moment-based statistics and an F reference distribution. Journal of
    the American Statistical Association 86, 1065-1073.

    Reiter, J. P. (2007). Small-sample degrees of freedom for multi-component significance tests
    with multiple imputation for missing data. Biometrika 94, 502-508.

    Examples
    --------
    >>> round(reiter_df(0.3, 3, 10, 40.0), 1), round(reiter_df(0.3, 3, 10, np.inf), 1)
    (32.8, 388.1)
    """
    t = float(q * (m - 1))
    if increase == 0.0:
        large = np.inf
    elif t > 4.0:
        large = 4.0 + (t - 4.0) * (1.0 + (1.0 - 2.0 / t) / increase) ** 2
    else:
        large = 0.5 * t * (1.0 + 1.0 / q) * (1.0 + 1.0 / increase) ** 2
    if np.isnan(complete) or np.isinf(complete):
        return large if complete > 0.0 else np.nan
    seen = float(_observed(complete))
    if t > 4.0:
        a = increase * t / (t - 2.0)
        first, second = seen - 2.0 * (1.0 + a), seen - 4.0 * (1.0 + a)
        if second > 0.0:
            ratio = a / (1.0 + a)
            moments = (
                ratio**2 * first
                + 8.0 * a * ratio * first / second
                + 4.0 * a * ratio
                + 4.0 * a**2 / first
                + 16.0 * a**2 * first / second**2
                + 8.0 * a**2 / second
            )
            return 4.0 + second / (1.0 + moments / (t - 4.0))
    return 1.0 / (1.0 / large + (1.0 + increase) / seen)
