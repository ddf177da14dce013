"""V and its blocks in files, read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

import mixedeffects as me
from matrix_files import as_array, read
from mixedeffects.cli import main
from mixedeffects.covariance.export import save_matrix
from references import fitted_model


@pytest.mark.parametrize("suffix", [".npz", ".mtx", ".csv"])
@pytest.mark.parametrize(("level", "by"), [(None, None), ("22", "sch")])
def test_every_number_survives(tmp_path: Path, suffix: str, level: Any, by: Any) -> None:
    m = fitted_model("star_sample")
    path = tmp_path / f"V{suffix}"
    m.V.save(path, level, by)
    expected = m.V.sparse().toarray() if level is None else m.V.block(level, by).to_numpy()
    found = as_array(read(path))
    if suffix == ".npz":
        assert_array_equal(found, expected)
    else:
        # Sums in another order, or taken from the other triangle, differ in the last digit.
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    if suffix == ".mtx":
        assert path.read_text().startswith("%%MatrixMarket matrix coordinate real symmetric")
    # Nothing is left beside it, and a second time replaces it.
    m.V.save(str(path), level, by)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_csv_keeps_the_row_labels(tmp_path: Path) -> None:
    m = fitted_model("star_sample")
    m.V.save(tmp_path / "block.CSV", "22", by="sch")
    table = pd.read_csv(tmp_path / "block.CSV", index_col=0)
    assert list(table.index) == [int(label) for label in table.columns]
    assert list(table.index) == list(m.V.block("22", by="sch").index)


def test_a_large_V_stays_sparse(tmp_path: Path) -> None:
    m = fitted_model("star_k")
    path = tmp_path / "V.npz"
    m.V.save(path)
    assert abs(read(path) - m.V.sparse()).max() == 0


def test_other_matrices(tmp_path: Path) -> None:
    m = fitted_model("sleepstudy")
    for name, matrix in {"Z": m.Z, "G": m.G, "R": m.R, "X": m.X}.items():
        for suffix in (".npz", ".mtx", ".csv"):
            path = tmp_path / f"{name}{suffix}"
            save_matrix(matrix, path)
            expected = matrix.toarray() if name == "Z" else np.asarray(matrix)
            np.testing.assert_allclose(as_array(read(path)), expected, rtol=1e-14)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("V.txt", r"must end in \.npz"),
        ("V", r"must end in \.npz"),
        ("nowhere/V.npz", "no folder"),
        (".", "is a folder"),
    ],
)
def test_errors_leave_nothing(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(me.DataError, match=message):
        fitted_model("sleepstudy").V.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_what_is_too_large_is_refused_with_a_way_out(tmp_path: Path) -> None:
    m = fitted_model("insteval")
    with pytest.raises(me.ModelError, match=r"102 GB as csv.*\.npz"):
        m.V.save(tmp_path / "V.csv")
    with pytest.raises(me.ModelError, match="no level"):
        m.V.save(tmp_path / "V.csv", level="0", by="s")
    assert list(tmp_path.iterdir()) == []


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["fit", "threelevel", "y ~ x1 + (1 | sch.cl/tch.cl)", "--save-v"]
    path = tmp_path / "a3.csv"
    factor = "tch.cl:sch.cl"
    level = ["--save-v-level", "3:a", "--save-v-by", factor]
    assert main([*arguments, str(path), *level]) == 0
    table = pd.read_csv(path, index_col=0)
    assert list(table.index) == [10, 11, 12, 13, 14]
    expected = fitted_model("threelevel").V.block(("a", 3), by=factor)
    np.testing.assert_allclose(table, expected, rtol=1e-8)
    assert f"{path} written" in capsys.readouterr().err
    assert main([*arguments, str(path), "--save-v-level", "zz", "--save-v-by", "sch.cl"]) == 1
    assert "no level 'zz'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--save-v-level", "308"], "--save-v FILE"),
        (["--save-v", "V.csv", "--save-v-by", "Subject"], "--save-v-level"),
        (["--save-v", "nowhere/V.csv"], "no folder"),
        (["--save-v", "V.xlsx"], r".csv"),
    ],
)
def test_command_line_errors_come_before_the_fit(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "sleepstudy", "Reaction ~ Days + (Days | Subject)", *options]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
