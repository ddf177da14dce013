"""V as people use it: R's numbers, its parts, its square roots, samples, and V without a fit."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg
from hypothesis import given, settings
from numpy.testing import assert_allclose

import mixedeffects as me
from designs import KINDS, Design, designs, make_design
from mixedeffects.covariance import whitening
from mixedeffects.engine.parameters import theta_to_T
from operators import SIGMA, operator
from references import REFERENCE, fitted_model

fast = settings(max_examples=25, deadline=None)


@cache
def stored(name: str) -> dict[str, Any]:
    answers = json.loads((REFERENCE / "inference" / "marginal.json").read_text())
    return answers[name]


def crossed_data(name: str) -> pd.DataFrame:
    return pd.read_csv(REFERENCE / "inference" / f"{name}.csv")


# --- against R -------------------------------------------------------------------------


@cache
def model_of(name: str) -> me.LinearMixedModel:
    if name == "penicillin":
        formula = "diameter ~ x + (1 | plate) + (1 | sample)"
        return me.lmer(formula, crossed_data("penicillin_x"))
    if name == "insteval1500":
        formula = "y ~ factor(service) + lectage + (1 | s) + (1 | d)"
        return me.lmer(formula, crossed_data("insteval1500"))
    return fitted_model("star_sample" if name == "konly" else name)


@pytest.mark.parametrize(
    "name", ["sleepstudy", "threelevel", "konly", "penicillin", "insteval1500"]
)
def test_V_is_that_of_R(name: str) -> None:
    R, m = stored(name), model_of(name)
    V = m.V.at(R["theta"], R["sigma"])
    assert V.shape == (R["n"], R["n"])
    assert_allclose(V.rows(range(12)), R["V_head"], rtol=1e-10, atol=1e-10)
    assert V.diag().sum() == pytest.approx(R["V_trace"], rel=1e-10)
    sparse = V.sparse()
    assert scipy.sparse.linalg.norm(sparse) == pytest.approx(R["V_frob"], rel=1e-10)
    first = V.solve(np.eye(R["n"], 12))[:12]
    assert_allclose(first, R["Vinv_head"], rtol=1e-8, atol=1e-10)
    assert V.logdet() == pytest.approx(R["logdetV"], rel=1e-10)
    beta = V.gls(m.X, m.y).coef
    # R's estimates are those of its V up to the accuracy of its own solver.
    assert_allclose(beta, R["fixef"], rtol=1e-7)
    residual = m.y - m.X @ beta
    assert V.quad(residual) == pytest.approx(R["quad"], rel=1e-9)
    for kind in ("cholesky", "symmetric"):
        expected = np.array(
            R["resid_whitened_chol" if kind == "cholesky" else "resid_whitened_sym"]
        )
        whitened = V.whiten(residual, kind=kind)[: len(expected)]
        assert_allclose(whitened, expected, rtol=1e-6, atol=1e-7)


def test_V_with_prior_weights_is_the_corrected_one() -> None:
    R = stored("kr_weights")
    data = me.load_dataset("sleepstudy").assign(w=R["w"])
    m = me.lmer("Reaction ~ Days + (Days | Subject)", data, weights="w")
    V = m.V.at(R["theta"], R["sigma"])
    result = V.gls(m.X, m.y)
    assert_allclose(result.coef, R["fixef"], rtol=1e-8)
    assert_allclose(result.vcov, R["vcov"], rtol=1e-7)
    T = theta_to_T(np.array(R["theta"]), [2])[0]
    Z = m.Z.toarray()
    G = np.kron(np.eye(18), R["sigma"] ** 2 * T @ T.T)
    dense = Z @ G @ Z.T + np.diag(R["sigma"] ** 2 / np.array(R["w"]))
    assert_allclose(V.dense(), dense, rtol=1e-10, atol=1e-8)


def test_V_at_the_estimates_is_V() -> None:
    for name in ("sleepstudy", "threelevel", "star_sample", "dyestuff2", "sleepstudy_zerocorr"):
        m = fitted_model(name)
        same = m.V.at(m.theta, m.sigma)
        assert abs(same.sparse() - m.V.sparse()).max() <= 1e-9 * m.V.diag().max()
        assert same.logdet() == pytest.approx(m.V.logdet(), rel=1e-10)


# --- identities on designs of every kind -------------------------------------------------


@fast
@given(design=designs)
def test_parts_sum_to_V(design: Design) -> None:
    V, dense = operator(design)
    x = np.random.default_rng(0).normal(size=len(dense))
    scale = np.abs(dense).max()
    parts = V.parts
    assert list(parts) == [*dict.fromkeys(t.group for t in V._terms), "Residual"]
    assert_allclose(sum(p.dense() for p in parts.values()), dense, atol=1e-9 * scale)
    assert_allclose(sum(p.sparse() for p in parts.values()).toarray(), dense, atol=1e-9 * scale)
    assert_allclose(sum(p @ x for p in parts.values()), dense @ x, atol=1e-8 * scale)
    assert_allclose(sum(p.diag() for p in parts.values()), np.diag(dense), rtol=1e-9)
    level, by = V._terms[0].levels[1], "g0"
    blocks = sum(p.block(level, by=by) for p in parts.values())
    assert_allclose(blocks, V.block(level, by=by), atol=1e-9 * scale)
    shares = parts.share()
    assert shares.sum() == pytest.approx(1.0)
    for name, part in parts.items():
        own = np.asarray(part)
        assert shares[name] == pytest.approx(np.mean(np.diag(own) / np.diag(dense)))
        assert_allclose(x @ part, x @ own, atol=1e-8 * scale)
        assert_allclose(part.aslinearoperator() @ x, own @ x, atol=1e-8 * scale)
        assert_allclose(part.rows([3, 1], [1, 2]), own[[3, 1]][:, [1, 2]], atol=1e-9 * scale)


@fast
@given(design=designs)
def test_products_rows_and_linear_operator(design: Design) -> None:
    V, dense = operator(design)
    n = len(dense)
    rng = np.random.default_rng(0)
    x, B = rng.normal(size=n), rng.normal(size=(n, 3))
    tolerance = 1e-9 * np.abs(dense).max() * n
    rows = rng.permutation(n)[:20]
    assert_allclose(V.rows(rows), dense[np.ix_(rows, rows)], atol=tolerance)
    assert_allclose(V.rows([-1, 0], [n - 1, 0]), dense[np.ix_([-1, 0], [-1, 0])], atol=tolerance)
    mask = np.arange(n) % 7 == 0
    assert_allclose(V.rows(mask, [0]), dense[mask][:, [0]], atol=tolerance)
    A = V.aslinearoperator()
    for product in (A @ B, A.T @ B, A.rmatmat(B), V @ pd.DataFrame(B), (B.T @ V).T):
        assert_allclose(product, dense @ B, atol=tolerance)
    for product in (A.matvec(x), A.rmatvec(x), x @ V, V @ pd.Series(x)):
        assert_allclose(product, dense @ x, atol=tolerance)
    assert_allclose(V.quad(pd.DataFrame(B)), V.quad(B))
    assert V.quad(pd.Series(x)) == V.quad(x)
    assert_allclose(V.G.dense().diagonal().sum() + V.R.diag().sum(), _trace(design))
    assert_allclose(
        (V.Z @ V.G.sparse() @ V.Z.T).toarray() + np.diag(V.R.diag()), dense, atol=tolerance
    )


def _trace(design: Design) -> float:
    factors = theta_to_T(design.theta, design.columns)
    random = sum(t.n_levels * (T**2).sum() for t, T in zip(design.terms, factors, strict=True))
    residual = len(design.y) if design.weights is None else (1.0 / design.weights).sum()
    return float(SIGMA**2 * (random + residual))


@fast
@given(design=designs)
def test_both_square_roots_whiten_V(design: Design) -> None:
    V, dense = operator(design)
    identity = np.eye(len(dense))
    symmetric = V.whiten(identity, kind="symmetric")
    assert_allclose(symmetric @ dense @ symmetric, identity, atol=1e-6)
    assert_allclose(symmetric, symmetric.T, atol=1e-8)
    lower = V.whiten(identity, kind="cholesky")
    assert_allclose(lower @ dense @ lower.T, identity, atol=1e-6)
    assert_allclose(lower, np.tril(lower), atol=1e-9)
    x = design.y
    for kind in ("cholesky", "symmetric"):
        w = V.whiten(x, kind=kind)
        assert w @ w == pytest.approx(V.quad(x), rel=1e-7)


@pytest.mark.parametrize("weights", [None, "equal", "by block", "unequal"])
def test_symmetric_root_by_every_route(weights: str | None) -> None:
    """Small and large blocks, through the random effects and through the block itself."""
    rng = np.random.default_rng(1)
    sizes = [1, 1, 2, 5, 5, 5, 40, 90, 90]
    g = np.repeat(np.arange(len(sizes)), sizes)
    data = pd.DataFrame({"x": rng.normal(size=len(g)), "g": g, "h": rng.integers(0, 3, len(g))})
    w = {"equal": np.full(len(g), 2.5), "by block": 1.0 + g, "unequal": rng.uniform(0.5, 2, len(g))}
    data = data.sample(frac=1.0, random_state=2)
    V = me.marginal_covariance(
        "~ x + (x | g) + (1 | g:h)",
        data,
        G={"g": [[2.0, 0.3], [0.3, 0.5]], "g:h": 0.7},
        sigma=0.8,
        weights=None if weights is None else w[weights][data.index],
    )
    dense = V.dense()
    values, vectors = np.linalg.eigh(dense)
    expected = (vectors / np.sqrt(values)) @ vectors.T
    assert_allclose(V.whiten(np.eye(len(g)), kind="symmetric"), expected, atol=1e-10)
    expected = np.linalg.inv(np.linalg.cholesky(dense))
    assert_allclose(V.whiten(np.eye(len(g)), kind="cholesky"), expected, atol=1e-10)


@pytest.mark.parametrize("scale", [0.0, 1e-160, 1e-9, 1e-4, 1.0, 1e4])
def test_symmetric_root_at_variances_of_every_size(scale: float) -> None:
    """No digits are lost where a variance is small, none invented where it is zero."""
    design = make_design("crossed", 3, weighted=False, singular=False)
    V = operator(design)[0].at(scale * design.theta, 1.0)
    dense = V.dense()
    root = V.whiten(np.eye(len(dense)), kind="symmetric")
    assert_allclose(root @ root @ dense, np.eye(len(dense)), atol=1e-6)
    # What differs from the identity is small itself, and right relative to its own size.
    first_order = np.eye(len(dense)) - root
    if 0.0 < scale < 1e-3:
        assert_allclose(
            first_order, (dense - np.eye(len(dense))) / 2, atol=max(1e-5 * scale**2, 1e-15)
        )


def test_effects_in_units_of_very_different_size() -> None:
    """A slope per nanosecond has a tiny variance that matters as much as the intercept's."""
    rng = np.random.default_rng(4)
    g, t = rng.integers(0, 8, 60), rng.normal(size=60)
    V = me.marginal_covariance(
        "~ t + (t | g)",
        {"t": 1e9 * t, "g": g},
        G={"g": np.array([[1.0, 3e-10], [3e-10, 1e-18]])},
        sigma=0.5,
    )
    same = me.marginal_covariance(
        "~ t + (t | g)", {"t": t, "g": g}, G={"g": np.array([[1.0, 0.3], [0.3, 1.0]])}, sigma=0.5
    )
    x = rng.normal(size=60)
    assert_allclose(V.dense(), same.dense(), atol=1e-12)
    assert V.logdet() == pytest.approx(same.logdet(), rel=1e-10)
    assert_allclose(V.solve(x), same.solve(x), atol=1e-9)
    root = V.whiten(np.eye(60), kind="symmetric")
    assert_allclose(root @ same.dense() @ root, np.eye(60), atol=1e-9)
    draws = V.sample(20_000, seed=5)
    assert_allclose(draws.var(axis=1), V.diag(), rtol=5.5 * np.sqrt(2.0 / 20_000))
    with pytest.raises(me.ModelError, match=r"smallest eigenvalue is -3"):
        G = np.array([[1.0, 2e-9], [2e-9, 1e-18]])
        me.marginal_covariance("~ t + (t | g)", {"t": t, "g": g}, G={"g": G}, sigma=0.5)


