"""V of planned designs with residual structures: against dense algebra, and against fits."""

from __future__ import annotations

import pickle
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import mixedeffects as me
from mixedeffects.errors import DataError, ModelError

Matrix = NDArray[np.float64]


def _design(n_groups: int = 6, n_times: int = 4, seed: int = 1) -> pd.DataFrame:
    """Rows in any order, some missing; every group has the first visit."""
    rng = np.random.default_rng(seed)
    data = pd.DataFrame(
        {
            "g": np.repeat([f"g{i}" for i in range(n_groups)], n_times),
            "t": np.tile(np.arange(n_times), n_groups),
        }
    )
    data["visit"] = pd.Categorical([f"V{t}" for t in data["t"]])
    data["arm"] = np.where(data["g"].isin(["g0", "g2", "g4"]), "A", "B")
    data["u"] = 2.0 * rng.random(len(data))
    data["s"] = data["t"] + 0.3 * rng.random(len(data))
    data["w"] = rng.uniform(0.5, 2.0, len(data))
    data["item"] = rng.integers(0, 3, len(data)).astype(str)
    keep = (rng.random(len(data)) > 0.2) | (data["t"] == 0)
    return data[keep].sample(frac=1.0, random_state=seed)


def _ante(a: int, b: int, r: list[float]) -> float:
    return float(np.prod(r[min(a, b) : max(a, b)]))


_US = {"cor V0, V1": 0.5, "cor V0, V2": 0.2, "cor V1, V2": 0.4}
_US |= {"cor V0, V3": 0.1, "cor V1, V3": -0.2, "cor V2, V3": 0.3}
_SD = {f"Std.Dev. V{t}": 1.0 + 0.5 * t for t in range(4)}
_TOEP = [0.5, 0.3, 0.1]


def _us(i: Any, j: Any, values: dict[str, float] = _US) -> float:
    a, b = sorted((i.visit, j.visit))
    return values[f"cor {a}, {b}"]


