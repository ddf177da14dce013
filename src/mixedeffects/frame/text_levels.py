"""What text in the place of numbers, or of the same label, looks like."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

__all__ = ["doubt_spelling", "doubt_text", "is_number", "shown_labels"]

_NUMBER = re.compile(r"\s*[-+]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?\s*")
_DATE = re.compile(r"\s*\d{1,4}([./-])\d{1,2}\1\d{1,4}\b.*")

#: A whole number, as of a house, may have a letter behind it.
_CODE = re.compile(r"\s*\d+\s*[^\W\d_]?\s*")

#: So many levels that are numbers are measurements rather than codes.
_MEASUREMENTS = 10

#: Labels that differ in capitals alone mean the same from this length on; genotypes do not.
_WORD = 4


def is_number(text: str) -> bool:
    """Whether a text is a number, with a decimal point or a decimal comma.

    Examples
    --------
    >>> [is_number(text) for text in ["1.5", "-1,5", " 2 ", "n.a.", ""]]
    [True, True, True, False, False]
    """
    return _NUMBER.fullmatch(text) is not None


def shown_labels(labels: Sequence[str], most: int = 3) -> str:
    """Labels in quotes, the first of many.

    Examples
    --------
    >>> shown_labels(["a", "b", "c", "d"])
    "'a', 'b', 'c', ..."
    """
    return ", ".join(f"{each!r:.40}" for each in labels[:most]) + ", ..." * (len(labels) > most)


def doubt_text(name: str, labels: Sequence[str], doubt: Callable[[str], object]) -> None:
    """Say of text in the fixed effects that it is rather numbers or dates.

    Whole numbers alone are taken for codes, also with a letter behind some, and so are few numbers.

    Examples
    --------
    >>> doubt_text("dose", ["0.5", "1.0", "2.0"], print)
    >>> doubt_text("x", [f"{k},5" for k in range(20)] + ["n.a."], print)
    `x` is text with 21 levels, each with a coefficient of its own, but 20 of them are numbers ...
    """
    if len(labels) < _MEASUREMENTS or all(_CODE.fullmatch(label) for label in labels):
        return
    numbers = [label for label in labels if is_number(label)]
    others = [label for label in labels if not is_number(label)]
    if len(numbers) > len(others) and (len(numbers) >= _MEASUREMENTS or len(others) == 1):
        what, missing, how = "numbers", "", ""
        if any("," in label for label in numbers):
            what, how = "numbers with decimal commas", ", decimal=','"
        if others:
            what += f" and {shown_labels(others)} {'is' if len(others) == 1 else 'are'} not"
            missing = f"(..., missing=[{shown_labels(others)}])"
            how += f", na_values=[{shown_labels(others)}]"
        doubt(
            f"`{name}` is text with {len(labels):,} levels, each with a coefficient of its own, "
            f"but {_so_many(numbers, labels)} are {what}. Read the file so that it is a number: "
            f"mixedeffects.read_table{missing}, or pandas.read_csv(...{how}). If it is to be a "
            "factor, make it categorical."
        )
    dates = [label for label in labels if _DATE.fullmatch(label)]
    if len(dates) >= max(_MEASUREMENTS, len(labels) // 2 + 1):
        doubt(
            f"`{name}` is text with {len(labels):,} levels, each with a coefficient of its own, "
            f"but {_so_many(dates, labels)} are dates. For a trend over time make a number of it, "
            "such as the days since the first: d = pandas.to_datetime("
            f"data[{name!r}], dayfirst=True); (d - d.min()).dt.days. If it is to be a "
            "factor, make it categorical."
        )


def _so_many(some: Sequence[str], labels: Sequence[str]) -> str:
    return "they" if len(some) == len(labels) else f"{len(some):,} of them"


def doubt_spelling(name: str, labels: Iterable[str], doubt: Callable[[str], object]) -> None:
    """Say of a factor that it has labels that differ in blanks, or in capitals, alone.

    Examples
    --------
    >>> doubt_spelling("habitat", ["moor", "Moor ", "forest"], print)
    `habitat` has levels that differ only in blanks or capitals: 'moor' and 'Moor '. ...
    >>> doubt_spelling("habitat", ["moor", "moor "], lambda said: print(said.split("by ")[-1]))
    data['habitat'].str.strip(), in polars .str.strip_chars().
    >>> doubt_spelling("genotype", ["AA", "Aa", "aa"], print)
    """
    same: dict[str, list[str]] = {}
    for label in labels:
        plain = " ".join(label.split())
        key = plain.casefold() if len(plain) >= _WORD else plain
        same.setdefault(key, []).append(label)
    twins = [each for each in same.values() if len(each) > 1]
    if twins:
        listed = "; ".join(" and ".join(repr(label) for label in each) for each in twins[:3])
        more = f"; and {len(twins) - 3:,} more" if len(twins) > 3 else ""
        capitals = any(len({" ".join(label.split()) for label in each}) > 1 for each in twins)
        way = ".str.strip().str.lower()" if capitals else ".str.strip()"
        polars = ".str.strip_chars()" + (".str.to_lowercase()" if capitals else "")
        doubt(
            f"`{name}` has levels that differ only in blanks or capitals: {listed}{more}. They "
            "count as different levels; if they are the same, give them one spelling, such as by "
            f"data[{name!r}]{way}, in polars {polars}."
        )
