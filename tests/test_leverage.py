"""Leverages against lme4, and against the hat matrices written down from their definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.testing import assert_allclose

import mixedeffects as me
import mixedeffects.diagnostics.leverage
from design_models import model_of
from designs import Design, designs, make_design
from inference_references import FORMULAS, at_residual_reference, residual_reference
from references import fitted_model

fast = settings(max_examples=30, deadline=None)


@pytest.mark.parametrize("name", FORMULAS)
def test_lme4_and_the_gls_formula(name: str) -> None:
    m, r = at_residual_reference(name), residual_reference(name)
    n = len(r["hat_lme4"])
    assert_allclose(m.leverage().iloc[:n], r["hat_lme4"], rtol=1e-9)
    assert_allclose(m.leverage("fixed").iloc[:n], r["hat_gls_diag"], rtol=1e-9, atol=1e-13)


@fast
@given(design=designs)
def test_every_kind_is_the_diagonal_of_its_matrix(design: Design) -> None:
    m, dense = model_of(design)
    fixed, random = np.diag(dense.fixed_hat), np.diag(dense.random_hat)
    # inv(V) loses as many digits as its condition number has, of those that V has.
    V = dense.V
    rounding = np.abs(m.V.dense() - V).max() / np.abs(V).max()
    tolerance = (1e-13 + rounding) * np.linalg.cond(V) + 1e-9
    assert_allclose(m.leverage("fixed"), fixed, atol=tolerance)
    assert_allclose(m.leverage("random"), random, atol=tolerance)
    assert_allclose(m.leverage("total"), fixed + random, atol=tolerance)
    assert_allclose(m.leverage(), m.leverage("total"))
    assert (m.leverage().between(0.0, 1.0 + 1e-12)).all()


@fast
@given(design=designs)
def test_leverage_is_the_slope_of_the_fitted_value(design: Design) -> None:
    m, dense = model_of(design)
    hat = dense.fixed_hat + dense.random_hat
    tolerance = (1e-13 * np.linalg.cond(dense.V) + 1e-9) * np.abs(dense.y).max()
    assert_allclose(m.fitted, hat @ dense.y, atol=tolerance)


def test_chunks_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("deep nested with two crossed", "three crossed"):
        m, _ = model_of(make_design(kind, 3, weighted=True, singular=False))
        whole = m.leverage()
        monkeypatch.setattr(mixedeffects.diagnostics.leverage, "_CHUNK", 1.0)
        assert_allclose(m.leverage(), whole, rtol=1e-12)
        monkeypatch.undo()


def test_many_rows_and_crossed_factors() -> None:
    m = fitted_model("insteval")
    h = m.leverage()
    # The effective number of parameters lies between p and p + q.
    assert 2.0 < h.sum() < 2.0 + m.Z.shape[1]
    assert m.leverage("fixed").sum() == pytest.approx(2.0, rel=1e-9)
    # 1 - h = sigma^2 [V^-1 - S C S']_ii, by solving for a few rows.
    rows = [0, 1000, 73_420]
    unit = np.zeros((m.nobs, len(rows)))
    unit[rows, range(len(rows))] = 1.0
    S = m.V.solve(m.X)
    diagonal = m.V.solve(unit)[rows, range(len(rows))]
    projected = diagonal - np.einsum("ip,pq,iq->i", S[rows], m.vcov().to_numpy(), S[rows])
    assert_allclose(h.iloc[rows], 1.0 - m.sigma**2 * projected, rtol=1e-9)


def test_without_fixed_effects() -> None:
    m = me.lmer("Reaction ~ 0 + (1 | Subject)", me.load_dataset("sleepstudy"))
    assert (m.leverage("fixed") == 0.0).all()
    expected = np.diag((m.V.dense() - m.R.sparse()) @ np.linalg.inv(m.V.dense()))
    assert_allclose(m.leverage(), expected, rtol=1e-9)
    assert_allclose(m.leverage("random"), expected, rtol=1e-9)


def test_labels_and_errors() -> None:
    m = fitted_model("star_sample")
    h = m.leverage("random")
    assert h.index.equals(m.frame.index)
    assert h.name == "random leverage"
    with pytest.raises(me.ModelError, match="'total', 'fixed', 'random'"):
        m.leverage("hat")
