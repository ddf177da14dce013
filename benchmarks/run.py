"""Time this package beside its peers: python benchmarks/run.py [WORKLOAD ...].

Every package fits the same data in a process of its own, one after another, with one and with two
threads. What is not installed is left out. Adds to benchmarks/results.json and writes
docs/benchmarks.md from it.
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
from generalized import CASES as GENERALIZED_CASES
from generalized import has_package as has_generalized
from inference import CASES
from residuals import CASES as RESIDUAL_CASES
from residuals import has_package
from workloads import WORKLOADS, Workload, crossed_with_parameters

import mixedeffects as me

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


def run_workload(
    workload: Workload, peers: list[str], options: argparse.Namespace
) -> dict[str, Any]:
    """Everything measured for one workload."""
    data = workload.make()
    frame_megabytes = float(data.memory_usage(deep=True).sum()) / 1e6
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data.to_parquet(folder / "data.parquet")
        if any(peer in R_PEERS for peer in peers):
            data.to_csv(folder / "data.csv", index=False)
        for threads in options.threads:
            for peer in peers:
                if peer != "mixedeffects" and (peer not in workload.peers):
                    continue
                if peer in R_PEERS and threads != options.threads[0]:
                    continue  # neither uses threads of its own
                limit = options.limit if peer != "mixedeffects" else max(options.limit, 3600.0)
                result = measure(peer, workload, folder, options.runs, limit, threads)
                results.append({"package": peer, "threads": threads} | result)
                print(workload.name, peer, threads, result, file=sys.stderr, flush=True)
    return {
        "formula": workload.formula,
        "rows": len(data),
        "megabytes": frame_megabytes,
        "results": results,
        "date": f"{datetime.date.today():%d %B %Y}",
    }


def table_rows(name: str, measured: dict[str, Any]) -> list[str]:
    results = measured["results"]
    ours = {
        r["threads"]: float(np.median(r["seconds"]))
        for r in results
        if r["package"] == "mixedeffects"
    }
    best = next(r["criterion"] for r in results if r["package"] == "mixedeffects")
    rows = [
        f"\n## {name}\n",
        f"`{measured['formula']}`, n = {measured['rows']:,}, data {measured['megabytes']:.3g} MB; "
        f"{measured['date']}\n",
        "| package | threads | seconds | ratio | floor | evaluations | criterion less ours | MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        head = f"| {r['package']} | {r['threads']} | "
        base = ours.get(r["threads"], min(ours.values()))
        if "failed" in r:
            ratio = ""
            if r["failed"].startswith("more than"):
                ratio = f"> {float(r['failed'].split()[2]) / base:.1f}"
            rows.append(head + f"{r['failed']} | {ratio} | | | | |")
            continue
        seconds = float(np.median(r["seconds"]))
        floor = f"{r['floor']:.3g}" if "floor" in r else ""
        rows.append(
            head + f"{seconds:.3g} | {seconds / base:.1f} | {floor} | "
            f"{r['evaluations'] or ''} | {r['criterion'] - best:+.4f} | {r['megabytes']:.0f} |"
        )
    return rows


def seconds_of(formula: str, data: Any, runs: int) -> tuple[float, Any]:
    """Median seconds of a warm fit by this package, and the model."""
    model, times = me.lmer(formula, data), []
    for _ in range(runs):
        begin = time.perf_counter()
        model = me.lmer(formula, data)
        times.append(time.perf_counter() - begin)
    return float(np.median(times)), model


def measure_growth(runs: int) -> dict[str, Any]:
    """Time with rows at fixed levels, evaluations with parameters, and refits."""
    rows, parameters = [], []
    for n in (50_000, 100_000, 200_000, 400_000):
        formula, data = crossed_with_parameters(n, (2, 1, 1))
        seconds, model = seconds_of(formula, data, runs)
        rows.append([n, seconds, model.optimum.evaluations])
    for columns in ((1,), (2,), (4,), (4, 4), (8,)):
        formula, data = crossed_with_parameters(20_000, columns)
        seconds, model = seconds_of(formula, data, runs)
        parameters.append([len(model.theta), seconds, model.optimum.evaluations])
    sleep = me.load_dataset("sleepstudy")
    model = me.lmer("Reaction ~ Days + (Days | Subject)", sleep)
    draws = model.V.sample(200, seed=1, mean=model.X @ model.fixef.to_numpy()).T
    for y in draws[:20]:
        model.refit(y)
    times = []
    for y in draws:
        begin = time.perf_counter()
        model.refit(y)
        times.append(time.perf_counter() - begin)
    return {"rows": rows, "parameters": parameters, "refit": float(np.median(times))}


def growth_rows(growth: dict[str, Any]) -> list[str]:
    lines = [
        "\n## Growth\n",
        "Rows at fixed levels: three crossed factors of 60, 50 and 40, a slope on the first.\n",
        "| rows | seconds | evaluations |",
        "|---|---|---|",
    ]
    lines += [f"| {n:,} | {s:.3g} | {e} |" for n, s, e in growth["rows"]]
    lines += [
        "\n20,000 rows; parameters of one or two crossed factors' covariance matrices.\n",
        "| parameters | seconds | evaluations |",
        "|---|---|---|",
    ]
    lines += [f"| {m} | {s:.3g} | {e} |" for m, s, e in growth["parameters"]]
    lines.append(
        f"\n`refit(y)` of the sleep study, to responses drawn from the model: "
        f"{1e3 * growth['refit']:.2f} ms (median of 200)."
    )
    return lines


def measure_V() -> list[list[Any]]:
    """Seconds and memory of V's operations at a million rows."""
    script = HERE / "operations.py"
    out = []
    for name in ("slopes", "crossed", "insteval"):
        done = subprocess.run(
            [sys.executable, str(script), name], capture_output=True, text=True, check=True
        )
        out += [[name, *row] for row in json.loads(done.stdout.splitlines()[-1])]
    return out


