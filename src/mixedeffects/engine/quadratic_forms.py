"""What the response adds to the observed Hessian, ``y'P K_r P K_s P y``, without differences.

A search stops where the matrix score F is not quite zero along the tangents of Sigma, and the
Hessian there differs by as much from that at the optimum. In its place is the Hessian for the
response close by that has its optimum just there: with

    P y~ = P y + sum_r a_r P K_r P y,      2 sum_r y'P K_s P K_r P y a_r = sigma^2 <F, E_s>,

V itself among the directions so that ``rho^2`` stays, the score of y~ vanishes up to the square of
the change. So degrees of freedom that do not depend on the response come out as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.factorisation import Factorisation
from mixedeffects.engine.objective import Evaluation, along_each
from mixedeffects.engine.provisional import Columns, project
from mixedeffects.engine.triangular import solve_lower

__all__ = ["ResponseForms", "fixed_scores", "inner_products", "response_forms"]

Matrix = NDArray[np.float64]

#: Change of the forms, relative to their own size, up to which it may stand for that of y.
_SMALL = 0.1
#: Share of a combination of directions in the forms below which the response says nothing of it.
_UNSEEN = 1e-6


@dataclass(frozen=True, eq=False)
class ResponseForms:
    """Forms of a response in m directions of Sigma, relative to the residual variance.

    Attributes
    ----------
    square : ndarray, shape (m, m)
        ``y'P K_r P K_s P y / sigma^2``.
    linear : ndarray, shape (m,)
        ``y'P K_r P y / sigma^2``.
    score : tuple of ndarray (k, k)
        F per term.
    of_given : bool
        Whether they are of the response itself, whose score need not vanish.
    """

    square: Matrix
    linear: Matrix
    score: tuple[Matrix, ...]
    of_given: bool


def response_forms(
    evaluation: Evaluation,
    directions: Sequence[Matrix],
    regular: NDArray[np.bool_],
    of_given: bool = False,
) -> ResponseForms:
    """The forms of the response whose optimum is where the search stopped.

    Parameters
    ----------
    evaluation : Evaluation
        Where it stopped.
    directions : sequence of ndarray (r, k, k)
        For each term, the tangents of Sigma there.
    regular : ndarray of bool, shape (m,)
        Which of them are not those of a variance of zero. Along the others the score may be
        anything, and Sigma does not change but for rounding.
    of_given : bool
        Of the response itself, at parameters that are not the end of a search.
    """
    factorisation, A = evaluation.factorisation, evaluation.A
    sigma2 = evaluation.sigma2
    c = factorisation.solution.c
    v = along_each(A, c, directions)
    form, scores = _seen_through_V(factorisation, v)
    square = form / sigma2
    linear = inner_products(directions, evaluation.outer_products)
    left = inner_products(directions, evaluation.score)
    if of_given:
        return ResponseForms(square, linear, evaluation.score, True)
    a = _coefficients(square, linear, evaluation.df, left, regular)
    extra = [d @ a[:-1] + a[-1] * own for d, own in zip(scores, c, strict=True)]
    w = along_each(A, extra, directions)
    change = _products(w, scores)
    change = (change + change.T) / sigma2
    moved = 2.0 / sigma2 * _products(w, [own[:, :, None] for own in c])[:, 0]
    size = np.sqrt(np.maximum(np.diag(square), 0.0))
    if (np.abs(change) > _SMALL * np.outer(size, size)).any():
        return ResponseForms(square, linear, evaluation.score, True)
    F = list(evaluation.score)
    for factor, own, e in zip(A.factors, c, extra, strict=True):
        for member in factor.members:
            both = own[:, member.columns].T @ e[:, member.columns]
            F[member.term] = F[member.term] - (both + both.T) / sigma2
    return ResponseForms(square + change, linear + moved, tuple(F), False)


def _coefficients(
    square: Matrix, linear: Matrix, df: int, left: Matrix, regular: NDArray[np.bool_]
) -> Matrix:
    """The a of the module, for V itself last; zero for directions that are not regular."""
    m = len(linear)
    form = np.empty((m + 1, m + 1))
    form[:-1, :-1], form[:-1, -1], form[-1, :-1], form[-1, -1] = square, linear, linear, df
    diagonal = np.diag(form)
    size = np.where(np.append(regular, True) & (diagonal > 0.0), diagonal, np.inf) ** 0.5
    values, vectors = np.linalg.eigh(form / np.outer(size, size))
    seen = vectors[:, values > _UNSEEN]
    solved = seen @ (seen.T @ (np.append(left, 0.0) / size) / values[values > _UNSEEN])
    return np.asarray(0.5 * solved / size)


def _seen_through_V(
    factorisation: Factorisation, effects: Sequence[Matrix]
) -> tuple[Matrix, list[Matrix]]:
    """``v'Z'P Z v`` and ``Z'P Z v`` for arrays (l, k, m) per factor."""
    A, m = factorisation.A, effects[0].shape[2]
    if factorisation.border is None:
        border = np.zeros((A.p + 1, m))
        products, of_border = A.multiply(effects, border)
        modes, border[: A.p] = factorisation.solve(products, of_border[: A.p])
        taken, _ = A.multiply(modes, border)
        scores = [own - less for own, less in zip(products, taken, strict=True)]
        form = _products(effects, scores)
        return 0.5 * (form + form.T), scores
    # All of a response Z v is provisional effects.
    nothing = tuple(np.zeros_like(v) for v in effects)
    seen = project(factorisation, Columns(tuple(effects), nothing, np.zeros((m, m))))
    of_fixed = fixed_scores(factorisation)
    half = solve_lower(factorisation.fixed_root, _products(of_fixed, effects))
    beta = solve_lower(factorisation.fixed_root, half, transposed=True)
    scores = [own - S @ beta for own, S in zip(seen.scores, of_fixed, strict=True)]
    return seen.square - half.T @ half, scores


def inner_products(directions: Sequence[Matrix], matrices: Sequence[Matrix]) -> Matrix:
    """Of directions (r, k, k) per term with the matrix of their term, one after the other."""
    parts = [np.einsum("rab,ab->r", E, F) for E, F in zip(directions, matrices, strict=True)]
    return np.concatenate(parts)


def _products(left: Sequence[Matrix], right: Sequence[Matrix]) -> Matrix:
    """``x'v`` for arrays (l, k, p) and (l, k, m) per factor."""
    out = np.zeros((left[0].shape[2], right[0].shape[2]))
    for x, v in zip(left, right, strict=True):
        out += _flat(x).T @ _flat(v)
    return out


def _flat(values: Matrix) -> Matrix:
    """Arrays (l, k, m) with one row for each effect; m may be zero."""
    levels, k, m = values.shape
    return values.reshape(levels * k, m)


def fixed_scores(factorisation: Factorisation) -> list[Matrix]:
    """``Z'V0^-1 X`` per factor, arrays (l, k, p), in the engine's columns."""
    A = factorisation.A
    p = A.p
    if factorisation.border is not None:
        return [own[:, :, :p] for own in factorisation.border.scores]
    unit = np.vstack([np.eye(p), np.zeros((1, p))])
    ZX, _ = A.multiply([np.zeros((f.n_levels, f.k, p)) for f in A.factors], unit)
    effects, _ = factorisation.solve(ZX, np.zeros((0, p)))
    ZZb, _ = A.multiply(effects, np.zeros((p + 1, p)))
    return [own - taken for own, taken in zip(ZX, ZZb, strict=True)]
