"""Rubin's rules for contrasts of the fixed effects of several fits: variances, df and tests."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.errors import ModelError
from mixedeffects.inference.imputation_rules import (
    barnard_rubin_df,
    missing_information,
    reiter_df,
)
from mixedeffects.inference.variance import FixedEffectsVariance
from mixedeffects.inference.wald import independent_rows, p_of_f
from mixedeffects.inference.wald_result import WaldTest

__all__ = ["RubinsRules"]

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RubinsRules:
    """The rules, applied to estimates and their variances within the fits and between them.

    Attributes
    ----------
    estimates : Series, length p
        Means of the fixed effects.
    between : ndarray, shape (p, p)
        Covariance matrix of the estimates over the fits.
    variances : tuple of FixedEffectsVariance
        One for each fit.
    method : str
        Where the complete data's degrees of freedom come from.
    """

    estimates: pd.Series
    between: Matrix
    variances: tuple[FixedEffectsVariance, ...]
    method: str

    @property
    def m(self) -> int:
        """Number of fits."""
        return len(self.variances)

    @property
    def variance(self) -> FixedEffectsVariance:
        """The total variance with Barnard and Rubin's degrees of freedom."""
        unseen = next((v.unseen for v in self.variances if v.unseen is not None), None)
        between = (1.0 + 1.0 / self.m) * self.between
        total = np.mean([v.vcov for v in self.variances], axis=0) + between
        seen = np.mean([v.seen for v in self.variances], axis=0) + between
        return FixedEffectsVariance(
            total,
            self._df,
            self._f_test,
            f"pooled over {self.m} fits; {self.method}",
            None if unseen is None else replace(unseen, seen=seen),
        )

    def _df(self, L: Matrix) -> Matrix:
        return self.of(L)["df"].to_numpy()

    def _f_test(self, L: Matrix) -> tuple[float, float]:
        """Reiter's degrees of freedom; the test itself is `joint`'s."""
        return self.joint(L)[0].den_df, 1.0

    def f_statistic(self, L: Matrix) -> tuple[float, int, float, float]:
        """The test D1 as `joint_tests` takes it: F, both degrees of freedom, a scaling of one."""
        test = self.joint(L)[0]
        return test.statistic, test.num_df, test.den_df, 1.0

    def of(self, L: Matrix) -> pd.DataFrame:
        """Pooled contrasts, each by itself; NaN where the variance is not known in some fit."""
        m = self.m
        within = np.mean([variance.variances(L) for variance in self.variances], axis=0)
        between = (1.0 + 1.0 / m) * np.einsum("rp,pq,rq->r", L, self.between, L)
        total = within + between
        with np.errstate(divide="ignore", invalid="ignore"):
            increase, lost = between / within, between / total
        df = barnard_rubin_df(lost, m, self.complete_df(L))
        return pd.DataFrame(
            {
                "estimate": L @ self.estimates.to_numpy(),
                "std_error": np.sqrt(total),
                "df": np.where(np.isnan(total), np.nan, df),
                "riv": increase,
                "fmi": missing_information(increase, df),
            }
        )

    def complete_df(self, L: Matrix) -> Matrix:
        """Harmonic mean over the fits: the mean of the relative variances of the variances."""
        return _harmonic(np.array([variance.df(L) for variance in self.variances]))

    def joint(self, L: Matrix) -> tuple[WaldTest, float]:
        """The test D1, and the average relative increase of the variances."""
        B = self.between
        labelled = pd.DataFrame(L, columns=list(self.estimates.index))
        if any(variance.hides(L).any() for variance in self.variances):
            raise ModelError(
                "The variance of these contrasts is not known (NaN) in some of the fits, so they "
                "cannot be tested. Use the model's covariance matrix, or other clusters."
            )
        within = np.mean([variance.covariance(L) for variance in self.variances], axis=0)
        rows, values = independent_rows(L, within)
        q = len(rows)
        if q == 0:
            return WaldTest("D1", np.nan, 0, np.nan, np.nan, 1.0, labelled), np.nan
        increase = float(np.sum(np.einsum("rp,pq,rq->r", rows, B, rows) / values))
        increase *= (1.0 + 1.0 / self.m) / q
        scaling = 1.0 / (1.0 + increase)
        if q == 1:
            df = float(self.of(rows)["df"].iloc[0])
        else:
            each = [variance.f_test(rows) for variance in self.variances]
            complete = float(_harmonic(np.array([[own_df] for own_df, _ in each]))[0])
            scaling *= float(np.mean([own for _, own in each]))
            df = reiter_df(increase, q, self.m, complete)
        estimate = rows @ self.estimates.to_numpy()
        F = scaling * float(np.sum(estimate**2 / values)) / q
        return WaldTest("D1", F, q, df, p_of_f(F, q, df), scaling, labelled), increase


def _harmonic(df: Matrix) -> Matrix:
    """Harmonic mean over the first axis; infinite where all are."""
    with np.errstate(divide="ignore"):
        return np.asarray(1.0 / np.mean(1.0 / df, axis=0))
