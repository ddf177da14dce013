"""The optimum of the profiled deviance, with the evidence that it is one.

The entries of T are optimised without bounds: a zero variance or a correlation of +-1 is an
ordinary smooth minimum there. A fit is accepted on three conditions, the *certificate*: the
gradient vanishes; where a covariance is singular, no direction of added variance lowers the
deviance; and the observed Hessian is positive on the rest.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects import _kernels
from mixedeffects.arrays import ReadOnlyArrays
from mixedeffects.engine.basis import lower_factor
from mixedeffects.engine.crossproducts import CrossProducts
from mixedeffects.engine.factorisation import NotPositiveDefiniteError
from mixedeffects.engine.objective import Evaluation, LocalModel, evaluate
from mixedeffects.engine.parameters import T_to_theta, n_parameters, theta_to_T
from mixedeffects.engine.remainder import DenseRemainder
from mixedeffects.engine.start import starting_factors
from mixedeffects.engine.threads import one_blas_thread
from mixedeffects.engine.trust_region import Iterate, minimise
from mixedeffects.errors import ModelError
from mixedeffects.options import is_whole_number, plain

if TYPE_CHECKING:
    from mixedeffects.engine.curvature import Curvature
    from mixedeffects.engine.parameterisation import Parameterisation
    from mixedeffects.engine.structures import CovarianceStructure

__all__ = [
    "Certificate",
    "Control",
    "Optimum",
    "Progress",
    "find_optimum",
    "has_null_directions",
    "optimal_factors",
    "record",
]

Matrix = NDArray[np.float64]

#: Relative standard deviation (in an orthonormal basis) below which a direction counts as singular.
SINGULAR = 1e-4
#: Smallest curvature, on a scale on which one is as good as it gets, that is not flat.
FLAT = 1e-4
#: By how much a curvature must exceed what rounding can make of it.
_WELL_ABOVE = 10.0


@dataclass(frozen=True)
class Control:
    """How hard to try.

    Attributes
    ----------
    tolerance : float
        Stop when the deviance is predicted to fall by less than this.
    max_evaluations : int
        Evaluations of objective and gradient before giving up.
    """

    tolerance: float = 1e-10
    max_evaluations: int = 200

    def __post_init__(self) -> None:
        tolerance, most = plain(self.tolerance), plain(self.max_evaluations)
        number = isinstance(tolerance, (int, float)) and not isinstance(tolerance, bool)
        if not (number and tolerance > 0.0 and is_whole_number(most)):
            raise ModelError(
                "Control needs a positive tolerance and at least one evaluation; got "
                f"tolerance={tolerance!r:.60}, max_evaluations={most!r:.60}."
            )
        object.__setattr__(self, "tolerance", float(tolerance))
        object.__setattr__(self, "max_evaluations", most)


@dataclass(frozen=True)
class Progress:
    """One line of feedback during a fit."""

    iteration: int
    evaluations: int
    criterion: float
    gradient_norm: float
    seconds: float
    #: Relative covariance factors there, in the basis of the fit: where another search may start.
    factors: tuple[Matrix, ...] = field(default=(), repr=False, compare=False)

    def __str__(self) -> str:
        return (
            f"iteration {self.iteration:3d}   criterion {self.criterion:.6f}   "
            f"gradient {self.gradient_norm:.1e}   {self.seconds:.1f} s"
        )


@dataclass(frozen=True, repr=False)
class Certificate:
    """Evidence that a fit is the optimum.

    Attributes
    ----------
    relative_gradient : float
        Largest ``|g_j| max(|theta_j|, 1)`` over ``max(|d|, 1)``.
    predicted_decrease : float
        How far the deviance is still predicted to fall.
    null_score : float or None
        Where a covariance is singular: the smallest eigenvalue of the matrix score on its null
        space, relative to its size. Negative: adding variance there would lower the deviance.
    smallest_curvature : float
        Smallest eigenvalue of the observed Hessian, scaled to unit diagonal, on the directions that
        are not null. Below 1e-4 the deviance is flat there.
    curvature_rounding : float
        What rounding can make of the smallest curvature; it is to be well above that too.
    """

    relative_gradient: float
    predicted_decrease: float
    null_score: float | None
    smallest_curvature: float
    curvature_rounding: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether all three conditions are met."""
        return (
            self.relative_gradient < 1e-5
            and (self.null_score is None or self.null_score > -1e-6)
            and self.smallest_curvature > self.least_curvature
        )

    @property
    def least_curvature(self) -> float:
        """What the smallest curvature must exceed."""
        return max(FLAT, _WELL_ABOVE * self.curvature_rounding)

    def __str__(self) -> str:
        null = (
            "not singular"
            if self.null_score is None
            else f"score on null space {self.null_score:.1e}"
        )
        verdict = "holds" if self.holds else "DOES NOT HOLD"
        return (
            f"certificate {verdict}: relative gradient {self.relative_gradient:.1e}, {null}, "
            f"smallest curvature {self.smallest_curvature:.2g}"
        )

    __repr__ = __str__


