"""Likelihood-ratio tests, information criteria and deletion of random effects."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from numpy.testing import assert_allclose

import mixedeffects as me
from comparison_references import data, fit_of, fitted, name_of, stored, values
from design_models import model_of
from designs import Design, designs
from mixedeffects.comparison.nesting import (
    added_variance,
    contains_constant,
    contains_mean,
    contains_variance,
    same_mean,
)
from mixedeffects.fitting.refitting import (
    by_maximum_likelihood,
    least_squares_criterion,
    with_random_terms,
)
from mixedeffects.inference.chi_bar import mixture_p

SLEEP = me.load_dataset("sleepstudy")
SETS = list(stored()["anova"])
MODELS = stored()["models"]


def sleep(formula: str, **options: Any) -> me.LinearMixedModel:
    return me.lmer(f"Reaction ~ {formula}", SLEEP, **options)


# --- anova ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_anova_against_lme4(name: str) -> None:
    r = stored()["anova"][name]
    models = [fitted(f, r["data"], r["reml"], r["weights"]) for f in r["f"]]
    comparison = me.anova(*models)
    table = comparison.to_frame()
    assert list(table.index) == r["table"]["rows"]
    assert list(table.columns) == r["table"]["columns"]
    assert_allclose(table, values(r["table"]), rtol=1e-6, atol=1e-7)
    assert comparison.refitted == (r["reml"] and not r["same"])
    assert comparison.reml == r["same"]


def test_refits_are_those_of_update() -> None:
    m1, m2 = sleep("1 + (Days | Subject)"), sleep("Days + (Days | Subject)")
    comparison = me.anova(m2, m1)
    for model, fit in zip((m1, m2), comparison.fits, strict=True):
        again = model.update(reml=False)
        assert not fit.reml
        assert fit.criterion == pytest.approx(again.criterion, abs=1e-7)
        assert_allclose(fit.theta, again.theta, atol=1e-4)
    assert m1.reml
    assert "Refitted by maximum likelihood, because the fixed effects differ: m1, m2" in repr(
        comparison
    )
    assert by_maximum_likelihood(comparison.fits[0].fit) is comparison.fits[0].fit


def test_refit_of_a_singular_fit() -> None:
    m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff2"))
    again = by_maximum_likelihood(m.fit)
    assert again.optimum.singular
    assert again.criterion == pytest.approx(m.update(reml=False).criterion, abs=1e-8)


def test_some_by_reml_and_some_by_maximum_likelihood() -> None:
    m1, m2 = sleep("Days + (1 | Subject)"), sleep("Days + (Days | Subject)", reml=False)
    mixed = me.anova(m1, m2)
    assert mixed.refitted
    assert "the other fits are by maximum likelihood: m1." in mixed.notes[0]
    both = me.anova(m1.update(reml=False), m2)
    assert not both.refitted
    assert_allclose(mixed.table, both.table, atol=1e-6)


def test_reml_does_not_depend_on_the_coding() -> None:
    """The spans are the same, and ``log |X'X|``, by which the criteria differ, is taken off."""
    small, large = "y ~ f * x + (1 | g)", "y ~ f * x + (x | g)"
    usual = me.anova(me.lmer(small, data("comparison")), me.lmer(large, data("comparison")))
    other = me.lmer(large, data("comparison"), contrasts={"f": "helmert"})
    recoded = me.anova(me.lmer(small, data("comparison")), other)
    assert abs(other.criterion - recoded.table.loc["m2", "deviance"]) > 1.0
    assert not recoded.refitted
    assert_allclose(recoded.table, usual.table, atol=1e-6)


def test_names_do_not_make_fixed_effects_the_same() -> None:
    m1 = me.lmer("Reaction ~ Days + (1 | Subject)", SLEEP)
    m2 = me.lmer("Reaction ~ Days + (1 | Subject)", SLEEP.assign(Days=SLEEP["Days"] ** 2))
    assert me.anova(m1, m2).refitted


