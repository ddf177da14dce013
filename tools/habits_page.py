"""Write the table of other packages' names into docs/migration.md.

python tools/habits_page.py
"""

from __future__ import annotations

from pathlib import Path

from mixedeffects.base.habits import habits_page

PAGE = Path(__file__).resolve().parent.parent / "docs" / "migration.md"
FIRST, LAST = "% made by tools/habits_page.py\n\n", "\n% end of what is made\n"


def with_table(page: str) -> str:
    """The page with the table as the package has it now."""
    before, rest = page.split(FIRST)
    behind = rest.split(LAST)[1]
    return f"{before}{FIRST}{habits_page()}\n{LAST}{behind}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
