"""Diagnostic pictures: what is drawn is what the model says, at every kind of fit."""

from __future__ import annotations

import builtins
import io
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from matplotlib.collections import PathCollection
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from numpy.testing import assert_allclose, assert_array_equal

import mixedeffects as me
from design_models import model_of
from designs import Design, designs
from mixedeffects.diagnostics import leverage
from mixedeffects.diagnostics.leverage import affordable_leverage
from mixedeffects.display import normal_bands, points
from mixedeffects.display.normal_bands import normal_band, shown_ranks
from mixedeffects.display.smooth import local_linear
from mixedeffects.pictures import ranef_plots, residual_plots
from mixedeffects.pictures.panel import PICTURES
from mixedeffects.pictures.ranef_plots import standardised_modes
from references import fitted_model


def axes(rows: int = 1, columns: int = 1) -> Any:
    return Figure(figsize=(4.5 * columns, 4 * rows), layout="constrained").subplots(rows, columns)


def offsets(ax: Any) -> np.ndarray:
    """Coordinates of all points drawn one by one."""
    clouds = [c for c in ax.collections if isinstance(c, PathCollection)]
    return np.vstack([np.asarray(cloud.get_offsets()) for cloud in clouds])


# The line through a cloud ------------------------------------------------------------------------


def lowess_by_hand(x: np.ndarray, y: np.ndarray, at: float, span: float) -> float:
    distance = np.abs(x - at)
    width = np.sort(distance)[min(len(x) - 1, int(np.ceil(span * len(x))))]
    w = np.where(distance < width, (1 - (distance / width) ** 3) ** 3, 0.0)
    slope, intercept = np.polyfit(x, y, 1, w=np.sqrt(w))
    return float(intercept + slope * at)


def test_smooth_is_a_weighted_regression_at_each_place() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=60)
    y = np.sin(x) + 0.1 * rng.normal(size=60)
    at, line = local_linear(x, y, span=0.4)
    assert at[0] == x.min() and at[-1] == x.max()
    assert_allclose(line, [lowess_by_hand(x, y, place, 0.4) for place in at], rtol=1e-6)


def test_smooth_of_many_points_uses_all_of_them() -> None:
    x = np.random.default_rng(0).normal(size=7001)
    at, line = local_linear(x, 3.0 - 2.0 * x)
    assert_allclose(line, 3.0 - 2.0 * at, atol=1e-9)
    shifted = local_linear(x, np.where(np.arange(7001) == 17, 2000.0, 0.0))[1]
    assert shifted.max() > 0.1


def test_smooth_with_ties() -> None:
    assert len(local_linear(np.ones(5), np.arange(5.0))[0]) == 0
    x = np.repeat([0.0, 1.0], [50, 3])
    line = local_linear(x, np.where(x == 0.0, 2.0, 5.0))[1]
    assert np.isfinite(line).all()
    assert_allclose(line[[0, -1]], [2.0, 5.0], atol=1e-6)


# Bands -------------------------------------------------------------------------------------------


def test_pointwise_band_is_that_of_beta_quantiles() -> None:
    ranks, n = np.array([1, 7, 40]), 40
    lower, upper = normal_band(ranks, n, 0.9, False)
    beta = scipy.stats.beta(ranks, n + 1 - ranks)
    assert_allclose(lower, scipy.stats.norm.ppf(beta.ppf(0.05)))
    assert_allclose(upper, scipy.stats.norm.ppf(beta.ppf(0.95)), rtol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 20, 200, 3000])
def test_simultaneous_band_holds_all_points_together(n: int) -> None:
    ranks = np.arange(1, n + 1)
    lower, upper = normal_band(ranks, n, 0.9, True)
    rng = np.random.default_rng(n)
    draws = [np.sort(rng.standard_normal(n)) for _ in range(2000)]
    inside = np.mean([np.all((lower <= x) & (x <= upper)) for x in draws])
    assert inside == pytest.approx(0.9, abs=0.022)  # three standard errors, and one of the band's


def test_local_level_falls_with_n_and_without_a_jump() -> None:
    edge = normal_bands._SIMULATED
    levels = [normal_bands.local_level(n, 0.95) for n in (2, edge, edge + 1, 10**4, 10**7)]
    assert (np.diff(levels) < 0).all() and levels[2] > 0.99 * levels[1] and levels[-1] > 1e-5


