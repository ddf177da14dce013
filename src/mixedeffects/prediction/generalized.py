"""Predictions of a generalized model, on the scale of the response or of the link."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixedeffects.base.options import checked_choice, is_whole_number
from mixedeffects.covariance.design import z_times
from mixedeffects.errors import DataError, ModelError
from mixedeffects.fitting.estimability import estimability
from mixedeffects.fitting.generalized import GeneralizedFit
from mixedeffects.fitting.generalized.means import means_at
from mixedeffects.frame.grouping import UNSEEN
from mixedeffects.frame.new_data import DesignRows, NewData, Wanted, spans
from mixedeffects.prediction.predict import NEW_LEVELS, refuse_unseen
from mixedeffects.simulation.random_part import select_terms

__all__ = ["GeneralizedOptions", "predict_generalized"]

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GeneralizedOptions:
    """The arguments of `GeneralizedLinearMixedModel.predict`, as given."""

    type: Any = "response"
    re: Any = "all"
    new_levels: Any = "error"
    offset: Any = None
    exposure: Any = None
    chunk_size: Any = 100_000


def predict_generalized(fit: GeneralizedFit, newdata: Any, options: GeneralizedOptions) -> Any:
    """See `GeneralizedLinearMixedModel.predict`."""
    on_link = checked_choice(options.type, "type", ["response", "link"]) == "link"
    checked_choice(options.new_levels, "new_levels", list(NEW_LEVELS))
    if not is_whole_number(options.chunk_size):
        raise ModelError(
            f"chunk_size must be a positive number of rows, not {options.chunk_size!r:.60}."
        )
    terms = select_terms(fit.frame, options.re)
    roles = {"offset": options.offset, "exposure": options.exposure}
    if newdata is None:
        for role, given in roles.items():
            if given is not None:
                raise ModelError(
                    f"{role}= describes new rows; without newdata those of the fit are used."
                )
        values = _scaled(fit, _of_the_fit(fit, terms), on_link)
        return pd.Series(values, index=fit.frame.index, name="estimate")
    wanted = Wanted(terms, terms, None, *_offsets(fit, roles))
    if isinstance(newdata, Iterator):
        for role, given in roles.items():
            if given is not None and not isinstance(given, str) and np.ndim(given):
                raise DataError(
                    f"With an iterator of frames `{role}` must be a number or the name of a "
                    "column, because an array does not say which frame it belongs to."
                )
        return (_of_frame(fit, data, wanted, options, on_link) for data in newdata)
    return _of_frame(fit, newdata, wanted, options, on_link)


def _of_the_fit(fit: GeneralizedFit, terms: tuple[int, ...]) -> Matrix:
    """Linear predictor of the rows used."""
    if len(terms) == len(fit.frame.terms):
        return fit.eta.copy()
    eta = fit.fixed_part[:, None].copy()
    for t in terms:
        z_times(fit.frame.terms[t], np.ascontiguousarray(fit.modes[t])[:, :, None], eta)
    return eta[:, 0]


def _offsets(fit: GeneralizedFit, roles: dict[str, Any]) -> tuple[Any, Any]:
    """Offset and exposure of new rows: as given, or the columns that the fit named."""
    out = []
    for role, given in roles.items():
        fitted = getattr(fit.request, role)
        if given is None and fitted is not None and not isinstance(fitted, str):
            raise ModelError(
                f"The model was fitted with {role}= given as values, which say nothing about new "
                f"rows: give theirs as {role}=, {'0' if role == 'offset' else '1'} for none."
            )
        out.append(fitted if given is None else given)
    return out[0], out[1]


def _of_frame(
    fit: GeneralizedFit, data: Any, wanted: Wanted, options: GeneralizedOptions, on_link: bool
) -> Any:
    new = NewData(fit.frame, data, wanted, options.chunk_size, estimability(fit))
    codes = new.level_codes()
    if options.new_levels == "error":
        for t in wanted.levels:
            refuse_unseen(fit, new, t, codes[t])
    out = np.full(new.n, np.nan)
    for start, stop in spans(new.n, options.chunk_size):
        rows, complete = new.rows(start, stop, codes)
        out[start:stop][complete] = _scaled(fit, _linear(fit, rows, wanted.levels), on_link)
    return new.answer({"estimate": out}, single=True)


def _linear(fit: GeneralizedFit, rows: DesignRows, terms: tuple[int, ...]) -> Matrix:
    eta: Matrix = rows.X @ fit.beta + rows.offset
    for t in terms:
        code = rows.codes[t]
        effects = np.einsum("ia,ia->i", rows.z[t], fit.modes[t][code])
        eta += np.where(code == UNSEEN, 0.0, effects)
    return eta


def _scaled(fit: GeneralizedFit, eta: Matrix, on_link: bool) -> Matrix:
    return eta if on_link else means_at(fit.family, eta)
