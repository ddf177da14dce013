"""Store fits and covariance matrices as this version writes them; later ones must read these files.

Run it for a new format only: the files of earlier formats stay as they are.
"""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np

import mixedeffects as me
from mixedeffects.storage.fit_document import SCHEMA_VERSION
from mixedeffects.storage.pickling import FORMAT

HERE = Path(__file__).parent


def main() -> None:
    sleep = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
    crossed = me.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", me.load_dataset("penicillin"))
    for name, fit in {
        f"sleepstudy_format{FORMAT}": sleep,
        f"sleepstudy_without_data_format{FORMAT}": sleep.without_data(),
        f"penicillin_without_data_format{FORMAT}": crossed.without_data(),
    }.items():
        _store(fit, HERE / f"{name}.pkl.gz")
    _store(covariances(), HERE / "matrices" / f"format{FORMAT}.pkl.gz")
    for name, fit in generalized_fits().items():
        _store(fit, HERE / "generalized" / f"{name}_format{FORMAT}.pkl.gz")
        document = json.dumps(fit.to_dict(ranef=True), indent=1)
        path = HERE / "generalized" / f"{name}_schema{SCHEMA_VERSION}.json"
        path.write_text(f"{document}\n", encoding="utf-8")
    for name, fit in residual_fits().items():
        _store(fit, HERE / "residual" / f"{name}_format{FORMAT}.pkl.gz")
        document = json.dumps(fit.to_dict(ranef=True), indent=1)
        path = HERE / "residual" / f"{name}_schema{SCHEMA_VERSION}.json"
        path.write_text(f"{document}\n", encoding="utf-8")


def _store(value: Any, path: Path) -> None:
    path.write_bytes(gzip.compress(pickle.dumps(value, protocol=4), mtime=0))


def generalized_fits() -> dict[str, me.GeneralizedLinearMixedModel]:
    """Fits of several families: trials, two levels, counts with exposure; with data and without."""
    cbpp, ticks = me.load_dataset("cbpp"), me.load_dataset("grouseticks").head(120)
    trials = {"family": "binomial", "weights": "size"}
    herds = me.glmer("incidence / size ~ period + (1 | herd)", cbpp, **trials)
    counts = ticks.assign(hours=np.linspace(0.5, 2.0, len(ticks)))
    broods = me.glmer(
        "TICKS ~ YEAR + (1 | BROOD) + (1 | LOCATION)",
        counts,
        family="negative_binomial",
        exposure="hours",
    )
    return {
        "trials": herds,
        "without_data": herds.without_data(),
        "quadrature": herds.update(nagq=9).without_data(),
        "crossed": me.glmer(
            "Mate ~ Cross + (1 | Female) + (1 | Male)",
            me.load_dataset("salamander"),
            family="binomial",
        ).without_data(),
        "counts": broods,
    }


def residual_fits() -> dict[str, me.LinearMixedModel]:
    """Fits with residual structures: series, visits, variances and known standard deviations."""
    orthodont, sleep = me.load_dataset("orthodont"), me.load_dataset("sleepstudy")
    growth = "distance ~ age * Sex"
    return {
        "ar1": me.lmer("Reaction ~ Days + (1 | Subject)", sleep, residual="ar1(Days | Subject)"),
        "us": me.lmer(growth, orthodont, residual="us(age | Subject)", reml=False),
        "by_sex": me.lmer(growth, orthodont, residual="toep(age | Subject, by = Sex, hom = FALSE)"),
        "variance": me.lmer(f"{growth} + (1 | Subject)", orthodont, variance="Sex"),
        "nugget": me.lmer(
            "follicles ~ sin(2 * pi * Time)",
            me.load_dataset("ovary").head(80),
            residual="exp(Time | Mare, nugget = TRUE)",
        ),
        "known": me.lmer(
            "Reaction ~ Days + (1 | Subject)",
            sleep,
            residual="car1(Days | Subject)",
            sigma=25.0,
        ),
    }


def covariances() -> dict[str, Any]:
    """V, its parts, G and R of a fit and of a planned design, and what V said when it was stored.

    Days that are calendar dates are centred by the engine; rows have labels and weights.
    """
    data = me.load_dataset("sleepstudy").head(60)
    data = data.assign(Days=data["Days"] + 2000.0, w=np.linspace(1.0, 2.0, 60))
    data.index = [f"row {i}" for i in range(60)]
    fit = me.lmer("Reaction ~ Days + (Days | Subject)", data, weights="w")
    planned = me.marginal_covariance("~ Days + (Days | Subject)", data, G=fit.varcorr, weights="w")
    matrices = {"V": fit.V, "parts": fit.V.parts, "G": fit.G, "R": fit.R, "planned": planned}
    said = {name: answers(matrices[name], fit.y) for name in ("V", "planned")}
    return {"y": fit.y, "matrices": matrices, "answers": said}


def answers(V: me.MarginalCovariance, y: np.ndarray) -> dict[str, Any]:
    """Numbers of each kind that V gives."""
    return {
        "solve": V.solve(y),
        "logdet": V.logdet(),
        "times": V @ y,
        "diag": V.diag(),
        "block": V.block("309").to_numpy(),
        "whiten": V.whiten(y),
        "symmetric": V.whiten(y, kind="symmetric"),
        "G": V.G.dense(),
        "R": V.R.diag(),
        "shares": V.parts.share().to_numpy(),
    }


if __name__ == "__main__":
    main()
