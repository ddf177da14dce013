"""Structured covariances of random effects: diag, cs and ar1."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

import mixedeffects as me
from mixedeffects.engine import structured_point, subsample
from mixedeffects.engine.face import Face, FacePoint
from mixedeffects.engine.structured import find_structured_optimum
from mixedeffects.engine.structured_point import StructuredModel, StructuredPoint
from mixedeffects.engine.structures import CovarianceStructure
from mixedeffects.formula import parse_formula
from references import REFERENCE, quiet

Matrix = NDArray[np.float64]
FOLDER = REFERENCE / "structured"
KINDS = [
    ("diag", False),
    ("diag", True),
    ("cs", False),
    ("cs", True),
    ("ar1", False),
    ("ar1", True),
]


# --- the families -----------------------------------------------------------------------


@st.composite
def families(draw: Any) -> tuple[CovarianceStructure, Matrix]:
    """A structure and parameters within its bounds, sometimes on them."""
    kind, homogeneous = draw(st.sampled_from(KINDS))
    structure = CovarianceStructure(kind, draw(st.integers(2, 6)), homogeneous)
    sds = st.one_of(st.just(0.0), st.floats(0.05, 3.0))
    parameters = [draw(sds) for _ in range(structure.n_sd)]
    if structure.has_correlation:
        low, high = structure.correlation_range
        inside = st.floats(0.02, 0.98).map(lambda u: low + u * (high - low))
        parameters.append(draw(st.one_of(st.sampled_from([low, 0.0, high]), inside)))
    return structure, np.array(parameters)


def by_hand(structure: CovarianceStructure, parameters: Matrix) -> Matrix:
    """Sigma entry by entry."""
    k = structure.k
    Sigma = np.zeros((k, k))
    for i in range(k):
        for j in range(k):
            a, b = (parameters[0 if structure.homogeneous else c] for c in (i, j))
            rho = 0.0 if structure.kind == "diag" else float(parameters[-1])
            power = abs(i - j) if structure.kind == "ar1" else int(i != j)
            Sigma[i, j] = a * b * rho**power
    return Sigma


@settings(max_examples=50, deadline=None)
@given(families())
def test_factor_and_covariance_agree_and_moments_recover_the_parameters(
    family: tuple[CovarianceStructure, Matrix],
) -> None:
    structure, parameters = family
    Sigma = structure.covariance(parameters)
    assert_allclose(Sigma, by_hand(structure, parameters), atol=1e-14)
    T = structure.factor(parameters)
    assert_allclose(T @ T.T, Sigma, atol=1e-13)
    assert np.linalg.eigvalsh(Sigma)[0] > -1e-13
    again = structure.nearest(Sigma)
    assert_allclose(structure.covariance(again), Sigma, atol=1e-12)
    if (parameters[: structure.n_sd] > 0.0).all():
        assert_allclose(again, parameters, atol=1e-10)
    flipped = parameters.copy()
    if np.isinf(structure.lower[0]):
        flipped[0] *= -1.0
        assert_allclose(structure.covariance(flipped), Sigma, atol=1e-14)
        assert_allclose(structure.canonical(flipped), parameters)


@settings(max_examples=50, deadline=None)
@given(families(), st.integers(0, 1000))
def test_derivatives_of_the_families(family: tuple[CovarianceStructure, Matrix], seed: int) -> None:
    structure, parameters = family
    F = np.random.default_rng(seed).normal(size=(structure.k, structure.k))
    F = F + F.T
    gradient, hessian = structure.contract(parameters, F)
    derivatives = structure.derivatives(parameters)
    assert_allclose(np.einsum("ab,mab->m", F, derivatives), gradient, atol=1e-12)
    for r in range(structure.n_parameters):
        h = np.zeros(structure.n_parameters)
        h[r] = 1e-5
        # Sigma is a polynomial, so it may be differentiated beyond its bounds.
        difference = structure.covariance(parameters + h) - structure.covariance(parameters - h)
        assert_allclose(derivatives[r], difference / 2e-5, atol=1e-7)
        up, down = (structure.contract(parameters + s * h, F)[0] for s in (1.0, -1.0))
        assert_allclose(hessian[r], (up - down) / 2e-5, atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(families())
def test_variance_directions_span_the_tangent_space(
    family: tuple[CovarianceStructure, Matrix],
) -> None:
    structure, parameters = family
    span = structure.variance_directions(parameters).reshape(-1, structure.k**2)
    tangent = structure.derivatives(parameters).reshape(-1, structure.k**2)
    both = np.vstack([span, tangent])
    assert np.linalg.matrix_rank(both, 1e-9) == np.linalg.matrix_rank(span, 1e-9)


# --- data, and everything by dense algebra ---------------------------------------------------


def simulated(
    seed: int = 0, n_id: int = 15, k: int = 4, reps: int = 2, rho: float = 0.6
) -> pd.DataFrame:
    """Persons by weeks with an autoregression, crossed with rooms; some rows missing."""
    rng = np.random.default_rng(seed)
    lag = np.abs(np.subtract.outer(np.arange(k), np.arange(k)))
    root = np.linalg.cholesky(rho**lag) * np.linspace(1.0, 1.6, k)[:, None]
    person, week, _ = (a.ravel() for a in np.indices((n_id, k, reps)))
    effects = rng.normal(size=(n_id, k)) @ root.T
    room = rng.integers(0, 5, len(person))
    x = rng.normal(size=len(person))
    y = 2.0 + 0.5 * x + effects[person, week] + rng.normal(size=5)[room] * 0.7
    data = pd.DataFrame(
        {
            "id": [f"i{p:02d}" for p in person],
            "week": [f"w{w}" for w in week],
            "t": week.astype(float),
            "room": [f"r{r}" for r in room],
            "x": x,
            "w": rng.uniform(0.5, 2.0, len(person)),
            "y": y + rng.normal(size=len(person)),
        }
    )
    return data[rng.random(len(data)) > 0.1].reset_index(drop=True)


class Dense:
    """The likelihood from its definition, in natural parameters."""

    def __init__(self, model: me.LinearMixedModel) -> None:
        self.X, self.y, self.reml = model.X, model.y, model.reml
        weights = model.frame.weights
        self.R0 = np.eye(len(self.y)) if weights is None else np.diag(1.0 / weights)
        self.parts, self.lower, self.upper, self.start = [], [], [], []
        for term in model.frame.terms:
            n, k = term.z.shape
            Z = np.zeros((n, term.n_levels, k))
            Z[np.arange(n), term.codes] = term.z
            kind = "diag" if term.structure == "us" else term.structure
            assert term.structure != "us" or k == 1
            structure = CovarianceStructure(kind, k, term.homogeneous)
            self.parts.append((Z, structure))
            self.lower += [0.0] * structure.n_sd
            self.upper += [np.inf] * structure.n_sd
            self.start += [1.0] * structure.n_sd
            if structure.has_correlation:
                self.lower.append(-1.0 / (k - 1) if kind == "cs" else -1.0)
                self.upper.append(1.0)
                self.start.append(0.3)
        self.lower.append(1e-3)
        self.upper.append(np.inf)
        self.start.append(1.0)

    def V(self, parameters: Matrix) -> Matrix:
        V, at = parameters[-1] ** 2 * self.R0, 0
        for Z, structure in self.parts:
            Sigma = by_hand(structure, parameters[at : at + structure.n_parameters])
            at += structure.n_parameters
            V = V + np.einsum("ila,ab,jlb->ij", Z, Sigma, Z, optimize=True)
        return V

    def criterion(self, parameters: Matrix) -> float:
        V = self.V(parameters)
        root = np.linalg.cholesky(V)
        X, y = np.linalg.solve(root, self.X), np.linalg.solve(root, self.y)
        beta, *_ = np.linalg.lstsq(X, y, rcond=None)
        n, p = X.shape
        d = 2.0 * np.log(np.diag(root)).sum() + np.sum((y - X @ beta) ** 2)
        if self.reml:
            return float(d + np.linalg.slogdet(X.T @ X)[1] + (n - p) * np.log(2.0 * np.pi))
        return float(d + n * np.log(2.0 * np.pi))

    def minimum(self) -> tuple[float, Matrix]:
        result = scipy.optimize.minimize(
            self.criterion,
            self.start,
            method="L-BFGS-B",
            bounds=list(zip(self.lower, self.upper, strict=True)),
            options={"ftol": 1e-13, "gtol": 1e-6, "maxiter": 500},
        )
        return float(result.fun), result.x


FORMULAS = {
    "y ~ x + diag(0 + week | id)": (True, None),
    "y ~ x + diag(1 + t | id)": (False, "w"),
    "y ~ x + diag(0 + week | id, hom = TRUE)": (True, "w"),
    "y ~ x + cs(0 + week | id)": (False, None),
    "y ~ x + cs(1 + t | id) + (1 | room)": (True, "w"),
    "y ~ x + cs(0 + week | id, hom = TRUE)": (True, None),
    "y ~ x + ar1(0 + week | id)": (True, "w"),
    "y ~ x + ar1(0 + week | id, hom = FALSE)": (False, None),
    "y ~ x + (1 | room) + ar1(0 + week | id)": (True, None),
}


@pytest.mark.parametrize("formula", FORMULAS)
def test_fits_against_a_dense_likelihood(formula: str) -> None:
    reml, weights = FORMULAS[formula]
    model = me.lmer(formula, simulated(1), reml=reml, weights=weights)
    dense = Dense(model)
    value, parameters = dense.minimum()
    ours = model.covariance_parameters.to_numpy()
    assert dense.criterion(ours) == pytest.approx(model.criterion, abs=1e-8)
    assert model.criterion <= value + 1e-7
    assert model.criterion == pytest.approx(value, abs=1e-4)
    assert_allclose(ours, parameters, rtol=0.02, atol=2e-3)
    assert_allclose(model.V.dense(), dense.V(ours), atol=1e-9)
    assert model.converged
    assert model.optimum.certificate.holds
    assert model.n_parameters == model.X.shape[1] + len(ours)
    assert model.aic == pytest.approx(model.criterion + 2.0 * model.n_parameters)
    assert model.df_resid == model.nobs - model.n_parameters
    assert model.loglik_at(model.theta, model.sigma) == pytest.approx(model.loglik, abs=1e-8)


def points() -> list[tuple[StructuredPoint, Any, bool]]:
    """Points away from the optimum, in nested and crossed designs, with free terms beside."""
    found = []
    for formula in (
        "y ~ x + cs(1 + t | id) + (1 | room)",
        "y ~ x + ar1(0 + week | id, hom = FALSE) + (1 + x | room)",
        "y ~ x + ar1(0 + week | id) + diag(1 + x | id)",
        "y ~ x + cs(0 + week | id, hom = TRUE)",
    ):
        model = me.lmer(formula, simulated(2), weights="w")
        p, A = model.optimum.parameterisation, model.fit.crossproducts
        assert p is not None
        rng = np.random.default_rng(3)
        eta = np.clip(np.abs(model.optimum.eta) + 0.3 * rng.random(p.n_parameters), 0.1, 0.9)
        found.append((StructuredPoint(A, p, eta, model.reml), A, model.reml))
    return found


def test_gradient_and_model_against_differences() -> None:
    for point, A, reml in points():
        p, eta, m = point.parameterisation, point.eta, len(point.eta)
        model = point.model()
        assert model.at(np.zeros(m))[0] == 0.0
        assert_allclose(model.at(np.zeros(m))[1], point.gradient, rtol=1e-9, atol=1e-9)
        step = 0.1 * np.random.default_rng(5).normal(size=m)
        value, gradient, hessian = model.at(step)
        for j in range(m):
            h = np.zeros(m)
            h[j] = 1e-5
            up, down = (StructuredPoint(A, p, eta + s * h, reml).value for s in (1.0, -1.0))
            assert point.gradient[j] == pytest.approx((up - down) / 2e-5, rel=1e-4, abs=1e-4)
            above, below = model.at(step + h), model.at(step - h)
            assert gradient[j] == pytest.approx((above[0] - below[0]) / 2e-5, rel=1e-5, abs=1e-5)
            assert_allclose(hessian[j], (above[1] - below[1]) / 2e-5, rtol=1e-5, atol=1e-4)
        assert np.isfinite(value)


def test_the_same_in_the_coordinates_of_a_face() -> None:
    for inner, A, reml in points():
        p, eta = inner.parameterisation, inner.eta.copy()
        # One parameter is held, the others move.
        eta[1] = 0.0 if p.is_deviation[1] else 1.0
        face = Face(p, eta, 1e3)
        z, m = face.start, len(face.start)
        assert 0 < m < len(eta)
        assert_allclose(face.parameters(z)[0], eta, atol=1e-14)

        def at(z: Matrix, face: Face = face, A: Any = A, reml: bool = reml) -> FacePoint:
            there = StructuredPoint(A, face.parameterisation, face.parameters(z)[0], reml)
            return FacePoint(face, z, there)

        point = at(z)
        model = point.model()
        rng = np.random.default_rng(6)
        step, correction = 0.1 * rng.normal(size=m), rng.normal(size=(m, m))
        correction = correction + correction.T
        assert model.at(np.zeros(m), correction)[0] == 0.0
        assert_allclose(model.at(np.zeros(m), correction)[1], point.gradient, atol=1e-9)
        _, gradient, hessian = model.at(step, correction)
        for h in 1e-5 * np.eye(m):
            assert h @ point.gradient == pytest.approx(
                (at(z + h).value - at(z - h).value) / 2.0, rel=1e-4, abs=1e-9
            )
            above, below = model.at(step + h, correction), model.at(step - h, correction)
            assert h @ gradient == pytest.approx((above[0] - below[0]) / 2.0, rel=1e-5, abs=1e-10)
            assert_allclose(h @ hessian, (above[1] - below[1]) / 2.0, rtol=1e-5, atol=1e-9)
        best, predicted = model.minimise(np.zeros((m, m)), 0.5)
        assert np.linalg.norm(best) <= 0.5 * (1 + 1e-6)
        assert predicted == pytest.approx(-model.at(best, np.zeros((m, m)))[0])
        assert predicted > 0.0


def test_information_along_directions_is_a_part_of_all_information() -> None:
    for point, _, _ in points():
        evaluation = point.evaluation
        model = point.model()
        assert isinstance(model, StructuredModel)
        rows = []
        offset, total = 0, len(evaluation.information)
        for U in model.bases:
            k = U.shape[1]
            for direction in U:
                row = np.zeros(total)
                column, line = np.triu_indices(k)
                row[offset : offset + len(line)] = direction[line, column]
                rows.append(row)
            offset += k * (k + 1) // 2
        L = np.array(rows)
        assert_allclose(model.information, L @ evaluation.information @ L.T, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    "formula", ["y ~ x + ar1(0 + week | id)", "y ~ x + (1 | id) + cs(0 + week | room)"]
)
def test_many_columns_give_the_same_fit(formula: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then information is computed along the structure alone, the start's included."""
    data = simulated(2)
    usual = me.lmer(formula, data)
    monkeypatch.setattr(structured_point, "_MANY_COLUMNS", 0)
    along = me.lmer(formula, data)
    assert along.optimum.evaluations == usual.optimum.evaluations
    assert_allclose(along.optimum.path, usual.optimum.path, rtol=1e-10)
    assert_allclose(along.theta, usual.theta, atol=1e-7)


