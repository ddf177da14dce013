"""Residuals of every kind against R and against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.testing import assert_allclose

import mixedeffects as me
from design_models import model_of
from designs import Design, designs
from inference_references import FORMULAS, at_residual_reference, residual_reference
from mixedeffects.diagnostics.residuals import RESIDUAL_KINDS
from references import fitted_model

fast = settings(max_examples=30, deadline=None)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("response", "resid_conditional"),
        ("marginal", "resid_marginal"),
        ("cholesky", "resid_whitened_chol"),
        ("symmetric", "resid_whitened_sym"),
    ],
)
def test_residuals_are_those_of_R(name: str, kind: str, key: str) -> None:
    m, expected = at_residual_reference(name), np.array(residual_reference(name)[key])
    ours = m.resid(kind).to_numpy()[: len(expected)]
    assert_allclose(ours, expected, rtol=1e-8, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("name", FORMULAS)
def test_studentized_residuals_from_those_of_R(name: str) -> None:
    m, r = at_residual_reference(name), residual_reference(name)
    expected = np.array(r["resid_conditional"]) / (
        r["sigma"] * np.sqrt(1 - np.array(r["hat_lme4"]))
    )
    assert_allclose(m.resid("studentized").to_numpy()[: len(expected)], expected, rtol=1e-8)


@fast
@given(design=designs)
def test_definitions(design: Design) -> None:
    m, dense = model_of(design)
    n = len(dense.y)
    size = np.abs(dense.y).max()
    tolerance = (1e-13 * np.linalg.cond(dense.V) + 1e-9) * size
    marginal = dense.y - dense.fixed_hat @ dense.y
    conditional = dense.R @ np.linalg.solve(dense.V, marginal)
    sd = np.sqrt(np.diag(dense.R))
    assert_allclose(m.resid("marginal"), marginal, atol=tolerance)
    assert_allclose(m.resid("response"), conditional, atol=tolerance)
    assert_allclose(m.resid("pearson"), conditional / sd * m.sigma, atol=50 * tolerance)
    assert_allclose(m.resid("scaled"), conditional / sd, atol=50 * tolerance / m.sigma)
    # Var(conditional residual) = R P R, with P = V^-1 (I - fixed_hat).
    P = dense.V_inverse @ (np.eye(n) - dense.fixed_hat)
    variance = np.diag(dense.R @ P @ dense.R)
    kept = variance > 1e-6 * np.diag(dense.R)
    studentized = m.resid("studentized").to_numpy()
    assert_allclose(
        studentized[kept], (conditional / np.sqrt(variance))[kept], rtol=1e-4, atol=1e-4
    )


@fast
@given(design=designs)
def test_whitened_residuals(design: Design) -> None:
    m, dense = model_of(design)
    marginal = m.resid("marginal").to_numpy()
    distance = marginal @ np.linalg.solve(dense.V, marginal)
    for kind in ("cholesky", "symmetric"):
        white = m.resid(kind).to_numpy()
        assert white @ white == pytest.approx(distance, rel=1e-6)


def test_a_row_with_leverage_one_has_no_studentized_residual() -> None:
    data = me.load_dataset("sleepstudy")
    data["first"] = np.eye(180)[0]
    m = me.lmer("Reaction ~ Days + first + (1 | Subject)", data)
    studentized = m.resid("studentized")
    assert np.isnan(studentized[0])
    assert studentized.iloc[1:].notna().all()
    assert m.resid("response")[0] == pytest.approx(0.0, abs=1e-8)


def test_every_kind_is_labelled_and_unknown_ones_are_refused() -> None:
    m = fitted_model("star_sample")
    for kind in RESIDUAL_KINDS:
        residuals = m.resid(kind)
        assert residuals.index.equals(m.frame.index)
        assert residuals.name == f"{kind} residual"
    with pytest.raises(me.ModelError, match="'studentized'"):
        m.resid("student")
