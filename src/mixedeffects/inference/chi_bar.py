"""Tail probabilities of likelihood-ratio statistics, at the boundary too."""

from __future__ import annotations

import scipy.stats

__all__ = ["NO_DIFFERENCE", "chi_squared_p", "mixture_p"]

#: Twice a difference of log-likelihoods that two searches for the same optimum may leave.
NO_DIFFERENCE = 1e-6


def chi_squared_p(statistic: float, df: int) -> float:
    """``P(chi2_df >= statistic)``; chi2_0 is zero with certainty.

    Examples
    --------
    >>> round(chi_squared_p(3.84, 1), 3), chi_squared_p(3.84, 0), chi_squared_p(0.0, 0)
    (0.05, 0.0, 1.0)
    """
    if df == 0:
        return 1.0 if statistic <= 0.0 else 0.0
    return float(scipy.stats.chi2.sf(statistic, df))


def mixture_p(statistic: float, q: int) -> float:
    """Tail probability of the 50:50 mixture of chi2_q and chi2_{q+1}.

    Parameters
    ----------
    statistic : float
        Likelihood-ratio statistic.
    q : int
        Number of effects a random term has before one more joins it, correlated with them: q
        covariances are added in the interior, and one variance on the boundary.

    References
    ----------
    Stram, D. O. and Lee, J. W. (1994). Variance components testing in the longitudinal mixed
    effects model. Biometrics 50, 1171-1177.

    Self, S. G. and Liang, K.-Y. (1987). Asymptotic properties of maximum likelihood estimators and
    likelihood ratio tests under nonstandard conditions. Journal of the American Statistical
    Association 82, 605-610.

    Examples
    --------
    One added variance: half the usual p-value.

    >>> round(mixture_p(2.71, 0), 3)
    0.05
    """
    return 0.5 * chi_squared_p(statistic, q) + 0.5 * chi_squared_p(statistic, q + 1)
