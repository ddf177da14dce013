"""Formulas in lme4's grammar."""

from __future__ import annotations

from mixedeffects.formula.bars import Bar
from mixedeffects.formula.formula import Formula, parse_formula

__all__ = ["Bar", "Formula", "parse_formula"]
