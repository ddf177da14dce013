"""F tests of factors and interactions by the means they make: emmeans' joint tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.options import checked_names
from mixedeffects.display.result_table import ResultTable
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.formula.syntax import variable_names
from mixedeffects.frame.columns import labels_of
from mixedeffects.inference.estimability import all_columns
from mixedeffects.inference.marginal_means import MarginalMeans, marginal_means
from mixedeffects.inference.mean_comparisons import compared
from mixedeffects.inference.mean_contrasts import contrast_coefficients, interaction_coefficients
from mixedeffects.inference.nested_factors import Nesting, find_nesting
from mixedeffects.inference.reference_grid import ReferenceGrid, reference_grid
from mixedeffects.inference.variance import FixedEffectsVariance
from mixedeffects.inference.wald import f_statistic, p_of_f

__all__ = ["joint_tests"]

Matrix = NDArray[np.float64]


#: From contrasts to the F statistic without its scaling, numerator and denominator df, and scaling.
JointTest = Callable[[Matrix], tuple[float, int, float, float]]


def joint_tests(
    fit: Fit,
    by: Any,
    at: Any,
    weights: str,
    ddf: str,
    vcov: str,
    cluster: Any,
    pooled: tuple[Matrix, FixedEffectsVariance, JointTest] | None = None,
) -> ResultTable:
    """See `LinearMixedModel.joint_tests`.

    ``pooled`` are estimates, their variance and joint test that stand for several fits like this
    one.
    """
    encoder = all_columns(fit)
    grid = reference_grid(fit, encoder, at)
    at = dict(at) if at is not None else {}
    groups = [] if by is None else [str(name) for name in checked_names(by, "by")]
    for v in grid.variables:
        if v.kind == "number" and not v.counted and not v.chosen and v.name not in groups:
            # Two values, so that a covariate is tested by its slope.
            at[v.name] = [v.points[0] - 1.0, v.points[0] + 1.0]
    grid = reference_grid(fit, encoder, at)
    nesting = find_nesting(grid)
    rows: list[dict[str, Any]] = []
    for factors, containing in _tested(grid, nesting, groups):
        means = marginal_means(
            fit,
            list(factors),
            by,
            at,
            weights,
            0.95,
            ddf,
            vcov,
            cluster,
            "none",
            pooled=None if pooled is None else pooled[:2],
        )
        if pooled is None:
            test: JointTest = partial(f_statistic, fit, variance=means._variance)
        else:
            test = pooled[2]
        for own in means.groups():
            first = means.levels.iloc[own[0]]
            rows.append(
                {
                    "term": ":".join(factors),
                    **{name: first[name] for name in means.by},
                    **_test(test, means, _contrasts(means, own, factors, containing)),
                }
            )
    if not rows:
        raise ModelError(
            "There is nothing to test: no variable of the fixed part, beside those in by=, has two "
            "or more values in the reference grid."
        )
    table = pd.DataFrame(rows)
    method = means._variance.method.removeprefix("t-tests use ").removeprefix("z-tests, ")
    if means._variance.normal:
        # Chi-square, and not F with infinitely many degrees of freedom.
        table["statistic"] *= table["num_df"]
        table = table.drop(columns="den_df").rename(columns={"num_df": "df"})
    return ResultTable.of(table, (method,))


def _tested(
    grid: ReferenceGrid, nesting: Nesting, groups: Sequence[str]
) -> list[tuple[tuple[str, ...], list[str]]]:
    """Variables that stand together in a term, and the factors that contain nested ones."""
    axes = [v.name for v in grid.variables if len(v.points) > 1 and v.name not in groups]
    coders = grid.encoder.coders
    together = [
        {name for i in term for name in variable_names(coders[i].tree)}
        for term in grid.encoder.table.terms
    ]
    together += [{name, *outer} for name, outer in nesting.items()]
    largest = max((len(own & set(axes)) for own in together), default=0)
    out = []
    for size in range(1, largest + 1):
        for factors in combinations(axes, size):
            around = [o for name in factors for o in nesting.get(name, ()) if o not in groups]
            containing = list(dict.fromkeys(around))
            if set(containing) <= set(factors) and any(set(factors) <= own for own in together):
                out.append((factors, containing))
    return out


def _contrasts(
    means: MarginalMeans, rows: NDArray[np.intp], factors: Sequence[str], containing: Sequence[str]
) -> Matrix:
    """Differences of differences, of nested factors within those that contain them."""
    inner = [name for name in factors if name not in containing]
    levels = means.levels.iloc[rows]
    parts = [rows]
    if containing:
        numbers = levels.groupby(list(containing), sort=False, observed=True).ngroup().to_numpy()
        parts = [rows[numbers == g] for g in np.unique(numbers)]
    made = [np.empty((0, means.L.shape[1]))]
    for own in parts:
        if len(own) < 2:
            continue
        labels = [labels_of(means.levels[name].iloc[own].unique().tolist()) for name in inner]
        if np.prod([len(each) for each in labels]) == len(own):
            if min(len(each) for each in labels) < 2:
                continue
            C = interaction_coefficients(["consec"] * len(inner), labels)[1]
        else:
            C = contrast_coefficients("consec", [str(i) for i in own])[1]
        made.append(compared(means, C, own))
    return np.vstack(made)


def _test(test: JointTest, means: MarginalMeans, L: Matrix) -> dict[str, Any]:
    known = np.isfinite(L).all(axis=1)
    some = L[known]
    some = some[np.abs(some).max(axis=1, initial=0.0) > 1e-10]
    note = "" if known.all() else f"{(~known).sum()} of {len(L)} contrasts are not estimable"
    F, q, df, scaling = np.nan, 0, np.nan, 1.0
    if len(some):
        try:
            F, q, df, scaling = test(some)
        except ModelError:
            if means._variance.unseen is None:
                raise
            q, note = len(some), "the clusters do not show this variance"
    statistic = scaling * F
    return {
        "num_df": q,
        "den_df": df,
        "statistic": statistic,
        "p_value": p_of_f(statistic, q, df) if q and not np.isnan(F) else np.nan,
        "note": note,
    }
