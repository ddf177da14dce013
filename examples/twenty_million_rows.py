"""Fit a model to twenty million rows in a parquet file, with DuckDB and without the rows.

    python examples/twenty_million_rows.py
    python examples/twenty_million_rows.py --rows 1000000 --memory 500MB

The file is made once, by a process of its own, so that the peak of memory is that of the fit.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import duckdb

import mixedeffects as me

#: Trips of drivers: what a trip costs depends on its length, and on who drives.
ROWS = """
SELECT t.driver, km, 3 + 1.2 * km + start + rate * km
    + 0.9 * sqrt(-2 * ln(1 - random())) * cos(2 * pi() * random()) AS fare
FROM (
    SELECT i % {drivers} AS driver, 10 * random() AS km FROM range({rows}) r(i)
) t JOIN (
    SELECT i AS driver, 2.0 * (random() - 0.5) AS start, 0.4 * (random() - 0.5) AS rate
    FROM range({drivers}) r(i)
) d USING (driver)
"""


def write(path: Path, rows: int, drivers: int) -> None:
    """Make the file; its numbers are random."""
    connection = duckdb.connect(config={"preserve_insertion_order": False})
    connection.sql(ROWS.format(rows=rows, drivers=drivers)).write_parquet(str(path))


def seconds_and_peak(began: float) -> str:
    """Processor time since then, and most memory of this process so far."""
    unit = 1.0 if sys.platform == "darwin" else 1024.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    return f"{time.process_time() - began:.1f} s of processor time, peak {peak:.2f} GB"


def main() -> None:
    """Make the file if it is not there, fit it, and say what that took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--drivers", type=int, help="levels (default: one for 200 rows)")
    parser.add_argument("--folder", type=Path, default=Path(), help="where the file is made")
    parser.add_argument("--memory", help="most memory of DuckDB, such as 500MB")
    options = parser.parse_args()
    drivers = options.drivers or max(10, options.rows // 200)
    path = options.folder / f"trips-{options.rows}-{drivers}.parquet"
    if not path.exists():
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
            other.submit(write, path, options.rows, drivers).result()
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")

    config = {} if options.memory is None else {"memory_limit": options.memory}
    trips = duckdb.connect(config=config).read_parquet(str(path))
    print("before the fit:", seconds_and_peak(0.0))

    def tell(line: object) -> None:
        if isinstance(line, me.TablePass):
            print(line)

    began = time.process_time()
    m = me.lmer("fare ~ km + (km | driver)", trips, rows="push", progress=tell)
    print("the fit:", seconds_and_peak(began))
    print(m.summary(ddf="inf"))

    began = time.process_time()
    print(m.robust("CR1", cluster="driver"))
    print("robust standard errors:", seconds_and_peak(began))
    print("largest residuals, from the table:")
    print(m.augment().order("abs(_resid) DESC").limit(3))


if __name__ == "__main__":
    main()
