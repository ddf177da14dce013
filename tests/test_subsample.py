"""The start from rows in which one factor is nested in another."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixedeffects as me
from mixedeffects.engine import EngineTerm, subsample
from mixedeffects.engine.subsample import nearly_nested_rows


def movers(seed: int = 0, moved: float = 0.05) -> pd.DataFrame:
    """Pupils in schools for three years, some of them elsewhere for one."""
    rng = np.random.default_rng(seed)
    pupils, schools = 600, 30
    pupil = np.repeat(np.arange(pupils), 3)
    school = np.repeat(rng.integers(0, schools, pupils), 3)
    away = rng.random(len(pupil)) < moved
    school[away] = rng.integers(0, schools, int(away.sum()))
    teacher = school * 4 + rng.integers(0, 4, len(pupil))
    y = (
        rng.normal(size=pupils)[pupil]
        + 0.6 * rng.normal(size=schools)[school]
        + 0.8 * rng.normal(size=4 * schools)[teacher]
        + rng.normal(size=len(pupil))
    )
    return pd.DataFrame({"y": y, "pupil": pupil, "teacher": teacher, "school": school})


def terms(data: pd.DataFrame, *names: str) -> list[EngineTerm]:
    one = np.ones((len(data), 1))
    out = []
    for number, name in enumerate(names):
        levels, codes = np.unique(data[name], return_inverse=True)
        out.append(EngineTerm(codes.astype(np.int32), len(levels), one, number))
    return out


def test_rows_kept_are_those_of_the_usual_school() -> None:
    data = movers()
    rows = nearly_nested_rows(terms(data, "pupil", "teacher", "school"))
    assert rows is not None and 0.9 < rows.mean() < 1.0
    kept = data[rows]
    assert (kept.groupby("pupil")["school"].nunique() == 1).all()
    assert kept["pupil"].nunique() == data["pupil"].nunique()
    counts = data.groupby(["pupil", "school"]).size()
    assert len(kept) == counts.groupby("pupil").max().sum()


def test_nothing_is_dropped_where_factors_are_nested_or_fully_crossed() -> None:
    assert nearly_nested_rows(terms(movers(moved=0.0), "pupil", "school")) is None
    rng = np.random.default_rng(1)
    crossed = pd.DataFrame({"a": np.repeat(np.arange(50), 10), "b": rng.integers(0, 40, 500)})
    assert nearly_nested_rows(terms(crossed, "a", "b")) is None


@pytest.mark.parametrize("reml", [True, False])
def test_the_start_is_close_and_changes_no_answer(
    monkeypatch: pytest.MonkeyPatch, reml: bool
) -> None:
    data = movers()
    formula = "y ~ 1 + (1 | pupil) + (1 | teacher) + (1 | school)"
    plain = me.lmer(formula, data, reml=reml)
    # As if the core of so few schools were large, and that of the part small.
    monkeypatch.setattr(subsample, "_LARGE_CORE", 0)
    monkeypatch.setattr(subsample, "_CHEAPER", 2.0)
    started = me.lmer(formula, data, reml=reml)
    assert started.criterion == pytest.approx(plain.criterion, abs=1e-7)
    np.testing.assert_allclose(started.theta, plain.theta, atol=1e-5)
    assert started.optimum.evaluations < plain.optimum.evaluations
    first = started.optimum.path[0] - started.criterion
    assert 0.0 < first < 0.5 * (plain.optimum.path[0] - plain.criterion)
