"""Sums of a table as a value: they add up, are stored, and give the fit of all rows."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import mixedeffects as me
from lazy_tables import ENGINES, rows, table_of, with_gaps
from mixedeffects.errors import DataError, ModelError
from test_lazy_fits import DESIGNS, assert_same


@pytest.mark.parametrize("design", DESIGNS)
def test_sums_give_the_fit_of_the_rows(design: str, tmp_path: Path) -> None:
    formula, options, gaps = DESIGNS[design]
    data = with_gaps(rows()) if gaps else rows()
    of_sums = {name: v for name, v in options.items() if name != "reml"}
    reml = options.get("reml", True)
    wanted = me.lmer(formula, data, **options)
    statistics = me.sufficient(formula, table_of("duckdb", data), **of_sums)
    found = me.lmer(statistics, reml=reml)
    assert_same(found, wanted)
    assert found.frame.dropped.missing_by_column == wanted.frame.dropped.missing_by_column
    assert_same(me.lmer(pickle.loads(pickle.dumps(statistics)), reml=reml), wanted)
    statistics.to_file(tmp_path / "sums.npz")
    stored = me.SufficientStatistics.from_file(tmp_path / "sums.npz")
    assert repr(stored) == repr(statistics)
    assert_same(me.lmer(stored, reml=reml), wanted)


@pytest.mark.parametrize("design", DESIGNS)
def test_parts_add_up_to_the_whole(design: str, tmp_path: Path) -> None:
    formula, options, gaps = DESIGNS[design]
    data = with_gaps(rows()) if gaps else rows()
    # Factor levels of the first part are those of all; levels of grouping factors are not.
    parts = [data[data["pupil"] < 35], data[(data["pupil"] >= 35) & (data["x"] > 0.2)]]
    parts.append(data.drop(index=[*parts[0].index, *parts[1].index]))
    of_sums = {name: v for name, v in options.items() if name != "reml"}
    first = me.sufficient(formula, parts[0], **of_sums)
    first.to_file(tmp_path / "first.npz")
    like = me.SufficientStatistics.from_file(tmp_path / "first.npz")
    total = sum([first, *(me.sufficient(formula, p, like=like, **of_sums) for p in parts[1:])])
    assert isinstance(total, me.SufficientStatistics)
    found, wanted = (
        me.lmer(total, reml=options.get("reml", True)),
        me.lmer(formula, data, **options),
    )
    assert found.nobs == wanted.nobs and found.ngroups == wanted.ngroups
    assert_allclose(found.criterion, _criterion(wanted, found), rtol=1e-9)
    assert_allclose(found.sigma, wanted.sigma, rtol=1e-8)
    for name, own in wanted.ranef().items():
        assert list(found.ranef()[name].index) == list(own.index)


def _criterion(wanted: me.LinearMixedModel, found: me.LinearMixedModel) -> float:
    """REML's criterion knows the scale of columns, which transforms of the first part set."""
    if not wanted.fit.reml:
        return float(wanted.criterion)
    own, its = (np.linalg.slogdet(m.vcov())[1] for m in (wanted, found))
    return float(wanted.criterion + own - its)


@pytest.mark.parametrize("engine", ENGINES)
def test_tables_of_every_engine_and_of_none(engine: str) -> None:
    formula = "y ~ x * arm + (x | pupil) + (1 | test)"
    wanted = me.lmer(formula, with_gaps(rows()), weights="w")
    found = me.sufficient(formula, table_of(engine, with_gaps(rows())), weights="w")
    assert_same(me.lmer(found), wanted)
    assert_same(me.lmer(me.sufficient(formula, with_gaps(rows()), weights="w")), wanted)


def test_tables_in_memory_of_other_kinds() -> None:
    polars, pyarrow = pytest.importorskip("polars"), pytest.importorskip("pyarrow")
    formula, data = "y ~ x + arm + (x | name)", rows()
    wanted = me.lmer(formula, data)
    for table in (
        polars.from_pandas(data),
        pyarrow.Table.from_pandas(data),
        {name: data[name].to_numpy() for name in ("y", "x", "arm", "name")},
        data.assign(arm=data["arm"].astype("category"), name=data["name"].astype("category")),
    ):
        assert_same(me.lmer(me.sufficient(formula, table)), wanted)


def test_centres_are_brought_to_one() -> None:
    data = rows().assign(far=lambda d: np.where(d["pupil"] < 30, 5e4, 5.002e4) + d["x"])
    formula = "y ~ far + (far | test)"
    parts = [me.sufficient(formula, data[own]) for own in (data["pupil"] < 30, data["pupil"] >= 30)]
    assert parts[0].centre["far"] != parts[1].centre["far"]
    wanted = me.lmer(formula, data)
    for total in (parts[0] + parts[1], parts[1] + parts[0]):
        found = me.lmer(total)
        assert_allclose(found.criterion, wanted.criterion, rtol=1e-9)
        assert_allclose(found.fixef, wanted.fixef, rtol=1e-6)


