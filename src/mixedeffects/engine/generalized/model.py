"""A model of the criterion around one point, in covariance parameters, beta and phi.

As `StructuredModel`: with F the matrix score and Delta the exact change of Sigma,

    <F, Delta> + a'H a / 2

a being the coordinates of Delta, and the changes of beta and phi. A single variance bends more than
that: were the effects of its levels seen with one sampling variance E, its part of the criterion
would be ``l (log(Sigma + E) + S / (Sigma + E))``, which is nearly quadratic in ``log(Sigma + E)``.
Its Delta is therefore taken as ``g = h log(1 + Delta / h)`` with ``h = Sigma + E``, which is ``l``
over ``sum [Z'V^-1 Z]_ii``, and H so that second derivatives stay what they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.caching import cached_property
from mixedeffects.engine.generalized.information import model_hessian
from mixedeffects.engine.generalized.laplace import GeneralizedEvaluation
from mixedeffects.engine.parameterisation import Parameterisation, UnstructuredTerm
from mixedeffects.engine.parameters import symmetric_directions
from mixedeffects.engine.structured_point import tangent_bases

__all__ = ["CriterionModel", "criterion_model"]

Matrix = NDArray[np.float64]

#: Share of ``Sigma + E`` that is E, at least.
_NOISE = 1e-4


@dataclass(frozen=True, eq=False)
class CriterionModel:
    """Model of the criterion around eta; see the module.

    Attributes
    ----------
    parameterisation : Parameterisation
        The covariance parameters.
    eta : ndarray, shape (m,)
        Where.
    score : tuple of ndarray (k, k)
        F per term.
    bases : tuple of ndarray (r, k, k)
        Orthonormal directions of every Sigma.
    sizes : tuple of float or None
        ``Sigma + E`` of terms with a single variance.
    hessian : ndarray, shape (R + s, R + s)
        H along all directions, and in the further parameters.
    further : ndarray, shape (s,)
        Derivatives in beta and phi.
    """

    parameterisation: Parameterisation
    eta: Matrix
    score: tuple[Matrix, ...]
    bases: tuple[Matrix, ...]
    sizes: tuple[float | None, ...]
    hessian: Matrix
    further: Matrix

    @cached_property
    def _rows(self) -> tuple[slice, ...]:
        ends = np.cumsum([0, *[len(U) for U in self.bases]]).tolist()
        return tuple(slice(a, b) for a, b in pairwise(ends))

    @cached_property
    def _own(self) -> list[tuple[Matrix, Matrix, Matrix]]:
        """Each term's Sigma at eta, F and bases, in the term's own columns."""
        p = self.parameterisation
        return [
            (term.at(own).covariance, term.own(F), term.own(U))
            for term, own, F, U in zip(
                p.terms, p.split(self.eta), self.score, self.bases, strict=True
            )
        ]

    def at(self, step: Matrix) -> tuple[float, Matrix, Matrix]:
        """Change of D, gradient and Hessian of the model after a step."""
        p, R, m = self.parameterisation, len(self.hessian), len(self.eta)
        there = [
            term.at(own) for term, own in zip(p.terms, p.split(self.eta + step[:m]), strict=True)
        ]
        linear, s = step[m:], len(self.further)
        a, J = np.zeros(R), np.zeros((R, len(step)))
        a[R - s :], J[R - s :, m:] = linear, np.eye(s)
        value = float(self.further @ linear)
        for values, (here, F, U), size, rows, at in zip(
            there, self._own, self.sizes, self._rows, p.places, strict=True
        ):
            change = values.covariance - here
            slope = 1.0
            if size is not None:
                slope = size / (size + float(change[0, 0]))
                change = size * np.log1p(change / size)
            value += float(np.vdot(F, change))
            a[rows] = U.reshape(len(U), change.size) @ change.ravel()
            J[rows, at] = slope * values.gradient(U)
        Ha = self.hessian @ a
        gradient, hessian = np.empty(len(step)), J.T @ self.hessian @ J
        gradient[m:] = self.further + Ha[R - s :]
        for values, (here, F, U), size, rows, at in zip(
            there, self._own, self.sizes, self._rows, p.places, strict=True
        ):
            pull = F + (Ha[rows] @ U.reshape(len(U), F.size)).reshape(F.shape)
            if size is None:
                gradient[at] = values.gradient(pull)
                hessian[at, at] += values.hessian(pull)
                continue
            slope = size / (size + float(values.covariance[0, 0] - here[0, 0]))
            one = np.ones((1, 1))
            first, second = values.gradient(one), values.hessian(one)
            gradient[at] = pull[0, 0] * slope * first
            bent = slope * second - slope**2 / size * first[:, None] * first
            hessian[at, at] += pull[0, 0] * bent
        return value + 0.5 * float(a @ Ha), gradient, hessian


def criterion_model(
    evaluation: GeneralizedEvaluation,
    parameterisation: Parameterisation,
    eta: Matrix,
    further: Matrix,
) -> CriterionModel:
    """The model around an evaluation.

    Parameters
    ----------
    evaluation : GeneralizedEvaluation
        Where.
    parameterisation, eta
        Covariance parameters there.
    further : ndarray
        Derivatives in beta and phi.
    """
    bases = _orthonormal_bases(parameterisation, eta)
    H = model_hessian(evaluation, bases)
    levels = {
        member.term: factor.n_levels
        for factor in evaluation.design.skeleton.factors
        for member in factor.members
    }
    sizes: list[float | None] = []
    start = 0
    for t, (term, own) in enumerate(zip(parameterisation.terms, bases, strict=True)):
        size = None
        if isinstance(term, UnstructuredTerm) and term.k == 1:
            F, variance = float(evaluation.score[t][0, 0]), float(evaluation.T[t][0, 0]) ** 2
            seen = F + float(evaluation.outer_products[t][0, 0])
            size = levels[t] / seen if seen > 0.0 else np.inf
            size = max(size, (1.0 + _NOISE) * variance)
            if np.isfinite(size) and size > 0.0:
                H[start, start] += F / size
            else:
                size = None
        sizes.append(size)
        start += len(own)
    return CriterionModel(
        parameterisation, eta, tuple(evaluation.score), tuple(bases), tuple(sizes), H, further
    )


def _orthonormal_bases(parameterisation: Parameterisation, eta: Matrix) -> Sequence[Matrix]:
    """Orthonormal directions (r, k, k) of every Sigma: all of them where it is free."""
    bases = tangent_bases(parameterisation, eta)
    for t, term in enumerate(parameterisation.terms):
        if isinstance(term, UnstructuredTerm):
            every = symmetric_directions(term.k)
            size = np.linalg.norm(every.reshape(len(every), -1), axis=1)
            bases[t] = every / size[:, None, None]
    return bases
