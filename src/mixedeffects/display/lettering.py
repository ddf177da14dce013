"""Names in pictures and text: drawn as they stand, whatever characters they have.

Text between two dollar signs is mathematics to matplotlib, a leading underscore leaves an entry out
of a legend, and a line break or a tab makes a label something else. Everything that holds a name of
the user's, a column's or a level's, is written by what is here.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

__all__ = ["Name", "literal", "literal_legend", "name_ticks", "one_line", "short", "wrapped"]

_BREAKS = re.compile(r"[\t-\r\x1c-\x1e\x85\u2028\u2029]+")
_CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


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
    """Break a sentence or a formula at blanks; continued lines are indented.

    Examples
    --------
    >>> wrapped("y ~ x + (1 | school)", 14)
    ['y ~ x + (1 |', '  school)']
    """
    if width is None or len(text) <= width:
        return [text]
    return textwrap.wrap(
        text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


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
