"""What a user reads and stores of fits whose residuals have a covariance structure."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import mixedeffects as me
from mixedeffects.cli import main
from mixedeffects.display.residual_text import ResidualBlock
from mixedeffects.fitting.residual_parameters import logarithm_of
from test_residual_inference import FOLDER, REFERENCES, data_of, fev, fitted

PARAMETERS: dict[str, Any] = json.loads((FOLDER / "parameters.json").read_text())
#: A search stops at a predicted decrease of 1e-10 of the criterion.
CLOSE = 3e-5

#: The factor of ``variance=``, where there is one.
FACTORS = {
    "bodyweight_slopes_vardiet": "Diet",
    "crossed_ar1_het": "block",
    "insteval_varservice": "service",
    "ortho_intercept_varsex": "Sex",
}


def expected_parameters(name: str) -> dict[str, float]:
    """What the stored answer has, by the names here; sigma last."""
    own, sigma = PARAMETERS[name]["residual_parameters"], PARAMETERS[name]["sigma"]
    out: dict[str, float] = {}
    if "PBO" in own:
        for arm, part in own.items():
            out |= {f"sd_{arm}:{visit}": sd for visit, sd in part["sd"].items()}
        for arm, part in own.items():
            out |= _pairs(list(part["sd"]), part["correlation"], f"{arm}:")
        del out["sd_PBO:VIS1"]
    else:
        prefix = FACTORS.get(name, "")
        for level, sd in list(own.get("sd", {}).items())[1:]:
            out[f"sd_{prefix}{level}"] = sd
        if "power" in own:
            out["power_pressure"] = own["power"]
        if "correlation" in own:
            out |= _pairs(list(own["sd"]), own["correlation"], "")
        cor = own.get("cor", own.get("cor_by_lag"))
        if isinstance(cor, dict):
            out |= {f"cor_{stratum}": value for stratum, value in cor.items()}
        elif isinstance(cor, list) and name == "fev_adh":
            visits = list(own["sd"])
            out |= {f"cor_{visits[t + 1]}.{visits[t]}": value for t, value in enumerate(cor)}
        elif isinstance(cor, list):
            out |= {f"cor_lag{h}": value for h, value in enumerate(cor, start=1)}
        elif cor is not None:
            out["cor"] = cor
        out |= {key: own[key] for key in ("range", "nugget") if key in own}
    return {f"{key}|Residual": value for key, value in out.items()} | {"sigma": sigma}


def _pairs(names: list[str], C: list[list[float]], head: str) -> dict[str, float]:
    return {
        f"cor_{head}{names[i]}.{names[j]}": C[i][j] for i in range(len(names)) for j in range(i)
    }


# --- parameters -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_by_name(name: str) -> None:
    m, expected = fitted(name), expected_parameters(name)
    found = m.covariance_parameters
    of_residuals = found[[key for key in found.index if key in expected or "|Residual" in key]]
    assert list(of_residuals.index) == list(expected)
    assert_allclose(of_residuals.to_numpy(), list(expected.values()), rtol=CLOSE, atol=1e-5)
    # One for each that is estimated, sigma included.
    assert len(found) == m.n_parameters - len(m.fixef)


@pytest.mark.parametrize("name", ["fev_us", "ovary_car1", "bodyweight_slopes_vardiet"])
def test_tidy_has_every_standard_deviation(name: str) -> None:
    m = fitted(name)
    rows = m.tidy("ran_pars")
    own = rows[rows["group"] == "Residual"].set_index("term")["estimate"]
    assert list(own) == pytest.approx(list(m.R.parameters))
    assert own.iloc[0] == pytest.approx(m.sigma)
    first = {"fev_us": "sd__VIS1", "ovary_car1": "sd__Observation"}.get(name, "sd__Diet1")
    assert own.index[0] == first
    other = {"fev_us": "cor__VIS2.VIS1", "ovary_car1": "range"}.get(name, "sd__Diet2")
    assert other in own.index


@pytest.mark.parametrize(
    ("name", "what"),
    [("log(age)", "age"), ("log(a + 1)", "a + 1"), ("log(a):b", None), ("log(a)b)", None)],
)
def test_what_a_column_is_the_logarithm_of(name: str, what: str | None) -> None:
    assert logarithm_of(name) == what


# --- the summary ------------------------------------------------------------------------------


def test_an_autoregression_below_the_random_effects() -> None:
    text = str(fitted("ovary_diag_ar1"))
    assert text.startswith("Linear mixed model fit by REML.")
    assert (
        "Residual covariance: ar1 in t within Mare (11 series, 25 to 31 rows)\n"
        "  Std.Dev. 3.507  cor 0.572\n"
        "Number of obs: 308, groups:  Mare, 11\n"
    ) in text
    # The standard deviation is told once.
    assert " Residual " not in text.split("Residual covariance")[0]


def test_a_free_covariance_without_random_effects() -> None:
    text = str(fitted("fev_us"))
    assert text.startswith("Generalized least squares fit by REML.")
    assert "Random effects" not in text
    assert (
        "Residual covariance: us in AVISIT within USUBJID (197 groups, 2.7 of 4 times)\n"
        " AVISIT Std.Dev. Corr\n"
        " VIS1   6.368\n"
        " VIS2   5.155    0.439\n"
        " VIS3   3.860    0.202 0.140\n"
        " VIS4   9.775    0.215 0.148 0.024\n"
        "Number of obs: 537\n"
    ) in text


def test_variances_of_the_levels_of_a_factor() -> None:
    text = str(fitted("bodyweight_slopes_vardiet"))
    assert "Residual variance by Diet: Std.Dev. 1: 3.645  2: 4.276  3: 5.859\n" in text
    text = str(fitted("crossed_ar1_het"))
    assert "(24 series, 16 rows)\n  cor 0.530\n" in text
    assert "Residual variance by block: Std.Dev. first: 0.9834  second: 1.709\n" in text


def test_the_power_of_a_covariate() -> None:
    text = str(fitted("dialyzer_ar1_varpower"))
    assert (
        "Residual variance by log(pressure): power of pressure 0.5182\n"
        "  (Std.Dev. is that where pressure is 1)\n"
    ) in text


def test_strata_and_heterogeneous_structures() -> None:
    assert (" Sex    Std.Dev. cor\n Male   2.281    0.470\n Female 2.114    0.868\n") in str(
        fitted("ortho_cs_by_sex_ml")
    )
    assert (
        "Residual covariance: heterogeneous ar1 in AVISIT within USUBJID\n"
        "  (197 series, 2.7 of 4 times)\n"
        "  cor 0.367\n AVISIT Std.Dev.\n VIS1    9.420\n"
    ) in str(fitted("fev_ar1h"))
    assert " ARMCD AVISIT Std.Dev. Corr\n PBO   VIS1   10.523\n" in str(fitted("fev_us_by_arm"))
    assert "Std.Dev. 7.665  range 10.7  nugget 0.261\n" in str(fitted("wheat2_gau_nugget"))
    assert "cor lag 1: 0.429  cor lag 2: 0.023  cor lag 3: -0.266\n" in str(fitted("fev_toep"))


@pytest.mark.parametrize("name", REFERENCES)
def test_every_line_fits(name: str) -> None:
    m = fitted(name)
    shown = [*str(m.varcorr).splitlines(), *str(m.summary()).splitlines()]
    assert not [line for line in shown if len(line) > 80 and not line.startswith("Formula: ")]


def test_other_renderings_have_the_same_cells() -> None:
    summary = fitted("fev_us").summary()
    heading = "Residual covariance: us in AVISIT within USUBJID (197 groups, 2.7 of 4 times)"
    assert f"<h4>{heading}</h4>" in summary.to_html()
    assert f"#### {heading}" in summary.to_markdown()
    assert "VIS4 & 9.775 & 0.215 & 0.148 & 0.024" in summary.to_latex()
    varcorr = fitted("ovary_diag_ar1").varcorr
    for text in (varcorr.to_html(), varcorr.to_markdown(), varcorr.to_latex()):
        # Two blanks would be one where text is set.
        assert "Std.Dev. 3.507, cor 0.572" in text


def test_a_long_heading_and_a_long_line_are_broken() -> None:
    block = ResidualBlock("Residual covariance: " + "x" * 50 + " (12 groups, 4 times)")
    assert block.to_text(80).splitlines()[1] == "  (12 groups, 4 times)"
    lines = ResidualBlock("a", ("  ".join(f"cor lag {h}: 0.5" for h in range(1, 12)),))
    shown = lines.to_text(80).splitlines()
    assert len(shown) == 4 and all(len(line) <= 80 for line in shown)
    # A value stays beside its name.
    assert not any(line.endswith(("lag", ":")) for line in shown)


def test_a_known_standard_deviation_is_told() -> None:
    data = pd.DataFrame({"y": [0.1, 0.4, -0.2, 0.6, 0.3], "vi": [0.1, 0.2, 0.1, 0.3, 0.2]})
    m = me.lmer("y ~ 1", data, weights="1 / vi", sigma=1)
    assert "Residual variance: Std.Dev. 1, known\n" in str(m)
    assert m.to_dict()["residual"]["sigma_known"] is True
    sentences = str(m.describe())
    assert "The residual standard deviation was known, 1." in sentences
    assert "The estimates for the residuals" not in sentences


def test_a_known_covariance_is_told() -> None:
    m = fitted("berkey_known_V")
    assert "Residual covariance: known (5 groups, 2 rows)\n  Std.Dev. 1, known\n" in str(m)
    assert "The covariance of the residuals was given as a matrix." in str(m.describe())


# --- tables, sentences, documents -------------------------------------------------------------


def test_estimates_table() -> None:
    table = me.etable([fitted("ovary_car1"), fitted("fev_us")])
    text = str(table)
    assert re.search(r"Residual: range +0\.094\n", text)
    assert re.search(r"Residual: SD VIS1 +6\.368\n", text)
    assert re.search(r"Residual: corr\. VIS1, VIS2 +0\.439\n", text)
    # The second has no random effects, and so no share of the variance.
    assert re.search(r"ICC +0\.368\n", text) and "NaN" not in text
    alone = str(me.etable(fitted("fev_us")))
    assert "Random effects" not in alone and "ICC" not in alone and "R2 marginal" in alone


def test_maketables_keys() -> None:
    m = fitted("fev_us")
    keys = m.__maketables_default_stat_keys__
    assert "icc" not in keys and "Residual: SD" not in keys
    assert m.__maketables_stat__("icc") is None
    assert m.__maketables_stat__("Residual: SD VIS2") == pytest.approx(5.155, abs=1e-3)
    plain = fitted("ovary_car1")
    assert "Residual: SD" in plain.__maketables_default_stat_keys__
    assert plain.__maketables_stat__("Residual: range") == pytest.approx(0.0940, abs=1e-4)


def test_sentences() -> None:
    text = str(fitted("fev_us").describe())
    assert text.startswith("A linear model with structured residuals of FEV1 was fitted by ")
    assert "537 observations in 197 levels of USUBJID" in text
    assert "The covariance of the residuals was us(AVISIT | USUBJID)." in text
    assert "SD VIS1 = 6.37, SD VIS2 = 5.15" in text and "r VIS3 and VIS4 = .02." in text
    assert "intraclass" not in text
    text = str(fitted("dialyzer_ar1_varpower").describe())
    assert "SD = 3.05, the power of pressure = 0.52 and r = .75." in text


def test_documents() -> None:
    m = fitted("crossed_ar1_het")
    document = json.loads(m.to_json() or "")
    own = document["residual"]
    assert (own["structure"], own["variance"]) == ("ar1(trial | subj)", "block")
    assert own["sigma_known"] is False
    assert own["parameters"] == pytest.approx(m.R.parameters.to_dict())
    assert document["covariance_parameters"] == pytest.approx(m.covariance_parameters.to_dict())
    assert document["optimum"]["limits"] == []
    sleep = me.lmer("Reaction ~ Days + (1 | Subject)", me.load_dataset("sleepstudy"))
    assert sleep.to_dict()["residual"] is None


def test_the_report_has_the_structure_and_code_that_fits_it(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name, title in (("fev_us", "Generalized least squares"), ("crossed_ar1_het", "Linear")):
        html = fitted(name).report(tmp_path / "r.html").read_text(encoding="utf-8")
        assert f"<title>{title}" in html and "not drawn" not in html
        assert ">Residual covariance<" in html
        assert "Picture of the correlations of the residuals" in html
        assert "Picture of the block of V of" in html
        own = REFERENCES[name]
        assert f"residual=&#x27;{own['residual']}&#x27;" in html
        assert (f"variance=&#x27;{own['variance']}&#x27;" in html) == bool(own["variance"])


def test_citations() -> None:
    assert me.cite(fitted("fev_us")).works == ("lme4", "reml", "residual", "satterthwaite")
    assert (
        "residual"
        not in me.cite(me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))).works
    )


# --- storage ----------------------------------------------------------------------------------

_READ = """
import pickle, sys
import numpy as np
with open(sys.argv[1], "rb") as file:
    m = pickle.load(file)
