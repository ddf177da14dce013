"""The stored answers about generalized models belong to the data and designs they are read with."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from extended_precision import RandomIntercept, laplace_minimum
from generalized_references import (
    FOLDER,
    MODELS,
    QUADRATURE,
    design,
    laplace_optimum,
    quadrature_optimum,
    reference,
)


def test_every_stored_answer_has_its_model() -> None:
    others = {"inference", "predictions"}
    assert {path.stem for path in FOLDER.glob("*.json")} == set(MODELS) | others
    assert {name for name in MODELS if reference(name).get("agq")} == set(QUADRATURE)
    for name, nodes in QUADRATURE.items():
        assert tuple(int(number) for number in reference(name)["agq"]) == nodes


@pytest.mark.parametrize("name", MODELS)
def test_designs_are_those_of_r(name: str) -> None:
    answer, made = reference(name), design(name)
    T, beta, shape = laplace_optimum(name)
    assert made.X.shape == (len(made.y), len(beta))
    assert {term.label: term.n_columns for term in made.terms} == {
        label: len(factor) for label, factor in T.items()
    }
    assert (shape is not None) == (MODELS[name].family not in ("binomial", "poisson"))
    if "nobs" in answer:
        assert len(made.y) == answer["nobs"]
    if "fixef_names" in answer:
        assert list(made.fixef_names) == answer["fixef_names"]
    for term in made.terms:
        assert term.n_levels == answer["ngroups"][term.group]


@pytest.mark.parametrize(
    "name", [name for name in MODELS if "eta_head" in reference(name)["laplace"]]
)
def test_linear_predictors_are_those_of_r(name: str) -> None:
    # Fixed part, offset and modes add up to R's linear predictor where all modes are stored.
    answer, made = reference(name)["laplace"], design(name)
    _, beta, _ = laplace_optimum(name)
    eta, known = made.X[:10] @ beta + made.offset[:10], np.ones(10, dtype=bool)
    for term in made.terms:
        stored = answer["ranef"][term.group]
        modes = dict(zip(stored["levels"], np.atleast_2d(stored["values"]), strict=True))
        for row in range(10):
            label = term.levels[term.codes[row]]
            known[row] &= label in modes
            if label in modes:
                eta[row] += term.z[row] @ modes[label]
    if name in ("salamander", "cbpp", "contraception", "toenail", "epil"):
        assert known.any()
    np.testing.assert_allclose(eta[known], np.array(answer["eta_head"])[known], atol=1e-6)


def test_toenail_at_the_optimum_by_quadrature() -> None:
    # The likelihood from its definition, one dense integral per patient: it shows the scale. For
    # patients without any success 50 nodes still have an error.
    made = design("toenail")
    T, beta = quadrature_optimum("toenail", 50)
    (theta,) = (factor[0, 0] for factor in T.values())
    u = np.linspace(-9.0, 9.0, 4001)
    eta = (made.X @ beta)[:, None] + theta * u
    logp = -np.logaddexp(0.0, np.where(made.y[:, None] > 0, -eta, eta))
    sums = np.zeros((made.terms[0].n_levels, len(u)))
    np.add.at(sums, made.terms[0].codes, logp)
    likelihoods = np.trapezoid(np.exp(sums) * stats.norm.pdf(u), u, axis=1)
    expected = reference("toenail")["agq"]["50"]["deviance"]
    assert -2.0 * np.log(likelihoods).sum() == pytest.approx(expected, abs=1e-3)


def test_where_r_stopped_short_on_the_toenails() -> None:
    # Its gradient there is 6e-4; all digits of the criterion it says are right.
    answer, own = reference("toenail")["laplace"], RandomIntercept("toenail")
    least = laplace_minimum("toenail")
    at = np.array([answer["theta"], *answer["beta"]], np.longdouble)
    assert float(own.laplace(at)) == pytest.approx(answer["deviance"], abs=1e-10)
    assert answer["deviance"] - least.criterion == pytest.approx(1.4e-9, abs=2e-10)
    assert answer["theta"] - least.theta == pytest.approx(-1.2e-5, abs=1e-6)
    assert np.abs((answer["beta"] - least.beta) / least.se).max() == pytest.approx(2.8e-5, abs=1e-6)


@pytest.mark.parametrize("name", ["cbpp", "contraception", "epil", "schizophrenia_probit"])
def test_other_optima_with_one_intercept_are_those_of_r(name: str) -> None:
    answer, least = reference(name)["laplace"], laplace_minimum(name)
    assert answer["deviance"] == pytest.approx(least.criterion, abs=1e-9)
    assert answer["theta"] == pytest.approx(least.theta, abs=1e-7)
    assert np.abs((answer["beta"] - least.beta) / least.se).max() < 1e-6
    assert answer["se"] == pytest.approx(least.se, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "nodes"), [(name, nodes) for name, each in QUADRATURE.items() for nodes in each]
)
def test_values_by_quadrature_are_those_of_r(name: str, nodes: int) -> None:
    # On the toenails lme4's modes are not exact enough for few points.
    answer = reference(name)["agq"][str(nodes)]
    at = np.array([answer["theta"], *answer["beta"]], np.longdouble)
    error = answer["deviance"] - float(RandomIntercept(name).quadrature(at, nodes))
    known = {("toenail", 9): -1.359e-6, ("toenail", 25): -9.8e-8}
    assert error == pytest.approx(known.get((name, nodes), 0.0), abs=1e-9)
