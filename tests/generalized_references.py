"""R's stored answers for generalized models, their data, and their designs as arrays."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import mixedeffects as me
from mixedeffects.frame.build import build_model_frame
from mixedeffects.frame.model_frame import RandomTerm
from references import REFERENCE

FOLDER = REFERENCE / "glmm"

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Model:
    """One model as a user of this package writes it.

    ``data`` is the name of a bundled data set, or of a file beside the answers.
    """

    formula: str
    data: str
    family: str = "binomial"
    link: str = "logit"
    weights: str | None = None


_BINOMIAL_CONTRACEPTION = "use ~ age + I(age^2) + urban + livch"

#: name of the stored answer -> the model
MODELS: dict[str, Model] = {
    "cbpp": Model("incidence / size ~ period + (1 | herd)", "cbpp", weights="size"),
    "contraception": Model(f"{_BINOMIAL_CONTRACEPTION} + (1 | district)", "contraception"),
    "contraception_slope": Model(
        f"{_BINOMIAL_CONTRACEPTION} + (urban | district)", "contraception"
    ),
    "verbagg": Model("r2 ~ (Anger + Gender + btype + situ)^2 + (1 | id) + (1 | item)", "verbagg"),
    "grouseticks": Model(
        "TICKS ~ YEAR + cHEIGHT + (1 | INDEX) + (1 | BROOD) + (1 | LOCATION)",
        "grouseticks",
        "poisson",
        "log",
    ),
    "epil": Model("y ~ lbase * trt + lage + V4 + (1 | subject)", "epil", "poisson", "log"),
    "toenail": Model("outcome ~ treatment * time + (1 | patientID)", "toenail"),
    "salamander": Model("Mate ~ Cross + (1 | Female) + (1 | Male)", "salamander"),
    "guimmun": Model(
        "immun ~ kid2p + mom25p + ord + ethn + momEd + husEd + momWork + rural + pcInd81"
        " + (1 | mom) + (1 | comm)",
        "guimmun",
    ),
    "owls_nb": Model(
        "SiblingNegotiation ~ FoodTreatment * SexParent + offset(logBroodSize) + (1 | Nest)",
        "owls_nb",
        "negative_binomial",
        "log",
    ),
    "arabidopsis_nb": Model(
        "total.fruits ~ nutrient * amd + rack + status + (1 | popu) + (1 | gen)",
        "arabidopsis_nb",
        "negative_binomial",
        "log",
    ),
    "cake_gamma": Model(
        "angle ~ recipe * temp + (1 | recipe:replicate)", "cake_gamma", "gamma", "log"
    ),
    "schizophrenia_probit": Model(
        "disorder ~ onset * month + (1 | subject)", "schizophrenia_probit", link="probit"
    ),
    "beta_slope": Model("y ~ x + t + (x | g)", "beta_slope", "beta"),
    "ig_sim": Model("y ~ x + (1 | g)", "ig_sim", "inverse_gaussian", "log"),
}

#: Those with stored answers by adaptive quadrature, and the numbers of nodes.
QUADRATURE: dict[str, tuple[int, ...]] = {
    "cbpp": (9, 25),
    "contraception": (9, 25),
    "epil": (9, 25),
    "toenail": (9, 25, 50),
    "schizophrenia_probit": (25,),
}


@cache
def reference(name: str) -> dict[str, Any]:
    """All that R found; what the keys mean stands in README.md beside the files."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


@cache
def model_data(name: str) -> pd.DataFrame:
    """The table that R was given, factors with R's levels."""
    source = MODELS[name].data
    if source in set(me.list_datasets()["name"]):
        return me.load_dataset(source)
    table = pd.read_csv(FOLDER / f"{source}.csv.gz")
    for column, kind in reference(name)["column_types"].items():
        if kind == "factor":
            text = table[column].astype(str)
            levels = reference(name)["levels"][column] or list(dict.fromkeys(text))
            table[column] = pd.Categorical(text, levels)
    return table


@dataclass(frozen=True, eq=False)
class Design:
    """The arrays of a model, made without a fit.

    ``y`` is the proportion of successes for a binomial response, of ``trials`` trials.
    """

    X: Matrix
    y: Matrix
    trials: Matrix | None
    offset: Matrix
    terms: tuple[RandomTerm, ...]
    fixef_names: tuple[str, ...]


@cache
def design(name: str) -> Design:
    """The arrays of a model, as the frame makes them."""
    model, table = MODELS[name], model_data(name)
    frame = build_model_frame(model.formula, table, design_only=True)
    response = model.formula.split("~")[0].strip()
    trials = None
    if "/" in response:
        successes, size = (part.strip() for part in response.split("/"))
        trials = table[size].to_numpy(np.float64)
        y = table[successes].to_numpy(np.float64) / trials
    elif isinstance(table[response].dtype, pd.CategoricalDtype):
        # The first level is the failure.
        y = (table[response].cat.codes > 0).to_numpy(np.float64)
    else:
        y = table[response].to_numpy(np.float64)
    offset = np.zeros(len(y)) if frame.offset is None else np.asarray(frame.offset, np.float64)
    return Design(
        np.asarray(frame.X), y, trials, offset, tuple(frame.terms), tuple(frame.fixef_names)
    )


def laplace_optimum(name: str) -> tuple[dict[str, Matrix], Matrix, float | None]:
    """The true optimum of Laplace's approximation: factors T by term, beta, family parameter.

    Coefficients are in the order of ``design(name).fixef_names``, R's; the family parameter is on
    the scale of the search (log theta, log precision, minus log dispersion).
    """
    answer = reference(name)["laplace"]
    return _factors(name, answer), np.asarray(answer["beta"]), _shape(answer)


def quadrature_optimum(name: str, nodes: int) -> tuple[dict[str, Matrix], Matrix]:
    """The optimum of the adaptive quadrature with so many nodes, by lme4."""
    answer = reference(name)["agq"][str(nodes)]
    return _factors(name, answer), np.asarray(answer["beta"])


def _shape(answer: dict[str, Any]) -> float | None:
    # An empty list where the family has no parameter.
    shape = answer.get("log_shape")
    return shape if isinstance(shape, float) else None


def _factors(name: str, answer: dict[str, Any]) -> dict[str, Matrix]:
    """Lower triangles of theta, read by columns, in R's order of the terms."""
    theta = np.atleast_1d(answer["theta"])
    by_group = {term.group: term for term in design(name).terms}
    order = np.atleast_1d(reference(name)["laplace"].get("terms", [*by_group])).tolist()
    factors, start = {}, 0
    for group in order:
        k = by_group[group].n_columns
        T = np.zeros((k, k))
        size = k * (k + 1) // 2
        T.T[np.triu_indices(k)] = theta[start : start + size]
        factors[by_group[group].label] = T
        start += size
    return factors
