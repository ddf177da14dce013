"""The scales that means of a generalized model are given on: of the link, or of the response."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.options import checked_choice
from mixedeffects.errors import ModelError
from mixedeffects.families import Family, Link
from mixedeffects.fitting.generalized import GeneralizedFit
from mixedeffects.formula.syntax import Binary, Call, Node, deparse
from mixedeffects.inference.population_average import population_mean
from mixedeffects.inference.response_scale import TYPES, ResponseScale
from mixedeffects.inference.variance import FixedEffectsVariance

if TYPE_CHECKING:
    from mixedeffects.formula.transformations import Transformation

__all__ = [
    "AveragesScale",
    "LinkScale",
    "LinkWay",
    "PopulationScale",
    "link_scale",
    "mean_name",
    "population_scale",
]

Matrix = NDArray[np.float64]
Jet = tuple[Matrix, Matrix, Matrix, Matrix]

#: Links whose differences are logarithms of ratios, and of what.
_LOGGED = {"log": "", "logit": "odds of "}
_PROBABILITY = "probability of "


@dataclass(frozen=True)
class LinkWay:
    """The way from the linear predictor to the mean, as `Transformation` is one for responses.

    Attributes
    ----------
    link : Link
        The link.
    original : str
        What the mean is called.
    of_ratios : bool
        Whether it takes differences to ratios.
    """

    link: Link
    original: str
    of_ratios: bool = False

    @property
    def logged(self) -> str:
        """What the link is a logarithm of; empty where it is none."""
        if self.link.name not in _LOGGED:
            return ""
        name = self.original
        if self.link.name == "logit":
            name = name.removeprefix(_PROBABILITY)
        return f"{_LOGGED[self.link.name]}{name}"

    @property
    def is_affine(self) -> bool:
        """Whether it only shifts and scales."""
        return False

    @property
    def falls(self) -> bool:
        """Whether larger means have smaller linear predictors."""
        low, high = (np.asarray(self.link.link(np.array([at])))[0] for at in (0.4, 0.6))
        return bool(high < low) and not self.of_ratios

    def inverse(self, v: Matrix) -> Matrix:
        """Means, or ratios."""
        return self.jet(v)[0]

    def jet(self, v: Matrix) -> Jet:
        """The same with three derivatives."""
        v = np.asarray(v, dtype=np.float64)
        with np.errstate(all="ignore"):
            if self.of_ratios:
                ratio = np.exp(v)
                return ratio, ratio, ratio, ratio
            values = self.link.mean(v, 3)
        return values[0], values[1], values[2], values[3]

    def outside(self, v: Matrix) -> NDArray[np.bool_]:
        """Which linear predictors have no mean."""
        return ~self.link.valid(np.asarray(v, dtype=np.float64))

    def of_differences(self) -> LinkWay | None:
        """What undoes differences: to ratios, where the link is a logarithm."""
        return LinkWay(self.link, self.logged, True) if self.logged else None


@dataclass(frozen=True)
class LinkScale(ResponseScale):
    """The scale of the link, or of the mean, on which the data are too."""

    def of_data(self, y: Matrix) -> Matrix:
        """Responses as a picture of these estimates shows them.

        Raises
        ------
        ModelError
            On the scale of the link, where most responses have no place.
        """
        if self.way is None and self.hint:
            raise ModelError(
                "Responses are not on the scale of the link; take type='response', or "
                "data='partial'."
            )
        return y

    def of_differences(self, sums: Matrix) -> ResponseScale:
        """The scale of contrasts whose coefficients have these sums."""
        found = super().of_differences(sums)
        if found.gives_ratios:
            hint = (
                f"estimates are ratios of the {found.shown}; tests are of differences on the scale "
                "of the link"
            )
            return LinkScale(found.name, found.way, hint=hint, is_of_differences=True)
        if found is not self and found.way is None:
            return LinkScale(self.name, hint=f"contrasts are of {self.name}")
        return found


@dataclass(frozen=True, eq=False)
class PopulationScale(LinkScale):
    """Means over the random effects.

    Attributes
    ----------
    family : Family
        Distribution and link.
    v : ndarray, shape (means,)
        Variance of the random part of each mean.
    se : ndarray, shape (means,)
        Standard errors of the averages.
    se_of_link : ndarray, shape (means,)
        Those of the linear predictors.
    gradient : ndarray, shape (means, s)
        Derivatives of the averages by all parameters, times a root of the joint covariance.
    """

    family: Family | None = None
    v: Matrix | None = None
    se: Matrix | None = None
    se_of_link: Matrix | None = None
    gradient: Matrix | None = None

    def values(self, eta: Matrix) -> Matrix:
        """Averages of the mean."""
        assert self.family is not None and self.v is not None
        return population_mean(self.family, eta, self.v)[0]

    def errors(self, eta: Matrix, se: Matrix) -> Matrix:
        """Their standard errors."""
        assert self.se is not None
        return self.se

    def bounds(self, low: Matrix, high: Matrix) -> tuple[Matrix, Matrix]:
        """Ends of intervals, transformed from the scale of the link."""
        assert self.family is not None and self.se is not None and self.se_of_link is not None
        link = self.family.link
        with np.errstate(all="ignore"):
            quantile = 0.5 * (high - low) / self.se_of_link
            at = np.asarray(link.link(self.values(0.5 * (low + high))))
            half = quantile * self.se / np.abs(link.derivative(at))
            ends = [np.asarray(link.inverse(at + side * half)) for side in (-1.0, 1.0)]
        return np.minimum(*ends), np.maximum(*ends)


@dataclass(frozen=True)
class AveragesScale(LinkScale):
    """That of averages over the random effects taken as they are: of risks, say, not of odds."""

    def of_differences(self, sums: Matrix) -> ResponseScale:
        """The same: differences of averages are no ratios."""
        kind = "differences" if np.allclose(sums, 0.0, atol=1e-10) else "contrasts"
        hint = f"estimates are {kind} of the {self.name}, averaged over the random effects"
        return LinkScale(self.name, hint=hint, is_of_differences=True)


def mean_name(fit: GeneralizedFit) -> str:
    """What the mean of the response is called."""
    tree: Node = fit.frame.formula.response_tree
    if not fit.family.takes_trials:
        return f"mean of {deparse(tree)}"
    levels = fit.frame.response_levels
    # Of a comparison, which is true or false, the words are its own.
    if levels and tuple(levels) != ("False", "True"):
        return f"{_PROBABILITY}{deparse(tree)} = {levels[-1]}"
    if isinstance(tree, Call) and tree.function == "cbind":
        tree = tree.arguments[0].value
    elif isinstance(tree, Binary) and tree.operator == "/":
        tree = tree.left
    return f"{_PROBABILITY}{deparse(tree)}"


def link_scale(fit: GeneralizedFit, type: object) -> LinkScale:
    """The scale that ``type=`` asks for.

    Raises
    ------
    ModelError
        If it is neither of the two.
    """
    kind = checked_choice(type, "type", TYPES)
    link, mean = fit.family.link, mean_name(fit)
    if link.name == "identity":
        return LinkScale(mean)
    name = f"{link.name}({mean})"
    if kind == "link":
        return LinkScale(name, hint=f"on the scale of the link, {link.name}")
    # The same doors, another way.
    way = cast("Transformation", LinkWay(link, mean))
    hint = f"estimates are the {mean} for random effects of zero, back from the {link.name}"
    return LinkScale(name, way, hint=hint)


def population_scale(
    fit: GeneralizedFit,
    scale: ResponseScale,
    eta: Matrix,
    L: Matrix,
    v: Matrix,
    slopes: Matrix,
    root: Matrix,
    variance: FixedEffectsVariance,
) -> PopulationScale:
    """That of averages over the random effects.

    Parameters
    ----------
    fit : GeneralizedFit
        The fit.
    scale : ResponseScale
        What ``type=`` asks for.
    eta, L : ndarray, shapes (means,) and (means, p)
        Linear predictors, as functions of the fixed effects.
    v : ndarray, shape (means,)
        Variances of the random part.
    slopes : ndarray, shape (means, s)
        Their derivatives by the parameters, times ``root``.
    root : ndarray, shape (r, s)
        A root of the covariance of all parameters.
    variance : FixedEffectsVariance
        Of the fixed effects.
    """
    of_beta = L @ fit.crossproducts.basis.fixed @ root[fit.found.joint.fixed]
    _, by_eta, by_v = population_mean(fit.family, eta, v)
    gradient = by_eta[:, None] * of_beta + by_v[:, None] * slopes
    se_of_link = np.sqrt(variance.variances(L))
    # Clusters may not show the variance of a mean, of the linear predictor and so of this.
    gradient[np.isnan(se_of_link)] = np.nan
    return PopulationScale(
        scale.name,
        scale.way,
        hint=f"estimates are the {scale.shown}, averaged over the random effects",
        family=fit.family,
        v=v,
        se=np.sqrt(np.einsum("ms,ms->m", gradient, gradient)),
        se_of_link=se_of_link,
        gradient=gradient,
    )