def test_ranks_shown() -> None:
    assert_array_equal(shown_ranks(5), np.arange(1, 6))
    ranks = shown_ranks(10**6)
    assert len(ranks) <= 3000
    assert_array_equal(ranks[:500], np.arange(1, 501))
    assert_array_equal(ranks[-500:], np.arange(10**6 - 499, 10**6 + 1))
    assert np.diff(scipy.stats.norm.ppf(ranks[:-1] / 10**6)).max() < 0.3


# Residuals ---------------------------------------------------------------------------------------


def test_residuals_against_fitted_and_a_variable() -> None:
    m = fitted_model("sleepstudy")
    expected = np.column_stack([m.fitted, m.resid("pearson")])
    assert_allclose(offsets(me.plot.residuals(m, ax=axes())), expected)
    days = me.plot.residuals(m, against="Days", resid="studentized", ax=axes())
    assert_allclose(offsets(days)[:, 0], m.frame.data["Days"])
    scale = me.plot.scale(m, ax=axes())
    assert_allclose(offsets(scale)[:, 1], np.sqrt(np.abs(m.resid("scaled"))))
    with pytest.raises(me.DataError, match=r"'Subject' holds .* numeric one is needed.*'Days'"):
        me.plot.residuals(m, against="Subject")
    with pytest.raises(me.DataError, match=r"no variable 'Day'; the numeric ones are 'Reaction'"):
        me.plot.residuals(m, against="Day")


def test_many_rows_are_counted_none_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(points, "MANY_POINTS", 100)
    m = fitted_model("sleepstudy")
    ax = me.plot.residuals(m, ax=axes())
    (hexagons,) = ax.collections
    assert hexagons.get_array().sum() == m.nobs
    assert ax.texts[0].get_text().startswith("180 rows in hexagons")


@pytest.mark.parametrize("kind", ["cholesky", "studentized", "pearson", "marginal"])
def test_quantiles_of_any_residuals(kind: str) -> None:
    m = fitted_model("sleepstudy")
    ax = me.plot.qq(m, resid=kind, ax=axes())
    r = m.resid(kind).to_numpy()
    drawn = offsets(ax)
    assert_allclose(drawn[:, 1], np.sort(r))
    positions = (np.arange(1, 181) - 0.375) / 180.25
    assert_allclose(drawn[:, 0], scipy.stats.norm.ppf(positions))
    x, line = ax.lines[0].get_data()
    standard = kind in ("cholesky", "studentized")
    assert_allclose(line, x if standard else r.mean() + r.std() * x)


def test_band_options() -> None:
    m = fitted_model("sleepstudy")
    assert me.plot.qq(m, band=None, ax=axes()).texts[0].get_text() == "180 values"
    pointwise = me.plot.qq(m, band="pointwise", level=0.9, ax=axes())
    assert pointwise.texts[0].get_text() == "90 % pointwise band of 180 normal values"
    for options, words in [
        ({"band": "both"}, "band 'both' is not known"),
        ({"level": 95}, "between 0 and 1"),
        ({"level": "high"}, "between 0 and 1, for example 0.95; got 'high'"),
        ({"resid": "raw"}, "Residual kind 'raw'"),
    ]:
        with pytest.raises(me.ModelError, match=words):
            me.plot.qq(m, ax=axes(), **options)


def test_groups_have_the_worst_on_top() -> None:
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(40), rng.integers(1, 12, 40))
    r = rng.normal(size=len(g))
    r[g == 7] *= 6.0
    order = residual_plots._worst_levels(g.astype(np.int32), 40, r)
    df = np.bincount(g)
    tail = scipy.stats.chi2.logsf(np.bincount(g, r**2) / np.mean(r**2), df)
    assert order[0] == np.argmin(tail) == 7
    for size in np.unique(df):
        same = order[df[order] == size]
        assert (np.diff(tail[same]) >= 0).all()
    # Wilson and Hilferty's order is that of the exact tails but for near ties.
    assert scipy.stats.spearmanr(np.argsort(order), tail).statistic > 0.99


