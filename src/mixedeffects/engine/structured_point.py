"""The deviance where random effects have a covariance structure, and a model of it, at one point.

The parameters eta are those of `Parameterisation`. With F the matrix score of d in Sigma, the
gradient is ``<F, dSigma/deta>``; around a point the deviance is modelled by

    ``<F, Delta> + a'H a / 2``,   ``Delta = Sigma(eta + step) - Sigma(eta)``,

with a the coordinates of Delta in an orthonormal basis of the tangent space at eta and H the
average information there. Delta is exact, so the model knows how the structure bends. Of a term
with a single variance ``g = h log(1 + Delta / h)`` can be taken, which bends more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.caching import cached_property
from mixedeffects.engine.crossproducts import CrossProducts
from mixedeffects.engine.objective import evaluate
from mixedeffects.engine.parameterisation import Parameterisation

__all__ = [
    "StructuredModel",
    "StructuredPoint",
    "has_many_columns",
    "in_coordinates",
    "tangent_bases",
]

Matrix = NDArray[np.float64]

#: Directions of the tangent space below this, relative to the largest, are none.
_FLAT = 1e-10
#: Columns on one factor from which information is only computed along the structure.
_MANY_COLUMNS = 8


def has_many_columns(A: CrossProducts) -> bool:
    """Whether a structure has far fewer directions than its covariance has entries."""
    return max(factor.k for factor in A.factors) > _MANY_COLUMNS


def tangent_bases(parameterisation: Parameterisation, eta: Matrix) -> list[Matrix]:
    """Orthonormal bases (r, k, k) of the tangent spaces of every term's Sigma."""
    bases = []
    for term, own in zip(parameterisation.terms, parameterisation.split(eta), strict=True):
        derivatives = term.derivatives(own)
        flat = derivatives.reshape(len(own), derivatives.shape[1] * derivatives.shape[2])
        _, values, right = np.linalg.svd(flat, full_matrices=False)
        kept = right[values > _FLAT * max(float(values.max(initial=0.0)), 1.0)]
        bases.append(np.ascontiguousarray(kept.reshape(-1, *derivatives.shape[1:])))
    return bases


class StructuredPoint:
    """One evaluation."""

    def __init__(
        self, A: CrossProducts, parameterisation: Parameterisation, eta: Matrix, reml: bool
    ) -> None:
        self.parameterisation = parameterisation
        self.eta = eta
        self.T = parameterisation.factors(eta)
        self.evaluation = evaluate(A, self.T, reml, has_many_columns(A))
        self.value = self.evaluation.deviance
        self.gradient = parameterisation.gradient(eta, self.evaluation.score)

    def model(self) -> StructuredModel:
        """Model of the deviance around this point."""
        bases = tangent_bases(self.parameterisation, self.eta)
        return StructuredModel(
            self.parameterisation,
            self.eta,
            tuple(self.evaluation.score),
            tuple(bases),
            self.evaluation.information_along(bases),
        )


@dataclass(frozen=True, eq=False)
class StructuredModel:
    """Model of the deviance around eta; see the module.

    Attributes
    ----------
    parameterisation : Parameterisation
        The parameters.
    eta : ndarray, shape (m,)
        Where.
    score : tuple of ndarray (k, k)
        F per term.
    bases : tuple of ndarray (r, k, k)
        Orthonormal bases of the tangent spaces.
    information : ndarray
        Curvature along all of them, and in the further parameters.
    further : ndarray, shape (s,)
        Derivatives in further parameters, which V is taken to be linear in; they follow eta.
    sizes : tuple of float or None, optional
        h of each term whose change bends; a single variance has it.
    """

    parameterisation: Parameterisation
    eta: Matrix
    score: tuple[Matrix, ...]
    bases: tuple[Matrix, ...]
    information: Matrix
    further: Matrix = field(default_factory=lambda: np.zeros(0))
    sizes: tuple[float | None, ...] | None = None

    @cached_property
    def _rows(self) -> tuple[slice, ...]:
        """Which coordinates of the tangent space are each term's."""
        ends = np.cumsum([0, *[len(U) for U in self.bases]]).tolist()
        return tuple(slice(a, b) for a, b in pairwise(ends))

    @cached_property
    def _own(self) -> list[tuple[Matrix, Matrix, Matrix]]:
        """Each term's Sigma at eta, F and bases, in the term's own columns."""
        p = self.parameterisation
        return [
            (term.at(own).covariance, term.own(F), term.own(U))
            for term, own, F, U in zip(
                p.terms, p.split(self.eta), self.score, self.bases, strict=True
            )
        ]

    def at(self, step: Matrix) -> tuple[float, Matrix, Matrix]:
        """Change of d, gradient and Hessian of the model after a step in eta and what follows."""
        p, r, m = self.parameterisation, len(self.information), len(self.eta)
        there = [
            term.at(own) for term, own in zip(p.terms, p.split(self.eta + step[:m]), strict=True)
        ]
        sizes = self.sizes or (None,) * len(there)
        a, J = np.zeros(r), np.zeros((r, len(step)))
        n_further = len(self.further)
        linear = step[m:]
        a[r - n_further :] = linear
        J[r - n_further :, m:] = np.eye(n_further)
        value = float(self.further @ linear)
        slopes = []
        for values, (here, F, U), size, rows, at in zip(
            there, self._own, sizes, self._rows, p.places, strict=True
        ):
            change, slope = (values.covariance - here).ravel(), 1.0
            if size is not None:
                slope = size / (size + float(change[0]))
                change = size * np.log1p(change / size)
            slopes.append(slope)
            value += float(F.ravel() @ change)
            a[rows] = U.reshape(len(U), change.size) @ change
            J[rows, at] = slope * values.gradient(U)
        Ha = self.information @ a
        gradient, hessian = np.empty(len(step)), J.T @ self.information @ J
        gradient[m:] = self.further + Ha[r - n_further :]
        for values, (_, F, U), size, slope, rows, at in zip(
            there, self._own, sizes, slopes, self._rows, p.places, strict=True
        ):
            pull = slope * (F + (Ha[rows] @ U.reshape(len(U), F.size)).reshape(F.shape))
            gradient[at] = values.gradient(pull)
            hessian[at, at] += values.hessian(pull)
            if size is not None:
                first = values.gradient(np.ones((1, 1)))
                hessian[at, at] -= pull[0, 0] * slope / size * first[:, None] * first
        return value + 0.5 * float(a @ Ha), gradient, hessian


def in_coordinates(
    change: tuple[float, Matrix, Matrix],
    moving: NDArray[np.intp],
    first: Matrix,
    second: Matrix,
    step: Matrix,
    correction: Matrix,
) -> tuple[float, Matrix, Matrix]:
    """A model's change, gradient and Hessian in coordinates of the parameters that move.

    Parameters
    ----------
    change : tuple (value, gradient, Hessian)
        In the parameters, after the step.
    moving : ndarray of int, shape (r,)
        Which parameters move.
    first, second : ndarray, shape (r,)
        Derivatives of each in its own coordinate.
    step : ndarray, shape (r,)
        The step in the coordinates.
    correction : ndarray, shape (r, r)
        Of the Hessian in the coordinates.
    """
    value, gradient, hessian = change
    own = gradient[moving]
    bent = first[:, None] * hessian[moving][:, moving] * first
    np.einsum("ii->i", bent)[:] += second * own
    corrected = correction @ step
    return value + 0.5 * float(step @ corrected), first * own + corrected, bent + correction
