"""Fits of tables that stay in their engine are those of the same rows in memory."""

from __future__ import annotations

import os
import re
import signal
import threading
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import mixedeffects as me
from lazy_tables import ENGINES, in_memory, rows, table_of, with_gaps
from mixedeffects.diagnostics.residuals import residual_quantiles
from mixedeffects.errors import DataError, DataWarning, FormulaError, ModelError

#: Formula, options, whether rows are missing.
DESIGNS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "slope": ("y ~ x + (x | pupil)", {}, False),
    "independent slope": ("y ~ x + (x || pupil)", {}, False),
    "slope alone": ("y ~ x + (0 + x | pupil)", {}, False),
    "no intercept": ("y ~ 0 + x + (1 | pupil)", {}, False),
    "crossed": ("y ~ x + (1 | pupil) + (1 | test)", {}, False),
    "crossed slopes": ("y ~ x * z + (x | pupil) + (z | test)", {"reml": False}, False),
    "nested": ("y ~ x + (1 | school/pupil)", {}, False),
    "nested slopes": ("y ~ x + (x | school/pupil)", {}, False),
    "nested and crossed": ("y ~ x + (1 | school/pupil) + (1 | test)", {}, False),
    "three crossed": ("y ~ x + (1 | pupil) + (1 | test) + (1 | week)", {}, False),
    "interactions": ("y ~ x * arm + late:x + (1 | pupil)", {}, True),
    "levels within": ("y ~ x + (0 + arm | pupil)", {}, True),
    "logical within": ("y ~ x + late + C(arm, sum) + (late | pupil)", {}, False),
    "text": ("y ~ x + (1 | name)", {}, False),
    "weights": ("y ~ x + (x | pupil)", {"weights": "w"}, True),
    "worked out": ("y ~ x + (1 | pupil)", {"weights": "1 / w", "offset": "0.1 * z"}, False),
    "transforms": ("y ~ log(size) + I(x^2) + scale(z) + (1 | pupil)", {}, True),
    "polynomial": ("y ~ poly(z, 3) + (1 | pupil)", {}, False),
    "rank deficient": ("y ~ x + I(2 * x) + arm + (1 | pupil)", {}, False),
    "far from zero": ("y ~ year + stamp + (year | pupil)", {}, False),
    "symmetric": ("y ~ x + cs(0 + arm | pupil) + offset(z)", {}, False),
    "autoregressive": ("y ~ x + ar1(0 + factor(week) | pupil)", {}, False),
    "functions": (
        "y ~ pmax(x, 0) + ifelse(x > 0.5, z, 0) + (arm == 'drill') + round(x, 1) + log1p(size) "
        "+ tanh(x) + sqrt(size) + (1 | pupil)",
        {},
        True,
    ),
}


def assert_same(found: me.LinearMixedModel, wanted: me.LinearMixedModel) -> None:
    """Everything that the blocks give is that of rows in memory, by the same search."""
    assert_allclose(found.fit.criterion, wanted.fit.criterion, rtol=1e-10)
    se = wanted.coef_table()["Std. Error"].to_numpy()
    assert_allclose(found.fixef, wanted.fixef, rtol=1e-8, atol=1e-8 * se.min())
    assert list(found.fixef.index) == list(wanted.fixef.index)
    assert_allclose(found.vcov(), wanted.vcov(), rtol=1e-7, atol=1e-9 * se.max() ** 2)
    assert_allclose(found.theta, wanted.theta, rtol=1e-7, atol=1e-8)
    assert_allclose(found.sigma, wanted.sigma, rtol=1e-9)
    for name, own in wanted.ranef(cond_var=True).items():
        other = found.ranef(cond_var=True)[name]
        assert list(other.index) == list(own.index)
        assert_allclose(other, own, rtol=1e-6, atol=1e-8 * np.abs(own.to_numpy()).max())
    assert found.nobs == wanted.nobs
    assert found.ngroups == wanted.ngroups
    assert found.optimum.converged


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("design", DESIGNS)
def test_a_table_gives_the_fit_of_its_rows(design: str, engine: str) -> None:
    formula, options, gaps = DESIGNS[design]
    data = with_gaps(rows()) if gaps else rows()
    wanted = me.lmer(formula, data, **options)
    found = me.lmer(formula, table_of(engine, data), rows="push", **options)
    assert_same(found, wanted)
    assert len(found.frame.dropped.rows) == len(wanted.frame.dropped.rows)
    assert found.frame.dropped.missing_by_column == wanted.frame.dropped.missing_by_column
    assert found.frame.dropped.columns == wanted.frame.dropped.columns


