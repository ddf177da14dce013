"""Fits from blocks of a table whose rows stay there."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixedeffects.engine import Control, CrossProducts, Optimum
from mixedeffects.engine.from_sums import standard_design
from mixedeffects.engine.identification import may_be_undetermined
from mixedeffects.engine.provisional import Columns, Provisional
from mixedeffects.engine.refinement import find_refined_optimum
from mixedeffects.engine.responses import less_provisional_effects
from mixedeffects.errors import Interrupted
from mixedeffects.fitting.fit import Fit
from mixedeffects.fitting.fitting import fit_blocks
from mixedeffects.fitting.representative import with_rows
from mixedeffects.fitting.request import Request
from mixedeffects.fitting.searching import Searching
from mixedeffects.fitting.undetermined import with_identification
from mixedeffects.frame.model_frame import ModelFrame, RandomTerm
from mixedeffects.lazy.remaining import EffectsOfLevels, sums_of_remaining
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
        Where they are. Where sums are all there is of them, random effects far larger than the
        residual cost digits, and what data do not determine is seen from curvature alone.
    """

    def find(
        A: CrossProducts, start: Sequence[Matrix] | None, search: Searching
    ) -> tuple[CrossProducts, Optimum | None]:
        if not rows.model.table.is_there:
            try:
                return A, search.find(A, start)
            except ArithmeticError:
                return A, None
        less = _LessEffects(rows, frame.terms, A)
        return find_refined_optimum(A, less.blocks, start, search.find)

    def identify(A: CrossProducts, optimum: Optimum) -> Optimum:
        if not rows.model.table.is_there or not may_be_undetermined(A, optimum):
            return optimum
        found = Fit(frame, A, optimum, reml, request, rows=rows)
        return with_identification(with_rows(found).frame, A, optimum)

    def with_its_table(fit: Fit) -> Fit:
        return dataclasses.replace(fit, rows=rows)

    try:
        return with_its_table(
            fit_blocks(
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
        )
    except Interrupted as stopped:
        stopped.partial = stopped.partial.then(with_its_table)
        raise


class _LessEffects:
    """Blocks of a table less provisional random effects, which are taken off in its engine."""

    def __init__(self, rows: RowsInTable, terms: Sequence[RandomTerm], A: CrossProducts) -> None:
        self._rows, self._terms, self._A = rows, terms, A
        self._standard = standard_design(rows.sums, rows.columns)

    def blocks(self, _: CrossProducts, T: Sequence[Matrix]) -> CrossProducts:
        """Those of the fit, whatever was taken off before, less effects at T."""
        A, border, p = self._A, self._standard.border, self._A.p
        nothing = [np.zeros((f.n_levels, f.k, p + 1)) for f in A.factors]
        products, square = A.multiply(nothing, np.eye(p + 1))
        beta, left = less_provisional_effects(A, T, products, self._less)
        basis = A.basis
        change = np.append(-beta[:, 0], 1.0)
        # What is left of the response has products of its own with all columns.
        of_y = border @ change
        response = [own @ change for own in products]
        total = self._rows.sums.total / basis.weight_scale
        last = np.append((square @ change)[:p], of_y @ total @ of_y)
        changed = A.with_response(response, last)
        beta0 = basis.beta0 + basis.response_scale * (basis.fixed @ beta[:, 0])
        return dataclasses.replace(
            changed,
            basis=dataclasses.replace(basis, beta0=beta0),
            provisional=Provisional(A.without_border(), left),
        )

    def _less(self, beta: Matrix, effects: Sequence[Matrix]) -> Columns:
        rows, A, border = self._rows, self._A, self._standard.border.copy()
        p = A.p
        border[:, p:] -= border[:, :p] @ beta
        model = rows.model
        members = [[member.term for member in factor.members] for factor in A.factors]
        number = [rows.columns.terms[own[0]].factor for own in members]
        combined = [np.hstack([self._standard.terms[t] for t in own]) for own in members]
        of_levels = []
        for g in range(len(model.groups)):
            f = number.index(g)
            D = combined[f]
            own = tuple(np.flatnonzero(D.any(axis=1)).tolist())
            values = np.einsum("ik,lkm->lim", D[list(own)], effects[f])
            of_levels.append(EffectsOfLevels(self._terms[members[f][0]], own, values))
        sums = sums_of_remaining(model, border, of_levels)
        by = 1.0 / A.basis.weight_scale
        products = tuple(
            np.einsum("ik,lim->lkm", combined[f][list(of_levels[g].own)], sums.by_level[g] * by)
            for f, g in enumerate(number)
        )
        return Columns(tuple(effects), products, sums.square * by)
