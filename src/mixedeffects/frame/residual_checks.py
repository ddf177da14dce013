"""Refuse covariances of the residuals that the data cannot tell, before anything is fitted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from mixedeffects.errors import ModelError
from mixedeffects.formula.syntax import quote_name
from mixedeffects.frame.model_frame import RandomTerm
from mixedeffects.frame.rank import independent_columns
from mixedeffects.frame.residual_identifiability import Confounded, confounded, within_groups
from mixedeffects.frame.residual_term import ResidualTerm, VarianceTerm

__all__ = ["check_places", "check_residual"]

_MAY_REPEAT = ("diag", "cs")
#: How much of a column must be left for it to vary.
_VARIES = 1e-10

Rows = NDArray[np.intp]


def check_places(term: ResidualTerm) -> None:
    """Refuse groups in two strata, and two rows of a group at one place.

    Parameters
    ----------
    term : ResidualTerm
        The structure on the rows used.

    Raises
    ------
    ModelError
        Naming group, place and number of rows.
    """
    if term.stratum is not None:
        _check_strata(term, term.stratum)
    if term.kind not in _MAY_REPEAT and not term.nugget:
        _check_repeated(term)


def check_residual(
    term: ResidualTerm,
    terms: Sequence[RandomTerm],
    variance: VarianceTerm | None,
    weights: NDArray[np.float64] | None,
) -> None:
    """Refuse parameters of the residuals' covariance that the data cannot tell.

    Parameters
    ----------
    term : ResidualTerm
        The structure on the rows used, which `check_places` has passed.
    terms : sequence of RandomTerm
        The random-effects terms.
    variance : VarianceTerm or None
        What the residual standard deviation follows.
    weights : ndarray, shape (n,), or None
        Prior weights.

    Raises
    ------
    ModelError
        Naming the parameter, and what to write instead.
    """
    if term.strata is not None and len(term.strata) < 2:
        raise ModelError(
            f"`{term.by}` in `{term.text}` has one level ({term.strata[0]!r}) in the rows used. "
            "Leave `by` out."
        )
    for rows, within in _strata(term):
        if len(rows) < 2:
            raise ModelError(
                f"`{term.text}` has one row{within}, from which no variance can be estimated. Join "
                "strata, or leave the row out."
            )
        if term.kind != "diag":
            _check_sizes(term, rows, within)
        if term.kind == "us":
            _check_number_of_groups(term, rows, within)
        if not term.homogeneous or term.kind == "us":
            _check_times(term, rows, within)
        if term.kind in ("us", "toep", "ante"):
            _check_pairs(term, rows, within)
    if term.nugget and len(_few_distances(term)) == 1:
        raise ModelError(
            f"All distances within the groups of `{term.text}` are the same, so that how the "
            "correlation falls with the distance cannot be told from the nugget. Write "
            f"`cs(1 | {_group(term)})`."
        )
    if variance is not None:
        _check_variance(term, variance)
    if variance is None and weights is None:
        for random in terms:
            _refuse_known(term, random)
    found = confounded(term, terms, variance, weights)
    if found is not None:
        _refuse(found, term, terms, variance)


def _group(term: ResidualTerm) -> str:
    return quote_name(term.group) if term.variables == (term.group,) else term.group


def _where(term: ResidualTerm) -> str:
    return " + ".join(term.position) or "row"


def _strata(term: ResidualTerm) -> Iterator[tuple[Rows, str]]:
    """The rows of each stratum, and how to name it."""
    if term.strata is None or term.stratum is None:
        yield np.arange(len(term.codes)), ""
        return
    for s, label in enumerate(term.strata):
        yield np.flatnonzero(term.stratum == s), f" in stratum {label!r} of `{term.by}`"


# --- places ----------------------------------------------------------------------------


def _check_strata(term: ResidualTerm, stratum: NDArray[np.int32]) -> None:
    assert term.strata is not None
    of_group = np.empty(term.n_levels, dtype=np.int32)
    of_group[term.codes] = stratum
    mixed = np.flatnonzero(of_group[term.codes] != stratum)
    if len(mixed):
        row = mixed[np.argmin(term.codes[mixed])]
        group = term.codes[row]
        both = sorted({int(stratum[row]), int(of_group[group])})
        first, second = (term.strata[s] for s in both)
        n_groups = len(np.unique(term.codes[mixed]))
        raise ModelError(
            f"Group {term.levels[group]!r} of `{term.text}` has rows in two levels of `{term.by}`, "
            f"{first!r} and {second!r} ({n_groups:,} such group{'s' if n_groups > 1 else ''}). "
            "Rows of one group have the same parameters; if the names of the groups are used again "
            f"in each level, write `{quote_name(str(term.by))}:{_group(term)}` as the group."
        )


def _places(term: ResidualTerm) -> list[NDArray[np.int64]]:
    """Numbers that are the same for rows at the same place."""
    if term.coordinates is not None:
        return [np.unique(x, return_inverse=True)[1].reshape(-1) for x in term.coordinates.T]
    assert term.steps is not None
    return [term.steps]


def _check_repeated(term: ResidualTerm) -> None:
    cell = term.codes.astype(np.int64)
    places = _places(term)
    for place in places:
        number = place - place.min()
        width = int(number.max()) + 1
        if width > 2**31:
            number = pd.factorize(number)[0].astype(np.int64)
            width = int(number.max()) + 1
        cell = pd.factorize(cell * width + number)[0].astype(np.int64)
    counts = np.bincount(cell)
    if counts.max() == 1:
        return
    rows = np.flatnonzero(counts[cell] > 1)
    # The first in the order of groups and places, whatever the order of the rows.
    keys = [place[rows] for place in places[::-1]] + [term.codes[rows].astype(np.int64)]
    row = int(rows[np.lexsort(keys)[0]])
    n_places = int((counts > 1).sum())
    more = f" ({n_places:,} such places in all)" if n_places > 1 else ""
    nugget = (
        f"`{term.kind}({_where(term)} | {_group(term)}, nugget = TRUE)`"
        if term.kind in ("exp", "gau")
        else f"`exp({_where(term)} | {_group(term)}, nugget = TRUE)`"
        if term.kind in ("ar1", "car1")
        else ""
    )
    raise ModelError(
        f"Group {term.levels[term.codes[row]]!r} of `{term.text}` has {counts[cell[row]]:,} rows "
        f"at {_place_of(term, row)}{more}. Two rows at one place would have the correlation 1. "
        f"Name a finer group, such as `{_group(term)}:side`, or average these rows first"
        f"{', or give each residual a part of its own: ' if nugget else ''}{nugget}."
    )


def _place_of(term: ResidualTerm, row: int) -> str:
    if term.coordinates is not None:
        values = [f"{x:g}" for x in term.coordinates[row]]
    elif term.times is not None and term.steps is not None:
        values = [repr(term.times[term.steps[row]])]
    else:
        assert term.steps is not None
        values = [str(term.steps[row])]
    return ", ".join(f"`{n}` = {v}" for n, v in zip(term.position, values, strict=True))


# --- what can be told of the parameters ------------------------------------------------


def _check_sizes(term: ResidualTerm, rows: Rows, within: str) -> None:
    if np.bincount(term.codes[rows]).max() == 1:
        raise ModelError(
            f"Every group of `{term.text}` has one row{within}, so there is nothing to estimate "
            "correlations from. Name a coarser group, or leave `residual` out."
        )


def _check_number_of_groups(term: ResidualTerm, rows: Rows, within: str) -> None:
    n_groups = len(np.unique(term.codes[rows]))
    if n_groups < term.n_times:
        raise ModelError(
            f"`{term.text}` has {n_groups:,} groups{within} for {term.n_times:,} times: a free "
            "covariance matrix needs at least as many groups as times, or the likelihood has no "
            f"maximum. Write a structure with fewer parameters, such as `ar1({_where(term)} | "
            f"{_group(term)})` or `toep({_where(term)} | {_group(term)})`."
        )


def _check_times(term: ResidualTerm, rows: Rows, within: str) -> None:
    """Each time needs two rows, since one row can be fitted exactly."""
    if term.times is None or term.steps is None:
        return
    counts = np.bincount(term.steps[rows], minlength=term.n_times)
    anywhere = np.bincount(term.steps, minlength=term.n_times) > 0
    few = np.flatnonzero((counts < 2) & anywhere)
    if not len(few):
        return
    shown = ", ".join(repr(term.times[t]) for t in few[:5]) + (", ..." if len(few) > 5 else "")
    what = "rows" if term.kind in _MAY_REPEAT else "groups"
    raise ModelError(
        f"`{term.text}` has a {'variance' if not term.homogeneous else 'correlation'} for each "
        f"`{_where(term)}`, but fewer than 2 {what} at {shown}{within}, from which it cannot be "
        "estimated. Join times, leave these rows out, or write a structure that needs less"
        f"{'' if term.homogeneous else ', such as one with `hom = TRUE`'}."
    )


def _check_pairs(term: ResidualTerm, rows: Rows, within: str) -> None:
    if term.times is None or term.steps is None:
        return
    _, groups = np.unique(term.codes[rows], return_inverse=True)
    steps = term.steps[rows]
    ones = np.ones(len(rows))
    there = sparse.csr_array((ones, (groups, steps)), shape=(groups.max() + 1, term.n_times))
    together = sparse.coo_array(there.T @ there)
    if term.kind == "us":
        _check_all_pairs(term, together, within)
    elif term.kind == "toep":
        _check_lags(term, together, within)
    else:
        _check_connected(term, together, within)


def _check_all_pairs(term: ResidualTerm, together: sparse.coo_array, within: str) -> None:
    assert term.times is not None
    never = np.argwhere(np.triu(together.toarray() == 0))
    if len(never):
        a, b = (term.times[t] for t in never[0])
        more = f" ({len(never):,} such pairs)" if len(never) > 1 else ""
        raise ModelError(
            f"No group of `{term.text}` has rows at both {a!r} and {b!r}{within}{more}, so their "
            "correlation cannot be estimated. Join times, or write a structure with fewer "
            f"parameters, such as `ar1({_where(term)} | {_group(term)})`."
        )


def _check_lags(term: ResidualTerm, together: sparse.coo_array, within: str) -> None:
    seen = np.zeros(term.n_times, dtype=np.bool_)
    seen[np.abs(together.col - together.row)] = True
    never = np.flatnonzero(~seen)
    if len(never):
        shown = ", ".join(map(str, never[:5])) + (", ..." if len(never) > 5 else "")
        raise ModelError(
            f"`{term.text}` has a correlation for each number of steps between two rows, but no "
            f"group has two rows {shown} step{'s' if shown != '1' else ''} apart{within}. Write "
            f"`ar1({_where(term)} | {_group(term)})` or `cs(1 | {_group(term)})`."
        )


def _check_connected(term: ResidualTerm, together: sparse.coo_array, within: str) -> None:
    """The correlations of neighbours can be told as long as the times hang together."""
    assert term.times is not None
    _, part = connected_components(together, directed=False)
    apart = np.flatnonzero(part != part[0])
    if len(apart):
        a, b = term.times[0], term.times[apart[0]]
        raise ModelError(
            f"No groups of `{term.text}` join the times {a!r} and {b!r}{within}: none has rows at "
            "both, and none lead from one to the other over times between, so the correlations of "
            f"neighbours cannot be told. Write `ar1({_where(term)} | {_group(term)})`."
        )


# --- the same parameter twice ----------------------------------------------------------


def _check_variance(term: ResidualTerm, variance: VarianceTerm) -> None:
    """Refuse columns that say no more than the standard deviations of times and strata."""
    cell = np.zeros(len(term.codes), dtype=np.int64)
    of = []
    if not term.homogeneous and term.steps is not None:
        cell += term.steps
        of.append(f"`{_where(term)}`")
    if term.stratum is not None:
        cell = cell * term.n_strata + term.stratum
        of.append(f"`{term.by}`")
    if not of:
        return
    _, cell = np.unique(cell, return_inverse=True)
    counts = np.bincount(cell)
    left = np.empty_like(variance.v)
    for j, column in enumerate(variance.v.T):
        rest = column - (np.bincount(cell, weights=column) / counts)[cell]
        varies = np.linalg.norm(rest) > _VARIES * np.linalg.norm(column)
        left[:, j] = rest if varies else 0.0
    kept = set(independent_columns(np.asfortranarray(left)).tolist())
    same = [name for j, name in enumerate(variance.names) if j not in kept]
    if same:
        shown = ", ".join(f"`{name}`" for name in same)
        raise ModelError(
            f"`{term.text}` has a standard deviation for each {' and '.join(of)}, and {shown} of "
            f"variance={variance.text!r} cannot be told from them. "
            "Leave it out of one of the two."
        )


def _refuse(
    found: Confounded,
    term: ResidualTerm,
    terms: Sequence[RandomTerm],
    variance: VarianceTerm | None,
) -> NoReturn:
    """Say which parameters are the same covariance twice, and what to leave out."""
    said = []
    if found.residual:
        said.append(f"`{term.text}`")
    if found.variance:
        names = ", ".join(f"`{name}`" for name in found.variance)
        said.append(f"{names} of variance={'' if variance is None else variance.text!r}")
    for t in found.random:
        names = ", ".join(f"`{name}`" for name in terms[t].columns)
        said.append(f"the random effects of {names} on `{terms[t].group}`")
    together = " and ".join(said)
    cure = (
        "Leave one of them out"
        if len(said) > 1
        else "Join times or groups, so that more groups have rows in common"
    )
    excess = "is one" if found.excess == 1 else f"are {found.excess}"
    raise ModelError(
        f"The parameters of {together} cannot be told from each other in these data: there "
        f"{excess} too many for the variances and covariances within the groups. {cure}, or write "
        "a structure with fewer parameters."
    )


def _refuse_known(term: ResidualTerm, random: RandomTerm) -> None:
    """The usual cases: a free matrix and effects of time, one correlation and an intercept."""
    if not _same_groups(term, random):
        return
    if term.kind == "us" and not term.homogeneous and term.steps is not None:
        functions = [
            name
            for name, z in zip(random.columns, random.z.T, strict=True)
            if not _varies_within(z, term.steps, term.n_times)
        ]
        if functions:
            shown = ", ".join(f"`{name}`" for name in functions)
            raise ModelError(
                f"`{term.text}` already holds the random effects of {shown} on `{random.group}`, "
                f"which are the same for all rows at one `{_where(term)}`: a free covariance "
                "matrix of the times takes up any covariance of such effects. Leave them out, or "
                "write a structure of the residuals with fewer parameters."
            )
    one = term.kind in ("cs", "toep", "us") or len(_few_distances(term)) == 1
    constant = _has_constant(random)
    if constant and term.homogeneous and one:
        raise ModelError(
            f"`{term.text}` and the random intercept of `{random.group}` are the same covariance: "
            "each gives all rows of a group one variance and adds the same to their correlations. "
            f"Leave `{constant}` out of the term on `{random.group}`, or leave `residual` out."
        )


def _same_groups(term: ResidualTerm, random: RandomTerm) -> bool:
    return term.n_levels == random.n_levels and within_groups(term, random)


def _varies_within(values: NDArray[np.float64], codes: NDArray[np.integer], n_levels: int) -> bool:
    first = np.empty(n_levels)
    first[codes] = values
    return bool((np.abs(first[codes] - values) > _VARIES * np.abs(values).max()).any())


def _has_constant(random: RandomTerm) -> str:
    """The column that is the same in all rows, or makes it with others; empty if there is none."""
    for name, z in zip(random.columns, random.z.T, strict=True):
        if (z == z[0]).all():
            return name
    if random.structure == "us" and random.n_columns > 1:
        fitted = np.linalg.lstsq(random.z, np.ones(len(random.z)), rcond=None)[0]
        if np.abs(random.z @ fitted - 1.0).max() < _VARIES:
            return random.columns[0]
    return ""


def _few_distances(term: ResidualTerm) -> set[float]:
    """The different distances within groups, where no group has more than 3 rows; else none."""
    places = term.coordinates
    if places is None and term.steps is not None and term.kind in ("ar1", "ante"):
        places = term.steps[:, None].astype(np.float64)
    if places is None or np.bincount(term.codes).max() > 3:
        return set()
    order = np.argsort(term.codes, kind="stable")
    codes, places = term.codes[order], places[order]
    found: set[float] = set()
    for apart in (1, 2):
        pair = np.flatnonzero(codes[apart:] == codes[:-apart])
        distance = np.linalg.norm(places[pair + apart] - places[pair], axis=1)
        found |= set(distance.tolist())
    if term.kind == "ante" and len(np.unique(places)) > 2:
        return set()
    # What rounding makes different is the same distance.
    return {float(f"{distance:.10g}") for distance in found}
