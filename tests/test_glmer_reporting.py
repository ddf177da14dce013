"""Tables, sentences and reports of generalized fits, and the command line."""

from __future__ import annotations

import functools
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mixedeffects as me
from mixedeffects.cli import main
from mixedeffects.inference.ratios import ratio_name

CBPP = "incidence / size ~ period + (1 | herd)"


@functools.cache
def herds(nagq: int = 1, link: str = "logit") -> me.GeneralizedLinearMixedModel:
    family = me.families.Binomial(link)
    return me.glmer(CBPP, me.load_dataset("cbpp"), family=family, weights="size", nagq=nagq)


@functools.cache
def ticks() -> me.GeneralizedLinearMixedModel:
    data = me.load_dataset("grouseticks")
    return me.glmer("TICKS ~ cHEIGHT + (1 | BROOD)", data, family="negative_binomial")


# --- ratios ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        (me.families.Binomial(), "odds ratio"),
        (me.families.Binomial("cloglog"), "hazard ratio"),
        (me.families.Binomial("log"), "risk ratio"),
        (me.families.Binomial("probit"), None),
        (me.families.Poisson(), "rate ratio"),
        (me.families.Poisson("sqrt"), None),
        (me.families.NegativeBinomial(), "rate ratio"),
        (me.families.Gamma(), "ratio of means"),
        (me.families.Gamma("inverse"), None),
        (me.families.Beta(), "odds ratio"),
        (None, None),
    ],
)
def test_names_of_ratios(family: Any, expected: str | None) -> None:
    assert ratio_name(family) == expected


def test_tidy_of_ratios() -> None:
    m = herds()
    plain, ratios = (
        m.tidy("fixed", level=0.9, exponentiate=each).set_index("term") for each in (False, True)
    )
    for name in ("estimate", "conf_low", "conf_high"):
        np.testing.assert_allclose(ratios[name], np.exp(plain[name]))
    np.testing.assert_allclose(ratios["std_error"], ratios["estimate"] * plain["std_error"])
    np.testing.assert_array_equal(ratios["p_value"], plain["p_value"])
    np.testing.assert_array_equal(
        m.tidy("ran_pars", exponentiate=True)["estimate"], m.tidy("ran_pars")["estimate"]
    )
    robust = m.tidy("fixed", vcov="CR1", exponentiate=True)["std_error"]
    np.testing.assert_allclose(robust, np.exp(m.fixef) * np.sqrt(np.diag(m.vcov("CR1"))))
    with pytest.raises(me.ModelError, match="link probit"):
        herds(link="probit").tidy(exponentiate=True)
    with pytest.raises(me.ModelError, match="exponentiate"):
        m.tidy(exponentiate="yes")  # type: ignore[arg-type]


# --- etable ----------------------------------------------------------------------------------


def test_several_fits_in_a_table() -> None:
    m, q = herds(), herds(9)
    table = me.etable([m, q])
    text = str(table)
    for words in ("binomial", "logit", "ML, Laplace", "ML, AGQ 9", "z-tests, from the joint"):
        assert words in text
    assert "Residual: SD" not in text
    frame = table.to_frame()
    for column, fit in zip(frame, (m, q), strict=True):
        for name in fit.fixef.index:
            own = frame[column].loc["Fixed effects"].loc[name]
            assert own["estimate"] == fit.fixef[name] and own["se"] == fit.se[name]
            assert own["z"] == fit.coef_table().loc[name, "z value"]
        assert frame.loc[("Fit", "AIC", "value"), column] == fit.aic
        assert frame.loc[("Fit", "ICC", "value"), column] == fit.icc().adjusted
    ratios = me.etable(m, exponentiate=True, statistic="ci")
    assert "Odds ratios: exponentiated coefficients" in str(ratios)
    own = ratios.to_frame()["(1)"]
    assert own[("Fixed effects", "period2", "upper")] == pytest.approx(
        np.exp(m.coef_table().loc["period2", "upper"])
    )


def test_beside_a_linear_model() -> None:
    sleep = me.lmer("Reaction ~ Days + (1 | Subject)", me.load_dataset("sleepstudy"))
    table = me.etable({"linear": sleep, "herds": herds(), "ticks": ticks()}, statistic="t")
    text = str(table)
    assert "gaussian" in text and "negative binomial" in text and "t and z values" in text
    assert "(2)" not in text and "linear: t-tests use Satterthwaite's method" in text
    frame = table.to_frame()
    assert frame.loc[("Random effects", "Family: theta", "estimate"), "ticks"] == ticks().fit.phi  # type: ignore[attr-defined]
    assert np.isnan(frame.loc[("Random effects", "Residual: SD", "estimate"), "ticks"])
    assert frame.loc[("Fixed effects", "Days", "df"), "linear"] > 100
    assert np.isnan(frame.loc[("Fixed effects", "period2", "df"), "herds"])
    with pytest.raises(me.ModelError, match="link identity"):
        me.etable([sleep, herds()], exponentiate=True)
    assert "CR1" in me.etable(herds(), vcov="CR1", output="text")


