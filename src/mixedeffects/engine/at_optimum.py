"""What is asked of an optimum by those who compute from it, and what follows from it at once."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.objective import Evaluation
from mixedeffects.engine.parameterisation import Parameterisation
from mixedeffects.engine.parameters import lower_entries

__all__ = ["AtOptimum", "changes_of_sigma"]

Matrix = NDArray[np.float64]


class AtOptimum(Protocol):
    """Where a search ended; see `Optimum`."""

    @property
    def T(self) -> tuple[Matrix, ...]:
        """Relative factors in the engine's basis."""
        ...

    @property
    def evaluation(self) -> Evaluation:
        """The objective there."""
        ...

    @property
    def evaluations(self) -> int:
        """Evaluations in all."""
        ...

    @property
    def singular(self) -> bool:
        """Whether some direction of random effects has no variance."""
        ...

    @property
    def parameterisation(self) -> Parameterisation | None:
        """Parameters of covariance structures."""
        ...

    @property
    def eta(self) -> Matrix | None:
        """Their values."""
        ...

    @property
    def null_directions(self) -> Matrix | None:
        """Directions that the likelihood does not depend on."""
        ...


def changes_of_sigma(optimum: AtOptimum) -> list[Matrix]:
    """How each Sigma changes along `Optimum.null_directions`, arrays (r, k, k).

    Relative to the residual variance; with V itself in place of the residual part of V.
    """
    null = optimum.null_directions
    assert null is not None
    out, start = [], 0
    for T in optimum.T:
        k = len(T)
        rows, columns = lower_entries(k)
        change = np.zeros((len(null), k, k))
        change[:, rows, columns] = null[:, start : start + len(rows)]
        change[:, columns, rows] = change[:, rows, columns]
        start += len(rows)
        out.append(change - null[:, -1, None, None] * (T @ T.T))
    return out
