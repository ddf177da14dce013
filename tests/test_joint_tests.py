"""Joint tests of marginal means, interaction contrasts, codings, and factors in ``||``."""

from __future__ import annotations

import pickle
import warnings
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import mixedeffects as me
from mixedeffects.formula.compat import coding_matrix
from mixedeffects.frame.double_bars import separate_double_bars
from references import answers, as_frame, drawn_data, fitted_model
from test_kenward_roger import at_parameters

# --- emmeans of R ---------------------------------------------------------------------------------

DDF = {"satterthwaite": "satterthwaite", "kenward-roger": "kr"}


def stored() -> dict[str, Any]:
    return answers("joint_tests")


def drawn() -> pd.DataFrame:
    return drawn_data("joint_tests")


def data_of(name: str) -> pd.DataFrame:
    if name == "cake":
        return me.load_dataset("cake")
    whole = drawn()
    return whole if name == "drawn" else whole[~((whole["a"] == "high") & (whole["b"] == "v"))]


@cache
def stored_model(i: int) -> me.LinearMixedModel:
    r = stored()["models"][i]
    return at_parameters(r["formula"], data_of(r["data"]), r["theta"])


def cases(kind: str) -> list[tuple[int, int]]:
    return [(i, j) for i, m in enumerate(stored()["models"]) for j in range(len(m[kind]))]


def listed(value: Any) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


@pytest.mark.parametrize(("i", "j"), cases("joint"))
def test_joint_tests_are_those_of_emmeans(i: int, j: int) -> None:
    r = stored()["models"][i]["joint"][j]
    by = listed(r["by"])
    theirs = as_frame(r["table"])
    ours = stored_model(i).joint_tests(by=by, at=r["at"], ddf=DDF[r["ddf"]])
    # What cannot be tested has no row there.
    assert (ours.loc[ours["num_df"] == 0, "note"] != "").all()
    ours = ours[ours["num_df"] > 0]
    keys = ["term", *by]
    theirs = theirs.rename(columns={"model term": "term"})
    both = theirs.astype(dict.fromkeys(keys, str)).merge(
        ours.astype(dict.fromkeys(keys, str)), on=keys, validate="1:1"
    )
    assert len(both) == len(theirs) == len(ours)
    assert_allclose(both["num_df"], both["df1"].astype(int))
    # R's table has three decimals.
    assert_allclose(both["statistic"], both["F.ratio"].astype(float), atol=6e-4, rtol=2e-5)
    # The least df of the contrasts there, those of the joint test here.
    df = both["df2"].astype(float)
    assert_allclose(both["den_df"], df, rtol=0.12)
    single = both["num_df"] == 1
    assert_allclose(both["den_df"][single], df[single], rtol=2e-3, atol=0.01)
    assert_allclose(both["p_value"], both["p.value"].astype(float), rtol=0.15, atol=2e-3)


@pytest.mark.parametrize(("i", "j"), cases("interaction"))
def test_interaction_contrasts_are_those_of_emmeans(i: int, j: int) -> None:
    r = stored()["models"][i]["interaction"][j]
    methods = tuple(listed(r["interaction"]))
    means = stored_model(i).emmeans(r["specs"], by=r["by"], ddf=DDF[r["ddf"]])
    found = means.contrasts(interaction=methods if len(methods) > 1 else methods[0])
    theirs, ours = as_frame(r["table"]), found.to_frame()
    width = len(found.labels.columns)
    assert list(ours.columns[:width]) == list(theirs.columns[:width])
    for name in ours.columns[:width]:
        assert list(map(str, ours[name])) == list(map(str, theirs[name]))
    found_estimates = found.estimates
    close = {"rtol": 1e-5, "atol": 1e-8}
    assert_allclose(found_estimates.estimate, theirs["estimate"].astype(float), **close)
    assert_allclose(found_estimates.se, theirs["SE"].astype(float), **close)
    some = theirs["SE"].astype(float).to_numpy() > 1e-8
    assert_allclose(found.p[some], theirs["p.value"].astype(float)[some], atol=2e-3)


