"""How many threads the linear algebra library may use while the kernels run.

The kernels share work out over threads of their own. A library's waiting threads spin, and take the
processors from them: on two cores the fit of insteval took 0.58 s with two BLAS threads and 0.41 s
with one.

The limit is the whole process's. Fits that overlap in several threads share it: the first sets it,
and the last gives back what there was before.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController

__all__ = ["one_blas_thread"]

#: Rows up to which the library uses only one anyway.
_SMALL = 16


@cache
def _controller() -> ThreadpoolController:
    # Finding the loaded libraries takes milliseconds, so it is done once.
    return ThreadpoolController()


class _SharedLimit:
    """One thread for BLAS as long as somebody wants that."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held = 0
        self._own = threading.local()
        self._limiter: Any = None

    def acquire(self) -> None:
        with self._lock:
            if self._held == 0:
                self._limiter = _controller().limit(limits=1, user_api="blas")
            self._held += 1
            self._own.held = getattr(self._own, "held", 0) + 1

    def release(self) -> None:
        with self._lock:
            self._own.held -= 1
            self._held -= 1
            self._restore_if_free()

    def _restore_if_free(self) -> None:
        if self._held == 0 and self._limiter is not None:
            limiter, self._limiter = self._limiter, None
            limiter.restore_original_limits()

    def before_fork(self) -> None:
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Only the thread that forked goes on; what the others held would never be given back."""
        self._lock = threading.Lock()
        self._held = getattr(self._own, "held", 0)
        self._restore_if_free()


_limit = _SharedLimit()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_limit.before_fork,
        after_in_parent=_limit.after_fork_in_parent,
        after_in_child=_limit.after_fork_in_child,
    )


def one_blas_thread(size: int | None = None) -> AbstractContextManager[None]:
    """Context in which BLAS uses one thread.

    Parameters
    ----------
    size : int, optional
        Rows of the largest matrix, where that is known: there is nothing to do for a small one.
    """
    return nullcontext() if size is not None and size <= _SMALL else _limited()


@contextmanager
def _limited() -> Iterator[None]:
    _limit.acquire()
    try:
        yield
    finally:
        _limit.release()
