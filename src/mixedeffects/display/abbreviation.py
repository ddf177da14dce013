"""Short names that stay recognisable and unique, by the rules of R's ``abbreviate``."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["abbreviate"]

_VOWELS = frozenset("aeiou")


def abbreviate(names: Sequence[str], minimum_length: int = 6) -> list[str]:
    """Abbreviate names to about `minimum_length` characters, keeping distinct names distinct.

    Lower-case vowels go first, then lower-case letters, then anything; each time from the right,
    the ends of words before their insides, and never the first letter of a word until nothing
    else is left. Names that come out equal are tried again one character longer.

    Parameters
    ----------
    names : sequence of str
        Names to shorten; those short enough already stay as they are.
    minimum_length : int
        Length to aim at, at least 1.

    Returns
    -------
    list of str
        One abbreviation per name, in order.

    Raises
    ------
    ValueError
        If `minimum_length` is smaller than 1.

    Examples
    --------
    >>> abbreviate(["(Intercept)", "cltypereg", "recipeB:temperature^4"])
    ['(Intr)', 'cltypr', 'rcB:^4']
    """
    if minimum_length < 1:
        raise ValueError(f"minimum_length must be at least 1, not {minimum_length}")
    distinct = list(dict.fromkeys(name.strip(" ") for name in names))
    short: dict[str, str] = {}
    pending, length = distinct, minimum_length
    # At the length of the longest name nothing is cut any more, so this ends.
    while pending:
        short.update({name: _shorten(name, length) for name in pending})
        repeated = _repeated([short[name] for name in distinct])
        pending = [name for name in distinct if short[name] in repeated]
        if length > max(map(len, distinct)):
            break
        length += 1
    return [short[name.strip(" ")] for name in names]


def _repeated(texts: Sequence[str]) -> set[str]:
    seen: set[str] = set()
    repeated: set[str] = set()
    for text in texts:
        (repeated if text in seen else seen).add(text)
    return repeated


def _shorten(name: str, length: int) -> str:
    """One name, cut character by character until it fits; blanks mark words and go last."""
    characters = list(name)

    def fits() -> bool:
        return sum(not character.isspace() for character in characters) <= length

    if len(characters) <= length:
        return name
    for may_go in (_vowel_at_end, _vowel_inside, _lower_at_end, _lower_inside, _any_inside):
        for position in range(len(characters) - 1, 0, -1):
            if fits():
                break
            if may_go(characters, position):
                del characters[position]
    if len(characters) > length:
        return "".join(character for character in characters if not character.isspace())
    return "".join(characters)


def _starts_word(characters: list[str], position: int) -> bool:
    return characters[position - 1].isspace()


def _ends_word(characters: list[str], position: int) -> bool:
    is_last = position + 1 == len(characters) or characters[position + 1].isspace()
    return is_last and not _starts_word(characters, position)


def _is_lower(character: str) -> bool:
    return character.isalpha() and character.islower()


def _vowel_at_end(characters: list[str], position: int) -> bool:
    return characters[position] in _VOWELS and _ends_word(characters, position)


def _vowel_inside(characters: list[str], position: int) -> bool:
    return characters[position] in _VOWELS and not _starts_word(characters, position)


def _lower_at_end(characters: list[str], position: int) -> bool:
    return _is_lower(characters[position]) and _ends_word(characters, position)


def _lower_inside(characters: list[str], position: int) -> bool:
    return _is_lower(characters[position]) and not _starts_word(characters, position)


def _any_inside(characters: list[str], position: int) -> bool:
    return not characters[position].isspace() and not _starts_word(characters, position)
