"""Parameters without a finite estimate, or too far out to believe an approximation there.

A level of successes only, or of failures only, is fitted the better the further out its effect is.
Where all levels are of that kind the likelihood rises with the standard deviation of the effects: a
level's probability is ``E prod p`` or ``E prod (1 - p)``, and the sum of two such numbers is below
one, which it comes to only where p is zero or one. Sums by few quadrature points, and Laplace's
approximation, then have a minimum somewhere that the likelihood has not. Where some levels are
mixed there is a maximum, but as long as most are not the approximations are as poor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine.generalized.design import GeneralizedDesign
from mixedeffects.engine.generalized.laplace import GeneralizedEvaluation

__all__ = ["leaves_no_noise", "limits_of"]

Matrix = NDArray[np.float64]

#: Family parameter of counts from which they are Poisson: the logarithm of a million.
_FAR = math.log(1e6)
#: Precision of a continuous response, relative to that of its values, that is no noise at all.
_EXACT = 1e10
#: Standard deviation of random effects on the scale of each link that no responses can tell.
_ABSURD = {"logit": 10.0, "probit": 6.0, "cloglog": 10.0}


def limits_of(
    evaluation: GeneralizedEvaluation, names: Sequence[str] = ()
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What has no maximum, and what is too far out, each in sentences.

    Parameters
    ----------
    evaluation : GeneralizedEvaluation
        Where a search stopped.
    names : sequence of str, optional
        Of the grouping factors of the terms.
    """
    limits, doubts = [*_of_phi(evaluation)], list[str]()
    for endless, sentence in _of_deviations(evaluation, names):
        (limits if endless else doubts).append(sentence)
    return tuple(limits), tuple(doubts)


def _of_phi(evaluation: GeneralizedEvaluation) -> tuple[str, ...]:
    """What the family parameter of counts goes to, where it has gone very far."""
    family, phi = evaluation.design.family, evaluation.phi
    if family.has_parameter and family.discrete and phi > _FAR:
        return (
            f"{family.parameter_name} of the {family.name} family goes to infinity, "
            f"{np.exp(phi):.1e} when the search stopped: beside the random effects the counts show "
            "no overdispersion. The limit is the Poisson model, with the same likelihood; fit "
            "that.",
        )
    if leaves_no_noise(evaluation.design, phi):
        return (
            f"the random effects fit every row, and {family.parameter_name} of the {family.name} "
            f"family runs off, {family.natural(phi):.1e} when the search stopped: the likelihood "
            "rises without end. Leave some random effects out, those with a level for each row "
            "first.",
        )
    return ()


def leaves_no_noise(design: GeneralizedDesign, phi: float) -> bool:
    """Whether the dispersion of a continuous response is one of rounding errors."""
    family = design.family
    if not family.has_parameter or family.discrete:
        return False
    return bool(_spread(design) * np.exp(phi) > _EXACT)


def _spread(design: GeneralizedDesign) -> float:
    """Variance of the response that a dispersion is compared with."""
    y = design.response.y
    if design.family.name == "gaussian":
        return float(np.var(y))
    return 1.0 if design.family.name != "inverse_gaussian" else 1.0 / float(np.mean(y))


def _of_deviations(
    evaluation: GeneralizedEvaluation, names: Sequence[str]
) -> Iterator[tuple[bool, str]]:
    """Which standard deviations of random effects are absurd, and whether without end."""
    design = evaluation.design
    absurd = _ABSURD.get(design.family.link.name) if design.family.name == "binomial" else None
    if absurd is None:
        return
    for t, (z, T) in enumerate(zip(design.z, evaluation.T, strict=True)):
        deviation = math.sqrt(float(((z @ T) ** 2).sum(axis=1).mean()))
        if deviation <= absurd:
            continue
        name = f"`{names[t]}`" if names else f"term {t + 1}"
        levels, pure = design.terms[t].n_levels, _pure_levels(design, t)
        head = (
            f"the random effects of {name} run off: their standard deviation is {deviation:.3g} on "
            f"the scale of the link where the search stopped. {pure:,} of {levels:,} levels have "
            "successes only or failures only"
        )
        if pure == levels:
            yield (
                True,
                f"{head}, which any larger one fits better, so that there is no maximum. The data "
                "say which levels are which, and not how much they differ: leave these random "
                "effects out, join levels, or give each level one row.",
            )
        else:
            yield (
                False,
                f"{head}, and so far out Laplace's approximation and few quadrature points are no "
                "guide. With one grouping factor see whether nagq=51 and nagq=100 agree; else "
                "leave these random effects out or join levels.",
            )


def _pure_levels(design: GeneralizedDesign, term: int) -> int:
    """Levels of successes only or of failures only."""
    y, own = design.response.y, design.terms[term]
    count = np.bincount(own.codes, minlength=own.n_levels)
    ones = np.bincount(own.codes, weights=y == 1.0, minlength=own.n_levels)
    zeros = np.bincount(own.codes, weights=y == 0.0, minlength=own.n_levels)
    return int(((ones == count) | (zeros == count)).sum())
