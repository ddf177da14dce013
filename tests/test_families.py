"""Families: derivatives against differences, densities against SciPy and R, the far ends."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
import scipy.special as sp
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

import mixedeffects as me
from mixedeffects.families import (
    Beta,
    Binomial,
    Family,
    Gamma,
    Gaussian,
    InverseGaussian,
    Link,
    NegativeBinomial,
    Poisson,
    Response,
    RowTerms,
    find_family,
)
from mixedeffects.families.jets import Jet
from mixedeffects.families.log_probabilities import log_cauchy, log_minimum, log_normal
from mixedeffects.families.polygamma import polygammas
from mixedeffects.families.response import CHUNK, row_terms

Vector = NDArray[np.float64]

ALL: list[Family] = [
    *(Binomial(link) for link in Binomial.links),
    *(Poisson(link) for link in Poisson.links),
    *(NegativeBinomial(link) for link in NegativeBinomial.links),
    NegativeBinomial(theta=1.7),
    *(Gamma(link) for link in Gamma.links),
    *(InverseGaussian(link) for link in InverseGaussian.links),
    *(Beta(link) for link in Beta.links),
    *(Gaussian(link) for link in Gaussian.links),
]
BOTH = pytest.mark.parametrize("family", ALL, ids=repr)


def predictors(family: Family, rng: np.random.Generator, n: int) -> Vector:
    """Linear predictors in the middle of what the family and its link allow."""
    link = family.link.name
    if family.mean_range == (0.0, 1.0):
        if link == "log":
            return -rng.uniform(0.1, 3.0, n)
        return rng.uniform(0.05, 0.95, n) if link == "identity" else rng.uniform(-2.0, 1.3, n)
    free = link == "log" or isinstance(family, Gaussian)
    return rng.uniform(-1.5, 1.5, n) if free else rng.uniform(0.3, 3.0, n)


def responses(
    family: Family, rng: np.random.Generator, n: int, trials: bool = False, weights: bool = False
) -> Response:
    """Responses in the support, not near the means."""
    w = rng.uniform(0.3, 3.0, n) if weights else None
    if isinstance(family, Binomial):
        m = rng.integers(1, 9, n).astype(float) if trials else np.ones(n)
        y = np.floor(rng.uniform(size=n) * (m + 1.0)) / m
        return Response(y, m if trials else None, w)
    if isinstance(family, Poisson | NegativeBinomial):
        return Response(rng.poisson(3.0, n).astype(float), None, w)
    if isinstance(family, Gaussian):
        return Response(rng.normal(size=n), None, w)
    y = rng.beta(2.0, 2.0, n) if isinstance(family, Beta) else rng.gamma(2.0, 1.0, n) + 0.05
    return Response(y, None, w)


def phi_of(family: Family, phi: float) -> float | None:
    return phi if family.has_parameter else None


def named(terms: RowTerms) -> dict[str, Vector]:
    return {name: values for name, values in vars(terms).items() if values is not None}


# --- derivatives ----------------------------------------------------------------------------------


def slope(function: Any, at: Any, step: float) -> Any:
    """Central differences of the sixth order."""
    near, middle, far = (
        (function(at + k * step) - function(at - k * step)) / (2.0 * k * step) for k in (1, 2, 3)
    )
    return 1.5 * near - 0.6 * middle + 0.1 * far


@BOTH
@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32 - 1),
    phi=st.floats(-1.5, 4.0),
    trials=st.booleans(),
    weights=st.booleans(),
)
def test_each_derivative_is_that_of_the_one_before(
    family: Family, seed: int, phi: float, trials: bool, weights: bool
) -> None:
    rng = np.random.default_rng(seed)
    response = responses(family, rng, 6, trials, weights)
    eta = predictors(family, rng, 6)
    given_phi = phi_of(family, phi)

    def at(eta: Vector, phi: float | None = given_phi) -> RowTerms:
        return family.rows(response, eta, phi, order=2)

    terms = at(eta)
    step = 0.004 * np.minimum(1.0, np.abs(eta))
    if family.link.name == "identity" and family.mean_range == (0.0, 1.0):
        step = 0.004 * np.minimum(eta, 1.0 - eta)
    for value, derivative, factor in (
        ("d", "r", -0.5),
        ("r", "W", -1.0),
        ("W", "W1", 1.0),
        ("W1", "W2", 1.0),
    ):
        expected = factor * slope(lambda eta, name=value: getattr(at(eta), name), eta, step)
        scale = np.abs(getattr(terms, value)) / np.minimum(1.0, np.abs(eta))
        error = np.abs(getattr(terms, derivative) - expected)
        assert (error <= 1e-7 * (1.0 + np.abs(expected) + scale)).all(), derivative
    if given_phi is None:
        assert terms.d_phi is None
        return
    for value, derivative in (
        ("d", "d_phi"),
        ("r", "r_phi"),
        ("W", "W_phi"),
        ("d_phi", "d_phiphi"),
    ):
        expected = slope(lambda phi, name=value: getattr(at(eta, phi), name), given_phi, 0.01)
        scale = np.abs(getattr(terms, value))
        error = np.abs(getattr(terms, derivative) - expected)
        assert (error <= 1e-7 * (1.0 + np.abs(expected) + scale)).all(), derivative


@BOTH
@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1), phi=st.floats(-1.5, 5.0), trials=st.booleans())
def test_formulas_are_the_series_of_the_density(
    family: Family, seed: int, phi: float, trials: bool
) -> None:
    rng = np.random.default_rng(seed)
    response = responses(family, rng, 20, trials, weights=True)
    eta, given_phi = predictors(family, rng, 20), phi_of(family, phi)
    terms = named(family.rows(response, eta, given_phi, order=2))
    series = Family.derivatives(family, response, eta, given_phi, 2, family.has_parameter)
    expected = named(row_terms(series, response.weights))
    assert terms.keys() == expected.keys()
    for name, values in terms.items():
        size = 1.0 + np.abs(expected[name])
        assert (np.abs(values - expected[name]) <= 1e-9 * size).all(), name


@pytest.mark.parametrize("largest", [5.0, 200_000.0])
def test_sums_of_the_negative_binomial(largest: float) -> None:
    """Long sums are taken as differences of gamma functions."""
    family, phi = NegativeBinomial(), 0.4
    response, eta = Response(np.array([0.0, 3.0, largest])), np.array([0.1, 0.7, 2.0])
    terms = named(family.rows(response, eta, phi, order=2))
    series = Family.derivatives(family, response, eta, phi, 2, True)
    for name, expected in named(row_terms(series, None)).items():
        assert_allclose(terms[name], expected, rtol=1e-9, atol=1e-9, err_msg=name)


@BOTH
def test_rows_in_parts_are_the_rows(family: Family) -> None:
    rng = np.random.default_rng(3)
    n = CHUNK + 17
    response = responses(family, rng, n, trials=True, weights=True)
    eta, phi = predictors(family, rng, n), phi_of(family, 0.3)
    whole = named(family.rows(response, eta, phi, order=2))
    for rows in (slice(0, 100), slice(n - 100, n)):
        part = family.rows(response.take(rows), eta[rows], phi, order=2)
        for name, values in named(part).items():
            assert_allclose(whole[name][rows], values, rtol=1e-13, err_msg=name)
    assert_array_equal(family.deviance(response, eta, phi), whole["d"])


@BOTH
def test_expected_weights_are_the_mean_of_observed_ones(family: Family) -> None:
    """The mean by sums or quadrature over the distribution, at three means."""
    # A beta density with poles is not for the trapezoidal rule.
    phi = phi_of(family, 4.0 if isinstance(family, Beta) else 1.2)
    for eta in np.clip(predictors(family, np.random.default_rng(4), 3), -1.2, 1.2):
        mu = np.asarray(family.link.inverse(np.array([eta])))
        if isinstance(family, Binomial):
            y = np.array([0.0, 1.0])
        elif family.discrete:
            y = np.arange(400.0)
        else:
            low, high = (1e-9, 1.0 - 1e-9) if isinstance(family, Beta) else (1e-9, 400.0)
            low = -60.0 if isinstance(family, Gaussian) else low
            y = np.linspace(low, high, 2_000_001)
        at = np.full_like(y, eta)
        terms = family.rows(Response(y), at, phi, parameter=False)
        density = np.exp(-0.5 * terms.d)
        total = density * terms.W
        mean = total.sum() if family.discrete else np.trapezoid(total, y)
        weights = family.expected_weights(Response(y[:1], weights=np.array([2.0])), at[:1], phi)
        assert mean * 2.0 == pytest.approx(weights[0], rel=2e-4), mu
        if family.canonical:
            assert_allclose(terms.W, weights[0] / 2.0, rtol=1e-9)


def test_polygammas() -> None:
    x = np.concatenate([1.0 + np.logspace(-12, 9, 500), np.linspace(1.0, 30.0, 500)])
    for order, values in enumerate(polygammas(x, 3), 1):
        assert_allclose(values, sp.polygamma(order, x), rtol=3e-15)


# --- densities ------------------------------------------------------------------------------------


def distribution(family: Family, mu: Vector, response: Response, phi: float | None) -> Any:
    """The distribution of SciPy's."""
    if isinstance(family, Binomial):
        return scipy.stats.binom(1 if response.trials is None else response.trials, mu)
    if isinstance(family, Poisson):
        return scipy.stats.poisson(mu)
    value = float(family.natural(phi))
    if isinstance(family, NegativeBinomial):
        return scipy.stats.nbinom(value, value / (value + mu))
    if isinstance(family, Gamma):
        return scipy.stats.gamma(1.0 / value, scale=mu * value)
    if isinstance(family, InverseGaussian):
        return scipy.stats.invgauss(mu * value, scale=1.0 / value)
    if isinstance(family, Beta):
        return scipy.stats.beta(value * mu, value * (1.0 - mu))
    return scipy.stats.norm(mu, math.sqrt(value))


