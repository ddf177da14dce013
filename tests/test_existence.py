"""Separation is found where, and only where, the likelihood of a model has no maximum."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special as sp
from numpy.typing import NDArray

from mixedeffects.engine.generalized import existence
from mixedeffects.engine.generalized.existence import (
    Separation,
    row_signs,
    separating_direction,
    separation_message,
)
from mixedeffects.families import Binomial, Poisson, Response

Matrix = NDArray[np.float64]


def _ridge(X: Matrix, y: Matrix, m: Matrix, ridge: float, counts: bool) -> Matrix:
    """The penalised GLM by Newton steps, halved while they rise; rows are proportions of m."""

    def value(beta: Matrix) -> float:
        eta = X @ beta
        own = np.exp(np.minimum(eta, 500)) if counts else m * np.logaddexp(0.0, eta)
        return float((own - m * y * eta).sum() + 0.5 * ridge * beta @ beta)

    beta = np.zeros(X.shape[1])
    for _ in range(500):
        mu = np.exp(np.minimum(X @ beta, 500)) if counts else sp.expit(X @ beta)
        weight = mu if counts else m * mu * (1.0 - mu)
        slope = X.T @ (m * (mu - y)) + ridge * beta
        step = np.linalg.solve((X * weight[:, None]).T @ X + ridge * np.eye(len(beta)), -slope)
        if -slope @ step < 1e-22:
            break
        size = 1.0
        while value(beta + size * step) > value(beta) and size > 1e-12:
            size *= 0.5
        beta = beta + size * step
    return beta


def _runs_off(X: Matrix, y: Matrix, m: Matrix, counts: bool) -> bool:
    """Whether estimates grow without end as a penalty on them vanishes."""
    near, far = (np.abs(X @ _ridge(X, y, m, ridge, counts)).max() for ridge in (1e-5, 1e-10))
    return bool(far > near + 3.0)


def _design(seed: int, counts: bool) -> tuple[Matrix, Response, Matrix]:
    rng = np.random.default_rng(seed)
    n, p = int(rng.integers(6, 22)), int(rng.integers(1, 5))
    X = np.column_stack([np.ones(n), rng.integers(-2, 3, (n, p - 1)).astype(float)])
    if seed % 3 == 0 and p > 1:
        X[:, -1] = rng.normal(size=n)
    if np.linalg.matrix_rank(X) < p:
        return _design(seed + 10_000, counts)
    m = np.ones(n) if seed % 2 or counts else rng.integers(1, 4, n).astype(float)
    eta = X @ rng.normal(0.0, 1.5, p)
    if counts:
        return X, Response(rng.poisson(np.exp(np.minimum(eta - 1.0, 3.0))).astype(float)), m
    y = rng.binomial(m.astype(int), sp.expit(eta)) / m
    return X, Response(y, None if seed % 2 else m), m


def _holds(found: Separation, X: Matrix, signs: NDArray[np.int8]) -> None:
    change = X @ found.direction
    assert np.abs(change).max() == pytest.approx(1.0)
    assert (signs * change >= -1e-7).all()
    assert (np.abs(change[signs == 0]) <= 1e-7).all()
    assert found.successes == (change > 1e-7).sum()
    assert found.others == (change < -1e-7).sum()
    outside = [column for column in range(X.shape[1]) if column not in found.columns]
    assert (np.abs(found.direction[outside]) < 1e-5).all()


@pytest.mark.parametrize("counts", [False, True])
def test_found_where_the_likelihood_rises_without_end(counts: bool) -> None:
    family = Poisson() if counts else Binomial()
    seen = []
    for seed in range(90):
        X, response, m = _design(seed, counts)
        runs_off = _runs_off(X, response.y, m, counts)
        found = separating_direction(X, response, family)
        assert (found is not None) == runs_off, seed
        signs = row_signs(response, family)
        assert signs is not None
        if found is not None:
            _holds(found, X, signs)
        seen.append(runs_off)
    assert 10 < sum(seen) < 80


@pytest.mark.parametrize("counts", [False, True])
def test_the_programme_is_spared_only_where_there_is_no_direction(
    counts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, spared = Poisson() if counts else Binomial(), 0
    searched: list[object] = []
    for seed in range(300):
        X, response, _ = _design(seed, counts)
        with monkeypatch.context() as patch:
            patch.setattr(existence, "_is_balanced", lambda own, signs: False)
            expected = separating_direction(X, response, family) is None
        searched.clear()
        with monkeypatch.context() as patch:
            patch.setattr(existence._Search, "_widest", lambda self, rows: searched.append(rows))
            separating_direction(X, response, family)
        if not searched:
            spared += expected
            assert expected
    assert spared > 60


def test_few_columns_are_named() -> None:
    rng = np.random.default_rng(3)
    n = 4000
    level = rng.integers(0, 12, n)
    X = np.column_stack(
        [np.ones(n), rng.normal(1000.0, 3.0, n), rng.normal(size=(n, 3))]
        + [(level == k).astype(float) for k in range(1, 12)]
    )
    y = rng.binomial(1, 0.4, n).astype(float)
    assert separating_direction(X, Response(y), Binomial()) is None
    y[level == 5] = 0.0
    y[level == 7] = 1.0
    found = separating_direction(X, Response(y), Binomial())
    assert found is not None
    assert set(found.columns) <= {4 + 5, 4 + 7}
    # The reference level needs all others.
    y = rng.binomial(1, 0.4, n).astype(float)
    y[level == 0] = 1.0
    found = separating_direction(X, Response(y), Binomial())
    assert found is not None
    assert found.columns == (0, *range(5, 16))
    assert (found.successes, found.others) == (int((level == 0).sum()), 0)


def test_a_million_rows_by_few_of_them() -> None:
    rng = np.random.default_rng(4)
    n = 300_000
    rare = np.zeros(n)
    rare[rng.choice(n, 12, replace=False)] = 1.0
    X = np.column_stack([np.ones(n), rng.normal(size=(n, 4)), rare])
    y = rng.binomial(1, sp.expit(X[:, 1] - 2.0)).astype(float)
    rows = np.flatnonzero(rare)
    y[rows] = 0.0
    found = separating_direction(X, Response(y), Binomial())
    assert found is not None
    assert found.columns == (5,)
    assert (found.successes, found.others) == (0, 12)
    # One success among them is enough.
    y[rows[7]] = 1.0
    assert separating_direction(X, Response(y), Binomial()) is None


def test_complete_separation_by_a_threshold() -> None:
    x = np.arange(40.0) + 1900.0
    X = np.column_stack([np.ones(40), x])
    found = separating_direction(X, Response((x > 1917.5).astype(float)), Binomial("probit"))
    assert found is not None
    assert found.columns == (0, 1)
    assert found.successes + found.others >= 39
    overlapping = (x > 1917.5).astype(float)
    overlapping[[10, 30]] = [1.0, 0.0]
    assert separating_direction(X, Response(overlapping), Binomial("probit")) is None


def test_rows_without_weight_do_not_count() -> None:
    X = np.column_stack([np.ones(6), [0, 0, 0, 1, 1, 1]])
    y = np.array([0.0, 1, 1, 0, 1, 1])
    weights = np.array([1.0, 1, 1, 0, 1, 1])
    assert separating_direction(X, Response(y), Binomial()) is None
    found = separating_direction(X, Response(y, weights=weights), Binomial())
    assert found is not None
    assert found.columns == (1,)


def test_families_and_links_without_such_ends() -> None:
    y = np.array([0.0, 1.0, 0.0])
    assert row_signs(Response(y), Binomial("identity")) is None
    assert row_signs(Response(y), Poisson("sqrt")) is None
    for link in ("logit", "probit", "cloglog", "cauchit"):
        assert row_signs(Response(y), Binomial(link)).tolist() == [-1, 1, -1]
    # exp(eta) cannot pass one.
    assert row_signs(Response(y), Binomial("log")).tolist() == [-1, 0, -1]
    assert row_signs(Response(y), Poisson()).tolist() == [-1, 0, -1]
    trials = Response(np.array([0.0, 1.0, 0.5]), trials=np.array([4.0, 3.0, 2.0]))
    assert row_signs(trials, Binomial()).tolist() == [-1, 1, 0]


def test_messages() -> None:
    names = ["(Intercept)", "a", "b", "c", "d", "e", "f", "g"]
    zero = Separation(np.zeros(8), (2,), 0, 1200, 5000, True)
    assert separation_message(zero, names) == (
        "The fixed effect of `b` has no finite estimate: along it 1,200 of 5,000 rows, all of them "
        "with a count of zero, are fitted better and better and no row worse, so that the "
        "likelihood rises without end (separation). Leave it out, or join levels of a factor that "
        "have only zeros."
    )
    mixed = Separation(np.zeros(8), (0, 1, 2, 3, 4, 5, 6, 7), 4, 3, 9, False)
    text = separation_message(mixed, names)
    assert "`(Intercept)`, `a`, `b`, `c`, `d`, `e` and 2 more have no finite estimates" in text
    assert "7 of 9 rows, 4 of successes only and 3 of failures only, are fitted" in text
