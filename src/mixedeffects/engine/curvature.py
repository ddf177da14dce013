"""Second derivatives in the user's theta: what Satterthwaite's method and the certificate rest on.

The deviance as a function of (theta, sigma), *not* profiled over sigma, is

    D(theta, sigma) = logdet M(theta) + rho^2(theta)/sigma^2 + df log(2 pi sigma^2) + constant,

and ``C(theta, sigma) = sigma^2 (X'V0^-1X)^-1`` is the covariance matrix of the fixed effects.
With ``V0 = V/sigma^2``, P its projection, and directions E_r that Sigma takes from where it is, its
second derivatives in Sigma are ``2 y'P K_r P K_s P y / sigma^2 - tr(P K_r P K_s)``. The forms of
the response are analytic; see `quadratic_forms`. So are the traces where their blocks are few
enough; see `trace_forms`. Else they are central differences of ``tr(P K_r)``, which one selected
inverse gives for all r at once. These know nothing of the response: neither its digits nor a score
that vanishes with T is in them.

Derivatives are taken along *natural* directions. For a term with l levels they are the columns
of ``dT = S E``, E the unit matrices of the lower triangle, where

    S S' = T T' + (l/n) I      (columns orthonormal over the data, so that z'z = n).

A step of one in such a direction changes what the data can see by about as much as there is: where
groups differ by far more than rows do, that is relative to T, in every direction of a random
effect; where they hardly differ, relative to what n/l rows say about a group. The sizes of steps,
and what counts as rounding, are in these directions, so that neither units nor the ratio of the
standard deviations matter.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from mixedeffects.base.arrays import ReadOnlyArrays, read_only
from mixedeffects.base.caching import cached_property
from mixedeffects.engine.at_optimum import AtOptimum, changes_of_sigma
from mixedeffects.engine.crossproducts import CrossProducts
from mixedeffects.engine.curvature_digits import (
    EPS,
    ERRORS,
    STEP,
    Digits,
    amplifications,
    visible_variances,
)
from mixedeffects.engine.objective import Evaluation, evaluate
from mixedeffects.engine.parameterisation import StructuredTerm, UnstructuredTerm
from mixedeffects.engine.parameters import (
    T_to_theta,
    block_diagonal,
    lower_entries,
    theta_to_T,
)
from mixedeffects.engine.quadratic_forms import inner_products, response_forms
from mixedeffects.engine.search import SINGULAR
from mixedeffects.engine.trace_forms import are_worth_forming, natural_root, trace_forms
from mixedeffects.engine.triangular import inverse_upper
from mixedeffects.progress import Listener, Repetitions

__all__ = [
    "FLAT",
    "Curvature",
    "coordinates",
    "natural_scales",
    "observed_curvature",
    "structured_curvature",
    "surely_curved",
    "theta_of",
]

Matrix = NDArray[np.float64]

#: Smallest curvature, on a scale on which one is as good as it gets, that is not flat.
FLAT = 1e-4

#: Natural standard deviations next to a singular covariance, where the score need not be small.
_NEARLY_SINGULAR = 0.05
#: Share of a direction that is more than rounding.
_PART = 1e-5


@dataclass(frozen=True, eq=False)
class Curvature(ReadOnlyArrays):
    """Observed Hessian of the unprofiled deviance in (theta, sigma).

    Attributes
    ----------
    theta : ndarray, shape (m,)
        Entries of T, in lme4's order, in the coordinates differentiated in.
    sigma : float
        The user's residual standard deviation.
    directions : ndarray, shape (m + 1, m + 1)
        Natural directions in (theta, sigma), one a column; the last is sigma's own.
    natural : ndarray, shape (m + 1, m + 1)
        Second derivatives of D along them.
    noise : ndarray, shape (m,)
        What rounding can make of the second derivative along each.
    regular : ndarray of bool, shape (m,)
        Which parameters are not those of a variance of zero.
    undetermined : ndarray, shape (r, m + 1)
        Orthonormal combinations of the natural directions along which D is constant, whatever the
        response: those of `Optimum.null_directions`.
    certain : float
        Second derivative along a natural direction from which more makes no difference to what
        counts as flat: parameters known that well may leave a combination known much less well.
    """

    theta: Matrix
    sigma: float
    directions: Matrix
    natural: Matrix
    noise: Matrix
    regular: NDArray[np.bool_]
    undetermined: Matrix
    certain: float = np.inf

    @cached_property
    def hessian(self) -> Matrix:
        """Second derivatives of D in (theta, sigma), shape (m + 1, m + 1); sigma comes last."""
        half = np.linalg.solve(self.directions.T, self.natural)
        H = np.linalg.solve(self.directions.T, half.T)
        return read_only(np.asarray(0.5 * (H + H.T)))

    @property
    def profiled(self) -> Matrix:
        """Hessian of the profiled deviance in theta."""
        return _profiled(self.hessian)

    def interior(self, A: CrossProducts) -> NDArray[np.bool_]:
        """Which entries of theta lie in columns of T that are not null."""
        return self.regular

    def flattest(self, keep: NDArray[np.bool_]) -> Matrix:
        """The entries of theta along the eigenvector of `smallest_eigenvalue`, in natural sizes."""
        H = _profiled(self.natural)[np.ix_(keep, keep)]
        size = self._size(H, keep)
        out = np.zeros(len(keep))
        out[keep] = np.linalg.eigh(H / np.outer(size, size))[1][:, 0]
        return out

    def smallest_eigenvalue(self, keep: NDArray[np.bool_]) -> tuple[float, float]:
        """Smallest eigenvalue of the profiled Hessian, and what rounding can make of it.

        Along natural directions scaled to unit diagonal, for some entries of theta. Where the
        deviance is flat, its second derivative is left as small as it is.
        """
        if not keep.any():
            return float("inf"), 0.0
        H = _profiled(self.natural)[np.ix_(keep, keep)]
        noise = self.noise[keep]
        size = self._size(H, keep)
        values = np.linalg.eigvalsh(H / np.outer(size, size))
        return float(values[0]), float((noise / size**2).sum())

    def _size(self, H: Matrix, keep: NDArray[np.bool_]) -> Matrix:
        """What directions are divided by to have a unit diagonal."""
        own = np.maximum(np.abs(np.diag(H)), self.noise[keep])
        return np.asarray(np.sqrt(np.minimum(own, self.certain)))


def _profiled(hessian: Matrix) -> Matrix:
    cross = hessian[:-1, -1]
    return np.asarray(hessian[:-1, :-1] - np.outer(cross, cross) / hessian[-1, -1])


def coordinates(A: CrossProducts, user: bool) -> list[Matrix]:
    """Matrices D with ``T* = D T`` for T in the coordinates to differentiate in."""
    if not user:
        return [np.eye(k) for k in A.term_columns]
    root = np.sqrt(A.basis.weight_scale)
    return [root * inverse_upper(C) for C in A.basis.terms]


def theta_of(A: CrossProducts, optimum: AtOptimum, user: bool) -> Matrix:
    """Lower entries of the factors, shape (m,), in the user's columns or the fitting basis."""
    if not user:
        return T_to_theta(optimum.T)
    return T_to_theta([A.basis.relative_factor(t, T) for t, T in enumerate(optimum.T)])


