"""R's answers about residuals, leverages and likelihoods, and our models at R's parameters."""

from __future__ import annotations

import json
import warnings
from functools import cache
from typing import Any

import pandas as pd

import mixedeffects as me
from references import REFERENCE

FOLDER = REFERENCE / "inference"

FORMULAS = {
    "sleepstudy": "Reaction ~ Days + (Days | Subject)",
    "threelevel": "y ~ x1 + (1 | sch.cl/tch.cl)",
    "konly": "read ~ cltype + sx + (sx | sch/tch)",
    "penicillin": "diameter ~ x + (1 | plate) + (1 | sample)",
    "insteval1500": "y ~ service + lectage + (1 | s) + (1 | d)",
}


@cache
def residual_reference(name: str) -> dict[str, Any]:
    """R's answers; of insteval1500 the first 200 rows (50 whitened residuals)."""
    return json.loads((FOLDER / f"residuals_{name}.json").read_text())


def _data(name: str) -> pd.DataFrame:
    if name == "penicillin":
        return pd.read_csv(FOLDER / "penicillin_x.csv")
    if name == "insteval1500":
        return pd.read_csv(FOLDER / "insteval1500.csv", dtype={"service": "category"})
    return me.load_dataset({"konly": "star_sample"}.get(name, name))


@cache
def at_residual_reference(name: str) -> me.LinearMixedModel:
    """The model at R's theta, without any optimisation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", me.ConvergenceWarning)
        return me.lmer(
            FORMULAS[name],
            _data(name),
            start=residual_reference(name)["theta"],
            control=me.Control(max_evaluations=1),
        )
