"""The page of data sets says what the catalogue and the data say, and its examples run."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

import mixedeffects as me
from mixedeffects.datasets.catalogue import catalogue

_PAGE = (Path(__file__).parents[1] / "docs" / "datasets.md").read_text(encoding="utf-8")
_SECTIONS = {
    part.split("\n", 1)[0].strip(): part.split("\n", 1)[1]
    for part in re.split(r"^## ", _PAGE, flags=re.MULTILINE)[1:]
}
_NAMES = list(catalogue())


def _values(column: pd.Series) -> str:
    """What the table says about the values of a column."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        levels = len(column.cat.categories)
        kind = "ordered factor" if column.cat.ordered else "factor"
        kind += f", {levels:,} level{'' if levels == 1 else 's'}"
    elif pd.api.types.is_numeric_dtype(column):
        kind = "whole numbers" if pd.api.types.is_integer_dtype(column) else "numbers"
    else:
        kind = "text"
    missing = int(column.isna().sum())
    return f"{kind}; {missing:,} missing" if missing else kind


def test_all_data_sets_are_there_in_order() -> None:
    assert list(_SECTIONS) == _NAMES


@pytest.mark.parametrize("name", _NAMES)
def test_columns_are_those_of_the_data(name: str) -> None:
    data, notes = me.load_dataset(name), catalogue()[name]["columns"]
    expected = [
        f"| `{column}` | {note['meaning']} | {note['unit']} | {_values(data[column])} |"
        for column, note in notes.items()
    ]
    rows = [line for line in _SECTIONS[name].splitlines() if line.startswith("| `")]
    assert rows == expected
    assert list(notes) == list(data.columns)


@pytest.mark.parametrize("name", _NAMES)
def test_provenance_is_that_of_the_catalogue(name: str) -> None:
    entry = catalogue()[name]
    text = " ".join(_SECTIONS[name].split())
    distributed = entry["object"]
    if entry["package"]:
        distributed = (
            f"R package {entry['package']} {entry['package_version']}, object `{distributed}`"
        )
    for fact in (
        f"{entry['description']}. {entry['details']}",
        f"* Rows and columns: {entry['rows']:,} x {len(entry['columns'])}.",
        f"* Source: {entry['source']}.",
        f"* Distributed with: {distributed}.",
        f"* Licence: {entry['licence']}.",
    ):
        assert fact in text
    assert "* Design: " in text
    assert "* Note: " in text


@pytest.mark.parametrize("name", _NAMES)
def test_examples_run(name: str) -> None:
    (code,) = re.findall(r"```\{code-cell\} ipython3\n(.*?)```", _SECTIONS[name], re.DOTALL)
    assert f'load_dataset("{name}")' in code
    exec(compile(code, f"docs/datasets.md: {name}", "exec"), {"me": me})
