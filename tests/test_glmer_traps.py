"""Traps of generalized models: each ends in an error that names it, or in a fit that says so."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats

import mixedeffects as me

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from generalized_designs import FAMILIES, MISSED, design, harsh_design, outcome


def _table(**changed: Any) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    g = np.repeat(np.arange(12), 6)
    n, b = len(g), rng.normal(size=12)[g]
    x = rng.normal(size=n)
    trials = rng.integers(2, 8, n)
    columns = {
        "g": g,
        "x": x,
        "f": np.where(x > 0.0, "a", "b"),
        "y": (rng.uniform(size=n) < 1.0 / (1.0 + np.exp(-b - 0.3 * x))).astype(int),
        "c": rng.poisson(np.exp(0.5 + 0.5 * b)),
        "trials": trials,
        "s": rng.binomial(trials, 1.0 / (1.0 + np.exp(-b))),
        "positive": rng.gamma(2.0, np.exp(b) / 2.0),
        "row": np.arange(n),
    }
    return pd.DataFrame(columns | changed)


BASE = _table()

#: what is wrong: formula, changed columns, arguments, what the message says
REFUSED: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "separation by a level": (
        "y ~ f + (1 | g)",
        {"y": np.where(BASE["f"] == "a", 1, BASE["y"])},
        {},
        r"have no finite estimates: .* all of them successes only",
    ),
    "separation by a number": (
        "y ~ x + (1 | g)",
        {"y": (BASE["x"] > 0.0).astype(int)},
        {},
        "The fixed effect of `x` has no finite estimate",
    ),
    "separation of counts": (
        "c ~ f + (1 | g)",
        {"c": np.where(BASE["f"] == "a", 0, BASE["c"])},
        {"family": "poisson"},
        "all of them with a count of zero",
    ),
    "no count above zero": (
        "c ~ x + (1 | g)",
        {"c": 0},
        {"family": "poisson"},
        "All rows of the response `c` are zero",
    ),
    "failures only": ("y ~ x + (1 | g)", {"y": 0}, {}, "All rows of the response `y` are failures"),
    "one value": (
        "positive ~ x + (1 | g)",
        {"positive": 2.0},
        {"family": "gamma"},
        "is 2 in every row, so its dispersion cannot be estimated",
    ),
    "row effects beside a dispersion": (
        "positive ~ x + (1 | row)",
        {},
        {"family": "gamma"},
        "cannot be told from the dispersion of the gamma family",
    ),
    "row effects of zeros and ones": (
        "y ~ x + (1 | row)",
        {},
        {},
        "one success or failure per level says nothing",
    ),
    "codes one and two": ("y ~ x + (1 | g)", {"y": BASE["y"] + 1}, {}, r"take `y == 2` as the"),
    "percentages": (
        "y ~ x + (1 | g)",
        {"y": 100.0 * BASE["s"] / BASE["trials"]},
        {"weights": "trials"},
        "Percentages are to be divided by 100",
    ),
    "a proportion without trials": (
        "s / trials ~ x + (1 | g)",
        {},
        {},
        r'give it by weights="trials"',
    ),
    "no trials": (
        "cbind(s, trials - s) ~ x + (1 | g)",
        {"s": 0, "trials": np.where(BASE["row"] == 5, 0, BASE["trials"])},
        {},
        "neither successes nor failures in row 5",
    ),
    "counts that are none": (
        "c ~ x + (1 | g)",
        {"c": BASE["c"] + 0.5},
        {"family": "poisson"},
        "must be counts: whole numbers from 0",
    ),
    "three levels": (
        "y ~ x + (1 | g)",
        {"y": np.array(["a", "b", "c"])[BASE["row"] % 3]},
        {},
        "has 3 levels in the rows used",
    ),
    "negative weights": (
        "c ~ x + (1 | g)",
        {"w": np.where(BASE["row"] == 4, -1.0, 1.0)},
        {"family": "poisson", "weights": "w"},
        "`w` is negative in 1 row",
    ),
    "a link for a family": ("y ~ x + (1 | g)", {}, {"family": "logit"}, "that is a link"),
    "a capital": ("y ~ x + (1 | g)", {}, {"family": "Binomial"}, "Did you mean 'binomial'"),
    "an object": ("y ~ x + (1 | g)", {}, {"family": object()}, "or a family of me.families, not"),
    "a start without means": (
        "y ~ x + (1 | g)",
        {},
        {
            "family": me.families.Binomial("identity"),
            "start": {"theta": [1.0], "beta": [5.0, 5.0]},
        },
        "With the link identity not every linear predictor has a mean",
    ),
    "a response computed from a predictor": (
        "positive ~ x + (1 | g)",
        {"positive": np.exp(BASE["x"])},
        {"family": "gamma"},
        "The fixed effects fit every row of the response, so that the dispersion of the gamma",
    ),
    "shares computed from a predictor": (
        "share ~ x + (1 | g)",
        {"share": 1.0 / (1.0 + np.exp(-BASE["x"]))},
        {"family": "beta"},
        "so that the precision of the beta family",
    ),
    "a normal response computed from a predictor": (
        "positive ~ x + (1 | g)",
        {"positive": np.exp(BASE["x"])},
        {"family": me.families.Gaussian("log")},
        "so that the dispersion of the gaussian family",
    ),
    "proportions that are no successes among the trials": (
        "share ~ x + (1 | g)",
        {"share": 0.9 * BASE["s"] / BASE["trials"] + 0.01},
        {"weights": "trials"},
        "is no whole number of successes in",
    ),
    "a proportion above one": (
        "cbind(s, trials) ~ x + (1 | g)",
        {"s": BASE["s"] - 3},
        {},
        "Successes must be counts, whole numbers from 0",
    ),
    "infinite": (
        "positive ~ x + (1 | g)",
        {"positive": np.where(BASE["row"] == 3, np.inf, BASE["positive"])},
        {"family": "gamma"},
        "is infinite in 1 row",
    ),
    "a gamma response of zero": (
        "positive ~ x + (1 | g)",
        {"positive": np.where(BASE["row"] == 3, 0.0, BASE["positive"])},
        {"family": "gamma"},
        r"must be above 0\. Rows that are not so, with their values: 3 \(0\)",
    ),
    "a share of one": (
        "share ~ x + (1 | g)",
        {"share": np.where(BASE["row"] == 3, 1.0, 0.5)},
        {"family": "beta"},
        r"without 0 and 1 themselves\. Rows that are not so, with their values: 3 \(1\)",
    ),
    "separation of trials": (
        "cbind(s, trials - s) ~ f + (1 | g)",
        {"s": np.where(BASE["f"] == "a", 0, BASE["s"])},
        {},
        "all of them failures only",
    ),
    "separation with another link": (
        "y ~ x + (1 | g)",
        {"y": (BASE["x"] > 0.0).astype(int)},
        {"family": me.families.Binomial("cloglog")},
        "The fixed effect of `x` has no finite estimate",
    ),
    "row effects beside theta": (
        "c ~ x + (1 | row)",
        {},
        {"family": "negative_binomial"},
        "cannot be told from the theta of the negative_binomial family",
    ),
    "one level": ("y ~ x + (1 | g)", {"g": 0}, {}, "has one level"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str) -> None:
    formula, changed, arguments, said = REFUSED[name]
    with pytest.raises(me.MixedEffectsError, match=said):
        me.glmer(formula, _table(**changed), **({"family": "binomial"} | arguments))


@pytest.mark.parametrize(
    "y",
    [
        BASE["y"].astype(bool),
        BASE["y"].astype(float),
        np.where(BASE["y"] > 0, "yes", "no"),
        BASE["y"].astype(str),
        pd.Series(BASE["y"].astype(bool)).astype("boolean"),
    ],
)
def test_ways_to_write_zeros_and_ones(y: Any) -> None:
    m = me.glmer("y ~ x + (1 | g)", _table(y=y), family="binomial")
    plain = me.glmer("y ~ x + (1 | g)", BASE, family="binomial")
    assert m.criterion == pytest.approx(plain.criterion, abs=1e-9)


def test_a_missing_truth_value_is_left_out() -> None:
    y = pd.Series(BASE["y"].astype(bool)).astype("boolean")
    y[3] = pd.NA
    assert me.glmer("y ~ x + (1 | g)", _table(y=y), family="binomial").nobs == len(BASE) - 1


def test_row_effects_of_counts_are_overdispersion() -> None:
    m = me.glmer("c ~ x + (1 | row)", BASE, family="poisson")
    assert m.optimum.certificate.holds


@pytest.mark.parametrize("nagq", [1, 9, 51])
def test_levels_of_one_kind_only(nagq: int) -> None:
    """The likelihood rises with the standard deviation; what the sums have is no maximum."""
    y = np.repeat([0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 1, 0], 6)
    with pytest.warns(me.ConvergenceWarning, match="12 of 12 levels have successes only"):
        m = me.glmer("y ~ 1 + (1 | g)", _table(y=y), family="binomial", nagq=nagq)
    assert not m.optimum.certificate.holds
    assert "NO MAXIMUM: the random effects of `g` run off" in " ".join(str(m).split())


def test_most_levels_of_one_kind() -> None:
    y = np.repeat([0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 1, 0], 6)
    y[0] = 1
    with pytest.warns(me.ConvergenceWarning, match="11 of 12 levels .* are no guide"):
        m = me.glmer("y ~ 1 + (1 | g)", _table(y=y), family="binomial", nagq=9)
    assert not m.optimum.certificate.holds
    assert "NO MAXIMUM" not in str(m)


def test_too_few_points_are_not_certified() -> None:
    data = me.load_dataset("contraception")
    formula = "use ~ age + (1 | district)"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert me.glmer(formula, data, family="binomial", nagq=9).optimum.certificate.holds
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(150), 5)
    y = rng.uniform(size=750) < 1.0 / (1.0 + np.exp(-3.5 * rng.normal(size=150)[g]))
    table = pd.DataFrame({"y": y, "g": g})
    with pytest.warns(me.ConvergenceWarning, match="3 quadrature points are too few"):
        m = me.glmer("y ~ 1 + (1 | g)", table, family="binomial", nagq=3)
    assert "points are too few" in str(m.optimum.certificate)


@pytest.mark.parametrize(
    "family",
    [me.families.Gamma("identity"), me.families.Gamma("inverse"), me.families.Gamma("log")],
)
def test_links_with_an_end_are_certified_inside(family: me.families.Family) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        m = me.glmer("positive ~ x + (1 | g)", BASE, family=family)
    assert m.optimum.certificate.holds


@pytest.mark.parametrize("shift", [0.0, 40.0, 800.0])
def test_linear_predictors_far_out_are_not_clamped(shift: float) -> None:
    """A rate is the same whatever its unit: the means are as they were, their logarithms not."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        far = _table(o=shift, x=1e6 * BASE["x"])
        m = me.glmer("c ~ x + offset(o) + (1 | g)", far, family="poisson")
        plain = me.glmer("c ~ x + (1 | g)", BASE, family="poisson")
    assert m.criterion == pytest.approx(plain.criterion, abs=1e-8)
    assert m.fixef.iloc[0] + shift == pytest.approx(plain.fixef.iloc[0], abs=1e-6)
    assert 1e6 * m.se.iloc[1] == pytest.approx(plain.se.iloc[1], rel=1e-6)


