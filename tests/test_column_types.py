"""The type of a column changes no number: wrapping, rounding, and columns that cannot be read."""

from __future__ import annotations

import datetime
import decimal
import io
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import mixedeffects as me
from mixedeffects.frame.columns import factor_of, labels_of

# --- whole numbers in small types -----------------------------------------------------------

#: Codes of levels, and a type that holds them but not their differences or their count.
CODES = {
    "missing as -99": ([-99, *range(1, 101)], np.int8),
    "the whole of int8": (list(range(-128, 128)), np.int8),
    "127 levels": (list(range(127)), np.int8),
    "128 levels": (list(range(128)), np.int8),
    "255 levels": (list(range(255)), np.uint8),
    "256 levels": (list(range(256)), np.uint8),
    "years apart": (list(range(-20_000, 20_001, 100)), np.int16),
    "the ends of int16": ([-32768, -1, 0, 32767], np.int16),
    "the ends of int32": ([-(2**31), -1, 0, 2**31 - 1], np.int32),
    "the ends of int64": ([-(2**63), -1, 0, 2**63 - 1], np.int64),
    "neighbours at the end of int64": ([2**63 - 2, 2**63 - 1, 2**63 - 3], np.int64),
    "beyond int64": ([2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1], np.uint64),
    "neighbours beyond int64": ([2**64 - 3, 2**64 - 2, 2**64 - 1], np.uint64),
}


@pytest.mark.parametrize(("codes", "kind"), CODES.values(), ids=CODES)
def test_levels_of_whole_numbers(codes: list[int], kind: Any) -> None:
    values = np.repeat(np.array(codes, dtype=kind), 2)
    expected = sorted(codes)
    for series in (
        pd.Series(values),
        pd.Series(values, dtype=pd.Series(values).convert_dtypes().dtype),
        pd.Series(pd.Categorical(values, categories=np.array(expected, dtype=kind))),
        pd.Series(values).astype(object),
    ):
        found, levels, _ = factor_of(series)
        assert labels_of(levels) == [str(code) for code in expected]
        assert_array_equal(found, [expected.index(v) for v in values.tolist()])
        assert found.dtype.itemsize >= 4


