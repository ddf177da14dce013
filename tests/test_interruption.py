"""Ctrl-C and progress: one behaviour and one display for everything that takes long."""

from __future__ import annotations

import inspect
import io
import os
import pickle
import pty
import signal
import subprocess
import sys
import textwrap
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mixedeffects as me
from mixedeffects import progress
from mixedeffects.cli import main
from references import fitted_model

SLEEP = "Reaction ~ Days + (Days | Subject)"


def crossed() -> me.LinearMixedModel:
    return fitted_model("penicillin")


def frame_of(result: Any) -> pd.DataFrame:
    return result if isinstance(result, pd.DataFrame) else result.to_frame()


#: Everything long, on small data: what is done, and how two results are compared.
LONG: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "bootstrap": (
        lambda p: fitted_model("sleepstudy").bootstrap(200, seed=1, progress=p),
        lambda boot: boot.draws,
    ),
    "bootstrap with a statistic": (
        lambda p: fitted_model("dyestuff").bootstrap(
            20, seed=1, statistic=lambda fit: fit.sigma, progress=p
        ),
        lambda boot: boot.draws,
    ),
    "profile": (lambda p: fitted_model("dyestuff").profile(progress=p), lambda q: q.confint()),
    "influence": (
        lambda p: fitted_model("dyestuff").influence("Batch", refit=True, progress=p),
        frame_of,
    ),
    "check": (lambda p: fitted_model("dyestuff").check(draws=99, progress=p), frame_of),
    "cross_validate": (
        lambda p: me.cross_validate(fitted_model("dyestuff"), folds=4, seed=1, progress=p),
        lambda found: found.by_fold,
    ),
    "power": (
        lambda p: me.power(
            fitted_model("sleepstudy"), "Days", n=[6, 9], draws=5, seed=1, progress=p
        ),
        frame_of,
    ),
    "ranova": (lambda p: crossed().ranova(progress=p), frame_of),
    "caic": (lambda p: crossed().caic(progress=p), frame_of),
    "confint profile": (
        lambda p: fitted_model("dyestuff").confint("profile", progress=p),
        frame_of,
    ),
    "confint boot": (
        lambda p: fitted_model("dyestuff").confint("boot", n=70, seed=1, progress=p),
        frame_of,
    ),
}


class Stop:
    """Presses Ctrl-C when it hears something for the n-th time."""

    def __init__(self, times: int = 1) -> None:
        self.left = times
        self.heard: list[Any] = []

    def __call__(self, line: Any) -> None:
        self.heard.append(line)
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.fixture
def every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_INTERVAL", 0.0)


@pytest.mark.usefixtures("every_line")
@pytest.mark.parametrize("name", LONG)
def test_what_is_done_is_kept_and_resumed(name: str) -> None:
    run, numbers = LONG[name]
    whole = run(False)
    stop = Stop()
    with pytest.raises(KeyboardInterrupt) as caught:
        run(stop)
    stopped = caught.value
    assert isinstance(stopped, me.Interrupted)
    assert "What is done is kept: `partial.resume()`" in str(stopped)
    assert f"{stop.heard[-1].done:,} of {stop.heard[-1].total:,}" in str(stopped)
    # A second time, right away, loses nothing.
    with pytest.raises(me.Interrupted) as again:
        stopped.partial.resume(progress=Stop())
    heard = Stop(10**6)
    resumed = again.value.partial.resume(progress=heard)
    if heard.heard:
        assert heard.heard[0].done > stop.heard[-1].done
    assert type(resumed) is type(whole)
    pd.testing.assert_frame_equal(numbers(resumed), numbers(whole), rtol=1e-5)


@pytest.mark.usefixtures("every_line")
def test_half_the_draws_never_pass_for_the_whole() -> None:
    m = fitted_model("dyestuff")
    with pytest.raises(me.Interrupted) as caught:
        m.bootstrap(500, seed=1, progress=Stop())
    boot = caught.value.partial
    done = len(boot.draws)
    assert 0 < done < 500
    assert f"{done} of 500 refits" in repr(boot)
    assert "%" not in repr(boot)
    with pytest.raises(me.ModelError, match=rf"{done} of 500 refits are done.*resume\({done}\)"):
        boot.confint()
    with pytest.raises(me.ModelError, match="half the draws are not the whole"):
        boot.plot()
    settled = boot.resume(done)
    assert settled.confint().shape == (3, 2)
    assert f"{done} refits" in repr(settled)


