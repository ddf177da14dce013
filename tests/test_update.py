"""`update` and `refit`: R's rule for the dot, and which response, weights and codings stay."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import mixedeffects as me
from mixedeffects.formula.bars import split_bars
from mixedeffects.formula.evaluate import evaluate
from mixedeffects.formula.reader import read
from mixedeffects.formula.syntax import Binary, deparse
from mixedeffects.formula.terms import expand_terms
from mixedeffects.formula.update import update_formula
from references import REFERENCE

# --- the formula: R 4.2.2's update.formula ------------------------------------------------

UPDATES = json.loads((REFERENCE / "formula" / "updates.json").read_text())["cases"]


def _terms(text: str) -> tuple[set[frozenset[str]], bool, list[str]]:
    table = expand_terms(read(text), text)
    names = [deparse(variable) for variable in table.variables]
    terms = {frozenset(names[i] for i in term) for term in table.terms}
    return terms, table.intercept, [deparse(offset) for offset in table.offsets]


def _response(text: str) -> np.ndarray:
    rng = np.random.default_rng(3)
    names = ["y", "post", "pre", "n", "a", "b", "a~b", "odd name", "w", "b~c"]
    columns = {name: rng.uniform(1.0, 2.0, 4) for name in names}
    plain = f"`{text}`" if text in names else text
    return np.asarray(evaluate(read(plain), columns, 4, {}))


def test_generated_updates_mean_what_they_mean_in_R() -> None:
    refused = 0
    for case in UPDATES:
        old, new = case["old"][0], case["new"][0]
        try:
            text = update_formula(old, new)
        except me.FormulaError as error:
            # R says nothing where a random-effects term that is not there is taken away.
            assert "not there" in str(error)
            refused += 1
            continue
        tree = read(text)
        assert isinstance(tree, Binary)
        fixed, bars = split_bars(tree.right, text)
        terms, intercept, offsets = _terms("1" if fixed is None else deparse(fixed))
        expected = set().union(*(_terms(label)[0] for label in case["fixed"]), set())
        assert terms == expected, (old, new, text)
        assert intercept == bool(case["intercept"][0]), (old, new, text)
        assert offsets == case["offsets"], (old, new, text)
        np.testing.assert_allclose(
            _response(deparse(tree.left)), _response(case["response"][0]), err_msg=f"{old}, {new}"
        )
        if not case["crossed"][0]:
            random = [f"({label})" for label in case["random"]]
            expected_bars = [str(bar) for text in random for bar in split_bars(read(text), text)[1]]
            assert [str(bar) for bar in bars] == expected_bars, (old, new, text)
    assert len(UPDATES) == 300
    assert refused < 40


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("post - pre ~ x + (1|g)", ". / 10 ~ .", "(post - pre)/10 ~ x + (1|g)"),
        ("a^b ~ x + (1|g)", ".^2 ~ .", "(a^b)^2 ~ x + (1|g)"),
        ("`a~b` ~ x + (1|g)", "log(.) ~ .", "log(`a~b`) ~ x + (1|g)"),
        ("`a.b ~ .` ~ x + (1|g)", ". ~ . + `. z`", "`a.b ~ .` ~ x + (1|g) + `. z`"),
        ("y ~ x + (1|g)", "~ . - x", "y ~ (1 | g)"),
        ("y ~ (1|g)", ". ~ . * z", "y ~ 1 * z + (1|g)"),
        ("y ~ x - 1 + (1|g)", ". ~ . + 1", "y ~ x - 1 + (1|g) + 1"),
        ("y ~ x + (1|g)", ". ~ z - .", "y ~ z - x"),
        # Random-effects terms go by what they mean, not by how they are written.
        ("y ~ x + (1 + x|g) + (1|h)", ". ~ . - (x | g)", "y ~ x + (1 | h)"),
        ("y ~ x + (x||g)", ". ~ . - (0 + x|g)", "y ~ x + (1 | g)"),
        ("y ~ x + (1|a/b)", ". ~ . - (1|a:b)", "y ~ x + (1 | a)"),
        ("y ~ x + (1|g)", ". ~ . + (1 | g)", "y ~ x + (1 | g)"),
        ("y ~ x + (1|`odd g`/h)", ". ~ . - (1|`odd g`:h)", "y ~ x + (1 | `odd g`)"),
        ("y ~ x + cs(0 + f | g)", ". ~ . - cs(0 + f | g) + (1 | g)", "y ~ x + (1 | g)"),
        ("y ~ (x + (1|g)) + z", ". ~ . - x", "y ~ (1 | g) + z"),
        ("y ~ x + (1|g)", ". ~ . - (x + (1|g)) + (1|h)", "y ~ (1 | h)"),
    ],
)
def test_updates_that_are_more_than_text(old: str, new: str, expected: str) -> None:
    assert update_formula(old, new) == expected


@pytest.mark.parametrize(
    ("new", "sentence"),
    [
        (". ~ . - (x | h)", r"`\(x \| h\)` cannot be taken away.*has `\(1 \| g\)`"),
        (". ~ log(.)", "write the columns out"),
        (". + x", "no '~'"),
        (". ~ . +", "ends where a term"),
        ("y ~ x ~ .", "one `~`"),
        (3, "A formula is text"),
        (". ~ (. | g)", "no meaning here"),
    ],
)
def test_updates_that_say_what_is_wrong(new: Any, sentence: str) -> None:
    sleep = me.load_dataset("sleepstudy").rename(
        columns={"Reaction": "y", "Days": "x", "Subject": "g"}
    )
    m = me.lmer("y ~ x + (1 | g)", sleep)
    with pytest.raises(me.FormulaError, match=sentence):
        m.update(new)


def test_an_offset_that_is_taken_away_is_gone() -> None:
    table = expand_terms(read("x + offset(o) - offset(o)"), "")
    assert table.offsets == ()
    assert [deparse(o) for o in expand_terms(read("(x + offset(o)):z"), "").offsets] == ["o"]


def test_a_dot_of_the_fit_itself_stays_one(sleep: pd.DataFrame) -> None:
    data = sleep.assign(z=np.arange(180.0) % 7)
    m = me.lmer("Reaction ~ . + (Days | Subject)", data)
    assert list(m.fixef.index) == ["(Intercept)", "Days", "z"]
    assert list(m.update(". ~ . - z").fixef.index) == ["(Intercept)", "Days"]
    assert list(m.update(". ~ . + z - z").fixef.index) == ["(Intercept)", "Days"]
    assert list(m.update("~ . * z").fixef.index) == ["(Intercept)", "Days", "z", "Days:z"]


# --- the response after refit -------------------------------------------------------------


@pytest.fixture(scope="module")
def sleep() -> pd.DataFrame:
    return me.load_dataset("sleepstudy")


@pytest.fixture(scope="module")
def two() -> pd.DataFrame:
    rng = np.random.default_rng(8)
    g = np.repeat(np.arange(12), 8)
    x = rng.normal(size=96)
    y = 20.0 + rng.normal(size=12)[g] + x + rng.normal(size=96)
    return pd.DataFrame(
        {"y": y, "x": x, "z": rng.normal(size=96), "g": g, "w": rng.uniform(0.5, 2.0, 96),
         "new": 30.0 + 2.0 * rng.normal(size=12)[g] - x + rng.normal(size=96)},
        index=[f"r{i}" for i in range(96)],
    )  # fmt: skip


def same(a: me.LinearMixedModel, b: me.LinearMixedModel) -> bool:
    return bool(abs(a.criterion - b.criterion) < 1e-6 and a.nobs == b.nobs)


@pytest.mark.parametrize("response", ["y", "log(y)", "y - x", "I(y/2)"])
@pytest.mark.parametrize("kind", ["pandas", "polars", "arrow", "lazy", "dict"])
def test_after_refit_the_new_response_stays(two: pd.DataFrame, response: str, kind: str) -> None:
    kinds = {
        "pandas": two,
        "polars": pl.from_pandas(two),
        "arrow": pa.table(two.to_dict("list")),
        "lazy": pl.from_pandas(two).lazy(),
        "dict": two.to_dict("list"),
    }
    data = kinds[kind]
    m = me.lmer(f"{response} ~ x + z + (1 | g)", data)
    again = m.refit(two["new"].to_numpy())
    right = me.lmer("new ~ x + z + (1 | g)", two)
    assert same(again, right)
    assert same(again.update(), right)
    assert same(again.update(reml=False), right.update(reml=False))
    assert same(again.update("~ . - z"), right.update("~ . - z"))
    assert same(again.update("log(.) ~ ."), right.update("log(new) ~ ."))
    assert same(again.refit(two["y"].to_numpy()).update(), me.lmer("y ~ x + z + (1 | g)", two))
    stored = pickle.loads(pickle.dumps(again))
    assert same(stored.update("~ . - z"), right.update("~ . - z"))
    # New data have a response of their own, and the fit itself and its data stay as they were.
    assert same(again.update(data=data), m)
    assert same(m.update(), m)


def test_after_refit_whatever_looks_at_the_data_sees_the_new_response(two: pd.DataFrame) -> None:
    m = me.lmer("y ~ x + (1 | g)", two)
    before = two.copy()
    again = m.refit(two["new"])
    right = me.lmer("new ~ x + (1 | g)", two)
    np.testing.assert_array_equal(again.augment()["y"], two["new"])
    np.testing.assert_array_equal(m.augment()["y"], two["y"])
    assert me.anova(again, again.update("~ . - x")).to_frame()["Chisq"].iloc[1] == pytest.approx(
        me.anova(right, right.update("~ . - x")).to_frame()["Chisq"].iloc[1]
    )
    for of in (
        lambda z: z.confint("profile").to_numpy(),
        lambda z: z.ranova().to_frame().to_numpy(dtype=float)[1:],
        lambda z: z.influence("g", refit=True).to_frame().to_numpy(dtype=float),
        lambda z: me.cross_validate(z, folds=3, seed=1).to_frame().to_numpy(dtype=float),
        lambda z: z.emmeans("x", at={"x": [0, 1]}).to_frame().iloc[:, 1:].to_numpy(dtype=float),
        lambda z: z.predict(two),
    ):
        np.testing.assert_allclose(of(again), of(right), rtol=2e-4, atol=1e-6, equal_nan=True)
    pd.testing.assert_frame_equal(two, before)

    logged = me.lmer("log(y) ~ x + (1 | g)", two).refit(two["new"])
    table = logged.augment()
    np.testing.assert_array_equal(table["log(y)"], two["new"])
    assert "y" not in table


def test_after_refit_a_dot_does_not_bring_the_old_response_in(two: pd.DataFrame) -> None:
    data = two[["y", "x", "z", "g"]]
    again = me.lmer("log(y) ~ . + (x | g)", data).refit(two["new"])
    assert list(again.fixef.index) == ["(Intercept)", "x", "z"]
    right = me.lmer("new ~ x + z + (x | g)", two)
    assert same(again.update(), right)
    assert same(again.update("~ . - z"), right.update("~ . - z"))


def test_refit_of_a_response_that_the_right_side_needs_too(two: pd.DataFrame) -> None:
    m = me.lmer("y ~ x + I(y > 20) + (1 | g)", two)
    again = m.refit(two["new"])
    right = me.lmer("new ~ x + I(y > 20) + (1 | g)", two)
    assert same(again, right)
    assert same(again.update(reml=False), right.update(reml=False))


@pytest.mark.parametrize("given", ["rows used", "all rows", "Series used", "Series of all"])
def test_refit_and_update_with_rows_dropped(two: pd.DataFrame, given: str) -> None:
    data = two.assign(z=two["z"].where(np.arange(96) % 10 != 0))
    m = me.lmer("y ~ x + z + (1 | g)", data)
    used = two["new"].loc[m.frame.index]
    y = {
        "rows used": used.to_numpy(),
        "all rows": two["new"].to_numpy(),
        "Series used": used,
        "Series of all": two["new"].sample(frac=1.0, random_state=1),
    }[given]
    again = m.refit(y)
    right = me.lmer("new ~ x + z + (1 | g)", data)
    assert same(again.update(), right)
    # Without z its missing values cost no rows, where a response is known for them.
    more = "all" in given
    expected = me.lmer("new ~ x + (1 | g)", data if more else data.loc[m.frame.index])
    assert same(again.update("~ . - z"), expected)


def test_refit_keeps_weights_and_offset_given_as_values(two: pd.DataFrame) -> None:
    for role in ("weights", "offset"):
        for values in ("w", two["w"], two["w"].to_numpy()):
            again = me.lmer("y ~ x + z + (1 | g)", two, **{role: values}).refit(two["new"])
            right = me.lmer("new ~ x + (1 | g)", two, **{role: "w"})
            assert same(again.update("~ . - z"), right)


# --- values that belong to rows -----------------------------------------------------------


@pytest.mark.parametrize("role", ["weights", "offset"])
def test_values_of_rows_are_not_used_for_other_rows(two: pd.DataFrame, role: str) -> None:
    mixed = two.sample(frac=1.0, random_state=2)
    right = me.lmer("y ~ x + (1 | g)", mixed, **{role: "w"})
    array = me.lmer("y ~ x + (1 | g)", two, **{role: two["w"].to_numpy()})
    labelled = me.lmer("y ~ x + (1 | g)", two, **{role: two["w"]})
    for data in (mixed, two.iloc[::-1], two.assign(x=0.5 * two["x"]), mixed.reset_index(drop=True)):
        with pytest.raises(me.ModelError, match=f"give update\\(\\) {role}="):
            array.update(data=data)
    assert same(array.update(data=two), array)
    assert same(array.update(data=two.copy()), array)
    columns = {name: two[name].to_numpy() for name in two}
    given = me.lmer("y ~ x + (1 | g)", columns, **{role: columns["w"]})
    assert same(given.update(data=columns), array)
    with pytest.raises(me.ModelError, match=f"give update\\(\\) {role}="):
        given.update(data=columns | {"y": columns["y"][::-1]})
    assert same(labelled.update(data=mixed), right)
    for data in (mixed.reset_index(drop=True), pl.from_pandas(mixed), mixed.set_axis(range(1, 97))):
        with pytest.raises(me.ModelError, match=f"give update\\(\\) {role}="):
            labelled.update(data=data)
    part = mixed.iloc[:60]
    assert same(labelled.update(data=part), me.lmer("y ~ x + (1 | g)", part, **{role: "w"}))
    assert same(array.update(data=mixed, **{role: "w"}), right)
    assert same(array.update(data=mixed, **{role: mixed["w"].to_numpy()}), right)
    assert same(array.update(data=two.copy(), **{role: None}), me.lmer("y ~ x + (1 | g)", two))


def test_update_changes_every_argument_of_a_fit(two: pd.DataFrame) -> None:
    data = two.assign(f=np.array(list("abc"))[np.arange(96) % 3])
    m = me.lmer("y ~ f + (1 | g)", data, control=me.Control(max_evaluations=300))
    weighted = m.update(weights="w", contrasts={"f": "sum"})
    assert same(weighted, me.lmer("y ~ f + (1 | g)", data, weights="w", contrasts={"f": "sum"}))
    assert list(weighted.fixef.index) == ["(Intercept)", "f1", "f2"]
    assert list(weighted.update(contrasts=None).fixef.index) == ["(Intercept)", "fb", "fc"]
    assert same(weighted.update(weights=None, offset="x"), me.lmer(
        "y ~ f + (1 | g)", data, offset="x", contrasts={"f": "sum"}))  # fmt: skip
    assert same(m.update(start=[0.3]), m)
    assert same(m.update(reml=np.bool_(False)), me.lmer("y ~ f + (1 | g)", data, reml=False))
    with pytest.warns(me.ConvergenceWarning):
        few = m.update(control=me.Control(max_evaluations=1), start=[5.0])
    with pytest.warns(me.ConvergenceWarning):
        few.update(start=[5.0])


def test_codings_of_absent_factors_wait(two: pd.DataFrame) -> None:
    data = two.assign(f=np.array(list("abc"))[np.arange(96) % 3], h=np.array(list("uv"))[two.g % 2])
    m = me.lmer("y ~ f + h + (1 | g)", data, contrasts={"f": "sum", "h": "sum"})
    small = m.update("~ . - f")
    assert same(small, me.lmer("y ~ h + (1 | g)", data, contrasts={"h": "sum"}))
    assert list(small.update("~ . + f:h").fixef.index)[1] == "h1"
    assert list(small.update("~ . + f").fixef.index) == ["(Intercept)", "h1", "f1", "f2"]
    assert list(small.update("~ . + x - h").fixef.index) == ["(Intercept)", "x"]
    with pytest.raises(me.ModelError, match="not a factor of the fixed or random effects"):
        m.update("~ . - f", contrasts={"f": "sum"})
    odd = data.rename(columns={"f": "the f"})
    m = me.lmer("y ~ `the f` + (1 | g)", odd, contrasts={"the f": "sum"})
    assert list(m.fixef.index) == ["(Intercept)", "`the f`1", "`the f`2"]
    assert same(m.update("~ . - `the f`"), me.lmer("y ~ (1 | g)", data))


def test_update_of_a_fit_without_its_data(two: pd.DataFrame) -> None:
    slim = me.lmer("y ~ x + (1 | g)", two, weights=two["w"].to_numpy()).without_data()
    with pytest.raises(me.ModelError, match="without its data, and its weights"):
        slim.update(data=two)
    assert same(slim.update(data=two, weights="w"), me.lmer("y ~ x + (1 | g)", two, weights="w"))


# --- what is known already is not searched for again ------------------------------------------


def test_an_update_that_changes_nothing_is_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    from mixedeffects.fitting import fitting

    penicillin = me.load_dataset("penicillin")
    m = me.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", penicillin)
    searched = m.update(reml=False).update(reml=True)
    assert searched.optimum is not m.optimum
    assert same(searched, m)

    def no_search(*_: Any, **__: Any) -> Any:
        raise AssertionError("searched")

    monkeypatch.setattr(fitting, "fit_frame", no_search)
    for again in (m.update(), m.update(". ~ ."), m.update(reml=True)):
        assert again is not m
        assert again.criterion == m.criterion
        np.testing.assert_array_equal(again.theta, m.theta)
    for changed in ({"reml": False}, {"start": m.theta}, {"weights": np.full(144, 2.0)}):
        with pytest.raises(AssertionError, match="searched"):
            m.update(**changed)


def test_data_changed_in_place_are_fitted() -> None:
    rng = np.random.default_rng(1)
    columns = {"y": rng.normal(size=60), "g": np.repeat(np.arange(12), 5)}
    m = me.lmer("y ~ 1 + (1 | g)", columns)
    columns["y"][:] = rng.normal(size=60) + columns["g"]
    assert m.update().criterion != m.criterion


def test_a_refit_to_nearly_the_same_response_looks_nowhere_else() -> None:
    m = me.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", me.load_dataset("penicillin"))
    assert m.optimum.starts == m.optimum.agreed > 1
    y = np.asarray(m.y) + 1e-3 * m.sigma * np.random.default_rng(1).normal(size=144)
    near = m.refit(y)
    whole = me.lmer(m.formula, me.load_dataset("penicillin").assign(diameter=y))
    assert near.optimum.starts == 1 < whole.optimum.starts
    assert near.criterion == pytest.approx(whole.criterion, abs=1e-8)
    np.testing.assert_allclose(near.theta, whole.theta, rtol=1e-5)
    assert m.refit(np.asarray(m.y)[::-1]).optimum.starts > 1