@BOTH
@pytest.mark.parametrize("trials", [False, True])
def test_densities_and_distribution_functions(family: Family, trials: bool) -> None:
    rng = np.random.default_rng(5)
    response, phi = responses(family, rng, 50, trials), phi_of(family, 0.8)
    eta = predictors(family, rng, 50)
    mu = np.asarray(family.link.inverse(eta))
    theirs = distribution(family, mu, response, phi)
    y = response.y if response.trials is None else np.rint(response.y * response.trials)
    log_density = theirs.logpmf(y) if family.discrete else theirs.logpdf(y)
    terms = family.rows(response, eta, phi)
    assert_allclose(terms.d, -2.0 * log_density, rtol=1e-11, atol=1e-11)
    assert_allclose(
        family.log_density(response.y, mu, phi, response.trials), log_density, atol=1e-11
    )
    assert_allclose(family.cdf(response.y, mu, response, phi), theirs.cdf(y), atol=1e-12)
    below = theirs.cdf(y - 1) if family.discrete else theirs.cdf(y)
    assert_allclose(family.cdf(response.y, mu, response, phi, strict=True), below, atol=1e-12)
    if response.trials is None:
        variance = np.broadcast_to(family.variance(mu, phi), mu.shape)
        assert_allclose(variance, theirs.var(), rtol=1e-10)


