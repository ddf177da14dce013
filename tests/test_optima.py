"""Searches end at an optimum, the best one that small designs have, and say so rightly."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixedeffects as me

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
    assert m.optimum.evaluations < 150
