"""Families of correlations with one of their parameters held at a value.

They are families themselves, so a search goes on as it is. Of an unstructured covariance a standard
deviation or a correlation is not a parameter but a function of several; its times are put into
another order, in which it is one, or stands in one row of the factor:

    first time    L_11 = sd             second time    L_21 = s r, L_22 = s sqrt(1 - r^2)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.residual_families import (
    Block,
    Chain,
    Family,
    Unstructured,
    exponential,
    logistic,
    odds,
)

__all__ = ["HeldFamily", "HeldPair", "Reordered", "held"]

Matrix = NDArray[np.float64]

#: In place of a range of zero, where nothing is correlated.
_NO_RANGE = 1e-100
#: In place of the held parameter where each has coordinates of its own: possible for all of them.
_SOMEWHERE = 0.5


def held(family: Family, place: int, value: float) -> HeldFamily:
    """The family without one of its parameters, which has the value.

    Parameters
    ----------
    family : Family
        With coordinates of their own for each parameter.
    place : int
        Which parameter.
    value : float
        A range may be zero.
    """
    if family.names[place] == "range":
        value = max(value, _NO_RANGE)
    if isinstance(family, Chain):
        return _HeldChain(family, place, value)
    assert isinstance(family, Block)
    return _HeldBlock(family, place, value)


class HeldFamily(Family):
    """What is common to both kinds."""

    def __init__(self, family: Family, place: int, value: float) -> None:
        self.family, self.place, self.value = family, place, value

    @property
    def n_parameters(self) -> int:
        """One less."""
        return self.family.n_parameters - 1

    @property
    def names(self) -> tuple[str, ...]:
        """Of the others."""
        return tuple(np.delete(np.array(self.family.names, dtype=object), self.place).tolist())

    def full(self, zeta: Matrix) -> Matrix:
        """All parameters."""
        return np.insert(zeta, self.place, self.value)

    def unbounded(self, zeta: Matrix) -> Matrix:
        """Of the others."""
        whole = np.insert(zeta, self.place, _SOMEWHERE)
        return np.delete(self.family.unbounded(whole), self.place)

    def bounded(self, z: Matrix) -> tuple[Matrix, Matrix, Matrix]:
        """Of the others."""
        zeta, first, second = self.family.bounded(np.insert(z, self.place, 0.0))
        return tuple(np.delete(each, self.place) for each in (zeta, first, second))  # type: ignore[return-value]


class _HeldChain(HeldFamily, Chain):
    family: Chain

    def neighbours(self, zeta: Matrix, first: Matrix, second: Matrix) -> tuple[Matrix, Matrix]:
        """With the derivatives of the others."""
        r, derivatives = self.family.neighbours(self.full(zeta), first, second)
        return r, np.delete(derivatives, self.place, axis=0)

    def moment(self, correlation: Matrix, first: Matrix, second: Matrix, weight: Matrix) -> Matrix:
        """Of the others."""
        return np.delete(self.family.moment(correlation, first, second, weight), self.place)


class _HeldBlock(HeldFamily, Block):
    family: Block

    def matrix(self, zeta: Matrix, positions: Matrix) -> Matrix:
        """C."""
        return self.family.matrix(self.full(zeta), positions)

    def derivatives(self, zeta: Matrix, positions: Matrix) -> Matrix:
        """In the others."""
        whole = self.family.derivatives(self.full(zeta), positions)
        return np.delete(whole, self.place, axis=0)

    def moment(self, pairs: Matrix, products: Matrix) -> Matrix:
        """Of the others."""
        return np.delete(self.family.moment(pairs, products), self.place)


@dataclass(frozen=True)
class Reordered(Unstructured):
    """The same covariances, with the times of the factor in another order.

    Attributes
    ----------
    order : tuple of int
        Numbers of the times, in the order of the factor.
    """

    order: tuple[int, ...] = ()

    @classmethod
    def with_first(
        cls, family: Unstructured, *times: int, is_free: bool | None = None
    ) -> Reordered:
        """The times given before the others."""
        rest = [t for t in range(family.n_times) if t not in times]
        free = family.is_free if is_free is None else is_free
        return cls(family.n_times, family.correlation, free, (*times, *rest))

    def _chosen(self, positions: Matrix) -> NDArray[np.int64]:
        return np.argsort(self.order)[super()._chosen(positions)]

    def of_times(self, C: Matrix) -> Matrix:
        """The parameters of a covariance matrix of the times in their own order."""
        return self.from_matrix(C[np.ix_(self.order, self.order)])


class HeldPair(Block):
    """An unstructured covariance with variances, whose second row has a correlation or size held.

    The other of the two is a parameter in place of both entries of the row.

    Parameters
    ----------
    family : Reordered
        With variances.
    correlation : float, optional
        Of the first two times in the order of the factor, if that is held.
    size : float, optional
        Standard deviation at the second, relative to the unit, if that is held.
    """

    def __init__(
        self, family: Reordered, correlation: float | None = None, size: float | None = None
    ) -> None:
        self.family, self.correlation, self.size = family, correlation, size
        #: Where the row's entries begin.
        self._at = int(family.is_free)

    @property
    def n_parameters(self) -> int:
        """One less."""
        return self.family.n_parameters - 1

    @property
    def names(self) -> tuple[str, ...]:
        """Of entries of the factor, and the row's parameter."""
        own = "cor" if self.correlation is None else "size"
        return (*self.family.names[: self._at], own, *self.family.names[self._at + 2 :])

    def _row(self, own: float) -> tuple[Matrix, Matrix]:
        """The two entries, and their derivatives."""
        if self.correlation is not None:
            unit = np.array([self.correlation, np.sqrt(1.0 - self.correlation**2)])
            return own * unit, unit
        assert self.size is not None
        across = np.sqrt((1.0 - own) * (1.0 + own))
        return self.size * np.array([own, across]), self.size * np.array([1.0, -own / across])

    def full(self, zeta: Matrix) -> Matrix:
        """Entries of the factor."""
        row, _ = self._row(float(zeta[self._at]))
        return np.concatenate([zeta[: self._at], row, zeta[self._at + 1 :]])

    def of_entries(self, zeta: Matrix) -> Matrix:
        """The parameters nearest to entries of the factor."""
        row = zeta[self._at : self._at + 2]
        size = float(np.hypot(*row))
        own = size if self.correlation is not None else float(row[0]) / size
        return np.concatenate([zeta[: self._at], [own], zeta[self._at + 2 :]])

    def matrix(self, zeta: Matrix, positions: Matrix) -> Matrix:
        """C."""
        return self.family.matrix(self.full(zeta), positions)

    def derivatives(self, zeta: Matrix, positions: Matrix) -> Matrix:
        """Of the two entries together."""
        whole = self.family.derivatives(self.full(zeta), positions)
        _, slope = self._row(float(zeta[self._at]))
        both = np.tensordot(slope, whole[self._at : self._at + 2], axes=1)
        return np.concatenate([whole[: self._at], both[None], whole[self._at + 2 :]])

    def unbounded(self, zeta: Matrix) -> Matrix:
        """Logarithms of sizes, which must not change sign, and odds of the correlation."""
        out = zeta.copy()
        at = self._at
        out[:at] = np.log(zeta[:at])
        own = zeta[at : at + 1]
        out[at : at + 1] = odds(own, -1.0, 1.0) if self.correlation is None else np.log(own)
        return out

    def bounded(self, z: Matrix) -> tuple[Matrix, Matrix, Matrix]:
        """The parameters."""
        at = self._at
        out = z.copy(), np.ones(len(z)), np.zeros(len(z))
        free = exponential(z[:at])
        own = z[at : at + 1]
        second = logistic(own, -1.0, 1.0) if self.correlation is None else exponential(own)
        for whole, first, of_row in zip(out, free, second, strict=True):
            whole[:at], whole[at : at + 1] = first, of_row
        return out

    def moment(self, pairs: Matrix, products: Matrix) -> Matrix:
        """From those of the entries."""
        return self.of_entries(self.family.moment(pairs, products))
