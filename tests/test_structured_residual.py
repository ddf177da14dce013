"""R with structure, and V with it, against the same matrices written down densely."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

import mixedeffects as me
from mixedeffects.base.sealed import sealed, unsealed
from mixedeffects.covariance import structured_residual
from mixedeffects.covariance.export import save_matrix
from mixedeffects.covariance.pictures import PictureOfV
from mixedeffects.covariance.structure import CovarianceStructure
from mixedeffects.covariance.structured_residual import StructuredResidual
from mixedeffects.engine.residual_model import ResidualDesign, ResidualModel
from mixedeffects.frame.residual_term import ResidualTerm
from structured_residuals import TIMES, Case, make_case

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


# The engine has no model without parameters.
CASES = [
    (kind, options) for kind in KINDS for options in options_of(kind) if kind != "diag" or options
]


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
    m = min(n, 7)
    rows = np.stack([rng.permutation(n)[:m] for _ in range(4)])
    small = np.ones((4, m, m))
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


def test_R_of_mean_innovation_one() -> None:
    """As the engine has S while it searches."""
    R = make_case("ar1", weights=True, variance=True).R
    model = copy.copy(R.model)
    model.is_normalised = True
    scaled = StructuredResidual(model, R.phi, R.sigma, R.weight_scale, R.term, R.variance)
    assert not np.isclose(scaled.logdet(), R.logdet())
    assert np.linalg.slogdet(scaled.sparse().toarray())[1] == pytest.approx(scaled.logdet())
    assert_allclose(scaled.times(np.eye(R.n)), scaled.sparse().toarray(), atol=1e-12)


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


@pytest.mark.parametrize("layout", ["", "s", "so", "si", "fs"])
@pytest.mark.parametrize(("kind", "options"), CASES, ids=identify)
def test_V(kind: str, options: dict[str, Any], layout: str) -> None:
    check_V(make_case(kind, layout, **options))


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(CASES),
    st.sampled_from(["", "s", "so", "si", "i", "fs", "fsio"]),
    st.integers(0, 10**6),
)
def test_V_of_random_designs(case: tuple[str, dict[str, Any]], layout: str, seed: int) -> None:
    made = make_case(case[0], layout, seed=seed, n_groups=3 + seed % 5, **case[1])
    check_R(made)
    check_V(made)


@pytest.mark.parametrize(("kind", "options"), CASES, ids=identify)
def test_R_as_an_object(kind: str, options: dict[str, Any]) -> None:
    case = make_case(kind, **options)
    R, dense = case.V.R, case.dense_R
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
    assert_allclose(np.abs(R), np.abs(dense), **close)
    assert_allclose(x[:, :1] + R, x[:, :1] + dense, **close)
    assert_allclose(me.gls(x[:, :1], x[:, 1], R).vcov, 1.0 / (x[:, 0] @ R.solve(x[:, 0])))
    own = np.flatnonzero(case.R.term.codes == 2)
    block, corr = R.block("u2", by="unit"), R.corr("u2")
    assert_allclose(block, dense[np.ix_(own, own)], **close)
    sd = np.sqrt(np.diag(dense)[own])
    assert_allclose(corr, dense[np.ix_(own, own)] / np.outer(sd, sd), **close)
    assert block.index.equals(R.index[own])
    assert corr.columns.equals(R.index[own])
    again = pickle.loads(pickle.dumps(R))
    assert_allclose(again @ x, R @ x, rtol=1e-14)
    # The matrix of the times has what rows of unit weight have.
    if case.R.term.times is None or options.get("variance"):
        return
    matrices = R.covariance
    for level in range(8):
        own = np.flatnonzero(case.R.term.codes == level)
        times = case.R.term.times[case.R.term.steps[own]]
        C = matrices[["A", "B"][level % 2]] if options.get("by") else matrices
        w = np.ones(n) if case.V._weights is None else case.V._weights
        root_w = np.sqrt(w[own])
        found = C.loc[times, times] / np.outer(root_w, root_w)
        assert_allclose(found, dense[np.ix_(own, own)], **close)
        sd = np.sqrt(np.diag(C))
        assert_allclose(_named_sds(R, options, level), sd, rtol=1e-10)


def _named_sds(R: me.ResidualCovariance, options: dict[str, Any], level: int) -> Any:
    """Standard deviations at the times as `parameters` has them."""
    stratum = f" {'AB'[level % 2]}" if options.get("by") else ""
    times = [""] * TIMES if options.get("homogeneous", True) else [f" t{t + 1}" for t in range(5)]
    return R.parameters[[f"Std.Dev.{stratum}{time}" for time in times]].to_numpy()


def test_names_of_the_parameters() -> None:
    ante = make_case("ante", by=True).V.R
    assert list(ante.parameters.index) == [
        "Std.Dev. A",
        "Std.Dev. B",
        *(f"cor {s} t{t}, t{t + 1}" for s in "AB" for t in range(1, 5)),
    ]
    assert ante.parameters["cor B t2, t3"] == pytest.approx(0.2)
    us = make_case("us", homogeneous=False).V.R
    correlation = us.covariance.loc["t2", "t4"] / np.sqrt(
        us.covariance.loc["t2", "t2"] * us.covariance.loc["t4", "t4"]
    )
    assert us.parameters["cor t2, t4"] == pytest.approx(correlation)
    toep = make_case("toep").V.R
    assert toep.parameters["cor lag 2"] == pytest.approx(0.2)
    assert repr(toep) == "R: 26 x 26, 8 blocks, toep(t | unit), sd 1.3, cor -0.1 to 0.4"
    gau = make_case("gau", nugget=True).V.R
    assert repr(gau) == "R: 26 x 26, 8 blocks, gau(t | unit), sd 1.3, range 0.7, nugget 0.3"
    with pytest.raises(me.ModelError, match="no times in common"):
        _ = gau.covariance
    with pytest.raises(me.ModelError, match="There is no level 'x' among the 8 levels of 'unit'"):
        gau.block("x")


def test_variances_of_the_levels_of_a_factor() -> None:
    sleep = me.load_dataset("sleepstudy")
    sleep["time"] = np.where(sleep["Days"] < 3, "early", "late")
    m = me.lmer("Reaction ~ Days + (1 | Subject)", sleep, variance="time")
    early, late = m.R.parameters[["Std.Dev. timeearly", "Std.Dev. timelate"]]
    assert_allclose(m.R.diag(), np.where(sleep["Days"] < 3, early, late) ** 2, rtol=1e-12)
    assert early == pytest.approx(m.sigma)
    m = me.lmer("Reaction ~ Days + (1 | Subject)", sleep, variance="Days")
    first, slope = m.R.parameters
    assert m.R.parameters.index[1] == "log Std.Dev. per Days"
    assert_allclose(m.R.diag(), (first * np.exp(slope * sleep["Days"])) ** 2, rtol=1e-12)
    assert m.R.structure == "variance by Days"
    assert list(m.V.blocks())[3][2].shape == (10, 10)


@pytest.mark.parametrize(
    ("formula", "given"),
    [
        ("Reaction ~ Days + (1 | Subject)", {"residual": "ar1(Days | Subject)"}),
        ("Reaction ~ Days + (Days | Subject)", {"residual": "ar1(Days | Subject)"}),
        ("Reaction ~ Days", {"residual": "us(Days | Subject)", "reml": False}),
        ("Reaction ~ Days + (1 | Days)", {"residual": "car1(Days | Subject)"}),
        ("Reaction ~ Days", {"residual": "cs(1 | Subject, by = sex)", "weights": "w"}),
        ("Reaction ~ Days", {"variance": "sex"}),
        ("Reaction ~ Days", {"residual": "diag(Days | Subject)"}),
    ],
)
def test_V_of_a_fit_gives_its_criterion(formula: str, given: dict[str, Any]) -> None:
    sleep = me.load_dataset("sleepstudy").query("Days < 5").sample(frac=0.9, random_state=1)
    sleep["sex"] = np.where(sleep["Subject"].astype(int) % 2, "F", "M")
    sleep["w"] = np.linspace(0.5, 2.0, len(sleep))
    m = me.lmer(formula, sleep, **given)
    V, n, p = m.V, m.nobs, len(m.fixef)
    r = m.y - m.X @ m.fixef.to_numpy()
    criterion = n * np.log(2.0 * np.pi) + V.logdet() + V.quad(r)
    if m.reml:
        information = m.X.T @ V.solve(m.X)
        criterion += np.linalg.slogdet(information)[1] - p * np.log(2.0 * np.pi)
    assert criterion == pytest.approx(m.criterion, abs=1e-9)
    assert_allclose(V.gls(m.X, m.y).coef, m.fixef, rtol=1e-10)
    total = m.Z @ m.G.sparse() @ m.Z.T + m.R.sparse()
    assert_allclose(V.dense(), total.toarray(), atol=1e-9)


def test_a_matrix_that_is_given() -> None:
    rng = np.random.default_rng(6)
    codes = np.repeat(np.arange(12), 4)
    data = pd.DataFrame({"y": rng.standard_normal(48), "g": (codes // 2).astype(str)})
    root = np.where(codes[:, None] == codes, rng.standard_normal((48, 48)), 0.0)
    K = root @ root.T + np.eye(48)
    for formula in ("y ~ 1", "y ~ 1 + (1 | g)"):
        m = me.lmer(formula, data, residual=me.known(K), sigma=1)
        assert_allclose(np.asarray(m.R), K, rtol=1e-10, atol=1e-12)
        assert m.R.parameters.to_dict() == {"Std.Dev.": 1.0}
        assert repr(m.R) == "R: 48 x 48, 12 blocks, known(48 x 48), sd 1"
        assert_allclose(m.V @ m.V.solve(m.y), m.y, atol=1e-10)
        assert_allclose(m.V.parts["Residual"].dense(), K, rtol=1e-10, atol=1e-12)
    # A level of a factor, not a block of the matrix.
    assert m.V.block("1").index.tolist() == [8, 9, 10, 11, 12, 13, 14, 15]


def test_a_variance_that_is_known() -> None:
    sleep = me.load_dataset("sleepstudy")
    m = me.lmer("Reaction ~ Days", sleep, weights="1 / (1 + Days)", sigma=10)
    assert_allclose(m.R.diag(), 100.0 * (1.0 + sleep["Days"]), rtol=1e-12)
    assert m.R.structure is None
    assert repr(m.R) == "R: 180 x 180, diagonal: 100, divided by the prior weights"
    assert repr(m.V).startswith("V = Z G Z' + R: 180 x 180, diagonal\n  dense")
    with pytest.raises(me.ModelError, match=r"V has no groups of rows.*V.diag\(\)"):
        m.V.block("308")


def test_pictures_do_not_need_all_of_R() -> None:
    case = make_case("ar1", "i", n_groups=30)
    n = len(case.dense_V)
    pixels = np.asarray(case.V.R.plot(ax=Figure().subplots()).images[0].get_array())
    assert_allclose(pixels, case.dense_R, rtol=1e-10, atol=1e-10)
    own = np.flatnonzero(case.R.term.codes == 4)
    image = case.V.plot("u4", ax=Figure().subplots()).images[0]
    assert_allclose(np.asarray(image.get_array()), case.dense_V[np.ix_(own, own)], rtol=1e-10)
    case.V.plot(by="unit", ax=Figure().subplots())
    rows = np.random.default_rng(2).permutation(n)[: n - 3]
    scale = np.linspace(0.5, 1.5, len(rows))
    V = CovarianceStructure((), (), case.R)
    expected = scale[:, None] * case.dense_R[np.ix_(rows, rows)] * scale
    starts = np.arange(0, len(rows), 7)
    sums = np.add.reduceat(np.add.reduceat(expected, starts), starts, axis=1)
    counts = np.diff(np.append(starts, len(rows)))
    sums /= np.outer(counts, counts)
    assert_allclose(PictureOfV(V, rows, scale).block_means(7), sums, rtol=1e-9, atol=1e-12)


def long_series(n: int, rho: float) -> tuple[StructuredResidual, Any]:
    """One series of autoregressive errors, rows in another order, and their times."""
    rng = np.random.default_rng(8)
    time = rng.permutation(n)
    codes = np.zeros(n, dtype=np.int32)
    design = ResidualDesign(
        "ar1", codes, time[:, None].astype(float), 0, codes, 1, np.zeros((n, 0))
    )
    model = ResidualModel(design).with_unit_at_zero(np.array([rho]))
    one = pd.Index(["a"])
    term = ResidualTerm("ar1", "ar1(t | one)", "one", ("one",), one, one, codes)
    return StructuredResidual(model, np.array([rho]), 2.0, 1.0, term), time


def test_long_series(monkeypatch: pytest.MonkeyPatch) -> None:
    n, rho = 50_000, -0.7
    R, time = long_series(n, rho)
    with pytest.raises(me.ModelError, match=r"R as a sparse matrix would take .*R @ x"):
        R.sparse()
    rows = np.argsort(time)[[5, 6, 8, 20, n - 1]]
    out = np.zeros((5, 5))
    R.add_blocks(rows, out)
    gaps = np.abs(time[rows][:, None] - time[rows])
    assert_allclose(out, 4.0 * rho**gaps, rtol=1e-12)
    x = np.random.default_rng(1).standard_normal((n, 2))
    assert_allclose(R.times(R.solve(x)), x, atol=1e-9)
    # The smallest eigenvalue of a long autoregression is its spectral density's minimum.
    limit = 4.0 * (1.0 - rho**2) / (1.0 + abs(rho)) ** 2
    assert_allclose(R.floor(), limit, rtol=1e-6)
    structure = CovarianceStructure((), (), R)
    # Far more entries than a picture has room for.
    means = PictureOfV(structure, np.argsort(time)).block_means(n // 40)
    s, m = n // 40, np.arange(1, n // 40)
    assert means[3, 3] == pytest.approx(4.0 * (s + 2.0 * ((s - m) * rho**m).sum()) / s**2)


def test_medium_series_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structured_residual, "_BATCH", 5_000)
    R, time = long_series(300, 0.9)
    dense = 4.0 * 0.9 ** np.abs(time[:, None] - time)
    out = np.zeros((300, 300))
    R.add_blocks(np.arange(300), out)
    assert_allclose(out, dense, rtol=1e-11)
    assert_allclose(R.sparse().toarray(), dense, rtol=1e-11)
    assert_allclose(R.floor(), np.linalg.eigvalsh(dense)[0], rtol=1e-9)


def test_no_correlation_is_seen_to_be_none() -> None:
    """Then the symmetric root needs no eigenvectors of a block."""
    R, _ = long_series(100, 0.0)
    assert (R.floor() == R.diagonal()).all()
    small = StructuredResidual(R.model, np.array([1e-9]), 2.0, 1.0, R.term)
    assert (small.floor() < small.diagonal()).all()


@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [("ar1", {}, "errors are correlated"), ("diag", {"by": True}, "residual variances differ")],
)
def test_what_a_symmetric_root_needs(kind: str, options: dict[str, Any], reason: str) -> None:
    V = make_case(kind, "i", **options).V
    with pytest.raises(me.ModelError, match=reason):
        V.whiten(np.ones(len(V.index)), kind="symmetric", max_gb=1e-6)


def test_files_of_R_and_V(tmp_path: Path) -> None:
    case = make_case("ante", "s", weights=True)
    case.V.save(tmp_path / "V.npz")
    stored = scipy.sparse.load_npz(tmp_path / "V.npz").toarray()
    assert_allclose(stored, case.dense_V, rtol=1e-10, atol=1e-10)
    save_matrix(case.V.R, tmp_path / "R.csv")
    R = pd.read_csv(tmp_path / "R.csv", index_col=0)
    assert_allclose(R, case.dense_R, rtol=1e-10, atol=1e-10)
    assert R.index.tolist() == case.V.index.tolist()
    largest = scipy.sparse.linalg.eigsh(case.V.aslinearoperator(), 1, v0=np.ones(len(R)))[0]
    assert largest[0] == pytest.approx(np.linalg.eigvalsh(case.dense_V)[-1])


def test_R_and_V_stored_before_there_were_structures() -> None:
    m = me.lmer("Reaction ~ Days + (1 | Subject)", me.load_dataset("sleepstudy"))
    formerly = sealed({"_sigma": 2.0, "_weights": None, "_n": 3})
    R = unsealed(me.ResidualCovariance, formerly)
    assert_allclose(R @ [1.0, 2.0, 3.0], [4.0, 8.0, 12.0])
    assert R.structure is None
    stored = {k: v for k, v in vars(m.V).items() if k in _FORMER_ATTRIBUTES}
    assert len(stored) == len(_FORMER_ATTRIBUTES)
    V = unsealed(me.MarginalCovariance, sealed(stored))
    assert_allclose(V.solve(m.y), m.V.solve(m.y), rtol=1e-12)
    assert_allclose(V.block("308"), m.V.block("308"))


_FORMER_ATTRIBUTES = (
    "_user_terms",
    "_user_blocks",
    "sigma",
    "_weights",
    "_factorisation",
    "_index",
)


def test_blocks_by_the_residual_groups() -> None:
    """Pairs of rows within a unit have no blocks of V, since errors of a unit are correlated."""
    V = make_case("toep", "f").V
    levels = [level for level, _, _ in V.blocks(by="unit")]
    assert levels == [f"u{g}" for g in range(8)]
    with pytest.raises(
        me.ModelError, match=r"share level 'u\d' of 'unit'.*block-diagonal by 'unit'"
    ):
        V.blocks(by="f")
    parts = list(V.blocks(by="f", partial=True))
    assert len(parts) > 8
    with pytest.raises(me.ModelError, match="the model has 'f', 'unit'"):
        V.block("u1", by="g")
    crossed = make_case("toep", "i").V
    assert len(list(crossed.blocks())) == 1
    with pytest.raises(me.ModelError, match="of 'i' with rows of level"):
        crossed.blocks(by="unit")


def test_draws_of_R() -> None:
    case = make_case("toep", "s", weights=True)
    draws = case.V.sample(60_000, seed=3)
    sd = np.sqrt(np.diag(case.dense_V))
    found = draws @ draws.T / 60_000 / np.outer(sd, sd)
    assert_allclose(found, case.dense_V / np.outer(sd, sd), atol=0.03)


def test_R_is_cut_and_converted_as_V_is() -> None:
    data = me.load_dataset("sleepstudy")
    m = me.lmer("Reaction ~ Days", data, residual="ar1(Days | Subject)")
    dense = m.V.dense()
    np.testing.assert_allclose(m.R.dense(), dense, rtol=1e-12)
    np.testing.assert_allclose(m.R.rows([3, 4, 20]), m.V.rows([3, 4, 20]), rtol=1e-12)
    x = np.arange(180.0)
    np.testing.assert_allclose(m.R.aslinearoperator() @ x, dense @ x, rtol=1e-12)
    np.testing.assert_allclose(np.asarray(m.R), dense, rtol=1e-12)
    with pytest.raises(me.ModelError, match="R as a sparse matrix"):
        m.R.sparse(max_gb=1e-9)
    with pytest.raises(AttributeError, match=r"R has no 'toarray'.*m\.R\.dense\(\)"):
        m.R.toarray()
