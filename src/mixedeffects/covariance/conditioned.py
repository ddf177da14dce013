"""Terms in columns whose products keep their digits.

The covariance matrix of an intercept at zero and a slope, where all values of the covariate are far
from zero, has its digits in differences of large numbers. With the columns centred, as the engine
has them, it has not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.basis import in_steps
from mixedeffects.engine.factorisation import Factorisation
from mixedeffects.frame.model_frame import RandomTerm

__all__ = ["conditioned_terms"]

Matrix = NDArray[np.float64]


def conditioned_terms(
    terms: Sequence[RandomTerm],
    blocks: Sequence[Matrix],
    factorisation: Factorisation,
    sigma: float,
) -> tuple[list[RandomTerm], list[Matrix], list[Matrix]]:
    """The terms, their covariance matrices G, and the way from their columns to the engine's.

    Parameters
    ----------
    terms : sequence of RandomTerm
        With the user's columns.
    blocks : sequence of ndarray (k, k)
        The covariance matrices G of their effects.
    factorisation : Factorisation
        M at these parameters.
    sigma : float
        Residual standard deviation at unit weight.

    Returns
    -------
    terms : list of RandomTerm
        With other columns where the engine has centred them.
    blocks, transforms : lists of ndarray (k, k)
        G of those, and C with ``z C`` the engine's columns.
    """
    A = factorisation.A
    basis = A.basis
    new, G, C = list(terms), list(blocks), list(basis.terms)
    for factor, T in zip(A.factors, factorisation.T, strict=True):
        for member in factor.members:
            t = member.term
            steps = basis.term_steps[t] if basis.term_steps else ()
            if len(steps) > 1:
                C[t] = steps[-1]
                z = np.ascontiguousarray(in_steps(terms[t].z, steps[:-1]))
                new[t] = replace(terms[t], z=z)
                root = C[t] @ T[member.columns, member.columns]
                G[t] = sigma**2 / basis.weight_scale * (root @ root.T)
    return new, G, C
