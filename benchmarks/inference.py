"""Seconds and memory of inference after the fit: python inference.py CASE [package].

Prints one line of JSON. The package is this one, or `R`, whose side is inference.R.
"""

from __future__ import annotations

import json
import resource
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


@dataclass(frozen=True)
class Case:
    """A fit, what is asked of it, and the R package that answers the same question."""

    title: str
    formula: str
    data: Callable[[], pd.DataFrame]
    run: Callable[[me.LinearMixedModel], Any]
    r: str = ""


def many_clusters() -> pd.DataFrame:
    """10,000 clusters of 5 rows."""
    rng = np.random.default_rng(1)
    cluster = np.repeat(np.arange(10_000), 5)
    x = rng.standard_normal(50_000)
    y = 1.0 + 0.5 * x + rng.standard_normal(10_000)[cluster] + rng.standard_normal(50_000)
    return pd.DataFrame({"y": y, "x": x, "g": pd.Categorical(cluster)})


def star() -> pd.DataFrame:
    """All grades of Project STAR, rows with a reading score and the pupil's sex."""
    columns = ["read", "cltype", "sx", "gr", "sch", "tch", "id"]
    return me.load_dataset("star")[columns].dropna().reset_index(drop=True)


def insteval() -> pd.DataFrame:
    """All rows of InstEval."""
    return me.load_dataset("insteval")


NESTED = "read ~ cltype + sx + gr + (1 | sch/tch)"
CROSSED = "read ~ cltype + sx + gr + (1 | id) + (1 | tch)"
RATINGS = "y ~ service + (1 | s) + (1 | d)"

CASES = {
    "clusters CR2": Case(
        "CR2 and its degrees of freedom, 10,000 clusters of 5 rows",
        "y ~ x + (1 | g)",
        many_clusters,
        lambda m: m.robust("CR2").table,
        "clubSandwich",
    ),
    "star CR2": Case(
        "CR2 and its degrees of freedom by school, star nested",
        NESTED,
        star,
        lambda m: m.robust("CR2", cluster="sch").table,
        "clubSandwich",
    ),
    "star KR": Case(
        "Kenward-Roger, star nested", NESTED, star, lambda m: m.coef_table(ddf="kr"), "pbkrtest"
    ),
    "star crossed KR": Case(
        "Kenward-Roger, star, pupils crossed with teachers",
        CROSSED,
        star,
        lambda m: m.coef_table(ddf="kr"),
        "pbkrtest",
    ),
    "insteval KR": Case(
        "Kenward-Roger, insteval", RATINGS, insteval, lambda m: m.coef_table(ddf="kr"), "pbkrtest"
    ),
    "insteval CR0": Case(
        "CR0 by students and instructors, insteval",
        RATINGS,
        insteval,
        lambda m: m.robust("CR0", cluster=["s", "d"]).table,
    ),
    "bootstrap": Case(
        "10,000 refits of a parametric bootstrap, sleepstudy",
        "Reaction ~ Days + (Days | Subject)",
        lambda: me.load_dataset("sleepstudy"),
        lambda m: m.bootstrap(10_000, seed=1).confint(),
        "bootMer",
    ),
    "profile": Case(
        "Profile likelihood of all parameters, sleepstudy",
        "Reaction ~ Days + (Days | Subject)",
        lambda: me.load_dataset("sleepstudy"),
        lambda m: m.confint(method="profile"),
        "profile",
    ),
    "influence": Case(
        "Deletion diagnostics by teacher, star nested",
        NESTED,
        star,
        lambda m: m.influence(by="tch:sch").to_frame(),
    ),
}


def megabytes() -> float:
    """Peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def ours(case: Case) -> dict[str, Any]:
    """First call after a fit, so nothing is remembered from a call before."""
    data = case.data()
    times = []
    for _ in range(3):
        m = me.lmer(case.formula, data)
        before = megabytes()
        began = time.perf_counter()
        case.run(m)
        times.append(time.perf_counter() - began)
    return {
        "rows": len(data),
        "seconds": float(np.median(times)),
        "megabytes": megabytes(),
        "fit_megabytes": before,
    }


def theirs(case: Case, limit: float) -> dict[str, Any]:
    """R's seconds, or why there are none."""
    data = case.data()
    factors = [name for name in data if not pd.api.types.is_numeric_dtype(data[name])]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        data.to_csv(path, index=False)
        command = ["Rscript", str(HERE / "inference.R"), case.r, str(path), case.formula]
        try:
            done = subprocess.run(
                [*command, ",".join(factors)],
                capture_output=True,
                text=True,
                timeout=limit,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"failed": f"not done in {limit:.0f} s"}
    for line in done.stdout.splitlines():
        if line.startswith("SECONDS "):
            return {"seconds": float(line.split()[1])}
    if done.returncode < 0:
        return {"failed": "killed for memory"}
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    # The reason comes before R's last words.
    reasons = [line for line in said if not line.startswith(("Execution halted", "Timing stopped"))]
    return {"failed": (reasons or ["no output"])[-1][:70]}


def main() -> None:
    """One case, one package."""
    name, package, limit = [*sys.argv[1:], *["", "mixedeffects", "120"][len(sys.argv) - 1 :]]
    case = CASES[name]
    answer = ours(case) if package == "mixedeffects" else theirs(case, float(limit))
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
