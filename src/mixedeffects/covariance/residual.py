"""R, the covariance matrix of the residual errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects.base.caching import cached_property
from mixedeffects.base.sealed import Sealed
from mixedeffects.covariance.diagonal_residual import DiagonalResidual

__all__ = ["ResidualCovariance"]

Matrix = NDArray[np.float64]


class ResidualCovariance(Sealed):
    """R = sigma^2 W^-1, diagonal; prior weights included.

    Parameters
    ----------
    sigma : float
        Residual standard deviation at unit weight.
    weights : ndarray, shape (n,), or None
        Prior weights.
    n : int
        Number of rows.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    >>> m.R.diag()[:3].round(2)
    array([654.94, 654.94, 654.94])
    """

    def __init__(self, sigma: float, weights: Matrix | None, n: int) -> None:
        self._sigma = sigma
        self._weights = weights
        self._n = n

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return self._n, self._n

    @cached_property
    def _matrix(self) -> DiagonalResidual:
        """What V is made with."""
        variances = np.full(self._n, self._sigma**2)
        return DiagonalResidual(variances if self._weights is None else variances / self._weights)

    def diag(self) -> Matrix:
        """The diagonal, shape (n,), in squared units of the response."""
        return self._matrix.diagonal().copy()

    def sparse(self) -> scipy.sparse.csc_array:
        """R as a sparse matrix.

        Returns
        -------
        scipy.sparse.csc_array, n x n
            In squared units of the response.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.R.sparse().shape, m.R.sparse().nnz
        ((180, 180), 180)
        """
        return self._matrix.sparse()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Matrix:
        """R as an ndarray, for NumPy: ``np.asarray(m.R)``."""
        return np.diag(self._matrix.diagonal()).astype(np.float64 if dtype is None else dtype)

    def __repr__(self) -> str:
        weighted = "" if self._weights is None else ", divided by the prior weights"
        return f"R: {self._n} x {self._n}, diagonal: {self._sigma**2:.6g}{weighted}"
