"""Digits where residuals are correlated: the criterion shown is that of the parameters shown.

Also where a residual is next to nothing beside the random effects, and where the likelihood has no
maximum. The truth is computed with seventy decimals, or from V as a dense matrix.
"""

from __future__ import annotations

import warnings
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mixedeffects as me
from mixedeffects.engine import residual_objective
from mixedeffects.engine.parameters import symmetric_directions
from mixedeffects.engine.residual_objective import ResidualEvaluation, evaluate_residual
from test_digits import design
from test_residual_generated import designs

#: Rounding for each row that a search goes no farther than.
ROUNDING = 1e-8


def quiet(*args: Any, **options: Any) -> me.LinearMixedModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", me.ConvergenceWarning)
        return me.lmer(*args, **options)


# --- likelihoods without a maximum ---------------------------------------------------------------

#: By what goes to its limit: standard deviations beside slopes, combinations of the residuals of a
#: group, with random effects and without, a correlation.
WITHOUT_MAXIMUM = {
    21: "`sd_b:v5|Residual` goes to zero",
    494: "`sd_b:5|Residual` goes to zero",
    693: "`sd_a:v3|Residual` goes to zero",
    133: "nearly singular",
    170: "nearly singular",
    222: "nearly singular",
    460: "`cor_v5.v4|Residual` goes to minus one",
}


@pytest.mark.parametrize("number", WITHOUT_MAXIMUM)
def test_the_criterion_at_a_limit_is_that_of_the_definition(number: int) -> None:
    each = designs.design(number)
    with pytest.warns(me.ConvergenceWarning, match=WITHOUT_MAXIMUM[number]):
        m = each.fit()
    assert not m.converged
    definition = designs.Definition(each, m)
    expected = definition.criterion(definition.at_the_fit)
    assert m.criterion == pytest.approx(expected, abs=ROUNDING * m.nobs)


def test_a_small_standard_deviation_that_is_an_optimum_is_none() -> None:
    """A thousandth of another, estimated from many rows."""
    rng = np.random.default_rng(7)
    s = np.repeat(["a", "b"], 60)
    g = np.tile(np.repeat(np.arange(20), 3), 2)
    y = rng.normal(size=20)[g] + np.where(s == "a", 1.0, 1e-3) * rng.normal(size=120)
    m = me.lmer("y ~ 1 + (1 | g)", pd.DataFrame({"y": y, "s": s, "g": g}), variance="s")
    assert m.converged and m.optimum.limits == ()
    assert m.R.parameters["Std.Dev. sb"] < 2e-3


# --- large random effects ------------------------------------------------------------------------


def criterion(m: me.LinearMixedModel, t: np.ndarray) -> float:
    """The criterion of one grouping factor with ar1 residuals, in decimals."""
    with localcontext() as context:
        context.prec = 70
        g, n = np.asarray(m.frame.terms[0].codes), m.nobs
        G = np.vectorize(Decimal)(np.asarray(m.varcorr["g"]))
        Z, X = (np.vectorize(Decimal)(np.asarray(a)) for a in (m.frame.terms[0].z, m.X))
        y = np.vectorize(Decimal)(np.asarray(m.y))
        rho, variance = Decimal(m.R.parameters["cor"]), Decimal(m.R.parameters["Std.Dev."]) ** 2
        V = Z @ G @ Z.T
        for i in range(n):
            for j in range(n):
                V[i, j] = V[i, j] + variance * rho ** abs(int(t[i] - t[j])) if g[i] == g[j] else 0
        p = X.shape[1]
        A = np.column_stack([V, X, y])
        logdet, square = eliminate(A, n)
        logdet_fixed, square = eliminate(square, p)
        d = logdet + (logdet_fixed if m.reml else 0) + square[0, 0]
        return float(d) + (n - p if m.reml else n) * float(np.log(2.0 * np.pi))


def eliminate(A: np.ndarray, n: int) -> tuple[Decimal, np.ndarray]:
    """``log |M|`` of the first n columns M, and ``B'M^-1 B`` of the others.

    Of a square A what elimination of M leaves in the rows below.
    """
    logdet, symmetric = Decimal(0), A.shape[0] == A.shape[1]
    total = np.full((A.shape[1] - n,) * 2, Decimal(0))
    for k in range(n):
        logdet += A[k, k].ln()
        total = total + np.outer(A[k, n:], A[k, n:]) / A[k, k]
        for i in np.flatnonzero(A[k + 1 :, k]) + k + 1:
            A[i, k:] = A[i, k:] - A[i, k] / A[k, k] * A[k, k:]
    return logdet, A[n:, n:] if symmetric else total


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("formula", ["y ~ x + (1 | g)", "y ~ 0 + x + (1 | g)", "y ~ x + (x | g)"])
@pytest.mark.parametrize("size", [1.0, 3e2, 1e4, 1e6])
def test_large_random_effects(size: float, formula: str, reml: bool) -> None:
    d = design(size).assign(t=np.tile(np.arange(6), 8))
    if "(x" in formula:
        d["y"] += size * np.random.default_rng(4).normal(size=8)[d.g] * d.x
    m = quiet(formula, d, residual="ar1(t | g)", reml=reml)
    assert m.criterion == pytest.approx(criterion(m, d.t.to_numpy()), abs=ROUNDING * m.nobs)


def everything(here: ResidualEvaluation) -> list[np.ndarray]:
    directions = [symmetric_directions(len(T)) for T in here.at_theta.T]
    root = np.tril(here.at_theta.factorisation.fixed_root)
    return [
        np.array([here.deviance]),
        here.score,
        here.slopes,
        *here.at_theta.score,
        here.information(directions),
        root @ root.T,
        here.at_theta.factorisation.solution.beta,
    ]


#: Local rows and rows whose residual groups have several levels of a factor; diagonal S, chains,
#: blocks; slopes, nested and crossed factors.
@pytest.mark.parametrize("number", [0, 2, 5, 9, 17, 23, 26, 27, 38, 43, 46])
@pytest.mark.parametrize("reml", [True, False])
def test_columns_less_their_modes_change_nothing_but_rounding(
    number: int, reml: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = designs.design(number).fit().fit.residual
    T = [factor + 0.3 * np.eye(len(factor)) for factor in own.at_theta.T]
    plain = evaluate_residual(own.design, T, 0.97 * own.phi, reml)
    monkeypatch.setattr(residual_objective, "_LOST", 0.0)
    other = evaluate_residual(own.design, T, 0.97 * own.phi, reml)
    assert plain.at_theta.A.provisional is None is not other.at_theta.A.provisional
    for one, two in zip(everything(plain), everything(other), strict=True):
        assert two == pytest.approx(one, rel=1e-11, abs=1e-11)


def test_sums_of_series_give_way_to_rows_where_digits_are_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(1)
    g, t = (a.ravel() for a in np.indices((300, 8)))
    data = pd.DataFrame({"g": g, "t": t, "y": rng.normal(size=300)[g] + rng.normal(size=2400)})
    own = me.lmer("y ~ t + (1 | g)", data, residual="ar1(t | g)").fit.residual
    assert own.design.sums is not None
    T = list(own.at_theta.T)
    plain = evaluate_residual(own.design, T, own.phi, True)
    monkeypatch.setattr(residual_objective, "_LOST", 0.0)
    other = evaluate_residual(own.design, T, own.phi, True)
    assert type(plain.rows) is not type(other.rows)
    for one, two in zip(everything(plain), everything(other), strict=True):
        assert two == pytest.approx(one, rel=1e-10, abs=1e-8)