@dataclass(eq=False, repr=False)
class Optimum(ReadOnlyArrays):
    """Where the optimiser stopped, and why.

    Attributes
    ----------
    evaluations : int
        Evaluations of objective and gradient, the starting value included.
    iterations : int
        Accepted steps.
    gradient_norm : float
        Largest absolute entry of the gradient in the fitting basis.
    predicted_decrease : float
        How far the deviance was still predicted to fall.
    null_score : float or None
        See `Certificate`.
    singular : bool
        Whether some direction of random effects has no variance.
    converged : bool
        Whether the gradient and null-space conditions hold, and all parameters are determined.
    message : str
        The same in words.
    path : tuple of float
        Criterion at each accepted point.
    term_names : tuple of str
        What to call the terms.
    parameterisation : Parameterisation or None
        What was optimised where some term has a covariance structure.
    eta : ndarray or None
        Its parameters: standard deviations relative to sigma in the size of their columns, and
        correlations.
    residual_vanishes : bool
        Whether the deviance falls, by next to nothing, as long as the residual variance does.
    null_directions : ndarray, shape (r, M + 1), or None
        Directions that the likelihood does not depend on at all, in the lower entries of every
        Sigma in the engine's basis and the residual variance, relative to it.
    undetermined : tuple of str
        Names of the variance parameters that these directions change.
    reasons : tuple of str
        Why they are not determined and what to do, in sentences.
    """

    evaluations: int
    iterations: int
    gradient_norm: float
    relative_gradient: float
    predicted_decrease: float
    null_score: float | None
    singular: bool
    converged: bool
    message: str
    path: tuple[float, ...]
    T: tuple[Matrix, ...]
    evaluation: Evaluation
    term_names: tuple[str, ...] = ()
    parameterisation: Parameterisation | None = None
    eta: Matrix | None = None
    residual_vanishes: bool = False
    null_directions: Matrix | None = None
    undetermined: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def restart(self) -> tuple[Matrix, ...] | None:
        """Factors from which to fit another response or criterion, None to start afresh.

        A singular optimum is a stationary point for any response: a search would not leave it.
        """
        return None if self.singular else self.T

    @property
    def n_parameters(self) -> int:
        """Number of covariance parameters, sigma not counted."""
        if self.parameterisation is not None:
            return self.parameterisation.n_parameters
        return n_parameters(self.evaluation.A.term_columns)

    @property
    def variance_directions(self) -> list[Matrix | None] | None:
        """Per term, the directions a structure leaves its covariance; None: all directions."""
        if self.parameterisation is None or self.eta is None:
            return None
        return self.parameterisation.variance_directions(self.eta)

    @property
    def structure(self) -> tuple[str, ...]:
        """How the random effects are eliminated, chosen by predicted work; one line a stage."""
        A = self.evaluation.A
        names = self.term_names or tuple(f"term {t}" for t in range(len(A.term_columns)))
        return A.structure(names)

    @cached_property
    def curvature(self) -> Curvature:
        """Observed Hessian of the deviance in (theta, sigma).

        Computed when asked for: it takes two or four more evaluations for each variance parameter.
        """
        from mixedeffects.engine.curvature import observed_curvature

        A = self.evaluation.A
        with one_blas_thread(A.remainder.core_size):
            return observed_curvature(A, self, self.evaluation.reml)

    @cached_property
    def _smallest_curvature(self) -> tuple[float, float]:
        if self.undetermined:
            return 0.0, 0.0
        curvature = self.curvature
        return curvature.smallest_eigenvalue(curvature.interior(self.evaluation.A))

    @property
    def smallest_curvature(self) -> float:
        """Smallest scaled eigenvalue of the observed Hessian where directions are not null.

        Zero where some parameters are undetermined, whatever rounding makes of it.
        """
        return self._smallest_curvature[0]

    @cached_property
    def certificate(self) -> Certificate:
        """All three pieces of evidence; see `Certificate`."""
        return Certificate(
            self.relative_gradient,
            self.predicted_decrease,
            self.null_score,
            *self._smallest_curvature,
        )

    def __repr__(self) -> str:
        first, last = self.path[0], self.path[-1]
        gradient, relative = self.gradient_norm, self.relative_gradient
        lines = [
            f"Optimum: {self.message}",
            f"  criterion    {last:.6f}, from {first:.6f} in {self.iterations} steps",
            f"  gradient     largest entry {gradient:.1e}, relative {relative:.1e}",
            f"  still to go  {self.predicted_decrease:.1e} predicted",
        ]
        if self.null_score is not None:
            lines.append(f"  boundary     score on the null space {self.null_score:.1e}")
        if self.undetermined:
            lines.append(f"  undetermined {', '.join(self.undetermined)}")
        heads = ["  elimination  ", *[" " * 15] * len(self.structure)]
        lines += [head + line for head, line in zip(heads, self.structure, strict=False)]
        return "\n".join(lines)


