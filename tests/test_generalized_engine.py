"""The engine of generalized models: criterion, gradient, search and joint covariance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from mixedeffects.engine import EngineTerm
from mixedeffects.engine.generalized import (
    GeneralizedDesign,
    evaluate_laplace,
    find_generalized_optimum,
)
from mixedeffects.engine.generalized.information import logdet_hessian, penalised_hessian
from mixedeffects.engine.parameters import T_to_theta, symmetric_directions, theta_to_T
from mixedeffects.families import Binomial, Family, Poisson, Response

Matrix = NDArray[np.float64]

LAYOUTS = ("one", "slopes", "nested", "crossed", "three crossed", "several terms on a factor")
FAMILIES: dict[str, Family] = {
    "logit": Binomial(),
    "probit": Binomial("probit"),
    "cloglog": Binomial("cloglog"),
    "log": Poisson(),
    "sqrt": Poisson("sqrt"),
}


def _term(codes: NDArray[np.int64], grouping: int, *columns: Matrix) -> EngineTerm:
    z = np.ascontiguousarray(np.column_stack(columns))
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


def _case(layout: str, family: Family, seed: int, singular: bool = False) -> Case:
    rng, n = np.random.default_rng(seed), 120
    X = np.column_stack([np.ones(n), rng.normal(size=n), rng.normal(3.0, 1.0, size=n)])
    centre = 3.0 if family.link.name == "sqrt" else 0.5
    eta = centre + 0.3 * X[:, 1]
    trials = weights = None
    if family.name == "binomial":
        trials = rng.integers(1, 6, n).astype(np.float64)
        y = rng.binomial(trials.astype(np.int64), family.link.inverse(eta)) / trials
    else:
        y = rng.poisson(family.link.inverse(eta)).astype(np.float64)
        weights = rng.uniform(0.5, 2.0, n)
    response = Response(y, trials, weights)
    offset = 0.2 * rng.normal(size=n)
    design = GeneralizedDesign(_terms(layout, rng, n), X, response, family, offset=offset)
    T = [np.tril(0.4 * rng.normal(size=(k, k))) for k in design.term_columns]
    if singular:
        T[0][:, -1] = 0.0
        T[-1][:] = 0.0
    beta = np.linalg.solve(design.basis.fixed, [centre, 0.2, -0.05])
    return Case(design, T, beta, 0.0)


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
