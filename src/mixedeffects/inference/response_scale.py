"""The scale that estimates are given on: that of the fit, or back at the response's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.options import checked_choice, checked_flag, checked_number
from mixedeffects.covariance.mean_variances import term_variances
from mixedeffects.errors import ModelError
from mixedeffects.fitting.data_summary import data_summary
from mixedeffects.fitting.fit import Fit, once_per_fit
from mixedeffects.fitting.request import NewResponse, given_data
from mixedeffects.formula.formula import parse_formula
from mixedeffects.formula.syntax import Name, Node, deparse
from mixedeffects.formula.transformation_reader import read_transformation
from mixedeffects.formula.transformations import Transformation
from mixedeffects.formula.values import Factor

__all__ = ["TYPES", "ResponseScale", "response_scale", "response_transformation"]

Matrix = NDArray[np.float64]

TYPES = ("link", "response")


@dataclass(frozen=True)
class ResponseScale:
    """How estimates of a fit are shown.

    Attributes
    ----------
    name : str
        The left-hand side of the formula.
    way : Transformation or None
        Back to the original; None where estimates stay on the scale of the fit.
    spread : float
        Standard deviation that means on the original scale are adjusted for; 0 without.
    hint : str
        What a table says of the scale; empty where the response is a column as it is.
    is_of_differences : bool
        Whether it is the scale of comparisons.
    """

    name: str
    way: Transformation | None = None
    spread: float = 0.0
    hint: str = ""
    is_of_differences: bool = False

    @property
    def shown(self) -> str:
        """The name of what estimates are of."""
        return self.name if self.way is None else self.way.original

    @property
    def gives_ratios(self) -> bool:
        """Whether it is that of differences of logarithms, shown as ratios."""
        return self.way is not None and bool(self.way.logged) and self.is_of_differences

    def values(self, eta: Matrix) -> Matrix:
        """Values on the scale shown."""
        if self.way is None:
            return eta
        h, _, h2, _ = self.way.jet(eta)
        return h + 0.5 * self.spread**2 * h2 if self.spread else h

    def errors(self, eta: Matrix, se: Matrix) -> Matrix:
        """Standard errors on the scale shown, by the delta method."""
        return se if self.way is None else np.abs(self.slopes(eta)) * se

    def slopes(self, eta: Matrix) -> Matrix:
        """Derivative of the values shown by those of the fit."""
        if self.way is None:
            return np.ones_like(eta)
        _, h1, _, h3 = self.way.jet(eta)
        return h1 + 0.5 * self.spread**2 * h3 if self.spread else h1

    def bounds(self, low: Matrix, high: Matrix) -> tuple[Matrix, Matrix]:
        """Ends of intervals on the scale shown; a falling transformation changes them over."""
        if self.way is None:
            return low, high
        one, other = self.values(low), self.values(high)
        return (other, one) if self.way.falls else (one, other)

    def notes(self, eta: Matrix) -> list[str]:
        """What to say below a table of these estimates."""
        said = [self.hint] if self.hint else []
        if self.way is not None:
            beyond = int(self.way.outside(eta[np.isfinite(eta)]).sum())
            if beyond:
                said.append(
                    f"{beyond} of {len(eta)} estimates of {self.name} are beyond its range: they "
                    "are shown at its end"
                )
        return said

    def of_data(self, y: Matrix) -> Matrix:
        """Values of the fit's response as a picture of these estimates shows them."""
        return y if self.way is None else self.way.inverse(y)

    def of_differences(self, sums: Matrix) -> ResponseScale:
        """The scale of contrasts whose coefficients have these sums."""
        if self.way is None:
            return self
        if np.allclose(sums, 1.0):
            return self
        way = self.way.of_differences() if np.allclose(sums, 0.0, atol=1e-10) else None
        if way is None:
            return ResponseScale(self.name, hint=f"contrasts are of {self.name}")
        if way.is_affine:
            hint = f"contrasts are of {way.original}"
        else:
            hint = (
                f"estimates are ratios of {way.original}; tests are of differences of {self.name}"
            )
        return ResponseScale(self.name, way, hint=hint, is_of_differences=True)


