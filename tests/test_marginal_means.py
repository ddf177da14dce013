"""Contrasts, estimated marginal means, trends and their comparisons."""

from __future__ import annotations

import re
import warnings
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

import mixedeffects as me
from mixedeffects.inference.mean_contrasts import contrast_coefficients
from mixedeffects.inference.multiplicity import Family, adjusted_p, critical_values
from mixedeffects.inference.studentized_range import studentized_range_sf
from references import answers, as_frame, drawn_data, fitted_model, model_data
from test_kenward_roger import at_parameters

# --- emmeans of R ---------------------------------------------------------------------------------

DDF = {"satterthwaite": "satterthwaite", "kenward-roger": "kr"}
CUSTOM = {"first against rest": [1, -0.5, -0.5], "last step": [0, -1, 1]}


def stored() -> dict[str, Any]:
    return answers("marginal_means")


def drawn() -> pd.DataFrame:
    return drawn_data("marginal_means")


def without_cell() -> pd.DataFrame:
    data = drawn()
    return data[~((data["a"] == "high") & (data["b"] == "v"))]


@cache
def stored_model(i: int) -> me.LinearMixedModel:
    r = stored()["models"][i]
    own = {"drawn": drawn, "hole": without_cell}.get(r["data"])
    data = own() if own else model_data(r["data"])
    return at_parameters(r["formula"], data, r["theta"], weights=r.get("weights"))


def assert_tables_agree(
    ours: pd.DataFrame, theirs: pd.DataFrame, numbers: dict[str, str], close: float = 1e-5
) -> None:
    assert len(ours) == len(theirs)
    for name, column in numbers.items():
        loose = column == "df" or column in ("p_value", "conf_low", "conf_high")
        assert_allclose(
            ours[column].to_numpy(float),
            theirs[name].to_numpy(float),
            rtol=max(close, 2e-3) if loose else close,
            atol=2e-3 if loose else 1e-5,
            err_msg=column,
        )


QUESTIONS = [(i, j) for i, m in enumerate(stored()["models"]) for j in range(len(m["tables"]))]


@pytest.mark.parametrize(("i", "j"), QUESTIONS)
def test_against_emmeans(i: int, j: int) -> None:
    r = stored()["models"][i]["tables"][j]
    options: dict[str, Any] = {"at": r["at"], "weights": r["weights"], "ddf": DDF[r["ddf"]]}
    m = stored_model(i)
    # Slopes of emmeans are one-sided differences over a thousandth of the range.
    close = 3e-3 if "var" in r else 1e-5
    if "var" in r:
        means = m.emtrends(r["specs"], r["var"], **options)
    else:
        means = m.emmeans(r["specs"], by=r["by"], **options)
    ours, theirs = means.to_frame(), as_frame(r["table"])
    for name in means.levels:
        as_text = [str(v) for v in theirs[name]]
        numeric = ours[name].dtype == np.float64
        assert (
            [float(v) for v in as_text] == list(ours[name])
            if numeric
            else as_text == list(ours[name])
        )
    bounds = {"SE": "std_error", "df": "df", "lower.CL": "conf_low", "upper.CL": "conf_high"}
    assert_tables_agree(ours, theirs, {means.name: "estimate", **bounds}, close)
    for asked in r["contrasts"]:
        method = CUSTOM if asked["method"] == "custom" else asked["method"]
        ours = means.contrasts(method, adjust=asked["adjust"]).to_frame()
        theirs = as_frame(asked["table"])
        # To emmeans whole numbers as labels are numbers, and so are named.
        labels = [label.replace("temperature", "") for label in theirs["contrast"]]
        assert list(ours["contrast"]) == labels
        if theirs["estimate"].isna().any():
            # Adjusted values differ by design: see the test of families below.
            bounds = {"SE": "std_error", "df": "df"}
        more = {"estimate": "estimate", "t.ratio": "statistic"}
        if "lower.CL" in bounds:
            more["p.value"] = "p_value"
        assert_tables_agree(ours, theirs, {**more, **bounds}, close)


