"""A fit without its data: what needs no rows goes on working, what needs them says so.

The cross-products of the data and the optimum are enough for estimates, variances, degrees of
freedom and random effects. What looks at rows but is small is worked out beforehand and kept: the
quantiles of the residuals in the summary, the mean variances behind ICC and R2, and the hypotheses
about the terms of the fixed part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.errors import ModelError
from mixedeffects.frame.estimable import Estimability
from mixedeffects.frame.model_frame import ModelFrame, RandomTerm
from mixedeffects.inference.hypotheses import term_contrasts
from mixedeffects.residuals import residual_quantiles
from mixedeffects.variance_explained import Variances, variances

if TYPE_CHECKING:
    from mixedeffects.model import LinearMixedModel

__all__ = [
    "LEFT_OUT",
    "FrameWithoutRows",
    "LeftOut",
    "Remembered",
    "TermWithoutRows",
    "left_out",
    "refitting_settings",
    "without_data",
]

Matrix = NDArray[np.float64]

_FRAME = {
    "y": "the response",
    "X": "the model matrix X",
    "weights": "the prior weights",
    "offset": "the offset",
    "index": "the row labels",
    "positions": "the positions of the rows",
    "data": "the variables of the model",
}
_TERM = {
    "codes": "the level of each row",
    "z": "the columns of the random effects",
}


@dataclass(frozen=True)
class LeftOut:
    """Stands where the data were."""

    def __repr__(self) -> str:
        return "left out"


#: In place of the data frame, and of weights and offset given as values.
LEFT_OUT = LeftOut()


@dataclass(frozen=True, eq=False)
class Remembered:
    """What was worked out from the rows before they went.

    Attributes
    ----------
    residual_quantiles : ndarray, shape (5,)
        Minimum, quartiles and maximum of the scaled residuals.
    variances : Variances
        Behind ICC and R2.
    term_contrasts : dict of int to dict of str to ndarray, shape (rows, p)
        Hypotheses of types 1, 2 and 3 about each term.
    estimability : Estimability or None
        How columns dropped for rank follow from those kept; None in fits that an earlier version
        stored.
    """

    residual_quantiles: Matrix
    variances: Variances
    term_contrasts: dict[int, dict[str, Matrix]]
    estimability: Estimability | None = None


def left_out(what: str) -> ModelError:
    """The error for something that needs rows, ``what`` being the part of them it wants."""
    return ModelError(
        f"This is a fit without its data: without_data() left out {what}. Use the fit that "
        "has the data, or fit again with m.update(data=...)."
    )


class TermWithoutRows(RandomTerm):
    """A random-effects term with its levels and names but no rows."""

    def __getattr__(self, name: str) -> Any:
        if name in _TERM:
            raise left_out(_TERM[name])
        raise AttributeError(name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.label!r}, {self.n_levels} levels)"

    @property
    def n_columns(self) -> int:
        """Number of columns, k."""
        return len(self.columns)


class FrameWithoutRows(ModelFrame):
    """A model frame with names, levels and encoders but no rows."""

    def __getattr__(self, name: str) -> Any:
        if name in _FRAME:
            raise left_out(_FRAME[name])
        raise AttributeError(name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.formula.text!r}, {self.nobs} rows left out)"

    @property
    def nobs(self) -> int:
        """Number of rows used, n."""
        return int(self.__dict__["n_rows_used"])


def without_data(model: LinearMixedModel) -> LinearMixedModel:
    """See `LinearMixedModel.without_data`."""
    if model._remembered is not None:
        return model
    slim = object.__new__(type(model))
    settings = {
        name: LEFT_OUT if name in ("weights", "offset") and not _by_name(value) else value
        for name, value in model._settings.items()
    }
    slim.__dict__.update(
        frame=_frame(model.frame),
        reml=model.reml,
        data_name=model.data_name,
        optimum=model.optimum,
        _A=model._A,
        _given=LEFT_OUT,
        _settings=settings,
        _remembered=_remembered(model),
    )
    return slim


def _remembered(model: LinearMixedModel) -> Remembered:
    hypotheses = {kind: term_contrasts(model.frame, kind) for kind in (1, 2, 3)}
    return Remembered(residual_quantiles(model), variances(model), hypotheses, model._estimability)


def refitting_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a fit, for fitting again.

    Raises
    ------
    ModelError
        If weights or offset were values for each row and went with the data.
    """
    for name, value in settings.items():
        if isinstance(value, LeftOut):
            raise ModelError(
                f"This is a fit without its data, and its {name} were given as values for each "
                f"row: fit again with mixedeffects.lmer(..., {name}=...)."
            )
    return settings


def _by_name(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _frame(frame: ModelFrame) -> FrameWithoutRows:
    slim = object.__new__(FrameWithoutRows)
    kept = {name: value for name, value in frame.__dict__.items() if name not in _FRAME}
    kept["terms"] = tuple(_term(term) for term in frame.terms)
    slim.__dict__.update(kept, n_rows_used=frame.nobs)
    return slim


def _term(term: RandomTerm) -> TermWithoutRows:
    slim = object.__new__(TermWithoutRows)
    slim.__dict__.update({k: v for k, v in term.__dict__.items() if k not in _TERM})
    return slim
