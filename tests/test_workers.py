"""What is done beside each other, in threads or in other processes, gives the same numbers."""

from __future__ import annotations

import multiprocessing
import operator
import pickle
import warnings
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mixedeffects as me
from lazy_tables import rows, table_of
from references import fitted_model


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.fixture(scope="module", params=["threads", "processes"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    if request.param == "processes":
        yield request.getfixturevalue("processes")
        return
    with ThreadPoolExecutor(2) as pool:
        yield pool


def grouse() -> me.GeneralizedLinearMixedModel:
    data = me.load_dataset("cbpp")
    formula = "incidence / size ~ period + (1 | herd)"
    return me.glmer(formula, data, family="binomial", weights="size")


MODELS: dict[str, Any] = {
    "slope": lambda: fitted_model("sleepstudy"),
    "crossed": lambda: fitted_model("penicillin"),
    "structured residuals": lambda: me.lmer(
        "distance ~ age", me.load_dataset("orthodont"), residual="ar1(1 | Subject)"
    ),
    "generalized": grouse,
    "without rows": lambda: me.lmer("y ~ x + (x | pupil)", table_of("duckdb", rows()), rows="push"),
}


@pytest.mark.parametrize("name", MODELS)
def test_draws_do_not_depend_on_the_executor(name: str, executor: Executor) -> None:
    m = MODELS[name]()
    wanted = m.bootstrap(12, seed=1, workers=1)
    found = m.bootstrap(5, seed=1, workers=executor).resume(12, workers=executor)
    pd.testing.assert_frame_equal(found.draws, wanted.draws, rtol=1e-9)
    np.testing.assert_allclose(found.criterion, wanted.criterion, rtol=1e-10)


def test_a_statistic_that_can_be_sent_is(processes: Executor) -> None:
    m = fitted_model("dyestuff")
    sigma = operator.attrgetter("sigma")
    wanted = m.bootstrap(6, seed=1, statistic=sigma).draws
    pd.testing.assert_frame_equal(
        m.bootstrap(6, seed=1, statistic=sigma, workers=processes).draws, wanted, rtol=1e-9
    )
    with pytest.raises(me.ModelError, match="statistic cannot be sent to other processes"):
        m.bootstrap(6, seed=1, statistic=lambda fit: fit.sigma, workers=processes)


@pytest.mark.parametrize("workers", ["two", 0, 1.5, True])
def test_workers_are_a_number_or_an_executor(workers: Any) -> None:
    with pytest.raises(me.ModelError, match="must be a positive whole number or an executor"):
        fitted_model("dyestuff").bootstrap(2, workers=workers)


POWERS: dict[str, Any] = {
    "linear": lambda **given: me.power(
        fitted_model("sleepstudy"), "Days", n=[5, 8], effects={"Days": 4}, draws=70, **given
    ),
    "generalized": lambda **given: me.power(
        grouse(), ["period2"], n=8, effects={"period2": -0.8}, draws=10, **given
    ),
}


@pytest.mark.parametrize("name", POWERS)
def test_power_does_not_depend_on_the_executor(name: str, executor: Executor) -> None:
    wanted = POWERS[name](seed=1)
    heard: list[me.Repetitions] = []
    found = POWERS[name](seed=1, workers=executor, progress=heard.append)
    pd.testing.assert_frame_equal(found.to_frame(), wanted.to_frame())
    pd.testing.assert_frame_equal(POWERS[name](seed=1, workers=2).to_frame(), wanted.to_frame())
    assert 0 < wanted.table["power"].iloc[0] < 1
    assert heard[-1].done == heard[-1].total


def test_power_by_workers_goes_on_after_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixedeffects.progress._INTERVAL", 0.0)

    def stop(line: me.Repetitions) -> None:
        if line.done == 66:
            raise KeyboardInterrupt

    with pytest.raises(me.Interrupted) as caught:
        POWERS["linear"](seed=1, workers=2, progress=stop)
    wanted = POWERS["linear"](seed=1).to_frame()
    pd.testing.assert_frame_equal(caught.value.partial.resume().to_frame(), wanted)


def test_filters_of_warnings_are_as_before() -> None:
    before = list(warnings.filters)
    POWERS["linear"](seed=1, workers=4)
    assert list(warnings.filters) == before


def test_draws_of_a_table_can_be_stored() -> None:
    boot = MODELS["without rows"]().bootstrap(5, seed=1)
    again = pickle.loads(pickle.dumps(boot))
    wanted = boot.resume(8).draws
    pd.testing.assert_frame_equal(again.resume(8).draws, wanted, rtol=1e-9)
