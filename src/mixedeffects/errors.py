"""What this package raises; every message says what is wrong, where, and what to do."""

from __future__ import annotations

__all__ = ["ConvergenceWarning", "DataError", "FormulaError", "MixedEffectsError", "ModelError"]


class MixedEffectsError(ValueError):
    """Base class of every error this package raises on purpose."""


class FormulaError(MixedEffectsError):
    """The formula text cannot be read, or says something that is not a mixed model."""


class DataError(MixedEffectsError):
    """The data do not fit the formula: missing columns, infinite values, wrong types."""


class ModelError(MixedEffectsError):
    """The model cannot be identified from these data, or an argument does not fit the model."""


class ConvergenceWarning(UserWarning):
    """The optimiser stopped without the evidence that the certificate asks for."""
