"""Power of models with residual structures: against theory, and by its parts."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import mixedeffects as me
from mixedeffects.errors import ModelError
from mixedeffects.prediction.drawn_covariance import DrawnCovariance


def _plan(n: int = 20, visits: int = 4, seed: int = 1) -> pd.DataFrame:
    data = pd.DataFrame({"id": np.repeat(np.arange(n), visits), "t": np.tile(range(visits), n)})
    data["arm"] = np.where(data["id"] % 2 == 0, "a", "b")
    data["visit"] = pd.Categorical([f"V{t}" for t in data["t"]])
    data["site"] = np.where(data["id"] < n // 2, "s1", "s2")
    rng = np.random.default_rng(seed)
    data["u"] = rng.random(len(data))
    data["w"] = rng.uniform(0.5, 2.0, len(data))
    data["y"] = rng.standard_normal(len(data)) + 0.5 * rng.standard_normal(n)[data["id"]]
    return data


@pytest.fixture(scope="module")
def trial() -> me.LinearMixedModel:
    return me.lmer("y ~ arm", _plan(), residual="cs(1 | id)")


def _exact_power(patients: int, visits: int, cor: float, effect: float) -> float:
    """Of the t-test of the patients' means, which is that of the model in a balanced design."""
    se = np.sqrt(4.0 * (1.0 + (visits - 1) * cor) / visits / patients)
    critical = stats.t.isf(0.025, patients - 2)
    nct = stats.nct(patients - 2, effect / se)
    return float(nct.sf(critical) + nct.cdf(-critical))


@pytest.mark.slow
@pytest.mark.parametrize("cor", [-0.2, 0.6])
def test_power_is_that_of_the_t_test_of_means(trial: me.LinearMixedModel, cor: float) -> None:
    effect = 0.5 if cor < 0 else 1.0
    found = me.power(
        trial, "arm", n=[10, 24], effects={"armb": effect}, R={"cor": cor}, sigma=1.0, draws=300,
        seed=3,
    )  # fmt: skip
    assert found.along == "levels of id"
    table = found.table
    for size, share, rows in zip(table["n"], table["power"], table["rows"], strict=True):
        truth = _exact_power(size, 4, cor, effect)
        assert rows == 4 * size and 0.1 < truth < 0.99
        assert abs(share - truth) < 3.5 * np.sqrt(truth * (1.0 - truth) / 300)


@pytest.mark.slow
def test_a_structure_that_the_model_lacks_costs_its_level() -> None:
    """Independent errors are fitted to autocorrelated ones; clusters of CR2 know nothing of it."""
    m = me.lmer("y ~ arm", _plan(), variance="arm")
    arguments = {"draws": 200, "seed": 5, "effects": {"armb": 0.0}, "residual": "ar1(t | id)"}
    arguments |= {"variance": None, "R": {"cor": 0.8}, "sigma": 1.0}
    wrong = me.power(m, "arm", **arguments).table
    robust = me.power(m, "arm", vcov="CR2", cluster="id", **arguments).table
    # The t statistic is too large by the root of 1 + 2 (3 .8 + 2 .64 + .512) / 4.
    inflation = np.sqrt(1.0 + 2.0 * (3 * 0.8 + 2 * 0.64 + 0.512) / 4.0)
    assert wrong["power"][0] == pytest.approx(2 * stats.norm.sf(1.98 / inflation), abs=0.12)
    assert robust["lower"][0] < 0.05 < robust["upper"][0]


FITS = {
    "ar1": ("y ~ arm + t", {"residual": "ar1(t | id)"}),
    "us": ("y ~ arm * visit", {"residual": "us(visit | id)"}),
    "strata": ("y ~ arm + t", {"residual": "cs(1 | id, by = site)", "weights": "w"}),
    "crossed": ("y ~ arm + (1 | visit)", {"residual": "ar1(t | id)", "variance": "u"}),
    "variance": ("y ~ arm + (1 | id)", {"variance": "site", "reml": False}),
    "known sigma": ("y ~ arm + (1 | id)", {"sigma": 1.0, "weights": "w"}),
    "linear": ("y ~ arm", {"sigma": 1.0, "weights": "w"}),
    "known": ("y ~ arm", {"residual": me.known(np.kron(np.eye(20), np.eye(4) + 0.4))}),
}


@pytest.mark.parametrize("name", list(FITS))
def test_responses_are_drawn_with_V_of_the_fit_and_fitted_as_it_was(name: str) -> None:
    formula, arguments = FITS[name]
    data = _plan()
    m = me.lmer(formula, data, **arguments)
    weights = "prior_weights" if "weights" in arguments else None
    rows = m.frame.data if weights is None else m.frame.data.assign(prior_weights=m.frame.weights)
    V = DrawnCovariance(m.fit).in_design(rows, weights)
    np.testing.assert_allclose(V.dense(), m.V.dense(), rtol=1e-8, atol=1e-10)
    # The first draw by hand: the same response, fitted and tested.
    seed, mean = 7, np.asarray(m.X) @ m.fixef.to_numpy()
    sequence = np.random.SeedSequence(seed, spawn_key=(0, 0))
    draws = V.sample(64, seed=np.random.default_rng(sequence), mean=mean)
    p = [m.refit(draws[:, j]).wald("arm").p for j in range(4)]
    found = me.power(m, "arm", draws=4, seed=seed, alpha=float(np.mean(sorted(p)[1:3])))
    assert found.table["significant"][0] == 2 and found.table["failed"][0] == 0