#: Rows of the dense core from which two factorisations are not kept beside each other.
LARGE_CORE = 5_000


#: Relative standard deviations from which they are the unit of a search.
_LARGE = 10.0


def _row_sizes(T: Matrix) -> Matrix:
    """Units for the rows of a factor: one, or the standard deviation where it is large."""
    size = np.linalg.norm(T, axis=1)
    return np.where(size > _LARGE, size, 1.0)


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


def find_optimum(
    A: CrossProducts,
    reml: bool,
    *,
    start: Sequence[Matrix] | None = None,
    control: Control | None = None,
    progress: Callable[[Progress], None] | None = None,
    structures: Sequence[CovarianceStructure | None] | None = None,
) -> Optimum:
    """Minimise the profiled deviance over the relative covariance factors.

    Parameters
    ----------
    A : CrossProducts
        The blocks.
    reml : bool
        REML criterion or -2 log-likelihood.
    start : sequence of ndarray (k, k), optional
        Lower-triangular factors in the engine's basis; by default a moment estimate.
    control : Control, optional
        Tolerance and limits.
    progress : callable, optional
        Called after every accepted step.
    structures : sequence of CovarianceStructure or None, optional
        One per term; None for a term whose covariance is free.
    """
    if structures is not None and any(structure is not None for structure in structures):
        from mixedeffects.engine.parameterisation import parameterise
        from mixedeffects.engine.structured import find_structured_optimum

        parameterisation = parameterise(A.basis, A.term_columns, structures)
        return find_structured_optimum(
            A, reml, parameterisation, start=start, control=control, progress=progress
        )
    control = control or Control()
    offset = A.basis.deviance_offset(A.n, A.p, reml)
    began = time.perf_counter()
    path: list[float] = []
    evaluations = 0
    last: list[_Point] = []
    sizes = [np.ones(k) for k in A.term_columns]

    def point_at(theta: Matrix) -> _Point | None:
        if last:
            last.pop().make_room()
        try:
            point = _Point(A, theta, reml, sizes)
        except NotPositiveDefiniteError:
            return None
        last.append(point)
        return point if np.isfinite(point.value) else None

    def point_in_units(x: Matrix) -> _Point | None:
        return point_at(x * _theta_sizes(sizes))

    if start is None:
        start = starting_factors(A, reml)
        evaluations += 1
    theta = T_to_theta(list(start))

    def report(iterate: Iterate[_Point]) -> None:
        if path and abs(iterate.point.value - path[-1]) <= 1e-14 * abs(path[-1]):
            return
        path.append(iterate.point.value)
        if progress is not None:
            gradient = float(np.abs(iterate.point.evaluation.gradient).max())
            progress(
                Progress(
                    len(path) - 1,
                    evaluations + iterate.evaluations,
                    iterate.point.value + offset,
                    gradient,
                    time.perf_counter() - began,
                    tuple(lower_factor(T) for T in iterate.point.T),
                )
            )

    iterations = 0
    most = control.max_evaluations - evaluations - 1
    if progress is None and most > 1 and _is_single_term(A):
        # All the way down without coming back for each step; the loop below finds it converged.
        theta, tried, iterations, values = descend_single_term(
            A, reml, theta, control.tolerance, most
        )
        evaluations += tried
        path.extend(values)
    for _restart in range(_MAX_RESTARTS + 1):
        sizes = [_row_sizes(T) for T in theta_to_T(theta, A.term_columns)]
        result = minimise(
            point_in_units,
            theta / _theta_sizes(sizes),
            tolerance=control.tolerance,
            max_evaluations=control.max_evaluations - evaluations,
            radius=math.sqrt(len(theta)),
            report=report,
        )
        evaluations += result.evaluations
        iterations += result.iterations
        point, extra = _snap_to_singular(point_at, result.point)
        evaluations += extra
        null_score, escape = _null_space_score(point)
        if escape is None or evaluations >= control.max_evaluations:
            break
        theta = escape
    T = tuple(lower_factor(t) for t in point.T)
    criteria = tuple(value + offset for value in path)
    return record(
        point.evaluation,
        T,
        gradient=point.evaluation.gradient,
        parameters=T_to_theta(list(point.T)),
        result=result,
        evaluations=evaluations,
        iterations=iterations,
        null_score=null_score,
        path=criteria,
    )


