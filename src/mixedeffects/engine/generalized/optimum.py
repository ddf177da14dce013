"""The optimum of a generalized model's criterion, with the evidence that it is one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.caching import cached_property
from mixedeffects.base.options import checked_choice
from mixedeffects.engine.basis import lower_factor
from mixedeffects.engine.covariance_changes import fixed_effects_covariance
from mixedeffects.engine.crossproducts import CrossProducts
from mixedeffects.engine.factorisation import Factorisation, NotPositiveDefiniteError
from mixedeffects.engine.found_optimum import FoundOptimum, is_interior, verdict
from mixedeffects.engine.generalized.accuracy import (
    LaplaceCheck,
    QuadratureCheck,
    laplace_check,
    quadrature_check,
)
from mixedeffects.engine.generalized.design import GeneralizedDesign
from mixedeffects.engine.generalized.further_starts import Elsewhere, is_at_rest, look_elsewhere
from mixedeffects.engine.generalized.joint import JointHessian, joint_hessian
from mixedeffects.engine.generalized.laplace import GeneralizedEvaluation
from mixedeffects.engine.generalized.limits import limits_of
from mixedeffects.engine.generalized.mode import find_mode
from mixedeffects.engine.generalized.quadrature import check_quadrature, evaluate_criterion
from mixedeffects.engine.generalized.search import GeneralizedSearch
from mixedeffects.engine.generalized.space import GeneralizedPoint, Parameters
from mixedeffects.engine.generalized.start import starting_values
from mixedeffects.engine.optimum import Certificate, Control
from mixedeffects.engine.search import has_null_directions
from mixedeffects.engine.telling import Progress, Teller
from mixedeffects.engine.threads import one_blas_thread
from mixedeffects.errors import ModelError

__all__ = ["GeneralizedOptimum", "find_generalized_optimum"]

Matrix = NDArray[np.float64]

#: Smallest difference of a difference that is more than rounding, relative to the Hessian.
_ROUNDING = 1e-9


@dataclass(eq=False, repr=False, kw_only=True)
class GeneralizedOptimum(FoundOptimum):
    """Where the search stopped, and why; names as in `Optimum`.

    Attributes
    ----------
    evaluations : int
        Evaluations of criterion and gradient, and of the two covariances that the start took.
    iterations : int
        Accepted steps.
    factorisations : int
        Of M, in all searches for modes.
    gradient_norm, relative_gradient, predicted_decrease, null_score
        See `Optimum`; parameters are the covariances', beta and phi.
    singular : bool
        Whether some direction of random effects has no variance.
    converged : bool
        Whether the gradient and null-space conditions hold.
    message : str
        The same in words.
    path : tuple of float
        Criterion at each accepted point.
    T : tuple of ndarray, shapes (k, k)
        Covariance factor of each term in the fitting basis, absolute on the scale of eta.
    evaluation : GeneralizedEvaluation
        Criterion there: beta, phi, eta, rows, modes, leverages, working model.
    nagq : int
        Quadrature points per random effect; 1 is Laplace.
    term_names : tuple of str
        What to call the terms.
    parameterisation : Parameterisation or None
        What was optimised where some term has a covariance structure.
    eta : ndarray or None
        Its parameters.
    limits, absurd : tuple of str
        Parameters without a finite estimate, and random effects that are too large to believe an
        approximation of the likelihood there; see `limits_of`.
    """

    factorisations: int
    evaluation: GeneralizedEvaluation
    nagq: int = 1
    residual: None = None
    absurd: tuple[str, ...] = ()

    @property
    def _blocks(self) -> CrossProducts:
        return self.design.skeleton

    @property
    def design(self) -> GeneralizedDesign:
        """The model."""
        return self.evaluation.design

    @property
    def criterion(self) -> float:
        """-2 log L."""
        return self.evaluation.criterion

    @property
    def beta(self) -> Matrix:
        """Fixed effects in the user's columns, shape (p,)."""
        return self.design.basis.beta(self.evaluation.beta)

    @property
    def phi(self) -> float | None:
        """Family parameter on its search scale; None where there is none."""
        return self.evaluation.phi if self.design.family.has_parameter else None

    @cached_property
    def joint(self) -> JointHessian:
        """Hessian of the criterion in covariance parameters, beta and phi.

        Computed when asked for: it takes two evaluations for each parameter.
        """
        with one_blas_thread():
            return joint_hessian(
                self.evaluation.by_level, self.design.parameterisation, self._own_eta
            )

    @property
    def _own_eta(self) -> Matrix:
        return self.design.parameterisation.nearest(self.T) if self.eta is None else self.eta

    @property
    def joint_covariance(self) -> Matrix:
        """``2 H^-1`` in the coordinates of `joint`, null directions left out."""
        return self.joint.covariance

    @property
    def beta_covariance(self) -> Matrix:
        """Covariance matrix of the fixed effects in the user's columns, (p, p)."""
        Q, at = self.design.basis.fixed, self.joint.fixed
        return np.asarray(Q @ self.joint.covariance[at, at] @ Q.T)

    @property
    def conditional_beta_covariance(self) -> Matrix:
        """``(X'V^-1X)^-1`` of the working model, T taken as known, in the user's columns."""
        return fixed_effects_covariance(self.evaluation.factorisation, 1.0)

    @property
    def phi_variance(self) -> float | None:
        """Variance of phi; None where there is none."""
        return float(self.joint.covariance[-1, -1]) if self.phi is not None else None

    @property
    def smallest_curvature(self) -> float:
        """Smallest eigenvalue of the joint Hessian, scaled to unit diagonal."""
        return self.joint.smallest_eigenvalue

    @cached_property
    def certificate(self) -> Certificate:
        """Evidence that this is a local optimum; see `Certificate`."""
        return Certificate(
            self.relative_gradient,
            self.predicted_decrease,
            self.null_score,
            self.smallest_curvature,
            _ROUNDING,
            self.observed,
            self.limits + self.doubts,
        )

    @cached_property
    def doubts(self) -> tuple[str, ...]:
        """Why the optimum of an approximation need be none of the likelihood, in sentences.

        Random effects that are too large, or too few quadrature points. How good Laplace's
        approximation is otherwise stands in `laplace_check`.
        """
        check = None
        if self.nagq > 1 and not self.limits and not self.absurd:
            check = self.quadrature_check
        if check is None or check.holds:
            return self.absurd
        return (f"{self.nagq} quadrature points are too few: {check}",)

    def criterion_at(
        self,
        theta: Sequence[Matrix],
        beta: Matrix,
        phi: float | None = None,
        weights: str = "observed",
    ) -> float:
        """The criterion at other parameters, by quadrature if the optimum is.

        Parameters
        ----------
        theta : sequence of ndarray (k, k)
            Covariance factor of each term in the user's columns.
        beta : ndarray, shape (p,)
            Fixed effects in the user's columns.
        phi : float, optional
            Family parameter on its search scale; by default that of the optimum.
        weights : {"observed", "expected"}
            Which second derivatives stand in log |M|; expected ones are those of other packages,
            and are for Laplace's approximation.

        Raises
        ------
        NotPositiveDefiniteError
            Where there is no criterion.
        ModelError
            If expected weights are asked for with quadrature.
        """
        checked_choice(weights, "weights", ["observed", "expected"])
        if weights == "expected" and self.nagq > 1:
            raise ModelError(
                "weights='expected' changes Laplace's approximation, and this fit is by quadrature "
                f"(nagq={self.nagq}). Take weights='observed', or a fit with nagq=1."
            )
        design = self.design.by_level
        T = [design.basis.engine_factor(t, own) for t, own in enumerate(theta)]
        phi = self.evaluation.phi if phi is None else phi
        own_beta: Matrix = np.linalg.solve(design.basis.fixed, np.asarray(beta)).astype(np.float64)
        with one_blas_thread():
            if self.nagq > 1:
                return evaluate_criterion(
                    design, T, own_beta, phi, nodes=self.nagq, c=self.evaluation.mode.c
                ).criterion
            linear = design.X @ own_beta + design.offset
            mode = find_mode(design, T, linear, phi, self.evaluation.mode.c)
            factorisation = mode.factorisation
            if weights == "expected":
                W = design.expected_weights(mode.eta, phi)
                factorisation = Factorisation(design.products(W), T)
        return mode.f + factorisation.logdet_random

    @cached_property
    def laplace_check(self) -> LaplaceCheck | None:
        """Laplace's criterion beside quadrature at the optimum; None with several factors."""
        with one_blas_thread():
            return laplace_check(
                self.evaluation.by_level, self.design.parameterisation, self._own_eta
            )

    @cached_property
    def quadrature_check(self) -> QuadratureCheck | None:
        """A finer rule beside that of the fit; None where there is none."""
        with one_blas_thread():
            return quadrature_check(
                self.evaluation.by_level, self.design.parameterisation, self._own_eta
            )

    def _further_lines(self) -> list[str]:
        return [f"  too far out  {sentence}" for sentence in self.absurd]


