"""How many threads the linear algebra library may use while the kernels run.

The kernels share work out over threads of their own. A library's waiting threads spin, and take the
processors from them: on two cores the fit of insteval took 0.58 s with two BLAS threads and 0.41 s
with one.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
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


def one_blas_thread(size: int | None = None) -> AbstractContextManager[Any]:
    """Context in which BLAS uses one thread.

    Parameters
    ----------
    size : int, optional
        Rows of the largest matrix, where that is known: there is nothing to do for a small one.
    """
    if size is not None and size <= _SMALL:
        return nullcontext()
    limit: AbstractContextManager[Any] = _controller().limit(limits=1, user_api="blas")
    return limit
