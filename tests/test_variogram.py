"""The semivariogram against all pairs written down from the definition."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

import mixedeffects as me
import mixedeffects.diagnostics.variogram
from design_models import model_of
from designs import Design, designs
from references import fitted_model

fast = settings(max_examples=25, deadline=None)


def by_hand(
    t: np.ndarray, r: np.ndarray, V: np.ndarray, clusters: np.ndarray, edges: np.ndarray
) -> list[list[float]]:
    """(mean distance, pairs, empirical, implied) of the bins that have pairs, pair by pair."""
    bins: list[list[tuple[float, float, float]]] = [[] for _ in edges[1:]]
    for i, j in itertools.combinations(range(len(t)), 2):
        d = abs(t[i] - t[j])
        if clusters[i] != clusters[j] or not edges[0] <= d <= edges[-1]:
            continue
        at = min(int(np.searchsorted(edges, d, side="right")) - 1, len(bins) - 1)
        pair = (d, (r[i] - r[j]) ** 2 / 2, (V[i, i] + V[j, j] - 2 * V[i, j]) / 2)
        bins[at].append(pair)
    out = []
    for pairs in bins:
        if pairs:
            d, empirical, implied = np.mean(pairs, axis=0)
            out.append([d, len(pairs), empirical, implied])
    return out


@fast
@given(design=designs)
def test_equals_the_definition(design: Design) -> None:
    m, dense = model_of(design)
    t = np.random.default_rng(0).normal(size=m.nobs)
    edges = np.array([0.0, 0.3, 1.0, 1.1, 3.0])
    group = m.frame.terms[0].group
    ours = m.variogram(t, by=group, bins=edges)
    expected = by_hand(t, m.resid("marginal").to_numpy(), dense.V, m.frame.terms[0].codes, edges)
    assert_allclose(ours.table, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["sleepstudy", "threelevel", "penicillin"])
@pytest.mark.parametrize("chunk", [7, 250_000])
def test_default_clusters(name: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixedeffects.diagnostics.variogram, "_CHUNK", chunk)
    m = fitted_model(name)
    t = np.arange(m.nobs) % 10 / 10.0
    ours = m.variogram(t)
    # The subjects; the schools; and, as all rows are connected, the samples.
    clusters = m.frame.terms[-1].codes
    assert ours.by == m.frame.terms[-1].group
    # Tenths that differ by rounding are one distance.
    edges = np.arange(-0.05, 1.0, 0.1)
    expected = by_hand(t, m.resid("marginal").to_numpy(), m.V.dense(), clusters, edges)
    assert_allclose(ours.table, expected, rtol=1e-9, atol=1e-12)
    assert ours.table["n_pairs"].sum() == ours.n_pairs == ours.n_pairs_total
    assert not ours.is_sampled


def test_connected_blocks_are_named_when_they_are_no_factor() -> None:
    rng = np.random.default_rng(1)
    a = np.repeat(np.arange(12), 8)
    data = pd.DataFrame(
        {"a": a, "b": a // 6 * 4 + rng.integers(0, 4, 96), "y": rng.normal(size=96)}
    )
    data["y"] += rng.normal(size=12)[a]
    m = me.lmer("y ~ 1 + (1 | a) + (1 | b)", data)
    ours = m.variogram(np.arange(96.0))
    assert ours.by == "connected blocks"
    assert ours.n_pairs == 2 * (48 * 47 // 2)
    assert len(ours.table) == 12


def test_whitened_residuals_have_the_implied_semivariogram_one() -> None:
    m = fitted_model("sleepstudy")
    for kind in ("cholesky", "symmetric"):
        ours = m.variogram("Days", kind=kind)
        assert (ours.table["implied"] == 1.0).all()
        r = m.resid(kind).to_numpy().reshape(18, 10)
        expected = [((r[:, k:] - r[:, : 10 - k]) ** 2).mean() / 2 for k in range(1, 10)]
        assert_allclose(ours.table["empirical"], expected)


def test_bins() -> None:
    m = fitted_model("sleepstudy")
    assert m.variogram("Days").table["distance"].tolist() == list(range(1, 10))
    four = m.variogram("Days", bins=4)
    assert four.table["n_pairs"].sum() == 810
    assert len(four.table) == 4
    some = m.variogram("Days", bins=[1, 2.5, 4])
    assert some.table["n_pairs"].tolist() == [162 + 144, 126 + 108]
    assert some.n_outside == 810 - 540
    assert "270 of them outside the bins" in repr(some)
    constant = m.variogram(np.zeros(180))
    assert constant.table["n_pairs"].tolist() == [810]
    assert constant.table["distance"].tolist() == [0.0]


def test_sampling_is_reported_repeatable_and_fair() -> None:
    m = fitted_model("star_sample")
    t = np.arange(m.nobs) / m.nobs
    everything = m.variogram(t, by="sch", bins=5)
    sampled = m.variogram(t, by="sch", bins=5, max_pairs=3000)
    assert everything.n_pairs == everything.n_pairs_total > 6000
    assert sampled.is_sampled
    assert sampled.n_pairs == 3000
    assert sampled.n_pairs_total == everything.n_pairs_total
    assert f"3,000 of {sampled.n_pairs_total:,} pairs, sampled" in repr(sampled)
    pd.testing.assert_frame_equal(
        sampled.table, m.variogram(t, by="sch", bins=5, max_pairs=3000).table
    )
    i, j = (
        np.concatenate(side)
        for side in zip(
            *mixedeffects.diagnostics.variogram._Pairs(
                m.frame.terms[-1].codes.astype(np.int64), everything.n_pairs_total - 1
            ),
            strict=True,
        )
    )
    assert len(set(zip(i.tolist(), j.tolist(), strict=True))) == everything.n_pairs_total - 1
    share = sampled.table["n_pairs"] / everything.table["n_pairs"]
    assert_allclose(share, 3000 / everything.n_pairs, rtol=0.15)
    assert_allclose(sampled.table["implied"], everything.table["implied"], rtol=0.05)
    assert_allclose(sampled.table["empirical"], everything.table["empirical"], rtol=0.25)


def test_large_clusters_are_sampled_at_once() -> None:
    m = fitted_model("insteval")
    ours = m.variogram(np.arange(m.nobs) % 100, max_pairs=20_000)
    assert ours.by == "dept:service"
    assert ours.n_pairs_total == sum(k * (k - 1) // 2 for k in np.bincount(m.frame.terms[-1].codes))
    assert ours.table["n_pairs"].sum() == ours.n_pairs


def test_pairs_are_numbered_without_gaps_or_repeats() -> None:
    a, b = mixedeffects.diagnostics.variogram._decode(np.arange(10_000))
    assert len(set(zip(a.tolist(), b.tolist(), strict=True))) == 10_000
    assert (a > b).all()
    # Where double precision no longer resolves the root.
    big = np.array([10**9, 2 * 10**9 + 1, 3 * 10**9])
    for offset in (-1, 0, 1):
        number = big * (big - 1) // 2 + offset
        a, b = mixedeffects.diagnostics.variogram._decode(number)
        assert (a * (a - 1) // 2 + b == number).all()
        assert ((b >= 0) & (b < a)).all()


def test_the_distance_may_be_a_column_that_the_formula_does_not_use() -> None:
    sleep = me.load_dataset("sleepstudy")
    sleep["hour"] = sleep["Days"] * 24
    sleep.loc[3, "Reaction"] = np.nan
    formula = "Reaction ~ 1 + (1 | Subject)"
    expected = me.lmer(formula, sleep).variogram("hour")
    assert expected.table["distance"].tolist() == [24.0 * k for k in range(1, 10)]
    assert expected.distance == "hour"
    m = me.lmer(formula, sleep)
    for distance in (
        sleep["hour"],  # with the row dropped from the fit
        sleep["hour"].to_numpy(),
        sleep["hour"].sample(frac=1, random_state=1),
        sleep["hour"].drop(3).tolist(),
    ):
        pd.testing.assert_frame_equal(m.variogram(distance).table, expected.table)
    other = me.lmer(formula, pl.from_pandas(sleep.astype({"Subject": str})))
    pd.testing.assert_frame_equal(other.variogram("hour").table, expected.table)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"distance": "Dayz"}, me.DataError, "Did you mean `Days`"),
        ({"distance": "Subject"}, me.DataError, "categorical"),
        ({"distance": np.ones(10)}, me.DataError, "180 values.*it has 10"),
        ({"distance": np.full(180, np.nan)}, me.DataError, "180 values that are missing"),
        ({"distance": pd.Series([1.0], index=[5000])}, me.DataError, "row labels"),
        ({"distance": "Days", "by": "School"}, me.ModelError, "'Subject'"),
        ({"distance": "Days", "kind": "response"}, me.ModelError, "'marginal'"),
        ({"distance": "Days", "bins": 0}, me.ModelError, "at least 1"),
        ({"distance": "Days", "bins": [3, 2]}, me.ModelError, "ascending"),
        ({"distance": "Days", "bins": "many"}, me.ModelError, "ascending"),
        ({"distance": "Days", "max_pairs": 0}, me.ModelError, "max_pairs"),
    ],
)
def test_errors(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fitted_model("sleepstudy").variogram(**arguments)


def test_no_pairs() -> None:
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"y": rng.normal(size=30), "g": np.arange(30), "h": np.arange(30) % 5})
    data["y"] += rng.normal(size=5)[data["h"]]
    m = me.lmer("y ~ 1 + (1 | h)", data)
    object.__setattr__(m.frame.terms[0], "codes", np.arange(30, dtype=np.int32))
    with pytest.raises(me.ModelError, match="No two rows"):
        m.variogram(data["g"])


def test_plot_shows_the_table() -> None:
    v = fitted_model("sleepstudy").variogram("Days")
    ax = v.plot(ax=Figure().subplots(), units="ms²")
    points = np.asarray(ax.collections[0].get_offsets())
    assert_allclose(points, v.table[["distance", "empirical"]])
    assert_allclose(ax.lines[0].get_xydata(), v.table[["distance", "implied"]])
    assert ax.get_ylim()[0] == 0.0
    assert ax.get_ylabel() == "semivariance (ms²)"
    white = fitted_model("sleepstudy").variogram("Days", kind="cholesky")
    assert white.plot(ax=Figure().subplots(), units="ms²").get_ylabel() == "semivariance"
