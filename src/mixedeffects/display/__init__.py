"""Tables and summaries as text and HTML, from plain data."""

from mixedeffects.display.abbreviation import abbreviate
from mixedeffects.display.coefficients import coefficient_table, correlation_table
from mixedeffects.display.numbers import format_numbers, format_p_values, significance_stars
from mixedeffects.display.shown import html_document
from mixedeffects.display.summary import InformationCriteria, Summary
from mixedeffects.display.tables import Column, Table
from mixedeffects.display.varcorr_text import VarCorrBlock, varcorr_table

__all__ = [
    "Column",
    "InformationCriteria",
    "Summary",
    "Table",
    "VarCorrBlock",
    "abbreviate",
    "coefficient_table",
    "correlation_table",
    "format_numbers",
    "format_p_values",
    "html_document",
    "significance_stars",
    "varcorr_table",
]