rows = m.frame.data.head(3)
print(repr([m.V.logdet(), *m.covariance_parameters, *m.coef_table()["df"], *m.predict(rows)]))
print(m)
"""


@pytest.mark.parametrize("name", ["fev_us", "crossed_ar1_het", "ovary_car1", "wheat2_exp"])
def test_pickles_in_another_process(name: str, tmp_path: Path) -> None:
    m, path = fitted(name), tmp_path / "m.pickle"
    path.write_bytes(pickle.dumps(m))
    command = [sys.executable, "-c", _READ, str(path)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    numbers, _, text = out.partition("\n")
    values = [float(x) for x in re.findall(r"-?\d+\.\d+(?:e[+-]\d+)?", numbers)]
    rows = m.frame.data.head(3)
    expected = [
        m.V.logdet(),
        *m.covariance_parameters,
        *m.coef_table()["df"],
        *np.asarray(m.predict(rows)),
    ]
    assert_allclose(values, expected, rtol=1e-8)
    assert text.strip() == str(m).strip()


# --- names of other packages ------------------------------------------------------------------


def test_components_of_lme4() -> None:
    m = fitted("ovary_diag_ar1")
    Lambda = m.getme("Lambda")
    assert_allclose((m.sigma**2 * Lambda @ Lambda.T - m.G.sparse()).toarray(), 0.0, atol=1e-9)
    assert list(m.getme("theta")) == pytest.approx(list(m.theta))
    for name in ("L", "RX", "u", "devfun"):
        with pytest.raises(me.ModelError, match="takes residuals to be independent"):
            m.getme(name)
    gls = fitted("fev_us")
    assert gls.getme("q") == 0 and gls.getme("X").shape == gls.X.shape and len(gls.theta) == 0
    for name in ("Z", "theta", "Lambda", "lower"):
        with pytest.raises(me.ModelError, match="no random effects"):
            gls.getme(name)


def test_every_component_is_given_or_refused() -> None:
    for m in (fitted("ovary_diag_ar1"), fitted("fev_us")):
        for name in m.getme_names():
            try:
                m.getme(name)
            except me.ModelError as error:
                assert name in str(error)


@pytest.mark.parametrize(
    ("argument", "value", "here"),
    [
        ("correlation", "corAR1(form = ~ week | id)", 'residual="ar1(week | id)"'),
        ("correlation", "corCompSymm(form = ~ 1 | id)", 'residual="cs(1 | id)"'),
        ("correlation", "corSymm(form = ~ v | id)", 'residual="us(v | id, hom = TRUE)"'),
        ("correlation", 3, 'residual="ar1(time | group)"'),
        ("repeated", "visit / subject=id type=un group=arm", 'residual="us(visit | id, by = arm)"'),
        ("repeated", "week / type=ar(1) subject=id", 'residual="ar1(week | id)"'),
        ("covariance", "us(AVISIT | USUBJID)", 'residual="us(AVISIT | USUBJID)"'),
        ("dispformula", "~ sex", 'variance="sex"'),
    ],
)
def test_arguments_of_other_packages(argument: str, value: Any, here: str) -> None:
    with pytest.raises(TypeError, match=re.escape(f"has no argument {argument!r} (")) as caught:
        me.lmer("y ~ x", {"y": [1.0]}, **{argument: value})
    assert str(caught.value).endswith(f"Here: {here}.")


@pytest.mark.parametrize(
    ("weights", "here"),
    [
        ("varIdent(form = ~ 1 | sex)", 'variance="sex"'),
        ("varPower(form = ~ age)", 'variance="log(age)"'),
        ("varExp(form = ~ age)", 'variance="age"'),
        ("varFixed(~ age)", 'weights="1 / age"'),
        ("varComb(varIdent(form = ~ 1 | sex), varExp(form = ~ age))", 'variance="sex + age"'),
        ("varPower()", "no likelihood of its own"),
        ("varPower(form = ~ fitted(.))", "no likelihood of its own"),
    ],
)
def test_variance_functions_of_nlme(weights: str, here: str) -> None:
    with pytest.raises(me.ModelError, match="is a variance function of nlme") as caught:
        me.lmer("y ~ x", {"y": [1.0]}, weights=weights)
    assert str(caught.value).endswith(f"{here}.")


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    fit = ["fit", "sleepstudy", "Reaction ~ Days"]
    assert main([*fit, "--residual", "ar1(Days | Subject)", "--variance", "Days"]) == 0
    out = capsys.readouterr().out
    assert "Residual covariance: ar1 in Days within Subject (18 series, 10 rows)" in out
    assert "Residual variance by Days: log Std.Dev. per Days" in out
    assert main([*fit, "--residual", "corAR1(form = ~ Days | Subject)"]) == 1
    assert "is `ar1(Days | Subject)` here" in capsys.readouterr().err
    assert main([*fit, "--sigma", "30", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sigma"] == pytest.approx(30.0)


# --- likelihoods without a maximum ------------------------------------------------------------


def limits_of(formula: str, data: pd.DataFrame, **options: Any) -> me.LinearMixedModel:
    with pytest.warns(me.ConvergenceWarning, match="has no maximum in this direction"):
        m = me.lmer(formula, data, **options)
    assert not m.optimum.converged and not m.optimum.certificate.holds
    (limit,) = m.optimum.limits
    assert limit.rstrip(".") in str(m.optimum.certificate) and limit in str(m.describe())
    assert f"criterion {m.criterion:.4f}" in limit
    assert "NO MAXIMUM: " in str(m)
    return m


def test_a_range_without_bound() -> None:
    residual = "exp(latitude + longitude | field, nugget = TRUE)"
    m = limits_of("yield ~ variety", data_of("wheat2_exp"), residual=residual)
    # 1067.216 at range 60, 1066.853 at 1000: the criterion falls towards 1066.837.
    assert m.criterion == pytest.approx(1066.8370, abs=1e-4)
    assert m.optimum.evaluations <= 40
    assert m.optimum.limits[0].startswith("`range|Residual` grows without bound (")
    assert "in proportion to the distance beside the nugget" in m.optimum.limits[0]


def random_walks(seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    parts = [
        pd.DataFrame({"g": str(g), "t": np.arange(40), "y": np.cumsum(rng.normal(size=40))})
        for g in range(3)
    ]
    return pd.concat(parts, ignore_index=True)


def test_a_random_walk() -> None:
    data = random_walks(0)
    m = limits_of("y ~ 0 + g", data, residual="ar1(t | g)")
    assert "`cor|Residual` goes to one" in m.optimum.limits[0]
    assert "a random walk within each group" in m.optimum.limits[0]
    # In the limit steps are independent: n - p of them, of one variance.
    steps = data.groupby("g")["y"].diff().dropna()
    limit = len(steps) * (np.log(2.0 * np.pi * float(np.mean(steps**2))) + 1.0)
    assert m.criterion == pytest.approx(limit, abs=1e-4)
    m = limits_of("y ~ 0 + g", data, residual="car1(t | g)")
    assert "`range|Residual` grows without bound" in m.optimum.limits[0]
    assert m.criterion == pytest.approx(limit, abs=1e-4)


def test_a_walk_that_comes_back_has_a_maximum() -> None:
    m = me.lmer("y ~ 0 + g", random_walks(1), residual="ar1(t | g)")
    assert m.optimum.limits == () and m.optimum.certificate.holds


def test_a_long_range_with_a_maximum_is_none() -> None:
    """A correlation near one in slow series, whose mean is known, is estimated."""
    rng = np.random.default_rng(2)
    parts = []
    for g in range(400):
        y = [rng.normal()]
        for _ in range(4):
            y.append(0.99 * y[-1] + np.sqrt(1 - 0.99**2) * rng.normal())
        parts.append(pd.DataFrame({"g": str(g), "t": np.arange(5.0), "y": y}))
    m = me.lmer("y ~ 1", pd.concat(parts), residual="car1(t | g)")
    # Ten times the largest distance, 4, is passed.
    assert m.covariance_parameters["range|Residual"] > 40.0
    assert m.optimum.limits == () and m.optimum.converged


def test_a_range_of_nothing() -> None:
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"x": np.linspace(0.0, 20.0, 60), "g": "a"})
    data["y"] = np.where(np.arange(60) % 2 == 0, 1.0, -1.0) + 0.3 * rng.normal(size=60)
    m = limits_of("y ~ 1", data, residual="exp(x | g)")
    assert "`range|Residual` goes to zero" in m.optimum.limits[0]
    s2 = float(data["y"].var())
    independent = 59.0 * (np.log(2.0 * np.pi * s2) + 1.0) + np.log(60.0)
    assert m.criterion == pytest.approx(independent, abs=1e-6)


def test_a_nugget_of_nothing() -> None:
    rng = np.random.default_rng(0)
    parts = []
    for g in range(5):
        x = np.sort(rng.uniform(0.0, 20.0, 30))
        C = np.exp(-np.abs(x[:, None] - x) / 3.0)
        y = np.linalg.cholesky(C) @ rng.normal(size=30)
        parts.append(pd.DataFrame({"g": str(g), "x": x, "y": y}))
    data = pd.concat(parts, ignore_index=True)
    m = limits_of("y ~ 1", data, residual="exp(x | g, nugget = TRUE)")
    assert "`nugget|Residual` goes to zero" in m.optimum.limits[0]
    without = me.lmer("y ~ 1", data, residual="exp(x | g)")
    assert m.criterion == pytest.approx(without.criterion, abs=1e-6)
    assert without.optimum.limits == ()


def test_rows_that_are_reproduced_exactly() -> None:
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"x": np.linspace(0.0, 20.0, 60), "s": ["a"] * 4 + ["b"] * 56})
    data["y"] = np.where(data["s"] == "a", 2.0 * data["x"] + 5.0, 3.0 * rng.normal(size=60))
    m = limits_of("y ~ x * s", data, variance="s")
    assert "`sd_sa|Residual` goes to zero" in m.optimum.limits[0]
    assert "whose rows it reproduces exactly" in m.optimum.limits[0]


def test_no_reference_has_a_limit() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert all(fitted(name).optimum.limits == () for name in REFERENCES)
    assert fev("cs(1 | USUBJID)").optimum.limits == ()


def test_correlations_of_times_by_stratum_with_one_variance_are_shown() -> None:
    """`hom = TRUE` with `by=`: the number of times was asked for as a truth value."""
    m = me.lmer(
        "distance ~ age",
        me.load_dataset("orthodont"),
        residual="us(age | Subject, hom = TRUE, by = Sex)",
    )
    text = str(m.varcorr)
    for name, value in m.R.parameters.items():
        assert f"{abs(value):.3f}" in text, name
    assert [line.split()[0] for line in text.splitlines() if re.match(r" (Fem|M)ale", line)] == [
        "Male",
        "Female",
    ]
