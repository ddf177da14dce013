"""What V is: ``Z G Z' + R``. What is done to it stands in the files beside this one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.arrays import ReadOnlyArrays, read_only
from mixedeffects.base.caching import cached_property
from mixedeffects.covariance.groups import ConnectedBlocks, Factor, Grouping
from mixedeffects.covariance.residual_matrix import ResidualMatrix
from mixedeffects.frame.model_frame import RandomTerm

__all__ = ["CovarianceStructure", "with_residual_factor"]

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CovarianceStructure(ReadOnlyArrays):
    """V, or a part of it, as what determines it: a few arrays, which never change.

    Attributes
    ----------
    terms : tuple of RandomTerm
        Codes and columns of the random effects that take part; may be empty.
    G : tuple of ndarray (k, k)
        Covariance matrix of each term's effects.
    R : ResidualMatrix
        Covariance matrix of the residual errors.
    """

    terms: tuple[RandomTerm, ...]
    G: tuple[Matrix, ...]
    R: ResidualMatrix

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", tuple(self.terms))
        own = tuple(read_only(np.array(G, dtype=np.float64)) for G in self.G)
        object.__setattr__(self, "G", own)

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.R.n

    def random(self) -> Iterator[tuple[RandomTerm, Matrix]]:
        """Each term with the covariance matrix of its effects."""
        return zip(self.terms, self.G, strict=True)

    @property
    def groupings(self) -> tuple[Grouping, ...]:
        """All factors that connect rows: V is zero between rows that share no level of any."""
        return *self.terms, *self.R.groupings

    @cached_property
    def connected(self) -> ConnectedBlocks:
        """The connected blocks."""
        return ConnectedBlocks.of(self.groupings, self.n)

    @property
    def factors(self) -> tuple[Factor, ...]:
        """Factors whose levels name rows: those of the terms, and that of R if it is another."""
        return with_residual_factor(self.terms, self.R.factor)


def with_residual_factor(terms: Sequence[Factor], factor: Factor | None) -> tuple[Factor, ...]:
    """Factors of terms, and the one whose levels are the residual groups if it is not among them.

    ``"a:b"`` and ``"b:a"`` are the same. The blocks of a given matrix have numbers for names, which
    may be levels of a factor: they are named only where there is no other.
    """
    own = {tuple(sorted(term.variables)) for term in terms}
    if factor is None or tuple(sorted(factor.variables)) in own:
        return tuple(terms)
    if terms and not factor.variables:
        return tuple(terms)
    return *terms, factor
