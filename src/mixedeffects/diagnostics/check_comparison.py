"""The data beside data sets drawn from the fitted model, made when a check first asks for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.caching import cached_property
from mixedeffects.diagnostics.check_curves import Curves
from mixedeffects.diagnostics.check_draws import Simulated, is_refitted, kept_rows, observed
from mixedeffects.diagnostics.check_outcomes import Outcomes
from mixedeffects.diagnostics.check_statistics import ordered
from mixedeffects.diagnostics.check_structured import normalized_variances
from mixedeffects.diagnostics.leverage import affordable_leverage, leverage
from mixedeffects.fitting.fit import Fit

__all__ = ["Comparison"]

Matrix = NDArray[np.float64]
Positions = NDArray[np.intp]

#: Share of a row's variance that its own fitted value leaves, below which it has no residual.
_NO_RESIDUAL = 1e-8
#: Rows up to which the variances of normalized residuals are computed.
_AFFORDABLE_ROWS = 5_000
#: Different values of the response up to which its form is remarked on.
_FEW_VALUES = 10


@dataclass(eq=False)
class Comparison:
    """The data and data sets drawn from the fit.

    Parameters
    ----------
    fit : Fit
        The fit.
    count : int
        How many data sets to draw.
    entropy : int
        Seed.
    level : float
        At which p-values are judged.
    """

    fit: Fit
    count: int
    entropy: int
    level: float

    @property
    def asked(self) -> bool:
        """Whether data sets were drawn."""
        return "draws" in vars(self)

    @property
    def kind(self) -> str:
        """What the residuals looked at are called."""
        return "studentized" if self.fit.residual is None else "normalized"

    @cached_property
    def rows(self) -> Positions:
        """The rows looked at."""
        return kept_rows(self.fit, self.entropy)

    @cached_property
    def curves(self) -> Curves:
        """Squares of covariates, as further columns of X."""
        return Curves.of(self.fit)

    @cached_property
    def data(self) -> Outcomes:
        """What the fit makes of the data."""
        return observed(self.fit, self.rows, self.curves.columns)

    @cached_property
    def batches(self) -> Simulated:
        """The data sets drawn from it, which can be drawn one batch after the other."""
        return Simulated(self.fit, self.rows, self.curves.columns, self.count, self.entropy)

    @cached_property
    def draws(self) -> Outcomes:
        """What it makes of the data sets drawn from it."""
        return self.batches.outcomes()

    @cached_property
    def usable(self) -> Positions:
        """Which of the rows looked at have a residual that the model leaves free."""
        return np.flatnonzero(self._shares_left > _NO_RESIDUAL)

    @cached_property
    def residuals(self) -> Matrix:
        """Studentized residuals of usable rows, shape (n, 1)."""
        return self._studentized(self.data.residuals)

    @cached_property
    def drawn_residuals(self) -> Matrix:
        """The same of the data sets drawn, one a column."""
        return self._studentized(self.draws.residuals)

    @cached_property
    def ordered_residuals(self) -> Matrix:
        """Those of the data sets drawn, each in ascending order."""
        return ordered(self.drawn_residuals)

    @cached_property
    def ordered_ranks(self) -> Matrix:
        """Ranks of the data sets drawn, each in ascending order."""
        return ordered(self.draws.ranks)

    @cached_property
    def _shares_left(self) -> Matrix:
        """Variance of each scaled residual: by the leverage, or where that takes long, as drawn."""
        if self.fit.residual is not None:
            if self.fit.nobs <= _AFFORDABLE_ROWS:
                return normalized_variances(self.fit)
            # The data count as one more, so that they and the draws are treated alike.
            squares = np.sum(self.draws.residuals**2, axis=1) + self.data.residuals[:, 0] ** 2
            return np.asarray(squares / (self.draws.count + 1.0))
        if affordable_leverage(self.fit):
            return np.asarray(1.0 - leverage(self.fit, "total")[self.rows])
        return np.asarray(np.mean(self.draws.residuals**2, axis=1))

    def _studentized(self, residuals: Matrix) -> Matrix:
        out: Matrix = residuals[self.usable]
        out /= np.sqrt(self._shares_left[self.usable])[:, None]
        return out

    def notes(self) -> list[str]:
        """What was done, and what was left out, in sentences."""
        if not self.asked:
            return []
        fit, made = self.fit, self.draws.count
        how = (
            "and fitted again"
            if is_refitted(fit)
            else "; the form of V was held in them, for fitting again would take long"
        )
        if how[0] != ";":
            how = f" {how}"
        out = [f"P-values compare with {made:,} data sets drawn from the fit{how}."]
        if made < self.count:
            left = self.count - made
            out.append(f"{left:,} of {self.count:,} data sets could not be fitted again.")
        if fit.residual is not None:
            out.append(
                "Residuals are the normalized ones, which the model makes uncorrelated and of one "
                "variance: m.resid('normalized')."
            )
        if len(self.rows) < fit.nobs:
            out.append(
                f"Residuals were looked at in a sample of {len(self.rows):,} of {fit.nobs:,} rows."
            )
        if len(self.usable) < len(self.rows):
            count = len(self.rows) - len(self.usable)
            out.append(f"{count:,} rows determine their own fitted values: not among residuals.")
        different = len(np.unique(fit.frame.y))
        if different <= _FEW_VALUES:
            out.append(
                f"The response has {different} different values only: no normal distribution gives "
                "that, and checks of its form will say so."
            )
        return out
