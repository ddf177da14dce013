"""m.check() of fits whose residuals are correlated or of several variances."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

import mixedeffects as me
from mixedeffects.cli import main
from mixedeffects.covariance.of_residuals import residual_matrix_of, whitened
from mixedeffects.diagnostics import check_comparison, check_draws, check_influence
from mixedeffects.diagnostics.check_comparison import Comparison
from mixedeffects.diagnostics.check_structured import normalized_variances


def series(
    seed: int, groups: int = 20, visits: int = 8, ratio: float = 1.0, correlation: float = 0.6
) -> pd.DataFrame:
    """Groups of visits with autoregressive errors, of `ratio` times the size in every second."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups), visits)
    error = rng.standard_normal((groups, visits))
    for t in range(1, visits):
        new = np.sqrt(1.0 - correlation**2) * error[:, t]
        error[:, t] = correlation * error[:, t - 1] + new
    error *= np.where(np.arange(groups) % 2, ratio, 1.0)[:, None]
    data = pd.DataFrame({"g": [f"g{i:02}" for i in g], "t": np.tile(np.arange(visits), groups)})
    data["x"] = rng.standard_normal(len(data))
    data["sex"] = np.where(g % 2, "f", "m")
    data["item"] = [f"i{i}" for i in rng.integers(0, 6, len(data))]
    data["w"] = rng.uniform(0.5, 2.0, len(data))
    data["y"] = 1.0 + 0.5 * data["x"] + rng.standard_normal(groups)[g] + error.ravel()
    # In no order.
    return data.sample(frac=1.0, random_state=1).reset_index(drop=True)


def verdicts(checks: Any) -> dict[str, str]:
    table = checks.to_frame()
    return dict(zip(table["check"], table["verdict"], strict=True))


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "ar1": ("y ~ x + t", {"residual": "ar1(t | g)"}),
    "ar1 and intercepts": ("y ~ x + (1 | g)", {"residual": "ar1(t | g)", "variance": "sex"}),
    "weights, ML": ("y ~ x + (x | g)", {"variance": "sex", "weights": "w", "reml": False}),
    "offset": ("y ~ x + offset(w)", {"residual": "cs(1 | g)", "variance": "sex"}),
    "crossed": ("y ~ x + (1 | g) + (1 | item)", {"residual": "ar1(t | g)", "weights": "w"}),
}


@functools.cache
def fitted(name: str) -> me.LinearMixedModel:
    formula, options = CASES[name]
    return me.lmer(formula, series(1, 10, 6, 1.5), **options)


# --- what is compared --------------------------------------------------------------------


