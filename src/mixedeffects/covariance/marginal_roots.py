"""Methods of V that need a square root of it: whiten, sample."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.arrays import number_array
from mixedeffects.base.options import member
from mixedeffects.covariance.operator import CovarianceOperator
from mixedeffects.covariance.sampling import draw
from mixedeffects.covariance.whitening import cholesky_root, symmetric_root
from mixedeffects.errors import ModelError

__all__ = ["RootsOfV"]

Matrix = NDArray[np.float64]


class RootsOfV(CovarianceOperator):
    """The part of `MarginalCovariance` that whitens, and draws."""

    def whiten(
        self,
        B: Any,
        kind: Literal["cholesky", "symmetric"] = "cholesky",
        max_gb: float = 4.0,
    ) -> Matrix:
        """A square root of V^-1 times B, so that whitened residuals have identity covariance.

        Parameters
        ----------
        B : array, shape (n,) or (n, m)
            What to whiten, for example ``y - X beta``.
        kind : {"cholesky", "symmetric"}
            ``L^-1 B`` with ``V = L L'`` in row order within each connected block, or
            ``V^(-1/2) B``.
        max_gb : float
            Largest matrix to factor, in gigabytes.

        Returns
        -------
        ndarray of the shape of B
            Without units, if B is in units of the response.

        Raises
        ------
        DataError
            If B does not have n rows or is not finite.
        ModelError
            If kind is not known, or a matrix to factor would take more than ``max_gb``.

        Warns
        -----
        CostWarning
            Before the work starts, if factoring takes more than 4e10 operations: a Cholesky factor
            of 5,000 rows, eigenvectors of 1,600 random effects.

        Notes
        -----
        The Cholesky factor is that of each connected block of V, so one block with all rows, as
        crossed factors make it, costs n^3 / 3 operations. The symmetric root costs no more than the
        eigenvectors of a matrix with a row for each random effect of the block, however many rows
        the block has. That holds where the errors of a block are independent and their prior
        weights equal; else R is no multiple of the identity and the block itself is decomposed.

        References
        ----------
        Houseman, E. A., Ryan, L. M. and Coull, B. A. (2004). Cholesky residuals for assessing
        normal errors in a linear model with correlated outcomes. Journal of the American
        Statistical Association 99, 383-394.

        Examples
        --------
        Generalized least squares is ordinary least squares of whitened data:

        >>> import numpy as np
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> X, y = m.V.whiten(m.X), m.V.whiten(m.y)
        >>> np.linalg.lstsq(X, y, rcond=None)[0].round(2)
        array([251.41,  10.47])
        """
        if not member(kind, ("cholesky", "symmetric")):
            raise ModelError(f"kind is 'cholesky' or 'symmetric', not {kind!r:.60}.")
        x, restore = self._rows.columns(B, "V.whiten(B)")
        root = cholesky_root if kind == "cholesky" else symmetric_root
        return restore(root(self._structure, x, max_gb))

    def sample(
        self,
        size: int | None = None,
        seed: int | np.random.Generator | None = None,
        mean: Any = None,
    ) -> Matrix:
        """Draw from the normal distribution N(mean, V), through Z, G and R.

        Parameters
        ----------
        size : int, optional
            Number of draws; by default one.
        seed : int or numpy.random.Generator, optional
            For the same draws again.
        mean : float or array, shape (n,), optional
            Mean of every draw, for example ``X @ beta``; by default 0.

        Returns
        -------
        ndarray, shape (n,) or (n, size)
            In units of the response; one column per draw.

        Raises
        ------
        DataError
            If the mean does not have n values or is not finite.
        ModelError
            If size is not a positive whole number.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> draws = m.V.sample(2000, seed=1, mean=m.X @ m.fixef)
        >>> draws.shape
        (180, 2000)
        >>> draws[:2].std(axis=1).round(0), (m.V.diag()[:2] ** 0.5).round(0)
        (array([35., 35.]), array([36., 36.]))
        """
        what = "V.sample(mean=...)"
        centre = np.zeros(self._n)
        if mean is not None:
            given = number_array(mean, what)
            given = np.full(self._n, given) if given.ndim == 0 else mean
            centre = self._rows.columns(given, what)[0][:, 0]
        drawn = draw(self._structure, size, seed)
        drawn += centre[:, None]
        return drawn[:, 0] if size is None else drawn
