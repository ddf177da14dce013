"""Kenward-Roger against its definition with n x n matrices, and against pbkrtest's answers."""

from __future__ import annotations

import dataclasses
import json
import warnings
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

import mixedeffects as me
from design_models import DenseModel, model_of
from designs import KINDS, Design, make_design
from inference_references import FOLDER, FORMULAS
from mixedeffects.engine import fronts
from mixedeffects.engine.assembly import make_crossproducts
from mixedeffects.engine.factorisation import Factorisation
from mixedeffects.engine.parameters import theta_to_T
from mixedeffects.inference.kenward_roger import kenward_roger
from mixedeffects.inference.pair_sums import pair_sums
from references import fitted_model, reference

Matrix = NDArray[np.float64]

PBKRTEST = ("sleepstudy", "threelevel", "konly", "penicillin", "insteval1500")


@cache
def kr_reference(name: str) -> dict[str, Any]:
    return dict(json.loads((FOLDER / f"kr_{name}.json").read_text()))


def at_parameters(formula: str, data: Any, theta: Any, **options: Any) -> me.LinearMixedModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", me.ConvergenceWarning)
        control = me.Control(max_evaluations=1)
        return me.lmer(formula, data, start=theta, control=control, **options)


@cache
def at_kr_reference(name: str) -> me.LinearMixedModel:
    """The model at R's theta, without any optimisation."""
    data: pd.DataFrame
    if name == "penicillin":
        data = pd.read_csv(FOLDER / "penicillin_x.csv")
    elif name == "insteval1500":
        data = pd.read_csv(FOLDER / "insteval1500.csv", dtype={"service": "category"})
    else:
        data = me.load_dataset({"konly": "star_sample"}.get(name, name))
    return at_parameters(FORMULAS[name], data, kr_reference(name)["theta"])


# --- the definition -------------------------------------------------------------------------------


class DenseKenwardRoger:
    """pbkrtest's computation, with the residual's part of V right under prior weights."""

    def __init__(self, design: Design, model: me.LinearMixedModel, dense: DenseModel) -> None:
        X, V_inverse = dense.X, dense.V_inverse
        K = []
        for term in design.terms:
            k = term.z.shape[1]
            Z = np.zeros((len(X), term.n_levels * k))
            for a in range(k):
                Z[np.arange(len(X)), term.codes * k + a] = term.z[:, a]
            for c in range(k):
                for r in range(c, k):
                    E = np.zeros((k, k))
                    E[r, c] = E[c, r] = 1.0
                    K.append(Z @ np.kron(np.eye(term.n_levels), E) @ Z.T)
        K.append(dense.R / model.sigma**2)
        m = len(K)
        self.Phi = np.linalg.inv(X.T @ V_inverse @ X)
        VK = [V_inverse @ each for each in K]
        P = [-X.T @ vk @ V_inverse @ X for vk in VK]
        Q = [[X.T @ a @ b @ V_inverse @ X for b in VK] for a in VK]
        Phi = self.Phi
        information = np.empty((m, m))
        for r in range(m):
            for s in range(m):
                information[r, s] = (
                    np.sum(VK[r] * VK[s].T)
                    - 2.0 * np.sum(Phi * Q[r][s])
                    + np.sum((Phi @ P[r] @ Phi) * P[s])
                )
        size = np.sqrt(np.diag(information))
        scaled = information / np.outer(size, size)
        #: Smallest eigenvalue of the information: how well the components can be told apart.
        self.smallest = float(np.linalg.eigvalsh(scaled)[0])
        W = 2.0 * np.linalg.pinv(scaled, rcond=1e-10, hermitian=True) / np.outer(size, size)
        U = sum(W[r, s] * (Q[r][s] - P[r] @ Phi @ P[s]) for r in range(m) for s in range(m))
        self.adjusted = Phi + 2.0 * Phi @ U @ Phi
        self.P, self.W = P, W

    def sums(self, L: Matrix) -> tuple[float, float]:
        """A1 and A2."""
        theta = L.T @ np.linalg.inv(L @ self.Phi @ L.T) @ L
        u = [theta @ self.Phi @ P @ self.Phi for P in self.P]
        m = range(len(u))
        A1 = sum(self.W[r, s] * np.trace(u[r]) * np.trace(u[s]) for r in m for s in m)
        A2 = sum(self.W[r, s] * np.trace(u[r] @ u[s]) for r in m for s in m)
        return float(A1), float(A2)


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 10_000),
    weighted=st.booleans(),
    singular=st.booleans(),
)
def _check_everything(kind: str, seed: int, weighted: bool, singular: bool) -> None:
    design = make_design(kind, seed, weighted, singular)
    model, dense = model_of(design)
    expected = DenseKenwardRoger(design, model, dense)
    # Where components can hardly be told apart the dense computation is itself not accurate.
    assume(expected.smallest > 1e-7)
    kr = model.kenward_roger
    size = np.sqrt(np.diag(expected.Phi))
    scale = np.outer(size, size)
    assert_allclose(kr.model_vcov / scale, expected.Phi / scale, atol=1e-8)
    excess = (expected.adjusted - expected.Phi) / scale
    ours = (kr.vcov - kr.model_vcov) / scale
    assert_allclose(ours, excess, atol=1e-7 * max(1.0, np.abs(excess).max()))
    # Rounding grows with the condition of V.
    rtol = max(1e-6, 2e-12 * float(np.linalg.cond(dense.V)))
    for i in range(3):
        assert_allclose(kr.df(np.eye(3)[i]), 2.0 / expected.sums(np.eye(3)[[i]])[1], rtol=rtol)
    L = np.array([[0.0, 1.0, 0.0], [0.0, 1.0, -2.0]])
    theta = L.T @ np.linalg.solve(L @ kr.model_vcov @ L.T, L)
    u = theta @ kr.jacobian
    W = kr.parameter_covariance
    A1, A2 = expected.sums(L)
    traces = np.trace(u, axis1=1, axis2=2)
    assert traces @ W @ traces == pytest.approx(A1, rel=rtol)
    assert np.sum(W * np.einsum("mpq,kqp->mk", u, u)) == pytest.approx(A2, rel=rtol)


