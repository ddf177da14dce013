"""What fitting again costs beside the fit, and bootstraps of crossed designs by workers."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from workloads import WORKLOADS

import mixedeffects as me


def median(work: Callable[[], Any], times: int = 5) -> tuple[float, float]:
    """Processor and wall time."""
    taken = []
    for _ in range(times):
        processor, wall = time.process_time(), time.perf_counter()
        work()
        taken.append((time.process_time() - processor, time.perf_counter() - wall))
    own, whole = np.median(taken, axis=0)
    return float(own), float(whole)


def fits() -> None:
    names = ("sleepstudy", "insteval", "maximal", "chem97")
    cases = {name: (WORKLOADS[name].formula, WORKLOADS[name].make()) for name in names}
    penicillin = me.load_dataset("penicillin")
    cases["penicillin"] = ("diameter ~ 1 + (1 | plate) + (1 | sample)", penicillin)
    print(f"{'processor time':14}{'fit':>8}{'refit':>8}{'update':>8}{'start=':>8}")
    for name, (formula, data) in cases.items():
        m = me.lmer(formula, data)
        noise = 1e-3 * m.sigma * np.random.default_rng(1).normal(size=m.nobs)
        works: list[Callable[[], Any]] = [
            lambda formula=formula, data=data: me.lmer(formula, data),
            lambda m=m, noise=noise: m.refit(np.asarray(m.y) + noise),
            m.update,
            lambda m=m, formula=formula, data=data: me.lmer(formula, data, start=m.theta),
        ]
        print(f"{name:14}" + "".join(f"{median(work)[0]:8.4f}" for work in works))


def bootstraps() -> None:
    rng = np.random.default_rng(3)
    g, h, x = rng.integers(0, 200, 4_000), rng.integers(0, 100, 4_000), rng.normal(size=4_000)
    y = rng.normal(size=200)[g] + 0.7 * rng.normal(size=100)[h] + x + rng.normal(size=4_000)
    cases = {
        "penicillin, 400": (
            me.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", me.load_dataset("penicillin")),
            400,
        ),
        "200 x 100, 64": (
            me.lmer("y ~ x + (1 | g) + (1 | h)", pd.DataFrame({"g": g, "h": h, "x": x, "y": y})),
            64,
        ),
    }
    for name, (m, n) in cases.items():
        for workers in (1, 2):
            own, whole = median(lambda m=m, n=n, w=workers: m.bootstrap(n, seed=1, workers=w))
            print(f"{name:16}{workers} workers: processor {own:.2f} s, wall {whole:.2f} s")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print("load", *os.getloadavg())
    fits()
    bootstraps()