@pytest.mark.usefixtures("every_line")
def test_influence_so_far() -> None:
    m = fitted_model("dyestuff")
    with pytest.raises(me.Interrupted) as caught:
        m.influence("Batch", refit=True, progress=Stop(2))
    partial = caught.value.partial
    assert (partial.done, partial.total) == (2, 6)
    assert "after refit 2 of 6" in repr(partial)
    found = partial.so_far
    assert found.cooks_distance.notna().tolist() == [True, True, False, False, False, False]
    assert list(found.notes) == ["C", "D", "E", "F"]
    assert "interrupted" in found.notes["C"]
    assert partial.resume().notes == {}


def test_a_fit_goes_on_from_its_last_iteration() -> None:
    data = me.load_dataset("penicillin")
    formula = "diameter ~ 1 + (1 | plate) + (1 | sample)"
    whole = me.lmer(formula, data)
    stop = Stop(3)
    with pytest.raises(me.Interrupted, match="after iteration 2 of the fit") as caught:
        me.lmer(formula, data, progress=stop)
    partial = caught.value.partial
    assert partial.last is stop.heard[-1]
    heard = Stop(10**6)
    resumed = partial.resume(progress=heard)
    assert heard.heard[0].criterion == pytest.approx(stop.heard[-1].criterion, abs=1e-9)
    assert resumed.criterion == pytest.approx(whole.criterion, abs=1e-8)
    np.testing.assert_allclose(resumed.theta, whole.theta, rtol=1e-5)
    for again in (
        lambda p: whole.refit(whole.y[::-1].copy(), progress=p),
        lambda p: whole.update(reml=False, progress=p),
    ):
        with pytest.raises(me.Interrupted) as caught:
            again(Stop())
        expected = again(False)
        found = caught.value.partial.resume(progress=False)
        assert found.criterion == pytest.approx(expected.criterion, abs=1e-8)
        assert found.reml == expected.reml
    sleep = me.load_dataset("sleepstudy")
    structured = "Reaction ~ Days + cs(Days | Subject)"
    with pytest.raises(me.Interrupted) as caught:
        me.lmer(structured, sleep, progress=Stop())
    expected = me.lmer(structured, sleep)
    assert caught.value.partial.resume().criterion == pytest.approx(expected.criterion, abs=1e-6)


def test_the_exception_travels() -> None:
    stopped = me.Interrupted("Interrupted.", partial=[1, 2])
    again = pickle.loads(pickle.dumps(stopped))
    assert str(again) == "Interrupted."
    assert again.partial == [1, 2]
    assert isinstance(again, KeyboardInterrupt)
    assert not isinstance(again, Exception)