def test_larger_designs_have_more_residual_groups() -> None:
    m = me.lmer("y ~ arm * visit", _plan(), residual="us(visit | id)")
    assert me.power(m, "arm", n=[30], draws=2, seed=1).table["rows"].tolist() == [120]
    # Groups of residuals within levels of random effects are other groups in their copies.
    nested = me.lmer("y ~ arm + t + (1 | site)", _plan(), residual="ar1(t | id)")
    found = me.power(nested, "t", n=[6], draws=2, seed=1)
    assert found.along == "levels of site" and found.table["rows"].tolist() == [240]
    assert found.table["failed"].tolist() == [0]
    by_id = me.power(nested, "t", n=[31], along="id", draws=2, seed=1).table
    assert by_id["rows"].tolist() == [124]


def test_parameters_in_place_of_estimates() -> None:
    m = me.lmer("y ~ arm * visit", _plan(), residual="us(visit | id)")
    own = m.R.parameters
    other = DrawnCovariance(m.fit, R={"cor V0, V1": 0.2, "Std.Dev. V2": 3.0})
    found = other.in_design(m.frame.data, None).R.parameters
    expected = own.copy()
    expected[["cor V0, V1", "Std.Dev. V2"]] = 0.2, 3.0
    pd.testing.assert_series_equal(found, expected)
    for_all = DrawnCovariance(m.fit, sigma=2.0).in_design(m.frame.data, None).R.parameters
    assert for_all[:4].tolist() == pytest.approx([2.0] * 4)
    np.testing.assert_allclose(for_all[4:], own[4:])
    of_fit = DrawnCovariance(m.fit, R=m.R).in_design(m.frame.data, None)
    np.testing.assert_allclose(of_fit.dense(), m.V.dense(), rtol=1e-8)
    again = DrawnCovariance(m.fit, varcorr=m.varcorr).in_design(m.frame.data, None)
    np.testing.assert_allclose(again.dense(), m.V.dense(), rtol=1e-8)
    # Visits that a smaller design does not have are left out.
    fewer = m.frame.data[m.frame.data["visit"] != "V3"]
    fewer = fewer.assign(visit=fewer["visit"].cat.remove_unused_categories())
    assert len(DrawnCovariance(m.fit).in_design(fewer, None).R.parameters) == 6


def test_components_beside_those_of_residuals() -> None:
    m = me.lmer("y ~ arm + (1 | site)", _plan(), residual="ar1(t | id)")
    V = DrawnCovariance(m.fit, varcorr={"site": 4.0}, R={"cor": 0.5}, sigma=2.0).in_design(
        m.frame.data, None
    )
    assert np.asarray(V.G @ np.eye(2)) == pytest.approx(4.0 * np.eye(2))
    assert V.R.parameters.tolist() == pytest.approx([2.0, 0.5])
    independent = DrawnCovariance(m.fit, residual=None).in_design(m.frame.data, None)
    R = independent.R.dense() if hasattr(independent.R, "dense") else independent.R @ np.eye(80)
    np.testing.assert_allclose(R, m.sigma**2 * np.eye(80))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"R": {"corr": 0.5}}, r"R names 'corr', which is not one of 'Std.Dev.', 'cor'"),
        ({"R": {"cor": 1.5}}, "cor"),
        ({"residual": "cs(1 | id)"}, "cor"),
        ({"residual": "car1(t | id)"}, r"R has no value for 'range'"),
        ({"residual": me.known(np.eye(80))}, "residual= of `power` is a structure"),
        ({"along": "t", "n": [5]}, "along names 't'"),
        ({"within": "id", "n": [8]}, "id"),
    ],
)
def test_what_cannot_be_drawn(arguments: dict[str, object], message: str) -> None:
    m = me.lmer("y ~ arm", _plan(), residual="ar1(t | id)")
    with pytest.raises((ModelError, me.DataError), match=message):
        me.power(m, "arm", draws=2, seed=1, **arguments)


def test_what_has_no_larger_design() -> None:
    known = me.lmer("y ~ arm", _plan(), residual=me.known(np.kron(np.eye(20), np.eye(4) + 0.4)))
    with pytest.raises(ModelError, match="no groups whose levels n could count"):
        me.power(known, "arm", n=[30], draws=2)
    with pytest.raises(ModelError, match=re.escape("leave n out")):
        me.power(known, "arm", n=[3], within="arm", draws=2)
    grouped = me.lmer("y ~ arm + (1 | visit)", _plan(), residual="ar1(t | id)")
    crossed = me.lmer("y ~ arm + (1 | t)", _plan(), residual="ar1(t | id)")
    with pytest.raises(ModelError, match="has 2 rows"):
        me.power(grouped, "arm", n=[6], along="visit", draws=1)
    with pytest.raises(ModelError, match="is a position of residuals"):
        me.power(crossed, "arm", n=[6], along="t", draws=2)