@pytest.mark.parametrize(("i", "j"), cases("cross"))
def test_adjustment_across_groups_is_that_of_emmeans(i: int, j: int) -> None:
    r = stored()["models"][i]["cross"][j]
    means = stored_model(i).emmeans(r["specs"], by=r["by"])
    found = means.contrasts(adjust=r["adjust"], cross_adjust=r["cross"])
    theirs = as_frame(r["table"])
    assert list(found.labels["contrast"]) == list(theirs["contrast"])
    assert_allclose(found.p, theirs["p.value"].astype(float), atol=1e-6, rtol=1e-5)
    assert "then across groups" in repr(found)
    alone = means.contrasts(adjust=r["adjust"])
    assert_allclose(found.half, alone.half)
    assert (found.p >= alone.p - 1e-15).all()


# --- joint tests ----------------------------------------------------------------------------------


def test_joint_tests_do_not_depend_on_the_coding() -> None:
    formula, data = "y ~ a * b + x + (1 | g)", drawn()
    first = me.lmer(formula, data).joint_tests()
    for coding in ("sum", "helmert", "sdif", "sas"):
        m = me.lmer(formula, data, contrasts={"a": coding, "b": "sum"})
        other = m.joint_tests()
        assert_allclose(other["statistic"], first["statistic"], rtol=1e-6)
        assert_allclose(other["den_df"], first["den_df"], rtol=1e-4)
    assert list(first["term"]) == ["a", "b", "x", "a:b"]
    assert list(first.columns) == ["term", "num_df", "den_df", "statistic", "p_value", "note"]


def test_a_factor_at_each_level_is_its_contrasts() -> None:
    m = stored_model(1)
    table = m.joint_tests(by="a", at={"x": [4.0]})
    assert "x" not in set(table["term"])
    own = m.emmeans("b", by="a", at={"x": 4.0}).contrasts()
    rows = table[table["term"] == "b"]
    assert list(rows["a"]) == ["low", "mid", "high"]
    assert_allclose(rows["statistic"], own.estimates.t**2, rtol=1e-10)
    assert_allclose(rows["den_df"], own.estimates.df, rtol=1e-10)
    assert_allclose(rows["p_value"], own.estimates.p, rtol=1e-9)


def test_joint_tests_with_robust_variances() -> None:
    m = me.lmer("y ~ a * b + (1 | g)", drawn())
    table = m.joint_tests(vcov="CR2")
    b = m.emmeans("b", vcov="CR2").contrasts().estimates
    assert_allclose(table.set_index("term").loc["b", "statistic"], b.t[0] ** 2, rtol=1e-8)
    with pytest.warns(me.ClusterWarning):
        lone = me.lmer('y ~ x + factor(g == "g1") + (1 | g)', drawn()).joint_tests(vcov="CR0")
    hidden = lone[lone["note"] != ""]
    assert len(hidden) == 1
    assert hidden["p_value"].isna().all()


def test_what_is_not_estimable_is_said() -> None:
    table = stored_model(2).joint_tests().set_index("term")
    assert table.loc["b", "num_df"] == 0
    assert np.isnan(table.loc["b", "p_value"])
    assert table.loc["a", "note"] == "1 of 2 contrasts are not estimable"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"by": "z"}, "There is no variable 'z'"),
        ({"by": ["recipe", "temperature"]}, "There is nothing to test"),
        ({"weights": "some"}, "weights 'some' are not known"),
        ({"ddf": "some"}, "ddf 'some' is not known"),
    ],
)
def test_joint_tests_of_nothing(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(me.ModelError, match=message):
        fitted_model("cake").joint_tests(**arguments)


# --- interaction contrasts ------------------------------------------------------------------------


def test_differences_of_differences_are_coefficients() -> None:
    m = me.lmer("y ~ a * b + (1 | g)", drawn())
    found = m.emmeans(["a", "b"]).contrasts("trt.vs.ctrl", interaction=True)
    assert list(found.labels) == ["a_trt.vs.ctrl", "b_trt.vs.ctrl"]
    own = m.contrast(["amid:bv", "ahigh:bv"])
    assert_allclose(found.estimates.estimate, own["Estimate"], rtol=1e-10)
    assert_allclose(found.estimates.se, own["Std. Error"], rtol=1e-10)
    assert found.adjust == "none"
    custom = m.emmeans(["a", "b"]).contrasts(
        interaction=({"ends": {"low": -1, "high": 1}}, "revpairwise")
    )
    assert list(custom.labels) == ["a_custom", "b_revpairwise"]
    assert_allclose(custom.estimates.estimate[0], own["Estimate"].iloc[1], rtol=1e-10)
    holm = m.emmeans(["a", "b"]).contrasts("pairwise", adjust="holm", interaction=True)
    assert "Holm's method" in repr(holm)
    assert holm.plot().get_yticklabels()
    sizes = holm.effect_size().to_frame()
    assert list(sizes.columns[:2]) == ["a_pairwise", "b_pairwise"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interaction": ("pairwise",)}, "one for each factor of the means"),
        ({"interaction": 3}, "one for each factor of the means"),
        ({"interaction": "some"}, "Contrasts 'some' are not known"),
        ({"interaction": True, "adjust": "tukey"}, "Tukey's adjustment is for all pairwise"),
        ({"interaction": True, "reference": "A"}, "not for interaction contrasts"),
        ({"cross_adjust": "holm"}, "these means have no by"),
        ({"cross_adjust": "tukey"}, "cross_adjust 'tukey' is not known"),
    ],
)
def test_options_of_contrasts_that_are_none(options: dict[str, Any], message: str) -> None:
    with pytest.raises(me.ModelError, match=message):
        fitted_model("cake").emmeans(["recipe", "temperature"]).contrasts(**options)