@pytest.mark.parametrize("is_held", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_outcomes_of_the_data_are_those_of_dense_algebra(
    name: str, is_held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_held:
        monkeypatch.setattr(check_draws, "_REFITTED_STRUCTURED", 10)
    m = fitted(name)
    fit, X = m.fit, m.fit.frame.X
    y = fit.frame.y if fit.frame.offset is None else fit.frame.y - fit.frame.offset
    V, Rm = m.V.dense(), residual_matrix_of(fit)
    R = Rm.sparse().toarray()
    inverse = np.linalg.inv(V)
    P = inverse - inverse @ X @ np.linalg.solve(X.T @ inverse @ X, X.T @ inverse)
    c = Comparison(fit, 19, 1, 0.05)
    assert_allclose(c.data.residuals[:, 0], m.resid("normalized"), atol=1e-6)
    assert_allclose(c.data.fitted[:, 0], m.fitted, atol=1e-6)
    ranks = scipy.stats.norm.cdf(m.resid("marginal") / np.sqrt(np.diag(V)))
    assert_allclose(c.data.ranks[:, 0], ranks, atol=1e-6)
    for own, modes in zip(c.data.modes, fit.modes, strict=True):
        assert_allclose(own[:, :, 0], modes, atol=1e-6)
    squares = c.curves.columns
    assert squares.shape[1] >= 1
    score = squares.T @ P @ y / np.sqrt(np.diag(squares.T @ P @ squares))
    assert_allclose(c.data.curvature[:, 0], score, atol=1e-6)
    W = whitened(Rm, np.eye(len(y)))
    variances = np.diag(W @ R @ P @ R @ W.T)
    assert_allclose(normalized_variances(fit), variances, atol=1e-8)
    assert_allclose(c.residuals[:, 0], m.resid("normalized") / np.sqrt(variances), atol=1e-6)
    for group, distances in c.data.distances.items():
        assert_allclose(distances[:, 0], m.influence(group).cooks_distance, rtol=1e-5)
    assert set(c.data.distances) == (set() if name == "crossed" else {"g"})


@pytest.mark.parametrize("name", ["ar1", "ar1 and intercepts", "offset"])
def test_drawn_data_sets_have_their_own_fits(name: str) -> None:
    m = fitted(name)
    c = Comparison(m.fit, 2, 5, 0.05)
    Y = m.simulate(2, seed=5)
    for j in range(2):
        again = m.refit(Y.iloc[:, j])
        assert_allclose(c.draws.residuals[:, j], again.resid("normalized"), atol=2e-3)
        assert_allclose(c.draws.sigma[j], again.sigma, rtol=2e-3)
    assert_allclose(c.batches.responses(), Y)


def test_distances_where_rows_of_different_levels_are_connected() -> None:
    m = fitted("crossed")
    found = m.check("influence", draws=19).cooks_distance["item"]["cooks_d"]
    codes = pd.Categorical(m.fit.frame.data["item"])
    X, y, V = m.fit.frame.X, m.fit.frame.y, m.V.dense()

    def estimate(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inverse = np.linalg.inv(V[np.ix_(rows, rows)])
        A = X[rows].T @ inverse @ X[rows]
        return np.linalg.solve(A, X[rows].T @ inverse @ y[rows]), A

    beta, A = estimate(np.arange(len(y)))
    for level, value in found.items():
        change = beta - estimate(np.flatnonzero(codes != level))[0]
        assert_allclose(value, change @ A @ change / len(beta), rtol=1e-5)


def test_variances_as_drawn_where_there_are_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    m = fitted("ar1 and intercepts")
    exact = Comparison(m.fit, 99, 1, 0.05).residuals
    monkeypatch.setattr(check_comparison, "_AFFORDABLE_ROWS", 10)
    about = Comparison(m.fit, 99, 1, 0.05).residuals
    assert 0.0 < np.abs(about - exact).max() < 1.0
    assert np.corrcoef(about[:, 0], exact[:, 0])[0, 1] > 0.98


# --- verdicts ----------------------------------------------------------------------------


RIGHT = {
    "ar1, variances": ("y ~ x + t + (1 | g)", {"residual": "ar1(t | g)", "variance": "sex"}),
    "without random effects": ("y ~ x", {"residual": "toep(t | g)", "variance": "sex"}),
}


@pytest.mark.parametrize("name", RIGHT)
def test_nothing_is_a_problem_where_nothing_is_wrong(name: str) -> None:
    formula, options = RIGHT[name]
    checks = me.lmer(formula, series(3, ratio=1.6), **options).check(order="t")
    assert "problem" not in verdicts(checks).values()
    assert "normalized ones" in str(checks)


def test_a_missing_autocorrelation_is_seen_and_with_it_there_is_none() -> None:
    data = series(4, ratio=1.6)
    wrong = me.lmer("y ~ x + (1 | g)", data, variance="sex").check("autocorrelation", order="t")
    assert verdicts(wrong) == {"autocorrelation: t": "problem"}
    assert "residual='ar1()' may be missing" in " ".join(str(wrong).split())
    right = me.lmer("y ~ x + (1 | g)", data, variance="sex", residual="ar1(t | g)")
    assert verdicts(right.check("autocorrelation", order="t")) == {"autocorrelation: t": "fine"}


def test_spread_by_residual_group_is_seen_without_random_effects() -> None:
    data = series(5, ratio=2.5)
    wrong = me.lmer("y ~ x", data, residual="ar1(t | g)").check("spread")
    assert verdicts(wrong)["spread: g"] == "problem"
    assert "variance= by what sets" in " ".join(str(wrong).split())
    right = me.lmer("y ~ x", data, residual="ar1(t | g)", variance="sex").check("spread")
    assert verdicts(right)["spread: g"] == "fine"


def test_an_outlier_a_bend_and_an_influential_group_are_seen() -> None:
    data = series(6)
    data.loc[17, "y"] += 7.0
    m = me.lmer("y ~ x", data, residual="ar1(t | g)")
    assert 17 in m.check("outliers").outliers.index
    data = series(6)
    data["y"] += 0.4 * data["x"] ** 2
    m = me.lmer("y ~ x", data, residual="ar1(t | g)")
    assert verdicts(m.check("linearity")) == {"linearity: x": "problem"}
    data = series(6)
    own = data["g"] == "g07"
    data.loc[own, "x"] += 4.0
    data.loc[own, "y"] -= 2.5 * data.loc[own, "x"]
    m = me.lmer("y ~ x", data, residual="ar1(t | g)", variance="sex")
    checks = m.check("influence")
    assert verdicts(checks) == {"influence: g": "problem"}
    assert checks.cooks_distance["g"].index[0] == "g07"


def test_the_same_call_gives_the_same_answer() -> None:
    m = fitted("ar1 and intercepts")
    pd.testing.assert_frame_equal(m.check(draws=19).to_frame(), m.check(draws=19).to_frame())


@pytest.mark.slow
def test_false_alarms_are_about_as_many_as_they_should_be() -> None:
    p_values: list[float] = []
    for seed in range(40):
        data = series(1000 + seed, 12, 6, 1.6)
        m = me.lmer("y ~ x + (1 | g)", data, residual="ar1(t | g)", variance="sex")
        p_values += m.check(order="t", draws=39, seed=seed).to_frame()["p_value"].dropna().tolist()
    assert len(p_values) > 300
    assert 0.02 < np.mean(np.array(p_values) <= 0.05) < 0.09


# --- what cannot be answered -------------------------------------------------------------


def test_a_model_without_random_effects_says_what_is_left_out() -> None:
    checks = me.lmer("y ~ x", series(7, 10, 5), variance="sex").check(order="t", draws=19)
    text = " ".join(str(checks).split())
    assert "there is no check of levels or singularity or grouping" in text
    assert "there is no spread or influence by level" in text
    assert "share a place in 't' within the data" in text


def test_studies_of_known_variance_are_told_from_their_errors() -> None:
    rng = np.random.default_rng(8)
    v = rng.uniform(1e-10, 9e-10, 30)
    data = pd.DataFrame({"study": [f"s{i}" for i in range(30)], "v": v})
    data["y"] = 1e-4 + rng.standard_normal(30) * np.sqrt(v + 4e-10)
    m = me.lmer("y ~ 1 + (1 | study)", data, weights="1 / v", sigma=1)
    found = verdicts(m.check(draws=19))
    # One row a study: with sigma estimated its variance could not be told from that of studies.
    assert "grouping: study and rows" not in found
    assert found["singularity: study"] == "fine"
    far = data.assign(y=data["y"].where(data["study"] != "s3", 1.0e-3))
    table = me.lmer("y ~ 1", far, weights="1 / v", sigma=1).check("outliers").outliers
    r = table["residual"].iloc[0]
    # Sigma is known, so the residual is normal and is its own statistic.
    assert table["statistic"].iloc[0] == pytest.approx(r)
    known = me.lmer("y ~ 1", data, residual=me.known(np.diag(v)), sigma=1).check(draws=19)
    assert not any("known" in name for name in verdicts(known))


def test_influence_that_would_take_long_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_influence, "_COMPARED", 10)
    # Without comparison with drawn data sets there are the distances alone.
    found = fitted("crossed").check("influence", draws=19).to_frame()
    assert {"influence: g", "influence: item"} <= set(found.iloc[:, 0]) | set(found.index)
    monkeypatch.setattr(check_influence, "_AFFORDABLE", 10)
    checks = fitted("crossed").check("influence", draws=19)
    assert verdicts(checks) == {}
    assert "Influence by item was left out, as it would" in " ".join(str(checks).split())


# --- where it is shown -------------------------------------------------------------------


def test_pictures_name_the_residuals() -> None:
    axes = fitted("ar1").plot("checks", ax=Figure(figsize=(12, 9)).subplots(2, 3).ravel()[:5])
    labels = [ax.get_ylabel() for ax in axes]
    assert labels[0] == "normalized residual / SD"
    assert "root of |normalized residual|" in labels


def test_report_has_the_section(tmp_path: Path) -> None:
    page = fitted("ar1").report(tmp_path / "r.html").read_text(encoding="utf-8")
    assert "influence: g" in page and "Not made" not in page


def test_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["fit", "orthodont", "distance ~ age", "--residual", "cs(1 | Subject)", "--check"]
    assert main([*arguments, "--check-order", "age"]) == 0
    out = capsys.readouterr().out
    assert "spread: Subject" in out and "autocorrelation: age" in out