@pytest.mark.parametrize("costs", [None, (0.0, 0.0, 0.0, 1.0), (1.0, 0.0, 0.0, 0.02)])
def test_everything_against_n_by_n_matrices(costs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a dense remainder, a sparse one, and a sparse one with a dense core."""
    if costs is not None:
        monkeypatch.setattr(fronts, "DENSE_BELOW", 0)
        monkeypatch.setattr(fronts, "DENSEST", 1.0)
        monkeypatch.setattr(fronts, "COSTS", costs)
    _check_everything()


def test_components_that_cannot_be_told_apart() -> None:
    """A term entered twice: the information is singular, the answer is not."""
    design = make_design("one factor", 3, True, False)
    term, T = design.terms[0], theta_to_T(design.theta, design.columns)[0]
    again = dataclasses.replace(term, grouping=1)
    once, twice = (
        kenward_roger(
            Factorisation(A, [A.basis.engine_factor(t, T / np.sqrt(len(terms))) for t in
                              range(len(terms))]), 1.0)
        for terms in ([term], [term, again])
        for A in [make_crossproducts(design.y, design.X, terms, design.weights)]
    )  # fmt: skip
    assert_allclose(twice.vcov, once.vcov, rtol=1e-6)
    assert_allclose(twice.df(np.eye(3)), once.df(np.eye(3)), rtol=1e-6)


# --- pbkrtest -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PBKRTEST)
def test_adjusted_covariance(name: str) -> None:
    m, r = at_kr_reference(name), kr_reference(name)
    assert m.sigma == pytest.approx(r["sigma"], rel=1e-6)
    stored = np.array(r["vcovAdj"])
    size = np.sqrt(np.diag(stored))
    assert_allclose(m.vcov("kr").to_numpy() / np.outer(size, size), stored / np.outer(size, size),
                    rtol=1e-6, atol=1e-6)  # fmt: skip


@pytest.mark.parametrize("name", PBKRTEST)
def test_coefficients(name: str) -> None:
    m, r = at_kr_reference(name), kr_reference(name)
    table = m.coef_table(ddf="kr", level=None)
    assert_allclose(table["df"], r["ddf_single"], rtol=1e-4)
    assert_allclose(table.iloc[:, :4], np.array(r["KR_table"])[:, :4], rtol=1e-4)
    assert_allclose(m.coef_table(vcov="kr", level=None), table)


@pytest.mark.parametrize("name", PBKRTEST)
def test_joint_tests(name: str) -> None:
    m, r = at_kr_reference(name), kr_reference(name)
    for stored in r["KRmodcomp"].values():
        test, expected = m.wald(np.atleast_2d(stored["L"]), ddf="kr"), stored["Ftest"]
        assert test.num_df == expected["ndf"]
        assert test.den_df == pytest.approx(expected["ddf"], rel=1e-4)
        assert test.statistic == pytest.approx(expected["stat"], rel=1e-4)
        assert test.scaling == pytest.approx(expected["F.scaling"], rel=1e-4)
        assert test.p == pytest.approx(expected["p.value"], rel=5e-3)


def test_prior_weights() -> None:
    """pbkrtest takes the residual's part of V for the identity; the reference does not."""
    r = kr_reference("weights")
    sleep = me.load_dataset("sleepstudy")
    m = at_parameters(
        "Reaction ~ Days + (Days | Subject)", sleep, r["theta"], weights=np.array(r["w"])
    )
    assert_allclose(m.vcov("kr"), r["correct_vcovAdj"], rtol=1e-6)
    assert not np.allclose(np.diag(m.vcov("kr")), r["pbkrtest_diag"], rtol=1e-3)


def test_star_sample_at_our_optimum() -> None:
    m, r = fitted_model("star_sample"), reference("star_sample")
    stored = np.array(r["kenward_roger"]["values"])
    assert m.is_singular
    assert_allclose(m.coef_table(ddf="kr")["df"], stored[:, 2], rtol=0.005)
    assert_allclose(m.coef_table(ddf="kr")["Std. Error"], stored[:, 1], rtol=1e-4)


def test_crossed_data_of_full_size() -> None:
    """Against a numerical derivative of the trace: 73,421 rows, 4,128 random effects."""
    m = fitted_model("insteval")
    kr = m.kenward_roger
    assert (kr.vcov - kr.model_vcov).diagonal().min() > 0.0
    A, T = m.fit.crossproducts, list(m.optimum.T)
    sums = pair_sums(A, Factorisation(A, T).T)
    for g, factor in enumerate(A.factors):
        t, step = factor.members[0].term, 1e-4
        variance, traces = float(T[t][0, 0]) ** 2, []
        for sign in (1.0, -1.0):
            moved = list(T)
            moved[t] = np.array([[np.sqrt(variance + sign * step)]])
            inverse = Factorisation(A, moved).selected_inverse(with_fixed=False)
            traces.append([float(B[0, 0]) for B in inverse.B])
        slope = (np.array(traces[1]) - np.array(traces[0])) / (2.0 * step)
        ours = [float(sums[min(f, g), max(f, g)].item()) for f in range(len(A.factors))]
        assert_allclose(ours, slope, rtol=1e-3)


# --- what is refused ------------------------------------------------------------------------------


def test_maximum_likelihood_is_refused() -> None:
    m = fitted_model("sleepstudy_ml")
    for ask in (
        lambda: m.vcov("kr"),
        lambda: m.coef_table(ddf="kr"),
        lambda: m.summary(ddf="kr"),
        lambda: m.wald("Days", ddf="kr"),
        lambda: m.anova(ddf="kr"),
    ):
        with pytest.raises(me.ModelError, match=r"m\.update\(reml=True\)"):
            ask()


def test_too_large_a_component() -> None:
    m = fitted_model("penicillin")
    factorisation = m.optimum.evaluation.factorisation
    with pytest.raises(me.ModelError, match=r'dense matrices of 6 rows.*ddf="satterthwaite"'):
        kenward_roger(factorisation, m.sigma, largest=5)


def test_summary() -> None:
    text = str(fitted_model("sleepstudy").summary(ddf="kr"))
    assert "t-tests use Kenward-Roger's method" in text
