"""Summary and tidy tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from mixedeffects.display.summary import Summary
from mixedeffects.inference.normal_tests import check_normal
from mixedeffects.model.generalized.of_record import OfRecord
from mixedeffects.model.shared.for_maketables import ForMaketables

__all__ = ["GeneralizedTables"]


class GeneralizedTables(OfRecord, ForMaketables):
    """Summary and tidy tables."""

    def summary(self, vcov: str = "model", *, ddf: str = "inf") -> Summary:
        """The fit in the layout of lme4's summary, with z tests.

        Parameters
        ----------
        vcov : {"model", "conditional"}
            Covariance matrix of the fixed effects, as for `vcov`.
        ddf : {"inf"}
            The normal distribution, the only one for generalized models.

        Returns
        -------
        Summary
            Text when printed, HTML in notebooks.

        Raises
        ------
        ModelError
            If an argument is not what it should be.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> m.summary()
        Generalized linear mixed model fit by maximum likelihood (Laplace
          approximation)
         Family: binomial (link: logit)
        Formula: incidence / size ~ period + (1 | herd)
           Data: cbpp
         Trials: size
        <BLANKLINE>
             AIC      BIC   logLik deviance df.resid
           194.1    204.2    -92.0    184.1       51
        ...
        Random effects:
         Groups Name        Variance Std.Dev.
         herd   (Intercept) 0.4125   0.6423
        Number of obs: 56, groups:  herd, 15
        <BLANKLINE>
        Fixed effects:
                    Estimate Std. Error z value Pr(>|z|)
        (Intercept)  -1.3985     0.2325  -6.016 1.79e-09 ***
        ...
        """
        from mixedeffects.reporting.generalized_tables import summarise_generalized

        check_normal(ddf)
        return summarise_generalized(self._record, vcov)

    def _default_summary(self) -> Summary:
        from mixedeffects.reporting.generalized_tables import default_generalized_summary

        return default_generalized_summary(self._record)

    def tidy(
        self,
        effects: str | Sequence[str] = ("fixed", "ran_pars"),
        *,
        vcov: str = "model",
        cluster: Any = None,
        level: float | None = None,
        exponentiate: bool = False,
        ddf: str = "inf",
    ) -> pd.DataFrame:
        """One row per parameter, with broom's column names, dots written as underscores.

        Parameters
        ----------
        effects : {"fixed", "ran_pars", "ran_vals"} or several of them
            Fixed effects; standard deviations, correlations and the parameter of the family;
            conditional modes.
        vcov, cluster
            For the fixed effects, as for `coef_table`.
        level : float, optional
            Confidence level of the fixed effects' intervals; by default there are none.
        exponentiate : bool
            Fixed effects and their intervals as ratios: odds ratios with the logit, rate ratios of
            counts with the logarithm. Standard errors are then those of the ratios, by the delta
            method; tests stay those of the coefficients.
        ddf : {"inf"}
            The normal distribution, the only one for generalized models.

        Returns
        -------
        DataFrame
            Columns ``effect``, ``group``, ``term``, ``estimate``, ``std_error``; for fixed effects
            also ``statistic``, ``p_value``, and ``conf_low``, ``conf_high`` if a level is given;
            for conditional modes also ``level``. Everything is on the scale of the link, but for
            ratios.

        Raises
        ------
        ModelError
            If an effect is not known, or ratios are asked for that there are none of, as with the
            probit.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> m.tidy("ran_pars")[["group", "term", "estimate"]]
        group term            estimate
        herd  sd__(Intercept)   0.6423
        >>> ratios = m.tidy("fixed", level=0.95, exponentiate=True)
        >>> ratios[["term", "estimate", "conf_low", "conf_high"]].round(2)
        term        estimate conf_low conf_high
        (Intercept)     0.25     0.16      0.39
        period2         0.37     0.20      0.68
        period3         0.32     0.17      0.61
        period4         0.21     0.09      0.48
        """
        from mixedeffects.reporting.generalized_tables import tidy_generalized

        check_normal(ddf)
        return tidy_generalized(self._record, effects, vcov, level, exponentiate, cluster)

    def glance(self) -> pd.DataFrame:
        """One row about the whole fit, with the column names of R's broom.mixed.

        Returns
        -------
        DataFrame, one row
            Columns ``nobs``, ``sigma``, ``logLik``, ``AIC``, ``BIC``, ``deviance`` (-2
            log-likelihood), ``df_residual`` and ``converged``.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> m.glance()
        nobs sigma  logLik    AIC    BIC deviance df_residual converged
          56     1 -92.026 194.05 204.18   184.05          51 True
        """
        from mixedeffects.reporting.generalized_tables import glance_generalized

        return glance_generalized(self._record)

    def augment(self) -> pd.DataFrame:
        """The data used, with fitted values and residuals beside them.

        Returns
        -------
        DataFrame, n rows
            The variables of the model, and ``_fitted``, the mean given the conditional modes,
            ``_resid``, response less mean, ``_link``, the linear predictor, and ``_fixed``, its
            part from fixed effects and offset.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> m.augment()[["_fitted", "_link", "_fixed"]].head(1).round(3)
        _fitted _link  _fixed
          0.308 -0.809 -1.399
        """
        from mixedeffects.reporting.generalized_tables import augment_generalized

        return augment_generalized(self._record)

    def to_dict(
        self,
        vcov: str = "model",
        cluster: Any = None,
        *,
        ranef: bool = False,
        ddf: str = "inf",
    ) -> dict[str, Any]:
        """The fit as plain data: dicts, lists, text and numbers, under a schema with a version.

        The schema is that of `LinearMixedModel.to_dict`: ``kind`` is ``"generalized"`` and
        ``family`` has distribution, link, parameter and quadrature points. The same as
        ``mixedeffects fit --family ... --json`` prints.

        Parameters
        ----------
        vcov, cluster, ddf
            As for `coef_table`.
        ranef : bool
            Also the conditional modes of the random effects.

        Returns
        -------
        dict
            Numbers in full precision; None for one that is not finite.

        Raises
        ------
        ModelError
            If an argument is not what it should be.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> d = m.to_dict()
        >>> d["kind"], d["family"]["link"], round(d["criterion"], 2)
        ('generalized', 'logit', 184.05)
        """
        from mixedeffects.storage.fit_document import fit_document

        return fit_document(self.fit, ddf, vcov, cluster, ranef)

    def to_json(
        self,
        path: Any = None,
        vcov: str = "model",
        cluster: Any = None,
        *,
        ranef: bool = False,
        ddf: str = "inf",
    ) -> str | None:
        """The fit as JSON; see `to_dict` for what is in it.

        Parameters
        ----------
        path : str or path, optional
            File to write, whole or not at all; without one the text is returned.
        vcov, cluster, ranef, ddf
            As for `to_dict`.

        Returns
        -------
        str or None
            The text, if it was not written to a file.

        Raises
        ------
        DataError
            If the path is a folder, or in none.
        ModelError
            If another argument is not what it should be.

        Examples
        --------
        >>> import json
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> round(json.loads(m.to_json())["varcorr"]["herd"][0][0], 3)
        0.413
        """
        from mixedeffects.storage.fit_document import fit_document, json_text, write_json

        document = fit_document(self.fit, ddf, vcov, cluster, ranef)
        if path is None:
            return json_text(document)
        write_json(document, path)
        return None
