"""Effects over the range of variables, their pictures; letters and arrows of means."""

from __future__ import annotations

import itertools
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import LineCollection, PathCollection
from numpy.testing import assert_allclose

import mixedeffects as me
from mixedeffects.cli import main
from mixedeffects.inference.effects import even_steps, few_values
from mixedeffects.inference.letters import letter_columns, letter_display
from mixedeffects.inference.marginal_means_plot import comparison_arrows
from mixedeffects.pictures.effect_plots import term_effects
from references import fitted_model
from test_kenward_roger import at_parameters
from test_transformations import drawn, fitted, stored, theirs

NUMBERS = ["estimate", "std_error", "df", "conf_low", "conf_high"]


def numbers(found: Any) -> np.ndarray:
    """Estimates, standard errors, df and intervals of means, by position."""
    return np.asarray(found.to_frame().iloc[:, -5:].to_numpy(float))


# --- the numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("i", range(len(stored()["curves"])))
def test_against_emmeans_and_ggeffects(i: int) -> None:
    r = stored()["curves"][i]
    data = drawn() if r["data"] == "csv" else me.load_dataset(r["data"])
    theta = np.atleast_1d(r["theta"]).tolist()
    m = at_parameters(r["formula"], data, theta)
    found = m.effects(r["variables"], at=r["at"], weights=r["weights"])
    table = found.to_frame()
    assert list(table.columns[-5:]) == NUMBERS
    R = r["table"]
    assert_allclose(table[["estimate", "std_error"]], theirs(R, "emmean", "SE"), rtol=2e-6)
    assert_allclose(table["df"], theirs(R, "df")[:, 0], rtol=2e-3)
    assert_allclose(table[["conf_low", "conf_high"]], theirs(R, "lower.CL", "upper.CL"), rtol=2e-3)
    first = r["variables"][0]
    for each in (r["ggeffects"] or {}).values():
        keys = pd.DataFrame({"x": each["values"]["x"], "g": each["values"]["group"]})
        keys[["p", "s"]] = theirs(each, "predicted", "std.error")
        own = table.assign(
            x=table[first], g=table[r["variables"][1]].astype(str) if table.shape[1] > 6 else "1"
        )
        both = own.merge(keys, on=["x", "g"])
        assert len(both) == len(table)
        assert_allclose(both["estimate"], both["p"], rtol=2e-6)
        assert_allclose(both["std_error"], both["s"], rtol=2e-6)


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(["x", "a", "z", "ax", "xa", "zx"]),
    st.sampled_from(["equal", "proportional"]),
    st.sampled_from(["link", "response"]),
    st.sampled_from(["none", "mvt"]),
)
def test_effects_are_the_means_at_their_points(
    names: str, weights: str, type_: str, adjust: str
) -> None:
    m = fitted("log(y) ~ a * x + z + (1 | g)")
    options: dict[str, Any] = {"weights": weights, "type": type_, "adjust": adjust}
    found = m.effects(list(names), **options)
    table = found.to_frame()
    at = {name: sorted(set(table[name])) for name in names if name != "a"}
    means = m.emmeans(list(names), at=at, **options)
    assert_allclose(numbers(means), table[NUMBERS].to_numpy(), rtol=1e-9)
    assert found.notes == means.notes


def test_ranges_of_levels_that_are_numbers_or_true() -> None:
    """Categories made of numbers, and truth values, are ranges of levels."""
    data = drawn().assign(k=lambda d: np.arange(len(d)) % 4, t=lambda d: np.arange(len(d)) % 3 == 0)
    m = me.lmer("y ~ factor(k) + t + x + (1 | g)", data)
    found = m.effects("x", by="k", at={"k": slice(1, 2), "x": [0.0, 1.0]}).to_frame()
    assert sorted(set(found["k"].astype(float))) == [1.0, 2.0]
    found = m.effects("k", at={"k": slice(None, 1)}).to_frame()
    assert len(found) == 2
    assert len(m.effects("t", at={"t": slice(False, True)}).to_frame()) == 2
    with pytest.raises(me.ModelError, match="'k' has no level '7'"):
        m.effects("k", at={"k": slice(1, 7)})
    with pytest.raises(me.ModelError, match="There is no variable 'q'"):
        m.effects("k", at={"q": slice(1, 7)})


