"""Fits of residual structures on generated designs, against the definition by dense algebra."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import mixedeffects as me
from script_modules import script

designs = script("benchmarks/generated_residuals.py")

#: One of each structure; by strata, with a variance for each time, a nugget, weights; beside random
#: effects that are crossed, nested or slopes; by REML and ML. The first two are searched again.
NUMBERS = [5, 30, 2, 9, 14, 16, 17, 23, 26, 33, 46, 234]


@pytest.mark.parametrize("number", NUMBERS)
def test_the_criterion_is_that_of_the_definition(number: int) -> None:
    found = designs.check(number)
    assert found["converged"] and not found["warned"]
    assert abs(found["difference"]) < 1e-12
    if number % designs.EVERY == 0:
        assert found["below"] < 1e-6


def test_the_designs_have_all_structures() -> None:
    drawn = {designs.design(number).kind for number in NUMBERS}
    assert drawn == set(designs.KINDS)


def test_a_parameter_beside_the_estimate_is_seen() -> None:
    """Criterion and search see what is not the definition's, or not its optimum."""
    design = designs.design(10)
    definition = designs.Definition(design, design.fit())
    best = definition.criterion(definition.at_the_fit)
    definition.R_parameters = definition.R_parameters * np.array([1.0, 1.3])
    beside = definition.criterion(definition.at_the_fit)
    assert beside > best + 1e-3
    assert designs.lowest_found(definition, 10) == pytest.approx(best, abs=1e-6)


def test_the_slope_is_the_derivative_of_the_criterion() -> None:
    design = designs.design(33)
    objective = designs.Coordinates(designs.Definition(design, design.fit()))
    x = objective.of_fit() + 0.1
    _, gradient = objective(x)
    step = 1e-5 * np.eye(len(x))
    differences = [(objective(x + h)[0] - objective(x - h)[0]) / 2e-5 for h in step]
    assert gradient == pytest.approx(differences, rel=1e-5, abs=1e-5)


def test_a_limit_is_warned_of() -> None:
    with pytest.warns(me.ConvergenceWarning, match=r"sd_v3\|Residual` goes to zero"):
        m = designs.design(13).fit()
    assert m.optimum.limits and not m.converged


def test_the_stored_counts_have_no_miss() -> None:
    stored = json.loads(designs.STORE.read_text(encoding="utf-8"))
    assert stored["failed"] == stored["different"] == stored["lower_elsewhere"] == []
    assert stored["fitted"] == sum(stored["fitted_by_structure"].values())
    page = Path(__file__).parents[1] / "docs" / "validation.md"
    assert designs.section() in page.read_text(encoding="utf-8")