@pytest.mark.parametrize("engine", ["duckdb", "polars", "ibis"])
def test_splines_are_cubics_between_the_same_knots(engine: str) -> None:
    formula = "y ~ ns(z, df = 3) + bs(x, df = 5) + cr(size, df = 4) + (1 | pupil)"
    wanted = me.lmer(formula, rows())
    assert_same(me.lmer(formula, table_of(engine, rows()), rows="push"), wanted)


def test_dask_says_that_it_has_no_exact_quantiles() -> None:
    with pytest.raises(FormulaError, match=r"has no exact quantiles.*give its knots"):
        me.lmer("y ~ ns(z, df = 3) + (1 | pupil)", table_of("dask", rows()), rows="push")
    formula = "y ~ ns(z, knots = c(1, 2), Boundary.knots = c(-1, 5)) + (1 | pupil)"
    assert_same(me.lmer(formula, table_of("dask", rows()), rows="push"), me.lmer(formula, rows()))


def test_means_far_from_zero_cost_no_digits() -> None:
    """A column of raw sums would lose all of them at a mean of a million standard deviations."""
    data = rows().assign(far=lambda d: 1e6 + d["x"])
    near = me.lmer("y ~ x + (x | pupil)", data)
    found = me.lmer("y ~ far + (1 + I(far - 1e6) | pupil)", table_of("duckdb", data), rows="push")
    assert_allclose(found.fit.criterion, near.fit.criterion, rtol=1e-6)
    assert_allclose(found.fixef["far"], near.fixef["x"], rtol=1e-6)


def test_by_default_small_tables_are_collected_and_large_ones_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = rows()
    m = me.lmer("y ~ x + (1 | pupil)", table_of("duckdb", data))
    assert m.fit.rows is None and len(m.resid()) == len(data)
    monkeypatch.setattr("mixedeffects.fitting.lazy_fitting._COLLECTED", 1_000)
    m = me.lmer("y ~ x + (1 | pupil)", table_of("duckdb", data))
    assert m.fit.rows is not None
    assert "rows stayed in the table (DuckDB), 2,000 used" in repr(m)
    assert me.lmer("y ~ x + (1 | pupil)", data).fit.rows is None
    assert me.lmer("y ~ x + (1 | pupil)", table_of("duckdb", data), rows="collect").fit.rows is None


def test_what_needs_rows_says_so() -> None:
    m = me.lmer("y ~ x + (1 | pupil)", table_of("duckdb", rows()), rows="push")
    for ask in (m.resid, lambda: m.fitted, lambda: m.X, lambda: m.V.dense(), m.simulate):
        with pytest.raises(ModelError, match=re.escape("The rows stayed in the table (DuckDB)")):
            ask()


def test_rows_in_memory_cannot_be_pushed_down() -> None:
    with pytest.raises(DataError, match="is a DataFrame in memory; rows='push' is for tables"):
        me.lmer("y ~ x + (1 | pupil)", rows(), rows="push")
    with pytest.raises(ModelError, match="rows 'down' is not known"):
        me.lmer("y ~ x + (1 | pupil)", rows(), rows="down")


