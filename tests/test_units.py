"""Results do not depend on units, and units in which squares are no numbers are refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mixedeffects as me

FORMULA = "Reaction ~ Days + (Days | Subject)"
UNITS = {
    "large covariate": lambda d: d.assign(Days=d.Days * 1e100),
    "small covariate": lambda d: d.assign(Days=d.Days * 1e-100),
    "large response": lambda d: d.assign(Reaction=d.Reaction * 1e110),
    "small response": lambda d: d.assign(Reaction=d.Reaction * 1e-110),
}
#: Numbers without units.
ASKED: dict[str, Callable[[Any], Any]] = {
    "satterthwaite": lambda m: m.coef_table().iloc[:, 2:4],
    "kr": lambda m: m.coef_table(ddf="kr").iloc[:, 2:4],
    "CR2": lambda m: m.coef_table(vcov="CR2").iloc[:, 2:4],
    "joint test": lambda m: m.wald(["(Intercept)", "Days"]).statistic,
    "joint kr": lambda m: m.wald(["(Intercept)", "Days"], ddf="kr").statistic,
    "joint df": lambda m: m.satterthwaite.f_df(np.eye(2)),
    "r2": lambda m: m.r2().conditional,
    "leverage": lambda m: m.leverage(),
    "quad": lambda m: m.V.quad(m.y),
}


@pytest.fixture(scope="module")
def sleep() -> pd.DataFrame:
    return me.load_dataset("sleepstudy")


@pytest.mark.parametrize("unit", UNITS)
def test_numbers_without_units(unit: str, sleep: pd.DataFrame) -> None:
    base, m = me.lmer(FORMULA, sleep), me.lmer(FORMULA, UNITS[unit](sleep))
    str(m)
    for what, ask in ASKED.items():
        assert np.allclose(ask(m), ask(base), rtol=1e-4), what
    new = UNITS[unit](sleep.head())
    assert m.predict(new, re=None, interval="prediction").notna().all(axis=None)


@pytest.mark.parametrize("scale", [1e-20, 1e-9, 1e9, 1e20])
def test_joint_tests_do_not_depend_on_the_units_of_a_column(
    scale: float, sleep: pd.DataFrame
) -> None:
    base = me.lmer(FORMULA, sleep).wald(["(Intercept)", "Days"])
    m = me.lmer(FORMULA, sleep.assign(Days=sleep.Days * scale))
    test = m.wald(["(Intercept)", "Days"])
    assert test.statistic == pytest.approx(base.statistic, rel=1e-6)
    assert test.p == pytest.approx(base.p, rel=1e-3)


@pytest.mark.parametrize(
    ("change", "options", "named"),
    [
        ({"Days": 1e160}, {}, "`Days` has values of size 9e"),
        ({"Days": 1e-160}, {}, "`Days` has values of size 9e-160"),
        ({"Days": 1e300}, {}, "`Days` has values"),
        ({"Reaction": 1e305}, {}, "The response `Reaction` has values"),
        ({"Days": 1e-80, "Reaction": 1e80}, {}, "Coefficients of `Days`, in units of `Reaction`"),
        ({}, {"weights": np.full(180, 1e308)}, "The weights"),
        ({}, {"weights": np.full(180, 1e-320)}, "The weights"),
        ({}, {"weights": 10.0 ** np.linspace(-300, 300, 180)}, "The weights"),
        ({}, {"offset": np.full(180, 1e200)}, "The response `Reaction` has values"),
    ],
)
def test_squares_that_are_no_numbers(
    change: dict[str, float], options: dict[str, Any], named: str, sleep: pd.DataFrame
) -> None:
    d = sleep.assign(**{name: sleep[name] * by for name, by in change.items()})
    with pytest.raises(me.DataError, match=named) as caught:
        me.lmer(FORMULA, d, **options)
    assert "Use other units" in str(caught.value)


def awkward(seed: int) -> tuple[pd.DataFrame, str, dict[str, Any]]:
    """A small design of the kind that ends searches at strange places."""
    rng = np.random.default_rng(seed)
    n = int(rng.choice([12, 20, 40]))
    d = pd.DataFrame(
        {
            "x": rng.normal(size=n) * 10.0 ** rng.integers(-3, 4),
            "f": np.array(list("pqr"))[rng.integers(0, 3, n)],
            "a": rng.integers(0, 5, n),
            "b": rng.integers(0, 3, n),
        }
    )
    responses = [
        rng.normal(size=5)[d.a],
        d.x + 1e-9 * rng.normal(size=n),
        rng.normal(size=5)[d.a] * 1e8 + rng.normal(size=n),
        rng.integers(0, 2, n).astype(float),
    ]
    d["y"] = responses[seed % len(responses)]
    formulas = [
        "y ~ x + (1 | a)",
        "y ~ x + f + (x | a)",
        "y ~ x + f + (1 | a) + diag(0 + f | b)",
        "y ~ x + (1 | a) + ar1(0 + f | b)",
        "y ~ f + (1 | a) + (1 | b)",
        "y ~ 0 + (1 | a)",
    ]
    weights = 10.0 ** rng.uniform(-8, 8, n) if seed % 3 == 0 else None
    return d, formulas[seed % len(formulas)], {"weights": weights, "reml": seed % 2 == 0}


@pytest.mark.parametrize("seed", range(12))
def test_numpy_says_nothing(seed: int) -> None:
    d, formula, options = awkward(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", RuntimeWarning)
        try:
            m = me.lmer(formula, d, **options)
        except me.MixedEffectsError:
            return
        for ask in (
            lambda: m.coef_table(),
            lambda: m.ranef(cond_var=True),
            lambda: m.V.solve(m.y),
            lambda: m.leverage(),
            lambda: m.influence(),
            lambda: m.optimum.certificate,
        ):
            try:
                ask()
            except me.MixedEffectsError:
                continue


@pytest.mark.parametrize(
    "start",
    [[1e8, 1e8, 1e8], [-1e5, 1e5, -1e5], [1e100, 0.0, 1.0], [1e308] * 3, [1e-300, 0.0, 1e-300]],
)
@pytest.mark.parametrize("formula", [FORMULA, "Reaction ~ Days + cs(Days | Subject)"])
def test_a_start_far_out_ends_in_the_fit(
    formula: str, start: list[float], sleep: pd.DataFrame
) -> None:
    m = me.lmer(formula, sleep, start=start)
    assert m.converged
    assert m.criterion == pytest.approx(me.lmer(formula, sleep).criterion, abs=1e-7)