#: residual=, variance=, R, correlation of two different rows of a group, deviation of a row.
CASES: dict[str, tuple[Any, ...]] = {
    "ar1": (
        "ar1(t | g)",
        None,
        {"Std.Dev.": 2.0, "cor": -0.5},
        lambda i, j: (-0.5) ** abs(i.t - j.t),
        lambda i: 2.0,
    ),
    "ar1 by": (
        "ar1(t | g, by = arm)",
        None,
        {"Std.Dev. A": 2.0, "Std.Dev. B": 3.0, "cor A": 0.5, "cor B": -0.2},
        lambda i, j: {"A": 0.5, "B": -0.2}[i.arm] ** abs(i.t - j.t),
        lambda i: {"A": 2.0, "B": 3.0}[i.arm],
    ),
    "ar1 het": (
        "ar1(visit | g, hom = FALSE)",
        None,
        {**_SD, "cor": 0.6},
        lambda i, j: 0.6 ** abs(i.t - j.t),
        lambda i: _SD[f"Std.Dev. {i.visit}"],
    ),
    "car1": (
        "car1(s | g)",
        "u",
        {"Std.Dev.": 2.0, "range": 3.0, "log Std.Dev. per u": 0.4},
        lambda i, j: np.exp(-abs(i.s - j.s) / 3.0),
        lambda i: 2.0 * np.exp(0.4 * i.u),
    ),
    "cs": (
        "cs(1 | g)",
        "arm",
        {"Std.Dev. armA": 2.0, "Std.Dev. armB": 1.0, "cor": -0.2},
        lambda i, j: -0.2,
        lambda i: {"A": 2.0, "B": 1.0}[i.arm],
    ),
    "cs het": (
        "cs(visit | g, hom = FALSE)",
        "log(s + 1)",
        {**_SD, "cor": 0.3, "power of s + 1": 0.5},
        lambda i, j: 0.3,
        lambda i: _SD[f"Std.Dev. {i.visit}"] * (i.s + 1) ** 0.5,
    ),
    "toep": (
        "toep(visit | g)",
        None,
        {"Std.Dev.": 1.5, **{f"cor lag {h + 1}": r for h, r in enumerate(_TOEP)}},
        lambda i, j: _TOEP[abs(i.t - j.t) - 1],
        lambda i: 1.5,
    ),
    "ante": (
        "ante(visit | g, hom = FALSE)",
        None,
        {**_SD, "cor V0, V1": 0.5, "cor V1, V2": 0.0, "cor V2, V3": -0.3},
        lambda i, j: _ante(i.t, j.t, [0.5, 0.0, -0.3]),
        lambda i: _SD[f"Std.Dev. {i.visit}"],
    ),
    "us": (
        "us(visit | g)",
        None,
        {**_SD, **_US},
        _us,
        lambda i: _SD[f"Std.Dev. {i.visit}"],
    ),
    "us by": (
        "us(visit | g, by = arm)",
        None,
        {
            **{f"Std.Dev. A V{t}": 1.0 + t for t in range(4)},
            **{f"Std.Dev. B V{t}": 4.0 - 0.5 * t for t in range(4)},
            **{key.replace("cor ", "cor A "): value for key, value in _US.items()},
            **{key.replace("cor ", "cor B "): -0.5 * value for key, value in _US.items()},
        },
        lambda i, j: {"A": 1.0, "B": -0.5}[i.arm] * _us(i, j),
        lambda i: 1.0 + i.t if i.arm == "A" else 4.0 - 0.5 * i.t,
    ),
    "us hom": (
        "us(visit | g, hom = TRUE)",
        "u",
        {"Std.Dev.": 2.0, **_US, "log Std.Dev. per u": -0.3},
        _us,
        lambda i: 2.0 * np.exp(-0.3 * i.u),
    ),
    "exp": (
        "exp(s + u | g, nugget = TRUE)",
        None,
        {"Std.Dev.": 2.0, "range": 1.5, "nugget": 0.25},
        lambda i, j: 0.75 * np.exp(-np.hypot(i.s - j.s, i.u - j.u) / 1.5),
        lambda i: 2.0,
    ),
    "exp in one dimension": (
        "exp(s | g)",
        None,
        {"Std.Dev.": 2.0, "range": 1.5},
        lambda i, j: np.exp(-abs(i.s - j.s) / 1.5),
        lambda i: 2.0,
    ),
    "gau": (
        "gau(s | g)",
        None,
        {"Std.Dev.": 2.0, "range": 0.9},
        lambda i, j: np.exp(-(((i.s - j.s) / 0.9) ** 2)),
        lambda i: 2.0,
    ),
    "diag": ("diag(visit | g)", None, _SD, lambda i, j: 0.0, lambda i: _SD[f"Std.Dev. {i.visit}"]),
    "variance": (
        None,
        "arm + u",
        {"Std.Dev.": 2.0, "log Std.Dev. per armB": 0.5, "log Std.Dev. per u": -0.2},
        lambda i, j: 0.0,
        lambda i: 2.0 * np.exp(0.5 * (i.arm == "B") - 0.2 * i.u),
    ),
}