def test_a_start_from_the_rows_that_are_nearly_nested(monkeypatch: pytest.MonkeyPatch) -> None:
    data = simulated(2, n_id=30, k=4, reps=4)
    usual_room = data["id"].str[1:].astype(int) % 6
    stray = np.random.default_rng(0).random(len(data)) < 0.1
    data["room"] = np.where(stray, data["room"], "r" + usual_room.astype(str))
    usual = me.lmer("y ~ x + ar1(0 + week | id) + (1 | room)", data)
    starts = []

    def spy(*arguments: Any) -> Any:
        starts.append(original(*arguments))
        return starts[-1]

    original = subsample.subsample_start
    monkeypatch.setattr(subsample, "_LARGE_CORE", 0)
    monkeypatch.setattr(subsample, "_CHEAPER", 1.0)
    monkeypatch.setattr("mixedeffects.fitting.fitting.subsample_start", spy)
    model = me.lmer("y ~ x + ar1(0 + week | id) + (1 | room)", data)
    assert len(starts[0]) == 2
    assert model.criterion == pytest.approx(usual.criterion, abs=1e-8)


# --- the same model written in two ways ---------------------------------------------------


def compare(one: me.LinearMixedModel, other: me.LinearMixedModel, rtol: float = 1e-4) -> None:
    assert one.criterion == pytest.approx(other.criterion, abs=1e-7)
    assert one.n_parameters == other.n_parameters
    assert_allclose(one.V.dense(), other.V.dense(), atol=2e-4)
    for ddf in ("satterthwaite", "kr") if one.reml else ("satterthwaite",):
        table = [m.coef_table(ddf=ddf)[["Std. Error", "df"]] for m in (one, other)]
        assert_allclose(table[0], table[1], rtol=rtol)
    robust = [m.coef_table(vcov="CR2", cluster="id")[["Std. Error", "df"]] for m in (one, other)]
    assert_allclose(robust[0], robust[1], rtol=rtol)