def test_offsets() -> None:
    d = data("comparison")
    none, offset = me.lmer("y ~ x + (1 | g)", d), me.lmer("y ~ x + offset(o) + (1 | g)", d)
    free = me.lmer("y ~ x + o + (1 | g)", d)
    assert contains_mean(free.fit, offset.fit)
    assert contains_mean(free.fit, none.fit)
    assert not contains_mean(offset.fit, none.fit)
    assert not same_mean(offset.fit, none.fit)
    assert same_mean(none.fit, me.lmer("y ~ x + offset(2 * x + 1) + (1 | g)", d).fit)
    assert not same_mean(none.fit, free.fit)


def test_equally_many_parameters() -> None:
    m1, m2 = sleep("Days + (1 | Subject)"), sleep("I(Days^2) + (1 | Subject)")
    comparison = me.anova(m1, m2)
    assert comparison.table.loc["m2", "Df"] == 0
    assert comparison.table.loc["m2", ["Chisq", "Pr(>Chisq)"]].isna().all()
    assert "No test of m1 and m2: they have equally many parameters." in comparison.notes


def test_models_that_are_not_nested() -> None:
    d = data("comparison")
    m1, m2 = me.lmer("y ~ x + (1 | h)", d), me.lmer("y ~ x + (x | g)", d)
    assert any("m1 and m2 do not look nested" in note for note in me.anova(m1, m2).notes)
    fixed = me.anova(me.lmer("y ~ x + (1 | h)", d), me.lmer("y ~ f + (1 | h)", d))
    assert any("do not look nested" in note for note in fixed.notes)
    worse = me.anova(me.lmer("y ~ x + (x | g)", d), me.lmer("y ~ x + (f | h)", d))
    assert worse.table["Chisq"].iloc[1] == 0.0
    assert worse.table["Pr(>Chisq)"].iloc[1] == 1.0


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda m: me.anova(), "me.anova needs fitted models to compare; none was given"),
        (lambda m: me.anova(m), r"two or more models.*m\.anova\(\).*m\.ranova\(\)"),
        (lambda m: me.anova(m, "x"), "Argument 2 of me.anova must be a model fitted by.*not str"),
        (lambda m: me.compare([m, m]), r"not list. Give models one by one: me.compare\(\*models"),
        (lambda m: me.anova(m, m, refit=None), "refit must be True or False, not None"),
        (lambda m: me.anova(m, m, boundary=1), "boundary must be True or False, not 1"),
        (
            lambda m: me.anova(m, sleep("1 + (1 | Subject)"), refit=False),
            r"REML fits \(m1, m2\) cannot be compared here, because the fixed effects differ",
        ),
        (
            lambda m: me.anova(m, m.update(data=SLEEP.assign(Days=SLEEP["Days"].replace(9, None)))),
            r"different rows, 180 and 162 \(without those missing in Days\)",
        ),
        (
            lambda m: me.anova(m, m.update("log(Reaction) ~ Days + (1 | Subject)")),
            r"different responses \(Reaction and log\(Reaction\); 180 of 180 values differ",
        ),
        (lambda m: me.anova(m, m.update(data=SLEEP[::-1])), "same response values in different o"),
        (
            lambda m: me.compare(m, sleep("Days + (1 | Subject)", weights=[2.0] + [1.0] * 179)),
            "different prior weights in 1 of 180 rows",
        ),
        (lambda m: me.compare(m, criterion="DIC"), "criterion 'DIC' is not known; there are 'AIC'"),
        (lambda m: m.ranova(boundary="yes"), "boundary must be True or False, not 'yes'"),
        (lambda m: m.ranova(reduce_terms=2), "reduce_terms must be True or False, not 2"),
    ],
)
def test_errors_are_sentences(ask: Any, sentence: str) -> None:
    with pytest.raises(me.ModelError, match=sentence):
        ask(sleep("Days + (1 | Subject)"))