def design(kind: Any) -> pd.DataFrame:
    """Rows whose columns are small whole numbers, all in one type."""
    rng = np.random.default_rng(3)
    g, h = (a.ravel() for a in np.meshgrid(np.arange(-60, 61, 15), [-100, 0, 27, 100]))
    g, h = np.tile(g, 6), np.tile(h, 6)
    x, z = rng.integers(-11, 12, (2, len(g)))
    y = np.round(20 + x + rng.normal(size=9)[(g + 60) // 15] * 20 + 9 * rng.normal(size=len(g)))
    y = np.clip(y, -128, 127)
    w, o = rng.integers(1, 100, (2, len(g)))
    frame = pd.DataFrame({"y": y, "x": x, "z": z, "g": g, "h": h, "w": w, "o": o})
    if np.dtype(kind).kind == "u":
        frame = frame.assign(**{name: frame[name] - frame[name].min() + 1 for name in "yxzgh"})
    return frame.astype(kind)


FORMULA = "y ~ x * z + I(x^2) + I(x * z * z) + (1 | g) + (1 | g:h) + offset(o)"


def of_the_fit(data: Any) -> dict[str, Any]:
    """What a fit makes of the columns."""
    m = me.lmer(FORMULA, data, weights="w")
    return {
        "criterion": m.criterion,
        "groups": list(m.ngroups.values()),
        "levels": m.ranef()["g"].index.tolist(),
        "fixed effects": m.fixef.to_numpy(),
        "clusters by name": m.vcov("CR0", cluster="g").to_numpy(),
        "predictions": np.asarray(m.predict(data)),
    }


def of_arrays(data: pd.DataFrame) -> dict[str, Any]:
    """What the methods make of columns given as arrays."""
    m = me.lmer(FORMULA, data, weights="w")
    g, random = data["g"].to_numpy(), "y ~ x + poly(z, 2) + (1 | g)"
    return {
        "clusters": m.vcov("CR0", cluster=g).to_numpy(),
        "influence": m.influence(g).cooks_distance.to_numpy(),
        "influence by an interaction": m.influence("h:g").cooks_distance.to_numpy(),
        "blocks": np.concatenate([rows for _, rows, _ in m.V.blocks("g")]),
        "distances": m.variogram(data["x"].to_numpy()).table["distance"].to_numpy(),
        "variogram": m.variogram("x").table["empirical"].to_numpy(),
        "means": m.emmeans("x", at={"x": data["x"].unique()[:3]}).to_frame()["estimate"].to_numpy(),
        "folds": me.cross_validate(m, by=g, folds=3, seed=1).to_frame()["rmse"].to_numpy(),
        "response": m.refit(data["y"].to_numpy()).criterion,
        "weights": me.lmer(random, data, weights=data["w"]).criterion,
        "offset": me.lmer(random, data, offset=data["o"].to_numpy()).criterion,
        "offset of new rows": m.predict(data, offset=data["o"].to_numpy()).to_numpy(),
    }


CONVERSIONS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "pandas": lambda d: d,
    "nullable": lambda d: d.convert_dtypes(),
    "arrow dtypes": lambda d: d.convert_dtypes(dtype_backend="pyarrow"),
    "objects": lambda d: d.astype(object),
    "categories": lambda d: d.astype({"g": "category", "h": "category"}),
    "sparse": lambda d: d.astype({"x": pd.SparseDtype(d["x"].dtype)}),
    "dict": lambda d: {name: d[name].to_numpy() for name in d},
    "polars": pl.from_pandas,
    "arrow": lambda d: pa.Table.from_pandas(d, preserve_index=False),
}


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_small_types_change_no_number(kind: str) -> None:
    small = design(kind)
    wide = small.astype("int64")
    expected = of_the_fit(wide)
    for name, convert in CONVERSIONS.items():
        found = of_the_fit(convert(small))
        for what, right in expected.items():
            assert_equal(found[what], right, f"{what} of {name}")
    expected, found = of_arrays(wide), of_arrays(small)
    for what, right in expected.items():
        assert_equal(found[what], right, what)


def assert_equal(found: Any, right: Any, what: str) -> None:
    if isinstance(right, list):
        assert found == right, what
    else:
        assert_allclose(found, right, rtol=1e-9, err_msg=what)


def test_products_of_level_counts_beyond_int64() -> None:
    # 2^16 levels each, in five columns: combinations number 2^80.
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(20), 5)
    parts = {f"g{i}": rng.permutation(2**16)[:20].astype(np.uint16) for i in range(5)}
    columns = {
        name: pd.Categorical(values[group], categories=np.arange(2**16, dtype=np.uint16))
        for name, values in parts.items()
    }
    data = pd.DataFrame({**columns, "n": group, "y": rng.normal(size=20)[group]})
    data["y"] += rng.normal(size=100)
    m = me.lmer("y ~ 1 + (1 | g0:g1:g2:g3:g4)", data)
    assert list(m.ngroups.values()) == [20]
    assert m.criterion == pytest.approx(me.lmer("y ~ 1 + (1 | n)", data).criterion, abs=1e-9)
    assert_allclose(m.predict(data), m.fitted)


def test_long_numbers_are_levels_of_fixed_factors() -> None:
    # float64 rounds them to one number.
    ids = np.array([2**60, 2**60 + 1, 2**60 + 2])[np.arange(36) % 3]
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"id": ids, "g": np.repeat(np.arange(6), 6)})
    data["y"] = data.index % 3 + rng.normal(size=36) + rng.normal(size=6)[data["g"]]
    right = me.lmer("y ~ t + (1 | g)", data.assign(t=ids.astype(str)))
    tables = [data, data.astype({"id": "uint64"}), data.astype({"id": "Int64"})]
    for table in (*tables, data.astype({"id": object}), pl.from_pandas(data)):
        m = me.lmer("y ~ factor(id) + (1 | g)", table)
        assert list(m.fixef.index[1:]) == [f"factor(id){2**60 + i}" for i in (1, 2)]
        assert m.criterion == pytest.approx(right.criterion, abs=1e-9)
        assert_allclose(np.asarray(m.predict(table)), m.fitted)
    missing = data.astype({"id": "Int64"})
    missing.loc[3, "id"] = pd.NA
    assert me.lmer("y ~ factor(id) + (1 | g)", missing).nobs == 35


def test_short_floats_are_levels_by_their_own_digits() -> None:
    values = np.repeat([0.1, 0.7, 1.0, 2.5], 3)
    for kind in (np.float16, np.float32, np.float64):
        _, levels, _ = factor_of(pd.Series(values.astype(kind)))
        assert labels_of(levels) == ["0.1", "0.7", "1", "2.5"]
    data = pd.DataFrame({"y": np.random.default_rng(0).normal(size=12), "g": values})
    m = me.lmer("y ~ 1 + (1 | g)", data.astype({"g": "float32"}))
    assert_allclose(m.predict(data), m.fitted)
    assert_allclose(m.predict(pl.from_pandas(data.astype({"g": "float32"}))), m.fitted)


