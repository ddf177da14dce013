"""The log-likelihood at any parameters, against R and dense computation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.testing import assert_allclose

import mixedeffects as me
from design_models import DenseModel, model_of
from designs import Design, designs
from inference_references import FORMULAS, at_residual_reference, residual_reference
from references import fitted_model

fast = settings(max_examples=30, deadline=None)


@pytest.mark.parametrize("name", FORMULAS)
def test_likelihoods_at_the_parameters_of_R(name: str) -> None:
    m, r = at_residual_reference(name), residual_reference(name)
    for reml, key in ((False, "loglik_ML_at_theta"), (True, "loglik_REML_at_theta")):
        assert_allclose(m.loglik_at(r["theta"], r["sigma"], reml=reml), r[key], rtol=1e-10)
    # R's sigma is the maximiser of the restricted likelihood at R's theta.
    assert_allclose(m.loglik_at(r["theta"]), r["loglik_REML_at_theta"], rtol=1e-10)


def dense_loglik(dense: DenseModel, reml: bool) -> float:
    n, p = dense.X.shape
    residual = dense.y - dense.fixed_hat @ dense.y
    value = np.linalg.slogdet(dense.V)[1] + residual @ np.linalg.solve(dense.V, residual)
    if reml:
        value += np.linalg.slogdet(dense.X.T @ np.linalg.solve(dense.V, dense.X))[1]
    return float(-0.5 * (value + (n - p if reml else n) * np.log(2 * np.pi)))


@fast
@given(design=designs)
def test_equals_the_dense_computation(design: Design) -> None:
    m, dense = model_of(design)
    for reml in (False, True):
        expected = dense_loglik(dense, reml)
        assert m.loglik_at(m.theta, m.sigma, reml) == pytest.approx(expected, rel=1e-8, abs=1e-5)
        wider = DenseModel(4.0 * dense.V, 4.0 * dense.R, dense.X, dense.y)
        expected = dense_loglik(wider, reml)
        ours = m.loglik_at(m.theta, 2.0 * m.sigma, reml)
        assert ours == pytest.approx(expected, rel=1e-8, abs=1e-5)


@pytest.mark.parametrize("name", ["sleepstudy", "sleepstudy_ml", "star_sample", "insteval"])
def test_at_the_estimates_it_is_the_models_own(name: str) -> None:
    m = fitted_model(name)
    assert m.loglik_at(m.theta) == pytest.approx(m.loglik, abs=1e-8)
    assert m.loglik_at(m.theta, m.sigma) == pytest.approx(m.loglik, abs=1e-8)
    assert m.loglik_at(m.theta + 0.05) < m.loglik
    for factor in (0.99, 1.01):
        assert m.loglik_at(m.theta, factor * m.sigma) < m.loglik


def test_ml_of_a_reml_fit_is_below_the_ml_maximum() -> None:
    reml, ml = fitted_model("sleepstudy"), fitted_model("sleepstudy_ml")
    assert reml.loglik_at(ml.theta, reml=False) == pytest.approx(ml.loglik, abs=1e-9)
    assert reml.loglik_at(reml.theta, reml=False) < ml.loglik


def test_offset_and_weights() -> None:
    data = me.load_dataset("sleepstudy").assign(w=np.arange(1.0, 181.0), o=np.arange(180.0))
    m = me.lmer("Reaction ~ Days + (1 | Subject)", data, weights="w", offset="o")
    residual = m.resid("marginal").to_numpy()
    by_hand = -0.5 * (180 * np.log(2 * np.pi) + m.V.logdet() + m.V.quad(residual))
    assert m.loglik_at(m.theta, m.sigma, reml=False) == pytest.approx(by_hand, rel=1e-10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"theta": [1.0]}, "3 finite numbers"),
        ({"theta": [1.0, np.nan, 1.0]}, "3 finite numbers"),
        ({"theta": "abc"}, "theta must be numbers"),
        ({"theta": [1, 0, 1], "sigma": 0.0}, "sigma must be a positive number, not 0.0"),
        ({"theta": [1, 0, 1], "sigma": np.inf}, "sigma must be a positive number"),
        ({"theta": [1, 0, 1], "sigma": "x"}, "sigma must be a positive number"),
        ({"theta": [1, 0, 1], "reml": "yes"}, "reml must be True or False"),
        ({"theta": [1e200, 0, 1]}, "too far from zero"),
    ],
)
def test_errors(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(me.ModelError, match=message):
        fitted_model("sleepstudy").loglik_at(**arguments)  # type: ignore[arg-type]