def test_nested_factors_have_no_products() -> None:
    means = stored_model(3).emmeans("strain")
    with pytest.raises(me.ModelError, match="because factors are nested"):
        means.contrasts(interaction=True)
    uneven = me.lmer("y ~ a / strain + (1 | g)", drawn()[lambda d: d["strain"] != "low2"])
    groups = uneven.emmeans("strain", by="a")
    assert len(groups.contrasts(cross_adjust="holm").p) == 2
    three = drawn().assign(
        strain=lambda d: d["strain"].where(d["r"] != 1, d["a"].astype(str) + "0")
    )
    three = three[three["strain"] != "low0"]
    with pytest.raises(me.ModelError, match="same comparisons in every group"):
        me.lmer("y ~ a / strain + (1 | g)", three).emmeans("strain", by="a").contrasts(
            cross_adjust="holm"
        )


# --- ranges of values -----------------------------------------------------------------------------


def test_ranges_of_values() -> None:
    m = me.lmer("y ~ a * x + (1 | g)", drawn())
    found = m.emmeans("x", at={"x": slice(0, 1, 0.25), "a": slice("mid", None)})
    assert found.levels["x"].tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert list(m.emmeans("a", at={"a": slice("mid", "high")}).levels["a"]) == ["mid", "high"]
    assert list(m.emmeans("a", at={"a": slice(None, "mid")}).levels["a"]) == ["low", "mid"]
    whole = m.emmeans("x", at={"x": slice(None, None, 1)}).levels["x"]
    assert whole.iloc[0] == drawn()["x"].min()
    assert whole.iloc[-1] <= drawn()["x"].max()


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ({"x": slice(0, 1)}, "a range of the number 'x' is slice"),
        ({"x": slice(1, 0, 0.1)}, "with a positive step"),
        ({"x": slice("a", 3, 1)}, "with a positive step"),
        ({"x": slice(0, 1, 1e-12)}, "make at most 10,000 values"),
        ({"a": slice("high", "low")}, "has no level; a range of levels"),
        ({"a": slice("none", "low")}, "'a' has no level 'none'"),
        ({"a": slice("low", "mid", 2)}, "a range of levels is slice"),
    ],
)
def test_ranges_that_are_none(at: dict[str, Any], message: str) -> None:
    m = me.lmer("y ~ a * x + (1 | g)", drawn())
    with pytest.raises(me.ModelError, match=message):
        m.emmeans("a", at=at)


# --- codings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("r", stored()["codings"], ids=lambda r: f"{r['k']} levels")
def test_coding_matrices_are_those_of_r(r: dict[str, Any]) -> None:
    assert_allclose(coding_matrix("sdif", r["k"]), np.array(r["sdif"]), atol=1e-10)
    assert_allclose(coding_matrix("helmert", r["k"]), np.array(r["helmert"]), atol=1e-12)
    data = pd.DataFrame({"f": pd.Categorical([f"l{i}" for i in range(r["k"])] * 3)})
    data = data.assign(y=np.sin(np.arange(len(data)) ** 2), g=np.repeat(["u", "v", "w"], r["k"]))
    X = at_parameters("y ~ C(f, contr.SAS) + (1 | g)", data, [1.0]).X
    assert_allclose(X[: r["k"], 1:], np.array(r["SAS"]).reshape(r["k"], -1))


