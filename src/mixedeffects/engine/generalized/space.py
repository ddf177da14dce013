"""Coordinates of the search: covariance parameters, then beta, then phi; and points in them.

Where covariances are free, their coordinates are the entries of the triangular factors, without
bounds; of structures they are those of a face (`Face`). A point's model takes the change of every
Sigma exactly, and is quadratic in that change, in beta and in phi.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.caching import cached_property
from mixedeffects.engine.face import Face
from mixedeffects.engine.generalized.design import GeneralizedDesign
from mixedeffects.engine.generalized.laplace import GeneralizedEvaluation
from mixedeffects.engine.generalized.model import criterion_model
from mixedeffects.engine.parameterisation import Parameterisation
from mixedeffects.engine.structured_point import StructuredModel, in_coordinates
from mixedeffects.engine.trust_region import minimise_model

__all__ = ["GeneralizedPoint", "Parameters", "Space"]

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Parameters:
    """Covariance parameters eta of all terms, beta and phi, in the engine's basis."""

    eta: Matrix
    beta: Matrix
    phi: float

    def factors(self, parameterisation: Parameterisation) -> tuple[Matrix, ...]:
        """One factor per term."""
        return tuple(parameterisation.factors(self.eta))


class Space:
    """From coordinates to parameters and back.

    Parameters
    ----------
    design : GeneralizedDesign
        The model.
    face : Face, optional
        The covariance parameters that move, where some term has a structure.
    held_phi : float, optional
        Where phi stays, on its search scale; by default it is estimated if the family has one.
    """

    def __init__(
        self, design: GeneralizedDesign, face: Face | None = None, held_phi: float | None = None
    ) -> None:
        self.design, self.face, self.held_phi = design, face, held_phi
        self.has_phi = design.family.has_parameter
        #: Whether phi is one of the coordinates.
        self.moves_phi = self.has_phi and held_phi is None
        m = design.parameterisation.n_parameters
        self.free = np.arange(m) if face is None else face.free
        further = design.p + self.moves_phi
        #: Which parameters move, beta and phi counted after those of the covariances.
        self.kept: NDArray[np.intp] = np.concatenate([self.free, m + np.arange(further)])

    def coordinates(self, at: Parameters) -> Matrix:
        """Of a point; on a face, of its own covariance parameters."""
        own = at.eta if self.face is None else self.face.start
        return np.concatenate([own, at.beta, [at.phi] if self.moves_phi else []])

    def parameters(self, x: Matrix) -> tuple[Parameters, Matrix, Matrix]:
        """At coordinates x, and derivatives of those that move: first and second."""
        m, p = len(self.free), self.design.p
        first, second = np.ones(len(x)), np.zeros(len(x))
        eta = x[:m]
        if self.face is not None:
            eta, first[:m], second[:m] = self.face.parameters(x[:m])
        phi = float(x[m + p]) if self.moves_phi else (self.held_phi or 0.0)
        return Parameters(eta, x[m : m + p], phi), first, second

    def is_inside(self, x: Matrix) -> bool:
        """Whether no standard deviation is too large."""
        return self.face is None or self.face.is_inside(x[: len(self.free)])

    def gradient(self, at: Parameters, evaluation: GeneralizedEvaluation) -> Matrix:
        """Derivatives in all parameters."""
        of_eta = self.design.parameterisation.gradient(at.eta, evaluation.score)
        return np.concatenate([of_eta, self.further_gradient(evaluation)])

    def further_gradient(self, evaluation: GeneralizedEvaluation) -> Matrix:
        """Derivatives in beta and phi."""
        of_phi = [evaluation.phi_gradient] if self.has_phi else []
        return np.concatenate([evaluation.beta_gradient, of_phi])


class GeneralizedPoint:
    """One evaluation, as the trust region wants it."""

    def __init__(
        self, space: Space, x: Matrix, at: Parameters, evaluation: GeneralizedEvaluation
    ) -> None:
        self.space, self.x, self.at, self.evaluation = space, x, at, evaluation
        self.value = evaluation.criterion
        _, first, _ = space.parameters(x)
        self.gradient = first * space.gradient(at, evaluation)[space.kept]

    @property
    def parameterisation(self) -> Parameterisation:
        """What the covariance parameters are."""
        return self.space.design.parameterisation

    @property
    def eta(self) -> Matrix:
        """Their values."""
        return self.at.eta

    def model(self) -> _Model:
        """Model of the criterion around this point."""
        inner = criterion_model(
            self.evaluation,
            self.parameterisation,
            self.at.eta,
            self.space.further_gradient(self.evaluation),
        )
        return _Model(self.space, self.x, inner)


@dataclass(frozen=True, eq=False)
class _Model:
    """A `StructuredModel` in the coordinates of the search."""

    space: Space
    x: Matrix
    inner: StructuredModel

    @cached_property
    def _here(self) -> Matrix:
        return _joined(self.space.parameters(self.x)[0], self.space.has_phi)

    def at(self, step: Matrix, correction: Matrix) -> tuple[float, Matrix, Matrix]:
        """Change of D, gradient and Hessian of the model after a step."""
        there, first, second = self.space.parameters(self.x + step)
        change = self.inner.at(_joined(there, self.space.has_phi) - self._here)
        return in_coordinates(change, self.space.kept, first, second, step, correction)

    def minimise(self, correction: Matrix, radius: float) -> tuple[Matrix, float]:
        """Step within the radius that makes the model small, and the decrease it predicts."""

        def at(step: Matrix) -> tuple[float, Matrix, Matrix]:
            if self.space.is_inside(self.x + step):
                return self.at(step, correction)
            return math.inf, step, correction

        return minimise_model(at, len(self.x), radius)


def _joined(at: Parameters, has_phi: bool) -> Matrix:
    parts: Sequence[Matrix] = (at.eta, at.beta, np.full(int(has_phi), at.phi))
    return np.concatenate(parts)
