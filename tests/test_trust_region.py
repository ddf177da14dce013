"""The trust region on objectives and models written here, by its door for Python."""

from __future__ import annotations

import gc
import itertools
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from mixedeffects.engine.trust_region import (
    Iterate,
    minimise,
    minimise_model,
    secant_update,
    symmetric_rank_one_update,
    trust_region_step,
)

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


def rosenbrock(x: Vector) -> tuple[float, Vector, Matrix]:
    """Value, gradient and Hessian; the minimum is zero, at (1, 1)."""
    a, b = x
    return (
        float(100.0 * (b - a**2) ** 2 + (1.0 - a) ** 2),
        np.array([-400.0 * a * (b - a**2) - 2.0 * (1.0 - a), 200.0 * (b - a**2)]),
        np.array([[1200.0 * a**2 - 400.0 * b + 2.0, -400.0 * a], [-400.0 * a, 200.0]]),
    )


@dataclass(frozen=True, eq=False)
class Quadratic:
    """A model by a gradient and a Hessian."""

    gradient: Vector
    hessian: Matrix

    def at(self, step: Vector, correction: Matrix) -> tuple[float, Vector, Matrix]:
        H = self.hessian + correction
        return float(self.gradient @ step + 0.5 * step @ H @ step), self.gradient + H @ step, H

    def minimise(self, correction: Matrix, radius: float) -> tuple[Vector, float]:
        return minimise_model(lambda step: self.at(step, correction), len(self.gradient), radius)


class Valley:
    """Rosenbrock's function at one point; the model's Hessian can be off by a factor."""

    def __init__(self, x: Vector, off: float = 1.0) -> None:
        self.x = x
        self.value, self.gradient, hessian = rosenbrock(x)
        self._hessian = off * hessian

    def model(self) -> Quadratic:
        return Quadratic(self.gradient, self._hessian)


START = np.array([-1.2, 1.0])


def down_the_valley(
    evaluate: Callable[[Vector], Valley | None] = Valley,
    report: Callable[[Iterate[Valley]], None] | None = None,
    most: int = 100,
    natural: bool = False,
    start: Vector = START,
) -> Iterate[Valley]:
    return minimise(
        evaluate,
        start,
        tolerance=1e-12,
        max_evaluations=most,
        radius=1.0,
        report=report,
        natural=natural,
    )


@pytest.mark.parametrize("natural", [False, True])
@pytest.mark.parametrize("off", [1.0, 1.5])
def test_a_curved_valley(natural: bool, off: float) -> None:
    """With a model that is right, and with one whose curvature has to be learnt."""
    seen: list[Iterate[Valley]] = []
    end = down_the_valley(lambda x: Valley(x, off), seen.append, natural=natural)
    assert end.stopped == "converged"
    assert_allclose(end.x, [1.0, 1.0], atol=1e-5)
    assert end.point.value < 1e-11
    assert end.predicted < 1e-12
    assert end.iterations < end.evaluations < 100
    assert (end.point.x == end.x).all()
    # Nothing goes up, everything is told, and only the end has stopped.
    assert seen[0].point.x is START
    assert (np.diff([each.point.value for each in seen]) <= 0.0).all()
    assert [each.iterations for each in seen][-1] == end.iterations
    assert {each.stopped for each in seen} == {""}
    assert seen[-1].point is end.point


def test_evaluations_are_limited() -> None:
    calls: list[Vector] = []

    def evaluate(x: Vector) -> Valley:
        calls.append(x)
        return Valley(x)

    end = down_the_valley(evaluate, most=5)
    assert (end.stopped, end.evaluations, len(calls)) == ("evaluations", 5, 5)
    assert end.predicted > 0.0
    # One that ends as the last is used up has ended by itself.
    whole = down_the_valley()
    assert down_the_valley(most=whole.evaluations).stopped == "converged"


def test_steps_to_where_there_is_no_point_are_shortened() -> None:
    refused: list[Vector] = []

    def evaluate(x: Vector) -> Valley | None:
        if x[0] > -0.5 and len(refused) < 3:
            refused.append(x)
            return None
        return Valley(x)

    radii: list[float] = []
    end = down_the_valley(evaluate, lambda each: radii.append(each.radius))
    assert len(refused) == 3
    assert end.stopped == "converged"
    assert_allclose(end.x, [1.0, 1.0], atol=1e-5)
    assert min(radii) < 0.25

    wall = down_the_valley(lambda x: None if x is not START else Valley(x))
    assert wall.x.tolist() == START.tolist()
    assert (wall.iterations, wall.stopped) == (0, "step")


def test_a_start_where_there_is_no_point() -> None:
    with pytest.raises(ArithmeticError, match="starting value"):
        down_the_valley(lambda x: None)


def test_values_that_are_no_numbers_are_not_stepped_to() -> None:
    def evaluate(x: Vector) -> Valley:
        point = Valley(x)
        if -0.9 < x[0] < -0.5:
            point.value = np.nan
        return point

    end = down_the_valley(evaluate)
    assert end.evaluations < 100
    assert end.x[0] <= -0.9 or end.stopped == "converged"