def _dense_R(data: pd.DataFrame, correlation: Any, deviation: Any) -> Matrix:
    rows = list(data.itertuples())
    R = np.zeros((len(rows), len(rows)))
    for a, i in enumerate(rows):
        for b, j in enumerate(rows):
            if i.g == j.g and (a == b or correlation(i, j)):
                own = 1.0 if a == b else correlation(i, j)
                R[a, b] = own * deviation(i) * deviation(j) / np.sqrt(i.w * j.w)
    return R


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("random", ["", " + (1 | item)"])
def test_is_what_dense_algebra_gives(case: str, random: str) -> None:
    residual, variance, R, correlation, deviation = CASES[case]
    data = _design()
    V = me.marginal_covariance(
        f"~ t{random}",
        data,
        G={"item": 1.7} if random else None,
        weights="w",
        residual=residual,
        variance=variance,
        R=R,
    )
    dense = _dense_R(data, correlation, deviation)
    assert np.allclose(V.R.sparse().toarray(), dense, rtol=1e-12, atol=1e-13)
    assert V.R.structure is not None
    if random:
        dense = dense + 1.7 * (data["item"].to_numpy()[:, None] == data["item"].to_numpy())
    assert np.allclose(V.dense(), dense, rtol=1e-12, atol=1e-13)
    y = np.random.default_rng(2).standard_normal(len(data))
    inverse = np.linalg.inv(dense)
    assert np.allclose(V.solve(y), inverse @ y, rtol=1e-9, atol=1e-11)
    assert V.logdet() == pytest.approx(np.linalg.slogdet(dense)[1], rel=1e-11)
    assert V.quad(y) == pytest.approx(y @ inverse @ y, rel=1e-10)
    X = V.X.to_numpy()
    assert np.allclose(V.vcov(), np.linalg.inv(X.T @ inverse @ X), rtol=1e-10)
    white = V.whiten(y)
    assert white @ white == pytest.approx(y @ inverse @ y, rel=1e-10)
    coefficients = np.linalg.solve(X.T @ inverse @ X, X.T @ inverse @ y)
    assert np.allclose(me.gls(V.X, y, V).coef, coefficients, rtol=1e-9)
    blocks = np.zeros_like(dense)
    for _, rows, block in V.blocks():
        blocks[np.ix_(rows, rows)] = block
    assert np.allclose(blocks, dense, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("case", CASES)
def test_parameters_come_back(case: str) -> None:
    residual, variance, R, _, _ = CASES[case]
    V = me.marginal_covariance("~ t", _design(), residual=residual, variance=variance, R=R)
    back = V.R.parameters
    assert set(back.index) == set(R)
    for name, value in R.items():
        assert back[name] == pytest.approx(value, rel=1e-12, abs=1e-14)
    # Whatever the order they are given in, and from R itself.
    for given in (pd.Series(R).iloc[::-1], V.R, back):
        same = me.marginal_covariance(
            "~ t", _design(), residual=residual, variance=variance, R=given
        )
        assert np.allclose(same.dense(), V.dense(), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(
    ("formula", "residual", "variance"),
    [
        ("~ t + (1 | g)", "ar1(t | g)", None),
        ("~ t", "ar1(visit | g, hom = FALSE)", None),
        ("~ t + (1 | item)", "ar1(t | g, by = arm)", "u"),
        ("~ t + (1 | item)", "cs(1 | g)", "log(s + 1)"),
        ("~ t", "us(visit | g)", None),
        ("~ t", "toep(visit | g)", None),
        ("~ t", "exp(s + u | g, nugget = TRUE)", None),
        ("~ t + (t | g)", None, "arm + u"),
        ("~ t + (1 | g)", None, "arm"),
    ],
)
def test_is_V_of_a_fit_with_the_same_parameters(
    formula: str, residual: str | None, variance: str | None
) -> None:
    data = _design(30, seed=4)
    rng = np.random.default_rng(3)
    level = dict(zip(data["g"].unique(), rng.standard_normal(30), strict=True))
    data["y"] = data["g"].map(level) + rng.standard_normal(len(data))
    m = me.lmer(f"y {formula}", data, residual=residual, variance=variance, weights="w")
    given = {"residual": residual, "variance": variance, "weights": "w"}
    y = data["y"].to_numpy()
    for G, R in ((m.varcorr, None), (m.G, m.R), (m.G, m.R.parameters)):
        V = me.marginal_covariance(formula, data, G=G, R=R, **given)
        assert np.allclose(V.dense(), m.V.dense(), rtol=1e-10, atol=1e-12)
        assert np.allclose(V.solve(y), m.V.solve(y), rtol=1e-8, atol=1e-10)
        assert np.allclose(V.vcov(), m.vcov(), rtol=1e-8)
        assert V.logdet() == pytest.approx(m.V.logdet(), rel=1e-10)
        assert V.sigma == pytest.approx(m.sigma)
        drawn, own = V.sample(3, seed=1), m.V.sample(3, seed=1)
        assert np.allclose(drawn, own, rtol=1e-8, atol=1e-9)
    other = V.at(1.5 * m.theta, sigma=2.0)
    assert isinstance(other, me.PlannedCovariance)
    assert np.allclose(other.dense(), m.V.at(1.5 * m.theta, sigma=2.0).dense(), rtol=1e-9)
    again = pickle.loads(pickle.dumps(V))
    assert np.allclose(again.dense(), V.dense(), rtol=1e-14)


def test_draws_have_this_covariance() -> None:
    data = _design(2)
    R = {"cor": 0.8, "Std.Dev.": 2.0}
    V = me.marginal_covariance("~ 1", data, residual="ar1(t | g)", R=R)
    draws = V.sample(20_000, seed=1)
    n = len(data)
    off = np.abs(np.cov(draws) - V.dense())
    assert draws.shape == (n, 20_000)
    # Five standard errors of an empirical covariance, at most 4 sqrt(2 / 20,000).
    assert off.max() < 5.0 * 4.0 * np.sqrt(2.0 / 20_000)


def test_a_given_matrix() -> None:
    data = _design(3)
    rng = np.random.default_rng(5)
    root = rng.standard_normal((len(data), len(data)))
    K = root @ root.T + np.eye(len(data))
    V = me.marginal_covariance("~ t", data, residual=me.known(K), sigma=0.5)
    assert np.allclose(V.dense(), 0.25 * K, rtol=1e-12)
    assert np.allclose(V.solve(K[:, 0]), 4.0 * np.eye(len(data))[0], atol=1e-9)
    with pytest.raises(ModelError, match=r"R has no value for 'Std\.Dev\.'"):
        me.marginal_covariance("~ t", data, residual=me.known(K))


def test_sigma_is_the_standard_deviation_left_out() -> None:
    data = _design()
    R = {"cor": 0.5}
    V = me.marginal_covariance("~ t", data, residual="ar1(t | g)", R=R, sigma=3)
    assert V.sigma == 3.0
    assert np.allclose(np.diag(V.dense()), 9.0)
    het = "ar1(visit | g, hom = FALSE)"
    V = me.marginal_covariance("~ t", data, residual=het, R=R, sigma=3)
    assert np.allclose(np.diag(V.dense()), 9.0)
    both = me.marginal_covariance("~ t", data, residual=het, R={**R, **_SD}, sigma=1)
    assert both.R.parameters["Std.Dev. V3"] == pytest.approx(2.5)
    some = {name: _SD[name] for name in ("Std.Dev. V1", "Std.Dev. V2", "Std.Dev. V3")}
    first = me.marginal_covariance("~ t", data, residual=het, R={**R, **some}, sigma=1)
    assert np.allclose(first.dense(), both.dense())
    for one in (1.0, 1, np.float32(1.0), np.int64(1), np.array(1.0)):
        with pytest.raises(ModelError, match=r"sigma is 2 and R\['Std.Dev. V0'\] is 1"):
            given = {**R, **_SD, "Std.Dev. V0": one}
            me.marginal_covariance("~ t", data, residual=het, R=given, sigma=2)
    del some["Std.Dev. V2"]
    with pytest.raises(ModelError, match=r"R has no value for 'Std\.Dev\. V2'"):
        me.marginal_covariance("~ t", data, residual=het, R={**R, **some}, sigma=1)
    # Of independent errors too.
    plain = me.marginal_covariance("~ t + (1 | g)", data, G={"g": 1.0}, R={"Std.Dev.": 2})
    assert plain.sigma == 2.0


AR1, US = "ar1(t | g)", "us(visit | g)"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"residual": AR1, "R": {}}, "R has no value for 'Std.Dev.', 'cor'; the parameters of ar1"),
        ({"residual": AR1, "sigma": 1}, "R has no value for 'cor'"),
        (
            {"residual": AR1, "R": {"cor": 0.5, "Std.Dev": 1}},
            "R names 'Std.Dev', which is no parameter of ar1(t | g); the parameters are "
            "'Std.Dev.', 'cor'. Did you mean 'Std.Dev.'?",
        ),
        ({"residual": AR1, "R": {"cor": 1}, "sigma": 1}, "R['cor'] must be a number between -1"),
        ({"residual": AR1, "R": {"cor": "x"}, "sigma": 1}, "R['cor'] must be a number, not 'x'"),
        ({"residual": AR1, "R": {"cor": True}, "sigma": 1}, "R['cor'] must be a number, not True"),
        ({"residual": AR1, "R": {"cor": 0.5j}, "sigma": 1}, "R['cor'] must be a number, not 0.5j"),
        ({"residual": AR1, "R": {"cor": 0, "Std.Dev.": 0}}, "R['Std.Dev.'] must be a positive"),
        (
            {"residual": "cs(1 | g)", "R": {"cor": -0.4}, "sigma": 1},
            "R['cor'] must be a number between -0.3333 and 1, not -0.4",
        ),
        ({"residual": "car1(s | g)", "R": {"range": -1}, "sigma": 1}, "R['range'] must be a pos"),
        (
            {"residual": "car1(s | g)", "R": {"range": 1e300}, "sigma": 1},
            "is not positive definite, as `car1(s | g)`",
        ),
        (
            {
                "residual": "exp(s | g, nugget = TRUE)",
                "R": {"range": 1, "nugget": 2},
                "sigma": 1,
            },
            "R['nugget'] must be a number from 0 to 1, not 2",
        ),
        (
            {"variance": "u", "sigma": 1, "R": {"log Std.Dev. per u": np.inf}},
            "R['log Std.Dev. per u'] must be a finite number",
        ),
        (
            {"residual": US, "sigma": 1, "R": dict.fromkeys(_US, 0.5) | {"cor V0, V3": -0.9}},
            "The correlations that R gives the times of `us(visit | g)` are not those of any",
        ),
        (
            {
                "residual": "toep(visit | g)",
                "sigma": 1,
                "R": {"cor lag 1": 0.9, "cor lag 2": 0, "cor lag 3": 0},
            },
            "is not positive definite, as `toep(visit | g)`",
        ),
        ({"residual": AR1, "R": 0.5, "sigma": 1}, "R must be a dict from names of parameters"),
        (
            {"residual": AR1, "R": pd.Series([0.1, 0.2], index=["cor", "cor"]), "sigma": 1},
            "R names 'cor' twice",
        ),
        ({"R": {"cor": 0.5}, "sigma": 1, "G": {"g": 1}}, "R names 'cor', and the errors of the"),
        (
            {"variance": "u + v", "sigma": 1, "R": {}},
            "In the rows of this design `v` of variance='u + v' cannot be told from",
        ),
        ({"residual": "cs(1 | g)", "G": {"g": 1}, "R": {"cor": 0}}, "R has no value for 'Std.Dev"),
        ({"R": {"Std.Dev.": "x"}, "G": {"g": 1}}, "sigma must be a positive number, not 'x'"),
        ({"sigma": 1}, "G must be a dict"),
    ],
)
def test_errors_name_what_is_wrong(given: dict[str, Any], said: str) -> None:
    data = _design().assign(v=lambda d: 2 * d["u"])
    formula = "~ t + (1 | g)" if "G" in given or given == {"sigma": 1} else "~ t"
    with pytest.raises(ModelError, match=re.escape(said)):
        me.marginal_covariance(formula, data, **given)


