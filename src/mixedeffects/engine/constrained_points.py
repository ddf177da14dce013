"""The deviance where a parameter of the variances is held: a family of factors, and its points.

The factors ``L_t = sigma T_t`` of one value of the parameter are affine in the coordinates that are
left free. The deviance is not profiled over sigma; see `constrained`, which moves along it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.crossproducts import CrossProducts
from mixedeffects.engine.objective import Evaluation, evaluate
from mixedeffects.engine.parameters import (
    along_directions,
    block_diagonal,
    lower_entries,
    symmetric_directions,
)
from mixedeffects.engine.residual_objective import ResidualEvaluation, evaluate_residual
from mixedeffects.engine.residual_rows import ResidualRows
from mixedeffects.engine.trust_region import minimise_model

__all__ = ["LocalModel", "TiedFamily", "TiedPoint", "term_slices"]

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

#: Logarithm of a residual standard deviation beyond any data.
_BEYOND = 300.0


@dataclass(frozen=True, eq=False)
class TiedFamily:
    """Factors of one value: ``L = base + sum_i x_i directions_i``, block-diagonal over all terms.

    ``log_sigma`` is None where log sigma is free; it is then the last of the coordinates. Those of
    the residuals, if they have any, are before it.
    """

    A: CrossProducts
    base: Matrix
    directions: Matrix
    log_sigma: float | None
    rows: ResidualRows | None = None

    @property
    def of_residuals(self) -> slice:
        """Which coordinates are those of the residuals."""
        m = len(self.directions)
        return slice(m, m + (0 if self.rows is None else self.rows.model.n_parameters))

    def parts(self, x: Vector) -> tuple[Matrix, float]:
        """Absolute factor and log sigma."""
        m = len(self.directions)
        L = self.base + np.tensordot(x[:m], self.directions, axes=1)
        return L, float(x[-1]) if self.log_sigma is None else self.log_sigma

    def phi(self, x: Vector) -> tuple[Vector, Vector, Vector]:
        """Parameters of the residuals, and their derivatives in the coordinates."""
        if self.rows is None:
            return np.zeros(0), np.zeros(0), np.zeros(0)
        return self.rows.model.bounded(x[self.of_residuals])

    def relative(self, x: Vector) -> list[Matrix]:
        """One square relative factor per term."""
        L, log_sigma = self.parts(x)
        return [np.ascontiguousarray(L[s, s]) * np.exp(-log_sigma) for s in term_slices(self.A)]


def term_slices(A: CrossProducts) -> list[slice]:
    """Where each term is in a matrix that is block-diagonal over all terms."""
    stops = np.cumsum(A.term_columns)
    return [slice(int(e) - k, int(e)) for k, e in zip(A.term_columns, stops, strict=True)]


def _entries(A: CrossProducts) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Lower entries of all terms' blocks in the block-diagonal matrix, in the order of theta."""
    rows, columns = zip(
        *(
            (r + s.start, c + s.start)
            for s in term_slices(A)
            for r, c in [lower_entries(s.stop - s.start)]
        ),
        strict=True,
    )
    return np.concatenate(rows), np.concatenate(columns)


class TiedPoint:
    """The deviance, not profiled over sigma, at one point of a family."""

    def __init__(self, family: TiedFamily, x: Vector) -> None:
        self.family, self.x = family, x
        self.L, self.log_sigma = family.parts(x)
        self.T = family.relative(x)
        self.residual: ResidualEvaluation | None = None
        self.phi, of_phi, _ = family.phi(x)
        self.evaluation: Evaluation
        if family.rows is None:
            self.evaluation = evaluate(family.A, self.T, False)
        else:
            self.residual = evaluate_residual(family.rows, self.T, self.phi, False)
            self.evaluation = self.residual.at_theta
        here = self.evaluation
        A = here.A
        self.sigma2 = float(np.exp(2.0 * self.log_sigma))
        ratio = here.rho2 / self.sigma2
        self.value = here.deviance
        if A.known_variance is None:
            # From the profiled deviance, whose part in sigma is n (1 + log(rho^2 / n)).
            self.value += ratio - A.n - A.n * float(np.log(ratio / A.n))
        by_T = [
            logdet + rho2 / self.sigma2
            for logdet, rho2 in zip(here.logdet_gradient, here.rho2_gradient, strict=True)
        ]
        slices = term_slices(A)
        gradient = np.zeros(len(family.directions))
        for g, s in zip(by_T, slices, strict=True):
            gradient += np.tensordot(family.directions[:, s, s], g, axes=2)
        gradient *= np.exp(-self.log_sigma)
        if self.residual is not None:
            gradient = np.append(gradient, of_phi * self.residual_score)
        if family.log_sigma is None:
            pull = sum(float(np.vdot(g, T)) for g, T in zip(by_T, self.T, strict=True))
            gradient = np.append(gradient, 2.0 * A.n - 2.0 * ratio - pull)
        self.gradient: Vector = gradient

    @property
    def share(self) -> float:
        """The sigma^2 that is best for the factors, relative to this one."""
        return self.evaluation.sigma2 / self.sigma2

    @property
    def residual_score(self) -> Vector:
        """Derivatives in the parameters of the residuals."""
        if self.residual is None:
            return np.zeros(0)
        return np.asarray(self.residual.score + (self.share - 1.0) * self.residual.slopes)

    def model(self) -> LocalModel:
        """The deviance near this point."""
        return LocalModel(self)


