"""What is kept of the residuals' covariance, in a fit without its data."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import scipy.sparse

from mixedeffects.engine.curvature import Curvature
from mixedeffects.engine.optimum import Optimum
from mixedeffects.engine.residual_families import Known
from mixedeffects.engine.residual_model import ResidualDesign, ResidualModel
from mixedeffects.engine.residual_objective import ResidualEvaluation
from mixedeffects.frame.residual_term import ResidualTerm, VarianceTerm
from mixedeffects.frame.without_rows import left_out

__all__ = [
    "OptimumWithoutRows",
    "ResidualModelWithoutRows",
    "ResidualsWithoutRows",
    "RowsLeftOut",
    "optimum_without_rows",
    "structure_without_rows",
]

#: Of a model of the residuals, what has an entry for each row or group.
_MODEL = ("order", "is_first", "starts", "sizes", "positions", "stratum", "weights")
_KEPT = (
    "v_mean",
    "seen",
    "_root",
    "families",
    "is_normalised",
    "shift",
    "places",
    "n_parameters",
)
_ROWS = "the rows that the covariance of the residuals is made of"


class ResidualModelWithoutRows(ResidualModel):
    """The covariance of the residuals as a function of its parameters, of no rows."""

    def __init__(self, model: ResidualModel) -> None:
        self.__dict__.update({name: model.__dict__[name] for name in _KEPT})
        self.design = _design(model.design)
        self.v = model.v[:0]
        empty = scipy.sparse.csr_array((0, 0))
        self.families = tuple(Known(empty) if isinstance(f, Known) else f for f in model.families)

    def __getattr__(self, name: str) -> Any:
        if name in _MODEL:
            raise left_out(_ROWS)
        raise AttributeError(name)


class RowsLeftOut:
    """Stands where the rows in the engine's basis were; it has the model.

    Parameters
    ----------
    model : ResidualModelWithoutRows
        The model.
    """

    def __init__(self, model: ResidualModelWithoutRows) -> None:
        self.model = model

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise left_out(_ROWS)


class ResidualsWithoutRows(ResidualEvaluation):
    """The parameters of the residuals at the optimum."""


@dataclasses.dataclass(eq=False, repr=False)
class OptimumWithoutRows(Optimum):
    """An optimum at which the criterion can no longer be evaluated.

    Attributes
    ----------
    known_curvature : Curvature or None
        The observed information there.
    """

    known_curvature: Curvature | None = None

    @property
    def curvature(self) -> Curvature:
        """The observed information, as the fit with its data had it."""
        assert self.known_curvature is not None
        return self.known_curvature


def optimum_without_rows(optimum: Optimum) -> OptimumWithoutRows:
    """The optimum of a fit with ``residual=``, ``variance=`` or ``sigma=``, less its rows."""
    own = {field.name: getattr(optimum, field.name) for field in dataclasses.fields(Optimum)}
    residual = optimum.residual
    assert residual is not None
    rows: Any = RowsLeftOut(ResidualModelWithoutRows(residual.model))
    parts = {f.name: getattr(residual, f.name) for f in dataclasses.fields(ResidualEvaluation)}
    own["residual"] = ResidualsWithoutRows(**(parts | {"design": rows, "rows": rows}))
    return OptimumWithoutRows(**own, known_curvature=optimum.curvature)


def _design(design: ResidualDesign) -> ResidualDesign:
    arrays = ("codes", "positions", "stratum", "v")
    return dataclasses.replace(
        design,
        weights=None,
        given=None,
        **{name: getattr(design, name)[:0] for name in arrays},
    )


def structure_without_rows(
    term: ResidualTerm | None, variance: VarianceTerm | None
) -> tuple[ResidualTerm | None, VarianceTerm | None]:
    """What a frame says of the residuals, with as few rows as say what kind of columns they are."""
    if variance is not None:
        v = variance.v
        # Whether the columns are those of one factor is read from their values.
        numbers = ~np.isin(v, (0.0, 1.0)).all(axis=1) | (v.sum(axis=1) > 1.0)
        variance = dataclasses.replace(variance, v=v[np.flatnonzero(numbers)[:1]])
    if term is not None:
        kept = np.zeros(0, dtype=np.intp)
        if term.coordinates is not None and term.steps is not None:
            _, kept = np.unique(term.coordinates[:, 0], return_index=True)
        term = dataclasses.replace(
            term,
            codes=term.codes[:0],
            given=None,
            steps=None if term.steps is None else term.steps[kept],
            coordinates=None if term.coordinates is None else term.coordinates[kept],
            stratum=None if term.stratum is None else term.stratum[:0],
        )
    return term, variance
