"""How far an approximation of the likelihood moves the estimates.

At the optimum of the Laplace criterion, or of a sum by quadrature, the gradient of a finer rule is
not zero. With H the joint Hessian, one Newton step ``-H^-1 g`` says where the finer rule has its
optimum, and in units of the standard errors, ``sqrt(diag(2 H^-1))``, how much that matters. The
shift of -2 log L itself does not say: of many levels each adds its own, most of it the same
wherever the parameters are.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.factorisation import NotPositiveDefiniteError
from mixedeffects.engine.generalized.design import GeneralizedDesign
from mixedeffects.engine.generalized.joint import JointHessian, joint_hessian
from mixedeffects.engine.generalized.laplace import GeneralizedEvaluation, evaluate_laplace
from mixedeffects.engine.generalized.quadrature import (
    MOST_EFFECTS,
    adaptive_quadrature,
    most_nodes,
)
from mixedeffects.engine.parameterisation import Parameterisation

__all__ = ["LaplaceCheck", "QuadratureCheck", "laplace_check", "quadrature_check"]

Matrix = NDArray[np.float64]

#: Numbers of points that the checks compare; the largest allowed one comes last.
_CHECKS = (9, 15, 25, 51)
#: Values of rows that a check may take beyond those of its first rule.
_WORK = 30_000_000
#: Standard errors by which estimates may move, and by which they may between two finer rules. A
#: quarter lowers the coverage of an interval of 95 % to 94.3 %.
_MOVE, _STILL = 0.25, 0.05
#: The same of -2 log L, where there are no standard errors.
_SHIFT, _STILL_SHIFT = 0.5, 0.05


@dataclass(frozen=True, repr=False)
class QuadratureCheck:
    """The criterion of a fit beside that of quadrature with more points, at the same parameters.

    With levels of successes only or failures only and a large variance, few points can be far off,
    and an optimum by them no optimum of the likelihood.

    Attributes
    ----------
    nagq, nodes : int
        Points per random effect of the fit, and of the finer rule.
    criterion, quadrature : float
        -2 log L by each.
    move : float
        How far an estimate would move by the finer rule, in its standard errors, to first order:
        the largest of all fixed effects, covariance parameters and that of the family. NaN where
        there are no standard errors.
    recommended : int or None
        A number of points that is enough at these parameters; None where none is that was tried.
    shift : float
        -2 log L by the finer rule less that of the fit.
    holds : bool
        Whether no estimate would move by more than a quarter of its standard error.
    """

    nagq: int
    nodes: int
    criterion: float
    quadrature: float
    move: float
    recommended: int | None

    @property
    def shift(self) -> float:
        """-2 log L by the finer rule less that of the fit."""
        return self.quadrature - self.criterion

    @property
    def holds(self) -> bool:
        """Whether the estimates are near enough to those by the finer rule."""
        return _is_little(self.move, self.shift, _MOVE, _SHIFT)

    def __repr__(self) -> str:
        moved = "" if np.isnan(self.move) else f" and estimates by {self._standard_errors}"
        return (
            f"{self.nodes}-point quadrature changes -2 log L by {self.shift:+.2g}{moved}: "
            f"{self._verdict}"
        )

    @property
    def _standard_errors(self) -> str:
        return f"{self.move:.2g} standard error{'' if self.move <= 1.0 else 's'}"

    @property
    def _verdict(self) -> str:
        if self.holds:
            return self._good
        if self.recommended is None:
            return (
                "no number of points settles it, as where levels have successes only or failures "
                "only and the variance runs off"
            )
        return f"fit with nagq={self.recommended}"

    @property
    def _good(self) -> str:
        return f"{self.nagq} points are enough"


@dataclass(frozen=True, repr=False)
class LaplaceCheck(QuadratureCheck):
    """Laplace's criterion beside that of quadrature, at the same parameters.

    Laplace's approximation takes the density of a level's random effects given its rows for
    normal, which with few rows of yes or no it is not. How far the estimates would move says how
    much that matters; from a quarter of a standard error on, fit with more points.

    Attributes are those of `QuadratureCheck`, and ``laplace``, the criterion by Laplace.
    """

    @property
    def laplace(self) -> float:
        """-2 log L by Laplace's approximation."""
        return self.criterion

    @property
    def _good(self) -> str:
        return "Laplace's approximation holds"


def laplace_check(
    evaluation: GeneralizedEvaluation, parameterisation: Parameterisation, eta: Matrix
) -> LaplaceCheck | None:
    """How far Laplace's approximation is from the likelihood, at one set of parameters.

    Parameters
    ----------
    evaluation : GeneralizedEvaluation
        The optimum by Laplace's approximation.
    parameterisation : Parameterisation
        The covariance parameters.
    eta : ndarray
        Their values.

    Returns
    -------
    LaplaceCheck or None
        None where quadrature is not for the model.
    """
    rules = _rules(evaluation.design)
    if not rules:
        return None
    return LaplaceCheck(*_compared(_Optimum(evaluation, parameterisation, eta), rules))