def find_generalized_optimum(
    design: GeneralizedDesign,
    *,
    nagq: int = 1,
    start: Mapping[str, Any] | None = None,
    control: Control | None = None,
    progress: Callable[[Progress], None] | None = None,
    term_names: Sequence[str] = (),
) -> GeneralizedOptimum:
    """Minimise the criterion over covariances, fixed effects and the family parameter.

    Parameters
    ----------
    design : GeneralizedDesign
        The model.
    nagq : int
        Quadrature points per random effect; 1 is Laplace.
    start : mapping, optional
        Where to start: ``"T"``, factors per term in the engine's basis, ``"beta"`` in the user's
        columns, ``"phi"`` on its search scale, each as far as given; the others are estimated.
    control : Control, optional
        Tolerance and limits.
    progress : callable, optional
        Called after every accepted step.
    term_names : sequence of str, optional
        What to call the terms.

    Raises
    ------
    NotPositiveDefiniteError
        Where the criterion does not exist at the start.
    ModelError
        If quadrature with so many points is not for the model; see `check_quadrature`.
    """
    check_quadrature(design, nagq)
    # However small the random effects: X'WX of many columns is made by BLAS at every step.
    with one_blas_thread():
        elsewhere, spent = _found(design, nagq, dict(start or {}), control or Control(), progress)
        return _record(design, elsewhere, spent, nagq, term_names)


