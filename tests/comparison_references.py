"""R's stored answers about comparisons of models, and our fits of the same models."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import mixedeffects as me
from references import REFERENCE, answers

FOLDER = REFERENCE / "comparison"


def stored() -> dict[str, Any]:
    return answers("comparison")


@cache
def data(name: str) -> pd.DataFrame:
    if name == "machines":
        return pd.read_csv(FOLDER / "machines.csv", dtype={"Worker": str})
    return pd.read_csv(FOLDER / f"{name}.csv") if name == "comparison" else me.load_dataset(name)


@cache
def fitted(formula: str, name: str, reml: bool, weighted: bool) -> me.LinearMixedModel:
    return me.lmer(formula, data(name), reml=reml, weights="w" if weighted else None)


def fit_of(answer: dict[str, Any]) -> me.LinearMixedModel:
    return fitted(answer["f"], answer["data"], answer["reml"], answer["weights"])


def name_of(answer: dict[str, Any]) -> str:
    kind = "REML" if answer["reml"] else "ML"
    return f"{answer['f']} {kind}{' weighted' if answer['weights'] else ''}"


def values(table: dict[str, Any]) -> NDArray[np.float64]:
    return np.array([[np.nan if v is None else v for v in c] for c in table["values"].values()]).T
