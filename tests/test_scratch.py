"""Blocks in files of a folder: the same fit, nothing left behind, and less memory."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mixedeffects as me
from lazy_tables import ENGINES, rows, table_of
from mixedeffects.base.scratch import FilesIn
from mixedeffects.errors import DataError, FileError, Interrupted, ModelError
from test_lazy_fits import DESIGNS, assert_same


@pytest.mark.parametrize("design", ["crossed", "nested slopes", "weights", "transforms", "slope"])
@pytest.mark.parametrize("engine", ENGINES)
def test_blocks_on_disk_give_the_same_fit(design: str, engine: str, tmp_path: Path) -> None:
    formula, options, _ = DESIGNS[design]
    found = me.lmer(formula, table_of(engine, rows()), scratch=tmp_path, **options)
    assert _mapped(found)
    assert list(tmp_path.iterdir()) == []
    assert_same(found, me.lmer(formula, rows(), **options))
    in_memory = me.lmer(formula, table_of(engine, rows()), rows="push", **options)
    assert not _mapped(in_memory)
    assert_allclose(in_memory.criterion, found.criterion, rtol=1e-13)


def _mapped(m: me.LinearMixedModel) -> bool:
    """Whether both blocks of the first factor lie in files."""

    def base(array: Any) -> Any:
        while isinstance(array, np.ndarray) and not isinstance(array, np.memmap):
            array = array.base
        return array

    first = m.fit.crossproducts.chain[0]
    return all(isinstance(base(each), np.memmap) for each in (first.diag, first.panel))


def test_sums_are_fitted_with_blocks_on_disk(tmp_path: Path) -> None:
    statistics = me.sufficient("y ~ x + (x | pupil)", rows())
    found = me.lmer(statistics, scratch=str(tmp_path))
    assert _mapped(found) and list(tmp_path.iterdir()) == []
    assert_same(found, me.lmer("y ~ x + (x | pupil)", rows()))
    again = pickle.loads(pickle.dumps(found))
    assert_same(again, found)
    assert repr(again).splitlines()[:5] == repr(found).splitlines()[:5]


def test_answers_come_in_many_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixedeffects.lazy.table._BATCH", 7)
    monkeypatch.setattr("mixedeffects.base.scratch._AT_ONCE", 16)
    monkeypatch.setattr("mixedeffects.engine.from_sums._AT_ONCE", 5)
    formula = "y ~ x + (x | school/pupil) + (1 | test)"
    for scratch in (None, tmp_path):
        found = me.lmer(formula, table_of("duckdb", rows()), rows="push", scratch=scratch)
        assert_same(found, me.lmer(formula, rows()))


def test_folders_that_are_none(tmp_path: Path) -> None:
    table = table_of("duckdb", rows())
    with pytest.raises(DataError, match=r"There is no folder .*none' for scratch=; make it first"):
        me.lmer("y ~ x + (1 | pupil)", table, scratch=tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="There is no folder"):
        me.lmer("y ~ x + (1 | pupil)", table, scratch=tmp_path / "file")
    with pytest.raises(DataError, match="scratch= is the name of a folder, not 3"):
        me.lmer("y ~ x + (1 | pupil)", table, scratch=3)
    with pytest.raises(ModelError, match="scratch= keeps the blocks of a table"):
        me.lmer("y ~ x + (1 | pupil)", rows(), scratch=tmp_path)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="needs limits of file sizes")
@pytest.mark.parametrize("limit", [0, 1_000, 3_000, 3_900])
def test_a_disk_without_place_is_an_error(limit: int, tmp_path: Path) -> None:
    import resource

    table = table_of("polars", rows())
    own = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, own[1]))
    try:
        with pytest.raises(FileError, match=r"cannot be written to the folder .* that scratch="):
            me.lmer("y ~ x + arm + z + (x | pupil)", table, scratch=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, own)
    assert list(tmp_path.iterdir()) == []


def test_nothing_stays_behind_when_the_fit_is_interrupted(tmp_path: Path) -> None:
    def stop(line: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted) as stopped:
        table = table_of("duckdb", rows())
        me.lmer("y ~ x + (x | pupil)", table, scratch=tmp_path, progress=stop)
    assert list(tmp_path.iterdir()) == []
    assert_same(stopped.value.partial.resume(), me.lmer("y ~ x + (x | pupil)", rows()))
    with pytest.raises(ModelError, match="has one level"):
        me.lmer("y ~ x + (1 | one)", table_of("duckdb", rows().assign(one=1)), scratch=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("own", [True, False])
def test_files_are_filled_where_the_system_reserves_no_place(
    own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixedeffects.base.scratch._AT_ONCE", 10)
    if not own:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    array = FilesIn(tmp_path).zeros((33, 3))
    assert array.shape == (33, 3) and not array.any()
    array[:] = 1.0
    assert array.sum() == 99.0 and list(tmp_path.iterdir()) == []
    assert FilesIn(tmp_path).zeros((0, 3)).shape == (0, 3)


_MEASURED = """
import json, sys
import duckdb, mixedeffects as me
n, levels, scratch = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] or None
con = duckdb.connect()
con.execute("SET threads = 1")
con.execute("SET enable_progress_bar = false")
con.execute("SET memory_limit = '200MB'")
table = con.sql(f'''
    SELECT range % {levels} AS g, hash(range) % 1000 / 250.0 AS x,
           x + hash(range % {levels}) % 1000 / 500.0 + hash(range + 1) % 1000 / 300.0 AS y
    FROM range({n})''')
m = me.lmer("y ~ x + (x | g)", table, rows="push", scratch=scratch)
status = dict(line.split(":") for line in open("/proc/self/status"))
size = {name: int(status[name].split()[0]) / 1024 for name in ("RssAnon", "VmHWM")}
print(json.dumps([m.criterion, size["RssAnon"], size["VmHWM"]]))
"""


def _measured(n: int, levels: int, scratch: Path | str = "") -> list[float]:
    pytest.importorskip("duckdb")
    run = subprocess.run(
        [sys.executable, "-c", _MEASURED, str(n), str(levels), str(scratch)],
        capture_output=True,
        text=True,
        check=True,
    )
    return list(json.loads(run.stdout.splitlines()[-1]))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_blocks_on_disk_leave_memory_free(tmp_path: Path) -> None:
    """Of a million levels the blocks alone are 80 bytes each."""
    in_memory, on_disk = _measured(3_000_000, 1_000_000), _measured(3_000_000, 1_000_000, tmp_path)
    assert_allclose(on_disk[0], in_memory[0], rtol=1e-12)
    assert on_disk[1] < in_memory[1] - 60.0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_does_not_grow_with_rows() -> None:
    few, many = _measured(500_000, 50_000), _measured(5_000_000, 50_000)
    assert many[2] < few[2] + 40.0
    assert many[2] < 450.0