def test_stored_answers_have_what_is_not_estimable() -> None:
    """So that agreement above includes agreement on it."""
    hole = stored_model(8)
    assert hole.dropped.columns == ("ahigh:bv",)
    assert hole.emmeans("a").to_frame()["estimate"].isna().tolist() == [False, False, True]
    assert hole.emmeans(["a", "b"]).contrasts().to_frame()["estimate"].isna().sum() == 5


# --- by hand --------------------------------------------------------------------------------------


def test_means_of_the_grid_by_hand() -> None:
    data = drawn()
    m = me.lmer("y ~ a * b + x + (1 | g)", data)
    grid = pd.DataFrame(
        [(a, b, data["x"].mean()) for a in ("low", "mid", "high") for b in "uv"], columns=[*"abx"]
    )
    X, names = m.frame.fixed_encoder.encode(grid)  # type: ignore[union-attr]
    assert names == tuple(m.fixef.index)
    L = X.reshape(3, 2, -1).mean(axis=1)
    means = m.emmeans("a")
    assert_allclose(means.L, L, atol=1e-14)
    assert_allclose(means.to_frame()["estimate"], L @ m.fixef)
    by_contrast = m.contrast(means.L)
    assert list(by_contrast.index) == ["low", "mid", "high"]
    assert_allclose(by_contrast["Estimate"], means.to_frame()["estimate"])
    assert_allclose(by_contrast["lower"], means.to_frame()["conf_low"])
    counts = data.groupby(["a", "b"], observed=True).size().unstack().to_numpy()
    weighted = np.einsum("ab,abp->ap", counts / counts.sum(axis=1)[:, None], X.reshape(3, 2, -1))
    assert_allclose(m.emmeans("a", weights="cells").L, weighted, atol=1e-14)
    share = counts.sum(axis=0) / counts.sum()
    weighted = np.einsum("b,abp->ap", share, X.reshape(3, 2, -1))
    assert_allclose(m.emmeans("a", weights="proportional").L, weighted, atol=1e-14)


def test_coding_does_not_matter() -> None:
    m = me.lmer("y ~ a * b + x + (1 | g)", drawn())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", me.ConvergenceWarning)
        other = me.lmer("y ~ a * b + x + (1 | g)", drawn(), contrasts={"a": "helmert", "b": "sum"})
    for ddf in ("satterthwaite", "kr"):
        first, second = m.emmeans("a", ddf=ddf), other.emmeans("a", ddf=ddf)
        columns = ["estimate", "std_error", "df"]
        assert_allclose(first.to_frame()[columns], second.to_frame()[columns], rtol=1e-4)


@pytest.mark.parametrize("options", [{"offset": "o"}, {"offset": True}, {}])
def test_offset_is_part_of_means_and_cancels_in_differences(options: dict[str, Any]) -> None:
    data = drawn()
    formula = "y ~ a + x + (1 | g)" if options else "y ~ a + x + offset(o) + (1 | g)"
    if options.get("offset") is True:
        options = {"offset": data["o"].to_numpy()}
    m = me.lmer(formula, data, **options)
    bare = me.lmer("I(y - o) ~ a + x + (1 | g)", data)
    ours, theirs = m.emmeans("a"), bare.emmeans("a")
    shift = ours.to_frame()["estimate"] - theirs.to_frame()["estimate"]
    assert_allclose(shift, data["o"].mean(), rtol=1e-5)
    assert_allclose(
        ours.contrasts().to_frame()["std_error"], theirs.contrasts().to_frame()["std_error"]
    )
    for_sum = [means.contrasts({"sum": [1, 1, 1]}).to_frame() for means in (ours, theirs)]
    assert_allclose(
        for_sum[0]["estimate"] - for_sum[1]["estimate"], 3 * data["o"].mean(), rtol=1e-5
    )


def test_offset_given_twice() -> None:
    data = drawn().assign(half=lambda d: d["o"] / 2)
    both = me.lmer("y ~ a + offset(half) + (1 | g)", data, offset=data["half"].to_numpy())
    once = me.lmer("y ~ a + offset(o) + (1 | g)", data)
    assert_allclose(
        both.emmeans("a").to_frame()["estimate"], once.emmeans("a").to_frame()["estimate"]
    )


