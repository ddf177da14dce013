"""Power of tests of generalized fits: each draw fitted afresh, and powers that are known."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mixedeffects as me
from mixedeffects.inference.contrast_likelihood_ratio import contrast_likelihood_ratio
from mixedeffects.prediction.planned_responses import DrawnFromFamily, PlannedResponses

#: Of small data sets some have no overdispersion, which is said.
pytestmark = pytest.mark.filterwarnings("ignore:Theta of the negative_binomial family")


@cache
def herds() -> Any:
    data = me.load_dataset("cbpp")
    return me.glmer(
        "incidence / size ~ period + (1 | herd)", data, family="binomial", weights="size"
    )


@cache
def counts() -> Any:
    rng = np.random.default_rng(2)
    n = 160
    data = pd.DataFrame({"g": np.arange(n) % 20, "x": rng.normal(size=n)})
    data["hours"], data["o"], data["w"] = rng.uniform(1, 3, n), rng.normal(size=n), 1.5
    mean = data["hours"] * np.exp(0.5 + 0.3 * data["x"] + data["o"])
    data["y"] = rng.poisson(mean * np.exp(0.5 * rng.normal(size=20)[data["g"]]))
    formula = "y ~ x + offset(o) + (1 | g)"
    return me.glmer(formula, data, family="negative_binomial", exposure="hours", weights="w")


def test_draws_are_fitted_as_new_data_are() -> None:
    m = counts()
    drawn = DrawnFromFamily(m.fit, {"g": 0.3}, phi=np.log(2.0))
    data = drawn.rows()
    planned = PlannedResponses(drawn, data, np.array([0.5, 0.2]))
    Y = planned.draw(3, np.random.default_rng(4))
    for y in Y.T:
        again = planned.fitted(y)
        own = m.frame.data.assign(y=y, w=1.5)
        fresh = me.glmer(m.formula, own, family=m.family, exposure="hours", weights="w")
        assert again.criterion == pytest.approx(fresh.criterion, abs=1e-5)
        np.testing.assert_allclose(again.beta, fresh.fixef, atol=1e-4)
        np.testing.assert_allclose(again.vcov, fresh.vcov(), rtol=1e-2)


def test_draws_have_the_moments_of_the_model() -> None:
    m = herds()
    drawn = DrawnFromFamily(m.fit, {"herd": 0.5})
    beta = np.array([-1.0, 0.0, 0.5, 0.0])
    Y = PlannedResponses(drawn, drawn.rows(), beta).draw(4000, np.random.default_rng(1))
    trials = m.fit.response.trials[:, None]
    np.testing.assert_allclose(Y * trials, np.rint(Y * trials), atol=1e-9)
    # Population means, by the rule for normal random effects.
    z, w = np.polynomial.hermite_e.hermegauss(40)
    eta = m.fit.frame.X @ beta
    mean = (1 / (1 + np.exp(-(eta[:, None] + np.sqrt(0.5) * z)))) @ (w / w.sum())
    error = 4.5 * Y.std(axis=1) / np.sqrt(4000)
    assert (np.abs(Y.mean(axis=1) - mean) < error).all()


def test_power_grows_from_the_level() -> None:
    options = {"draws": 80, "seed": 3, "varcorr": {"herd": 0.4}}
    none = me.power(herds(), ["period2"], n=15, effects={"period2": 0.0}, **options).table.loc[0]
    assert none["power"] < 0.16
    table = me.power(herds(), ["period2"], n=[10, 45], effects={"period2": -0.8}, **options).table
    assert table["power"].iloc[1] > table["power"].iloc[0] + 0.2
    assert table["n"].tolist() == [10, 45]
    again = me.power(herds(), ["period2"], n=[10, 45], effects={"period2": -0.8}, **options).table
    pd.testing.assert_frame_equal(table, again)


def test_offsets_weights_and_the_parameter_of_the_family_reach_the_design() -> None:
    options = {"n": [10, 40], "effects": {"x": 0.3}, "draws": 15, "seed": 1}
    found = me.power(counts(), "x", phi=5.0, vcov="CR1", **options)
    assert found.table["rows"].tolist() == [80, 320]
    assert found.test == "x (CR1)"
    wild = me.power(counts(), "x", phi=0.05, **options).table
    assert wild["power"].iloc[1] < found.table["power"].iloc[1]


@pytest.mark.parametrize("nagq", [1, 5])
def test_likelihood_ratios_are_those_of_two_fits(nagq: int) -> None:
    m = herds().update(nagq=nagq)
    smaller = m.update("~ . - period")
    statistic, df, p = contrast_likelihood_ratio(m.fit, "period")
    row = me.anova(smaller, m).table.iloc[1]
    assert (statistic, df) == (pytest.approx(row["Chisq"], abs=1e-6), row["Df"])
    assert p == pytest.approx(row["Pr(>Chisq)"], rel=1e-5)
    # Two periods that are the same.
    data = me.load_dataset("cbpp")
    data["late"] = np.where(data["period"].isin(["2", "3"]), "23", data["period"].astype(str))
    merged = me.glmer(
        "incidence / size ~ late + (1 | herd)", data, family="binomial", weights="size", nagq=nagq
    )
    found = contrast_likelihood_ratio(m.fit, [[0.0, 1.0, -1.0, 0.0]])
    assert found[0] == pytest.approx(merged.criterion - m.criterion, abs=1e-6)
    # Of all coefficients, and beside a parameter of the family and an offset.
    assert contrast_likelihood_ratio(smaller.fit, "(Intercept)")[0] == pytest.approx(
        smaller.update("~ . - 1").criterion - smaller.criterion, abs=1e-6
    )
    other = counts()
    assert contrast_likelihood_ratio(other.fit, "x")[0] == pytest.approx(
        other.update("~ . - x").criterion - other.criterion, abs=1e-6
    )


def test_power_of_likelihood_ratios() -> None:
    options = {"draws": 60, "seed": 3, "varcorr": {"herd": 0.4}, "effects": {"period2": -0.8}}
    wald = me.power(herds(), ["period2"], n=15, **options)
    ratio = me.power(herds(), ["period2"], n=15, statistic="likelihood-ratio", **options)
    assert ratio.test == "the hypothesis (likelihood ratio)"
    # The same data sets, whose tests agree but for few.
    assert abs(ratio.table["power"][0] - wald.table["power"][0]) < 0.1
    with pytest.raises(me.ModelError, match="uses no standard errors"):
        me.power(herds(), "period", draws=2, statistic="likelihood-ratio", vcov="CR1")
    m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
    with pytest.raises(me.ModelError, match="is for generalized models"):
        me.power(m, "(Intercept)", draws=2, statistic="likelihood-ratio")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sigma": 1.0}, "sigma= is of the residuals of a linear model"),
        ({"residual": "ar1(period | herd)"}, "residual= is of the residuals"),
        ({"phi": 1.0}, "has none"),
        ({"ddf": "kr"}, "is for linear mixed models"),
        ({"varcorr": {"cow": 1.0}}, "cow"),
    ],
)
def test_what_a_generalized_model_does_not_have(given: dict[str, Any], message: str) -> None:
    with pytest.raises(me.ModelError, match=message):
        me.power(herds(), "period", draws=2, **given)


def test_a_linear_model_has_no_parameter_of_a_family() -> None:
    m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
    with pytest.raises(me.ModelError, match="phi= is the parameter of the family"):
        me.power(m, "(Intercept)", draws=2, phi=1.0)