def test_weights_are_named_by_what_they_are() -> None:
    trials = me.glmer("s / trials ~ x + (1 | g)", BASE, family="binomial", weights="trials")
    assert "Trials: trials" in str(trials)
    weights = me.glmer("c ~ x + (1 | g)", _table(w=2.0), family="poisson", weights="w")
    assert "Weights: w" in str(weights)
    # Weights of the log-likelihood: every row twice.
    twice = pd.concat([BASE, BASE], ignore_index=True)
    assert weights.criterion == pytest.approx(
        me.glmer("c ~ x + (1 | g)", twice, family="poisson").criterion, abs=1e-7
    )


def test_counts_without_overdispersion_are_said() -> None:
    with pytest.warns(me.ConvergenceWarning, match="The limit is the Poisson model"):
        me.glmer("c ~ x + (1 | g)", _table(c=4), family="negative_binomial")


def test_levels_that_the_fit_did_not_see() -> None:
    m = me.glmer("y ~ f + (1 | g)", BASE, family="binomial")
    with pytest.raises(me.DataError, match="`f` has a level that the fit did not see: 'new'"):
        m.predict(pd.DataFrame({"f": ["new"], "g": [0]}))
    with pytest.raises(me.DataError, match="`g` has a level that the fit did not see"):
        m.predict(pd.DataFrame({"f": ["a"], "g": [99]}))


