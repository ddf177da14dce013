"""Standardised coefficients, Cohen's d, shares of variance by term and by level."""

from __future__ import annotations

import pickle
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from numpy.testing import assert_allclose

import mixedeffects as me
from mixedeffects.comparison.anova_effect_sizes import noncentrality_bounds
from mixedeffects.engine.parameters import theta_to_T
from mixedeffects.inference.effect_size import _scale
from mixedeffects.inference.satterthwaite import satterthwaite_of
from references import answers, drawn_data, fitted_model
from test_kenward_roger import at_parameters

# --- effectsize, parameters and emmeans of R ------------------------------------------------------


def stored() -> dict[str, Any]:
    return answers("effect_sizes")


@cache
def drawn() -> pd.DataFrame:
    data = drawn_data("effect_sizes")
    return data.assign(between=pd.Categorical(data["between"], ["old", "new"]))


@cache
def stored_model(i: int) -> me.LinearMixedModel:
    r = stored()["models"][i]
    return at_parameters(r["formula"], drawn(), r["theta"], weights="w" if r["weights"] else None)


STANDARDISED = [
    (i, j) for i, m in enumerate(stored()["models"]) for j in range(len(m["standardized"]))
]


@pytest.mark.parametrize(("i", "j"), STANDARDISED)
def test_standardised_coefficients_are_those_of_effectsize(i: int, j: int) -> None:
    r = stored()["models"][i]["standardized"][j]
    options = r["options"] or {}
    model = stored_model(i)
    if r["method"] == "refit":
        # Fitted again here, so the model itself is one that has converged.
        own = stored()["models"][i]
        model = me.lmer(own["formula"], drawn(), weights="w" if own["weights"] else None)
    table = model.standardize(r["method"], **options)
    assert list(table["term"]) == r["term"]
    some = slice(0 if r["method"] == "refit" else 1, None)
    close = 2e-6 if r["method"] == "refit" else 1e-6
    assert_allclose(table["estimate"][some], r["estimate"][some], rtol=close)
    assert_allclose(table["std_error"][some], r["se"][some], rtol=close)
    if r["method"] != "refit":
        assert np.isnan(table["estimate"][0])
        assert_allclose(table["p_value"], model.coef_table()["Pr(>|t|)"])
        assert_allclose(table["statistic"], model.coef_table()["t value"])
    half = scipy.stats.t.ppf(0.975, table["df"]) * table["std_error"]
    assert_allclose(table["conf_high"] - table["estimate"], half)


@pytest.mark.parametrize("i", range(3))
def test_shares_of_terms_are_those_of_effectsize(i: int) -> None:
    r = stored()["models"][i]["anova"]
    m = stored_model(i)
    table = m.anova_effect_sizes().set_index(["measure", "term"])
    greater = m.anova_effect_sizes("eta", level=0.9, alternative="greater")
    for measure in ("eta", "omega", "epsilon"):
        own = table.loc[f"partial {measure} squared"].loc[r["terms"]]
        theirs = r[measure][f"{measure.capitalize()}2_partial"]
        # lmerTest's df, numerical derivatives of them, are good to five digits.
        assert_allclose(own["estimate"], theirs, rtol=1e-3, atol=1e-6)
        F, q, df = (own[name].to_numpy() for name in ("statistic", "num_df", "den_df"))
        assert_allclose(F, r["F"], rtol=1e-5)
        assert_allclose(df, r["df"], rtol=2e-3)
        assert_allclose(own["estimate"], at(measure, F, q, df), rtol=1e-12)
        assert_allclose(at(measure, *map(np.array, (r["F"], r["q"], r["df"]))), theirs, rtol=1e-6)
    eta = table.loc["partial eta squared"].loc[r["terms"]]
    # Their noncentralities come from a search without derivatives.
    assert_allclose(eta["conf_low"], r["eta"]["CI_low"], atol=1e-3)
    assert_allclose(eta["conf_high"], r["eta"]["CI_high"], atol=1e-3)
    assert_allclose(
        greater.set_index("term").loc[r["terms"], "conf_low"], r["eta_greater"]["CI_low"], atol=1e-3
    )
    assert (greater["conf_high"] == 1.0).all()


def at(measure: str, F: Any, q: Any, df: Any) -> Any:
    """The definitions, written another way."""
    if measure == "eta":
        return 1.0 - df / (q * F + df)
    more = 1.0 if measure == "omega" else 0.0
    return np.maximum(0.0, (q * F - q) / (q * F + df + more))


