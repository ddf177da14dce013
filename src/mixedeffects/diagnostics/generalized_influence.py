"""What the estimates of a generalized model owe to clusters: refits, or a step from the scores."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.options import checked_flag
from mixedeffects.diagnostics.deletion import Deleted
from mixedeffects.diagnostics.deletion_refit import refit_levels
from mixedeffects.diagnostics.influence import Influence, labelled
from mixedeffects.engine.generalized.scores import cluster_scores
from mixedeffects.engine.threads import one_blas_thread
from mixedeffects.errors import ConvergenceWarning, ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.generalized import GeneralizedFit, generalized
from mixedeffects.fitting.generalized.assembly import generalized_design
from mixedeffects.fitting.generalized.fitting import fit_generalized_frame
from mixedeffects.fitting.subset import terms_of_rows
from mixedeffects.frame.rank import independent_columns
from mixedeffects.inference.cluster_factor import ClusterFactor, read_levels
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
    if by is None:
        factor = ClusterFactor("row", np.arange(fit.nobs), [str(each) for each in fit.frame.index])
        labels = fit.frame.index
    else:
        factor = read_levels(fit, by, "by", "levels")
        labels = pd.Index(list(factor.levels), name=factor.name)
    if factor.n_levels < 2:
        raise ModelError(
            f"All rows have the same level of {factor.name!r}, so nothing would be left without it."
        )
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
    record, frame = generalized(fit), fit.frame
    X = np.asfortranarray(frame.X[rows])
    kept = set(independent_columns(X).tolist())
    if len(kept) < X.shape[1]:
        lost = [repr(name) for i, name in enumerate(frame.fixef_names) if i not in kept]
        raise ModelError(
            f"the fixed effects cannot all be estimated from the other rows: {', '.join(lost)} "
            "cannot"
        )
    response = record.response.take(rows)
    reduced = dataclasses.replace(
        frame,
        y=frame.y[rows],
        X=X,
        terms=tuple(terms_of_rows(frame.terms, rows)),
        response=response,
        weights=None if frame.weights is None else frame.weights[rows],
        offset=None if frame.offset is None else frame.offset[rows],
        index=frame.index[rows],
        positions=frame.positions[rows],
        data=frame.data.iloc[rows],
    )
    start: dict[str, Any] = {"beta": record.beta}
    if record.search_phi is not None:
        start["phi"] = record.search_phi
    design = generalized_design(reduced, record.family)
    if not record.optimum.singular:
        start["T"] = [design.basis.engine_factor(t, T) for t, T in enumerate(record.T)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        again = fit_generalized_frame(reduced, design, record.request, start)
    if not again.optimum.converged:
        return again, f"the fit without it {again.optimum.message}"
    return again, None
