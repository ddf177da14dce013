"""Tables of every engine for tests of fits whose rows stay there."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

ENGINES = ("duckdb", "polars", "dask", "ibis")


def table_of(engine: str, data: pd.DataFrame) -> Any:
    """The data as a table that its engine has not computed."""
    if engine == "duckdb":
        return pytest.importorskip("duckdb").from_df(data)
    if engine == "polars":
        return pytest.importorskip("polars").from_pandas(data).lazy()
    if engine == "ibis":
        return pytest.importorskip("ibis").memtable(data)
    dask = pytest.importorskip("dask.dataframe")
    return dask.from_pandas(data, npartitions=3)


def in_memory(table: Any) -> pd.DataFrame:
    """The rows of a table of any engine."""
    import narwhals as nw

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collected = nw.from_native(table).collect()
    return pd.DataFrame({name: collected[name].to_list() for name in collected.columns})


def rows(n: int = 2_000, seed: int = 7) -> pd.DataFrame:
    """Rows in no order, of pupils in schools crossed with tests, with columns of every kind."""
    rng = np.random.default_rng(seed)
    pupil, test = rng.integers(0, 60, n), rng.integers(0, 25, n)
    arm = rng.choice(["control", "drill", "play"], n)
    x, z = rng.normal(size=n), rng.normal(2.0, 1.0, n)
    y = (
        1.0
        + x
        + 0.3 * z
        + 0.5 * (arm == "drill")
        + rng.normal(size=60)[pupil] * (1.0 + 0.5 * x)
        + 0.7 * rng.normal(size=25)[test]
        + rng.normal(size=10)[pupil // 6]
        + rng.normal(size=n)
    )
    return pd.DataFrame(
        {
            "id": np.arange(n),
            "y": y,
            "x": x,
            "z": z,
            "arm": arm,
            "late": rng.random(n) < 0.4,
            "week": rng.integers(0, 5, n),
            "year": 1990.0 + rng.integers(0, 30, n),
            "stamp": 1.7e9 + 3600.0 * rng.integers(0, 1000, n),
            "size": np.exp(rng.normal(size=n)),
            "w": rng.uniform(0.5, 2.0, n),
            "times": 1.0 + rng.integers(0, 3, n),
            "pupil": pupil,
            "name": [f"p{code:03d}" for code in pupil],
            "school": pupil // 6,
            "test": test,
            "region": pupil // 12,
        }
    )


def with_gaps(data: pd.DataFrame, seed: int = 8) -> pd.DataFrame:
    """The same with missing numbers, missing text and a missing group."""
    rng = np.random.default_rng(seed)
    data = data.copy()
    data.loc[rng.choice(len(data), 50, replace=False), "x"] = np.nan
    data.loc[rng.choice(len(data), 30, replace=False), "arm"] = None
    return data
