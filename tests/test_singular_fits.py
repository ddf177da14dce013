"""Everything about a fit works where its covariance matrices are singular."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import mixedeffects as me
from mixedeffects.covariance.roots import covariance_root
from mixedeffects.inference import singular
from mixedeffects.reporting import model_summary


def _unfounded(seed: int, n: int = 45, levels: int = 5) -> pd.DataFrame:
    """A response that depends on nothing, so that most variances are estimated as zero."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "a": rng.integers(0, levels, n).astype(str),
            "b": rng.integers(0, 4, n).astype(str),
            "x": rng.normal(size=n),
            "w": rng.normal(size=n),
            "y": rng.normal(size=n),
        }
    )


def _singular_fits() -> Iterator[me.LinearMixedModel]:
    for seed in range(6):
        data = _unfounded(seed)
        for formula, reml in [
            ("y ~ a + (x | a)", False),
            ("y ~ a * x + (x | a) + (1 | b)", False),
            ("y ~ x + (x + w | a)", True),
        ]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", me.ConvergenceWarning)
                m = me.lmer(formula, data, reml=reml)
            if m.is_singular:
                yield m


def test_advice_never_stops_a_summary() -> None:
    """A factor both fixed and grouping: the expected information is singular beside a zero."""
    fits = list(_singular_fits())
    assert len(fits) > 12
    for m in fits:
        assert "boundary (singular) fit" in str(m)
        assert m.summary()._repr_html_() and repr(m.anova())
        assert m.to_dict()["singular"] is True


def test_advice_that_cannot_be_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise np.linalg.LinAlgError("Eigenvalues did not converge")

    m = next(_singular_fits())
    monkeypatch.setattr(singular, "kenward_roger", fail)
    assert model_summary.fit_notes(m.fit, m.coef_table(), True)
    assert "compare" in str(m)


def test_roots_of_matrices_that_are_singular_but_for_rounding() -> None:
    """The smallest eigenvalue of a matrix of rank two is a few eps, on either side of zero."""
    ranks = set()
    for seed in range(1200):
        rng = np.random.default_rng(seed)
        factor = np.tril(rng.normal(size=(3, 3))) * rng.choice([1e-3, 1.0, 1e3], size=(3, 1))
        factor[:, 2] = 0.0
        G = factor @ factor.T
        root = covariance_root(G)
        sd = np.sqrt(np.diag(G))
        assert_allclose(root @ root.T / np.outer(sd, sd), G / np.outer(sd, sd), atol=1e-13)
        ranks.add(root.shape[1])
    assert ranks == {2, 3}


def test_a_regular_root_is_the_cholesky_factor() -> None:
    rng = np.random.default_rng(0)
    for k in range(1, 6):
        half = rng.normal(size=(k, k + 2))
        G = half @ half.T
        assert_allclose(covariance_root(G), np.linalg.cholesky(G), rtol=1e-9)


def test_covariances_of_rank_two_given_by_the_user() -> None:
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"x": rng.normal(size=60), "g": np.repeat(np.arange(10), 6)})
    z = np.column_stack([np.ones(60), data["x"], data["x"] ** 2])
    same = data["g"].to_numpy()[:, None] == data["g"].to_numpy()
    for seed in range(100):
        factor = np.tril(np.random.default_rng(seed).normal(size=(3, 3)))
        factor[:, 2] = 0.0
        G = factor @ factor.T
        V = me.marginal_covariance("~ x + (x + I(x^2) | g)", data, G={"g": G}, sigma=1.0)
        dense = same * (z @ G @ z.T) + np.eye(60)
        assert_allclose(V.dense(), dense, atol=1e-10 * np.abs(dense).max())
        assert V.sample(1, seed=1).shape[0] == 60
        whitened = V.whiten(np.eye(60), kind="symmetric")
        assert_allclose(whitened @ dense @ whitened.T, np.eye(60), atol=1e-7)


@pytest.mark.parametrize("seed", range(3))
def test_a_singular_three_by_three_fit_is_simulated_and_whitened(seed: int) -> None:
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(20), 6)
    data = pd.DataFrame({"x": rng.normal(size=120), "g": g})
    data["y"] = data["x"] + rng.normal(size=20)[g] * (1.0 + 0.5 * data["x"]) + rng.normal(size=120)
    m = me.lmer("y ~ x + (x + I(x^2) | g)", data)
    assert m.is_singular
    # At the estimates the covariance is singular up to rounding, which is perturbed here.
    for scale in 1.0 + 1e-16 * np.arange(1, 6):
        V = m.V.at(theta=m.theta * scale, sigma=m.sigma)
        assert np.isfinite(V.sample(2, seed=1)).all()
        assert np.isfinite(V.whiten(m.y, kind="symmetric")).all()
    assert m.simulate(2, seed=1).shape[1] == 2
    assert np.isfinite(m.robust("CR2", cluster="g").vcov.to_numpy()).all()
