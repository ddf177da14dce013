"""Tables of results: one name for each quantity, names of before, and how they print."""

from __future__ import annotations

import pickle
import re
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mixedeffects as me
from mixedeffects.display.frame_text import frame_table, p_value_text, plain_numbers
from mixedeffects.display.result_table import ResultTable

R_STYLE = {
    "coef_table": lambda m, level: m.coef_table(level=level),
    "coef_table, robust": lambda m, level: m.coef_table(vcov="CR2", level=level),
    "contrast": lambda m, level: m.contrast("temperature.L", level=level),
    "confint": lambda m, level: m.confint(level=level),
    "bootstrap": lambda m, level: m.bootstrap(30, seed=1).confint(level),
}
BROOM = {
    "tidy": lambda m, level: m.tidy("fixed", level=level),
    "emmeans": lambda m, level: m.emmeans("recipe", level=level).to_frame(),
    "contrasts": lambda m, level: m.emmeans("recipe", level=level).contrasts().to_frame(),
    "predict": lambda m, level: m.predict(re=None, interval="confidence", level=level),
}
R_NAMES = {"Estimate", "Std. Error", "df", "t value", "Pr(>|t|)", "lower", "upper"}
BROOM_NAMES = {"estimate", "std_error", "df", "statistic", "p_value", "conf_low", "conf_high"}
KEYS = {"contrast", "recipe", "effect", "group", "term"}


@pytest.fixture(scope="module")
def cake() -> me.LinearMixedModel:
    data = me.load_dataset("cake")
    return me.lmer("angle ~ recipe + temperature + (1 | recipe:replicate)", data)


@pytest.mark.parametrize("name", [*R_STYLE, *BROOM])
def test_one_name_for_each_quantity(cake: me.LinearMixedModel, name: str) -> None:
    make = (R_STYLE | BROOM)[name]
    wide, narrow = make(cake, 0.99), make(cake, 0.5)
    assert list(wide) == list(narrow)
    assert set(wide) - KEYS <= (R_NAMES if name in R_STYLE else BROOM_NAMES)
    low, high = ("lower", "upper") if name in R_STYLE else ("conf_low", "conf_high")
    assert (wide[low] < narrow[low]).all() and (wide[high] > narrow[high]).all()
    if name != "tidy":
        assert "99 %" in repr(wide) and "50 %" in repr(narrow)


@pytest.mark.parametrize(
    ("table", "old", "new"),
    [
        (lambda m: m.coef_table(level=0.9), "5 %", "lower"),
        (lambda m: m.confint("wald"), "97.5 %", "upper"),
        (lambda m: m.emmeans("recipe").to_frame(), "emmean", "estimate"),
        (lambda m: m.emmeans("recipe").to_frame(), "SE", "std_error"),
        (lambda m: m.emmeans("recipe").contrasts().to_frame(), "Pr(>|t|)", "p_value"),
        (lambda m: m.predict(re=None, se=True), "fit", "estimate"),
        (lambda m: m.predict(re=None, interval="confidence"), "upper", "conf_high"),
        (lambda m: m.ranova().to_frame(), "LRT", "Chisq"),
    ],
)
def test_names_of_before_work_with_a_warning(
    cake: me.LinearMixedModel, table: Any, old: str, new: str
) -> None:
    found = table(cake)
    assert old not in found.columns
    label = found.index[0]
    for read in (
        lambda: found[old],
        lambda: found[[old]][new],
        lambda: found.loc[:, old],
        lambda: found.loc[found.index, [old]][new],
        lambda: found.iloc[:][old],
        lambda: found.copy()[old],
    ):
        with pytest.warns(DeprecationWarning, match=re.escape(f"{old!r} is {new!r} now")):
            pd.testing.assert_series_equal(read(), found[new], check_names=False)
    with pytest.warns(DeprecationWarning, match="now"):
        assert found.at[label, old] == found.at[label, new] or np.isnan(found.at[label, new])
    if old.isidentifier():
        with pytest.warns(DeprecationWarning, match="now"):
            assert getattr(found, old).equals(found[new])


def test_the_level_decides_which_percentages_were_columns(cake: me.LinearMixedModel) -> None:
    table = cake.coef_table(level=0.9)
    with pytest.raises(KeyError):
        table["2.5 %"]
    with pytest.raises(AttributeError, match="nothing"):
        _ = table.nothing


def test_a_column_of_the_users_comes_first() -> None:
    data = me.load_dataset("cake").rename(columns={"recipe": "SE"})
    m = me.lmer("angle ~ SE + (1 | SE:replicate)", data)
    table = m.emmeans("SE").to_frame()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert table["SE"].tolist() == ["A", "B", "C"]


def test_it_is_a_dataframe(cake: me.LinearMixedModel) -> None:
    table = cake.coef_table()
    assert isinstance(table, pd.DataFrame)
    again = pickle.loads(pickle.dumps(table))
    pd.testing.assert_frame_equal(table, again)
    assert again.notes == table.notes and again.former == table.former
    part = table.iloc[:2][["Estimate", "df"]]
    assert isinstance(part, ResultTable) and part.notes == table.notes
    assert isinstance(table["df"], pd.Series)
    table.loc["recipeB", "df"] = 7.0
    assert table.at["recipeB", "df"] == 7.0
    assert len(pd.concat([table, table])) == 2 * len(table)
    assert (table * 2.0)["df"].iloc[0] == 2.0 * table["df"].iloc[0]
    by_df = table.groupby(table["df"] > 50.0)["Estimate"].sum()
    assert by_df.sum() == pytest.approx(table["Estimate"].sum())


