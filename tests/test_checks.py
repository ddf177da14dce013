"""m.check(): the verdicts of a careful analyst, on data that are right and on planted faults."""

from __future__ import annotations

import json
import re
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

import mixedeffects as me
from mixedeffects.cli import main
from mixedeffects.diagnostics import check_draws
from mixedeffects.diagnostics.check import CHECKS
from mixedeffects.diagnostics.check_design import principal_components, variance_inflation
from references import REFERENCE, fitted_model

R = json.loads((REFERENCE / "checks" / "checks.json").read_text())
LINE = "y ~ x + (1 | g)"


def drawn(
    seed: int, groups: int = 20, rows: int = 12, sd: float = 0.7
) -> tuple[pd.DataFrame, np.random.Generator]:
    """Groups with a covariate and a response in which nothing is wrong."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups), rows)
    x = rng.uniform(-1.0, 1.0, len(g))
    y = 5.0 + x + sd * rng.standard_normal(groups)[g] + rng.standard_normal(len(g))
    return pd.DataFrame({"y": y, "x": x, "g": [f"g{i:02}" for i in g]}), rng


def verdicts(checks: Any) -> dict[str, str]:
    return dict(zip(checks.to_frame()["check"], checks.to_frame()["verdict"], strict=True))


# --- data in which nothing is wrong ------------------------------------------------------


def crossed() -> me.LinearMixedModel:
    rng = np.random.default_rng(5)
    a, b = np.repeat(np.arange(20), 15), np.tile(np.arange(15), 20)
    y = rng.standard_normal(20)[a] + rng.standard_normal(15)[b] + rng.standard_normal(300)
    return me.lmer("y ~ 1 + (1 | a) + (1 | b)", {"y": y, "a": a.astype(str), "b": b.astype(str)})


RIGHT = {
    "groups": lambda: me.lmer(LINE, drawn(1)[0]),
    "by maximum likelihood": lambda: me.lmer(LINE, drawn(2)[0], reml=False),
    "crossed": crossed,
    "penicillin": lambda: fitted_model("penicillin"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_nothing_is_a_problem_where_nothing_is_wrong(name: str) -> None:
    checks = RIGHT[name]().check(draws=99)
    table = checks.to_frame()
    assert not (table["verdict"] == "problem").any()
    assert (table["p_value"].dropna() <= 0.05).sum() <= 1
    fine = table.loc[table["verdict"] == "fine", "advice"]
    assert fine.str.startswith("No sign").all()


# --- planted faults ----------------------------------------------------------------------


def test_skewed_residuals() -> None:
    data, rng = drawn(3)
    data["y"] += 2.0 * (rng.exponential(size=len(data)) - 1.0)
    checks = me.lmer(LINE, data).check(draws=99)
    found = verdicts(checks)
    assert found["normality: residuals"] == "problem"
    assert found["normality: g"] == found["linearity: x"] == found["spread: g"] == "fine"
    advice = checks.to_frame().set_index("check")["advice"]["normality: residuals"]
    assert "skewed to the right" in advice


def test_spread_that_differs_by_group() -> None:
    data, rng = drawn(4)
    wide = data["g"].isin(["g03", "g07", "g11"])
    data.loc[wide, "y"] += 2.5 * rng.standard_normal(int(wide.sum()))
    checks = me.lmer(LINE, data).check(draws=99)
    found = verdicts(checks)
    assert found["spread: g"] == "problem"
    assert found["linearity: x"] == found["influence: g"] == "fine"
    advice = checks.to_frame().set_index("check")["advice"]["spread: g"]
    assert re.search("most in g(03|07|11)", advice)


def test_spread_that_grows_with_the_fitted_values() -> None:
    data, rng = drawn(5, rows=20)
    data["y"] = 10.0 + 4.0 * data["x"] + rng.standard_normal(20)[data["g"].str[1:].astype(int)]
    data["y"] += (2.0 + 1.6 * data["x"]) * rng.standard_normal(len(data)) / 2.0
    checks = me.lmer(LINE, data).check("spread", draws=99)
    assert verdicts(checks)["spread: fitted values"] == "problem"
    assert "grows" in checks.to_frame()["advice"][0]


def test_quadratic_trend() -> None:
    data, _ = drawn(6)
    data["y"] += 1.5 * data["x"] ** 2
    m = me.lmer(LINE, data)
    checks = m.check(draws=99)
    found = verdicts(checks)
    assert found["linearity: x"] == "problem"
    assert found["spread: g"] == found["outliers"] == found["normality: g"] == "fine"
    assert "upwards" in checks.to_frame().set_index("check")["advice"]["linearity: x"]
    curve = me.lmer("y ~ x + I(x^2) + (1 | g)", data).check("linearity", draws=99)
    assert len(curve.to_frame()) == 0
    assert any("has a curve: x, I(x^2)" in note for note in curve.notes)


def test_gross_outlier() -> None:
    data, _ = drawn(7)
    data.index = [f"row {i}" for i in range(len(data))]
    data.loc["row 100", "y"] += 9.0
    checks = me.lmer(LINE, data).check(draws=99)
    found = verdicts(checks)
    assert found["outliers"] == "problem"
    assert checks.outliers.index.tolist() == ["row 100"]
    assert checks.outliers["p_value"].iloc[0] < 1e-8
    assert found["normality: residuals"] != "fine"


def test_influential_group() -> None:
    data, _ = drawn(8)
    own = data["g"] == "g04"
    data.loc[own, "x"] *= 4.0
    data.loc[own, "y"] -= 2.0 * data.loc[own, "x"]
    checks = me.lmer(LINE, data).check(["influence", "outliers"], draws=99)
    assert verdicts(checks)["influence: g"] == "problem"
    assert checks.cooks_distance["g"].index[0] == "g04"
    assert "lean on g04" in checks.to_frame().set_index("check")["advice"]["influence: g"]


def test_group_that_is_apart() -> None:
    data, _ = drawn(9)
    data.loc[data["g"] == "g05", "y"] += 8.0
    found = verdicts(me.lmer(LINE, data).check("normality", draws=99))
    assert found == {"normality: residuals": "fine", "normality: g": "problem"}


def test_autocorrelation_along_an_order() -> None:
    data, rng = drawn(10, rows=20)
    error = rng.standard_normal((20, 20))
    for t in range(1, 20):
        error[:, t] += 0.6 * error[:, t - 1]
    data["y"] = 1.0 + data["x"] + error.ravel()
    data["day"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(np.tile(np.arange(20), 20), "D")
    data = data.sample(frac=1.0, random_state=1)
    m = me.lmer(LINE, data)
    checks = m.check("autocorrelation", order="day", draws=99)
    assert verdicts(checks) == {"autocorrelation: day": "problem"}
    assert "too alike" in checks.to_frame()["advice"][0]
    by_values = m.check("autocorrelation", order=data["day"], by=data["g"], draws=99)
    assert by_values.to_frame()["value"][0] == checks.to_frame()["value"][0]
    # Nothing in any other order.
    other = m.check("autocorrelation", order=rng.permutation(400.0 * np.arange(400)), draws=99)
    assert verdicts(other) == {"autocorrelation: order": "fine"}


def test_ranks_where_the_responses_are_of_two_kinds() -> None:
    data, rng = drawn(11)
    data["y"] = data["x"] + np.sign(rng.standard_normal(len(data))) * 2.0
    data["y"] += 0.1 * rng.standard_normal(len(data))
    checks = me.lmer(LINE, data).check("simulation", draws=99)
    assert verdicts(checks) == {"simulation: ranks": "problem"}
    assert checks.ranks.between(0.0, 1.0).all()


# --- design and variances ----------------------------------------------------------------


def _r_data(name: str) -> pd.DataFrame:
    if name != "comparison":
        return me.load_dataset(name)
    data = pd.read_csv(REFERENCE / "comparison" / "comparison.csv")
    data["z"] = data["x"] + 0.3 * np.sin(np.arange(1, len(data) + 1))
    return data


@pytest.mark.parametrize("name", [name for name in R if name != "versions"])
def test_inflation_and_components_as_in_R(name: str) -> None:
    expected = R[name]
    m = me.lmer(expected["formula"], _r_data(expected["data"]))
    if expected["vif"]:
        table = variance_inflation(m.fit)
        assert table.index.tolist() == expected["vif"]["term"]
        assert_allclose(table["vif"], expected["vif"]["VIF"], rtol=2e-5)
        # performance takes the square root whatever the degrees of freedom.
        own = np.asarray(expected["vif"]["VIF"]) ** (1.0 / (2.0 * table["df"]))
        assert_allclose(table["se_factor"], own, rtol=2e-5)
    for group, reference in expected["rePCA"].items():
        own = principal_components(m.fit)[group]
        assert_allclose(own["sd"], np.atleast_1d(reference["sd"]), rtol=1e-4)
        assert_allclose(own["proportion"], np.atleast_1d(reference["proportion"]), rtol=1e-4)


def test_collinear_covariates() -> None:
    checks = me.lmer(R["collinear"]["formula"], _r_data("comparison")).check("collinearity")
    assert verdicts(checks) == {"collinearity": "problem"}
    assert "drop one, or combine them" in checks.to_frame()["advice"][0]


@pytest.mark.parametrize(("levels", "verdict"), [(4, "problem"), (8, "look"), (12, "fine")])
def test_few_levels(levels: int, verdict: str) -> None:
    assert verdicts(me.lmer(LINE, drawn(12, levels)[0]).check("levels"))["levels: g"] == verdict


def test_a_variance_of_zero_in_words() -> None:
    [advice] = fitted_model("dyestuff2").check("singularity").to_frame()["advice"]
    assert advice == "The variance of (1 | Batch) is zero: leave it out."
    data, rng = drawn(13, 12, 6)
    # Slopes more alike than the rows let them be.
    data["y"] -= data.groupby("g")["y"].transform("mean")
    data["y"] += rng.standard_normal(12).repeat(6)
    m = me.lmer("y ~ x + (x || g)", data)
    [advice] = m.check("singularity").to_frame()["advice"]
    if m.varcorr.to_frame().loc[lambda t: t["var1"] == "x", "sdcor"].iloc[0] < 1e-6:
        assert "The variance of (0 + x | g) is zero: leave it out." in advice
    assert m.check("singularity").components["g"]["proportion"].sum() == pytest.approx(1.0)


def test_a_correlation_of_one_in_words() -> None:
    star = me.load_dataset("star_sample")
    m = me.lmer("read ~ cltype + sx + (sx | sch/tch)", star)
    table = m.check("singularity").to_frame()
    assert (table["verdict"] == "look").all()
    assert "correlation of (Intercept) and sxF by sch is -1" in table["advice"][1]
    # || leaves the columns of a factor together.
    assert "||" not in table["advice"][1]
    assert "leave sxF out of (1 + sxF | sch)" in table["advice"][1]


def test_factors_that_are_nearly_the_same() -> None:
    rng = np.random.default_rng(14)
    school = np.repeat(np.arange(131), 8)
    klass = school.copy()
    klass[4:8], klass[20:24] = 131, 132
    y = rng.standard_normal(131)[school] + rng.standard_normal(len(school))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", me.ConvergenceWarning)
        m = me.lmer(
            "y ~ 1 + (1 | school) + (1 | klass)",
            {"y": y, "school": school.astype(str), "klass": klass.astype(str)},
        )
    table = m.check("grouping").to_frame().set_index("check")
    pair = table.loc["grouping: klass and school"]
    assert pair["verdict"] == "problem"
    assert pair["value"] == 2 / 133
    assert "Only 2 of the 133 levels of klass tell it from school (131)" in pair["advice"]
    nested = fitted_model("pastes").check("grouping").to_frame()
    assert set(nested["verdict"][:1]) == {"fine"}


# --- definitions -------------------------------------------------------------------------


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("held", [True, False])
def test_statistics_are_those_of_dense_algebra(
    reml: bool, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, rng = drawn(15, 8, 6)
    data["w"] = rng.uniform(0.5, 2.0, len(data))
    data["o"] = rng.standard_normal(len(data))
    m = me.lmer("y ~ x + offset(o) + (x | g)", data, weights="w", reml=reml)
    if held:
        monkeypatch.setattr(check_draws, "_REFITTED_ROWS", 0)
    checks = m.check(["linearity", "influence", "outliers", "simulation"], draws=19)
    value = checks.to_frame().set_index("check")["value"]
    V, X, r = m.V.dense(), m.X, data["y"] - data["o"]
    inverse = np.linalg.inv(V)
    P = inverse - inverse @ X @ np.linalg.solve(X.T @ inverse @ X, X.T @ inverse)
    q = data["x"].to_numpy() ** 2
    assert_allclose(value["linearity: x"], q @ P @ r / np.sqrt(q @ P @ q), rtol=1e-7)
    distances = m.influence("g").cooks_distance.sort_values(ascending=False)
    assert_allclose(checks.cooks_distance["g"]["cooks_d"], distances, rtol=1e-7)
    marginal = (r - X @ m.fixef.to_numpy()) / np.sqrt(np.diag(V))
    import scipy.stats

    assert_allclose(checks.ranks, scipy.stats.norm.cdf(marginal), rtol=1e-8)
    assert value["simulation: ranks"] == pytest.approx(
        scipy.stats.kstest(marginal, "norm").statistic
    )
    assert ("held" in checks.notes[0]) == held


def test_the_largest_residual_is_a_t_of_the_rows_without_it() -> None:
    data, _ = drawn(16, 6, 5)
    m = me.lmer(LINE, data)
    checks = m.check("outliers", draws=19, level=0.9)
    row = checks.outliers.index[0]
    # At the relative V of all rows, which deletion leaves as it is.
    rest = data.index != row
    V, X = m.V.dense(), m.X
    fit = me.gls(X[rest], m.y[rest], V[np.ix_(rest, rest)])
    left = m.y[rest] - X[rest] @ fit.coef.to_numpy()
    cross = V[np.ix_(~rest, rest)]
    inverse = np.linalg.inv(V[np.ix_(rest, rest)])
    error = m.y[~rest] - X[~rest] @ fit.coef.to_numpy() - cross @ inverse @ left
    slope = X[~rest] - cross @ inverse @ X[rest]
    variance = V[~rest][:, ~rest] - cross @ inverse @ cross.T
    variance = variance + slope @ np.linalg.inv(X[rest].T @ inverse @ X[rest]) @ slope.T
    scale = float(left @ inverse @ left) / (len(left) - X.shape[1])
    expected = float(error[0] / np.sqrt(variance[0, 0] * scale))
    assert checks.outliers["statistic"].iloc[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    "formula",
    [
        "Reaction ~ 0 + (1 | Subject)",
        "Reaction ~ 0 + Days + (1 | Subject)",
        "Reaction ~ poly(Days, 2) + (Days || Subject)",
        "Reaction ~ Days + cs(Days | Subject)",
        "Reaction ~ Days + diag(Days | Subject)",
    ],
)
def test_any_model_is_checked(formula: str) -> None:
    checks = me.lmer(formula, me.load_dataset("sleepstudy")).check(draws=19)
    table = checks.to_frame()
    assert table["value"].notna().all()
    assert set(table["verdict"]) <= {"fine", "look", "problem"}


def test_many_rows_are_sampled_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_draws, "_MOST_ROWS", 100)
    monkeypatch.setattr(check_draws, "_REFITTED_ROWS", 100)
    data, _ = drawn(17)
    data["t"] = np.arange(len(data))
    checks = me.lmer(LINE, data).check(order="t", draws=99)
    assert "Residuals were looked at in a sample of 100 of 240 rows." in checks.notes
    assert len(checks.ranks) == 100
    assert checks.plot(Figure().subplots(1, 5)).shape == (5,)


# --- the result --------------------------------------------------------------------------


def test_the_same_call_gives_the_same_answer() -> None:
    m = me.lmer(LINE, drawn(18)[0])
    first, again = (m.check(draws=39).to_frame() for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    other = m.check(draws=39, seed=2).to_frame()
    assert not other["p_value"].equals(first["p_value"])
    assert other["value"].equals(first["value"])


def test_text_table_and_html() -> None:
    checks = fitted_model("sleepstudy").check(order="Days", draws=99)
    text = str(checks)
    assert repr(checks) == text
    assert max(map(len, text.splitlines())) <= 80
    table = checks.to_frame()
    assert list(table) == [
        "check", "statistic", "value", "df", "p_value", "verdict", "advice",
    ]  # fmt: skip
    assert table["check"].is_unique
    html = checks._repr_html_()
    for name in table["check"]:
        assert name in text
        assert name in html
    assert "no proof that the model is right" in " ".join(text.split())
    assert checks.verdict("outliers") == "problem"
    assert checks.verdict("levels") == checks.verdict("levels: Subject") == "fine"


def test_names_are_escaped_in_html() -> None:
    data, _ = drawn(19, 6, 4)
    data = data.rename(columns={"g": "<b>g"})
    checks = me.lmer("y ~ x + (1 | `<b>g`)", data).check("levels")
    assert "<b>g" not in checks.to_html()


def test_pictures() -> None:
    m = fitted_model("penicillin")
    axes = m.plot("checks", draws=19, ax=Figure().subplots(2, 4).ravel()[:7])
    titles = [ax.get_title("left").strip() for ax in axes]
    assert titles[:4] == [
        "Residuals", "Effects of plate: (Intercept)", "Effects of sample: (Intercept)",
        "Ranks among responses drawn",
    ]  # fmt: skip
    with pytest.raises(me.ModelError, match="have no picture"):
        m.check("levels").plot()


def test_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["fit", "dyestuff", "Yield ~ 1 + (1 | Batch)", "--check"]
    assert main(arguments) == 0
    assert "levels: Batch" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {each["verdict"] for each in document["checks"]} == {"fine", "look"}
    assert main([*arguments[:3], "--check-order", "Batch"]) == 1
    assert "--check-order says along what" in capsys.readouterr().err


# --- what is refused ---------------------------------------------------------------------


def test_names_are_known() -> None:
    m = fitted_model("dyestuff")
    with pytest.raises(me.ModelError, match="Did you mean 'outliers'"):
        m.check("outlier")
    with pytest.raises(me.ModelError, match="which is empty"):
        m.check([])
    assert m.check(["levels", "outliers"], draws=19).to_frame()["check"].tolist() == [
        "outliers",
        "levels: Batch",
    ]
    assert len(CHECKS) == 11


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"draws": 10}, me.ModelError, "draws must be at least 19"),
        ({"draws": 0}, me.ModelError, "positive whole number"),
        ({"level": 1.0}, me.ModelError, "between 0 and 1"),
        ({"seed": -1}, me.ModelError, "seed must be a whole number"),
        ({"by": "g"}, me.ModelError, "give order= too"),
        ({"which": "autocorrelation"}, me.ModelError, "order= names a column"),
        ({"order": "g"}, me.DataError, "The order 'g' holds"),
        ({"order": "nothing"}, me.DataError, "no column `nothing`"),
        ({"order": "x", "by": "row"}, me.ModelError, "No two rows share a level of row"),
        ({"order": "gap"}, me.DataError, "has 1 missing values in the rows used"),
    ],
)
def test_arguments_are_checked(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    data, _ = drawn(20, 6, 5)
    data["row"] = [f"r{i}" for i in range(len(data))]
    data["gap"] = np.where(np.arange(len(data)) == 3, np.nan, 1.0)
    with pytest.raises(error, match=message):
        me.lmer(LINE, data).check(**options)


def test_the_order_of_visits_is_that_of_patients_not_of_centres() -> None:
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"patient": np.repeat(np.arange(40), 4), "visit": np.tile(range(4), 40)})
    data["centre"] = data["patient"] // 8
    data["y"] = rng.normal(size=40)[data["patient"]] + rng.normal(size=160)
    m = me.lmer("y ~ visit + (1 | centre/patient)", data)
    within = m.check("autocorrelation", order="visit", draws=59, seed=1)
    assert "within patient:centre" in str(within)
    assert not any("share a place" in note for note in within.notes)
    outer = m.check("autocorrelation", order="visit", by="centre", draws=59, seed=1)
    assert any("within centre and were taken" in note for note in outer.notes)


def test_an_interaction_with_a_number_far_from_zero_is_no_problem_but_its_twin_is() -> None:
    rng = np.random.default_rng(4)
    data = pd.DataFrame({"g": np.repeat(np.arange(20), 10), "f": np.tile(["a", "b"], 100)})
    data["age"] = rng.normal(45, 5, 200)
    data["twin"] = data["age"] + rng.normal(0, 0.3, 200)
    data["y"] = rng.normal(size=200)
    interaction = me.lmer("y ~ f * age + (1 | g)", data).check("collinearity")
    assert verdicts(interaction) == {"collinearity": "look"}
    assert "centre the variables" in interaction.findings[0].advice
    centred = me.lmer("y ~ f * I(age - 45) + (1 | g)", data).check("collinearity")
    assert verdicts(centred) == {"collinearity": "fine"}
    both = me.lmer("y ~ f * age + twin + (1 | g)", data).check("collinearity")
    twins = me.lmer("y ~ f + age + twin + (1 | g)", data).check("collinearity")
    for found in (both, twins):
        assert verdicts(found) == {"collinearity": "problem"}
        assert "drop one" in found.findings[0].advice


def test_a_slope_far_from_zero_is_centred_before_one_leaves_out_the_intercept() -> None:
    rng = np.random.default_rng(4)
    site = np.repeat(np.arange(12), 20)
    year = 2000.0 + np.tile(np.arange(20), 12)
    y = rng.normal(size=12)[site] + 0.05 * (year - 2010) + rng.normal(size=240) * 0.5
    data = pd.DataFrame({"y": y, "year": year, "site": site})
    m = me.lmer("y ~ year + (year | site)", data)
    assert m.is_singular
    (row,) = m.check("singularity").findings
    assert "count it from its mean, center(year); then leave year out" in row.advice
    assert "leave (Intercept) out" not in row.advice
    centred = me.lmer("y ~ year + (center(year) | site)", data)
    (row,) = centred.check("singularity").findings
    assert "leave center(year) out" in row.advice and "mean" not in row.advice
