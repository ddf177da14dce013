"""What users may call stays as it is: every public name, and the parameters each takes."""

from __future__ import annotations

from pathlib import Path

import mixedeffects as me
import public_names

STORED = Path(__file__).parent / "reference" / "public_names.txt"


def test_every_public_name_takes_what_it_took() -> None:
    """A name or parameter may come; one that goes, or a default that changes, is on purpose.

    ``python tests/public_names.py`` writes the list again.
    """
    stored = STORED.read_text().splitlines()
    found = set(public_names.lines())
    assert [line for line in stored if line not in found] == []


def test_dir_shows_public_names_only() -> None:
    assert dir(me) == sorted([*me.__all__, "__version__"])