def test_us_is_the_plain_bar_to_the_last_digit() -> None:
    data = simulated(4)
    plain = me.lmer("y ~ x + (1 + t | id)", data)
    named = me.lmer("y ~ x + us(1 + t | id)", data)
    assert_array_equal(plain.theta, named.theta)
    assert plain.optimum.evaluations == named.optimum.evaluations
    assert named.optimum.parameterisation is None
    assert named.frame.structured_terms == ()


def test_diag_is_the_double_bar() -> None:
    data = simulated(4)
    compare(me.lmer("y ~ x + diag(1 + t | id)", data), me.lmer("y ~ x + (1 + t || id)", data))


def test_compound_symmetry_of_two_columns_is_no_structure() -> None:
    data = simulated(4)
    compare(me.lmer("y ~ x + cs(1 + t | id)", data), me.lmer("y ~ x + (1 + t | id)", data))


def test_compound_symmetry_with_one_variance_is_two_random_intercepts() -> None:
    data = simulated(4)
    one = me.lmer("y ~ x + cs(0 + week | id, hom = TRUE)", data)
    two = me.lmer("y ~ x + (1 | id) + (1 | id:week)", data)
    compare(one, two)
    within, between = (two.varcorr.sd(key).iloc[0] ** 2 for key in ("id:week", "id"))
    assert one.covariance_parameters["sd|id"] == pytest.approx((within + between) ** 0.5, rel=1e-4)
    assert one.covariance_parameters["cor|id"] == pytest.approx(
        between / (within + between), rel=1e-4
    )


