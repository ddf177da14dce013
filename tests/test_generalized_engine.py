"""The engine of generalized models: criterion, gradient, search and joint covariance."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import mixedeffects as me
from extended_precision import laplace_minimum
from generalized_references import MODELS, design, laplace_optimum, reference
from mixedeffects.engine import EngineTerm
from mixedeffects.engine.factorisation import Factorisation
from mixedeffects.engine.generalized import (
    GeneralizedDesign,
    evaluate_laplace,
    find_generalized_optimum,
)
from mixedeffects.engine.generalized.information import logdet_hessian, penalised_hessian
from mixedeffects.engine.generalized.mode import find_mode
from mixedeffects.engine.parameters import T_to_theta, symmetric_directions, theta_to_T
from mixedeffects.engine.remainder import SparseRemainder
from mixedeffects.engine.structures import CovarianceStructure
from mixedeffects.families import (
    Beta,
    Binomial,
    Family,
    Gamma,
    Gaussian,
    InverseGaussian,
    NegativeBinomial,
    Poisson,
    Response,
    RowTerms,
)

Matrix = NDArray[np.float64]

LAYOUTS = ("one", "slopes", "nested", "crossed", "three crossed", "several terms on a factor")
FAMILIES: dict[str, Family] = {
    "logit": Binomial(),
    "probit": Binomial("probit"),
    "cloglog": Binomial("cloglog"),
    "log": Poisson(),
    "sqrt": Poisson("sqrt"),
}
#: Families with a parameter, and a value of it.
WITH_PARAMETER: dict[str, tuple[Family, float]] = {
    "negative binomial": (NegativeBinomial(), 2.0),
    "gamma": (Gamma(), 0.4),
    "inverse Gaussian": (InverseGaussian(), 0.2),
    "beta": (Beta(), 10.0),
}


def _term(codes: NDArray[np.int64], grouping: int, *columns: Matrix) -> EngineTerm:
    z = np.ascontiguousarray(np.column_stack(columns))
    _, codes = np.unique(codes, return_inverse=True)
    return EngineTerm(codes.astype(np.int32), int(codes.max()) + 1, z, grouping)


def _terms(layout: str, rng: np.random.Generator, n: int) -> list[EngineTerm]:
    a, one = np.concatenate([np.arange(12), rng.integers(0, 12, n - 12)]), np.ones(n)
    x = rng.normal(size=n)
    b, c, above = rng.integers(0, 7, n), rng.integers(0, 5, n), a // 3
    return {
        "one": [_term(a, 0, one)],
        "slopes": [_term(a, 0, one, x)],
        "nested": [_term(a, 0, one, x), _term(above, 1, one)],
        "crossed": [_term(a, 0, one), _term(b, 1, one, x)],
        "three crossed": [_term(a, 0, one), _term(b, 1, one, x), _term(c, 2, one)],
        "several terms on a factor": [
            _term(a, 0, one),
            _term(a, 0, x),
            _term(above, 1, one),
            _term(b, 2, one),
            _term(c, 3, one),
        ],
    }[layout]


@dataclass
class Case:
    """A design with parameters."""

    design: GeneralizedDesign
    T: list[Matrix]
    beta: Matrix
    phi: float

    def criterion(self, T: list[Matrix], beta: Matrix, phi: float) -> float:
        return evaluate_laplace(self.design, T, beta, phi).criterion


def _case(
    layout: str, family: Family, seed: int, singular: bool = False, parameter: float | None = None
) -> Case:
    rng, n = np.random.default_rng(seed), 120
    X = np.column_stack([np.ones(n), rng.normal(size=n), rng.normal(3.0, 1.0, size=n)])
    centre = 3.0 if family.link.name == "sqrt" else 0.5
    eta = centre + 0.3 * X[:, 1]
    trials = weights = None
    if family.name == "binomial":
        trials = rng.integers(1, 6, n).astype(np.float64)
        y = rng.binomial(trials.astype(np.int64), family.link.inverse(eta)) / trials
    else:
        mu, weights = family.link.inverse(eta), rng.uniform(0.5, 2.0, n)
        phi = None if parameter is None else float(family.search(parameter))
        y = family.simulate(rng, mu, Response(mu), phi)
    response = Response(y, trials, weights)
    offset = 0.2 * rng.normal(size=n)
    design = GeneralizedDesign(_terms(layout, rng, n), X, response, family, offset=offset)
    T = [np.tril(0.4 * rng.normal(size=(k, k))) for k in design.term_columns]
    if singular:
        T[0][:, -1] = 0.0
        T[-1][:] = 0.0
    beta = np.linalg.solve(design.basis.fixed, [centre, 0.2, -0.05])
    phi = 0.0 if parameter is None else float(family.search(parameter))
    return Case(design, T, beta, phi)


def _brute_force(case: Case) -> float:
    """The Laplace criterion from dense matrices, Z Lambda written out."""
    design, columns = case.design, []
    for term, z, T in zip(design.terms, design.z, case.T, strict=True):
        wide = np.zeros((design.n, term.n_levels, z.shape[1]))
        wide[np.arange(design.n), term.codes] = z
        columns.append((wide @ T).reshape(design.n, -1))
    Z = np.hstack(columns)
    linear = design.X @ case.beta + design.offset
    u = np.zeros(Z.shape[1])

    def f(u: Matrix) -> float:
        return float(design.rows(linear + Z @ u, case.phi).d.sum() + u @ u)

    for _ in range(100):
        rows = design.rows(linear + Z @ u, case.phi)
        M = Z.T @ (rows.W[:, None] * Z) + np.eye(len(u))
        step = np.linalg.solve(M, Z.T @ rows.r - u)
        size = 1.0
        while f(u + size * step) > f(u) + 1e-10 and size > 1e-8:
            size /= 2
        u = u + size * step
        if np.abs(step).max() < 1e-12:
            break
    rows = design.rows(linear + Z @ u, case.phi)
    M = Z.T @ (rows.W[:, None] * Z) + np.eye(len(u))
    return f(u) + float(np.linalg.slogdet(M)[1])


def _cases() -> Iterator[tuple[str, str, bool]]:
    for layout in LAYOUTS:
        for name in FAMILIES:
            for singular in (False, True):
                yield layout, name, singular


@pytest.mark.parametrize(("layout", "name", "singular"), list(_cases()))
def test_criterion_and_gradient(layout: str, name: str, singular: bool) -> None:
    """The criterion is that of dense matrices; its gradient that of central differences."""
    case = _case(layout, FAMILIES[name], 7, singular)
    design = case.design
    here = evaluate_laplace(design, case.T, case.beta, case.phi)
    assert here.criterion == pytest.approx(_brute_force(case), abs=1e-8)
    theta, step = T_to_theta(case.T), 1e-5
    analytic = T_to_theta([2.0 * F @ T for F, T in zip(here.score, case.T, strict=True)])
    numeric = np.empty_like(theta)
    for j in range(len(theta)):
        ends = []
        for sign in (1.0, -1.0):
            moved = theta.copy()
            moved[j] += sign * step
            ends.append(case.criterion(theta_to_T(moved, design.term_columns), case.beta, case.phi))
        numeric[j] = (ends[0] - ends[1]) / (2 * step)
    of_beta = np.empty(design.p)
    for j, way in enumerate(np.eye(design.p)):
        ends = [case.criterion(case.T, case.beta + s * step * way, case.phi) for s in (1.0, -1.0)]
        of_beta[j] = (ends[0] - ends[1]) / (2 * step)
    size = np.abs(np.concatenate([numeric, of_beta])).max()
    np.testing.assert_allclose(analytic, numeric, atol=1e-6 * size)
    np.testing.assert_allclose(here.beta_gradient, of_beta, atol=1e-6 * size)


ALL_LINKS = [
    (kind, link)
    for kind in (Binomial, Poisson, NegativeBinomial, Gamma, InverseGaussian, Beta, Gaussian)
    for link in kind.links
]
#: Linear predictors around which all means are well inside their range; 0.3 elsewhere.
CENTRES = {
    ("binomial", "log"): -1.5,
    ("binomial", "identity"): 0.5,
    "identity": 6.0,
    "sqrt": 4.0,
    "inverse": 6.0,
    "1/mu^2": 6.0,
}


@pytest.mark.parametrize(("kind", "link"), ALL_LINKS)
def test_gradient_of_every_family_and_link(kind: type[Family], link: str) -> None:
    """Along a random direction, for all layouts, with weights, and where a covariance is zero."""
    family = kind(link)
    around = CENTRES.get((family.name, link), CENTRES.get(link, 0.3))
    small = 0.03 if (family.name, link) in CENTRES else 0.2
    for seed, (layout, singular) in enumerate(itertools.product(LAYOUTS, (False, True))):
        rng, n = np.random.default_rng(seed), 100
        X = np.column_stack([np.ones(n), rng.normal(size=n)])
        phi = 1.5 if family.has_parameter else 0.0
        trials = rng.integers(1, 5, n).astype(np.float64) if family.name == "binomial" else None
        mu = family.link.inverse(around + small * X[:, 1])
        weights = rng.uniform(0.5, 2.0, n) if seed % 2 else None
        response = Response(mu, trials, weights)
        y = family.simulate(rng, mu, response, phi if family.has_parameter else None)
        response = Response(y, trials, weights)
        made = GeneralizedDesign(_terms(layout, rng, n), X, response, family)
        T = [np.tril(small * rng.normal(size=(k, k))) for k in made.term_columns]
        if singular:
            T[-1][:] = 0.0
        beta = np.linalg.solve(made.basis.fixed, [around, small])
        here = evaluate_laplace(made, T, beta, phi)
        ways = [np.tril(rng.normal(size=own.shape)) for own in T]
        of_beta, of_phi = rng.normal(size=2), float(family.has_parameter)
        ends = []
        for step in (1e-5, -1e-5):
            moved = [own + step * way for own, way in zip(T, ways, strict=True)]
            there = evaluate_laplace(made, moved, beta + step * of_beta, phi + step * of_phi)
            ends.append(there.criterion)
        parts = [2.0 * F @ own for F, own in zip(here.score, T, strict=True)]
        analytic = here.phi_gradient * of_phi + float(here.beta_gradient @ of_beta)
        analytic += sum(float(np.vdot(part, way)) for part, way in zip(parts, ways, strict=True))
        size = sum(float(np.vdot(part, part)) for part in parts)
        size = np.sqrt(size + here.beta_gradient @ here.beta_gradient + here.phi_gradient**2)
        assert analytic == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-6 * max(size, 10.0))


def test_gradient_with_sparse_fronts() -> None:
    """Students, teachers and rooms within many schools: the remainder is eliminated in fronts."""
    made, rng = _sparse_design(), np.random.default_rng(8)
    assert made.skeleton.layout.fronts is not None
    T = [np.tril(0.4 * rng.normal(size=(k, k))) for k in made.term_columns]
    beta = np.array([0.1, 0.2])
    here = evaluate_laplace(made, T, beta, 0.0)
    ways = [np.tril(rng.normal(size=own.shape)) for own in T]
    of_beta = rng.normal(size=2)
    ends = []
    for step in (1e-5, -1e-5):
        moved = [own + step * way for own, way in zip(T, ways, strict=True)]
        ends.append(evaluate_laplace(made, moved, beta + step * of_beta, 0.0).criterion)
    analytic = float(here.beta_gradient @ of_beta)
    for F, own, way in zip(here.score, T, ways, strict=True):
        analytic += float(np.vdot(2.0 * F @ own, way))
    assert analytic == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6, abs=1e-4)


@pytest.mark.parametrize("layout", ["slopes", "crossed"])
@pytest.mark.parametrize("name", WITH_PARAMETER)
def test_gradient_in_the_family_parameter(layout: str, name: str) -> None:
    """By central differences, on the scale of the search."""
    family, parameter = WITH_PARAMETER[name]
    case = _case(layout, family, 17, parameter=parameter)
    here = evaluate_laplace(case.design, case.T, case.beta, case.phi)
    assert here.criterion == pytest.approx(_brute_force(case), abs=1e-8)
    ends = [case.criterion(case.T, case.beta, case.phi + s * 1e-5) for s in (1.0, -1.0)]
    assert here.phi_gradient == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_leverages_are_the_diagonal(layout: str) -> None:
    """H is the diagonal of Z P Z', P from a dense inverse."""
    case = _case(layout, FAMILIES["logit"], 3)
    design = case.design
    here = evaluate_laplace(design, case.T, case.beta, case.phi)
    columns = []
    for term, z, T in zip(design.terms, design.z, case.T, strict=True):
        wide = np.zeros((design.n, term.n_levels, z.shape[1]))
        wide[np.arange(design.n), term.codes] = z
        columns.append((wide @ T).reshape(design.n, -1))
    Z = np.hstack(columns)
    M = Z.T @ (here.rows.W[:, None] * Z) + np.eye(Z.shape[1])
    np.testing.assert_allclose(here.h, np.diag(Z @ np.linalg.solve(M, Z.T)), rtol=1e-9)