@pytest.mark.parametrize("engine", ENGINES)
def test_fitted_values_are_columns_of_the_table(engine: str) -> None:
    data = with_gaps(rows())
    formula = "y ~ x * arm + (x | pupil) + (1 | test)"
    wanted = me.lmer(formula, data, weights="w")
    found = me.lmer(formula, table_of(engine, data), rows="push", weights="w")
    augmented = in_memory(found.augment()).sort_values("id").reset_index(drop=True)
    own = wanted.augment().reset_index(drop=True)
    for name in ("_fitted", "_resid", "_fixed"):
        assert_allclose(augmented[name], own[name], atol=1e-9)
    assert set(augmented) == {*data, "_fitted", "_resid", "_fixed"}
    quantiles = residual_quantiles(wanted.fit)
    assert_allclose(residual_quantiles(found.fit), quantiles, atol=1e-9)


@pytest.mark.parametrize("engine", ENGINES)
def test_predictions_are_columns_of_any_table(engine: str) -> None:
    data = with_gaps(rows())
    m = me.lmer("y ~ x * arm + scale(z) + (x | pupil)", table_of(engine, data), rows="push")
    wanted = me.lmer("y ~ x * arm + scale(z) + (x | pupil)", data)
    new = rows(300, seed=11).assign(pupil=lambda d: d["pupil"] + 30)
    with pytest.raises(DataError, match="rows have levels of grouping factors"):
        m.predict(table_of(engine, new))
    found = in_memory(m.predict(table_of(engine, new), new_levels="population"))
    own = wanted.predict(new, new_levels="population")
    assert_allclose(found.sort_values("id")["estimate"], own, atol=1e-9)
    means = in_memory(m.predict(table_of(engine, new), re=None, se=True)).sort_values("id")
    own = wanted.predict(new, re=None, se=True)
    assert_allclose(means["estimate"], own["estimate"], atol=1e-9)
    assert_allclose(means["std_error"], own["std_error"], rtol=1e-8)
    with pytest.raises(DataError, match="`arm` has a level that the fit did not see: 'other'"):
        m.predict(table_of(engine, new.assign(arm="other")), re=None)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["CR0", "CR1", "CR1S", "CR2", "CR3"])
def test_robust_covariances_need_one_more_pass(kind: str, engine: str) -> None:
    data = rows()
    for formula, options, cluster in (
        ("y ~ x * arm + (x | pupil)", {}, "region"),
        ("y ~ x + (1 | school/pupil)", {"weights": "times"}, "school"),
    ):
        found = me.lmer(formula, table_of(engine, data), rows="push", **options)
        wanted = me.lmer(formula, data, **options)
        own, other = wanted.robust(kind, cluster=cluster), found.robust(kind, cluster=cluster)
        assert_allclose(other.vcov, own.vcov, rtol=1e-8, atol=1e-12)
        assert_allclose(other.df, own.df, rtol=1e-8)
        assert other.n_clusters == own.n_clusters


def test_clusters_that_cut_the_blocks_of_v() -> None:
    formula = "y ~ x + (1 | pupil) + (1 | test)"
    found = me.lmer(formula, table_of("duckdb", rows()), rows="push")
    wanted = me.lmer(formula, rows())
    for cluster in (["pupil", "test"], ["school", "test"]):
        own, other = wanted.robust("CR1", cluster=cluster), found.robust("CR1", cluster=cluster)
        assert_allclose(other.vcov, own.vcov, rtol=1e-8)
    with pytest.raises(DataError, match="clusters are the name of a column"):
        found.robust("CR1", cluster=rows()["school"].to_numpy())


@pytest.mark.parametrize("options", [{}, {"weights": "w"}])
def test_shares_of_variance(options: dict[str, Any]) -> None:
    formula = "y ~ x + year + (year | pupil) + (1 | test)"
    found = me.lmer(formula, table_of("polars", rows()), rows="push", **options)
    wanted = me.lmer(formula, rows(), **options)
    assert_allclose(found.r2().to_frame(), wanted.r2().to_frame(), rtol=1e-8)
    assert_allclose(found.icc().to_frame(), wanted.icc().to_frame(), rtol=1e-8)


