"""Wald tests of hypotheses about the fixed effects, and tables of them by term."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import NDArray

from mixedeffects.base.options import checked_choice, member, plain
from mixedeffects.base.warning import warn
from mixedeffects.display.result_table import ResultTable
from mixedeffects.errors import ClusterWarning, ModelError
from mixedeffects.fitting.data_summary import data_summary
from mixedeffects.fitting.fit import Fit, once_per_fit
from mixedeffects.inference.cluster_robust import robust_covariance
from mixedeffects.inference.cluster_wald import WALD_TESTS, singular_contrasts
from mixedeffects.inference.contrasts import contrast_matrix
from mixedeffects.inference.hypotheses import term_contrasts, tested_at_zero
from mixedeffects.inference.variance import FixedEffectsVariance, is_robust
from mixedeffects.inference.variance_by_name import fixed_effects_variance
from mixedeffects.inference.wald_result import WaldTest

__all__ = [
    "anova_table",
    "checked_type",
    "f_statistic",
    "independent_rows",
    "p_of_f",
    "term_hypotheses",
    "terms_at_zero",
    "wald_test",
]

Matrix = NDArray[np.float64]

#: Variances of contrasts in units of the largest below which they are combinations of others, as
#: lmerTest has it.
_RANK = float(np.sqrt(np.finfo(np.float64).eps))


def wald_test(
    fit: Fit, hypothesis: Any, ddf: str, vcov: str, test: str, cluster: Any = None
) -> WaldTest:
    """See `LinearMixedModel.wald`, and that of `GeneralizedLinearMixedModel`."""
    if not fit.has_degrees_of_freedom:
        return _normal_test(fit, hypothesis, ddf, vcov, test, cluster)
    if not member(test, ("F", "chi2")):
        if is_robust(vcov):
            return robust_covariance(fit, vcov, cluster).test(hypothesis, test)
        raise ModelError(
            f"test {test!r} is not known; there are 'F' and 'chi2', and for cluster-robust "
            f"covariance matrices such as vcov='CR2' {', '.join(map(repr, WALD_TESTS))}."
        )
    variance = fixed_effects_variance(fit, vcov, "inf" if test == "chi2" else ddf, cluster)
    contrasts = contrast_matrix(fit.frame, hypothesis)
    F, q, df, scaling = f_statistic(fit, contrasts, variance)
    labelled = pd.DataFrame(contrasts, columns=fit.fixef_names)
    if test == "chi2":
        p = float(scipy.stats.chi2.sf(q * F, q))
        return WaldTest("chi2", q * F, q, np.inf, p, 1.0, labelled)
    return WaldTest("F", scaling * F, q, df, p_of_f(scaling * F, q, df), scaling, labelled)


def _normal_test(
    fit: Fit, hypothesis: Any, ddf: Any, vcov: Any, test: Any, cluster: Any
) -> WaldTest:
    """Chi-square test, or z test of one contrast, of a fit without degrees of freedom."""
    test = checked_choice(test, "test", ("chi2", "z"))
    variance = fixed_effects_variance(fit, vcov, ddf, cluster)
    L = contrast_matrix(fit.frame, hypothesis)
    if test == "z" and len(L) != 1:
        raise ModelError(
            f"test='z' is for one contrast, and the hypothesis has {len(L)}: use test='chi2', or "
            "m.contrast for each by itself."
        )
    F, q, _, _ = f_statistic(fit, L, variance)
    labelled = pd.DataFrame(L, columns=fit.fixef_names)
    p = float(scipy.stats.chi2.sf(q * F, q))
    if test == "z":
        sign = np.sign(float((L @ fit.beta)[0]))
        return WaldTest("z", float(sign * np.sqrt(F)), 1, np.inf, p, 1.0, labelled)
    return WaldTest("chi2", q * F, q, np.inf, p, 1.0, labelled)


def f_statistic(
    fit: Fit, L: Matrix, variance: FixedEffectsVariance
) -> tuple[float, int, float, float]:
    """Unscaled F, number of independent contrasts, denominator df and scaling."""
    if variance.hides(L).any():
        raise ModelError(
            "The variance of these contrasts is not known (NaN), so they cannot be tested: the "
            "clusters determine them, or a part of them, one by one. Use clusters that the fixed "
            "effects do not single out, or the model's covariance matrix."
        )
    independent, values = independent_rows(L, variance.covariance(L))
    q = len(independent)
    if q < len(L) and variance.unseen is not None:
        raise singular_contrasts(len(L))
    if q == 0:
        return np.nan, 0, np.nan, 1.0
    estimate = independent @ fit.beta
    F = float(np.sum(estimate**2 / values)) / q
    if q == 1:
        return F, 1, float(variance.df(independent)[0]), 1.0
    df, scaling = variance.f_test(independent)
    return F, q, df, scaling


def independent_rows(L: Matrix, covariance: Matrix) -> tuple[Matrix, Matrix]:
    """Uncorrelated combinations of contrasts, and their variances.

    Parameters
    ----------
    L : ndarray, shape (r, p)
        The contrasts, which may depend on each other.
    covariance : ndarray, shape (r, r)
        Covariance matrix of their estimates.
    """
    values, vectors = np.linalg.eigh(covariance)
    keep = values > max(_RANK * values[-1], 0.0)
    if not keep.all():
        # Units of the contrasts may differ: only a correlation matrix can tell what is singular.
        size = np.sqrt(np.maximum(np.diag(covariance), 0.0))
        size = np.where(size > 0.0, size, 1.0)
        L = L / size[:, None]
        values, vectors = np.linalg.eigh(covariance / np.outer(size, size))
        keep = values > max(_RANK * values[-1], 0.0)
    return vectors[:, keep].T @ L, values[keep]


def p_of_f(F: float, q: int, df: float) -> float:
    """Upper tail of the F distribution; of chi-squared where df is infinite."""
    if np.isinf(df):
        return float(scipy.stats.chi2.sf(q * F, q))
    return float(scipy.stats.f.sf(F, q, df))


def anova_table(
    fit: Fit, kind: Any, ddf: str, vcov: str = "model", cluster: Any = None
) -> ResultTable:
    """See `LinearMixedModel.anova`."""
    if any(isinstance(getattr(given, "fit", None), Fit) for given in (kind, ddf, vcov, cluster)):
        raise ModelError(
            "m.anova() tests the terms of one fit. To compare fits, give them all to "
            "mixedeffects.anova: me.anova(m1, m2)."
        )
    kind = checked_type(kind)
    variance = fixed_effects_variance(fit, vcov, ddf, cluster)
    rows = {}
    for label, L in term_hypotheses(fit, kind).items():
        row = (np.nan,) * 6
        if len(L):
            try:
                F, q, df, scaling = f_statistic(fit, L, variance)
            except ModelError as error:
                if variance.unseen is None:
                    raise
                # Of a robust table the other terms remain.
                warn(f"Not tested: term {label}. {error}", ClusterWarning)
                F, q, df, scaling = np.nan, len(L), np.nan, 1.0
            mean_square = F * fit.sigma**2
            p = p_of_f(scaling * F, q, df)
            row = (mean_square * q, mean_square, q, df, scaling * F, p)
        rows[label] = row
    columns = ["Sum Sq", "Mean Sq", "NumDF", "DenDF", "F value", "Pr(>F)"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    if variance.normal:
        table = _of_chi_squared(table)
    if fit.optimum.undetermined:
        table.attrs["undetermined"] = fit.optimum.undetermined
    how = variance.method.removeprefix("t-tests use ").removeprefix("z-tests, ")
    notes = [f"Type {'I' * kind} tests; {how}"]
    if kind > 1:
        notes += [
            f"{', '.join(terms)} tested at {number} = 0, at the edge of the data or beyond; "
            "m.joint_tests() tests at its mean"
            for number, terms in terms_at_zero(fit).items()
        ]
    return ResultTable.of(table, tuple(notes))


def _of_chi_squared(table: pd.DataFrame) -> pd.DataFrame:
    """The table of F tests with infinitely many degrees of freedom as one of chi-square."""
    q = table["NumDF"]
    return pd.DataFrame(
        {"Chisq": q * table["F value"], "Df": q, "Pr(>Chisq)": table["Pr(>F)"]}, index=table.index
    )


def checked_type(kind: Any) -> int:
    """The type of the hypotheses about terms, 1, 2 or 3.

    Raises
    ------
    ModelError
        If it is not known.
    """
    names = {1: 1, 2: 2, 3: 3, "1": 1, "2": 2, "3": 3, "I": 1, "II": 2, "III": 3}
    kind = plain(kind)
    if isinstance(kind, bool) or not isinstance(kind, (int, str)) or kind not in names:
        raise ModelError(
            f"type {kind!r:.60} is not known; there are 1, 2, 3 (or 'I', 'II', 'III')."
        )
    return names[kind]


@once_per_fit("terms tested at zero")
def terms_at_zero(fit: Fit) -> dict[str, list[str]]:
    """See `tested_at_zero`."""
    # One stored without its rows before this was kept with it cannot say.
    encoder = fit.frame.fixed_encoder
    if fit.remembered or encoder is None:
        return {}
    return tested_at_zero(encoder, data_summary(fit))


@once_per_fit("hypotheses about the terms")
def term_hypotheses(fit: Fit, kind: int) -> dict[str, Matrix]:
    """Contrasts of each term of the fixed part, of type 1, 2 or 3."""
    assert fit.frame.fixed_encoder is not None
    return term_contrasts(fit.frame.fixed_encoder, data_summary(fit), kind)
