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
from mixedeffects.frame.model_frame import RandomTerm

if TYPE_CHECKING:
    from mixedeffects.model import LinearMixedModel

__all__ = ["by_maximum_likelihood", "least_squares_criterion", "with_random_terms"]

Matrix = NDArray[np.float64]


def by_maximum_likelihood(model: LinearMixedModel) -> LinearMixedModel:
    """The model itself if it was fitted by maximum likelihood, else its cross-products refitted."""
    from mixedeffects.model import _fit

    if not model.reml:
        return model
    # A singular optimum can be a stationary point of the other criterion: start afresh from there.
    start = None if model.optimum.singular else model.optimum.T
    return _fit(
        model.frame,
        model._A,
        False,
        start,
        None,
        False,
        model._data,
        model._settings,
        model.data_name,
    )


def with_random_terms(model: LinearMixedModel, terms: Sequence[RandomTerm]) -> LinearMixedModel:
    """The model fitted by the same criterion with other random terms, at least one."""
    from mixedeffects.model import _fit

    frame = dataclasses.replace(model.frame, terms=tuple(terms))
    y = frame.y if frame.offset is None else frame.y - frame.offset
    with one_blas_thread():
        A = assemble(y, frame.X, frame.terms, frame.weights)
        start = subsample_start(A, y, frame.X, engine_terms(frame.terms), frame.weights, model.reml)
    return _fit(
        frame, A, model.reml, start, None, False, model._data, model._settings, model.data_name
    )


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
