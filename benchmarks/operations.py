"""Seconds and peak memory of V's operations on one workload: python operations.py WORKLOAD."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from workloads import WORKLOADS

import mixedeffects as me


def main() -> None:
    workload = WORKLOADS[sys.argv[1]]
    m = me.lmer(workload.formula, workload.make())
    V, r = m.V, m.resid("marginal").to_numpy()
    level = str(m.frame.terms[0].levels[0])
    group = m.frame.terms[0].group
    operations: dict[str, Callable[[], Any]] = {
        "logdet()": V.logdet,
        "diag()": V.diag,
        "V @ x": lambda: V @ r,
        "solve(x)": lambda: V.solve(r),
        "quad(x)": lambda: V.quad(r),
        "gls(X, y)": lambda: V.gls(m.X, m.y),
        "block(level)": lambda: V.block(level, group),
        "sample()": lambda: V.sample(seed=1),
        "parts.share()": V.parts.share,
    }
    rows = []
    for name, operation in operations.items():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        operation()
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            operation()
            times.append(time.perf_counter() - begin)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        rows.append([name, float(np.median(times)), (after - before) / 1024])
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
