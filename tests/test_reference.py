"""Every reference model against R's stored answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mixedeffects as me
from mixedeffects.engine.curvature import observed_curvature
from references import MODELS, fitted_model, model_at_reference, model_data, reference

ALL = sorted(MODELS)
WITH_V = [name for name in ALL if reference(name)["V"] is not None]


@pytest.mark.parametrize("name", ALL)
def test_criterion_is_reached_or_bettered(name: str) -> None:
    m, r = fitted_model(name), reference(name)
    assert m.criterion <= r["criterion"] + 1e-6
    assert m.criterion >= r["criterion"] - 1e-4, "far better than R: something else is fitted"
    assert m.loglik == pytest.approx(-m.criterion / 2)
    assert m.aic == pytest.approx(r["aic"], abs=2e-5)
    assert m.bic == pytest.approx(r["bic"], abs=2e-5)
    assert m.nobs == r["nobs"]
    assert m.is_singular == r["singular"]
    assert m.converged


@pytest.mark.parametrize("name", ALL)
def test_few_evaluations(name: str) -> None:
    assert fitted_model(name).optimum.search_evaluations <= 15


@pytest.mark.parametrize("name", ALL)
def test_certificate_holds(name: str) -> None:
    certificate = fitted_model(name).optimum.certificate
    assert certificate.holds, str(certificate)
    assert (certificate.null_score is None) == (not reference(name)["singular"])


# --- at R's own parameters everything agrees to rounding ----------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_same_criterion_at_the_stored_theta(name: str) -> None:
    m, r = fitted_model(name), reference(name)
    assert m.getme("devfun")(np.atleast_1d(r["theta"])) == pytest.approx(r["criterion"], abs=1e-8)


@pytest.mark.parametrize("name", ALL)
def test_fixed_effects_at_the_stored_theta(name: str) -> None:
    check_fixed_effects(model_at_reference(name), reference(name), 1e-7)


@pytest.mark.parametrize("name", ALL)
def test_variances_at_the_stored_theta(name: str) -> None:
    check_variances(model_at_reference(name), reference(name), 1e-7)


@pytest.mark.parametrize("name", ALL)
def test_satterthwaite_at_the_stored_theta(name: str) -> None:
    # R's Hessian is a numerical one.
    check_satterthwaite(model_at_reference(name), reference(name), 1e-3)


@pytest.mark.parametrize("name", ALL)
def test_conditional_modes_at_the_stored_theta(name: str) -> None:
    check_conditional_modes(model_at_reference(name), reference(name), 1e-6)


@pytest.mark.parametrize("name", ALL)
def test_fitted_and_residuals_at_the_stored_theta(name: str) -> None:
    check_fitted(model_at_reference(name), reference(name), 1e-7)


# --- at our optimum it agrees as far as R reached it ---------------------------------------------


def short_of_optimum(name: str) -> bool:
    """Whether R stopped measurably above the minimum, so that its estimates are off."""
    return bool(reference(name)["criterion"] > fitted_model(name).criterion + 1e-8)


@pytest.mark.parametrize("name", ALL)
def test_theta(name: str) -> None:
    m, r = fitted_model(name), reference(name)
    difference = m.theta - np.atleast_1d(r["theta"])
    if not short_of_optimum(name):
        assert np.abs(difference).max() < 1e-5
        return
    # No further from R's theta than R's excess deviance explains.
    excess = r["criterion"] - m.criterion
    curvature = observed_curvature(m.fit.crossproducts, m.optimum, m.reml, user=True)
    inner = np.flatnonzero(curvature.interior(m.fit.crossproducts))
    smallest = np.linalg.eigvalsh(curvature.profiled[np.ix_(inner, inner)])[0]
    assert np.linalg.norm(difference[inner]) < 1.1 * np.sqrt(2.0 * excess / smallest)
    assert np.abs(difference).max() < 1e-4 or excess > 1e-8


@pytest.mark.parametrize("name", ALL)
def test_estimates(name: str) -> None:
    m, r = fitted_model(name), reference(name)
    loose = 100.0 if short_of_optimum(name) else 1.0
    check_fixed_effects(m, r, 1e-5 * loose)
    check_variances(m, r, 1e-4 * loose)
    check_satterthwaite(m, r, 0.005)
    check_conditional_modes(m, r, 1e-4 * loose)
    check_fitted(m, r, 1e-5 * loose)


# --- what is compared -----------------------------------------------------------------------------


def check_fixed_effects(m: me.LinearMixedModel, r: dict[str, Any], tolerance: float) -> None:
    assert list(m.fixef.index) == list(np.atleast_1d(r["fixef_names"]))
    vcov = np.atleast_2d(r["vcov"])
    se = np.sqrt(np.diag(vcov))
    assert_allclose(m.se, se, rtol=tolerance)
    assert_allclose(m.fixef, np.atleast_1d(r["fixef"]), rtol=tolerance, atol=tolerance * se.min())
    scale = np.outer(se, se)
    assert_allclose(m.vcov().to_numpy() / scale, vcov / scale, atol=3 * tolerance)


def check_variances(m: me.LinearMixedModel, r: dict[str, Any], tolerance: float) -> None:
    assert m.sigma == pytest.approx(r["sigma"], rel=tolerance)
    assert list(m.getme("theta").index) == list(np.atleast_1d(r["theta_names"]))
    assert list(m.varcorr) == list(r["varcorr"])
    for label, block in r["varcorr"].items():
        scale = max(np.abs(block).max(), 1e-3)
        assert_allclose(m.varcorr[label], block, rtol=tolerance, atol=tolerance * scale)
    assert m.ngroups == r["ngroups"]


def check_satterthwaite(m: me.LinearMixedModel, r: dict[str, Any], tolerance: float) -> None:
    table = m.coef_table()
    assert list(table.columns[:5]) == r["coefficients"]["columns"]
    assert_allclose(table["df"], np.atleast_2d(r["coefficients"]["values"])[:, 2], rtol=tolerance)


def check_conditional_modes(m: me.LinearMixedModel, r: dict[str, Any], tolerance: float) -> None:
    ranef = m.ranef(cond_var=True)
    assert list(ranef) == list(r["ranef"])
    for group, stored in r["ranef"].items():
        values = np.atleast_2d(stored["values"])
        ours = ranef[group].iloc[: len(values)]
        assert list(ours.index) == [str(level) for level in stored["levels"]]
        scale = max(np.abs(values).max(), 1e-3)
        assert_allclose(ours, values, rtol=tolerance, atol=tolerance * scale)
        for i, variance in enumerate(stored["cond_var"]):
            if variance:
                size = max(np.abs(variance).max(), 1e-6)
                assert_allclose(
                    ranef.cond_var[group][i], variance, rtol=tolerance, atol=tolerance * size
                )


def check_fitted(m: me.LinearMixedModel, r: dict[str, Any], tolerance: float) -> None:
    scale = tolerance * m.sigma
    assert_allclose(m.fitted.to_numpy()[:10], r["fitted_head"], rtol=tolerance, atol=scale)
    assert_allclose(m.resid().to_numpy()[:10], r["resid_head"], atol=10 * scale)
    quantiles = np.quantile(m.resid("scaled"), [0, 0.25, 0.5, 0.75, 1])
    assert_allclose(quantiles, r["resid_scaled_quantiles"], atol=10 * tolerance)


# --- matrices -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_shape_of_Z(name: str) -> None:
    m, r = fitted_model(name), reference(name)
    assert list(m.Z.shape) == r["Z"]["dim"]
    assert m.Z.nnz == r["Z"]["nnz"]


@pytest.mark.parametrize("name", WITH_V)
def test_V_at_the_stored_parameters(name: str) -> None:
    """At R's parameters the facts about V agree to rounding."""
    m, r = fitted_model(name), reference(name)
    check_V(m.V.at(r["theta"], r["sigma"]), r["V"], 1e-9)


