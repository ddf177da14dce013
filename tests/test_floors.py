"""The floor plan: what CONTRIBUTING.md says, what the contract says, and what is there."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "mixedeffects"

#: Lines of the longest file of the rooms that hold docstrings.
LONGEST = 600


def floors_of_the_contract() -> list[set[str]]:
    """From the top down."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (layers,) = (each["layers"] for each in contracts if each["type"] == "layers")
    return [set(re.split(r"\s*\|\s*", layer)) for layer in layers]


def floors_of_the_page() -> list[set[str]]:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| ([^|]*) \|", text, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(len(rows)))[::-1]
    return [set(re.findall(r"`(\w+)`", rooms)) for _, rooms in rows]


def rooms() -> set[str]:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    return folders | {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}


def test_every_room_has_its_floor() -> None:
    assert set.union(*floors_of_the_contract()) == rooms()


def test_the_page_says_what_the_contract_says() -> None:
    top, second, third, *rest = floors_of_the_contract()
    assert floors_of_the_page() == [top | second | third, *rest]


def test_rooms_import_nothing_but_kernels_from_the_package_itself() -> None:
    for path in PACKAGE.glob("*/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert "mixedeffects" not in [name.name for name in node.names], path
            elif isinstance(node, ast.ImportFrom) and node.module == "mixedeffects":
                assert [name.name for name in node.names] == ["_kernels"], path


def test_no_room_reaches_into_a_model() -> None:
    """What a fit knows is in the record; attributes of the facade are for users."""
    for path in PACKAGE.glob("*/**/*.py"):
        if path.parent.name != "model":
            assert "LinearMixedModel(" not in path.read_text(encoding="utf-8"), path


def test_files_of_the_facade_are_short() -> None:
    for path in (PACKAGE / "model").glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST, path
