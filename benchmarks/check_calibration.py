"""False alarms of m.check(): python benchmarks/check_calibration.py [--sets N] [--draws N].

Responses are drawn from models whose checks should find nothing, fitted, and checked; counted is
how often a p-value is at most 0.05. Writes benchmarks/check_calibration.json, and the table in
docs/checking.md from it.
"""

from __future__ import annotations

import argparse
import json
import re
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import mixedeffects as me

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "checking.md"
BEGIN, END = "<!-- false alarms: benchmarks/check_calibration.py -->", "<!-- end -->"
LEVEL = 0.05
#: Where V has 1,600 rows, Cook's distances of drawn data sets would take most of the time.
CHEAP = ["normality", "spread", "linearity", "simulation", "outliers"]


def slopes() -> tuple[str, pd.DataFrame, dict[str, Any], float, dict[str, Any]]:
    """18 groups of 10 with random slopes."""
    data = pd.DataFrame(
        {"g": np.repeat(np.arange(18), 10).astype(str), "x": np.tile(np.arange(10.0), 18)}
    )
    G = {"g": [[1.0, 0.02], [0.02, 0.04]]}
    return "y ~ x + (x | g)", data, G, 1.0, {"order": "x"}


def small() -> tuple[str, pd.DataFrame, dict[str, Any], float, dict[str, Any]]:
    """10 groups of 3."""
    rng = np.random.default_rng(10)
    data = pd.DataFrame({"g": np.repeat(np.arange(10), 3).astype(str), "x": rng.normal(size=30)})
    return "y ~ x + (1 | g)", data, {"g": [[1.0]]}, 1.0, {}


def crossed() -> tuple[str, pd.DataFrame, dict[str, Any], float, dict[str, Any]]:
    """20 x 15 crossed."""
    data = pd.DataFrame(
        {"a": np.repeat(np.arange(20), 15).astype(str), "b": np.tile(np.arange(15), 20).astype(str)}
    )
    data["x"] = np.random.default_rng(20).normal(size=300)
    return "y ~ x + (1 | a) + (1 | b)", data, {"a": [[1.0]], "b": [[0.5]]}, 1.0, {}


def unbalanced() -> tuple[str, pd.DataFrame, dict[str, Any], float, dict[str, Any]]:
    """24 groups of 2 to 30."""
    rng = np.random.default_rng(24)
    sizes = rng.integers(2, 31, 24)
    g = np.repeat(np.arange(24), sizes)
    data = pd.DataFrame(
        {
            "g": g.astype(str),
            "x": rng.gamma(2.0, size=len(g)),
            "f": np.where(g % 3 == 0, "a", "b"),
            "time": np.concatenate([np.arange(n) for n in sizes]),
        }
    )
    return "y ~ x + f + (1 | g)", data, {"g": [[0.5]]}, 1.0, {"order": "time"}


def held() -> tuple[str, pd.DataFrame, dict[str, Any], float, dict[str, Any]]:
    """320 pairs of slopes, not refitted."""
    rng = np.random.default_rng(320)
    g = np.repeat(np.arange(320), 5)
    data = pd.DataFrame({"g": g.astype(str), "x": rng.normal(size=len(g))})
    return "y ~ x + (x | g)", data, {"g": [[1.0, 0.1], [0.1, 0.25]]}, 1.0, {"which": CHEAP}


DESIGNS = {
    "18 x 10, slopes": slopes,
    "10 x 3": small,
    "20 x 15, crossed": crossed,
    "24 unequal groups": unbalanced,
    "320 x 5, V held": held,
}


def alarms(name: str, sets: int, draws: int) -> dict[str, Any]:
    """How often each check of a design has a p-value, and one of at most the level."""
    formula, data, G, sigma, options = DESIGNS[name]()
    V = me.marginal_covariance(formula, data, G=G, sigma=sigma)
    responses = V.sample(sets, seed=len(data))
    responses = np.asarray(responses).reshape(len(data), sets)
    counts: Counter[str] = Counter()
    found: Counter[str] = Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", me.ConvergenceWarning)
        model = me.lmer(formula, data.assign(y=responses[:, 0]))
        for i in range(sets):
            table = model.refit(responses[:, i]).check(draws=draws, seed=i, **options).to_frame()
            known = table.dropna(subset=["p_value"])
            counts.update(known["check"])
            found.update(known.loc[known["p_value"] <= LEVEL, "check"])
    return {"sets": dict(counts), "alarms": {check: found[check] for check in counts}}


def kind(check: str) -> str:
    """What a line of the table is about, the same in all designs."""
    first, _, rest = check.partition(": ")
    if first in ("normality", "spread") and rest not in ("residuals", "fitted values"):
        return f"{first}: levels"
    return check if first in ("normality", "spread") else first


def page_table(results: dict[str, Any]) -> str:
    """The table of the documentation, in per cent."""
    shares: dict[str, dict[str, tuple[int, int]]] = {}
    for name, result in results["designs"].items():
        for check, count in result["sets"].items():
            row = shares.setdefault(kind(check), {})
            before = row.get(name, (0, 0))
            row[name] = (before[0] + result["alarms"][check], before[1] + count)
    names = list(results["designs"])
    sets = {name: max(results["designs"][name]["sets"].values()) for name in names}
    heads = [f"{name} ({sets[name]})" for name in names]
    lines = ["| check | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(names)]
    for check, row in shares.items():
        cells = [f"{100 * row[n][0] / row[n][1]:.1f}" if n in row else "" for n in names]
        lines.append(f"| {check} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=400)
    parser.add_argument("--draws", type=int, default=59)
    parser.add_argument("--only", nargs="*", choices=tuple(DESIGNS), default=list(DESIGNS))
    options = parser.parse_args()
    path = HERE / "check_calibration.json"
    for name in options.only:
        found = alarms(name, options.sets, options.draws)
        # Read again each time: other designs may be run beside it.
        results = json.loads(path.read_text()) if path.exists() else {"designs": {}}
        results["draws"] = options.draws
        results["designs"][name] = found
        path.write_text(json.dumps(results, indent=1) + "\n")
        print(name, found, flush=True)
    # With --only and no design the table alone is made.
    results = json.loads(path.read_text())
    results["designs"] = {n: results["designs"][n] for n in DESIGNS if n in results["designs"]}
    table = page_table(results)
    print(table)
    text = PAGE.read_text()
    if BEGIN in text:
        pattern = re.escape(BEGIN) + ".*?" + re.escape(END)
        new = f"{BEGIN}\n{table}\n{END}"
        PAGE.write_text(re.sub(pattern, lambda _: new, text, flags=re.DOTALL))


if __name__ == "__main__":
    main()
