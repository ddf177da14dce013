"""From a formula and data to the fit of a generalized linear mixed model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.options import plain
from mixedeffects.base.warning import warn
from mixedeffects.engine import Control
from mixedeffects.engine.factorisation import NotPositiveDefiniteError
from mixedeffects.engine.generalized import (
    GeneralizedDesign,
    GeneralizedOptimum,
    find_generalized_optimum,
)
from mixedeffects.engine.generalized.existence import separating_direction, separation_message
from mixedeffects.engine.threads import one_blas_thread
from mixedeffects.errors import ConvergenceWarning, DataWarning, ModelError
from mixedeffects.families import Family, find_family
from mixedeffects.fitting.generalized.assembly import generalized_design
from mixedeffects.fitting.generalized.record import GeneralizedFit
from mixedeffects.fitting.generalized.start import read_start
from mixedeffects.fitting.request import Request, check_control, request_of
from mixedeffects.fitting.searching import Listening, Start
from mixedeffects.frame import build_model_frame
from mixedeffects.frame.double_bars import as_double_bars_mean
from mixedeffects.frame.ingest import detached
from mixedeffects.frame.model_frame import ModelFrame
from mixedeffects.progress import ProgressOption

__all__ = ["fit_generalized_formula", "fit_generalized_frame"]

Matrix = NDArray[np.float64]

#: Size of a response from which its powers have all their digits, and its inverse that to which.
_SMALL = 1e-12
#: Linear predictor far out, where every mean of a link without an end is.
_WIDE = 20.0
#: Of an offset on the scale of the logarithm: a factor of 1e9 between means.
_WIDEST = 20.7


def fit_generalized_formula(
    formula: str,
    data: Any,
    *,
    family: Any,
    weights: Any = None,
    offset: Any = None,
    exposure: Any = None,
    nagq: int = 1,
    contrasts: dict[str, Any] | None = None,
    inherited: dict[str, Any] | None = None,
    start: Any = None,
    control: Control | None = None,
    double_bar: str = "lme4",
    progress: ProgressOption = None,
) -> GeneralizedFit:
    """Fit a model from its formula; the arguments are those of `mixedeffects.glmer`.

    Parameters
    ----------
    formula, data, family, weights, offset, exposure, nagq, contrasts, start, control
        As for `mixedeffects.glmer`.
    double_bar, progress
        The same.
    inherited : dict, optional
        Codings of categorical columns that need not be in the formula.

    Raises
    ------
    FormulaError, DataError, ModelError
        As for `mixedeffects.glmer`.
    """
    inherited = inherited or {}
    known = _checked_family(family)
    points = _checked_nagq(nagq)
    check_control(control)
    formula = as_double_bars_mean(formula, data, double_bar)
    with one_blas_thread():
        frame = build_model_frame(
            formula,
            data,
            weights=weights,
            offset=offset,
            contrasts=contrasts,
            inherited=inherited,
            family=known,
            exposure=exposure,
        )
        for sentence in frame.dropped.lost:
            warn(sentence, DataWarning)
        _tell_of_wide_offset(frame, known)
        request = request_of(
            frame,
            data,
            weights,
            offset,
            contrasts,
            inherited,
            control=control,
            ddf="inf",
            family=known,
            exposure=detached(exposure),
            nagq=points,
        )
        design = generalized_design(frame, known)
        given = read_start(frame, design, start)
    return fit_generalized_frame(frame, design, request, given, progress)


def _tell_of_wide_offset(frame: ModelFrame, family: Family) -> None:
    """Say that an offset is on the scale of the link, where it can hardly be meant to be."""
    if family.link.name != "log" or frame.offset is None or not len(frame.offset):
        return
    low, high = float(frame.offset.min()), float(frame.offset.max())
    if high - low > _WIDEST:
        warn(
            f"The offset runs from {low:.4g} to {high:.4g} on the scale of the logarithm, so that "
            f"means differ by a factor of {np.exp(min(high - low, 700.0)):.1g} for it alone. If it "
            "holds hours, areas or counts of persons, give it as exposure=, whose logarithm is "
            "taken.",
            DataWarning,
        )


def fit_generalized_frame(
    frame: ModelFrame,
    design: GeneralizedDesign,
    request: Request,
    start: dict[str, Any] | None = None,
    progress: ProgressOption = False,
) -> GeneralizedFit:
    """Fit a model from its frame and design.

    Parameters
    ----------
    frame : ModelFrame
        Response, fixed effects and random terms.
    design : GeneralizedDesign
        The same as the engine takes it.
    request : Request
        What the fit is to know of where it came from.
    start : dict, optional
        Parts of a start: ``"T"`` in the engine's basis, ``"beta"`` in the user's columns,
        ``"phi"`` on its search scale.
    progress : bool, callable or None
        As for `mixedeffects.glmer`.

    Raises
    ------
    ModelError
        If the criterion does not exist where the search starts.
    Interrupted
        On Ctrl-C, with an `UnfinishedFit`.
    """
    start = start or {}
    with one_blas_thread():
        _refuse_separation(frame, design.family)
    search = Listening(progress)
    try:
        optimum = find_generalized_optimum(
            design,
            nagq=request.nagq,
            start=start,
            control=request.control,
            progress=search.hear,
            term_names=tuple(term.group for term in frame.terms),
        )
    except NotPositiveDefiniteError as error:
        _refuse_start(design, error)
    except KeyboardInterrupt:

        def go_on(reached: Start, progress: ProgressOption) -> GeneralizedFit:
            again = start if reached is None else {**start, "T": reached}
            return fit_generalized_frame(frame, design, request, again, progress)

        raise search.interrupted(cast("Sequence[Matrix] | None", start.get("T")), go_on) from None
    finally:
        search.close()
    with one_blas_thread():
        _warn(optimum)
        return GeneralizedFit.of(frame, optimum, request)


def _refuse_start(design: GeneralizedDesign, error: NotPositiveDefiniteError) -> NoReturn:
    """Say that the search has nowhere to start, and what to do."""
    family, y = design.family, np.abs(design.response.y)
    if (y > 1.0 / _SMALL).any() or ((y < _SMALL) & (y > 0.0)).any():
        instead = (
            "Model the logarithm of such counts by mixedeffects.lmer."
            if family.discrete
            else "Give it in other units."
        )
        raise ModelError(
            f"The likelihood of this {family.name} model cannot be computed where the search "
            f"starts: {error}. The response runs from {y.min():.3g} to {y.max():.3g}, too far from "
            f"1 for the digits of a number. {instead}"
        ) from None
    raise ModelError(
        f"The likelihood of this {family.name} model cannot be computed where the "
        f"search starts: {error}. With the link {family.link.name} not every linear "
        "predictor has a mean: give start={'theta': ..., 'beta': ...} inside, or take another "
        "link."
    ) from None


def _refuse_separation(frame: ModelFrame, family: Family) -> None:
    """Say which fixed effects have no finite estimate, if some have none."""
    assert frame.response is not None
    found = separating_direction(frame.X, frame.response, family)
    if found is not None:
        raise ModelError(separation_message(found, frame.fixef_names))


def _warn(optimum: GeneralizedOptimum) -> None:
    """Say that the search did not end at an optimum, or at one that is none of the likelihood."""
    if not optimum.converged and not optimum.limits:
        warn(f"The fit {optimum.message}. {_advice(optimum)}", ConvergenceWarning)
    for sentence in (*optimum.limits, *optimum.doubts):
        said = sentence[0].upper() + sentence[1:].removesuffix(".") + "."
        warn(said, ConvergenceWarning)


def _advice(optimum: GeneralizedOptimum) -> str:
    """What to do about a search that did not converge."""
    family = optimum.design.family
    if not family.valid(np.array([-_WIDE, _WIDE])).all():
        return (
            f"With the link {family.link.name} of the {family.name} family not every linear "
            "predictor has a mean, and the search may have come to where some row has hardly one: "
            f"see m.optimum, and take the link {'logit' if family.takes_trials else 'log'} if so."
        )
    if optimum.message.startswith("stopped after"):
        return (
            "See m.optimum; try more evaluations with "
            "control=mixedeffects.Control(max_evaluations=...) or another start=."
        )
    return (
        "See m.optimum; try another start=, fewer random effects, or a link for which the "
        "likelihood of a row has one maximum, such as logit or log."
    )


def _checked_family(given: Any) -> Family:
    """The family that is meant, if it is not one that `lmer` fits."""
    family = find_family(given)
    if family.name == "gaussian" and family.link.name == "identity":
        raise ModelError(
            "A Gaussian response with the identity link is a linear mixed model: use "
            "mixedeffects.lmer, which has REML, degrees of freedom and much else for it. glmer "
            'takes me.families.Gaussian("log") and other links.'
        )
    return family


def _checked_nagq(nagq: Any) -> int:
    """The number of quadrature points."""
    value = plain(nagq)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ModelError(f"nagq must be a whole number from 1, not {nagq!r:.60}.")
    if value == 0:
        raise ModelError(
            "nagq=0 maximises over the fixed effects inside the modes, which biases both; it is "
            "for speed elsewhere and is not needed here. nagq=1 is Laplace's approximation."
        )
    return value
