"""Sizes that no machine holds are refused with what they would take, before memory is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mixedeffects as me
from mixedeffects.frame.checks import check_size

ABSURD = 10**12


@pytest.mark.parametrize(
    ("ask", "what"),
    [
        (lambda m: m.simulate(ABSURD), "1,000,000,000,000 draws of 180 rows"),
        (lambda m: m.V.sample(ABSURD), "1,000,000,000,000 draws of 180 rows"),
        (lambda m: m.variogram("Days", bins=ABSURD), "1,000,000,000,000 bins"),
        (lambda m: m.bootstrap(ABSURD), "The estimates of 1,000,000,000,000 refits"),
        (lambda m: m.bootstrap(2, seed=1).resume(ABSURD), "The estimates of"),
        (lambda m: me.power(m, "Days", n=10**10, draws=2), "A design with 10,000,000,000 levels"),
        (
            lambda m: me.power(m, "Days", within="Subject", n=ABSURD, draws=2),
            "rows in each Subject",
        ),
    ],
)
def test_numbers_of_draws_bins_and_levels(ask: Callable[[Any], Any], what: str) -> None:
    m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    with pytest.raises(me.ModelError, match=what) as caught:
        ask(m)
    assert "GB, more than the" in str(caught.value)


def test_a_limit_beyond_the_machine_is_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    monkeypatch.setattr("mixedeffects.covariance.sizes.usable_memory", lambda: 1e5)
    with pytest.raises(me.ModelError, match=r"259 kB, more than the 100 kB that this machine has"):
        m.V.dense(max_gb=1e9)


def test_columns_are_counted_with_what_a_fit_makes_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mixedeffects.frame.checks.usable_memory", lambda: 1e9)
    check_size(10**6, 30, "f")
    with pytest.raises(me.ModelError, match=r"a fit with such a matrix takes 1 GB"):
        check_size(10**6, 40, "f")


def test_workers_beyond_the_work_are_not_made() -> None:
    m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
    few, many = m.bootstrap(3, seed=1, workers=1), m.bootstrap(3, seed=1, workers=ABSURD)
    assert np.array_equal(few.draws, many.draws)


def test_a_covariance_with_too_many_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    d = pd.DataFrame({"f": np.tile(np.arange(40).astype(str), 50), "g": np.repeat(range(25), 80)})
    d["y"] = rng.normal(size=2000)
    monkeypatch.setattr("mixedeffects.fitting.assembly.usable_memory", lambda: 1e6)
    with pytest.raises(me.ModelError, match=r"820 variance parameters, .* on `g` \(f0, "):
        me.lmer("y ~ 1 + (0 + f | g)", d)