def test_large_factorisations_are_announced_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    V, _ = operator(make_design("crossed", 3, weighted=False, singular=False))
    weighted, _ = operator(make_design("crossed", 3, weighted=True, singular=False))
    n = V.shape[0]
    x = np.ones(n)
    refused = rf"largest connected block of V, {n} rows; it would take .* kB, more than the limit"
    with pytest.raises(me.ModelError, match=refused):
        V.whiten(x, max_gb=1e-9)
    with pytest.raises(me.ModelError, match=r"24 random effects in the largest.*max_gb="):
        V.whiten(x, kind="symmetric", max_gb=1e-9)
    with pytest.raises(me.ModelError, match=r"prior weights are unequal.*kind='cholesky'"):
        weighted.whiten(np.ones(weighted.shape[0]), kind="symmetric", max_gb=1e-9)
    V.whiten(x)
    V.whiten(x, kind="symmetric")
    # Between the cost of 24 random effects and that of all rows.
    monkeypatch.setattr(whitening, "_LARGE", 9.0 * 25**3)
    V.whiten(x, kind="symmetric")
    with pytest.warns(me.CostWarning, match="eigenvectors of a connected block"):
        weighted.whiten(np.ones(weighted.shape[0]), kind="symmetric")
    monkeypatch.setattr(whitening, "_LARGE", n**3 / 3.0 - 1.0)
    with pytest.warns(me.CostWarning, match=rf"{n} rows; it takes .* kB; .* operations"):
        V.whiten(x)
    monkeypatch.setattr(whitening, "_LARGE", 9.0 * 23**3)
    with pytest.warns(me.CostWarning, match="24 random effects"):
        V.whiten(x, kind="symmetric")


