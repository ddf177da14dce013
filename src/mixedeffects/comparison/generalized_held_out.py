"""Rows left out, predicted by a generalized model fitted to the others.

With the estimates from the other rows, D being -2 log L of all rows or of the others,

    log p(y_out | y_in) = -(D(y) - D(y_in)) / 2

by one rule of quadrature, or Laplace's approximation where there is none. The mean of a row left
out is that over what is not known of its linear predictor given the others, ``N(eta, z'Pz)``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixedeffects.comparison.held_out import Predicted
from mixedeffects.engine.factorisation import NotPositiveDefiniteError
from mixedeffects.engine.generalized.quadrature import evaluate_criterion, fine_nodes
from mixedeffects.engine.threads import one_blas_thread
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.generalized import generalized
from mixedeffects.fitting.generalized.means import mixed_means
from mixedeffects.fitting.generalized.refitting import optimum_of_rows

__all__ = ["predict_generalized_held_out", "trials_of"]

Matrix = NDArray[np.float64]


def predict_generalized_held_out(fit: Fit, out: NDArray[np.bool_]) -> Predicted:
    """See `predict_held_out`."""
    own = generalized(fit)
    found = optimum_of_rows(own, ~out)
    note = "" if found.converged else f"the fit without it {found.message}"
    at = found.evaluation
    variance = np.maximum(at.h[out], 0.0)
    mean = mixed_means(own.family, at.eta[out], variance)
    nodes = fine_nodes(at.design)
    try:
        with one_blas_thread(at.design.skeleton.remainder.core_size):
            whole, part = (
                evaluate_criterion(design, at.T, at.beta, at.phi, nodes=nodes, c=at.mode.c)
                for design in (own.found.design, at.design)
            )
    except NotPositiveDefiniteError as error:
        raise ModelError(f"the rows left out have no predictive density: {error}") from None
    return Predicted(mean, -0.5 * (whole.criterion - part.criterion), note)


def trials_of(fit: Fit) -> Matrix | None:
    """Trials of each row of a binomial response, shape (n,); None of another one."""
    family, response = fit.request.family, fit.frame.response
    if family is None or response is None or family.name != "binomial":
        return None
    return np.ones(fit.nobs) if response.trials is None else response.trials
