"""Robust errors where clusters determine a function of the fixed effects: not known, not small."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import mixedeffects as me

Matrix = np.ndarray


def trial(schools_per_arm: tuple[int, ...], seed: int = 3) -> pd.DataFrame:
    """Arms with some schools each, three rooms a school, eight pupils a room."""
    rng = np.random.default_rng(seed)
    arm = np.repeat([f"a{i}" for i in range(len(schools_per_arm))], schools_per_arm)
    schools = len(arm)
    school = np.repeat(np.arange(schools), 24)
    data = pd.DataFrame({"school": school, "room": np.arange(len(school)) // 8, "arm": arm[school]})
    data["x"] = rng.normal(size=len(data)) + 0.3 * rng.normal(size=schools)[school]
    data["z"] = rng.normal(size=schools)[school]
    data["item"] = np.arange(len(data)) % 6
    data["y"] = (
        rng.normal(size=schools)[school]
        + rng.normal(size=len(data) // 8)[data["room"]]
        + rng.normal(size=len(data))
    )
    return data


def hidden(model: me.LinearMixedModel, L: Any, **options: Any) -> list[bool]:
    """Which contrasts have no standard error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", me.ClusterWarning)
        return model.contrast(np.asarray(L, float), **options)["Std. Error"].isna().tolist()


def scores_can_move(model: me.LinearMixedModel, codes: Matrix, L: Matrix) -> list[bool]:
    """Whether every part of a function has a score that depends on the response, densely.

    The functions without are the null space of the scores' covariance; one with a part in it, in
    the metric of the estimates' covariance, has less variance without that part.
    """
    V, X = model.V.dense(), model.X
    W = np.linalg.inv(V)
    C = np.linalg.inv(X.T @ W @ X)
    residual = np.eye(len(V)) - X @ C @ X.T @ W
    G = np.zeros_like(C)
    for level in np.unique(codes):
        rows = codes == level
        A = C @ X[rows].T @ W[rows] @ residual
        G += A @ V @ A.T
    root = np.linalg.cholesky(C)
    values, vectors = np.linalg.eigh(np.linalg.solve(root, np.linalg.solve(root, G).T))
    null = root.T @ np.linalg.inv(C) @ root @ vectors[:, values < 1e-9]
    part = np.linalg.norm(L @ root @ null, axis=1) / np.linalg.norm(L @ root, axis=1)
    return (part < 1e-5).tolist()


@pytest.mark.parametrize("kind", ["CR0", "CR1", "CR1S", "CR2"])
@pytest.mark.parametrize(
    ("formula", "arms", "cluster"),
    [
        ("y ~ x + arm + (1 | school/room)", (4, 4), "arm"),
        ("y ~ x + arm + (1 | school/room)", (1, 5), "school"),
        ("y ~ x + arm + (1 | school/room)", (5, 1), "school"),
        ("y ~ x * arm + (1 | school/room)", (1, 1, 4), "school"),
        ("y ~ x + factor(school) + (1 | room)", (2, 3), "school"),
        ("y ~ z + I(z^2) + x + (1 | school/room)", (2, 1), "school"),
        ("y ~ z + I(z^2) + x + (1 | school/room)", (2, 2), "school"),
        ("y ~ x + arm + (x | school)", (3, 3), "school"),
    ],
)
def test_the_condition_from_its_definition(
    formula: str, arms: tuple[int, ...], cluster: str, kind: str
) -> None:
    data = trial(arms)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", me.ConvergenceWarning)
        model = me.lmer(formula, data)
    p = len(model.fixef)
    L = np.vstack([np.eye(p), np.tril(np.ones((p, p)))[1:], np.eye(p)[0] + np.eye(p)[-1]])
    codes = pd.factorize(data[cluster])[0]
    seen = scores_can_move(model, codes, L)
    assert hidden(model, L, vcov=kind, cluster=cluster) == [not each for each in seen]


def test_what_clusters_determine_is_nan_and_said() -> None:
    """Two arms, and each is a cluster: their means have residuals that add up to zero."""
    m = me.lmer("y ~ x + arm + (1 | school/room)", trial((4, 4)))
    for kind in ("CR0", "CR1", "CR1S", "CR2"):
        with pytest.warns(
            me.ClusterWarning, match=r"\(2 of arm\) determine '\(Intercept\)', 'arma1"
        ):
            robust = m.robust(kind, cluster="arm")
        assert robust.se.isna().tolist() == [True, False, True]
        assert robust.vcov.isna().sum().sum() == 8
        for test in ("Satterthwaite", "saddlepoint", "z"):
            assert robust.coef_table(test)["Pr(>|t|)"].isna().tolist() == [True, False, True]
        with pytest.raises(me.ModelError, match=r"is not known .* one by one"):
            robust.test("arm")
        assert robust.test("x").p == pytest.approx(robust.table.loc["x", "Pr(>|t|)"])
    with pytest.raises(me.ModelError, match=r"CR3 .* cannot be estimated"):
        m.robust("CR3", cluster="arm")


