"""The page for users of other packages: its names exist, its code runs, its tables are complete."""

from __future__ import annotations

import functools
import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

import mixedeffects as me
from mixedeffects.base.habits import OF_A_GENERALIZED_FIT
from mixedeffects.formula import parse_formula
from references import fitted_model

_PAGE = (Path(__file__).parents[1] / "docs" / "migration.md").read_text(encoding="utf-8")
_NAMES = json.loads(
    (Path(__file__).parent / "reference" / "names" / "lme4_names.json").read_text(encoding="utf-8")
)
_BLOCK = re.compile(r"^```(.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What is typed by users of other packages, the first column of one table, is not there on purpose.
_TYPED = re.compile(r"^\| `m\.\w+` (?=\| \S+ \| )", re.MULTILINE)
_SPANS = re.findall(r"`([^`]+)`", _TYPED.sub("", _BLOCK.sub("", _PAGE)))

_CHAIN = re.compile(r"(?<![\w.`])(me|m)\.([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")
#: Fields of a fit in MixedModels.jl, which are written like attributes.
_JULIA = {"β", "σ", "σs", "σρs", "θ", "λ", "b", "u", "optsum"}


def _blocks(kind: str) -> list[str]:
    return [code for language, code in _BLOCK.findall(_PAGE) if language.strip() == kind]


def _chains() -> list[tuple[str, str]]:
    return sorted({chain for span in _SPANS for chain in _CHAIN.findall(span)})


def _section(title: str) -> str:
    return _PAGE.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def _first_column(section: str) -> set[str]:
    """The names in the code spans of the first column of a section's tables."""
    rows = [re.split(r"(?<!\\)\|", line)[1] for line in section.splitlines() if line[:2] == "| "]
    return {span for cell in rows for span in re.findall(r"`([^`]+)`", cell)}


def test_the_page_is_read() -> None:
    assert len(_chains()) > 60
    assert ("m", "satterthwaite.df") in _chains()
    assert ("me", "lmer") in _chains()
    assert len(_blocks("{code-cell} ipython3")) > 8


@functools.cache
def _generalized() -> me.GeneralizedLinearMixedModel:
    data = me.load_dataset("grouseticks")
    return me.glmer("TICKS ~ YEAR + (1 | BROOD)", data, family="negative_binomial")


@pytest.mark.parametrize(("root", "chain"), _chains())
def test_names_exist(root: str, chain: str) -> None:
    if root == "m" and chain in _JULIA:
        return
    if root == "m" and chain in OF_A_GENERALIZED_FIT:
        return
    found: Any = me if root == "me" else fitted_model("sleepstudy")
    if root == "m" and not hasattr(found, chain.split(".")[0]):
        found = _generalized()
    for name in chain.split("."):
        assert hasattr(found, name), f"{root}.{chain}: there is no {name}"
        found = getattr(found, name)


def test_components_of_getme_are_lme4s() -> None:
    m = fitted_model("sleepstudy")
    assert set(m.getme_names()) == set(_NAMES["getME"])
    used = {name for span in _SPANS for name in re.findall(r'm\.getme\("(\w+)"\)', span)}
    assert len(used) > 3
    assert used <= set(m.getme_names())


def test_code_cells_run() -> None:
    names: dict[str, Any] = {}
    for code in _blocks("{code-cell} ipython3"):
        exec(compile(code, "docs/migration.md", "exec"), names)


def test_code_for_statsmodels_runs() -> None:
    pytest.importorskip("statsmodels")
    names: dict[str, Any] = {}
    blocks = _blocks("python")
    assert len(blocks) == 4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for code in blocks:
            exec(compile(code, "docs/migration.md", "exec"), names)
    assert names["nested"].scale == pytest.approx(fitted_model("pastes").sigma ** 2, rel=1e-3)
    V = fitted_model("sleepstudy").V.block("308").to_numpy()
    assert abs(names["V"] - V).max() < 0.1


@pytest.mark.parametrize("kind", ["lme4", "lmerTest", "methods"])
def test_every_name_of_lme4_is_in_the_tables(kind: str) -> None:
    listed = _first_column(_section("lme4 and lmerTest, function by function"))
    assert not set(_NAMES[kind]) - listed


def test_every_attribute_of_statsmodels_results_is_in_the_table() -> None:
    pytest.importorskip("statsmodels")
    from statsmodels.regression.mixed_linear_model import MixedLMResults

    listed = _first_column(_section("statsmodels"))
    public = {name for name in dir(MixedLMResults) if not name.startswith("_")}
    assert not public - listed


def test_statements_about_cooks_distance() -> None:
    """lme4 1.1-31: head(cooks.distance(m)) and head(cooks.distance(influence(m, "Subject")))."""
    m = fitted_model("sleepstudy")
    h, p = m.leverage(), len(m.fixef)
    rows = m.resid("scaled") ** 2 * h / (1 - h) ** 2 / p
    assert rows.iloc[:3].to_numpy() == pytest.approx([0.004963, 0.040206, 0.226099], rel=2e-4)
    table = m.influence(by="Subject", refit=True).to_frame()
    levels = table["cooks_d"] * (1 - p / len(table))
    assert levels.iloc[:3].to_numpy() == pytest.approx([0.082148, 0.132021, 0.098241], rel=2e-4)
    assert table["dfbeta_Days"].iloc[:3].to_numpy() == pytest.approx(
        [0.664554, -0.482677, -0.256023], rel=2e-4
    )


def test_zero_weights_are_refused() -> None:
    sleep = me.load_dataset("sleepstudy")
    with pytest.raises(me.DataError, match="Weights must be positive"):
        me.lmer("Reaction ~ Days + (1 | Subject)", sleep, weights=sleep["Days"])


def _random_terms() -> list[str]:
    """Random-effects terms in the second columns, such as ``(x | g)`` and ``cs(0 + f | g)``."""
    cells = [re.split(r"(?<!\\)\|", line) for line in _PAGE.splitlines() if line[:2] == "| "]
    spans = [span for cell in cells for span in re.findall(r"`([^`]+)`", cell[2])]
    terms = [span.replace("\\|", "|") for span in spans]
    return sorted({t for t in terms if re.match(r"(us|diag|cs|ar1)?\(.*\|.*\)$", t)})


@pytest.mark.parametrize("terms", _random_terms())
def test_formulas_can_be_read(terms: str) -> None:
    assert parse_formula(f"y ~ {terms}").random


def test_formulas_of_structures_are_found() -> None:
    assert len(_random_terms()) > 15


def test_every_difficulty_elsewhere_is_shown_by_tests_that_exist() -> None:
    section = _PAGE.split("#### What was difficult elsewhere")[1].split("\n### ")[0]
    rows = re.findall(r"^\| (?!reported)(?!-)(.*) \|$", section, re.MULTILINE)
    assert len(rows) >= 16
    for row in rows:
        reported, _, shown = row.split(" | ")
        assert "/issues/" in reported
        named = re.findall(r"`(test_\w+\.py)`: ((?:`test_\w+`(?:, )?)+)", shown)
        assert named, row
        for file, functions in named:
            source = (Path(__file__).parent / file).read_text(encoding="utf-8")
            for function in re.findall(r"`(test_\w+)`", functions):
                assert f"\ndef {function}(" in source, function
