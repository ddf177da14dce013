"""Confidence intervals by method: Wald's on three scales, dispatch, and errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from numpy.testing import assert_allclose

import mixedeffects as me
from mixedeffects.fitting.natural import natural_parameters
from references import fitted_model

ALL = [
    "sd_(Intercept)|Subject",
    "cor_Days.(Intercept)|Subject",
    "sd_Days|Subject",
    "sigma",
    "(Intercept)",
    "Days",
]


@pytest.mark.parametrize("name", ["sleepstudy", "sleepstudy_ml"])
def test_wald_from_second_differences_of_the_criterion(name: str) -> None:
    """In (log sd, Fisher's z, log sd, log sigma), nothing shared with the method but loglik."""
    m = fitted_model(name)
    sd1, r, sd2, sigma = natural_parameters(m.fit.T, m.sigma)
    psi = np.array([np.log(sd1), np.arctanh(r), np.log(sd2), np.log(sigma)])

    def criterion(at: np.ndarray) -> float:
        a, z, b, s = at
        c = np.tanh(z)
        theta = np.array([np.exp(a), c * np.exp(b), np.sqrt(1 - c * c) * np.exp(b)]) / np.exp(s)
        return -2.0 * m.loglik_at(theta, float(np.exp(s)))

    h = 1e-3 * np.eye(4)
    H = np.array(
        [
            [
                criterion(psi + a + b)
                - criterion(psi + a - b)
                - criterion(psi - a + b)
                + criterion(psi - a - b)
                for b in h
            ]
            for a in h
        ]
    ) / (4 * 1e-6)
    error = np.sqrt(np.diag(2.0 * np.linalg.inv(H)))
    z = scipy.stats.norm.ppf(0.95)
    expected = np.column_stack([psi - z * error, psi + z * error])
    back = np.exp(expected)
    back[1] = np.tanh(expected[1])
    table = m.confint(level=0.9)
    assert list(table.index) == ALL
    assert list(table.columns) == ["lower", "upper"]
    assert_allclose(table.iloc[:4], back, rtol=1e-4)


def test_fixed_effects_are_those_of_the_table() -> None:
    m = fitted_model("sleepstudy")
    for options in ({}, {"ddf": "kr"}, {"vcov": "CR2", "cluster": "Subject"}, {"ddf": "inf"}):
        table = m.confint(parameters="fixed", level=0.9, **options)
        expected = m.coef_table(level=0.9, **options)[["lower", "upper"]]
        pd.testing.assert_frame_equal(table, expected, check_names=False)


def test_weights_and_units() -> None:
    data = me.load_dataset("sleepstudy")
    w = 0.5 + np.arange(len(data)) % 4
    formula = "Reaction ~ Days + (Days | Subject)"
    once = me.lmer(formula, data, weights=w).confint()
    data["Reaction"] *= 1e-3
    data["Days"] *= 24.0
    again = me.lmer(formula, data, weights=w).confint()
    units = np.array([1e-3, 1.0, 1e-3 / 24.0, 1e-3, 1e-3, 1e-3 / 24.0])[:, None]
    assert_allclose(again, once * units, rtol=1e-4)


def test_a_singular_term_has_no_wald_interval() -> None:
    table = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff2")).confint()
    assert table.loc["sd_(Intercept)|Batch"].isna().all()
    assert table.drop(index="sd_(Intercept)|Batch").notna().all(axis=None)
    # Without the batches it is a sample: the interval of log sigma from its variance 1 / (2 df).
    half = 1.959964 / np.sqrt(2 * 29)
    sigma = fitted_model("dyestuff2").sigma
    assert_allclose(table.loc["sigma"], sigma * np.exp([-half, half]), rtol=1e-5)


def test_profile() -> None:
    m = fitted_model("sleepstudy")
    expected = m.profile().confint()
    pd.testing.assert_frame_equal(m.confint("profile"), expected)
    one = m.confint("profile", ["Days", "sigma"], level=0.95)
    pd.testing.assert_frame_equal(one, expected.loc[["sigma", "Days"]], rtol=1e-6)
    assert_allclose(
        m.confint("profile", "sigma", 0.999), m.profile("sigma").confint(0.999), rtol=1e-6
    )


def test_selection() -> None:
    m = fitted_model("sleepstudy")
    for name, rows in (
        (None, ALL),
        ("fixed", ALL[4:]),
        ("beta_", ALL[4:]),
        ("random", ALL[:4]),
        ("theta_", ALL[:4]),
        ("sigma", ["sigma"]),
        (["Days", "random"], [*ALL[:4], "Days"]),
    ):
        assert list(m.confint(parameters=name).index) == rows


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "normal"}, "method 'normal' is not known; there are 'wald', 'profile', 'boot'"),
        ({"parameters": "Dayz"}, "no parameter 'Dayz'.*'sigma', '.Intercept.', 'Days'"),
        ({"parameters": 3}, "no parameter 3"),
        ({"level": 1.2}, "level must lie between 0 and 1"),
        ({"method": "profile", "ddf": "kr"}, "ddf= is for method 'wald'"),
        ({"method": "profile", "seed": 1}, "seed= is for method 'boot'"),
        ({"n": 10}, "n= is for method 'boot'"),
        ({"ddf": "kenward"}, "ddf 'kenward' is not known"),
    ],
)
def test_errors(arguments: dict, message: str) -> None:
    with pytest.raises(me.ModelError, match=message):
        fitted_model("sleepstudy").confint(**arguments)


def test_boot() -> None:
    m = fitted_model("sleepstudy")
    table = m.confint("boot", "random", n=20, seed=1, kind="basic", level=0.5)
    expected = m.bootstrap(20, seed=1).confint(0.5, "basic").loc[ALL[:4]]
    pd.testing.assert_frame_equal(table, expected)