def test_every_deciding_column_in_80_columns(cake: me.LinearMixedModel) -> None:
    long = me.load_dataset("sleepstudy").rename(columns={"Days": "days_of_deprivation"})
    m = me.lmer("Reaction ~ days_of_deprivation + (1 | Subject)", long)
    for table in (m.coef_table(), cake.coef_table(), cake.anova(), cake.tidy("fixed")):
        lines = repr(table).splitlines()
        assert max(map(len, lines)) < 80
        assert all(str(name) in repr(table) for name in table.columns)
        assert "..." not in repr(table)
    # The test and its p-value stand beside the estimate even where names are long.
    assert repr(m.coef_table()).splitlines()[0].endswith("df t value Pr(>|t|)    lower")


def test_numbers_as_in_a_paper() -> None:
    assert [p_value_text(p) for p in (0.0123, 0.00052, 4.9e-4, 3e-17, 0.9999, np.nan)] == [
        ".012",
        ".001",
        "4.90e-04",
        "< 2e-16",
        "1.000",
        "NaN",
    ]
    assert plain_numbers([4058838.0]) == ["4058838"]
    assert plain_numbers([0.5, np.nan, -np.inf, 2.0]) == [" 0.5", " NaN", "-Inf", " 2.0"]
    assert plain_numbers([]) == []
    large = ResultTable({"Estimate": [4058838.123, 0.00012], "Std. Error": [51234.5, 1.1e-5]})
    assert "e+" not in repr(large) and "4058838" in repr(large) and "0.00012" in repr(large)


def test_chinese_names_keep_their_columns() -> None:
    frame = pd.DataFrame(
        {"学校": ["北京", "x"], "estimate": [1.25, 10.5], "std_error": [0.5, 0.5]},
    )
    lines = str(frame_table(frame)).splitlines()
    assert lines == [
        "学校 estimate std_error",
        "北京      1.2       0.5",
        "x        10.5       0.5",
    ] or lines == [
        "学校 estimate std_error",
        "北京     1.25      0.50",
        "x       10.50      0.50",
    ]


def test_long_and_wide_tables_are_cut_and_say_so() -> None:
    m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    text = repr(m.augment())
    assert len(text.splitlines()) < 20 and "180 rows x 6 columns" in text
    assert len(m.augment().to_text().splitlines()) == 181
    wide = ResultTable(np.zeros((2, 300)))
    assert "2 rows x 300 columns" in repr(wide) and "..." in repr(wide)
    assert "180 rows" in m.augment()._repr_html_()
    assert "Empty" in repr(m.augment().iloc[:0])


def test_renderings_need_no_other_package(cake: me.LinearMixedModel) -> None:
    table = cake.coef_table().iloc[:2]
    assert table.to_markdown().splitlines()[1].count("|") == 9
    assert "\\toprule" in table.to_latex() and "\\caption{Cake}" in table.to_latex(caption="Cake")
    assert table.to_html().startswith("<table>") and "&lt; 2e-16" in table.to_html()
    # With pandas' own arguments they are pandas'.
    assert 'class="dataframe' in table.to_html(index=False)
    renamed = table.rename(index={"recipeB": "<b>x_1 | y</b>"})
    assert "<b>" not in renamed.to_html() and "x\\_1" in renamed.to_latex()
    assert "\\|" in renamed.to_markdown()


def test_multiindex_and_unnamed_rows() -> None:
    index = pd.MultiIndex.from_tuples([("a", 1), ("bb", 20)], names=["school", "teacher"])
    table = ResultTable({"statistic": [1.234, 10.0], "n": [3, 40]}, index=index)
    assert repr(table).splitlines() == [
        "school  teacher statistic  n",
        "a       1            1.23  3",
        "bb      20          10.00 40",
    ]


def test_intercept_only_r2_is_zero() -> None:
    m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
    assert m.r2().marginal == 0.0


def test_sentences_and_formulas_are_printed_in_eighty_columns() -> None:
    cake = me.load_dataset("cake").rename(
        columns={"angle": "angle at which it breaks", "temp": "temperature of the oven"}
    )
    formula = "log(`angle at which it breaks`) ~ recipe * `temperature of the oven`"
    formula += " + (1 | recipe:replicate)"
    m = me.lmer(formula, cake)
    fewer = m.update(". ~ . - recipe:`temperature of the oven`")
    shown = {
        "summary": m.summary(),
        "means": m.emmeans("recipe"),
        "comparisons": m.emmeans("recipe", vcov="CR2", cluster="replicate").contrasts(),
        "likelihood ratio": me.anova(m, fewer),
        "criteria": me.compare(m, fewer),
        "cross-validation": me.cross_validate(m, fewer, folds=3, seed=1),
        "random effects": m.ranova(),
        "influence": m.influence("replicate"),
        "pooled": me.pool([m, m]),
    }
    for name, result in shown.items():
        text = str(result)
        assert max(map(len, text.split("\n"))) <= 80, (name, text)
    # Only where it is printed.
    assert formula in " ".join(str(m.summary()).split())
    assert m.formula == formula


def test_the_line_below_a_robust_table_names_the_clusters() -> None:
    m = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", me.load_dataset("threelevel"))
    for shown in (m.coef_table(vcov="CR2"), m.emmeans([], vcov="CR2"), m.anova(vcov="CR2")):
        assert "CR2 standard errors clustered by sch.cl (10)" in " ".join(str(shown).split())
