"""Digits: effects far larger than the residual error cost no result its digits.

The truth is computed in exact fractions, from the data as they are in memory.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

import mixedeffects as me

SIZES = [1.0, 3e2, 1e5, 1e8]


def design(size: float, mean: float = 0.0) -> pd.DataFrame:
    """One grouping factor whose effects are ``size`` times the residual error."""
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(8), 6)
    x = rng.normal(size=48)
    y = mean + size * rng.normal(size=8)[g] + x + rng.normal(size=48)
    return pd.DataFrame({"y": y, "x": x, "g": g, "w": rng.uniform(0.1, 10.0, 48)})


class Exact:
    """A random intercept at a given theta in rational arithmetic."""

    def __init__(self, m: me.LinearMixedModel) -> None:
        self.g = m.frame.terms[0].codes
        t2 = Fraction(float(m.theta[0])) ** 2
        n = len(m.y)
        weights = np.ones(n) if m.frame.weights is None else m.frame.weights
        self.w = [Fraction(float(w)) for w in weights]
        self.total = [
            sum(w for w, own in zip(self.w, self.g, strict=True) if own == level)
            for level in set(self.g)
        ]
        self.share = [t2 / (1 + t2 * total) for total in self.total]
        X = [[Fraction(float(v)) for v in column] for column in m.X.T]
        y = [Fraction(float(v)) for v in m.y]
        S = [[self.inner(a, b) for b in [*X, y]] for a in [*X, y]]
        p = len(X)
        beta, determinant = solve([row[:p] for row in S[:p]], [row[p] for row in S[:p]])
        self.beta = np.array([float(b) for b in beta])
        residual = [
            yi - sum(b * c[i] for b, c in zip(beta, X, strict=True)) for i, yi in enumerate(y)
        ]
        rho2 = self.inner(residual, residual)
        df = n - p if m.reml else n
        self.sigma = float(rho2 / df) ** 0.5
        logdet = sum(np.log1p(float(t2 * total)) for total in self.total)
        if m.reml:
            logdet += np.log(float(determinant))
        logdet -= float(np.log(weights).sum())
        self.criterion = logdet + df * (1.0 + np.log(2.0 * np.pi * float(rho2 / df)))
        self.modes = np.array(
            [float(s * t) for s, t in zip(self.share, self.sums(residual), strict=True)]
        )

    def sums(self, a: list[Fraction]) -> list[Fraction]:
        return [
            sum(w * v for w, v, own in zip(self.w, a, self.g, strict=True) if own == level)
            for level in set(self.g)
        ]

    def inner(self, a: list[Fraction], b: list[Fraction]) -> Fraction:
        whole = sum(w * u * v for w, u, v in zip(self.w, a, b, strict=True))
        return whole - sum(
            s * u * v for s, u, v in zip(self.share, self.sums(a), self.sums(b), strict=True)
        )


def solve(S: list[list[Fraction]], v: list[Fraction]) -> tuple[list[Fraction], Fraction]:
    """Cramer's rule for one or two unknowns, and the determinant."""
    if len(S) == 1:
        return [v[0] / S[0][0]], S[0][0]
    (a, b), (c, d) = S
    determinant = a * d - b * c
    return [(v[0] * d - b * v[1]) / determinant, (a * v[1] - c * v[0]) / determinant], determinant


def check(m: me.LinearMixedModel, fixed: float = 1.0) -> None:
    exact = Exact(m)
    # Each row is rounded to 1e-16 of the effects in it.
    rounding = 1e-16 * max(1.0, fixed, float(m.theta[0]))
    assert m.sigma == pytest.approx(exact.sigma, rel=1e-12 + rounding)
    assert m.criterion == pytest.approx(exact.criterion, abs=m.nobs * (1e-12 + rounding))
    assert np.abs((m.fixef - exact.beta) / m.se).max() < 1e-10 + 10.0 * rounding
    (modes,) = m.fit.modes
    assert np.abs(modes[:, 0] - exact.modes).max() < m.sigma * (1e-9 + 10.0 * rounding)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("weights", [None, "w"])
@pytest.mark.parametrize("formula", ["y ~ x + (1 | g)", "y ~ 0 + x + (1 | g)"])
@pytest.mark.parametrize("size", SIZES)
def test_large_random_effects(size: float, formula: str, weights: str | None, reml: bool) -> None:
    m = me.lmer(formula, design(size), reml=reml, weights=weights)
    assert m.converged and not m.optimum.unbounded
    check(m)


@pytest.mark.parametrize("size", SIZES)
def test_a_large_mean_that_only_the_random_effects_can_take(size: float) -> None:
    m = me.lmer("y ~ 0 + x + (1 | g)", design(1.0, size), reml=False)
    assert m.converged
    check(m)