def test_boxes_of_groups() -> None:
    m = fitted_model("sleepstudy")
    ax = me.plot.groups(m, most=3, ax=axes())
    labels = [label.get_text() for label in ax.get_yticklabels()]
    r = m.resid("scaled").to_numpy()
    levels = m.frame.data["Subject"].astype(str).to_numpy()
    assert len(ax.patches) == len(labels) == 3
    for label, box in zip(labels, ax.patches, strict=True):
        quartiles = np.quantile(r[levels == label], [0.25, 0.75])
        assert_allclose([box.get_x(), box.get_x() + box.get_width()], quartiles)
    assert ax.texts[0].get_text() == "the 3 of 18 levels where they are largest"
    for most in (0, True, 2.5):
        with pytest.raises(me.ModelError, match="most must be a whole number"):
            me.plot.groups(m, most=most)


def test_leverage_names_the_rows_with_most_pull() -> None:
    m = fitted_model("star_sample")
    ax = me.plot.leverage(m, ax=axes())
    h, r = m.leverage(), m.resid("studentized")
    assert_allclose(offsets(ax), np.column_stack([h, r]))
    worst = (h * r**2 / (1 - h)).nlargest(3)
    assert [text.get_text() for text in ax.texts[:3]] == [str(label) for label in worst.index]


def test_rows_of_leverage_one_are_counted() -> None:
    data = pd.DataFrame(
        {
            "y": [1.0, 2.0, 1.5, 2.5, 0.5, 4.0, 1.2, 2.2],
            "only": [0.0] * 7 + [1.0],
            "g": list("aabbccab"),
        }
    )
    m = me.lmer("y ~ only + (1 | g)", data)
    assert np.isnan(m.resid("studentized").iloc[7])
    ax = me.plot.leverage(m, ax=axes())
    assert any(t.get_text() == "1 row has leverage one and no residual; 7 rows" for t in ax.texts)
    assert len(offsets(ax)) == 7
    assert len(offsets(me.plot.qq(m, resid="studentized", ax=axes()))) == 7


def test_expensive_pictures_have_stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    m = fitted_model("penicillin")
    assert residual_plots.affordable_whitening(m.fit) == "cholesky"
    assert affordable_leverage(m.fit)
    monkeypatch.setattr(residual_plots, "_AFFORDABLE", 5e5)
    assert residual_plots.affordable_whitening(m.fit) == "symmetric"
    monkeypatch.setattr(residual_plots, "_AFFORDABLE", 100.0)
    monkeypatch.setattr(leverage, "_AFFORDABLE_WORK", 100.0)
    drawn = m.plot(ax=axes(2, 3))
    assert drawn[2].get_ylabel() == "scaled residual"
    assert drawn[5].get_xlabel() == "leverage of the fixed part"
    assert_allclose(offsets(drawn[5])[:, 0], m.leverage("fixed"))


# Conditional modes -------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(design=designs)
def test_standardised_modes_against_dense_algebra(design: Design) -> None:
    """Given beta, ``Var(b^) = G Z'V^-1 Z G``."""
    m, dense = model_of(design)
    cross = m.G.sparse().toarray() @ m.Z.toarray().T
    variances = np.diag(cross @ dense.V_inverse @ cross.T)
    start = 0
    expected: dict[str, list[np.ndarray]] = {}
    for term in m.frame.terms:
        stop = start + term.n_levels * term.n_columns
        expected.setdefault(term.group, []).append(
            variances[start:stop].reshape(term.n_levels, term.n_columns)
        )
        start = stop
    for group, parts in expected.items():
        ours = standardised_modes(m.fit, group).to_numpy()
        modes = m.ranef()[group].to_numpy()
        by_hand = np.maximum(np.hstack(parts), 0.0)
        # Where next to nothing is known of an effect, its mode is a difference of equal numbers.
        known = np.isfinite(ours) & (by_hand > 1e-5 * by_hand.max())
        assert known.any() or np.abs(modes).max() < 1e-4
        assert_allclose(ours[known], modes[known] / np.sqrt(by_hand[known]), rtol=1e-4)


def segments(ax: Any) -> np.ndarray:
    """(low, high, place) of the intervals, from the bottom."""
    drawn = [
        s for c in ax.collections if hasattr(c, "get_segments") for s in c.get_segments() if len(s)
    ]
    out = np.array([[s[0, 0], s[1, 0], s[0, 1]] for s in drawn])
    return out[np.argsort(out[:, 2])]


