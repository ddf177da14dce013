"""Searches end at an optimum, the best one that small designs have, and say so rightly."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pandas as pd
import pytest

import mixedeffects as me
from script_modules import script

# --- searches that crept --------------------------------------------------------------------------


def one_row_levels(seed: int) -> pd.DataFrame:
    """Nearly all rows in one level, two levels of one row, one of them far out."""
    random = np.random.default_rng(seed)
    n = 19
    data = pd.DataFrame(
        {
            "x": random.normal(size=n),
            "z": np.arange(n, dtype=float),
            "f": random.choice(["p", "q"], n),
            "a": ["C", "A", *["B"] * (n - 2)],
        }
    )
    y = 15.0 + 0.5 * data["x"] + random.normal(size=n)
    y[1] -= 120.0
    return data.assign(y=y)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("start", [None, [1.0, 0.0, 1.0], [0.2, 0.0, 0.2], [0.01, 0.5, 3.0]])
def test_no_search_creeps_along_a_singular_covariance(seed: int, start: list[float] | None) -> None:
    """The average information is wrong by orders of magnitude there: 200 evaluations were used."""
    m = me.lmer("y ~ x + z + f + (x | a)", one_row_levels(seed), reml=False, start=start)
    assert m.converged and m.is_singular
    assert m.optimum.search_evaluations < 150


# --- the best of several optima -------------------------------------------------------------------


def small_designs() -> ModuleType:
    """The generator of the benchmark."""
    return script("benchmarks/small_designs.py")


#: Designs on which a single search from a moment estimate misses the best optimum.
SEVERAL_OPTIMA = [145, 248, 278, 300, 437, 440, 579, 918, 989, 1047, 1210, 1524]


@pytest.mark.parametrize("number", SEVERAL_OPTIMA)
def test_the_best_of_several_optima_is_found(number: int) -> None:
    designs = small_designs()
    design = designs.small_design(number)
    m = me.lmer(design.formula, design.data, reml=design.reml)
    best = designs.best_of_many(m, starts=12)
    assert best.checked == pytest.approx(best.criterion, abs=1e-6)
    assert m.criterion < best.criterion + 1e-4
    assert m.converged and m.optimum.starts > 1
    assert 1 <= m.optimum.agreed <= m.optimum.starts
    assert m.optimum.search_evaluations < m.optimum.evaluations


@pytest.mark.slow
def test_generated_designs_end_at_their_best_optimum() -> None:
    """A few hundred; `benchmarks/small_designs.py` does ten thousand."""
    designs = small_designs()
    counts = designs.survey(range(20_000, 20_400))
    assert counts["fitted"] > 300
    assert counts["above the best"] <= 1
    assert counts["warned at an optimum"] == 0


def test_a_start_that_is_given_is_the_only_one() -> None:
    design = small_designs().small_design(440)
    m = me.lmer(design.formula, design.data, reml=design.reml, start=[0.01, 0.01])
    assert m.optimum.starts == m.optimum.agreed == 1
    assert m.optimum.search_evaluations == m.optimum.evaluations


def test_large_models_are_searched_once() -> None:
    m = me.lmer("y ~ service + (1 | s) + (1 | d)", me.load_dataset("insteval").iloc[::20])
    assert m.optimum.starts == 1


def test_the_optimum_says_what_was_tried_and_what_is_certified() -> None:
    sleep = me.load_dataset("sleepstudy")
    once = me.lmer("Reaction ~ Days + (Days | Subject)", sleep)
    assert once.optimum.starts == once.optimum.agreed == 1
    m = me.lmer("Reaction ~ Days + (Days | Subject)", sleep.iloc[:90])
    tried = f"{m.optimum.agreed} of {m.optimum.starts} led here"
    assert m.optimum.agreed == m.optimum.starts > 1 and tried in repr(m.optimum)
    assert f"converged in {m.optimum.search_evaluations} evaluations" in repr(m.optimum)
    assert "local optimum holds" in str(m.optimum.certificate)


def test_an_endless_likelihood_is_said() -> None:
    """Ten rows that eight random effects and four fixed ones can reproduce."""
    design = small_designs().small_design(24)
    with pytest.warns(me.ConvergenceWarning, match="likelihood has no maximum"):
        m = me.lmer(design.formula, design.data, reml=design.reml)
    assert m.optimum.unbounded


# --- no false alarms ------------------------------------------------------------------------------

#: Designs at whose optimum rounding keeps the relative gradient above 1e-5.
STEEP = [645, 740, 1039, 1618, 1838, 2193]


@pytest.mark.parametrize("number", STEEP)
def test_an_optimum_with_a_gradient_of_rounding_is_one(number: int) -> None:
    design = small_designs().small_design(number)
    m = me.lmer(design.formula, design.data, reml=design.reml)
    assert m.converged
    assert m.optimum.predicted_decrease < 1e-6


def test_effects_that_reproduce_the_response_are_an_error_of_ours() -> None:
    """Near them second derivatives are rounding, and said that nothing was left to gain."""
    design = small_designs().small_design(23083)
    with pytest.raises(me.ModelError, match="reproduce the response exactly"):
        me.lmer(design.formula, design.data, reml=design.reml)
