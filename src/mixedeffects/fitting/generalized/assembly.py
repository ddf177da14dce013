"""From a frame to the design of a generalized model."""

from __future__ import annotations

from mixedeffects.engine.generalized import GeneralizedDesign
from mixedeffects.engine.memory import RemainderTooLargeError
from mixedeffects.engine.threads import one_blas_thread
from mixedeffects.families import Family
from mixedeffects.fitting.assembly import (
    check_parameters,
    covariance_structures,
    engine_terms,
    too_large,
)
from mixedeffects.frame.model_frame import ModelFrame

__all__ = ["generalized_design"]


def generalized_design(frame: ModelFrame, family: Family) -> GeneralizedDesign:
    """Columns, levels and response as the engine takes them.

    Raises
    ------
    ModelError
        If its blocks, or the information about the variance parameters, would not fit into memory.
    """
    assert frame.response is not None
    check_parameters(frame.terms)
    try:
        with one_blas_thread():
            return GeneralizedDesign(
                engine_terms(frame.terms),
                frame.X,
                frame.response,
                family,
                offset=frame.offset,
                structures=covariance_structures(frame.terms),
            )
    except RemainderTooLargeError as error:
        raise too_large(frame.terms, error) from None
