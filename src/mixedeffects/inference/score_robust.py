"""Cluster-robust covariance from the scores of a generalized fit, in all its parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import NDArray

from mixedeffects.base.caching import cached_property
from mixedeffects.base.options import checked_level
from mixedeffects.base.warning import warn
from mixedeffects.covariance.of_fit import V_of
from mixedeffects.display.coefficients import coefficient_table
from mixedeffects.display.tables import Table
from mixedeffects.engine.generalized.scores import cluster_scores
from mixedeffects.engine.threads import one_blas_thread
from mixedeffects.errors import ClusterWarning, ModelError
from mixedeffects.fitting.generalized import GeneralizedFit
from mixedeffects.inference.cluster_factor import ClusterFactor, crossing_of, read_cluster
from mixedeffects.inference.cluster_moments import cluster_moments
from mixedeffects.inference.cluster_wald import quadratic_form
from mixedeffects.inference.contrasts import contrast_matrix
from mixedeffects.inference.estimates import Estimates, tests_table
from mixedeffects.inference.unseen import Unseen
from mixedeffects.inference.variance import FixedDf, FixedEffectsVariance
from mixedeffects.inference.wald_result import WaldTest

if TYPE_CHECKING:
    from mixedeffects.frame.model_frame import ModelFrame

__all__ = ["ScoreRobustCovariance", "checked_cluster", "score_robust_covariance"]

Matrix = NDArray[np.float64]

SCORE_KINDS = ("CR0", "CR1")


@dataclass(frozen=True, eq=False, repr=False)
class ScoreRobustCovariance:
    """Cluster-robust inference, made by `GeneralizedLinearMixedModel.robust`.

    Attributes
    ----------
    kind : str
        ``"CR0"`` or ``"CR1"``.
    cluster : tuple of str
        Name of the cluster factor.
    n_clusters : tuple of int
        Number of clusters.
    estimate : Series, length p
        Fixed effects, on the scale of the link.
    vcov : DataFrame, p x p
        Their covariance matrix; NaN where single clusters determine a coefficient, so that they
        say nothing about its variance.
    scores : DataFrame, J x p
        Gradient of each cluster's log-likelihood in the fixed effects; they sum to zero.
    level : float or None
        Confidence level of the intervals in ``table``.

    Examples
    --------
    >>> import mixedeffects as me
    >>> cbpp = me.load_dataset("cbpp")
    >>> m = me.glmer(
    ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
    ... )
    >>> m.robust("CR0")
    CR0 covariance, clusters herd (15), z-tests
    ...
    >>> m.robust("CR0").test("period").num_df
    3
    """

    kind: str
    cluster: tuple[str, ...]
    n_clusters: tuple[int, ...]
    estimate: pd.Series
    vcov: pd.DataFrame
    scores: pd.DataFrame
    level: float | None
    _frame: ModelFrame
    _unseen: Unseen
    _joint_root: Matrix

    @cached_property
    def se(self) -> pd.Series:
        """Standard errors, a Series of length p in the units of the coefficients."""
        return pd.Series(np.sqrt(np.diag(self.vcov)), index=self.estimate.index, name="Std. Error")

    @cached_property
    def table(self) -> pd.DataFrame:
        """Estimates, standard errors, z tests and intervals, p rows."""
        se = self.se.to_numpy()
        df = np.where(np.isnan(se), np.nan, np.inf)
        tested = Estimates(self.estimate.to_numpy(), se, df)
        how = f"{self.kind} standard errors"
        return tests_table(tested, self.estimate.index, self.level, how, normal=True)

    def test(self, hypothesis: Any) -> WaldTest:
        """Chi-square test of several contrasts.

        Parameters
        ----------
        hypothesis : str, sequence of str, or array of shape (p,) or (r, p)
            Terms or coefficients by name that are zero together, or L of ``L beta = 0``.

        Returns
        -------
        WaldTest

        Raises
        ------
        ModelError
            If a name is not known, the matrix has the wrong width or dependent rows, or clusters
            do not show the variance.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> m.robust().test("period").test
        'chi2'
        """
        L = contrast_matrix(self._frame, hypothesis)
        if self._unseen.hides(L).any():
            raise ModelError(
                "The variance of these contrasts is not known (NaN): the clusters determine them, "
                "or a part of them, one by one. See m.robust(...).vcov; use clusters that the "
                "fixed effects do not single out, or the model's standard errors."
            )
        beta = self.estimate.to_numpy()
        statistic = quadratic_form(L @ beta, L @ self._unseen.seen @ L.T)
        p = float(scipy.stats.chi2.sf(statistic, len(L)))
        labelled = pd.DataFrame(L, columns=self.estimate.index)
        return WaldTest("chi2", float(statistic), len(L), np.inf, p, 1.0, labelled)

    def variance(self) -> FixedEffectsVariance:
        """The covariance matrix as other tests take it."""
        fixed = FixedDf(np.inf)
        return FixedEffectsVariance(
            self.vcov.to_numpy(),
            fixed.df,
            fixed.f_test,
            f"z-tests, {self.kind} standard errors clustered by {self._clusters}",
            self._unseen,
            True,
            lambda: self._joint_root,
        )

    @property
    def _clusters(self) -> str:
        """Name and number of the clusters."""
        return f"{self.cluster[0]} ({self.n_clusters[0]:,})"

    def display_table(self) -> Table:
        """The table as it prints, with the clusters as its caption."""
        table = coefficient_table(self.table)
        caption = f"{self.kind} covariance, clusters {self._clusters}, z-tests"
        return Table(table.columns, table.labels, caption, table.footnotes)

    def __repr__(self) -> str:
        return self.display_table().to_text(width=100)

    def _repr_html_(self) -> str:
        return self.display_table()._repr_html_()


def score_robust_covariance(
    fit: GeneralizedFit, kind: Any, cluster: Any = None, level: float | None = 0.95
) -> ScoreRobustCovariance:
    """See `GeneralizedLinearMixedModel.robust`."""
    kind = _checked_kind(kind)
    if level is not None:
        level = checked_level(level)
    factor = checked_cluster(fit, cluster)
    names = list(fit.fixef_names)
    found = fit.found
    joint, Q = found.joint, found.design.basis.fixed
    with one_blas_thread(found.design.skeleton.remainder.core_size):
        scores = cluster_scores(fit.evaluation, joint, factor.codes, factor.n_levels)
    J = factor.n_levels
    scale = J / (J - 1.0) if kind == "CR1" else 1.0
    # Of -2 log L: half of it is that of the likelihood.
    root = 0.5 * np.sqrt(scale) * (scores @ joint.covariance).T
    of_beta = Q @ root[joint.fixed]
    seen = of_beta @ of_beta.T
    unseen = Unseen(_unseen_directions(fit, factor), fit.vcov, seen)
    unknown = unseen.hides(np.eye(len(names)))
    if unknown.any():
        _tell_of_unknown(names, unknown, unseen, factor)
    vcov = seen.copy()
    vcov[unknown] = np.nan
    vcov[:, unknown] = np.nan
    own = -0.5 * np.linalg.solve(Q.T, scores[:, joint.fixed].T).T
    return ScoreRobustCovariance(
        kind=kind,
        cluster=(factor.name,),
        n_clusters=(J,),
        estimate=pd.Series(fit.beta.copy(), index=names, name="Estimate"),
        vcov=pd.DataFrame(vcov, index=names, columns=names),
        scores=pd.DataFrame(own, index=list(factor.levels), columns=names),
        level=level,
        _frame=fit.frame,
        _unseen=unseen,
        _joint_root=root,
    )


def _checked_kind(kind: Any) -> str:
    for known in SCORE_KINDS:
        if isinstance(kind, str) and kind.upper() == known:
            return known
    raise ModelError(
        f"Robust covariance {kind!r:.40} is not there for generalized models: 'CR0' and 'CR1' are, "
        "made of the scores of the clusters. CR2, CR3 and the like correct the residuals of a "
        "linear model; m.robust('CR2-working') and m.robust('CR3-working') do so on the working "
        "model, which is an approximation."
    )


def checked_cluster(fit: GeneralizedFit, cluster: Any) -> ClusterFactor:
    """The clusters, if the likelihood is a product over them."""
    several = isinstance(cluster, (list, tuple)) and all(isinstance(c, str) for c in cluster)
    if several and len(cluster) != fit.nobs:
        if len(cluster) != 1:
            raise ModelError(
                "Multiway clusters are for linear models: the likelihood of a generalized one is "
                "no sum over the rows. Give one factor that holds whole levels of all others."
            )
        (cluster,) = cluster
    factor = read_cluster(fit, cluster)
    crossing = crossing_of(fit.frame.terms, factor)
    if crossing is not None:
        raise ModelError(
            f"{crossing} The likelihood is no product over these clusters, so they have no scores "
            "of their own: choose a factor that holds whole levels of every random term."
        )
    return factor


def _unseen_directions(fit: GeneralizedFit, factor: ClusterFactor) -> Matrix:
    """Functions of the coefficients that single clusters determine, by the working model."""
    X, basis = fit.frame.X, fit.crossproducts.basis.fixed
    return cluster_moments(V_of(fit), X, np.zeros(fit.nobs), factor, "CR0", basis).unseen


def _tell_of_unknown(
    names: list[str], unknown: NDArray[np.bool_], unseen: Unseen, factor: ClusterFactor
) -> None:
    """Say which coefficients the clusters determine; ModelError if there is nothing else."""
    count = f"{factor.n_levels:,} of {factor.name}"
    if np.linalg.matrix_rank(unseen.directions) == len(names):
        raise ModelError(
            f"The clusters ({count}) determine every coefficient one by one, so they say nothing "
            "about variances. Use clusters that the fixed effects do not single out."
        )
    listed = ", ".join(repr(name) for name, none in zip(names, unknown, strict=True) if none)
    warn(
        f"The clusters ({count}) determine {listed} one by one, wholly or in part: the scores of "
        "these clusters vanish there whatever the response is. So they say nothing about the "
        "variance there: it is NaN. Use clusters that the fixed effects do not single out, or the "
        "model's standard errors.",
        ClusterWarning,
    )
