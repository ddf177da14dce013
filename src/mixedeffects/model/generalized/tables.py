"""Summary and tidy tables."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from mixedeffects.display.summary import Summary
from mixedeffects.inference.normal_tests import check_normal
from mixedeffects.model.generalized.of_record import OfRecord
from mixedeffects.model.shared.for_maketables import ForMaketables
from mixedeffects.progress import ProgressOption

if TYPE_CHECKING:
    from mixedeffects.reporting.description import Description

__all__ = ["GeneralizedTables"]


class GeneralizedTables(OfRecord, ForMaketables):
    """Summary and tidy tables."""

    def marginaleffects(
        self,
        vcov: str = "model",
        cluster: Any = None,
        type: Literal["response", "link"] = "response",
        marginal: bool = False,
    ) -> Any:
        """The model in the form that the Python package marginaleffects takes.

        ``predictions``, ``comparisons``, ``slopes``, ``hypotheses`` and their averages take it in
        place of a model. Standard errors are by the delta method. Where the package has no exact
        derivatives (with an offset, or averages over random effects) it takes differences, whose
        step is ``eps_vcov``: 1e-5 is good for slopes too, where its default loses digits.

        Parameters
        ----------
        vcov, cluster
            As for `coef_table`.
        type : {"response", "link"}
            Means of the response, or linear predictors.
        marginal : bool
            Means over the distribution of the random effects, in place of those of a level whose
            random effects are zero. Their coefficients are the fixed effects and the entries of G,
            with their joint covariance.

        Returns
        -------
        object
            A ``marginaleffects.classes.ModelAbstract``.

        Raises
        ------
        ImportError
            If marginaleffects is not installed.
        ModelError
            If an argument is not what it should be, the model has no fixed effects, or its offset
            cannot be known for new rows.

        References
        ----------
        Arel-Bundock, V., Greifer, N. and Heiss, A. (2024). How to interpret statistical models
        using marginaleffects for R and Python. Journal of Statistical Software 111(9).

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> marginaleffects.avg_comparisons(  # doctest: +SKIP
        ...     m.marginaleffects(), variables="period"
        ... )
        """
        from mixedeffects.adapters.marginaleffects import generalized_adapter

        return generalized_adapter(self._record, vcov, cluster, type, marginal)

    def summary(self, vcov: str = "model", cluster: Any = None, *, ddf: str = "inf") -> Summary:
        """The fit in the layout of lme4's summary, with z tests.

        Parameters
        ----------
        vcov, cluster
            Covariance matrix of the fixed effects, as for `coef_table`.
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
        return summarise_generalized(self._record, vcov, cluster)

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
        from mixedeffects.reporting.tidy import glance

        return glance(self._record)

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

    def describe(
        self,
        *,
        vcov: str = "model",
        cluster: Any = None,
        level: float = 0.95,
        digits: int = 2,
        ddf: str = "inf",
    ) -> Description:
        """Sentences for a paper in APA style, every number from the fit.

        They say what was fitted to what and how, the estimates with tests and, where the link makes
        coefficients ratios, those ratios with intervals, the random effects, and what to know. What
        the numbers mean is for the author to say.

        Parameters
        ----------
        vcov, cluster, ddf
            As for `coef_table`.
        level : float
            Confidence level of the intervals.
        digits : int
            Decimals of estimates, more where a standard error would have fewer than two digits.

        Returns
        -------
        Description
            Text when printed; ``to_markdown()`` and ``to_html()`` have symbols in italics.

        Raises
        ------
        ModelError
            If an argument is not what it should be.

        References
        ----------
        American Psychological Association (2020). Publication manual, 7th edition, chapter 6.

        Examples
        --------
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> print(m.describe())
        A generalized linear mixed model of incidence/size, binomial with a logit link, was ...
        <BLANKLINE>
        period: χ²(3) = 24.95, p < .001 (type III). The coefficients of terms with several are ...
        <BLANKLINE>
        herd had random intercepts (SD = 0.64). Standard deviations are on the scale of the logit.
        """
        from mixedeffects.reporting.generalized_description import describe_generalized

        return describe_generalized(self._record, vcov, cluster, level, digits, ddf)

    def report(
        self,
        path: str | os.PathLike[str],
        title: str | None = None,
        *,
        vcov: str = "model",
        cluster: Any = None,
        ddf: str = "inf",
        progress: ProgressOption = None,
    ) -> Path:
        """Write a report as one HTML file: what was fitted, tables, and pictures.

        It has the data used and left out, the family, coefficients with intervals and as ratios,
        tests of the terms, the random effects, the certificate of the optimum with the check of
        Laplace's approximation, conditional modes, and pictures of V and Z. The file needs nothing
        from outside. It is there whole or not at all. Without matplotlib it has no pictures.

        Parameters
        ----------
        path : str or path
            Where to write; a file of that name is replaced.
        title : str, optional
            Heading; by default it names the data.
        vcov, cluster, ddf
            As for `coef_table`.
        progress : bool, callable or None
            True shows sections and time left on standard error; a callable gets each
            `Repetitions`; None shows them after some seconds on a terminal or in a notebook.

        Returns
        -------
        Path
            Where it is.

        Raises
        ------
        DataError
            If the folder does not exist, or the path is a folder.
        Interrupted
            On Ctrl-C; ``partial.resume()`` of the exception goes on with the next section.
        ModelError
            If an argument is not what it should be.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> import mixedeffects as me
        >>> cbpp = me.load_dataset("cbpp")
        >>> m = me.glmer(
        ...     "incidence / size ~ period + (1 | herd)", cbpp, family="binomial", weights="size"
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = m.report(pathlib.Path(folder) / "cbpp.html")
        ...     path.read_text(encoding="utf-8")[:15]
        '<!doctype html>'
        """
        from mixedeffects.reporting.generalized_report import write_generalized_report

        return write_generalized_report(self._record, path, title, vcov, cluster, ddf, progress)

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
        >>> round(json.loads(m.to_json())["varcorr"]["herd"][0][0], 2)
        0.41
        """
        from mixedeffects.storage.fit_document import fit_document, json_text, write_json

        document = fit_document(self.fit, ddf, vcov, cluster, ranef)
        if path is None:
            return json_text(document)
        write_json(document, path)
        return None
