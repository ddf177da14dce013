"""A model of the criterion around one point, in covariance parameters, beta and phi.

It is a `StructuredModel` whose further parameters are beta and phi. A single variance bends more
than Delta does: were the effects of its levels seen with one sampling variance E, its part of the
criterion would be ``l (log(Sigma + E) + S / (Sigma + E))``, which is nearly quadratic in
``log(Sigma + E)``. So its Delta is taken as ``g = h log(1 + Delta / h)`` with ``h = Sigma + E``,
which is ``l`` over ``sum [Z'V^-1 Z]_ii``, and H so that second derivatives stay what they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.generalized.information import model_hessian
from mixedeffects.engine.generalized.laplace import GeneralizedEvaluation
from mixedeffects.engine.parameterisation import Parameterisation, UnstructuredTerm
from mixedeffects.engine.parameters import symmetric_directions
from mixedeffects.engine.structured_point import StructuredModel, tangent_bases

__all__ = ["criterion_model"]

Matrix = NDArray[np.float64]

#: Share of ``Sigma + E`` that is E, at least.
_NOISE = 1e-4


def criterion_model(
    evaluation: GeneralizedEvaluation,
    parameterisation: Parameterisation,
    eta: Matrix,
    further: Matrix,
) -> StructuredModel:
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
    return StructuredModel(
        parameterisation, eta, tuple(evaluation.score), tuple(bases), H, further, tuple(sizes)
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