def test_slopes_by_hand() -> None:
    m = me.lmer("y ~ b * poly(x, 3) + log(x) + (1 | g)", drawn())
    trends = m.emtrends("b", "x", at={"x": 3.0})
    h = 1e-4
    for row, b in enumerate("uv"):
        ends = pd.DataFrame({"b": [b, b], "x": [3.0 - h, 3.0 + h]})
        X, _ = m.frame.fixed_encoder.encode(ends)  # type: ignore[union-attr]
        assert_allclose(trends.L.iloc[row], (X[1] - X[0]) / (2 * h), atol=1e-6)
    linear = fitted_model("sleepstudy")
    table, row = linear.emtrends([], "Days").to_frame(), linear.coef_table().loc["Days"]
    assert table.loc[0, "estimate"] == pytest.approx(row["Estimate"])
    assert table.loc[0, "std_error"] == pytest.approx(row["Std. Error"])


def test_slopes_that_the_data_do_not_determine() -> None:
    data = drawn().assign(x=lambda d: np.where(d["b"] == "v", 3.0, d["x"]))
    m = me.lmer("y ~ b * x + a + (1 | g)", data)
    assert m.dropped.columns == ("bv:x",)
    table = m.emtrends("b", "x").to_frame()
    assert table["estimate"].isna().tolist() == [False, True]


def test_robust_standard_errors() -> None:
    m = fitted_model("star_sample")
    means = m.emmeans("cltype", vcov="CR2", cluster="sch")
    robust = m.robust("CR2", cluster="sch").variance()
    L = means.L.to_numpy()
    assert_allclose(means.to_frame()["std_error"], np.sqrt(np.diag(L @ robust.vcov @ L.T)))
    assert_allclose(means.to_frame()["df"], robust.df(L))
    D = means.contrasts()
    assert_allclose(D.to_frame()["df"], robust.df(D.L.to_numpy()))
    assert "CR2" in repr(D)


@pytest.mark.parametrize("weights", ["equal", "proportional", "cells"])
def test_an_estimable_mean_is_that_of_any_solution(weights: str) -> None:
    """Against fitted values: every least-squares solution gives the rows of the data the same."""
    data = without_cell()
    m = me.lmer("y ~ a * b + x + (1 | g)", data)
    # Dropping other columns than the first model does must change no number.
    order = pd.Categorical(data["a"], ["high", "low", "mid"])
    other = me.lmer("y ~ a * b + x + (1 | g)", data.assign(a=order))
    tables = [
        f.emmeans(["a", "b"], weights=weights).to_frame().astype({"a": str}).set_index(["a", "b"])
        for f in (m, other)
    ]
    assert_allclose(tables[0], tables[1].loc[tables[0].index], rtol=1e-4)
    assert tables[0]["estimate"].isna().sum() == 1


def test_what_cannot_be_compared_is_not_in_the_family() -> None:
    """Five of the six cells have rows; fitted as one factor of five levels they are all there."""
    data = without_cell().assign(cell=lambda d: d["a"].astype(str) + " " + d["b"])
    order = ["low u", "low v", "mid u", "mid v", "high u"]
    data["cell"] = pd.Categorical(data["cell"], order)
    theirs = me.lmer("y ~ cell + x + (1 | g)", data).emmeans("cell")
    ours = me.lmer("y ~ a * b + x + (1 | g)", data).emmeans(["b", "a"])
    for adjust in ("tukey", "holm", "mvt", "fdr"):
        first, second = (means.contrasts(adjust=adjust).to_frame() for means in (ours, theirs))
        assert len(first) == 15
        assert second.loc[0, "contrast"] == "low u - low v"
        assert_allclose(first.dropna().iloc[:, 1:], second.iloc[:, 1:], rtol=2e-3, atol=1e-6)


