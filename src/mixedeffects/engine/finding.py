"""The optimum of a criterion, searched for from one start or several."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.crossproducts import CrossProducts
from mixedeffects.engine.further_starts import (
    LITTLE_RESIDUAL,
    descend_with_few_effects,
    has_few_effects,
    look_elsewhere,
)
from mixedeffects.engine.objective import Evaluation
from mixedeffects.engine.optimum import Control, Optimum, record
from mixedeffects.engine.parameterisation import parameterise
from mixedeffects.engine.parameters import T_to_theta, theta_to_T
from mixedeffects.engine.search import (
    LARGE_DEVIATION,
    descend_single_term,
    is_single_term,
    search,
    surely_regular,
)
from mixedeffects.engine.start import starting_factors
from mixedeffects.engine.structured import find_structured_optimum
from mixedeffects.engine.structures import CovarianceStructure
from mixedeffects.engine.telling import Progress, Teller

__all__ = ["find_optimum", "optimal_factors"]

Matrix = NDArray[np.float64]


def find_optimum(
    A: CrossProducts,
    reml: bool,
    *,
    start: Sequence[Matrix] | None = None,
    control: Control | None = None,
    progress: Callable[[Progress], None] | None = None,
    structures: Sequence[CovarianceStructure | None] | None = None,
    further: bool = True,
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
    further : bool
        Whether to search from further starts too, where these are cheap.
    """
    if structures is not None and any(structure is not None for structure in structures):
        parameterisation = parameterise(A.basis, A.term_columns, structures)
        return find_structured_optimum(
            A, reml, parameterisation, start=start, control=control, progress=progress
        )
    control = control or Control()
    offset = A.basis.deviance_offset(A.n, A.p, reml)
    teller = Teller(progress, offset)
    lowest, steps, spent = math.inf, 0, 0

    def report(here: Evaluation, evaluations: int) -> None:
        nonlocal lowest, steps
        if not teller.is_heard or here.deviance >= lowest:
            return
        lowest = here.deviance
        gradient = T_to_theta(here.gradient_T)
        teller.tell(steps, spent + evaluations, lowest, gradient, here.T)
        steps += 1

    if start is None:
        start = starting_factors(A, reml)
        spent += 1
    best = search(
        A,
        reml,
        start,
        tolerance=control.tolerance,
        max_evaluations=control.max_evaluations - spent,
        report=None if progress is None else report,
    )
    spent += best.evaluations
    own, starts, agreed, unbounded = spent, 1, 1, False
    if further and (best.ended or best.evaluation.sigma2 < LITTLE_RESIDUAL):
        elsewhere = look_elsewhere(
            A,
            reml,
            best,
            tolerance=control.tolerance,
            max_evaluations=control.max_evaluations,
            report=None if progress is None else report,
        )
        if elsewhere.best is not best:
            best, own, agreed = elsewhere.best, elsewhere.best.evaluations, 0
        spent += elsewhere.evaluations
        starts, agreed = starts + elsewhere.starts, agreed + elsewhere.agreed
        unbounded = elsewhere.unbounded
    return record(
        best.evaluation,
        best.T,
        gradient=best.evaluation.gradient,
        parameters=T_to_theta(best.evaluation.T),
        result=best,
        observed=best.observed,
        evaluations=spent,
        iterations=best.iterations,
        null_score=best.null_score,
        path=tuple(value + offset for value in best.path),
        search_evaluations=own,
        starts=starts,
        agreed=agreed,
        unbounded=unbounded,
    )


#: Evaluations after which a descent is not a quick one.
_QUICK = 30


def _is_near(T: Matrix) -> bool:
    """Whether standard deviations are no larger than dense matrices keep the digits of."""
    return bool(np.abs(T).max() < LARGE_DEVIATION)


def optimal_factors(
    A: CrossProducts, reml: bool, start: Sequence[Matrix] | None, further: bool = True
) -> tuple[list[Matrix], bool]:
    """Where the optimum is and whether it was reached, without the record of `find_optimum`.

    For fits that are repeated thousands of times: one term on one factor, or few random effects on
    several, go down in the kernels and are not looked at again unless they end near a singular
    covariance, far out, or take long. With ``further``, and where it is cheap, other starts are
    tried too.
    """
    control = Control()
    if start is not None and is_single_term(A) and not further:
        theta, tried, _, _ = descend_single_term(
            A, reml, T_to_theta(list(start)), control.tolerance, _QUICK
        )
        T = theta_to_T(theta, A.term_columns)
        if tried < _QUICK and surely_regular(T[0]):
            return T, True
    elif start is not None and has_few_effects(A) and not further:
        settled = descend_with_few_effects(A, reml, start, control.tolerance, _QUICK)
        if settled is not None and all(surely_regular(T) and _is_near(T) for T in settled):
            return settled, True
    optimum = find_optimum(A, reml, start=start, control=control, further=further)
    return list(optimum.T), optimum.converged
