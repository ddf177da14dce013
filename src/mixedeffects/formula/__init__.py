"""Formulas in lme4's grammar."""

from __future__ import annotations

from mixedeffects.formula.bars import Bar
from mixedeffects.formula.formula import Formula, parse_formula
from mixedeffects.formula.residual import ResidualSpec, read_residual

__all__ = ["Bar", "Formula", "ResidualSpec", "parse_formula", "read_residual"]