def test_differences_can_be_estimable_where_means_are_not() -> None:
    data = drawn().assign(k=lambda d: np.where(d["g"].isin(["g1", "g2", "g3"]), "p", "q"))
    data["l"] = np.where(data["k"] == "p", "r", "s")
    m = me.lmer("y ~ k + l + a + (1 | g)", data)
    assert m.dropped.columns == ("ls",)
    means = m.emmeans("a", at={"k": "p", "l": "s"})
    assert means.to_frame()["estimate"].isna().all()
    assert "3 of 3 are not estimable" in repr(means)
    differences = means.contrasts().to_frame()
    without = me.lmer("y ~ k + a + (1 | g)", data).emmeans("a").contrasts().to_frame()
    assert_allclose(differences.iloc[:, 1:], without.iloc[:, 1:], rtol=1e-4, atol=1e-6)


def test_logical_text_and_coerced_columns() -> None:
    data = drawn().assign(flag=lambda d: d["x"] > 4)
    m = me.lmer("y ~ flag * b + factor(day) + (1 | g)", data)
    means = m.emmeans("flag")
    assert list(means.to_frame()["flag"]) == ["FALSE", "TRUE"]
    assert list(m.emmeans("flag", at={"flag": True}).to_frame()["flag"]) == ["TRUE"]
    assert list(m.emmeans("day").to_frame()["day"]) == [1.0, 2.0, 4.0]
    L = m.emmeans("flag", at={"b": "v", "day": 4}).L
    expected = [[1, 0, 1, 0, 1, 0], [1, 1, 1, 0, 1, 1]]
    assert list(L.columns) == [
        "(Intercept)", "flagTRUE", "bv", "factor(day)2", "factor(day)4", "flagTRUE:bv",
    ]  # fmt: skip
    assert_allclose(L, expected)


def test_model_without_factors() -> None:
    m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
    table = m.emmeans([]).to_frame()
    assert table.loc[0, "estimate"] == pytest.approx(m.fixef.iloc[0])
    with pytest.raises(me.ModelError, match="need two or more means"):
        m.emmeans([]).contrasts()


# --- contrasts ------------------------------------------------------------------------------------


def test_ways_to_ask_for_a_contrast() -> None:
    m = fitted_model("sleepstudy")
    table = m.coef_table(ddf="kr")
    assert_allclose(m.contrast(["(Intercept)", "Days"], ddf="kr"), table)
    assert list(m.contrast("Days").index) == ["Days"]
    assert list(m.contrast([[0, 1], [0, 2], [1, 0]]).index) == ["1", "2", "3"]
    expected = m.contrast([[1, 5]]).to_numpy()
    for hypothesis in (
        {"day 5": {"(Intercept)": 1, "Days": 5}},
        {"day 5": [1, 5]},
        {"day 5": pd.Series({"Days": 5, "(Intercept)": 1})},
        pd.DataFrame({"Days": [5.0], "(Intercept)": [1.0]}, index=["day 5"]),
    ):
        found = m.contrast(hypothesis)
        assert list(found.index) == ["day 5"]
        assert_allclose(found, expected)
    assert list(m.contrast("Days", level=0.9).columns[-2:]) == ["lower", "upper"]


@pytest.mark.parametrize("ddf", ["satterthwaite", "kr", "residual", "inf"])
def test_a_contrast_is_a_wald_test_of_one(ddf: str) -> None:
    m = fitted_model("cake")
    L = np.zeros((1, len(m.fixef)))
    L[0, [1, 3, 9]] = 1.0, -0.5, 0.25
    row, test = m.contrast(L, ddf=ddf).iloc[0], m.wald(L, ddf=ddf)
    assert test.statistic == pytest.approx(row["t value"] ** 2)
    assert (test.den_df, test.p) == pytest.approx((row["df"], row["Pr(>|t|)"]))


# --- several comparisons --------------------------------------------------------------------------


def family(t: Any, df: Any, covariance: Any, n_means: int = 0) -> Family:
    t, df = np.asarray(t, float), np.broadcast_to(np.asarray(df, float), len(t))
    p = 2 * scipy.stats.t.sf(np.abs(t), df)
    values, vectors = np.linalg.eigh(np.asarray(covariance, float))
    return Family(t, df, p, vectors * np.sqrt(np.maximum(values, 0.0)), n_means)


