"""Time this package beside its peers: python benchmarks/run.py [WORKLOAD ...].

Every package fits the same data in a process of its own, one after another, with one and with two
threads. What is not installed is left out. Writes docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg.lapack
from workloads import WORKLOADS, Workload

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
PYTHON_PEERS = ("mixedeffects", "mixedlm", "statsmodels", "gpboost")
R_PEERS = ("lme4", "glmmTMB")


def installed(peer: str) -> str | None:
    """Version of a peer, or None."""
    if peer in PYTHON_PEERS:
        try:
            return version(peer)
        except PackageNotFoundError:
            return None
    if shutil.which("Rscript") is None:
        return None
    command = ["Rscript", "-e", f"cat(as.character(packageVersion('{peer}')))"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def measure(
    peer: str, workload: Workload, folder: Path, runs: int, limit: float, threads: int
) -> dict[str, Any]:
    """Seconds, criterion, evaluations and memory of one peer, or why there are none."""
    count = str(threads)
    environment = os.environ | {
        "OPENBLAS_NUM_THREADS": count,
        "OMP_NUM_THREADS": count,
        "RAYON_NUM_THREADS": count,
        "MIXEDEFFECTS_NUM_THREADS": count,
    }
    numbers = [workload.formula, str(runs), str(limit)]
    if peer in PYTHON_PEERS:
        command = [
            sys.executable,
            str(HERE / "peers.py"),
            peer,
            str(folder / "data.parquet"),
            *numbers,
        ]
    else:
        script = [str(HERE / "lme4.R"), peer, str(folder / "data.csv")]
        command = ["Rscript", *script, *numbers, ",".join(workload.factors)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"more than {limit:.0f} s"}
    for line in done.stdout.splitlines():
        if line.startswith("ANSWER "):
            answer = json.loads(line[7:])
            for key in ("criterion", "evaluations", "megabytes"):
                value = answer.get(key)
                answer[key] = value[0] if isinstance(value, list) else value
            return answer
    last = (done.stderr.strip().splitlines() or ["no output"])[-1]
    return {"failed": "killed for memory" if done.returncode == -9 else last[:60]}


def floor_seconds(model_size: int, evaluations: int) -> float:
    """Time of the dense Cholesky factorisations and inverses that the evaluations used need."""
    if model_size < 2:
        return 0.0
    rng = np.random.default_rng(0)
    A = np.asfortranarray(rng.normal(size=(model_size, model_size)))
    A = np.asfortranarray(A @ A.T + model_size * np.eye(model_size))
    times = []
    for _ in range(3):
        S = A.copy(order="F")
        begin = time.perf_counter()
        C, _ = scipy.linalg.lapack.dpotrf(S, lower=1, overwrite_a=1, clean=0)
        scipy.linalg.lapack.dpotri(C, lower=1, overwrite_c=1)
        times.append(time.perf_counter() - begin)
    return evaluations * min(times)


def run_workload(workload: Workload, peers: list[str], options: argparse.Namespace) -> list[str]:
    """Rows of the table for one workload."""
    data = workload.make()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data.to_parquet(folder / "data.parquet")
        if any(peer in R_PEERS for peer in peers):
            data.to_csv(folder / "data.csv", index=False)
        results: dict[tuple[str, int], dict[str, Any]] = {}
        for threads in options.threads:
            for peer in peers:
                if peer != "mixedeffects" and (peer not in workload.peers):
                    continue
                if peer in R_PEERS and threads != options.threads[0]:
                    continue  # neither uses threads of its own
                result = measure(peer, workload, folder, options.runs, options.limit, threads)
                results[peer, threads] = result
                print(workload.name, peer, threads, result, file=sys.stderr, flush=True)
    return table_rows(workload, len(data), results)


def table_rows(
    workload: Workload, n: int, results: dict[tuple[str, int], dict[str, Any]]
) -> list[str]:
    ours = {
        t: float(np.median(r["seconds"])) for (p, t), r in results.items() if p == "mixedeffects"
    }
    best = results["mixedeffects", min(ours)]["criterion"]
    rows = [f"\n## {workload.name}\n", f"`{workload.formula}`, n = {n:,}\n"]
    rows.append("| package | threads | seconds | ratio | evaluations | criterion less ours | MB |")
    rows.append("|---|---|---|---|---|---|---|")
    for (peer, threads), r in results.items():
        if "failed" in r:
            rows.append(f"| {peer} | {threads} | {r['failed']} | | | | |")
            continue
        seconds = float(np.median(r["seconds"]))
        rows.append(
            f"| {peer} | {threads} | {seconds:.3g} | {seconds / ours[threads]:.1f} | "
            f"{r['evaluations'] or ''} | {r['criterion'] - best:+.4f} | {r['megabytes']:.0f} |"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=", ".join(WORKLOADS))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for one package")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    versions = {peer: installed(peer) for peer in (*PYTHON_PEERS, *R_PEERS)}
    peers = [peer for peer, found in versions.items() if found]
    found = ", ".join(f"{peer} {versions[peer]}" for peer in peers)
    lines = [
        "# Benchmarks",
        "",
        f"{datetime.date.today():%d %B %Y}; {os.cpu_count()} processors ({platform.machine()}), "
        f"Python {platform.python_version()}; {found}.",
        "",
        "Median of the runs that fit into the time limit, after one warm-up fit, formula and data "
        "handling included. The ratio is to this package with the same number of threads. "
        "Criterion: REML; gpboost maximises the likelihood, so its criterion does not compare.",
    ]
    for name in options.workloads or WORKLOADS:
        lines += run_workload(WORKLOADS[name], peers, options)
        options.page.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