@pytest.mark.parametrize("kind", ["us", "toep", "ante", "ar1"])
def test_one_time_has_no_correlations(kind: str) -> None:
    data = _design().query("t == 0")
    R = {"cor": 0.5} if kind == "ar1" else {}
    V = me.marginal_covariance("~ 1", data, residual=f"{kind}(t | g)", R=R, sigma=2)
    assert np.allclose(V.dense(), 4.0 * np.eye(len(data)))
    assert np.allclose(V.solve(np.ones(len(data))), 0.25)


def test_places_are_checked() -> None:
    twice = pd.concat([_design(2), _design(2)], ignore_index=True)
    with pytest.raises((ModelError, DataError), match="has 2 rows at"):
        me.marginal_covariance("~ t", twice, residual=AR1, R={"cor": 0.5}, sigma=1)


@pytest.fixture(scope="module")
def structured() -> me.LinearMixedModel:
    sleep = me.load_dataset("sleepstudy")
    return me.lmer("Reaction ~ Days + (1 | Subject)", sleep, residual="ar1(Days | Subject)")


def test_components_of_a_fit_do_not_lose_R_silently(structured: me.LinearMixedModel) -> None:
    m, sleep = structured, me.load_dataset("sleepstudy")
    formula = "~ Days + (1 | Subject)"
    said = "G is of a fit with residual='ar1(Days | Subject)', and without these arguments"
    with pytest.raises(ModelError, match=re.escape(said)):
        me.marginal_covariance(formula, sleep, G=m.varcorr)
    with pytest.raises(ModelError, match=re.escape(said)):
        me.marginal_covariance(formula, sleep, G=m.varcorr, sigma=30)
    with pytest.raises(ModelError, match="R is of a fit with residual='ar1"):
        me.marginal_covariance(formula, sleep, G=m.G, R=m.R)
    # G alone is not all of V either: it says whose it is.
    with pytest.raises(ModelError, match=re.escape(said)):
        me.marginal_covariance(formula, sleep, G=m.G, sigma=m.sigma)
    with pytest.raises(ModelError, match=re.escape(said)):
        me.marginal_covariance(formula, sleep, G=m.V.G, sigma=m.sigma)
    with pytest.raises(ModelError, match=re.escape(said)):
        me.marginal_covariance(formula, sleep, G=pickle.loads(pickle.dumps(m.G)), sigma=m.sigma)
    assert me.marginal_covariance(formula, sleep, G=dict(m.G), sigma=m.sigma).R.structure is None
    by_name = {"residual": "ar1(Days | Subject)", "R": dict(m.R.parameters)}
    again = me.marginal_covariance(formula, sleep, G=m.G, **by_name)
    np.testing.assert_allclose(again.dense(), m.V.dense(), rtol=1e-10)
    other = {"residual": "cs(1 | Subject)", "R": {"cor": 0.1}, "sigma": 30.0}
    with pytest.raises(ModelError, match="cs"):
        me.marginal_covariance(formula, sleep, G=m.varcorr, residual="cs(1 | Subject)")
    assert me.marginal_covariance(
        "~ Days + (0 + Days | Subject)", sleep, G={"Subject": 1.0}, **other
    )
    plain = me.lmer("Reaction ~ Days + (1 | Subject)", sleep)
    with pytest.raises(ModelError, match=r"varcorr is of a fit with residual=.*varcorr=dict"):
        me.power(plain, "Days", varcorr=m.varcorr, draws=2, seed=1)
    with pytest.raises(ModelError, match="varcorr is of a fit with residual="):
        me.power(plain, "Days", varcorr=m.G, sigma=30, draws=2, seed=1)
    # A known sigma alone leaves the errors independent.
    known = me.lmer("Reaction ~ Days + (1 | Subject)", sleep, sigma=30.0)
    V = me.marginal_covariance(formula, sleep, G=known.varcorr)
    assert np.allclose(V.dense(), known.V.dense(), rtol=1e-12)
    of_plain = me.marginal_covariance(formula, sleep, G=plain.varcorr, R=plain.R)
    assert np.allclose(of_plain.dense(), plain.V.dense(), rtol=1e-12)
    stored = pickle.loads(pickle.dumps(m.varcorr))
    with pytest.raises(ModelError, match="G is of a fit"):
        me.marginal_covariance(formula, sleep, G=stored)