def test_levels_are_merged_by_their_values() -> None:
    data = rows()
    one, other = data[data["pupil"] % 2 == 0], data[data["pupil"] % 3 > 0]
    both = pd.concat([one, other])
    formula = "y ~ x + (1 | school/pupil) + (x | test)"
    total = me.sufficient(formula, one) + me.sufficient(formula, table_of("polars", other))
    assert_same(me.lmer(total), me.lmer(formula, both))
    assert total.smallest["test"] == both["test"].value_counts().min()
    pairs = both.groupby(["school", "test"]).size()
    assert total.smallest["school and test"] == pairs.min()
    text = me.sufficient("y ~ x + (1 | pupil)", one.assign(pupil=one["pupil"].astype(str)))
    with pytest.raises(
        DataError, match="levels of `pupil` are text in the first statistics and nu"
    ):
        text + me.sufficient("y ~ x + (1 | pupil)", other)


def test_declared_order_of_levels_is_kept() -> None:
    data = rows()
    order = [f"p{code:03d}" for code in range(59, -1, -1)]
    data["name"] = pd.Categorical(data["name"], order)
    one, other = data[data["pupil"] < 40], data[data["pupil"] >= 20]
    total = me.sufficient("y ~ x + (1 | name)", one) + me.sufficient("y ~ x + (1 | name)", other)
    wanted = me.lmer("y ~ x + (1 | name)", pd.concat([one, other]))
    assert_allclose(
        me.lmer(total).ranef()["name"].loc[order], wanted.ranef()["name"].loc[order], atol=1e-8
    )


def test_sums_of_different_columns_do_not_add_up() -> None:
    data = rows()
    one, other = data[data["arm"] != "play"], data[data["arm"] != "drill"]
    formula = "y ~ x + arm + scale(z) + (1 | pupil)"
    first = me.sufficient(formula, one)
    with pytest.raises(ModelError, match=r"different levels of `arm` \(control, drill; control, p"):
        first + me.sufficient(formula, other)
    with pytest.raises(DataError, match=r"`arm` has levels that the statistics.*'play'"):
        me.sufficient(formula, other, like=first)
    with pytest.raises(ModelError, match=r"`scale\(z\)` was worked out by other numbers"):
        first + me.sufficient(formula, one[one["z"] > 1])
    with pytest.raises(ModelError, match="`formula` is 'y ~ x"):
        first + me.sufficient("y ~ x + (1 | pupil)", one)
    with pytest.raises(ModelError, match="`weights` is None in the first and 'w'"):
        first + me.sufficient(formula, one, weights="w", like=first)
    with pytest.raises(TypeError):
        first + 1
    with pytest.raises(ModelError, match="`like` is what sufficient"):
        me.sufficient(formula, one, like=data)
    with pytest.raises(ModelError, match="leave `contrasts` out"):
        me.sufficient(formula, one, like=first, contrasts={"arm": "sum"})


def test_a_site_that_lacks_a_level_has_a_column_of_zeros() -> None:
    data = rows()
    one, other = data[data["pupil"] < 30], data[(data["pupil"] >= 30) & (data["arm"] != "drill")]
    formula = "y ~ x * arm + (0 + arm | pupil)"
    first = me.sufficient(formula, one, contrasts={"arm": "sum"})
    total = first + me.sufficient(formula, other, like=first)
    wanted = me.lmer(formula, pd.concat([one, other]), contrasts={"arm": "sum"})
    assert_same(me.lmer(total), wanted)


def test_a_fit_to_sums_says_what_needs_rows() -> None:
    m = me.lmer(me.sufficient("y ~ x + arm + (x | pupil)", rows(), weights="w"))
    assert "fitted to sums of 2,000 rows" in repr(m)
    assert np.isfinite(m.coef_table(ddf="kr")).all(axis=None)
    for of_sums in (m.tidy, m.glance, m.to_dict):
        of_sums()
    assert np.isfinite(m.confint("wald")).all(axis=None)
    for ask in (
        m.resid,
        m.augment,
        lambda: m.X,
        lambda: m.predict(),
        lambda: m.robust("CR1", cluster="school"),
        lambda: m.robust("CR2"),
        lambda: m.bootstrap(5),
        lambda: m.anova(type=3),
        lambda: m.emmeans("arm"),
        lambda: m.simulate(1),
    ):
        with pytest.raises(ModelError, match="This was fitted to sums"):
            ask()
    plain = me.lmer("y ~ x + (x | pupil)", rows())
    of_sums = me.lmer(me.sufficient("y ~ x + (x | pupil)", rows()))
    assert_allclose(of_sums.r2().to_frame(), plain.r2().to_frame(), rtol=1e-8)
    assert_allclose(of_sums.predict(rows()), plain.predict(rows()), rtol=1e-8)