def test_grids() -> None:
    x = drawn()["x"].to_numpy()
    m = fitted("y ~ a * x + z + (1 | g)")
    points = m.effects("x").to_frame()["x"].to_numpy()
    assert points[0] == x.min()
    assert points[-1] == x.max()
    assert 26 <= len(points) <= 53
    second = m.effects(["x", "z"]).to_frame()["z"].unique()
    assert_allclose(second, np.quantile(drawn()["z"], [0.25, 0.5, 0.75]))
    assert list(m.effects("a").to_frame()["a"]) == ["low", "mid", "high"]
    assert list(m.effects("x", at={"x": slice(0, 20, 5)}).to_frame()["x"]) == [0, 5, 10, 15, 20]
    wide = m.effects("x", at={"x": slice(-3, 20)}).to_frame()["x"]
    assert (wide.iloc[0], wide.iloc[-1]) == (-3, 20)
    assert list(m.effects("x", at={"x": 2.0}).to_frame()["x"]) == [2.0]
    assert list(m.effects("x", by="a", at={"a": "mid"}).to_frame()["a"].unique()) == ["mid"]
    for both in ({"by": "a"}, {}):
        levels = m.effects("x", **both, at={"a": slice("mid", "high")}).means
        listed = m.effects("x", **both, at={"a": ["mid", "high"]}).means
        assert_allclose(numbers(levels), numbers(listed))
    same = m.effects("a", at={"a": slice("low", "low"), "x": slice(1, 3, 2)}).means
    assert_allclose(numbers(same), numbers(m.emmeans("a", at={"a": "low", "x": [1, 3]})))
    days = fitted_model("orthodont").effects("Sex", by="age").to_frame()["age"].unique()
    assert list(days) == [8, 10, 12, 14]


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_even_steps(low: float, span: float) -> None:
    values = np.array([low, low + span / 3.0, low + span])
    if len(np.unique(values)) < 3 or span < 1e-8 * abs(low):
        return
    points = np.array(even_steps(values))
    assert 26 <= len(points) <= 53
    assert (points[0], points[-1]) == (values[0], values[-1])
    assert (np.diff(points) > 0.0).all()
    assert few_values(np.array([1.0, 1.0, 2.0])) == [1.0, 2.0]
    assert even_steps(np.array([0.0, 1.0, 0.0])) == [0.0, 1.0]


def test_simultaneous_bands_are_wider() -> None:
    m = fitted_model("sleepstudy")
    alone, together = m.effects("Days").to_frame(), m.effects("Days", adjust="mvt").to_frame()
    assert (together["conf_high"] > alone["conf_high"]).all()
    # A line has two dimensions: Scheffe's band for it is as wide or wider.
    half = (together["conf_high"] - together["estimate"]) / together["std_error"]
    assert half.max() < np.sqrt(2 * 3.5915)


