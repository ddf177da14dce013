"""Searches from further starts, where they cost next to nothing.

The deviance of a small design can have several minima: variance that one term or another can take,
or residual and random effects between them. Where evaluations are cheap enough for the kernels to
do many, they go down from starts of many kinds, in a fixed order; whatever may end lower than the
best so far is searched to the end, and the best wins. If there are many rows, the first few starts
all lead to one optimum, and no covariance of several columns is singular there, nothing speaks for
another, and the rest are left. With one term, many rows and levels, an optimum that is not singular
is the only one: of 3,452 such designs, generated, none had a better one elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedeffects import _kernels
from mixedeffects.engine.basis import lower_factor
from mixedeffects.engine.crossproducts import CrossProducts
from mixedeffects.engine.objective import Evaluation
from mixedeffects.engine.parameters import T_to_theta, lower_entries, theta_to_T
from mixedeffects.engine.remainder import DenseRemainder
from mixedeffects.engine.search import Report, Search, is_single_term, search

__all__ = [
    "LITTLE_RESIDUAL",
    "Elsewhere",
    "affordable_starts",
    "descend_with_few_effects",
    "further_starts",
    "has_few_effects",
    "look_elsewhere",
]

Matrix = NDArray[np.float64]

#: Operations that further starts may take in all: a tenth of a second or two.
_AFFORDABLE = 3e8
#: Evaluations that a start takes, about, and may take before it is left.
_USUAL, _MOST = 10, 40
#: Random effects that are few enough for dense matrices.
_FEW = 100
#: Starts that must agree, and starts in all where they do not.
_FEWEST, _MOST_STARTS = 8, 40
#: Rows from which the first starts can be trusted to see a second optimum.
_MANY_ROWS = 100
#: Levels from which, with as many rows, an optimum that is not singular is the only one.
_MANY_LEVELS = 10
#: Deviances this close are one optimum.
_SAME = 1e-6
#: A search that has not settled no further above the best may still end below it.
_NEAR = 20.0
#: How many searches are finished at the most: the fewer, the more parameters.
_FINISHED = 200
#: Residual variance, relative to the response's, below which a search has run away.
_NO_RESIDUAL = 1e-9
#: The same for one that has used up its evaluations.
LITTLE_RESIDUAL = 1e-6
#: Rounding of a sum of squares relative to that of a number.
_AT_MOST = 10.0


@dataclass(frozen=True, eq=False)
class Elsewhere:
    """What came of further starts.

    Attributes
    ----------
    best : Search
        The best search, the first one included.
    evaluations : int
        Evaluations in all further searches.
    starts, agreed : int
        Further starts, and how many of them led to the deviance of the best.
    unbounded : bool
        Whether some search ran off to a residual variance of zero, below every optimum.
    """

    best: Search
    evaluations: int
    starts: int
    agreed: int
    unbounded: bool


def look_elsewhere(
    A: CrossProducts,
    reml: bool,
    first: Search,
    *,
    tolerance: float,
    max_evaluations: int,
    report: Report | None = None,
) -> Elsewhere:
    """Search from further starts, as far as they are cheap.

    Parameters
    ----------
    A : CrossProducts
        The blocks.
    reml : bool
        Which criterion.
    first : Search
        The search from the usual start.
    tolerance, max_evaluations, report
        As for `search`, for each search.
    """
    best, evaluations, unbounded = first, 0, False
    count = 0 if _needs_no_other(A, first) else affordable_starts(A)
    if not count:
        return Elsewhere(first, 0, 0, 0, False)
    starts = further_starts(A, first.T, count)
    # A first search without an end is beaten by any that has one.
    lowest = first.deviance if first.ended else math.inf
    values = np.empty(0)
    for stage in (starts[:_FEWEST], starts[_FEWEST:]):
        if not len(stage):
            break
        most = min(_MOST, max_evaluations)
        ends, ended, settled, used = _descend(A, reml, stage, tolerance, most)
        evaluations += used
        done: list[float] = []
        endless = 0
        # What has settled first: of what has not, some runs off without end.
        for s in np.lexsort((ended, np.logical_not(settled))):
            value = float(ended[s])
            above = value - lowest
            near = _SAME if settled[s] else _NEAR
            if not (above < near and math.isfinite(value)):
                continue
            if endless > 1 or len(done) * starts.shape[1] >= _FINISHED:
                break
            if abs(above) < _SAME or any(abs(value - each) < _SAME for each in done):
                continue
            done.append(value)
            T = theta_to_T(ends[s], A.term_columns)
            found = search(
                A, reml, T, tolerance=tolerance, max_evaluations=max_evaluations, report=report
            )
            evaluations += found.evaluations
            ended[s] = found.deviance
            if _ran_away(found, first):
                endless += 1
                unbounded |= found.deviance < lowest - _SAME - _rounding(best.evaluation)
            elif found.ended and found.deviance < lowest:
                best, lowest = found, found.deviance
        values = np.append(values, ended)
        agree = settled.all() and (np.abs(values - lowest) < _SAME).all()
        if agree and A.n >= _MANY_ROWS and not _may_turn(best):
            break
    agreed = int((np.abs(values - best.deviance) < _SAME).sum())
    return Elsewhere(best, evaluations, len(values), agreed, unbounded)


def _ran_away(found: Search, first: Search) -> bool:
    """Whether the residual variance went to zero, though there is an optimum where it does not."""
    sigma2 = found.evaluation.sigma2
    endless = not found.ended and sigma2 < LITTLE_RESIDUAL
    return endless or sigma2 < _NO_RESIDUAL < LITTLE_RESIDUAL < first.evaluation.sigma2


def _rounding(here: Evaluation) -> float:
    """Of the deviance, at the most: of rho^2, a difference of sums of squares.

    Where effects are so large that little else is left of it, what lies below says nothing: the
    search is repeated with provisional effects.
    """
    lost = here.A.remainder.response_square / here.rho2
    return _AT_MOST * float(np.finfo(np.float64).eps) * here.df * lost


def _needs_no_other(A: CrossProducts, first: Search) -> bool:
    """Whether one search is enough: one term, many rows and levels, and an optimum well inside."""
    return (
        is_single_term(A)
        and A.n >= _MANY_ROWS
        and A.chain[0].n_levels >= _MANY_LEVELS
        and first.ended
        and first.null_score is None
    )


def _may_turn(found: Search) -> bool:
    """Whether some covariance is singular in one of several directions: it may be the wrong one."""
    return found.null_score is not None and any(len(T) > 1 for T in found.T)


def affordable_starts(A: CrossProducts) -> int:
    """How many further starts the size of a model allows; by predicted work."""
    if A.provisional is not None:
        return 0
    if is_single_term(A):
        (factor,) = A.chain
        k, width = factor.k, A.p + 1
        m = k * (k + 1) // 2
        work = factor.n_levels * k * (width * (k + width) + 4.0 * k * k + m * m)
    elif has_few_effects(A):
        m, width = sum(k * (k + 1) // 2 for k in A.term_columns), A.q + A.p + 1
        work = A.q * (2.0 * A.q * width + width * width) + A.q * m * (A.q + m)
    else:
        return 0
    # The steps themselves: a few small decompositions.
    work += 60.0 * m**3
    starts = min(int(_AFFORDABLE / (_USUAL * work)), _MOST_STARTS)
    return starts if starts >= _FEWEST else 0


def has_few_effects(A: CrossProducts) -> bool:
    """Whether the kernels can search with all random effects in one dense matrix."""
    return A.provisional is None and not is_single_term(A) and A.q <= _FEW


def descend_with_few_effects(
    A: CrossProducts, reml: bool, start: Sequence[Matrix], tolerance: float, most: int
) -> list[Matrix] | None:
    """Where a descent in the kernels settled, if `has_few_effects`; None where it did not.

    Parameters
    ----------
    A, reml, start, tolerance
        As for `search`.
    most : int
        Evaluations after which it has not.
    """
    theta = T_to_theta(list(start))[None]
    ends, _, settled, _ = _descend(A, reml, theta, tolerance, most)
    return theta_to_T(ends[0], A.term_columns) if settled[0] else None


def further_starts(A: CrossProducts, end: Sequence[Matrix], count: int) -> Matrix:
    """Starts by falling usefulness, one row of theta each, the same each time.

    Parameters
    ----------
    A : CrossProducts
        The blocks.
    end : sequence of ndarray (k, k)
        Where the first search ended.
    count : int
        How many.
    """
    sizes = A.term_columns
    identity = [np.eye(k) for k in sizes]

    def scaled(*scales: float) -> list[Matrix]:
        return [s * each for s, each in zip(scales, identity, strict=True)]

    n = len(sizes)
    starts = [scaled(*[10.0] * n)]
    starts.append([lower_factor(A.basis.engine_factor(t, each)) for t, each in enumerate(identity)])
    starts += [_pushed_out(end, 3.0), scaled(*[30.0] * n), scaled(*[0.1] * n)]
    for sign in (1.0, -1.0) if max(sizes) > 1 else ():
        # All columns of a term go together, or take turns.
        along = [sign ** np.arange(k) for k in sizes]
        starts.append(
            [
                lower_factor(np.column_stack([3.0 * a, 0.3 * e]))
                for a, e in zip(along, identity, strict=True)
            ]
        )
    for t in range(n if n > 1 else 0):
        starts.append(scaled(*(5.0 if t == u else 0.1 for u in range(n))))
    starts.append(_pushed_out(end, 0.3))
    for t, k in enumerate(sizes):
        for j in range(k if k > 1 else 0):
            one = np.full(k, 0.1)
            one[j] = 3.0
            starts.append([np.diag(one) if t == u else 0.3 * e for u, e in enumerate(identity)])
    random = np.random.default_rng(0)
    while len(starts) < count:
        scale = (3.0, 0.3, 10.0, 1.0)[len(starts) % 4]
        starts.append([np.tril(scale * random.normal(size=(k, k))) for k in sizes])
    return np.array([T_to_theta(each) for each in starts[:count]])


def _pushed_out(T: Sequence[Matrix], least: float) -> list[Matrix]:
    """The same covariances with no standard deviation below the least."""
    out = []
    for factor in T:
        left, values, _ = np.linalg.svd(factor)
        out.append(lower_factor(left * np.maximum(values, least)))
    return out


def _descend(
    A: CrossProducts, reml: bool, starts: Matrix, tolerance: float, most: int
) -> tuple[Matrix, Matrix, NDArray[np.bool_], int]:
    df = A.n - A.p if reml else A.n
    options = (reml, df, A.sum_log_weights, tolerance, most)
    if is_single_term(A):
        (factor,) = A.chain
        assert isinstance(A.remainder, DenseRemainder)
        ends, values, settled, evaluations = _kernels.descend_single_factor_from_each(
            starts, factor.diag, factor.panel, A.remainder.matrix, *options
        )
    else:
        where: dict[int, tuple[int, int]] = {}
        for f, own in enumerate(A.factors):
            for member in own.members:
                where[member.term] = (f, member.columns.start)
        entries = [
            (where[t][0], where[t][1] + r, where[t][1] + c)
            for t, k in enumerate(A.term_columns)
            for r, c in zip(*lower_entries(k), strict=True)
        ]
        of, rows, columns = (list(map(int, each)) for each in zip(*entries, strict=True))
        ends, values, settled, evaluations = _kernels.descend_dense_from_each(
            starts,
            _all_products(A),
            [f.n_levels for f in A.factors],
            [f.k for f in A.factors],
            of,
            rows,
            columns,
            list(A.term_columns),
            *options,
        )
    return np.asarray(ends).reshape(starts.shape), values, settled > 0.0, evaluations


def _all_products(A: CrossProducts) -> Matrix:
    """``[Z X y]'W[Z X y]``, dense, Z in the order of the factors."""
    width = A.q + A.p + 1
    identity, blocks, at = np.eye(width), [], 0
    for factor in A.factors:
        size = factor.n_levels * factor.k
        blocks.append(identity[at : at + size].reshape(factor.n_levels, factor.k, width))
        at += size
    products, border = A.multiply(blocks, identity[at:])
    return np.asfortranarray(np.vstack([*(each.reshape(-1, width) for each in products), border]))
