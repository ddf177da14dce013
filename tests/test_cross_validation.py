"""Cross-validation, against fits to the other rows and dense predictive densities."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import mixedeffects as me

SLEEP = me.load_dataset("sleepstudy")


@pytest.fixture(scope="module")
def fits() -> tuple[me.LinearMixedModel, me.LinearMixedModel]:
    formulas = ("Reaction ~ Days + (Days | Subject)", "Reaction ~ Days + (1 | Subject)")
    return tuple(me.lmer(formula, SLEEP) for formula in formulas)


def conditional(m: me.LinearMixedModel, data: pd.DataFrame, formula: str, out: np.ndarray):
    """Mean and log density of the rows left out, from dense V at the fit's estimates."""
    planned = me.marginal_covariance(formula, data, G=m.varcorr)
    V, fixed = planned.dense(), planned.X.to_numpy() @ m.fixef.to_numpy()
    y = data.iloc[:, 0].to_numpy()
    gain = V[np.ix_(out, ~out)] @ np.linalg.inv(V[np.ix_(~out, ~out)])
    mean = fixed[out] + gain @ (y - fixed)[~out]
    spread = V[np.ix_(out, out)] - gain @ V[np.ix_(~out, out)]
    return mean, stats.multivariate_normal(mean, spread).logpdf(y[out])


@pytest.mark.parametrize("by", ["Subject", None])
def test_folds_are_fits_to_the_other_rows(fits, by):
    found = me.cross_validate(*fits, by=by, folds=6, seed=3)
    for name, m in zip(["m1", "m2"], fits, strict=True):
        for fold in (0, 4):
            out = found.folds == fold
            again = me.lmer(m.formula, SLEEP[~out])
            mean, density = conditional(again, SLEEP, m.formula, out)
            row = found.by_fold.query("model == @name and fold == @fold").iloc[0]
            np.testing.assert_allclose(found.predictions[name][out], mean, rtol=1e-5)
            assert row["elpd"] == pytest.approx(density, rel=1e-6)
            assert row["n"] == out.sum()
            error = SLEEP["Reaction"][out] - mean
            assert row["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-5)
            assert row["mae"] == pytest.approx(np.mean(np.abs(error)), rel=1e-5)
            predicted = again.predict(SLEEP[out], new_levels="population")
            np.testing.assert_allclose(found.predictions[name][out], predicted, rtol=1e-5)


def test_whole_groups_are_left_out(fits):
    found = me.cross_validate(fits[0], by="Subject")
    assert len(found.by_fold) == 18
    assert SLEEP.groupby(found.folds)["Subject"].nunique().eq(1).all()
    parts = me.cross_validate(fits[0], by=SLEEP["Subject"].astype(str).to_numpy(), folds=5, seed=1)
    assert parts.by_fold["n"].tolist() == [40, 40, 40, 30, 30]
    assert SLEEP.groupby("Subject", observed=True).apply(
        lambda rows: len(set(parts.folds[rows.index])) == 1, include_groups=False
    ).all()  # fmt: skip


def test_the_table_sums_over_folds(fits):
    found = me.cross_validate(*fits, by="Subject")
    table = found.to_frame()
    first, second = (
        found.by_fold.query("model == @name")["elpd"].to_numpy() for name in table.index
    )
    assert table["elpd"].tolist() == pytest.approx([first.sum(), second.sum()])
    assert table.loc["m1", "elpd_diff"] == 0.0
    assert table.loc["m2", "elpd_diff"] == pytest.approx((second - first).sum())
    expected = np.std(second - first, ddof=1) * np.sqrt(18)
    assert table.loc["m2", "se_diff"] == pytest.approx(expected)
    error = SLEEP["Reaction"] - found.predictions["m2"]
    assert table.loc["m2", "rmse"] == pytest.approx(np.sqrt((error**2).mean()))


def test_weights_offsets_and_crossed_designs():
    data = me.load_dataset("penicillin")
    data = data.assign(w=np.random.default_rng(1).uniform(0.5, 2, len(data)), o=np.arange(144.0))
    m = me.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", data, weights="w", offset="o")
    found = me.cross_validate(m, by="plate", folds=4, seed=2)
    out = found.folds == 1
    again = me.lmer(m.formula, data[~out], weights="w", offset="o")
    planned = me.marginal_covariance(m.formula, data, G=again.varcorr, weights="w")
    V, fixed = planned.dense(), again.fixef.iloc[0] + data["o"].to_numpy()
    y = data["diameter"].to_numpy()
    gain = V[np.ix_(out, ~out)] @ np.linalg.inv(V[np.ix_(~out, ~out)])
    mean = fixed[out] + gain @ (y - fixed)[~out]
    spread = V[np.ix_(out, out)] - gain @ V[np.ix_(~out, out)]
    np.testing.assert_allclose(found.predictions["m1"][out], mean, rtol=1e-5)
    density = stats.multivariate_normal(mean, spread).logpdf(y[out])
    assert found.by_fold["elpd"][1] == pytest.approx(density, rel=1e-5)


def test_a_fold_that_cannot_be_fitted_is_said():
    data = SLEEP.assign(only=(SLEEP["Subject"] == "308").astype(float))
    m = me.lmer("Reaction ~ Days + only + (1 | Subject)", data)
    found = me.cross_validate(m, by="Subject")
    table = found.to_frame()
    assert table.loc["m1", "failed"] == 1
    assert found.predictions["m1"].isna().sum() == 10
    assert "m1, fold 0: the fixed effects cannot all be estimated" in repr(found)


def test_text_progress_and_seed(fits, capsys):
    one = me.cross_validate(fits[0], seed=4)
    two = me.cross_validate(fits[0], seed=4, progress=True)
    pd.testing.assert_frame_equal(one.predictions, two.predictions)
    assert "fold 10 of 10" in capsys.readouterr().err
    assert "180 rows in 10 parts, seed 4" in repr(one)
    assert "<table" in one._repr_html_()


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda a, b: me.cross_validate(), "at least one fitted model"),
        (lambda a, b: me.cross_validate(a, "b"), "Argument 2 of me.cross_validate must be a model"),
        (lambda a, b: me.cross_validate(a, b), "Model 2 was not fitted to the same rows"),
        (lambda a, b: me.cross_validate(a, folds=1), "at least 2 and no more than the 180 rows"),
        (lambda a, b: me.cross_validate(a, by="Subject", folds=19), "no more than the 18 levels"),
        (lambda a, b: me.cross_validate(a, folds="x"), "folds, the number of parts, must be"),
        (lambda a, b: me.cross_validate(a, by="school"), "school"),
        (lambda a, b: me.cross_validate(a, by=np.arange(3)), "180"),
        (lambda a, b: me.cross_validate(a, seed=1.5), "seed must be a whole number"),
    ],
)
def test_bad_arguments(fits, ask, message):
    shorter = me.lmer("Reaction ~ Days + (1 | Subject)", SLEEP.iloc[:150])
    with pytest.raises(me.MixedEffectsError, match=message):
        ask(fits[0], shorter)
