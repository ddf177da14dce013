"""Relative covariance parameters as a user gives and reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.arrays import number_array
from mixedeffects.engine.parameters import lower_entries
from mixedeffects.errors import MixedEffectsError, ModelError
from mixedeffects.frame.model_frame import RandomTerm
from mixedeffects.frame.row_labels import by_row_labels

__all__ = ["read_theta", "theta_names"]

Matrix = NDArray[np.float64]


def theta_names(terms: Sequence[RandomTerm]) -> list[str]:
    """Names of the entries of theta, as lme4's ``getME(m, "theta")`` has them."""
    return [
        f"{term.group}.{term.columns[r]}" + ("" if r == c else f".{term.columns[c]}")
        for term in terms
        for r, c in zip(*lower_entries(term.n_columns), strict=True)
    ]


def read_theta(
    terms: Sequence[RandomTerm],
    theta: Any,
    what: str = "theta",
    no_numbers: type[MixedEffectsError] = ModelError,
) -> Matrix:
    """Relative covariance parameters given by a user, in the order of the terms.

    Parameters
    ----------
    terms : sequence of RandomTerm
        The random-effects terms.
    theta : array_like
        A Series goes by its labels, which are `theta_names`; anything else by position.
    what : str
        What messages call it.
    no_numbers : class
        What to raise if it is not numbers.

    Raises
    ------
    ModelError
        If it has the wrong length or labels, or a value is not finite.
    """
    names = theta_names(terms)
    if isinstance(theta, pd.Series) and list(theta.index) != names:
        theta = by_row_labels(what, theta, pd.Index(names), "m.getme('theta')", ModelError)
    values = number_array(theta, f"{what} must be numbers", no_numbers).reshape(-1)
    if len(values) != len(names) or not np.isfinite(values).all():
        numbers = "number" if len(names) == 1 else "numbers"
        raise ModelError(
            f"{what} must be {len(names)} finite {numbers}, in the order of m.theta; got "
            f"{len(values)}: {values.tolist()}."
        )
    return values