def test_autoregression_of_two_points_is_compound_symmetry() -> None:
    data = simulated(4, k=2, reps=4)
    compare(
        me.lmer("y ~ x + ar1(0 + week | id)", data),
        me.lmer("y ~ x + cs(0 + week | id, hom = TRUE)", data),
    )


# --- R ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    # glmmTMB finds no REML criterion for one of the models.
    [a for a in json.loads((FOLDER / "structured.json").read_text()) if a["criterion"] != "NA"],
    ids=lambda a: f"{a['by']} {a['formula']} {'REML' if a['reml'] else 'ML'}",
)
def test_answers_of_glmmTMB_and_nlme(answer: dict[str, Any]) -> None:
    data = pd.read_csv(FOLDER / f"{answer['data']}.csv", dtype={"Worker": str})
    model = me.lmer(answer["formula"], data, reml=answer["reml"])
    # nlme works with the logarithm of a variance and only comes close to one of zero.
    assert model.criterion == pytest.approx(answer["criterion"], abs=5e-5)
    assert model.n_parameters == answer["df"]
    assert_allclose(model.fixef, answer["fixef"], rtol=1e-4)
    assert model.sigma == pytest.approx(answer["sigma"], rel=1e-4)
    theirs = answer["varcorr"]
    theirs = list(theirs.values()) if isinstance(theirs, dict) else theirs
    for key, block in zip(model.varcorr, theirs, strict=True):
        assert_allclose(model.varcorr[key], block, atol=3e-4 * np.abs(block).max())
    if answer["by"] == "nlme":
        # glmmTMB's take the uncertainty of the variances into account.
        assert_allclose(model.se, answer["se"], rtol=3e-4)


def test_published_answers_of_lme4() -> None:
    """Of lme4 2 itself: its issue 940 (``ar1``) and pull request 910 (``diag``), both by ML."""
    data = me.load_dataset("sleepstudy")
    ar1 = me.lmer("Reaction ~ factor(Days) + ar1(0 + factor(Days) | Subject)", data, reml=False)
    sd, correlation, sigma = ar1.covariance_parameters
    assert_allclose([sd / sigma, correlation], [3.1651148, 0.8802567], rtol=2e-5)
    diag = me.lmer("Reaction ~ Days + diag(Days | Subject)", data, reml=False)
    assert_allclose(np.diag(diag.varcorr["Subject"]), [584.2657, 33.63265], rtol=1e-4)


