"""The search for the optimum with its progress, and what is kept of it after Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine import Control, CrossProducts, Optimum, Progress, find_optimum
from mixedeffects.errors import Interrupted
from mixedeffects.progress import Listener, ProgressOption

if TYPE_CHECKING:
    from mixedeffects.engine.structures import CovarianceStructure

__all__ = ["Listening", "Searching", "Start", "UnfinishedFit"]

Matrix = NDArray[np.float64]
Start = Sequence[Matrix] | None
Fitted = TypeVar("Fitted")
Other = TypeVar("Other")
GoOn = Callable[[Start, ProgressOption], Fitted]


class Listening:
    """Tells of a search's progress, and remembers the last point.

    Parameters
    ----------
    progress : bool, callable or None
        As for `lmer`.

    Raises
    ------
    ModelError
        If ``progress`` is not what it should be.
    """

    def __init__(self, progress: ProgressOption) -> None:
        self._listener = Listener(progress, every=0.0)
        self._silent = progress is None or not self._listener.hears
        self._last: Progress | None = None

    def close(self) -> None:
        """Nothing more is told."""
        self._listener.close()

    def hear(self, line: Progress) -> None:
        """An iteration is done."""
        self._last = line
        self._listener.tell(line)

    def interrupted(self, start: Start, go_on: GoOn[Any]) -> Interrupted:
        """The exception for Ctrl-C, given the first start and what makes a fit from another."""
        last = self._last
        done = (
            "Interrupted before the first iteration of the fit was done."
            if last is None
            else f"Interrupted after iteration {last.iteration} of the fit, at criterion "
            f"{last.criterion:.4f}. Where it came to is kept:"
        )
        reached = last.factors if last is not None and last.factors else start
        return Interrupted(
            f"{done} `partial.resume()` of this exception goes on from there; at the prompt, "
            "`sys.last_value.partial.resume()`.",
            UnfinishedFit(go_on, reached, last),
        )


class Searching(Listening):
    """The searches of one fit: they tell of their progress, and the last point is remembered.

    Parameters
    ----------
    reml : bool
        REML criterion or -2 log-likelihood.
    control : Control or None
        Tolerance and limits.
    structures : sequence of CovarianceStructure or None
        One per term.
    progress : bool, callable or None
        As for `lmer`.
    further : bool
        As for `find_optimum`.

    Raises
    ------
    ModelError
        If ``progress`` is not what it should be.
    """

    def __init__(
        self,
        reml: bool,
        control: Control | None,
        structures: Sequence[CovarianceStructure | None] | None,
        progress: ProgressOption,
        further: bool = True,
    ) -> None:
        self._reml, self._control, self._structures = reml, control, structures
        self._further = further
        super().__init__(progress)

    def find(self, A: CrossProducts, start: Start) -> Optimum:
        """Where a search ends; see `find_optimum`."""
        # One term is over before anybody looks: it goes down in the kernels in one go.
        quick = len(A.term_columns) == 1 and self._silent
        return find_optimum(
            A,
            self._reml,
            start=start,
            control=self._control,
            progress=None if quick else self.hear,
            structures=self._structures,
            further=self._further,
        )


class UnfinishedFit(Generic[Fitted]):
    """A fit that was interrupted; the ``partial`` of the exception `Interrupted`.

    Attributes
    ----------
    last : Progress or None
        The last iteration that was done.
    """

    def __init__(self, go_on: GoOn[Fitted], start: Start, last: Progress | None) -> None:
        self._go_on, self._start, self.last = go_on, start, last

    def resume(self, progress: ProgressOption = None) -> Fitted:
        """Go on from the last iteration.

        Parameters
        ----------
        progress : bool, callable or None
            As for `lmer`.

        Returns
        -------
        LinearMixedModel
            The fit.

        Raises
        ------
        Interrupted
            On Ctrl-C, once more.
        """
        return self._go_on(self._start, progress)

    def then(self, make: Callable[[Fitted], Other]) -> UnfinishedFit[Other]:
        """The same, with something to be made of the fit."""

        def go_on(start: Start, progress: ProgressOption) -> Other:
            try:
                return make(self._go_on(start, progress))
            except Interrupted as again:
                again.partial = again.partial.then(make)
                raise

        return UnfinishedFit(go_on, self._start, self.last)

    def __repr__(self) -> str:
        where = "before its first iteration" if self.last is None else f"after {self.last}"
        return f"A fit interrupted {where}; see resume()"
