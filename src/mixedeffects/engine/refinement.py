"""The optimum where random effects are far larger than the residual error.

There the residual sum of squares is a small difference of large ones. The search is then repeated
with the response less the effects found so far, which are provisional and change no result but the
rounding; see `provisional`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.crossproducts import CrossProducts
from mixedeffects.engine.factorisation import NotPositiveDefiniteError
from mixedeffects.engine.optimum import Optimum

__all__ = ["find_refined_optimum", "residual_share"]

Matrix = NDArray[np.float64]

#: Sums of squares, relative to their difference, from which too many digits are lost.
_LOST = 1e3
#: Relative standard deviations at which effects are found when no search has found any.
_LARGE = 1e4
_MOST_TIMES = 3


def find_refined_optimum(
    A: CrossProducts,
    less_effects: Callable[[CrossProducts, Sequence[Matrix]], CrossProducts],
    start: Sequence[Matrix] | None,
    search: Callable[[CrossProducts, Sequence[Matrix] | None], Optimum],
) -> tuple[CrossProducts, Optimum | None]:
    """Search, and again with provisional effects taken off as long as digits are lost.

    Parameters
    ----------
    A : CrossProducts
        The blocks.
    less_effects : callable
        The blocks less provisional effects at factors of the terms.
    start : sequence of ndarray (k, k), or None
        Where the first search starts.
    search : callable
        The optimum of blocks from a start; raises ArithmeticError where there is none.

    Returns
    -------
    blocks : CrossProducts
        Those of the optimum.
    optimum : Optimum or None
        None if no residual variance is left.
    """
    optimum = _found(search, A, start)
    for _ in range(_MOST_TIMES):
        if optimum is not None:
            if _lost(optimum) < _LOST:
                break
            T = optimum.T
            # Within a structure a singular optimum is a stationary point that no search leaves.
            start = T if optimum.parameterisation is None else optimum.restart
        else:
            T = tuple(_LARGE * np.eye(k) for k in A.term_columns)
            start = None
        try:
            A = less_effects(A, T)
        except NotPositiveDefiniteError:
            return A, None
        earlier, optimum = optimum, _found(search, A, start)
        if earlier is not None and optimum is not None:
            optimum.continues(earlier)
    return A, optimum


def _found(
    search: Callable[[CrossProducts, Sequence[Matrix] | None], Optimum],
    A: CrossProducts,
    start: Sequence[Matrix] | None,
) -> Optimum | None:
    try:
        return search(A, start)
    except ArithmeticError:
        return None


def _lost(optimum: Optimum) -> float:
    """Sum of squares that rho^2 is a difference of, relative to rho^2."""
    evaluation = optimum.evaluation
    square = evaluation.A.remainder.response_square
    if evaluation.A.provisional is not None:
        square = evaluation.factorisation.response_square
    return square / evaluation.rho2


def residual_share(optimum: Optimum) -> float:
    """Residual sum of squares as a share of rho^2, which has that of the effects too."""
    evaluation = optimum.evaluation
    of_effects = sum(
        float(np.vdot(T @ T.T, CC))
        for T, CC in zip(evaluation.T, evaluation.outer_products, strict=True)
    )
    return 1.0 - of_effects / evaluation.df