def test_print_shows_round_points() -> None:
    shown = repr(fitted_model("sleepstudy").effects("Days"))
    assert "10 of 37 points of the grid; see .to_frame()" in shown
    assert "conf_low" in shown
    assert "345.611" in fitted_model("sleepstudy").effects("Days")._repr_html_()
    assert "points of the grid" not in repr(fitted_model("cake").effects("recipe"))


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda m: m.effects([]), "effects needs the name of a variable"),
        (lambda m: m.effects("y"), "'y' is the response"),
        (lambda m: m.effects("q"), "There is no variable 'q'"),
        (lambda m: m.effects(3), "variables must be a name or a list of names"),
        (lambda m: m.effects("x", by="x"), "in both specs and by"),
        (lambda m: m.effects("x", at=[1]), "at maps variables to values"),
        (lambda m: m.effects("x", at={"x": slice(3, 1)}), "a range of 'x' is slice"),
        (lambda m: m.effects("x", at={"x": slice(None, 1)}), "a range of 'x' is slice"),
        (lambda m: m.effects("x", at={"x": slice("a", 1)}), "a range of 'x' is slice"),
        (lambda m: m.effects("x", at={"x": slice(0, 1, -1)}), "the step of 'x' must be positive"),
        (lambda m: m.effects("x", at={"a": slice(0, 1)}), "'a' has no level '0"),
        (lambda m: m.effects("x").plot(data="all"), "data must be True, False or 'partial'"),
        (lambda m: m.effects("x").plot(groups="some"), "groups 'some' is not known"),
        (lambda m: m.effects("x").plot(groups=0), "groups is 'all', a whole number"),
        (lambda m: m.effects("x").plot(groups=[]), "groups is empty"),
        (lambda m: m.effects("x").plot(groups=["none"]), "There is no level 'none'"),
        (lambda m: m.effects("x").plot(factor="g"), "factor= says whose levels"),
        (lambda m: m.effects("x").plot(groups="all", factor="h"), "no grouping factor 'h'"),
        (lambda m: m.plot("effects", by="a"), "by= makes panels of the effects of variables="),
    ],
)
def test_errors_name_what_is_wrong(ask: Any, sentence: str) -> None:
    with pytest.raises(me.ModelError, match=sentence):
        ask(fitted("y ~ a * x + z + (1 | g)"))


# --- the pictures ---------------------------------------------------------------------------------


def curves(ax: Any) -> list[np.ndarray]:
    """The lines of an axes, as (x, y)."""
    return [np.column_stack(line.get_data()) for line in ax.lines]


def test_a_number_has_a_line_and_a_band() -> None:
    found = fitted_model("sleepstudy").effects("Days")
    table = found.to_frame()
    ax = found.plot()
    assert_allclose(curves(ax)[0], table[["Days", "estimate"]])
    band = ax.collections[0].get_paths()[0].vertices
    assert_allclose(band[:, 1].min(), table["conf_low"].min())
    assert_allclose(band[:, 1].max(), table["conf_high"].max())
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Days", "Reaction")
    assert ax.get_legend() is None


def test_a_factor_has_points_with_bars() -> None:
    found = fitted_model("cake").effects(["temperature", "recipe"])
    table = found.to_frame()
    ax = found.plot()
    for (recipe, rows), line in zip(
        table.groupby("recipe", observed=True), curves(ax), strict=True
    ):
        assert_allclose(line[:, 1], rows["estimate"], err_msg=str(recipe))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["A", "B", "C"]
    assert ax.get_legend().get_title().get_text() == "recipe"
    bars = np.vstack([each.get_segments() for each in ax.collections]).reshape(-1, 4)
    assert_allclose(np.sort(bars[:, 1]), np.sort(table["conf_low"]))
    assert len({line.get_marker() for line in ax.lines}) == 3
    assert len({line.get_color() for line in ax.lines}) == 3


def test_panels_share_their_axes() -> None:
    axes = fitted_model("orthodont").effects("age", by="Sex").plot(data=True)
    assert [ax.get_title(loc="left") for ax in axes] == ["Sex: Male", "Sex: Female"]
    assert len({ax.get_ylim() for ax in axes}) == 1
    rows = [len(each.get_offsets()) for ax in axes for each in ax.collections
            if isinstance(each, PathCollection)]  # fmt: skip
    assert rows == [64, 44]
    own = plt.figure().subplots(1, 2)
    drawn_there = fitted_model("orthodont").effects("age", by="Sex").plot(own)
    assert list(drawn_there) == list(own)
    with pytest.raises(me.ModelError, match="there are 2 pictures to draw"):
        fitted_model("orthodont").effects("age", by="Sex").plot(own[0])


