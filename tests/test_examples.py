"""The examples run, at a size that takes seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def output_of(script: str, *arguments: str) -> str:
    """What an example prints."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "MIXEDEFFECTS_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_twenty_million_rows(tmp_path: Path) -> None:
    pytest.importorskip("duckdb")
    arguments = ("--rows", "20000", "--folder", str(tmp_path), "--memory", "200MB")
    text = output_of("twenty_million_rows.py", *arguments)
    assert (tmp_path / "trips-20000-100.parquet").exists()
    assert "pass 3 over the table: levels of driver" in text
    assert "rows stayed in the table (DuckDB), 20,000 used" in text
    assert "CR1 covariance, clusters driver (100)" in text
    assert text.count(" s of processor time, peak ") == 3
    # The file that is there is taken.
    assert "20,000 used" in output_of("twenty_million_rows.py", *arguments)


def test_dask_cluster() -> None:
    pytest.importorskip("dask.dataframe")
    pytest.importorskip("distributed")
    text = output_of("dask_cluster.py", "--rows", "20000", "--schools", "50")
    assert "pass 3 over the table: levels of school" in text
    assert "rows stayed in the table (Dask), 20,000 used" in text
    assert "CR1 covariance, clusters school (50)" in text
    assert "standard deviation of the residuals: " in text
