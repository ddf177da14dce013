"""The numbers written into the cells of a small matrix picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["cell_texts"]


def cell_texts(values: NDArray[np.float64]) -> NDArray[np.str_]:
    """Format a small matrix with a common number of decimals.

    Whole numbers are written as such. Otherwise the largest entry gets three significant digits
    and the smallest two, unless it is less than a thousandth of the largest or that would take
    more than five digits. Zero is a dot, as where R prints a sparse matrix.

    Parameters
    ----------
    values : ndarray, shape (n, m)
        The numbers.

    Returns
    -------
    ndarray of str, shape (n, m)
        One text per cell.

    Examples
    --------
    >>> import numpy as np
    >>> from mixedeffects.display.cell_text import cell_texts
    >>> cell_texts(np.array([[612.1, 9.6], [0.0, 35.07]])).tolist()
    [['612.1', '9.6'], ['.', '35.1']]
    """
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    template = _template(sizes)
    texts = [["." if value == 0 else template.format(value) for value in row] for row in values]
    return np.array(texts, dtype=np.str_).reshape(values.shape)


def _template(sizes: NDArray[np.float64]) -> str:
    if not sizes.size:
        return "{:.0f}"
    largest = sizes.max()
    if largest >= 1e6 or largest < 1e-4:
        return "{:.1e}"
    if np.all(sizes == np.round(sizes)):
        return "{:.0f}"
    digits_before_point = max(1, int(np.floor(np.log10(largest))) + 1)
    for_largest = 2 - int(np.floor(np.log10(largest)))
    smallest = sizes[sizes >= 1e-3 * largest].min()
    for_smallest = 1 - int(np.floor(np.log10(smallest)))
    room = max(5 - digits_before_point, for_largest)
    decimals = max(0, for_largest, min(for_smallest, room))
    return f"{{:.{decimals}f}}"