@pytest.mark.parametrize(
    ("i", "j"), [(i, j) for i, m in enumerate(stored()["models"]) for j in range(len(m["d"]))]
)
def test_effect_sizes_of_means_are_those_of_emmeans(i: int, j: int) -> None:
    r = stored()["models"][i]["d"][j]
    ddf = {"satterthwaite": "satterthwaite", "kenward-roger": "kr"}[r["ddf"]]
    comparisons = stored_model(i).emmeans(r["specs"], ddf=ddf).contrasts(adjust="none")
    found = comparisons.effect_size(sigma=r["sigma"], edf=r["edf"])
    table = found.to_frame()
    assert list(table["contrast"]) == list(np.atleast_1d(r["contrast"]))
    assert_allclose(table["estimate"], r["estimate"], rtol=1e-6)
    assert_allclose(table["std_error"], r["se"], rtol=1e-6)
    # emmeans takes the least df of the two means; here they are those of the difference.
    assert_allclose(table["df"], r["pair_df"], rtol=2e-3)
    half = scipy.stats.t.ppf(0.975, table["df"]) * table["std_error"]
    assert_allclose(table["conf_low"], table["estimate"] - half)
    assert (found.sigma, found.edf) == (r["sigma"], r["edf"])


# --- Cohen's d ------------------------------------------------------------------------------------


def test_the_standard_deviation_is_stated() -> None:
    m = fitted_model("cake")
    comparisons = m.emmeans("recipe").contrasts()
    total = comparisons.effect_size()
    v = m.r2().variances
    assert_allclose(total.sigma**2, v.given_fixed, rtol=1e-12)
    assert f"in units of {total.sigma:.4g}, the standard deviation of a response" in repr(total)
    assert f"with {total.edf:.1f} degrees of freedom" in repr(total)
    assert "not adjusted" in total._repr_html_()
    residual = comparisons.effect_size("residual", level=0.8)
    assert_allclose(residual.sigma, m.sigma)
    assert_allclose(residual.to_frame()["estimate"], comparisons.to_frame()["estimate"] / m.sigma)
    known = comparisons.effect_size(2)
    assert "taken as known" in repr(known)
    assert_allclose(known.to_frame()["std_error"], comparisons.estimates.se / 2.0)
    again = pickle.loads(pickle.dumps(total))
    pd.testing.assert_frame_equal(again.to_frame(), total.to_frame())


def test_effect_sizes_of_contrasts_and_of_means_agree() -> None:
    m = stored_model(0)
    pairs = m.emmeans("a").contrasts().effect_size("residual").to_frame()
    own = m.effect_size({"low - mid": {"amid": -1}, "low - high": {"ahigh": -1}}, "residual")
    assert_allclose(own.to_frame().iloc[:, 1:], pairs.iloc[:2, 1:], rtol=1e-8)
    named = m.effect_size(["amid", "x"], edf=20, level=0.5).to_frame()
    assert list(named["contrast"]) == ["amid", "x"]


@pytest.mark.parametrize("name", ["total", "residual"])
@pytest.mark.parametrize("model", ["sleepstudy_intercept", "threelevel"])
def test_degrees_of_freedom_of_the_standard_deviation(model: str, name: str) -> None:
    """``2 v^2 / Var(v)``, the derivatives of v as quotients of differences."""
    fit = fitted_model(model).fit
    terms = fit.frame.terms
    columns = [term.n_columns for term in terms]

    def variance(parameters: Any) -> float:
        *theta, sigma = parameters
        if name == "residual":
            return float(sigma**2)
        factors = theta_to_T(np.array(theta), columns)
        random = sum(
            np.sum((term.z @ T) ** 2) / fit.nobs for term, T in zip(terms, factors, strict=True)
        )
        return float(sigma**2 * (1.0 + random))

    at = np.append(fit.theta, fit.sigma)
    steps = np.diag(1e-6 * np.maximum(np.abs(at), 1.0))
    gradient = [(variance(at + h) - variance(at - h)) / (2.0 * h.sum()) for h in steps]
    satterthwaite = satterthwaite_of(fit)
    natural = np.array(gradient) @ satterthwaite.curvature.directions
    spread = natural @ satterthwaite.natural_covariance @ natural
    value, df, _ = _scale(fit, name)
    assert_allclose(value**2, variance(at), rtol=1e-10)
    assert_allclose(df, 2.0 * variance(at) ** 2 / spread, rtol=1e-5)


@pytest.mark.parametrize(
    ("formula", "count"),
    [
        ("Reaction ~ Days + (Days | Subject)", 300),
        pytest.param(
            "Reaction ~ Days + cs(0 + factor(Days > 4) | Subject)", 200, marks=pytest.mark.slow
        ),
    ],
)
def test_degrees_of_freedom_are_those_of_drawn_responses(formula: str, count: int) -> None:
    m = me.lmer(formula, me.load_dataset("sleepstudy"))
    value, df, _ = _scale(m.fit, "total")
    boot = m.bootstrap(count, seed=2, statistic=lambda b: {"v": _scale(b.fit, "total")[0] ** 2})
    assert 0.7 < df / (2.0 * value**4 / boot.draws["v"].var()) < 1.45


