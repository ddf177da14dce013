"""Threads: fits beside each other, processes forked beside them, and systems that give no more."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from mixedeffects.base.caching import cached_property
from mixedeffects.engine import threads
from mixedeffects.engine.threads import one_blas_thread


def run(code: str, timeout: float = 120.0, **environment: str) -> str:
    """What a fresh Python prints; its return code must be zero."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", **environment},
        check=False,
    )
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return done.stdout


# --- BLAS ----------------------------------------------------------------------------------------


class Library:
    """A library with a number of threads, as threadpoolctl controls it."""

    def __init__(self) -> None:
        self.threads = 4

    def limit(self, limits: int, user_api: str) -> Library:
        assert user_api == "blas"
        self.before, self.threads = self.threads, limits
        return self

    def restore_original_limits(self) -> None:
        self.threads = self.before


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    one = Library()
    monkeypatch.setattr(threads, "_controller", lambda: one)
    return one


def test_the_last_to_leave_gives_the_threads_back(library: Library) -> None:
    """Whatever the order in which two threads enter and leave."""
    first, second = one_blas_thread(), one_blas_thread()
    first.__enter__()
    second.__enter__()
    assert library.threads == 1
    first.__exit__(None, None, None)
    assert library.threads == 1
    second.__exit__(None, None, None)
    assert library.threads == 4
    with pytest.raises(ZeroDivisionError), one_blas_thread(), one_blas_thread():
        _ = 1 / 0
    assert library.threads == 4
    with one_blas_thread(size=3):
        assert library.threads == 4


@pytest.mark.parametrize("inside", [False, True])
def test_a_forked_process_does_not_keep_the_limit_of_other_threads(
    library: Library, inside: bool
) -> None:
    """Only the thread that forked goes on in the child; what others held is given back there."""
    limit = threads._SharedLimit()
    worker = threading.Thread(target=limit.acquire)
    worker.start()
    worker.join(20)
    if inside:
        limit.acquire()
    assert library.threads == 1
    limit.before_fork()
    limit.after_fork_in_child()
    assert library.threads == (1 if inside else 4)
    if inside:
        limit.release()
    assert library.threads == 4
    with threads.one_blas_thread():
        assert library.threads == 1


def test_fits_that_overlap_leave_the_threads_as_they_were() -> None:
    out = run(
        """
        import threading, time
        from threadpoolctl import threadpool_info
        import mixedeffects as me

        def blas():
            return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]

        data = me.load_dataset("penicillin")
        formula = "diameter ~ 1 + (1 | plate) + (1 | sample)"
        second_is_in, first_is_done = threading.Event(), threading.Event()

        def first():
            me.lmer(formula, data, progress=lambda line: second_is_in.wait(20))
            first_is_done.set()

        def second():
            def wait(line):
                second_is_in.set()
                first_is_done.wait(20)
            me.lmer(formula, data, progress=wait)

        before = blas()
        workers = [threading.Thread(target=each) for each in (first, second)]
        for worker in workers:
            worker.start()
            time.sleep(0.3)
        for worker in workers:
            worker.join(60)
        print(first_is_done.is_set(), blas() == before, max(before))
        """,
        OPENBLAS_NUM_THREADS="2",
    )
    assert out.startswith("True True")


# --- fork ----------------------------------------------------------------------------------------


