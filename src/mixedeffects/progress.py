"""Feedback from work that repeats one thing many times."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mixedeffects.errors import ModelError

__all__ = ["RepeatedWork", "Repetitions"]

#: Seconds between two lines.
_INTERVAL = 1.0


@dataclass(frozen=True)
class Repetitions:
    """How far repeated work has come.

    Attributes
    ----------
    what : str
        What is repeated.
    done, total : int
        Repetitions done, and wanted.
    seconds : float
        Time since the start.
    """

    what: str
    done: int
    total: int
    seconds: float

    def __str__(self) -> str:
        text = f"{self.what} {self.done:,} of {self.total:,}   {self.seconds:.1f} s"
        if 0 < self.done < self.total:
            left = self.seconds / self.done * (self.total - self.done)
            text += f", about {left:.0f} s left"
        return text


class RepeatedWork:
    """Reports progress about once a second, and at the end.

    Parameters
    ----------
    what : str
        What is repeated.
    total : int
        How often.
    progress : bool or callable
        True prints lines on standard error; a callable gets each `Repetitions`; False is silent.

    Raises
    ------
    ModelError
        If progress is none of these.
    """

    def __init__(self, what: str, total: int, progress: Any) -> None:
        if not (isinstance(progress, bool) or callable(progress)):
            raise ModelError(f"progress must be True, False or a function, not {progress!r:.60}.")
        self._what, self._total = what, total
        self._report: Callable[[Repetitions], None] | None = (
            _print if progress is True else progress or None
        )
        self._began = self._last = time.perf_counter()

    def at(self, done: int) -> None:
        """Say that so many repetitions are done."""
        now = time.perf_counter()
        if self._report is None or (now - self._last < _INTERVAL and done < self._total):
            return
        self._last = now
        self._report(Repetitions(self._what, done, self._total, now - self._began))


def _print(line: Repetitions) -> None:
    print(line, file=sys.stderr, flush=True)