def test_maketables() -> None:
    m = ticks()
    table = m.__maketables_coef_table__
    assert list(table) == ["b", "se", "t", "p", "ci95l", "ci95u"]
    np.testing.assert_array_equal(table["t"], m.coef_table()["z value"])
    keys = m.__maketables_default_stat_keys__
    found = {key: m.__maketables_stat__(key) for key in keys}
    assert (found["family"], found["link"]) == ("negative_binomial", "log")
    assert found["method"] == "ML, Laplace" and found["aic"] == m.aic
    assert None not in found.values() and "Residual: SD" not in keys


# --- sentences -------------------------------------------------------------------------------


def test_sentences() -> None:
    text = str(herds().describe())
    for words in (
        "binomial with a logit link",
        "(Laplace's approximation)",
        "56 observations in 15 levels of herd",
        "The number of trials was size.",
        "period: χ²(3) = 24.95, p < .001 (type III).",
        "herd had random intercepts (SD = 0.64).",
    ):
        assert words in text
    assert "quadrature, 9 points" in str(herds(9).describe())
    assert "not accurate enough" not in text
    counts = str(ticks().describe(level=0.9))
    assert "rate ratio = 0.9750, 90% CI [0.9688, 0.9813], z = −6.52" in counts
    assert "theta was 3.27" in counts and "not accurate enough" not in counts
    assert "CR1" in str(ticks().describe(vcov="CR1"))
    probit = herds(link="probit").update("~ . - period").describe()
    assert "Intercept: b = " in str(probit) and "ratio" not in str(probit)
    with pytest.raises(me.ModelError, match="digits"):
        herds().describe(digits=0)


def test_sentences_on_two_levels_and_exposure() -> None:
    data = me.load_dataset("salamander").assign(hours=2.0)
    data["word"] = data["Mate"].map({0: "no", 1: "yes"}).astype("category")
    m = me.glmer("word ~ 1 + (1 | Female)", data, family="binomial")
    assert "A success was yes, a failure no." in str(m.describe())
    m = me.glmer("Mate ~ 1 + (1 | Female)", data, family="poisson", exposure="hours")
    assert "The logarithm of hours was an offset." in str(m.describe())


def test_what_to_cite() -> None:
    assert me.cite(herds()).works == ("lme4", "glmm")
    assert me.cite(herds(), vcov="CR1").works == ("lme4", "glmm", "white")
    assert "Pinheiro" in me.cite(herds()).to_bibtex()


def test_a_report(tmp_path: Path) -> None:
    path = ticks().report(tmp_path / "ticks.html", vcov="CR1", progress=False)
    html = path.read_text(encoding="utf-8")
    for words in (
        "Generalized linear mixed model of grouseticks",
        "negative_binomial (link: log), theta",
        "Rate ratios",
        "Chi-square tests of type 3",
        "Accuracy of the likelihood",
        "approximation holds",
        "quantile residuals",
        "working covariance, link scale",
        "family=me.families.NegativeBinomial(&#x27;log&#x27;)",
        "CR1 standard errors",
    ):
        assert words in html, words
    assert "not drawn" not in html and html.count("<img") >= 8
    with pytest.raises(me.ModelError, match="ddf"):
        ticks().report(tmp_path / "no.html", ddf="kr")


@pytest.mark.parametrize("written", ["incidence / size", "cbind(incidence, size - incidence)"])
def test_trials_stand_beside_rows(written: str, tmp_path: Path) -> None:
    data = me.load_dataset("cbpp")
    weights = "size" if "/" in written else None
    m = me.glmer(f"{written} ~ period + (1 | herd)", data, family="binomial", weights=weights)
    total, successes = (int(data[name].sum()) for name in ("size", "incidence"))
    said = f"{total} trials in 56 rows, {successes} of them successes"
    assert said in str(m.summary()) and said in str(m)
    html = m.report(tmp_path / "herds.html", progress=False).read_text(encoding="utf-8")
    assert said in html and "Prior weights" not in html
    assert "trials" not in str(ticks().summary())