@BOTH
@pytest.mark.parametrize("trials", [False, True])
def test_simulated_responses_have_the_moments(family: Family, trials: bool) -> None:
    n = 40_000
    rng = np.random.default_rng(6)
    one = responses(family, rng, 1, trials)
    response = Response(np.repeat(one.y, n), None if one.trials is None else np.full(n, 7.0))
    phi = phi_of(family, 1.5)
    mu = np.full(n, float(np.asarray(family.link.inverse(predictors(family, rng, 1)))[0]))
    if isinstance(family, Gaussian):
        mu = np.abs(mu)
    y = family.simulate(np.random.default_rng(7), mu, response, phi)
    family.check(Response(y, response.trials))
    per_row = 1.0 if response.trials is None else 7.0
    variance = float(np.mean(family.variance(mu, phi))) / per_row
    assert y.mean() == pytest.approx(mu[0], abs=5.0 * math.sqrt(variance / n))
    kurtosis = np.mean((y - mu) ** 4) / variance**2
    assert y.var() == pytest.approx(variance, rel=5.0 * math.sqrt(kurtosis / n))


# Rows and -2 log-likelihoods of R 4.2: glm, dnbinom, dgamma, dbeta, statmod's dinvgauss, glmmTMB.
_X = np.array([-1.2, 0.4, -0.3, 0.8, -2.0, 1.5, 0.9, -0.6])
_N = np.array([4.0, 6.0, 5.0, 9.0, 3.0, 4.0, 10.0, 8.0])
_HERD = Response(np.array([1.0, 3.0, 2.0, 5.0, 0.0, 4.0, 7.0, 2.0]) / _N, _N)
_COUNTS = Response(np.array([0.0, 3.0, 1.0, 7.0, 0.0, 12.0, 5.0, 2.0]))
_AMOUNTS = Response(np.array([0.3, 1.2, 0.8, 2.5, 0.2, 4.1, 1.9, 0.7]))
_SHARES = Response(_AMOUNTS.y / 5.0)


@pytest.mark.parametrize(
    ("family", "response", "beta", "value", "expected"),
    [
        (Binomial(), _HERD, (-0.3052789755035771, 1.239403801591408), None, 16.67047170318904),
        (
            Binomial("probit"),
            _HERD,
            (-0.1762974817394831, 0.7577236595193348),
            None,
            16.56350795935935,
        ),
        (
            Binomial("cloglog"),
            _HERD,
            (-0.6799646205120154, 0.9665384921816158),
            None,
            16.20736014662118,
        ),
        (
            Binomial("cauchit"),
            _HERD,
            (-0.3481088299892094, 1.118531279506775),
            None,
            17.22918698982255,
        ),
        (Binomial("log"), _HERD, (-0.7137664677617036, 0.0), None, 28.62683433957667),
        (Poisson(), _COUNTS, (0.6880691894244764, 1.224921330002215), None, 22.17977118500295),
        (NegativeBinomial(), _COUNTS, (0.3, 0.9), 1.7, 32.20329110782448),
        (Gamma("inverse"), _AMOUNTS, (1.1, 0.2), 0.3, 47.68182708197771),
        (
            Gamma(),
            _AMOUNTS,
            (0.03476559129379147, 0.8682778909070206),
            0.1461648168042026**2,
            -8.491890119876757,
        ),
        (InverseGaussian(), _AMOUNTS, (0.1, 0.5), 0.4, 12.80633934493541),
        (Beta("cloglog"), _SHARES, (-0.8, 0.4), 6.0, -10.80028813872955),
    ],
    ids=repr,
)
def test_constants_are_those_of_r(
    family: Family,
    response: Response,
    beta: tuple[float, float],
    value: float | None,
    expected: float,
) -> None:
    eta = beta[0] + beta[1] * _X
    phi = None if value is None else float(family.search(value))
    assert family.deviance(response, eta, phi).sum() == pytest.approx(expected, abs=1e-8)