def test_caterpillar_intervals() -> None:
    m = fitted_model("sleepstudy")
    drawn = m.plot("caterpillar", ax=axes(1, 2))
    table = m.ranef(cond_var=True).to_frame()
    for name, ax in zip(["(Intercept)", "Days"], drawn, strict=True):
        own = table[table["term"] == name].set_index("level")
        by_intercept = table[table["term"] == "(Intercept)"].sort_values("condval")["level"]
        own = own.loc[by_intercept]
        half = scipy.stats.norm.ppf(0.975) * own["condsd"]
        expected = np.column_stack([own["condval"] - half, own["condval"] + half, np.arange(18)])
        assert_allclose(segments(ax), expected, rtol=1e-9)
        dark = [
            c
            for c in ax.collections
            if hasattr(c, "get_segments") and same_color(c.get_color()[0], points.EMPIRICAL)
        ]
        count = sum(len(c.get_segments()) for c in dark)
        assert count == int((own["condval"].abs() > half).sum())
    assert [t.get_text() for t in drawn[0].get_yticklabels()] == list(by_intercept)
    assert drawn[1].get_yticklabels() == []
    by_days = me.plot.caterpillar(m, columns="Days", sort="Days", level=0.5, ax=axes())
    assert (np.diff(segments(by_days)[:, :2].mean(axis=1)) > 0).all()


