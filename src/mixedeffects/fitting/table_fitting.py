"""Fits from blocks of a table whose rows stay there."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine import Control, CrossProducts, Optimum
from mixedeffects.engine.identification import may_be_undetermined
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.fitting import fit_blocks
from mixedeffects.fitting.representative import with_rows
from mixedeffects.fitting.request import Request
from mixedeffects.fitting.searching import Searching
from mixedeffects.fitting.undetermined import with_identification
from mixedeffects.frame.model_frame import ModelFrame
from mixedeffects.lazy.sums import RowsInTable
from mixedeffects.progress import ProgressOption

__all__ = ["fit_blocks_of_table"]

Matrix = NDArray[np.float64]


def fit_blocks_of_table(
    frame: ModelFrame,
    A: CrossProducts,
    reml: bool,
    request: Request,
    rows: RowsInTable,
    start: Sequence[Matrix] | None,
    control: Control | None = None,
    progress: ProgressOption = False,
    *,
    further: bool = True,
) -> Fit:
    """Fit a model to the blocks of a table; see `fit_blocks`.

    Parameters
    ----------
    frame, A, reml, request, start, control, progress, further
        As for `fit_frame`; the frame is without rows.
    rows : RowsInTable
        Where they are.
    """

    def find(
        A: CrossProducts, start: Sequence[Matrix] | None, search: Searching
    ) -> tuple[CrossProducts, Optimum | None]:
        try:
            return A, search.find(A, start)
        except ArithmeticError:
            return A, None

    def identify(A: CrossProducts, optimum: Optimum) -> Optimum:
        if not may_be_undetermined(A, optimum):
            return optimum
        found = Fit(frame, A, optimum, reml, request, rows=rows)
        return with_identification(with_rows(found).frame, A, optimum)

    fit = fit_blocks(
        frame,
        A,
        reml,
        request,
        start,
        control,
        progress,
        find=find,
        identify=identify,
        largest_response=float(rows.model.moments.largest[rows.columns.response]),
        further=further,
    )
    return dataclasses.replace(fit, rows=rows)
