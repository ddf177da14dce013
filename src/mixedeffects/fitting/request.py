"""What was asked for when a model was fitted, for fitting again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixedeffects.base.arrays import DetachedTable, ReadOnlyArrays
from mixedeffects.base.caching import cached_property
from mixedeffects.engine import Control
from mixedeffects.errors import ModelError
from mixedeffects.families import Family
from mixedeffects.formula.syntax import quote_name
from mixedeffects.frame.ingest import detached
from mixedeffects.frame.known_covariance import KnownCovariance
from mixedeffects.frame.model_frame import ModelFrame
from mixedeffects.frame.one_column import with_column
from mixedeffects.frame.without_rows import left_out

__all__ = [
    "LEFT_OUT",
    "LeftOut",
    "NewResponse",
    "Request",
    "check_control",
    "given_data",
    "given_table",
    "request_of",
    "with_data",
]

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class LeftOut:
    """Stands where the data were."""

    def __repr__(self) -> str:
        return "left out"


#: In place of the data frame, and of weights and offset given as values.
LEFT_OUT = LeftOut()


@dataclass(frozen=True, eq=False)
class NewResponse:
    """The data of a fit to another response than theirs.

    Attributes
    ----------
    data : dataframe
        The data as given.
    name : str
        The column that the new response is.
    values : ndarray
        One for each row of the data; NaN in rows that were not used and have none.
    formula : str
        The formula with the data's own response.
    """

    data: Any
    name: str
    values: Matrix
    formula: str

    @cached_property
    def table(self) -> Any:
        """The data with the new response in its column; the data given stay as they are."""
        return with_column(self.data, self.name, self.values)


@dataclass(frozen=True, eq=False, repr=False)
class Request(ReadOnlyArrays):
    """The arguments of a fit beside its formula and criterion.

    Attributes
    ----------
    data : dataframe, NewResponse or LeftOut
        As given, detached from the user's.
    data_name : str or None
        What the data are called, where they have a name.
    weights, offset : str, array or None
        As given.
    contrasts : dict or None
        Codings of categorical columns.
    inherited : dict
        Codings of an earlier fit for columns that the formula does not have.
    control : Control or None
        Tolerance and limits.
    residual, variance : str, KnownCovariance or None
        How residuals are correlated, and what their size follows, as given.
    sigma : float or None
        The residual standard deviation, where it is known.
    ddf : str
        Method for the degrees of freedom of tables for which none is given.
    family : Family or None
        Of a generalized model.
    exposure : str, array or None
        What its mean is proportional to, as given.
    nagq : int
        Its quadrature points per random effect.
    """

    data: DetachedTable = DetachedTable()  # noqa: RUF009 - a descriptor
    data_name: str | None = None
    weights: Any = None
    offset: Any = None
    contrasts: dict[str, Any] | None = None
    inherited: dict[str, Any] = field(default_factory=dict)
    control: Control | None = None
    residual: str | KnownCovariance | None = None
    variance: str | None = None
    sigma: float | None = None
    ddf: str = "satterthwaite"
    family: Family | None = None
    exposure: Any = None
    nagq: int = 1

    def __repr__(self) -> str:
        return f"Request(data_name={self.data_name!r})"


def check_control(control: Any) -> None:
    """Tolerance and limits as a `Control`, or None.

    Raises
    ------
    ModelError
        If it is something else.
    """
    if control is not None and not isinstance(control, Control):
        raise ModelError(f"control must be a mixedeffects.Control, not {control!r:.60}.")


def request_of(
    frame: ModelFrame,
    data: Any,
    weights: Any,
    offset: Any,
    contrasts: dict[str, Any] | None,
    inherited: dict[str, Any],
    **more: Any,
) -> Request:
    """What was asked for, detached from what the user goes on to hold.

    Parameters
    ----------
    frame : ModelFrame
        What was made of it.
    data, weights, offset, contrasts, inherited
        As given.
    **more
        Further attributes of a `Request`.
    """
    own, spare = _codings(frame, inherited)
    return Request(
        data=detached(data),
        data_name=getattr(data, "attrs", {}).get("name"),
        weights=detached(weights),
        offset=detached(offset),
        contrasts=(own | (contrasts or {})) or contrasts,
        inherited=spare,
        **more,
    )


def _codings(frame: ModelFrame, inherited: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Codings of an earlier fit: those of factors in the formula, and the others."""
    assert frame.fixed_encoder is not None
    encoders = (frame.fixed_encoder, *frame.random_encoders)
    factors = {name for encoder in encoders for name in encoder.factors}
    own = {n: c for n, c in inherited.items() if n in factors or quote_name(n) in factors}
    return own, {name: coding for name, coding in inherited.items() if name not in own}


def with_data(request: Request, data: Any) -> Request:
    """The same request with something else as its data."""
    # Thousands of refits make one each, and `replace` would copy what is replaced.
    out = object.__new__(Request)
    out.__dict__.update(request.__dict__, data=data)
    return out


def given_data(request: Request) -> Any:
    """What was given as data, itself and not a copy: not to be written into."""
    return request.__dict__["data"]


def given_table(request: Request) -> Any:
    """The data frame, with the response that was fitted, itself and not a copy.

    Raises
    ------
    ModelError
        If the data were left out.
    """
    data = given_data(request)
    if isinstance(data, LeftOut):
        raise left_out("the data frame")
    return data.table if isinstance(data, NewResponse) else data
