"""From a frame to a fit where residuals are correlated, or of several variances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.warning import warn
from mixedeffects.engine import Control, Progress
from mixedeffects.engine.memory import RemainderTooLargeError
from mixedeffects.engine.optimum import Optimum
from mixedeffects.engine.residual_rows import ResidualRows
from mixedeffects.engine.residual_search import find_residual_optimum
from mixedeffects.engine.threads import one_blas_thread
from mixedeffects.errors import ConvergenceWarning, Interrupted, ModelError
from mixedeffects.fitting.assembly import covariance_structures, engine_terms, too_large
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.request import Request
from mixedeffects.fitting.residual_assembly import residual_design
from mixedeffects.fitting.residual_limits import limits_of_residuals
from mixedeffects.fitting.searching import UnfinishedFit
from mixedeffects.frame.model_frame import ModelFrame
from mixedeffects.progress import Listener, ProgressOption

__all__ = ["ResidualStart", "fit_residual_frame", "fit_residual_response", "residual_start"]

Matrix = NDArray[np.float64]

#: Factors of the random effects, and residual parameters, to start from.
ResidualStart = tuple[Sequence[Matrix], Matrix]

#: Standard deviation, relative to the largest response, that is rounding.
_PRECISION = 1e-13


def fit_residual_frame(
    frame: ModelFrame,
    reml: bool,
    request: Request,
    progress: ProgressOption = False,
    start: ResidualStart | None = None,
    rows: ResidualRows | None = None,
) -> Fit:
    """Fit a model from its frame.

    Parameters
    ----------
    frame : ModelFrame
        Response, fixed effects, random terms, and the structure of the residuals.
    reml : bool
        Criterion.
    request : Request
        What the fit is to know of where it came from.
    progress : bool, callable or None
        As for `mixedeffects.lmer`.
    start : tuple (factors, phi), optional
        In the engine's basis; by default by moments.
    rows : ResidualRows, optional
        Those of the frame, where they are already made.

    Raises
    ------
    ModelError
        If there is no variance to divide.
    Interrupted
        On Ctrl-C, with an `UnfinishedFit`.
    """
    y = frame.y if frame.offset is None else frame.y - frame.offset
    rows = rows or _rows(frame, y, request.sigma)
    if rows.basis.response_scale <= _PRECISION * float(np.abs(y).max()):
        raise ModelError(
            "The fixed effects reproduce the response exactly (it may be constant), so there is no "
            "residual variance to estimate."
        )
    control = request.control or Control()
    listener = Listener(progress, every=0.0)
    last: list[Progress] = []

    def hear(line: Progress) -> None:
        last[:] = [line]
        listener.tell(line)

    try:
        with one_blas_thread():
            optimum = find_residual_optimum(
                rows,
                reml,
                start=start,
                control=control,
                progress=hear,
                structures=covariance_structures(frame.terms),
            )
    except KeyboardInterrupt:

        def go_on(_: Any, progress: ProgressOption) -> Fit:
            return fit_residual_frame(frame, reml, request, progress, start, rows)

        where = f"after iteration {last[0].iteration}" if last else "before the first iteration"
        raise Interrupted(
            f"Interrupted {where} of the fit. `partial.resume()` of this exception starts again; "
            "at the prompt, `sys.last_value.partial.resume()`.",
            UnfinishedFit(go_on, None, last[0] if last else None),
        ) from None
    except (ArithmeticError, np.linalg.LinAlgError):
        raise ModelError(
            "The likelihood of this residual structure cannot be computed at its starting value. "
            "Is the response reproduced exactly in some groups or strata?"
        ) from None
    finally:
        listener.close()
    fit = Fit(frame, optimum.evaluation.A, optimum, reml, request)
    optimum.limits = limits_of_residuals(fit)
    if optimum.limits:
        optimum.converged = False
        optimum.message = f"went towards a limit in {optimum.evaluations} evaluations"
    _warn(optimum)
    return fit


def _rows(frame: ModelFrame, y: Matrix, sigma: float | None) -> ResidualRows:
    design = residual_design(frame, sigma)
    assert design is not None
    try:
        return ResidualRows(y, frame.X, engine_terms(frame.terms), design)
    except RemainderTooLargeError as error:
        raise too_large(frame.terms, error) from None


def residual_start(fit: Fit) -> ResidualStart | None:
    """Where to start another response or criterion of the same rows; None for by moments."""
    residual, factors = fit.residual, fit.optimum.restart
    if residual is None or factors is None:
        return None
    if residual.model.design.sigma is not None:
        return list(factors), residual.phi
    # In a search S is divided by its mean innovation.
    scale = float(np.exp(-residual.design.log_unit(residual.phi)))
    return [scale * T for T in factors], residual.phi


def fit_residual_response(
    fit: Fit,
    frame: ModelFrame,
    reml: bool | None = None,
    request: Request | None = None,
    progress: ProgressOption = False,
) -> Fit:
    """The fit of the same rows to the response of a frame, or by another criterion.

    Parameters
    ----------
    fit : Fit
        With ``residual=`` or ``variance=``.
    frame : ModelFrame
        Its frame, but for the response.
    reml, request
        By default this fit's.
    progress : bool, callable or None
        As for `mixedeffects.lmer`.
    """
    assert fit.residual is not None
    y = frame.y if frame.offset is None else frame.y - frame.offset
    return fit_residual_frame(
        frame,
        fit.reml if reml is None else reml,
        fit.request if request is None else request,
        progress,
        residual_start(fit),
        fit.residual.design.with_response(y),
    )


def _warn(optimum: Optimum) -> None:
    if optimum.limits:
        warn(f"The fit has no optimum: {' '.join(optimum.limits)}", ConvergenceWarning)
    elif not optimum.converged:
        warn(
            f"The fit {optimum.message}. See m.optimum; try more evaluations with "
            "control=mixedeffects.Control(max_evaluations=...).",
            ConvergenceWarning,
        )