# --- far out --------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog", "cauchit"])
@pytest.mark.parametrize("family", [Binomial, Beta])
def test_far_out_everything_is_finite(family: type[Any], link: str) -> None:
    far = np.array([-700.0, -300.0, -40.0, -30.0, 30.0, 40.0, 300.0, 700.0])
    if link == "cloglog":
        far = np.minimum(far, 340.0)
    made = family(link)
    for y in (0.3, 0.9) if family is Beta else (0.0, 1.0):
        response = Response(np.full(far.shape, y))
        terms = named(made.rows(response, far, phi_of(made, 1.0), order=2))
        for name, values in terms.items():
            assert np.isfinite(values).all(), (name, values)
        assert np.isfinite(made.expected_weights(response, far, phi_of(made, 1.0))).all()


@pytest.mark.parametrize("family", [Poisson(), NegativeBinomial(), Gamma(), Gaussian("log")])
def test_far_out_with_a_log_link(family: Family) -> None:
    far = np.array([-340.0, -30.0, 30.0, 340.0])
    response = Response(np.array([2.0, 2.0, 2.0, 2.0]))
    for name, values in named(family.rows(response, far, phi_of(family, 0.5), order=2)).items():
        assert np.isfinite(values).all(), (name, values)


def test_probabilities_all_but_0_or_1_keep_their_digits() -> None:
    success, failure = Response(np.array([1.0])), Response(np.array([0.0]))
    for eta in (-700.0, -40.0):
        at = np.array([eta])
        odds = math.exp(eta)
        assert Binomial().rows(success, at).d[0] == pytest.approx(-2.0 * eta, rel=1e-15)
        assert Binomial().rows(failure, at).r[0] == pytest.approx(-odds, rel=1e-13)
        assert Binomial().rows(failure, at).d[0] == pytest.approx(2.0 * odds, rel=1e-13)
        assert Binomial().rows(success, -at).r[0] == pytest.approx(odds, rel=1e-13)
        assert Binomial("cloglog").rows(failure, at).d[0] == pytest.approx(2.0 * odds, rel=1e-13)
        assert Binomial("cloglog").rows(success, at).W[0] == pytest.approx(odds / 2.0, rel=1e-13)
    # Mills' ratio: log Phi(-t) = -t^2 / 2 - log t - log sqrt(2 pi) - 1 / t^2 + ...
    t = 700.0
    value, first, second, third, fourth = (v[0] for v in log_normal(np.array([-t]), 4))
    assert value == pytest.approx(-(t**2) / 2 - math.log(t * math.sqrt(2 * math.pi)) - t**-2)
    assert first == pytest.approx(t + 1 / t - 2 / t**3, rel=1e-15)
    assert second == pytest.approx(-1 + t**-2 - 6 / t**4, rel=1e-15)
    assert third == pytest.approx(2 / t**3, rel=1e-4)
    assert fourth == pytest.approx(6 / t**4, rel=1e-4)


def test_logarithms_of_the_normal_distribution() -> None:
    eta = np.concatenate([np.linspace(-40.0, 40.0, 801), -np.logspace(1, 3, 50)])
    value, hazard = log_normal(eta, 1)
    assert_allclose(value, sp.log_ndtr(eta), rtol=4e-13, atol=1e-290)
    with np.errstate(under="ignore"):
        expected = np.exp(scipy.stats.norm.logpdf(eta) - sp.log_ndtr(eta))
    near = eta > -10.0
    assert_allclose(hazard[near], expected[near], rtol=1e-12)


@pytest.mark.parametrize(
    ("function", "at"), [(log_normal, -15.0), (log_minimum, math.log(0.5)), (log_minimum, -11.5)]
)
def test_series_join_what_they_stand_in_for(function: Any, at: float) -> None:
    """The two sides of the point from which on a series is used."""
    below, above = (np.array(function(np.array([at + gap]), 4))[:, 0] for gap in (-1e-9, 1e-9))
    assert_allclose(below, above, rtol=1e-7)


def test_cauchy_tails() -> None:
    value, first, second, third, fourth = (v[0] for v in log_cauchy(np.array([-1e8]), 4))
    # F(-t) = 1 / (pi t) (1 - 1 / (3 t^2) ...)
    assert value == pytest.approx(-math.log(math.pi * 1e8), rel=1e-15)
    for got, expected in ((first, 1e-8), (second, 1e-16), (third, 2e-24), (fourth, 6e-32)):
        assert got == pytest.approx(expected, rel=1e-12)
    upper = log_cauchy(np.array([1e8]), 1)
    assert upper[0][0] == pytest.approx(-1e-8 / math.pi, rel=1e-7)
    assert upper[1][0] == pytest.approx(1e-16 / math.pi, rel=1e-7)


def test_a_precision_without_end_is_poisson() -> None:
    """No digits are lost where theta is large."""
    eta = np.linspace(-1.0, 2.0, 8)
    poisson = Poisson().rows(_COUNTS, eta, order=2)
    for theta in (1e9, 1e12):
        terms = NegativeBinomial().rows(_COUNTS, eta, math.log(theta), order=2)
        assert_allclose(terms.d, poisson.d, atol=400.0 / theta + 1e-13)
        assert_allclose(terms.r, poisson.r, atol=400.0 / theta + 1e-13)
        assert terms.d_phi is not None
        # d/dphi of the expansion -2 log p = Poisson - ((y - mu)^2 - y) / theta
        mu, y = np.exp(eta), _COUNTS.y
        expected = ((y - mu) ** 2 - y) / theta
        assert_allclose(terms.d_phi, expected, atol=1e-13)


