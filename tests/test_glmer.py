"""`glmer` and the model it returns: against R, against definitions, and what is refused."""

from __future__ import annotations

import inspect
import pickle
import re
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import scipy.stats

import mixedeffects as me
from generalized_references import MODELS, model_data, reference
from mixedeffects.base.habits import OF_A_GENERALIZED_FIT
from mixedeffects.families import find_family
from mixedeffects.model.generalized.refused import NEVER

CBPP = "incidence / size ~ period + (1 | herd)"
#: One of each kind: trials, slopes, crossed, row effects, a probit link, and each parameter.
SOME = (
    "cbpp",
    "contraception_slope",
    "salamander",
    "grouseticks",
    "schizophrenia_probit",
    "owls_nb",
    "cake_gamma",
    "beta_slope",
    "ig_sim",
)


@cache
def fitted(name: str) -> me.GeneralizedLinearMixedModel:
    """The fit of a stored model; a warning is an error."""
    model = MODELS[name]
    family = type(find_family(model.family))(model.link)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return me.glmer(model.formula, model_data(name), family=family, weights=model.weights)


@cache
def simulated(family: str = "binomial") -> tuple[me.GeneralizedLinearMixedModel, pd.DataFrame]:
    """A fit to 240 rows in 24 levels with offset, weights and a factor, and its data."""
    rng = np.random.default_rng(3)
    n = 240
    data = pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "f": pd.Categorical(rng.choice(["a", "b", "c"], n)),
            "g": np.repeat([f"g{i:02d}" for i in range(24)], 10),
            "known": 0.3 * rng.normal(size=n),
            "w": rng.integers(1, 4, n).astype(float),
            "hours": rng.uniform(0.5, 2.0, n),
        }
    )
    effects = rng.normal(scale=0.8, size=24)[np.arange(n) // 10]
    eta = -0.2 + 0.6 * data["x"] + effects + data["known"]
    if family == "binomial":
        data["y"] = (rng.random(n) < 1.0 / (1.0 + np.exp(-eta))).astype(float)
        m = me.glmer("y ~ x + f + (x | g)", data, family=family, weights="w", offset="known")
    else:
        data["y"] = rng.poisson(data["hours"] * np.exp(eta)).astype(float)
        m = me.glmer("y ~ x + f + offset(known) + (1 | g)", data, family=family, exposure="hours")
    return m, data


# --- against R -------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOME)
def test_estimates_are_those_of_r(name: str) -> None:
    answer, m = reference(name)["laplace"], fitted(name)
    assert m.criterion == pytest.approx(answer["deviance"], abs=1e-6)
    assert m.loglik == -0.5 * m.criterion
    se = np.array(answer["se"])
    assert np.abs((m.fixef.to_numpy() - answer["beta"]) / se).max() < 1e-5
    assert m.se.to_numpy() == pytest.approx(se, rel=1e-5)
    assert np.atleast_1d(m.theta) == pytest.approx(np.atleast_1d(answer["theta"]), abs=2e-5)
    assert m.optimum.certificate.holds
    if m.phi is not None:
        sign = -1.0 if m.family.parameter_name == "dispersion" else 1.0
        assert sign * np.log(m.phi) == pytest.approx(answer["log_shape"], abs=1e-5)
    fixed, free = len(m.fixef), len(m.theta) + (m.phi is not None)
    assert m.aic == pytest.approx(answer["deviance"] + 2.0 * (fixed + free), abs=1e-6)


@pytest.mark.parametrize("name", SOME)
def test_modes_fitted_values_and_residuals_are_those_of_r(name: str) -> None:
    answer, m = reference(name)["laplace"], fitted(name)
    modes = m.ranef(cond_var=True)
    for group, own in answer.get("ranef", {}).items():
        rows = [list(modes[group].index).index(level) for level in own["levels"]]
        assert modes[group].to_numpy()[rows] == pytest.approx(np.array(own["values"]), abs=2e-5)
        # R's answers have those of the first levels.
        given = modes.cond_var[group][rows[: len(own["cond_var"])]]
        assert given == pytest.approx(np.array(own["cond_var"]).reshape(given.shape), abs=1e-5)
    found = {
        "fitted_head": m.fitted,
        "eta_head": m.predict(type="link"),
        "pearson_resid_head": m.resid("pearson"),
    }
    if name != "beta_slope":
        found["deviance_resid_head"] = m.resid("deviance")
    compared = 0
    for key, values in found.items():
        if answer.get(key):
            compared += 1
            head = values.to_numpy()[: len(answer[key])]
            assert head == pytest.approx(np.array(answer[key]), abs=2e-5)
    assert compared >= 2 or name == "ig_sim"


def test_expected_weights_are_those_of_lme4() -> None:
    answer, m = reference("schizophrenia_probit"), fitted("schizophrenia_probit")
    theirs = answer["lme4_at_optimum"]
    assert -2.0 * m.loglik_at(m.theta, weights="expected") == pytest.approx(theirs, abs=1e-4)
    assert -2.0 * m.loglik_at(m.theta) == pytest.approx(m.criterion, abs=1e-8)
    assert abs(theirs - m.criterion) > 1.0


def test_quadrature_is_that_of_r() -> None:
    m = fitted("cbpp").update(nagq=25)
    answer = reference("cbpp")["agq"]["25"]
    assert m.nagq == 25
    assert m.criterion == pytest.approx(answer["deviance"], abs=1e-6)
    assert m.loglik_at(m.theta) == pytest.approx(m.loglik, abs=1e-8)
    assert "(adaptive quadrature, 25 points)" in " ".join(str(m).split())


def test_laplace_check() -> None:
    check = fitted("cbpp").laplace_check()
    assert check.holds and check.laplace == pytest.approx(fitted("cbpp").criterion)
    assert str(check) in " ".join(str(fitted("cbpp")).split())
    with pytest.raises(me.ModelError, match="one grouping factor"):
        fitted("salamander").laplace_check()


# --- against definitions ---------------------------------------------------------------


def test_three_ways_to_write_a_binomial_response() -> None:
    data = me.load_dataset("cbpp")
    one = fitted("cbpp")
    left = "cbind(incidence, size - incidence)"
    two = me.glmer(f"{left} ~ period + (1 | herd)", data, family="binomial")
    rows = [
        (herd, period, k < incidence)
        for herd, incidence, size, period in data.itertuples(index=False)
        for k in range(int(size))
    ]
    long = pd.DataFrame(rows, columns=["herd", "period", "ill"])
    three = me.glmer("ill ~ period + (1 | herd)", long, family="binomial")
    for m in (two, three):
        assert m.fixef.to_numpy() == pytest.approx(one.fixef.to_numpy(), abs=1e-6)
        assert m.se.to_numpy() == pytest.approx(one.se.to_numpy(), rel=1e-5)
    assert two.criterion == pytest.approx(one.criterion, abs=1e-9)
    # The long table lacks the numbers of ways.
    ways = scipy.special.gammaln(data["size"] + 1) - scipy.special.gammaln(data["incidence"] + 1)
    ways -= scipy.special.gammaln(data["size"] - data["incidence"] + 1)
    assert three.criterion - one.criterion == pytest.approx(2.0 * ways.sum(), abs=1e-8)


def test_exposure_is_an_offset_of_its_logarithm() -> None:
    m, data = simulated("poisson")
    other = me.glmer("y ~ x + f + offset(known + log(hours)) + (1 | g)", data, family="poisson")
    assert m.criterion == pytest.approx(other.criterion, abs=1e-9)
    assert m.fixef.to_numpy() == pytest.approx(other.fixef.to_numpy(), abs=1e-9)
    new = data.iloc[[3, 100, 7]]
    assert m.predict(new).to_numpy() == pytest.approx(m.fitted.to_numpy()[[3, 100, 7]])
    twice = m.predict(new, exposure=2.0 * new["hours"])
    assert twice.to_numpy() == pytest.approx(2.0 * m.predict(new).to_numpy())
    with pytest.raises(me.DataError, match="exposure must be positive"):
        m.predict(new.assign(hours=-1.0))


@pytest.mark.parametrize("family", ["binomial", "poisson"])
def test_the_working_model(family: str) -> None:
    m, _ = simulated(family)
    z, W = m.working["z"].to_numpy(), m.working["W"].to_numpy()
    V = m.Z @ m.G.sparse() @ m.Z.T + scipy.sparse.diags_array(1.0 / W)
    assert m.V.dense() == pytest.approx(V.toarray())
    assert m.R.diag() == pytest.approx(1.0 / W)
    score = m.fit.evaluation.rows.r
    assert m.V.solve(z - m.X @ m.fixef.to_numpy()) == pytest.approx(score, abs=1e-6)
    conditional = np.linalg.inv(m.X.T @ m.V.solve(m.X))
    assert m.vcov("conditional").to_numpy() == pytest.approx(conditional, rel=1e-6)
    assert "working covariance, link scale" in repr(m.V)
    assert "working covariance, link scale" in repr(m.R)
    assert "working covariance, link scale" in repr(m.V.at(m.theta))
    assert "working" in repr(pickle.loads(pickle.dumps(m.V)))


@pytest.mark.parametrize("family", ["binomial", "poisson"])
def test_components_by_lme4_names(family: str) -> None:
    m, _ = simulated(family)
    got = {name: m.getme(name) for name in m.getme_names()}
    L = got["Lambda"]
    assert (L @ L.T).toarray() == pytest.approx(m.G.sparse().toarray())
    assert L @ got["u"] == pytest.approx(got["b"], abs=1e-6)
    fixed = m.X @ got["beta"] + got["offset"]
    assert fixed + m.Z @ got["b"] == pytest.approx(m.predict(type="link").to_numpy())
    assert got["mu"] == pytest.approx(m.fitted.to_numpy())
    W = m.working["W"].to_numpy()[:, None]
    inner = got["Zt"] @ (W * m.Z.toarray())
    M = L.T @ inner @ L + np.eye(L.shape[0])
    assert (got["L"] @ got["L"].T).toarray() == pytest.approx(M)
    assert got["RX"].T @ got["RX"] == pytest.approx(m.X.T @ m.V.solve(m.X))
    assert got["REML"] == 0 and not got["is_REML"]
    for name in ("devcomp", "devfun"):
        with pytest.raises(me.ModelError, match="penalised least squares"):
            m.getme(name)
    with pytest.raises(me.ModelError, match="no component"):
        m.getme("nonsense")


def test_residuals_by_their_definitions() -> None:
    m, data = simulated()
    mu, y, w = m.fitted, data["y"], data["w"]
    assert m.resid().to_numpy() == pytest.approx((y - mu).to_numpy())
    assert m.resid.sum() == pytest.approx((y - mu).sum())
    pearson = (y - mu) * np.sqrt(w / (mu * (1.0 - mu)))
    assert m.resid("pearson").to_numpy() == pytest.approx(pearson.to_numpy())
    assert m.resid("scaled").to_numpy() == pytest.approx(pearson.to_numpy())
    each = -2.0 * w * (y * np.log(mu) + (1.0 - y) * np.log1p(-mu))
    assert (m.resid("deviance") ** 2).to_numpy() == pytest.approx(each.to_numpy())
    working = (y - mu) / (mu * (1.0 - mu))
    assert m.resid("working").to_numpy() == pytest.approx(working.to_numpy())
    gamma = fitted("cake_gamma")
    assert gamma.resid("scaled").to_numpy() == pytest.approx(
        (gamma.resid("pearson") / gamma.sigma).to_numpy()
    )
    with pytest.raises(me.ModelError, match="not defined for the beta family"):
        fitted("beta_slope").resid("deviance")
    with pytest.raises(me.ModelError, match="Residual kind 'marginal'"):
        m.resid("marginal")


def test_predictions() -> None:
    m, data = simulated()
    link = m.X @ m.fixef + data["known"].to_numpy()
    assert m.predict(re=None, type="link").to_numpy() == pytest.approx(link)
    assert m.predict(re=None).to_numpy() == pytest.approx(1.0 / (1.0 + np.exp(-link)))
    assert m.predict().equals(m.fitted.rename("estimate"))
    assert m.predict(data).to_numpy() == pytest.approx(m.fitted.to_numpy())
    chunks = list(m.predict(iter([data.iloc[:100], data.iloc[100:]]), chunk_size=7))
    assert np.concatenate(chunks) == pytest.approx(m.fitted.to_numpy())
    new = data.iloc[:2].assign(g="other")
    with pytest.raises(me.DataError, match="did not see"):
        m.predict(new)
    own = m.predict(new, new_levels="population").to_numpy()
    assert own == pytest.approx(m.predict(new, re=None).to_numpy())
    missing = data.iloc[:2].assign(x=[np.nan, 1.0])
    assert m.predict(missing).isna().tolist() == [True, False]
    for bad in ({"type": "mean"}, {"re": "h"}, {"chunk_size": 0}, {"offset": "known"}):
        with pytest.raises(me.ModelError):
            m.predict(**bad)
    by_values = m.update(offset=data["known"].to_numpy())
    with pytest.raises(me.ModelError, match="give theirs as offset="):
        by_values.predict(data)
    assert by_values.predict(data, offset="known").to_numpy() == pytest.approx(
        m.fitted.to_numpy(), abs=1e-6
    )


def test_simulated_responses_have_the_moments_of_the_model() -> None:
    m = fitted("cbpp")
    draws = m.simulate(4000, seed=1, re="all")
    assert draws.equals(m.simulate(4000, seed=1, re="all"))
    assert draws.iloc[:, :3].equals(m.simulate(3, seed=1, re="all"))
    trials = m.fit.response.trials
    sd = np.sqrt(m.fitted * (1.0 - m.fitted) / trials)
    assert np.abs((draws.mean(axis=1) - m.fitted) / sd).max() < 4.5 / np.sqrt(4000)
    counts = draws.to_numpy() * trials[:, None]
    assert np.abs(counts - np.rint(counts)).max() < 1e-9
    # With new random effects, by quadrature over them.
    draws = m.simulate(4000, seed=2)
    z, weights = np.polynomial.hermite_e.hermegauss(40)
    at = (m.X @ m.fixef.to_numpy())[:, None] + m.theta[0] * z
    mean = (1.0 / (1.0 + np.exp(-at))) @ (weights / weights.sum())
    error = draws.std(axis=1) / np.sqrt(4000)
    assert np.abs((draws.mean(axis=1) - mean) / error).max() < 4.5


# --- tables ----------------------------------------------------------------------------


def test_tables_of_tests() -> None:
    m = fitted("cbpp")
    table = m.coef_table(level=0.9)
    z = m.fixef / m.se
    assert list(table) == ["Estimate", "Std. Error", "z value", "Pr(>|z|)", "lower", "upper"]
    assert table["z value"].to_numpy() == pytest.approx(z.to_numpy())
    assert table["Pr(>|z|)"].to_numpy() == pytest.approx(2.0 * scipy.stats.norm.sf(np.abs(z)))
    low = m.fixef + scipy.stats.norm.ppf(0.05) * m.se
    assert table["lower"].to_numpy() == pytest.approx(low.to_numpy())
    assert m.conf_int(0.1).to_numpy() == pytest.approx(table[["lower", "upper"]].to_numpy())
    tidy = m.tidy(level=0.9)
    assert tidy["statistic"].iloc[:4].to_numpy() == pytest.approx(z.to_numpy())
    assert tidy["conf_low"].iloc[:4].to_numpy() == pytest.approx(low.to_numpy())
    assert "df" not in tidy
    assert m.glance().loc[0, "deviance"] == m.criterion
    values = m.tidy("ran_vals")
    assert values["std_error"].iloc[0] ** 2 == pytest.approx(
        m.ranef(cond_var=True).cond_var["herd"][0, 0, 0]
    )
    with pytest.raises(me.ModelError, match="ddf='kr' is for linear"):
        m.coef_table(ddf="kr")
    with pytest.raises(me.ModelError, match="Robust covariance"):
        m.vcov("CR2")


def test_variances_have_no_sigma_in_front() -> None:
    m = fitted("cake_gamma")
    assert m.sigma == pytest.approx(np.sqrt(m.phi))
    assert m.varcorr["recipe:replicate"].iloc[0, 0] == pytest.approx(m.theta[0] ** 2)
    assert m.G["recipe:replicate"].iloc[0, 0] == pytest.approx(m.theta[0] ** 2)
    assert "Residual" not in repr(m.varcorr)
    assert list(m.varcorr.to_frame()["grp"]) == ["recipe:replicate"]
    assert list(m.covariance_parameters.index) == ["sd_(Intercept)|recipe:replicate"]
    random = m.tidy("ran_pars")
    assert list(random["term"]) == ["sd__(Intercept)", "dispersion"]
    assert random["estimate"].iloc[1] == m.phi


def test_summaries() -> None:
    text = str(fitted("cbpp").summary())
    m = fitted("cbpp")
    assert str(m.summary("model")) == str(m)
    for line in (" Family: binomial (link: logit)", " Trials: size", "   Data: cbpp"):
        assert line in text.splitlines()
    for part in ("z value Pr(>|z|)", "deviance df.resid", "herd   (Intercept) 0.4125   0.6423"):
        assert part in text
    assert "Residual" not in text.replace("Scaled residuals", "")
    assert "certificate of a local optimum holds" in text
    owls = fitted("owls_nb")
    assert f" Family: negative_binomial (link: log), theta {owls.phi:.5g}" in str(owls)
    assert "<h4>Random effects</h4>" in fitted("cbpp")._repr_html_()
    m, _ = simulated("poisson")
    assert "Exposure: hours" in str(m)
    yes = me.glmer("word ~ 1 + (1 | g)", _words(), family="binomial")
    assert "Success: yes (failure: no)" in str(yes)


def _words() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return pd.DataFrame({"word": rng.choice(["no", "yes"], 60), "g": np.repeat(list("abcdef"), 10)})


# --- fitting again, storing ------------------------------------------------------------


@pytest.mark.parametrize("family", ["binomial", "poisson"])
def test_refit_and_update(family: str) -> None:
    m, data = simulated(family)
    drawn = m.simulate(seed=5)["sim_1"]
    again = m.refit(drawn)
    fresh = m.update(data=data.assign(y=drawn))
    assert again.criterion == pytest.approx(fresh.criterion, abs=1e-7)
    assert again.fixef.to_numpy() == pytest.approx(fresh.fixef.to_numpy(), abs=1e-5)
    assert again.update("~ . - f").criterion == pytest.approx(
        fresh.update("~ . - f").criterion, abs=1e-7
    )
    assert m.update(start={"theta": m.theta, "beta": m.fixef}).criterion == pytest.approx(
        m.criterion, abs=1e-8
    )
    with pytest.raises(me.DataError, match="Rows that are not so"):
        m.refit(drawn + 0.5)
    with pytest.raises(me.ModelError, match="it has 239"):
        m.refit(drawn.to_numpy()[:-1])


def test_refit_of_successes_and_failures_can_be_updated() -> None:
    left = "cbind(incidence, size - incidence)"
    m = me.glmer(f"{left} ~ period + (1 | herd)", me.load_dataset("cbpp"), family="binomial")
    drawn = m.simulate(seed=2)["sim_1"]
    again = m.refit(drawn)
    other = fitted("cbpp").refit(drawn)
    assert again.criterion == pytest.approx(other.criterion, abs=1e-8)
    for text in ("~ . - period", ". ~ 1 + (1 | herd)"):
        assert again.update(text).criterion == pytest.approx(other.update(text).criterion, abs=1e-8)


def test_update_of_family_and_options() -> None:
    m, data = simulated("poisson")
    nb = m.update(family="negative_binomial")
    assert nb.family.name == "negative_binomial" and nb.criterion <= m.criterion + 1e-3
    without = m.update(exposure=None)
    expected = me.glmer("y ~ x + f + offset(known) + (1 | g)", data, family="poisson")
    assert without.criterion == pytest.approx(expected.criterion, abs=1e-9)
    probit = fitted("cbpp").update(family=me.families.Binomial("probit"))
    assert probit.family.link.name == "probit"
    with pytest.raises(me.ModelError, match="exposure were given as values"):
        m.update(exposure=data["hours"].to_numpy()).update(data=data.iloc[:200])


@pytest.mark.parametrize("name", ["cbpp", "owls_nb", "salamander"])
def test_pickles(name: str) -> None:
    m = fitted(name)
    again = pickle.loads(pickle.dumps(m))
    assert isinstance(again, me.GeneralizedLinearMixedModel)
    assert again.coef_table().equals(m.coef_table())
    assert str(again) == str(m)
    assert again.V.logdet() == pytest.approx(m.V.logdet())
    assert again.update().criterion == pytest.approx(m.criterion, abs=1e-8)


def test_statsmodels_names() -> None:
    m = fitted("cbpp")
    assert m.params.equals(m.fixef) and m.bse.to_numpy() == pytest.approx(m.se.to_numpy())
    assert m.tvalues.equals(pd.Series(m.coef_table()["z value"]))
    assert m.pvalues.equals(pd.Series(m.coef_table()["Pr(>|z|)"]))
    assert m.llf == m.loglik and m.fittedvalues.equals(m.fitted)
    assert m.cov_params().equals(m.vcov())


def test_progress_and_interruption() -> None:
    heard: list[Any] = []
    m, data = simulated()
    made = me.glmer("y ~ x + f + (x | g)", data, family="binomial", progress=heard.append)
    assert heard and heard[-1].criterion == pytest.approx(made.criterion, abs=1e-6)

    def stop(line: Any) -> None:
        if line.iteration >= 1:
            raise KeyboardInterrupt

    with pytest.raises(me.Interrupted, match="after iteration 1") as caught:
        me.glmer("y ~ x + f + (x | g)", data, family="binomial", progress=stop)
    resumed = caught.value.partial.resume()
    assert isinstance(resumed, me.GeneralizedLinearMixedModel)
    assert resumed.criterion == pytest.approx(made.criterion, abs=1e-6)
    with pytest.raises(me.Interrupted):
        m.refit(data["y"][::-1].to_numpy(), progress=stop)


# --- what is refused -------------------------------------------------------------------


def test_arguments_that_are_refused() -> None:
    data = me.load_dataset("cbpp")
    more: dict[str, Any] = {"family": "binomial", "weights": "size"}
    for bad, message in (
        ({"family": "gaussian"}, "is a linear mixed model: use mixedeffects.lmer"),
        ({"family": "quasibinomial"}, "Quasi families"),
        ({"family": None}, "needs the family of its response"),
        ({"family": 3}, "family must be a name"),
        ({"nagq": 0}, "nagq=0"),
        ({"nagq": 1.5}, "nagq must be a whole number"),
        ({"control": 3}, "control must be"),
        ({"start": [1.0, 2.0]}, "start must be 1 finite number"),
        ({"start": {"sigma": 1.0}}, r"start has \['sigma'\]"),
        ({"start": {}}, "start has nothing"),
        ({"start": {"beta": [1.0]}}, "beta must be 4 finite numbers"),
        ({"start": {"phi": 2.0}}, "phi is the parameter of a family that has one"),
    ):
        with pytest.raises(me.ModelError, match=message):
            me.glmer(CBPP, data, **{**more, **bad})
    with pytest.raises(TypeError, match=r"glmer\(\) has no argument 'nAGQ'.*nagq"):
        me.glmer(CBPP, data, nAGQ=9, **more)  # type: ignore[call-arg]
    with pytest.raises(me.ModelError, match="phi, the theta, must be a positive number"):
        fitted("owls_nb").loglik_at(fitted("owls_nb").theta, phi=-1.0)


def test_separation_is_named() -> None:
    data = _words().assign(z=lambda d: (d["word"] == "yes").astype(float))
    with pytest.raises(me.ModelError, match="`z` has no finite estimate"):
        me.glmer("word ~ z + (1 | g)", data, family="binomial")


def test_a_fit_that_did_not_converge_warns() -> None:
    _, data = simulated()
    with pytest.warns(me.ConvergenceWarning, match="stopped after"):
        m = me.glmer(
            "y ~ x + f + (x | g)", data, family="binomial", control=me.Control(max_evaluations=2)
        )
    assert not m.converged and "NOT CONVERGED" in str(m)


def _members(kind: type) -> dict[str, Any]:
    names = [name for name in dir(kind) if not name.startswith("_")]
    return {name: inspect.getattr_static(kind, name) for name in names}


#: Answered, with tests elsewhere.
ANSWERED_ELSEWHERE = {
    "anova", "bootstrap", "check", "confint", "contrast", "describe", "effects", "emmeans",
    "emtrends", "icc", "influence", "joint_tests", "leverage", "marginaleffects", "plot", "profile",
    "r2", "ranova", "report", "robust", "standardize", "to_dict", "to_json", "variogram", "wald",
    "without_data",
}  # fmt: skip
#: Answered, and the answer is checked in this file.
ANSWERED = {
    "G", "R", "V", "X", "Z", "aic", "augment", "bic", "bse", "coef", "coef_table", "conf_int",
    "converged", "cov_params", "covariance_parameters", "criterion", "data_name", "df_resid",
    "dropped", "fit", "fittedvalues", "fitted", "fixef", "formula", "frame", "getme",
    "getme_names", "glance", "is_singular", "llf", "loglik", "loglik_at", "n_parameters",
    "ngroups", "nobs", "optimum", "params", "predict", "pvalues", "ranef", "refit", "resid", "se",
    "sigma", "simulate", "summary", "theta", "tidy", "tvalues", "update", "varcorr", "vcov", "y",
}  # fmt: skip


def test_every_method_of_a_linear_model_is_answered_or_refused_by_name() -> None:
    m = fitted("cbpp")
    linear = _members(me.LinearMixedModel)
    refused = set()
    for name, member in linear.items():
        if name in ANSWERED | ANSWERED_ELSEWHERE:
            assert name in _members(me.GeneralizedLinearMixedModel)
            continue
        with pytest.raises(me.ModelError, match=f"^`{name}` is not"):
            value = getattr(m, name)
            # Whatever it is called with.
            value() if callable(member) or callable(value) else value
        with pytest.raises(me.ModelError, match=f"^`{name}` is not"):
            getattr(m, name)("x", [1], option=3)
        refused.add(name)
    assert refused == {*NEVER}
    assert linear.keys() >= ANSWERED
    text = Path(__file__).read_text(encoding="utf-8")
    unchecked = {name for name in ANSWERED if not re.search(rf"\bm?\.{name}\b", text)}
    assert not unchecked
    assert not hasattr(m, "reml")


def test_names_of_other_packages() -> None:
    m = fitted("cbpp")
    for name in OF_A_GENERALIZED_FIT:
        with pytest.raises(AttributeError, match=f"{name!r}.* Here: "):
            getattr(m, name)
    with pytest.raises(AttributeError, match="Did you mean 'fixef'"):
        m.fixeff  # noqa: B018
    with pytest.raises(TypeError, match=r"lmer\(\) has no argument 'family'.*me.glmer"):
        me.lmer("y ~ 1 + (1 | g)", {}, family="binomial")  # type: ignore[call-arg]


def test_links_with_an_end() -> None:
    rng = np.random.default_rng(4)
    data = pd.DataFrame({"g": np.repeat(range(20), 10), "x": rng.uniform(0.0, 1.0, 200)})
    data["y"] = rng.poisson(2.0 + data["x"] + rng.uniform(-1.5, 1.5, 20)[data["g"]]).astype(float)
    m = me.glmer("y ~ x + (1 | g)", data, family=me.families.Poisson("identity"))
    assert m.converged
    assert (m.simulate(20, seed=1, re="all") >= 0.0).all(axis=None)
    with pytest.raises(me.ModelError, match="rows have a linear predictor without a mean"):
        m.simulate(200, seed=1)
    new = {"x": [0.5, -100.0 * np.sign(m.fixef["x"])]}
    assert m.predict(new, re=None).isna().tolist() == [False, True]
    assert m.predict(new, re=None, type="link").notna().all()


def test_small_answers() -> None:
    m = fitted("cbpp")
    assert (m.nobs, m.ngroups, m.data_name) == (56, {"herd": 15}, "cbpp")
    assert m.formula == CBPP and m.converged and not m.is_singular and not m.dropped
    assert m.n_parameters == 5 and m.df_resid == 51
    assert m.bic == pytest.approx(m.criterion + np.log(56) * 5)
    assert m.X.shape == (56, 4) and m.Z.shape == (56, 15)
    assert m.y.tolist() == (m.frame.data["incidence"] / m.frame.data["size"]).tolist()
    assert m.coef()["herd"]["(Intercept)"].to_numpy() == pytest.approx(
        m.fixef["(Intercept)"] + m.ranef()["herd"]["(Intercept)"].to_numpy()
    )
    augmented = m.augment()
    assert augmented["_fitted"].to_numpy() == pytest.approx(m.fitted.to_numpy())
    assert augmented["_link"].to_numpy() == pytest.approx(m.predict(type="link").to_numpy())
    assert augmented["_fixed"].to_numpy() == pytest.approx(
        m.predict(type="link", re=None).to_numpy()
    )
    assert "Family: binomial" in repr(m.fit)


def test_functions_of_models_take_both_kinds() -> None:
    """Their tests are elsewhere; a new one has to be thought of."""
    both = {"anova", "compare", "cite", "cross_validate", "etable", "pool", "power"}
    taking = set()
    for name in me.__all__:
        function = getattr(me, name)
        if inspect.isfunction(function):
            first = next(iter(inspect.signature(function).parameters), "")
            if first in ("model", "models", "fits"):
                taking.add(name)
    assert taking <= both


def test_singular_fits() -> None:
    rng = np.random.default_rng(8)
    data = pd.DataFrame({"y": rng.poisson(3.0, 120).astype(float), "g": np.repeat(range(12), 10)})
    data["y"] = np.tile([1.0, 2, 3, 4, 5, 2, 3, 1, 4, 3], 12)
    m = me.glmer("y ~ 1 + (1 | g)", data, family="poisson")
    assert m.is_singular and m.theta[0] == 0.0 and m.converged
    assert m.fixef.iloc[0] == pytest.approx(np.log(2.8))
    assert m.se.iloc[0] == pytest.approx(1.0 / np.sqrt(120 * 2.8), rel=1e-6)
    assert (m.ranef(cond_var=True).cond_var["g"] == 0.0).all()
    assert "boundary (singular) fit" in str(m)
    assert m.V.diag() == pytest.approx(np.full(120, 1.0 / 2.8))