def quadrature_check(
    evaluation: GeneralizedEvaluation, parameterisation: Parameterisation, eta: Matrix
) -> QuadratureCheck | None:
    """How far a fit by quadrature is from one with more points.

    Parameters
    ----------
    evaluation, parameterisation, eta
        The optimum by quadrature; see `laplace_check`.

    Returns
    -------
    QuadratureCheck or None
        None where no finer rule is allowed.
    """
    rules = [rule for rule in _rules(evaluation.design) if rule > evaluation.nodes]
    if not rules:
        return None
    # Rules that are near each other can agree on what both are wrong about.
    rules = [rule for rule in rules if rule >= 2.5 * evaluation.nodes] or rules[-1:]
    return QuadratureCheck(*_compared(_Optimum(evaluation, parameterisation, eta), rules))


class _Optimum:
    """Estimates with the curvature there: how far from them a rule has its own."""

    def __init__(
        self, evaluation: GeneralizedEvaluation, parameterisation: Parameterisation, eta: Matrix
    ) -> None:
        self.evaluation, self.parameterisation, self.eta = evaluation, parameterisation, eta
        self.joint = _curvature(evaluation, parameterisation, eta)

    def by(self, finer: GeneralizedEvaluation) -> _Optimum:
        """With the curvature of another rule, if it has one."""
        other = copy.copy(self)
        joint = joint_hessian(finer, self.parameterisation, self.eta)
        if np.isfinite(joint.covariance).all():
            other.joint = joint
        return other

    def move(self, a: GeneralizedEvaluation, b: GeneralizedEvaluation) -> float:
        """Standard errors between the optima of two rules, the largest of all parameters."""
        if self.joint is None:
            return float("nan")
        joint, Q = self.joint, self.evaluation.design.basis.fixed
        difference = b.beta_gradient - a.beta_gradient, b.phi_gradient - a.phi_gradient
        of_sigma = sum(
            (
                np.einsum("rab,ab->r", D, to - at)
                for D, at, to in zip(joint.directions, a.score, b.score, strict=True)
            ),
            start=np.zeros(joint.n_covariance),
        )
        tail = [difference[1]] * self.evaluation.design.family.has_parameter
        C = joint.covariance
        step = -0.5 * (C @ np.concatenate([of_sigma, difference[0], tail]))
        size = np.sqrt(np.diag(C))
        step[joint.fixed] = Q @ step[joint.fixed]
        size[joint.fixed] = np.sqrt(np.diag(Q @ C[joint.fixed, joint.fixed] @ Q.T))
        return float(np.abs(step / size).max(initial=0.0))


def _curvature(
    evaluation: GeneralizedEvaluation, parameterisation: Parameterisation, eta: Matrix
) -> JointHessian | None:
    """That of Laplace's criterion, which is exact and costs little; None where it is no Hessian."""
    try:
        if evaluation.nodes > 1:
            evaluation = evaluate_laplace(
                evaluation.design, evaluation.T, evaluation.beta, evaluation.phi, near=evaluation
            )
        joint = joint_hessian(evaluation, parameterisation, eta)
    except (NotPositiveDefiniteError, np.linalg.LinAlgError):
        return None
    return joint if np.isfinite(joint.covariance).all() else None


def _compared(
    optimum: _Optimum, rules: Sequence[int]
) -> tuple[int, int, float, float, float, int | None]:
    """The attributes of a check."""
    own = optimum.evaluation
    finer = adaptive_quadrature(own, rules[0])
    move = optimum.move(own, finer)
    enough: int | None = own.nodes
    if not _is_little(move, finer.criterion - own.criterion, _MOVE, _SHIFT):
        # So far off the finer rule has a curvature of its own.
        optimum = optimum.by(finer)
        move = optimum.move(own, finer)
        enough = _enough(optimum, rules, finer)
    return own.nodes, rules[0], own.criterion, finer.criterion, move, enough


def _rules(design: GeneralizedDesign) -> list[int]:
    """Numbers of points to compare with, fewest first; none where quadrature is not for it."""
    factors = design.skeleton.factors
    if len(factors) > 1 or factors[0].k > MOST_EFFECTS:
        return []
    k = factors[0].k
    most = most_nodes(k)
    rules = [*(nodes for nodes in _CHECKS if nodes < most), most]
    return [rule for rule in rules if rule == rules[0] or design.n * rule**k <= _WORK]


def _enough(optimum: _Optimum, rules: Sequence[int], at: GeneralizedEvaluation) -> int | None:
    """The fewest points, of these rules, that more do not change much."""
    for rule, finer in pairwise(rules):
        there = adaptive_quadrature(optimum.evaluation, finer)
        shift = there.criterion - at.criterion
        if _is_little(optimum.move(at, there), shift, _STILL, _STILL_SHIFT):
            return rule
        at = there
    return None


def _is_little(move: float, shift: float, most: float, most_shift: float) -> bool:
    return abs(shift) <= most_shift if np.isnan(move) else move <= most
