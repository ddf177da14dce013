"""A report of a fitted model as one HTML file."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mixedeffects.base.caching import cached_property
from mixedeffects.base.files import report_path, write_text_whole
from mixedeffects.comparison.variance_explained import intraclass_correlation, r_squared
from mixedeffects.covariance.of_fit import residual_blocks_of, varcorr_of
from mixedeffects.diagnostics.check import check
from mixedeffects.display.coefficients import coefficient_table, correlation_table
from mixedeffects.display.comparison_table import comparison_table
from mixedeffects.display.needs_matplotlib import require_matplotlib
from mixedeffects.display.report_page import (
    Section,
    definitions,
    folded,
    items,
    note,
    page,
    paragraph,
    pictures,
    scrolling,
)
from mixedeffects.display.tables import Column, Table
from mixedeffects.display.varcorr_text import varcorr_table
from mixedeffects.errors import ClusterWarning, ConvergenceWarning, CostWarning, ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.residual_parameters import reported_residual_parameters
from mixedeffects.inference.cluster_robust import RobustCovariance, robust_covariance
from mixedeffects.inference.coefficients import coefficient_tests, tests_with
from mixedeffects.inference.variance import (
    DDF_METHODS,
    FixedEffectsVariance,
    ddf_name,
    is_robust,
)
from mixedeffects.inference.variance_by_name import fixed_effects_variance
from mixedeffects.inference.wald import anova_table
from mixedeffects.pictures.effect_plots import term_effects
from mixedeffects.progress import ProgressOption, Unfinished
from mixedeffects.reporting.citation import cite
from mixedeffects.reporting.description import describe
from mixedeffects.reporting.model_summary import fit_notes, trials_of
from mixedeffects.reporting.report_pictures import Pictures
from mixedeffects.reporting.reproduction import code_to_reproduce, shape_of_data, versions

__all__ = [
    "Content",
    "Numbers",
    "Part",
    "code_and_references",
    "facts_of",
    "fixed_section",
    "has_matplotlib",
    "optimum_section",
    "part_of",
    "tests_of_terms",
    "write_report",
]

#: Rows of the dense part from which the certificate is not computed for the report alone: it takes
#: two factorisations for each variance parameter.
_LARGE_CORE = 5_000
#: Correlations of more coefficients than this are not shown.
_CORRELATIONS = 12
_MISSING_GLYPH = re.compile(r"Glyph (\d+) .*missing from")
_OWN_WARNINGS = (ClusterWarning, ConvergenceWarning, CostWarning)


def write_report(
    fit: Fit,
    path: Any,
    title: str | None,
    ddf: str,
    vcov: str,
    cluster: Any,
    progress: ProgressOption = None,
    content: Content | None = None,
) -> Path:
    """See `LinearMixedModel.report`; ``content`` is that of other models.

    Raises
    ------
    DataError
        If there is no such folder, or the path is one.
    Interrupted
        On Ctrl-C, with the sections that are done.
    ModelError
        If an argument is not what it should be.
    """
    if title is not None and not isinstance(title, str):
        raise ModelError(f"title must be text, not {title!r:.60}.")
    target = report_path(path)
    caught: list[warnings.WarningMessage] = []
    content = content or Content(_parts, _model, _title)
    numbers = Numbers(fit, ddf, vcov, cluster)
    parts = list(content.parts(numbers))

    def step(number: int) -> Section:
        with warnings.catch_warnings(record=True) as own:
            warnings.simplefilter("always")
            made = parts[number][1]()
        caught.extend(own)
        return made

    def finish(made: list[Section]) -> Path:
        html = _html(numbers, content, title, made, caught)
        for warning in caught:
            if not issubclass(warning.category, _OWN_WARNINGS) and not _glyph(warning):
                warnings.warn_explicit(
                    warning.message, warning.category, warning.filename, warning.lineno
                )
        write_text_whole(target, html)
        return target

    work = Unfinished("section", len(parts), step, finish, detail=lambda i: parts[i][0])
    return work.resume(progress)


#: The heading of a section, and what makes it.
Part = tuple[str, Callable[[], Section]]


@dataclass(frozen=True)
class Content:
    """What a report of one kind of model has.

    Attributes
    ----------
    parts : callable
        The sections but the first, of the numbers.
    model : callable
        The first section, of the fit and notes about it.
    title : callable
        What the model is called, of the fit.
    """

    parts: Callable[[Numbers], Iterable[Part]]
    model: Callable[[Fit, list[str]], Iterable[str]]
    title: Callable[[Fit], str]


class Numbers:
    """Standard errors and tests, computed when a section first asks for them."""

    def __init__(self, fit: Fit, ddf: str, vcov: str, cluster: Any) -> None:
        self.fit, self.ddf, self.vcov, self.cluster = fit, ddf, vcov, cluster

    @cached_property
    def robust(self) -> RobustCovariance | None:
        """The robust covariance, if it is asked for."""
        if not is_robust(self.vcov) or not self.fit.has_degrees_of_freedom:
            return None
        return robust_covariance(self.fit, self.vcov, self.cluster)

    @cached_property
    def variance(self) -> FixedEffectsVariance:
        """The variance of the fixed effects, and their degrees of freedom."""
        if self.robust is not None:
            return self.robust.variance()
        return fixed_effects_variance(self.fit, self.vcov, self.ddf, self.cluster)

    @cached_property
    def tests(self) -> pd.DataFrame:
        """Coefficients with their tests and intervals of 95 %."""
        if self.robust is not None:
            return self.robust.table
        return tests_with(self.fit, self.variance, level=0.95)

    @cached_property
    def table(self) -> Table:
        """The same as it is shown."""
        if self.robust is not None:
            return self.robust.display_table()
        return coefficient_table(self.tests)


def _parts(numbers: Numbers) -> Iterator[Part]:
    """All sections but the first, which tells of the others."""
    fit = numbers.fit
    yield part_of("fixed-effects", "Fixed effects", lambda: fixed_section(numbers))
    yield part_of("terms", "Tests of terms", lambda: tests_of_terms(numbers))
    yield from _covariances(fit)
    yield part_of("optimum", "Optimum", lambda: optimum_section(fit))
    yield part_of("checks", "Checks", lambda: _checks(fit))
    yield from _drawn(numbers)
    yield part_of("paper", "For the paper", lambda: _paper(numbers))


def has_matplotlib() -> bool:
    """Whether pictures can be drawn."""
    try:
        require_matplotlib()
    except ImportError:
        return False
    return True


def _drawn(numbers: Numbers) -> Iterator[Part]:
    if not has_matplotlib():
        sentence = "Pictures need matplotlib; install it with: pip install 'mixedeffects[plots]'"
        yield part_of("diagnostics", "Diagnostics", lambda: [note(sentence)])
        return
    drawn = Pictures(numbers.fit)
    asked = numbers.ddf, numbers.vcov, numbers.cluster
    if term_effects(numbers.fit):
        yield part_of("effects", "Effects", lambda: [pictures(drawn.fixed(*asked))])
    yield part_of("diagnostics", "Diagnostics", lambda: [pictures(drawn.diagnostics())])
    if numbers.fit.frame.terms:
        yield part_of("modes", "Conditional modes", lambda: [pictures(drawn.effects())])
    yield part_of("matrices", "Matrices", lambda: [pictures(drawn.matrices())])


def part_of(name: str, heading: str, content: Callable[[], Iterable[str]]) -> Part:
    """A section by its heading."""
    return heading, lambda: Section(name, heading, list(content()))


def _html(
    numbers: Numbers,
    content: Content,
    title: str | None,
    sections: list[Section],
    caught: list[warnings.WarningMessage],
) -> str:
    fit = numbers.fit
    satterthwaite = numbers.variance.method == DDF_METHODS["satterthwaite"]
    notes = fit_notes(fit, numbers.tests, satterthwaite)
    own = [str(each.message) for each in caught if issubclass(each.category, _OWN_WARNINGS)]
    notes += [text for text in dict.fromkeys(own) if text not in notes]
    glyphs = "".join(sorted({glyph for each in caught if (glyph := _glyph(each))}))
    if glyphs:
        notes.append(
            f"No font of this machine has the characters {glyphs}: in the pictures boxes stand "
            "for them."
        )
    first = Section("model", "Model and data", list(content.model(fit, notes)))
    if title is None:
        title = content.title(fit)
        title += f" of {fit.request.data_name}" if fit.request.data_name else ""
    lead = [f"<p><code>{escape(fit.formula)}</code></p>"]
    foot = f"Written by {versions()}."
    return page(title, lead, [first, *sections], foot)


def _title(fit: Fit) -> str:
    return "Linear mixed model" if fit.frame.terms else "Generalized least squares"


def _glyph(warning: warnings.WarningMessage) -> str:
    """The character that matplotlib found in no font, or nothing."""
    found = _MISSING_GLYPH.match(str(warning.message))
    return chr(int(found[1])) if found else ""


def _model(fit: Fit, notes: list[str]) -> Iterator[str]:
    yield from map(note, notes)
    criterion = "REML criterion" if fit.reml else "Deviance (-2 log-likelihood)"
    sigma = ("Residual standard deviation" + _whose(fit), f"{fit.sigma:.5g}")
    how = "restricted maximum likelihood" if fit.reml else "maximum likelihood"
    yield from facts_of(fit, how, [], criterion, [sigma])


def facts_of(
    fit: Fit,
    how: str,
    about: list[tuple[str, str]],
    criterion: str,
    behind: list[tuple[str, str]],
) -> Iterator[str]:
    """What was fitted to what: ``about`` the model, and ``behind`` the criteria."""
    frame, asked = fit.frame, fit.request
    total = fit.nobs + len(frame.dropped.rows)
    facts = [
        *about,
        ("Fitted by", how),
        ("Rows used", f"{fit.nobs:,}" if total == fit.nobs else f"{fit.nobs:,} of {total:,}"),
    ]
    shape = shape_of_data(fit)
    data = ", ".join(filter(None, (fit.request.data_name, shape)))
    if data:
        facts.insert(0, ("Data", data))
    facts += [(f"Levels of {group}", f"{count:,}") for group, count in fit.ngroups.items()]
    facts.append(("Fixed effects", f"{len(frame.fixef_names):,}"))
    trials, weights = trials_of(fit), frame.weights
    if trials is not None:
        facts.append(("Trials", trials))
        weights = None if frame.response is None else frame.response.weights
    for name, values, given in (
        ("Prior weights", weights, asked.weights),
        ("Offset", frame.offset, asked.offset),
    ):
        if values is not None:
            column = given if isinstance(given, str) else "given"
            facts.append((name, f"{column}, from {values.min():.5g} to {values.max():.5g}"))
    facts += [
        (criterion, f"{fit.criterion:.2f}"),
        ("Log-likelihood", f"{fit.loglik:.2f}"),
        ("AIC, BIC", f"{fit.aic:.2f}, {fit.bic:.2f}"),
        *behind,
    ]
    yield definitions(facts)
    yield "<h3>Left out</h3>"
    sentences = frame.dropped.sentences()
    yield items(sentences) if sentences else paragraph("Nothing: all rows and columns are used.")


def _whose(fit: Fit) -> str:
    """Whose standard deviation sigma is, where it is not that of all rows."""
    for each in reported_residual_parameters(fit):
        if each.is_sigma and each.column:
            return f" at {each.column}"
        if each.kind in ("log_sd", "power"):
            return f" where {fit.frame.variance.text} is 0" if fit.frame.variance else ""
    return ""


def fixed_section(numbers: Numbers) -> Iterator[str]:
    """Coefficients with intervals and tests."""
    fit, variance = numbers.fit, numbers.variance
    names = list(fit.frame.fixef_names)
    if not names:
        yield paragraph("The model has no fixed effects.")
        return
    yield paragraph(f"Intervals of 95 %; {variance.method}.")
    yield scrolling(numbers.table, "Fixed effects")
    if numbers.robust is not None:
        own = coefficient_table(coefficient_tests(fit, numbers.ddf))
        yield folded(
            "With the standard errors of the model, for comparison",
            paragraph(f"{DDF_METHODS[ddf_name(numbers.ddf)]}."),
            scrolling(own, "Fixed effects with the standard errors of the model"),
        )
    if 1 < len(names) <= _CORRELATIONS:
        sd = np.sqrt(np.diag(variance.vcov))
        correlation = pd.DataFrame(variance.vcov / np.outer(sd, sd), index=names, columns=names)
        yield folded(
            "Correlations of the estimates",
            scrolling(correlation_table(correlation), "Correlations of the estimates"),
        )


def tests_of_terms(numbers: Numbers) -> Iterator[str]:
    """Joint tests of the terms of the fixed part."""
    table = anova_table(numbers.fit, 3, numbers.ddf, numbers.vcov, numbers.cluster)
    if not len(table):
        yield paragraph("The fixed part has no terms besides the intercept.")
        return
    if is_robust(numbers.vcov):
        # Sums of squares belong to the variances of the model.
        table = table.drop(columns=["Sum Sq", "Mean Sq"], errors="ignore")
    method = numbers.variance.method.replace("z-tests, ", "", 1)
    method = method.replace("t-tests", "they", 1).replace("tests", "they", 1)
    tests = "F" if numbers.fit.has_degrees_of_freedom else "Chi-square"
    yield paragraph(f"{tests} tests of type 3, each term adjusted for all others; {method}.")
    yield scrolling(_anova(table), "Tests of terms")


def _anova(table: pd.DataFrame) -> Table:
    """The table with its sums of squares and degrees of freedom as R prints them."""
    columns = []
    for name in table.columns:
        values = table[name].to_numpy(dtype=float)
        if name.startswith("Pr("):
            p_values = comparison_table(pd.DataFrame({name: values}, index=table.index))
            columns += list(p_values.columns)
            footnotes = p_values.footnotes
        elif name in ("NumDF", "Df"):
            columns.append(Column(name, tuple(_text(value, ".0f") for value in values)))
        elif name == "DenDF":
            columns.append(Column(name, tuple(_text(value, ".1f") for value in values)))
        else:
            columns.append(Column(name, tuple(_text(value, ".5g") for value in values)))
    return Table(tuple(columns), tuple(map(str, table.index)), footnotes=footnotes)


def _covariances(fit: Fit) -> Iterator[Part]:
    """Of the random effects, and of residuals that are correlated or of several variances."""
    if fit.frame.terms or fit.residual is None:
        yield part_of("random-effects", "Random effects", lambda: _random(fit))
    if fit.residual is not None:
        yield part_of("residuals", "Residual covariance", lambda: _residuals(fit))


def _residuals(fit: Fit) -> Iterator[str]:
    for block in residual_blocks_of(fit):
        yield f"<h3>{escape(block.heading)}</h3>"
        yield from map(paragraph, block.lines)
        if block.table is not None:
            yield scrolling(block.table, block.heading)
    try:
        require_matplotlib()
    except ImportError:
        return
    yield pictures(Pictures(fit).residuals())


def _random(fit: Fit) -> Iterator[str]:
    blocks = varcorr_of(fit).summary_blocks()
    sigma = fit.sigma if fit.residual is None else None
    table = varcorr_table(blocks, sigma, 4, ("Variance", "Std.Dev."))
    yield scrolling(table, "Variances of the random effects")
    yield "<h3>Shares of the variance</h3>"
    icc, r2 = intraclass_correlation(fit, True), r_squared(fit)
    shares = {"ICC, adjusted": icc.adjusted, "ICC, unadjusted": icc.unadjusted}
    if icc.by_group is not None and len(icc.by_group) > 1:
        shares |= {f"ICC of {group}": share for group, share in icc.by_group.items()}
    shares |= {"R2, marginal": r2.marginal, "R2, conditional": r2.conditional}
    column = Column("Share", tuple(f"{share:.4f}" for share in shares.values()))
    yield scrolling(Table((column,), tuple(shares)), "Shares of the variance")
    yield paragraph(
        "ICC: the share of the random effects, adjusted if the fixed part is not counted. "
        "R2 by Nakagawa and Schielzeth: marginal, of the fixed part; conditional, of both.",
        "footnote",
    )
    weighted = icc.variances.note().strip()
    if weighted:
        yield paragraph(weighted, "footnote")


def optimum_section(fit: Fit) -> Iterator[str]:
    """The certificate of the optimum."""
    optimum = fit.optimum
    message = optimum.message[:1].upper() + optimum.message[1:]
    yield paragraph(f"{message}; {optimum.iterations:,} accepted steps.")
    known = "curvature" in vars(optimum)
    core = fit.crossproducts.remainder.core_size
    if not known and core > _LARGE_CORE:
        yield note(
            f"The certificate was not computed: with {core:,} random effects to factor densely it "
            "takes long. m.optimum.certificate computes it."
        )
        return
    certificate = optimum.certificate
    yield paragraph(
        "The certificate holds: this is a local optimum."
        if certificate.holds
        else "The certificate does not hold: see the conditions below."
    )
    rows = [
        ("Relative gradient", f"{certificate.relative_gradient:.1e}", "below 1e-05"),
        ("Predicted decrease of the criterion", f"{certificate.predicted_decrease:.1e}", ""),
        (
            "Score on the null space",
            "not singular" if certificate.null_score is None else f"{certificate.null_score:.1e}",
            "above -1e-06",
        ),
        (
            "Smallest curvature",
            f"{certificate.smallest_curvature:.2g}",
            f"above {certificate.least_curvature:.0e}",
        ),
    ]
    labels, values, bounds = zip(*rows, strict=True)
    table = Table((Column("Value", values), Column("Condition", bounds, numeric=False)), labels)
    yield scrolling(table, "Certificate of the optimum")
    yield folded("How the random effects are eliminated", items(optimum.structure))


def _paper(numbers: Numbers) -> Iterator[str]:
    fit, ddf, vcov, cluster = numbers.fit, numbers.ddf, numbers.vcov, numbers.cluster
    yield describe(fit, ddf, vcov, cluster, 0.95, 2).to_html()
    yield from code_and_references(numbers)


def code_and_references(numbers: Numbers) -> Iterator[str]:
    """How to make the tables again, and what to cite."""
    fit, ddf, vcov, cluster = numbers.fit, numbers.ddf, numbers.vcov, numbers.cluster
    yield "<h3>Code</h3>"
    yield f"<pre><code>{escape(code_to_reproduce(fit, ddf, vcov, cluster))}</code></pre>"
    yield "<h3>References</h3>"
    yield items(str(cite(fit, ddf, vcov)).splitlines())


def _checks(fit: Fit) -> Iterator[str]:
    # Of the report's own progress it is one step.
    checks = check(fit, progress=False)
    yield paragraph(f"{checks.headline()}.")
    yield scrolling(checks.table(), "Checks", sentences=True)
    yield items(checks.remarks())


def _text(value: float, form: str) -> str:
    return format(value, form) if np.isfinite(value) else "Inf" if np.isinf(value) else ""