def _along(S: Matrix) -> Matrix:
    """The directions ``S E`` in the entries of a lower triangle, one a column."""
    rows, columns = lower_entries(len(S))
    return np.where(columns[:, None] == columns, S[rows][:, rows], 0.0)


def observed_curvature(
    A: CrossProducts, optimum: AtOptimum, reml: bool, user: bool | None = None
) -> Curvature:
    """Hessian of the unprofiled deviance at the optimum.

    Parameters
    ----------
    A, optimum, reml
        The fit.
    user : bool, optional
        Differentiate in the user's theta instead of the fitting basis. Degrees of freedom do not
        depend on it as long as the Hessian is regular; at a singular optimum lmerTest's definition
        is tied to the user's theta, so there that is the default. Without meaning where some term
        has a covariance structure: see `structured_curvature`.
    """
    if optimum.parameterisation is not None:
        return structured_curvature(A, optimum, reml)
    user = optimum.singular if user is None else user
    k, D = A.term_columns, coordinates(A, user)
    theta = theta_of(A, optimum, user)
    at = theta_to_T(theta, k)
    here = optimum.evaluation
    sigma = A.basis.sigma(float(np.sqrt(here.sigma2)))
    visible = visible_variances(A)
    S = [natural_root(T, d, share) for T, d, share in zip(at, D, visible, strict=True)]
    roots = [d @ s for d, s in zip(D, S, strict=True)]
    shares = [
        np.asarray(np.linalg.solve(s, T), dtype=np.float64) for s, T in zip(S, at, strict=True)
    ]
    tangents = [root @ _changes(M) @ root.T for root, M in zip(roots, shares, strict=True)]

    def traces_at(value: Matrix) -> Matrix:
        T = [d @ own for d, own in zip(D, theta_to_T(value, k), strict=True)]
        return inner_products(tangents, _traces(evaluate(A, T, reml)))

    m = len(theta)
    L = block_diagonal([_along(s) for s in S])
    natural = np.zeros((m + 1, m + 1))
    interior = np.concatenate(
        [
            (np.linalg.norm(d @ T, axis=0) > SINGULAR)[lower_entries(len(T))[1]]
            for d, T in zip(D, at, strict=True)
        ]
    )
    forms = response_forms(here, tangents, interior, _given(optimum))
    digits = Digits.of(A, optimum.T)
    bend = T_to_theta([np.diag(np.diag(M)) for M in shares]).tolist()
    if are_worth_forming(A, reml, digits.points * m):
        natural[:m, :m] = -trace_forms(here.factorisation, optimum.T, tangents, reml)
    else:
        for j in _each_of(m):
            natural[:m, j] = digits.derivative(
                lambda h, move=L[:, j]: traces_at(theta + h * move),  # type: ignore[misc]
                bend[j],
            )
    natural[:m, :m] = 0.5 * (natural[:m, :m] + natural[:m, :m].T) + 2.0 * forms.square
    singular = [bool(np.linalg.svd(T, compute_uv=False)[-1] < SINGULAR) for T in optimum.T]
    with_score = [
        none or (forms.of_given and not _is_nearly_singular(M))
        for none, M in zip(singular, shares, strict=True)
    ]
    if any(with_score):
        natural[:m, :m] += block_diagonal(list(map(_score_term, roots, forms.score, with_score)))
    # What a term's levels could add to the gradient is at least one each.
    least = np.repeat([share * A.n for share in visible], [len(E) for E in tangents])
    parts = np.array([inner_products(tangents, _traces(here)), forms.linear])
    noise = digits.noise(parts, least)
    natural[:m, m] = natural[m, :m] = 2.0 * forms.linear
    natural[m, m] = 4.0 * here.df
    directions = block_diagonal([L, np.array([[sigma]])])
    undetermined = np.empty((0, m + 1))
    if optimum.null_directions is not None:
        changes = [_relative_changes(M) for M in shares]
        curved = [
            _score_term(root, F / (share * A.n), none)
            for root, F, share, none in zip(roots, here.score, visible, singular, strict=True)
        ]
        undetermined = _undetermined(optimum, roots, changes, scipy.linalg.block_diag(*curved))
    return Curvature(theta, sigma, directions, natural, noise, interior, undetermined)


