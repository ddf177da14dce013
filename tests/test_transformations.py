"""Transformed responses: the way back, and estimates on the scale of the response."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import mixedeffects as me
from mixedeffects.formula import parse_formula
from mixedeffects.formula.evaluate import evaluate
from mixedeffects.formula.transformation_reader import read_transformation
from mixedeffects.formula.transformations import Transformation
from references import answers, drawn_data

LEFT = [
    "y", "log(y)", "log(y + 1)", "log1p(y)", "log10(y)", "log2(2 * y)", "log(y, base = 3)",
    "np.log(y)", "sqrt(y)", "2 * sqrt(y) - 1", "1/y", "I(1/y)", "-1/y", "3/(y + 1)", "y^0.25",
    "y^2", "(y^0.3 - 1)/0.3", "I(-y^3)", "exp(y)", "expm1(y)", "2^y", "scale(y)", "center(log(y))",
    "scale(y, scale = FALSE)", "y/mean(y)", "asin(sqrt(y/10))",
    "log(y/10/(1 - y/10))", "log(sqrt(y) + 1)", "np.arcsinh(y)", "pi * y", "y/z", "log(y/z)",
]  # fmt: skip


def read(left: str, y: np.ndarray) -> tuple[Transformation, np.ndarray, np.ndarray]:
    """The transformation, its values at y, and those of what it is made of."""
    tree = parse_formula(f"{left} ~ x + (1 | g)").response_tree
    columns: dict[str, Any] = {"y": y} | ({"z": y[::-1] + 1.0} if "z" in left else {})
    way = read_transformation(tree, columns, len(y), {})
    original = parse_formula(f"{way.original} ~ x + (1 | g)").response_tree
    found = [np.asarray(evaluate(each, columns, len(y), {})).ravel() for each in (tree, original)]
    return way, found[0], found[1]


@pytest.mark.parametrize("left", LEFT)
@settings(max_examples=15, deadline=None)
@given(y=st.lists(st.floats(0.5, 9.0), min_size=3, max_size=6, unique=True))
def test_the_way_back(left: str, y: list[float]) -> None:
    if np.ptp(y) < 0.1:
        return
    way, v, u = read(left, np.array(y))
    assert_allclose(way.inverse(v), u, rtol=1e-9)
    assert_allclose(way.forward(u), v, rtol=1e-9, atol=1e-12)
    assert not way.outside(v).any()
    assert way.falls == (v[np.argmax(u)] < v[np.argmin(u)])
    # Derivatives are those of the derivative before, by complex steps' poor relation.
    step = 1e-5 * np.maximum(np.abs(v), 1e-2)
    above, below = way.jet(v + step), way.jet(v - step)
    for order in range(3):
        slope = (above[order] - below[order]) / (2.0 * step)
        size = np.abs(way.jet(v)[order]) / np.maximum(np.abs(v), 1e-2) + np.abs(slope) + 1e-8
        assert np.all(np.abs(way.jet(v)[order + 1] - slope) < 1e-4 * size)


@pytest.mark.parametrize(
    ("left", "original", "logged"),
    [
        ("log(y)", "y", "y"),
        ("log10(y + 1)", "y", "y + 1"),
        ("log1p(y)", "y", "1 + y"),
        ("2 * log2(sqrt(y)) + 1", "y", "sqrt(y)"),
        ("log(y/10/(1 - y/10))", "y", "y/10/(1 - y/10)"),
        ("log(y/z)", "y/z", "y/z"),
    ],
)
def test_differences_of_logarithms_are_ratios(left: str, original: str, logged: str) -> None:
    y = np.array([1.0, 2.5, 7.0])
    way, v, _ = read(left, y)
    assert (way.original, way.logged) == (original, logged)
    tree = parse_formula(f"{logged} ~ x + (1 | g)").response_tree
    of = evaluate(tree, {"y": y, "z": y[::-1] + 1.0}, 3, {})
    ratio = way.of_differences()
    assert ratio is not None
    assert_allclose(ratio.inverse(v[0] - v[2]), of[0] / of[2])


def test_differences_of_affine_transformations_keep_their_units() -> None:
    way, v, u = read("scale(y)/2 + 1", np.array([1.0, 2.5, 7.0]))
    differences = way.of_differences()
    assert differences is not None
    assert_allclose(differences.inverse(v[1] - v[0]), u[1] - u[0])
    assert read("sqrt(y)", np.array([1.0, 4.0]))[0].of_differences() is None


def test_beyond_the_range_the_end_of_it() -> None:
    way = read("sqrt(y)", np.array([1.0, 4.0]))[0]
    assert_allclose(way.inverse([-1.0, 2.0]), [0.0, 4.0])
    assert way.outside([-1.0, 2.0]).tolist() == [True, False]
    falling = read("1/y", np.array([-1.0, -4.0]))[0]
    assert_allclose(falling.inverse([-0.5, 3.0]), [-2.0, -np.inf])


@pytest.mark.parametrize(
    ("left", "y", "sentence"),
    [
        ("abs(y)", [1, 2], "the way back from `abs(y)` is not known"),
        ("round(log(y))", [1, 2], "the way back from `round(log(y))` is not known"),
        ("sqrt(abs(y))", [1, 2], "from `abs(y)` in `sqrt(abs(y))` is not known"),
        ("y * y", [1, 2], "the way back from `y * y` is not known"),
        ("y^2", [-1, 2], "is on both sides of zero and its power 2"),
        ("1/y", [-1, 2], "is on both sides of zero and its power -1"),
        ("y * 0", [1, 2], "multiplies it by zero"),
        ("1^y", [1, 2], "is not known"),
        ("y^0", [1, 2], "is not known"),
        ("log(y, base = 1)", [1, 2], "is not known"),
        ("pmax(y, 1)", [1, 2], "is not known"),
        ("y %% 2", [1, 2], "is not known"),
        ("(y > 1)", [1, 2], "is not known"),
    ],
)
def test_no_way_back(left: str, y: list[float], sentence: str) -> None:
    with pytest.raises(me.ModelError) as error:
        read(left, np.array(y, dtype=float))
    assert sentence in str(error.value)


# --- R's emmeans ----------------------------------------------------------------------------------


def stored() -> dict[str, Any]:
    return answers("effects")


def drawn() -> pd.DataFrame:
    return drawn_data("effects")


@cache
def fitted(formula: str, data: str = "csv") -> me.LinearMixedModel:
    return me.lmer(formula, drawn() if data == "csv" else me.load_dataset(data))


def theirs(r: dict[str, Any], *names: str) -> np.ndarray:
    return np.column_stack([np.asarray(r["values"][name], dtype=float) for name in names])


ANSWERS = range(len(stored()["transformed"]))
DDF = {"satterthwaite": "satterthwaite", "kenward-roger": "kr"}


@pytest.mark.parametrize("i", ANSWERS)
def test_means_against_emmeans(i: int) -> None:
    r = stored()["transformed"][i]
    m = fitted(r["formula"], r["data"])
    for table, options in (
        (r["means"], {}),
        (r["adjusted"], {"bias_adjust": True, "sigma": r["sigma"]}),
    ):
        if table is None:
            continue
        means = m.emmeans(r["specs"], type="response", ddf=DDF[r["ddf"]], **options)
        ours = means.to_frame().iloc[:, -5:].to_numpy(float)
        name = table["names"][1]
        # Derivatives of what is adjusted are differences over a thousandth there.
        close = 2e-5 if options else 2e-6
        assert_allclose(ours[:, :2], theirs(table, name, "SE"), rtol=close)
        assert_allclose(ours[:, 2], theirs(table, "df")[:, 0], rtol=2e-3)
        assert_allclose(ours[:, 3:], theirs(table, "lower.CL", "upper.CL"), rtol=2e-3)


@pytest.mark.parametrize("i", ANSWERS)
def test_comparisons_against_emmeans(i: int) -> None:
    r = stored()["transformed"][i]
    table = r["pairs"]
    means = fitted(r["formula"], r["data"]).emmeans(r["specs"], type="response", ddf=DDF[r["ddf"]])
    comparisons = means.contrasts()
    ours = comparisons.to_frame()
    numbers = ours.iloc[:, -7:].to_numpy(float)
    name = next(n for n in table["names"] if n in ("estimate", "ratio", "odds.ratio"))
    found = theirs(table, name, "SE", "lower.CL", "upper.CL")
    if r["formula"].startswith("log1p"):
        # There differences of log1p stay what they are.
        found = np.exp(found)
        found[:, 1] = theirs(table, "SE")[:, 0] * found[:, 0]
    elif r["formula"].startswith("scale"):
        found = found * drawn()["y"].std()
    assert_allclose(numbers[:, :2], found[:, :2], rtol=2e-6)
    assert_allclose(numbers[:, 5:], found[:, 2:], rtol=2e-3)
    assert_allclose(
        numbers[:, 2:5], theirs(table, "df", "t.ratio", "p.value"), rtol=2e-3, atol=1e-5
    )
    if "ratio" in name:
        labels = [each.replace("temperature", "") for each in table["values"]["contrast"]]
        assert list(ours["contrast"]) == labels
        assert "estimates are ratios of" in repr(comparisons)


def test_spread_of_new_groups_is_the_default() -> None:
    m = fitted("log(y) ~ a + x + (1 | g)")
    named = m.emmeans("a", type="response", bias_adjust=True, sigma=stored()["total"])
    assert_allclose(
        m.emmeans("a", type="response", bias_adjust=True).to_frame().iloc[:, 1:].to_numpy(float),
        named.to_frame().iloc[:, 1:].to_numpy(float),
        rtol=1e-6,
    )


# --- predictions ----------------------------------------------------------------------------------


def test_predictions_come_back() -> None:
    m = fitted("log(y) ~ a + x + (1 | g)")
    new = drawn().head(4)
    for options in ({}, {"re": None}):
        assert_allclose(
            m.predict(new, type="response", **options), np.exp(m.predict(new, **options))
        )
    for interval in ("confidence", "prediction"):
        here = m.predict(new, re=None, interval=interval).to_numpy()
        back = m.predict(new, re=None, interval=interval, type="response").to_numpy()
        assert_allclose(back[:, [0, 2, 3]], np.exp(here[:, [0, 2, 3]]))
        assert_allclose(back[:, 1], here[:, 1] * np.exp(here[:, 0]))
    assert_allclose(m.predict(type="response"), np.exp(m.fitted))


def test_a_falling_transformation_changes_the_ends_over() -> None:
    m = fitted("1/y ~ a + x + (1 | g)")
    here = m.predict(drawn().head(3), re=None, interval="confidence").to_numpy()
    back = m.predict(drawn().head(3), re=None, interval="confidence", type="response").to_numpy()
    assert_allclose(back[:, 2:], 1.0 / here[:, [3, 2]])
    assert (back[:, 2] < back[:, 0]).all()


def test_bias_of_predictions_is_that_of_what_is_not_conditioned_on() -> None:
    m = fitted("log(y) ~ a + x + (1 | g)")
    new = drawn().head(3)
    group = float(m.varcorr["g"].to_numpy().item())
    for re, variance in (("all", m.sigma**2), (None, m.sigma**2 + group)):
        adjusted = m.predict(new, re=re, type="response", bias_adjust=True)
        assert_allclose(adjusted, np.exp(m.predict(new, re=re)) * (1.0 + variance / 2.0))
    plain, adjusted = (
        m.predict(new, re=None, interval="prediction", type="response", bias_adjust=each)
        for each in (False, True)
    )
    assert_allclose(plain.to_numpy()[:, 2:], adjusted.to_numpy()[:, 2:])
    assert (adjusted.to_numpy()[:, 0] > plain.to_numpy()[:, 0]).all()


def test_the_adjusted_mean_is_the_mean_of_simulated_responses() -> None:
    # With lognormal responses the second-order formula is near.
    m = fitted("log(y) ~ a + x + (1 | g)")
    simulated = np.exp(m.simulate(4000, seed=1).to_numpy()).mean(axis=1)
    adjusted = m.predict(drawn(), re=None, type="response", bias_adjust=True)
    assert_allclose(adjusted.mean(), simulated.mean(), rtol=0.01)


def test_chunks_and_other_frames_come_back_too() -> None:
    m = fitted("log(y) ~ a + x + (1 | g)")
    whole = m.predict(drawn(), re=None, type="response", se=True)
    parts = m.predict(drawn(), re=None, type="response", se=True, chunk_size=7)
    assert_allclose(whole.to_numpy(), parts.to_numpy())
    iterated = list(m.predict(iter([drawn().head(3)]), type="response"))
    assert_allclose(iterated[0], m.predict(drawn().head(3), type="response"))


# --- what is said ---------------------------------------------------------------------------------


def test_a_plain_response_has_one_scale() -> None:
    m = fitted("y ~ a + x + (1 | g)")
    assert "estimates are of" not in repr(m.emmeans("a"))
    assert_allclose(
        m.emmeans("a", type="response").estimates.estimate, m.emmeans("a").estimates.estimate
    )
    assert_allclose(m.predict(type="response"), m.predict())


def test_notes_say_the_scale() -> None:
    m = fitted("log(y) ~ a + x + (1 | g)")
    assert "estimates are of log(y)" in repr(m.emmeans("a"))
    assert "estimates are of log(y)" not in repr(m.emmeans("a", type="response"))
    assert "estimates are of y, back from log(y)" in repr(m.emmeans("a", type="response"))
    assert "contrasts are of log(y)" not in repr(m.emmeans("a").contrasts())
    assert "estimates are of log(y)" in repr(m.emmeans("a").contrasts())
    roots = fitted("sqrt(y) ~ a + x + (1 | g)").emmeans("a", type="response").contrasts()
    assert "contrasts are of sqrt(y)" in repr(roots)
    far = m.emmeans("x", at={"x": [0.0, 1.0]})
    assert far.scale.way is None


def test_estimates_beyond_the_range_are_counted() -> None:
    m = fitted("sqrt(y) ~ x + (1 | g)")
    means = m.emmeans("x", at={"x": [-100.0, 4.0]}, type="response")
    assert "1 of 2 estimates of sqrt(y) are beyond its range" in repr(means)
    assert means.to_frame().iloc[0, 1] == 0.0


def test_a_mean_of_means_comes_back_whole() -> None:
    means = fitted("log(y) ~ a + x + (1 | g)").emmeans("a", type="response")
    both = means.contrasts({"low and mid": [0.5, 0.5, 0]}).to_frame()
    estimates = means.to_frame().iloc[:, 1].to_numpy(float)
    assert_allclose(both.iloc[0, 1], np.sqrt(estimates[0] * estimates[1]))
    mixed = means.contrasts({"mean": [0.5, 0.5, 0], "difference": [1, -1, 0]})
    assert "contrasts are of log(y)" in repr(mixed)


def test_refits_and_fits_without_data_know_the_way() -> None:
    m = fitted("log(y) ~ a + x + (1 | g)")
    again = m.refit(m.simulate(1, seed=2)["sim_1"].to_numpy())
    assert_allclose(
        again.emmeans("a", type="response").to_frame().iloc[:, 1],
        np.exp(again.emmeans("a").estimates.estimate),
    )
    new = drawn().head(2)
    assert_allclose(m.without_data().predict(new, type="response"), m.predict(new, type="response"))


def test_what_scale_learned_is_of_all_rows_with_a_response() -> None:
    data = drawn().copy()
    data.loc[data.index[:20], "x"] = np.nan
    m = me.lmer("scale(y) ~ a + x + (1 | g)", data)
    assert_allclose(
        m.predict(type="response"), m.fitted * data["y"].std() + data["y"].mean(), rtol=1e-9
    )


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda m: m.emmeans("a", type="respons"), "type 'respons' is not known"),
        (lambda m: m.emmeans("a", bias_adjust=True), "are for type='response'"),
        (lambda m: m.emmeans("a", type="response", sigma=1.0), "for bias_adjust=True; add that"),
        (lambda m: m.emmeans("a", type="response", bias_adjust=1.5), "bias_adjust"),
        (
            lambda m: m.emmeans("a", type="response", bias_adjust=True, sigma=-1),
            "sigma must not be negative",
        ),
        (lambda m: m.predict(type="raw"), "type 'raw' is not known"),
    ],
)
def test_options_are_checked(ask: Any, sentence: str) -> None:
    with pytest.raises(me.ModelError, match=sentence):
        ask(fitted("log(y) ~ a + x + (1 | g)"))


def test_an_unknown_transformation_is_said() -> None:
    m = me.lmer("abs(y) ~ a + x + (1 | g)", drawn())
    assert "estimates are of abs(y)" in repr(m.emmeans("a"))
    for ask in (m.emmeans, m.effects):
        with pytest.raises(me.ModelError, match="the way back from `abs"):
            ask("a", type="response")
    with pytest.raises(me.ModelError, match="the way back from `abs"):
        m.predict(type="response")


def test_intervals_cover_the_same_on_both_scales() -> None:
    means = fitted("log(y) ~ a + x + (1 | g)").emmeans("a", type="response")
    found, table = means.estimates, means.to_frame()
    half = scipy.stats.t.ppf(0.975, found.df) * found.se
    assert_allclose(table.iloc[:, -2], np.exp(found.estimate - half))
    assert_allclose(table.iloc[:, -1], np.exp(found.estimate + half))
