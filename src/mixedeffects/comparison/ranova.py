"""Tests of the random effects of a model: each is taken out, and the likelihood compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mixedeffects.base.options import checked_flag
from mixedeffects.comparison.comparable import model_text
from mixedeffects.comparison.nesting import added_variance, contains_constant, same_span
from mixedeffects.display.comparison_table import ShownComparison
from mixedeffects.display.result_table import ResultTable
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.refitting import without_structure
from mixedeffects.fitting.relatives import relatives_of
from mixedeffects.fitting.representative import with_rows
from mixedeffects.formula.reader import read
from mixedeffects.formula.syntax import deparse
from mixedeffects.formula.terms import expand_terms
from mixedeffects.frame.encode import DesignEncoder, intercept_coded
from mixedeffects.frame.model_frame import RandomTerm
from mixedeffects.inference.chi_bar import NO_DIFFERENCE, chi_squared_p, mixture_p
from mixedeffects.progress import ProgressOption, Unfinished

__all__ = ["RandomEffectsTests", "random_effects_tests"]

Terms = tuple[RandomTerm, ...]

#: Rows of the table for ``residual=`` and for ``variance=``.
RESIDUAL_STRUCTURE, RESIDUAL_VARIANCE = "residual structure", "residual variance"


@dataclass(frozen=True, eq=False, repr=False)
class RandomEffectsTests(ShownComparison):
    """Likelihood-ratio tests of random effects, made by `LinearMixedModel.ranova`.

    Attributes
    ----------
    table : DataFrame
        The model itself as ``<none>``, then one row for each model with less: ``npar``,
        ``logLik``, ``AIC``, and against the model itself ``Chisq``, ``Df`` and ``Pr(>Chisq)``.
    formula : str
        The model's formula, with ``residual=`` and ``variance=`` where they are given.
    reml : bool
        Whether restricted likelihoods are compared.
    notes : tuple of str
        What the p-values are.
    approximation : str
        How the likelihood is computed, where that is not exact.

    Examples
    --------
    >>> import mixedeffects as me
    >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
    >>> m.ranova().to_frame()["Chisq"].round(3).to_dict()
    {'<none>': nan, '(1 | Batch)': 6.369}
    """

    table: pd.DataFrame
    formula: str
    reml: bool
    notes: tuple[str, ...]
    approximation: str = ""

    def to_frame(self) -> pd.DataFrame:
        """Return a copy of the table.

        Examples
        --------
        >>> import mixedeffects as me
        >>> m = me.lmer("Yield ~ 1 + (1 | Batch)", me.load_dataset("dyestuff"))
        >>> list(m.ranova().to_frame())
        ['npar', 'logLik', 'AIC', 'Chisq', 'Df', 'Pr(>Chisq)']
        """
        return self.table.copy()

    def _parts(self) -> tuple[str, dict[str, str], pd.DataFrame, tuple[str, ...]]:
        kind = "REML" if self.reml else "maximum likelihood"
        kind += f" ({self.approximation})" if self.approximation else ""
        structured = bool({RESIDUAL_STRUCTURE, RESIDUAL_VARIANCE} & set(self.table.index))
        what = "Random effects and residual structures" if structured else "Random effects"
        heading = f"{what} taken out one at a time, by {kind}"
        return heading, {"Model": self.formula}, self.table, self.notes


def random_effects_tests(
    fit: Fit,
    boundary: bool,
    reduce_terms: bool,
    progress: ProgressOption = None,
) -> RandomEffectsTests:
    """See `LinearMixedModel.ranova`."""
    boundary = checked_flag(boundary, "boundary")
    reduce_terms = checked_flag(reduce_terms, "reduce_terms")
    notes = []
    if fit.optimum.undetermined:
        notes.append(
            f"The data do not determine {', '.join(fit.optimum.undetermined)}, so the degrees of "
            "freedom of terms they belong to count too many."
        )
    elif not fit.optimum.converged:
        notes.append("The model has not converged, so its likelihood is not at its maximum.")
    fit = with_rows(fit)
    smaller: list[tuple[str, Terms | None]] = list(_reductions(fit, reduce_terms))
    if fit.frame.residual is not None and fit.frame.residual.kind != "known":
        smaller.append((RESIDUAL_STRUCTURE, None))
    if fit.frame.variance is not None:
        smaller.append((RESIDUAL_VARIANCE, None))
    fits = Unfinished(
        "smaller model",
        len(smaller),
        lambda i: _criterion_without(fit, *smaller[i]),
        lambda criteria: _compared(fit, smaller, criteria, boundary, notes),
        detail=lambda i: f"without {smaller[i][0]}",
    )
    return fits.resume(progress)


def _compared(
    fit: Fit,
    smaller: list[tuple[str, Terms | None]],
    criteria: list[tuple[float, int]],
    boundary: bool,
    notes: list[str],
) -> RandomEffectsTests:
    """The tests of the smaller models, given their criteria and numbers of parameters."""
    notes = list(notes)
    index = ["<none>"]
    rows = [(fit.n_parameters, fit.criterion, np.nan, np.nan, np.nan)]
    for (label, terms), (criterion, npar) in zip(smaller, criteria, strict=True):
        statistic = criterion - fit.criterion
        if statistic < -NO_DIFFERENCE:
            notes.append(f"Without {label} the model fits better: see m.optimum.")
        statistic = statistic if statistic > NO_DIFFERENCE else 0.0
        df = fit.n_parameters - npar
        p = chi_squared_p(statistic, df)
        if boundary and terms is None:
            notes.append(
                f"Pr(>Chisq) of {label}: the usual chi-squared p-value; its parameters have no "
                "boundary where there is no structure."
            )
        elif boundary and terms is not None:
            q = added_variance(terms, fit.frame.terms)
            if isinstance(q, str):
                kind = f"the usual chi-squared p-value; no simple mixture applies ({q})."
            else:
                p = mixture_p(statistic, q)
                kind = f"50:50 mixture of chi-squared with {q} and {q + 1} df."
            notes.append(f"Pr(>Chisq) of {label}: {kind}")
        index.append(label)
        rows.append((npar, criterion, statistic, float(df), p))
    npars = np.array([row[0] for row in rows])
    values = np.array([row[1] for row in rows])
    table = pd.DataFrame(
        {
            "npar": npars,
            "logLik": -0.5 * values,
            "AIC": values + 2.0 * npars,
            "Chisq": [row[2] for row in rows],
            "Df": [row[3] for row in rows],
            "Pr(>Chisq)": [row[4] for row in rows],
        },
        index=index,
    )
    # LRT is lmerTest's name; R's own is that of me.anova.
    table = ResultTable.of(table, former={"LRT": "Chisq"})
    return RandomEffectsTests(table, model_text(fit), fit.reml, tuple(notes), fit.approximation)


def _criterion_without(fit: Fit, label: str, terms: Terms | None) -> tuple[float, int]:
    """Criterion and number of parameters of the model with these random terms, maybe none.

    Without terms being given, that of the model without a structure of the residuals.
    """
    reduced: Fit | None
    if terms is None:
        residual, variance = label == RESIDUAL_STRUCTURE, label == RESIDUAL_VARIANCE
        reduced = without_structure(fit, residual=residual, variance=variance)
    elif terms or fit.residual is not None:
        reduced = relatives_of(fit).with_random_terms(fit, terms)
    else:
        reduced = None
    if reduced is None:
        return relatives_of(fit).without_random_terms(fit)
    return reduced.criterion, reduced.n_parameters


def _reductions(fit: Fit, reduce_terms: bool) -> Iterator[tuple[str, Terms]]:
    """Each smaller set of random terms, with what was taken out."""
    frame = fit.frame
    for t, (term, encoder) in enumerate(zip(frame.terms, frame.random_encoders, strict=True)):
        others = frame.terms[:t] + frame.terms[t + 1 :]
        written = _written(fit, term, encoder)
        # What a structure says of all columns does not carry over to fewer: it goes as a whole.
        droppable = _droppable(encoder) if reduce_terms and term.structure == "us" else []
        if not droppable:
            yield written, others
        for label in droppable:
            reduced = _without(fit, term, encoder, label)
            gone = reduced is None or any(
                reduced.n_columns == 1 and same_span(reduced, other) for other in others
            )
            if len(encoder.term_labels) == 1 and gone:
                yield written, others
            else:
                kept = others if gone else (*frame.terms[:t], reduced, *frame.terms[t + 1 :])
                yield f"{label} in {written}", kept  # type: ignore[misc]


def _written(fit: Fit, term: RandomTerm, encoder: DesignEncoder) -> str:
    """The random term as the formula has it."""
    formula = fit.frame.formula
    own = (encoder.table.intercept, encoder.term_labels)
    for bar in formula.random:
        if bar.group == term.group:
            table = expand_terms(bar.tree, formula.text)
            if (table.intercept, table.labels) == own:
                return str(bar)
    return f"({' + '.join(['1' if own[0] else '0', *own[1]])} | {term.group})"


def _droppable(encoder: DesignEncoder) -> list[str]:
    """The terms within a random term that no other term there contains."""
    members = [set(term) for term in encoder.table.terms]
    return [
        label
        for label, own in zip(encoder.term_labels, members, strict=True)
        if not any(own < other for other in members)
    ]


def _without(fit: Fit, term: RandomTerm, encoder: DesignEncoder, label: str) -> RandomTerm | None:
    """The random term less one of its own terms; None if nothing is left of it."""
    kept = [other for other in encoder.term_labels if other != label]
    if not kept:
        # lme4's users write (0 + f | g) for (f | g): what is left of it is an intercept.
        return term.intercept() if contains_constant(term) else None
    text = " + ".join(["1" if encoder.table.intercept else "0", *kept])
    table = expand_terms(read(text), text)
    by_name = {coder.name: coder for coder in encoder.coders}
    coders = tuple(by_name[deparse(variable)] for variable in table.variables)
    table = intercept_coded(table, coders)
    smaller = DesignEncoder(table, coders)
    before = dict(zip(encoder.term_labels, encoder.table.full, strict=True))
    if all(before[o] == every for o, every in zip(smaller.term_labels, table.full, strict=True)):
        own = encoder.term_labels.index(label) + 1
        kept_columns = [j for j, a in enumerate(encoder.assign) if a != own]
        return term.taking(kept_columns, smaller.all_names)
    # Without its first factor another one is coded by all its levels.
    return term.encoded(smaller, fit.frame.data)