# --- columns that cannot be read ------------------------------------------------------------

G = np.repeat(np.arange(6), 5)
NUMBERS = np.random.default_rng(0).normal(size=(2, 30))


def _int128() -> Any:
    if not hasattr(pl, "Int128"):
        pytest.skip("polars before 1.18 has no Int128")
    return pl.Int128


UNREADABLE: dict[str, Callable[[], Any]] = {
    "pandas lists": lambda: pd.Series([[i] for i in G]),
    "pandas dicts": lambda: pd.Series([{"a": i} for i in G]),
    "pandas arrays": lambda: pd.Series([np.array([i]) for i in G]),
    "pandas complex": lambda: pd.Series(G + 1j),
    "pandas objects of complex": lambda: pd.Series([complex(i, 1) for i in G], dtype=object),
    "pandas mixed": lambda: pd.Series([int(i) if i % 2 else str(i) for i in G], dtype=object),
    "pandas categories written alike": lambda: pd.Series(
        pd.Categorical([1 if i % 2 else "1" for i in G], categories=[1, "1"])
    ),
    "pandas arrow lists": lambda: pd.Series(
        [[int(i)] for i in G], dtype=pd.ArrowDtype(pa.list_(pa.int64()))
    ),
    "polars lists": lambda: pl.Series([[i] for i in G.tolist()]),
    "polars arrays": lambda: pl.Series([[i, i] for i in G.tolist()], dtype=pl.Array(pl.Int64, 2)),
    "polars structs": lambda: pl.Series([{"a": i} for i in G.tolist()]),
    "polars objects": lambda: pl.Series([object()] * 30, dtype=pl.Object),
    "polars beyond 64 bits": lambda: pl.Series([2**70 + i for i in G.tolist()], dtype=_int128()),
    "arrow lists": lambda: pa.array([[i] for i in G.tolist()]),
    "arrow structs": lambda: pa.array([{"a": i} for i in G.tolist()]),
    "arrow maps": lambda: pa.array(
        [[("a", i)] for i in G.tolist()], pa.map_(pa.string(), pa.int64())
    ),
}


def table(kind: str, **columns: Any) -> Any:
    base = {"y": NUMBERS[0] + G, "x": NUMBERS[1], "g": G, **columns}
    if kind == "arrow":
        return pa.table({name: pa.array(v) for name, v in base.items()})
    return pd.DataFrame(base) if kind == "pandas" else pl.DataFrame(base)


@pytest.mark.parametrize("make", UNREADABLE.values(), ids=UNREADABLE)
def test_columns_that_cannot_be_read_are_named(make: Callable[[], Any]) -> None:
    column = make()
    kind = {pd.Series: "pandas", pl.Series: "polars"}.get(type(column), "arrow")
    m = me.lmer("y ~ x + (1 | g)", table(kind))
    for role in ("y", "x", "g"):
        with pytest.raises(me.DataError, match=f"`{role}`"):
            me.lmer("y ~ x + (1 | g)", table(kind, **{role: column}))
        if role != "y":
            with pytest.raises(me.DataError, match=f"`{role}`"):
                m.predict(table(kind, **{role: column}))
    with pytest.raises(me.MixedEffectsError, match="cluster"):
        m.vcov("CR0", cluster=column)
    with pytest.raises(me.DataError, match=r"`\(weights\)`"):
        me.lmer("y ~ x + (1 | g)", table("pandas"), weights=column)


