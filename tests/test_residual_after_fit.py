"""What is done with the rows of a fit whose residuals are correlated or of several variances.

Against dense algebra with R and V, which `test_structured_residual` checks by definition.
"""

from __future__ import annotations

import functools
import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from matplotlib.figure import Figure

import mixedeffects as me
from mixedeffects.covariance.structured_residual import StructuredResidual
from mixedeffects.engine.covariance_changes import fixed_effects_covariance
from mixedeffects.engine.parameters import T_to_theta, theta_to_T
from mixedeffects.engine.residual_objective import evaluate_residual
from mixedeffects.fitting.residual_parameters import residual_parameters
from test_residual_inference import table_of


def _repeated(seed: int = 3) -> pd.DataFrame:
    """Twelve series of up to seven visits, some missing, with items crossed and sites above."""
    rng = np.random.default_rng(seed)
    rows = []
    for g in range(12):
        visits = np.sort(rng.choice(7, rng.integers(3, 8), replace=False))
        rows += [(f"g{g:02d}", int(t), f"s{g // 3}", f"i{rng.integers(0, 5)}") for t in visits]
    data = pd.DataFrame(rows, columns=["g", "t", "site", "item"])
    n = len(data)
    data["sex"] = np.where(data["g"].str[1:].astype(int) % 2, "f", "m")
    data["x"] = rng.standard_normal(n)
    data["w"] = rng.uniform(0.5, 2.0, n)
    data["lat"], data["lon"] = rng.uniform(0, 4, (2, n))
    level = pd.Series(rng.standard_normal(12), index=sorted(data["g"].unique()))
    e = np.zeros(n)
    for _, own in data.groupby("g"):
        drawn = rng.standard_normal(len(own))
        for k in range(1, len(drawn)):
            drawn[k] = 0.6 * drawn[k - 1] + 0.8 * drawn[k]
        e[own.index] = drawn
    item = {f"i{k}": v for k, v in enumerate(rng.standard_normal(5))}
    data["y"] = 2.0 + 0.5 * data["x"] + level[data["g"]].to_numpy() + data["item"].map(item)
    data["y"] += e * np.where(data["sex"] == "f", 1.5, 1.0)
    return data.sample(frac=1.0, random_state=1).reset_index(drop=True)


FOLDER = Path(__file__).parent / "reference" / "residual_inference"
HEADS = json.loads((FOLDER / "after_fit.json").read_text())
INFERENCE = json.loads((FOLDER / "inference.json").read_text())

DATA = _repeated()
SHORT = DATA[DATA["t"] < 3].reset_index(drop=True)

CASES = {
    "ar1 alone": ("y ~ x + t", {"residual": "ar1(t | g)"}),
    "car1 and variances, weights": (
        "y ~ x",
        {"residual": "car1(t | g)", "variance": "sex + x", "weights": "w"},
    ),
    "us": ("y ~ x", {"residual": "us(t | g)", "reml": False, "data": SHORT}),
    "exp with nugget": ("y ~ x", {"residual": "exp(lat + lon | g, nugget = TRUE)"}),
    "cs below a level": ("y ~ x + (1 | site)", {"residual": "cs(1 | g)"}),
    "intercepts, ar1": ("y ~ x + (1 | g) + (1 | site)", {"residual": "ar1(t | g)"}),
    "slopes, variances": ("y ~ x + (x | g)", {"variance": "sex", "weights": "w"}),
    "crossed, variances": ("y ~ x + (1 | g) + (1 | item)", {"variance": "sex"}),
    "crossed, ar1": ("y ~ x + (1 | g) + (1 | item)", {"residual": "ar1(t | g)", "weights": "w"}),
    "by sex": ("y ~ x", {"residual": "ar1(t | g, by = sex)"}),
}


@functools.cache
def fitted(name: str) -> me.LinearMixedModel:
    formula, options = CASES[name]
    return me.lmer(formula, **{"data": DATA, **options})


@dataclass
class Dense:
    """The model as plain arrays."""

    X: np.ndarray
    y: np.ndarray
    R: np.ndarray
    ZGZ: np.ndarray

    @classmethod
    def of(cls, m: me.LinearMixedModel) -> Dense:
        R = m.R.sparse().toarray()
        ZGZ = np.zeros_like(R)
        for term in m.frame.terms:
            same = term.codes[:, None] == term.codes
            ZGZ += np.where(same, term.z @ m.G[term.label].to_numpy() @ term.z.T, 0.0)
        return cls(m.X, m.y, R, ZGZ)

    @property
    def V(self) -> np.ndarray:
        return self.ZGZ + self.R

    @property
    def C(self) -> np.ndarray:
        return np.linalg.inv(self.X.T @ np.linalg.solve(self.V, self.X))

    @property
    def beta(self) -> np.ndarray:
        return self.C @ self.X.T @ np.linalg.solve(self.V, self.y)

    @property
    def P(self) -> np.ndarray:
        S = np.linalg.solve(self.V, self.X)
        return np.linalg.inv(self.V) - S @ self.C @ S.T


