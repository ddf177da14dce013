"""Residuals, dispersion, leverage, influence, checks and pictures of generalized models."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from matplotlib.figure import Figure

import mixedeffects as me
from mixedeffects.diagnostics.dispersion import dispersion_test
from mixedeffects.pictures.generalized import GENERALIZED_PICTURES
from test_glmer import fitted, simulated


@pytest.mark.parametrize("name", ["cbpp", "owls_nb", "cake_gamma", "beta_slope", "ig_sim"])
def test_quantile_residuals_by_their_definition(name: str) -> None:
    m = fitted(name)
    y, mu = m.y, m.fitted.to_numpy()
    phi, trials = m.phi, m.fit.response.trials
    known = {
        "cbpp": lambda k: scipy.stats.binom.cdf(np.rint(y * (trials if trials is not None else 1))
                                                - k, trials, mu),
        "owls_nb": lambda k: scipy.stats.nbinom.cdf(y - k, phi, phi / (phi + mu)),
        "cake_gamma": lambda k: scipy.stats.gamma.cdf(y, 1.0 / phi, scale=mu * phi),
        "beta_slope": lambda k: scipy.stats.beta.cdf(y, mu * phi, (1.0 - mu) * phi),
        "ig_sim": lambda k: scipy.stats.invgauss.cdf(y, mu * phi, scale=1.0 / phi),
    }[name]  # fmt: skip
    shares = scipy.stats.norm.cdf(m.resid("quantile", seed=3))
    low, high = known(1) if m.family.discrete else known(0), known(0)
    assert (shares >= low - 1e-9).all() and (shares <= high + 1e-9).all()
    again = m.resid("quantile", seed=3)
    assert np.array_equal(again, m.resid("quantile", seed=3))
    assert m.family.discrete != np.array_equal(again, m.resid("quantile", seed=4))


def test_residuals_of_a_right_model_are_normal_and_uniform() -> None:
    m, _ = simulated("poisson")
    drawn = m.refit(m.simulate(seed=11)["sim_1"])
    assert scipy.stats.kstest(drawn.resid("quantile"), "norm").pvalue > 0.001
    assert scipy.stats.kstest(drawn.resid("simulated"), "uniform").pvalue > 0.001


def test_simulated_residuals_are_ranks_among_draws() -> None:
    m = fitted("cake_gamma")
    draws = m.simulate(200, seed=7).to_numpy()
    below = (draws < m.y[:, None]).mean(axis=1)
    assert m.resid("simulated", seed=7, draws=200).to_numpy() == pytest.approx(below)
    m = fitted("cbpp")
    draws = m.simulate(200, seed=7).to_numpy()
    own = m.resid("simulated", seed=7, draws=200).to_numpy()
    assert (own >= (draws < m.y[:, None] - 1e-9).mean(axis=1)).all()
    assert (own <= (draws <= m.y[:, None] + 1e-9).mean(axis=1)).all()
    with pytest.raises(me.ModelError, match="draws"):
        m.resid("simulated", draws=0)


# --- dispersion ------------------------------------------------------------------------


def test_dispersion_is_found_and_not_found() -> None:
    ticks = me.load_dataset("grouseticks")
    over = me.glmer("TICKS ~ YEAR + cHEIGHT + (1 | BROOD)", ticks, family="poisson")
    test = over.dispersion_test(draws=99)
    assert test.statistic == pytest.approx(float((over.resid("pearson") ** 2).sum()))
    assert test.ratio > 1.5 and test.p_value == 0.01
    assert over.dispersion_test(draws=99).p_value == test.p_value
    drawn = over.refit(over.simulate(seed=2)["sim_1"])
    fine = drawn.dispersion_test(draws=99)
    assert 0.8 < fine.ratio < 1.25 and fine.p_value > 0.01
    assert "times that of data sets drawn" in repr(fine)


def test_p_values_of_the_dispersion_are_those_of_a_right_model() -> None:
    """Residuals of data sets drawn are as small for being fitted as those of the data."""
    m = fitted("cbpp")
    draws = m.simulate(40, seed=5)
    ps = [dispersion_test(m.refit(draws[name]).fit, 39, 1).p_value for name in draws]
    assert 0.35 < np.mean(ps) < 0.75
    assert np.mean(np.array(ps) <= 0.1) < 0.25


def test_dispersions_that_cannot_be_tested() -> None:
    with pytest.raises(me.ModelError, match="Single successes and failures"):
        fitted("salamander").dispersion_test()
    with pytest.raises(me.ModelError, match=r"is estimated, m\.phi"):
        fitted("cake_gamma").dispersion_test()


# --- leverage and influence ------------------------------------------------------------


@pytest.mark.parametrize("name", ["cbpp", "cake_gamma", "salamander"])
def test_leverages_of_the_working_model(name: str) -> None:
    m = fitted(name)
    W, Z, X = m.working["W"].to_numpy(), m.Z.toarray(), m.X
    V = Z @ m.G.sparse().toarray() @ Z.T + np.diag(1.0 / W)
    inverse = np.linalg.inv(V)
    C = np.linalg.inv(X.T @ inverse @ X)
    remaining = inverse - inverse @ X @ C @ X.T @ inverse
    total = 1.0 - np.diag(remaining) / W
    fixed = np.diag(X @ C @ X.T @ inverse)
    assert m.leverage().to_numpy() == pytest.approx(total, abs=1e-8)
    assert m.leverage("fixed").to_numpy() == pytest.approx(fixed, abs=1e-8)
    assert m.leverage("random").to_numpy() == pytest.approx(total - fixed, abs=1e-8)


def test_influence_by_refits() -> None:
    m, data = fitted("cbpp"), me.load_dataset("cbpp")
    found = m.influence("herd", refit=True)
    without = m.update(data=data[data["herd"] != "11"])
    change = m.fixef - without.fixef
    assert found.dfbeta.loc["11"].to_numpy() == pytest.approx(change.to_numpy(), abs=1e-5)
    C = m.vcov().to_numpy()
    cooks = change @ np.linalg.solve(C, change) / 4.0
    assert found.cooks_distance["11"] == pytest.approx(cooks, rel=1e-4)
    sd = m.theta[0] - without.theta[0]
    assert found.variance_change.loc["11"].iloc[0] == pytest.approx(sd, abs=1e-5)
    assert "refitted" in repr(found)


def test_one_step_is_near_the_refits() -> None:
    m = fitted("cbpp")
    step, refits = m.influence("herd"), m.influence("herd", refit=True)
    assert "approximation: one step from the scores" in " ".join(repr(step).split())
    for name in step.dfbeta:
        assert np.corrcoef(step.dfbeta[name], refits.dfbeta[name])[0, 1] > 0.95
    assert step.dfbeta.sum().to_numpy() == pytest.approx(np.zeros(4), abs=1e-5)
    H = m.fit.found.joint
    scores = m.robust("CR0").scores.to_numpy()
    assert scores.shape == (15, 4) and len(H.hessian) == 5
    with pytest.raises(me.ModelError, match="crossed"):
        fitted("salamander").influence()
    assert step.covratio.isna().all()


def test_levels_without_which_nothing_can_be_estimated() -> None:
    m = me.glmer(
        "incidence / size ~ period + (1 | herd)",
        me.load_dataset("cbpp"),
        family="binomial",
        weights="size",
    )
    found = m.influence("period", refit=True)
    assert found.dfbeta.isna().to_numpy().all() or found.notes
    assert "cannot all be estimated" in " ".join(found.notes.values())


# --- checks ----------------------------------------------------------------------------


def test_checks_of_a_right_model_and_of_a_wrong_one() -> None:
    ticks = me.load_dataset("grouseticks")
    over = me.glmer("TICKS ~ YEAR + cHEIGHT + (1 | BROOD)", ticks, family="poisson")
    wrong = over.check(["dispersion", "normality", "simulation", "zeros"], draws=99)
    assert wrong.verdict("dispersion") == "problem"
    assert "negative_binomial" in repr(wrong)
    drawn = over.refit(over.simulate(seed=2)["sim_1"])
    right = drawn.check(draws=99)
    judged = [f for f in right.findings if np.isfinite(f.p_value)]
    assert len(judged) >= 6
    assert sum(f.verdict == "problem" for f in judged) == 0
    assert isinstance(right.to_frame(), pd.DataFrame)
    zeros = wrong.to_frame().set_index("check").loc["zeros", "value"]
    assert zeros == (ticks["TICKS"] == 0).sum()
    axes = right.plot()
    assert len(axes) >= 4
    assert right.ranks is not None and right.ranks.between(0.0, 1.0).all()


def test_checks_say_what_is_left_out() -> None:
    found = fitted("salamander").check(draws=39)
    text = " ".join(repr(found).split())
    for said in ("Single successes and failures", "Zeros are counted", "holds whole levels"):
        assert said in text
    assert "kr" not in repr(fitted("cbpp").check("levels"))
    assert fitted("cbpp").check("singularity").findings[0].statistic == "SD"
    for options in ({"which": "linearity"}, {"draws": 5}, {"which": []}, {"level": 2.0}):
        with pytest.raises(me.ModelError):
            fitted("cbpp").check(**options)


def test_checks_go_on_after_an_interruption() -> None:
    m = fitted("cbpp")
    whole = m.check("normality", draws=39)

    def stop(_line: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(me.Interrupted) as stopped:
        m.check("normality", draws=39, progress=stop)
    assert stopped.value.partial.resume().to_frame().equals(whole.to_frame())


# --- pictures --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(GENERALIZED_PICTURES))
def test_every_picture_is_drawn(kind: str) -> None:
    m = fitted("beta_slope")
    options = {"draws": 39} if kind == "checks" else {}
    drawn = m.plot(kind, **options)
    axes = np.atleast_1d(np.asarray(drawn, dtype=object))
    assert all(ax.has_data() for ax in axes.ravel())


def test_what_pictures_show() -> None:
    m = fitted("owls_nb")
    ax = m.plot("residuals", ax=Figure().subplots())
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("linear predictor", "quantile residual")
    points = np.asarray(ax.collections[0].get_offsets())
    assert np.sort(points[:, 1]) == pytest.approx(np.sort(m.resid("quantile").to_numpy()))
    assert len(me.plot.caterpillar(m, ax=Figure().subplots()).get_yticklabels()) == 27
    with pytest.raises(me.ModelError, match="Picture 'leverage'"):
        m.plot("leverage")
    with pytest.raises(me.ModelError, match="no option 'colour'"):
        m.plot("qq", colour="red")
    with pytest.raises(me.ModelError, match="linear mixed model so far"):
        me.plot.leverage(m)