def test_lmer_of_sums_takes_nothing_else_of_the_data() -> None:
    statistics = me.sufficient("y ~ x + (1 | pupil)", rows())
    for given in ({"weights": "w"}, {"rows": "push"}, {"residual": "ar1(week | pupil)"}):
        with pytest.raises(ModelError, match=rf"takes no `{next(iter(given))}`"):
            me.lmer(statistics, **given)
    with pytest.raises(ModelError, match="takes no `data`"):
        me.lmer(statistics, rows())
    with pytest.raises(ModelError, match=r"lmer\(\) needs data"):
        me.lmer("y ~ x + (1 | pupil)")


def test_columns_that_sums_cannot_tell_apart() -> None:
    data = rows()
    near = data.assign(again=data["x"] + 5e-6 * data["z"])
    with pytest.raises(ModelError, match="Column `again` is so nearly a combination"):
        me.lmer(me.sufficient("y ~ x + again + (1 | pupil)", near))
    same = me.lmer(me.sufficient("y ~ x + I(3 * x) + (1 | pupil)", data))
    assert same.frame.dropped.columns == ("I(3 * x)",)


def test_sums_of_few_rows_are_not_given_away() -> None:
    data = rows()
    few = pd.concat([data[data["pupil"] > 3], data[data["pupil"] == 2].head(2)])
    assert me.sufficient("y ~ x + (1 | pupil)", data, minimum_rows=10).smallest["pupil"] >= 10
    with pytest.raises(DataError, match=r"minimum_rows=5\): 1 of 57 levels of `pupil` have fewer"):
        me.sufficient("y ~ x + (1 | pupil)", few, minimum_rows=5)
    with pytest.raises(DataError, match="pairs of levels of `pupil` and `test`"):
        me.sufficient("y ~ x + (1 | pupil) + (1 | test)", data, minimum_rows=5, weights="w")
    one = data.assign(arm=np.where(data["id"] == 3, "rare", "usual"), odd=data["id"] < 2)
    one["dummy"] = (data["id"] < 3).astype(float)
    for formula, cells in (
        ("y ~ arm + (1 | pupil)", "1 of 2 cells of `arm`"),
        ("y ~ x:odd + (1 | pupil)", "1 of 2 cells of `odd`"),
        ("y ~ dummy + x + (1 | pupil)", "1 of 2 cells of `dummy`"),
        ("y ~ x + (0 + late | pupil)", "cells of `late` by `pupil`"),
    ):
        with pytest.raises(DataError, match=cells):
            me.sufficient(formula, table_of("duckdb", one), minimum_rows=12)
    with pytest.raises(ModelError, match="minimum_rows must be a whole number"):
        me.sufficient("y ~ x + (1 | pupil)", data, minimum_rows=0)
    alone = data.assign(pupil=np.where(data["id"] == 5, 999, data["pupil"]))
    assert "1 of one row" in repr(me.sufficient("y ~ x + (1 | pupil)", alone))
    assert "are that row" in repr(me.sufficient("y ~ x + (1 | pupil)", alone))


def test_files_that_are_none_or_of_a_later_version(tmp_path: Path) -> None:
    place = tmp_path / "sums.npz"
    me.sufficient("y ~ poly(z, 2) + (1 | school/pupil)", rows()).to_file(place)
    arrays = dict(np.load(place))
    header = json.loads(arrays["header"].tobytes())

    def written(change: dict[str, Any], **others: Any) -> Path:
        text = np.frombuffer(json.dumps({**header, **change}).encode(), dtype=np.uint8)
        np.savez(tmp_path / "other.npz", **{**arrays, "header": text, **others})
        return tmp_path / "other.npz"

    me.SufficientStatistics.from_file(written({}))
    with pytest.raises(DataError, match="in version 2 of the format; this one reads up to 1"):
        me.SufficientStatistics.from_file(written({"schema_version": 2}))
    for change in ({"schema": "other"}, {"n": None}, {"response": 99}, {"variables": 3}):
        with pytest.raises(DataError, match="holds no sufficient statistics, or is damaged"):
            me.SufficientStatistics.from_file(written(change))
    for others in (
        {"products0": arrays["products0"][1:]},
        {"total": arrays["total"].astype(object)},
        {"total": arrays["total"] * np.nan},
    ):
        with pytest.raises(DataError, match="holds no sufficient statistics, or is damaged"):
            me.SufficientStatistics.from_file(written({}, **others))
    place.write_bytes(place.read_bytes()[:500])
    with pytest.raises(DataError, match="holds no sufficient statistics, or is damaged"):
        me.SufficientStatistics.from_file(place)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        me.SufficientStatistics.from_file(tmp_path / "none.npz")
    with pytest.raises(DataError, match="There is no folder"):
        me.sufficient("y ~ x + (1 | pupil)", rows()).to_file(tmp_path / "no" / "sums.npz")
    dates = rows().assign(
        day=lambda d: pd.Timestamp("2020-01-01") + pd.to_timedelta(d["week"], "D")
    )
    with pytest.raises(DataError, match=r"levels of `day` hold .*, which cannot be written"):
        me.sufficient("y ~ x + (1 | day)", dates).to_file(place)
