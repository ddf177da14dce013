"""V whose errors are correlated within series: nothing that is done to V takes R for diagonal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from matplotlib.figure import Figure
from numpy.testing import assert_allclose
from numpy.typing import NDArray

import mixedeffects as me
from mixedeffects.covariance.diagonal_residual import DiagonalResidual
from mixedeffects.covariance.factored import FactoredCovariance
from mixedeffects.covariance.residual_matrix import ResidualMatrix
from mixedeffects.engine import EngineTerm, Factorisation, make_crossproducts
from mixedeffects.frame.model_frame import RandomTerm

Matrix = NDArray[np.float64]
Positions = NDArray[np.intp]

SIGMA = 1.3


@dataclass
class Series:
    """The factor within whose levels errors are correlated."""

    codes: NDArray[np.int32]
    group: str = "series"

    @property
    def n_levels(self) -> int:
        return int(self.codes.max()) + 1

    @property
    def levels(self) -> pd.Index:
        return pd.Index([f"s{i}" for i in range(self.n_levels)])


class SeriesResidual(ResidualMatrix):
    """R written down densely, zero between series."""

    def __init__(self, dense: Matrix, series: Series) -> None:
        self.dense, self.series = dense, series

    @property
    def n(self) -> int:
        return len(self.dense)

    @property
    def groupings(self) -> tuple[Series, ...]:
        return (self.series,)

    def diagonal(self) -> Matrix:
        return np.diag(self.dense)

    def floor(self) -> Matrix:
        out = np.empty(self.n)
        for level in range(self.series.n_levels):
            own = np.flatnonzero(self.series.codes == level)
            out[own] = np.linalg.eigvalsh(self.dense[np.ix_(own, own)])[0]
        return out

    def add_blocks(self, rows: Positions, out: Matrix) -> None:
        out += self.dense[rows[..., :, None], rows[..., None, :]]

    def add_entries(self, i: Positions, j: Positions, out: Matrix) -> None:
        out += self.dense[i][:, j]

    def sparse(self) -> scipy.sparse.csc_array:
        return scipy.sparse.csc_array(self.dense)

    def times(self, x: Matrix) -> Matrix:
        return self.dense @ x

    def divided_by(self, number: float) -> SeriesResidual:
        return SeriesResidual(self.dense / number, self.series)

    def solve(self, x: Matrix) -> Matrix:
        return np.linalg.solve(self.dense, x)

    def logdet(self) -> float:
        return float(np.linalg.slogdet(self.dense)[1])

    def root_times(self, x: Matrix) -> Matrix:
        return np.linalg.cholesky(self.dense) @ x


def with_R(
    R: ResidualMatrix, terms: list[tuple[NDArray[np.int32], Matrix]], T: list[Matrix]
) -> tuple[me.MarginalCovariance, Matrix]:
    """V with this R, as an operator and densely; series lie within the levels of every factor."""
    n = R.n
    R_dense = np.zeros((n, n))
    R.add_blocks(np.arange(n), R_dense)
    # M is that of whitened rows.
    U = np.linalg.inv(np.linalg.cholesky(R_dense / SIGMA**2))
    engine, named = [], []
    dense = R_dense.copy()
    for t, ((codes, z), factor) in enumerate(zip(terms, T, strict=True)):
        n_levels = int(codes.max()) + 1
        engine.append(EngineTerm(codes, n_levels, np.ascontiguousarray(U @ z), t))
        labels = pd.Index([f"l{i}" for i in range(n_levels)])
        names = tuple(f"z{a}" for a in range(z.shape[1]))
        named.append(RandomTerm(f"g{t}", f"g{t}", (f"g{t}",), names, labels, labels, codes, z))
        same = codes[:, None] == codes[None, :]
        dense += np.where(same, SIGMA**2 * z @ factor @ factor.T @ z.T, 0.0)
    A = make_crossproducts(np.zeros(n), np.zeros((n, 0)), engine, None)
    M = Factorisation(A, [A.basis.engine_factor(t, factor) for t, factor in enumerate(T)])
    G = [SIGMA**2 * factor @ factor.T for factor in T]
    V = me.MarginalCovariance(named, G, SIGMA, None, M, pd.RangeIndex(n))
    # All else that V says follows from this.
    V.__dict__["_factored"] = FactoredCovariance.of(named, G, R, SIGMA, M)
    return V, dense


def series_V(kind: str) -> tuple[me.MarginalCovariance, Matrix, Series]:
    rng = np.random.default_rng(5)
    n = 210
    series = Series(np.sort(rng.integers(0, 24, n)).astype(np.int32))
    series.codes = np.unique(series.codes, return_inverse=True)[1].astype(np.int32)
    order = rng.permutation(n)
    time = np.empty(n)
    for level in range(series.n_levels):
        own = series.codes == level
        time[own] = np.arange(own.sum())
    series.codes, time = series.codes[order], time[order]
    sd = np.exp(0.2 * rng.normal(size=n))
    rho = 0.0 if kind == "spherical" else 0.6
    within = series.codes[:, None] == series.codes[None, :]
    gap = np.abs(time[:, None] - time[None, :])
    C = np.where(within, rho**gap, 0.0)
    D = np.full(n, 0.9) if kind == "spherical" else sd
    R = SeriesResidual(SIGMA**2 * D[:, None] * C * D, series)
    g, h = series.codes // 2, series.codes // 8
    scale = 3e3 if kind == "extreme" else 1.0
    terms = [
        (g.astype(np.int32), np.column_stack([np.ones(n), time])),
        (h.astype(np.int32), np.ones((n, 1))),
    ]
    T = [scale * np.array([[0.8, 0.0], [0.2, 0.3]]), np.array([[0.5]])]
    V, dense = with_R(R, terms, T)
    return V, dense, series


@pytest.mark.parametrize("kind", ["series", "spherical", "extreme"])
def test_everything_that_is_done_to_V(kind: str) -> None:
    V, dense, _ = series_V(kind)
    n, size = len(dense), np.abs(dense).max()
    close: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10 * size}
    rng = np.random.default_rng(1)
    B = rng.normal(size=(n, 3))
    for product in (V @ B, (B.T @ V).T, V.aslinearoperator() @ B):
        assert_allclose(product, dense @ B, **close)
    assert_allclose(V.diag(), np.diag(dense), **close)
    assert_allclose(V.rows([3, 3, -1], [0, 3]), dense[np.ix_([3, 3, -1], [0, 3])], **close)
    assert_allclose(V.dense(), dense, **close)
    assert_allclose(V.sparse().toarray(), dense, **close)
    assert_allclose(V @ V.solve(B), B, atol=1e-8 + 1e-14 * size)
    assert V.logdet() == pytest.approx(np.linalg.slogdet(dense)[1], rel=1e-8)
    assert V.quad(B[:, 0]) == pytest.approx(B[:, 0] @ np.linalg.solve(dense, B[:, 0]), rel=1e-6)
    inverse = V.solve(np.eye(n))
    for root in ("cholesky", "symmetric"):
        W = V.whiten(np.eye(n), kind=root)
        assert_allclose(W.T @ W, inverse, rtol=1e-6, atol=1e-8 * np.abs(inverse).max())
    for level, rows, block in V.blocks("g1"):
        assert_allclose(block, dense[np.ix_(rows, rows)], **close)
        assert_allclose(V.block(level, "g1"), block, **close)
    parts = V.parts
    assert_allclose(sum(part.dense() for part in parts.values()), dense, **close)
    assert_allclose(sum(part @ B for part in parts.values()), dense @ B, **close)
    pixels = np.asarray(V.plot(ax=Figure().subplots(), max_pixels=70).images[0].get_array())
    assert_allclose(pixels, dense.reshape(70, 3, 70, 3).mean(axis=(1, 3)), **close)
    draws = V.sample(40_000, seed=2)
    sd = np.sqrt(np.diag(dense))
    found = draws @ draws.T / 40_000 / np.outer(sd, sd)
    assert_allclose(found, dense / np.outer(sd, sd), atol=0.035)


def test_series_connect_rows() -> None:
    """A series has rows of several levels of the only factor, and V no blocks by that factor."""
    codes = np.repeat(np.arange(6), 5).astype(np.int32)
    series = Series((codes // 3).astype(np.int32))
    R = SeriesResidual(np.where(series.codes[:, None] == series.codes, 0.5, 0.0), series)
    R.dense += np.eye(30)
    own = (codes, np.ones((30, 1)))
    V, _ = with_R(DiagonalResidual(np.full(30, SIGMA**2)), [own], [np.eye(1)])
    assert len(list(V.blocks())) == len(list(V.blocks("g0"))) == 6
    factored = V._factored
    V.__dict__.pop("_structure")
    V.__dict__["_factored"] = FactoredCovariance.of(
        factored.V.terms, factored.V.G, R, SIGMA, factored.factorisation
    )
    assert [rows.tolist() for _, rows, _ in V.blocks()] == [[*range(15)], [*range(15, 30)]]
    with pytest.raises(me.ModelError, match=r"share level 's0' of 'series'.*connected blocks"):
        V.blocks("g0")
    assert V.sparse().nnz == 2 * 15**2
