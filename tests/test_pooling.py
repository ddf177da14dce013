"""Pooled fits of imputed data sets: Rubin's rules, their degrees of freedom, and the test D1."""

from __future__ import annotations

import io
import pickle
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import mixedeffects as me
from mixedeffects.inference.imputation_rules import barnard_rubin_df, reiter_df
from references import answers
from test_kenward_roger import at_parameters

# --- mice and mitml of R --------------------------------------------------------------------------


def stored() -> dict[str, Any]:
    return answers("pooling")


@cache
def imputed() -> list[pd.DataFrame]:
    data = pd.read_csv(io.StringIO("\n".join(stored()["csv"])))
    gone = data["x"].isna()
    out = []
    for values in stored()["imputed"]:
        own = data.copy()
        own.loc[gone, "x"] = values
        out.append(own)
    return out


@cache
def stored_fits(i: int) -> list[me.LinearMixedModel]:
    r = stored()["models"][i]
    return [
        at_parameters(r["formula"], data, theta, reml=r["reml"])
        for data, theta in zip(imputed(), r["theta"], strict=True)
    ]


def complete_df(r: dict[str, Any], name: str) -> float:
    return float(r["pooled"][name]["dfcom"][0]) if name != "infinite" else np.inf


@pytest.mark.parametrize("name", ["default", "infinite", "twenty"])
@pytest.mark.parametrize("i", range(2))
def test_pooled_estimates_are_those_of_mice(i: int, name: str) -> None:
    r = stored()["models"][i]
    theirs = {key: np.array(value) for key, value in r["pooled"][name].items() if key != "dfcom"}
    fits = stored_fits(i)
    pooled = me.pool(fits, ddf=complete_df(r, name))
    table = pooled.coef_table(level=0.9)
    assert list(table.index) == r["names"]
    close = {"rtol": 1e-6, "atol": 1e-8}
    assert_allclose(table["Estimate"], theirs["estimate"], **close)
    assert_allclose(np.diag(pooled.within), theirs["ubar"], **close)
    assert_allclose(np.diag(pooled.between), theirs["b"], **close)
    assert_allclose(np.diag(pooled.vcov), theirs["t"], **close)
    assert_allclose(table["Std. Error"] ** 2, theirs["t"], **close)
    assert_allclose(table["RIV"], theirs["riv"], **close)
    assert_allclose(table["FMI"], theirs["fmi"], **close)
    assert_allclose(table["df"], theirs["df"], **close)
    assert_allclose(table["Pr(>|t|)"], theirs["p"], **close)
    assert_allclose(table["lower"], theirs["low"], **close)
    assert_allclose(table["upper"], theirs["high"], **close)
    if name == "default":
        assert complete_df(r, name) == fits[0].fit.df_resid


@pytest.mark.parametrize("name", ["infinite", "twenty", "many"])
@pytest.mark.parametrize("j", range(2))
@pytest.mark.parametrize("i", range(2))
def test_joint_tests_are_those_of_mitml(i: int, j: int, name: str) -> None:
    r = stored()["models"][i]
    names = r["names"]
    L = np.zeros((len(r["tested"][j]), len(names)))
    for row, text in zip(L, r["tested"][j], strict=True):
        plus, *minus = text.replace("`", "").split(" - ")
        row[names.index(plus)] = 1.0
        for other in minus:
            row[names.index(other)] = -1.0
    ddf = {"infinite": np.inf, "twenty": 20, "many": 88}[name]
    found = me.pool(stored_fits(i), ddf=ddf).wald(L)
    theirs = r["joint"][j][name]
    assert (found.test, found.num_df) == ("D1", theirs["df1"])
    assert_allclose(found.statistic, theirs["F.value"], rtol=1e-6)
    assert_allclose(found.den_df, theirs["df2"], rtol=1e-6)
    assert_allclose(found.p, theirs["P(>F)"], rtol=1e-6)
    assert_allclose(1.0 / found.scaling - 1.0, theirs["RIV"], rtol=1e-6)


@pytest.mark.parametrize("i", range(2))
def test_complete_data_df_are_the_harmonic_mean_of_lmertests(i: int) -> None:
    r = stored()["models"][i]
    pooled = me.pool(stored_fits(i))
    theirs = 1.0 / np.mean(1.0 / np.array(r["satterthwaite"]), axis=0)
    assert_allclose(pooled._rubin.complete_df(np.eye(len(theirs))), theirs, rtol=1e-3)
    lost = np.array(r["pooled"]["default"]["lambda"])
    assert_allclose(
        pooled.coef_table()["df"],
        barnard_rubin_df(lost, 6, pooled._rubin.complete_df(np.eye(len(theirs)))),
        rtol=1e-6,
    )