@pytest.mark.parametrize(
    "seed", [*range(len(FAMILIES)), 27, 94, 249, 266, 272, 289, 296, 586, 1620, 1888]
)
def test_generated_designs(seed: int) -> None:
    """Criterion, gradient and optimum beside dense matrices, differences and other searches.

    In one of them a structure has no parameter left to move, in one the family's parameter goes to
    infinity, and in three Newton's steps to the modes are very long on the way, beyond what numbers
    hold in one. The last have a lower optimum than the search from the usual start comes to.
    """
    found = outcome(design(seed), seed, 2, 0)
    assert found.above < MISSED, found.text
    assert found.dense < 1e-8
    assert found.gradient < 1e-6
    assert found.holds != found.warned, found.text


def test_more_successes_than_trials_are_told_by_their_rows() -> None:
    cbpp = me.load_dataset("cbpp").astype({"incidence": float})
    cbpp.loc[5, "incidence"] = cbpp.loc[5, "size"] + 4.0
    with pytest.raises(me.DataError, match=r"from 0 to 1: `incidence/size` does not in row 5 \("):
        me.glmer("incidence / size ~ period + (1 | herd)", cbpp, "binomial", weights="size")


def test_new_rows_without_the_exposure_are_told_what_to_give() -> None:
    ticks = me.load_dataset("grouseticks").assign(hours=2.0)
    m = me.glmer("TICKS ~ YEAR + (1 | BROOD)", ticks, family="poisson", exposure="hours")
    with pytest.raises(
        me.DataError, match=r"`hours`.*It is the exposure of the rows; .*exposure=1"
    ):
        m.predict({"YEAR": ["95"]}, re=None)
    assert m.predict({"YEAR": ["95"]}, re=None, exposure=2).notna().all()


