"""The Hessian of the criterion in (T, beta, phi) at an optimum, and the covariance it gives.

The Hessian of f* is exact (`penalised_hessian`), and with one factor that of log |M| in Sigma and
beta too. Elsewhere, and by quadrature, it is made of differences of its gradient, which the
evaluation has apart; they are taken in coordinates of natural size, and to one side where rows are
many. Where a covariance is singular its null directions are left out, as if they were known:
coordinates are entries of ``T = U R``, U the principal axes of Sigma and R lower triangular, in the
columns that have a variance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.arrays import ReadOnlyArrays
from mixedeffects.base.caching import cached_property
from mixedeffects.engine.factorisation import NotPositiveDefiniteError
from mixedeffects.engine.generalized.information import logdet_hessian, penalised_hessian
from mixedeffects.engine.generalized.laplace import GeneralizedEvaluation, LogDetGradient
from mixedeffects.engine.generalized.quadrature import evaluate_criterion
from mixedeffects.engine.parameterisation import Parameterisation, StructuredTerm
from mixedeffects.engine.parameters import lower_entries
from mixedeffects.engine.search import SINGULAR

__all__ = ["JointHessian", "joint_hessian"]

Matrix = NDArray[np.float64]

#: Steps of the differences to both sides, and to one, in a parameter's conditional standard error.
_STEP, _SHORT_STEP = 1e-3, 2e-4
#: Rows from which differences to one side, off by some 1e-5 of the Hessian, are good enough.
_MANY = 2_000


@dataclass(frozen=True, eq=False)
class JointHessian(ReadOnlyArrays):
    """Second derivatives of the criterion at an optimum, in the engine's basis.

    Coordinates are those of the covariances that are not at a bound, then beta (p), then phi where
    the family has a parameter.

    Attributes
    ----------
    hessian : ndarray, shape (m + p + s, m + p + s)
        Second derivatives of D.
    directions : tuple of ndarray (m, k, k)
        How Sigma of each term changes with the coordinates.
    n_covariance, p : int
        m and p.
    """

    hessian: Matrix
    directions: tuple[Matrix, ...]
    n_covariance: int
    p: int

    @cached_property
    def covariance(self) -> Matrix:
        """``2 H^-1``, the covariance matrix of the estimates in these coordinates.

        NaN where the Hessian is not positive definite.
        """
        scale = self._scale
        if not np.isfinite(self.hessian).all():
            return np.full(self.hessian.shape, np.nan)
        try:
            root = np.linalg.cholesky(self.hessian * np.outer(scale, scale))
        except np.linalg.LinAlgError:
            return np.full(self.hessian.shape, np.nan)
        half = np.linalg.inv(root) * scale
        return np.asarray(2.0 * half.T @ half)

    @property
    def fixed(self) -> slice:
        """Where beta stands."""
        return slice(self.n_covariance, self.n_covariance + self.p)

    @property
    def _scale(self) -> Matrix:
        diagonal = np.abs(np.diag(self.hessian))
        return np.asarray(1.0 / np.sqrt(np.where(diagonal > 0.0, diagonal, 1.0)))

    @cached_property
    def smallest_eigenvalue(self) -> float:
        """Of the Hessian scaled to unit diagonal; NaN where it has none."""
        if not len(self.hessian):
            return 1.0
        if not np.isfinite(self.hessian).all():
            return float("nan")
        scaled = self.hessian * np.outer(self._scale, self._scale)
        return float(np.linalg.eigvalsh(scaled)[0])


@dataclass(frozen=True, eq=False)
class _Term:
    """Coordinates of one term: its factor, first and second derivatives of Sigma at them."""

    #: factor for a change of the coordinates
    factor: Callable[[Matrix], Matrix]
    #: dSigma after such a change, (m, k, k)
    derivatives: Callable[[Matrix], Matrix]
    #: second derivatives of <F, Sigma> here, for symmetric F
    bend: Callable[[Matrix], Matrix]
    size: int


def _axes_term(T: Matrix) -> _Term:
    """Entries of R in the principal axes, in the columns that have a variance."""
    left, values, _ = np.linalg.svd(T)
    k = len(T)
    rows, columns = lower_entries(k)
    kept = values[columns] >= SINGULAR
    rows, columns = rows[kept], columns[kept]
    values = np.where(values < SINGULAR, 0.0, values)

    def R(x: Matrix) -> Matrix:
        out = np.diag(values)
        out[rows, columns] += x
        return out

    def derivatives(x: Matrix) -> Matrix:
        at = R(x)
        half = np.zeros((len(rows), k, k))
        half[np.arange(len(rows)), rows] = at[:, columns].T
        return np.asarray(left @ (half + half.transpose(0, 2, 1)) @ left.T)

    def bend(F: Matrix) -> Matrix:
        own = left.T @ F @ left
        return np.where(columns[:, None] == columns, 2.0 * own[np.ix_(rows, rows)], 0.0)

    return _Term(lambda x: np.ascontiguousarray(left @ R(x)), derivatives, bend, len(rows))


def _structured_term(term: StructuredTerm, own: Matrix) -> _Term:
    free = np.flatnonzero(~(term.fixed(own) | term.null(own)))

    def moved(x: Matrix) -> Matrix:
        out = own.copy()
        out[free] += x
        return out

    return _Term(
        lambda x: term.factor(moved(x)),
        lambda x: term.derivatives(moved(x))[free],
        lambda F: term.contract(own, F)[1][np.ix_(free, free)],
        len(free),
    )


def joint_hessian(
    here: GeneralizedEvaluation, parameterisation: Parameterisation, eta: Matrix
) -> JointHessian:
    """Second derivatives of D there.

    Parameters
    ----------
    here : GeneralizedEvaluation
        The optimum.
    parameterisation : Parameterisation
        The covariance parameters.
    eta : ndarray
        Their values.
    """
    terms = [
        _structured_term(term, own) if isinstance(term, StructuredTerm) else _axes_term(T)
        for term, own, T in zip(
            parameterisation.terms, parameterisation.split(eta), here.T, strict=True
        )
    ]
    sizes = [term.size for term in terms]
    m, p = sum(sizes), here.design.p
    ends = np.cumsum([0, *sizes])
    directions = [term.derivatives(np.zeros(term.size)) for term in terms]
    H = penalised_hessian(here, directions)
    padded = []
    for t, (term, D) in enumerate(zip(terms, directions, strict=True)):
        at = slice(ends[t], ends[t + 1])
        H[at, at] += term.bend(-here.outer_products[t])
        whole = np.zeros((m, *D.shape[1:]))
        whole[at] = D
        padded.append(whole)
    has_phi = here.design.family.has_parameter

    def gradient_at(x: Matrix) -> Matrix | None:
        """Of log |M|, after a change of the coordinates."""
        own = [x[a:b] for a, b in pairwise(ends)]
        T = [term.factor(each) for term, each in zip(terms, own, strict=True)]
        phi = here.phi + (float(x[-1]) if has_phi else 0.0)
        try:
            there = evaluate_criterion(
                here.design, T, here.beta + x[m : m + p], phi, nodes=here.nodes, near=here
            ).logdet
        except NotPositiveDefiniteError:
            return None
        return along(own, there)

    def along(own: Sequence[Matrix], there: LogDetGradient) -> Matrix:
        parts = [
            np.einsum("rab,ab->r", term.derivatives(each), F)
            for term, each, F in zip(terms, own, there.score, strict=True)
        ]
        return np.concatenate([*parts, there.beta, [there.phi] if has_phi else []])

    diagonal = np.diag(H)
    size = np.sqrt(2.0 / np.where(diagonal > 0.0, diagonal, np.inf))
    size = np.where(size > 0.0, np.minimum(size, 1.0), 1.0)
    size[:m] = np.minimum(size[:m], 0.3)
    columns, differenced = np.zeros_like(H), np.arange(len(H))
    if here.P is not None and here.nodes == 1:
        exact = logdet_hessian(here, directions)
        for t, term in enumerate(terms):
            at = slice(ends[t], ends[t + 1])
            exact[at, at] += term.bend(here.logdet.score[t])
        H[: m + p, : m + p] += exact
        differenced = differenced[m + p :]
    one_sided = here.design.n >= _MANY
    centre = along([np.zeros(term.size) for term in terms], here.logdet)
    for j in differenced:
        step = (_SHORT_STEP if one_sided else _STEP) * size[j]
        x = np.zeros(len(H))
        x[j] = step
        ahead, behind = gradient_at(x), centre if one_sided else gradient_at(-x)
        if ahead is None or behind is None:
            columns[:, j] = np.nan
        else:
            columns[:, j] = (ahead - behind) / (step if one_sided else 2.0 * step)
    if len(differenced) == len(H):
        columns = 0.5 * (columns + columns.T)
    elif len(differenced):
        columns[-1, :-1] = columns[:-1, -1]
    H += columns
    return JointHessian(H, tuple(padded), m, p)