def test_unit_weights_are_no_weights() -> None:
    m = sleep("Days + (1 | Subject)")
    weighted = sleep("Days + (Days | Subject)", weights=np.ones(180))
    assert me.anova(m, weighted).table["Chisq"].iloc[1] == pytest.approx(42.8368, abs=1e-4)


def test_fits_that_did_not_converge_are_named() -> None:
    with pytest.warns(me.ConvergenceWarning):
        m = sleep("Days + (Days | Subject)", control=me.Control(max_evaluations=2))
    assert "Not converged, so not at its maximum: m1." in me.compare(m).notes
    assert any("has not converged" in note for note in m.ranova().notes)


def test_text_and_html() -> None:
    m = sleep("Days + (1 | Subject)")
    other = m.update("Reaction ~ Days + I(Days < 5) + (1 | Subject)")
    for result in (me.anova(m, other), me.compare(m, other), other.ranova()):
        html = result._repr_html_()
        assert "I(Days &lt; 5)" in html
        assert "<td" in html
        assert "I(Days < 5)" in repr(result)
        frame = result.to_frame()
        frame.iloc[:, 0] = 0
        assert (result.table.iloc[:, 0] > 0).all()


# --- compare --------------------------------------------------------------------------------------


def test_information_criteria_by_hand() -> None:
    formulas = ["Days + (1 | Subject)", "Days + (Days | Subject)", "1 + (Days | Subject)"]
    models = [sleep(f, reml=False) for f in formulas]
    for criterion in ("AIC", "AICc", "BIC"):
        result = me.compare(*models, criterion=criterion)
        table = result.table.loc[["m1", "m2", "m3"]]
        k = np.array([4, 6, 5])
        ml = np.array([m.loglik for m in models])
        by_hand = {
            "AIC": -2 * ml + 2 * k,
            "AICc": -2 * ml + 2 * k * 180 / (180 - k - 1),
            "BIC": -2 * ml + np.log(180) * k,
        }
        for name, expected in by_hand.items():
            assert_allclose(table[name], expected, rtol=1e-12)
        chosen = by_hand[criterion]
        weights = np.exp(-chosen / 2 + chosen.min() / 2)
        assert_allclose(table["delta"], chosen - chosen.min(), atol=1e-9)
        assert_allclose(table["weight"], weights / weights.sum())
        assert result.table["delta"].is_monotonic_increasing
        assert [f.formula for f in result.fits] == list(result.models.values())
        assert not result.refitted


def test_criteria_of_reml_fits() -> None:
    m1, m2 = sleep("Days + (1 | Subject)"), sleep("Days + (Days | Subject)")
    kept = me.compare(m1, m2)
    assert kept.reml
    assert kept.table.loc["m1", "AIC"] == pytest.approx(m1.aic)
    refitted = me.compare(m1, m2, sleep("1 + (1 | Subject)"))
    assert refitted.refitted
    assert refitted.table.loc["m1", "AIC"] == pytest.approx(m1.update(reml=False).aic)


def test_aicc_with_too_few_rows() -> None:
    rng = np.random.default_rng(3)
    small = pd.DataFrame({"y": rng.normal(size=9), "x": rng.normal(size=9), "g": list("abc") * 3})
    m1, m2 = me.lmer("y ~ 1 + (1 | g)", small), me.lmer("y ~ poly(x, 5) + (1 | g)", small)
    result = me.compare(m1, m2, criterion="AICc")
    assert np.isinf(result.table.loc["m2", "AICc"])
    assert result.table["weight"].tolist() == [1.0, 0.0]
    with pytest.raises(me.ModelError, match="9 rows are too few for 8 or more parameters"):
        me.compare(m2, criterion="AICc")


