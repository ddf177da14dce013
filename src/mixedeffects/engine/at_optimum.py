"""What is asked of an optimum by those who compute from it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.objective import Evaluation
from mixedeffects.engine.parameterisation import Parameterisation

__all__ = ["AtOptimum"]

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
