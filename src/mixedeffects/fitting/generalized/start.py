"""Where a search is to start, as a user gives it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.arrays import number_array
from mixedeffects.engine.generalized import GeneralizedDesign
from mixedeffects.engine.parameters import theta_to_T
from mixedeffects.errors import ModelError
from mixedeffects.families import Family
from mixedeffects.fitting.theta import read_theta
from mixedeffects.frame.model_frame import ModelFrame

__all__ = ["read_beta", "read_phi", "read_start"]

Matrix = NDArray[np.float64]

_PARTS = ("theta", "beta", "phi")


def read_start(frame: ModelFrame, design: GeneralizedDesign, start: Any) -> dict[str, Any]:
    """Theta alone, or a mapping with theta, beta and phi as far as wanted.

    Raises
    ------
    ModelError
        If a part is not known, or is not what it should be.
    """
    if start is None:
        return {}
    given: Mapping[str, Any] = start if isinstance(start, Mapping) else {"theta": start}
    unknown = [name for name in given if name not in _PARTS]
    if unknown or not given:
        raise ModelError(
            f"start has {unknown or 'nothing'}; it is theta, or a mapping with 'theta', 'beta' and "
            "'phi' or some of these."
        )
    out: dict[str, Any] = {}
    if "theta" in given:
        values = read_theta(frame.terms, given["theta"], "start")
        T = theta_to_T(values, design.term_columns)
        out["T"] = [design.basis.engine_factor(t, own) for t, own in enumerate(T)]
    if "beta" in given:
        out["beta"] = read_beta(frame, given["beta"])
    if "phi" in given:
        out["phi"] = read_phi(design.family, given["phi"])
    return out


def read_beta(frame: ModelFrame, beta: Any) -> Matrix:
    """Fixed effects given by a user, in the order of ``m.fixef``.

    Raises
    ------
    ModelError
        If there are not as many as columns, or one is not finite.
    """
    values = number_array(beta, "beta must be numbers", ModelError).reshape(-1)
    if len(values) != len(frame.fixef_names) or not np.isfinite(values).all():
        raise ModelError(
            f"beta must be {len(frame.fixef_names)} finite numbers, in the order of m.fixef; got "
            f"{len(values)}: {values.tolist()}."
        )
    return values


def read_phi(family: Family, phi: Any) -> float:
    """The family parameter given by a user, where the search has it.

    Raises
    ------
    ModelError
        If the family has none to be estimated, or it is not a positive number.
    """
    if not family.has_parameter:
        raise ModelError(
            f"phi is the parameter of a family that has one to be estimated; {family!r} has none."
        )
    try:
        value = float(phi)
    except (TypeError, ValueError):
        value = float("nan")
    if not 0.0 < value < np.inf:
        raise ModelError(
            f"phi, the {family.parameter_name}, must be a positive number, not {phi!r:.60}."
        )
    return float(family.search(value))
