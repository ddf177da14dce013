"""R's stored answers, and our fits of the same models."""

from __future__ import annotations

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
