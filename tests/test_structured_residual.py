"""R with structure, and V with it, against the same matrices written down densely."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from structured_residuals import Case, make_case

KINDS = ["diag", "cs", "ar1", "car1", "ante", "toep", "us", "exp", "gau"]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"weights": True, "variance": True},
    {"by": True},
    {"homogeneous": False},
    {"homogeneous": False, "by": True, "weights": True},
    {"nugget": True},
]


def options_of(kind: str) -> list[dict[str, Any]]:
    spatial = kind in ("exp", "gau")
    return [
        each
        for each in OPTIONS
        if spatial >= ("nugget" in each)
        and not ("homogeneous" in each and kind in ("car1", "exp", "gau"))
    ]


CASES = [(kind, options) for kind in KINDS for options in options_of(kind)]


def identify(value: Any) -> str:
    return value if isinstance(value, str) else "-".join(value) or "plain"


def check_R(case: Case) -> None:
    R, dense = case.R, case.dense_R
    n = R.n
    close: dict[str, Any] = {"rtol": 1e-11, "atol": 1e-12 * np.abs(dense).max()}
    assert_allclose(R.diagonal(), np.diag(dense), **close)
    assert_allclose(R.sparse().toarray(), dense, **close)
    out = np.ones((n, n))
    R.add_blocks(np.arange(n), out)
    assert_allclose(out, dense + 1.0, **close)
    rng = np.random.default_rng(3)
    rows = np.stack([rng.permutation(n)[:7] for _ in range(4)])
    small = np.ones((4, 7, 7))
    R.add_blocks(rows, small)
    assert_allclose(small, dense[rows[:, :, None], rows[:, None, :]] + 1.0, **close)
    i, j = rng.integers(0, n, 9), np.append(rng.integers(0, n, 4), 2)
    i[0] = i[1] = 2
    some = np.ones((9, 5))
    R.add_entries(i, j, some)
    assert_allclose(some, dense[np.ix_(i, j)] + 1.0, **close)
    x = rng.standard_normal((n, 3))
    assert_allclose(R.times(x), dense @ x, rtol=1e-10, atol=1e-10)
    assert_allclose(dense @ R.solve(x), x, rtol=1e-10, atol=1e-10)
    assert R.logdet() == pytest.approx(np.linalg.slogdet(dense)[1], abs=1e-10)
    root = R.root_times(np.eye(n))
    assert_allclose(root @ root.T, dense, rtol=1e-10, atol=1e-11)
    assert_allclose(R.divided_by(4.0).sparse().toarray(), dense / 4.0, **close)
    smallest = np.empty(n)
    for own in np.unique(case.V.R._residual.term.codes) if R.groupings else []:
        at = np.flatnonzero(R.term.codes == own)
        smallest[at] = np.linalg.eigvalsh(dense[np.ix_(at, at)])[0]
    assert_allclose(R.floor(), smallest if R.groupings else np.diag(dense), rtol=1e-10)


@pytest.mark.parametrize(("kind", "options"), CASES, ids=identify)
def test_entries_solutions_and_roots_of_R(kind: str, options: dict[str, Any]) -> None:
    check_R(make_case(kind, **options))


def _theta(V: me.MarginalCovariance) -> Any:
    """Relative covariance parameters of V, in lme4's order."""
    theta = [np.zeros(0)]
    for G in V._user_blocks:
        T = np.linalg.cholesky(G) / V.sigma
        theta.append(T.T[np.triu_indices(len(T))])
    return np.concatenate(theta)


