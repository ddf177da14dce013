"""Exponentiated coefficients: odds ratios, rate ratios and other ratios of a generalized model."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mixedeffects.errors import ModelError
from mixedeffects.families import Family
from mixedeffects.fitting.fit import Fit

__all__ = ["exponentiated", "ratio_name", "ratio_of"]

#: Of a coefficient with these links, by family; "" is any other family.
_RATIOS = {
    ("logit", "binomial"): "odds ratio",
    ("logit", "beta"): "odds ratio",
    ("cloglog", "binomial"): "hazard ratio",
    ("log", "binomial"): "risk ratio",
    ("log", "poisson"): "rate ratio",
    ("log", "negative_binomial"): "rate ratio",
    ("log", ""): "ratio of means",
    ("logit", ""): "odds ratio",
}


def ratio_name(family: Family | None) -> str | None:
    """What the exponential of a coefficient is; None where it is nothing of use."""
    if family is None:
        return None
    link = family.link.name
    return _RATIOS.get((link, family.name), _RATIOS.get((link, "")))


def ratio_of(fit: Fit) -> str:
    """What the exponential of a coefficient of a fit is.

    Raises
    ------
    ModelError
        If it is no ratio.
    """
    family = fit.request.family
    found = ratio_name(family)
    if found is None:
        link = "identity" if family is None else family.link.name
        raise ModelError(
            f"exponentiate=True makes ratios of coefficients on a log or logit scale; with the "
            f"link {link} the exponential of a coefficient is no ratio."
        )
    return found


def exponentiated(table: pd.DataFrame) -> pd.DataFrame:
    """A table of coefficients in R's style as ratios.

    Estimates and bounds become exponentials, standard errors those of the ratio by the delta
    method; tests are those of the coefficients.
    """
    out = table.copy()
    ratio = np.exp(out["Estimate"])
    out["Std. Error"] = ratio * out["Std. Error"]
    out["Estimate"] = ratio
    for bound in ("lower", "upper"):
        if bound in out:
            out[bound] = np.exp(out[bound])
    return out
