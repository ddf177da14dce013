"""R's stored answers, and our fits of the same models."""

from __future__ import annotations

import io
import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import mixedeffects as me

REFERENCE = Path(__file__).parent / "reference"


def _kindergarten() -> pd.DataFrame:
    star = me.load_dataset("star")
    return star[star["gr"] == "K"]


#: name of the stored answer -> (formula, data, options of lmer)
MODELS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "sleepstudy": ("Reaction ~ Days + (Days | Subject)", "sleepstudy", {}),
    "sleepstudy_ml": ("Reaction ~ Days + (Days | Subject)", "sleepstudy", {"reml": False}),
    "sleepstudy_zerocorr": ("Reaction ~ Days + (Days || Subject)", "sleepstudy", {}),
    "sleepstudy_intercept": ("Reaction ~ Days + (1 | Subject)", "sleepstudy", {}),
    "threelevel": ("y ~ x1 + (1 | sch.cl/tch.cl)", "threelevel", {}),
    "star_sample": ("read ~ cltype + sx + (sx | sch/tch)", "star_sample", {}),
    "star_k": ("read ~ cltype + sx + ses + (1 | sch/tch)", _kindergarten, {}),
    "dyestuff": ("Yield ~ 1 + (1 | Batch)", "dyestuff", {}),
    "dyestuff2": ("Yield ~ 1 + (1 | Batch)", "dyestuff2", {}),
    "penicillin": ("diameter ~ 1 + (1 | plate) + (1 | sample)", "penicillin", {}),
    "pastes": ("strength ~ 1 + (1 | batch/cask)", "pastes", {}),
    "cake": ("angle ~ recipe * temperature + (1 | recipe:replicate)", "cake", {}),
    "orthodont": ("distance ~ age * Sex + (age | Subject)", "orthodont", {}),
    "insteval": ("y ~ service + (1 | s) + (1 | d) + (1 | dept:service)", "insteval", {}),
}

#: Those with a stored table of the terms.
ALL_WITH_ANOVA = ("sleepstudy", "threelevel", "star_sample", "star_k", "cake", "orthodont")


@cache
def reference(name: str) -> dict[str, Any]:
    """R's stored answer for one model."""
    return json.loads((REFERENCE / f"{name}.json").read_text())


@cache
def answers(subject: str) -> dict[str, Any]:
    """R's stored answers on one subject."""
    return dict(json.loads((REFERENCE / subject / f"{subject}.json").read_text()))


@cache
def drawn_data(subject: str) -> pd.DataFrame:
    """The data that were drawn for them, with the levels of a in their order."""
    data = pd.read_csv(io.StringIO("\n".join(answers(subject)["csv"])))
    return data.assign(a=pd.Categorical(data["a"], ["low", "mid", "high"]))


def as_frame(answer: dict[str, Any]) -> pd.DataFrame:
    """A stored table, its columns in their order."""
    values = {n: np.atleast_1d(np.array(v, dtype=object)) for n, v in answer["values"].items()}
    return pd.DataFrame({name: values[name] for name in answer["names"]})


@cache
def model_data(name: str) -> pd.DataFrame:
    source = MODELS[name][1]
    return me.load_dataset(source) if isinstance(source, str) else source()


@cache
def model_at_reference(name: str) -> me.LinearMixedModel:
    """The model evaluated at R's theta, without any optimisation."""
    formula, _, options = MODELS[name]
    theta = np.atleast_1d(reference(name)["theta"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", me.ConvergenceWarning)
        return me.lmer(
            formula,
            model_data(name),
            start=theta,
            control=me.Control(max_evaluations=1),
            **options,
        )


@cache
def fitted_model(name: str) -> me.LinearMixedModel:
    """Our fit of one reference model, made once."""
    formula, _, options = MODELS[name]
    return me.lmer(formula, model_data(name), **options)


def quiet(formula: str, data: pd.DataFrame, **options: Any) -> me.LinearMixedModel:
    """A fit that must not warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return me.lmer(formula, data, **options)
