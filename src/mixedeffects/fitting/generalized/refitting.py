"""Fits of related generalized models."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import numpy as np

from mixedeffects.families import Response
from mixedeffects.fitting.generalized.assembly import generalized_design
from mixedeffects.fitting.generalized.fitting import fit_generalized_formula, fit_generalized_frame
from mixedeffects.fitting.generalized.record import GeneralizedFit
from mixedeffects.fitting.refitting import (
    UNCHANGED,
    Unchanged,
    checked_response,
    for_rows,
    with_response,
)
from mixedeffects.fitting.request import NewResponse, Request, given_data, given_table
from mixedeffects.formula.update import update_formula
from mixedeffects.progress import ProgressOption

__all__ = ["refit_generalized", "update_generalized"]


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
    start = {"beta": fit.beta}
    if fit.optimum.restart is not None:
        start["T"] = cast(Any, fit.optimum.restart)
    if fit.search_phi is not None:
        start["phi"] = cast(Any, fit.search_phi)
    design = generalized_design(frame, fit.family)
    return fit_generalized_frame(frame, design, request, start, progress)


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
    text = fit.formula
    own = given_data(asked)
    if data is not None and isinstance(own, NewResponse):
        # New data have a response of their own.
        text = own.formula
    inherited: dict[str, Any] = {}
    if contrasts is UNCHANGED:
        inherited = asked.inherited | (asked.contrasts or {})
        contrasts = None
    return fit_generalized_formula(
        text if formula is None else update_formula(text, formula),
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
