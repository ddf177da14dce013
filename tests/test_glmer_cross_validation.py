"""Cross-validation of generalized fits: fits to the other rows, and integrals by scipy."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.integrate
import scipy.stats
from numpy.testing import assert_allclose

import mixedeffects as me

USE = "use ~ age + urban + (1 | district)"


@cache
def contraception() -> pd.DataFrame:
    data = me.load_dataset("contraception")
    return data[data["district"].astype(int) <= 20].reset_index(drop=True)


@cache
def use(nagq: int = 1) -> Any:
    return me.glmer(USE, contraception(), family="binomial", nagq=nagq)


def log_likelihood(y: np.ndarray, eta: np.ndarray, sd: float) -> float:
    """Of Bernoulli rows of one group, its effect integrated out."""
    sign = np.where(y == 1, 1.0, -1.0)

    def density(b: float) -> float:
        rows = -np.logaddexp(0.0, -sign * (eta + b)).sum()
        return float(np.exp(rows + shift) * scipy.stats.norm.pdf(b, scale=sd))

    shift = np.logaddexp(0.0, -sign * eta).sum()
    found = scipy.integrate.quad(density, -8 * sd, 8 * sd, epsabs=0, epsrel=1e-10, limit=200)[0]
    return float(np.log(found) - shift)


def by_group(y: np.ndarray, eta: np.ndarray, group: np.ndarray, sd: float) -> float:
    return sum(log_likelihood(y[group == g], eta[group == g], sd) for g in np.unique(group))


def logit_mean(eta: float, variance: float) -> float:
    sd = np.sqrt(variance)

    def density(b: float) -> float:
        return float(scipy.special.expit(eta + b) * scipy.stats.norm.pdf(b, scale=sd))

    return float(scipy.integrate.quad(density, -9 * sd, 9 * sd, epsabs=1e-11)[0])


@pytest.mark.parametrize("nagq", [1, 9])
@pytest.mark.parametrize("by", ["district", None])
def test_densities_and_means_are_integrals(by: str | None, nagq: int) -> None:
    m, data = use(nagq), contraception()
    found = me.cross_validate(m, by=by, folds=4, seed=2)
    out = found.folds == 1
    again = me.glmer(USE, data[~out], family="binomial", nagq=nagq)
    eta = again.predict(data, type="link", re=None).to_numpy()
    y, group = m.fit.frame.y, data["district"].astype(str).to_numpy()
    sd = again.varcorr.sd("district").iloc[0]
    density = by_group(y, eta, group, sd) - by_group(y[~out], eta[~out], group[~out], sd)
    row = found.by_fold.iloc[1]
    assert row["elpd"] == pytest.approx(density, abs=2e-4)

    modes = again.ranef(cond_var=True).to_frame().set_index("level")
    expected = []
    for value, level in zip(eta[out], group[out], strict=True):
        known = level in modes.index
        assert known == (by is None)
        mode = modes["condval"][level] if known else 0.0
        variance = modes["condsd"][level] ** 2 if known else sd**2
        expected.append(logit_mean(value + mode, variance))
    predicted = found.predictions["m1"].to_numpy()[out]
    assert_allclose(predicted, expected, rtol=0, atol=2e-5)
    assert row["brier"] == pytest.approx(np.mean((y[out] - expected) ** 2), abs=2e-5)
    assert row["rmse"] == pytest.approx(np.sqrt(row["brier"]))
    assert row["mae"] == pytest.approx(np.mean(abs(y[out] - expected)), abs=2e-5)


def test_the_table_takes_trials_one_by_one() -> None:
    data = me.load_dataset("cbpp")
    m = me.glmer("incidence / size ~ period + (1 | herd)", data, family="binomial", weights="size")
    found = me.cross_validate(m, by="herd", folds=5, seed=1)
    p = found.predictions["m1"].to_numpy()
    success, trials = (data[name].to_numpy().astype(int) for name in ("incidence", "size"))
    each = np.repeat([1.0, 0.0], [success.sum(), (trials - success).sum()])
    of_each = np.concatenate([np.repeat(p, success), np.repeat(p, trials - success)])
    table = found.to_frame()
    assert list(table) == ["rmse", "mae", "brier", "elpd", "elpd_diff", "se_diff", "failed"]
    assert table.loc["m1", "brier"] == pytest.approx(np.mean((each - of_each) ** 2))
    assert table.loc["m1", "rmse"] == pytest.approx(np.sqrt(np.mean((success / trials - p) ** 2)))
    assert table.loc["m1", "elpd"] == pytest.approx(found.by_fold["elpd"].sum())
    assert "binomial (logit)" in repr(found)


@cache
def crossed() -> pd.DataFrame:
    rng = np.random.default_rng(6)
    n = 300
    # Fewer levels of h than of g in every fold: terms are in the order of their levels.
    g, h = rng.integers(0, 12, n), rng.integers(0, 6, n)
    x, hours, w = rng.normal(size=n), rng.uniform(1, 3, n), rng.uniform(0.5, 1.5, n)
    eta = 0.5 + 0.4 * x + 0.5 * rng.normal(size=12)[g] + 0.4 * rng.normal(size=6)[h]
    mean = hours * np.exp(eta)
    y = rng.negative_binomial(2.0, 2.0 / (2.0 + mean))
    return pd.DataFrame({"y": y, "x": x, "g": g, "h": h, "hours": hours, "w": w})


COUNTS = "y ~ x + (x | g) + (1 | h)"


@pytest.mark.parametrize("by", ["g", None])
@pytest.mark.parametrize("family", ["poisson", "negative_binomial"])
def test_several_factors_weights_and_exposure(family: str, by: str | None) -> None:
    options = {"family": family, "weights": "w", "exposure": "hours"}
    m = me.glmer(COUNTS, crossed(), **options)
    found = me.cross_validate(m, by=by, folds=3, seed=5)
    out = found.folds == 2
    again = me.glmer(COUNTS, crossed()[~out], **options)
    # All rows at the estimates from the others, by the same approximation.
    whole = m.loglik_at(again.theta, again.fixef.to_numpy(), again.phi)
    assert found.by_fold["elpd"][2] == pytest.approx(whole - again.loglik, abs=2e-3)
    assert "brier" not in found.by_fold
    data = crossed()[out]
    eta = again.predict(data, type="link", new_levels="population").to_numpy()
    assert (found.predictions["m1"][out] > np.exp(eta)).all()
    if by == "g":
        # A new g and a known h: the variances of both add.
        G = again.varcorr["g"].to_numpy()
        Z = np.column_stack([np.ones(len(data)), data["x"]])
        new = np.einsum("ia,ab,ib->i", Z, G, Z)
        table = again.ranef(cond_var=True).to_frame()
        table = table[table["grp"] == "h"].set_index("level")
        known = table["condsd"][data["h"].astype(str)].to_numpy() ** 2
        expected = np.exp(eta + 0.5 * (new + known))
        assert_allclose(found.predictions["m1"][out], expected, rtol=1e-3)


def test_a_singular_fit_starts_afresh() -> None:
    rng = np.random.default_rng(8)
    data = pd.DataFrame({"y": rng.poisson(2.0, 120), "g": np.repeat(np.arange(12), 10)})
    m = me.glmer("y ~ 1 + (1 | g)", data, family="poisson")
    assert m.is_singular
    found = me.cross_validate(m, by="g", folds=4, seed=1)
    for fold in range(4):
        out = found.folds == fold
        again = me.glmer("y ~ 1 + (1 | g)", data[~out], family="poisson")
        whole = m.loglik_at(again.theta, again.fixef.to_numpy())
        assert found.by_fold["elpd"][fold] == pytest.approx(whole - again.loglik, abs=5e-3)


def test_families_of_counts_are_compared() -> None:
    fits = [me.glmer(COUNTS, crossed(), family=f) for f in ("negative_binomial", "poisson")]
    table = me.cross_validate(*fits, folds=4, seed=1).to_frame()
    assert table["elpd_diff"].tolist()[0] == 0.0
    assert table["elpd_diff"].tolist()[1] < 0.0


def test_folds_without_estimates_are_said() -> None:
    data = contraception()
    first = data["district"].astype(int) == 1
    data = data.assign(only=first.astype(float))
    m = me.glmer("use ~ age + only + (1 | district)", data, family="binomial")
    found = me.cross_validate(m, by="district")
    assert found.to_frame().loc["m1", "failed"] == 1
    assert "fixed effects cannot all be estimated from the other rows: 'only' cannot" in repr(found)
    # A success of a treated patient is what keeps its coefficient finite.
    y = np.tile([0.0, 1.0], 30)
    treated = np.repeat([0.0, 1.0], [52, 8])
    y[52:] = [1, 0, 0, 0, 0, 0, 0, 0]
    few = pd.DataFrame({"y": y, "treated": treated, "g": np.arange(60) % 6})
    m = me.glmer("y ~ treated + (1 | g)", few, family="binomial")
    found = me.cross_validate(m, folds=60)
    assert np.flatnonzero(found.by_fold["elpd"].isna()).tolist() == [52]
    assert "'treated'" in found.by_fold["note"][52] or "`treated`" in found.by_fold["note"][52]


def test_models_of_other_things_are_refused() -> None:
    data = crossed()
    counts = me.glmer("y ~ x + (1 | g)", data, family="poisson")
    with pytest.raises(me.ModelError, match="a generalized and a linear mixed model"):
        me.cross_validate(counts, me.lmer("y ~ x + (1 | g)", data))
    cbpp = me.load_dataset("cbpp").assign(share=lambda d: d["incidence"] / d["size"])
    more = cbpp.assign(size=2 * cbpp["size"])
    of = "share ~ period + (1 | herd)"
    fits = [me.glmer(of, own, family="binomial", weights="size") for own in (cbpp, more)]
    with pytest.raises(me.ModelError, match="different numbers of trials"):
        me.cross_validate(*fits)
