"""V, G, R and Z: every operation against the matrix written down from its definition."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given, settings
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

import mixedeffects as me
from designs import Design, designs
from mixedeffects.engine.parameters import theta_to_T
from operators import operator
from references import fitted_model

fast = settings(max_examples=30, deadline=None)


@fast
@given(design=designs)
def test_every_operation_equals_the_dense_one(design: Design) -> None:
    V, dense = operator(design)
    rng = np.random.default_rng(0)
    x, B = rng.normal(size=len(dense)), rng.normal(size=(len(dense), 3))
    scale = np.abs(dense).max()
    assert_allclose(V.dense(), dense, atol=1e-9 * scale)
    assert_allclose(np.asarray(V), dense, atol=1e-9 * scale)
    assert_allclose(V.sparse().toarray(), dense, atol=1e-9 * scale)
    assert_allclose(V.diag(), np.diag(dense), rtol=1e-9)
    assert_allclose(V @ x, dense @ x, atol=1e-8 * scale)
    assert_allclose(V @ B, dense @ B, atol=1e-8 * scale)
    assert_allclose(x @ V, x @ dense, atol=1e-8 * scale)
    assert_allclose(B.T @ V, B.T @ dense, atol=1e-8 * scale)
    solved = np.linalg.solve(dense, B)
    assert_allclose(V.solve(B), solved, atol=1e-7 * np.abs(solved).max())
    assert_allclose(V.solve(x), np.linalg.solve(dense, x), atol=1e-7)
    assert V.logdet() == pytest.approx(np.linalg.slogdet(dense)[1], rel=1e-9, abs=1e-7)
    assert V.quad(x) == pytest.approx(x @ np.linalg.solve(dense, x), rel=1e-7)
    assert_allclose(V.quad(B), B.T @ solved, atol=1e-6 * np.abs(solved).max())


@fast
@given(design=designs)
def test_solve_undoes_multiplication(design: Design) -> None:
    V, _ = operator(design)
    x = np.random.default_rng(1).normal(size=V.shape[0])
    assert_allclose(V.solve(V @ x), x, atol=1e-6)


@fast
@given(design=designs)
def test_blocks_cut_V_without_remainder(design: Design) -> None:
    V, dense = operator(design)
    covered = np.zeros_like(dense)
    for _, rows, block in V.blocks():
        covered[np.ix_(rows, rows)] += block
    assert_allclose(covered, dense, atol=1e-9 * np.abs(dense).max())
    for level, rows, block in V.blocks(by="g0", partial=True):
        assert_allclose(block, dense[np.ix_(rows, rows)], atol=1e-9 * np.abs(dense).max())
        assert_allclose(V.block(level, by="g0"), block)


@fast
@given(design=designs)
def test_whitening_gives_identity_covariance(design: Design) -> None:
    V, dense = operator(design)
    n = len(dense)
    identity = np.eye(n)
    for kind in ("cholesky", "symmetric"):
        root = V.whiten(identity, kind=kind)
        assert_allclose(root @ dense @ root.T, identity, atol=1e-6)
    assert_allclose(root, root.T, atol=1e-6)
    lower = V.whiten(identity)
    assert_allclose(lower, np.linalg.inv(np.linalg.cholesky(dense)), atol=1e-6)


@fast
@given(design=designs)
def test_at_other_parameters(design: Design) -> None:
    V, _ = operator(design)
    theta = design.theta[::-1].copy()
    other = V.at(theta, 0.4)
    expected = 0.16 * design.V0(theta_to_T(theta, design.columns))
    assert_allclose(other.dense(), expected, atol=1e-9 * np.abs(expected).max())
    assert other.logdet() == pytest.approx(np.linalg.slogdet(expected)[1], rel=1e-8, abs=1e-6)


@fast
@given(design=designs)
def test_gls(design: Design) -> None:
    V, dense = operator(design)
    inverse = np.linalg.inv(dense)
    vcov = np.linalg.inv(design.X.T @ inverse @ design.X)
    beta = vcov @ design.X.T @ inverse @ design.y
    for matrix in (V, dense, scipy.sparse.csc_array(dense), V.sparse()):
        result = me.gls(design.X, design.y, matrix)
        assert_allclose(result.coef, beta, rtol=1e-6)
        assert_allclose(result.vcov, vcov, rtol=1e-5, atol=1e-9)
        assert_allclose(result.se, np.sqrt(np.diag(vcov)), rtol=1e-5)


def test_gls_names_and_refusals() -> None:
    m = fitted_model("sleepstudy")
    X = pd.DataFrame(m.X, columns=["a", "b"])
    assert list(me.gls(X, m.y, m.V).coef.index) == ["a", "b"]
    assert "Generalized" in repr(me.gls(X, m.y, m.V))
    with pytest.raises(me.DataError, match="V is 180 x 180"):
        me.gls(m.X[:5], m.y[:5], m.V)
    with pytest.raises(me.DataError, match="finite"):
        me.gls(m.X * np.nan, m.y, m.V)
    with pytest.raises(me.ModelError, match="column rank"):
        me.gls(np.hstack([m.X, m.X[:, :1]]), m.y, m.V)
    with pytest.raises(me.ModelError, match="positive definite"):
        me.gls(m.X, m.y, -m.V.dense())
    with pytest.raises(me.ModelError, match="positive definite"):
        me.gls(m.X, m.y, -m.V.sparse())


def test_gls_refuses_what_is_no_covariance() -> None:
    m = fitted_model("sleepstudy")
    triangle = np.triu(m.V.dense())
    for V in (triangle, scipy.sparse.csc_array(triangle)):
        with pytest.raises(me.ModelError, match="not symmetric"):
            me.gls(m.X, m.y, V)
    for V in (None, 2.0, "V", np.ones(180)):
        with pytest.raises(me.DataError, match="square matrix"):
            me.gls(m.X, m.y, V)
    broken = m.V.dense()
    broken[0, 0] = np.nan
    for V in (broken, scipy.sparse.csc_array(broken)):
        with pytest.raises(me.DataError, match="not finite"):
            me.gls(m.X, m.y, V)
    with pytest.raises(me.DataError, match="complex"):
        me.gls(m.X, m.y, m.V.dense() + 0j)
    with pytest.raises(me.ModelError, match="positive definite"):
        me.gls(m.X, m.y, scipy.sparse.csc_array((180, 180)))
    assert_allclose(me.gls(m.X, m.y, m.V.dense().tolist()).coef, m.fixef, rtol=1e-9)


def test_sparse_and_textual_right_hand_sides() -> None:
    m = fitted_model("threelevel")
    assert_allclose(m.V.solve(m.Z), m.V.solve(m.Z.toarray()))
    with pytest.raises(me.DataError, match="array of numbers"):
        m.V.solve("a")


def test_picture_sorted_by_a_factor() -> None:
    m = fitted_model("star_sample")
    axes_ = m.V.plot(by="sch", ax=axes())
    assert axes_.get_title("left").startswith("V")
    with pytest.raises(me.ModelError, match="'sch'"):
        m.V.plot(by="school", ax=axes())


# --- the manual construction ---------------------------------------------------------


@pytest.mark.parametrize("name", ["sleepstudy", "sleepstudy_zerocorr", "threelevel", "star_sample"])
def test_manual_construction_equals_V(name: str) -> None:
    m = fitted_model(name)
    kron = [
        scipy.sparse.kron(scipy.sparse.eye_array(term.n_levels), m.G[term.label])
        for term in m.frame.terms
    ]
    G = scipy.sparse.block_diag(kron)
    V = m.Z @ G @ m.Z.T + m.R.sparse()
    assert abs(V - m.V.sparse()).max() < 1e-10 * V.diagonal().max()
    assert abs(m.G.sparse() - G).max() == 0
    Lambdat = m.getme("Lambdat")
    recipe = m.sigma**2 * (m.Z @ (Lambdat.T @ Lambdat) @ m.Z.T + scipy.sparse.eye_array(m.nobs))
    assert abs(recipe - m.V.sparse()).max() < 1e-10 * V.diagonal().max()


def test_G() -> None:
    m = fitted_model("threelevel")
    assert m.G.keys() == ["tch.cl:sch.cl", "sch.cl"]
    assert m.G.shape == (40, 40)
    blocks = m.G.blocks()
    assert blocks.index.tolist() == [("tch.cl:sch.cl", "(Intercept)"), ("sch.cl", "(Intercept)")]
    assert_allclose(np.diag(blocks), [1.226473, 0.4201496], rtol=5e-4)
    assert np.asarray(m.G).shape == (40, 40)
    assert m.G.labels()[30] == ("sch.cl", "a", "(Intercept)")
    assert "40 x 40" in repr(m.G)
    with pytest.raises(me.ModelError, match=r"'tch.cl:sch.cl', 'sch.cl'"):
        m.G["school"]


def test_R_with_weights() -> None:
    data = me.load_dataset("sleepstudy").assign(w=np.arange(1.0, 181.0))
    m = me.lmer("Reaction ~ Days + (1 | Subject)", data, weights="w")
    assert_allclose(m.R.diag(), m.sigma**2 / data["w"])
    assert_allclose(m.R.sparse().diagonal(), m.R.diag())
    assert_allclose(np.asarray(m.R), np.diag(m.R.diag()))
    assert "weights" in repr(m.R)


# --- cutting by level ----------------------------------------------------------------


def test_block_by_label_value_and_tuple() -> None:
    m = fitted_model("threelevel")
    by_tuple = m.V.block(("a", 3), by="tch.cl:sch.cl")
    assert_allclose(by_tuple, m.V.block((3, "a"), by="tch.cl:sch.cl"))
    assert_allclose(by_tuple, m.V.block("3:a"))
    assert_allclose(by_tuple, m.V.block("3:a", by="sch.cl:tch.cl"))
    assert list(by_tuple.index) == [10, 11, 12, 13, 14]
    assert by_tuple.shape == (5, 5)
    assert m.V.block("a").shape == (15, 15)
    corr = m.V.corr("a")
    assert_allclose(np.diag(corr), 1.0)
    total = m.V.diag()[0]
    assert corr.iloc[0, 1] == pytest.approx(m.V.block("a").iloc[0, 1] / total)


def test_block_with_a_number() -> None:
    m = fitted_model("sleepstudy")
    assert_allclose(m.V.block(308), m.V.block("308"))
    assert m.V.block("308").shape == (10, 10)


def test_unknown_levels_and_factors_are_named() -> None:
    m = fitted_model("sleepstudy")
    with pytest.raises(me.ModelError, match="nearest are '3"):
        m.V.block("390")
    with pytest.raises(me.ModelError, match="'Subject'"):
        m.V.block("308", by="subject")
    three = fitted_model("threelevel")
    with pytest.raises(me.ModelError, match="No grouping factor has a level 'z'"):
        three.V.block("z")
    crossed = fitted_model("star_k")
    with pytest.raises(me.ModelError, match="no level"):
        crossed.V.block("1000:1", by="tch:sch")


def test_ambiguous_level_is_refused() -> None:
    data = pd.DataFrame(
        {
            "y": np.random.default_rng(0).normal(size=60),
            "a": np.tile(np.arange(6), 10),
            "b": np.repeat(np.arange(10), 6),
        }
    )
    m = me.lmer("y ~ 1 + (1 | a) + (1 | b)", data)
    with pytest.raises(me.ModelError, match="several factors"):
        m.V.block(3)
    assert m.V.block(3, by="a").shape == (10, 10)


# --- size ----------------------------------------------------------------------------


def test_insteval_answers_without_V() -> None:
    m = fitted_model("insteval")
    x = np.random.default_rng(0).normal(size=m.nobs)
    assert_allclose(m.V.solve(m.V @ x), x, atol=1e-8)
    assert_allclose(m.V.gls(m.X, m.y).coef, m.fixef, rtol=1e-9)
    marginal = m.resid("marginal")
    # The likelihood from V alone equals the fit's criterion.
    information = m.V.gls(m.X, m.y).vcov
    reml = (
        m.V.logdet()
        + m.V.quad(marginal)
        - np.linalg.slogdet(information)[1]
        + (m.nobs - 2) * np.log(2 * np.pi)
    )
    assert reml == pytest.approx(m.criterion, abs=1e-6)
    block = m.V.block("1", by="s")
    assert_allclose(np.diag(block), m.V.diag()[block.index])
    with pytest.raises(me.ModelError, match=r"43\.1 GB.*V\.solve"):
        m.V.dense()
    with pytest.raises(me.ModelError, match="GB"):
        np.asarray(m.V)
    with pytest.raises(me.ModelError, match="connected block"):
        m.resid("cholesky")
    assert "73,421 x 73,421" in repr(m.V)


def test_shapes_are_checked() -> None:
    V = fitted_model("sleepstudy").V
    with pytest.raises(me.DataError, match="180 rows"):
        V.solve(np.ones(10))
    with pytest.raises(me.DataError, match="180 rows"):
        V @ np.ones((10, 2))
    with pytest.raises(me.DataError, match="not finite"):
        V.solve(np.full(180, np.nan))
    with pytest.raises(me.ModelError, match="3 finite numbers"):
        V.at([1.0])
    with pytest.raises(me.ModelError, match="positive number"):
        V.at([1.0, 0.0, 1.0], sigma=-1.0)
    with pytest.raises(me.ModelError, match="kind"):
        V.whiten(np.ones(180), kind="qr")  # type: ignore[arg-type]


def test_plots_return_axes() -> None:
    m = fitted_model("sleepstudy")
    assert m.V.plot(ax=axes()).get_title("left").startswith("V")
    assert "308" in m.V.plot("308", ax=axes()).get_title("left")
    assert m.G.plot(ax=axes()).get_title("left").startswith("G")


def axes() -> Axes:
    return Figure().subplots()
