"""Numbers as R prints them: a column shares its decimals, and none shows more than it needs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from wcwidth import wcswidth

__all__ = [
    "SMALLEST_P_VALUE",
    "STAR_LEGEND",
    "fixed_decimals",
    "format_numbers",
    "format_p_values",
    "pad_to_common_point",
    "pad_to_common_width",
    "significance_stars",
    "text_width",
    "zap_small",
]

# Below this R calls a p-value "smaller than" rather than printing it: the spacing of doubles at 1.
SMALLEST_P_VALUE = 2.0**-52
STAR_LEGEND = "0 '***' 0.001 '**' 0.01 '*' 0.05 '.' 0.1 ' ' 1"
_STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"), (0.1, "."))


def format_numbers(
    values: Iterable[float], digits: int = 7, *, decimals: int = 0, missing: str = "NA"
) -> list[str]:
    """Format numbers with common decimals, as R's ``format(values, digits=, nsmall=)``.

    The number of decimals is the smallest which shows every value with `digits` significant
    digits, trailing zeros not counted. Scientific notation is used for all values when it is
    narrower.

    Parameters
    ----------
    values : iterable of float
        The column. NaN prints as `missing`, infinities as ``Inf`` and ``-Inf``.
    digits : int
        Significant digits, from 1 to 15.
    decimals : int
        At least this many decimals in fixed notation.
    missing : str
        Text for NaN.

    Returns
    -------
    list of str
        One text per value, padded on the left to a common width.

    Raises
    ------
    ValueError
        If `digits` is outside 1 to 15.

    Examples
    --------
    >>> format_numbers([612.0897, 35.0717, 654.9410], digits=4)
    ['612.09', ' 35.07', '654.94']
    >>> format_numbers([0.00001234, 123.0], digits=2)
    ['1.2e-05', '1.2e+02']
    """
    if not 1 <= digits <= 15:
        raise ValueError(f"digits must be between 1 and 15, not {digits}")
    column = [float(value) for value in values]
    finite = [value for value in column if math.isfinite(value)]
    if _fixed_is_narrower(finite, digits):
        places = max([decimals, *(_decimals_needed(value, digits) for value in finite)])
        notation = f".{places}f"
    else:
        places = max(_significant_digits(value, digits)[0] for value in finite) - 1
        notation = f".{places}e"
    texts = [_text(value, notation, missing) for value in column]
    return pad_to_common_width(texts)


def format_p_values(
    values: Iterable[float],
    digits: int = 3,
    *,
    smallest: float = SMALLEST_P_VALUE,
    missing: str = "NA",
) -> list[str]:
    """Format p-values as R's ``format.pval``.

    Values of 0.0001 and more share their decimals, smaller ones are in scientific notation, and
    those below `smallest` print as an upper bound.

    Parameters
    ----------
    values : iterable of float
        P-values; NaN prints as `missing`.
    digits : int
        Significant digits.
    smallest : float
        Smaller values are printed as ``< smallest``.
    missing : str
        Text for NaN.

    Returns
    -------
    list of str
        One text per value, not padded to a common width.

    Examples
    --------
    >>> format_p_values([0.240451, 3.26379e-06, 1.2e-17])
    ['0.24', '3.26e-06', '< 2e-16']
    """
    column = [float(value) for value in values]
    texts = [missing] * len(column)
    shown = [i for i, value in enumerate(column) if value >= smallest]
    tiny = [i for i, value in enumerate(column) if value < smallest]
    # R decides on fixed notation by the decade, and 1e-4 still counts as fixed beyond one digit.
    lowest_decade = -4 if digits > 1 else -3
    is_fixed = {i: math.floor(math.log10(column[i])) >= lowest_decade for i in shown}
    for notation in (True, False):
        members = [i for i in shown if is_fixed[i] is notation]
        for i, text in zip(
            members, format_numbers([column[i] for i in members], digits), strict=True
        ):
            texts[i] = text
    bound = _bound(smallest, digits, max((len(texts[i]) for i in shown), default=0))
    for i in tiny:
        texts[i] = bound
    return texts


def significance_stars(values: Iterable[float]) -> list[str]:
    """Significance codes of p-values, padded on the right to a common width.

    Parameters
    ----------
    values : iterable of float
        P-values; NaN gets a blank.

    Returns
    -------
    list of str
        ``"***"`` up to 0.001, ``"**"`` up to 0.01, ``"*"`` up to 0.05, ``"."`` up to 0.1.

    Examples
    --------
    >>> significance_stars([0.0002, 0.05, 0.7])
    ['***', '*  ', '   ']
    """
    stars = [next((mark for bound, mark in _STARS if value <= bound), "") for value in values]
    return pad_to_common_width(stars, left=False)


def zap_small(values: Sequence[float], digits: int = 7) -> list[float]:
    """Round all values to the decimals that give the largest of them `digits` digits.

    Parameters
    ----------
    values : sequence of float
        Numbers; NaN and infinities pass unchanged.
    digits : int
        Significant digits of the largest value.

    Returns
    -------
    list of float
        The rounded values.

    Examples
    --------
    >>> zap_small([-3.95361, 1e-9, 5.17929], digits=5)
    [-3.9536, 0.0, 5.1793]
    """
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    if largest == 0:
        return [float(value) for value in values]
    places = max(0, math.floor(digits - math.log10(largest) + 0.5))
    return [round_number(value, places) for value in values]


def round_number(value: float, places: int) -> float:
    """Round to `places` decimals, without negative zeros; NaN and infinities pass unchanged."""
    return round(float(value), places) + 0.0 if math.isfinite(value) else float(value)


def pad_to_common_width(texts: Sequence[str], *, left: bool = True) -> list[str]:
    """Pad texts with blanks, on the left or on the right, to the width of the widest.

    Examples
    --------
    >>> pad_to_common_width(["Min", "Median"])
    ['   Min', 'Median']
    """
    widths = [text_width(text) for text in texts]
    most = max(widths, default=0)
    blanks = [" " * (most - width) for width in widths]
    return [b + text if left else text + b for text, b in zip(texts, blanks, strict=True)]


def pad_to_common_point(texts: Sequence[str]) -> list[str]:
    """Pad numbers on the right so that the decimal points are below each other.

    Texts that are no numbers end where the column ends.

    Examples
    --------
    >>> pad_to_common_point(["251.405", "0.07", "17", "NaN"])
    ['251.405', '0.07 ', '17    ', 'NaN']
    """
    behind = [len(text) - text.index(".") if "." in text else 0 for text in texts]
    most = max(behind, default=0)
    return [
        text if text.lstrip("-") in ("NaN", "Inf") else text + " " * (most - after)
        for text, after in zip(texts, behind, strict=True)
    ]


def text_width(text: str) -> int:
    """Columns of a terminal that a text takes; a Chinese or Japanese character takes two.

    Examples
    --------
    >>> text_width("Days"), text_width("学校")
    (4, 4)
    """
    width = len(text) if text.isascii() else wcswidth(text)
    # Negative where there are characters that no terminal can show.
    return width if width >= 0 else len(text)


def _significant_digits(value: float, digits: int) -> tuple[int, int]:
    """How many of `digits` digits remain without trailing zeros, and the decimal exponent."""
    mantissa, exponent = f"{abs(value):.{digits - 1}e}".split("e")
    return max(1, len(mantissa.replace(".", "").rstrip("0"))), int(exponent)


def _decimals_needed(value: float, digits: int) -> int:
    n_significant, exponent = _significant_digits(value, digits)
    return max(0, n_significant - exponent - 1)


def _fixed_is_narrower(finite: Sequence[float], digits: int) -> bool:
    """Compare the widths the whole column would have; a tie goes to fixed notation."""
    if not finite:
        return True
    decimals = max(_decimals_needed(value, digits) for value in finite)
    fixed = max(len(_text(value, f".{decimals}f")) for value in finite)
    places = max(_significant_digits(value, digits)[0] for value in finite) - 1
    scientific = max(len(_text(value, f".{places}e")) for value in finite)
    return fixed <= scientific


def _text(value: float, notation: str, missing: str = "NA") -> str:
    if math.isnan(value):
        return missing
    if math.isinf(value):
        return "Inf" if value > 0 else "-Inf"
    # Adding 0.0 turns the negative zero into zero.
    return format(value + 0.0, notation)


def _bound(smallest: float, digits: int, width_of_others: int) -> str:
    """Text for values below `smallest`, no wider than the other p-values need."""
    digits = max(1, digits - 2)
    if width_of_others and digits > 1 and digits + 6 > width_of_others:
        digits = max(1, width_of_others - 7)
    separator = "" if digits == 1 and width_of_others <= 6 else " "
    return f"<{separator}{format_numbers([smallest], digits)[0]}"


def fixed_decimals(value: float, digits: int) -> str:
    """One number with fixed decimals, but no number other than zero is shown as zero.

    Parameters
    ----------
    value : float
        The number.
    digits : int
        Decimals.

    Examples
    --------
    >>> fixed_decimals(2.0, 3), fixed_decimals(-0.0, 3), fixed_decimals(0.0002, 3)
    ('2.000', '0.000', '2.00e-04')
    """
    value = float(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Inf" if value > 0 else "-Inf"
    if (value != 0.0 and abs(value) < 0.5 * 10.0**-digits) or abs(value) >= 1e15:
        return f"{value:.{max(digits - 1, 0)}e}"
    # Adding 0.0 turns the negative zero into zero.
    return f"{round(value, digits) + 0.0:.{digits}f}"
