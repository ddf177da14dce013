"""How many threads the linear algebra library may use while the kernels run.

Its waiting threads spin, and take the processors from the kernels' own: on two cores the fit of
insteval took 0.58 s with two BLAS threads and 0.41 s with one. Only where one large dense block
makes up nearly all of the work do more pay.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController

__all__ = ["blas_threads"]

#: Rows of the dense remainder from which the BLAS library keeps its threads.
_LARGE = 2_500
#: Rows up to which it uses only one anyway.
_SMALL = 16


@cache
def _controller() -> ThreadpoolController:
    # Finding the loaded libraries takes milliseconds, so it is done once.
    return ThreadpoolController()


def blas_threads(size: int) -> AbstractContextManager[Any]:
    """Context in which BLAS uses one thread, unless the dense remainder has many rows.

    Parameters
    ----------
    size : int
        Rows of the dense remainder.
    """
    if size >= _LARGE or size <= _SMALL:
        return nullcontext()
    limit: AbstractContextManager[Any] = _controller().limit(limits=1, user_api="blas")
    return limit