def cloud(ax: Any) -> np.ndarray:
    found = [each for each in ax.collections if isinstance(each, PathCollection)]
    return np.concatenate([np.asarray(each.get_offsets()) for each in found])


def test_rows_and_partial_residuals() -> None:
    m = fitted_model("sleepstudy")
    data = me.load_dataset("sleepstudy")
    assert_allclose(cloud(m.effects("Days").plot(data=True)), data[["Days", "Reaction"]])
    partial = cloud(m.effects("Days").plot(data="partial"))
    assert_allclose(
        partial[:, 1], m.fixef["(Intercept)"] + m.fixef["Days"] * data["Days"] + m.resid()
    )
    back = fitted("log(y) ~ a + x + (1 | g)").effects("x", type="response").plot(data=True)
    assert_allclose(cloud(back)[:, 1], drawn()["y"])
    assert back.get_ylabel() == "y"


def test_rows_that_are_not_drawn_are_counted() -> None:
    m = fitted("y ~ a * x + z + (1 | g)")
    ax = m.effects("x", at={"x": slice(2, 6)}).plot(data=True)
    inside = drawn()["x"].between(2, 6)
    assert len(cloud(ax)) == inside.sum()
    said = " ".join(text.get_text() for text in ax.texts).replace("\n", " ")
    assert f"{inside.sum()} rows ({(~inside).sum()} beyond the picture)" in said
    ax = m.effects(["x", "a"], at={"a": ["low", "high"]}).plot(data=True)
    assert len(cloud(ax)) == (drawn()["a"] != "mid").sum()


def strands(ax: Any) -> list[np.ndarray]:
    thin = [each for each in ax.collections if isinstance(each, LineCollection)]
    many = [each for each in thin if each.get_linewidths()[0] < 1.0]
    return [np.asarray(line) for each in many for line in each.get_segments()]


def test_lines_of_levels_are_conditional_predictions() -> None:
    m = fitted_model("orthodont")
    ax = m.effects(["age", "Sex"]).plot(groups="all")
    lines = strands(ax)
    assert len(lines) == 27
    data = me.load_dataset("orthodont")
    sex = data.drop_duplicates("Subject").set_index("Subject")["Sex"]
    for subject, line in zip(m.ranef()["Subject"].index, lines, strict=True):
        rows = pd.DataFrame({"age": line[:, 0], "Sex": sex[subject], "Subject": subject})
        assert_allclose(line[:, 1], m.predict(rows), rtol=1e-9)


def test_levels_within_levels_have_the_effects_of_both() -> None:
    m = me.lmer("strength ~ 1 + cask + (1 | batch/sample)", pastes())
    lines = strands(m.effects("cask").plot(groups="all", factor="batch"))
    assert len(lines) == 10
    inner = strands(m.effects("cask").plot(groups=3))
    assert len(inner) == 3
    modes = m.ranef()
    first = str(modes["sample:batch"].index[0])
    batch = first.split(":")[1]
    shift = modes["sample:batch"].iloc[0, 0] + modes["batch"].loc[batch].iloc[0]
    means = m.emmeans("cask").estimates.estimate
    assert_allclose(inner[0][:, 1], means + shift)


def pastes() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    rows = list(itertools.product("ABCDEFGHIJ", "abc", ["p", "q"], range(2)))
    data = pd.DataFrame(rows, columns=["batch", "sample", "cask", "r"])
    data["cask"] = data["cask"].astype("category")
    batch, sample = rng.normal(size=10), rng.normal(size=30)
    code = data.groupby(["batch", "sample"]).ngroup()
    own = batch[data["batch"].map("ABCDEFGHIJ".index)] + sample[code]
    return data.assign(strength=own + rng.normal(size=len(data)) + (data["cask"] == "q"))


