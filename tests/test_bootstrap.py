"""Simulation and the parametric bootstrap."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import mixedeffects as me

SLEEP = me.load_dataset("sleepstudy")


@pytest.fixture(scope="module")
def sleep() -> me.LinearMixedModel:
    return me.lmer("Reaction ~ Days + (Days | Subject)", SLEEP)


@pytest.fixture(scope="module")
def crossed() -> me.LinearMixedModel:
    data = me.load_dataset("penicillin")
    weights = np.random.default_rng(3).uniform(0.5, 2.0, len(data))
    return me.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", data, weights=weights)


# --- simulate ----------------------------------------------------------------------------


def test_the_moments_of_draws_are_those_of_the_model(crossed):
    draws = crossed.simulate(4000, seed=1).to_numpy()
    mean = crossed.X @ crossed.fixef.to_numpy()
    V = crossed.V.dense()
    sd = np.sqrt(np.diag(V))
    z = (draws.mean(axis=1) - mean) / (sd / np.sqrt(4000))
    assert np.abs(z).max() < 4.5
    S = np.cov(draws)
    # Var of a sample covariance is (V_ij^2 + V_ii V_jj) / m.
    error = np.sqrt((V**2 + np.outer(sd**2, sd**2)) / 4000)
    assert np.abs((S - V) / error).max() < 6.0
    assert np.sqrt(np.mean(((S - V) / error) ** 2)) < 1.3


def test_whitened_draws_are_standard_normal(sleep):
    draws = sleep.simulate(50, seed=4).to_numpy()
    white = sleep.V.whiten(draws - (sleep.X @ sleep.fixef.to_numpy())[:, None])
    assert stats.kstest(white.ravel(), "norm").pvalue > 1e-4


def test_conditional_draws_keep_the_modes(sleep):
    draws = sleep.simulate(3000, seed=2, re="all").to_numpy()
    z = (draws.mean(axis=1) - sleep.fitted.to_numpy()) / (sleep.sigma / np.sqrt(3000))
    assert np.abs(z).max() < 4.5
    assert np.std(draws - sleep.fitted.to_numpy()[:, None]) == pytest.approx(sleep.sigma, rel=0.01)


def test_some_terms_can_be_kept(crossed):
    draws = crossed.simulate(3000, seed=2, re=["sample"]).to_numpy()
    codes = crossed.frame.terms[1].codes
    kept = crossed.ranef()["sample"].to_numpy()[codes, 0]
    mean = crossed.X[:, 0] * crossed.fixef.iloc[0] + kept
    sd = np.sqrt(crossed.varcorr["plate"].iloc[0, 0] + crossed.R.diag())
    z = (draws.mean(axis=1) - mean) / (sd / np.sqrt(3000))
    assert np.abs(z).max() < 4.5


def test_draws_do_not_depend_on_how_many_are_asked_for(sleep):
    few, many = sleep.simulate(2, seed=7), sleep.simulate(5, seed=7)
    pd.testing.assert_frame_equal(few, many.iloc[:, :2])
    assert list(few) == ["sim_1", "sim_2"]
    assert few.index.equals(SLEEP.index)
    assert not np.allclose(few["sim_1"], sleep.simulate(1, seed=8)["sim_1"])


def test_an_offset_is_part_of_the_draws():
    offset = np.linspace(0.0, 1000.0, len(SLEEP))
    m = me.lmer("Reaction ~ Days + (1 | Subject)", SLEEP.assign(o=offset), offset="o")
    draws = m.simulate(500, seed=1).to_numpy().mean(axis=1)
    plain = m.X @ m.fixef.to_numpy()
    assert np.abs(draws - plain - offset).max() < 6 * np.sqrt(m.V.diag().max() / 500)


def test_a_generator_can_be_the_seed(sleep):
    a = sleep.simulate(1, seed=np.random.default_rng(5))
    b = sleep.simulate(1, seed=np.random.default_rng(5))
    pd.testing.assert_frame_equal(a, b)


# --- bootstrap ---------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_each_refit_is_the_fit_to_the_simulated_response(sleep, workers):
    boot = sleep.bootstrap(12, seed=11, workers=workers)
    drawn = sleep.simulate(12, seed=11)
    for i, name in enumerate(drawn):
        again = sleep.refit(drawn[name])
        row = boot.draws.iloc[i]
        assert row["sigma"] == pytest.approx(again.sigma, rel=1e-5)
        sd = again.varcorr.sd("Subject")
        assert row["sd_(Intercept)|Subject"] == pytest.approx(sd["(Intercept)"], rel=1e-4)
        assert row["sd_Days|Subject"] == pytest.approx(sd["Days"], rel=1e-4)
        np.testing.assert_allclose(row[["(Intercept)", "Days"]], again.fixef, rtol=1e-6)
        correlation = again.varcorr.corr("Subject").iloc[0, 1]
        assert row["cor_Days.(Intercept)|Subject"] == pytest.approx(correlation, abs=1e-4)
        assert boot.criterion[i] == pytest.approx(again.criterion, abs=1e-6)


def test_crossed_weighted_refits_with_offset_and_dropped_rows():
    data = me.load_dataset("penicillin").assign(o=np.arange(144.0))
    data.loc[5, "diameter"] = np.nan
    w = np.random.default_rng(1).uniform(0.5, 2.0, 144)
    m = me.lmer(
        "diameter ~ 1 + (1 | plate) + (1 | sample)", data, weights=w, offset="o", reml=False
    )
    boot = m.bootstrap(4, seed=3)
    for i, name in enumerate(m.simulate(4, seed=3)):
        again = m.refit(m.simulate(4, seed=3)[name].to_numpy())
        assert boot.criterion[i] == pytest.approx(again.criterion, abs=1e-6)
        assert boot.draws["sd_(Intercept)|plate"][i] == pytest.approx(
            again.varcorr.sd("plate").iloc[0], rel=1e-4
        )
        assert boot.draws["(Intercept)"][i] == pytest.approx(again.fixef.iloc[0], rel=1e-8)


@pytest.fixture(scope="module")
def wide() -> me.LinearMixedModel:
    rng = np.random.default_rng(2)
    g, h, x = rng.integers(0, 80, 700), rng.integers(0, 60, 700), rng.normal(size=700)
    y = rng.normal(size=80)[g] + 0.7 * rng.normal(size=60)[h] + x + rng.normal(size=700)
    return me.lmer("y ~ x + (1 | g) + (1 | h)", pd.DataFrame({"g": g, "h": h, "x": x, "y": y}))


@pytest.fixture(scope="module")
def penicillin() -> me.LinearMixedModel:
    return me.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", me.load_dataset("penicillin"))


@pytest.mark.parametrize("name", ["wide", "penicillin"])
def test_draws_of_crossed_designs_do_not_depend_on_the_workers(name, request):
    m = request.getfixturevalue(name)
    one = m.bootstrap(70, seed=4, workers=1)
    for workers in (2, 3, None):
        pd.testing.assert_frame_equal(m.bootstrap(70, seed=4, workers=workers).draws, one.draws)

    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(me.Interrupted) as stopped:
        # Told of once the work has begun, so there is something done and something left.
        m.bootstrap(5, seed=4, workers=2, progress=stop)
    resumed = stopped.value.partial.resume(70, workers=3)
    pd.testing.assert_frame_equal(resumed.draws, one.draws)


def test_few_crossed_effects_go_down_in_the_kernels_to_the_same_optimum(penicillin, monkeypatch):
    from mixedeffects.engine import finding

    fast = penicillin.bootstrap(30, seed=9)
    monkeypatch.setattr(finding, "has_few_effects", lambda _: False)
    searched = penicillin.bootstrap(30, seed=9)
    np.testing.assert_allclose(fast.draws, searched.draws, rtol=1e-5)
    np.testing.assert_allclose(fast.criterion, searched.criterion, atol=1e-8)
    assert (fast.n_singular, fast.n_failed) == (searched.n_singular, searched.n_failed)


def test_singular_refits_are_counted_and_a_singular_fit_starts_afresh():
    m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff2"))
    boot = m.bootstrap(60, seed=1)
    zero = boot.draws["sd_(Intercept)|Batch"] == 0.0
    assert boot.n_singular == zero.sum()
    # The score of the variance at zero is as often negative as its distribution has it: 0.6 or so.
    assert 20 < zero.sum() < 55
    assert f"{boot.n_singular} singular" in repr(boot)


def test_the_spread_of_estimates_is_their_standard_error(sleep):
    boot = sleep.bootstrap(1500, seed=2)
    table = boot.to_frame()
    np.testing.assert_allclose(
        table.loc[["(Intercept)", "Days"], "Std. Error"], sleep.se, rtol=0.08
    )
    bias = table["Bias"] / (table["Std. Error"] / np.sqrt(1500))
    assert np.abs(bias[["(Intercept)", "Days"]]).max() < 4


def test_resuming_changes_nothing(sleep):
    whole = sleep.bootstrap(40, seed=5)
    parts = sleep.bootstrap(7, seed=5)
    assert len(parts.draws) == 7
    parts.resume(40)
    pd.testing.assert_frame_equal(parts.draws, whole.draws)
    assert parts.resume().draws.equals(whole.draws)
    pd.testing.assert_frame_equal(sleep.bootstrap(150, seed=5, workers=2).draws[:40], whole.draws)


def test_an_interrupted_bootstrap_keeps_what_is_done(sleep):
    def stop(line):
        raise KeyboardInterrupt

    import mixedeffects.progress as progress

    original = progress._INTERVAL
    progress._INTERVAL = 0.0
    try:
        with pytest.raises(me.Interrupted, match="of 500") as caught:
            sleep.bootstrap(500, seed=1, progress=stop)
    finally:
        progress._INTERVAL = original
    boot = caught.value.partial
    assert 0 < len(boot.draws) < 500
    assert "of 500 refits" in repr(boot)
    pd.testing.assert_frame_equal(boot.resume().draws, sleep.bootstrap(500, seed=1).draws)


def test_progress_reaches_the_end(sleep, capsys):
    lines = []
    sleep.bootstrap(30, seed=1, progress=lines.append)
    assert lines[-1].done == lines[-1].total == 30
    sleep.bootstrap(30, seed=1, progress=True)
    assert "refit 30 of 30" in capsys.readouterr().err


def test_a_statistic_of_ones_own(sleep):
    def ratio(fit):
        return {"ratio": fit.varcorr.sd("Subject")["Days"] / fit.sigma, "criterion": fit.criterion}

    boot = sleep.bootstrap(6, seed=3, statistic=ratio)
    plain = sleep.bootstrap(6, seed=3)
    assert list(boot.draws) == ["ratio", "criterion"]
    np.testing.assert_allclose(
        boot.draws["ratio"], plain.draws["sd_Days|Subject"] / plain.draws["sigma"], rtol=1e-4
    )
    np.testing.assert_allclose(boot.draws["criterion"], plain.criterion, atol=1e-6)
    assert boot.estimates["ratio"] == ratio(sleep)["ratio"]


def test_an_error_in_a_statistic_is_not_hidden(sleep):
    with pytest.raises(ZeroDivisionError):
        sleep.bootstrap(3, seed=1, statistic=lambda fit: 1 / 0)
    with pytest.raises(me.ModelError, match="statistic must return a number"):
        sleep.bootstrap(3, seed=1, statistic=lambda fit: "much")
    calls = []

    def changing(fit):
        calls.append(fit)
        return {f"name{min(len(calls), 2)}": 1.0}

    with pytest.raises(me.ModelError, match="same names for every fit"):
        sleep.bootstrap(3, seed=1, statistic=changing)


# --- intervals ---------------------------------------------------------------------------


def test_intervals_are_what_their_names_say(sleep):
    boot = sleep.bootstrap(400, seed=9)
    draws, estimate = boot.draws["sigma"].to_numpy(), sleep.sigma
    low, high = np.quantile(draws, [0.05, 0.95])
    np.testing.assert_allclose(boot.confint(0.9).loc["sigma"], [low, high])
    basic = boot.confint(0.9, "basic").loc["sigma"]
    np.testing.assert_allclose(basic, [2 * estimate - high, 2 * estimate - low])
    normal = boot.confint(0.9, "normal").loc["sigma"]
    center = 2 * estimate - draws.mean()
    half = stats.norm.ppf(0.95) * draws.std(ddof=1)
    np.testing.assert_allclose(normal, [center - half, center + half])
    a, b = boot.confint(0.9, "shortest").loc["sigma"]
    assert np.mean((draws >= a) & (draws <= b)) == pytest.approx(0.9, abs=1 / 400)
    ordered = np.sort(draws)
    assert b - a <= min(ordered[i + 359] - ordered[i] for i in range(41)) + 1e-12
    assert list(boot.confint(0.9)) == ["lower", "upper"]


def test_missing_correlations_do_not_spoil_the_others():
    m = me.lmer("Reaction ~ Days + (Days | Subject)", SLEEP.iloc[:60])
    boot = m.bootstrap(150, seed=1)
    finite = boot.draws["sd_Days|Subject"].notna()
    assert finite.all()
    assert boot.to_frame().loc["cor_Days.(Intercept)|Subject", "n"] <= 150
    assert boot.confint().notna().all().all()


# --- bad input ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n, the number of refits, must be a positive whole number, not 0"),
        ({"n": 2.5}, "must be a positive whole number, not 2.5"),
        ({"n": 2, "seed": -1}, "seed must be a whole number from 0"),
        ({"n": 2, "seed": "x"}, "seed must be a whole number"),
        ({"n": 2, "re": ["school"]}, "no random-effects term 'school'; name 'Subject'"),
        ({"n": 2, "re": 3}, "re must be 'all', None, or names"),
        ({"n": 2, "workers": 0}, "workers, the number of refits at a time"),
        ({"n": 2, "statistic": 3}, "statistic must be a function"),
        ({"n": 2, "progress": "yes"}, "progress must be True, False, None or a function"),
    ],
)
def test_bad_arguments(sleep, arguments, message):
    with pytest.raises(me.ModelError, match=message):
        sleep.bootstrap(**arguments)


def test_bad_arguments_of_intervals_and_plots(sleep):
    boot = sleep.bootstrap(5, seed=1)
    with pytest.raises(me.ModelError, match="kind 'bca' is not known; there are 'percentile'"):
        boot.confint(kind="bca")
    for level in (0.0, 95, "high", True):
        with pytest.raises(me.ModelError, match="level must lie between 0 and 1"):
            boot.confint(level)
    with pytest.raises(me.ModelError, match="no parameter 'tau'; there are 'sd_"):
        boot.plot("tau")
    with pytest.raises(me.ModelError, match="n, the number of draws"):
        sleep.simulate(0)


def test_pictures_and_pages(sleep):
    import matplotlib.pyplot as plt

    boot = sleep.bootstrap(50, seed=1)
    axes = boot.plot()
    assert [ax.get_xlabel() for ax in axes] == list(boot.draws)
    _, ax = plt.subplots()
    assert boot.plot("sigma", ax=ax) is ax
    assert len(ax.lines) == 3
    with pytest.raises(me.ModelError, match="ax holds 1 axes, but there are 6 pictures"):
        boot.plot(ax=ax)
    plt.close("all")
    assert "sd_Days|Subject" in boot._repr_html_()
    assert "seed 1" in repr(boot)
