"""The command line, run as a user runs it."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
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


def _same_as_bundled(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Fit the sleep study from a file: the criterion is as ever; what was said is returned."""
    assert main([*arguments, "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["criterion"] == pytest.approx(1743.6283, abs=1e-4)
    return captured.err


@pytest.mark.parametrize(
    ("name", "separator", "decimal", "said"),
    [
        ("sleep.csv", ",", ".", ""),
        ("sleep.csv", ";", ".", "sleep.csv was read with semicolons between fields."),
        ("sleep.csv", ";", ",", "semicolons between fields and decimal commas."),
        ("sleep.tsv", "\t", ".", "tabs between fields."),
        ("sleep.txt.gz", "\t", ".", "tabs between fields."),
    ],
)
def test_fields_are_separated_by_what_the_header_has(
    name: str,
    separator: str,
    decimal: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / name
    data = me.load_dataset("sleepstudy").rename(columns={"Days": "Days, or; nights"})
    data.to_csv(path, index=False, sep=separator, decimal=decimal)
    formula = SLEEP.replace("Days", "`Days, or; nights`")
    error = _same_as_bundled(["fit", str(path), formula], capsys)
    assert said in error
    assert bool(error) == bool(said)
    if path.suffix != ".gz":
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
        error = _same_as_bundled(["fit", "-", formula], capsys)
        assert said.replace(name, "standard input") in error


def test_a_pipe_without_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in (b"", b"a,b\n1,2\n3"):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
        assert main(["fit", "-", "a ~ 1 + (1 | b)"]) == 1
        assert "'standard input' cannot be read as a table" in capsys.readouterr().err


def test_points_and_commas_together_are_left_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mixed.csv"
    path.write_text("y;x;g\n1.5;1,2;a\n2.5;1,3;a\n3.5;2,3;b\n")
    assert main(["fit", str(path), "y ~ x + (1 | g)"]) == 1
    assert "decimal commas" not in capsys.readouterr().err


def test_excel_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openpyxl")
    path = tmp_path / "sleep.xlsx"
    with pd.ExcelWriter(path) as book:
        me.load_dataset("sleepstudy").to_excel(book, sheet_name="Sleep", index=False)
        pd.DataFrame({"about": ["sleep"]}).to_excel(book, sheet_name="Notes", index=False)
    error = _same_as_bundled(["fit", str(path), SLEEP], capsys)
    assert "sleep.xlsx has 2 sheets; the first, 'Sleep', was read." in error
    for content in (b"Reaction,Days", path.read_bytes()[:500]):
        path.write_bytes(content)
        assert main(["fit", str(path), SLEEP]) == 1
        assert "cannot be read as a table" in capsys.readouterr().err


def test_spss_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pyreadstat = pytest.importorskip("pyreadstat")
    path = tmp_path / "children.sav"
    children = me.load_dataset("orthodont").astype({"Subject": str})
    children["Sex"] = children["Sex"].map({"Male": 2.0, "Female": 1.0}).astype(float)
    children["site"] = np.resize([1.0, 2.0, 3.0], len(children))
    pyreadstat.write_sav(
        children,
        path,
        variable_value_labels={
            "Sex": {1.0: "Female", 2.0: "Male"},
            "age": {8.0: "eight", 10.0: "ten", 12.0: "twelve", 14.0: "fourteen"},
            "site": {1.0: "north", 2.0: "south"},
        },
        variable_measure={"Sex": "nominal", "age": "scale", "site": "nominal"},
    )
    assert main(["fit", str(path), "distance ~ age * Sex + site + (age | Subject)", "--json"]) == 0
    captured = capsys.readouterr()
    # Levels in the order of the codes; labels of a scale are no levels.
    names = list(json.loads(captured.out)["coefficients"])
    assert names == ["(Intercept)", "age", "SexMale", "site", "age:SexMale"]
    assert "some values of site have no label of their own" in captured.err
    path.write_bytes(b"not SPSS")
    assert main(["fit", str(path), SLEEP]) == 1
    assert "cannot be read as a table" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("suffix", "package", "extra"),
    [
        (".parquet", "pyarrow", "arrow"),
        (".xlsx", "openpyxl", "excel"),
        (".sav", "pyreadstat", "spss"),
    ],
)
def test_a_missing_extra_is_named(
    suffix: str,
    package: str,
    extra: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def without(*_: object, **__: object) -> None:
        raise ImportError(package)

    for reader in ("read_parquet", "ExcelFile"):
        monkeypatch.setattr(pd, reader, without)
    monkeypatch.setitem(sys.modules, "pyreadstat", None)
    path = tmp_path / f"sleep{suffix}"
    path.write_bytes(b"")
    assert main(["fit", str(path), SLEEP]) == 1
    error = capsys.readouterr().err
    assert f"needs {package}; install it with: pip install 'mixedeffects[{extra}]'" in error


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
    (tmp_path / "latin.csv").write_bytes(b"y,x\n1,\xe9\x81\n")
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


def _in_parts(folder: Path, kind: str) -> str:
    """The sleep study in three files; the pattern that they match."""
    data = me.load_dataset("sleepstudy")
    data.attrs.clear()
    for part in range(3):
        rows = data.iloc[60 * part : 60 * (part + 1)].astype({"Subject": str})
        path = folder / f"part-{part}{kind}"
        if kind == ".parquet":
            rows.to_parquet(path)
        else:
            rows.to_csv(path, index=False, sep="\t" if ".tsv" in kind else ",")
    return str(folder / f"part-*{kind}")


@pytest.mark.parametrize("engine", ["duckdb", "polars"])
@pytest.mark.parametrize("kind", [".parquet", ".csv", ".csv.gz", ".tsv"])
@pytest.mark.parametrize("rows", ["push", "collect", "auto"])
def test_an_engine_reads_several_files(
    engine: str, kind: str, rows: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(engine)
    source = _in_parts(tmp_path, kind)
    _same_as_bundled(["fit", source, SLEEP, "--engine", engine, "--rows", rows], capsys)
    assert main(["fit", source, SLEEP, "--engine", engine, "--rows", rows, "--progress"]) == 0
    said = capsys.readouterr()
    stayed = f"rows stayed in the table ({'DuckDB' if engine == 'duckdb' else 'Polars'})"
    assert (stayed in said.out) == (rows == "push")
    assert ("pass 1 over the table: rows used" in said.err) == (rows == "push")


@pytest.mark.parametrize("engine", ["duckdb", "polars"])
def test_robust_tests_and_missing_values_of_an_engine(
    engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(engine)
    data = me.load_dataset("sleepstudy").astype({"Reaction": object})
    data.loc[[3, 7], "Reaction"] = ["n.a.", "?"]
    data.to_csv(tmp_path / "sleep.csv", index=False)
    ask = ["fit", str(tmp_path / "sleep.csv"), SLEEP, "--missing", "n.a.", "--missing", "?"]
    ask += ["--robust", "CR2", "--json"]
    assert main(ask) == 0
    wanted = json.loads(capsys.readouterr().out)
    memory = ["--memory", "1GB"] * (engine == "duckdb")
    assert main([*ask, "--engine", engine, "--rows", "push", *memory]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["nobs"] == wanted["nobs"] == 178
    for key in ("coefficients", "robust"):
        one, other = found[key], wanted[key]
        one, other = (each.get("coefficients", each) for each in (one, other))
        for name, row in other.items():
            assert one[name] == pytest.approx(row, rel=1e-6)


def test_what_an_engine_cannot_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("duckdb")
    source = _in_parts(tmp_path, ".parquet")
    (tmp_path / "part-0.csv").write_text("a,b\n1,2\n")
    (tmp_path / "broken.parquet").write_text("no parquet")
    (tmp_path / "table.xlsx").write_text("")
    engine = ["--engine", "duckdb"]
    for arguments, said in (
        ([source], "are read by an engine: add --engine duckdb"),
        ([source, "--rows", "push"], "--rows is about the table of an engine"),
        (["sleepstudy", "--memory", "1GB"], "--memory is about the table of an engine"),
        ([str(tmp_path / "none-*.parquet"), *engine], "No file matches "),
        ([str(tmp_path / "none.parquet"), *engine], "There is no file "),
        ([str(tmp_path), *engine], "is a folder; say which of its files"),
        ([str(tmp_path / "part-*"), *engine], "of several formats (.csv, .parquet)"),
        ([str(tmp_path / "*.xlsx"), *engine], "An engine reads parquet and csv files"),
        ([str(tmp_path / "broken.parquet"), *engine], "cannot be read as a table"),
        ([source, "--engine", "polars", "--memory", "1GB"], "A limit of memory is DuckDB's"),
        ([source, *engine, "--memory", "much"], "a size such as 2GB or 500MB, not 'much'"),
        ([source, *engine, "--missing", "?"], "parquet files have missing values of their own"),
        ([source, *engine, "--factor", "Days"], "with --engine write factor(Days) in the formula"),
        ([source, *engine, "--family", "poisson"], "--engine is for linear models"),
    ):
        assert main(["fit", arguments[0], SLEEP, *arguments[1:]]) == 1
        assert said in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["fit", source, SLEEP, "--engine", "spark"])


def test_an_engine_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = _in_parts(tmp_path, ".parquet")
    monkeypatch.setitem(sys.modules, "duckdb", None)
    assert main(["fit", source, SLEEP, "--engine", "duckdb"]) == 1
    assert "install it with: pip install duckdb" in capsys.readouterr().err