def test_multivariate_t_is_tukey_for_independent_means() -> None:
    """Two ways to one distribution, for means of equal variance."""
    _, C = contrast_coefficients("pairwise", list("abcd"))
    t = np.array([0.5, 1.0, 2.0, 2.7, 3.5, 6.0])
    for df in (5.0, 20.0, np.inf):
        one = family(t, df, C @ C.T, 4)
        assert_allclose(adjusted_p("mvt", one), adjusted_p("tukey", one), rtol=5e-3)
        widths = [critical_values(how, one, 0.95) for how in ("mvt", "tukey")]
        assert_allclose(widths[0], widths[1], rtol=1e-3)


@pytest.mark.parametrize(("k", "df"), [(3, 0.8), (3, 4.5), (7, 30.0), (40, 9.0), (5, np.inf)])
def test_studentized_range_against_scipy(k: int, df: float) -> None:
    for q in (0.4, 2.0, 3.7, 6.0):
        exact = scipy.stats.studentized_range.sf(q, k, df)
        assert float(studentized_range_sf(q, k, df)) == pytest.approx(exact, abs=3e-7)


def test_multivariate_t_of_independent_statistics() -> None:
    t = np.array([0.3, 1.1, 2.4])
    one = family(t, np.inf, np.diag([1.0, 4.0, 9.0]))
    assert_allclose(adjusted_p("mvt", one), adjusted_p("sidak", one), rtol=2e-3)
    single = family([1.7], 8.0, [[3.0]])
    assert_allclose(adjusted_p("mvt", single), single.p)


def test_multivariate_t_against_dunnett() -> None:
    """Critical values of Dunnett (1964), Biometrics 20, two-sided 5 %, equal groups."""
    for treatments, df, value in ((2, 10, 2.57), (3, 10, 2.76), (4, 20, 2.65), (5, 60, 2.58)):
        C = np.hstack([-np.ones((treatments, 1)), np.eye(treatments)])
        one = family(np.ones(treatments), float(df), C @ C.T)
        assert critical_values("mvt", one, 0.95)[0] == pytest.approx(value, abs=0.011)


@pytest.mark.parametrize("method", ["tukey", "mvt", "scheffe", "bonferroni", "sidak", "none"])
def test_intervals_and_probabilities_agree(method: str) -> None:
    """At the critical value the adjusted probability is that of the level."""
    _, C = contrast_coefficients("pairwise", list("abc"))
    for df in (4.0, 33.0):
        width = critical_values(method, family(np.ones(3), df, C @ C.T, 3), 0.9)
        p = adjusted_p(method, family(width, df, C @ C.T, 3))
        assert_allclose(p, 0.1, rtol=1e-5)


def test_many_degrees_of_freedom_are_interpolated() -> None:
    _, C = contrast_coefficients("pairwise", [str(i) for i in range(9)])
    df = np.linspace(5.0, 200.0, 36)
    found = critical_values("tukey", family(np.ones(36), df, C @ C.T, 9), 0.95)
    exact = critical_values("tukey", family(np.ones(36), df[3], C @ C.T, 9), 0.95)
    assert found[3] == pytest.approx(exact[3], rel=1e-5)
    # R: qtukey(.95, 9, c(5, 200)) / sqrt(2)
    assert_allclose(found[[0, 35]], np.array([6.80139792, 4.43510533]) / np.sqrt(2.0), rtol=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(0, 8), min_size=1, max_size=6), st.floats(2, 200))
def test_adjusted_probabilities_are_ordered(t: list[float], df: float) -> None:
    """Between unadjusted and Bonferroni's; Holm's not above Bonferroni's, nor fdr above Holm's."""
    one = family(t, df, np.eye(len(t)))
    p = {how: adjusted_p(how, one) for how in ("sidak", "holm", "fdr", "bonferroni", "mvt")}
    for values in p.values():
        assert (values >= one.p * (1 - 1e-12)).all()
        assert (values <= p["bonferroni"] * (1 + 1e-12) + 1e-300).all()
    assert (p["fdr"] <= p["holm"] * (1 + 1e-12)).all()
    order = np.argsort(one.p)
    assert all((np.diff(values[order]) >= -1e-12).all() for values in p.values())


