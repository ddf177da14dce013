"""The one rule for values that belong to rows: by row labels if they have any, else by position.

A pandas Series or DataFrame carries row labels. They must be those of the rows it is for, in any
order; labels that differ are refused, never ignored.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from mixedeffects.errors import DataError, MixedEffectsError

__all__ = ["by_row_labels"]


def by_row_labels(
    what: str,
    values: Any,
    index: pd.Index[Any],
    whose: str = "the data",
    error: type[MixedEffectsError] = DataError,
    more: bool = False,
) -> Any:
    """Put a labelled Series or DataFrame into the order of other row labels.

    Parameters
    ----------
    what : str
        What to call it in the message.
    values : object
        What has no row labels, such as an array, is returned as it is.
    index : pandas.Index
        Labels of the rows wanted.
    whose : str
        What has these rows.
    error : class
        What to raise.
    more : bool
        Whether values may have further rows, which are left out.

    Returns
    -------
    object
        With the labels ``index``, or as given where it has no labels or another length: that is
        for the caller to refuse.

    Raises
    ------
    MixedEffectsError
        If a label wanted is not there, or labels are not unique and in another order.
    """
    if not isinstance(values, (pd.Series, pd.DataFrame)) or values.index.equals(index):
        return values
    own = values.index
    if len(own) != len(index) and not more:
        return values
    absent = int((~index.isin(own)).sum())
    if absent or not (own.is_unique and index.is_unique):
        reason = (
            f"{absent:,} of {len(index):,} are not there"
            if absent
            else "some occur more than once, in another order"
        )
        raise error(
            f"The row labels of {what} are not those of {whose}: {reason}. Give an array, such as "
            "values.to_numpy(), to go by position."
        )
    return values.take(own.get_indexer(index))