def test_residual_degrees_of_freedom_are_exact_where_known() -> None:
    """In a balanced one-way layout sigma^2 has n - l degrees of freedom."""
    m = fitted_model("dyestuff")
    assert_allclose(_scale(m.fit, "residual")[1], 24.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": "pooled"}, "sigma 'pooled' is not known"),
        ({"sigma": 0}, "sigma must be positive"),
        ({"sigma": None}, "sigma must be a finite number"),
        ({"edf": 0}, "edf must be a positive number"),
        ({"edf": "many"}, "edf must be a positive number"),
        ({"level": 2}, "level must lie"),
    ],
)
def test_options_of_effect_sizes_that_are_none(options: dict[str, Any], message: str) -> None:
    with pytest.raises(me.ModelError, match=message):
        fitted_model("cake").emmeans("recipe").contrasts().effect_size(**options)


# --- shares of terms ------------------------------------------------------------------------------


@pytest.mark.parametrize("F", [0.01, 0.9, 4.0, 60.0])
@pytest.mark.parametrize(("q", "df"), [(1, 9.3), (3, 200.0)])
def test_noncentralities_have_the_tails_asked_for(F: float, q: int, df: float) -> None:
    low, high = noncentrality_bounds(F, q, df, 0.05)
    assert 0.0 <= low <= high
    for value, tail in ((low, 0.95), (high, 0.05)):
        if value > 0.0:
            assert_allclose(scipy.stats.ncf.cdf(F, q, df, value), tail, rtol=1e-6)
        else:
            assert scipy.stats.f.cdf(F, q, df) <= tail


def test_measures_of_terms() -> None:
    m = fitted_model("cake")
    table = m.anova_effect_sizes(["omega", "eta"], ddf="kr")
    assert list(table["measure"].unique()) == ["partial omega squared", "partial eta squared"]
    assert list(table.columns[:5]) == ["term", "measure", "estimate", "conf_low", "conf_high"]
    recipe = table[table["term"] == "recipe"]
    assert recipe["estimate"].iloc[0] == 0.0
    assert recipe["conf_high"].nunique() == 1
    assert (recipe["conf_high"] > 0.05).all()
    inside = (table["conf_low"] <= table["estimate"]) & (table["estimate"] <= table["conf_high"])
    assert inside.all()


def test_terms_without_columns_have_no_shares() -> None:
    sleep = me.load_dataset("sleepstudy")
    m = me.lmer("Reaction ~ Days + I(2 * Days) + (1 | Subject)", sleep)
    table = m.anova_effect_sizes().set_index("term")
    assert table.loc["I(2 * Days)", ["estimate", "conf_low", "conf_high"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ddf": "inf"}, "with ddf='inf' there are none"),
        ({"measures": "gamma"}, "measure 'gamma' is not known"),
        ({"alternative": "less"}, "alternative 'less' is not known"),
        ({"type": 4}, "type 4 is not known"),
    ],
)
def test_options_of_shares_that_are_none(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(me.ModelError, match=message):
        fitted_model("cake").anova_effect_sizes(**arguments)


# --- shares by level ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ a + x + z + (1 | g)",
        "y ~ x * z + (x | g)",
        "y ~ x + (x || g)",
        "y ~ 0 + x + (1 | g)",
    ],
)
def test_shares_by_level_are_their_definitions(formula: str) -> None:
    m = me.lmer(formula, drawn(), weights="w")
    table = m.r2_by_level().set_index("source")
    r2 = m.r2()
    assert_allclose(table.loc[["f1", "f2"], "total"].sum(), r2.marginal, rtol=1e-10)
    assert_allclose(1.0 - table.loc["e", "total"], r2.conditional, rtol=1e-10)
    g = drawn()["g"].to_numpy()
    same = (g[:, None] == g[None, :]) / 5.0
    n = len(g)
    fixed = m.X @ m.fixef.to_numpy()
    assert_allclose(table.loc["f1", "variance"], np.sum((fixed - same @ fixed) ** 2) / (n - 1))
    assert_allclose(table.loc["f2", "variance"], np.var(same @ fixed) * n / (n - 1))
    random = m.V.sparse().toarray() - m.R.sparse().toarray()
    # With J averaging over clusters: tr((I - J) Z G Z' (I - J)) / n is what slopes make within.
    within = np.eye(n) - same
    assert_allclose(table.loc["v", "variance"], np.trace(within @ random @ within) / n, atol=1e-10)
    assert_allclose(table.loc["m", "variance"], np.trace(same @ random @ same) / n, rtol=1e-8)
    for level in ("within", "between", "total"):
        assert_allclose(table[level].sum(), 1.0)
    assert table["within"].isna().tolist() == [False, True, False, True, False]