def test_R_of_a_fit_is_that_of_the_structure(structured: me.LinearMixedModel) -> None:
    m, sleep = structured, me.load_dataset("sleepstudy")
    formula = "~ Days + (1 | Subject)"
    for given in ({"G": m.varcorr}, {"G": m.G, "R": m.R}):
        with pytest.raises(ModelError, match="and the design has cs"):
            me.marginal_covariance(formula, sleep, residual="cs(1 | Subject)", **given)
    # Nor may a part of it be lost.
    het = "ar1(Days | Subject, hom = FALSE)"
    R = me.lmer("Reaction ~ Days", sleep, residual=het).R
    odd = sleep.assign(odd=sleep["Days"] % 2)
    residual = "ar1(Days | Subject)"
    of_two = me.lmer("Reaction ~ Days", odd, residual=residual, variance="factor(odd)").R
    for given in (R, of_two):
        with pytest.raises(ModelError, match=r"and the design has ar1\(Days \| Subject\)\. Give"):
            me.marginal_covariance("~ Days", sleep, residual=residual, R=given, sigma=30)
    short = sleep.query("Days < 4")
    V = me.marginal_covariance(
        formula, short, G=m.varcorr, residual="ar1(Days | Subject)", sigma=m.sigma
    )
    rows = np.flatnonzero(sleep["Days"].to_numpy() < 4)
    assert np.allclose(V.dense(), m.V.dense()[np.ix_(rows, rows)], rtol=1e-12)


