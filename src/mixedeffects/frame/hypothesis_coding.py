"""From differences of a factor's means to the coding whose coefficients they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.linalg
from numpy.typing import NDArray

from mixedeffects.base.arrays import number_array
from mixedeffects.base.habits import explained
from mixedeffects.base.options import checked_names
from mixedeffects.errors import ModelError
from mixedeffects.frame.columns import labels_of

__all__ = ["contrast_matrix"]

Matrix = NDArray[np.float64]

#: Sum of a hypothesis, relative to its largest coefficient, that is rounding.
_ROUNDING = 1e-8


@explained
def contrast_matrix(hypotheses: Any, levels: Sequence[str] | None = None) -> pd.DataFrame:
    """The coding of a factor whose coefficients are these differences of means.

    Contrast codings say what the columns of X are; what coefficients mean is their generalised
    inverse. This goes the other way: from what the coefficients are to mean to the columns. The
    intercept is the mean of the levels' means.

    Parameters
    ----------
    hypotheses : mapping or DataFrame
        Labels to hypotheses, each a mapping of levels to numbers, those left out being zero, or a
        vector with a number for each level; or a DataFrame with a row for each hypothesis and a
        column for each level. The numbers of each sum to zero.
    levels : list of str, optional
        The levels in their order; by default as they come in ``hypotheses``. Vectors need them.

    Returns
    -------
    DataFrame, one row per level
        For ``contrasts={"f": ...}`` of `lmer`. With k levels it has k - 1 columns, so that every
        level keeps a mean of its own: if there are fewer hypotheses, further columns ``rest1``, ...
        have what is left, which does not change what the others mean.

    Raises
    ------
    ModelError
        If the hypotheses are not numbers of these levels, do not sum to zero, or depend on each
        other.

    References
    ----------
    Schad, D. J., Vasishth, S., Hohenstein, S. and Kliegl, R. (2020). How to capitalize on a priori
    contrasts in linear (mixed) models: a tutorial. Journal of Memory and Language 110, 104038.

    Examples
    --------
    Recipes B and C against A, and against each other:

    >>> import mixedeffects as me
    >>> coding = me.contrast_matrix(
    ...     {"BC-A": {"A": -1, "B": 0.5, "C": 0.5}, "C-B": {"B": -1, "C": 1}}
    ... )
    >>> coding.round(2)
       BC-A  C-B
    A -0.67  0.0
    B  0.33 -0.5
    C  0.33  0.5
    >>> cake = me.load_dataset("cake")
    >>> m = me.lmer(
    ...     "angle ~ recipe + (1 | recipe:replicate)", cake, contrasts={"recipe": coding}
    ... )
    >>> m.fixef.round(2).to_dict()
    {'(Intercept)': 32.12, 'recipeBC-A': -1.5, 'recipeC-B': -0.04}
    """
    H = _as_frame(hypotheses, levels)
    rows, k = H.to_numpy(), H.shape[1]
    size = np.abs(rows).max(axis=1)
    for name, total, largest in zip(H.index, rows.sum(axis=1), size, strict=True):
        if abs(total) > _ROUNDING * largest or largest == 0.0:
            raise ModelError(
                f"The numbers of hypothesis {name!r} sum to {total:g}"
                f"{' and are all zero' if largest == 0.0 else ''}; those of a difference of means "
                "sum to zero. The intercept is the mean of all levels and needs no hypothesis."
            )
    if np.linalg.matrix_rank(rows / size[:, None]) < len(rows):
        raise ModelError(
            f"The {len(rows)} hypotheses about {k} levels depend on each other: there are at most "
            f"{k - 1} that do not. Leave some out, and test them with m.contrast."
        )
    rest = scipy.linalg.null_space(np.vstack([np.ones(k), rows])).T
    full = np.vstack([rows, rest])
    names = [*H.index, *(f"rest{i + 1}" for i in range(len(rest)))]
    return pd.DataFrame(_clean(np.linalg.pinv(full)), list(H.columns), names)


def _clean(C: Matrix) -> Matrix:
    """Without the rounding errors that stand for zeros."""
    return np.asarray(np.where(np.abs(C) > 1e-14 * np.abs(C).max(), C, 0.0))


def _as_frame(hypotheses: Any, levels: Any) -> pd.DataFrame:
    """One row per hypothesis, one column per level."""
    known = None if levels is None else labels_of(checked_names(levels, "levels"))
    if isinstance(hypotheses, pd.DataFrame):
        given = hypotheses
        columns = labels_of(given.columns)
    elif isinstance(hypotheses, Mapping) and hypotheses:
        vectors = [name for name, own in hypotheses.items() if not isinstance(own, Mapping)]
        if vectors and known is None:
            raise ModelError(
                f"Hypothesis {vectors[0]!r} is a vector; give the levels that its numbers belong "
                "to, levels=[...]."
            )
        own = {
            str(name): dict(zip(labels_of(row), row.values(), strict=True))
            if isinstance(row, Mapping)
            else dict(zip(known or [], _vector(name, row, known or []), strict=True))
            for name, row in hypotheses.items()
        }
        columns = list(dict.fromkeys(label for row in own.values() for label in row))
        given = pd.DataFrame([[row.get(label, 0.0) for label in columns] for row in own.values()])
        given.index = pd.Index(list(own))
    else:
        raise ModelError(
            "hypotheses map labels to differences of means, such as "
            "{'b - a': {'a': -1, 'b': 1}}, or are a DataFrame with a column for each level; not "
            f"{hypotheses!r:.60}."
        )
    values = number_array(given.to_numpy(), "The numbers of hypotheses", ModelError)
    if not np.isfinite(values).all():
        raise ModelError("The numbers of hypotheses must be finite.")
    table = pd.DataFrame(values, [str(name) for name in given.index], columns)
    if known is None:
        return table
    odd = [label for label in columns if label not in known]
    if odd:
        raise ModelError(f"Hypotheses name {odd[0]!r}, which is none of the levels {known}.")
    return table.reindex(columns=known, fill_value=0.0)


def _vector(name: Any, row: Any, levels: Sequence[str]) -> list[float]:
    numbers = number_array(row, f"Hypothesis {name!r}", ModelError)
    if numbers.shape != (len(levels),):
        raise ModelError(
            f"Hypothesis {name!r} has shape {numbers.shape}; it needs a number for each of the "
            f"{len(levels)} levels."
        )
    return [float(value) for value in numbers]