class StopError(Exception):
    pass


@pytest.mark.parametrize("error", [StopError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["evaluate", "report", "gradient", "model", "at", "minimise"])
def test_what_is_raised_within_passes_through(where: str, error: type[BaseException]) -> None:
    raised = error("now")
    calls = 0

    def sometimes(name: str) -> None:
        nonlocal calls
        calls += name == where
        if name == where and calls == 3:
            raise raised

    class Model(Quadratic):
        def at(self, step: Vector, correction: Matrix) -> tuple[float, Vector, Matrix]:
            sometimes("at")
            return super().at(step, correction)

        def minimise(self, correction: Matrix, radius: float) -> tuple[Vector, float]:
            sometimes("minimise")
            return super().minimise(correction, radius)

    class Point:
        def __init__(self, x: Vector) -> None:
            sometimes("evaluate")
            self.value, self._gradient, self._hessian = rosenbrock(x)

        @property
        def gradient(self) -> Vector:
            sometimes("gradient")
            return self._gradient

        def model(self) -> Quadratic:
            sometimes("model")
            return Model(self._gradient, self._hessian)

    with pytest.raises(error) as caught:
        minimise(
            Point,
            START,
            tolerance=1e-12,
            max_evaluations=100,
            radius=1.0,
            report=lambda each: sometimes("report"),
        )
    assert caught.value is raised
    assert caught.traceback[-1].name == "sometimes"


class Nested:
    """Searches within the models of searches, which raise at one call of one kind and depth."""

    def __init__(self, name: str, level: int, call: int, error: BaseException | None) -> None:
        self._where, self._call, self._error, self._calls = (name, level), call, error, 0

    def said(self, name: str, level: int, answer: Any, wrong: Any) -> Any:
        """The answer; at that call the error, or what cannot be one."""
        self._calls += (name, level) == self._where
        if (name, level) != self._where or self._calls != self._call:
            return answer
        if self._error is not None:
            raise self._error
        return wrong

    def search(self, level: int = 0) -> None:
        nested = self

        class Model(Quadratic):
            def at(self, step: Vector, correction: Matrix) -> tuple[float, Vector, Matrix]:
                answer = super().at(step, correction)
                wrong = (0.0, np.zeros(5), "no matrix")
                return cast(tuple[float, Vector, Matrix], nested.said("at", level, answer, wrong))

            def minimise(self, correction: Matrix, radius: float) -> tuple[Vector, float]:
                if level < 2:
                    nested.search(level + 1)
                answer = super().minimise(correction, radius)
                return cast(tuple[Vector, float], nested.said("minimise", level, answer, "none"))

        class Point:
            def __init__(self, x: Vector) -> None:
                value, self._gradient, self._hessian = rosenbrock(x)
                self.value = nested.said("evaluate", level, value, "no number")

            @property
            def gradient(self) -> Vector:
                answer = nested.said("gradient", level, self._gradient, np.zeros(7))
                return cast(Vector, answer)

            def model(self) -> Model:
                answer = nested.said("model", level, Model(self._gradient, self._hessian), None)
                return cast(Model, answer)

        minimise(
            Point,
            START,
            tolerance=1e-10,
            max_evaluations=8 if level == 0 else 3,
            radius=1.0,
            natural=level == 1,
            report=lambda each: nested.said("report", level, None, None),
        )


CALLS = ("at", "minimise", "evaluate", "gradient", "model", "report")


def _raise_everywhere(calls: tuple[int, ...]) -> None:
    for name, level, call in itertools.product(CALLS, range(3), calls):
        for error in (StopError("now"), KeyboardInterrupt("now"), SystemExit("now")):
            with pytest.raises(type(error)) as caught:
                Nested(name, level, call, error).search()
            assert caught.value is error
        if name != "report":
            with pytest.raises((TypeError, ValueError, RuntimeError, AttributeError)):
                Nested(name, level, call, None).search()


def test_what_is_raised_in_searches_within_searches_passes_through_all() -> None:
    _raise_everywhere((1, 2, 3, 5))


def test_searches_within_searches_raise_in_several_threads() -> None:
    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(_raise_everywhere, (1, 3)) for _ in range(3)]:
            done.result()


