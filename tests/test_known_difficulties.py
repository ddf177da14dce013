"""Difficulties reported for other packages' generalized mixed models, with the data of the reports.

docs/migration.md says which report each is of. Data drawn in R there are drawn with NumPy here.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mixedeffects as me
from generalized_references import MODELS, reference
from test_glmer import fitted


def fit(formula: str, data: pd.DataFrame, **arguments: Any) -> me.GeneralizedLinearMixedModel:
    """A fit whose warnings are errors and whose certificate holds."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        m = me.glmer(formula, data, **arguments)
    assert m.optimum.certificate.holds, str(m.optimum.certificate)
    return m


# --- long fits ---------------------------------------------------------------------------


def test_three_thousand_rows_and_twenty_two_covariates() -> None:
    rng = np.random.default_rng(101)
    x = rng.normal(size=(3_000, 22))
    data = pd.DataFrame(x, columns=[f"x{i}" for i in range(1, 23)])
    data["g"] = np.arange(3_000) % 100
    eta = rng.normal() + x @ rng.normal(size=22) + rng.normal(size=100)[data["g"]]
    data["y"] = (rng.random(3_000) < 1.0 / (1.0 + np.exp(-eta))).astype(int)
    formula = "y ~ " + " + ".join(data.columns[:22]) + " + (1 | g)"
    m = fit(formula, data, family="binomial")
    assert m.optimum.search_evaluations <= 8
    # Predictors of any size and place are the same model, with the same standard errors.
    sizes = 10.0 ** rng.integers(-4, 5, 22)
    moved = data.assign(**{f"x{i + 1}": 7.0 * sizes[i] + sizes[i] * x[:, i] for i in range(22)})
    other = fit(formula, moved, family="binomial")
    assert other.criterion == pytest.approx(m.criterion, abs=1e-7)
    assert (other.se[1:] * sizes).to_numpy() == pytest.approx(m.se[1:].to_numpy(), rel=1e-5)
    assert (other.fixef[1:] * sizes).to_numpy() == pytest.approx(m.fixef[1:].to_numpy(), abs=1e-6)


@pytest.mark.slow
def test_thirty_five_thousand_users_by_twenty_six_products() -> None:
    rng, n = np.random.default_rng(1423), 910_000
    user, product = np.repeat(np.arange(35_000), 26), rng.integers(0, 26, n)
    data = pd.DataFrame({"user": user, "product": product})
    data["x1"], data["x2"] = (rng.random(n) < 0.1).astype(int), (rng.random(n) < 0.1).astype(int)
    data["x4"] = rng.choice(list("ABCDE"), n)
    eta = -4.0 + 0.8 * rng.normal(size=35_000)[user] + 0.5 * rng.normal(size=26)[product]
    formula = "y ~ x1 + x2 + x4 + (1 | user) + (1 | product)"
    # As reported: responses that are noise, so that there is no variance between users.
    noise = fit(formula, data.assign(y=(rng.random(n) < 0.02).astype(int)), family="binomial")
    assert noise.is_singular
    answers = (rng.random(n) < 1.0 / (1.0 + np.exp(-eta))).astype(int)
    m = fit(formula, data.assign(y=answers), family="binomial")
    assert m.optimum.search_evaluations <= 12
    assert not m.is_singular


def test_the_default_is_the_approximation_that_others_find_too_dear() -> None:
    for name in MODELS:
        assert fitted(name).optimum.search_evaluations <= 9
    with pytest.raises(me.ModelError, match="not needed here"):
        me.glmer("y ~ x + (1 | g)", pd.DataFrame(), family="binomial", nagq=0)


# --- warnings ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["guimmun", "verbagg", "contraception", "contraception_slope"])
def test_no_warning_at_an_optimum(name: str) -> None:
    """Each of these ends with warnings of convergence in lme4."""
    assert reference(name)["lme4_default"]["said"]
    m = fitted(name)
    assert m.optimum.certificate.holds
    assert m.criterion <= reference(name)["laplace"]["deviance"] + 1e-8


@pytest.mark.parametrize("family", ["binomial", "poisson"])
def test_a_continuous_predictor_needs_no_scaling(family: str) -> None:
    rng = np.random.default_rng(618)
    data = pd.DataFrame({"age": rng.normal(63.0, 15.0, 4_000), "zip": rng.integers(0, 150, 4_000)})
    eta = -3.0 + 0.03 * data["age"] + 0.3 * rng.normal(size=150)[data["zip"]]
    mean = 1.0 / (1.0 + np.exp(-eta))
    data["dead"] = rng.binomial(1, mean) if family == "binomial" else rng.poisson(mean)
    m = fit("dead ~ age + (1 | zip)", data, family=family)
    scaled = data.assign(age=(data["age"] - 63.0) / 15.0)
    other = fit("dead ~ age + (1 | zip)", scaled, family=family)
    assert m.se["age"] * 15.0 == pytest.approx(other.se["age"], rel=1e-6)


# --- quadrature --------------------------------------------------------------------------