# --- ranova ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", MODELS, ids=name_of)
def test_ranova_against_lmertest(answer: dict[str, Any]) -> None:
    """Slopes, factors, interactions; crossed and nested; weights, offset; down to least squares."""
    m = fit_of(answer)
    for key, reduce_terms in (("ranova", True), ("whole", False)):
        table = m.ranova(reduce_terms=reduce_terms).to_frame()
        assert sorted(table.index) == sorted(answer[key]["rows"])
        # lmerTest's LRT is the Chisq of R's anova.
        names = ["Chisq" if name == "LRT" else name for name in answer[key]["columns"]]
        assert list(table.columns) == names
        assert_allclose(table.loc[answer[key]["rows"]], values(answer[key]), rtol=1e-6, atol=2e-6)


def test_double_bar() -> None:
    table = sleep("Days + (Days || Subject)").ranova(boundary=True)
    assert list(table.table.index) == ["<none>", "(1 | Subject)", "(0 + Days | Subject)"]
    assert table.table["Df"].tolist()[1:] == [1.0, 1.0]
    without = sleep("Days + (1 | Subject)")
    assert table.table.loc["(0 + Days | Subject)", "logLik"] == pytest.approx(without.loglik)
    statistic = table.table.loc["(0 + Days | Subject)", "Chisq"]
    assert table.table.loc["(0 + Days | Subject)", "Pr(>Chisq)"] == pytest.approx(
        0.5 * scipy.stats.chi2.sf(statistic, 1)
    )


def test_a_factor_whose_coding_depends_on_the_one_taken_out() -> None:
    d = data("comparison")
    m = me.lmer("y ~ x + (0 + f + k | g)", d)
    table = m.ranova().to_frame()
    reduced = me.lmer("y ~ x + (0 + k | g)", d)
    assert table.loc["f in (0 + f + k | g)", "logLik"] == pytest.approx(reduced.loglik)
    assert table.loc["f in (0 + f + k | g)", "npar"] == reduced.n_parameters


def test_what_is_left_is_not_put_there_twice() -> None:
    """``(0 + f | g)`` less f is an intercept, which the model has already."""
    d = data("comparison")
    with pytest.warns(me.IdentifiabilityWarning, match="can stand in for each other"):
        m = me.lmer("y ~ x + (1 | g) + (0 + f | g)", d)
    assert "count too many" in str(m.ranova())
    table = m.ranova().to_frame()
    assert list(table.index) == ["<none>", "(1 | g)", "(0 + f | g)"]
    alone = me.lmer("y ~ x + (1 | g)", d)
    assert table.loc["(0 + f | g)", "logLik"] == pytest.approx(alone.loglik)
    assert contains_constant(m.frame.terms[1])


def test_dropped_rows() -> None:
    gaps = SLEEP.assign(Days=SLEEP["Days"].where(SLEEP.index % 7 > 0))
    m = me.lmer("Reaction ~ Days + (Days | Subject)", gaps)
    whole = me.lmer("Reaction ~ Days + (1 | Subject)", gaps)
    table = m.ranova().to_frame()
    assert table["logLik"].iloc[1] == pytest.approx(whole.loglik)


@given(design=designs)
@settings(max_examples=25, deadline=None)
def test_least_squares_from_its_definition(design: Design) -> None:
    m, _ = model_of(design)
    n, p = design.X.shape
    w = np.ones(n) if design.weights is None else design.weights
    XWX = design.X.T @ (w[:, None] * design.X)
    beta = np.linalg.solve(XWX, design.X.T @ (w * design.y))
    rss = w @ (design.y - design.X @ beta) ** 2
    for reml in (True, False):
        fit = dataclasses.replace(m.fit, reml=reml)
        df = n - p if reml else n
        expected = df * (1 + np.log(2 * np.pi * rss / df)) - np.log(w).sum()
        expected += np.linalg.slogdet(XWX)[1] if reml else 0.0
        assert least_squares_criterion(fit) == pytest.approx(expected, rel=1e-10)