# --- what must hold -------------------------------------------------------------------------------


def fits_of(formula: str, **options: Any) -> list[me.LinearMixedModel]:
    return [me.lmer(formula, data, **options) for data in imputed()]


@cache
def plain_fits() -> list[me.LinearMixedModel]:
    return fits_of("y ~ x + arm + (1 | g)")


def test_one_contrast_is_the_same_everywhere() -> None:
    pooled = me.pool(plain_fits())
    table, test = pooled.coef_table(), pooled.wald("x")
    assert_allclose(test.statistic, table.loc["x", "t value"] ** 2, rtol=1e-10)
    assert_allclose(test.den_df, table.loc["x", "df"], rtol=1e-10)
    assert_allclose(test.p, table.loc["x", "Pr(>|t|)"], rtol=1e-10)
    assert_allclose(pooled.contrast({"x": {"x": 1}}).loc["x"], table.loc["x"], rtol=1e-12)
    assert_allclose(pooled.anova().loc["x", "Pr(>F)"], test.p, rtol=1e-10)


@pytest.mark.parametrize("ddf", ["satterthwaite", "kr", "residual", "inf", 30])
def test_the_joint_test_does_not_depend_on_the_basis(ddf: Any) -> None:
    pooled = me.pool(plain_fits(), ddf=ddf)
    L = np.array([[0, 0, 1.0, 0], [0, 0, 0, 1.0]])
    one, other = pooled.wald(L), pooled.wald(np.array([[2.0, 1.0], [1.0, -1.0]]) @ L)
    # Satterthwaite's joint df of one fit depend on the basis, a little; its eigenvectors do not.
    assert_allclose(one.statistic, other.statistic, rtol=1e-9)
    assert_allclose(one.den_df, other.den_df, rtol=1e-2)
    if ddf != "inf":
        assert_allclose(pooled.anova().loc["arm", "F value"], one.statistic, rtol=1e-9)


@pytest.mark.parametrize("kind", [1, 2, 3, "III"])
def test_terms_of_every_type(kind: Any) -> None:
    table = me.pool(plain_fits()).anova(kind)
    assert table["NumDF"].to_dict() == {"x": 1, "arm": 2}
    assert ((table["Pr(>F)"] > 0) & (table["Pr(>F)"] < 1)).all()


def test_equal_data_sets_pool_to_one_fit() -> None:
    fit = plain_fits()[0]
    pooled = me.pool([fit, fit, fit])
    own, table = fit.coef_table(), pooled.coef_table()
    assert_allclose(table["Estimate"], own["Estimate"], rtol=1e-12)
    assert_allclose(table["Std. Error"], own["Std. Error"], rtol=1e-12)
    nu = own["df"]
    assert_allclose(table["df"], nu * (nu + 1) / (nu + 3), rtol=1e-9)
    assert_allclose(table["RIV"], 0.0)
    assert any("do not differ" in note for note in pooled.notes)
    assert_allclose(pooled.wald("arm").statistic, fit.wald("arm").statistic, rtol=1e-10)


def test_robust_and_kenward_roger_within_variances() -> None:
    fits = plain_fits()
    for vcov, ddf in (("CR2", "satterthwaite"), ("kr", "satterthwaite")):
        pooled = me.pool(fits, vcov=vcov, ddf=ddf)
        within = np.mean([fit.vcov(vcov).to_numpy() for fit in fits], axis=0)
        assert_allclose(pooled.within, within, rtol=1e-12)
        each = np.array([fit.coef_table(vcov=vcov)["df"] for fit in fits])
        assert_allclose(
            pooled._rubin.complete_df(np.eye(4)), 1 / np.mean(1 / each, axis=0), rtol=1e-10
        )
        assert np.isfinite(pooled.anova().to_numpy(float)).all()


def test_means_are_linear_functions_of_the_pooled_estimates() -> None:
    fits = plain_fits()
    pooled = me.pool(fits, ddf="kr")
    means = pooled.emmeans("arm")
    x = float(np.mean([fit.frame.data["x"].mean() for fit in fits]))
    assert any(f"x = {x:.5g}" in note for note in means.notes)
    by_hand = pooled.contrast(means.L.to_numpy())
    assert_allclose(means.L["x"], x, rtol=1e-12)
    table = means.to_frame()
    for ours, theirs in (("estimate", "Estimate"), ("std_error", "Std. Error"), ("df", "df")):
        assert_allclose(table[ours], by_hand[theirs], rtol=1e-10)
    assert_allclose(table["conf_high"], by_hand["upper"], rtol=1e-10)
    compared = means.contrasts("trt.vs.ctrl", adjust="none")
    by_hand = pooled.contrast(compared.L.to_numpy())
    assert_allclose(compared.to_frame()["p_value"], by_hand["Pr(>|t|)"], rtol=1e-10)
    assert_allclose(compared.effect_size(2.0).to_frame()["estimate"], by_hand["Estimate"] / 2.0)
    with pytest.raises(me.ModelError, match="no standard deviation 'total'"):
        compared.effect_size()
    again = pickle.loads(pickle.dumps(means))
    pd.testing.assert_frame_equal(again.contrasts().to_frame(), means.contrasts().to_frame())


