"""From a formula and data to a fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.options import checked_flag, plain
from mixedeffects.base.warning import warn
from mixedeffects.engine import Control, CrossProducts, Optimum
from mixedeffects.engine.basis import lower_factor
from mixedeffects.engine.parameters import theta_to_T
from mixedeffects.engine.refinement import find_refined_optimum, residual_share
from mixedeffects.engine.responses import replace_response
from mixedeffects.engine.subsample import subsample_start
from mixedeffects.engine.threads import one_blas_thread
from mixedeffects.errors import (
    ConvergenceWarning,
    DataWarning,
    IdentifiabilityWarning,
    ModelError,
)
from mixedeffects.fitting.assembly import assemble, covariance_structures, engine_terms
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.natural import covariance_parameters, structures_at_bounds
from mixedeffects.fitting.representative import RepresentativeFrame
from mixedeffects.fitting.representative_sums import assemble_representative
from mixedeffects.fitting.request import Request, check_control, request_of
from mixedeffects.fitting.residual_fitting import fit_residual_frame
from mixedeffects.fitting.searching import Searching
from mixedeffects.fitting.theta import read_theta
from mixedeffects.fitting.undetermined import hardly_determined, with_identification
from mixedeffects.frame import build_model_frame
from mixedeffects.frame.double_bars import as_double_bars_mean
from mixedeffects.frame.known_covariance import KnownCovariance, known_term
from mixedeffects.frame.model_frame import ModelFrame, RandomTerm
from mixedeffects.frame.structures import one_row_each
from mixedeffects.progress import ProgressOption

__all__ = [
    "assemble_frame",
    "check_sigma",
    "fit_blocks",
    "fit_formula",
    "fit_frame",
    "response",
    "starting_factors",
]

Matrix = NDArray[np.float64]

#: Relative standard deviation, in an orthonormal basis, to start from at most.
_FARTHEST = 1e3
#: Standard deviation, relative to the largest response, that is rounding.
_PRECISION = 1e-13
#: Residual variance, relative to that of least squares, below which there may be none, and there is
#: none if the residuals' share of the penalised sum of squares is as little.
_NO_RESIDUAL, _LITTLE_SHARE = 1e-12, 1e-6


def fit_formula(
    formula: str,
    data: Any,
    *,
    reml: bool = True,
    weights: Any = None,
    offset: Any = None,
    contrasts: dict[str, Any] | None = None,
    inherited: dict[str, Any] | None = None,
    start: Sequence[float] | None = None,
    control: Control | None = None,
    double_bar: str = "lme4",
    residual: str | KnownCovariance | None = None,
    variance: str | None = None,
    sigma: float | None = None,
    ddf: str = "satterthwaite",
    progress: ProgressOption = None,
    earlier: Fit | None = None,
) -> Fit:
    """Fit a model from its formula; the arguments are those of `mixedeffects.lmer`.

    Parameters
    ----------
    formula, data, reml, weights, offset, contrasts, start, control, double_bar, progress
        As for `mixedeffects.lmer`.
    residual, variance, sigma
        As for `mixedeffects.lmer`.
    inherited : dict, optional
        Codings of categorical columns that need not be in the formula.
    ddf : str
        Method for the degrees of freedom of tables for which none is given.
    earlier : Fit, optional
        A fit whose optimum is taken if it turns out that all is as it was there.

    Raises
    ------
    FormulaError, DataError, ModelError
        As for `mixedeffects.lmer`.
    """
    inherited = inherited or {}
    reml = bool(checked_flag(reml, "reml"))
    check_control(control)
    formula = as_double_bars_mean(formula, data, double_bar)
    if sigma is not None:
        sigma = check_sigma(sigma)
    with one_blas_thread():
        frame = build_model_frame(
            formula,
            data,
            weights=weights,
            offset=offset,
            contrasts=contrasts,
            inherited=inherited,
            residual=None if isinstance(residual, KnownCovariance) else residual,
            variance=variance,
            without_random=isinstance(residual, KnownCovariance) or sigma is not None,
            known_sigma=sigma is not None,
        )
        if isinstance(residual, KnownCovariance):
            n_rows = frame.nobs + len(frame.dropped.rows)
            of_rows = known_term(residual, frame.index, frame.positions, n_rows)
            frame = dataclasses.replace(frame, residual=of_rows)
        for sentence in frame.dropped.lost:
            warn(sentence, DataWarning)
        request = request_of(
            frame,
            data,
            weights,
            offset,
            contrasts,
            inherited,
            control=control,
            residual=residual,
            variance=variance,
            sigma=sigma,
            ddf=ddf,
        )
        if frame.residual is not None or frame.variance is not None or sigma is not None:
            _refuse_start(start)
            fit = fit_residual_frame(frame, reml, request, progress)
            return dataclasses.replace(fit, is_as_requested=start is None)
        if earlier is not None and start is None and _is_as_before(earlier, frame, reml, control):
            A, optimum = earlier.crossproducts, earlier.optimum
            fit = Fit(frame, A, optimum, reml, request, is_as_requested=True)
            _warn(fit)
            return fit
        A = assemble_frame(frame)
        if start is None:
            factors = _usual_start(A, frame, reml)
        else:
            factors = starting_factors(A, read_theta(frame.terms, start, "start"))
    # A start that the user chose is where the search is wanted.
    fit = fit_frame(frame, A, reml, request, factors, control, progress, further=start is None)
    return dataclasses.replace(fit, is_as_requested=start is None)


def _usual_start(A: CrossProducts, frame: ModelFrame, reml: bool) -> Sequence[Matrix] | None:
    """Where to start if nobody says: at the optimum of some of the levels where there are many."""
    return subsample_start(
        A,
        response(frame),
        frame.X,
        engine_terms(frame.terms),
        frame.weights,
        reml,
        covariance_structures(frame.terms),
    )


def _is_as_before(earlier: Fit, frame: ModelFrame, reml: bool, control: Control | None) -> bool:
    """Whether a fit is one of this frame by this criterion, and ended at an optimum."""
    return (
        earlier.is_as_requested
        and earlier.residual is None
        and earlier.optimum.converged
        and (earlier.reml, earlier.request.control) == (reml, control)
        and _are_the_same(frame, earlier.frame)
    )


def check_sigma(sigma: Any) -> float:
    """A residual standard deviation as a number, or a ModelError."""
    value = plain(sigma)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 < value < np.inf:
        raise ModelError(f"sigma must be a positive number, not {sigma!r:.60}.")
    return float(value)


def _refuse_start(start: Sequence[float] | None) -> None:
    """No start can be chosen yet where residuals have a structure."""
    if start is not None:
        raise ModelError(
            "`start` is theta alone, and says nothing of the residuals' parameters: leave it out "
            "where `residual=` or `variance=` is given."
        )


def _are_the_same(frame: ModelFrame, other: ModelFrame) -> bool:
    """Whether two frames give the same model: equal arrays, names and covariance structures."""

    def equal(one: Any, another: Any) -> bool:
        if one is None or another is None:
            return one is another
        return np.array_equal(one, another)

    def same_term(one: RandomTerm, another: RandomTerm) -> bool:
        names = ("group", "columns", "structure", "homogeneous")
        return (
            all(getattr(one, name) == getattr(another, name) for name in names)
            and one.levels.equals(another.levels)
            and equal(one.codes, another.codes)
            and equal(one.z, another.z)
        )

    return (
        frame.fixef_names == other.fixef_names
        and len(frame.terms) == len(other.terms)
        and all(same_term(*pair) for pair in zip(frame.terms, other.terms, strict=True))
        and all(
            equal(getattr(frame, name), getattr(other, name))
            for name in ("y", "X", "weights", "offset")
        )
    )


def response(frame: ModelFrame) -> Matrix:
    """The response less the offset, shape (n,)."""
    return frame.y if frame.offset is None else frame.y - frame.offset


def assemble_frame(frame: ModelFrame) -> CrossProducts:
    """Cross-products of a frame; see `assemble`."""
    if isinstance(frame, RepresentativeFrame):
        return assemble_representative(frame)
    return assemble(response(frame), frame.X, frame.terms, frame.weights)


def fit_frame(
    frame: ModelFrame,
    A: CrossProducts,
    reml: bool,
    request: Request,
    start: Sequence[Matrix] | None = None,
    control: Control | None = None,
    progress: ProgressOption = False,
    *,
    further: bool = True,
    identified: bool = False,
) -> Fit:
    """Fit a model from its frame and their cross-products.

    Parameters
    ----------
    frame : ModelFrame
        Response, fixed effects and random terms.
    A : CrossProducts
        Their blocks.
    reml : bool
        Criterion.
    request : Request
        What the fit is to know of where it came from.
    start : sequence of ndarray (k, k), or None
        Factors to start from, in A's basis; None for a moment estimate.
    control : Control, optional
        Tolerance and limits.
    progress : bool, callable or None
        As for `mixedeffects.lmer`.
    further : bool
        Whether to search from further starts where these are cheap.
    identified : bool
        Whether the parameters are known to be determined by the structure of the model.

    Raises
    ------
    ModelError
        If there is no variance to divide.
    Interrupted
        On Ctrl-C, with an `UnfinishedFit`.
    """
    y = response(frame)

    def less_effects(A: CrossProducts, T: Sequence[Matrix]) -> CrossProducts:
        return replace_response(A, y, frame.X, engine_terms(frame.terms), frame.weights, T)

    def find(
        A: CrossProducts, start: Sequence[Matrix] | None, search: Searching
    ) -> tuple[CrossProducts, Optimum | None]:
        return find_refined_optimum(A, less_effects, start, search.find)

    def identify(A: CrossProducts, optimum: Optimum) -> Optimum:
        return optimum if identified else with_identification(frame, A, optimum)

    return fit_blocks(
        frame,
        A,
        reml,
        request,
        start,
        control,
        progress,
        find=find,
        identify=identify,
        largest_response=float(np.abs(y).max()),
        further=further,
    )


def fit_blocks(
    frame: ModelFrame,
    A: CrossProducts,
    reml: bool,
    request: Request,
    start: Sequence[Matrix] | None,
    control: Control | None,
    progress: ProgressOption,
    *,
    find: Callable[
        [CrossProducts, Sequence[Matrix] | None, Searching],
        tuple[CrossProducts, Optimum | None],
    ],
    identify: Callable[[CrossProducts, Optimum], Optimum],
    largest_response: float,
    further: bool = True,
) -> Fit:
    """Fit a model from its cross-products, wherever its rows are.

    Parameters
    ----------
    frame, A, reml, request, start, control, progress, further
        As for `fit_frame`; the frame may be without rows.
    find : callable
        ``(A, start, search)`` to the blocks and the optimum, None where nothing is left over.
    identify : callable
        ``(A, optimum)`` to the optimum, marked where parameters are not determined.
    largest_response : float
        Largest absolute value of the response less the offset.

    Raises
    ------
    ModelError
        If there is no variance to divide.
    Interrupted
        On Ctrl-C, with an `UnfinishedFit`.
    """
    precision = _PRECISION * largest_response
    fixed_only = A.provisional is None and A.remainder.response_square == 0.0
    if fixed_only or A.basis.response_scale <= precision:
        raise ModelError(
            "The fixed effects reproduce the response exactly (it may be constant), so there is no "
            "variance left to divide among random effects and residual."
        )
    search = Searching(reml, control, covariance_structures(frame.terms), progress, further)
    blocks = A
    try:
        with one_blas_thread(A.remainder.core_size):
            A, optimum = find(A, start, search)
    except KeyboardInterrupt:

        def go_on(start: Sequence[Matrix] | None, progress: ProgressOption) -> Fit:
            return fit_blocks(
                frame,
                blocks,
                reml,
                request,
                start,
                control,
                progress,
                find=find,
                identify=identify,
                largest_response=largest_response,
                further=further,
            )

        raise search.interrupted(start, go_on) from None
    finally:
        search.close()
    endless = optimum is not None and optimum.unbounded and not optimum.converged
    if optimum is None or endless or _has_no_residual(optimum, A, precision):
        raise ModelError(
            "Fixed and random effects together reproduce the response exactly, so there is no "
            "residual variance to estimate. Is the response constant within the levels of "
            f"{', '.join(dict.fromkeys(t.group for t in frame.terms))}?"
        )
    bounds = structures_at_bounds(frame.terms, optimum)
    if bounds:
        optimum.message += f": {', '.join(bounds)}"
    if not optimum.converged:
        warn(
            f"The fit {optimum.message}. See m.optimum; try more evaluations with "
            "control=mixedeffects.Control(max_evaluations=...) or another start=.",
            ConvergenceWarning,
        )
    with one_blas_thread(A.remainder.core_size):
        optimum = identify(A, optimum)
    fit = Fit(frame, A, optimum, reml, request)
    _warn(fit)
    return fit


def _has_no_residual(optimum: Optimum, A: CrossProducts, precision: float) -> bool:
    """Whether what is left beside fixed and random effects is nothing, or rounding of y."""
    sigma2 = optimum.evaluation.sigma2
    if A.basis.response_scale * np.sqrt(sigma2) <= precision:
        return True
    return sigma2 < _NO_RESIDUAL and residual_share(optimum) < _LITTLE_SHARE


def _warn(fit: Fit) -> None:
    """Say what is doubtful about where the search ended."""
    optimum = fit.optimum
    if optimum.undetermined:
        warn(
            f"The data do not determine all parameters: {' '.join(optimum.reasons)}",
            IdentifiabilityWarning,
        )
    if optimum.unbounded:
        warn(
            "The likelihood has no maximum: fixed and random effects together can reproduce the "
            "response, and it grows without bound as the residual variance goes to zero. The fit "
            "is the best local optimum found beside that. Fit fewer random or fixed effects.",
            ConvergenceWarning,
        )
    if optimum.converged and not optimum.residual_vanishes:
        _warn_of_flatness(fit)
    if optimum.residual_vanishes and not optimum.unbounded:
        _warn_without_residual(fit)


def _warn_of_flatness(fit: Fit) -> None:
    """Name the parameters along which the likelihood is as good as flat."""
    weak = hardly_determined(fit.crossproducts, fit.optimum)
    if not len(weak):
        return
    listed = ", ".join(f"`{name}`" for name in covariance_parameters(fit).index[weak])
    certificate = fit.optimum.certificate
    warn(
        f"The likelihood is as good as flat along {listed}: its smallest curvature, "
        f"{certificate.smallest_curvature:.1e} where one is full, is not above "
        f"{certificate.least_curvature:.0e}. The data hardly determine these; leave out a "
        "term or an effect that they belong to.",
        IdentifiabilityWarning,
    )


def _warn_without_residual(fit: Fit) -> None:
    """Say what it means that the residual variance goes to zero."""
    taken = [term for term in fit.frame.terms if term.structure != "us" and one_row_each(term)]
    if taken:
        effects = " and of ".join(f"`{term.structure}` on `{term.group}`" for term in taken)
        groups = " and ".join(f"`{term.group}`" for term in taken)
        why = f"every row has its own effect of {effects}, which takes the residual error too"
        limit = (
            f"in which the covariance of {groups} is that of the rows, and neither variance can be "
            "read alone"
        )
    else:
        why = "the random effects alone can reproduce every row"
        limit = "in which the random effects leave nothing over"
    warn(
        f"The residual standard deviation is estimated at {fit.sigma:.2g}, next to nothing: "
        f"{why}. The likelihood goes on rising, by next to nothing, as long as it goes to zero; "
        f"its limit is the model without residual variance, {limit}.",
        ConvergenceWarning,
    )


def starting_factors(A: CrossProducts, theta: Matrix) -> list[Matrix]:
    """A start in the fitting basis, no farther out than a search finds its way back.

    Parameters
    ----------
    A : CrossProducts
        Of the fit to start.
    theta : ndarray, shape (m,)
        Relative covariance parameters, in lme4's order.
    """
    factors = []
    for t, T in enumerate(theta_to_T(np.asarray(theta), A.term_columns)):
        # Scaled, because products of numbers of any size may be no numbers.
        size = float(np.abs(T).max(initial=0.0)) or 1.0
        left, values, right = np.linalg.svd(A.basis.engine_factor(t, T / size))
        with np.errstate(over="ignore"):
            values = values * size
        if values[0] > _FARTHEST:
            T_star = (left * np.minimum(values, _FARTHEST)) @ right
        else:
            T_star = A.basis.engine_factor(t, T)
        factors.append(lower_factor(T_star))
    return factors