def response_scale(
    fit: Fit,
    type: Any,
    bias_adjust: Any,
    sigma: Any,
    conditioned: Sequence[int] = (),
) -> ResponseScale:
    """The scale that options ask for.

    Parameters
    ----------
    fit : Fit
        The fit.
    type : {"link", "response"}
        The scale of the fit, or that of the response before its transformation.
    bias_adjust : bool
        Whether to add half the variance times the second derivative of the inverse.
    sigma : float or None
        Standard deviation of a response about the estimates; None takes that of the random effects
        not conditioned on and of the residual together.
    conditioned : sequence of int
        The terms whose random effects the estimates hold fixed.

    Raises
    ------
    ModelError
        If an option is not what it should be, or the way back is not known.
    """
    kind = checked_choice(type, "type", TYPES)
    adjusted = checked_flag(bias_adjust, "bias_adjust")
    if kind == "link" and (adjusted or sigma is not None):
        raise ModelError(
            "bias_adjust= and sigma= are for type='response': on the scale of the fit there is no "
            "bias to adjust for."
        )
    if sigma is not None and not adjusted:
        raise ModelError("sigma= is the standard deviation for bias_adjust=True; add that.")
    tree = _left_side(fit)
    name = deparse(tree)
    if isinstance(tree, Name):
        return ResponseScale(name)
    if kind == "link":
        return ResponseScale(name, hint=f"estimates are of {name}")
    way = response_transformation(fit)
    if isinstance(way, str):
        raise ModelError(way)
    spread = 0.0
    hint = f"estimates are of {way.original}, back from {name}"
    if adjusted:
        spread = total_spread(fit, conditioned) if sigma is None else checked_number(sigma, "sigma")
        if spread < 0.0:
            raise ModelError(f"sigma must not be negative; it is {spread:g}.")
        hint += f", adjusted for a standard deviation of {spread:.5g}"
    return ResponseScale(name, way, spread, hint)


@once_per_fit("response transformation")
def response_transformation(fit: Fit) -> Transformation | str:
    """The transformation of the response, or why it has no way back."""
    tree = _left_side(fit)
    text = deparse(tree)
    if isinstance(tree, Name):
        return Transformation(text, text)
    rows = data_summary(fit).response(tree)
    try:
        for name, value in rows.columns.items():
            if isinstance(value, Factor):
                raise ModelError(
                    f"type='response': `{name}` is categorical, so that `{text}` has no way back."
                )
        return read_transformation(tree, rows.columns, rows.n, rows.state)
    except ModelError as error:
        return str(error)


def _left_side(fit: Fit) -> Node:
    """What the formula says of the response.

    A refit to a new response has one in place of ``log(y)`` that stands for the same.
    """
    given = given_data(fit.request)
    if isinstance(given, NewResponse):
        formula = parse_formula(given.formula)
        if formula.response == given.name:
            return formula.response_tree
    return fit.frame.formula.response_tree


def total_spread(fit: Fit, conditioned: Sequence[int]) -> float:
    """Standard deviation of a response about a mean that conditions on these terms.

    Random effects with slopes have another variance in each row; theirs is averaged over the rows.
    Residuals have that of weight one.

    Raises
    ------
    ModelError
        If residuals have several variances beside those that weights give them.
    """
    if fit.residual is not None:
        model, design = fit.residual.model, fit.residual.model.design
        by_time = design.kind == "us" and not design.homogeneous
        if model.n_delta or by_time or design.kind == "known":
            raise ModelError(
                "The residual variance differs between rows, so bias_adjust=True needs to be told "
                "of which: sigma= is the standard deviation to adjust for."
            )
    others = [each for t, each in enumerate(term_variances(fit)) if t not in conditioned]
    return float(np.sqrt(fit.sigma**2 + sum(others)))