def test_a_design_with_fewer_times_than_the_fit() -> None:
    sleep = me.load_dataset("sleepstudy").query("Days < 5")
    short = sleep.query("Days in (0, 2, 3)")
    rows = sleep["Days"].isin([0, 2, 3]).to_numpy()
    m = me.lmer("Reaction ~ Days", sleep, residual="us(Days | Subject)")
    V = me.marginal_covariance("~ Days", short, residual="us(Days | Subject)", R=m.R)
    assert np.allclose(V.dense(), m.V.dense()[np.ix_(rows, rows)], rtol=1e-10)
    # By name every one must be meant.
    with pytest.raises(ModelError, match=r"R names 'Std\.Dev\. 1', which is no parameter"):
        me.marginal_covariance("~ Days", short, residual="us(Days | Subject)", R=m.R.parameters)
    # Times that are counted must be as far apart as they were.
    m = me.lmer("Reaction ~ Days", sleep, residual="toep(Days | Subject)")
    with pytest.raises(ModelError, match="a step would be another length of time"):
        me.marginal_covariance("~ Days", short, residual="toep(Days | Subject)", R=m.R)
    near = sleep.query("Days in (1, 2, 3)")
    V = me.marginal_covariance("~ Days", near, residual="toep(Days | Subject)", R=m.R)
    rows = sleep["Days"].isin([1, 2, 3]).to_numpy()
    assert np.allclose(V.dense(), m.V.dense()[np.ix_(rows, rows)], rtol=1e-10)


