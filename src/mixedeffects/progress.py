"""How far long work has come, and what is left of it after Ctrl-C.

All that takes long reports here. Progress is shown on a terminal or in a notebook once the work has
taken a few seconds, and nowhere else unless it is asked for. Ctrl-C raises `Interrupted`, which
holds an object that goes on from there: nothing is done twice, and half the work never passes for
the whole.
"""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mixedeffects.base.options import plain
from mixedeffects.errors import Interrupted, ModelError

__all__ = [
    "Listener",
    "ProgressOption",
    "Repetitions",
    "StartAgain",
    "TablePass",
    "Then",
    "Unfinished",
    "interrupted",
]

Result = TypeVar("Result")
Whole = TypeVar("Whole")

ProgressOption = bool | Callable[[Any], object] | None

#: Seconds between two lines.
_INTERVAL = 1.0
#: Seconds of work before progress is shown that nobody asked for, and then between two looks.
_PATIENCE = 3.0
_REFRESH = 0.2


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
    before : int
        Repetitions that were done before the start: in an earlier call that was interrupted.
    detail : str
        What was done last; may be empty.

    Examples
    --------
    >>> import mixedeffects as me
    >>> line = me.Repetitions("refit", 25, 100, 10.0)
    >>> line.rate, line.seconds_left
    (2.5, 30.0)
    >>> print(line)
    refit 25 of 100   10.0 s, 2.5 a second, about 30 s left
    """

    what: str
    done: int
    total: int
    seconds: float
    before: int = 0
    detail: str = ""

    @property
    def rate(self) -> float:
        """Repetitions a second; NaN before the first."""
        own = self.done - self.before
        return own / self.seconds if own > 0 and self.seconds > 0.0 else float("nan")

    @property
    def seconds_left(self) -> float:
        """How long the rest will take at this rate; NaN before the first."""
        return (self.total - self.done) / self.rate

    def __str__(self) -> str:
        detail = f", {self.detail}" if self.detail else ""
        text = f"{self.what} {self.done:,} of {self.total:,}{detail}   {_duration(self.seconds)}"
        if self.done > self.before and self.seconds > 0.0:
            text += f", {self._speed()}"
            if self.done < self.total:
                text += f", about {_duration(self.seconds_left, 0)} left"
        return text

    def _speed(self) -> str:
        return (
            f"{self.rate:.3g} a second"
            if self.rate >= 1.0
            else f"{_duration(1.0 / self.rate)} for each"
        )


def _duration(seconds: float, decimals: int = 1) -> str:
    if seconds < 100.0:
        return f"{seconds:.{decimals}f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


@dataclass(frozen=True)
class TablePass:
    """A pass over a table that stays in its engine.

    Attributes
    ----------
    number : int
        Passes over this table so far, with this one.
    what : str
        What it sums up.
    seconds : float
        How long it took; NaN while it goes on.

    Examples
    --------
    >>> import mixedeffects as me
    >>> print(me.TablePass(4, "levels of driver", 1.5))
    pass 4 over the table: levels of driver   1.5 s
    """

    number: int
    what: str
    seconds: float = float("nan")

    def __str__(self) -> str:
        goes_on = math.isnan(self.seconds)
        taken = " ..." if goes_on else f"   {_duration(self.seconds)}"
        return f"pass {self.number} over the table: {self.what}{taken}"


class Listener:
    """Whoever wants to hear of progress: a function, the standard error, a terminal or a notebook.

    Parameters
    ----------
    progress : bool, callable or None
        True prints on standard error, in one line that changes on a terminal or in a notebook; a
        callable gets each object that tells how far the work is; False is silent; None shows the
        line that changes, from some seconds on, and is silent where there is no terminal or
        notebook.
    every : float
        Seconds between two of them, where they are asked for.

    Raises
    ------
    ModelError
        If progress is none of these.
    """

    def __init__(self, progress: Any, every: float | None = None) -> None:
        progress = plain(progress)
        if not (progress is None or isinstance(progress, bool) or callable(progress)):
            raise ModelError(
                f"progress must be True, False, None or a function, not {progress!r:.60}."
            )
        now = time.perf_counter()
        self._display = None if progress is False or callable(progress) else _display()
        self._call: Callable[[Any], object] | None = progress if callable(progress) else None
        if progress is True and self._display is None:
            self._call = _print
        self._every = _REFRESH if self._display else _INTERVAL if every is None else every
        asked = progress is not None
        self._next = now + (0.0 if self._display and asked else self._every if asked else _PATIENCE)
        self._keep, self._shown = asked, False

    @property
    def hears(self) -> bool:
        """Whether anybody listens."""
        return self._call is not None or self._display is not None

    def tell(self, line: Any, last: bool = False) -> None:
        """Pass it on, if it is time to."""
        now = time.perf_counter()
        due = now >= self._next
        if due:
            self._next = now + self._every
        if self._call is not None and (due or last):
            self._call(line)
        elif self._display is not None and (due or (last and self._shown)):
            self._display.show(str(line))
            self._shown = True

    def announce(self, line: Any) -> None:
        """Show what begins where a line can change, if it is time to; it is told when it ends."""
        if self._display is not None:
            self.tell(line)

    def close(self) -> None:
        """Leave the line that changes as it is if it was asked for, or take it away."""
        if self._display is not None:
            self._display.close(self._keep)


class _TerminalLine:
    """One line of a terminal, written again and again."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._length = stream, 0

    def show(self, text: str) -> None:
        width = max(20, shutil.get_terminal_size().columns - 1)
        text = text[:width]
        self._write("\r" + text.ljust(self._length))
        self._length = len(text)

    def close(self, keep: bool) -> None:
        if self._length:
            self._write("\n" if keep else "\r" + " " * self._length + "\r")
        self._length = 0

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            # A terminal that has gone is no reason to stop the work.
            self._length = 0


