"""Predictions of generalized models: against R, dense matrices, integrals and simulation."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.integrate
import scipy.stats

import mixedeffects as me
from generalized_references import FOLDER, model_data
from mixedeffects.families import Binomial, Family, Gamma, Poisson
from mixedeffects.inference.population_average import population_mean
from mixedeffects.prediction.new_responses import NewResponses
from test_glmer import fitted, simulated

MODELS = (
    "cbpp",
    "contraception_slope",
    "salamander",
    "schizophrenia_probit",
    "owls_nb",
    "cake_gamma",
    "beta_slope",
)


@cache
def r_predictions() -> dict[str, Any]:
    return json.loads((FOLDER / "predictions.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", MODELS)
def test_standard_errors_are_those_of_r(name: str) -> None:
    m, answer = fitted(name), r_predictions()[name]
    rows = np.array(answer["rows"]) - 1
    new = model_data(name).iloc[rows]
    for key, options in (
        ("link", {"type": "link"}),
        ("response", {}),
        ("population", {"type": "link", "re": None}),
    ):
        for data, taken in ((new, slice(None)), (None, rows)):
            found = m.predict(data, se=True, **options).iloc[taken]
            assert found["estimate"].to_numpy() == pytest.approx(answer[key]["fit"], abs=3e-5)
            # R's are by differences: 1e-6 with steps that suit the scales of the columns.
            assert found["std_error"].to_numpy() == pytest.approx(answer[key]["se"], rel=2e-6)


@pytest.mark.parametrize("name", ["salamander", "beta_slope", "owls_nb", "contraception_slope"])
def test_standard_errors_by_dense_matrices(name: str) -> None:
    """With the derivatives of the modes by differences of fits of the modes."""
    m = fitted(name)
    record, found = m.fit, m.fit.found
    evaluation, joint = found.evaluation, found.joint
    Z, W = m.Z.toarray(), evaluation.rows.W
    P = np.linalg.inv(Z.T @ (W[:, None] * Z) + np.linalg.inv(m.G.sparse().toarray()))
    n_parameters = len(joint.hessian)
    J = np.zeros((m.nobs, n_parameters))

    def eta(change: np.ndarray) -> np.ndarray:
        from mixedeffects.engine.generalized.mode import find_mode

        T = []
        for t, own in enumerate(evaluation.T):
            sigma = own @ own.T + np.einsum(
                "j,jab->ab", change[: joint.n_covariance], joint.directions[t]
            )
            T.append(np.linalg.cholesky(sigma))
        beta = evaluation.beta + change[joint.fixed]
        phi = evaluation.phi + (change[-1] if m.phi is not None else 0.0)
        linear = evaluation.design.X @ beta + evaluation.design.offset
        return find_mode(evaluation.design, T, linear, phi, evaluation.mode.c).eta

    for j in range(n_parameters):
        step = np.zeros(n_parameters)
        step[j] = 1e-4
        J[:, j] = (eta(step) - eta(-step)) / 2e-4
    variance = np.einsum("iq,qr,ir->i", Z, P, Z) + np.einsum("ij,jk,ik->i", J, joint.covariance, J)
    own = m.predict(type="link", se=True)["std_error"].to_numpy()
    assert own == pytest.approx(np.sqrt(variance), rel=1e-5)
    assert record.frame is m.frame


def test_intervals_of_means_come_from_the_link() -> None:
    m = fitted("cbpp")
    link, own = m.predict(type="link", se=True), m.predict(interval="confidence", level=0.9)
    half = scipy.stats.norm.ppf(0.95) * link["std_error"]
    expit = m.family.link.inverse
    assert own["conf_low"].to_numpy() == pytest.approx(expit(link["estimate"] - half).to_numpy())
    assert own["conf_high"].to_numpy() == pytest.approx(expit(link["estimate"] + half).to_numpy())
    mu = own["estimate"]
    slope = (mu * (1.0 - mu)).to_numpy()
    assert own["std_error"].to_numpy() == pytest.approx(slope * link["std_error"].to_numpy())
    robust = m.predict(re=None, type="link", se=True, vcov="CR1")["std_error"].to_numpy()
    X = m.X
    assert robust == pytest.approx(np.sqrt(np.diag(X @ m.vcov("CR1").to_numpy() @ X.T)))
    falling = me.glmer(
        "angle ~ temp + (1 | recipe:replicate)",
        model_data("cake_gamma"),
        family=me.families.Gamma("inverse"),
    )
    table = falling.predict(interval="confidence", re=None)
    assert (table["conf_low"] < table["estimate"]).all()
    assert (table["estimate"] < table["conf_high"]).all()


def test_new_levels_have_the_variance_of_their_effects() -> None:
    m, data = simulated()
    new = data.iloc[:3].assign(g=["other", "g00", "g01"])
    own = m.predict(new, new_levels="population", type="link", se=True)["std_error"]
    fixed = m.predict(new, re=None, type="link", se=True)["std_error"]
    z = np.array([1.0, new["x"].iloc[0]])
    drawn = z @ m.G["g"].to_numpy() @ z
    assert own.iloc[0] == pytest.approx(np.sqrt(fixed.iloc[0] ** 2 + drawn))
    known = m.predict(type="link", se=True)["std_error"]
    assert own.iloc[1] == pytest.approx(m.predict(new.iloc[1:2], type="link", se=True).iloc[0, 1])
    assert own.iloc[1] == pytest.approx(
        m.predict(data.iloc[1:2], type="link", se=True)["std_error"].iloc[0], rel=0.5
    )
    assert len(known) == m.nobs


# --- averages over the random effects --------------------------------------------------


@pytest.mark.parametrize(
    "family", [Binomial(), Binomial("probit"), Binomial("cloglog"), Poisson(), Gamma("identity")]
)
@pytest.mark.parametrize("v", [0.0, 0.5, 4.0])
def test_population_means_are_integrals(family: Family, v: float) -> None:
    eta = np.array([-1.5, 0.2, 2.0]) + (20.0 if family.name == "gamma" else 0.0)
    own, by_eta, by_v = population_mean(family, eta, np.full(3, v))

    def mean(at: float, variance: float) -> float:
        def integrand(x: float) -> float:
            inverse = family.link.inverse(np.array([at + np.sqrt(variance) * x]))[0]
            return float(inverse) * float(scipy.stats.norm.pdf(x))

        return float(scipy.integrate.quad(integrand, -12.0, 12.0, epsabs=1e-12, limit=200)[0])

    expected = [mean(float(e), v) for e in eta]
    assert own == pytest.approx(expected, abs=2e-5, rel=1e-6)
    by_difference = [(mean(e + 1e-3, v) - mean(e - 1e-3, v)) / 2e-3 for e in eta]
    assert by_eta == pytest.approx(by_difference, abs=1e-4)
    by_difference = [(mean(e, v + 1e-3) - mean(e, v)) / 1e-3 for e in eta]
    assert by_v == pytest.approx(by_difference, abs=2e-3, rel=2e-3)


def test_marginal_predictions_are_means_of_simulated_responses() -> None:
    m, data = simulated()
    own = m.predict(marginal=True)
    draws = m.simulate(3000, seed=4)
    error = draws.std(axis=1) / np.sqrt(3000)
    assert np.abs((draws.mean(axis=1) - own) / error).max() < 4.5
    assert m.predict(data, marginal=True).to_numpy() == pytest.approx(own.to_numpy())
    assert m.predict(data, marginal=True, re=None).to_numpy() == pytest.approx(own.to_numpy())
    assert np.abs(own - m.predict(re=None)).max() > 0.01


def test_standard_errors_of_population_means_by_differences() -> None:
    """The delta method in all parameters, with derivatives by differences."""
    m, _ = simulated()
    joint, evaluation = m.fit.found.joint, m.fit.evaluation
    Q, (C,) = evaluation.design.basis.fixed, evaluation.design.basis.terms
    z = m.frame.terms[0].z
    base = (evaluation.T[0] @ evaluation.T[0].T, evaluation.beta)

    def mean(change: np.ndarray) -> np.ndarray:
        sigma = base[0] + np.einsum("j,jab->ab", change[: joint.n_covariance], joint.directions[0])
        eta = m.X @ (Q @ (base[1] + change[joint.fixed])) + m.frame.offset
        v = np.einsum("ia,ab,ib->i", z @ C, sigma, z @ C)
        return population_mean(m.family, eta, v)[0]

    J = np.empty((m.nobs, len(joint.hessian)))
    for j in range(J.shape[1]):
        step = np.zeros(J.shape[1])
        step[j] = 1e-5
        J[:, j] = (mean(step) - mean(-step)) / 2e-5
    se = np.sqrt(np.einsum("ij,jk,ik->i", J, joint.covariance, J))
    own = m.predict(marginal=True, interval="confidence")
    assert own["std_error"].to_numpy() == pytest.approx(se, rel=1e-5)
    at = m.family.link.link(own["estimate"])
    half = scipy.stats.norm.ppf(0.975) * se / (own["estimate"] * (1.0 - own["estimate"]))
    assert own["conf_low"].to_numpy() == pytest.approx(
        m.family.link.inverse(at - half).to_numpy(), rel=1e-6
    )


# --- new responses ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cbpp", "owls_nb", "cake_gamma", "beta_slope", "ig_sim"])
def test_quantiles_of_new_responses_are_those_of_draws(name: str) -> None:
    m = fitted(name)
    rng = np.random.default_rng(1)
    eta, sd = m.predict(type="link").to_numpy()[:3], np.array([0.1, 0.3, 0.5])
    response = m.fit.response.take(slice(0, 3))
    new = NewResponses(m.family, m.fit.search_phi, eta, sd, response.trials)
    low, high = new.quantiles(0.05, 0.9)
    draws = np.array(
        [
            m.family.simulate(
                rng,
                np.asarray(m.family.link.inverse(eta + sd * rng.standard_normal(3))),
                response,
                m.fit.search_phi,
            )
            for _ in range(20_000)
        ]
    )
    for bound, share in ((low, 0.05), (high, 0.9)):
        up_to, below = (draws <= bound + 1e-12).mean(axis=0), (draws < bound - 1e-12).mean(axis=0)
        assert (up_to > share - 0.01).all() and (below < share + 0.01).all()
    spread = new.standard_deviations() / draws.std(axis=0)
    assert spread == pytest.approx(np.ones(3), abs=0.05)


def test_prediction_intervals_hold_what_they_should() -> None:
    m = fitted("owls_nb")
    table = m.predict(re=None, interval="prediction", level=0.8)
    draws = m.simulate(400, seed=3).to_numpy()
    low, high = table["conf_low"].to_numpy()[:, None], table["conf_high"].to_numpy()[:, None]
    inside = ((low <= draws) & (draws <= high)).mean()
    # Discrete, and with the errors of the estimates: somewhat more.
    assert 0.79 < inside < 0.92
    marginal = m.predict(marginal=True, interval="prediction", level=0.8)
    assert marginal["conf_low"].to_numpy() == pytest.approx(table["conf_low"].to_numpy(), abs=1.0)
    assert marginal["estimate"].mean() > table["estimate"].mean()


def test_trials_of_new_rows() -> None:
    m, data = fitted("cbpp"), me.load_dataset("cbpp").iloc[:4]
    by_column = m.predict(data, interval="prediction")
    given = m.predict(data.drop(columns="size"), interval="prediction", weights=data["size"])
    assert given.to_numpy() == pytest.approx(by_column.to_numpy())
    many = m.predict(data, interval="prediction", weights=100_000)
    assert (many["std_error"] < by_column["std_error"]).all()
    left = "cbind(incidence, size - incidence)"
    other = me.glmer(f"{left} ~ period + (1 | herd)", me.load_dataset("cbpp"), family="binomial")
    with pytest.raises(me.ModelError, match="of how many trials"):
        other.predict(data, interval="prediction")
    assert (other.predict(interval="prediction")["conf_high"] <= 1.0).all()


def test_options_that_do_not_go_together() -> None:
    m, data = fitted("cbpp"), me.load_dataset("cbpp")
    for options, sentence in (
        ({"marginal": True, "type": "link"}, "averages means"),
        ({"marginal": True, "re": ["herd"]}, "conditions on all of them"),
        ({"interval": "prediction", "type": "link"}, "not on the scale of the"),
        ({"interval": "both"}, "interval 'both'"),
        ({"se": True, "vcov": "CR1"}, "population predictions"),
        ({"re": None, "vcov": "CR1"}, "ask for them"),
        ({"weights": 3.0}, "numbers of trials"),
        ({"marginal": "yes"}, "marginal"),
    ):
        with pytest.raises(me.ModelError, match=sentence):
            m.predict(data, **options)
    inverse = me.glmer(
        "angle ~ temp + (1 | recipe:replicate)",
        model_data("cake_gamma").assign(angle=lambda d: d["angle"] ** 6 / 1e8),
        family=me.families.Gamma("inverse"),
    )
    with pytest.raises(me.ModelError, match="does not exist"):
        inverse.predict(marginal=True)


def test_standard_errors_in_chunks_and_frames() -> None:
    m, data = simulated()
    whole = m.predict(data, se=True)
    parts = list(m.predict(iter([data.iloc[:100], data.iloc[100:]]), se=True, chunk_size=7))
    assert pd.concat(parts).to_numpy() == pytest.approx(whole.to_numpy())
    missing = data.iloc[:2].assign(x=[np.nan, 1.0])
    assert m.predict(missing, interval="confidence").isna().any(axis=1).tolist() == [True, False]
