"""Joint tests, tables of terms of types 1 to 3, and degrees of freedom at singular fits."""

from __future__ import annotations

import io
import json
import re
import warnings
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import mixedeffects as me
from inference_references import FOLDER
from references import ALL_WITH_ANOVA, fitted_model, reference
from test_kenward_roger import PBKRTEST, at_kr_reference, at_parameters, kr_reference


@cache
def _anova_reference() -> dict[str, Any]:
    return dict(json.loads((FOLDER / "kr_anova.json").read_text()))


ANOVAS = [(m["formula"], m["contrasts"]) for m in _anova_reference()["models"]]


# --- lmerTest -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("formula", "contrasts"), ANOVAS)
def test_types_against_lmertest(formula: str, contrasts: str) -> None:
    """Unbalanced cells, covariates, a matrix column, no intercept, and two codings."""
    stored = _anova_reference()
    r = next(m for m in stored["models"] if (m["formula"], m["contrasts"]) == (formula, contrasts))
    data = pd.read_csv(io.StringIO("\n".join(stored["csv"])))
    coding = dict.fromkeys(set(re.findall(r"\b[ab]\b", formula)), contrasts)
    m = at_parameters(formula, data, r["theta"], contrasts=coding)
    for kind in (1, 2, 3):
        for name, ddf in (("Satterthwaite", "satterthwaite"), ("Kenward-Roger", "kr")):
            table, expected = m.anova(type=kind, ddf=ddf), r["tables"][f"{kind}{name}"]
            assert list(table.index) == expected["rows"]
            assert_allclose(table.iloc[:, :5], np.array(expected["values"])[:, :5], rtol=1e-4)


