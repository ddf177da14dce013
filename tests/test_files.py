"""Files: there whole or not at all, in any spelling of their endings, and errors that name them."""

from __future__ import annotations

import gzip
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse

import mixedeffects as me
from matrix_files import read_matrix_market
from mixedeffects.base import files
from mixedeffects.cli import main
from mixedeffects.covariance.export import save_matrix
from references import fitted_model

FORMULA = "Reaction ~ Days + (Days | Subject)"

WRITERS: dict[str, Callable[[me.LinearMixedModel, Path], Any]] = {
    "V.npz": lambda m, path: m.V.save(path),
    "V.mtx": lambda m, path: m.V.save(path),
    "V.csv": lambda m, path: m.V.save(path),
    "V.csv.gz": lambda m, path: m.V.save(path),
    "fit.html": lambda m, path: m.report(path),
    "fit.json": lambda m, path: m.to_json(path),
    "table.tex": lambda m, path: me.etable(m).save(path),
    "table.csv": lambda m, path: me.etable(m).save(path),
}


@pytest.fixture
def plain_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without their pictures, which take seconds."""
    from mixedeffects.reporting import report

    monkeypatch.setattr(report, "_drawn", lambda *_: iter(()))


@pytest.mark.usefixtures("plain_report")
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_the_old_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    path.write_text("OLD")

    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(me.FileError, match="No space left on device") as caught:
        WRITERS[name](fitted_model("sleepstudy"), path)
    assert str(path) in str(caught.value)
    assert caught.value.errno == 28
    assert isinstance(caught.value, OSError)
    assert path.read_text() == "OLD"
    assert [each.name for each in tmp_path.iterdir()] == [name]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
@pytest.mark.parametrize("name", ["V.npz", "V.mtx", "V.csv"])
# NumPy 2.1 forgets its half-written archive, which complains when it is collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_write_that_fails_half_way_leaves_the_old_file(name: str, tmp_path: Path) -> None:
    import resource

    path = tmp_path / name
    path.write_text("OLD")
    V = fitted_model("sleepstudy").V
    heard = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(me.FileError, match="File too large"):
            V.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, heard)
    assert path.read_text() == "OLD"
    assert [each.name for each in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["V.NPZ", "V.Mtx", "V.CSV", "V.Csv.GZ"])
def test_endings_in_any_case(name: str, tmp_path: Path) -> None:
    m = fitted_model("sleepstudy")
    m.V.save(str(tmp_path / name))
    assert [each.name for each in tmp_path.iterdir()] == [name]
    content = (tmp_path / name).read_bytes()
    read: Callable[[Any], Any] = {
        ".npz": scipy.sparse.load_npz,
        ".mtx": read_matrix_market,
        ".csv": lambda file: pd.read_csv(file, index_col=0),
        ".csv.gz": lambda file: pd.read_csv(file, index_col=0, compression="gzip"),
    }[files.ending(Path(name))]
    (tmp_path / "copy").write_bytes(content)
    with (tmp_path / "copy").open("rb") as file:
        found = read(file)
    dense = found.toarray() if scipy.sparse.issparse(found) else found.to_numpy()
    np.testing.assert_allclose(dense, m.V.dense(), rtol=1e-14, atol=1e-12)
    table = me.etable(m)
    table.save(tmp_path / "T.TEX")
    assert (tmp_path / "T.TEX").read_text().startswith(r"\begin{tabular}")


@pytest.mark.parametrize("name", ["V", "V.gz", "V.tar.gz", "V.npz.gz", ".npz", "V.npz.", "V.xlsx"])
def test_other_endings_are_refused_before_the_work(name: str, tmp_path: Path) -> None:
    class Unused:
        shape = (1, 1)

        def sparse(self) -> Any:
            raise AssertionError("computed before the name was checked")

    with pytest.raises(me.DataError, match=r"the name must end in \.npz"):
        save_matrix(Unused(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [None, 3, b"", "", "a\0b.csv", object(), ["V.csv"]])
def test_what_is_no_path_is_refused(path: Any) -> None:
    m = fitted_model("sleepstudy")
    for write in (m.V.save, m.report, me.etable(m).save, m.to_json):
        if write == m.to_json and path is None:
            continue
        with pytest.raises(me.ModelError, match="needs the name of a file"):
            write(path)


def test_places_that_do_not_exist(tmp_path: Path) -> None:
    m = fitted_model("sleepstudy")
    (tmp_path / "plain").write_text("a file")
    for path in (tmp_path / "none" / "V.csv", tmp_path / "plain" / "V.csv"):
        with pytest.raises(me.DataError, match="There is no folder"):
            m.V.save(path)
    with pytest.raises(me.FileError, match="File name too long"):
        m.V.save(tmp_path / ("x" * 300 + ".csv"))


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_permissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    m = fitted_model("sleepstudy")
    path = tmp_path / "fit.json"
    path.write_text("{}")
    path.chmod(0o640)
    m.to_json(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    # Root may write everything, so the answer of the system is put in its mouth.
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    with pytest.raises(me.FileError, match="There is no permission to write"):
        m.to_json(path)
    with pytest.raises(me.FileError, match="There is no permission to write"):
        m.V.save(tmp_path / "V.npz")


@pytest.mark.skipif(sys.platform == "win32", reason="links and devices of POSIX")
def test_links_and_devices(tmp_path: Path) -> None:
    m = fitted_model("sleepstudy")
    (tmp_path / "there").mkdir()
    (tmp_path / "fit.json").symlink_to(tmp_path / "there" / "real.json")
    m.to_json(tmp_path / "fit.json")
    assert (tmp_path / "fit.json").is_symlink()
    assert (tmp_path / "there" / "real.json").read_text() == m.to_json() + "\n"
    m.to_json("/dev/null")
    if Path("/dev/full").exists():
        with pytest.raises(me.FileError, match="No space left"):
            m.to_json("/dev/full")


# --- what spreadsheets run --------------------------------------------------------------------


def test_formulas_are_escaped_on_request(tmp_path: Path) -> None:
    labels = ["=1+1", "+a", "-b", "@c", "plain", 7]
    table = pd.DataFrame(np.arange(36.0).reshape(6, 6) - 3.0, labels, labels)
    save_matrix(table, tmp_path / "as it is.csv")
    read = pd.read_csv(tmp_path / "as it is.csv", index_col=0)
    assert list(read.index) == list(map(str, labels))
    save_matrix(table, tmp_path / "escaped.csv.gz", escape_formulas=True)
    read = pd.read_csv(tmp_path / "escaped.csv.gz", index_col=0)
    assert list(read.index) == list(read.columns) == ["'=1+1", "'+a", "'-b", "'@c", "plain", "7"]
    np.testing.assert_array_equal(read.to_numpy(), table.to_numpy())


def test_formulas_in_tables_and_on_the_command_line(tmp_path: Path) -> None:
    sleep = me.load_dataset("sleepstudy").rename(columns={"Days": "@Days"})
    sleep.index = [f"={i}" for i in range(180)]
    m = me.lmer("Reaction ~ `@Days` + (1 | Subject)", sleep)
    m.V.save(tmp_path / "V.csv", "308", escape_formulas=True)
    assert pd.read_csv(tmp_path / "V.csv", index_col=0).index[0] == "'=0"
    table = me.etable(m, labels={m.fixef.index[1]: "@Days"})
    table.save(tmp_path / "table.csv", escape_formulas=True)
    text = (tmp_path / "table.csv").read_text()
    assert ",'@Days," in text
    assert ",@Days," not in text
    assert "-" in text
    table.save(tmp_path / "table.csv")
    assert ",@Days," in (tmp_path / "table.csv").read_text()
    out = tmp_path / "block.csv"
    options = ["--save-v", str(out), "--save-v-level", "308", "--escape-formulas"]
    assert main(["fit", "sleepstudy", FORMULA, *options]) == 0


# --- data for the command line ----------------------------------------------------------------


@pytest.fixture
def sleep_csv() -> bytes:
    return me.load_dataset("sleepstudy").to_csv(index=False).encode()


def fit(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = main(["fit", str(path), FORMULA])
    heard = capsys.readouterr()
    assert (status == 0) == (heard.out != "")
    return status, heard.err


@pytest.mark.parametrize("name", ["a.CSV", "a.csv.GZ", "a.Csv.gz", "a.PARQUET", "a.Arrow"])
def test_data_in_any_spelling_are_read(
    name: str, tmp_path: Path, sleep_csv: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    sleep = me.load_dataset("sleepstudy")
    match files.ending(path):
        case ".parquet":
            sleep.to_parquet(path)
        case ".arrow":
            sleep.to_feather(path)
        case ".csv.gz":
            path.write_bytes(gzip.compress(sleep_csv))
        case _:
            path.write_bytes(sleep_csv)
    assert fit(path, capsys) == (0, "")


def damaged(kind: str, folder: Path, sleep_csv: bytes) -> Path:
    packed = gzip.compress(sleep_csv)
    path = folder / {"parquet": "a.parquet", "arrow": "a.arrow"}.get(kind, f"{kind}.csv.gz")
    if kind == "cut":
        path.write_bytes(packed[: len(packed) // 2])
    elif kind == "flipped":
        path.write_bytes(packed[:300] + bytes([packed[300] ^ 0xFF]) + packed[301:])
    elif kind == "checksum":
        path.write_bytes(packed[:-8] + b"\0" * 8)
    elif kind == "no-gzip":
        path.write_bytes(sleep_csv)
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        sleep = me.load_dataset("sleepstudy")
        sleep.to_parquet(path) if kind == "parquet" else sleep.to_feather(path)
        path.write_bytes(path.read_bytes()[:-200])
    return path


@pytest.mark.parametrize(
    "kind", ["cut", "flipped", "checksum", "no-gzip", "empty", "parquet", "arrow"]
)
def test_damaged_data_are_named(
    kind: str, tmp_path: Path, sleep_csv: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = damaged(kind, tmp_path, sleep_csv)
    status, heard = fit(path, capsys)
    assert status == 1
    assert heard.startswith(f"mixedeffects: The file {str(path)!r} cannot be read as a table: ")
    assert heard.count("\n") == 1
    assert not heard.rstrip().endswith(":")


def test_a_table_cut_within_its_last_row(
    tmp_path: Path, sleep_csv: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cut.csv"
    path.write_bytes(sleep_csv[:1000].rpartition(b",")[0])
    status, heard = fit(path, capsys)
    assert status == 1
    assert "its last line is cut short" in heard
    # Without the last line break, and with commas within quotes, it is whole.
    path.write_bytes(sleep_csv.rstrip())
    assert fit(path, capsys) == (0, "")
    path.write_bytes(b'"a, b",Reaction,Days,Subject\n1,' + b"\n1,".join(sleep_csv.split()[1:]))
    assert fit(path, capsys) == (0, "")


def test_folders_and_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").mkdir()
    status, heard = fit(tmp_path / "a.csv", capsys)
    assert status == 1
    assert "Is a directory" in heard
    status, heard = fit(tmp_path / "b.csv", capsys)
    assert (status, "There is no file" in heard) == (1, True)


def test_damaged_bundled_data(monkeypatch: pytest.MonkeyPatch) -> None:
    from mixedeffects.datasets import loading

    class Cut:
        def read_bytes(self) -> bytes:
            return gzip.compress(b"a,b\n1,2\n")[:-9]

    monkeypatch.setattr(loading, "data_file", lambda name: Cut())
    with pytest.raises(me.FileError, match="installation is damaged"):
        me.load_dataset("sleepstudy")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_output_that_cannot_be_written() -> None:
    command = [sys.executable, "-m", "mixedeffects", "fit", "dyestuff", "Yield ~ 1 + (1 | Batch)"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("mixedeffects: ")
    assert "Traceback" not in done.stderr
