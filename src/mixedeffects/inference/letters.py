"""Letters for means: two share one if and only if they do not differ significantly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.options import checked_flag, checked_level
from mixedeffects.display.result_table import ResultTable
from mixedeffects.errors import ModelError
from mixedeffects.inference.mean_comparisons import Means, compare_means
from mixedeffects.inference.mean_contrasts import METHODS
from mixedeffects.inference.multiplicity import ADJUSTMENTS

__all__ = ["critical_differences", "letter_columns", "letter_display", "mean_letters"]

_ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#: Sets of means that are kept while they are split; a display of more could not be read.
_MOST = 500


def letter_columns(count: int, different: Iterable[tuple[int, int]]) -> list[frozenset[int]]:
    """The sets of means that share a letter, by insertion and absorption.

    At first one set has all means. For each pair that differs, every set with both is replaced by
    two, each without one of them; a set within another is dropped.

    Parameters
    ----------
    count : int
        Number of means.
    different : iterable of pairs of int
        The pairs that differ significantly.

    Returns
    -------
    list of frozenset of int
        Two means are together in some set if and only if they are not among the pairs.

    Raises
    ------
    ModelError
        If there are too many sets to hold.

    References
    ----------
    Piepho, H.-P. (2004). An algorithm for a letter-based representation of all-pairwise
    comparisons. Journal of Computational and Graphical Statistics 13, 456-466.

    Examples
    --------
    >>> [sorted(each) for each in letter_columns(3, [(0, 2)])]
    [[1, 2], [0, 1]]
    """
    columns = [frozenset(range(count))] if count else []
    for i, j in different:
        whole = [column for column in columns if i in column and j in column]
        kept = [column for column in columns if not (i in column and j in column)]
        for part in (each - {gone} for each in whole for gone in (i, j)):
            if part and not any(part <= other for other in kept):
                kept = [other for other in kept if not other <= part] + [part]
        columns = kept
        if len(columns) > _MOST:
            raise ModelError(
                f"Letters for {count} means take more than {_MOST:,} different ones; compare fewer "
                "means, for example within the levels of by."
            )
    return columns


def letter_display(order: Sequence[int], different: Iterable[tuple[int, int]]) -> list[str]:
    """The letters of each mean.

    Parameters
    ----------
    order : sequence of int
        The means from the first to the last letter.
    different : iterable of pairs of int
        The pairs that differ significantly.

    Returns
    -------
    list of str
        By the number of the mean.

    Examples
    --------
    >>> letter_display([2, 0, 1], [(0, 2), (1, 2)])
    ['b', 'b', 'a']
    """
    place = {mean: position for position, mean in enumerate(order)}
    pairs = [(place[i], place[j]) for i, j in different]
    columns = sorted(sorted(column) for column in letter_columns(len(order), pairs))
    named = [_ALPHABET[k] if k < len(_ALPHABET) else f"({k + 1})" for k in range(len(columns))]
    own = [
        "".join(name for name, column in zip(named, columns, strict=True) if position in column)
        for position in range(len(order))
    ]
    return [own[place[mean]] for mean in range(len(order))]


def mean_letters(
    means: Means, level: Any, adjust: Any, reverse: Any
) -> tuple[ResultTable, list[str]]:
    """See `MarginalMeans.letters`; also the letters alone."""
    level = checked_level(means.level if level is None else level)
    falling = checked_flag(reverse, "reverse")
    found = np.full(len(means.levels), "", dtype=object)
    estimates = means.estimates.estimate
    p = _pairwise_p(means, adjust)
    for rows, own in zip(means.groups(), p, strict=True):
        known = np.flatnonzero(np.isfinite(estimates[rows]))
        order = np.argsort(estimates[rows][known], kind="stable")
        place = {int(mean): i for i, mean in enumerate(known)}
        different = [
            (place[i], place[j])
            for (i, j), value in own.items()
            if value < 1.0 - level and i in place and j in place
        ]
        letters = letter_display((order[::-1] if falling else order).tolist(), different)
        found[rows[known]] = letters
    table = pd.DataFrame(means.to_frame())
    table["letters"] = pd.Series(found.tolist(), table.index, dtype=object)
    how = ADJUSTMENTS[METHODS["pairwise"] if adjust is None else adjust]
    note = (
        f"letters: means that share one do not differ at the level {100 * (1.0 - level):.4g} % "
        f"({how})"
    )
    return ResultTable.of(table, (*means.notes, note)), found.tolist()


def _pairwise_p(means: Means, adjust: Any) -> list[dict[tuple[int, int], float]]:
    """Adjusted probabilities of the differences of each group; NaN where one is not estimable."""
    groups = means.groups()
    several = [rows for rows in groups if len(rows) > 1]
    if not several:
        return [{} for _ in groups]
    values = iter(compare_means(means, "pairwise", adjust, None).p.tolist())
    out: list[dict[tuple[int, int], float]] = []
    for rows in groups:
        k = len(rows)
        pairs: list[tuple[int, int]] = [(i, j) for i in range(k) for j in range(i + 1, k)]
        out.append({pair: next(values) for pair in pairs})
    return out


def critical_differences(means: Means) -> list[tuple[NDArray[Any], NDArray[np.float64]]]:
    """For each group its rows and the smallest differences that are significant, (k, k)."""
    groups = means.groups()
    several = [rows for rows in groups if len(rows) > 1]
    halves = iter(compare_means(means, "pairwise", None, None).half.tolist() if several else [])
    out = []
    for rows in groups:
        k = len(rows)
        D = np.full((k, k), np.nan)
        for i in range(k):
            for j in range(i + 1, k):
                D[i, j] = D[j, i] = next(halves)
        out.append((rows, D))
    return out
