"""Covariates far from zero, in any units, nearly collinear, or summing to one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixedeffects as me
from mixedeffects.frame.rank import independent_columns


def recording(offset: float, unit: float = 1.0) -> pd.DataFrame:
    """Twenty recordings of ten moments each, ``unix`` being ``offset`` later than ``since``."""
    rng = np.random.default_rng(5)
    g, since = np.repeat(np.arange(20), 10), np.tile(np.arange(10.0), 20)
    slopes = 0.2 + 0.2 * rng.normal(size=20)
    y = 10.0 + rng.normal(size=20)[g] + slopes[g] * since + 0.3 * rng.normal(size=200)
    arm = np.where(g % 2, "a", "b")
    return pd.DataFrame({"y": y, "g": g, "arm": arm, "since": since, "unix": offset + unit * since})


@pytest.mark.parametrize(
    ("offset", "unit"), [(2000.0, 1.0), (1e9, 1.0), (1.7e9, 10.0), (1.7e18, 1e9), (-1e10, 1.0)]
)
@pytest.mark.parametrize(
    "formula", ["y ~ X + (1 | g)", "y ~ X * arm + (X | g)", "y ~ 0 + arm + arm:X + (1 | g)"]
)
def test_far_from_zero_is_the_fit_to_centred_columns(
    formula: str, offset: float, unit: float
) -> None:
    d = recording(offset, unit)
    far, near = (me.lmer(formula.replace("X", name), d) for name in ("unix", "since"))
    assert far.dropped.columns == ()
    assert far.converged
    assert far.sigma == pytest.approx(near.sigma, rel=1e-7)
    assert np.allclose(far.fitted, near.fitted, rtol=1e-6)
    assert np.allclose(far.predict(d), near.predict(d), rtol=1e-6)
    slopes = [name for name in near.fixef.index if "since" in name]
    for ddf in ("satterthwaite", "kr"):
        ours = far.coef_table(ddf=ddf).iloc[:, :4]
        ours.iloc[:, :2] *= unit
        theirs = near.coef_table(ddf=ddf).iloc[:, :4]
        rows = [name.replace("since", "unix") for name in slopes]
        assert np.allclose(ours.loc[rows], theirs.loc[slopes], rtol=1e-5)
    x = np.random.default_rng(1).normal(size=200)
    for ours, theirs in [
        (far.V @ x, near.V @ x),
        (far.V.dense(), near.V.dense()),
        (far.V.solve(x), near.V.solve(x)),
        (far.leverage(), near.leverage()),
    ]:
        assert np.allclose(ours, theirs, rtol=1e-5, atol=1e-6 * np.abs(theirs).max())
    assert far.r2().conditional == pytest.approx(near.r2().conditional, rel=1e-6)
    again = far.V.gls(far.X, far.y).coef.to_numpy()
    assert again[-1] == pytest.approx(far.fixef.iloc[-1], rel=1e-5)
    drawn = far.simulate(200, seed=1).to_numpy()
    assert drawn.var(axis=1).mean() == pytest.approx(near.V.diag().mean(), rel=0.2)


def test_refits_far_from_zero() -> None:
    d = recording(1.7e9)
    far, near = (me.lmer(f"y ~ {name} + ({name} | g)", d) for name in ("unix", "since"))
    y = near.simulate(1, seed=3)["sim_1"]
    assert far.refit(y).fixef["unix"] == pytest.approx(near.refit(y).fixef["since"], rel=1e-6)


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e3, 1e12])
def test_units_change_nothing(scale: float) -> None:
    d = recording(0.0)
    whole = me.lmer("y ~ since + (since | g)", d)
    m = me.lmer("y ~ since + (since | g)", d.assign(since=d.since * scale))
    assert m.fixef["since"] * scale == pytest.approx(whole.fixef["since"], rel=1e-9)
    assert m.criterion == pytest.approx(whole.criterion + 2.0 * np.log(scale), abs=1e-7)


def test_what_rounding_has_taken_is_to_be_centred() -> None:
    d = recording(1e9)
    m = me.lmer("y ~ unix + I(unix^2) + (1 | g)", d)
    assert m.dropped.columns == ("I(unix^2)",)
    assert "so far from zero that they look constant: centre them" in str(m.dropped)
    assert "look constant: centre them" in " ".join(str(m.summary()).split())
    with pytest.raises(me.ModelError, match=r"centre it, for example with I\(unix - 1000000000\)"):
        me.lmer("y ~ unix + (1 | g) + (0 + unix | g)", d)
    with pytest.raises(me.ModelError, match="centre it"):
        me.lmer("y ~ unix + (unix | g)", recording(1e15))


def test_a_constant_is_still_no_column_of_its_own() -> None:
    rng = np.random.default_rng(1)
    n, f = 60, rng.integers(0, 3, 60)
    dummies = (f[:, None] == np.arange(3)) * 1.0
    constant = np.full(n, 0.1) + 1e-17
    assert independent_columns(np.column_stack([np.ones(n), 3.0 * constant])).tolist() == [0]
    assert independent_columns(np.column_stack([np.ones(n), dummies])).tolist() == [0, 1, 2]
    x = 1e9 + np.arange(n)
    assert independent_columns(np.column_stack([np.ones(n), x, x / 3.0])).tolist() == [0, 1]
    within = np.column_stack([np.ones(n), dummies[:, 1:], x, x[:, None] * dummies[:, 1:]])
    assert independent_columns(within).tolist() == list(range(6))


def nearly_collinear() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    d = pd.DataFrame({"x": rng.normal(size=200), "g": np.arange(200) % 20})
    d["z"] = 2.0 * d.x + 1e-9 * rng.normal(size=200)
    d["f"] = pd.Categorical(np.array(list("abc"))[np.arange(200) % 3])
    d["h"] = d["f"].astype(str) + "'"
    d["y"] = d.x + rng.normal(size=20)[d.g] + rng.normal(size=200)
    return d


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ x + z + (1 | g)",
        "y ~ f + h + x + z + (x | g)",
        "y ~ poly(x, 2) + z + f * h + (1 | g)",
        "y ~ scale(x) + z + bs(x, df = 4) + (1 | g)",
        "y ~ x + I(x + 1e-8 * z^2) + (1 | g)",
    ],
)
def test_own_rows_are_always_predicted(formula: str) -> None:
    d = nearly_collinear()
    m = me.lmer(formula, d)
    assert m.dropped.columns
    fitted = pd.Series(m.fitted, index=d.index)
    small = m.without_data()
    for rows in (d, d.iloc[:7], d.iloc[[3]], d.sample(frac=1.0, random_state=1)):
        assert np.allclose(m.predict(rows), fitted.loc[rows.index])
        assert np.allclose(small.predict(rows), fitted.loc[rows.index])
    assert np.allclose(m.predict(d.astype({"f": object})), fitted)


def test_other_rows_must_keep_the_relation() -> None:
    d = nearly_collinear()
    m = me.lmer("y ~ x + z + (1 | g)", d)
    for fit in (m, m.without_data()):
        with pytest.raises(me.DataError, match="it dropped `z`"):
            fit.predict(d.head().assign(z=1.0))
    means = me.lmer("y ~ f + x + z + (1 | g)", d).emmeans("f")
    assert means.to_frame().notna().all(axis=None)


def test_proportions_that_sum_to_one() -> None:
    rng = np.random.default_rng(1)
    parts = rng.dirichlet(np.ones(30), size=300)
    names = [f"c{i}" for i in range(30)]
    d = pd.DataFrame(parts, columns=names).assign(g=np.repeat(np.arange(20), 15))
    d["y"] = parts @ rng.normal(size=30) + rng.normal(size=20)[d.g] + rng.normal(size=300)
    terms = " + ".join(names)
    with_one, without = (me.lmer(f"y ~ {f}{terms} + (1 | g)", d) for f in ("", "0 + "))
    assert with_one.dropped.columns == ("c29",)
    assert without.dropped.columns == ()
    assert np.allclose(with_one.fitted, without.fitted)
    assert np.allclose(with_one.without_data().predict(d), without.fitted)
    with pytest.raises(me.DataError, match="c29"):
        with_one.predict(d.head().assign(c0=2.0))
