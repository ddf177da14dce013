"""Fits of related generalized models."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.factorisation import NotPositiveDefiniteError
from mixedeffects.engine.generalized import GeneralizedOptimum, find_generalized_optimum
from mixedeffects.engine.generalized.constrained import AtConstraint, without_random_effects
from mixedeffects.engine.generalized.existence import separating_direction, separation_message
from mixedeffects.errors import ModelError
from mixedeffects.families import Response
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.generalized.assembly import generalized_design
from mixedeffects.fitting.generalized.fitting import fit_generalized_formula, fit_generalized_frame
from mixedeffects.fitting.generalized.record import GeneralizedFit, generalized
from mixedeffects.fitting.refitting import (
    UNCHANGED,
    Unchanged,
    checked_response,
    for_rows,
    updated_contrasts,
    updated_formula,
    with_response,
)
from mixedeffects.fitting.request import Request, given_table
from mixedeffects.fitting.subset import fixed_columns_of_rows, frame_of_rows
from mixedeffects.frame.checks import check_grouping
from mixedeffects.frame.model_frame import RandomTerm
from mixedeffects.progress import ProgressOption

__all__ = [
    "fit_of_response",
    "fit_of_rows",
    "generalized_with_random_terms",
    "generalized_without_random_terms",
    "optimum_of_response",
    "optimum_of_rows",
    "refit_generalized",
    "update_generalized",
]

Matrix = NDArray[np.float64]

#: Linear predictor beyond which it is worth asking whether a coefficient runs off.
_FAR = 10.0


def optimum_of_response(fit: GeneralizedFit, values: Matrix) -> GeneralizedOptimum | None:
    """The optimum for another response, from that of the fit; None where there is none.

    The design is assembled already. There is no optimum where a coefficient runs off to infinity.

    Parameters
    ----------
    fit : GeneralizedFit
        The fit.
    values : ndarray, shape (n,)
        A response that the family can have, of successes among trials the proportions.
    """
    response = Response(values, fit.response.trials, fit.response.weights)
    design = fit.found.design.changed(response=response)
    try:
        found = find_generalized_optimum(
            design, nagq=fit.nagq, start=_start_of(fit), control=fit.request.control
        )
    except NotPositiveDefiniteError:
        return None
    far = float(np.abs(found.evaluation.linear).max(initial=0.0)) > _FAR
    if (far or not found.converged) and (
        separating_direction(fit.frame.X, response, fit.family) is not None
    ):
        return None
    return found


def optimum_of_rows(fit: GeneralizedFit, kept: NDArray[np.bool_]) -> GeneralizedOptimum:
    """The optimum for some of the rows, the others having no weight.

    Its design still has all rows and levels: those without data have modes of zero, and what the
    others say about them in their conditional variances.

    Parameters
    ----------
    fit : GeneralizedFit
        The fit.
    kept : ndarray of bool, shape (n,)
        The rows that count.

    Raises
    ------
    ModelError
        If the model is not identified from these rows, or has no finite estimates.
    """
    frame, rows = fit.frame, np.flatnonzero(kept)
    fixed_columns_of_rows(frame, rows)
    for term in frame.terms:
        own = np.unique(term.codes[rows])
        check_grouping(term.group, len(own), [str(term.levels[i]) for i in own[:1]], None)
    weights = np.where(kept, 1.0 if fit.response.weights is None else fit.response.weights, 0.0)
    response = Response(fit.response.y, fit.response.trials, weights)
    try:
        found = find_generalized_optimum(
            fit.found.design.changed(response=response),
            nagq=fit.nagq,
            start=_start_of(fit),
            control=fit.request.control,
        )
    except NotPositiveDefiniteError as error:
        raise ModelError(f"the model cannot be fitted to the other rows: {error}") from None
    far = float(np.abs(found.evaluation.linear[rows]).max(initial=0.0)) > _FAR
    if far or not found.converged:
        separated = separating_direction(frame.X[rows], fit.response.take(rows), fit.family)
        if separated is not None:
            raise ModelError(
                "the other rows alone have no finite estimates. "
                f"{separation_message(separated, fit.fixef_names)}"
            )
    return found


def fit_of_response(
    fit: GeneralizedFit, values: Matrix, found: GeneralizedOptimum
) -> GeneralizedFit:
    """The record of an optimum by `optimum_of_response`."""
    response = Response(values, fit.response.trials, fit.response.weights)
    frame = dataclasses.replace(fit.frame, y=values, response=response, response_levels=())
    return GeneralizedFit.of(frame, found, fit.request)


def fit_of_rows(fit: GeneralizedFit, rows: NDArray[np.intp]) -> GeneralizedFit:
    """The model fitted to some of its rows, the levels of the others left out as well.

    Parameters
    ----------
    fit : GeneralizedFit
        The fit.
    rows : ndarray of int
        Row positions to keep.

    Raises
    ------
    ModelError
        If the model is not identified from these rows, or has no finite estimates.
    """
    frame = frame_of_rows(fit.frame, rows)
    design = generalized_design(frame, fit.family)
    start = _start_beside_factors(fit)
    # A singular optimum is a stationary point for many responses: start afresh from there.
    if not fit.optimum.singular:
        start["T"] = [design.basis.engine_factor(t, T) for t, T in enumerate(fit.T)]
    return fit_generalized_frame(frame, design, fit.request, start)


def _start_of(fit: GeneralizedFit) -> dict[str, Any]:
    """The estimates of a fit as a start for the same design."""
    start = _start_beside_factors(fit)
    if fit.optimum.restart is not None:
        start["T"] = fit.optimum.restart
    return start


def _start_beside_factors(fit: GeneralizedFit) -> dict[str, Any]:
    """The estimates of a fit as a start for any random terms: fixed effects and phi."""
    start: dict[str, Any] = {"beta": fit.beta}
    if fit.search_phi is not None:
        start["phi"] = fit.search_phi
    return start


def refit_generalized(fit: GeneralizedFit, y: Any, progress: ProgressOption) -> GeneralizedFit:
    """See `GeneralizedLinearMixedModel.refit`."""
    values = checked_response(fit, y)
    response = Response(values, fit.response.trials, fit.response.weights)
    fit.family.check(response, cast(Any, fit.frame.index))
    if response.trials is not None:
        # Proportions as they are, and not but for rounding.
        values = np.rint(values * response.trials) / response.trials
        response = Response(values, response.trials, response.weights)
    frame, data = with_response(fit, values, y)
    frame = dataclasses.replace(frame, response=response, response_levels=())
    changed: dict[str, Any] = {"data": data}
    if response.trials is not None and fit.request.weights is None:
        # What were successes and failures is now a proportion, which needs its trials.
        trials = np.full(fit.nobs + len(fit.frame.dropped.rows), np.nan)
        trials[fit.frame.positions] = response.trials
        changed["weights"] = trials
    request: Request = dataclasses.replace(fit.request, **changed)
    design = generalized_design(frame, fit.family)
    return fit_generalized_frame(frame, design, request, _start_of(fit), progress)


def update_generalized(
    fit: GeneralizedFit,
    formula: str | None,
    data: Any,
    *,
    family: Any,
    weights: Any,
    offset: Any,
    exposure: Any,
    nagq: int | Unchanged,
    contrasts: dict[str, Any] | Unchanged | None,
    start: Any,
    control: Any,
    progress: ProgressOption,
) -> GeneralizedFit:
    """See `GeneralizedLinearMixedModel.update`."""
    asked = fit.request
    contrasts, inherited = updated_contrasts(fit, contrasts)
    return fit_generalized_formula(
        updated_formula(fit, formula, data),
        given_table(asked) if data is None else data,
        family=asked.family if family is UNCHANGED else family,
        weights=for_rows("weights", asked.weights, weights, asked, data),
        offset=for_rows("offset", asked.offset, offset, asked, data),
        exposure=for_rows("exposure", asked.exposure, exposure, asked, data),
        nagq=asked.nagq if nagq is UNCHANGED else nagq,
        contrasts=contrasts,
        inherited=inherited,
        start=start,
        control=asked.control if control is UNCHANGED else control,
        progress=progress,
    )


def generalized_with_random_terms(fit: Fit, terms: Sequence[RandomTerm]) -> GeneralizedFit:
    """The fit with other random terms, at least one, by the same approximation."""
    own = generalized(fit)
    frame = dataclasses.replace(own.frame, terms=tuple(terms))
    design = generalized_design(frame, own.family)
    return fit_generalized_frame(frame, design, own.request, _start_beside_factors(own))


def generalized_without_random_terms(fit: Fit) -> tuple[float, int]:
    """-2 log L of the generalized linear model that is left, and its number of parameters.

    Raises
    ------
    ModelError
        If it has none.
    """
    own = generalized(fit)
    evaluation = own.evaluation
    at = AtConstraint(evaluation.T, own.beta, evaluation.phi, evaluation.mode.c)
    try:
        found = without_random_effects(own.found.design, at)
    except NotPositiveDefiniteError as error:
        raise ModelError(f"The model without random effects cannot be fitted: {error}.") from None
    return found.deviance, len(own.fixef_names) + own.family.has_parameter
