"""What the estimates of a generalized model owe to clusters: refits, or a step from the scores."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.options import checked_flag
from mixedeffects.diagnostics.deletion import Deleted
from mixedeffects.diagnostics.deletion_refit import refit_levels
from mixedeffects.diagnostics.influence import Influence, labelled, levels_to_leave_out
from mixedeffects.engine.generalized.scores import cluster_scores
from mixedeffects.engine.threads import one_blas_thread
from mixedeffects.errors import ConvergenceWarning
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.generalized import GeneralizedFit, generalized
from mixedeffects.fitting.generalized.refitting import fit_of_rows
from mixedeffects.inference.cluster_factor import ClusterFactor
from mixedeffects.inference.score_robust import checked_cluster
from mixedeffects.progress import Listener, ProgressOption

__all__ = ["ONE_STEP", "generalized_influence"]

Matrix = NDArray[np.float64]

#: How the approximation is called.
ONE_STEP = "an approximation: one step from the scores, standard errors of all rows"


def generalized_influence(
    fit: GeneralizedFit, by: Any, refit: Any, progress: ProgressOption
) -> Influence:
    """See `GeneralizedLinearMixedModel.influence`."""
    refit = checked_flag(refit, "refit")
    Listener(progress)
    if not refit:
        factor = checked_cluster(fit, by)
        labels = pd.Index(list(factor.levels), name=factor.name)
        return labelled(fit, factor, labels, False, _one_step(fit, factor), None, ONE_STEP)
    factor, labels = levels_to_leave_out(fit, by)
    return refit_levels(
        fit,
        factor.codes,
        [str(level) for level in factor.levels],
        progress,
        lambda deleted, natural: labelled(fit, factor, labels, True, deleted, natural),
        _refit_rows,
    )


def _one_step(fit: GeneralizedFit, factor: ClusterFactor) -> Deleted:
    """``beta - beta(-j)`` by a Newton step with the Hessian of all rows."""
    found, p = fit.found, len(fit.beta)
    joint, Q = found.joint, found.design.basis.fixed
    with one_blas_thread(found.design.skeleton.remainder.core_size):
        scores = cluster_scores(fit.evaluation, joint, factor.codes, factor.n_levels)
    out = Deleted.empty(factor.n_levels, p)
    out.change[:] = -0.5 * scores @ joint.covariance[:, joint.fixed] @ Q.T
    out.variance[:] = np.diag(fit.vcov)
    if p:
        size = np.sqrt(np.diag(fit.vcov))
        scaled = out.change / size
        information = np.linalg.inv(fit.vcov / np.outer(size, size))
        out.cooks_distance[:] = np.einsum("jp,pq,jq->j", scaled, information, scaled) / p
    return out


def _refit_rows(fit: Fit, rows: NDArray[np.intp]) -> tuple[Fit, str | None]:
    """The model fitted to some of its rows; columns stay what they are.

    Raises
    ------
    ModelError
        If the model is not identified from these rows.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        again = fit_of_rows(generalized(fit), rows)
    if not again.optimum.converged:
        return again, f"the fit without it {again.optimum.message}"
    return again, None