def signalled(code: str, wait: float) -> subprocess.CompletedProcess[str]:
    """Run Python, press Ctrl-C some time after it says that it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(wait)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def test_a_real_signal() -> None:
    """Bootstrap in threads, and a long search in the kernels."""
    done = signalled(
        """
        import numpy as np, pandas as pd, time
        import mixedeffects as me
        m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        print("ready", flush=True)
        try:
            m.bootstrap(10**6, seed=1, workers=2)
        except me.Interrupted as stopped:
            boot = stopped.partial
            n = len(boot.draws)
            print(0 < n < 10**6, boot.resume(n).confint().shape)
        """,
        0.5,
    )
    assert done.stdout == "True (6, 2)\n", done.stderr


@pytest.mark.slow
def test_a_signal_within_a_long_search_in_the_kernels() -> None:
    done = signalled(
        """
        import numpy as np, pandas as pd, time
        import mixedeffects as me
        rng = np.random.default_rng(1)
        k, levels = 14, 12_000
        n = 20 * levels
        g = np.repeat(np.arange(levels), 20)
        x = rng.normal(size=(n, k))
        y = (x * rng.normal(size=(levels, k))[g]).sum(axis=1) + rng.normal(size=n)
        data = pd.DataFrame(x, columns=[f"x{i}" for i in range(k)]).assign(y=y, g=g)
        names = " + ".join(f"x{i}" for i in range(k))
        print("ready", flush=True)
        try:
            me.lmer(f"y ~ 1 + (0 + {names} | g)", data)
        except KeyboardInterrupt as error:
            print(type(error).__name__)
        """,
        1.0,
    )
    assert done.stdout in ("Interrupted\n", "KeyboardInterrupt\n"), done.stderr


def test_the_command_line_is_interrupted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pressed(*arguments: Any, **options: Any) -> Any:
        raise me.Interrupted("", None)

    monkeypatch.setattr(me, "lmer", pressed)
    assert main(["fit", "sleepstudy", SLEEP]) == 130
    assert capsys.readouterr().err == "mixedeffects: interrupted\n"


# --- progress ---------------------------------------------------------------------------------


def test_a_line_has_count_rate_and_time_left() -> None:
    line = me.Repetitions("fold", 30, 90, 15.0)
    assert str(line) == "fold 30 of 90   15.0 s, 2 a second, about 30 s left"
    assert me.Repetitions("fold", 90, 90, 15.0).seconds_left == 0.0
    assert "left" not in str(me.Repetitions("fold", 90, 90, 15.0))
    slow = me.Repetitions("refit", 2, 1000, 300.0, detail="without 'a'")
    assert str(slow) == (
        "refit 2 of 1,000, without 'a'   5 min 00 s, 2 min 30 s for each, about 41 h 35 min left"
    )
    # What an earlier call did counts for the whole, not for the rate.
    resumed = me.Repetitions("refit", 60, 100, 10.0, before=50)
    assert (resumed.rate, resumed.seconds_left) == (1.0, 40.0)
    assert np.isnan(me.Repetitions("refit", 50, 100, 10.0, before=50).rate)
    assert str(me.Repetitions("refit", 0, 10, 0.0)) == "refit 0 of 10   0.0 s"


@pytest.mark.usefixtures("every_line")
@pytest.mark.parametrize("name", LONG)
def test_everything_long_tells_the_same(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = LONG[name]
    lines: list[Any] = []
    run(lines.append)
    assert all(isinstance(line, me.Repetitions) for line in lines)
    assert lines[-1].done == lines[-1].total
    assert [line.done for line in lines] == sorted({line.done for line in lines})
    run(None)
    run(False)
    run(np.False_)
    assert capsys.readouterr() == ("", "")
    run(True)
    heard = capsys.readouterr()
    assert heard.out == ""
    assert f"of {lines[-1].total:,}" in heard.err.splitlines()[-1]


def test_every_long_function_has_the_option() -> None:
    functions = [me.lmer, me.cross_validate, me.power, me.Bootstrap.resume, me.Unfinished.resume]
    names = ["refit", "update", "bootstrap", "profile", "influence", "check", "ranova"]
    names += ["caic", "confint", "report"]
    functions += [getattr(me.LinearMixedModel, name) for name in names]
    for function in functions:
        assert inspect.signature(function).parameters["progress"].default is None, function
    for run, _ in LONG.values():
        with pytest.raises(me.ModelError, match="progress must be True, False, None or a function"):
            run("yes")
    with pytest.raises(me.ModelError, match="progress must be True, False, None or a function"):
        me.lmer(SLEEP, me.load_dataset("sleepstudy"), progress=1)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Put in place within the test: what captures its output comes after the fixtures."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "_REFRESH", 0.0)
    return stream


def test_a_terminal_shows_one_line_after_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    shows = terminal(monkeypatch)
    m = fitted_model("dyestuff")
    m.influence("Batch", refit=True)
    assert shows.getvalue() == ""
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    m.influence("Batch", refit=True)
    shown = shows.getvalue()
    assert "\n" not in shown
    assert shown.count("\r") == 6 + 2
    assert "refit 6 of 6, without 'F'" in shown
    # Nothing stays.
    assert shown.endswith(" \r")
    shows.truncate(0)
    shows.seek(0)
    m.influence("Batch", refit=True, progress=True)
    assert shows.getvalue().endswith("\n")
    shows.truncate(0)
    shows.seek(0)
    m.influence("Batch", refit=True, progress=False)
    assert shows.getvalue() == ""


def test_a_fit_shows_its_iteration_there(monkeypatch: pytest.MonkeyPatch) -> None:
    shows = terminal(monkeypatch)
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    me.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", me.load_dataset("penicillin"))
    shown = shows.getvalue()
    assert "\riteration   1   criterion" in shown
    assert "\n" not in shown
    # One term goes down in the kernels, where nobody tells.
    shows.truncate(0)
    shows.seek(0)
    me.lmer(SLEEP, me.load_dataset("sleepstudy"))
    assert shows.getvalue() == ""
    me.lmer(SLEEP, me.load_dataset("sleepstudy"), progress=True)
    assert "criterion 1743.628" in shows.getvalue()


def test_the_line_is_left_when_it_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    shows = terminal(monkeypatch)
    from mixedeffects.diagnostics import deletion_refit

    refit_rows = deletion_refit.refit_rows

    def pressed(model: Any, rows: Any) -> Any:
        if 10 not in rows:
            raise KeyboardInterrupt
        return refit_rows(model, rows)

    monkeypatch.setattr(deletion_refit, "refit_rows", pressed)
    with pytest.raises(me.Interrupted, match="after refit 2 of 6"):
        fitted_model("dyestuff").influence("Batch", refit=True, progress=True)
    assert shows.getvalue().endswith("\n")


def test_a_terminal_that_has_gone_does_not_stop_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(Terminal):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stderr", Gone())
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    assert fitted_model("dyestuff").influence("Batch", refit=True).notes == {}
    monkeypatch.setattr(sys, "stderr", None)
    assert fitted_model("dyestuff").influence("Batch", refit=True).notes == {}


def test_a_notebook_shows_one_output(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, str]] = []

    class Handle:
        def update(self, content: Any, raw: bool) -> None:
            shown.append(("update", content["text/plain"]))

    def display(content: Any, raw: bool, display_id: bool) -> Handle:
        shown.append(("display", content["text/plain"]))
        return Handle()

    shell = types.SimpleNamespace(kernel=object())
    package = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=display))
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    monkeypatch.setattr(progress, "_REFRESH", 0.0)
    fitted_model("dyestuff").influence("Batch", refit=True)
    assert [how for how, _ in shown] == ["display", *["update"] * 6]
    assert shown[0][1].startswith("refit 1 of 6, without 'A'")
    assert shown[-1][1] == ""
    shown.clear()
    fitted_model("dyestuff").influence("Batch", refit=True, progress=True)
    assert shown[-1][1].startswith("refit 6 of 6")


def test_on_a_real_terminal() -> None:
    """Off in a script whose errors go to a file, one changing line where they go to a terminal."""
    code = """
    import mixedeffects as me
    import mixedeffects.progress as progress
    progress._PATIENCE = progress._REFRESH = 0.0
    m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
    m.influence("Batch", refit=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    leader, follower = pty.openpty()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=follower, stdin=follower)
    os.close(follower)
    heard = os.read(leader, 100_000).decode()
    os.close(leader)
    assert (done.returncode, done.stdout) == (0, b"")
    assert "refit 6 of 6" in heard
    assert "\n" not in heard


