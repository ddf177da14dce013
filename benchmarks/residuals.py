"""Fits whose residuals have a covariance structure: python residuals.py CASE ROWS [PACKAGE LIMIT].

Prints one line of JSON. The package is this one, or nlme, glmmTMB or mmrm, whose side is
residuals.R; each fits the same rows in a process of its own, formula included, reading not.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import mixedeffects as me

HERE = Path(__file__).parent
RUNS = 3


@dataclass(frozen=True)
class Case:
    """A model of simulated rows, and the R packages that can express it."""

    title: str
    formula: str
    residual: str
    data: Callable[[int], pd.DataFrame]
    peers: tuple[str, ...]
    sizes: tuple[int, ...] = (10_000, 100_000, 1_000_000)


def autoregressive(series: int, length: int, seed: int, rho: float = 0.6) -> np.ndarray:
    """Stationary series of unit variance, one in each row."""
    e = np.random.default_rng(seed).standard_normal((series, length))
    for t in range(1, length):
        e[:, t] = rho * e[:, t - 1] + np.sqrt(1.0 - rho**2) * e[:, t]
    return e


def series_of_ten(n: int) -> pd.DataFrame:
    """Series of ten rows."""
    rng = np.random.default_rng(1)
    groups = n // 10
    x = rng.standard_normal(n)
    y = 1.0 + 0.5 * x + autoregressive(groups, 10, 2).ravel()
    t = np.tile(np.arange(10), groups)
    return pd.DataFrame({"y": y, "x": x, "t": t, "g": np.repeat(np.arange(groups), 10)})


def series_with_slopes(n: int) -> pd.DataFrame:
    """The same with an intercept and a slope of each series."""
    data = series_of_ten(n)
    b = np.random.default_rng(3).standard_normal((n // 10, 2)) * [1.0, 0.3]
    g, t = data["g"].to_numpy(), data["t"].to_numpy()
    return data.assign(y=data["y"] + b[g, 0] + b[g, 1] * t)


def trial(n: int) -> pd.DataFrame:
    """Ten visits of two arms; one in twenty leaves after each visit."""
    data = series_of_ten(n)
    rng = np.random.default_rng(4)
    groups = n // 10
    g, t = data["g"].to_numpy(), data["t"].to_numpy()
    base = rng.standard_normal(groups)[g]
    second = g % 2 == 1
    data["y"] = 1.0 + 0.05 * second * t + base + data["y"] * (1.0 + 0.1 * t)
    data["base"], data["arm"] = base, np.where(second, "B", "A")
    data["visit"] = pd.Categorical.from_codes(t, [f"V{i:02d}" for i in range(10)], ordered=False)
    return data[t <= rng.geometric(0.05, groups)[g]].reset_index(drop=True)


def subjects_and_items(n: int) -> pd.DataFrame:
    """Subjects who answer 200 of 500 items one after the other."""
    rng = np.random.default_rng(5)
    subjects = n // 200
    g, t = np.repeat(np.arange(subjects), 200), np.tile(np.arange(200), subjects)
    item = np.argsort(rng.random((subjects, 500)), axis=1)[:, :200].ravel()
    x = rng.standard_normal(n)
    y = 0.3 * x + rng.standard_normal(subjects)[g] + rng.standard_normal(500)[item]
    y += autoregressive(subjects, 200, 6).ravel()
    return pd.DataFrame({"y": y, "x": x, "t": t, "g": g, "item": item})


CASES = {
    "gls": Case("no random effects, ar1", "y ~ x", "ar1(t | g)", series_of_ten, ("nlme", "mmrm")),
    "slopes": Case(
        "random slopes and ar1",
        "y ~ x + t + (t | g)",
        "ar1(t | g)",
        series_with_slopes,
        ("nlme", "glmmTMB"),
    ),
    "visits": Case(
        "us over ten visits, dropout",
        "y ~ base + arm * visit",
        "us(visit | g)",
        trial,
        ("nlme", "glmmTMB", "mmrm"),
    ),
    "crossed": Case(
        "subjects crossed with items, ar1",
        "y ~ x + (1 | g) + (1 | item)",
        "ar1(t | g)",
        subjects_and_items,
        ("glmmTMB",),
    ),
}


def ours(case: Case, n: int) -> dict[str, Any]:
    """Median of a few fits after a warm one."""
    data = case.data(n)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(RUNS + 1):
        began = time.perf_counter()
        m = me.lmer(case.formula, data, residual=case.residual)
        times.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "rows": len(data),
        "seconds": float(np.median(times[1:])),
        "criterion": m.criterion,
        "evaluations": m.optimum.evaluations,
        "megabytes": (peak - before) / 1024.0,
        "process_megabytes": peak / 1024.0,
    }


def theirs(name: str, n: int, package: str, limit: float) -> dict[str, Any]:
    """R's seconds and criterion, or why there are none."""
    data = CASES[name].data(n)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        data.to_csv(path, index=False)
        command = ["Rscript", str(HERE / "residuals.R"), package, name, str(path)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=limit, check=False
            )
        except subprocess.TimeoutExpired:
            return {"rows": len(data), "failed": f"more than {limit:.0f} s"}
    for line in done.stdout.splitlines():
        if line.startswith("ANSWER "):
            _, seconds, criterion = line.split()
            return {"rows": len(data), "seconds": float(seconds), "criterion": float(criterion)}
    last = (done.stderr.strip().splitlines() or ["no output"])[-1]
    why = "killed for memory" if done.returncode < 0 else last.strip()[:60]
    return {"rows": len(data), "failed": why}


def has_package(package: str) -> bool:
    """Whether R has it."""
    if shutil.which("Rscript") is None:
        return False
    command = ["Rscript", "-e", f"packageVersion('{package}')"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def main() -> None:
    name, rows = sys.argv[1], int(sys.argv[2])
    package = sys.argv[3] if len(sys.argv) > 3 else "mixedeffects"
    if package == "mixedeffects":
        answer = ours(CASES[name], rows)
    else:
        answer = theirs(name, rows, package, float(sys.argv[4]))
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
