"""Larger and smaller designs made from one that exists: more levels, or more rows in each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.options import member
from mixedeffects.covariance.sizes import refuse_beyond_memory
from mixedeffects.errors import ModelError

__all__ = [
    "Groups",
    "checked_variables",
    "grouping_variables",
    "is_nested",
    "with_levels",
    "with_rows_within",
]


class Groups(Protocol):
    """Groups of rows."""

    @property
    def variables(self) -> tuple[str, ...]:
        """The columns whose combinations make them."""


def with_levels(
    data: pd.DataFrame, along: str, n: int, terms: Sequence[Groups], fixed: Sequence[str] = ()
) -> pd.DataFrame:
    """The design with n levels of one grouping variable.

    The rows of a level are used as they are, once or again under a new name of the level, so that
    what is crossed with it stays crossed: the same items, the same treatments. Grouping variables
    nested in it, such as teachers in schools, get new names too: the copies are other teachers.
    Levels are taken in order of appearance within each treatment, and treatments in turn, so that
    their shares stay what they are in the data, as nearly as n allows.

    Parameters
    ----------
    data : DataFrame
        Rows of the design.
    along : str
        The variable.
    n : int
        Number of levels wanted.
    terms : sequence of Groups
        Say which variables group rows.
    fixed : sequence of str
        Variables of the fixed part and the like, whose values are never renamed.
    """
    codes, levels = pd.factorize(data[along], use_na_sentinel=False)
    _refuse_beyond_memory(data, n / max(len(levels), 1), f"{n:,} levels of {along}")
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(levels) + 1))
    rows, copies = [], []
    for level, copy in itertools.islice(_in_turn(_treatments(data, codes, fixed)), n):
        own = order[starts[level] : starts[level + 1]]
        rows.append(own)
        copies.append(np.full(len(own), copy))
    out = data.iloc[np.concatenate(rows)].reset_index(drop=True)
    numbers = np.concatenate(copies)
    later = numbers > 0
    ending = (numbers[later] + 1).astype(str).astype(object)
    for name in [along, *_nested_variables(data, along, codes, terms, fixed)]:
        labels = out[name].astype(str).to_numpy(dtype=object)
        taken, sign = set(data[name].astype(str)), "_"
        while not taken.isdisjoint(labels[later] + sign + ending):
            sign += "_"
        labels[later] = labels[later] + sign + ending
        out[name] = labels
    return out


def _treatments(
    data: pd.DataFrame, codes: NDArray[np.intp], fixed: Sequence[str]
) -> list[tuple[frozenset[object], ...]]:
    """What each level of a grouping variable has of the factors of the fixed part."""
    n_levels = int(codes.max()) + 1
    seen: list[list[frozenset[object]]] = [[] for _ in range(n_levels)]
    for name in fixed:
        values, different = pd.factorize(data[name], use_na_sentinel=False)
        of_levels = pd.Series(values).groupby(codes).agg(frozenset)
        constant = bool((of_levels.map(len) == 1).all())
        # A number is a treatment where groups share its values, a covariate where they do not.
        number = pd.api.types.is_numeric_dtype(data[name]) and not pd.api.types.is_bool_dtype(
            data[name]
        )
        if number and not (constant and 2 * len(different) <= n_levels):
            continue
        for level, own in enumerate(of_levels):
            seen[level].append(own)
    return [tuple(own) for own in seen]


def _in_turn(treatments: Sequence[object]) -> Iterator[tuple[int, int]]:
    """Levels and the number of their copy, without end, treatments in their proportions."""
    members: dict[object, list[int]] = {}
    for level, treatment in enumerate(treatments):
        members.setdefault(treatment, []).append(level)
    groups = list(members.values())
    if 2 * len(groups) > len(treatments):
        # Hardly two levels are alike: there is no treatment to keep in proportion.
        groups = [list(range(len(treatments)))]
    taken = [0] * len(groups)
    for count in itertools.count(1):
        share = count / len(treatments)
        g = max(range(len(groups)), key=lambda i: round(len(groups[i]) * share - taken[i], 9))
        yield groups[g][taken[g] % len(groups[g])], taken[g] // len(groups[g])
        taken[g] += 1


def _nested_variables(
    data: pd.DataFrame,
    along: str,
    codes: NDArray[np.intp],
    terms: Sequence[Groups],
    fixed: Sequence[str],
) -> list[str]:
    """Grouping variables each of whose values belongs to one level, and that do not contain it."""
    of_terms = [set(term.variables) for term in terms]
    nested = []
    for name in grouping_variables(terms):
        with_it = [own for own in of_terms if along in own]
        outer = any(name in own and along not in own for own in of_terms) and all(
            name in own for own in with_it
        )
        if name != along and name not in fixed and not outer and is_nested(data[name], codes):
            nested.append(name)
    return nested


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


def grouping_variables(terms: Sequence[Groups]) -> list[str]:
    """Columns of the data whose values make the levels of grouping factors."""
    return list(dict.fromkeys(v for term in terms for v in term.variables))


def checked_variables(names: Sequence[str], known: Sequence[str], argument: str) -> list[str]:
    """Names of columns, or an error that lists those there are."""
    for name in names:
        if not member(name, known):
            listed = ", ".join(repr(each) for each in known)
            raise ModelError(f"{argument} names {name!r:.60}, which is not one of {listed}.")
    return list(names)


def is_nested(values: pd.Series, codes: NDArray[np.intp]) -> bool:
    """Whether each value occurs with one code only."""
    inner, _ = pd.factorize(values, use_na_sentinel=False)
    pairs = np.unique(np.column_stack([inner, codes]), axis=0)
    return bool(len(pairs) == inner.max() + 1)