READABLE: dict[str, Callable[[], Any]] = {
    "Int128": lambda: pl.Series(G.tolist()).cast(_int128()),
    "UInt64 with a null elsewhere": lambda: pl.Series(G.tolist()).cast(pl.UInt64) + 2**63,
    "text": lambda: pl.Series(G.tolist()).cast(pl.String),
    "polars categories": lambda: pl.Series(G.tolist()).cast(pl.String).cast(pl.Categorical),
    "polars decimals": lambda: pl.Series(G.tolist()).cast(pl.Decimal(10, 2)),
    "string views": lambda: pa.array(G.astype(str).tolist(), pa.string_view()),
    "large text": lambda: pa.array(G.astype(str).tolist(), pa.large_string()),
    "dictionary": lambda: pa.array(G).dictionary_encode(),
    "dictionary with a value twice": lambda: pa.DictionaryArray.from_arrays(
        pa.array(np.arange(30) % 12 // 2 * 2 + np.arange(30) % 2), pa.array(list("aabbccddeeff"))
    ),
    "decimals": lambda: pd.Series([decimal.Decimal(int(i)) for i in G]),
    "dates": lambda: pd.Series([datetime.date(2020, 1, 1 + int(i)) for i in G]),
    "durations": lambda: pd.Series(pd.to_timedelta(G, unit="D")),
    "periods": lambda: pd.Series(pd.period_range("2020", periods=6, freq="D")[G]),
    "intervals": lambda: pd.Series(pd.interval_range(0, 6)[G]),
    "sparse": lambda: pd.Series(G).astype("Sparse[int64]"),
}


@pytest.mark.parametrize("make", READABLE.values(), ids=READABLE)
def test_columns_that_can_be_groups(make: Callable[[], Any]) -> None:
    column = make()
    kind = {pd.Series: "pandas", pl.Series: "polars"}.get(type(column), "arrow")
    data = table(kind, g=column)
    m = me.lmer("y ~ x + (1 | g)", data)
    assert m.ngroups == {"g": 6}
    assert_allclose(np.asarray(m.predict(data)), m.fitted)


def test_columns_with_names_of_several_levels() -> None:
    plain = table("pandas")
    flat = plain.set_axis(pd.MultiIndex.from_tuples([(c, "") for c in plain]), axis=1)
    m = me.lmer("y ~ x + (1 | g)", flat)
    assert m.criterion == me.lmer("y ~ x + (1 | g)", plain).criterion
    nested = plain.set_axis(
        pd.MultiIndex.from_tuples([("y", "mean"), ("x", "mean"), ("g", "")]), axis=1
    )
    with pytest.raises(me.DataError, match=r"but \('y', 'mean'\).*2 levels.*Join them first"):
        me.lmer("y ~ x + (1 | g)", nested)
    with pytest.raises(me.DataError, match=r"`x`.*but \('x', 'mean'\).*MultiIndex"):
        m.predict(nested)
    with pytest.raises(me.DataError, match="`z` in the data: the columns have names of 2 levels"):
        me.lmer("z ~ 1 + (1 | g)", nested)


def test_names_that_occur_twice() -> None:
    plain = table("pandas")
    twice = pd.concat([plain, plain[["x"]]], axis=1)
    with pytest.raises(me.DataError, match="2 columns called `x`"):
        me.lmer("y ~ x + (1 | g)", twice)
    assert me.lmer("y ~ 1 + (1 | g)", twice).nobs == 30
    number_and_text = plain.assign(**{"1": 0.0}).rename(columns={"x": 1})
    with pytest.raises(me.DataError, match="2 columns called `1`"):
        me.lmer("y ~ `1` + (1 | g)", number_and_text)
    assert me.lmer("y ~ `1` + (1 | g)", plain.rename(columns={"x": 1})).fixef.index[1] == "`1`"


def _as_read(text: str, **options: Any) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"y": rng.normal(size=60).round(2), "g": np.repeat(list("abcdef"), 10)})
    data["x"] = rng.normal(20, 5, 60).round(1)
    data["code"] = rng.integers(1, 13, 60)
    lines = data.astype(str).replace({"x": {data["x"].astype(str)[3]: text}}).to_csv(index=False)
    return pd.read_csv(io.StringIO(lines), **options)


@pytest.mark.parametrize("mark", [".", "?", "n.a.", "missing"])
def test_numbers_with_one_mark_of_a_missing_value_are_not_silently_levels(mark: str) -> None:
    data = _as_read(mark)
    few = data.assign(x=np.resize(data["x"].drop_duplicates()[:10], 60))
    assert (few["x"] == mark).any()
    for text in (data, few):
        with pytest.warns(me.DataWarning, match=re.escape(f"numbers and {mark!r} is not")):
            me.lmer("y ~ x + (1 | g)", text)
    with pytest.raises(me.DataError, match=re.escape(f"missing=[{mark!r}]")):
        me.lmer("x ~ y + (1 | g)", data)
    read = _as_read(mark, na_values=mark)
    assert list(me.lmer("y ~ x + (1 | g)", read).fixef.index) == ["(Intercept)", "x"]


def test_decimal_commas_are_told_and_codes_are_not() -> None:
    data = _as_read("21.7")
    comma = data.assign(x=data["x"].map(lambda v: f"{v}".replace(".", ",")))
    with pytest.warns(me.DataWarning, match="decimal comma"):
        me.lmer("y ~ x + (1 | g)", comma)
    with pytest.raises(me.DataError, match="decimal comma"):
        me.lmer("x ~ y + (1 | g)", comma)
    meant = {
        "whole numbers": data["code"].astype(str),
        "numbers with letters": data["code"].astype(str).replace("3", "3a"),
        "categories": data["x"].astype(str).astype("category"),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error", me.DataWarning)
        for x in meant.values():
            me.lmer("y ~ x + (1 | g)", data.assign(x=x))