def test_draws_without_rows_have_the_distribution_of_those_with_them() -> None:
    from scipy.stats import ks_2samp

    formula = "y ~ x + (x | pupil)"
    found = me.lmer(formula, table_of("duckdb", rows()), rows="push", weights="w")
    wanted = me.lmer(formula, rows(), weights="w")
    one, other = found.bootstrap(600, seed=1).draws, wanted.bootstrap(600, seed=2).draws
    for name in one:
        assert ks_2samp(one[name], other[name]).pvalue > 1e-3
        assert_allclose(one[name].std(), other[name].std(), rtol=0.2)


def test_a_table_that_changes_between_passes_is_noticed() -> None:
    duckdb = pytest.importorskip("duckdb")
    connection = duckdb.connect()
    connection.register("original", rows())
    connection.execute("CREATE TABLE growing AS SELECT * FROM original")
    drawn = connection.sql("SELECT y, x, pupil FROM growing WHERE random() < 0.9")
    with pytest.raises(DataError, match="The table changed between passes"):
        me.lmer("y ~ x + (1 | pupil)", drawn, rows="push")
    m = me.lmer("y ~ x + (1 | pupil)", connection.sql("SELECT * FROM growing"), rows="push")
    connection.execute("INSERT INTO growing SELECT * FROM original LIMIT 5")
    with pytest.raises(DataError, match="there were 2,005"):
        m.robust("CR1", cluster="school")


def test_values_without_a_logarithm_are_left_out_and_told() -> None:
    data = rows().assign(size=lambda d: d["size"] - 0.2)
    with pytest.warns(DataWarning) as caught:
        wanted = me.lmer("y ~ log(size) + (1 | pupil)", data)
    with pytest.warns(DataWarning) as told:
        found = me.lmer("y ~ log(size) + (1 | pupil)", table_of("duckdb", data), rows="push")
    assert [str(w.message) for w in told] == [str(w.message) for w in caught]
    assert_same(found, wanted)


def test_infinite_values_are_refused() -> None:
    data = rows()
    data.loc[3, "x"] = np.inf
    with pytest.raises(DataError, match="`x` is infinite in 1 row"):
        me.lmer("y ~ x + (1 | pupil)", table_of("polars", data), rows="push")


def test_functions_that_an_engine_lacks_are_refused_by_name() -> None:
    with pytest.raises(FormulaError, match=r"`atan\(\)` in `atan\(x\)` cannot be handed"):
        me.lmer("y ~ atan(x) + (1 | pupil)", table_of("duckdb", rows()), rows="push")


def test_models_of_the_residuals_need_rows() -> None:
    with pytest.raises(ModelError, match="need the rows of each group together"):
        me.lmer(
            "y ~ x",
            table_of("duckdb", rows()),
            residual="ar1(week | pupil)",
            rows="push",
        )


def test_weights_are_names_of_columns() -> None:
    with pytest.raises(DataError, match="`weights` of a table that stays in its engine"):
        me.lmer("y ~ x + (1 | pupil)", table_of("duckdb", rows()), rows="push", weights=np.ones(9))
    data = rows().assign(w=lambda d: d["w"].where(d.index > 1, -1.0))
    with pytest.raises(DataError, match="Weights must be positive: `w` has 2 negative"):
        me.lmer("y ~ x + (1 | pupil)", table_of("duckdb", data), rows="push", weights="w")