@given(st.integers(2, 9))
@settings(deadline=None)
def test_polynomials_are_orthogonal_whole_numbers(k: int) -> None:
    names, C = contrast_coefficients("poly", [str(i) for i in range(k)])
    assert len(names) == min(k - 1, 6)
    assert_allclose(C @ C.T, np.diag(np.diag(C @ C.T)), atol=1e-9)
    assert_allclose(C.sum(axis=1), 0.0)
    assert (np.round(C) == C).all()
    assert (C[:, -1] > 0).all()


def test_a_family_is_one_group() -> None:
    m = fitted_model("cake")
    together = m.emmeans("recipe", by="temperature").contrasts().to_frame()
    assert list(together)[:2] == ["contrast", "temperature"]
    for level in ("175", "225"):
        alone = m.emmeans("recipe", at={"temperature": level}).contrasts().to_frame()
        rows = together[together["temperature"] == level]
        assert_allclose(rows.iloc[:, 2:], alone.iloc[:, 1:], rtol=1e-6)


def test_control_and_custom_by_label() -> None:
    means = fitted_model("cake").emmeans("recipe")
    assert list(means.contrasts("trt.vs.ctrl", reference="C").labels["contrast"]) == [
        "A - C",
        "B - C",
    ]
    by_label = means.contrasts({"x": {"A": 1, "C": -1}}).to_frame()
    assert_allclose(by_label.iloc[:, 1:5], means.contrasts(adjust="none").to_frame().iloc[[1], 1:5])


# --- what is said ---------------------------------------------------------------------------------


def test_notes() -> None:
    m = fitted_model("cake")
    text = repr(m.emmeans("recipe"))
    assert "averaged over temperature, with equal weights" in text
    assert "may mislead: recipe interacts with temperature, which is averaged over" in text
    assert "t-tests use Satterthwaite's method" in text
    assert "may mislead" not in repr(m.emmeans("recipe", by="temperature"))
    assert "may mislead" not in repr(m.emmeans("recipe", at={"temperature": "185"}))
    additive = me.lmer("y ~ a + x + (1 | g)", drawn())
    assert "may mislead" not in repr(additive.emmeans("a"))
    assert f"at x = {drawn()['x'].mean():.5g}" in repr(additive.emmeans("a"))
    moving = me.lmer("y ~ a * x + (1 | g)", drawn())
    assert "a interacts with x, which is held at one value" in repr(moving.emmeans("a"))
    assert "may mislead" not in repr(moving.emtrends("a", "x"))
    comparisons = repr(m.emmeans("recipe").contrasts())
    assert "p-values: Tukey's studentized range, 3 means" in comparisons
    assert "intervals (Bonferroni's)" in repr(m.emmeans("recipe").contrasts(adjust="holm"))


def test_a_mean_without_rows_is_said_to_have_none() -> None:
    m = me.lmer("y ~ a + b + (1 | g)", without_cell())
    assert "1 of 6 means have no rows" in repr(m.emmeans(["a", "b"], weights="cells"))


def test_html_and_long_tables() -> None:
    means = fitted_model("cake").emmeans(["recipe", "temperature"])
    assert "<td>C</td>" in means._repr_html_()
    comparisons = means.contrasts(adjust="none")
    assert "153 rows x 8 columns" in repr(comparisons)
    # A header, five rows from each end, and the gap.
    assert comparisons._repr_html_().count("<tr>") == 12
    assert len(comparisons.to_frame()) == 153


