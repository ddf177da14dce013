"""The engine with correlated residuals against dense algebra and differences."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import mixedeffects as me
from mixedeffects.engine import fronts, residual_sums
from mixedeffects.engine.parameters import symmetric_directions
from mixedeffects.engine.remainder import SparseRemainder
from mixedeffects.engine.residual_model import RangeCoordinate
from mixedeffects.engine.residual_objective import evaluate_residual
from mixedeffects.engine.residual_rows import ResidualRows, RowsAt
from mixedeffects.engine.residual_search import find_residual_optimum
from residual_designs import (
    KINDS,
    LAYOUTS,
    OPTIONS,
    dense_deviance,
    dense_S,
    dense_V0,
    dense_Z,
    draw_case,
    is_possible,
    some_parameters,
)

Matrix = NDArray[np.float64]

CASES = [pair for pair in itertools.product(KINDS, OPTIONS) if is_possible(*pair)]


def some_factors(rows: ResidualRows, seed: int) -> list[Matrix]:
    rng = np.random.default_rng(seed)
    return [np.tril(0.4 * rng.standard_normal((k, k))) + 0.6 * np.eye(k) for k in rows.term_columns]


@pytest.mark.parametrize(("kind", "options"), CASES)
@settings(max_examples=12)
@given(layout=st.sampled_from(LAYOUTS), seed=st.integers(0, 10_000), reml=st.booleans())
def test_deviance_and_score(kind: str, options: str, layout: str, seed: int, reml: bool) -> None:
    rows = draw_case(kind, layout, options, seed).rows
    phi, T = some_parameters(rows.model, seed), some_factors(rows, seed)
    S = dense_S(rows, phi)
    if np.linalg.cond(S) > 1e6:
        return
    here = evaluate_residual(rows, T, phi, reml)
    expected = dense_deviance(rows, T, phi, reml)
    assert here.deviance == pytest.approx(expected, abs=1e-9 * rows.n, rel=1e-9)
    U = rows.model.at(phi).U.toarray()
    assert np.abs(U @ S @ U.T - np.eye(rows.n)).max() < 1e-8
    step = 1e-5
    for j, score in enumerate(here.score):
        ahead, behind = phi.copy(), phi.copy()
        ahead[j] += step
        behind[j] -= step
        slope = dense_deviance(rows, T, ahead, reml) - dense_deviance(rows, T, behind, reml)
        assert score == pytest.approx(slope / (2.0 * step), rel=1e-5, abs=2e-4)


@pytest.mark.slow
def test_two_thousand_designs() -> None:
    """d to 1e-9 n and its gradient to 1e-6, for every structure, layout and criterion."""
    cases = itertools.cycle(itertools.product(CASES, LAYOUTS, (True, False)))
    looked_at, worst_deviance, worst_score = 0, 0.0, 0.0
    for seed, ((kind, options), layout, reml) in enumerate(cases):
        rows = draw_case(kind, layout, options, seed).rows
        phi, T = some_parameters(rows.model, seed), some_factors(rows, seed)
        if np.linalg.cond(dense_S(rows, phi)) > 1e6:
            continue
        here = evaluate_residual(rows, T, phi, reml)
        difference = abs(here.deviance - dense_deviance(rows, T, phi, reml))
        worst_deviance = max(worst_deviance, difference / rows.n)
        # Of order four, so that the differences are as exact as is asked.
        h = 1e-3
        slopes = np.zeros(len(phi))
        for j in range(len(phi)):
            for step, weight in ((1, 8.0), (-1, -8.0), (2, -1.0), (-2, 1.0)):
                moved = phi.copy()
                moved[j] += step * h
                slopes[j] += weight * evaluate_residual(rows, T, moved, reml).deviance
        slopes /= 12.0 * h
        size = max(1.0, float(np.abs(slopes).max(initial=0.0)))
        worst_score = max(worst_score, float(np.abs(here.score - slopes).max(initial=0.0)) / size)
        looked_at += 1
        if looked_at == 2_000:
            break
    assert worst_deviance < 1e-9
    assert worst_score < 1e-6


@pytest.mark.parametrize(("kind", "options"), CASES)
@settings(max_examples=12)
@given(layout=st.sampled_from(LAYOUTS), seed=st.integers(0, 10_000), reml=st.booleans())
def test_average_information(kind: str, options: str, layout: str, seed: int, reml: bool) -> None:
    """``y'P V_r P V_s P y / sigma^2`` for directions of Sigma, of phi, and of V itself."""
    rows = draw_case(kind, layout, options, seed).rows
    phi, T = some_parameters(rows.model, seed), some_factors(rows, seed)
    if np.linalg.cond(dense_S(rows, phi)) > 1e4:
        return
    here = evaluate_residual(rows, T, phi, reml)
    directions = [symmetric_directions(k) for k in rows.term_columns]
    V = dense_V0(rows, T, phi)
    changes = []
    for Z, term, own in zip(dense_Z(rows), rows.terms, directions, strict=True):
        changes += [Z @ np.kron(np.eye(term.n_levels), E) @ Z.T for E in own]
    step = 1e-5
    for j in range(len(phi)):
        ahead, behind = phi.copy(), phi.copy()
        ahead[j] += step
        behind[j] -= step
        changes.append((dense_S(rows, ahead) - dense_S(rows, behind)) / (2.0 * step))
    changes.append(V)
    X, y = rows.border[:, :-1], rows.border[:, -1]
    inverse = np.linalg.inv(V)
    P = inverse - inverse @ X @ np.linalg.solve(X.T @ inverse @ X, X.T @ inverse)
    middle = P if reml else inverse
    forms = np.array([change @ P @ y for change in changes])
    expected = forms @ middle @ forms.T / here.at_theta.sigma2
    found = here.unprofiled_information(directions)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("options", ["plain", "strata", "heterogeneous", "weights"])