def test_a_summary_skips_a_check_that_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    import mixedeffects.reporting.generalized_tables as tables

    monkeypatch.setattr(tables, "_MOST_POINTS", 10)
    m = herds().update()
    assert "quadrature" not in str(m.summary())
    m.laplace_check()
    assert "9-point quadrature" in str(m.summary())


# --- the command line ------------------------------------------------------------------------

FIT = ["fit", "cbpp", CBPP, "--family", "binomial", "--weights", "size"]


def test_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    html = tmp_path / "fit.html"
    assert main([*FIT, "--exponentiate", "--robust", "CR1", "--html", str(html)]) == 0
    out = capsys.readouterr().out
    for words in ("Family: binomial (link: logit)", "Trials: size", "0.37071", "CR1 covariance"):
        assert words in out
    assert html.exists()
    assert main([*FIT, "--link", "probit", "--nagq", "9", "--json"]) == 0
    d = json.loads(capsys.readouterr().out)
    assert (d["family"]["link"], d["family"]["nagq"]) == ("probit", 9)
    assert d["criterion"] == herds(9, "probit").criterion
    counts = ["fit", "cbpp", "incidence ~ period + (1 | herd)", "--family", "poisson"]
    assert main([*counts, "--exposure", "size"]) == 0
    assert "Exposure: size" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--family", "binom"], "Did you mean 'binomial'"),
        (["--nagq", "3"], "--nagq is for generalized models: say which --family"),
        (["--exposure", "size"], "--exposure is for generalized models"),
        (["--family", "poisson", "--ml"], "leave --ml out"),
        (["--family", "poisson", "--sigma", "2"], "--sigma is for linear models"),
        (["--family", "poisson", "--ddf", "kr"], "ddf='kr' is for linear mixed models"),
        (["--family", "poisson", "--link", "probit"], "Link of the poisson family"),
        (["--family", "gaussian"], "is a linear mixed model"),
    ],
)
def test_command_line_says_what_is_wrong(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "cbpp", "incidence ~ period + (1 | herd)", *options]) == 1
    assert message in capsys.readouterr().err


def test_double_bars_may_take_the_levels_of_a_factor_apart() -> None:
    rng = np.random.default_rng(2)
    data = pd.DataFrame({"g": np.repeat(np.arange(30), 8), "f": ["a", "b"] * 120})
    data["h"] = rng.choice(["u", "v"], 240)
    data["n"] = rng.poisson(np.exp(rng.normal(0.0, 0.5, 30)[data["g"]]))
    formula = "n ~ f + (f + h || g)"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", me.ConvergenceWarning)
        together = me.glmer(formula, data, family="poisson")
        apart = me.glmer(formula, data, family="poisson", double_bar="separate")
    said = " ".join(str(together.summary()).split())
    assert "`f` and `h` in `||` have correlated effects, as in lme4; glmer(..., double" in said
    assert apart.formula == "n ~ f + diag(f + h | g)"
    assert apart.n_parameters < together.n_parameters
    with pytest.raises(me.ModelError, match="double_bar"):
        me.glmer(formula, data, family="poisson", double_bar="apart")


def test_a_summary_names_standard_errors_that_are_not_the_models() -> None:
    cbpp = me.load_dataset("cbpp")
    m = me.glmer("incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size")
    assert "clustered" not in str(m.summary())
    said = " ".join(str(m.summary(vcov="CR1", cluster="herd")).split())
    assert "z-tests, CR1 standard errors clustered by herd (15)" in said
    assert "the covariances of the random effects taken as known" in " ".join(
        str(m.summary(vcov="conditional")).split()
    )


def test_a_description_counts_trials_and_successes() -> None:
    cbpp = me.load_dataset("cbpp")
    left = "cbind(incidence, size - incidence)"
    counted = "Of 842 trials 99 were successes."
    m = me.glmer(f"{left} ~ period + (1 | herd)", cbpp, family="binomial")
    assert f"Rows are of several trials. {counted}" in str(m.describe())
    m = me.glmer("incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size")
    assert f"The number of trials was size. {counted}" in str(m.describe())


def test_a_table_of_generalized_fits_alone_refuses_degrees_of_freedom() -> None:
    linear = me.lmer("incidence ~ period + (1 | herd)", me.load_dataset("cbpp"))
    with pytest.raises(me.ModelError, match="ddf='kr' is for linear mixed models"):
        me.etable(herds(), ddf="kr")
    assert "z-tests" in str(me.etable([herds(), linear], ddf="kr"))