class _NotebookLine:
    """One output of a notebook's cell, replaced again and again."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, text: str) -> None:
        from IPython.display import display

        content = {"text/plain": text}
        if self._handle is None:
            show: Any = display
            self._handle = show(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)

    def close(self, keep: bool) -> None:
        if self._handle is not None and not keep:
            self._handle.update({"text/plain": "", "text/html": ""}, raw=True)
        self._handle = None


def _display() -> _TerminalLine | _NotebookLine | None:
    """Where a line can change: a notebook or a terminal, if this is one."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if hasattr(shell, "kernel"):
        return _NotebookLine()
    try:
        if sys.stderr is not None and sys.stderr.isatty():
            return _TerminalLine(sys.stderr)
    except (AttributeError, ValueError):
        # Something else stands in its place, or it is closed.
        pass
    return None


def _print(line: Any) -> None:
    print(line, file=sys.stderr, flush=True)


class StartAgain(Exception):  # noqa: N818
    """Raised by a step after which what was done is worth nothing."""


class Unfinished(Generic[Result, Whole]):
    """Work in steps that goes on after an interruption.

    After Ctrl-C it is the attribute ``partial`` of the exception `Interrupted`.

    Parameters
    ----------
    what : str
        What is repeated, in the singular.
    total : int
        Number of steps.
    step : callable
        Does the step of a number.
    finish : callable
        Makes the result of what the steps returned.
    so_far : callable, optional
        Makes a result of some of them, that says what is missing.
    detail : callable, optional
        What a step of a number is about, in words.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
    >>> def stop(line):
    ...     raise KeyboardInterrupt  # as Ctrl-C does
    >>> try:
    ...     found = m.influence("Batch", refit=True, progress=stop)
    ... except me.Interrupted as stopped:
    ...     found = stopped.partial.resume()
    >>> found.cooks_distance.idxmax()
    'E'
    """

    def __init__(
        self,
        what: str,
        total: int,
        step: Callable[[int], Result],
        finish: Callable[[list[Result]], Whole],
        *,
        so_far: Callable[[list[Result]], Any] | None = None,
        detail: Callable[[int], str] | None = None,
    ) -> None:
        self.what = what
        self.total = total
        self._step, self._finish, self._so_far, self._detail = step, finish, so_far, detail
        self._results: list[Result] = []

    @property
    def done(self) -> int:
        """Number of steps done."""
        return len(self._results)

    @property
    def so_far(self) -> Any:
        """What can be said of the steps done, if anything; None otherwise."""
        return None if self._so_far is None else self._so_far(list(self._results))

    def resume(self, progress: ProgressOption = None) -> Whole:
        """Go on to the end.

        Parameters
        ----------
        progress : bool, callable or None
            As for the function that was interrupted.

        Returns
        -------
        object
            What that function would have returned.

        Raises
        ------
        Interrupted
            On Ctrl-C, once more.
        """
        listener = Listener(progress)
        began, before = time.perf_counter(), self.done
        try:
            while True:
                try:
                    while self.done < self.total:
                        number = self.done
                        self._results.append(self._step(number))
                        detail = self._detail(number) if self._detail and listener.hears else ""
                        seconds = time.perf_counter() - began
                        line = Repetitions(
                            self.what, self.done, self.total, seconds, before, detail
                        )
                        listener.tell(line, last=self.done == self.total)
                    return self._finish(self._results)
                except StartAgain:
                    self._results.clear()
                    before = 0
        except KeyboardInterrupt:
            raise interrupted(self.what, self.done, self.total, self) from None
        finally:
            listener.close()

    def __repr__(self) -> str:
        return f"Interrupted after {self.what} {self.done:,} of {self.total:,}; see resume()"


class Then:
    """Something unfinished, and what is to be made of its result."""

    def __init__(self, first: Any, then: Callable[[Any], Any]) -> None:
        self._first, self._then = first, then

    def resume(self, progress: ProgressOption = None) -> Any:
        """As for `Unfinished`."""
        try:
            return self._then(self._first.resume(progress=progress))
        except Interrupted as again:
            again.partial = self
            raise

    def __repr__(self) -> str:
        return repr(self._first)


def interrupted(what: str, done: int, total: int, partial: Any) -> Interrupted:
    """The exception for repeated work, with what goes on from there."""
    return Interrupted(
        f"Interrupted after {what} {done:,} of {total:,}. What is done is kept: `partial.resume()` "
        "of this exception goes on from there; at the prompt, `sys.last_value.partial.resume()`.",
        partial,
    )
