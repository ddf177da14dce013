"""Profile likelihood: against lme4, dense minimisation, at boundaries and on odd designs."""

from __future__ import annotations

import json
import warnings
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import scipy.optimize
from matplotlib.figure import Figure
from numpy.testing import assert_allclose
from numpy.typing import NDArray

import mixedeffects as me
from mixedeffects.engine.basis import lower_factor
from mixedeffects.engine.constrained import (
    ConstrainedCoefficient,
    ConstrainedCorrelation,
    ConstrainedDeviation,
    ConstrainedSigma,
)
from mixedeffects.engine.constrained_points import TiedPoint
from mixedeffects.engine.covariance_changes import fixed_effects_covariance
from mixedeffects.engine.factorisation import Factorisation
from mixedeffects.engine.finding import find_optimum
from mixedeffects.engine.known_coefficient import KnownCoefficient
from mixedeffects.inference.profile import Profile
from references import REFERENCE, fitted_model

Matrix = NDArray[np.float64]
R: dict[str, Any] = json.loads((REFERENCE / "profile" / "profile.json").read_text())
DATA = {"zerocorr": "sleepstudy", "weighted": "sleepstudy"}


@cache
def _model(name: str) -> me.LinearMixedModel:
    data = me.load_dataset(DATA.get(name, name))
    weights = None
    if name == "weighted":
        weights = 0.5 + (np.arange(1, len(data) + 1) % 5) / 4
    return me.lmer(R[name]["formula"], data, weights=weights)


@cache
def _profile(name: str) -> Profile:
    return _model(name).profile()


def _comparable(name: str) -> list[tuple[str, str]]:
    """Our names and R's; lme4 leaves prior weights out of the profiles of fixed effects."""
    ours, theirs = _profile(name).parameters, R[name]["parameters"]
    pairs = list(zip(ours, theirs, strict=False))
    return pairs[:-2] if name == "weighted" else pairs


# --- lme4 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", R)
def test_intervals_against_lme4(name: str) -> None:
    assert _profile(name).criterion == pytest.approx(R[name]["deviance"], abs=1e-6)
    ours = _profile(name).confint()
    assert list(ours.columns) == ["lower", "upper"]
    for row, (parameter, _) in enumerate(_comparable(name)):
        if name == "orthodont" and parameter.startswith("cor"):
            # Zeta is level there from -0.7 to -1, and lme4 gives up on the way.
            continue
        expected = R[name]["intervals"][row]
        # lme4 interpolates; next to zero that shows.
        assert_allclose(ours.loc[parameter], expected, rtol=3e-4, atol=1e-4)


@pytest.mark.parametrize("name", R)
def test_points_against_lme4(name: str) -> None:
    for parameter, theirs in _comparable(name):
        points = R[name]["points"][theirs]
        for value, zeta in zip(points["value"], points["zeta"], strict=True):
            assert _profile(name).zeta(parameter, value) == pytest.approx(zeta, abs=3e-4)


# --- from the definition --------------------------------------------------------------------------


def _dense_deviance(
    y: Matrix, X: Matrix, Z: list[Matrix], w: Matrix, sd: Matrix, r: float, sigma: float
) -> float:
    """-2 log L of an intercept and a slope by subject, beta by least squares; all n x n."""
    S = np.array([[sd[0] ** 2, r * sd[0] * sd[1]], [r * sd[0] * sd[1], sd[1] ** 2]])
    V = sum(z @ S @ z.T for z in Z) + np.diag(sigma**2 / w)
    c = scipy.linalg.cho_factor(V, lower=True)
    residual = y
    if X.shape[1]:
        VX = scipy.linalg.cho_solve(c, X)
        residual = y - X @ np.linalg.solve(X.T @ VX, VX.T @ y)
    logdet = 2.0 * np.log(np.diag(c[0])).sum()
    quadratic = residual @ scipy.linalg.cho_solve(c, residual)
    return float(len(y) * np.log(2 * np.pi) + logdet + quadratic)


