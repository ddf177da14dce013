"""Store fits as this version writes them; later versions must go on reading these files.

Run it for a new format only, under another name: the files that are there stay as they are.
"""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import mixedeffects as me

HERE = Path(__file__).parent


def main() -> None:
    sleep = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    crossed = me.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", me.load_dataset("penicillin"))
    for name, fit in {
        "sleepstudy_format1": sleep,
        "sleepstudy_without_data_format1": sleep.without_data(),
        "penicillin_without_data_format1": crossed.without_data(),
    }.items():
        path = HERE / f"{name}.pkl.gz"
        path.write_bytes(gzip.compress(pickle.dumps(fit, protocol=4), mtime=0))


if __name__ == "__main__":
    main()