class LocalModel:
    """Quadratic model of D in ``(T T', phi, log sigma^2)`` as an exact function of coordinates."""

    def __init__(self, point: TiedPoint) -> None:
        here, n = point.evaluation, point.evaluation.A.n
        self._family, self._x = point.family, point.x
        self._rows, self._columns = _entries(here.A)
        share = point.share
        products = np.concatenate([along_directions(CC) for CC in here.outer_products])
        score = np.concatenate([along_directions(F) for F in here.score])
        score = score + (1.0 - share) * products
        if point.residual is None:
            information = here.information + np.outer(products, products) / n
        else:
            directions = [symmetric_directions(k) for k in here.A.term_columns]
            form = point.residual.unprofiled_information(directions)
            information, products = form[:-1, :-1], form[-1, :-1]
        self._score = np.append(score, point.residual_score)
        self._cross = share * products
        self._information = share * information
        self._ratio = here.rho2 / point.sigma2
        self._slope = n - self._ratio
        self._S, self._tau = self._relative(point.L, point.log_sigma), 2.0 * point.log_sigma
        self._phi = point.phi

    def _relative(self, L: Matrix, log_sigma: float) -> Vector:
        S = (L @ L.T) * np.exp(-2.0 * max(log_sigma, -_BEYOND))
        return np.asarray(S[self._rows, self._columns])

    def at(self, step: Vector, correction: Matrix) -> tuple[float, Vector, Matrix]:
        """Change of the model after a step, and its gradient and Hessian there."""
        family = self._family
        L, log_sigma = family.parts(self._x + step)
        phi, first, second = family.phi(self._x + step)
        S = self._relative(L, log_sigma)
        change, turn = np.append(S - self._S, phi - self._phi), 2.0 * log_sigma - self._tau
        added = self._information @ change
        value = float(self._score @ change + 0.5 * change @ added)
        value += turn * (self._slope + float(self._cross @ change) + 0.5 * self._ratio * turn)
        score = self._score + added + turn * self._cross
        slope = self._slope + float(self._cross @ change) + self._ratio * turn

        directions, scale = family.directions, np.exp(-2.0 * max(log_sigma, -_BEYOND))
        half = directions @ L.T
        J = scale * (half + half.transpose(0, 2, 1))[:, self._rows, self._columns]
        of_S = score[: len(S)]
        full = np.zeros(L.shape)
        weighted = np.where(self._rows == self._columns, of_S, 0.5 * of_S)
        full[self._rows, self._columns] = full[self._columns, self._rows] = weighted
        flat = directions.reshape(len(directions), L.size)
        bent = 2.0 * scale * flat @ (full @ directions).reshape(flat.shape).T
        if len(phi):
            J = block_diagonal([J, np.diag(first)])
            bent = block_diagonal([bent, np.diag(second * score[len(S) :])])
        gradient = J @ score
        hessian = J @ self._information @ J.T + bent
        if family.log_sigma is None:
            S = np.append(S, np.zeros(len(phi)))
            pull = float(S @ score)
            # A step in log sigma with L held is one of S alone.
            of_L = np.append(gradient[: len(directions)], np.zeros(len(phi)))
            cross = -2.0 * J @ (self._information @ S) + 2.0 * J @ self._cross - 2.0 * of_L
            own = 4.0 * (S @ self._information @ S - 2.0 * self._cross @ S + self._ratio + pull)
            hessian = np.block([[hessian, cross[:, None]], [cross, np.array([own])]])
            gradient = np.append(gradient, 2.0 * slope - 2.0 * pull)
        corrected = correction @ step
        return (
            value + 0.5 * float(step @ corrected),
            gradient + corrected,
            hessian + correction,
        )

    def minimise(self, correction: Matrix, radius: float) -> tuple[Vector, float]:
        """Step within the radius that makes the model small, and the decrease it predicts."""
        # A step far too long has no finite value: it is shortened.
        with np.errstate(over="ignore", invalid="ignore"):
            return minimise_model(lambda step: self.at(step, correction), len(correction), radius)
