"""Fits of several imputed data sets as one answer: tables and tests by Rubin's rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.habits import OF_POOLED_FITS, unknown_attribute
from mixedeffects.base.options import checked_flag, checked_level, checked_names
from mixedeffects.covariance.parameter_rows import parameter_rows
from mixedeffects.covariance.varcorr import VarCorr
from mixedeffects.display.frame_text import frame_table
from mixedeffects.display.result_table import ResultTable
from mixedeffects.display.shown_tables import ShownTables
from mixedeffects.display.tables import Table
from mixedeffects.display.vocabulary import INTERVAL, intervals_at
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.inference.contrasts import contrast_matrix
from mixedeffects.inference.estimability import all_columns
from mixedeffects.inference.estimates import Estimates, fixed_rows, tests_table
from mixedeffects.inference.joint_tests import joint_tests
from mixedeffects.inference.linear_functions import named_contrasts
from mixedeffects.inference.marginal_means import MarginalMeans, marginal_means
from mixedeffects.inference.ratios import exponentiated, ratio_of
from mixedeffects.inference.reference_grid import reference_grid
from mixedeffects.inference.rubins_rules import RubinsRules
from mixedeffects.inference.variance import FixedEffectsVariance
from mixedeffects.inference.wald import checked_type, term_hypotheses
from mixedeffects.inference.wald_result import WaldTest

__all__ = ["PooledFits"]

Matrix = NDArray[np.float64]

_EFFECTS = ("fixed", "ran_pars")


@dataclass(frozen=True, eq=False, repr=False)
class PooledFits(ShownTables):
    """Fits of imputed data sets, pooled by Rubin's rules; made by `pool`.

    Attributes
    ----------
    estimates : Series, length p
        Means of the fixed effects, in units of the response per unit of the column.
    within : DataFrame, p x p
        Mean U of their covariance matrices.
    between : DataFrame, p x p
        Covariance matrix B of the estimates over the fits, divisor m - 1.
    vcov : DataFrame, p x p
        Total covariance matrix ``T = U + (1 + 1/m) B``.
    varcorr : VarCorr
        Means of the variances and covariances of the random effects and of the residual variance.
    fits : tuple of Fit
        The fits, in the order given.
    method : str
        Where the complete data's degrees of freedom come from.
    notes : tuple of str
        What to know about the fits.
    phi : float or None
        Geometric mean of the estimated parameter of the family of generalized models, such as theta
        of the negative binomial one; None where there is none.

    References
    ----------
    Rubin, D. B. (1987). Multiple Imputation for Nonresponse in Surveys. Wiley.

    Examples
    --------
    >>> import numpy as np
    >>> import mixedeffects as me
    >>> sleep = me.load_dataset("sleepstudy")
    >>> rng = np.random.default_rng(1)
    >>> noisy = [sleep.assign(Days=sleep["Days"] + rng.normal(0, 0.5, 180)) for _ in range(5)]
    >>> pooled = me.pool([me.lmer("Reaction ~ Days + (1 | Subject)", data) for data in noisy])
    >>> pooled.wald("Days").num_df, pooled.m
    (1, 5)
    """

    estimates: pd.Series
    within: pd.DataFrame
    between: pd.DataFrame
    vcov: pd.DataFrame
    varcorr: VarCorr
    fits: tuple[Fit, ...]
    method: str
    notes: tuple[str, ...]
    _variances: tuple[FixedEffectsVariance, ...] = field(repr=False)
    _parameters: pd.Series = field(repr=False)
    phi: float | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise unknown_attribute(name, "A set of pooled fits", OF_POOLED_FITS, dir(self))

    @property
    def m(self) -> int:
        """Number of fits.

        Examples
        --------
        >>> import mixedeffects as me
        >>> sleep = me.load_dataset("sleepstudy")
        >>> shifted = [sleep.assign(Days=sleep["Days"] + 0.1 * i) for i in range(3)]
        >>> pooled = me.pool([me.lmer("Reaction ~ Days + (1 | Subject)", d) for d in shifted])
        >>> pooled.m
        3
        """
        return len(self.fits)

    # --- tables --------------------------------------------------------------------------

    def coef_table(self, level: float = 0.95) -> ResultTable:
        """Pooled estimates with tests, intervals, and what the missing values cost.

        Parameters
        ----------
        level : float
            Confidence level.

        Returns
        -------
        ResultTable, p rows
            Columns ``Estimate``, ``Std. Error``, ``df``, ``t value``, ``Pr(>|t|)``, ``lower``,
            ``upper``; ``RIV``, the relative increase of the variance ``(1 + 1/m) B / U``; and
            ``FMI``, the fraction of missing information.

        References
        ----------
        Barnard, J. and Rubin, D. B. (1999). Small-sample degrees of freedom with multiple
        imputation. Biometrika 86, 948-955.

        Examples
        --------
        >>> import mixedeffects as me
        >>> sleep = me.load_dataset("sleepstudy")
        >>> shifted = [sleep.assign(Days=sleep["Days"] + 0.1 * i) for i in range(3)]
        >>> pooled = me.pool([me.lmer("Reaction ~ Days + (1 | Subject)", d) for d in shifted])
        >>> list(pooled.coef_table())[-4:]
        ['lower', 'upper', 'RIV', 'FMI']
        """
        return self._r_style(np.eye(len(self.estimates)), list(self.estimates.index), level)

    def contrast(self, hypothesis: Any, level: float = 0.95) -> ResultTable:
        """Linear combinations of the pooled fixed effects, each by itself.

        Parameters
        ----------
        hypothesis
            As for `LinearMixedModel.contrast`: names, a matrix, or a mapping of labels to
            contrasts.
        level : float
            Confidence level.

        Returns
        -------
        ResultTable, one row per contrast
            Columns as of `coef_table`.

        Raises
        ------
        ModelError
            If a name is not known or the contrasts do not fit the fixed effects.

        Examples
        --------
        >>> import mixedeffects as me
        >>> sleep = me.load_dataset("sleepstudy")
        >>> shifted = [sleep.assign(Days=sleep["Days"] + 0.1 * i) for i in range(3)]
        >>> pooled = me.pool([me.lmer("Reaction ~ Days + (1 | Subject)", d) for d in shifted])
        >>> week = pooled.contrast({"a week": {"Days": 7}})
        >>> week[["Estimate", "Std. Error", "RIV"]].round(2)
               Estimate Std. Error  RIV
        a week    73.27       5.63 0.00
        ---
        95 % intervals
        180 rows in each fit, by REML; complete data: t-tests use Satterthwaite's method
        """
        L, constant = named_contrasts(self.fits[0].frame, hypothesis)
        return self._r_style(L.to_numpy(), list(L.index), level, constant)

    def tidy(
        self,
        effects: str | Sequence[str] = ("fixed", "ran_pars"),
        level: float | None = None,
        exponentiate: bool = False,
    ) -> ResultTable:
        """One row per parameter, with broom's column names, dots written as underscores.

        Parameters
        ----------
        effects : {"fixed", "ran_pars"} or both
            Fixed effects; standard deviations and correlations, which are those of the mean
            variances and covariances.
        level : float, optional
            Confidence level of the fixed effects' intervals; by default there are none.
        exponentiate : bool
            Of generalized fits: fixed effects and their intervals as ratios, as
            `GeneralizedLinearMixedModel.tidy` has them.

        Returns
        -------
        DataFrame
            Columns as of `LinearMixedModel.tidy`, and for fixed effects ``riv``, the relative
            increase of the variance, and ``fmi``, the fraction of missing information.

        Raises
        ------
        ModelError
            If an effect is not known, or coefficients on the scale of the fits are no logarithms.

        Examples
        --------
        >>> import mixedeffects as me
        >>> sleep = me.load_dataset("sleepstudy")
        >>> shifted = [sleep.assign(Days=sleep["Days"] + 0.1 * i) for i in range(3)]
        >>> pooled = me.pool([me.lmer("Reaction ~ Days + (1 | Subject)", d) for d in shifted])
        >>> pooled.tidy("ran_pars")[["group", "term", "estimate"]].round(1)
        group    term            estimate
        Subject  sd__(Intercept)     37.1
        Residual sd__Observation     31.0
        """
        wanted = checked_names(effects, "effects")
        unknown = [name for name in wanted if name not in _EFFECTS]
        if unknown or not wanted:
            raise ModelError(
                f"effects {unknown or wanted} are not known for pooled fits; there are 'fixed' and "
                "'ran_pars'."
            )
        if checked_flag(exponentiate, "exponentiate"):
            ratio_of(self.fits[0])
        makers = {"fixed": lambda: self._fixed(level, exponentiate), "ran_pars": self._random}
        table = pd.concat([makers[name]() for name in wanted], ignore_index=True)
        return ResultTable.of(pd.DataFrame(table))

    def glance(self) -> ResultTable:
        """One row about the whole: what is defined for pooled fits.

        Likelihoods of different imputed data sets are those of different data, so there are no
        information criteria.

        Returns
        -------
        ResultTable, one row
            ``nimp``, the number of fits; ``nobs``, of rows in each; ``sigma``, the root of the mean
            residual variance or dispersion; ``riv_mean`` and ``fmi_max`` over the fixed effects;
            ``converged``, whether all fits are.

        Examples
        --------
        >>> import mixedeffects as me
        >>> sleep = me.load_dataset("sleepstudy")
        >>> shifted = [sleep.assign(Days=sleep["Days"] + 0.1 * i) for i in range(3)]
        >>> pooled = me.pool([me.lmer("Reaction ~ Days + (1 | Subject)", d) for d in shifted])
        >>> pooled.glance()[["nimp", "nobs", "converged"]]
        nimp nobs converged
           3  180 True
        """
        rules = self._rubin.of(np.eye(len(self.estimates)))
        row = pd.DataFrame(
            {
                "nimp": [self.m],
                "nobs": [self.fits[0].nobs],
                "sigma": [float(np.sqrt(np.mean([fit.sigma**2 for fit in self.fits])))],
                "riv_mean": [float(np.mean(rules["riv"])) if len(rules) else np.nan],
                "fmi_max": [float(np.max(rules["fmi"])) if len(rules) else np.nan],
                "converged": [all(fit.optimum.converged for fit in self.fits)],
            }
        )
        return ResultTable.of(row)

    # --- joint tests ---------------------------------------------------------------------

    def wald(self, hypothesis: Any) -> WaldTest:
        """Test that fixed effects, or linear combinations of them, are all zero: the test D1.

        Parameters
        ----------
        hypothesis
            As for `LinearMixedModel.wald`: a term, names of coefficients, or a matrix.

        Returns
        -------
        WaldTest
            The statistic is the mean estimates' own Wald statistic with U as covariance matrix,
            divided by one plus the average relative increase of the variances; ``scaling`` is the
            factor. One contrast by itself has the df of `coef_table`, several Reiter's.

        Raises
        ------
        ModelError
            If a name is not known, or the contrasts do not fit the fixed effects or are linearly
            dependent.

        References
        ----------
        Li, K. H., Raghunathan, T. E. and Rubin, D. B. (1991). Large-sample significance levels
        from multiply imputed data using moment-based statistics and an F reference distribution.
        Journal of the American Statistical Association 86, 1065-1073.

        Reiter, J. P. (2007). Small-sample degrees of freedom for multi-component significance
        tests with multiple imputation for missing data. Biometrika 94, 502-508.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cake = me.load_dataset("cake")
        >>> shifted = [cake.assign(angle=cake["angle"] + i * cake["temp"] / 50) for i in range(4)]
        >>> pooled = me.pool(
        ...     [me.lmer("angle ~ recipe + temp + (1 | recipe:replicate)", d) for d in shifted]
        ... )
        >>> pooled.wald("recipe")
        D1: F(2, 40.1) = 0.2488, p = 0.7809
        """
        L = contrast_matrix(self.fits[0].frame, hypothesis)
        return self._rubin.joint(L)[0]

    def anova(self, type: int | str = 3) -> ResultTable:
        """Joint tests D1 of the terms of the fixed part.

        Parameters
        ----------
        type : {3, 2, 1}
            Hypotheses as for `LinearMixedModel.anova`. Those of types 1 and 2 depend on the data;
            their means over the data sets are tested.

        Returns
        -------
        ResultTable, one row per term
            Columns ``NumDF``, ``DenDF``, ``F value``, ``Pr(>F)`` and ``RIV``, the average relative
            increase of the variances; NaN for a term without columns.

        Raises
        ------
        ModelError
            If ``type`` is not known.

        References
        ----------
        As for `wald`.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cake = me.load_dataset("cake")
        >>> shifted = [cake.assign(angle=cake["angle"] + i * cake["temp"] / 50) for i in range(4)]
        >>> pooled = me.pool(
        ...     [me.lmer("angle ~ recipe + temp + (1 | recipe:replicate)", d) for d in shifted]
        ... )
        >>> pooled.anova()[["NumDF", "F value"]].round(2)
               NumDF F value
        recipe     2    0.25
        temp       1   32.25
        ---
        type 3, pooled over 4 fits
        """
        kind = checked_type(type)
        hypotheses = [term_hypotheses(fit, kind) for fit in self.fits]
        rows = {}
        for label in hypotheses[0]:
            L = np.mean([own[label] for own in hypotheses], axis=0)
            row: tuple[float, ...] = (np.nan,) * 5
            if len(L):
                test, riv = self._rubin.joint(L)
                row = (test.num_df, test.den_df, test.statistic, test.p, riv)
            rows[label] = row
        columns = ["NumDF", "DenDF", "F value", "Pr(>F)", "RIV"]
        table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
        return ResultTable.of(table, (f"type {kind}, pooled over {self.m} fits",))

    # --- means ---------------------------------------------------------------------------

    def emmeans(
        self,
        specs: str | Sequence[str],
        by: str | Sequence[str] | None = None,
        at: Mapping[str, Any] | None = None,
        weights: Literal["equal", "proportional", "cells"] = "equal",
        level: float = 0.95,
        adjust: str = "none",
        type: Literal["link", "response"] = "link",
    ) -> MarginalMeans:
        """Estimated marginal means of the pooled fits, with comparisons and pictures.

        Parameters
        ----------
        specs, by, at, weights, level, adjust, type
            As for `LinearMixedModel.emmeans`. A number not in ``at`` is held at the mean, over the
            data sets, of its means; counts of rows for ``weights`` are those of the first.

        Returns
        -------
        MarginalMeans
            Degrees of freedom are Barnard and Rubin's of each mean and of each comparison.

        Raises
        ------
        ModelError
            If a variable is not in the fixed part, or a level, value or option is not known.

        References
        ----------
        Barnard, J. and Rubin, D. B. (1999). Small-sample degrees of freedom with multiple
        imputation. Biometrika 86, 948-955.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cake = me.load_dataset("cake")
        >>> shifted = [cake.assign(angle=cake["angle"] + i * cake["temp"] / 50) for i in range(4)]
        >>> pooled = me.pool(
        ...     [me.lmer("angle ~ recipe + temp + (1 | recipe:replicate)", d) for d in shifted]
        ... )
        >>> pooled.emmeans("recipe").contrasts("trt.vs.ctrl").to_frame()
        contrast estimate std_error   df statistic p_value conf_low conf_high
        B - A      -1.478     2.456 40.1     -0.60    .773   -7.109     4.153
        C - A      -1.522     2.456 40.1     -0.62    .761   -7.153     4.109
        ---
        at temp = 200
        p-values: multivariate t distribution, 2 comparisons
        95 % intervals (adjusted alike); pooled over 4 fits; complete data: t-tests use ...
        """
        held = {name: value for name, value in self._held(at).items() if name not in (at or {})}
        return marginal_means(
            self.fits[0],
            specs,
            by,
            {**held, **(at or {})} or None,
            weights,
            level,
            "satterthwaite",
            "model",
            None,
            adjust,
            type=type,
            pooled=(self.estimates.to_numpy(), self._rubin.variance),
        )

    def joint_tests(
        self,
        by: str | Sequence[str] | None = None,
        at: Mapping[str, Any] | None = None,
        weights: Literal["equal", "proportional", "cells"] = "equal",
    ) -> ResultTable:
        """Tests D1 of each factor and interaction by marginal means, also within levels of ``by``.

        Parameters
        ----------
        by, at, weights
            As for `LinearMixedModel.joint_tests`.

        Returns
        -------
        ResultTable, one row per test
            Columns as there.

        Raises
        ------
        ModelError
            If a name or option is not known, or nothing is left to be tested.

        References
        ----------
        As for `wald`.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cake = me.load_dataset("cake")
        >>> shifted = [cake.assign(angle=cake["angle"] + i * cake["temp"] / 50) for i in range(4)]
        >>> pooled = me.pool(
        ...     [me.lmer("angle ~ recipe * temp + (1 | recipe:replicate)", d) for d in shifted]
        ... )
        >>> pooled.joint_tests().drop(columns="note")["statistic"].round(2).tolist()
        [0.25, 32.18, 0.04]
        """
        groups = [] if by is None else checked_names(by, "by")
        around = {
            name: value if name in groups else [value - 1.0, value + 1.0]
            for name, value in self._held(at).items()
        }
        return joint_tests(
            self.fits[0],
            by,
            {**around, **(at or {})} or None,
            weights,
            "satterthwaite",
            "model",
            None,
            pooled=(self.estimates.to_numpy(), self._rubin.variance, self._rubin.f_statistic),
        )

    # --- computing -----------------------------------------------------------------------

    def _held(self, at: Any) -> dict[str, float]:
        """Numbers that a reference grid holds at one value, at the mean over the data sets."""
        grids = [reference_grid(fit, all_columns(fit), at) for fit in self.fits]
        return {
            v.name: float(np.mean([np.mean(grid[v.name].points) for grid in grids]))
            for v in grids[0].variables
            if v.kind == "number" and not v.counted and not v.chosen
        }

    @property
    def _rubin(self) -> RubinsRules:
        """What is computed from the estimates and their variances."""
        return RubinsRules(self.estimates, self.between.to_numpy(), self._variances, self.method)

    def _r_style(
        self, L: Matrix, labels: list[str], level: float, constant: Matrix | float = 0.0
    ) -> ResultTable:
        level = checked_level(level)
        found = self._rubin.of(L)
        found["estimate"] = found["estimate"] + constant
        own = (found[name].to_numpy() for name in ("estimate", "std_error", "df"))
        table = tests_table(Estimates(*own), labels, level, "")
        table["RIV"], table["FMI"] = found["riv"].to_numpy(), found["fmi"].to_numpy()
        return ResultTable.of(table, (intervals_at(level), *self.notes))

    def _fixed(self, level: float | None, ratios: bool) -> pd.DataFrame:
        table: pd.DataFrame = self.coef_table(0.95 if level is None else level)
        if ratios:
            table = exponentiated(table)
        rows = fixed_rows(table if level is not None else table.drop(columns=list(INTERVAL)))
        return rows.assign(riv=table["RIV"].to_numpy(), fmi=table["FMI"].to_numpy())

    def _random(self) -> pd.DataFrame:
        structured = self.fits[0].frame.structured_terms
        rows = parameter_rows(self.varcorr, structured, self._parameters)
        if self.phi is not None:
            rows.append(("Family", str(self.fits[0].family_parameter), self.phi))
        groups, names, values = zip(*rows, strict=True)
        unknown = dict.fromkeys(("std_error", "statistic", "df", "p_value"), np.nan)
        return pd.DataFrame(
            {"effect": "ran_pars", "group": groups, "term": names, "estimate": values, **unknown}
        )

    # --- shown ---------------------------------------------------------------------------

    def _table(self) -> Table:
        table = frame_table(self.coef_table().drop(columns=["lower", "upper"]), self.notes)
        family = self.fits[0].request.family
        model = self.fits[0].formula if family is None else f"{self.fits[0].formula}, {family}"
        caption = f"{model}, pooled over {self.m} fits by Rubin's rules"
        return replace(table, caption=caption)

    def _parts(self) -> list[Table]:
        return [self._table()]