@pytest.mark.usefixtures("every_line")
def test_checks_tell_what_they_do() -> None:
    """Data sets drawn batch by batch, then each check; none drawn where nothing compares."""
    lines: list[Any] = []
    m = fitted_model("sleepstudy")
    m.check(draws=40, progress=lines.append)
    told = [line.detail for line in lines]
    assert told[:4] == [
        "16 data sets drawn",
        "32 data sets drawn",
        "40 data sets drawn",
        "normality",
    ]
    lines.clear()
    m.check(["levels", "grouping"], progress=lines.append)
    assert [line.detail for line in lines] == ["levels", "grouping"]


@pytest.mark.usefixtures("every_line")
def test_a_report_goes_on_with_the_next_section(tmp_path: Path) -> None:
    """It is there whole or not at all, and the same as without an interruption."""
    m = fitted_model("cake")
    place, whole = tmp_path / "cake.html", tmp_path / "whole.html"
    m.report(whole, progress=False)
    stop = Stop(6)
    with pytest.raises(me.Interrupted, match="after section 6 of 10") as caught:
        m.report(place, progress=stop)
    assert not list(tmp_path.glob("cake*"))
    assert [line.detail for line in stop.heard][3:] == ["Optimum", "Checks", "Effects"]
    assert caught.value.partial.resume() == place
    assert place.read_bytes() == whole.read_bytes()