@pytest.mark.parametrize(
    "parameter",
    ["sd_Days|Subject", "cor_Days.(Intercept)|Subject", "sigma", "Days", "(Intercept)"],
)
def test_ends_of_intervals_by_dense_minimisation(parameter: str) -> None:
    """With prior weights, both ends: the dense deviance minimised by another method."""
    m = _model("weighted")
    data = me.load_dataset("sleepstudy")
    y, X, w = m.y, m.X, m.frame.weights
    assert w is not None
    Z = [X * (data["Subject"] == s).to_numpy()[:, None] for s in data["Subject"].unique()]
    estimates = _profile("weighted").estimates
    start = np.array(
        [
            np.log(estimates.iloc[0]),
            np.arctanh(estimates.iloc[1]),
            np.log(estimates.iloc[2]),
            np.log(estimates.iloc[3]),
        ]
    )
    names = _profile("weighted").parameters
    held = names.index(parameter)
    for end in _profile("weighted").confint().loc[parameter]:
        response, columns = y, X
        free = np.arange(4)
        psi = start.copy()
        if held < 4:
            free = np.delete(free, held)
            psi[held] = np.arctanh(end) if held == 1 else np.log(end)
        else:
            response = y - X[:, held - 4] * end
            columns = np.delete(X, held - 4, axis=1)

        def objective(x: Matrix, psi=psi, free=free, response=response, columns=columns) -> float:
            at = psi.copy()
            at[free] = x
            sd = np.exp(at[[0, 2]])
            return _dense_deviance(response, columns, Z, w, sd, np.tanh(at[1]), np.exp(at[3]))

        found = scipy.optimize.minimize(objective, psi[free], method="BFGS", options={"gtol": 1e-4})
        zeta = np.sqrt(found.fun - _profile("weighted").criterion)
        assert zeta == pytest.approx(1.959964, abs=2e-5)


def test_a_known_coefficient_is_a_column_taken_out() -> None:
    """Blocks of all kinds, at given T: dense remainder, chain, and without any column left."""
    rng = np.random.default_rng(3)
    for name in ("star_sample", "penicillin", "insteval"):
        m = fitted_model(name)
        A, j = m.fit.crossproducts, len(m.fixef) - 1
        value = float(m.fixef.iloc[j] + 3.0 * m.se.iloc[j])
        known = KnownCoefficient(A, j)
        T = [np.tril(rng.normal(size=(k, k))) for k in A.term_columns]
        free, held = Factorisation(A, T), Factorisation(known.blocks(value), T)
        assert held.logdet_random == pytest.approx(free.logdet_random, rel=1e-12)
        # rho^2 grows by the square of the distance in units of the standard error at sigma one.
        C = fixed_effects_covariance(free, A.basis.sigma(1.0))[j, j]
        distance = value - A.basis.beta(free.solution.beta)[j]
        assert held.rho2 == pytest.approx(free.rho2 + distance**2 / C, rel=1e-9)
        beta = A.basis.beta(known.beta(value, held.solution.beta))
        assert beta[j] == pytest.approx(value, rel=1e-10)


