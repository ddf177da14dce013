"""Wald tests of hypotheses about the fixed effects, and tables of them by term."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import NDArray

from mixedeffects.errors import ModelError
from mixedeffects.inference.contrasts import contrast_matrix
from mixedeffects.inference.hypotheses import term_contrasts
from mixedeffects.inference.variance import FixedEffectsVariance, fixed_effects_variance

if TYPE_CHECKING:
    from mixedeffects.model import LinearMixedModel

__all__ = ["WaldTest", "anova_table", "term_tests", "wald_test"]

Matrix = NDArray[np.float64]

#: Variances of contrasts in units of the largest below which they are combinations of others, as
#: lmerTest has it.
_RANK = float(np.sqrt(np.finfo(np.float64).eps))


@dataclass(frozen=True, eq=False)
class WaldTest:
    """A test that linear combinations of the fixed effects are zero.

    Attributes
    ----------
    test : {"F", "chi2"}
        The reference distribution.
    statistic : float
        The statistic, scaled where the method asks for it.
    num_df : int
        Number of linearly independent contrasts.
    den_df : float
        Denominator degrees of freedom; infinite for chi-squared.
    p : float
        Probability of a larger statistic if the hypothesis holds.
    scaling : float
        Factor in the statistic: Kenward and Roger's, otherwise one.
    contrasts : DataFrame
        The hypothesis, one row per contrast, one column per fixed effect.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> m.wald("Days", ddf="kr")
    F(1, 17.0) = 45.85, p = 3.264e-06
    """

    test: str
    statistic: float
    num_df: int
    den_df: float
    p: float
    scaling: float
    contrasts: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """One row in the layout of `LinearMixedModel.anova`.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> list(m.wald("Days").to_frame())
        ['NumDF', 'DenDF', 'F value', 'Pr(>F)']
        """
        name, p = ("F value", "Pr(>F)") if self.test == "F" else ("Chisq", "Pr(>Chisq)")
        return pd.DataFrame(
            {"NumDF": [self.num_df], "DenDF": self.den_df, name: self.statistic, p: self.p}
        )

    def __repr__(self) -> str:
        if self.test == "chi2":
            return f"chi2({self.num_df}) = {self.statistic:.4g}, p = {self.p:.4g}"
        return f"F({self.num_df}, {self.den_df:.1f}) = {self.statistic:.4g}, p = {self.p:.4g}"


def wald_test(
    model: LinearMixedModel, hypothesis: Any, ddf: str, vcov: str, test: str, cluster: Any = None
) -> WaldTest:
    """See `LinearMixedModel.wald`."""
    if test not in ("F", "chi2"):
        raise ModelError(f"test {test!r} is not known; there are 'F', 'chi2'.")
    variance = fixed_effects_variance(model, vcov, "inf" if test == "chi2" else ddf, cluster)
    contrasts = contrast_matrix(model.frame, hypothesis)
    F, q, df, scaling = _f_statistic(model, contrasts, variance)
    labelled = pd.DataFrame(contrasts, columns=model.fixef.index)
    if test == "chi2":
        p = float(scipy.stats.chi2.sf(q * F, q))
        return WaldTest("chi2", q * F, q, np.inf, p, 1.0, labelled)
    return WaldTest("F", scaling * F, q, df, _p_value(scaling * F, q, df), scaling, labelled)


def _f_statistic(
    model: LinearMixedModel, L: Matrix, variance: FixedEffectsVariance
) -> tuple[float, int, float, float]:
    """Unscaled F, number of independent contrasts, denominator df and scaling."""
    values, vectors = np.linalg.eigh(L @ variance.vcov @ L.T)
    keep = values > max(_RANK * values[-1], 0.0)
    independent = vectors[:, keep].T @ L
    q = len(independent)
    if q == 0:
        return np.nan, 0, np.nan, 1.0
    estimate = independent @ model.fixef.to_numpy()
    F = float(np.sum(estimate**2 / values[keep])) / q
    if q == 1:
        return F, 1, float(variance.df(independent)[0]), 1.0
    df, scaling = variance.f_test(independent)
    return F, q, df, scaling


def _p_value(F: float, q: int, df: float) -> float:
    if np.isinf(df):
        return float(scipy.stats.chi2.sf(q * F, q))
    return float(scipy.stats.f.sf(F, q, df))


def anova_table(model: LinearMixedModel, kind: Any, ddf: str) -> pd.DataFrame:
    """See `LinearMixedModel.anova`."""
    names = {1: 1, 2: 2, 3: 3, "1": 1, "2": 2, "3": 3, "I": 1, "II": 2, "III": 3}
    if isinstance(kind, bool) or not isinstance(kind, (int, str)) or kind not in names:
        raise ModelError(f"type {kind!r} is not known; there are 1, 2, 3 (or 'I', 'II', 'III').")
    return term_tests(model, names[kind], fixed_effects_variance(model, "model", ddf))


def term_tests(model: LinearMixedModel, kind: int, variance: FixedEffectsVariance) -> pd.DataFrame:
    """F tests of the terms with any covariance matrix of the fixed effects and its df."""
    rows = {}
    for label, L in term_contrasts(model.frame, kind).items():
        row = (np.nan,) * 6
        if len(L):
            F, q, df, scaling = _f_statistic(model, L, variance)
            mean_square = F * model.sigma**2
            p = _p_value(scaling * F, q, df)
            row = (mean_square * q, mean_square, q, df, scaling * F, p)
        rows[label] = row
    columns = ["Sum Sq", "Mean Sq", "NumDF", "DenDF", "F value", "Pr(>F)"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)
