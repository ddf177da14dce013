"""Profiles of generalized models with covariance structures, each point against a dense minimum."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.stats
from numpy.typing import NDArray

import mixedeffects as me

Matrix = NDArray[np.float64]


def counts(seed: int = 5) -> pd.DataFrame:
    """Counts of 24 rooms with 3 weeks each, 3 rows a week; effects of weeks are correlated."""
    rng = np.random.default_rng(seed)
    rooms, weeks, rows = 24, 3, 3
    lag = np.abs(np.subtract.outer(np.arange(weeks), np.arange(weeks)))
    b = 0.7 * rng.normal(size=(rooms, weeks)) @ np.linalg.cholesky(0.5**lag).T
    data = pd.DataFrame(
        {
            "room": np.repeat(np.arange(rooms), weeks * rows),
            "week": np.tile(np.repeat(np.arange(weeks), rows), rooms),
            "x": rng.normal(size=rooms * weeks * rows),
        }
    )
    eta = 0.6 + 0.3 * data["x"] + b[data["room"], data["week"]]
    data["y"] = rng.poisson(np.exp(eta)).astype(float)
    data["week"] = "w" + data["week"].astype(str)
    return data


def laplace(m: Any, Sigma: Matrix, beta: Matrix) -> float:
    """Laplace's -2 log L of a Poisson model with one term, all matrices dense."""
    y, X = m.frame.y, m.frame.X
    (term,) = m.frame.terms
    k, levels = len(Sigma), term.n_levels
    values, vectors = np.linalg.eigh(Sigma)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    Z = np.zeros((len(y), levels * k))
    for a in range(k):
        Z[np.arange(len(y)), k * term.codes + a] = term.z[:, a]
    ZL = Z @ np.kron(np.eye(levels), root)
    u = np.zeros(levels * k)
    for _ in range(60):
        mu = np.exp(X @ beta + ZL @ u)
        M = ZL.T @ (mu[:, None] * ZL) + np.eye(levels * k)
        step = np.linalg.solve(M, ZL.T @ (y - mu) - u)
        u = u + step * min(1.0, 2.0 / np.abs(step).max())
        if np.abs(step).max() < 1e-11:
            break
    mu = np.exp(X @ beta + ZL @ u)
    M = ZL.T @ (mu[:, None] * ZL) + np.eye(levels * k)
    f = -2.0 * float(scipy.stats.poisson.logpmf(y, mu).sum()) + float(u @ u)
    return f + float(np.linalg.slogdet(M)[1])


def covariance(kind: str, sd: Any, rho: float) -> Matrix:
    k = len(sd)
    lag = np.abs(np.subtract.outer(np.arange(k), np.arange(k)))
    R = {"ar1": rho**lag, "cs": np.where(lag == 0, 1.0, rho), "diag": np.where(lag == 0, 1.0, 0.0)}
    return np.outer(sd, sd) * R[kind]


TERMS = {
    "ar1": "ar1(0 + week | room)",
    "cs": "cs(0 + week | room)",
    "diag": "diag(x | room)",
}


@pytest.mark.parametrize(
    ("kind", "name", "values"),
    [
        ("ar1", "sd|room", [0.4, 1.1]),
        ("ar1", "cor|room", [-0.1]),
        ("ar1", "x", [0.15]),
        ("cs", "sd_weekw1|room", [0.0]),
        ("cs", "cor|room", [-0.2, 0.9]),
        ("diag", "sd_(Intercept)|room", [0.3, 0.9]),
        ("diag", "sd_x|room", [0.0, 0.25]),
    ],
)
def test_each_point_is_a_minimum(kind: str, name: str, values: list[float]) -> None:
    data = counts()
    m = me.glmer(f"y ~ x + {TERMS[kind]}", data, family="poisson")
    own = m.covariance_parameters
    profile = m.profile(name, 0.9)
    n_sd = len(own) - (kind != "diag")
    k = len(m.fit.G_blocks[0])
    names = [*own.index, *m.fixef.index]
    place = names.index(name)

    def deviance(free: Matrix, value: float) -> float:
        at = np.insert(free, place, 0.0)
        sd, rho = np.exp(at[:n_sd]), np.tanh(at[n_sd]) if kind != "diag" else 0.0
        beta = at[len(own) :].copy()
        if place < n_sd:
            sd[place] = value
        elif place < len(own):
            rho = value
        else:
            beta[place - len(own)] = value
        if kind == "cs" and rho <= -0.499:
            return 1e10
        return laplace(m, covariance(kind, np.broadcast_to(sd, k) if n_sd == 1 else sd, rho), beta)

    first = [*np.log(np.maximum(own.iloc[:n_sd], 0.05)), *np.arctanh(own.iloc[n_sd:]), *m.fixef]
    for value in values:
        found = scipy.optimize.minimize(
            deviance,
            np.delete(np.array(first), place),
            args=(value,),
            method="BFGS",
            options={"gtol": 1e-4, "maxiter": 200},
        )
        assert profile.zeta(name, value) ** 2 == pytest.approx(found.fun - m.criterion, abs=5e-6)


def test_intervals_of_all_parameters() -> None:
    data = counts()
    m = me.glmer(f"y ~ x + {TERMS['ar1']}", data, family="negative_binomial")
    table = m.confint("profile")
    assert list(table.index) == ["sd|room", "cor|room", "theta", "(Intercept)", "x"]
    own = pd.concat([m.covariance_parameters, pd.Series({"theta": m.phi}), m.fixef])
    assert (table["lower"] < own.to_numpy()).all() and (own.to_numpy() < table["upper"]).all()
    profile = m.profile("cor|room")
    for end in table.loc["cor|room"]:
        assert abs(profile.zeta("cor|room", end)) == pytest.approx(1.959964, abs=1e-5)
    points = profile.to_frame()
    assert {"sd|room", "cor|room", "theta", "x"} < {*points}
    np.testing.assert_array_equal(points["cor|room"], points["value"])


def test_a_structure_beside_other_terms() -> None:
    data = counts()
    data["block"] = data["room"] % 6
    m = me.glmer(f"y ~ x + {TERMS['cs']} + (1 | block)", data, family="poisson")
    name = "sd_(Intercept)|block"
    profile = m.profile(name, 0.9)
    alone = me.glmer(f"y ~ x + {TERMS['cs']}", data, family="poisson")
    assert profile.zeta(name, 0.0) ** 2 == pytest.approx(alone.criterion - m.criterion, abs=1e-6)


def test_any_covariance_of_two_effects_beside_a_structure() -> None:
    data = counts()
    data["block"] = data["room"] % 6
    # Those of two columns are of the structure cs, whichever way they are written.
    m = me.glmer("y ~ x + (x | room) + diag(1 | block)", data, family="poisson")
    other = me.glmer("y ~ x + cs(x | room) + diag(1 | block)", data, family="poisson")
    plain = me.glmer("y ~ x + (x | room) + (1 | block)", data, family="poisson")
    tables = [each.confint("profile", "random") for each in (m, other, plain)]
    assert list(tables[0].index) == list(tables[2].index)
    np.testing.assert_allclose(tables[0], tables[2], atol=2e-4)
    np.testing.assert_allclose(tables[1], tables[0].iloc[[0, 2, 1, 3]], atol=1e-6)
    m = me.glmer("y ~ x + diag(1 | block) + (0 + week | room)", data, family="poisson")
    with pytest.raises(me.ModelError, match=r"Profiles of sd_weekw0\|room, cor_weekw1"):
        m.profile()
    assert m.profile("x", 0.5).parameters == ["x"]
