"""One function for each package: fit the workload, return the criterion and evaluations.

Each runs in a process of its own, started by `run.py`; formula and data handling are inside the
timed part, reading the file and one warm-up fit are not.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

Fit = Callable[[], tuple[float, int]]


def _ours(data: pd.DataFrame, formula: str) -> Fit:
    import mixedeffects as me

    def fit() -> tuple[float, int]:
        model = me.lmer(formula, data)
        fit.core_rows = model.optimum.evaluation.A.remainder.core_size  # type: ignore[attr-defined]
        return model.criterion, model.optimum.search_evaluations

    return fit


def floor_seconds(core_rows: int, evaluations: int, data: pd.DataFrame) -> float:
    """What cannot be avoided: dense Cholesky factors and inverses, and one pass over the data."""
    import numpy as np
    import scipy.linalg.lapack

    begin = time.perf_counter()
    for name in data:
        data[name].to_numpy().sum() if data[name].dtype.kind in "iuf" else data[name].nunique()
    reading = time.perf_counter() - begin
    size = min(core_rows, 4_000)
    A = np.asfortranarray(np.random.default_rng(0).normal(size=(size, size)))
    A = np.asfortranarray(A @ A.T + size * np.eye(size))
    times = []
    for _ in range(3):
        S = A.copy(order="F")
        begin = time.perf_counter()
        C, _info = scipy.linalg.lapack.dpotrf(S, lower=1, overwrite_a=1, clean=0)
        scipy.linalg.lapack.dpotri(C, lower=1, overwrite_c=1)
        times.append(time.perf_counter() - begin)
    return evaluations * min(times) * (core_rows / size) ** 3 + reading


def _mixedlm(data: pd.DataFrame, formula: str) -> Fit:
    import mixedlm

    def fit() -> tuple[float, int]:
        model = mixedlm.lmer(formula, data)
        return float(mixedlm.REMLcrit(model)), int(getattr(model, "n_iter", 0) or 0)

    return fit


def _statsmodels(data: pd.DataFrame, formula: str) -> Fit:
    import statsmodels.formula.api as smf

    simple = {
        "Reaction ~ Days + (Days | Subject)": ("Reaction ~ Days", "Subject", "~Days"),
        "y ~ x + (x | g)": ("y ~ x", "g", "~x"),
    }
    fixed, groups, random = simple[formula]

    def fit() -> tuple[float, int]:
        model = smf.mixedlm(fixed, data, groups=data[groups], re_formula=random)
        result = model.fit(reml=True, method="lbfgs")
        return -2.0 * float(result.llf), 0

    return fit


def _gpboost(data: pd.DataFrame, formula: str) -> Fit:
    import gpboost
    import numpy as np

    fixed, _, random = formula.partition("(")
    response, _, predictors = fixed.partition("~")
    names = [name.strip() for name in predictors.split("+") if name.strip() not in ("", "1")]
    factors = [part.partition("|")[2].strip(" )") for part in random.split("+ (")]
    X = np.column_stack([np.ones(len(data))] + [data[name].to_numpy(float) for name in names])

    def fit() -> tuple[float, int]:
        model = gpboost.GPModel(group_data=data[factors].to_numpy(), likelihood="gaussian")
        model.fit(y=data[response.strip()].to_numpy(float), X=X)
        return 2.0 * float(model.get_current_neg_log_likelihood()), 0

    return fit


PEERS: dict[str, Callable[[pd.DataFrame, str], Fit]] = {
    "mixedeffects": _ours,
    "mixedlm": _mixedlm,
    "statsmodels": _statsmodels,
    "gpboost": _gpboost,
}


def main() -> None:
    name, path, formula, runs, limit = sys.argv[1:]
    data = pd.read_parquet(Path(path))
    fit = PEERS[name](data, formula)
    answer: dict[str, Any] = {"seconds": []}
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    fit()  # warm
    spent = time.perf_counter() - started
    if spent > float(limit) / 4:
        answer["seconds"].append(spent)
    while len(answer["seconds"]) < int(runs) and time.perf_counter() - started < float(limit) / 2:
        begin = time.perf_counter()
        answer["criterion"], answer["evaluations"] = fit()
        answer["seconds"].append(time.perf_counter() - begin)
    if "criterion" not in answer:
        answer["criterion"], answer["evaluations"] = fit()
    megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 1024
    answer["megabytes"] = megabytes
    if hasattr(fit, "core_rows"):
        answer["floor"] = floor_seconds(fit.core_rows, answer["evaluations"], data)
    print("ANSWER " + json.dumps(answer))


if __name__ == "__main__":
    main()