def test_many_small_groups_are_whitened_together() -> None:
    rng = np.random.default_rng(0)
    g = rng.integers(0, 20_000, 200_000)
    data = pd.DataFrame({"x": rng.normal(size=len(g)), "g": g})
    V = me.marginal_covariance("~ x + (x | g)", data, G={"g": np.diag([1.0, 0.3])}, sigma=1.0)
    x = rng.normal(size=len(g))
    level = np.flatnonzero(g == 7)
    block = V.rows(level)
    for kind in ("cholesky", "symmetric"):
        w = V.whiten(x, kind=kind)
        assert w @ w == pytest.approx(V.quad(x), rel=1e-10)
        root = scipy.linalg.sqrtm(block) if kind == "symmetric" else np.linalg.cholesky(block)
        assert_allclose(w[level], np.linalg.solve(root, x[level]), atol=1e-10)


@pytest.mark.slow
def test_insteval_has_symmetric_residuals() -> None:
    m = fitted_model("insteval")
    marginal = m.resid("marginal").to_numpy()
    with pytest.warns(me.CostWarning, match="4,128 random effects"):
        w = m.V.whiten(marginal, kind="symmetric")
    assert w @ w == pytest.approx(m.V.quad(marginal), rel=1e-9)


# --- SciPy's solvers -------------------------------------------------------------------


