"""Columns less provisional random effects, so that no result is a small difference of large sums.

Where random effects are R times as large as the residual error, ``rho^2 = y'Wy - ...`` loses the
digits of R^2, and so does ``X'V0^-1X`` for a column that the random effects' columns span, an
intercept for instance. With provisional effects b0 of a column x of ``[X y]``, any that come near
its modes, sums of squares and products are made of ``x - Z b0``, from the rows. With
``w = (Sigma + I)^-1 b0`` and the products

    Z'W(x - Z b0 + Z w) - w     and     |x - Z b0 + Z w|^2 + |T'w|^2

in place of ``Z'Wx`` and ``x'Wx`` elimination finds the same ``x'V0^-1 x``: it amounts to
subtracting from the column of ``L~'AL~ + I`` those of the random effects times ``T'w``. Its terms
are of the size of the answer as long as b0 is close to the modes at T. Nothing is divided by T:
where a variance is zero, w = b0 and nothing has been taken off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Columns",
    "Projection",
    "Provisional",
    "project",
    "remaining_effects",
    "residual_effects",
    "shrunken",
]

Matrix = NDArray[np.float64]
Blocks = TypeVar("Blocks")


class Products(Protocol):
    """The cross-products, as far as they are needed here."""

    @property
    def p(self) -> int:
        """Number of fixed effects."""
        ...

    def multiply(self, blocks: Sequence[Matrix], border: Matrix) -> tuple[list[Matrix], Matrix]:
        """The cross-products times a matrix in the same blocks."""
        ...


class RandomEffects(Protocol):
    """A factorisation of the random effects alone, as far as it is needed here."""

    @property
    def A(self) -> Any:
        """What is factorised, `Products`."""
        ...

    @property
    def T(self) -> Any:
        """Relative factors, one per grouping factor."""
        ...

    def forward(self, rhs: Sequence[Matrix], border: Matrix) -> tuple[list[Matrix], Matrix]:
        """Half of a solve."""
        ...

    def solve(self, rhs: Sequence[Matrix], border: Matrix) -> tuple[list[Matrix], Matrix]:
        """A solve."""
        ...


@dataclass(frozen=True, eq=False)
class Columns:
    """Columns less provisional random effects, by their products.

    Attributes
    ----------
    effects : tuple of ndarray (l, k, m)
        The effects that were taken off, per factor.
    products : tuple of ndarray (l, k, m)
        Products of what is left with the random-effects columns.
    square : ndarray (m, m)
        Products of what is left with itself.
    """

    effects: tuple[Matrix, ...]
    products: tuple[Matrix, ...]
    square: Matrix

    def chosen(self, which: NDArray[np.intp]) -> Columns:
        """Some of the columns."""
        return Columns(
            tuple(np.ascontiguousarray(own[:, :, which]) for own in self.effects),
            tuple(np.ascontiguousarray(own[:, :, which]) for own in self.products),
            self.square[np.ix_(which, which)],
        )

    def combined(self, B: Matrix, added: Matrix) -> Columns:
        """Linear combinations of the columns, and something added to their own products."""
        return Columns(
            tuple(own @ B for own in self.effects),
            tuple(own @ B for own in self.products),
            B.T @ self.square @ B + added,
        )


@dataclass(frozen=True, eq=False)
class Provisional(Generic[Blocks]):
    """Blocks of the random effects alone, and the columns ``[X y]``."""

    random: Blocks
    border: Columns


@dataclass(frozen=True, eq=False)
class Projection:
    """Columns x seen through the marginal covariance at one T.

    Attributes
    ----------
    square : ndarray (m, m)
        ``x'V0^-1 x``.
    size : ndarray (m,)
        The sums of squares that its diagonal is what is left of.
    modes : tuple of ndarray (l, k, m)
        ``Sigma Z'V0^-1 x`` per factor.
    scores : tuple of ndarray (l, k, m)
        ``Z'V0^-1 x`` per factor.
    """

    square: Matrix
    size: Matrix
    modes: tuple[Matrix, ...]
    scores: tuple[Matrix, ...]


def project(random: RandomEffects, columns: Columns) -> Projection:
    """Columns through a factorisation of the random effects alone."""
    T = random.T
    m = columns.square.shape[1]
    w = [shrunken(t, b0) for t, b0 in zip(T, columns.effects, strict=True)]
    Zw = _times_ZZ(random, w)
    square = columns.square.copy()
    for t, own, product, Zx in zip(T, w, Zw, columns.products, strict=True):
        flat = own.reshape(-1, m)
        cross = flat.T @ Zx.reshape(-1, m)
        ridge = _each_level(t.T, own).reshape(-1, m)
        square += cross + cross.T + flat.T @ product.reshape(-1, m) + ridge.T @ ridge
    size = np.diag(square).copy()
    rhs = [Zx + product - own for Zx, product, own in zip(columns.products, Zw, w, strict=True)]
    solved, remainder = random.forward(rhs, np.zeros((0, m)))
    for half in [*solved, remainder]:
        flat = half.reshape(-1, m)
        square -= flat.T @ flat
    b, c = [], []
    for t, b0, own in zip(T, columns.effects, _both(random, rhs), strict=True):
        b.append(shrunken(t, b0 + own, of_sigma=True))
        c.append(shrunken(t, b0 + own))
    return Projection(0.5 * (square + square.T), size, tuple(b), tuple(c))


def remaining_effects(
    random: RandomEffects, effects: Sequence[Matrix], products: Sequence[Matrix]
) -> list[Matrix]:
    """What is missing from provisional effects to the modes, with the digits of what is left.

    Parameters
    ----------
    random : RandomEffects
        Of the random effects.
    effects : sequence of ndarray (l, k, m)
        The provisional effects b0 of columns x, per factor.
    products : sequence of ndarray (l, k, m)
        ``Z'W(x - Z b0)``.
    """
    w = [shrunken(t, b0) for t, b0 in zip(random.T, effects, strict=True)]
    rhs = [
        own + product - v for own, product, v in zip(products, _times_ZZ(random, w), w, strict=True)
    ]
    return [
        both - shrunken(t, b0 + both)
        for t, b0, both in zip(random.T, effects, _both(random, rhs), strict=True)
    ]


def _both(random: RandomEffects, rhs: Sequence[Matrix]) -> list[Matrix]:
    """Modes and scores together.

    As modes are ``Sigma scores``, scores are also ``(Sigma + I)^-1 (modes + scores)``, which keeps
    the digits of scores that are far smaller than what they are a difference of.
    """
    modes, _ = random.solve(rhs, np.zeros((0, rhs[0].shape[2])))
    Zb = _times_ZZ(random, modes)
    return [own + right - taken for own, right, taken in zip(modes, rhs, Zb, strict=True)]


def _times_ZZ(random: RandomEffects, effects: Sequence[Matrix]) -> list[Matrix]:
    """``Z'WZ b`` for effects (l, k, m) per factor."""
    A: Products = random.A
    return A.multiply(effects, np.zeros((A.p + 1, effects[0].shape[2])))[0]


def shrunken(T: Matrix, values: Matrix, of_sigma: bool = False) -> Matrix:
    """``(T T' + I)^-1 v``, or that times ``T T'``, for arrays (l, k, m), T of whatever size."""
    left, size, _ = np.linalg.svd(T)
    share = (size**2 if of_sigma else 1.0) / (1.0 + size**2)
    return _each_level(left * share, _each_level(left.T, values))


def _each_level(matrix: Matrix, values: Matrix) -> Matrix:
    return np.asarray(np.matmul(matrix, values))


def residual_effects(projection: Projection, beta: Matrix) -> tuple[list[Matrix], list[Matrix]]:
    """Modes and scores of ``[X Y] [-beta; I]``, arrays (l, k, m), for beta (p, m)."""
    p = len(beta)

    def less(own: Matrix) -> Matrix:
        return np.asarray(own[:, :, p:] - own[:, :, :p] @ beta)

    return [less(own) for own in projection.modes], [less(own) for own in projection.scores]
