"""The page of messages has every message of the package, and none that the package lacks."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import mixedeffects

_PACKAGE = Path(mixedeffects.__file__).parent
_PAGE = Path(__file__).parents[1] / "docs" / "messages.md"

#: Functions that raise, warn, or make an error, with the message as their first argument.
_MAKERS = {"doubt", "fail", "problem", "warn"}

#: Calls whose message is made elsewhere, where it is found as text.
_PASSED_ON = {
    ("adapters/marginaleffects.py", "_NEEDED"),
    ("engine/assembly.py", "terms"),
    # Sentences of engine/generalized/limits.py, with a capital.
    ("fitting/generalized/fitting.py", "said"),
    ("engine/factorisation.py", "str(error)"),
    # A kind that the reader of structures does not let through.
    ("engine/residual_families.py", "kind"),
    ("engine/memory.py", "members"),
    ("engine/objective.py", "str(error)"),
    ("formula/reader.py", "message"),
    # Taken by Profile, which makes a warning or an error of it.
    ("inference/profile_curve.py", "minimum"),
    # Caught where a file of statistics is written and read.
    ("base/plain.py", "type(value).__name__"),
    ("base/plain.py", "kind"),
    # Kept with the fit by the function that could not find a way back.
    ("inference/response_scale.py", "way"),
    # Worded where rows are selected, given at the fit.
    ("base/warning.py", "sentence"),
    ("fitting/fitting.py", "sentence"),
    ("fitting/lazy_fitting.py", "sentence"),
    # Found as text, being a constant.
    ("fitting/lazy_fitting.py", "_STRUCTURED"),
    ("fitting/generalized/fitting.py", "sentence"),
    # Worded beside the search for a direction.
    ("fitting/generalized/fitting.py", "separation_message(found, frame.fixef_names)"),
    ("frame/build.py", "sentence"),
    ("lazy/sufficient.py", "sentence"),
    # Worded by `doubt_text` and `doubt_spelling`.
    ("lazy/model.py", "s"),
    # A pair of factors that the sums always have.
    ("engine/from_sums.py", "(one, other)"),
    ("frame/data_files.py", "sentence"),
    ("prediction/planned.py", "sentence"),
    # AttributeError, for Python's own use.
    ("lazy/stored.py", "name"),
    ("storage/former_paths.py", "name"),
    ("frame/without_rows.py", "name"),
    ("storage/without_data.py", "name"),
    ("storage/generalized_without_data.py", "name"),
    ("storage/residuals_without_data.py", "name"),
    ("storage/generalized_without_data.py", "name"),
    ("base/value_method.py", "name"),
    ("model/linear_mixed_model.py", "name"),
    ("model/generalized_linear_mixed_model.py", "name"),
    # Worded by `sentence` of the first, for all names alike.
    ("model/generalized/refused.py", "sentence(name)"),
    ("model/generalized_linear_mixed_model.py", "sentence(name)"),
    ("covariance/operator.py", "name"),
    ("display/summary.py", "name"),
    ("inference/marginal_means.py", "name"),
    ("inference/pooled_fits.py", "name"),
}

_FIRST_WORDS = 5
_ENOUGH_WORDS = 3


@dataclass(frozen=True)
class Site:
    """A place in the source that makes a message; the text has … for what is filled in."""

    module: str
    line: int
    text: str
    expression: str


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(v) if isinstance(v, ast.Constant) else "…" for v in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return "…"


def _source(node: ast.expr) -> str:
    """The expression, or what an f-string begins with: quotes depend on Python's version."""
    if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.FormattedValue):
        return ast.unparse(node.values[0].value)
    return ast.unparse(node)


def _alternatives(node: ast.expr) -> list[ast.expr]:
    """The two messages of ``one if condition else other``."""
    return [node.body, node.orelse] if isinstance(node, ast.IfExp) else [node]


def _sites() -> Iterator[Site]:
    for path in sorted(_PACKAGE.rglob("*.py")):
        module = path.relative_to(_PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else None
            name = function.id if isinstance(function, ast.Name) else name
            if name in _MAKERS or re.fullmatch(r"[A-Z]\w*(Error|Warning)", name or ""):
                for message in _alternatives(node.args[0]):
                    yield Site(module, node.lineno, _text(message), _source(message))


def _pieces(text: str) -> list[str]:
    """Words between the places that are filled in, without punctuation."""
    return [" ".join(re.findall(r"\w+", piece)).lower() for piece in text.split("…")]


def _fingerprint(text: str) -> list[str]:
    """The first words of each piece that has enough of them, else of the longest piece."""
    pieces = [piece.split() for piece in _pieces(text)]
    long = [piece for piece in pieces if len(piece) >= _ENOUGH_WORDS]
    chosen = long or [piece for piece in [max(pieces, key=len)] if piece]
    return [" ".join(piece[:_FIRST_WORDS]) for piece in chosen]


def _page_messages() -> list[str]:
    """The code spans that make up the heads of the list's items."""
    spans, head = [], False
    for line in _PAGE.read_text(encoding="utf-8").splitlines():
        head = line.startswith("* `") or (head and line.startswith("  `"))
        found = re.fullmatch(r"(?:\* |  )(`+) ?(.*?) ?\1\\", line)
        if head and found:
            spans.append(found[2])
        else:
            head = False
    return spans


_SITES = list(_sites())
_MESSAGES = _page_messages()


def test_the_sources_and_the_page_are_read() -> None:
    assert len(_SITES) > 350
    assert len(_MESSAGES) > 300
    assert "There is no column `…` in the data.… The columns are: …." in {s.text for s in _SITES}
    assert "There is no column `…` in the data.… The columns are: …." in _MESSAGES
    assert _fingerprint("…: … is not one of the levels (…).") == ["is not one of the"]


def test_every_message_is_on_the_page() -> None:
    on_page = [" … ".join(_pieces(message)) for message in _MESSAGES]
    missing = [
        f"{site.module}:{site.line}: {site.text}"
        for site in _SITES
        if not any(all(p in message for p in _fingerprint(site.text)) for message in on_page)
    ]
    assert not missing, "add to docs/messages.md, with cause and cure:\n" + "\n".join(missing)


def test_messages_made_elsewhere_are_known() -> None:
    unknown = {
        (site.module, site.expression) for site in _SITES if not _fingerprint(site.text)
    } - _PASSED_ON
    assert not unknown, "messages without text of their own: see _PASSED_ON"


def test_every_message_on_the_page_is_in_the_source() -> None:
    everything = "\n".join(
        " … ".join(_pieces(_text(node)))
        for path in _PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.JoinedStr | ast.Constant)
    )
    stale = [m for m in _MESSAGES if any(piece not in everything for piece in _pieces(m))]
    assert not stale


@pytest.mark.parametrize("message", ["FormulaError", "DataError", "ModelError", "CostWarning"])
def test_classes_are_explained(message: str) -> None:
    assert f"| `{message}` |" in _PAGE.read_text(encoding="utf-8")