@pytest.mark.filterwarnings("ignore::mixedeffects.ClusterWarning")
def test_every_method_leaves_the_same_out() -> None:
    m = me.lmer("y ~ x + arm + (1 | school/room)", trial((1, 5)))
    robust: dict[str, Any] = {"vcov": "CR2", "cluster": "school"}
    assert m.coef_table(**robust)["Std. Error"].isna().tolist() == [True, False, True]
    assert m.vcov("CR2", "school").isna().any().tolist() == [True, True, True]
    assert m.contrast("x", **robust)["Std. Error"].notna().all()
    # The mean of the arm with five schools is known, though both coefficients in it are not.
    rows = pd.DataFrame({"x": [0.4, 0.4], "arm": ["a0", "a1"]})
    means = m.emmeans("arm", at={"x": 0.4}, **robust).to_frame()
    ours = m.predict(rows, re=None, interval="confidence", **robust)
    assert means["std_error"].isna().tolist() == ours["std_error"].isna().tolist() == [True, False]
    assert ours["conf_high"].isna().tolist() == [True, False]
    assert_allclose(means.iloc[1, 2], ours.iloc[1, 1])
    again = me.lmer(
        "y ~ x + relevel + (1 | school/room)",
        trial((1, 5)).assign(
            relevel=lambda d: np.where(d["arm"] == "a1", "0", "1"), x=lambda d: d["x"] - 0.4
        ),
    )
    assert_allclose(
        ours["std_error"][1], again.coef_table(**robust)["Std. Error"].iloc[0], rtol=1e-6
    )
    difference = m.emmeans("arm", **robust).contrasts().to_frame()
    assert difference["p_value"].isna().all() and difference["estimate"].notna().all()
    assert m.wald("x", **robust).p > 0.0
    with pytest.raises(me.ModelError, match="not known"):
        m.wald("arm", **robust)
    with pytest.warns(me.ClusterWarning, match="term arm. The variance of these contrasts"):
        table = m.anova(**robust)
    assert table["Pr(>F)"].isna().tolist() == [False, True]
    assert "NA" in repr(m.summary(vcov="CR2", cluster="school"))


def test_the_response_of_a_cluster_says_nothing() -> None:
    """Whatever is added to the one school of an arm, the robust matrix stays as it is."""
    data = trial((1, 5))
    m = me.lmer("y ~ x + arm + (1 | school/room)", data)
    one = (data["arm"] == "a0").to_numpy(float)
    with pytest.warns(me.ClusterWarning):
        before = m.robust("CR2", cluster="school")
    # At the same parameters: the residuals are those of generalized least squares.
    V = m.V
    beta = V.gls(m.X, m.y + 5.0 * one).coef
    assert beta.iloc[0] - m.fixef.iloc[0] == pytest.approx(5.0, abs=1e-8)
    assert_allclose(m.y + 5.0 * one - m.X @ beta, m.resid("marginal"), atol=1e-8)
    assert before.se.isna().tolist() == [True, False, True]


@pytest.mark.parametrize("cluster", [["school", "item"], ["arm", "item"], ["item", "arm"]])
def test_multiway(cluster: list[str]) -> None:
    """One factor that says nothing is enough: correlation within its levels is not seen."""
    data = trial((4, 4))
    m = me.lmer("y ~ x + arm + (1 | school) + (1 | item)", data)
    expected = ["arm" in cluster, False, "arm" in cluster]
    assert hidden(m, np.eye(3), vcov="CR0", cluster=cluster) == expected


def test_crossed_on_request() -> None:
    """Clusters that cut the blocks of V have the same condition."""
    data = trial((4, 4))
    m = me.lmer("y ~ x + arm + (1 | school) + (1 | item)", data)
    L = np.vstack([np.eye(3), [1.0, 0.0, 1.0]])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        robust = m.robust("CR1S", cluster="arm", crossed=True)
    assert ["left out" in str(w.message) or "determine" in str(w.message) for w in caught] == [
        True,
        True,
    ]
    seen = scores_can_move(m, pd.factorize(data["arm"])[0], L)
    assert robust._unseen.hides(L).tolist() == [not each for each in seen]
    with pytest.warns(me.ClusterWarning, match="left out"):
        assert m.robust("CR1S", cluster="school", crossed=True).se.notna().all()


def test_units_do_not_matter() -> None:
    """Neither far-off units nor weights make a function seem determined, or not."""
    data = trial((1, 5)).assign(w=lambda d: np.geomspace(1e-3, 1e3, len(d)))
    for scale in (1e-6, 1.0, 1e6):
        m = me.lmer(
            "y ~ x + arm + (1 | school/room)", data.assign(x=scale * data["x"]), weights="w"
        )
        assert hidden(m, np.eye(3), vcov="CR0", cluster="school") == [True, False, True]
        assert hidden(m, np.eye(3), vcov="CR2", cluster="school") == [True, False, True]


def test_more_contrasts_than_clusters_in_a_table_of_terms() -> None:
    """A term with as many contrasts as clusters is not tested on some of them."""
    data = trial((2, 2))
    data["f"] = [f"f{i % 7}" for i in range(len(data))]
    m = me.lmer("y ~ x + f + (1 | school)", data)
    with pytest.warns(me.ClusterWarning, match="term f. .* rank is at most the number of clusters"):
        table = m.anova(vcov="CR1", cluster="school")
    assert table["NumDF"].tolist() == [1, 6]
    assert table["F value"].isna().tolist() == [False, True]
    with pytest.raises(me.ModelError, match="rank is at most"):
        m.wald("f", vcov="CR1", cluster="school")


@pytest.mark.slow
def test_intervals_that_remain_are_honest() -> None:
    """What is not NaN has the coverage that CR2 has with five clusters: not 0.1 or 0.5."""
    data = trial((1, 5))
    m = me.lmer("y ~ x + arm + (1 | school/room)", data)
    draws = m.simulate(400, seed=1)
    rows = pd.DataFrame({"x": [0.0], "arm": ["a1"]})
    truth = float(m.predict(rows, re=None).iloc[0])
    inside = np.zeros(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in draws:
            fit = m.refit(draws[name])
            found = fit.predict(rows, re=None, interval="confidence", vcov="CR2", cluster="school")
            inside[0] += found["conf_low"][0] < truth < found["conf_high"][0]
            table = fit.coef_table(vcov="CR2", cluster="school").loc["x"]
            inside[1] += table["lower"] < m.fixef["x"] < table["upper"]
    assert (inside / 400 > 0.87).all(), inside / 400
