"""Fit a model to rows that lie on the workers of a Dask cluster.

    python examples/dask_cluster.py --rows 5000000 --workers 4

The cluster here is of this machine alone; `Client("tcp://scheduler:8786")` is another one.
"""

from __future__ import annotations

import argparse

import dask.dataframe as dd
import numpy as np
import pandas as pd
from dask.distributed import Client, LocalCluster

import mixedeffects as me


def part(number: int, rows: int, schools: int) -> pd.DataFrame:
    """One partition, made where it is needed; the schools are those of all partitions."""
    starts, rates = np.random.default_rng(0).normal(size=(2, schools)) * [[2.0], [0.3]]
    rng = np.random.default_rng([1, number])
    school = rng.integers(schools, size=rows)
    hours = rng.uniform(0.0, 8.0, rows)
    score = 50.0 + 1.5 * hours + starts[school] + rates[school] * hours + rng.normal(0.0, 5.0, rows)
    return pd.DataFrame({"school": school, "hours": hours, "score": score})


def main() -> None:
    """Start a cluster, fit, and ask for what needs another pass."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--schools", type=int, default=500)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    parts = 4 * options.workers
    each = options.rows // parts
    cluster = LocalCluster(
        n_workers=options.workers,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address=None,
    )
    with cluster, Client(cluster):
        table = dd.from_map(part, range(parts), rows=each, schools=options.schools)
        m = me.lmer("score ~ hours + (hours | school)", table, rows="push", progress=True)
        print(m.summary(ddf="inf"))
        print(m.robust("CR1", cluster="school"))
        fitted = m.augment()
        print(
            "standard deviation of the residuals:",
            round(float(fitted["_resid"].std().compute()), 3),
        )


if __name__ == "__main__":
    main()
