"""Cross-products of the model in which one fixed effect has a known value.

With ``a' beta* = c`` known, an orthogonal H whose first column is ``a / |a|`` turns the border into
``[X* H, y* - X* a c / |a|^2]`` without the first column. That column is kept as one of zeros with a
square of its own, so that all patterns stay as they are: its coefficient is zero, and it changes
neither ``logdet M_q`` nor rho^2. Maximum likelihood only; n rows are not needed again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.crossproducts import CrossProducts

__all__ = ["KnownCoefficient"]

Matrix = NDArray[np.float64]


class KnownCoefficient:
    """One fixed effect of the user's, to be held at values.

    Parameters
    ----------
    A : CrossProducts
        The model's blocks.
    column : int
        Which column of the user's X.
    """

    def __init__(self, A: CrossProducts, column: int) -> None:
        self._A = A
        self._column = column
        self._a = A.basis.response_scale * A.basis.fixed[column]
        # Householder: orthogonal, its first column +-a / |a|.
        self._H = np.linalg.qr(self._a[:, None], mode="complete")[0]

    def _particular(self, value: float) -> Matrix:
        """The smallest ``beta*`` at which the coefficient has the value."""
        c = value - self._A.basis.beta0[self._column]
        return np.asarray(self._a * (c / float(self._a @ self._a)))

    def blocks(self, value: float) -> CrossProducts:
        """Blocks of the model given the value."""
        p = self._A.p
        B = np.zeros((p + 1, p + 1))
        B[:p, 1:p] = self._H[:, 1:]
        B[:p, p] = -self._particular(value)
        B[p, p] = 1.0
        added = np.zeros((p + 1, p + 1))
        added[0, 0] = self._A.n
        return self._A.with_border(B, added)

    def beta(self, value: float, solved: Matrix) -> Matrix:
        """``beta*`` of the model from the solution in these blocks."""
        rest = solved.copy()
        rest[0] = 0.0
        return np.asarray(self._particular(value) + self._H @ rest)