def test_lines_of_chosen_levels_and_of_random_variables() -> None:
    m = me.lmer("Reaction ~ 1 + half + (Days | Subject)", halves())
    ax = m.effects("half").plot(groups=["308", "309"])
    lines = strands(ax)
    assert len(lines) == 2
    # A variable that the random effects alone have is at its mean.
    modes = m.ranef()["Subject"].loc["308"]
    shift = modes["(Intercept)"] + modes["Days"] * halves()["Days"].mean()
    assert_allclose(lines[0][:, 1], m.emmeans("half").estimates.estimate + shift)


def halves() -> pd.DataFrame:
    data = me.load_dataset("sleepstudy")
    return data.assign(half=pd.Categorical(np.where(data["Days"] % 2, "odd", "even")))


def test_all_terms_have_their_picture() -> None:
    assert fitted_model("sleepstudy").plot("effects").get_xlabel() == "Days"
    axes = fitted("y ~ a * x + z + (1 | g)").plot("effects", data="partial")
    assert [ax.get_xlabel() for ax in axes] == ["x", "z"]
    assert axes[0].get_legend() is not None
    one = fitted("y ~ a * x + z + (1 | g)").plot("effects", variables="a", by="x")
    assert len(one) == 3
    none = fitted_model("dyestuff").plot("effects")
    assert "has no variable" in none.texts[-1].get_text().replace("\n", " ")
    rng = np.random.default_rng(2)
    data = drawn().assign(b=rng.choice(list("stuvwxyzklmnop"), len(drawn())))
    many = me.lmer("y ~ x:a:b + (1 | g)", data)
    with pytest.raises(me.ModelError, match="more than 12; choose some with variables="):
        many.plot("effects")


def test_many_series_have_a_legend_beside() -> None:
    rng = np.random.default_rng(3)
    names = [f"a rather long name {k}" for k in range(12)]
    data = pd.DataFrame({"f": np.repeat(names, 20), "x": rng.normal(size=240)})
    data["g"] = np.tile(list("abcdefghij"), 24)
    data["y"] = rng.normal(size=240)
    ax = me.lmer("y ~ f * x + (1 | g)", data).effects(["x", "f"]).plot()
    assert len(ax.get_legend().get_texts()) == 12
    assert len({(line.get_color(), line._unscaled_dash_pattern) for line in ax.lines}) == 12


def test_many_rows_become_hexagons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixedeffects.display.curves.MANY_POINTS", 100)
    ax = fitted_model("sleepstudy").effects("Days").plot(data=True)
    assert not [each for each in ax.collections if isinstance(each, PathCollection)]
    counts = max(ax.collections, key=lambda each: np.size(each.get_array())).get_array()
    assert counts is not None
    assert counts.sum() == 180


def test_not_estimable_means_leave_gaps() -> None:
    data = drawn()
    hole = data[~((data["a"] == "high") & (data["x"] > 4))].assign(
        late=lambda d: pd.Categorical(np.where(d["x"] > 4, "late", "early"))
    )
    found = me.lmer("y ~ a * late + (1 | g)", hole).effects(["a", "late"])
    assert found.to_frame()["estimate"].isna().sum() == 1
    ax = found.plot(data="partial")
    assert sum(len(line) for line in curves(ax)) == 6


# --- letters and arrows ---------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_means_share_a_letter_if_and_only_if_they_do_not_differ(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 9))
    pairs = list(itertools.combinations(range(count), 2))
    different = {pair for pair in pairs if data.draw(st.booleans())}
    order = data.draw(st.permutations(range(count)))
    letters = letter_display(order, different)
    for i, j in pairs:
        assert bool(set(letters[i]) & set(letters[j])) == ((i, j) not in different)
    assert all(letters)
    # No letter says what another says as well.
    columns = letter_columns(count, different)
    assert not any(a < b for a, b in itertools.permutations(columns, 2))
    assert len(set(columns)) == len(columns)