def test_scipy_solvers_take_V() -> None:
    m = fitted_model("threelevel")
    A = m.V.aslinearoperator()
    solved, info = scipy.sparse.linalg.cg(A, m.y, rtol=1e-12)
    assert info == 0
    assert_allclose(solved, m.V.solve(m.y), rtol=1e-8)
    largest = scipy.sparse.linalg.eigsh(A, k=2, v0=np.ones(150))[0]
    assert_allclose(largest, np.linalg.eigvalsh(m.V.dense())[-2:])


@fast
@given(design=designs)
def test_gls_with_a_linear_operator(design: Design) -> None:
    V, dense = operator(design)
    expected = me.gls(design.X, design.y, dense)
    result = me.gls(design.X, design.y, V.aslinearoperator())
    # Conjugate gradients stop at 1e-12 of a right-hand side, and coefficients may be near zero.
    assert_allclose((result.coef - expected.coef) / expected.se, 0.0, atol=1e-6)
    assert_allclose(result.vcov, expected.vcov, rtol=1e-5, atol=1e-9)


def linear_operator(matrix: Any) -> scipy.sparse.linalg.LinearOperator:
    return scipy.sparse.linalg.aslinearoperator(matrix)


def test_gls_checks_a_linear_operator() -> None:
    m = fitted_model("sleepstudy")
    dense = m.V.dense()
    with pytest.raises(me.ModelError, match=r"not symmetric: for two random vectors"):
        me.gls(m.X, m.y, linear_operator(np.triu(dense)))
    with pytest.raises(me.ModelError, match=r"not positive definite: x'Vx is -"):
        me.gls(m.X, m.y, linear_operator(dense - 2000.0 * np.eye(180)))
    with pytest.raises(me.DataError, match="complex"):
        me.gls(m.X, m.y, linear_operator(dense + 0j))
    with pytest.raises(me.DataError, match="not finite"):
        me.gls(m.X, m.y, linear_operator(np.where(dense > 0, np.nan, dense)))
    with pytest.raises(me.DataError, match="V is 100 x 100"):
        me.gls(m.X, m.y, linear_operator(np.eye(100)))
    hilbert = scipy.linalg.hilbert(180)
    with pytest.raises(me.ModelError, match=r"residual of|not positive definite"):
        me.gls(m.X, m.y, linear_operator(hilbert))
    with pytest.raises(me.DataError, match="X must be a matrix"):
        me.gls(np.ones((2, 2, 2)), m.y, m.V)
    with pytest.raises(me.DataError, match="array of numbers"):
        me.gls(m.X, ["a"] * 180, m.V)
    assert_allclose(me.gls(scipy.sparse.csc_array(m.X), m.y, m.V).coef, m.fixef, rtol=1e-9)


