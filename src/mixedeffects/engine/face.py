"""Search for parameters of covariance structures without bounds.

A *face* is where some parameters are held: standard deviations of zero, correlations at the end of
their range. The others move in logarithms (see `StructuredTerm.unbounded`). There a step of one is
a natural step whatever the data, and the valleys of the deviance, along which
``sd^2 (1 - rho)`` hardly changes, are straight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.caching import cached_property
from mixedeffects.engine.parameterisation import Parameterisation
from mixedeffects.engine.structured_point import StructuredModel, StructuredPoint, in_coordinates
from mixedeffects.engine.trust_region import minimise_model

__all__ = ["Face", "FaceModel", "FacePoint"]

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Face:
    """The parameters that can move from eta.

    Attributes
    ----------
    parameterisation : Parameterisation
        All parameters.
    eta : ndarray, shape (m,)
        A point of the face.
    largest : float
        Relative standard deviation of a structure beyond which the search does not go.
    """

    parameterisation: Parameterisation
    eta: Matrix
    largest: float

    @cached_property
    def free(self) -> NDArray[np.intp]:
        """Places of the parameters that move."""
        return np.flatnonzero(~self.parameterisation.held(self.eta))

    @cached_property
    def _centre(self) -> Matrix:
        return self.parameterisation.unbounded(self.eta)

    @property
    def start(self) -> Matrix:
        """Coordinates of eta."""
        return self._centre[self.free]

    @cached_property
    def _deviations(self) -> NDArray[np.intp]:
        """Places of the free standard deviations among the free parameters."""
        return np.flatnonzero(self.parameterisation.is_deviation[self.free])

    def is_inside(self, z: Matrix) -> bool:
        """Whether no standard deviation is too large."""
        return bool((z[self._deviations] <= np.log(self.largest)).all())

    def parameters(self, z: Matrix) -> tuple[Matrix, Matrix, Matrix]:
        """All parameters at coordinates z; first and second derivatives of the free ones."""
        full = self._centre.copy()
        full[self.free] = z
        moved, first, second = self.parameterisation.bounded(full)
        eta = self.eta.copy()
        eta[self.free] = moved[self.free]
        return eta, first[self.free], second[self.free]


class FacePoint:
    """One evaluation in the coordinates of a face, as the trust region wants it."""

    def __init__(self, face: Face, z: Matrix, inner: StructuredPoint) -> None:
        self.face, self.z, self.inner = face, z, inner
        self.value = inner.value
        self.gradient = face.parameters(z)[1] * inner.gradient[face.free]

    def model(self) -> FaceModel:
        """Model of the deviance around this point."""
        return FaceModel(self.face, self.z, self.inner.model())


@dataclass(frozen=True, eq=False)
class FaceModel:
    """The model of `StructuredModel` in the coordinates of a face."""

    face: Face
    z: Matrix
    inner: StructuredModel

    def at(self, step: Matrix, correction: Matrix) -> tuple[float, Matrix, Matrix]:
        """Change of d, gradient and Hessian of the model after a step."""
        free = self.face.free
        eta, first, second = self.face.parameters(self.z + step)
        change = self.inner.at(eta - self.inner.eta)
        return in_coordinates(change, free, first, second, step, correction)

    def minimise(self, correction: Matrix, radius: float) -> tuple[Matrix, float]:
        """Step within the radius that makes the model small, and the decrease it predicts."""

        def at(step: Matrix) -> tuple[float, Matrix, Matrix]:
            if self.face.is_inside(self.z + step):
                return self.at(step, correction)
            return np.inf, step, correction

        return minimise_model(at, len(self.z), radius)
