"""Fits of Spark tables: needs Java and pyspark, and ten seconds for a session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import mixedeffects as me
from lazy_tables import in_memory, rows, with_gaps

pytestmark = [
    pytest.mark.spark,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas"),
]


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    sql = pytest.importorskip("pyspark.sql")
    settings = {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "4"}
    builder = sql.SparkSession.builder.master("local[2]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    started = builder.getOrCreate()
    yield started
    started.stop()


def table(session: Any, data: pd.DataFrame) -> Any:
    data = data.astype({"arm": object, "name": object})
    data["arm"] = data["arm"].where(data["arm"].notna(), None)
    return session.createDataFrame(data.to_numpy().tolist(), schema=list(data.columns))


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        ("y ~ x + (x | pupil)", {}),
        ("y ~ x + (1 | pupil) + (1 | test)", {}),
        ("y ~ x * arm + (1 | pupil)", {"weights": "w"}),
        ("y ~ scale(z) + log(size) + poly(x, 2) + (1 | school/pupil)", {}),
    ],
)
def test_a_spark_table_gives_the_fit_of_its_rows(
    session: Any, formula: str, options: dict[str, Any]
) -> None:
    data = with_gaps(rows())
    found = me.lmer(formula, table(session, data), rows="push", **options)
    wanted = me.lmer(formula, data, **options)
    assert_allclose(found.fit.criterion, wanted.fit.criterion, rtol=1e-10)
    assert_allclose(found.fixef, wanted.fixef, rtol=1e-8, atol=1e-9)
    assert_allclose(found.theta, wanted.theta, rtol=1e-7, atol=1e-8)


def test_further_passes_run_in_spark(session: Any) -> None:
    data = with_gaps(rows())
    found = me.lmer("y ~ x * arm + (x | pupil)", table(session, data), rows="push")
    wanted = me.lmer("y ~ x * arm + (x | pupil)", data)
    own, other = (m.robust("CR1", cluster="school").vcov for m in (wanted, found))
    assert_allclose(other, own, rtol=1e-8, atol=1e-12)
    assert_allclose(found.anova(), wanted.anova(), rtol=1e-6)
    augmented = in_memory(found.augment()).sort_values("id")
    assert_allclose(augmented["_fitted"], np.asarray(wanted.augment()["_fitted"]), atol=1e-9)