def test_letters_beyond_the_alphabet() -> None:
    letters = letter_display(range(55), itertools.combinations(range(55), 2))
    assert letters[:2] == ["a", "b"]
    assert letters[51:] == ["Z", "(53)", "(54)", "(55)"]
    with pytest.raises(me.ModelError, match="Letters for 60 means take more than 500"):
        letter_columns(60, [(2 * i, 2 * i + 1) for i in range(30)])


@pytest.mark.parametrize("by", [None, "recipe"])
@pytest.mark.parametrize("adjust", [None, "none", "bonferroni"])
def test_letters_are_those_of_the_tests(by: str | None, adjust: str | None) -> None:
    means = fitted_model("cake").emmeans("temperature", by=by)
    table = means.letters(0.9, adjust=adjust)
    p = iter(means.contrasts(adjust=adjust).p)
    for rows in means.groups():
        for i, j in itertools.combinations(rows, 2):
            share = set(table["letters"].iloc[i]) & set(table["letters"].iloc[j])
            assert bool(share) == (next(p) >= 0.1)
        smallest = rows[np.argmin(means.estimates.estimate[rows])]
        assert "a" in table["letters"].iloc[smallest]
    reverse = means.letters(0.9, adjust=adjust, reverse=True)
    largest = means.groups()[0][np.argmax(means.estimates.estimate[means.groups()[0]])]
    assert "a" in reverse["letters"].iloc[largest]


def test_letters_of_one_mean_and_of_none() -> None:
    assert fitted_model("cake").emmeans([]).letters()["letters"].tolist() == ["a"]
    data = drawn().assign(b=pd.Categorical(np.where(drawn()["x"] > 4, "u", "v")))
    hole = data[~((data["a"] == "high") & (data["b"] == "u"))]
    table = me.lmer("y ~ a * b + (1 | g)", hole).emmeans(["a", "b"]).letters()
    lost = table.iloc[:, 2].isna()
    assert lost.sum() == 1
    assert table["letters"][lost].tolist() == [""]
    assert (table["letters"][~lost] != "").all()


def test_arrows_overlap_where_means_do_not_differ() -> None:
    means = fitted_model("cake").emmeans("temperature")
    lengths, wrong = comparison_arrows(means)
    assert wrong == 0
    y, p = means.estimates.estimate, iter(means.contrasts().p)
    for i, j in itertools.combinations(range(6), 2):
        low, high = (i, j) if y[i] < y[j] else (j, i)
        overlap = y[low] + lengths[low, 1] > y[high] - lengths[high, 0]
        assert overlap == (next(p) >= 0.05)
    assert np.isnan(lengths[np.argmin(y), 0])
    assert np.isnan(lengths[np.argmax(y), 1])


def test_pictures_of_means() -> None:
    means = fitted_model("cake").emmeans("temperature", by="recipe")
    axes = means.plot(letters=True, arrows=True)
    assert len(axes) == 3
    texts = [text.get_text() for text in axes[0].texts if text.get_text().isalpha()]
    assert texts == means.letters()["letters"][:6].tolist()
    alone = fitted_model("cake").emmeans("recipe").plot()
    assert alone.lines[0].get_linestyle() == "None"
    assert fitted_model("cake").emmeans("recipe").plot(lines=True).lines[0].get_linestyle() == "-"
    falling = fitted("1/y ~ a + x + (1 | g)").emmeans("a", type="response")
    lengths, _ = comparison_arrows(falling)
    y = falling.to_frame().iloc[:, 1].to_numpy(float)
    assert np.isnan(lengths[np.argmin(y), 0])
    assert np.isnan(lengths[np.argmax(y), 1])
    ratios = fitted("log(y) ~ a + x + (1 | g)").emmeans("a", type="response").contrasts().plot()
    assert ratios.get_xlabel() == "ratio (y)"
    assert ratios.get_xscale() == "log"
    with pytest.raises(me.ModelError, match="arrows"):
        means.plot(arrows="yes")