def test_pictures() -> None:
    import matplotlib.pyplot as plt

    m = fitted_model("cake")
    means = m.emmeans(["temperature", "recipe"])
    ax = means.plot()
    drawn_means = np.concatenate([line.get_ydata() for line in ax.lines])
    assert_allclose(np.sort(drawn_means), np.sort(means.to_frame()["estimate"]))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["A", "B", "C"]
    comparisons = m.emmeans("temperature").contrasts()
    ax = comparisons.plot()
    assert [t.get_text() for t in ax.get_yticklabels()] == list(comparisons.labels["contrast"])
    assert fitted_model("sleepstudy").emmeans("Days", at={"Days": [0, 9]}).plot(ax=ax) is ax
    assert fitted_model("sleepstudy").emmeans([]).plot().get_ylabel() == "Reaction"
    plt.close("all")


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda m: m.emmeans("recip"), "no variable 'recip' in the fixed part; those are 'recipe'"),
        (lambda m: m.emmeans("replicate"), "'replicate' is a grouping factor of the random"),
        (lambda m: m.emmeans("angle"), "'angle' is the response"),
        (lambda m: m.emmeans(3), "specs is the name of a variable"),
        (lambda m: m.emmeans(["recipe", "recipe"]), "specs names 'recipe' twice"),
        (lambda m: m.emmeans("recipe", by="recipe"), "'recipe' is in both specs and by"),
        (lambda m: m.emmeans("recipe", by="group"), "no variable 'group'"),
        (lambda m: m.emmeans("recipe", at={"recipe": ["A", "D"]}), "no level 'D' .*'A', 'B', 'C'"),
        (lambda m: m.emmeans("recipe", at={"recipe": ["A", "A"]}), "'recipe' is given 'A' twice"),
        (lambda m: m.emmeans("recipe", at={"oven": 1}), "no variable 'oven'"),
        (lambda m: m.emmeans("recipe", at={"recipe": []}), "at has no value for 'recipe'"),
        (lambda m: m.emmeans("recipe", at=[1]), "at maps variables to values"),
        (
            lambda m: m.emmeans("recipe", weights="outer"),
            "weights 'outer' are not known; .*'equal'",
        ),
        (lambda m: m.emmeans("recipe", adjust="tukey"), "adjust 'tukey' is not known for the int"),
        (lambda m: m.emmeans("recipe", level=95), "level must lie between 0 and 1"),
        (lambda m: m.emmeans("recipe", ddf="kenward"), "ddf 'kenward' is not known"),
        (lambda m: m.emmeans("recipe").contrasts("pairs"), "'pairs' are not known; .*'pairwise'"),
        (
            lambda m: m.emmeans("recipe").contrasts(adjust="by hand"),
            "adjust 'by hand' is not known; .*'holm'",
        ),
        (lambda m: m.emmeans("recipe").contrasts("eff", adjust="tukey"), "all pairwise differ"),
        (lambda m: m.emmeans("recipe").contrasts({"d": [1, -1]}), r"shape \(2,\); it needs 3 num"),
        (lambda m: m.emmeans("recipe").contrasts({"d": {"D": 1}}), "no mean 'D'; there are 'A'"),
        (lambda m: m.emmeans("recipe").contrasts({"d": "abc"}), "must be 3 numbers"),
        (lambda m: m.emmeans("recipe").contrasts({"d": [0, 0, 0]}), "'d' are zero"),
        (lambda m: m.emmeans("recipe").contrasts({"d": [0, 1, np.nan]}), "not finite"),
        (lambda m: m.emmeans("recipe").contrasts({}), "no contrasts in the mapping"),
        (lambda m: m.emmeans("recipe").contrasts("trt.vs.ctrl", reference="D"), "no mean 'D'"),
        (lambda m: m.emmeans("recipe").contrasts(reference="A"), "reference= is for"),
        (lambda m: m.emtrends("recipe", "temperature"), "'temperature' is categorical"),
        (lambda m: m.emtrends("recipe", "temp"), "no variable 'temp'"),
        (lambda m: m.contrast({}), "no contrasts in the mapping"),
        (lambda m: m.contrast({"d": [1, 2]}), r"shape \(2,\); it needs 18 numbers"),
        (lambda m: m.contrast({"d": {"recipe": 1}}), "no coefficient 'recipe'; there are"),
        (lambda m: m.contrast({"d": {"recipeB": "much"}}), "Contrast 'd' maps names of coeff"),
        (lambda m: m.contrast("recipes"), "no term or coefficient 'recipes'"),
        (lambda m: m.contrast([[1, 2]]), "must have 18 columns"),
        (lambda m: m.contrast("recipe", level=1), "level must lie between 0 and 1"),
        (lambda m: m.contrast("recipe", cluster="replicate"), "cluster= is for robust"),
    ],
)
def test_errors_are_sentences(ask: Any, sentence: str) -> None:
    with pytest.raises(me.ModelError, match=sentence) as caught:
        ask(fitted_model("cake"))
    assert re.search(r"[.?]$", str(caught.value))


