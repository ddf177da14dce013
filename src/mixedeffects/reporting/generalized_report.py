"""A report of a generalized fit as one HTML file."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from mixedeffects.covariance.of_fit import varcorr_of
from mixedeffects.diagnostics.generalized_check import generalized_check
from mixedeffects.display.coefficients import coefficient_table
from mixedeffects.display.report_page import items, note, paragraph, pictures, scrolling
from mixedeffects.display.tables import Column, Table
from mixedeffects.display.varcorr_text import varcorr_table
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.generalized import GeneralizedFit, generalized
from mixedeffects.inference.normal_tests import check_normal
from mixedeffects.inference.ratios import exponentiated, ratio_name
from mixedeffects.pictures.effect_plots import term_effects
from mixedeffects.pictures.generalized import GENERALIZED_PICTURES
from mixedeffects.progress import ProgressOption
from mixedeffects.reporting.generalized_description import describe_generalized
from mixedeffects.reporting.generalized_tables import family_text, quadrature_check
from mixedeffects.reporting.report import (
    Content,
    Numbers,
    Part,
    code_and_references,
    facts_of,
    fixed_section,
    has_matplotlib,
    optimum_section,
    part_of,
    tests_of_terms,
    write_report,
)
from mixedeffects.reporting.report_pictures import Pictures

__all__ = ["write_generalized_report"]


def write_generalized_report(
    fit: GeneralizedFit,
    path: Any,
    title: str | None,
    vcov: Any,
    cluster: Any,
    ddf: Any = "inf",
    progress: ProgressOption = None,
) -> Path:
    """See `GeneralizedLinearMixedModel.report`."""
    check_normal(ddf)
    content = Content(_parts, _model, lambda _: "Generalized linear mixed model")
    return write_report(fit, path, title, "inf", vcov, cluster, progress, content)


def _parts(numbers: Numbers) -> Iterator[Part]:
    """All sections but the first."""
    fit = generalized(numbers.fit)
    yield part_of("fixed-effects", "Fixed effects", lambda: _fixed(numbers))
    yield part_of("terms", "Tests of terms", lambda: tests_of_terms(numbers))
    yield part_of("random-effects", "Random effects", lambda: _random(fit))
    yield part_of("optimum", "Optimum", lambda: _optimum(fit))
    yield part_of("checks", "Checks", lambda: _checks(fit))
    if has_matplotlib():
        drawn = Pictures(fit)
        if term_effects(fit):
            asked = "inf", numbers.vcov, numbers.cluster
            yield part_of("effects", "Effects", lambda: [pictures(drawn.fixed(*asked, "response"))])
        yield part_of("diagnostics", "Diagnostics", lambda: [pictures(_diagnostics(fit, drawn))])
        yield part_of("modes", "Conditional modes", lambda: [pictures(drawn.effects())])
        yield part_of("matrices", "Matrices", lambda: [pictures(drawn.matrices())])
    else:
        sentence = "Pictures need matplotlib; install it with: pip install 'mixedeffects[plots]'"
        yield part_of("modes", "Conditional modes", partial(list, [note(sentence)]))
    yield part_of("paper", "For the paper", lambda: _paper(numbers))


def _model(fit: Fit, notes: list[str]) -> Iterator[str]:
    own = generalized(fit)
    yield from map(note, notes)
    about = [("Family", family_text(own))]
    if own.frame.response_levels:
        failure, success = own.frame.response_levels
        about.append(("Success", f"{success} (failure: {failure})"))
    how = "maximum likelihood, " + (
        "Laplace approximation" if own.nagq == 1 else f"adaptive quadrature, {own.nagq} points"
    )
    behind = []
    if own.family_estimate is not None:
        name, value = own.family_estimate
        behind.append((name.capitalize(), f"{value:.5g}"))
    yield from facts_of(own, how, about, "Deviance (-2 log-likelihood)", behind)


def _fixed(numbers: Numbers) -> Iterator[str]:
    yield from fixed_section(numbers)
    ratio = ratio_name(numbers.fit.request.family)
    if ratio is None or not len(numbers.tests):
        return
    title = ratio.replace("ratio", "ratios", 1).capitalize()
    yield f"<h3>{title}</h3>"
    columns = ["Estimate", "Std. Error", "lower", "upper"]
    yield scrolling(coefficient_table(exponentiated(numbers.tests)[columns]), title)
    yield paragraph(
        "Exponentiated coefficients with their intervals; standard errors by the delta method.",
        "footnote",
    )


def _random(fit: GeneralizedFit) -> Iterator[str]:
    blocks = varcorr_of(fit).summary_blocks()
    table = varcorr_table(blocks, None, 4, ("Variance", "Std.Dev."))
    yield scrolling(table, "Variances of the random effects")
    yield paragraph(f"On the scale of the link, {fit.family.link.name}.", "footnote")


def _optimum(fit: GeneralizedFit) -> Iterator[str]:
    yield from optimum_section(fit)
    check = quadrature_check(fit)
    if check is None:
        return
    first = "Laplace" if fit.nagq == 1 else f"{fit.nagq} points"
    values = (f"{fit.criterion:.3f}", f"{check.quadrature:.3f}", f"{check.shift:+.3f}")
    labels = (f"-2 log L by {first}", f"-2 log L by {check.nodes} points", "Shift")
    yield "<h3>Accuracy of the likelihood</h3>"
    yield scrolling(Table((Column("Value", values),), labels), "Accuracy of the likelihood")
    yield paragraph(f"{check}.")


def _checks(fit: GeneralizedFit) -> Iterator[str]:
    # Of the report's own progress it is one step.
    checks = generalized_check(fit, None, None, 1, 0.05, False)
    yield paragraph(f"{checks.headline()}.")
    yield scrolling(checks.table(), "Checks", sentences=True)
    yield items(checks.remarks())


def _diagnostics(fit: GeneralizedFit, drawn: Pictures) -> Iterator[str]:
    """Pictures of quantile residuals, which are normal if the model holds."""
    of = f"quantile residuals of {fit.nobs:,} rows"
    for name, alt, caption in (
        ("residuals", f"Plot of the {of} against fitted values", "The line should stay near zero."),
        ("scale", f"Root of the absolute {of} against fitted values", "The line should be level."),
        (
            "qq",
            f"Normal quantile plot of the {of}, with a band",
            "If the model holds, the points lie near the line.",
        ),
        (
            "ranef_qq",
            "Normal quantile plot of standardised conditional modes, with a band",
            "Modes divided by their own standard deviation.",
        ),
    ):
        picture, options = GENERALIZED_PICTURES[name]
        yield drawn.figure(partial(picture, fit, **options), alt, caption)


def _paper(numbers: Numbers) -> Iterator[str]:
    fit = generalized(numbers.fit)
    yield describe_generalized(fit, numbers.vcov, numbers.cluster, 0.95, 2).to_html()
    yield from code_and_references(numbers)