_MAX_RESTARTS = 3


def optimal_factors(
    A: CrossProducts, reml: bool, start: Sequence[Matrix] | None
) -> tuple[list[Matrix], bool]:
    """Where the optimum is and whether it was reached, without the record of `find_optimum`.

    For fits that are repeated thousands of times: one term on one factor goes down in the kernels
    and is not looked at again unless it ends near a singular covariance.
    """
    control = Control()
    if start is not None and _is_single_term(A):
        theta, tried, _, _ = descend_single_term(
            A, reml, T_to_theta(list(start)), control.tolerance, control.max_evaluations
        )
        T = theta_to_T(theta, A.term_columns)
        if tried < control.max_evaluations and _surely_regular(T[0]):
            return T, True
    optimum = find_optimum(A, reml, start=start, control=control)
    return list(optimum.T), optimum.converged


def _is_single_term(A: CrossProducts) -> bool:
    single = len(A.chain) == 1 and not A.rest and len(A.term_columns) == 1
    return single and A.provisional is None


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


def _surely_regular(T: Matrix) -> bool:
    """Whether a bound on the smallest singular value of a triangular T shows it is not singular."""
    size = math.sqrt(float(np.vdot(T, T)))
    determinant = math.prod(np.diag(T).tolist())
    # The product of the other singular values is at most size^(k - 1).
    return size > 0.0 and abs(determinant) > SINGULAR * size ** (len(T) - 1)


def _null_directions(T: Matrix) -> Matrix:
    """Orthonormal basis of the directions in which T T' has no variance, k x (number of them)."""
    if _surely_regular(T):
        return np.empty((len(T), 0))
    left, values, _ = np.linalg.svd(T)
    return left[:, values < SINGULAR]


def has_null_directions(T: Sequence[Matrix]) -> bool:
    """Whether some combination of a term's effects has no variance; T in the engine's basis."""
    return any(_null_directions(factor).shape[1] > 0 for factor in T)