@pytest.mark.parametrize("r", stored()["recoded"], ids=lambda r: str(r["coding"]))
def test_recoded_coefficients_are_those_of_r(r: dict[str, Any]) -> None:
    kind = r["coding"].removeprefix("contr.")
    data = drawn()
    asked = at_parameters("y ~ a + x + (1 | g)", data, r["theta"], contrasts={"a": r["coding"]})
    in_formula = at_parameters(f"y ~ C(a, {r['coding']}) + x + (1 | g)", data, r["theta"])
    short = at_parameters("y ~ a + x + (1 | g)", data, r["theta"], contrasts={"a": kind.lower()})
    for m in (asked, in_formula, short):
        assert_allclose(m.fixef, r["fixef"], rtol=1e-8)
    # R has lost the levels from the names of a matrix that is set by hand.
    names = {"sdif": ["a2-1", "a3-2"], "SAS": ["alow", "amid"]}[kind]
    assert list(asked.fixef.index) == ["(Intercept)", *names, "x"]
    assert list(in_formula.fixef.index[1:3]) == [f"C(a, {r['coding']})" + n[1:] for n in names]
    patsy = {"sdif": "Diff", "SAS": "SAS"}[kind]
    assert_allclose(
        at_parameters(f"y ~ C(a, {patsy}) + x + (1 | g)", data, r["theta"]).fixef, r["fixef"]
    )


def test_codings_act_in_fixed_and_random_parts() -> None:
    data = drawn()
    m = me.lmer("y ~ a + (a | g)", data, contrasts={"a": "sdif"})
    assert m.frame.terms[0].columns == ("(Intercept)", "a2-1", "a3-2")
    assert_allclose(m.frame.terms[0].z, m.X)
    only = me.lmer("y ~ x + (a | g)", data, contrasts={"a": "sum"})
    assert only.frame.terms[0].columns == ("(Intercept)", "a1", "a2")
    assert set(np.unique(only.frame.terms[0].z)) == {-1.0, 0.0, 1.0}
    again = only.update("y ~ a + (a | g)")
    assert list(again.fixef.index) == ["(Intercept)", "a1", "a2"]
    new = only.predict(data.head(7))
    assert_allclose(new, only.predict().iloc[:7] if hasattr(new, "iloc") else only.predict()[:7])


def test_hypotheses_are_what_coefficients_become() -> None:
    data = drawn()
    wanted = {"low-rest": {"low": 1, "mid": -0.5, "high": -0.5}, "mid-high": {"mid": 1, "high": -1}}
    coding = me.contrast_matrix(wanted, levels=["low", "mid", "high"])
    m = me.lmer("y ~ a + (1 | g)", data, contrasts={"a": coding})
    means = me.lmer("y ~ a + (1 | g)", data).emmeans("a").contrasts(wanted)
    assert list(m.fixef.index) == ["(Intercept)", "alow-rest", "amid-high"]
    assert_allclose(m.fixef.iloc[1:], means.estimates.estimate, rtol=1e-6)
    assert_allclose(m.se.iloc[1:], means.estimates.se, rtol=1e-6)
    overall = me.lmer("y ~ a + (1 | g)", data).emmeans([]).estimates.estimate
    assert_allclose(m.fixef.iloc[0], overall[0], rtol=1e-6)


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("kind", ["sdif", "sum", "helmert"])
def test_hypotheses_are_the_inverse_of_codings(kind: str, k: int) -> None:
    C = coding_matrix(kind, k)
    H = np.linalg.inv(np.column_stack([np.ones(k), C]))[1:]
    labels = [f"l{i}" for i in range(k)]
    table = pd.DataFrame(H, [f"h{i}" for i in range(k - 1)], labels)
    assert_allclose(me.contrast_matrix(table), C, atol=1e-12)
    vectors = {str(name): row.tolist() for name, row in table.iterrows()}
    assert_allclose(me.contrast_matrix(vectors, levels=labels), C, atol=1e-12)


