"""What the likelihood does not depend on: combinations of variances and covariances.

``V = sum_r g_r K_r`` is linear in the entries of every Sigma and in the residual variance. With A a
basis of the contrasts, ``A'X = 0``, the restricted likelihood is that of ``A'y ~ N(0, A'VA)``, and
a normal distribution determines its covariance matrix. So along a direction D it is constant, at
any parameters and for any response, if and only if ``A'K_D A = 0`` for ``K_D = sum_r D_r K_r``.

The expected information along D is ``|V^(-1/2) A'K_D A V^(-1/2)|^2 / 2`` in the metric of V, so its
null space at any one point inside is that of the map ``D -> A'K_D A``. It need not be computed:
for a response z the average information is ``z'P K_r P K_s P z``, whose null space holds every D
with ``A'K_D P z = 0``. If D is not in the null space of the map, hardly any z has that. So the null
space of the average information, added up over random responses, shrinks with every response until
it is that of the map: once a new response leaves it as it was, it is that.

Under maximum likelihood the mean is no part of it, and D changes nothing if ``K_D = 0``: the same
question for the model without fixed effects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from mixedeffects.base.arrays import read_only
from mixedeffects.engine.assembly import make_crossproducts
from mixedeffects.engine.crossproducts import CrossProducts, EngineTerm
from mixedeffects.engine.objective import Evaluation, evaluate
from mixedeffects.engine.optimum import Optimum
from mixedeffects.engine.parameters import lower_entries, symmetric_directions
from mixedeffects.engine.responses import replace_response

__all__ = ["Design", "may_be_undetermined", "undetermined_directions"]

Matrix = NDArray[np.float64]

#: Information along a direction of size one, per level, that is surely more than rounding.
_SURE = 1e-6
#: The same below which there is none.
_NONE = 1e-10
#: Relative standard deviations between which the optimum is as good a point as any to look from.
_LOW, _HIGH = 0.03, 30.0
#: Columns on one factor from which information is only computed along a structure.
_MANY_COLUMNS = 8
_SEED = 20_731
_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class Design:
    """The rows that cross-products were made of, but for the response.

    Parameters
    ----------
    X : ndarray, shape (n, p)
        Fixed-effects matrix.
    terms : tuple of EngineTerm
        Random-effects terms.
    weights : ndarray, shape (n,), or None
        Prior weights.
    """

    X: Matrix
    terms: tuple[EngineTerm, ...]
    weights: Matrix | None

    def without_fixed(self) -> Design:
        """The same without fixed effects."""
        return Design(np.empty((len(self.X), 0)), self.terms, self.weights)

    def crossproducts(self) -> CrossProducts:
        """Its cross-products, with some response."""
        response = np.random.default_rng(_SEED).normal(size=len(self.X))
        return make_crossproducts(response, self.X, self.terms, self.weights)

    def response(self, A: CrossProducts, T: Sequence[Matrix], rng: np.random.Generator) -> Matrix:
        """One response of covariance V at T and sigma = 1."""
        y = rng.normal(size=len(self.X))
        if self.weights is not None:
            y /= np.sqrt(self.weights / A.basis.weight_scale)
        for term, C, own in zip(self.terms, A.basis.terms, T, strict=True):
            effects = rng.normal(size=(term.n_levels, len(own))) @ (C @ own).T
            y += np.einsum("ik,ik->i", term.z, effects[term.codes])
        return y


def may_be_undetermined(A: CrossProducts, optimum: Optimum) -> bool:
    """Whether the average information of the response itself leaves the question open.

    Taken at the optimum, where it is known, if that is well inside; else at T = I.
    """
    values = [np.linalg.svd(T, compute_uv=False) for T in optimum.T]
    here = optimum.evaluation
    if not all(own[-1] > _LOW and own[0] < _HIGH for own in values):
        here = _evaluate(A, [np.eye(k) for k in A.term_columns], here.reml)
    directions = _directions(A, here.T, _generic_directions(optimum))
    size = _natural_sizes(A, directions)
    information = here.unprofiled_information(directions)
    return not np.linalg.eigvalsh(information / np.outer(size, size))[0] > _SURE


def undetermined_directions(A: CrossProducts, optimum: Optimum, design: Design) -> Matrix:
    """Orthonormal basis of the directions that change V but not the restricted likelihood.

    Parameters
    ----------
    A : CrossProducts
        Of the design; without its fixed effects for maximum likelihood.
    optimum : Optimum
        For the directions that a covariance structure leaves. Where V is not linear in its
        parameters these are tangents, at the estimates, if it is undetermined at other values too.
    design : Design
        The rows A was made of.

    Returns
    -------
    ndarray, shape (r, M + 1)
        Lower entries of every Sigma in the engine's basis, relative to the residual variance of
        one, which is last. No rows where everything can be told.
    """
    none = np.empty((0, sum(k * (k + 1) // 2 for k in A.term_columns) + 1))
    generic = _generic_directions(optimum)
    found = _null_space(A, design, generic)
    if len(found) and generic is not None:
        found = _null_space(A, design, optimum.variance_directions)
    return found if len(found) else none


def _null_space(
    A: CrossProducts, design: Design, structured: Sequence[Matrix | None] | None
) -> Matrix:
    T = [np.eye(k) for k in A.term_columns]
    directions = _directions(A, T, structured)
    size = _natural_sizes(A, directions)
    none = max(_NONE, 1e3 * _EPS * A.n / min(term.n_levels for term in design.terms))
    rng = np.random.default_rng(_SEED)
    total = np.zeros((len(size), len(size)))
    known = len(size) + 1
    for count in range(1, len(size) + 3):
        response = design.response(A, T, rng)
        drawn = replace_response(A, response, design.X, design.terms, design.weights)
        total += _evaluate(drawn, T, True).unprofiled_information(directions)
        values, vectors = np.linalg.eigh(total / count / np.outer(size, size))
        null = vectors[:, values < none] / size[:, None]
        if null.shape[1] in (0, known):
            break
        known = null.shape[1]
    entries = [D[:, *lower_entries(k)] for D, k in zip(directions, A.term_columns, strict=True)]
    # The last direction is V = Z Sigma Z' + W^-1 at T = I.
    V = np.append(np.concatenate([np.eye(k)[lower_entries(k)] for k in A.term_columns]), 1.0)
    rows = np.hstack([scipy.linalg.block_diag(*entries), np.zeros((len(size) - 1, 1))])
    return np.asarray(scipy.linalg.orth(np.vstack([rows, V]).T @ null).T)


def _evaluate(A: CrossProducts, T: Sequence[Matrix], reml: bool) -> Evaluation:
    return evaluate(A, T, reml, max(factor.k for factor in A.factors) > _MANY_COLUMNS)


def _directions(
    A: CrossProducts, T: Sequence[Matrix], structured: Sequence[Matrix | None] | None
) -> list[Matrix]:
    """Directions of each Sigma, of size one relative to ``T T'``: all, or those of a structure."""
    out = []
    for k, own, factor in zip(A.term_columns, structured or [None] * len(T), T, strict=True):
        if own is None:
            out.append(factor @ _unit_directions(k) @ factor.T)
        else:
            _, values, right = np.linalg.svd(own.reshape(len(own), -1), full_matrices=False)
            out.append(right[values > 1e-10 * values[0]].reshape(-1, k, k))
    return out


@cache
def _unit_directions(k: int) -> Matrix:
    directions = symmetric_directions(k)
    return read_only(directions / np.linalg.norm(directions, axis=(1, 2))[:, None, None])


def _generic_directions(optimum: Optimum) -> list[Matrix | None] | None:
    """What structures leave at parameters without special values: those of the fit may have."""
    p = optimum.parameterisation
    if p is None:
        return None
    eta = 1.0 + 0.3 * np.sin(1.0 + np.arange(p.n_parameters))
    bounded = np.isfinite(p.upper)
    eta[bounded] = 0.4 * p.upper[bounded]
    return p.variance_directions(eta)


def _natural_sizes(A: CrossProducts, directions: Sequence[Matrix]) -> Matrix:
    """Roots of the largest information that there can be along these directions and V."""
    levels = {m.term: factor.n_levels for factor in A.factors for m in factor.members}
    sizes = [np.full(len(D), np.sqrt(levels[t])) for t, D in enumerate(directions)]
    return np.append(np.concatenate(sizes), np.sqrt(A.n - A.p))
