"""Data sets drawn from a generalized fit, and what the model makes of each.

The covariances and the family's parameter stay as they are; the modes are found anew, before and
after one scoring step of the fixed effects, ``(X'V^-1X)^-1 X'r``. So residuals of what is drawn are
as much smaller for being fitted as those of the data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.factorisation import NotPositiveDefiniteError
from mixedeffects.engine.generalized.mode import Mode, find_mode
from mixedeffects.engine.threads import one_blas_thread
from mixedeffects.families import Response
from mixedeffects.fitting.generalized import GeneralizedFit
from mixedeffects.simulation.generalized_responses import GeneralizedSampler

__all__ = ["Drawn", "DrawnAgain"]

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Drawn:
    """One data set and the model's answers.

    Attributes
    ----------
    y : ndarray, shape (n,)
        Responses.
    eta, mu : ndarray, shape (n,)
        Linear predictors and means at the modes.
    modes : tuple of ndarray (l, k)
        Conditional modes of each term, in the user's columns.
    chi_square : float
        Sum of squared residuals over their standard deviations.
    """

    y: Matrix
    eta: Matrix
    mu: Matrix
    modes: tuple[Matrix, ...]
    chi_square: float


class DrawnAgain:
    """What the model makes of responses drawn from it."""

    def __init__(self, fit: GeneralizedFit, entropy: int) -> None:
        self.fit = fit
        evaluation = fit.evaluation
        self._evaluation, self._design = evaluation, evaluation.design
        Q = self._design.basis.fixed
        inverse = np.linalg.inv(Q)
        self._step = inverse @ fit.found.conditional_beta_covariance @ inverse.T
        self._weights = fit.prior_weights

        self._sampler = GeneralizedSampler(fit, entropy)

    def outcomes(self, count: int) -> Iterator[Drawn]:
        """Of data sets with new random effects; those that have no mode are left out."""
        for j in range(count):
            found = self.draw(j)
            if found is not None:
                yield found

    def draw(self, j: int) -> Drawn | None:
        """Of one data set by its number; None if the modes cannot be found."""
        y = self._sampler.draw(j, j + 1)[:, 0]
        try:
            with one_blas_thread(self._design.skeleton.remainder.core_size):
                return self._of(y)
        except NotPositiveDefiniteError:
            return None

    def _of(self, y: Matrix) -> Drawn:
        fit, evaluation = self.fit, self._evaluation
        own = fit.response
        design = self._design.changed(response=Response(y, own.trials, own.weights))
        phi = evaluation.phi

        def modes(beta: Matrix, c: tuple[Matrix, ...]) -> Mode:
            return find_mode(design, evaluation.T, design.X @ beta + design.offset, phi, c)

        mode = modes(evaluation.beta, evaluation.mode.c)
        beta = evaluation.beta + self._step @ (design.X.T @ mode.rows.r)
        mode = modes(beta, mode.c)
        mu = np.asarray(fit.family.link.inverse(mode.eta))
        squares = self._weights * (y - mu) ** 2 / fit.family.variance(mu, fit.search_phi)
        by_term = design.skeleton.by_term(mode.b)
        bases = design.basis.terms
        return Drawn(
            y,
            mode.eta,
            mu,
            tuple(b @ C.T for b, C in zip(by_term, bases, strict=True)),
            float(squares.sum()),
        )