def test_type_3_does_not_depend_on_the_coding() -> None:
    data = pd.read_csv(io.StringIO("\n".join(_anova_reference()["csv"])))
    formula = "y ~ a * b + x + (1 | g)"
    first = me.lmer(formula, data).anova(ddf="kr")
    for coding in ("helmert", "a2", "sum"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", me.ConvergenceWarning)
            other = me.lmer(formula, data, contrasts={"a": coding, "b": "sum"}).anova(ddf="kr")
        assert_allclose(other, first, rtol=1e-3)


@pytest.mark.parametrize("name", ALL_WITH_ANOVA)
def test_stored_tables(name: str) -> None:
    r = reference(name)["anova3"]
    table = fitted_model(name).anova()
    assert list(table.columns) == r["columns"]
    assert list(table.index) == list(np.atleast_1d(r["rows"]))
    assert_allclose(table.iloc[:, :5], np.atleast_2d(r["values"])[:, :5], rtol=0.005)


@pytest.mark.parametrize("name", PBKRTEST)
def test_anova_at_the_stored_parameters(name: str) -> None:
    m, r = at_kr_reference(name), kr_reference(name)
    for ddf, key, rtol in (("kr", "anova_KR", 1e-4), ("satterthwaite", "anova_Satt", 0.005)):
        table = m.anova(ddf=ddf)
        for column in ("Sum Sq", "Mean Sq", "NumDF", "DenDF", "F value"):
            assert_allclose(table[column], np.atleast_1d(r[key][column]), rtol=rtol)


@pytest.mark.parametrize("name", ["sleepstudy", "threelevel", "konly", "penicillin"])
def test_joint_satterthwaite(name: str) -> None:
    m, r = at_kr_reference(name), kr_reference(name)
    for key, stored in r["SATmodcomp"].items():
        test = m.wald(np.atleast_2d(r["KRmodcomp"][key]["L"]))
        assert test.statistic == pytest.approx(stored["statistic"], rel=1e-5)
        assert test.den_df == pytest.approx(stored["ddf"], rel=0.005)


# --- wald -----------------------------------------------------------------------------------------


def test_ways_to_say_the_same() -> None:
    m = fitted_model("cake")
    names = [name for name in m.fixef.index if name.startswith("temperature")]
    L = pd.DataFrame(np.eye(len(names)), columns=names)
    by_term = m.wald("temperature", ddf="kr")
    for hypothesis in (names, L, L.reindex(columns=m.fixef.index, fill_value=0).to_numpy()):
        other = m.wald(hypothesis, ddf="kr")
        assert (other.statistic, other.den_df) == pytest.approx((by_term.statistic, by_term.den_df))
    assert by_term.num_df == 5
    assert list(by_term.contrasts.columns) == list(m.fixef.index)


def test_one_contrast_is_the_squared_t() -> None:
    m = fitted_model("sleepstudy")
    for ddf in ("satterthwaite", "kr", "residual"):
        row, test = m.coef_table(ddf=ddf).loc["Days"], m.wald("Days", ddf=ddf)
        assert test.statistic == pytest.approx(row["t value"] ** 2)
        assert (test.den_df, test.p) == pytest.approx((row["df"], row["Pr(>|t|)"]))


def test_chi_squared() -> None:
    m = fitted_model("sleepstudy")
    F, chi2 = m.wald(np.eye(2), ddf="inf"), m.wald(np.eye(2), test="chi2")
    assert chi2.statistic == pytest.approx(2 * F.statistic)
    assert chi2.p == pytest.approx(F.p)
    assert list(chi2.to_frame()) == ["NumDF", "DenDF", "Chisq", "Pr(>Chisq)"]
    assert repr(chi2).startswith("chi2(2) = ")


def test_terms_without_columns() -> None:
    sleep = me.load_dataset("sleepstudy")
    m = me.lmer("Reaction ~ Days + I(2 * Days) + (1 | Subject)", sleep)
    table = m.anova()
    assert table.loc["I(2 * Days)"].isna().all()
    assert table.loc["Days", "F value"] > 0.0
    with pytest.raises(me.ModelError, match="lost all its columns"):
        m.wald("I(2 * Days)")
    assert m.update("Reaction ~ 1 + (1 | Subject)").anova().empty


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda m: m.wald(np.eye(3)), "must have 2 columns, one for each coefficient.*it is 3 x 3"),
        (lambda m: m.wald([[0, 1], [0, 2]]), "2 rows of the hypothesis matrix have rank 1"),
        (lambda m: m.wald([[0, 0]]), "Row 1 of the hypothesis matrix is zero"),
        (
            lambda m: m.wald("Day"),
            r"no term or coefficient 'Day'.* terms are 'Days'; coef.*'\(Intercept\)'",
        ),
        (lambda m: m.wald({"Days": 1}), "A hypothesis is the name of a term or coefficient"),
        (lambda m: m.wald([[0, np.nan]]), "not finite"),
        (lambda m: m.wald(pd.DataFrame({"day": [1.0]})), "no coefficient 'day'; there are"),
        (
            lambda m: m.wald("Days", test="HT"),
            "test 'HT' is not known; there are 'F'",
        ),
        (lambda m: m.wald("Days", ddf="kenward"), "ddf 'kenward' is not known; .*'kr'"),
        (lambda m: m.wald("Days", vcov="HC3"), "vcov kind 'HC3' is not known; .*'model', 'kr'"),
        (lambda m: m.vcov("HC3"), "vcov kind 'HC3' is not known"),
        (lambda m: m.anova(type=4), r"type 4 is not known; there are 1, 2, 3"),
        (lambda m: m.anova(ddf=None), "ddf None is not known"),
    ],
)
def test_errors_are_sentences(ask: Any, sentence: str) -> None:
    with pytest.raises(me.ModelError, match=sentence):
        ask(fitted_model("sleepstudy"))


# --- singular fits --------------------------------------------------------------------------------


def test_doubtful_degrees_of_freedom_are_flagged() -> None:
    """1,011 for a slope within 79 schools, where Kenward-Roger gives 67.5."""
    text = " ".join(str(fitted_model("star_sample")).split())
    assert "not to be trusted for sxF (1011)" in text
    assert 'use ddf="kr", or a cluster-robust' in text
    assert "cltypereg (" not in text
    assert "not to be trusted" not in str(fitted_model("star_sample").summary(ddf="kr"))


