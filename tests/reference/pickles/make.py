"""Store fits as this version writes them; later versions must go on reading these files.

Run it for a new format only: the files of earlier formats stay as they are.
"""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import mixedeffects as me
from mixedeffects.pickling import FORMAT

HERE = Path(__file__).parent


def main() -> None:
    sleep = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    crossed = me.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", me.load_dataset("penicillin"))
    for name, fit in {
        f"sleepstudy_format{FORMAT}": sleep,
        f"sleepstudy_without_data_format{FORMAT}": sleep.without_data(),
        f"penicillin_without_data_format{FORMAT}": crossed.without_data(),
    }.items():
        path = HERE / f"{name}.pkl.gz"
        path.write_bytes(gzip.compress(pickle.dumps(fit, protocol=4), mtime=0))


if __name__ == "__main__":
    main()
