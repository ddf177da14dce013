"""How much is done beside each other, and where: in threads, or in whatever an executor has."""

from __future__ import annotations

import os
import pickle
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from mixedeffects.base.options import is_whole_number
from mixedeffects.errors import ModelError

__all__ = [
    "Ahead",
    "Workers",
    "at_a_time",
    "check_sendable",
    "processors",
    "shares_memory",
    "without_warnings",
]

Result = TypeVar("Result")

#: What ``workers=`` takes.
Workers = int | Executor | None

#: Threads, however many are asked for.
_MOST_THREADS = 256


def processors() -> int:
    """Processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def at_a_time(workers: Any, what: str) -> int:
    """How many tasks are handed out at a time: the number given, or that of an executor's workers.

    Parameters
    ----------
    workers : int or Executor
        As given.
    what : str
        Is done by them, in the plural.

    Raises
    ------
    ModelError
        If it is neither.
    """
    if isinstance(workers, Executor):
        # Those of the standard library and of loky know it; others are given as much as this
        # machine has processors.
        own = getattr(workers, "_max_workers", None)
        return own if isinstance(own, int) and own > 0 else processors()
    if not is_whole_number(workers):
        raise ModelError(
            f"workers, the number of {what} at a time, must be a positive whole number or an "
            f"executor of concurrent.futures, not {workers!r:.60}."
        )
    return min(int(workers), _MOST_THREADS)


def shares_memory(executor: Executor) -> bool:
    """Whether its workers are threads of this process."""
    return isinstance(executor, ThreadPoolExecutor)


def check_sendable(function: Any, name: str) -> None:
    """Complain about a function that other processes could not be sent.

    Raises
    ------
    ModelError
        If it cannot be pickled.
    """
    try:
        pickle.dumps(function)
    except (pickle.PicklingError, AttributeError, TypeError):
        raise ModelError(
            f"{name} cannot be sent to other processes: define it with def at the top of a module, "
            "or use threads, workers=4."
        ) from None


class Ahead(Generic[Result]):
    """Tasks that are asked for in their order, some of the next ones under way meanwhile.

    Parameters
    ----------
    workers : int or Executor
        As given by the user and checked; a number of threads, or an executor.
    beside : int
        See `at_a_time`.
    function : callable
        Does a task.
    arguments : sequence of tuple
        Of each task.
    """

    def __init__(
        self,
        workers: int | Executor,
        beside: int,
        function: Callable[..., Result],
        arguments: Sequence[tuple[Any, ...]],
    ) -> None:
        self._executor = workers if isinstance(workers, Executor) else ThreadPoolExecutor(beside)
        self._beside, self._function, self._arguments = beside, function, arguments
        self._under_way: dict[int, Future[Result]] = {}

    def result(self, number: int) -> Result:
        """What a task returned; it may be asked for again until a later one is."""
        for each in [each for each in self._under_way if each < number]:
            del self._under_way[each]
        # One more for each worker, so that none waits for this process.
        for each in range(number, min(number + 2 * self._beside, len(self._arguments))):
            if each not in self._under_way:
                self._under_way[each] = self._executor.submit(
                    self._function, *self._arguments[each]
                )
        return self._under_way[number].result()


class _Silence:
    """Warnings of a kind held back as long as somebody wants that, in any thread.

    The filters are the whole process's: contexts of several threads that overlap would not leave
    them as they were.
    """

    def __init__(self) -> None:
        self._lock, self._held = threading.Lock(), 0
        self._caught = warnings.catch_warnings()

    def acquire(self, category: type[Warning]) -> None:
        with self._lock:
            if self._held == 0:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
            warnings.simplefilter("ignore", category)
            self._held += 1

    def release(self) -> None:
        with self._lock:
            self._held -= 1
            if self._held == 0:
                self._caught.__exit__(None, None, None)


_silence = _Silence()


@contextmanager
def without_warnings(category: type[Warning]) -> Iterator[None]:
    """Hold back warnings of a kind, also where threads do so at the same time."""
    _silence.acquire(category)
    try:
        yield
    finally:
        _silence.release()