def test_quadrature_with_random_slopes() -> None:
    data = me.load_dataset("sleepstudy").assign(y=lambda d: d["Reaction"].round())
    laplace = fit("y ~ Days + (Days | Subject)", data, family="poisson")
    assert laplace.criterion == pytest.approx(1788.11646265, abs=1e-6)
    finer = fit("y ~ Days + (Days | Subject)", data, family="poisson", nagq=11)
    assert abs(finer.criterion - laplace.criterion) < 0.01
    assert finer.fixef.to_numpy() == pytest.approx(laplace.fixef.to_numpy(), abs=1e-3)


def test_one_scale_of_the_likelihood_whatever_the_number_of_points() -> None:
    rng = np.random.default_rng(51)
    group = np.tile(np.arange(10), 10)
    y = rng.poisson(np.exp(3.0 + rng.normal(0.0, 2.0, 10)[group]))
    data = pd.DataFrame({"y": y, "group": group})
    values = [
        fit("y ~ 1 + (1 | group)", data, family="poisson", nagq=nagq).loglik for nagq in (1, 2, 11)
    ]
    assert np.ptp(values) < 0.1
    for name in ("cbpp", "epil"):
        by_points = fitted(name).update(nagq=25)
        assert abs(by_points.loglik - fitted(name).loglik) < 0.1
        better = by_points.aic - fitted(name).aic
        assert better == pytest.approx(by_points.criterion - fitted(name).criterion)


# --- separation --------------------------------------------------------------------------


def test_separation_by_a_single_row() -> None:
    rng = np.random.default_rng(101)
    data = pd.DataFrame(
        {
            "y": rng.integers(0, 2, 1_000),
            "x": rng.random(1_000),
            "f": np.repeat(np.arange(20), 50),
            "x2": np.repeat([0, 1], [999, 1]),
        }
    )
    fit("y ~ x + (1 | f)", data, family="binomial")
    with pytest.raises(me.ModelError, match="fixed effect of `x2` has no finite estimate"):
        me.glmer("y ~ x + x2 + (1 | f)", data, family="binomial")


@pytest.mark.parametrize("family", ["binomial", "poisson", "negative_binomial"])
def test_separation_by_a_level_and_by_a_cell(family: str) -> None:
    rng = np.random.default_rng(1004)
    data = pd.DataFrame(
        {
            "height": rng.choice(["low", "mid", "top"], 600),
            "treated": rng.choice(["no", "yes"], 600),
            "re": rng.integers(0, 55, 600),
        }
    )
    data["y"] = rng.binomial(1, 0.4, 600) if family == "binomial" else rng.poisson(1.5, 600)
    level = data.assign(y=data["y"].where(data["height"] != "top", 0))
    with pytest.raises(me.ModelError, match="`heighttop` has no finite estimate"):
        me.glmer("y ~ height + treated + (1 | re)", level, family=family)
    cell = (data["height"] == "top") & (data["treated"] == "yes")
    cells = data.assign(y=data["y"].where(~cell, 0))
    with pytest.raises(me.ModelError, match="`heighttop:treatedyes` has no finite estimate"):
        me.glmer("y ~ height * treated + (1 | re)", cells, family=family)


# --- families with a dispersion ----------------------------------------------------------


def test_a_gamma_response_without_groups_has_no_variance_between_them() -> None:
    rng = np.random.default_rng(643)
    data = pd.DataFrame({"y": rng.gamma(3.0, 1.0 / 30.0, 1_000), "g": rng.integers(0, 20, 1_000)})
    m = fit("y ~ 1 + (1 | g)", data, family="gamma")
    sd = np.sqrt(m.varcorr["g"].iloc[0, 0])
    # An error of a mean of fifty rows is 0.08.
    assert sd < 0.08
    assert m.phi == pytest.approx(1.0 / 3.0, rel=0.1)
    drawn = m.simulate(200, seed=1).to_numpy()
    assert drawn.std() == pytest.approx(data["y"].std(), rel=0.1)


def test_deviations_of_a_gamma_response_are_not_in_units_of_its_dispersion() -> None:
    rng = np.random.default_rng(852)
    g = np.repeat(np.arange(300), 20)
    y = rng.gamma(2.0, np.exp(1.0 + 1.5 * rng.normal(size=300)[g]) / 2.0)
    m = fit("y ~ 1 + (1 | g)", pd.DataFrame({"y": y, "g": g}), family="gamma")
    assert np.sqrt(m.varcorr["g"].iloc[0, 0]) == pytest.approx(1.5, rel=0.12)
    assert m.phi == pytest.approx(0.5, rel=0.05)


def test_a_normal_response_with_a_logarithmic_link() -> None:
    travel = [55, 53, 54, 26, 37, 32, 78, 91, 85, 92, 100, 96, 49, 51, 50, 80, 85, 83]
    data = pd.DataFrame({"travel": travel, "rail": np.repeat(np.arange(6), 3)})
    m = fit("travel ~ 1 + (1 | rail)", data, family=me.families.Gaussian("log"))
    assert m.criterion == pytest.approx(129.1711, abs=1e-4)
    assert np.sqrt(m.varcorr["rail"].iloc[0, 0]) == pytest.approx(0.38113, abs=1e-4)
    assert m.sigma == pytest.approx(4.01816, abs=1e-4)


