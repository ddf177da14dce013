"""Semivariograms of generalized fits: by the definition, and beside data sets of the model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

import mixedeffects as me
from test_variogram import by_hand


def series(kind: str, seed: int = 4) -> pd.DataFrame:
    """Counts at 8 times of 40 subjects; neighbours are alike where kind is not "independent"."""
    rng = np.random.default_rng(seed)
    subjects, times = 40, 8
    lag = np.abs(np.subtract.outer(np.arange(times), np.arange(times)))
    R = np.eye(times) if kind == "independent" else 0.8**lag
    spread = 0.0 if kind == "independent" else 0.8
    e = spread * rng.normal(size=(subjects, times)) @ np.linalg.cholesky(R).T
    b = 0.5 * rng.normal(size=(subjects, 1))
    data = pd.DataFrame(
        {
            "id": np.repeat(np.arange(subjects), times),
            "week": np.tile(np.arange(times), subjects),
        }
    )
    data["y"] = rng.poisson(np.exp(1.5 + b + e).ravel()).astype(float)
    return data


def fitted(kind: str = "independent") -> me.GeneralizedLinearMixedModel:
    return me.glmer("y ~ week + (1 | id)", series(kind), family="poisson")


@pytest.mark.parametrize("kind", ["pearson", "quantile"])
def test_equals_the_definition(kind: str) -> None:
    m = fitted()
    edges = np.array([0.5, 1.5, 3.0, 7.0])
    found = m.variogram("week", kind=kind, bins=edges, draws=5)
    r = m.resid(kind).to_numpy()
    week = m.frame.data["week"].to_numpy(dtype=float)
    expected = by_hand(week, r, np.eye(m.nobs), m.frame.terms[0].codes, edges)
    columns = ["distance", "n_pairs", "empirical"]
    assert_allclose(found.table[columns], np.array(expected)[:, :3], rtol=1e-10)
    assert (found.kind, found.by, found.draws) == (kind, "id", 5)
    named = "Pearson" if kind == "pearson" else "quantile"
    assert found.sentence().startswith(f"Semivariogram of the {named} residuals within id: ")
    again = m.variogram("week", kind=kind, bins=edges, draws=5)
    pd.testing.assert_frame_equal(found.table, again.table)
    other = m.variogram("week", kind=kind, bins=edges, draws=5, seed=2)
    assert (other.table["implied"] != found.table["implied"]).all()


def test_what_is_implied_is_what_fits_to_drawn_data_have() -> None:
    # Of four times with slopes of their own the modes take a good part of each difference.
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"id": np.repeat(np.arange(50), 4), "week": np.tile(np.arange(4.0), 50)})
    b, slope = rng.normal(0.0, 0.7, 50), rng.normal(0.0, 0.5, 50)
    eta = 2.0 + b[data["id"]] + slope[data["id"]] * data["week"]
    data["y"] = rng.poisson(np.exp(eta)).astype(float)
    m = me.glmer("y ~ week + (week | id)", data, family="poisson")
    edges = [0.5, 1.5, 3.5]
    found = m.variogram("week", kind="pearson", bins=edges, draws=300).table
    refits = []
    for j in range(60):
        again = m.refit(m.simulate(1, seed=100 + j).iloc[:, 0].to_numpy())
        refits.append(again.variogram("week", kind="pearson", bins=edges, draws=1).table)
    values = np.array([each["empirical"] for each in refits])
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    assert (np.abs(found["implied"] - values.mean(axis=0)) < 4.0 * error).all()
    # About the modes that drew the data it would be one.
    assert (found["implied"] + 8.0 * error < 1.0).all()
    spread = np.quantile(values, [0.025, 0.975], axis=0)
    assert_allclose(found[["lower", "upper"]].to_numpy().T, spread, atol=0.1)


def test_serial_correlation_is_seen_and_independence_is_not() -> None:
    table = fitted("serial").variogram("week", draws=99).table
    assert table["empirical"].iloc[-1] > table["upper"].iloc[-1]
    assert table["empirical"].iloc[0] < table["empirical"].iloc[-1]
    inside = []
    for seed in range(8):
        m = me.glmer("y ~ week + (1 | id)", series("independent", seed), family="poisson")
        table = m.variogram("week", draws=99).table
        inside.append(table["empirical"].between(table["lower"], table["upper"]))
    assert np.mean(inside) > 0.85


def test_the_picture_says_what_the_residuals_are() -> None:
    m = fitted()
    ax = m.variogram("week", kind="pearson", draws=19).plot(ax=Figure().subplots())
    assert ax.get_ylabel() == "semivariance of Pearson residuals"
    assert ax.get_xlabel() == "difference in week"
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "mean of 19 data sets drawn" in labels
    assert "95 % of them" in labels
    ax = m.variogram("week", draws=19).plot(ax=Figure().subplots())
    assert ax.get_ylabel() == "semivariance of quantile residuals"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "marginal"}, "Variogram kind 'marginal' is not known"),
        ({"draws": 0}, "draws, the number of data sets drawn,"),
        ({"bins": 0}, "bins must be at least 1"),
        ({"max_pairs": 0}, "max_pairs must be a whole number"),
        ({"level": 2.0}, "level"),
    ],
)
def test_errors(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(me.ModelError, match=message):
        fitted().variogram("week", **arguments)
