"""The clusters of a robust covariance matrix: a grouping factor, a column, or an array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.covariance.groups import (
    Grouping,
    crossing_sentence,
    find_factor,
    outermost_factors,
)
from mixedeffects.covariance.structure import with_residual_factor
from mixedeffects.errors import DataError, ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.request import given_table
from mixedeffects.frame.columns import factor_of
from mixedeffects.frame.grouping import GroupColumn, combine
from mixedeffects.frame.ingest import materialised, take_columns, values_of_rows
from mixedeffects.frame.model_frame import RandomTerm

__all__ = [
    "ClusterFactor",
    "cluster_columns",
    "crossing_of",
    "intersection",
    "read_cluster",
    "read_levels",
]


@dataclass(frozen=True, eq=False)
class ClusterFactor:
    """The clusters of the rows used.

    Parameters
    ----------
    name : str
        What the clusters are called.
    codes : ndarray of int, shape (n,)
        Number of each row's cluster, 0 to J - 1, each with at least one row.
    levels : sequence of str, length J
        Names of the clusters.
    """

    name: str
    codes: NDArray[np.int64]
    levels: Sequence[str]

    @property
    def n_levels(self) -> int:
        """Number of clusters, J."""
        return len(self.levels)


def read_cluster(fit: Fit, cluster: Any) -> ClusterFactor:
    """The clusters that an argument ``cluster=`` means.

    Parameters
    ----------
    fit : Fit
        The fitted model.
    cluster : str, array of shape (n,), or None
        A grouping factor, a column of the data or several joined by ``:``; values, one for each
        row used or each row of the data (a Series goes by its labels); or None for the outermost
        grouping factor.

    Raises
    ------
    DataError
        If there is no such column, the length is wrong, or values are missing.
    ModelError
        If there is one cluster only, or None is given and no factor is the outermost.
    """
    factors = with_residual_factor(fit.frame.terms, fit.frame.residual)
    if cluster is None:
        if not factors:
            raise ModelError(
                "The model has no grouping factor, so cluster= must say what the clusters are: the "
                "name of a column, or a value for each row."
            )
        outermost = outermost_factors(factors)
        if not outermost:
            names = ", ".join(repr(name) for name in dict.fromkeys(t.group for t in factors))
            raise ModelError(
                f"The grouping factors {names} are crossed, so none of them is the outermost and "
                "cluster= must say what the clusters are: a factor in which V's blocks are nested, "
                "or a list of factors for multiway clustering."
            )
        cluster = outermost[-1]
    factor = read_levels(fit, cluster)
    if factor.n_levels < 2:
        raise ModelError(
            f"All rows lie in one cluster of {factor.name!r}, so there is no variation between "
            "clusters to estimate a variance from; a robust covariance matrix needs two clusters "
            "at the least, and good ones many more."
        )
    return factor


def cluster_columns(fit: Fit, cluster: Any) -> list[str]:
    """Columns of a table that clusters are made of, besides those of the grouping factors.

    Raises
    ------
    DataError
        If they are given as values, though the rows stayed in a table.
    """
    if fit.rows is None or cluster is None:
        return []
    if not isinstance(cluster, str):
        raise DataError(
            f"The rows stayed in the table ({fit.rows.model.table.engine}), so "
            "clusters are the name of a column of it, or of a grouping factor."
        )
    try:
        find_factor(with_residual_factor(fit.frame.terms, None), cluster)
    except ModelError:
        names = fit.rows.model.table.names
        return [cluster] if cluster in names else [part.strip() for part in cluster.split(":")]
    return []


def read_levels(
    fit: Fit, given: Any, argument: str = "cluster", role: str = "clusters"
) -> ClusterFactor:
    """Levels of the rows used, by the name of a factor or column, or by values.

    Parameters
    ----------
    fit : Fit
        The fitted model.
    given : str or array of shape (n,)
        As for `read_cluster`.
    argument, role : str
        What messages call the argument, and its values.

    Raises
    ------
    DataError
        If there is no such column, the length is wrong, or values are missing.
    """
    if isinstance(given, str):
        return _by_name(fit, given, role)
    return _by_values(fit, given, argument, role)


def _by_name(fit: Fit, name: str, role: str) -> ClusterFactor:
    factors = with_residual_factor(fit.frame.terms, fit.frame.residual)
    try:
        term = find_factor(factors, name)
    except ModelError:
        pass
    else:
        return ClusterFactor(term.group, term.codes.astype(np.int64), list(term.levels))
    table = materialised(given_table(fit.request))
    try:
        names, columns = [name], take_columns(table, [name])
    except DataError:
        names = [part.strip() for part in name.split(":")]
        if len(names) == 1:
            raise
        columns = take_columns(table, names)
    used = columns.iloc[fit.frame.positions]
    return _coded([used[column] for column in names], names, role)


def _by_values(fit: Fit, values: Any, argument: str, role: str) -> ClusterFactor:
    frame = fit.frame
    name = str(getattr(values, "name", None) or argument)
    n_rows = fit.nobs + len(frame.dropped.rows)
    series = values_of_rows(
        f"the {role}",
        values,
        frame.index,
        frame.positions,
        n_rows,
        instead="the name of a grouping factor or column, or ",
    )
    return _coded([series.rename(name)], [name], role)


def _coded(columns: Sequence[pd.Series[Any]], names: Sequence[str], role: str) -> ClusterFactor:
    parts = []
    for series, name in zip(columns, names, strict=True):
        codes, values, _ = factor_of(series)
        missing = int((codes < 0).sum())
        if missing:
            raise DataError(
                f"The column {name!r} has {missing} missing values in the rows used, and {role} "
                f"need a value. Drop these rows before the fit, or give them {role} of their own."
            )
        parts.append(GroupColumn(codes, values, False))
    grouping = combine(parts, names)
    return ClusterFactor(":".join(names), grouping.codes.astype(np.int64), grouping.labels)


def crossing_of(terms: Sequence[Grouping], cluster: ClusterFactor) -> str | None:
    """How V connects rows of different clusters, in a sentence; None if it does not."""
    by = RandomTerm(
        label=cluster.name,
        group=cluster.name,
        variables=(cluster.name,),
        columns=(),
        codes=cluster.codes.astype(np.int32),
        levels=pd.Index(cluster.levels),
        level_values=pd.Index(cluster.levels),
        z=np.zeros((len(cluster.codes), 0)),
    )
    return crossing_sentence(terms, by)


def intersection(factors: Sequence[ClusterFactor]) -> ClusterFactor:
    """Clusters of the rows that share the levels of all factors."""
    if len(factors) == 1:
        return factors[0]
    combined = factors[0].codes
    for factor in factors[1:]:
        combined, _ = pd.factorize(combined * factor.n_levels + factor.codes)
        combined = combined.astype(np.int64)
    return ClusterFactor(
        ":".join(factor.name for factor in factors),
        combined,
        [str(number) for number in range(int(combined.max()) + 1)],
    )
