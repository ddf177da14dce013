"""The command line, run as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import mixedeffects as me
from matrix_files import as_array, read
from mixedeffects.cli import main
from references import fitted_model

SLEEP = "Reaction ~ Days + (Days | Subject)"


def test_fit_a_bundled_dataset(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "sleepstudy", SLEEP]) == 0
    assert "REML criterion at convergence: 1743.6" in capsys.readouterr().out
    assert main(["fit", "sleepstudy", SLEEP, "--ml"]) == 0
    assert "maximum likelihood" in capsys.readouterr().out


def test_robust_option(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    threelevel = ["fit", "threelevel", "y ~ x1 + (1 | sch.cl/tch.cl)", "--robust", "cr2"]
    assert main([*threelevel, "--cluster", "sch.cl", "--html", str(tmp_path / "r.html")]) == 0
    assert "CR2 covariance, clusters sch.cl (10)" in capsys.readouterr().out
    assert "<caption>CR2 covariance" in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert main([*threelevel, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)["robust"]
    assert answer["cluster"] == ["sch.cl"]
    assert answer["coefficients"]["x1"]["df"] == pytest.approx(8.0127, abs=1e-4)
    assert main(["fit", "sleepstudy", SLEEP, "--robust", "HC0"]) == 1
    assert "'HC0' is not known" in capsys.readouterr().err
    assert main(["fit", "sleepstudy", SLEEP, "--cluster", "Subject"]) == 1
    assert "--cluster says what" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet", ".arrow"])
def test_fit_a_file(tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    data, path = me.load_dataset("sleepstudy"), tmp_path / f"sleep{suffix}"
    data.attrs.clear()
    if suffix.startswith(".csv"):
        data.to_csv(path, index=False)
    elif suffix == ".parquet":
        data.to_parquet(path)
    else:
        data.to_feather(path)
    assert main(["fit", str(path), SLEEP, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["criterion"] == pytest.approx(1743.6283, abs=1e-4)
    assert answer["coefficients"]["Days"]["df"] == pytest.approx(17.0, abs=1e-3)


@pytest.mark.parametrize("suffix", [".npz", ".mtx", ".csv"])
def test_save_v(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"V{suffix}"
    assert main(["fit", "sleepstudy", SLEEP, "--save-v", str(path)]) == 0
    V = as_array(read(path))
    np.testing.assert_allclose(V, fitted_model("sleepstudy").V.dense(), rtol=1e-8)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_html_report(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    assert main(["fit", "sleepstudy", SLEEP, "--html", str(path)]) == 0
    page = path.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "Satterthwaite" in page


def test_factor_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    formula = "Reaction ~ Days + (1 | Subject)"
    assert main(["fit", "sleepstudy", formula, "--factor", "Days"]) == 0
    assert "Days9" in capsys.readouterr().out
    assert main(["fit", "sleepstudy", formula, "--factor", "Dayz"]) == 1


def test_demo_runs_the_post(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--output", str(tmp_path / "figures")]) == 0
    out = capsys.readouterr().out
    for part in ("251.405", "10.467", "612.1", "0.376", "0.359", "438.91", "-5.92", "2.05"):
        assert part in out, part
    figures = sorted(p.name for p in (tmp_path / "figures").iterdir())
    assert len(figures) == 5
    assert all((tmp_path / "figures" / name).stat().st_size > 5000 for name in figures)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "nosuch.csv", SLEEP], "no file"),
        (["fit", "sleepstudi", SLEEP], "sleepstudy"),
        (["fit", "sleepstudy", "Reaction ~ Dayz + (1 | Subject)"], "Dayz"),
        (["fit", "sleepstudy", SLEEP, "--save-v", "V.txt"], r"\.npz"),
        (["fit", "sleepstudy", "Reaction ~ open('x') + (1 | Subject)"], "open"),
        (["fit", "sleepstudy", "Reaction ~ eval(Days) + (1 | Subject)"], "eval"),
        (["fit", "sleepstudy", "Reaction ~ np.load(Days) + (1 | Subject)"], "load"),
        (["fit", "sleepstudy", "Reaction ~ Days.__class__ + (1 | Subject)"], "__class__"),
    ],
)
def test_errors_are_sentences(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("mixedeffects: ")
    assert pytest.importorskip("re").search(message, error)
    assert "Traceback" not in error


def test_unreadable_files_and_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "latin.csv").write_bytes(b"y,x\n1,\xe9\xff\n")
    for name in ("empty.csv", "latin.csv"):
        assert main(["fit", str(tmp_path / name), SLEEP]) == 1
        assert "cannot be read as a table" in capsys.readouterr().err
    missing = tmp_path / "nowhere" / "r.html"
    assert main(["fit", "sleepstudy", SLEEP, "--html", str(missing)]) == 1
    captured = capsys.readouterr()
    assert "no folder" in captured.err
    assert captured.out == ""
    assert main(["fit", "sleepstudy", SLEEP, "--html", str(tmp_path)]) == 1
    assert "is a folder" in capsys.readouterr().err


def test_no_command_is_usage() -> None:
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2