# --- samples ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_covariance_V(kind: str) -> None:
    """Every entry of the sample covariance within 5.5 of its standard errors."""
    V, dense = operator(make_design(kind, 5, weighted=kind != "crossed", singular=True))
    n_draws = 4000
    draws = V.sample(n_draws, seed=11)
    assert draws.shape == (len(dense), n_draws)
    error = np.sqrt((np.outer(np.diag(dense), np.diag(dense)) + dense**2) / n_draws)
    # n (n + 1) / 2 < 4,200 entries of 4e-8 each: the bound is exceeded once in 6,000 seeds.
    assert (np.abs(draws @ draws.T / n_draws - dense) < 5.5 * error).all()
    assert (np.abs(draws.mean(axis=1)) < 5.5 * np.sqrt(np.diag(dense) / n_draws)).all()


def test_sample_seed_mean_and_size() -> None:
    m = fitted_model("threelevel")
    one = m.V.sample(seed=3)
    assert one.shape == (150,)
    assert_allclose(one, m.V.sample(1, seed=np.random.default_rng(3))[:, 0])
    mean = m.X @ m.fixef.to_numpy()
    assert_allclose(m.V.sample(seed=3, mean=mean), one + mean)
    assert_allclose(m.V.sample(seed=3, mean=2.0), one + 2.0)
    for size in (0, -1, 2.0, True, "3"):
        with pytest.raises(me.ModelError, match="positive whole number"):
            m.V.sample(size)  # type: ignore[arg-type]
    with pytest.raises(me.DataError, match="150 rows"):
        m.V.sample(mean=np.ones(3))
    with pytest.raises(me.DataError, match="not finite"):
        m.V.sample(mean=np.nan)
    zero = m.V.at([0.0, 0.0], 1.0).sample(seed=1)
    assert 0.5 < zero.std() < 1.5


# --- parts -------------------------------------------------------------------------------


def test_shares_are_the_intraclass_correlations() -> None:
    m = fitted_model("threelevel")
    variances = {label: m.varcorr[label].iloc[0, 0] for label in m.varcorr}
    total = sum(variances.values()) + m.sigma**2
    shares = m.V.parts.share()
    assert list(shares.index) == ["tch.cl:sch.cl", "sch.cl", "Residual"]
    assert_allclose(shares[:2], np.array(list(variances.values())) / total)
    text = repr(m.V.parts)
    assert "tch.cl:sch.cl" in text and "46.7%" in text and "Total" in text
    html = m.V.parts._repr_html_()
    assert "<table>" in html and "46.7%" in html
    assert "37.3% of the marginal variance" in repr(m.V.parts["Residual"])
    school = m.V.parts["sch.cl"]
    assert school.shape == (150, 150)
    assert school.T is school
    assert_allclose(school.block("a"), m.varcorr["sch.cl"].iloc[0, 0])
    # A part is cut by any factor of the model, taking part or not.
    assert_allclose(school.block(("a", 3)), m.varcorr["sch.cl"].iloc[0, 0])
    with pytest.raises(me.ModelError, match=r"no part 'teacher'; the parts are 'tch.cl:sch.cl'"):
        m.V.parts["teacher"]
    assert m.V.parts.get("teacher") is None
    with pytest.raises(me.DataError, match=r"V\.parts\['sch\.cl'\] is 150 x 150"):
        school @ np.ones(3)
    with pytest.raises(me.ModelError, match=r"V\.parts\['sch\.cl'\] as a dense"):
        school.dense(max_gb=1e-6)


def test_terms_on_one_factor_make_one_part() -> None:
    m = fitted_model("sleepstudy_zerocorr")
    assert list(m.V.parts) == ["Subject", "Residual"]
    expected = m.V.dense() - m.sigma**2 * np.eye(180)
    assert_allclose(m.V.parts["Subject"].dense(), expected, atol=1e-9)


def test_a_factor_called_residual_keeps_its_name() -> None:
    data = me.load_dataset("dyestuff").rename(columns={"Batch": "Residual"})
    V = me.marginal_covariance("~ 1 + (1 | Residual)", data, G={"Residual": 3.0}, sigma=1.0)
    assert V.parts.share().round(2).to_dict() == {"Residual": 0.75, "Residual.1": 0.25}


# --- blocks by a factor ------------------------------------------------------------------


