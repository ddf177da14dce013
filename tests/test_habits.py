"""What users of other packages type: it works, or one sentence says what it is called here."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import mixedeffects as me
from mixedeffects.base.habits import (
    OF_A_FIT,
    OF_A_GENERALIZED_FIT,
    OF_A_MATRIX,
    OF_A_SUMMARY,
    OF_ARGUMENTS,
    OF_MEANS,
    OF_POOLED_FITS,
    OF_THE_PACKAGE,
    habits_page,
)
from mixedeffects.inference.linear_expression import linear_expression

PAGE = (Path(__file__).parents[1] / "docs" / "migration.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def sleep() -> pd.DataFrame:
    data = me.load_dataset("sleepstudy")
    half = (data["Days"] > 4).map({True: "late", False: "early"})
    return data.assign(half=half, **{"slope x": data["Days"], "a-b": data["Days"] ** 2})


@pytest.fixture(scope="module")
def m(sleep: pd.DataFrame) -> me.LinearMixedModel:
    return me.lmer("Reaction ~ half * Days + (1 | Subject)", sleep)


# --- names of a fit -------------------------------------------------------------------------------


def test_there_are_enough_habits() -> None:
    arguments = sum(map(len, OF_ARGUMENTS.values()))
    assert len(OF_A_FIT) > 50 and arguments > 60 and len(OF_THE_PACKAGE) > 20


@pytest.mark.parametrize("name", OF_A_FIT)
def test_names_of_a_fit_elsewhere(m: me.LinearMixedModel, name: str) -> None:
    package, here = OF_A_FIT[name]
    with pytest.raises(AttributeError, match=re.escape(f"has no {name!r} (that is {package}'s)")):
        getattr(m, name)
    assert not hasattr(m, name)
    _exists(m, here)


@pytest.mark.parametrize("name", OF_THE_PACKAGE)
def test_functions_elsewhere(m: me.LinearMixedModel, name: str) -> None:
    package, here = OF_THE_PACKAGE[name]
    with pytest.raises(AttributeError, match=re.escape(f"has no {name!r} (that is {package}'s)")):
        getattr(me, name)
    _exists(m, here)


def _exists(m: me.LinearMixedModel, here: str) -> None:
    """What is written instead is there."""
    for root, name in re.findall(r"\b(me|m)\.(\w+)", here):
        assert hasattr(me if root == "me" else m, name), here


@pytest.mark.parametrize(
    ("function", "argument"),
    [(function, name) for function, habits in OF_ARGUMENTS.items() for name in habits],
)
def test_arguments_elsewhere(
    m: me.LinearMixedModel, sleep: pd.DataFrame, function: str, argument: str
) -> None:
    package, here = OF_ARGUMENTS[function][argument]
    call = getattr(m if hasattr(m, function) else me, function)
    with pytest.raises(TypeError, match=re.escape(f"no argument {argument!r} (that is {package}")):
        call(**{argument: 1})
    _exists(m, here)
    if found := re.fullmatch(r"(\w+)=.*", here):
        with pytest.raises((TypeError, ValueError)) as caught:
            call(**{found[1]: object()})
        assert "no argument" not in str(caught.value)


def test_names_of_what_a_fit_gives(m: me.LinearMixedModel, sleep: pd.DataFrame) -> None:
    pooled = me.pool([m, me.lmer(m.formula, sleep.assign(Days=sleep["Days"] + 0.1))])
    means = m.emmeans("half")
    given = [
        (means, "means", OF_MEANS),
        (m.summary(), "m.summary()", OF_A_SUMMARY),
        (m.V, "m.V", OF_A_MATRIX),
        (pooled, "pooled", OF_POOLED_FITS),
    ]
    for owner, text, habits in given:
        for name, (package, here) in habits.items():
            with pytest.raises(AttributeError, match=re.escape(f"{name!r} (that is {package}'s)")):
                getattr(owner, name)
            for called in re.findall(rf"{re.escape(text)}\.(\w+)", here):
                assert hasattr(owner, called), here
        again = pickle.loads(pickle.dumps(copy.copy(owner)))
        assert repr(again) == repr(owner)
    with pytest.raises(AttributeError, match=r"has no 'weight'\."):
        getattr(means, "weight")  # noqa: B009 - mypy knows that it is not there


def test_a_model_is_fitted_already(m: me.LinearMixedModel) -> None:
    with pytest.raises(TypeError, match=r"is no m\.fit\(\) to call"):
        m.fit(reml=False)


def test_what_is_taken_as_a_list_and_what_one_by_one(m: me.LinearMixedModel) -> None:
    with pytest.raises(TypeError, match=re.escape("etable() takes a list of fits")):
        me.etable(m, m)
    with pytest.raises(TypeError, match=re.escape("pool() takes a list of fits")):
        me.pool(m, m)
    for function in (me.compare, me.anova, me.cross_validate):
        with pytest.raises(me.ModelError, match=re.escape(f"me.{function.__name__}(*models)")):
            function([m, m])


def test_functions_of_the_package_can_be_pickled() -> None:
    for name in me.__all__:
        if inspect.isfunction(getattr(me, name)):
            assert pickle.loads(pickle.dumps(getattr(me, name))) is getattr(me, name)


def test_misspelt_names(m: me.LinearMixedModel, sleep: pd.DataFrame) -> None:
    with pytest.raises(AttributeError, match="Did you mean 'fixef'"):
        m.fixeff  # noqa: B018
    with pytest.raises(AttributeError, match="Did you mean 'lmer'"):
        me.lmr  # noqa: B018
    with pytest.raises(AttributeError, match="has no 'zzz'"):
        m.zzz  # noqa: B018
    with pytest.raises(TypeError, match=r"no argument 'wieghts'. Did you mean 'weights'"):
        me.lmer("Reaction ~ Days + (1 | Subject)", sleep, wieghts="Days")
    with pytest.raises(TypeError, match="it takes newdata, re, "):
        m.predict(zzz=1)


def test_what_looks_for_attributes_is_not_disturbed(m: me.LinearMixedModel) -> None:
    again = pickle.loads(pickle.dumps(m))
    assert_allclose(again.fixef, m.fixef)
    assert_allclose(copy.deepcopy(m).fixef, m.fixef)
    assert not hasattr(m, "__array_interface__") and not hasattr(m, "_repr_latex_")
    assert set(me.__all__) <= set(dir(me))


# --- statsmodels' names ---------------------------------------------------------------------------


def test_statsmodels_names(m: me.LinearMixedModel) -> None:
    table = m.coef_table()
    for ours, theirs in (
        (m.params, m.fixef),
        (m.bse, m.se),
        (m.tvalues, table["t value"]),
        (m.pvalues, table["Pr(>|t|)"]),
        (m.fittedvalues, m.fitted),
        (m.conf_int()[0], table["lower"]),
        (m.conf_int(alpha=0.2)[1], m.coef_table(level=0.8)["upper"]),
        (m.cov_params(), m.vcov()),
    ):
        assert_allclose(ours, theirs)
        assert list(ours.index) == list(theirs.index)
    assert m.llf == m.loglik
    with pytest.raises(me.ModelError, match="alpha must lie between 0 and 1"):
        m.conf_int(95)


def test_residuals_without_parentheses(m: me.LinearMixedModel) -> None:
    values = m.resid()
    assert_allclose(np.asarray(m.resid), values)
    assert_allclose(np.mean(m.resid), 0.0, atol=1e-9)
    assert m.resid.std() == values.std()
    assert len(m.resid) == len(values) == len(list(m.resid))
    assert_allclose(m.y - m.resid, m.fitted)
    assert_allclose(m.fitted + m.resid, m.y)
    assert m.resid[3] == values[3]
    assert (m.resid > 0.0).sum() == (values > 0.0).sum()
    assert repr(m.resid) == repr(values)
    assert m.resid("pearson").equals(m.resid(kind="pearson"))


# --- formulas -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pasted", "typed"),
    [
        ("Reaction ∼ Days + (1 | Subject)", "Reaction ~ Days + (1 | Subject)"),
        ("Reaction ~ Days – 1 + (1 | Subject)", "Reaction ~ Days - 1 + (1 | Subject)"),
        ("Reaction ~ Days − 1 + (1 | Subject)", "Reaction ~ Days - 1 + (1 | Subject)"),
        ("Reaction ~ half × Days + (1 | Subject)", "Reaction ~ half * Days + (1 | Subject)"),
        (
            "Reaction ~ factor(half, levels = c(“late”, “early”)) + (1\xa0| Subject)",
            'Reaction ~ factor(half, levels = c("late", "early")) + (1 | Subject)',
        ),
        (
            "Reaction ~ I(half == ‘late’) + (1 | Subject)",
            "Reaction ~ I(half == 'late') + (1 | Subject)",
        ),
    ],
)
def test_pasted_characters_are_read(sleep: pd.DataFrame, pasted: str, typed: str) -> None:
    assert_allclose(me.lmer(pasted, sleep).fixef, me.lmer(typed, sleep).fixef)


def test_quoted_text_keeps_its_characters() -> None:
    data = me.load_dataset("cake").assign(
        kind=lambda d: d["recipe"].astype(str).replace("A", "“–”")
    )
    m = me.lmer('angle ~ I(kind == "“–”") + (1 | recipe:replicate)', data)
    assert (m.X[:, 1] == (data["kind"] == "“–”")).all()
    with pytest.raises(me.FormulaError, match="'“' has no meaning"):
        me.lmer("angle ~ “kind + (1 | replicate)", data)


def test_names_that_are_no_plain_words(sleep: pd.DataFrame) -> None:
    with pytest.raises(me.FormulaError, match="in backticks: `slope x`"):
        me.lmer("Reaction ~ slope x + (1 | Subject)", sleep)
    with pytest.raises(me.DataError, match=r"Did you mean `a-b`.*in backticks"):
        me.lmer("Reaction ~ a-b + (1 | Subject)", sleep)
    with pytest.raises(me.FormulaError, match="backticks: `slope x`"):
        me.lmer('Reaction ~ Q("slope x") + (1 | Subject)', sleep)
    assert "a-b" in me.lmer("Reaction ~ `a-b` + (1 | Subject)", sleep).fixef.index[1]


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "meant"),
    [
        (lambda m: m.coef_table(ddf="sattertwaite"), "'satterthwaite'"),
        (lambda m: m.tidy("fixd"), "'fixed'"),
        (lambda m: m.plot("qqplot"), "'qq'"),
        (lambda m: m.resid("pearsonn"), "'pearson'"),
        (lambda m: m.vcov("CR4"), "'CR3'"),
        (lambda m: m.wald("Dayz"), "'Days'"),
        (lambda m: m.contrast("halflat"), "'halflate'"),
        (lambda m: m.ranef()["subject"], "'Subject'"),
        (lambda m: m.robust("CR2", cluster="subject"), "`Subject`"),
        (lambda m: m.emmeans("half").contrasts(adjust="bonferoni"), "'bonferroni'"),
    ],
)
def test_did_you_mean(m: me.LinearMixedModel, call: Callable[[Any], Any], meant: str) -> None:
    with pytest.raises(ValueError, match=f"Did you mean {re.escape(meant)}"):
        call(m)


@pytest.mark.parametrize(
    ("theirs", "here"),
    [("Kenward-Roger", "kr"), ("Satterthwaite", "satterthwaite"), ("asymptotic", "inf")],
)
def test_ddf_by_the_names_of_other_packages(
    m: me.LinearMixedModel, theirs: str, here: str, tmp_path: Path
) -> None:
    assert m.coef_table(ddf=theirs).equals(m.coef_table(ddf=here))
    assert m.anova(ddf=theirs).equals(m.anova(ddf=here))
    assert str(m.summary(ddf=theirs)) == str(m.summary(ddf=here))
    options = {"re": None, "interval": "confidence"}
    assert m.predict(ddf=theirs, **options).equals(m.predict(ddf=here, **options))
    assert m.report(tmp_path / "report.html", ddf=theirs).exists()


def test_prediction_without_groups_names_the_cure(m: me.LinearMixedModel) -> None:
    new = {"Days": [1.0], "half": ["early"]}
    with pytest.raises(me.DataError, match=r"no column `Subject`.*give re=None"):
        m.predict(new)
    assert len(m.predict(new, re=None)) == 1


def test_methods_of_two_models(m: me.LinearMixedModel) -> None:
    with pytest.raises(me.ModelError, match=r"me.anova\(m1, m2\)"):
        m.anova(m)


def test_the_estimates_are_no_method(m: me.LinearMixedModel) -> None:
    with pytest.raises(TypeError, match=r"write m\.varcorr, without"):
        m.varcorr()


# --- hypotheses in words --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "row", "constant"),
    [
        ("Days = 0", [0, 0, 1, 0], 0.0),
        ("Days = 10", [0, 0, 1, 0], -10.0),
        ("halflate - Days", [0, 1, -1, 0], 0.0),
        ("halflate = Days", [0, 1, -1, 0], 0.0),
        ("(Intercept) + 5 * Days", [1, 0, 5, 0], 0.0),
        ("-2*(halflate - 3*Days)/4 + 1", [0, -0.5, 1.5, 0], 1.0),
        ("halflate:Days", [0, 0, 0, 1], 0.0),
        ("halflate:Days - `Days` = halflate", [0, -1, -1, 1], 0.0),
        ("Days*2 - 1e1", [0, 0, 2, 0], -10.0),
    ],
)
def test_linear_expressions(
    m: me.LinearMixedModel, text: str, row: list[float], constant: float
) -> None:
    found = linear_expression(text, list(m.fixef.index))
    assert_allclose(found.l, row)
    assert found.constant == constant
    table = m.contrast(text)
    by_hand = m.contrast(np.array([row], dtype=float))
    assert_allclose(table["Estimate"], by_hand["Estimate"] + constant)
    assert_allclose(table[["Std. Error", "df"]], by_hand[["Std. Error", "df"]])
    assert list(table.index) == [text]


def test_several_hypotheses_and_joint_tests(m: me.LinearMixedModel) -> None:
    table = m.contrast(["Days = 10", "halflate", "halflate - Days"])
    assert list(table.index) == ["Days = 10", "halflate", "halflate - Days"]
    joint = m.wald(["halflate - Days", "halflate:Days = 0"])
    by_hand = m.wald(np.array([[0.0, 1.0, -1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]))
    assert joint.p == by_hand.p and joint.num_df == 2
    with pytest.raises(me.ModelError, match="in 'Days = 3' the sides differ by a number"):
        m.wald("Days = 3")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Dayz - halflate", "'Dayz' is no coefficient"),
        ("Days * halflate", "a product of coefficients is not linear"),
        ("1 / Days", "only numbers other than zero divide"),
        ("Days / 0", "only numbers other than zero divide"),
        ("Days -", "it ends where"),
        ("(Days - 1", "never closed"),
        ("Days = 1 = 2", "'=' is not expected"),
        ("1 = 2", "no coefficient in it"),
        ("Days - Days", "no coefficient in it"),
        ("+*Days", "'\\*' is not expected"),
        ("Days - " + "(" * 80 + "1" + ")" * 80, "levels deep"),
        ("Days - " + "-" * 5000 + "1", "levels deep"),
    ],
)
def test_expressions_that_cannot_be_read(m: me.LinearMixedModel, text: str, reason: str) -> None:
    with pytest.raises(me.ModelError, match=reason):
        m.contrast(text)


# --- the page -------------------------------------------------------------------------------------


def test_the_page_shows_the_table() -> None:
    """After a change run tools/habits_page.py."""
    rows = habits_page().splitlines()[2:]
    of_fits = len(OF_A_FIT) + len(OF_A_GENERALIZED_FIT)
    assert len(rows) == of_fits + len(OF_THE_PACKAGE) + sum(map(len, OF_ARGUMENTS.values()))
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 4 for row in rows)
    assert habits_page() in PAGE


# --- specifications in words ----------------------------------------------------------------------


def test_means_by_a_formula(m: me.LinearMixedModel) -> None:
    cake = me.load_dataset("cake")
    c = me.lmer("angle ~ recipe * temperature + (1 | recipe:replicate)", cake)
    for words, (specs, by) in {
        "~ recipe": (["recipe"], None),
        "~ recipe | temperature": (["recipe"], ["temperature"]),
        "recipe | temperature": (["recipe"], ["temperature"]),
        "~ recipe * temperature": (["recipe", "temperature"], None),
        "~ `recipe`:temperature": (["recipe", "temperature"], None),
        "~ 1": ([], None),
    }.items():
        ours = c.emmeans(words)
        pd.testing.assert_frame_equal(ours.to_frame(), c.emmeans(specs, by=by).to_frame())
        assert ours.comparisons is None


def test_a_left_side_asks_for_comparisons() -> None:
    cake = me.load_dataset("cake")
    c = me.lmer("angle ~ recipe + temperature + (1 | recipe:replicate)", cake)
    means = c.emmeans("trt.vs.ctrl ~ recipe")
    assert means.comparisons is not None
    expected = c.emmeans("recipe").contrasts("trt.vs.ctrl")
    pd.testing.assert_frame_equal(means.comparisons.to_frame(), expected.to_frame())
    assert repr(expected) in repr(means) and repr(c.emmeans("recipe")) in repr(means)
    assert means._repr_html_().count("<table>") == 2
    pickle.loads(pickle.dumps(means))


def test_specifications_that_cannot_be_read(m: me.LinearMixedModel) -> None:
    for words, sentence in (
        ("~ half | Days | half", "cannot be read"),
        ("a ~ b ~ c", "cannot be read"),
        ("~ half |", "no variable behind the bar"),
        ("pairwize ~ half", "'pairwize' are not known"),
        ("~ hal", "no variable 'hal' in the fixed part.*Did you mean 'half'"),
    ):
        with pytest.raises(me.ModelError, match=sentence):
            m.emmeans(words)
    with pytest.raises(me.ModelError, match="no by= beside it"):
        m.emmeans("~ half | Days", by="Days")


def test_updates_of_a_generalized_fit_are_answered_as_fits_are() -> None:
    cbpp = me.load_dataset("cbpp")
    m = me.glmer("incidence ~ period + (1 | herd)", cbpp, family="poisson")
    for name in ("reml", "REML"):
        with pytest.raises(TypeError, match="a generalized model is fitted by maximum likelihood"):
            m.update(**{name: True})
