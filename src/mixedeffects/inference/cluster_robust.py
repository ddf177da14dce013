"""Cluster-robust covariance of the fixed effects, with its own degrees of freedom and tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import NDArray

from mixedeffects.base.caching import cached_property
from mixedeffects.base.options import checked_choice, checked_flag, checked_level
from mixedeffects.base.warning import warn
from mixedeffects.covariance.of_fit import V_of
from mixedeffects.display.coefficients import coefficient_table
from mixedeffects.display.result_table import ResultTable
from mixedeffects.display.tables import Table
from mixedeffects.errors import ClusterWarning, ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.representative import with_rows
from mixedeffects.inference.cluster_factor import (
    ClusterFactor,
    cluster_columns,
    crossing_of,
    read_cluster,
)
from mixedeffects.inference.cluster_moments import KINDS, ClusterMoments, cluster_moments
from mixedeffects.inference.cluster_wald import quadratic_form, robust_wald
from mixedeffects.inference.contrasts import contrast_matrix
from mixedeffects.inference.estimates import Estimates, tests_table
from mixedeffects.inference.multiway import MULTIWAY_KINDS, multiway_covariance
from mixedeffects.inference.saddlepoint import saddlepoint_p_value
from mixedeffects.inference.unseen import Unseen
from mixedeffects.inference.variance import FixedDf, FixedEffectsVariance
from mixedeffects.inference.wald_result import WaldTest

if TYPE_CHECKING:
    from mixedeffects.frame.model_frame import ModelFrame

__all__ = [
    "COEFFICIENT_TESTS",
    "Found",
    "RobustCovariance",
    "check_kind",
    "made",
    "robust_covariance",
]

Matrix = NDArray[np.float64]

COEFFICIENT_TESTS = ("Satterthwaite", "saddlepoint", "z", "naive-t", "naive-tp")


@dataclass(frozen=True, eq=False, repr=False)
class RobustCovariance:
    """Cluster-robust inference about the fixed effects, made by `LinearMixedModel.robust`.

    Attributes
    ----------
    kind : str
        ``"CR0"`` to ``"CR3"``; ``"CR2-working"`` and ``"CR3-working"`` of a generalized model.
    cluster : tuple of str
        Names of the cluster factors.
    n_clusters : tuple of int
        Number of clusters of each.
    estimate : Series, length p
        Fixed effects.
    vcov : DataFrame, p x p
        Their covariance matrix, in products of their units; NaN where single clusters determine a
        coefficient, so that they say nothing about its variance.
    df : Series, length p
        Degrees of freedom: Satterthwaite's; for multiway or crossed clusters the smallest number
        of clusters less one.
    repaired : bool
        Whether a multiway covariance matrix had negative eigenvalues, which were put to zero.
    smallest_eigenvalue : float
        Smallest eigenvalue before the repair relative to the largest; NaN for nested clusters.
    level : float or None
        Confidence level of the intervals in ``table``.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", me.load_dataset("threelevel"))
    >>> robust = m.robust("CR2")
    >>> robust
    CR2 covariance, clusters sch.cl (10), Satterthwaite's degrees of freedom
    ...
    >>> round(robust.test("x1").den_df, 2)
    8.01
    """

    kind: str
    cluster: tuple[str, ...]
    n_clusters: tuple[int, ...]
    estimate: pd.Series
    vcov: pd.DataFrame
    df: pd.Series
    repaired: bool
    smallest_eigenvalue: float
    level: float | None
    _frame: ModelFrame
    _moments: ClusterMoments | None
    _unseen: Unseen
    _note: str = ""

    @cached_property
    def se(self) -> pd.Series:
        """Standard errors, a Series of length p in the units of the coefficients."""
        return pd.Series(np.sqrt(np.diag(self.vcov)), index=self.estimate.index, name="Std. Error")

    @cached_property
    def table(self) -> pd.DataFrame:
        """Estimates, standard errors, t tests and intervals, p rows; see ``coef_table``."""
        return self.coef_table()

    def coef_table(self, test: str = "Satterthwaite") -> pd.DataFrame:
        """Tests of the single coefficients.

        Parameters
        ----------
        test : {"Satterthwaite", "saddlepoint", "z", "naive-t", "naive-tp"}
            Degrees of freedom by Satterthwaite's method, infinite, ``J - 1`` or ``J - p`` for J
            clusters; or p-values by a saddlepoint approximation, which have none.

        Returns
        -------
        DataFrame, p rows
            Columns ``Estimate``, ``Std. Error``, ``df``, ``t value``, ``Pr(>|t|)`` and the bounds
            of the interval; for the saddlepoint ``saddlepoint`` instead of ``df`` and no interval.

        Raises
        ------
        ModelError
            If the test is not known, or not defined for multiway clusters.

        References
        ----------
        The definitions are those of ``coef_test`` in R's clubSandwich.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", me.load_dataset("threelevel"))
        >>> m.robust("CR2").coef_table("naive-t")["df"].tolist()
        [9.0, 9.0]
        """
        test = checked_choice(test, "test", tuple(COEFFICIENT_TESTS))
        estimate, se = self.estimate.to_numpy(), self.se.to_numpy()
        if test == "saddlepoint":
            t = Estimates(estimate, se, se).t
            own, u = self._nested(test).variances(np.eye(len(se)))
            found = [
                (np.nan, np.nan) if np.isnan(t[i]) else saddlepoint_p_value(t[i], own[i], u[i])
                for i in range(len(se))
            ]
            columns = {
                "Estimate": estimate,
                "Std. Error": se,
                "saddlepoint": np.array([s for s, _ in found]),
                "t value": t,
                "Pr(>|t|)": np.array([p for _, p in found]),
            }
            return ResultTable(columns, index=self.estimate.index)
        few = min(self.n_clusters)
        df = {
            "Satterthwaite": self.df.to_numpy(),
            "z": np.full(len(se), np.inf),
            "naive-t": np.full(len(se), few - 1.0),
            "naive-tp": np.full(len(se), few - float(len(se))),
        }[test]
        # No degrees of freedom left: no p-value, rather than one of a distribution there is not.
        usable = np.where(df > 0.0, df, np.nan)
        tested = Estimates(estimate, se, usable)
        how = f"{self.kind} standard errors"
        return tests_table(tested, self.estimate.index, self.level, how).assign(df=df)

    def test(self, hypothesis: Any, test: str = "HTZ") -> WaldTest:
        """Wald test of several contrasts.

        Parameters
        ----------
        hypothesis : str, sequence of str, or array of shape (p,) or (r, p)
            Terms or coefficients by name that are zero together, or L of ``L beta = 0``.
        test : {"HTZ", "HTA", "HTB", "EDF", "EDT", "Naive-F", "Naive-Fp", "chi-sq"}
            ``HTZ``, Hotelling's T-squared with estimated degrees of freedom, is the one to use;
            the others are there to compare. Multiway clusters have only the last three.

        Returns
        -------
        WaldTest

        Raises
        ------
        ModelError
            If a name or the test is not known, the matrix has the wrong width or dependent rows,
            or there are more contrasts than clusters support.

        References
        ----------
        Tipton, E. and Pustejovsky, J. E. (2015). Small-sample adjustments for tests of moderators
        and model fit using robust variance estimation in meta-regression. Journal of Educational
        and Behavioral Statistics 40, 604-634; ``Wald_test`` in R's clubSandwich.

        Examples
        --------
        >>> import mixedeffects as me
        >>> star = me.load_dataset("star_sample")
        >>> m = me.lmer("read ~ cltype + sx + (1 | sch/tch)", star)
        >>> m.robust("CR2").test("cltype")
        HTZ: F(2, 67.6) = 2.245, p = 0.1138
        """
        L = contrast_matrix(self._frame, hypothesis)
        if self._unseen.hides(L).any():
            raise ModelError(
                "The variance of these contrasts is not known (NaN): the clusters determine them, "
                "or a part of them, one by one. See m.robust(...).vcov; use clusters that the "
                "fixed effects do not single out, or the model's standard errors."
            )
        beta, vcov = self.estimate.to_numpy(), self._unseen.seen
        labelled = pd.DataFrame(L, columns=self.estimate.index)
        if self._moments is not None:
            return robust_wald(self._moments, beta, vcov, labelled, test)
        r, few = len(L), min(self.n_clusters)
        df = {
            "Naive-F": few - 1.0,
            "Naive-Fp": few - float(len(beta)),
            "chi-sq": np.inf,
            "chi2": np.inf,
        }
        if test not in df:
            raise ModelError(
                f"test {test!r} is not defined where clusters cut the blocks of V; there are "
                "'Naive-F', 'Naive-Fp' and 'chi-sq'."
            )
        statistic = quadratic_form(L @ beta, L @ vcov @ L.T) / r
        p = scipy.stats.f.sf(statistic, r, df[test]) if df[test] > 0.0 else np.nan
        if np.isinf(df[test]):
            p = scipy.stats.chi2.sf(r * statistic, r)
        return WaldTest(test, statistic, r, df[test], float(p), 1.0, labelled)

    def _f_test(self, L: Matrix) -> tuple[float, float]:
        """See `FixedEffectsVariance`."""
        joint = self.test(L, "HTZ")
        return joint.den_df, joint.scaling

    def variance(self) -> FixedEffectsVariance:
        """The covariance matrix with its degrees of freedom, as other tests take it."""
        moments = self._moments
        if moments is None:
            few = FixedDf(min(self.n_clusters) - 1.0)
            return FixedEffectsVariance(
                self.vcov.to_numpy(),
                few.df,
                few.f_test,
                f"t-tests use {self.kind} standard errors clustered by {self._clusters}, smallest "
                "number of clusters less one",
                self._unseen,
            )
        return FixedEffectsVariance(
            self.vcov.to_numpy(),
            moments.df,
            self._f_test,
            f"t-tests use {self.kind} standard errors clustered by {self._clusters} and "
            "Satterthwaite's method",
            self._unseen,
        )

    def _nested(self, what: str) -> ClusterMoments:
        if self._moments is None:
            raise ModelError(
                f"{what} is not defined where clusters cut the blocks of V; 'Satterthwaite' (the "
                "smallest number of clusters less one), 'naive-t' and 'z' are."
            )
        return self._moments

    @property
    def _clusters(self) -> str:
        """Names and numbers of the clusters."""
        counted = zip(self.cluster, self.n_clusters, strict=True)
        return ", ".join(f"{name} ({count:,})" for name, count in counted)

    def display_table(self) -> Table:
        """The table as it prints, with the clusters as its caption."""
        method = (
            "Satterthwaite's degrees of freedom"
            if self._moments is not None
            else "degrees of freedom: smallest number of clusters less one"
        )
        table = coefficient_table(self.table)
        notes = table.footnotes
        if self.repaired:
            notes = (
                *notes,
                "Negative eigenvalues of the multiway covariance matrix were put to zero (smallest "
                f"{self.smallest_eigenvalue:.2g} of the largest).",
            )
        if self._note:
            notes = (*notes, self._note)
        caption = f"{self.kind} covariance, clusters {self._clusters}, {method}"
        return Table(table.columns, table.labels, caption, notes)

    def __repr__(self) -> str:
        # Wide enough for the interval's columns beside the estimates.
        return self.display_table().to_text(width=100)

    def _repr_html_(self) -> str:
        return self.display_table()._repr_html_()


def check_kind(kind: Any) -> str:
    """The kind as one of `KINDS`, in any case; ModelError if there is none such."""
    for known in KINDS:
        if isinstance(kind, str) and kind.lower() == known.lower():
            return known
    return checked_choice(kind, "Robust covariance", KINDS)


def robust_covariance(
    fit: Fit,
    kind: str,
    cluster: Any = None,
    level: float | None = 0.95,
    crossed: bool = False,
) -> RobustCovariance:
    """See `LinearMixedModel.robust`."""
    kind = check_kind(kind)
    crossed = checked_flag(crossed, "crossed")
    if level is not None:
        level = checked_level(level)
    several = isinstance(cluster, (list, tuple)) and all(
        isinstance(c, str) or np.ndim(c) == 1 for c in cluster
    )
    # A list of strings as long as the data are the clusters of the rows, not names of factors.
    if several and len(cluster) >= fit.nobs and all(np.ndim(c) == 0 for c in cluster):
        several = False
    if several and len(cluster) == 0:
        raise ModelError("cluster=[] names no factor; give one or several, or None.")
    given = list(cluster) if several else [cluster]
    columns = [name for each in given for name in cluster_columns(fit, each)]
    # Of the kinds only CR2 depends on how much single rows vary.
    fit = with_rows(fit, columns, by_weight=kind == "CR2")
    factors = [read_cluster(fit, each) for each in given]
    names = list(fit.frame.fixef_names)
    residuals = fit.frame.y - fit.fixed_part
    basis = fit.crossproducts.basis.fixed
    moments, repaired, smallest = None, False, np.nan
    if len(factors) == 1:
        crossing = crossing_of(V_of(fit)._structure.groupings, factors[0])
        if crossing is None:
            moments = cluster_moments(
                V_of(fit), fit.frame.X, residuals, factors[0], kind, basis, fit.nobs
            )
        elif crossed:
            _warn_crossed(crossing)
        else:
            raise ModelError(
                f"{crossing} Clusters must be independent: choose such a factor, a list of factors "
                "for multiway clustering, or crossed=True to add up the scores by "
                f"{factors[0].name!r} all the same (kinds {', '.join(MULTIWAY_KINDS)})."
            )
    if moments is not None:
        seen, df = moments.vcov, moments.df(np.eye(len(names)))
        unseen = Unseen(moments.unseen, fit.vcov, seen)
    else:
        result = multiway_covariance(
            V_of(fit), fit.frame.X, residuals, factors, kind, basis, fit.nobs
        )
        seen, repaired, smallest = result.vcov, result.repaired, result.smallest
        df = np.full(len(names), min(factor.n_levels for factor in factors) - 1.0)
        unseen = Unseen(result.unseen, fit.vcov, seen)
    found = Found(moments, df, repaired, float(smallest), unseen)
    return made(fit, kind, factors, found, level)


@dataclass(frozen=True, eq=False)
class Found:
    """A covariance matrix before what the clusters do not show is left out.

    Attributes
    ----------
    moments : ClusterMoments or None
        Of nested clusters.
    df : ndarray, shape (p,)
        Degrees of freedom.
    repaired, smallest
        See `RobustCovariance`.
    unseen : Unseen
        The matrix, and what single clusters determine.
    """

    moments: ClusterMoments | None
    df: Matrix
    repaired: bool
    smallest: float
    unseen: Unseen


def made(
    fit: Fit,
    kind: str,
    factors: Sequence[ClusterFactor],
    found: Found,
    level: float | None,
    note: str = "",
) -> RobustCovariance:
    """The result, with NaN where the clusters say nothing."""
    names = list(fit.frame.fixef_names)
    unknown = found.unseen.hides(np.eye(len(names)))
    if unknown.any():
        _tell_of_unknown(fit, unknown, found.unseen, factors)
    vcov = found.unseen.seen.copy()
    vcov[unknown] = np.nan
    vcov[:, unknown] = np.nan
    return RobustCovariance(
        kind=kind,
        cluster=tuple(factor.name for factor in factors),
        n_clusters=tuple(factor.n_levels for factor in factors),
        estimate=pd.Series(fit.beta.copy(), index=names, name="Estimate"),
        vcov=pd.DataFrame(vcov, index=names, columns=names),
        df=pd.Series(np.where(unknown, np.nan, found.df), index=names, name="df"),
        repaired=found.repaired,
        smallest_eigenvalue=found.smallest,
        level=level,
        _frame=fit.frame,
        _moments=found.moments,
        _unseen=found.unseen,
        _note=note,
    )


def _tell_of_unknown(
    fit: Fit,
    unknown: NDArray[np.bool_],
    unseen: Unseen,
    factors: Sequence[ClusterFactor],
) -> None:
    """Say which coefficients the clusters determine; ModelError if there is nothing else."""
    names = [name for name, none in zip(fit.frame.fixef_names, unknown, strict=True) if none]
    counts = ", ".join(f"{factor.n_levels:,} of {factor.name}" for factor in factors)
    listed = ", ".join(repr(name) for name in names)
    if np.linalg.matrix_rank(unseen.directions) == len(unknown):
        raise ModelError(
            f"The clusters ({counts}) determine every coefficient one by one, so they say nothing "
            "about variances. Use clusters that the fixed effects do not single out."
        )
    warn(
        f"The clusters ({counts}) determine {listed} one by one, wholly or in part: without some "
        "cluster that part cannot be estimated, and its residuals add up to zero whatever the "
        "errors are. So they say nothing about the variance there: it is NaN. Use clusters that "
        "the fixed effects do not single out, or the model's standard errors.",
        ClusterWarning,
    )


def _warn_crossed(crossing: str) -> None:
    warn(
        f"{crossing} The covariance between the clusters is left out, so standard errors are too "
        "small for coefficients that vary with the other factors.",
        ClusterWarning,
    )
