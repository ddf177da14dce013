"""Standardised coefficients of generalized fits: predictors alone, against fits by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixedeffects as me


def herds() -> pd.DataFrame:
    """The herds with a made up age, other than the numbers of animals."""
    data = me.load_dataset("cbpp")
    rng = np.random.default_rng(2)
    return data.assign(age=rng.gamma(4.0, 2.0, len(data)), wet=rng.normal(3.0, 7.0, len(data)))


def weighted_sd(x: pd.Series, weights: pd.Series) -> float:
    """As R's cov.wt has it, by default unbiased."""
    share = weights / weights.sum()
    return float(np.sqrt((share * (x - share @ x) ** 2).sum() / (1.0 - (share**2).sum())))


FORMULA = "incidence / size ~ period + age * wet + (1 | herd)"


@pytest.mark.parametrize("two_sd", [False, True])
def test_a_refit_is_the_fit_of_standardised_predictors(two_sd: bool) -> None:
    data = herds()
    m = me.glmer(FORMULA, data, family="binomial", weights="size")
    by_hand = data.copy()
    for name in ("age", "wet"):
        centre = np.average(data[name], weights=data["size"])
        sd = weighted_sd(data[name], data["size"])
        by_hand[name] = (data[name] - centre) / (sd * (2.0 if two_sd else 1.0))
    own = me.glmer(FORMULA, by_hand, family="binomial", weights="size").coef_table(level=0.9)
    table = m.standardize(two_sd=two_sd, level=0.9)
    assert list(table["term"]) == list(own.index)
    columns = {
        "estimate": "Estimate",
        "std_error": "Std. Error",
        "statistic": "z value",
        "p_value": "Pr(>|z|)",
        "conf_low": "lower",
        "conf_high": "upper",
    }
    assert list(table.columns) == ["term", *columns]
    for here, there in columns.items():
        np.testing.assert_allclose(table[here], own[there], rtol=1e-4, atol=1e-7)


def test_basic_is_each_coefficient_times_the_spread_of_its_column() -> None:
    data = herds()
    m = me.glmer(FORMULA, data, family="binomial", weights="size")
    table, own = m.standardize("basic"), m.coef_table(level=0.95)
    sd = np.array([weighted_sd(pd.Series(x), data["size"]) for x in m.X.T])
    assert np.isnan(table["estimate"][0])
    np.testing.assert_allclose(table["estimate"][1:], (own["Estimate"] * sd)[1:], rtol=1e-10)
    np.testing.assert_allclose(table["conf_low"][1:], (own["lower"] * sd)[1:], rtol=1e-10)
    np.testing.assert_allclose(table["p_value"], own["Pr(>|z|)"])
    as_ratios = m.standardize("basic", exponentiate=True)
    np.testing.assert_allclose(as_ratios["estimate"][1:], np.exp(table["estimate"][1:]))
    np.testing.assert_allclose(as_ratios["conf_high"][1:], np.exp(table["conf_high"][1:]))
    spread = as_ratios["estimate"] * table["std_error"]
    np.testing.assert_allclose(as_ratios["std_error"][1:], spread[1:])
    np.testing.assert_allclose(as_ratios["statistic"], table["statistic"])


def test_what_else_the_rows_have_stays_as_it_is() -> None:
    data = me.load_dataset("grouseticks").assign(hours=lambda d: 1.0 + d["INDEX"].astype(int) % 5)
    data["gone"] = data["cHEIGHT"].mask(data["INDEX"].astype(int) % 9 == 0)
    formula = "TICKS ~ YEAR + gone + (1 | BROOD)"
    m = me.glmer(formula, data, family="negative_binomial", exposure="hours")
    used = data.dropna()
    by_hand = used.assign(gone=(used["gone"] - used["gone"].mean()) / used["gone"].std())
    own = me.glmer(formula, by_hand, family="negative_binomial", exposure="hours")
    assert own.criterion == pytest.approx(m.criterion, abs=1e-6)
    table = m.standardize()
    np.testing.assert_allclose(table["estimate"], own.fixef, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(table["std_error"], own.se, rtol=1e-4)
    robust = m.standardize(vcov="CR1", cluster=data["BROOD"].to_numpy())
    np.testing.assert_allclose(
        robust["std_error"], own.coef_table(vcov="CR1")["Std. Error"], rtol=1e-4
    )
    # The exposure may be a predictor too, and the response is nobody's.
    both = m.update(". ~ . + hours", data=data)
    by_hand["h"] = (used["hours"] - used["hours"].mean()) / used["hours"].std()
    own = me.glmer(
        "TICKS ~ YEAR + gone + h + (1 | BROOD)",
        by_hand,
        family="negative_binomial",
        exposure="hours",
    )
    np.testing.assert_allclose(both.standardize()["estimate"], own.fixef, rtol=1e-4, atol=1e-6)


def test_all_other_columns_as_predictors() -> None:
    data = herds()
    m = me.glmer(
        "incidence / size ~ . - herd + (1 | herd)", data, family="binomial", weights="size"
    )
    assert list(m.standardize()["term"]) == list(m.fixef.index)


@pytest.mark.parametrize(
    ("formula", "method", "message"),
    [
        ("y ~ x + (1 | g)", "pseudo", "'pseudo' divides by standard deviations of the response"),
        ("y ~ x + (1 | g)", "smart", "method 'smart' is not known"),
        ("y ~ log(x) + (1 | g)", "refit", r"the formula has log\(\) of 'x'"),
        ("y ~ x + offset(log(x)) + (1 | g)", "refit", "'x' is a predictor and in an offset"),
    ],
)
def test_what_cannot_be_standardised(formula: str, method: str, message: str) -> None:
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"g": np.repeat(range(12), 8), "x": rng.uniform(1.0, 3.0, 96)})
    data["y"] = rng.poisson(data["x"]).astype(float)
    m = me.glmer(formula, data, family="poisson")
    with pytest.raises(me.ModelError, match=message):
        m.standardize(method)
    with pytest.raises(TypeError, match="include_response"):
        m.standardize(include_response=True)  # type: ignore[call-arg]


def test_ratios_need_a_link_that_makes_them() -> None:
    data = herds()
    family = me.families.Binomial("probit")
    m = me.glmer(FORMULA, data, family=family, weights="size")
    assert np.isfinite(m.standardize()["estimate"]).all()
    with pytest.raises(me.ModelError, match="exponentiate=True makes ratios"):
        m.standardize(exponentiate=True)