def test_blocks_by_a_factor_that_contains_them() -> None:
    m = fitted_model("threelevel")
    dense = m.V.dense()
    covered = np.zeros_like(dense)
    for level, rows, block in m.V.blocks(by="sch.cl"):
        covered[np.ix_(rows, rows)] = block
        assert_allclose(m.V.block(level), block)
    assert_allclose(covered, dense)


def test_blocks_by_a_factor_that_does_not_are_refused_with_an_example() -> None:
    m = fitted_model("threelevel")
    with pytest.raises(me.ModelError) as caught:
        m.V.blocks(by="tch.cl:sch.cl")  # before the first block is asked for
    message = str(caught.value)
    assert "30 of its 30 levels" in message
    assert "rows of level '1:a' share level 'a' of 'sch.cl' with rows of level '2:a'" in message
    assert "block-diagonal by 'sch.cl', and by its connected blocks" in message
    assert "partial=True" in message
    cut = list(m.V.blocks(by="tch.cl:sch.cl", partial=True))
    assert len(cut) == 30
    assert_allclose(cut[0][2], m.V.rows(range(5)))
    crossed = model_of("penicillin")
    with pytest.raises(me.ModelError, match=r"by 'plate': rows of 24 of its 24.*of 'sample'"):
        crossed.V.blocks(by="plate")
    with pytest.raises(me.ModelError, match="no grouping factor 'x'"):
        crossed.V.blocks(by="x", partial=True)


@fast
@given(design=designs)
def test_blocks_by_are_whole_or_refused(design: Design) -> None:
    V, dense = operator(design)
    for by in dict.fromkeys(term.group for term in V._terms):
        covered = np.zeros_like(dense)
        for _, rows, block in V.blocks(by=by, partial=True):
            covered[np.ix_(rows, rows)] = block
        shared = sum(term.codes[:, None] == term.codes[None, :] for term in V._terms) > 0
        own = next(term.codes for term in V._terms if term.group == by)
        whole = not (shared & (own[:, None] != own[None, :])).any()
        if whole:
            V.blocks(by=by)
            assert_allclose(covered, dense, atol=1e-9 * np.abs(dense).max())
        else:
            with pytest.raises(me.ModelError, match="not block-diagonal"):
                V.blocks(by=by)


# --- bad input ---------------------------------------------------------------------------


def test_bad_input_is_explained() -> None:
    m = fitted_model("sleepstudy")
    V = m.V
    with pytest.raises(me.ModelError, match=r"3 finite numbers.*got 2"):
        V.at([1.0, 0.0])
    with pytest.raises(me.ModelError, match="3 finite numbers"):
        V.at([1.0, np.nan, 0.0])
    with pytest.raises(me.DataError, match="array of numbers"):
        V.at("theta")
    with pytest.raises(me.ModelError, match=r"sigma = 0 .*singular"):
        V.at(m.theta, 0.0)
    for sigma in (-1.0, np.nan, np.inf, "a"):
        with pytest.raises(me.ModelError, match="positive number"):
            V.at(m.theta, sigma)  # type: ignore[arg-type]
    with pytest.raises(me.ModelError, match="numerically positive definite"):
        V.at([1e200, 0.0, 1.0])
    with pytest.raises(me.ModelError, match="nearest are '33"):
        V.block("338")
    with pytest.raises(me.DataError, match=r"x needs 180 columns; its shape is \(180, 2\)"):
        np.ones((180, 2)) @ V
    with pytest.raises(me.DataError, match="not finite"):
        np.full(180, np.inf) @ V
    with pytest.raises(me.DataError, match="complex"):
        V.solve(np.ones(180) + 1j)
    with pytest.raises(me.DataError, match="180 rows"):
        V.quad(np.ones(3))
    with pytest.raises(me.DataError, match="array of numbers"):
        V.quad(["a"] * 180)
    with pytest.raises(me.DataError, match=r"shape given is \(\)"):
        V @ 2.0
    with pytest.raises(IndexError, match="no position 180"):
        V.rows([0, 180])
    with pytest.raises(IndexError, match="whole numbers"):
        V.rows([0.5])
    with pytest.raises(IndexError, match="180 booleans"):
        V.rows([True, False])
    assert V.rows([]).shape == (0, 0)


