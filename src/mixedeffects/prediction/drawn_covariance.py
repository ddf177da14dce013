"""V that responses are drawn with in a design: that of a fit, or what is given in its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import scipy.sparse

from mixedeffects.base.caching import cached_property
from mixedeffects.covariance.given_residual import GivenResidual, read_residual_values
from mixedeffects.covariance.of_fit import varcorr_of
from mixedeffects.covariance.of_residuals import factors_of_rows
from mixedeffects.covariance.varcorr import VarCorr
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.refitting import UNCHANGED
from mixedeffects.fitting.request import given_table
from mixedeffects.fitting.residual_parameters import reported_residual_parameters
from mixedeffects.formula import ResidualSpec, read_residual
from mixedeffects.frame.ingest import column_names, materialised, take_columns
from mixedeffects.frame.known_covariance import KnownCovariance
from mixedeffects.frame.variables import data_columns
from mixedeffects.frame.variance_columns import read_variance
from mixedeffects.inference.contrasts import listed_names
from mixedeffects.prediction.planned import PlannedCovariance, planned_covariance

__all__ = ["DrawnCovariance", "GroupsOfRows", "known_covariance"]


def known_covariance(fit: Fit) -> KnownCovariance | None:
    """The matrix that a fit was given for its residuals, for the rows used."""
    term = fit.frame.residual
    return None if term is None or term.given is None else KnownCovariance(term.given)


@dataclass(frozen=True)
class GroupsOfRows:
    """Groups of rows, by the variables whose combinations they are.

    Attributes
    ----------
    variables : tuple of str
        The variables.
    n_levels : int
        Number of groups.
    """

    variables: tuple[str, ...]
    n_levels: int

    @property
    def group(self) -> str:
        """Their name."""
        return ":".join(self.variables)


@dataclass(frozen=True, eq=False)
class DrawnCovariance:
    """What V in a design is made of.

    Attributes
    ----------
    fit : Fit
        The fit.
    varcorr, sigma, R : optional
        Values in place of the estimates; None for these.
    residual, variance : optional
        Structure in place of that of the fit.
    """

    fit: Fit
    varcorr: Any = None
    sigma: float | None = None
    R: Any = None
    residual: Any = UNCHANGED
    variance: Any = UNCHANGED

    def __post_init__(self) -> None:
        if isinstance(self.residual, KnownCovariance):
            raise ModelError(
                "residual= of `power` is a structure, such as 'ar1(week | id)': a matrix of known "
                "covariances belongs to the rows of one design. Fit the model with it."
            )

    def in_design(self, data: pd.DataFrame, weights: str | None) -> PlannedCovariance:
        """V of the rows of a design that has the variables of the fit.

        Parameters
        ----------
        data : DataFrame
            Rows of the design.
        weights : str or None
            Their column of prior weights.
        """
        fit = self.fit
        residual, variance = self._structure
        if isinstance(residual, KnownCovariance):
            if len(data) != fit.nobs:
                raise ModelError(
                    "The covariance of the residuals was given for the rows of the fit, and says "
                    "nothing of a design of another size: leave n out."
                )
            residual = known_covariance(fit)
        if not fit.frame.terms and residual is None and variance is None:
            # A linear model with a known sigma: independent errors, given as a matrix.
            residual = KnownCovariance(scipy.sparse.eye_array(len(data), format="csr"))
        otherwise = fit.sigma if self.varcorr is None else getattr(self.varcorr, "sigma", None)
        return planned_covariance(
            fit.formula,
            data,
            G=varcorr_of(fit) if self.varcorr is None else self.varcorr,
            sigma=self.sigma,
            otherwise=otherwise,
            weights=weights,
            contrasts=fit.request.contrasts,
            residual=residual,
            variance=variance,
            given=self._given(),
        )

    # --- the variables of a design ---------------------------------------------------------

    def rows(self) -> pd.DataFrame:
        """The variables of the fit, and those of the structure that errors are drawn with."""
        fit = self.fit
        data = fit.frame.data.reset_index(drop=True)
        missing = [v for v in (*self._group, *self.fixed_in_groups) if v not in data.columns]
        if missing:
            more = take_columns(materialised(given_table(fit.request)), missing)
            for name in missing:
                data[name] = more[name].iloc[fit.frame.positions].array
        return data

    def factors(self, data: pd.DataFrame) -> list[GroupsOfRows]:
        """Groups that there can be more of: of random effects and residuals, outermost last."""
        names = [factor.variables for factor in factors_of_rows(self.fit)]
        if tuple(sorted(self._group)) not in {tuple(sorted(own)) for own in names}:
            names.append(self._group)
        found = [
            GroupsOfRows(own, int(data.groupby(list(own), observed=True).ngroups))
            for own in names
            if own
        ]
        return sorted(found, key=lambda each: -each.n_levels)

    @cached_property
    def positions(self) -> list[str]:
        """Variables that say where in its residual group a row is."""
        trees = [] if self._spec is None else list(self._spec.position)
        return data_columns(trees, self._columns)

    @property
    def fixed_in_groups(self) -> list[str]:
        """Those, and what variances follow or parameters differ by."""
        names = list(self.positions)
        if self._spec is not None and self._spec.by is not None:
            names.append(self._spec.by)
        variance = self._structure[1]
        if variance is not None:
            names += data_columns(list(read_variance(variance)[1].variables), self._columns)
        return list(dict.fromkeys(names))

    @cached_property
    def _spec(self) -> ResidualSpec | None:
        residual = self._structure[0]
        return read_residual(residual) if isinstance(residual, str) else None

    @property
    def _group(self) -> tuple[str, ...]:
        return () if self._spec is None else self._spec.variables

    @cached_property
    def _columns(self) -> list[str]:
        return column_names(materialised(given_table(self.fit.request)))

    # --- the parameters --------------------------------------------------------------------

    @property
    def _structure(self) -> tuple[Any, Any]:
        """Of the errors that are drawn, ``residual`` and ``variance``."""
        own = self.fit.request
        return (
            own.residual if self.residual is UNCHANGED else self.residual,
            own.variance if self.variance is UNCHANGED else self.variance,
        )

    def _given(self) -> GivenResidual:
        """The parameters of R: as given, the others as in the fit."""
        own = self.fit.request
        if self.R is None and self._structure == (None, None):
            return replace(read_residual_values(None, self.varcorr), name="varcorr")
        base = self._of_varcorr()
        if base is None and self._structure == (own.residual, own.variance):
            base = self._estimated()
        if base is None or (self.R is not None and not isinstance(self.R, (Mapping, pd.Series))):
            return GivenResidual() if self.R is None else read_residual_values(self.R, None)
        if self.R is None:
            return base
        given = self.R
        known = [each.label for each in reported_residual_parameters(self.fit)]
        for name in given.keys():  # noqa: SIM118 - of a Series too
            if name not in known and self._structure == (own.residual, own.variance):
                raise ModelError(
                    f"R names {name!r:.60}, which is not one of {listed_names(known)}."
                )
        return base.replaced_by(read_residual_values(given, None))

    def _of_varcorr(self) -> GivenResidual | None:
        """What is given with the variance components of another fit."""
        if not isinstance(self.varcorr, VarCorr) or not self.varcorr.residuals:
            return None
        given = read_residual_values(None, self.varcorr)
        return self._less_deviations(replace(given, name="varcorr"))

    def _estimated(self) -> GivenResidual:
        frame = self.fit.frame
        values = {each.label: each.value for each in reported_residual_parameters(self.fit)}
        return self._less_deviations(
            GivenResidual(
                values,
                residual="" if frame.residual is None else frame.residual.text,
                variance="" if frame.variance is None else frame.variance.text,
                term=frame.residual,
            )
        )

    def _less_deviations(self, given: GivenResidual) -> GivenResidual:
        """Without the standard deviations that one of another place stands for."""
        is_of_others = isinstance(self.varcorr, VarCorr) and not self.varcorr.residuals
        if self.sigma is None and not is_of_others:
            return given
        return given.less_deviations()