@pytest.mark.parametrize(("vcov", "ddf"), [("model", "kr"), ("CR2", "satterthwaite")])
def test_joint_tests_of_means_are_d1(vcov: str, ddf: str) -> None:
    pooled = me.pool(plain_fits(), vcov=vcov, ddf=ddf)
    table = pooled.joint_tests().set_index("term")
    for term in ("x", "arm"):
        test = pooled.wald(term)
        found = table.loc[term, ["num_df", "den_df", "statistic", "p_value"]].astype(float)
        assert_allclose(found, [test.num_df, test.den_df, test.statistic, test.p], rtol=1e-9)


def test_means_of_equal_data_sets_are_those_of_one() -> None:
    fit = plain_fits()[0]
    pooled, own = me.pool([fit, fit]).emmeans("arm").to_frame(), fit.emmeans("arm").to_frame()
    assert_allclose(pooled[["estimate", "std_error"]], own[["estimate", "std_error"]], rtol=1e-10)


def test_a_variance_that_clusters_do_not_show_is_refused() -> None:
    fits = fits_of('y ~ x + I(g == "g1") + (1 | g)')
    with pytest.warns(me.ClusterWarning):
        pooled = me.pool(fits, vcov="CR0", cluster="g")
    name = pooled.estimates.index[2]
    table = pooled.coef_table()
    assert table["Std. Error"].isna().tolist() == [False, False, True]
    assert_allclose(pooled.wald("x").statistic, table.loc["x", "t value"] ** 2)
    with pytest.raises(me.ModelError, match="in some of the fits"):
        pooled.wald(["x", name])


def test_tidy_has_the_mean_variances() -> None:
    fits = fits_of("y ~ x + (x | g)")
    table = me.pool(fits).tidy(level=0.9).set_index("term")
    sigma = np.sqrt(np.mean([fit.sigma**2 for fit in fits]))
    assert_allclose(table.loc["sd__Observation", "estimate"], sigma, rtol=1e-12)
    G = np.mean([fit.varcorr["g"].to_numpy() for fit in fits], axis=0)
    assert_allclose(table.loc["sd__x", "estimate"], np.sqrt(G[1, 1]), rtol=1e-10)
    cor = G[0, 1] / np.sqrt(G[0, 0] * G[1, 1])
    assert_allclose(table.loc["cor__(Intercept).x", "estimate"], cor, rtol=1e-10)
    assert {"conf_low", "conf_high", "riv", "fmi"} <= set(table.columns)
    assert list(table.columns[:3]) == ["effect", "group", "estimate"]
    assert list(me.pool(fits).tidy("fixed")) == [
        *("effect", "group", "term", "estimate", "std_error", "statistic", "df", "p_value"),
        *("riv", "fmi"),
    ]
    with pytest.raises(me.ModelError, match="not known for pooled fits"):
        me.pool(fits).tidy("ran_vals")


def test_structured_terms_have_their_own_parameters() -> None:
    fits = fits_of("y ~ x + cs(0 + arm | r, hom = TRUE)")
    rows = me.pool(fits).tidy("ran_pars")
    means = np.mean([fit.covariance_parameters.to_numpy() for fit in fits], axis=0)
    assert list(rows["term"]) == ["sd", "cor", "sd__Observation"]
    assert_allclose(rows["estimate"][:2], means[:2], rtol=1e-10)


def test_glance_and_what_is_shown() -> None:
    pooled = me.pool(plain_fits(), ddf="kr")
    row = pooled.glance().iloc[0]
    assert (row["nimp"], row["nobs"], bool(row["converged"])) == (6, 96, True)
    assert_allclose(row["fmi_max"], pooled.coef_table()["FMI"].max())
    text = repr(pooled)
    assert text.startswith("y ~ x + arm + (1 | g), pooled over 6 fits by Rubin's rules\n")
    assert "Kenward-Roger" in text
    assert "RIV" in text.splitlines()[1]
    assert "<table>" in pooled._repr_html_()
    assert r"\begin{tabular}" in pooled.to_latex()
    assert "| FMI |" in pooled.to_markdown()
    again = pickle.loads(pickle.dumps(pooled))
    pd.testing.assert_frame_equal(again.coef_table(), pooled.coef_table())


