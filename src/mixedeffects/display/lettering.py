"""Names in pictures and text: drawn as they stand, whatever characters they have.

Text between two dollar signs is mathematics to matplotlib, a leading underscore leaves an entry out
of a legend, and a line break or a tab makes a label something else. Everything that holds a name of
the user's, a column's or a level's, is written by what is here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from wcwidth import wcwidth

from mixedeffects.display.numbers import text_width

__all__ = [
    "Name",
    "fitted",
    "literal",
    "literal_legend",
    "name_ticks",
    "one_line",
    "short",
    "short_each",
    "unquoted",
    "wrapped",
]

_BREAKS = re.compile(r"[\t-\r\x1c-\x1e\x85\u2028\u2029]+")
_CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


#: Width of a column of text, a Latin letter, as a share of the size of its letters, nearly.
_WIDTH = 0.57


class Name(str):
    """A title that holds names, drawn as it stands; that of the user may hold formulas."""

    __slots__ = ()


def one_line(text: Any) -> str:
    r"""A text in one line: breaks and tabs become blanks, other control characters visible.

    Examples
    --------
    >>> one_line("north\nwest\x00")
    'north west␀'
    """
    return _CONTROL.sub(_visible, _BREAKS.sub(" ", str(text)))


def wrapped(text: str, width: int | None) -> list[str]:
    """A sentence or a formula in lines narrower than the width, as those of tables are.

    It is broken at blanks, and lines that go on are indented. A word that is wider, such as a
    name, stays whole. None never breaks.

    Examples
    --------
    >>> wrapped("y ~ x + (1 | school)", 14)
    ['y ~ x + (1 |', '  school)']
    """
    if width is None or text_width(text) < width:
        return [text]
    first, *others = text.split(" ")
    lines = [first]
    for word in others:
        longer = f"{lines[-1]} {word}"
        if text_width(longer) < width:
            lines[-1] = longer
        elif word:
            lines.append(f"  {word}")
    return lines


def short(label: Any, most: int = 24) -> str:
    """A label in one line, cut in the middle where it would take too much room.

    Examples
    --------
    >>> short("A very long name of a level indeed", 16)
    'A very …l indeed'
    """
    text = one_line(label)
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[head + 1 - most :]}"


def short_each(labels: Iterable[Any], most: int = 24) -> list[str]:
    """Labels side by side, cut as by `short`, and where that makes some the same, by what is alike.

    Examples
    --------
    >>> short_each(["participant 01 of the north", "participant 02 of the north"], 16)
    ['participant 01…', 'participant 02…']
    """
    texts = [one_line(label) for label in labels]
    cut = [short(text, most) for text in texts]
    different = len(set(texts))
    if len(set(cut)) == different:
        return cut
    head = _alike(texts)
    tail = _alike([text[head:][::-1] for text in texts])
    # Some of what is alike stays, as far as there is room: it says what the names are of.
    longest = max(map(len, texts)) - head - tail
    room = max(most - longest - 2, 0)
    head, tail = max(head - room, 0), max(tail - max(room - head, 0), 0)
    inner = [
        f"{'…' if head else ''}{text[head : len(text) - tail]}{'…' if tail else ''}"
        for text in texts
    ]
    again = [short(text, most) for text in inner]
    return again if len(set(again)) > len(set(cut)) else cut


def _alike(texts: Sequence[str]) -> int:
    """How many characters all texts begin with."""
    low, high = min(texts), max(texts)
    return next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))


def fitted(label: Any, room: float, size: float, lines: int = 1) -> str:
    r"""A label in so many lines that are not wider than the room, cut in the middle if it must be.

    Parameters
    ----------
    label : object
        What it is a label of.
    room : float
        Points along the line.
    size : float
        Of the letters, in points.
    lines : int
        Most lines.

    Examples
    --------
    >>> fitted("treatment arm: Exercise three times a week", 150.0, 9.5, 2)
    'treatment arm: Exercise\nthree times a week'
    """
    columns = max(8, int(room / (_WIDTH * size)))
    text = one_line(label)
    for most in range(len(text), 7, -1):
        broken = _broken(short(text, most), columns)
        if len(broken) <= lines:
            return "\n".join(broken)
    return short(text, 8)


def _broken(text: str, columns: int) -> list[str]:
    """Lines of at most so many columns, broken after a blank or such a sign where there is one."""
    lines, line, used = [], "", 0
    for character in text:
        wide = max(wcwidth(character), 0)
        if used + wide > columns:
            end = max(map(line.rfind, " :|._")) + 1
            # A line that is hardly begun is not left for a word that fits nowhere.
            end = end if end > len(line) // 3 else len(line)
            lines.append(line[:end].rstrip())
            line = line[end:]
            used = sum(max(wcwidth(each), 0) for each in line)
        line, used = line + character, used + wide
    return [*lines, line]


def unquoted(name: str) -> str:
    r"""A name that a formula has in backticks, as the data have it.

    Examples
    --------
    >>> unquoted(r"`angle (\`deg\`)`"), unquoted("log(`my y`)")
    ('angle (`deg`)', 'log(`my y`)')
    """
    whole = re.fullmatch(r"`((?:\\.|[^`\\])+)`", name)
    return name if whole is None else re.sub(r"\\(.)", r"\1", whole[1])


def literal(text: Any) -> Any:
    """Have a text of matplotlib drawn as it stands, with fonts that have its characters."""
    text.set_parse_math(False)
    text.set_usetex(False)
    missing = [character for character in set(text.get_text()) if ord(character) > 0x24F]
    if missing:
        families = list(text.get_fontfamily())
        found = {_family_with(character, tuple(families)) for character in missing}
        more = sorted(family for family in found if family and family not in families)
        text.set_fontfamily([*families, *more])
    return text


def name_ticks(axis: Any, places: Iterable[float], names: Sequence[str], **style: Any) -> None:
    """Write names at places of an axis."""
    axis.set_ticks(list(places), labels=list(names), **style)
    for tick in axis.get_major_ticks():
        # The second is that of the other side, which may be switched on later.
        literal(tick.label1)
        literal(tick.label2)


def literal_legend(ax: Any, handles: Sequence[Any], names: Sequence[str], **style: Any) -> Any:
    """A legend with these names, also where one is empty or begins with an underscore."""
    legend = ax.legend(list(handles), [f"{number}" for number in range(len(names))], **style)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)
        literal(text)
    literal(legend.get_title())
    return legend


def _visible(match: re.Match[str]) -> str:
    code = ord(match[0])
    # The pictures that Unicode has of control characters.
    return chr(0x2400 + code) if code < 0x20 else "␡" if code == 0x7F else "\ufffd"


@lru_cache(maxsize=4096)
def _family_with(character: str, families: tuple[str, ...]) -> str | None:
    """A family of fonts on this machine that has the character, the given ones first."""
    from matplotlib.font_manager import FontProperties, fontManager, get_font

    own = fontManager.findfont(FontProperties(family=list(families)))
    if get_font(own).get_char_index(ord(character)):
        return families[0]
    # The font of last resort has a box for everything.
    for entry in (each for each in fontManager.ttflist if "Last Resort" not in each.name):
        try:
            if get_font(entry.fname).get_char_index(ord(character)):
                return str(entry.name)
        except (OSError, RuntimeError):
            # A font that is listed and cannot be read.
            continue
    return None
