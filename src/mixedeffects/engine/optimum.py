"""The optimum of the profiled deviance, with the evidence that it is one.

A search (`search`) goes down from a moment estimate; where evaluations are cheap others go down
from further starts (`further_starts`), and the best is taken. It is accepted as a local optimum on
three conditions, the *certificate*: the gradient vanishes, or nothing is left to gain; where a
covariance is singular, no direction of added variance lowers the deviance; and the observed Hessian
is positive on the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.caching import cached_property
from mixedeffects.base.options import is_whole_number, plain
from mixedeffects.engine.curvature import FLAT, Curvature, observed_curvature
from mixedeffects.engine.found_optimum import (
    SMALL_GRADIENT,
    FoundOptimum,
    is_interior,
    relative_gradient,
    verdict,
)
from mixedeffects.engine.further_starts import LITTLE_RESIDUAL
from mixedeffects.engine.objective import Evaluation
from mixedeffects.engine.residual_curvature import residual_curvature
from mixedeffects.engine.residual_objective import ResidualEvaluation
from mixedeffects.engine.search import (
    LARGE_CORE,
    SINGULAR,
    UNENDED,
    Search,
    has_null_directions,
)
from mixedeffects.engine.threads import one_blas_thread
from mixedeffects.engine.trust_region import Iterate
from mixedeffects.errors import ModelError

if TYPE_CHECKING:
    from mixedeffects.engine.crossproducts import CrossProducts
    from mixedeffects.engine.parameterisation import Parameterisation

__all__ = [
    "LARGE_CORE",
    "SINGULAR",
    "Certificate",
    "Control",
    "Optimum",
    "has_null_directions",
    "record",
]

Matrix = NDArray[np.float64]

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
        Evaluations of objective and gradient before a search gives up. Where evaluations are cheap
        there are several searches, from further starts.
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


@dataclass(frozen=True, repr=False)
class Certificate:
    """Evidence that a fit is a local optimum, and to what accuracy.

    That no other optimum is better is not certified: no computation on the likelihood near a point
    can tell. Small designs are searched from several starts; see `Optimum.starts`.

    Attributes
    ----------
    relative_gradient : float
        Largest ``|g_j| max(|theta_j|, 1)`` over ``max(|d|, 1)``.
    predicted_decrease : float
        How far the deviance is still predicted to fall: the accuracy of the optimum.
    null_score : float or None
        Where a covariance is singular: the smallest eigenvalue of the matrix score on its null
        space, relative to its size. Negative: adding variance there would lower the deviance.
    smallest_curvature : float
        Smallest eigenvalue of the observed Hessian, scaled to unit diagonal, on the directions that
        are not null. Below 1e-4 the deviance is flat there.
    curvature_rounding : float
        What rounding can make of the smallest curvature; it is to be well above that too.
    observed : bool
        Whether the predicted decrease rests on the observed curvature. Then it decides, where the
        gradient is small but cannot be made any smaller.
    limits : tuple of str
        Directions in which the likelihood has no maximum, see `Optimum`.
    """

    relative_gradient: float
    predicted_decrease: float
    null_score: float | None
    smallest_curvature: float
    curvature_rounding: float = 0.0
    observed: bool = False
    limits: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether all three conditions are met, and no parameter goes towards a limit."""
        return (
            not self.limits
            and _is_at_rest(self.relative_gradient, self.predicted_decrease, self.observed)
            and is_interior(self.null_score)
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
        limits = "".join(f". {limit.rstrip('.')}" for limit in self.limits)
        return (
            f"certificate of a local optimum {verdict}: {self.predicted_decrease:.1e} still to go, "
            f"relative gradient {self.relative_gradient:.1e}, {null}, "
            f"smallest curvature {self.smallest_curvature:.2g}{limits}"
        )

    __repr__ = __str__


@dataclass(eq=False, repr=False, kw_only=True)
class Optimum(FoundOptimum):
    """Where the optimiser stopped, and why.

    Attributes
    ----------
    evaluations : int
        Evaluations of objective and gradient, in all searches, the starting value included.
    iterations : int
        Accepted steps of the search that ended here.
    gradient_norm : float
        Largest absolute entry of the gradient in the fitting basis.
    relative_gradient : float
        See `Certificate`.
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
    T : tuple of ndarray, shapes (k, k)
        Relative covariance factor of each term, in the fitting basis.
    evaluation : Evaluation
        Deviance and what was computed with it there.
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
    observed : bool
        Whether the predicted decrease rests on the observed curvature.
    search_evaluations : int
        Evaluations in the search that ended here; the others went into further starts.
    starts, agreed : int
        Starts from which the optimum was searched for, and how many of them led here. There is one
        start where evaluations are not cheap, or ``start=`` was given.
    unbounded : bool
        Whether a search ran off to a residual variance of zero: this one if it did not converge,
        else another, to below this optimum.
    limits : tuple of str
        Of the residuals' covariance, in sentences: parameters that go towards a limit as long as
        the likelihood grows, which has no maximum there, and the limiting model.
    residual : ResidualEvaluation or None
        Where residuals are correlated, or of several variances: their parameters, and the rows.
    """

    evaluation: Evaluation
    residual: ResidualEvaluation | None = None

    @property
    def _blocks(self) -> CrossProducts:
        return self.evaluation.A

    def continues(self, earlier: Optimum) -> None:
        """Say what an earlier search, which led to where this one began, has done."""
        self.evaluations += earlier.evaluations
        self.search_evaluations += earlier.search_evaluations
        self.starts, self.agreed = earlier.starts, earlier.agreed
        self.unbounded = self.unbounded or earlier.unbounded

    @property
    def n_parameters(self) -> int:
        """Number of covariance parameters, those of the residuals included, sigma not counted."""
        own = 0 if self.residual is None else len(self.residual.phi)
        return super().n_parameters + own

    @cached_property
    def curvature(self) -> Curvature:
        """Observed Hessian of the deviance in (theta, sigma).

        Computed when asked for: in designs so large that it is not made of dense matrices it takes
        two or four more evaluations for each variance parameter.
        """
        A = self.evaluation.A
        with one_blas_thread(A.remainder.core_size):
            if self.residual is not None:
                return residual_curvature(self.residual, self.parameterisation, self.eta)
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
            self.observed,
            self.limits,
        )

    def _further_lines(self) -> list[str]:
        return [f"  undetermined {', '.join(self.undetermined)}"] if self.undetermined else []


