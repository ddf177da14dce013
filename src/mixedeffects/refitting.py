"""Fits of related models from what a fit already holds, without the data being read again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mixedeffects.assembly import assemble, engine_terms
from mixedeffects.engine.subsample import subsample_start
from mixedeffects.engine.threads import one_blas_thread
from mixedeffects.frame.model_frame import ModelFrame, RandomTerm

if TYPE_CHECKING:
    from mixedeffects.engine import CrossProducts
    from mixedeffects.model import LinearMixedModel

__all__ = ["by_maximum_likelihood", "fit_again", "least_squares_criterion", "with_random_terms"]

Matrix = NDArray[np.float64]


def fit_again(
    model: LinearMixedModel,
    frame: ModelFrame,
    A: CrossProducts,
    start: Sequence[Matrix] | None,
    reml: bool | None = None,
) -> LinearMixedModel:
    """The model of another frame and its cross-products, with this one's data and settings.

    Parameters
    ----------
    model : LinearMixedModel
        The fit.
    frame : ModelFrame
        Response, fixed effects and random terms to fit.
    A : CrossProducts
        Their blocks.
    start : sequence of ndarray (k, k), or None
        Factors to start from, in A's basis; None for a moment estimate.
    reml : bool, optional
        Criterion; by default this fit's.
    """
    from mixedeffects.model import _fit

    criterion = model.reml if reml is None else reml
    return _fit(
        frame, A, criterion, start, None, False, model._data, model._settings, model.data_name
    )


def by_maximum_likelihood(model: LinearMixedModel) -> LinearMixedModel:
    """The model itself if it was fitted by maximum likelihood, else its cross-products refitted."""
    if not model.reml:
        return model
    return fit_again(model, model.frame, model._A, model.optimum.restart, reml=False)


def with_random_terms(model: LinearMixedModel, terms: Sequence[RandomTerm]) -> LinearMixedModel:
    """The model fitted by the same criterion with other random terms, at least one."""
    from mixedeffects.model import _less_offset

    frame = dataclasses.replace(model.frame, terms=tuple(terms))
    y = _less_offset(frame)
    with one_blas_thread():
        A = assemble(y, frame.X, frame.terms, frame.weights)
        start = subsample_start(A, y, frame.X, engine_terms(frame.terms), frame.weights, model.reml)
    return fit_again(model, frame, A, start)


def least_squares_criterion(model: LinearMixedModel) -> float:
    """Criterion of the linear model without random effects, constants as in ``model.criterion``.

    In the fitting basis ``X'WX = n I`` and the response is the least-squares residual with mean
    square one, so nothing is left to compute but constants.
    """
    A, reml = model._A, model.reml
    df = A.n - A.p if reml else A.n
    d = df * (1.0 + float(np.log(2.0 * np.pi * A.n / df))) - A.sum_log_weights
    if reml:
        d += A.p * float(np.log(A.n))
    return d + A.basis.deviance_offset(A.n, A.p, reml)
