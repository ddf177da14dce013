"""Generalized models: python generalized.py CASE [PACKAGE LIMIT].

Prints one line of JSON. The package is this one, mixedlm or gpboost, or lme4 or glmmTMB, whose side
is generalized.R; each fits the same rows in a process of its own, formula included,
reading not. Seconds are of the processor, in one thread.
"""

from __future__ import annotations

import importlib.util
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
R_PEERS = ("lme4", "glmmTMB")
PYTHON_PEERS = ("mixedlm", "gpboost")


@dataclass(frozen=True)
class Case:
    """A model, its rows, and the packages that are given it."""

    title: str
    formula: str
    data: Callable[[], pd.DataFrame]
    factors: tuple[str, ...]
    family: str = "binomial"
    weights: str | None = None
    peers: tuple[str, ...] = (*R_PEERS, "mixedlm")


def of_file(name: str) -> Callable[[], pd.DataFrame]:
    """A data set of this package or of its tests."""

    def load() -> pd.DataFrame:
        try:
            return me.load_dataset(name)
        except me.DataError:
            return pd.read_csv(HERE.parent / "tests" / "reference" / "glmm" / f"{name}.csv.gz")

    return load


def crossed(n: int, first: int, second: int) -> Callable[[], pd.DataFrame]:
    """Answers of one group of levels to another."""

    def make() -> pd.DataFrame:
        rng = np.random.default_rng(1)
        g, item = rng.integers(0, first, n), rng.integers(0, second, n)
        x, w = rng.standard_normal((2, n))
        eta = -0.5 + 0.5 * x - 0.2 * w
        eta += 0.8 * rng.standard_normal(first)[g] + 0.5 * rng.standard_normal(second)[item]
        y = (rng.random(n) < 1.0 / (1.0 + np.exp(-eta))).astype(int)
        return pd.DataFrame({"y": y, "x": x, "w": w, "g": g, "item": item})

    return make


def slopes(family: str) -> Callable[[], pd.DataFrame]:
    """5,000 groups of about twenty rows, each with a slope of its own."""

    def make() -> pd.DataFrame:
        n, groups = 100_000, 5_000
        rng = np.random.default_rng(2)
        g, x = rng.integers(0, groups, n), rng.standard_normal(n)
        b = rng.standard_normal((groups, 2)) @ [[0.8, 0.2], [0.0, 0.4]]
        eta = -0.5 + 0.5 * x + b[g, 0] + b[g, 1] * x
        if family == "poisson":
            y = rng.poisson(np.exp(eta))
        else:
            y = (rng.random(n) < 1.0 / (1.0 + np.exp(-eta))).astype(int)
        return pd.DataFrame({"y": y, "x": x, "g": g})

    return make


CONTRACEPTION = "use ~ age + I(age^2) + urban + livch + (1 | district)"
GUIMMUN = (
    "immun ~ kid2p + mom25p + ord + ethn + momEd + husEd + momWork + rural + pcInd81"
    " + (1 | mom) + (1 | comm)"
)
TICKS = "TICKS ~ YEAR + cHEIGHT + (1 | INDEX) + (1 | BROOD) + (1 | LOCATION)"
VERBAGG = "r2 ~ (Anger + Gender + btype + situ)^2 + (1 | id) + (1 | item)"
CROSSED = "y ~ x + w + (1 | g) + (1 | item)"

