"""Arrays as they come in and go out: nothing is dropped unseen, nothing is shared to be written."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import pandas as pd
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects.errors import DataError, MixedEffectsError

__all__ = ["DetachedTable", "ReadOnlyArrays", "distinct_rows", "number_array", "read_only"]

_T = TypeVar("_T")

_COPIED_AT_ONCE = int(pd.__version__.split(".")[0]) < 3


def distinct_rows(table: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Distinct rows of a table, sorted, and which of them each row is.

    As ``numpy.unique`` along the first axis, by hashing one column after another in place of
    sorting whole rows.

    Parameters
    ----------
    table : ndarray, shape (n, d)
        Numbers.

    Returns
    -------
    distinct : ndarray, shape (m, d)
    which : ndarray, shape (n,)

    Examples
    --------
    >>> distinct, which = distinct_rows(np.array([[2, 1], [1, 3], [2, 1]]))
    >>> distinct.tolist(), which.tolist()
    ([[1, 3], [2, 1]], [1, 0, 1])
    """
    n, d = table.shape
    which = np.zeros(n, dtype=np.int64)
    for column in range(d):
        codes, values = pd.factorize(table[:, column])
        if len(values) > 1:
            which, _ = pd.factorize(which * len(values) + codes)
    count = int(which.max(initial=-1)) + 1
    first = np.empty(count, dtype=np.intp)
    first[which[::-1]] = np.arange(n - 1, -1, -1)
    distinct = table[first]
    order = np.lexsort(distinct.T[::-1]) if d else np.arange(count)
    place = np.empty(count, dtype=np.intp)
    place[order] = np.arange(count)
    return distinct[order], place[which]


def number_array(
    values: Any, what: str, error: type[MixedEffectsError] = DataError
) -> NDArray[np.float64]:
    """Values as an array of float64; NaN where an entry is masked or missing.

    Parameters
    ----------
    values : array_like or sparse matrix
        Anything that NumPy makes an array of.
    what : str
        What the message starts with.
    error : class
        What to raise.

    Returns
    -------
    ndarray
        May share memory with what was given.

    Raises
    ------
    MixedEffectsError
        If it is not numbers, or complex ones, whose imaginary parts would be lost.

    Examples
    --------
    >>> import numpy as np
    >>> number_array(np.ma.masked_equal([1, 2, -9], -9), "y")
    array([ 1.,  2., nan])
    """
    if scipy.sparse.issparse(values):
        sparse: Any = values
        values = sparse.toarray()
    try:
        # NumPy takes the real part of its own complex scalars among objects.
        if np.iscomplexobj(values) or _holds_complex(values):
            raise error(f"{what}: real numbers are needed, not complex ones.")
        masked = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as problem:
        if isinstance(problem, MixedEffectsError):
            raise
        raise error(f"{what}: an array of numbers is needed, not {values!r:.60}.") from None
    if masked is not None and masked.any():
        array = np.where(masked, np.nan, array)
    return array


def _holds_complex(values: Any) -> bool:
    array = np.asarray(values)
    return array.dtype == object and any(
        isinstance(value, (complex, np.complexfloating)) for value in array.flat
    )


def read_only(value: _T) -> _T:
    """Refuse writing into an array, or the arrays in a list or tuple; return it.

    Examples
    --------
    >>> import numpy as np
    >>> read_only(np.zeros(2))[0] = 1.0
    Traceback (most recent call last):
        ...
    ValueError: assignment destination is read-only
    """
    if isinstance(value, np.ndarray):
        value.flags.writeable = False
    elif isinstance(value, (list, tuple)):
        for each in value:
            # Most members of a fit are names and numbers.
            if isinstance(each, (np.ndarray, list, tuple)):
                read_only(each)
    return value


class ReadOnlyArrays:
    """Base of dataclasses whose arrays are not to be written into, also after unpickling."""

    def __post_init__(self) -> None:
        read_only(list(vars(self).values()))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        read_only(list(state.values()))


class DetachedTable:
    """Field of a dataclass for a DataFrame: whoever asks for it gets one of their own."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type) -> pd.DataFrame:
        # The class has no default, and an object without its rows no table.
        if instance is None or self.name not in instance.__dict__:
            raise AttributeError
        table = instance.__dict__[self.name]
        # Since pandas 3 a shallow copy is one as soon as it is written to.
        return table.copy(deep=_COPIED_AT_ONCE) if isinstance(table, pd.DataFrame) else table

    def __set__(self, instance: Any, table: pd.DataFrame) -> None:
        instance.__dict__[self.name] = table
