"""Coverage of 95 % intervals in small samples: python benchmarks/coverage.py [--draws N].

Responses are drawn from a model with random intercepts and slopes in 10 or 20 unequal clusters and
fitted twice: with the random effects they were drawn with, and with random intercepts alone.
Writes benchmarks/coverage.json, and docs/coverage.md from it.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats

import mixedeffects as me

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "coverage.md"

TRUTH = {"(Intercept)": 1.0, "treated": 0.5, "x": 0.3}
G = {"cluster": [[0.5, 0.1], [0.1, 0.25]]}
SIGMA = 1.0
STRUCTURES = {
    "right": "y ~ treated + x + (x | cluster)",
    "wrong": "y ~ treated + x + (1 | cluster)",
}
METHODS = {
    "model, normal": {"ddf": "inf"},
    "model, Satterthwaite": {"ddf": "satterthwaite"},
    "Kenward-Roger": {"ddf": "kr"},
    "CR0, normal": {"vcov": "CR0"},
    "CR2, Satterthwaite": {"vcov": "CR2"},
}


READING = """
## How to read it

* With the right random effects, Kenward-Roger holds its level even with 10 clusters and a
  coefficient that differs between them. Satterthwaite's degrees of freedom alone do not make up for
  V being estimated: the standard errors themselves are too small.
* Normal quantiles, and CR0 with them, are too short throughout; 20 clusters are not many.
* With a slope missing from the model, every interval that believes V is far too short for that
  slope. CR2 holds nearly its level without knowing what is wrong.
"""


def design(n_clusters: int) -> pd.DataFrame:
    """Clusters of 4 to 20 rows, two fifths of them treated, and a covariate that varies within."""
    rng = np.random.default_rng(n_clusters)
    sizes = rng.integers(4, 21, n_clusters)
    cluster = np.repeat(np.arange(n_clusters), sizes)
    treated = (np.arange(n_clusters) % 5 < 2).astype(float)[cluster]
    x = rng.standard_normal(len(cluster)) + 0.5 * rng.standard_normal(n_clusters)[cluster]
    return pd.DataFrame({"cluster": cluster.astype(str), "treated": treated, "x": x})


def hits(m: me.LinearMixedModel, method: str) -> np.ndarray:
    """Which intervals hold the truth."""
    table = m.coef_table(**METHODS[method])
    low, high = table.iloc[:, -2], table.iloc[:, -1]
    if method == "CR0, normal":
        # What is usually done with CR0: no degrees of freedom at all.
        half = scipy.stats.norm.ppf(0.975) * table["Std. Error"]
        low, high = table["Estimate"] - half, table["Estimate"] + half
    truth = pd.Series(TRUTH)[table.index]
    return ((low <= truth) & (truth <= high)).to_numpy()


def coverage(n_clusters: int, structure: str, n_draws: int, seed: int) -> dict[str, Any]:
    """Share of intervals that hold the truth, by method and coefficient."""
    data = design(n_clusters)
    planned = me.marginal_covariance(STRUCTURES["right"], data, G=G, sigma=SIGMA)
    mean = planned.X @ np.array(list(TRUTH.values()))
    Y = planned.sample(n_draws, seed=seed, mean=mean)
    fit = me.lmer(STRUCTURES[structure], data.assign(y=Y[:, 0]))
    counts = {method: np.zeros(len(TRUTH)) for method in METHODS}
    singular = failed = 0
    for draw in range(n_draws):
        try:
            again = fit.refit(Y[:, draw])
        except me.ModelError:
            failed += 1
            continue
        singular += again.is_singular
        for method, count in counts.items():
            count += hits(again, method)
    done = n_draws - failed
    return {
        "clusters": n_clusters,
        "structure": structure,
        "draws": done,
        "failed": failed,
        "singular": singular / done,
        "coverage": {
            method: dict(zip(TRUTH, (count / done).tolist(), strict=True))
            for method, count in counts.items()
        },
    }


def page(results: list[dict[str, Any]]) -> str:
    """The page of the documentation."""
    draws = results[0]["draws"]
    error = 100 * np.sqrt(0.95 * 0.05 / draws)
    lines = [
        "# Coverage in small samples",
        "",
        "How often a 95 % interval holds the truth. Responses were drawn from a model with random "
        "intercepts and slopes of `x` in 10 or 20 clusters of 4 to 20 rows; `treated` differs "
        "between clusters, two fifths of which are treated, and `x` varies within them. Each was "
        f"fitted with the right random effects, `{STRUCTURES['right']}`, and with the wrong ones, "
        f"`{STRUCTURES['wrong']}`, {draws:,} draws each. The simulation's own standard error is "
        f"{error:.1f} percentage points at 95 %.",
        "",
        "Made by `python benchmarks/coverage.py`.",
    ]
    for structure in STRUCTURES:
        formula = STRUCTURES[structure]
        lines += ["", f"## The {structure} random effects: `{formula}`", ""]
        for result in results:
            if result["structure"] != structure:
                continue
            lines += [
                f"{result['clusters']} clusters; {100 * result['singular']:.0f} % of the fits are "
                "singular:",
                "",
                "| interval | " + " | ".join(f"`{name}`" for name in TRUTH) + " |",
                "|---|" + "---:|" * len(TRUTH),
            ]
            for method, share in result["coverage"].items():
                cells = " | ".join(f"{100 * share[name]:.1f}" for name in TRUTH)
                lines.append(f"| {method} | {cells} |")
            lines.append("")
        lines.pop()
    return "\n".join(lines) + "\n" + READING


def main() -> None:
    """Simulate, and write results and page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=5000)
    parser.add_argument("--page", action="store_true", help="only write the page again")
    options = parser.parse_args()
    store = HERE / "coverage.json"
    if not options.page:
        results = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", me.ConvergenceWarning)
            for structure in STRUCTURES:
                for n_clusters in (10, 20):
                    results.append(coverage(n_clusters, structure, options.draws, seed=1))
                    print(results[-1], flush=True)
        store.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(page(json.loads(store.read_text())))


if __name__ == "__main__":
    main()
