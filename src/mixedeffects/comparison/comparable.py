"""Fits whose likelihoods can be compared: of the same data, by the same criterion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.options import checked_flag
from mixedeffects.comparison.nesting import (
    same_mean,
)
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit, HoldsFit, refuse_other_kinds
from mixedeffects.fitting.refitting import by_maximum_likelihood

__all__ = ["Comparable", "comparable", "fits_of", "model_text"]

Matrix = NDArray[np.float64]

#: Responses this close, relative to their size, are the same numbers computed in different ways.
_SAME_RESPONSE = 1e-12


@dataclass(frozen=True, eq=False)
class Comparable:
    """Fits whose likelihoods can be compared, in the order given.

    Attributes
    ----------
    models : list of HoldsFit
        As given, or fitted again by maximum likelihood.
    fits : list of Fit
        What they hold.
    names : list of str
        ``m1`` is the first.
    criteria : ndarray
        With common constants.
    reml, refitted : bool
        Whether the criteria are those of REML; whether any fit was made again.
    notes : tuple of str
        What to know about them.
    """

    models: list[HoldsFit]
    fits: list[Fit]
    names: list[str]
    criteria: Matrix
    reml: bool
    refitted: bool
    notes: tuple[str, ...]

    @property
    def n_parameters(self) -> NDArray[np.int64]:
        """Number of parameters of each."""
        return np.array([fit.n_parameters for fit in self.fits], dtype=np.int64)


def comparable(function: str, given: Sequence[Any], refit: bool) -> Comparable:
    """Check that models are fitted to the same data, and fit them again where necessary.

    Parameters
    ----------
    function : str
        Name of the function for messages.
    given : sequence
        What the user gave.
    refit : bool
        Whether they may be fitted again.

    Raises
    ------
    ModelError
        If they cannot be compared.
    """
    refit = checked_flag(refit, "refit")
    fits = fits_of(function, given)
    names = [f"m{i}" for i in range(1, len(fits) + 1)]
    for name, fit in zip(names[1:], fits[1:], strict=True):
        _check_same_data(names[0], fits[0], name, fit)
    by_reml = [name for name, fit in zip(names, fits, strict=True) if fit.reml]
    reml = len(by_reml) == len(fits)
    notes: list[str] = []
    if not by_reml:
        notes.append("Not refitted: all models are fitted by maximum likelihood.")
    elif reml and all(same_mean(fits[0], fit) for fit in fits[1:]):
        notes.append(
            "Not refitted: all models have the same fixed effects, so their REML likelihoods are "
            "compared."
        )
        by_reml = []
    else:
        why = "the fixed effects differ" if reml else "the other fits are by maximum likelihood"
        if not refit:
            raise ModelError(
                f"REML fits ({', '.join(by_reml)}) cannot be compared here, because {why}. Fit "
                "them by maximum likelihood with m.update(reml=False), or leave refit=True."
            )
        notes.append(f"Refitted by maximum likelihood, because {why}: {', '.join(by_reml)}.")
        fits = [by_maximum_likelihood(fit) for fit in fits]
        reml = False
    for name, fit in zip(names, fits, strict=True):
        undetermined = fit.optimum.undetermined
        if undetermined:
            notes.append(
                f"The data do not determine {', '.join(undetermined)} of {name}: its likelihood "
                "is the largest, but its parameters and AIC count too many."
            )
        elif not fit.optimum.converged:
            notes.append(f"Not converged, so not at its maximum: {name}.")
    models = [
        model if model.fit is fit else type(model)(fit)
        for model, fit in zip(given, fits, strict=True)
    ]
    return Comparable(models, fits, names, _criteria(fits, reml), reml, bool(by_reml), tuple(notes))


def model_text(fit: Fit) -> str:
    """A model as it is listed: its formula, and the structure of the residuals if it has one."""
    parts = [fit.formula]
    if fit.frame.residual is not None:
        parts.append(f"residual={fit.frame.residual.text}")
    if fit.frame.variance is not None:
        parts.append(f"variance={fit.frame.variance.text}")
    if fit.request.sigma is not None:
        parts.append(f"sigma={fit.request.sigma:g}")
    return ", ".join(parts)


def _criteria(fits: Sequence[Fit], reml: bool) -> Matrix:
    """Criteria with common constants: REML's depends on the coding of X by ``log |X'X|``."""
    out = np.array([fit.criterion for fit in fits])
    if reml:
        log_det = np.array([fit.crossproducts.basis.log_det_fixed for fit in fits])
        out += 2.0 * (log_det - log_det[0])
    return out


def fits_of(function: str, given: Sequence[Any]) -> list[Fit]:
    """Fits in models given one by one.

    Raises
    ------
    ModelError
        If there is none, or one of them is something else.
    """
    if not given:
        raise ModelError(f"{function} needs fitted models to compare; none was given.")
    for position, model in enumerate(given, start=1):
        if not isinstance(getattr(model, "fit", None), Fit):
            several = isinstance(model, (list, tuple))
            hint = f" Give models one by one: {function}(*models)." if several else ""
            raise ModelError(
                f"Argument {position} of {function} must be a model fitted by me.lmer, not "
                f"{type(model).__name__}.{hint}"
            )
    for position, model in enumerate(given, start=1):
        refuse_other_kinds(model.fit, f"Argument {position} of {function}")
    return [model.fit for model in given]


def _check_same_data(first: str, one: Fit, second: str, other: Fit) -> None:
    pair = f"{first} and {second}"
    if one.nobs != other.nobs:
        raise ModelError(
            f"{pair} are fitted to different rows, {_rows(one)} and {_rows(other)}, so their "
            "likelihoods cannot be compared. Fit both to the rows complete for all variables."
        )
    y, z = one.frame.y, other.frame.y
    differs = np.abs(y - z) > _SAME_RESPONSE * np.maximum(np.abs(y), np.abs(z))
    if differs.any():
        if np.array_equal(np.sort(y), np.sort(z)):
            what = "have the same response values in different order: fit both to one table"
        else:
            what = (
                f"have different responses ({one.frame.formula.response} and "
                f"{other.frame.formula.response}; {int(differs.sum()):,} of {one.nobs:,} values "
                "differ)"
            )
        raise ModelError(f"{pair} {what}. Likelihoods of different data cannot be compared.")
    w, v = one.frame.weights, other.frame.weights
    w = np.ones(one.nobs) if w is None else w
    v = np.ones(one.nobs) if v is None else v
    unequal = int((w != v).sum())
    if unequal:
        raise ModelError(
            f"{pair} have different prior weights in {unequal:,} of {one.nobs:,} rows; their "
            "difference would be about the weights. Fit both with the same weights=."
        )


def _rows(fit: Fit) -> str:
    missing = fit.frame.dropped.missing_by_column
    if not missing:
        return f"{fit.nobs:,}"
    return f"{fit.nobs:,} (without those missing in {', '.join(missing)})"