def _each_of(count: int) -> Iterator[int]:
    """Numbers of the directions to differentiate along; tells how far that has come."""
    listener, began = Listener(None), time.perf_counter()
    try:
        for number in range(count):
            yield number
            seconds = time.perf_counter() - began
            listener.tell(Repetitions("second derivative", number + 1, count, seconds))
    finally:
        listener.close()


def _given(optimum: AtOptimum) -> bool:
    """Whether the parameters are as they were given: the score there is not what a search left."""
    return optimum.evaluations == 1


def _is_nearly_singular(M: Matrix) -> bool:
    """Of a factor in natural units."""
    return bool(np.linalg.svd(M, compute_uv=False)[-1] < _NEARLY_SINGULAR)


def surely_curved(A: CrossProducts, optimum: AtOptimum) -> bool:
    """Whether the average information alone shows that the optimum is not flat.

    It is known where the search stopped, and differs from the observed Hessian by chance only.
    """
    at, visible = optimum.evaluation, visible_variances(A)
    p, eta = optimum.parameterisation, optimum.eta
    changes, regular = [], []
    for t, (T, share) in enumerate(zip(optimum.T, visible, strict=True)):
        if p is None or eta is None:
            try:
                L = _along(np.asarray(np.linalg.cholesky(T @ T.T + share * np.eye(len(T)))))
            except np.linalg.LinAlgError:
                return False
            columns = lower_entries(len(T))[1]
            derivatives = _changes(T)
            regular.append(((T * T).sum(axis=0) > SINGULAR**2)[columns])
        else:
            own = p.split(eta)[t]
            derivatives = p.terms[t].derivatives(own)
            L = natural_scales(p.terms[t], own, share)
            regular.append(~(p.terms[t].null(own) | p.terms[t].fixed(own)))
        changes.append((L.T @ derivatives.reshape(len(L), -1)).reshape(-1, *T.shape))
    keep = np.concatenate(regular)
    if not keep.any():
        return True
    H = at.information_along(changes)
    if not keep.all():
        H = H[np.ix_(keep, keep)]
    noise = ERRORS * EPS * max(amplifications(A, optimum.T)) * A.n / STEP
    size = np.sqrt(np.maximum(np.diag(H), noise))
    return bool(np.linalg.eigvalsh(H / np.outer(size, size))[0] > 100.0 * FLAT)