@pytest.mark.parametrize("size", SIZES)
def test_large_fixed_effects(size: float) -> None:
    d = design(1.0)
    m = me.lmer("y ~ x + (1 | g)", d.assign(y=d.y + size * (1.0 + d.x)))
    check(m, size)


def test_refits_keep_their_digits() -> None:
    m = me.lmer("y ~ x + (1 | g)", design(1e6))
    again = m.refit(m.simulate(1, seed=1)["sim_1"])
    assert again.converged
    check(again)
    boot = m.bootstrap(3, seed=1)
    assert boot.n_failed == boot.n_not_converged == 0
    assert boot.draws["sigma"].iloc[0] == pytest.approx(again.sigma, rel=1e-6)
    assert boot.criterion.iloc[0] == pytest.approx(again.criterion, rel=1e-10)


@pytest.mark.parametrize(
    "formula",
    ["y ~ x + (x | g)", "y ~ x + (1 | g/h)", "y ~ x + (1 | g) + (1 | h)", "y ~ x + (x || g)"],
)
@pytest.mark.parametrize("reml", [True, False])
def test_provisional_effects_change_nothing_but_rounding(formula: str, reml: bool) -> None:
    from mixedeffects.engine.objective import evaluate
    from mixedeffects.engine.responses import replace_response
    from mixedeffects.fitting.assembly import engine_terms

    rng = np.random.default_rng(5)
    d = design(2.0).assign(h=np.tile(np.arange(6) // 2, 8))
    m = me.lmer(formula, d.assign(y=d.y + rng.normal(size=6)[d.h]), reml=reml)
    frame = m.frame
    for at in (0.1, 30.0):
        T = [at * np.eye(len(t)) for t in m.optimum.T]
        A = replace_response(
            m.fit.crossproducts, frame.y, frame.X, engine_terms(frame.terms), None, T
        )
        for scale in (0.0, 0.5, 3.0):
            T = [scale * (t + 0.3 * np.eye(len(t))) for t in m.optimum.T]
            plain, other = evaluate(m.fit.crossproducts, T, reml), evaluate(A, T, reml)
            assert other.deviance == pytest.approx(plain.deviance, abs=1e-9)
            assert other.gradient == pytest.approx(plain.gradient, abs=1e-8)
            assert other.information == pytest.approx(plain.information, rel=1e-8, abs=1e-9)
            one, two = plain.factorisation, other.factorisation
            assert two.fixed_root @ two.fixed_root.T == pytest.approx(
                np.tril(one.fixed_root) @ np.tril(one.fixed_root).T, abs=1e-9
            )
            rhs = [rng.normal(size=(f.n_levels, f.k, 2)) for f in A.factors]
            border = rng.normal(size=(A.p, 2))
            for left, right in zip(one.solve(rhs, border), two.solve(rhs, border), strict=True):
                assert np.allclose(
                    np.hstack([np.ravel(v) for v in left]), np.hstack([np.ravel(v) for v in right])
                )
            (a, b), (c, e) = one.forward(rhs, border), two.forward(rhs, border)
            assert sum((v**2).sum() for v in a) + (b**2).sum() == pytest.approx(
                sum((v**2).sum() for v in c) + (e**2).sum()
            )


@pytest.mark.parametrize("size", SIZES)
def test_inverse_of_V_for_what_large_effects_span(size: float) -> None:
    m = me.lmer("y ~ x + (1 | g)", design(size))
    t2, codes = Fraction(float(m.theta[0])) ** 2, m.frame.terms[0].codes
    counts = np.bincount(codes)
    # V0^-1 of a column constant within groups divides it by 1 + n_i theta^2.
    constant = np.arange(1.0, 9.0)[codes]
    expected = np.array([float(1 / (1 + t2 * int(k))) for k in counts])[codes] * constant
    solved = m.V.solve(np.column_stack([constant, np.ones(48)])) * m.sigma**2
    assert np.allclose(solved[:, 0], expected, rtol=1e-9, atol=0.0)
    rounding = 1e-10 + 1e-15 * size
    for weights in (None, "w"):
        V = me.lmer("y ~ x + (1 | g)", design(size), weights=weights).V
        expected_square = float(constant @ V.solve(constant))
        for kind in ("cholesky", "symmetric"):
            root = V.whiten(constant, kind=kind)
            assert root @ root == pytest.approx(expected_square, rel=rounding)
    assert m.leverage("fixed").sum() == pytest.approx(2.0, rel=1e-6)
    assert (m.coef_table(vcov="CR2")["Std. Error"] > 0.0).all()
    gls = m.V.gls(m.X, m.y).coef.to_numpy()
    assert np.abs((gls - m.fixef) / m.se).max() < 1e-6
