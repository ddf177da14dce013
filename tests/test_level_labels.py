"""A label means one level, a key one parameter: never the rows or the interval of another."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

import mixedeffects as me

PAIRS = [(c, s) for s in ("z", "y:z", "w") for c in ("x:y", "x", "q")]


@pytest.fixture(scope="module")
def colons() -> pd.DataFrame:
    """Nested levels of which two are both written x:y:z."""
    rng = np.random.default_rng(5)
    data = pd.DataFrame([pair for pair in PAIRS for _ in range(6)], columns=["c", "s"])
    data["n"] = np.repeat(np.arange(9), 6)
    data["x"] = rng.normal(size=54)
    return data.assign(y=data.x + rng.normal(size=9)[data.n] * 2 + 0.3 * rng.normal(size=54))


@pytest.fixture(scope="module")
def m(colons: pd.DataFrame) -> me.LinearMixedModel:
    return me.lmer("y ~ x + (1 | c:s)", colons)


def rows_of(data: pd.DataFrame, c: str, s: str) -> list[int]:
    return data.index[(data["c"] == c) & (data["s"] == s)].tolist()


def test_blocks_of_levels_that_are_written_alike(
    m: me.LinearMixedModel, colons: pd.DataFrame
) -> None:
    for c, s in PAIRS:
        assert m.V.block((c, s)).index.tolist() == rows_of(colons, c, s)
        assert m.V.block((s, c)).index.tolist() == rows_of(colons, c, s)
    with pytest.raises(me.ModelError, match=r"'x:y:z'.*\('x', 'y:z'\), \('x:y', 'z'\) exist"):
        m.V.block("x:y:z")
    assert m.V.block("q:w").index.tolist() == rows_of(colons, "q", "w")
    assert m.V.block("('x:y', 'z')").index.tolist() == rows_of(colons, "x:y", "z")
    nested = me.lmer("y ~ x + (1 | s/c)", colons)
    with pytest.raises(me.ModelError, match="ambiguous"):
        nested.V.block("x:y:z")
    with pytest.raises(me.ModelError, match="ambiguous"):
        nested.V.block("x:y:z", by="s:c")
    assert nested.V.block(("z", "x:y")).index.tolist() == rows_of(colons, "x:y", "z")
    assert nested.V.block("y:z").index.tolist() == colons.index[colons.s == "y:z"].tolist()


def test_tables_tell_such_levels_apart(m: me.LinearMixedModel, colons: pd.DataFrame) -> None:
    numbered = me.lmer("y ~ x + (1 | n)", colons)
    order = numbered.ranef()["n"].to_numpy()
    by_label = {f"{c}:{s}": order[i] for i, (c, s) in enumerate(PAIRS)}
    by_label |= {repr(pair): order[PAIRS.index(pair)] for pair in PAIRS}
    for fit in (m, pickle.loads(pickle.dumps(m)), m.without_data()):
        modes = fit.ranef()["c:s"]
        assert modes.index.is_unique
        assert "x:y:z" not in modes.index
        for label, value in modes["(Intercept)"].items():
            assert_allclose(value, by_label[label])
    assert len(set(m.to_dict(ranef=True)["ranef"]["c:s"]["levels"])) == 9
    assert m.G.labels().is_unique
    assert [level for level, _, _ in m.V.blocks("c:s")] == m.ranef()["c:s"].index.tolist()
    own = numbered.influence("n").cooks_distance.to_numpy()
    for by in ("c:s", "s:c"):
        found = m.influence(by).cooks_distance
        assert found.index.is_unique
        assert_allclose(np.sort(found), np.sort(own))
    assert m.influence("c:s", refit=True).variance_change.shape == (9, 2)
    folds = me.cross_validate(m, by="c:s").to_frame()
    assert_allclose(folds, me.cross_validate(numbered, by="n").to_frame())
    assert_allclose(m.vcov("CR2", cluster="c:s"), numbered.vcov("CR2", cluster="n"))


def test_predictions_for_such_levels(m: me.LinearMixedModel, colons: pd.DataFrame) -> None:
    assert_allclose(m.predict(colons.sample(frac=1, random_state=1)).sort_index(), m.fitted)
    new = pd.DataFrame({"x": 0.0, "c": ["x:y:z", "x", "x:y"], "s": ["w", "y", "y:z"]})
    with pytest.raises(me.DataError, match="2 levels that the fit did not see: 'x:y:z:w', 'x:y'"):
        m.predict(new)


def test_labels_of_one_column_and_of_a_combination(colons: pd.DataFrame) -> None:
    both = colons.assign(**{"c:s": colons["n"] % 3})
    with pytest.raises(me.ModelError, match="Two grouping factors are called `c:s`"):
        me.lmer("y ~ x + (1 | c:s) + (1 | `c:s`)", both)


LEVELS: list[tuple[Any, list[Any]]] = [
    ([True, False], [True, np.True_, "TRUE", "True"]),
    ([1, 2], [1, 1.0, np.int8(1), np.float32(1), "1"]),
    ([1.0, 2.5], [1, 1.0, "1", "1.0"]),
    ([2.5, 1.0], [2.5, "2.5"]),
    (["1", "2"], [1, 1.0, "1"]),
    (["True", "False"], [True, "True"]),
    (["TRUE", "FALSE"], [True, "TRUE"]),
    (["1.0", "2.0"], [1.0, "1.0"]),
    (list(pd.to_datetime(["2020-01-01", "2021-01-01"])), [pd.Timestamp("2020-01-01")]),
]


@pytest.mark.parametrize(("values", "spellings"), LEVELS)
def test_spellings_of_a_level(values: list[Any], spellings: list[Any]) -> None:
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"g": np.tile(np.arange(2), 20), "h": np.repeat(np.arange(5), 8)})
    data["y"] = rng.normal(size=40) + rng.normal(size=5)[data["h"]]
    data["f"] = pd.Series([values[i] for i in data["g"]])
    alone = me.lmer("y ~ 1 + (1 | f)", data)
    crossed = me.lmer("y ~ 1 + (1 | f:h)", data)
    for spelling in spellings:
        assert alone.V.block(spelling).index.tolist() == data.index[data["g"] == 0].tolist()
        rows = data.index[(data["g"] == 0) & (data["h"] == 3)].tolist()
        assert crossed.V.block((spelling, 3)).index.tolist() == rows
    for unknown in (7, "7", None, "", (spellings[0], 3)):
        with pytest.raises(me.ModelError, match="no level"):
            alone.V.block(unknown)


def test_levels_that_are_called_both_ways() -> None:
    data = pd.DataFrame({"g": np.repeat(["True", "TRUE", "x"], 8)})
    data["y"] = np.random.default_rng(0).normal(size=24) + np.repeat([0, 4, 9], 8)
    with pytest.warns(me.DataWarning, match="differ only in blanks or capitals"):
        m = me.lmer("y ~ 1 + (1 | g)", data)
    with pytest.raises(me.ModelError, match="ambiguous"):
        m.V.block(True)
    assert m.V.block("True").index.tolist() == list(range(8))
    assert m.V.block("TRUE").index.tolist() == list(range(8, 16))


def test_means_that_are_labelled_alike() -> None:
    pairs = [("a b", "c"), ("a", "b c"), ("a b", "d"), ("a", "c")] * 12
    data = pd.DataFrame(pairs, columns=["f", "h"]).assign(g=np.repeat(np.arange(8), 6))
    rng = np.random.default_rng(0)
    data["y"] = rng.normal(size=48) + rng.normal(size=8)[data["g"]]
    means = me.lmer("y ~ f + h + (1 | g)", data).emmeans(["f", "h"])
    assert means.labels().count("a b c") == 2
    with pytest.raises(me.ModelError, match="2 means are labelled 'a b c'"):
        means.contrasts({"x": {"a b c": 1.0, "a c": -1.0}})
    with pytest.raises(me.ModelError, match="2 means are labelled"):
        means.contrasts("trt.vs.ctrl", reference="a b c")


# --- keys of parameters -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def clashing() -> me.LinearMixedModel:
    """Predictors called like variance parameters."""
    rng = np.random.default_rng(0)
    names = ["sigma", "sd_(Intercept)|g", "beta_sigma", "random", "value"]
    data = pd.DataFrame({name: rng.normal(size=240) for name in names})
    data["g"] = rng.integers(0, 12, 240)
    data["y"] = 5 * data["sigma"] + 2 * data["value"] + rng.normal(size=12)[data.g]
    data["y"] += 2 * rng.normal(size=240)
    terms = " + ".join(f"`{name}`" for name in names)
    return me.lmer(f"y ~ {terms} + (1 | g)", data)


def test_a_coefficient_and_a_parameter_never_share_a_key(clashing: me.LinearMixedModel) -> None:
    m = clashing
    wald = m.confint()
    assert len(wald) == 8 and wald.index.is_unique
    assert list(wald.index[:2]) == ["sd_(Intercept)|g", "sigma"]
    coefficients = m.coef_table()[["lower", "upper"]].to_numpy()
    assert_allclose(wald.to_numpy()[2:], coefficients)
    assert wald.loc["sigma"].between(1.5, 2.5).all()
    boot = m.bootstrap(40, seed=1)
    for table in (boot.confint(), boot.to_frame(), m.confint("boot", n=40, seed=1)):
        assert list(table.index) == list(wald.index)
    assert list(boot.draws.columns) == list(wald.index)
    assert_allclose(boot.estimates["sigma"], m.sigma)
    slope = wald.index[2 + list(m.fixef.index).index("sigma")]
    assert slope != "sigma" and slope.startswith("beta_")
    assert_allclose(boot.estimates[slope], m.fixef["sigma"])
    assert boot.plot("sigma", ax=Figure().subplots()).get_xlabel() == "sigma"
    # What both are called shows both, each under its key.
    assert sorted(m.confint(parameters="sigma").index) == sorted(["sigma", slope])
    assert list(m.confint(parameters=slope).index) == [slope]
    assert set(m.confint(parameters="fixed").index) == set(wald.index[2:])
    assert set(wald.index[:2]) < set(m.confint(parameters="random").index)


def test_profiles_of_clashing_names(clashing: me.LinearMixedModel) -> None:
    profile = clashing.profile("sigma", 0.9)
    assert profile.parameters[0] == "sigma" and len(profile.parameters) == 2
    intervals = profile.confint(0.9)
    assert intervals.loc["sigma"].between(1.5, 2.5).all()
    assert intervals.iloc[1].between(4.0, 6.0).all()
    assert set(profile.curves()) == set(profile.parameters)
    frame = profile.to_frame()
    assert frame.columns.is_unique
    assert list(frame.columns[:4]) == ["parameter", "value", "zeta", "deviance"]
    found = clashing.confint("profile", "sigma", 0.9)
    assert_allclose(found, clashing.profile("sigma", 0.95).confint(0.9))


def test_correlations_that_are_called_alike() -> None:
    rng = np.random.default_rng(3)
    data = pd.DataFrame({name: rng.normal(size=400) for name in ("a.b", "b.c", "a", "c")})
    data["g"] = np.repeat(np.arange(20), 20)
    data["y"] = rng.normal(size=400) + sum(
        rng.normal(size=20)[data.g] * data[name] for name in ("a.b", "b.c", "a", "c")
    )
    m = me.lmer("y ~ 1 + (0 + `a.b` + `b.c` + a + c | g)", data)
    names = list(m.covariance_parameters.index)
    assert len(set(names)) == 11
    assert len(m.to_dict()["covariance_parameters"]) == 11


def test_comparing_fits_with_the_method_says_what_does() -> None:
    sleep = me.load_dataset("sleepstudy")
    m = me.lmer("Reaction ~ Days + (1 | Subject)", sleep)
    other = me.lmer("Reaction ~ Days + (Days | Subject)", sleep)
    for arguments in ((other,), (m, other), (3, other)):
        with pytest.raises(me.ModelError, match=r"me\.anova\(m1, m2\)") as caught:
            m.anova(*arguments)
        assert str(caught.value).count("\n") == 0