def _relative_changes(M: Matrix) -> Matrix:
    """``E M' + M E'`` for the unit matrices E of the lower triangle, entries by E.

    With ``M = S^-1 T`` that is how Sigma changes along ``S E``, relative to ``S S'``.
    """
    return np.asarray(_entries(_changes(M)).T)


def _changes(M: Matrix) -> Matrix:
    """``E M' + M E'`` for the unit matrices E of the lower triangle, (m, k, k)."""
    rows, columns = lower_entries(len(M))
    half = np.zeros((len(rows), len(M), len(M)))
    half[np.arange(len(rows)), rows] = M[:, columns].T
    return np.asarray(half + half.transpose(0, 2, 1))


def _entries(matrices: Matrix) -> Matrix:
    """Lower entries of symmetric matrices (r, k, k), with the norm of the matrices."""
    rows, columns = lower_entries(matrices.shape[-1])
    return np.asarray(matrices[:, rows, columns] * np.where(rows == columns, 1.0, np.sqrt(2.0)))


def _undetermined(
    optimum: AtOptimum, roots: Sequence[Matrix], changes: Sequence[Matrix], curved: Matrix
) -> Matrix:
    """Combinations of natural directions that follow the null directions of V.

    Parameters
    ----------
    optimum : Optimum
        With null directions.
    roots : sequence of ndarray (k, k)
        S of each term, in the engine's columns.
    changes : sequence of ndarray (entries, directions)
        How each Sigma changes along the natural directions, relative to ``S S'``.
    curved : ndarray (directions, directions)
        Second derivatives from the score at a singular Sigma, which the null directions have not.
    """
    null = optimum.null_directions
    assert null is not None
    by_V = []
    for root, change in zip(roots, changes_of_sigma(optimum), strict=True):
        inverse = np.linalg.inv(root)
        by_V.append(_entries(inverse @ change @ inverse.T))
    target = np.hstack([*by_V, 0.5 * null[:, -1:]]).T
    J = scipy.linalg.block_diag(*changes, np.ones((1, 1)))
    Q = scipy.linalg.orth(target)
    rest = J - Q @ (Q.T @ J)
    form = rest.T @ rest + scipy.linalg.block_diag(curved, np.zeros((1, 1)))
    size = np.sqrt(np.maximum((J**2).sum(axis=0) + np.append(np.diag(curved), 0.0), 1e-20))
    values, vectors = np.linalg.eigh(form / np.outer(size, size))
    found = vectors[:, values < _PART**1.5] / size[:, None]
    return np.asarray(scipy.linalg.orth(found).T)


def _score_term(S: Matrix, F: Matrix, matters: bool) -> Matrix:
    """What the score adds to the Hessian along ``S E``: nothing at a regular optimum.

    Next to a singular covariance the search stops while what is left of the score is still large
    beside the other second derivatives, which vanish with T. It is left out there too.
    """
    rows, columns = lower_entries(len(S))
    if not matters:
        return np.zeros((len(rows), len(rows)))
    inner = 2.0 * S.T @ F @ S
    return np.where(columns[:, None] == columns, inner[np.ix_(rows, rows)], 0.0)


def _traces(evaluation: Evaluation) -> list[Matrix]:
    """``sum_i [Z'PZ]_ii`` per term: the derivative of the log determinant in Sigma."""
    return [F + CC for F, CC in zip(evaluation.score, evaluation.outer_products, strict=True)]