# --- V without a fit -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["sleepstudy", "sleepstudy_zerocorr", "threelevel", "star_sample", "penicillin", "cake"]
)
def test_planned_V_with_the_estimates_is_V(name: str) -> None:
    m = fitted_model(name)
    data = m.frame.data
    for G in (m.varcorr, m.G, {label: m.G[label].to_numpy() for label in m.varcorr}):
        V = me.marginal_covariance(m.formula, data, G=G, sigma=m.sigma)
        assert abs(V.sparse() - m.V.sparse()).max() <= 1e-10 * m.V.diag().max()
        assert V.logdet() == pytest.approx(m.V.logdet(), rel=1e-9)
        assert_allclose(V.solve(m.y), m.V.solve(m.y), rtol=1e-6, atol=1e-9)
        assert_allclose(V.vcov(), m.vcov(), rtol=1e-6, atol=1e-12)
        assert list(V.X.columns) == list(m.fixef.index)
        assert_allclose(V.at(m.theta, m.sigma).vcov(), m.vcov(), rtol=1e-6, atol=1e-12)
    assert me.marginal_covariance(m.formula, data, G=m.varcorr).sigma == m.sigma


def test_the_response_is_not_read() -> None:
    data = me.load_dataset("sleepstudy")
    G, sigma = {"Subject": np.diag([600.0, 35.0])}, 25.0
    two = me.marginal_covariance("Reaction ~ Days + (Days | Subject)", data, G=G, sigma=sigma)
    design = data[["Days", "Subject"]]
    for formula in ("~ Days + (Days | Subject)", "log(y) ~ Days + (Days | Subject)"):
        V = me.marginal_covariance(formula, design, G=G, sigma=sigma)
        assert_allclose(V.rows(range(12)), two.rows(range(12)))
        assert list(V.X.columns) == ["(Intercept)", "Days"]
    missing = data.assign(Reaction=np.nan)
    V = me.marginal_covariance(
        "Reaction ~ . + (1 | Subject)", missing, G={"Subject": 9.0}, sigma=sigma
    )
    assert V.shape == (180, 180)
    assert list(V.X.columns) == ["(Intercept)", "Days"]
    gaps = design.assign(Days=design["Days"].where(design["Days"] > 0))
    V = me.marginal_covariance("~ Days + (Days | Subject)", gaps, G=G, sigma=sigma)
    assert V.shape == (162, 162)
    assert len(V.dropped.rows) == 18
    with pytest.raises(me.FormulaError, match="one `~`"):
        me.marginal_covariance("~ ~ Days + (1 | Subject)", design, G=G, sigma=sigma)
    with pytest.raises(me.FormulaError, match="response is missing"):
        me.lmer("~ Days + (Days | Subject)", data)


def test_designs_that_could_not_be_fitted() -> None:
    data = pd.DataFrame({"g": ["a", "b", "c"], "h": "one", "x": [0.0, 1.0, 2.0]})
    V = me.marginal_covariance("~ 1 + (1 | g) + (1 | h)", data, G={"g": 2.0, "h": 3.0}, sigma=1.0)
    assert_allclose(V.dense(), 3.0 + 3.0 * np.eye(3))
    assert_allclose(V.solve(V @ data["x"]), data["x"], atol=1e-12)
    assert_allclose(V.vcov(), [[3.0 + 3.0 / 3.0]])
    for kind in ("cholesky", "symmetric"):
        w = V.whiten(np.eye(3), kind=kind)
        assert_allclose(w @ V.dense() @ w.T, np.eye(3), atol=1e-12)
    slopes = me.marginal_covariance("~ x + (x | g)", data, G={"g": np.eye(2)}, sigma=1.0)
    assert_allclose(slopes.diag(), 2.0 + data["x"] ** 2)
    singular = me.marginal_covariance("~ x + (x | g)", data, G={"g": np.ones((2, 2))}, sigma=1.0)
    assert_allclose(singular.logdet(), np.linalg.slogdet(singular.dense())[1])
    nothing = me.marginal_covariance("~ 0 + (1 | g)", data, G={"g": 0}, sigma=2.0)
    assert_allclose(nothing.dense(), 4.0 * np.eye(3))
    with pytest.raises(me.ModelError, match="no fixed effects"):
        nothing.vcov()