# --- inference ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "formula", ["y ~ x + ar1(0 + week | id, hom = FALSE) + (1 | room)", "y ~ x + cs(1 + t | id)"]
)
def test_curvature_and_jacobian_against_differences(formula: str) -> None:
    model = me.lmer(formula, simulated(6), weights="w")
    optimum, A = model.optimum, model.fit.crossproducts
    p, eta = optimum.parameterisation, optimum.eta
    assert p is not None
    assert eta is not None
    at = np.append(eta, model.sigma)

    def theta(parameters: Matrix) -> Matrix:
        T = [A.basis.relative_factor(t, f) for t, f in enumerate(p.factors(parameters))]
        return me.engine.parameters.T_to_theta(T)

    def deviance(q: Matrix) -> float:
        return -2.0 * model.loglik_at(theta(q[:-1]), float(q[-1]))

    m, h = len(at), 2e-3
    H = np.zeros((m, m))
    unit = h * np.eye(m)
    for i in range(m):
        for j in range(m):
            a, b = unit[i], unit[j]
            H[i, j] = (
                deviance(at + a + b)
                - deviance(at + a - b)
                - deviance(at - a + b)
                + deviance(at - a - b)
            ) / (4.0 * h * h)
    size = np.sqrt(np.diag(H))
    scale = np.outer(size, size)
    assert_allclose(optimum.curvature.hessian / scale, H / scale, atol=2e-4)
    jacobian = model.satterthwaite.jacobian
    for i in range(m):
        h = 1e-5
        up, down = (
            model.V.at(theta(q[:-1]), float(q[-1])).gls(model.X, model.y).vcov.to_numpy()
            for q in (at + h * np.eye(m)[i], at - h * np.eye(m)[i])
        )
        assert_allclose(jacobian[i], (up - down) / (2 * h), rtol=1e-4, atol=1e-6)


def test_kenward_roger_against_n_by_n_matrices() -> None:
    """First-order derivatives of V from the definition; the adjustment without second ones."""
    model = me.lmer("y ~ x + ar1(0 + week | id, hom = FALSE)", simulated(6), weights="w")
    dense, at = Dense(model), model.covariance_parameters.to_numpy()
    X, V_inverse = model.X, np.linalg.inv(dense.V(at))
    Phi = np.linalg.inv(X.T @ V_inverse @ X)
    m = len(at)
    dV = [
        (dense.V(at + h) - dense.V(at - h)) / 2e-5 for h in 1e-5 * np.eye(m)
    ]  # Sigma is polynomial of low degree
    P = [-X.T @ V_inverse @ D @ V_inverse @ X for D in dV]
    Q = [[X.T @ V_inverse @ D @ V_inverse @ E @ V_inverse @ X for E in dV] for D in dV]
    projection = V_inverse - V_inverse @ X @ Phi @ X.T @ V_inverse
    information = np.array(
        [[0.5 * np.trace(projection @ D @ projection @ E) for E in dV] for D in dV]
    )
    W = np.linalg.inv(information)
    U = sum(W[r, s] * (Q[r][s] - P[r] @ Phi @ P[s]) for r in range(m) for s in range(m))
    assert_allclose(model.kenward_roger.vcov, Phi + 2.0 * Phi @ U @ Phi, rtol=1e-5, atol=1e-8)
    for i in range(X.shape[1]):
        gradient = np.array([-(Phi @ p @ Phi)[i, i] for p in P])
        df = 2.0 * Phi[i, i] ** 2 / (gradient @ W @ gradient)
        assert model.kenward_roger.df(np.eye(X.shape[1])[i]) == pytest.approx(df, rel=1e-5)


# --- at the boundary ------------------------------------------------------------------------


def without_effects(seed: int = 0) -> pd.DataFrame:
    """Persons that differ less than chance would have it."""
    data = simulated(seed)
    rng = np.random.default_rng(seed)
    data["y"] = 1.0 + data["x"] + rng.normal(size=len(data))
    data["y"] -= data.groupby(["id", "week"])["y"].transform("mean")
    return data


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ x + diag(0 + week | id)",
        "y ~ x + diag(0 + week | id, hom = TRUE)",
        "y ~ x + cs(0 + week | id)",
        "y ~ x + cs(0 + week | id, hom = TRUE)",
        "y ~ x + ar1(0 + week | id)",
        "y ~ x + ar1(0 + week | id, hom = FALSE)",
    ],
)
def test_no_variance_at_all(formula: str) -> None:
    model = quiet(formula, without_effects())
    assert model.is_singular
    assert model.converged
    assert_array_equal(model.theta, 0.0)
    ols = np.linalg.lstsq(model.X, model.y, rcond=None)[0]
    assert_allclose(model.fixef, ols, rtol=1e-8)
    null_score = model.optimum.null_score
    assert null_score is not None
    assert null_score > 0.0
    parameters = model.covariance_parameters
    assert_array_equal(parameters.filter(regex="^sd"), 0.0)
    assert parameters.filter(regex="^cor").isna().all()
    # No uncertainty is left but sigma's, as in lmerTest.
    assert_allclose(model.satterthwaite.df([[0.0, 1.0]]), model.nobs - 2, rtol=1e-6)
    assert "singular" in str(model.summary())


def test_one_variance_of_zero() -> None:
    data = simulated(8, n_id=25)
    late = data["week"] == "w3"
    data.loc[late, "y"] = 1.0 + np.random.default_rng(0).normal(size=late.sum())
    data.loc[late, "y"] -= data[late].groupby("id")["y"].transform("mean")
    for structure in ("diag", "cs"):
        model = quiet(f"y ~ x + week + {structure}(0 + week | id)", data)
        sd = model.varcorr.sd("id")
        assert sd["weekw3"] == 0.0
        assert (sd[:3] > 0.3).all()
        assert model.is_singular
        assert model.optimum.certificate.holds
        value, parameters = Dense(model).minimum()
        assert model.criterion <= value + 1e-7
        assert_allclose(model.covariance_parameters, parameters, atol=5e-3)
        assert np.isfinite(model.coef_table()["df"]).all()
        assert np.isfinite(model.coef_table(ddf="kr")["df"]).all()