INTERRUPTED = """
import faulthandler, signal, threading, time
faulthandler.enable()
import numpy as np
import pandas as pd
import mixedeffects as me

rng = np.random.default_rng(1)
n = 4000
g, item = rng.integers(0, 300, n), rng.integers(0, 40, n)
x = rng.normal(size=n)
eta = 0.5 * x + rng.normal(size=300)[g] + 0.5 * rng.normal(size=40)[item]
data = pd.DataFrame({"y": rng.random(n) < 1 / (1 + np.exp(-eta)), "x": x, "g": g, "item": item})
data["v"] = eta + rng.normal(size=n)


def generalized():
    return me.glmer("y ~ x + (1 | g) + (1 | item)", data, family="binomial")


def linear():
    return me.lmer("v ~ x + (x | g) + (1 | item)", data)


done, count = [], 0
for fit in (generalized, linear):
    began = time.perf_counter()
    whole = fit()
    seconds = time.perf_counter() - began
    for share in np.linspace(0.02, 0.98, 25):
        try:
            signal.setitimer(signal.ITIMER_REAL, max(share * seconds, 1e-4))
            fit()
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            count += 1
    assert abs(fit().loglik - whole.loglik) < 1e-9
print(count)
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="signals by a clock")
def test_fits_interrupted_at_any_time() -> None:
    """Ctrl-C comes through whatever it falls into, and the next fit is what it was."""
    rule = "import signal\n"
    rule += "signal.signal(signal.SIGALRM, signal.default_int_handler)\n"
    done = subprocess.run(
        [sys.executable, "-c", rule + INTERRUPTED], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10


def test_points_are_let_go() -> None:
    alive: list[weakref.ref[Valley]] = []

    def evaluate(x: Vector) -> Valley:
        point = Valley(x)
        alive.append(weakref.ref(point))
        if len(alive) > 6:
            raise StopError
        return point

    with pytest.raises(StopError):
        down_the_valley(evaluate)
    gc.collect()
    assert [each for each in alive if each() is not None] == []


@pytest.mark.parametrize(
    "said",
    [(0.0, np.zeros(3), np.eye(2)), (0.0, np.zeros(2), np.eye(3)), (0.0, np.zeros(2), np.zeros(2))],
)
def test_a_model_of_another_size_is_refused(said: tuple[float, Vector, Matrix]) -> None:
    with pytest.raises(ValueError, match="for every parameter"):
        minimise_model(lambda step: said, 2, 1.0)


def test_a_model_need_not_be_contiguous_or_floating() -> None:
    gradient, hessian = np.arange(8)[::4], np.array([[2, 1], [1, 3]])[::-1, ::-1]

    def at(step: Vector) -> tuple[float, Matrix, Matrix]:
        return gradient @ step + 0.5 * step @ hessian @ step, gradient + hessian @ step, hessian

    step, predicted = minimise_model(at, 2, 10.0)
    assert_allclose(step, -np.linalg.solve(hessian, gradient))
    assert predicted == pytest.approx(-at(step)[0])


# --- one step ------------------------------------------------------------------------------------


def test_a_model_that_is_no_number_far_away() -> None:
    """exp(x) - 2x, which overflows on the way of the first step."""

    def at(step: Vector) -> tuple[float, Vector, Matrix]:
        if step[0] > 1.0:
            return np.nan, np.array([np.nan]), np.array([[np.nan]])
        size = np.exp(step[0])
        return float(size - 1.0 - 2.0 * step[0]), np.array([size - 2.0]), np.array([[0.01 * size]])

    step, predicted = minimise_model(at, 1, 50.0)
    assert 0.0 < step[0] <= 1.0
    assert predicted == pytest.approx(-at(step)[0])


@pytest.mark.parametrize("gradient", [np.nan, 1.0])
def test_a_model_that_is_no_number_anywhere(gradient: float) -> None:
    calls = 0

    def at(step: Vector) -> tuple[float, Vector, Matrix]:
        nonlocal calls
        calls += 1
        return np.nan, np.full(2, gradient), gradient * np.eye(2)

    step, predicted = minimise_model(at, 2, 1.0)
    assert step.tolist() == [0.0, 0.0]
    assert np.isnan(predicted)
    assert calls < 32

    class Nothing:
        value, gradient = 0.0, np.zeros(2)

        def model(self) -> Nothing:
            return self

        def at(self, step: Vector, correction: Matrix) -> tuple[float, Vector, Matrix]:
            return at(step)

        def minimise(self, correction: Matrix, radius: float) -> tuple[Vector, float]:
            return minimise_model(at, 2, radius)

    end = minimise(lambda x: Nothing(), np.ones(2), tolerance=1e-9, max_evaluations=50, radius=1.0)
    assert (end.stopped, end.evaluations) == ("step", 1)


@pytest.mark.parametrize("radius", [1e-6, 0.3, 2.0])
def test_a_step_on_the_boundary_has_its_length(radius: float) -> None:
    rng = np.random.default_rng(3)
    for size in (1, 2, 5, 12):
        half = rng.normal(size=(size, size))
        step = trust_region_step(100.0 * rng.normal(size=size), half + half.T, radius)
        assert np.linalg.norm(step) == pytest.approx(radius, rel=2e-9)


def test_nothing_to_move() -> None:
    step, predicted = minimise_model(lambda step: (0.0, np.zeros(0), np.zeros((0, 0))), 0, 1.0)
    assert (step.shape, predicted) == ((0,), 0.0)


def test_rank_one_fits_the_step_or_leaves_the_correction_alone() -> None:
    start, step = np.diag([1.0, 2.0]), np.array([1.0, 0.0])
    updated = symmetric_rank_one_update(start, np.array([2.0, 1.0]), step)
    assert_allclose((updated - start) @ step, [2.0, 1.0])
    assert np.linalg.matrix_rank(updated - start) == 1
    assert_allclose(symmetric_rank_one_update(start, np.array([0.0, 1.0]), step), start)
    assert_allclose(secant_update(start, np.zeros(2), step), start)
