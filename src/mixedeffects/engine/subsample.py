"""A start for models whose every evaluation is expensive: the fit to rows that make it cheap.

Pupils who change school are few, but they join all schools to one large dense block. Without the
rows in which a level of the largest factor strays from its usual level of another factor, the first
is nested in the second, every evaluation costs next to nothing, and the optimum is close by.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.assembly import make_crossproducts
from mixedeffects.engine.basis import lower_factor
from mixedeffects.engine.crossproducts import CrossProducts, EngineTerm
from mixedeffects.engine.finding import find_optimum
from mixedeffects.engine.structures import CovarianceStructure

__all__ = ["nearly_nested_rows", "subsample_start"]

Matrix = NDArray[np.float64]

#: Rows of the dense core from which a cheaper start pays for itself.
_LARGE_CORE = 5_000
#: Share of rows that must be left.
_ENOUGH = 0.7
#: How much smaller the dense core must become.
_CHEAPER = 0.5
#: Smallest relative standard deviation to start from: zero would be a stationary point.
_FLOOR = 0.05


def nearly_nested_rows(terms: Sequence[EngineTerm]) -> NDArray[np.bool_] | None:
    """Rows in which the largest factor's levels are with their usual level of another factor.

    Parameters
    ----------
    terms : sequence of EngineTerm
        Random-effects terms.

    Returns
    -------
    ndarray of bool, shape (n,), or None
        For the factor that keeps most rows, if it is enough of them and not all.
    """
    largest = max(terms, key=lambda term: term.n_levels * term.z.shape[1])
    best = None
    for other in {t.grouping: t for t in terms if t.grouping != largest.grouping}.values():
        pair = largest.codes.astype(np.int64) * other.n_levels + other.codes
        found, which, counts = np.unique(pair, return_inverse=True, return_counts=True)
        level = found // other.n_levels
        # The last of a level's pairs in order of their counts is its usual one.
        order = np.lexsort((counts, level))
        last = np.append(np.diff(level[order]) > 0, True)
        usual = np.zeros(len(found), dtype=np.bool_)
        usual[order[last]] = True
        rows = usual[which]
        share = rows.mean()
        if _ENOUGH <= share < 1.0 and (best is None or share > best.mean()):
            best = rows
    return best


def subsample_start(
    A: CrossProducts,
    y: Matrix,
    X: Matrix,
    terms: Sequence[EngineTerm],
    weights: Matrix | None,
    reml: bool,
    structures: Sequence[CovarianceStructure | None] | None = None,
) -> list[Matrix] | None:
    """Relative covariance factors in A's basis, or None where there is nothing to gain.

    Parameters
    ----------
    A : CrossProducts
        The blocks of all rows.
    y, X, terms, weights
        What they were made of.
    reml : bool
        Which criterion.
    structures : sequence of CovarianceStructure or None, optional
        As for `find_optimum`.
    """
    if A.remainder.core_size < _LARGE_CORE:
        return None
    rows = nearly_nested_rows(terms)
    if rows is None:
        return None
    kept = [_take(term, rows) for term in terms]
    try:
        w = None if weights is None else weights[rows]
        part = make_crossproducts(y[rows], np.ascontiguousarray(X[rows]), kept, w)
        if part.remainder.core_size > _CHEAPER * A.remainder.core_size:
            return None
        optimum = find_optimum(part, reml, structures=structures, further=False)
    except (ArithmeticError, MemoryError, np.linalg.LinAlgError):
        return None
    start = []
    for t, T in enumerate(optimum.T):
        user = part.basis.relative_factor(t, T)
        left, values, right = np.linalg.svd(A.basis.engine_factor(t, user))
        start.append(lower_factor((left * np.maximum(values, _FLOOR)) @ right))
    return start if all(np.isfinite(T).all() for T in start) else None


def _take(term: EngineTerm, rows: NDArray[np.bool_]) -> EngineTerm:
    """The term in some rows, its levels without rows left out."""
    used, codes = np.unique(term.codes[rows], return_inverse=True)
    z = np.ascontiguousarray(term.z[rows])
    return EngineTerm(codes.astype(np.int32), len(used), z, term.grouping)