def _found(
    design: GeneralizedDesign,
    nagq: int,
    given: dict[str, Any],
    control: Control,
    progress: Callable[[Progress], None] | None,
) -> tuple[Elsewhere, int]:
    """The best search, where it ended, and the evaluations of the start."""
    spent, steps, lowest, teller = 0, 0, math.inf, Teller(progress)
    design = design.by_level

    def report(point: GeneralizedPoint, evaluations: int) -> None:
        nonlocal steps, lowest
        if point.value > lowest:
            return
        lowest = point.value
        teller.tell(steps, spent + evaluations, point.value, point.gradient, point.evaluation.T)
        steps += 1

    c = alone = None
    if {"T", "beta"} <= set(given) and ("phi" in given or not design.family.has_parameter):
        T, beta, phi = given["T"], given["beta"], given.get("phi", 0.0)
        beta = np.linalg.solve(design.basis.fixed, np.asarray(beta, dtype=np.float64))
    else:
        started = starting_values(design)
        spent += started.evaluations
        T, beta, phi, c = started.T, started.beta, started.phi, started.c
        alone = started.alone
        T, phi = given.get("T", T), given.get("phi", phi)
        if "beta" in given:
            beta = np.linalg.solve(design.basis.fixed, np.asarray(given["beta"]))

    def begin() -> GeneralizedSearch:
        heard = None if progress is None else report
        return GeneralizedSearch(design, control.tolerance, control.max_evaluations, heard, nagq)

    search = begin()
    eta = design.parameterisation.nearest(T)
    at = Parameters(eta, np.asarray(beta), float(phi))
    if alone is None:
        return Elsewhere(search, search.descend(at, c), 0, 1, 1), spent
    try:
        found = search.descend(at, c)
    except NotPositiveDefiniteError:
        # Fixed effects that have means only together with the random effects of the start.
        spent += search.evaluations
        search = begin()
        found = search.descend(Parameters(eta, *alone))
    return look_elsewhere(search, found, alone, begin), spent


def _record(
    design: GeneralizedDesign,
    elsewhere: Elsewhere,
    spent: int,
    nagq: int,
    names: Sequence[str],
) -> GeneralizedOptimum:
    search, found = elsewhere.search, elsewhere.found
    point, relative = found.point, found.relative_gradient
    evaluation = point.evaluation.as_given(design)
    gradient = point.gradient
    T = tuple(lower_factor(factor) for factor in evaluation.T)
    singular = has_null_directions(T)
    interior = is_interior(found.null_score)
    at_rest = is_at_rest(found)
    evaluations = search.evaluations + elsewhere.evaluations + spent
    message = verdict(
        found.stopped,
        spent=evaluations,
        own=evaluations,
        at_rest=at_rest,
        interior=interior,
        relative=relative,
        singular=singular,
    )
    path = search.path if search.path[-1] == point.value else [*search.path, point.value]
    own = design.parameterisation
    limits, absurd = limits_of(evaluation, names)
    return GeneralizedOptimum(
        evaluations=evaluations,
        iterations=search.iterations,
        factorisations=search.factorisations,
        gradient_norm=float(np.abs(gradient).max(initial=0.0)),
        relative_gradient=relative,
        predicted_decrease=found.predicted,
        null_score=found.null_score,
        singular=singular,
        converged=at_rest and interior and math.isfinite(point.value),
        message=message,
        path=tuple(path),
        T=T,
        evaluation=evaluation,
        nagq=nagq,
        parameterisation=own if design.is_structured else None,
        eta=own.canonical(point.at.eta) if design.is_structured else None,
        search_evaluations=search.evaluations,
        starts=elsewhere.starts,
        agreed=elsewhere.agreed,
        limits=limits,
        absurd=absurd,
        term_names=tuple(names),
    )