@pytest.mark.parametrize("dispersion", [1e-3, 1e-6, 1e-9])
def test_a_small_dispersion_is_normal(dispersion: float) -> None:
    """Gamma with a large shape: the normalising constant does not cancel."""
    y = np.array([1.0, 1.0 + math.sqrt(dispersion)])
    phi = -math.log(dispersion)
    terms = Gamma().rows(Response(y), np.zeros(2), phi)
    assert_allclose(
        terms.d,
        [
            math.log(2 * math.pi * dispersion) + dispersion / 6.0,
            math.log(2 * math.pi * dispersion) + 1.0,
        ],
        atol=3.0 * math.sqrt(dispersion),
    )
    # Stirling's series.
    expected = math.log(2 * math.pi * dispersion) + dispersion / 6.0 - dispersion**3 / 180.0
    assert terms.d[0] == pytest.approx(expected, abs=1e-14)
    assert terms.d_phi is not None
    slope = -1.0 - dispersion / 6.0 + dispersion**3 / 60.0
    assert terms.d_phi[0] == pytest.approx(slope, abs=1e-14)


@pytest.mark.parametrize(
    ("family", "inside", "outside"),
    [
        (Binomial("identity"), [0.2, 0.9], [-0.1, 0.0, 1.0, 1.2]),
        (Binomial("log"), [-3.0, -1e-3], [0.0, 0.5, 800.0]),
        (Poisson("identity"), [0.1, 3.0], [0.0, -1.0]),
        (Poisson("sqrt"), [0.1, 3.0], [-1.0]),
        (NegativeBinomial("identity", theta=2.0), [0.1, 3.0], [-1.0, 0.0]),
        (Gamma("inverse"), [0.1, 3.0], [-1.0, 0.0]),
        (InverseGaussian("1/mu^2"), [0.1, 3.0], [-1.0, 0.0]),
        (Gaussian("inverse"), [-0.5, 0.1], [0.0]),
        (Poisson(), [-50.0, 50.0], [800.0, np.nan]),
    ],
    ids=repr,
)
def test_a_mean_outside_its_range_is_infinitely_unlikely(
    family: Family, inside: list[float], outside: list[float]
) -> None:
    eta = np.array(inside + outside)
    for y in (1.0, 0.0) if family.discrete else (1.0,):
        response = Response(np.full(len(eta), y), weights=np.full(len(eta), 2.0))
        phi = phi_of(family, 0.0)
        terms = named(family.rows(response, eta, phi, order=2))
        assert_array_equal(np.isinf(terms["d"]), [False] * len(inside) + [True] * len(outside))
        for name, values in terms.items():
            if name != "d":
                assert not values[len(inside) :].any(), name
                assert np.isfinite(values).all(), name
        assert np.isfinite(family.expected_weights(response, eta, phi)).all()


# --- the response ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "response", "message"),
    [
        (Binomial(), Response(np.array([0.0, 0.5, 1.0])), "number of its trials"),
        (Binomial(), Response(np.array([0.0, 0.4, 1.0]), np.full(3, 4.0)), "Successes"),
        (Binomial(), Response(np.array([0.0, 1.5, 1.0]), np.full(3, 4.0)), "from 0 to 1"),
        (Binomial(), Response(np.full(3, 0.5), np.array([4.0, 2.5, 2.0])), "Trials"),
        (Binomial(), Response(np.full(3, 0.5), np.array([4.0, 0.0, 2.0])), "Trials"),
        (Poisson(), Response(np.array([0.0, 1.5, 2.0])), "poisson family must be counts"),
        (Poisson(), Response(np.array([0.0, -1.0, 2.0])), "whole numbers"),
        (NegativeBinomial(), Response(np.array([0.0, np.nan, 2.0])), "whole numbers"),
        (Gamma(), Response(np.array([1.0, 0.0, 2.0])), "gamma family must be above 0"),
        (InverseGaussian(), Response(np.array([1.0, np.inf, 2.0])), "above 0"),
        (Beta(), Response(np.array([0.1, 1.0, 0.2])), "between 0 and 1"),
        (Gaussian(), Response(np.array([0.1, np.inf, 0.2])), "finite"),
    ],
)
def test_a_response_outside_the_support_is_refused_with_its_rows(
    family: Family, response: Response, message: str
) -> None:
    with pytest.raises(me.DataError, match=message) as raised:
        family.check(response, ["a", "b", "c"])
    assert ": b (" in str(raised.value)
    with pytest.raises(me.DataError, match=r": 1 \("):
        family.check(response)
    family.check(response.take(np.array([0, 2]))) if "number" not in message else None


def test_many_wrong_rows_are_counted() -> None:
    with pytest.raises(me.DataError, match=r"4 \(-1\) and 3 more\."):
        Poisson().check(Response(np.full(8, -1.0)))


