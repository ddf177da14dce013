"""How much of the variance the model's parts account for: intraclass correlation and R2.

fixed     sample variance of X beta (divisor n - 1), offset left out
random    mean over the rows of z_i'G z_i = tr(Z G Z') / n, term by term tr(G_t Z_t'Z_t) / n
residual  mean of the diagonal of R, sigma^2 / w_i where residuals are independent
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from mixedeffects.base.options import checked_flag
from mixedeffects.covariance.mean_variances import random_variances, residual_variance
from mixedeffects.covariance.of_fit import R_of
from mixedeffects.display.comparison_table import values_html
from mixedeffects.display.result_table import ResultTable
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit, once_per_fit
from mixedeffects.fitting.in_table import unweighted_moments

__all__ = ["ICC", "R2", "Variances", "icc_of", "intraclass_correlation", "r2_of", "r_squared"]

_STRUCTURED = "residual variance: mean of the diagonal of R over the rows"
_WEIGHTED = "residual variance: mean of sigma^2 / w over the rows, because of the prior weights"


@dataclass(frozen=True, eq=False)
class Variances:
    """Mean variances of a row of the response, by source, in squared units of the response.

    Attributes
    ----------
    fixed : float
        Of the fixed part, between rows.
    random : Series
        Of the random effects, by grouping factor.
    residual : float
        Of the residual.
    weighted : bool
        Whether prior weights make the residual variance differ between rows.
    structured : bool
        Whether `residual=` or `variance=` does.
    said : str
        What the residual variance of a generalized model is made of.
    """

    fixed: float
    random: pd.Series
    residual: float
    weighted: bool
    structured: bool = False
    said: str = ""

    @property
    def total(self) -> float:
        """Sum of all."""
        return self.fixed + float(self.random.sum()) + self.residual

    @property
    def given_fixed(self) -> float:
        """Sum of those that the fixed part leaves."""
        return float(self.random.sum()) + self.residual

    def note(self) -> str:
        """A line on the residual variance where it is not sigma squared, else nothing."""
        if self.said:
            return f"\n  {self.said}"
        if self.structured:
            return f"\n  {_STRUCTURED}"
        return f"\n  {_WEIGHTED}" if self.weighted else ""


@dataclass(frozen=True, eq=False)
class ICC:
    """Intraclass correlation, made by `LinearMixedModel.icc`.

    Attributes
    ----------
    adjusted : float
        Random effects' share of the variance that the fixed effects leave.
    unadjusted : float
        Their share of all variance, that of the fixed part included.
    variances : Variances
        What they are made of.
    by_group : Series or None
        Adjusted share of each grouping factor, if asked for.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
    >>> m.icc()
    Intraclass correlation: adjusted 0.4185, unadjusted 0.4185
    """

    adjusted: float
    unadjusted: float
    variances: Variances = field(repr=False)
    by_group: pd.Series | None = None

    def to_frame(self) -> pd.DataFrame:
        """One row per kind; with ``by_group`` further rows, one per grouping factor.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> m.icc(by_group=True).to_frame()
                       ICC
        adjusted   0.41849
        unadjusted 0.41849
        Batch      0.41849
        """
        values = pd.Series({"adjusted": self.adjusted, "unadjusted": self.unadjusted}, name="ICC")
        parts = [values] if self.by_group is None else [values, self.by_group]
        return ResultTable.of(pd.concat(parts).rename("ICC").to_frame())

    def __repr__(self) -> str:
        lines = [
            f"Intraclass correlation: adjusted {self.adjusted:.4f}, "
            f"unadjusted {self.unadjusted:.4f}"
        ]
        if self.by_group is not None:
            width = max(map(len, map(str, self.by_group.index)))
            lines += [f"  {group!s:<{width}} {share:.4f}" for group, share in self.by_group.items()]
        return "\n".join(lines) + self.variances.note()

    def _repr_html_(self) -> str:
        return values_html("Intraclass correlation", self.to_frame(), self.variances.note())


@dataclass(frozen=True, eq=False)
class R2:
    """Nakagawa and Schielzeth's R2, made by `LinearMixedModel.r2`.

    Attributes
    ----------
    marginal : float
        Share of the variance explained by the fixed effects.
    conditional : float
        Share explained by fixed and random effects.
    variances : Variances
        What they are made of.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
    >>> m.r2()
    R2: marginal 0.0000, conditional 0.4185
    """

    marginal: float
    conditional: float
    variances: Variances = field(repr=False)

    def to_frame(self) -> pd.DataFrame:
        """One row per kind.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> m.r2().to_frame()
                         R2
        marginal    0.00000
        conditional 0.41849
        """
        values = {"marginal": self.marginal, "conditional": self.conditional}
        return ResultTable.of(pd.Series(values, name="R2").to_frame())

    def __repr__(self) -> str:
        text = f"R2: marginal {self.marginal:.4f}, conditional {self.conditional:.4f}"
        return text + self.variances.note()

    def _repr_html_(self) -> str:
        return values_html("R2", self.to_frame(), self.variances.note())


@once_per_fit("mean variances")
def variances(fit: Fit) -> Variances:
    """Mean variances by source; nothing n x n, and no V."""
    fixed, weighted = _of_fixed_part(fit)
    return Variances(
        fixed,
        pd.Series(random_variances(fit), name="variance"),
        residual_variance(fit),
        weighted,
        fit.residual is not None and bool(np.ptp(R_of(fit).diag()) > 1e-12 * fit.sigma**2),
    )


def _of_fixed_part(fit: Fit) -> tuple[float, bool]:
    """Variance of ``X beta`` over the rows, and whether these have weights other than one."""
    eps = float(np.finfo(np.float64).eps)
    if fit.rows is not None:
        moments, at = unweighted_moments(fit), fit.rows.columns.fixed
        variance = moments.variance(at, fit.beta)
        size = float(fit.beta @ moments.products(at) @ fit.beta) / fit.nobs
        weighted = fit.rows.model.weights is not None
        return (variance if variance > (8.0 * eps) ** 2 * size else 0.0), weighted
    linear = fit.frame.X @ fit.beta
    variance = float(np.var(linear, ddof=1))
    # Of a constant nothing but rounding is left.
    rounding = 8.0 * eps * float(np.abs(linear).max(initial=0.0))
    weights = fit.frame.weights
    weighted = weights is not None and bool(np.ptp(weights) > 0.0 or weights[0] != 1.0)
    return (variance if variance > rounding**2 else 0.0), weighted


def intraclass_correlation(fit: Fit, by_group: bool) -> ICC:
    """See `LinearMixedModel.icc`."""
    by_group = checked_flag(by_group, "by_group")
    if not fit.frame.terms:
        raise ModelError(
            "The model has no random effects, whose share of the variance the intraclass "
            "correlation is; m.R has the correlations of its residuals."
        )
    return icc_of(variances(fit), by_group)


def icc_of(v: Variances, by_group: bool) -> ICC:
    """Shares of the random effects in variances by source."""
    random = float(v.random.sum())
    shares = (v.random / v.given_fixed).rename("ICC") if by_group else None
    return ICC(random / v.given_fixed, random / v.total, v, shares)


def r_squared(fit: Fit) -> R2:
    """See `LinearMixedModel.r2`."""
    return r2_of(variances(fit))


def r2_of(v: Variances) -> R2:
    """Shares of the fixed part, and of all effects, in variances by source."""
    return R2(v.fixed / v.total, (v.fixed + float(v.random.sum())) / v.total, v)
