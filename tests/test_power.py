"""Power by simulation, against the power that theory gives."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import mixedeffects as me
from mixedeffects.designs import with_levels, with_rows_within

SLEEP = me.load_dataset("sleepstudy")


@pytest.fixture(scope="module")
def trial() -> me.LinearMixedModel:
    """Ten schools of six pupils, half of them treated."""
    school = np.repeat(np.arange(10), 6)
    rng = np.random.default_rng(1)
    y = rng.standard_normal(10)[school] + rng.standard_normal(60)
    data = pd.DataFrame({"y": y, "school": school.astype(str), "treated": school % 2})
    return me.lmer("y ~ treated + (1 | school)", data)


VALUES = {"varcorr": {"school": 0.5}, "sigma": 1.0}


def exact_power(schools: int, pupils: int, effect: float) -> float:
    """Of the t-test of school means, which the mixed model's is in a balanced design."""
    se = np.sqrt(4.0 * (0.5 + 1.0 / pupils) / schools)
    critical = stats.t.isf(0.025, schools - 2)
    nct = stats.nct(schools - 2, effect / se)
    return float(nct.sf(critical) + nct.cdf(-critical))


@pytest.mark.slow
def test_power_is_that_of_the_t_test_of_means(trial):
    found = me.power(
        trial, "treated", n=[8, 20], effects={"treated": 1.2}, draws=800, seed=2, **VALUES
    ).table
    for size, share, n_rows in zip(found["n"], found["power"], found["rows"], strict=True):
        truth = exact_power(size, 6, 1.2)
        assert n_rows == 6 * size
        # A variance estimated as zero adds degrees of freedom: a little above, never far.
        assert abs(share - truth) < 4.0 * np.sqrt(truth * (1 - truth) / 800) + 0.02


def test_without_an_effect_it_is_the_level(trial):
    found = me.power(
        trial, "treated", effects={"treated": 0.0}, draws=300, seed=4, ddf="kr", **VALUES
    ).table.loc[0]
    assert (found["n"], found["rows"]) == (10, 60)
    assert 0.015 <= found["power"] <= 0.105
    assert found["lower"] < 0.05 < found["upper"]


def test_more_rows_within_levels(trial):
    found = me.power(
        trial, "treated", n=[2, 24], within="school", effects={"treated": 1.5}, draws=60, seed=3,
        **VALUES,
    )  # fmt: skip
    assert found.table["rows"].tolist() == [20, 240]
    assert found.table["power"].iloc[1] >= found.table["power"].iloc[0]
    assert found.along == "rows in each school"


def test_the_same_seed_gives_the_same_draws(trial):
    one, two = (
        me.power(trial, "treated", n=6, draws=20, seed=9, vcov="CR2", **VALUES).table
        for _ in range(2)
    )
    pd.testing.assert_frame_equal(one, two)


def test_weights_offsets_and_transforms_survive(trial):
    o = np.random.default_rng(1).uniform(0.0, 2000.0, len(SLEEP))
    data = SLEEP.assign(w=np.linspace(0.5, 2.0, len(SLEEP)), o=o, Reaction=SLEEP["Reaction"] + o)
    m = me.lmer(
        "Reaction ~ poly(Days, 2) + offset(o) + (1 | Subject)", data, weights="w", reml=False
    )
    found = me.power(m, "poly(Days, 2)", n=[4, 25], draws=15, seed=1, ddf="residual").table
    assert found["rows"].tolist() == [40, 250]
    # The effect of days is huge, unless an offset of up to 2000 leaks into the response.
    assert found["power"].iloc[1] == 1.0


def test_copies_of_levels_are_other_levels():
    data = me.load_dataset("threelevel")
    m = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", data)
    larger = with_levels(m.frame.data, "sch.cl", 25, m.frame.terms)
    again = me.lmer("y ~ x1 + (1 | sch.cl/tch.cl)", larger)
    assert again.ngroups == {"tch.cl:sch.cl": 75, "sch.cl": 25}
    smaller = with_levels(m.frame.data, "sch.cl", 4, m.frame.terms)
    assert smaller["sch.cl"].nunique() == 4
    assert set(smaller["sch.cl"]) <= set(data["sch.cl"].astype(str))


def test_teachers_with_names_of_their_own_are_copied_too():
    school = np.repeat(np.arange(4), 6)
    teacher = np.repeat(np.arange(8), 3)
    item = np.tile(np.arange(3), 8)
    data = pd.DataFrame({"s": school, "t": teacher, "i": item})
    rng = np.random.default_rng(0)
    data["y"] = rng.standard_normal(24)
    m = me.lmer("y ~ 1 + (1 | s) + (1 | t) + (1 | i)", data)
    larger = with_levels(m.frame.data, "s", 10, m.frame.terms)
    assert larger["t"].nunique() == 20
    assert larger["i"].nunique() == 3  # crossed: the same items


def test_rows_within_are_used_in_turn():
    data = pd.DataFrame({"g": ["a", "b", "a", "a"], "x": [1, 2, 3, 4]})
    assert with_rows_within(data, ["g"], 4)["x"].tolist() == [1, 3, 4, 1, 2, 2, 2, 2]
    assert with_rows_within(data, ["g"], 2)["x"].tolist() == [1, 3, 2, 2]


def test_text_and_picture(trial):
    import matplotlib.pyplot as plt

    found = me.power(trial, "treated", n=[6, 8], draws=10, seed=1, **VALUES)
    assert "Power of treated (satterthwaite) at level 0.05, by levels of school" in repr(found)
    assert "failed" not in repr(found)
    assert "<table" in found._repr_html_()
    assert found.plot().get_ylabel() == "power"
    plt.close("all")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"test": "dose"}, "no term or coefficient 'dose'"),
        ({"n": 0}, "n, the size of a design, must be a positive whole number"),
        ({"n": []}, "n is empty"),
        ({"n": 5, "along": "treated"}, "along names 'treated', which is not one of 'school'"),
        ({"n": 5, "within": "pupil"}, "within names 'pupil', which is not one of"),
        ({"within": "school"}, "within= needs n"),
        ({"n": 5, "along": "school", "within": "school"}, "not both"),
        ({"effects": {"dose": 1.0}}, "effects names 'dose', which is not one of '\\(Intercept\\)'"),
        ({"effects": {"treated": "big"}}, "must be a number, not 'big'"),
        ({"effects": {"treated": np.nan}}, "must be finite"),
        ({"alpha": 5}, "alpha must lie between 0 and 1"),
        ({"draws": 0}, "draws, the number of draws"),
        ({"ddf": "kenward"}, "ddf 'kenward' is not known"),
        ({"vcov": "CR9"}, "CR9"),
        ({"varcorr": {"class": 1.0}, "sigma": 1.0}, "class"),
        ({"n": 1, "draws": 3}, "With 1 levels of school not one of 3 draws could be"),
    ],
)
def test_bad_arguments(trial, arguments, message):
    arguments = {"test": "treated", "draws": 5, "seed": 1} | arguments
    with pytest.raises(me.MixedEffectsError, match=message):
        me.power(trial, **arguments)


def test_the_model_must_be_a_fit():
    with pytest.raises(me.ModelError, match="must be a fitted model"):
        me.power("y ~ x", "x")
