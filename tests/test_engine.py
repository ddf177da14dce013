"""The engine against dense linear algebra and finite differences."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from threadpoolctl import threadpool_info

from designs import KINDS, Design, designs, make_design
from mixedeffects import _kernels
from mixedeffects.engine import (
    Control,
    Factorisation,
    Progress,
    find_optimum,
    fronts,
    make_crossproducts,
)
from mixedeffects.engine.basis import lower_factor, make_basis, orthonormal_fixed
from mixedeffects.engine.objective import deviance, evaluate
from mixedeffects.engine.parameters import T_to_theta, lower_entries, n_parameters, theta_to_T
from mixedeffects.engine.responses import replace_response
from mixedeffects.engine.threads import one_blas_thread
from mixedeffects.engine.trust_region import secant_update

fast = settings(max_examples=40, deadline=None)


@pytest.fixture(
    scope="module",
    autouse=True,
    params=["dense remainder", "sparse remainder", "sparse remainder with a core"],
)
def remainder_layout(request: pytest.FixtureRequest):
    """Every test of this module, whatever the predicted work would choose for so few columns."""
    costs = {
        "sparse remainder": (0.0, 0.0, 0.0, 1.0),
        "sparse remainder with a core": (1.0, 0.0, 0.0, 0.02),
    }
    with pytest.MonkeyPatch.context() as patch:
        if request.param in costs:
            patch.setattr(fronts, "DENSE_BELOW", 0)
            patch.setattr(fronts, "DENSEST", 1.0)
            patch.setattr(fronts, "COSTS", costs[request.param])
        yield request.param


def engine(design: Design):
    A = make_crossproducts(design.y, design.X, design.terms, design.weights)
    T = [
        A.basis.engine_factor(t, factor)
        for t, factor in enumerate(theta_to_T(design.theta, design.columns))
    ]
    return A, T


@fast
@given(design=designs, reml=st.booleans())
def test_objective_equals_the_dense_one(design: Design, reml: bool) -> None:
    A, T = engine(design)
    ours = deviance(Factorisation(A, T), reml) + A.basis.deviance_offset(A.n, A.p, reml)
    assert ours == pytest.approx(design.deviance(design.theta, reml), rel=1e-9)


@fast
@given(design=designs, reml=st.booleans())
def test_gradient_equals_finite_differences(design: Design, reml: bool) -> None:
    A = make_crossproducts(design.y, design.X, design.terms, design.weights)
    theta, h = design.theta, 1e-5
    gradient = evaluate(A, theta_to_T(theta, A.term_columns), reml).gradient

    def at(x):
        return deviance(Factorisation(A, theta_to_T(x, A.term_columns)), reml)

    numeric = np.array(
        [(at(theta + h * e) - at(theta - h * e)) / (2 * h) for e in np.eye(len(theta))]
    )
    assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(numeric).max()))


@fast
@given(design=designs, reml=st.booleans())
def test_gradient_of_the_dense_objective(design: Design, reml: bool) -> None:
    """The same through the user's columns: nothing is lost on the way to the fitting basis."""
    A, T = engine(design)
    here = evaluate(A, T, reml)
    gradient = np.concatenate(
        [
            (np.sqrt(A.basis.weight_scale) * np.linalg.solve(C.T, g))[lower_entries(len(C))]
            for C, g in zip(A.basis.terms, here.gradient_T, strict=True)
        ]
    )
    h = 1e-5
    numeric = np.array(
        [
            (
                design.deviance(design.theta + h * e, reml)
                - design.deviance(design.theta - h * e, reml)
            )
            / (2 * h)
            for e in np.eye(len(design.theta))
        ]
    )
    assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-5 * max(1.0, np.abs(numeric).max()))


@fast
@given(design=designs)
def test_score_matrix_times_T_is_the_gradient(design: Design) -> None:
    A, T = engine(design)
    here = evaluate(A, T, True)
    for F, factor, gradient in zip(here.score, T, here.gradient_T, strict=True):
        assert_allclose(F, F.T, atol=1e-9 * np.abs(F).max())
        assert_allclose(2 * F @ factor, gradient, atol=1e-8 * max(1, np.abs(gradient).max()))


