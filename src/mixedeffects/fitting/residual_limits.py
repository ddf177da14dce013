"""Likelihoods of residual structures that have no maximum: seen at the end of a search.

S is divided by, so there is no optimum where it is singular; but the likelihood may grow all the
way there, or as a range grows without bound. A parameter far out is held against a point farther
out still, with the variance of neighbours' differences, the nugget's and those of the random
effects left as they are: where the criterion is no higher there, the direction has no end. So is a
small standard deviation, against a smaller one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.factorisation import NotPositiveDefiniteError
from mixedeffects.engine.residual_families import (
    AnteDependence,
    Autoregression,
    Block,
    ContinuousAutoregression,
    Known,
    Spatial,
)
from mixedeffects.engine.residual_model import ResidualDesign
from mixedeffects.engine.residual_objective import ResidualEvaluation, evaluate_residual
from mixedeffects.engine.residual_rows import ResidualRows
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.residual_parameters import (
    ResidualParameter,
    reported_residual_parameters,
)

__all__ = ["limits_of_residuals"]

Matrix = NDArray[np.float64]

#: Where a parameter is far out: a range, relative to the largest distance; one less a correlation;
#: a standard deviation, relative to the largest; the smallest eigenvalue of correlations.
_FAR, _NEAR_ONE, _SMALL_RATIO, _SINGULAR = 10.0, 1e-4, 1e-2, 1e-6
#: Correlation of the two closest rows below which there is none.
_NONE = 1e-6
#: How much farther out the other point is, and by what the criterion may be higher there.
_FARTHER, _HIGHER = 10.0, 1e-6
#: What a small standard deviation is multiplied by. It cannot be much: digits end there.
_SMALLER = 0.5


@dataclass(frozen=True)
class _Limit:
    """What a parameter does, and what the model becomes."""

    parameter: str
    does: str
    becomes: str

    def sentence(self, criterion: float) -> str:
        return (
            f"{self.parameter} {self.does}, and at criterion {criterion:.4f} the likelihood has "
            f"no maximum in this direction. The limiting model has {self.becomes}."
        )


def limits_of_residuals(fit: Fit) -> tuple[str, ...]:
    """Sentences that name parameter, criterion and limiting model; none where all is well."""
    evaluation = fit.residual
    if evaluation is None:
        return ()
    parameters = reported_residual_parameters(fit)
    found = [
        *_of_correlations(fit, evaluation, parameters),
        *_of_deviations(evaluation, parameters),
    ]
    return tuple(each.sentence(fit.criterion) for each in found)


# --- correlations ------------------------------------------------------------------------


def _of_correlations(
    fit: Fit, evaluation: ResidualEvaluation, parameters: list[ResidualParameter]
) -> Iterator[_Limit]:
    model = evaluation.model
    by = None if fit.frame.residual is None else fit.frame.residual.strata
    for s, (family, at) in enumerate(zip(model.families, model.places, strict=True)):
        stratum = "" if by is None else str(by[s])
        own = [
            each
            for each in parameters
            if each.kind in ("cor", "range", "nugget") and each.stratum == stratum
        ]
        if isinstance(family, Known) or not own:
            continue
        zeta = evaluation.phi[at]
        if isinstance(family, (ContinuousAutoregression, Spatial)):
            yield from _of_range(evaluation, s, own[0], family, zeta)
        elif isinstance(family, (Autoregression, AnteDependence)):
            yield from _near_one(evaluation, s, own, family)
        elif isinstance(family, Block):
            smallest = _smallest_eigenvalue(evaluation, s)
            if smallest < _SINGULAR:
                most = max(own, key=lambda each: abs(each.value))
                yield _Limit(
                    f"`{most.name}`",
                    f"is {most.value:.6g}, where the correlations of `{model.design.kind}` are "
                    f"nearly singular (smallest eigenvalue {smallest:.1e})",
                    "a combination of the residuals of a group that has no variance; a structure "
                    "with fewer parameters may have a maximum",
                )


def _of_range(
    evaluation: ResidualEvaluation,
    stratum: int,
    parameter: ResidualParameter,
    family: ContinuousAutoregression | Spatial,
    zeta: Matrix,
) -> Iterator[_Limit]:
    power = family.power if isinstance(family, Spatial) else 1
    reach = float(zeta[0])
    smallest, largest = _distances(evaluation, stratum)
    if (smallest / reach) ** power > -np.log(_NONE):
        yield _Limit(
            f"`{parameter.name}`",
            f"goes to zero ({reach:.3g}, where the closest rows are {smallest:.3g} apart)",
            "independent residuals: leave `residual` out",
        )
        return
    nugget = float(zeta[1]) if len(zeta) > 1 else 0.0
    factor = (1.0 - nugget) * _FARTHER**power + nugget
    moved = [_FARTHER * reach, nugget / factor][: len(zeta)]
    # A nugget goes to zero beside such a range.
    is_far = reach > _FAR * largest
    if is_far and _has_no_end(evaluation, stratum, np.array(moved), factor):
        grows = "the distance" if power == 1 else "the square of the distance"
        beside = " beside the nugget" if len(zeta) > 1 else ""
        yield _Limit(
            f"`{parameter.name}`",
            f"grows without bound ({reach:.4g}, where the largest distance is {largest:.4g})",
            f"differences of two residuals with a variance in proportion to {grows}{beside}",
        )
        return
    if len(zeta) > 1 and min(nugget, 1.0 - nugget) < _SINGULAR:
        name = parameter.name.replace("range", "nugget", 1)
        if nugget < 0.5:
            yield _Limit(f"`{name}`", f"goes to zero ({nugget:.1e})", "no nugget: leave it out")
        else:
            yield _Limit(
                f"`{name}`",
                f"goes to one (within {1.0 - nugget:.1e})",
                "independent residuals: leave `residual` out",
            )


def _near_one(
    evaluation: ResidualEvaluation,
    stratum: int,
    own: list[ResidualParameter],
    family: Autoregression | AnteDependence,
) -> Iterator[_Limit]:
    for each in own:
        left = 1.0 - abs(each.value)
        if left >= _NEAR_ONE:
            continue
        if isinstance(family, Autoregression):
            moved = float(np.copysign(1.0 - left / _FARTHER, each.value))
            factor = (1.0 - each.value**2) / (1.0 - moved**2)
            if not _has_no_end(evaluation, stratum, np.array([moved]), factor):
                continue
        sign = "" if each.value > 0.0 else "minus "
        becomes = (
            "a random walk within each group"
            if each.value > 0.0
            else "residuals that alternate in sign within each group"
        )
        if isinstance(family, AnteDependence):
            becomes = "the same residual, up to its size, at these two times"
        yield _Limit(f"`{each.name}`", f"goes to {sign}one (within {left:.1e})", becomes)


def _has_no_end(evaluation: ResidualEvaluation, stratum: int, zeta: Matrix, factor: float) -> bool:
    """Whether the deviance is no higher farther out, where variances grow by a factor."""
    model = evaluation.model
    if len(model.families) > 1:
        # Variances of the other strata would have to be moved as well.
        return True
    phi = evaluation.phi.copy()
    phi[model.places[stratum]] = zeta
    T = [own / np.sqrt(factor) for own in evaluation.at_theta.T]
    return _is_no_higher(evaluation, evaluation.design, T, phi)


def _is_no_higher(
    evaluation: ResidualEvaluation, design: ResidualRows, T: list[Matrix], phi: Matrix
) -> bool:
    """Whether the deviance is no higher there than at an evaluation, or there is none."""
    try:
        there = evaluate_residual(design, T, phi, evaluation.at_theta.reml)
    except (NotPositiveDefiniteError, np.linalg.LinAlgError, ArithmeticError):
        return True
    return bool(there.deviance <= evaluation.deviance + _HIGHER + there.rounding)


def _distances(evaluation: ResidualEvaluation, stratum: int) -> tuple[float, float]:
    """The smallest distance between two rows of a group, and a bound of the largest."""
    model = evaluation.model
    of_stratum = model.stratum == stratum
    at = model.positions
    largest = 0.0
    for column in at.T:
        high = np.maximum.reduceat(column, model.starts)
        low = np.minimum.reduceat(column, model.starts)
        largest += float(((high - low)[of_stratum[model.starts]] ** 2).max(initial=0.0))
    # Rows are sorted by position: in one dimension neighbours are closest, in several nearly so.
    steps = np.sqrt((np.diff(at, axis=0) ** 2).sum(axis=1))
    within = ~model.is_first[1:] & of_stratum[1:] & (steps > 0.0)
    return float(steps[within].min(initial=np.inf)), float(np.sqrt(largest))


def _smallest_eigenvalue(evaluation: ResidualEvaluation, stratum: int) -> float:
    """Of the correlations of any group of the stratum."""
    model = evaluation.model
    family, zeta = model.families[stratum], evaluation.phi[model.places[stratum]]
    assert isinstance(family, Block)
    smallest = np.inf
    for pattern in model.patterns:
        if pattern.stratum != stratum:
            continue
        C = family.matrix(zeta, pattern.positions)
        sd = np.sqrt(np.diag(C))
        smallest = min(smallest, float(np.linalg.eigvalsh(C / np.outer(sd, sd))[0]))
    return smallest


# --- standard deviations -----------------------------------------------------------------


def _of_deviations(
    evaluation: ResidualEvaluation, parameters: list[ResidualParameter]
) -> Iterator[_Limit]:
    sizes = [each for each in parameters if each.kind == "sd"]
    if len(sizes) < 2:
        return
    largest = max(each.value for each in sizes)
    for number, each in enumerate(sizes):
        if each.value < _SMALL_RATIO * largest and _goes_on(evaluation, number, len(sizes)):
            of = " at ".join(filter(None, (each.stratum, ", ".join(each.of)))) or "the others"
            yield _Limit(
                f"`{each.name}`",
                f"goes to zero ({each.value:.2g}, where another is {largest:.4g})",
                f"no residual variance at {of}, whose rows it reproduces exactly",
            )


def _goes_on(evaluation: ResidualEvaluation, number: int, count: int) -> bool:
    """Whether the deviance is no higher where one of the standard deviations is smaller."""
    own = _which_deviation(evaluation.model.design, count) == number
    moved = evaluation.model.with_relative_weights(np.where(own, _SMALLER**-2, 1.0))
    design = evaluation.design.with_columns(moved)
    return _is_no_higher(evaluation, design, list(evaluation.at_theta.T), evaluation.phi)


def _which_deviation(design: ResidualDesign, count: int) -> NDArray[np.intp]:
    """Of each row, which of the standard deviations shown is its own."""
    if design.kind == "us" and not design.homogeneous:
        times = np.rint(design.positions[:, 0]).astype(np.intp)
        return np.asarray(design.stratum * design.n_times + times, dtype=np.intp)
    of_others = design.v[:, : count - 1] != 0.0
    return np.where(of_others.any(axis=1), 1 + of_others.argmax(axis=1), 0)
