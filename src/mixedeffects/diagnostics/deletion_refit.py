"""The model fitted again without each level of a factor."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mixedeffects.diagnostics.deletion import Deleted
from mixedeffects.engine.threads import one_blas_thread
from mixedeffects.errors import ConvergenceWarning, ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.fitting import assemble_frame, starting_factors
from mixedeffects.fitting.natural import covariance_parameters
from mixedeffects.fitting.refitting import fit_again
from mixedeffects.fitting.residual_fitting import fit_residual_frame
from mixedeffects.fitting.subset import frame_of_rows, residuals_of_rows
from mixedeffects.frame.checks import check_fixed, check_grouping, check_random_effects
from mixedeffects.frame.identifiability import check_random_columns
from mixedeffects.frame.model_frame import ModelFrame
from mixedeffects.frame.structures import check_replication
from mixedeffects.progress import ProgressOption, Unfinished

__all__ = ["refit_levels", "refit_rows"]

Matrix = NDArray[np.float64]
Result = TypeVar("Result")


def refit_levels(
    fit: Fit,
    codes: NDArray[np.int64],
    levels: list[str],
    progress: ProgressOption,
    labelled: Callable[[Deleted, Matrix], Result],
    refit: Callable[[Fit, NDArray[np.intp]], tuple[Fit, str | None]] | None = None,
) -> Result:
    """Leave out each level in turn and fit again.

    Parameters
    ----------
    fit : Fit
        The fitted model.
    codes : ndarray of int, shape (n,)
        Level of each row.
    levels : list of str
        Names of the levels.
    progress : bool, callable or None
        As for `LinearMixedModel.influence`.
    labelled : callable
        Makes the result of what changed, with ``vcov(-j)`` at the variances of the new fit, and of
        its variance parameters, (J, m) in the order of `covariance_parameters`.
    refit : callable, optional
        From the fit and rows to keep to the fit of these and a remark; by default `refit_rows`.

    Raises
    ------
    Interrupted
        On Ctrl-C, with the levels that are done.
    """
    p, vcov = fit.frame.X.shape[1], fit.vcov
    out = Deleted.empty(len(levels), p)
    natural = np.full((len(levels), len(covariance_parameters(fit))), np.nan)
    beta = fit.beta
    # Correlations rather than covariances, because the units of coefficients may be very different.
    size = np.sqrt(np.diag(vcov))
    information = np.linalg.inv(vcov / np.outer(size, size))

    def step(j: int) -> None:
        try:
            again, note = (refit or refit_rows)(fit, np.flatnonzero(codes != j))
        except ModelError as error:
            out.notes[j] = str(error)
            return
        if note:
            out.notes[j] = note
        natural[j] = covariance_parameters(again)
        change = beta - again.beta
        out.change[j] = change
        out.variance[j] = np.diag(again.vcov)
        if not p:
            return
        scaled = change / size
        relative = again.vcov / np.outer(size, size)
        out.cooks_distance[j] = scaled @ information @ scaled / p
        out.mdffits[j] = scaled @ np.linalg.solve(relative, scaled) / p
        ratio = information @ relative
        out.covtrace[j] = abs(np.trace(ratio) - p)
        out.covratio[j] = np.linalg.det(ratio)

    def so_far(done: list[None]) -> Result:
        rest = dict.fromkeys(range(len(done), len(levels)), "interrupted before it was left out")
        return labelled(dataclasses.replace(out, notes=out.notes | rest), natural)

    work: Unfinished[None, Result] = Unfinished(
        "refit",
        len(levels),
        step,
        lambda done: labelled(out, natural),
        so_far=so_far,
        detail=lambda j: f"without {levels[j]!r}",
    )
    return work.resume(progress)


def refit_rows(fit: Fit, rows: NDArray[np.intp]) -> tuple[Fit, str | None]:
    """The model fitted to some of its rows, and what is to be said about the fit.

    The columns of X and Z stay what they are: bases that depend on the data (a spline's knots, the
    mean in ``scale(x)``) are not computed again, so the coefficients keep their meaning.

    Parameters
    ----------
    fit : Fit
        The fitted model.
    rows : ndarray of int
        Row positions to keep.

    Raises
    ------
    ModelError
        If the model is not identified from these rows.
    """
    frame = _frame_of_rows(fit.frame, rows)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        again = _fit_to(fit, frame)
    if not again.optimum.converged:
        return again, f"the fit without it {again.optimum.message}"
    for warning in caught:
        if not issubclass(warning.category, ConvergenceWarning):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    return again, None


def _fit_to(fit: Fit, frame: ModelFrame) -> Fit:
    if fit.residual is not None:
        return fit_residual_frame(frame, fit.reml, fit.request)
    # A singular optimum is a stationary point for many responses: start afresh from there.
    singular = fit.optimum.singular
    with one_blas_thread():
        A = assemble_frame(frame)
    start = None if singular else starting_factors(A, fit.theta)
    return fit_again(fit, frame, A, start)


def _frame_of_rows(frame: ModelFrame, rows: NDArray[np.intp]) -> ModelFrame:
    """The model frame of some rows; ModelError if the model cannot be identified from them."""
    reduced = frame_of_rows(frame, rows)
    n = reduced.nobs
    check_fixed(frame.fixef_names, np.arange(frame.X.shape[1]), n)
    for term in reduced.terms:
        check_grouping(term.group, term.n_levels, list(term.levels[:1]), n)
        # As many effects as rows can be told from the residuals where they have a structure.
        if term.structure == "us":
            check_random_effects(term.n_columns, term.n_levels, f"on `{term.group}`", n)
    check_random_columns(reduced.terms)
    check_replication(reduced.terms)
    residual, variance = residuals_of_rows(frame.residual, frame.variance, rows)
    return dataclasses.replace(reduced, residual=residual, variance=variance)