# --- report and command line ----------------------------------------------------------------------


def test_the_report_has_the_effects(tmp_path: Any) -> None:
    html = fitted("y ~ a * x + z + (1 | g)").report(tmp_path / "r.html").read_text()
    assert '<h2 id="effects">Effects</h2>' in html
    assert "Effect of x and a on y, with 95 % intervals" in html
    assert "averaged over a, with equal weights" in html
    assert not term_effects(fitted_model("dyestuff").fit)


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    formula = "distance ~ age * Sex + (age | Subject)"
    assert main(["fit", "orthodont", formula, "--effects", "age, Sex", "--effects", "Sex"]) == 0
    shown = capsys.readouterr().out
    assert "Effect of age, Sex on distance:" in shown
    assert "Effect of Sex on distance:" in shown
    assert main(["fit", "orthodont", formula, "--effects", "Sex", "--json"]) == 0
    import json

    document = json.loads(capsys.readouterr().out)
    (effect,) = document["effects"]
    assert effect["variables"] == ["Sex"]
    assert [row["Sex"] for row in effect["rows"]] == ["Male", "Female"]
    assert set(NUMBERS) < set(effect["rows"][0])
    assert main(["fit", "orthodont", formula, "--effects", "size"]) == 1
    assert "no variable 'size'" in capsys.readouterr().err


def test_numbers_made_a_factor_are_drawn_as_levels() -> None:
    orthodont = me.load_dataset("orthodont").assign(code=lambda d: d["age"].astype(int))
    m = me.lmer("distance ~ factor(code) + Sex + (1 | Subject)", orthodont)
    found = m.effects("code")
    ax = found.plot(data=True)
    assert [each.get_text() for each in ax.get_xticklabels()] == ["8", "10", "12", "14"]
    assert_allclose(curves(ax)[0], np.column_stack([range(4), found.to_frame()["estimate"]]))
    rows = [each for each in ax.collections if isinstance(each, PathCollection)]
    assert sum(len(each.get_offsets()) for each in rows) == len(orthodont)
    means = m.emmeans("code").plot()
    assert [each.get_text() for each in means.get_xticklabels()] == ["8", "10", "12", "14"]
    colours = m.effects(["Sex", "code"]).plot().get_legend().get_texts()
    assert [each.get_text() for each in colours] == ["8", "10", "12", "14"]


def test_rows_are_drawn_at_the_offset_of_the_effects() -> None:
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"g": np.repeat(np.arange(12), 10), "x": rng.uniform(0.0, 1.0, 120)})
    data["hours"] = rng.choice([1.0, 4.0, 20.0], 120)
    data["n"] = rng.poisson(data["hours"] * np.exp(0.5 * data["x"]))
    m = me.glmer("n ~ x + (1 | g)", data, family="poisson", exposure="hours")
    ax = m.effects("x", at={"hours": 10}).plot(data=True)
    drawn = cloud(ax)
    order = np.argsort(drawn[:, 0])
    rates = (data["n"] * 10.0 / data["hours"]).to_numpy()[np.argsort(data["x"])]
    assert_allclose(drawn[order, 1], rates)
    said = ax.get_title(loc="left") + "".join(each.get_text() for each in ax.texts)
    assert "120 rows, in proportion to hours = 10" in said
    # Along the exposure itself rows stay where they are.
    along = cloud(m.effects("hours").plot(data=True))
    assert_allclose(np.sort(along[:, 1]), np.sort(data["n"]), rtol=1e-6, atol=1e-9)
    # The same of a linear model: a sum in place of a factor.
    data["y"] = data["hours"] + rng.standard_normal(120)
    linear = me.lmer("y ~ x + (1 | g)", data, offset="hours")
    moved = cloud(linear.effects("x", at={"hours": 0}).plot(data=True))
    assert_allclose(np.sort(moved[:, 1]), np.sort(data["y"] - data["hours"]))