@fast
@given(design=designs)
def test_planned_V_of_generated_designs(design: Design) -> None:
    _, dense = operator(design)
    factors = theta_to_T(design.theta, design.columns)
    columns = {"w": design.weights if design.weights is not None else np.ones(len(design.y))}
    bars, G, seen = [], {}, {}
    for t, (term, T) in enumerate(zip(design.terms, factors, strict=True)):
        names = [f"z{t}_{a}" for a in range(term.z.shape[1])]
        columns |= {name: term.z[:, a] for a, name in enumerate(names)}
        group = seen.setdefault(term.grouping, f"g{t}")
        columns[group] = term.codes
        bars.append(f"(0 + {' + '.join(names)} | {group})")
        label = group if group not in G else f"{group}.1"
        order = names[::-1]
        frame = pd.DataFrame(SIGMA**2 * T @ T.T, index=names, columns=names)
        G[label] = frame.loc[order, order]
    formula = "~ 1 + " + " + ".join(bars)
    V = me.marginal_covariance(formula, columns, G=G, sigma=SIGMA, weights="w")
    assert_allclose(V.dense(), dense, atol=1e-9 * np.abs(dense).max())
    assert V.logdet() == pytest.approx(np.linalg.slogdet(dense)[1], rel=1e-8, abs=1e-6)
    assert_allclose(V.solve(V @ design.y), design.y, rtol=1e-6)


def test_planned_G_is_checked() -> None:
    data = me.load_dataset("sleepstudy")
    good = np.diag([600.0, 35.0])

    def planned(G: Any, sigma: Any = 25.0, formula: str = "~ Days + (Days | Subject)") -> None:
        me.marginal_covariance(formula, data, G=G, sigma=sigma)

    planned({"Subject": good.tolist()})
    for G, why in [
        ({"Subject": [[1.0, 2.0], [2.0, 1.0]]}, "not positive semidefinite.* eigenvalue is -1,"),
        ({"Subject": [[1.0, 2.0], [0.0, 1.0]]}, "not symmetric.* up to 2"),
        ({"Subject": 600.0}, r"must be 2 x 2, for the columns '\(Intercept\)', 'Days'.*is 1 x 1"),
        ({"Subject": np.eye(3)}, "must be 2 x 2.*is 3 x 3"),
        ({"Subject": [600.0, 35.0]}, r"numpy\.diag\(variances\)"),
        ({"Subject": np.full((2, 2), np.nan)}, "4 values not finite"),
        ({"Subject": "large"}, "must be numbers"),
        ({"subject": good}, "names 'subject'.*terms are 'Subject'.*mean 'Subject'"),
        ({}, r"no entry for 'Subject'.*\{'Subject': numpy\.eye\(2\)\}"),
        ({"Subject": good, "Item": 1.0}, "names 'Item'"),
        (good, "must be a dict"),
        (None, "must be a dict"),
        ({"Subject": pd.DataFrame(good)}, "named.*it has rows '0', '1'"),
    ]:
        with pytest.raises(me.ModelError, match=why):
            planned(G)
    with pytest.raises(me.ModelError, match="variance cannot be negative"):
        planned({"Subject": -1.0}, formula="~ 1 + (1 | Subject)")
    with pytest.raises(me.ModelError, match=r"sigma = 0 .*singular"):
        planned({"Subject": good}, 0.0)
    with pytest.raises(me.ModelError, match="sigma must be a positive number"):
        planned({"Subject": good}, -2.0)
    with pytest.raises(me.ModelError, match="sigma, the residual standard deviation, is needed"):
        planned({"Subject": good}, None)


def test_planned_G_goes_by_name_and_by_either_order_of_a_nesting() -> None:
    data = me.load_dataset("threelevel")
    formula = "~ x1 + (1 | sch.cl/tch.cl)"
    one = me.marginal_covariance(formula, data, G={"tch.cl:sch.cl": 1.2, "sch.cl": 0.4}, sigma=1)
    other = me.marginal_covariance(formula, data, G={"sch.cl": 0.4, "sch.cl:tch.cl": 1.2}, sigma=1)
    assert_allclose(one.dense(), other.dense())
    with pytest.raises(me.ModelError, match="names a term twice"):
        G = {"tch.cl:sch.cl": 1.2, "sch.cl:tch.cl": 1.2, "sch.cl": 0.4}
        me.marginal_covariance(formula, data, G=G, sigma=1)
    assert_allclose(one.diag(), 2.6)
    assert one.parts.share().round(3).tolist() == [0.462, 0.154, 0.385]


def test_planned_weights() -> None:
    data = me.load_dataset("dyestuff").assign(w=np.arange(1.0, 31.0))
    V = me.marginal_covariance("~ 1 + (1 | Batch)", data, G={"Batch": 2.0}, sigma=3, weights="w")
    assert_allclose(V.diag(), 2.0 + 9.0 / data["w"])
    assert_allclose(V.R.diag(), 9.0 / data["w"])
    with pytest.raises(me.DataError, match="positive"):
        me.marginal_covariance(
            "~ 1 + (1 | Batch)", data, G={"Batch": 2.0}, sigma=3, weights=-data["w"]
        )
