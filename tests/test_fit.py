"""The record of a fit: what it knows, what is kept with it, and what holds it."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import mixedeffects as me
from mixedeffects.covariance.of_fit import V_of, fitted_values
from mixedeffects.fitting.fit import Fit, fit_of, once_per_fit
from mixedeffects.fitting.fitting import fit_formula
from mixedeffects.fitting.refitting import by_maximum_likelihood, refit, update
from mixedeffects.fitting.request import given_data

TEXT = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture
def sleep() -> pd.DataFrame:
    return me.load_dataset("sleepstudy")


def test_a_fit_needs_no_model(sleep: pd.DataFrame) -> None:
    fit = fit_formula(TEXT, sleep)
    m = me.lmer(TEXT, sleep)
    assert isinstance(fit, Fit)
    assert fit.criterion == m.criterion
    assert_allclose(fit.beta, m.fixef)
    assert repr(fit).startswith(f"Fit('{TEXT}', 180 rows, by REML: converged")


def test_what_everything_derives_from(sleep: pd.DataFrame) -> None:
    """The definitions, by dense algebra."""
    fit = fit_formula(TEXT, sleep, offset="Days")
    X, y, Z = fit.frame.X, fit.frame.y - sleep["Days"], me.lmer(TEXT, sleep).Z.toarray()
    G = np.kron(np.eye(18), fit.G_blocks[0])
    V = Z @ G @ Z.T + fit.sigma**2 * np.eye(180)
    vcov = np.linalg.inv(X.T @ np.linalg.solve(V, X))
    beta = vcov @ X.T @ np.linalg.solve(V, y)
    assert_allclose(fit.vcov, vcov, rtol=1e-8)
    assert_allclose(fit.beta, beta, rtol=1e-8)
    modes = (G @ Z.T @ np.linalg.solve(V, y - X @ beta)).reshape(18, 2)
    assert_allclose(fit.modes[0], modes, rtol=1e-6, atol=1e-8)
    assert_allclose(fit.fixed_part, X @ beta + sleep["Days"], rtol=1e-10)
    assert_allclose(fitted_values(fit), fit.fixed_part + Z @ modes.ravel(), rtol=1e-8)
    assert_allclose(fit.sigma**2 * fit.T[0] @ fit.T[0].T, fit.G_blocks[0])
    assert fit.n_parameters == 6
    for array in (fit.beta, fit.vcov, fit.T[0], fit.G_blocks[0], fit.modes[0]):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0.0


def test_refits_are_other_records(sleep: pd.DataFrame) -> None:
    fit = fit_formula(TEXT, sleep)
    ml = by_maximum_likelihood(fit)
    assert (fit.reml, ml.reml) == (True, False)
    assert by_maximum_likelihood(ml) is ml
    again = refit(fit, 2.0 * fit.frame.y, progress=False)
    assert_allclose(again.sigma, 2.0 * fit.sigma, rtol=1e-6)
    assert given_data(fit.request) is not given_data(again.request)
    m = me.lmer(TEXT, sleep)
    assert m.update(reml=False).fit.criterion == pytest.approx(ml.criterion, abs=1e-8)
    assert update is not m.update


def test_what_takes_long_is_computed_once() -> None:
    counted = []

    @once_per_fit("a sum")
    def total(fit: Fit, factor: float = 1.0) -> float:
        counted.append(factor)
        return factor * float(fit.frame.y.sum())

    fit = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff")).fit
    assert not total.is_known(fit)
    assert total(fit) == total(fit) == pytest.approx(45825.0)
    assert total(fit, 2.0) == total(fit, 2.0) == pytest.approx(91650.0)
    assert counted == [1.0, 2.0]
    assert total.is_known(fit)
    other = dataclasses.replace(fit)
    assert total(other) == total(fit)
    assert counted == [1.0, 2.0, 1.0]
    told = dataclasses.replace(fit, remembered={total.key(): -1.0})
    assert total(told) == -1.0
    assert V_of(fit) is V_of(fit)


def test_what_is_kept_is_not_stored(sleep: pd.DataFrame) -> None:
    fit = fit_formula(TEXT, sleep)
    before = len(pickle.dumps(fit))
    V_of(fit).solve(fit.frame.y)
    assert len(pickle.dumps(fit)) == before
    assert pickle.loads(pickle.dumps(fit)).criterion == fit.criterion


def test_models_hold_a_fit(sleep: pd.DataFrame) -> None:
    m = me.lmer(TEXT, sleep)
    assert me.LinearMixedModel(m.fit).criterion == m.criterion
    assert copy.copy(m).fit is m.fit
    assert m.V is m.V
    assert fit_of(m, "It") is fit_of(m.fit, "It") is m.fit
    with pytest.raises(me.ModelError, match=r"^It must be a fitted model, not 3"):
        fit_of(3, "It")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("refitting", "NewResponse"),
        ("without_data", "LeftOut"),
        ("without_data", "FrameWithoutRows"),
        ("variance_explained", "Variances"),
        ("pickling", "unsealed"),
        ("influence", "Influence"),
    ],
)
def test_classes_of_old_pickles_are_found(module: str, name: str) -> None:
    found = getattr(importlib.import_module(f"mixedeffects.{module}"), name)
    assert found.__name__ == name
    with pytest.raises(AttributeError):
        _ = importlib.import_module(f"mixedeffects.{module}").no_such_name
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("mixedeffects.no_such_module")