def test_fixed_effects_of_many_columns_start_no_threads_of_blas(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their crossproducts are made at every step of the search of a generalized model."""
    import numpy as np
    import pandas as pd

    import mixedeffects as me
    from mixedeffects.engine.generalized.design import GeneralizedDesign
    from mixedeffects.fitting.generalized import fitting

    held: dict[str, list[int]] = {"separation": [], "products": []}
    separating, products = fitting.separating_direction, GeneralizedDesign.working_products

    def separation(*arguments):
        held["separation"].append(threads._limit._held)
        return separating(*arguments)

    def working(*arguments, **options):
        held["products"].append(threads._limit._held)
        return products(*arguments, **options)

    monkeypatch.setattr(fitting, "separating_direction", separation)
    monkeypatch.setattr(GeneralizedDesign, "working_products", working)
    rng = np.random.default_rng(2)
    data = pd.DataFrame(rng.normal(size=(400, 20)), columns=[f"x{i}" for i in range(20)])
    data["g"], data["y"] = np.arange(400) % 20, rng.poisson(2.0, 400)
    m = me.glmer("y ~ " + " + ".join(data.columns[:20]) + " + (1 | g)", data, family="poisson")
    assert np.isfinite(m.se).all()
    assert held["separation"] and held["products"]
    assert min(held["separation"] + held["products"]) > 0
    assert threads._limit._held == 0


def test_a_property_is_computed_once_and_nobody_waits_for_another_thread() -> None:
    calls: list[str] = []

    class Slow:
        @cached_property
        def value(self) -> int:
            """Its documentation."""
            calls.append("")
            inside.set()
            go_on.wait(20)
            return 20

    inside, go_on = threading.Event(), threading.Event()
    one, other = Slow(), Slow()
    worker = threading.Thread(target=lambda: one.value)
    worker.start()
    inside.wait(20)
    # Of another object of the class, while the first is still being computed.
    late = threading.Thread(target=lambda: other.value)
    late.start()
    for _ in range(200):
        if len(calls) == 2:
            break
        time.sleep(0.01)
    assert len(calls) == 2
    go_on.set()
    worker.join(20)
    late.join(20)
    assert one.value == other.value == 20
    assert len(calls) == 2
    assert Slow.value.__doc__ == "Its documentation."


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_processes_forked_during_another_threads_fit_can_fit() -> None:
    """Each child is forked while a property of the fit beside it is being computed."""
    out = run(
        """
        import os, signal, threading, time
        import mixedeffects as me
        from mixedeffects.engine.objective import Evaluation

        data = me.load_dataset("sleepstudy")
        formula = "Reaction ~ Days + (Days | Subject)"
        right = me.lmer(formula, data).criterion
        inside, go_on = threading.Event(), threading.Event()
        known = Evaluation.__dict__["information"]
        own = known.func

        def slow(evaluation):
            if threading.current_thread() is not threading.main_thread():
                inside.set()
                go_on.wait(60)
            return own(evaluation)

        known.func = slow
        # Another start so that the search is not the kernels' alone.
        fit = lambda: me.lmer(formula, data, progress=lambda line: None).criterion
        worker = threading.Thread(target=fit)
        worker.start()
        assert inside.wait(60)
        pid = os.fork()
        if pid == 0:
            os._exit(0 if abs(fit() - right) < 1e-6 else 3)
        for _ in range(600):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                print("child ended with", os.waitstatus_to_exitcode(status))
                break
            time.sleep(0.1)
        else:
            os.kill(pid, signal.SIGKILL)
            print("child hung")
        go_on.set()
        worker.join(60)
        """
    )
    assert out.strip() == "child ended with 0"


# --- no more threads -----------------------------------------------------------------------------

#: A fit, and the same again with room for the data but not for the stacks of other threads.
_FITS = """
import resource
import numpy as np, pandas as pd, mixedeffects as me
rng = np.random.default_rng(0)
g, h = rng.integers(0, 20_000, 100_000), rng.integers(0, 150, 100_000)
d = pd.DataFrame({{"x": rng.normal(size=100_000), "g": g, "h": h}})
d["y"] = d.x + rng.normal(size=20_000)[g] + rng.normal(size=100_000)
print(round(me.lmer("{formula}", d).criterion, 4))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {room} * 2**20,) * 2)
try:
    print(round(me.lmer("{formula}", d).criterion, 4))
except (MemoryError, me.MixedEffectsError) as error:
    print(type(error).__name__)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space as on Linux")
@pytest.mark.parametrize(
    ("formula", "room"), [("y ~ x + (x | g)", 900), ("y ~ x + (1 | g) + (1 | h)", 400)]
)
def test_fits_where_the_system_gives_no_more_threads(formula: str, room: int) -> None:
    import resource

    def large_stacks() -> None:
        resource.setrlimit(resource.RLIMIT_STACK, (512 * 2**20, resource.RLIM_INFINITY))

    done = subprocess.run(
        [sys.executable, "-c", _FITS.format(room=room, formula=formula)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "MIXEDEFFECTS_NUM_THREADS": "4"},
        preexec_fn=large_stacks,
        check=False,
    )
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    before, after = done.stdout.split()
    assert after in (before, "MemoryError")
