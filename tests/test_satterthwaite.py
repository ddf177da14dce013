"""Satterthwaite's degrees of freedom where they are known exactly, at any ratio of variances.

In balanced layouts the variance of a contrast is a multiple of one mean square, so that both
Satterthwaite's and Kenward and Roger's degrees of freedom are those of that mean square.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

import mixedeffects as me

Matrix = NDArray[np.float64]
RATIOS = [10.0**e for e in range(-5, 6)]


def _exactly(e: Matrix, X: Matrix, df: int) -> Matrix:
    """Noise with nothing along X and a mean square of one."""
    e = e - X @ np.linalg.lstsq(X, e, rcond=None)[0]
    return np.asarray(e * np.sqrt(df / (e @ e)))


def one_way(ratio: float, seed: int) -> pd.DataFrame:
    """Group and residual mean squares such that the estimate is the ratio itself."""
    rng = np.random.default_rng(seed)
    g, x = np.repeat(np.arange(30), 5), np.tile(np.arange(5.0) - 2, 30)
    e = _exactly(rng.normal(size=150), np.column_stack([np.eye(30)[g], x]), 119)
    u = _exactly(rng.normal(size=30), np.ones((30, 1)), 29) * np.sqrt(0.2 + ratio**2)
    return pd.DataFrame({"g": g, "x": x, "y": u[g] + 0.1 * x + e})


def slopes(ratio: float, seed: int) -> pd.DataFrame:
    """Intercepts and slopes whose estimated covariance is ``ratio^2 [[1, .5], [.5, 1]]``."""
    rng = np.random.default_rng(seed)
    g, x = np.repeat(np.arange(30), 5), np.tile(np.arange(5.0) - 2, 30)
    z = np.column_stack([np.ones(150), x])
    per_group = np.einsum("ia,ij->ija", z, np.eye(30)[g]).reshape(150, 60)
    e = _exactly(rng.normal(size=150), per_group, 90)
    u = rng.normal(size=(30, 2))
    u -= u.mean(axis=0)
    u = u @ np.linalg.inv(np.linalg.cholesky(u.T @ u / 29)).T
    total = np.diag([0.2, 0.1]) + ratio**2 * np.array([[1.0, 0.5], [0.5, 1.0]])
    u = u @ np.linalg.cholesky(total).T
    return pd.DataFrame({"g": g, "x": x, "y": (z * u[g]).sum(axis=1) + e})


def split_plot(ratio: float, seed: int) -> pd.DataFrame:
    """Blocks, plots with treatment A, subplots with B; three strata."""
    rng = np.random.default_rng(seed)
    block, plot = np.repeat(np.arange(8), 12), np.repeat(np.arange(24), 4)
    A, B = np.tile(np.repeat([0, 1, 2], 4), 8), np.tile([0, 1, 2, 3], 24)
    in_plots = np.column_stack([np.eye(24)[plot], np.eye(4)[B][:, 1:]])
    e = _exactly(rng.normal(size=96), in_plots, 69)
    a = A[::4]
    whole = np.column_stack([np.eye(8)[block[::4]], np.eye(3)[a][:, 1:]])
    plots = _exactly(rng.normal(size=24), whole, 14) * np.sqrt(0.25 + ratio**2)
    blocks = _exactly(rng.normal(size=8), np.ones((8, 1)), 7)
    blocks = blocks * np.sqrt((0.25 + ratio**2) / 3.0 + ratio**2)
    y = blocks[block] + plots[plot] + e
    return pd.DataFrame(
        {"block": block, "plot": plot, "A": A.astype(str), "B": B.astype(str), "y": y}
    )


LAYOUTS: dict[str, tuple[Callable[[float, int], pd.DataFrame], str, list[float]]] = {
    "one way": (one_way, "y ~ x + (1 | g)", [29, 119]),
    "slopes": (slopes, "y ~ x + (x | g)", [29, 29]),
    "split plot": (split_plot, "y ~ A + B + (1 | block) + (1 | plot)", [7, 14, 14, 69, 69, 69]),
}


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_exact_cases_at_any_ratio(layout: str, ratio: float) -> None:
    make, formula, df = LAYOUTS[layout]
    contrasts = {"A": "sum", "B": "sum"} if "A" in formula else None
    with warnings.catch_warnings():
        # At 1e5 the gradient is rounding of the size that is otherwise too much.
        warnings.simplefilter("ignore", me.ConvergenceWarning)
        m = me.lmer(formula, make(ratio, 3), contrasts=contrasts)
    assert not m.is_singular
    # Blocks and plots share effects, of which the traces lose the digits.
    shared = layout == "split plot" and ratio > 1e3
    tolerance = (2e-6 if ratio < 1e5 else 1e-4) if shared else 1e-7
    assert_allclose(m.coef_table()["df"], df, rtol=tolerance)
    assert_allclose(m.coef_table(ddf="kr")["df"], df, rtol=1e-3)
    assert m.optimum.certificate.smallest_curvature > 0.05


@pytest.mark.parametrize("ratio", [1e-2, 1.0, 1e2, 1e5])
@pytest.mark.parametrize("structure", ["diag", "cs"])
def test_exact_cases_of_structures(structure: str, ratio: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", me.ConvergenceWarning)
        m = me.lmer(f"y ~ x + {structure}(x | g)", slopes(ratio, 3))
    assert_allclose(m.coef_table()["df"], [29, 29], rtol=1e-7)


class Dense:
    """A random intercept, and maybe a second one, from matrices with a row for each observation.

    Of moderate ratios only, where they keep their digits.
    """

    def __init__(self, m: me.LinearMixedModel) -> None:
        X, y = np.asarray(m.X), np.asarray(m.y)
        n, p = X.shape
        K = [(z := np.eye(term.n_levels)[term.codes]) @ z.T for term in m.frame.terms]
        weights = np.ones(n) if m.frame.weights is None else m.frame.weights
        self.df = n - p if m.reml else n
        tau = np.asarray(m.theta) ** 2
        for _ in range(6):
            V = np.diag(1.0 / weights) + sum(t * k for t, k in zip(tau, K, strict=True))
            W = np.linalg.inv(V)
            C = np.linalg.inv(X.T @ W @ X)
            P = W - W @ X @ C @ X.T @ W
            Py = P @ y
            s2 = float(y @ Py) / self.df
            KP = [k @ (P if m.reml else W) for k in K]
            linear = np.array([Py @ k @ Py for k in K]) / s2
            score = np.array([np.trace(k) for k in KP]) - linear
            square = np.array([[Py @ a @ P @ b @ Py for a in K] for b in K]) / s2
            traces = np.array([[np.sum(a * b.T) for a in KP] for b in KP])
            H = 2.0 * square - traces
            # The optimum itself, whatever the search left.
            tau = tau - np.linalg.solve(H - np.outer(linear, linear) / self.df, score)
        full = np.block([[H, 2.0 * linear[:, None]], [2.0 * linear, np.array([[4.0 * self.df]])]])
        gradient = np.array([np.diag(C @ X.T @ W @ k @ W @ X @ C) / np.diag(C) for k in K])
        gradient = np.vstack([gradient, 2.0 * np.ones(p)])
        self.exact = 1.0 / np.einsum("mp,mk,kp->p", gradient, np.linalg.inv(full), gradient)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("formula", ["y ~ x + (1 | a)", "y ~ x + (1 | a) + (1 | b)"])
@pytest.mark.parametrize("ratio", [0.7, 30.0, 300.0])
def test_unbalanced_against_dense_matrices(formula: str, ratio: float, reml: bool) -> None:
    rng = np.random.default_rng(11)
    a, b, x = rng.integers(0, 12, 150), rng.integers(0, 9, 150), rng.normal(size=150)
    y = ratio * (rng.normal(size=12)[a] + 0.5 * rng.normal(size=9)[b]) + x + rng.normal(size=150)
    data = pd.DataFrame({"a": a, "b": b, "x": x, "y": y, "w": rng.uniform(0.2, 5.0, 150)})
    m = me.lmer(formula, data, weights="w", reml=reml)
    assert not m.is_singular
    assert_allclose(m.coef_table()["df"], Dense(m).exact, rtol=5e-6)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_units_do_not_matter(unit: float) -> None:
    data = slopes(3e3, 1)
    plain = me.lmer("y ~ x + (x | g)", data)
    scaled = me.lmer("y ~ x + (x | g)", data.assign(x=data["x"] * unit, y=data["y"] / unit))
    assert_allclose(scaled.coef_table()["df"], plain.coef_table()["df"], rtol=1e-3)
    assert scaled.optimum.certificate.holds


def test_the_hessian_against_differences_of_the_deviance() -> None:
    """At a ratio of 300, where a step of 1e-4 in theta is too small by far."""
    m = me.lmer("y ~ x + (x | g)", slopes(300.0, 2))
    curvature = m.optimum.curvature
    L = curvature.directions

    def deviance(natural: Matrix) -> float:
        value = np.append(curvature.theta, curvature.sigma) + L @ natural
        T = me.engine.parameters.theta_to_T(value[:-1], [2])
        user = m.fit.crossproducts.basis.relative_factor(0, T[0])
        theta = me.engine.parameters.T_to_theta([user])
        return -2.0 * m.loglik_at(theta, float(value[-1]))

    unit, H = 0.01 * np.eye(4), np.empty((4, 4))
    for i, a in enumerate(unit):
        for j, b in enumerate(unit):
            corners = [deviance(s * a + t * b) * s * t for s in (1, -1) for t in (1, -1)]
            H[i, j] = sum(corners) / (4 * 0.01**2)
    size = np.sqrt(np.diag(H))
    scale = np.outer(size, size)
    assert_allclose(curvature.natural / scale, H / scale, atol=2e-3)