@fast
@given(design=designs, reml=st.booleans())
def test_average_information_from_its_definition(design: Design, reml: bool) -> None:
    A, _ = engine(design)
    star = design
    T = theta_to_T(design.theta, design.columns)
    here = evaluate(A, [A.basis.engine_factor(t, f) for t, f in enumerate(T)], reml)
    AI = here.information
    # Densely, in the engine's basis: y'P V_k P V_l P y / sigma^2 with sigma profiled out.
    _, y, X, z, w = make_basis(star.y, star.X, [t.z for t in star.terms], star.weights)
    n = len(y)
    V = np.eye(n) if w is None else np.diag(1 / w)
    directions = []
    T_star = [A.basis.engine_factor(t, f) for t, f in enumerate(T)]
    for term, columns, factor in zip(star.terms, z, T_star, strict=True):
        k = columns.shape[1]
        same = term.codes[:, None] == term.codes[None, :]
        V = V + np.where(same, columns @ factor @ factor.T @ columns.T, 0.0)
        for r, c in zip(*lower_entries(k), strict=True):
            E = np.zeros((k, k))
            E[r, c] = E[c, r] = 1.0
            directions.append(np.where(same, columns @ E @ columns.T, 0.0))
    P = np.linalg.inv(V)
    XPX = X.T @ P @ X
    full = P - P @ X @ np.linalg.solve(XPX, X.T @ P)
    df = n - X.shape[1] if reml else n
    Py = full @ y
    sigma2 = y @ Py / df
    middle = full if reml else P
    dense = (
        np.array([[Py @ Vk @ middle @ Vl @ Py for Vl in directions] for Vk in directions]) / sigma2
    )
    s = np.array([Py @ Vk @ Py for Vk in directions]) / sigma2
    dense -= np.outer(s, s) / df
    assert_allclose(AI, dense, rtol=1e-6, atol=1e-7 * np.abs(dense).max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("with_fixed", [True, False])
def test_selected_inverse_is_the_inverse(kind: str, with_fixed: bool) -> None:
    design = make_design(kind, 3, True, True)
    A, T = engine(design)
    factorisation = Factorisation(A, T)
    inverse = factorisation.selected_inverse(with_fixed=with_fixed, keep=True)
    _, _, X, z, w = make_basis(design.y, design.X, [t.z for t in design.terms], design.weights)
    w = np.ones(len(X)) if w is None else w
    n, starts, parts, scales = len(X), [], [], []
    for factor in A.factors:
        term0 = design.terms[factor.members[0].term]
        columns = np.hstack([z[m.term] for m in factor.members])
        Z = np.zeros((n, factor.n_levels * factor.k))
        for a in range(factor.k):
            Z[np.arange(n), term0.codes * factor.k + a] = columns[:, a]
        starts.append(sum(part.shape[1] for part in parts))
        parts.append(Z)
        block = factorisation.T[len(parts) - 1]
        scales.append(np.kron(np.eye(factor.n_levels), block))
    q = sum(part.shape[1] for part in parts)
    L = np.zeros((q + X.shape[1], q + X.shape[1]))
    for start, scale in zip(starts, scales, strict=True):
        L[start : start + len(scale), start : start + len(scale)] = scale
    L[q:, q:] = np.eye(X.shape[1])
    full = np.hstack([*parts, X])
    M = L.T @ full.T @ (w[:, None] * full) @ L
    M[:q, :q] += np.eye(q)
    size = q + X.shape[1] if with_fixed else q
    P = L[:size, :size] @ np.linalg.inv(M[:size, :size]) @ L[:size, :size].T
    for factor, start, blocks in zip(A.factors, starts, inverse.P, strict=True):
        for level in range(factor.n_levels):
            at = slice(start + level * factor.k, start + (level + 1) * factor.k)
            assert_allclose(blocks[level], P[at, at], rtol=1e-7, atol=1e-10)


@fast
@given(design=designs)
def test_solve_applies_P(design: Design) -> None:
    A, T = engine(design)
    factorisation = Factorisation(A, T)
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(f.n_levels, f.k, 2)) for f in A.factors]
    solved, fixed = factorisation.solve(x, np.zeros((0, 2)))
    assert fixed.shape == (0, 2)
    # (Sigma^-1 + A_ZZ) P x = x where T is regular: multiply back with M in the unscaled form.
    product, _ = A.multiply(solved, np.zeros((A.p + 1, 2)))
    for f, factor in enumerate(A.factors):
        sigma = factorisation.T[f] @ factorisation.T[f].T
        (
            assert_allclose(
                solved[f] + sigma @ product[f], sigma @ x[f], atol=1e-8 * (1 + np.abs(sigma).max())
            ),
            factor,
        )