def test_regular_fits_are_not_flagged() -> None:
    assert "not to be trusted" not in str(fitted_model("sleepstudy"))


def test_singular_maximum_likelihood_fit() -> None:
    m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff2"), reml=False)
    assert "m.update(reml=True)" in str(m)


def test_robust_joint_test_is_that_of_the_robust_covariance() -> None:
    star = me.load_dataset("star_sample")
    m = me.lmer("read ~ cltype + sx + (1 | sch/tch)", star)
    ours, robust = m.wald("cltype", vcov="CR2", cluster="sch"), m.robust("CR2", cluster="sch")
    HTZ = robust.test("cltype", "HTZ")
    assert ours.statistic == pytest.approx(HTZ.statistic)
    assert (ours.num_df, ours.den_df) == (2, pytest.approx(HTZ.den_df))
    assert ours.p == pytest.approx(HTZ.p)
    EDF = m.wald("cltype", vcov="CR2", cluster="sch", test="EDF")
    assert EDF.test == "EDF" and EDF.p == robust.test("cltype", "EDF").p
    one = m.wald("sxF", vcov="CR2")
    assert one.den_df == pytest.approx(robust.df["sxF"])
    assert "CR2 standard errors" in str(m.summary(vcov="CR2", cluster="sch"))
    with pytest.raises(me.ModelError, match="cluster= is for robust covariance matrices"):
        m.wald("cltype", cluster="sch")


def test_anova_takes_every_covariance_matrix() -> None:
    star = me.load_dataset("star_sample")
    m = me.lmer("read ~ cltype + sx + (1 | sch/tch)", star)
    table = m.anova(vcov="CR2", cluster="sch")
    for term in ("cltype", "sx"):
        joint = m.robust("CR2", cluster="sch").test(term)
        row = table.loc[term]
        assert row["F value"] == pytest.approx(joint.statistic)
        assert row["DenDF"] == pytest.approx(joint.den_df)
        assert row["Pr(>F)"] == pytest.approx(joint.p)
    pd.testing.assert_frame_equal(m.anova(vcov="kr"), m.anova(ddf="kr"))
    with pytest.raises(me.ModelError, match="vcov kind 'HC3' is not known"):
        m.anova(vcov="HC3")


def test_tidy_takes_every_covariance_matrix() -> None:
    m = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", me.load_dataset("threelevel"))
    tidy = m.tidy("fixed", vcov="CR2", cluster="sch.cl", level=0.9).set_index("term")
    table = m.coef_table(vcov="CR2", cluster="sch.cl", level=0.9)
    np.testing.assert_allclose(tidy["df"], table["df"])
    np.testing.assert_allclose(tidy[["conf_low", "conf_high"]], table[["lower", "upper"]])
    assert "conf_low" not in m.tidy("fixed")


def test_a_table_of_terms_says_which_are_tested_at_a_zero_outside_the_data() -> None:
    children = me.load_dataset("orthodont")
    m = me.lmer("distance ~ age * Sex + (1 | Subject)", children)
    for kind in (2, 3):
        (note,) = (n for n in m.anova(type=kind).notes if "tested at" in n)
        assert note.startswith("Sex tested at age = 0, at the edge of the data or beyond")
    one_at_zero = children.assign(age=children["age"].where(children.index != 5, 0))
    far = me.lmer(m.formula, one_at_zero).anova()
    assert any("Sex tested at age = 0" in n for n in far.notes)
    # It is: the same test by hand, and another at the mean.
    means = m.emmeans("Sex", at={"age": 0}).contrasts().to_frame()
    assert_allclose(m.anova().loc["Sex", "F value"], means["statistic"][0] ** 2, rtol=1e-8)
    for same in ("I(age - 11) * Sex", "age + Sex"):
        table = me.lmer(f"distance ~ {same} + (1 | Subject)", children).anova()
        assert not any("tested at" in n for n in table.notes)
    assert not any("tested at" in n for n in m.anova(type=1).notes)