@given(design=designs)
@settings(max_examples=25, deadline=None)
def test_nesting_is_seen(design: Design) -> None:
    m, _ = model_of(design)
    assert contains_mean(m.fit, m.fit)
    assert contains_variance(m.fit, m.fit)
    if len(m.frame.terms) == 1:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", me.ConvergenceWarning)
        less = with_random_terms(m.fit, m.frame.terms[1:])
    assert contains_variance(m.fit, less)
    assert not contains_variance(less, m.fit)


# --- the boundary ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("small", "large", "added"),
    [
        ("(1 | g)", "(x | g)", 1),
        ("(1 | g)", "(1 | g) + (1 | h)", 0),
        ("(1 | g)", "(x || g)", 0),
        ("(x + z | g)", "(x + z + w | g)", 3),
        ("(0 + x | g) + (1 | h)", "(x | g) + (1 | h)", 1),
        ("(x | g)", "(x | g)", "the random effects are the same"),
        ("(x || g)", "(x | g)", "no variance is added"),
        ("(1 | g)", "(f | g)", "2 variances are added"),
        ("(1 | g)", "(x | g) + (1 | h)", "2 variances are added"),
        ("(1 | g)", "(0 + x | g) + (0 + z | g)", "more changes than one"),
        ("(1 | g)", "(0 + x + z | g)", "more changes than one"),
    ],
)
def test_where_the_mixture_applies(small: str, large: str, added: int | str) -> None:
    rng = np.random.default_rng(0)
    d = data("comparison").assign(z=rng.normal(size=240))

    def terms(random: str) -> Any:
        return me.lmer(f"y ~ 1 + {random}", d, control=me.Control(max_evaluations=100)).frame.terms

    found = added_variance(terms(small), terms(large))
    if isinstance(added, int):
        assert found == added
    else:
        assert isinstance(found, str)
        assert added in found


def test_mixture() -> None:
    m1, m2 = sleep("Days + (1 | Subject)"), sleep("Days + (Days | Subject)")
    row = me.anova(m1, m2, boundary=True).table.loc["m2"]
    usual = scipy.stats.chi2.sf(row["Chisq"], [1, 2])
    assert row["Pr(>Chisq)"] == pytest.approx(usual.mean(), rel=1e-12)
    assert row["Df"] == 2
    assert mixture_p(0.0, 0) == 1.0
    fixed = me.anova(m1, sleep("1 + (1 | Subject)"), boundary=True)
    assert "the mixture is for models with the same fixed effects" in fixed.notes[1]
    assert fixed.table["Pr(>Chisq)"].iloc[1] == pytest.approx(
        scipy.stats.chi2.sf(fixed.table["Chisq"].iloc[1], 1)
    )


def test_singular_smaller_model_is_noted() -> None:
    d = me.load_dataset("dyestuff2").assign(h=list("abcde") * 6)
    m = me.lmer("Yield ~ 1 + (1 | Batch)", d)
    notes = me.anova(m, m.update(". ~ . + (1 | h)"), boundary=True).notes
    assert any("singular itself" in note for note in notes)


def test_level_of_the_boundary_test() -> None:
    """Without a variance between groups, p is uniform above the mass that it has at one."""
    rng = np.random.default_rng(7)
    d = pd.DataFrame({"y": rng.normal(size=400), "g": np.repeat(np.arange(80), 5).astype(str)})
    m = me.lmer("y ~ 1 + (1 | g)", d)
    statistics = []
    for _ in range(400):
        drawn = m.refit(rng.normal(size=400))
        statistics.append(max(least_squares_criterion(drawn.fit) - drawn.criterion, 0.0))
    p = np.array([mixture_p(s, 0) if s > 1e-6 else 1.0 for s in statistics])
    for level in (0.1, 0.25):
        assert abs(np.mean(p < level) - level) < 3 * np.sqrt(level * (1 - level) / 400)
    assert np.mean(2 * p < 0.25) < 0.19
    assert 0.4 < np.mean(p == 1.0) < 0.65
