"""Power by simulation, against the power that theory gives."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import mixedeffects as me
from mixedeffects.prediction.designs import with_levels, with_rows_within

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


def split_plots(blocks: int = 6) -> pd.DataFrame:
    """A on whole plots and B on their parts, each block having all six combinations twice."""
    cells = [(b, a, c) for b in range(blocks) for a in "uv" for c in "xyz" for _ in range(2)]
    data = pd.DataFrame(cells, columns=["block", "A", "B"])
    rng = np.random.default_rng(8)
    plot = data.groupby(["block", "A"]).ngroup().to_numpy()
    data["y"] = rng.normal(size=blocks)[data["block"]] + rng.normal(size=2 * blocks)[plot]
    data["y"] += rng.normal(size=len(data))
    return data


SPLIT = [
    "y ~ A + B + (1 | block) + (1 | block:A)",
    "y ~ A + B + (1 | block/A)",
    "y ~ A + B + (1 | A:block)",
    "y ~ A + B + (1 | block:A)",
]


@pytest.mark.parametrize("formula", SPLIT)
def test_a_treatment_in_a_grouping_factor_is_never_multiplied(formula):
    m = me.lmer(formula, split_plots())
    found = me.power(m, "A", n=[4, 15], draws=2, seed=1)
    assert found.along == "levels of block"
    assert found.table["rows"].tolist() == [4 * 12, 15 * 12]
    larger = with_levels(m.frame.data, "block", 15, m.frame.terms, ["A", "B"])
    again = me.lmer(formula, larger.assign(y=np.random.default_rng(1).normal(size=180)))
    assert set(larger["A"]) == {"u", "v"} and set(larger["B"]) == {"x", "y", "z"}
    for term in again.frame.terms:
        assert term.n_levels == (30 if len(term.variables) == 2 else 15)
    assert (larger.groupby(["block", "A", "B"]).size() == 2).all()
    with pytest.raises(me.ModelError, match=r"'A', which is in the fixed part too.*'block'"):
        me.power(m, "A", n=[3], along="A", draws=2)


def split_plot_power(blocks: int, effect: float) -> float:
    """Of the F test with the error of whole plots: the difference within blocks, averaged."""
    se = np.sqrt(2.0 * (1.0 + 1.0 / 6.0) / blocks)
    critical = stats.f.isf(0.05, 1, blocks - 1)
    return float(stats.ncf.sf(critical, 1, blocks - 1, (effect / se) ** 2))


@pytest.mark.slow
def test_power_of_a_split_plot_is_that_of_its_f_test():
    m = me.lmer(SPLIT[0], split_plots())
    found = me.power(
        m, "A", n=[5, 16], effects={"Av": 1.1}, draws=600, seed=2,
        varcorr={"block:A": 1.0, "block": 0.7}, sigma=1.0,
    ).table  # fmt: skip
    for size, share in zip(found["n"], found["power"], strict=True):
        truth = split_plot_power(size, 1.1)
        assert abs(share - truth) < 4.0 * np.sqrt(truth * (1 - truth) / 600) + 0.02


def test_treatments_keep_their_shares():
    """Schools in the order of their arms: neither few nor some more are of one arm."""
    school = np.repeat(np.arange(12), 3)
    data = pd.DataFrame({"school": school, "arm": np.where(school < 4, "a", "b")})
    data["dose"] = np.where(school < 4, 10.0, 20.0)
    data["age"] = np.random.default_rng(1).normal(size=36)
    data["y"] = np.random.default_rng(2).normal(size=36)
    m = me.lmer("y ~ arm + age + (1 | school)", data)
    for fixed in (["arm", "age"], ["dose", "age"]):
        for n, of_a in ((3, 1), (6, 2), (12, 4), (18, 6), (30, 10)):
            larger = with_levels(data, "school", n, m.frame.terms, fixed)
            arms = larger.groupby("school")["arm"].first()
            assert len(arms) == n and (arms == "a").sum() == of_a
    assert me.power(m, "arm", n=[6], draws=4, seed=1).table["failed"].tolist() == [0]


def test_names_of_copies_are_new():
    data = pd.DataFrame({"g": ["1", "1", "1_2", "1_2", "3", "3"], "x": 0.0})
    data["y"] = np.random.default_rng(1).normal(size=6)
    m = me.lmer("y ~ 1 + (1 | g)", data)
    assert with_levels(data, "g", 9, m.frame.terms)["g"].nunique() == 9


def test_which_variable_counts_has_to_be_said_where_two_could():
    data = split_plots().assign(rep=lambda d: np.arange(len(d)) % 3)
    m = me.lmer("y ~ A + (1 | block:rep)", data)
    with pytest.raises(me.ModelError, match="levels of 'block' or of 'rep'; say which with along="):
        me.power(m, "A", n=[12], draws=2)
    assert me.power(m, "A", n=[12], along="block", draws=2, seed=1).along == "levels of block"
    as_it_is = me.power(m, "A", draws=2, seed=1)
    assert (as_it_is.along, as_it_is.table["n"][0]) == ("levels of block:rep", 18)
    nested = data.assign(rep=data["block"] * 10 + data["rep"])
    m = me.lmer("y ~ A + (1 | block:rep)", nested)
    assert me.power(m, "A", n=[12], draws=2, seed=1).along == "levels of block"
    only = me.lmer("y ~ A + (1 | A:B)", data.assign(B=data["B"] + data["A"]))
    both = me.lmer("y ~ A + (1 | A:B)", data)
    assert me.power(only, "A", n=[12], draws=2, seed=1).along == "levels of B"
    assert me.power(both, "A", n=[12], draws=2, seed=1).along == "levels of B"


def test_an_outer_level_is_not_copied_with_its_only_inner_one():
    """One teacher in each school; more teachers are in the same schools."""
    data = pd.DataFrame({"s": np.repeat(list("abcd"), 4), "t": np.repeat(list("ABCD"), 4)})
    data["y"] = np.random.default_rng(0).normal(size=16)
    terms = me.lmer("y ~ 1 + (1 | s/t)", pd.concat([data, data.assign(t="Z")])).frame.terms
    larger = with_levels(data, "t", 8, terms)
    assert (larger["s"].nunique(), larger["t"].nunique()) == (4, 8)
    larger = with_levels(data, "s", 8, terms)
    assert (larger["s"].nunique(), larger["t"].nunique()) == (8, 8)


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
