"""Arrays of real numbers from whatever a user gives: nothing in it is dropped unseen."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from mixedeffects.errors import DataError, MixedEffectsError

__all__ = ["number_array"]


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