@pytest.mark.parametrize("name", WITH_V)
def test_V_at_the_optimum(name: str) -> None:
    """At our optimum they agree as far as the two optima do."""
    m, r = fitted_model(name), reference(name)
    same = np.allclose(m.theta, np.atleast_1d(r["theta"]), rtol=2e-7, atol=2e-7)
    check_V(m.V, r["V"], 1e-6 if same else 2e-4)


def check_V(V: me.MarginalCovariance, stored: dict[str, Any], tolerance: float) -> None:
    sparse = V.sparse()
    assert sparse.nnz == stored["nnz"]
    assert sparse.trace() == pytest.approx(stored["trace"], rel=tolerance)
    assert V.diag().sum() == pytest.approx(stored["trace"], rel=tolerance)
    assert sparse.sum() == pytest.approx(stored["sum"], rel=tolerance)
    assert V.logdet() == pytest.approx(stored["logdet"], rel=tolerance)
    block = np.asarray(stored["block"])
    assert_allclose(V.rows(np.arange(6)), block, rtol=tolerance, atol=tolerance * block.max())


@pytest.mark.parametrize("name", WITH_V)
def test_gls_from_V_gives_the_fixed_effects(name: str) -> None:
    m = fitted_model(name)
    beta = m.fixef.to_numpy()
    tolerance = {"rtol": 1e-9, "atol": 1e-9 * float(m.se.min())}
    assert_allclose(m.V.gls(m.X, m.y).coef, beta, **tolerance)
    assert_allclose(me.gls(m.X, m.y, m.V.sparse()).coef, beta, **tolerance)
    assert_allclose(m.V.gls(m.X, m.y).vcov, m.vcov(), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in ALL if name != "insteval"])
def test_shuffled_rows_change_nothing(name: str) -> None:
    m = fitted_model(name)
    formula, _, options = MODELS[name]
    shuffled = model_data(name).sample(frac=1.0, random_state=1)
    other = me.lmer(formula, shuffled, **options)
    assert other.criterion == pytest.approx(m.criterion, abs=1e-8)
    assert_allclose(other.fixef, m.fixef, rtol=1e-6, atol=1e-7)
    assert_allclose(other.fitted.loc[m.fitted.index], m.fitted, rtol=1e-6)
    for group, modes in m.ranef().items():
        assert_allclose(other.ranef()[group], modes, rtol=1e-4, atol=1e-5)
    back = shuffled.loc[model_data(name).index]
    again = me.lmer(formula, back, **options)
    assert_allclose(again.fitted, m.fitted, rtol=1e-10)


def test_insteval_with_a_slope_by_department() -> None:
    data = me.load_dataset("insteval")
    m = me.lmer("y ~ service + (1 | s) + (1 | d) + (1 + service | dept)", data)
    assert m.criterion <= 237657.0945
    assert not m.is_singular
    assert m.converged
    assert m.optimum.search_evaluations <= 15


def test_whole_kindergarten_year() -> None:
    star = me.load_dataset("star")
    m = me.lmer("read ~ cltype + sx + (sx | sch/tch)", star[star["gr"] == "K"])
    assert m.nobs == 5789
    assert m.criterion == pytest.approx(55060.5344, abs=1e-4)
    assert_allclose(m.theta, [0.350298, 0.018050, 0.236255, 0.486928, 0.010471, 0.0], atol=1e-4)
    assert m.is_singular
    assert m.optimum.certificate.holds
    assert m.optimum.search_evaluations <= 15
