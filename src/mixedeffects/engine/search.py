"""One search for an optimum of the profiled deviance, from one start.

The entries of T are optimised without bounds: a zero variance or a correlation of +-1 is an
ordinary smooth minimum there. A search goes down by steps on the average information; where these
creep, or stop although the gradient is not small, it goes on with the observed curvature. At a
singular covariance it asks whether added variance would lower the deviance, and leaves if so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mixedeffects import _kernels
from mixedeffects.engine.basis import lower_factor
from mixedeffects.engine.crossproducts import CrossProducts
from mixedeffects.engine.factorisation import NotPositiveDefiniteError
from mixedeffects.engine.newton import newton
from mixedeffects.engine.objective import Evaluation, LocalModel, evaluate
from mixedeffects.engine.parameters import T_to_theta, theta_to_T
from mixedeffects.engine.remainder import DenseRemainder
from mixedeffects.engine.trust_region import minimise

__all__ = [
    "LARGE_CORE",
    "LARGE_DEVIATION",
    "SINGULAR",
    "UNENDED",
    "Search",
    "descend_single_term",
    "has_null_directions",
    "is_single_term",
    "null_space_score",
    "relative_gradient",
    "search",
    "snapped_factors",
    "surely_regular",
]

Matrix = NDArray[np.float64]

#: Relative standard deviation (in an orthonormal basis) below which a direction counts as singular.
SINGULAR = 1e-4
#: How a search stops that does not end by itself.
UNENDED = ("evaluations", "edge")
#: Relative standard deviations from which they are the unit of a search.
LARGE_DEVIATION = 10.0
#: Rows of the dense core from which two factorisations are not kept beside each other.
LARGE_CORE = 5_000
#: Relative gradient from which a search that sees nothing left to gain looks again.
SMALL_GRADIENT = 1e-6
#: Evaluations after which the average information is not relied on any more.
_PATIENCE = 15
#: Relative score below which added variance would lower the deviance.
_NEGATIVE = -1e-6
_MAX_RESTARTS = 3

#: Called after each accepted step with the evaluation and the number of evaluations so far.
Report = Callable[[Evaluation, int], None]


@dataclass(frozen=True, eq=False)
class Search:
    """Where one search ended.

    Attributes
    ----------
    T : tuple of ndarray (k, k)
        Factors, lower triangular.
    evaluation : Evaluation
        There.
    evaluations, iterations : int
        Evaluations of objective and gradient, and accepted steps.
    predicted : float
        How far the deviance is still predicted to fall, by the observed curvature where `observed`.
    observed : bool
        Whether the search ended with the observed curvature.
    null_score : float or None
        See `Certificate`.
    stopped : str
        ``"evaluations"`` where it used up all it had, ``"edge"`` where the deviance does not exist
        next to the end; else it ended by itself.
    path : tuple of float
        Deviance at each accepted point.
    """

    T: tuple[Matrix, ...]
    evaluation: Evaluation
    evaluations: int
    iterations: int
    predicted: float
    observed: bool
    null_score: float | None
    stopped: str
    path: tuple[float, ...]

    @property
    def ended(self) -> bool:
        """Whether the search ended by itself."""
        return self.stopped not in UNENDED

    @property
    def deviance(self) -> float:
        """Where the search ended."""
        return self.evaluation.deviance


def relative_gradient(parameters: Matrix, gradient: Matrix, value: float) -> float:
    """Largest ``|g_j| max(|theta_j|, 1)`` over ``max(|value|, 1)``."""
    scaled = np.abs(gradient) * np.maximum(np.abs(parameters), 1.0)
    return float(scaled.max()) / max(abs(value), 1.0)


def _row_sizes(T: Matrix) -> Matrix:
    """Units for the rows of a factor: one, or the standard deviation where it is large."""
    size = np.linalg.norm(T, axis=1)
    return np.where(size > LARGE_DEVIATION, size, 1.0)


def _theta_sizes(sizes: Sequence[Matrix]) -> Matrix:
    return T_to_theta([np.repeat(size[:, None], len(size), axis=1) for size in sizes])


class _Point:
    """One evaluation, as the trust region wants it: in units that make its factors small."""

    def __init__(
        self, A: CrossProducts, theta: Matrix, reml: bool, sizes: Sequence[Matrix]
    ) -> None:
        self.T = theta_to_T(theta, A.term_columns)
        self.evaluation = evaluate(A, self.T, reml)
        self.value = self.evaluation.deviance
        self._sizes = sizes
        self.gradient = self.evaluation.gradient * _theta_sizes(sizes)

    def model(self) -> LocalModel:
        return self.evaluation.local_model(self.T).in_units_of(self._sizes)

    def make_room(self) -> None:
        """Give back a large factorisation before the next one is made; its model is known."""
        if self.evaluation.A.remainder.core_size > LARGE_CORE:
            self.evaluation.factorisation.release()


def search(
    A: CrossProducts,
    reml: bool,
    start: Sequence[Matrix],
    *,
    tolerance: float,
    max_evaluations: int,
    report: Report | None = None,
) -> Search:
    """Go down from one start.

    Parameters
    ----------
    A : CrossProducts
        The blocks.
    reml : bool
        Which criterion.
    start : sequence of ndarray (k, k)
        Lower-triangular factors in the engine's basis.
    tolerance : float
        Stop when the deviance is predicted to fall by less than this.
    max_evaluations : int
        Give up after so many.
    report : callable, optional
        Called after each accepted step.
    """
    descent = _Descent(A, reml, tolerance, max_evaluations, report)
    theta = T_to_theta(list(start))
    for _restart in range(_MAX_RESTARTS + 1):
        theta, here = descent.down(theta)
        here = descent.snapped(here)
        null_score, escape = null_space_score(here)
        if escape is None or descent.evaluations >= max_evaluations:
            break
        theta = escape
    return Search(
        tuple(lower_factor(T) for T in here.T),
        here,
        descent.evaluations,
        descent.iterations,
        descent.predicted,
        descent.observed,
        null_score,
        descent.stopped,
        tuple(descent.path),
    )


class _Descent:
    """The parts of a search, and what they have used so far."""

    def __init__(
        self,
        A: CrossProducts,
        reml: bool,
        tolerance: float,
        max_evaluations: int,
        report: Report | None,
    ) -> None:
        self.A, self.reml, self.tolerance, self.most = A, reml, tolerance, max_evaluations
        self.evaluations = self.iterations = 0
        self.predicted = math.inf
        self.observed, self.stopped = False, ""
        self.path: list[float] = []
        self._report = report
        self._last: list[_Point] = []
        self._sizes = [np.ones(k) for k in A.term_columns]

    def evaluate(self, theta: Matrix) -> _Point | None:
        if self._last:
            self._last.pop().make_room()
        try:
            point = _Point(self.A, theta, self.reml, self._sizes)
        except NotPositiveDefiniteError:
            return None
        self._last.append(point)
        return point if np.isfinite(point.value) else None

    def accepted(self, here: Evaluation, evaluations: int) -> None:
        if self.path and abs(here.deviance - self.path[-1]) <= 1e-14 * abs(self.path[-1]):
            return
        self.path.append(here.deviance)
        if self._report is not None:
            self._report(here, self.evaluations + evaluations)

    def down(self, theta: Matrix) -> tuple[Matrix, Evaluation]:
        """To a minimum, by the average information or else by the observed curvature."""
        patience = max(_PATIENCE, len(theta))
        if self._report is None and self.most - self.evaluations > 2 and is_single_term(self.A):
            # All the way down without coming back for each step; below it is found converged.
            theta, tried, iterations, values = descend_single_term(
                self.A,
                self.reml,
                theta,
                self.tolerance,
                min(patience, self.most - self.evaluations - 1),
            )
            self.evaluations += tried
            self.iterations += iterations
            self.path.extend(values)
            patience -= tried
        self._sizes = [_row_sizes(T) for T in theta_to_T(theta, self.A.term_columns)]
        unit = _theta_sizes(self._sizes)
        result = minimise(
            lambda x: self.evaluate(x * unit),
            theta / unit,
            tolerance=self.tolerance,
            max_evaluations=max(1, min(patience, self.most - self.evaluations)),
            radius=math.sqrt(len(theta)),
            report=lambda each: self.accepted(each.point.evaluation, each.evaluations),
        )
        self.evaluations += result.evaluations
        self.iterations += result.iterations
        self.predicted = result.predicted
        here = result.point.evaluation
        self.observed, self.stopped = False, result.stopped
        steep = relative_gradient(T_to_theta(here.T), here.gradient, here.deviance)
        if steep > SMALL_GRADIENT or result.stopped == "evaluations":
            here = self._by_observed_curvature(here)
        return T_to_theta(here.T), here

    def _by_observed_curvature(self, here: Evaluation) -> Evaluation:
        left = self.most - self.evaluations - 1
        if left <= len(here.gradient):
            self.stopped = "evaluations"
            return here
        end = newton(here, tolerance=self.tolerance, max_evaluations=left, report=self.accepted)
        self.evaluations += end.evaluations
        self.iterations += end.iterations
        self.predicted = end.predicted
        self.observed, self.stopped = True, end.stopped
        if end.iterations == 0:
            return here
        # Its factors lie in other axes.
        self.evaluations += 1
        return evaluate(self.A, [lower_factor(T) for T in end.evaluation.T], self.reml)

    def snapped(self, here: Evaluation) -> Evaluation:
        """With a nearly singular covariance exactly on the boundary, if the deviance agrees."""
        snapped = snapped_factors(here.T)
        if snapped is None:
            return here
        trial = self.evaluate(T_to_theta(snapped))
        self.evaluations += 1
        slack = 1e-12 * max(1.0, abs(here.deviance)) + 1e-9
        if trial is not None and trial.value <= here.deviance + slack:
            return trial.evaluation
        return here


def snapped_factors(T: Sequence[Matrix]) -> list[Matrix] | None:
    """Factors with nearly no variance in some direction given none there; None if none are so."""
    if all(surely_regular(factor) for factor in T):
        return None
    snapped = []
    for factor in T:
        left, values, right = np.linalg.svd(factor)
        values = np.where(values < SINGULAR, 0.0, values)
        snapped.append(lower_factor((left * values) @ right))
    changed = any(
        np.linalg.matrix_rank(s) < len(s) and np.linalg.svd(factor, compute_uv=False)[-1] > 0.0
        for s, factor in zip(snapped, T, strict=True)
    )
    return snapped if changed else None


def is_single_term(A: CrossProducts) -> bool:
    """Whether there is one term on one factor, for which the kernels can search alone."""
    single = len(A.chain) == 1 and not A.rest and len(A.term_columns) == 1
    return single and A.provisional is None and A.known_variance is None


def descend_single_term(
    A: CrossProducts, reml: bool, theta: Matrix, tolerance: float, most: int
) -> tuple[Matrix, int, int, list[float]]:
    """`minimise` for one term on one factor, in the kernels: theta, evaluations, steps, values."""
    (factor,) = A.chain
    assert isinstance(A.remainder, DenseRemainder)
    df = A.n - A.p if reml else A.n
    stopped, evaluations, iterations, path = _kernels.descend_single_factor(
        theta,
        factor.diag,
        factor.panel,
        A.remainder.matrix,
        reml,
        df,
        A.sum_log_weights,
        tolerance,
        most,
        math.sqrt(len(theta)),
    )
    return stopped, evaluations, iterations, path.tolist()


def surely_regular(T: Matrix) -> bool:
    """Whether a bound on the smallest singular value of a triangular T shows it is not singular."""
    size = math.sqrt(float(np.vdot(T, T)))
    determinant = math.prod(np.diag(T).tolist())
    # The product of the other singular values is at most size^(k - 1).
    return size > 0.0 and abs(determinant) > SINGULAR * size ** (len(T) - 1)


def _null_directions(T: Matrix) -> Matrix:
    """Orthonormal basis of the directions in which T T' has no variance, k x (number of them)."""
    if surely_regular(T):
        return np.empty((len(T), 0))
    left, values, _ = np.linalg.svd(T)
    return left[:, values < SINGULAR]


