"""All checks of a fit in one call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.options import entropy_of
from mixedeffects.covariance.of_residuals import factors_of_rows
from mixedeffects.covariance.sizes import refuse_beyond_memory
from mixedeffects.diagnostics import check_design, check_residuals
from mixedeffects.diagnostics.check_comparison import Comparison
from mixedeffects.diagnostics.check_draws import number_of_draws
from mixedeffects.diagnostics.check_influence import influential_levels
from mixedeffects.diagnostics.check_levels import factors_by_name
from mixedeffects.diagnostics.check_pictures import picture_data
from mixedeffects.diagnostics.check_residuals import Order
from mixedeffects.diagnostics.check_result import ModelChecks
from mixedeffects.diagnostics.check_steps import asked_checks, make_checks
from mixedeffects.diagnostics.check_verdict import FAR_BELOW, Finding
from mixedeffects.diagnostics.variogram import clusters_of
from mixedeffects.errors import DataError, ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.request import given_table
from mixedeffects.frame.columns import describe_type
from mixedeffects.frame.ingest import materialised, take_columns, values_of_rows
from mixedeffects.inference.cluster_factor import read_levels
from mixedeffects.progress import ProgressOption

__all__ = ["CHECKS", "check"]

#: The checks, in the order in which they are made.
CHECKS = (
    "normality",
    "spread",
    "autocorrelation",
    "linearity",
    "simulation",
    "outliers",
    "influence",
    "collinearity",
    "levels",
    "singularity",
    "grouping",
)

#: Those that compare with data sets drawn from the fit, whatever the fit is.
COMPARED = ("normality", "spread", "autocorrelation", "simulation", "outliers")

#: Those of random effects alone.
OF_RANDOM_EFFECTS = ("levels", "singularity", "grouping")

#: Seed, where none is given.
SEED = 1


def check(
    fit: Fit,
    which: Any = None,
    order: Any = None,
    by: Any = None,
    draws: int | None = None,
    seed: Any = SEED,
    level: float = 0.05,
    progress: ProgressOption = None,
) -> ModelChecks:
    """See `LinearMixedModel.check`.

    Raises
    ------
    DataError
        If the order or the groups are missing, or of a kind that has no order.
    Interrupted
        On Ctrl-C, with what is done.
    ModelError
        If an argument is not what it should be.
    """
    asked = asked_checks(CHECKS, which, draws, level, lambda: number_of_draws(fit))
    if order is None and by is not None:
        raise ModelError("by= says within which groups the rows are in order; give order= too.")
    if order is None and which is not None and "autocorrelation" in asked.names:
        raise ModelError(
            "Autocorrelation is checked along an order: order= names a column, such as a time."
        )
    neighbours = None if order is None else _neighbours(fit, order, by)
    count = asked.count
    comparison = Comparison(fit, count, entropy_of(seed), asked.level)
    # Residuals, fitted values and ranks of every data set, and as much again in the making.
    refuse_beyond_memory(48.0 * count * len(comparison.rows), f"{count:,} draws", "Ask for fewer.")
    if neighbours is not None:
        neighbours = neighbours.among(comparison.rows, fit.nobs)
    compared = any(name in COMPARED for name in asked.names)
    compared = compared or ("linearity" in asked.names and comparison.curves.columns.shape[1] > 0)
    batches = comparison.batches.batches if compared else []
    return make_checks(
        fit,
        asked,
        [f"{drawn:,} data sets drawn" for _, drawn in batches],
        comparison.batches.make,
        lambda name, notes, tables: _findings(name, comparison, neighbours, notes, tables),
        lambda notes: [
            *comparison.notes(),
            *notes,
            *_further_notes(comparison, neighbours, asked.names),
        ],
        lambda tables: picture_data(comparison, asked.names, tables),
        progress,
    )


def _further_notes(c: Comparison, neighbours: Order | None, made: list[str]) -> Iterator[str]:
    """What is to be said of the checks together."""
    by_level = [name for name in made if name in ("spread", "influence")]
    if by_level and not factors_by_name(c.fit):
        yield f"The model has no groups of rows, so there is no {' or '.join(by_level)} by level."
    without = [name for name in made if name in OF_RANDOM_EFFECTS]
    if without and not c.fit.frame.terms:
        yield f"The model has no random effects, so there is no check of {' or '.join(without)}."
    if c.asked and c.draws.count + 1 < FAR_BELOW / c.level:
        least = int(np.ceil(FAR_BELOW / c.level)) - 1
        yield f"No p-value of so few draws is a `problem` by itself; it takes {least:,}."
    if neighbours is not None and neighbours.ties:
        yield (
            f"{neighbours.ties:,} of {len(neighbours.later):,} neighbours share a place in "
            f"{neighbours.name!r} within {neighbours.by} and were taken in the order of the data: "
            "by= names the groups within which that is the order."
        )
    if not c.fit.optimum.converged:
        yield "The fit did not converge, so the checks are of a fit that may not be it."


def _findings(
    name: str,
    c: Comparison,
    neighbours: Order | None,
    notes: list[str],
    tables: dict[str, Any],
) -> Iterator[Finding]:
    """What one check finds; what it leaves out goes into notes, what it lists into tables."""
    fit = c.fit
    no_rows_left = name in ("normality", "spread", "outliers") and len(c.usable) < 3
    if no_rows_left:
        notes.append(f"Residuals were not looked at for {name}: the model leaves none free.")
    elif name == "normality":
        yield from check_residuals.normality(c, notes)
    elif name == "spread":
        yield from check_residuals.spread(c, notes)
    elif name == "autocorrelation":
        if neighbours is not None:
            yield check_residuals.autocorrelation(c, neighbours)
        else:
            notes.append("Autocorrelation was not checked: order= names a column, such as a time.")
    elif name == "linearity":
        yield from check_residuals.curvature(c, notes)
    elif name == "simulation":
        yield check_residuals.simulated_ranks(c)
        index = fit.frame.index[c.rows]
        tables["ranks"] = pd.Series(c.data.ranks[:, 0], index=index, name="rank")
    elif name == "outliers":
        finding, tables["outliers"] = check_residuals.outlying_rows(c)
        yield finding
    elif name == "influence":
        yield from influential_levels(c, notes, tables["influence"])
    elif name == "collinearity":
        yield from check_design.collinearity(fit, notes, tables)
    elif name == "levels":
        yield from check_design.few_levels(fit)
    elif name == "singularity":
        yield from check_design.singularity(fit)
    else:
        yield from check_design.separable_factors(fit)


def _neighbours(fit: Fit, order: Any, by: Any) -> Order:
    """Pairs of rows that follow each other within groups."""
    frame = fit.frame
    if isinstance(order, str):
        name = order
        table = take_columns(materialised(given_table(fit.request)), [name])
        values: Any = table[name].iloc[frame.positions]
    else:
        name, values = str(getattr(order, "name", None) or "order"), order
    n_rows = fit.nobs + len(frame.dropped.rows)
    series = values_of_rows(f"the order {name!r}", values, frame.index, frame.positions, n_rows)
    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype) and dtype.ordered:
        series = pd.Series(series.cat.codes, index=series.index).where(series.notna())
    elif not (
        (pd.api.types.is_numeric_dtype(dtype) and dtype.kind != "c")
        or pd.api.types.is_datetime64_any_dtype(dtype)
        or pd.api.types.is_timedelta64_dtype(dtype)
    ):
        raise DataError(
            f"The order {name!r} holds {describe_type(series)}; numbers, dates or an ordered "
            "categorical are needed."
        )
    missing = int(series.isna().sum())
    if missing:
        raise DataError(f"The order {name!r} has {missing:,} missing values in the rows used.")
    place: NDArray[np.intp] = np.asarray(series.rank(method="dense"), dtype=np.intp)
    if by is None:
        # With variance= alone there are no groups: the rows are one series.
        whole = (np.zeros(fit.nobs, dtype=np.int64), "the data")
        codes, label = clusters_of(fit, None) if factors_of_rows(fit) else whole
        found = _following(codes, place)
        if found[2]:
            # Visits of patients in centres: the order is that of patients.
            inner = {t.group: _following(t.codes, place) for t in frame.terms}
            single = {g: own for g, own in inner.items() if len(own[0]) and not own[2]}
            if single:
                label = max(single, key=lambda group: len(single[group][0]))
                found = single[label]
    else:
        factor = read_levels(fit, by, "by", "groups")
        label, found = factor.name, _following(factor.codes, place)
    if not len(found[0]):
        raise ModelError(f"No two rows share a level of {label}, so none follows another.")
    return Order(name, label, *found)


def _following(codes: NDArray[Any], place: NDArray[np.intp]) -> tuple[Any, Any, int]:
    """Rows, the ones that follow them within their group, and how many of these pairs are ties."""
    sorted_rows = np.lexsort((place, codes))
    same = codes[sorted_rows[1:]] == codes[sorted_rows[:-1]]
    earlier, later = sorted_rows[:-1][same], sorted_rows[1:][same]
    return earlier, later, int((place[earlier] == place[later]).sum())