#: Evaluations after which a search towards no residual variance is taken to have no end.
_LONG = 100
#: Decrease that may be left where the gradient cannot be made smaller.
_SMALL_DECREASE = 1e-6
#: Residual variance, relative to the response's, that is next to nothing.
_NO_RESIDUAL = 1e-12


def _is_at_rest(relative_gradient: float, predicted: float, observed: bool) -> bool:
    """Whether nothing is left to gain."""
    return relative_gradient < SMALL_GRADIENT or (observed and predicted < _SMALL_DECREASE)


def _runs_off(evaluation: Evaluation, relative_gradient: float) -> bool:
    """Whether a search is on its way to effects that reproduce the response.

    There second derivatives are made of rounding and may say that nothing is left to gain.
    """
    A = evaluation.A
    return (
        relative_gradient >= SMALL_GRADIENT
        and evaluation.sigma2 < _NO_RESIDUAL
        and A.p + A.q >= A.n
    )


def record(
    evaluation: Evaluation,
    T: tuple[Matrix, ...],
    *,
    gradient: Matrix,
    parameters: Matrix,
    result: Iterate[Any] | Search,
    evaluations: int,
    iterations: int,
    null_score: float | None,
    path: tuple[float, ...],
    parameterisation: Parameterisation | None = None,
    scale: Matrix | None = None,
    residual_vanishes: bool = False,
    observed: bool = False,
    search_evaluations: int | None = None,
    starts: int = 1,
    agreed: int = 1,
    unbounded: bool = False,
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
    result : Iterate or Search
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
    observed : bool
        Whether what is left to gain is predicted from the observed curvature.
    search_evaluations : int, optional
        In the best search alone; by default all.
    starts, agreed, unbounded
        See `Optimum`.
    """
    own = evaluations if search_evaluations is None else search_evaluations
    endless = result.stopped == "edge" or (result.stopped == "evaluations" and own >= _LONG)
    unbounded |= endless and evaluation.sigma2 < LITTLE_RESIDUAL
    scale = np.maximum(np.abs(parameters), 1.0) if scale is None else scale
    relative = relative_gradient(gradient, scale, evaluation.deviance)
    singular = has_null_directions(T)
    running = _runs_off(evaluation, relative)
    unbounded |= running
    at_rest = (
        not running
        and result.stopped not in UNENDED
        and _is_at_rest(relative, result.predicted, observed)
    )
    interior = is_interior(null_score)
    message = verdict(
        result.stopped,
        spent=evaluations,
        own=own,
        at_rest=at_rest,
        interior=interior,
        relative=relative,
        singular=singular,
        residual_vanishes=residual_vanishes,
    )
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
        search_evaluations=own,
        observed=observed,
        starts=starts,
        agreed=agreed,
        unbounded=unbounded,
    )
