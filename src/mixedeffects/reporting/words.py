"""Numbers and lists as sentences in APA style have them; symbols stand between ‹ and ›."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["decimals_of", "df_text", "in_words", "number_text", "p_text", "share_text"]

_SMALLEST_P = 0.001


def decimals_of(scale: float, digits: int) -> int:
    """Decimals that show a standard error with two digits at least, and not fewer than asked."""
    if not math.isfinite(scale) or scale == 0.0:
        return digits
    return min(max(digits, 1 - math.floor(math.log10(abs(scale)))), 12)


def number_text(value: float, decimals: int) -> str:
    """A number with a minus, not a hyphen."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{value}"
    text = f"{value + 0.0:.{decimals}f}"
    # A minus, not a hyphen.
    return text.replace("-", "−") if float(text) else text.removeprefix("-")


def share_text(value: float) -> str:
    """A number that cannot exceed one in size: no zero before the point, as APA has it."""
    text = number_text(value, 2)
    return text.replace("0.", ".", 1) if text.lstrip("−").startswith("0.") else text


def p_text(p: float) -> str:
    """A p-value."""
    if math.isnan(p):
        return "‹p› not determined"
    if p < _SMALLEST_P:
        return "‹p› < .001"
    return f"‹p› = {f'{p:.3f}'.removeprefix('0')}" if p < 0.9995 else "‹p› > .999"


def df_text(df: float) -> str:
    """Degrees of freedom."""
    return f"{df:.1f}" if math.isfinite(df) else "∞"


def in_words(parts: Sequence[str]) -> str:
    """Commas, and an and before the last."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