def test_a_time_without_rows_needs_no_standard_deviation() -> None:
    data = _design()
    gap = data[data["visit"] != "V1"]
    het = "ar1(visit | g, hom = FALSE)"
    whole = me.marginal_covariance("~ t", data, residual=het, R={**_SD, "cor": 0.6})
    kept = (data["visit"] != "V1").to_numpy()
    some = {key: value for key, value in _SD.items() if key != "Std.Dev. V1"}
    for sds in (some, _SD, {**some, "Std.Dev. V1": np.nan}):
        V = me.marginal_covariance("~ t", gap, residual=het, R={**sds, "cor": 0.6})
        assert np.allclose(V.dense(), whole.dense()[np.ix_(kept, kept)], rtol=1e-12)


def test_pooled_fits_keep_the_residuals_parameters() -> None:
    sleep = me.load_dataset("sleepstudy")
    rng = np.random.default_rng(1)
    data = [sleep.assign(x=sleep["Days"] + rng.normal(0, 0.5, 180)) for _ in range(3)]
    formula, residual = "Reaction ~ x + (1 | Subject)", "ar1(Days | Subject)"
    fits = [me.lmer(formula, each, residual=residual) for each in data]
    pooled = me.pool(fits)
    parameters = [m.R.parameters for m in fits]
    sd, cor = pooled.varcorr.residuals
    assert sd.value == pytest.approx(np.sqrt(np.mean([p["Std.Dev."] ** 2 for p in parameters])))
    assert sd.value == pytest.approx(pooled.varcorr.sigma)
    assert cor.value == pytest.approx(np.mean([p["cor"] for p in parameters]))
    assert f"cor {cor.value:.3f}" in str(pooled.varcorr)
    rows = pooled.tidy("ran_pars").set_index("term")["estimate"]
    assert rows["cor"] == pytest.approx(cor.value)
    V = me.marginal_covariance(formula, sleep.assign(x=0), G=pooled.varcorr, residual=residual)
    assert V.R.parameters["cor"] == pytest.approx(cor.value)
    with pytest.raises(ModelError, match=r"G is of a fit with residual="):
        me.marginal_covariance(formula, sleep.assign(x=0), G=pooled.varcorr)
    plain = me.lmer(formula, data[0])
    with pytest.raises(
        ModelError, match=r"fits\[1\] has residual=None and fits\[0\] residual='ar1"
    ):
        me.pool([fits[0], plain])
    with pytest.raises(ModelError, match=r"fits\[1\] has variance='x' and fits\[0\] variance=None"):
        me.pool([plain, me.lmer(formula, data[1], variance="x")])
    with pytest.raises(ModelError, match=r"fits\[1\] has sigma=30.0 and fits\[0\] sigma=None"):
        me.pool([plain, me.lmer(formula, data[1], sigma=30)])
    early, late = sleep.query("Days < 3"), sleep.query("Days in (0, 1, 3)")
    het = [me.lmer("Reaction ~ Days", d, residual="us(Days | Subject)") for d in (early, late)]
    with pytest.raises(ModelError, match=r"have other parameters than those of fits\[0\]: 'Std"):
        me.pool(het)


def test_a_step_without_rows_does_not_stop_cross_validation() -> None:
    sleep = me.load_dataset("sleepstudy").query("Days < 6 and Days != 3")
    m = me.lmer("Reaction ~ Days", sleep, residual="ar1(Days | Subject, hom = FALSE)")
    assert np.isnan(m.R.parameters["Std.Dev. 3"])
    # The same model with standard deviations by levels, of which there is none for the gap.
    same = me.lmer(
        "Reaction ~ Days", sleep, residual="ar1(Days | Subject)", variance="factor(Days)"
    )
    assert same.criterion == pytest.approx(m.criterion, abs=1e-6)
    one, other = (me.cross_validate(each, folds=3, seed=1).to_frame() for each in (m, same))
    for name in ("rmse", "mae", "elpd"):
        assert one[name].iloc[0] == pytest.approx(other[name].iloc[0], rel=1e-4)