@pytest.mark.parametrize("kind", ["ar1", "ante", "toep", "us", "cs"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_sums_are_the_same_as_rows(
    kind: str, layout: str, options: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where n is forgotten the deviance and its derivatives stay."""
    if not is_possible(kind, options):
        return
    monkeypatch.setattr(residual_sums, "_FEW_ROWS", 0)
    monkeypatch.setattr(residual_sums, "_MOST_STEPS", 99)
    rows = draw_case(kind, layout, options, 7).rows
    sums = rows.sums
    if layout and kind in ("toep", "us", "cs"):
        assert sums is None
        return
    assert sums is not None
    phi, T = some_parameters(rows.model, 3), some_factors(rows, 3)
    by_sums: Any = sums.at(phi)
    by_rows = RowsAt(rows, phi)
    assert by_sums.logdet == pytest.approx(by_rows.whitening.logdet, abs=1e-10)
    assert by_sums.logdet_gradient == pytest.approx(by_rows.logdet_gradient, abs=1e-9)
    pairs = [(by_sums.A, by_rows.A)]
    pairs += [(by_sums.derivative(j), by_rows.derivative(j)) for j in range(len(phi))]
    for one, other in pairs:
        size = np.abs(other.remainder.begin()[0]).max()
        assert one.remainder.begin()[0] == pytest.approx(
            other.remainder.begin()[0], abs=1e-9 * size
        )
        for ours, dense in zip(one.chain, other.chain, strict=True):
            assert ours.diag == pytest.approx(dense.diag, abs=1e-9 * size)
            assert ours.panel == pytest.approx(dense.panel, abs=1e-9 * size)
    here = evaluate_residual(rows, T, phi, True)
    modes, beta = here.modes, here.at_theta.factorisation.solution.beta
    assert by_sums.working_products(modes, beta) == pytest.approx(
        by_rows.working_products(modes, beta), rel=1e-8, abs=1e-8
    )


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("z", [-0.8, 0.3, 2.0, 6.0])
def test_derivatives_of_coordinates_of_a_range(power: int, z: float) -> None:
    at = RangeCoordinate(0, 1, 1.7, power)
    h = 1e-5
    for f in (at.coupling, lambda there: at.straight(0.8, there)):
        below, here, above = f(z - h), f(z), f(z + h)
        assert below is not None and here is not None and above is not None
        for j in range(2):
            difference = (above[j] - below[j]) / (2.0 * h)
            assert here[j + 1] == pytest.approx(difference, rel=1e-6, abs=1e-9)
    straight = at.straight(0.8, 0.8)
    assert straight is not None and straight[0] == pytest.approx(np.exp(0.8))
    assert at.straight(0.4, z) is None


def test_a_search_that_runs_into_a_correlation_of_one_ends() -> None:
    """There random effects cannot be searched for with S held; the end so far is the answer."""
    case = draw_case("ante", "gs", "heterogeneous", 74, 40)
    rng, rows = np.random.default_rng(74), case.rows
    phi = some_parameters(rows.model, 74)
    T = [np.tril(rng.uniform(0.2, 0.9, (k, k))) for k in rows.term_columns]
    y = np.empty(rows.n)
    y[rows.model.order] = np.linalg.cholesky(dense_V0(rows, T, phi)) @ rng.standard_normal(rows.n)
    drawn = ResidualRows(y, case.X, case.terms, case.design)
    optimum = find_residual_optimum(drawn, False)
    assert optimum.residual is not None
    assert np.abs(optimum.residual.phi[4:]).max() > 1.0 - 1e-4


@pytest.mark.parametrize("options", ["plain", "weights"])
@pytest.mark.parametrize("layout", [own for own in LAYOUTS if "i" in own])
def test_sums_are_the_same_as_rows_where_the_remainder_is_sparse(
    layout: str, options: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(residual_sums, "_FEW_ROWS", 0)
    monkeypatch.setattr(fronts, "DENSE_BELOW", 0)
    monkeypatch.setattr(fronts, "DENSEST", 2.0)
    monkeypatch.setattr(fronts, "COSTS", (0.0, 0.0, 0.0, 1.0))
    rows = draw_case("ar1", layout, options, 7).rows
    assert rows.sums is not None
    phi = some_parameters(rows.model, 3)
    one, other = rows.sums.at(phi).A, RowsAt(rows, phi).A
    assert isinstance(one.remainder, SparseRemainder)
    assert isinstance(other.remainder, SparseRemainder)
    difference = one.remainder.random - other.remainder.random
    assert np.abs(difference.toarray()).max() < 1e-9 * np.abs(other.remainder.random).max()
    assert one.remainder.border == pytest.approx(other.remainder.border, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("options", ["plain", "strata", "heterogeneous", "weights", "variance"])
@pytest.mark.parametrize("kind", ["ar1", "toep", "us", "cs"])
def test_sums_of_another_response(kind: str, options: str) -> None:
    """Only what has y in it is made again."""
    if not is_possible(kind, options):
        return
    rows = draw_case(kind, "", options, 7).rows
    first = rows.sums
    y = np.random.default_rng(1).standard_normal(rows.n)
    other = rows.with_response(y)
    if first is None:
        assert options == "variance"
        return
    assert isinstance(first, residual_sums.PatternSums)
    assert "sums" in vars(other) and other.sums is not first
    made = residual_sums.make_sums(other)
    assert isinstance(made, residual_sums.PatternSums)
    assert isinstance(other.sums, residual_sums.PatternSums)
    for found, expected in zip(other.sums.products, made.products, strict=True):
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("residual", ["diag(t | g)", "cs(t | g)", "cs(t | g, hom = FALSE)"])
def test_sums_where_a_time_repeats(residual: str) -> None:
    """Rows of one group at one time are two rows also where times are common ones."""
    rng = np.random.default_rng(2)
    data = pd.DataFrame({"g": np.repeat(np.arange(30), 6), "t": np.tile([0, 1, 1, 2, 2, 2], 30)})
    data["y"] = rng.standard_normal(180) + rng.standard_normal(30)[data["g"]]
    m = me.lmer("y ~ 1", data, residual=residual)
    V = m.V.dense()
    r = data["y"] - m.fixef.iloc[0]
    expected = np.linalg.slogdet(V)[1] + r @ np.linalg.solve(V, r) + 179 * np.log(2.0 * np.pi)
    expected += np.log(np.linalg.inv(V).sum())
    assert m.criterion == pytest.approx(expected, rel=1e-10)
