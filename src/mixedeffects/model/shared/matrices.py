"""The matrices that mean the same in every fitted model: X, y, Z and G."""

from __future__ import annotations

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects.covariance import RandomEffectsCovariance
from mixedeffects.covariance.of_fit import G_of, Z_of
from mixedeffects.model.shared.held import Held

__all__ = ["SharedMatrices"]

Matrix = NDArray[np.float64]


class SharedMatrices(Held):
    """The matrices that mean the same in every fitted model: X, y, Z and G."""

    @property
    def X(self) -> Matrix:
        """Fixed-effects model matrix, n x p and read-only; ``fixef.index`` names its columns."""
        return self.frame.X

    @property
    def y(self) -> Matrix:
        """Response, ndarray of shape (n,), read-only, without the rows in `dropped`."""
        return self.frame.y

    @property
    def Z(self) -> scipy.sparse.csc_array:
        """Random-effects model matrix, sparse n x q, laid out as lme4 does.

        Terms in order, the levels of a term one after another, the columns within a level;
        ``G.labels()`` names each column.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.Z.shape
        (180, 36)
        >>> m.Z[:3, :4].toarray()
        array([[1., 0., 0., 0.],
               [1., 1., 0., 0.],
               [1., 2., 0., 0.]])
        """
        return Z_of(self.fit).copy()

    @property
    def G(self) -> RandomEffectsCovariance:
        """Covariance matrix of the random effects, q x q; see `RandomEffectsCovariance`.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.G.blocks().to_numpy().round(1)
        array([[612.1,   9.6],
               [  9.6,  35.1]])
        >>> m.G.sparse().shape
        (36, 36)
        """
        return G_of(self.fit)
