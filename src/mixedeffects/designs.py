"""Larger and smaller designs made from one that exists: more levels, or more rows in each."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from mixedeffects.covariance.sizes import refuse_beyond_memory
from mixedeffects.errors import ModelError
from mixedeffects.frame.model_frame import RandomTerm

__all__ = ["checked_variables", "grouping_variables", "with_levels", "with_rows_within"]


def with_levels(
    data: pd.DataFrame, along: str, n: int, terms: Sequence[RandomTerm]
) -> pd.DataFrame:
    """The design with n levels of one grouping variable.

    Levels are taken in order of appearance; when they run out, their rows are used again under new
    names. Grouping variables nested in it, such as teachers in schools, get new names too: the
    copies are other teachers.

    Parameters
    ----------
    data : DataFrame
        Rows of the design.
    along : str
        The variable.
    n : int
        Number of levels wanted.
    terms : sequence of RandomTerm
        Says which variables group rows.
    """
    codes, levels = pd.factorize(data[along], use_na_sentinel=False)
    _refuse_beyond_memory(data, n / max(len(levels), 1), f"{n:,} levels of {along}")
    variables = dict.fromkeys(v for term in terms for v in term.variables if v != along)
    nested = [v for v in variables if _is_nested(data[v], codes)]
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(levels) + 1))
    rows, copies = [], []
    for level in range(n):
        own = order[starts[level % len(levels)] : starts[level % len(levels) + 1]]
        rows.append(own)
        copies.append(np.full(len(own), level // len(levels)))
    out = data.iloc[np.concatenate(rows)].reset_index(drop=True)
    copy = np.concatenate(copies)
    for name in [along, *nested]:
        labels = out[name].astype(str).to_numpy(dtype=object)
        later = copy > 0
        labels[later] = labels[later] + "_" + (copy[later] + 1).astype(str).astype(object)
        out[name] = labels
    return out


def with_rows_within(data: pd.DataFrame, within: Sequence[str], n: int) -> pd.DataFrame:
    """The design with n rows in every combination of some variables, used again in turn.

    Parameters
    ----------
    data : DataFrame
        Rows of the design.
    within : sequence of str
        The variables.
    n : int
        Number of rows wanted in each combination that occurs.
    """
    codes = data.groupby(list(within), sort=False, observed=True).ngroup().to_numpy()
    combinations = int(codes.max(initial=-1)) + 1
    _refuse_beyond_memory(
        data, n * combinations / max(len(data), 1), f"{n:,} rows in each {' x '.join(within)}"
    )
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(codes.max() + 2))
    rows = [
        order[start + np.arange(n) % (stop - start)] for start, stop in itertools.pairwise(starts)
    ]
    return data.iloc[np.concatenate(rows)].reset_index(drop=True)


def _refuse_beyond_memory(data: pd.DataFrame, times: float, what: str) -> None:
    """Refuse a design that is so many times these data."""
    rows = times * len(data)
    # Labels are objects of some 60 bytes; a chunk of 64 responses is drawn at once, twice over.
    per_row = 70.0 * data.shape[1] + 8.0 * 2 * 64
    refuse_beyond_memory(rows * per_row, f"A design with {what}", "Use a smaller n.")


def grouping_variables(terms: Sequence[RandomTerm]) -> list[str]:
    """Columns of the data whose values make the levels of grouping factors."""
    return list(dict.fromkeys(v for term in terms for v in term.variables))


def checked_variables(names: Sequence[str], known: Sequence[str], argument: str) -> list[str]:
    """Names of columns, or an error that lists those there are."""
    for name in names:
        if name not in known:
            listed = ", ".join(repr(each) for each in known)
            raise ModelError(f"{argument} names {name!r}, which is not one of {listed}.")
    return list(names)


def _is_nested(values: pd.Series, codes: np.ndarray) -> bool:
    """Whether each value occurs with one code only."""
    inner, _ = pd.factorize(values, use_na_sentinel=False)
    pairs = np.unique(np.column_stack([inner, codes]), axis=0)
    return bool(len(pairs) == inner.max() + 1)