def check_V(case: Case) -> None:
    V, dense = case.V, case.dense_V
    n = len(dense)
    close: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10 * np.abs(dense).max()}
    rng = np.random.default_rng(1)
    B = rng.standard_normal((n, 3))
    for product in (V @ B, (B.T @ V).T):
        assert_allclose(product, dense @ B, **close)
    assert_allclose(V.diag(), np.diag(dense), **close)
    assert_allclose(V.rows([3, 3, -1], [0, 3]), dense[np.ix_([3, 3, -1], [0, 3])], **close)
    assert_allclose(V.dense(), dense, **close)
    assert_allclose(V.sparse().toarray(), dense, **close)
    assert_allclose(dense @ V.solve(B), B, atol=1e-9)
    assert V.logdet() == pytest.approx(np.linalg.slogdet(dense)[1], abs=1e-9)
    assert V.quad(B[:, 0]) == pytest.approx(B[:, 0] @ np.linalg.solve(dense, B[:, 0]), rel=1e-9)
    inverse = np.linalg.inv(dense)
    for root in ("cholesky", "symmetric"):
        W = V.whiten(np.eye(n), kind=root)
        assert_allclose(W.T @ W, inverse, rtol=1e-8, atol=1e-9 * np.abs(inverse).max())
    seen = np.zeros((n, n), dtype=bool)
    for _, rows, block in V.blocks():
        assert_allclose(block, dense[np.ix_(rows, rows)], **close)
        seen[np.ix_(rows, rows)] = True
    assert not dense[~seen].any()
    own = np.flatnonzero(case.R.term.codes == 2)
    block = V.block("u2")
    assert_allclose(block, dense[np.ix_(own, own)], **close)
    assert block.index.tolist() == (own + 100).tolist()
    sd = np.sqrt(np.diag(dense)[own])
    assert_allclose(V.corr("u2"), dense[np.ix_(own, own)] / np.outer(sd, sd), **close)
    assert_allclose(sum(part.dense() for part in V.parts.values()), dense, **close)
    residual = V.parts["Residual"]
    assert_allclose(residual.dense(), case.dense_R, **close)
    assert_allclose(residual @ B, case.dense_R @ B, **close)
    assert_allclose(residual.block("u2"), case.dense_R[np.ix_(own, own)], **close)
    X, y = B[:, :2], B[:, 2]
    fit = V.gls(X, y)
    assert_allclose(fit.vcov, np.linalg.inv(X.T @ inverse @ X), rtol=1e-8)
    assert_allclose(fit.coef, fit.vcov @ (X.T @ inverse @ y), rtol=1e-8)
    assert_allclose((V.Z @ V.G.sparse() @ V.Z.T).toarray() + V.R, dense, **close)
    moved = V.at(_theta(V), 2.0 * V.sigma)
    assert_allclose(moved.dense(), 4.0 * dense, **close)
    again = pickle.loads(pickle.dumps(V))
    assert_allclose(again.solve(B), V.solve(B), rtol=1e-13)


@pytest.mark.parametrize("layout", ["", "s", "so", "si", "i", "fs"])
@pytest.mark.parametrize(("kind", "options"), CASES, ids=identify)
def test_V(kind: str, options: dict[str, Any], layout: str) -> None:
    check_V(make_case(kind, layout, **options))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(CASES),
    st.sampled_from(["", "s", "so", "si", "i", "fs", "fsio"]),
    st.integers(0, 10**6),
)
def test_V_of_random_designs(case: tuple[str, dict[str, Any]], layout: str, seed: int) -> None:
    made = make_case(case[0], layout, seed=seed, n_groups=3 + seed % 5, **case[1])
    check_R(made)
    check_V(made)


def check_matrix(R: me.ResidualCovariance, dense: Any, codes: Any) -> None:
    """What a user does with R."""
    n = len(dense)
    close: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-11 * np.abs(dense).max()}
    x = np.random.default_rng(4).standard_normal((n, 2))
    assert R.shape == dense.shape
    assert_allclose(R @ x, dense @ x, **close)
    assert_allclose(x.T @ R, x.T @ dense, **close)
    assert_allclose(R @ x[:, 0], dense @ x[:, 0], **close)
    assert_allclose(dense @ R.solve(x), x, atol=1e-9)
    assert_allclose(R.diag(), np.diag(dense), **close)
    assert_allclose(np.asarray(R), dense, **close)
    assert_allclose(np.sqrt(R), np.sqrt(dense), rtol=1e-6, atol=1e-5)
    own = np.flatnonzero(codes == 2)
    block, corr = R.block("u2", by="unit"), R.corr("u2")
    assert_allclose(block, dense[np.ix_(own, own)], **close)
    sd = np.sqrt(np.diag(dense)[own])
    assert_allclose(corr, dense[np.ix_(own, own)] / np.outer(sd, sd), **close)
    assert block.index.equals(R.index[own]) and corr.columns.equals(R.index[own])


@pytest.mark.parametrize(
    ("kind", "options"), [c for c in CASES if c[0] not in ("toep", "gau")], ids=identify
)
def test_R_as_an_object(kind: str, options: dict[str, Any]) -> None:
    if (dense := make_case(kind, **options).dense_R).min() < 0.0:
        options = {**options, "seed": 2}
    case = make_case(kind, **options)
    R = case.V.R
    with np.errstate(invalid="ignore"):
        check_matrix(R, case.dense_R, case.R.term.codes)
    again = pickle.loads(pickle.dumps(R))
    assert_allclose(again @ np.arange(R.shape[0]), R @ np.arange(R.shape[0]), rtol=1e-14)
    assert dense.shape == (26, 26)
