"""Tables by term, means, trends and effects of fits whose rows stayed in a table.

Each answer is that of the fit in memory, and each question is put to the table once.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mixedeffects as me

duckdb = pytest.importorskip("duckdb")
pl = pytest.importorskip("polars")

ENGINES: dict[str, Callable[[pd.DataFrame], Any]] = {
    "duckdb": duckdb.from_df,
    "polars": lambda data: pl.from_pandas(data).lazy(),
}
Model = me.LinearMixedModel


@functools.cache
def rows(missing: bool = False) -> pd.DataFrame:
    """Factors with an empty cell and a level without rows, numbers of few and of many values."""
    rng = np.random.default_rng(20)
    n = 500
    data = pd.DataFrame(
        {
            "g": rng.integers(0, 25, n),
            "x": rng.normal(size=n),
            "z": rng.normal(3.0, 1.0, size=n),
            "year": 1990.0 + rng.integers(0, 30, n),
            "two": rng.choice([2.0, 5.0], n),
            "count": rng.integers(1, 5, n),
            "t": rng.choice(["low", "mid", "high"], n, p=[0.5, 0.3, 0.2]),
            "d": pd.Categorical(rng.choice(["u", "v"], n), categories=["v", "w", "u"]),
            "flag": rng.random(n) < 0.3,
            "w": rng.uniform(0.5, 2.0, n),
            "pos": np.exp(rng.normal(size=n)),
        }
    )
    data = data[~((data["t"] == "high") & (data["d"] == "v"))].reset_index(drop=True)
    n = len(data)
    data["inner"] = data["d"].astype(str) + data["count"].astype(str)
    data["y"] = (
        data["x"]
        + 0.5 * (data["t"] == "mid")
        + rng.normal(size=25)[data["g"]] * (1.0 + 0.3 * data["x"])
        + rng.normal(size=n)
    )
    data["up"] = np.exp(0.3 * data["y"])
    if missing:
        data.loc[rng.choice(n, 25, False), "x"] = np.nan
        data.loc[rng.choice(n, 15, False), "t"] = None
        data.loc[(data["g"] == 3) | (data["count"] == 4), "z"] = np.nan
    return data


@functools.cache
def fits(engine: str, formula: str, missing: bool = False, **options: Any) -> tuple[Model, Model]:
    """The fit of a table and that of the same rows in memory."""
    # What the engine makes of a column of categories is what is compared, so it is asked for both.
    table = ENGINES[engine](rows(missing))
    kept = me.lmer(formula, table, rows="push", **options)
    return kept, me.lmer(formula, table, rows="collect", **options)


def agree(one: Any, other: Any) -> None:
    """Tables with the same labels, notes and, to eight digits, numbers."""
    assert getattr(one, "notes", None) == getattr(other, "notes", None)
    one, other = pd.DataFrame(one), pd.DataFrame(other)
    assert list(map(str, one.index)) == list(map(str, other.index))
    assert list(one.columns) == list(other.columns)
    for name in one:
        if one[name].dtype.kind in "fiu":
            expected = other[name].to_numpy(dtype=float)
            size = np.nanmax(np.abs(expected[np.isfinite(expected)]), initial=1e-12)
            np.testing.assert_allclose(
                one[name].to_numpy(dtype=float), expected, rtol=1e-8, atol=1e-8 * size
            )
        else:
            assert list(map(str, one[name])) == list(map(str, other[name]))


DESIGNS: list[tuple[str, dict[str, Any]]] = [
    ("y ~ x + (1 | g)", {}),
    ("y ~ t * x + (x | g)", {}),
    # A cell of t and d has no rows.
    ("y ~ t * d + x + (1 | g)", {}),
    ("y ~ t * d * x + (1 | g)", {"weights": "w"}),
    ("y ~ flag * x + t:x + (1 | g)", {}),
    ("y ~ 0 + t + flag:two + (1 | g)", {}),
    ("y ~ factor(count) * two + (1 | g)", {}),
    ("y ~ C(t, sum) * flag + year + (1 | g)", {"reml": False}),
    ("y ~ d / inner + (1 | g)", {}),
    ("y ~ poly(z, 2) * t + scale(x) + (1 | g)", {}),
    ("y ~ x + I(2 * x) + t + (1 | g)", {}),
    ("y ~ (x > 0) * t + log(pos) + (1 | g)", {}),
    ("y ~ t * x + offset(z) + (1 | g)", {}),
    ("y ~ t + scale(x) + offset(scale(z)) + (1 | g)", {"offset": "log(pos)"}),
    ("y ~ year * t + (year | g)", {}),
    ("y ~ 1 + (1 | g)", {}),
]
questions = pytest.mark.parametrize("formula, options", DESIGNS, ids=[f for f, _ in DESIGNS])
engines = pytest.mark.parametrize("engine", ENGINES)


def grid_names(m: Model) -> list[str]:
    """Variables of the fixed part."""
    from mixedeffects.inference.estimability import all_columns
    from mixedeffects.inference.reference_grid import reference_grid

    return reference_grid(m.fit, all_columns(m.fit), None).names


@engines
@questions
def test_tables_by_term(engine: str, formula: str, options: dict[str, Any]) -> None:
    kept, here = fits(engine, formula, **options)
    for kind in (1, 2, 3):
        agree(kept.anova(kind), here.anova(kind))
    if grid_names(here):
        agree(kept.joint_tests(), here.joint_tests())


@engines
@questions
def test_means_and_trends(engine: str, formula: str, options: dict[str, Any]) -> None:
    kept, here = fits(engine, formula, **options)
    agree(kept.emmeans([]).to_frame(), here.emmeans([]).to_frame())
    names = grid_names(here)
    assert names == grid_names(kept)
    for name in names:
        for weights in ("equal", "proportional", "cells"):
            means = kept.emmeans(name, weights=weights)
            agree(means.to_frame(), here.emmeans(name, weights=weights).to_frame())
        if len(means.levels) > 1:
            expected = here.emmeans(name, weights="cells").contrasts()
            agree(means.contrasts().to_frame(), expected.to_frame())
        agree(kept.effects(name).to_frame(), here.effects(name).to_frame())
    of_levels = {"x"} if "x > 0" in formula else set()
    for name in ({"x", "z", "year", "two", "pos"} & set(names)) - of_levels:
        others = [each for each in ("t", "flag", "d") if each in names]
        agree(kept.emtrends(others, name).to_frame(), here.emtrends(others, name).to_frame())


@engines
def test_missing_values(engine: str) -> None:
    kept, here = fits(engine, "y ~ t * z + factor(count) + x + (1 | g)", missing=True)
    assert len(here.dropped.rows) > 0
    for kind in (1, 2, 3):
        agree(kept.anova(kind), here.anova(kind))
    for name in ("t", "count", "z", "x"):
        for weights in ("equal", "cells"):
            agree(
                kept.emmeans(name, weights=weights).to_frame(),
                here.emmeans(name, weights=weights).to_frame(),
            )
    # Level 4 of count is in no row used.
    assert list(kept.emmeans("count").levels["count"]) == [1, 2, 3]


@engines
def test_values_that_are_asked_for(engine: str) -> None:
    kept, here = fits(engine, "y ~ t * x + year * two + (1 | g)")
    for ask in (
        lambda m: m.emmeans("t", at={"x": [0, 1], "two": 2}),
        lambda m: m.emmeans("pairwise ~ t | two"),
        lambda m: m.emmeans("x", at={"x": slice(None, None, 0.5)}),
        lambda m: m.emmeans("t", at={"t": slice("low", "mid")}),
        lambda m: m.effects("x", by="t"),
        # Lines at all of few values, at the quartiles of many.
        lambda m: m.effects(["t", "two"]),
        lambda m: m.effects(["x", "year"]),
        lambda m: m.emmeans("t", by="two", type="response"),
    ):
        agree(ask(kept).to_frame(), ask(here).to_frame())
    agree(kept.joint_tests(by="two"), here.joint_tests(by="two"))
    for wrong in ("g", "y", "w", "nothing"):
        said = []
        for m in (kept, here):
            with pytest.raises(me.ModelError) as refused:
                m.emmeans(wrong)
            said.append(str(refused.value))
        assert said[0] == said[1]


@engines
@pytest.mark.parametrize(
    "response",
    [
        "log(up)",
        "scale(y)",
        "sqrt(up)",
        "log(up / w)",
        "I(1 / up)",
        "2 * y - 1",
        "log(up + mean(up))",
    ],
)
def test_scale_of_the_response(engine: str, response: str) -> None:
    kept, here = fits(engine, f"{response} ~ t * x + (1 | g)", missing=True)
    for kind in ("link", "response"):
        agree(kept.emmeans("t", type=kind).to_frame(), here.emmeans("t", type=kind).to_frame())
    pairs = [m.emmeans("t", type="response").contrasts().to_frame() for m in (kept, here)]
    agree(*pairs)


@engines
def test_power_on_both_sides_of_zero_has_no_way_back(engine: str) -> None:
    kept, here = fits(engine, "I(y^2) ~ t + (1 | g)")
    for m in (kept, here):
        with pytest.raises(me.ModelError, match="both sides of zero"):
            m.emmeans("t", type="response")


@engines
def test_new_rows_that_the_fit_says_nothing_about(engine: str) -> None:
    kept, here = fits(engine, "y ~ t * d + x + (1 | g)")
    new = rows().head(4).assign(t="high", d="v")
    assert len(kept.dropped.columns) == 1
    for m in (kept, here):
        with pytest.raises(me.DataError, match="says nothing about 4"):
            m.predict(new)
    fine = rows().head(20)
    np.testing.assert_allclose(
        np.asarray(kept.predict(fine)), np.asarray(here.predict(fine)), rtol=1e-8
    )


@engines
def test_picture_of_effects(engine: str) -> None:
    from matplotlib.figure import Figure

    kept, here = fits(engine, "y ~ t * x + (x | g)")
    lines = []
    for m in (kept, here):
        ax: Any = Figure().subplots()
        m.effects(["x", "t"]).plot(ax)
        lines.append([line.get_xydata() for line in ax.get_lines()])
    for one, other in zip(*lines, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8)
    with pytest.raises(me.ModelError, match="stayed in the table"):
        kept.effects(["x", "t"]).plot(Figure().subplots(), data=True)


@engines
def test_each_question_is_put_to_the_table_once(engine: str) -> None:
    table = ENGINES[engine](rows())
    m = me.lmer("y ~ t * d * x + two + (1 | g)", table, rows="push")
    assert m.fit.rows is not None
    asked = m.fit.rows.model.table.seconds

    def new_questions(ask: Callable[[], Any]) -> list[str]:
        before = len(asked)
        ask()
        return [what for what, _ in asked[before:]]

    assert new_questions(lambda: m.anova(3)) == [
        "means and ranges",
        "cells of the fixed factors",
    ]
    assert new_questions(lambda: [m.anova(kind) for kind in (1, 2, 3)]) == []
    assert new_questions(lambda: m.emmeans("t")) == [
        "columns left out for rank",
        "columns of few values",
        "combinations of t, d, two",
    ]
    assert new_questions(lambda: [m.emmeans("d"), m.emtrends("t", "x"), m.effects("x")]) == []
    assert new_questions(lambda: [m.joint_tests(), m.joint_tests(by="t")]) == []


def test_a_table_that_changes_after_the_fit() -> None:
    connection = duckdb.connect()
    data = rows()  # noqa: F841 - read by the statement below
    connection.execute("create table trial as select * from data")
    m = me.lmer("y ~ t * x + (1 | g)", connection.table("trial"), rows="push")
    for change, said in (
        ("update trial set y = y + 1", "the response had another sum"),
        ("delete from trial where g = 7", "the model had"),
    ):
        connection.execute(change)
        for ask in (lambda: m.anova(3), lambda: m.emmeans("t")):
            with pytest.raises(me.DataError, match=f"changed between passes: .*{said}"):
                ask()


def test_too_many_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixedeffects.lazy.questions._MOST_CELLS", 5)
    m = me.lmer("y ~ t + factor(count) + (1 | g)", ENGINES["duckdb"](rows()), rows="push")
    with pytest.raises(me.ModelError, match="There are 12 cells of the fixed factors"):
        m.anova(3)
    with pytest.raises(me.ModelError, match="There are 12 combinations of t, count"):
        m.emmeans("t")


def sent(value: Any) -> Any:
    """Through a pickle and back."""
    return pickle.loads(pickle.dumps(value))


@engines
def test_stored_fits_go_without_the_table(engine: str) -> None:
    kept, here = fits(engine, "log(up) ~ t * d * year + (1 | g)", missing=True)
    for stored in (sent(kept), kept.without_data(), sent(kept.without_data())):
        assert stored.fit.rows is None
        for kind in (1, 2, 3):
            agree(stored.anova(kind), here.anova(kind))
        agree(pd.DataFrame(stored.coef_table()), pd.DataFrame(here.coef_table()))
        assert str(stored.describe()) == str(here.describe())
        for ask in (
            lambda m: m.emmeans("t"),
            lambda m: m.update(reml=False),
            lambda m: m.X,
            lambda m: m.frame.terms[0].codes,
        ):
            with pytest.raises(me.ModelError, match="without its data"):
                ask(stored)
    assert stored.without_data() is stored
    # The record, and results, as workers in other processes get them.
    np.testing.assert_array_equal(sent(kept.fit).beta, kept.fit.beta)
    means = kept.emmeans("t")
    agree(sent(means).to_frame(), means.to_frame())


def test_offset_as_an_expression_in_memory() -> None:
    data = rows().assign(known=np.log(rows()["pos"]))
    one = me.lmer("y ~ t + (1 | g)", data, offset="log(pos)").emmeans("t", at={"pos": [1.0]})
    other = me.lmer("y ~ t + (1 | g)", data, offset="known").emmeans("t", at={"known": [0.0]})
    agree(pd.DataFrame(one.to_frame()), pd.DataFrame(other.to_frame()))


def test_a_description_without_data_names_weights_and_offset() -> None:
    m = me.lmer("y ~ x + offset(z) + (1 | g)", rows(), weights="w")
    for described in (m, m.without_data()):
        text = str(described.describe())
        assert "has prior weights" in text
        assert "has an offset" in text
