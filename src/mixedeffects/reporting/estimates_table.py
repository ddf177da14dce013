"""Several fits side by side in one table, as papers print them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

import pandas as pd

from mixedeffects.base.default_ddf import ddf_of_the_fit
from mixedeffects.base.files import check_place, escaped_formulas, target_path, write_text_whole
from mixedeffects.base.habits import explained
from mixedeffects.base.options import checked_choice, checked_flag, checked_level
from mixedeffects.display.numbers import fixed_decimals
from mixedeffects.display.result_table import ResultTable
from mixedeffects.display.sectioned import Row, Section, SectionedTable
from mixedeffects.display.shown import Shown
from mixedeffects.display.vocabulary import intervals_at
from mixedeffects.errors import DataError, ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.inference.ratios import exponentiated, ratio_of
from mixedeffects.reporting.estimates_arguments import (
    Labels,
    check_digits,
    fits_and_names,
    marks_of,
)
from mixedeffects.reporting.estimates_coefficients import (
    CoefficientRows,
    chosen_coefficients,
    coefficients,
    in_order,
)
from mixedeffects.reporting.estimates_statistics import (
    FIT_STATISTICS,
    KNOWN_STATISTICS,
    FitRow,
    fit_rows,
)
from mixedeffects.reporting.random_parameters import (
    RESIDUAL,
    one_residual_deviation,
    random_parameters,
)

__all__ = ["EstimatesTable", "etable"]

STATISTICS = ("se", "ci", "t", "p")
OUTPUTS = ("text", "latex", "markdown", "html", "frame")
_FORMATS = (".tex", ".md", ".html", ".csv", ".txt")


@dataclass(frozen=True, eq=False, repr=False)
class EstimatesTable(Shown):
    """Several fits side by side, made by `etable`.

    ``str()`` gives the text; notebooks show HTML.

    Attributes
    ----------
    table : SectionedTable
        What is printed.
    numbers : DataFrame
        The numbers behind it in full precision, one column per fit; see `to_frame`.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
    >>> table = me.etable(m)
    >>> print(table.to_markdown().splitlines()[0])
    |  | (1) |
    >>> table.to_frame().loc[("Random effects", "Residual: SD", "estimate")].round(2).tolist()
    [49.51]
    """

    table: SectionedTable
    numbers: pd.DataFrame

    def to_text(self) -> str:
        """Return the table as text with aligned decimal points.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> me.etable(m).to_text().splitlines()[4].split()
        ['(Intercept)', '1527.500***']
        """
        return self.table.to_text()

    def to_latex(self, caption: str | None = None, label: str | None = None) -> str:
        r"""Return the table as a LaTeX ``tabular``; it needs ``\usepackage{booktabs}``.

        Parameters
        ----------
        caption, label : str, optional
            Either puts it into a ``table`` environment.

        Returns
        -------
        str
            All text escaped.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> print(me.etable(m).to_latex().splitlines()[0])
        \begin{tabular}{lc}
        """
        return self.table.to_latex(caption, label)

    def to_markdown(self) -> str:
        """Return the table as a Markdown pipe table.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> print(me.etable(m, names=["yield"]).to_markdown().splitlines()[0])
        |  | yield |
        """
        return self.table.to_markdown()

    def to_html(self) -> str:
        """Return the table as HTML, without style rules.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> me.etable(m).to_html().splitlines()[0]
        '<table>'
        """
        return self.table.to_html()

    def to_frame(self) -> pd.DataFrame:
        """Numbers in full precision.

        Returns
        -------
        DataFrame
            One column per fit; the index has the levels ``part``, ``name`` and ``statistic``. NaN
            where a fit has no such parameter.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> me.etable(m).to_frame().index.names
        FrozenList(['part', 'name', 'statistic'])
        """
        return self.numbers.copy()

    def save(self, path: str | os.PathLike[str], *, escape_formulas: bool = False) -> None:
        """Write the table to a file, whole or not at all.

        Parameters
        ----------
        path : str or path
            Ending in ``.tex``, ``.md``, ``.html`` (a page of its own), ``.txt``, or ``.csv`` (the
            numbers of `to_frame`); in small or capital letters.
        escape_formulas : bool
            In a csv file, put an apostrophe before names that a spreadsheet would run as formulas.

        Raises
        ------
        DataError
            If the ending is not one of these, the path is a folder, or it is in none.
        FileError
            If the file cannot be written: no permission, no space.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> import pathlib
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     me.etable(m).save(pathlib.Path(folder) / "table.md")
        ...     os.listdir(folder)
        ['table.md']
        """
        target = target_path(path)
        check_place(target)
        escape = checked_flag(escape_formulas, "escape_formulas")
        numbers = escaped_formulas(self.numbers) if escape else self.numbers
        makers: dict[str, Callable[[], str]] = {
            ".tex": self.to_latex,
            ".md": self.to_markdown,
            ".html": self._page,
            ".csv": numbers.to_csv,
            ".txt": self.to_text,
        }
        maker = makers.get(target.suffix.lower())
        if maker is None:
            raise DataError(
                f"{target}: the name must end in {', '.join(_FORMATS)}. Word opens .html."
            )
        text = maker().rstrip("\n") + "\n"
        write_text_whole(target, text)

    def _page(self) -> str:
        return (
            "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
            f"<title>Estimates</title></head>\n<body>\n{self._repr_html_()}\n</body></html>"
        )


@overload
def etable(
    models: Any,
    *,
    names: Sequence[str] | None = None,
    digits: int = 3,
    statistic: str = "se",
    stars: bool | Mapping[str, float] = True,
    ddf: Any = "satterthwaite",
    vcov: Any = "model",
    cluster: Any = None,
    level: float = 0.95,
    exponentiate: bool = False,
    labels: Mapping[str, str] | None = None,
    keep: str | Sequence[str] | None = None,
    drop: str | Sequence[str] | None = None,
    order: str | Sequence[str] | None = None,
    fit_statistics: Sequence[str] = FIT_STATISTICS,
    output: None = None,
) -> EstimatesTable: ...


@overload
def etable(
    models: Any,
    *,
    names: Sequence[str] | None = None,
    digits: int = 3,
    statistic: str = "se",
    stars: bool | Mapping[str, float] = True,
    ddf: Any = "satterthwaite",
    vcov: Any = "model",
    cluster: Any = None,
    level: float = 0.95,
    exponentiate: bool = False,
    labels: Mapping[str, str] | None = None,
    keep: str | Sequence[str] | None = None,
    drop: str | Sequence[str] | None = None,
    order: str | Sequence[str] | None = None,
    fit_statistics: Sequence[str] = FIT_STATISTICS,
    output: Literal["frame"],
) -> pd.DataFrame: ...


@overload
def etable(
    models: Any,
    *,
    names: Sequence[str] | None = None,
    digits: int = 3,
    statistic: str = "se",
    stars: bool | Mapping[str, float] = True,
    ddf: Any = "satterthwaite",
    vcov: Any = "model",
    cluster: Any = None,
    level: float = 0.95,
    exponentiate: bool = False,
    labels: Mapping[str, str] | None = None,
    keep: str | Sequence[str] | None = None,
    drop: str | Sequence[str] | None = None,
    order: str | Sequence[str] | None = None,
    fit_statistics: Sequence[str] = FIT_STATISTICS,
    output: Literal["text", "latex", "markdown", "html"],
) -> str: ...


@overload
def etable(
    models: Any,
    *,
    names: Sequence[str] | None = None,
    digits: int = 3,
    statistic: str = "se",
    stars: bool | Mapping[str, float] = True,
    ddf: Any = "satterthwaite",
    vcov: Any = "model",
    cluster: Any = None,
    level: float = 0.95,
    exponentiate: bool = False,
    labels: Mapping[str, str] | None = None,
    keep: str | Sequence[str] | None = None,
    drop: str | Sequence[str] | None = None,
    order: str | Sequence[str] | None = None,
    fit_statistics: Sequence[str] = FIT_STATISTICS,
    output: str | None,
) -> EstimatesTable | pd.DataFrame | str: ...


@explained
@ddf_of_the_fit
def etable(
    models: Any,
    *,
    names: Sequence[str] | None = None,
    digits: int = 3,
    statistic: str = "se",
    stars: bool | Mapping[str, float] = True,
    ddf: Any = "satterthwaite",
    vcov: Any = "model",
    cluster: Any = None,
    level: float = 0.95,
    exponentiate: bool = False,
    labels: Mapping[str, str] | None = None,
    keep: str | Sequence[str] | None = None,
    drop: str | Sequence[str] | None = None,
    order: str | Sequence[str] | None = None,
    fit_statistics: Sequence[str] = FIT_STATISTICS,
    output: str | None = None,
) -> EstimatesTable | pd.DataFrame | str:
    """Put several fits side by side in one table.

    Coefficients with their standard errors below, then standard deviations and correlations of the
    random effects, then statistics of the fits.

    Parameters
    ----------
    models : LinearMixedModel or GeneralizedLinearMixedModel, list of them, or dict of str to them
        The fits, with rows for family and link where some are generalized. The keys of a dict are
        the names of the columns.
    names : sequence of str, optional
        Names of the columns, by default ``(1)``, ``(2)``, ...
    digits : int
        Decimals of estimates. A number that would show as zero is written in scientific notation.
        Log-likelihood and information criteria have two decimals fewer, at least one.
    statistic : {"se", "ci", "t", "p"}
        What stands below an estimate: its standard error, confidence interval, t value or p-value.
    stars : bool or mapping of str to float
        Marks of small p-values; a mapping gives the marks and the bounds that p is below, by
        default ``{"***": 0.001, "**": 0.01, "*": 0.05}``.
    ddf, vcov : str or list of str
        As for `LinearMixedModel.coef_table`; a list has one for each fit.
    cluster
        For the robust kinds, as for `LinearMixedModel.robust`.
    level : float
        Confidence level of intervals.
    exponentiate : bool
        Coefficients and their intervals of generalized models as ratios: odds ratios with the
        logit, rate ratios of counts with the logarithm; standard errors by the delta method.
    labels : mapping of str to str, optional
        Other names for coefficients, columns of random effects, grouping factors and the response.
        An interaction is named after its parts. What is not in the mapping keeps its name.
    keep, drop, order : str or sequence of str, optional
        Coefficients to show, to leave out, and to put first, in this order. Each is a name or
        label, or else a regular expression to search for in the names.
    fit_statistics : sequence of str
        Rows below, from ``"nobs"``, ``"groups"`` (numbers of levels), ``"method"`` (REML or ML),
        ``"loglik"``, ``"criterion"``, ``"aic"``, ``"bic"``, ``"icc"`` (adjusted), ``"r2"``
        (marginal and conditional) and ``"n_parameters"``.
    output : {"text", "latex", "markdown", "html", "frame"}, optional
        Return this rendering, a str or a DataFrame, instead of the object that makes all of them.

    Returns
    -------
    EstimatesTable, str or DataFrame

    Raises
    ------
    ModelError
        If an argument is not what it should be, a pattern matches no coefficient, or labels give
        two coefficients of one fit the same name.

    Examples
    --------
    >>> import mixedeffects as me
    >>> sleep = me.load_dataset("sleepstudy")
    >>> slopes = me.lmer("Reaction ~ Days + (Days | Subject)", sleep)
    >>> me.etable([slopes.update("Reaction ~ Days + (1 | Subject)"), slopes])
    ----------------------------------------------------------
                                        (1)          (2)
    Response                            Reaction     Reaction
    ----------------------------------------------------------
    (Intercept)                        251.405***   251.405***
                                        (9.747)      (6.825)
    Days                                10.467***    10.467***
                                        (0.804)      (1.546)
    ----------------------------------------------------------
    Random effects
    Subject: SD (Intercept)             37.124       24.740
    Subject: SD Days                                  5.922
    Subject: corr. (Intercept), Days                  0.066
    Residual: SD                        30.991       25.592
    ----------------------------------------------------------
    Observations                       180          180
    Groups: Subject                     18           18
    Estimation                            REML         REML
    Log-likelihood                    -893.2       -871.8
    AIC                               1794.5       1755.6
    BIC                               1807.2       1774.8
    ICC                                  0.589        0.722
    R2 marginal                          0.280        0.279
    R2 conditional                       0.704        0.799
    ----------------------------------------------------------
    Standard errors in parentheses; t-tests use Satterthwaite's method.
    *** p < 0.001, ** p < 0.01, * p < 0.05
    """
    fits, columns = fits_and_names(models, names)
    check_digits(digits)
    checked_choice(statistic, "statistic", STATISTICS)
    if output is not None:
        checked_choice(output, "output", OUTPUTS)
    if not isinstance(fit_statistics, (list, tuple)):
        raise ModelError(f"fit_statistics must be a list of names, not {fit_statistics!r:.60}.")
    for name in fit_statistics:
        checked_choice(name, "fit statistic", KNOWN_STATISTICS)
    marks = marks_of(stars)
    level = checked_level(level)
    label = Labels(labels)
    methods, tables = coefficients(fits, columns, ddf, vcov, cluster, level, label)
    ratios = None
    if checked_flag(exponentiate, "exponentiate"):
        ratios = list(dict.fromkeys(ratio_of(fit) for fit in fits))
        tables = [ResultTable.of(exponentiated(table)) for table in tables]
    chosen = chosen_coefficients(tables, label, keep, drop, order)
    fixed = CoefficientRows(statistic, digits, marks)
    random_names, random = _random(fits, label)
    statistics = [row for name in fit_statistics for row in fit_rows(name, fits, label, digits)]
    sections = [
        Section("", tuple(row for name in chosen for row in fixed.rows(name, tables))),
        Section(
            "Random effects" if any(fit.frame.terms for fit in fits) else "Residuals",
            tuple(
                Row(
                    name,
                    tuple(
                        fixed_decimals(each[name], digits) if name in each else ""
                        for each in random
                    ),
                )
                for name in random_names
            ),
        ),
        Section("", tuple(row for row, _ in statistics)),
    ]
    result = EstimatesTable(
        SectionedTable(
            columns,
            _heads(fits, label),
            tuple(section for section in sections if section.rows),
            tuple(_footnotes(fits, columns, methods, statistic, level, marks, ratios)),
        ),
        _numbers(columns, chosen, tables, random_names, random, statistics),
    )
    renderings: dict[str | None, Callable[[], pd.DataFrame | str]] = {
        "text": result.to_text,
        "latex": result.to_latex,
        "markdown": result.to_markdown,
        "html": result.to_html,
        "frame": result.to_frame,
    }
    return renderings[output]() if output is not None else result


def _random(fits: Sequence[Fit], label: Labels) -> tuple[list[str], list[dict[str, float]]]:
    """Names of all parameters but fixed effects, sigma last, and the values of each fit."""
    parameters = [random_parameters(fit, label) for fit in fits]
    names = in_order(parameters)
    for own, fit in zip(parameters, fits, strict=True):
        if fit.residual_sigma is not None and one_residual_deviation(fit):
            own[RESIDUAL] = fit.residual_sigma
    if any(RESIDUAL in own for own in parameters):
        names.append(RESIDUAL)
    return names, parameters


def _heads(fits: Sequence[Fit], label: Labels) -> tuple[Row, ...]:
    """What the fits are of: the response, and where some are generalized the family."""
    rows = [Row("Response", tuple(label(fit.frame.formula.response) for fit in fits))]
    families = [fit.request.family for fit in fits]
    if any(families):
        names = ["gaussian" if each is None else each.name for each in families]
        links = ["identity" if each is None else each.link.name for each in families]
        rows.append(Row("Family", tuple(name.replace("_", " ") for name in names)))
        rows.append(Row("Link", tuple(links)))
    return tuple(rows)


def _footnotes(
    fits: Sequence[Fit],
    columns: Sequence[str],
    methods: Sequence[str],
    statistic: str,
    level: float,
    marks: Sequence[tuple[str, float]],
    ratios: Sequence[str] | None,
) -> list[str]:
    values = " and ".join(sorted({"t" if fit.has_degrees_of_freedom else "z" for fit in fits}))
    shown = {
        "se": "Standard errors in parentheses",
        "ci": f"{intervals_at(level, 'confidence')} in brackets",
        "t": f"{values} values in parentheses",
        "p": "p-values in parentheses",
    }[statistic]
    if len(set(methods)) == 1:
        notes = [f"{shown}; {methods[0]}."]
    else:
        notes = [f"{shown}."]
        notes += [f"{c}: {method}." for c, method in zip(columns, methods, strict=True)]
    if ratios is not None:
        what = " and ".join(each.replace("ratio", "ratios", 1) for each in ratios)
        notes.append(f"{what[:1].upper()}{what[1:]}: exponentiated coefficients.")
    if marks:
        notes.append(", ".join(f"{mark} p < {bound:g}" for mark, bound in marks))
    for fit, column in zip(fits, columns, strict=True):
        if fit.optimum.undetermined:
            names = ", ".join(fit.optimum.undetermined)
            notes.append(f"{column}: NOT DETERMINED by the data: {names}.")
        elif not fit.optimum.converged:
            notes.append(f"{column}: NOT CONVERGED, {fit.optimum.message}.")
        elif fit.optimum.singular:
            notes.append(
                f"{column}: singular fit, a combination of random effects has no variance."
            )
        if fit.frame.dropped.columns:
            names = ", ".join(fit.frame.dropped.columns)
            notes.append(f"{column}: dropped for linear dependence: {names}.")
    if len({fit.reml for fit in fits}) > 1:
        notes.append("Likelihoods by REML and by maximum likelihood are not comparable.")
    return notes


def _numbers(
    columns: Sequence[str],
    chosen: Sequence[str],
    tables: Sequence[pd.DataFrame],
    random_names: Sequence[str],
    random: Sequence[Mapping[str, float]],
    statistics: Sequence[FitRow],
) -> pd.DataFrame:
    """Everything in full precision."""
    short = {
        "Estimate": "estimate",
        "Std. Error": "se",
        "df": "df",
        "t value": "t",
        "z value": "z",
        "Pr(>|t|)": "p",
        "Pr(>|z|)": "p",
    }
    keys: list[tuple[str, str, str]] = []
    values: list[list[float]] = []
    named = [pd.DataFrame(table).drop(columns="name").rename(columns=short) for table in tables]
    for name in chosen:
        for column in in_order([[str(each) for each in own.columns] for own in named]):
            keys.append(("Fixed effects", name, column))
            values.append(
                [float(t[column].get(name, math.nan)) if column in t else math.nan for t in named]
            )
    for name in random_names:
        keys.append(("Random effects", name, "estimate"))
        values.append([each.get(name, math.nan) for each in random])
    for row, numbers in statistics:
        if numbers is not None:
            keys.append(("Fit", row.label, "value"))
            values.append(list(numbers))
    index = pd.MultiIndex.from_tuples(keys, names=["part", "name", "statistic"])
    return pd.DataFrame(values, index=index, columns=list(columns), dtype=float)
