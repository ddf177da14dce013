"""What is asked of the checks of a fit, and the steps in which these are made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixedeffects.base.options import checked_choice, checked_level, checked_names
from mixedeffects.diagnostics import check_design
from mixedeffects.diagnostics.check_pictures import PictureData
from mixedeffects.diagnostics.check_result import ModelChecks
from mixedeffects.diagnostics.check_verdict import Finding
from mixedeffects.errors import ModelError
from mixedeffects.fitting.fit import Fit
from mixedeffects.progress import ProgressOption, Unfinished
from mixedeffects.simulation.responses import checked_count

__all__ = ["AskedChecks", "asked_checks", "make_checks"]


@dataclass(frozen=True)
class AskedChecks:
    """The checks that are wanted.

    Attributes
    ----------
    names : list of str
        Which, in the order in which they are made.
    count : int
        Data sets to draw from the fit, where something is compared with these.
    level : float
        Below which p-value a finding is one.
    """

    names: list[str]
    count: int
    level: float


def asked_checks(
    known: Sequence[str], which: Any, draws: Any, level: Any, usual: Callable[[], int]
) -> AskedChecks:
    """Read what is wanted.

    Parameters
    ----------
    known : sequence of str
        The checks that there are, in their order.
    which, draws, level
        As for `LinearMixedModel.check`.
    usual : callable
        The number of draws where none is given.

    Raises
    ------
    ModelError
        If an argument is not what it should be.
    """
    level = checked_level(level, example=0.05)
    count = usual()
    if draws is not None:
        count = checked_count(draws, "draws, the number of data sets drawn,")
    if 1.0 / (count + 1.0) > level:
        least = int(np.ceil(1.0 / level)) - 1
        raise ModelError(
            f"With {count:,} data sets drawn no p-value is as small as level={level:g}; draws must "
            f"be at least {least:,}."
        )
    names = list(known) if which is None else checked_names(which, "which")
    chosen = [checked_choice(name, "Check", known) for name in names]
    if not chosen:
        raise ModelError(f"which is empty, so there is nothing to check; there are {known}.")
    return AskedChecks([name for name in known if name in chosen], count, level)


def make_checks(
    fit: Fit,
    asked: AskedChecks,
    batches: Sequence[str],
    draw: Callable[[int], None],
    findings: Callable[[str, list[str], dict[str, Any]], Iterable[Finding]],
    notes: Callable[[list[str]], Sequence[str]],
    pictures: Callable[[dict[str, Any]], PictureData],
    progress: ProgressOption,
) -> ModelChecks:
    """Draw the data sets to compare with, then make one check after the other.

    Parameters
    ----------
    fit : Fit
        The fit.
    asked : AskedChecks
        What is wanted.
    batches : sequence of str
        What each batch of draws is called; none where nothing is compared.
    draw : callable
        Draws the batch of a number.
    findings : callable
        What the check of a name finds; what it leaves out it adds to the notes it is given, what it
        lists to the tables.
    notes : callable
        All notes, from those of the single checks.
    pictures : callable
        What there is to draw, from the tables.
    progress : bool, callable or None
        As for `LinearMixedModel.check`.

    Raises
    ------
    Interrupted
        On Ctrl-C, with what is done.
    """
    said: list[str] = []
    tables: dict[str, Any] = {"influence": {}}

    def step(number: int) -> list[Finding]:
        if number < len(batches):
            draw(number)
            return []
        own: list[str] = []
        found = list(findings(asked.names[number - len(batches)], own, tables))
        # Only now: a check that was interrupted is made again.
        said.extend(own)
        return found

    def finish(found: list[list[Finding]]) -> ModelChecks:
        of_singularity = "singularity" in asked.names
        return ModelChecks(
            findings=tuple(finding for some in found for finding in some),
            formula=fit.formula,
            nobs=fit.nobs,
            level=asked.level,
            notes=tuple(notes(said)),
            outliers=tables.get("outliers"),
            cooks_distance=tables["influence"],
            collinearity=tables.get("collinearity"),
            components=check_design.principal_components(fit) if of_singularity else {},
            ranks=tables.get("ranks"),
            pictures=pictures(tables),
        )

    steps = [*batches, *asked.names]
    work = Unfinished("step", len(steps), step, finish, detail=lambda number: steps[number])
    return work.resume(progress)