def test_the_most_negative_correlation() -> None:
    """Effects that sum to zero within every person."""
    data = simulated(9, n_id=30, reps=3)
    rng = np.random.default_rng(1)
    effect = rng.normal(size=(30, 4)) * 1.5
    effect -= effect.mean(axis=1, keepdims=True)
    person, week = data["id"].str[1:].astype(int), data["t"].astype(int)
    data["y"] = effect[person, week] + rng.normal(size=len(data)) * 0.5
    data["y"] -= data.groupby("id")["y"].transform("mean")
    model = quiet("y ~ x + cs(0 + week | id, hom = TRUE)", data)
    assert model.covariance_parameters["cor|id"] == pytest.approx(-1.0 / 3.0, abs=1e-12)
    assert model.is_singular
    assert model.optimum.certificate.holds
    assert model.criterion <= Dense(model).minimum()[0] + 1e-7


def test_a_start_without_variance_is_left() -> None:
    data = simulated(10)
    best = me.lmer("y ~ x + cs(0 + week | id)", data)
    for kind in ("cs", "ar1", "diag"):
        model = me.lmer(f"y ~ x + {kind}(0 + week | id)", data)
        again = me.lmer(f"y ~ x + {kind}(0 + week | id)", data, start=np.zeros(10))
        assert again.criterion == pytest.approx(model.criterion, abs=1e-7)
    far = me.lmer("y ~ x + cs(0 + week | id)", data, start=100.0 * best.theta)
    assert far.criterion == pytest.approx(best.criterion, abs=1e-7)


@pytest.mark.parametrize(
    ("formula", "seed", "n_id", "k"),
    [("y ~ x + cs(0 + week | id)", 104, 14, 5), ("y ~ x + cs(0 + week | id)", 108, 17, 5)],
)
def test_minima_at_the_boundary_are_left(formula: str, seed: int, n_id: int, k: int) -> None:
    """Hardly any variance between persons: some minimum with variances of zero is near."""
    data = simulated(seed, n_id=n_id, k=k)
    data["y"] = data["x"] + np.random.default_rng(seed).normal(size=len(data))
    model = quiet(formula, data)
    dense = Dense(model)
    for first in (0.2, 1.0):
        for rho in (-0.1, 0.5):
            dense.start = [first] * k + [rho, 1.0]
            assert model.criterion <= dense.minimum()[0] + 1e-6


def test_a_term_that_takes_the_residual_variance() -> None:
    data = simulated(0, n_id=40, k=5, reps=1)
    rng = np.random.default_rng(0)
    lag = np.abs(np.subtract.outer(np.arange(5), np.arange(5)))
    effects = rng.normal(size=(40, 5)) @ np.linalg.cholesky(0.5**lag).T
    data["y"] = effects[data["id"].str[1:].astype(int), data["t"].astype(int)]
    with pytest.warns(me.ConvergenceWarning, match="next to nothing: every row has its own effect"):
        model = me.lmer("y ~ x + ar1(0 + week | id)", data)
    assert model.covariance_parameters["cor|id"] == pytest.approx(0.5, abs=0.1)


def test_evaluations_run_out_with_a_warning() -> None:
    with pytest.warns(me.ConvergenceWarning, match="evaluations"):
        me.lmer("y ~ x + cs(0 + week | id)", simulated(10), control=me.Control(max_evaluations=2))


# --- what comes after the fit ---------------------------------------------------------------


def test_each_structure_stays_with_its_grouping_factor() -> None:
    """Terms are put in another order than written where a later factor has more levels."""
    data = simulated(11, n_id=20)
    one = me.lmer("y ~ x + cs(1 + x | room) + ar1(0 + week | id)", data)
    other = me.lmer("y ~ x + ar1(0 + week | id) + cs(1 + x | room)", data)
    assert one.criterion == pytest.approx(other.criterion, abs=1e-8)
    assert list(one.varcorr) == list(other.varcorr) == ["id", "room"]
    assert one.frame.structured_terms == ("id", "room")
    correlation = one.varcorr.corr("id").to_numpy()
    assert correlation[0, 2] == pytest.approx(correlation[0, 1] ** 2)


def test_one_row_for_each_effect_is_enough_for_an_autoregression() -> None:
    data = simulated(13, n_id=40, k=5, reps=1)
    model = me.lmer("y ~ x + ar1(0 + week | id)", data)
    assert model.varcorr.corr("id").iloc[0, 1] > 0.2
    assert model.criterion <= Dense(model).minimum()[0] + 1e-6