def test_modes_from_the_tangent_take_few_factorisations() -> None:
    """Close by the tangent leaves one Newton step, and the modes do not depend on the way there."""
    case = _case("crossed", FAMILIES["logit"], 5)
    here = evaluate_laplace(case.design, case.T, case.beta, case.phi)
    T = [1.001 * own for own in case.T]
    near = evaluate_laplace(case.design, T, case.beta + 1e-3, case.phi, near=here)
    afresh = evaluate_laplace(case.design, T, case.beta + 1e-3, case.phi)
    assert near.mode.factorisations <= 2 < afresh.mode.factorisations
    assert near.criterion == pytest.approx(afresh.criterion, abs=1e-9)


@pytest.mark.parametrize("layout", ["slopes", "crossed"])
def test_the_last_steps_to_the_modes_share_a_factorisation(
    layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are fewer factorisations than states, and the gradient at the modes is as small."""
    case, states = _case(layout, FAMILIES["logit"], 5), 0
    rows = GeneralizedDesign.rows

    def counted(self: GeneralizedDesign, *given: Any, **named: Any) -> RowTerms:
        nonlocal states
        states += 1
        return rows(self, *given, **named)

    monkeypatch.setattr(GeneralizedDesign, "rows", counted)
    mode = find_mode(case.design, case.T, case.design.X @ case.beta + case.design.offset, case.phi)
    assert 2 <= mode.factorisations < states
    for c, at_rows in zip(mode.c, case.design.sums(mode.rows.r), strict=True):
        np.testing.assert_allclose(c, at_rows, atol=1e-9)
    again = Factorisation(case.design.products(mode.rows.W), case.T)
    assert mode.factorisation.logdet_random == again.logdet_random


def _sparse_design() -> GeneralizedDesign:
    """Students, teachers with two columns and rooms, within many schools."""
    rng, schools, each = np.random.default_rng(8), 150, 24
    n = schools * each
    school = rng.permutation(np.repeat(np.arange(schools), each))
    x, one = rng.normal(size=n), np.ones(n)
    terms = [
        _term(school * 8 + rng.permutation(n) % 8, 0, one),
        _term(school * 4 + rng.permutation(n) % 4, 1, one, x),
        _term(school * 3 + rng.permutation(n) % 3, 2, one),
    ]
    y = rng.integers(0, 2, n).astype(np.float64)
    return GeneralizedDesign(terms, np.column_stack([one, x]), Response(y), Binomial())


def test_places_of_a_sparse_remainder_are_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other weights change the values alone, which are those of a design without places."""
    made, rng = _sparse_design(), np.random.default_rng(3)
    W, z = rng.uniform(0.1, 1.0, (2, made.n))
    made.products(W)
    made.working_products(W, z)
    with monkeypatch.context() as once:
        for module in ("assembly", "remainder"):
            once.setattr(f"mixedeffects.engine.{module}.find_places", None)
        once.setattr("mixedeffects.engine.assembly.SparseProducts", None)
        both = made.products(2.0 * W), made.working_products(2.0 * W, z)
        begun = [A.remainder.begin() for A in both]
    afresh = pickle.loads(pickle.dumps(made))
    afresh._assembly._repeated = False
    others = afresh.products(2.0 * W), afresh.working_products(2.0 * W, z)
    for one, other, own in zip(both, others, begun, strict=True):
        assert isinstance(one.remainder, SparseRemainder)
        assert isinstance(other.remainder, SparseRemainder)
        assert (one.remainder.places is not None) and (other.remainder.places is None)
        for a, b in zip(own, other.remainder.begin(), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)
        difference = one.remainder.random - other.remainder.random
        assert np.abs(difference.toarray()).max() < 1e-12
        stored = pickle.loads(pickle.dumps(one.remainder))
        assert stored.places is None
        for a, b in zip(own, stored.begin(), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["logit", "log"])
def test_search_ends_at_a_certified_optimum(layout: str, name: str) -> None:
    """The gradient vanishes there and every nearby point is higher."""
    case = _case(layout, FAMILIES[name], 11)
    optimum = find_generalized_optimum(case.design)
    assert optimum.converged
    assert optimum.relative_gradient < 1e-5
    here, rng = optimum.evaluation, np.random.default_rng(0)
    for _ in range(5):
        T = [own + 0.02 * np.tril(rng.normal(size=own.shape)) for own in here.T]
        beta = here.beta + 0.02 * rng.normal(size=len(here.beta))
        assert case.criterion(T, beta, here.phi) > optimum.criterion


@pytest.mark.parametrize("layout", ["one", "slopes"])
@pytest.mark.parametrize("name", FAMILIES)
def test_exact_hessian_with_one_factor(layout: str, name: str) -> None:
    """Second derivatives of D in Sigma and beta are differences of its gradient."""
    case = _case(layout, FAMILIES[name], 13)
    design, k, step = case.design, case.design.term_columns[0], 1e-5
    case.T[0] += 0.5 * np.eye(k)
    here = evaluate_laplace(design, case.T, case.beta, case.phi)
    (E,) = directions = [symmetric_directions(k)]
    H = penalised_hessian(here, directions) + logdet_hessian(here, directions)

    def gradient(x: Matrix) -> Matrix:
        T = np.linalg.cholesky(case.T[0] @ case.T[0].T + np.einsum("r,rab->ab", x[: len(E)], E))
        there = evaluate_laplace(design, [T], case.beta + x[len(E) :], case.phi, near=here)
        return np.concatenate([np.einsum("rab,ab->r", E, there.score[0]), there.beta_gradient])

    ways = step * np.eye(len(H))
    numeric = np.array([(gradient(way) - gradient(-way)) / (2 * step) for way in ways])
    np.testing.assert_allclose(H, numeric, atol=1e-5 * np.abs(H).max())


def _reference_design(name: str) -> GeneralizedDesign:
    made, model = design(name), MODELS[name]
    groups = list(dict.fromkeys(term.group for term in made.terms))
    terms = [
        EngineTerm(
            np.ascontiguousarray(term.codes, dtype=np.int32),
            term.n_levels,
            np.ascontiguousarray(term.z, dtype=np.float64),
            groups.index(term.group),
        )
        for term in made.terms
    ]
    kinds = {
        "binomial": me.families.Binomial,
        "poisson": me.families.Poisson,
        "negative_binomial": me.families.NegativeBinomial,
        "gamma": me.families.Gamma,
        "inverse_gaussian": me.families.InverseGaussian,
        "beta": me.families.Beta,
    }
    response = Response(made.y, made.trials)
    return GeneralizedDesign(
        terms, made.X, response, kinds[model.family](model.link), offset=made.offset
    )


#: Evaluations on the way, at the most, those of the start not counted.
EVALUATIONS = {"toenail": 9, "guimmun": 10, "beta_slope": 9}


@pytest.mark.parametrize("name", MODELS)
def test_reference(name: str) -> None:
    """R's optimum of the same criterion, standard errors from the joint Hessian included."""
    answer = reference(name)["laplace"]
    T, beta, shape = laplace_optimum(name)
    made, labels = _reference_design(name), [term.label for term in design(name).terms]
    optimum = find_generalized_optimum(made)
    assert optimum.certificate.holds, str(optimum.certificate)
    assert optimum.search_evaluations <= EVALUATIONS.get(name, 8)
    assert optimum.criterion <= answer["deviance"] + 1e-8
    assert optimum.criterion >= answer["deviance"] - 1e-8
    se = np.atleast_1d(answer["se"])
    if name == "toenail":
        # R stopped 3e-5 of a standard error short.
        least = laplace_minimum(name)
        beta, se, T = least.beta, least.se, {labels[0]: np.array([[least.theta]])}
    np.testing.assert_allclose((optimum.beta - beta) / se, 0.0, atol=1e-5)
    for t, label in enumerate(labels):
        own = made.basis.relative_factor(t, optimum.T[t])
        np.testing.assert_allclose(own, T[label], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.sqrt(np.diag(optimum.beta_covariance)), se, rtol=1e-4)
    if shape is not None:
        assert optimum.phi == pytest.approx(shape, abs=1e-5)
        assert optimum.phi_variance is not None
        if answer.get("se_log_shape"):
            found = np.sqrt(optimum.phi_variance)
            assert found == pytest.approx(answer["se_log_shape"], rel=1e-4)


@pytest.mark.parametrize("name", ["cbpp", "salamander", "epil"])
def test_expected_weights_are_lme4s(name: str) -> None:
    """For canonical links the same; elsewhere lme4's own criterion at its own optimum."""
    optimum = find_generalized_optimum(_reference_design(name))
    T = [optimum.design.basis.relative_factor(t, own) for t, own in enumerate(optimum.T)]
    for weights in ("observed", "expected"):
        value = optimum.criterion_at(T, optimum.beta, weights=weights)
        assert value == pytest.approx(optimum.criterion, abs=1e-8)


def test_expected_weights_with_a_probit_link() -> None:
    """Lme4's criterion, which has expected weights, at lme4's optimum of it."""
    name = "schizophrenia_probit"
    optimum = find_generalized_optimum(_reference_design(name))
    tight = reference(name)["lme4_tight"]
    T = [np.array([[tight["theta"]]])]
    value = optimum.criterion_at(T, np.array(tight["beta"]), weights="expected")
    assert value == pytest.approx(tight["deviance"], abs=1e-6)
    assert abs(optimum.criterion_at(T, np.array(tight["beta"])) - value) > 1.0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_joint_hessian_is_that_of_the_criterion(layout: str) -> None:
    """Its part in beta is a difference of gradients, whatever the layout."""
    case = _case(layout, FAMILIES["probit"], 19)
    optimum = find_generalized_optimum(case.design)
    here, joint, step = optimum.evaluation, optimum.joint, 1e-4
    H = joint.hessian[joint.fixed, joint.fixed]
    ways = step * np.eye(case.design.p)

    def gradient(move: Matrix) -> Matrix:
        return evaluate_laplace(case.design, here.T, here.beta + move, 0.0, near=here).beta_gradient

    numeric = np.array([(gradient(way) - gradient(-way)) / (2 * step) for way in ways])
    np.testing.assert_allclose(H, numeric, atol=1e-6 * np.abs(H).max())


def test_singular_directions_are_left_out_of_the_joint_hessian() -> None:
    """With no variance at all it is that of the generalized linear model."""
    rng, n = np.random.default_rng(4), 200
    X = np.column_stack([np.ones(n), rng.normal(size=n)])
    # Every level has the same responses: there is less than no variance between them.
    y = np.tile(np.repeat([0.0, 1.0], 5), 20)
    codes = np.repeat(np.arange(20), 10)
    terms = [_term(codes, 0, np.ones(n))]
    optimum = find_generalized_optimum(GeneralizedDesign(terms, X, Response(y), Binomial()))
    assert optimum.singular
    assert optimum.converged
    assert optimum.null_score is not None
    assert optimum.null_score > 0.0
    assert optimum.joint.n_covariance == 0
    np.testing.assert_allclose(optimum.T[0], 0.0)
    mu = 1.0 / (1.0 + np.exp(-X @ optimum.beta))
    information = X.T @ ((mu * (1.0 - mu))[:, None] * X)
    np.testing.assert_allclose(optimum.beta_covariance, np.linalg.inv(information), rtol=1e-6)
    assert optimum.certificate.holds


def test_two_columns_as_cs_or_free_are_one_model() -> None:
    """Compound symmetry of two columns, each with its deviation, is any covariance."""
    case = _case("slopes", FAMILIES["logit"], 23)
    free = find_generalized_optimum(case.design)
    structured = find_generalized_optimum(
        _with_structure(case, CovarianceStructure("cs", 2, False))
    )
    assert structured.criterion == pytest.approx(free.criterion, abs=1e-7)
    assert structured.n_parameters == free.n_parameters == 3


@pytest.mark.parametrize("seed", [1, 2])
def test_independent_columns_are_separate_terms(seed: int) -> None:
    """The structure diag and one term per column end at the same criterion."""
    rng, n = np.random.default_rng(seed), 600
    g, x = rng.integers(0, 30, n), rng.normal(size=n)
    X = np.column_stack([np.ones(n), x])
    eta = 0.2 + 0.4 * x + 0.7 * rng.normal(size=30)[g] + 0.5 * rng.normal(size=30)[g] * x
    response = Response(rng.binomial(1, 1.0 / (1.0 + np.exp(-eta))).astype(np.float64))
    one = np.ones(n)
    apart = [_term(g, 0, one), _term(g, 0, x)]
    together = [_term(g, 0, one, x)]
    first = find_generalized_optimum(GeneralizedDesign(apart, X, response, Binomial()))
    second = find_generalized_optimum(
        GeneralizedDesign(
            together, X, response, Binomial(), structures=[CovarianceStructure("diag", 2, False)]
        )
    )
    assert first.converged
    assert second.converged
    assert second.criterion == pytest.approx(first.criterion, abs=1e-7)
    size = np.abs(first.beta_covariance).max()
    np.testing.assert_allclose(second.beta_covariance, first.beta_covariance, atol=1e-5 * size)


@pytest.mark.parametrize("layout", ["one", "slopes", "crossed"])
def test_the_order_of_the_rows_does_not_matter(layout: str) -> None:
    """Rows are sorted by level for the search, and what it finds is in the order given."""
    design = _case(layout, FAMILIES["logit"], 31).design
    order = np.random.default_rng(3).permutation(design.n)
    mixed = GeneralizedDesign(
        [EngineTerm(t.codes[order], t.n_levels, t.z[order], t.grouping) for t in design.terms],
        (design.X @ np.linalg.inv(design.basis.fixed))[order],
        design.response.take(order),
        design.family,
        offset=design.offset[order],
    )
    assert mixed.by_level is not mixed
    one, other = find_generalized_optimum(design), find_generalized_optimum(mixed)
    assert other.evaluation.design is mixed
    np.testing.assert_allclose(other.criterion, one.criterion, rtol=1e-12)
    for name in ("eta", "h", "v_rows"):
        np.testing.assert_allclose(
            getattr(other.evaluation, name), getattr(one.evaluation, name)[order], atol=1e-7
        )
    np.testing.assert_allclose(other.evaluation.rows.r, one.evaluation.rows.r[order], atol=1e-7)
    np.testing.assert_allclose(other.beta_covariance, one.beta_covariance, rtol=1e-6)
    drawn = mixed.changed(response=design.response.take(order[::-1]))
    fresh = GeneralizedDesign(
        mixed.terms,
        mixed.X @ np.linalg.inv(mixed.basis.fixed),
        drawn.response,
        mixed.family,
        offset=mixed.offset,
    )
    np.testing.assert_allclose(
        find_generalized_optimum(drawn).criterion,
        find_generalized_optimum(fresh).criterion,
        rtol=1e-12,
    )


def _with_structure(case: Case, structure: CovarianceStructure) -> GeneralizedDesign:
    made = case.design
    Q = made.basis.fixed
    return GeneralizedDesign(
        made.terms,
        made.X @ np.linalg.inv(Q),
        made.response,
        made.family,
        offset=made.offset,
        structures=[structure],
    )


def test_working_model_has_the_scores() -> None:
    """With z = eta - offset + r / W, V^-1 (z - X beta) = r at the modes."""
    case = _case("crossed", FAMILIES["probit"], 29)
    here = find_generalized_optimum(case.design).evaluation
    left = here.working_response - case.design.X @ here.beta
    A = here.A.with_response(
        case.design.sums(here.working_weights * left),
        np.append(case.design.X.T @ (here.working_weights * left), here.working_weights @ left**2),
    )
    assert A.known_variance == 1.0
    solved, _ = here.factorisation.solve(
        [own[:, :, None] for own in case.design.sums(here.working_weights * left)],
        np.empty((0, 1)),
    )
    through = case.design.expand([own[:, :, 0] for own in solved])
    np.testing.assert_allclose(here.working_weights * (left - through), here.rows.r, atol=1e-8)


def test_a_start_without_a_criterion_is_shrunk() -> None:
    """Covariances so large that means leave their range are halved until they do not."""
    case = _case("one", FAMILIES["sqrt"], 31)
    far = find_generalized_optimum(
        case.design, start={"T": [np.array([[50.0]])], "beta": [3.0, 0.3, 0.0]}
    )
    near = find_generalized_optimum(case.design)
    assert far.criterion == pytest.approx(near.criterion, abs=1e-7)


def test_counts_without_overdispersion() -> None:
    """The negative binomial model of Poisson counts ends at the Poisson model and says so."""
    rng, n = np.random.default_rng(1), 300
    g, x = np.concatenate([np.arange(20), rng.integers(0, 20, n - 20)]), rng.normal(size=n)
    X, one = np.column_stack([np.ones(n), x]), np.ones(n)
    y = rng.poisson(np.exp(1.0 + 0.3 * x + 0.4 * rng.normal(size=20)[g])).astype(np.float64)
    poisson, negative = (
        find_generalized_optimum(GeneralizedDesign([_term(g, 0, one)], X, Response(y), family))
        for family in (Poisson(), NegativeBinomial())
    )
    assert negative.criterion == pytest.approx(poisson.criterion, abs=1e-6)
    np.testing.assert_allclose(negative.beta, poisson.beta, atol=1e-6)
    (limit,) = negative.limits
    assert "goes to infinity" in limit
    assert not negative.certificate.holds
    assert not poisson.limits


def test_an_optimum_survives_pickling() -> None:
    """And is no larger for what was computed from it."""
    optimum = find_generalized_optimum(_reference_design("salamander"))
    before = len(pickle.dumps(optimum))
    assert optimum.evaluation.factorisation.logdet_random > 0.0
    stored = pickle.dumps(optimum)
    again = pickle.loads(stored)
    assert len(stored) < 1.1 * before
    np.testing.assert_array_equal(again.beta_covariance, optimum.beta_covariance)
    solved = again.evaluation.factorisation.logdet_with_fixed
    assert solved == optimum.evaluation.factorisation.logdet_with_fixed


@pytest.mark.parametrize("size", [1e-6, 1e6])
@pytest.mark.parametrize(
    "family",
    [
        Gamma("identity"),
        Gamma("inverse"),
        InverseGaussian("inverse"),
        InverseGaussian("1/mu^2"),
        Gaussian("inverse"),
    ],
)
def test_the_unit_of_the_response_does_not_matter(family: Family, size: float) -> None:
    """Where the link is a power, a response in other units is fitted as well."""
    rng, n = np.random.default_rng(6), 160
    codes, x = np.repeat(np.arange(20), 8), rng.normal(size=n)
    X = np.column_stack([np.ones(n), x])
    mu = family.link.inverse(1.0 + 0.05 * x + 0.2 * rng.uniform(-1.0, 1.0, 20)[codes])
    y = mu * rng.gamma(100.0, 0.01, n)
    plain, other = (
        find_generalized_optimum(
            GeneralizedDesign([_term(codes, 0, np.ones(n), x)], X, Response(own), family)
        )
        for own in (y, size * y)
    )
    assert other.converged
    assert other.search_evaluations <= 2 * plain.search_evaluations + 2
    assert other.singular == plain.singular
    # The density of y in other units, and nothing else.
    shift = 2.0 * n * np.log(size)
    assert other.criterion - shift == pytest.approx(plain.criterion, abs=1e-6)
    ratio = other.beta / family.link.link(size)
    np.testing.assert_allclose(ratio, plain.beta, rtol=1e-5, atol=1e-6)