def test_shares_by_level_need_one_grouping_factor() -> None:
    with pytest.raises(me.ModelError, match="defined for two levels"):
        fitted_model("threelevel").r2_by_level()


# --- standardised coefficients --------------------------------------------------------------------


def test_a_refit_is_the_fit_of_standardised_columns() -> None:
    data = drawn()
    by_hand = data.assign(
        **{c: (data[c] - data[c].mean()) / data[c].std() for c in ("x", "z", "y")}
    )
    formula = "y ~ a * x + poly(z, 2) + I(x^2) + (x | g)"
    own = me.lmer(formula, by_hand).coef_table(ddf="kr")
    table = me.lmer(formula, data).standardize(ddf="kr")
    assert_allclose(table["estimate"], own["Estimate"], rtol=1e-5, atol=1e-7)
    assert_allclose(table["std_error"], own["Std. Error"], rtol=1e-5)


def test_refits_keep_what_was_asked_for() -> None:
    data = drawn().assign(day=drawn()["r"], gone=lambda d: d["x"].mask(d["r"] == 2))
    m = me.lmer(
        "log(y + 20) ~ gone + factor(day) + between + (1 | g)",
        data,
        reml=False,
        contrasts={"between": "sum"},
    )
    table = m.standardize()
    assert list(table["term"]) == list(m.fixef.index)
    used = data.dropna()
    by_hand = used.assign(
        y=scipy.stats.zscore(np.log(used["y"] + 20), ddof=1),
        gone=scipy.stats.zscore(used["gone"], ddof=1),
    )
    own = me.lmer(
        "y ~ gone + factor(day) + between + (1 | g)",
        by_hand,
        reml=False,
        contrasts={"between": "sum"},
    )
    assert_allclose(table["estimate"], own.fixef, rtol=1e-5)
    robust = m.standardize(vcov="CR2", cluster=data["g"].to_numpy())
    assert_allclose(robust["std_error"], own.coef_table(vcov="CR2")["Std. Error"], rtol=1e-4)
    raw = m.standardize(include_response=False)
    ratio = np.log(used["y"] + 20).std()
    assert_allclose(raw["estimate"][1:], table["estimate"][1:] * ratio, rtol=1e-5)


@pytest.mark.parametrize(
    ("formula", "method", "message"),
    [
        ("y ~ x + (1 | g)", "smart", "method 'smart' is not known"),
        ("y ~ log(x + 9) + (1 | g)", "refit", r"the formula has log\(\) of 'x'"),
        ("y ~ I(x > 4) + (1 | g)", "refit", "a comparison, > of 'x'"),
        ("y ~ I(x - 4) * z + (1 | g)", "refit", r"a shift by 4 of 'x'.*center\(\)"),
        ("y ~ x + (1 + I((x + 2) / 3) | g)", "refit", "a shift by 2 of 'x'"),
        ("y ~ x + offset(z) + (1 | g)", "refit", "with an offset"),
        ("y ~ r + factor(r) + (1 | g)", "refit", "'r' is a number in one part"),
        ("y ~ x + (1 | g) + (1 | r)", "pseudo", "needs one grouping factor"),
    ],
)
def test_what_cannot_be_standardised(formula: str, method: str, message: str) -> None:
    m = me.lmer(formula, drawn())
    with pytest.raises(me.ModelError, match=message):
        m.standardize(method)


def test_no_variance_between_clusters() -> None:
    flat = drawn().assign(y=lambda d: d["y"] - d.groupby("g")["y"].transform("mean"))
    m = me.lmer("y ~ z + x + (1 | g)", flat)
    with pytest.raises(me.ModelError, match="does not vary between clusters"):
        m.standardize("pseudo")
    assert np.isfinite(me.lmer("y ~ x + (1 | g)", flat).standardize("pseudo")["estimate"][1])


# --- the page -------------------------------------------------------------------------------------


def test_the_page_runs() -> None:
    page = (Path(__file__).parents[1] / "docs" / "effect-sizes.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for code in re.findall(r"^```\{code-cell\} ipython3\n(.*?)^```$", page, re.M | re.S):
        exec(compile(code, "docs/effect-sizes.md", "exec"), names)
    assert names["classes"].effect_size().to_frame()["estimate"].abs().max() < 1.0