@pytest.mark.parametrize("name", CASES)
def test_fitted_values_and_residuals(name):
    m, d = fitted(name), Dense.of(fitted(name))
    e = d.R @ d.P @ d.y
    np.testing.assert_allclose(m.resid(), e, atol=1e-8)
    np.testing.assert_allclose(m.fitted, d.y - e, atol=1e-8)
    sd = np.sqrt(np.diag(d.R))
    np.testing.assert_allclose(m.resid("pearson"), e / sd, atol=1e-8)
    np.testing.assert_allclose(m.resid("scaled"), e / sd, atol=1e-8)
    left = np.sqrt(np.diag(d.R @ d.P @ d.R))
    np.testing.assert_allclose(m.resid("studentized"), e / left, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(m.resid("marginal"), d.y - d.X @ d.beta, atol=1e-8)


@pytest.mark.parametrize("name", CASES)
def test_normalized_residuals(name):
    """Whitened with the root of R that is triangular in the order of each series."""
    m, d = fitted(name), Dense.of(fitted(name))
    order = m.fit.residual.model.order
    e = (d.R @ d.P @ d.y)[order]
    root = np.linalg.cholesky(d.R[np.ix_(order, order)])
    found = m.resid("normalized").to_numpy()[order]
    np.testing.assert_allclose(found, np.linalg.solve(root, e), atol=1e-8)


@pytest.mark.parametrize("name", HEADS)
def test_residuals_of_nlme_and_others(name):
    """Of the first rows: nlme's kinds, with values at the optimum of each model."""
    own = INFERENCE[name]
    data = table_of(own["data"])
    for column, levels in own["columns"].items():
        values = data[column].astype(str)
        data[column] = pd.Categorical(values, categories=levels) if levels else values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", me.ConvergenceWarning)
        m = me.lmer(
            own["formula"],
            data,
            residual=own["residual"],
            variance=own["variance"],
            reml=own["reml"],
        )
    size = m.resid().std()
    found = {"fitted": m.fitted, "residual": m.resid(), "normalized": m.resid("normalized")}
    for kind, head in HEADS[name].items():
        values = found[kind.removesuffix("_head")].to_numpy()[: len(head)]
        np.testing.assert_allclose(values, head, atol=2e-5 * max(size, 1.0))


def test_normalized_residuals_of_independent_ones():
    m = me.lmer("y ~ x + (1 | g)", DATA, weights="w")
    np.testing.assert_allclose(m.resid("normalized"), m.resid("scaled"))


@pytest.mark.parametrize("name", CASES)
def test_leverages(name):
    m, d = fitted(name), Dense.of(fitted(name))
    total = 1.0 - np.diag(d.R @ d.P)
    fixed = np.diag(d.X @ d.C @ np.linalg.solve(d.V, d.X).T)
    np.testing.assert_allclose(m.leverage(), total, atol=1e-8)
    np.testing.assert_allclose(m.leverage("fixed"), fixed, atol=1e-8)
    np.testing.assert_allclose(m.leverage("random"), total - fixed, atol=1e-8)


@pytest.mark.parametrize("name", CASES)
def test_variances_explained(name):
    m, d = fitted(name), Dense.of(fitted(name))
    fixed = np.var(d.X @ d.beta, ddof=1)
    random, residual = np.diag(d.ZGZ).mean(), np.diag(d.R).mean()
    total = fixed + random + residual
    r2 = m.r2()
    np.testing.assert_allclose(r2.marginal, fixed / total, rtol=1e-7)
    np.testing.assert_allclose(r2.conditional, (fixed + random) / total, rtol=1e-7)
    varies = bool(np.ptp(np.diag(d.R)) > 1e-9)
    assert ("mean of the diagonal of R" in repr(r2)) is varies
    if m.ngroups:
        assert m.icc().adjusted == pytest.approx(random / (random + residual))


def test_there_is_no_icc_without_random_effects():
    with pytest.raises(me.ModelError, match="no random effects"):
        fitted("ar1 alone").icc()
    with pytest.raises(me.ModelError, match="one grouping factor"):
        fitted("ar1 alone").r2_by_level()


@pytest.mark.parametrize("name", CASES)
def test_variogram(name):
    """Its implied line is that of V, its clusters those that V connects."""
    m, d = fitted(name), Dense.of(fitted(name))
    by = "g" if "g" in {*m.ngroups, getattr(m.frame.residual, "group", "")} else "site"
    v = m.variogram("t", by=by)
    data = CASES[name][1].get("data", DATA)
    t, g = (data[c].to_numpy() for c in ("t", by))
    i, j = np.triu_indices(len(t), 1)
    keep = g[i] == g[j]
    i, j = i[keep], j[keep]
    r = d.y - d.X @ d.beta
    apart = np.abs(t[i] - t[j])
    D = np.diag(d.V)
    frame = pd.DataFrame(
        {
            "apart": apart,
            "empirical": 0.5 * (r[i] - r[j]) ** 2,
            "implied": 0.5 * (D[i] + D[j] - 2.0 * d.V[i, j]),
        }
    )
    expected = frame.groupby("apart").mean()
    np.testing.assert_allclose(v.table["distance"], expected.index)
    np.testing.assert_allclose(v.table["empirical"], expected["empirical"])
    np.testing.assert_allclose(v.table["implied"], expected["implied"], rtol=1e-7)


@pytest.mark.parametrize("name", CASES)
def test_simulated_responses(name):
    """The same draws as from a root of R and of G by the same numbers."""
    m = fitted(name)
    drawn = m.simulate(4000, seed=5).to_numpy()
    np.testing.assert_array_equal(m.simulate(2, seed=5).to_numpy(), drawn[:, :2])
    d = Dense.of(m)
    centred = np.linalg.solve(np.linalg.cholesky(d.V), drawn - (d.X @ d.beta)[:, None])
    S = centred @ centred.T / drawn.shape[1]
    # Entries of a Wishart matrix of the identity: standard errors 1/sqrt(N), twice that squared.
    assert abs(S - np.eye(len(S))).max() < 6.0 * np.sqrt(2.0 / drawn.shape[1])
    assert abs(np.trace(S) / len(S) - 1.0) < 5.0 * np.sqrt(2.0 / (len(S) * drawn.shape[1]))
    held = m.simulate(2000, seed=5, re="all").to_numpy() - m.fitted.to_numpy()[:, None]
    within = np.linalg.solve(np.linalg.cholesky(d.R), held)
    assert abs(within @ within.T / 2000 - np.eye(len(S))).max() < 6.0 * np.sqrt(2.0 / 2000)


def _without(d: Dense, left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients, and their covariance matrix, from these rows."""
    X, V = d.X[left], d.V[np.ix_(left, left)]
    C = np.linalg.inv(X.T @ np.linalg.solve(V, X))
    return C @ X.T @ np.linalg.solve(V, d.y[left]), C


def _check_influence(found, d: Dense, codes: np.ndarray) -> None:
    p = d.X.shape[1]
    for j, label in enumerate(found.dfbeta.index):
        beta, C = _without(d, codes != j)
        change = d.beta - beta
        np.testing.assert_allclose(found.dfbeta.loc[label], change, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(
            found.dfbetas.loc[label], change / np.sqrt(np.diag(C)), rtol=1e-5, atol=1e-7
        )
        cooks = change @ np.linalg.solve(d.C, change) / p
        assert found.cooks_distance[label] == pytest.approx(cooks, rel=1e-5, abs=1e-8)
        ratio = np.linalg.det(C) / np.linalg.det(d.C)
        assert found.covratio[label] == pytest.approx(ratio, rel=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_influence_of_single_rows(name):
    m, d = fitted(name), Dense.of(fitted(name))
    _check_influence(m.influence(), d, np.arange(m.nobs))


@pytest.mark.parametrize("name", CASES)
def test_influence_of_clusters(name):
    """Of those that V does not connect with others, and of any where R is diagonal."""
    m, d = fitted(name), Dense.of(fitted(name))
    data = CASES[name][1].get("data", DATA)
    by = "site" if "site" in m.formula else "g"
    levels = sorted(data[by].unique())
    codes = data[by].map({label: j for j, label in enumerate(levels)}).to_numpy()
    _check_influence(m.influence(by), d, codes)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("by", ["item", "sex", "t"])
def test_influence_of_levels_that_V_connects(name, by):
    """Levels that cut residual groups and levels of random effects."""
    m, d = fitted(name), Dense.of(fitted(name))
    data = CASES[name][1].get("data", DATA)
    codes, levels = pd.factorize(data[by], sort=True)
    if by == "t":
        # Not all visits are needed, but a whole half of the rows is.
        codes = (data["t"] >= 1).astype(int).to_numpy()
        found = m.influence(codes)
        if name == "ar1 alone":
            # Its fixed effects include t, and one visit has no slope.
            assert "cannot all be estimated" in found.notes["1"]
            assert np.isfinite(found.dfbeta.loc["0"]).all()
            return
        _check_influence(found, d, codes)
        return
    found = m.influence(by)
    assert list(found.dfbeta.index) == [str(level) for level in levels] and not found.notes
    _check_influence(found, d, codes)


@pytest.mark.parametrize("name", ["ar1 alone", "crossed, ar1", "intercepts, ar1"])
def test_a_connected_level_that_most_of_a_coefficient_rests_on(name):
    """V of the rows left is solved again."""
    formula, options = CASES[name]
    data = DATA.assign(z=np.where(DATA["item"] == "i2", 1e3 * DATA["x"], 0.1 * DATA["x"]))
    m = me.lmer(formula.replace("x", "z"), data, **options)
    found = m.influence("item")
    assert not found.notes
    _check_influence(found, Dense.of(m), pd.factorize(data["item"], sort=True)[0])


def test_rows_with_hardly_a_variance_of_their_own():
    """Neighbours in a field are nearly one row: what a row has of its own is a difference."""
    rng = np.random.default_rng(4)
    data = DATA.assign(s=DATA["t"] + 1e-7 * rng.random(len(DATA)))
    twins = data.assign(s=data["s"] + 1e-6)
    both = pd.concat([data, twins], ignore_index=True)
    m = me.lmer("y ~ x", both.assign(y=both["y"] + 1e-3 * rng.standard_normal(len(both))),
                residual="car1(s | g)")  # fmt: skip
    codes = np.arange(len(both))
    found = m.influence()
    assert not found.notes and np.isfinite(found.dfbeta.to_numpy()).all()
    d = Dense.of(m)
    for j in codes[:3]:
        beta, _ = _without(d, codes != j)
        np.testing.assert_allclose(found.dfbeta.iloc[j], d.beta - beta, rtol=1e-3, atol=1e-6)


def test_a_cluster_that_most_of_a_coefficient_rests_on():
    """What is left is summed over the other rows, not subtracted."""
    data = DATA.assign(z=np.where(DATA["g"] == "g03", 1e4 * DATA["x"], 1e-2 * DATA["x"]))
    m = me.lmer("y ~ z", data, residual="ar1(t | g)")
    levels = sorted(data["g"].unique())
    codes = data["g"].map({label: j for j, label in enumerate(levels)}).to_numpy()
    _check_influence(m.influence("g"), Dense.of(m), codes)


def test_influence_by_fitting_again():
    m = fitted("intercepts, ar1")
    found = m.influence("site", refit=True)
    assert list(found.variance_parameters) == list(m.covariance_parameters.index)
    for site in ("s0", "s3"):
        formula, options = CASES["intercepts, ar1"]
        again = me.lmer(formula, DATA[DATA["site"] != site], **options)
        np.testing.assert_allclose(
            found.variance_parameters.loc[site], again.covariance_parameters, atol=1e-4
        )
        np.testing.assert_allclose(found.dfbeta.loc[site], m.fixef - again.fixef, atol=1e-5)
    of_sexes = fitted("by sex").influence("sex", refit=True)
    assert "two rows for a correlation" in of_sexes.notes["f"]
    assert of_sexes.dfbeta.isna().all().all()


@pytest.mark.parametrize("name", CASES)
def test_another_response(name):
    m = fitted(name)
    y = m.simulate(1, seed=1)["sim_1"]
    formula, options = CASES[name]
    fresh = me.lmer(formula, **{**options, "data": options.get("data", DATA).assign(y=y)})
    again = m.refit(y)
    assert again.criterion == pytest.approx(fresh.criterion, abs=1e-6)
    np.testing.assert_allclose(again.fixef, fresh.fixef, atol=1e-5)
    np.testing.assert_allclose(again.fitted, fresh.fitted, atol=1e-4)
    back = again.refit(m.y)
    assert back.criterion == pytest.approx(m.criterion, abs=1e-6)
    np.testing.assert_allclose(back.se, m.se, rtol=1e-5)
    np.testing.assert_allclose(
        back.covariance_parameters, m.covariance_parameters, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("name", ["us", "intercepts, ar1", "car1 and variances, weights"])
def test_bootstrap_refits_what_simulate_draws(name):
    m = fitted(name)
    boot = m.bootstrap(4, seed=2)
    drawn = m.simulate(4, seed=2)
    for i in range(4):
        again = m.refit(drawn[f"sim_{i + 1}"])
        expected = np.append(again.covariance_parameters, again.fixef)
        np.testing.assert_allclose(boot.draws.loc[i], expected, rtol=1e-6, atol=1e-6)
        assert boot.criterion[i] == pytest.approx(again.criterion)
    assert list(boot.draws) == [*m.covariance_parameters.index, *m.fixef.index]
    own = m.bootstrap(2, seed=2, statistic=lambda fit: fit.sigma)
    np.testing.assert_allclose(own.draws["statistic"], boot.draws["sigma"][:2])


def test_covariance_parameters_have_those_of_residuals():
    m = fitted("slopes, variances")
    assert list(m.covariance_parameters.index) == [
        "sd_(Intercept)|g",
        "cor_x.(Intercept)|g",
        "sd_x|g",
        "sd_sexm|Residual",
        "sigma",
    ]
    assert m.covariance_parameters["sd_sexm|Residual"] == m.R.parameters["Std.Dev. sexm"]
    assert m.covariance_parameters["sigma"] == m.R.parameters["Std.Dev. sexf"] == m.sigma
    us = fitted("us").covariance_parameters
    assert us["cor_2.0|Residual"] == pytest.approx(fitted("us").R.parameters["cor 0, 2"])


def test_update_keeps_or_changes_the_structure():
    m = fitted("car1 and variances, weights")
    kept = m.update(". ~ . + t", reml=False)
    formula, options = CASES["car1 and variances, weights"]
    fresh = me.lmer("y ~ x + t", DATA, reml=False, **options)
    assert kept.criterion == pytest.approx(fresh.criterion, abs=1e-7)
    other = m.update(residual="cs(1 | g)", variance=None)
    fresh = me.lmer(formula, DATA, residual="cs(1 | g)", weights="w")
    assert other.criterion == pytest.approx(fresh.criterion, abs=1e-7)
    mixed = fitted("intercepts, ar1")
    plain = mixed.update(residual=None)
    assert plain.fit.residual is None
    assert plain.criterion == pytest.approx(me.lmer(mixed.formula, DATA).criterion, abs=1e-7)
    assert plain.criterion > mixed.criterion + 0.1
    back = plain.update(residual="ar1(t | g)")
    assert back.criterion == pytest.approx(mixed.criterion, abs=1e-7)
    assert back.update(data=DATA[DATA["t"] < 6]).fit.residual is not None


# --- predictions ---------------------------------------------------------------------------

IS_DIAGONAL = ("slopes, variances", "crossed, variances")


def _covariance(p: pd.Series, sigma: float, name: str, data: pd.DataFrame) -> np.ndarray:
    """R between all rows, from its parameters by definition."""
    n = len(data)
    t, g, sex = (data[c].to_numpy() for c in ("t", "g", "sex"))
    apart = np.abs(t[:, None] - t).astype(float)
    sd, C = np.full(n, sigma), np.eye(n)
    if name in ("ar1 alone", "intercepts, ar1", "crossed, ar1"):
        C = p["cor"] ** apart
    elif name == "car1 and variances, weights":
        C = np.exp(-apart / p["range"])
        male, x = p["log Std.Dev. per sexm"], p["log Std.Dev. per x"]
        sd = sd * np.exp(male * (sex == "m") + x * data["x"].to_numpy())
    elif name == "us":
        table = np.eye(3)
        for i, j in ((0, 1), (0, 2), (1, 2)):
            table[i, j] = table[j, i] = p[f"cor {i}, {j}"]
        C = table[np.ix_(t, t)]
        sd = np.array([p[f"Std.Dev. {k}"] for k in range(3)])[t]
    elif name == "exp with nugget":
        at = data[["lat", "lon"]].to_numpy()
        d = np.sqrt(((at[:, None] - at) ** 2).sum(axis=2))
        C = (1.0 - p["nugget"]) * np.exp(-d / p["range"]) + p["nugget"] * np.eye(n)
    elif name == "cs below a level":
        C = np.full((n, n), p["cor"]) + (1.0 - p["cor"]) * np.eye(n)
    elif name == "by sex":
        C = np.where(sex == "f", p["cor f"], p["cor m"])[:, None] ** apart
        sd = np.where(sex == "f", p["Std.Dev. f"], p["Std.Dev. m"])
    else:
        sd = np.where(sex == "f", sigma, p["Std.Dev. sexm"])
    if CASES[name][1].get("weights"):
        sd = sd / np.sqrt(data["w"].to_numpy())
    same = np.eye(n, dtype=bool) if name in IS_DIAGONAL else g[:, None] == g
    return np.where(same, C * np.outer(sd, sd), 0.0)


def _columns(names, data: pd.DataFrame) -> np.ndarray:
    known = {"(Intercept)": np.ones(len(data)), "x": data["x"], "t": data["t"]}
    return np.column_stack([known[name] for name in names])


def _random(m: me.LinearMixedModel, data: pd.DataFrame) -> np.ndarray:
    """Z G Z' between all rows."""
    out = np.zeros((len(data), len(data)))
    for term in m.frame.terms:
        codes, z = data[term.group].to_numpy(), _columns(term.columns, data)
        G = m.G[term.label].to_numpy()
        out += np.where(codes[:, None] == codes, z @ G @ z.T, 0.0)
    return out


NEW = pd.DataFrame(
    {
        "g": ["g00", "g00", "g05", "g07", "g11", "g11", "new"],
        "site": ["s0", "s0", "s1", "s2", "s3", "s3", "other"],
        "item": ["i0", "i3", "i1", "i2", "i4", "i4", "i0"],
        "sex": ["m", "m", "f", "f", "f", "f", "f"],
        "t": [0, 2, 1, 1, 2, 0, 1],
        "x": [0.3, -1.0, 2.0, 0.0, 1.0, -0.5, 0.2],
        "w": [1.0, 2.0, 0.5, 1.0, 1.5, 0.7, 1.0],
        "lat": [1.0, 2.0, 0.5, 3.0, 2.2, 0.1, 1.0],
        "lon": [3.0, 0.4, 2.5, 1.0, 1.2, 2.1, 0.0],
    }
)


@dataclass
class Predicted:
    """Best linear unbiased predictions of x'beta + z'b, or with e too, and what belongs to them."""

    mean: np.ndarray
    variance: np.ndarray
    residual: np.ndarray
    random: np.ndarray
    of_fixed: np.ndarray
    fixed: np.ndarray

    @classmethod
    def of(cls, name: str, with_residual: bool) -> Predicted:
        m, data = fitted(name), CASES[name][1].get("data", DATA)
        both, n = pd.concat([data, NEW], ignore_index=True), len(data)
        R, ZGZ = _covariance(m.R.parameters, m.sigma, name, both), _random(m, both)
        np.testing.assert_allclose(m.R.sparse().toarray(), R[:n, :n], rtol=1e-8, atol=1e-10)
        target = ZGZ + R if with_residual else ZGZ
        V, X, x = (ZGZ + R)[:n, :n], _columns(m.fixef.index, data), _columns(m.fixef.index, NEW)
        c = target[n:, :n]
        W = np.linalg.solve(V, c.T).T
        C = np.linalg.inv(X.T @ np.linalg.solve(V, X))
        y = data["y"].to_numpy()
        beta = C @ X.T @ np.linalg.solve(V, y)
        D = x - W @ X
        variance = np.diag(target)[n:] - np.einsum("in,in->i", W, c)
        variance = variance + np.einsum("ip,pq,iq->i", D, C, D)
        mean = x @ beta + W @ (y - X @ beta)
        of_fixed = np.einsum("ip,pq,iq->i", x, C, x)
        return cls(mean, variance, np.diag(R)[n:], np.diag(ZGZ)[n:], of_fixed, x @ beta)


def _weights(name: str) -> dict[str, str]:
    return {"weights": "w"} if CASES[name][1].get("weights") else {}


@pytest.mark.parametrize("name", CASES)
def test_predictions_for_new_rows(name):
    m, d = fitted(name), Predicted.of(name, False)
    options = {"new_levels": "population"}
    np.testing.assert_allclose(m.predict(NEW, **options), d.mean, atol=1e-7)
    found = m.predict(NEW, se=True, **options)
    np.testing.assert_allclose(found["std_error"], np.sqrt(d.variance), rtol=1e-6)
    found = m.predict(NEW, interval="prediction", **options, **_weights(name))
    np.testing.assert_allclose(found["std_error"], np.sqrt(d.variance + d.residual), rtol=1e-6)
    found = m.predict(NEW, re=None, interval="prediction", **_weights(name))
    np.testing.assert_allclose(found["estimate"], d.fixed, atol=1e-7)
    total = d.of_fixed + d.random + d.residual
    np.testing.assert_allclose(found["std_error"], np.sqrt(total), rtol=1e-6)
    confidence = m.predict(NEW, re=None, interval="confidence")
    np.testing.assert_allclose(confidence["std_error"], np.sqrt(d.of_fixed), rtol=1e-6)


def _df_of_conditional_variance(name: str) -> np.ndarray:
    """Of the error of a new observation given the data, by differences in all parameters."""
    m, data = fitted(name), CASES[name][1].get("data", DATA)
    fit, basis = m.fit, m.fit.crossproducts.basis
    rows, T = fit.residual.design, list(fit.residual.at_theta.T)
    theta = T_to_theta(T) if T else np.zeros(0)
    k, n = len(theta), len(data)
    both = pd.concat([data, NEW], ignore_index=True)
    X = _columns(m.fixef.index, both)

    def variance(values: np.ndarray) -> np.ndarray:
        own = theta_to_T(values[:k], fit.crossproducts.term_columns) if k else []
        phi, sigma = values[k:-1], float(values[-1])
        moved = rows.model.shift + rows.model.v_mean @ rows.model.coefficients(phi)
        R = StructuredResidual(
            rows.model, phi, sigma, basis.weight_scale, fit.frame.residual, fit.frame.variance
        )
        V = _covariance(residual_parameters(R), sigma * float(np.exp(-moved)), name, both)
        for t, term in enumerate(fit.frame.terms):
            root = _columns(term.columns, both) @ basis.terms[t] @ own[t]
            codes = both[term.group].to_numpy()
            product = sigma**2 / basis.weight_scale * root @ root.T
            V = V + np.where(codes[:, None] == codes, product, 0.0)
        W = np.linalg.solve(V[:n, :n], V[:n, n:]).T
        C = np.linalg.inv(X[:n].T @ np.linalg.solve(V[:n, :n], X[:n]))
        D = X[n:] - W @ X[:n]
        left = np.diag(V)[n:] - np.einsum("in,in->i", W, V[n:, :n])
        return left + np.einsum("ip,pq,iq->i", D, C, D)

    base = np.concatenate([theta, fit.residual.phi, [fit.sigma]])
    steps = 1e-5 * np.eye(len(base))
    gradient = np.stack([(variance(base + h) - variance(base - h)) / 2e-5 for h in steps], axis=1)
    return m.satterthwaite.df_of(variance(base), gradient)


@pytest.mark.parametrize("name", [name for name in CASES if name not in IS_DIAGONAL])
def test_predictions_with_the_residuals_of_the_group(name):
    m, d = fitted(name), Predicted.of(name, True)
    options = {"new_levels": "population", "residual": True}
    alone = m.predict(NEW, **options, **_weights(name))
    found = m.predict(NEW, interval="prediction", **options, **_weights(name))
    np.testing.assert_allclose(alone, found["estimate"])
    np.testing.assert_allclose(found["estimate"], d.mean, atol=1e-6)
    # A row at a time of the fit is that row again, without any error.
    np.testing.assert_allclose(found["std_error"] ** 2, d.variance, rtol=1e-5, atol=1e-7)
    normal = m.predict(NEW, interval="prediction", ddf="inf", **options, **_weights(name))
    half = (normal["conf_high"] - normal["conf_low"]) / 2.0
    np.testing.assert_allclose(half, 1.959964 * found["std_error"], rtol=1e-6, atol=1e-6)
    # Satterthwaite's degrees of freedom of the whole variance, which is dense algebra's.
    df = _df_of_conditional_variance(name)
    some = d.variance > 1e-6
    t = ((found["conf_high"] - found["estimate"]) / found["std_error"])[some]
    np.testing.assert_allclose(t, scipy.stats.t.ppf(0.975, df[some]), rtol=1e-4)
    residual = m.predict(NEW, interval="prediction", ddf="residual", **options, **_weights(name))
    t = ((residual["conf_high"] - residual["estimate"]) / residual["std_error"])[some]
    np.testing.assert_allclose(t, scipy.stats.t.ppf(0.975, m.nobs - len(m.fixef)), rtol=1e-8)


@pytest.mark.parametrize("name", CASES)
def test_predictions_for_the_rows_of_the_fit(name):
    """Are those for the same rows as new ones."""
    m, data = fitted(name), CASES[name][1].get("data", DATA)
    np.testing.assert_allclose(m.predict(), m.predict(data), atol=1e-10)
    for re in ("all", None):
        one = m.predict(re=re, interval="prediction")
        two = m.predict(data, re=re, interval="prediction", **_weights(name))
        np.testing.assert_allclose(one, two, rtol=1e-9)


@pytest.mark.parametrize(
    "name", ["us", "by sex", "car1 and variances, weights", "intercepts, ar1", "slopes, variances"]
)
def test_degrees_of_freedom_for_new_observations(name):
    """Satterthwaite's, from differences of the whole variance in all parameters."""
    m = fitted(name)
    fit, basis = m.fit, m.fit.crossproducts.basis
    rows, T = fit.residual.design, list(fit.residual.at_theta.T)
    theta = T_to_theta(T) if T else np.zeros(0)
    k, x = len(theta), _columns(m.fixef.index, NEW)
    at_zero = rows.model.shift

    def variance(values: np.ndarray) -> np.ndarray:
        own = theta_to_T(values[:k], fit.crossproducts.term_columns) if k else []
        phi, sigma = values[k:-1], float(values[-1])
        there = evaluate_residual(rows, own, phi, fit.reml)
        C = fixed_effects_covariance(there.at_theta.factorisation, sigma)
        total = np.einsum("ip,pq,iq->i", x, C, x)
        for t, term in enumerate(fit.frame.terms):
            root = _columns(term.columns, NEW) @ basis.terms[t] @ own[t]
            total += sigma**2 / basis.weight_scale * (root**2).sum(axis=1)
        # What is called sigma is the standard deviation where all v are zero.
        moved = at_zero + rows.model.v_mean @ rows.model.coefficients(phi)
        R = StructuredResidual(
            rows.model, phi, sigma, basis.weight_scale, fit.frame.residual, fit.frame.variance
        )
        named = sigma * float(np.exp(-moved))
        return total + np.diag(_covariance(residual_parameters(R), named, name, NEW))

    base = np.concatenate([theta, fit.residual.phi, [fit.sigma]])
    steps = 1e-5 * np.eye(len(base))
    gradient = np.stack([(variance(base + h) - variance(base - h)) / 2e-5 for h in steps], axis=1)
    df = m.satterthwaite.df_of(variance(base), gradient)
    found = m.predict(NEW, re=None, interval="prediction", **_weights(name))
    t = (found["conf_high"] - found["estimate"]) / found["std_error"]
    np.testing.assert_allclose(t, scipy.stats.t.ppf(0.975, df), rtol=1e-4)


def test_residuals_of_groups_are_refused_where_they_say_nothing():
    m = fitted("intercepts, ar1")
    for options, message in (
        ({"newdata": None}, "for new rows"),
        ({"re": "g"}, "all random effects"),
        ({"interval": "confidence"}, "for means"),
        ({"ddf": "residual", "se": True}, "population predictions"),
    ):
        with pytest.raises(me.ModelError, match=message):
            m.predict(**{"newdata": NEW, "residual": True, "new_levels": "population", **options})
    for other in (fitted("slopes, variances"), me.lmer("y ~ x + (1 | g)", DATA)):
        with pytest.raises(me.ModelError, match="independent of each other"):
            other.predict(NEW, residual=True, new_levels="population")
    counted = me.lmer("y ~ x", DATA, residual="ar1(1 | g)")
    with pytest.raises(me.ModelError, match="in their order"):
        counted.predict(NEW, residual=True)
    with pytest.raises(me.DataError, match="whole steps"):
        fitted("ar1 alone").predict(NEW.assign(t=NEW["t"] + 0.5), residual=True)
    with pytest.raises(me.DataError, match="did not see"):
        fitted("us").predict(NEW.assign(t=5), residual=True)
    with pytest.raises(me.DataError, match="is not that of the fit for 'g00'"):
        fitted("by sex").predict(NEW.assign(sex="f"), residual=True)


def test_missing_groups_and_times_of_new_rows():
    m = fitted("ar1 alone")
    some = NEW.assign(t=NEW["t"].astype(float), g=NEW["g"].astype(object))
    some.loc[1, "g"], some.loc[2, "t"] = None, np.nan
    found = m.predict(some, residual=True)
    assert found.isna().tolist() == [False, True, True, False, False, False, False]
    whole = m.predict(NEW, residual=True)
    np.testing.assert_allclose(found.dropna(), whole[found.notna()])
    without = m.predict(NEW.drop(columns="g"), interval="prediction")
    assert len(without) == len(NEW)


# --- likelihoods, modes, cross-validation, pictures ------------------------------------------


@pytest.mark.parametrize("name", ["intercepts, ar1", "slopes, variances", "crossed, ar1", "us"])
def test_likelihood_at_other_parameters(name):
    """R relative to sigma is held."""
    m, d = fitted(name), Dense.of(fitted(name))
    assert m.loglik_at(m.theta) == pytest.approx(m.loglik, abs=1e-7)
    rng = np.random.default_rng(1)
    theta, sigma = rng.uniform(0.3, 1.0, len(m.theta)), 1.1
    V = d.R / m.sigma**2
    factors = theta_to_T(theta, [term.n_columns for term in m.frame.terms])
    for term, T in zip(m.frame.terms, factors, strict=True):
        same = term.codes[:, None] == term.codes
        V = V + np.where(same, term.z @ T @ T.T @ term.z.T, 0.0)
    V = V * sigma**2
    solved = np.linalg.solve(V, d.X)
    r = d.y - d.X @ np.linalg.solve(d.X.T @ solved, solved.T @ d.y)
    quadratic = r @ np.linalg.solve(V, r) + np.linalg.slogdet(V)[1]
    n, p = d.X.shape
    ml = -0.5 * (quadratic + n * np.log(2.0 * np.pi))
    reml = -0.5 * (quadratic + np.linalg.slogdet(d.X.T @ solved)[1] + (n - p) * np.log(2.0 * np.pi))
    assert m.loglik_at(theta, sigma, reml=False) == pytest.approx(ml, abs=1e-7)
    assert m.loglik_at(theta, sigma, reml=True) == pytest.approx(reml, abs=1e-7)


@pytest.mark.parametrize("name", [name for name in CASES if "(" in CASES[name][0]])
def test_modes_and_their_variances(name):
    m, d = fitted(name), Dense.of(fitted(name))
    found = m.ranef(cond_var=True)
    start = 0
    Z, G = m.Z.toarray(), m.G.sparse().toarray()
    b = G @ Z.T @ d.P @ d.y
    left = G - G @ Z.T @ np.linalg.solve(d.V, Z @ G)
    for term in m.frame.terms:
        size = term.n_levels * term.n_columns
        own = slice(start, start + size)
        np.testing.assert_allclose(found[term.group].to_numpy().ravel(), b[own], atol=1e-7)
        blocks = left[own, own].reshape(term.n_levels, term.n_columns, term.n_levels, -1)
        diagonal = np.einsum("iaib->iab", blocks)
        np.testing.assert_allclose(found.cond_var[term.group], diagonal, atol=1e-7)
        table = m.coef()[term.group]
        expected = m.fixef["(Intercept)"] + found[term.group]["(Intercept)"]
        np.testing.assert_allclose(table["(Intercept)"], expected)
        start += size


@pytest.mark.parametrize("name", ["by sex", "intercepts, ar1", "slopes, variances"])
@pytest.mark.parametrize("by", [None, "g"])
def test_cross_validation(name, by):
    """Conditional means and densities given the other rows, at the parameters of their fit."""
    m = fitted(name)
    formula, options = CASES[name]
    found = me.cross_validate(m, by=by, folds=3, seed=1)
    fold = found.folds
    for k in range(3):
        out = fold == k
        others = me.lmer(formula, DATA[~out], **options)
        R = _covariance(others.R.parameters, others.sigma, name, DATA)
        V = R + _random(others, DATA)
        r = DATA["y"].to_numpy() - _columns(m.fixef.index, DATA) @ others.fixef.to_numpy()
        A = V[np.ix_(out, ~out)] @ np.linalg.inv(V[np.ix_(~out, ~out)])
        mean = A @ r[~out]
        left = V[np.ix_(out, out)] - A @ V[np.ix_(~out, out)]
        expected = DATA["y"].to_numpy()[out] - r[out] + mean
        np.testing.assert_allclose(found.predictions.loc[out, "m1"], expected, atol=2e-4)
        density = scipy.stats.multivariate_normal(mean, left).logpdf(r[out])
        assert found.by_fold["elpd"][k] == pytest.approx(density, abs=5e-3)


@pytest.mark.parametrize("name", ["ar1 alone", "crossed, ar1", "slopes, variances"])
def test_pictures(name):
    m = fitted(name)
    axes = m.plot("panel", ax=Figure(figsize=(12, 7)).subplots(2, 3).ravel())
    labels = [ax.get_ylabel() + ax.get_xlabel() for ax in axes]
    assert "pearson residual" in labels[0]
    kind = "scaled" if name in IS_DIAGONAL else "normalized"
    assert f"{kind} residual" in labels[4]
    drawn = m.plot("qq", resid="normalized", ax=Figure().subplots()).collections[-1]
    np.testing.assert_allclose(
        np.sort(drawn.get_offsets()[:, 1]), np.sort(m.resid("normalized")), atol=1e-12
    )


def test_pictures_that_need_random_effects_say_so():
    m = fitted("ar1 alone")
    for kind in ("caterpillar", "ranef_qq"):
        with pytest.raises(me.ModelError, match="no random effects"):
            m.plot(kind)
    alone = me.lmer("y ~ x", DATA, variance="sex")
    for call in (lambda: alone.plot("groups"), lambda: alone.variogram("t")):
        with pytest.raises(me.ModelError, match="no groups of rows"):
            call()


def test_bias_adjustment_asks_which_variance():
    data = DATA.assign(z=np.exp(DATA["y"] / 4.0))
    m = me.lmer("log(z) ~ x", data, residual="ar1(t | g)", variance="sex")
    with pytest.raises(me.ModelError, match="differs between rows"):
        m.predict(NEW, type="response", bias_adjust=True)
    found = m.predict(NEW, type="response", bias_adjust=True, sigma=0.3)
    plain = m.predict(NEW, type="response")
    np.testing.assert_allclose(found, plain * (1.0 + 0.3**2 / 2.0))
    one = m.update(variance=None)
    ratio = one.predict(NEW, type="response", bias_adjust=True) / one.predict(NEW, type="response")
    np.testing.assert_allclose(ratio, 1.0 + one.sigma**2 / 2.0)


# --- conditional AIC --------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(CASES))
def test_conditional_likelihood(name):
    m, d = fitted(name), Dense.of(fitted(name))
    found = m.caic()
    e = m.y - m.fitted.to_numpy()
    expected = scipy.stats.multivariate_normal(cov=d.R).logpdf(e)
    assert found.loglik == pytest.approx(expected, abs=1e-8)
    assert found.leverage == pytest.approx(np.trace(np.eye(m.nobs) - d.R @ d.P), abs=1e-8)
    assert found.residual == len(m.fit.residual.phi) + 1
    assert found.df == pytest.approx(found.leverage + found.correction + found.residual)


@pytest.mark.parametrize(
    "name", ["intercepts, ar1", "slopes, variances", "crossed, ar1", "car1 and variances, weights"]
)
def test_degrees_of_freedom_of_fitted_values_by_refits(name):
    """Sum of d yhat_i / d y_i, all parameters estimated anew."""
    m = fitted(name).update(control=me.Control(tolerance=1e-12))
    step, total = 0.01 * m.sigma, 0.0
    for i in range(m.nobs):
        ahead, behind = m.y.copy(), m.y.copy()
        ahead[i] += step
        behind[i] -= step
        change = m.refit(ahead).fitted.to_numpy()[i] - m.refit(behind).fitted.to_numpy()[i]
        total += change / (2.0 * step)
    found = m.caic()
    assert found.leverage + found.correction == pytest.approx(total, abs=2e-4)
    if name != "car1 and variances, weights":
        # Without random effects they would add nothing.
        assert found.correction > 0.1


def test_without_random_effects_it_counts_parameters():
    m = fitted("us")
    found = m.caic()
    assert found.correction == pytest.approx(0.0, abs=1e-6)
    assert found.caic == pytest.approx(m.aic, abs=1e-5)


def test_a_known_sigma_takes_no_degree_of_freedom():
    m, K, data = _known()
    m = m.update(control=me.Control(tolerance=1e-13))
    found = m.caic()
    assert found.residual == 0
    e = m.y - m.fitted.to_numpy()
    assert found.loglik == pytest.approx(scipy.stats.multivariate_normal(cov=K).logpdf(e))
    step, total = 1e-2, 0.0
    for i in range(len(data)):
        up, down = m.y.copy(), m.y.copy()
        up[i] += step
        down[i] -= step
        total += m.refit(up).fitted.to_numpy()[i] - m.refit(down).fitted.to_numpy()[i]
    assert found.df == pytest.approx(total / (2 * step), abs=1e-3)


# --- known covariances and a known sigma ------------------------------------------------------


def _known() -> tuple[me.LinearMixedModel, np.ndarray, pd.DataFrame]:
    """Effects of studies with the covariance matrix of their errors, two or three of each."""
    data = SHORT.reset_index(drop=True)
    same = data["g"].to_numpy()[:, None] == data["g"].to_numpy()
    K = np.where(same, 0.4, 0.0) + np.diag(data["w"].to_numpy())
    return me.lmer("y ~ x + (1 | site)", data, residual=me.known(K), sigma=1.0), K, data


def test_known_covariance_of_residuals():
    m, K, data = _known()
    d = Dense.of(m)
    np.testing.assert_allclose(d.R, K, atol=1e-12)
    e = d.R @ d.P @ d.y
    np.testing.assert_allclose(m.resid(), e, atol=1e-8)
    np.testing.assert_allclose(m.resid("pearson"), e / np.sqrt(np.diag(K)), atol=1e-8)
    np.testing.assert_allclose(m.leverage(), 1.0 - np.diag(d.R @ d.P), atol=1e-8)
    drawn = m.simulate(4000, seed=1, re="all").to_numpy() - m.fitted.to_numpy()[:, None]
    assert abs(drawn @ drawn.T / 4000 - K).max() < 0.25
    i, j = np.triu_indices(m.nobs, 1)
    keep = data["g"].to_numpy()[i] == data["g"].to_numpy()[j]
    implied = 0.5 * (np.diag(d.V)[i] + np.diag(d.V)[j]) - d.V[i, j]
    found = m.variogram(np.zeros(m.nobs), by="site").table["implied"]
    same = data["site"].to_numpy()[i] == data["site"].to_numpy()[j]
    np.testing.assert_allclose(found, implied[same].mean())
    assert keep.any()


def test_fits_again_keep_what_is_known():
    m, _, data = _known()
    y = m.simulate(1, seed=3)["sim_1"]
    again = m.refit(y)
    fresh = m.update(data=data.assign(y=y))
    assert again.sigma == fresh.sigma == 1.0
    assert again.criterion == pytest.approx(fresh.criterion, abs=1e-8)
    boot = m.bootstrap(2, seed=3)
    assert boot.criterion[0] == pytest.approx(again.criterion, abs=1e-8)
    found = m.influence("site", refit=True)
    without = data[data["site"] != "s1"]
    K = m.R.sparse().toarray()[np.ix_(without.index, without.index)]
    other = me.lmer(m.formula, without, residual=me.known(K), sigma=1.0)
    np.testing.assert_allclose(found.dfbeta.loc["s1"], m.fixef - other.fixef, atol=1e-5)
    assert m.update(sigma=None).sigma != 1.0


def test_known_covariances_say_nothing_of_new_rows():
    m, K, _ = _known()
    own = m.predict(interval="prediction")
    d = Dense.of(m)
    variance = np.diag(d.R - d.R @ d.P @ d.R)
    # Of the mean: x'beta + z'b, whose error is that of the residual predicted.
    np.testing.assert_allclose(own["std_error"] ** 2, variance + np.diag(K), rtol=1e-6)
    new = NEW.assign(site="s1")
    with pytest.raises(me.ModelError, match="says nothing of the variance"):
        m.predict(new, interval="prediction")
    with pytest.raises(me.ModelError, match="for the rows of the fit alone"):
        m.predict(new, residual=True)
    assert m.predict(new, interval="confidence").shape == (7, 4)


def test_intervals_at_a_known_sigma():
    """Which is no parameter, so that only theta and phi are uncertain."""
    m = me.lmer("y ~ x", DATA, residual="ar1(t | g)", sigma=1.2)
    assert m.sigma == 1.2
    found = m.predict(NEW, re=None, interval="prediction")
    d = Dense.of(m)
    x = _columns(m.fixef.index, NEW)
    variance = 1.44 + np.einsum("ip,pq,iq->i", x, d.C, x)
    np.testing.assert_allclose(found["std_error"] ** 2, variance, rtol=1e-7)
    t = (found["conf_high"] - found["estimate"]) / found["std_error"]
    gradient = np.einsum("ip,mpq,iq->im", x, m.satterthwaite.jacobian, x)
    df = m.satterthwaite.df_of(variance, gradient)
    assert df.min() > 1e3
    np.testing.assert_allclose(t, scipy.stats.t.ppf(0.975, df), rtol=1e-6)
