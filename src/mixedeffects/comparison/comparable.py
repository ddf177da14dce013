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
from mixedeffects.families import Family
from mixedeffects.fitting.fit import Fit, HoldsFit
from mixedeffects.fitting.in_table import is_weighted, response_sums
from mixedeffects.fitting.refitting import by_maximum_likelihood

__all__ = [
    "Comparable",
    "check_same_thing",
    "check_same_trials",
    "comparable",
    "fits_of",
    "model_text",
]

Matrix = NDArray[np.float64]

#: Responses this close, relative to their size, are the same numbers computed in different ways.
_SAME_RESPONSE = 1e-12
#: The same of sums over rows that engines add up in orders of their own.
_SAME_SUMS = 1e-9
#: Families whose likelihoods are of the same thing: probabilities of counts, densities.
_ALIKE = ({"poisson", "negative_binomial"}, {"gamma", "inverse_gaussian", "gaussian", "beta"})


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


def comparable(
    function: str, given: Sequence[Any], refit: bool, *, families: bool = False
) -> Comparable:
    """Check that models are fitted to the same data, and fit them again where necessary.

    Parameters
    ----------
    function : str
        Name of the function for messages.
    given : sequence
        What the user gave.
    refit : bool
        Whether they may be fitted again.
    families : bool
        Whether generalized models may differ in family and link, as far as their likelihoods are
        of the same thing: all of counts, or all densities.

    Raises
    ------
    ModelError
        If they cannot be compared.
    """
    refit = checked_flag(refit, "refit")
    fits = fits_of(function, given)
    names = [f"m{i}" for i in range(1, len(fits) + 1)]
    for name, fit in zip(names[1:], fits[1:], strict=True):
        _check_same_kind(names[0], fits[0], name, fit, families)
        _check_same_data(names[0], fits[0], name, fit)
    by_reml = [name for name, fit in zip(names, fits, strict=True) if fit.reml]
    reml = len(by_reml) == len(fits)
    notes: list[str] = []
    if not by_reml:
        how = f" ({fits[0].approximation})" if fits[0].approximation else ""
        notes.append(f"Not refitted: all models are fitted by maximum likelihood{how}.")
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
    if fit.request.family is not None:
        parts.append(_family_text(fit.request.family))
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
                f"Argument {position} of {function} must be a model fitted by me.lmer or me.glmer, "
                f"not {type(model).__name__}.{hint}"
            )
    return [model.fit for model in given]


def _check_same_kind(first: str, one: Fit, second: str, other: Fit, families: bool) -> None:
    """Refuse fits whose likelihoods are not of the same thing, or not computed the same way."""
    check_same_thing(first, one, second, other, families)
    if one.request.nagq != other.request.nagq:
        raise ModelError(
            f"{first} and {second} approximate the likelihood with nagq={one.request.nagq} and "
            f"nagq={other.request.nagq}: the difference would be about that too. Fit both with the "
            "same nagq=."
        )


def check_same_thing(first: str, one: Fit, second: str, other: Fit, families: bool) -> None:
    """Refuse fits whose likelihoods are not of the same thing; see `comparable`.

    Raises
    ------
    ModelError
        If the models are a linear and a generalized one, or the families are not alike.
    """
    pair = f"{first} and {second}"
    if one.kind != other.kind:
        raise ModelError(
            f"{pair} are a {one.kind} and a {other.kind} mixed model: their likelihoods are of "
            "different distributions, and no test compares them."
        )
    if one.request.family is None or other.request.family is None:
        return
    mine, its = one.request.family, other.request.family
    same = mine.name == its.name and mine.link.name == its.link.name
    alike = mine.name == its.name or any({mine.name, its.name} <= group for group in _ALIKE)
    if not (alike if families else same):
        raise ModelError(
            f"{pair} have the families {_family_text(mine)} and {_family_text(its)}, so "
            + (
                "their likelihoods are of different things: probabilities and densities do not "
                "compare."
                if families
                else "neither is a case of the other and no likelihood-ratio test compares them. "
                "me.compare gives information criteria of models with different families or links."
            )
        )


def _check_same_data(first: str, one: Fit, second: str, other: Fit) -> None:
    pair = f"{first} and {second}"
    if one.nobs != other.nobs:
        raise ModelError(
            f"{pair} are fitted to different rows, {_rows(one)} and {_rows(other)}, so their "
            "likelihoods cannot be compared. Fit both to the rows complete for all variables."
        )
    check_same_trials(first, one, second, other)
    if one.rows is not None or other.rows is not None:
        _check_same_sums(pair, one, other)
        return
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
    w, v = _weights(one), _weights(other)
    w = np.ones(one.nobs) if w is None else w
    v = np.ones(one.nobs) if v is None else v
    unequal = int((w != v).sum())
    if unequal:
        raise ModelError(
            f"{pair} have different prior weights in {unequal:,} of {one.nobs:,} rows; their "
            "difference would be about the weights. Fit both with the same weights=."
        )


def _check_same_sums(pair: str, one: Fit, other: Fit) -> None:
    """The same of fits of which the rows of one stayed in a table: by sums over the rows."""
    mine, its = response_sums(one), response_sums(other)
    if is_weighted(one) != is_weighted(other) or not np.isclose(
        mine.weights, its.weights, rtol=_SAME_SUMS, atol=0.0
    ):
        raise ModelError(
            f"{pair} have different prior weights; their difference would be about the weights. "
            "Fit both with the same weights=."
        )
    size = np.sqrt(max(mine.squares, its.squares) * one.nobs)
    if abs(mine.total - its.total) > _SAME_SUMS * size or abs(
        mine.squares - its.squares
    ) > _SAME_SUMS * max(mine.squares, its.squares):
        raise ModelError(
            f"{pair} have different responses ({one.frame.formula.response} and "
            f"{other.frame.formula.response}): their sums differ. Likelihoods of different data "
            "cannot be compared."
        )


def check_same_trials(first: str, one: Fit, second: str, other: Fit) -> None:
    """Refuse fits to proportions of other numbers of trials.

    Raises
    ------
    ModelError
        If these differ.
    """
    if one.frame.response is None or other.frame.response is None:
        return
    n, m = one.frame.response.trials, other.frame.response.trials
    if (n is None) != (m is None) or not np.array_equal(n, m):  # type: ignore[arg-type]
        raise ModelError(
            f"{first} and {second} have different numbers of trials, and so different responses. "
            "Likelihoods of different data cannot be compared."
        )


def _weights(fit: Fit) -> Matrix | None:
    """What the rows' likelihoods are weighted with."""
    return fit.frame.weights if fit.frame.response is None else fit.frame.response.weights


def _family_text(family: Family) -> str:
    return f"{family.name} ({family.link.name})"


def _rows(fit: Fit) -> str:
    missing = fit.frame.dropped.missing_by_column
    if not missing:
        return f"{fit.nobs:,}"
    return f"{fit.nobs:,} (without those missing in {', '.join(missing)})"
