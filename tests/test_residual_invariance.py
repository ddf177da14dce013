"""What a fit with correlated residuals must not depend on: order, names and units."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mixedeffects as me
from residual_references import NAMES, answer, data, fitted, known_covariance

#: Two runs of a search stop within 1e-9 of the optimum, and their criteria are sums of n terms.
TOLERANCE = 1e-9
#: The time, or the coordinates, that distances are measured in.
TIMES = {
    "bodyweight_slopes_car1": ("Time",),
    "ovary_car1": ("Time",),
    "wheat2_exp": ("latitude", "longitude"),
    "wheat2_gau_nugget": ("latitude", "longitude"),
    "fev_spexp": (),
}
SLOW = {"bcva_us", "insteval_varservice", "dialyzer_slopes_varpower"}
MODELS = [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in NAMES]


def again(name: str, table: pd.DataFrame, rows: Any = None, **changed: Any) -> me.LinearMixedModel:
    asked = dict(answer(name)["ours"]) | changed
    if name == "berkey_known_V" and "residual" not in changed:
        K = known_covariance(data(name))
        asked["residual"] = me.known(K if rows is None else K[np.ix_(rows, rows)])
    return me.lmer(asked.pop("formula"), table, **asked)


def same(name: str, found: me.LinearMixedModel, shift: float = 0.0) -> None:
    expected = fitted(name)
    assert found.criterion - shift == pytest.approx(
        expected.criterion, abs=TOLERANCE * max(1.0, abs(expected.criterion))
    )
    assert found.optimum.converged


@pytest.mark.parametrize("name", MODELS)
def test_rows_in_any_order_with_other_names_of_groups(name: str) -> None:
    table = data(name)
    rows = np.random.default_rng(5).permutation(len(table))
    table = table.iloc[rows].reset_index(drop=True)
    groups = set(re.findall(r"\|\s*(\w+)", " ".join(map(str, answer(name)["ours"].values()))))
    for group in groups & set(table.columns):
        codes, levels = pd.factorize(table[group])
        names = np.array([f"level {k}" for k in np.random.default_rng(6).permutation(len(levels))])
        table[group] = names[codes]
    same(name, again(name, table, rows))


@pytest.mark.parametrize("name", MODELS)
def test_another_unit_of_the_response(name: str) -> None:
    asked = answer(name)["ours"]
    m, factor = fitted(name), 37.0
    response = asked["formula"].split("~")[0].strip()
    table = data(name).copy()
    changed: dict[str, Any] = {}
    if response in table.columns:
        table[response] = factor * table[response]
    else:
        changed["formula"] = asked["formula"].replace(response, f"I({factor} * {response})", 1)
    if "sigma" in asked:
        changed["sigma"] = factor * asked["sigma"]
    rank = len(m.fixef) if m.reml else 0
    same(name, again(name, table, **changed), 2.0 * (m.nobs - rank) * np.log(factor))


@pytest.mark.parametrize("name", [name for name in NAMES if TIMES.get(name)])
def test_another_unit_of_time(name: str) -> None:
    factor = 0.013
    asked = answer(name)["ours"]
    table = data(name).copy()
    for column in TIMES[name]:
        table["long_" + column] = factor * table[column]
    residual = re.sub("|".join(TIMES[name]), lambda own: "long_" + own[0], asked["residual"])
    assert residual != asked["residual"]
    m = again(name, table, residual=residual)
    same(name, m)
    assert m.R.parameters["range"] == pytest.approx(
        factor * fitted(name).R.parameters["range"], rel=1e-5
    )


@pytest.mark.parametrize("power", [False, True])
def test_another_unit_of_what_the_variance_follows(power: bool) -> None:
    name = "dialyzer_ar1_varpower"
    if not power:
        m = me.lmer("distance ~ age", data("ortho_ar1_ml"), variance="age")
        other = data("ortho_ar1_ml").assign(months=lambda own: 12.0 * own["age"])
        found = me.lmer("distance ~ age", other, variance="months")
        assert found.criterion == pytest.approx(m.criterion, abs=TOLERANCE * abs(m.criterion))
        return
    table = data(name).copy()
    table["small"] = 0.01 * table["pressure"]
    variance = answer(name)["ours"]["variance"]
    assert "pressure" in variance
    same(name, again(name, table, variance=variance.replace("pressure", "small")))