def _snap_to_singular(
    point_at: Callable[[Matrix], _Point | None], point: _Point
) -> tuple[_Point, int]:
    """Put a nearly singular covariance exactly on the boundary, if the deviance agrees."""
    if all(_surely_regular(T) for T in point.T):
        return point, 0
    snapped = []
    for T in point.T:
        left, values, right = np.linalg.svd(T)
        values = np.where(values < SINGULAR, 0.0, values)
        snapped.append(lower_factor((left * values) @ right))
    changed = any(
        np.linalg.matrix_rank(s) < len(s) and np.linalg.svd(T, compute_uv=False)[-1] > 0.0
        for s, T in zip(snapped, point.T, strict=True)
    )
    if not changed:
        return point, 0
    trial = point_at(T_to_theta(snapped))
    slack = 1e-12 * max(1.0, abs(point.value)) + 1e-9
    if trial is not None and trial.value <= point.value + slack:
        return trial, 1
    return point, 1


def _null_space_score(point: _Point) -> tuple[float | None, Matrix | None]:
    """Smallest relative eigenvalue of the score on the null space, and a way out if negative."""
    worst: float | None = None
    escape: list[Matrix] | None = None
    for t, (T, F, CC) in enumerate(
        zip(point.T, point.evaluation.score, point.evaluation.outer_products, strict=True)
    ):
        null = _null_directions(T)
        if null.shape[1] == 0:
            continue
        values, vectors = np.linalg.eigh(null.T @ F @ null)
        size = float(np.linalg.norm(F + CC))
        relative = float(values[0]) / size if size > 0 else 0.0
        if worst is None or relative < worst:
            worst = relative
            if relative < -1e-6:
                direction = null @ vectors[:, 0]
                grown = T @ T.T + 0.01 * np.outer(direction, direction)
                escape = list(point.T)
                escape[t] = lower_factor(_symmetric_root(grown))
    return worst, None if escape is None else T_to_theta(escape)


def _symmetric_root(matrix: Matrix) -> Matrix:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


def record(
    evaluation: Evaluation,
    T: tuple[Matrix, ...],
    *,
    gradient: Matrix,
    parameters: Matrix,
    result: Iterate[Any],
    evaluations: int,
    iterations: int,
    null_score: float | None,
    path: tuple[float, ...],
    parameterisation: Parameterisation | None = None,
    scale: Matrix | None = None,
    residual_vanishes: bool = False,
) -> Optimum:
    """Judge where the search stopped.

    Parameters
    ----------
    evaluation : Evaluation
        There.
    T : tuple of ndarray (k, k)
        Lower-triangular factors.
    gradient, parameters : ndarray, shape (m,)
        What was optimised, and the derivative that must vanish.
    result : Iterate
        How the last search ended.
    evaluations, iterations : int
        In all searches.
    null_score : float or None
        See `Certificate`.
    path : tuple of float
        Criterion at each accepted point.
    parameterisation : Parameterisation, optional
        What the parameters are where some term has a structure.
    scale : ndarray, shape (m,), optional
        Natural size of what the gradient is a derivative in; by default that of the parameters.
    residual_vanishes : bool
        Whether the deviance has its infimum where the residual variance goes to zero.
    """
    value = evaluation.deviance
    scale = np.maximum(np.abs(parameters), 1.0) if scale is None else scale
    relative = float((np.abs(gradient) * scale).max(initial=0.0) / max(abs(value), 1.0))
    singular = has_null_directions(T)
    at_rest = result.stopped != "evaluations" and relative < 1e-5
    interior = null_score is None or null_score > -1e-6
    if result.stopped == "evaluations":
        message = f"stopped after {evaluations} evaluations without converging"
    elif not at_rest:
        message = f"stopped where the relative gradient is still {relative:.1e}"
    elif not interior:
        message = "stopped at a singular covariance although adding variance lowers the deviance"
    else:
        message = f"converged in {evaluations} evaluations"
        message += ", at a singular covariance" if singular else ""
        message += ", where the residual variance goes to zero" if residual_vanishes else ""
    return Optimum(
        evaluations=evaluations,
        iterations=iterations,
        gradient_norm=float(np.abs(gradient).max(initial=0.0)),
        relative_gradient=relative,
        predicted_decrease=result.predicted,
        null_score=null_score,
        singular=singular,
        converged=at_rest and interior,
        message=message,
        path=path,
        T=T,
        evaluation=evaluation,
        parameterisation=parameterisation,
        eta=None if parameterisation is None else parameters,
        residual_vanishes=residual_vanishes,
    )
