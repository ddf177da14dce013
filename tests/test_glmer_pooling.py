"""Pooled generalized fits: Rubin's rules written out from the fits' own tables."""

from __future__ import annotations

import pickle
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from numpy.testing import assert_allclose

import mixedeffects as me

FORMULA = "use ~ age + urban + livch + (1 | district)"


@cache
def imputed() -> list[pd.DataFrame]:
    data = me.load_dataset("contraception")
    data = data[data["district"].astype(int) <= 25]
    rng = np.random.default_rng(1)
    return [data.assign(age=data["age"] + rng.normal(0.0, 4.0, len(data))) for _ in range(5)]


@cache
def fits() -> list[Any]:
    return [me.glmer(FORMULA, data, family="binomial") for data in imputed()]


@cache
def counts() -> list[Any]:
    rng = np.random.default_rng(4)
    n = 240
    g = rng.integers(0, 20, n)
    x = rng.normal(size=n)
    mean = np.exp(1.0 + 0.4 * x + 0.5 * rng.normal(size=20)[g])
    data = pd.DataFrame({"y": rng.negative_binomial(2.0, 2.0 / (2.0 + mean)), "g": g})
    noisy = [data.assign(x=x + rng.normal(0.0, 0.3, n)) for _ in range(3)]
    return [me.glmer("y ~ x + (1 | g)", own, family="negative_binomial") for own in noisy]


@pytest.mark.parametrize("vcov", ["model", "conditional", "CR1"])
def test_rubins_rules_written_out(vcov: str) -> None:
    options = {"cluster": "district"} if vcov == "CR1" else {}
    pooled = me.pool(fits(), vcov=vcov, **options)
    Q = np.array([m.fixef for m in fits()])
    U = np.mean([np.diag(m.vcov(vcov)) for m in fits()], axis=0)
    m = len(Q)
    B = Q.var(axis=0, ddof=1)
    total = U + (1 + 1 / m) * B
    r = (1 + 1 / m) * B / U
    # Rubin's degrees of freedom of 1987: the complete data's are infinite.
    df = (m - 1) * (1 + 1 / r) ** 2
    t = Q.mean(axis=0) / np.sqrt(total)
    half = scipy.stats.t.ppf(0.95, df) * np.sqrt(total)
    table = pooled.coef_table(level=0.9)
    assert_allclose(table["Estimate"], Q.mean(axis=0), rtol=1e-10)
    assert_allclose(table["Std. Error"], np.sqrt(total), rtol=1e-10)
    assert_allclose(table["df"], df, rtol=1e-8)
    assert_allclose(table["Pr(>|t|)"], 2 * scipy.stats.t.sf(abs(t), df), rtol=1e-8)
    assert_allclose(table["upper"] - table["Estimate"], half, rtol=1e-8)
    assert_allclose(table["RIV"], r, rtol=1e-8)
    assert_allclose(table["FMI"], (r + 2 / (df + 3)) / (r + 1), rtol=1e-8)


def test_the_number_that_mice_takes() -> None:
    """Barnard and Rubin (1999) written out with the residual degrees of freedom."""
    complete = float(fits()[0].df_resid)
    pooled = me.pool(fits(), ddf=complete)
    Q = np.array([m.fixef for m in fits()])
    U = np.mean([np.diag(m.vcov()) for m in fits()], axis=0)
    B = 1.2 * Q.var(axis=0, ddof=1)
    lost = B / (U + B)
    old = 4 / lost**2
    observed = (complete + 1) / (complete + 3) * complete * (1 - lost)
    assert_allclose(pooled.coef_table()["df"], old * observed / (old + observed), rtol=1e-8)
    assert pooled.method == "837 complete-data degrees of freedom"


def test_the_joint_test_written_out() -> None:
    pooled = me.pool(fits())
    names = [name for name in pooled.estimates.index if name.startswith("livch")]
    Q = np.array([m.fixef[names] for m in fits()])
    U = np.mean([m.vcov().loc[names, names].to_numpy() for m in fits()], axis=0)
    B = np.cov(Q, rowvar=False)
    r = 1.2 * np.trace(B @ np.linalg.inv(U)) / 3
    q = Q.mean(axis=0)
    F = q @ np.linalg.solve(U, q) / 3 / (1 + r)
    # Li, Raghunathan and Rubin (1991) for t = 12 > 4.
    df = 4 + (12 - 4) * (1 + (1 - 2 / 12) / r) ** 2
    found = pooled.wald("livch")
    assert_allclose(found.statistic, F, rtol=1e-9)
    assert_allclose(found.den_df, df, rtol=1e-8)
    assert_allclose(found.p, scipy.stats.f.sf(F, 3, df), rtol=1e-8)
    assert_allclose(pooled.anova().loc["livch", "F value"], F, rtol=1e-9)
    tests = pooled.joint_tests().set_index("term")
    assert_allclose(tests.loc["livch", "statistic"], F, rtol=1e-9)


def test_variances_and_the_parameter_of_the_family() -> None:
    pooled = me.pool(counts())
    own = [m.phi for m in counts()]
    assert_allclose(pooled.phi, np.prod(own) ** (1 / 3), rtol=1e-12)
    variance = np.mean([m.varcorr["g"].iloc[0, 0] for m in counts()])
    assert_allclose(pooled.varcorr["g"].iloc[0, 0], variance, rtol=1e-12)
    assert pooled.varcorr.sigma is None
    parameters = pooled.tidy("ran_pars")
    assert parameters[["group", "term"]].to_numpy().tolist() == [
        ["g", "sd__(Intercept)"],
        ["Family", "theta"],
    ]
    assert_allclose(parameters["estimate"], [variance**0.5, pooled.phi], rtol=1e-12)
    assert me.pool(fits()).phi is None
    assert pickle.loads(pickle.dumps(pooled)).phi == pooled.phi
    assert "negative_binomial" in repr(pooled)


def test_means_are_linear_functions_on_the_links_scale() -> None:
    pooled = me.pool(fits())
    means = pooled.emmeans("urban", at={"age": 0.0}).to_frame()
    rows = np.array([[1, 0, u, 0.25, 0.25, 0.25] for u in (0, 1)], dtype=float)
    assert_allclose(means["estimate"], rows @ pooled.estimates, rtol=1e-10)
    assert_allclose(
        means["std_error"] ** 2, np.diag(rows @ pooled.vcov.to_numpy() @ rows.T), rtol=1e-9
    )
    with pytest.raises(me.ModelError, match="type='response' is not there yet"):
        pooled.emmeans("urban", type="response")


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"family": me.families.Binomial("probit")}, "family="),
        ({"nagq": 5}, "nagq=5 and fits"),
        ({"formula": "age ~ urban + livch + (1 | district)"}, "a linear mixed model"),
    ],
)
def test_other_models_are_refused(others: dict[str, Any], message: str) -> None:
    data = imputed()[1]
    if "formula" in others:
        other: Any = me.lmer(others["formula"], data)
    else:
        other = me.glmer(FORMULA, data, **{"family": "binomial", **others})
    with pytest.raises(me.ModelError, match=message):
        me.pool([fits()[0], other])


def test_degrees_of_freedom_of_linear_models_are_refused() -> None:
    with pytest.raises(me.ModelError, match="for linear mixed models"):
        me.pool(fits(), ddf="satterthwaite")
