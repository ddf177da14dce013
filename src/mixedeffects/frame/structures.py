"""What the columns of a random-effects term must be for its covariance structure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixedeffects.errors import ModelError
from mixedeffects.formula import Bar
from mixedeffects.frame.encode import DesignEncoder
from mixedeffects.frame.model_frame import RandomTerm

__all__ = ["check_replication", "check_structure_columns", "one_row_each"]


def check_structure_columns(bar: Bar, encoder: DesignEncoder) -> None:
    """Refuse columns between which the structure has no meaning.

    Parameters
    ----------
    bar : Bar
        The term.
    encoder : DesignEncoder
        What its columns are made from.

    Raises
    ------
    ModelError
        If compound symmetry has one column, or the columns of an autoregression are not the levels
        of one factor.
    """
    k = len(encoder.all_names)
    if bar.structure == "cs" and k < 2:
        raise ModelError(
            f"`{bar}` has one column, `{encoder.all_names[0]}`, and compound symmetry is about the "
            f"correlation of several; write `({bar.expression} | {bar.group})`."
        )
    if bar.structure != "ar1":
        return
    shown = ", ".join(f"`{name}`" for name in encoder.all_names[:4]) + (", ..." if k > 4 else "")
    one_factor = len(encoder.coders) == 1 and encoder.coders[0].kind != "numeric"
    if not one_factor or encoder.all_names[0] == "(Intercept)":
        raise ModelError(
            f"`{bar}` has the columns {shown}. An autoregression needs a factor without intercept, "
            "so that its columns are the points in time in their order, for example "
            "`ar1(0 + week | id)`; of a number make one first: `ar1(0 + factor(week) | id)`."
        )
    if k < 2:
        raise ModelError(
            f"`{bar}` has one column, {shown}, and an autoregression is about the correlation of "
            f"several points in time; write `({bar.expression} | {bar.group})`."
        )


def check_replication(terms: Sequence[RandomTerm], alone: Sequence[bool] | None = None) -> None:
    """Refuse structures whose variances could be the residual variance.

    With a factor's columns and at most one row for each of them in every level, the effects of a
    term stand one for each row. Independent effects are then residual errors under another name,
    and compound symmetry with one variance is a random intercept and such errors.

    Parameters
    ----------
    terms : sequence of RandomTerm
        All random-effects terms.
    alone : sequence of bool, optional
        For each whether every row has an effect of its own, where it is known without rows.

    Raises
    ------
    ModelError
        Naming the term and what to write.
    """
    for t, term in enumerate(terms):
        if term.structure == "us" or not (one_row_each(term) if alone is None else alone[t]):
            continue
        k = term.n_columns
        names = f"`{term.columns[0]}` to `{term.columns[-1]}`"
        where = (
            f"`{term.structure}(...)` on `{term.group}` has the columns {names}, and no level of "
            f"`{term.group}` has more than one row in any of them, so each effect belongs to one "
            "row and its variance cannot be told from the residual variance."
        )
        if term.structure == "diag":
            raise ModelError(f"{where} Leave the term out, or use a coarser factor.")
        if term.structure == "cs" and (term.homogeneous or k < 3):
            raise ModelError(
                f"{where} Write `(1 | {term.group})`: with the residuals it gives all rows of a "
                "level one variance and one correlation."
            )
        if term.structure == "ar1" and k < 3:
            raise ModelError(
                f"{where} Write `(1 | {term.group})`, which gives the two rows of a level their "
                "correlation."
            )


def one_row_each(term: RandomTerm) -> bool:
    """Whether every row has an effect of its own: a factor's columns, no two rows in a cell."""
    z = term.z
    if term.n_columns < 2 or term.n_columns * term.n_levels < len(z):
        return False
    column = np.argmax(z != 0.0, axis=1)
    rows = np.arange(len(z))
    if np.count_nonzero(z) != len(z) or (z[rows, column] != 1.0).any():
        return False
    cell = term.codes.astype(np.int64) * term.n_columns + column
    return len(np.unique(cell)) == len(cell)
