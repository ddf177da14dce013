"""Generalized fits in the package marginaleffects, against `predict` and the delta method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mixedeffects as me

pytestmark = pytest.mark.filterwarnings("ignore:.*get_categories:DeprecationWarning")

CBPP = "incidence / size ~ period + (1 | herd)"


@pytest.fixture
def mfx() -> Any:
    return pytest.importorskip("marginaleffects")


def cbpp() -> me.GeneralizedLinearMixedModel:
    data = me.load_dataset("cbpp")
    return me.glmer(CBPP, data, family="binomial", weights="size")


def ticks(**options: Any) -> me.GeneralizedLinearMixedModel:
    data = me.load_dataset("grouseticks").assign(hours=lambda d: 1.0 + d["cHEIGHT"].rank() % 7)
    formula = "TICKS ~ YEAR * scale(cHEIGHT) + (scale(cHEIGHT) | BROOD)"
    return me.glmer(formula, data, family="poisson", **options)


def by_delta(f: Callable[[Any], Any], at: Any, vcov: Any) -> tuple[Any, Any]:
    """Values of a function of the coefficients and their errors, from central differences."""
    steps = 1e-5 * np.eye(len(at))
    J = np.column_stack([(f(at + h) - f(at - h)) / 2e-5 for h in steps])
    return f(at), np.sqrt(np.einsum("ij,jk,ik->i", J, vcov, J))


def test_means_are_those_of_predict(mfx: Any) -> None:
    m = cbpp()
    new = pd.DataFrame({"period": ["1", "2", "3", "4"]})
    found = mfx.predictions(m.marginaleffects(), newdata=new).to_pandas()
    own = m.predict(new, re=None, se=True)
    np.testing.assert_allclose(found["estimate"], own["estimate"], rtol=1e-12)
    np.testing.assert_allclose(found["std_error"], own["std_error"], rtol=1e-6)
    on_link = mfx.predictions(m.marginaleffects(type="link"), newdata=new).to_pandas()
    own = m.predict(new, re=None, se=True, type="link")
    np.testing.assert_allclose(on_link["estimate"], own["estimate"], rtol=1e-12)
    np.testing.assert_allclose(on_link["std_error"], own["std_error"], rtol=1e-6)
    robust = mfx.predictions(m.marginaleffects(vcov="CR1"), newdata=new).to_pandas()
    own = m.predict(new, re=None, se=True, vcov="CR1")
    np.testing.assert_allclose(robust["std_error"], own["std_error"], rtol=1e-6)


def test_comparisons_and_slopes_by_hand(mfx: Any) -> None:
    m = cbpp()
    beta, vcov = m.fixef.to_numpy(), m.vcov().to_numpy()

    def differences(b: Any) -> Any:
        p = 1.0 / (1.0 + np.exp(-(b[0] + np.r_[0.0, b[1:]])))
        return p[1:] - p[0]

    value, se = by_delta(differences, beta, vcov)
    found = mfx.avg_comparisons(m.marginaleffects(), variables="period").to_pandas()
    assert found["contrast"].tolist() == ["2 - 1", "3 - 1", "4 - 1"]
    np.testing.assert_allclose(found["estimate"], value, rtol=1e-9)
    np.testing.assert_allclose(found["std_error"], se, rtol=1e-5)

    m = ticks()
    height = me.load_dataset("grouseticks")["cHEIGHT"]
    step = 1e-3

    def slopes(b: Any) -> Any:
        # The mean slope over the rows; scale() keeps its centre and size.
        ends = []
        for sign in (1.0, -1.0):
            new = m.frame.data.assign(cHEIGHT=height + sign * step)
            X = m.frame.fixed_encoder.encode(new)[0]
            ends.append(np.exp(X @ b))
        return np.atleast_1d(np.mean(ends[0] - ends[1]) / (2.0 * step))

    value, se = by_delta(slopes, m.fixef.to_numpy(), m.vcov().to_numpy())
    found = mfx.avg_slopes(m.marginaleffects(), variables="cHEIGHT", eps_vcov=1e-4).to_pandas()
    assert found["estimate"][0] == pytest.approx(value[0], rel=1e-5)
    assert found["std_error"][0] == pytest.approx(se[0], rel=1e-3)


def test_exposure_and_offset(mfx: Any) -> None:
    m = ticks(exposure="hours")
    found = mfx.predictions(m.marginaleffects()).to_pandas()
    own = m.predict(re=None, se=True)
    np.testing.assert_allclose(found["estimate"], own["estimate"], rtol=1e-9)
    np.testing.assert_allclose(found["std_error"], own["std_error"], rtol=1e-5)
    by_hours = mfx.avg_comparisons(m.marginaleffects(), variables={"hours": [1.0, 2.0]})
    average = by_hours.to_pandas()["estimate"][0]
    typical = m.predict(m.frame.data.assign(hours=1.0), re=None).mean()
    assert average == pytest.approx(typical, rel=1e-9)
    m = me.glmer(
        "TICKS ~ YEAR + (1 | BROOD)",
        me.load_dataset("grouseticks"),
        family="poisson",
        offset=np.zeros(403),
    )
    with pytest.raises(me.ModelError, match="say nothing about new rows"):
        m.marginaleffects()


@pytest.mark.parametrize("model", [cbpp, ticks])
def test_population_averages_carry_the_errors_of_the_covariances(mfx: Any, model: Any) -> None:
    m = model()
    adapter = m.marginaleffects(marginal=True)
    new = m.frame.data.iloc[::20]
    found = mfx.predictions(adapter, newdata=new, eps_vcov=1e-5).to_pandas()
    own = m.predict(new, marginal=True, se=True)
    np.testing.assert_allclose(found["estimate"], own["estimate"], rtol=1e-10)
    np.testing.assert_allclose(found["std_error"], own["std_error"], rtol=1e-3)
    assert adapter.get_coefnames()[: len(m.fixef)].tolist() == list(m.fixef.index)
    (G,) = m.fit.G_blocks
    at = np.tril_indices(len(G))
    np.testing.assert_allclose(adapter.get_coef()[len(m.fixef) :], G[at], rtol=1e-10)


def test_comparisons_of_population_averages(mfx: Any) -> None:
    m = cbpp()
    adapter = m.marginaleffects(marginal=True)
    found = mfx.avg_comparisons(adapter, variables="period").to_pandas()
    nodes, weights = np.polynomial.hermite_e.hermegauss(61)

    def differences(at: Any) -> Any:
        eta = at[0] + np.r_[0.0, at[1:4]]
        p = 1.0 / (1.0 + np.exp(-(eta[:, None] + np.sqrt(at[4]) * nodes)))
        mean = p @ weights / weights.sum()
        return mean[1:] - mean[0]

    value, se = by_delta(differences, adapter.get_coef(), adapter.get_vcov())
    np.testing.assert_allclose(found["estimate"], value, rtol=1e-7)
    np.testing.assert_allclose(found["std_error"], se, rtol=1e-4)


def test_the_joint_covariance_is_that_of_the_likelihood(mfx: Any) -> None:
    m = cbpp()
    adapter = m.marginaleffects(marginal=True)
    at, step = adapter.get_coef(), 1e-3

    def loglik(x: Any) -> float:
        return m.loglik_at([np.sqrt(x[4])], beta=x[:4])

    unit = step * np.eye(5)
    H = np.empty((5, 5))
    for i in range(5):
        for j in range(5):
            ends = [
                a * b * loglik(at + a * unit[i] + b * unit[j]) for a in (1, -1) for b in (1, -1)
            ]
            H[i, j] = sum(ends) / (4.0 * step**2)
    np.testing.assert_allclose(adapter.get_vcov(), np.linalg.inv(-H), rtol=1e-3, atol=1e-5)


def test_what_it_does_not_take(mfx: Any) -> None:
    m = cbpp()
    with pytest.raises(me.ModelError, match="averages means, which are on the scale"):
        m.marginaleffects(marginal=True, type="link")
    with pytest.raises(me.ModelError, match="covariance of all parameters together"):
        m.marginaleffects(marginal=True, vcov="CR1")
    with pytest.raises(me.ModelError, match="covariance of all parameters together"):
        mfx.predictions(m.marginaleffects(marginal=True), vcov="CR0")
    with pytest.raises(me.ModelError, match="type"):
        m.marginaleffects(type="odds")  # type: ignore[arg-type]
