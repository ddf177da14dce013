"""A dataframe of any kind with one column put in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.frame.ingest import materialised

__all__ = ["with_column"]


def with_column(data: Any, name: str, values: NDArray[np.float64]) -> Any:
    """The data with a column of numbers under a name, in place of one that is called so.

    Parameters
    ----------
    data : dataframe
        Any of the types that a model can be fitted to. It is not changed.
    name : str
        The column.
    values : ndarray, shape (rows,)
        What it holds.

    Returns
    -------
    dataframe
        Of the same kind; of a lazy frame one that holds its rows.
    """
    source = materialised(data)
    if isinstance(source, pd.DataFrame):
        same = [label for label in source.columns if str(label) == name]
        changed = source.copy(deep=False)
        changed[same[0] if same else name] = values
        return changed
    if isinstance(source, Mapping):
        others = {label: column for label, column in source.items() if str(label) != name}
        return {**others, name: values}
    import narwhals as nw

    frame = source.collect() if isinstance(source, nw.LazyFrame) else source
    column = nw.new_series(name, values, backend=nw.get_native_namespace(frame))
    return frame.with_columns(column).to_native()
