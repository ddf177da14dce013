"""Conditional modes of the random effects at any factorisation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.factorisation import Factorisation

__all__ = ["term_modes"]

Matrix = NDArray[np.float64]


def term_modes(factorisation: Factorisation) -> list[Matrix]:
    """Conditional modes of each term, arrays (l, k) in the response's units."""
    A = factorisation.A
    modes: list[Matrix] = [np.empty(0)] * len(A.term_columns)
    for factor, b in zip(A.factors, factorisation.solution.b, strict=True):
        for member in factor.members:
            C = A.basis.terms[member.term]
            modes[member.term] = A.basis.response_scale * (b[:, member.columns] @ C.T)
    return modes