def test_notes_say_what_to_know() -> None:
    scaled = me.pool(fits_of("y ~ scale(x) + (1 | g)"))
    assert any("scale(x) depend on the data set" in note for note in scaled.notes)
    assert "not converged" not in " ".join(scaled.notes)
    flat = [data.assign(y=data["x"] + data["r"]) for data in imputed()]
    singular = me.pool([me.lmer("y ~ x + (1 | g)", data) for data in flat])
    assert any(note.startswith("singular: fits[0], fits[1]") for note in singular.notes)
    assert not any("depend on the data" in note for note in singular.notes)


def test_a_mapping_or_any_iterable_of_fits() -> None:
    fits = plain_fits()
    first = me.pool(fits).coef_table()
    pd.testing.assert_frame_equal(me.pool(iter(fits)).coef_table(), first)
    pd.testing.assert_frame_equal(me.pool(dict(enumerate(fits))).coef_table(), first)
    pd.testing.assert_frame_equal(me.pool([fit.fit for fit in fits]).coef_table(), first)


def test_a_model_without_fixed_effects() -> None:
    pooled = me.pool(fits_of("y ~ 0 + (1 | g)"))
    assert len(pooled.coef_table()) == 0
    assert len(pooled.tidy()) == 2
    assert "pooled over 6 fits" in repr(pooled)
    assert np.isnan(pooled.glance()["fmi_max"].iloc[0])


def other(formula: str, **options: Any) -> me.LinearMixedModel:
    return me.lmer(formula, imputed()[1], **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: f, "takes a list of fits"),
        (lambda f: 7, "takes a list of fits"),
        (lambda f: [f], "There is one fit to pool"),
        (lambda f: [], "There is no fit to pool"),
        (lambda f: [f, "x"], r"fits\[1\] must be a fitted model"),
        (lambda f: [f, other("log(y + 9) ~ x + arm + (1 | g)")], "another response"),
        (lambda f: [f, other("y ~ x + (1 | g)")], r"fits\[1\] has another formula"),
        (lambda f: [f, other("y ~ x + arm + (x | g)")], "another formula"),
        (lambda f: [f, other("y ~ x + arm + (1 | g)", reml=False)], "by maximum likelihood and"),
        (
            lambda f: [f, me.lmer(f.formula, imputed()[1].query("arm != 'c'"))],
            "other coefficients than fits.*: armc is not in both",
        ),
        (lambda f: [f, me.lmer(f.formula, imputed()[1].iloc[:90])], "has 90 rows and"),
        (lambda f: [f, other(f.formula, weights=np.full(96, 2.0))], "prior weights"),
        (
            lambda f: [
                other(f.formula, contrasts={"arm": "sum"}),
                other(f.formula, contrasts={"arm": "helmert"}),
            ],
            "coded otherwise",
        ),
    ],
)
def test_fits_that_are_not_of_one_model_are_refused(make: Any, message: str) -> None:
    with pytest.raises(me.ModelError, match=message):
        me.pool(make(plain_fits()[0]))


def test_random_effects_with_other_columns_are_refused() -> None:
    some = imputed()[1].assign(h=lambda d: np.where(d["r"] > 3, "late", "soon"))
    more = some.assign(h=np.where(some["r"] == 2, "never", some["h"]))
    with pytest.raises(me.ModelError, match="random effects of fits"):
        me.pool([me.lmer("y ~ x + (0 + h | g)", data) for data in (some, more)])


@pytest.mark.parametrize("ddf", [0, -3, np.nan, "dfcom", True])
def test_degrees_of_freedom_that_are_none(ddf: Any) -> None:
    with pytest.raises(me.ModelError, match="ddf"):
        me.pool(plain_fits(), ddf=ddf)


def test_rules_at_their_limits() -> None:
    df = barnard_rubin_df(np.array([0.0, 0.3, 1.0]), 4, np.array([np.inf, np.inf, 12.0]))
    assert_allclose(df, [np.inf, 3 / 0.09, 0.0])
    # Few fits of two contrasts: Reiter's expansion has no value at t = 2 and 4.
    for m in (2, 3):
        assert 0.0 < reiter_df(0.2, 2, m, 30.0) < min(reiter_df(0.2, 2, m, np.inf), 30.0)
    assert reiter_df(0.0, 2, 5, np.inf) == np.inf
    assert np.isnan(reiter_df(0.2, 2, 5, np.nan))
    assert 0.0 < reiter_df(5.0, 3, 5, 6.0) < 6.0
    many = [reiter_df(0.4, 3, 10, nu) for nu in (8.0, 20.0, 100.0, 1e4, 1e8)]
    assert np.all(np.diff(many) > 0.0)
    assert_allclose(many[-1], reiter_df(0.4, 3, 10, np.inf), rtol=0.05)