def test_intervals_of_a_singular_fit_say_why_they_are_not_there() -> None:
    rng = np.random.default_rng(4)
    data = pd.DataFrame({"g": np.repeat(np.arange(8), 6), "n": rng.poisson(2.0, 48)})
    m = me.glmer("n ~ 1 + (1 | g)", data, family="poisson")
    assert m.is_singular
    assert "singular fit" in repr(m.confint())
    assert "singular fit" not in repr(m.confint(parameters="(Intercept)"))


def test_what_to_leave_out_of_a_singular_fit_is_named_in_full() -> None:
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"g": np.repeat(np.arange(15), 20)})
    data["condition"], data["frequency"] = rng.normal(size=300), rng.normal(size=300)
    data["y"] = rng.integers(0, 2, 300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", me.ConvergenceWarning)
        m = me.glmer(
            "y ~ condition * frequency + (condition * frequency | g)", data, family="binomial"
        )
    assert m.is_singular
    said = " ".join(repr(m.check("singularity")).split())
    assert "…" not in said
    assert "condition + frequency + condition:frequency | g)" in said


def test_power_names_its_test_and_columns_of_the_data_only() -> None:
    cbpp = me.load_dataset("cbpp")
    m = me.glmer("incidence / size ~ period + (1 | herd)", cbpp, "binomial", weights="size")
    found = me.power(m, "period", n=[15], draws=2, seed=1)
    assert "Power of period (Wald's chi-square) at level" in repr(found)
    with pytest.raises(me.ModelError, match="within names 'hrd'") as told:
        me.power(m, "period", n=[15], within="hrd", draws=2)
    assert "simulated" not in str(told.value)


def test_pooled_fits_have_ratios() -> None:
    cbpp = me.load_dataset("cbpp")
    fits = [
        me.glmer("incidence ~ period + (1 | herd)", data, family="poisson")
        for data in (cbpp, cbpp.assign(incidence=cbpp["incidence"] + (cbpp.index == 3)))
    ]
    pooled = me.pool(fits)
    plain, ratios = (pooled.tidy("fixed", 0.95, exponentiate=flag) for flag in (False, True))
    for name in ("estimate", "conf_low", "conf_high"):
        assert ratios[name].to_numpy() == pytest.approx(np.exp(plain[name]).to_numpy())
    assert ratios["std_error"].to_numpy() == pytest.approx(
        (ratios["estimate"] * plain["std_error"]).to_numpy()
    )
    with pytest.raises(me.ModelError, match=r"fits\[0\] must be a fitted model, not a DataFrame"):
        me.pool([cbpp, cbpp])


def test_influence_shows_what_there_is() -> None:
    cbpp = me.load_dataset("cbpp")
    m = me.glmer("incidence ~ period + (1 | herd)", cbpp, family="poisson")
    assert "MDFFITS" not in repr(m.influence("herd"))
    assert "MDFFITS" in repr(me.lmer("incidence ~ period + (1 | herd)", cbpp).influence("herd"))


def test_an_offset_that_is_an_exposure_is_told_apart() -> None:
    rng = np.random.default_rng(2)
    data = pd.DataFrame({"g": np.repeat(np.arange(10), 8)})
    data["minutes"] = rng.choice([10.0, 20.0, 45.0], 80)
    data["n"] = rng.poisson(0.2 * data["minutes"])
    with pytest.warns(me.DataWarning, match=r"runs from 10 to 45 .* give it as exposure="):
        me.glmer("n ~ 1 + (1 | g)", data, family="poisson", offset="minutes")
    with warnings.catch_warnings():
        warnings.simplefilter("error", me.DataWarning)
        me.glmer("n ~ 1 + (1 | g)", data, family="poisson", exposure="minutes")


def test_levels_that_differ_in_blanks_need_no_lower_case() -> None:
    cbpp = me.load_dataset("cbpp").astype({"period": str})
    cbpp.loc[cbpp.index[cbpp["period"] == "1"][:5], "period"] = "1 "
    with pytest.warns(me.DataWarning, match=r"strip\(\), in polars \.str\.strip_chars\(\)\."):
        me.glmer("incidence ~ period + (1 | herd)", cbpp, family="poisson")


def test_rows_of_an_infinite_logarithm_are_named() -> None:
    rng = np.random.default_rng(2)
    data = pd.DataFrame({"g": np.repeat(np.arange(10), 8), "n": rng.poisson(3.0, 80)})
    data["minutes"] = rng.choice([10.0, 20.0], 80)
    data.loc[[13, 40], "minutes"] = 0.0
    data.loc[5, "n"] = np.nan
    with pytest.raises(me.DataError, match=r"`log\(minutes\)` is infinite in 2 rows \(13, 40\)"):
        me.glmer("n ~ offset(log(minutes)) + (1 | g)", data, family="poisson")


def test_long_steps_warn_of_no_overflow() -> None:
    """A step to the modes beyond any number is taken back in silence."""
    each = design(3027)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        me.glmer(each.formula, each.data, family=each.family, **each.arguments)


def test_large_counts_keep_their_digits() -> None:
    """The parts of the log-probability of a count of a billion are 1e10, their sum is 10."""
    rng = np.random.default_rng(2)
    table = _table(c=rng.poisson(1e9 * np.exp(0.3 * BASE["x"] + 0.5 * rng.normal(size=12)[BASE.g])))
    m = me.glmer("c ~ x + (1 | g)", table, family="poisson")
    assert m.optimum.certificate.holds
    assert m.optimum.evaluations <= 10
    # Far from the counts the usual sum has all the digits that matter.
    y, mu = np.array([0.0, 3.0, 2e6]), np.array([0.5, 4.0, 1e4])
    found = me.families.Poisson().rows(me.families.Response(y), np.log(mu)).d
    np.testing.assert_allclose(found, -2.0 * scipy.stats.poisson.logpmf(y, mu), rtol=1e-9)


def test_a_start_is_found_inside_the_link() -> None:
    """The first predictor by least squares is outside of it, the level of all rows is not."""
    each = harsh_design(232)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", me.ConvergenceWarning)
        m = me.glmer(each.formula, each.data, family=each.family, **each.arguments)
    assert np.isfinite(m.criterion)


def test_a_likelihood_that_is_flat_far_out() -> None:
    """Means that go to infinity cost inverse Gaussian responses little: no optimum is there."""
    each = harsh_design(315)
    m = me.glmer(each.formula, each.data, family=each.family, **each.arguments)
    assert m.optimum.certificate.holds
    assert np.abs(m.optimum.evaluation.eta).max() < 30.0


def test_responses_too_far_from_one() -> None:
    table = _table(positive=1e-300 * BASE["positive"])
    with pytest.raises(me.ModelError, match=r"too far from 1 for the digits.*other units"):
        me.glmer("positive ~ x + (1 | g)", table, family=me.families.Gaussian("log"))
