"""Adaptive quadrature against brute-force integration, differences, and lme4's stored answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from extended_precision import RandomIntercept
from generalized_references import (
    MODELS,
    QUADRATURE,
    design,
    quadrature_optimum,
    reference,
)
from mixedeffects import ModelError
from mixedeffects.engine import EngineTerm
from mixedeffects.engine.generalized import (
    GeneralizedDesign,
    GeneralizedEvaluation,
    LaplaceCheck,
    evaluate_laplace,
    find_generalized_optimum,
    laplace_check,
)
from mixedeffects.engine.generalized.quadrature import (
    adaptive_quadrature,
    check_quadrature,
    evaluate_criterion,
)
from mixedeffects.engine.parameters import T_to_theta, theta_to_T
from mixedeffects.engine.structures import CovarianceStructure
from mixedeffects.families import (
    Beta,
    Binomial,
    Family,
    Gamma,
    InverseGaussian,
    NegativeBinomial,
    Poisson,
    Response,
)

Matrix = NDArray[np.float64]

FAMILIES: dict[str, Callable[[], Family]] = {
    "logit": Binomial,
    "cloglog": lambda: Binomial("cloglog"),
    "poisson": Poisson,
    "negative binomial": NegativeBinomial,
    "gamma": Gamma,
    "inverse gaussian": InverseGaussian,
    "beta": Beta,
}
LAYOUTS = ("one", "slopes", "three columns", "two terms")


@dataclass
class Case:
    design: GeneralizedDesign
    T: list[Matrix]
    beta: Matrix
    phi: float

    def at(self, nodes: int) -> GeneralizedEvaluation:
        return evaluate_criterion(self.design, self.T, self.beta, self.phi, nodes=nodes)


def make_case(layout: str, family: Family, seed: int) -> Case:
    rng, n, levels = np.random.default_rng(seed), 90, 14
    codes = np.concatenate([np.arange(levels), rng.integers(0, levels, n - levels)])
    x = rng.normal(size=(n, 2))
    columns = {
        "one": [np.ones((n, 1))],
        "slopes": [np.column_stack([np.ones(n), x[:, 0]])],
        "three columns": [np.column_stack([np.ones(n), x])],
        "two terms": [np.ones((n, 1)), x[:, :1].copy()],
    }[layout]
    terms = [EngineTerm(codes.astype(np.int32), levels, z, 0) for z in columns]
    X = np.column_stack([np.ones(n), x[:, 0]])
    phi = 0.4 if family.has_parameter else 0.0
    mean = family.link.inverse(0.3 * x[:, 0] + 0.5 * rng.normal(size=levels)[codes])
    trials = weights = None
    if family.name == "binomial":
        trials = rng.integers(1, 5, n).astype(np.float64)
        y = rng.binomial(trials.astype(np.int64), mean) / trials
    elif family.name == "beta":
        y = np.clip(rng.beta(2.0 * mean, 2.0 * (1.0 - mean)), 0.01, 0.99)
    elif family.discrete:
        y, weights = rng.poisson(mean).astype(np.float64), rng.uniform(0.5, 2.0, n)
    else:
        y = mean * rng.gamma(3.0, 1.0 / 3.0, n)
    offset = 0.1 * rng.normal(size=n)
    made = GeneralizedDesign(terms, X, Response(y, trials, weights), family, offset=offset)
    T = [np.tril(0.5 * rng.normal(size=(k, k)) + 0.3 * np.eye(k)) for k in made.term_columns]
    beta = np.linalg.solve(made.basis.fixed, [0.1, 0.2])
    return Case(made, T, beta, phi)


def make_reference(name: str) -> GeneralizedDesign:
    """The design of a stored answer that has one grouping factor."""
    arrays = design(name)
    family = {"binomial": Binomial, "poisson": Poisson}[MODELS[name].family](MODELS[name].link)
    terms = [
        EngineTerm(term.codes, term.n_levels, np.ascontiguousarray(term.z), t)
        for t, term in enumerate(arrays.terms)
    ]
    response = Response(arrays.y, arrays.trials)
    return GeneralizedDesign(terms, arrays.X, response, family, offset=arrays.offset)


def _by_integration(case: Case, points: int = 161, reach: float = 13.0) -> float:
    """-2 log L by the trapezoidal rule around each mode, in directions of its curvature."""
    made, total = case.design, 0.0
    z = np.hstack(made.z)
    k = z.shape[1]
    root = np.zeros((k, k))
    start = 0
    for T in case.T:
        root[start : start + len(T), start : start + len(T)] = T
        start += len(T)
    here = evaluate_laplace(made, case.T, case.beta, case.phi)
    axis = np.linspace(-reach, reach, points)
    grid = np.array(list(product(axis, repeat=k)))
    linear = made.X @ case.beta + made.offset
    phi = case.phi if made.family.has_parameter else None
    for level in range(made.terms[0].n_levels):
        rows = np.flatnonzero(made.terms[0].codes == level)
        own = made.response.take(rows)
        mode = here.mode.c[0][level] @ root
        M = np.eye(k) + root.T @ (z[rows].T * here.rows.W[rows]) @ z[rows] @ root
        half = np.linalg.inv(np.linalg.cholesky(M))
        u = mode + grid @ half
        eta = linear[rows] + u @ root.T @ z[rows].T
        many = Response(
            np.tile(own.y, len(u)),
            None if own.trials is None else np.tile(own.trials, len(u)),
            None if own.weights is None else np.tile(own.weights, len(u)),
        )
        d = made.family.deviance(many, eta.ravel(), phi).reshape(len(u), -1).sum(axis=1)
        f = d + (u * u).sum(axis=1)
        least = f.min()
        cell = (axis[1] - axis[0]) ** k * abs(np.linalg.det(half)) / (2.0 * np.pi) ** (k / 2)
        total += least - 2.0 * np.log(np.exp(-0.5 * (f - least)).sum() * cell)
    return float(total)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("layout", ["one", "slopes", "two terms"])
def test_many_points_integrate(layout: str, name: str) -> None:
    case = make_case(layout, FAMILIES[name](), 5)
    value = case.at(41).criterion
    # The inverse Gaussian's likelihood does not vanish as the mean grows.
    near = 1e-4 if name == "inverse gaussian" else 1e-6
    assert value == pytest.approx(_by_integration(case), abs=near)
    assert abs(value - case.at(1).criterion) > 1e-4


def test_three_random_effects() -> None:
    case = make_case("three columns", Binomial(), 2)
    assert case.at(12).criterion == pytest.approx(_by_integration(case, 41, 6.5), abs=2e-5)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_point_is_laplace(layout: str, name: str) -> None:
    case = make_case(layout, FAMILIES[name](), 3)
    laplace = case.at(1)
    one = adaptive_quadrature(laplace, 1)
    assert one.criterion == pytest.approx(laplace.criterion, abs=1e-9)
    size = max(np.abs(F).max() for F in laplace.score)
    for ours, theirs in zip(one.score, laplace.score, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-7 * size)
    np.testing.assert_allclose(one.beta_gradient, laplace.beta_gradient, atol=1e-7 * size)
    assert one.phi_gradient == pytest.approx(laplace.phi_gradient, abs=1e-7 * size)
    np.testing.assert_allclose(one.logdet.beta, laplace.logdet.beta, atol=1e-7 * size)
    assert one.logdet.phi == pytest.approx(laplace.logdet.phi, abs=1e-7 * size)
    for ours, theirs in zip(one.logdet.score, laplace.logdet.score, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-7 * size)


@pytest.mark.parametrize("nodes", [2, 5])
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradient(layout: str, name: str, nodes: int) -> None:
    _check_gradient(make_case(layout, FAMILIES[name](), 4), nodes)


@pytest.mark.parametrize("small", [1e-3, 1e-2])
def test_gradient_near_a_singular_covariance(small: float) -> None:
    case = make_case("three columns", Beta(), 1370)
    case.T[0][1, 1] = small
    _check_gradient(case, 2)


def _check_gradient(case: Case, nodes: int) -> None:
    made, here = case.design, case.at(nodes)
    theta, step = T_to_theta(case.T), 1e-5

    def value(theta: Matrix, beta: Matrix, phi: float) -> float:
        T = theta_to_T(theta, made.term_columns)
        return evaluate_criterion(made, T, beta, phi, nodes=nodes, near=here).criterion

    numeric = []
    for way in np.eye(len(theta)):
        up, down = (value(theta + s * step * way, case.beta, case.phi) for s in (1.0, -1.0))
        numeric.append((up - down) / (2.0 * step))
    for way in np.eye(made.p):
        up, down = (value(theta, case.beta + s * step * way, case.phi) for s in (1.0, -1.0))
        numeric.append((up - down) / (2.0 * step))
    if made.family.has_parameter:
        up, down = (value(theta, case.beta, case.phi + s * step) for s in (1.0, -1.0))
        numeric.append((up - down) / (2.0 * step))
    of_T = T_to_theta([2.0 * F @ T for F, T in zip(here.score, case.T, strict=True)])
    of_phi = [here.phi_gradient] if made.family.has_parameter else []
    analytic = np.concatenate([of_T, here.beta_gradient, of_phi])
    np.testing.assert_allclose(analytic, numeric, atol=1e-6 * np.abs(numeric).max())


def test_any_root_of_sigma_gives_the_same() -> None:
    case = make_case("slopes", Binomial(), 6)
    turned = case.T[0] @ np.array([[0.6, 0.8], [-0.8, 0.6]])
    here = case.at(3)
    there = evaluate_criterion(case.design, [turned], case.beta, case.phi, nodes=3)
    assert there.criterion == pytest.approx(here.criterion, abs=1e-9)
    np.testing.assert_allclose(there.score[0], here.score[0], atol=1e-6)


def test_score_where_a_direction_has_no_variance() -> None:
    case = make_case("slopes", Binomial(), 7)
    case.T[0][:, 1] = 0.0
    here = case.at(15)
    null = np.array([-case.T[0][1, 0], case.T[0][0, 0]])
    null /= np.linalg.norm(null)
    for variance in (1e-4, 2e-4):
        root = np.linalg.cholesky(
            case.T[0] @ case.T[0].T + variance * np.outer(null, null) + 1e-16 * np.eye(2)
        )
        there = evaluate_criterion(case.design, [root], case.beta, case.phi, nodes=15)
        change = (there.criterion - here.criterion) / variance
        assert change == pytest.approx(float(null @ here.score[0] @ null), rel=0.02)


def test_score_without_any_variance_is_laplaces() -> None:
    case = make_case("one", Poisson(), 8)
    case.T[0][:] = 0.0
    laplace, here = case.at(1), case.at(7)
    assert here.criterion == pytest.approx(laplace.criterion, abs=1e-9)
    assert here.score[0][0, 0] == pytest.approx(laplace.score[0][0, 0], rel=1e-9)
    case.T = [np.full((1, 1), 1e-3)]
    change = (case.at(7).criterion - here.criterion) / 1e-6
    assert here.score[0][0, 0] == pytest.approx(change, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "nodes"), [(name, nodes) for name, each in QUADRATURE.items() for nodes in each]
)
def test_lme4s_answers(name: str, nodes: int) -> None:
    answer, made = reference(name)["agq"][str(nodes)], make_reference(name)
    factors, beta = quadrature_optimum(name, nodes)
    T = [made.basis.engine_factor(0, own) for own in factors.values()]
    start = np.linalg.solve(made.basis.fixed, beta)
    value = evaluate_criterion(made, T, start, 0.0, nodes=nodes).criterion
    # lme4's own value is 1.4e-6 too low for the toenails by nine points.
    at = np.array([answer["theta"], *answer["beta"]], np.longdouble)
    exact = float(RandomIntercept(name).quadrature(at, nodes))
    assert value == pytest.approx(exact, abs=1e-10)
    optimum = find_generalized_optimum(made, nagq=nodes)
    assert optimum.converged
    # Nine points are not quite enough for the toenails.
    assert optimum.certificate.holds == ((name, nodes) != ("toenail", 9))
    assert optimum.evaluations <= 14
    assert exact - 1e-9 < optimum.criterion < exact + 1e-10
    theta = made.basis.relative_factor(0, optimum.T[0])[0, 0]
    assert theta == pytest.approx(answer["theta"], rel=1e-5)
    se = np.array(answer["se"])
    # lme4's own search leaves 1e-10 of D, which is 1e-5 of a standard error.
    assert (np.abs(optimum.beta - answer["beta"]) < 2e-5 * se).all()
    np.testing.assert_allclose(np.sqrt(np.diag(optimum.beta_covariance)), se, rtol=1e-4)


def test_random_slopes_by_quadrature() -> None:
    made = make_reference("contraception_slope")
    laplace = find_generalized_optimum(made)
    optimum = find_generalized_optimum(made, nagq=9)
    assert optimum.converged
    assert optimum.certificate.holds
    assert optimum.nagq == 9
    finer = find_generalized_optimum(made, nagq=13)
    assert optimum.criterion == pytest.approx(finer.criterion, abs=1e-5)
    assert laplace.criterion - optimum.criterion == pytest.approx(0.595, abs=1e-3)


def test_criterion_at_other_parameters() -> None:
    made = make_reference("epil")
    optimum = find_generalized_optimum(made, nagq=9)
    theta, beta = quadrature_optimum("epil", 25)
    for nodes in (9, 25):
        other = find_generalized_optimum(made, nagq=nodes)
        assert other.criterion_at(list(theta.values()), beta) == pytest.approx(
            reference("epil")["agq"][str(nodes)]["deviance"], abs=1e-6
        )
    with pytest.raises(ModelError, match=r"by quadrature \(nagq=9\)"):
        optimum.criterion_at(list(theta.values()), beta, weights="expected")


@pytest.mark.parametrize(("columns", "seed"), [(1, 0), (2, 0), (2, 1), (2, 2)])
def test_singular_optima(columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes, x = np.repeat(np.arange(30), 8).astype(np.int32), rng.normal(size=240)
    between = 0.5 * (seed == 1) * rng.normal(size=30)[codes]
    y = rng.poisson(np.exp(0.5 + 0.3 * x + between)).astype(np.float64)
    X = np.column_stack([np.ones(240), x])
    term = EngineTerm(codes, 30, np.ascontiguousarray(X[:, :columns]), 0)
    optimum = find_generalized_optimum(GeneralizedDesign([term], X, Response(y), Poisson()), nagq=7)
    assert optimum.singular
    assert optimum.converged
    assert optimum.certificate.holds
    assert optimum.null_score is not None
    assert optimum.null_score > 0.0
    assert np.isfinite(np.sqrt(np.diag(optimum.beta_covariance))).all()


def test_structured_covariance() -> None:
    arrays = design("contraception_slope")
    (term,) = arrays.terms
    terms = [EngineTerm(term.codes, term.n_levels, np.ascontiguousarray(term.z), 0)]
    made = GeneralizedDesign(
        terms,
        arrays.X,
        Response(arrays.y),
        Binomial(),
        structures=[CovarianceStructure("diag", 2, homogeneous=False)],
    )
    optimum = find_generalized_optimum(made, nagq=9)
    assert optimum.converged
    assert optimum.certificate.holds
    free = find_generalized_optimum(make_reference("contraception_slope"), nagq=9)
    here, T = optimum.evaluation, made.basis.relative_factor(0, optimum.T[0])
    sigma = T @ T.T
    assert sigma[0, 1] == pytest.approx(0.0, abs=1e-12)
    assert free.criterion < optimum.criterion
    for change in (np.diag([0.02, 0.0]), np.diag([0.0, 0.02]), np.diag([-0.01, -0.01])):
        root = made.basis.engine_factor(0, np.linalg.cholesky(sigma + change))
        there = evaluate_criterion(made, [root], here.beta, here.phi, nodes=9)
        assert there.criterion > optimum.criterion


def test_quadrature_of_a_family_with_a_parameter() -> None:
    case = make_case("one", NegativeBinomial(), 9)
    optimum = find_generalized_optimum(case.design, nagq=11)
    assert optimum.converged
    here = optimum.evaluation
    rng = np.random.default_rng(0)
    for _ in range(5):
        T = [own + 0.02 * rng.normal(size=own.shape) for own in here.T]
        beta = here.beta + 0.02 * rng.normal(size=len(here.beta))
        phi = here.phi + 0.02 * rng.normal()
        there = evaluate_criterion(case.design, T, beta, phi, nodes=11)
        assert there.criterion > optimum.criterion


def test_laplace_check() -> None:
    found = {name: find_generalized_optimum(make_reference(name)) for name in ("cbpp", "toenail")}
    good = found["cbpp"].laplace_check
    assert good is not None
    assert good.holds
    assert good.recommended == 1
    assert good.shift == pytest.approx(-0.0853, abs=1e-3)
    assert good.move == pytest.approx(0.029, abs=1e-3)
    assert str(good) == (
        "9-point quadrature changes -2 log L by -0.085 and estimates by 0.029 standard error: "
        "Laplace's approximation holds"
    )
    bad = found["toenail"].laplace_check
    assert bad is not None
    assert not bad.holds
    assert bad.laplace == found["toenail"].criterion
    assert bad.shift == pytest.approx(4.66, abs=0.01)
    assert str(bad).endswith(f"fit with nagq={bad.recommended}")
    # The recommended rule and a finer one agree there.
    assert bad.recommended is not None
    values = [
        adaptive_quadrature(found["toenail"].evaluation, k).criterion
        for k in (bad.recommended, bad.recommended + 40)
    ]
    assert abs(values[0] - values[1]) < 0.2
    assert isinstance(bad, LaplaceCheck)


def test_move_of_estimates() -> None:
    """To first order it is how far the optimum by the finer rule lies, in standard errors."""
    made = make_reference("schizophrenia_probit")
    laplace, finer = (find_generalized_optimum(made, nagq=nodes) for nodes in (1, 9))
    size = np.sqrt(np.diag(laplace.beta_covariance))
    of_beta = np.abs((finer.beta - laplace.beta) / size).max()
    variance = laplace.joint.covariance[0, 0]
    (E,) = laplace.joint.directions
    change = finer.T[0][0, 0] - laplace.T[0][0, 0]
    of_deviation = abs(2.0 * laplace.T[0][0, 0] * change) / (abs(E[0, 0]) * np.sqrt(variance))
    check = laplace.laplace_check
    assert check is not None
    assert check.move == pytest.approx(max(of_beta, of_deviation), rel=0.15)


def test_large_data_are_not_flagged_for_their_size() -> None:
    """Every level shifts -2 log L; the estimates hardly move."""
    rng, levels, rows = np.random.default_rng(5), 3_000, 12
    codes = np.repeat(np.arange(levels), rows).astype(np.int32)
    eta = 0.6 * rng.normal(size=levels)[codes]
    response = Response(rng.poisson(np.exp(eta)).astype(np.float64))
    term = EngineTerm(codes, levels, np.ones((len(codes), 1)), 0)
    made = GeneralizedDesign([term], np.ones((len(codes), 1)), response, Poisson())
    check = find_generalized_optimum(made).laplace_check
    assert check is not None
    assert abs(check.shift) > 3.0
    assert check.move < 0.25
    assert check.holds


def test_check_of_a_fit_by_quadrature() -> None:
    good = find_generalized_optimum(make_reference("toenail"), nagq=25).quadrature_check
    assert good is not None
    assert good.holds
    assert (good.nagq, good.nodes, good.recommended) == (25, 100, 25)
    assert str(good).startswith("100-point quadrature changes -2 log L by ")
    assert " and estimates by 0.019 standard error" in str(good)
    assert str(good).endswith(": 25 points are enough")
    assert find_generalized_optimum(make_reference("cbpp"), nagq=100).quadrature_check is None
    # Levels of successes only and failures only: the optimum by few points is none.
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(40), 4).astype(np.int32)
    y = (rng.uniform(size=40) < 0.4)[codes].astype(np.float64)
    term = EngineTerm(codes, 40, np.ones((160, 1)), 0)
    made = GeneralizedDesign([term], np.ones((160, 1)), Response(y), Binomial())
    bad = find_generalized_optimum(made, nagq=9).quadrature_check
    assert bad is not None
    assert not bad.holds
    assert bad.recommended is None
    assert "no number of points settles it" in str(bad)
    assert not find_generalized_optimum(made, nagq=9).certificate.holds
    by_laplace = find_generalized_optimum(made).laplace_check
    assert by_laplace is not None
    assert not by_laplace.holds


def test_what_quadrature_is_not_for() -> None:
    one, slopes = make_reference("cbpp"), make_case("slopes", Poisson(), 1).design
    for wrong in (0, -3, 2.0, True, "9"):
        with pytest.raises(ModelError, match="nagq must be a whole number from 1, not"):
            check_quadrature(one, wrong)  # type: ignore[arg-type]
    check_quadrature(one, 100)
    with pytest.raises(ModelError, match="nagq can be at most 100"):
        check_quadrature(one, 101)
    check_quadrature(slopes, 44)
    message = r"nagq=45 makes 2,025 quadrature points a level. .* at most 44\."
    with pytest.raises(ModelError, match=message):
        check_quadrature(slopes, 45)
    check_quadrature(make_case("three columns", Poisson(), 1).design, 12)
    crossed = make_reference("salamander")
    check_quadrature(crossed, 1)
    with pytest.raises(ModelError, match="one grouping factor; the formula has 2"):
        find_generalized_optimum(crossed, nagq=5)
    at = evaluate_laplace(crossed, [np.eye(1)] * 2, np.zeros(4), 0.0)
    assert laplace_check(at, crossed.parameterisation, np.ones(2)) is None
    z = np.random.default_rng(0).normal(size=(40, 4))
    codes = np.repeat(np.arange(8), 5).astype(np.int32)
    wide = GeneralizedDesign(
        [EngineTerm(codes, 8, z, 0)], np.ones((40, 1)), Response(np.ones(40)), Poisson()
    )
    with pytest.raises(ModelError, match="at most 3 random effects a level, and the formula has 4"):
        check_quadrature(wide, 2)