def has_null_directions(T: Sequence[Matrix]) -> bool:
    """Whether some combination of a term's effects has no variance; T in the engine's basis."""
    return any(_null_directions(factor).shape[1] > 0 for factor in T)


class Scored(Protocol):
    """Factors and the matrix scores there; see `Evaluation`."""

    @property
    def T(self) -> tuple[Matrix, ...]:
        """One factor per term."""
        ...

    @property
    def score(self) -> tuple[Matrix, ...]:
        """F per term."""
        ...

    @property
    def outer_products(self) -> tuple[Matrix, ...]:
        """Sums of ``c_i c_i'`` per term, relative to the residual variance."""
        ...


def null_space_score(here: Scored) -> tuple[float | None, Matrix | None]:
    """Smallest relative eigenvalue of the score on the null space, and a way out if negative."""
    worst: float | None = None
    escape: list[Matrix] | None = None
    for t, (T, F, CC) in enumerate(zip(here.T, here.score, here.outer_products, strict=True)):
        null = _null_directions(T)
        if null.shape[1] == 0:
            continue
        values, vectors = np.linalg.eigh(null.T @ F @ null)
        size = float(np.linalg.norm(F + CC))
        relative = float(values[0]) / size if size > 0 else 0.0
        if worst is None or relative < worst:
            worst = relative
            if relative < _NEGATIVE:
                direction = null @ vectors[:, 0]
                grown = T @ T.T + 0.01 * np.outer(direction, direction)
                escape = list(here.T)
                escape[t] = lower_factor(_symmetric_root(grown))
    return worst, None if escape is None else T_to_theta(escape)


def _symmetric_root(matrix: Matrix) -> Matrix:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))
