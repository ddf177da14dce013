"""Stored answers with a residual covariance, and our fits of the same models."""

from __future__ import annotations

import json
import warnings
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import mixedeffects as me

FOLDER = Path(__file__).parent / "reference" / "residual"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json") if path.stem != "sas_fev")


@cache
def answer(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


@cache
def data(name: str) -> pd.DataFrame:
    stem = name.split("_")[0]
    if stem == "fev":
        return me.load_dataset("fev").dropna(subset="FEV1").reset_index(drop=True)
    if stem == "ortho":
        stem = "orthodont"
    (path,) = [*FOLDER.glob(f"{name}.csv"), *FOLDER.glob(f"{stem}.csv*")][:1]
    table = pd.read_csv(path)
    for column, kind in answer(name)["column_types"].items():
        if kind in ("factor", "ordered"):
            text = table[column].astype(str)
            levels = answer(name)["levels"][column] or list(dict.fromkeys(text))
            table[column] = pd.Categorical(text, levels, ordered=kind == "ordered")
    return table


@cache
def fitted(name: str) -> me.LinearMixedModel:
    asked = dict(answer(name)["ours"])
    formula = asked.pop("formula")
    table = data(name)
    if name == "berkey_known_V":
        asked["residual"] = me.known(known_covariance(table))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return me.lmer(formula, table, **asked)


def known_covariance(table: pd.DataFrame) -> np.ndarray:
    """The known covariance of two outcomes of a trial, a row of it in each row of the data."""
    K = np.zeros((len(table), len(table)))
    for rows in table.groupby("trial", observed=True).indices.values():
        K[np.ix_(rows, rows)] = table.loc[rows, ["v1i", "v2i"]]
    return K


def natural(name: str) -> dict[str, float]:
    """The stored residual parameters under the names that `m.R.parameters` has."""
    stored, sigma = answer(name)["residual_parameters"], answer(name)["sigma"]
    out: dict[str, float] = {}
    if not stored:
        return out
    if "PBO" in stored:
        for arm, own in stored.items():
            out |= {f"Std.Dev. {arm} {visit}": sd for visit, sd in own["sd"].items()}
            out |= _pairs(own, f"cor {arm} ")
        return out
    if isinstance(stored.get("sd"), dict):
        sds = stored["sd"]
        if "variance" in answer(name)["ours"]:
            column = answer(name)["ours"]["variance"]
            out |= {f"Std.Dev. {column}{level}": sd for level, sd in sds.items()}
        else:
            out |= {f"Std.Dev. {level}": sd for level, sd in sds.items()}
    else:
        out["Std.Dev."] = sigma
    if "correlation" in stored:
        return out | _pairs(stored, "cor ")
    if "power" in stored:
        out["power of pressure"] = stored["power"]
    cor = stored.get("cor_by_lag", stored.get("cor"))
    if name == "ortho_ar1_ml":
        cor = np.sqrt(cor)  # stored for two years, the step between visits
    if isinstance(cor, dict):
        out |= {f"cor {level}": value for level, value in cor.items()}
    elif isinstance(cor, list):
        visits = [*stored.get("sd", {})]
        names = [f"lag {h}" for h in range(1, len(cor) + 1)]
        if name == "fev_adh":
            names = [f"{a}, {b}" for a, b in pairwise(visits)]
        out |= {f"cor {each}": value for each, value in zip(names, cor, strict=True)}
    elif cor is not None:
        out["cor"] = cor
    return out | {key: stored[key] for key in ("range", "nugget") if key in stored}


def _pairs(stored: dict[str, Any], prefix: str) -> dict[str, float]:
    names = [*stored["sd"]]
    return {
        f"{prefix}{names[i]}, {names[j]}": stored["correlation"][i][j]
        for j in range(len(names))
        for i in range(j)
    }