def test_enum_order_and_levels_without_rows() -> None:
    polars = pytest.importorskip("polars")
    kinds = polars.Enum(["play", "drill", "control", "none"])
    data = rows()
    table = polars.from_pandas(data).with_columns(polars.col("arm").cast(kinds)).lazy()
    arm = pd.Categorical(data["arm"], ["play", "drill", "control", "none"])
    wanted = me.lmer("y ~ arm + (1 | pupil)", data.assign(arm=arm))
    assert_same(me.lmer("y ~ arm + (1 | pupil)", table, rows="push"), wanted)
    found = me.lmer("y ~ x + (1 | arm)", table, rows="push")
    assert found.frame.dropped.unused_levels == {"arm": 1}


@pytest.mark.parametrize("engine", ENGINES)
def test_passes_over_the_table_are_told(engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[Any] = []
    formula = "y ~ x + arm + (1 | pupil) + (1 | test)"
    me.lmer(formula, table_of(engine, rows()), rows="push", progress=lines.append)
    passes = [line for line in lines if isinstance(line, me.TablePass)]
    assert [line.number for line in passes] == list(range(1, len(passes) + 1))
    assert [line.what for line in passes[-3:]] == [
        "levels of pupil",
        "levels of test",
        "pairs of pupil and test",
    ]
    assert isinstance(lines[len(passes)], me.Progress)
    me.lmer(formula, table_of(engine, rows()), rows="push", progress=True)
    told = capsys.readouterr().err
    assert re.search(r"^pass \d over the table: pairs of pupil and test +\d\.\d s$", told, re.M)
    assert told.index("pairs of") < told.index("iteration ")
    m = me.lmer(formula, table_of(engine, rows()), rows="push", progress=False)
    assert repr(m)
    assert capsys.readouterr().err == ""


def test_what_runs_is_shown_where_a_line_can_change(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    class Line:
        def show(self, text: str) -> None:
            shown.append(text)

        def close(self, keep: bool) -> None:
            shown.append("away" if not keep else "kept")

    monkeypatch.setattr("mixedeffects.progress._display", Line)
    monkeypatch.setattr("mixedeffects.progress._PATIENCE", 0.0)
    monkeypatch.setattr("mixedeffects.progress._REFRESH", 0.0)
    me.lmer("y ~ x + (1 | pupil)", table_of("duckdb", rows()), rows="push")
    at = shown.index("pass 3 over the table: levels of pupil ...")
    assert shown[at + 1].startswith("pass 3 over the table: levels of pupil   ")
    assert shown[at + 2] == "away"


def test_a_pass_that_was_interrupted_starts_again() -> None:
    def stop(line: Any) -> None:
        raise KeyboardInterrupt

    def in_search(line: Any) -> None:
        if isinstance(line, me.Progress):
            raise KeyboardInterrupt

    data, formula = rows(), "y ~ x + (1 | pupil) + (1 | test)"
    wanted = me.lmer(formula, data)
    with pytest.raises(me.Interrupted, match="in the passes over the table, 1 of which") as caught:
        me.lmer(formula, table_of("duckdb", data), rows="push", progress=stop)
    assert_same(caught.value.partial.resume(), wanted)
    with pytest.raises(me.Interrupted, match="goes on from there") as caught:
        me.lmer(formula, table_of("duckdb", data), rows="push", progress=in_search)
    resumed = caught.value.partial.resume()
    assert_allclose(resumed.fit.criterion, wanted.fit.criterion, rtol=1e-10)
    # Its rows are still in the table.
    assert len(in_memory(resumed.augment())) == len(data)


def test_ctrl_c_stops_the_query_of_an_engine() -> None:
    """DuckDB makes an error of its own of it, which says nothing about the data."""
    duckdb = pytest.importorskip("duckdb")
    connection = duckdb.connect(config={"threads": 1})
    endless = connection.sql(
        "SELECT sin(i) AS y, cos(i) AS x, i % 9 AS g FROM range(100_000_000_000) t(i)"
    )
    timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(me.Interrupted, match="0 of which were done"):
        me.lmer("y ~ x + (1 | g)", endless, rows="push")
    timer.join()
    assert connection.sql("SELECT 1").fetchall() == [(1,)]