def test_many_levels_become_a_band(monkeypatch: pytest.MonkeyPatch) -> None:
    m = fitted_model("star_sample")  # 319 and 79 levels
    for by, count in (("tch:sch", 319), ("sch", 79)):
        drawn = me.plot.caterpillar(m, by=by, ax=axes(1, 2))
        assert all(ax.get_yticklabels() == [] for ax in drawn)
        assert drawn[0].texts[0].get_text() == f"95 % intervals of {count} levels"
    monkeypatch.setattr(ranef_plots, "_BINNED", 79)
    monkeypatch.setattr(ranef_plots, "_BINS", 10)
    ax = me.plot.caterpillar(m, by="sch", columns="(Intercept)", ax=axes())
    modes = np.sort(m.ranef()["sch"]["(Intercept)"].to_numpy())
    means = [part.mean() for part in np.split(modes, np.arange(1, 10) * 79 // 10)]
    assert_allclose(ax.lines[0].get_xdata(), means)
    assert ax.texts[0].get_text().endswith("averaged by 8")


def test_ellipse_is_that_of_the_estimated_covariance() -> None:
    m = fitted_model("sleepstudy")
    ax = me.plot.ranef_pairs(m, level=0.8, ax=axes())
    assert_allclose(offsets(ax), m.ranef()["Subject"].to_numpy())
    ellipse = np.column_stack(ax.lines[0].get_data())
    G = m.G["Subject"].to_numpy()
    squares = np.einsum("ia,ab,ib->i", ellipse, np.linalg.inv(G), ellipse)
    assert_allclose(squares, scipy.stats.chi2.ppf(0.8, 2))
    flat = me.plot.ranef_pairs(fitted_model("star_sample"), by="sch", ax=axes())
    x, y = flat.lines[0].get_data()
    assert np.corrcoef(x, y)[0, 1] < -0.9999


def test_pairs_where_there_are_none() -> None:
    with pytest.raises(me.ModelError, match="No grouping factor has two random effects"):
        fitted_model("penicillin").plot("ranef_pairs")
    m = fitted_model("sleepstudy")
    with pytest.raises(me.ModelError, match=r"Pairs take two effects of 'Subject'.*'Days'"):
        me.plot.ranef_pairs(m, columns=["Days"])
    with pytest.raises(me.ModelError, match="'plate' has only one random effect"):
        me.plot.ranef_pairs(fitted_model("penicillin"), by="plate")
    with pytest.raises(me.ModelError, match=r"'Subject' has no random effect 'Day'; it has"):
        me.plot.caterpillar(m, columns="Day")
    with pytest.raises(me.ModelError, match="columns is empty"):
        me.plot.ranef_qq(m, columns=[])
    with pytest.raises(me.ModelError, match="no grouping factor 'subject'"):
        me.plot.ranef_qq(m, by="subject")


def test_no_variance_is_said() -> None:
    m = fitted_model("dyestuff2")
    ax = me.plot.ranef_qq(m, ax=axes())
    assert "no variance is estimated" in ax.texts[0].get_text().replace("\n", " ")
    ax = me.plot.caterpillar(m, ax=axes())
    assert "no variance is estimated" in ax.texts[0].get_text()
    assert len(m.plot(ax=axes(2, 3))) == 6


# Every kind of fit -------------------------------------------------------------------------------


@cache
def odd_models() -> dict[str, me.LinearMixedModel]:
    rng = np.random.default_rng(5)
    n = 120
    long = "a_covariate_with_a_name_that_nobody_would_want_to_read_on_an_axis"
    data = pd.DataFrame(
        {
            "y": rng.normal(size=n),
            long: rng.normal(size=n),
            "two": rng.choice(["a rather long label of the first level", "b"], n),
            "many": [f"l{i}" for i in rng.integers(0, 70, n)],
            "w": rng.uniform(0.5, 3.0, n),
        },
        index=[f"row {i}" for i in range(n)],
    )
    effects = pd.Series(rng.normal(size=70), index=[f"l{i}" for i in range(70)])
    data["y"] += data[long] + data["many"].map(effects)
    data.loc["row 3", "y"] = np.nan
    return {
        "crossed, weights, dropped row": me.lmer(
            f"y ~ {long} + (1 | many) + (1 | two)", data, weights="w"
        ),
        "double bar, long names": me.lmer(f"y ~ {long} + ({long} || many)", data),
        "two levels": me.lmer(f"y ~ {long} + (1 | two)", data),
        "singular slopes": fitted_model("star_sample"),
        "no variance": fitted_model("dyestuff2"),
    }


@pytest.mark.parametrize("name", list(odd_models()))
@pytest.mark.parametrize("kind", list(PICTURES))
def test_every_picture_of_every_fit(name: str, kind: str) -> None:
    m = odd_models()[name]
    if kind == "ranef_pairs" and all(t.shape[1] < 2 for t in m.ranef().values()):
        with pytest.raises(me.ModelError, match="no pairs to draw"):
            m.plot(kind)
        return
    drawn = np.atleast_1d(m.plot(kind))
    assert plt.get_fignums()
    drawn[0].figure.canvas.draw()
    for ax in drawn:
        # Those of effects say what they are on their axes.
        assert kind == "effects" or ax.get_title(loc="left").strip()
        low, high = ax.get_ylim()
        assert np.isfinite([low, high]).all() and low != high


def test_names_and_options_are_checked() -> None:
    m = fitted_model("sleepstudy")
    with pytest.raises(
        me.ModelError, match=r"Picture 'qqq' is not known; there are 'panel', .*'qq'"
    ):
        m.plot("qqq")
    with pytest.raises(me.ModelError, match=r"Picture 'qq' has no option 'by'; there are: 'resid'"):
        m.plot("qq", by="Subject")
    with pytest.raises(me.ModelError, match="'panel' has no option 'level'; there are: none"):
        m.plot(level=0.9)
    with pytest.raises(me.ModelError, match="ax holds 2 axes, but there are 6 pictures"):
        m.plot(ax=axes(1, 2))
    for kind, function in PICTURES.items():
        assert getattr(me.plot, kind) is function


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    original = builtins.__import__
    m = fitted_model("sleepstudy")
    with monkeypatch.context() as patch:
        for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
            patch.delitem(sys.modules, name)
        patch.setattr(builtins, "__import__", refuse)
        for kind in PICTURES:
            with pytest.raises(ImportError, match=r"mixedeffects\[plots\]"):
                m.plot(kind)


@pytest.mark.parametrize(
    "draw",
    [
        lambda m: m.plot(),
        lambda m: m.plot("effects"),
        lambda m: m.plot("checks"),
        lambda m: m.plot("caterpillar"),
        lambda m: m.check("normality").plot(),
        lambda m: m.emmeans("Sex", by="age", at={"age": [8, 14]}).plot(),
        lambda m: m.effects("age", by="Sex").plot(),
        lambda m: m.bootstrap(5, seed=1).plot(),
        lambda m: m.profile(["sigma", "age"]).plot(),
    ],
)
def test_several_pictures_know_their_figure(draw: Callable[[Any], Any]) -> None:
    m = me.lmer("distance ~ age + Sex + (age | Subject)", me.load_dataset("orthodont"))
    drawn = draw(m)
    assert isinstance(drawn, np.ndarray) and len(drawn) > 1
    assert all(each.figure is drawn.figure for each in drawn)
    written = io.BytesIO()
    drawn.figure.savefig(written, format="png")
    assert written.getvalue().startswith(b"\x89PNG")
    plt.close(drawn.figure)