CASES = {
    "cbpp": Case(
        "cbpp",
        "incidence / size ~ period + (1 | herd)",
        of_file("cbpp"),
        ("herd", "period"),
        weights="size",
    ),
    "contraception": Case(
        "contraception", CONTRACEPTION, of_file("contraception"), ("district", "urban", "livch")
    ),
    "verbagg": Case(
        "verbagg, crossed",
        VERBAGG,
        of_file("verbagg"),
        ("id", "item", "Gender", "btype", "situ"),
    ),
    "guimmun": Case(
        "guimmun, three levels",
        GUIMMUN,
        of_file("guimmun"),
        ("mom", "comm", "kid2p", "mom25p", "ord", "ethn", "momEd", "husEd", "momWork", "rural"),
    ),
    "grouseticks": Case(
        "grouseticks, counts with row effects",
        TICKS,
        of_file("grouseticks"),
        ("INDEX", "BROOD", "LOCATION", "YEAR"),
        "poisson",
    ),
    "slopes": Case("random slopes", "y ~ x + (x | g)", slopes("binomial"), ("g",)),
    "counts": Case(
        "counts, random slopes", "y ~ x + (x | g)", slopes("poisson"), ("g",), "poisson"
    ),
    "crossed": Case(
        "crossed, 5,000 and 500",
        CROSSED,
        crossed(100_000, 5_000, 500),
        ("g", "item"),
        peers=(*R_PEERS, "mixedlm", "gpboost"),
    ),
    "schools": Case(
        "crossed, 35,000 and 26",
        CROSSED,
        crossed(910_000, 35_000, 26),
        ("g", "item"),
        peers=("glmmTMB",),
    ),
    "million": Case(
        "crossed, 100,000 and 2,000",
        CROSSED,
        crossed(1_000_000, 100_000, 2_000),
        ("g", "item"),
        peers=(),
    ),
}


def ours(case: Case) -> dict[str, Any]:
    """Median of a few fits after a warm one, and the standard errors on top."""
    data = case.data()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times, errors = [], []
    for _ in range(RUNS + 1):
        began = time.process_time()
        m = me.glmer(case.formula, data, family=case.family, weights=case.weights)
        fitted = time.process_time()
        _ = m.optimum.beta_covariance
        times.append(fitted - began)
        errors.append(time.process_time() - fitted)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "rows": len(data),
        "seconds": float(np.median(times[1:])),
        "errors": float(np.median(errors[1:])),
        "criterion": m.criterion,
        "evaluations": m.optimum.evaluations,
        "megabytes": (peak - before) / 1024.0,
    }


def in_python(case: Case, package: str) -> dict[str, Any]:
    """One fit of a package for Python."""
    data = case.data()
    began = time.process_time()
    if package == "mixedlm":
        import mixedlm

        own = (
            mixedlm.families.Poisson() if case.family == "poisson" else mixedlm.families.Binomial()
        )
        fit = mixedlm.glmer(case.formula, data, family=own, weights=case.weights)
        value = -2.0 * float(fit.logLik())
    else:
        import gpboost

        X = np.column_stack([np.ones(len(data)), data[["x", "w"]]])
        groups = data[list(case.factors)].to_numpy()
        model = gpboost.GPModel(group_data=groups, likelihood="bernoulli_logit")
        model.fit(y=data["y"].to_numpy(float), X=X)
        value = 2.0 * float(model.get_current_neg_log_likelihood())
    seconds = time.process_time() - began
    return {"rows": len(data), "seconds": seconds, "criterion": value}


def in_R(case: Case, package: str, limit: float) -> dict[str, Any]:
    """R's seconds and criterion, or why there are none."""
    data = case.data()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        data.to_csv(path, index=False)
        formula, weights = case.formula, case.weights or ""
        given = [package, str(path), formula, case.family, weights, ",".join(case.factors)]
        command = ["Rscript", str(HERE / "generalized.R"), *given]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=limit, check=False
            )
        except subprocess.TimeoutExpired:
            return {"rows": len(data), "failed": f"more than {limit:.0f} s"}
    for line in done.stdout.splitlines():
        if line.startswith("ANSWER "):
            _, seconds, value = line.split()
            return {"rows": len(data), "seconds": float(seconds), "criterion": float(value)}
    last = (done.stderr.strip().splitlines() or ["no output"])[-1]
    why = "killed for memory" if done.returncode < 0 else last.strip()[:60]
    return {"rows": len(data), "failed": why}


def has_package(package: str) -> bool:
    """Whether it is installed, in Python or in R."""
    if package in PYTHON_PEERS:
        return importlib.util.find_spec(package) is not None
    if shutil.which("Rscript") is None:
        return False
    command = ["Rscript", "-e", f"packageVersion('{package}')"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def main() -> None:
    name = sys.argv[1]
    package = sys.argv[2] if len(sys.argv) > 2 else "mixedeffects"
    case = CASES[name]
    if package == "mixedeffects":
        answer = ours(case)
    elif package in R_PEERS:
        answer = in_R(case, package, float(sys.argv[3]))
    else:
        answer = in_python(case, package)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