@BOTH
def test_first_means_are_valid(family: Family) -> None:
    response = responses(family, np.random.default_rng(8), 40, trials=True)
    mu = family.start_mu(response)
    eta = np.asarray(family.link.link(mu))
    assert family.valid(eta).all()
    phi = family.start_phi(response, mu)
    assert np.isfinite(family.rows(response, eta, phi_of(family, phi)).d).all()
    assert math.isfinite(family.start_phi(response, np.full(40, response.y.mean())))


@pytest.mark.parametrize(
    "family", [NegativeBinomial(), Gamma(), InverseGaussian(), Beta(), Gaussian()], ids=repr
)
def test_first_parameter_is_near(family: Family) -> None:
    phi = float(family.search(0.3)) if family.parameter_name == "dispersion" else math.log(3.0)
    mu = np.random.default_rng(1).uniform(0.2, 0.8, 20_000)
    mu = mu if isinstance(family, Beta) else 4.0 * mu
    y = family.simulate(np.random.default_rng(2), mu, Response(mu), phi)
    assert family.start_phi(Response(y), mu) == pytest.approx(phi, abs=0.1)


def test_what_a_response_remembers_is_not_stored() -> None:
    response = Response(_COUNTS.y)
    Poisson().rows(response, np.zeros(8))
    assert response._remembered
    again = pickle.loads(pickle.dumps(response))
    assert again._remembered == {}
    assert_array_equal(again.y, response.y)


# --- links ----------------------------------------------------------------------------------------


@BOTH
def test_links_and_their_inverses(family: Family) -> None:
    link = family.link
    eta = predictors(family, np.random.default_rng(9), 12)
    mu = np.asarray(link.inverse(eta))
    assert_allclose(link.link(mu), eta, rtol=1e-12, atol=1e-12)
    means = link.mean(eta, 4)
    assert_allclose(means[0], mu, rtol=1e-13)
    for name in ("mean", "log_mean", "log_complement"):
        if name == "log_complement" and family.mean_range != (0.0, 1.0):
            continue
        if name == "log_mean" and not (mu > 0.0).all():
            continue
        ours = getattr(link, name)(eta, 4)
        series = getattr(Link, name)(link, eta, 4)
        for order, (got, expected) in enumerate(zip(ours, series, strict=True)):
            assert_allclose(got, expected, rtol=1e-9, atol=1e-11, err_msg=f"{name} {order}")
    assert_array_equal(link.derivative(eta), means[1])


class LogLog(Link):
    """A link of one's own: 1 - cloglog(1 - mu)."""

    name = "loglog"

    def link(self, mu: Any) -> Any:
        return -np.log(-np.log(mu))

    def inverse(self, eta: Any) -> Any:
        return np.exp(-np.exp(-eta))


def test_a_link_of_ones_own() -> None:
    family = Binomial(LogLog())
    mirror = Binomial("cloglog")
    eta = np.linspace(-1.0, 2.0, 8)
    terms = named(family.rows(_HERD, eta, order=2))
    mirrored = named(mirror.rows(Response(1.0 - _HERD.y, _N), -eta, order=2))
    for name in terms:
        sign = -1.0 if name in {"r", "W1"} else 1.0
        assert_allclose(terms[name], sign * mirrored[name], rtol=1e-10, atol=1e-11, err_msg=name)
    assert repr(family) == "Family: binomial (link: loglog)"
    assert_allclose(
        family.expected_weights(_HERD, eta), mirror.expected_weights(_HERD, -eta), rtol=1e-10
    )


# --- families of one's own ------------------------------------------------------------------------


class GeneralisedPoisson(Family):
    """Consul and Jain's, with a parameter, and functions that the others do not use."""

    name = "generalised_poisson"
    links = ("log",)
    parameter_name = "dispersion"
    mean_range = (0.0, np.inf)
    discrete = True

    def log_density(self, y: Any, mu: Any, phi: Any, trials: Any) -> Any:
        root = np.sqrt(self.natural(phi))
        rate = mu / root + (1.0 - 1.0 / root) * y
        return np.log(mu / root) + (y - 1.0) * np.log(rate) - rate - sp.gammaln(y + 1.0)

    def variance(self, mu: Any, phi: float | None = None) -> Any:
        return self.natural(phi) * mu


def test_a_family_of_ones_own() -> None:
    family = GeneralisedPoisson()
    eta, phi = np.linspace(-0.5, 2.0, 8), -0.3
    terms = family.rows(_COUNTS, eta, phi, order=2)
    pairs = (("d", "r", -0.5), ("r", "W", -1.0), ("W", "W1", 1.0), ("W1", "W2", 1.0))
    for value, derivative, factor in pairs:
        expected = factor * slope(
            lambda at, name=value: getattr(family.rows(_COUNTS, at, phi, order=2), name), eta, 0.01
        )
        assert_allclose(getattr(terms, derivative), expected, rtol=1e-8, atol=1e-8)
    for value, derivative in (
        ("d", "d_phi"),
        ("r", "r_phi"),
        ("W", "W_phi"),
        ("d_phi", "d_phiphi"),
    ):
        expected = slope(
            lambda at, name=value: getattr(family.rows(_COUNTS, eta, at), name), phi, 0.01
        )
        assert_allclose(getattr(terms, derivative), expected, rtol=1e-8, atol=1e-8)
    # A dispersion of 1 is Poisson.
    assert_allclose(family.rows(_COUNTS, eta, 0.0).d, Poisson().rows(_COUNTS, eta).d, rtol=1e-12)
    assert_allclose(family.expected_weights(_COUNTS, eta, phi), np.exp(eta + phi), rtol=1e-12)
    for method in ("simulate", "cdf"):
        with pytest.raises(me.ModelError, match=rf"generalised_poisson family has no {method}\(\)"):
            getattr(family, method)(None, None, None, None)
    with pytest.raises(me.ModelError, match="no log_density"):
        Family().rows(_COUNTS, eta)


