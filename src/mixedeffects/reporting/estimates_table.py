"""Several fits side by side in one table, as papers print them."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, overload

import numpy as np
import pandas as pd

from mixedeffects.base.default_ddf import ddf_of_the_fit
from mixedeffects.base.files import check_place, escaped_formulas, target_path, write_text_whole
from mixedeffects.base.habits import explained
from mixedeffects.base.options import (
    checked_choice,
    checked_flag,
    checked_level,
    checked_names,
    is_listed,
    is_whole_number,
    plain,
)
from mixedeffects.comparison.latent_variance import icc_of_fit, r2_of_fit
from mixedeffects.covariance.of_fit import varcorr_of
from mixedeffects.display.result_table import ResultTable
from mixedeffects.display.sectioned import Row, Section, SectionedTable
from mixedeffects.display.shown import Shown
from mixedeffects.display.vocabulary import INTERVAL, intervals_at
from mixedeffects.errors import DataError, ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.natural import covariance_parameters, structure_parameters
from mixedeffects.fitting.residual_parameters import reported_residual_parameters
from mixedeffects.inference.coefficients import tests_with
from mixedeffects.inference.ratios import exponentiated, ratio_of
from mixedeffects.inference.variance import check_normal, is_robust
from mixedeffects.inference.variance_by_name import fixed_effects_variance

__all__ = [
    "RESIDUAL",
    "EstimatesTable",
    "etable",
    "one_residual_deviation",
    "random_parameters",
]

STATISTICS = ("se", "ci", "t", "p")
OUTPUTS = ("text", "latex", "markdown", "html", "frame")
FIT_STATISTICS = ("nobs", "groups", "method", "loglik", "aic", "bic", "icc", "r2")
_STARS = {"***": 0.001, "**": 0.01, "*": 0.05}
_FORMATS = (".tex", ".md", ".html", ".csv", ".txt")

#: Beside those made by hand: what a statistic of the whole fit is called, and how it is computed.
_VALUES: dict[str, tuple[str, Callable[[Fit], float]]] = {
    "loglik": ("Log-likelihood", lambda m: m.loglik),
    "criterion": ("Criterion", lambda m: m.criterion),
    "aic": ("AIC", lambda m: m.aic),
    "bic": ("BIC", lambda m: m.bic),
}
_SHARES: dict[str, tuple[tuple[str, Callable[[Fit], float]], ...]] = {
    "icc": (("ICC", lambda m: icc_of_fit(m).adjusted),),
    "r2": (
        ("R2 marginal", lambda m: r2_of_fit(m).marginal),
        ("R2 conditional", lambda m: r2_of_fit(m).conditional),
    ),
}
#: What the residual standard deviation is called.
RESIDUAL = "Residual: SD"
#: Shares that there are with random effects only.
_OF_RANDOM_EFFECTS = ("ICC", "R2 conditional")
_KNOWN = ("nobs", "groups", "method", *_VALUES, *_SHARES, "n_parameters")


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
    fits, columns = _fits(models, names)
    _check_digits(digits)
    _one_of(statistic, "statistic", STATISTICS)
    if output is not None:
        _one_of(output, "output", OUTPUTS)
    if not isinstance(fit_statistics, (list, tuple)):
        raise ModelError(f"fit_statistics must be a list of names, not {fit_statistics!r:.60}.")
    for name in fit_statistics:
        _one_of(name, "fit statistic", _KNOWN)
    marks = _marks(stars)
    level = checked_level(level)
    label = _Labels(labels)
    methods, tables = _coefficients(fits, columns, ddf, vcov, cluster, level, label)
    ratios = None
    if checked_flag(exponentiate, "exponentiate"):
        ratios = list(dict.fromkeys(ratio_of(fit) for fit in fits))
        tables = [ResultTable.of(exponentiated(table)) for table in tables]
    chosen = _choose(tables, label, keep, drop, order)
    fixed = _Fixed(statistic, digits, marks)
    random = [random_parameters(fit, label) for fit in fits]
    random_names = _in_order(random)
    for each, fit in zip(random, fits, strict=True):
        if fit.residual_sigma is not None and one_residual_deviation(fit):
            each[RESIDUAL] = fit.residual_sigma
    if any(RESIDUAL in each for each in random):
        random_names.append(RESIDUAL)
    statistics = [row for name in fit_statistics for row in _fit_rows(name, fits, label, digits)]
    sections = [
        Section("", tuple(row for name in chosen for row in fixed.rows(name, tables))),
        Section(
            "Random effects" if any(fit.frame.terms for fit in fits) else "Residuals",
            tuple(
                Row(name, tuple(_cell(each.get(name), digits) for each in random))
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


def _heads(fits: Sequence[Fit], label: _Labels) -> tuple[Row, ...]:
    """What the fits are of: the response, and where some are generalized the family."""
    rows = [Row("Response", tuple(label(fit.frame.formula.response) for fit in fits))]
    families = [fit.request.family for fit in fits]
    if any(families):
        names = ["gaussian" if each is None else each.name for each in families]
        links = ["identity" if each is None else each.link.name for each in families]
        rows.append(Row("Family", tuple(name.replace("_", " ") for name in names)))
        rows.append(Row("Link", tuple(links)))
    return tuple(rows)


# --- arguments -------------------------------------------------------------------------------


def _fits(models: Any, names: Any) -> tuple[list[Fit], tuple[str, ...]]:
    """The fits and the names of their columns."""
    if isinstance(models, Mapping):
        if names is not None:
            raise ModelError("The keys of the dict are the names of the columns; leave names= out.")
        listed, given = list(models.values()), [str(key) for key in models]
    else:
        listed = [models] if _is_fitted(models) else _listed(models)
        given = [f"({i})" for i in range(1, len(listed) + 1)]
        if names is not None:
            given = checked_names(names, "names")
    if not listed:
        raise ModelError("There are no models to put into a table.")
    for position, model in enumerate(listed, start=1):
        if not _is_fitted(model):
            raise ModelError(
                f"A table takes models fitted by lmer or glmer; number {position} is a "
                f"{type(model).__name__}."
            )
    fits = [model.fit for model in listed]
    if len(given) != len(fits):
        raise ModelError(f"There are {len(fits)} models but {len(given)} names.")
    columns = tuple(str(name) for name in given)
    if len(set(columns)) < len(columns):
        raise ModelError(f"The names of the columns must differ; they are {', '.join(columns)}.")
    return fits, columns


def _is_fitted(model: Any) -> bool:
    return isinstance(getattr(model, "fit", None), Fit)


def _listed(models: Any) -> list[Any]:
    if not is_listed(models):
        raise ModelError(
            f"models must be a fitted model, a list or a dict of them, not {models!r:.60}."
        )
    return list(models)


def _one_of(value: Any, what: str, known: Sequence[str]) -> None:
    checked_choice(value, what, known)


def _check_digits(digits: Any) -> None:
    if not is_whole_number(digits, least=0) or digits > 15:
        raise ModelError(f"digits must be a whole number from 0 to 15, not {digits!r:.60}.")


def _marks(stars: Any) -> list[tuple[str, float]]:
    """Marks with the bounds that p must be below, the smallest bound first."""
    stars = plain(stars)
    if isinstance(stars, bool):
        stars = _STARS if stars else {}
    if not isinstance(stars, Mapping):
        raise ModelError(f"stars must be True, False or a dict of marks, not {stars!r:.60}.")
    for mark, bound in stars.items():
        number = isinstance(bound, (int, float, np.floating)) and not isinstance(bound, bool)
        if not isinstance(mark, str) or not number or not 0.0 < bound <= 1.0:
            raise ModelError(
                f"stars must give each mark a bound between 0 and 1, not {mark!r}: {bound!r:.60}."
            )
    return sorted(((mark, float(bound)) for mark, bound in stars.items()), key=lambda m: m[1])


def _each(value: Any, what: str, n: int) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        return [value] * n
    if len(value) != n:
        raise ModelError(f"{what} has {len(value)} entries for {n} models.")
    return list(value)


class _Labels:
    """The names to show."""

    def __init__(self, labels: Any) -> None:
        if labels is not None and not isinstance(labels, Mapping):
            raise ModelError(f"labels must be a dict of names to labels, not {labels!r:.60}.")
        self._labels = {} if labels is None else {str(k): str(v) for k, v in labels.items()}

    def __call__(self, name: str) -> str:
        if name in self._labels:
            return self._labels[name]
        parts = name.split(":")
        if any(part in self._labels for part in parts):
            return ":".join(self._labels.get(part, part) for part in parts)
        return name


# --- coefficients ----------------------------------------------------------------------------


def _coefficients(
    fits: Sequence[Fit],
    columns: Sequence[str],
    ddf: Any,
    vcov: Any,
    cluster: Any,
    level: float,
    label: _Labels,
) -> tuple[list[str], list[ResultTable]]:
    """How the tests were made, and the table of coefficients by label, of each fit."""
    kinds = _each(vcov, "vcov", len(fits))
    alone = not any(fit.has_degrees_of_freedom for fit in fits)
    if alone and isinstance(ddf, str) and ddf != "satterthwaite":
        # The usual method, which nobody may have asked for, is left out without a word.
        check_normal(ddf)
    some_robust = any(is_robust(kind) for kind in kinds)
    methods, tables = [], []
    for fit, column, kind, method in zip(
        fits, columns, kinds, _each(ddf, "ddf", len(fits)), strict=True
    ):
        own = None if some_robust and not is_robust(kind) else cluster
        # One method for all is for those that have degrees of freedom.
        used = method if fit.has_degrees_of_freedom or isinstance(ddf, list) else "inf"
        variance = fixed_effects_variance(fit, kind, used, own)
        table = tests_with(fit, variance, level)
        shown = [label(str(name)) for name in table.index]
        if len(set(shown)) < len(shown):
            twice = sorted({name for name in shown if shown.count(name) > 1})
            raise ModelError(
                f"labels give several coefficients of {column} the same name: {', '.join(twice)}."
            )
        table["name"] = [str(name) for name in table.index]
        table.index = pd.Index(shown)
        methods.append(variance.method)
        tables.append(table)
    return methods, tables


def _in_order(parts: Sequence[Iterable[str]]) -> list[str]:
    """All names; a new one comes before the known name that it precedes in its part, else last."""
    out: list[str] = []
    for part in parts:
        pending: list[str] = []
        for name in part:
            if name in out:
                place = out.index(name)
                out[place:place] = pending
                pending = []
            else:
                pending.append(name)
        out += pending
    return out


def _choose(
    tables: Sequence[pd.DataFrame], label: _Labels, keep: Any, drop: Any, order: Any
) -> list[str]:
    """Labels of the coefficients to show, in order."""
    found = _in_order([list(table.index) for table in tables])
    known = {shown: {shown} for shown in found}
    for table in tables:
        for shown, name in zip(table.index, table["name"], strict=True):
            known[shown].add(name)
    search = partial(_matching, known)
    if keep is not None:
        wanted = {name for names in search("keep", keep) for name in names}
        found = [name for name in found if name in wanted]
    if drop is not None:
        unwanted = {name for names in search("drop", drop) for name in names}
        found = [name for name in found if name not in unwanted]
    if order is not None:
        first = [name for names in search("order", order) for name in names if name in found]
        found = list(dict.fromkeys([*first, *found]))
    return found


def _matching(known: Mapping[str, set[str]], what: str, patterns: Any) -> list[list[str]]:
    """For each pattern the labels that it matches, at least one."""
    patterns = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(patterns, (list, tuple)) or not all(isinstance(p, str) for p in patterns):
        raise ModelError(f"{what} must be names of coefficients or patterns, not {patterns!r:.60}.")
    out = []
    for pattern in patterns:
        matched = [shown for shown, names in known.items() if pattern in names]
        if not matched:
            try:
                search = re.compile(pattern).search
            except re.error as error:
                raise ModelError(
                    f"{what}: {pattern!r} is neither a coefficient nor a regular expression "
                    f"({error}). The coefficients are {', '.join(known)}."
                ) from None
            matched = [shown for shown, names in known.items() if any(map(search, names))]
        if not matched:
            raise ModelError(
                f"{what}: {pattern!r} matches no coefficient; they are {', '.join(known)}."
            )
        out.append(matched)
    return out


@dataclass(frozen=True)
class _Fixed:
    """How coefficients are written."""

    statistic: str
    digits: int
    marks: Sequence[tuple[str, float]]

    def rows(self, name: str, tables: Sequence[pd.DataFrame]) -> list[Row]:
        """The estimates of one coefficient, and what stands below them."""
        own = [dict(table.loc[[name]].iloc[0]) if name in table.index else None for table in tables]
        return [
            Row(name, tuple("" if c is None else self._estimate(c) for c in own)),
            Row("", tuple("" if c is None else self._below(c) for c in own)),
        ]

    def _estimate(self, coefficient: Mapping[Any, Any]) -> str:
        p = float(_either(coefficient, "p"))
        mark = next((mark for mark, bound in self.marks if p < bound), "")
        return _number(coefficient["Estimate"], self.digits) + mark

    def _below(self, coefficient: Mapping[Any, Any]) -> str:
        if self.statistic == "ci":
            low, high = (_number(coefficient[bound], self.digits) for bound in INTERVAL)
            return f"[{low}, {high}]"
        return f"({_number(_either(coefficient, self.statistic), self.digits)})"


#: Columns of a table of t tests or of z tests.
_COLUMNS = {"se": ("Std. Error",), "t": ("t value", "z value"), "p": ("Pr(>|t|)", "Pr(>|z|)")}


def _either(coefficient: Mapping[Any, Any], statistic: str) -> Any:
    """A number of the table, whichever test it is of."""
    return next(coefficient[name] for name in _COLUMNS[statistic] if name in coefficient)


def _number(value: float, digits: int) -> str:
    """Fixed decimals, but no number other than zero is shown as zero."""
    value = float(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Inf" if value > 0 else "-Inf"
    if (value != 0.0 and abs(value) < 0.5 * 10.0**-digits) or abs(value) >= 1e15:
        return f"{value:.{max(digits - 1, 0)}e}"
    # Adding 0.0 turns the negative zero into zero.
    return f"{round(value, digits) + 0.0:.{digits}f}"


def _cell(value: float | None, digits: int) -> str:
    return "" if value is None else _number(value, digits)


# --- random effects and the whole fit --------------------------------------------------------


def random_parameters(fit: Fit, label: Callable[[str], str] = str) -> dict[str, float]:
    """Standard deviations and correlations by what they are called."""
    out: dict[str, float] = {}
    terms = fit.frame.terms
    for term in terms:
        # Terms on one factor share its name unless they have a column in common.
        twice = any(
            other is not term
            and other.group == term.group
            and set(other.columns) & set(term.columns)
            for other in terms
        )
        group = term.label if twice else label(term.group)
        if term.structure != "us":
            for kind, column, value in structure_parameters(covariance_parameters(fit), term.label):
                text = "corr." if kind == "cor" else f"SD {label(column)}" if column else "SD"
                out[f"{group}: {text}"] = value
            continue
        sd, corr = varcorr_of(fit).sd(term.label), varcorr_of(fit).corr(term.label).to_numpy()
        names = [label(column) for column in term.columns]
        own = {f"{group}: SD {name}": float(value) for name, value in zip(names, sd, strict=True)}
        if len(own) < len(names) or not own.keys().isdisjoint(out):
            raise ModelError(
                f"labels give random effects of {term.label} names that others have: "
                f"{', '.join(own)}."
            )
        for j, second in enumerate(names):
            for i, first in enumerate(names[:j]):
                own[f"{group}: corr. {first}, {second}"] = float(corr[i, j])
        out |= own
    if fit.family_estimate is not None:
        parameter, estimate = fit.family_estimate
        out[f"Family: {parameter}"] = estimate
    return out | _residual_parameters(fit, label)


#: What the parameters of the residuals are called, by kind.
_OF_RESIDUALS = {
    "sd": "SD",
    "log_sd": "log SD per",
    "power": "power of",
    "cor": "corr.",
    "range": "range",
    "nugget": "nugget",
}


def _residual_parameters(fit: Fit, label: Callable[[str], str]) -> dict[str, float]:
    """The same of the residuals; sigma has its own row, unless it is that of a time or stratum."""
    out = {}
    for each in reported_residual_parameters(fit):
        names = ", ".join(label(name) for name in each.of)
        text = " ".join(filter(None, (_OF_RESIDUALS[each.kind], each.stratum, names)))
        if f"Residual: {text}" != RESIDUAL:
            out[f"Residual: {text}"] = each.value
    return out


def one_residual_deviation(fit: Fit) -> bool:
    """Whether sigma belongs to all rows, not to those of the first time or stratum."""
    residuals = reported_residual_parameters(fit)
    return not any(each.is_sigma and each.column for each in residuals)


_FitRow = tuple[Row, Sequence[float] | None]


def _fit_rows(name: str, fits: Sequence[Fit], label: _Labels, digits: int) -> list[_FitRow]:
    """Rows for one statistic, with their numbers."""
    if name == "method":
        return [(Row("Estimation", tuple(fit.estimation for fit in fits)), None)]
    if name == "groups":
        counts = [{label(group): n for group, n in fit.ngroups.items()} for fit in fits]
        return [
            _counts(f"Groups: {group}", [own.get(group) for own in counts])
            for group in _in_order(counts)
        ]
    if name == "nobs":
        return [_counts("Observations", [fit.nobs for fit in fits])]
    if name == "n_parameters":
        return [_counts("Parameters", [fit.n_parameters for fit in fits])]
    places = max(1, digits - 2) if name in _VALUES else digits
    made = (_VALUES[name],) if name in _VALUES else _SHARES[name]
    rows: list[_FitRow] = []
    for title, compute in made:
        # Without random effects they have no share of the variance.
        has = [bool(fit.frame.terms) or title not in _OF_RANDOM_EFFECTS for fit in fits]
        if not any(has):
            continue
        values = [
            float(compute(fit)) if known else math.nan for fit, known in zip(fits, has, strict=True)
        ]
        cells = [
            _number(value, places) if known else ""
            for value, known in zip(values, has, strict=True)
        ]
        rows.append((Row(title, tuple(cells)), values))
    return rows


def _counts(title: str, counts: Sequence[int | None]) -> _FitRow:
    cells = tuple("" if count is None else f"{count:,}" for count in counts)
    return Row(title, cells), [math.nan if count is None else float(count) for count in counts]


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
    statistics: Sequence[_FitRow],
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
        for column in _in_order([[str(each) for each in own.columns] for own in named]):
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
