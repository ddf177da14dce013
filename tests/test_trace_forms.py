"""The exact traces of the second derivatives, against dense matrices and against differences."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

import mixedeffects as me
from mixedeffects import progress
from mixedeffects.engine import curvature
from mixedeffects.engine.parameters import symmetric_directions
from mixedeffects.engine.trace_forms import are_worth_forming, trace_forms

Matrix = NDArray[np.float64]

FORMULAS = [
    "y ~ x + (x | g)",
    "y ~ 0 + (1 | g)",
    "y ~ x + (x || g)",
    "y ~ x + (1 | g) + (1 | h)",
    "y ~ x + (x | g) + (x + z | h)",
    "y ~ x + (x | class) + (1 | school)",
    "y ~ x + (z | class) + (1 | school) + (x | h)",
    "y ~ 1 + (x | g) + (0 + z | g) + (1 | h)",
]


def data(seed: int, ratio: float = 1.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n = 160
    out = pd.DataFrame({"x": rng.normal(size=n), "z": rng.normal(size=n)})
    out["g"], out["h"] = rng.integers(0, 12, n), rng.integers(0, 7, n)
    out["class"] = rng.integers(0, 15, n)
    out["school"] = out["class"] // 3
    out["w"] = rng.uniform(0.3, 3.0, n)
    effects = sum(rng.normal(size=(20, 3))[out[group]] for group in ("g", "h", "class", "school"))
    columns = np.column_stack([np.ones(n), out["x"], out["z"]])
    out["y"] = 2.0 + ratio * (effects * columns).sum(axis=1) + rng.normal(size=n)
    return out


def fitted(formula: str, seed: int, *, reml: bool = True, ratio: float = 1.0):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return me.lmer(formula, data(seed, ratio), reml=reml, weights="w")


def dense_traces(m: me.LinearMixedModel, directions: list[Matrix]) -> Matrix:
    """From matrices with a row for each observation, in the engine's basis."""
    A, T = m.fit.crossproducts, m.optimum.T
    terms = m.frame.terms
    Z = []
    for t, term in enumerate(terms):
        z = A.basis.term_columns(t, term.z)
        Z.append(
            (np.eye(term.n_levels)[term.codes][:, :, None] * z[:, None, :]).reshape(len(z), -1)
        )

    def covariance(t: int, E: Matrix) -> Matrix:
        return Z[t] @ np.kron(np.eye(terms[t].n_levels), E) @ Z[t].T

    V = np.diag(A.basis.weight_scale / m.frame.weights)
    V = V + sum(covariance(t, own @ own.T) for t, own in enumerate(T))
    P = np.linalg.inv(V)
    if m.reml and A.p:
        X = A.basis.fixed_columns(m.frame.X)
        P = P - P @ X @ np.linalg.solve(X.T @ P @ X, X.T @ P)
    PK = [P @ covariance(t, E) for t, own in enumerate(directions) for E in own]
    return np.array([[np.sum(a * b.T) for a in PK] for b in PK])


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("formula", FORMULAS)
def test_traces_are_those_of_dense_matrices(formula: str, reml: bool) -> None:
    m = fitted(formula, 1, reml=reml)
    directions = [symmetric_directions(len(T)) for T in m.optimum.T]
    found = trace_forms(m.fit.factorisation, m.optimum.T, directions, reml)
    expected = dense_traces(m, directions)
    size = np.sqrt(np.diag(expected))
    assert_allclose(found / np.outer(size, size), expected / np.outer(size, size), atol=1e-11)


@pytest.mark.parametrize("formula", ["y ~ x + (x | g)", "y ~ x + (x | g) + (1 | h)"])
def test_either_way_of_adding_up_pairs_of_levels(
    formula: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few levels have their matrix formed, many do not."""
    from mixedeffects.engine import trace_forms as module

    m = fitted(formula, 2)
    directions = [symmetric_directions(len(T)) for T in m.optimum.T]
    both = []
    for formed in (True, False):
        monkeypatch.setattr(module, "_is_less_to_form", lambda *_, formed=formed: formed)
        both.append(trace_forms(m.fit.factorisation, m.optimum.T, directions, True))
    assert_allclose(both[0], both[1], rtol=1e-9, atol=1e-9 * np.abs(both[0]).max())


STRUCTURED = ["y ~ x + diag(x | g)", "y ~ x + cs(x + z | g) + (1 | h)"]


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("formula", [*FORMULAS, *STRUCTURED])
def test_the_hessian_is_that_of_differences(
    formula: str, reml: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    m = fitted(formula, 3, reml=reml)
    A, optimum = m.fit.crossproducts, m.optimum
    exact = curvature.observed_curvature(A, optimum, reml)
    monkeypatch.setattr(curvature, "are_worth_forming", lambda *_: False)
    differences = curvature.observed_curvature(A, optimum, reml)
    size = np.sqrt(np.abs(np.diag(differences.natural)) + differences.noise.max(initial=1e-6))
    assert_allclose(
        exact.natural / np.outer(size, size), differences.natural / np.outer(size, size), atol=2e-6
    )
    assert_allclose(exact.noise, differences.noise)


@pytest.mark.parametrize("ratio", [1e-3, 1.0, 1e2, 1e4])
def test_digits_where_effects_explain_little_or_most(ratio: float) -> None:
    """In natural directions the traces are their own scale; one level more is one more of each."""
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(30), 6)
    frame = pd.DataFrame({"g": g, "x": np.tile([-1.0, 0.0, 1.0], 60)})
    b = rng.normal(size=(30, 2)) * ratio
    frame["y"] = b[g, 0] + b[g, 1] * frame["x"] + rng.normal(size=180)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        m = me.lmer("y ~ x + (x | g)", frame)
    A = m.fit.crossproducts
    (T,) = m.optimum.T
    # Balanced: every level's block of Z'V^-1Z is the same, and fixed effects take one of 30.
    block = np.linalg.inv(np.linalg.inv(A.chain[0].diag[0]) + T @ T.T)
    E = symmetric_directions(2)
    found = trace_forms(m.fit.factorisation, m.optimum.T, [E], True)
    expected = 29.0 * np.array([[np.trace(a @ block @ b @ block) for a in E] for b in E])
    size = np.sqrt(np.diag(expected))
    assert_allclose(found / np.outer(size, size), expected / np.outer(size, size), atol=1e-8)


def test_large_designs_and_provisional_effects_keep_to_differences() -> None:
    assert are_worth_forming(fitted("y ~ x + (x | g)", 1).fit.crossproducts, True, 6)
    rng = np.random.default_rng(0)
    wide = pd.DataFrame({"g": rng.integers(0, 3000, 9000), "h": rng.integers(0, 2500, 9000)})
    wide["y"] = rng.normal(size=9000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        A = me.lmer("y ~ 1 + (1 | g) + (1 | h)", wide, control=me.Control(1e-2)).fit.crossproducts
    assert not are_worth_forming(A, True, 4)


def test_long_differences_tell_how_far_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[progress.Repetitions] = []
    monkeypatch.setattr(curvature, "are_worth_forming", lambda *_: False)
    monkeypatch.setattr(progress.Listener, "tell", lambda self, line, last=False: told.append(line))
    m = fitted("y ~ x + (x | g)", 1)
    told.clear()
    curvature.observed_curvature(m.fit.crossproducts, m.optimum, True)
    assert [(line.what, line.done, line.total) for line in told] == [
        ("second derivative", i, 3) for i in (1, 2, 3)
    ]