def test_a_function_without_known_derivatives_is_named() -> None:
    class Bessel(Poisson):
        def log_density(self, y: Any, mu: Any, phi: Any = None, trials: Any = None) -> Any:
            return sp.j0(mu)

        derivatives = Family.derivatives

    with pytest.raises(me.ModelError, match="derivatives of j0 are not known"):
        Bessel().rows(_COUNTS, np.zeros(8))


FUNCTIONS: dict[str, Any] = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "reciprocal": np.reciprocal,
    "square": np.square,
    "absolute": lambda x: np.abs(-x),
    "power": lambda x: x**2.5,
    "cube": lambda x: x**3,
    "quotient": lambda x: (1.0 + x) / (2.0 + x * x),
    "sin": np.sin,
    "cos": np.cos,
    "arctan": np.arctan,
    "tanh": np.tanh,
    "expit": sp.expit,
    "log_expit": sp.log_expit,
    "logit": sp.logit,
    "ndtr": sp.ndtr,
    "log_ndtr": sp.log_ndtr,
    "erf": sp.erf,
    "gammaln": sp.gammaln,
    "digamma": sp.digamma,
    "betaln": lambda x: sp.betaln(x, 1.0 + x * x),
    "xlogy": lambda x: sp.xlogy(x, x),
    "xlog1py": lambda x: sp.xlog1py(2.0, x),
    "logaddexp": lambda x: np.logaddexp(x, 2.0 * x),
    "maximum": lambda x: np.maximum(x * x, 0.3),
    "minimum": lambda x: np.minimum(x, 0.5),
    "where": lambda x: np.where(x > 0.5, np.exp(x), -x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_series_of_functions(name: str) -> None:
    function, x = FUNCTIONS[name], np.array([0.21, 0.4, 0.83])
    series = function(Jet.variable(x))
    assert_allclose(series.derivative(0), function(x), rtol=1e-14)
    for order in range(1, 5):
        expected = slope(
            lambda at, below=order - 1: function(Jet.variable(at)).derivative(below), x, 0.002
        )
        assert_allclose(series.derivative(order), expected, rtol=1e-8, atol=1e-8)


def test_series_of_two_variables() -> None:
    x, p = np.array([0.7]), 0.4
    series = np.exp(Jet.variable(x) * Jet.variable(p, 1)) / Jet.variable(p, 1)
    e = math.exp(0.28)
    assert series.derivative(0, 1)[0] == pytest.approx(e * (0.7 / p - 1.0 / p**2))
    assert series.derivative(2, 1)[0] == pytest.approx(e * (1.0 + 0.28))
    assert series.derivative(0, 2)[0] == pytest.approx(e * (0.49 / p - 1.4 / p**2 + 2.0 / p**3))


# --- variances on the scale of the link -----------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "method", "value", "expected"),
    [
        (Binomial(), "theoretical", None, math.pi**2 / 3),
        (Binomial("probit"), "theoretical", None, 1.0),
        (Binomial("cloglog"), "theoretical", None, math.pi**2 / 6),
        (Binomial(), "delta", None, 1 / (0.4 * 0.6)),
        (Poisson(), "delta", None, 1 / 0.4),
        (Poisson(), "lognormal", None, math.log(1 + 1 / 0.4)),
        (Poisson(), "trigamma", None, sp.polygamma(1, 0.4)),
        (Poisson("sqrt"), "delta", None, 0.25),
        (NegativeBinomial(), "lognormal", 2.0, math.log(1 + 1 / 0.4 + 0.5)),
        (NegativeBinomial(), "trigamma", 2.0, sp.polygamma(1, 1 / (1 / 0.4 + 0.5))),
        (NegativeBinomial(theta=2.0), "delta", None, 1 / 0.4 + 0.5),
        (Gamma(), "delta", 0.25, 0.25),
        (Gamma(), "lognormal", 0.25, math.log(1.25)),
        (Gamma(), "trigamma", 0.25, sp.polygamma(1, 4.0)),
        (Beta(), "delta", 3.0, 1 / (0.4 * 0.6) / 4),
        (Gaussian(), "delta", 2.0, 2.0),
    ],
    ids=repr,
)
def test_latent_variances(
    family: Family, method: str, value: float | None, expected: float
) -> None:
    phi = None if value is None else float(family.search(value))
    assert family.latent_variance(method, 0.4, phi) == pytest.approx(expected, rel=1e-12)
    many = family.latent_variance(method, np.array([0.4, 0.4]), phi)
    assert_allclose(np.broadcast_to(many, 2), expected, rtol=1e-12)