def test_refit_update_and_the_rest_of_the_model() -> None:
    data = simulated(13)
    model = me.lmer("y ~ x + ar1(0 + week | id)", data)
    again = model.refit(model.y)
    assert again.criterion == pytest.approx(model.criterion, abs=1e-8)
    drawn = model.refit(np.asarray(model.fitted) + np.random.default_rng(0).normal(size=model.nobs))
    assert drawn.frame.structured_terms == ("id",)
    assert drawn.n_parameters == model.n_parameters
    more = model.update(". ~ . + t")
    assert more.formula == "y ~ x + ar1(0 + week | id) + t"
    assert more.frame.structured_terms == ("id",)
    G = model.varcorr["id"].to_numpy()
    assert_allclose(model.G.blocks(), G)
    T = model.getme("Tlist")["id"]
    assert_allclose(model.sigma**2 * T @ T.T, G, atol=1e-12)
    assert_allclose(np.triu(T, 1), 0.0)
    assert model.ranef()["id"].shape == (15, 4)
    assert model.leverage().between(0, 1).all()
    V = me.marginal_covariance(model.formula, data, G=model.varcorr)
    assert_allclose(V.dense(), model.V.dense(), atol=1e-10)
    with pytest.raises(me.ModelError, match="not of the structure `ar1`"):
        me.marginal_covariance(model.formula, data, G={"id": np.diag([1.0, 2, 3, 4])}, sigma=1.0)
    assert model.glance()["AIC"].iloc[0] == pytest.approx(model.criterion + 2 * 5)
    assert len(model.getme("theta")) == 10


def test_printed_once_each() -> None:
    data = simulated(13)
    text = str(me.lmer("y ~ x + ar1(0 + week | id)", data).varcorr)
    assert "weekw0, ..., weekw3" in text
    assert text.count("(ar1)") == 1
    assert len(text.splitlines()) == 3
    cs = me.lmer("y ~ x + cs(0 + week | id) + (1 + x | room)", data)
    lines = str(cs.varcorr).splitlines()
    assert "(cs)" in lines[1]
    assert len(lines) == 8
    assert "(cs)" in str(cs.summary())
    diag = me.lmer("y ~ x + diag(0 + week | id)", data)
    assert "Corr" not in str(diag.varcorr)
    assert len(diag.varcorr.to_frame()) == 5
    assert list(diag.covariance_parameters.index) == [
        *(f"sd_weekw{j}|id" for j in range(4)),
        "sigma",
    ]
    plain = me.lmer("y ~ x + (1 + t | id)", data)
    assert list(plain.covariance_parameters.index) == [
        "sd_(Intercept)|id",
        "cor_t.(Intercept)|id",
        "sd_t|id",
        "sigma",
    ]


# --- formulas ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("us(1 + x | g)", "(1 + x | g)"),
        ("diag(x | g)", "diag(x | g)"),
        ("diag(x|g, hom=TRUE)", "diag(x | g, hom = TRUE)"),
        ("diag(x | g, hom = FALSE)", "diag(x | g)"),
        ("cs((1 + x | g))", "cs(1 + x | g)"),
        ("cs(0 + f | a/b)", "cs(0 + f | b:a) + cs(0 + f | a)"),
        ("ar1(0 + f | g, hom = TRUE)", "ar1(0 + f | g)"),
        ("ar1(0 + f | g, hom = False)", "ar1(0 + f | g, hom = FALSE)"),
        ("(1 | h) + cs(f | g)", "(1 | h) + cs(f | g)"),
    ],
)
def test_formulas_are_read(written: str, read: str) -> None:
    formula = parse_formula(f"y ~ z + {written}")
    assert " + ".join(str(bar) for bar in formula.random) == read
    assert formula.fixed == "z"
    alone = parse_formula(f"y ~ {written}")
    assert alone.random == formula.random
    assert " + ".join(str(bar) for bar in parse_formula(f"y ~ z + {read}").random) == read


def test_a_column_may_have_the_name_of_a_structure() -> None:
    formula = parse_formula("y ~ cs + diag + I(a | b) + (1 | ar1)")
    assert formula.fixed == "cs + diag + I(a | b)"
    assert [bar.structure for bar in formula.random] == ["us"]


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ("toep(0 + f | g)", "`toep` is not a covariance structure.*`us`, `diag`, `cs`, `ar1`"),
        ("homcs(0 + f | g)", "is `cs\\(..., hom = TRUE\\)` here"),
        ("cs(f | g, hom = 1)", "`hom` must be TRUE .* or FALSE .*, not `1`"),
        ("cs(f | g, TRUE)", "takes only `hom = TRUE` or `hom = FALSE`, not `TRUE`"),
        ("cs(f | g, het = TRUE)", "takes only .* not `het = ...`"),
        ("cs(f | g, hom = TRUE, hom = TRUE)", "takes `hom` once"),
        ("us(f | g, hom = TRUE)", "`us` is a covariance matrix without structure"),
        ("cs(f || g)", "write one bar"),
        ("cs(f)", "needs a random-effects term with one bar"),
        ("cs((a | b) | g)", "one bar"),
        ("z:cs(f | g)", "can only be added"),
    ],
)
def test_errors_in_formulas(term: str, message: str) -> None:
    with pytest.raises(me.FormulaError, match=message):
        parse_formula(f"y ~ x + {term}")


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ("ar1(week | id)", "needs a factor without intercept.*ar1\\(0 \\+ week \\| id\\)"),
        ("ar1(0 + t | id)", "needs a factor without intercept"),
        ("ar1(1 | id)", "needs a factor without intercept"),
        ("ar1(0 + week + x | id)", "needs a factor without intercept"),
        ("cs(1 | id)", "has one column"),
        ("cs(0 + x | id)", "has one column, `x`"),
    ],
)
def test_errors_about_columns(term: str, message: str) -> None:
    data = simulated(1).assign(same="a")
    with pytest.raises(me.ModelError, match=message):
        me.lmer(f"y ~ x + {term}", data)