def test_errors_about_columns_of_other_models() -> None:
    data = drawn()
    m = me.lmer("y ~ factor(day) + log(x) + (two | g)", data)
    with pytest.raises(me.ModelError, match=r"'log\(x\)' is made of columns .*: 'x'"):
        m.emmeans("log(x)")
    with pytest.raises(me.ModelError, match="'two' is only in the random effects"):
        m.emmeans("two")
    with pytest.raises(me.ModelError, match=r"has no level '3' .*'1', '2', '4'"):
        m.emmeans("day", at={"day": 3})
    with pytest.raises(me.ModelError, match="is categorical in 'factor"):
        m.emtrends([], "day")
    with pytest.raises(me.ModelError, match="'x' is a number, so give finite"):
        m.emmeans("day", at={"x": "low"})
    with pytest.raises(me.ModelError, match="no finite value in 3 of the 3 cells"):
        m.emmeans("day", at={"x": -1})
    with pytest.raises(me.ModelError, match="'df' is called like a column of the table"):
        me.lmer("y ~ df + x + (1 | g)", data.rename(columns={"b": "df"})).emmeans("df")
    wide = pd.DataFrame({f"f{i}": np.arange(240) % (31 + i) for i in range(6)}).astype(str)
    wide["y"], wide["g"] = np.sin(np.arange(240.0)), np.arange(240) ** 2 % 241 % 8
    many = me.lmer("y ~ f0 + f1 + f2 + f3 + f4 + (1 | g)", wide)
    with pytest.raises(me.ModelError, match=r"has [0-9,]* cells \(f0 31, .*too many to hold"):
        many.emmeans("f0")


def test_adjustments_have_the_names_of_other_programs_too() -> None:
    means = me.lmer("angle ~ recipe + (1 | replicate)", me.load_dataset("cake")).emmeans("recipe")
    for theirs, ours in {"dunnett": "mvt", "BH": "fdr", "LSD": "none", "Holm": "holm"}.items():
        named, own = (means.contrasts("trt.vs.ctrl", adjust=each) for each in (theirs, ours))
        pd.testing.assert_frame_equal(named.to_frame(), own.to_frame())
    assert means.contrasts(adjust="HSD").adjust == "tukey"


def test_the_axis_of_a_picture_has_the_columns_name_without_backticks() -> None:
    cake = me.load_dataset("cake").rename(columns={"angle": "angle (`deg`)"})
    name = "`angle (\\`deg\\`)`"
    m = me.lmer(f"{name} ~ recipe + (1 | replicate)", cake)
    assert m.emmeans("recipe").plot(Figure().subplots()).get_ylabel() == "angle (`deg`)"
    assert m.effects("recipe").plot(Figure().subplots()).get_ylabel() == "angle (`deg`)"
    logs = me.lmer(f"log({name}) ~ recipe + (1 | replicate)", cake)
    assert logs.emmeans("recipe").plot(Figure().subplots()).get_ylabel() == f"log({name})"


def test_variables_joined_as_in_a_formula() -> None:
    m = me.lmer("angle ~ recipe * temperature + (1 | recipe:replicate)", me.load_dataset("cake"))
    both = m.emmeans(["recipe", "temperature"]).to_frame()
    for words in ("recipe * temperature", "recipe:temperature", "~ recipe + temperature"):
        pd.testing.assert_frame_equal(m.emmeans(words).to_frame(), both)
    with pytest.raises(me.ModelError, match="There is no variable 'oven'"):
        m.emmeans("recipe * oven")