def test_a_method_that_a_link_has_not_is_refused() -> None:
    with pytest.raises(me.ModelError, match="there are 'delta'"):
        Binomial("cauchit").latent_variance("theoretical", 0.4)


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_name", "expected"),
    [
        ("binomial", "Family: binomial (link: logit)"),
        ("poisson", "Family: poisson (link: log)"),
        ("negative_binomial", "Family: negative_binomial (link: log)"),
        ("nbinom", "Family: negative_binomial (link: log)"),
        ("gamma", "Family: gamma (link: log)"),
        ("inverse_gaussian", "Family: inverse_gaussian (link: log)"),
        ("beta", "Family: beta (link: logit)"),
        ("gaussian", "Family: gaussian (link: identity)"),
        (np.str_("gamma"), "Family: gamma (link: log)"),
        (Gamma, "Family: gamma (link: log)"),
        (Binomial("probit"), "Family: binomial (link: probit)"),
        (NegativeBinomial(theta=2.0), "Family: negative_binomial (link: log, theta: 2)"),
    ],
)
def test_families_by_name(given_name: Any, expected: str) -> None:
    assert repr(find_family(given_name)) == expected


@pytest.mark.parametrize(
    ("given_name", "message"),
    [
        ("Gamma", r'family="gamma".*me\.families\.Gamma\("inverse"\)'),
        ("inverse.gaussian", "1/mu"),
        ("nbinom2", 'family="negative_binomial"'),
        ("quasipoisson", "no likelihood"),
        ("poisson(link='log')", r'write me.families.Poisson\("log"\)'),
        ("Gamma(inverse)", r'write me.families.Gamma\("inverse"\)'),
        ("logistic", 'family="binomial"'),
        ("zip", "no zero inflation"),
        ("betabinomial", "of your own"),
        ("quasibinomial", "no likelihood"),
        ("bernoulli", "0 and 1"),
        ("poison", "Did you mean 'poisson'"),
        (3, "must be a name or a family"),
        (len, "must be a name or a family"),
    ],
)
def test_names_that_are_none(given_name: Any, message: str) -> None:
    with pytest.raises(me.ModelError, match=message):
        find_family(given_name)


def test_links_and_theta_that_are_none() -> None:
    with pytest.raises(me.ModelError, match="Link of the poisson family 'logit' is not known"):
        Poisson("logit")
    for theta in (0.0, -1.0, math.nan, "two"):
        with pytest.raises(me.ModelError, match="theta must be"):
            NegativeBinomial(theta=theta)  # type: ignore[arg-type]


@BOTH
def test_families_are_values(family: Family) -> None:
    again = pickle.loads(pickle.dumps(family))
    assert again == family == copy.deepcopy(family)
    assert hash(again) == hash(family)
    assert family != Binomial(LogLog())
    with pytest.raises(AttributeError):
        family.link = LogLog()  # type: ignore[misc]


def test_parameters_and_their_scale() -> None:
    assert NegativeBinomial().natural(math.log(3.0)) == pytest.approx(3.0)
    assert Gamma().search(0.25) == pytest.approx(math.log(4.0))
    assert Gamma().natural(Gamma().search(0.25)) == pytest.approx(0.25)
    assert not Binomial().has_parameter
    fixed = NegativeBinomial(theta=2.0)
    assert not fixed.has_parameter
    assert fixed.natural(None) == 2.0
    assert fixed != NegativeBinomial(theta=3.0)
    rows = fixed.rows(_COUNTS, np.zeros(8))
    assert rows.d_phi is None
    assert_array_equal(rows.d, NegativeBinomial().rows(_COUNTS, np.zeros(8), math.log(2.0)).d)


class _PlainBinomial(Binomial):
    """By the formulas in NumPy: a subclass has no compiled pass."""


class _PlainPoisson(Poisson):
    """The same for counts."""


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["binary", "trials", "counts"])
def test_compiled_rows_are_those_of_the_formulas(kind: str, weighted: bool, order: int) -> None:
    rng = np.random.default_rng(5)
    n = 1_003
    eta = rng.normal(size=n) * rng.choice([0.1, 1.0, 5.0, 100.0], n)
    eta[:6] = [0.0, np.inf, -np.inf, np.nan, 700.0, -700.0]
    weights = rng.random(n) if weighted else None
    if kind == "counts":
        response = Response(rng.poisson(2.0, n).astype(float), None, weights)
        compiled, plain = Poisson(), _PlainPoisson()
    else:
        m = rng.integers(1, 9, n).astype(float) if kind == "trials" else None
        y = rng.binomial(1 if m is None else m.astype(int), 0.4, n) / (1.0 if m is None else m)
        response = Response(y, m, weights)
        compiled, plain = Binomial(), _PlainBinomial()
    assert compiled._compiled_rows(response, eta, order) is not None
    assert plain._compiled_rows(response, eta, order) is None
    ours, theirs = compiled.rows(response, eta, None, order), plain.rows(response, eta, None, order)
    for name in ("d", "r", "W", "W1", *(["W2"] if order == 2 else [])):
        assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-13, atol=1e-14)
    assert (ours.W2 is None) == (order == 1)