def test_known_coefficient_in_a_sparse_remainder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixedeffects.engine.fronts.DENSE_BELOW", 10)
    rng = np.random.default_rng(5)
    n = 4000
    data = pd.DataFrame(
        {
            "a": rng.integers(0, 600, n).astype(str),
            "x": rng.normal(size=n),
        }
    )
    data["b"] = ((data["a"].astype(int) // 3 + rng.integers(0, 3, n)) % 250).astype(str)
    data["y"] = rng.normal(size=n) + 0.5 * rng.normal(size=250)[data["b"].astype(int)]
    m = me.lmer("y ~ x + (1 | a) + (1 | b)", data)
    assert m.fit.crossproducts.remainder.fronts is not None
    assert _definition_gap(m) < 1e-8


def _definition_gap(m: me.LinearMixedModel) -> float:
    """Relative error of rho^2 with the last coefficient held."""
    A, j = m.fit.crossproducts, m.fit.crossproducts.p - 1
    T = list(m.optimum.T)
    value = float(m.fixef.iloc[j]) + 0.7
    free, held = Factorisation(A, T), Factorisation(KnownCoefficient(A, j).blocks(value), T)
    C = fixed_effects_covariance(free, A.basis.sigma(1.0))[j, j]
    expected = free.rho2 + (value - A.basis.beta(free.solution.beta)[j]) ** 2 / C
    return abs(held.rho2 / expected - 1.0)


@pytest.mark.parametrize("kind", ["deviation", "correlation", "sigma"])
def test_gradient_and_model_of_the_constrained_deviance(kind: str) -> None:
    """By differences, at random points, three columns and a second term."""
    A = me.lmer("y ~ x + (1 + x + z | g) + (1 | h)", _three_columns()).fit.crossproducts
    family = {
        "deviation": ConstrainedDeviation(A, 0.8, 0, 1),
        "correlation": ConstrainedCorrelation(A, 0.8, 0, (2, 0)),
        "sigma": ConstrainedSigma(A, 0.8),
    }[kind]._family(0.4)
    rng = np.random.default_rng(2)
    size = len(family.directions) + (family.log_sigma is None)
    x = 0.5 * rng.normal(size=size)
    point = TiedPoint(family, x)
    steps = 1e-5 * np.eye(size)
    slopes = [
        (TiedPoint(family, x + h).value - TiedPoint(family, x - h).value) / 2e-5 for h in steps
    ]
    assert_allclose(point.gradient, slopes, rtol=1e-5, atol=1e-5)
    model, none = point.model(), np.zeros((size, size))
    assert_allclose(model.at(np.zeros(size), none)[1], point.gradient, rtol=1e-8, atol=1e-8)
    step = 0.1 * rng.normal(size=size)
    _, gradient, hessian = model.at(step, none)
    slopes = [(model.at(step + h, none)[0] - model.at(step - h, none)[0]) / 2e-5 for h in steps]
    assert_allclose(gradient, slopes, rtol=1e-5, atol=1e-4)
    curves = [(model.at(step + h, none)[1] - model.at(step - h, none)[1]) / 2e-5 for h in steps]
    assert_allclose(hessian, curves, rtol=1e-5, atol=1e-3)


def _three_columns() -> pd.DataFrame:
    rng = np.random.default_rng(8)
    n = 240
    data = pd.DataFrame({"x": rng.normal(size=n), "z": rng.normal(size=n) + 2.0})
    g, h = rng.integers(0, 20, n), rng.integers(0, 6, n)
    b = rng.normal(size=(20, 3)) * [1.0, 0.6, 0.4]
    u = rng.normal(size=6)
    data["y"] = b[g, 0] + b[g, 1] * data["x"] + b[g, 2] * data["z"] + u[h] + rng.normal(size=n)
    data["g"], data["h"] = g.astype(str), h.astype(str)
    return data


def test_constraints_hold_in_the_users_units() -> None:
    """Whatever the basis: columns of different size, collinear ones, and weights."""
    data = _three_columns()
    data["z"] = 1e3 * data["z"]
    m = me.lmer("y ~ x + (1 + x + z | g) + (1 | h)", data, weights=1.0 + data["x"].abs())
    p = m.profile(level=0.8)
    frame = p.to_frame()
    for name, value, (_, row) in zip(
        frame["parameter"], frame["value"], frame.iterrows(), strict=True
    ):
        theta, sigma = _theta_of(row[p.parameters])
        deviance = -2.0 * m.loglik_at(theta, sigma, reml=False)
        if name not in m.fixef.index:
            # The point's own parameters have the point's deviance.
            assert deviance == pytest.approx(row["deviance"], abs=1e-5)
        assert row[name] == pytest.approx(value, rel=1e-9)


def _theta_of(row: pd.Series) -> tuple[Matrix, float]:
    """Theta and sigma from three sds with correlations, and one sd."""
    a, b, c = row["sd_(Intercept)|g"], row["sd_x|g"], row["sd_z|g"]
    R = np.eye(3)
    R[1, 0] = R[0, 1] = row["cor_x.(Intercept)|g"]
    R[2, 0] = R[0, 2] = row["cor_z.(Intercept)|g"]
    R[2, 1] = R[1, 2] = row["cor_z.x|g"]
    sd = np.array([a, b, c])
    # Correlations may make it singular.
    values, vectors = np.linalg.eigh(R)
    root = sd[:, None] * vectors * np.sqrt(np.maximum(values, 0.0))
    L = lower_factor(root / row["sigma"])
    theta = [L[0, 0], L[1, 0], L[2, 0], L[1, 1], L[2, 1], L[2, 2]]
    return np.array([*theta, row["sd_(Intercept)|h"] / row["sigma"]]), float(row["sigma"])


def test_zeta_of_a_fixed_effect_at_zero_is_the_likelihood_ratio() -> None:
    full = _model("sleepstudy").update(reml=False)
    without = full.update(". ~ . - Days")
    zeta = _profile("sleepstudy").zeta("Days", 0.0)
    assert zeta**2 == pytest.approx(without.criterion - full.criterion, abs=1e-6)


def test_zero_deviation_is_the_model_without_the_term() -> None:
    full = _model("penicillin").update(reml=False)
    without = full.update("diameter ~ 1 + (1 | sample)")
    zeta = _profile("penicillin").zeta("sd_(Intercept)|plate", 0.0)
    assert zeta**2 == pytest.approx(without.criterion - full.criterion, abs=1e-6)


def test_zero_correlation_is_two_bars() -> None:
    m = _model("sleepstudy").update(reml=False)
    split = _model("zerocorr").update(reml=False)
    zeta = _profile("sleepstudy").zeta("cor_Days.(Intercept)|Subject", 0.0)
    assert zeta**2 == pytest.approx(split.criterion - m.criterion, abs=1e-6)


# --- boundaries -----------------------------------------------------------------------------------


def test_singular_scalar() -> None:
    p = _profile("dyestuff2")
    assert p.estimates["sd_(Intercept)|Batch"] == 0.0
    value, zeta = p.curves()["sd_(Intercept)|Batch"]
    assert value[0] == 0.0
    assert (np.diff(zeta) > 0.0).all()


def test_a_correlation_beside_zero_is_not_defined() -> None:
    data = me.load_dataset("sleepstudy")
    rng = np.random.default_rng(1)
    data["y"] = rng.normal(size=len(data))
    m = me.lmer("y ~ Days + (Days | Subject)", data)
    p = m.profile("random")
    table = p.confint()
    zero = p.estimates[[name for name in table.index if name.startswith("sd")]] == 0.0
    assert zero.any()
    correlation = "cor_Days.(Intercept)|Subject"
    assert table.loc[correlation].isna().all()
    assert correlation not in set(p.to_frame()["parameter"])
    assert table.drop(index=correlation).notna().all(axis=None)
    with pytest.raises(me.ModelError, match="not defined"):
        p.zeta(correlation, 0.2)


@pytest.mark.parametrize(
    "name", [pytest.param("star_sample", marks=pytest.mark.slow), "threelevel"]
)
def test_singular_correlated_terms(name: str) -> None:
    formula = {
        "star_sample": "read ~ cltype + sx + (sx | sch/tch)",
        "threelevel": "y ~ x1 + (x1 | sch.cl/tch.cl)",
    }[name]
    m = me.lmer(formula, me.load_dataset(name))
    assert m.is_singular
    p = m.profile("random", level=0.9)
    table = p.confint(0.9)
    low, high = table.iloc[:, 0], table.iloc[:, 1]
    estimates = p.estimates[table.index]
    assert (low <= estimates).all()
    assert (estimates <= high).all()
    is_correlation = table.index.str.startswith("cor")
    assert (low[~is_correlation] >= 0.0).all()
    assert (table[is_correlation].abs() <= 1.0).all(axis=None)
    for value, zeta in p.curves().values():
        assert (np.diff(value) > 0.0).all()
        # Monotone, but for a minimum that jumps from one valley to another.
        assert (np.diff(zeta) > -1e-5).all()


def test_correlations_at_opposite_signs_are_different_points() -> None:
    """A search that lets a standard deviation change its sign would take r for -r."""
    p = _profile("orthodont")
    name = "cor_age.(Intercept)|Subject"
    frame = p.to_frame()
    own = frame[frame["parameter"] == name]
    assert (own[name] == own["value"]).all()
    # Beyond reach: without the slope's variance any correlation has this deviance.
    flat = p.zeta("sd_age|Subject", 0.0)
    assert p.zeta(name, -0.99) == pytest.approx(flat, abs=1e-6)
    assert_allclose(p.confint().loc[name], [-1.0, 1.0])


# --- the object -----------------------------------------------------------------------------------


def test_frame() -> None:
    p = _profile("sleepstudy")
    frame = p.to_frame()
    assert list(frame.columns) == ["parameter", "value", "zeta", "deviance", *p.parameters]
    assert_allclose(frame["deviance"], p.criterion + frame["zeta"] ** 2, atol=1e-6)
    at_fit = frame[frame["zeta"] == 0.0]
    assert list(at_fit["parameter"]) == p.parameters
    assert_allclose(at_fit[p.parameters], np.tile(p.estimates, (6, 1)))
    assert frame.groupby("parameter")["zeta"].agg(["min", "max"]).abs().min(axis=None) >= 2.57


def test_other_levels_within_and_beyond_the_profile() -> None:
    p = _model("dyestuff").profile("sigma", level=0.8)
    inside, beyond = p.confint(0.5).loc["sigma"], p.confint(0.999).loc["sigma"]
    for bounds, z in ((inside, 0.6744898), (beyond, 3.290527)):
        for bound, side in zip(bounds, (-1, 1), strict=True):
            assert p.zeta("sigma", bound) == pytest.approx(side * z, abs=2e-6)
    # What is asked for later does not change the table.
    assert len(p.to_frame()) == len(_model("dyestuff").profile("sigma", level=0.8).to_frame())


def test_maximum_likelihood_fit_is_not_refitted() -> None:
    m = _model("dyestuff").update(reml=False)
    p = m.profile()
    assert p.criterion == pytest.approx(m.criterion, abs=1e-10)
    assert "REML" not in repr(p)
    assert "fitted again" in repr(_profile("dyestuff"))
    assert_allclose(p.confint(), _profile("dyestuff").confint(), rtol=1e-5)


def test_selection_and_texts() -> None:
    m = _model("sleepstudy")
    p = m.profile("fixed", level=0.9)
    assert p.parameters == ["(Intercept)", "Days"]
    assert "2 parameters" in repr(p)
    assert "90 %" in repr(p)
    assert "<table>" in p._repr_html_()
    lines: list[me.Repetitions] = []
    m.profile(["sigma"], level=0.5, progress=lines.append)
    assert str(lines[-1]).startswith("side of a profile 2 of 2, sigma ")
    with pytest.raises(me.ModelError, match=r"no parameter 'Day'.*'Days'"):
        m.profile("Day")
    with pytest.raises(me.ModelError, match="names no parameter"):
        m.profile([])
    with pytest.raises(me.ModelError, match="between 0 and 1"):
        m.profile(level=95)
    with pytest.raises(me.ModelError, match="no profile of 'sigma'"):
        p.zeta("sigma", 20.0)
    with pytest.raises(me.ModelError, match="cannot be"):
        _profile("sleepstudy").zeta("cor_Days.(Intercept)|Subject", 1.5)
    with pytest.raises(me.ModelError, match="cannot be"):
        _profile("sleepstudy").zeta("sigma", 0.0)


def test_a_better_fit_found_while_profiling_is_said() -> None:
    data = me.load_dataset("sleepstudy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", me.ConvergenceWarning)
        poor = me.lmer(
            "Reaction ~ Days + (Days | Subject)",
            data,
            reml=False,
            start=[0.5, 0.0, 0.1],
            control=me.Control(max_evaluations=1),
        )
    with pytest.warns(me.ConvergenceWarning, match=r"held at .* the deviance is lower by"):
        p = poor.profile(["Days", "sigma"])
    assert p.criterion == pytest.approx(R["sleepstudy"]["deviance"], abs=1e-6)
    expected = _profile("sleepstudy").confint().loc["Days"]
    assert_allclose(p.confint().loc["Days"], expected, rtol=1e-6)


def test_pictures() -> None:
    p = _profile("pastes")
    axes = p.plot()
    assert [ax.get_xlabel() for ax in axes] == p.parameters
    one = p.plot("sd_(Intercept)|batch", absolute=True, ax=Figure().subplots())
    heights = one.lines[1].get_ydata()
    assert (np.asarray(heights) >= 0.0).all()
    with pytest.raises(me.ModelError, match="no parameter"):
        p.plot("Days")


def test_no_fixed_effects_and_one_column() -> None:
    m = me.lmer("Yield ~ 0 + (1 | Batch)", me.load_dataset("dyestuff"))
    assert m.profile().parameters == ["sd_(Intercept)|Batch", "sigma"]
    with pytest.raises(me.ModelError, match="names no parameter"):
        m.profile("fixed")


def test_each_coefficient_by_refit_with_an_offset() -> None:
    """The column taken out and its share of the response known, fitted by lmer itself."""
    data = me.load_dataset("orthodont")
    p = _model_by("distance ~ age + Sex + (1 | Subject)", "orthodont").profile("fixed")
    sex = (data["Sex"] == "Female").astype(float)
    for name, formula, column in (
        ("age", "distance ~ Sex + (1 | Subject)", data["age"]),
        ("SexFemale", "distance ~ age + (1 | Subject)", sex),
    ):
        value = float(p.estimates[name]) * 1.3
        held = me.lmer(formula, data, reml=False, offset=value * column.to_numpy(dtype=float))
        expected = np.sqrt(held.criterion - p.criterion)
        assert abs(p.zeta(name, value)) == pytest.approx(expected, abs=1e-5)


def _model_by(formula: str, name: str) -> me.LinearMixedModel:
    return me.lmer(formula, me.load_dataset(name))


def test_constrained_coefficient_from_a_singular_start() -> None:
    m = _model("dyestuff2")
    A = m.fit.crossproducts
    optimum = find_optimum(A, False)
    held = ConstrainedCoefficient(A, 0)
    far = held.minimise(8.0, held.start(optimum.T, 1.0))
    assert far.converged
    # Six batches far from a wrong mean look like variance between batches.
    assert abs(far.T[0][0, 0]) > 0.1


@pytest.mark.slow
def test_insteval() -> None:
    m = me.lmer("y ~ 1 + (1 | s) + (1 | d)", me.load_dataset("insteval"))
    p = m.profile()
    assert p.evaluations < 300
    wald = m.confint()
    assert_allclose(p.confint(), wald, rtol=2e-3)


def test_signs_survive_putting_a_covariance_on_the_boundary() -> None:
    """Both sizes negative are the same point as both positive, and stay so."""
    A = me.lmer("y ~ x + (1 + x + z | g) + (1 | h)", _three_columns()).fit.crossproducts
    held = ConstrainedCorrelation(A, 0.8, 0, (2, 0))
    x = held.start(find_optimum(A, False).T, 0.8)
    opposite = x.copy()
    opposite[:2] *= -1.0
    point = TiedPoint(held._family(0.3), opposite)
    factors = [R @ point.L[s, s] for R, s in zip(held._R, (slice(0, 3), slice(3, 4)), strict=True)]
    assert_allclose(held._repacked(point, factors, float(np.exp(x[-1]))), opposite, rtol=1e-9)
