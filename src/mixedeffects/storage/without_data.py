"""A fit without its data: what needs no rows goes on working, what needs them says so.

Where the rows stayed in a table, the fit is taken away from the table: what is worked out
beforehand is asked of its engine.

The cross-products of the data and the optimum are enough for estimates, variances, degrees of
freedom and random effects. What looks at rows but is small is worked out beforehand and kept: the
quantiles of the residuals in the summary, the mean variances behind ICC and R2, and the hypotheses
about the terms of the fixed part. Where residuals have a structure, other parameters would need the
rows: the observed information at the optimum is kept, for degrees of freedom and intervals.
"""

from __future__ import annotations

import dataclasses
from typing import Any, cast

from mixedeffects.comparison.variance_explained import variances
from mixedeffects.covariance.of_fit import residual_blocks_of
from mixedeffects.diagnostics.generalized_residuals import quantiles_of_generalized
from mixedeffects.diagnostics.residuals import residual_quantiles
from mixedeffects.engine import Optimum
from mixedeffects.errors import ModelError
from mixedeffects.fitting.estimability import estimability
from mixedeffects.fitting.fit import Fit, OncePerFit
from mixedeffects.fitting.generalized import GeneralizedFit
from mixedeffects.fitting.request import LEFT_OUT, with_data
from mixedeffects.frame.model_frame import ModelFrame, RandomTerm
from mixedeffects.frame.without_rows import (
    OF_FRAME,
    OF_TERM,
    FrameWithoutRows,
    TermWithoutRows,
)
from mixedeffects.inference.kenward_roger import kenward_roger_observed_of, kenward_roger_of
from mixedeffects.inference.response_scale import response_transformation
from mixedeffects.inference.singular import expected_degrees_of_freedom
from mixedeffects.inference.wald import term_hypotheses, terms_at_zero
from mixedeffects.reporting.model_summary import default_summary, trials_of
from mixedeffects.storage.generalized_without_data import generalized_optimum_without_rows
from mixedeffects.storage.residuals_without_data import (
    optimum_without_rows,
    structure_without_rows,
)

__all__ = ["REMEMBERED", "without_data"]

#: What is worked out before the rows go, with the further arguments it is asked for.
Asked = tuple[OncePerFit[Any, Any], tuple[Any, ...]]
_OF_ALL: tuple[Asked, ...] = (
    (estimability, ()),
    (response_transformation, ()),
    (terms_at_zero, ()),
    *((term_hypotheses, (kind,)) for kind in (1, 2, 3)),
)
#: The same by kind of fit.
REMEMBERED: dict[str, tuple[Asked, ...]] = {
    Fit.kind: ((residual_quantiles, ()), (variances, ()), *_OF_ALL),
    GeneralizedFit.kind: ((quantiles_of_generalized, ()), (trials_of, ()), *_OF_ALL),
}
#: The same where residuals have a structure, and methods that tables may have by default.
OF_RESIDUALS: tuple[Asked, ...] = (
    (residual_blocks_of, ()),
    (default_summary, ()),
)
_METHODS: dict[str, OncePerFit[Any, Any]] = {
    "kr": kenward_roger_of,
    "kr-observed": kenward_roger_observed_of,
}


def without_data(fit: Fit) -> Fit:
    """See `LinearMixedModel.without_data`."""
    if isinstance(fit.frame, FrameWithoutRows) and fit.rows is None:
        return fit
    asked = fit.request
    remembered = REMEMBERED[fit.kind]
    optimum = fit.optimum
    if fit.residual is not None:
        remembered += OF_RESIDUALS
        if optimum.singular:
            remembered += ((expected_degrees_of_freedom, ()),)
        if asked.ddf in _METHODS and fit.reml:
            remembered += ((_METHODS[asked.ddf], ()),)
        optimum = optimum_without_rows(optimum)
    elif isinstance(fit, GeneralizedFit):
        optimum = cast(Optimum, generalized_optimum_without_rows(fit))
    return dataclasses.replace(
        fit,
        frame=_frame(fit.frame),
        optimum=optimum,
        request=dataclasses.replace(
            with_data(asked, LEFT_OUT),
            weights=_name(asked.weights),
            offset=_name(asked.offset),
            exposure=_name(asked.exposure),
            residual=_name(asked.residual),
        ),
        remembered=_worked_out(fit, remembered),
        rows=None,
    )


def _worked_out(fit: Fit, asked: tuple[Asked, ...]) -> dict[Any, Any]:
    """Values by the keys under which a fit without its rows looks for them."""
    found = {}
    for ask, given in asked:
        try:
            found[ask.key(*given)] = ask(fit, *given)
        except ModelError:
            if fit.rows is None:
                raise
            # What the table's engine cannot answer, the fit cannot say without it either.
    return found


def _name(given: Any) -> Any:
    """Weights, offset or structure: the name of a column, or what stands for values of rows."""
    return given if given is None or isinstance(given, str) else LEFT_OUT


def _frame(frame: ModelFrame) -> FrameWithoutRows:
    if isinstance(frame, FrameWithoutRows):
        return frame.away_from_table()
    kept = {name: value for name, value in frame.__dict__.items() if name not in OF_FRAME}
    kept["terms"] = tuple(_term(term) for term in frame.terms)
    kept["residual"], kept["variance"] = structure_without_rows(frame.residual, frame.variance)
    kept.pop("response", None)
    return FrameWithoutRows.of(
        frame.nobs,
        had_response=frame.response is not None,
        had_trials=frame.has_trials,
        **kept,
    )


def _term(term: RandomTerm) -> TermWithoutRows:
    return TermWithoutRows.of(**{k: v for k, v in term.__dict__.items() if k not in OF_TERM})