@pytest.mark.parametrize(
    ("term", "k"),
    [
        ("diag(0 + week | id)", 4),
        ("diag(0 + week | id, hom = TRUE)", 4),
        ("cs(0 + week | id, hom = TRUE)", 4),
        ("cs(0 + week | id)", 2),
        ("ar1(0 + week | id)", 2),
    ],
)
def test_effects_of_one_row_each_are_refused(term: str, k: int) -> None:
    with pytest.raises(me.ModelError, match="cannot be told from the residual variance"):
        me.lmer(f"y ~ x + {term}", simulated(1, k=k, reps=1))


def test_find_structured_optimum_needs_no_start() -> None:
    model = me.lmer("y ~ x + cs(0 + week | id)", simulated(1))
    p = model.optimum.parameterisation
    assert p is not None
    optimum = find_structured_optimum(model.fit.crossproducts, True, p)
    assert_allclose(optimum.eta, model.optimum.eta)


# --- what follows a fit ------------------------------------------------------------------


@pytest.fixture(scope="module")
def repeated() -> pd.DataFrame:
    """30 groups, two times of four rows each."""
    rng = np.random.default_rng(3)
    g, f = np.repeat(np.arange(30), 8), np.tile(np.repeat(np.arange(2), 4), 30)
    effects = rng.standard_normal((30, 2)) @ np.array([[1.5, 0.9], [0.0, 0.8]])
    x = rng.standard_normal(240)
    y = 1.0 + 0.5 * x + effects[g, f] + rng.standard_normal(240)
    return pd.DataFrame({"y": y, "x": x, "g": g.astype(str), "f": pd.Categorical(f.astype(str))})


def test_bootstrap_refits_keep_the_structure(repeated: pd.DataFrame) -> None:
    m = me.lmer("y ~ x + ar1(0 + f | g)", repeated)
    boot = m.bootstrap(6, seed=2)
    assert list(boot.draws) == ["sd|g", "cor|g", "sigma", "(Intercept)", "x"]
    for i, name in enumerate(m.simulate(6, seed=2)):
        again = m.refit(m.simulate(6, seed=2)[name])
        np.testing.assert_allclose(
            boot.draws.iloc[i, :3], again.covariance_parameters, rtol=1e-5, atol=1e-8
        )
        np.testing.assert_allclose(boot.draws.iloc[i, 3:], again.fixef, rtol=1e-6)
        assert boot.criterion[i] == pytest.approx(again.criterion, abs=1e-7)


def test_wald_intervals_are_those_of_the_same_model_written_freely(repeated: pd.DataFrame) -> None:
    free = me.lmer("y ~ x + (0 + f | g)", repeated).confint()
    cs = me.lmer("y ~ x + cs(0 + f | g)", repeated).confint()
    pairs = {
        "sd_f0|g": "sd_f0|g",
        "sd_f1|g": "sd_f1|g",
        "cor|g": "cor_f1.f0|g",
        "sigma": "sigma",
        "x": "x",
    }
    for own, ordinary in pairs.items():
        np.testing.assert_allclose(cs.loc[own], free.loc[ordinary], rtol=2e-4)
    split = me.lmer("y ~ x + (1 | g) + (0 + x | g)", repeated).confint()
    diag = me.lmer("y ~ x + diag(1 + x | g)", repeated).confint()
    np.testing.assert_allclose(diag.loc["sd_(Intercept)|g"], split.iloc[0], rtol=2e-4)


def test_influence_and_tidy_list_the_parameters_of_the_structure(repeated: pd.DataFrame) -> None:
    m = me.lmer("y ~ x + cs(0 + f | g, hom = TRUE)", repeated)
    refitted = m.influence("g", refit=True)
    assert list(refitted.variance_parameters) == ["sd|g", "cor|g", "sigma"]
    subset = me.lmer(m.formula, repeated[repeated["g"] != "4"])
    np.testing.assert_allclose(
        refitted.variance_parameters.loc["4"], subset.covariance_parameters, rtol=1e-4
    )
    tidy = m.tidy("ran_pars")
    assert tidy["term"].tolist() == ["sd", "cor", "sd__Observation"]
    np.testing.assert_allclose(tidy["estimate"], m.covariance_parameters)


def test_a_structured_term_is_taken_out_whole(repeated: pd.DataFrame) -> None:
    m = me.lmer("y ~ x + ar1(0 + f | g)", repeated)
    table = m.ranova().to_frame()
    assert table["Df"].tolist()[1:] == [2.0]
    assert table.index[1] == "ar1(0 + f | g)"


def test_profiles_are_refused_with_the_alternatives(repeated: pd.DataFrame) -> None:
    m = me.lmer("y ~ x + cs(0 + f | g)", repeated)
    with pytest.raises(me.ModelError, match=r"Profiles are not available .* in g; confint\(method"):
        m.profile()


def test_tables_and_documents_have_the_parameters_of_the_structure(repeated: pd.DataFrame) -> None:
    m = me.lmer("y ~ x + ar1(0 + f | g)", repeated)
    document = m.to_dict()
    assert document["covariance_parameters"] == pytest.approx(m.covariance_parameters.to_dict())
    assert document["random_effects"][0]["structure"] == "ar1"
    text = str(me.etable([m]))
    assert "g: SD " in text and "g: corr." in text and "corr. f0" not in text
    heterogeneous = str(me.etable([me.lmer("y ~ x + cs(0 + f | g)", repeated)]))
    assert "g: SD f0" in heterogeneous and "g: SD f1" in heterogeneous
