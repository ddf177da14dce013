"""Pages that name many things: the names exist, the formulas can be read and the cells run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

import mixedeffects as me
from mixedeffects.formula import parse_formula
from references import fitted_model

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [
    *("contrasts", "reporting", "citing", "spss-jasp-jamovi", "residual-covariance", "mmrm"),
    *("families", "generalized", "three-studies", "beyond-memory"),
]

_BLOCK = re.compile(r"^```(.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CHAIN = re.compile(r"(?<![\w.])(me|m)\.([A-Za-z_]\w*)")


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def spans(name: str) -> list[str]:
    return re.findall(r"`([^`]+)`", _BLOCK.sub("", page(name)))


@pytest.mark.parametrize("name", PAGES)
def test_cells_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A page may write files of its own, and goes to a folder for that.
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    cells = [code for kind, code in _BLOCK.findall(page(name)) if kind.startswith("{code-cell}")]
    assert cells
    for cell in cells:
        code = re.sub(r"^:tags:.*$", "", cell, flags=re.MULTILINE)
        exec(compile(code, f"docs/{name}.md", "exec"), names)
    plt.close("all")


@pytest.mark.parametrize("name", PAGES)
def test_names_exist(name: str) -> None:
    text = " ".join(spans(name))
    m: Any = fitted_model("sleepstudy")
    if name in ("generalized", "three-studies"):
        cbpp = me.load_dataset("cbpp")
        m = me.glmer("incidence ~ period + (1 | herd)", cbpp, family="poisson")
    roots = {"me": me, "m": m}
    missing = [chain for chain in _CHAIN.findall(text) if not hasattr(roots[chain[0]], chain[1])]
    assert not missing


def test_formulas_can_be_read() -> None:
    found = [span.replace("\\|", "|") for span in spans("spss-jasp-jamovi")]
    terms = {span for span in found if re.match(r"(diag|cs|ar1)?\([^)]*\|[^)]*\)", span)}
    assert len(terms) > 12
    for term in terms:
        assert parse_formula(f"y ~ {term}").random, term


def test_tables_for_excel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openpyxl")
    monkeypatch.chdir(tmp_path)
    m = me.lmer("distance ~ age * Sex + (age | Subject)", me.load_dataset("orthodont"))
    section = page("reporting").split("## Excel", 1)[1]
    exec(_BLOCK.findall(section)[0][1], {"m": m, "me": me})
    assert (tmp_path / "growth.xlsx").stat().st_size > 5000


def test_tables_for_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("maketables")
    monkeypatch.chdir(tmp_path)
    m = me.lmer("distance ~ age * Sex + (age | Subject)", me.load_dataset("orthodont"))
    section = page("reporting").split("## Word", 1)[1]
    exec(_BLOCK.findall(section)[0][1], {"m": m, "additive": m.update(". ~ . - age:Sex")})
    assert (tmp_path / "table.docx").stat().st_size > 5000
