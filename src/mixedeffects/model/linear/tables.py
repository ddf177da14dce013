"""The fit as tables, text, HTML and JSON, and in the form that other packages take."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mixedeffects.model.shared.for_maketables import ForMaketables
from mixedeffects.progress import ProgressOption

if TYPE_CHECKING:
    from mixedeffects.display.summary import Summary
    from mixedeffects.reporting.description import Description

__all__ = ["Tables"]


class Tables(ForMaketables):
    """The fit as tables, text, HTML and JSON, and in the form that other packages take."""

    def summary(
        self, ddf: str = "satterthwaite", vcov: str = "model", cluster: Any = None
    ) -> Summary:
        """Summary in lme4's layout; text when printed, HTML in notebooks.

        Parameters
        ----------
        ddf, vcov, cluster
            As for `coef_table`.

        Returns
        -------
        Summary
            ``str()`` gives the text.

        Raises
        ------
        ModelError
            If ``ddf`` or ``vcov`` is not known.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> m.summary()
        Linear mixed model fit by REML. t-tests use Satterthwaite's method
        Formula: Yield ~ 1 + (1 | Batch)
           Data: dyestuff
        ...
        Random effects:
         Groups   Name        Variance Std.Dev.
         Batch    (Intercept) 1764     42.00
         Residual             2451     49.51
        Number of obs: 30, groups:  Batch, 6
        ...
        """
        from mixedeffects.reporting.model_summary import summarise

        return summarise(self.fit, ddf, vcov, cluster)

    def tidy(
        self,
        effects: str | Sequence[str] = ("fixed", "ran_pars"),
        *,
        ddf: str = "satterthwaite",
        vcov: str = "model",
        cluster: Any = None,
        level: float | None = None,
    ) -> pd.DataFrame:
        """One row per parameter, with broom's column names, dots written as underscores.

        Parameters
        ----------
        effects : {"fixed", "ran_pars", "ran_vals"} or several of them
            Fixed effects, standard deviations and correlations, conditional modes; named as in R's
            broom.mixed.
        ddf, vcov, cluster
            For the fixed effects, as for `coef_table`.
        level : float, optional
            Confidence level of the fixed effects' intervals; by default there are none.

        Returns
        -------
        DataFrame
            Columns ``effect``, ``group``, ``term``, ``estimate``, ``std_error``; for fixed effects
            also ``statistic``, ``df``, ``p_value``, and ``conf_low``, ``conf_high`` if a level is
            given; for conditional modes also ``level``.

        Raises
        ------
        ModelError
            If an effect is not known.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.tidy()
        effect   group    term                  estimate std_error statistic   df
        fixed             (Intercept)            251.405     6.825     36.84 17.0
        fixed             Days                    10.467     1.546      6.77 17.0
        ran_pars Subject  sd__(Intercept)         24.740       NaN       NaN  NaN
        ran_pars Subject  sd__Days                 5.922       NaN       NaN  NaN
        ran_pars Subject  cor__(Intercept).Days    0.066       NaN       NaN  NaN
        ran_pars Residual sd__Observation         25.592       NaN       NaN  NaN
        effect   group    term                   p_value
        fixed             (Intercept)            < 2e-16
        fixed             Days                  3.26e-06
        ran_pars Subject  sd__(Intercept)            NaN
        ran_pars Subject  sd__Days                   NaN
        ran_pars Subject  cor__(Intercept).Days      NaN
        ran_pars Residual sd__Observation            NaN
        """
        from mixedeffects.reporting.tidy import tidy

        return tidy(self.fit, effects, ddf, vcov, cluster, level)

    def glance(self) -> pd.DataFrame:
        """One row about the whole fit, with the column names of R's broom.mixed.

        Returns
        -------
        DataFrame, one row
            Columns ``nobs``, ``sigma``, ``logLik``, ``AIC``, ``BIC``, ``REMLcrit`` (``deviance``
            for maximum likelihood) and ``df_residual``.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.glance()
        nobs  sigma  logLik    AIC    BIC REMLcrit df_residual converged
         180 25.592 -871.81 1755.6 1774.8   1743.6         174 True
        """
        from mixedeffects.reporting.tidy import glance

        return glance(self.fit)

    def augment(self) -> Any:
        """The data used, with fitted values and residuals beside them.

        Returns
        -------
        DataFrame, n rows
            The variables of the model (of a table that stayed in its engine all its columns, and a
            lazy table), and in units of the response ``_fitted``, ``_resid`` and ``_fixed``: fitted
            values, residuals, and the part from fixed effects and offset.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> m.augment().head(2).round(1)
        Reaction Days Subject _fitted _resid _fixed
           249.6    0 308       253.7   -4.1  251.4
           258.7    1 308       273.3  -14.6  261.9
        """
        from mixedeffects.reporting.tidy import augment

        return augment(self.fit)

    def report(
        self,
        path: str | os.PathLike[str],
        title: str | None = None,
        *,
        ddf: str = "satterthwaite",
        vcov: str = "model",
        cluster: Any = None,
        progress: ProgressOption = None,
    ) -> Path:
        """Write a report as one HTML file: what was fitted, tables, and pictures.

        It has the data used and left out, coefficients with intervals, tests of the terms, the
        random effects with their shares of the variance, the certificate of the optimum,
        effects, diagnostics, conditional modes, and pictures of V and Z. The file needs nothing
        from outside. It is there whole or not at all. Without matplotlib it has no pictures.

        Parameters
        ----------
        path : str or path
            Where to write; a file of that name is replaced.
        title : str, optional
            Heading; by default it names the data.
        ddf, vcov, cluster
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
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = m.report(pathlib.Path(folder) / "dyestuff.html")
        ...     path.read_text(encoding="utf-8")[:15]
        '<!doctype html>'
        """
        from mixedeffects.reporting.report import write_report

        return write_report(self.fit, path, title, ddf, vcov, cluster, progress)

    def describe(
        self,
        *,
        ddf: str = "satterthwaite",
        vcov: str = "model",
        cluster: Any = None,
        level: float = 0.95,
        digits: int = 2,
    ) -> Description:
        """Sentences for a paper in APA style, every number from the fit.

        They say what was fitted to what, how it was tested, the estimates with intervals and tests,
        the random effects, and what to know: rows and columns left out, a singular fit. What the
        numbers mean is for the author to say.

        Parameters
        ----------
        ddf, vcov, cluster
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
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> print(m.describe())
        A linear mixed model of Reaction was fitted by restricted maximum likelihood (REML) to ...
        <BLANKLINE>
        Days: b = 10.47, SE = 1.55, 95% CI [7.21, 13.73], t(17.0) = 6.77, p < .001.
        <BLANKLINE>
        Subject had random intercepts (SD = 24.74) and effects of Days (SD = 5.92), correlated ...
        """
        from mixedeffects.reporting.description import describe

        return describe(self.fit, ddf, vcov, cluster, level, digits)

    def to_dict(
        self,
        ddf: str = "satterthwaite",
        vcov: str = "model",
        cluster: Any = None,
        *,
        ranef: bool = False,
    ) -> dict[str, Any]:
        """The fit as plain data: dicts, lists, text and numbers, under a schema with a version.

        The same as ``mixedeffects fit --json`` prints. The keys are listed in the module
        ``mixedeffects.fit_document``.

        Parameters
        ----------
        ddf, vcov, cluster
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
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> d = m.to_dict()
        >>> d["schema"], d["schema_version"], d["ngroups"], round(d["criterion"], 2)
        ('mixedeffects.fit', 1, {'Subject': 18}, 1743.63)
        """
        from mixedeffects.storage.fit_document import fit_document

        return fit_document(self.fit, ddf, vcov, cluster, ranef)

    def to_json(
        self,
        path: Any = None,
        ddf: str = "satterthwaite",
        vcov: str = "model",
        cluster: Any = None,
        *,
        ranef: bool = False,
    ) -> str | None:
        """The fit as JSON; see `to_dict` for what is in it.

        Parameters
        ----------
        path : str or path, optional
            File to write, whole or not at all; without one the text is returned.
        ddf, vcov, cluster, ranef
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
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> round(json.loads(m.to_json())["varcorr"]["Batch"][0][0], 1)
        1764.0
        """
        from mixedeffects.storage.fit_document import fit_document, json_text, write_json

        document = fit_document(self.fit, ddf, vcov, cluster, ranef)
        if path is None:
            return json_text(document)
        write_json(document, path)
        return None

    def marginaleffects(
        self,
        vcov: str = "model",
        ddf: str = "satterthwaite",
        cluster: Any = None,
        df: float = np.inf,
    ) -> Any:
        """The model in the form that the Python package marginaleffects takes.

        ``predictions``, ``comparisons``, ``slopes``, ``hypotheses`` and their averages take it in
        place of a model. Predictions are for the population, without random effects. They are
        linear in the coefficients, so ``eps_vcov=1`` makes the numerical derivatives behind its
        standard errors exact; by default they are good to about three digits for slopes.

        Parameters
        ----------
        vcov, ddf, cluster
            As for `coef_table`. marginaleffects itself uses the same degrees of freedom for all
            tests; those by ``ddf`` are in the table that ``tests(result)`` of the adapter makes.
        df : float
            Degrees of freedom for marginaleffects' own tests and intervals; infinite for normal
            ones.

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
        >>> m = me.lmer("Reaction ~ Days + (Days | Subject)", me.load_dataset("sleepstudy"))
        >>> adapter = m.marginaleffects(vcov="CR2")  # doctest: +SKIP
        >>> slopes = marginaleffects.avg_slopes(  # doctest: +SKIP
        ...     adapter, variables="Days", eps_vcov=1
        ... )
        >>> adapter.tests(slopes)[["estimate", "std_error", "df"]]  # doctest: +SKIP
            estimate  std_error    df
        0  10.467286   1.545789  17.0
        """
        from mixedeffects.adapters.marginaleffects import adapter

        return adapter(self.fit, vcov, ddf, cluster, df)

    def _default_summary(self) -> Summary:
        from mixedeffects.reporting.model_summary import default_summary

        return default_summary(self.fit)
