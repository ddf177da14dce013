"""Small-sample intervals hold the truth as often as they say; the whole table is in the docs."""

from __future__ import annotations

import pytest

from script_modules import script

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def simulation():
    return script("benchmarks/coverage.py")


# 400 draws: a standard error of 1.1 percentage points at 95 %.


def test_the_right_random_effects(simulation):
    result = simulation.coverage(10, "right", 400, seed=20)
    share = result["coverage"]
    for name in simulation.TRUTH:
        assert 0.915 <= share["Kenward-Roger"][name] <= 0.985
        assert 0.88 <= share["model, Satterthwaite"][name] <= 0.985
    # Taking V and normal quantiles at face value does not do with ten clusters.
    assert share["model, normal"]["treated"] < 0.91
    assert share["CR0, normal"]["treated"] < share["CR2, Satterthwaite"]["treated"] - 0.05


def test_the_wrong_random_effects(simulation):
    share = simulation.coverage(20, "wrong", 400, seed=21)["coverage"]
    # A slope that varies between clusters and is not in the model: only robust intervals hold.
    assert share["model, Satterthwaite"]["x"] < 0.75
    assert share["Kenward-Roger"]["x"] < 0.75
    assert share["CR2, Satterthwaite"]["x"] > 0.90
    assert share["CR0, normal"]["x"] < share["CR2, Satterthwaite"]["x"]