def test_a_gamma_response_with_the_inverse_link() -> None:
    breaks = (
        "26 30 54 25 70 52 51 26 67 18 21 29 17 12 18 35 30 36 36 21 24 18 10 43 28 15 26 27 14 29 "
        "19 29 31 41 20 44 42 26 19 16 39 28 21 39 29 20 21 24 17 13 15 15 16 28"
    )
    person = (
        "3 3 2 2 3 5 4 1 2 3 5 3 3 1 4 1 1 5 3 2 2 1 3 4 1 3 5 4 2 5 1 1 2 3 4 5 5 3 1 2 5 5 4 5 "
        "2 1 1 3 1 5 1 2 4 4"
    )
    data = pd.DataFrame({"breaks": [float(b) for b in breaks.split()], "id": person.split()})
    data["wool"] = np.repeat(["A", "B"], 27)
    data["tension"] = pd.Categorical(np.tile(np.repeat(["L", "M", "H"], 9), 2), ["L", "M", "H"])
    m = fit("breaks ~ wool * tension + (1 | id)", data, family=me.families.Gamma("inverse"))
    # glmmTMB stops at 389.8654 and says that it did not converge.
    assert m.criterion == pytest.approx(389.8650, abs=1e-4)
    assert m.optimum.search_evaluations <= 20


# --- ordinary fits -----------------------------------------------------------------------


def test_circumferences_of_orange_trees_as_counts() -> None:
    circumference = (
        "30 58 87 115 120 142 145 33 69 111 156 172 203 203 30 51 75 108 115 139 140 32 62 112 167 "
        "179 209 214 30 49 81 125 142 174 177"
    )
    data = pd.DataFrame({"y": [int(c) for c in circumference.split()]})
    data["tree"] = np.repeat(np.arange(1, 6), 7)
    age = np.tile([118.0, 484.0, 664.0, 1004.0, 1231.0, 1372.0, 1582.0], 5)
    data["age_z"] = (age - age.mean()) / age.std(ddof=1)
    m = fit("y ~ 1 + age_z + (1 | tree)", data, family="poisson")
    assert m.criterion == pytest.approx(339.27851757, abs=1e-6)
    assert m.fixef.to_numpy() == pytest.approx([4.623694, 0.5069759], abs=1e-6)
    assert m.se.to_numpy() == pytest.approx([0.07139793, 0.01826831], rel=1e-4)


def test_more_random_slopes_than_the_answers_bear() -> None:
    rng, n = np.random.default_rng(310), 1_500
    data = pd.DataFrame(
        {
            "difference": rng.uniform(-1.0, 1.0, n),
            "condition": rng.choice(["a", "b"], n),
            "id": rng.integers(0, 12, n),
            "standard": rng.integers(0, 5, n),
        }
    )
    eta = 0.3 + 2.7 * data["difference"] + 0.6 * rng.normal(size=12)[data["id"]]
    data["answer"] = (rng.random(n) < 1.0 / (1.0 + np.exp(-eta))).astype(int)
    terms = "(difference + condition | id) + (difference + condition | standard)"
    m = fit(f"answer ~ difference * condition + {terms}", data, family="binomial")
    assert m.is_singular
    assert len(m.theta) == 12


# --- standard errors, predictions, trials ------------------------------------------------


def test_robust_standard_errors_of_counts_in_broods() -> None:
    data = me.load_dataset("grouseticks")
    m = fit("TICKS ~ YEAR + cHEIGHT + (1 | BROOD)", data, family="poisson")
    robust = m.coef_table(vcov="CR1", cluster="BROOD")["Std. Error"]
    assert (robust > 0.0).all()
    # Chicks of a brood differ more than a Poisson distribution says; broods take most of it up.
    assert (robust / m.se).between(0.5, 2.0).all()
    # With several terms, trials, and a factor above the levels.
    nested = fit("TICKS ~ YEAR + cHEIGHT + (1 | LOCATION / BROOD)", data, family="poisson")
    assert np.isfinite(nested.coef_table(vcov="CR1", cluster="LOCATION")["Std. Error"]).all()
    trials = fitted("cbpp").coef_table(vcov="CR1", cluster="herd")["Std. Error"]
    assert np.isfinite(trials).all()


def test_averages_over_the_random_effects_have_standard_errors() -> None:
    m = fitted("toenail")
    typical, average = m.predict(re=None), m.predict(marginal=True, se=True)
    # A probability is nearer to a half in the population than for a typical patient.
    assert (np.abs(average["estimate"] - 0.5) < np.abs(typical - 0.5)).mean() > 0.9
    assert (average["std_error"] > 0.0).all()
    assert np.isfinite(m.predict(se=True)["std_error"]).all()