def test_what_hypotheses_leave_is_kept() -> None:
    coding = me.contrast_matrix({"d-a": {"a": -1, "d": 1}}, levels=list("abcd"))
    assert list(coding) == ["d-a", "rest1", "rest2"]
    assert list(coding.index) == list("abcd")
    full = np.column_stack([np.ones(4), coding])
    assert np.linalg.matrix_rank(full) == 4
    assert_allclose(np.linalg.inv(full)[1], [-1, 0, 0, 1], atol=1e-12)
    assert_allclose(np.linalg.inv(full)[0], 0.25, atol=1e-12)


@pytest.mark.parametrize(
    ("hypotheses", "levels", "message"),
    [
        ({}, None, "hypotheses map labels"),
        (3, None, "hypotheses map labels"),
        ({"h": [1, -1]}, None, "'h' is a vector; give the levels"),
        ({"h": [1, -1]}, ["a", "b", "c"], "needs a number for each of the 3"),
        ({"h": {"a": 1}}, None, "'h' sum to 1"),
        ({"h": {"a": 0, "b": 0}}, None, "and are all zero"),
        ({"h": {"a": 1, "b": np.nan}}, None, "must be finite"),
        ({"h": {"a": "x", "b": 1}}, None, "numbers of hypotheses"),
        ({"h": {"a": 1, "z": -1}}, ["a", "b"], "none of the levels"),
        ({"h": {"a": 1, "b": -1}, "k": {"a": -2, "b": 2}}, None, "depend on each other"),
    ],
)
def test_hypotheses_that_are_none(hypotheses: Any, levels: Any, message: str) -> None:
    with pytest.raises(me.ModelError, match=message):
        me.contrast_matrix(hypotheses, levels)


# --- double bars ----------------------------------------------------------------------------------


def test_levels_apart_are_those_of_indicator_columns() -> None:
    data, theirs = drawn(), stored()["apart"]
    m = me.lmer("y ~ x + (a || g)", data, double_bar="separate")
    assert m.formula == "y ~ x + diag(a | g)"
    assert_allclose(m.criterion, theirs["intercept"], rtol=1e-9)
    assert list(m.varcorr["g"]) == ["(Intercept)", "amid", "ahigh"]
    every = me.lmer("y ~ x + (0 + a || g)", data, double_bar="separate")
    assert_allclose(every.criterion, theirs["levels"], rtol=1e-9)
    assert "in `||`" not in str(m.summary())
    again = pickle.loads(pickle.dumps(m))
    assert again.formula == m.formula


def test_lme4s_double_bar_says_what_it_does() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", me.ConvergenceWarning)
        m = me.lmer("y ~ x + (x + a || g)", drawn())
    text = " ".join(str(m.summary()).split())
    assert "`a` in `||` has correlated effects, as in lme4" in text
    assert 'double_bar="separate"' in text
    assert "in `||`" not in str(fitted_model("sleepstudy_zerocorr").summary())
    small = m.without_data()
    assert "`a` in `||`" in " ".join(str(small.summary()).split())


@pytest.mark.parametrize(
    ("formula", "separate"),
    [
        ("y ~ x + (x || g)", "y ~ x + (x || g)"),
        ("y ~ (1 | g) + (0 + a || g) + (x || b)", "y ~ (1 | g) + diag(0 + a | g) + (x || b)"),
        ("y ~ x + (factor(r) || g/b)", "y ~ x + diag(factor(r) | g/b)"),
        ("y ~ ifelse(x > 1 || x < 0, 1, 0) + (x:a || g)", None),
        ("y ~ x + (a | g)", "y ~ x + (a | g)"),
    ],
)
def test_only_factors_are_rewritten(formula: str, separate: str | None) -> None:
    data = drawn()
    expected = separate or "y ~ ifelse(x > 1 || x < 0, 1, 0) + diag(x:a | g)"
    try:
        found = separate_double_bars(formula, data)
    except me.FormulaError:
        assert separate is None
    else:
        assert found == expected
        assert separate_double_bars(found, data) == found


def test_double_bars_that_are_none() -> None:
    with pytest.raises(me.ModelError, match="double_bar 'afex' is not known"):
        me.lmer("y ~ x + (a || g)", drawn(), double_bar="afex")  # type: ignore[arg-type]