@fast
@given(design=designs, reml=st.booleans())
def test_optimum_is_a_minimum_of_the_dense_objective(design: Design, reml: bool) -> None:
    A = make_crossproducts(design.y, design.X, design.terms, design.weights)
    optimum = find_optimum(A, reml)
    assert optimum.converged, optimum.message
    theta = T_to_theta([A.basis.relative_factor(t, T) for t, T in enumerate(optimum.T)])
    best = optimum.evaluation.deviance + A.basis.deviance_offset(A.n, A.p, reml)
    assert best == pytest.approx(design.deviance(theta, reml), rel=1e-9)
    rng = np.random.default_rng(1)
    for scale in (1e-3, 1e-2, 0.1, 1.0):
        for _ in range(3):
            moved = theta + scale * rng.normal(size=len(theta))
            assert design.deviance(moved, reml) >= best - 1e-7


@given(k=st.integers(1, 5), seed=st.integers(0, 1000))
def test_lower_factor_keeps_the_covariance(k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(k, k))
    if seed % 2:
        factor[:, -1] = 0.0
    T = lower_factor(factor)
    assert_allclose(T @ T.T, factor @ factor.T, atol=1e-12)
    assert (np.diag(T) >= 0).all()
    assert_allclose(T, np.tril(T))


@given(columns=st.lists(st.integers(1, 4), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_theta_round_trip(columns: list[int], seed: int) -> None:
    theta = np.random.default_rng(seed).normal(size=n_parameters(columns))
    assert_allclose(T_to_theta(theta_to_T(theta, columns)), theta)


def test_theta_is_column_by_column() -> None:
    (T,) = theta_to_T(np.arange(1.0, 7.0), [3])
    assert T.tolist() == [[1, 0, 0], [2, 4, 0], [3, 5, 6]]


@fast
@given(design=designs)
def test_replaced_response_gives_the_same_blocks(design: Design) -> None:
    old = make_crossproducts(design.y, design.X, design.terms, design.weights)
    y = 40.0 + 3.0 * np.random.default_rng(2).normal(size=len(design.y))
    new = replace_response(old, y, design.X, design.terms, design.weights)
    fresh = make_crossproducts(y, design.X, design.terms, design.weights)
    every = np.eye(fresh.r + fresh.p + 1)
    assert_allclose(new.remainder.multiply(every), fresh.remainder.multiply(every), atol=1e-9)
    for ours, theirs in zip(new.chain, fresh.chain, strict=True):
        assert_allclose(ours.panel, theirs.panel, atol=1e-9)
    assert_allclose(new.basis.beta0, fresh.basis.beta0, rtol=1e-9)
    assert new.basis.response_scale == pytest.approx(fresh.basis.response_scale)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_orthonormal_fixed_effects(scale: float) -> None:
    rng = np.random.default_rng(0)
    X = np.column_stack([np.ones(50), 1e6 + rng.normal(size=50), scale * rng.normal(size=50)])
    w = rng.uniform(0.1, 10, 50)
    star, steps, log_det = orthonormal_fixed(X, w)
    Q = functools.reduce(np.matmul, steps)
    assert_allclose(star.T @ (w[:, None] * star) / 50, np.eye(3), atol=1e-10)
    assert_allclose(X @ Q, star, atol=1e-6)
    assert log_det == pytest.approx(np.linalg.slogdet(Q)[1])


def test_trust_region_step_inside_on_and_hard_case() -> None:
    H, g = np.diag([1.0, 4.0]), np.array([1.0, 4.0])
    assert_allclose(_kernels.trust_region_step(g, H, 10.0), [-1.0, -1.0])
    step = _kernels.trust_region_step(g, H, 0.5)
    assert np.linalg.norm(step) == pytest.approx(0.5, rel=1e-5)
    angles = np.linspace(0, 2 * np.pi, 20001)
    circle = 0.5 * np.column_stack([np.cos(angles), np.sin(angles)])
    values = circle @ g + 0.5 * np.einsum("ij,jk,ik->i", circle, H, circle)
    assert g @ step + 0.5 * step @ H @ step <= values.min() + 1e-6
    hard = _kernels.trust_region_step(np.array([0.0, 1.0]), np.diag([-1.0, 1.0]), 2.0)
    assert np.linalg.norm(hard) == pytest.approx(2.0, rel=1e-5)
    assert abs(hard[0]) > 1.0


def test_secant_update_is_symmetric_and_fits_the_step() -> None:
    rng = np.random.default_rng(0)
    step, missing, start = rng.normal(size=4), rng.normal(size=4), np.diag([1.0, 2.0, 3.0, 4.0])
    # What the correction still misses after this step is what is added along it.
    updated = secant_update(start, missing, step)
    assert_allclose(updated, updated.T)
    assert_allclose((updated - start) @ step, missing)
    across = np.linalg.svd(step[None, :])[2][1:]
    assert_allclose(across @ (updated - start) @ across.T, 0.0, atol=1e-12)


def sigma_model(seed: int):
    """A model over terms of 2, 1 and 3 columns, as the arguments of the kernel."""
    rng = np.random.default_rng(seed)
    sizes = [2, 1, 3]
    m = n_parameters(sizes)
    root, half = rng.normal(size=(m, m)), rng.normal(size=(m, m))
    return (rng.normal(size=m), sizes, rng.normal(size=m), root @ root.T, half + half.T)


@given(seed=st.integers(0, 200))
def test_sigma_model_and_its_derivatives(seed: int) -> None:
    arguments = theta, sizes, score, information, correction = sigma_model(seed)
    step = np.random.default_rng(seed + 1).normal(size=len(theta))

    def value(s):
        change = T_to_theta(
            [
                new @ new.T - old @ old.T
                for new, old in zip(
                    theta_to_T(theta + s, sizes), theta_to_T(theta, sizes), strict=True
                )
            ]
        )
        return score @ change + 0.5 * change @ information @ change + 0.5 * s @ correction @ s

    ours, gradient, hessian = _kernels.sigma_model_at(*arguments, step)
    assert ours == pytest.approx(value(step))
    h = 1e-5
    basis = h * np.eye(len(theta))
    numeric = [(value(step + e) - value(step - e)) / (2 * h) for e in basis]
    assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-4)
    columns = [
        (
            _kernels.sigma_model_at(*arguments, step + e)[1]
            - _kernels.sigma_model_at(*arguments, step - e)[1]
        )
        / (2 * h)
        for e in basis
    ]
    assert_allclose(hessian, np.array(columns).T, rtol=1e-5, atol=1e-4)


@given(seed=st.integers(0, 200), radius=st.floats(1e-3, 10.0))
def test_minimised_model_is_lower_and_within_the_radius(seed: int, radius: float) -> None:
    arguments = sigma_model(seed)
    step, predicted = _kernels.minimise_sigma_model(*arguments, radius)
    assert np.linalg.norm(step) <= radius * (1 + 1e-9)
    assert predicted > 0
    assert _kernels.sigma_model_at(*arguments, step)[0] == pytest.approx(-predicted)


def test_minimised_model_follows_a_quartic() -> None:
    """x^4 - x^2 with x = T + step: minima at +-1/sqrt(2), and a start near the maximum between."""
    start = np.array([0.05])
    arguments = (start, [1], np.array([2 * 0.05**2 - 1]), np.array([[2.0]]), np.zeros((1, 1)))
    step, predicted = _kernels.minimise_sigma_model(*arguments, 100.0)
    assert abs(start + step)[0] == pytest.approx(np.sqrt(0.5), abs=0.02)
    assert predicted == pytest.approx(0.25 - 0.05**2 + 0.05**4, rel=0.02)
    assert abs(_kernels.minimise_sigma_model(*arguments, 0.1)[0][0]) <= 0.1 + 1e-12


def test_negative_curvature_near_the_boundary_does_not_stop_the_search() -> None:
    """The model's own minimisation once gave up here, far from the minimum."""
    design = make_design("three crossed", 254, weighted=True, singular=False)
    A = make_crossproducts(design.y, design.X, design.terms, design.weights)
    optimum = find_optimum(A, reml=False)
    assert optimum.converged, optimum.message
    assert optimum.evaluation.deviance + A.basis.deviance_offset(A.n, A.p, False) < 203.76168


def test_escape_from_a_start_at_zero_variance() -> None:
    """T = 0 is a stationary point; the certificate sees it and the fit leaves it."""
    design = make_design("one factor", 5, False, False)
    groups = design.terms[0].codes
    y = design.y + 3.0 * np.random.default_rng(0).normal(size=12)[groups]
    A = make_crossproducts(y, design.X, design.terms, None)
    ordinary = find_optimum(A, True)
    from_zero = find_optimum(A, True, start=[np.zeros((2, 2))])
    assert from_zero.evaluation.deviance == pytest.approx(ordinary.evaluation.deviance, abs=1e-7)
    assert from_zero.converged


@fast
@given(
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(["one factor", "five columns"]),
    weighted=st.booleans(),
    reml=st.booleans(),
)
def test_descent_in_the_kernels_is_the_one_in_python(
    seed: int, kind: str, weighted: bool, reml: bool
) -> None:
    design = make_design(kind, seed, weighted, False)
    A = make_crossproducts(design.y, design.X, design.terms, design.weights)
    lines: list[Progress] = []
    told = find_optimum(A, reml, progress=lines.append, further=False)
    alone = find_optimum(A, reml, further=False)
    # Along a nearly singular direction both creep, and stop a little before each other.
    slack = 2e-6 if told.singular else 1e-7
    assert alone.path[-1] == pytest.approx(told.path[-1], abs=slack)
    # Step by step the same, until rounding tells towards the end of a flat valley.
    first = min(5, len(told.path), len(alone.path))
    assert_allclose(alone.path[:first], told.path[:first], rtol=1e-9)
    if not told.singular:
        # One more evaluation tells that the descent is over.
        assert abs(alone.evaluations - told.evaluations - 1) <= 1


def test_too_few_evaluations_is_said() -> None:
    design = make_design("three crossed", 5, False, False)
    A = make_crossproducts(design.y, design.X, design.terms, None)
    optimum = find_optimum(A, True, control=Control(max_evaluations=2))
    assert not optimum.converged
    assert "2 evaluations" in optimum.message


def test_progress_reports_each_accepted_step() -> None:
    design = make_design("crossed", 5, False, False)
    A = make_crossproducts(design.y, design.X, design.terms, None)
    lines: list[Progress] = []
    optimum = find_optimum(A, True, progress=lines.append)
    assert [line.iteration for line in lines] == list(range(len(lines)))
    criteria = [line.criterion for line in lines]
    assert criteria == sorted(criteria, reverse=True)
    offset = A.basis.deviance_offset(A.n, A.p, True)
    assert criteria[-1] - offset == pytest.approx(optimum.evaluation.deviance, abs=1e-8)
    assert "criterion" in str(lines[0])


def test_nested_factors_stay_out_of_the_dense_remainder() -> None:
    design = make_design("nested three deep", 1, False, False)
    A = make_crossproducts(design.y, design.X, design.terms, None)
    assert (len(A.chain), len(A.rest), A.r) == (3, 0, 0)
    design = make_design("deep nested with two crossed", 1, False, False)
    A = make_crossproducts(design.y, design.X, design.terms, None)
    assert A.factors[0].members[0].term == 0
    assert A.q == 12 + 10 + 2 + 12 + 4


def test_kernels_group_rows() -> None:
    codes = np.array([2, 0, 2, 1, 0], dtype=np.int32)
    start, order = _kernels.rows_by_level(codes, 3)
    assert start.tolist() == [0, 2, 3, 5]
    assert order.tolist() == [1, 4, 3, 0, 2]
    parents = _kernels.nesting_parents(codes, 3, np.array([1, 0, 1, 1, 0], dtype=np.int32))
    assert parents.tolist() == [0, 1, 1]
    crossed = _kernels.nesting_parents(codes, 3, np.array([1, 0, 0, 1, 0], dtype=np.int32))
    assert len(crossed) == 0


def test_blas_is_held_to_one_thread() -> None:
    def blas() -> set[int]:
        return {
            library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"
        }

    before = blas()
    with one_blas_thread(100):
        assert blas() == {1}
    assert blas() == before


@pytest.mark.parametrize("n", [1, 127, 128, 300, 3_100])
def test_dense_factor_and_inverse(n: int) -> None:
    rng = np.random.default_rng(n)
    root = rng.normal(size=(n, 40))
    A = np.asfortranarray(root @ root.T + np.diag(rng.uniform(1.0, 2.0, n)))
    C = A.copy(order="F")
    _kernels.dense_cholesky(C)
    lower = np.tril(C)
    assert_allclose(lower @ lower.T, A, atol=1e-11 * n)
    size = max(n - 3, 1)
    inverse = np.empty((size, size), order="F")
    _kernels.dense_inverse(C, inverse)
    assert_allclose(inverse @ A[:size, :size], np.eye(size), atol=1e-10)
    assert_allclose(inverse, inverse.T)
    indefinite = np.asfortranarray(A - 1e6 * np.eye(n))
    with pytest.raises(RuntimeError, match="positive definite"):
        _kernels.dense_cholesky(indefinite)