def V_rows(rows: list[list[Any]]) -> list[str]:
    lines = [
        "\n## V\n",
        "Operations of `m.V`, median seconds of five and peak memory above what the fit already "
        "took.\n",
        "| workload | operation | seconds | MB |",
        "|---|---|---|---|",
    ]
    return lines + [f"| {w} | `{o}` | {s:.3g} | {mb:.0f} |" for w, o, s, mb in rows]


def measure_inference(limit: float) -> dict[str, Any]:
    """Seconds and memory of inference after the fit, here and in R."""
    out: dict[str, Any] = {}
    for name, case in CASES.items():
        entry: dict[str, Any] = {"title": case.title, "formula": case.formula}
        packages = ["mixedeffects"]
        if case.r and shutil.which("Rscript"):
            packages.append("R")
        for package in packages:
            command = [sys.executable, str(HERE / "inference.py"), name, package, str(limit)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            lines = done.stdout.splitlines()
            entry[package] = json.loads(lines[-1]) if lines else {"failed": last_line(done.stderr)}
            print(name, package, entry[package], file=sys.stderr, flush=True)
        entry["r"] = case.r
        out[name] = entry
    return out


def inference_rows(measured: dict[str, Any]) -> list[str]:
    lines = [
        "\n## Inference\n",
        "Seconds after the fit, median of three, each after a fresh fit; peak memory of the whole "
        "process. R with the package named, one run; bootMer's time is a hundred refits' times a "
        "hundred.\n",
        "| what | rows | seconds | MB | R |",
        "|---|---:|---:|---:|---|",
    ]
    for entry in measured.values():
        ours, theirs = entry["mixedeffects"], entry.get("R", {})
        r = ""
        if "failed" in theirs:
            r = f"{entry['r']}: {theirs['failed'].replace('|', ' ')}"
        elif theirs:
            ratio = theirs["seconds"] / ours["seconds"]
            r = f"{entry['r']}: {theirs['seconds']:.3g} s, {ratio:,.0f} times"
        lines.append(
            f"| {entry['title']} | {ours['rows']:,} | {ours['seconds']:.3g} | "
            f"{ours['megabytes']:.0f} | {r} |"
        )
    return lines


def last_line(text: str) -> str:
    """What a process said last: of an error its name and message."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][-70:] if lines else "nothing said"


def measure_residuals(limit: float) -> list[dict[str, Any]]:
    """Fits with a residual covariance structure, here and in R, smallest size first."""
    script = str(HERE / "residuals.py")
    one = os.environ | {"OPENBLAS_NUM_THREADS": "1", "MIXEDEFFECTS_NUM_THREADS": "1"}
    found = {peer: has_package(peer) for case in RESIDUAL_CASES.values() for peer in case.peers}
    out = []
    for name, case in RESIDUAL_CASES.items():
        for package in ("mixedeffects", *(peer for peer in case.peers if found[peer])):
            for size in case.sizes:
                command = [sys.executable, script, name, str(size), package, str(limit)]
                done = subprocess.run(command, capture_output=True, text=True, env=one, check=False)
                lines = done.stdout.splitlines()
                answer = json.loads(lines[-1]) if lines else {"failed": last_line(done.stderr)}
                out.append({"case": name, "package": package, "size": size} | answer)
                print(out[-1], file=sys.stderr, flush=True)
                if "failed" in answer:
                    break
    return out


def residual_rows(measured: list[dict[str, Any]]) -> list[str]:
    lines = [
        "\n## Residual covariance\n",
        "Fits with `residual=`, one thread. This package: median of three after a warm one; R's "
        "packages: one fit. A larger size is not tried where a smaller one failed. Criterion: "
        "REML, less ours.\n",
        "| model | package | rows | seconds | ratio | evaluations | criterion less ours | MB |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    ours = {(r["case"], r["size"]): r for r in measured if r["package"] == "mixedeffects"}
    for r in measured:
        base = ours[r["case"], r["size"]]
        case = RESIDUAL_CASES[r["case"]]
        head = f"| {case.title} | {r['package']} | {base['rows']:,} | "
        if "failed" in r:
            ratio = ""
            if r["failed"].startswith("more than"):
                ratio = f"> {float(r['failed'].split()[2]) / base['seconds']:,.0f}"
            lines.append(head + f"{r['failed'].replace('|', ' ')} | {ratio} | | | |")
            continue
        memory = f"{r['megabytes']:.0f}" if "megabytes" in r else ""
        lines.append(
            head + f"{r['seconds']:.3g} | {r['seconds'] / base['seconds']:,.1f} | "
            f"{r.get('evaluations', '')} | {r['criterion'] - base['criterion']:+.4f} | {memory} |"
        )
    return lines


def measure_generalized(limit: float) -> list[dict[str, Any]]:
    """Generalized models, here and elsewhere."""
    script = str(HERE / "generalized.py")
    threads = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MIXEDEFFECTS_NUM_THREADS")
    one = os.environ | dict.fromkeys(threads, "1")
    peers = {peer for case in GENERALIZED_CASES.values() for peer in case.peers}
    found = {peer for peer in peers if has_generalized(peer)}
    out = []
    for name, case in GENERALIZED_CASES.items():
        for package in ("mixedeffects", *(peer for peer in case.peers if peer in found)):
            command = [sys.executable, script, name, package, str(limit)]
            # What runs in R minds the limit itself; a package for Python is stopped here.
            most = None if package == "mixedeffects" else 2.0 * limit
            try:
                done = subprocess.run(
                    command, capture_output=True, text=True, env=one, check=False, timeout=most
                )
                lines = done.stdout.splitlines()
                answer = json.loads(lines[-1]) if lines else {"failed": last_line(done.stderr)}
            except subprocess.TimeoutExpired:
                answer = {"failed": f"more than {limit:.0f} s"}
            out.append({"case": name, "package": package} | answer)
            print(out[-1], file=sys.stderr, flush=True)
    return out


def generalized_rows(measured: list[dict[str, Any]]) -> list[str]:
    lines = [
        "\n## Generalized models\n",
        "Laplace's approximation, seconds of the processor in one thread, formula included. This "
        "package: median of three after a warm one, and what standard errors take on top; others: "
        "one fit, standard errors included. Criterion: -2 log L as reported, less ours; lme4's is "
        "not quite the criterion at its own estimates, and gpboost's is approximate.\n",
        "| model | package | rows | seconds | standard errors | ratio | evaluations | "
        "criterion less ours |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    ours = {r["case"]: r for r in measured if r["package"] == "mixedeffects"}
    for r in measured:
        base = ours[r["case"]]
        whole = base["seconds"] + base["errors"]
        title = GENERALIZED_CASES[r["case"]].title
        head = f"| {title} | {r['package']} | {base['rows']:,} | "
        if "failed" in r:
            ratio = ""
            if r["failed"].startswith("more than"):
                ratio = f"> {float(r['failed'].split()[2]) / whole:,.0f}"
            lines.append(head + f"{r['failed'].replace('|', ' ')} | | {ratio} | | |")
            continue
        errors = f"{r['errors']:.3g}" if "errors" in r else ""
        ratio = (r["seconds"] + r.get("errors", 0.0)) / whole
        lines.append(
            head + f"{r['seconds']:.3g} | {errors} | {ratio:,.1f} | {r.get('evaluations', '')} | "
            f"{r['criterion'] - base['criterion']:+.4f} |"
        )
    return lines


def write_page(path: Path, stored: dict[str, Any]) -> None:
    lines = [
        "# Benchmarks",
        "",
        stored["machine"],
        "",
        "Median of the runs that fit into the time limit, after one warm-up fit, formula and data "
        "handling included. The ratio is to this package with the same number of threads; the R "
        "packages use one. *Floor* is the time of the unavoidable dense Cholesky factorisations "
        "and inverses at the evaluations used, plus one pass over the data. *MB* is the peak "
        "memory beyond that before the first fit. Criterion: REML; gpboost maximises the "
        "likelihood, so its criterion does not compare. A package that is missing cannot express "
        "the model, or was not given the time.",
    ]
    for name in WORKLOADS:
        if name in stored["workloads"]:
            lines += table_rows(name, stored["workloads"][name])
    if "V" in stored:
        lines += V_rows(stored["V"])
    if "inference" in stored:
        lines += inference_rows(stored["inference"])
    if "residuals" in stored:
        lines += residual_rows(stored["residuals"])
    if "generalized" in stored:
        lines += generalized_rows(stored["generalized"])
    if "growth" in stored:
        lines += growth_rows(stored["growth"])
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    known = [*WORKLOADS, "growth", "V", "inference", "residuals", "generalized"]
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=", ".join(known))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for one package")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    versions = {peer: installed(peer) for peer in (*PYTHON_PEERS, *R_PEERS)}
    peers = [peer for peer, found in versions.items() if found]
    stored: dict[str, Any] = {"workloads": {}}
    if options.results.exists():
        stored = json.loads(options.results.read_text(encoding="utf-8"))
    stored["machine"] = (
        f"{os.cpu_count()} processors ({platform.machine()}), Python "
        f"{platform.python_version()}; " + ", ".join(f"{peer} {versions[peer]}" for peer in peers)
    )
    for name in options.workloads or known:
        if name == "growth":
            stored["growth"] = measure_growth(options.runs)
        elif name == "V":
            stored["V"] = measure_V()
        elif name == "inference":
            stored["inference"] = measure_inference(options.limit)
        elif name == "residuals":
            stored["residuals"] = measure_residuals(options.limit)
        elif name == "generalized":
            stored["generalized"] = measure_generalized(options.limit)
        else:
            stored["workloads"][name] = run_workload(WORKLOADS[name], peers, options)
        options.results.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
        write_page(options.page, stored)


if __name__ == "__main__":
    main()
