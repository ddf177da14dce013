"""What a search tells of its steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.basis import lower_factor

__all__ = ["Progress", "Teller"]

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Progress:
    """One line of feedback during a fit."""

    iteration: int
    evaluations: int
    criterion: float
    gradient_norm: float
    seconds: float
    #: Relative covariance factors there, in the basis of the fit: where another search may start.
    factors: tuple[Matrix, ...] = field(default=(), repr=False, compare=False)

    def __str__(self) -> str:
        return (
            f"iteration {self.iteration:3d}   criterion {self.criterion:.6f}   "
            f"gradient {self.gradient_norm:.1e}   {self.seconds:.1f} s"
        )


class Teller:
    """Tells whoever listens of the steps of a search, with the time since it began.

    Parameters
    ----------
    progress : callable or None
        Who listens.
    offset : float
        What the criterion of the user has beside that of the search.
    """

    def __init__(self, progress: Callable[[Progress], None] | None, offset: float = 0.0) -> None:
        self._progress, self._offset = progress, offset
        self._began = time.perf_counter()

    @property
    def is_heard(self) -> bool:
        """Whether anyone listens: else what is told need not be computed."""
        return self._progress is not None

    def tell(
        self,
        iteration: int,
        evaluations: int,
        value: float,
        gradient: Matrix,
        factors: Sequence[Matrix],
    ) -> None:
        """Tell of one step: where it led, and what was spent until then."""
        if self._progress is None:
            return
        self._progress(
            Progress(
                iteration,
                evaluations,
                value + self._offset,
                float(np.abs(gradient).max(initial=0.0)),
                time.perf_counter() - self._began,
                tuple(lower_factor(factor) for factor in factors),
            )
        )
