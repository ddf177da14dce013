"""One answer from the fits of several imputed data sets, by Rubin's rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.arrays import read_only
from mixedeffects.base.options import checked_level, checked_names, plain
from mixedeffects.covariance.parameter_rows import parameter_rows
from mixedeffects.covariance.varcorr import VarCorr
from mixedeffects.display.frame_text import frame_table
from mixedeffects.display.result_table import ResultTable
from mixedeffects.display.tables import Table
from mixedeffects.display.vocabulary import INTERVAL, intervals_at
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit, HoldsFit, fit_of
from mixedeffects.fitting.natural import covariance_parameters
from mixedeffects.inference.contrasts import contrast_matrix
from mixedeffects.inference.estimates import Estimates, fixed_rows, tests_table
from mixedeffects.inference.imputation_rules import (
    barnard_rubin_df,
    missing_information,
    reiter_df,
)
from mixedeffects.inference.linear_functions import named_contrasts
from mixedeffects.inference.variance import FixedDf, FixedEffectsVariance
from mixedeffects.inference.variance_by_name import fixed_effects_variance
from mixedeffects.inference.wald import checked_type, independent_rows, p_of_f, term_hypotheses
from mixedeffects.inference.wald_result import WaldTest

__all__ = ["PooledFits", "pool"]

Matrix = NDArray[np.float64]

_EFFECTS = ("fixed", "ran_pars")


@dataclass(frozen=True, eq=False)
class PooledFits:
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

    @property
    def m(self) -> int:
        """Number of fits."""
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
        self, effects: str | Sequence[str] = ("fixed", "ran_pars"), level: float | None = None
    ) -> ResultTable:
        """One row per parameter, with broom's column names, dots written as underscores.

        Parameters
        ----------
        effects : {"fixed", "ran_pars"} or both
            Fixed effects; standard deviations and correlations, which are those of the mean
            variances and covariances.
        level : float, optional
            Confidence level of the fixed effects' intervals; by default there are none.

        Returns
        -------
        DataFrame
            Columns as of `LinearMixedModel.tidy`, and for fixed effects ``riv``, the relative
            increase of the variance, and ``fmi``, the fraction of missing information.

        Raises
        ------
        ModelError
            If an effect is not known.

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
        makers = {"fixed": lambda: self._fixed(level), "ran_pars": self._random}
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
            residual variance; ``riv_mean`` and ``fmi_max`` over the fixed effects; ``converged``,
            whether all fits are.

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
        rules = self._rules(np.eye(len(self.estimates)))
        row = pd.DataFrame(
            {
                "nimp": [self.m],
                "nobs": [self.fits[0].nobs],
                "sigma": [self.varcorr.sigma],
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
        return self._joint(L)[0]

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
                test, riv = self._joint(L)
                row = (test.num_df, test.den_df, test.statistic, test.p, riv)
            rows[label] = row
        columns = ["NumDF", "DenDF", "F value", "Pr(>F)", "RIV"]
        table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
        return ResultTable.of(table, (f"type {kind}, pooled over {self.m} fits",))

    # --- computing -----------------------------------------------------------------------

    def _rules(self, L: Matrix) -> pd.DataFrame:
        """Pooled contrasts, each by itself; NaN where the variance is not known in some fit."""
        m = self.m
        within = np.mean([variance.variances(L) for variance in self._variances], axis=0)
        between = (1.0 + 1.0 / m) * np.einsum("rp,pq,rq->r", L, self.between.to_numpy(), L)
        total = within + between
        with np.errstate(divide="ignore", invalid="ignore"):
            increase, lost = between / within, between / total
        df = barnard_rubin_df(lost, m, self._complete_df(L))
        return pd.DataFrame(
            {
                "estimate": L @ self.estimates.to_numpy(),
                "std_error": np.sqrt(total),
                "df": np.where(np.isnan(total), np.nan, df),
                "riv": increase,
                "fmi": missing_information(increase, df),
            }
        )

    def _complete_df(self, L: Matrix) -> Matrix:
        """Harmonic mean over the fits: the mean of the relative variances of the variances."""
        return _harmonic(np.array([variance.df(L) for variance in self._variances]))

    def _joint(self, L: Matrix) -> tuple[WaldTest, float]:
        """The test D1, and the average relative increase of the variances."""
        B = self.between.to_numpy()
        labelled = pd.DataFrame(L, columns=list(self.estimates.index))
        if any(variance.hides(L).any() for variance in self._variances):
            raise ModelError(
                "The variance of these contrasts is not known (NaN) in some of the fits, so they "
                "cannot be tested. Use the model's covariance matrix, or other clusters."
            )
        within = np.mean([variance.covariance(L) for variance in self._variances], axis=0)
        rows, values = independent_rows(L, within)
        q = len(rows)
        if q == 0:
            return WaldTest("D1", np.nan, 0, np.nan, np.nan, 1.0, labelled), np.nan
        increase = float(np.sum(np.einsum("rp,pq,rq->r", rows, B, rows) / values))
        increase *= (1.0 + 1.0 / self.m) / q
        scaling = 1.0 / (1.0 + increase)
        if q == 1:
            df = float(self._rules(rows)["df"].iloc[0])
        else:
            each = [variance.f_test(rows) for variance in self._variances]
            complete = float(_harmonic(np.array([[own_df] for own_df, _ in each]))[0])
            scaling *= float(np.mean([own for _, own in each]))
            df = reiter_df(increase, q, self.m, complete)
        estimate = rows @ self.estimates.to_numpy()
        F = scaling * float(np.sum(estimate**2 / values)) / q
        return WaldTest("D1", F, q, df, p_of_f(F, q, df), scaling, labelled), increase

    def _r_style(
        self, L: Matrix, labels: list[str], level: float, constant: Matrix | float = 0.0
    ) -> ResultTable:
        level = checked_level(level)
        found = self._rules(L)
        found["estimate"] = found["estimate"] + constant
        own = (found[name].to_numpy() for name in ("estimate", "std_error", "df"))
        table = tests_table(Estimates(*own), labels, level, "")
        table["RIV"], table["FMI"] = found["riv"].to_numpy(), found["fmi"].to_numpy()
        return ResultTable.of(table, (intervals_at(level), *self.notes))

    def _fixed(self, level: float | None) -> pd.DataFrame:
        table = self.coef_table(0.95 if level is None else level)
        rows = fixed_rows(table if level is not None else table.drop(columns=list(INTERVAL)))
        return rows.assign(riv=table["RIV"].to_numpy(), fmi=table["FMI"].to_numpy())

    def _random(self) -> pd.DataFrame:
        structured = self.fits[0].frame.structured_terms
        rows = parameter_rows(self.varcorr, structured, self._parameters)
        groups, names, values = zip(*rows, strict=True)
        unknown = dict.fromkeys(("std_error", "statistic", "df", "p_value"), np.nan)
        return pd.DataFrame(
            {"effect": "ran_pars", "group": groups, "term": names, "estimate": values, **unknown}
        )

    # --- shown ---------------------------------------------------------------------------

    def _table(self) -> Table:
        table = frame_table(self.coef_table().drop(columns=["lower", "upper"]), self.notes)
        caption = f"{self.fits[0].formula}, pooled over {self.m} fits by Rubin's rules"
        return replace(table, caption=caption)

    def __repr__(self) -> str:
        return self._table().to_text(width=None)

    def _repr_html_(self) -> str:
        return str(self._table()._repr_html_())

    def to_latex(self, caption: str | None = None, label: str | None = None) -> str:
        r"""The table that is printed, as a LaTeX ``tabular`` with booktabs' rules.

        Parameters
        ----------
        caption, label : str, optional
            As for `Table.to_latex`.

        Returns
        -------
        str

        Examples
        --------
        >>> import mixedeffects as me
        >>> sleep = me.load_dataset("sleepstudy")
        >>> shifted = [sleep.assign(Days=sleep["Days"] + 0.1 * i) for i in range(3)]
        >>> pooled = me.pool([me.lmer("Reaction ~ Days + (1 | Subject)", d) for d in shifted])
        >>> r"\toprule" in pooled.to_latex()
        True
        """
        return self._table().to_latex(caption, label)

    def to_markdown(self) -> str:
        """The table that is printed, as a Markdown pipe table."""
        return self._table().to_markdown()


def pool(
    fits: Iterable[HoldsFit],
    *,
    ddf: str | float = "satterthwaite",
    vcov: str = "model",
    cluster: Any = None,
) -> PooledFits:
    """Pool fits of one model to several imputed data sets, by Rubin's rules.

    Estimates are means over the fits; their variance is the mean variance within the fits and the
    variance of the estimates between them, which the missing values make.

    Parameters
    ----------
    fits : list of LinearMixedModel
        Two or more fits of one formula, by one criterion, one for each imputed data set.
    ddf : {"satterthwaite", "kr", "kr-observed", "residual", "inf"} or float
        Degrees of freedom that the complete data would have, from which Barnard and Rubin's follow.
        By name they are those of each fit for each contrast, of which the harmonic mean is taken:
        df stand for the relative variance ``2 / df`` of an estimated variance, and that is what can
        be averaged. One number holds for all contrasts. ``"inf"`` gives Rubin's own df of 1987.
    vcov, cluster
        Covariance matrix within each fit, as for `LinearMixedModel.coef_table`.

    Returns
    -------
    PooledFits
        With ``coef_table``, ``contrast``, ``wald``, ``anova``, ``tidy`` and ``glance``.

    Raises
    ------
    ModelError
        If there is one fit only, or the fits are not of one model: other formulas, coefficients,
        codings, criteria, weights or numbers of rows.

    Notes
    -----
    ``mice::pool`` of R takes ``df.residual`` of the first fit as complete-data degrees of freedom,
    one number for all coefficients, which is too many for what varies between clusters only. Here
    this is ``ddf=fits[0].fit.df_resid``.

    References
    ----------
    Rubin, D. B. (1987). Multiple Imputation for Nonresponse in Surveys. Wiley.

    Barnard, J. and Rubin, D. B. (1999). Small-sample degrees of freedom with multiple imputation.
    Biometrika 86, 948-955.

    Examples
    --------
    Days that are known up to a rounding error, imputed five times:

    >>> import numpy as np
    >>> import mixedeffects as me
    >>> sleep = me.load_dataset("sleepstudy")
    >>> rng = np.random.default_rng(1)
    >>> imputed = [sleep.assign(Days=sleep["Days"] + rng.normal(0, 0.5, 180)) for _ in range(5)]
    >>> me.pool([me.lmer("Reaction ~ Days + (Days | Subject)", data) for data in imputed])
    Reaction ~ Days + (Days | Subject), pooled over 5 fits by Rubin's rules
                Estimate Std. Error   df t value Pr(>|t|)   RIV   FMI
    ...
    """
    given = _as_list(fits)
    held = [fit_of(model, f"fits[{i}]") for i, model in enumerate(given)]
    _check_one_model(held)
    variances = tuple(_variance(fit, vcov, ddf, cluster) for fit in held)
    names = list(held[0].fixef_names)
    # From the first, so that equal estimates have no variance at all.
    moved = np.array([fit.beta - held[0].beta for fit in held])
    within = np.mean([variance.vcov for variance in variances], axis=0)
    between = np.cov(moved, rowvar=False).reshape(len(names), len(names))
    total = within + (1.0 + 1.0 / len(held)) * between
    blocks = [np.mean(own, axis=0) for own in zip(*(fit.G_blocks for fit in held), strict=True)]
    sigma = float(np.sqrt(np.mean([fit.sigma**2 for fit in held])))
    parameters = pd.concat([covariance_parameters(fit) for fit in held], axis=1)
    method = _method(ddf, variances[0])
    return PooledFits(
        estimates=pd.Series(held[0].beta + moved.mean(axis=0), index=names, name="Estimate"),
        within=pd.DataFrame(within, names, names),
        between=pd.DataFrame(between, names, names),
        vcov=pd.DataFrame(total, names, names),
        varcorr=VarCorr(held[0].frame.terms, read_only(blocks), sigma),
        fits=tuple(held),
        method=method,
        notes=_notes(held, method, between),
        _variances=variances,
        _parameters=parameters.mean(axis=1, skipna=False),
    )


def _as_list(fits: Any) -> list[Any]:
    if isinstance(getattr(fits, "fit", fits), Fit) or not isinstance(fits, Iterable):
        raise ModelError(
            "pool takes a list of fits, one for each imputed data set: "
            f"me.pool([me.lmer(formula, data) for data in imputed]); not {fits!r:.60}."
        )
    given = list(fits.values() if isinstance(fits, Mapping) else fits)
    if len(given) < 2:
        count = "one fit" if given else "no fit"
        raise ModelError(
            f"There is {count} to pool. What imputation adds to the variance shows only between "
            "the fits of two or more imputed data sets; 20 or more are a good choice."
        )
    return given


def _check_one_model(fits: Sequence[Fit]) -> None:
    """All fits are of one model to as many rows."""
    first = fits[0]
    for i, fit in enumerate(fits[1:], start=1):
        ours, theirs = first.frame.formula, fit.frame.formula
        if theirs.response != ours.response:
            raise ModelError(
                f"fits[{i}] has another response, {theirs.response!r}, than fits[0], "
                f"{ours.response!r}; pooled fits are of one model."
            )
        parts = [(f.fixed, f.intercept, f.random, f.offsets) for f in (ours, theirs)]
        if parts[0] != parts[1]:
            raise ModelError(
                f"fits[{i}] has another formula, {theirs.text!r}, than fits[0], {ours.text!r}; "
                "pooled fits are of one model."
            )
        if fit.reml != first.reml:
            by = ["maximum likelihood", "REML"]
            raise ModelError(
                f"fits[{i}] is by {by[fit.reml]} and fits[0] by {by[first.reml]}; fit all by one "
                "criterion."
            )
        if fit.fixef_names != first.fixef_names:
            odd = sorted(set(fit.fixef_names) ^ set(first.fixef_names))
            raise ModelError(
                f"fits[{i}] has other coefficients than fits[0]: {', '.join(odd[:6])} "
                f"{'are' if len(odd) > 1 else 'is'} not in both. Give factors the same levels in "
                "all data sets, and see m.dropped for columns that were left out."
            )
        if fit.nobs != first.nobs:
            raise ModelError(
                f"fits[{i}] has {fit.nobs:,} rows and fits[0] {first.nobs:,}. Imputed data sets "
                "have the same rows; see m.dropped for values that are still missing."
            )
        if [t.columns for t in fit.frame.terms] != [t.columns for t in first.frame.terms]:
            raise ModelError(
                f"The random effects of fits[{i}] have other columns than those of fits[0]; give "
                "factors the same levels in all data sets."
            )
        if _coding(fit) != _coding(first):
            raise ModelError(
                f"A factor is coded otherwise in fits[{i}] than in fits[0], so that coefficients "
                "of one name mean different things; use the same contrasts= for all."
            )
        if (fit.frame.weights is None) != (first.frame.weights is None):
            raise ModelError(
                f"One of fits[0] and fits[{i}] has prior weights and the other none; pooled fits "
                "are of one model."
            )


def _coding(fit: Fit) -> list[Any]:
    encoder = fit.frame.fixed_encoder
    coders = () if encoder is None else encoder.coders
    return [
        (coder.name, coder.kind, coder.levels, np.round(coder.contrasts, 12).tolist())
        for coder in coders
    ]


def _variance(fit: Fit, vcov: str, ddf: Any, cluster: Any) -> FixedEffectsVariance:
    number = plain(ddf)
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        return fixed_effects_variance(fit, vcov, ddf, cluster)
    if not number > 0.0:
        raise ModelError(f"ddf must be a positive number or the name of a method, not {number!r}.")
    own = fixed_effects_variance(fit, vcov, "inf", cluster)
    fixed = FixedDf(float(number))
    return replace(own, df=fixed.df, f_test=fixed.f_test, method=f"{number:g}")


def _method(ddf: Any, variance: FixedEffectsVariance) -> str:
    if not isinstance(plain(ddf), str):
        return f"{float(ddf):g} complete-data degrees of freedom"
    return f"complete data: {variance.method}"


def _harmonic(df: Matrix) -> Matrix:
    """Harmonic mean over the first axis; infinite where all are."""
    with np.errstate(divide="ignore"):
        return np.asarray(1.0 / np.mean(1.0 / df, axis=0))


def _notes(fits: Sequence[Fit], method: str, between: Matrix) -> tuple[str, ...]:
    criterion = "REML" if fits[0].reml else "maximum likelihood"
    notes = [f"{fits[0].nobs:,} rows in each fit, by {criterion}; {method}"]
    failed = [i for i, fit in enumerate(fits) if not fit.optimum.converged]
    if failed:
        notes.append(f"not converged: {_numbered(failed)}")
    singular = [i for i, fit in enumerate(fits) if fit.optimum.singular]
    if singular:
        notes.append(f"singular: {_numbered(singular)}")
    if not between.any():
        notes.append("all fits have the same estimates: the data sets do not differ")
    learnt = _learnt_otherwise(fits)
    if learnt:
        notes.append(
            f"{', '.join(learnt)} depend on the data set, so that coefficients differ in meaning"
        )
    return tuple(notes)


def _numbered(positions: Sequence[int]) -> str:
    shown = ", ".join(f"fits[{i}]" for i in positions[:8])
    return f"{shown} and {len(positions) - 8} more" if len(positions) > 8 else shown


def _learnt_otherwise(fits: Sequence[Fit]) -> list[str]:
    """Expressions with transforms that learned other numbers from other data, such as scale()."""
    encoders = [fit.frame.fixed_encoder for fit in fits]
    if any(encoder is None for encoder in encoders):
        return []
    states = [
        {coder.name: repr(coder.state) for coder in encoder.coders}
        for encoder in encoders
        if encoder is not None
    ]
    return [name for name in states[0] if any(own[name] != states[0][name] for own in states[1:])]