def structured_curvature(A: CrossProducts, optimum: AtOptimum, reml: bool) -> Curvature:
    """The same in the parameters of covariance structures.

    Natural directions are there the parameters themselves: standard deviations in the size of
    ``(eta^2 + l/n)^(1/2)``, correlations in that of their distance from a bound. Parameters at a
    bound (a correlation at the end of its range, a variance of zero beside a correlation) have no
    two-sided derivative; they are left out, as if they were known.
    """
    p, eta = optimum.parameterisation, optimum.eta
    assert p is not None and eta is not None
    here = optimum.evaluation
    free = np.flatnonzero(~p.fixed(eta))
    visible = visible_variances(A)
    blocks: list[Matrix] = []
    tangents, bends = [], []
    for term, own, share in zip(p.terms, p.split(eta), visible, strict=True):
        scale = natural_scales(term, own, share)
        blocks.append(scale)
        bends.append(_bends(term, own, share))
        tangents.append(np.einsum("rj,rab->jab", scale, term.derivatives(own)))
    scales = block_diagonal(blocks)
    places = np.split(free, np.searchsorted(free, [at.stop for at in p.places[:-1]]))
    tangents = [E[own - at.start] for E, own, at in zip(tangents, places, p.places, strict=True)]
    L, bend = scales[:, free], np.concatenate(bends)[free].tolist()

    def traces_at(value: Matrix) -> Matrix:
        there = evaluate(A, p.factors(value), reml, few_directions=True)
        return inner_products(tangents, _traces(there))

    m = len(free)
    natural = np.zeros((m + 1, m + 1))
    regular = ~p.null(eta)[free]
    forms = response_forms(here, tangents, regular, _given(optimum))
    digits = Digits.of(A, optimum.T)
    if are_worth_forming(A, reml, digits.points * m):
        natural[:m, :m] = -trace_forms(here.factorisation, optimum.T, tangents, reml)
    else:
        for column in _each_of(m):
            move = L[:, column]
            reach = digits.reach(bend[column]) * move
            inside = ((eta - np.abs(reach) >= p.lower) & (eta + np.abs(reach) <= p.upper)).all()
            if inside:
                natural[:m, column] = digits.derivative(
                    lambda h, move=move: traces_at(eta + h * move),  # type: ignore[misc]
                    bend[column],
                )
            else:
                # Too close to a bound for both sides: three points on the other side of it.
                short = 0.25 * STEP
                far = eta + 2.0 * short * move
                if not ((far >= p.lower) & (far <= p.upper)).all():
                    short = -short
                at = [traces_at(eta + i * short * move) for i in range(3)]
                natural[:m, column] = (-3.0 * at[0] + 4.0 * at[1] - at[2]) / (2.0 * short)
    parts = np.array([inner_products(tangents, _traces(here)), forms.linear])
    noise = digits.noise(parts, 1.0)
    natural[:m, :m] = 0.5 * (natural[:m, :m] + natural[:m, :m].T) + 2.0 * forms.square
    # Unlike the tangents, the second derivatives of Sigma need not be orthogonal to the score.
    bent = [
        term.contract(own, F)[1]
        for term, own, F in zip(p.terms, p.split(eta), forms.score, strict=True)
    ]
    natural[:m, :m] += L.T @ block_diagonal(bent) @ L
    sigma = A.basis.sigma(float(np.sqrt(here.sigma2)))
    natural[:m, m] = natural[m, :m] = 2.0 * forms.linear
    natural[m, m] = 4.0 * here.df
    directions = block_diagonal([L[free], np.array([[sigma]])])
    undetermined = np.empty((0, m + 1))
    if optimum.null_directions is not None:
        roots, changes, curved = [], [], []
        of_terms = zip(p.terms, p.split(eta), optimum.T, here.score, visible, strict=True)
        for term, own, T, F, share in of_terms:
            root = natural_root(T, np.eye(len(T)), share)
            inverse = np.linalg.inv(root)
            changes.append(_entries(inverse @ term.derivatives(own) @ inverse.T).T)
            roots.append(root)
            none = term.null(own)
            second = np.where(np.outer(none, none), term.contract(own, F)[1], 0.0)
            curved.append(second / (share * A.n))
        moved = scipy.linalg.block_diag(*changes) @ L
        undetermined = _undetermined(
            optimum, roots, [moved], L.T @ scipy.linalg.block_diag(*curved) @ L
        )
    # Columns far from zero make the structure's own parameters strongly dependent.
    certain = 1.0 / FLAT
    return Curvature(eta[free], sigma, directions, natural, noise, regular, undetermined, certain)


def natural_scales(term: StructuredTerm | UnstructuredTerm, own: Matrix, visible: float) -> Matrix:
    """Natural directions of one term's parameters, one a column."""
    if not isinstance(term, StructuredTerm):
        T = term.factor(own)
        return _along(natural_root(T, np.eye(len(T)), visible))
    size = np.sqrt(own**2 + visible)
    n_sd = term.structure.n_sd
    size[n_sd:] = np.minimum(own - term.lower, term.upper - own)[n_sd:]
    return np.diag(size)


def _bends(term: StructuredTerm | UnstructuredTerm, own: Matrix, visible: float) -> Matrix:
    """By how much steps grow with their length; see `Digits.derivative`."""
    if not isinstance(term, StructuredTerm):
        T = term.factor(own)
        M = np.linalg.solve(natural_root(T, np.eye(len(T)), visible), T)
        return T_to_theta([np.diag(np.diag(M))])
    bends = own / np.sqrt(own**2 + visible)
    bends[term.structure.n_sd :] = 0.0
    return np.asarray(bends)
